//! What a broker looks like from outside, for people who look at a run. Nothing is ever decided by it.

use super::{Broker, Life};
use crate::ids::{LeaderEpoch, Offset};
use crate::replication::Partition;
use crate::storage::LogState;
use std::fmt;

/// One partition of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// `<topic>-<partition>`.
    pub name: String,
    pub state: &'static str,
    pub leader_epoch: LeaderEpoch,
    pub log_start: Offset,
    pub high_watermark: Offset,
    /// Below it everything is on stable storage.
    pub synced: Offset,
    pub log_end: Offset,
}

impl fmt::Display for PartitionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, high, synced, end) = (self.log_start.0, self.high_watermark.0, self.synced.0, self.log_end.0);
        write!(f, "{} epoch {} start {start} hw {high} synced {synced} end {end}", self.state, self.leader_epoch.0)
    }
}

impl Broker {
    /// How far it has come up, or gone down.
    pub fn life(&self) -> &'static str {
        match &self.life {
            Life::Created => "created",
            Life::Directories => "reads its directories",
            Life::Metadata => "reads its metadata",
            Life::Logs(_) => "loads its logs",
            Life::Running => "running",
            Life::ClosingLogs(_) => "closes its logs",
            Life::LeavingCluster => "leaves the cluster",
            Life::ClosingMetadata => "closes its metadata",
            Life::ClosingDirectories => "closes its directories",
            Life::Ended => "ended",
        }
    }

    /// Requests that wait for something.
    pub fn requests_waiting(&self) -> usize {
        self.parts.pending.len()
    }

    pub fn partitions(&self) -> impl Iterator<Item = PartitionView> + '_ {
        self.parts.partitions.iter().map(Partition::view)
    }
}

impl Partition {
    fn view(&self) -> PartitionView {
        let log = self.log();
        PartitionView {
            name: format!("{}-{}", self.topic(), self.index()),
            state: match log.state() {
                LogState::Loading => "loading",
                LogState::Open => "open",
                LogState::Offline(_) => "offline",
                LogState::Closing => "closing",
                LogState::Closed => "closed",
                LogState::Deleting => "deleting",
                LogState::Deleted => "deleted",
            },
            leader_epoch: self.leader_epoch(),
            log_start: log.log_start_offset(),
            high_watermark: self.high_watermark(),
            synced: log.synced_offset(),
            log_end: log.log_end_offset(),
        }
    }
}
