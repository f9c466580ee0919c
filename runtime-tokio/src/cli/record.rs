//! A record as text or JSON, the same for `produce` and `consume`.
//!
//! In JSON, each line is one record:
//! `{"topic":"t","partition":0,"offset":5,"timestamp":1700000000000,"key":"k","value":"v",
//! "headers":[{"key":"h","value":"v"}]}`. A key or value is a string where it is UTF-8, `{"base64":"…"}` where it is
//! not, and `null` where there is none: what was consumed can be produced again, byte for byte.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::io::{self, Write};
use tidelog_client::producer::ProducerRecord;
use tidelog_core::batch::Record;

/// A record with the names that it has in JSON.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JsonRecord<'a> {
    /// Written by `consume`. `produce` ignores it: its topic is named on the command line.
    #[serde(borrow, default)]
    pub topic: Option<Cow<'a, str>>,
    #[serde(default)]
    pub partition: Option<i32>,
    #[serde(default)]
    pub offset: Option<i64>,
    #[serde(default)]
    pub timestamp: Option<i64>,
    #[serde(default)]
    pub key: Option<Field>,
    /// Must be there, even if it is null: a record without a value deletes its key in a compacted topic, and nobody
    /// should do that by forgetting a field.
    #[serde(deserialize_with = "Option::deserialize")]
    pub value: Option<Field>,
    #[serde(default)]
    pub headers: Vec<JsonHeader>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JsonHeader {
    pub key: String,
    #[serde(deserialize_with = "Option::deserialize")]
    pub value: Option<Field>,
}

/// The bytes of a key or a value. In JSON they are a string or `{"base64":"…"}` (see the module's documentation).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field(pub Bytes);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Base64 {
    base64: String,
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Base64 { base64: BASE64_STANDARD.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "allowed is a string, {\"base64\":\"…\"} or null")]
        enum Either {
            Text(String),
            Binary(Base64),
        }
        match Either::deserialize(deserializer)? {
            Either::Text(text) => Ok(Self(text.into())),
            Either::Binary(Base64 { base64 }) => {
                let bytes =
                    BASE64_STANDARD.decode(base64).map_err(|error| D::Error::custom(format!("base64: {error}")))?;
                Ok(Self(bytes.into()))
            }
        }
    }
}

impl<'a> JsonRecord<'a> {
    pub fn of(topic: &'a str, partition: i32, record: &Record) -> Self {
        let field = |bytes: &Option<Bytes>| bytes.clone().map(Field);
        let headers = record.headers.iter();
        Self {
            topic: Some(topic.into()),
            partition: Some(partition),
            offset: Some(record.offset.0),
            timestamp: (record.timestamp >= 0).then_some(record.timestamp),
            key: field(&record.key),
            value: field(&record.value),
            headers: headers.map(|it| JsonHeader { key: it.key.to_string(), value: field(&it.value) }).collect(),
        }
    }

    /// Reads a record from one line of JSON. The error says what is wrong and at which column.
    pub fn parse(line: &'a [u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| error.to_string().replace(" at line 1 column ", " at column "))
    }

    /// Puts the fields that a producer chooses into `record`: all but the topic and the offset.
    pub fn fill(self, record: &mut ProducerRecord) {
        record.partition = self.partition;
        record.timestamp = self.timestamp;
        record.key = self.key.map(|field| field.0);
        record.value = self.value.map(|field| field.0);
        record.headers = self.headers.into_iter().map(|it| (it.key.into(), it.value.map(|field| field.0))).collect();
    }
}

/// Which fields of a record are printed as text, besides its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    pub timestamp: bool,
    pub topic: bool,
    pub partition: bool,
    pub offset: bool,
    pub headers: bool,
    pub key: bool,
}

/// How records look as text.
#[derive(Clone, Debug)]
pub struct TextFormat {
    pub shown: Shown,
    pub separator: String,
    /// Printed for a key or value that is null.
    pub null: String,
}

impl TextFormat {
    /// One line: the time (UTC), topic, partition, offset, headers and key as far as they are shown, and the value.
    pub fn write(&self, out: &mut impl Write, topic: &str, partition: i32, record: &Record) -> io::Result<()> {
        if self.shown.timestamp {
            write!(out, "{}{}", time_text(record.timestamp), self.separator)?;
        }
        if self.shown.topic {
            write!(out, "{topic}{}", self.separator)?;
        }
        if self.shown.partition {
            write!(out, "{partition}{}", self.separator)?;
        }
        if self.shown.offset {
            write!(out, "{}{}", record.offset, self.separator)?;
        }
        if self.shown.headers {
            write_headers(out, record, &self.null)?;
            out.write_all(self.separator.as_bytes())?;
        }
        if self.shown.key {
            out.write_all(record.key.as_deref().unwrap_or(self.null.as_bytes()))?;
            out.write_all(self.separator.as_bytes())?;
        }
        out.write_all(record.value.as_deref().unwrap_or(self.null.as_bytes()))?;
        out.write_all(b"\n")
    }
}

/// `name=value,name=value`; `null` is printed for a value that is null.
pub fn write_headers(out: &mut impl Write, record: &Record, null: &str) -> io::Result<()> {
    for (header, index) in record.headers.iter().zip(0..) {
        write!(out, "{}{}=", if index == 0 { "" } else { "," }, header.key)?;
        out.write_all(header.value.as_deref().unwrap_or(null.as_bytes()))?;
    }
    Ok(())
}

/// A timestamp as a time in RFC 3339, or a dash for a record without a timestamp (-1).
fn time_text(ms: i64) -> String {
    match u64::try_from(ms).ok().and_then(|ms| std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(ms)))
    {
        // RFC 3339 has no text for a time after the year 9999.
        Some(time) if ms < 253_402_300_800_000 => humantime::format_rfc3339_millis(time).to_string(),
        Some(_) => ms.to_string(),
        None => "-".to_owned(),
    }
}

/// Reads a time: a number of milliseconds since 1970, or a date or a time in RFC 3339 (UTC). Returns milliseconds since
/// 1970.
pub fn parse_time(text: &str) -> Result<i64, String> {
    const ALLOWED: &str = "allowed is a time in UTC such as 2026-11-21T18:00:00Z, or milliseconds since 1970";
    if let Ok(ms) = text.parse::<i64>() {
        return if ms >= 0 { Ok(ms) } else { Err(ALLOWED.to_owned()) };
    }
    let padded = if text.len() == "2026-11-21".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time = humantime::parse_rfc3339_weak(&padded).map_err(|error| format!("{error}; {ALLOWED}"))?;
    let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| ALLOWED.to_owned())?;
    i64::try_from(since.as_millis()).map_err(|_| ALLOWED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_core::batch::RecordHeader;
    use tidelog_core::ids::Offset;

    fn record() -> Record {
        Record {
            offset: Offset(5),
            timestamp: 1_700_000_000_123,
            key: Some(Bytes::from_static(b"\xff\x00k")),
            value: None,
            headers: vec![
                RecordHeader { key: "h".into(), value: Some(Bytes::from_static(b"\"1\"")) },
                RecordHeader { key: "h".into(), value: None },
            ],
        }
    }

    #[test]
    fn a_record_goes_through_json_and_back_byte_for_byte() {
        let line = serde_json::to_string(&JsonRecord::of("t", 3, &record())).unwrap();
        insta::assert_snapshot!(line, @r#"{"topic":"t","partition":3,"offset":5,"timestamp":1700000000123,"key":{"base64":"/wBr"},"value":null,"headers":[{"key":"h","value":"\"1\""},{"key":"h","value":null}]}"#);
        let mut read = ProducerRecord {
            id: 1,
            topic: "other".into(),
            partition: None,
            timestamp: None,
            key: None,
            value: None,
            headers: Vec::new(),
        };
        JsonRecord::parse(line.as_bytes()).unwrap().fill(&mut read);
        assert_eq!((read.partition, read.timestamp, &read.topic[..]), (Some(3), Some(1_700_000_000_123), "other"));
        assert_eq!((read.key, read.value), (record().key, None));
        let headers: Vec<_> = record().headers.into_iter().map(|it| (it.key, it.value)).collect();
        assert_eq!(read.headers, headers);
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said_with_its_column() {
        let refused = |line: &str| JsonRecord::parse(line.as_bytes()).unwrap_err();
        insta::assert_snapshot!(refused("hello"), @"expected value at column 1");
        insta::assert_snapshot!(refused(r#"{"key":"k"}"#), @"missing field `value` at column 11");
        insta::assert_snapshot!(refused(r#"{"vlaue":"k"}"#), @"unknown field `vlaue`, expected one of `topic`, `partition`, `offset`, `timestamp`, `key`, `value`, `headers` at column 8");
        insta::assert_snapshot!(refused(r#"{"value":5}"#), @r#"allowed is a string, {"base64":"…"} or null at column 11"#);
        insta::assert_snapshot!(refused(r#"{"value":{"base64":"?"}}"#), @"base64: Invalid symbol 63, offset 0. at column 24");
    }

    #[test]
    fn text_shows_what_was_asked_for_in_a_fixed_order() {
        let all = Shown { timestamp: true, topic: true, partition: true, offset: true, headers: true, key: true };
        let text = |shown| {
            let mut out = Vec::new();
            let format = TextFormat { shown, separator: "|".into(), null: "NULL".into() };
            let record = Record { key: Some("k".into()), ..record() };
            format.write(&mut out, "t", 3, &record).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(Shown::default()), "NULL\n");
        assert_eq!(text(all), "2023-11-14T22:13:20.123Z|t|3|5|h=\"1\",h=NULL|k|NULL\n");
    }

    #[test]
    fn a_time_is_a_number_a_date_or_a_time_of_day() {
        assert_eq!(parse_time("1700000000123"), Ok(1_700_000_000_123));
        assert_eq!(parse_time("2023-11-14"), Ok(1_699_920_000_000));
        assert_eq!(parse_time("2023-11-14T22:13:20.123Z"), Ok(1_700_000_000_123));
        assert_eq!(parse_time("2023-11-14 22:13:20"), Ok(1_700_000_000_000));
        for text in ["", "-1", "noon", "2023-13-01", "2023-11-14T22:13"] {
            assert!(parse_time(text).unwrap_err().contains("allowed is a time in UTC"), "{text}");
        }
        assert_eq!(time_text(-1), "-");
        assert_eq!(time_text(i64::MAX), i64::MAX.to_string());
    }
}
