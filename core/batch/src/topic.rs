//! The rules of a topic for the batches that are appended to it.

use super::check::CheckedBatch;
use super::error::{BatchError, RecordError};
use super::header::{BatchHeader, NO_TIMESTAMP, TimestampType};
use tidelog_wire::time::WallMs;

/// What a topic's configuration says about batches. Kafka's names, and its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicBatchRules {
    /// `max.message.bytes`: the largest size of a whole batch, compressed or not.
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
    /// Checks only the size. It is checked again after [`recompress`](CheckedBatch::recompress).
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

/// How many records a refusal names at most.
const RECORDS_NAMED: usize = 10_000;
/// Records that decompress to more than this are not walked again for a refusal, as that would take too long.
const WALKED_AGAIN_BYTES_MAX: u64 = 64 << 20;

/// Which rule a record breaks.
enum Broken {
    Key,
    Timestamp,
}

impl CheckedBatch {
    /// Whether the topic takes this batch now, decided by the facts that the check has collected.
    ///
    /// A batch is refused as a whole, and the refusal names the records that break a rule (KIP-467): all of them as in
    /// Kafka, up to `RECORDS_NAMED`. Of a batch that decompresses to more than `WALKED_AGAIN_BYTES_MAX` it names the
    /// first one without a key, and of those with timestamps outside of the topic's range the earliest and the latest.
    pub fn fits_topic(&self, rules: &TopicBatchRules, now: WallMs) -> Result<(), BatchError> {
        rules.check_size(self.size_bytes())?;
        let facts = self.facts();
        let known = [
            (facts.first_without_key.unwrap_or(0), NO_TIMESTAMP, facts.first_without_key.is_none()),
            (facts.min_timestamp_delta, facts.min_timestamp, true),
            (facts.max_timestamp_delta, facts.max_timestamp, true),
        ];
        let problem = |timestamp, has_key| rules.record_problem(self.header(), timestamp, has_key, now);
        if known.iter().all(|&(_, timestamp, has_key)| problem(timestamp, has_key).is_none()) {
            return Ok(());
        }
        let mut is_untimely = false;
        let mut records: Vec<RecordError> = Vec::new();
        let mut name = |batch_index, timestamp, has_key| {
            if let Some((broken, message)) = problem(timestamp, has_key) {
                is_untimely |= matches!(broken, Broken::Timestamp);
                records.push(RecordError { batch_index, message });
            }
            records.len() < RECORDS_NAMED
        };
        if facts.uncompressed_bytes <= WALKED_AGAIN_BYTES_MAX {
            self.each_record(name);
        } else {
            known.into_iter().for_each(|(index, timestamp, has_key)| {
                name(index, timestamp, has_key);
            });
            records.sort_by_key(|record| record.batch_index);
            records.dedup_by_key(|record| record.batch_index);
        }
        Err(if is_untimely {
            let message = "One or more records have been rejected due to invalid timestamp".into();
            BatchError::Timestamps { message, records }
        } else {
            let message = "one or more records have been rejected: a compacted topic takes no record without a key";
            BatchError::Keys { message: message.into(), records }
        })
    }
}

impl TopicBatchRules {
    /// Which rule a record of a batch with this header breaks, in Kafka's order.
    fn record_problem(
        &self,
        header: &BatchHeader,
        timestamp: i64,
        has_key: bool,
        now: WallMs,
    ) -> Option<(Broken, String)> {
        if self.compacted && !has_key {
            return Some((Broken::Key, "a compacted topic takes no record without a key".into()));
        }
        let claims_append_time = header.timestamp_type() == TimestampType::LogAppendTime;
        let keeps_timestamps = self.timestamp_type == TimestampType::CreateTime;
        if claims_append_time && !(keeps_timestamps && header.max_timestamp != NO_TIMESTAMP) {
            return Some((Broken::Timestamp, "a producer may not set the timestamp type to LogAppendTime".into()));
        }
        if !keeps_timestamps {
            return None;
        }
        // Where the producer has set `LogAppendTime`, all records claim the batch's max timestamp.
        let claimed = if claims_append_time { header.max_timestamp } else { timestamp };
        let problem = self.timestamp_problem(claimed, now).or_else(|| self.timestamp_problem(timestamp, now));
        problem.map(|text| (Broken::Timestamp, text))
    }
}
