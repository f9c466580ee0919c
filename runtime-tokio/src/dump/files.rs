//! Tells what a file contains from its name and its directory's name, and finds the files of a directory and the log
//! that lies beside an index.

use crate::data_dirs::LOCK_FILE;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tidelog_core::ids::Offset;
use tidelog_core::storage::names::{
    self, BOOTSTRAP_CHECKPOINT, CLEAN_SHUTDOWN, FileKind, FileStage, LOG_START_CHECKPOINT, META_PROPERTIES,
    METADATA_PARTITION_DIR, ParsedFile, RECOVERY_POINT_CHECKPOINT, REPLICATION_CHECKPOINT, SnapshotStage,
};

/// The names of the files that can be dumped, for the error about another file.
pub const READABLE: &str = "NNN.log, NNN.index, NNN.timeindex, NNN.txnindex, NNN.snapshot (each with .deleted, .cleaned \
                            or .swap too), NNN-EEE.checkpoint, bootstrap.checkpoint, leader-epoch-checkpoint, \
                            partition.metadata, meta.properties, quorum-state, .kafka_cleanshutdown, \
                            recovery-point-offset-checkpoint, log-start-offset-checkpoint, \
                            replication-offset-checkpoint, cleaner-offset-checkpoint; \
                            NNN stands for an offset of 20 digits, EEE for an epoch of 10";

/// How far Kafka's compaction has come; the same text as the other checkpoints.
const CLEANER_CHECKPOINT: &str = "cleaner-offset-checkpoint";

/// The largest size of a file that is read as a whole. A larger one is a fault.
pub const WHOLE_FILE_BYTES_MAX: u64 = 256 << 20;

/// What a file contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Log,
    OffsetIndex,
    TimeIndex,
    TransactionIndex,
    ProducerSnapshot,
    MetadataSnapshot,
    LeaderEpochs,
    Offsets,
    PartitionMetadata,
    MetaProperties,
    QuorumState,
    CleanShutdown,
}

/// A file that can be dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    pub content: Content,
    /// The offset in its name; 0 if the name has none.
    pub offset: Offset,
    pub stage: FileStage,
    /// Whether the file lies in the directory of the metadata log.
    pub is_metadata: bool,
}

/// Tells from its name what a file contains. `None`: it is not a file of a log directory, or it was never finished.
pub fn of_name(path: &Path) -> Option<Named> {
    let name = path.file_name()?.to_str()?;
    let plain = |content| Named { content, offset: Offset::ZERO, stage: FileStage::Live, is_metadata: false };
    match name {
        RECOVERY_POINT_CHECKPOINT | LOG_START_CHECKPOINT | REPLICATION_CHECKPOINT | CLEANER_CHECKPOINT => {
            return Some(plain(Content::Offsets));
        }
        META_PROPERTIES => return Some(plain(Content::MetaProperties)),
        CLEAN_SHUTDOWN => return Some(plain(Content::CleanShutdown)),
        BOOTSTRAP_CHECKPOINT => return Some(plain(Content::MetadataSnapshot)),
        _ => {}
    }
    match ParsedFile::parse(name) {
        ParsedFile::Segment { offset, kind, stage } => {
            let content = match kind {
                FileKind::Log => Content::Log,
                FileKind::OffsetIndex => Content::OffsetIndex,
                FileKind::TimeIndex => Content::TimeIndex,
                FileKind::TransactionIndex => Content::TransactionIndex,
                FileKind::ProducerSnapshot => Content::ProducerSnapshot,
            };
            // `file_name` of a relative path alone does not tell in which directory it lies.
            let is_metadata = std::path::absolute(path).is_ok_and(|path| {
                path.parent().and_then(Path::file_name).is_some_and(|dir| dir == METADATA_PARTITION_DIR)
            });
            Some(Named { content, offset, stage, is_metadata })
        }
        ParsedFile::MetadataSnapshot { stage: SnapshotStage::Live | SnapshotStage::Deleted, .. } => {
            Some(plain(Content::MetadataSnapshot))
        }
        ParsedFile::LeaderEpochCheckpoint => Some(plain(Content::LeaderEpochs)),
        ParsedFile::PartitionMetadata => Some(plain(Content::PartitionMetadata)),
        ParsedFile::QuorumState => Some(plain(Content::QuorumState)),
        // A snapshot that is being written is as unfinished as a `*.tmp`.
        ParsedFile::MetadataSnapshot { stage: SnapshotStage::Part, .. } | ParsedFile::Temporary | ParsedFile::Other => {
            None
        }
    }
}

/// Every file below a directory, in the order of the names, with what it is. [`LOCK_FILE`] is left out:
/// it has no content, a broker only locks it.
pub fn below(dir: &Path, found: &mut Vec<(PathBuf, Option<Named>)>) -> Result<(), (PathBuf, io::Error)> {
    let unreadable = |error| (dir.to_owned(), error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // Links are not followed: a circle of them has no end.
        let kind = entry.file_type().map_err(unreadable)?;
        paths.push((entry.path(), kind.is_dir()));
    }
    paths.sort();
    for (path, is_dir) in paths {
        if path.file_name().is_some_and(|name| name == LOCK_FILE) {
            continue;
        }
        if is_dir {
            below(&path, found)?;
        } else {
            found.push((path.clone(), of_name(&path)));
        }
    }
    Ok(())
}

/// The log that an index belongs to, if it is there.
pub fn log_beside(index: &Path, named: &Named) -> io::Result<Option<File>> {
    let name = names::staged_segment_file(named.offset, FileKind::Log, named.stage);
    match File::open(index.with_file_name(name)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the next segment of the same directory begins.
pub fn next_base(path: &Path, named: &Named) -> io::Result<Option<Offset>> {
    if named.stage != FileStage::Live {
        return Ok(None);
    }
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let mut next: Option<Offset> = None;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some(ParsedFile::Segment { offset, kind: FileKind::Log, stage: FileStage::Live }) =
            name.to_str().map(ParsedFile::parse)
            && offset > named.offset
        {
            next = Some(next.map_or(offset, |next| next.min(offset)));
        }
    }
    Ok(next)
}

/// The content of a file that the broker too reads as a whole.
pub fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(WHOLE_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > WHOLE_FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {WHOLE_FILE_BYTES_MAX} bytes, and no such file is")));
    }
    Ok(bytes)
}
