//! The configuration of the quorum on one node, and the records with which a new cluster begins.

use crate::voters::{Endpoints, ReplicaKey, VoterSet};
use bytes::Bytes;
use bytestring::ByteString;
use tidelog_config::plant::Plants;
use tidelog_storage::LogSettings;
use tidelog_wire::ids::LogDirId;
use tidelog_wire::{Address, MetadataRecord};

/// The configuration of the quorum on this node.
#[derive(Clone, Debug)]
pub struct QuorumConfig {
    pub me: ReplicaKey,
    pub cluster_id: ByteString,
    /// Whether this node is a controller, which may be a voter.
    pub is_controller: bool,
    /// Where this node's controller listens, by the name of each controller listener.
    pub endpoints: Endpoints,
    /// The listener at which this node reaches other controllers: the first of `controller.listener.names`.
    pub listener: ByteString,
    /// `controller.quorum.voters`; this node alone where neither voters nor bootstrap servers are configured.
    pub voters: VoterSet,
    /// Whether this node forms a quorum of its own if its directory is empty.
    pub forms_itself: bool,
    /// `controller.quorum.bootstrap.servers`
    pub bootstrap_servers: Vec<Address>,
    pub timeouts: Timeouts,
    /// `controller.quorum.fetch.max.bytes`
    pub fetch_bytes_max: i32,
    /// `controller.quorum.fetch.snapshot.max.bytes`
    pub fetch_snapshot_bytes_max: i32,
    /// `controller.quorum.auto.join.enable`
    pub joins_by_itself: bool,
    /// The log directory of the metadata log.
    pub dir: LogDirId,
    /// The path of `dir`, for messages.
    pub dir_path: String,
    pub log: LogSettings,
    pub plants: Plants,
    /// `metadata.log.max.record.bytes.between.snapshots`
    pub snapshot_bytes: u64,
    /// `metadata.log.max.snapshot.interval.ms`; 0: no snapshot because of time alone.
    pub snapshot_interval_ms: i64,
}

/// The `controller.quorum.*.ms` of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub election_ms: i64,
    pub election_backoff_ms_max: i64,
    pub fetch_ms: i64,
    pub request_ms: i64,
    pub retry_backoff_ms: i64,
}

impl Default for Timeouts {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            election_ms: 1_000,
            election_backoff_ms_max: 1_000,
            fetch_ms: 2_000,
            request_ms: 2_000,
            retry_backoff_ms: 20,
        }
    }
}

/// The records with which a new cluster begins, whose metadata log is empty.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    pub records: Vec<MetadataRecord>,
    /// `records` in their encoded form.
    pub values: Vec<Bytes>,
}
