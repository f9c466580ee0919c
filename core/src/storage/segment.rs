//! One segment: a `.log` file and its two indexes.
//!
//! The log file stays open as long as the segment is part of the log, so that a response may name a slice of it.
//! The indexes of the active segment grow in memory and are written when it rolls or closes; those of older segments
//! are read when they are needed, and forgotten again.

use super::offset_index::OffsetIndex;
use super::time_index::{TimeIndex, TimestampOffset};
use crate::batch::BatchHeader;
use crate::ids::{FileId, Offset};
use crate::time::WallMs;

#[derive(Debug)]
pub(super) struct Segment {
    pub base: Offset,
    pub file: FileId,
    /// The length of the file once all commands have been carried out.
    pub len: u32,
    /// The length that is known to have been written: reads end there.
    pub written_len: u32,
    /// The greatest timestamp of the first batch, from which the age of the segment counts.
    pub first_timestamp: Option<i64>,
    pub created: WallMs,
    /// The greatest timestamp, and the last offset of the batch that first had it. A timestamp of -1 where no record
    /// has one; `None` while it stands in the time index alone.
    pub largest: Option<TimestampOffset>,
    /// `None` while they are on disk alone.
    pub indexes: Option<Box<Indexes>>,
    /// Where a rebuilding of the indexes found what is no batch: of what follows nothing is known.
    pub damaged_at: Option<u32>,
    bytes_since_entry: u32,
}

#[derive(Debug)]
pub(super) struct Indexes {
    pub offsets: OffsetIndex,
    pub times: TimeIndex,
    /// Grows with each use: the least recently used are forgotten first.
    pub used: u64,
    /// Whether they were made from the batches in this life. Those read from a file are believed until one of their
    /// entries does not name a batch.
    pub proven: bool,
}

impl Indexes {
    pub fn new(base: Offset, bytes_max: u32) -> Box<Self> {
        let (offsets, times) = (OffsetIndex::new(base, bytes_max), TimeIndex::new(base, bytes_max));
        Box::new(Self { offsets, times, used: 0, proven: true })
    }

    /// Whether an entry names an offset at or beyond the end of the log.
    pub fn look_ahead_of(&self, end: Offset) -> bool {
        self.offsets.last().is_some_and(|last| last.offset >= end)
            || self.times.last().is_some_and(|last| last.offset >= end)
    }
}

impl Segment {
    /// An empty segment.
    pub fn new(base: Offset, file: FileId, created: WallMs, index_bytes_max: u32) -> Self {
        Self {
            base,
            file,
            len: 0,
            written_len: 0,
            first_timestamp: None,
            created,
            largest: Some(Self::no_timestamp(base)),
            indexes: Some(Indexes::new(base, index_bytes_max)),
            damaged_at: None,
            bytes_since_entry: 0,
        }
    }

    /// A segment that was found on disk.
    pub fn found(base: Offset, file: FileId, len: u32, now: WallMs) -> Self {
        Self {
            base,
            file,
            len,
            written_len: len,
            first_timestamp: None,
            created: now,
            largest: None,
            indexes: None,
            damaged_at: None,
            bytes_since_entry: 0,
        }
    }

    fn no_timestamp(base: Offset) -> TimestampOffset {
        TimestampOffset { timestamp: -1, offset: base }
    }

    /// Forgets what is known of the content: it is about to be scanned from the beginning.
    pub fn reset(&mut self, index_bytes_max: u32) {
        self.indexes = Some(Indexes::new(self.base, index_bytes_max));
        self.largest = Some(Self::no_timestamp(self.base));
        self.first_timestamp = None;
        self.damaged_at = None;
        self.bytes_since_entry = 0;
    }

    /// Takes over indexes that were read.
    pub fn adopt(&mut self, indexes: Box<Indexes>) {
        let largest = indexes.times.last().unwrap_or_else(|| Self::no_timestamp(self.base));
        if self.largest.is_none_or(|known| known.timestamp < largest.timestamp) {
            self.largest = Some(largest);
        }
        self.indexes = Some(indexes);
    }

    /// Enters a batch into the indexes: the first after more than `interval` bytes since the last entry gets one.
    pub fn note(&mut self, header: &BatchHeader, position: u32, size: u32, interval: u32) {
        self.first_timestamp.get_or_insert(header.max_timestamp);
        let mut largest = self.largest.unwrap_or_else(|| Self::no_timestamp(self.base));
        if header.max_timestamp > largest.timestamp {
            largest = TimestampOffset { timestamp: header.max_timestamp, offset: header.last_offset() };
        }
        self.largest = Some(largest);
        let indexes = self.indexes.as_mut().expect("the indexes of a segment that grows are in memory");
        if self.bytes_since_entry > interval {
            indexes.offsets.maybe_append(header.last_offset(), position);
            indexes.times.maybe_append(largest.timestamp, largest.offset);
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry = self.bytes_since_entry.saturating_add(size);
    }

    /// Enters the last timestamp, as it is done when a segment rolls or closes.
    pub fn seal(&mut self) {
        let largest = self.largest.expect("known while the indexes are in memory");
        let indexes = self.indexes.as_mut().expect("the indexes of a segment that ends are in memory");
        indexes.times.append_last(largest.timestamp, largest.offset);
    }

    /// Whether an offset can be told from the base with the 32 bits that the indexes have.
    pub fn holds(&self, offset: Offset) -> bool {
        offset >= self.base && offset.0 - self.base.0 <= i64::from(i32::MAX)
    }

    pub fn indexes_full(&self) -> bool {
        self.indexes.as_ref().is_some_and(|indexes| indexes.offsets.is_full() || indexes.times.is_full())
    }
}
