//! What a quorum says of itself, and what is always true of it.

use crate::appending::batch_bytes_max;
use crate::role::Role;
use crate::voters::{Endpoints, ReplicaKey, VoterSet};
use crate::{Busy, Phase, Quorum, snapshot};
use bytes::Bytes;
use tidelog_batch::BatchHeader;
use tidelog_config::plant::Plant;
use tidelog_storage::Log;
use tidelog_wire::ids::{LeaderEpoch, NodeId, Offset};
use tidelog_wire::time::{Mono, Now};

impl Quorum {
    /// The epoch that this node knows.
    pub fn epoch(&self) -> LeaderEpoch {
        self.state.leader_epoch
    }

    /// The leader of that epoch, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.state.leader
    }

    /// Where the leader listens for controllers' peers.
    pub fn leader_endpoints(&self) -> Endpoints {
        match &self.role {
            Role::Leader(_) | Role::Resigned(_) => self.config.endpoints.clone(),
            Role::Follower(follower) => follower.leader_endpoints.clone(),
            Role::Prospective(nominee) => nominee.leader_endpoints.clone(),
            Role::Unattached { .. } | Role::Candidate(_) => Endpoints::default(),
        }
    }

    /// What this node is in the quorum, as Kafka's metric `current-state` names it.
    pub fn current_state(&self) -> &'static str {
        match (&self.role, self.state.voted.is_some()) {
            (Role::Leader(_), _) => "leader",
            (Role::Candidate(_), _) => "candidate",
            (Role::Prospective(_), true) => "prospective-voted",
            (Role::Prospective(_), false) => "prospective",
            (Role::Follower(_), _) if self.voters.latest().has(self.config.me) => "follower",
            (Role::Follower(_), _) => "observer",
            (Role::Unattached { .. }, true) => "unattached-voted",
            (Role::Unattached { .. } | Role::Resigned(_), _) => "unattached",
        }
    }

    /// For whom this node has voted in its epoch; a leader and a candidate, for themselves.
    pub fn vote(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(_) | Role::Candidate(_) => Some(self.config.me.node),
            _ => self.state.voted.map(|voted| voted.node),
        }
    }

    /// How many observers this leader knows of; `None` if it does not lead.
    pub fn observers(&self) -> Option<usize> {
        match &self.role {
            Role::Leader(leader) => Some(leader.progress.observers().count()),
            _ => None,
        }
    }

    pub fn role(&self) -> &Role {
        &self.role
    }

    /// Whether this node leads, and the broker was told so.
    pub fn is_leading(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.is_told)
    }

    /// Whether another node than this leader has the log, as a voter or as an observer of which was heard lately.
    pub fn is_replicated(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.progress.has_others())
    }

    /// Whether what the disk holds is read.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Leaving(_))
    }

    /// One past the last committed record that the broker was told of.
    pub fn committed(&self) -> Offset {
        self.committed
    }

    /// The high watermark as this node knows it in its role.
    pub fn high_watermark(&self) -> Option<Offset> {
        match &self.role {
            Role::Leader(leader) => leader.progress.high_watermark(),
            _ => self.high_watermark,
        }
    }

    /// The voters that count now.
    pub fn voters(&self) -> &VoterSet {
        self.voters.latest()
    }

    /// The sets of voters whose records lie in the log, each with the offset of its record.
    pub fn recorded_voters(&self) -> impl Iterator<Item = (Offset, &VoterSet)> {
        let start = self.log.as_ref().map_or(Offset::ZERO, Log::log_start_offset);
        self.voters.recorded().filter(move |(offset, _)| *offset >= start)
    }

    /// The level of `kraft.version`: 1 where the set of voters is recorded in the log (KIP-853), 0 where it is static.
    pub fn kraft_version(&self) -> i16 {
        self.voters.kraft_version()
    }

    pub fn me(&self) -> ReplicaKey {
        self.config.me
    }

    pub fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// Whether the log is about to begin again behind a snapshot: what it still holds may be another leader's.
    pub fn is_restarting_log(&self) -> bool {
        self.busy == Some(Busy::Restarting)
    }

    /// What the recovery-point checkpoint shall say of the metadata log.
    pub fn recovery_point(&self) -> Option<Offset> {
        let log = self.log.as_ref()?;
        Some(match self.busy {
            Some(Busy::LoweringRecoveryPoint(end) | Busy::Truncating(end)) => log.synced_offset().min(end),
            Some(Busy::Restarting) => Offset::ZERO,
            _ => log.synced_offset(),
        })
    }

    /// Whether `values` are sure to fit into one batch. Records that take several batches may be written in part when
    /// the broker crashes.
    pub fn fits_one_batch(&self, values: &[Bytes]) -> bool {
        let records: usize = values.iter().map(|value| value.len() + snapshot::RECORD_OVERHEAD_MAX).sum();
        BatchHeader::LEN + records <= batch_bytes_max(&self.config.log)
    }

    /// When to call [`tick`](Self::tick) next, if nothing else happens before. `now`: the moment of the last input.
    pub fn deadline(&self, now: Now) -> Option<Mono> {
        if self.busy.is_some() || !self.is_running() {
            return None;
        }
        let leaving = match self.phase {
            Phase::Leaving(until) => Some(until),
            _ => None,
        };
        let fetches = self.waiting.iter().map(|fetch| fetch.until).min();
        let updates = match &self.role {
            Role::Follower(follower) if self.config.is_controller => Some(follower.update_voter_at),
            _ => None,
        };
        let role = self.role.deadline().filter(|_| self.may_stand() || !matches!(self.role, Role::Follower(_)));
        [role, fetches, updates, leaving, self.peers.deadline(now.mono), self.snapshot_deadline()]
            .into_iter()
            .flatten()
            // What is overdue waits for something else, such as an answer that is in flight.
            .filter(|at| *at > now.mono)
            .min()
    }

    /// Whether this node stands for election if there is no leader: it is a voter. A node that the newest set of voters
    /// removes still stands while it does not know that set as committed: it may be the only one that has the record, and
    /// so the only one that can be elected (Raft dissertation, 4.2.2).
    pub(crate) fn may_stand(&self) -> bool {
        let (me, last) = (self.config.me, self.committed + -1);
        let is_voter = self.voters.latest().has(me);
        let is_being_removed = || self.voters.that_may_count(last).any(|set| set.has(me));
        let planted = self.config.plants.has(Plant::ObserverStandsForElection);
        self.config.is_controller && (is_voter || is_being_removed() || planted)
    }

    pub(crate) fn log_end(&self) -> Offset {
        self.log.as_ref().map_or(Offset::ZERO, Log::log_end_offset)
    }

    /// The epoch of the last record of the log, or of the snapshot in front of it; 0 if there is none.
    pub(crate) fn last_epoch(&self) -> LeaderEpoch {
        let in_log = self.log.as_ref().map_or(LeaderEpoch::UNKNOWN, Log::latest_epoch);
        in_log.max(self.snapshots.newest().map_or(LeaderEpoch(0), |newest| newest.epoch)).max(LeaderEpoch(0))
    }

    /// Asserts the invariants of this module.
    pub fn verify(&self) {
        let Some(log) = &self.log else { return };
        log.verify();
        if !self.is_running() {
            return;
        }
        let (me, state) = (self.config.me.node, &self.state);
        match &self.role {
            Role::Leader(leader) => {
                assert_eq!(state.leader, Some(me));
                assert!(self.committed <= self.log_end(), "a leader has what is committed");
                leader.progress.verify();
            }
            Role::Resigned(_) => assert_eq!(state.leader, Some(me)),
            Role::Follower(follower) => assert!(state.leader == Some(follower.leader) && follower.leader != me),
            Role::Candidate(_) => {
                let is_own = |voted: ReplicaKey| voted.covers(self.config.me);
                assert!(state.leader.is_none() && state.voted.is_some_and(is_own), "a candidate votes for itself");
                assert!(self.may_stand());
            }
            // Whoever follows no leader learns of no other voters: it stays a voter, or an observer.
            Role::Prospective(_) => assert!(self.may_stand(), "an observer does not stand for election"),
            Role::Unattached { until } => assert_eq!(until.is_some(), self.may_stand()),
        }
        assert!(self.uncommitted.iter().is_sorted_by_key(|next| next.end));
        let is_cut = matches!(self.busy, Some(Busy::LoweringRecoveryPoint(_) | Busy::Truncating(_) | Busy::Restarting));
        if !is_cut {
            let end = self.uncommitted.back().map_or(self.committed, |last| last.end);
            assert_eq!(end, self.log_end(), "what is in the log is committed, or waits to be");
        }
    }
}
