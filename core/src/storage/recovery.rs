//! Reading a log back from the disk: after a clean stop, after a crash, and up to the place where it is to be cut.
//!
//! ```text
//! List ─► leader-epoch-checkpoint, log files opened
//!      ─► the newest producer snapshot that can be believed
//!      ─► the active segment's indexes (after a clean stop)
//!      ─► scan: the batches from where producers, epochs or the recovery point ask for it
//!      ─► settle: cut, remove, write what was rebuilt, make all of it stable ─► open
//! ```
//!
//! Every batch that is scanned has its checksum compared. Where one fails, or is cut, the recovery point decides: at
//! or above it the log ends there, as a crash leaves it (the torn tail, with whatever follows); below it, or after a
//! clean stop, it is corruption of what had been made stable, and the log goes offline with nothing changed.
//!
//! A crash may come between any two commands of a recovery. Hence later segments are removed from the last to the
//! first before the torn one is cut, and no event says that the log is loaded before all it holds is stable.

use super::append::producer_batch;
use super::checkpoints::encode_partition_metadata;
use super::leader_epochs::LeaderEpochs;
use super::log::{LoadHints, Log, LogEvent, LogState, PART, Pending, failure};
use super::names::{self, FileKind, FileStage, ParsedFile};
use super::offset_index::OffsetPosition;
use super::producer_state::ProducerState;
use super::read::At;
use super::segment::{Indexes, Segment};
use super::tail::{Tail, TailBatch};
use crate::batch::{BatchHeader, Scan, ScanStop, ScannedBatch};
use crate::buggify::Site;
use crate::ids::{FileId, Offset};
use crate::io::{DirEntry, IoDone, IoError, IoErrorKind, IoOp, Level, Outbox};
use crate::plant::Plant;
use crate::probe::Probe;
use crate::time::Now;
use bytes::Bytes;

/// How much of a log is read at a time.
const CHUNK_BYTES: u64 = 1 << 20;
/// No batch is larger. A length beyond is damage, and not believed for an allocation.
const BATCH_BYTES_MAX: u64 = 256 << 20;
/// `leader-epoch-checkpoint`.
const TEXT_BYTES_MAX: u64 = 16 << 20;
const SNAPSHOT_BYTES_MAX: u64 = 256 << 20;

/// What a command of a loading is for.
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
    /// The header of the active segment's first batch.
    FirstHeader,
    Chunk {
        position: u64,
    },
    /// The last command of settling.
    Settled,
}

/// How the listing of one segment's files turned out.
#[derive(Clone, Debug)]
struct FoundSegment {
    base: Offset,
    /// The result of a compaction whose swap a crash interrupted: what it replaces may still lie beside it.
    from_swap: bool,
}

/// The state of a loading.
#[derive(Debug)]
pub(super) struct Loader {
    hints: LoadHints,
    /// Where the log is to be cut, for a truncation.
    cut: Option<Offset>,
    /// Commands whose completion the next step waits for.
    outstanding: usize,
    /// The checkpoint, as read.
    epochs: Option<LeaderEpochs>,
    found: Vec<FoundSegment>,
    /// The index files of the active segment, as read.
    index_bytes: [Option<Result<Bytes, String>>; 2],
    /// From this place on segments are recovered: scanned as a whole, their indexes written anew.
    recover_from: usize,
    /// The segment being scanned.
    slot: usize,
    /// The batches that were read are applied from here on.
    producers_from: Offset,
    /// Where the next batch must begin, or later.
    expected: Offset,
    /// Where the valid part of the scanned segment ends.
    valid_end: u64,
    /// The index entry the scan began at: the batch there proves it, or the index is not believed.
    began_at: Option<OffsetPosition>,
}

/// What ended the valid part of the log before the end of the files.
#[derive(Debug)]
enum End {
    /// The truncation that was asked for.
    Cut,
    /// What stands there is damaged, torn or missing.
    Damage(String),
    /// The index entry at which the scan began does not name a batch: all of the segment is to be scanned.
    IndexLies,
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
        }));
        out.probe(if hints.clean { Probe::RecoveryClean } else { Probe::RecoveryAfterCrash });
        let path = self.path("");
        self.load_step(LoaderStep::List, IoOp::List { path }, out);
    }

    fn loader(&mut self) -> &mut Loader {
        self.loader.as_mut().expect("a log that is loading has a loader")
    }

    fn load_step(&mut self, step: LoaderStep, op: IoOp, out: &mut Outbox) {
        self.loader().outstanding += 1;
        self.issue(Pending::Load(step), op, out);
    }

    /// A command of the loading has completed.
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
            LoaderStep::Settled => {
                result.map_err(|error| error.text)?;
                self.loaded(out, events);
            }
        }
        Ok(())
    }

    fn warn(&self, out: &mut Outbox, text: String) {
        out.event(Level::Warn, PART, format!("{}: {text}", self.place.name));
    }

    /// The directory has been listed: sorts what is there, finishes what a crash interrupted, and reads the rest.
    fn plan(&mut self, now: Now, entries: Vec<DirEntry>, out: &mut Outbox) {
        let files: Vec<(String, ParsedFile)> = entries
            .into_iter()
            .filter(|entry| !entry.is_dir)
            .map(|entry| (entry.name.clone(), ParsedFile::parse(&entry.name)))
            .collect();
        let cleaned_from = files.iter().filter_map(|(_, file)| staged(file, FileStage::Cleaned)).map(|(o, _)| o).min();
        let mut logs: Vec<FoundSegment> = Vec::new();
        let mut indexes: Vec<(Offset, FileKind)> = Vec::new();
        for (name, file) in &files {
            let path = self.path(name);
            match *file {
                ParsedFile::Segment { offset, kind, stage } => match stage {
                    FileStage::Deleted | FileStage::Cleaned => self.issue(Pending::Tidy, IoOp::Remove { path }, out),
                    // KAFKA-6264: a swap beside an unfinished cleaning of lower offsets is unfinished itself.
                    FileStage::Swap if cleaned_from.is_some_and(|from| offset >= from) => {
                        self.issue(Pending::Tidy, IoOp::Remove { path }, out);
                    }
                    FileStage::Swap => {
                        let to = self.segment_path(offset, kind);
                        self.issue(Pending::Step, IoOp::Rename { from: path, to }, out);
                        if kind == FileKind::Log {
                            logs.retain(|log| log.base != offset);
                            logs.push(FoundSegment { base: offset, from_swap: true });
                        }
                    }
                    FileStage::Live => match kind {
                        FileKind::Log if logs.iter().any(|log| log.base == offset) => {}
                        FileKind::Log => logs.push(FoundSegment { base: offset, from_swap: false }),
                        FileKind::ProducerSnapshot => self.snapshots.push(offset),
                        _ => indexes.push((offset, kind)),
                    },
                },
                ParsedFile::Temporary => self.issue(Pending::Tidy, IoOp::Remove { path }, out),
                _ => {}
            }
        }
        logs.sort_by_key(|log| log.base);
        self.snapshots.sort_unstable();
        for (offset, kind) in indexes {
            if !logs.iter().any(|log| log.base == offset) {
                let path = self.segment_path(offset, kind);
                self.issue(Pending::Tidy, IoOp::Remove { path }, out);
            }
        }
        let path = self.path(names::LEADER_EPOCH_CHECKPOINT);
        self.load_step(LoaderStep::Epochs, IoOp::Load { path, limit_bytes: TEXT_BYTES_MAX }, out);
        for (slot, log) in logs.iter().enumerate() {
            let (file, path) = (self.new_file(), self.segment_path(log.base, FileKind::Log));
            self.segments.push(Segment::found(log.base, file, 0, now.wall));
            self.load_step(LoaderStep::Opened { slot }, IoOp::Open { file, path, create: false }, out);
        }
        self.loader().found = logs;
    }

    /// Everything that was asked for by [`plan`](Self::plan) is there: on to the producers.
    fn after_files(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        if self.loader().outstanding > 0 {
            return Ok(());
        }
        self.load_snapshot(now, out)
    }

    /// Reads the snapshot from which the producers' state is built, or begins without one.
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

    /// The newest snapshot; after a crash, the one a whole segment before it. A snapshot holds each producer's last
    /// batch alone, and KIP-98 has a client send again the last five that it got no answer for: those before a roll
    /// must be known too.
    fn snapshot_to_build_on(&mut self) -> Option<Offset> {
        let newest = self.snapshots.last().copied()?;
        if self.loader().hints.clean || self.segments.is_empty() {
            return Some(newest);
        }
        let before = self.segments[self.segment_slot(newest).saturating_sub(1)].base;
        match self.snapshots.iter().rev().find(|offset| **offset <= before) {
            Some(offset) => Some(*offset),
            // Nothing came before the first record of all.
            None if before == Offset::ZERO => None,
            None => Some(newest),
        }
    }

    fn drop_snapshot(&mut self, offset: Offset, out: &mut Outbox) {
        self.snapshots.retain(|known| *known != offset);
        let path = self.segment_path(offset, FileKind::ProducerSnapshot);
        self.issue(Pending::Step, IoOp::Remove { path }, out);
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

    /// Decides where the scan begins.
    fn begin_scan(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        if self.segments.is_empty() {
            return self.settle(now, None, out);
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
        // Where the checkpoint is missing, every batch is asked for its epoch.
        let asks_all = epochs.is_none() && has_bytes;
        if asks_all {
            slot = 0;
        }
        self.epochs = epochs.unwrap_or_default();
        let loader = self.loader();
        (loader.recover_from, loader.slot, loader.producers_from) = (recover_from, slot, producers_from);
        if slot == last && recover_from > last && !asks_all && self.segments[last].len > 0 {
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

    /// The active segment's indexes are there: only what follows their last entry is scanned.
    fn after_index(&mut self, out: &mut Outbox) -> Result<(), String> {
        if self.loader().outstanding > 0 {
            return Ok(());
        }
        let slot = self.loader().slot;
        let [offsets, times] = std::mem::take(&mut self.loader().index_bytes);
        let missing = || Err("it is missing".to_string());
        let (offsets, times) = (offsets.unwrap_or_else(missing), times.unwrap_or_else(missing));
        let decoded = match self.decode_indexes(slot, offsets, times) {
            Ok(_) if out.buggify(Site::IndexRebuild) => Err("because it may be".into()),
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
        self.read_chunk(start, CHUNK_BYTES, out);
        Ok(())
    }

    /// Takes over the active segment's indexes. Where the scan begins: at their last entry, or before the producers'.
    fn start_behind(&mut self, slot: usize, indexes: Box<Indexes>) -> u64 {
        let entry = indexes.offsets.floor(self.loader().producers_from);
        self.loader().began_at = Some(entry).filter(|entry| entry.position > 0);
        self.segments[slot].adopt(indexes);
        u64::from(entry.position)
    }

    /// Begins with the segment that is next.
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
                return self.end_scan(now, end, out);
            }
        }
        let next = scan.next_position();
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
            // Room for a header may be cut by the region, not by the file.
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
                    ScanStop::End | ScanStop::Incomplete { .. } => "a batch that is cut".to_string(),
                };
                self.end_scan(now, End::Damage(what), out)
            }
        }
    }

    /// The planted bug: a batch is believed whatever its checksum and however much of it is there.
    fn accept_torn(&mut self, rest: &[u8], position: u64) -> Option<u64> {
        let header = BatchHeader::parse(rest).ok()?;
        let size = rest.len().min(header.size_bytes());
        let batch = ScannedBatch { position, header, bytes: &rest[..size] };
        match self.take_batch(&batch, &Bytes::copy_from_slice(rest), position) {
            None => Some(position + size as u64),
            Some(_) => None,
        }
    }

    /// Takes over one batch. An end, where it does not belong to the log.
    fn take_batch(&mut self, batch: &ScannedBatch<'_>, chunk: &Bytes, chunk_position: u64) -> Option<End> {
        let header = &batch.header;
        let loader = self.loader.as_mut().expect("loading");
        let segment = &mut self.segments[loader.slot];
        if loader.began_at.take().is_some_and(|entry| entry.offset != header.last_offset()) {
            return Some(End::IndexLies);
        }
        if loader.cut.is_some_and(|cut| header.last_offset() >= cut) {
            return Some(End::Cut);
        }
        if header.base_offset < loader.expected || !segment.holds(header.last_offset()) {
            let text = format!("a batch of the offset {}, expected {}", header.base_offset, loader.expected);
            return Some(End::Damage(text));
        }
        let (position, size) = (batch.position as u32, batch.bytes.len() as u32);
        segment.note(header, position, size, self.settings.index_interval_bytes);
        let (base, last) = (header.base_offset, header.last_offset());
        self.tail.push(TailBatch { base, last, segment: segment.base, position, len: size }, Offset(i64::MAX));
        if header.leader_epoch > self.epochs.latest_epoch() {
            self.epochs.assign(header.leader_epoch, base);
        }
        if base >= self.producers.end_offset() {
            let from = (batch.position - chunk_position) as usize;
            let bytes = chunk.slice(from..from + batch.bytes.len());
            self.producers.apply(&producer_batch(header, Some(&bytes)), base);
        }
        if last >= self.producers.end_offset() {
            self.producers.advance(header.next_offset());
        }
        loader.expected = header.next_offset();
        loader.valid_end = batch.position + u64::from(size);
        None
    }

    /// A segment is valid to its end: on to the next, if it goes on from here.
    fn segment_scanned(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        let loader = self.loader.as_mut().expect("loading");
        let (slot, expected) = (loader.slot, loader.expected);
        if loader.found[slot].from_swap {
            // What the compaction replaced.
            while let Some(next) = self.segments.get(slot + 1).filter(|next| next.base < expected) {
                let base = next.base;
                self.loader().found.remove(slot + 1);
                self.remove_segment(slot + 1, out);
                self.warn(out, format!("segment {base} had been compacted into segment {}", self.segments[slot].base));
            }
        }
        let loader = self.loader.as_mut().expect("loading");
        let Some(next) = self.segments.get(slot + 1) else {
            if self.segments[slot].indexes.as_ref().is_some_and(|indexes| indexes.look_ahead_of(expected)) {
                // Only now is it known where the log ends, and that an entry names what lies beyond.
                self.tail = Tail::default();
                self.loader().expected = self.segments[slot].base;
                return self.end_scan(now, End::IndexLies, out);
            }
            return self.settle(now, None, out);
        };
        if loader.cut.is_some_and(|cut| next.base >= cut) {
            return self.end_scan(now, End::Cut, out);
        }
        if next.base < expected {
            let text = format!("segment {} overlaps the one before, which ends at {expected}", next.base);
            return self.end_scan(now, End::Damage(text), out);
        }
        // After a crash nothing may be missing between two segments; compaction alone leaves gaps, in what is stable.
        if next.base > expected && slot >= loader.recover_from {
            let text = format!("the offsets up to segment {} are missing", next.base);
            return self.end_scan(now, End::Damage(text), out);
        }
        loader.slot += 1;
        self.scan_segment(now, out)
    }

    /// The valid part of the log ends before its files do.
    fn end_scan(&mut self, now: Now, end: End, out: &mut Outbox) -> Result<(), String> {
        let loader = self.loader.as_mut().expect("loading");
        if loader.began_at.take().is_some() || matches!(end, End::IndexLies) {
            let base = self.segments[loader.slot].base;
            self.warn(out, format!("the index of segment {base} names what is no batch; it is rebuilt"));
            return self.scan_segment(now, out);
        }
        let (slot, position, expected) = (loader.slot, loader.valid_end, loader.expected);
        let base = self.segments[slot].base;
        if let End::Damage(what) = &end {
            let below = loader.hints.recovery_point.is_some_and(|point| expected < point);
            // Room that Kafka allocated ahead, which a clean stop of Kafka's leaves in the active segment.
            let spare = what == "zeros" && slot + 1 == self.segments.len() && !below;
            if (slot < loader.recover_from && !spare) || below {
                return Err(format!(
                    "segment {base} is corrupt at position {position}, offset {expected}, below what was on stable \
                     storage: {what}. Nothing has been changed; restore the file, or remove the partition's directory \
                     to give its records up"
                ));
            }
            let text = format!("segment {base} ends at position {position}, offset {expected}: there is {what}");
            self.warn(out, text);
        }
        self.settle(now, Some((slot, position as u32)), out)
    }

    fn sync_recovered(&mut self, file: FileId, out: &mut Outbox) {
        if !self.plants.has(Plant::RecoveryNotSynced) {
            self.issue(Pending::Step, IoOp::Sync { file }, out);
        }
    }

    fn remove_segment(&mut self, slot: usize, out: &mut Outbox) {
        let removed = self.segments.remove(slot);
        self.issue(Pending::Step, IoOp::Close { file: removed.file }, out);
        for kind in [FileKind::Log, FileKind::OffsetIndex, FileKind::TimeIndex, FileKind::TransactionIndex] {
            let path = self.segment_path(removed.base, kind);
            self.issue(Pending::Step, IoOp::Remove { path }, out);
        }
    }

    /// The end of the log is known: leaves only what is valid on the disk, writes what was rebuilt, and makes all of
    /// it stable.
    fn settle(&mut self, now: Now, cut_at: Option<(usize, u32)>, out: &mut Outbox) -> Result<(), String> {
        let hints = self.loader().hints;
        let expected = self.loader().expected;
        let recover_from = self.loader().recover_from;
        let mut touched = !hints.clean || cut_at.is_some();
        if let Some((slot, len)) = cut_at {
            while self.segments.len() > slot + 1 {
                let base = self.segments[self.segments.len() - 1].base;
                self.warn(out, format!("segment {base} is removed: it lies behind the end of the log"));
                self.remove_segment(self.segments.len() - 1, out);
                let dir = self.path("");
                self.issue(Pending::Step, IoOp::SyncDir { path: dir }, out);
            }
            let file = self.segments[slot].file;
            (self.segments[slot].len, self.segments[slot].written_len) = (len, len);
            self.issue(Pending::Step, IoOp::SetLen { file, len: u64::from(len) }, out);
            self.sync_recovered(file, out);
        }
        let mut end = if self.segments.is_empty() { Offset::ZERO } else { expected };
        if let Some(cut) = self.loader().cut {
            end = end.min(cut);
        }
        // A snapshot of what is no longer there would be believed by the next start.
        if self.snapshots.last().is_some_and(|offset| *offset > end) && !self.segments.is_empty() {
            out.probe(Probe::RecoverySnapshotStray);
            while let Some(offset) = self.snapshots.last().copied().filter(|offset| *offset > end) {
                self.drop_snapshot(offset, out);
            }
            if self.loader().producers_from > end {
                // The state was built on one of those: from the listing on again, with what is left.
                let dir = self.path("");
                self.issue(Pending::Step, IoOp::SyncDir { path: dir }, out);
                for slot in 0..self.segments.len() {
                    self.issue(Pending::Step, IoOp::Close { file: self.segments[slot].file }, out);
                }
                let cut = self.loader().cut;
                self.start_loading(hints, cut, out);
                return Ok(());
            }
        }
        let first_base = self.segments.first().map(|first| first.base);
        let hint = hints.log_start.unwrap_or(Offset::ZERO);
        if hint > end || first_base.is_none() || first_base.is_some_and(|first| first > end) {
            // The checkpoint of the log's start survived, and the log up to there did not; or nothing was there.
            let start = hint.max(self.loader().cut.filter(|_| first_base.is_some()).unwrap_or(hint));
            if first_base.is_some() && self.loader().cut.is_none() {
                self.warn(out, format!("the log ends at {end}, below its start {start}: it begins there anew"));
            }
            while !self.segments.is_empty() {
                self.remove_segment(self.segments.len() - 1, out);
            }
            for offset in std::mem::take(&mut self.snapshots) {
                let path = self.segment_path(offset, FileKind::ProducerSnapshot);
                self.issue(Pending::Step, IoOp::Remove { path }, out);
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
            // A Kafka before KIP-516 wrote none, nor did a creation that a crash cut short.
            let content = encode_partition_metadata(self.place.topic_id);
            self.replace(names::PARTITION_METADATA, content, out);
        }
        let dir = self.path("");
        self.load_step(LoaderStep::Settled, IoOp::SyncDir { path: dir }, out);
        Ok(())
    }

    /// Snapshots are of use at the base of a segment, and the newest.
    fn drop_stray_snapshots(&mut self, out: &mut Outbox) {
        let newest = self.snapshots.last().copied();
        for offset in std::mem::take(&mut self.snapshots) {
            if Some(offset) == newest || self.slot_of(offset).is_some() {
                self.snapshots.push(offset);
            } else {
                let path = self.segment_path(offset, FileKind::ProducerSnapshot);
                self.issue(Pending::Tidy, IoOp::Remove { path }, out);
            }
        }
    }

    fn loaded(&mut self, out: &mut Outbox, events: &mut Vec<LogEvent>) {
        let loader = self.loader.take().expect("a log that is loading has a loader");
        self.written = self.log_end;
        self.synced = self.log_end;
        self.promised = self.promised.min(self.log_end);
        self.sync_issued = self.log_end;
        self.forget_indexes();
        self.state = LogState::Open;
        events.push(match loader.cut {
            Some(_) => LogEvent::Truncated,
            None => LogEvent::Loaded,
        });
        // What was asked before a truncation.
        for job in &mut self.jobs {
            job.at = At::Index;
        }
        self.resume_jobs(out, events);
    }
}

fn staged(file: &ParsedFile, wanted: FileStage) -> Option<(Offset, FileKind)> {
    match file {
        ParsedFile::Segment { offset, kind, stage } if *stage == wanted => Some((*offset, *kind)),
        _ => None,
    }
}

/// The content of a file that may be missing.
fn file_content(result: Result<IoDone, IoError>) -> Result<Option<Bytes>, String> {
    match result {
        Ok(IoDone::Bytes(bytes)) => Ok(Some(bytes)),
        Err(error) if error.kind == IoErrorKind::NotFound => Ok(None),
        other => Err(failure(other)),
    }
}
