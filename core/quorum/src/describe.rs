//! DescribeQuorum: who leads, and how far each replica has read the log (KIP-595, KIP-836, KIP-853).

use crate::messages::wire_offset;
use crate::progress::Replica;
use crate::role::Role;
use crate::{Quorum, RequestId, TOPIC};
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::Uuid;
use tidelog_wire::messages::describe_quorum_request::DescribeQuorumRequest;
use tidelog_wire::messages::describe_quorum_response::{
    DescribeQuorumResponse, Listener, Node, PartitionData, ReplicaState, TopicData,
};
use tidelog_wire::time::Now;

/// As Kafka says it.
const NOT_LEADER: &str = "For requests intended only for the leader, this error indicates that the broker is not the current leader. For \
     requests intended for any replica, this error indicates that the broker is not a replica of the topic partition.";

impl Quorum {
    pub(crate) fn handle_describe(&mut self, now: Now, id: RequestId, version: i16, request: DescribeQuorumRequest) {
        let is_asked = match request.topics.as_slice() {
            [topic] => {
                topic.topic_name == TOPIC && matches!(topic.partitions.as_slice(), [p] if p.partition_index == 0)
            }
            _ => false,
        };
        let response = if is_asked { self.describe(now, version) } else { unknown(request) };
        self.reply(id, response);
    }

    fn describe(&mut self, now: Now, version: i16) -> DescribeQuorumResponse {
        let (me, epoch, high_watermark, log_end) =
            (self.config.me, self.epoch(), self.high_watermark(), self.log_end());
        let Role::Leader(leader) = &mut self.role else {
            let error_code = ErrorCode::NotLeaderOrFollower.code();
            let error_message = (version >= 2).then(|| NOT_LEADER.into());
            return answer(PartitionData { error_code, error_message, ..Default::default() }, Vec::new());
        };
        leader.progress.forget_idle_observers(now.mono);
        let replica = |replica: &Replica| {
            // A leader is never behind itself.
            let is_me = me.covers(replica.key) || replica.key.covers(me);
            let last_fetch = if is_me { Some(now.wall) } else { replica.last_fetch.map(|last| last.wall) };
            let caught_up = if is_me { Some(now.wall) } else { replica.last_caught_up };
            ReplicaState {
                replica_id: replica.key.node.0,
                replica_directory_id: if version >= 2 { replica.key.wire_directory() } else { Uuid::ZERO },
                log_end_offset: if is_me { log_end.0 } else { wire_offset(replica.end_offset) },
                last_fetch_timestamp: last_fetch.map_or(-1, |at| at.0),
                last_caught_up_timestamp: caught_up.map_or(-1, |at| at.0),
                ..Default::default()
            }
        };
        let partition = PartitionData {
            leader_id: me.node.0,
            leader_epoch: epoch.0,
            high_watermark: wire_offset(high_watermark),
            current_voters: leader.progress.voters().map(replica).collect(),
            observers: leader.progress.observers().map(replica).collect(),
            ..Default::default()
        };
        let voters = self.voters.latest().iter().filter(|_| version >= 2);
        let nodes = voters.map(|voter| Node {
            node_id: voter.key.node.0,
            listeners: voter
                .endpoints
                .0
                .iter()
                .map(|(name, address)| Listener {
                    name: name.clone(),
                    host: address.host.clone(),
                    port: address.port,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        });
        answer(partition, nodes.collect())
    }
}

fn answer(partition: PartitionData, nodes: Vec<Node>) -> DescribeQuorumResponse {
    let topic = TopicData { topic_name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
    DescribeQuorumResponse { topics: vec![topic], nodes, ..Default::default() }
}

/// The answer to a request that does not name exactly the one partition of the metadata log.
fn unknown(request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let error_code = ErrorCode::UnknownTopicOrPartition.code();
    let topics = request.topics.into_iter().map(|topic| TopicData {
        topic_name: topic.topic_name,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| PartitionData {
                partition_index: partition.partition_index,
                error_code,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    });
    DescribeQuorumResponse { topics: topics.collect(), ..Default::default() }
}
