//! What the targets share: a disk in memory ([`Disk`]) and the form of their inputs.

use bytes::Bytes;
use std::collections::BTreeMap;
use tidelog_core::ids::FileId;
use tidelog_core::io::{
    DirEntry, DiskPath, IoCommand, IoCompletion, IoDone, IoError, IoErrorKind, IoOp, Outbox, Output,
};
use tidelog_core::time::WallMs;

/// A disk that carries out every command at once. Directories are implied by the names of the files.
#[derive(Debug, Default)]
pub struct Disk {
    pub files: BTreeMap<String, Vec<u8>>,
    open: BTreeMap<FileId, String>,
}

impl Disk {
    /// Carries out the commands of `out`, in order, and drops its other outputs.
    pub fn carry_out(&mut self, out: &mut Outbox) -> Vec<IoCompletion> {
        let outputs = std::mem::take(&mut out.outputs);
        let commands = outputs.into_iter().filter_map(|output| match output {
            Output::Io(command) => Some(command),
            _ => None,
        });
        commands.map(|IoCommand { id, op }| IoCompletion { id, result: self.run(op) }).collect()
    }

    fn run(&mut self, op: IoOp) -> Result<IoDone, IoError> {
        match op {
            IoOp::List { path } => return Ok(IoDone::Entries(self.entries(&path.path))),
            IoOp::CreateDir { .. } | IoOp::SyncDir { .. } | IoOp::Sync { .. } => {}
            IoOp::Rename { from, to } => self.rename(&from, &to),
            IoOp::Remove { path } => drop(self.files.remove(&path.path)),
            IoOp::RemoveDir { path } => {
                let below = format!("{}/", path.path);
                self.files.retain(|name, _| !name.starts_with(&below));
            }
            IoOp::Load { path, limit_bytes } => {
                let Some(content) = self.files.get(&path.path) else { return Err(not_found(&path.path)) };
                if content.len() as u64 > limit_bytes {
                    return Err(IoError { kind: IoErrorKind::TooLarge, text: path.path });
                }
                return Ok(IoDone::Bytes(Bytes::copy_from_slice(content)));
            }
            IoOp::Replace { path, content } => drop(self.files.insert(path.path, content.to_vec())),
            IoOp::Open { file, path, create } => {
                if create {
                    self.files.entry(path.path.clone()).or_default();
                }
                let Some(content) = self.files.get(&path.path) else { return Err(not_found(&path.path)) };
                let len = content.len() as u64;
                self.open.insert(file, path.path);
                return Ok(IoDone::Len(len));
            }
            IoOp::Write { file, position, chunks } => {
                let content = self.content(file)?;
                let mut at = usize::try_from(position).expect("a position in memory");
                assert!(at <= content.len(), "a write past the end");
                for chunk in chunks {
                    content.resize(content.len().max(at + chunk.len()), 0);
                    content[at..at + chunk.len()].copy_from_slice(&chunk);
                    at += chunk.len();
                }
            }
            IoOp::Read { file, position, len } => {
                let content = self.content(file)?;
                let at = usize::try_from(position).map_or(content.len(), |at| at.min(content.len()));
                let end = content.len().min(at + len as usize);
                return Ok(IoDone::Bytes(Bytes::copy_from_slice(&content[at..end])));
            }
            IoOp::SetLen { file, len } => {
                let len = usize::try_from(len).expect("a length in memory");
                self.content(file)?.resize(len, 0);
            }
            IoOp::Close { file } => drop(self.open.remove(&file)),
            IoOp::Volume { .. } => return Ok(IoDone::Volume { total_bytes: 1 << 40, usable_bytes: 1 << 39 }),
        }
        Ok(IoDone::Unit)
    }

    pub fn content(&mut self, file: FileId) -> Result<&mut Vec<u8>, IoError> {
        let name = self.open.get(&file).expect("a file that was opened");
        self.files.get_mut(name).ok_or_else(|| not_found(name))
    }

    fn entries(&self, dir: &str) -> Vec<DirEntry> {
        let below = format!("{dir}/");
        let inside = self.files.iter().filter_map(|(name, content)| Some((name.strip_prefix(&below)?, content)));
        let entry = |(name, content): (&str, &Vec<u8>)| DirEntry {
            name: name.to_owned(),
            is_dir: false,
            len: content.len() as u64,
            modified: WallMs(0),
        };
        inside.map(entry).collect()
    }

    fn rename(&mut self, from: &DiskPath, to: &DiskPath) {
        let below = format!("{}/", from.path);
        let names: Vec<String> =
            self.files.keys().filter(|name| **name == from.path || name.starts_with(&below)).cloned().collect();
        for name in names {
            let new_name = format!("{}{}", to.path, &name[from.path.len()..]);
            let content = self.files.remove(&name).expect("it was listed");
            self.files.insert(new_name.clone(), content);
            for open in self.open.values_mut().filter(|open| **open == name) {
                open.clone_from(&new_name);
            }
        }
    }
}

fn not_found(path: &str) -> IoError {
    IoError { kind: IoErrorKind::NotFound, text: path.to_owned() }
}

/// Joins parts so that [`part`] finds them again: each after its length in two bytes.
pub fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let mut input = Vec::new();
    for part in parts {
        input.extend(u16::try_from(part.len()).expect("a short part").to_le_bytes());
        input.extend(*part);
    }
    input
}

/// The next part of an input. It is the rest of the input if that is shorter than the part's length says.
pub fn part<'a>(input: &mut &'a [u8]) -> &'a [u8] {
    let Some((len, rest)) = input.split_first_chunk::<2>() else { return std::mem::take(input) };
    let (part, rest) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
    *input = rest;
    part
}
