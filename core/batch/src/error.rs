//! What can be wrong with a batch, and the one Kafka error code each maps to.

use super::compression::Codec;
use tidelog_wire::ErrorCode;

/// Why a batch was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("the batch needs {needed} bytes and {have} are here")]
    Incomplete { needed: u64, have: u64 },
    #[error("the batch claims a size of {size} bytes, and the least is 61")]
    TooSmall { size: i64 },
    #[error("the batch has magic {0}; only 2 is supported")]
    Magic(i8),
    #[error("the batch is corrupt: its checksum is {stored:#010x}, that of its bytes {computed:#010x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("{bytes} bytes follow the batch; a partition takes exactly one batch a request")]
    TrailingBytes { bytes: u64 },
    /// The header contradicts itself, or sets something that only a broker may set.
    #[error("{0}")]
    Header(String),
    /// The record at `index` (counted from 0) is the first that is malformed or contradicts the header.
    #[error("record {index}: {problem}")]
    Record { index: i32, problem: &'static str },
    #[error("compression codec {0} does not exist")]
    UnknownCodec(i16),
    /// KIP-110: zstd needs Produce version 7, Fetch version 10.
    #[error("zstd is not allowed in this version of the request")]
    ZstdNotAllowed,
    #[error("the records do not decompress as {}: {text}", .codec.name())]
    Decompression { codec: Codec, text: String },
    #[error("the records decompress to more than {limit} bytes")]
    DecompressedTooLarge { limit: u64 },
    #[error("the batch has {size} bytes, and the topic's max.message.bytes is {limit}")]
    TooLarge { size: u64, limit: u64 },
    /// Timestamps of some records are outside of the topic's range, or their producer set `LogAppendTime`. `message` is
    /// about the whole batch, and `records` is about each such record.
    #[error("{message}")]
    Timestamps { message: String, records: Vec<RecordError> },
    /// Records without a key, for a compacted topic.
    #[error("{message}")]
    Keys { message: String, records: Vec<RecordError> },
}

/// What is wrong with one record of a batch (KIP-467).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// The record's place in its batch, counted from 0.
    pub batch_index: i32,
    pub message: String,
}

impl BatchError {
    /// The error code for the client.
    ///
    /// Only `CORRUPT_MESSAGE` makes a producer send the same bytes again, so it is the code for damage that may have
    /// happened on the network. A batch that is wrong although its checksum is right would be wrong again, so it gets
    /// another code. `MESSAGE_TOO_LARGE` makes the Java client split the batch, which also helps where the records
    /// decompress to too much.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::TooSmall { .. } | Self::Checksum { .. } => ErrorCode::CorruptMessage,
            Self::Magic(magic) if !(0..=2).contains(magic) => ErrorCode::CorruptMessage,
            Self::Incomplete { .. }
            | Self::Magic(_)
            | Self::TrailingBytes { .. }
            | Self::Header(_)
            | Self::Record { .. }
            | Self::Decompression { .. }
            | Self::Keys { .. } => ErrorCode::InvalidRecord,
            Self::ZstdNotAllowed => ErrorCode::UnsupportedCompressionType,
            // Kafka has no error code for it: its lookup of the codec fails unexpectedly.
            Self::UnknownCodec(_) => ErrorCode::UnknownServerError,
            Self::DecompressedTooLarge { .. } | Self::TooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::Timestamps { .. } => ErrorCode::InvalidTimestamp,
        }
    }

    /// Whether the bytes are not what a Produce request may hold for a partition: exactly one whole batch of magic 2,
    /// with zstd only from version 7 on. Kafka checks this before everything else about the partition.
    pub fn breaks_request_rules(&self) -> bool {
        matches!(
            self,
            Self::Incomplete { .. }
                | Self::TooSmall { .. }
                | Self::Magic(_)
                | Self::TrailingBytes { .. }
                | Self::ZstdNotAllowed
        )
    }

    /// The records that break a rule, if the rule is one for single records.
    pub fn record_errors(&self) -> &[RecordError] {
        match self {
            Self::Timestamps { records, .. } | Self::Keys { records, .. } => records,
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_damage_on_the_way_makes_a_producer_try_again() {
        assert_eq!(BatchError::Checksum { stored: 1, computed: 2 }.error_code(), ErrorCode::CorruptMessage);
        assert_eq!(BatchError::Magic(1).error_code(), ErrorCode::InvalidRecord);
        assert_eq!(BatchError::Magic(-3).error_code(), ErrorCode::CorruptMessage);
        let damaged = BatchError::Decompression { codec: Codec::Gzip, text: "x".into() };
        assert_eq!(damaged.error_code(), ErrorCode::InvalidRecord);
        assert_eq!(BatchError::TooLarge { size: 2, limit: 1 }.error_code(), ErrorCode::MessageTooLarge);
        assert_eq!(BatchError::UnknownCodec(5).error_code(), ErrorCode::UnknownServerError);
        assert_eq!(BatchError::ZstdNotAllowed.error_code(), ErrorCode::UnsupportedCompressionType);
    }
}
