//! Timestamp → offset in a segment: the `.timeindex` file, held in memory.
//!
//! An entry says: up to and including the batch that ends with `offset`, no record is younger than `timestamp`,
//! and one is exactly that old. It is added with each offset index entry and once more when the segment closes, only
//! if the timestamp is greater than the last entry's. Hence a look-up for a timestamp scans on from the entry with
//! the greatest timestamp at or below it.
//!
//! Invariant: timestamps strictly increase, offsets never decrease, no timestamp is negative.

use super::offset_index::{IndexBounds, check_relative, relative};
use crate::batch::NO_TIMESTAMP;
use crate::ids::Offset;
use bytes::{BufMut, Bytes, BytesMut};

/// The greatest timestamp (milliseconds) so far, and the last offset of the batch that first reached it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    pub timestamp: i64,
    pub offset: Offset,
}

/// The entries of one segment.
#[derive(Clone, Debug)]
pub struct TimeIndex {
    base: Offset,
    // Two columns: a row of (i64, u32) would waste four bytes in memory.
    timestamps: Vec<i64>,
    relative_offsets: Vec<u32>,
    entries_max: usize,
}

impl TimeIndex {
    pub const ENTRY_BYTES: usize = 12;

    /// An empty index of at most `bytes_max` bytes (`segment.index.bytes`).
    pub fn new(base: Offset, bytes_max: u32) -> Self {
        Self {
            base,
            timestamps: Vec::new(),
            relative_offsets: Vec::new(),
            entries_max: bytes_max as usize / Self::ENTRY_BYTES,
        }
    }

    /// Reads an index file. Zeros at its end are the part of a preallocated file that was never written.
    /// An error says why the file cannot be believed; the index is then rebuilt from the log.
    pub fn decode(base: Offset, bytes_max: u32, bytes: &[u8], bounds: IndexBounds) -> Result<Self, String> {
        let (rows, rest) = bytes.as_chunks::<{ Self::ENTRY_BYTES }>();
        if !rest.is_empty() {
            return Err(format!("{} bytes are not a multiple of {}", bytes.len(), Self::ENTRY_BYTES));
        }
        let count = rows.iter().rposition(|row| row != &[0; Self::ENTRY_BYTES]).map_or(0, |last| last + 1);
        let mut index = Self::new(base, bytes_max);
        index.timestamps.reserve_exact(count);
        index.relative_offsets.reserve_exact(count);
        for (slot, row) in rows[..count].iter().enumerate() {
            let (timestamp, offset) = row.split_first_chunk::<8>().expect("a row has 12 bytes");
            let timestamp = i64::from_be_bytes(*timestamp);
            let relative_offset = u32::from_be_bytes(offset.try_into().expect("a row has 12 bytes"));
            let last_timestamp = index.timestamps.last().copied().unwrap_or(NO_TIMESTAMP);
            let last_offset = index.relative_offsets.last().copied().unwrap_or(0);
            if timestamp <= last_timestamp || relative_offset < last_offset {
                return Err(format!("entry {slot} ({timestamp}, {relative_offset}) does not follow the one before it"));
            }
            check_relative(base, relative_offset, bounds.next_base).map_err(|why| format!("entry {slot} {why}"))?;
            index.timestamps.push(timestamp);
            index.relative_offsets.push(relative_offset);
        }
        if count > 0 && bounds.log_bytes == 0 {
            return Err(format!("{count} entries for an empty log"));
        }
        Ok(index)
    }

    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Whether the segment must roll. One place is kept for the entry that [`append_last`](Self::append_last) adds
    /// when it does.
    pub fn is_full(&self) -> bool {
        self.len() + 1 >= self.entries_max
    }

    pub fn last(&self) -> Option<TimestampOffset> {
        self.len().checked_sub(1).map(|slot| self.at(slot))
    }

    pub fn iter(&self) -> impl Iterator<Item = TimestampOffset> {
        (0..self.len()).map(|slot| self.at(slot))
    }

    /// Adds the greatest timestamp so far. False, and nothing changed, where it is not greater than the last
    /// entry's, the index is full, or the offset is behind the last or too far from the base for the format.
    pub fn maybe_append(&mut self, timestamp: i64, offset: Offset) -> bool {
        !self.is_full() && self.append(timestamp, offset)
    }

    /// The same for the last entry, when the segment rolls or closes: it may take the place that
    /// [`is_full`](Self::is_full) keeps.
    pub fn append_last(&mut self, timestamp: i64, offset: Offset) -> bool {
        self.len() < self.entries_max && self.append(timestamp, offset)
    }

    fn append(&mut self, timestamp: i64, offset: Offset) -> bool {
        let Some(relative_offset) = relative(self.base, offset) else { return false };
        let last_timestamp = self.timestamps.last().copied().unwrap_or(NO_TIMESTAMP);
        let last_offset = self.relative_offsets.last().copied().unwrap_or(0);
        if timestamp <= last_timestamp || relative_offset < last_offset {
            return false;
        }
        self.timestamps.push(timestamp);
        self.relative_offsets.push(relative_offset);
        true
    }

    /// The entry with the greatest timestamp at or below `timestamp`. `None` where there is none: the scan begins
    /// at the segment's start.
    pub fn floor(&self, timestamp: i64) -> Option<TimestampOffset> {
        let after = self.timestamps.partition_point(|entry| *entry <= timestamp);
        after.checked_sub(1).map(|slot| self.at(slot))
    }

    /// Drops all entries at or above `offset`.
    pub fn truncate_to(&mut self, offset: Offset) {
        let keep = self.relative_offsets.partition_point(|entry| self.base + i64::from(*entry) < offset);
        self.timestamps.truncate(keep);
        self.relative_offsets.truncate(keep);
    }

    /// The whole file.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.len() * Self::ENTRY_BYTES);
        for (timestamp, offset) in self.timestamps.iter().zip(&self.relative_offsets) {
            bytes.put_i64(*timestamp);
            bytes.put_u32(*offset);
        }
        bytes.freeze()
    }

    /// Gives back the memory reserved for entries to come: the segment has rolled.
    pub fn seal(&mut self) {
        self.timestamps.shrink_to_fit();
        self.relative_offsets.shrink_to_fit();
    }

    fn at(&self, slot: usize) -> TimestampOffset {
        TimestampOffset { timestamp: self.timestamps[slot], offset: self.base + i64::from(self.relative_offsets[slot]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: IndexBounds = IndexBounds { log_bytes: i32::MAX as u64, next_base: None };
    const BASE: Offset = Offset(1000);

    fn entry(timestamp: i64, offset: i64) -> TimestampOffset {
        TimestampOffset { timestamp, offset: Offset(offset) }
    }

    #[test]
    fn only_a_greater_timestamp_is_added() {
        let mut index = TimeIndex::new(BASE, 1 << 10);
        assert!(!index.maybe_append(-1, Offset(1001)), "no timestamp");
        assert!(index.maybe_append(50, Offset(1001)));
        assert!(!index.maybe_append(50, Offset(1002)), "the same timestamp");
        assert!(!index.maybe_append(40, Offset(1003)), "an older one");
        assert!(!index.maybe_append(60, Offset(1000)), "an offset behind the last");
        assert!(index.maybe_append(60, Offset(1004)));
        assert!(index.iter().eq([entry(50, 1001), entry(60, 1004)]));
    }

    #[test]
    fn the_last_place_is_kept_for_the_entry_of_the_roll() {
        let mut index = TimeIndex::new(BASE, 24);
        assert!(index.maybe_append(1, Offset(1001)));
        assert!(index.is_full() && !index.maybe_append(2, Offset(1002)));
        assert!(index.append_last(2, Offset(1002)));
        assert!(!index.append_last(3, Offset(1003)));
    }

    #[test]
    fn a_file_that_cannot_be_right_is_refused_with_the_reason() {
        let mut index = TimeIndex::new(BASE, 1 << 10);
        assert!(index.maybe_append(50, Offset(1001)) && index.maybe_append(60, Offset(1004)));
        let bytes = index.encode();
        let refused = |bytes: &[u8], bounds| TimeIndex::decode(BASE, 1 << 10, bytes, bounds).unwrap_err();
        assert_eq!(refused(&bytes[1..], BOUNDS), "23 bytes are not a multiple of 12");
        let swapped = [&bytes[12..], &bytes[..12]].concat();
        assert_eq!(refused(&swapped, BOUNDS), "entry 1 (50, 1) does not follow the one before it");
        assert_eq!(
            refused(&bytes, IndexBounds { next_base: Some(Offset(1003)), ..BOUNDS }),
            "entry 1 names the offset 1004, but the next segment begins at 1003"
        );
        assert_eq!(refused(&bytes, IndexBounds { log_bytes: 0, ..BOUNDS }), "2 entries for an empty log");
        assert!(refused(&[0xff; 12], BOUNDS).contains("does not follow"), "a negative timestamp");
    }

    #[test]
    fn the_zero_tail_of_a_preallocated_file_is_no_data() {
        let mut index = TimeIndex::new(BASE, 1 << 10);
        assert!(index.maybe_append(50, Offset(1001)));
        let mut bytes = index.encode().to_vec();
        bytes.resize(1200, 0);
        let read = TimeIndex::decode(BASE, 1 << 10, &bytes, BOUNDS).unwrap();
        assert_eq!((read.last(), read.len()), (Some(entry(50, 1001)), 1));
    }

    #[test]
    fn an_entry_takes_eight_bytes_of_time_and_four_of_distance() {
        let mut index = TimeIndex::new(BASE, 1 << 10);
        assert_eq!((index.is_empty(), index.last(), index.encode()), (true, None, Bytes::new()));
        assert!(index.maybe_append(50, Offset(1001)) && index.maybe_append(60, Offset(1004)));
        assert_eq!((index.is_empty(), index.len()), (false, 2));
        index.truncate_to(Offset(1004));
        assert!(index.maybe_append(80, Offset(1005)));
        assert_eq!(&index.encode()[..], [0, 0, 0, 0, 0, 0, 0, 50, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 80, 0, 0, 0, 5]);
    }

    #[test]
    fn the_last_entry_of_an_inactive_segment_is_below_the_next_segment() {
        let mut index = TimeIndex::new(BASE, 1 << 10);
        assert!(index.maybe_append(50, Offset(1004)));
        let decode = |next| {
            TimeIndex::decode(BASE, 24, &index.encode(), IndexBounds { next_base: Some(Offset(next)), ..BOUNDS })
        };
        assert!(decode(1004).is_err() && decode(1005).is_ok());
    }

    proptest! {
        #[test]
        fn floor_agrees_with_a_linear_scan(
            offered in proptest::collection::vec((-1i64..100, 0i64..4), 0..60),
            targets in proptest::collection::vec(-2i64..102, 1..20),
            cut in proptest::option::of(0i64..120),
        ) {
            let (mut model, mut index) = (Vec::new(), TimeIndex::new(BASE, 1 << 20));
            let mut offset = 1000;
            for (timestamp, step) in offered {
                offset += step;
                let greater = timestamp > model.last().map_or(-1, |last: &TimestampOffset| last.timestamp);
                prop_assert_eq!(index.maybe_append(timestamp, Offset(offset)), greater);
                if greater {
                    model.push(entry(timestamp, offset));
                }
            }
            if let Some(cut) = cut {
                index.truncate_to(BASE + cut);
                model.retain(|entry| entry.offset < BASE + cut);
            }
            for target in targets {
                let expected = model.iter().rfind(|entry| entry.timestamp <= target).copied();
                prop_assert_eq!(index.floor(target), expected);
            }
            if model != [entry(0, 1000)] {
                let again = TimeIndex::decode(BASE, 1 << 20, &index.encode(), BOUNDS).unwrap();
                prop_assert!(again.iter().eq(model));
            }
        }

        #[test]
        fn garbage_is_refused_or_obeys_the_invariant(bytes: Vec<u8>, base in 0i64..) {
            if let Ok(index) = TimeIndex::decode(Offset(base), 64, &bytes, BOUNDS) {
                let entries: Vec<_> = index.iter().collect();
                prop_assert!(entries.is_sorted_by(|a, b| a.timestamp < b.timestamp && a.offset <= b.offset));
                prop_assert!(entries.iter().all(|entry| entry.timestamp >= 0));
            }
        }
    }
}
