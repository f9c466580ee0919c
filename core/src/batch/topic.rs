//! The rules a topic makes for what is appended to it.

use super::check::{BatchFacts, CheckedBatch};
use super::error::{BatchError, RecordError};
use super::header::{NO_TIMESTAMP, TimestampType};
use crate::time::WallMs;

/// What a topic's configuration says about batches. Kafka's names, and its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicBatchRules {
    /// `max.message.bytes`: the size of a whole batch, compressed as it is.
    pub max_message_bytes: u64,
    /// Whether `cleanup.policy` includes `compact`: every record then needs a key.
    pub compacted: bool,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms` (KIP-937).
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms` (KIP-937).
    pub timestamp_after_max_ms: i64,
}

impl Default for TopicBatchRules {
    fn default() -> Self {
        Self {
            max_message_bytes: 1_048_588,
            compacted: false,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
        }
    }
}

impl TopicBatchRules {
    /// The size alone, which is checked again after [`recompress`](CheckedBatch::recompress).
    pub fn check_size(&self, size_bytes: usize) -> Result<(), BatchError> {
        let (size, limit) = (size_bytes as u64, self.max_message_bytes);
        if size > limit { Err(BatchError::TooLarge { size, limit }) } else { Ok(()) }
    }

    /// Why a timestamp is out of the topic's range.
    fn timestamp_problem(&self, timestamp: i64, now: WallMs) -> Option<String> {
        if timestamp == NO_TIMESTAMP {
            return None;
        }
        // Differences of 64-bit numbers that a client chose need more than 64 bits.
        let (now, before, after) =
            (i128::from(now.0), i128::from(self.timestamp_before_max_ms), i128::from(self.timestamp_after_max_ms));
        let range = now - before..=now + after;
        (!range.contains(&i128::from(timestamp))).then(|| {
            format!(
                "the timestamp {timestamp} is out of range: it should be within [{}, {}]",
                range.start(),
                range.end()
            )
        })
    }
}

impl CheckedBatch {
    /// Whether the topic takes this batch now, by what the check has noted.
    ///
    /// A batch is refused as a whole (KIP-467 lets it say which records are at fault). Kafka names every such record;
    /// this names the first few without a key, and of those outside the topic's range the earliest and the latest.
    pub fn fits_topic(&self, rules: &TopicBatchRules, now: WallMs) -> Result<(), BatchError> {
        rules.check_size(self.size_bytes())?;
        let mut records = Vec::new();
        if rules.compacted {
            records.extend(self.facts().records_without_key.iter().map(|&batch_index| RecordError {
                batch_index,
                message: "a compacted topic takes no record without a key".into(),
            }));
        }
        let keys = records.len();
        if rules.timestamp_type == TimestampType::CreateTime {
            for (batch_index, message) in untimely(self.facts(), rules, now) {
                if records.iter().all(|record| record.batch_index != batch_index) {
                    records.push(RecordError { batch_index, message });
                }
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let untimely = records.len() > keys;
        records.sort_by_key(|record| record.batch_index);
        Err(if untimely {
            let message = "One or more records have been rejected due to invalid timestamp".into();
            BatchError::Timestamps { message, records }
        } else {
            let message = "one or more records have been rejected: a compacted topic takes no record without a key";
            BatchError::Keys { message: message.into(), records }
        })
    }
}

fn untimely(facts: &BatchFacts, rules: &TopicBatchRules, now: WallMs) -> impl Iterator<Item = (i32, String)> {
    let earliest = rules.timestamp_problem(facts.min_timestamp, now).map(|text| (facts.min_timestamp_delta, text));
    let latest = rules.timestamp_problem(facts.max_timestamp, now).map(|text| (facts.max_timestamp_delta, text));
    earliest.into_iter().chain(latest)
}
