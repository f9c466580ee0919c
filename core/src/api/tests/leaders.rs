//! What clients are told of a partition that this broker has no log of, and who leads a partition that they ask for in
//! vain.

use super::*;
use crate::storage::TopicPartition;
use crate::wire::messages::describe_producers_request::TopicRequest;
use crate::wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use crate::wire::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use crate::wire::messages::{
    DescribeProducersRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest, ProduceResponse,
};
use smallvec::smallvec;

/// A fetch of one partition by its topic's id, as of version 13.
fn by_id(topic_id: Uuid, partition: i32, current_leader_epoch: i32) -> FetchRequest {
    let mut request = fetch(&[("", partition, 0)]);
    request.topics[0].topic_id = topic_id;
    request.topics[0].partitions[0].current_leader_epoch = current_leader_epoch;
    request
}

impl Bench {
    #[track_caller]
    fn fetch_by_id(&mut self, version: i16, request: FetchRequest) -> FetchResponse {
        let sent = self.send_on(FETCHER, version, RequestBody::Fetch(request));
        self.fetched(sent)
    }

    #[track_caller]
    fn produce_to(&mut self, version: i16, topic: &str, id: Uuid, partitions: &[i32]) -> ProduceResponse {
        let batches: Vec<(i32, Bytes)> = partitions.iter().map(|index| (*index, batch(&["a"]))).collect();
        let mut request = to_partitions(topic, -1, &batches);
        request.topic_data[0].topic_id = id;
        match self.ask(version, RequestBody::Produce(request)) {
            ResponseBody::Produce(response) => response,
            other => panic!("{other:?}"),
        }
    }

    /// The errors with which each kind of request is refused for one partition.
    #[track_caller]
    fn refusals(&mut self, topic: &str, id: Uuid, index: i32) -> Vec<(&'static str, i16)> {
        let produced = self.produce_to(9, topic, Uuid::ZERO, &[index]);
        let fetched = self.fetch_by_id(13, by_id(id, index, -1));
        let asked = ListOffsetsPartition { partition_index: index, timestamp: -1, ..Default::default() };
        let topics = vec![ListOffsetsTopic { name: topic.into(), partitions: vec![asked], ..Default::default() }];
        let listed = match self.ask(7, ListOffsetsRequest { topics, ..Default::default() }.into()) {
            ResponseBody::ListOffsets(response) => response.topics[0].partitions[0].error_code,
            other => panic!("{other:?}"),
        };
        let asked = OffsetForLeaderPartition { partition: index, ..Default::default() };
        let topics = vec![OffsetForLeaderTopic { topic: topic.into(), partitions: vec![asked], ..Default::default() }];
        let ended = match self.ask(4, OffsetForLeaderEpochRequest { topics, ..Default::default() }.into()) {
            ResponseBody::OffsetForLeaderEpoch(response) => response.topics[0].partitions[0].error_code,
            other => panic!("{other:?}"),
        };
        let topics =
            vec![TopicRequest { name: topic.into(), partition_indexes: smallvec![index], ..Default::default() }];
        let described = match self.ask(0, DescribeProducersRequest { topics, ..Default::default() }.into()) {
            ResponseBody::DescribeProducers(response) => response.topics[0].partitions[0].error_code,
            other => panic!("{other:?}"),
        };
        let asked = DeleteRecordsPartition { partition_index: index, offset: -1, ..Default::default() };
        let topics = vec![DeleteRecordsTopic { name: topic.into(), partitions: vec![asked], ..Default::default() }];
        let deleted = match self.ask(2, DeleteRecordsRequest { topics, ..Default::default() }.into()) {
            ResponseBody::DeleteRecords(response) => response.topics[0].partitions[0].error_code,
            other => panic!("{other:?}"),
        };
        vec![
            ("Produce", produced.responses[0].partition_responses[0].error_code),
            ("Fetch", fetched.responses[0].partitions[0].error_code),
            ("ListOffsets", listed),
            ("OffsetForLeaderEpoch", ended),
            ("DescribeProducers", described),
            ("DeleteRecords", deleted),
        ]
    }
}

#[track_caller]
fn all(refusals: &[(&str, i16)], error: ErrorCode) {
    for (request, refusal) in refusals {
        assert_eq!(*refusal, code(error), "{request}");
    }
}

/// A new topic whose log does not exist yet: the directory of an earlier topic with the name is being renamed.
fn topic_whose_name_is_not_free(bench: &mut Bench) -> Uuid {
    bench.create("t", 1, &[]);
    bench.hold(|op| matches!(op, IoOp::Rename { from, .. } if TopicPartition::parse(&from.path).is_some()));
    bench.send(6, delete_topic("t"));
    bench.create("t", 1, &[])
}

#[test]
fn a_partition_whose_log_is_not_there_yet_is_not_led_here_and_no_unknown_one() {
    let mut bench = Bench::new(&[]);
    let id = topic_whose_name_is_not_free(&mut bench);
    all(&bench.refusals("t", id, 0), ErrorCode::NotLeaderOrFollower);
    all(&bench.refusals("t", id, 1), ErrorCode::UnknownTopicOrPartition);
    bench.release();
    assert_eq!(bench.append("t", &["a"]), 0);
}

#[test]
fn a_partition_in_a_directory_that_is_offline_since_the_start_is_there_and_cannot_be_read() {
    let mut bench = Bench::with_two_log_dirs();
    let id = bench.create("t", 1, &[]);
    bench.append("t", &["a"]);
    bench.stop();
    bench.disk_of_topics().fail_load = Some("meta.properties".into());
    bench.start();
    all(&bench.refusals("t", id, 0), ErrorCode::KafkaStorageError);
    all(&bench.refusals("t", id, 1), ErrorCode::UnknownTopicOrPartition);
    let old = bench.send_on(FETCHER, 5, RequestBody::Fetch(from("t", 0)));
    assert_eq!(only(bench.fetched(old)).error_code, code(ErrorCode::NotLeaderOrFollower));
}

#[test]
fn a_producer_is_told_who_leads_a_partition_that_is_not_led_here() {
    let mut bench = Bench::new(&[("broker.rack", "r")]);
    let id = topic_whose_name_is_not_free(&mut bench);
    for (version, topic_id) in [(9, Uuid::ZERO), (10, Uuid::ZERO), (13, id)] {
        let response = bench.produce_to(version, "t", topic_id, &[0, 1]);
        let answers = &response.responses[0].partition_responses;
        let told: Vec<_> = answers
            .iter()
            .map(|of| (of.error_code, of.current_leader.leader_id, of.current_leader.leader_epoch))
            .collect();
        let leader = if version >= 10 { (1, 0) } else { (-1, -1) };
        let elsewhere = (code(ErrorCode::NotLeaderOrFollower), leader.0, leader.1);
        assert_eq!(told, [elsewhere, (code(ErrorCode::UnknownTopicOrPartition), -1, -1)], "version {version}");
        let endpoints: Vec<_> =
            response.node_endpoints.iter().map(|of| (of.node_id, of.port, of.rack.as_deref())).collect();
        let port = i32::from(bench.config.advertised_listeners[0].port);
        let expected = [(1, port, Some("r"))];
        assert_eq!(endpoints, if version >= 10 { &expected[..] } else { &[] }, "version {version}");
    }
}

#[test]
fn a_reader_that_knows_an_earlier_epoch_is_told_the_leader_and_the_epoch_of_now() {
    let mut bench = Bench::new(&[]);
    let id = bench.create("t", 3, &[]);
    bench.stop();
    bench.start();
    for version in [15, 16] {
        let mut request = by_id(id, 0, 0);
        let old = request.topics[0].partitions[0].clone();
        request.topics[0].partitions.extend([
            FetchPartition { partition: 1, ..old.clone() },
            FetchPartition { partition: 2, current_leader_epoch: 3, ..old },
        ]);
        let response = bench.fetch_by_id(version, request);
        let told: Vec<_> = response.responses[0]
            .partitions
            .iter()
            .map(|of| (of.error_code, of.current_leader.leader_id, of.current_leader.leader_epoch))
            .collect();
        let (leader, epoch) = if version >= 16 { (1, 2) } else { (-1, -1) };
        let fenced = (code(ErrorCode::FencedLeaderEpoch), leader, epoch);
        assert_eq!(told, [fenced, fenced, (code(ErrorCode::UnknownLeaderEpoch), -1, -1)], "version {version}");
        let nodes: Vec<i32> = response.node_endpoints.iter().map(|of| of.node_id).collect();
        assert_eq!(nodes, if version >= 16 { &[1][..] } else { &[] }, "each leader once");
    }
}

#[test]
fn a_reader_is_told_who_leads_a_partition_that_is_not_led_here() {
    let mut bench = Bench::new(&[]);
    let id = topic_whose_name_is_not_free(&mut bench);
    let response = bench.fetch_by_id(16, by_id(id, 0, -1));
    let leader = &response.responses[0].partitions[0].current_leader;
    assert_eq!((leader.leader_id, leader.leader_epoch, response.node_endpoints.len()), (1, 0, 1));
}

#[test]
fn producers_of_an_invalid_or_unknown_topic_are_refused_with_a_text() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    let topics = ["a b", "nope", "t"].map(|name| TopicRequest {
        name: name.into(),
        partition_indexes: smallvec![0, 7],
        ..Default::default()
    });
    let request = DescribeProducersRequest { topics: topics.into(), ..Default::default() };
    let response = match bench.ask(0, request.into()) {
        ResponseBody::DescribeProducers(response) => response,
        other => panic!("{other:?}"),
    };
    let told = response.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| {
        (partition.partition_index, partition.error_code, partition.error_message.as_deref().is_some())
    });
    let (invalid, unknown) = (ErrorCode::InvalidTopicException.code(), ErrorCode::UnknownTopicOrPartition.code());
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            (0, invalid, true),
            (7, invalid, true),
            (0, unknown, true),
            (7, unknown, true),
            (0, 0, false),
            (7, unknown, false)
        ]
    );
}
