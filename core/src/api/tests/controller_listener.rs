//! What a listener of controllers serves: administrators (KIP-919), voters (KIP-595, KIP-853), and nodes that fetch the
//! metadata log.

use super::*;
use crate::wire::ApiKey;
use crate::wire::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use crate::wire::messages::fetch_snapshot_request::{PartitionSnapshot, SnapshotId, TopicSnapshot};
use crate::wire::messages::update_raft_voter_request::{KRaftVersionFeature, Listener};
use crate::wire::messages::{
    AddRaftVoterRequest, ApiVersionsRequest, BeginQuorumEpochRequest, DescribeClusterRequest, DescribeQuorumRequest,
    EndQuorumEpochRequest, FetchSnapshotRequest, MetadataRequest, RemoveRaftVoterRequest, UpdateRaftVoterRequest,
    VoteRequest, add_raft_voter_request, begin_quorum_epoch_request, describe_quorum_request, end_quorum_epoch_request,
    vote_request,
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
    let of_administrators =
        [ApiKey::CreateTopics, ApiKey::DescribeQuorum, ApiKey::AddRaftVoter, ApiKey::RemoveRaftVoter];
    for key in of_administrators.into_iter().chain([ApiKey::Fetch, ApiKey::DescribeCluster]) {
        assert!(has(&of_clients, key) && has(&of_controllers, key), "{key:?}");
    }
    let of_voters = [ApiKey::Vote, ApiKey::BeginQuorumEpoch, ApiKey::EndQuorumEpoch, ApiKey::UpdateRaftVoter];
    for key in of_voters.into_iter().chain([ApiKey::FetchSnapshot]) {
        assert!(!has(&of_clients, key) && has(&of_controllers, key), "{key:?}");
    }
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
        topic_name: METADATA.into(),
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

fn log_end(bench: &mut Bench) -> i64 {
    bench.broker.parts().quorum.as_ref().unwrap().log().unwrap().log_end_offset().0
}

#[test]
fn the_controller_shows_that_it_lives_while_another_node_reads_its_log() {
    let mut bench = Bench::new(TWO);
    let alone = log_end(&mut bench);
    bench.pass(60_000);
    assert_eq!(log_end(&mut bench), alone, "nobody is there to see it");
    fetch(&mut bench, 0, 0);
    bench.pass(10_000);
    assert_eq!(log_end(&mut bench), alone + 20, "one record in 500 ms");
    // Of the observer nothing is heard for five minutes.
    bench.pass(300_000);
    let gone = log_end(&mut bench);
    bench.pass(60_000);
    assert_eq!(log_end(&mut bench), gone);

    let mut bench = Bench::new(&[TWO[0], ("metadata.max.idle.interval.ms", "0")]);
    fetch(&mut bench, 0, 0);
    bench.pass(10_000);
    assert_eq!(log_end(&mut bench), alone);
}

const METADATA: &str = "__cluster_metadata";

fn vote(epoch: i32, pre_vote: bool) -> VoteRequest {
    let partition = vote_request::PartitionData {
        replica_id: 2,
        replica_epoch: epoch,
        last_offset_epoch: 0,
        last_offset: 0,
        pre_vote,
        ..Default::default()
    };
    let topic =
        vote_request::TopicData { topic_name: METADATA.into(), partitions: vec![partition], ..Default::default() };
    VoteRequest { voter_id: 1, topics: vec![topic], ..Default::default() }
}

#[test]
fn a_candidate_whose_log_is_shorter_gets_no_vote_and_is_told_who_leads() {
    let mut bench = Bench::new(TWO);
    bench.create("t", 1, &[]);
    let mut ask = |request: VoteRequest| {
        let ResponseBody::Vote(response) = bench.ask_controller(2, request.into()) else { panic!("another answer") };
        let partition = response.topics[0].partitions[0].clone();
        let told = response.node_endpoints.first().map(|node| (node.host.to_string(), node.port));
        (partition.error_code, partition.vote_granted, partition.leader_id, partition.leader_epoch, told)
    };
    let leader = Some(("h".to_owned(), 2));
    assert_eq!(ask(vote(1, true)), (0, false, 1, 1, leader.clone()));
    assert_eq!(ask(vote(0, true)), (code(ErrorCode::FencedLeaderEpoch), false, 1, 1, leader));
    // The leader gives up, as an epoch is named that is greater than its own, and leads again in one that is greater still.
    assert_eq!(ask(vote(7, false)), (0, false, -1, 7, None));
    bench.pass(5_000);
    assert!(bench.broker.parts().quorum.as_ref().unwrap().epoch() > LeaderEpoch(7));
    bench.create("u", 1, &[]);
}

#[test]
fn a_node_that_says_that_it_leads_in_an_old_epoch_is_fenced() {
    let mut bench = Bench::new(TWO);
    let partition = begin_quorum_epoch_request::PartitionData { leader_id: 2, leader_epoch: 0, ..Default::default() };
    let topic = begin_quorum_epoch_request::TopicData {
        topic_name: METADATA.into(),
        partitions: vec![partition],
        ..Default::default()
    };
    let begin = BeginQuorumEpochRequest { topics: vec![topic], ..Default::default() };
    let ResponseBody::BeginQuorumEpoch(response) = bench.ask_controller(1, begin.into()) else {
        panic!("another answer")
    };
    let partition = &response.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.leader_id), (code(ErrorCode::FencedLeaderEpoch), 1));

    let partition = end_quorum_epoch_request::PartitionData { leader_id: 2, leader_epoch: 0, ..Default::default() };
    let topic = end_quorum_epoch_request::TopicData {
        topic_name: METADATA.into(),
        partitions: vec![partition],
        ..Default::default()
    };
    let end = EndQuorumEpochRequest { topics: vec![topic], ..Default::default() };
    let ResponseBody::EndQuorumEpoch(response) = bench.ask_controller(1, end.into()) else { panic!("another answer") };
    let partition = &response.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.leader_id), (code(ErrorCode::FencedLeaderEpoch), 1));
}

#[test]
fn voters_are_changed_at_each_listener() {
    let mut bench = Bench::new(TWO);
    let voter_directory_id = Uuid::from_bytes([9; 16]);
    let listener =
        add_raft_voter_request::Listener { name: "CONTROLLER".into(), host: "h".into(), port: 3, ..Default::default() };
    let add = |voter_id| {
        let listeners = vec![listener.clone()];
        AddRaftVoterRequest { cluster_id: None, voter_id, voter_directory_id, listeners, ..Default::default() }
    };
    let remove =
        |voter_id| RemoveRaftVoterRequest { cluster_id: None, voter_id, voter_directory_id, ..Default::default() };
    let refusals: [(i16, RequestBody, ErrorCode); 4] = [
        (1, add(1).into(), ErrorCode::DuplicateVoter),
        (1, add(-1).into(), ErrorCode::InvalidRequest),
        (0, remove(2).into(), ErrorCode::VoterNotFound),
        (0, remove(-1).into(), ErrorCode::InvalidRequest),
    ];
    for (version, request, expected) in refusals {
        for listener in [0, 1] {
            let sent = bench.send_at(listener, ConnId(50 + u64::from(listener)), version, request.clone());
            let error = match bench.answer(sent) {
                Some(ResponseBody::AddRaftVoter(response)) => response.error_code,
                Some(ResponseBody::RemoveRaftVoter(response)) => response.error_code,
                other => panic!("{other:?}"),
            };
            assert_eq!(error, code(expected), "{request:?}");
        }
    }
}

#[test]
fn a_node_that_is_no_voter_cannot_update_itself_and_is_told_who_leads() {
    let mut bench = Bench::new(TWO);
    let listener = Listener { name: "CONTROLLER".into(), host: "h".into(), port: 3, ..Default::default() };
    let request = UpdateRaftVoterRequest {
        cluster_id: None,
        current_leader_epoch: 1,
        voter_id: 2,
        voter_directory_id: Uuid::from_bytes([9; 16]),
        listeners: vec![listener],
        kraft_version_feature: KRaftVersionFeature { max_supported_version: 1, ..Default::default() },
        ..Default::default()
    };
    let ResponseBody::UpdateRaftVoter(response) = bench.ask_controller(0, request.into()) else {
        panic!("another answer")
    };
    assert_eq!(response.error_code, code(ErrorCode::VoterNotFound));
    let leader = response.current_leader;
    assert_eq!((leader.leader_id, leader.leader_epoch, &*leader.host, leader.port), (1, 1, "h", 2));
}

#[test]
fn a_snapshot_that_is_not_there_is_not_found() {
    let mut bench = Bench::new(TWO);
    let partition = PartitionSnapshot {
        current_leader_epoch: 1,
        snapshot_id: SnapshotId { end_offset: 5, epoch: 1, ..Default::default() },
        ..Default::default()
    };
    let topic = TopicSnapshot { name: METADATA.into(), partitions: vec![partition], ..Default::default() };
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
