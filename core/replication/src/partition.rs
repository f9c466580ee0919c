//! One partition on a broker that has a replica of it, and leads it unless the controller has said otherwise.
//!
//! Invariants: `log_start_offset ≤ high_watermark ≤ stable_offset ≤ log_end_offset`; the high watermark never falls;
//! no consumer is given a record at or above the high watermark.

use crate::counters::{TopicCounters, is_failure};
use bytestring::ByteString;
use std::collections::VecDeque;
use tidelog_batch::{BatchError, BatchHeader, Checked, Codec, TopicBatchRules};
use tidelog_config::plant::{Plant, Plants};
use tidelog_storage::buggify::Site;
use tidelog_storage::io::{IoCompletion, Outbox};
use tidelog_storage::{
    Append, AppendError, Log, LogEvent, LogSettings, LogState, Lookup, LookupTarget, ReadOutcome, TimestampedOffset,
};
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::{LeaderEpoch, LogDirId, Offset, PendingId, Uuid};
use tidelog_wire::time::{Now, WallMs};

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

/// A batch as a Produce request brings it.
#[derive(Debug)]
pub struct ProducedBatch {
    pub acks: i16,
    /// Whether the client may write to internal topics.
    pub is_admin: bool,
    pub checked: Checked,
    /// The size of the batch as it arrived, also of a batch that the check has refused.
    pub size_bytes: usize,
}

/// How many replicas a partition has, and how many of them are in sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaCounts {
    pub replicas: usize,
    pub in_sync: usize,
}

impl ReplicaCounts {
    /// `min.insync.replicas`, but at most the number of replicas.
    fn min_in_sync(self, configured: i32) -> usize {
        usize::try_from(configured).unwrap_or(0).min(self.replicas)
    }
}

/// Where a produced batch stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub log_append_time: Option<WallMs>,
    pub log_start_offset: Offset,
    /// Whether the batch is below the high watermark already, so that it can be acknowledged at once.
    pub stable: bool,
}

/// Why a batch was not appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub error: ErrorCode,
    pub text: Option<String>,
    /// The records because of which the batch was refused: the index in the batch, and the reason.
    pub records: Vec<(i32, Option<String>)>,
    /// Where the log starts, if the batch was refused for what is in it. Else [`Offset::UNKNOWN`], as in Kafka.
    pub log_start_offset: Offset,
}

impl From<ErrorCode> for Refused {
    fn from(error: ErrorCode) -> Self {
        Self { error, text: None, records: Vec::new(), log_start_offset: Offset::UNKNOWN }
    }
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
    /// This part of the waiting Produce request is done. It can be answered at this place of the response.
    ProduceDone(PendingId, ResponsePlace, Result<(), ErrorCode>),
    /// The waiting Fetch request shall read again: the high watermark has moved, or the log has failed.
    FetchAgain(PendingId),
    ReadDone(PendingId, ReadOutcome),
    LookedUp(PendingId, Result<Option<TimestampedOffset>, String>),
}

/// Where the answer for a partition stands in a Produce response: the index of the topic, and the index of the
/// partition within the topic.
pub type ResponsePlace = (u32, u32);

/// A batch whose Produce request waits until the batch is committed.
#[derive(Debug)]
struct WaitingProduce {
    /// The last offset of the batch. The batch is committed when the high watermark is above this.
    last_offset: Offset,
    id: PendingId,
    place: ResponsePlace,
}

#[derive(Debug)]
pub struct Partition {
    topic: ByteString,
    topic_id: Uuid,
    index: i32,
    /// Whether it was lent out to be changed since [`Partitions::verify`](crate::Partitions::verify) looked at it.
    pub(crate) may_have_changed: bool,
    log: Log,
    leader_epoch: LeaderEpoch,
    /// Whether this broker leads the partition in `leader_epoch`.
    leads: bool,
    high_watermark: Offset,
    rules: PartitionRules,
    plants: Plants,
    /// Sorted by `last_offset`.
    waiting_produces: VecDeque<WaitingProduce>,
    /// Fetch requests that wait for the high watermark to move.
    waiting_fetches: Vec<PendingId>,
    counters: TopicCounters,
    /// Where the log ended when it was loaded or created. `counters` counts the records from this offset on.
    counted_from: Offset,
}

/// Who leads a partition, as the metadata says, for the broker that has this replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    pub epoch: LeaderEpoch,
    /// Whether this broker leads in that epoch.
    pub is_here: bool,
}

impl Partition {
    pub fn new(
        topic: ByteString,
        topic_id: Uuid,
        index: i32,
        log: Log,
        leadership: Leadership,
        rules: PartitionRules,
        plants: Plants,
    ) -> Self {
        let high_watermark = log.log_start_offset();
        Self {
            topic,
            topic_id,
            index,
            may_have_changed: true,
            log,
            leader_epoch: leadership.epoch,
            leads: leadership.is_here,
            high_watermark,
            rules,
            plants,
            waiting_produces: VecDeque::new(),
            waiting_fetches: Vec::new(),
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
        ReplicaCounts { replicas, in_sync: 0 }.min_in_sync(self.rules.min_insync_replicas)
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
        if !self.leads {
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

    /// Appends one checked batch of a producer. `counts` are those of the metadata.
    pub fn append_as_leader(
        &mut self,
        now: Now,
        batch: ProducedBatch,
        counts: ReplicaCounts,
        out: &mut Outbox,
    ) -> Result<Accepted, Refused> {
        self.counters.produce_requests += 1;
        let appended = self.check_request(&batch).and_then(|()| {
            self.append_checked(now, batch, counts, out).map_err(|refused| self.with_log_start(refused))
        });
        appended.inspect_err(|refused| self.counters.refused(refused.error))
    }

    /// The checks that do not look into the batch, in Kafka's order.
    fn check_request(&mut self, batch: &ProducedBatch) -> Result<(), Refused> {
        if let Err(error) = &batch.checked
            && error.breaks_request_rules()
        {
            self.counters.invalid_batch(error);
            return Err(error.clone().into());
        }
        if !(-1..=1).contains(&batch.acks) {
            return Err(ErrorCode::InvalidRequiredAcks.into());
        }
        if self.rules.is_internal && !batch.is_admin {
            let text = format!("Cannot append to internal topic {}", self.topic);
            return Err(Refused { text: Some(text), ..ErrorCode::InvalidTopicException.into() });
        }
        self.check_leader(LeaderEpoch::UNKNOWN).map_err(Refused::from)
    }

    /// Says where the log starts, for an error with which Kafka says it.
    fn with_log_start(&self, refused: Refused) -> Refused {
        match refused.error {
            ErrorCode::MessageTooLarge
            | ErrorCode::RecordListTooLarge
            | ErrorCode::CorruptMessage
            | ErrorCode::KafkaStorageError => refused,
            _ => Refused { log_start_offset: self.log.log_start_offset(), ..refused },
        }
    }

    fn append_checked(
        &mut self,
        now: Now,
        produced: ProducedBatch,
        counts: ReplicaCounts,
        out: &mut Outbox,
    ) -> Result<Accepted, Refused> {
        if produced.acks == -1 && counts.in_sync < counts.min_in_sync(self.rules.min_insync_replicas) {
            return Err(ErrorCode::NotEnoughReplicas.into());
        }
        let counters = &mut self.counters;
        let mut invalid = |error: BatchError| {
            counters.invalid_batch(&error);
            Refused::from(error)
        };
        self.rules.batch.check_size(produced.size_bytes).map_err(&mut invalid)?;
        let mut batch = produced.checked.map_err(&mut invalid)?;
        let bytes = produced.size_bytes;
        if batch.header().is_transactional() {
            // No transaction can be open, because there is no transaction coordinator yet.
            return Err(ErrorCode::InvalidTxnState.into());
        }
        batch.fits_topic(&self.rules.batch, now.wall).map_err(&mut invalid)?;
        if let Some((codec, level)) = self.rules.compression
            && batch.header().codec()? != codec
        {
            if codec == Codec::None {
                // Before there are so many bytes.
                let size = BatchHeader::LEN as u64 + batch.facts().uncompressed_bytes;
                self.rules.batch.check_size(size as usize).map_err(&mut invalid)?;
            }
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

    /// Makes the Produce request `id` wait until the high watermark is above `last_offset`. Then
    /// [`PartitionEvent::ProduceDone`] comes with `place`.
    pub fn acknowledge_when_stable(&mut self, last_offset: Offset, id: PendingId, place: ResponsePlace) {
        // Not always at the end: a retry of a batch that is still waiting has lower offsets than later batches.
        let position = self.waiting_produces.partition_point(|waiting| waiting.last_offset <= last_offset);
        self.waiting_produces.insert(position, WaitingProduce { last_offset, id, place });
    }

    /// Makes the Produce request `id` wait no longer. Returns the places of the response for which it still waited.
    pub fn forget_produce(&mut self, id: PendingId) -> Vec<ResponsePlace> {
        let waiting = self.waiting_produces.iter().filter(|waiting| waiting.id == id);
        let places = waiting.map(|waiting| waiting.place).collect();
        self.waiting_produces.retain(|waiting| waiting.id != id);
        places
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

    /// Makes a Fetch request wait: each time the high watermark moves, [`PartitionEvent::FetchAgain`] comes for it.
    pub fn watch(&mut self, fetch: PendingId) {
        self.waiting_fetches.push(fetch);
    }

    pub fn unwatch(&mut self, fetch: PendingId) {
        if !self.plants.has(Plant::WaiterLeaked) {
            self.waiting_fetches.retain(|id| *id != fetch);
        }
    }

    pub fn watchers(&self) -> impl Iterator<Item = PendingId> {
        self.waiting_fetches.iter().copied()
    }

    /// Reads committed records from `offset` on. See [`Log::read`].
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
        self.log.enforce_retention(now, self.high_watermark, out);
    }

    pub fn enforce_retention(&mut self, now: Now, out: &mut Outbox) {
        self.log.enforce_retention(now, self.high_watermark, out);
    }

    pub fn configure(&mut self, settings: LogSettings, rules: PartitionRules, out: &mut Outbox) {
        self.log.configure(settings, out);
        self.rules = rules;
    }

    /// Begins with a log that has just been loaded or created. Everything in it is stable and, because this is the only
    /// replica, committed.
    fn begin(&mut self, out: &mut Outbox) {
        self.begin_epoch(out);
        self.high_watermark = self.log.stable_offset().max(self.log.log_start_offset());
        self.counted_from = self.log.log_end_offset();
    }

    /// A leader notes where its epoch begins in its log.
    fn begin_epoch(&mut self, out: &mut Outbox) {
        let is_open = *self.log.state() == LogState::Open;
        let is_new = self.log.latest_epoch() < self.leader_epoch;
        if self.leads && is_open && is_new && !self.plants.has(Plant::EpochStartNotRecorded) {
            self.log.assign_epoch(self.leader_epoch, out);
        }
    }

    /// The controller has said who leads the partition. A fetch that waits at a broker that does not lead any more reads
    /// again, to find that out.
    pub fn lead(&mut self, leadership: Leadership, out: &mut Outbox, events: &mut Vec<PartitionEvent>) {
        let Leadership { epoch, is_here } = leadership;
        if epoch < self.leader_epoch {
            return;
        }
        let is_lost = self.leads && !is_here;
        (self.leader_epoch, self.leads) = (epoch, is_here);
        self.begin_epoch(out);
        if is_lost {
            events.extend(self.waiting_fetches.iter().map(|id| PartitionEvent::FetchAgain(*id)));
        }
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
        self.fail_waiting(ErrorCode::UnknownTopicOrPartition, events);
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
                    self.begin(out);
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
                    self.fail_waiting(ErrorCode::KafkaStorageError, events);
                    events.push(PartitionEvent::Failed(reason));
                }
                LogEvent::NameFreed => events.push(PartitionEvent::NameFreed),
                LogEvent::Closed => events.push(PartitionEvent::Closed),
                LogEvent::Deleted => events.push(PartitionEvent::Deleted),
            }
        }
        self.advance_high_watermark(events);
        if !self.waiting_fetches.is_empty() && out.buggify(Site::SpuriousWakeUp) {
            events.extend(self.waiting_fetches.iter().map(|id| PartitionEvent::FetchAgain(*id)));
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
        self.fail_waiting(ErrorCode::KafkaStorageError, events);
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
        while let Some(waiting) = self.waiting_produces.pop_front_if(|waiting| waiting.last_offset < stable) {
            events.push(PartitionEvent::ProduceDone(waiting.id, waiting.place, Ok(())));
        }
        if !self.plants.has(Plant::WaitingFetchNotWoken) {
            events.extend(self.waiting_fetches.iter().map(|id| PartitionEvent::FetchAgain(*id)));
        }
    }

    /// Answers all waiting Produce requests with `error`, and makes all waiting Fetch requests read again.
    fn fail_waiting(&mut self, error: ErrorCode, events: &mut Vec<PartitionEvent>) {
        if is_failure(error) {
            self.counters.failed_produce_requests += self.waiting_produces.len() as u64;
        }
        let waiting = self.waiting_produces.drain(..);
        events.extend(waiting.map(|waiting| PartitionEvent::ProduceDone(waiting.id, waiting.place, Err(error))));
        events.extend(self.waiting_fetches.iter().map(|id| PartitionEvent::FetchAgain(*id)));
    }

    /// Asserts the invariants of this module.
    pub fn verify(&self) {
        self.log.verify();
        if *self.log.state() == LogState::Open {
            assert!(self.log.log_start_offset() <= self.high_watermark, "{}-{}", self.topic, self.index);
            assert!(
                self.high_watermark <= self.log.stable_offset() || self.plants.has(Plant::HighWatermarkOneTooHigh),
                "{}-{}: the high watermark is above the stable offset",
                self.topic,
                self.index
            );
        }
        assert!(self.waiting_produces.iter().is_sorted_by_key(|waiting| waiting.last_offset));
        if *self.log.state() == LogState::Open {
            let appended = self.log.log_end_offset() - self.counted_from;
            let (topic, index) = (&self.topic, self.index);
            assert_eq!(self.counters.messages_in as i64, appended, "{topic}-{index}: every appended record is counted");
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
            log_start_offset: Offset::UNKNOWN,
        }
    }
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Self {
        Self { text: Some(error.to_string()), ..error.error_code().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_replicas_must_be_in_sync_than_there_are() {
        let min_of = |replicas| ReplicaCounts { replicas, in_sync: 1 }.min_in_sync(2);
        assert_eq!([min_of(1), min_of(2), min_of(3)], [1, 2, 2]);
    }
}
