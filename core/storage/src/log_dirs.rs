//! The directories of `log.dirs`: the broker and cluster they belong to, the partitions in them, their checkpoints, and
//! whether the last stop was clean.
//!
//! ```text
//! boot:  of each directory: List  →  Load meta.properties, .kafka_cleanshutdown, the checkpoints, and the
//!        partition.metadata of each partition
//!        →  judge all directories together (`judge.rs`); a contradiction to the configuration is fatal
//!        →  Replace meta.properties of new directories, Replace checkpoints with entries of partitions that are gone,
//!           Remove .kafka_cleanshutdown, SyncDir  →  Ready
//! run:   write_checkpoint, query_volume, mark_offline
//! stop:  write_checkpoint of each kind, then stop, which writes .kafka_cleanshutdown
//! ```
//!
//! Of several new directories, that of the metadata log is formatted first. So if it is found empty beside a formatted
//! one at a later start, it is not new: its volume is not mounted.
//!
//! The order of calls: [`new`](LogDirs::new), [`boot`](LogDirs::boot), then every completion of
//! [`IoOwner::Dir`] to [`handle_io`](LogDirs::handle_io). No log may be opened before [`DirEvent::Ready`]. Only then is
//! the clean-shutdown marker removed for good, so that the next start knows of a crash (KAFKA-10471).
//!
//! A directory that fails goes offline until the broker is restarted; the broker goes on with the other directories. If
//! all directories are offline, or the one of the metadata log is, the broker cannot go on: [`Output::Fatal`] comes,
//! once.

mod judge;
#[cfg(test)]
mod tests;

pub use judge::is_harmless;

use super::checkpoints::{self, MetaProperties, Offsets};
use super::names::{self, AsideReason, TopicPartition};
use crate::io::{
    DirEntry, DiskPath, IoCompletion, IoDone, IoError, IoErrorKind, IoId, IoOp, IoOwner, Level, Outbox, Output, Part,
};
use crate::probe::Probe;
use bytes::Bytes;
use bytestring::ByteString;
use std::collections::{BTreeMap, BTreeSet};
use tidelog_wire::ids::{LogDirId, NodeId, Uuid};

const PART: Part = Part::Storage;
/// `meta.properties` and the clean-shutdown marker are some hundred bytes.
const SMALL_FILE_BYTES_MAX: u64 = 64 << 10;
/// Enough for 200,000 partitions with the longest names.
const CHECKPOINT_BYTES_MAX: u64 = 64 << 20;

#[derive(Clone, Debug)]
pub struct LogDirsConfig {
    /// The paths of `log.dirs`, for messages. The index of a path is its [`LogDirId`].
    pub paths: Vec<String>,
    pub node_id: NodeId,
    /// The cluster id that is configured. If it is `None`, the directories' cluster id is used, and a new cluster gets
    /// a random one.
    pub cluster_id: Option<ByteString>,
    /// The directory of the metadata log (`metadata.log.dir`).
    pub metadata_dir: LogDirId,
    /// Whether this node may begin a cluster of its own, if its directories are empty. A node whose configuration names
    /// other controllers may not: it would not be in their cluster.
    pub begins_cluster: bool,
}

/// The checkpoints of a log directory. Each is a hint: if it is missing, recovery takes longer, and finds its content
/// in the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckpointKind {
    /// The offset of each log below which all records are on stable storage. Recovery begins there.
    RecoveryPoint,
    /// The start offset of each log. It may lie within a segment after DeleteRecords.
    LogStart,
    /// The high watermark of each partition.
    HighWatermark,
}

impl CheckpointKind {
    pub const ALL: [Self; 3] = [Self::RecoveryPoint, Self::LogStart, Self::HighWatermark];

    pub const fn file(self) -> &'static str {
        match self {
            Self::RecoveryPoint => names::RECOVERY_POINT_CHECKPOINT,
            Self::LogStart => names::LOG_START_CHECKPOINT,
            Self::HighWatermark => names::REPLICATION_CHECKPOINT,
        }
    }
}

/// What [`LogDirs::boot`] found in the directories that are online.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booted {
    pub cluster_id: ByteString,
    /// The broker epoch of the last run, if the clean-shutdown markers of all directories name the same one (KIP-966).
    pub previous_broker_epoch: Option<i64>,
    pub dirs: Vec<DirState>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirState {
    pub dir: LogDirId,
    /// The id from `meta.properties` (KIP-858).
    pub directory_id: Uuid,
    /// Whether no broker has used it before.
    pub is_new: bool,
    /// Whether the last stop was clean. If so, the logs need no recovery.
    pub clean: bool,
    /// The partitions that have a directory here, each with the topic id from its `partition.metadata` (KIP-516).
    pub partitions: Vec<(TopicPartition, Option<Uuid>)>,
    /// The directories whose names end in `-future` or `-stray`: the full name, the partition, and the reason.
    pub aside: Vec<(String, TopicPartition, AsideReason)>,
    pub recovery_points: Offsets,
    pub log_starts: Offsets,
    pub high_watermarks: Offsets,
}

/// What happened, for the broker to act on.
#[derive(Debug, PartialEq, Eq)]
pub enum DirEvent {
    /// Booting is done. Logs may be opened.
    Ready(Booted),
    /// A directory has failed. The broker takes its logs offline.
    Offline { dir: LogDirId, reason: String },
    /// A checkpoint is on stable storage. It is the one that was handed in last when this write began.
    CheckpointWritten { dir: LogDirId, kind: CheckpointKind },
    /// The answer to [`LogDirs::query_volume`]. `None` if the sizes could not be determined.
    Volume { dir: LogDirId, sizes: Option<VolumeSizes> },
    /// One of the directories that [`LogDirs::set_aside`] renames has its new name on stable storage.
    SetAside,
    /// [`LogDirs::stop`] is done: the checkpoints and the markers are on stable storage.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeSizes {
    pub total_bytes: u64,
    pub usable_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    /// The directories are being listed and their files loaded. Nothing on the disk has been changed.
    Reading,
    /// Files of the directories are being written, and the clean-shutdown markers removed.
    Preparing,
    Running,
    /// The last checkpoints are being written, and then the clean-shutdown markers.
    Stopping {
        /// The broker epoch to write into the markers. `None`: the stop is not clean, and no marker is written.
        broker_epoch: Option<i64>,
    },
    Stopped,
    Failed,
}

/// What a command in flight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    List,
    LoadMeta,
    LoadMarker,
    LoadCheckpoint(CheckpointKind),
    /// Loads the `partition.metadata` in the directory with this index in [`DirContents::entries`].
    LoadTopicId(usize),
    /// One command of a sequence. Its success needs no action, but the next phase waits for it.
    Step,
    /// Removes a file that is no longer needed. Nothing waits for it, and its failure does no harm.
    RemoveLeftover,
    Checkpoint(CheckpointKind),
    Marker,
    /// The last command of [`LogDirs::set_aside`].
    SetAside,
    Volume,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Status {
    Online,
    Offline(String),
}

/// One checkpoint file: its content, and the contents that are still to be written.
#[derive(Clone, Debug, Default)]
struct CheckpointFile {
    /// What the file holds. `None` if nothing was written since the start.
    written: Option<Bytes>,
    in_flight: Option<Bytes>,
    /// What is to be written when the write in flight has completed.
    queued: Option<Bytes>,
    /// How many writes have begun.
    begun: u64,
    /// How many writes have completed.
    done: u64,
}

/// For each [`CheckpointKind`], the number of the write that holds the content handed in last. See
/// [`LogDirs::has_written`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointWrites([u64; 3]);

/// What was read from a directory before anything in it was changed.
#[derive(Clone, Debug, Default)]
struct DirContents {
    entries: Vec<DirEntry>,
    meta: Option<MetaProperties>,
    /// The clean-shutdown marker: `None` if there is none, `Some(None)` if it names no broker epoch.
    marker: Option<Option<i64>>,
    offsets: BTreeMap<CheckpointKind, Offsets>,
    /// The topic ids of the partitions, by the names of their directories.
    topic_ids: BTreeMap<String, Uuid>,
}

#[derive(Debug)]
struct Dir {
    id: LogDirId,
    path: String,
    status: Status,
    directory_id: Option<Uuid>,
    found: DirContents,
    next_seq: u64,
    in_flight: BTreeMap<u64, Purpose>,
    checkpoints: [CheckpointFile; 3],
    marker_issued: bool,
}

#[derive(Debug)]
pub struct LogDirs {
    config: LogDirsConfig,
    dirs: Vec<Dir>,
    phase: Phase,
    booted: Option<Booted>,
    /// New directories whose `meta.properties` is written when that of the metadata log's directory is on stable
    /// storage.
    to_format: BTreeMap<LogDirId, MetaProperties>,
    /// All new directories, until their `meta.properties` are on stable storage. If one of them fails, booting fails.
    formatting: BTreeSet<LogDirId>,
    /// Random ids for a new cluster and for new directories. They are drawn ahead, so that the order of completions has
    /// no influence on them.
    drawn_cluster_id: Uuid,
    drawn_directory_ids: Vec<Uuid>,
}

impl LogDirs {
    /// `draw` gives random bytes, for the ids of a new cluster and of new directories.
    pub fn new(config: LogDirsConfig, mut draw: impl FnMut() -> [u8; 16]) -> Self {
        assert!(!config.paths.is_empty(), "log.dirs names no directory");
        assert!(usize::from(config.metadata_dir.0) < config.paths.len(), "metadata.log.dir is not one of log.dirs");
        let dir = |(place, path): (usize, &String)| Dir {
            id: LogDirId(u16::try_from(place).expect("fewer than 65536 log.dirs")),
            path: path.clone(),
            status: Status::Online,
            directory_id: None,
            found: DirContents::default(),
            next_seq: 0,
            in_flight: BTreeMap::new(),
            checkpoints: Default::default(),
            marker_issued: false,
        };
        let dirs: Vec<Dir> = config.paths.iter().enumerate().map(dir).collect();
        let drawn_cluster_id = Uuid::random(&mut draw);
        let drawn_directory_ids = dirs.iter().map(|_| Uuid::random(&mut draw)).collect();
        Self {
            config,
            dirs,
            phase: Phase::New,
            booted: None,
            to_format: BTreeMap::new(),
            formatting: BTreeSet::new(),
            drawn_cluster_id,
            drawn_directory_ids,
        }
    }

    /// Begins to read the directories. The world has created those that did not exist.
    pub fn boot(&mut self, out: &mut Outbox) {
        assert_eq!(self.phase, Phase::New, "booted twice");
        self.phase = Phase::Reading;
        for dir in &mut self.dirs {
            dir.issue(Purpose::List, IoOp::List { path: dir.file("") }, out);
        }
    }

    /// Takes the completion of a command of [`IoOwner::Dir`].
    pub fn handle_io(&mut self, completion: IoCompletion, out: &mut Outbox) -> Vec<DirEvent> {
        let IoOwner::Dir(id) = completion.id.owner else { panic!("the owner is {:?}", completion.id.owner) };
        let dir = &mut self.dirs[usize::from(id.0)];
        let purpose = dir.in_flight.remove(&completion.id.seq).expect("the completed command is in flight");
        let mut events = Vec::new();
        if dir.status != Status::Online || matches!(self.phase, Phase::Failed | Phase::Stopped) {
            // The completion is of no use any more, except that somebody may wait for the sizes of the volume.
            if purpose == Purpose::Volume {
                events.push(DirEvent::Volume { dir: id, sizes: None });
            }
            return events;
        }
        match dir.complete(purpose, completion.result, out) {
            Ok(event) => events.extend(event),
            Err(reason) => events.extend(self.mark_offline(id, reason, out)),
        }
        self.go_on(out, &mut events);
        events
    }

    /// Goes on to the next phase, if no command in flight has to be waited for.
    fn go_on(&mut self, out: &mut Outbox, events: &mut Vec<DirEvent>) {
        let waiting = self.dirs.iter().any(Dir::is_waited_for);
        match self.phase {
            Phase::Reading if !waiting => self.judge_and_prepare(out, events),
            Phase::Preparing if !waiting && !self.to_format.is_empty() => {
                for (id, meta) in std::mem::take(&mut self.to_format) {
                    self.dirs[usize::from(id.0)].prepare(Some(&meta), out);
                }
            }
            Phase::Preparing if !waiting => {
                self.formatting.clear();
                self.phase = Phase::Running;
                let mut booted = self.booted.take().expect("set by judge_and_prepare");
                booted.dirs.retain(|state| self.dirs[usize::from(state.dir.0)].status == Status::Online);
                events.push(DirEvent::Ready(booted));
            }
            Phase::Stopping { broker_epoch } => {
                for dir in &mut self.dirs {
                    dir.write_marker(broker_epoch, out);
                }
                if !self.dirs.iter().any(Dir::is_waited_for) {
                    self.phase = Phase::Stopped;
                    events.push(DirEvent::Stopped);
                }
            }
            _ => {}
        }
    }

    /// Judges what was read from all directories, and prepares them for this run of the broker.
    fn judge_and_prepare(&mut self, out: &mut Outbox, events: &mut Vec<DirEvent>) {
        let plan = match judge::judge(&self.config, &self.dirs, self.drawn_cluster_id, &self.drawn_directory_ids) {
            Ok(plan) => plan,
            Err(text) => return self.fail(text, out),
        };
        self.phase = Phase::Preparing;
        for (level, text) in plan.notes {
            out.event(level, PART, text);
        }
        let is_new = |id: &LogDirId| self.dirs[usize::from(id.0)].found.meta.is_none();
        self.formatting = plan.meta_to_write.keys().copied().filter(is_new).collect();
        let formats_metadata = self.formatting.contains(&self.config.metadata_dir);
        for state in &plan.booted.dirs {
            let dir = &mut self.dirs[usize::from(state.dir.0)];
            dir.directory_id = Some(state.directory_id);
            match plan.meta_to_write.get(&state.dir) {
                Some(meta) if formats_metadata && state.dir != self.config.metadata_dir => {
                    self.to_format.insert(state.dir, meta.clone());
                }
                meta => dir.prepare(meta, out),
            }
        }
        self.booted = Some(plan.booted);
        self.go_on(out, events);
    }

    /// Takes a directory offline, because one of its own commands or one of its logs has failed. Returns no events if
    /// it is offline already.
    pub fn mark_offline(&mut self, id: LogDirId, reason: String, out: &mut Outbox) -> Vec<DirEvent> {
        let dir = &mut self.dirs[usize::from(id.0)];
        let mut events = Vec::new();
        if dir.status != Status::Online {
            return events;
        }
        out.probe(Probe::DirOffline);
        out.event(Level::Error, PART, format!("log directory {} is offline: {reason}", dir.path));
        dir.status = Status::Offline(reason.clone());
        dir.found = DirContents::default();
        dir.checkpoints = Default::default();
        let path = dir.path.clone();
        events.push(DirEvent::Offline { dir: id, reason: reason.clone() });
        if self.dirs.iter().all(|dir| dir.status != Status::Online) {
            self.fail(format!("all of log.dirs are offline; the last was {path}: {reason}"), out);
        } else if id == self.config.metadata_dir {
            self.fail(format!("{path}, the directory of the metadata log, is offline: {reason}"), out);
        } else if self.formatting.contains(&id) {
            // If the broker went on with the other directories, then this one would stay empty while they hold
            // partitions. Every later start would take it for a volume that is not mounted, and refuse.
            self.fail(format!("{path} cannot be formatted: {reason}"), out);
        } else {
            self.go_on(out, &mut events);
        }
        events
    }

    fn fail(&mut self, text: String, out: &mut Outbox) {
        if self.phase != Phase::Failed {
            self.phase = Phase::Failed;
            out.outputs.push(Output::Fatal(text));
        }
    }

    /// Hands in a new content for a checkpoint. Only one write of a file is in flight at a time. Of the contents handed
    /// in meanwhile, only the newest is written. A content that the file holds already is not written again. Nothing
    /// happens if the directory is offline.
    pub fn write_checkpoint(&mut self, id: LogDirId, kind: CheckpointKind, offsets: &Offsets, out: &mut Outbox) {
        let running = matches!(self.phase, Phase::Running | Phase::Failed);
        assert!(running, "a checkpoint while {:?}", self.phase);
        let dir = &mut self.dirs[usize::from(id.0)];
        if dir.status == Status::Online && self.phase == Phase::Running {
            let content = checkpoints::encode_offsets(offsets);
            dir.checkpoints[kind as usize].queued = Some(content);
            dir.write_queued(kind, out);
        }
    }

    /// The numbers of the writes that will have written everything handed in until now.
    pub fn writes(&self, id: LogDirId) -> CheckpointWrites {
        let last = |file: &CheckpointFile| file.begun + u64::from(file.queued.is_some());
        CheckpointWrites(self.dirs[usize::from(id.0)].checkpoints.each_ref().map(last))
    }

    /// Whether `writes` are on stable storage. Also true if the directory is offline, since then nothing will be
    /// written.
    pub fn has_written(&self, id: LogDirId, writes: CheckpointWrites) -> bool {
        let dir = &self.dirs[usize::from(id.0)];
        dir.status != Status::Online || dir.checkpoints.iter().zip(writes.0).all(|(file, write)| file.done >= write)
    }

    /// Stops: waits for the checkpoints that were handed in before, then writes the clean-shutdown markers with
    /// `broker_epoch`. `None`: some logs were not closed, so no marker is written, and the next start recovers the logs.
    ///
    /// [`DirEvent::Stopped`] says that it is done. It is returned here if nothing has to be written, else it comes with
    /// a later completion.
    pub fn stop(&mut self, broker_epoch: Option<i64>, out: &mut Outbox) -> Vec<DirEvent> {
        let mut events = Vec::new();
        match self.phase {
            Phase::Running => {
                self.phase = Phase::Stopping { broker_epoch };
                self.go_on(out, &mut events);
            }
            Phase::Stopping { .. } | Phase::Stopped => panic!("stopped twice"),
            Phase::New | Phase::Reading | Phase::Preparing | Phase::Failed => {
                self.phase = Phase::Stopped;
                events.push(DirEvent::Stopped);
            }
        }
        events
    }

    /// Asks for the sizes of a directory's volume. One [`DirEvent::Volume`] answers all calls made before it. False,
    /// and no answer comes, if the directory is offline.
    pub fn query_volume(&mut self, id: LogDirId, out: &mut Outbox) -> bool {
        let dir = &mut self.dirs[usize::from(id.0)];
        if dir.status != Status::Online {
            return false;
        }
        if !dir.in_flight.values().any(|purpose| *purpose == Purpose::Volume) {
            dir.issue(Purpose::Volume, IoOp::Volume { dir: id }, out);
        }
        true
    }

    /// Renames the directory of a partition that does not belong to this broker, and returns the new name, which
    /// contains
    /// `unique`. While the renaming is under way, [`is_setting_aside`](Self::is_setting_aside) is true. `None` if the
    /// log directory is offline.
    pub fn set_aside(
        &mut self,
        id: LogDirId,
        partition: &TopicPartition,
        unique: Uuid,
        out: &mut Outbox,
    ) -> Option<String> {
        let dir = &mut self.dirs[usize::from(id.0)];
        if dir.status != Status::Online {
            return None;
        }
        let name = names::aside_dir(partition, AsideReason::Stray, unique);
        let (from, to) = (dir.file(&partition.to_string()), dir.file(&name));
        dir.issue(Purpose::Step, IoOp::Rename { from, to }, out);
        dir.issue(Purpose::SetAside, IoOp::SyncDir { path: dir.file("") }, out);
        Some(name)
    }

    pub fn is_setting_aside(&self) -> bool {
        let mut online = self.dirs.iter().filter(|dir| dir.status == Status::Online);
        online.any(|dir| dir.in_flight.values().any(|purpose| *purpose == Purpose::SetAside))
    }

    /// The log directory for a new partition: of those online, the one for which `partitions_in` returns the least. A
    /// directory for which it returns `None` takes no partitions.
    pub fn choose(&self, partitions_in: impl Fn(LogDirId) -> Option<usize>) -> Option<LogDirId> {
        let counted = self.online().filter_map(|id| Some((partitions_in(id)?, id)));
        counted.min().map(|(_, id)| id)
    }

    /// The directories that are online.
    pub fn online(&self) -> impl Iterator<Item = LogDirId> {
        self.dirs.iter().filter(|dir| dir.status == Status::Online).map(|dir| dir.id)
    }

    pub fn is_online(&self, id: LogDirId) -> bool {
        self.dirs[usize::from(id.0)].status == Status::Online
    }

    /// The ids and paths of all directories, offline ones included.
    pub fn paths(&self) -> impl Iterator<Item = (LogDirId, &str)> {
        self.dirs.iter().map(|dir| (dir.id, dir.path.as_str()))
    }

    /// The id from the directory's `meta.properties`. `None` if the directory was offline when the broker booted.
    pub fn directory_id(&self, id: LogDirId) -> Option<Uuid> {
        self.dirs[usize::from(id.0)].directory_id
    }

    /// The directory with this id, if it is one of `log.dirs`.
    pub fn by_directory_id(&self, directory_id: Uuid) -> Option<LogDirId> {
        self.dirs.iter().find(|dir| dir.directory_id == Some(directory_id)).map(|dir| dir.id)
    }

    /// Asserts the invariants.
    pub fn verify(&self) {
        for dir in &self.dirs {
            for kind in CheckpointKind::ALL {
                let file = &dir.checkpoints[kind as usize];
                assert!(file.queued.is_none() || file.in_flight.is_some(), "{kind:?} is queued behind no write");
            }
            let markers = dir.in_flight.values().filter(|purpose| **purpose == Purpose::Marker).count();
            assert!(markers == 0 || matches!(self.phase, Phase::Stopping { .. } | Phase::Stopped | Phase::Failed));
        }
    }
}

impl Dir {
    fn file(&self, name: &str) -> DiskPath {
        DiskPath { dir: self.id, path: name.to_owned() }
    }

    /// The path of a file, for messages.
    fn full_path(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    fn issue(&mut self, purpose: Purpose, op: IoOp, out: &mut Outbox) {
        let id = IoId { owner: IoOwner::Dir(self.id), seq: self.next_seq };
        self.next_seq += 1;
        self.in_flight.insert(id.seq, purpose);
        out.io(id, op);
    }

    /// Whether a command of this directory is in flight for which the next phase must wait.
    fn is_waited_for(&self) -> bool {
        let counts = |purpose: &Purpose| !matches!(purpose, Purpose::RemoveLeftover | Purpose::Volume);
        self.status == Status::Online && self.in_flight.values().any(counts)
    }

    /// Takes the result of one command. An error is the reason why the directory goes offline.
    fn complete(
        &mut self,
        purpose: Purpose,
        result: Result<IoDone, IoError>,
        out: &mut Outbox,
    ) -> Result<Option<DirEvent>, String> {
        let failed = |error: IoError| error.text;
        match purpose {
            Purpose::Step | Purpose::Marker => {
                result.map_err(failed)?;
            }
            Purpose::List => match result.map_err(failed)? {
                IoDone::Entries(entries) => self.load(entries, out),
                other => panic!("a List was answered with {other:?}"),
            },
            Purpose::LoadMeta => {
                let file = self.full_path(names::META_PROPERTIES);
                if let Some(bytes) = loaded(result).map_err(failed)? {
                    self.found.meta = Some(MetaProperties::decode(&file, &bytes).map_err(|error| error.to_string())?);
                }
            }
            Purpose::LoadMarker => {
                let content = loaded(result).map_err(failed)?;
                self.found.marker = content.map(|bytes| checkpoints::decode_clean_shutdown(&bytes));
            }
            Purpose::LoadCheckpoint(kind) => {
                let file = self.full_path(kind.file());
                // A checkpoint is a hint: without it, its content is found out from the logs.
                let mut useless = |why: String| out.event(Level::Warn, PART, format!("{why}; it is rebuilt"));
                match loaded(result) {
                    Ok(None) => {}
                    Ok(Some(bytes)) => match checkpoints::decode_offsets(&file, &bytes) {
                        Ok(offsets) => drop(self.found.offsets.insert(kind, offsets)),
                        Err(error) => useless(error.to_string()),
                    },
                    Err(error) if error.kind == IoErrorKind::TooLarge => useless(error.text),
                    Err(error) => return Err(error.text),
                }
            }
            Purpose::LoadTopicId(entry) => {
                let name = self.found.entries[entry].name.clone();
                let file = self.full_path(&format!("{name}/{}", names::PARTITION_METADATA));
                if let Some(bytes) = loaded(result).map_err(failed)? {
                    let id =
                        checkpoints::decode_partition_metadata(&file, &bytes).map_err(|error| error.to_string())?;
                    self.found.topic_ids.insert(name, id);
                }
            }
            Purpose::SetAside => {
                result.map_err(failed)?;
                return Ok(Some(DirEvent::SetAside));
            }
            Purpose::RemoveLeftover => {
                if let Err(error) = result {
                    out.event(
                        Level::Warn,
                        PART,
                        format!("a file that is no longer needed could not be removed: {error}"),
                    );
                }
            }
            Purpose::Checkpoint(kind) => {
                result.map_err(failed)?;
                let file = &mut self.checkpoints[kind as usize];
                file.written = file.in_flight.take();
                file.done += 1;
                self.write_queued(kind, out);
                return Ok(Some(DirEvent::CheckpointWritten { dir: self.id, kind }));
            }
            Purpose::Volume => {
                let sizes = match result {
                    Ok(IoDone::Volume { total_bytes, usable_bytes }) => Some(VolumeSizes { total_bytes, usable_bytes }),
                    _ => None,
                };
                return Ok(Some(DirEvent::Volume { dir: self.id, sizes }));
            }
        }
        Ok(None)
    }

    /// The directory was listed: loads those of its files that exist.
    fn load(&mut self, entries: Vec<DirEntry>, out: &mut Outbox) {
        let files = [
            (names::META_PROPERTIES, SMALL_FILE_BYTES_MAX, Purpose::LoadMeta),
            (names::CLEAN_SHUTDOWN, SMALL_FILE_BYTES_MAX, Purpose::LoadMarker),
        ];
        let checkpoint = |kind: CheckpointKind| (kind.file(), CHECKPOINT_BYTES_MAX, Purpose::LoadCheckpoint(kind));
        for (name, limit_bytes, purpose) in files.into_iter().chain(CheckpointKind::ALL.map(checkpoint)) {
            if entries.iter().any(|entry| entry.name == name && !entry.is_dir) {
                self.issue(purpose, IoOp::Load { path: self.file(name), limit_bytes }, out);
            }
        }
        for (place, entry) in entries.iter().enumerate() {
            if entry.is_dir && judge::is_partition(&entry.name) {
                let path = self.file(&format!("{}/{}", entry.name, names::PARTITION_METADATA));
                let op = IoOp::Load { path, limit_bytes: SMALL_FILE_BYTES_MAX };
                self.issue(Purpose::LoadTopicId(place), op, out);
            }
        }
        self.found.entries = entries;
    }

    /// Prepares the directory for this run of the broker: writes `meta`, removes the clean-shutdown marker and what the
    /// last run left over.
    fn prepare(&mut self, meta: Option<&MetaProperties>, out: &mut Outbox) {
        if let Some(meta) = meta {
            let path = self.file(names::META_PROPERTIES);
            self.issue(Purpose::Step, IoOp::Replace { path, content: meta.encode() }, out);
        }
        let mut found = std::mem::take(&mut self.found);
        let here: BTreeSet<&str> =
            found.entries.iter().filter(|entry| entry.is_dir).map(|entry| entry.name.as_str()).collect();
        for (kind, offsets) in &mut found.offsets {
            // Drops the entries of partitions that are gone. A new topic may get the same name, and its logs must not
            // be recovered with the offsets of the old one.
            let before = offsets.len();
            offsets.retain(|name, _| here.contains(name.to_string().as_str()));
            if offsets.len() < before {
                let (path, content) = (self.file(kind.file()), checkpoints::encode_offsets(offsets));
                self.issue(Purpose::Step, IoOp::Replace { path, content }, out);
            }
        }
        if found.marker.is_some() {
            self.issue(Purpose::Step, IoOp::Remove { path: self.file(names::CLEAN_SHUTDOWN) }, out);
        }
        // Needed even without a marker: the last run may have removed it and crashed before the removal was stable.
        self.issue(Purpose::Step, IoOp::SyncDir { path: self.file("") }, out);
        for entry in &found.entries {
            let path = self.file(&entry.name);
            if entry.is_dir && judge::is_deleted_partition(&entry.name) {
                self.issue(Purpose::RemoveLeftover, IoOp::RemoveDir { path }, out);
            } else if !entry.is_dir && judge::is_leftover_of_ours(&entry.name) {
                self.issue(Purpose::RemoveLeftover, IoOp::Remove { path }, out);
            }
        }
    }

    fn write_queued(&mut self, kind: CheckpointKind, out: &mut Outbox) {
        let file = &mut self.checkpoints[kind as usize];
        if file.in_flight.is_some() {
            out.probe(Probe::CheckpointQueued);
            return;
        }
        let Some(content) = file.queued.take() else { return };
        file.begun += 1;
        if file.written.as_ref() == Some(&content) {
            file.done += 1;
            return;
        }
        file.in_flight = Some(content.clone());
        let path = self.file(kind.file());
        self.issue(Purpose::Checkpoint(kind), IoOp::Replace { path, content }, out);
    }

    /// Writes the clean-shutdown marker, once, when no other command has to be waited for.
    fn write_marker(&mut self, broker_epoch: Option<i64>, out: &mut Outbox) {
        let Some(broker_epoch) = broker_epoch else { return };
        if self.status == Status::Online && !self.is_waited_for() && !self.marker_issued {
            self.marker_issued = true;
            let content = checkpoints::encode_clean_shutdown(broker_epoch);
            let path = self.file(names::CLEAN_SHUTDOWN);
            self.issue(Purpose::Marker, IoOp::Replace { path, content }, out);
        }
    }
}

/// The content that a Load returned. `None` if the file does not exist.
fn loaded(result: Result<IoDone, IoError>) -> Result<Option<Bytes>, IoError> {
    match result {
        Ok(IoDone::Bytes(bytes)) => Ok(Some(bytes)),
        Ok(other) => panic!("a Load was answered with {other:?}"),
        Err(error) if error.kind == IoErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
