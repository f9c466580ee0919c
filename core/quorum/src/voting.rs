//! Vote, BeginQuorumEpoch and EndQuorumEpoch: the requests of other voters, and their answers (KIP-595, KIP-996).

use crate::messages::Common;
use crate::peers::Peer;
use crate::role::Role;
use crate::voters::{Endpoints, ReplicaKey};
use crate::{Quorum, RequestId, TOPIC};
use tidelog_config::plant::Plant;
use tidelog_storage::buggify::Site;
use tidelog_storage::io::{AskError, Outbox};
use tidelog_wire::ids::{LeaderEpoch, NodeId, Offset, Uuid};
use tidelog_wire::messages::{
    BeginQuorumEpochRequest, BeginQuorumEpochResponse, EndQuorumEpochRequest, EndQuorumEpochResponse, VoteRequest,
    VoteResponse,
};
use tidelog_wire::time::Now;
use tidelog_wire::{ApiKey, ErrorCode};

/// The one partition of a request about the metadata log; `None` if the request is about anything else.
macro_rules! only_partition {
    ($topics:expr) => {
        match $topics.as_slice() {
            [topic] if topic.topic_name == TOPIC => match topic.partitions.as_slice() {
                [partition] if partition.partition_index == 0 => Some(partition),
                _ => None,
            },
            _ => None,
        }
    };
}

impl Quorum {
    /// Whether a request names this cluster, or none.
    pub(crate) fn is_of_this_cluster(&self, cluster_id: Option<&str>) -> bool {
        cluster_id.is_none_or(|id| *id == *self.config.cluster_id)
    }

    /// Whether a request is meant for this replica: it names this one, or none.
    fn is_for_me(&self, voter_id: i32, directory: Uuid) -> bool {
        voter_id < 0
            || (voter_id == self.config.me.node.0
                && (directory == Uuid::ZERO || Some(directory) == self.config.me.directory))
    }

    /// Why a request of a voter is refused: its epoch is old, or it names no node.
    fn refusal_of_voter(&self, node: i32, epoch: i32) -> Option<ErrorCode> {
        if epoch < self.epoch().0 {
            Some(ErrorCode::FencedLeaderEpoch)
        } else {
            (node < 0).then_some(ErrorCode::InvalidRequest)
        }
    }

    /// A leader says itself that it leads in an epoch. Returns the leader, or the error with which it is answered.
    fn take_leader(&mut self, now: Now, (leader, epoch): (i32, i32), told: Endpoints) -> Result<NodeId, ErrorCode> {
        if let Some(error) = self.refusal_of_voter(leader, epoch) {
            return Err(error);
        }
        let leader = NodeId(leader);
        let is_taken = self.learn_leader(now, Some(leader), LeaderEpoch(epoch), told);
        // Not INVALID_REQUEST: Kafka's controllers stop at that.
        is_taken.then_some(leader).ok_or(ErrorCode::UnknownServerError)
    }

    pub(crate) fn handle_vote(&mut self, now: Now, id: RequestId, listener: &str, request: VoteRequest) {
        if !self.is_of_this_cluster(request.cluster_id.as_deref()) {
            let error_code = ErrorCode::InconsistentClusterId.code();
            return self.reply(id, VoteResponse { error_code, ..Default::default() });
        }
        let Some(partition) = only_partition!(request.topics) else {
            let error_code = ErrorCode::InvalidRequest.code();
            return self.reply(id, VoteResponse { error_code, ..Default::default() });
        };
        // A candidate has no record of the epoch in which it stands. A pre-vote names the epoch before.
        let (epoch, last_epoch, is_pre_vote) =
            (partition.replica_epoch, partition.last_offset_epoch, partition.pre_vote);
        let is_illegal = if is_pre_vote { last_epoch > epoch } else { last_epoch >= epoch };
        // The epoch after the greatest one could not be numbered.
        let is_illegal = is_illegal || epoch == i32::MAX;
        let refusal = match partition.last_offset < 0 || last_epoch < 0 || is_illegal {
            true => Some(ErrorCode::InvalidRequest),
            false => self.refusal_of_voter(partition.replica_id, epoch),
        };
        if let Some(error) = refusal {
            return self.reply(id, self.vote_response(listener, error, false));
        }
        if epoch > self.epoch().0 {
            self.become_unattached(now, LeaderEpoch(epoch), None);
        }
        if !self.is_for_me(request.voter_id, partition.voter_directory_id) {
            return self.reply(id, self.vote_response(listener, ErrorCode::InvalidVoterKey, false));
        }
        let candidate = ReplicaKey::from_wire(partition.replica_id, partition.replica_directory_id);
        let theirs = (LeaderEpoch(last_epoch), Offset(partition.last_offset));
        let plants = self.config.plants;
        let is_up_to_date = theirs >= (self.last_epoch(), self.log_end()) || plants.has(Plant::VotesForShorterLog);
        let is_other = candidate.node != self.config.me.node;
        let granted = (is_other && self.role.grants(&self.state, candidate, is_up_to_date, is_pre_vote))
            || plants.has(Plant::VotesTwice);
        if granted && !is_pre_vote && self.state.voted.is_none() && self.state.leader.is_none() {
            self.vote_for(now, candidate);
        }
        self.reply(id, self.vote_response(listener, ErrorCode::None, granted));
    }

    pub(crate) fn handle_vote_answer(&mut self, now: Now, peer: &Peer, answer: VoteResponse) -> bool {
        let Some(partition) = only_partition!(answer.topics).filter(|_| answer.error_code == 0) else {
            return false;
        };
        let told = answer.node_endpoints.iter().map(|node| (node.node_id, node.host.clone(), node.port));
        let common = self.common(partition.error_code, (partition.leader_id, partition.leader_epoch), told);
        if let Some(is_useful) = self.handle_common(now, common) {
            return is_useful;
        }
        let Peer::Voter(voter) = peer else { return false };
        if let Role::Prospective(nominee) | Role::Candidate(nominee) = &mut self.role {
            nominee.election.record(*voter, partition.vote_granted);
            self.count_votes(now);
        }
        true
    }

    pub(crate) fn handle_begin_quorum_epoch(
        &mut self,
        now: Now,
        id: RequestId,
        listener: &str,
        request: BeginQuorumEpochRequest,
    ) {
        if !self.is_of_this_cluster(request.cluster_id.as_deref()) {
            let error_code = ErrorCode::InconsistentClusterId.code();
            return self.reply(id, BeginQuorumEpochResponse { error_code, ..Default::default() });
        }
        let Some(partition) = only_partition!(request.topics) else {
            let error_code = ErrorCode::InvalidRequest.code();
            return self.reply(id, BeginQuorumEpochResponse { error_code, ..Default::default() });
        };
        let told = request.leader_endpoints.iter().map(|end| (end.name.clone(), end.host.clone(), end.port));
        let error = match self.take_leader(now, (partition.leader_id, partition.leader_epoch), told.collect()) {
            Err(error) => error,
            Ok(_) if !self.is_for_me(request.voter_id, partition.voter_directory_id) => ErrorCode::InvalidVoterKey,
            Ok(_) => ErrorCode::None,
        };
        self.reply(id, self.begin_response(listener, error));
    }

    pub(crate) fn handle_begin_quorum_epoch_answer(&mut self, now: Now, answer: BeginQuorumEpochResponse) -> bool {
        let Some(partition) = only_partition!(answer.topics).filter(|_| answer.error_code == 0) else {
            return false;
        };
        let told = answer.node_endpoints.iter().map(|node| (node.node_id, node.host.clone(), node.port));
        let common = self.common(partition.error_code, (partition.leader_id, partition.leader_epoch), told);
        self.handle_common(now, common).unwrap_or(partition.error_code == 0)
    }

    pub(crate) fn handle_end_quorum_epoch(
        &mut self,
        now: Now,
        id: RequestId,
        listener: &str,
        request: EndQuorumEpochRequest,
        out: &mut Outbox,
    ) {
        if !self.is_of_this_cluster(request.cluster_id.as_deref()) {
            let error_code = ErrorCode::InconsistentClusterId.code();
            return self.reply(id, EndQuorumEpochResponse { error_code, ..Default::default() });
        }
        let Some(partition) = only_partition!(request.topics) else {
            let error_code = ErrorCode::InvalidRequest.code();
            return self.reply(id, EndQuorumEpochResponse { error_code, ..Default::default() });
        };
        let told = request.leader_endpoints.iter().map(|end| (end.name.clone(), end.host.clone(), end.port));
        let taken = self.take_leader(now, (partition.leader_id, partition.leader_epoch), told.collect());
        let leader = match taken {
            Ok(leader) => leader,
            Err(error) => return self.reply(id, self.end_response(listener, error)),
        };
        let candidates: Vec<ReplicaKey> = match partition.preferred_candidates.is_empty() {
            true => {
                partition.preferred_successors.iter().map(|node| ReplicaKey::from_wire(*node, Uuid::ZERO)).collect()
            }
            false => {
                let candidates = partition.preferred_candidates.iter();
                candidates.map(|c| ReplicaKey::from_wire(c.candidate_id, c.candidate_directory_id)).collect()
            }
        };
        let me = self.config.me;
        let place = candidates.iter().position(|candidate| candidate.covers(me));
        let backoff_ms = election_backoff_ms(place, candidates.len(), self.config.timeouts.election_backoff_ms_max);
        if let Role::Follower(follower) = &mut self.role
            && follower.leader == leader
        {
            let backoff_ms = if out.buggify(Site::ImpatientSuccessor) { 0 } else { backoff_ms };
            follower.fetch_until = now.mono.plus_ms(backoff_ms);
        }
        self.reply(id, self.end_response(listener, ErrorCode::None));
    }

    pub(crate) fn handle_end_quorum_epoch_answer(
        &mut self,
        now: Now,
        peer: &Peer,
        answer: EndQuorumEpochResponse,
    ) -> bool {
        let Some(partition) = only_partition!(answer.topics).filter(|_| answer.error_code == 0) else {
            return false;
        };
        let told = answer.node_endpoints.iter().map(|node| (node.node_id, node.host.clone(), node.port));
        let common = self.common(partition.error_code, (partition.leader_id, partition.leader_epoch), told);
        if let Some(is_useful) = self.handle_common(now, common) {
            return is_useful;
        }
        match (&mut self.role, peer) {
            (Role::Resigned(resigned), Peer::Voter(voter)) if partition.error_code == 0 => {
                resigned.unacknowledged.remove(voter);
                true
            }
            _ => false,
        }
    }

    /// Takes what every answer says of the leader and its epoch. `None`: the answer is of this epoch, and its own matter
    /// is to be looked at. Otherwise the answer is done, and whether it told anything new is returned. If not, the peer is
    /// not asked again at once.
    pub(crate) fn handle_common(&mut self, now: Now, answer: Common) -> Option<bool> {
        let Common { error, leader, epoch, endpoints } = answer;
        if epoch < self.epoch() || error == ErrorCode::UnknownLeaderEpoch {
            // The peer does not know this epoch yet.
            return Some(false);
        }
        let before = (self.epoch(), self.state.leader);
        let is_told_of_another = matches!(error, ErrorCode::FencedLeaderEpoch | ErrorCode::NotLeaderOrFollower);
        if epoch > self.epoch() || is_told_of_another {
            self.learn_leader(now, leader, epoch, endpoints);
            return Some(before != (self.epoch(), self.state.leader));
        }
        // The leader itself may have answered, and this node may know its name from a time before, and not its address.
        let is_without = self.state.leader.is_none() || matches!(self.role, Role::Unattached { .. });
        if is_without && !self.learn_leader(now, leader, epoch, endpoints) {
            return Some(false);
        }
        match error {
            ErrorCode::InvalidVoterKey | ErrorCode::BrokerNotAvailable | ErrorCode::InvalidRequest => Some(false),
            _ => None,
        }
    }

    /// A peer says that `leader` leads in `epoch`, which is not below this node's epoch. Follows it if that is news.
    /// Returns false if it contradicts what this node knows for sure; then nothing changes.
    pub(crate) fn learn_leader(
        &mut self,
        now: Now,
        leader: Option<NodeId>,
        epoch: LeaderEpoch,
        told: Endpoints,
    ) -> bool {
        let me = self.config.me.node;
        let contradicts = match leader {
            Some(leader) if leader == me => epoch != self.epoch() || self.state.leader != Some(me),
            Some(leader) => epoch == self.epoch() && self.state.leader.is_some_and(|known| known != leader),
            None => false,
        };
        if contradicts && self.doubted == Some((leader, epoch)) {
            return false;
        }
        if contradicts {
            self.doubted = Some((leader, epoch));
            let text = format!(
                "a peer says that node {} leads the quorum in epoch {epoch}, but this node knows {} as the leader in \
                 epoch {}; the peer is not believed",
                leader.map_or(-1, |leader| leader.0),
                self.state.leader.map_or("none".to_owned(), |leader| leader.to_string()),
                self.epoch()
            );
            self.warn_later(text);
            return false;
        }
        let endpoints = match leader {
            Some(leader) if told.is_empty() => self.voters.latest().endpoints(leader),
            _ => told,
        };
        match leader.filter(|leader| *leader != me && !endpoints.is_empty()) {
            Some(leader) if epoch > self.epoch() => self.become_follower(now, epoch, leader, endpoints),
            None if epoch > self.epoch() => self.become_unattached(now, epoch, leader),
            Some(leader) if self.state.leader.is_none() || endpoints.len() > self.leader_endpoints().len() => {
                self.become_follower(now, epoch, leader, endpoints);
            }
            _ => {}
        }
        true
    }

    /// A request to a peer has failed.
    pub(crate) fn handle_no_answer(
        &mut self,
        now: Now,
        peer: &Peer,
        api_key: ApiKey,
        error: AskError,
        out: &mut Outbox,
    ) -> bool {
        match (api_key, error, &self.role) {
            (ApiKey::Vote, AskError::Unsupported, Role::Prospective(_)) => {
                // The voter is older than pre-votes.
                self.become_candidate(now);
                true
            }
            (ApiKey::UpdateRaftVoter, AskError::Unsupported, _) => {
                // The leader is older than this request, and need not know.
                if let Role::Follower(follower) = &mut self.role {
                    follower.has_updated_leader = true;
                }
                true
            }
            (ApiKey::ApiVersions, ..) => {
                self.handle_versions_of_new_voter(now, peer, None, out);
                false
            }
            _ => false,
        }
    }

    /// A warning for the operator, which is written with the next outputs.
    fn warn_later(&mut self, text: String) {
        self.warnings.push(text);
    }
}

/// How long a voter waits before it stands for election after its leader has resigned: the voter with the longest log
/// does not wait, and each next one twice as long as the one before.
fn election_backoff_ms(place: Option<usize>, candidates: usize, backoff_ms_max: i64) -> i64 {
    match place {
        Some(0) => 0,
        Some(place) => {
            let base_ms = backoff_ms_max >> (candidates - 1).min(62);
            (base_ms << (place - 1).min(62)).min(backoff_ms_max)
        }
        None => backoff_ms_max,
    }
}

#[cfg(test)]
mod tests {
    use super::election_backoff_ms;

    #[test]
    fn the_voter_with_the_longest_log_stands_first() {
        let backoffs: Vec<i64> = (0..4).map(|place| election_backoff_ms(Some(place), 4, 1_000)).collect();
        assert_eq!(backoffs, [0, 125, 250, 500]);
        assert_eq!(election_backoff_ms(None, 4, 1_000), 1_000);
        assert_eq!(election_backoff_ms(Some(80), 100, 1_000), 0, "no overflow");
    }
}
