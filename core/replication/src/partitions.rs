//! All partitions of this broker, found by the id of their log or by topic and index.

use crate::{Partition, ResponsePlace, TopicCounters};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use tidelog_wire::ids::{LogId, PendingId, Uuid};

/// Owns the partitions. Log ids count up, and no log id is used twice.
#[derive(Debug, Default)]
pub struct Partitions {
    /// The partition with the log id `FIRST` comes first. The entry of a deleted partition is `None`.
    by_log: Vec<Option<Box<Partition>>>,
    /// The logs that are not being deleted, by topic id and index. No topic is without a log.
    by_topic: BTreeMap<Uuid, BTreeMap<i32, LogId>>,
    /// The sum of the counters of all deleted partitions. With it a broker's counters do not fall when a topic is
    /// deleted.
    deleted: TopicCounters,
}

/// The log id of the first partition. Log id 0 is the metadata log's.
const FIRST: u32 = 1;

impl Partitions {
    /// The id that the log of the next new partition must have.
    pub fn next_log_id(&self) -> LogId {
        LogId(FIRST + self.by_log.len() as u32)
    }

    pub fn insert(&mut self, log: LogId, partition: Partition) {
        assert_eq!(log, self.next_log_id());
        let before = self.by_topic.entry(partition.topic_id()).or_default().insert(partition.index(), log);
        assert!(before.is_none(), "the partition is there already");
        self.by_log.push(Some(Box::new(partition)));
    }

    pub fn find(&self, topic: Uuid, index: i32) -> Option<LogId> {
        self.logs_of(topic).get(&index).copied()
    }

    /// The logs of one topic that are not being deleted, by index.
    fn logs_of(&self, topic: Uuid) -> &BTreeMap<i32, LogId> {
        static NONE: BTreeMap<i32, LogId> = BTreeMap::new();
        self.by_topic.get(&topic).unwrap_or(&NONE)
    }

    pub fn get(&self, log: LogId) -> Option<&Partition> {
        self.by_log.get(log.0.checked_sub(FIRST)? as usize)?.as_deref()
    }

    pub fn get_mut(&mut self, log: LogId) -> Option<&mut Partition> {
        let partition = self.by_log.get_mut(log.0.checked_sub(FIRST)? as usize)?.as_deref_mut()?;
        partition.may_have_changed = true;
        Some(partition)
    }

    /// Begins to delete a topic: its partitions are found by their log ids alone from now on. Returns those log ids.
    pub fn hide(&mut self, topic: Uuid) -> Vec<LogId> {
        self.by_topic.remove(&topic).into_iter().flat_map(BTreeMap::into_values).collect()
    }

    /// Begins to delete one partition: as [`hide`](Self::hide).
    pub fn hide_one(&mut self, topic: Uuid, index: i32) {
        if let Entry::Occupied(mut logs) = self.by_topic.entry(topic) {
            logs.get_mut().remove(&index);
            if logs.get().is_empty() {
                logs.remove();
            }
        }
    }

    /// Removes a partition whose log has been deleted.
    pub fn remove(&mut self, log: LogId) {
        if let Some(place) = log.0.checked_sub(FIRST)
            && let Some(partition) = self.by_log[place as usize].take()
        {
            self.deleted.add(partition.counters());
        }
    }

    /// The sum of the counters of all partitions since the broker started, deleted partitions included.
    pub fn counters(&self) -> TopicCounters {
        let mut sum = self.deleted;
        self.by_log.iter().flatten().for_each(|partition| sum.add(partition.counters()));
        sum
    }

    /// Every partition that is not being deleted, by topic id and index.
    pub fn iter(&self) -> impl Iterator<Item = &Partition> {
        self.by_topic.values().flat_map(BTreeMap::values).filter_map(|log| self.get(*log))
    }

    /// Asserts the invariants of the partitions that may have changed since this was last called.
    pub fn verify(&mut self) {
        assert!(self.by_topic.values().all(|logs| !logs.is_empty()), "no topic is without a log");
        for log in self.by_topic.values().flat_map(BTreeMap::values) {
            let partition =
                self.by_log[(log.0 - FIRST) as usize].as_mut().expect("a partition that can be found is there");
            if std::mem::take(&mut partition.may_have_changed) {
                partition.verify();
            }
        }
    }

    /// The log ids of all partitions, those being deleted included.
    pub fn log_ids(&self) -> impl Iterator<Item = LogId> + use<> {
        (FIRST..FIRST + self.by_log.len() as u32).map(LogId)
    }

    /// The log ids of the partitions of one topic.
    pub fn of_topic(&self, topic: Uuid) -> Vec<LogId> {
        self.logs_of(topic).values().copied().collect()
    }

    /// The indexes of the partitions of one topic from `first` on, in their order.
    pub fn indexes_of(&self, topic: Uuid, first: i32) -> impl Iterator<Item = i32> {
        self.logs_of(topic).range(first..).map(|(index, _)| *index)
    }

    /// Makes the request `id`, a Produce or a DeleteRecords, wait no longer in any partition. Returns the places of its
    /// response for which it still waited.
    pub fn forget_answers(&mut self, id: PendingId) -> Vec<ResponsePlace> {
        let forget = |partition: &mut Box<Partition>| {
            partition.may_have_changed = true;
            partition.forget_answers(id)
        };
        self.by_log.iter_mut().flatten().flat_map(forget).collect()
    }
}
