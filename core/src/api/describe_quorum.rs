//! DescribeQuorum: which node leads the metadata log, and how far each voter has read it (KIP-595, KIP-836).

use crate::api::{Parts, Ticket};
use crate::io::Outbox;
use crate::storage::names::METADATA_TOPIC;
use crate::time::Now;
use crate::wire::messages::describe_quorum_request::DescribeQuorumRequest;
use crate::wire::messages::describe_quorum_response::{
    DescribeQuorumResponse, Listener, Node, PartitionData, ReplicaState, TopicData,
};
use crate::wire::{ErrorCode, ResponseBody};

pub fn handle(parts: &mut Parts, now: Now, ticket: Ticket, request: DescribeQuorumRequest, out: &mut Outbox) {
    let asks_for_it = match request.topics.as_slice() {
        [topic] => {
            topic.topic_name == METADATA_TOPIC && matches!(topic.partitions.as_slice(), [p] if p.partition_index == 0)
        }
        _ => false,
    };
    let response = if asks_for_it { described(parts, now, ticket.api_version) } else { unknown(request) };
    parts.replies.answer(ticket, ResponseBody::DescribeQuorum(response), out);
}

fn described(parts: &mut Parts, now: Now, version: i16) -> DescribeQuorumResponse {
    let quorum = parts.quorum();
    let voter = quorum.voter().clone();
    let leader = ReplicaState {
        replica_id: voter.node.0,
        replica_directory_id: if version >= 2 { voter.directory } else { Default::default() },
        log_end_offset: quorum.log().map_or(-1, |log| log.log_end_offset().0),
        // A leader is never behind itself.
        last_fetch_timestamp: now.wall.0,
        last_caught_up_timestamp: now.wall.0,
        ..Default::default()
    };
    let partition = PartitionData {
        leader_id: voter.node.0,
        leader_epoch: quorum.epoch().0,
        high_watermark: quorum.committed().0,
        current_voters: vec![leader],
        ..Default::default()
    };
    let topic = TopicData { topic_name: METADATA_TOPIC.into(), partitions: vec![partition], ..Default::default() };
    let listeners =
        voter.endpoints.into_iter().map(|(name, host, port)| Listener { name, host, port, ..Default::default() });
    let node = Node { node_id: voter.node.0, listeners: listeners.collect(), ..Default::default() };
    let nodes = if version >= 2 { vec![node] } else { Vec::new() };
    DescribeQuorumResponse { topics: vec![topic], nodes, ..Default::default() }
}

/// The answer to a request that does not name exactly the one partition of the metadata log.
fn unknown(request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let topics = request.topics.into_iter().map(|topic| TopicData {
        topic_name: topic.topic_name,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| PartitionData {
                partition_index: partition.partition_index,
                error_code: ErrorCode::UnknownTopicOrPartition.code(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    });
    DescribeQuorumResponse { topics: topics.collect(), ..Default::default() }
}
