//! Tiered storage (KIP-405).

use super::*;

#[rustfmt::skip]
pub(super) const KEYS: &[ConfigKey] = &[
    boolean("remote.log.storage.system.enable", "false", "Tiered storage is on."),
    string("remote.log.storage.manager.class.name", NULL, "Class that stores segments remotely.").non_empty(),
    string("remote.log.storage.manager.class.path", NULL, "Class path of remote.log.storage.manager.class.name."),
    string("remote.log.storage.manager.impl.prefix", "rsm.config.", "Prefix of the settings of remote.log.storage.manager.class.name.").non_empty(),
    string("remote.log.metadata.manager.class.name", "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager", "Class that keeps the metadata of remote segments.").non_empty(),
    string("remote.log.metadata.manager.class.path", NULL, "Class path of remote.log.metadata.manager.class.name."),
    string("remote.log.metadata.manager.impl.prefix", "rlmm.config.", "Prefix of the settings of remote.log.metadata.manager.class.name.").non_empty(),
    string("remote.log.metadata.manager.listener.name", NULL, "Listener that remote.log.metadata.manager.class.name connects to.").non_empty(),
    int("remote.log.metadata.custom.metadata.max.bytes", "128", "Largest custom metadata of a remote segment.").from(0),
    long("remote.log.index.file.cache.total.size.bytes", "1073741824", "Disk space for cached remote indexes.").from(1).cluster_wide(),
    long("remote.log.index.file.cache.ttl.ms", "900000", "A cached remote index that is unused for this time is dropped.").from(-1).internal(),
    int("remote.log.manager.thread.pool.size", "2", "Threads of the remote log manager.").from(1),
    int("remote.log.manager.copier.thread.pool.size", "10", "Threads that copy segments.").from(1).cluster_wide(),
    int("remote.log.manager.expiration.thread.pool.size", "10", "Threads that remove expired remote segments.").from(1).cluster_wide(),
    int("remote.log.manager.follower.thread.pool.size", "2", "Threads of a follower's tasks for remote storage.").from(1).cluster_wide(),
    long("remote.log.manager.task.interval.ms", "30000", "Time between two runs of the tasks for remote storage.").from(1),
    long("remote.log.manager.task.retry.backoff.ms", "500", "First pause after a failed task for remote storage.").from(1).internal(),
    long("remote.log.manager.task.retry.backoff.max.ms", "30000", "Largest pause after a failed task for remote storage.").from(1).internal(),
    double("remote.log.manager.task.retry.jitter", "0.2", "Most that the pause after a failed task is varied at random.").ratio("0.5").internal(),
    long("remote.log.manager.copy.max.bytes.per.second", MAX_LONG, "Most bytes per second that are copied to remote storage.").from(1).cluster_wide(),
    int("remote.log.manager.copy.quota.window.num", "11", "Samples kept for remote.log.manager.copy.max.bytes.per.second.").from(1),
    int("remote.log.manager.copy.quota.window.size.seconds", "1", "Length of a sample for remote.log.manager.copy.max.bytes.per.second.").from(1),
    long("remote.log.manager.fetch.max.bytes.per.second", MAX_LONG, "Most bytes per second that are fetched from remote storage.").from(1).cluster_wide(),
    int("remote.log.manager.fetch.quota.window.num", "11", "Samples kept for remote.log.manager.fetch.max.bytes.per.second.").from(1),
    int("remote.log.manager.fetch.quota.window.size.seconds", "1", "Length of a sample for remote.log.manager.fetch.max.bytes.per.second.").from(1),
    int("remote.log.reader.threads", "10", "Threads that read remote segments.").from(1).cluster_wide(),
    int("remote.log.reader.max.pending.tasks", "100", "Remote reads that may wait.").from(1),
    int("remote.fetch.max.wait.ms", "500", "Most time a fetch waits for a remote read.").from(1).cluster_wide(),
    long("remote.list.offsets.request.timeout.ms", "30000", "Most time a ListOffsets waits for a remote read.").from(1).cluster_wide(),
];
