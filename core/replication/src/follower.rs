//! A replica that follows a leader: it fetches from where its log ends, appends what it gets, and cuts what the leader has
//! not (KIP-101, KIP-279, KIP-595).
//!
//! A fetch tells the leader that all below its offset is on stable storage here. So a follower fetches on only when what it
//! has got is stable. (Apache Kafka's followers fetch on at once.)
//!
//! Before a log is cut, the checkpoint of the recovery point is written with the offset of the cut: else the next start
//! would miss what was cut.

use crate::partition::{Partition, Role};
use crate::{PartitionEvent, Watched};
use tidelog_batch::Checked;
use tidelog_storage::io::{Level, Outbox, Part};
use tidelog_storage::{Append, LogState};
use tidelog_wire::ids::{LeaderEpoch, NodeId, Offset};
use tidelog_wire::time::Now;

const PART: Part = Part::Replication;

/// From where a follower fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPosition {
    pub leader: NodeId,
    pub leader_epoch: LeaderEpoch,
    pub offset: Offset,
    /// The leader epoch of the last record before `offset`; [`LeaderEpoch::UNKNOWN`] if there is none.
    pub last_epoch: LeaderEpoch,
    pub log_start: Offset,
}

/// What a leader has answered for one partition.
#[derive(Debug)]
pub struct Fetched {
    pub high_watermark: Offset,
    pub log_start: Offset,
    /// The greatest epoch of the leader's log that is not above the follower's last one, and where it ends there. There is
    /// one if the follower's log is no prefix of the leader's.
    pub diverging: Option<(LeaderEpoch, Offset)>,
    pub batches: Vec<Checked>,
}

/// What has become of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The follower has it, or has begun to cut its log.
    Used,
    /// The follower's log is not any more as it was when it was asked for.
    Stale,
    /// It cannot be used, for this reason. The leader is asked again after a pause.
    Refused(String),
}

#[derive(Debug)]
pub(crate) struct Follower {
    pub leader: Option<NodeId>,
    /// Where the leader's log starts. This one starts there too once all below is stable.
    pub leader_start: Offset,
    pub cut: Option<Cut>,
}

impl Follower {
    pub fn new(leader: Option<NodeId>) -> Self {
        Self { leader, leader_start: Offset::ZERO, cut: None }
    }
}

/// A part of the log that goes, or all of it.
#[derive(Debug)]
pub(crate) struct Cut {
    to: CutTo,
    /// Whether the log is being cut. Before, the checkpoint of the recovery point is being written.
    has_begun: bool,
}

#[derive(Debug)]
enum CutTo {
    /// What is from this offset on.
    End(Offset),
    /// All. The log begins again at the offset, and takes what was fetched.
    Restart(Offset, Option<Box<Fetched>>),
}

impl Partition {
    /// From where to fetch, if this replica follows a leader and can take more now.
    pub fn fetch_position(&self) -> Option<FetchPosition> {
        let Role::Follower(Follower { leader: Some(leader), cut: None, .. }) = &self.role else { return None };
        let log = &self.log;
        let is_ready = log.is_open() && log.stable_offset() == log.log_end_offset();
        is_ready.then(|| FetchPosition {
            leader: *leader,
            leader_epoch: self.leader_epoch,
            offset: log.log_end_offset(),
            last_epoch: log.latest_epoch(),
            log_start: log.log_start_offset(),
        })
    }

    /// Whether a part of the log goes, or is about to.
    pub fn is_cutting(&self) -> bool {
        matches!(&self.role, Role::Follower(Follower { cut: Some(_), .. })) || *self.log.state() == LogState::Loading
    }

    /// Whom this replica follows.
    pub fn follows(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::Leader(_) => None,
        }
    }

    /// The leader has answered the fetch from `position`.
    pub fn fetched(
        &mut self,
        now: Now,
        position: &FetchPosition,
        fetched: Fetched,
        out: &mut Outbox,
        events: &mut Vec<PartitionEvent>,
    ) -> Taken {
        if self.fetch_position().as_ref() != Some(position) {
            return Taken::Stale;
        }
        // What else the leader says is of a log that this one is no prefix of (KAFKA-14704).
        if let Some((epoch, end)) = fetched.diverging {
            return self.diverged(epoch, end, out, events);
        }
        if let Some(Ok(first)) = fetched.batches.first() {
            let (base, last) = (first.header().base_offset, first.header().last_offset());
            let end = self.log.log_end_offset();
            if base < end && end <= last && self.log.log_start_offset() == end {
                // The leader's log starts in the middle of a batch, and this log is empty (KAFKA-6975).
                self.begin_cut(CutTo::Restart(base, Some(Box::new(fetched))), events);
                return Taken::Used;
            }
        }
        self.append_fetched(now, fetched, out, events)
    }

    fn append_fetched(
        &mut self,
        now: Now,
        fetched: Fetched,
        out: &mut Outbox,
        events: &mut Vec<PartitionEvent>,
    ) -> Taken {
        let mut outcome = Taken::Used;
        for batch in fetched.batches {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    outcome = Taken::Refused(format!("the leader sent a batch that is damaged: {error}"));
                    break;
                }
            };
            let (base, epoch) = (batch.header().base_offset, batch.header().leader_epoch);
            if epoch > self.leader_epoch {
                // The leader has become that of a later epoch meanwhile (KAFKA-18723).
                break;
            }
            let end = self.log.log_end_offset();
            if base != end || epoch < self.log.latest_epoch() {
                outcome = Taken::Refused(format!(
                    "the leader sent a batch of the epoch {epoch} at offset {base}, and the log ends at {end} in the epoch \
                     {}",
                    self.log.latest_epoch()
                ));
                break;
            }
            if let Err(error) = self.log.append(now, Append::Replicated(batch.bytes()), self.leader_epoch, out) {
                outcome = Taken::Refused(error.to_string());
                break;
            }
        }
        self.count_from_here();
        let high = fetched.high_watermark.min(self.log.log_end_offset());
        if high > self.high_watermark {
            self.high_watermark = high;
            self.waiting.wake(Watched::HighWatermark, events);
        }
        if let Role::Follower(follower) = &mut self.role {
            follower.leader_start = fetched.log_start;
        }
        self.start_where_the_leader_does(now, out);
        outcome
    }

    /// Deletes the records that the leader has deleted.
    pub(crate) fn start_where_the_leader_does(&mut self, now: Now, out: &mut Outbox) {
        let Role::Follower(Follower { leader_start, .. }) = &self.role else { return };
        let (start, own) = (*leader_start, self.log.log_start_offset());
        if start > own && start <= self.high_watermark.min(self.log.stable_offset()) && self.log.is_open() {
            self.log.delete_records(start, out);
            self.enforce_retention(now, out);
        }
    }

    /// The leader's log has `epoch` up to `end`, and this log differs from it.
    fn diverged(
        &mut self,
        epoch: LeaderEpoch,
        end: Offset,
        out: &mut Outbox,
        events: &mut Vec<PartitionEvent>,
    ) -> Taken {
        let own = self.log.end_offset_for_epoch(epoch);
        let log_end = self.log.log_end_offset();
        // Where the epoch is not known here, this log's next lower one may be cut too far or not far enough. The next
        // fetch tells.
        let cut = if own.epoch == epoch { own.end_offset.min(end) } else { own.end_offset };
        // The log knows no epoch that is so low: nothing of it is in the leader's log.
        let cut = if own.epoch == LeaderEpoch::UNKNOWN { end } else { cut }.max(self.log.log_start_offset());
        if cut >= log_end {
            // A replica that has led without writing anything knows an epoch that the leader may not have.
            if self.log.forget_empty_epochs(out) {
                return Taken::Used;
            }
            return Taken::Refused(format!(
                "the leader says that its epoch {epoch} ends at {end}, and this log, which ends at {log_end}, has nothing \
                 beyond"
            ));
        }
        self.cut_to(cut, out, events);
        Taken::Used
    }

    /// The leader has no records at the offset from which this replica fetches: its log starts and ends there.
    pub fn out_of_range(
        &mut self,
        position: &FetchPosition,
        leader_start: Offset,
        leader_end: Offset,
        out: &mut Outbox,
        events: &mut Vec<PartitionEvent>,
    ) {
        if self.fetch_position().as_ref() != Some(position) {
            return;
        }
        if leader_end < position.offset {
            self.cut_to(leader_end.max(Offset::ZERO), out, events);
        } else if leader_start > position.offset {
            let (topic, index) = (&self.topic, self.index);
            let text = format!(
                "{topic}-{index}: the log, which ends at {}, begins again at {leader_start}, where the leader's starts",
                position.offset
            );
            out.event(Level::Info, PART, text);
            self.begin_cut(CutTo::Restart(leader_start, None), events);
        }
    }

    fn cut_to(&mut self, end: Offset, out: &mut Outbox, events: &mut Vec<PartitionEvent>) {
        let (topic, index, log_end) = (&self.topic, self.index, self.log.log_end_offset());
        let text = format!("{topic}-{index}: the log is cut from {log_end} to {end}, as the leader has it");
        let level = if end < self.high_watermark { Level::Warn } else { Level::Info };
        out.event(level, PART, text);
        match end < self.log.log_start_offset() {
            true => self.begin_cut(CutTo::Restart(end, None), events),
            false => self.begin_cut(CutTo::End(end), events),
        }
    }

    fn begin_cut(&mut self, to: CutTo, events: &mut Vec<PartitionEvent>) {
        let Role::Follower(follower) = &mut self.role else { panic!("a follower's log is cut") };
        follower.cut = Some(Cut { to, has_begun: false });
        events.push(PartitionEvent::RecoveryPointTooHigh);
    }

    /// What the checkpoint of the recovery point shall say.
    pub fn recovery_point(&self) -> Offset {
        let synced = self.log.synced_offset();
        let Role::Follower(Follower { cut: Some(cut), .. }) = &self.role else { return synced };
        match cut.to {
            CutTo::End(end) => synced.min(end),
            CutTo::Restart(..) => Offset::ZERO,
        }
    }

    /// The checkpoint of the recovery point is on stable storage: now the log can be cut.
    pub fn recovery_point_lowered(&mut self, out: &mut Outbox) {
        // Meanwhile this replica may have become the leader, or another one may lead.
        let Role::Follower(Follower { cut: Some(cut), .. }) = &mut self.role else { return };
        if *self.log.state() != LogState::Open || cut.has_begun {
            return;
        }
        cut.has_begun = true;
        match &cut.to {
            CutTo::End(end) => self.log.truncate_to(*end, out),
            CutTo::Restart(start, _) => self.log.restart_at(*start, out),
        }
    }

    /// The log was cut, for this role or for an earlier one.
    pub(crate) fn log_cut(&mut self, now: Now, out: &mut Outbox, events: &mut Vec<PartitionEvent>) {
        self.count_from_here();
        let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
        self.high_watermark = self.high_watermark.clamp(start, end);
        let Role::Follower(follower) = &mut self.role else { return self.begin_epoch(out) };
        match follower.cut.take() {
            Some(Cut { to: CutTo::Restart(_, Some(fetched)), has_begun: true }) => {
                self.append_fetched(now, *fetched, out, events);
            }
            Some(cut) if !cut.has_begun => follower.cut = Some(cut),
            _ => {}
        }
    }
}
