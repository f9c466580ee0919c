//! Damage of bytes on a disk: sectors that cannot be read, bits that flip, writes that went elsewhere or nowhere, names
//! and whole volumes that are gone. Scripts damage by hand; in a run by seed, [`Disk::damage`] chooses.
//!
//! With one replica the broker cannot repair data from elsewhere. So a run by seed damages only this:
//!
//! - **Data** (log segments, snapshots of the metadata) is damaged only where the broker can know that it was stable,
//!   which is below the recovery point in the directory's checkpoint. (Above it, damage looks like the torn end of a
//!   log after a crash and is cut off, as in Kafka.) The broker must refuse to serve damaged bytes, or serve them
//!   with their wrong checksum, which the client notices. The broker must not change the damaged file: later an operator
//!   restores its bytes from a backup ([`Disk::repair`]), and then every record must be there again.
//! - **Hints** (indexes, producer snapshots, checkpoints, epochs, the clean-shutdown marker) are damaged freely and
//!   never restored: the broker rebuilds them. There are four exceptions. `quorum-state` is left alone where there are
//!   other nodes: a node that forgets its vote could vote twice in an epoch. The checkpoint of recovery points and the
//!   clean-shutdown marker are left alone while data of their directory is damaged. Text files are lost or zeroed, and no
//!   bits of them flip: Kafka's format has no checksum there, so a flipped bit could give another valid value. In a time index only offsets are
//!   damaged, since retention deletes by its times, as in Kafka.
//! - The offset and the leader epoch of a batch are left alone: they stand before the part that Kafka's checksum
//!   covers, so nothing could notice a flipped bit there.

use super::content::SECTOR;
use super::tree::Inode;
use super::{Disk, show};
use crate::random::Stream;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidelog_core::ids::LogDirId;
use tidelog_core::io::DiskPath;

/// What a seed may do to bytes at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Damage {
    /// Bits of data flip.
    Flip,
    /// A sector of data holds bytes that belong elsewhere.
    Misdirected,
    /// A sector of data was never written, though the disk reported success: it reads as zeros.
    Unwritten,
    /// A sector of data cannot be read.
    Latent,
    /// A file that can be rebuilt is gone, zeroed, or has flipped bits.
    Hint,
    /// A bit of data flips in every snapshot of the metadata: there is no older one to begin with.
    Snapshots,
}

/// What was damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    pub dir: u16,
    /// The path below the log directory.
    pub path: String,
}

/// A byte that was damaged, with its value before and after.
#[derive(Clone, Copy, Debug)]
struct DamagedByte {
    dir: u16,
    inode: Inode,
    position: u64,
    was: u8,
    is: u8,
}

/// All damage that can be undone.
#[derive(Debug, Default)]
pub(super) struct Wounds {
    bytes: Vec<DamagedByte>,
    /// Bytes that cannot be read: the file, the position of the first byte, and the position after the last.
    bad: Vec<(Inode, u64, u64)>,
    /// The roots of volumes that are not mounted, by log directory.
    unmounted: BTreeMap<u16, Inode>,
}

impl Wounds {
    /// Whether any byte from `start` to before `end` cannot be read.
    pub(super) fn hurt(&self, inode: Inode, start: u64, end: u64) -> bool {
        self.bad.iter().any(|(of, from, to)| *of == inode && *from < end && start < *to)
    }

    /// The roots of the volumes that are not mounted.
    pub(super) fn roots(&self) -> impl Iterator<Item = Inode> + use<'_> {
        self.unmounted.values().copied()
    }

    /// The bytes from `start` to before `end` are written: the bad sectors among them can be read again.
    pub(super) fn overwritten(&mut self, inode: Inode, start: u64, end: u64) {
        self.bad.retain(|(of, from, to)| *of != inode || *to <= start || end <= *from);
    }
}

/// Damage that the caller chooses, for scripts and for the choice by seed below.
impl Disk {
    fn inode_of(&self, dir: u16, path: &str) -> Inode {
        let found = self.tree.find_file(dir, path);
        found.unwrap_or_else(|why| panic!("{}: {why:?}", show(&DiskPath { dir: LogDirId(dir), path: path.into() })))
    }

    /// A file's bytes, as a read gives them.
    pub fn content(&self, dir: u16, path: &str) -> Bytes {
        let file = self.tree.file(self.inode_of(dir, path));
        file.read(0, file.len())
    }

    /// Like [`content`](Self::content); none if there is no such file.
    pub fn content_of(&self, dir: u16, path: &str) -> Option<Bytes> {
        let file = self.tree.file(self.tree.find_file(dir, path).ok()?);
        Some(file.read(0, file.len()))
    }

    /// The paths of all files of a log directory, relative to it and sorted.
    pub fn files(&self, dir: u16) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![String::new()];
        while let Some(path) = open.pop() {
            let Ok(inode) = self.tree.find(dir, &path) else { continue };
            for (name, inner) in self.tree.entries(inode).into_iter().flatten() {
                let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                if self.tree.is_directory(inner) { open.push(below) } else { found.push(below) }
            }
        }
        found.sort();
        found
    }

    /// Puts other bytes into a file, in the page cache and on the platter. They count as damage, and are restored by
    /// [`repair`](Self::repair).
    pub fn overwrite(&mut self, dir: u16, path: &str, position: u64, bytes: &[u8]) {
        let inode = self.inode_of(dir, path);
        for (place, is) in (position..).zip(bytes.iter().copied()) {
            let was = self.tree.file(inode).read(place, 1);
            let was = *was.first().unwrap_or_else(|| panic!("{path} has no byte {place}"));
            if was != is {
                self.tree.file_mut(inode).poke(place, is);
                self.wounds.bytes.push(DamagedByte { dir, inode, position: place, was, is });
            }
        }
    }

    /// Flips these bits of one byte, as [`overwrite`](Self::overwrite) does.
    pub fn flip(&mut self, dir: u16, path: &str, position: u64, bits: u8) {
        let byte = self.content(dir, path)[position as usize];
        self.overwrite(dir, path, position, &[byte ^ bits]);
    }

    /// Reads of these bytes fail from now on, until they are written again.
    pub fn go_bad(&mut self, dir: u16, path: &str, start: u64, end: u64) {
        let inode = self.inode_of(dir, path);
        self.wounds.bad.push((inode, start, end));
    }

    /// Removes a file, or a directory with all that it holds. No crash and no repair brings it back.
    pub fn lose(&mut self, dir: u16, path: &str) {
        let (parent, name) = self.tree.parent(dir, path).expect("the directory is there");
        self.tree.remove(parent, name);
        self.tree.sync_directory(parent);
    }

    /// Fills a file with zeros, in the page cache and on the platter. No repair restores its bytes.
    pub fn zero(&mut self, dir: u16, path: &str) {
        let inode = self.inode_of(dir, path);
        for place in 0..self.tree.file(inode).len() {
            self.tree.file_mut(inode).poke(place, 0);
        }
    }

    /// Puts an empty directory in the place of a log directory, as if its volume were not mounted.
    pub fn unmount(&mut self, dir: u16) {
        let root = self.tree.swap_root(dir, None);
        self.wounds.unmounted.insert(dir, root);
    }

    /// Empties every log directory of the node, for good.
    pub fn reformat(&mut self) {
        for dir in 0..self.options.directories {
            self.tree.swap_root(dir, None);
        }
        self.wounds = Wounds::default();
    }

    /// Restores what was damaged, as an operator does from a backup: the bytes that were not overwritten since, the bad
    /// sectors and the volumes.
    pub fn repair(&mut self) {
        let Wounds { bytes, unmounted, .. } = std::mem::take(&mut self.wounds);
        for (dir, root) in unmounted {
            self.tree.swap_root(dir, Some(root));
        }
        // The last damage is undone first: a byte may have been damaged twice.
        for wound in bytes.into_iter().rev() {
            if !self.tree.is_file(wound.inode) {
                continue;
            }
            let file = self.tree.file_mut(wound.inode);
            if file.read(wound.position, 1).first() == Some(&wound.is) {
                file.poke(wound.position, wound.was);
            }
        }
    }

    /// Whether data is damaged or a volume is missing.
    pub fn is_damaged(&self) -> bool {
        !(self.wounds.bytes.is_empty() && self.wounds.bad.is_empty() && self.wounds.unmounted.is_empty())
    }
}

/// Where a batch lies in a file, as the fields at the beginning of its header say.
struct BatchRange {
    position: u64,
    len: u64,
}

/// The checkpoint of recovery points.
const CHECKPOINT: &str = "recovery-point-offset-checkpoint";

/// Damage that a seed chooses.
impl Disk {
    /// Damages something that may be damaged (see the module's documentation). `None` if there is nothing to damage.
    /// `is_alone`: the node is the only one of its cluster.
    pub fn damage(&mut self, damage: Damage, is_alone: bool, stream: &mut Stream) -> Option<Damaged> {
        let dir = stream.below(self.options.directories.into()) as u16;
        if damage == Damage::Hint {
            return self.damage_hint(dir, is_alone, stream);
        }
        if damage == Damage::Snapshots {
            return self.damage_snapshots(stream);
        }
        let mut candidates = Vec::new();
        for path in self.files(dir) {
            let batches = match (path.ends_with(".log"), path.ends_with(".checkpoint")) {
                (true, _) => self.stable_batches(dir, &path),
                (_, true) if path.contains('/') => self.batches(dir, &path, i64::MAX),
                _ => continue,
            };
            candidates.extend(batches.into_iter().map(|batch| (path.clone(), batch)));
        }
        if candidates.is_empty() {
            return None;
        }
        let (path, batch) = stream.pick(&candidates);
        match damage {
            Damage::Latent => {
                let start = stream.between(batch.position, batch.position + batch.len - 1) / SECTOR * SECTOR;
                self.go_bad(dir, path, start, start + SECTOR);
            }
            Damage::Flip => {
                for _ in 0..stream.between(1, 4) {
                    // The place is in the batch's length, or after its leader epoch: in its magic byte, its checksum or
                    // what the checksum covers.
                    let place = match stream.below(8) {
                        0 => stream.between(8, 11),
                        _ => stream.between(16, batch.len - 1),
                    };
                    self.flip(dir, path, batch.position + place, 1 << stream.below(8));
                }
            }
            Damage::Misdirected => {
                let content = self.content(dir, path);
                let from = stream.below(content.len() as u64);
                let some: Vec<u8> = (0..SECTOR.min(batch.len - 16))
                    .map(|n| content[((from + n) % content.len() as u64) as usize])
                    .collect();
                self.overwrite(dir, path, batch.position + 16, &some);
            }
            Damage::Unwritten => {
                let nothing = vec![0; SECTOR.min(batch.len - 16) as usize];
                self.overwrite(dir, path, batch.position + 16, &nothing);
            }
            Damage::Hint | Damage::Snapshots => unreachable!("handled above"),
        }
        Some(Damaged { dir, path: path.clone() })
    }

    /// The metadata log, and its snapshots, lie in the first directory.
    fn damage_snapshots(&mut self, stream: &mut Stream) -> Option<Damaged> {
        let is_snapshot = |path: &String| path.contains('/') && path.ends_with(".checkpoint");
        let snapshots: Vec<String> = self.files(0).into_iter().filter(is_snapshot).collect();
        for path in &snapshots {
            let batches = self.batches(0, path, i64::MAX);
            let Some(batch) = batches.first() else { continue };
            let place = batch.position + stream.between(16, batch.len - 1);
            self.flip(0, path, place, 1 << stream.below(8));
        }
        snapshots.into_iter().next().map(|path| Damaged { dir: 0, path })
    }

    /// The batches of a segment that end below the recovery point in the directory's checkpoint.
    fn stable_batches(&self, dir: u16, path: &str) -> Vec<BatchRange> {
        let Some((directory, _)) = path.split_once('/') else { return Vec::new() };
        let Some((topic, index)) = directory.rsplit_once('-') else { return Vec::new() };
        let Ok(inode) = self.tree.find_file(dir, CHECKPOINT) else { return Vec::new() };
        let file = self.tree.file(inode);
        let bytes = file.read(0, file.len());
        let text = String::from_utf8_lossy(&bytes);
        let point = text.lines().find_map(|line| {
            let offset = line.strip_prefix(topic)?.strip_prefix(' ')?.strip_prefix(index)?.strip_prefix(' ')?;
            offset.parse().ok()
        });
        self.batches(dir, path, point.unwrap_or(0))
    }

    /// The batches of a file up to the first that reaches the offset `below`, or that is not whole.
    fn batches(&self, dir: u16, path: &str, below: i64) -> Vec<BatchRange> {
        let content = self.content(dir, path);
        let mut found = Vec::new();
        let mut position = 0;
        while let Some(header) = content.get(position..position + 61) {
            let base = i64::from_be_bytes(header[..8].try_into().expect("eight bytes"));
            let len = 12 + i64::from(i32::from_be_bytes(header[8..12].try_into().expect("four bytes")));
            let last = base + i64::from(i32::from_be_bytes(header[23..27].try_into().expect("four bytes")));
            if len < 61 || last >= below || position + len as usize > content.len() {
                break;
            }
            found.push(BatchRange { position: position as u64, len: len as u64 });
            position += len as usize;
        }
        found
    }

    /// Damages one hint. The damage is never repaired.
    fn damage_hint(&mut self, dir: u16, is_alone: bool, stream: &mut Stream) -> Option<Damaged> {
        let has_wounds = self.wounds.bytes.iter().any(|wound| wound.dir == dir) || !self.wounds.bad.is_empty();
        let is_binary = |path: &str| [".index", ".timeindex", ".snapshot"].iter().any(|end| path.ends_with(end));
        let hints: Vec<String> = self
            .files(dir)
            .into_iter()
            .filter(|path| match path.rsplit_once('/').map_or(&path[..], |(_, name)| name) {
                CHECKPOINT => !has_wounds,
                "replication-offset-checkpoint" | "leader-epoch-checkpoint" => true,
                "quorum-state" => is_alone,
                ".kafka_cleanshutdown" => !has_wounds,
                _ => is_binary(path),
            })
            .collect();
        if hints.is_empty() {
            return None;
        }
        let path = stream.pick(&hints);
        let len = self.content(dir, path).len() as u64;
        match stream.below(3) {
            0 if len > 0 && !path.ends_with("quorum-state") && !path.ends_with("shutdown") => self.zero(dir, path),
            1 if len > 0 && is_binary(path) => {
                let inode = self.inode_of(dir, path);
                let mut place = stream.below(len);
                if path.ends_with(".timeindex") {
                    place = place / 12 * 12 + 8 + place % 4;
                }
                let byte = self.content(dir, path)[place as usize];
                self.tree.file_mut(inode).poke(place, byte ^ 1 << stream.below(8));
            }
            _ => self.lose(dir, path),
        }
        Some(Damaged { dir, path: path.clone() })
    }
}
