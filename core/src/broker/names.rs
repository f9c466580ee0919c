//! The names of deleted topics' partitions that no new topic may use yet.
//!
//! A partition's directory, and its line in each checkpoint, carry the name of its topic, not the topic's id. When a
//! topic is deleted and another is created with the same name, the new topic's logs are created only once the old
//! directories are renamed and the old lines are gone from the checkpoints. Otherwise a new log would be created in the
//! old directory, or be recovered from the old recovery point.
//!
//! ```text
//! `leave`: a rename of the partition's directory begins      the name is in `renaming`
//!    └─► the rename is on stable storage                      the name is in `renamed`
//!           └─► a write of the checkpoints begins             the name is in `forgetting`
//!                  └─► that write is on stable storage        the name is free
//! ```
//!
//! Invariant: a partition waits only while its name is in one of the three sets of a log directory.

use super::Broker;
use crate::ids::{LogDirId, Uuid};
use crate::io::Outbox;
use crate::probe::Probe;
use crate::storage::{CheckpointWrites, TopicPartition};
use crate::time::Now;
use std::collections::{BTreeMap, BTreeSet};

/// The names that are not free yet, and the new partitions that wait for them.
#[derive(Debug, Default)]
pub(super) struct LeavingNames {
    dirs: BTreeMap<LogDirId, NamesOfDir>,
    /// The partitions of new topics that are opened once their name is free, each with its topic's id.
    waiting: BTreeMap<TopicPartition, Uuid>,
}

/// The names that are not free yet in one log directory.
#[derive(Debug, Default)]
struct NamesOfDir {
    /// The names whose partition directory is being renamed.
    renaming: BTreeSet<TopicPartition>,
    /// The names whose partition directory is renamed, but which the checkpoints may still contain. The next write of
    /// the checkpoints leaves all of these names out.
    renamed: BTreeSet<TopicPartition>,
    /// The write of the checkpoints that is under way, and the names that are free once it is on stable storage.
    forgetting: Option<(CheckpointWrites, BTreeSet<TopicPartition>)>,
}

impl NamesOfDir {
    fn has(&self, name: &TopicPartition) -> bool {
        self.renaming.contains(name)
            || self.renamed.contains(name)
            || self.forgetting.as_ref().is_some_and(|(_, names)| names.contains(name))
    }

    fn is_empty(&self) -> bool {
        self.renaming.is_empty() && self.renamed.is_empty() && self.forgetting.is_none()
    }
}

impl LeavingNames {
    /// Remembers that a rename of the partition directory `name` in `dir` has begun.
    pub fn leave(&mut self, dir: LogDirId, name: TopicPartition) {
        self.dirs.entry(dir).or_default().renaming.insert(name);
    }

    /// Whether `name` is not free yet in any log directory.
    pub fn is_leaving(&self, name: &TopicPartition) -> bool {
        self.dirs.values().any(|leaving| leaving.has(name))
    }

    /// Remembers that a new topic's partition must be opened once its name is free.
    pub fn wait(&mut self, name: TopicPartition, topic: Uuid) {
        self.waiting.insert(name, topic);
    }

    /// For each partition that waits for its name, the id of its topic. Some of the topics may be deleted by now.
    pub fn waiting(&self) -> impl Iterator<Item = Uuid> {
        self.waiting.values().copied()
    }

    /// Whether no name is leaving.
    pub fn are_free(&self) -> bool {
        self.dirs.values().all(NamesOfDir::is_empty)
    }

    /// Takes out the waiting partitions whose names are free.
    fn take_free(&mut self) -> BTreeMap<TopicPartition, Uuid> {
        let waiting = std::mem::take(&mut self.waiting);
        let (leaving, free) = waiting.into_iter().partition(|(name, _)| self.is_leaving(name));
        self.waiting = leaving;
        free
    }

    /// Asserts the invariants.
    pub fn verify(&self) {
        for name in self.waiting.keys() {
            assert!(self.is_leaving(name), "{name} waits although its name is free");
        }
    }
}

impl Broker {
    /// The partition directory `name` has been renamed, and the new name is on stable storage.
    pub(super) fn directory_renamed(&mut self, now: Now, dir: LogDirId, name: &TopicPartition, out: &mut Outbox) {
        if let Some(leaving) = self.names.dirs.get_mut(&dir)
            && let Some(name) = leaving.renaming.take(name)
        {
            out.probe(Probe::LogDirectoryVacated);
            leaving.renamed.insert(name);
            self.forget_names(now, dir, out);
        }
    }

    /// Every partition directory that the start has set aside, because its topic no longer exists, has been renamed.
    pub(super) fn stray_directories_renamed(&mut self, now: Now, out: &mut Outbox) {
        for dir in self.names.dirs.keys().copied().collect::<Vec<_>>() {
            let leaving = self.names.dirs.get_mut(&dir).expect("the key was just listed");
            leaving.renamed.append(&mut leaving.renaming);
            self.forget_names(now, dir, out);
        }
    }

    /// Moves the names of one log directory on: frees those in `forgetting` if their write of the checkpoints is on
    /// stable storage, and then begins such a write for those in `renamed`.
    pub(super) fn forget_names(&mut self, now: Now, dir: LogDirId, out: &mut Outbox) {
        // A broker that is stopping opens no more partitions, so no name needs to become free; and at its end it writes
        // all checkpoints anyway.
        while self.phase.opens_logs()
            && let Some(leaving) = self.names.dirs.get_mut(&dir)
        {
            match &leaving.forgetting {
                Some((writes, _)) if !self.parts.dirs.has_written(dir, *writes) => return,
                Some(_) => {
                    leaving.forgetting = None;
                    self.open_waiting(now, out);
                }
                None if leaving.renamed.is_empty() => return,
                None => {
                    let names = std::mem::take(&mut leaving.renamed);
                    for ((of, _), found) in &mut self.parts.found_checkpoints {
                        found.retain(|name, _| *of != dir || !names.contains(name));
                    }
                    let writes = self.parts.checkpoint_dir(dir, out);
                    let leaving = self.names.dirs.get_mut(&dir).expect("it was found above");
                    leaving.forgetting = Some((writes, names));
                }
            }
        }
    }

    /// The log directory is offline. The names in it are free for topics that are placed in other directories.
    pub(super) fn names_offline(&mut self, now: Now, dir: LogDirId, out: &mut Outbox) {
        self.names.dirs.remove(&dir);
        self.open_waiting(now, out);
    }

    /// Opens the partitions whose names have become free.
    pub(super) fn open_waiting(&mut self, now: Now, out: &mut Outbox) {
        for (name, topic) in self.names.take_free() {
            self.open_partition(now, topic, name.partition, out);
        }
    }
}
