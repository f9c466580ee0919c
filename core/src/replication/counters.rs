//! What a partition counts where it happens, and what that adds up to for a topic and for the broker: Kafka's
//! `BrokerTopicMetrics`.
//!
//! Plain numbers in the partition's own struct: counting costs an addition, and nobody who does not ask pays more.

use crate::batch::BatchError;
use crate::storage::AppendError;
use crate::wire::ErrorCode;

/// Counted since the start of this life; none of them ever falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicCounters {
    /// Records that were appended. What an idempotent producer sent again is not, and is not counted again.
    pub messages_in: u64,
    /// The bytes of their batches, as they came.
    pub bytes_in: u64,
    /// The bytes of the batches that consumers were given.
    pub bytes_out: u64,
    /// The bytes of batches that were too large for the topic.
    pub bytes_rejected: u64,
    /// One for each partition that a Produce names.
    pub produce_requests: u64,
    /// Those of them that failed for a reason that is not part of everyday life: see [`is_failure`].
    pub failed_produce_requests: u64,
    /// One for each partition that a Fetch reads, however often it looks while it waits.
    pub fetch_requests: u64,
    pub failed_fetch_requests: u64,
    /// Batches whose bytes do not have the checksum that they name.
    pub invalid_checksums: u64,
    pub invalid_magic_numbers: u64,
    /// Batches that contradict themselves, or whose sequence or producer epoch does not follow.
    pub invalid_sequences: u64,
    /// Records without a key for a compacted topic.
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

    /// A Produce was refused for this partition.
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

/// Whether a partition's error is one that an operator wants to hear of. What clients meet in everyday life (a topic
/// that is not there, a leader that moved, a batch too large, bytes damaged on the way, an offset out of range) is not,
/// as in Kafka; a disk that fails is, other than in Kafka.
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

    #[test]
    fn only_what_is_not_everyday_life_is_a_failure() {
        let failures = [ErrorCode::KafkaStorageError, ErrorCode::InvalidRecord, ErrorCode::OutOfOrderSequenceNumber];
        assert!(failures.into_iter().all(is_failure));
        let everyday = [ErrorCode::None, ErrorCode::NotLeaderOrFollower, ErrorCode::CorruptMessage];
        assert!(!everyday.into_iter().any(is_failure));
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
}
