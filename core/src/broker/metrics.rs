//! The numbers that a broker gives its operator.
//!
//! Each part counts what it does in numbers of its own. [`Broker::metrics`] gathers all of them into one value, which a
//! world can turn into text while the broker goes on. Gathering takes time for every partition. No decision of the
//! broker depends on it. Names and units are those of Kafka's metrics (`docs/METRICS.md`).

use super::{Broker, Phase};
use crate::api::PendingCounts;
use crate::controller::ElectionCounts;
use crate::ids::{LeaderEpoch, NodeId, Offset};
use crate::io::PeerOwner;
use crate::peers::PeerMetrics;
use crate::quorum::{self, Quorum};
use crate::replication::{Partition, TopicCounters};
use crate::storage::{Log, LogState};
use bytestring::ByteString;
use std::collections::BTreeMap;

/// Whether a broker is healthy. Cheap to gather.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub state: BrokerState,
    /// The paths of the log directories that are offline.
    pub offline: Vec<String>,
}

/// All numbers of a broker at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    pub node: NodeId,
    pub cluster_id: ByteString,
    pub state: BrokerState,
    /// The counters of all topics together, deleted ones included.
    pub all_topics: TopicCounters,
    /// The topics that have partitions on this broker, in the order of their ids.
    pub topics: Vec<TopicMetrics>,
    /// In the order of the ids of their topics. The metadata log is the last one.
    pub partitions: Vec<PartitionMetrics>,
    pub replicas: ReplicaMetrics,
    pub waiting: PendingCounts,
    /// Requests whose answers have not been sent, including answers that are ready but must follow an earlier one.
    pub unanswered: usize,
    pub sessions: SessionMetrics,
    pub controller: ControllerMetrics,
    /// None until the directories are read.
    pub quorum: Option<QuorumMetrics>,
    /// By what asks.
    pub peers: BTreeMap<PeerOwner, PeerMetrics>,
    pub directories: Vec<DirectoryMetrics>,
}

/// Kafka's `BrokerState`, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerState {
    NotRunning = 0,
    Starting = 1,
    /// The partitions' logs are being loaded.
    Recovery = 2,
    Running = 3,
    PendingControlledShutdown = 6,
    ShuttingDown = 7,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetrics {
    pub name: ByteString,
    pub counters: TopicCounters,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetrics {
    pub topic: ByteString,
    pub index: i32,
    pub size_bytes: u64,
    pub segments: usize,
    pub log_start: Offset,
    pub log_end: Offset,
    pub high_watermark: Offset,
    /// Whether the log can be read and written.
    pub is_online: bool,
    /// Only where this broker leads the partition; `None` for the metadata log.
    pub replication: Option<ReplicationMetrics>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationMetrics {
    pub replicas: usize,
    pub in_sync: usize,
    pub min_in_sync: usize,
}

impl ReplicationMetrics {
    pub fn is_under_replicated(&self) -> bool {
        self.in_sync < self.replicas
    }

    pub fn is_under_min_isr(&self) -> bool {
        self.in_sync < self.min_in_sync
    }

    pub fn is_at_min_isr(&self) -> bool {
        self.in_sync == self.min_in_sync
    }
}

/// The partitions of this broker, counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaMetrics {
    /// Partitions whose log is online.
    pub partitions: usize,
    pub leaders: usize,
    /// Partitions that the metadata places on this broker and whose log directory is offline.
    pub offline: usize,
    pub under_replicated: usize,
    pub under_min_isr: usize,
    pub at_min_isr: usize,
    pub producer_ids: usize,
}

/// Incremental fetch sessions (KIP-227).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionMetrics {
    pub sessions: usize,
    pub partitions: usize,
    pub evictions: u64,
}

/// The cluster as this node knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControllerMetrics {
    /// Whether this node is the active controller.
    pub is_active: bool,
    pub topics: usize,
    pub partitions: usize,
    /// Partitions without a leader.
    pub offline_partitions: usize,
    /// Partitions that are not led by the first of their replicas.
    pub preferred_imbalance: usize,
    /// What this node's controllers have decided since the start.
    pub elections: ElectionCounts,
    pub active_brokers: usize,
    pub fenced_brokers: usize,
    /// The level of the feature `metadata.version`.
    pub metadata_version: i16,
    /// The offset of the last metadata record that is committed and applied; -1 if there is none.
    pub last_applied: Offset,
}

/// The KRaft quorum, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuorumMetrics {
    /// What this node is in it, in Kafka's words.
    pub state: &'static str,
    pub leader: Option<NodeId>,
    /// For whom this node has voted in this epoch.
    pub vote: Option<NodeId>,
    pub voters: usize,
    /// Known to the leader alone.
    pub observers: Option<usize>,
    pub epoch: LeaderEpoch,
    pub high_watermark: Offset,
    pub log_end: Offset,
    pub log_end_epoch: LeaderEpoch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryMetrics {
    pub path: String,
    pub is_online: bool,
}

impl Broker {
    /// Gathers all numbers.
    pub fn metrics(&self) -> Metrics {
        let parts = &self.parts;
        let (mut topics, mut partitions) = (Vec::<TopicMetrics>::new(), Vec::new());
        let mut replicas = ReplicaMetrics::default();
        let mut topic = None;
        for partition in parts.partitions.iter() {
            if topic != Some(partition.topic_id()) {
                topic = Some(partition.topic_id());
                topics.push(TopicMetrics { name: partition.topic().clone(), counters: TopicCounters::default() });
            }
            topics.last_mut().expect("just pushed").counters.add(partition.counters());
            let found = self.partition_metrics(partition);
            replicas.add(&found);
            replicas.producer_ids += partition.log().producers().len();
            partitions.push(found);
        }
        replicas.offline = self.placed_here().saturating_sub(replicas.partitions + self.loading());
        if let Some(log) = parts.quorum.as_ref().and_then(Quorum::log) {
            partitions.push(metadata_log_metrics(log, parts.committed));
        }
        Metrics {
            node: parts.config.node_id,
            cluster_id: parts.cluster_id.clone(),
            state: self.state(),
            all_topics: parts.partitions.counters(),
            topics,
            partitions,
            replicas,
            waiting: parts.pending.waiting(),
            unanswered: parts.replies.unanswered(),
            sessions: SessionMetrics {
                sessions: parts.sessions.len(),
                partitions: parts.sessions.partitions(),
                evictions: parts.sessions.evictions(),
            },
            controller: self.controller_metrics(),
            quorum: parts.quorum.as_ref().map(quorum_metrics),
            peers: self.peers.metrics(),
            directories: parts
                .dirs
                .paths()
                .map(|(dir, path)| DirectoryMetrics { path: path.to_owned(), is_online: parts.dirs.is_online(dir) })
                .collect(),
        }
    }

    pub fn health(&self) -> Health {
        let dirs = &self.parts.dirs;
        let offline = dirs.paths().filter(|(dir, _)| !dirs.is_online(*dir)).map(|(_, path)| path.to_owned());
        Health { state: self.state(), offline: offline.collect() }
    }

    fn state(&self) -> BrokerState {
        match &self.phase {
            Phase::Created | Phase::Ended => BrokerState::NotRunning,
            Phase::Directories | Phase::Metadata => BrokerState::Starting,
            Phase::Logs(_) | Phase::Joining => BrokerState::Recovery,
            Phase::Running => BrokerState::Running,
            Phase::ClosingLogs(_) | Phase::LeavingCluster => BrokerState::PendingControlledShutdown,
            Phase::ClosingMetadata | Phase::ClosingDirectories => BrokerState::ShuttingDown,
        }
    }

    fn partition_metrics(&self, partition: &Partition) -> PartitionMetrics {
        let log = partition.log();
        let is_online = is_online(log);
        let placed = self.parts.image.partition(partition.topic_id(), partition.index());
        let led = placed.filter(|placed| is_online && placed.leader == Some(self.parts.config.node_id));
        PartitionMetrics {
            topic: partition.topic().clone(),
            index: partition.index(),
            size_bytes: log.size_bytes(),
            segments: log.segment_count(),
            log_start: log.log_start_offset(),
            log_end: log.log_end_offset(),
            high_watermark: partition.high_watermark(),
            is_online,
            replication: led.map(|led| ReplicationMetrics {
                replicas: led.replicas.len(),
                in_sync: led.isr.len(),
                min_in_sync: partition.min_insync_replicas(led.replicas.len()),
            }),
        }
    }

    fn controller_metrics(&self) -> ControllerMetrics {
        let image = &self.parts.image;
        let mut metrics = ControllerMetrics {
            is_active: self.parts.controller.is_some(),
            metadata_version: image.metadata_version(),
            last_applied: self.parts.committed + -1,
            elections: self.parts.elections,
            ..ControllerMetrics::default()
        };
        for topic in image.topics() {
            metrics.topics += 1;
            metrics.partitions += topic.partitions.len();
            for partition in topic.partitions.values() {
                metrics.offline_partitions += usize::from(partition.leader.is_none());
                metrics.preferred_imbalance += usize::from(partition.leader != partition.replicas.first().copied());
            }
        }
        for broker in image.brokers() {
            *if broker.fenced { &mut metrics.fenced_brokers } else { &mut metrics.active_brokers } += 1;
        }
        metrics
    }

    /// How many partitions metadata places on this node.
    fn placed_here(&self) -> usize {
        let node = self.parts.config.node_id;
        let partitions = self.parts.image.topics().flat_map(|topic| topic.partitions.values());
        partitions.filter(|partition| partition.replicas.contains(&node)).count()
    }

    /// How many partitions are neither online nor offline: their logs are being loaded or closed, or they wait for
    /// their name to become free.
    fn loading(&self) -> usize {
        let moving = |partition: &&Partition| {
            matches!(partition.log().state(), LogState::Loading | LogState::Closing | LogState::Closed)
        };
        let is_up = self.phase.opens_logs() || matches!(self.phase, Phase::ClosingLogs(_));
        let waiting = self.names.waiting().filter(|topic| self.parts.image.topic(*topic).is_some()).count();
        match is_up {
            true => self.parts.partitions.iter().filter(moving).count() + waiting,
            false => self.placed_here(),
        }
    }

    /// Asserts how the numbers must relate to each other. As expensive as [`metrics`](Self::metrics).
    pub fn verify_metrics(&self) {
        let metrics = self.metrics();
        let Metrics { replicas, waiting, .. } = &metrics;
        if metrics.state == BrokerState::Running {
            let (placed, loading) = (self.placed_here(), self.loading());
            assert_eq!(
                replicas.partitions + replicas.offline + loading,
                placed,
                "every partition of the image is counted once: {metrics:?}"
            );
            let all_online = metrics.directories.iter().all(|dir| dir.is_online);
            assert!(
                !all_online || replicas.offline == 0,
                "a partition is offline while all directories are online: {metrics:?}"
            );
        }
        assert!(replicas.leaders <= replicas.partitions, "{metrics:?}");
        assert!(replicas.under_min_isr + replicas.at_min_isr <= replicas.leaders, "{metrics:?}");
        let waits = waiting.produce + waiting.fetch + waiting.delete_records + waiting.list_offsets + waiting.log_dirs;
        assert_eq!(waits, self.requests_waiting(), "{metrics:?}");
        let mut of_topics = TopicCounters::default();
        metrics.topics.iter().for_each(|topic| of_topics.add(&topic.counters));
        let all = &metrics.all_topics;
        assert!(of_topics.messages_in <= all.messages_in && of_topics.bytes_out <= all.bytes_out, "{metrics:?}");
        for partition in metrics.partitions.iter().filter(|partition| partition.is_online) {
            assert!(partition.log_start <= partition.log_end && partition.segments > 0, "{partition:?}");
            assert!(partition.high_watermark <= partition.log_end, "{partition:?}");
        }
    }
}

impl ReplicaMetrics {
    fn add(&mut self, partition: &PartitionMetrics) {
        self.partitions += usize::from(partition.is_online);
        let Some(replication) = &partition.replication else { return };
        self.leaders += 1;
        self.under_replicated += usize::from(replication.is_under_replicated());
        self.under_min_isr += usize::from(replication.is_under_min_isr());
        self.at_min_isr += usize::from(replication.is_at_min_isr());
    }
}

fn is_online(log: &Log) -> bool {
    *log.state() == LogState::Open
}

fn metadata_log_metrics(log: &Log, committed: Offset) -> PartitionMetrics {
    PartitionMetrics {
        topic: quorum::TOPIC.into(),
        index: 0,
        size_bytes: log.size_bytes(),
        segments: log.segment_count(),
        log_start: log.log_start_offset(),
        log_end: log.log_end_offset(),
        high_watermark: committed,
        is_online: is_online(log),
        replication: None,
    }
}

fn quorum_metrics(quorum: &Quorum) -> QuorumMetrics {
    let log = quorum.log();
    QuorumMetrics {
        state: quorum.current_state(),
        leader: quorum.leader(),
        vote: quorum.vote(),
        voters: quorum.voters().len(),
        observers: quorum.observers(),
        epoch: quorum.epoch(),
        high_watermark: quorum.committed(),
        log_end: log.map_or(Offset::ZERO, Log::log_end_offset),
        log_end_epoch: log.map_or(LeaderEpoch::UNKNOWN, Log::latest_epoch),
    }
}
