//! Loading a log from the disk: after a clean stop, after a crash, and to truncate it.
//!
//! ```text
//! List ─► load leader-epoch-checkpoint, open the log files
//!      ─► load the newest valid producer snapshot
//!      ─► load the active segment's indexes (after a clean stop)
//!      ─► scan the batches that producer state, leader epochs or the recovery point need
//!      ─► finish: cut the log at its end, write the files that were rebuilt, sync ─► open
//! ```
//!
//! The checksum of every scanned batch is verified. If a batch is damaged or incomplete, the recovery point decides. At
//! or above the recovery point it is what a crash leaves: the log ends before that batch, and what follows is removed.
//! Below the recovery point, or after a clean stop, it is corruption of records that were on stable storage: the log
//! goes offline, and nothing is changed.
//!
//! Recovery itself may be interrupted by a crash between any two commands. Therefore the segments behind a damaged one
//! are removed from the last to the first, before the damaged one is cut, and [`LogEvent::Loaded`] comes only when the
//! whole log is on stable storage.

use super::append::producer_batch;
use super::checkpoints::encode_partition_metadata;
use super::leader_epochs::LeaderEpochs;
use super::log::{LoadHints, Log, LogEvent, LogState, PART, Purpose, failure};
use super::names::{self, FileKind, FileStage, ParsedFile};
use super::offset_index::OffsetPosition;
use super::producer_state::ProducerState;
use super::read::QueryStage;
use super::segment::{Indexes, Segment};
use super::tail::{Tail, TailBatch};
use crate::buggify::{ASKED_FOR, Site};
use crate::io::{DirEntry, IoDone, IoError, IoErrorKind, IoOp, Level, Outbox};
use crate::probe::Probe;
use bytes::Bytes;
use tidelog_batch::{BatchHeader, Scan, ScanStop, ScannedBatch};
use tidelog_config::plant::Plant;
use tidelog_wire::ids::{FileId, Offset};
use tidelog_wire::time::{Now, WallMs};

/// How much of a log one read of the scan asks for.
const CHUNK_BYTES: u64 = 1 << 20;
/// The greatest size of a batch. A header with a greater length is damaged, and that much is not allocated.
const BATCH_BYTES_MAX: u64 = 256 << 20;
/// The greatest size of `leader-epoch-checkpoint`.
const TEXT_BYTES_MAX: u64 = 16 << 20;
const SNAPSHOT_BYTES_MAX: u64 = 256 << 20;

/// What a command of the loading is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoaderStep {
    List,
    Epochs,
    Opened {
        slot: usize,
    },
    Snapshot {
        offset: Offset,
    },
    OffsetIndex,
    TimeIndex,
    /// Reads the header of the active segment's first batch.
    FirstHeader,
    Chunk {
        position: u64,
    },
    /// The last command, which syncs the directory.
    FinalSync,
}

/// What it took to load a log at a start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// How many segments were read, as a whole or from some position on.
    pub scanned_segments: u64,
    /// Bytes of the batches that were read and checked.
    pub scanned_bytes: u64,
    /// Bytes that were cut off log files because they lay behind the end of what is valid.
    pub cut_bytes: u64,
}

impl Recovery {
    pub fn add(&mut self, other: &Self) {
        self.scanned_segments += other.scanned_segments;
        self.scanned_bytes += other.scanned_bytes;
        self.cut_bytes += other.cut_bytes;
    }
}

/// A segment whose log file was listed.
#[derive(Clone, Debug)]
struct FoundSegment {
    base: Offset,
    /// When the log file was last changed.
    modified: WallMs,
    /// Whether a compaction wrote the segment and a crash interrupted its replacing of others. The segments that it
    /// replaces may still be there.
    from_swap: bool,
}

/// The state of the loading.
#[derive(Debug)]
pub(super) struct Loader {
    hints: LoadHints,
    /// The offset at which the log is to be truncated. `None` if it is only loaded.
    cut: Option<Offset>,
    /// How many commands are in flight. The next step waits for all of them.
    outstanding: usize,
    /// The content of `leader-epoch-checkpoint`. `None` if it is missing or damaged.
    epochs: Option<LeaderEpochs>,
    found: Vec<FoundSegment>,
    /// The offset index and time index files of the active segment.
    index_bytes: [Option<Result<Bytes, String>>; 2],
    /// The first slot to recover. The segments from here on are scanned as a whole, and their indexes are rebuilt.
    recover_from: usize,
    /// The slot of the segment that is being scanned.
    slot: usize,
    /// The offset up to which the producer snapshot covers the log. Batches from here on are applied to it.
    producers_from: Offset,
    /// The least base offset that the next batch may have.
    expected: Offset,
    /// The position at which the valid part of the scanned segment ends.
    valid_end: u64,
    /// The index entry at whose position the scan began. The first scanned batch must be the one that it names.
    began_at: Option<OffsetPosition>,
    recovery: Recovery,
}

/// Why the scan ends before the end of the files.
#[derive(Debug)]
enum ScanEnd {
    /// The log is to be truncated here.
    Truncate,
    /// A batch is damaged, incomplete or missing here. The text says which.
    Damage(String),
    /// An index entry names a batch that does not exist. The segment is to be scanned from its first batch.
    WrongIndexEntry,
}

impl Log {
    pub(super) fn start_loading(&mut self, hints: LoadHints, cut: Option<Offset>, out: &mut Outbox) {
        self.state = LogState::Loading;
        self.segments.clear();
        self.snapshots.clear();
        self.tail = Tail::default();
        self.index_loads.clear();
        self.epochs.clear();
        self.loader = Some(Box::new(Loader {
            hints,
            cut,
            outstanding: 0,
            epochs: None,
            found: Vec::new(),
            index_bytes: [None, None],
            recover_from: 0,
            slot: 0,
            producers_from: Offset::ZERO,
            expected: Offset::ZERO,
            valid_end: 0,
            began_at: None,
            recovery: Recovery::default(),
        }));
        out.probe(if hints.clean { Probe::RecoveryClean } else { Probe::RecoveryAfterCrash });
        let path = self.path("");
        self.load_step(LoaderStep::List, IoOp::List { path }, out);
    }

    fn loader(&mut self) -> &mut Loader {
        self.loader.as_mut().expect("a loading log has a loader")
    }

    fn load_step(&mut self, step: LoaderStep, op: IoOp, out: &mut Outbox) {
        self.loader().outstanding += 1;
        self.issue(Purpose::Load(step), op, out);
    }

    /// Takes the result of a command of the loading.
    pub(super) fn loader_completed(
        &mut self,
        now: Now,
        step: LoaderStep,
        result: Result<IoDone, IoError>,
        out: &mut Outbox,
        events: &mut Vec<LogEvent>,
    ) -> Result<(), String> {
        self.loader().outstanding -= 1;
        match step {
            LoaderStep::List => match result {
                Ok(IoDone::Entries(entries)) => self.plan(now, entries, out),
                other => return Err(failure(other)),
            },
            LoaderStep::Epochs => {
                if let Some(bytes) = file_content(result)? {
                    match LeaderEpochs::decode(names::LEADER_EPOCH_CHECKPOINT, &bytes) {
                        Ok(epochs) => self.loader().epochs = Some(epochs),
                        Err(error) => self.warn(out, format!("{error}; it is rebuilt from the batches")),
                    }
                }
                self.after_files(now, out)?;
            }
            LoaderStep::Opened { slot } => {
                let Ok(IoDone::Len(len)) = result else { return Err(failure(result)) };
                let len = u32::try_from(len)
                    .map_err(|_| format!("segment {} has {len} bytes, more than 4 GiB", self.segments[slot].base))?;
                (self.segments[slot].len, self.segments[slot].written_len) = (len, len);
                self.after_files(now, out)?;
            }
            LoaderStep::Snapshot { offset } => self.snapshot_read(now, offset, result, out)?,
            LoaderStep::OffsetIndex | LoaderStep::TimeIndex => {
                let content = file_content(result)?.ok_or_else(|| "it is missing".to_string());
                self.loader().index_bytes[usize::from(step == LoaderStep::TimeIndex)] = Some(content);
                self.after_index(out)?;
            }
            LoaderStep::FirstHeader => {
                let Ok(IoDone::Bytes(bytes)) = result else { return Err(failure(result)) };
                let header = BatchHeader::parse(&bytes).ok();
                let active = self.segments.last_mut().expect("there is a segment");
                active.first_timestamp = header.map(|header| header.max_timestamp);
                self.after_index(out)?;
            }
            LoaderStep::Chunk { position } => {
                let Ok(IoDone::Bytes(bytes)) = result else { return Err(failure(result)) };
                self.scan_chunk(now, position, &bytes, out)?;
            }
            LoaderStep::FinalSync => {
                result.map_err(|error| error.text)?;
                self.loaded(out, events);
            }
        }
        Ok(())
    }

    fn warn(&self, out: &mut Outbox, text: String) {
        out.event(Level::Warn, PART, format!("{}: {text}", self.place.name));
    }

    /// The directory was listed: sorts its files, finishes compactions and deletions that a crash interrupted, opens
    /// the log files and loads the leader epochs.
    fn plan(&mut self, now: Now, entries: Vec<DirEntry>, out: &mut Outbox) {
        let files: Vec<(DirEntry, ParsedFile)> = entries
            .into_iter()
            .filter(|entry| !entry.is_dir)
            .map(|entry| {
                let file = ParsedFile::parse(&entry.name);
                (entry, file)
            })
            .collect();
        let cleaned_from = files.iter().filter_map(|(_, file)| staged(file, FileStage::Cleaned)).map(|(o, _)| o).min();
        let mut logs: Vec<FoundSegment> = Vec::new();
        let mut indexes: Vec<(Offset, FileKind)> = Vec::new();
        for (DirEntry { name, modified, .. }, file) in &files {
            let (path, modified) = (self.path(name), *modified);
            match *file {
                ParsedFile::Segment { offset, kind, stage } => match stage {
                    FileStage::Deleted | FileStage::Cleaned => {
                        self.issue(Purpose::RemoveLeftover, IoOp::Remove { path }, out)
                    }
                    // KAFKA-6264: if a compaction of lower offsets is unfinished, this one is unfinished too.
                    FileStage::Swap if cleaned_from.is_some_and(|from| offset >= from) => {
                        self.issue(Purpose::RemoveLeftover, IoOp::Remove { path }, out);
                    }
                    FileStage::Swap => {
                        let to = self.segment_path(offset, kind);
                        self.issue(Purpose::Step, IoOp::Rename { from: path, to }, out);
                        if kind == FileKind::Log {
                            logs.retain(|log| log.base != offset);
                            logs.push(FoundSegment { base: offset, modified, from_swap: true });
                        }
                    }
                    FileStage::Live => match kind {
                        FileKind::Log if logs.iter().any(|log| log.base == offset) => {}
                        FileKind::Log => logs.push(FoundSegment { base: offset, modified, from_swap: false }),
                        FileKind::ProducerSnapshot => self.snapshots.push(offset),
                        _ => indexes.push((offset, kind)),
                    },
                },
                ParsedFile::Temporary => self.issue(Purpose::RemoveLeftover, IoOp::Remove { path }, out),
                _ => {}
            }
        }
        logs.sort_by_key(|log| log.base);
        self.snapshots.sort_unstable();
        for (offset, kind) in indexes {
            if !logs.iter().any(|log| log.base == offset) {
                let path = self.segment_path(offset, kind);
                self.issue(Purpose::RemoveLeftover, IoOp::Remove { path }, out);
            }
        }
        let path = self.path(names::LEADER_EPOCH_CHECKPOINT);
        self.load_step(LoaderStep::Epochs, IoOp::Load { path, limit_bytes: TEXT_BYTES_MAX }, out);
        for (slot, log) in logs.iter().enumerate() {
            let (file, path) = (self.new_file(), self.segment_path(log.base, FileKind::Log));
            self.segments.push(Segment::found(log.base, file, 0, now.wall, log.modified));
            self.load_step(LoaderStep::Opened { slot }, IoOp::Open { file, path, create: false }, out);
        }
        self.loader().found = logs;
    }

    /// When all commands of [`plan`](Self::plan) have completed, goes on to the producer snapshot.
    fn after_files(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        if self.loader().outstanding > 0 {
            return Ok(());
        }
        self.load_snapshot(now, out)
    }

    /// Loads the snapshot from which the producer state is built. If there is none, begins with an empty state.
    fn load_snapshot(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        let cut = self.loader().cut.unwrap_or(Offset(i64::MAX));
        while let Some(offset) = self.snapshots.last().copied().filter(|offset| *offset > cut) {
            self.drop_snapshot(offset, out);
        }
        match self.snapshot_to_build_on() {
            Some(offset) => {
                let path = self.segment_path(offset, FileKind::ProducerSnapshot);
                let op = IoOp::Load { path, limit_bytes: SNAPSHOT_BYTES_MAX };
                self.load_step(LoaderStep::Snapshot { offset }, op, out);
                Ok(())
            }
            None => {
                let first = self.segments.first().map_or(Offset::ZERO, |first| first.base);
                self.producers = ProducerState::new(first, self.plants);
                self.begin_scan(now, out)
            }
        }
    }

    /// The snapshot from which the producer state is built. After a clean stop it is the newest one.
    ///
    /// After a crash it is one that is at least a whole segment older. For a snapshot holds only the last batch of each
    /// producer, but after a crash a client may send its last five batches again, and each must be recognised as a
    /// duplicate (KIP-98). So the batches of a whole segment are read again and applied.
    fn snapshot_to_build_on(&mut self) -> Option<Offset> {
        let newest = self.snapshots.last().copied()?;
        if self.loader().hints.clean || self.segments.is_empty() {
            return Some(newest);
        }
        let before = self.segments[self.segment_slot(newest).saturating_sub(1)].base;
        match self.snapshots.iter().rev().find(|offset| **offset <= before) {
            Some(offset) => Some(*offset),
            // The log begins at offset 0, so an empty state is complete.
            None if before == Offset::ZERO => None,
            None => Some(newest),
        }
    }

    fn drop_snapshot(&mut self, offset: Offset, out: &mut Outbox) {
        self.snapshots.retain(|known| *known != offset);
        let path = self.segment_path(offset, FileKind::ProducerSnapshot);
        self.issue(Purpose::Step, IoOp::Remove { path }, out);
    }

    fn snapshot_read(
        &mut self,
        now: Now,
        offset: Offset,
        result: Result<IoDone, IoError>,
        out: &mut Outbox,
    ) -> Result<(), String> {
        let state = match file_content(result)? {
            Some(_) if self.plants.has(Plant::ProducersForgottenAtRestart) => {
                Ok(ProducerState::new(offset, self.plants))
            }
            Some(bytes) => {
                let expiration_ms = self.settings.producer_id_expiration_ms;
                ProducerState::from_snapshot(offset, &bytes, now.wall, expiration_ms, self.plants)
                    .map_err(|error| error.to_string())
            }
            None => Err("it is missing".into()),
        };
        match state {
            Ok(state) => {
                self.producers = state;
                self.begin_scan(now, out)
            }
            Err(why) => {
                self.warn(out, format!("the producer snapshot {offset} is dropped: {why}"));
                self.drop_snapshot(offset, out);
                self.load_snapshot(now, out)
            }
        }
    }

    /// Decides with which segment the scan begins, and begins it.
    fn begin_scan(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        if self.segments.is_empty() {
            return self.finish(now, None, out);
        }
        let last = self.segments.len() - 1;
        let producers_from = self.producers.end_offset();
        let epochs = self.loader().epochs.clone();
        let hints = self.loader().hints;
        let from_swap = self.loader().found.iter().position(|found| found.from_swap);
        let recover_from = match hints.clean {
            true => from_swap.unwrap_or(last + 1),
            false => self.segment_slot(hints.recovery_point.unwrap_or(Offset::ZERO)).min(from_swap.unwrap_or(last)),
        };
        let mut slot = recover_from.min(last).min(self.segment_slot(producers_from));
        let has_bytes = self.segments.iter().any(|segment| segment.len > 0);
        // Without the checkpoint the leader epochs are collected from all batches.
        let scans_all = epochs.is_none() && has_bytes;
        if scans_all {
            slot = 0;
        }
        self.epochs = epochs.unwrap_or_default();
        let loader = self.loader();
        (loader.recover_from, loader.slot, loader.producers_from) = (recover_from, slot, producers_from);
        if slot == last && recover_from > last && !scans_all && self.segments[last].len > 0 {
            let base = self.segments[last].base;
            let limit_bytes = u64::from(self.settings.segment_index_bytes).max(16 << 20);
            for (step, kind) in
                [(LoaderStep::OffsetIndex, FileKind::OffsetIndex), (LoaderStep::TimeIndex, FileKind::TimeIndex)]
            {
                let path = self.segment_path(base, kind);
                self.load_step(step, IoOp::Load { path, limit_bytes }, out);
            }
            let (file, len) = (self.segments[last].file, BatchHeader::LEN as u32);
            self.load_step(LoaderStep::FirstHeader, IoOp::Read { file, position: 0, len }, out);
            return Ok(());
        }
        self.scan_segment(now, out)
    }

    /// When the active segment's indexes have been read: begins to scan the segment near its end. If an index is
    /// damaged, begins with the first batch, and rebuilds the indexes.
    fn after_index(&mut self, out: &mut Outbox) -> Result<(), String> {
        if self.loader().outstanding > 0 {
            return Ok(());
        }
        let slot = self.loader().slot;
        let [offsets, times] = std::mem::take(&mut self.loader().index_bytes);
        let missing = || Err("it is missing".to_string());
        let (offsets, times) = (offsets.unwrap_or_else(missing), times.unwrap_or_else(missing));
        let decoded = match self.decode_indexes(slot, offsets, times) {
            Ok(_) if out.buggify(Site::IndexRebuild) => Err(ASKED_FOR.into()),
            decoded => decoded,
        };
        let start = match decoded {
            Ok(mut indexes) => {
                if let Some(cut) = self.loader().cut {
                    indexes.offsets.truncate_to(cut);
                    indexes.times.truncate_to(cut);
                }
                self.start_behind(slot, indexes)
            }
            Err(why) => {
                out.probe(Probe::RecoveryIndexRebuilt);
                self.warn(out, format!("the index of segment {} is rebuilt: {why}", self.segments[slot].base));
                self.segments[slot].reset(self.settings.segment_index_bytes);
                0
            }
        };
        let base = self.segments[slot].base;
        let loader = self.loader();
        (loader.expected, loader.valid_end) = (base, start);
        loader.recovery.scanned_segments += 1;
        self.read_chunk(start, CHUNK_BYTES, out);
        Ok(())
    }

    /// Takes over the active segment's indexes. Returns the position at which the scan begins: the last index entry at
    /// or below the offset up to which the producer snapshot covers the log.
    fn start_behind(&mut self, slot: usize, indexes: Box<Indexes>) -> u64 {
        let entry = indexes.offsets.floor(self.loader().producers_from);
        self.loader().began_at = Some(entry).filter(|entry| entry.position > 0);
        self.segments[slot].adopt(indexes);
        u64::from(entry.position)
    }

    /// Begins to scan the segment at `loader.slot` from its first batch.
    fn scan_segment(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        let slot = self.loader().slot;
        self.segments[slot].reset(self.settings.segment_index_bytes);
        let base = self.segments[slot].base;
        let loader = self.loader();
        loader.expected = loader.expected.max(base);
        loader.valid_end = 0;
        if self.segments[slot].len == 0 {
            return self.segment_scanned(now, out);
        }
        self.loader().recovery.scanned_segments += 1;
        self.read_chunk(0, CHUNK_BYTES, out);
        Ok(())
    }

    fn read_chunk(&mut self, position: u64, len: u64, out: &mut Outbox) {
        let segment = &self.segments[self.loader.as_ref().expect("loading").slot];
        let (file, len) = (segment.file, (u64::from(segment.len) - position).min(len) as u32);
        self.load_step(LoaderStep::Chunk { position }, IoOp::Read { file, position, len }, out);
    }

    fn scan_chunk(&mut self, now: Now, position: u64, bytes: &Bytes, out: &mut Outbox) -> Result<(), String> {
        let slot = self.loader().slot;
        let (base, len) = (self.segments[slot].base, u64::from(self.segments[slot].len));
        let mut scan = Scan::new(bytes, position, true);
        for batch in &mut scan {
            if let Some(end) = self.take_batch(&batch, bytes, position) {
                let loader = self.loader();
                loader.recovery.scanned_bytes += loader.valid_end.saturating_sub(position);
                return self.end_scan(now, end, out);
            }
        }
        let next = scan.next_position();
        self.loader().recovery.scanned_bytes += next.saturating_sub(position);
        let at_end = position + bytes.len() as u64 >= len;
        match scan.stop().expect("a scan stops for a reason").clone() {
            ScanStop::End if !at_end && !bytes.is_empty() => {
                self.read_chunk(next, CHUNK_BYTES, out);
                Ok(())
            }
            ScanStop::End if bytes.is_empty() && next < len => {
                Err(format!("segment {base} ends at {next} of {len} bytes"))
            }
            ScanStop::End => self.segment_scanned(now, out),
            ScanStop::Incomplete { needed } if !at_end && needed <= BATCH_BYTES_MAX && next + needed <= len => {
                self.read_chunk(next, needed.max(CHUNK_BYTES), out);
                Ok(())
            }
            // Fewer zeros than a header has, and the file goes on: the next read shows whether a batch follows.
            ScanStop::Zeros if !at_end && scan.rest().len() < BatchHeader::LEN => {
                self.read_chunk(next, CHUNK_BYTES, out);
                Ok(())
            }
            stop => {
                if self.plants.has(Plant::TornTailAccepted)
                    && let Some(end) = self.accept_torn(scan.rest(), next)
                {
                    return match end == len {
                        true => self.segment_scanned(now, out),
                        false => {
                            self.read_chunk(end, CHUNK_BYTES, out);
                            Ok(())
                        }
                    };
                }
                out.probe(match stop {
                    ScanStop::Zeros => Probe::RecoveryZeros,
                    ScanStop::Damaged(_) => Probe::RecoveryBatchDamaged,
                    ScanStop::End | ScanStop::Incomplete { .. } => Probe::RecoveryBatchCut,
                });
                let what = match stop {
                    ScanStop::Zeros => "zeros".into(),
                    ScanStop::Damaged(error) => error.to_string(),
                    ScanStop::End | ScanStop::Incomplete { .. } => "an incomplete batch".to_string(),
                };
                self.end_scan(now, ScanEnd::Damage(what), out)
            }
        }
    }

    /// A planted bug: accepts a batch with a wrong checksum, and an incomplete one.
    fn accept_torn(&mut self, rest: &[u8], position: u64) -> Option<u64> {
        let header = BatchHeader::parse(rest).ok()?;
        let size = rest.len().min(header.size_bytes());
        let batch = ScannedBatch { position, header, bytes: &rest[..size] };
        match self.take_batch(&batch, &Bytes::copy_from_slice(rest), position) {
            None => Some(position + size as u64),
            Some(_) => None,
        }
    }

    /// Takes over one scanned batch. Returns a [`ScanEnd`] if the batch does not belong to the log.
    fn take_batch(&mut self, batch: &ScannedBatch<'_>, chunk: &Bytes, chunk_position: u64) -> Option<ScanEnd> {
        let header = &batch.header;
        let loader = self.loader.as_mut().expect("loading");
        let segment = &mut self.segments[loader.slot];
        if loader.began_at.take().is_some_and(|entry| entry.offset != header.last_offset()) {
            return Some(ScanEnd::WrongIndexEntry);
        }
        if loader.cut.is_some_and(|cut| header.last_offset() >= cut) {
            return Some(ScanEnd::Truncate);
        }
        if header.base_offset < loader.expected || !segment.holds(header.last_offset()) {
            let text = format!("a batch with the offset {}, expected {}", header.base_offset, loader.expected);
            return Some(ScanEnd::Damage(text));
        }
        let (position, size) = (batch.position as u32, batch.bytes.len() as u32);
        segment.index_batch(header, position, size, self.settings.index_interval_bytes);
        let (base, last) = (header.base_offset, header.last_offset());
        self.tail.push(TailBatch { base, last, segment: segment.base, position, len: size }, Offset(i64::MAX));
        if header.leader_epoch > self.epochs.latest_epoch() {
            self.epochs.assign(header.leader_epoch, base);
        }
        if base >= self.producers.end_offset() {
            let from = (batch.position - chunk_position) as usize;
            let bytes = chunk.slice(from..from + batch.bytes.len());
            self.producers.apply(&producer_batch(header, Some(&bytes)), base, segment.modified);
        }
        if last >= self.producers.end_offset() {
            self.producers.advance(header.next_offset());
        }
        loader.expected = header.next_offset();
        loader.valid_end = batch.position + u64::from(size);
        None
    }

    /// The whole segment is valid: goes on to the next one, if that continues the log.
    fn segment_scanned(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        let loader = self.loader.as_mut().expect("loading");
        let (slot, expected) = (loader.slot, loader.expected);
        if loader.found[slot].from_swap {
            // Removes the segments that the compaction replaced by this one.
            while let Some(next) = self.segments.get(slot + 1).filter(|next| next.base < expected) {
                let base = next.base;
                self.loader().found.remove(slot + 1);
                self.remove_segment(slot + 1, out);
                self.warn(out, format!("segment {base} had been compacted into segment {}", self.segments[slot].base));
            }
        }
        let loader = self.loader.as_mut().expect("loading");
        let Some(next) = self.segments.get(slot + 1) else {
            if self.segments[slot].indexes.as_ref().is_some_and(|indexes| indexes.names_offset_from(expected)) {
                // The end of the log is known only now, and an index entry names an offset beyond it.
                self.tail = Tail::default();
                self.loader().expected = self.segments[slot].base;
                return self.end_scan(now, ScanEnd::WrongIndexEntry, out);
            }
            return self.finish(now, None, out);
        };
        if loader.cut.is_some_and(|cut| next.base >= cut) {
            return self.end_scan(now, ScanEnd::Truncate, out);
        }
        if next.base < expected {
            let text = format!("segment {}, which begins before the previous one ends, at {expected}", next.base);
            return self.end_scan(now, ScanEnd::Damage(text), out);
        }
        // Only compaction leaves gaps between segments, and only in the stable part of the log. A gap in the part that
        // is being recovered is damage.
        if next.base > expected && slot >= loader.recover_from {
            let text = format!("a gap: the offsets up to segment {} are missing", next.base);
            return self.end_scan(now, ScanEnd::Damage(text), out);
        }
        loader.slot += 1;
        self.scan_segment(now, out)
    }

    /// The scan has ended before the end of the files.
    fn end_scan(&mut self, now: Now, end: ScanEnd, out: &mut Outbox) -> Result<(), String> {
        let loader = self.loader.as_mut().expect("loading");
        if loader.began_at.take().is_some() || matches!(end, ScanEnd::WrongIndexEntry) {
            let base = self.segments[loader.slot].base;
            self.warn(out, format!("the index of segment {base} names a batch that does not exist; it is rebuilt"));
            return self.scan_segment(now, out);
        }
        let (slot, position, expected) = (loader.slot, loader.valid_end, loader.expected);
        let base = self.segments[slot].base;
        if let ScanEnd::Damage(what) = &end {
            let below = loader.hints.recovery_point.is_some_and(|point| expected < point);
            // Not damage: Kafka preallocates the active segment's file, and may leave zeros at its end.
            let spare = what == "zeros" && slot + 1 == self.segments.len() && !below;
            if (slot < loader.recover_from && !spare) || below {
                return Err(format!(
                    "segment {base} is corrupt at position {position}, offset {expected}, which had been on stable \
                                         storage: there is {what}. Nothing has been changed; restore the file, or remove the partition's \
                                         directory to give up its records"
                ));
            }
            let text = format!("segment {base} ends at position {position}, offset {expected}: there is {what}");
            self.warn(out, text);
        }
        self.finish(now, Some((slot, position as u32)), out)
    }

    fn sync_recovered(&mut self, file: FileId, out: &mut Outbox) {
        if !self.plants.has(Plant::RecoveryNotSynced) {
            self.issue(Purpose::Step, IoOp::Sync { file }, out);
        }
    }

    /// Counts what is cut off a segment of which only `len` bytes stay.
    fn cut_segment(&mut self, slot: usize, len: u32) {
        let cut_bytes = self.segments[slot].len.saturating_sub(len);
        self.loader().recovery.cut_bytes += u64::from(cut_bytes);
    }

    fn remove_segment(&mut self, slot: usize, out: &mut Outbox) {
        let removed = self.segments.remove(slot);
        self.issue(Purpose::Step, IoOp::Close { file: removed.file }, out);
        for kind in [FileKind::Log, FileKind::OffsetIndex, FileKind::TimeIndex, FileKind::TransactionIndex] {
            let path = self.segment_path(removed.base, kind);
            self.issue(Purpose::Step, IoOp::Remove { path }, out);
        }
    }

    /// The end of the log is known: removes what lies behind it, writes the files that were rebuilt, and syncs all.
    /// `cut_at`: the slot and the position where the log ends, if its files go on.
    fn finish(&mut self, now: Now, cut_at: Option<(usize, u32)>, out: &mut Outbox) -> Result<(), String> {
        let hints = self.loader().hints;
        let expected = self.loader().expected;
        let recover_from = self.loader().recover_from;
        let mut touched = !hints.clean || cut_at.is_some();
        if let Some((slot, len)) = cut_at {
            while self.segments.len() > slot + 1 {
                let base = self.segments[self.segments.len() - 1].base;
                self.warn(out, format!("segment {base} is removed: it lies behind the end of the log"));
                self.cut_segment(self.segments.len() - 1, 0);
                self.remove_segment(self.segments.len() - 1, out);
                let dir = self.path("");
                self.issue(Purpose::Step, IoOp::SyncDir { path: dir }, out);
            }
            let file = self.segments[slot].file;
            self.cut_segment(slot, len);
            (self.segments[slot].len, self.segments[slot].written_len) = (len, len);
            self.segments[slot].modified = now.wall;
            self.issue(Purpose::Step, IoOp::SetLen { file, len: u64::from(len) }, out);
            self.sync_recovered(file, out);
        }
        let mut end = if self.segments.is_empty() { Offset::ZERO } else { expected };
        if let Some(cut) = self.loader().cut {
            end = end.min(cut);
        }
        // Removes snapshots of states beyond the end of the log. The next start would trust them.
        if self.snapshots.last().is_some_and(|offset| *offset > end) && !self.segments.is_empty() {
            out.probe(Probe::RecoverySnapshotStray);
            while let Some(offset) = self.snapshots.last().copied().filter(|offset| *offset > end) {
                self.drop_snapshot(offset, out);
            }
            if self.loader().producers_from > end {
                // The producer state was built from a snapshot that is removed now: loads the log again without it.
                let dir = self.path("");
                self.issue(Purpose::Step, IoOp::SyncDir { path: dir }, out);
                for slot in 0..self.segments.len() {
                    self.issue(Purpose::Step, IoOp::Close { file: self.segments[slot].file }, out);
                }
                let Loader { cut, recovery, .. } = **self.loader.as_ref().expect("loading");
                self.start_loading(hints, cut, out);
                self.loader().recovery = recovery;
                return Ok(());
            }
        }
        let first_base = self.segments.first().map(|first| first.base);
        let hint = hints.log_start.unwrap_or(Offset::ZERO);
        if hint > end || first_base.is_none() || first_base.is_some_and(|first| first > end) {
            // The log is empty, or ends below the start offset that was checkpointed: a new segment begins there.
            let start = hint.max(self.loader().cut.filter(|_| first_base.is_some()).unwrap_or(hint));
            if first_base.is_some() && self.loader().cut.is_none() {
                self.warn(
                    out,
                    format!("the log ends at {end}, below its start {start}: a new, empty log begins at {start}"),
                );
            }
            while !self.segments.is_empty() {
                self.cut_segment(self.segments.len() - 1, 0);
                self.remove_segment(self.segments.len() - 1, out);
            }
            for offset in std::mem::take(&mut self.snapshots) {
                let path = self.segment_path(offset, FileKind::ProducerSnapshot);
                self.issue(Purpose::Step, IoOp::Remove { path }, out);
            }
            self.tail.clear();
            self.epochs.clear();
            self.producers = ProducerState::new(start, self.plants);
            self.add_segment(start, now, out);
            end = start;
            touched = true;
        }
        if hints.recovery_point.is_some_and(|point| point > end) {
            self.warn(out, format!("the log ends at {end}, below its recovery point"));
        }
        self.log_start = hint.max(self.segments[0].base);
        self.log_end = end;
        if self.producers.end_offset() < end {
            self.producers.advance(end);
        }
        self.producers.advance_log_start(self.log_start);
        self.epochs.truncate_from_end(end);
        self.epochs.truncate_from_start(self.log_start);
        if self.loader().epochs.take().unwrap_or_default() != self.epochs {
            self.write_epochs(out);
        }
        for slot in 0..self.segments.len() {
            let active = slot + 1 == self.segments.len();
            if slot >= recover_from {
                self.sync_recovered(self.segments[slot].file, out);
                if !active && self.segments[slot].indexes.is_some() {
                    self.segments[slot].seal();
                    self.write_indexes(slot, out);
                }
            }
        }
        let active = self.segments.len() - 1;
        if self.segments[active].indexes.is_none() {
            self.segments[active].reset(self.settings.segment_index_bytes);
        }
        if touched {
            self.write_snapshot(out);
        }
        self.drop_stray_snapshots(out);
        if !self.loader().hints.has_topic_id {
            // Kafka before KIP-516 wrote no such file, and a crash may have interrupted the creation of the log.
            let content = encode_partition_metadata(self.place.topic_id);
            self.replace(names::PARTITION_METADATA, content, out);
        }
        let dir = self.path("");
        self.load_step(LoaderStep::FinalSync, IoOp::SyncDir { path: dir }, out);
        Ok(())
    }

    /// Removes the snapshots that are of no use: all but the newest one and those at the base offset of a segment.
    fn drop_stray_snapshots(&mut self, out: &mut Outbox) {
        let newest = self.snapshots.last().copied();
        for offset in std::mem::take(&mut self.snapshots) {
            if Some(offset) == newest || self.slot_of(offset).is_some() {
                self.snapshots.push(offset);
            } else {
                let path = self.segment_path(offset, FileKind::ProducerSnapshot);
                self.issue(Purpose::RemoveLeftover, IoOp::Remove { path }, out);
            }
        }
    }

    fn loaded(&mut self, out: &mut Outbox, events: &mut Vec<LogEvent>) {
        let loader = self.loader.take().expect("a loading log has a loader");
        self.written = self.log_end;
        self.synced = self.log_end;
        self.stable_before_change = self.stable_before_change.min(self.log_end);
        self.sync_issued = self.log_end;
        self.forget_indexes();
        self.state = LogState::Open;
        if loader.cut.is_none() {
            self.recovery = loader.recovery;
        }
        events.push(match loader.cut {
            Some(_) => LogEvent::Truncated,
            None => LogEvent::Loaded,
        });
        // Queries that were asked before a truncation begin again.
        for query in &mut self.queries {
            query.stage = QueryStage::Index;
        }
        self.resume_queries(out, events);
    }
}

fn staged(file: &ParsedFile, wanted: FileStage) -> Option<(Offset, FileKind)> {
    match file {
        ParsedFile::Segment { offset, kind, stage } if *stage == wanted => Some((*offset, *kind)),
        _ => None,
    }
}

/// The content that a Load returned. `None` if the file does not exist.
fn file_content(result: Result<IoDone, IoError>) -> Result<Option<Bytes>, String> {
    match result {
        Ok(IoDone::Bytes(bytes)) => Ok(Some(bytes)),
        Err(error) if error.kind == IoErrorKind::NotFound => Ok(None),
        other => Err(failure(other)),
    }
}
