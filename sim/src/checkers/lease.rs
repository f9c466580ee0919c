//! A leader of the quorum that hears nothing of a majority gives up (KAFKA-15489): another may have been elected.
//!
//! A leader waits one and a half fetch time-outs for a majority, and counts from the last majority that it had. So it has
//! heard of one within twice that time.

use super::{Checker, Rules, Violation, violation};
use crate::history::{Entry, Fact, Replica};
use std::collections::BTreeMap;

#[derive(Debug)]
pub struct Lease {
    /// How long a leader may be without a majority. Its clock may be slower than the world's.
    bound_ns: u64,
    leaders: BTreeMap<u32, Leader>,
}

#[derive(Debug)]
struct Leader {
    epoch: i32,
    /// When its first own record was seen: before that it waits for its disk.
    since: u64,
    voters: Vec<u32>,
    /// When each voter was last heard of.
    heard: BTreeMap<u32, u64>,
}

impl Lease {
    pub fn new(rules: &Rules) -> Self {
        let bound_ms = rules.fetch_timeout_ms * 3;
        Self { bound_ns: (bound_ms + bound_ms / 20 + 10) * 1_000_000, leaders: BTreeMap::new() }
    }

    fn stands(&mut self, at: u64, node: u32, replica: &Replica) {
        if !replica.leads || replica.epoch_start.is_none() {
            self.leaders.remove(&node);
            return;
        }
        let new = || Leader { epoch: replica.epoch, since: at, voters: Vec::new(), heard: BTreeMap::new() };
        let leader = self.leaders.entry(node).or_insert_with(new);
        if leader.epoch != replica.epoch {
            *leader = new();
        }
        let voters: Vec<u32> = replica.voters.iter().map(|voter| voter.node).collect();
        if leader.voters != voters {
            // Others count now.
            leader.since = at;
            leader.voters = voters;
        }
    }

    fn leads_on(&self, at: u64, node: u32) -> Result<(), Violation> {
        let Some(leader) = self.leaders.get(&node) else { return Ok(()) };
        let from = at.saturating_sub(self.bound_ns);
        if leader.since >= from {
            return Ok(());
        }
        let is_there = |voter: &&u32| **voter == node || leader.heard.get(voter).is_some_and(|heard| *heard >= from);
        let there = leader.voters.iter().filter(is_there).count();
        if 2 * there > leader.voters.len() {
            return Ok(());
        }
        let (epoch, voters, ms) = (leader.epoch, &leader.voters, self.bound_ns / 1_000_000);
        let text =
            format!("node {node} still leads in epoch {epoch}, and has heard of {there} of {voters:?} in {ms} ms");
        violation("lease", None, text)
    }
}

impl Checker for Lease {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        match &entry.fact {
            Fact::Replica { node, replica } => self.stands(entry.at, *node, replica),
            Fact::Heard { node, replica } => {
                if let Some(leader) = self.leaders.get_mut(node) {
                    leader.heard.insert(*replica, entry.at);
                }
            }
            Fact::Ended { node } => drop(self.leaders.remove(node)),
            Fact::LeadsOn { node } => return self.leads_on(entry.at, *node),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::watch;
    use super::*;
    use crate::history::Voter;

    fn leads(voters: &[u32]) -> Fact {
        let replica = Replica {
            leads: true,
            epoch: 3,
            leader: Some(0),
            committed: 5,
            high_watermark: Some(5),
            synced: 5,
            log_end: 5,
            epoch_start: Some(4),
            voters: voters.iter().map(|node| Voter { node: *node, disk: 0 }).collect(),
            unfenced: None,
        };
        Fact::Replica { node: 0, replica }
    }

    fn heard(replica: u32) -> Fact {
        Fact::Heard { node: 0, replica }
    }

    /// With a fetch time-out of 100 ms, so that the bound is 325 ms.
    fn verdict(facts: Vec<(u64, Fact)>) -> Result<(), String> {
        watch(Lease::new(&Rules { fetch_timeout_ms: 100, ..Rules::default() }), facts)
    }

    #[test]
    fn a_leader_that_hears_of_no_majority_and_leads_on_is_found() {
        let on = Fact::LeadsOn { node: 0 };
        let three = [0, 1, 2];
        assert_eq!(verdict(vec![(0, leads(&three)), (300, on.clone())]), Ok(()), "it has just begun");
        assert_eq!(verdict(vec![(0, leads(&three)), (100, heard(2)), (420, on.clone())]), Ok(()));
        let facts = vec![(0, leads(&three)), (100, heard(2)), (430, on.clone())];
        let text = "lease: node 0 still leads in epoch 3, and has heard of 1 of [0, 1, 2] in 325 ms";
        assert_eq!(verdict(facts).unwrap_err(), text);
        let removed = vec![(0, leads(&[1, 2])), (400, heard(2)), (430, on.clone())];
        assert!(verdict(removed).is_err(), "it is no voter, and one of two is no majority");
        assert_eq!(verdict(vec![(0, leads(&[0])), (430, on.clone())]), Ok(()));
        assert_eq!(verdict(vec![(0, leads(&three)), (300, Fact::Ended { node: 0 }), (430, on)]), Ok(()));
    }
}
