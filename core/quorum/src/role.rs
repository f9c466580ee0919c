//! What a node is in the current epoch (KIP-595, KIP-996).
//!
//! ```text
//!                    ┌────────── a higher epoch, from every role ──────────┐
//!                    ▼                                                     │
//!   boot ──► Unattached ── election time-out ──► Prospective ── pre-votes ──► Candidate ── votes ──► Leader
//!                    │                            ▲   │ lost                    │ time-out           │ resigns
//!         a leader   │        fetch time-out      │   ▼                         └► Prospective       ▼
//!         is known   └──────► Follower ───────────┘  Unattached, or Follower of the leader before  Resigned
//! ```
//!
//! The epoch, its leader and this node's vote are the same for all roles and must survive a crash: they stand in
//! [`QuorumState`]. A role holds what may be lost. An observer, a replica that is no voter, is only ever Unattached or
//! Follower.

use crate::changes::Changes;
use crate::election::Election;
use crate::progress::Progress;
use crate::snapshots::Download;
use crate::state_file::QuorumState;
use crate::voters::{Endpoints, ReplicaKey};
use std::collections::BTreeSet;
use tidelog_wire::ids::{NodeId, Offset};
use tidelog_wire::time::Mono;

#[derive(Debug)]
pub enum Role {
    /// Waits for a leader, or until it is time for an election.
    Unattached {
        /// When to stand for election. `None` for an observer.
        until: Option<Mono>,
    },
    /// Asks the other voters whether they would vote for it, without a new epoch. So a node that cannot reach the
    /// others, or whose log is too short, does not disturb a leader (KIP-996).
    Prospective(Nominee),
    /// Has voted for itself in a new epoch, and asks the other voters for their votes.
    Candidate(Nominee),
    Follower(Follower),
    Leader(Box<Leader>),
    Resigned(Resigned),
}

#[derive(Debug)]
pub struct Nominee {
    pub election: Election,
    pub until: Mono,
    /// The endpoints of the leader of this epoch, if there is one: its follower could not fetch for too long, and
    /// follows it again if nobody else would vote for this node.
    pub leader_endpoints: Endpoints,
}

#[derive(Debug)]
pub struct Follower {
    pub leader: NodeId,
    pub leader_endpoints: Endpoints,
    /// When to stand for election, unless a fetch succeeds before.
    pub fetch_until: Mono,
    /// Whether a fetch from this leader has succeeded in this epoch.
    pub has_fetched: bool,
    /// When this node next looks whether the leader knows its endpoints and versions.
    pub update_voter_at: Mono,
    /// Whether the leader has answered UpdateRaftVoter. Of use with a static set of voters only.
    pub has_updated_leader: bool,
    /// The snapshot that is being fetched.
    pub download: Option<Download>,
}

#[derive(Debug)]
pub struct Leader {
    /// The voters that elected this leader.
    pub granting: Vec<NodeId>,
    /// The offset of the first record of this epoch. `None` until it is appended, which is when `quorum-state` is on
    /// stable storage.
    pub epoch_start: Option<Offset>,
    /// Whether the broker knows that this node leads.
    pub is_told: bool,
    pub progress: Progress,
    pub changes: Changes,
    /// This node is to resign as soon as possible.
    pub resigns: bool,
}

/// A leader that has given up its epoch. It tells the other voters, so that they need not wait for a time-out.
#[derive(Debug)]
pub struct Resigned {
    /// The voters that have not acknowledged it.
    pub unacknowledged: BTreeSet<NodeId>,
    /// The voters whose logs are the longest, first.
    pub successors: Vec<ReplicaKey>,
    pub until: Mono,
}

impl Role {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unattached { .. } => "unattached",
            Self::Prospective(_) => "prospective",
            Self::Candidate(_) => "candidate",
            Self::Follower(_) => "follower",
            Self::Leader(_) => "leader",
            Self::Resigned(_) => "resigned",
        }
    }

    /// When the time of this role runs out, if nothing happens before.
    pub fn deadline(&self) -> Option<Mono> {
        match self {
            Self::Unattached { until } => *until,
            Self::Prospective(nominee) | Self::Candidate(nominee) => Some(nominee.until),
            Self::Follower(follower) => Some(follower.fetch_until),
            Self::Resigned(resigned) => Some(resigned.until),
            Self::Leader(leader) => leader.progress.deadline().into_iter().chain(leader.changes.deadline()).min(),
        }
    }

    /// Whether this node votes for `candidate`, whose log is as long as this node's (`is_up_to_date`) or not. A
    /// pre-vote promises nothing.
    pub fn grants(&self, state: &QuorumState, candidate: ReplicaKey, is_up_to_date: bool, is_pre_vote: bool) -> bool {
        match self {
            Self::Leader(_) => false,
            Self::Follower(follower) => is_pre_vote && is_up_to_date && !follower.has_fetched,
            Self::Candidate(_) | Self::Resigned(_) => is_pre_vote && is_up_to_date,
            Self::Unattached { .. } | Self::Prospective(_) if is_pre_vote => is_up_to_date,
            Self::Unattached { .. } | Self::Prospective(_) => match state.voted {
                // The same candidate asks again, because it has not got the answer.
                Some(voted) => voted.covers(candidate),
                None => state.leader.is_none() && is_up_to_date,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::voters::{KRAFT_VERSIONS, Voter, VoterSet};
    use tidelog_wire::ids::{LeaderEpoch, Uuid};

    const DIRECTORY: Uuid = Uuid::from_bytes([7; 16]);

    fn key(node: i32) -> ReplicaKey {
        ReplicaKey::new(NodeId(node), DIRECTORY)
    }

    fn state(leader: Option<i32>, voted: Option<i32>) -> QuorumState {
        QuorumState { leader: leader.map(NodeId), leader_epoch: LeaderEpoch(5), voted: voted.map(key) }
    }

    fn nominee() -> Nominee {
        let voter = |node| Voter { key: key(node), endpoints: Endpoints::default(), kraft_versions: KRAFT_VERSIONS };
        let voters: VoterSet = (1..=3).map(voter).collect();
        Nominee { election: Election::new(&voters, key(1)), until: Mono::ZERO, leader_endpoints: Endpoints::default() }
    }

    fn follower(has_fetched: bool) -> Role {
        Role::Follower(Follower {
            leader: NodeId(3),
            leader_endpoints: Endpoints::default(),
            fetch_until: Mono::ZERO,
            has_fetched,
            update_voter_at: Mono::ZERO,
            has_updated_leader: false,
            download: None,
        })
    }

    /// Whether the role votes for node 2 as a candidate, and whether it would (as a pre-vote), with a log that is as
    /// long as its own and with one that is shorter.
    fn grants(role: &Role, state: &QuorumState) -> [bool; 4] {
        let ask = |is_up_to_date, is_pre_vote| role.grants(state, key(2), is_up_to_date, is_pre_vote);
        [ask(true, false), ask(false, false), ask(true, true), ask(false, true)]
    }

    #[test]
    fn an_unattached_node_votes_once_in_an_epoch_and_only_for_a_log_that_is_long_enough() {
        let role = Role::Unattached { until: None };
        assert_eq!(grants(&role, &state(None, None)), [true, false, true, false]);
        assert_eq!(grants(&role, &state(None, Some(3))), [false, false, true, false]);
        assert_eq!(grants(&role, &state(None, Some(2))), [true, true, true, false], "it has voted for this one");
        assert_eq!(grants(&role, &state(Some(3), None)), [false, false, true, false], "there is a leader");
        let other_disk = ReplicaKey::new(NodeId(2), Uuid::from_bytes([8; 16]));
        assert!(!role.grants(&state(None, Some(2)), other_disk, true, false), "the node has another directory now");
    }

    #[test]
    fn a_prospective_node_votes_as_an_unattached_one() {
        let role = Role::Prospective(nominee());
        assert_eq!(grants(&role, &state(None, None)), [true, false, true, false]);
        assert_eq!(grants(&role, &state(None, Some(3))), [false, false, true, false]);
    }

    #[test]
    fn a_candidate_has_voted_for_itself() {
        assert_eq!(grants(&Role::Candidate(nominee()), &state(None, Some(1))), [false, false, true, false]);
    }

    #[test]
    fn a_follower_that_has_fetched_from_its_leader_supports_nobody_else() {
        assert_eq!(grants(&follower(false), &state(Some(3), None)), [false, false, true, false]);
        assert_eq!(grants(&follower(true), &state(Some(3), None)), [false; 4]);
    }

    #[test]
    fn a_node_that_has_resigned_supports_others_and_votes_for_none_in_its_own_epoch() {
        let role =
            Role::Resigned(Resigned { unacknowledged: BTreeSet::new(), successors: Vec::new(), until: Mono::ZERO });
        assert_eq!(grants(&role, &state(Some(1), None)), [false, false, true, false]);
    }
}
