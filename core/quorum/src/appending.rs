//! What this node appends to the log, and when it is committed.

use crate::snapshot::{self, BATCH_BYTES_MAX};
use crate::{Phase, Quorum, QuorumEvent};
use bytes::Bytes;
use tidelog_batch::{BatchHeader, ControlRecord};
use tidelog_storage::io::{IoCompletion, Outbox};
use tidelog_storage::{Append, AppendError, Log, LogEvent, LogSettings};
use tidelog_wire::MetadataRecord;
use tidelog_wire::ids::Offset;
use tidelog_wire::time::{Now, WallMs};

/// Records that are in the log and not committed.
#[derive(Debug)]
pub struct Uncommitted {
    /// One past the last of them.
    pub end: Offset,
    /// The timestamp of their batch.
    pub at: WallMs,
    /// Empty for control records.
    pub records: Vec<MetadataRecord>,
}

impl Quorum {
    /// Appends the records of one decision and returns the offset of the last. `values` are the records in their
    /// encoded form. The records are committed together. But if they do not [fit one batch](Self::fits_one_batch) and
    /// are not part of a metadata transaction, a crash may leave only the first of them in the log.
    ///
    /// Error: the log cannot take them, for this reason. The quorum has failed, and says so with its next events.
    pub fn propose(
        &mut self,
        now: Now,
        records: Vec<MetadataRecord>,
        values: &[Bytes],
        out: &mut Outbox,
    ) -> Result<Offset, String> {
        assert!(self.is_leading(), "a proposal while {}", self.role.name());
        assert!(!records.is_empty() && records.len() == values.len(), "a proposal has a value for each of its records");
        let (base, epoch) = (self.log_end(), self.epoch());
        let mut records = records.into_iter();
        for bytes in snapshot::batches(base, epoch, now.wall, values, batch_bytes_max(&self.config.log)) {
            let start = self.log_end();
            if let Err(reason) = self.append(now, Append::Own(&bytes), out) {
                self.fail(reason.clone());
                return Err(reason);
            }
            let end = self.log_end();
            // Each batch may be truncated, or be committed, without those behind it.
            let records = records.by_ref().take((end - start) as usize).collect();
            self.uncommitted.push_back(Uncommitted { end, at: self.last_append_at, records });
        }
        assert!(records.next().is_none(), "each record is in a batch");
        self.resign_needlessly(out);
        Ok(self.log_end() + -1)
    }

    pub(crate) fn log_done(&mut self, now: Now, completion: IoCompletion, out: &mut Outbox) -> Result<(), String> {
        let mut log_events = Vec::new();
        self.log_mut().handle_io(now, completion, out, &mut log_events);
        for event in log_events {
            match event {
                LogEvent::Loaded => self.log_loaded(now, out)?,
                LogEvent::Truncated => self.log_cut(now, out)?,
                LogEvent::ReadDone { token, outcome } => match self.reading.remove(&token) {
                    Some(fetch) => self.fetch_read(fetch, outcome),
                    None if self.is_booting() => self.replay_found(outcome, out)?,
                    // The fetch was refused: this node stops.
                    None => {}
                },
                LogEvent::Failed(reason) => return Err(reason),
                LogEvent::Closed => {
                    self.phase = Phase::Ended;
                    self.events.push(QuorumEvent::Closed);
                }
                LogEvent::LookupDone { .. } | LogEvent::NameFreed | LogEvent::Deleted => {}
            }
        }
        if self.is_running() {
            self.log_advanced(now, out);
        }
        Ok(())
    }

    /// A batch is in the log that no snapshot holds yet.
    pub(crate) fn note_batch(&mut self, bytes: &Bytes) {
        self.snapshots.bytes_since += bytes.len() as u64;
        if let Ok(header) = BatchHeader::parse(bytes) {
            self.last_append_at = WallMs(header.max_timestamp);
        }
    }

    /// Appends to the log. Error: the log is offline, for this reason.
    pub(crate) fn append(&mut self, now: Now, batch: Append<'_>, out: &mut Outbox) -> Result<Offset, String> {
        let epoch = self.epoch();
        let (Append::Own(bytes) | Append::Replicated(bytes)) = batch else { panic!("clients do not write metadata") };
        self.note_batch(bytes);
        match self.log_mut().append(now, batch, epoch, out) {
            Ok(appended) => Ok(appended.base_offset),
            Err(AppendError::NotOpen(why)) => Err(why),
            // The node must not go on after this: the records would never be committed, and the requests that wait for
            // them would wait for ever.
            Err(error) => Err(format!("the metadata log refuses a batch: {error}")),
        }
    }

    /// Appends control records, which take effect at once.
    pub(crate) fn append_controls(&mut self, now: Now, controls: &[ControlRecord], out: &mut Outbox) -> Offset {
        let base = self.log_end();
        let bytes = ControlRecord::batch(controls, base, self.epoch(), now.wall);
        if let Err(reason) = self.append(now, Append::Own(&bytes), out) {
            self.fail(reason);
            return base;
        }
        for (place, control) in controls.iter().enumerate() {
            self.voters.apply(base + place as i64, control).expect("a record of our own is right");
        }
        let end = self.log_end();
        self.uncommitted.push_back(Uncommitted { end, at: self.last_append_at, records: Vec::new() });
        end + -1
    }

    /// Everything below `end` is committed.
    pub(crate) fn commit_up_to(&mut self, end: Offset) {
        while let Some(committed) = self.uncommitted.pop_front_if(|next| next.end <= end) {
            (self.committed, self.committed_at) = (committed.end, committed.at);
            self.has_metadata |= !committed.records.is_empty();
            self.events.push(QuorumEvent::Committed { end: committed.end, records: committed.records });
        }
    }

    pub(crate) fn log_mut(&mut self) -> &mut Log {
        self.log.as_mut().expect("the log is open once the disk is read")
    }
}

/// The greatest size of a batch of metadata. A batch must fit into a segment, however small `segment.bytes` is.
pub fn batch_bytes_max(settings: &LogSettings) -> usize {
    BATCH_BYTES_MAX.min(settings.segment_bytes as usize)
}
