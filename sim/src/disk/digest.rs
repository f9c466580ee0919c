//! Feeds disk commands and their completions to a [`Digest`], from which the trace's rolling hash is made.
//!
//! Two runs of one seed must have the same digests, and runs that differ should not. So each kind of command has a
//! number of its own.

use crate::trace::Digest;
use tidelog_core::io::{DiskPath, IoCommand, IoCompletion, IoDone, IoId, IoOp, IoOwner};

/// Feeds a command to a digest: its id, the number of its kind, the file or directory, and the position, length and
/// bytes if it has them.
pub fn digest_command(command: &IoCommand, digest: &mut Digest) {
    digest_id(command.id, digest);
    let mut path = |kind: u64, path: &DiskPath| {
        digest.number(kind);
        digest.number(u64::from(path.dir.0));
        digest.text(&path.path);
    };
    match &command.op {
        IoOp::List { path: of } => path(1, of),
        IoOp::CreateDir { path: of } => path(2, of),
        IoOp::SyncDir { path: of } => path(3, of),
        IoOp::Rename { from, to } => {
            path(4, from);
            path(4, to);
        }
        IoOp::Remove { path: of } => path(5, of),
        IoOp::RemoveDir { path: of } => path(6, of),
        IoOp::Load { path: of, .. } => path(7, of),
        IoOp::Replace { path: of, content } => {
            path(8, of);
            digest.bytes(content);
        }
        IoOp::Open { file, path: of, create } => {
            path(9 + u64::from(*create), of);
            digest.number(file.0);
        }
        IoOp::Write { file, position, chunks } => {
            digest.number(11);
            digest.number(file.0);
            digest.number(*position);
            digest.chunks(chunks);
        }
        IoOp::Read { file, position, len } => {
            digest.number(12);
            digest.number(file.0);
            digest.number(*position);
            digest.number(u64::from(*len));
        }
        IoOp::SetLen { file, len } => {
            digest.number(13);
            digest.number(file.0);
            digest.number(*len);
        }
        IoOp::Sync { file } => {
            digest.number(14);
            digest.number(file.0);
        }
        IoOp::Close { file } => {
            digest.number(15);
            digest.number(file.0);
        }
        IoOp::Volume { dir } => {
            digest.number(16);
            digest.number(u64::from(dir.0));
        }
    }
}

/// Feeds a completion to a digest: the id of its command, and the result.
pub fn digest_completion(completion: &IoCompletion, digest: &mut Digest) {
    digest_id(completion.id, digest);
    match &completion.result {
        Ok(IoDone::Unit) => digest.number(1),
        Ok(IoDone::Len(len)) => digest.number(2 + len),
        Ok(IoDone::Bytes(bytes)) => digest.bytes(bytes),
        Ok(IoDone::Entries(entries)) => {
            for entry in entries {
                digest.text(&entry.name);
                digest.number(entry.len);
                digest.number(entry.modified.0 as u64);
            }
        }
        Ok(IoDone::Volume { usable_bytes, .. }) => digest.number(*usable_bytes),
        Err(error) => digest.text(&error.text),
    }
}

fn digest_id(id: IoId, digest: &mut Digest) {
    digest.number(match id.owner {
        IoOwner::Dir(dir) => 1 << 32 | u64::from(dir.0),
        IoOwner::Log(log) => 2 << 32 | u64::from(log.0),
        IoOwner::Quorum => 3 << 32,
    });
    digest.number(id.seq);
}
