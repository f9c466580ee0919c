//! The wire format, over every message at once.
//!
//! The tests draw bytes from the schemas with an encoder of their own (`sample`), which shares nothing with the
//! generated code but the schemas.

mod differential;
mod error_code;
mod frame;
mod header;
mod hostile;
mod json;
mod round_trip;
mod sample;
mod snapshots;
mod varint;
mod versions;

use bytes::Bytes;
use sample::schema::Message;
use tidelog_wire::messages::{ApiKey, RemoteLogRecord};
use tidelog_wire::{DecodeError, MetadataRecord, Reader, RequestBody, ResponseBody, Writer};

/// All schemas: folder, file, message.
fn schemas() -> Vec<(&'static str, Message)> {
    let texts: &[(&str, &str, &str)] = &include!(concat!(env!("OUT_DIR"), "/schemas.rs"));
    texts.iter().map(|&(folder, file, text)| (folder, sample::schema::parse(file, text))).collect()
}

/// The schemas of all live requests or responses.
fn bodies(kind: &str) -> Vec<(ApiKey, Message)> {
    let live = schemas().into_iter().filter(|(_, m)| m.kind == kind && m.versions.is_some());
    let of_key = |m: &Message| ApiKey::from_code(m.key.expect("requests and responses have one"));
    live.map(|(_, m)| (of_key(&m).expect("the schemas have made the keys"), m)).collect()
}

fn versions(message: &Message) -> std::ops::RangeInclusive<i16> {
    let (first, last) = message.versions.expect("a live message");
    first..=last
}

/// The schema of one message.
fn schema(name: &str) -> Message {
    let found = schemas().into_iter().find(|(_, m)| m.name == name);
    found.unwrap_or_else(|| panic!("no schema {name}")).1
}

/// Requests and responses alike.
#[derive(Debug, PartialEq)]
enum Body {
    Request(RequestBody),
    Response(ResponseBody),
}

impl Body {
    fn decode(kind: &str, key: ApiKey, version: i16, bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let body = match kind {
            "request" => Self::Request(RequestBody::decode(key, version, &mut reader)?),
            _ => Self::Response(ResponseBody::decode(key, version, &mut reader)?),
        };
        reader.expect_end(key.name())?;
        Ok(body)
    }

    fn encode(&self, version: i16) -> Bytes {
        let mut writer = Writer::new();
        match self {
            Self::Request(body) => body.encode(version, &mut writer),
            Self::Response(body) => body.encode(version, &mut writer),
        }
        writer.into_bytes()
    }
}

/// Decodes and encodes the value of a record in the framing of the log it belongs to.
fn record_round_trip(folder: &str, bytes: Bytes) -> Result<Bytes, DecodeError> {
    Ok(match folder {
        "metadata" => {
            let (record, version) = MetadataRecord::decode(bytes)?;
            record.encode(version)
        }
        _ => {
            let (record, version) = RemoteLogRecord::decode(bytes)?;
            record.encode(version)
        }
    })
}
