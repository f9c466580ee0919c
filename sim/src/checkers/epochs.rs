//! Leader epochs never fall, those of a log's records never fall either, and OffsetForLeaderEpoch tells where each
//! ends.
//!
//! (KIP-101, KIP-279, KIP-320.) An answer of OffsetForLeaderEpoch is judged by the log as it is in the end: every
//! record before the end of an epoch is of that epoch or an earlier one, and every record behind it is of a later one.

use super::{Checker, Rules, Violation, violation};
use crate::history::{Entry, Fact, FinalLog, FinalLogs, PartitionKey};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Epochs {
    rules: Rules,
    /// The epochs that each node's metadata told, rising, with the time at which each was first told. A node may know
    /// less than another.
    told: BTreeMap<(PartitionKey, u32), Vec<(u64, i32)>>,
    /// The epoch of each record that was read, and when it was first read.
    read: BTreeMap<PartitionKey, BTreeMap<i64, (u64, i32)>>,
    answers: Vec<(PartitionKey, Answer)>,
    /// Partitions of which a client asked to delete records (DeleteRecords).
    trimmed: BTreeSet<PartitionKey>,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    asked_at: u64,
    epoch: i32,
    current: i32,
    found: i32,
    end: i64,
    /// Records below this offset cannot be lost. The end of the leader's own epoch may lie further on, past what is
    /// stable.
    stable_end: i64,
}

const NAME: &str = "epochs";

impl Epochs {
    pub fn new(rules: &Rules) -> Self {
        Self { rules: rules.clone(), ..Self::default() }
    }

    fn learn(
        &mut self,
        partition: PartitionKey,
        node: u32,
        (asked_at, at): (u64, u64),
        epoch: i32,
    ) -> Result<(), Violation> {
        let told = self.told.entry((partition, node)).or_default();
        if let Some((before, higher)) = told.iter().rev().find(|(before, _)| *before < asked_at)
            && *higher > epoch
        {
            let text = format!("the leader epoch is {epoch}, and at {} ms it was {higher}", before / 1_000_000);
            return violation(NAME, partition, text);
        }
        if told.last().is_none_or(|(_, last)| *last < epoch) {
            told.push((at, epoch));
        }
        Ok(())
    }

    /// Judges an answer when it comes, by what is known then.
    fn check_now(&self, partition: PartitionKey, answer: &Answer) -> Result<(), Violation> {
        let Answer { asked_at, epoch, current, found, end, .. } = *answer;
        let asked = format!("asked for the end of epoch {epoch}: {found} ends at {end}");
        if (found < 0) != (end < 0) || found > epoch {
            return violation(NAME, partition, asked);
        }
        // The leader notes where its own epoch begins before it serves anybody. One of several replicas may not know yet
        // that another leads in a later epoch.
        if found < 0 && self.rules.has_replicas(partition) {
            return Ok(());
        }
        if epoch <= current && found < 0 {
            return violation(NAME, partition, format!("{asked}, and the leader's is {current}"));
        }
        // What was readable before is in the log of every leader of a later epoch.
        let mut read = self.read.get(&partition).into_iter().flat_map(|read| read.range(end..));
        let is_later = |(_, (at, of)): &(&i64, &(u64, i32))| found >= 0 && *at < asked_at && *of < epoch;
        if let Some((offset, (_, of))) = read.find(is_later) {
            return violation(NAME, partition, format!("{asked}, and {offset} is of {of}"));
        }
        let of_epoch = |record: &(&i64, &(u64, i32))| record.1.1 == epoch && record.1.0 < asked_at;
        let known = self.read.get(&partition).and_then(|read| read.iter().rev().find(of_epoch));
        match known {
            Some((offset, _)) if found != epoch || end <= *offset => {
                violation(NAME, partition, format!("{asked}, and {offset} was written in it"))
            }
            _ => Ok(()),
        }
    }

    /// Judges an answer by the log as it is in the end.
    fn check_log(&self, partition: PartitionKey, answer: &Answer, log: &FinalLog) -> Result<(), Violation> {
        let Answer { epoch, current, found, end, stable_end, .. } = *answer;
        // An epoch of which no record is left ends where the log starts. If the start moves, a crash may have moved it
        // back since.
        let start_moves = self.rules.has_retention(partition) || self.trimmed.contains(&partition);
        let is_before_all =
            start_moves && found == epoch && log.records.iter().all(|record| record.leader_epoch != found);
        // Of several replicas, the one that answered may have led no more, and its log may have been cut since.
        if found < 0 || self.rules.has_replicas(partition) {
            return Ok(());
        }
        let wrong = log.records.iter().find(|record| {
            if record.offset < end {
                record.leader_epoch > found && record.offset < stable_end && !is_before_all
            } else {
                // Records of the leader's own epoch may have been appended behind the end that it had when it answered.
                record.leader_epoch < epoch || (record.leader_epoch == epoch && epoch < current)
            }
        });
        match wrong {
            Some(record) => {
                let (offset, of) = (record.offset, record.leader_epoch);
                let text =
                    format!("asked for the end of epoch {epoch}: {found} ends at {end}, and {offset} is of {of}");
                violation(NAME, partition, text)
            }
            None => Ok(()),
        }
    }
}

impl Checker for Epochs {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        match &entry.fact {
            Fact::LeaderEpoch { partition, node, asked_at, epoch } => {
                self.learn(*partition, *node, (*asked_at, entry.at), *epoch)
            }
            Fact::Fetched { partition, records, .. } => {
                let read = self.read.entry(*partition).or_default();
                for record in records.iter().filter(|record| record.leader_epoch >= 0) {
                    let (_, before) = *read.entry(record.offset).or_insert((entry.at, record.leader_epoch));
                    if before != record.leader_epoch {
                        let (offset, epoch) = (record.offset, record.leader_epoch);
                        let text = format!("{offset} is of epoch {epoch}, and was of {before}");
                        return violation(NAME, *partition, text);
                    }
                }
                Ok(())
            }
            Fact::EpochEnd { partition, asked_at, epoch, current, found, end } => {
                let (asked_at, epoch, current, found, end) = (*asked_at, *epoch, *current, *found, *end);
                let readable = || Some(self.read.get(partition)?.last_key_value()?.0 + 1);
                let stable_end = if epoch < current { i64::MAX } else { readable().unwrap_or(0) };
                let answer = Answer { asked_at, epoch, current, found, end, stable_end };
                self.check_now(*partition, &answer)?;
                self.answers.push((*partition, answer));
                Ok(())
            }
            Fact::Trimming { partition, .. } => {
                self.trimmed.insert(*partition);
                Ok(())
            }
            Fact::CacheLost { held, .. } => {
                // A relaxed topic may have lost records. Others stand at their offsets then, of another epoch.
                let rules = &self.rules;
                let lost = |partition: &PartitionKey| held.contains(partition) && rules.is_relaxed(*partition);
                self.read.retain(|partition, _| !lost(partition));
                self.answers.retain(|(partition, _)| !lost(partition));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, finals: &FinalLogs) -> Result<(), Violation> {
        for (partition, log) in finals {
            for pair in log.records.windows(2) {
                if pair[0].leader_epoch > pair[1].leader_epoch {
                    let (offset, epoch, before) = (pair[1].offset, pair[1].leader_epoch, pair[0].leader_epoch);
                    let text = format!("{offset} is of epoch {epoch}, behind one of {before}");
                    return violation(NAME, *partition, text);
                }
            }
        }
        for (partition, answer) in &self.answers {
            if let Some(log) = finals.get(partition) {
                self.check_log(*partition, answer, log)?;
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

    fn of(offset: i64, leader_epoch: i32) -> ReadRecord {
        ReadRecord { leader_epoch, ..record(offset, offset as u32) }
    }

    /// Epoch 1 wrote 0 and 1, epoch 3 wrote 2.
    fn log() -> [ReadRecord; 3] {
        [of(0, 1), of(1, 1), of(2, 3)]
    }

    fn answer(epoch: i32, current: i32, found: i32, end: i64) -> Fact {
        Fact::EpochEnd { partition: P, asked_at: 0, epoch, current, found, end }
    }

    fn told(epoch: i32) -> Fact {
        told_by(0, epoch)
    }

    fn told_by(node: u32, epoch: i32) -> Fact {
        Fact::LeaderEpoch { partition: P, node, asked_at: 0, epoch }
    }

    fn run(facts: Vec<Fact>) -> Result<(), String> {
        judge(Epochs::new(&rules()), facts, &[(P, &log())])
    }

    #[test]
    fn true_answers_pass() {
        let facts =
            [answer(1, 3, 1, 2), answer(2, 3, 1, 2), answer(3, 3, 3, 3), answer(3, 3, 3, 2), answer(9, 3, -1, -1)];
        assert_eq!(run(facts.into()), Ok(()));
        assert_eq!(run(vec![answer(0, 3, 0, 0)]), Ok(()), "below all that is known");
        assert_eq!(run(vec![answer(1, 1, 1, 1)]), Ok(()), "it was the leader's own, and the log was shorter");
    }

    #[test]
    fn an_end_that_is_too_far_or_too_near_is_found() {
        assert!(run(vec![answer(1, 3, 1, 3)]).unwrap_err().contains("and 2 is of 3"));
        assert!(run(vec![answer(1, 3, 1, 1)]).unwrap_err().contains("and 1 is of 1"));
        assert!(run(vec![answer(2, 3, 2, 3)]).is_err());
        assert!(run(vec![answer(2, 3, 3, 3)]).is_err(), "an epoch above the one that was asked for");
    }

    #[test]
    fn an_epoch_that_the_leader_does_not_know_is_found() {
        assert!(run(vec![answer(3, 3, -1, -1)]).unwrap_err().contains("and the leader's is 3"));
        let facts = vec![fetched(P, 3, &log()), told(3), answer(1, 1, 0, 0)];
        assert!(run(facts).unwrap_err().contains("and 1 was written in it"));
        assert!(run(vec![fetched(P, 3, &log()), told(3), answer(1, 1, 1, 1)]).is_err(), "1 was readable before");
    }

    #[test]
    fn epochs_that_fall_or_change_are_found() {
        assert!(run(vec![told(2), told(2), told(1)]).unwrap_err().contains("it was 2"));
        assert_eq!(run(vec![told(1), told(2)]), Ok(()));
        assert_eq!(run(vec![told(2), told_by(1, 1), told_by(1, 2)]), Ok(()), "another node learns later");
        assert!(run(vec![fetched(P, 1, &[of(0, 1)]), fetched(P, 1, &[of(0, 2)])]).unwrap_err().contains("was of 1"));
        let facts = judge(Epochs::new(&rules()), vec![], &[(P, &[of(0, 2), of(1, 1)])]);
        assert!(facts.unwrap_err().contains("behind one of 2"));
    }
}
