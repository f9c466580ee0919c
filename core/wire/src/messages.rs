//! Every message and record of Kafka 4.3, generated from `core/wire/schema/` by `core/wire/build.rs`.
//!
//! Each message has a module, which holds its root struct and the structs that the root struct contains. The root
//! struct is exported from here as well. It has `decode` and `encode` for each version in `VERSIONS`, and `from_bytes`
//! and `to_bytes` for bytes that hold nothing else.
//!
//! A field that a version lacks has its default after decoding. To encode another value of such a field is a bug of
//! ours (a debug assertion), unless the schema marks the field as ignorable.
#![allow(unused_variables, clippy::all)] // What the generator emits is regular, not idiomatic.

use super::json::{JsonWriter, record_type};
use super::reader::{DecodeError, DecodeErrorKind, Reader};
use super::writer::Writer;
use bytes::Bytes;
use std::ops::RangeInclusive;

/// What every generated module needs.
mod prelude {
    pub(super) use crate::ids::Uuid;
    pub(super) use crate::json::JsonWriter;
    pub(super) use crate::reader::{DecodeError, Reader};
    pub(super) use crate::records::{Int32s, Records, TaggedFields};
    pub(super) use crate::writer::Writer;
    pub(super) use bytes::Bytes;
    pub(super) use bytestring::ByteString;
    pub(super) use std::ops::RangeInclusive;
}

/// The public functions of a root struct. They call its generated `read` and `write`.
macro_rules! message {
    ($name:ident, $first:literal, $last:literal) => {
        impl $name {
            pub const NAME: &'static str = stringify!($name);
            /// The versions the codec knows.
            pub const VERSIONS: RangeInclusive<i16> = $first..=$last;

            /// Reads the message, and leaves the bytes after it in the reader.
            pub fn decode(version: i16, reader: &mut Reader) -> Result<Self, DecodeError> {
                reader.message(Self::NAME, Self::VERSIONS, version, Self::read)
            }

            pub fn encode(&self, version: i16, writer: &mut Writer) {
                assert!(Self::VERSIONS.contains(&version), "{} has no version {version}", Self::NAME);
                self.write(version, writer);
            }

            /// Reads bytes that hold this message and nothing else.
            pub fn from_bytes(version: i16, bytes: Bytes) -> Result<Self, DecodeError> {
                let mut reader = Reader::new(bytes);
                let message = Self::decode(version, &mut reader)?;
                reader.expect_end(Self::NAME)?;
                Ok(message)
            }

            pub fn to_bytes(&self, version: i16) -> Bytes {
                let mut writer = Writer::new();
                self.encode(version, &mut writer);
                writer.into_bytes()
            }
        }
    };
}

/// `to_json` for the messages that stand in logs, so that tools can show them.
macro_rules! described {
    ($name:ident) => {
        impl $name {
            /// The fields of this version, as Kafka's own tools name them, in one line of JSON.
            pub fn to_json(&self, version: i16) -> String {
                let mut json = JsonWriter::default();
                self.describe(version, &mut json);
                json.into_text()
            }
        }
    };
}

/// Defines `ApiKey` with its table of versions, and the enums `RequestBody` and `ResponseBody`.
macro_rules! apis {
    ($($old_key:literal $old:ident removed;)*
     @
     $($key:literal $api:ident $request:ident $response:ident $first:literal $last:literal $flexible:literal
       $broker:literal $controller:literal;)*) => {
        /// Names the API that a request calls. Of an API that Kafka has removed, only the name is known.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $($api = $key,)*
            $($old = $old_key,)*
        }

        impl ApiKey {
            /// Every key that Kafka has not removed, in ascending order.
            pub const ALL: &'static [ApiKey] = &[$(ApiKey::$api),*];

            pub fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($key => Some(Self::$api),)*
                    $($old_key => Some(Self::$old),)*
                    _ => None,
                }
            }

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$api => stringify!($api),)*
                    $(Self::$old => stringify!($old),)*
                }
            }

            /// The stable versions of Kafka 4.3; `None` for a removed key.
            pub fn versions(self) -> Option<RangeInclusive<i16>> {
                match self {
                    $(Self::$api => Some($first..=$last),)*
                    $(Self::$old => None,)*
                }
            }

            /// The versions that the codec knows, unstable ones included.
            pub fn codec_versions(self) -> Option<RangeInclusive<i16>> {
                match self {
                    $(Self::$api => Some($request::VERSIONS),)*
                    $(Self::$old => None,)*
                }
            }

            /// The first version with compact lengths and tagged fields; `i16::MAX` for none.
            pub fn first_flexible_version(self) -> i16 {
                match self {
                    $(Self::$api => $flexible,)*
                    $(Self::$old => i16::MAX,)*
                }
            }

            /// Whether Kafka's brokers serve this API.
            pub fn is_for_brokers(self) -> bool {
                match self {
                    $(Self::$api => $broker,)*
                    $(Self::$old => false,)*
                }
            }

            /// Whether Kafka's controllers serve this API.
            pub fn is_for_controllers(self) -> bool {
                match self {
                    $(Self::$api => $controller,)*
                    $(Self::$old => false,)*
                }
            }
        }

        /// The body of a request.
        #[derive(Clone, Debug, PartialEq)]
        pub enum RequestBody {
            $($api($request),)*
            /// An ApiVersions request of a version that Kafka 4.3 does not know: its body cannot be read, and it is
            /// answered nevertheless (KIP-511).
            UnsupportedApiVersions,
        }

        impl RequestBody {
            pub fn api_key(&self) -> ApiKey {
                match self {
                    $(Self::$api(_) => ApiKey::$api,)*
                    Self::UnsupportedApiVersions => ApiKey::ApiVersions,
                }
            }

            pub fn decode(api_key: ApiKey, version: i16, reader: &mut Reader) -> Result<Self, DecodeError> {
                Ok(match api_key {
                    $(ApiKey::$api => Self::$api($request::decode(version, reader)?),)*
                    $(ApiKey::$old => return Err(removed(api_key, version)),)*
                })
            }

            pub fn encode(&self, version: i16, writer: &mut Writer) {
                match self {
                    $(Self::$api(body) => body.encode(version, writer),)*
                    Self::UnsupportedApiVersions => panic!("an ApiVersions request of an unknown version is only ever received"),
                }
            }
        }

        /// The body of a response.
        #[derive(Clone, Debug, PartialEq)]
        pub enum ResponseBody {
            $($api($response),)*
        }

        impl ResponseBody {
            pub fn api_key(&self) -> ApiKey {
                match self {
                    $(Self::$api(_) => ApiKey::$api,)*
                }
            }

            pub fn decode(api_key: ApiKey, version: i16, reader: &mut Reader) -> Result<Self, DecodeError> {
                Ok(match api_key {
                    $(ApiKey::$api => Self::$api($response::decode(version, reader)?),)*
                    $(ApiKey::$old => return Err(removed(api_key, version)),)*
                })
            }

            pub fn encode(&self, version: i16, writer: &mut Writer) {
                match self {
                    $(Self::$api(body) => body.encode(version, writer),)*
                }
            }
        }

        $(
            impl From<$request> for RequestBody {
                fn from(body: $request) -> Self {
                    Self::$api(body)
                }
            }

            impl From<$response> for ResponseBody {
                fn from(body: $response) -> Self {
                    Self::$api(body)
                }
            }
        )*
    };
}

impl RequestBody {
    /// Whether this request is answered: all but a Produce with acks=0.
    pub fn is_answered(&self) -> bool {
        !matches!(self, Self::Produce(produce) if produce.acks == 0)
    }
}

fn removed(api_key: ApiKey, version: i16) -> DecodeError {
    DecodeError { message: api_key.name(), position: 0, kind: DecodeErrorKind::Version { version, first: 0, last: -1 } }
}

/// Defines an enum over the records of one log. In such a log the value of a record is framed as Kafka does: frame
/// version 1, record key, record version (each an unsigned varint), then the record.
macro_rules! records {
    ($enum_name:ident $($key:literal $short:ident $record:ident;)*) => {
        #[derive(Clone, Debug, PartialEq)]
        pub enum $enum_name {
            $($short($record),)*
        }

        impl $enum_name {
            /// Reads the value of a record of the log. Gives the record and the version in which it was written.
            pub fn decode(value: Bytes) -> Result<(Self, i16), DecodeError> {
                let mut reader = Reader::new(value);
                let (key, version) = reader.record_frame(stringify!($enum_name))?;
                let record = match key {
                    $($key => Self::$short($record::decode(version, &mut reader)?),)*
                    _ => return Err(reader.unknown_record(stringify!($enum_name), key)),
                };
                reader.expect_end(record.name())?;
                Ok((record, version))
            }

            /// The value of a record of the log.
            pub fn encode(&self, version: i16) -> Bytes {
                let mut writer = Writer::new();
                writer.uvarint(1);
                writer.uvarint(u32::from(self.key().cast_unsigned()));
                writer.uvarint(u32::from(version.cast_unsigned()));
                match self {
                    $(Self::$short(record) => record.encode(version, &mut writer),)*
                }
                writer.into_bytes()
            }

            pub fn key(&self) -> i16 {
                match self {
                    $(Self::$short(_) => $key,)*
                }
            }

            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$short(_) => $record::NAME,)*
                }
            }

            /// The record as Kafka's tools show it, in one line of JSON:
            /// `{"type":"TOPIC_RECORD","version":0,"data":{…}}`.
            pub fn to_json(&self, version: i16) -> String {
                let mut json = JsonWriter::default();
                json.begin('{');
                json.name("type");
                json.string(&record_type(self.name()));
                json.name("version");
                json.plain(&version);
                json.name("data");
                match self {
                    $(Self::$short(record) => record.describe(version, &mut json),)*
                }
                json.end('}');
                json.into_text()
            }

            /// The newest version of this kind of record.
            pub fn newest_version(&self) -> i16 {
                match self {
                    $(Self::$short(_) => *$record::VERSIONS.end(),)*
                }
            }
        }

        $(
            impl From<$record> for $enum_name {
                fn from(record: $record) -> Self {
                    Self::$short(record)
                }
            }
        )*
    };
}

include!(concat!(env!("OUT_DIR"), "/messages.rs"));
