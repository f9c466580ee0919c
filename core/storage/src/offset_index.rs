//! The offset index of a segment: the content of its `.index` file, in memory.
//!
//! About every `index.interval.bytes` there is an entry. It holds the **last offset** of a batch and the position in
//! the log file where that batch **begins**. A look-up gives a position at or before the wanted offset, from which the
//! log is walked. A missing entry makes a look-up slower. A wrong entry would make it miss records. Therefore
//! [`OffsetIndex::decode`] checks everything that can be checked, and a file that it refuses is rebuilt from the log.
//!
//! Invariant: offsets and positions both strictly increase, and all of them lie in the segment.

use bytes::{BufMut, Bytes, BytesMut};
use tidelog_wire::ids::Offset;

/// A batch's last offset, and the position in the log file where the batch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetPosition {
    pub offset: Offset,
    pub position: u32,
}

/// The bounds of the segment to which an index belongs. Its entries are checked against them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexBounds {
    /// The length of the log file.
    pub log_bytes: u64,
    /// The base offset of the next segment, if there is one. All offsets of this segment are lower.
    pub next_base: Option<Offset>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    relative_offset: u32,
    position: u32,
}

/// The entries of one segment.
#[derive(Clone, Debug)]
pub struct OffsetIndex {
    base: Offset,
    entries: Vec<Entry>,
    entries_max: usize,
}

impl OffsetIndex {
    pub const ENTRY_BYTES: usize = 8;

    /// An empty index of at most `bytes_max` bytes (`segment.index.bytes`).
    pub fn new(base: Offset, bytes_max: u32) -> Self {
        Self { base, entries: Vec::new(), entries_max: bytes_max as usize / Self::ENTRY_BYTES }
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
        index.entries.reserve_exact(count);
        for (place, row) in rows[..count].iter().enumerate() {
            let relative_offset = u32::from_be_bytes([row[0], row[1], row[2], row[3]]);
            let position = u32::from_be_bytes([row[4], row[5], row[6], row[7]]);
            if let Some(last) = index.entries.last()
                && (relative_offset <= last.relative_offset || position <= last.position)
            {
                return Err(format!("entry {place} ({relative_offset}, {position}) does not follow the one before it"));
            }
            if u64::from(position) >= bounds.log_bytes {
                return Err(format!("entry {place} points to {position} in a log of {} bytes", bounds.log_bytes));
            }
            check_relative(base, relative_offset, bounds.next_base).map_err(|why| format!("entry {place} {why}"))?;
            index.entries.push(Entry { relative_offset, position });
        }
        Ok(index)
    }

    /// Whether the index has as many entries as `segment.index.bytes` allows, so that the segment must roll.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= self.entries_max
    }

    pub fn last(&self) -> Option<OffsetPosition> {
        self.entries.last().map(|entry| self.absolute(*entry))
    }

    pub fn iter(&self) -> impl Iterator<Item = OffsetPosition> {
        self.entries.iter().map(|entry| self.absolute(*entry))
    }

    /// Adds an entry for the batch that ends with `last_offset` and begins at `position`. Returns false and changes
    /// nothing if the index is full, the offset or position does not fit the format, or one of them is not greater than
    /// before.
    pub fn maybe_append(&mut self, last_offset: Offset, position: u32) -> bool {
        let Some(relative_offset) = relative(self.base, last_offset) else { return false };
        let increases =
            self.entries.last().is_none_or(|last| last.relative_offset < relative_offset && last.position < position);
        if self.is_full() || !increases || position > i32::MAX as u32 {
            return false;
        }
        self.entries.push(Entry { relative_offset, position });
        true
    }

    /// The entry with the greatest offset at or below `target`. If there is none, the start of the segment.
    pub fn floor(&self, target: Offset) -> OffsetPosition {
        let after = self.entries.partition_point(|entry| self.absolute(*entry).offset <= target);
        match after.checked_sub(1) {
            Some(place) => self.absolute(self.entries[place]),
            None => OffsetPosition { offset: self.base, position: 0 },
        }
    }

    /// The greatest position of an entry at or below `position`. A batch begins there.
    pub fn floor_position(&self, position: u64) -> Option<u32> {
        let after = self.entries.partition_point(|entry| u64::from(entry.position) <= position);
        after.checked_sub(1).map(|place| self.entries[place].position)
    }

    /// The entry with exactly this position, if there is one.
    pub fn entry_at(&self, position: u32) -> Option<OffsetPosition> {
        let place = self.entries.binary_search_by_key(&position, |entry| entry.position).ok()?;
        Some(self.absolute(self.entries[place]))
    }

    /// Removes all entries at or above `offset`.
    pub fn truncate_to(&mut self, offset: Offset) {
        let keep = self.entries.partition_point(|entry| self.absolute(*entry).offset < offset);
        self.entries.truncate(keep);
    }

    /// The content of the index file: all entries, and no zeros behind them.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.entries.len() * Self::ENTRY_BYTES);
        for entry in &self.entries {
            bytes.put_u32(entry.relative_offset);
            bytes.put_u32(entry.position);
        }
        bytes.freeze()
    }

    /// Frees the memory reserved for further entries, because the segment has rolled.
    pub fn seal(&mut self) {
        self.entries.shrink_to_fit();
    }

    fn absolute(&self, entry: Entry) -> OffsetPosition {
        OffsetPosition { offset: self.base + i64::from(entry.relative_offset), position: entry.position }
    }
}

/// The distance of an offset from the base offset. `None` if it does not fit into the int32 of the format.
pub(super) fn relative(base: Offset, offset: Offset) -> Option<u32> {
    let distance = offset.0.checked_sub(base.0)?;
    if (0..=i64::from(i32::MAX)).contains(&distance) { Some(distance as u32) } else { None }
}

/// Checks that a distance read from a file gives an offset of this segment.
pub(super) fn check_relative(base: Offset, relative: u32, next_base: Option<Offset>) -> Result<(), String> {
    let offset = base.0.checked_add(i64::from(relative));
    let (Some(offset), true) = (offset, relative <= i32::MAX as u32) else {
        return Err(format!("is {relative} past the base offset {base}, more than an int32 holds"));
    };
    match next_base {
        Some(next_base) if offset >= next_base.0 => {
            Err(format!("names the offset {offset}, but the next segment begins at {next_base}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: IndexBounds = IndexBounds { log_bytes: i32::MAX as u64, next_base: None };
    const BASE: Offset = Offset(1000);

    fn index_of(entries: &[(i64, u32)]) -> OffsetIndex {
        let mut index = OffsetIndex::new(BASE, 1 << 20);
        for (relative, position) in entries {
            assert!(index.maybe_append(BASE + *relative, *position));
        }
        index
    }

    #[test]
    fn a_look_up_below_the_first_entry_begins_at_the_segments_start() {
        let index = index_of(&[(10, 100), (20, 200)]);
        assert_eq!(index.floor(Offset(1009)), OffsetPosition { offset: BASE, position: 0 });
        assert_eq!(index.floor(Offset(1010)), OffsetPosition { offset: Offset(1010), position: 100 });
        assert_eq!(index.floor(Offset(i64::MAX)).position, 200);
        assert_eq!(index.floor(Offset(i64::MIN)).position, 0);
    }

    #[test]
    fn an_entry_is_found_by_its_exact_position_and_the_last_one_before_a_position_too() {
        let index = index_of(&[(10, 100), (20, 200)]);
        let entries = [100, 199, 200].map(|position| index.entry_at(position).map(|entry| entry.offset));
        assert_eq!(entries, [Some(Offset(1010)), None, Some(Offset(1020))]);
        assert_eq!([99, 100, 199, 1 << 40].map(|at| index.floor_position(at)), [None, Some(100), Some(100), Some(200)]);
        assert_eq!(index.last(), Some(OffsetPosition { offset: Offset(1020), position: 200 }));
        assert_eq!(OffsetIndex::new(BASE, 8).last(), None);
    }

    #[test]
    fn after_a_truncation_lower_entries_can_be_added_again() {
        let mut index = index_of(&[(10, 100), (20, 200)]);
        index.truncate_to(Offset(1020));
        assert!(index.maybe_append(Offset(1015), 150));
        assert_eq!(&index.encode()[..], [0, 0, 0, 10, 0, 0, 0, 100, 0, 0, 0, 15, 0, 0, 0, 150]);
    }

    #[test]
    fn an_entry_that_does_not_fit_or_does_not_increase_is_not_added() {
        let mut index = OffsetIndex::new(BASE, 17);
        assert!(!index.maybe_append(Offset(999), 1), "below the base");
        assert!(!index.maybe_append(Offset(1001 + i64::from(i32::MAX)), 1), "past an int32");
        assert!(!index.maybe_append(Offset(i64::MIN), 1));
        assert!(index.maybe_append(Offset(1001), 1));
        assert!(!index.maybe_append(Offset(1001), 2), "not greater");
        assert!(!index.maybe_append(Offset(1002), 1), "the position is not greater");
        assert!(!index.maybe_append(Offset(1002), 1 << 31), "past an int32");
        assert!(!index.is_full());
        assert!(index.maybe_append(Offset(1002), i32::MAX as u32));
        assert!(index.is_full() && !index.maybe_append(Offset(1003), 3));
    }

    #[test]
    fn zeros_at_the_end_of_a_preallocated_file_are_ignored() {
        let mut bytes = index_of(&[(10, 100), (20, 200)]).encode().to_vec();
        bytes.resize(800, 0);
        let index = OffsetIndex::decode(BASE, 1 << 20, &bytes, BOUNDS).unwrap();
        assert_eq!(index.encode(), bytes[..16]);
        assert_eq!(OffsetIndex::decode(BASE, 1 << 20, &[0; 80], BOUNDS).unwrap().last(), None);
    }

    #[test]
    fn an_impossible_file_is_refused_with_the_reason() {
        let bytes = index_of(&[(10, 100), (20, 200)]).encode();
        let refused = |bytes: &[u8], bounds| OffsetIndex::decode(BASE, 1 << 20, bytes, bounds).unwrap_err();
        assert_eq!(refused(&bytes[..15], BOUNDS), "15 bytes are not a multiple of 8");
        assert_eq!(
            refused(&bytes, IndexBounds { log_bytes: 200, ..BOUNDS }),
            "entry 1 points to 200 in a log of 200 bytes"
        );
        assert_eq!(
            refused(&bytes, IndexBounds { next_base: Some(Offset(1020)), ..BOUNDS }),
            "entry 1 names the offset 1020, but the next segment begins at 1020"
        );
        let swapped = [&bytes[8..], &bytes[..8]].concat();
        assert_eq!(refused(&swapped, BOUNDS), "entry 1 (10, 100) does not follow the one before it");
        for entry in [(20, 200), (20, 201), (21, 200)] {
            let second = [i32::to_be_bytes(entry.0), i32::to_be_bytes(entry.1)].concat();
            let does_not_grow = [&bytes[8..], &second].concat();
            let expected = format!("entry 1 {entry:?} does not follow the one before it");
            assert_eq!(refused(&does_not_grow, BOUNDS), expected);
        }
        let hole = [&[0; 8], &bytes[..]].concat();
        assert!(OffsetIndex::decode(BASE, 1 << 20, &hole, BOUNDS).is_ok(), "an entry (base, 0) is possible");
        assert!(refused(&[0xff; 8], IndexBounds { log_bytes: u64::MAX, next_base: None }).contains("int32"));
    }

    proptest! {
        #[test]
        fn floor_agrees_with_a_linear_scan(
            steps in proptest::collection::vec((1i64..5, 1u32..50), 0..60),
            targets in proptest::collection::vec(0i64..400, 1..20),
            cut in proptest::option::of(0i64..400),
        ) {
            let (mut model, mut index) = (Vec::new(), OffsetIndex::new(BASE, 1 << 20));
            let (mut offset, mut position) = (BASE, 0);
            for (records, bytes) in steps {
                offset = offset + records;
                position += bytes;
                prop_assert!(index.maybe_append(offset, position));
                model.push(OffsetPosition { offset, position });
            }
            if let Some(cut) = cut {
                index.truncate_to(BASE + cut);
                model.retain(|entry| entry.offset < BASE + cut);
            }
            for target in targets.into_iter().map(|t| BASE + t) {
                let expected = model.iter().rfind(|entry| entry.offset <= target).copied();
                let start = OffsetPosition { offset: BASE, position: 0 };
                prop_assert_eq!(index.floor(target), expected.unwrap_or(start));
            }
            let again = OffsetIndex::decode(BASE, 1 << 20, &index.encode(), BOUNDS).unwrap();
            prop_assert!(again.iter().eq(model));
        }

        #[test]
        fn garbage_is_refused_or_obeys_the_invariant(bytes: Vec<u8>, base in 0i64.., log_bytes: u64) {
            if let Ok(index) = OffsetIndex::decode(Offset(base), 64, &bytes, IndexBounds { log_bytes, next_base: None }) {
                let entries: Vec<_> = index.iter().collect();
                prop_assert!(entries.is_sorted_by(|a, b| a.offset < b.offset && a.position < b.position));
                prop_assert!(entries.iter().all(|entry| u64::from(entry.position) < log_bytes));
            }
        }
    }
}
