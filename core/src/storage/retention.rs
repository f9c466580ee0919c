//! What leaves the log: the oldest segments by age, size or DeleteRecords; the newest records by truncation; at last
//! the whole log.
//!
//! A segment leaves in two steps. Its files are renamed to `.deleted` at once, so that a crash cannot bring it back,
//! and are unlinked after `file.delete.delay.ms`, when nobody reads them any more. Segments leave from the oldest on,
//! each renaming made stable before the next: what a crash leaves is always a log without a gap.

use super::log::{LoadHints, Log, LogState, PART, Pending};
use super::names::{self, AsideReason, FileKind, FileStage, TopicPartition};
use crate::ids::{FileId, Offset, Uuid};
use crate::io::{IoOp, Level, Outbox};
use crate::plant::Plant;
use crate::probe::Probe;
use crate::time::{Mono, Now};

/// Files, or a whole directory, that wait for their unlinking.
#[derive(Debug)]
pub(super) struct Removal {
    pub at: Mono,
    files: Vec<FileId>,
    /// Within the log's directory.
    names: Vec<String>,
    whole_log: bool,
}

/// A segment that has left the log, and whose files still have their names.
#[derive(Debug)]
pub(super) struct Leaving {
    base: Offset,
    /// When it is to be unlinked.
    at: Mono,
    pub file: FileId,
    /// Snapshots that leave with it.
    names: Vec<String>,
}

/// Why a segment may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breach {
    LogStart,
    Size,
    Time,
}

impl Log {
    /// DeleteRecords: the log starts at `new_start` from now on, at most at the high watermark, which is the
    /// caller's to check. Segments that lie below leave with the next [`enforce_retention`](Self::enforce_retention).
    /// True where the start moved; the log-start checkpoint is to say so.
    pub fn delete_records(&mut self, new_start: Offset, out: &mut Outbox) -> bool {
        assert!(self.is_open(), "records of a log that is {:?}", self.state);
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

    /// Drops what retention allows, of what all replicas have (KAFKA-5634: below the high watermark). Returns at
    /// once; where an index has to be read or a new segment's name made stable first, it goes on by itself.
    pub fn enforce_retention(&mut self, now: Now, high_watermark: Offset, out: &mut Outbox) {
        if !self.is_open() {
            return;
        }
        let retention_bytes = self.settings.retention_bytes;
        let by_size = self.settings.delete_retention && retention_bytes >= 0;
        let by_time = self.settings.delete_retention && self.settings.retention_ms >= 0;
        let mut excess_bytes = if by_size { self.size_bytes() as i64 - retention_bytes } else { 0 };
        while let Some(breach) = self.first_breach(now, high_watermark, by_time, &mut excess_bytes, out) {
            if self.segments.len() == 1 {
                out.probe(Probe::RetentionRolls);
                self.roll(now, out);
            }
            if self.names_in_flight > 0 {
                // A crash must find what stays, or the log would begin anew at offset 0.
                self.retention_waits = Some(high_watermark);
                return;
            }
            self.drop_first_segment(now, breach, out);
        }
    }

    /// Why the first segment may go; `None` where it may not.
    fn first_breach(
        &mut self,
        now: Now,
        high_watermark: Offset,
        by_time: bool,
        excess_bytes: &mut i64,
        out: &mut Outbox,
    ) -> Option<Breach> {
        let next_base = self.segments.get(1).map(|next| next.base);
        let first = &self.segments[0];
        let end = next_base.unwrap_or(self.log_end);
        if end > high_watermark || (next_base.is_none() && first.len == 0) {
            return None;
        }
        if next_base.is_some_and(|next_base| next_base <= self.log_start) {
            *excess_bytes -= i64::from(first.len);
            return Some(Breach::LogStart);
        }
        let holds_all = self.segments.get(1).is_none_or(|next| next.len == 0);
        let greedy = holds_all && self.plants.has(Plant::RetentionDeletesActiveSegment);
        if *excess_bytes > 0 && (*excess_bytes >= i64::from(first.len) || greedy) {
            *excess_bytes -= i64::from(first.len);
            return Some(Breach::Size);
        }
        if !by_time {
            return None;
        }
        if first.damaged_at.is_some() {
            // How old its records are is not known.
            return None;
        }
        let Some(largest) = first.largest.filter(|_| !self.indexes_loading(0)) else {
            out.probe(Probe::RetentionWaitsForIndex);
            self.retention_waits = Some(high_watermark);
            self.load_indexes(0, out);
            return None;
        };
        // Without a timestamp the records are as old as our knowledge of them.
        let newest = if largest.timestamp >= 0 { largest.timestamp } else { first.created.0 };
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
            format!("{}: segment {} leaves by retention ({breach:?})", self.place.name, dropped.base),
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
        if !self.is_setting_aside {
            self.set_next_aside(out);
        }
    }

    /// Renames the files of the next segment that leaves. The one behind it waits until that is on stable storage: were
    /// this one to fail and that one not, the log would have a hole, and be cut there by the next start.
    fn set_next_aside(&mut self, out: &mut Outbox) {
        let Some(Leaving { base, at, file, mut names }) = self.leaving.pop_front() else { return };
        for kind in [FileKind::Log, FileKind::OffsetIndex, FileKind::TimeIndex] {
            let deleted = names::staged_segment_file(base, kind, FileStage::Deleted);
            let (from, to) = (self.segment_path(base, kind), self.path(&deleted));
            // A segment that Kafka wrote may lack an index.
            let pending = if kind == FileKind::Log { Pending::Step } else { Pending::Tidy };
            self.issue(pending, IoOp::Rename { from, to }, out);
            names.push(deleted);
        }
        names.push(names::segment_file(base, FileKind::TransactionIndex));
        let dir = self.path("");
        self.issue(Pending::Aside, IoOp::SyncDir { path: dir }, out);
        self.is_setting_aside = true;
        self.removals.push_back(Removal { at, files: vec![file], names, whole_log: false });
    }

    /// A segment's files have other names, for good.
    pub(super) fn set_aside(&mut self, out: &mut Outbox) {
        self.is_setting_aside = false;
        if self.is_open() {
            self.set_next_aside(out);
        }
    }

    /// The log is to be closed: what still has its name keeps it, until the next retention.
    pub(super) fn leave_in_place(&mut self, out: &mut Outbox) {
        for leaving in std::mem::take(&mut self.leaving) {
            self.issue(Pending::Step, IoOp::Close { file: leaving.file }, out);
        }
    }

    /// Unlinks what has waited long enough.
    pub(super) fn remove_due(&mut self, now: Now, out: &mut Outbox) {
        while self.removals.front().is_some_and(|removal| removal.at <= now.mono) {
            self.remove_next(out);
        }
    }

    /// Unlinks what has not waited long enough: the log is about to be closed.
    pub(super) fn remove_all(&mut self, out: &mut Outbox) {
        while !self.removals.is_empty() {
            self.remove_next(out);
        }
    }

    fn remove_next(&mut self, out: &mut Outbox) {
        if let Some(removal) = self.removals.pop_front() {
            for file in removal.files {
                self.issue(Pending::Tidy, IoOp::Close { file }, out);
            }
            if !removal.whole_log {
                out.probe(Probe::SegmentUnlinked);
            }
            for name in removal.names {
                let path = self.path(&name);
                self.issue(Pending::Tidy, IoOp::Remove { path }, out);
            }
            if removal.whole_log {
                let path = self.path("");
                self.issue(Pending::Deleted, IoOp::RemoveDir { path }, out);
            }
        }
    }

    /// Cuts the log back to `offset`: a follower does so where its log and its leader's part ways. The batch that
    /// holds `offset` goes as a whole. Appends and reads are refused until [`LogEvent::Truncated`](super::LogEvent).
    ///
    /// The recovery-point checkpoint of the log directory must not stay above the new end: the caller writes it
    /// before anything is appended.
    pub fn truncate_to(&mut self, offset: Offset, out: &mut Outbox) {
        assert!(self.is_open() && offset >= Offset::ZERO, "cut to {offset} while {:?}", self.state);
        // What is on disk afterwards is all that counts: everything is written down, and read again up to `offset`.
        self.write_tails(out);
        self.leave_in_place(out);
        let hints = LoadHints {
            clean: true,
            recovery_point: None,
            log_start: Some(self.log_start.min(offset)),
            has_topic_id: true,
        };
        for slot in 0..self.segments.len() {
            self.issue(Pending::Step, IoOp::Close { file: self.segments[slot].file }, out);
        }
        self.start_loading(hints, Some(offset), out);
    }

    /// Deletes the log: its directory is renamed aside at once and removed after `file.delete.delay.ms`, which ends
    /// with [`LogEvent::Deleted`](super::LogEvent). `unique` makes the name one that was never used. True where it is
    /// over at once: a log that is offline is left as it lies.
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
            None => panic!("{} is no partition's directory", self.place.name),
        };
        let (from, root) = (self.path(""), self.root());
        self.rename_dir(name);
        let to = self.path("");
        self.issue(Pending::Renaming, IoOp::Rename { from, to }, out);
        self.issue(Pending::Renamed, IoOp::SyncDir { path: root }, out);
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
