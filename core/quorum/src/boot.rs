//! The start: what the disk holds.
//!
//! ```text
//! list the directory → read quorum-state → read bootstrap.checkpoint → read the newest valid snapshot
//!   → (format an empty directory) → load the log → read the records behind the snapshot → the first role
//! ```
//!
//! The records behind the snapshot are not known to be committed: they become [`Uncommitted`].

use crate::snapshots::{SNAPSHOT_BYTES_MAX, SnapshotId};
use crate::voters::{VoterSet, kraft_version_record};
use crate::{Busy, Command, LOG, PART, Phase, Quorum, Uncommitted, snapshot};
use bytes::Bytes;
use tidelog_batch::{ControlType, Scan};
use tidelog_config::plant::Plant;
use tidelog_storage::io::{DiskPath, IoDone, IoError, IoErrorKind, IoOp, Level, Outbox};
use tidelog_storage::names::{self, ParsedFile, SnapshotStage};
use tidelog_storage::probe::Probe;
use tidelog_storage::{LoadHints, Log, LogPlace, ReadOutcome};
use tidelog_wire::ids::{LeaderEpoch, NodeId, Offset, Uuid};
use tidelog_wire::messages::LeaderChangeMessage;
use tidelog_wire::time::{Now, WallMs};

/// How much of the log one read of the replay asks for.
const REPLAY_BYTES: u32 = 1 << 20;
/// A larger `quorum-state` is not read.
const STATE_BYTES_MAX: u64 = 64 << 10;

/// How far the start has come.
#[derive(Debug)]
pub struct Boot {
    step: Step,
    /// What the checkpoints of the log directory say about the log.
    hints: LoadHints,
    /// Whether the directory holds a segment of the log.
    has_log: bool,
    /// Whether `bootstrap.checkpoint` was found.
    has_bootstrap: bool,
    /// The voters that the last leader announced.
    announced: Option<Vec<NodeId>>,
}

/// The steps, in their order.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Listing,
    LoadingState,
    LoadingBootstrap,
    /// The last snapshot of the list is being read. The others are tried if it is damaged.
    LoadingSnapshot(Vec<SnapshotId>),
    Formatting {
        /// How many commands have not completed yet.
        commands_left: u32,
    },
    LoadingLog,
    /// The log ends before the newest snapshot does, and begins again behind it.
    RestartingLog,
    Replaying {
        /// The offset from which the next read goes on.
        next: Offset,
    },
}

impl Quorum {
    pub(crate) fn begin_boot(&mut self, hints: LoadHints, out: &mut Outbox) {
        self.phase = Phase::Booting(Box::new(Boot {
            step: Step::Listing,
            hints,
            has_log: false,
            has_bootstrap: false,
            announced: None,
        }));
        let path = self.path("");
        self.submit(Command::Boot, IoOp::CreateDir { path: path.clone() }, out);
        self.submit(Command::Boot, IoOp::List { path }, out);
    }

    pub(crate) fn is_booting(&self) -> bool {
        matches!(self.phase, Phase::Booting(_))
    }

    fn booting(&mut self) -> &mut Boot {
        match &mut self.phase {
            Phase::Booting(boot) => boot,
            other => panic!("a step of the start while {other:?}"),
        }
    }

    /// A command of the start has completed.
    pub(crate) fn boot_step(
        &mut self,
        now: Now,
        result: Result<IoDone, IoError>,
        out: &mut Outbox,
    ) -> Result<(), String> {
        match &mut self.booting().step {
            Step::Listing => {
                // The other completion in this step is that of CreateDir: there is nothing to do.
                if let IoDone::Entries(entries) = result.map_err(|error| error.text)? {
                    for entry in entries.iter().filter(|entry| !entry.is_dir) {
                        match ParsedFile::parse(&entry.name) {
                            ParsedFile::MetadataSnapshot { end_offset: end, epoch, stage: SnapshotStage::Live } => {
                                self.snapshots.found(SnapshotId { end, epoch });
                            }
                            ParsedFile::MetadataSnapshot { .. } => {
                                let path = self.path(&entry.name);
                                self.submit(Command::Cleanup, IoOp::Remove { path }, out);
                            }
                            ParsedFile::Segment { .. } => self.booting().has_log = true,
                            _ => {}
                        }
                    }
                    self.booting().step = Step::LoadingState;
                    let path = self.path(names::QUORUM_STATE);
                    self.submit(Command::Boot, IoOp::Load { path, limit_bytes: STATE_BYTES_MAX }, out);
                }
            }
            Step::LoadingState => {
                if let Some(bytes) = loaded(result)? {
                    self.state = crate::QuorumState::decode(&bytes)
                        .map_err(|reason| format!("{}: {reason}", names::QUORUM_STATE))?;
                }
                self.booting().step = Step::LoadingBootstrap;
                let path = DiskPath { dir: self.config.dir, path: names::BOOTSTRAP_CHECKPOINT.to_owned() };
                self.submit(Command::Boot, IoOp::Load { path, limit_bytes: SNAPSHOT_BYTES_MAX }, out);
            }
            Step::LoadingBootstrap => {
                if let Some(bytes) = loaded(result)? {
                    let file = names::BOOTSTRAP_CHECKPOINT;
                    let found = snapshot::decode(&bytes).map_err(|reason| format!("{file}: {reason}"))?;
                    self.bootstrap.records = found.metadata;
                    self.booting().has_bootstrap = true;
                }
                let all = self.snapshots.all().to_vec();
                self.try_snapshot(now, all, out)?;
            }
            Step::LoadingSnapshot(left) => {
                let mut left = std::mem::take(left);
                let id = left.pop().expect("one is being loaded");
                let read = match result {
                    Ok(IoDone::Bytes(bytes)) => self.load_snapshot(id, &bytes),
                    Ok(other) => panic!("a Load was answered with {other:?}"),
                    Err(error) => Err(error.text),
                };
                match read {
                    Ok(()) => {
                        if id.end > Offset::ZERO {
                            out.probe(Probe::MetadataSnapshotRead);
                        }
                        self.open_log(now, out)?;
                    }
                    Err(reason) => {
                        let text = format!("snapshot {} is not used: {reason}", id.file_name());
                        out.event(Level::Warn, PART, text);
                        self.snapshots.forget(id);
                        self.try_snapshot(now, left, out)?;
                    }
                }
            }
            Step::Formatting { commands_left } => {
                result.map_err(|error| error.text)?;
                *commands_left -= 1;
                if *commands_left == 0 {
                    self.create_log(now, out)?;
                }
            }
            Step::Replaying { .. } => match result.map_err(|error| error.text)? {
                IoDone::Bytes(bytes) => {
                    self.replay_bytes(&bytes)?;
                    self.replay(now, out)?;
                }
                other => panic!("a Read was answered with {other:?}"),
            },
            Step::LoadingLog | Step::RestartingLog => panic!("a completion although no command is in flight"),
        }
        Ok(())
    }

    /// Reads the last of the snapshots `left`, which have not been tried yet. If none is left, goes on to the log. The
    /// oldest snapshot may be the one that formatting wrote: it holds the voters and no metadata.
    fn try_snapshot(&mut self, now: Now, left: Vec<SnapshotId>, out: &mut Outbox) -> Result<(), String> {
        let Some(id) = left.last() else { return self.open_log(now, out) };
        let path = self.path(&id.file_name());
        self.submit(Command::Boot, IoOp::Load { path, limit_bytes: SNAPSHOT_BYTES_MAX }, out);
        self.booting().step = Step::LoadingSnapshot(left);
        Ok(())
    }

    /// Loads the log. If there is neither a log nor a snapshot with metadata, creates the log, and before that, if this
    /// node forms a quorum of its own, writes the files that formatting writes.
    fn open_log(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        let (has_log, hints) = (self.booting().has_log, self.booting().hints);
        if !has_log && self.committed == Offset::ZERO {
            return match self.config.forms_itself && self.voters.latest_offset().is_none() {
                true => self.format(now, out),
                false => self.create_log(now, out),
            };
        }
        self.booting().step = Step::LoadingLog;
        let log = Log::load(LOG, self.log_place(), self.config.log.clone(), self.config.plants, hints, out);
        self.log = Some(log);
        Ok(())
    }

    /// Writes the files that `kafka-storage format --standalone` writes, except those that are there already.
    fn format(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        let mut commands_left = 1;
        if !self.booting().has_bootstrap {
            let content = snapshot::encode(LeaderEpoch(0), now.wall, WallMs(0), &[], &self.bootstrap.values);
            let path = DiskPath { dir: self.config.dir, path: names::BOOTSTRAP_CHECKPOINT.to_owned() };
            self.submit(Command::Boot, IoOp::Replace { path, content }, out);
            commands_left += 1;
        }
        if self.snapshots.all().is_empty() {
            let voters: VoterSet = [self.my_voter()].into_iter().collect();
            let quorum = [kraft_version_record(1), voters.record()];
            for control in &quorum {
                self.voters.apply(Offset(-1), control).expect("a record of our own is right");
            }
            let id = SnapshotId { end: Offset::ZERO, epoch: LeaderEpoch(0) };
            let content = snapshot::encode(LeaderEpoch(0), now.wall, now.wall, &quorum, &[]);
            let path = self.path(&id.file_name());
            self.submit(Command::Boot, IoOp::Replace { path, content }, out);
            self.snapshots.found(id);
            commands_left += 1;
        }
        let root = DiskPath { dir: self.config.dir, path: String::new() };
        self.submit(Command::Boot, IoOp::SyncDir { path: root }, out);
        self.booting().step = Step::Formatting { commands_left };
        Ok(())
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
        self.booting().step = Step::Replaying { next: Offset::ZERO };
        self.replay(now, out)
    }

    /// The log was loaded: checks it against the snapshot.
    pub(crate) fn log_loaded(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        let log = self.log.as_ref().expect("just loaded");
        if let Some(start) = self.is_behind_snapshot(log) {
            // A crash came after a snapshot was fetched and before the log began again behind it.
            out.event(Level::Warn, PART, format!("the log begins again at {start}, where the newest snapshot ends"));
            self.booting().step = Step::RestartingLog;
            self.busy = Some(Busy::Restarting);
            self.log_mut().restart_at(start, out);
            return Ok(());
        }
        let start = log.log_start_offset();
        if start > self.committed {
            if !self.config.plants.has(Plant::StartsWithoutSnapshot) {
                return Err(format!(
                    "the log starts at offset {start}, and no valid snapshot reaches that far (the newest ends at {})",
                    self.committed
                ));
            }
            self.committed = start;
        }
        self.booting().step = Step::Replaying { next: self.committed };
        self.replay(now, out)
    }

    /// The log begins again, behind the newest snapshot.
    pub(crate) fn log_restarted_at_boot(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        self.booting().step = Step::Replaying { next: self.committed };
        self.replay(now, out)
    }

    /// Reads the next part of the log. At its end, this node takes its first role.
    fn replay(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        let Step::Replaying { next } = self.booting().step else { panic!("a replay while {:?}", self.phase) };
        let log = self.log_mut();
        let end = log.log_end_offset();
        if next >= end {
            return self.booted(now, out);
        }
        match log.read(next, end, REPLAY_BYTES, true, 0, out) {
            ReadOutcome::Found(found) => {
                let slice = found.slice;
                let op = IoOp::Read { file: slice.file, position: slice.position, len: slice.len };
                self.submit(Command::Boot, op, out);
            }
            ReadOutcome::Pending => {}
            other => return Err(format!("the log ends at {end} and cannot be read at {next}: {other:?}")),
        }
        Ok(())
    }

    /// A read of the replay that had to wait has found its records.
    pub(crate) fn replay_found(&mut self, outcome: ReadOutcome, out: &mut Outbox) -> Result<(), String> {
        match outcome {
            ReadOutcome::Found(found) => {
                let slice = found.slice;
                let op = IoOp::Read { file: slice.file, position: slice.position, len: slice.len };
                self.submit(Command::Boot, op, out);
                Ok(())
            }
            other => Err(format!("the log cannot be read after the end of the newest snapshot: {other:?}")),
        }
    }

    fn replay_bytes(&mut self, bytes: &Bytes) -> Result<(), String> {
        let Step::Replaying { mut next } = self.booting().step else { panic!("replaying") };
        let mut has_whole_batch = false;
        for batch in Scan::new(bytes, 0, true) {
            has_whole_batch = true;
            // A read may begin with batches that are before `next`. No batch is partly before it.
            if batch.header.last_offset() < next {
                continue;
            }
            let start = batch.position as usize;
            let whole = bytes.slice(start..start + batch.bytes.len());
            let mut records = Vec::new();
            if batch.header.is_control() {
                for (place, control) in snapshot::controls(&whole)?.iter().enumerate() {
                    self.voters.apply(batch.header.base_offset + place as i64, control)?;
                    if control.kind == ControlType::LeaderChange {
                        self.booting().announced = Some(announced_voters(&control.value)?);
                    }
                }
            } else {
                records = snapshot::metadata_records(&whole)?;
            }
            self.note_batch(&whole);
            next = batch.header.next_offset();
            self.uncommitted.push_back(Uncommitted { end: next, at: self.last_append_at, records });
        }
        if !has_whole_batch {
            return Err(format!("the batch at offset {next} is damaged"));
        }
        self.booting().step = Step::Replaying { next };
        Ok(())
    }

    /// Everything is read.
    fn booted(&mut self, now: Now, out: &mut Outbox) -> Result<(), String> {
        self.check_voters()?;
        self.phase = Phase::Running;
        self.snapshots.last_at = now.mono;
        // A crash may have taken back that the log was trimmed.
        self.trim(now, out);
        self.initial_role(now);
        Ok(())
    }

    /// A node whose configuration names no other controllers must not lead alone where there are other voters: the
    /// cluster would split in two.
    fn check_voters(&mut self) -> Result<(), String> {
        let me = self.config.me;
        if !self.config.forms_itself || !self.config.is_controller {
            return Ok(());
        }
        let announced = self.booting().announced.take().unwrap_or_default();
        let recorded = self.voters.latest();
        let is_static = self.kraft_version() == 0;
        let text = if is_static && announced.iter().any(|node| *node != me.node) {
            let nodes: Vec<String> = announced.iter().map(|node| node.to_string()).collect();
            nodes.join(", ")
        } else if !is_static && !recorded.has(me) {
            recorded.to_string()
        } else {
            return Ok(());
        };
        Err(format!(
            "its quorum has the voters {text}, and this is node {me}; name the other controllers in \
             controller.quorum.bootstrap.servers or controller.quorum.voters"
        ))
    }
}

/// The content that a Load returned. `None` if the file does not exist.
fn loaded(result: Result<IoDone, IoError>) -> Result<Option<Bytes>, String> {
    match result {
        Ok(IoDone::Bytes(bytes)) => Ok(Some(bytes)),
        Ok(other) => panic!("a Load was answered with {other:?}"),
        Err(error) if error.kind == IoErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.text),
    }
}

/// The voters that a LeaderChange record names.
fn announced_voters(value: &Bytes) -> Result<Vec<NodeId>, String> {
    let version = value.first_chunk().map_or(0, |bytes| i16::from_be_bytes(*bytes));
    let change = LeaderChangeMessage::from_bytes(version, value.clone()).map_err(|error| error.to_string())?;
    Ok(change.voters.iter().map(|voter| NodeId(voter.voter_id)).collect())
}
