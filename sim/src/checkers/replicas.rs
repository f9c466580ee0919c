//! All replicas of a partition hold what its last reader was given, and the same bytes.
//!
//! (Log matching: two replicas with the same offset and leader epoch have the same batch there.) This is judged at the
//! end, when everything is healed and every replica has had the time to catch up, by what lies on the nodes' disks.

use super::{Checker, Rules, Violation, violation};
use crate::history::{Entry, Fact, FinalLog, FinalLogs, PartitionKey, StoredBatch};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Replicas {
    rules: Rules,
    /// Partitions of which a client asked to delete records.
    trimmed: BTreeSet<PartitionKey>,
}

const NAME: &str = "replicas";

impl Replicas {
    pub fn new(rules: &Rules) -> Self {
        Self { rules: rules.clone(), ..Self::default() }
    }

    fn check(
        &self,
        partition: PartitionKey,
        node: u32,
        batches: &[StoredBatch],
        log: &FinalLog,
    ) -> Result<(), Violation> {
        for pair in batches.windows(2) {
            if pair[1].base_offset <= pair[0].last_offset {
                let (last, next) = (pair[0].last_offset, pair[1].base_offset);
                return violation(NAME, partition, format!("node{node} has {next} behind {last}"));
            }
        }
        // Where records leave by themselves, they may leave a replica between the last read and this look at it.
        let may_leave = self.rules.has_retention(partition) || self.trimmed.contains(&partition);
        let first = batches.first().map_or(i64::MAX, |batch| batch.base_offset);
        let mut batches = batches.iter().peekable();
        for record in log.records.iter().filter(|record| !may_leave || record.offset >= first) {
            while batches.next_if(|batch| batch.last_offset < record.offset).is_some() {}
            let offset = record.offset;
            match batches.peek().filter(|batch| batch.base_offset <= offset) {
                None => {
                    return violation(NAME, partition, format!("{offset} was read, and node{node} does not hold it"));
                }
                Some(batch) if record.leader_epoch >= 0 && batch.leader_epoch != record.leader_epoch => {
                    let (read, has) = (record.leader_epoch, batch.leader_epoch);
                    let text = format!("{offset} was read as of epoch {read}, and on node{node} it is of {has}");
                    return violation(NAME, partition, text);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

impl Checker for Replicas {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        if let Fact::Trimming { partition, .. } = entry.fact {
            self.trimmed.insert(partition);
        }
        Ok(())
    }

    fn finish(&mut self, finals: &FinalLogs) -> Result<(), Violation> {
        for (partition, log) in finals {
            let mut known: BTreeMap<(i64, i32), (u32, u64)> = BTreeMap::new();
            for (node, batches) in &log.replicas {
                self.check(*partition, *node, batches, log)?;
                for batch in batches {
                    let (offset, epoch) = (batch.base_offset, batch.leader_epoch);
                    let (first, digest) = *known.entry((offset, epoch)).or_insert((*node, batch.digest));
                    if digest != batch.digest {
                        let text = format!("{offset} of epoch {epoch} differs on node{first} and node{node}");
                        return violation(NAME, *partition, text);
                    }
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
    use crate::history::ReadRecord;

    fn batch(offsets: std::ops::RangeInclusive<i64>, leader_epoch: i32, digest: u64) -> StoredBatch {
        StoredBatch { base_offset: *offsets.start(), last_offset: *offsets.end(), leader_epoch, digest }
    }

    fn run_on(partition: PartitionKey, read: &[ReadRecord], replicas: &[&[StoredBatch]]) -> Result<(), String> {
        let replicas = (0..).zip(replicas.iter().map(|batches| batches.to_vec())).collect();
        let start = read.first().map_or(0, |record| record.offset);
        let log = FinalLog { start, records: read.to_vec(), replicas };
        let mut checker = Replicas::new(&rules());
        checker.finish(&FinalLogs::from([(partition, log)])).map_err(|violation| violation.to_string())
    }

    fn run(replicas: &[&[StoredBatch]]) -> Result<(), String> {
        run_on(P, &[record(0, 0), record(1, 1), record(2, 2)], replicas)
    }

    #[test]
    fn replicas_that_hold_the_same_pass() {
        let whole: &[StoredBatch] = &[batch(0..=1, 0, 7), batch(2..=2, 0, 8)];
        assert_eq!(run(&[whole, whole, whole]), Ok(()));
        let longer: &[StoredBatch] = &[batch(0..=1, 0, 7), batch(2..=2, 0, 8), batch(3..=3, 1, 9)];
        assert_eq!(run(&[whole, longer]), Ok(()), "what nobody could read may stand behind it");
    }

    #[test]
    fn a_replica_that_lacks_what_was_read_is_found() {
        let whole: &[StoredBatch] = &[batch(0..=1, 0, 7), batch(2..=2, 0, 8)];
        assert!(run(&[whole, &[batch(0..=1, 0, 7)]]).unwrap_err().contains("2 was read, and node1 does not hold it"));
        assert!(run(&[&[batch(0..=0, 0, 7), batch(2..=2, 0, 8)]]).unwrap_err().contains("1 was read"));
        assert!(run(&[&[]]).is_err());
        assert!(run_on(P, &[record(1, 1)], &[&[batch(2..=2, 0, 8)]]).is_err());
        assert_eq!(run_on(AGED, &[record(1, 1)], &[&[batch(2..=2, 0, 8)]]), Ok(()), "it has left meanwhile");
    }

    #[test]
    fn replicas_that_differ_at_one_offset_are_found() {
        let (one, other): (&[_], &[_]) = (&[batch(0..=2, 0, 7)], &[batch(0..=2, 0, 8)]);
        assert!(run(&[one, other]).unwrap_err().contains("0 of epoch 0 differs on node0 and node1"));
        assert!(
            run(&[&[batch(0..=2, 1, 7)]]).unwrap_err().contains("0 was read as of epoch 0, and on node0 it is of 1")
        );
    }

    #[test]
    fn a_replica_with_an_offset_twice_is_found() {
        assert!(run(&[&[batch(0..=2, 0, 7), batch(2..=3, 0, 8)]]).unwrap_err().contains("node0 has 2 behind 2"));
    }
}
