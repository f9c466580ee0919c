//! The log of one partition, as a state machine over I/O commands.
//!
//! All commands of a log go into one [lane](super::lane), and the world carries them out in order. So an append is
//! issued at once and need not wait for earlier commands, and a completion means that all earlier commands except reads
//! have completed too. Only the creation of a new segment waits until all commands before it have succeeded.
//!
//! Invariant: `log_start_offset ≤ log_end_offset` and `synced_offset ≤ written_offset ≤ log_end_offset`. Records below
//! `log_end_offset` have an offset, and their writes are issued. Records below `written_offset` are written and can be
//! read. Records below `synced_offset` survive a crash. Records below [`Log::stable_offset`] may be acknowledged.
//!
//! After a failed command the log is offline until the broker is restarted: nothing more is written, and no file is
//! trusted.

use super::checkpoints;
use super::indexes::IndexLoad;
use super::lane::Lane;
use super::leader_epochs::{EpochEnd, LeaderEpochs};
use super::names::{self, FileKind};
use super::producer_state::ProducerState;
use super::read::{Query, ReadOutcome};
use super::recovery::{Loader, LoaderStep, Recovery};
use super::retention::{Leaving, Removal};
use super::segment::Segment;
use super::settings::LogSettings;
use super::tail::Tail;
use super::timestamps::TimestampedOffset;
use crate::io::{DiskPath, IoCompletion, IoDone, IoError, IoErrorKind, IoOp, Level, Outbox, Part};
use crate::probe::Probe;
use bytes::Bytes;
use smallvec::smallvec;
use std::collections::VecDeque;
use tidelog_batch::Chunks;
use tidelog_config::plant::{Plant, Plants};
use tidelog_wire::ids::{FileId, LeaderEpoch, LogDirId, LogId, Offset, Uuid};
use tidelog_wire::time::{Mono, Now};

pub(super) const PART: Part = Part::Storage;
/// How often the log looks for producers whose state has expired.
const EXPIRY_CHECK_MS: i64 = 600_000;

/// Where a log lies, and the topic it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPlace {
    pub dir: LogDirId,
    /// The name of the log's directory: `<topic>-<partition>`.
    pub name: String,
    pub topic_id: Uuid,
}

/// What the log directory and its checkpoints say about a log before it is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadHints {
    /// Whether the last stop was clean. If so, the log needs no recovery.
    pub clean: bool,
    /// The offset below which all records were on stable storage. A damaged batch below it is corruption, and not the
    /// result of a crash.
    pub recovery_point: Option<Offset>,
    pub log_start: Option<Offset>,
    /// Whether the log has a `partition.metadata` file. If not, loading writes it.
    pub has_topic_id: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogState {
    /// The log is being loaded, or truncated by [`Log::truncate_to`].
    Loading,
    Open,
    /// A command failed, or the log is corrupt. The text says what is wrong, and where.
    Offline(String),
    Closing,
    Closed,
    /// The log's directory is renamed now and removed later.
    Deleting,
    Deleted,
}

/// What happened in a log, for its owner to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// The log is open, and all its records are on stable storage.
    Loaded,
    /// [`Log::truncate_to`] is done.
    Truncated,
    /// The log has gone offline for this reason. The operator has been told by an [`Output::Event`](crate::io::Output).
    Failed(String),
    /// The answer to a [`Log::read`] that was pending.
    ReadDone { token: u64, outcome: ReadOutcome },
    /// The answer to a [`Log::offset_for_timestamp`] that was pending. Error: the log could not be read.
    LookupDone { token: u64, found: Result<Option<TimestampedOffset>, String> },
    /// [`Log::close`] is done: the whole log is on stable storage.
    Closed,
    /// The directory of a log that is being deleted has been renamed: a new log may use the old name.
    NameFreed,
    /// The directory of a deleted log has been removed.
    Deleted,
}

/// What a command in flight is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// One command of a sequence. Its success needs no action; its failure takes the log offline.
    Step,
    /// Removes or closes a file that is no longer needed. Its failure does no harm.
    RemoveLeftover,
    /// Writes a batch to the active segment.
    Write {
        segment: Offset,
        /// The length of the log file after this write.
        len: u32,
        end_offset: Offset,
    },
    /// Syncs the active segment.
    Sync {
        end_offset: Offset,
    },
    /// The SyncDir after which the file names of a new segment are on stable storage.
    SyncSegmentName,
    Load(LoaderStep),
    LoadIndex {
        segment: Offset,
        kind: FileKind,
    },
    /// Reads a part of a log file whose indexes are rebuilt.
    RebuildIndex {
        segment: Offset,
        position: u64,
    },
    /// Reads a region of a log file for a [`Query`].
    ReadRegion {
        query: u64,
    },
    /// The SyncDir after which the files of a segment that leaves the log are renamed for good.
    SyncSegmentRename,
    /// The last command of [`Log::close`].
    Close,
    /// Renames the directory of a deleted log.
    RenameDir,
    /// The SyncDir after [`RenameDir`](Self::RenameDir).
    SyncDirRename,
    /// Removes the directory of a deleted log.
    RemoveDir,
}

/// See the [module's](super) documentation. The order of calls: [`create`](Self::create) or [`load`](Self::load), then
/// every completion of this log's [`IoOwner::Log`](crate::io::IoOwner::Log) to [`handle_io`](Self::handle_io), and
/// [`tick`](Self::tick) at [`deadline`](Self::deadline). Only a log that is [`LogState::Open`] takes appends and reads.
///
/// In this module `slot` is the index of a segment in `segments`.
#[derive(Debug)]
pub struct Log {
    pub(super) id: LogId,
    pub(super) place: LogPlace,
    pub(super) settings: LogSettings,
    pub(super) plants: Plants,
    pub(super) state: LogState,
    /// The current name of the log's directory. It is `place.name` until the log is deleted.
    dir_name: String,
    next_file: u32,
    pub(super) lane: Lane<Purpose>,
    /// Sorted by base offset; the last is the active one. Not empty while the log is open.
    pub(super) segments: Vec<Segment>,
    pub(super) log_start: Offset,
    pub(super) log_end: Offset,
    pub(super) written: Offset,
    pub(super) synced: Offset,
    /// The end offset of the last sync that was issued. Equals `synced` while no sync is in flight.
    pub(super) sync_issued: Offset,
    pub(super) syncs_in_flight: u32,
    /// When the oldest record was appended that no issued sync covers (for `flush.ms`).
    pub(super) unsynced_since: Option<Mono>,
    pub(super) tail: Tail,
    pub(super) epochs: LeaderEpochs,
    pub(super) producers: ProducerState,
    /// The offsets of the producer snapshots on the disk.
    pub(super) snapshots: Vec<Offset>,
    /// The reads and look-ups that wait for I/O.
    pub(super) queries: Vec<Query>,
    pub(super) next_query: u64,
    pub(super) index_loads: Vec<IndexLoad>,
    /// How often an index was used. Gives [`Indexes::used`](super::segment::Indexes) its order.
    pub(super) index_uses: u64,
    /// The stable offset at the last change of the settings. The stable offset never falls below it.
    pub(super) stable_before_change: Offset,
    /// How many new segments have file names that are not on stable storage yet.
    pub(super) unsynced_names: usize,
    /// The high watermark with which retention goes on when an index is read or the name of a segment is stable.
    pub(super) waiting_retention: Option<Offset>,
    /// The segments that have left the log and whose files are still to be renamed, oldest first.
    pub(super) leaving: VecDeque<Leaving>,
    /// Whether the files of a segment that left the log are being renamed.
    pub(super) is_renaming_segment: bool,
    pub(super) removals: VecDeque<Removal>,
    pub(super) loader: Option<Box<Loader>>,
    pub(super) recovery: Recovery,
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
            queries: Vec::new(),
            next_query: 0,
            index_loads: Vec::new(),
            index_uses: 0,
            stable_before_change: Offset(0),
            unsynced_names: 0,
            waiting_retention: None,
            leaving: VecDeque::new(),
            is_renaming_segment: false,
            removals: VecDeque::new(),
            loader: None,
            recovery: Recovery::default(),
            close_after_load: false,
            next_expiry_check: None,
        }
    }

    /// Creates the log of a new partition. It is open at once, because the commands of an append follow those of the
    /// creation in the lane.
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
        log.issue(Purpose::Step, IoOp::CreateDir { path: dir }, out);
        log.issue(Purpose::Step, IoOp::SyncDir { path: log.root() }, out);
        let content = checkpoints::encode_partition_metadata(log.place.topic_id);
        // KIP-516: the topic id is on the disk before the first record.
        log.replace(names::PARTITION_METADATA, content, out);
        log.add_segment(Offset::ZERO, now, out);
        log.state = LogState::Open;
        log
    }

    /// Loads a log from the disk. It is open when [`LogEvent::Loaded`] comes.
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

    /// What it took to load the log at the start of this process. Zeros for a log that is new or not loaded yet.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Takes over new settings. They apply from the next append or tick on.
    pub fn configure(&mut self, settings: LogSettings, out: &mut Outbox) {
        // Records that were acknowledged when they were written stay acknowledged, and readable, if the new settings
        // ask for stable storage.
        self.stable_before_change = self.stable_before_change.max(self.stable_offset());
        self.settings = settings;
        if self.is_open() {
            self.commit(out);
        }
    }

    /// The first offset that may be read.
    pub fn log_start_offset(&self) -> Offset {
        self.log_start
    }

    /// The offset that the next record gets.
    pub fn log_end_offset(&self) -> Offset {
        self.log_end
    }

    /// Records below this offset have been written and can be read. A crash may still lose them.
    pub fn written_offset(&self) -> Offset {
        self.written
    }

    /// Records below this offset are on stable storage. It is also the log's recovery point.
    pub fn synced_offset(&self) -> Offset {
        self.synced
    }

    /// Records below this offset may be acknowledged. With `acks.require.fsync=true` they are those on stable storage,
    /// else those that have been written.
    pub fn stable_offset(&self) -> Offset {
        if !self.settings.require_fsync {
            self.written
        } else if self.plants.has(Plant::AcknowledgeBeforeSync) {
            self.log_end
        } else {
            self.synced.max(self.stable_before_change)
        }
    }

    /// The greatest leader epoch of this log at or below `epoch`, and the offset where it ends (KIP-101).
    /// [`EpochEnd::UNKNOWN`] if the log does not know; see [`LeaderEpochs::end_offset_for`].
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> EpochEnd {
        self.epochs.end_offset_for(epoch, self.log_end)
    }

    /// The latest leader epoch of this log; [`LeaderEpoch::UNKNOWN`] if there is none.
    pub fn latest_epoch(&self) -> LeaderEpoch {
        self.epochs.latest_epoch()
    }

    pub fn epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    pub fn producers(&self) -> &ProducerState {
        &self.producers
    }

    /// Tells the producer state the high watermark: a transaction is decided when its marker is below it.
    pub fn advance_high_watermark(&mut self, high_watermark: Offset) {
        self.producers.advance_high_watermark(high_watermark);
    }

    /// The size of the log files of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.len)).sum()
    }

    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Records that `epoch` begins at the end of the log. A new leader calls this even if it never appends anything.
    /// Otherwise it could not answer a follower that asks where an epoch ends which only followers know (KAFKA-7415).
    pub fn assign_epoch(&mut self, epoch: LeaderEpoch, out: &mut Outbox) {
        assert!(self.is_open(), "an epoch for a log that is {:?}", self.state);
        if self.epochs.assign(epoch, self.log_end) {
            self.write_epochs(out);
        }
    }

    /// Forgets the epochs that begin at the end of the log, of which there is no record. Returns whether there were any.
    pub fn forget_empty_epochs(&mut self, out: &mut Outbox) -> bool {
        let forgets = self.epochs.truncate_from_end(self.log_end);
        if forgets {
            self.write_epochs(out);
        }
        forgets
    }

    /// When [`tick`](Self::tick) is due.
    pub fn deadline(&self) -> Option<Mono> {
        let flush = self.unsynced_since.filter(|_| self.settings.flush_ms < i64::MAX / 1_000_000);
        let flush = flush.map(|since| since.plus_ms(self.settings.flush_ms));
        let removal = self.removals.front().map(|removal| removal.at);
        let expiry = self.next_expiry_check.filter(|_| self.is_open() && !self.producers.is_empty());
        flush.into_iter().chain(removal).chain(expiry).min()
    }

    /// Does what is due at `now`. May be called late, and when nothing is due.
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

    /// Schedules the check for expired producers, unless it is scheduled already.
    pub(super) fn schedule_expiry_check(&mut self, now: Now) {
        self.next_expiry_check.get_or_insert(now.mono.plus_ms(EXPIRY_CHECK_MS));
    }

    /// Closes the log: makes all of it stable, and writes the files with which the next start can load it quickly.
    /// [`LogEvent::Closed`] comes when it is done, unless the log is offline or deleted.
    pub fn close(&mut self, out: &mut Outbox) {
        match self.state {
            LogState::Loading => self.close_after_load = true,
            LogState::Open => {
                self.write_all(out);
                self.cancel_leaving(out);
                self.remove_all(out);
                for slot in 0..self.segments.len() {
                    let last = slot + 1 == self.segments.len();
                    let purpose = if last { Purpose::Close } else { Purpose::Step };
                    self.issue(purpose, IoOp::Close { file: self.segments[slot].file }, out);
                }
                self.state = LogState::Closing;
            }
            _ => {}
        }
    }

    /// Writes and syncs everything that the loading after a clean stop reads.
    pub(super) fn write_all(&mut self, out: &mut Outbox) {
        self.sync_active(out);
        self.write_snapshot(out);
        let active = self.segments.len() - 1;
        self.segments[active].seal();
        self.write_indexes(active, out);
        let dir = self.path("");
        self.issue(Purpose::Step, IoOp::SyncDir { path: dir }, out);
    }

    /// Takes the completion of a command of this log.
    pub fn handle_io(&mut self, now: Now, completion: IoCompletion, out: &mut Outbox, events: &mut Vec<LogEvent>) {
        let purpose = self.lane.complete(completion.id);
        match self.state {
            LogState::Offline(_) | LogState::Closed | LogState::Deleted => return,
            LogState::Deleting => {
                self.fail_queries("the log is deleted", events);
                match purpose {
                    Purpose::RenameDir | Purpose::SyncDirRename if completion.result.is_err() => {
                        let error = completion.result.expect_err("it is an error");
                        self.fail(error.text, out, events);
                    }
                    Purpose::SyncDirRename => events.push(LogEvent::NameFreed),
                    Purpose::RemoveDir => {
                        self.state = LogState::Deleted;
                        events.push(LogEvent::Deleted);
                    }
                    _ => {}
                }
                self.lane.release(out);
                return;
            }
            LogState::Loading | LogState::Open | LogState::Closing => {}
        }
        if let Err(reason) = self.complete(now, purpose, completion.result, out, events) {
            self.fail(reason, out, events);
        } else if self.close_after_load && self.is_open() {
            self.close_after_load = false;
            self.close(out);
        }
        self.lane.release(out);
    }

    fn complete(
        &mut self,
        now: Now,
        purpose: Purpose,
        result: Result<IoDone, IoError>,
        out: &mut Outbox,
        events: &mut Vec<LogEvent>,
    ) -> Result<(), String> {
        let text = |error: IoError| error.text;
        match purpose {
            Purpose::Step => result.map(drop).map_err(text),
            Purpose::RemoveLeftover => {
                if let Err(error) = result {
                    let name = &self.place.name;
                    out.event(
                        Level::Warn,
                        PART,
                        format!("{name}: a file that is no longer needed could not be removed: {error}"),
                    );
                }
                Ok(())
            }
            Purpose::Write { segment, len, end_offset } => {
                if result.is_err() {
                    out.probe(Probe::WriteFailed);
                }
                result.map_err(text)?;
                self.note_written(segment, len, end_offset);
                Ok(())
            }
            Purpose::Sync { end_offset } => {
                if result.is_err() {
                    out.probe(Probe::SyncFailed);
                }
                if !self.plants.has(Plant::SyncErrorIgnored) {
                    result.map_err(text)?;
                }
                self.note_synced(end_offset, out);
                Ok(())
            }
            Purpose::SyncSegmentName => {
                result.map_err(text)?;
                self.unsynced_names -= 1;
                self.resume_waiting(now, out, events);
                Ok(())
            }
            Purpose::Load(step) => self.loader_completed(now, step, result, out, events),
            // A closing log answers no queries, and its files must not be read after the commands that close them.
            Purpose::LoadIndex { .. } | Purpose::RebuildIndex { .. } if self.state == LogState::Closing => {
                result.map(drop).or_else(|error| match error.kind {
                    IoErrorKind::NotFound | IoErrorKind::TooLarge => Ok(()),
                    _ => Err(error.text),
                })
            }
            Purpose::LoadIndex { segment, kind } => {
                self.index_loaded(segment, kind, result, out)?;
                self.resume_waiting(now, out, events);
                Ok(())
            }
            Purpose::RebuildIndex { segment, position } => {
                self.index_scanned(segment, position, result, out)?;
                self.resume_waiting(now, out, events);
                Ok(())
            }
            Purpose::ReadRegion { query } => {
                let Ok(IoDone::Bytes(bytes)) = result else { return Err(failure(result)) };
                self.region_read(query, bytes, out, events);
                Ok(())
            }
            Purpose::SyncSegmentRename => {
                result.map_err(text)?;
                self.leaving_renamed(out);
                Ok(())
            }
            Purpose::Close => {
                result.map_err(text)?;
                self.state = LogState::Closed;
                self.fail_queries("the log is closed", events);
                events.push(LogEvent::Closed);
                Ok(())
            }
            Purpose::RenameDir | Purpose::SyncDirRename | Purpose::RemoveDir => {
                unreachable!("only a log that is being deleted issues this command")
            }
        }
    }

    /// Goes on with the queries and the retention that wait for an index or for the name of a segment.
    fn resume_waiting(&mut self, now: Now, out: &mut Outbox, events: &mut Vec<LogEvent>) {
        if !self.is_open() {
            return;
        }
        self.resume_queries(out, events);
        if let Some(high_watermark) = self.waiting_retention.take() {
            self.enforce_retention(now, high_watermark, out);
        }
    }

    /// Takes the log offline, because its log directory has gone offline for `reason`.
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
        self.fail_queries(&reason, events);
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
        assert!(!self.segments.is_empty(), "an open log has an active segment");
        assert!(self.segments[0].base <= self.log_start, "the log starts in its first segment or later");
        assert!(self.log_start <= self.log_end && self.written <= self.log_end && self.synced <= self.written);
        assert!(self.synced <= self.sync_issued && self.sync_issued <= self.log_end);
        assert!(self.settings.require_fsync || self.stable_offset() == self.written);
        assert!(
            !self.settings.require_fsync || self.sync_issued == self.log_end || self.syncs_in_flight > 0,
            "an issued sync covers all appended records, or the next sync follows one in flight"
        );
        for pair in self.segments.windows(2) {
            assert!(pair[0].base < pair[1].base, "segments are sorted by base offset");
            assert!(pair[0].len > 0, "only the active segment may be empty");
        }
        for (slot, segment) in self.segments.iter().enumerate() {
            let end = self.segments.get(slot + 1).map_or(self.log_end, |next| next.base);
            assert!(segment.base <= end && segment.written_len <= segment.len);
            let Some(indexes) = &segment.indexes else { continue };
            let last = indexes.offsets.last();
            assert!(
                last.is_none_or(|last| last.position < segment.len && last.offset < end),
                "the offset index names batches of its segment alone"
            );
            assert!(
                indexes.times.last().is_none_or(|last| last.offset < end),
                "the time index names batches of its segment alone"
            );
        }
        assert!(
            self.segments[self.segments.len() - 1].indexes.is_some(),
            "the indexes of the active segment are in memory"
        );
        assert_eq!(self.producers.end_offset(), self.log_end, "every batch was applied to the producer state");
        let unstable_from = self.stable_offset().min(self.synced);
        if let (Some(front), Some(back)) = (self.tail.front(), self.tail.back()) {
            let active = &self.segments[self.segments.len() - 1];
            let tail_end = back.last + 1;
            assert!(
                tail_end == self.log_end || active.len == 0 && tail_end <= active.base,
                "the tail ends where the log ends, or in front of a gap before an empty active segment"
            );
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

    /// The path of a file in the log's directory. An empty name gives the directory itself.
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

    /// A new file id: the log id in the upper half, a number that counts up in the lower half.
    pub(super) fn new_file(&mut self) -> FileId {
        self.next_file = self.next_file.checked_add(1).expect("a log opens fewer than 2^32 files");
        FileId(u64::from(self.id.0) << 32 | u64::from(self.next_file))
    }

    pub(super) fn issue(&mut self, purpose: Purpose, op: IoOp, out: &mut Outbox) {
        self.lane.issue(purpose, op, out);
    }

    pub(super) fn replace(&mut self, file: &str, content: Bytes, out: &mut Outbox) {
        let path = self.path(file);
        self.issue(Purpose::Step, IoOp::Replace { path, content }, out);
    }

    pub(super) fn write_epochs(&mut self, out: &mut Outbox) {
        let content = self.epochs.encode();
        self.replace(names::LEADER_EPOCH_CHECKPOINT, content, out);
    }

    /// Writes a snapshot of the producer state at the end of the log.
    pub(super) fn write_snapshot(&mut self, out: &mut Outbox) {
        if let Some((offset, content)) = self.producers.take_snapshot() {
            out.probe(Probe::ProducerSnapshotWritten);
            self.replace(&names::segment_file(offset, FileKind::ProducerSnapshot), content, out);
            self.snapshots.push(offset);
        }
    }

    /// Writes both index files of a segment from its indexes in memory, and syncs them.
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
            self.issue(Purpose::Step, IoOp::Open { file, path, create: true }, out);
            if len > 0 {
                self.issue(Purpose::Step, IoOp::Write { file, position: 0, chunks }, out);
            }
            self.issue(Purpose::Step, IoOp::SetLen { file, len }, out);
            self.issue(Purpose::Step, IoOp::Sync { file }, out);
            self.issue(Purpose::Step, IoOp::Close { file }, out);
        }
    }

    /// Creates a new active segment. Its index files are created empty, because Kafka expects them to exist.
    pub(super) fn add_segment(&mut self, base: Offset, now: Now, out: &mut Outbox) {
        let file = self.new_file();
        let path = self.segment_path(base, FileKind::Log);
        self.issue(Purpose::Step, IoOp::Open { file, path, create: true }, out);
        for kind in [FileKind::OffsetIndex, FileKind::TimeIndex] {
            let (file, path) = (self.new_file(), self.segment_path(base, kind));
            self.issue(Purpose::Step, IoOp::Open { file, path, create: true }, out);
            self.issue(Purpose::Step, IoOp::Close { file }, out);
        }
        if !self.plants.has(Plant::NewSegmentNameNotSynced) {
            let dir = self.path("");
            self.unsynced_names += 1;
            self.issue(Purpose::SyncSegmentName, IoOp::SyncDir { path: dir }, out);
        }
        self.segments.push(Segment::new(base, file, now.wall, self.settings.segment_index_bytes));
    }

    /// The slot of the segment to which `offset` belongs. If `offset` is below all segments, the slot of the first.
    pub(super) fn segment_slot(&self, offset: Offset) -> usize {
        self.segments.partition_point(|segment| segment.base <= offset).saturating_sub(1)
    }

    /// The slot of the segment with this base offset, unless that segment has left the log.
    pub(super) fn slot_of(&self, base: Offset) -> Option<usize> {
        self.segments.binary_search_by_key(&base, |segment| segment.base).ok()
    }
}

/// The text of the error with which a command failed. Panics if the command succeeded: the caller has not got the kind
/// of result that belongs to the command.
pub(super) fn failure(result: Result<IoDone, IoError>) -> String {
    match result {
        Err(error) => error.text,
        Ok(done) => panic!("the world answered a command with {done:?}, which does not belong to it"),
    }
}
