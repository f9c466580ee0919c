//! The part of a topic's configuration that applies to its logs.

/// The settings of one log, under the names of Kafka's topic configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// `segment.bytes`
    pub segment_bytes: u32,
    /// `segment.ms`
    pub segment_ms: i64,
    /// `segment.jitter.ms`
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`
    pub index_interval_bytes: u32,
    /// `retention.ms`; negative: no limit
    pub retention_ms: i64,
    /// `retention.bytes`; negative: no limit
    pub retention_bytes: i64,
    /// Whether `cleanup.policy` has `delete`.
    pub delete_retention: bool,
    /// `file.delete.delay.ms`
    pub file_delete_delay_ms: i64,
    /// `acks.require.fsync`: whether a record is on stable storage when it is acknowledged.
    pub require_fsync: bool,
    /// `flush.messages`
    pub flush_messages: i64,
    /// `flush.ms`
    pub flush_ms: i64,
    /// `producer.id.expiration.ms`
    pub producer_id_expiration_ms: i64,
    /// Whether `message.timestamp.type` is `LogAppendTime`.
    pub log_append_time: bool,
}

impl Default for LogSettings {
    /// Kafka's defaults, and `acks.require.fsync=true`.
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4_096,
            retention_ms: 604_800_000,
            retention_bytes: -1,
            delete_retention: true,
            file_delete_delay_ms: 60_000,
            require_fsync: true,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            producer_id_expiration_ms: 86_400_000,
            log_append_time: false,
        }
    }
}
