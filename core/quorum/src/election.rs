//! The votes of one election.

use crate::voters::{ReplicaKey, VoterSet};
use std::collections::BTreeMap;
use tidelog_wire::ids::NodeId;

/// What each voter has answered. The set of voters is that of the election's begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// `None` while a voter has not answered.
    votes: BTreeMap<NodeId, Option<bool>>,
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    Open,
    Won,
    /// Too many voters have rejected: the rest is no majority.
    Lost,
}

impl Election {
    /// An election in which `me` votes for itself, if it is one of the voters.
    pub fn new(voters: &VoterSet, me: ReplicaKey) -> Self {
        let mut votes: BTreeMap<NodeId, Option<bool>> = voters.keys().map(|key| (key.node, None)).collect();
        if voters.has(me) {
            votes.insert(me.node, Some(true));
        }
        Self { votes }
    }

    /// Takes a voter's answer. The first answer of a voter counts; a node that is no voter has none.
    pub fn record(&mut self, voter: NodeId, granted: bool) {
        if let Some(vote) = self.votes.get_mut(&voter) {
            vote.get_or_insert(granted);
        }
    }

    pub fn tally(&self) -> Tally {
        let majority = self.votes.len() / 2 + 1;
        let count = |wanted: Option<bool>| self.votes.values().filter(|vote| **vote == wanted).count();
        let granted = count(Some(true));
        if granted >= majority {
            Tally::Won
        } else if granted + count(None) < majority {
            Tally::Lost
        } else {
            Tally::Open
        }
    }

    /// The voters that have not answered.
    pub fn unanswered(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.votes.iter().filter(|(_, vote)| vote.is_none()).map(|(node, _)| *node)
    }

    /// The voters that have granted their vote.
    pub fn granting(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.votes.iter().filter(|(_, vote)| **vote == Some(true)).map(|(node, _)| *node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::voters::{Endpoints, KRAFT_VERSIONS, Voter};
    use tidelog_wire::ids::Uuid;

    fn election(voters: i32) -> Election {
        let voter = |node| Voter {
            key: ReplicaKey::from_wire(node, Uuid::ZERO),
            endpoints: Endpoints::default(),
            kraft_versions: KRAFT_VERSIONS,
        };
        Election::new(&(1..=voters).map(voter).collect(), ReplicaKey::from_wire(1, Uuid::ZERO))
    }

    #[test]
    fn a_lone_voter_has_won_at_once() {
        assert_eq!(election(1).tally(), Tally::Won);
    }

    #[test]
    fn a_majority_of_all_voters_decides() {
        for (voters, needed) in [(2, 2), (3, 2), (4, 3), (5, 3)] {
            let mut won = election(voters);
            for node in 2..needed {
                won.record(NodeId(node), true);
                assert_eq!(won.tally(), Tally::Open, "{node} of {voters}");
            }
            won.record(NodeId(needed), true);
            assert_eq!(won.tally(), Tally::Won, "{needed} of {voters}");
            let mut lost = election(voters);
            for rejected in 1..=voters - needed {
                lost.record(NodeId(rejected + 1), false);
                assert_eq!(lost.tally(), Tally::Open, "{rejected} against, of {voters}");
            }
            lost.record(NodeId(voters - needed + 2), false);
            assert_eq!(lost.tally(), Tally::Lost);
        }
    }

    #[test]
    fn the_first_answer_of_a_voter_counts_and_others_have_no_vote() {
        let mut election = election(5);
        election.record(NodeId(2), true);
        election.record(NodeId(2), true);
        election.record(NodeId(9), true);
        assert_eq!(election.tally(), Tally::Open);
        election.record(NodeId(2), false);
        assert_eq!(election.granting().map(|node| node.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(election.unanswered().map(|node| node.0).collect::<Vec<_>>(), [3, 4, 5]);
    }
}
