//! The counters of one partition. Their sums over the partitions of a topic and over all partitions of the broker are
//! Kafka's `BrokerTopicMetrics`.
//!
//! The counters are plain numbers in the partition's own struct, so counting costs one addition. The sums are computed
//! when somebody asks for the metrics.

use tidelog_batch::BatchError;
use tidelog_storage::AppendError;
use tidelog_wire::ErrorCode;

/// Counts since the broker started. None of them ever falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicCounters {
    /// Records that were appended. A batch that an idempotent producer sends again is not appended again, and not
    /// counted again.
    pub messages_in: u64,
    /// The bytes of the appended batches, as the producers sent them.
    pub bytes_in: u64,
    /// The bytes of batches that were given to consumers.
    pub bytes_out: u64,
    /// The bytes of batches that were too large for the topic.
    pub bytes_rejected: u64,
    /// How often a Produce request named this partition.
    pub produce_requests: u64,
    /// How many of the `produce_requests` failed with an error for which [`is_failure`] is true.
    pub failed_produce_requests: u64,
    /// How many Fetch requests read this partition. A Fetch that waits for records and reads several times counts once.
    pub fetch_requests: u64,
    /// How many of the `fetch_requests` failed with an error for which [`is_failure`] is true.
    pub failed_fetch_requests: u64,
    /// Batches whose content does not match the checksum in their header.
    pub invalid_checksums: u64,
    pub invalid_magic_numbers: u64,
    /// Batches with a header or a record that cannot be right, and batches with an unexpected sequence or producer
    /// epoch.
    pub invalid_sequences: u64,
    /// Records without a key that were sent to a compacted topic.
    pub records_without_key: u64,
}

impl TopicCounters {
    pub fn add(&mut self, other: &Self) {
        self.messages_in += other.messages_in;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.bytes_rejected += other.bytes_rejected;
        self.produce_requests += other.produce_requests;
        self.failed_produce_requests += other.failed_produce_requests;
        self.fetch_requests += other.fetch_requests;
        self.failed_fetch_requests += other.failed_fetch_requests;
        self.invalid_checksums += other.invalid_checksums;
        self.invalid_magic_numbers += other.invalid_magic_numbers;
        self.invalid_sequences += other.invalid_sequences;
        self.records_without_key += other.records_without_key;
    }

    /// Counts a Produce that was answered with `error` for this partition.
    pub(super) fn refused(&mut self, error: ErrorCode) {
        self.failed_produce_requests += u64::from(is_failure(error));
    }

    pub(super) fn invalid_batch(&mut self, error: &BatchError) {
        match error {
            BatchError::TooLarge { size, .. } => self.bytes_rejected += size,
            BatchError::Checksum { .. } => self.invalid_checksums += 1,
            BatchError::Magic(_) => self.invalid_magic_numbers += 1,
            BatchError::Record { .. } | BatchError::Header(_) => self.invalid_sequences += 1,
            BatchError::Keys { records, .. } => self.records_without_key += records.len() as u64,
            _ => {}
        }
    }

    pub(super) fn not_appended(&mut self, error: &AppendError) {
        match error {
            AppendError::TooLarge { size, .. } => self.bytes_rejected += size,
            AppendError::Producer(_) => self.invalid_sequences += 1,
            AppendError::NotOpen(_) | AppendError::OffsetsExhausted => {}
        }
    }
}

/// Whether a partition's error counts as a failed request. The errors that clients cause or meet in ordinary operation
/// do not count, as in Kafka: an unknown topic, a leader that moved, a batch that is too large, bytes damaged on the
/// network, an offset out of range. Unlike in Kafka, a failed disk counts.
pub fn is_failure(error: ErrorCode) -> bool {
    use ErrorCode::*;
    !matches!(
        error,
        None | UnknownTopicOrPartition
            | UnknownTopicId
            | InconsistentTopicId
            | NotLeaderOrFollower
            | ReplicaNotAvailable
            | FencedLeaderEpoch
            | UnknownLeaderEpoch
            | OffsetOutOfRange
            | MessageTooLarge
            | RecordListTooLarge
            | CorruptMessage
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_batch::RecordError;

    #[test]
    fn errors_of_ordinary_operation_are_no_failures() {
        let failures = [ErrorCode::KafkaStorageError, ErrorCode::InvalidRecord, ErrorCode::OutOfOrderSequenceNumber];
        assert!(failures.into_iter().all(is_failure));
        let ordinary = [ErrorCode::None, ErrorCode::NotLeaderOrFollower, ErrorCode::CorruptMessage];
        assert!(!ordinary.into_iter().any(is_failure));
    }

    #[test]
    fn counters_add_up_one_by_one() {
        let ones = TopicCounters {
            messages_in: 1,
            bytes_in: 2,
            bytes_out: 3,
            bytes_rejected: 4,
            produce_requests: 5,
            failed_produce_requests: 6,
            fetch_requests: 7,
            failed_fetch_requests: 8,
            invalid_checksums: 9,
            invalid_magic_numbers: 10,
            invalid_sequences: 11,
            records_without_key: 12,
        };
        let mut sum = TopicCounters::default();
        sum.add(&ones);
        assert_eq!(sum, ones);
        sum.add(&ones);
        assert_eq!((sum.messages_in, sum.fetch_requests, sum.records_without_key), (2, 14, 24));
    }
    /// The names of Kafka's metrics: InvalidMessageCrcRecordsPerSec and the like.
    #[test]
    fn each_kind_of_batch_that_is_refused_is_counted() {
        let mut counters = TopicCounters::default();
        let record = RecordError { batch_index: 0, message: String::new() };
        for error in [
            BatchError::TooLarge { size: 100, limit: 50 },
            BatchError::Checksum { stored: 1, computed: 2 },
            BatchError::Magic(1),
            BatchError::Header(String::new()),
            BatchError::Record { index: 0, problem: "it is damaged" },
            BatchError::Keys { message: String::new(), records: vec![record; 3] },
            BatchError::ZstdNotAllowed,
        ] {
            counters.invalid_batch(&error);
        }
        counters.not_appended(&AppendError::TooLarge { size: 20, limit: 10 });
        counters.not_appended(&AppendError::OffsetsExhausted);
        let expected = TopicCounters {
            bytes_rejected: 120,
            invalid_checksums: 1,
            invalid_magic_numbers: 1,
            invalid_sequences: 2,
            records_without_key: 3,
            ..TopicCounters::default()
        };
        assert_eq!(counters, expected);
    }
}
