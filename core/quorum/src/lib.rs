//! The metadata log `__cluster_metadata-0`: reading it at the start, appending to it, and replacing its oldest part by
//! snapshots.
//!
//! For now the quorum has one voter, this node (KIP-595, KIP-853). So this node is always the leader, and a record is
//! committed as soon as it is on this node's stable storage. The files have Kafka's formats, so that a quorum of
//! several voters can continue from them.
//!
//! ```text
//! boot:  list the directory → read quorum-state → read bootstrap.checkpoint → read the newest valid snapshot
//!        → load the log → replay the records that follow the snapshot → write quorum-state with the next epoch
//!        → append a LeaderChange record → Leading
//! run:   propose → Committed once the proposed records are on stable storage; SnapshotDue when enough has been
//!        written or enough time has passed
//! stop:  close → Closed
//! ```
//!
//! Invariants: `committed ≤ log end`; a record of an epoch is only written when `quorum-state` with that epoch is on
//! stable storage.

#![forbid(unsafe_code)]

mod snapshot;
mod state_file;

pub use snapshot::SoleVoter;
use snapshot::{BATCH_BYTES_MAX, Voters};
pub use state_file::QuorumState;

use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use tidelog_batch::{BatchHeader, ControlRecord, ControlType};
use tidelog_config::plant::{Plant, Plants};
use tidelog_storage::io::{DiskPath, IoCompletion, IoDone, IoErrorKind, IoId, IoOp, IoOwner, Level, Outbox};
use tidelog_storage::names::{self, ParsedFile, SnapshotStage};
use tidelog_storage::probe::Probe;
use tidelog_storage::{Append, AppendError, LoadHints, Log, LogEvent, LogPlace, LogSettings, ReadOutcome};
use tidelog_wire::MetadataRecord;
use tidelog_wire::ids::{LeaderEpoch, LogDirId, LogId, Offset, Uuid};
use tidelog_wire::messages::LeaderChangeMessage;
use tidelog_wire::messages::leader_change_message::Voter;
use tidelog_wire::time::{Mono, Now, WallMs};

const PART: &str = "quorum";
/// The topic of the metadata log. It has one partition.
pub const TOPIC: &str = "__cluster_metadata";
/// The log id of the metadata log.
pub const LOG: LogId = LogId(0);
/// How much of the log one read of the replay asks for.
const REPLAY_BYTES: u32 = 1 << 20;
/// A larger snapshot or `bootstrap.checkpoint` is not read.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;
/// A larger `quorum-state` is not read.
const STATE_BYTES_MAX: u64 = 64 << 10;
/// How many snapshots are kept. The second newest is used if the newest turns out to be damaged.
const SNAPSHOTS_KEPT: usize = 2;

/// The configuration of the quorum on this node.
#[derive(Clone, Debug)]
pub struct QuorumConfig {
    pub voter: SoleVoter,
    /// The log directory of the metadata log.
    pub dir: LogDirId,
    /// The path of `dir`, for messages.
    pub dir_path: String,
    pub log: LogSettings,
    pub plants: Plants,
    /// `metadata.log.max.record.bytes.between.snapshots`
    pub snapshot_bytes: u64,
    /// `metadata.log.max.snapshot.interval.ms`; 0: no snapshot because of time alone.
    pub snapshot_interval_ms: i64,
}

/// The records with which a new cluster begins, whose metadata log is empty.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    pub records: Vec<MetadataRecord>,
    /// `records` in their encoded form.
    pub values: Vec<Bytes>,
}

/// What the quorum tells the broker.
#[derive(Debug)]
pub enum QuorumEvent {
    /// These records are committed. The last of them has the offset `end - 1`. While booting, these are the records
    /// that were found on disk.
    Committed {
        end: Offset,
        records: Vec<MetadataRecord>,
    },
    /// A snapshot was read. Its records take the place of all records that were given out before, and stand for those
    /// before the offset `end`.
    SnapshotLoaded {
        end: Offset,
        records: Vec<MetadataRecord>,
    },
    /// All committed records have been given out, as [`Committed`](Self::Committed) or in a snapshot, and [`Quorum::propose`] may be
    /// called.
    Leading {
        /// The records that the broker shall propose first, if the log holds no metadata record yet.
        bootstrap: Option<Vec<MetadataRecord>>,
    },
    /// A snapshot is due: the broker shall call [`Quorum::snapshot`] with the image of all committed records.
    SnapshotDue,
    Closed,
    /// The metadata cannot be read or written, for this reason. The broker must stop.
    Failed(String),
}

/// What the quorum does now. The variants before `Leading` are the steps of the boot, in their order.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Created,
    Listing,
    LoadingState,
    /// The last snapshot of the list is being read. The others are tried if it is damaged.
    LoadingSnapshot(Vec<(Offset, LeaderEpoch)>),
    LoadingBootstrap,
    Formatting {
        /// How many commands have not completed yet.
        commands_left: u32,
    },
    LoadingLog,
    Replaying {
        /// The offset from which the next read goes on.
        next: Offset,
    },
    SavingState,
    Leading,
    Closing,
    Ended,
}

/// The metadata log with its snapshots and `quorum-state`.
#[derive(Debug)]
pub struct Quorum {
    config: QuorumConfig,
    phase: Phase,
    /// The number of the next disk command.
    next_seq: u64,
    /// The commands in flight that remove files which are no longer needed. Their failure does no harm.
    removals_in_flight: BTreeSet<u64>,
    state: QuorumState,
    log: Option<Log>,
    /// The end offset and epoch of each finished snapshot in the directory, oldest first.
    snapshots: Vec<(Offset, LeaderEpoch)>,
    /// Whether the directory holds a segment of the log.
    has_log: bool,
    /// What the checkpoints of the log directory say about the log.
    hints: LoadHints,
    bootstrap: Bootstrap,
    /// Whether `bootstrap.checkpoint` was found.
    bootstrap_found: bool,
    /// The voters according to the last record that names them. `None` for a log from before KIP-853.
    voters: Option<Voters>,
    /// Whether a metadata record was found, beside the quorum's own control records.
    has_metadata: bool,
    /// One past the last record that was given out as [`QuorumEvent::Committed`].
    committed: Offset,
    /// When the last metadata records were appended. The header of a snapshot carries this time.
    last_proposed_at: WallMs,
    /// The proposals that are not committed yet: the offset after the last record of each, and its records.
    proposed: VecDeque<(Offset, Vec<MetadataRecord>)>,
    bytes_since_snapshot: u64,
    /// When this node began to lead or, if that is later, when a snapshot was last begun.
    last_snapshot_at: Mono,
    /// The snapshot that is being written: the number of the command, its end offset, its epoch.
    snapshot_in_flight: Option<(u64, Offset, LeaderEpoch)>,
}

impl Quorum {
    pub fn new(config: QuorumConfig, bootstrap: Bootstrap) -> Self {
        Self {
            config,
            phase: Phase::Created,
            next_seq: 0,
            removals_in_flight: BTreeSet::new(),
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
            last_proposed_at: WallMs(0),
            proposed: VecDeque::new(),
            bytes_since_snapshot: 0,
            last_snapshot_at: Mono::ZERO,
            snapshot_in_flight: None,
        }
    }

    /// Begins to read the directory of the metadata log. `hints`: what the checkpoints of the log directory say about
    /// it.
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

    /// Whether `values` are sure to fit into one batch. Records that take several batches may be written in part when
    /// the broker crashes.
    pub fn fits_one_batch(&self, values: &[Bytes]) -> bool {
        let records: usize = values.iter().map(|value| value.len() + snapshot::RECORD_OVERHEAD_MAX).sum();
        BatchHeader::LEN + records <= batch_bytes_max(&self.config.log)
    }

    /// Appends the records of one decision and returns the offset of the last. `values` are the records in their
    /// encoded form. The records are committed together. But if they do not [fit one batch](Self::fits_one_batch) and
    /// are not part of a metadata transaction, a crash may leave only the first of them in the log.
    ///
    /// Error: the log is offline, for this reason.
    pub fn propose(
        &mut self,
        now: Now,
        records: Vec<MetadataRecord>,
        values: &[Bytes],
        out: &mut Outbox,
    ) -> Result<Offset, String> {
        assert!(self.is_leading(), "a proposal while {:?}", self.phase);
        assert!(!records.is_empty() && records.len() == values.len(), "a proposal has a value for each of its records");
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
        self.last_proposed_at = now.wall;
        Ok(end + -1)
    }

    /// Writes a snapshot. `image` holds the encoded records of the metadata as it is at the offset `end`, which must be
    /// the committed offset. See [`QuorumEvent::SnapshotDue`].
    pub fn snapshot(&mut self, now: Now, end: Offset, image: &[Bytes], out: &mut Outbox) {
        assert!(self.is_leading() && self.snapshot_in_flight.is_none());
        assert_eq!(end, self.committed, "a snapshot ends at the committed offset");
        let log = self.log.as_ref().expect("a leader has a log");
        let epoch = log.epochs().epoch_for_offset(end + -1).unwrap_or(LeaderEpoch::UNKNOWN);
        // The next snapshot is due one interval from now, even if this one is not written.
        self.bytes_since_snapshot = 0;
        self.last_snapshot_at = now.mono;
        if self.snapshots.last().is_some_and(|(newest, _)| *newest >= end) || epoch == LeaderEpoch::UNKNOWN {
            return;
        }
        out.probe(Probe::MetadataSnapshotTaken);
        let content = snapshot::encode(epoch, now.wall, self.last_proposed_at, Some(&self.config.voter), image);
        let path = self.path(&names::metadata_snapshot_file(end, epoch));
        let seq = self.submit(IoOp::Replace { path, content }, out);
        self.snapshot_in_flight = Some((seq, end, epoch));
    }

    /// Whether [`snapshot`](Self::snapshot) may be called now with an image that ends at `end`.
    pub fn can_snapshot(&self, end: Offset) -> bool {
        end == self.committed && self.can_write_snapshot()
    }

    fn can_write_snapshot(&self) -> bool {
        self.is_leading() && self.snapshot_in_flight.is_none() && self.proposed.is_empty()
    }

    /// Whether a snapshot is due at `now`.
    pub fn snapshot_due(&self, now: Mono) -> bool {
        let by_time = self.config.snapshot_interval_ms > 0
            && now >= self.last_snapshot_at.plus_ms(self.config.snapshot_interval_ms)
            && self.bytes_since_snapshot > 0;
        self.can_write_snapshot() && (by_time || self.bytes_since_snapshot >= self.config.snapshot_bytes)
    }

    /// When to ask [`snapshot_due`](Self::snapshot_due) next, if nothing else happens before.
    pub fn deadline(&self) -> Option<Mono> {
        // While no snapshot can be written there is no deadline. The completion that ends this makes the caller ask for
        // the deadline again.
        let waits = self.can_write_snapshot() && self.config.snapshot_interval_ms > 0 && self.bytes_since_snapshot > 0;
        waits.then(|| self.last_snapshot_at.plus_ms(self.config.snapshot_interval_ms))
    }

    /// Begins to close the log. [`QuorumEvent::Closed`] comes when it is closed.
    pub fn close(&mut self, out: &mut Outbox) {
        assert!(self.is_leading());
        self.phase = Phase::Closing;
        self.log.as_mut().expect("a leader has a log").close(out);
    }

    /// Takes the completion of a command of [`IoOwner::Quorum`] or of the metadata log.
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
        if let Some((seq, end, epoch)) = self.snapshot_in_flight
            && seq == completion.id.seq
        {
            completion.result.map_err(|error| error.text)?;
            self.snapshot_in_flight = None;
            self.snapshots.push((end, epoch));
            if self.is_leading() {
                self.remove_old_snapshots(now, out);
            }
            return Ok(());
        }
        if self.removals_in_flight.remove(&completion.id.seq) {
            if let Err(error) = completion.result {
                out.event(Level::Warn, PART, format!("a file that is no longer needed could not be removed: {error}"));
            }
            return Ok(());
        }
        match &mut self.phase {
            Phase::Listing => {
                // The other completion in this phase is that of CreateDir: there is nothing to do.
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
                            events.push(QuorumEvent::SnapshotLoaded { end, records });
                        }
                        self.open_log(now, out);
                    }
                    Err(reason) => {
                        out.event(Level::Warn, PART, format!("snapshot {name} is not used: {reason}"));
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
            Phase::Formatting { commands_left } => {
                completion.result.map_err(|error| error.text)?;
                *commands_left -= 1;
                if *commands_left == 0 {
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
                panic!("a completion although no command is in flight")
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
        let log = self.log.as_mut().expect("the log of a completion exists");
        let mut log_events = Vec::new();
        log.handle_io(now, completion, out, &mut log_events);
        for event in log_events {
            match event {
                LogEvent::Loaded => self.loaded(out)?,
                LogEvent::ReadDone { outcome, .. } => match outcome {
                    ReadOutcome::Found(found) => self.read_slice(found.slice, out),
                    other => {
                        return Err(format!("the log cannot be read after the end of the newest snapshot: {other:?}"));
                    }
                },
                LogEvent::Failed(reason) => return Err(reason),
                LogEvent::Closed => {
                    self.phase = Phase::Ended;
                    events.push(QuorumEvent::Closed);
                }
                LogEvent::Truncated | LogEvent::LookupDone { .. } | LogEvent::NameFreed | LogEvent::Deleted => {}
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

    /// Reads the last of the snapshots `left`, which have not been tried yet. If none is left, goes on to the log. The
    /// oldest snapshot may be the one that formatting wrote: it holds the voters and no metadata.
    fn load_snapshot(&mut self, now: Now, left: Vec<(Offset, LeaderEpoch)>, out: &mut Outbox) {
        let Some((end, epoch)) = left.last() else { return self.open_log(now, out) };
        let path = self.path(&names::metadata_snapshot_file(*end, *epoch));
        self.submit(IoOp::Load { path, limit_bytes: SNAPSHOT_BYTES_MAX }, out);
        self.phase = Phase::LoadingSnapshot(left);
    }

    /// Reads `bootstrap.checkpoint`, which formatting wrote. If it is there, its records replace `self.bootstrap`.
    fn load_bootstrap(&mut self, out: &mut Outbox) {
        let path = DiskPath { dir: self.config.dir, path: names::BOOTSTRAP_CHECKPOINT.to_owned() };
        self.submit(IoOp::Load { path, limit_bytes: SNAPSHOT_BYTES_MAX }, out);
        self.phase = Phase::LoadingBootstrap;
    }

    /// Writes the files that `kafka-storage format --standalone` writes, except those that are there already.
    fn format(&mut self, now: Now, out: &mut Outbox) {
        let mut commands = 0;
        if !self.bootstrap_found {
            let content = snapshot::encode(LeaderEpoch(0), now.wall, WallMs(0), None, &self.bootstrap.values);
            let path = DiskPath { dir: self.config.dir, path: names::BOOTSTRAP_CHECKPOINT.to_owned() };
            self.submit(IoOp::Replace { path, content }, out);
            commands += 1;
        }
        if self.snapshots.is_empty() {
            let content = snapshot::encode(LeaderEpoch(0), now.wall, now.wall, Some(&self.config.voter), &[]);
            let path = self.path(&names::metadata_snapshot_file(Offset::ZERO, LeaderEpoch(0)));
            self.submit(IoOp::Replace { path, content }, out);
            commands += 1;
        }
        self.submit(IoOp::SyncDir { path: DiskPath { dir: self.config.dir, path: String::new() } }, out);
        self.phase = Phase::Formatting { commands_left: commands + 1 };
    }

    fn log_place(&self) -> LogPlace {
        LogPlace {
            dir: self.config.dir,
            name: names::METADATA_PARTITION_DIR.to_owned(),
            topic_id: Uuid::METADATA_TOPIC,
        }
    }

    fn create_log(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        let log = Log::create(LOG, self.log_place(), self.config.log.clone(), self.config.plants, now, out);
        self.log = Some(log);
        self.loaded(out)
    }

    /// Loads the log. If there is no log and no snapshot with metadata, formats the directory and creates the log.
    fn open_log(&mut self, now: Now, out: &mut Outbox) {
        if !self.has_log && self.committed == Offset::ZERO {
            return self.format(now, out);
        }
        self.phase = Phase::LoadingLog;
        let log = Log::load(LOG, self.log_place(), self.config.log.clone(), self.config.plants, self.hints, out);
        self.log = Some(log);
    }

    /// The log has been loaded or created: checks it against the snapshot, and begins the replay.
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

    /// Reads the next part of the log. At its end, goes on to write `quorum-state`.
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

    fn read_slice(&mut self, slice: tidelog_wire::FileSlice, out: &mut Outbox) {
        self.submit(IoOp::Read { file: slice.file, position: slice.position, len: slice.len }, out);
    }

    fn replay_bytes(&mut self, bytes: &Bytes, events: &mut Vec<QuorumEvent>) -> Result<(), String> {
        let Phase::Replaying { next } = &mut self.phase else { panic!("replaying") };
        let mut told = Vec::new();
        let mut whole_batches = 0;
        for batch in tidelog_batch::Scan::new(bytes, 0, true) {
            whole_batches += 1;
            // A read may begin with batches that are before `next`. No batch is partly before it.
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

    /// Checks that this node is the only voter. If it led alone although there are other voters, the cluster would
    /// split in two.
    fn check_voters(&self) -> Result<(), String> {
        let me = (self.config.voter.node, self.config.voter.directory);
        let Some(voters) = &self.voters else { return Ok(()) };
        if *voters == [me] || *voters == [(me.0, Uuid::ZERO)] {
            return Ok(());
        }
        let voters: Vec<String> = voters.iter().map(|(node, directory)| format!("{node} ({directory})")).collect();
        Err(format!(
            "its quorum has the voters {}, and this is node {} ({}); only a quorum of this node alone is supported",
            voters.join(", "),
            me.0,
            me.1
        ))
    }

    /// Writes `quorum-state` with the next epoch. It must be on stable storage before any record of that epoch is
    /// written.
    fn save_state(&mut self, out: &mut Outbox) -> Result<(), String> {
        self.check_voters()?;
        let log = self.log.as_ref().expect("replayed");
        let seen = self.state.leader_epoch.max(log.latest_epoch()).0;
        let epoch = seen.checked_add(1).ok_or("its last epoch was the greatest that an int32 holds")?;
        self.state =
            QuorumState { leader_id: Some(self.config.voter.node), leader_epoch: LeaderEpoch(epoch), voted: None };
        let path = self.path(names::QUORUM_STATE);
        self.submit(IoOp::Replace { path, content: self.state.encode() }, out);
        self.phase = Phase::SavingState;
        Ok(())
    }

    /// Begins to lead: appends the LeaderChange record of the new epoch.
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
        // A log that holds only control records counts as new: an earlier run may have crashed right after it appended
        // its LeaderChange record.
        let bootstrap = (!self.has_metadata).then(|| std::mem::take(&mut self.bootstrap.records));
        events.push(QuorumEvent::Leading { bootstrap });
        Ok(())
    }

    /// Reports the proposals that have become stable as committed.
    fn tell_committed(&mut self, events: &mut Vec<QuorumEvent>) {
        let log = self.log.as_ref().expect("a leader has a log");
        let early = self.config.plants.has(Plant::MetadataCommittedBeforeSync);
        let stable = if early { log.written_offset() } else { log.stable_offset() };
        while let Some((end, records)) = self.proposed.pop_front_if(|(end, _)| *end <= stable) {
            self.committed = end;
            events.push(QuorumEvent::Committed { end, records });
        }
    }

    /// Removes all but the newest snapshots, and the part of the log before the oldest snapshot that is kept.
    fn remove_old_snapshots(&mut self, now: Now, out: &mut Outbox) {
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
        self.removals_in_flight.insert(seq);
    }

    fn submit(&mut self, op: IoOp, out: &mut Outbox) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
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

/// The greatest size of a batch of metadata. A batch must fit into a segment, however small `segment.bytes` is.
fn batch_bytes_max(settings: &LogSettings) -> usize {
    BATCH_BYTES_MAX.min(settings.segment_bytes as usize)
}

fn append(log: &mut Log, now: Now, epoch: LeaderEpoch, bytes: Bytes, out: &mut Outbox) -> Result<(), String> {
    match log.append(now, Append::Own(&bytes), epoch, out) {
        Ok(_) => Ok(()),
        Err(AppendError::NotOpen(why)) => Err(why),
        // The broker must not go on after this: the records would never be committed, and the requests that wait for
        // them would wait for ever.
        Err(error) => panic!("the metadata log refuses a batch: {error}"),
    }
}
