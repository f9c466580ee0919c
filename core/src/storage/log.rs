//! The log of one partition, as a state machine over I/O commands.
//!
//! All commands of a log go down one lane, which a world carries out in order: hence an append is issued at once and
//! does not wait for what was issued before it, and a completion says that everything before it is done as well. Only a
//! new segment waits until all before it has succeeded.
//!
//! Four offsets say how far the log has come, each at or behind the one before:
//! `log_end_offset` (assigned, writes issued), `written_offset` (visible to reads), `synced_offset` (survives a
//! crash), `log_start_offset`. What may be acknowledged ends at [`Log::stable_offset`].
//!
//! After a failed command nothing more is written or trusted: the log is offline for the rest of this life.

use super::checkpoints;
use super::indexes::IndexLoad;
use super::lane::Lane;
use super::leader_epochs::{EpochEnd, LeaderEpochs};
use super::names::{self, FileKind};
use super::producer_state::ProducerState;
use super::read::{Job, ReadOutcome};
use super::recovery::{Loader, LoaderStep};
use super::retention::{Leaving, Removal};
use super::segment::Segment;
use super::settings::LogSettings;
use super::tail::Tail;
use super::timestamps::TimestampedOffset;
use crate::ids::{FileId, LeaderEpoch, LogDirId, LogId, Offset, Uuid};
use crate::io::{Chunks, DiskPath, IoCompletion, IoDone, IoError, IoErrorKind, IoOp, Level, Outbox};
use crate::plant::{Plant, Plants};
use crate::probe::Probe;
use crate::time::{Mono, Now};
use bytes::Bytes;
use smallvec::smallvec;
use std::collections::VecDeque;

pub(super) const PART: &str = "storage";
/// Producers that were silent for too long are looked for this often.
const EXPIRY_CHECK_MS: i64 = 600_000;

/// Where a log lies, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPlace {
    pub dir: LogDirId,
    /// The name of its directory: `<topic>-<partition>`.
    pub name: String,
    pub topic_id: Uuid,
}

/// What is known of a log before it is loaded: what the log directory, with its checkpoints, says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadHints {
    /// Whether the last life stopped cleanly: the log needs no recovery.
    pub clean: bool,
    /// Everything below was on stable storage. What is damaged below it is corruption, never a torn tail.
    pub recovery_point: Option<Offset>,
    pub log_start: Option<Offset>,
    /// Whether its `partition.metadata` names its topic. Where it has none, loading writes it.
    pub has_topic_id: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogState {
    /// Being read, or cut by [`Log::truncate_to`].
    Loading,
    Open,
    /// A command failed, or the content is corrupt. The text says what and where.
    Offline(String),
    Closing,
    Closed,
    /// Its directory has been renamed and waits for its removal.
    Deleting,
    Deleted,
}

/// What a completion brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// The log is open, and everything it holds is on stable storage.
    Loaded,
    /// [`Log::truncate_to`] is done.
    Truncated,
    /// The log is offline. The reason has been given as an event of the operator's log as well.
    Failed(String),
    /// A [`Log::read`] that was pending.
    ReadDone { token: u64, outcome: ReadOutcome },
    /// A [`Log::offset_for_timestamp`] that was pending; an error where the log could not be read.
    LookupDone { token: u64, found: Result<Option<TimestampedOffset>, String> },
    /// [`Log::close`] is done: the log directory's checkpoints may say so.
    Closed,
    /// The directory of a log that is being deleted has been renamed: its name is free.
    Vacated,
    /// Nothing of the log is left on the disk.
    Deleted,
}

/// What a command in flight is for.
#[derive(Debug)]
pub(super) enum Pending {
    /// Part of a sequence that nobody waits for; its failure is the log's.
    Step,
    /// Removing what nobody needs: a failure leaves rubbish and is no loss.
    Tidy,
    Written {
        segment: Offset,
        len: u32,
        end_offset: Offset,
    },
    Synced {
        end_offset: Offset,
    },
    /// The name of a new segment becomes stable.
    Named,
    Load(LoaderStep),
    IndexLoaded {
        segment: Offset,
        kind: FileKind,
    },
    IndexScanned {
        segment: Offset,
        position: u64,
    },
    /// A region of the log file for a [`Job`].
    Region {
        job: u64,
    },
    /// The files of a segment that leaves are renamed.
    Aside,
    Closed,
    Renaming,
    Renamed,
    Deleted,
}

/// See the [module's](super) documentation. The order of calls: [`create`](Self::create) or [`load`](Self::load);
/// every completion of its [`IoOwner::Log`](crate::io::IoOwner::Log) to [`handle_io`](Self::handle_io);
/// [`tick`](Self::tick) at [`deadline`](Self::deadline). Appends and reads are for an [`LogState::Open`] log.
#[derive(Debug)]
pub struct Log {
    pub(super) id: LogId,
    pub(super) place: LogPlace,
    pub(super) settings: LogSettings,
    pub(super) plants: Plants,
    pub(super) state: LogState,
    /// The directory's name now; another than the place's once the log is deleted.
    dir_name: String,
    next_file: u32,
    pub(super) lane: Lane<Pending>,
    /// By base offset; the last is the active one. Never empty while open.
    pub(super) segments: Vec<Segment>,
    pub(super) log_start: Offset,
    pub(super) log_end: Offset,
    pub(super) written: Offset,
    pub(super) synced: Offset,
    /// How far the syncs in flight reach; where none is, the same as `synced`.
    pub(super) sync_issued: Offset,
    pub(super) syncs_in_flight: u32,
    /// When the oldest record that no sync covers was appended (`flush.ms`).
    pub(super) unsynced_since: Option<Mono>,
    pub(super) tail: Tail,
    pub(super) epochs: LeaderEpochs,
    pub(super) producers: ProducerState,
    /// The producer snapshots on disk, by offset.
    pub(super) snapshots: Vec<Offset>,
    pub(super) jobs: Vec<Job>,
    pub(super) next_job: u64,
    pub(super) index_loads: Vec<IndexLoad>,
    /// A use of an index: counts up.
    pub(super) index_uses: u64,
    /// What was stable under earlier settings.
    pub(super) promised: Offset,
    /// New segments whose names are not stable yet.
    pub(super) names_in_flight: usize,
    /// The high watermark of a retention that waits for an index, or for a name.
    pub(super) retention_waits: Option<Offset>,
    /// Segments that have left, oldest first, whose files are still to be renamed one after the other.
    pub(super) leaving: VecDeque<Leaving>,
    pub(super) is_setting_aside: bool,
    pub(super) removals: VecDeque<Removal>,
    pub(super) loader: Option<Box<Loader>>,
    close_after_load: bool,
    next_expiry_check: Option<Mono>,
}

impl Log {
    fn new(id: LogId, place: LogPlace, settings: LogSettings, plants: Plants) -> Self {
        Self {
            id,
            dir_name: place.name.clone(),
            place,
            settings,
            plants,
            state: LogState::Loading,
            next_file: 0,
            lane: Lane::new(id),
            segments: Vec::new(),
            log_start: Offset::ZERO,
            log_end: Offset::ZERO,
            written: Offset::ZERO,
            synced: Offset::ZERO,
            sync_issued: Offset::ZERO,
            syncs_in_flight: 0,
            unsynced_since: None,
            tail: Tail::default(),
            epochs: LeaderEpochs::new(),
            producers: ProducerState::new(Offset::ZERO, plants),
            snapshots: Vec::new(),
            jobs: Vec::new(),
            next_job: 0,
            index_loads: Vec::new(),
            index_uses: 0,
            promised: Offset(0),
            names_in_flight: 0,
            retention_waits: None,
            leaving: VecDeque::new(),
            is_setting_aside: false,
            removals: VecDeque::new(),
            loader: None,
            close_after_load: false,
            next_expiry_check: None,
        }
    }

    /// A new partition's log. It is open at once: what is appended follows its creation down the lane.
    pub fn create(
        id: LogId,
        place: LogPlace,
        settings: LogSettings,
        plants: Plants,
        now: Now,
        out: &mut Outbox,
    ) -> Self {
        let mut log = Self::new(id, place, settings, plants);
        let dir = log.path("");
        log.issue(Pending::Step, IoOp::CreateDir { path: dir }, out);
        log.issue(Pending::Step, IoOp::SyncDir { path: log.root() }, out);
        let content = checkpoints::encode_partition_metadata(log.place.topic_id);
        // KIP-516: before the first record.
        log.replace(names::PARTITION_METADATA, content, out);
        log.add_segment(Offset::ZERO, now, out);
        log.state = LogState::Open;
        log
    }

    /// A log that lies on the disk. It is usable from [`LogEvent::Loaded`] on.
    pub fn load(
        id: LogId,
        place: LogPlace,
        settings: LogSettings,
        plants: Plants,
        hints: LoadHints,
        out: &mut Outbox,
    ) -> Self {
        let mut log = Self::new(id, place, settings, plants);
        log.start_loading(hints, None, out);
        log
    }

    pub fn place(&self) -> &LogPlace {
        &self.place
    }

    pub fn settings(&self) -> &LogSettings {
        &self.settings
    }

    pub fn state(&self) -> &LogState {
        &self.state
    }

    pub fn is_open(&self) -> bool {
        self.state == LogState::Open
    }

    /// New settings; they count from the next append or tick on.
    pub fn configure(&mut self, settings: LogSettings, out: &mut Outbox) {
        // What was acknowledged from the page cache does not become unread when the topic asks for more.
        self.promised = self.promised.max(self.stable_offset());
        self.settings = settings;
        if self.is_open() {
            self.commit(out);
        }
    }

    /// The first offset that may be read.
    pub fn log_start_offset(&self) -> Offset {
        self.log_start
    }

    /// The offset the next record gets.
    pub fn log_end_offset(&self) -> Offset {
        self.log_end
    }

    /// Below it everything has been written and can be read, but a crash may lose it.
    pub fn written_offset(&self) -> Offset {
        self.written
    }

    /// Below it everything is on stable storage. Also what the recovery-point checkpoint is to say.
    pub fn synced_offset(&self) -> Offset {
        self.synced
    }

    /// Below it everything may be acknowledged: what is on stable storage, or, where the topic does not ask for
    /// that (`acks.require.fsync=false`), what has been written.
    pub fn stable_offset(&self) -> Offset {
        if !self.settings.require_fsync {
            self.written
        } else if self.plants.has(Plant::AcknowledgeBeforeSync) {
            self.log_end
        } else {
            self.synced.max(self.promised)
        }
    }

    /// KIP-101: where the greatest epoch at or below `epoch` ends. [`EpochEnd::UNKNOWN`] where nothing can be said.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> EpochEnd {
        self.epochs.end_offset_for(epoch, self.log_end)
    }

    /// The latest epoch that was written in; [`LeaderEpoch::UNKNOWN`] where there is none.
    pub fn latest_epoch(&self) -> LeaderEpoch {
        self.epochs.latest_epoch()
    }

    pub fn epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    pub fn producers(&self) -> &ProducerState {
        &self.producers
    }

    /// The producers' view of how far all replicas have come: it decides which transactions are settled.
    pub fn advance_high_watermark(&mut self, high_watermark: Offset) {
        self.producers.advance_high_watermark(high_watermark);
    }

    /// The size of all segments' log files.
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.len)).sum()
    }

    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Notes that `epoch` begins at the end of the log: a new leader does so even if nothing is ever appended, or it
    /// could not answer for epochs that only its followers saw (KAFKA-7415).
    pub fn assign_epoch(&mut self, epoch: LeaderEpoch, out: &mut Outbox) {
        assert!(self.is_open(), "an epoch for a log that is {:?}", self.state);
        if self.epochs.assign(epoch, self.log_end) {
            self.write_epochs(out);
        }
    }

    /// When [`tick`](Self::tick) is due.
    pub fn deadline(&self) -> Option<Mono> {
        let flush = self.unsynced_since.filter(|_| self.settings.flush_ms < i64::MAX / 1_000_000);
        let flush = flush.map(|since| since.plus_ms(self.settings.flush_ms));
        let removal = self.removals.front().map(|removal| removal.at);
        let expiry = self.next_expiry_check.filter(|_| self.is_open() && !self.producers.is_empty());
        flush.into_iter().chain(removal).chain(expiry).min()
    }

    /// Does what time has brought. May come late, and when nothing is due.
    pub fn tick(&mut self, now: Now, out: &mut Outbox) {
        self.remove_due(now, out);
        if !self.is_open() {
            return;
        }
        if self.unsynced_since.is_some_and(|since| since.plus_ms(self.settings.flush_ms) <= now.mono) {
            self.flush(out);
        }
        match self.next_expiry_check {
            Some(due) if now.mono < due => {}
            _ => {
                self.producers.remove_expired(now.wall, self.settings.producer_id_expiration_ms);
                self.next_expiry_check = Some(now.mono.plus_ms(EXPIRY_CHECK_MS));
            }
        }
    }

    pub(super) fn watch_producers(&mut self, now: Now) {
        self.next_expiry_check.get_or_insert(now.mono.plus_ms(EXPIRY_CHECK_MS));
    }

    /// Ends the log's life cleanly: everything is made stable and left so that the next start reads next to nothing.
    /// Ends with [`LogEvent::Closed`], unless the log is offline or gone.
    pub fn close(&mut self, out: &mut Outbox) {
        match self.state {
            LogState::Loading => self.close_after_load = true,
            LogState::Open => {
                self.write_tails(out);
                self.leave_in_place(out);
                self.remove_all(out);
                for slot in 0..self.segments.len() {
                    let last = slot + 1 == self.segments.len();
                    let pending = if last { Pending::Closed } else { Pending::Step };
                    self.issue(pending, IoOp::Close { file: self.segments[slot].file }, out);
                }
                self.state = LogState::Closing;
            }
            _ => {}
        }
    }

    /// Writes everything that a clean start reads, and makes it stable.
    pub(super) fn write_tails(&mut self, out: &mut Outbox) {
        self.sync_active(out);
        self.write_snapshot(out);
        let active = self.segments.len() - 1;
        self.segments[active].seal();
        self.write_indexes(active, out);
        let dir = self.path("");
        self.issue(Pending::Step, IoOp::SyncDir { path: dir }, out);
    }

    /// Takes the completion of a command of this log.
    pub fn handle_io(&mut self, now: Now, completion: IoCompletion, out: &mut Outbox, events: &mut Vec<LogEvent>) {
        let pending = self.lane.complete(completion.id);
        match self.state {
            LogState::Offline(_) | LogState::Closed | LogState::Deleted => return,
            LogState::Deleting => {
                self.answer_all("the log is deleted", events);
                match pending {
                    Pending::Renaming | Pending::Renamed if completion.result.is_err() => {
                        let error = completion.result.expect_err("just asked");
                        self.fail(error.text, out, events);
                    }
                    Pending::Renamed => events.push(LogEvent::Vacated),
                    Pending::Deleted => {
                        self.state = LogState::Deleted;
                        events.push(LogEvent::Deleted);
                    }
                    _ => {}
                }
                self.lane.go_on(out);
                return;
            }
            LogState::Loading | LogState::Open | LogState::Closing => {}
        }
        if let Err(reason) = self.complete(now, pending, completion.result, out, events) {
            self.fail(reason, out, events);
        } else if self.close_after_load && self.is_open() {
            self.close_after_load = false;
            self.close(out);
        }
        self.lane.go_on(out);
    }

    fn complete(
        &mut self,
        now: Now,
        pending: Pending,
        result: Result<IoDone, IoError>,
        out: &mut Outbox,
        events: &mut Vec<LogEvent>,
    ) -> Result<(), String> {
        let text = |error: IoError| error.text;
        match pending {
            Pending::Step => result.map(drop).map_err(text),
            Pending::Tidy => {
                if let Err(error) = result {
                    out.event(Level::Warn, PART, format!("{}: {error}; the file is left behind", self.place.name));
                }
                Ok(())
            }
            Pending::Written { segment, len, end_offset } => {
                if result.is_err() {
                    out.probe(Probe::WriteFailed);
                }
                result.map_err(text)?;
                self.note_written(segment, len, end_offset);
                Ok(())
            }
            Pending::Synced { end_offset } => {
                if result.is_err() {
                    out.probe(Probe::SyncFailed);
                }
                if !self.plants.has(Plant::SyncErrorIgnored) {
                    result.map_err(text)?;
                }
                self.note_synced(end_offset, out);
                Ok(())
            }
            Pending::Named => {
                result.map_err(text)?;
                self.names_in_flight -= 1;
                self.resume_waiting(now, out, events);
                Ok(())
            }
            Pending::Load(step) => self.loader_completed(now, step, result, out, events),
            // What is closing is asked nothing any more, and its files must not be read behind their closing.
            Pending::IndexLoaded { .. } | Pending::IndexScanned { .. } if self.state == LogState::Closing => {
                result.map(drop).or_else(|error| match error.kind {
                    IoErrorKind::NotFound | IoErrorKind::TooLarge => Ok(()),
                    _ => Err(error.text),
                })
            }
            Pending::IndexLoaded { segment, kind } => {
                self.index_loaded(segment, kind, result, out)?;
                self.resume_waiting(now, out, events);
                Ok(())
            }
            Pending::IndexScanned { segment, position } => {
                self.index_scanned(segment, position, result, out)?;
                self.resume_waiting(now, out, events);
                Ok(())
            }
            Pending::Region { job } => {
                let Ok(IoDone::Bytes(bytes)) = result else { return Err(failure(result)) };
                self.region_read(job, bytes, out, events);
                Ok(())
            }
            Pending::Aside => {
                result.map_err(text)?;
                self.set_aside(out);
                Ok(())
            }
            Pending::Closed => {
                result.map_err(text)?;
                self.state = LogState::Closed;
                self.answer_all("the log is closed", events);
                events.push(LogEvent::Closed);
                Ok(())
            }
            Pending::Renaming | Pending::Renamed | Pending::Deleted => {
                unreachable!("only a log that is being deleted waits for it")
            }
        }
    }

    /// What waited for an index, or for a segment's name, goes on.
    fn resume_waiting(&mut self, now: Now, out: &mut Outbox, events: &mut Vec<LogEvent>) {
        if !self.is_open() {
            return;
        }
        self.resume_jobs(out, events);
        if let Some(high_watermark) = self.retention_waits.take() {
            self.enforce_retention(now, high_watermark, out);
        }
    }

    /// The log directory is offline, whoever found out: nothing more is written or trusted here.
    pub fn take_offline(&mut self, reason: &str, out: &mut Outbox, events: &mut Vec<LogEvent>) {
        if !matches!(self.state, LogState::Offline(_) | LogState::Closed | LogState::Deleting | LogState::Deleted) {
            self.go_offline(reason.to_owned(), out, events);
        }
    }

    pub(super) fn fail(&mut self, reason: String, out: &mut Outbox, events: &mut Vec<LogEvent>) {
        if self.plants.has(Plant::AppendsAfterIoError) && self.is_open() {
            return;
        }
        out.probe(Probe::LogOffline);
        let reason = format!("{}: {reason}", self.place.name);
        out.event(Level::Error, PART, format!("the log goes offline: {reason}"));
        self.go_offline(reason, out, events);
    }

    fn go_offline(&mut self, reason: String, out: &mut Outbox, events: &mut Vec<LogEvent>) {
        self.answer_all(&reason, events);
        self.loader = None;
        self.lane.drop_held(out);
        self.index_loads.clear();
        self.leaving.clear();
        self.removals.clear();
        self.unsynced_since = None;
        self.state = LogState::Offline(reason.clone());
        events.push(LogEvent::Failed(reason));
    }

    /// Asserts the invariants.
    pub fn verify(&self) {
        self.producers.verify();
        self.lane.verify();
        if !self.is_open() {
            return;
        }
        assert!(!self.segments.is_empty(), "a log has an active segment");
        assert!(self.segments[0].base <= self.log_start, "the log starts in its first segment or later");
        assert!(self.log_start <= self.log_end && self.written <= self.log_end && self.synced <= self.written);
        assert!(self.synced <= self.sync_issued && self.sync_issued <= self.log_end);
        assert!(self.settings.require_fsync || self.stable_offset() == self.written);
        assert!(
            !self.settings.require_fsync || self.sync_issued == self.log_end || self.syncs_in_flight > 0,
            "what is appended is on its way to stable storage"
        );
        for pair in self.segments.windows(2) {
            assert!(pair[0].base < pair[1].base, "segments stand in order");
            assert!(pair[0].len > 0, "only the active segment may be empty");
        }
        for (slot, segment) in self.segments.iter().enumerate() {
            let end = self.segments.get(slot + 1).map_or(self.log_end, |next| next.base);
            assert!(segment.base <= end && segment.written_len <= segment.len);
            let Some(indexes) = &segment.indexes else { continue };
            let last = indexes.offsets.last();
            assert!(last.is_none_or(|last| last.position < segment.len && last.offset < end), "an index looks ahead");
            assert!(indexes.times.last().is_none_or(|last| last.offset < end), "a time index looks ahead");
        }
        assert!(
            self.segments[self.segments.len() - 1].indexes.is_some(),
            "the active segment's indexes grow in memory"
        );
        assert_eq!(self.producers.end_offset(), self.log_end, "producers know of every batch");
        let unstable_from = self.stable_offset().min(self.synced);
        if let Some(front) = self.tail.front() {
            assert_eq!(self.tail.back().map(|batch| batch.last + 1), Some(self.log_end), "the tail reaches the end");
            assert!(front.base <= unstable_from || self.tail.iter().count() > 0);
            assert!(self.tail.iter().all(|batch| batch.base >= self.segments[0].base));
        }
        assert!(self.epochs.latest().is_none_or(|latest| latest.start_offset <= self.log_end));
    }
}

/// Commands.
impl Log {
    pub(super) fn root(&self) -> DiskPath {
        DiskPath { dir: self.place.dir, path: String::new() }
    }

    /// A file of the log's directory; empty for the directory itself.
    pub(super) fn path(&self, file: &str) -> DiskPath {
        let path = if file.is_empty() { self.dir_name.clone() } else { format!("{}/{file}", self.dir_name) };
        DiskPath { dir: self.place.dir, path }
    }

    pub(super) fn rename_dir(&mut self, name: String) {
        self.dir_name = name;
    }

    pub(super) fn segment_path(&self, base: Offset, kind: FileKind) -> DiskPath {
        self.path(&names::segment_file(base, kind))
    }

    /// A file id has the log's id in its upper half.
    pub(super) fn new_file(&mut self) -> FileId {
        self.next_file = self.next_file.checked_add(1).expect("fewer than 2^32 files in one log's life");
        FileId(u64::from(self.id.0) << 32 | u64::from(self.next_file))
    }

    pub(super) fn issue(&mut self, pending: Pending, op: IoOp, out: &mut Outbox) {
        self.lane.issue(pending, op, out);
    }

    pub(super) fn replace(&mut self, file: &str, content: Bytes, out: &mut Outbox) {
        let path = self.path(file);
        self.issue(Pending::Step, IoOp::Replace { path, content }, out);
    }

    pub(super) fn write_epochs(&mut self, out: &mut Outbox) {
        let content = self.epochs.encode();
        self.replace(names::LEADER_EPOCH_CHECKPOINT, content, out);
    }

    /// Writes the producers' state, for the end of the log.
    pub(super) fn write_snapshot(&mut self, out: &mut Outbox) {
        if let Some((offset, content)) = self.producers.take_snapshot() {
            out.probe(Probe::ProducerSnapshotWritten);
            self.replace(&names::segment_file(offset, FileKind::ProducerSnapshot), content, out);
            self.snapshots.push(offset);
        }
    }

    /// Writes and syncs both indexes of a segment, whole.
    pub(super) fn write_indexes(&mut self, slot: usize, out: &mut Outbox) {
        let base = self.segments[slot].base;
        let indexes = self.segments[slot].indexes.as_mut().expect("indexes to write are in memory");
        indexes.offsets.seal();
        indexes.times.seal();
        let contents =
            [(FileKind::OffsetIndex, indexes.offsets.encode()), (FileKind::TimeIndex, indexes.times.encode())];
        for (kind, content) in contents {
            let (file, path) = (self.new_file(), self.segment_path(base, kind));
            let len = content.len() as u64;
            let chunks: Chunks = smallvec![content];
            self.issue(Pending::Step, IoOp::Open { file, path, create: true }, out);
            if len > 0 {
                self.issue(Pending::Step, IoOp::Write { file, position: 0, chunks }, out);
            }
            self.issue(Pending::Step, IoOp::SetLen { file, len }, out);
            self.issue(Pending::Step, IoOp::Sync { file }, out);
            self.issue(Pending::Step, IoOp::Close { file }, out);
        }
    }

    /// A new active segment, with empty indexes beside it, as Kafka expects them.
    pub(super) fn add_segment(&mut self, base: Offset, now: Now, out: &mut Outbox) {
        let file = self.new_file();
        let path = self.segment_path(base, FileKind::Log);
        self.issue(Pending::Step, IoOp::Open { file, path, create: true }, out);
        for kind in [FileKind::OffsetIndex, FileKind::TimeIndex] {
            let (file, path) = (self.new_file(), self.segment_path(base, kind));
            self.issue(Pending::Step, IoOp::Open { file, path, create: true }, out);
            self.issue(Pending::Step, IoOp::Close { file }, out);
        }
        if !self.plants.has(Plant::NewSegmentNameNotSynced) {
            let dir = self.path("");
            self.names_in_flight += 1;
            self.issue(Pending::Named, IoOp::SyncDir { path: dir }, out);
        }
        self.segments.push(Segment::new(base, file, now.wall, self.settings.segment_index_bytes));
    }

    /// The place of the segment that `offset` belongs to; the first where it is below all.
    pub(super) fn segment_slot(&self, offset: Offset) -> usize {
        self.segments.partition_point(|segment| segment.base <= offset).saturating_sub(1)
    }

    pub(super) fn slot_of(&self, base: Offset) -> Option<usize> {
        self.segments.binary_search_by_key(&base, |segment| segment.base).ok()
    }
}

/// Why a command that should have given something did not.
pub(super) fn failure(result: Result<IoDone, IoError>) -> String {
    match result {
        Err(error) => error.text,
        Ok(done) => panic!("a world answered a command with {done:?}"),
    }
}
