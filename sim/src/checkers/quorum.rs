//! The quorum of the metadata log is one: an epoch has at most one leader; a node votes for one candidate in an epoch,
//! whatever crashes; what is committed at an offset is the same on every node for ever, and is on stable storage on a
//! majority, together with a record of the leader's own epoch; a leader has all that was ever committed; a node's epoch
//! never falls, nor does what it has applied while its process lives.
//!
//! The voters change by one at a time, so that majorities of two sets that follow each other have a voter in common. A
//! change that was acknowledged is committed.
//!
//! A node tells others of an epoch, and votes, only when its `quorum-state` says so on stable storage.

use super::{Checker, Violation, violation};
use crate::history::{Entry, Fact, FinalLogs, Replica, StoredBatch, Voter};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Quorum {
    /// By epoch: who leads in it, as any node knows.
    leaders: BTreeMap<i32, u32>,
    /// By base offset: the committed batches, and the first node that knew them as committed.
    committed: BTreeMap<i64, (StoredBatch, u32)>,
    /// The end of the greatest part of the log that any node has known as committed.
    end: i64,
    /// By the offset of its record: each set of voters that is committed.
    voters: BTreeMap<i64, BTreeSet<Voter>>,
    /// The least offset that a change of the voters can have that was asked for last.
    asked_for_at: i64,
    /// The changes that were acknowledged: the node, whether it votes then, and the least offset.
    changed: Vec<(u32, bool, i64)>,
    /// By node and epoch: the vote that the node has saved.
    votes: BTreeMap<(u32, i32), u32>,
    nodes: BTreeMap<u32, Node>,
    /// How much of the log the disks had that were lost.
    lost: BTreeMap<Voter, i64>,
}

#[derive(Debug, Default)]
struct Node {
    /// How the replica stood last, also in an earlier process.
    replica: Option<Replica>,
    /// The process that told `replica` still lives.
    is_alive: bool,
    /// The epoch in its `quorum-state`.
    saved_epoch: i32,
}

const NAME: &str = "quorum";

impl Quorum {
    fn leads(&mut self, epoch: i32, leader: u32) -> Result<(), Violation> {
        let first = *self.leaders.entry(epoch).or_insert(leader);
        match first == leader {
            true => Ok(()),
            false => violation(NAME, None, format!("both node {first} and node {leader} lead in epoch {epoch}")),
        }
    }

    fn stands(&mut self, node: u32, now: &Replica) -> Result<(), Violation> {
        if let Some(leader) = now.leader.or(now.leads.then_some(node)) {
            self.leads(now.epoch, leader)?;
        }
        let known = self.nodes.entry(node).or_default();
        let before = known.replica.replace(now.clone());
        let was_alive = std::mem::replace(&mut known.is_alive, true);
        let (saved, begins) = (known.saved_epoch, !was_alive);
        if begins && now.epoch < saved {
            return violation(
                NAME,
                None,
                format!("node {node} saved the epoch {saved} and starts in epoch {}", now.epoch),
            );
        }
        let before = before.filter(|_| was_alive);
        if let Some(before) = &before
            && (now.epoch < before.epoch || now.committed < before.committed)
        {
            let was = format!("epoch {} and offset {}", before.epoch, before.committed);
            return violation(
                NAME,
                None,
                format!("node {node} went from {was} back to {} and {}", now.epoch, now.committed),
            );
        }
        if now.leads && !before.as_ref().is_some_and(|before| before.leads && before.epoch == now.epoch) {
            self.begins_to_lead(node, now)?;
        }
        let high = now.high_watermark.filter(|_| now.leads);
        if let Some(high) = high
            && now.epoch_start.is_none_or(|start| high <= start)
        {
            let (epoch, start) = (now.epoch, now.epoch_start);
            let text = format!("node {node} has the high watermark {high} in epoch {epoch}, which begins at {start:?}");
            return violation(NAME, None, text);
        }
        match high.filter(|high| before.is_none_or(|before| before.high_watermark < Some(*high))) {
            Some(high) => self.is_on_majority(node, now, high),
            None => Ok(()),
        }
    }

    /// A leader has everything that was committed before (Raft, 5.4).
    fn begins_to_lead(&self, node: u32, now: &Replica) -> Result<(), Violation> {
        match now.log_end < self.end {
            true => violation(
                NAME,
                None,
                format!(
                    "node {node} leads in epoch {} with a log that ends at {}, and the records below {} are committed",
                    now.epoch, now.log_end, self.end
                ),
            ),
            false => Ok(()),
        }
    }

    /// Everything below a leader's high watermark is on stable storage on a majority of the voters.
    fn is_on_majority(&self, leader: u32, now: &Replica, high: i64) -> Result<(), Violation> {
        // What a disk had that was lost since was on stable storage: its voter may have been counted for it.
        let synced = |voter: &Voter| match self.lost.get(voter) {
            Some(synced) => Some(*synced),
            None => self.nodes.get(&voter.node)?.replica.as_ref().map(|replica| replica.synced),
        };
        let have = now.voters.iter().filter(|voter| synced(voter).is_some_and(|synced| synced >= high)).count();
        match 2 * have > now.voters.len() {
            true => Ok(()),
            false => violation(
                NAME,
                None,
                format!(
                    "node {leader} has the high watermark {high} in epoch {}, and {have} of the voters {} have synced that far",
                    now.epoch,
                    list(&now.voters)
                ),
            ),
        }
    }

    fn committed(&mut self, node: u32, batches: &[StoredBatch]) -> Result<(), Violation> {
        for batch in batches {
            let (first, by) = *self.committed.entry(batch.base_offset).or_insert((*batch, node));
            if first != *batch {
                let at = batch.base_offset;
                return violation(
                    NAME,
                    None,
                    format!("at the offset {at} node {by} has committed {first:?}, and node {node} {batch:?}"),
                );
            }
            self.end = self.end.max(batch.last_offset + 1);
        }
        Ok(())
    }

    fn voters_committed(&mut self, node: u32, offset: i64, voters: &[Voter]) -> Result<(), Violation> {
        let voters: BTreeSet<Voter> = voters.iter().copied().collect();
        let first = self.voters.entry(offset).or_insert_with(|| voters.clone());
        match *first == voters {
            true => Ok(()),
            false => violation(
                NAME,
                None,
                format!(
                    "at the offset {offset} node {node} has committed the voters {}, and another {}",
                    list(&voters),
                    list(&*first)
                ),
            ),
        }
    }

    fn voters_changed_by_one(&self) -> Result<(), Violation> {
        for ((_, before), (offset, after)) in self.voters.iter().zip(self.voters.iter().skip(1)) {
            if before.symmetric_difference(after).count() > 1 {
                let (before, after) = (list(before), list(after));
                return violation(
                    NAME,
                    None,
                    format!("at the offset {offset} the voters go from {before} to {after} at once"),
                );
            }
        }
        Ok(())
    }

    fn changes_are_there(&self) -> Result<(), Violation> {
        for (node, votes, from) in &self.changed {
            let mut later = self.voters.range(from..);
            if !later.any(|(_, voters)| voters.iter().any(|voter| voter.node == *node) == *votes) {
                let what = if *votes { "added to" } else { "removed from" };
                return violation(
                    NAME,
                    None,
                    format!(
                        "node {node} was {what} the voters, as was acknowledged, and no record from the offset {from} on \
                     says so"
                    ),
                );
            }
        }
        Ok(())
    }

    fn votes(&mut self, node: u32, epoch: i32, candidate: u32) -> Result<(), Violation> {
        let first = *self.votes.entry((node, epoch)).or_insert(candidate);
        match first == candidate {
            true => Ok(()),
            false => violation(
                NAME,
                None,
                format!("node {node} votes for both node {first} and node {candidate} in epoch {epoch}"),
            ),
        }
    }

    fn saved(&mut self, node: u32, epoch: i32, voted: Option<u32>) -> Result<(), Violation> {
        let known = self.nodes.entry(node).or_default();
        if epoch < known.saved_epoch {
            return violation(
                NAME,
                None,
                format!("node {node} saves the epoch {epoch} after the epoch {}", known.saved_epoch),
            );
        }
        known.saved_epoch = epoch;
        match voted {
            Some(candidate) => self.votes(node, epoch, candidate),
            None => Ok(()),
        }
    }

    fn told(&self, node: u32, epoch: i32) -> Result<(), Violation> {
        let saved = self.nodes.get(&node).map_or(0, |known| known.saved_epoch);
        match epoch > saved {
            true => {
                violation(NAME, None, format!("node {node} tells of epoch {epoch}, and has saved no more than {saved}"))
            }
            false => Ok(()),
        }
    }
}

impl Checker for Quorum {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        match &entry.fact {
            Fact::Replica { node, replica } => self.stands(*node, replica),
            Fact::Committed { node, batches } => self.committed(*node, batches),
            Fact::VotersCommitted { node, offset, voters } => self.voters_committed(*node, *offset, voters),
            Fact::DiskLost { node } => {
                // A node with another disk has forgotten its votes and epochs, and its log.
                let before = self.nodes.remove(node).and_then(|known| known.replica);
                let disk = self.lost.keys().filter(|voter| voter.node == *node).count() as u32;
                let synced = before.map_or(0, |replica| replica.synced);
                self.lost.insert(Voter { node: *node, disk }, synced);
                self.votes.retain(|(of, _), _| of != node);
                Ok(())
            }
            Fact::VotersChanging { .. } => {
                self.asked_for_at = self.end;
                Ok(())
            }
            Fact::VotersChanged { node, votes } => {
                self.changed.push((*node, *votes, self.asked_for_at));
                Ok(())
            }
            Fact::StateSaved { node, epoch, voted } => self.saved(*node, *epoch, *voted),
            Fact::EpochTold { node, epoch } => self.told(*node, *epoch),
            Fact::Voted { node, epoch, candidate } => {
                let saved = self.votes.get(&(*node, *epoch));
                match saved == Some(candidate) {
                    true => Ok(()),
                    false => violation(
                        NAME,
                        None,
                        format!(
                            "node {node} votes for node {candidate} in epoch {epoch}, and has saved the vote {saved:?}"
                        ),
                    ),
                }
            }
            Fact::Restarted { node, .. } => {
                if let Some(known) = self.nodes.get_mut(node) {
                    known.is_alive = false;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, _finals: &FinalLogs) -> Result<(), Violation> {
        self.voters_changed_by_one()?;
        self.changes_are_there()
    }
}

fn list<'a>(voters: impl IntoIterator<Item = &'a Voter>) -> String {
    let voters: Vec<String> = voters.into_iter().map(Voter::to_string).collect();
    format!("[{}]", voters.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::bench::*;
    use super::*;

    fn replica(epoch: i32, leader: Option<u32>, end: i64) -> Replica {
        Replica {
            leads: false,
            epoch,
            leader,
            committed: end,
            high_watermark: Some(end),
            synced: end,
            log_end: end,
            epoch_start: None,
            unfenced: None,
            voters: first_disks(&[0, 1, 2]),
        }
    }

    fn first_disks(nodes: &[u32]) -> Vec<Voter> {
        nodes.iter().map(|node| Voter { node: *node, disk: 0 }).collect()
    }

    fn leader(node: u32, epoch: i32, end: i64) -> Replica {
        Replica { leads: true, epoch_start: Some(0), ..replica(epoch, Some(node), end) }
    }

    fn is(node: u32, replica: Replica) -> Fact {
        Fact::Replica { node, replica }
    }

    fn batch(base_offset: i64, digest: u64) -> StoredBatch {
        StoredBatch { base_offset, last_offset: base_offset + 4, leader_epoch: 1, digest }
    }

    fn committed(node: u32, batches: &[StoredBatch]) -> Fact {
        Fact::Committed { node, batches: batches.to_vec() }
    }

    fn saved(node: u32, epoch: i32, voted: impl Into<Option<u32>>) -> Fact {
        Fact::StateSaved { node, epoch, voted: voted.into() }
    }

    fn restarted(node: u32) -> Fact {
        Fact::Restarted { node, held: Vec::new() }
    }

    fn verdict(facts: Vec<Fact>) -> Result<(), String> {
        judge(Quorum::default(), facts, &[])
    }

    #[track_caller]
    fn finds(facts: Vec<Fact>, what: &str) {
        assert_eq!(verdict(facts).unwrap_err(), format!("quorum: {what}"));
    }

    #[test]
    fn a_quorum_that_elects_commits_and_elects_again_passes() {
        let facts = vec![
            saved(0, 1, 0),
            Fact::Voted { node: 0, epoch: 1, candidate: 0 },
            saved(1, 1, 0),
            Fact::EpochTold { node: 1, epoch: 1 },
            Fact::Voted { node: 1, epoch: 1, candidate: 0 },
            is(1, replica(1, Some(0), 5)),
            is(0, leader(0, 1, 5)),
            committed(0, &[batch(0, 7)]),
            restarted(0),
            committed(1, &[batch(0, 7)]),
            saved(1, 2, 1),
            is(2, replica(2, Some(1), 5)),
            is(1, leader(1, 2, 5)),
            is(0, replica(2, Some(1), 0)),
        ];
        assert_eq!(verdict(facts), Ok(()));
    }

    #[test]
    fn two_leaders_in_an_epoch_are_found() {
        let facts = vec![is(0, replica(3, Some(0), 0)), is(1, replica(3, Some(1), 0))];
        finds(facts, "both node 0 and node 1 lead in epoch 3");
    }

    fn voters(offset: i64, voters: &[u32]) -> Fact {
        Fact::VotersCommitted { node: 0, offset, voters: first_disks(voters) }
    }

    #[test]
    fn voters_that_change_one_by_one_and_as_they_were_told_pass() {
        let facts = vec![
            voters(-1, &[0, 1]),
            committed(0, &[batch(0, 7)]),
            Fact::VotersChanging { node: 2, votes: true },
            voters(7, &[0, 1, 2]),
            Fact::VotersChanged { node: 2, votes: true },
            Fact::VotersChanging { node: 0, votes: false },
            voters(9, &[1, 2]),
            Fact::VotersChanged { node: 0, votes: false },
            voters(7, &[0, 1, 2]),
        ];
        assert_eq!(verdict(facts), Ok(()));
    }

    #[test]
    fn two_changes_at_once_two_sets_at_an_offset_and_a_change_that_is_not_there_are_found() {
        finds(
            vec![voters(-1, &[0, 1, 2]), voters(5, &[2])],
            "at the offset 5 the voters go from [0, 1, 2] to [2] at once",
        );
        finds(
            vec![voters(5, &[0, 1]), voters(5, &[0])],
            "at the offset 5 node 0 has committed the voters [0], and another [0, 1]",
        );
        let facts = vec![
            voters(-1, &[0, 1]),
            committed(0, &[batch(0, 7)]),
            Fact::VotersChanging { node: 1, votes: false },
            Fact::VotersChanged { node: 1, votes: false },
        ];
        finds(
            facts,
            "node 1 was removed from the voters, as was acknowledged, and no record from the offset 5 on says so",
        );
    }

    #[test]
    fn a_lost_disk_is_counted_for_what_it_had_and_its_node_may_vote_again() {
        let with_two_lost = |disk| {
            let voters = vec![Voter { node: 0, disk: 0 }, Voter { node: 1, disk }, Voter { node: 2, disk: 0 }];
            vec![
                saved(1, 1, 0),
                is(1, replica(1, Some(0), 5)),
                Fact::DiskLost { node: 1 },
                saved(1, 1, 2),
                is(1, replica(1, Some(0), 0)),
                is(0, Replica { voters, ..leader(0, 1, 5) }),
            ]
        };
        assert_eq!(verdict(with_two_lost(0)), Ok(()));
        finds(
            with_two_lost(1),
            "node 0 has the high watermark 5 in epoch 1, and 1 of the voters [0, 1 with disk 1, 2] have synced that far",
        );
    }

    #[test]
    fn another_batch_at_a_committed_offset_is_found() {
        let facts = vec![committed(0, &[batch(0, 7), batch(5, 8)]), committed(2, &[batch(5, 9)])];
        assert!(verdict(facts).unwrap_err().starts_with("quorum: at the offset 5 node 0 has committed"));
    }

    #[test]
    fn a_leader_without_what_was_committed_is_found() {
        let facts = vec![committed(0, &[batch(0, 7)]), is(1, leader(1, 2, 4))];
        finds(facts, "node 1 leads in epoch 2 with a log that ends at 4, and the records below 5 are committed");
    }

    #[test]
    fn a_high_watermark_that_no_majority_has_synced_is_found() {
        let behind = Replica { synced: 8, ..replica(1, Some(0), 9) };
        let facts = vec![is(1, behind), is(0, leader(0, 1, 9))];
        finds(facts, "node 0 has the high watermark 9 in epoch 1, and 1 of the voters [0, 1, 2] have synced that far");
    }

    #[test]
    fn a_high_watermark_without_a_record_of_its_own_epoch_is_found() {
        let early = Replica { epoch_start: Some(9), ..leader(0, 4, 9) };
        let facts = vec![is(1, replica(4, Some(0), 9)), is(0, early)];
        finds(facts, "node 0 has the high watermark 9 in epoch 4, which begins at Some(9)");
    }

    #[test]
    fn what_goes_back_within_a_process_is_found() {
        let facts = vec![is(1, replica(2, None, 5)), is(1, replica(2, None, 4))];
        finds(facts, "node 1 went from epoch 2 and offset 5 back to 2 and 4");
        let facts = vec![is(1, replica(2, None, 5)), is(1, replica(1, None, 5))];
        finds(facts, "node 1 went from epoch 2 and offset 5 back to 1 and 5");
    }

    #[test]
    fn an_epoch_that_was_saved_and_is_forgotten_is_found() {
        let facts = vec![saved(1, 4, None), is(1, replica(4, None, 0)), restarted(1), is(1, replica(3, None, 0))];
        finds(facts, "node 1 saved the epoch 4 and starts in epoch 3");
        finds(vec![saved(1, 4, None), saved(1, 3, None)], "node 1 saves the epoch 3 after the epoch 4");
    }

    #[test]
    fn a_second_vote_in_an_epoch_is_found_across_crashes() {
        let voted = |candidate| Fact::Voted { node: 1, epoch: 2, candidate };
        let facts = vec![saved(1, 2, 0), voted(0), restarted(1), saved(1, 2, 2), voted(2)];
        finds(facts, "node 1 votes for both node 0 and node 2 in epoch 2");
    }

    #[test]
    fn what_is_told_before_it_is_saved_is_found() {
        let facts = vec![saved(1, 1, None), Fact::EpochTold { node: 1, epoch: 2 }];
        finds(facts, "node 1 tells of epoch 2, and has saved no more than 1");
        let facts = vec![saved(1, 2, None), Fact::Voted { node: 1, epoch: 2, candidate: 0 }];
        finds(facts, "node 1 votes for node 0 in epoch 2, and has saved the vote None");
        let facts = vec![saved(1, 2, 1), saved(1, 2, None), Fact::Voted { node: 1, epoch: 2, candidate: 0 }];
        finds(facts, "node 1 votes for node 0 in epoch 2, and has saved the vote Some(1)");
    }
}
