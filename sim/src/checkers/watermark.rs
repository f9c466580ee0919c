//! No record at or past the high watermark is read. The high watermark never falls, is never below an acknowledged
//! record, and is never past the end of the log.

use super::{Checker, Rules, Violation, violation};
use crate::history::{Asked, Entry, Fact, FinalLog, FinalLogs, OpId, PartitionKey};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Watermark {
    rules: Rules,
    /// The batches that were sent: the partition, how many records, and when.
    sent: BTreeMap<OpId, (PartitionKey, i64, u64)>,
    /// By partition: how high its high watermark was known to be, and since when.
    floors: BTreeMap<PartitionKey, Vec<Floor>>,
    /// When a node last lost what was not stable.
    lost_at: BTreeMap<PartitionKey, u64>,
}

/// From `at` on the high watermark is at least `offset`.
#[derive(Clone, Copy, Debug)]
struct Floor {
    at: u64,
    offset: i64,
    why: &'static str,
}

const NAME: &str = "watermark";

impl Watermark {
    pub fn new(rules: &Rules) -> Self {
        Self { rules: rules.clone(), ..Self::default() }
    }

    /// Notes that the high watermark is at least `offset` from `at` on. What a relaxed partition answered may have been
    /// lost since: the answer to a question from before the loss (`asked_at`) proves nothing.
    fn raise(&mut self, partition: PartitionKey, asked_at: u64, at: u64, offset: i64, why: &'static str) {
        let lost_at = self.lost_at.get(&partition);
        if self.rules.is_relaxed(partition) && lost_at.is_some_and(|lost_at| asked_at <= *lost_at) {
            return;
        }
        let floors = self.floors.entry(partition).or_default();
        if floors.last().is_none_or(|last| last.offset < offset) {
            floors.push(Floor { at, offset, why });
        }
    }

    /// A high watermark that was asked for at `asked_at` is at least what was known before.
    /// (A leader of several replicas knows less than the one before it has told, until its own epoch is committed.)
    fn check_floor(&self, partition: PartitionKey, asked_at: u64, offset: i64, what: &str) -> Result<(), Violation> {
        if self.rules.has_replicas(partition) {
            return Ok(());
        }
        let floors = self.floors.get(&partition).map_or(&[][..], Vec::as_slice);
        // Offsets rise with time, so the last that was known in time is the highest.
        match floors.iter().rev().find(|floor| floor.at < asked_at) {
            Some(floor) if offset < floor.offset => {
                let Floor { offset: known, why, at } = floor;
                let text = format!("{what} is {offset}, behind {known}, {why} at {} ms", at / 1_000_000);
                violation(NAME, partition, text)
            }
            _ => Ok(()),
        }
    }
}

impl Checker for Watermark {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        match &entry.fact {
            Fact::Sent { op, partition, values, .. } => {
                self.sent.insert(*op, (*partition, values.len() as i64, entry.at));
                Ok(())
            }
            Fact::Acknowledged { op, base_offset } => {
                let Some((partition, count, sent_at)) = self.sent.remove(op) else { return Ok(()) };
                if let Some(base_offset) = base_offset {
                    self.raise(partition, sent_at, entry.at, base_offset + count, "acknowledged");
                }
                Ok(())
            }
            Fact::Fetched { partition, asked_at, high_watermark, log_start, records, .. } => {
                if let Some(beyond) = records.iter().find(|record| record.offset >= *high_watermark) {
                    let text = format!("{} is read, and the high watermark is {high_watermark}", beyond.offset);
                    return violation(NAME, *partition, text);
                }
                if *log_start > *high_watermark {
                    let text = format!("the log starts at {log_start}, past its high watermark {high_watermark}");
                    return violation(NAME, *partition, text);
                }
                self.check_floor(*partition, *asked_at, *high_watermark, "the high watermark")?;
                self.raise(*partition, *asked_at, entry.at, *high_watermark, "the high watermark");
                Ok(())
            }
            Fact::Listed { partition, asked_at, asked: Asked::Latest, offset, .. } => {
                self.check_floor(*partition, *asked_at, *offset, "the latest offset")?;
                self.raise(*partition, *asked_at, entry.at, *offset, "the latest offset");
                Ok(())
            }
            Fact::CacheLost { held, .. } => {
                self.lost_at.extend(held.iter().map(|partition| (*partition, entry.at)));
                let rules = &self.rules;
                self.floors.retain(|partition, _| !held.contains(partition) || !rules.is_relaxed(*partition));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, finals: &FinalLogs) -> Result<(), Violation> {
        for (partition, floors) in &self.floors {
            let end = finals.get(partition).map_or(0, FinalLog::end);
            if let Some(Floor { at, offset, why }) = floors.iter().find(|floor| floor.offset > end) {
                let text = format!("{why} was {offset} at {} ms, and the log ends at {end}", at / 1_000_000);
                return violation(NAME, *partition, text);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::*;
    use super::*;

    fn run(facts: Vec<Fact>, log: &[crate::history::ReadRecord]) -> Result<(), String> {
        judge(Watermark::new(&rules()), facts, &[(P, log)])
    }

    fn latest(offset: i64) -> Fact {
        Fact::Listed { partition: P, asked_at: 0, asked: Asked::Latest, offset, timestamp: -1 }
    }

    #[test]
    fn a_watermark_that_follows_the_log_passes() {
        let facts = vec![sent(1, P, 0..1), acknowledged(1, 0), fetched(P, 1, &[record(0, 0)]), latest(1), latest(1)];
        assert_eq!(run(facts, &[record(0, 0)]), Ok(()));
    }

    #[test]
    fn a_record_at_the_watermark_must_not_be_read() {
        let verdict = run(vec![fetched(P, 1, &[record(0, 0), record(1, 1)])], &[]).unwrap_err();
        assert!(verdict.contains("1 is read, and the high watermark is 1"), "{verdict}");
    }

    #[test]
    fn a_watermark_that_falls_is_found() {
        let facts = vec![fetched(P, 5, &[]), sent(1, P, 0..1), latest(4)];
        assert!(run(facts, &[]).unwrap_err().contains("the latest offset is 4, behind 5"));
    }

    #[test]
    fn a_watermark_behind_an_acknowledgement_is_found() {
        let facts = vec![sent(1, P, 0..3), acknowledged(1, 0), sent(2, P, 3..4), fetched(P, 2, &[])];
        assert!(run(facts, &[]).unwrap_err().contains("behind 3, acknowledged"));
    }

    #[test]
    fn a_watermark_past_the_end_is_found() {
        assert!(run(vec![latest(2)], &[record(0, 0)]).unwrap_err().contains("and the log ends at 1"));
    }
}
