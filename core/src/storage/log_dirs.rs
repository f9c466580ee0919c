//! The directories of `log.dirs`: whose they are, whether the last stop was clean, what lies in them, and their
//! checkpoints.
//!
//! ```text
//! boot:  List  →  Load meta.properties, .kafka_cleanshutdown, checkpoints, each partition.metadata     of all
//!        →  judge them together (`judge.rs`); what contradicts the configuration is fatal
//!        →  Replace meta.properties where new, and checkpoints that name what is not here,
//!           Remove .kafka_cleanshutdown, SyncDir  →  Ready
//!           (the metadata log's directory first: from then on an empty directory is a volume that is missing)
//! run:   write_checkpoint, query_volume, mark_offline
//! stop:  write_checkpoint of each kind, then stop: .kafka_cleanshutdown is written last
//! ```
//!
//! The order of calls: [`new`](LogDirs::new), [`boot`](LogDirs::boot), then every completion of
//! [`IoOwner::Dir`] to [`handle_io`](LogDirs::handle_io). No log may be opened before [`DirEvent::Ready`]: only then
//! the removal of the clean-shutdown marker is stable, and a crash from here on is known as one (KAFKA-10471).
//!
//! A directory that fails goes offline for the rest of this life, and the others go on. Without any, or without the
//! one of the metadata log, the broker cannot: [`Output::Fatal`], once.

mod judge;
#[cfg(test)]
mod tests;

use super::checkpoints::{self, MetaProperties, Offsets};
use super::names::{self, AsideReason, TopicPartition};
use crate::ids::{LogDirId, NodeId, Uuid};
use crate::io::{
    DirEntry, DiskPath, IoCompletion, IoDone, IoError, IoErrorKind, IoId, IoOp, IoOwner, Level, Outbox, Output,
};
use crate::probe::Probe;
use bytes::Bytes;
use bytestring::ByteString;
use std::collections::{BTreeMap, BTreeSet};

const PART: &str = "storage";
/// `meta.properties` and the clean-shutdown marker are some hundred bytes.
const SMALL_FILE_BYTES_MAX: u64 = 64 << 10;
/// 200,000 partitions with the longest names.
const CHECKPOINT_BYTES_MAX: u64 = 64 << 20;

#[derive(Clone, Debug)]
pub struct LogDirsConfig {
    /// `log.dirs`, for messages: the place of a path is its [`LogDirId`].
    pub paths: Vec<String>,
    pub node_id: NodeId,
    /// The cluster the operator says this is; `None` believes the disk, and draws one for a new cluster.
    pub cluster_id: Option<ByteString>,
    /// The directory of the metadata log (`metadata.log.dir`).
    pub metadata_dir: LogDirId,
}

/// The checkpoints of a log directory. Each is a hint that the logs themselves can replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckpointKind {
    /// Below these offsets all is on stable storage: where recovery begins.
    RecoveryPoint,
    /// Where logs start that DeleteRecords has cut within a segment.
    LogStart,
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

/// What booting found, of the directories that are online.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booted {
    pub cluster_id: ByteString,
    /// The broker epoch of the last life, where every directory says that it ended cleanly, with the same epoch
    /// (KIP-966).
    pub previous_broker_epoch: Option<i64>,
    pub dirs: Vec<DirState>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirState {
    pub dir: LogDirId,
    /// KIP-858.
    pub directory_id: Uuid,
    /// Whether the last life stopped cleanly: logs need no recovery.
    pub clean: bool,
    /// Each lies in the directory of its own name, with the topic id that its `partition.metadata` says (KIP-516).
    pub partitions: Vec<(TopicPartition, Option<Uuid>)>,
    /// Directories ending in `-future` and `-stray`, with their full names.
    pub aside: Vec<(String, TopicPartition, AsideReason)>,
    pub recovery_points: Offsets,
    pub log_starts: Offsets,
    pub high_watermarks: Offsets,
}

/// What a completion brought about.
#[derive(Debug, PartialEq, Eq)]
pub enum DirEvent {
    /// Booting is over.
    Ready(Booted),
    /// A directory has failed: its logs are to be given up.
    Offline { dir: LogDirId, reason: String },
    /// A checkpoint at least as new as the one last handed in when its writing began is on stable storage.
    CheckpointWritten { dir: LogDirId, kind: CheckpointKind },
    /// `None` where the volume did not say.
    Volume { dir: LogDirId, sizes: Option<VolumeSizes> },
    /// One more of the directories that [`LogDirs::set_aside`] was asked to rename has its new name.
    SetAside,
    /// All that [`LogDirs::stop`] was to write is on stable storage.
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
    /// Listing and loading: nothing on disk has been changed.
    Reading,
    /// Directory files are being written and the clean-shutdown marker removed.
    Settling,
    Running,
    /// Waiting for the checkpoints; then the marker, if the stop is clean.
    Stopping {
        marker: Option<i64>,
    },
    Stopped,
    Failed,
}

/// What a command in flight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    List,
    LoadMeta,
    LoadMarker,
    LoadCheckpoint(CheckpointKind),
    /// Of a partition: the place of its directory among the entries.
    LoadTopicId(usize),
    /// Part of settling: nothing to do but to wait for it.
    Settle,
    /// Removing what nobody needs: nobody waits for it, and its failure is no one's loss.
    Clean,
    Checkpoint(CheckpointKind),
    Marker,
    /// The last step of giving a partition's directory another name.
    Aside,
    Volume,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Status {
    Online,
    Offline(String),
}

/// A checkpoint file: what it holds, and what is to be written once the write in flight is done.
#[derive(Clone, Debug, Default)]
struct CheckpointFile {
    written: Option<Bytes>,
    in_flight: Option<Bytes>,
    queued: Option<Bytes>,
    /// Writes that have begun, and of them those that are over.
    begun: u64,
    done: u64,
}

/// For each kind the write that holds what was handed in last; see [`LogDirs::has_written`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointWrites([u64; 3]);

/// What was read of a directory before anything in it was changed.
#[derive(Clone, Debug, Default)]
struct Found {
    entries: Vec<DirEntry>,
    meta: Option<MetaProperties>,
    /// The clean-shutdown marker, and the broker epoch it may hold.
    marker: Option<Option<i64>>,
    offsets: BTreeMap<CheckpointKind, Offsets>,
    /// By the names of their directories.
    topic_ids: BTreeMap<String, Uuid>,
}

#[derive(Debug)]
struct Dir {
    id: LogDirId,
    path: String,
    status: Status,
    directory_id: Option<Uuid>,
    found: Found,
    next_seq: u64,
    pending: BTreeMap<u64, Pending>,
    checkpoints: [CheckpointFile; 3],
    marker_issued: bool,
}

#[derive(Debug)]
pub struct LogDirs {
    config: LogDirsConfig,
    dirs: Vec<Dir>,
    phase: Phase,
    booted: Option<Booted>,
    /// Directories that become this broker's, once the metadata log's has.
    to_format: BTreeMap<LogDirId, MetaProperties>,
    /// Those, and it, while they are not: none of them may fail.
    formatting: BTreeSet<LogDirId>,
    /// Ids for what turns out to be new, drawn ahead so that the order of completions does not matter.
    drawn_cluster_id: Uuid,
    drawn_directory_ids: Vec<Uuid>,
}

impl LogDirs {
    /// `draw` gives random bytes, for the ids of a new cluster and of new directories.
    pub fn new(config: LogDirsConfig, mut draw: impl FnMut() -> [u8; 16]) -> Self {
        assert!(!config.paths.is_empty(), "log.dirs names no directory");
        assert!(usize::from(config.metadata_dir.0) < config.paths.len(), "metadata.log.dir is none of log.dirs");
        let dir = |(place, path): (usize, &String)| Dir {
            id: LogDirId(u16::try_from(place).expect("fewer than 65536 log.dirs")),
            path: path.clone(),
            status: Status::Online,
            directory_id: None,
            found: Found::default(),
            next_seq: 0,
            pending: BTreeMap::new(),
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

    /// Begins to read the directories. The world has made those that were not there.
    pub fn boot(&mut self, out: &mut Outbox) {
        assert_eq!(self.phase, Phase::New, "booted twice");
        self.phase = Phase::Reading;
        for dir in &mut self.dirs {
            dir.issue(Pending::List, IoOp::List { path: dir.file("") }, out);
        }
    }

    /// Takes the completion of a command of [`IoOwner::Dir`].
    pub fn handle_io(&mut self, completion: IoCompletion, out: &mut Outbox) -> Vec<DirEvent> {
        let IoOwner::Dir(id) = completion.id.owner else { panic!("a completion of {:?}", completion.id.owner) };
        let dir = &mut self.dirs[usize::from(id.0)];
        let pending = dir.pending.remove(&completion.id.seq).expect("a completion of no command in flight");
        let mut events = Vec::new();
        if dir.status != Status::Online || matches!(self.phase, Phase::Failed | Phase::Stopped) {
            // Nothing of it counts any more, but somebody may still wait for the sizes of a volume.
            if pending == Pending::Volume {
                events.push(DirEvent::Volume { dir: id, sizes: None });
            }
            return events;
        }
        match dir.complete(pending, completion.result, out) {
            Ok(event) => events.extend(event),
            Err(reason) => events.extend(self.mark_offline(id, reason, out)),
        }
        self.go_on(out, &mut events);
        events
    }

    /// Takes the step that what is in flight was waited for, if it was the last.
    fn go_on(&mut self, out: &mut Outbox, events: &mut Vec<DirEvent>) {
        let waiting = self.dirs.iter().any(Dir::is_waited_for);
        match self.phase {
            Phase::Reading if !waiting => self.settle(out, events),
            Phase::Settling if !waiting && !self.to_format.is_empty() => {
                for (id, meta) in std::mem::take(&mut self.to_format) {
                    self.dirs[usize::from(id.0)].settle(Some(&meta), out);
                }
            }
            Phase::Settling if !waiting => {
                self.formatting.clear();
                self.phase = Phase::Running;
                let mut booted = self.booted.take().expect("set by settle");
                booted.dirs.retain(|state| self.dirs[usize::from(state.dir.0)].status == Status::Online);
                events.push(DirEvent::Ready(booted));
            }
            Phase::Stopping { marker } => {
                for dir in &mut self.dirs {
                    dir.finish(marker, out);
                }
                if !self.dirs.iter().any(Dir::is_waited_for) {
                    self.phase = Phase::Stopped;
                    events.push(DirEvent::Stopped);
                }
            }
            _ => {}
        }
    }

    /// All has been read: judges it, and changes the directories as the verdict says.
    fn settle(&mut self, out: &mut Outbox, events: &mut Vec<DirEvent>) {
        let verdict = match judge::judge(&self.config, &self.dirs, self.drawn_cluster_id, &self.drawn_directory_ids) {
            Ok(verdict) => verdict,
            Err(text) => return self.fail(text, out),
        };
        self.phase = Phase::Settling;
        for (level, text) in verdict.notes {
            out.event(level, PART, text);
        }
        let is_new = |id: &LogDirId| self.dirs[usize::from(id.0)].found.meta.is_none();
        self.formatting = verdict.meta_to_write.keys().copied().filter(is_new).collect();
        let formats_metadata = self.formatting.contains(&self.config.metadata_dir);
        for state in &verdict.booted.dirs {
            let dir = &mut self.dirs[usize::from(state.dir.0)];
            dir.directory_id = Some(state.directory_id);
            match verdict.meta_to_write.get(&state.dir) {
                Some(meta) if formats_metadata && state.dir != self.config.metadata_dir => {
                    self.to_format.insert(state.dir, meta.clone());
                }
                meta => dir.settle(meta, out),
            }
        }
        self.booted = Some(verdict.booted);
        self.go_on(out, events);
    }

    /// The directory has failed, here or in one of its logs; it stays offline. No events where it already was.
    pub fn mark_offline(&mut self, id: LogDirId, reason: String, out: &mut Outbox) -> Vec<DirEvent> {
        let dir = &mut self.dirs[usize::from(id.0)];
        let mut events = Vec::new();
        if dir.status != Status::Online {
            return events;
        }
        out.probe(Probe::DirOffline);
        out.event(Level::Error, PART, format!("log directory {} is offline: {reason}", dir.path));
        dir.status = Status::Offline(reason.clone());
        dir.found = Found::default();
        dir.checkpoints = Default::default();
        let path = dir.path.clone();
        events.push(DirEvent::Offline { dir: id, reason: reason.clone() });
        if self.dirs.iter().all(|dir| dir.status != Status::Online) {
            self.fail(format!("all of log.dirs are offline; the last was {path}: {reason}"), out);
        } else if id == self.config.metadata_dir {
            self.fail(format!("{path}, the directory of the metadata log, is offline: {reason}"), out);
        } else if self.formatting.contains(&id) {
            // A cluster that had begun without it would take it for a volume that is not mounted ever after.
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

    /// Replaces a checkpoint. One write of a file is in flight at a time; of those that wait the newest is written.
    /// What the file already holds is not written again. Nothing happens for a directory that is offline.
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

    /// The writes of what was handed in until now.
    pub fn writes(&self, id: LogDirId) -> CheckpointWrites {
        let last = |file: &CheckpointFile| file.begun + u64::from(file.queued.is_some());
        CheckpointWrites(self.dirs[usize::from(id.0)].checkpoints.each_ref().map(last))
    }

    /// Whether all of these are on stable storage, or the directory is offline.
    pub fn has_written(&self, id: LogDirId, writes: CheckpointWrites) -> bool {
        let dir = &self.dirs[usize::from(id.0)];
        dir.status != Status::Online || dir.checkpoints.iter().zip(writes.0).all(|(file, write)| file.done >= write)
    }

    /// Stops: waits for the checkpoints handed in before, then writes the clean-shutdown marker with the broker's
    /// epoch. `None` where not all logs were closed: the next start recovers. [`DirEvent::Stopped`] ends it; an empty
    /// list says that it comes with a later completion.
    pub fn stop(&mut self, marker: Option<i64>, out: &mut Outbox) -> Vec<DirEvent> {
        let mut events = Vec::new();
        match self.phase {
            Phase::Running => {
                self.phase = Phase::Stopping { marker };
                self.go_on(out, &mut events);
            }
            Phase::Stopping { .. } | Phase::Stopped => panic!("stopped twice"),
            Phase::New | Phase::Reading | Phase::Settling | Phase::Failed => {
                self.phase = Phase::Stopped;
                events.push(DirEvent::Stopped);
            }
        }
        events
    }

    /// Asks how large a volume is; [`DirEvent::Volume`] answers all who asked until then. False where the directory
    /// is offline: nothing will come.
    pub fn query_volume(&mut self, id: LogDirId, out: &mut Outbox) -> bool {
        let dir = &mut self.dirs[usize::from(id.0)];
        if dir.status != Status::Online {
            return false;
        }
        if !dir.pending.values().any(|pending| *pending == Pending::Volume) {
            dir.issue(Pending::Volume, IoOp::Volume { dir: id }, out);
        }
        true
    }

    /// Gives the directory of a partition that belongs to nobody here a name that nobody uses, and yields it. Until it
    /// has that, [`is_setting_aside`](Self::is_setting_aside). `None` where the log directory is offline.
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
        dir.issue(Pending::Settle, IoOp::Rename { from, to }, out);
        dir.issue(Pending::Aside, IoOp::SyncDir { path: dir.file("") }, out);
        Some(name)
    }

    pub fn is_setting_aside(&self) -> bool {
        let mut online = self.dirs.iter().filter(|dir| dir.status == Status::Online);
        online.any(|dir| dir.pending.values().any(|pending| *pending == Pending::Aside))
    }

    /// The directory for a new partition: the one that is online with the fewest, as `partitions_in` counts them.
    pub fn choose(&self, partitions_in: impl Fn(LogDirId) -> usize) -> Option<LogDirId> {
        self.online().min_by_key(|id| (partitions_in(*id), *id))
    }

    /// The directories that are online.
    pub fn online(&self) -> impl Iterator<Item = LogDirId> {
        self.dirs.iter().filter(|dir| dir.status == Status::Online).map(|dir| dir.id)
    }

    pub fn is_online(&self, id: LogDirId) -> bool {
        self.dirs[usize::from(id.0)].status == Status::Online
    }

    /// All directories with their paths, offline ones included.
    pub fn paths(&self) -> impl Iterator<Item = (LogDirId, &str)> {
        self.dirs.iter().map(|dir| (dir.id, dir.path.as_str()))
    }

    /// Known from when a directory was settled; of one that never came up it is not.
    pub fn directory_id(&self, id: LogDirId) -> Option<Uuid> {
        self.dirs[usize::from(id.0)].directory_id
    }

    /// The directory of this id, if it is one of ours.
    pub fn by_directory_id(&self, directory_id: Uuid) -> Option<LogDirId> {
        self.dirs.iter().find(|dir| dir.directory_id == Some(directory_id)).map(|dir| dir.id)
    }

    /// Asserts the invariants.
    pub fn verify(&self) {
        for dir in &self.dirs {
            for kind in CheckpointKind::ALL {
                let file = &dir.checkpoints[kind as usize];
                assert!(file.queued.is_none() || file.in_flight.is_some(), "{kind:?} waits for nothing");
            }
            let markers = dir.pending.values().filter(|pending| **pending == Pending::Marker).count();
            assert!(markers == 0 || matches!(self.phase, Phase::Stopping { .. } | Phase::Stopped | Phase::Failed));
        }
    }
}

impl Dir {
    fn file(&self, name: &str) -> DiskPath {
        DiskPath { dir: self.id, path: name.to_owned() }
    }

    /// For messages.
    fn full_path(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    fn issue(&mut self, pending: Pending, op: IoOp, out: &mut Outbox) {
        let id = IoId { owner: IoOwner::Dir(self.id), seq: self.next_seq };
        self.next_seq += 1;
        self.pending.insert(id.seq, pending);
        out.io(id, op);
    }

    /// Whether the next phase must wait for this directory.
    fn is_waited_for(&self) -> bool {
        let counts = |pending: &Pending| !matches!(pending, Pending::Clean | Pending::Volume);
        self.status == Status::Online && self.pending.values().any(counts)
    }

    /// The end of one command. An error is the reason for which the directory goes offline.
    fn complete(
        &mut self,
        pending: Pending,
        result: Result<IoDone, IoError>,
        out: &mut Outbox,
    ) -> Result<Option<DirEvent>, String> {
        let failed = |error: IoError| error.text;
        match pending {
            Pending::Settle | Pending::Marker => {
                result.map_err(failed)?;
            }
            Pending::List => match result.map_err(failed)? {
                IoDone::Entries(entries) => self.load(entries, out),
                other => panic!("a List was answered with {other:?}"),
            },
            Pending::LoadMeta => {
                let file = self.full_path(names::META_PROPERTIES);
                if let Some(bytes) = loaded(result).map_err(failed)? {
                    self.found.meta = Some(MetaProperties::decode(&file, &bytes).map_err(|error| error.to_string())?);
                }
            }
            Pending::LoadMarker => {
                let content = loaded(result).map_err(failed)?;
                self.found.marker = content.map(|bytes| checkpoints::decode_clean_shutdown(&bytes));
            }
            Pending::LoadCheckpoint(kind) => {
                let file = self.full_path(kind.file());
                // A hint: where it cannot be read, what it says is found out from the logs.
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
            Pending::LoadTopicId(entry) => {
                let name = self.found.entries[entry].name.clone();
                let file = self.full_path(&format!("{name}/{}", names::PARTITION_METADATA));
                if let Some(bytes) = loaded(result).map_err(failed)? {
                    let id =
                        checkpoints::decode_partition_metadata(&file, &bytes).map_err(|error| error.to_string())?;
                    self.found.topic_ids.insert(name, id);
                }
            }
            Pending::Aside => {
                result.map_err(failed)?;
                return Ok(Some(DirEvent::SetAside));
            }
            Pending::Clean => {
                if let Err(error) = result {
                    out.event(Level::Warn, PART, format!("what is left of a deletion stays: {error}"));
                }
            }
            Pending::Checkpoint(kind) => {
                result.map_err(failed)?;
                let file = &mut self.checkpoints[kind as usize];
                file.written = file.in_flight.take();
                file.done += 1;
                self.write_queued(kind, out);
                return Ok(Some(DirEvent::CheckpointWritten { dir: self.id, kind }));
            }
            Pending::Volume => {
                let sizes = match result {
                    Ok(IoDone::Volume { total_bytes, usable_bytes }) => Some(VolumeSizes { total_bytes, usable_bytes }),
                    _ => None,
                };
                return Ok(Some(DirEvent::Volume { dir: self.id, sizes }));
            }
        }
        Ok(None)
    }

    /// The root was listed: reads the files that are there.
    fn load(&mut self, entries: Vec<DirEntry>, out: &mut Outbox) {
        let files = [
            (names::META_PROPERTIES, SMALL_FILE_BYTES_MAX, Pending::LoadMeta),
            (names::CLEAN_SHUTDOWN, SMALL_FILE_BYTES_MAX, Pending::LoadMarker),
        ];
        let checkpoint = |kind: CheckpointKind| (kind.file(), CHECKPOINT_BYTES_MAX, Pending::LoadCheckpoint(kind));
        for (name, limit_bytes, pending) in files.into_iter().chain(CheckpointKind::ALL.map(checkpoint)) {
            if entries.iter().any(|entry| entry.name == name && !entry.is_dir) {
                self.issue(pending, IoOp::Load { path: self.file(name), limit_bytes }, out);
            }
        }
        for (place, entry) in entries.iter().enumerate() {
            if entry.is_dir && judge::is_partition(&entry.name) {
                let path = self.file(&format!("{}/{}", entry.name, names::PARTITION_METADATA));
                let op = IoOp::Load { path, limit_bytes: SMALL_FILE_BYTES_MAX };
                self.issue(Pending::LoadTopicId(place), op, out);
            }
        }
        self.found.entries = entries;
    }

    /// Makes the directory this life's: from here on only a clean stop makes it clean again.
    fn settle(&mut self, meta: Option<&MetaProperties>, out: &mut Outbox) {
        if let Some(meta) = meta {
            let path = self.file(names::META_PROPERTIES);
            self.issue(Pending::Settle, IoOp::Replace { path, content: meta.encode() }, out);
        }
        let mut found = std::mem::take(&mut self.found);
        let here: BTreeSet<&str> =
            found.entries.iter().filter(|entry| entry.is_dir).map(|entry| entry.name.as_str()).collect();
        for (kind, offsets) in &mut found.offsets {
            // The name of a topic that is gone, which another may get: it is not to be recovered by these.
            let before = offsets.len();
            offsets.retain(|name, _| here.contains(name.to_string().as_str()));
            if offsets.len() < before {
                let (path, content) = (self.file(kind.file()), checkpoints::encode_offsets(offsets));
                self.issue(Pending::Settle, IoOp::Replace { path, content }, out);
            }
        }
        if found.marker.is_some() {
            self.issue(Pending::Settle, IoOp::Remove { path: self.file(names::CLEAN_SHUTDOWN) }, out);
        }
        // Without a marker too: the last life may have removed it and died before that was stable.
        self.issue(Pending::Settle, IoOp::SyncDir { path: self.file("") }, out);
        for entry in &found.entries {
            let path = self.file(&entry.name);
            if entry.is_dir && judge::is_deleted_partition(&entry.name) {
                self.issue(Pending::Clean, IoOp::RemoveDir { path }, out);
            } else if !entry.is_dir && judge::is_leftover_of_ours(&entry.name) {
                self.issue(Pending::Clean, IoOp::Remove { path }, out);
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
        self.issue(Pending::Checkpoint(kind), IoOp::Replace { path, content }, out);
    }

    /// Writes the clean-shutdown marker, once, after all else.
    fn finish(&mut self, marker: Option<i64>, out: &mut Outbox) {
        let Some(broker_epoch) = marker else { return };
        if self.status == Status::Online && !self.is_waited_for() && !self.marker_issued {
            self.marker_issued = true;
            let content = checkpoints::encode_clean_shutdown(broker_epoch);
            let path = self.file(names::CLEAN_SHUTDOWN);
            self.issue(Pending::Marker, IoOp::Replace { path, content }, out);
        }
    }
}

/// What a Load brought; `None` for a file that is not there.
fn loaded(result: Result<IoDone, IoError>) -> Result<Option<Bytes>, IoError> {
    match result {
        Ok(IoDone::Bytes(bytes)) => Ok(Some(bytes)),
        Ok(other) => panic!("a Load was answered with {other:?}"),
        Err(error) if error.kind == IoErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
