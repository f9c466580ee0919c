//! From one role to the next.
//!
//! A new epoch, leader or vote changes `state`, which is written before anything else is told.

use crate::changes::Changes;
use crate::election::{Election, Tally};
use crate::messages;
use crate::progress::Progress;
use crate::role::{Follower, Leader, Nominee, Resigned, Role};
use crate::state_file::QuorumState;
use crate::voters::{Endpoints, ReplicaKey, Voter, kraft_version_record};
use crate::{KRAFT_VERSIONS, Quorum, QuorumEvent};
use rand::RngExt;
use tidelog_batch::{ControlRecord, ControlType};
use tidelog_config::plant::Plant;
use tidelog_storage::buggify::Site;
use tidelog_storage::io::{Level, Outbox};
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::{LeaderEpoch, NodeId, Offset};
use tidelog_wire::messages::LeaderChangeMessage;
use tidelog_wire::messages::leader_change_message::Voter as AnnouncedVoter;
use tidelog_wire::time::{Mono, Now};

impl Quorum {
    /// The role after the start of the process, from what the disk holds.
    pub(crate) fn initial_role(&mut self, now: Now) {
        let (me, voters) = (self.config.me, self.voters.latest());
        if self.state.leader_epoch < self.last_epoch() {
            // The file is older than the log, or lost.
            self.state = QuorumState { leader: None, leader_epoch: self.last_epoch(), voted: None };
        }
        let leads_again = self.config.plants.has(Plant::RestartedLeaderLeadsAgain);
        self.role = if self.state.leader == Some(me.node) && leads_again {
            self.state = QuorumState { leader: None, voted: Some(me), ..self.state };
            let role = self.nominee(now, Endpoints::default(), Role::Candidate);
            self.role = role;
            self.become_leader(now);
            return;
        } else if self.state.leader == Some(me.node) {
            // This node led, and may have lost records that it had told of before they were synced. It must not lead in
            // this epoch again (KAFKA-10527).
            let unacknowledged = voters.keys().map(|voter| voter.node).filter(|node| *node != me.node).collect();
            let until = self.election_deadline(now.mono);
            Role::Resigned(Resigned { unacknowledged, successors: Vec::new(), until })
        } else if self.state.leader.is_none()
            && self.state.voted.is_some_and(|voted| voted.covers(me))
            && self.may_stand()
        {
            // It voted for itself, and may have been elected without knowing it: it asks again.
            self.nominee(now, Endpoints::default(), Role::Candidate)
        } else {
            match self.state.leader {
                Some(leader) if !voters.endpoints(leader).is_empty() => {
                    self.following(now.mono, leader, voters.endpoints(leader))
                }
                _ => Role::Unattached { until: self.unattached_deadline(now.mono) },
            }
        };
        self.state_is_new = true;
        // A lone voter needs no other vote.
        self.count_votes(now);
        if self.voters.latest().is_only(me)
            && !matches!(self.role, Role::Candidate(_) | Role::Leader(_))
            && self.may_stand()
        {
            // There is nobody to wait for.
            self.become_prospective(now);
        }
    }

    /// A random time from now on, so that two voters seldom stand for election at once.
    pub(crate) fn election_deadline(&mut self, now: Mono) -> Mono {
        let timeout_ms = self.config.timeouts.election_ms.max(1);
        now.plus_ms(timeout_ms + self.rng.random_range(0..timeout_ms))
    }

    fn unattached_deadline(&mut self, now: Mono) -> Option<Mono> {
        self.may_stand().then(|| self.election_deadline(now))
    }

    fn nominee(&mut self, now: Now, leader_endpoints: Endpoints, role: impl FnOnce(Nominee) -> Role) -> Role {
        let election = Election::new(self.voters.latest(), self.config.me);
        let until = self.election_deadline(now.mono);
        role(Nominee { election, until, leader_endpoints })
    }

    fn following(&self, now: Mono, leader: NodeId, leader_endpoints: Endpoints) -> Role {
        Role::Follower(Follower {
            leader,
            leader_endpoints,
            fetch_until: now.plus_ms(self.config.timeouts.fetch_ms),
            has_fetched: false,
            update_voter_at: now.plus_ms(self.config.timeouts.fetch_ms),
            has_updated_leader: false,
            download: None,
        })
    }

    /// A higher epoch is known, or nobody would vote for this node. Who leads is not known, or cannot be reached.
    pub(crate) fn become_unattached(&mut self, now: Now, epoch: LeaderEpoch, leader: Option<NodeId>) {
        let same_epoch = epoch == self.epoch();
        assert!(epoch > self.epoch() || (same_epoch && matches!(self.role, Role::Prospective(_))));
        // A node that was about to stand for election still stands at that time, so that a peer with ever higher epochs
        // does not keep it from doing so.
        let until = match &self.role {
            _ if !self.may_stand() => None,
            Role::Unattached { until } => *until,
            Role::Candidate(nominee) => Some(nominee.until),
            Role::Prospective(nominee) if nominee.election.tally() != Tally::Lost => Some(nominee.until),
            Role::Resigned(resigned) => Some(resigned.until),
            _ => None,
        };
        let until = until.or_else(|| self.unattached_deadline(now.mono));
        let voted = self.state.voted.filter(|_| same_epoch);
        self.set_state(QuorumState { leader, leader_epoch: epoch, voted });
        self.take_role(Role::Unattached { until });
    }

    /// Votes for a candidate of this epoch.
    pub(crate) fn vote_for(&mut self, now: Now, candidate: ReplicaKey) {
        assert!(self.state.voted.is_none(), "a node votes once in an epoch");
        self.set_state(QuorumState { voted: Some(candidate), ..self.state });
        let deadline = self.election_deadline(now.mono);
        match &mut self.role {
            Role::Unattached { until } => *until = until.map(|_| deadline),
            Role::Prospective(nominee) => nominee.until = deadline,
            other => panic!("a {} does not vote", other.name()),
        }
    }

    pub(crate) fn become_follower(&mut self, now: Now, epoch: LeaderEpoch, leader: NodeId, endpoints: Endpoints) {
        assert!(leader != self.config.me.node && !endpoints.is_empty());
        assert!(epoch > self.epoch() || (epoch == self.epoch() && !matches!(self.role, Role::Leader(_))));
        let voted = self.state.voted.filter(|_| epoch == self.epoch());
        self.set_state(QuorumState { leader: Some(leader), leader_epoch: epoch, voted });
        self.take_role(self.following(now.mono, leader, endpoints));
    }

    /// Asks the other voters whether they would vote for this node. A lone voter goes on at once.
    pub(crate) fn become_prospective(&mut self, now: Now) {
        assert!(self.may_stand(), "an observer does not stand for election");
        let endpoints = self.leader_endpoints();
        let role = self.nominee(now, endpoints, Role::Prospective);
        self.take_role(role);
        self.count_votes(now);
    }

    pub(crate) fn become_candidate(&mut self, now: Now) {
        assert!(self.may_stand() && matches!(self.role, Role::Prospective(_)));
        let Some(epoch) = self.epoch().0.checked_add(1) else {
            return self.fail("its last epoch was the greatest that an int32 holds".to_owned());
        };
        self.set_state(QuorumState { leader: None, leader_epoch: LeaderEpoch(epoch), voted: Some(self.config.me) });
        let role = self.nominee(now, Endpoints::default(), Role::Candidate);
        self.take_role(role);
        self.count_votes(now);
    }

    /// Goes on if the election of this node is decided.
    pub(crate) fn count_votes(&mut self, now: Now) {
        let (nominee, is_candidate) = match &self.role {
            Role::Prospective(nominee) => (nominee, false),
            Role::Candidate(nominee) => (nominee, true),
            _ => return,
        };
        match (nominee.election.tally(), is_candidate) {
            (Tally::Won, false) => self.become_candidate(now),
            (Tally::Won, true) => self.become_leader(now),
            (Tally::Lost, false) => self.give_up_candidacy(now),
            // A candidate that has lost waits for its time to run out. The winner, if any, tells it.
            (Tally::Lost, true) | (Tally::Open, _) => {}
        }
    }

    /// Nobody would vote for this node: it follows the leader as before, if there is one.
    pub(crate) fn give_up_candidacy(&mut self, now: Now) {
        let Role::Prospective(nominee) = &self.role else { return };
        match (self.state.leader, nominee.leader_endpoints.clone()) {
            (Some(leader), endpoints) if !endpoints.is_empty() => {
                self.become_follower(now, self.epoch(), leader, endpoints);
            }
            (leader, _) => self.become_unattached(now, self.epoch(), leader),
        }
    }

    fn become_leader(&mut self, now: Now) {
        let Role::Candidate(nominee) = &self.role else { panic!("a {} is not elected", self.role.name()) };
        let me = self.config.me;
        let leader = Leader {
            granting: nominee.election.granting().collect(),
            epoch_start: None,
            is_told: false,
            progress: Progress::new(
                now.mono,
                me,
                self.voters.latest(),
                self.config.timeouts.fetch_ms,
                self.config.plants,
            ),
            changes: Changes::default(),
            resigns: false,
        };
        self.set_state(QuorumState { leader: Some(me.node), leader_epoch: self.epoch(), voted: None });
        self.take_role(Role::Leader(Box::new(leader)));
    }

    /// The first act of a leader whose epoch is on stable storage: appends the records with which its epoch begins.
    pub(crate) fn begin_epoch(&mut self, now: Now, out: &mut Outbox) {
        let Role::Leader(leader) = &self.role else { panic!("a {} begins no epoch", self.role.name()) };
        let announced = |node: NodeId| AnnouncedVoter { voter_id: node.0, ..Default::default() };
        let change = LeaderChangeMessage {
            leader_id: self.config.me.node.0,
            voters: self.voters.latest().keys().map(|voter| announced(voter.node)).collect(),
            granting_voters: leader.granting.iter().map(|node| announced(*node)).collect(),
            ..Default::default()
        };
        let mut controls = vec![ControlRecord { kind: ControlType::LeaderChange, value: change.to_bytes(0) }];
        let kraft_version = self.kraft_version();
        if kraft_version > 0 {
            let (mine, voters) = (self.my_voter(), self.voters.latest());
            let only_formatted = self.voters.latest_offset() == Some(Offset(-1));
            if only_formatted || voters.is_outdated(&mine) {
                controls.push(kraft_version_record(kraft_version));
                controls.push(voters.updated(mine).expect("a leader is a voter").record());
            }
        }
        let start = self.log_end();
        self.append_controls(now, &controls, out);
        let is_static = kraft_version == 0;
        let mine = self.my_voter();
        let known = is_static.then(|| self.voters.latest().updated_in_any_directory(mine)).flatten();
        let Role::Leader(leader) = &mut self.role else { return };
        leader.epoch_start = Some(start);
        leader.changes.known_voters = known;
        self.resign_needlessly(out);
        if self.voters.latest().len() > 1 {
            out.event(Level::Info, crate::PART, format!("this node leads the quorum in epoch {}", self.epoch()));
        }
    }

    /// In simulations alone: the leader resigns at its next step.
    pub(crate) fn resign_needlessly(&mut self, out: &mut Outbox) {
        if let Role::Leader(leader) = &mut self.role
            && leader.progress.has_others()
            && out.buggify(Site::Resignation)
        {
            leader.resigns = true;
        }
    }

    /// This node as the log should name it.
    pub(crate) fn my_voter(&self) -> Voter {
        Voter { key: self.config.me, endpoints: self.config.endpoints.clone(), kraft_versions: KRAFT_VERSIONS }
    }

    /// Gives up the leadership in this epoch.
    pub(crate) fn become_resigned(&mut self, now: Now) {
        let Role::Leader(leader) = &self.role else { panic!("a {} does not resign", self.role.name()) };
        let successors = leader.progress.successors();
        let unacknowledged = successors.iter().map(|voter| voter.node).collect();
        let until = self.election_deadline(now.mono);
        self.take_role(Role::Resigned(Resigned { unacknowledged, successors, until }));
    }

    fn set_state(&mut self, state: QuorumState) {
        assert!(state.leader_epoch >= self.state.leader_epoch, "the epoch never falls");
        // Written even where nothing changes, as Kafka does: the file may be missing yet.
        self.state = state;
        self.state_is_new = true;
    }

    /// Leaves the role of before: whoever waits for it is answered.
    fn take_role(&mut self, role: Role) {
        if let Role::Leader(leader) = &self.role {
            self.high_watermark = self.high_watermark.max(leader.progress.high_watermark());
        }
        let before = std::mem::replace(&mut self.role, role);
        if let Role::Leader(leader) = before {
            if let Some((id, body)) = leader.changes.abandoned() {
                self.reply(id, body);
            }
            if leader.is_told {
                self.events.push(QuorumEvent::Resigned);
            }
        }
        for fetch in std::mem::take(&mut self.waiting) {
            let body = messages::fetch_error(self, &fetch, ErrorCode::NotLeaderOrFollower);
            self.reply(fetch.id, body);
        }
        self.peers.reset();
    }

    /// Tells the broker who leads, if that has changed.
    pub(crate) fn tell_leader(&mut self) {
        let leader = match &self.role {
            // Neither may be asked for anything yet, or any more.
            Role::Leader(leader) if !leader.is_told => None,
            Role::Resigned(_) | Role::Unattached { .. } => None,
            _ => self.state.leader,
        };
        let now = (leader, self.epoch());
        if self.told_leader != now {
            self.told_leader = now;
            self.events.push(QuorumEvent::LeaderChanged { leader: now.0, epoch: now.1 });
        }
    }
}
