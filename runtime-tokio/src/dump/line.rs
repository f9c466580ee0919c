//! What is told of a file, a line each: the same facts as text and as JSON.
//!
//! The names of the JSON are those of Kafka's `DumpLogSegments` where it has them.

use crate::looks::count;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use std::fmt::{self, Display};
use tidelog_core::batch::{BatchHeader, Codec, Record, TimestampType};

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Line {
    Batch {
        position: u64,
        size: usize,
        base_offset: i64,
        last_offset: i64,
        count: i32,
        partition_leader_epoch: i32,
        compression: &'static str,
        timestamp_type: &'static str,
        max_timestamp: i64,
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
        last_sequence: i32,
        is_transactional: bool,
        is_control: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        delete_horizon_ms: Option<i64>,
        crc: u32,
        is_valid: bool,
    },
    Record {
        offset: i64,
        timestamp: i64,
        key: Option<Content>,
        value: Option<Content>,
        headers: Vec<Header>,
    },
    /// What a broker wrote for other brokers.
    Control {
        offset: i64,
        timestamp: i64,
        #[serde(rename = "type")]
        kind: String,
        value: Box<RawValue>,
    },
    Metadata {
        offset: i64,
        timestamp: i64,
        payload: Box<RawValue>,
    },
    /// What a log holds, after its batches.
    Log {
        batches: u64,
        records: u64,
        first_offset: Option<i64>,
        last_offset: Option<i64>,
        max_timestamp: i64,
        valid_bytes: u64,
    },
    OffsetEntry {
        offset: i64,
        position: u32,
    },
    TimeEntry {
        timestamp: i64,
        offset: i64,
    },
    AbortedTransaction {
        producer_id: i64,
        first_offset: i64,
        last_offset: i64,
        last_stable_offset: i64,
    },
    Producer {
        producer_id: i64,
        producer_epoch: i16,
        coordinator_epoch: i32,
        current_transaction_first_offset: Option<i64>,
        last_timestamp: i64,
        first_offset: Option<i64>,
        last_offset: Option<i64>,
        last_sequence: i32,
    },
    LeaderEpoch {
        epoch: i32,
        start_offset: i64,
    },
    PartitionOffset {
        topic: String,
        partition: i32,
        offset: i64,
    },
    /// A file of names and values.
    Properties {
        #[serde(flatten)]
        values: Box<RawObject>,
    },
    /// Worth knowing, and no fault.
    Note {
        text: String,
    },
    Fault {
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<i64>,
        text: String,
    },
}

/// Names with values, in the order in which the file has them.
#[derive(Debug, Default)]
pub struct RawObject(pub Vec<(&'static str, serde_json::Value)>);

impl Serialize for RawObject {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// Bytes of a record: text where they are UTF-8. As `tidelog consume` has them.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Content {
    Text(String),
    Bytes { base64: String },
}

#[derive(Debug, Serialize)]
pub struct Header {
    pub key: String,
    pub value: Option<Content>,
}

impl Line {
    pub fn batch(position: u64, header: &BatchHeader, is_valid: bool) -> Self {
        Self::Batch {
            position,
            size: header.size_bytes(),
            base_offset: header.base_offset.0,
            last_offset: header.last_offset().0,
            count: header.records_count,
            partition_leader_epoch: header.leader_epoch.0,
            compression: header.codec().map_or("unknown", Codec::name),
            timestamp_type: match header.timestamp_type() {
                TimestampType::CreateTime => "CreateTime",
                TimestampType::LogAppendTime => "LogAppendTime",
            },
            max_timestamp: header.max_timestamp,
            producer_id: header.producer_id.0,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            is_transactional: header.is_transactional(),
            is_control: header.is_control(),
            delete_horizon_ms: header.delete_horizon().map(|time| time.0),
            crc: header.crc,
            is_valid,
        }
    }

    pub fn record(record: &Record) -> Self {
        let headers = record
            .headers
            .iter()
            .map(|header| Header { key: header.key.to_string(), value: header.value.as_deref().map(Content::new) });
        Self::Record {
            offset: record.offset.0,
            timestamp: record.timestamp,
            key: record.key.as_deref().map(Content::new),
            value: record.value.as_deref().map(Content::new),
            headers: headers.collect(),
        }
    }

    /// A fault of the file as a whole.
    pub fn fault(text: impl Into<String>) -> Self {
        Self::Fault { position: None, offset: None, text: text.into() }
    }

    pub fn fault_at(position: u64, text: impl Into<String>) -> Self {
        Self::Fault { position: Some(position), offset: None, text: text.into() }
    }

    pub fn fault_in(position: u64, offset: i64, text: impl Into<String>) -> Self {
        Self::Fault { position: Some(position), offset: Some(offset), text: text.into() }
    }
}

impl Content {
    pub fn new(bytes: &[u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes { base64: STANDARD.encode(bytes) },
        }
    }
}

impl Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Quoted and escaped: a record must not be able to draw on the terminal.
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bytes { base64 } => write!(f, "base64 {base64}"),
        }
    }
}

/// `null` where there is nothing.
struct Or<'a, T>(&'a Option<T>);

impl<T: Display> Display for Or<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("null"),
        }
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch { .. } => self.fmt_batch(f),
            Self::Record { offset, timestamp, key, value, headers } => {
                write!(f, "  | offset {offset} time {timestamp} key {} value {}", Or(key), Or(value))?;
                for Header { key, value } in headers {
                    write!(f, " header {key:?}={}", Or(value))?;
                }
                Ok(())
            }
            Self::Control { offset, timestamp, kind, value } => {
                write!(f, "  | offset {offset} time {timestamp} control {kind} {}", value.get())
            }
            Self::Metadata { offset, timestamp, payload } => {
                write!(f, "  | offset {offset} time {timestamp} {}", payload.get())
            }
            Self::Log { batches, records, first_offset, last_offset, max_timestamp, valid_bytes } => {
                let (batches, records, bytes) = (count(batches), count(records), count(valid_bytes));
                write!(f, "{batches} batches, {records} records, {bytes} bytes")?;
                if let (Some(first), Some(last)) = (first_offset, last_offset) {
                    write!(f, ", offsets {first}..={last}, newest time {max_timestamp}")?;
                }
                Ok(())
            }
            Self::OffsetEntry { offset, position } => write!(f, "offset {offset} position {position}"),
            Self::TimeEntry { timestamp, offset } => write!(f, "time {timestamp} offset {offset}"),
            Self::AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset } => write!(
                f,
                "aborted: producer {producer_id} offsets {first_offset}..={last_offset} last stable offset \
                 {last_stable_offset}"
            ),
            Self::Producer {
                producer_id,
                producer_epoch,
                coordinator_epoch,
                current_transaction_first_offset,
                last_timestamp,
                first_offset,
                last_offset,
                last_sequence,
            } => write!(
                f,
                "producer {producer_id} epoch {producer_epoch} last batch at offsets {}..={} last sequence \
                 {last_sequence} time {last_timestamp} coordinator epoch {coordinator_epoch} transaction since {}",
                Or(first_offset),
                Or(last_offset),
                Or(current_transaction_first_offset)
            ),
            Self::LeaderEpoch { epoch, start_offset } => write!(f, "epoch {epoch} from offset {start_offset}"),
            Self::PartitionOffset { topic, partition, offset } => write!(f, "{topic}-{partition} offset {offset}"),
            Self::Properties { values } => {
                for (place, (name, value)) in values.0.iter().enumerate() {
                    write!(f, "{}{name} {value}", if place == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Note { text } => write!(f, "note: {text}"),
            Self::Fault { position, offset, text } => {
                f.write_str("FAULT: ")?;
                fmt_place(f, *position, *offset)?;
                f.write_str(text)
            }
        }
    }
}

/// `position 4711, offset 20: `
pub fn fmt_place(f: &mut dyn fmt::Write, position: Option<u64>, offset: Option<i64>) -> fmt::Result {
    match (position, offset) {
        (Some(position), Some(offset)) => write!(f, "position {position}, offset {offset}: "),
        (Some(position), None) => write!(f, "position {position}: "),
        (None, Some(offset)) => write!(f, "offset {offset}: "),
        (None, None) => Ok(()),
    }
}

impl Line {
    fn fmt_batch(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Batch {
            position,
            size,
            base_offset,
            last_offset,
            count,
            partition_leader_epoch,
            compression,
            timestamp_type,
            max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            last_sequence,
            is_transactional,
            is_control,
            delete_horizon_ms,
            crc,
            is_valid,
        } = self
        else {
            unreachable!("only batches come here");
        };
        write!(
            f,
            "position {position} size {size} offsets {base_offset}..={last_offset} count {count} epoch \
             {partition_leader_epoch} {timestamp_type} {max_timestamp} compression {compression}"
        )?;
        if *producer_id >= 0 {
            write!(f, " producer {producer_id} epoch {producer_epoch} sequences {base_sequence}..={last_sequence}")?;
        }
        for (word, holds) in [(" transactional", is_transactional), (" control", is_control)] {
            if *holds {
                f.write_str(word)?;
            }
        }
        if let Some(horizon) = delete_horizon_ms {
            write!(f, " delete horizon {horizon}")?;
        }
        write!(f, " crc {crc:#010x} {}", if *is_valid { "valid" } else { "INVALID" })
    }
}
