//! The state of a broker in a form that people read when they look at a run. Nothing depends on it.

use super::{Broker, Phase};
use crate::ids::{LeaderEpoch, NodeId, Offset};
use crate::quorum::{ReplicaKey, Role, VoterSet};
use crate::replication::Partition;
use crate::storage::LogState;
use crate::wire::MetadataRecord;
use std::fmt;

/// One partition of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// `<topic>-<partition>`.
    pub name: String,
    pub state: &'static str,
    pub leads: bool,
    pub leader_epoch: LeaderEpoch,
    /// The replicas that are in sync for certain, as the leader knows them; nobody's for a follower.
    pub in_sync: Vec<NodeId>,
    pub log_start: Offset,
    pub high_watermark: Offset,
    /// All records below this offset are on stable storage.
    pub synced: Offset,
    pub log_end: Offset,
}

impl fmt::Display for PartitionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, high, synced, end) = (self.log_start.0, self.high_watermark.0, self.synced.0, self.log_end.0);
        let role = if self.leads { "leads" } else { "follows" };
        write!(
            f,
            "{} {role} epoch {} start {start} hw {high} synced {synced} end {end}",
            self.state, self.leader_epoch.0
        )?;
        let others = self.in_sync.len() > 1;
        let in_sync = self.in_sync.iter().filter(|_| others).map(|node| format!(" {}", node.0));
        write!(f, "{}", in_sync.collect::<String>().replacen(' ', " isr ", 1))
    }
}

/// The quorum of the metadata log as one of its replicas knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuorumView {
    pub role: &'static str,
    pub leads: bool,
    pub epoch: LeaderEpoch,
    pub leader: Option<NodeId>,
    /// One past the last record that this node has applied.
    pub committed: Offset,
    pub high_watermark: Option<Offset>,
    /// Where the log starts. What is below is in a snapshot.
    pub log_start: Offset,
    /// All records below this offset are on stable storage.
    pub synced: Offset,
    pub log_end: Offset,
}

impl fmt::Display for QuorumView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leader = self.leader.map_or("unknown".to_owned(), |leader| leader.to_string());
        let (synced, end, committed) = (self.synced.0, self.log_end.0, self.committed.0);
        let high = self.high_watermark.map_or("unknown".to_owned(), |high| high.0.to_string());
        let (role, epoch) = (self.role, self.epoch.0);
        write!(f, "{role} epoch {epoch} leader {leader} committed {committed} hw {high} synced {synced} end {end}")
    }
}

impl Broker {
    /// The quorum, once what the disk holds of it is read.
    pub fn quorum(&self) -> Option<QuorumView> {
        let quorum = self.parts.quorum.as_ref().filter(|quorum| quorum.is_running())?;
        let log = quorum.log()?;
        // What lies in a log that begins again behind a snapshot counts no more.
        let (log_start, synced, log_end) = match quorum.is_restarting_log() {
            true => [quorum.committed(); 3].into(),
            false => (log.log_start_offset(), log.synced_offset(), log.log_end_offset()),
        };
        Some(QuorumView {
            role: quorum.role().name(),
            leads: matches!(quorum.role(), Role::Leader(_)),
            epoch: quorum.epoch(),
            leader: quorum.leader(),
            committed: quorum.committed(),
            high_watermark: quorum.high_watermark(),
            log_start,
            synced,
            log_end,
        })
    }

    /// The brokers that are not fenced in the metadata of this node. None if it is not the active controller.
    pub fn unfenced(&self) -> Option<Vec<NodeId>> {
        self.parts.controller.as_ref()?;
        let unfenced = self.parts.image.brokers().filter(|broker| !broker.fenced);
        Some(unfenced.map(|broker| NodeId(broker.broker_id)).collect())
    }

    /// The voters of the quorum that count for this node now.
    pub fn voters(&self) -> impl Iterator<Item = ReplicaKey> + '_ {
        self.parts.quorum.iter().flat_map(|quorum| quorum.voters().keys())
    }

    /// The metadata as this node knows it, as the records of a snapshot, and one past the last record in it.
    pub fn metadata(&self) -> (Offset, Vec<MetadataRecord>) {
        (self.parts.committed, self.parts.image.to_records())
    }

    /// The sets of voters that the metadata log of this node names, each with the offset of its record.
    pub fn recorded_voters(&self) -> impl Iterator<Item = (Offset, &VoterSet)> {
        self.parts.quorum.iter().flat_map(|quorum| quorum.recorded_voters())
    }

    /// How far the broker has started, or stopped, in words.
    pub fn phase(&self) -> &'static str {
        match &self.phase {
            Phase::Created => "created",
            Phase::Directories => "reads its directories",
            Phase::Metadata => "reads its metadata",
            Phase::Logs(_) => "loads its logs",
            Phase::Joining => "waits to be unfenced",
            Phase::Running => "running",
            Phase::ClosingLogs(_) => "closes its logs",
            Phase::LeavingCluster => "leaves the cluster",
            Phase::ClosingMetadata => "closes its metadata",
            Phase::ClosingDirectories => "closes its directories",
            Phase::Ended => "ended",
        }
    }

    /// How many requests wait for something.
    pub fn requests_waiting(&self) -> usize {
        self.parts.pending.len()
    }

    pub fn partitions(&self) -> impl Iterator<Item = PartitionView> + '_ {
        self.parts.partitions.iter().map(PartitionView::from)
    }
}

impl From<&Partition> for PartitionView {
    fn from(partition: &Partition) -> Self {
        let log = partition.log();
        Self {
            name: format!("{}-{}", partition.topic(), partition.index()),
            state: match log.state() {
                LogState::Loading => "loading",
                LogState::Open => "open",
                LogState::Offline(_) => "offline",
                LogState::Closing => "closing",
                LogState::Closed => "closed",
                LogState::Deleting => "deleting",
                LogState::Deleted => "deleted",
            },
            leads: partition.leads(),
            leader_epoch: partition.leader_epoch(),
            in_sync: partition.in_sync().to_vec(),
            log_start: log.log_start_offset(),
            high_watermark: partition.high_watermark(),
            synced: log.synced_offset(),
            log_end: log.log_end_offset(),
        }
    }
}
