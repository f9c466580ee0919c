//! The core's metrics under Kafka's names.

use super::text::{Family, Text, counter, gauge};
use crate::disk::Volume;
use tidelog_core::broker::{Metrics, PartitionMetrics, ReplicationMetrics};
use tidelog_core::ids::NodeId;
use tidelog_core::io::PeerOwner;
use tidelog_core::peers::PeerMetrics;
use tidelog_core::replication::TopicCounters;

type Count = fn(&TopicCounters) -> u64;

/// Kafka's `BrokerTopicMetrics`. Each has one sample without a label for all topics together, and one for each topic.
const TOPIC_COUNTERS: &[(Family, Count)] = &[
    (counter("kafka_server_brokertopicmetrics_messagesin_total", "Records appended."), |c| c.messages_in),
    (counter("kafka_server_brokertopicmetrics_bytesin_total", "Bytes of the batches appended, as they came."), |c| {
        c.bytes_in
    }),
    (counter("kafka_server_brokertopicmetrics_bytesout_total", "Bytes of the batches given to consumers."), |c| {
        c.bytes_out
    }),
    (
        counter("kafka_server_brokertopicmetrics_bytesrejected_total", "Bytes of batches too large for the topic."),
        |c| c.bytes_rejected,
    ),
    (
        counter("kafka_server_brokertopicmetrics_totalproducerequests_total", "Partitions named by Produce requests."),
        |c| c.produce_requests,
    ),
    (
        counter(
            "kafka_server_brokertopicmetrics_failedproducerequests_total",
            "Partitions of Produce requests that failed for an uncommon reason.",
        ),
        |c| c.failed_produce_requests,
    ),
    (counter("kafka_server_brokertopicmetrics_totalfetchrequests_total", "Partitions read by Fetch requests."), |c| {
        c.fetch_requests
    }),
    (
        counter(
            "kafka_server_brokertopicmetrics_failedfetchrequests_total",
            "Partitions of Fetch requests that failed for an uncommon reason.",
        ),
        |c| c.failed_fetch_requests,
    ),
    (
        counter(
            "kafka_server_brokertopicmetrics_invalidmessagecrcrecords_total",
            "Batches refused for their checksum.",
        ),
        |c| c.invalid_checksums,
    ),
    (
        counter(
            "kafka_server_brokertopicmetrics_invalidmagicnumberrecords_total",
            "Batches refused for their format version.",
        ),
        |c| c.invalid_magic_numbers,
    ),
    (
        counter(
            "kafka_server_brokertopicmetrics_invalidoffsetorsequencerecords_total",
            "Batches refused because they contradict themselves, or for their sequence or producer epoch.",
        ),
        |c| c.invalid_sequences,
    ),
    (
        counter(
            "kafka_server_brokertopicmetrics_nokeycompactedtopicrecords_total",
            "Records without a key refused for a compacted topic.",
        ),
        |c| c.records_without_key,
    ),
];

type Value = fn(&PartitionMetrics) -> i64;

/// Kafka's `Log`: one sample for each partition.
const LOG_GAUGES: &[(Family, Value)] = &[
    (gauge("kafka_log_log_size", "Bytes of the log's segments."), |p| p.size_bytes as i64),
    (gauge("kafka_log_log_logstartoffset", "The first offset that can be read."), |p| p.log_start.0),
    (gauge("kafka_log_log_logendoffset", "The offset of the next record."), |p| p.log_end.0),
    (gauge("kafka_log_log_numlogsegments", "Segments of the log."), |p| p.segments as i64),
];

type Replicas = fn(&ReplicationMetrics) -> usize;

/// Kafka's `Partition`: one sample for each partition that this broker leads.
const PARTITION_GAUGES: &[(Family, Replicas)] = &[
    (gauge("kafka_cluster_partition_replicascount", "Replicas of the partition."), |r| r.replicas),
    (gauge("kafka_cluster_partition_insyncreplicascount", "Replicas that are in sync."), |r| r.in_sync),
    (gauge("kafka_cluster_partition_underreplicated", "1 where a replica is not in sync."), |r| {
        usize::from(r.is_under_replicated())
    }),
    (gauge("kafka_cluster_partition_underminisr", "1 where fewer are in sync than min.insync.replicas."), |r| {
        usize::from(r.is_under_min_isr())
    }),
    (gauge("kafka_cluster_partition_atminisr", "1 where just min.insync.replicas are in sync."), |r| {
        usize::from(r.is_at_min_isr())
    }),
];

/// `volumes` are those of the log directories, in their order.
pub fn write(metrics: &Metrics, volumes: &[Option<Volume>], text: &mut Text) {
    text.one(
        gauge(
            "kafka_server_kafkaserver_brokerstate",
            "0 not running, 1 starting, 2 loading its logs, 3 running, 6 and 7 shutting down.",
        ),
        metrics.state as i32,
    );
    write_topics(metrics, text);
    write_replicas(metrics, text);
    write_waiting(metrics, text);
    write_controller(metrics, text);
    write_quorum(metrics, text);
    write_peers(metrics, text);
    write_partitions(metrics, text);
    write_directories(metrics, text);
    write_volumes(metrics, volumes, text);
}

fn write_topics(metrics: &Metrics, text: &mut Text) {
    for (family, count) in TOPIC_COUNTERS {
        let mut samples = text.family(*family);
        samples.sample(&[], count(&metrics.all_topics));
        for topic in &metrics.topics {
            samples.sample(&[("topic", &topic.name)], count(&topic.counters));
        }
    }
}

fn write_replicas(metrics: &Metrics, text: &mut Text) {
    let replicas = &metrics.replicas;
    for (family, value) in [
        (
            gauge("kafka_server_replicamanager_partitioncount", "Partitions whose log is online here."),
            replicas.partitions,
        ),
        (gauge("kafka_server_replicamanager_leadercount", "Partitions led here."), replicas.leaders),
        (
            gauge("kafka_server_replicamanager_offlinereplicacount", "Partitions in log directories that are offline."),
            replicas.offline,
        ),
        (
            gauge(
                "kafka_server_replicamanager_underreplicatedpartitions",
                "Partitions led here with a replica not in sync.",
            ),
            replicas.under_replicated,
        ),
        (
            gauge(
                "kafka_server_replicamanager_underminisrpartitioncount",
                "Partitions led here with fewer replicas in sync than min.insync.replicas.",
            ),
            replicas.under_min_isr,
        ),
        (
            gauge(
                "kafka_server_replicamanager_atminisrpartitioncount",
                "Partitions led here with just min.insync.replicas in sync.",
            ),
            replicas.at_min_isr,
        ),
        (
            gauge("kafka_server_replicamanager_produceridcount", "Idempotent producers that are remembered."),
            replicas.producer_ids,
        ),
    ] {
        text.one(family, value);
    }
}

fn write_waiting(metrics: &Metrics, text: &mut Text) {
    let waiting = &metrics.waiting;
    let mut samples = text.family(gauge(
        "kafka_server_delayedoperationpurgatory_purgatorysize",
        "Requests that wait: for replicas or the disk, or for records.",
    ));
    for (operation, count) in [
        ("Produce", waiting.produce),
        ("Fetch", waiting.fetch),
        ("DeleteRecords", waiting.delete_records),
        ("ListOffsets", waiting.list_offsets),
        ("DescribeLogDirs", waiting.log_dirs),
    ] {
        samples.sample(&[("delayedOperation", operation)], count);
    }
    text.one(
        gauge("tidelog_requests_unanswered", "Requests that the core has taken and not answered."),
        metrics.unanswered,
    );
    let sessions = &metrics.sessions;
    text.one(
        gauge("kafka_server_fetchsessioncache_numincrementalfetchsessions", "Incremental fetch sessions."),
        sessions.sessions,
    );
    text.one(
        gauge(
            "kafka_server_fetchsessioncache_numincrementalfetchpartitionscached",
            "Partitions of all incremental fetch sessions.",
        ),
        sessions.partitions,
    );
    text.one(
        counter(
            "kafka_server_fetchsessioncache_incrementalfetchsessionevictions_total",
            "Incremental fetch sessions that made room for others.",
        ),
        sessions.evictions,
    );
}

fn write_controller(metrics: &Metrics, text: &mut Text) {
    let controller = &metrics.controller;
    for (family, value) in [
        (
            gauge(
                "kafka_controller_kafkacontroller_activecontrollercount",
                "1 where this node is the active controller.",
            ),
            usize::from(controller.is_active),
        ),
        (gauge("kafka_controller_kafkacontroller_globaltopiccount", "Topics of the cluster."), controller.topics),
        (
            gauge("kafka_controller_kafkacontroller_globalpartitioncount", "Partitions of the cluster."),
            controller.partitions,
        ),
        (
            gauge("kafka_controller_kafkacontroller_offlinepartitionscount", "Partitions without a leader."),
            controller.offline_partitions,
        ),
        (
            gauge(
                "kafka_controller_kafkacontroller_preferredreplicaimbalancecount",
                "Partitions that another replica leads than the first.",
            ),
            controller.preferred_imbalance,
        ),
        (
            gauge("kafka_controller_kafkacontroller_activebrokercount", "Brokers that are registered and not fenced."),
            controller.active_brokers,
        ),
        (
            gauge("kafka_controller_kafkacontroller_fencedbrokercount", "Brokers that are registered and fenced."),
            controller.fenced_brokers,
        ),
    ] {
        text.one(family, value);
    }
    for (family, count) in [
        (
            counter(
                "kafka_controller_controllerstats_uncleanleaderelections_total",
                "Elections of leaders that may lack records, decided by this node's controllers.",
            ),
            controller.elections.unclean,
        ),
        (
            counter(
                "kafka_controller_controllerstats_electionfromeligibleleaderreplicas_total",
                "Elections of leaders that were eligible although not in sync, decided by this node's controllers.",
            ),
            controller.elections.eligible,
        ),
    ] {
        text.one(family, count);
    }
    text.one(
        gauge("kafka_server_metadataloader_currentmetadataversion", "The level of the feature metadata.version."),
        controller.metadata_version,
    );
    text.one(
        gauge("kafka_server_broker_metadata_metrics_last_applied_record_offset", "The last metadata record applied."),
        controller.last_applied.0,
    );
}

fn write_quorum(metrics: &Metrics, text: &mut Text) {
    let Some(quorum) = &metrics.quorum else { return };
    let number = |node: Option<NodeId>| node.map_or(-1, |node| i64::from(node.0));
    for (family, value) in [
        (
            gauge("kafka_server_raft_metrics_current_leader", "The leader of the metadata quorum; -1: none is known."),
            number(quorum.leader),
        ),
        (
            gauge("kafka_server_raft_metrics_current_vote", "For whom this node has voted in the epoch; -1: for none."),
            number(quorum.vote),
        ),
        (
            gauge("kafka_server_raft_metrics_number_of_voters", "The voters of the metadata quorum."),
            quorum.voters as i64,
        ),
        (
            gauge("kafka_server_raft_metrics_current_epoch", "The epoch of the metadata quorum."),
            i64::from(quorum.epoch.0),
        ),
        (
            gauge("kafka_server_raft_metrics_high_watermark", "One past the last committed metadata record."),
            quorum.high_watermark.0,
        ),
        (
            gauge("kafka_server_raft_metrics_log_end_offset", "The offset of the next metadata record."),
            quorum.log_end.0,
        ),
        (
            gauge("kafka_server_raft_metrics_log_end_epoch", "The epoch of the last metadata record."),
            i64::from(quorum.log_end_epoch.0),
        ),
    ] {
        text.one(family, value);
    }
    if let Some(observers) = quorum.observers {
        let family = gauge("kafka_server_raft_metrics_number_of_observers", "The observers that the leader knows of.");
        text.one(family, observers as i64);
    }
    text.family(gauge("kafka_server_raft_metrics_current_state_info", "What this node is in the metadata quorum."))
        .sample(&[("state", quorum.state)], 1);
}

/// What this node asks other nodes.
fn write_peers(metrics: &Metrics, text: &mut Text) {
    let named = || {
        metrics.peers.iter().map(|(owner, peers)| match owner {
            PeerOwner::Quorum => ("quorum".to_owned(), peers),
            PeerOwner::Controller => ("controller".to_owned(), peers),
            PeerOwner::Life => ("life".to_owned(), peers),
            PeerOwner::Fetchers(number) => (format!("fetchers-{number}"), peers),
        })
    };
    let mut write = |family: Family, value: fn(&PeerMetrics) -> u64| {
        let mut samples = text.family(family);
        for (channel, peers) in named() {
            samples.sample(&[("channel", &channel)], value(peers));
        }
    };
    write(gauge("tidelog_peers_connections", "Connections to other nodes that can be used."), |peers| {
        peers.connections as u64
    });
    write(counter("tidelog_peers_connections_created_total", "Connections made to other nodes."), |peers| {
        peers.connections_created
    });
    write(counter("tidelog_peers_requests_total", "Questions to other nodes."), |peers| peers.asked);
    write(counter("tidelog_peers_responses_total", "Answers of other nodes."), |peers| peers.answered);
    let mut samples = text.family(counter("tidelog_peers_failures_total", "Questions that got no answer."));
    for (channel, peers) in named() {
        for (error, count) in &peers.failed {
            samples.sample(&[("channel", &channel), ("error", error)], *count);
        }
    }
}

fn write_partitions(metrics: &Metrics, text: &mut Text) {
    let indexes: Vec<String> = metrics.partitions.iter().map(|partition| partition.index.to_string()).collect();
    let named = || metrics.partitions.iter().zip(&indexes);
    for (family, value) in LOG_GAUGES {
        let mut samples = text.family(*family);
        for (partition, index) in named().filter(|(partition, _)| partition.is_online) {
            samples.sample(&[("topic", &partition.topic), ("partition", index)], value(partition));
        }
    }
    for (family, value) in PARTITION_GAUGES {
        let mut samples = text.family(*family);
        for (partition, index) in named() {
            if let Some(replication) = &partition.replication {
                samples.sample(&[("topic", &partition.topic), ("partition", index)], value(replication));
            }
        }
    }
}

fn write_directories(metrics: &Metrics, text: &mut Text) {
    let offline = metrics.directories.iter().filter(|dir| !dir.is_online).count();
    text.one(gauge("kafka_log_logmanager_offlinelogdirectorycount", "Log directories that are offline."), offline);
    let mut samples =
        text.family(gauge("kafka_log_logmanager_logdirectoryoffline", "1 where the log directory is offline."));
    for dir in &metrics.directories {
        samples.sample(&[("logDirectory", &dir.path)], u8::from(!dir.is_online));
    }
}

type Bytes = fn(&Volume) -> u64;

/// Each once a log directory.
const VOLUME_GAUGES: &[(Family, Bytes)] = &[
    (gauge("tidelog_log_directory_total_bytes", "Bytes of the volume that the log directory lies on."), |v| {
        v.total_bytes
    }),
    (gauge("tidelog_log_directory_free_bytes", "Of them, those that nobody uses."), |v| v.free_bytes),
    (gauge("tidelog_log_directory_usable_bytes", "Of them, those that the broker may still write."), |v| {
        v.usable_bytes
    }),
];

fn write_volumes(metrics: &Metrics, volumes: &[Option<Volume>], text: &mut Text) {
    for (family, bytes) in VOLUME_GAUGES {
        let mut samples = text.family(*family);
        for (dir, volume) in metrics.directories.iter().zip(volumes) {
            if let Some(volume) = volume {
                samples.sample(&[("logDirectory", &dir.path)], bytes(volume));
            }
        }
    }
}
