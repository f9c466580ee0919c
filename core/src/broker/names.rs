//! Names between two topics.
//!
//! A partition's directory, and its line in each checkpoint, bear the name of its topic and not its id. A topic that
//! takes the name of one that is gone begins when neither is left: or its log would begin in the old one's directory,
//! and be recovered by the old one's recovery point.
//!
//! ```text
//! leave ─► the directory is renamed ─► renamed ─► the directory's checkpoints are written ─► the name is free
//! ```

use super::{Broker, Life};
use crate::ids::{LogDirId, Uuid};
use crate::io::Outbox;
use crate::probe::Probe;
use crate::storage::{CheckpointWrites, TopicPartition};
use crate::time::Now;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct Names {
    dirs: BTreeMap<LogDirId, Leaving>,
    /// Partitions of newer topics that wait for such a name.
    waiting: BTreeMap<TopicPartition, Uuid>,
}

/// The names that are on their way out of one log directory.
#[derive(Debug, Default)]
struct Leaving {
    renaming: BTreeSet<TopicPartition>,
    /// For the next writing of the checkpoints: many names share one.
    renamed: BTreeSet<TopicPartition>,
    forgetting: Option<(CheckpointWrites, BTreeSet<TopicPartition>)>,
}

impl Leaving {
    fn has(&self, name: &TopicPartition) -> bool {
        self.renaming.contains(name)
            || self.renamed.contains(name)
            || self.forgetting.as_ref().is_some_and(|(_, names)| names.contains(name))
    }

    fn is_empty(&self) -> bool {
        self.renaming.is_empty() && self.renamed.is_empty() && self.forgetting.is_none()
    }
}

impl Names {
    /// The directory of this name is being renamed.
    pub fn leave(&mut self, dir: LogDirId, name: TopicPartition) {
        self.dirs.entry(dir).or_default().renaming.insert(name);
    }

    pub fn is_leaving(&self, name: &TopicPartition) -> bool {
        self.dirs.values().any(|leaving| leaving.has(name))
    }

    /// A new topic's partition is to be opened once the name is free.
    pub fn wait(&mut self, name: TopicPartition, topic: Uuid) {
        self.waiting.insert(name, topic);
    }

    /// The topics whose partitions wait for a name, one for each of these; some may be deleted by now.
    pub fn waiting(&self) -> impl Iterator<Item = Uuid> {
        self.waiting.values().copied()
    }

    pub fn are_free(&self) -> bool {
        self.dirs.values().all(Leaving::is_empty)
    }

    /// Takes out who waits for a name that nobody has any more.
    fn take_free(&mut self) -> BTreeMap<TopicPartition, Uuid> {
        let waiting = std::mem::take(&mut self.waiting);
        let (leaving, free) = waiting.into_iter().partition(|(name, _)| self.is_leaving(name));
        self.waiting = leaving;
        free
    }

    /// Asserts the invariants.
    pub fn verify(&self) {
        for name in self.waiting.keys() {
            assert!(self.is_leaving(name), "{name} waits for a name that is free");
        }
    }
}

impl Broker {
    /// The directory of this name has another, for good.
    pub(super) fn vacated(&mut self, now: Now, dir: LogDirId, name: &TopicPartition, out: &mut Outbox) {
        if let Some(leaving) = self.names.dirs.get_mut(&dir)
            && let Some(name) = leaving.renaming.take(name)
        {
            out.probe(Probe::LogDirectoryVacated);
            leaving.renamed.insert(name);
            self.forget_names(now, dir, out);
        }
    }

    /// All directories that the start has set aside have their new names.
    pub(super) fn set_aside(&mut self, now: Now, out: &mut Outbox) {
        for dir in self.names.dirs.keys().copied().collect::<Vec<_>>() {
            let leaving = self.names.dirs.get_mut(&dir).expect("listed");
            leaving.renamed.append(&mut leaving.renaming);
            self.forget_names(now, dir, out);
        }
    }

    /// Goes on with the names of one directory, whose checkpoints may have been written.
    pub(super) fn forget_names(&mut self, now: Now, dir: LogDirId, out: &mut Outbox) {
        // What stops writes all checkpoints at its end, and opens nothing.
        while matches!(self.life, Life::Logs(_) | Life::Running)
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
                    let writes = self.parts.checkpoint_dir(dir, out);
                    let leaving = self.names.dirs.get_mut(&dir).expect("just looked at");
                    leaving.forgetting = Some((writes, names));
                }
            }
        }
    }

    /// The directory is offline: what lies there takes no name from a topic that is placed elsewhere.
    pub(super) fn names_offline(&mut self, now: Now, dir: LogDirId, out: &mut Outbox) {
        self.names.dirs.remove(&dir);
        self.open_waiting(now, out);
    }

    pub(super) fn open_waiting(&mut self, now: Now, out: &mut Outbox) {
        for (name, topic) in self.names.take_free() {
            self.open_partition(now, topic, name.partition, out);
        }
    }
}
