//! A partition that is led here, or whose leader changes.

use crate::assignment::{Assignment, Brokers, Local};
use crate::follower::Follower;
use crate::isr::{IsrAnswer, IsrProposal, Refused};
use crate::leader::{FollowerFetch, Leader, Own};
use crate::partition::{Partition, Role};
use crate::{PartitionEvent, ResponsePlace, Until};
use tidelog_config::plant::Plant;
use tidelog_storage::LogState;
use tidelog_storage::io::Outbox;
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::{LeaderEpoch, NodeId, Offset, PendingId};
use tidelog_wire::time::Now;

impl Role {
    pub(crate) fn new(now: Now, local: Local, assignment: &Assignment) -> Self {
        match assignment.leader == Some(local.node) {
            true => Self::Leader(Leader::new(now.mono, local, assignment)),
            false => Self::Follower(Follower::new(assignment.leader)),
        }
    }
}

impl Partition {
    /// Whether this broker leads the partition in its leader epoch.
    pub fn leads(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The metadata says this of the partition.
    pub fn assign(
        &mut self,
        now: Now,
        assignment: &Assignment,
        brokers: &impl Brokers,
        out: &mut Outbox,
        events: &mut Vec<PartitionEvent>,
    ) {
        let leads = assignment.leader == Some(self.local.node);
        let is_newer = assignment.leader_epoch > self.leader_epoch;
        let known = match &self.role {
            Role::Leader(leader) => leader.partition_epoch(),
            Role::Follower(_) => -1,
        };
        // The leader knows a change that it has asked for before the metadata tells it.
        if assignment.leader_epoch < self.leader_epoch || assignment.partition_epoch < known {
            return;
        }
        self.leader_epoch = assignment.leader_epoch;
        let end = self.log.log_end_offset();
        match &mut self.role {
            Role::Leader(leader) if leads => {
                leader.assign(now.mono, assignment);
                if is_newer {
                    leader.begin_epoch(now.mono, end);
                }
            }
            Role::Leader(_) => {
                self.role = Role::new(now, self.local, assignment);
                self.waiting.fail(ErrorCode::NotLeaderOrFollower, &mut self.counters, events);
            }
            Role::Follower(_) if leads => self.role = Role::new(now, self.local, assignment),
            Role::Follower(follower) => {
                follower.leader = assignment.leader;
                if is_newer {
                    follower.cut = None;
                    self.waiting.wake_all(events);
                }
            }
        }
        self.begin_epoch(out);
        self.advanced(now, brokers, events);
    }

    /// A leader notes where its epoch begins in its log, once that is open.
    pub(crate) fn begin_epoch(&mut self, out: &mut Outbox) {
        let Role::Leader(leader) = &mut self.role else { return };
        if *self.log.state() != LogState::Open || leader.epoch_start.is_some() {
            return;
        }
        leader.epoch_start = Some(self.log.log_end_offset());
        if self.log.latest_epoch() < self.leader_epoch && !self.plants.has(Plant::EpochStartNotRecorded) {
            self.log.assign_epoch(self.leader_epoch, out);
        }
    }

    /// Whether the high watermark is one of this leader's epoch. Before, the leader may know less of what is committed than
    /// the one before it has told.
    pub fn knows_what_is_committed(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        leader.epoch_start.is_some_and(|start| start <= self.high_watermark)
    }

    /// Checks that a follower may fetch from this leader.
    pub fn check_follower(&self, node: NodeId) -> Result<(), ErrorCode> {
        self.check_leader(LeaderEpoch::UNKNOWN)?;
        match &self.role {
            Role::Leader(leader) if leader.has_replica(node) => Ok(()),
            // The follower may know an assignment that has not reached this broker yet.
            _ => Err(ErrorCode::UnknownLeaderEpoch),
        }
    }

    /// A follower has fetched, and was given what it asked for.
    pub fn follower_fetched(
        &mut self,
        now: Now,
        fetch: &FollowerFetch,
        brokers: &impl Brokers,
        events: &mut Vec<PartitionEvent>,
    ) -> Result<(), ErrorCode> {
        let own = self.own();
        let Role::Leader(leader) = &mut self.role else { return Err(ErrorCode::NotLeaderOrFollower) };
        if !leader.fetched(now.mono, fetch, own.end, brokers) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        events.extend(leader.expand(fetch.node, own, brokers).map(PartitionEvent::IsrProposed));
        self.advanced(now, brokers, events);
        Ok(())
    }

    /// Asks for the followers to be out of sync that have not caught up for too long.
    pub fn shrink_isr(&mut self, now: Now, events: &mut Vec<PartitionEvent>) {
        let own = self.own();
        // Without a log nobody can catch up, and this replica must not become the last that is in sync.
        if let Role::Leader(leader) = &mut self.role
            && self.log.is_open()
        {
            events.extend(leader.shrink(now.mono, own).map(PartitionEvent::IsrProposed));
        }
    }

    /// The controller has answered `asked`, which was proposed in this leader epoch.
    pub fn isr_answered(
        &mut self,
        now: Now,
        epoch: LeaderEpoch,
        asked: &IsrProposal,
        answer: Result<IsrAnswer, ErrorCode>,
        brokers: &impl Brokers,
        events: &mut Vec<PartitionEvent>,
    ) {
        let Role::Leader(leader) = &mut self.role else { return };
        // The metadata may have told it before. Then this says nothing of what may have been proposed since.
        if epoch != self.leader_epoch || !leader.awaits(asked) {
            return;
        }
        match answer {
            Ok(IsrAnswer { partition_epoch, isr }) => {
                if partition_epoch >= leader.partition_epoch() {
                    leader.isr_committed(partition_epoch, isr);
                }
            }
            Err(error) => {
                if leader.isr_mut().refused(error) == Refused::Again {
                    events.extend(leader.proposed().map(PartitionEvent::IsrProposed));
                }
            }
        }
        self.advanced(now, brokers, events);
    }

    /// The replicas that are in sync for certain; none, if the partition is not led here.
    pub fn in_sync(&self) -> &[NodeId] {
        match &self.role {
            Role::Leader(leader) => leader.isr().committed(),
            Role::Follower(_) => &[],
        }
    }

    /// How far the followers are behind; none for one that has not fetched yet. Nothing for a partition that is not led
    /// here.
    pub fn lag(&self) -> impl Iterator<Item = (NodeId, Option<i64>)> {
        let leader = match &self.role {
            Role::Leader(leader) => Some(leader),
            Role::Follower(_) => None,
        };
        leader.into_iter().flat_map(|leader| leader.lag(self.log.log_end_offset()))
    }

    /// The lowest log start of the replicas on brokers that are there, if this broker leads.
    pub fn low_watermark(&self, brokers: &impl Brokers) -> Option<Offset> {
        let Role::Leader(leader) = &self.role else { return None };
        Some(leader.low_watermark(self.log.log_start_offset(), brokers))
    }

    /// Makes the DeleteRecords request `id` wait until no replica on a broker that is there has a record below `target`. Then
    /// [`PartitionEvent::AnswerDone`] comes with `place`.
    pub fn answer_when_deleted(&mut self, target: Offset, id: PendingId, place: ResponsePlace) {
        self.waiting.answer_later(Until::DeletedEverywhere, Offset(target.0 - 1), id, place);
    }

    fn own(&self) -> Own {
        Own { stable: self.log.stable_offset(), end: self.log.log_end_offset(), high_watermark: self.high_watermark }
    }

    /// `min.insync.replicas`, but at most the number of replicas.
    pub(crate) fn min_in_sync(&self) -> usize {
        let Role::Leader(leader) = &self.role else { return 0 };
        self.min_insync_replicas(leader.replica_count())
    }

    /// The log, the ISR or a follower has moved on: so may the high watermark, and who waits for it.
    pub(crate) fn advanced(&mut self, now: Now, brokers: &impl Brokers, events: &mut Vec<PartitionEvent>) {
        if !matches!(self.log.state(), LogState::Open | LogState::Closing) {
            return;
        }
        if let Role::Leader(leader) = &self.role {
            let (own, min) = (self.own(), self.min_in_sync());
            let committed = leader.committed_up_to(now.mono, own, min, brokers);
            let is_enough = min <= leader.isr().len_max();
            if let Some(mut committed) = committed {
                if self.plants.has(Plant::HighWatermarkOneTooHigh) && committed < own.end {
                    committed = committed + 1;
                }
                if committed > self.high_watermark {
                    self.high_watermark = committed;
                    let result = if is_enough { Ok(()) } else { Err(ErrorCode::NotEnoughReplicasAfterAppend) };
                    self.waiting.reached(Until::Committed, committed, result, events);
                }
            }
            self.waiting.reached(Until::Stable, own.stable, Ok(()), events);
            if self.waiting.awaits_deletion() {
                let low_watermark = leader.low_watermark(self.log.log_start_offset(), brokers);
                self.waiting.reached(Until::DeletedEverywhere, low_watermark, Ok(()), events);
            }
        }
        self.wake_watchers(events);
    }
}
