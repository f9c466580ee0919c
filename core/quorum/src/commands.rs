//! The commands to the disk that are not those of the log, and their completions.

use crate::snapshots::SnapshotId;
use crate::{Busy, PART, Quorum};
use tidelog_config::plant::Plant;
use tidelog_storage::io::{DiskPath, IoCompletion, IoErrorKind, IoId, IoOp, IoOwner, Level, Outbox};
use tidelog_storage::names;
use tidelog_wire::time::Now;

/// What a disk command of [`IoOwner::Quorum`] is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A step of the boot.
    Boot,
    SaveState,
    WriteSnapshot(SnapshotId),
    SaveDownload(SnapshotId),
    OpenSnapshot(SnapshotId),
    /// Its failure does no harm: a file that is not needed any more is closed or removed.
    Cleanup,
}

impl Quorum {
    pub(crate) fn file_done(&mut self, now: Now, completion: IoCompletion, out: &mut Outbox) -> Result<(), String> {
        let command = self.commands.remove(&completion.id.seq).expect("a completion belongs to a command");
        match command {
            Command::Boot => return self.boot_step(now, completion.result, out),
            Command::SaveState => {
                completion.result.map_err(|error| error.text)?;
                let is_planted = self.config.plants.has(Plant::VoteToldBeforeSync);
                assert!(is_planted || self.busy == Some(Busy::SavingState));
                self.busy = self.busy.filter(|busy| *busy != Busy::SavingState);
            }
            Command::WriteSnapshot(id) => match completion.result {
                Ok(_) => self.snapshot_written(now, id, out),
                // The log still has all of it. The next snapshot is written when it is due.
                Err(error) if error.kind == IoErrorKind::NoSpace => {
                    out.event(Level::Warn, PART, format!("snapshot {} is not written: {error}", id.file_name()));
                    self.snapshots.not_written();
                }
                Err(error) => return Err(error.text),
            },
            Command::SaveDownload(id) => {
                completion.result.map_err(|error| error.text)?;
                self.download_saved(id, out);
            }
            Command::OpenSnapshot(id) => self.snapshot_opened(now, id, completion.result, out),
            Command::Cleanup => {
                if let Err(error) = completion.result {
                    let text = format!("a file that is no longer needed could not be removed: {error}");
                    out.event(Level::Warn, PART, text);
                }
            }
        }
        Ok(())
    }

    /// Begins to write `quorum-state`.
    pub(crate) fn save_state(&mut self, out: &mut Outbox) {
        self.state_is_new = false;
        if !self.config.plants.has(Plant::VoteToldBeforeSync) {
            self.busy = Some(Busy::SavingState);
        }
        let content = self.state.encode(self.kraft_version(), self.voters.latest().keys().map(|voter| voter.node));
        let path = self.path(names::QUORUM_STATE);
        self.submit(Command::SaveState, IoOp::Replace { path, content }, out);
    }

    pub(crate) fn path(&self, file: &str) -> DiskPath {
        let separator = if file.is_empty() { "" } else { "/" };
        DiskPath { dir: self.config.dir, path: format!("{}{separator}{file}", names::METADATA_PARTITION_DIR) }
    }

    pub(crate) fn submit(&mut self, command: Command, op: IoOp, out: &mut Outbox) {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.commands.insert(seq, command);
        out.io(IoId { owner: IoOwner::Quorum, seq }, op);
    }
}
