//! Looking up the first record at or after a timestamp, for ListOffsets (KIP-79, KIP-734).
//!
//! The record is in the first segment whose greatest timestamp is at or above the wanted one. The time index and the
//! offset index of that segment give a position at or before the record's batch. From that position on the batch
//! headers are read, up to the first batch whose greatest timestamp is at or above the wanted one. The records of that
//! batch are then read one by one.

use super::log::{Log, LogState};
use super::read::{QueryKind, QueryStage, QueryStep, Walked, walk};
use super::time_index::TimestampOffset;
use crate::io::Outbox;
use crate::probe::Probe;
use bytes::Bytes;
use tidelog_batch::{BatchHeader, find_record, verify_checksum};
use tidelog_config::plant::Plant;
use tidelog_wire::ids::{LeaderEpoch, Offset};

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupTarget {
    /// The first record whose timestamp is at least this.
    FirstAt(i64),
    /// The first record with the greatest timestamp of all (KIP-734).
    MaxTimestamp,
}

/// A record's place and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampedOffset {
    pub timestamp: i64,
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The answer. `None`: no record matches.
    Found(Option<TimestampedOffset>),
    /// The answer comes as [`LogEvent::LookupDone`](super::LogEvent::LookupDone).
    Pending,
    Failed(String),
}

impl Log {
    /// Looks up a record among those that have been written. It may be above the high watermark: the caller checks
    /// that. If the result is [`Lookup::Pending`], the answer comes as
    /// [`LogEvent::LookupDone`](super::LogEvent::LookupDone) with
    /// `token`.
    pub fn offset_for_timestamp(&mut self, target: LookupTarget, token: u64, out: &mut Outbox) -> Lookup {
        if self.state != LogState::Open {
            return Lookup::Failed(format!("{}: the log is not open: {:?}", self.place.name, self.state));
        }
        let kind = QueryKind::Lookup(target);
        let step = self.first_step(&kind);
        match step {
            QueryStep::Lookup(Ok(found)) => Lookup::Found(found),
            QueryStep::Lookup(Err(reason)) => Lookup::Failed(reason),
            step => {
                out.probe(Probe::LookupDisk);
                self.wait_for_io(token, kind, step, out);
                Lookup::Pending
            }
        }
    }

    pub(super) fn first_lookup_step(&mut self, target: LookupTarget) -> QueryStep {
        // Segments that are wholly below the log's start are still there until retention removes them.
        self.lookup_from(target, self.segment_slot(self.log_start))
    }

    /// Looks in the segments from `slot` on.
    fn lookup_from(&mut self, target: LookupTarget, slot: usize) -> QueryStep {
        let mut best: Option<(usize, TimestampOffset)> = None;
        for slot in slot..self.segments.len() {
            let Some(largest) = self.segments[slot].largest.filter(|_| !self.indexes_loading(slot)) else {
                return QueryStep::Index(slot);
            };
            if let Some(position) = self.segments[slot].damaged_at {
                let why = format!("after position {position}");
                return QueryStep::Lookup(Err(self.unreadable(self.segments[slot].base, &why)));
            }
            match target {
                LookupTarget::FirstAt(timestamp) if largest.timestamp >= timestamp => {
                    best = Some((slot, largest));
                    break;
                }
                LookupTarget::MaxTimestamp
                    if largest.timestamp >= 0 && best.is_none_or(|(_, best)| best.timestamp < largest.timestamp) =>
                {
                    best = Some((slot, largest));
                }
                _ => {}
            }
        }
        let Some((slot, largest)) = best else { return QueryStep::Lookup(Ok(None)) };
        let (segment, log_start) = (self.segments[slot].base, self.log_start);
        let Some(indexes) = self.use_indexes(slot) else { return QueryStep::Index(slot) };
        let near = match target {
            LookupTarget::FirstAt(timestamp) => {
                // Not `floor(timestamp)`: its entry may name the wanted batch itself, and the walk must begin before
                // it.
                indexes.times.floor(timestamp.saturating_sub(1)).map_or(segment, |entry| entry.offset)
            }
            LookupTarget::MaxTimestamp => largest.offset,
        };
        let position = indexes.offsets.floor(near.max(log_start)).position;
        self.headers_region(target, slot, position)
    }

    /// The step that reads batch headers of the segment in `slot` from `position` on. If no written bytes are left
    /// there, the look-up goes on in the next segment, or ends without a record.
    fn headers_region(&mut self, target: LookupTarget, slot: usize, position: u32) -> QueryStep {
        if position < self.segments[slot].written_len {
            return QueryStep::Region(QueryStage::Headers { segment: self.segments[slot].base, position });
        }
        match target {
            // The record with that timestamp lies below the log's start: a later segment may have another.
            LookupTarget::FirstAt(_) if slot + 1 < self.segments.len() => self.lookup_from(target, slot + 1),
            _ => QueryStep::Lookup(Ok(None)),
        }
    }

    /// Whether a batch with this greatest timestamp may hold the record.
    fn reaches(&self, target: LookupTarget, slot: usize, max_timestamp: i64) -> bool {
        match target {
            LookupTarget::FirstAt(timestamp) => max_timestamp >= timestamp,
            LookupTarget::MaxTimestamp => {
                self.segments[slot].largest.is_some_and(|largest| largest.timestamp <= max_timestamp)
            }
        }
    }

    /// Batch headers have been read: the next step reads the first of these batches that may hold the record, or the
    /// headers after them.
    pub(super) fn headers_read(
        &mut self,
        target: LookupTarget,
        segment: Offset,
        position: u32,
        bytes: &[u8],
    ) -> QueryStep {
        let Some(slot) = self.slot_of(segment) else { return self.first_lookup_step(target) };
        if self.index_entry_is_wrong(slot, position, bytes) {
            return QueryStep::Rebuild(slot);
        }
        let log_start = self.log_start;
        let walked = walk(bytes, position, |header| {
            header.last_offset() >= log_start && self.reaches(target, slot, header.max_timestamp)
        });
        match walked {
            Walked::Found { position, header } => {
                let size = header.size_bytes() as u64;
                if u64::from(position) + size > u64::from(self.segments[slot].written_len) {
                    return QueryStep::Lookup(Err(self.unreadable(segment, &format!("at position {position}"))));
                }
                QueryStep::Region(QueryStage::Batch { segment, position, size: size as u32 })
            }
            Walked::Further(next) if next > position => self.headers_region(target, slot, next),
            Walked::Further(_) => QueryStep::Lookup(Err(self.unreadable(segment, "to its end"))),
            Walked::Damaged(why) => QueryStep::Lookup(Err(self.unreadable(segment, &why))),
        }
    }

    /// A batch has been read: finds the record in it, or goes on after the batch.
    pub(super) fn batch_read(
        &mut self,
        target: LookupTarget,
        segment: Offset,
        position: u32,
        size: u32,
        bytes: Bytes,
    ) -> QueryStep {
        let Some(slot) = self.slot_of(segment) else { return self.first_lookup_step(target) };
        let log_start = self.log_start;
        let skips_equal = self.plants.has(Plant::TimestampLookupSkipsEqual);
        let found = verify_checksum(&bytes).and_then(|()| BatchHeader::parse(&bytes)).and_then(|header| {
            let wanted = |offset: Offset, found: i64| {
                let is_wanted = match target {
                    LookupTarget::FirstAt(timestamp) if skips_equal => found > timestamp,
                    LookupTarget::FirstAt(timestamp) => found >= timestamp,
                    LookupTarget::MaxTimestamp => found == header.max_timestamp,
                };
                is_wanted && offset >= log_start
            };
            Ok((find_record(&bytes, wanted)?, header.leader_epoch))
        });
        match found {
            Ok((Some((offset, timestamp)), leader_epoch)) => {
                return QueryStep::Lookup(Ok(Some(TimestampedOffset { timestamp, offset, leader_epoch })));
            }
            Ok((None, _)) => {}
            Err(error) => {
                return QueryStep::Lookup(Err(self.unreadable(segment, &format!("at position {position}: {error}"))));
            }
        }
        // The records with that timestamp lie below the log's start, or compaction has removed them.
        self.headers_region(target, slot, position + size)
    }
}
