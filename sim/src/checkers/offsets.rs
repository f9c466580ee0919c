//! Offsets have no gaps, an offset never changes its record, a value of an idempotent producer has one offset, and
//! every value was sent by a client.

use super::{Checker, Rules, Violation, violation};
use crate::history::{Entry, Fact, FinalLogs, OpId, PartitionKey, ReadRecord, ValueId};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Offsets {
    rules: Rules,
    batches: BTreeMap<OpId, (PartitionKey, Vec<ValueId>)>,
    sent: BTreeMap<ValueId, Sent>,
    partitions: BTreeMap<PartitionKey, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    partition: PartitionKey,
    timestamp: i64,
    idempotent: bool,
}

#[derive(Debug, Default)]
struct Known {
    values: BTreeMap<i64, ValueId>,
    offsets: BTreeMap<ValueId, i64>,
}

const NAME: &str = "offsets";

impl Offsets {
    pub fn new(rules: &Rules) -> Self {
        Self { rules: rules.clone(), ..Self::default() }
    }

    fn learn(&mut self, partition: PartitionKey, offset: i64, value: ValueId) -> Result<(), Violation> {
        let Some(sent) = self.sent.get(&value) else {
            return violation(NAME, partition, format!("{value} at offset {offset} was never sent"));
        };
        if sent.partition != partition {
            return violation(NAME, partition, format!("{value} at offset {offset} was sent to {}", sent.partition));
        }
        if offset < 0 {
            return violation(NAME, partition, format!("{value} has the offset {offset}"));
        }
        let known = self.partitions.entry(partition).or_default();
        let before = *known.values.entry(offset).or_insert(value);
        if before != value {
            return violation(NAME, partition, format!("offset {offset} held {before} and holds {value}"));
        }
        let first = *known.offsets.entry(value).or_insert(offset);
        if first != offset && sent.idempotent {
            return violation(NAME, partition, format!("{value} stands twice, at {first} and at {offset}"));
        }
        Ok(())
    }

    fn check_read(&mut self, partition: PartitionKey, from: i64, records: &[ReadRecord]) -> Result<(), Violation> {
        for (record, expected) in records.iter().zip(from..) {
            if record.offset != expected {
                let text = format!("a read from {from} gave offset {} where {expected} was due", record.offset);
                return violation(NAME, partition, text);
            }
            self.learn(partition, record.offset, record.value)?;
            let sent = self.sent[&record.value].timestamp;
            if !self.rules.is_log_append_time(partition) && sent != record.timestamp {
                let text = format!("{} was sent with the time {sent} and read with {}", record.value, record.timestamp);
                return violation(NAME, partition, text);
            }
        }
        Ok(())
    }
}

impl Checker for Offsets {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        match &entry.fact {
            Fact::Sent { op, partition, values, timestamps, idempotent, .. } => {
                self.batches.insert(*op, (*partition, values.clone()));
                for (value, timestamp) in values.iter().zip(timestamps) {
                    let sent = Sent { partition: *partition, timestamp: *timestamp, idempotent: *idempotent };
                    self.sent.insert(*value, sent);
                }
                Ok(())
            }
            Fact::Acknowledged { op, base_offset } => {
                let Some((partition, values)) = self.batches.remove(op) else { return Ok(()) };
                let Some(base_offset) = base_offset else { return Ok(()) };
                for (value, delta) in values.into_iter().zip(0..) {
                    self.learn(partition, base_offset + delta, value)?;
                }
                Ok(())
            }
            Fact::Fetched { partition, from, records, .. } => self.check_read(*partition, *from, records),
            Fact::CacheLost { held, .. } => {
                // A relaxed topic may have lost records, whose offsets are given to others then.
                let rules = &self.rules;
                self.partitions.retain(|partition, _| !held.contains(partition) || !rules.is_relaxed(*partition));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, finals: &FinalLogs) -> Result<(), Violation> {
        for (partition, log) in finals {
            self.check_read(*partition, log.start, &log.records)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::*;
    use super::*;

    fn verdict(facts: Vec<Fact>) -> String {
        judge(Offsets::new(&rules()), facts, &[]).unwrap_err()
    }

    #[test]
    fn a_dense_history_passes() {
        let facts = vec![sent(1, P, 0..3), acknowledged(1, 0), fetched(P, 3, &[record(1, 1), record(2, 2)])];
        assert_eq!(judge(Offsets::new(&rules()), facts, &[(P, &[record(0, 0), record(1, 1), record(2, 2)])]), Ok(()));
    }

    #[test]
    fn an_offset_that_changes_its_record_is_found() {
        let facts = vec![sent(1, P, 0..2), fetched(P, 1, &[record(0, 0)]), fetched(P, 1, &[record(0, 1)])];
        assert!(verdict(facts).contains("offset 0 held c1v0 and holds c1v1"));
        let facts = vec![sent(1, P, 0..1), sent(2, P, 1..2), acknowledged(1, 0), acknowledged(2, 0)];
        assert!(verdict(facts).contains("offset 0 held"), "two acknowledgements of one offset");
    }

    #[test]
    fn a_gap_is_found() {
        let facts = vec![sent(1, P, 0..2), fetched(P, 3, &[record(0, 0), record(2, 1)])];
        assert!(verdict(facts).contains("gave offset 2 where 1 was due"));
    }

    #[test]
    fn an_idempotent_value_at_two_offsets_is_found_and_another_is_not() {
        let facts = vec![sent(1, P, 0..1), fetched(P, 2, &[record(0, 0), record(1, 0)])];
        assert!(verdict(facts).contains("c1v0 stands twice, at 0 and at 1"));
        let mut plain = sent(1, P, 0..1);
        if let Fact::Sent { idempotent, .. } = &mut plain {
            *idempotent = false;
        }
        let facts = vec![plain, fetched(P, 2, &[record(0, 0), record(1, 0)])];
        assert_eq!(judge(Offsets::new(&rules()), facts, &[]), Ok(()));
    }

    #[test]
    fn a_value_that_nobody_sent_there_and_a_changed_time_are_found() {
        assert!(verdict(vec![fetched(P, 1, &[record(0, 0)])]).contains("was never sent"));
        let facts = vec![sent(1, RELAXED, 0..1), fetched(P, 1, &[record(0, 0)])];
        assert!(verdict(facts).contains("was sent to t1-0"));
        let late = ReadRecord { timestamp: 7, ..record(0, 0) };
        assert!(verdict(vec![sent(1, P, 0..1), fetched(P, 1, &[late])]).contains("read with 7"));
    }

    #[test]
    fn a_power_cut_lets_a_relaxed_topic_give_an_offset_again() {
        let facts = |partition| {
            let lost = fetched(partition, 1, &[record(0, 0)]);
            vec![sent(1, partition, 0..2), lost, cache_lost(), fetched(partition, 1, &[record(0, 1)])]
        };
        assert_eq!(judge(Offsets::new(&rules()), facts(RELAXED), &[]), Ok(()));
        assert!(judge(Offsets::new(&rules()), facts(P), &[]).is_err());
    }
}
