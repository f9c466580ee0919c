//! What the metadata says of a partition and of the brokers that have its replicas.

use tidelog_wire::ids::{LeaderEpoch, NodeId};

/// Who has replicas of a partition, and which of them lead and are in sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub leader: Option<NodeId>,
    pub leader_epoch: LeaderEpoch,
    /// Grows with every change of the partition.
    pub partition_epoch: i32,
    pub replicas: Vec<NodeId>,
    pub isr: Vec<NodeId>,
}

/// What the metadata says of the brokers.
pub trait Brokers {
    /// The epoch of a broker that may be in sync: it is registered, not fenced, and not in a controlled shutdown.
    fn active_epoch(&self, node: NodeId) -> Option<i64>;

    /// The epoch of a broker that is registered and not fenced.
    fn alive_epoch(&self, node: NodeId) -> Option<i64>;
}

/// The broker that has a replica, and what it demands of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    pub node: NodeId,
    /// `replica.lag.time.max.ms`: how long a replica may not have caught up with the leader and be in sync nevertheless.
    pub max_lag_ms: i64,
}
