//! Nothing that was acknowledged is lost, and nothing that was read is lost afterwards.
//!
//! There is one excuse: a topic with `acks.require.fsync=false` may lose, with the page cache, what was acknowledged or
//! read before.

use super::{Checker, Rules, Violation, violation};
use crate::history::{Entry, Fact, FinalLog, FinalLogs, OpId, PartitionKey, ValueId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Durability {
    rules: Rules,
    sent: BTreeMap<OpId, (PartitionKey, Vec<ValueId>)>,
    /// The values that must be in the log in the end.
    owed: BTreeMap<PartitionKey, BTreeMap<ValueId, Owed>>,
}

#[derive(Clone, Copy, Debug)]
struct Owed {
    why: &'static str,
    at: u64,
    offset: Option<i64>,
}

impl Durability {
    pub fn new(rules: &Rules) -> Self {
        Self { rules: rules.clone(), ..Self::default() }
    }

    fn owe(&mut self, partition: PartitionKey, value: ValueId, why: &'static str, at: u64, offset: Option<i64>) {
        self.owed.entry(partition).or_default().entry(value).or_insert(Owed { why, at, offset });
    }
}

impl Checker for Durability {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        match &entry.fact {
            Fact::Sent { op, partition, values, .. } => {
                self.sent.insert(*op, (*partition, values.clone()));
            }
            Fact::Acknowledged { op, base_offset } => {
                let Some((partition, values)) = self.sent.remove(op) else { return Ok(()) };
                for (value, delta) in values.into_iter().zip(0..) {
                    let offset = base_offset.map(|base| base + delta);
                    self.owe(partition, value, "acknowledged", entry.at, offset);
                }
            }
            Fact::Fetched { partition, records, .. } => {
                for record in records {
                    self.owe(*partition, record.value, "read", entry.at, Some(record.offset));
                }
            }
            Fact::CacheLost { held, .. } => {
                let rules = &self.rules;
                self.owed.retain(|partition, _| !held.contains(partition) || !rules.is_relaxed(*partition));
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, finals: &FinalLogs) -> Result<(), Violation> {
        for (partition, owed) in &self.owed {
            let empty = FinalLog::default();
            let log = finals.get(partition).unwrap_or(&empty);
            let there: BTreeSet<ValueId> = log.records.iter().map(|record| record.value).collect();
            // Records before the log's start were deleted; `retention` judges whether they might be.
            let has_left = |owed: &Owed| owed.offset.map_or(log.start > 0, |offset| offset < log.start);
            let lost: Vec<_> = owed.iter().filter(|(value, owed)| !there.contains(value) && !has_left(owed)).collect();
            if let Some((value, Owed { why, at, offset })) = lost.first() {
                let place = offset.map_or("an unknown offset".into(), |offset| format!("offset {offset}"));
                let ms = at / 1_000_000;
                let text = format!(
                    "{value} was {why} at {ms} ms with {place} and is lost, and {} more; the log ends at {}",
                    lost.len() - 1,
                    log.end()
                );
                return violation("durability", *partition, text);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::*;
    use super::*;

    fn checker() -> Durability {
        Durability::new(&rules())
    }

    #[test]
    fn a_history_that_kept_everything_passes() {
        let facts = vec![sent(1, P, 0..2), acknowledged(1, 0), fetched(P, 2, &[record(0, 0), record(1, 1)])];
        assert_eq!(judge(checker(), facts, &[(P, &[record(0, 0), record(1, 1)])]), Ok(()));
    }

    #[test]
    fn an_acknowledged_record_that_is_not_there_in_the_end_is_found() {
        let facts = vec![sent(1, P, 0..2), acknowledged(1, 0)];
        let verdict = judge(checker(), facts, &[(P, &[record(0, 0)])]).unwrap_err();
        assert!(verdict.contains("c1v1 was acknowledged"), "{verdict}");
        let facts = vec![sent(1, P, 0..1), acknowledged(1, 0)];
        assert!(judge(checker(), facts, &[]).is_err(), "a whole partition is missing");
    }

    #[test]
    fn a_read_record_that_is_not_there_in_the_end_is_found() {
        let facts = vec![sent(1, P, 0..1), fetched(P, 1, &[record(0, 0)])];
        let verdict = judge(checker(), facts, &[(P, &[])]).unwrap_err();
        assert!(verdict.contains("c1v0 was read"), "{verdict}");
    }

    #[test]
    fn what_stands_before_the_start_of_the_log_is_not_lost_and_what_stands_behind_it_is() {
        let facts = || vec![sent(1, P, 0..3), acknowledged(1, 0)];
        assert_eq!(judge(checker(), facts(), &[(P, &[record(1, 1), record(2, 2)])]), Ok(()));
        assert!(judge(checker(), facts(), &[(P, &[record(1, 1)])]).is_err());
    }

    #[test]
    fn what_was_never_acknowledged_may_be_lost() {
        let facts = vec![sent(1, P, 0..1), Fact::Unknown { op: OpId(1) }];
        assert_eq!(judge(checker(), facts, &[(P, &[])]), Ok(()));
    }

    #[test]
    fn a_power_cut_excuses_only_topics_that_do_not_require_a_sync() {
        for (partition, verdict) in [(RELAXED, true), (P, false)] {
            let facts = vec![sent(1, partition, 0..1), acknowledged(1, 0), cache_lost()];
            assert_eq!(judge(checker(), facts, &[(partition, &[])]).is_ok(), verdict, "{partition}");
            let facts = vec![sent(1, partition, 0..1), acknowledged(1, 0)];
            assert!(judge(checker(), facts, &[(partition, &[])]).is_err(), "and only a power cut does");
        }
    }
}
