//! The content of a file: what a reader sees, and what a power cut would leave.

use crate::random::Stream;
use bytes::Bytes;
use std::ops::AddAssign;
use tidelog_core::time::WallMs;

/// The size of a sector in bytes. A disk writes a sector as a whole or not at all.
pub(super) const SECTOR: u64 = 512;

/// How many changes that no sync had made stable were lost, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Changes of which nothing is left.
    pub lost: u64,
    /// Writes of which a part is left.
    pub torn: u64,
    /// Changes that are there though an earlier one is lost.
    pub overtaken: u64,
    /// Writes of which nothing is left but the length that they gave their file.
    pub hollow: u64,
    /// Changes of names in directories that were lost.
    pub names: u64,
}

impl AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.torn += other.torn;
        self.overtaken += other.overtaken;
        self.hollow += other.hollow;
        self.names += other.names;
    }
}

/// Bytes, and zeros from their end up to `len`. So a preallocated file takes no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Image {
    bytes: Vec<u8>,
    len: u64,
}

impl Image {
    fn write(&mut self, position: u64, bytes: &[u8]) {
        let start = position as usize;
        let end = start + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
        self.len = self.len.max(end as u64);
    }

    fn set_len(&mut self, len: u64) {
        self.bytes.truncate(len.min(usize::MAX as u64) as usize);
        self.len = len;
    }

    fn read(&self, position: u64, len: u64) -> Bytes {
        let end = self.len.min(position.saturating_add(len));
        if position >= end {
            return Bytes::new();
        }
        let mut out = vec![0; (end - position) as usize];
        let written_end = end.min(self.bytes.len() as u64);
        if position < written_end {
            let written = &self.bytes[position as usize..written_end as usize];
            out[..written.len()].copy_from_slice(written);
        }
        Bytes::from(out)
    }
}

/// A change of a file that no sync has made stable.
#[derive(Clone, Debug)]
enum Change {
    Write { position: u64, bytes: Bytes },
    SetLen(u64),
}

impl Change {
    fn apply(&self, image: &mut Image) {
        match self {
            Change::Write { position, bytes } => image.write(*position, bytes),
            Change::SetLen(len) => image.set_len(*len),
        }
    }

    /// Leaves only a part of a write: the bytes before some point, those after it, or some of its sectors.
    fn apply_torn(&self, image: &mut Image, stream: &mut Stream) {
        let Change::Write { position, bytes } = self else {
            return self.apply(image);
        };
        let cut = stream.between(0, bytes.len() as u64) as usize;
        match stream.below(4) {
            0 | 1 => image.write(*position, &bytes[..cut]),
            2 => image.write(position + cut as u64, &bytes[cut..]),
            _ => {
                let mut start = 0;
                while start < bytes.len() {
                    let in_sector = SECTOR - (position + start as u64) % SECTOR;
                    let end = bytes.len().min(start + in_sector as usize);
                    if stream.one_in(2) {
                        image.write(position + start as u64, &bytes[start..end]);
                    }
                    start = end;
                }
            }
        }
    }
}

/// A file as the page cache has it, as the platter has it, and the changes that only the page cache has.
#[derive(Clone, Debug, Default)]
pub(super) struct FileContent {
    /// What a read gives: the page cache.
    visible: Image,
    /// What the platter holds. A power cut leaves it, with some of the unsynced changes applied.
    stable: Image,
    /// Changes since the last sync, in order. Applied to `stable` they give `visible`, unless a sync has failed.
    unsynced: Vec<Change>,
    /// A sync has failed: some of `visible` is in memory alone, and is lost when the process ends.
    distrusted: bool,
    /// When the content or the length was last changed, by the node's wall clock. No crash changes it.
    pub(super) modified: WallMs,
}

impl FileContent {
    /// A file with this content, all of it stable.
    pub(super) fn stable(content: &[u8]) -> Self {
        let image = Image { bytes: content.to_vec(), len: content.len() as u64 };
        Self { visible: image.clone(), stable: image, ..Self::default() }
    }

    pub(super) fn len(&self) -> u64 {
        self.visible.len
    }

    pub(super) fn read(&self, position: u64, len: u64) -> Bytes {
        self.visible.read(position, len)
    }

    pub(super) fn write(&mut self, mut position: u64, chunks: &[Bytes]) {
        for bytes in chunks {
            self.visible.write(position, bytes);
            self.unsynced.push(Change::Write { position, bytes: bytes.clone() });
            position += bytes.len() as u64;
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.visible.set_len(len);
        self.unsynced.push(Change::SetLen(len));
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.stable);
        }
    }

    /// A sync fails. As on Linux the pages count as clean from now on: some of the unsynced changes have become stable,
    /// and the others never will, though later syncs succeed.
    pub(super) fn fail_sync(&mut self, stream: &mut Stream) -> Losses {
        self.distrusted = true;
        self.land(stream)
    }

    /// Changes a byte, both as it is read and as it is on the platter.
    pub(super) fn poke(&mut self, position: u64, byte: u8) {
        for image in [&mut self.visible, &mut self.stable] {
            if position < image.len {
                image.write(position, &[byte]);
            }
        }
    }

    /// The machine loses its power: what was not synced is kept, lost, torn or reordered.
    pub(super) fn lose_power(&mut self, stream: &mut Stream) -> Losses {
        let losses = self.land(stream);
        self.visible = self.stable.clone();
        self.distrusted = false;
        losses
    }

    /// The process ends and the machine goes on. The page cache stays, except for pages that a failed sync left
    /// unwritten: they count as clean, so the kernel may drop them at any time. Gives true if there were such pages.
    pub(super) fn lose_process(&mut self, stream: &mut Stream) -> bool {
        let lost = self.distrusted;
        if lost {
            self.lose_power(stream);
        }
        lost
    }

    /// Makes some of the unsynced changes stable, and drops the others.
    fn land(&mut self, stream: &mut Stream) -> Losses {
        let changes = std::mem::take(&mut self.unsynced);
        let mut losses = Losses::default();
        if changes.is_empty() {
            return losses;
        }
        match stream.below(8) {
            0 => changes.iter().for_each(|change| change.apply(&mut self.stable)),
            1 | 2 => losses.lost += changes.len() as u64,
            // Everything up to some byte is there, in the order in which it was written.
            3 | 4 => {
                let whole = stream.below(changes.len() as u64) as usize;
                changes[..whole].iter().for_each(|change| change.apply(&mut self.stable));
                changes[whole].apply_torn(&mut self.stable, stream);
                losses.torn += 1;
                losses.lost += (changes.len() - whole - 1) as u64;
            }
            // Each change is there whole, in part, or not at all: the disk writes in any order.
            5 | 6 => {
                for change in &changes {
                    match stream.below(4) {
                        0 | 1 => {
                            losses.overtaken += u64::from(losses.lost > 0);
                            change.apply(&mut self.stable);
                        }
                        2 => {
                            losses.torn += 1;
                            change.apply_torn(&mut self.stable, stream);
                        }
                        _ => losses.lost += 1,
                    }
                }
            }
            // The length is there and the data is not: the end of the file reads as zeros.
            _ => {
                let whole = stream.below(changes.len() as u64) as usize;
                changes[..whole].iter().for_each(|change| change.apply(&mut self.stable));
                for change in &changes[whole..] {
                    match change {
                        Change::SetLen(len) => self.stable.set_len(*len),
                        Change::Write { position, bytes } => {
                            let end = position + bytes.len() as u64;
                            self.stable.len = self.stable.len.max(end);
                            losses.hollow += 1;
                        }
                    }
                }
            }
        }
        losses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    fn chunk(text: &'static str) -> [Bytes; 1] {
        [Bytes::from_static(text.as_bytes())]
    }

    #[test]
    fn what_was_synced_survives_every_crash_and_what_was_not_may_not() {
        let (mut kept, mut lost, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let mut file = FileContent::default();
            file.write(0, &chunk("stable"));
            file.sync();
            file.write(6, &chunk("volatile"));
            assert_eq!(file.read(0, 100), "stablevolatile");
            file.lose_power(&mut stream(seed, "crash", &[]));
            let left = file.read(0, 100);
            assert!(left.starts_with(b"stable"), "{left:?}");
            match &left[6..] {
                b"volatile" => kept += 1,
                b"" => lost += 1,
                _ => torn += 1,
            }
        }
        assert!(kept > 10 && lost > 10 && torn > 10, "kept {kept}, lost {lost}, torn {torn}");
    }

    #[test]
    fn later_writes_may_survive_earlier_ones() {
        let reordered = (0..300).any(|seed| {
            let mut file = FileContent::default();
            file.write(0, &chunk("first"));
            file.write(5, &chunk("second"));
            file.lose_power(&mut stream(seed, "crash", &[]));
            file.read(0, 100) == "\0\0\0\0\0second"
        });
        assert!(reordered);
    }

    #[test]
    fn an_unsynced_truncation_may_be_undone() {
        let undone = (0..100).filter(|seed| {
            let mut file = FileContent::stable(b"content");
            file.set_len(3);
            file.lose_power(&mut stream(*seed, "crash", &[]));
            file.len() == 7
        });
        let undone = undone.count();
        assert!((10..90).contains(&undone), "{undone}");
    }

    #[test]
    fn after_a_failed_sync_a_later_sync_saves_nothing_of_what_was_before() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut file = FileContent::default();
            file.write(0, &chunk("data"));
            file.fail_sync(&mut stream(seed, "sync", &[]));
            assert_eq!(file.read(0, 4), "data", "the page cache still shows it");
            file.sync();
            file.lose_process(&mut stream(seed, "crash", &[]));
            lost += u32::from(file.read(0, 4) != "data");
        }
        assert!(lost > 50, "{lost}");
    }

    #[test]
    fn a_process_that_dies_alone_loses_nothing_of_the_page_cache() {
        let mut file = FileContent::default();
        file.write(0, &chunk("data"));
        file.lose_process(&mut stream(1, "crash", &[]));
        assert_eq!(file.read(0, 4), "data");
    }

    #[test]
    fn a_preallocated_file_reads_as_zeros_and_costs_nothing() {
        let mut file = FileContent::default();
        file.set_len(1 << 30);
        file.write(0, &chunk("ab"));
        assert_eq!(file.read(0, 4), "ab\0\0");
        assert_eq!(file.read((1 << 30) - 2, 10), "\0\0");
        assert_eq!(file.read(1 << 30, 10), "");
        assert!(file.visible.bytes.len() < 100);
    }
}
