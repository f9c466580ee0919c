//! One segment of a log: a `.log` file and its two indexes.
//!
//! The log file stays open as long as the segment is part of the log, because responses name slices of it.
//! The indexes of the active segment are kept in memory, and are written when the segment rolls or the log closes. The
//! indexes of older segments are read when they are needed, and dropped from memory again.

use super::offset_index::OffsetIndex;
use super::time_index::{TimeIndex, TimestampOffset};
use tidelog_batch::BatchHeader;
use tidelog_wire::ids::{FileId, Offset};
use tidelog_wire::time::WallMs;

#[derive(Debug)]
pub(super) struct Segment {
    pub base: Offset,
    pub file: FileId,
    /// The length of the log file when all issued writes have completed.
    pub len: u32,
    /// The length of the log file after the last write that has completed. Reads end there.
    pub written_len: u32,
    /// The greatest timestamp of the first batch. The age of the segment counts from it.
    pub first_timestamp: Option<i64>,
    /// When this process created the segment or loaded its log.
    pub created: WallMs,
    /// When the log file was last changed. From then on counts the age of a segment whose records have no timestamps.
    pub modified: WallMs,
    /// The greatest timestamp of the segment, and the last offset of the first batch that has it. The timestamp is -1
    /// if no record has one. `None` if it is unknown until the time index is read.
    pub largest: Option<TimestampOffset>,
    /// `None` if the indexes are not in memory.
    pub indexes: Option<Box<Indexes>>,
    /// The position at which rebuilding the indexes found damage. The batches behind it are unknown.
    pub damaged_at: Option<u32>,
    /// How many bytes of batches follow the last index entry.
    bytes_since_entry: u32,
}

#[derive(Debug)]
pub(super) struct Indexes {
    pub offsets: OffsetIndex,
    pub times: TimeIndex,
    /// Grows with each use. The least recently used indexes are dropped from memory first.
    pub used: u64,
    /// Whether the indexes were built from the batches themselves. If they were read from a file, then an entry is
    /// checked against the batch that it names when it is used.
    pub proven: bool,
}

impl Indexes {
    pub fn new(base: Offset, bytes_max: u32) -> Box<Self> {
        let (offsets, times) = (OffsetIndex::new(base, bytes_max), TimeIndex::new(base, bytes_max));
        Box::new(Self { offsets, times, used: 0, proven: true })
    }

    /// Whether an entry names an offset at or above `end`.
    pub fn names_offset_from(&self, end: Offset) -> bool {
        self.offsets.last().is_some_and(|last| last.offset >= end)
            || self.times.last().is_some_and(|last| last.offset >= end)
    }
}

impl Segment {
    /// A new, empty segment.
    pub fn new(base: Offset, file: FileId, created: WallMs, index_bytes_max: u32) -> Self {
        Self {
            base,
            file,
            len: 0,
            written_len: 0,
            first_timestamp: None,
            created,
            modified: created,
            largest: Some(Self::no_timestamp(base)),
            indexes: Some(Indexes::new(base, index_bytes_max)),
            damaged_at: None,
            bytes_since_entry: 0,
        }
    }

    /// A segment that was found on the disk, where its log file was last changed at `modified`.
    pub fn found(base: Offset, file: FileId, len: u32, now: WallMs, modified: WallMs) -> Self {
        Self {
            base,
            file,
            len,
            written_len: len,
            first_timestamp: None,
            created: now,
            modified,
            largest: None,
            indexes: None,
            damaged_at: None,
            bytes_since_entry: 0,
        }
    }

    fn no_timestamp(base: Offset) -> TimestampOffset {
        TimestampOffset { timestamp: -1, offset: base }
    }

    /// Forgets what is known about the batches, because they are about to be scanned from the first.
    pub fn reset(&mut self, index_bytes_max: u32) {
        self.indexes = Some(Indexes::new(self.base, index_bytes_max));
        self.largest = Some(Self::no_timestamp(self.base));
        self.first_timestamp = None;
        self.damaged_at = None;
        self.bytes_since_entry = 0;
    }

    /// Takes over indexes that were read from the disk.
    pub fn adopt(&mut self, indexes: Box<Indexes>) {
        let largest = indexes.times.last().unwrap_or_else(|| Self::no_timestamp(self.base));
        if self.largest.is_none_or(|known| known.timestamp < largest.timestamp) {
            self.largest = Some(largest);
        }
        self.indexes = Some(indexes);
    }

    /// Adds a batch to the indexes. It gets an entry if more than `interval` bytes of batches follow the last entry.
    pub fn index_batch(&mut self, header: &BatchHeader, position: u32, size: u32, interval: u32) {
        self.first_timestamp.get_or_insert(header.max_timestamp);
        let mut largest = self.largest.unwrap_or_else(|| Self::no_timestamp(self.base));
        if header.max_timestamp > largest.timestamp {
            largest = TimestampOffset { timestamp: header.max_timestamp, offset: header.last_offset() };
        }
        self.largest = Some(largest);
        let indexes = self.indexes.as_mut().expect("the indexes of a growing segment are in memory");
        if self.bytes_since_entry > interval {
            indexes.offsets.maybe_append(header.last_offset(), position);
            indexes.times.maybe_append(largest.timestamp, largest.offset);
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry = self.bytes_since_entry.saturating_add(size);
    }

    /// Adds the last entry to the time index, when the segment rolls or the log closes.
    pub fn seal(&mut self) {
        let largest = self.largest.expect("the greatest timestamp is known while the indexes are in memory");
        let indexes = self.indexes.as_mut().expect("the indexes of the segment are in memory");
        indexes.times.append_last(largest.timestamp, largest.offset);
    }

    /// Whether the distance of an offset from the base offset fits into the int32 of the index formats.
    pub fn holds(&self, offset: Offset) -> bool {
        offset >= self.base && offset.0 - self.base.0 <= i64::from(i32::MAX)
    }

    pub fn indexes_full(&self) -> bool {
        self.indexes.as_ref().is_some_and(|indexes| indexes.offsets.is_full() || indexes.times.is_full())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_batch::BatchBuilder;

    const BASE: Offset = Offset(1_000);

    fn segment() -> Segment {
        Segment::new(BASE, FileId(1), WallMs(5), 1 << 10)
    }

    fn header(base: i64, timestamp: i64) -> BatchHeader {
        let mut builder = BatchBuilder::new().at(Offset(base), tidelog_wire::ids::LeaderEpoch(0));
        builder.push(timestamp, None, None, &[]);
        BatchHeader::parse(&builder.build()).unwrap()
    }

    #[test]
    fn a_batch_gets_an_index_entry_if_more_than_the_interval_follows_the_last_entry() {
        let mut segment = segment();
        for (batch, size) in [100, 100, 1, 100, 101, 50].into_iter().enumerate() {
            segment.index_batch(&header(1_000 + batch as i64, 10 + batch as i64), batch as u32 * 1_000, size, 200);
        }
        // 200 bytes lie before the third batch, 201 before the fourth; then 201 before the sixth.
        let indexes = segment.indexes.as_ref().unwrap();
        let entries: Vec<_> = indexes.offsets.iter().map(|entry| (entry.offset.0, entry.position)).collect();
        assert_eq!(entries, [(1_003, 3_000), (1_005, 5_000)]);
        let times: Vec<_> = indexes.times.iter().map(|entry| (entry.offset.0, entry.timestamp)).collect();
        assert_eq!(times, [(1_003, 13), (1_005, 15)]);
        assert_eq!(segment.first_timestamp, Some(10));
    }

    #[test]
    fn the_greatest_timestamp_is_that_of_the_first_batch_that_has_it() {
        let mut segment = segment();
        for (batch, timestamp) in [7, 9, 9, 8].into_iter().enumerate() {
            segment.index_batch(&header(1_000 + batch as i64, timestamp), 0, 10, 200);
        }
        let largest = TimestampOffset { timestamp: 9, offset: Offset(1_001) };
        assert_eq!(segment.largest, Some(largest));
        segment.seal();
        assert_eq!(segment.indexes.unwrap().times.last(), Some(largest));
    }

    #[test]
    fn an_index_that_is_read_does_not_lower_the_greatest_timestamp_known() {
        let largest = |timestamp| TimestampOffset { timestamp, offset: Offset(1_000 + timestamp) };
        for (known, read, expected) in [(None, 5, 5), (Some(4), 5, 5), (Some(6), 5, 6)] {
            let mut segment = Segment::found(BASE, FileId(1), 10, WallMs(5), WallMs(5));
            segment.largest = known.map(largest);
            let mut indexes = Indexes::new(BASE, 1 << 10);
            assert!(indexes.times.append_last(read, largest(read).offset));
            segment.adopt(indexes);
            assert_eq!(segment.largest, Some(largest(expected)));
        }
        let mut segment = Segment::found(BASE, FileId(1), 10, WallMs(5), WallMs(5));
        segment.adopt(Indexes::new(BASE, 1 << 10));
        assert_eq!(segment.largest, Some(TimestampOffset { timestamp: -1, offset: BASE }));
    }

    #[test]
    fn a_segment_holds_offsets_up_to_an_int32_above_its_base() {
        let segment = segment();
        let last = BASE + i64::from(i32::MAX);
        assert!(segment.holds(BASE) && segment.holds(last));
        assert!(!segment.holds(Offset(999)) && !segment.holds(last + 1));
    }

    #[test]
    fn indexes_name_an_offset_from_the_end_on_if_either_of_them_does() {
        for end in [1_001, 1_002, 1_003] {
            let mut indexes = Indexes::new(BASE, 1 << 10);
            assert!(!indexes.names_offset_from(Offset(end)));
            assert!(indexes.offsets.maybe_append(Offset(1_002), 10));
            assert_eq!(indexes.names_offset_from(Offset(end)), end < 1_003);
            let mut indexes = Indexes::new(BASE, 1 << 10);
            assert!(indexes.times.maybe_append(7, Offset(1_002)));
            assert_eq!(indexes.names_offset_from(Offset(end)), end < 1_003);
        }
    }

    #[test]
    fn a_segment_is_to_roll_when_one_of_its_indexes_is_full() {
        // Room for four entries in the offset index, and for three in the time index, of which it keeps one for the
        // seal.
        let mut segment = Segment::new(BASE, FileId(1), WallMs(5), 36);
        let indexes = segment.indexes.as_mut().unwrap();
        assert!(indexes.offsets.maybe_append(Offset(1_001), 1) && indexes.offsets.maybe_append(Offset(1_002), 2));
        assert!(indexes.times.maybe_append(1, Offset(1_001)));
        assert!(!segment.indexes_full());
        let indexes = segment.indexes.as_mut().unwrap();
        assert!(indexes.times.maybe_append(2, Offset(1_002)));
        assert!(segment.indexes_full());
        let mut segment = Segment::new(BASE, FileId(1), WallMs(5), 36);
        let indexes = segment.indexes.as_mut().unwrap();
        for offset in 1..=4 {
            assert!(!indexes.offsets.is_full() && indexes.offsets.maybe_append(BASE + offset, offset as u32));
        }
        assert!(segment.indexes_full());
        segment.indexes = None;
        assert!(!segment.indexes_full());
    }
}
