//! How the parts are created from the configuration, and what more than one kind of request needs of them.

use crate::api::{Channel, FetchSessions, Parts, PendingRequests, ProducerIds, QuorumRequests, Replies};
use crate::batch::{Codec, TopicBatchRules};
use crate::config::{BrokerConfig, CompressionType, Layers, TimestampType, TopicConfig};
use crate::controller::{self, ElectionCounts, Image};
use crate::ids::{LogDirId, Offset, Uuid};
use crate::io::Outbox;
use crate::plant::Plant;
use crate::quorum::{Bootstrap, Endpoints, Quorum, QuorumConfig, ReplicaKey, Timeouts, Voter};
use crate::replication::{PartitionRules, Partitions};
use crate::storage::checkpoints::Offsets;
use crate::storage::names::METADATA_PARTITION_DIR;
use crate::storage::{
    CheckpointKind, CheckpointWrites, LoadHints, LogDirs, LogDirsConfig, LogSettings, TopicPartition,
};
use crate::wire::Address;
use bytestring::ByteString;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};

impl Parts {
    pub fn new(config: BrokerConfig, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let dirs = LogDirsConfig {
            paths: config.log_dirs.clone(),
            node_id: config.node_id,
            cluster_id: config.cluster_id.clone().map(ByteString::from),
            metadata_dir: metadata_dir(&config),
            begins_cluster: config.quorum.bootstrap_servers.is_empty()
                && config.quorum.voters.iter().all(|(node, _)| *node == config.node_id),
        };
        let dirs = LogDirs::new(dirs, || crate::api::draw_bytes(&mut rng));
        let plants = config.plants;
        let slots = config.max_incremental_fetch_session_cache_slots.max(0) as usize;
        Self {
            sessions: FetchSessions::new(slots, plants),
            loggers: config.loggers.clone(),
            controller_listeners: config
                .listeners
                .iter()
                .map(|listener| config.is_controller_listener(listener))
                .collect(),
            channel: Channel::new(config.controller_socket_timeout_ms.into()),
            config,
            cluster_id: ByteString::new(),
            rng,
            replies: Replies::new(plants),
            pending: PendingRequests::default(),
            producer_ids: ProducerIds::default(),
            dirs,
            found_checkpoints: BTreeMap::new(),
            unlisted_dirs: BTreeSet::new(),
            quorum: None,
            quorum_requests: QuorumRequests::default(),
            controller: None,
            image: Image::default(),
            committed: Offset::ZERO,
            broker_epoch: -1,
            previous_broker_epoch: None,
            partitions: Partitions::default(),
            told: Vec::new(),
            stopping: false,
            elections: ElectionCounts::default(),
        }
    }

    /// Begins to read the metadata. The log directories must have been read.
    pub fn start_quorum(&mut self, hints: LoadHints, out: &mut Outbox) {
        let dir = metadata_dir(&self.config);
        let directory = self.dirs.directory_id(dir).expect("the metadata directory is online");
        let me = ReplicaKey::new(self.config.node_id, directory);
        let endpoints = self.config.controller_listeners();
        let endpoints: Endpoints =
            endpoints.map(|listener| (&*listener.name, &*listener.host, listener.port)).collect();
        let settings = self.config.quorum.clone();
        let listener = ByteString::from(self.config.controller_listener_names.first().map_or("", |name| name));
        let forms_itself = settings.voters.is_empty() && settings.bootstrap_servers.is_empty();
        // The directories of static voters are not known.
        let voter =
            |node, endpoints| Voter { key: ReplicaKey { node, directory: None }, endpoints, kraft_versions: (0, 0) };
        let at = |address: &Address| [(listener.clone(), address.host.clone(), address.port)].into_iter().collect();
        let config = QuorumConfig {
            me,
            cluster_id: self.cluster_id.clone(),
            is_controller: self.config.roles.has_controller(),
            voters: match forms_itself {
                true => [voter(me.node, endpoints.clone())].into_iter().collect(),
                false => settings.voters.iter().map(|(node, address)| voter(*node, at(address))).collect(),
            },
            forms_itself,
            endpoints,
            listener,
            bootstrap_servers: settings.bootstrap_servers,
            timeouts: Timeouts {
                election_ms: settings.election_timeout_ms,
                election_backoff_ms_max: settings.election_backoff_ms_max,
                fetch_ms: settings.fetch_timeout_ms,
                request_ms: settings.request_timeout_ms,
                retry_backoff_ms: settings.retry_backoff_ms,
            },
            fetch_bytes_max: settings.fetch_bytes_max,
            fetch_snapshot_bytes_max: settings.fetch_snapshot_bytes_max,
            joins_by_itself: settings.joins_by_itself,
            dir,
            dir_path: self.config.log_dirs[usize::from(dir.0)].clone(),
            log: metadata_log_settings(&self.config),
            plants: self.config.plants,
            snapshot_bytes: self.config.metadata_log_max_record_bytes_between_snapshots.max(1) as u64,
            snapshot_interval_ms: self.config.metadata_log_max_snapshot_interval_ms,
        };
        let records = controller::bootstrap_features();
        let values = records.iter().map(|record| record.encode(record.newest_version())).collect();
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let mut quorum = Quorum::new(config, Bootstrap { records, values }, seed);
        quorum.boot(hints, out);
        self.quorum = Some(quorum);
    }

    pub fn quorum(&mut self) -> &mut Quorum {
        self.quorum.as_mut().expect("the directories are read before the metadata")
    }

    /// What this node tells the controller at its start. Draws a new incarnation id.
    pub fn node_start(&mut self) -> controller::BrokerStart {
        let incarnation_id = self.draw_uuid();
        controller::BrokerStart {
            node_id: self.config.node_id,
            incarnation_id,
            rack: self.config.rack.clone(),
            listeners: self.config.client_listeners().cloned().collect(),
            controller_listeners: self.config.controller_listeners().cloned().collect(),
            log_dirs: self.directories_online(),
            previous_broker_epoch: self.previous_broker_epoch,
        }
    }

    /// Where the active controller can be asked, if it is another node that this node knows of.
    pub fn remote_controller(&mut self) -> Option<Address> {
        let node = self.config.node_id;
        let listener = self.config.controller_listener_names.first()?.clone();
        let quorum = self.quorum();
        quorum.leader().filter(|leader| *leader != node)?;
        quorum.leader_endpoints().address(&listener).cloned()
    }

    /// The ids of the log directories that this broker registers.
    pub fn directories_online(&self) -> Vec<Uuid> {
        let online = self.dirs.online().filter(|dir| self.takes_partitions(*dir) || self.unlisted_dirs.contains(dir));
        online.filter_map(|dir| self.dirs.directory_id(dir)).collect()
    }

    /// The ids of those in which the controller shall place no replicas (KIP-1066).
    pub fn directories_cordoned(&self) -> Vec<Uuid> {
        self.unlisted_dirs.iter().filter_map(|dir| self.dirs.directory_id(*dir)).collect()
    }

    /// Whether new partitions may be placed in this directory: `log.dirs` names it. The directory of the metadata log
    /// alone takes none.
    pub fn takes_partitions(&self, dir: LogDirId) -> bool {
        usize::from(dir.0) < self.config.partition_dirs
    }

    pub fn draw_uuid(&mut self) -> Uuid {
        crate::api::draw_uuid(&mut self.rng)
    }

    /// The settings of a topic's logs and the rules for its batches, from its configuration.
    pub fn settings_of(&self, topic: Uuid) -> Option<(LogSettings, PartitionRules)> {
        let topic = self.image.topic(topic)?;
        let layers = self.image.layers(&self.config);
        let config = TopicConfig::resolve(self.image.topic_config(&topic.name), &layers);
        let is_internal = crate::api::is_internal_topic(&topic.name);
        Some((log_settings(&config, &layers), partition_rules(&config, is_internal)))
    }

    /// Writes a checkpoint of all partitions, in every log directory that is online.
    pub fn checkpoint(&mut self, kind: CheckpointKind, out: &mut Outbox) {
        let dirs: Vec<LogDirId> = self.dirs.online().collect();
        self.checkpoint_in(&dirs, kind, out);
    }

    /// Writes the checkpoints of all kinds in one log directory.
    pub fn checkpoint_dir(&mut self, dir: LogDirId, out: &mut Outbox) -> CheckpointWrites {
        for kind in CheckpointKind::ALL {
            self.checkpoint_in(&[dir], kind, out);
        }
        self.dirs.writes(dir)
    }

    fn checkpoint_in(&mut self, dirs: &[LogDirId], kind: CheckpointKind, out: &mut Outbox) {
        let found = |dir: &LogDirId| self.found_checkpoints.get(&(*dir, kind)).cloned().unwrap_or_default();
        let mut by_dir: BTreeMap<LogDirId, Offsets> = dirs.iter().map(|dir| (*dir, found(dir))).collect();
        let ahead = self.config.plants.has(Plant::RecoveryPointAheadOfSync);
        for partition in self.partitions.iter().filter(|partition| partition.is_loaded()) {
            if let Some(offsets) = by_dir.get_mut(&partition.dir()) {
                let name = TopicPartition::new(partition.topic().clone(), partition.index());
                let offset = match kind {
                    CheckpointKind::HighWatermark => partition.high_watermark(),
                    CheckpointKind::LogStart => partition.log().log_start_offset(),
                    CheckpointKind::RecoveryPoint if ahead => partition.log().log_end_offset(),
                    CheckpointKind::RecoveryPoint => partition.recovery_point(),
                };
                offsets.insert(name, offset);
            }
        }
        if let Some(quorum) = &self.quorum
            && let Some(log) = quorum.log()
            && let Some(recovery_point) = quorum.recovery_point()
            && let Some(offsets) = by_dir.get_mut(&log.place().dir)
        {
            let name =
                TopicPartition::parse(METADATA_PARTITION_DIR).expect("it is the name of a partition's directory");
            let offset = match kind {
                CheckpointKind::LogStart => log.log_start_offset(),
                CheckpointKind::RecoveryPoint | CheckpointKind::HighWatermark => recovery_point,
            };
            offsets.insert(name, offset);
        }
        for (dir, offsets) in by_dir {
            self.dirs.write_checkpoint(dir, kind, &offsets, out);
        }
    }

    /// Asserts the invariants of every part, of partitions only those that may have changed since the last call.
    pub fn verify(&mut self) {
        self.dirs.verify();
        self.pending.verify();
        if let Some(quorum) = &self.quorum {
            quorum.verify();
            if let Some(controller) = &self.controller {
                controller.verify(quorum);
            }
        }
        self.partitions.verify();
        for partition in self.partitions.iter() {
            assert!(
                partition.watchers().all(|id| self.pending.contains(id)),
                "a partition is watched by a fetch that was answered"
            );
        }
    }
}

fn metadata_dir(config: &BrokerConfig) -> LogDirId {
    LogDirId(u16::try_from(config.metadata_log_dir).expect("fewer than 65536 log.dirs"))
}

fn log_settings(config: &TopicConfig, broker: &Layers) -> LogSettings {
    LogSettings {
        segment_bytes: config.segment_bytes.max(1) as u32,
        // Only inactive segments are compacted, so a compacted topic rolls its segments before the lag is over.
        segment_ms: match config.cleanup.compact {
            true => config.segment_ms.min(config.max_compaction_lag_ms),
            false => config.segment_ms,
        },
        segment_jitter_ms: config.segment_jitter_ms,
        segment_index_bytes: config.segment_index_bytes.max(0) as u32,
        index_interval_bytes: config.index_interval_bytes.max(0) as u32,
        retention_ms: config.retention_ms,
        retention_bytes: config.retention_bytes,
        delete_retention: config.cleanup.delete,
        file_delete_delay_ms: config.file_delete_delay_ms,
        require_fsync: config.acks_require_fsync,
        flush_messages: config.flush_messages,
        flush_ms: config.flush_ms,
        producer_id_expiration_ms: broker.number("producer.id.expiration.ms"),
        log_append_time: config.message_timestamp_type == TimestampType::LogAppendTime,
    }
}

/// The settings of the metadata log: it is always synced, and only snapshots remove records from it.
fn metadata_log_settings(config: &BrokerConfig) -> LogSettings {
    LogSettings {
        segment_bytes: config.metadata_log_segment_bytes.max(1) as u32,
        segment_ms: config.metadata_log_segment_ms,
        retention_ms: -1,
        retention_bytes: -1,
        delete_retention: false,
        require_fsync: true,
        ..LogSettings::default()
    }
}

fn partition_rules(config: &TopicConfig, is_internal: bool) -> PartitionRules {
    let log_append_time = config.message_timestamp_type == TimestampType::LogAppendTime;
    PartitionRules {
        batch: TopicBatchRules {
            max_message_bytes: config.max_message_bytes.max(0) as u64,
            compacted: config.cleanup.compact,
            timestamp_type: match log_append_time {
                true => crate::batch::TimestampType::LogAppendTime,
                false => crate::batch::TimestampType::CreateTime,
            },
            timestamp_before_max_ms: config.message_timestamp_before_max_ms,
            timestamp_after_max_ms: config.message_timestamp_after_max_ms,
        },
        compression: match config.compression_type {
            CompressionType::Producer => None,
            CompressionType::Uncompressed => Some((Codec::None, 0)),
            CompressionType::Gzip => Some((Codec::Gzip, config.compression_gzip_level)),
            CompressionType::Snappy => Some((Codec::Snappy, 0)),
            CompressionType::Lz4 => Some((Codec::Lz4, config.compression_lz4_level)),
            CompressionType::Zstd => Some((Codec::Zstd, config.compression_zstd_level)),
        },
        min_insync_replicas: config.min_insync_replicas,
        allows_delete: config.cleanup.delete || !config.cleanup.compact,
        is_internal,
    }
}
