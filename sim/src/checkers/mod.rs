//! Checkers: each judges the history of a run for one kind of violation, in a file of its own. A checker sees every
//! fact as it happens, and the logs as they are in the end. All that it knows of the world is in [`Rules`].
//!
//! To add a checker, write a file with a [`Checker`] and a test with a bad history, and add it to [`all`].

mod durability;
mod epochs;
mod fencing;
mod images;
mod lease;
mod levels;
mod metadata;
mod offsets;
mod order;
mod protocol;
mod quorum;
mod replicas;
mod retention;
mod timestamps;
mod topics;
mod wakeups;
mod watermark;

use crate::client::TopicPlan;
use crate::clock::Drift;
use crate::history::{Entry, Fact, FinalLogs, PartitionKey};
use crate::scenario::{Fault, Scenario, TimedFault};
use std::collections::BTreeMap;
use std::fmt;

/// What a checker found wrong, and in which partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub checker: &'static str,
    pub place: Option<PartitionKey>,
    pub text: String,
}

impl Violation {
    /// The kind and the place. They must stay the same while a scenario is shrunk.
    pub fn fingerprint(&self) -> String {
        let place = self.place.map_or(String::new(), |place| format!(" {place}"));
        self.kind() + &place
    }

    /// Which checker failed. Of a panic it is the file and the words of its message, in which numbers may change.
    pub fn kind(&self) -> String {
        match self.checker {
            "panic" => format!("panic {}", crate::panics::without_numbers(&self.text)),
            checker => checker.to_string(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(place) => write!(f, "{}: {place}: {}", self.checker, self.text),
            None => write!(f, "{}: {}", self.checker, self.text),
        }
    }
}

/// What checkers know of the scenario.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub nodes: u32,
    pub topics: Vec<TopicPlan>,
    /// By how many milliseconds a node's wall clock may differ from the clients'.
    pub wall_slack_ms: i64,
    /// `controller.quorum.fetch.timeout.ms` and `broker.session.timeout.ms`
    pub fetch_timeout_ms: u64,
    pub session_timeout_ms: u64,
}

impl Rules {
    pub fn of(scenario: &Scenario) -> Self {
        let jump = |fault: &TimedFault| match fault.fault {
            Fault::WallJump { ms } => ms.abs(),
            _ => 0,
        };
        let jumps: i64 = scenario.faults.iter().map(jump).sum();
        // A clock drifts by at most 1 %, and a run takes some minutes at most.
        let drift = if scenario.clock.drift == Drift::None { 0 } else { 5_000 };
        let wall_slack_ms = scenario.clock.wall_apart_ms_max as i64 + jumps + drift;
        let ms = |name: &str, default| scenario.properties.get(name).and_then(|ms| ms.parse().ok()).unwrap_or(default);
        Self {
            nodes: scenario.nodes,
            topics: scenario.topics.clone(),
            wall_slack_ms,
            fetch_timeout_ms: ms("controller.quorum.fetch.timeout.ms", 2_000),
            session_timeout_ms: ms("broker.session.timeout.ms", 9_000),
        }
    }

    fn topic(&self, partition: PartitionKey) -> Option<&TopicPlan> {
        self.topics.get(usize::from(partition.topic))
    }

    /// Whether the partition has several replicas.
    fn has_replicas(&self, partition: PartitionKey) -> bool {
        self.topic(partition).is_some_and(|topic| topic.replicas > 1)
    }

    /// Whether retention deletes records of the partition.
    fn has_retention(&self, partition: PartitionKey) -> bool {
        self.topic(partition).is_some_and(TopicPlan::has_retention)
    }

    /// Whether the partition's topic may lose acknowledged records with the page cache (`acks.require.fsync=false`).
    pub fn is_relaxed(&self, partition: PartitionKey) -> bool {
        self.topic(partition).is_some_and(TopicPlan::is_relaxed)
    }

    fn is_log_append_time(&self, partition: PartitionKey) -> bool {
        self.topic(partition).is_some_and(TopicPlan::is_log_append_time)
    }
}

/// Which replicas were damaged, and when they were repaired, if they were.
#[derive(Debug, Default)]
struct Damages(BTreeMap<(PartitionKey, u32), Option<u64>>);

impl Damages {
    fn observe(&mut self, entry: &Entry) {
        match &entry.fact {
            Fact::Damaged { node, partition, time_index: false } => drop(self.0.insert((*partition, *node), None)),
            Fact::Repaired { node } => {
                let of_node = self.0.iter_mut().filter(|((_, of), _)| of == node);
                of_node.for_each(|(_, repaired_at)| *repaired_at = repaired_at.or(Some(entry.at)));
            }
            _ => {}
        }
    }

    /// Whether an answer to a question of `asked_at` may come from a damaged replica.
    fn excuse(&self, partition: PartitionKey, asked_at: u64) -> bool {
        let mut of_partition = self.0.range((partition, 0)..=(partition, u32::MAX));
        of_partition.any(|(_, repaired_at)| repaired_at.is_none_or(|repaired_at| asked_at <= repaired_at))
    }
}

pub use levels::AT_A_START as LEVEL_AT_A_START;

pub trait Checker {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation>;

    /// Judges the end of a run: everything was healed, and every log was read to its end. Some checkers have judged all
    /// by then.
    fn finish(&mut self, _finals: &FinalLogs) -> Result<(), Violation> {
        Ok(())
    }
}

pub fn all(rules: &Rules) -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(durability::Durability::new(rules)),
        Box::new(offsets::Offsets::new(rules)),
        Box::new(watermark::Watermark::new(rules)),
        Box::new(order::Order::new(rules)),
        Box::new(timestamps::Timestamps::new(rules)),
        Box::new(retention::Retention::new(rules)),
        Box::new(protocol::Protocol::new(rules)),
        Box::new(epochs::Epochs::new(rules)),
        Box::new(metadata::Metadata::new(rules)),
        Box::new(levels::Levels::default()),
        Box::new(topics::Topics::default()),
        Box::new(wakeups::Wakeups::new(rules)),
        Box::new(replicas::Replicas::new(rules)),
        Box::new(quorum::Quorum::default()),
        Box::new(lease::Lease::new(rules)),
        Box::new(images::Images::default()),
        Box::new(fencing::Fencing::new(rules)),
    ]
}

/// What a checker gives when it has found something wrong, in one partition or in none.
fn violation(
    checker: &'static str,
    place: impl Into<Option<PartitionKey>>,
    text: impl Into<String>,
) -> Result<(), Violation> {
    Err(Violation { checker, place: place.into(), text: text.into() })
}

/// Short histories for the checkers' own tests.
#[cfg(test)]
mod bench {
    use super::*;
    use crate::history::{FinalLog, OpId, ReadRecord, ValueId};
    use std::collections::BTreeMap;

    pub const P: PartitionKey = PartitionKey { topic: 0, index: 0 };
    /// A partition whose topic has `acks.require.fsync=false`.
    pub const RELAXED: PartitionKey = PartitionKey { topic: 1, index: 0 };

    /// A partition whose records leave a second after their timestamps.
    pub const AGED: PartitionKey = PartitionKey { topic: 2, index: 0 };
    /// A partition of which retention keeps 500 bytes.
    pub const SIZED: PartitionKey = PartitionKey { topic: 3, index: 0 };

    pub fn rules() -> Rules {
        let topic = |configs: &[(&str, &str)]| TopicPlan {
            name: "t".into(),
            partitions: 1,
            replicas: 1,
            auto_created: false,
            configs: configs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            without_timestamps: false,
        };
        let aged = topic(&[("retention.ms", "1000"), ("internal.segment.bytes", "1000")]);
        let sized = topic(&[("retention.bytes", "500"), ("internal.segment.bytes", "1000")]);
        let topics = vec![topic(&[]), topic(&[("acks.require.fsync", "false")]), aged, sized];
        Rules { nodes: 1, topics, ..Rules::default() }
    }

    /// Node 0 lost its page cache. It has replicas of all partitions.
    pub fn cache_lost() -> Fact {
        Fact::CacheLost { node: 0, held: vec![P, RELAXED, AGED, SIZED] }
    }

    pub fn restarted() -> Fact {
        Fact::Restarted { node: 0, held: vec![P, RELAXED, AGED, SIZED] }
    }

    pub fn value(count: u32) -> ValueId {
        ValueId::new(1, count)
    }

    pub fn record(offset: i64, count: u32) -> ReadRecord {
        ReadRecord {
            offset,
            value: value(count),
            timestamp: 1_000 + i64::from(count),
            batch_bytes: 100,
            leader_epoch: 0,
        }
    }

    /// The batch `op` with the values of these numbers, sent to `partition`.
    pub fn sent(op: u64, partition: PartitionKey, counts: std::ops::Range<u32>) -> Fact {
        Fact::Sent {
            op: OpId(op),
            partition,
            values: counts.clone().map(value).collect(),
            timestamps: counts.map(|count| 1_000 + i64::from(count)).collect(),
            acks: -1,
            idempotent: true,
        }
    }

    pub fn acknowledged(op: u64, base_offset: i64) -> Fact {
        Fact::Acknowledged { op: OpId(op), base_offset: Some(base_offset) }
    }

    pub fn fetched(partition: PartitionKey, high_watermark: i64, records: &[ReadRecord]) -> Fact {
        let from = records.first().map_or(high_watermark, |record| record.offset);
        let records = records.to_vec();
        Fact::Fetched { partition, asked_at: 0, from, high_watermark, log_start: 0, records, last: false }
    }

    /// Shows the checker these facts, each at a millisecond of a run that goes on.
    pub fn watch(mut checker: impl Checker, facts: Vec<(u64, Fact)>) -> Result<(), String> {
        for (ms, fact) in facts {
            let entry = Entry { at: ms * 1_000_000, client: None, fact };
            checker.observe(&entry).map_err(|violation| violation.to_string())?;
        }
        Ok(())
    }

    /// Runs a history whose facts are one nanosecond apart. Each request was sent when the fact before it happened.
    pub fn judge(
        mut checker: impl Checker,
        facts: Vec<Fact>,
        finals: &[(PartitionKey, &[ReadRecord])],
    ) -> Result<(), String> {
        for (place, mut fact) in facts.into_iter().enumerate() {
            let now = place as u64 + 1;
            if let Fact::Fetched { asked_at, .. }
            | Fact::Listed { asked_at, .. }
            | Fact::Trimmed { asked_at, .. }
            | Fact::LeaderEpoch { asked_at, .. }
            | Fact::EpochEnd { asked_at, .. }
            | Fact::Found { asked_at, .. }
            | Fact::LevelTold { asked_at, .. } = &mut fact
            {
                *asked_at = now - 1;
            }
            checker.observe(&Entry { at: now, client: Some(1), fact }).map_err(|violation| violation.to_string())?;
        }
        let log = |records: &[ReadRecord]| FinalLog {
            start: records.first().map_or(0, |record| record.offset),
            records: records.to_vec(),
            replicas: BTreeMap::new(),
        };
        let finals: BTreeMap<_, _> = finals.iter().map(|(partition, records)| (*partition, log(records))).collect();
        checker.finish(&finals).map_err(|violation| violation.to_string())
    }
}
