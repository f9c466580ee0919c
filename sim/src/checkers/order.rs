//! The values of an idempotent producer stand in the log in the order in which it sent them, and no broker refuses its
//! sequences.
//!
//! A restart of the broker excuses a refusal: like Kafka's, its producer snapshots hold only the last batch of each
//! producer, so a restarted broker may not recognise an older batch that is sent again. It must not append that batch
//! twice, which `offsets` judges. A change of the leader excuses one, too: a replica whose log was cut reads such a
//! snapshot.
//!
//! So does a node that does not know the partition yet. It refuses a batch, may take those behind it once it knows the
//! partition, because like Kafka's it takes any sequence of a producer of which it knows none, and then refuses the first
//! when it is sent again. The producer sends that one anew, behind the others.

use super::{Checker, Rules, Violation, violation};
use crate::history::{Entry, Fact, FinalLogs, PartitionKey, ValueId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Order {
    rules: Rules,
    idempotent: BTreeSet<u32>,
    /// Partitions of which a node has lost its page cache: those of relaxed topics may have lost the state of producers.
    dark: BTreeSet<PartitionKey>,
    /// Partitions of which a node was restarted.
    restarted: BTreeSet<PartitionKey>,
    /// Partitions of which a node did not know when it was sent a batch.
    met_late: BTreeSet<PartitionKey>,
}

const NAME: &str = "order";

const PRODUCE: i16 = 0;

/// UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER, UNKNOWN_TOPIC_ID, and NOT_ENOUGH_REPLICAS: the node has not looked
/// at the batch.
const NOT_KNOWN: [i16; 4] = [3, 6, 100, 19];

impl Order {
    pub fn new(rules: &Rules) -> Self {
        Self { rules: rules.clone(), ..Self::default() }
    }

    fn is_excused(&self, partition: PartitionKey) -> bool {
        self.met_late.contains(&partition) || self.dark.contains(&partition) && self.rules.is_relaxed(partition)
    }
}

impl Checker for Order {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        match &entry.fact {
            Fact::Sent { idempotent: true, values, .. } => {
                self.idempotent.extend(values.first().map(|value| value.client()));
                Ok(())
            }
            Fact::CacheLost { held, .. } => {
                self.dark.extend(held);
                Ok(())
            }
            Fact::Restarted { held, .. } => {
                self.restarted.extend(held);
                Ok(())
            }
            Fact::Refused { partition, api_key: PRODUCE, error }
                if self.rules.nodes > 1 && NOT_KNOWN.contains(error) =>
            {
                self.met_late.insert(*partition);
                Ok(())
            }
            Fact::LeaderEpoch { partition, epoch: 1.., .. } if self.rules.has_replicas(*partition) => {
                self.restarted.insert(*partition);
                Ok(())
            }
            Fact::SequenceRefused { partition, error }
                if !self.restarted.contains(partition) && !self.met_late.contains(partition) =>
            {
                violation(NAME, *partition, format!("the next sequence was refused with error {error}"))
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, finals: &FinalLogs) -> Result<(), Violation> {
        for (partition, log) in finals {
            if self.is_excused(*partition) {
                continue;
            }
            let mut last: BTreeMap<u32, (ValueId, i64)> = BTreeMap::new();
            for record in log.records.iter().filter(|record| self.idempotent.contains(&record.value.client())) {
                let before = last.insert(record.value.client(), (record.value, record.offset));
                if let Some((value, offset)) = before
                    && value > record.value
                {
                    let text = format!("{value} at {offset} stands before {} at {}", record.value, record.offset);
                    return violation(NAME, *partition, text);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::*;
    use super::*;

    #[test]
    fn values_in_the_order_of_their_sending_pass() {
        let finals: &[_] = &[record(0, 0), record(1, 1)];
        assert_eq!(judge(Order::new(&rules()), vec![sent(1, P, 0..2)], &[(P, finals)]), Ok(()));
    }

    #[test]
    fn values_that_overtook_each_other_are_found() {
        let finals: &[_] = &[record(0, 1), record(1, 0)];
        let verdict = judge(Order::new(&rules()), vec![sent(1, P, 0..2)], &[(P, finals)]).unwrap_err();
        assert!(verdict.contains("c1v1 at 0 stands before c1v0 at 1"), "{verdict}");
    }

    #[test]
    fn a_refused_sequence_is_found_unless_the_broker_was_restarted() {
        let refused = || Fact::SequenceRefused { partition: P, error: 45 };
        assert!(judge(Order::new(&rules()), vec![refused()], &[]).is_err());
        assert!(
            judge(Order::new(&rules()), vec![Fact::Restarted { node: 1, held: vec![RELAXED] }, refused()], &[])
                .is_err()
        );
        assert!(judge(Order::new(&rules()), vec![restarted(), refused()], &[]).is_ok());
    }

    #[test]
    fn a_node_of_several_may_not_know_a_partition_yet() {
        let several = || Order::new(&Rules { nodes: 2, ..rules() });
        let refused = |error| Fact::Refused { partition: P, api_key: PRODUCE, error };
        let sequence = || Fact::SequenceRefused { partition: P, error: 45 };
        assert_eq!(judge(several(), vec![refused(100), sequence()], &[]), Ok(()));
        assert!(judge(several(), vec![refused(7), sequence()], &[]).is_err());
        assert!(judge(Order::new(&rules()), vec![refused(100), sequence()], &[]).is_err());
    }
}
