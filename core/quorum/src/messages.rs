//! The messages of the quorum: what the requests and answers of different kinds have in common.

use crate::fetching::Fetch;
use crate::voters::{Endpoints, ReplicaKey};
use crate::{Quorum, TOPIC};
use bytestring::ByteString;
use tidelog_wire::ids::{LeaderEpoch, NodeId, Offset, Uuid};
use tidelog_wire::messages::{
    AddRaftVoterResponse, BeginQuorumEpochRequest, BeginQuorumEpochResponse, DescribeQuorumResponse,
    EndQuorumEpochRequest, EndQuorumEpochResponse, FetchRequest, FetchResponse, RemoveRaftVoterResponse,
    UpdateRaftVoterResponse, VoteRequest, VoteResponse,
};
use tidelog_wire::messages::{
    begin_quorum_epoch_request as begin_request, begin_quorum_epoch_response as begin_response,
    end_quorum_epoch_request as end_request, end_quorum_epoch_response as end_response, fetch_request, fetch_response,
    fetch_snapshot_response, vote_request, vote_response,
};
use tidelog_wire::{Address, ErrorCode, Records, RequestBody, ResponseBody};

/// What every answer of a peer says beside its own matter.
#[derive(Debug)]
pub struct Common {
    pub error: ErrorCode,
    pub leader: Option<NodeId>,
    pub epoch: LeaderEpoch,
    /// Where that leader listens. Empty if the answer does not say.
    pub endpoints: Endpoints,
}

/// The error of an answer. A code of a later version of Kafka is an error like any other.
fn error(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}

/// A node that an answer names, if it names a real one.
fn node(id: i32) -> Option<NodeId> {
    (id >= 0).then_some(NodeId(id))
}

/// The error of an answer as a whole, beside those of its partitions.
pub fn whole_error(answer: &ResponseBody) -> i16 {
    match answer {
        ResponseBody::Vote(body) => body.error_code,
        ResponseBody::BeginQuorumEpoch(body) => body.error_code,
        ResponseBody::EndQuorumEpoch(body) => body.error_code,
        ResponseBody::Fetch(body) => body.error_code,
        ResponseBody::FetchSnapshot(body) => body.error_code,
        _ => 0,
    }
}

impl Quorum {
    /// What an answer says of the leader. `told`: the nodes whose addresses it tells, as id, host and port.
    pub(crate) fn common(
        &self,
        error_code: i16,
        (leader_id, epoch): (i32, i32),
        told: impl IntoIterator<Item = (i32, ByteString, u16)>,
    ) -> Common {
        let leader = node(leader_id);
        let address = told.into_iter().find(|(id, ..)| node(*id) == leader);
        let endpoints = match (leader, address) {
            (Some(_), Some((_, host, port))) => [(self.config.listener.clone(), host, port)].into_iter().collect(),
            (Some(leader), None) => self.voters.latest().endpoints(leader),
            (None, _) => Endpoints::default(),
        };
        Common { error: error(error_code), leader, epoch: LeaderEpoch(epoch), endpoints }
    }

    /// The leader, as this node tells a peer that came in on `listener`.
    pub(crate) fn leader_for(&self, listener: &str) -> (i32, Option<(NodeId, Address)>) {
        let id = self.state.leader.map_or(-1, |leader| leader.0);
        let address = self.leader_endpoints().address(listener).cloned();
        (id, self.state.leader.zip(address))
    }

    pub(crate) fn vote_request(&self, voter: ReplicaKey, pre_vote: bool) -> VoteRequest {
        let partition = vote_request::PartitionData {
            replica_epoch: self.epoch().0,
            replica_id: self.config.me.node.0,
            replica_directory_id: self.config.me.wire_directory(),
            voter_directory_id: voter.wire_directory(),
            last_offset_epoch: self.last_epoch().0,
            last_offset: self.log_end().0,
            pre_vote,
            ..Default::default()
        };
        let topic =
            vote_request::TopicData { topic_name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
        VoteRequest {
            cluster_id: Some(self.config.cluster_id.clone()),
            voter_id: voter.node.0,
            topics: vec![topic],
            ..Default::default()
        }
    }

    pub(crate) fn vote_response(&self, listener: &str, error: ErrorCode, vote_granted: bool) -> VoteResponse {
        let (leader_id, endpoint) = self.leader_for(listener);
        let partition = vote_response::PartitionData {
            error_code: error.code(),
            leader_id,
            leader_epoch: self.epoch().0,
            vote_granted,
            ..Default::default()
        };
        let topic =
            vote_response::TopicData { topic_name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
        let endpoint = endpoint.map(|(node, address)| vote_response::NodeEndpoint {
            node_id: node.0,
            host: address.host,
            port: address.port,
            ..Default::default()
        });
        VoteResponse { topics: vec![topic], node_endpoints: endpoint.into_iter().collect(), ..Default::default() }
    }

    pub(crate) fn begin_request(&self, voter: ReplicaKey) -> BeginQuorumEpochRequest {
        let partition = begin_request::PartitionData {
            voter_directory_id: voter.wire_directory(),
            leader_id: self.config.me.node.0,
            leader_epoch: self.epoch().0,
            ..Default::default()
        };
        let topic =
            begin_request::TopicData { topic_name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
        let endpoint = |(name, address): (&ByteString, &Address)| begin_request::LeaderEndpoint {
            name: name.clone(),
            host: address.host.clone(),
            port: address.port,
            ..Default::default()
        };
        BeginQuorumEpochRequest {
            cluster_id: Some(self.config.cluster_id.clone()),
            voter_id: voter.node.0,
            topics: vec![topic],
            leader_endpoints: self.config.endpoints.0.iter().map(endpoint).collect(),
            ..Default::default()
        }
    }

    pub(crate) fn begin_response(&self, listener: &str, error: ErrorCode) -> BeginQuorumEpochResponse {
        let (leader_id, endpoint) = self.leader_for(listener);
        let partition = begin_response::PartitionData {
            error_code: error.code(),
            leader_id,
            leader_epoch: self.epoch().0,
            ..Default::default()
        };
        let topic =
            begin_response::TopicData { topic_name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
        let endpoint = endpoint.map(|(node, address)| begin_response::NodeEndpoint {
            node_id: node.0,
            host: address.host,
            port: address.port,
            ..Default::default()
        });
        let node_endpoints = endpoint.into_iter().collect();
        BeginQuorumEpochResponse { topics: vec![topic], node_endpoints, ..Default::default() }
    }

    pub(crate) fn end_request(&self, successors: &[ReplicaKey]) -> EndQuorumEpochRequest {
        let partition = end_request::PartitionData {
            leader_id: self.config.me.node.0,
            leader_epoch: self.epoch().0,
            preferred_successors: successors.iter().map(|voter| voter.node.0).collect(),
            preferred_candidates: successors
                .iter()
                .map(|voter| end_request::ReplicaInfo {
                    candidate_id: voter.node.0,
                    candidate_directory_id: voter.wire_directory(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        let topic =
            end_request::TopicData { topic_name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
        let endpoint = |(name, address): (&ByteString, &Address)| end_request::LeaderEndpoint {
            name: name.clone(),
            host: address.host.clone(),
            port: address.port,
            ..Default::default()
        };
        EndQuorumEpochRequest {
            cluster_id: Some(self.config.cluster_id.clone()),
            topics: vec![topic],
            leader_endpoints: self.config.endpoints.0.iter().map(endpoint).collect(),
            ..Default::default()
        }
    }

    pub(crate) fn end_response(&self, listener: &str, error: ErrorCode) -> EndQuorumEpochResponse {
        let (leader_id, endpoint) = self.leader_for(listener);
        let partition = end_response::PartitionData {
            error_code: error.code(),
            leader_id,
            leader_epoch: self.epoch().0,
            ..Default::default()
        };
        let topic =
            end_response::TopicData { topic_name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
        let endpoint = endpoint.map(|(node, address)| end_response::NodeEndpoint {
            node_id: node.0,
            host: address.host,
            port: address.port,
            ..Default::default()
        });
        let node_endpoints = endpoint.into_iter().collect();
        EndQuorumEpochResponse { topics: vec![topic], node_endpoints, ..Default::default() }
    }

    pub(crate) fn fetch_request(&self, max_wait_ms: i32) -> FetchRequest {
        let me = self.config.me;
        let partition = fetch_request::FetchPartition {
            current_leader_epoch: self.epoch().0,
            fetch_offset: self.log_end().0,
            last_fetched_epoch: self.last_epoch().0,
            partition_max_bytes: self.config.fetch_bytes_max,
            replica_directory_id: me.wire_directory(),
            high_watermark: self.high_watermark().map_or(-1, |high| high.0),
            ..Default::default()
        };
        let topic = fetch_request::FetchTopic {
            topic: TOPIC.into(),
            topic_id: Uuid::METADATA_TOPIC,
            partitions: vec![partition],
            ..Default::default()
        };
        FetchRequest {
            cluster_id: Some(self.config.cluster_id.clone()),
            replica_state: fetch_request::ReplicaState { replica_id: me.node.0, ..Default::default() },
            max_wait_ms,
            max_bytes: self.config.fetch_bytes_max,
            topics: vec![topic],
            ..Default::default()
        }
    }

    /// The answer to a fetch, which `set` completes.
    pub(crate) fn fetch_response(
        &self,
        listener: &str,
        error: ErrorCode,
        set: impl FnOnce(&mut fetch_response::PartitionData),
    ) -> FetchResponse {
        let (leader_id, endpoint) = self.leader_for(listener);
        let mut partition = fetch_response::PartitionData {
            error_code: error.code(),
            high_watermark: -1,
            log_start_offset: self.log.as_ref().map_or(-1, |log| log.log_start_offset().0),
            current_leader: fetch_response::LeaderIdAndEpoch {
                leader_id,
                leader_epoch: self.epoch().0,
                ..Default::default()
            },
            records: Some(Records::default()),
            ..Default::default()
        };
        set(&mut partition);
        let topic = fetch_response::FetchableTopicResponse {
            topic: TOPIC.into(),
            topic_id: Uuid::METADATA_TOPIC,
            partitions: vec![partition],
            ..Default::default()
        };
        let endpoint = endpoint.map(|(node, address)| fetch_response::NodeEndpoint {
            node_id: node.0,
            host: address.host,
            port: address.port.into(),
            ..Default::default()
        });
        FetchResponse { responses: vec![topic], node_endpoints: endpoint.into_iter().collect(), ..Default::default() }
    }

    /// The answer to a FetchSnapshot of the metadata log, which `set` completes.
    pub(crate) fn fetch_snapshot_response(
        &self,
        listener: &str,
        error: ErrorCode,
        set: impl FnOnce(&mut fetch_snapshot_response::PartitionSnapshot),
    ) -> fetch_snapshot_response::FetchSnapshotResponse {
        let (leader_id, endpoint) = self.leader_for(listener);
        let mut partition = fetch_snapshot_response::PartitionSnapshot {
            error_code: error.code(),
            current_leader: fetch_snapshot_response::LeaderIdAndEpoch {
                leader_id,
                leader_epoch: self.epoch().0,
                ..Default::default()
            },
            ..Default::default()
        };
        set(&mut partition);
        let topic = fetch_snapshot_response::TopicSnapshot {
            name: TOPIC.into(),
            partitions: vec![partition],
            ..Default::default()
        };
        let endpoint = endpoint.map(|(node, address)| fetch_snapshot_response::NodeEndpoint {
            node_id: node.0,
            host: address.host,
            port: address.port,
            ..Default::default()
        });
        fetch_snapshot_response::FetchSnapshotResponse {
            topics: vec![topic],
            node_endpoints: endpoint.into_iter().collect(),
            ..Default::default()
        }
    }
}

/// The answer to a fetch that gets no records, for this reason.
pub fn fetch_error(quorum: &Quorum, fetch: &Fetch, error: ErrorCode) -> FetchResponse {
    quorum.fetch_response(&fetch.listener, error, |_| {})
}

/// The answer to any request that is refused as a whole.
pub fn refusal(request: &RequestBody, error: ErrorCode) -> ResponseBody {
    let error_code = error.code();
    match request {
        RequestBody::Vote(_) => VoteResponse { error_code, ..Default::default() }.into(),
        RequestBody::BeginQuorumEpoch(_) => BeginQuorumEpochResponse { error_code, ..Default::default() }.into(),
        RequestBody::EndQuorumEpoch(_) => EndQuorumEpochResponse { error_code, ..Default::default() }.into(),
        RequestBody::Fetch(_) => FetchResponse { error_code, ..Default::default() }.into(),
        RequestBody::FetchSnapshot(_) => {
            fetch_snapshot_response::FetchSnapshotResponse { error_code, ..Default::default() }.into()
        }
        RequestBody::DescribeQuorum(_) => DescribeQuorumResponse { error_code, ..Default::default() }.into(),
        RequestBody::AddRaftVoter(_) => AddRaftVoterResponse { error_code, ..Default::default() }.into(),
        RequestBody::RemoveRaftVoter(_) => RemoveRaftVoterResponse { error_code, ..Default::default() }.into(),
        RequestBody::UpdateRaftVoter(_) => UpdateRaftVoterResponse { error_code, ..Default::default() }.into(),
        other => panic!("the quorum serves no {:?}", other.api_key()),
    }
}

/// An offset as a message holds it.
pub fn wire_offset(offset: Option<Offset>) -> i64 {
    offset.map_or(-1, |offset| offset.0)
}
