//! ListOffsets by time gives the first record that is not older than the time asked for, and ListOffsets for the newest
//! timestamp gives a record with the newest timestamp.
//!
//! An answer is judged by the log as it is in the end, without records that retention deleted. That is fair because
//! records are only added at the end: no later append puts an earlier record into the log, and an answer of "none" is
//! judged by the part of the log that was known to be readable when the question was asked.

use super::{Checker, Damages, Rules, Violation, violation};
use crate::history::{Asked, Entry, Fact, FinalLog, FinalLogs, PartitionKey};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Timestamps {
    rules: Rules,
    answers: Vec<Answer>,
    /// Up to which offset a partition was known to be readable, rising, and since when.
    known: BTreeMap<PartitionKey, Vec<(u64, i64)>>,
    /// The highest start that a DeleteRecords asked for. A crash may move the start back, as in Kafka.
    starts: BTreeMap<PartitionKey, i64>,
    damages: Damages,
    blurred: BTreeSet<PartitionKey>,
    /// When the latest process of a node started that has a replica.
    restarted: BTreeMap<PartitionKey, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    partition: PartitionKey,
    asked: Asked,
    asked_at: u64,
    /// An offset that was not below the log's start when the answer came.
    start: i64,
    offset: i64,
    timestamp: i64,
}

const NAME: &str = "timestamps";

impl Timestamps {
    pub fn new(rules: &Rules) -> Self {
        Self { rules: rules.clone(), ..Self::default() }
    }

    /// The end of the log that was known when the question was asked. The broker must have looked at least that far.
    /// (One of several replicas that still believes that it leads knows less than others.)
    fn known_end(&self, answer: &Answer) -> i64 {
        if self.rules.has_replicas(answer.partition) {
            return 0;
        }
        let known = self.known.get(&answer.partition).map_or(&[][..], Vec::as_slice);
        known.iter().rev().find(|(at, _)| *at < answer.asked_at).map_or(0, |(_, end)| *end)
    }
}

impl Checker for Timestamps {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        match &entry.fact {
            Fact::Fetched { partition, high_watermark, .. } => {
                let known = self.known.entry(*partition).or_default();
                if known.last().is_none_or(|(_, end)| end < high_watermark) {
                    known.push((entry.at, *high_watermark));
                }
            }
            Fact::Listed { partition, asked_at, asked, offset, timestamp }
                if matches!(asked, Asked::Timestamp(_) | Asked::MaxTimestamp) =>
            {
                let (partition, asked, asked_at) = (*partition, *asked, *asked_at);
                // While a segment is damaged, wrong timestamps in batch headers may be believed: as in Kafka, no
                // checksum is compared.
                if self.damages.excuse(partition, asked_at) || self.blurred.contains(&partition) {
                    return Ok(());
                }
                let start = self.starts.get(&partition).copied().unwrap_or(0);
                self.answers.push(Answer { partition, asked, asked_at, start, offset: *offset, timestamp: *timestamp });
            }
            Fact::Trimming { partition, target } => {
                // -1 stands for the high watermark, whatever it is.
                let target = if *target < 0 { i64::MAX } else { *target };
                let start = self.starts.entry(*partition).or_default();
                *start = target.max(*start);
            }
            Fact::Damaged { partition, time_index: true, .. } => drop(self.blurred.insert(*partition)),
            Fact::Damaged { .. } | Fact::Repaired { .. } => self.damages.observe(entry),
            Fact::Restarted { held, .. } => self.restarted.extend(held.iter().map(|partition| (*partition, entry.at))),
            Fact::CacheLost { held, .. } => {
                let rules = &self.rules;
                let lost = |partition: &PartitionKey| held.contains(partition) && rules.is_relaxed(*partition);
                self.known.retain(|partition, _| !lost(partition));
                self.answers.retain(|answer| !lost(&answer.partition));
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, finals: &FinalLogs) -> Result<(), Violation> {
        for answer in &self.answers {
            let Answer { partition, asked, asked_at, start, offset, timestamp } = *answer;
            let empty = FinalLog::default();
            let log = finals.get(&partition).unwrap_or(&empty);
            let known_end = self.known_end(answer);
            // Records that were deleted meanwhile cannot be judged.
            let there = || log.records.iter().filter(|record| record.offset >= start);
            let readable = || there().take_while(|record| record.offset < known_end);
            let wrong = match (asked, log.get(offset)) {
                (Asked::Timestamp(_) | Asked::MaxTimestamp, None) if offset >= 0 && offset < log.start => None,
                (Asked::Timestamp(wanted), None) => readable()
                    .find(|record| record.timestamp >= wanted)
                    .map(|record| format!("none was found from {wanted} on, and {} is", record.offset)),
                (Asked::Timestamp(wanted), Some(record)) => {
                    let mut before = there().take_while(|record| record.offset < offset);
                    let earlier = before.find(|record| record.timestamp >= wanted);
                    if record.timestamp != timestamp || timestamp < wanted {
                        let has = record.timestamp;
                        Some(format!("from {wanted} on: {offset} with {timestamp}, and it has {has}"))
                    } else {
                        earlier.map(|record| format!("from {wanted} on: {offset}, and {} is before", record.offset))
                    }
                }
                // The newest record of the log may not have been readable yet: then Kafka answers with none, and a
                // process that ended took that record with it. Or the newest record stood before the log's start, in a
                // segment that is still there.
                (Asked::MaxTimestamp, None) => {
                    let is_same_process = self.restarted.get(&partition).is_none_or(|at| *at < asked_at);
                    let has_newest = there().any(|record| record.timestamp >= 0);
                    (is_same_process && has_newest && log.start == 0 && start == 0 && known_end >= log.end())
                        .then(|| "no newest record, and there are some".into())
                }
                (Asked::MaxTimestamp, Some(record)) => {
                    let newest = readable().map(|record| record.timestamp).max().unwrap_or(i64::MIN);
                    (record.timestamp != timestamp || timestamp < newest)
                        .then(|| format!("the newest is {offset} with {timestamp}, and one has {newest}"))
                }
                _ => None,
            };
            if let Some(text) = wrong {
                return violation(NAME, partition, text);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::*;
    use super::*;

    fn listed(asked: Asked, offset: i64, timestamp: i64) -> Fact {
        Fact::Listed { partition: P, asked_at: 0, asked, offset, timestamp }
    }

    /// Three records of the times 1005, 1001 and 1003 are readable when the question is asked.
    fn run(asked: Asked, offset: i64, timestamp: i64) -> Result<(), String> {
        let log = [record(0, 5), record(1, 1), record(2, 3)];
        let facts = vec![fetched(P, 3, &log), sent(9, P, 8..9), listed(asked, offset, timestamp)];
        judge(Timestamps::new(&rules()), facts, &[(P, &log)])
    }

    #[test]
    fn true_answers_pass() {
        assert_eq!(run(Asked::Timestamp(1_002), 0, 1_005), Ok(()));
        assert_eq!(run(Asked::Timestamp(1_006), -1, -1), Ok(()));
        assert_eq!(run(Asked::MaxTimestamp, 0, 1_005), Ok(()));
    }

    #[test]
    fn a_later_record_than_the_first_is_found() {
        assert!(run(Asked::Timestamp(1_002), 2, 1_003).unwrap_err().contains("and 0 is before"));
    }

    #[test]
    fn an_older_record_and_a_wrong_time_are_found() {
        assert!(run(Asked::Timestamp(1_002), 1, 1_001).is_err());
        assert!(run(Asked::Timestamp(1_002), 0, 1_004).is_err());
    }

    #[test]
    fn none_where_there_is_one_is_found() {
        assert!(run(Asked::Timestamp(1_003), -1, -1).unwrap_err().contains("and 0 is"));
        assert!(run(Asked::MaxTimestamp, -1, -1).is_err());
    }

    #[test]
    fn a_newest_that_was_not_readable_may_be_gone_with_its_process() {
        let log = [record(0, 5)];
        let run = |between: Vec<Fact>, after: Vec<Fact>| {
            let mut facts = vec![fetched(P, 1, &log)];
            facts.extend(between);
            facts.extend([sent(9, P, 8..9), listed(Asked::MaxTimestamp, -1, -1)]);
            facts.extend(after);
            judge(Timestamps::new(&rules()), facts, &[(P, &log)])
        };
        let restarted = |held: &[PartitionKey]| vec![Fact::Restarted { node: 0, held: held.to_vec() }];
        assert_eq!(run(vec![], restarted(&[P])), Ok(()));
        assert!(run(vec![], restarted(&[RELAXED])).is_err() && run(restarted(&[P]), vec![]).is_err());
    }

    #[test]
    fn what_has_left_the_log_is_not_asked_for() {
        let facts = vec![fetched(P, 3, &[record(2, 3)]), sent(9, P, 8..9), listed(Asked::Timestamp(1_002), 0, 1_005)];
        assert_eq!(judge(Timestamps::new(&rules()), facts, &[(P, &[record(2, 3)])]), Ok(()));
    }

    #[test]
    fn what_a_crash_has_brought_back_was_not_asked_for() {
        let log = [record(0, 5), record(1, 1), record(2, 3)];
        let run = |target| {
            let trimming = Fact::Trimming { partition: P, target };
            let facts =
                vec![fetched(P, 3, &log), trimming, sent(9, P, 8..9), listed(Asked::Timestamp(1_002), 2, 1_003)];
            judge(Timestamps::new(&rules()), facts, &[(P, &log)])
        };
        assert_eq!((run(1), run(-1)), (Ok(()), Ok(())));
        assert!(run(0).unwrap_err().contains("and 0 is before"));
    }

    #[test]
    fn a_newest_that_is_not_is_found() {
        assert!(run(Asked::MaxTimestamp, 2, 1_003).unwrap_err().contains("one has 1005"));
    }

    #[test]
    fn answers_about_damaged_bytes_are_excused_until_they_are_repaired() {
        let log = [record(0, 5), record(1, 1)];
        let run = |between: Vec<Fact>| {
            let mut facts = vec![fetched(P, 2, &log)];
            facts.extend(between);
            facts.extend([sent(9, P, 8..9), listed(Asked::Timestamp(1_002), -1, -1)]);
            judge(Timestamps::new(&rules()), facts, &[(P, &log)])
        };
        let damaged = |time_index| Fact::Damaged { node: 0, partition: P, time_index };
        assert!(run(vec![]).is_err());
        assert_eq!(run(vec![damaged(false)]), Ok(()));
        assert!(run(vec![damaged(false), Fact::Repaired { node: 0 }]).is_err());
        assert_eq!(run(vec![damaged(true), Fact::Repaired { node: 0 }]), Ok(()));
    }
}
