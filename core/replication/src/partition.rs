//! The replica of a partition on a broker: its log, and whether it leads or follows.
//!
//! Invariants: `log_start_offset ≤ high_watermark ≤ log_end_offset`; the high watermark never falls, unless a follower's log
//! is cut; no consumer is given a record at or above the high watermark.

use crate::assignment::{Assignment, Brokers, Local};
use crate::counters::TopicCounters;
use crate::follower::Follower;
use crate::isr::IsrProposal;
use crate::leader::Leader;
use crate::waiting::{ResponsePlace, Waiting, Watched};
use bytestring::ByteString;
use tidelog_batch::{Codec, TopicBatchRules};
use tidelog_config::plant::{Plant, Plants};
use tidelog_storage::buggify::Site;
use tidelog_storage::io::{IoCompletion, Outbox};
use tidelog_storage::{Log, LogEvent, LogSettings, LogState, Lookup, LookupTarget, ReadOutcome, TimestampedOffset};
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::{LeaderEpoch, LogDirId, Offset, PendingId, Uuid};
use tidelog_wire::time::Now;

/// The topic's configuration as far as the partition applies it itself. The rest is in [`LogSettings`].
#[derive(Clone, Debug)]
pub struct PartitionRules {
    pub batch: TopicBatchRules,
    /// The codec of `compression.type` and its level. `None` for `compression.type=producer`.
    pub compression: Option<(Codec, i32)>,
    pub min_insync_replicas: i32,
    /// Whether `cleanup.policy` includes `delete`.
    pub allows_delete: bool,
    pub is_internal: bool,
}

/// What happened in a partition, for the broker to act on.
#[derive(Debug)]
pub enum PartitionEvent {
    Loaded,
    /// The log has failed, for this reason. The broker takes its log directory offline.
    Failed(String),
    Closed,
    /// The directory of a deleted partition has been renamed: a new partition may use the old name.
    NameFreed,
    Deleted,
    /// This part of the waiting request, a Produce or a DeleteRecords, is done. It can be answered at this place of the
    /// response.
    AnswerDone(PendingId, ResponsePlace, Result<(), ErrorCode>),
    /// The waiting Fetch request shall read again: what it waits for has moved, or the log has failed.
    FetchAgain(PendingId),
    /// The controller shall be asked to change the ISR. [`Partition::isr_answered`] takes its answer.
    IsrProposed(IsrProposal),
    /// The log is about to be cut. The broker shall write the recovery-point checkpoint, with
    /// [`Partition::recovery_point`], and then call [`Partition::recovery_point_lowered`].
    RecoveryPointTooHigh,
    ReadDone(PendingId, ReadOutcome),
    LookedUp(PendingId, Result<Option<TimestampedOffset>, String>),
}

#[derive(Debug)]
pub(crate) enum Role {
    Leader(Leader),
    Follower(Follower),
}

#[derive(Debug)]
pub struct Partition {
    pub(crate) topic: ByteString,
    topic_id: Uuid,
    pub(crate) index: i32,
    pub(crate) local: Local,
    /// Whether it was lent out to be changed since [`Partitions::verify`](crate::Partitions::verify) looked at it.
    pub(crate) may_have_changed: bool,
    pub(crate) log: Log,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) role: Role,
    pub(crate) high_watermark: Offset,
    pub(crate) rules: PartitionRules,
    pub(crate) plants: Plants,
    pub(crate) waiting: Waiting,
    /// Up to where consumers that wait know that they can read.
    told_readable: Offset,
    /// Up to where followers that wait know that they can read.
    told_written: Offset,
    pub(crate) counters: TopicCounters,
    /// Where the log ended when the last record was appended that `counters` does not count.
    counted_from: Offset,
}

impl Partition {
    pub fn new(
        (topic, topic_id, index): (ByteString, Uuid, i32),
        local: Local,
        log: Log,
        now: Now,
        assignment: &Assignment,
        rules: PartitionRules,
        plants: Plants,
    ) -> Self {
        let start = log.log_start_offset();
        Self {
            topic,
            topic_id,
            index,
            local,
            may_have_changed: true,
            log,
            leader_epoch: assignment.leader_epoch,
            role: Role::new(now, local, assignment),
            high_watermark: start,
            rules,
            plants,
            waiting: Waiting::default(),
            told_readable: start,
            told_written: start,
            counters: TopicCounters::default(),
            counted_from: Offset::ZERO,
        }
    }

    pub fn topic(&self) -> &ByteString {
        &self.topic
    }

    pub fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    pub fn index(&self) -> i32 {
        self.index
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn dir(&self) -> LogDirId {
        self.log.place().dir
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// One past the last committed offset.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// What was counted since the broker started.
    pub fn counters(&self) -> &TopicCounters {
        &self.counters
    }

    /// `min.insync.replicas`, but at most the number of replicas.
    pub fn min_insync_replicas(&self, replicas: usize) -> usize {
        usize::try_from(self.rules.min_insync_replicas).unwrap_or(0).min(replicas)
    }

    pub fn allows_delete_records(&self) -> bool {
        self.rules.allows_delete
    }

    /// Checks that this replica can answer a client that knows `current` as the leader epoch (KIP-320).
    /// [`LeaderEpoch::UNKNOWN`] stands for a client that does not know the epoch, and is not compared.
    pub fn check_leader(&self, current: LeaderEpoch) -> Result<(), ErrorCode> {
        match self.log.state() {
            LogState::Open => {}
            LogState::Offline(_) => return Err(ErrorCode::KafkaStorageError),
            _ => return Err(ErrorCode::NotLeaderOrFollower),
        }
        if !self.leads() {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        if current == LeaderEpoch::UNKNOWN || current == self.leader_epoch {
            Ok(())
        } else if current < self.leader_epoch {
            Err(ErrorCode::FencedLeaderEpoch)
        } else {
            Err(ErrorCode::UnknownLeaderEpoch)
        }
    }

    /// Counts a Fetch request that reads this partition.
    pub fn count_fetch(&mut self) {
        self.counters.fetch_requests += 1;
    }

    /// Counts the bytes of the records that a consumer is given.
    pub fn count_fetched(&mut self, bytes: u32) {
        self.counters.bytes_out += u64::from(bytes);
    }

    pub fn count_failed_fetch(&mut self) {
        self.counters.failed_fetch_requests += 1;
    }

    /// Makes a Fetch request wait: each time what it watches moves, [`PartitionEvent::FetchAgain`] comes for it.
    pub fn watch(&mut self, fetch: PendingId, watched: Watched) {
        self.waiting.watch(fetch, watched);
    }

    pub fn unwatch(&mut self, fetch: PendingId) {
        if !self.plants.has(Plant::WaiterLeaked) {
            self.waiting.unwatch(fetch);
        }
    }

    /// Makes the request `id`, a Produce or a DeleteRecords, wait no longer. Returns the places of the response for which it
    /// still waited.
    pub fn forget_answers(&mut self, id: PendingId) -> Vec<ResponsePlace> {
        self.waiting.forget(id)
    }

    pub fn watchers(&self) -> impl Iterator<Item = PendingId> {
        self.waiting.watchers()
    }

    /// Where those who watch this may read up to.
    fn readable_end(&self, watched: Watched) -> Offset {
        match watched {
            Watched::HighWatermark if self.plants.has(Plant::FetchAboveHighWatermark) => self.log.log_end_offset(),
            // A follower knows what is committed before it has written it.
            Watched::HighWatermark => {
                self.high_watermark.min(self.log.written_offset()).max(self.log.log_start_offset())
            }
            Watched::LogEnd => self.log.written_offset(),
        }
    }

    /// Reads records from `offset` on: those that are committed, or for a follower all. See [`Log::read`].
    pub fn read(
        &mut self,
        offset: Offset,
        watched: Watched,
        max_bytes: u32,
        at_least_one_batch: bool,
        fetch: PendingId,
        out: &mut Outbox,
    ) -> ReadOutcome {
        let upper = self.readable_end(watched);
        self.log.read(offset, upper, max_bytes, at_least_one_batch, fetch.0, out)
    }

    /// Compares the log of a reader with this log (KIP-595). The reader's log ends at `offset`, and its last record has
    /// the leader epoch `last_fetched`, which is negative if the reader did not send it.
    ///
    /// Returns `None` if the reader's log is a prefix of this log. Otherwise returns the greatest epoch of this log
    /// that is not above `last_fetched`, and the offset at which that epoch ends here: the reader truncates its log to
    /// there.
    ///
    /// Errors: `OffsetOutOfRange` if `last_fetched` is above every epoch of this log, or `offset` is below its start.
    pub fn divergence(
        &self,
        last_fetched: LeaderEpoch,
        offset: Offset,
    ) -> Result<Option<(LeaderEpoch, Offset)>, ErrorCode> {
        if last_fetched.0 < 0 {
            return Ok(None);
        }
        let (epoch, end) = self.end_offset_for_epoch(last_fetched);
        if epoch == LeaderEpoch::UNKNOWN || offset < self.log.log_start_offset() {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        Ok((epoch < last_fetched || end < offset).then_some((epoch, end)))
    }

    /// See [`Log::end_offset_for_epoch`].
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        let end = self.log.end_offset_for_epoch(epoch);
        (end.epoch, end.end_offset)
    }

    pub fn offset_for_timestamp(&mut self, target: LookupTarget, id: PendingId, out: &mut Outbox) -> Lookup {
        self.log.offset_for_timestamp(target, id.0, out)
    }

    pub fn delete_records(&mut self, now: Now, target: Offset, out: &mut Outbox) {
        assert!(target <= self.high_watermark, "only committed records are deleted");
        self.log.delete_records(target, out);
        self.enforce_retention(now, out);
    }

    pub fn enforce_retention(&mut self, now: Now, out: &mut Outbox) {
        // A follower knows what is committed before it is stable here.
        self.log.enforce_retention(now, self.high_watermark.min(self.log.stable_offset()), out);
    }

    pub fn configure(&mut self, settings: LogSettings, rules: PartitionRules, out: &mut Outbox) {
        self.log.configure(settings, out);
        self.rules = rules;
    }

    /// Begins with a log that has just been loaded or created. If this is the only replica, everything in it is committed;
    /// if not, what the checkpoint says is.
    fn begin(&mut self, out: &mut Outbox) {
        let (start, stable) = (self.log.log_start_offset(), self.log.stable_offset());
        self.high_watermark = match &self.role {
            Role::Leader(leader) if leader.replica_count() == 1 => stable.max(start),
            _ => self.high_watermark.min(stable).max(start),
        };
        self.begin_epoch(out);
        self.count_from_here();
    }

    /// What is in the log was not produced here.
    pub(crate) fn count_from_here(&mut self) {
        self.counted_from = self.log.log_end_offset() + -(self.counters.messages_in as i64);
    }

    /// Everything below was committed when the checkpoint of the high watermark was written. The log is loaded later.
    pub fn was_committed(&mut self, end: Offset) {
        self.high_watermark = self.high_watermark.max(end);
    }

    /// Begins with a new log, which is empty and need not be loaded.
    pub fn created(&mut self, out: &mut Outbox) {
        self.begin(out);
    }

    pub fn is_loaded(&self) -> bool {
        matches!(self.log.state(), LogState::Open | LogState::Closing | LogState::Closed)
    }

    pub fn tick(&mut self, now: Now, out: &mut Outbox) {
        self.log.tick(now, out);
    }

    /// Begins to close the log. False, and no event comes, if the log is not open.
    pub fn close(&mut self, out: &mut Outbox) -> bool {
        let open = *self.log.state() == LogState::Open;
        if open {
            self.log.close(out);
        }
        open
    }

    /// Deletes the partition, because its topic was deleted. Every waiting request is answered at once. The directory
    /// is renamed at once and removed later; see [`Log::delete`] for this and for `unique`.
    pub fn delete(&mut self, now: Now, unique: Uuid, out: &mut Outbox, events: &mut Vec<PartitionEvent>) {
        if self.log.delete(now, unique, out) {
            events.extend([PartitionEvent::NameFreed, PartitionEvent::Deleted]);
        }
        self.waiting.fail(ErrorCode::UnknownTopicOrPartition, &mut self.counters, events);
    }

    pub fn handle_io(
        &mut self,
        now: Now,
        completion: IoCompletion,
        brokers: &impl Brokers,
        out: &mut Outbox,
        events: &mut Vec<PartitionEvent>,
    ) {
        let mut log_events = Vec::new();
        self.log.handle_io(now, completion, out, &mut log_events);
        for event in log_events {
            match event {
                LogEvent::Loaded => {
                    self.begin(out);
                    events.push(PartitionEvent::Loaded);
                }
                LogEvent::Truncated => self.log_cut(now, out, events),
                LogEvent::ReadDone { token, outcome } => {
                    events.push(PartitionEvent::ReadDone(PendingId(token), outcome));
                }
                LogEvent::LookupDone { token, found } => {
                    events.push(PartitionEvent::LookedUp(PendingId(token), found));
                }
                LogEvent::Failed(reason) => {
                    self.waiting.fail(ErrorCode::KafkaStorageError, &mut self.counters, events);
                    events.push(PartitionEvent::Failed(reason));
                }
                LogEvent::NameFreed => events.push(PartitionEvent::NameFreed),
                LogEvent::Closed => events.push(PartitionEvent::Closed),
                LogEvent::Deleted => events.push(PartitionEvent::Deleted),
            }
        }
        self.start_where_the_leader_does(now, out);
        self.advanced(now, brokers, events);
        if self.waiting.watchers().next().is_some() && out.buggify(Site::SpuriousWakeUp) {
            self.waiting.wake_all(events);
        }
    }

    /// Takes the log offline, because its log directory has gone offline for `reason`.
    pub fn take_offline(&mut self, reason: &str, out: &mut Outbox, events: &mut Vec<PartitionEvent>) {
        let mut log_events = Vec::new();
        self.log.take_offline(reason, out, &mut log_events);
        for event in log_events {
            match event {
                LogEvent::ReadDone { token, outcome } => {
                    events.push(PartitionEvent::ReadDone(PendingId(token), outcome));
                }
                LogEvent::LookupDone { token, found } => {
                    events.push(PartitionEvent::LookedUp(PendingId(token), found));
                }
                _ => {}
            }
        }
        self.waiting.fail(ErrorCode::KafkaStorageError, &mut self.counters, events);
    }

    /// Wakes those who wait for records that are there now.
    pub(crate) fn wake_watchers(&mut self, events: &mut Vec<PartitionEvent>) {
        let (readable, written) = (self.readable_end(Watched::HighWatermark), self.readable_end(Watched::LogEnd));
        if std::mem::replace(&mut self.told_readable, readable) < readable
            && !self.plants.has(Plant::WaitingFetchNotWoken)
        {
            self.waiting.wake(Watched::HighWatermark, events);
        }
        if std::mem::replace(&mut self.told_written, written) < written {
            self.waiting.wake(Watched::LogEnd, events);
        }
    }

    /// Asserts the invariants of this module.
    pub fn verify(&self) {
        self.log.verify();
        let (topic, index) = (&self.topic, self.index);
        self.waiting.verify();
        if let Role::Leader(leader) = &self.role {
            leader.verify();
        }
        if *self.log.state() == LogState::Open {
            let (high, end) = (self.high_watermark, self.log.log_end_offset());
            assert!(
                self.log.log_start_offset() <= high,
                "{topic}-{index}: the high watermark is below the log's start"
            );
            assert!(
                high <= end || self.plants.has(Plant::HighWatermarkOneTooHigh),
                "{topic}-{index}: the high watermark is above the log's end"
            );
            let appended = end - self.counted_from;
            assert_eq!(self.counters.messages_in as i64, appended, "{topic}-{index}: every produced record is counted");
        }
        let TopicCounters { produce_requests, messages_in, bytes_in, .. } = self.counters;
        assert!(messages_in == 0 || produce_requests > 0 && bytes_in > messages_in);
    }
}
