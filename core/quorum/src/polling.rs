//! What each role does when time passes: it asks its peers, and goes on to the next role.

use crate::election::Tally;
use crate::peers::{Peer, bootstrap_addresses};
use crate::role::Role;
use crate::voters::ReplicaKey;
use crate::{Phase, Quorum, QuorumEvent};
use rand::RngExt;
use tidelog_config::plant::Plant;
use tidelog_storage::io::Outbox;
use tidelog_wire::ids::{LeaderEpoch, NodeId};
use tidelog_wire::time::Now;
use tidelog_wire::{Address, RequestBody};

/// How long a leader may keep a fetch waiting.
const FETCH_WAIT_MS_MAX: i64 = 500;

impl Quorum {
    /// Does what is due. Returns whether the role has changed, so that there may be more to do.
    pub(crate) fn poll(&mut self, now: Now, out: &mut Outbox) -> bool {
        self.expire_fetches(now);
        if let Phase::Leaving(until) = self.phase
            && self.may_leave(now, until)
        {
            self.phase = Phase::Closing;
            self.log_mut().close(out);
            return false;
        }
        let has_changed = match &self.role {
            Role::Unattached { .. } => self.poll_unattached(now),
            Role::Prospective(_) | Role::Candidate(_) => self.poll_nominee(now),
            Role::Follower(_) => self.poll_follower(now),
            Role::Leader(_) => self.poll_leader(now, out),
            Role::Resigned(_) => self.poll_resigned(now),
        };
        self.tell_leader();
        has_changed
    }

    fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving(_))
    }

    /// Whether this node can stop without leaving the quorum in doubt.
    fn may_leave(&self, now: Now, until: tidelog_wire::time::Mono) -> bool {
        let has_remote_leader = self.state.leader.is_some_and(|leader| leader != self.config.me.node);
        !self.may_stand() || self.voters.latest().is_only(self.config.me) || has_remote_leader || until <= now.mono
    }

    fn poll_unattached(&mut self, now: Now) -> bool {
        let Role::Unattached { until } = &self.role else { unreachable!("polled as unattached") };
        if self.is_leaving() {
            return false;
        }
        if until.is_some_and(|until| until <= now.mono) {
            self.become_prospective(now);
            return true;
        }
        self.fetch_from_anyone(now);
        false
    }

    fn poll_nominee(&mut self, now: Now) -> bool {
        let (nominee, is_candidate) = match &self.role {
            Role::Prospective(nominee) => (nominee, false),
            Role::Candidate(nominee) => (nominee, true),
            _ => unreachable!("polled as a nominee"),
        };
        if nominee.until <= now.mono && !self.is_leaving() {
            match is_candidate {
                true => self.become_prospective(now),
                false => self.give_up_candidacy(now),
            }
            return true;
        }
        if nominee.election.tally() == Tally::Lost {
            return false;
        }
        let unanswered: Vec<NodeId> = nominee.election.unanswered().collect();
        for voter in unanswered {
            let Some(known) = self.voters.latest().get(voter) else { continue };
            let key = known.key;
            let Some(address) = self.free_address(now, voter) else { continue };
            // A voter that does not know pre-votes would take one for a vote.
            let versions = if is_candidate { 0..=2 } else { 2..=2 };
            let request = self.vote_request(key, !is_candidate);
            self.ask(Peer::Voter(voter), address, request.into(), versions);
        }
        false
    }

    fn become_unattached_in_next_epoch(&mut self, now: Now) {
        match self.epoch().0.checked_add(1) {
            Some(epoch) => self.become_unattached(now, LeaderEpoch(epoch), None),
            None => self.fail("its last epoch was the greatest that an int32 holds".to_owned()),
        }
    }

    fn poll_follower(&mut self, now: Now) -> bool {
        let is_voter = self.may_stand();
        let Role::Follower(follower) = &self.role else { unreachable!("polled as a follower") };
        if self.is_leaving() {
            return false;
        }
        if is_voter && follower.fetch_until <= now.mono {
            self.become_prospective(now);
            return true;
        }
        if self.config.is_controller && follower.update_voter_at <= now.mono {
            self.tell_leader_about_me(now);
        }
        self.fetch(now);
        false
    }

    /// Whether this node may fetch. A fetch acknowledges everything below its offset, so what a voter has appended must be
    /// on stable storage first.
    fn may_acknowledge(&self) -> bool {
        let log = self.log.as_ref().expect("the log is open once the disk is read");
        !self.config.is_controller
            || log.stable_offset() >= log.log_end_offset()
            || self.config.plants.has(Plant::FollowerAcknowledgesBeforeSync)
    }

    /// Fetches from the leader, or from anyone where the leader does not answer.
    fn fetch(&mut self, now: Now) {
        let Role::Follower(follower) = &self.role else { return };
        let peer = Peer::Voter(follower.leader);
        if !self.peers.is_paused(now.mono, &peer) {
            // A node that was asked for the leader meanwhile may never answer, and the leader is not to be kept waiting.
            self.peers.forget_bootstrap();
        }
        if self.peers.has_any_in_flight() || !self.may_acknowledge() {
            return;
        }
        let address = follower.leader_endpoints.address(&self.config.listener).cloned();
        let Some(address) = address.filter(|_| !self.peers.is_paused(now.mono, &peer)) else {
            return self.fetch_from_anyone(now);
        };
        match &follower.download {
            Some(download) => {
                let request = self.fetch_snapshot_request(download);
                self.ask(peer, address, request.into(), 0..=1);
            }
            None => {
                let wait_ms = FETCH_WAIT_MS_MAX.min(self.config.timeouts.fetch_ms / 2) as i32;
                let request = self.fetch_request(wait_ms);
                self.ask(peer, address, request.into(), FETCH_VERSIONS);
            }
        }
    }

    /// Asks any node that may know the leader. Its answer to a fetch tells.
    fn fetch_from_anyone(&mut self, now: Now) {
        if self.peers.has_any_in_flight() || !self.may_acknowledge() {
            return;
        }
        let (me, listener) = (self.config.me, &self.config.listener);
        let mut addresses = bootstrap_addresses(&self.config.bootstrap_servers, self.voters.latest(), me, listener);
        let own = self.config.endpoints.address(listener);
        // The leader that this node knows was asked just before.
        if let Role::Follower(follower) = &self.role
            && let Some(leader) = follower.leader_endpoints.address(listener)
            && addresses.iter().any(|address| address != leader && Some(address) != own)
        {
            addresses.retain(|address| address != leader);
        }
        addresses
            .retain(|address| Some(address) != own && self.peers.is_free(now.mono, &Peer::Bootstrap(address.clone())));
        if addresses.is_empty() {
            return;
        }
        let address = addresses.swap_remove(self.rng.random_range(0..addresses.len()));
        let request = self.fetch_request(0);
        self.ask(Peer::Bootstrap(address.clone()), address, request.into(), FETCH_VERSIONS);
    }

    fn poll_leader(&mut self, now: Now, out: &mut Outbox) -> bool {
        let is_leaving = self.is_leaving();
        let committed = self.committed;
        let Role::Leader(leader) = &mut self.role else { unreachable!("polled as a leader") };
        if leader.resigns || is_leaving || leader.progress.has_lost_majority(now.mono) {
            self.become_resigned(now);
            return true;
        }
        let Some(epoch_start) = leader.epoch_start else {
            self.begin_epoch(now, out);
            self.log_advanced(now, out);
            return true;
        };
        if !leader.is_told && committed >= epoch_start {
            leader.is_told = true;
            // A log that holds only control records counts as new: an earlier leader may have crashed right after it
            // appended its LeaderChange record.
            let bootstrap = (!self.has_metadata).then(|| self.bootstrap.records.clone());
            self.tell_leader();
            self.events.push(QuorumEvent::Leading { epoch: self.epoch(), bootstrap });
        }
        self.expire_changes(now);
        let Role::Leader(leader) = &mut self.role else { unreachable!("nothing has changed it") };
        leader.progress.forget_idle_observers(now.mono);
        let silent: Vec<ReplicaKey> = leader.progress.take_silent(now.mono);
        for voter in silent {
            let Some(address) = self.free_address(now, voter.node) else { continue };
            let request = self.begin_request(voter);
            self.ask(Peer::Voter(voter.node), address, request.into(), 0..=1);
        }
        false
    }

    fn poll_resigned(&mut self, now: Now) -> bool {
        let Role::Resigned(resigned) = &self.role else { unreachable!("polled as resigned") };
        if resigned.until <= now.mono && !self.is_leaving() {
            self.become_unattached_in_next_epoch(now);
            return true;
        }
        let (unacknowledged, successors) = (resigned.unacknowledged.clone(), resigned.successors.clone());
        for voter in unacknowledged {
            let Some(address) = self.free_address(now, voter) else { continue };
            let request: RequestBody = self.end_request(&successors).into();
            self.ask(Peer::Voter(voter), address, request, 0..=1);
        }
        false
    }

    /// Where to ask a voter, if it may be asked now.
    fn free_address(&self, now: Now, voter: NodeId) -> Option<Address> {
        let known = self.voters.latest().get(voter)?;
        let address = known.endpoints.address(&self.config.listener)?;
        self.peers.is_free(now.mono, &Peer::Voter(voter)).then(|| address.clone())
    }
}

/// From version 15 on, a Fetch names its replica as a tagged field; version 17 added its directory (KIP-853).
const FETCH_VERSIONS: std::ops::RangeInclusive<i16> = 15..=18;
