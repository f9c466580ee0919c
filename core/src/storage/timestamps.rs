//! ListOffsets: the first record at or after a timestamp, through the time index.
//!
//! The segment is the first whose greatest timestamp reaches the wanted one; in it the time index and the offset
//! index give a position before the record, from which headers are walked to the first batch that reaches it, and
//! that batch's records are read one by one (KIP-79, KIP-734).

use super::log::{Log, LogState};
use super::read::{Ask, At, Step, Walked, walk};
use super::time_index::TimestampOffset;
use crate::batch::{BatchLimits, records, verify_checksum};
use crate::ids::{LeaderEpoch, Offset};
use crate::io::Outbox;
use crate::plant::Plant;
use crate::probe::Probe;
use bytes::Bytes;

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
    Found(Option<TimestampedOffset>),
    /// The answer comes as [`LogEvent::LookupDone`](super::LogEvent::LookupDone).
    Pending,
    Failed(String),
}

impl Log {
    /// The record that `target` names, among those that have been written; the caller compares its offset with the
    /// bound it may show. A pending answer bears `token`.
    pub fn offset_for_timestamp(&mut self, target: LookupTarget, token: u64, out: &mut Outbox) -> Lookup {
        if self.state != LogState::Open {
            return Lookup::Failed(format!("{}: the log is not open: {:?}", self.place.name, self.state));
        }
        let ask = Ask::Lookup(target);
        let step = self.begin(&ask);
        match step {
            Step::Lookup(Ok(found)) => Lookup::Found(found),
            Step::Lookup(Err(reason)) => Lookup::Failed(reason),
            step => {
                out.probe(Probe::LookupDisk);
                self.park(token, ask, step, out);
                Lookup::Pending
            }
        }
    }

    pub(super) fn begin_lookup(&mut self, target: LookupTarget) -> Step {
        // Segments below the log's start wait for retention.
        self.lookup_from(target, self.segment_slot(self.log_start))
    }

    /// Goes on with the segments from `slot` on.
    fn lookup_from(&mut self, target: LookupTarget, slot: usize) -> Step {
        let mut best: Option<(usize, TimestampOffset)> = None;
        for slot in slot..self.segments.len() {
            let Some(largest) = self.segments[slot].largest.filter(|_| !self.indexes_loading(slot)) else {
                return Step::Index(slot);
            };
            if let Some(position) = self.segments[slot].damaged_at {
                let why = format!("behind position {position}");
                return Step::Lookup(Err(self.unreadable(self.segments[slot].base, &why)));
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
        let Some((slot, largest)) = best else { return Step::Lookup(Ok(None)) };
        let (segment, log_start) = (self.segments[slot].base, self.log_start);
        let Some(indexes) = self.use_indexes(slot) else { return Step::Index(slot) };
        let near = match target {
            LookupTarget::FirstAt(timestamp) => {
                // An entry with exactly this timestamp names a batch that has it: the scan begins before it.
                indexes.times.floor(timestamp.saturating_sub(1)).map_or(segment, |entry| entry.offset)
            }
            LookupTarget::MaxTimestamp => largest.offset,
        };
        let position = indexes.offsets.floor(near.max(log_start)).position;
        self.headers_region(target, slot, position)
    }

    fn headers_region(&mut self, target: LookupTarget, slot: usize, position: u32) -> Step {
        if position < self.segments[slot].written_len {
            return Step::Region(At::Headers { segment: self.segments[slot].base, position });
        }
        match target {
            // What had the timestamp lies below the log's start: a later segment may have another.
            LookupTarget::FirstAt(_) if slot + 1 < self.segments.len() => self.lookup_from(target, slot + 1),
            _ => Step::Lookup(Ok(None)),
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

    pub(super) fn headers_read(&mut self, target: LookupTarget, segment: Offset, position: u32, bytes: &[u8]) -> Step {
        let Some(slot) = self.slot_of(segment) else { return self.begin_lookup(target) };
        if self.index_lies(slot, position, bytes) {
            return Step::Rebuild(slot);
        }
        let log_start = self.log_start;
        let walked = walk(bytes, position, |header| {
            header.last_offset() >= log_start && self.reaches(target, slot, header.max_timestamp)
        });
        match walked {
            Walked::Found { position, header } => {
                let size = header.size_bytes() as u64;
                if u64::from(position) + size > u64::from(self.segments[slot].written_len) {
                    return Step::Lookup(Err(self.unreadable(segment, &format!("at position {position}"))));
                }
                Step::Region(At::Batch { segment, position, size: size as u32 })
            }
            Walked::Further(next) if next > position => self.headers_region(target, slot, next),
            Walked::Further(_) => Step::Lookup(Err(self.unreadable(segment, "to its end"))),
            Walked::Damaged(why) => Step::Lookup(Err(self.unreadable(segment, &why))),
        }
    }

    pub(super) fn batch_read(
        &mut self,
        target: LookupTarget,
        segment: Offset,
        position: u32,
        size: u32,
        bytes: Bytes,
    ) -> Step {
        let Some(slot) = self.slot_of(segment) else { return self.begin_lookup(target) };
        let checked = verify_checksum(&bytes).and_then(|()| records(&bytes, &BatchLimits::default()));
        let records = match checked {
            Ok(records) => records,
            Err(error) => {
                return Step::Lookup(Err(self.unreadable(segment, &format!("at position {position}: {error}"))));
            }
        };
        let header = *records.header();
        for record in records {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    return Step::Lookup(Err(self.unreadable(segment, &format!("at position {position}: {error}"))));
                }
            };
            let wanted = match target {
                LookupTarget::FirstAt(timestamp) if self.plants.has(Plant::TimestampLookupSkipsEqual) => {
                    record.timestamp > timestamp
                }
                LookupTarget::FirstAt(timestamp) => record.timestamp >= timestamp,
                LookupTarget::MaxTimestamp => record.timestamp == header.max_timestamp,
            };
            if wanted && record.offset >= self.log_start {
                return Step::Lookup(Ok(Some(TimestampedOffset {
                    timestamp: record.timestamp,
                    offset: record.offset,
                    leader_epoch: header.leader_epoch,
                })));
            }
        }
        // Those that had the timestamp lie below the log's start, or were compacted away.
        self.headers_region(target, slot, position + size)
    }
}
