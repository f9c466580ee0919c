//! The partitions of this broker, by log id and by topic.

use crate::ids::{LogId, PendingId, Uuid};
use crate::replication::{Partition, Slot, TopicCounters};
use std::collections::BTreeMap;

/// Owns every partition. Log ids count up and are never used twice.
#[derive(Debug, Default)]
pub struct Partitions {
    /// By log id, counted from `FIRST`; a deleted partition leaves its place empty.
    by_log: Vec<Option<Box<Partition>>>,
    by_topic: BTreeMap<(Uuid, i32), LogId>,
    /// What the partitions that are gone have counted: a broker's counters do not fall with them.
    gone: TopicCounters,
}

/// 0 is the metadata log's.
const FIRST: u32 = 1;

impl Partitions {
    /// The id that the next partition's log gets.
    pub fn next_log_id(&self) -> LogId {
        LogId(FIRST + self.by_log.len() as u32)
    }

    pub fn insert(&mut self, log: LogId, partition: Partition) {
        assert_eq!(log, self.next_log_id());
        let before = self.by_topic.insert((partition.topic_id(), partition.index()), log);
        assert!(before.is_none(), "a partition is opened once");
        self.by_log.push(Some(Box::new(partition)));
    }

    pub fn find(&self, topic: Uuid, index: i32) -> Option<LogId> {
        self.by_topic.get(&(topic, index)).copied()
    }

    pub fn get(&self, log: LogId) -> Option<&Partition> {
        self.by_log.get(log.0.checked_sub(FIRST)? as usize)?.as_deref()
    }

    pub fn get_mut(&mut self, log: LogId) -> Option<&mut Partition> {
        self.by_log.get_mut(log.0.checked_sub(FIRST)? as usize)?.as_deref_mut()
    }

    /// From now on the topic's partitions are found by their log ids alone, which are yielded: it is being deleted.
    pub fn hide(&mut self, topic: Uuid) -> Vec<LogId> {
        self.by_topic.extract_if((topic, i32::MIN)..=(topic, i32::MAX), |_, _| true).map(|(_, log)| log).collect()
    }

    /// The log is gone.
    pub fn remove(&mut self, log: LogId) {
        if let Some(place) = log.0.checked_sub(FIRST)
            && let Some(partition) = self.by_log[place as usize].take()
        {
            self.gone.add(partition.counters());
        }
    }

    /// What all partitions have counted in this life, those that are gone included.
    pub fn counters(&self) -> TopicCounters {
        let mut sum = self.gone;
        self.by_log.iter().flatten().for_each(|partition| sum.add(partition.counters()));
        sum
    }

    /// Every partition that is not being deleted, by topic id and index.
    pub fn iter(&self) -> impl Iterator<Item = &Partition> {
        self.by_topic.values().filter_map(|log| self.get(*log))
    }

    /// The log ids of all partitions, those being deleted included.
    pub fn log_ids(&self) -> impl Iterator<Item = LogId> + use<> {
        (FIRST..FIRST + self.by_log.len() as u32).map(LogId)
    }

    /// The log ids of the partitions of one topic.
    pub fn of_topic(&self, topic: Uuid) -> Vec<LogId> {
        self.by_topic.range((topic, i32::MIN)..=(topic, i32::MAX)).map(|(_, log)| *log).collect()
    }

    /// Takes a produce's waiters out of every partition; yields the slots that were not settled.
    pub fn forget_produce(&mut self, id: PendingId) -> Vec<Slot> {
        self.by_log.iter_mut().flatten().flat_map(|partition| partition.forget_produce(id)).collect()
    }
}
