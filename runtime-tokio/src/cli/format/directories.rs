//! Formats log directories: writes what makes an empty directory one of a node of a cluster.
//!
//! ```text
//! <log dir>/bootstrap.checkpoint                    the features with which the cluster begins
//! <metadata log dir>/__cluster_metadata-0/
//!     00000000000000000000-0000000000.checkpoint    the first voters, if the quorum is a dynamic one
//! <log dir>/meta.properties                         the cluster, the node and the directory's own id
//! ```
//!
//! `meta.properties` is written last, and only when the other files are on stable storage. So a directory that has it is
//! formatted to its end. One that lacks it and holds nothing else than these files is formatted anew. The directory of
//! the metadata log comes first, as it does where a broker formats itself.
//!
//! Nothing is written unless every directory can be formatted.

use crate::cli::random_uuid::random_uuid;
use crate::data_dirs::{DataDirError, DataDirs};
use crate::disk;
use crate::platform;
use bytes::Bytes;
use bytestring::ByteString;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use tidelog_core::controller::InitialFeatures;
use tidelog_core::ids::{LeaderEpoch, NodeId, Offset, Uuid};
use tidelog_core::quorum::{VoterSet, encode_snapshot, kraft_version_record};
use tidelog_core::storage::checkpoints::{MetaProperties, TextFileError};
use tidelog_core::storage::log_dirs::is_harmless;
use tidelog_core::storage::names::{
    BOOTSTRAP_CHECKPOINT, DirName, META_PROPERTIES, METADATA_PARTITION_DIR, ParsedFile, SnapshotStage,
    metadata_snapshot_file,
};
use tidelog_core::time::WallMs;

/// What the log directories of one node are to hold.
#[derive(Debug)]
pub struct Formatting {
    pub cluster_id: ByteString,
    pub node_id: NodeId,
    /// All log directories.
    pub dirs: Vec<PathBuf>,
    /// The place in `dirs` of the one that holds the metadata log.
    pub metadata_dir: usize,
    pub features: InitialFeatures,
    /// The first voters of a dynamic quorum, where they are known.
    pub voters: Option<VoterSet>,
    /// Directories that are formatted already are left alone, and the others are formatted.
    pub ignore_formatted: bool,
}

/// Why directories are not formatted. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("cannot use the log directory {0}. Remove the cause, or take the directory out of log.dirs")]
    Unusable(String),
    #[error("{0}. Correct the file, or empty the directory")]
    MetaProperties(#[from] TextFileError),
    #[error(
        "{} belongs to cluster.id {found}, and the cluster to format for is {wanted}. Give the same id with -t, or set \
         log.dirs to the directories of one cluster",
        .file.display()
    )]
    OtherCluster { file: PathBuf, found: ByteString, wanted: ByteString },
    #[error(
        "{} belongs to node.id {found}, but the configuration says {wanted}. Set node.id={found}, or log.dirs to the \
         directories of node {wanted}",
        .file.display()
    )]
    OtherNode { file: PathBuf, found: NodeId, wanted: NodeId },
    #[error(
        "Log directory {} is already formatted. Use --ignore-formatted to ignore this directory and format the others.",
        .0.display()
    )]
    Formatted(PathBuf),
    #[error(
        "{} has no meta.properties, but is not empty: it holds {entry:?}. Set log.dirs to an empty directory, or restore \
         meta.properties",
        .dir.display()
    )]
    NotEmpty { dir: PathBuf, entry: String },
    #[error(
        "{} is empty, while {} holds partitions: the volume of the metadata log may not be mounted. Mount it; for a new \
         cluster, empty the other directories of log.dirs too",
        .metadata.display(), .other.display()
    )]
    MetadataLost { metadata: PathBuf, other: PathBuf },
    #[error("cannot format {}: {source}. Remove the cause, and format again with --ignore-formatted", .dir.display())]
    Io { dir: PathBuf, source: io::Error },
}

impl Formatting {
    /// Formats the directories. `tell` gets a line before each of them, and one if there is nothing to do.
    pub fn carry_out(&self, now: WallMs, mut tell: impl FnMut(String)) -> Result<(), FormatError> {
        let locked = DataDirs::open(self.dirs.clone())?;
        if let Some(why) = locked.unusable().first() {
            return Err(FormatError::Unusable(why.clone()));
        }
        let empty = self.check()?;
        if empty.is_empty() {
            tell("All of the log directories are already formatted.".to_owned());
        }
        for place in empty {
            let (dir, release) = (&self.dirs[place], self.features.release());
            let kind = self.kind(place);
            tell(format!("Formatting {kind} {} with metadata.version {release}.", dir.display()));
            self.write(place, now).map_err(|source| FormatError::Io { dir: dir.clone(), source })?;
        }
        Ok(())
    }

    /// The places of the directories to format, that of the metadata log first.
    fn check(&self) -> Result<Vec<usize>, FormatError> {
        let mut formatted = BTreeMap::new();
        for (place, dir) in self.dirs.iter().enumerate() {
            let io = |source| FormatError::Io { dir: dir.clone(), source };
            match fs::read(dir.join(META_PROPERTIES)) {
                Ok(content) => {
                    let file = dir.join(META_PROPERTIES);
                    let meta = MetaProperties::decode(&file.display().to_string(), &content)?;
                    self.check_owner(file, meta)?;
                    formatted.insert(place, dir);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => check_empty(dir, &io)?,
                Err(error) => return Err(io(error)),
            }
        }
        match formatted.values().next() {
            Some(dir) if !self.ignore_formatted => return Err(FormatError::Formatted(dir.to_path_buf())),
            _ => {}
        }
        for dir in formatted.values().filter(|_| !formatted.contains_key(&self.metadata_dir)) {
            if has_partitions(dir).map_err(|source| FormatError::Io { dir: dir.to_path_buf(), source })? {
                let metadata = self.dirs[self.metadata_dir].clone();
                return Err(FormatError::MetadataLost { metadata, other: dir.to_path_buf() });
            }
        }
        let mut empty: Vec<usize> = (0..self.dirs.len()).filter(|place| !formatted.contains_key(place)).collect();
        empty.sort_by_key(|place| *place != self.metadata_dir);
        Ok(empty)
    }

    fn check_owner(&self, file: PathBuf, meta: MetaProperties) -> Result<(), FormatError> {
        match (meta.cluster_id, meta.node_id) {
            (Some(found), _) if found != self.cluster_id => {
                Err(FormatError::OtherCluster { file, found, wanted: self.cluster_id.clone() })
            }
            (_, Some(found)) if found != self.node_id => {
                Err(FormatError::OtherNode { file, found, wanted: self.node_id })
            }
            _ => Ok(()),
        }
    }

    /// What Kafka calls a directory.
    fn kind(&self, place: usize) -> &'static str {
        match &self.voters {
            _ if place != self.metadata_dir => "data directory",
            None => "metadata directory",
            Some(voters) if voters.get(self.node_id).is_some() => "dynamic metadata voter directory",
            Some(_) => "dynamic metadata directory",
        }
    }

    fn write(&self, place: usize, now: WallMs) -> io::Result<()> {
        let dir = &self.dirs[place];
        let values: Vec<Bytes> =
            self.features.records().iter().map(|record| record.encode(record.newest_version())).collect();
        let bootstrap = encode_snapshot(LeaderEpoch(0), now, WallMs(0), &[], &values);
        disk::replace(&dir.join(BOOTSTRAP_CHECKPOINT), &bootstrap)?;
        let mut directory_id = None;
        if let Some(voters) = self.voters.as_ref().filter(|_| place == self.metadata_dir) {
            directory_id = voters.get(self.node_id).and_then(|me| me.key.directory);
            let log_dir = dir.join(METADATA_PARTITION_DIR);
            fs::create_dir_all(&log_dir)?;
            let quorum = [kraft_version_record(self.features.kraft_version()), voters.record()];
            let snapshot = encode_snapshot(LeaderEpoch(0), now, now, &quorum, &[]);
            disk::replace(&log_dir.join(metadata_snapshot_file(Offset::ZERO, LeaderEpoch(0))), &snapshot)?;
            platform::sync_all(&File::open(dir)?)?;
        }
        let meta = MetaProperties {
            version: 1,
            cluster_id: Some(self.cluster_id.clone()),
            node_id: Some(self.node_id),
            directory_id: Some(directory_id.map_or_else(random_uuid, Ok::<Uuid, io::Error>)?),
        };
        disk::replace(&dir.join(META_PROPERTIES), &meta.encode())
    }
}

/// Refuses a directory without `meta.properties` that holds something else than an interrupted formatting leaves.
fn check_empty(dir: &Path, io: &dyn Fn(io::Error) -> FormatError) -> Result<(), FormatError> {
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        let found = match name == METADATA_PARTITION_DIR {
            false => (!is_harmless(&name)).then_some(name),
            true => metadata_in(&dir.join(&name)).map_err(io)?.map(|file| format!("{name}/{file}")),
        };
        if let Some(entry) = found {
            return Err(FormatError::NotEmpty { dir: dir.to_owned(), entry });
        }
    }
    Ok(())
}

/// A file of the metadata log that formatting does not write.
fn metadata_in(log_dir: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(log_dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_of_formatting = match ParsedFile::parse(&name) {
            ParsedFile::MetadataSnapshot { end_offset, stage, .. } => {
                end_offset == Offset::ZERO || stage == SnapshotStage::Part
            }
            ParsedFile::Temporary => true,
            _ => false,
        };
        if !is_of_formatting {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn has_partitions(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if matches!(DirName::parse(&name), DirName::Partition(_)) {
            return Ok(true);
        }
    }
    Ok(false)
}
