//! The time index of a segment: the content of its `.timeindex` file, in memory.
//!
//! An entry holds the greatest timestamp of the segment up to some batch, and the last offset of the batch that first
//! has that timestamp. An entry is added together with each entry of the offset index, and when the segment rolls or
//! the log closes, but only if the timestamp is greater than that of the last entry. So the first record at or after a
//! timestamp is found by walking the log from the entry with the greatest timestamp below it.
//!
//! Invariant: timestamps strictly increase, offsets never decrease, no timestamp is negative.

use super::offset_index::{IndexBounds, check_relative, relative};
use bytes::{BufMut, Bytes, BytesMut};
use tidelog_batch::NO_TIMESTAMP;
use tidelog_wire::ids::Offset;

/// A timestamp in milliseconds, and the last offset of the first batch that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    pub timestamp: i64,
    pub offset: Offset,
}

/// The entries of one segment.
#[derive(Clone, Debug)]
pub struct TimeIndex {
    base: Offset,
    // Two vectors: one vector of (i64, u32) would waste four bytes of padding for each entry.
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

    /// Reads an index file. Zeros at its end are ignored: they are the unused part of a preallocated file.
    /// An error says what is wrong with the file. The index is then rebuilt from the log.
    pub fn decode(base: Offset, bytes_max: u32, bytes: &[u8], bounds: IndexBounds) -> Result<Self, String> {
        let (rows, rest) = bytes.as_chunks::<{ Self::ENTRY_BYTES }>();
        if !rest.is_empty() {
            return Err(format!("{} bytes are not a multiple of {}", bytes.len(), Self::ENTRY_BYTES));
        }
        let count = rows.iter().rposition(|row| row != &[0; Self::ENTRY_BYTES]).map_or(0, |last| last + 1);
        let mut index = Self::new(base, bytes_max);
        index.timestamps.reserve_exact(count);
        index.relative_offsets.reserve_exact(count);
        for (place, row) in rows[..count].iter().enumerate() {
            let (timestamp, offset) = row.split_first_chunk::<8>().expect("a row has 12 bytes");
            let timestamp = i64::from_be_bytes(*timestamp);
            let relative_offset = u32::from_be_bytes(offset.try_into().expect("a row has 12 bytes"));
            let last_timestamp = index.timestamps.last().copied().unwrap_or(NO_TIMESTAMP);
            let last_offset = index.relative_offsets.last().copied().unwrap_or(0);
            if timestamp <= last_timestamp || relative_offset < last_offset {
                return Err(format!(
                    "entry {place} ({timestamp}, {relative_offset}) does not follow the one before it"
                ));
            }
            check_relative(base, relative_offset, bounds.next_base).map_err(|why| format!("entry {place} {why}"))?;
            index.timestamps.push(timestamp);
            index.relative_offsets.push(relative_offset);
        }
        if count > 0 && bounds.log_bytes == 0 {
            return Err(format!("{count} entries for an empty segment"));
        }
        Ok(index)
    }

    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Whether the index is full, so that the segment must roll. Room for one entry is kept for
    /// [`append_last`](Self::append_last).
    pub fn is_full(&self) -> bool {
        self.len() + 1 >= self.entries_max
    }

    pub fn last(&self) -> Option<TimestampOffset> {
        self.len().checked_sub(1).map(|place| self.at(place))
    }

    pub fn iter(&self) -> impl Iterator<Item = TimestampOffset> {
        (0..self.len()).map(|place| self.at(place))
    }

    /// Adds an entry for the greatest timestamp so far. Returns false and changes nothing if the timestamp is not
    /// greater than that of the last entry, the offset is lower, the offset does not fit the format, or the index is
    /// full.
    pub fn maybe_append(&mut self, timestamp: i64, offset: Offset) -> bool {
        !self.is_full() && self.append(timestamp, offset)
    }

    /// Adds the last entry, when the segment rolls or the log closes. Like [`maybe_append`](Self::maybe_append), but it
    /// may use the room that [`is_full`](Self::is_full) keeps.
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

    /// The entry with the greatest timestamp at or below `timestamp`, if there is one.
    pub fn floor(&self, timestamp: i64) -> Option<TimestampOffset> {
        let after = self.timestamps.partition_point(|entry| *entry <= timestamp);
        after.checked_sub(1).map(|place| self.at(place))
    }

    /// Removes all entries at or above `offset`.
    pub fn truncate_to(&mut self, offset: Offset) {
        let keep = self.relative_offsets.partition_point(|entry| self.base + i64::from(*entry) < offset);
        self.timestamps.truncate(keep);
        self.relative_offsets.truncate(keep);
    }

    /// The content of the index file.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.len() * Self::ENTRY_BYTES);
        for (timestamp, offset) in self.timestamps.iter().zip(&self.relative_offsets) {
            bytes.put_i64(*timestamp);
            bytes.put_u32(*offset);
        }
        bytes.freeze()
    }

    /// Frees the memory reserved for further entries, because the segment has rolled.
    pub fn seal(&mut self) {
        self.timestamps.shrink_to_fit();
        self.relative_offsets.shrink_to_fit();
    }

    fn at(&self, place: usize) -> TimestampOffset {
        TimestampOffset {
            timestamp: self.timestamps[place],
            offset: self.base + i64::from(self.relative_offsets[place]),
        }
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
        assert!(!index.maybe_append(60, Offset(1000)), "an offset below the last");
        assert!(index.maybe_append(60, Offset(1004)));
        assert!(index.iter().eq([entry(50, 1001), entry(60, 1004)]));
    }

    #[test]
    fn room_for_one_entry_is_kept_for_the_roll() {
        let mut index = TimeIndex::new(BASE, 24);
        assert!(index.maybe_append(1, Offset(1001)));
        assert!(index.is_full() && !index.maybe_append(2, Offset(1002)));
        assert!(index.append_last(2, Offset(1002)));
        assert!(!index.append_last(3, Offset(1003)));
    }

    #[test]
    fn an_impossible_file_is_refused_with_the_reason() {
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
        assert_eq!(refused(&bytes, IndexBounds { log_bytes: 0, ..BOUNDS }), "2 entries for an empty segment");
        assert!(refused(&[0xff; 12], BOUNDS).contains("does not follow"), "a negative timestamp");
    }

    #[test]
    fn zeros_at_the_end_of_a_preallocated_file_are_ignored() {
        let mut index = TimeIndex::new(BASE, 1 << 10);
        assert!(index.maybe_append(50, Offset(1001)));
        let mut bytes = index.encode().to_vec();
        bytes.resize(1200, 0);
        let read = TimeIndex::decode(BASE, 1 << 10, &bytes, BOUNDS).unwrap();
        assert_eq!((read.last(), read.len()), (Some(entry(50, 1001)), 1));
    }

    #[test]
    fn an_entry_is_eight_bytes_of_timestamp_and_four_bytes_of_distance_from_the_base() {
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
