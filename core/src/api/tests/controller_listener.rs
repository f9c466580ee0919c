//! What a listener of controllers serves: administrators (KIP-919), and nodes that fetch the metadata log (KIP-595).

use super::*;
use crate::wire::ApiKey;
use crate::wire::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use crate::wire::messages::fetch_snapshot_request::{PartitionSnapshot, SnapshotId, TopicSnapshot};
use crate::wire::messages::{
    ApiVersionsRequest, DescribeClusterRequest, DescribeQuorumRequest, FetchSnapshotRequest, MetadataRequest,
    describe_quorum_request,
};

const TWO: &[(&str, &str)] = &[("listeners", "PLAINTEXT://h:1,CONTROLLER://h:2")];

fn versions() -> RequestBody {
    let software = "test";
    RequestBody::ApiVersions(ApiVersionsRequest {
        client_software_name: software.into(),
        client_software_version: software.into(),
        ..Default::default()
    })
}

fn keys(response: ResponseBody) -> Vec<i16> {
    let ResponseBody::ApiVersions(response) = response else { panic!("{response:?}") };
    response.api_keys.iter().map(|api| api.api_key).collect()
}

#[test]
fn each_listener_tells_what_it_serves() {
    let mut bench = Bench::new(TWO);
    let of_clients = keys(bench.ask(4, versions()));
    let of_controllers = keys(bench.ask_controller(4, versions()));
    let has = |keys: &[i16], key: ApiKey| keys.contains(&(key as i16));
    for key in [ApiKey::Produce, ApiKey::Metadata, ApiKey::DescribeTopicPartitions] {
        assert!(has(&of_clients, key) && !has(&of_controllers, key), "{key:?}");
    }
    for key in [ApiKey::CreateTopics, ApiKey::DescribeQuorum, ApiKey::Fetch, ApiKey::DescribeCluster] {
        assert!(has(&of_clients, key) && has(&of_controllers, key), "{key:?}");
    }
    assert!(!has(&of_clients, ApiKey::FetchSnapshot) && has(&of_controllers, ApiKey::FetchSnapshot));
}

#[test]
fn a_request_of_the_other_kind_closes_its_connection() {
    let mut bench = Bench::new(TWO);
    bench.send_at(1, ConnId(50), 12, RequestBody::Metadata(MetadataRequest::default()));
    bench.send_at(0, ConnId(51), 1, RequestBody::FetchSnapshot(FetchSnapshotRequest::default()));
    let closed: Vec<ConnId> = bench.closed.iter().map(|(conn, _)| *conn).collect();
    assert_eq!(closed, [ConnId(50), ConnId(51)]);
}

#[test]
fn controllers_are_described_where_controllers_listen_and_brokers_where_brokers_do() {
    let mut bench = Bench::new(TWO);
    let ask =
        |endpoint_type| RequestBody::DescribeCluster(DescribeClusterRequest { endpoint_type, ..Default::default() });
    let told = |response| {
        let ResponseBody::DescribeCluster(response) = response else { panic!("{response:?}") };
        let nodes: Vec<_> =
            response.brokers.iter().map(|node| (node.broker_id, node.host.to_string(), node.port)).collect();
        let error = ErrorCode::from_code(response.error_code).unwrap();
        (error, response.endpoint_type, response.controller_id, nodes)
    };
    let node = |port| vec![(1, "h".to_owned(), port)];
    assert_eq!(told(bench.ask(1, ask(1))), (ErrorCode::None, 1, 1, node(1)));
    assert_eq!(told(bench.ask_controller(1, ask(2))), (ErrorCode::None, 2, 1, node(2)));
    assert_eq!(told(bench.ask(1, ask(2))).0, ErrorCode::MismatchedEndpointType);
    assert_eq!(told(bench.ask_controller(1, ask(1))).0, ErrorCode::MismatchedEndpointType);
    assert_eq!(told(bench.ask(1, ask(3))).0, ErrorCode::UnsupportedEndpointType);
}

/// A fetch of the metadata log by an observer, from this offset on.
fn fetch(bench: &mut Bench, offset: i64, last_epoch: i32) -> FetchResponse {
    let partition = FetchPartition {
        current_leader_epoch: 1,
        fetch_offset: offset,
        last_fetched_epoch: last_epoch,
        replica_directory_id: Uuid::from_bytes([9; 16]),
        high_watermark: -1,
        ..Default::default()
    };
    let topic = FetchTopic { topic_id: Uuid::METADATA_TOPIC, partitions: vec![partition], ..Default::default() };
    let request = FetchRequest {
        cluster_id: Some(bench.broker.parts().cluster_id.clone()),
        replica_state: ReplicaState { replica_id: 7, ..Default::default() },
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    match bench.ask_controller(17, RequestBody::Fetch(request)) {
        ResponseBody::Fetch(response) => response,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_observer_fetches_the_metadata_log_and_is_listed() {
    let mut bench = Bench::new(TWO);
    bench.create("t", 1, &[]);
    let response = fetch(&mut bench, 0, 0);
    let partition = &response.responses[0].partitions[0];
    assert_eq!((response.error_code, partition.error_code, partition.current_leader.leader_id), (0, 0, 1));
    assert!(partition.high_watermark > 0);
    assert!(!partition.records.as_ref().unwrap().is_empty());
    assert_eq!((&*response.node_endpoints[0].host, response.node_endpoints[0].port), ("h", 2));
    let about = describe_quorum_request::PartitionData::default();
    let topic = describe_quorum_request::TopicData {
        topic_name: "__cluster_metadata".into(),
        partitions: vec![about],
        ..Default::default()
    };
    let request = DescribeQuorumRequest { topics: vec![topic], ..Default::default() };
    let ResponseBody::DescribeQuorum(response) = bench.ask(2, RequestBody::DescribeQuorum(request)) else {
        panic!("another answer")
    };
    let observer = &response.topics[0].partitions[0].observers[0];
    assert_eq!((observer.replica_id, observer.log_end_offset), (7, 0));
    assert_eq!(observer.replica_directory_id, Uuid::from_bytes([9; 16]));
}

#[test]
fn a_snapshot_that_is_not_there_is_not_found() {
    let mut bench = Bench::new(TWO);
    let partition = PartitionSnapshot {
        current_leader_epoch: 1,
        snapshot_id: SnapshotId { end_offset: 5, epoch: 1, ..Default::default() },
        ..Default::default()
    };
    let topic = TopicSnapshot { name: "__cluster_metadata".into(), partitions: vec![partition], ..Default::default() };
    let request = FetchSnapshotRequest { topics: vec![topic], ..Default::default() };
    let ResponseBody::FetchSnapshot(response) = bench.ask_controller(1, RequestBody::FetchSnapshot(request)) else {
        panic!("another answer")
    };
    assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::SnapshotNotFound.code());
}

#[test]
fn controllers_are_listened_to_before_the_metadata_is_known_and_clients_when_the_broker_is_ready() {
    let mut bench = Bench::new(TWO);
    assert_eq!(bench.listening, [1, 0]);
    bench.stop();
    // The quorum cannot lead before `quorum-state` is written.
    bench.hold(|op| matches!(op, IoOp::Replace { path, .. } if path.path.ends_with("quorum-state")));
    assert!(!bench.boot());
    assert_eq!(bench.listening, [1]);
    let answered_later = bench.send_at(1, ConnId(50), 2, RequestBody::DescribeQuorum(DescribeQuorumRequest::default()));
    let refused = ConnId(51);
    bench.send_at(0, refused, 12, RequestBody::Metadata(MetadataRequest::default()));
    assert_eq!(bench.closed.pop().map(|(conn, _)| conn), Some(refused));
    assert_eq!(bench.answer(answered_later), None);
    bench.release();
    assert_eq!(bench.listening, [1, 0]);
    assert!(matches!(bench.answer(answered_later), Some(ResponseBody::DescribeQuorum(_))));
}
