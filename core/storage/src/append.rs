//! Appending: a batch is checked against the state of its producer, gets its offsets, and is written. Then it is
//! synced, together with others.
//!
//! **Group commit.** With `acks.require.fsync`, at most one sync of the active file is in flight. Batches appended
//! meanwhile are covered by the next sync, which is issued when the current one completes. So under load one sync
//! serves many appends, and a single append waits for its own sync alone.
//!
//! **Rolling** is ending the active segment and beginning a new one. The old log file and its indexes are written and
//! synced first. Only when all of that has succeeded is the new log file created. So a crash between any two commands
//! is harmless, and a segment that is followed by another is complete and indexed, even above the recovery point.

use super::log::{Log, LogState, Purpose};
use super::producer_state::{AppendOrigin, ProducerBatch, ProducerError, Verdict};
use super::segment::Segment;
use super::tail::TailBatch;
use crate::buggify::Site;
use crate::io::{IoOp, Outbox};
use crate::probe::Probe;
use bytes::Bytes;
use smallvec::smallvec;
use tidelog_batch::{BatchHeader, BatchLimits, CheckedBatch, Chunks, ControlRecord, TimestampType, records};
use tidelog_config::plant::Plant;
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::{LeaderEpoch, Offset};
use tidelog_wire::time::{Now, WallMs};

/// A batch to append.
#[derive(Clone, Copy, Debug)]
pub enum Append<'a> {
    /// A batch that a client produced. The producer's epoch and sequence are checked.
    Produced(&'a CheckedBatch),
    /// One batch that this broker has made with `BatchBuilder`. Its base offset and leader epoch are set by the append.
    Own(&'a Bytes),
    /// One batch of the leader's log, as it stands there. It must begin where this log ends, and its checksum must have
    /// been verified. It keeps its base offset and its leader epoch, which is at most the one that the append names.
    Replicated(&'a Bytes),
}

/// Where a batch was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// The timestamp that all records of the batch got, if `message.timestamp.type` is `LogAppendTime`. Of a duplicate
    /// it is the greatest timestamp of the batch that was appended first, whatever the type, as in Kafka.
    pub log_append_time: Option<WallMs>,
    /// Whether the batch is a retry of one that was appended before. Then nothing is written, and these are the offsets
    /// of the first time. The first one may not be stable yet, so the answer must wait until it is.
    pub duplicate: bool,
}

/// Why a batch was not appended. The log is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log is not open: it is offline, being loaded, closed or deleted.
    #[error("the log is not open: {0}")]
    NotOpen(String),
    #[error("the batch has {size} bytes, and the topic's segment.bytes is {limit}")]
    TooLarge { size: u64, limit: u32 },
    #[error("the log has no offsets left")]
    OffsetsExhausted,
    #[error(transparent)]
    Producer(#[from] ProducerError),
}

impl AppendError {
    /// The error code that a client gets.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::NotOpen(_) | Self::OffsetsExhausted => ErrorCode::KafkaStorageError,
            Self::TooLarge { .. } => ErrorCode::RecordListTooLarge,
            Self::Producer(ProducerError::InvalidEpoch { .. }) => ErrorCode::InvalidProducerEpoch,
            Self::Producer(ProducerError::OutOfOrderSequence { .. }) => ErrorCode::OutOfOrderSequenceNumber,
            Self::Producer(ProducerError::InvalidTransactionState { .. }) => ErrorCode::InvalidTxnState,
            Self::Producer(ProducerError::CoordinatorFenced { .. }) => ErrorCode::TransactionCoordinatorFenced,
        }
    }
}

impl Log {
    /// Appends one batch: assigns its offsets and issues its write. The batch may be acknowledged when
    /// [`stable_offset`](Log::stable_offset) is above its last offset.
    pub fn append(
        &mut self,
        now: Now,
        batch: Append<'_>,
        leader_epoch: LeaderEpoch,
        out: &mut Outbox,
    ) -> Result<Appended, AppendError> {
        if self.state != LogState::Open {
            return Err(AppendError::NotOpen(format!("{:?}", self.state)));
        }
        let base_offset = self.log_end;
        let log_append_time = self.settings.log_append_time.then_some(now.wall);
        let (header, producer_batch) = match batch {
            Append::Produced(checked) => {
                let judged = self.judge(checked.header());
                if let Err(error) = &judged {
                    probe_refusal(error, out);
                }
                let (producer_batch, verdict) = judged?;
                if let Verdict::Duplicate { base_offset, last_offset, timestamp } = verdict {
                    out.probe(Probe::AppendDuplicate);
                    let log_append_time = Some(WallMs(timestamp));
                    if self.plants.has(Plant::DuplicateAnsweredWithNewOffset) {
                        return Ok(Appended {
                            base_offset: self.log_end,
                            last_offset,
                            log_append_time,
                            duplicate: true,
                        });
                    }
                    return Ok(Appended { base_offset, last_offset, log_append_time, duplicate: true });
                }
                let header = checked.assigned_header(base_offset, leader_epoch, log_append_time);
                (header, ProducerBatch { max_timestamp: header.max_timestamp, ..producer_batch })
            }
            Append::Own(bytes) => {
                let header = BatchHeader::parse(bytes).expect("a batch that this broker made has a header");
                assert_eq!(header.size_bytes(), bytes.len(), "the bytes are one whole batch");
                let header = self.check_room(&header)?;
                let producer_batch = producer_batch(&header, Some(bytes));
                self.producers.check(&producer_batch, AppendOrigin::Coordinator)?;
                (BatchHeader { base_offset, leader_epoch, ..header }, producer_batch)
            }
            Append::Replicated(bytes) => {
                let header = BatchHeader::parse(bytes).expect("a batch that was verified has a header");
                assert_eq!(header.size_bytes(), bytes.len(), "the bytes are one whole batch");
                assert_eq!(header.base_offset, base_offset, "a leader's batch begins where this log ends");
                assert!(header.leader_epoch <= leader_epoch, "a leader's batch is of its epoch or of an earlier one");
                let header = self.check_room(&header)?;
                (header, producer_batch(&header, Some(bytes)))
            }
        };
        let leader_epoch = header.leader_epoch;
        let chunks: Chunks = match batch {
            Append::Produced(checked) => checked.with_header(&header),
            Append::Own(bytes) => {
                smallvec![Bytes::copy_from_slice(&header.encode()), bytes.slice(BatchHeader::LEN..)]
            }
            Append::Replicated(bytes) => smallvec![bytes.clone()],
        };
        if self.epochs.assign(leader_epoch, base_offset) {
            self.write_epochs(out);
        }
        self.roll_if_due(now, &header, out);
        self.write_batch(now, &header, chunks, out);
        self.producers.apply(&producer_batch, base_offset, now.wall);
        self.producers.advance(self.log_end);
        self.schedule_expiry_check(now);
        let log_append_time = log_append_time.filter(|_| header.timestamp_type() == TimestampType::LogAppendTime);
        Ok(Appended { base_offset, last_offset: header.last_offset(), log_append_time, duplicate: false })
    }

    /// Decides whether a client's batch is appended, is a duplicate, or is refused.
    fn judge(&self, header: &BatchHeader) -> Result<(ProducerBatch, Verdict), AppendError> {
        let header = self.check_room(header)?;
        let producer_batch = producer_batch(&header, None);
        let verdict = self.producers.check(&producer_batch, AppendOrigin::Client)?;
        Ok((producer_batch, verdict))
    }

    fn check_room(&self, header: &BatchHeader) -> Result<BatchHeader, AppendError> {
        let size = header.size_bytes() as u64;
        if size > u64::from(self.settings.segment_bytes) {
            return Err(AppendError::TooLarge { size, limit: self.settings.segment_bytes });
        }
        let last = self.log_end.0.checked_add(i64::from(header.last_offset_delta) + 1);
        last.map(|_| *header).ok_or(AppendError::OffsetsExhausted)
    }

    fn write_batch(&mut self, now: Now, header: &BatchHeader, chunks: Chunks, out: &mut Outbox) {
        assert_eq!(header.base_offset, self.log_end, "a batch begins where the log ends");
        let stable = self.stable_offset().min(self.synced);
        let interval = self.settings.index_interval_bytes;
        let size = u32::try_from(header.size_bytes()).expect("a batch fits into a segment");
        let active = self.segments.last_mut().expect("an open log has an active segment");
        let (file, segment, position) = (active.file, active.base, active.len);
        active.index_batch(header, position, size, interval);
        active.len += size;
        active.modified = now.wall;
        let len = active.len;
        let (base, last) = (header.base_offset, header.last_offset());
        let end_offset = header.next_offset();
        self.log_end = end_offset;
        self.tail.push(TailBatch { base, last, segment, position, len: size }, stable);
        let op = IoOp::Write { file, position: u64::from(position), chunks };
        self.issue(Purpose::Write { segment, len, end_offset }, op, out);
        if !self.settings.require_fsync {
            self.unsynced_since.get_or_insert(now.mono);
            if self.log_end - self.sync_issued >= self.settings.flush_messages || out.buggify(Site::EarlyFlush) {
                self.sync_active(out);
            }
        }
        self.commit(out);
    }

    /// Issues the next sync, if the topic has `acks.require.fsync` and no sync is in flight.
    pub(super) fn commit(&mut self, out: &mut Outbox) {
        if !self.settings.require_fsync {
            return;
        }
        if self.syncs_in_flight == 0 {
            self.sync_active(out);
        } else {
            out.probe(Probe::AppendJoinsSync);
        }
    }

    /// Issues a sync of everything appended so far, whatever the topic's settings.
    pub fn flush(&mut self, out: &mut Outbox) {
        if self.state == LogState::Open {
            self.sync_active(out);
        }
    }

    pub(super) fn sync_active(&mut self, out: &mut Outbox) {
        self.unsynced_since = None;
        if self.sync_issued == self.log_end {
            return;
        }
        let file = self.segments.last().expect("an open log has an active segment").file;
        self.sync_issued = self.log_end;
        self.syncs_in_flight += 1;
        self.issue(Purpose::Sync { end_offset: self.log_end }, IoOp::Sync { file }, out);
    }

    pub(super) fn note_written(&mut self, segment: Offset, len: u32, end_offset: Offset) {
        assert!(end_offset > self.written, "writes complete in order");
        self.written = end_offset;
        if let Some(slot) = self.slot_of(segment) {
            self.segments[slot].written_len = len;
        }
    }

    pub(super) fn note_synced(&mut self, end_offset: Offset, out: &mut Outbox) {
        assert!(self.written >= end_offset, "a sync completes after the writes that it covers");
        self.syncs_in_flight -= 1;
        self.synced = self.synced.max(end_offset);
        if self.state == LogState::Open {
            self.commit(out);
        }
    }

    fn roll_if_due(&mut self, now: Now, header: &BatchHeader, out: &mut Outbox) {
        let settings = &self.settings;
        let active = self.segments.last().expect("an open log has an active segment");
        assert!(!self.plants.has(Plant::WallClockAsserted) || now.wall >= active.created, "the wall clock went back");
        if active.len == 0 {
            return;
        }
        let size = header.size_bytes() as u64;
        let due = if u64::from(active.len) + size > u64::from(settings.segment_bytes) {
            out.probe(Probe::RollBySize);
            true
        } else if age_ms(active, header, now) > settings.segment_ms - self.jitter_ms(active.base) {
            out.probe(Probe::RollByAge);
            true
        } else if active.indexes_full() {
            out.probe(Probe::RollIndexFull);
            true
        } else {
            !active.holds(header.last_offset()) || out.buggify(Site::EarlyRoll)
        };
        if due {
            self.roll(now, out);
        }
    }

    /// Ends the active segment and begins the next.
    pub(super) fn roll(&mut self, now: Now, out: &mut Outbox) {
        let active = self.segments.len() - 1;
        assert!(self.segments[active].len > 0, "a segment that rolls is not empty");
        if !self.plants.has(Plant::RollForgetsOldSegment) {
            self.sync_active(out);
        }
        self.segments[active].seal();
        self.write_indexes(active, out);
        self.write_snapshot(out);
        self.lane.gate();
        self.add_segment(self.log_end, now, out);
        self.forget_indexes();
    }

    /// A random part of `segment.jitter.ms`, so that not all logs roll at once. It is always the same for one segment.
    fn jitter_ms(&self, base: Offset) -> i64 {
        let bound = self.settings.segment_jitter_ms.min(self.settings.segment_ms);
        if bound <= 0 {
            return 0;
        }
        (split_mix_64(u64::from(self.id.0) << 40 ^ base.0 as u64) % bound as u64) as i64
    }
}

/// The first number of the random generator SplitMix64 with this seed.
fn split_mix_64(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn probe_refusal(error: &AppendError, out: &mut Outbox) {
    match error {
        AppendError::TooLarge { .. } => out.probe(Probe::AppendTooLarge),
        AppendError::Producer(ProducerError::OutOfOrderSequence { .. }) => out.probe(Probe::AppendSequenceRefused),
        AppendError::Producer(ProducerError::InvalidEpoch { .. }) => out.probe(Probe::AppendEpochRefused),
        _ => {}
    }
}

/// The age of a segment once this batch is in it. Counts by the timestamps of the records if they have any, else from
/// the creation of the segment.
fn age_ms(segment: &Segment, header: &BatchHeader, now: Now) -> i64 {
    match segment.first_timestamp.filter(|timestamp| *timestamp >= 0) {
        Some(first) => header.max_timestamp.saturating_sub(first),
        None => now.wall.0.saturating_sub(segment.created.0),
    }
}

/// What a batch says about its producer. `bytes` is the whole batch; `None` for a client's, which is no control batch.
pub(super) fn producer_batch(header: &BatchHeader, bytes: Option<&Bytes>) -> ProducerBatch {
    let control = bytes.filter(|_| header.is_control()).and_then(control_record);
    ProducerBatch::new(header, control.as_ref())
}

/// The record of a control batch, unless compaction has removed it.
fn control_record(bytes: &Bytes) -> Option<ControlRecord> {
    let first = records(bytes, &BatchLimits::default()).ok()?.next()?.ok()?;
    ControlRecord::parse(&first).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jitter_uses_split_mix_64() {
        // The published first three numbers of the seed 0. Each step of SplitMix64 adds the same constant to the seed.
        let gamma = 0x9e37_79b9_7f4a_7c15_u64;
        let numbers = [0, gamma, gamma.wrapping_mul(2)].map(split_mix_64);
        assert_eq!(numbers, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
    }
}
