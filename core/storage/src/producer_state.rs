//! The state of the producers that have written to a log. With it a retry is recognised, a gap in the sequence is
//! refused (KIP-98), and readers of committed transactions know the first unstable offset.
//!
//! Kept for each producer: its epoch, its last five batches, the epoch of the transaction coordinator that wrote its
//! last transaction marker, and the first offset of its open transaction. The order of calls for a batch:
//! [`ProducerState::check`] before the batch gets an offset, [`ProducerState::apply`] when it has one, and
//! [`ProducerState::advance`] after every append, also of a batch without a producer id.
//!
//! A [`Verdict::Duplicate`] means that the batch was *appended* before. It may not be stable yet, so the answer to the
//! retry must wait until it is.
//!
//! Invariant: `ongoing` holds exactly the open transactions of the producers.

use super::producer_snapshot::{SnapshotEntry, SnapshotError, decode_snapshot, encode_snapshot};
use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use tidelog_batch::{BatchHeader, ControlRecord, ControlType, NO_SEQUENCE, NO_TIMESTAMP};
use tidelog_config::plant::{Plant, Plants};
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::{Offset, ProducerId};
use tidelog_wire::time::WallMs;

/// How many batches of a producer are remembered: as many as an idempotent client may have in flight.
pub const BATCHES_REMEMBERED: usize = 5;

const NO_EPOCH: i16 = -1;

/// Where a batch comes from, which decides what is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A Produce request of a client. Epoch and sequence are checked.
    Client,
    /// A coordinator of this broker. Its batches have no sequence, so only the epoch is checked.
    Coordinator,
    /// The leader's log, or this broker's own log in recovery. Nothing is checked, because the batch was checked when
    /// it was appended first.
    Replication,
}

/// What a batch says about its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    pub producer_id: ProducerId,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    /// The batch's last offset minus its base offset.
    pub last_offset_delta: i32,
    /// The greatest timestamp of the batch's records, in milliseconds.
    pub max_timestamp: i64,
    pub content: BatchContent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchContent {
    Records {
        transactional: bool,
    },
    EndTransaction(EndTransactionMarker),
    /// A control batch that says nothing: compaction has emptied it because its whole transaction was removed, or it
    /// holds a control record of an unknown kind or version.
    Nothing,
}

/// The outcome of a transaction, as its coordinator writes it to each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTransactionMarker {
    pub commit: bool,
    pub coordinator_epoch: i32,
    /// The version from the coordinator's request; 0 if the marker is read from the log, which does not hold it. From
    /// version 2 on (KIP-890) a marker's producer epoch must be above the producer's last one.
    pub transaction_version: i16,
}

impl EndTransactionMarker {
    /// The marker in a control record. `None` if it is another control record, or a version that cannot be read.
    fn read(record: &ControlRecord) -> Option<Self> {
        let commit = match record.kind {
            ControlType::Abort => false,
            ControlType::Commit => true,
            _ => return None,
        };
        Some(Self { commit, coordinator_epoch: record.coordinator_epoch().ok()?, transaction_version: 0 })
    }
}

impl ProducerBatch {
    /// `control` is the first record of a control batch, if the batch has records.
    pub fn new(header: &BatchHeader, control: Option<&ControlRecord>) -> Self {
        let content = match control {
            _ if !header.is_control() => BatchContent::Records { transactional: header.is_transactional() },
            Some(record) => {
                EndTransactionMarker::read(record).map_or(BatchContent::Nothing, BatchContent::EndTransaction)
            }
            None => BatchContent::Nothing,
        };
        Self {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            last_offset_delta: header.last_offset_delta,
            max_timestamp: header.max_timestamp,
            content,
        }
    }

    pub fn has_producer(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// The sequence of the last record; -1 if the batch has no sequence. After the greatest int32, sequences continue
    /// with 0.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return NO_SEQUENCE;
        }
        add_to_sequence(self.base_sequence, self.last_offset_delta)
    }
}

fn add_to_sequence(sequence: i32, records: i32) -> i32 {
    ((i64::from(sequence) + i64::from(records)).rem_euclid(1 << 31)) as i32
}

fn follows(last: i32, next: i32) -> bool {
    i64::from(next) == i64::from(last) + 1 || (next == 0 && last == i32::MAX)
}

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Append,
    /// The batch was appended before, at these offsets, and the answer repeats them. `timestamp` is the greatest
    /// timestamp of the batch that was appended.
    Duplicate {
        base_offset: Offset,
        last_offset: Offset,
        timestamp: i64,
    },
}

/// Why a batch is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    #[error("producer {producer_id}: epoch {found} is older than the last seen, {current}")]
    InvalidEpoch { producer_id: ProducerId, found: i16, current: i16 },
    #[error("producer {producer_id}: sequence {found}, expected {expected}")]
    OutOfOrderSequence { producer_id: ProducerId, found: i32, expected: i32 },
    #[error("producer {producer_id}: a record without a transaction, while its transaction is open")]
    InvalidTransactionState { producer_id: ProducerId },
    #[error(
        "producer {producer_id}: a marker of coordinator epoch {found}, which is older than the last seen, {current}"
    )]
    CoordinatorFenced { producer_id: ProducerId, found: i32, current: i32 },
}

impl ProducerError {
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::InvalidEpoch { .. } => ErrorCode::InvalidProducerEpoch,
            Self::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
            Self::InvalidTransactionState { .. } => ErrorCode::InvalidTxnState,
            Self::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
        }
    }
}

/// A transaction whose marker was appended, for the index of aborted transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedTransaction {
    pub producer_id: ProducerId,
    pub first_offset: Offset,
    /// The offset of the marker.
    pub last_offset: Offset,
    pub aborted: bool,
    /// The first offset of the oldest transaction still open; if there is none, the offset after the marker.
    pub last_stable_offset: Offset,
}

/// A batch of a producer that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AppendedBatch {
    last_offset: Offset,
    timestamp: i64,
    last_sequence: i32,
    offset_delta: i32,
}

impl AppendedBatch {
    fn base_offset(&self) -> Offset {
        self.last_offset + -i64::from(self.offset_delta)
    }

    fn base_sequence(&self) -> i32 {
        if self.last_sequence < 0 {
            return NO_SEQUENCE;
        }
        add_to_sequence(self.last_sequence, -self.offset_delta)
    }
}

/// The state of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    /// The last batches, oldest first. One is stored without an allocation: after a restart there is only one, and some
    /// producers send only one.
    batches: SmallVec<[AppendedBatch; 1]>,
    /// The greatest timestamp of the last batch, or when it was written if its records have none.
    last_timestamp: i64,
    /// [`Offset::UNKNOWN`] if no transaction is open.
    transaction_first_offset: Offset,
    coordinator_epoch: i32,
    epoch: i16,
}

impl Producer {
    fn unknown() -> Self {
        Self {
            batches: SmallVec::new(),
            last_timestamp: NO_TIMESTAMP,
            transaction_first_offset: Offset::UNKNOWN,
            coordinator_epoch: -1,
            epoch: NO_EPOCH,
        }
    }

    fn last_sequence(&self) -> i32 {
        self.batches.last().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    fn open_transaction(&self) -> Option<Offset> {
        (self.transaction_first_offset != Offset::UNKNOWN).then_some(self.transaction_first_offset)
    }

    fn set_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.batches.clear();
            self.epoch = epoch;
        }
    }

    fn remember(&mut self, batch: AppendedBatch) {
        if self.batches.len() == BATCHES_REMEMBERED {
            self.batches.remove(0);
        } else if self.batches.len() == 1 {
            self.batches.grow(BATCHES_REMEMBERED);
        }
        self.batches.push(batch);
    }

    /// The remembered batch with the same epoch and sequences, if there is one.
    fn duplicate_of(&self, batch: &ProducerBatch) -> Option<&AppendedBatch> {
        let sequences = (batch.base_sequence, batch.last_sequence());
        let same = |known: &&AppendedBatch| (known.base_sequence(), known.last_sequence) == sequences;
        if self.epoch == batch.producer_epoch { self.batches.iter().find(same) } else { None }
    }

    fn expired(&self, now: WallMs, expiration_ms: i64) -> bool {
        self.open_transaction().is_none() && now.0.saturating_sub(self.last_timestamp) >= expiration_ms
    }
}

/// A producer as the DescribeProducers response shows it (KIP-664).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    pub producer_id: ProducerId,
    pub producer_epoch: i16,
    pub last_sequence: i32,
    pub last_timestamp: i64,
    pub coordinator_epoch: i32,
    pub current_transaction_start_offset: Option<Offset>,
}

#[derive(Clone, Debug)]
pub struct ProducerState {
    producers: BTreeMap<ProducerId, Producer>,
    /// The open transactions: the first offset and the producer of each.
    ongoing: BTreeMap<Offset, ProducerId>,
    /// The transactions whose marker is not below the high watermark: the first offset of each, and the marker's
    /// offset.
    unreplicated: BTreeMap<Offset, Offset>,
    /// The offset up to which batches were applied, exclusive.
    end_offset: Offset,
    last_snapshot_offset: Offset,
    plants: Plants,
}

impl ProducerState {
    /// The state of an empty log that begins at `start_offset`: no producer is known.
    pub fn new(start_offset: Offset, plants: Plants) -> Self {
        Self {
            producers: BTreeMap::new(),
            ongoing: BTreeMap::new(),
            unreplicated: BTreeMap::new(),
            end_offset: start_offset,
            last_snapshot_offset: start_offset,
            plants,
        }
    }

    /// Builds the state at `offset` from the snapshot file of that name, without the producers that have expired since.
    /// The caller then applies the batches from `offset` on.
    pub fn from_snapshot(
        offset: Offset,
        bytes: &[u8],
        now: WallMs,
        expiration_ms: i64,
        plants: Plants,
    ) -> Result<Self, SnapshotError> {
        let mut state = Self::new(offset, plants);
        for (place, entry) in decode_snapshot(bytes)?.into_iter().enumerate() {
            let mut producer = Producer {
                last_timestamp: entry.timestamp,
                transaction_first_offset: entry.current_transaction_first_offset.unwrap_or(Offset::UNKNOWN),
                coordinator_epoch: entry.coordinator_epoch,
                epoch: entry.producer_epoch,
                batches: SmallVec::new(),
            };
            if entry.last_offset >= Offset::ZERO {
                producer.remember(AppendedBatch {
                    last_offset: entry.last_offset,
                    timestamp: entry.timestamp,
                    last_sequence: entry.last_sequence,
                    offset_delta: entry.offset_delta,
                });
            }
            if producer.expired(now, expiration_ms) {
                continue;
            }
            let first_offset = producer.open_transaction();
            let taken = first_offset.and_then(|offset| state.ongoing.insert(offset, entry.producer_id));
            if taken.is_some() || state.producers.insert(entry.producer_id, producer).is_some() {
                return Err(SnapshotError::Entry { place, entry });
            }
        }
        Ok(state)
    }

    /// Decides whether a batch may be appended, given what its producer has appended before. A batch without a producer
    /// id always may.
    pub fn check(&self, batch: &ProducerBatch, origin: AppendOrigin) -> Result<Verdict, ProducerError> {
        if origin == AppendOrigin::Replication || !batch.has_producer() {
            return Ok(Verdict::Append);
        }
        let unknown = Producer::unknown();
        let producer = self.producers.get(&batch.producer_id).unwrap_or(&unknown);
        match batch.content {
            BatchContent::Nothing => Ok(Verdict::Append),
            BatchContent::EndTransaction(marker) => check_marker(producer, batch, marker),
            BatchContent::Records { transactional } => {
                if origin == AppendOrigin::Client
                    && let Some(known) = producer.duplicate_of(batch)
                {
                    if self.plants.has(Plant::DuplicateAppendedTwice) {
                        return Ok(Verdict::Append);
                    }
                    let (last_offset, timestamp) = (known.last_offset, known.timestamp);
                    return Ok(Verdict::Duplicate { base_offset: known.base_offset(), last_offset, timestamp });
                }
                match check_records(producer, batch, origin, transactional) {
                    Err(ProducerError::OutOfOrderSequence { .. }) if self.plants.has(Plant::SequenceGapAccepted) => {
                        Ok(Verdict::Append)
                    }
                    Err(ProducerError::InvalidEpoch { .. }) if self.plants.has(Plant::ZombieProducerAccepted) => {
                        Ok(Verdict::Append)
                    }
                    verdict => verdict,
                }
            }
        }
    }

    /// Applies a batch that was appended at `base_offset`, and written at `written` at the latest: where the records
    /// have no timestamps, the producer expires by that. If the batch is the marker of a transaction that has records
    /// in this log, returns that transaction.
    pub fn apply(
        &mut self,
        batch: &ProducerBatch,
        base_offset: Offset,
        written: WallMs,
    ) -> Option<CompletedTransaction> {
        if !batch.has_producer() || batch.content == BatchContent::Nothing {
            return None;
        }
        let producer = self.producers.entry(batch.producer_id).or_insert_with(Producer::unknown);
        producer.set_epoch(batch.producer_epoch);
        producer.last_timestamp = if batch.max_timestamp >= 0 { batch.max_timestamp } else { written.0 };
        match batch.content {
            BatchContent::Nothing => unreachable!("returned above"),
            BatchContent::Records { transactional } => {
                producer.remember(AppendedBatch {
                    last_offset: base_offset + i64::from(batch.last_offset_delta),
                    timestamp: batch.max_timestamp,
                    last_sequence: batch.last_sequence(),
                    offset_delta: batch.last_offset_delta,
                });
                if transactional && producer.open_transaction().is_none() {
                    producer.transaction_first_offset = base_offset;
                    self.ongoing.insert(base_offset, batch.producer_id);
                }
                None
            }
            BatchContent::EndTransaction(marker) => {
                producer.coordinator_epoch = marker.coordinator_epoch;
                let first_offset = producer.open_transaction()?;
                producer.transaction_first_offset = Offset::UNKNOWN;
                self.ongoing.remove(&first_offset);
                self.unreplicated.insert(first_offset, base_offset);
                Some(CompletedTransaction {
                    producer_id: batch.producer_id,
                    first_offset,
                    last_offset: base_offset,
                    aborted: !marker.commit,
                    last_stable_offset: self.ongoing.keys().next().copied().unwrap_or(base_offset + 1),
                })
            }
        }
    }

    /// Records that all batches up to `end_offset`, exclusive, have been applied.
    pub fn advance(&mut self, end_offset: Offset) {
        assert!(end_offset >= self.end_offset, "the end offset must not fall from {} to {end_offset}", self.end_offset);
        self.end_offset = end_offset;
    }

    /// The offset up to which batches have been applied, exclusive.
    pub fn end_offset(&self) -> Offset {
        self.end_offset
    }

    /// The content of the snapshot to write now, and the offset for its file name. `None` if the last snapshot was for
    /// the same offset.
    pub fn take_snapshot(&mut self) -> Option<(Offset, Bytes)> {
        if self.end_offset <= self.last_snapshot_offset {
            return None;
        }
        self.last_snapshot_offset = self.end_offset;
        Some((self.end_offset, self.encode()))
    }

    /// The content of a snapshot for the offset [`end_offset`](Self::end_offset).
    pub fn encode(&self) -> Bytes {
        encode_snapshot(self.producers.iter().map(|(producer_id, producer)| {
            let last = producer.batches.last();
            SnapshotEntry {
                producer_id: *producer_id,
                producer_epoch: producer.epoch,
                last_sequence: producer.last_sequence(),
                last_offset: last.map_or(Offset::UNKNOWN, |batch| batch.last_offset),
                offset_delta: last.map_or(0, |batch| batch.offset_delta),
                timestamp: producer.last_timestamp,
                coordinator_epoch: producer.coordinator_epoch,
                current_transaction_first_offset: producer.open_transaction(),
            }
        }))
    }

    /// The log now starts at `log_start_offset`. A producer stays known even if all its records are below it, because
    /// it may still send a retry.
    pub fn advance_log_start(&mut self, log_start_offset: Offset) {
        self.forget_markers_below(log_start_offset);
        self.end_offset = self.end_offset.max(log_start_offset);
    }

    /// Takes the new high watermark: transactions whose marker is below it are decided.
    pub fn advance_high_watermark(&mut self, high_watermark: Offset) {
        self.forget_markers_below(high_watermark);
    }

    fn forget_markers_below(&mut self, offset: Offset) {
        self.unreplicated.retain(|_, marker_offset| *marker_offset >= offset);
    }

    /// The first offset of the oldest transaction that is undecided: it has no marker, or its marker is not below the
    /// high watermark. Readers of committed transactions stop there.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        let undecided = self.first_undecided_offset();
        let unreplicated = self.unreplicated.keys().next().copied();
        undecided.into_iter().chain(unreplicated).min()
    }

    /// The first offset of the oldest transaction without a marker.
    pub fn first_undecided_offset(&self) -> Option<Offset> {
        self.ongoing.keys().next().copied()
    }

    /// Forgets the producers that have sent nothing for `producer.id.expiration.ms` and have no open transaction.
    /// Returns how many those were.
    pub fn remove_expired(&mut self, now: WallMs, expiration_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, producer| !producer.expired(now, expiration_ms));
        before - self.producers.len()
    }

    pub fn len(&self) -> usize {
        self.producers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.producers.is_empty() && self.unreplicated.is_empty()
    }

    /// All producers, sorted by id, for DescribeProducers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = ActiveProducer> {
        self.producers.iter().map(|(producer_id, producer)| ActiveProducer {
            producer_id: *producer_id,
            producer_epoch: producer.epoch,
            last_sequence: producer.last_sequence(),
            last_timestamp: producer.last_timestamp,
            coordinator_epoch: producer.coordinator_epoch,
            current_transaction_start_offset: producer.open_transaction(),
        })
    }

    /// Whether this producer with this epoch has an open transaction in this log.
    pub fn has_ongoing_transaction(&self, producer_id: ProducerId, producer_epoch: i16) -> bool {
        let producer = self.producers.get(&producer_id);
        producer.is_some_and(|known| known.epoch == producer_epoch && known.open_transaction().is_some())
    }

    /// Asserts the invariants.
    pub fn verify(&self) {
        let open = |(id, producer): (&ProducerId, &Producer)| producer.open_transaction().map(|first| (first, *id));
        let named: BTreeMap<Offset, ProducerId> = self.producers.iter().filter_map(open).collect();
        assert_eq!(named, self.ongoing, "`ongoing` holds the open transactions of the producers");
        assert!(self.producers.values().all(|producer| producer.batches.len() <= BATCHES_REMEMBERED));
        assert!(self.producers.keys().all(|producer_id| producer_id.0 >= 0));
    }
}

fn check_records(
    producer: &Producer,
    batch: &ProducerBatch,
    origin: AppendOrigin,
    transactional: bool,
) -> Result<Verdict, ProducerError> {
    let producer_id = batch.producer_id;
    if batch.producer_epoch < producer.epoch {
        let (found, current) = (batch.producer_epoch, producer.epoch);
        return Err(ProducerError::InvalidEpoch { producer_id, found, current });
    }
    if origin == AppendOrigin::Client {
        let found = batch.base_sequence;
        let last = if batch.producer_epoch == producer.epoch { producer.last_sequence() } else { NO_SEQUENCE };
        // An unknown producer may begin with any sequence: its state may have expired. A new epoch of a known producer
        // begins with sequence 0.
        if producer.epoch != NO_EPOCH && !follows(last, found) {
            let expected = if last == i32::MAX { 0 } else { last.saturating_add(1) };
            return Err(ProducerError::OutOfOrderSequence { producer_id, found, expected });
        }
    }
    if producer.open_transaction().is_some() && !transactional {
        return Err(ProducerError::InvalidTransactionState { producer_id });
    }
    Ok(Verdict::Append)
}

fn check_marker(
    producer: &Producer,
    batch: &ProducerBatch,
    marker: EndTransactionMarker,
) -> Result<Verdict, ProducerError> {
    let (producer_id, found, current) = (batch.producer_id, batch.producer_epoch, producer.epoch);
    // KIP-890: from transaction version 2 on each transaction ends with a higher producer epoch. So a marker with an
    // equal epoch belongs to an earlier transaction. If no transaction is open, it is a harmless retry (KAFKA-19999).
    let harmless_retry = found == current && (producer.open_transaction().is_none() || found == i16::MAX);
    let stale = if marker.transaction_version >= 2 { found <= current && !harmless_retry } else { found < current };
    if stale {
        return Err(ProducerError::InvalidEpoch { producer_id, found, current });
    }
    let (found, current) = (marker.coordinator_epoch, producer.coordinator_epoch);
    if found < current {
        return Err(ProducerError::CoordinatorFenced { producer_id, found, current });
    }
    Ok(Verdict::Append)
}

#[cfg(test)]
#[path = "producer_state_tests.rs"]
mod tests;
