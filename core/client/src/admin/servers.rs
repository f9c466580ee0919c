//! What brokers say of their log directories, and controllers of their quorum.

use bytestring::ByteString;
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::{NodeId, Uuid};
use tidelog_wire::messages::describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult};
use tidelog_wire::messages::describe_quorum_request::{PartitionData as AskedPartition, TopicData as AskedTopic};
use tidelog_wire::messages::describe_quorum_response::{PartitionData, ReplicaState};
use tidelog_wire::messages::{DescribeLogDirsResponse, DescribeQuorumRequest};

/// The one topic that has a quorum.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// A directory that a broker keeps partitions in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDirDescription {
    pub path: ByteString,
    /// Why it cannot be used: a directory that is offline has `KafkaStorageError`.
    pub error: ErrorCode,
    /// Of its file system; `None` where the broker does not say.
    pub total_bytes: Option<i64>,
    pub usable_bytes: Option<i64>,
    /// By topic and index.
    pub replicas: Vec<ReplicaDescription>,
}

/// A partition's log in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaDescription {
    pub topic: ByteString,
    pub partition: i32,
    pub size_bytes: i64,
    /// How many records it is behind the partition's high watermark or, of a future log, behind the current one.
    pub offset_lag: i64,
    /// It is on its way into this directory (KIP-113).
    pub is_future: bool,
}

/// The quorum of the metadata log, as its leader sees it (KIP-595).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumDescription {
    pub leader: Option<NodeId>,
    pub leader_epoch: i32,
    pub high_watermark: i64,
    /// By their id.
    pub voters: Vec<QuorumReplica>,
    pub observers: Vec<QuorumReplica>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumReplica {
    pub node: NodeId,
    /// Zero where the leader does not say.
    pub directory: Uuid,
    pub log_end_offset: i64,
    /// Milliseconds since 1970, by the leader's clock; `None` where it does not know.
    pub last_fetch_ms: Option<i64>,
    pub last_caught_up_ms: Option<i64>,
}

pub(super) fn log_dirs(response: &DescribeLogDirsResponse) -> Vec<LogDirDescription> {
    response.results.iter().map(log_dir).collect()
}

fn log_dir(result: &DescribeLogDirsResult) -> LogDirDescription {
    let replica = |topic: &ByteString, it: &DescribeLogDirsPartition| ReplicaDescription {
        topic: topic.clone(),
        partition: it.partition_index,
        size_bytes: it.partition_size,
        offset_lag: it.offset_lag,
        is_future: it.is_future_key,
    };
    let of_topic =
        result.topics.iter().flat_map(|it| it.partitions.iter().map(|partition| replica(&it.name, partition)));
    let mut replicas: Vec<ReplicaDescription> = of_topic.collect();
    replicas.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    let known = |bytes: i64| (bytes >= 0).then_some(bytes);
    LogDirDescription {
        path: result.log_dir.clone(),
        error: ErrorCode::from_code(result.error_code).unwrap_or(ErrorCode::UnknownServerError),
        total_bytes: known(result.total_bytes),
        usable_bytes: known(result.usable_bytes),
        replicas,
    }
}

pub(super) fn quorum_request() -> DescribeQuorumRequest {
    let partitions = vec![AskedPartition { partition_index: 0, ..AskedPartition::default() }];
    let topic = AskedTopic { topic_name: METADATA_TOPIC.into(), partitions, ..AskedTopic::default() };
    DescribeQuorumRequest { topics: vec![topic], ..DescribeQuorumRequest::default() }
}

pub(super) fn quorum(partition: &PartitionData) -> QuorumDescription {
    let replicas = |states: &[ReplicaState]| {
        let mut replicas: Vec<QuorumReplica> = states.iter().map(quorum_replica).collect();
        replicas.sort_by_key(|replica| replica.node);
        replicas
    };
    QuorumDescription {
        leader: (partition.leader_id >= 0).then_some(NodeId(partition.leader_id)),
        leader_epoch: partition.leader_epoch,
        high_watermark: partition.high_watermark,
        voters: replicas(&partition.current_voters),
        observers: replicas(&partition.observers),
    }
}

fn quorum_replica(state: &ReplicaState) -> QuorumReplica {
    let known = |ms: i64| (ms >= 0).then_some(ms);
    QuorumReplica {
        node: NodeId(state.replica_id),
        directory: state.replica_directory_id,
        log_end_offset: state.log_end_offset,
        last_fetch_ms: known(state.last_fetch_timestamp),
        last_caught_up_ms: known(state.last_caught_up_timestamp),
    }
}
