//! A disk in memory that carries out I/O commands and can crash. In a crash each change that is not stable is kept,
//! lost, or kept in part.

use crate::io::{DirEntry, DiskPath, IoCommand, IoCompletion, IoDone, IoError, IoErrorKind, IoOp};
use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use tidelog_wire::ids::FileId;
use tidelog_wire::time::WallMs;

/// The content of a file.
#[derive(Clone, Debug, Default)]
struct Inode {
    /// The content that reads return.
    seen: Vec<u8>,
    /// The content that survives a crash for sure.
    stable: Vec<u8>,
    /// The changes since the last sync.
    unstable: Vec<Change>,
    /// When the content was last changed. A crash does not change it.
    modified: WallMs,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

/// A change of the entries of a directory.
#[derive(Clone, Debug)]
enum Entry {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
    MakeDir(String),
    RemoveDir(String),
}

/// The paths of the files with the indexes of their inodes, and the paths of the directories.
type Names = (BTreeMap<String, usize>, BTreeSet<String>);

#[derive(Clone, Debug, Default)]
pub struct TestDisk {
    inodes: Vec<Inode>,
    seen: Names,
    stable: Names,
    /// The changes that are not stable, each with the directory whose sync makes it stable.
    unstable: Vec<(String, Entry)>,
    open: BTreeMap<FileId, usize>,
    /// Files that were closed. They can still be read through slices.
    closed: BTreeMap<FileId, usize>,
    /// Every sync of a file fails from now on.
    pub fail_syncs: bool,
    /// Every write fails from now on.
    pub fail_writes: bool,
    /// Renaming this file or directory fails.
    pub fail_rename: Option<String>,
    /// Loading this file fails.
    pub fail_load: Option<String>,
    /// Opening this file fails.
    pub fail_open: Option<String>,
    pub syncs: usize,
    /// What the wall clock shows.
    pub wall: WallMs,
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

fn apply_entry((files, dirs): &mut Names, entry: &Entry) {
    match entry {
        Entry::Link(path, inode) => {
            files.insert(path.clone(), *inode);
        }
        Entry::Unlink(path) => {
            files.remove(path);
        }
        Entry::MakeDir(path) => {
            dirs.insert(path.clone());
        }
        Entry::RemoveDir(path) => {
            files.retain(|name, _| !below(name, path));
            dirs.remove(path);
        }
        Entry::Rename(from, to) => {
            let moved: Vec<String> = files.keys().filter(|name| *name == from || below(name, from)).cloned().collect();
            for name in moved {
                let inode = files.remove(&name).unwrap();
                files.insert(format!("{to}{}", &name[from.len()..]), inode);
            }
            if dirs.remove(from) {
                dirs.insert(to.clone());
            }
        }
    }
}

fn apply_change(content: &mut Vec<u8>, change: &Change, bytes_max: usize) {
    match change {
        Change::Write(at, bytes) => {
            let bytes = &bytes[..bytes.len().min(bytes_max)];
            if content.len() < at + bytes.len() {
                content.resize(at + bytes.len(), 0);
            }
            content[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        Change::SetLen(len) => content.resize(*len, 0),
    }
}

impl TestDisk {
    pub fn execute(&mut self, command: IoCommand) -> IoCompletion {
        IoCompletion { id: command.id, result: self.run(command.op) }
    }

    fn change_names(&mut self, dir: &str, entry: Entry) {
        apply_entry(&mut self.seen, &entry);
        self.unstable.push((dir.to_string(), entry));
    }

    fn change(&mut self, file: FileId, change: Change) {
        let inode = &mut self.inodes[self.open[&file]];
        inode.modified = self.wall;
        apply_change(&mut inode.seen, &change, usize::MAX);
        inode.unstable.push(change);
    }

    fn run(&mut self, op: IoOp) -> Result<IoDone, IoError> {
        let missing = |path: &str| IoError { kind: IoErrorKind::NotFound, text: format!("{path}: no such file") };
        let failed = |text: &str| IoError { kind: IoErrorKind::Other, text: text.into() };
        match op {
            IoOp::List { path: DiskPath { path, .. } } => {
                if !path.is_empty() && !self.seen.1.contains(&path) {
                    return Err(missing(&path));
                }
                let name = |path: &str| path.rsplit('/').next().unwrap().to_string();
                let files = self.seen.0.iter().filter(|(file, _)| parent(file) == path);
                let files = files.map(|(file, inode)| DirEntry {
                    name: name(file),
                    is_dir: false,
                    len: self.inodes[*inode].seen.len() as u64,
                    modified: self.inodes[*inode].modified,
                });
                let dirs = self.seen.1.iter().filter(|dir| parent(dir) == path);
                let dirs = dirs.map(|dir| DirEntry { name: name(dir), is_dir: true, len: 0, modified: WallMs(0) });
                let mut entries: Vec<DirEntry> = files.chain(dirs).collect();
                entries.sort_by(|a, b| a.name.cmp(&b.name));
                Ok(IoDone::Entries(entries))
            }
            IoOp::CreateDir { path } => {
                self.change_names(parent(&path.path), Entry::MakeDir(path.path.clone()));
                Ok(IoDone::Unit)
            }
            IoOp::SyncDir { path } => {
                self.sync_dir(&path.path);
                Ok(IoDone::Unit)
            }
            IoOp::Rename { from, .. } if self.fail_rename.as_ref() == Some(&from.path) => {
                Err(failed("the name cannot be written"))
            }
            IoOp::Rename { from, to } => {
                if !self.seen.0.contains_key(&from.path) && !self.seen.1.contains(&from.path) {
                    return Err(missing(&from.path));
                }
                self.change_names(parent(&from.path), Entry::Rename(from.path.clone(), to.path));
                Ok(IoDone::Unit)
            }
            IoOp::Remove { path } => {
                self.change_names(parent(&path.path), Entry::Unlink(path.path.clone()));
                Ok(IoDone::Unit)
            }
            IoOp::RemoveDir { path } => {
                self.change_names(parent(&path.path), Entry::RemoveDir(path.path.clone()));
                Ok(IoDone::Unit)
            }
            IoOp::Load { path, .. } if self.fail_load.as_ref() == Some(&path.path) => {
                Err(failed("the device has failed"))
            }
            IoOp::Load { path, limit_bytes } => {
                let inode = *self.seen.0.get(&path.path).ok_or_else(|| missing(&path.path))?;
                let content = &self.inodes[inode].seen;
                if content.len() as u64 > limit_bytes {
                    return Err(IoError { kind: IoErrorKind::TooLarge, text: path.path });
                }
                Ok(IoDone::Bytes(Bytes::copy_from_slice(content)))
            }
            IoOp::Replace { path, content } => {
                let content = content.to_vec();
                self.inodes.push(Inode {
                    seen: content.clone(),
                    stable: content,
                    unstable: vec![],
                    modified: self.wall,
                });
                self.change_names(parent(&path.path), Entry::Link(path.path.clone(), self.inodes.len() - 1));
                self.sync_dir(parent(&path.path));
                Ok(IoDone::Unit)
            }
            IoOp::Open { path, .. } if self.fail_open.as_ref() == Some(&path.path) => {
                Err(failed("the device has failed"))
            }
            IoOp::Write { file, .. } | IoOp::SetLen { file, .. } | IoOp::Sync { file } | IoOp::Close { file }
                if self.fail_open.is_some() && !self.open.contains_key(&file) =>
            {
                Err(failed("the file is not open"))
            }
            IoOp::Open { file, path, create } => {
                if !self.seen.0.contains_key(&path.path) {
                    if !create {
                        return Err(missing(&path.path));
                    }
                    self.inodes.push(Inode { modified: self.wall, ..Inode::default() });
                    self.change_names(parent(&path.path), Entry::Link(path.path.clone(), self.inodes.len() - 1));
                }
                let inode = self.seen.0[&path.path];
                assert!(self.open.insert(file, inode).is_none(), "a file id is used once");
                Ok(IoDone::Len(self.inodes[inode].seen.len() as u64))
            }
            IoOp::Write { file, position, chunks } => {
                if self.fail_writes {
                    return Err(failed("the disk is full"));
                }
                assert!(position as usize <= self.inodes[self.open[&file]].seen.len(), "a write past the end");
                self.change(file, Change::Write(position as usize, chunks.concat()));
                Ok(IoDone::Unit)
            }
            IoOp::Read { file, position, len } => {
                let content = &self.inodes[self.open[&file]].seen;
                let from = (position as usize).min(content.len());
                let to = (from + len as usize).min(content.len());
                Ok(IoDone::Bytes(Bytes::copy_from_slice(&content[from..to])))
            }
            IoOp::SetLen { file, len } => {
                self.change(file, Change::SetLen(len as usize));
                Ok(IoDone::Unit)
            }
            IoOp::Sync { file } => {
                self.syncs += 1;
                if self.fail_syncs {
                    return Err(failed("the device has failed"));
                }
                let inode = &mut self.inodes[self.open[&file]];
                inode.stable = inode.seen.clone();
                inode.unstable.clear();
                Ok(IoDone::Unit)
            }
            IoOp::Close { file } => {
                let inode = self.open.remove(&file).expect("an open file is closed");
                self.closed.insert(file, inode);
                Ok(IoDone::Unit)
            }
            IoOp::Volume { .. } => Ok(IoDone::Volume { total_bytes: 0, usable_bytes: 0 }),
        }
    }

    fn sync_dir(&mut self, dir: &str) {
        for (of, entry) in std::mem::take(&mut self.unstable) {
            if of == dir {
                apply_entry(&mut self.stable, &entry);
            } else {
                self.unstable.push((of, entry));
            }
        }
    }

    /// The power fails: any part of the changes that are not stable may survive.
    pub fn crash(&mut self, random: &mut ChaCha8Rng) {
        for inode in &mut self.inodes {
            let mut content = inode.stable.clone();
            let changes = std::mem::take(&mut inode.unstable);
            let mode = random.random_range(0..4);
            let prefix = random.random_range(0..=changes.len());
            for (place, change) in changes.iter().enumerate() {
                let bytes_max = match (mode, change) {
                    (0, _) => continue,
                    (1, _) => usize::MAX,
                    (2, _) if place > prefix => break,
                    (2, Change::Write(_, bytes)) if place == prefix => random.random_range(0..=bytes.len()),
                    (3, Change::Write(_, bytes)) => match random.random_range(0..3) {
                        0 => continue,
                        1 => usize::MAX,
                        _ => random.random_range(0..=bytes.len()),
                    },
                    _ => usize::MAX,
                };
                apply_change(&mut content, change, bytes_max);
            }
            (inode.seen, inode.stable) = (content.clone(), content);
        }
        // The changes of a directory become stable in order.
        let mut dirs: BTreeMap<String, usize> = BTreeMap::new();
        for (dir, _) in &self.unstable {
            *dirs.entry(dir.clone()).or_default() += 1;
        }
        for count in dirs.values_mut() {
            *count = random.random_range(0..=*count);
        }
        for (dir, entry) in std::mem::take(&mut self.unstable) {
            let left = dirs.get_mut(&dir).unwrap();
            if *left > 0 {
                *left -= 1;
                apply_entry(&mut self.stable, &entry);
            }
        }
        self.seen = self.stable.clone();
        self.process_ends();
    }

    /// The process ends: its files are closed, and everything that it has written is kept.
    pub fn process_ends(&mut self) {
        self.open.clear();
        self.closed.clear();
    }

    /// The bytes of a slice of a file.
    pub fn slice(&self, file: FileId, position: u64, len: u32) -> &[u8] {
        let inode = self.open.get(&file).or_else(|| self.closed.get(&file)).expect("a slice of a known file");
        &self.inodes[*inode].seen[position as usize..position as usize + len as usize]
    }

    pub fn names(&self) -> Vec<&str> {
        self.seen.0.keys().map(String::as_str).collect()
    }

    pub fn content(&self, path: &str) -> Option<&[u8]> {
        self.seen.0.get(path).map(|inode| self.inodes[*inode].seen.as_slice())
    }

    /// Changes the content of a file, also the stable one.
    pub fn damage(&mut self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let inode = self.seen.0[path];
        let mut content = self.inodes[inode].seen.clone();
        change(&mut content);
        (self.inodes[inode].stable, self.inodes[inode].seen) = (content.clone(), content);
    }

    pub fn remove(&mut self, path: &str) {
        self.seen.0.remove(path);
        self.stable.0.remove(path);
    }
}
