//! What clients are told of topics, by Metadata and DescribeTopicPartitions, and which topics Metadata creates.

use super::*;
use crate::storage::TopicPartition;
use crate::wire::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use crate::wire::messages::metadata_request::MetadataRequestTopic;
use crate::wire::messages::metadata_response::MetadataResponseTopic;
use crate::wire::messages::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, MetadataRequest, MetadataResponse,
};

fn of_names(names: &[&str]) -> MetadataRequest {
    let named = |name: &&str| MetadataRequestTopic { name: Some((*name).into()), ..Default::default() };
    MetadataRequest { topics: Some(names.iter().map(named).collect()), ..Default::default() }
}

fn of_ids(ids: &[Uuid]) -> MetadataRequest {
    let with = |id: &Uuid| MetadataRequestTopic { topic_id: *id, ..Default::default() };
    MetadataRequest { topics: Some(ids.iter().map(with).collect()), ..Default::default() }
}

#[track_caller]
fn metadata(bench: &mut Bench, version: i16, request: MetadataRequest) -> MetadataResponse {
    match bench.ask(version, RequestBody::Metadata(request)) {
        ResponseBody::Metadata(response) => response,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn describe(bench: &mut Bench, topics: &[&str], cursor: Option<(&str, i32)>) -> DescribeTopicPartitionsResponse {
    let request = DescribeTopicPartitionsRequest {
        topics: topics.iter().map(|name| TopicRequest { name: (*name).into(), ..Default::default() }).collect(),
        cursor: cursor.map(|(name, partition_index)| Cursor {
            topic_name: name.into(),
            partition_index,
            ..Default::default()
        }),
        ..Default::default()
    };
    match bench.ask(0, RequestBody::DescribeTopicPartitions(request)) {
        ResponseBody::DescribeTopicPartitions(response) => response,
        other => panic!("{other:?}"),
    }
}

fn errors(topics: &[MetadataResponseTopic]) -> Vec<(&str, i16)> {
    topics.iter().map(|topic| (topic.name.as_deref().unwrap_or_default(), topic.error_code)).collect()
}

fn own_configs(bench: &mut Bench, topic: &str) -> Vec<(String, String)> {
    let configs = bench.broker.parts().image.topic_config(topic);
    configs.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[test]
fn clients_are_told_the_address_that_is_advertised_under_the_name_of_their_listener() {
    let listeners = ("listeners", "PLAINTEXT://h:1,CONTROLLER://h:2");
    let mut bench = Bench::new(&[listeners, ("advertised.listeners", "CONTROLLER://h:2,PLAINTEXT://outside:9")]);
    let told = metadata(&mut bench, 12, of_names(&[])).brokers;
    assert_eq!(told.iter().map(|broker| (&*broker.host, broker.port)).collect::<Vec<_>>(), [("outside", 9)]);
    let mapped = ("listener.security.protocol.map", "NEAR:PLAINTEXT,PLAINTEXT:PLAINTEXT");
    let listeners = ("listeners", "NEAR://h:1,PLAINTEXT://h:2");
    let mut bench = Bench::new(&[listeners, mapped, ("advertised.listeners", "PLAINTEXT://outside:9")]);
    assert_eq!(metadata(&mut bench, 12, of_names(&[])).brokers, [], "no address is known for this listener");
}

#[test]
fn an_internal_topic_that_is_created_by_its_name_is_what_its_coordinator_needs() {
    let mut bench = Bench::new(&[
        ("offsets.topic.replication.factor", "1"),
        ("offsets.topic.segment.bytes", "2000000"),
        ("transaction.state.log.replication.factor", "1"),
        ("transaction.state.log.num.partitions", "3"),
        ("transaction.state.log.min.isr", "1"),
        ("share.coordinator.state.topic.replication.factor", "1"),
        ("share.coordinator.state.topic.num.partitions", "2"),
    ]);
    let names = ["__consumer_offsets", "__transaction_state", "__share_group_state", "t"];
    let response = metadata(&mut bench, 12, of_names(&names));
    let partitions: Vec<usize> = response.topics.iter().map(|topic| topic.partitions.len()).collect();
    assert_eq!(partitions, [50, 3, 2, 1]);
    let configs = |bench: &mut Bench, topic| {
        let texts = own_configs(bench, topic).into_iter().map(|(name, value)| format!("{name}={value}"));
        texts.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        configs(&mut bench, "__consumer_offsets"),
        "cleanup.policy=compact compression.type=producer segment.bytes=2000000"
    );
    assert_eq!(
        configs(&mut bench, "__transaction_state"),
        "cleanup.policy=compact compression.type=uncompressed min.insync.replicas=1 segment.bytes=104857600 \
         unclean.leader.election.enable=false"
    );
    assert_eq!(
        configs(&mut bench, "__share_group_state"),
        "cleanup.policy=delete compression.type=producer min.insync.replicas=2 retention.ms=-1 segment.bytes=104857600"
    );
    assert_eq!(configs(&mut bench, "t"), "");
}

#[test]
fn a_legal_name_that_cannot_be_created_is_an_unknown_topic() {
    let mut bench = Bench::new(&[]);
    bench.create("a_b", 1, &[]);
    // `a.b` collides with `a_b`, nobody may create the metadata log, and the offsets want three brokers.
    let names = ["a.b", "__cluster_metadata", "__consumer_offsets", "no good"];
    let response = metadata(&mut bench, 12, of_names(&names));
    let unknown = code(ErrorCode::UnknownTopicOrPartition);
    assert_eq!(
        errors(&response.topics),
        [
            ("a.b", unknown),
            ("__cluster_metadata", unknown),
            ("__consumer_offsets", unknown),
            ("no good", code(ErrorCode::InvalidTopicException))
        ]
    );
}

#[test]
fn a_topic_that_another_request_creates_is_waited_for() {
    let mut bench = Bench::new(&[]);
    bench.hold(is_sync);
    let first = bench.send_on(ConnId(1), 12, RequestBody::Metadata(of_names(&["t"])));
    let second = bench.send_on(ConnId(2), 12, RequestBody::Metadata(of_names(&["t"])));
    bench.release();
    for sent in [first, second] {
        match bench.answer(sent) {
            Some(ResponseBody::Metadata(response)) => assert_eq!(errors(&response.topics), [("t", 0)]),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_topic_that_is_named_twice_is_created_and_told_once() {
    let mut bench = Bench::new(&[]);
    let response = metadata(&mut bench, 12, of_names(&["t", "t"]));
    assert_eq!(errors(&response.topics), [("t", 0)]);
    let id = response.topics[0].topic_id;
    assert_eq!(errors(&metadata(&mut bench, 12, of_ids(&[id, id])).topics), [("t", 0)]);
}

#[test]
fn a_request_with_ids_is_answered_for_the_ids_alone() {
    let mut bench = Bench::new(&[]);
    let id = bench.create("t", 1, &[]);
    let mut request = of_ids(&[id, Uuid::from_bytes([9; 16])]);
    request.include_topic_authorized_operations = true;
    request.topics.as_mut().unwrap().extend(of_names(&["new"]).topics.unwrap());
    let response = metadata(&mut bench, 12, request);
    assert_eq!(errors(&response.topics), [("t", 0), ("", code(ErrorCode::UnknownTopicId))]);
    assert_ne!(response.topics[0].topic_authorized_operations, i32::MIN);
    assert_eq!(response.topics[1].topic_authorized_operations, i32::MIN);
    assert!(bench.broker.parts().image.topic_named("new").is_none());
}

#[test]
fn ids_and_null_names_below_version_12_are_refused_in_the_answer() {
    let mut bench = Bench::new(&[]);
    let invalid = code(ErrorCode::InvalidRequest);
    let id = Uuid::from_bytes([9; 16]);
    for version in [10, 11] {
        let response = metadata(&mut bench, version, of_ids(&[id, Uuid::ZERO]));
        assert_eq!(errors(&response.topics), [("", invalid), ("", invalid)]);
        assert_eq!(response.topics[0].topic_id, id);
        assert!(response.brokers.is_empty());
    }
    assert!(bench.closed.is_empty());
}

#[test]
fn an_invalid_cursor_is_refused_in_the_answer() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    let invalid = code(ErrorCode::InvalidRequest);
    for (topics, cursor) in [(&["s", "t"][..], ("u", 0)), (&["s", "t"][..], ("t", -1)), (&[][..], ("t", -1))] {
        let response = describe(&mut bench, topics, Some(cursor));
        let told: Vec<_> = response.topics.iter().map(|topic| (topic.name.as_deref(), topic.error_code)).collect();
        let expected: Vec<_> = topics.iter().map(|name| (Some(*name), invalid)).collect();
        assert_eq!(told, expected);
        assert_eq!(response.next_cursor, None);
    }
    assert!(bench.closed.is_empty());
}

#[test]
fn a_partition_has_no_leader_before_its_name_is_free() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    bench.hold(|op| matches!(op, IoOp::Rename { from, .. } if TopicPartition::parse(&from.path).is_some()));
    bench.send(6, delete_topic("t"));
    let id = bench.create("t", 1, &[]);
    let unavailable = code(ErrorCode::LeaderNotAvailable);
    let told = |bench: &mut Bench| {
        let response = metadata(bench, 12, of_ids(&[id]));
        let partition = &response.topics[0].partitions[0];
        let described = describe(bench, &["t"], None);
        let same = &described.topics[0].partitions[0];
        // Here the leader alone says it, as in Kafka.
        assert_eq!((same.error_code, same.leader_id), (0, partition.leader_id));
        (partition.error_code, partition.leader_id)
    };
    assert_eq!(told(&mut bench), (unavailable, -1));
    bench.release();
    assert_eq!(told(&mut bench), (0, 1));
    assert_eq!(bench.append("t", &["a"]), 0);
}

#[test]
fn a_replica_in_a_directory_that_is_offline_is_offline() {
    let mut bench = Bench::with_two_log_dirs();
    bench.create("t", 2, &[]);
    let lies_in = |bench: &Bench, dir: usize, index: i32| {
        bench.disks[dir].content(&format!("t-{index}/00000000000000000000.log")).is_some()
    };
    let offline = |bench: &mut Bench| {
        let response = metadata(bench, 12, of_names(&["t"]));
        let told: Vec<usize> = response.topics[0].partitions.iter().map(|of| of.offline_replicas.len()).collect();
        let described = describe(bench, &["t"], None);
        let same = described.topics[0].partitions.iter().map(|of| of.offline_replicas.len());
        assert_eq!(same.collect::<Vec<_>>(), told);
        told
    };
    assert_eq!(offline(&mut bench), [0, 0]);
    let expected: Vec<usize> = (0..2).map(|index| usize::from(lies_in(&bench, 1, index))).collect();
    assert!(expected.contains(&1), "{expected:?}");
    bench.disk_of_topics().fail_writes = true;
    bench.send_batch("t", -1, batch(&["a"]));
    assert_eq!(offline(&mut bench), expected);
}
