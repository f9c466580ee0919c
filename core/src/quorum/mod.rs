//! The metadata log `__cluster_metadata-0`: how it is read at the start, extended and cut short by snapshots.
//!
//! A quorum of one (KIP-595, KIP-853): this node is its only voter, so it leads from the start, and what is on its
//! own stable storage is committed. The files are Kafka's: a real quorum extends what is here.
//!
//! ```text
//! boot:  list the directory → quorum-state → bootstrap.checkpoint → newest valid snapshot → log → replay what
//!        follows the snapshot → quorum-state with the next epoch, stable before anything of that epoch → LeaderChange → Leading
//! run:   propose → Committed once the log is stable; snapshot when enough has been written
//! stop:  close → Closed
//! ```
//!
//! Invariant: `committed ≤ log end`, and no record is committed in an epoch that `quorum-state` does not hold.

mod snapshot;
mod state_file;

pub use snapshot::SoleVoter;
use snapshot::{BATCH_BYTES_MAX, Voters};
pub use state_file::QuorumState;

use crate::batch::{BatchHeader, ControlRecord, ControlType};
use crate::ids::{LeaderEpoch, LogDirId, LogId, Offset, Uuid};
use crate::io::{DiskPath, IoCompletion, IoDone, IoErrorKind, IoId, IoOp, IoOwner, Level, Outbox};
use crate::plant::{Plant, Plants};
use crate::probe::Probe;
use crate::storage::names::{self, ParsedFile, SnapshotStage};
use crate::storage::{Append, AppendError, LoadHints, Log, LogEvent, LogPlace, LogSettings, ReadOutcome};
use crate::time::{Mono, Now, WallMs};
use crate::wire::MetadataRecord;
use crate::wire::messages::LeaderChangeMessage;
use crate::wire::messages::leader_change_message::Voter;
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};

const PART: &str = "quorum";
/// The topic whose one partition the metadata log is.
pub const TOPIC: &str = "__cluster_metadata";
/// The metadata log's place in the broker's table of logs.
pub const LOG: LogId = LogId(0);
/// How much of the log is read at once when it is replayed.
const REPLAY_BYTES: u32 = 1 << 20;
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;
const STATE_BYTES_MAX: u64 = 64 << 10;
/// How many snapshots are kept: the one before the newest serves if the newest turns out damaged.
const SNAPSHOTS_KEPT: usize = 2;

/// What a quorum needs to know of its node.
#[derive(Clone, Debug)]
pub struct QuorumConfig {
    pub voter: SoleVoter,
    /// The log directory of the metadata log.
    pub dir: LogDirId,
    /// Its path, for messages.
    pub dir_path: String,
    pub log: LogSettings,
    pub plants: Plants,
    /// `metadata.log.max.record.bytes.between.snapshots`
    pub snapshot_bytes: u64,
    /// `metadata.log.max.snapshot.interval.ms`; 0: never by time.
    pub snapshot_interval_ms: i64,
}

/// What a cluster without metadata begins with.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    pub records: Vec<MetadataRecord>,
    /// The same, encoded.
    pub values: Vec<Bytes>,
}

/// What the quorum tells the broker.
#[derive(Debug)]
pub enum QuorumEvent {
    /// These records are committed, the last of them just before `end`. While booting: they were found on disk.
    Committed {
        end: Offset,
        records: Vec<MetadataRecord>,
    },
    /// Everything that was committed has been told; proposals may come. `fresh`: nothing was ever committed, and
    /// these are the records that the cluster is to begin with.
    Leading {
        bootstrap: Option<Vec<MetadataRecord>>,
    },
    /// It is time for a snapshot: call [`Quorum::snapshot`] with the image of all that was told.
    SnapshotDue,
    Closed,
    /// The metadata cannot be read or written. The broker must end; the text says why.
    Failed(String),
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Created,
    Listing,
    LoadingState,
    /// The snapshots still to try, the newest last.
    LoadingSnapshot(Vec<(Offset, LeaderEpoch)>),
    LoadingBootstrap,
    Formatting {
        left: u32,
    },
    LoadingLog,
    Replaying {
        next: Offset,
    },
    SavingState,
    Leading,
    Closing,
    Ended,
}

#[derive(Debug)]
pub struct Quorum {
    config: QuorumConfig,
    phase: Phase,
    seq: u64,
    /// Commands whose failure nobody minds: removals of files that are of no use.
    idle: BTreeSet<u64>,
    state: QuorumState,
    log: Option<Log>,
    /// What is in the directory: finished snapshots, oldest first.
    snapshots: Vec<(Offset, LeaderEpoch)>,
    has_log: bool,
    hints: LoadHints,
    bootstrap: Bootstrap,
    /// `bootstrap.checkpoint` was there.
    bootstrap_found: bool,
    /// The last set of voters that was found; none in a log of before KIP-853.
    voters: Option<Voters>,
    /// Records of metadata were found, not only the quorum's own.
    has_metadata: bool,
    /// One past the last record told to the broker.
    committed: Offset,
    last_committed_at: WallMs,
    /// Proposed and not yet committed: the offset after each batch, and its records.
    proposed: VecDeque<(Offset, Vec<MetadataRecord>)>,
    bytes_since_snapshot: u64,
    last_snapshot_at: Mono,
    /// The snapshot that is being written, and where it ends.
    writing: Option<(u64, Offset, LeaderEpoch)>,
}

impl Quorum {
    pub fn new(config: QuorumConfig, bootstrap: Bootstrap) -> Self {
        Self {
            config,
            phase: Phase::Created,
            seq: 0,
            idle: BTreeSet::new(),
            state: QuorumState::NONE,
            log: None,
            snapshots: Vec::new(),
            has_log: false,
            hints: LoadHints::default(),
            bootstrap,
            bootstrap_found: false,
            voters: None,
            has_metadata: false,
            committed: Offset::ZERO,
            last_committed_at: WallMs(0),
            proposed: VecDeque::new(),
            bytes_since_snapshot: 0,
            last_snapshot_at: Mono::ZERO,
            writing: None,
        }
    }

    /// Begins to read the metadata directory. `hints`: what the directory's checkpoints say of its log.
    pub fn boot(&mut self, hints: LoadHints, out: &mut Outbox) {
        assert_eq!(self.phase, Phase::Created, "booted twice");
        self.hints = hints;
        self.submit(IoOp::CreateDir { path: self.path("") }, out);
        self.submit(IoOp::List { path: self.path("") }, out);
        self.phase = Phase::Listing;
    }

    /// The epoch in which this node leads.
    pub fn epoch(&self) -> LeaderEpoch {
        self.state.leader_epoch
    }

    /// One past the last committed record.
    pub fn committed(&self) -> Offset {
        self.committed
    }

    pub fn is_leading(&self) -> bool {
        self.phase == Phase::Leading
    }

    /// The level of `kraft.version`: 1 where the set of voters is recorded in the log (KIP-853), 0 where it is static.
    pub fn kraft_version(&self) -> i16 {
        i16::from(self.voters.is_some())
    }

    pub fn voter(&self) -> &SoleVoter {
        &self.config.voter
    }

    pub fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// Whether `values` surely come into one batch. A crash may leave a part of what takes several.
    pub fn fits_one_batch(&self, values: &[Bytes]) -> bool {
        let records: usize = values.iter().map(|value| value.len() + snapshot::RECORD_OVERHEAD_MAX).sum();
        BatchHeader::LEN + records <= batch_bytes_max(&self.config.log)
    }

    /// Appends the records of one decision, each with its encoded form. They are committed together; where they do
    /// not [fit one batch](Self::fits_one_batch) and are no transaction, a crash may leave the first of them alone.
    /// Returns the offset of the last of them. An error: the log has gone offline.
    pub fn propose(
        &mut self,
        now: Now,
        records: Vec<MetadataRecord>,
        values: &[Bytes],
        out: &mut Outbox,
    ) -> Result<Offset, String> {
        assert!(self.is_leading(), "a proposal while {:?}", self.phase);
        assert!(!records.is_empty() && records.len() == values.len(), "a proposal of records with their values");
        let epoch = self.epoch();
        let log = self.log.as_mut().expect("a leader has a log");
        let base = log.log_end_offset();
        for bytes in snapshot::batches(base, epoch, now.wall, values, batch_bytes_max(&self.config.log)) {
            self.bytes_since_snapshot += bytes.len() as u64;
            append(log, now, epoch, bytes, out)?;
        }
        let end = log.log_end_offset();
        assert_eq!(end - base, records.len() as i64);
        self.proposed.push_back((end, records));
        self.last_committed_at = now.wall;
        Ok(end + -1)
    }

    /// Writes a snapshot of all that is committed, which must be what `image` has: the records up to `end`. See
    /// [`QuorumEvent::SnapshotDue`].
    pub fn snapshot(&mut self, now: Now, end: Offset, image: &[Bytes], out: &mut Outbox) {
        assert!(self.is_leading() && self.writing.is_none());
        assert_eq!(end, self.committed, "a snapshot stands for all that is committed");
        let log = self.log.as_ref().expect("a leader has a log");
        let epoch = log.epochs().epoch_for_offset(end + -1).unwrap_or(LeaderEpoch::UNKNOWN);
        // Whatever comes of it: the next is due an interval later.
        self.bytes_since_snapshot = 0;
        self.last_snapshot_at = now.mono;
        if self.snapshots.last().is_some_and(|(newest, _)| *newest >= end) || epoch == LeaderEpoch::UNKNOWN {
            return;
        }
        out.probe(Probe::MetadataSnapshotTaken);
        let content = snapshot::encode(epoch, now.wall, self.last_committed_at, Some(&self.config.voter), image);
        let path = self.path(&names::metadata_snapshot_file(end, epoch));
        let seq = self.submit(IoOp::Replace { path, content }, out);
        self.writing = Some((seq, end, epoch));
    }

    /// Whether a snapshot could be taken now, by somebody who knows the records up to `end`.
    pub fn can_snapshot(&self, end: Offset) -> bool {
        end == self.committed && self.can_write_snapshot()
    }

    fn can_write_snapshot(&self) -> bool {
        self.is_leading() && self.writing.is_none() && self.proposed.is_empty()
    }

    /// Whether a snapshot is due by now.
    pub fn snapshot_due(&self, now: Mono) -> bool {
        let by_time = self.config.snapshot_interval_ms > 0
            && now >= self.last_snapshot_at.plus_ms(self.config.snapshot_interval_ms)
            && self.bytes_since_snapshot > 0;
        self.can_write_snapshot() && (by_time || self.bytes_since_snapshot >= self.config.snapshot_bytes)
    }

    /// When to ask [`snapshot_due`](Self::snapshot_due) next, if nothing else happens before.
    pub fn deadline(&self) -> Option<Mono> {
        // While one cannot be written, what ends that asks again.
        let waits = self.can_write_snapshot() && self.config.snapshot_interval_ms > 0 && self.bytes_since_snapshot > 0;
        waits.then(|| self.last_snapshot_at.plus_ms(self.config.snapshot_interval_ms))
    }

    pub fn close(&mut self, out: &mut Outbox) {
        assert!(self.is_leading());
        self.phase = Phase::Closing;
        self.log.as_mut().expect("a leader has a log").close(out);
    }

    /// Takes a completion of [`IoOwner::Quorum`] or of the metadata log.
    pub fn handle_io(&mut self, now: Now, completion: IoCompletion, out: &mut Outbox) -> Vec<QuorumEvent> {
        let mut events = Vec::new();
        if self.phase == Phase::Ended {
            return events;
        }
        let outcome = match completion.id.owner {
            IoOwner::Quorum => self.file_done(now, completion, out, &mut events),
            _ => self.log_done(now, completion, out, &mut events),
        };
        if let Err(reason) = outcome {
            self.phase = Phase::Ended;
            events.push(QuorumEvent::Failed(format!(
                "the metadata in {}/{} cannot be used: {reason}",
                self.config.dir_path,
                names::METADATA_PARTITION_DIR
            )));
        }
        events
    }

    fn file_done(
        &mut self,
        now: Now,
        completion: IoCompletion,
        out: &mut Outbox,
        events: &mut Vec<QuorumEvent>,
    ) -> Result<(), String> {
        if let Some((seq, end, epoch)) = self.writing
            && seq == completion.id.seq
        {
            completion.result.map_err(|error| error.text)?;
            self.writing = None;
            self.snapshots.push((end, epoch));
            if self.is_leading() {
                self.clean(now, out);
            }
            return Ok(());
        }
        if self.idle.remove(&completion.id.seq) {
            if let Err(error) = completion.result {
                out.event(Level::Warn, PART, format!("a file of no use stays: {error}"));
            }
            return Ok(());
        }
        match &mut self.phase {
            Phase::Listing => {
                // The first completion is that of making the directory.
                if let IoDone::Entries(entries) = completion.result.map_err(|error| error.text)? {
                    for entry in entries.iter().filter(|entry| !entry.is_dir) {
                        match ParsedFile::parse(&entry.name) {
                            ParsedFile::MetadataSnapshot { end_offset, epoch, stage: SnapshotStage::Live } => {
                                self.snapshots.push((end_offset, epoch));
                            }
                            ParsedFile::MetadataSnapshot { .. } => {
                                self.remove(&entry.name, out);
                            }
                            ParsedFile::Segment { .. } => self.has_log = true,
                            _ => {}
                        }
                    }
                    self.snapshots.sort();
                    self.phase = Phase::LoadingState;
                    let path = self.path(names::QUORUM_STATE);
                    self.submit(IoOp::Load { path, limit_bytes: STATE_BYTES_MAX }, out);
                }
            }
            Phase::LoadingState => match completion.result {
                Ok(IoDone::Bytes(bytes)) => {
                    self.state =
                        QuorumState::decode(&bytes).map_err(|reason| format!("{}: {reason}", names::QUORUM_STATE))?;
                    self.load_bootstrap(out);
                }
                Ok(other) => panic!("a Load was answered with {other:?}"),
                Err(error) if error.kind == IoErrorKind::NotFound => self.load_bootstrap(out),
                Err(error) => return Err(error.text),
            },
            Phase::LoadingSnapshot(left) => {
                let (end, epoch) = left.pop().expect("one is being loaded");
                let left = std::mem::take(left);
                let name = names::metadata_snapshot_file(end, epoch);
                let read = match completion.result {
                    Ok(IoDone::Bytes(bytes)) => snapshot::decode(&bytes),
                    Ok(other) => panic!("a Load was answered with {other:?}"),
                    Err(error) => Err(error.text),
                };
                match read {
                    Ok((records, voters)) => {
                        self.voters = voters;
                        self.committed = end;
                        if end > Offset::ZERO {
                            out.probe(Probe::MetadataSnapshotRead);
                            self.has_metadata = true;
                            events.push(QuorumEvent::Committed { end, records });
                        }
                        self.open_log(now, out);
                    }
                    Err(reason) => {
                        out.event(Level::Warn, PART, format!("snapshot {name} is left out: {reason}"));
                        self.snapshots.retain(|snapshot| *snapshot != (end, epoch));
                        self.load_snapshot(now, left, out);
                    }
                }
            }
            Phase::LoadingBootstrap => {
                let file = names::BOOTSTRAP_CHECKPOINT;
                match completion.result {
                    Ok(IoDone::Bytes(bytes)) => {
                        let (records, _) = snapshot::decode(&bytes).map_err(|reason| format!("{file}: {reason}"))?;
                        self.bootstrap.records = records;
                        self.bootstrap_found = true;
                        self.load_snapshot(now, self.snapshots.clone(), out);
                    }
                    Ok(other) => panic!("a Load was answered with {other:?}"),
                    Err(error) if error.kind == IoErrorKind::NotFound => {
                        self.load_snapshot(now, self.snapshots.clone(), out);
                    }
                    Err(error) => return Err(error.text),
                }
            }
            Phase::Formatting { left } => {
                completion.result.map_err(|error| error.text)?;
                *left -= 1;
                if *left == 0 {
                    self.create_log(now, out)?;
                }
            }
            Phase::Replaying { .. } => match completion.result.map_err(|error| error.text)? {
                IoDone::Bytes(bytes) => {
                    self.replay_bytes(&bytes, events)?;
                    self.replay(out)?;
                }
                other => panic!("a Read was answered with {other:?}"),
            },
            Phase::SavingState => {
                completion.result.map_err(|error| error.text)?;
                self.lead(now, out, events)?;
            }
            Phase::Created | Phase::LoadingLog | Phase::Leading | Phase::Closing | Phase::Ended => {
                panic!("a completion of no command")
            }
        }
        Ok(())
    }

    fn log_done(
        &mut self,
        now: Now,
        completion: IoCompletion,
        out: &mut Outbox,
        events: &mut Vec<QuorumEvent>,
    ) -> Result<(), String> {
        let log = self.log.as_mut().expect("completions come for a log that was opened");
        let mut log_events = Vec::new();
        log.handle_io(now, completion, out, &mut log_events);
        for event in log_events {
            match event {
                LogEvent::Loaded => self.loaded(out)?,
                LogEvent::ReadDone { outcome, .. } => match outcome {
                    ReadOutcome::Found(found) => self.read_slice(found.slice, out),
                    other => return Err(format!("the log cannot be read where it should go on: {other:?}")),
                },
                LogEvent::Failed(reason) => return Err(reason),
                LogEvent::Closed => {
                    self.phase = Phase::Ended;
                    events.push(QuorumEvent::Closed);
                }
                LogEvent::Truncated | LogEvent::LookupDone { .. } | LogEvent::Vacated | LogEvent::Deleted => {}
            }
        }
        if self.phase == Phase::Leading {
            self.tell_committed(events);
            if self.snapshot_due(now.mono) {
                events.push(QuorumEvent::SnapshotDue);
            }
        }
        Ok(())
    }

    /// The newest one first. The last resort is what formatting wrote: it holds no metadata, only the voters.
    fn load_snapshot(&mut self, now: Now, left: Vec<(Offset, LeaderEpoch)>, out: &mut Outbox) {
        let Some((end, epoch)) = left.last() else { return self.open_log(now, out) };
        let path = self.path(&names::metadata_snapshot_file(*end, *epoch));
        self.submit(IoOp::Load { path, limit_bytes: SNAPSHOT_BYTES_MAX }, out);
        self.phase = Phase::LoadingSnapshot(left);
    }

    /// What a cluster without metadata begins with: what formatting left, else our own.
    fn load_bootstrap(&mut self, out: &mut Outbox) {
        let path = DiskPath { dir: self.config.dir, path: names::BOOTSTRAP_CHECKPOINT.to_owned() };
        self.submit(IoOp::Load { path, limit_bytes: SNAPSHOT_BYTES_MAX }, out);
        self.phase = Phase::LoadingBootstrap;
    }

    /// Writes what `kafka-storage format --standalone` does, as far as it is not there.
    fn format(&mut self, now: Now, out: &mut Outbox) {
        let mut left = 0;
        if !self.bootstrap_found {
            let content = snapshot::encode(LeaderEpoch(0), now.wall, WallMs(0), None, &self.bootstrap.values);
            let path = DiskPath { dir: self.config.dir, path: names::BOOTSTRAP_CHECKPOINT.to_owned() };
            self.submit(IoOp::Replace { path, content }, out);
            left += 1;
        }
        if self.snapshots.is_empty() {
            let content = snapshot::encode(LeaderEpoch(0), now.wall, now.wall, Some(&self.config.voter), &[]);
            let path = self.path(&names::metadata_snapshot_file(Offset::ZERO, LeaderEpoch(0)));
            self.submit(IoOp::Replace { path, content }, out);
            left += 1;
        }
        self.submit(IoOp::SyncDir { path: DiskPath { dir: self.config.dir, path: String::new() } }, out);
        self.phase = Phase::Formatting { left: left + 1 };
    }

    fn place(&self) -> LogPlace {
        LogPlace {
            dir: self.config.dir,
            name: names::METADATA_PARTITION_DIR.to_owned(),
            topic_id: Uuid::METADATA_TOPIC,
        }
    }

    fn create_log(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        let log = Log::create(LOG, self.place(), self.config.log.clone(), self.config.plants, now, out);
        self.log = Some(log);
        self.loaded(out)
    }

    /// What lies there is loaded; where nothing does, the directory is formatted.
    fn open_log(&mut self, now: Now, out: &mut Outbox) {
        if !self.has_log && self.committed == Offset::ZERO {
            return self.format(now, out);
        }
        self.phase = Phase::LoadingLog;
        let log = Log::load(LOG, self.place(), self.config.log.clone(), self.config.plants, self.hints, out);
        self.log = Some(log);
    }

    /// The log can be read.
    fn loaded(&mut self, out: &mut Outbox) -> Result<(), String> {
        let log = self.log.as_ref().expect("just loaded");
        if log.log_start_offset() > self.committed {
            return Err(format!(
                "the log starts at offset {}, and no valid snapshot reaches that far (the newest ends at {})",
                log.log_start_offset(),
                self.committed
            ));
        }
        if log.log_end_offset() < self.committed {
            return Err(format!(
                "the log ends at offset {}, before the newest snapshot does ({})",
                log.log_end_offset(),
                self.committed
            ));
        }
        self.phase = Phase::Replaying { next: self.committed };
        self.replay(out)
    }

    fn replay(&mut self, out: &mut Outbox) -> Result<(), String> {
        let Phase::Replaying { next } = self.phase else { panic!("a replay while {:?}", self.phase) };
        let log = self.log.as_mut().expect("a log is replayed");
        let end = log.log_end_offset();
        if next >= end {
            return self.save_state(out);
        }
        match log.read(next, end, REPLAY_BYTES, true, 0, out) {
            ReadOutcome::Found(found) => self.read_slice(found.slice, out),
            ReadOutcome::Pending => {}
            other => return Err(format!("the log ends at {end} and cannot be read at {next}: {other:?}")),
        }
        Ok(())
    }

    fn read_slice(&mut self, slice: crate::wire::FileSlice, out: &mut Outbox) {
        self.submit(IoOp::Read { file: slice.file, position: slice.position, len: slice.len }, out);
    }

    fn replay_bytes(&mut self, bytes: &Bytes, events: &mut Vec<QuorumEvent>) -> Result<(), String> {
        let Phase::Replaying { next } = &mut self.phase else { panic!("replaying") };
        let mut told = Vec::new();
        let mut whole_batches = 0;
        for batch in crate::batch::Scan::new(bytes, 0, true) {
            whole_batches += 1;
            // The first batch may begin before the snapshot's end, never in the middle of what it holds.
            if batch.header.last_offset() < *next {
                continue;
            }
            let start = batch.position as usize;
            let whole = bytes.slice(start..start + batch.bytes.len());
            if batch.header.is_control() {
                self.voters = snapshot::voters_after_batch(self.voters.take(), &whole)?;
            } else {
                told.extend(snapshot::metadata_records(&whole)?);
            }
            *next = batch.header.next_offset();
        }
        if whole_batches == 0 {
            return Err(format!("the batch at offset {next} is damaged"));
        }
        self.committed = *next;
        self.has_metadata |= !told.is_empty();
        events.push(QuorumEvent::Committed { end: *next, records: told });
        Ok(())
    }

    /// A node that leads alone although others vote would split the cluster in two.
    fn check_voters(&self) -> Result<(), String> {
        let me = (self.config.voter.node, self.config.voter.directory);
        let Some(voters) = &self.voters else { return Ok(()) };
        if *voters == [me] || *voters == [(me.0, Uuid::ZERO)] {
            return Ok(());
        }
        let voters: Vec<String> = voters.iter().map(|(node, directory)| format!("{node} ({directory})")).collect();
        Err(format!(
            "its quorum is that of the voters {}, and this is node {} ({}); allowed is a quorum of this node alone",
            voters.join(", "),
            me.0,
            me.1
        ))
    }

    /// Promises the next epoch: stable before anything is written in it.
    fn save_state(&mut self, out: &mut Outbox) -> Result<(), String> {
        self.check_voters()?;
        let log = self.log.as_ref().expect("replayed");
        let seen = self.state.leader_epoch.max(log.latest_epoch()).0;
        let epoch = seen.checked_add(1).ok_or("its epochs are used up")?;
        self.state =
            QuorumState { leader_id: Some(self.config.voter.node), leader_epoch: LeaderEpoch(epoch), voted: None };
        let path = self.path(names::QUORUM_STATE);
        self.submit(IoOp::Replace { path, content: self.state.encode() }, out);
        self.phase = Phase::SavingState;
        Ok(())
    }

    fn lead(&mut self, now: Now, out: &mut Outbox, events: &mut Vec<QuorumEvent>) -> Result<(), String> {
        let epoch = self.epoch();
        let log = self.log.as_mut().expect("replayed");
        log.assign_epoch(epoch, out);
        let base = log.log_end_offset();
        let me = Voter { voter_id: self.config.voter.node.0, ..Default::default() };
        let change = LeaderChangeMessage {
            version: 0,
            leader_id: self.config.voter.node.0,
            voters: vec![me.clone()],
            granting_voters: vec![me],
            ..Default::default()
        };
        let mut controls = vec![ControlRecord { kind: ControlType::LeaderChange, value: change.to_bytes(0) }];
        if base == Offset::ZERO {
            controls.extend(self.config.voter.control_records());
            self.voters = Some(vec![(self.config.voter.node, self.config.voter.directory)]);
        }
        append(log, now, epoch, ControlRecord::batch(&controls, base, epoch, now.wall), out)?;
        self.proposed.push_back((base + controls.len() as i64, Vec::new()));
        self.last_snapshot_at = now.mono;
        self.phase = Phase::Leading;
        // An earlier life may have come as far as its LeaderChange and no further.
        let bootstrap = (!self.has_metadata).then(|| std::mem::take(&mut self.bootstrap.records));
        events.push(QuorumEvent::Leading { bootstrap });
        Ok(())
    }

    fn tell_committed(&mut self, events: &mut Vec<QuorumEvent>) {
        let log = self.log.as_ref().expect("a leader has a log");
        let early = self.config.plants.has(Plant::MetadataCommittedBeforeSync);
        let stable = if early { log.written_offset() } else { log.stable_offset() };
        while let Some((end, records)) = self.proposed.pop_front_if(|(end, _)| *end <= stable) {
            self.committed = end;
            events.push(QuorumEvent::Committed { end, records });
        }
    }

    /// Removes snapshots that nobody needs, and the log before the oldest that is kept.
    fn clean(&mut self, now: Now, out: &mut Outbox) {
        while self.snapshots.len() > SNAPSHOTS_KEPT {
            let (end, epoch) = self.snapshots.remove(0);
            self.remove(&names::metadata_snapshot_file(end, epoch), out);
        }
        let (oldest, _) = self.snapshots[0];
        let log = self.log.as_mut().expect("a leader has a log");
        if oldest > log.log_start_offset() {
            log.delete_records(oldest, out);
            log.enforce_retention(now, self.committed, out);
        }
    }

    fn path(&self, file: &str) -> DiskPath {
        let separator = if file.is_empty() { "" } else { "/" };
        DiskPath { dir: self.config.dir, path: format!("{}{separator}{file}", names::METADATA_PARTITION_DIR) }
    }

    fn remove(&mut self, file: &str, out: &mut Outbox) {
        let seq = self.submit(IoOp::Remove { path: self.path(file) }, out);
        self.idle.insert(seq);
    }

    fn submit(&mut self, op: IoOp, out: &mut Outbox) -> u64 {
        let seq = self.seq;
        self.seq += 1;
        out.io(IoId { owner: IoOwner::Quorum, seq }, op);
        seq
    }

    /// Asserts the invariants of this module.
    pub fn verify(&self) {
        if let Some(log) = &self.log {
            log.verify();
            if self.is_leading() {
                assert!(self.committed <= log.log_end_offset());
                assert!(self.proposed.iter().is_sorted_by_key(|(end, _)| *end));
            }
        }
    }
}

/// A batch of metadata fits into a segment, whatever its size.
fn batch_bytes_max(settings: &LogSettings) -> usize {
    BATCH_BYTES_MAX.min(settings.segment_bytes as usize)
}

fn append(log: &mut Log, now: Now, epoch: LeaderEpoch, bytes: Bytes, out: &mut Outbox) -> Result<(), String> {
    match log.append(now, Append::Own(&bytes), epoch, out) {
        Ok(_) => Ok(()),
        Err(AppendError::NotOpen(why)) => Err(why),
        // To go on without it would leave whoever waits for it waiting for ever.
        Err(error) => panic!("the metadata log refuses a batch: {error}"),
    }
}
