//! The configuration of a topic: its own values, and the broker's where it has none.
//!
//! A topic's config has up to three synonyms among the broker's configs. The first of them that is set gives the topic
//! its default (`retention.ms`: `log.retention.ms`, `log.retention.minutes`, `log.retention.hours`).

use super::broker::Layers;
use super::key::Value;
use super::table;
use super::warning::{did_you_mean, suggest_topic};
use std::collections::BTreeMap;

/// A broker's config that gives a topic's config its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: &'static str,
    /// What the broker's value is multiplied by, because its unit may be larger than that of the topic's config.
    pub factor: i64,
}

const fn plain(name: &'static str) -> Synonym {
    Synonym { name, factor: 1 }
}

const fn minutes(name: &'static str) -> Synonym {
    Synonym { name, factor: 60_000 }
}

const fn hours(name: &'static str) -> Synonym {
    Synonym { name, factor: 3_600_000 }
}

/// For each config of a topic, the broker's configs that give it its default, in order of precedence.
pub const SYNONYMS: &[(&str, &[Synonym])] = &[
    ("acks.require.fsync", &[plain("acks.require.fsync")]),
    ("cleanup.policy", &[plain("log.cleanup.policy")]),
    ("compression.gzip.level", &[plain("compression.gzip.level")]),
    ("compression.lz4.level", &[plain("compression.lz4.level")]),
    ("compression.type", &[plain("compression.type")]),
    ("compression.zstd.level", &[plain("compression.zstd.level")]),
    ("delete.retention.ms", &[plain("log.cleaner.delete.retention.ms")]),
    ("file.delete.delay.ms", &[plain("log.segment.delete.delay.ms")]),
    ("flush.messages", &[plain("log.flush.interval.messages")]),
    ("flush.ms", &[plain("log.flush.interval.ms"), plain("log.flush.scheduler.interval.ms")]),
    ("index.interval.bytes", &[plain("log.index.interval.bytes")]),
    ("local.retention.bytes", &[plain("log.local.retention.bytes")]),
    ("local.retention.ms", &[plain("log.local.retention.ms")]),
    ("max.compaction.lag.ms", &[plain("log.cleaner.max.compaction.lag.ms")]),
    ("max.message.bytes", &[plain("message.max.bytes")]),
    ("message.timestamp.after.max.ms", &[plain("log.message.timestamp.after.max.ms")]),
    ("message.timestamp.before.max.ms", &[plain("log.message.timestamp.before.max.ms")]),
    ("message.timestamp.type", &[plain("log.message.timestamp.type")]),
    ("min.cleanable.dirty.ratio", &[plain("log.cleaner.min.cleanable.ratio")]),
    ("min.compaction.lag.ms", &[plain("log.cleaner.min.compaction.lag.ms")]),
    ("min.insync.replicas", &[plain("min.insync.replicas")]),
    ("preallocate", &[plain("log.preallocate")]),
    ("retention.bytes", &[plain("log.retention.bytes")]),
    ("retention.ms", &[plain("log.retention.ms"), minutes("log.retention.minutes"), hours("log.retention.hours")]),
    ("segment.bytes", &[plain("log.segment.bytes")]),
    ("segment.index.bytes", &[plain("log.index.size.max.bytes")]),
    ("segment.jitter.ms", &[plain("log.roll.jitter.ms"), hours("log.roll.jitter.hours")]),
    ("segment.ms", &[plain("log.roll.ms"), hours("log.roll.hours")]),
    ("unclean.leader.election.enable", &[plain("unclean.leader.election.enable")]),
];

/// The broker's configs that give the topic's config `name` its default.
pub fn synonyms(name: &str) -> &'static [Synonym] {
    SYNONYMS.iter().find(|(topic_name, _)| *topic_name == name).map_or(&[], |(_, synonyms)| synonyms)
}

/// Every config of a topic with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    pub acks_require_fsync: bool,
    pub cleanup: CleanupPolicy,
    pub compression_type: CompressionType,
    pub compression_gzip_level: i32,
    pub compression_lz4_level: i32,
    pub compression_zstd_level: i32,
    pub delete_retention_ms: i64,
    pub file_delete_delay_ms: i64,
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub index_interval_bytes: i32,
    pub max_compaction_lag_ms: i64,
    pub max_message_bytes: i32,
    pub message_timestamp_after_max_ms: i64,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_type: TimestampType,
    pub min_cleanable_dirty_millionths: i32,
    pub min_compaction_lag_ms: i64,
    pub min_insync_replicas: i32,
    pub preallocate: bool,
    pub retention_bytes: i64,
    pub retention_ms: i64,
    /// `segment.bytes`, or `internal.segment.bytes` where that is set.
    pub segment_bytes: i32,
    pub segment_index_bytes: i32,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
    pub unclean_leader_election_enable: bool,
}

/// What happens to old segments. If neither field is true, they stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    pub delete: bool,
    pub compact: bool,
}

/// How stored batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// As the producer compressed them.
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Whose clock stamps the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

impl TopicConfig {
    /// The values that are in force. A value of the topic's own that cannot be used counts as not set. The controller
    /// refuses such values, but a metadata log that another version has written may hold one.
    pub fn resolve(overrides: &BTreeMap<String, String>, layers: &Layers) -> Self {
        let values = Resolved { overrides, layers };
        let cleanup = values.list("cleanup.policy");
        Self {
            acks_require_fsync: values.boolean("acks.require.fsync"),
            cleanup: CleanupPolicy {
                delete: cleanup.iter().any(|policy| policy == "delete"),
                compact: cleanup.iter().any(|policy| policy == "compact"),
            },
            compression_type: match values.text("compression.type").as_str() {
                "uncompressed" => CompressionType::Uncompressed,
                "gzip" => CompressionType::Gzip,
                "snappy" => CompressionType::Snappy,
                "lz4" => CompressionType::Lz4,
                "zstd" => CompressionType::Zstd,
                _ => CompressionType::Producer,
            },
            compression_gzip_level: values.int("compression.gzip.level"),
            compression_lz4_level: values.int("compression.lz4.level"),
            compression_zstd_level: values.int("compression.zstd.level"),
            delete_retention_ms: values.long("delete.retention.ms"),
            file_delete_delay_ms: values.long("file.delete.delay.ms"),
            flush_messages: values.long("flush.messages"),
            flush_ms: values.long("flush.ms"),
            index_interval_bytes: values.int("index.interval.bytes"),
            max_compaction_lag_ms: values.long("max.compaction.lag.ms"),
            max_message_bytes: values.int("max.message.bytes"),
            message_timestamp_after_max_ms: values.long("message.timestamp.after.max.ms"),
            message_timestamp_before_max_ms: values.long("message.timestamp.before.max.ms"),
            message_timestamp_type: match values.text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            min_cleanable_dirty_millionths: millionths(&values.text("min.cleanable.dirty.ratio")),
            min_compaction_lag_ms: values.long("min.compaction.lag.ms"),
            min_insync_replicas: values.int("min.insync.replicas"),
            preallocate: values.boolean("preallocate"),
            retention_bytes: values.long("retention.bytes"),
            retention_ms: values.long("retention.ms"),
            segment_bytes: match values.own("internal.segment.bytes") {
                Some(Value::Number(bytes)) => bytes.max(1) as i32,
                _ => values.int("segment.bytes"),
            },
            segment_index_bytes: values.int("segment.index.bytes"),
            segment_jitter_ms: values.long("segment.jitter.ms"),
            segment_ms: values.long("segment.ms"),
            unclean_leader_election_enable: values.boolean("unclean.leader.election.enable"),
        }
    }

    /// Whether a topic may have exactly these own values. The text of a refusal is Kafka's, for `INVALID_CONFIG`.
    pub fn validate(overrides: &BTreeMap<String, String>, layers: &Layers) -> Result<(), String> {
        for name in overrides.keys() {
            if table::topic_key(name).is_none() {
                let suggestion = did_you_mean(suggest_topic(name));
                return Err(format!("Unknown topic config name: {name}{suggestion}"));
            }
        }
        for (name, text) in overrides {
            table::topic_key(name).expect("looked up above").read(text)?;
        }
        let resolved = Self::resolve(overrides, layers);
        if resolved.min_compaction_lag_ms > resolved.max_compaction_lag_ms {
            return Err(format!(
                "conflict topic config setting min.compaction.lag.ms ({}) > max.compaction.lag.ms ({})",
                resolved.min_compaction_lag_ms, resolved.max_compaction_lag_ms
            ));
        }
        let values = Resolved { overrides, layers };
        if values.own("remote.storage.enable") == Some(Value::Boolean(true)) {
            return Err("Tiered Storage functionality is disabled in the broker. \
                        Topic cannot be configured with remote log storage."
                .to_owned());
        }
        Ok(())
    }

    /// The value that is in force for the topic's config `name`, in canonical form.
    pub fn text_of(name: &str, overrides: &BTreeMap<String, String>, layers: &Layers) -> Option<String> {
        Resolved { overrides, layers }.value(name).map(|value| value.canonical())
    }
}

/// Looks values up: the topic's own, then the broker's synonyms, then the default.
struct Resolved<'a> {
    overrides: &'a BTreeMap<String, String>,
    layers: &'a Layers<'a>,
}

impl Resolved<'_> {
    fn own(&self, name: &str) -> Option<Value> {
        let key = table::topic_key(name).expect("the name is one of the table");
        key.read(self.overrides.get(name)?).ok()
    }

    fn value(&self, name: &str) -> Option<Value> {
        if let Some(value) = self.own(name) {
            return Some(value);
        }
        let synonyms = synonyms(name);
        for synonym in synonyms {
            if let Some(value) = self.layers.set_value(synonym.name) {
                return Some(scale(value, synonym.factor));
            }
        }
        for synonym in synonyms {
            let key = table::broker_key(synonym.name).expect("a synonym is a broker's config");
            if let Some(text) = key.default_text() {
                return Some(scale(key.read(text).expect("a default is valid"), synonym.factor));
            }
        }
        let key = table::topic_key(name).expect("the name is one of the table");
        key.default_text().map(|text| key.read(text).expect("a default is valid"))
    }

    fn required(&self, name: &str) -> Value {
        self.value(name).unwrap_or_else(|| panic!("the topic config {name} has a default"))
    }

    fn boolean(&self, name: &str) -> bool {
        match self.required(name) {
            Value::Boolean(value) => value,
            other => unreachable!("{name} is a boolean, not {other:?}"),
        }
    }

    fn long(&self, name: &str) -> i64 {
        match self.required(name) {
            Value::Number(value) => value,
            other => unreachable!("{name} is a number, not {other:?}"),
        }
    }

    fn int(&self, name: &str) -> i32 {
        i32::try_from(self.long(name)).expect("the table says it has 32 bits")
    }

    fn text(&self, name: &str) -> String {
        match self.required(name) {
            Value::Text(value) => value,
            other => unreachable!("{name} is a text, not {other:?}"),
        }
    }

    fn list(&self, name: &str) -> Vec<String> {
        match self.required(name) {
            Value::List(value) => value,
            other => unreachable!("{name} is a list, not {other:?}"),
        }
    }
}

pub(super) fn scale(value: Value, factor: i64) -> Value {
    match value {
        // -1 means "no limit" in every unit, so it is not multiplied.
        Value::Number(number) if factor != 1 && number >= 0 => Value::Number(number.saturating_mul(factor)),
        Value::Number(number) if factor != 1 => Value::Number(number.max(-1)),
        value => value,
    }
}

/// The ratio in `text`, in millionths, because no part of the core computes with floating point.
fn millionths(text: &str) -> i32 {
    let ratio: f64 = text.parse().expect("the text was found valid before");
    (ratio * 1_000_000.0) as i32
}
