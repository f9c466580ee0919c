//! One partition on its leader.
//!
//! Invariant: `log_start_offset ≤ high_watermark ≤ stable_offset ≤ log_end_offset`, and the high watermark never
//! falls. What lies at or past it is shown to no consumer.

use crate::batch::{BatchError, Checked, Codec, TopicBatchRules};
use crate::buggify::Site;
use crate::ids::{LeaderEpoch, LogDirId, Offset, PendingId, Uuid};
use crate::io::{IoCompletion, Outbox};
use crate::plant::{Plant, Plants};
use crate::replication::counters::{TopicCounters, is_failure};
use crate::storage::{
    Append, AppendError, Log, LogEvent, LogSettings, LogState, Lookup, LookupTarget, ReadOutcome, TimestampedOffset,
};
use crate::time::{Now, WallMs};
use crate::wire::ErrorCode;
use bytestring::ByteString;
use std::collections::VecDeque;

/// What a topic's configuration asks of every batch, beside what storage needs.
#[derive(Clone, Debug)]
pub struct PartitionRules {
    pub batch: TopicBatchRules,
    /// `compression.type` with its level, where it is not `producer`.
    pub compression: Option<(Codec, i32)>,
    pub min_insync_replicas: i32,
    /// `cleanup.policy` includes `delete`.
    pub allows_delete: bool,
    pub is_internal: bool,
}

/// A batch that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub log_append_time: Option<WallMs>,
    pub log_start_offset: Offset,
    /// It is already as stable as its topic asks.
    pub stable: bool,
}

/// Why a batch is not in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub error: ErrorCode,
    pub text: Option<String>,
    /// The records that are to blame: place in the batch, and why.
    pub records: Vec<(i32, Option<String>)>,
}

impl From<ErrorCode> for Refused {
    fn from(error: ErrorCode) -> Self {
        Self { error, text: None, records: Vec::new() }
    }
}

/// What happened in a partition that somebody above waits for.
#[derive(Debug)]
pub enum PartitionEvent {
    Loaded,
    /// The log cannot go on; its directory is to be taken offline.
    Failed(String),
    Closed,
    /// The directory of a deleted partition has been renamed: its name is free.
    Vacated,
    Deleted,
    /// The produce may be answered for this slot.
    Settled(PendingId, Slot, Result<(), ErrorCode>),
    /// The high watermark moved, or the log failed: the fetch may look again.
    Readable(PendingId),
    ReadDone(PendingId, ReadOutcome),
    LookedUp(PendingId, Result<Option<TimestampedOffset>, String>),
}

/// Where in a produce response a partition's answer stands: place of the topic, place of the partition in it.
pub type Slot = (u32, u32);

#[derive(Debug)]
struct Waiter {
    /// Answered when the high watermark is past this.
    last_offset: Offset,
    id: PendingId,
    slot: Slot,
}

#[derive(Debug)]
pub struct Partition {
    topic: ByteString,
    topic_id: Uuid,
    index: i32,
    log: Log,
    leader_epoch: LeaderEpoch,
    high_watermark: Offset,
    rules: PartitionRules,
    plants: Plants,
    /// In the order of their offsets.
    produces: VecDeque<Waiter>,
    fetches: Vec<PendingId>,
    counters: TopicCounters,
    /// Where the log ended when this life took it up: what lies past it was appended, and counted, since.
    taken_up_at: Offset,
}

impl Partition {
    pub fn new(
        topic: ByteString,
        topic_id: Uuid,
        index: i32,
        log: Log,
        leader_epoch: LeaderEpoch,
        rules: PartitionRules,
        plants: Plants,
    ) -> Self {
        let high_watermark = log.log_start_offset();
        Self {
            topic,
            topic_id,
            index,
            log,
            leader_epoch,
            high_watermark,
            rules,
            plants,
            produces: VecDeque::new(),
            fetches: Vec::new(),
            counters: TopicCounters::default(),
            taken_up_at: Offset::ZERO,
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

    /// What happened here since the start of this life.
    pub fn counters(&self) -> &TopicCounters {
        &self.counters
    }

    /// `min.insync.replicas`, or all replicas where there are fewer.
    pub fn min_insync_replicas(&self, replicas: usize) -> usize {
        usize::try_from(self.rules.min_insync_replicas).unwrap_or(0).min(replicas)
    }

    pub fn allows_delete_records(&self) -> bool {
        self.rules.allows_delete
    }

    /// Whether this replica may answer for a client that believes in leader epoch `current` (KIP-320); negative: in any.
    pub fn check_leader(&self, current: LeaderEpoch) -> Result<(), ErrorCode> {
        match self.log.state() {
            LogState::Open => {}
            LogState::Offline(_) => return Err(ErrorCode::KafkaStorageError),
            _ => return Err(ErrorCode::NotLeaderOrFollower),
        }
        if current.0 < 0 || current == self.leader_epoch {
            Ok(())
        } else if current < self.leader_epoch {
            Err(ErrorCode::FencedLeaderEpoch)
        } else {
            Err(ErrorCode::UnknownLeaderEpoch)
        }
    }

    /// Appends one checked batch of a producer.
    pub fn append_as_leader(
        &mut self,
        now: Now,
        acks: i16,
        batch: Checked,
        out: &mut Outbox,
    ) -> Result<Accepted, Refused> {
        self.counters.produce_requests += 1;
        self.append_checked(now, acks, batch, out).inspect_err(|refused| self.counters.refused(refused.error))
    }

    /// A Produce named this partition, and could not come as far as its log.
    pub fn count_refused_produce(&mut self, error: ErrorCode) {
        self.counters.produce_requests += 1;
        self.counters.refused(error);
    }

    fn append_checked(&mut self, now: Now, acks: i16, batch: Checked, out: &mut Outbox) -> Result<Accepted, Refused> {
        let counters = &mut self.counters;
        let mut invalid = |error: BatchError| {
            counters.invalid_batch(&error);
            Refused::from(error)
        };
        let mut batch = batch.map_err(&mut invalid)?;
        let bytes = batch.header().size_bytes();
        if !(-1..=1).contains(&acks) {
            return Err(ErrorCode::InvalidRequiredAcks.into());
        }
        if self.rules.is_internal {
            let text = format!("Cannot append to internal topic {}", self.topic);
            return Err(Refused { text: Some(text), ..ErrorCode::InvalidTopicException.into() });
        }
        if acks == -1 && self.rules.min_insync_replicas > 1 {
            return Err(ErrorCode::NotEnoughReplicas.into());
        }
        if batch.header().is_transactional() {
            // Nobody can have begun a transaction: there is no transaction coordinator yet.
            return Err(ErrorCode::InvalidTxnState.into());
        }
        batch.fits_topic(&self.rules.batch, now.wall).map_err(&mut invalid)?;
        if let Some((codec, level)) = self.rules.compression
            && batch.header().codec()? != codec
        {
            batch = batch.recompress(codec, level);
            batch.fits_topic(&self.rules.batch, now.wall).map_err(&mut invalid)?;
        }
        let appended = self.log.append(now, Append::Produced(&batch), self.leader_epoch, out);
        let appended = appended.inspect_err(|error| self.counters.not_appended(error))?;
        if !appended.duplicate {
            self.counters.messages_in += (appended.last_offset + 1 - appended.base_offset) as u64;
            self.counters.bytes_in += bytes as u64;
        }
        Ok(Accepted {
            base_offset: appended.base_offset,
            last_offset: appended.last_offset,
            log_append_time: appended.log_append_time,
            log_start_offset: self.log.log_start_offset(),
            stable: appended.last_offset < self.high_watermark,
        })
    }

    /// Settles `slot` of the produce `id` once the high watermark is past `last_offset`.
    pub fn acknowledge_when_stable(&mut self, last_offset: Offset, id: PendingId, slot: Slot) {
        // A retry of a batch that is not stable yet stands before later appends.
        let place = self.produces.partition_point(|waiter| waiter.last_offset <= last_offset);
        self.produces.insert(place, Waiter { last_offset, id, slot });
    }

    /// Takes the waiters of one produce out; yields their slots.
    pub fn forget_produce(&mut self, id: PendingId) -> Vec<Slot> {
        let slots = self.produces.iter().filter(|waiter| waiter.id == id).map(|waiter| waiter.slot).collect();
        self.produces.retain(|waiter| waiter.id != id);
        slots
    }

    /// A Fetch that reads this partition has come.
    pub fn count_fetch(&mut self) {
        self.counters.fetch_requests += 1;
    }

    /// A consumer is given so many bytes of records.
    pub fn count_fetched(&mut self, bytes: u32) {
        self.counters.bytes_out += u64::from(bytes);
    }

    pub fn count_failed_fetch(&mut self) {
        self.counters.failed_fetch_requests += 1;
    }

    pub fn watch(&mut self, fetch: PendingId) {
        self.fetches.push(fetch);
    }

    pub fn unwatch(&mut self, fetch: PendingId) {
        if !self.plants.has(Plant::WaiterLeaked) {
            self.fetches.retain(|id| *id != fetch);
        }
    }

    pub fn watchers(&self) -> impl Iterator<Item = PendingId> {
        self.fetches.iter().copied()
    }

    /// Committed records from `offset` on; see `Log::read`.
    pub fn read(
        &mut self,
        offset: Offset,
        max_bytes: u32,
        at_least_one_batch: bool,
        fetch: PendingId,
        out: &mut Outbox,
    ) -> ReadOutcome {
        let upper = match self.plants.has(Plant::FetchAboveHighWatermark) {
            true => self.log.log_end_offset(),
            false => self.high_watermark,
        };
        self.log.read(offset, upper, max_bytes, at_least_one_batch, fetch.0, out)
    }

    /// Where a reader's log leaves this one, if it does: the largest epoch not past the reader's and the end of
    /// it (KIP-595). `last_fetched`: the epoch of the reader's last record, negative where it does not say.
    ///
    /// Errors: `OffsetOutOfRange` where the epoch is later than any here, and where `offset` is below the log's start.
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
        self.log.enforce_retention(now, self.high_watermark, out);
    }

    pub fn enforce_retention(&mut self, now: Now, out: &mut Outbox) {
        self.log.enforce_retention(now, self.high_watermark, out);
    }

    pub fn configure(&mut self, settings: LogSettings, rules: PartitionRules, out: &mut Outbox) {
        self.log.configure(settings, out);
        self.rules = rules;
    }

    /// The log has loaded: everything in it is stable, and this one replica commits it.
    fn lead(&mut self, out: &mut Outbox) {
        if self.log.latest_epoch() < self.leader_epoch && !self.plants.has(Plant::EpochStartNotRecorded) {
            self.log.assign_epoch(self.leader_epoch, out);
        }
        self.high_watermark = self.log.stable_offset().max(self.log.log_start_offset());
        self.taken_up_at = self.log.log_end_offset();
    }

    /// The controller has given the leadership a new epoch, to the same leader.
    pub fn set_leader_epoch(&mut self, epoch: LeaderEpoch, out: &mut Outbox) {
        if epoch > self.leader_epoch {
            self.leader_epoch = epoch;
            if *self.log.state() == LogState::Open {
                self.log.assign_epoch(epoch, out);
            }
        }
    }

    /// A new partition is led from the start: nothing has to be loaded.
    pub fn created(&mut self, out: &mut Outbox) {
        self.lead(out);
    }

    pub fn is_loaded(&self) -> bool {
        matches!(self.log.state(), LogState::Open | LogState::Closing | LogState::Closed)
    }

    pub fn tick(&mut self, now: Now, out: &mut Outbox) {
        self.log.tick(now, out);
    }

    /// Begins to close the log; false where there is nothing to close.
    pub fn close(&mut self, out: &mut Outbox) -> bool {
        let open = *self.log.state() == LogState::Open;
        if open {
            self.log.close(out);
        }
        open
    }

    /// The topic is gone: everyone who waits is told, the directory goes away later.
    pub fn delete(&mut self, now: Now, tag: Uuid, out: &mut Outbox, events: &mut Vec<PartitionEvent>) {
        if self.log.delete(now, tag, out) {
            events.extend([PartitionEvent::Vacated, PartitionEvent::Deleted]);
        }
        self.turn_away(ErrorCode::UnknownTopicOrPartition, events);
    }

    pub fn handle_io(
        &mut self,
        now: Now,
        completion: IoCompletion,
        out: &mut Outbox,
        events: &mut Vec<PartitionEvent>,
    ) {
        let mut log_events = Vec::new();
        self.log.handle_io(now, completion, out, &mut log_events);
        for event in log_events {
            match event {
                LogEvent::Loaded => {
                    self.lead(out);
                    events.push(PartitionEvent::Loaded);
                }
                LogEvent::Truncated => {}
                LogEvent::ReadDone { token, outcome } => {
                    events.push(PartitionEvent::ReadDone(PendingId(token), outcome));
                }
                LogEvent::LookupDone { token, found } => {
                    events.push(PartitionEvent::LookedUp(PendingId(token), found));
                }
                LogEvent::Failed(reason) => {
                    self.turn_away(ErrorCode::KafkaStorageError, events);
                    events.push(PartitionEvent::Failed(reason));
                }
                LogEvent::Vacated => events.push(PartitionEvent::Vacated),
                LogEvent::Closed => events.push(PartitionEvent::Closed),
                LogEvent::Deleted => events.push(PartitionEvent::Deleted),
            }
        }
        self.advance_high_watermark(events);
        if !self.fetches.is_empty() && out.buggify(Site::SpuriousWakeUp) {
            events.extend(self.fetches.iter().map(|id| PartitionEvent::Readable(*id)));
        }
    }

    /// The directory of this log is offline, whoever found out.
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
        self.turn_away(ErrorCode::KafkaStorageError, events);
    }

    fn advance_high_watermark(&mut self, events: &mut Vec<PartitionEvent>) {
        if !matches!(self.log.state(), LogState::Open | LogState::Closing) {
            return;
        }
        let mut stable = self.log.stable_offset();
        if self.plants.has(Plant::HighWatermarkOneTooHigh) && stable < self.log.log_end_offset() {
            stable = stable + 1;
        }
        if stable <= self.high_watermark {
            return;
        }
        self.high_watermark = stable;
        while let Some(waiter) = self.produces.pop_front_if(|waiter| waiter.last_offset < stable) {
            events.push(PartitionEvent::Settled(waiter.id, waiter.slot, Ok(())));
        }
        if !self.plants.has(Plant::WaitingFetchNotWoken) {
            events.extend(self.fetches.iter().map(|id| PartitionEvent::Readable(*id)));
        }
    }

    fn turn_away(&mut self, error: ErrorCode, events: &mut Vec<PartitionEvent>) {
        if is_failure(error) {
            self.counters.failed_produce_requests += self.produces.len() as u64;
        }
        let waiters = self.produces.drain(..);
        events.extend(waiters.map(|waiter| PartitionEvent::Settled(waiter.id, waiter.slot, Err(error))));
        events.extend(self.fetches.iter().map(|id| PartitionEvent::Readable(*id)));
    }

    /// Asserts the invariants of this module.
    pub fn verify(&self) {
        self.log.verify();
        if *self.log.state() == LogState::Open {
            assert!(self.log.log_start_offset() <= self.high_watermark, "{}-{}", self.topic, self.index);
            assert!(
                self.high_watermark <= self.log.stable_offset() || self.plants.has(Plant::HighWatermarkOneTooHigh),
                "{}-{}: the high watermark is past what is stable",
                self.topic,
                self.index
            );
        }
        assert!(self.produces.iter().is_sorted_by_key(|waiter| waiter.last_offset));
        if *self.log.state() == LogState::Open {
            let appended = self.log.log_end_offset() - self.taken_up_at;
            assert_eq!(self.counters.messages_in as i64, appended, "{}-{}: records counted", self.topic, self.index);
        }
        let TopicCounters { produce_requests, messages_in, bytes_in, .. } = self.counters;
        assert!(messages_in == 0 || produce_requests > 0 && bytes_in > messages_in);
    }
}

impl From<BatchError> for Refused {
    fn from(error: BatchError) -> Self {
        let records = error.record_errors().iter();
        Self {
            error: error.error_code(),
            text: Some(error.to_string()),
            records: records.map(|record| (record.batch_index, Some(record.message.clone()))).collect(),
        }
    }
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Self {
        Self { error: error.error_code(), text: Some(error.to_string()), records: Vec::new() }
    }
}
