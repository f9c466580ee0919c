//! Tests of the admin with scripted brokers.

use super::*;
use crate::OffsetSpec;
use crate::script::{Asked, Bench};
use tidelog_wire::RequestBody;
use tidelog_wire::messages::create_topics_response::CreatableTopicResult;
use tidelog_wire::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use tidelog_wire::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use tidelog_wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use tidelog_wire::messages::describe_quorum_response::{PartitionData, ReplicaState, TopicData};
use tidelog_wire::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use tidelog_wire::messages::{
    CreateTopicsResponse, DeleteRecordsResponse, DescribeConfigsResponse, DescribeLogDirsResponse,
    DescribeQuorumResponse, ListOffsetsResponse,
};

fn bench(pairs: &[(&str, &str)]) -> Bench<Admin> {
    let own = [("bootstrap.servers", "broker2:9092")];
    let properties = own.iter().chain(pairs).map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let (config, _) = AdminConfig::from_properties(&properties).unwrap();
    Bench::new(Admin::new(config, 1)).topic("t", &[(1, 0), (3, 0)])
}

fn create(names: &[&str]) -> Operation {
    let topic = |name: &&str| NewTopic {
        name: (*name).into(),
        partitions: Some(3),
        replication_factor: None,
        replicas: vec![],
        configs: vec![("retention.ms".into(), Some("5".into()))],
    };
    Operation::CreateTopics { topics: names.iter().map(topic).collect(), validate_only: false }
}

#[track_caller]
fn created(asked: &Asked) -> Vec<String> {
    let RequestBody::CreateTopics(request) = &asked.body else { panic!("not CreateTopics: {asked:?}") };
    request.topics.iter().map(|topic| topic.name.to_string()).collect()
}

fn respond(bench: &mut Bench<Admin>, asked: &Asked, results: &[(&str, ErrorCode)]) {
    let topic = |(name, error): &(&str, ErrorCode)| CreatableTopicResult {
        name: (*name).into(),
        error_code: error.code(),
        ..CreatableTopicResult::default()
    };
    let topics = results.iter().map(topic).collect();
    bench.answer(asked, CreateTopicsResponse { topics, ..CreateTopicsResponse::default() });
}

fn results(bench: &mut Bench<Admin>) -> Vec<String> {
    let events = bench.take_events();
    let results = events.into_iter().flat_map(|event| event.results);
    let text = |(subject, result): (Subject, Result<Answer, ClientError>)| match result {
        Ok(answer) => format!("{subject}: {answer:?}"),
        Err(error) => format!("{subject}: {error}"),
    };
    results.map(text).collect()
}

#[test]
fn topics_are_created_by_the_controller_each_with_its_own_result() {
    let mut bench = bench(&[]);
    bench.call(Call { id: 7, operation: create(&["a", "b"]) });
    let asked = bench.next();
    assert_eq!(bench.address(asked.link), "broker1:9092");
    assert_eq!(created(&asked), ["a", "b"]);
    respond(&mut bench, &asked, &[("b", ErrorCode::TopicAlreadyExists), ("a", ErrorCode::None)]);
    insta::assert_snapshot!(results(&mut bench).join("\n"), @"
    topic a: Created { id: AAAAAAAAAAAAAAAAAAAAAA }
    topic b: CreateTopics of topic b was answered with TOPIC_ALREADY_EXISTS
    ");
}

#[test]
fn only_the_subjects_that_failed_with_a_temporary_error_are_asked_for_again() {
    let mut bench = bench(&[]);
    bench.call(Call { id: 7, operation: create(&["a", "b"]) });
    let asked = bench.next();
    respond(&mut bench, &asked, &[("a", ErrorCode::None), ("b", ErrorCode::NotController)]);
    assert!(bench.take_events().is_empty());
    bench.advance(200);
    let again = bench.next();
    assert_eq!(created(&again), ["b"]);
    bench.cut(&again);
    bench.advance(2_000);
    let again = bench.next();
    respond(&mut bench, &again, &[("b", ErrorCode::None)]);
    assert_eq!(results(&mut bench).len(), 2);
}

#[test]
fn an_operation_that_times_out_fails_with_the_last_error() {
    let mut bench = bench(&[("default.api.timeout.ms", "1000")]);
    bench.call(Call { id: 7, operation: create(&["a"]) });
    let asked = bench.next();
    respond(&mut bench, &asked, &[("a", ErrorCode::ThrottlingQuotaExceeded)]);
    bench.advance(1_000);
    insta::assert_snapshot!(results(&mut bench).join("\n"), @"topic a: CreateTopics of topic a was not done within default.api.timeout.ms = 1000 ms; the last attempt: CreateTopics of topic a was answered with THROTTLING_QUOTA_EXCEEDED");
}

#[test]
fn records_are_deleted_by_the_leader_of_each_partition() {
    let mut bench = bench(&[]);
    let before = vec![(TopicPartition::new("t", 0), 5), (TopicPartition::new("t", 1), -1)];
    bench.call(Call { id: 7, operation: Operation::DeleteRecords { before } });
    for (index, leader) in [(0, "broker1:9092"), (1, "broker3:9092")] {
        let asked = bench.next();
        assert_eq!(bench.address(asked.link), leader);
        let result = DeleteRecordsPartitionResult { partition_index: index, low_watermark: 40, ..Default::default() };
        let topic = DeleteRecordsTopicResult { name: "t".into(), partitions: vec![result], ..Default::default() };
        bench.answer(&asked, DeleteRecordsResponse { topics: vec![topic], ..Default::default() });
    }
    assert_eq!(results(&mut bench), ["t-0: LowWatermark(40)", "t-1: LowWatermark(40)"]);
}

#[test]
fn a_brokers_configs_are_asked_of_that_broker() {
    let mut bench = bench(&[]);
    let resources = vec![Resource::Broker(NodeId(3)), Resource::Broker(NodeId(1))];
    bench.call(Call { id: 7, operation: Operation::DescribeConfigs { resources } });
    let (first, second) = (bench.next(), bench.next());
    let mut asked = [(bench.address(first.link), &first), (bench.address(second.link), &second)];
    asked.sort_by(|left, right| left.0.cmp(&right.0));
    for ((address, asked), node) in asked.into_iter().zip(["1", "3"]) {
        assert_eq!(address, format!("broker{node}:9092"));
        let config = DescribeConfigsResourceResult {
            name: "x".into(),
            config_source: 5,
            ..DescribeConfigsResourceResult::default()
        };
        let result = DescribeConfigsResult {
            resource_type: 4,
            resource_name: node.into(),
            configs: vec![config],
            ..DescribeConfigsResult::default()
        };
        bench.answer(asked, DescribeConfigsResponse { results: vec![result], ..Default::default() });
    }
    let results = results(&mut bench);
    assert!(results[0].starts_with("broker 3: Configs([ConfigEntry { name: \"x\""), "{results:?}");
    assert!(results[1].contains("is_default: true"), "{results:?}");
}

#[test]
fn describing_topics_asks_any_broker_and_creates_no_topics() {
    let mut bench = bench(&[]);
    bench.call(Call { id: 7, operation: Operation::DescribeTopics { topics: vec!["t".into(), "nowhere".into()] } });
    let results = results(&mut bench);
    assert!(results[0].contains("leader: Some(NodeId(3))"), "{results:?}");
    assert_eq!(results[1], "topic nowhere: Metadata of topic nowhere was answered with UNKNOWN_TOPIC_OR_PARTITION");
}

#[test]
fn offsets_are_listed_at_the_leaders() {
    let mut bench = bench(&[]);
    let partitions = vec![(TopicPartition::new("t", 1), OffsetSpec::MaxTimestamp)];
    bench.call(Call { id: 7, operation: Operation::ListOffsets { partitions } });
    let asked = bench.next();
    assert_eq!(bench.address(asked.link), "broker3:9092");
    let answer = ListOffsetsPartitionResponse { partition_index: 1, offset: 9, timestamp: 77, ..Default::default() };
    let topic = ListOffsetsTopicResponse { name: "t".into(), partitions: vec![answer], ..Default::default() };
    bench.answer(&asked, ListOffsetsResponse { topics: vec![topic], ..Default::default() });
    let results = results(&mut bench);
    assert!(results[0].contains("offset: Some(9), timestamp: Some(77)"), "{results:?}");
}

fn log_dir(path: &str, error: ErrorCode, partitions: &[(&str, i32, i64)]) -> DescribeLogDirsResult {
    let topic = |(name, partition_index, partition_size): &(&str, i32, i64)| DescribeLogDirsTopic {
        name: (*name).into(),
        partitions: vec![DescribeLogDirsPartition {
            partition_index: *partition_index,
            partition_size: *partition_size,
            ..DescribeLogDirsPartition::default()
        }],
        ..DescribeLogDirsTopic::default()
    };
    DescribeLogDirsResult {
        error_code: error.code(),
        log_dir: path.into(),
        topics: partitions.iter().map(topic).collect(),
        total_bytes: if error == ErrorCode::None { 1_000 } else { -1 },
        usable_bytes: if error == ErrorCode::None { 600 } else { -1 },
        ..DescribeLogDirsResult::default()
    }
}

#[test]
fn each_broker_tells_of_its_own_log_directories_and_one_that_is_offline_is_no_failure() {
    let mut bench = bench(&[]);
    bench.call(Call { id: 7, operation: Operation::DescribeLogDirs { brokers: vec![NodeId(3), NodeId(1)] } });
    for asked in [bench.next(), bench.next()] {
        let RequestBody::DescribeLogDirs(request) = &asked.body else { panic!("not DescribeLogDirs: {asked:?}") };
        assert_eq!(request.topics, None, "all of them");
        let results = match &*bench.address(asked.link) {
            "broker1:9092" => vec![
                log_dir("/a", ErrorCode::None, &[("u", 0, 5), ("t", 1, 70), ("t", 0, 9)]),
                log_dir("/b", ErrorCode::KafkaStorageError, &[]),
            ],
            _ => vec![log_dir("/c", ErrorCode::None, &[])],
        };
        bench.answer(&asked, DescribeLogDirsResponse { results, ..Default::default() });
    }
    let mut events = bench.take_events();
    let results = events.remove(0).results;
    let [
        (Subject::Broker(NodeId(3)), Ok(Answer::LogDirs(of_3))),
        (Subject::Broker(NodeId(1)), Ok(Answer::LogDirs(of_1))),
    ] = &results[..]
    else {
        panic!("{results:?}");
    };
    assert_eq!((of_3.len(), &*of_3[0].path), (1, "/c"));
    let replicas: Vec<_> = of_1[0].replicas.iter().map(|it| (&*it.topic, it.partition, it.size_bytes)).collect();
    assert_eq!(replicas, [("t", 0, 9), ("t", 1, 70), ("u", 0, 5)]);
    assert_eq!((of_1[0].total_bytes, of_1[0].usable_bytes), (Some(1_000), Some(600)));
    assert_eq!((of_1[1].error, of_1[1].total_bytes), (ErrorCode::KafkaStorageError, None));
}

#[test]
fn the_quorum_is_described_with_its_voters_and_observers() {
    let mut bench = bench(&[]);
    bench.call(Call { id: 7, operation: Operation::DescribeQuorum });
    let asked = bench.next();
    let replica = |replica_id, log_end_offset, last_caught_up_timestamp| ReplicaState {
        replica_id,
        log_end_offset,
        last_caught_up_timestamp,
        ..ReplicaState::default()
    };
    let partition = PartitionData {
        leader_id: 1,
        leader_epoch: 4,
        high_watermark: 90,
        current_voters: vec![replica(3, 80, 7), replica(1, 91, -1)],
        observers: vec![replica(5, 60, -1)],
        ..PartitionData::default()
    };
    let topic =
        TopicData { topic_name: "__cluster_metadata".into(), partitions: vec![partition], ..TopicData::default() };
    bench.answer(&asked, DescribeQuorumResponse { topics: vec![topic], ..Default::default() });
    let results = bench.take_events().remove(0).results;
    let [(Subject::Quorum, Ok(Answer::Quorum(quorum)))] = &results[..] else { panic!("{results:?}") };
    assert_eq!((quorum.leader, quorum.leader_epoch, quorum.high_watermark), (Some(NodeId(1)), 4, 90));
    let voters: Vec<_> = quorum.voters.iter().map(|it| (it.node.0, it.log_end_offset, it.last_caught_up_ms)).collect();
    assert_eq!(voters, [(1, 91, None), (3, 80, Some(7))]);
    assert_eq!(quorum.observers[0].node, NodeId(5));
}
