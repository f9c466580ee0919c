//! Removing parts of a log: the oldest segments because of age, size or DeleteRecords, the newest records by
//! truncation, and the whole log when its topic is deleted.
//!
//! A segment is removed in two steps. First its files are renamed to `.deleted`, so that it does not come back after a
//! crash. They are unlinked after `file.delete.delay.ms`, when nobody reads them any more. The oldest segment is
//! renamed first, and the next one only when that is on stable storage. So after a crash the log has no gap.

use super::log::{LoadHints, Log, LogState, PART, Purpose};
use super::names::{self, AsideReason, FileKind, FileStage, TopicPartition};
use crate::io::{IoOp, Level, Outbox};
use crate::probe::Probe;
use tidelog_config::plant::Plant;
use tidelog_wire::ids::{FileId, Offset, Uuid};
use tidelog_wire::time::{Mono, Now};

/// Files, or the whole directory of a log, that are to be unlinked at the time `at`.
#[derive(Debug)]
pub(super) struct Removal {
    pub at: Mono,
    /// The files to close.
    files: Vec<FileId>,
    /// The names of the files to unlink, within the log's directory.
    names: Vec<String>,
    /// Whether the log's directory is to be removed.
    whole_log: bool,
}

/// A segment that has left the log, and whose files are still to be renamed.
#[derive(Debug)]
pub(super) struct Leaving {
    base: Offset,
    /// When its files are to be unlinked.
    at: Mono,
    pub file: FileId,
    /// The names of the producer snapshots that are removed with it.
    names: Vec<String>,
}

/// Which limit allows that a segment is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breach {
    /// All its records are below the log's start.
    LogStart,
    /// Without it the log still has `retention.bytes`.
    Size,
    /// Its newest record is older than `retention.ms`. Records without timestamps are as old as the last change of the
    /// log file.
    Time,
}

impl Log {
    /// Carries out DeleteRecords: from now on the log starts at `new_start`. The caller checks that it is not above the
    /// high watermark. The segments below it are removed by the next [`enforce_retention`](Self::enforce_retention).
    /// Returns whether the start has moved. If so, the caller writes the log-start checkpoint.
    pub fn delete_records(&mut self, new_start: Offset, out: &mut Outbox) -> bool {
        assert!(self.is_open(), "DeleteRecords on a log that is {:?}", self.state);
        assert!(new_start <= self.stable_offset().max(self.written), "beyond the high watermark");
        if new_start <= self.log_start {
            return false;
        }
        self.log_start = new_start;
        if self.epochs.truncate_from_start(new_start) {
            self.write_epochs(out);
        }
        self.producers.advance_log_start(new_start);
        true
    }

    /// Removes the oldest segments as far as the topic's retention asks for it and they are below the high watermark
    /// (KAFKA-5634). If an index must be read first, or the name of a new segment must become stable, it continues by
    /// itself when that has completed.
    pub fn enforce_retention(&mut self, now: Now, high_watermark: Offset, out: &mut Outbox) {
        if !self.is_open() {
            return;
        }
        let retention_bytes = self.settings.retention_bytes;
        let by_size = self.settings.delete_retention && retention_bytes >= 0;
        let by_time = self.settings.delete_retention && self.settings.retention_ms >= 0;
        let mut excess_bytes = if by_size { self.size_bytes() as i64 - retention_bytes } else { 0 };
        while let Some(breach) = self.first_breach(now, high_watermark, by_time, excess_bytes, out) {
            if self.segments.len() == 1 {
                out.probe(Probe::RetentionRolls);
                self.roll(now, out);
            }
            if self.unsynced_names > 0 {
                // The name of the next segment must be stable before this one is removed. Otherwise a crash could leave
                // no segment at all, and the log would begin again at offset 0.
                self.waiting_retention = Some(high_watermark);
                return;
            }
            // Whichever limit removes a segment, the log then exceeds `retention.bytes` by that much less.
            excess_bytes -= i64::from(self.segments[0].len);
            self.drop_first_segment(now, breach, out);
        }
    }

    /// Why the first segment may be removed. `None` if it must stay, or if that is not known yet.
    fn first_breach(
        &mut self,
        now: Now,
        high_watermark: Offset,
        by_time: bool,
        excess_bytes: i64,
        out: &mut Outbox,
    ) -> Option<Breach> {
        let next_base = self.segments.get(1).map(|next| next.base);
        let first = &self.segments[0];
        let end = next_base.unwrap_or(self.log_end);
        if end > high_watermark || (next_base.is_none() && first.len == 0) {
            return None;
        }
        if next_base.is_some_and(|next_base| next_base <= self.log_start) {
            return Some(Breach::LogStart);
        }
        let holds_all = self.segments.get(1).is_none_or(|next| next.len == 0);
        let greedy = holds_all && self.plants.has(Plant::RetentionDeletesActiveSegment);
        if excess_bytes > 0 && (excess_bytes >= i64::from(first.len) || greedy) {
            return Some(Breach::Size);
        }
        if !by_time {
            return None;
        }
        if first.damaged_at.is_some() {
            // The age of the records after the damage is unknown.
            return None;
        }
        let Some(largest) = first.largest.filter(|_| !self.indexes_loading(0)) else {
            out.probe(Probe::RetentionWaitsForIndex);
            self.waiting_retention = Some(high_watermark);
            self.load_indexes(0, out);
            return None;
        };
        // As in Kafka (`LogSegment.largestTimestamp`), a segment without any timestamp is as old as the last change of
        // its log file.
        let newest = if largest.timestamp >= 0 { largest.timestamp } else { first.modified.0 };
        (now.wall.0.saturating_sub(newest) > self.settings.retention_ms).then_some(Breach::Time)
    }

    fn drop_first_segment(&mut self, now: Now, breach: Breach, out: &mut Outbox) {
        out.probe(match breach {
            Breach::LogStart => Probe::RetentionByLogStart,
            Breach::Size => Probe::RetentionBySize,
            Breach::Time => Probe::RetentionByTime,
        });
        let dropped = self.segments.remove(0);
        let next_base = self.segments[0].base;
        out.event(
            Level::Info,
            PART,
            format!("{}: segment {} is removed by retention ({breach:?})", self.place.name, dropped.base),
        );
        self.index_loads.retain(|load| load.segment() != dropped.base);
        if self.log_start < next_base {
            self.log_start = next_base;
            if self.epochs.truncate_from_start(next_base) {
                self.write_epochs(out);
            }
            self.producers.advance_log_start(next_base);
        }
        self.tail.forget_below(next_base);
        let newest = self.snapshots.iter().max().copied();
        let (below, kept) = self.snapshots.iter().partition(|offset| **offset < next_base && Some(**offset) != newest);
        self.snapshots = kept;
        let below: Vec<Offset> = below;
        let names = below.into_iter().map(|offset| names::segment_file(offset, FileKind::ProducerSnapshot)).collect();
        let at = now.mono.plus_ms(self.settings.file_delete_delay_ms);
        self.leaving.push_back(Leaving { base: dropped.base, at, file: dropped.file, names });
        if !self.is_renaming_segment {
            self.rename_next_leaving(out);
        }
    }

    /// Renames the files of the next segment that has left the log. The segment after it must wait until this is on
    /// stable storage. Otherwise this renaming could fail and the next succeed: the log would have a gap, and the next
    /// start would cut the log there.
    fn rename_next_leaving(&mut self, out: &mut Outbox) {
        let Some(Leaving { base, at, file, mut names }) = self.leaving.pop_front() else { return };
        for kind in [FileKind::Log, FileKind::OffsetIndex, FileKind::TimeIndex] {
            let deleted = names::staged_segment_file(base, kind, FileStage::Deleted);
            let (from, to) = (self.segment_path(base, kind), self.path(&deleted));
            // A segment that Kafka wrote may lack an index.
            let purpose = if kind == FileKind::Log { Purpose::Step } else { Purpose::RemoveLeftover };
            self.issue(purpose, IoOp::Rename { from, to }, out);
            names.push(deleted);
        }
        names.push(names::segment_file(base, FileKind::TransactionIndex));
        let dir = self.path("");
        self.issue(Purpose::SyncSegmentRename, IoOp::SyncDir { path: dir }, out);
        self.is_renaming_segment = true;
        self.removals.push_back(Removal { at, files: vec![file], names, whole_log: false });
    }

    /// The files of a segment have their new names on stable storage: goes on with the next segment.
    pub(super) fn leaving_renamed(&mut self, out: &mut Outbox) {
        self.is_renaming_segment = false;
        if self.is_open() {
            self.rename_next_leaving(out);
        }
    }

    /// The log is about to be closed: the segments whose files are not renamed yet stay on the disk. They are in the
    /// log again after the next start, until retention removes them again.
    pub(super) fn cancel_leaving(&mut self, out: &mut Outbox) {
        for leaving in std::mem::take(&mut self.leaving) {
            self.issue(Purpose::Step, IoOp::Close { file: leaving.file }, out);
        }
    }

    /// Unlinks the files that are due.
    pub(super) fn remove_due(&mut self, now: Now, out: &mut Outbox) {
        while self.removals.front().is_some_and(|removal| removal.at <= now.mono) {
            self.remove_next(out);
        }
    }

    /// Unlinks all files that are to be unlinked, even if they are not due: the log is about to be closed.
    pub(super) fn remove_all(&mut self, out: &mut Outbox) {
        while !self.removals.is_empty() {
            self.remove_next(out);
        }
    }

    fn remove_next(&mut self, out: &mut Outbox) {
        if let Some(removal) = self.removals.pop_front() {
            for file in removal.files {
                self.issue(Purpose::RemoveLeftover, IoOp::Close { file }, out);
            }
            if !removal.whole_log {
                out.probe(Probe::SegmentUnlinked);
            }
            for name in removal.names {
                let path = self.path(&name);
                self.issue(Purpose::RemoveLeftover, IoOp::Remove { path }, out);
            }
            if removal.whole_log {
                let path = self.path("");
                self.issue(Purpose::RemoveDir, IoOp::RemoveDir { path }, out);
            }
        }
    }

    /// Removes all batches that hold `offset` or a later one. A follower calls this with the offset at which its log
    /// differs from its leader's. Appends and reads are refused until [`LogEvent::Truncated`](super::LogEvent).
    ///
    /// The caller must lower the recovery-point checkpoint to the new end of the log before it appends anything.
    pub fn truncate_to(&mut self, offset: Offset, out: &mut Outbox) {
        assert!(self.is_open() && offset >= Offset::ZERO, "cut to {offset} while {:?}", self.state);
        // Truncation is a clean stop followed by a loading that ends at `offset`.
        self.write_all(out);
        self.cancel_leaving(out);
        let hints = LoadHints {
            clean: true,
            recovery_point: None,
            log_start: Some(self.log_start.min(offset)),
            has_topic_id: true,
        };
        for slot in 0..self.segments.len() {
            self.issue(Purpose::Step, IoOp::Close { file: self.segments[slot].file }, out);
        }
        self.start_loading(hints, Some(offset), out);
    }

    /// Removes all batches, and lets the log begin again at `start`, empty. A follower calls this when a snapshot that
    /// ends at `start` replaces what its log holds (KIP-630). Appends and reads are refused until
    /// [`LogEvent::Truncated`](super::LogEvent).
    ///
    /// A crash may leave any first part of the old batches. The caller must be able to tell from what it has on stable
    /// storage that the log has to begin again.
    pub fn restart_at(&mut self, start: Offset, out: &mut Outbox) {
        assert!(self.is_open() && start >= Offset::ZERO, "restarted at {start} while {:?}", self.state);
        self.write_all(out);
        self.cancel_leaving(out);
        let hints = LoadHints { clean: true, recovery_point: None, log_start: Some(start), has_topic_id: true };
        for slot in 0..self.segments.len() {
            self.issue(Purpose::Step, IoOp::Close { file: self.segments[slot].file }, out);
        }
        // Nothing is kept, so the loading ends at the first offset there may be, which is below `start`.
        self.start_loading(hints, Some(Offset::ZERO), out);
    }

    /// Deletes the log. Its directory is renamed at once, to a name that contains `unique`. It is removed after
    /// `file.delete.delay.ms`; then [`LogEvent::Deleted`](super::LogEvent) comes.
    ///
    /// Returns true if the log is offline. Then its directory stays as it is, the deletion is done, and no event comes.
    pub fn delete(&mut self, now: Now, unique: Uuid, out: &mut Outbox) -> bool {
        match self.state {
            LogState::Deleting | LogState::Deleted => return false,
            LogState::Offline(_) => {
                self.state = LogState::Deleted;
                return true;
            }
            _ => {}
        }
        if self.is_open() {
            out.probe(Probe::LogDeletedOpen);
        }
        let name = match TopicPartition::parse(&self.place.name) {
            Some(partition) => names::aside_dir(&partition, AsideReason::Delete, unique),
            None => panic!("{} is not the directory of a partition", self.place.name),
        };
        let (from, root) = (self.path(""), self.root());
        self.rename_dir(name);
        let to = self.path("");
        self.issue(Purpose::RenameDir, IoOp::Rename { from, to }, out);
        self.issue(Purpose::SyncDirRename, IoOp::SyncDir { path: root }, out);
        let mut files: Vec<FileId> = self.segments.iter().map(|segment| segment.file).collect();
        files.extend(self.leaving.drain(..).map(|leaving| leaving.file));
        for removal in self.removals.drain(..) {
            files.extend(removal.files);
        }
        let at = now.mono.plus_ms(self.settings.file_delete_delay_ms);
        self.removals.push_back(Removal { at, files, names: Vec::new(), whole_log: true });
        self.segments.clear();
        self.tail.clear();
        self.index_loads.clear();
        self.loader = None;
        self.unsynced_since = None;
        self.state = LogState::Deleting;
        false
    }
}
