//! Tests of the consumer with scripted brokers.

use super::*;
use crate::script::{Asked, Bench};
use bytes::Bytes;
use tidelog_batch::BatchBuilder;
use tidelog_wire::ids::{LeaderEpoch, Offset};
use tidelog_wire::messages::fetch_response::FetchableTopicResponse;
use tidelog_wire::messages::fetch_response::PartitionData;
use tidelog_wire::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use tidelog_wire::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use tidelog_wire::messages::{FetchRequest, FetchResponse, ListOffsetsResponse, OffsetForLeaderEpochResponse};
use tidelog_wire::{ErrorCode, Records, RequestBody};

fn bench(pairs: &[(&str, &str)]) -> Bench<Consumer> {
    let own = [("bootstrap.servers", "broker1:9092")];
    let properties = own.iter().chain(pairs).map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let (config, _) = ConsumerConfig::from_properties(&properties).unwrap();
    Bench::new(Consumer::new(config, 1)).topic("t", &[(1, 0), (1, 0), (2, 0)])
}

fn t(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn at(offset: i64) -> Start {
    Start::Offset { offset, epoch: None }
}

/// A consumer of partition 0 from offset 0 on.
fn reading(pairs: &[(&str, &str)]) -> Bench<Consumer> {
    let mut bench = bench(pairs);
    bench.call(Call::Assign(vec![(t(0), at(0))]));
    bench
}

#[track_caller]
fn fetch(asked: &Asked) -> &FetchRequest {
    let RequestBody::Fetch(request) = &asked.body else { panic!("not a Fetch request: {asked:?}") };
    request
}

/// The session id and epoch of a Fetch request, and the index and offset of each partition in it.
#[track_caller]
fn numbers(asked: &Asked) -> (i32, i32, Vec<(i32, i64)>) {
    let request = fetch(asked);
    let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
    let partitions = partitions.map(|partition| (partition.partition, partition.fetch_offset));
    (request.session_id, request.session_epoch, partitions.collect())
}

fn batch(base: i64, count: i64, epoch: i32) -> Bytes {
    let mut builder = BatchBuilder::new().at(Offset(base), LeaderEpoch(epoch));
    for _ in 0..count {
        builder.push(1, None, Some(b"value"), &[]);
    }
    builder.build()
}

fn data(partition_index: i32, records: Bytes) -> PartitionData {
    let records: Option<Records> = Some(records.into());
    PartitionData { partition_index, high_watermark: 100, records, ..PartitionData::default() }
}

fn error(partition_index: i32, error: ErrorCode) -> PartitionData {
    PartitionData { partition_index, error_code: error.code(), ..PartitionData::default() }
}

fn respond(bench: &mut Bench<Consumer>, asked: &Asked, session_id: i32, partitions: Vec<PartitionData>) {
    let topic_id = Bench::<Consumer>::topic_id("t");
    let topic = FetchableTopicResponse { topic_id, partitions, ..Default::default() };
    bench.answer(asked, FetchResponse { session_id, responses: vec![topic], ..Default::default() });
}

/// Answers a ListOffsets request for one partition. Returns the timestamp that it asked for.
fn found(bench: &mut Bench<Consumer>, asked: &Asked, offset: i64, error: ErrorCode) -> i64 {
    let RequestBody::ListOffsets(request) = &asked.body else { panic!("not ListOffsets: {asked:?}") };
    let wanted = &request.topics[0].partitions[0];
    let answer = ListOffsetsPartitionResponse {
        partition_index: wanted.partition_index,
        error_code: error.code(),
        offset,
        timestamp: -1,
        leader_epoch: 0,
        ..Default::default()
    };
    let topic = ListOffsetsTopicResponse { name: "t".into(), partitions: vec![answer], ..Default::default() };
    bench.answer(asked, ListOffsetsResponse { topics: vec![topic], ..Default::default() });
    wanted.timestamp
}

/// The partitions and the offsets of the records in events.
fn polled(events: &[Event]) -> Vec<(i32, Vec<i64>)> {
    let polled = events.iter().flat_map(|event| match event {
        Event::Records(polled) => polled.clone(),
        _ => Vec::new(),
    });
    polled.map(|it| (it.partition.partition, it.records.iter().map(|record| record.offset.0).collect())).collect()
}

#[test]
fn records_are_fetched_ahead_and_given_when_they_are_polled() {
    let mut bench = reading(&[]);
    let asked = bench.next();
    assert_eq!(bench.address(asked.link), "broker1:9092");
    assert_eq!(numbers(&asked), (0, 0, vec![(0, 0)]));
    respond(&mut bench, &asked, 7, vec![data(0, batch(0, 3, 0))]);
    assert!(
        bench.take_events().is_empty() && bench.asked.is_empty(),
        "buffered records are polled before more are fetched"
    );
    bench.call(Call::Poll);
    let events = bench.take_events();
    assert_eq!(polled(&events), [(0, vec![0, 1, 2])]);
    assert_eq!(bench.client.position(&t(0)), Some(3));
    assert_eq!(numbers(&bench.next()), (7, 1, vec![(0, 3)]));
}

#[test]
fn each_poll_gives_max_poll_records_and_begins_with_another_partition() {
    let mut bench = bench(&[("max.poll.records", "2")]);
    bench.call(Call::Assign(vec![(t(0), at(0)), (t(1), at(5))]));
    let asked = bench.next();
    respond(&mut bench, &asked, 7, vec![data(0, batch(0, 3, 0)), data(1, batch(5, 3, 0))]);
    let mut given = Vec::new();
    for _ in 0..4 {
        bench.call(Call::Poll);
        given.extend(polled(&bench.take_events()));
    }
    assert_eq!(given, [(0, vec![0, 1]), (1, vec![5, 6]), (0, vec![2]), (1, vec![7])]);
}

#[test]
fn a_poll_without_buffered_records_is_answered_when_records_come() {
    let mut bench = reading(&[]);
    bench.call(Call::Poll);
    let asked = bench.next();
    respond(&mut bench, &asked, 7, vec![]);
    assert!(bench.take_events().is_empty());
    let asked = bench.next();
    assert_eq!(numbers(&asked), (7, 1, vec![]), "a session's request does not name unchanged partitions");
    respond(&mut bench, &asked, 7, vec![data(0, batch(0, 1, 0))]);
    assert_eq!(polled(&bench.take_events()), [(0, vec![0])]);
}

#[test]
fn a_start_without_an_offset_is_looked_up_as_auto_offset_reset_says() {
    for (policy, timestamp) in [("latest", -1), ("earliest", -2)] {
        let mut bench = bench(&[("auto.offset.reset", policy)]);
        bench.call(Call::Assign(vec![(t(0), Start::Default)]));
        let asked = bench.next();
        assert_eq!(found(&mut bench, &asked, 42, ErrorCode::None), timestamp);
        assert_eq!(bench.take_events(), [Event::Reset { partition: t(0), position: 42 }]);
        assert_eq!(numbers(&bench.next()).2, [(0, 42)]);
    }
    let mut bench = bench(&[("auto.offset.reset", "none")]);
    bench.call(Call::Assign(vec![(t(0), Start::Default)]));
    let [Event::Failed { error, .. }] = &bench.take_events()[..] else { panic!("one failure") };
    insta::assert_snapshot!(error, @"the position in t-0: auto.offset.reset=none allows no start without an offset");
}

#[test]
fn a_start_at_a_timestamp_after_the_last_record_is_at_the_end() {
    let mut bench = bench(&[]);
    bench.call(Call::Assign(vec![(t(0), Start::Timestamp(9_999))]));
    let asked = bench.next();
    assert_eq!(found(&mut bench, &asked, -1, ErrorCode::None), 9_999);
    let asked = bench.next();
    assert_eq!(found(&mut bench, &asked, 42, ErrorCode::None), -1);
    assert_eq!(bench.client.position(&t(0)), Some(42));
}

#[test]
fn a_position_outside_of_the_log_is_reset_as_configured() {
    let mut bench = reading(&[("auto.offset.reset", "earliest")]);
    let asked = bench.next();
    respond(&mut bench, &asked, 7, vec![error(0, ErrorCode::OffsetOutOfRange)]);
    let asked = bench.next();
    found(&mut bench, &asked, 30, ErrorCode::None);
    let out_of_range = Event::OutOfRange { partition: t(0), position: 0 };
    assert_eq!(bench.take_events(), [out_of_range, Event::Reset { partition: t(0), position: 30 }]);
    assert_eq!(numbers(&bench.next()), (7, 1, vec![(0, 30)]));
}

#[test]
fn without_a_reset_policy_a_position_outside_of_the_log_waits_for_a_seek() {
    let mut bench = reading(&[("auto.offset.reset", "none")]);
    let asked = bench.next();
    respond(&mut bench, &asked, 7, vec![error(0, ErrorCode::OffsetOutOfRange)]);
    bench.advance(10_000);
    assert_eq!(bench.take_events(), [Event::OutOfRange { partition: t(0), position: 0 }]);
    assert!(bench.asked.is_empty());
    bench.call(Call::Seek(t(0), at(12)));
    assert_eq!(numbers(&bench.next()).2, [(0, 12)]);
}

#[test]
fn a_session_that_may_have_missed_a_request_is_replaced_by_a_new_one() {
    let mut bench = reading(&[]);
    let asked = bench.next();
    respond(&mut bench, &asked, 7, vec![]);
    let asked = bench.next();
    bench.cut(&asked);
    bench.advance(2_000);
    assert_eq!(numbers(&bench.next()), (7, 0, vec![(0, 0)]));
}

#[test]
fn if_the_broker_does_not_know_the_session_a_new_one_begins() {
    let mut bench = reading(&[]);
    let asked = bench.next();
    respond(&mut bench, &asked, 7, vec![]);
    let asked = bench.next();
    let error_code = ErrorCode::FetchSessionIdNotFound.code();
    bench.answer(&asked, FetchResponse { error_code, ..Default::default() });
    bench.advance(200);
    assert_eq!(numbers(&bench.next()), (0, 0, vec![(0, 0)]));
}

#[test]
fn after_a_seek_the_records_of_an_earlier_request_are_dropped() {
    let mut bench = reading(&[]);
    let asked = bench.next();
    bench.call(Call::Poll);
    bench.call(Call::Seek(t(0), at(50)));
    respond(&mut bench, &asked, 7, vec![data(0, batch(0, 3, 0))]);
    assert!(bench.take_events().is_empty());
    assert_eq!(numbers(&bench.next()), (7, 1, vec![(0, 50)]));
}

#[test]
fn a_partition_that_is_paused_or_no_longer_assigned_leaves_the_session() {
    let mut bench = bench(&[]);
    bench.call(Call::Assign(vec![(t(0), at(0)), (t(1), at(5))]));
    let asked = bench.next();
    bench.call(Call::Pause(vec![t(0)]));
    respond(&mut bench, &asked, 7, vec![]);
    let asked = bench.next();
    assert_eq!(fetch(&asked).forgotten_topics_data[0].partitions.as_slice(), [0]);
    bench.call(Call::Resume(vec![t(0)]));
    bench.call(Call::Assign(vec![(t(0), at(99))]));
    respond(&mut bench, &asked, 7, vec![]);
    let asked = bench.next();
    assert_eq!(numbers(&asked).2, [(0, 0)], "a partition that stays assigned keeps its position");
    assert_eq!(fetch(&asked).forgotten_topics_data[0].partitions.as_slice(), [1]);
}

/// Reads three records of epoch 4, then changes the leader. Returns the OffsetForLeaderEpoch request to the new leader.
fn new_leader(pairs: &[(&str, &str)]) -> (Bench<Consumer>, Asked) {
    let mut bench = reading(pairs);
    let asked = bench.next();
    respond(&mut bench, &asked, 7, vec![data(0, batch(0, 3, 4))]);
    bench.call(Call::Poll);
    bench.take_events();
    let asked = bench.next();
    bench.advance(1_000);
    bench.topics.insert("t".into(), vec![(3, 5), (1, 0), (2, 0)]);
    respond(&mut bench, &asked, 7, vec![error(0, ErrorCode::NotLeaderOrFollower)]);
    bench.advance(1_000);
    let asked = bench.next();
    assert_eq!(bench.address(asked.link), "broker3:9092");
    let RequestBody::OffsetForLeaderEpoch(request) = &asked.body else { panic!("{asked:?}") };
    let wanted = &request.topics[0].partitions[0];
    assert_eq!((wanted.leader_epoch, wanted.current_leader_epoch), (4, 5));
    (bench, asked)
}

fn agree(bench: &mut Bench<Consumer>, asked: &Asked, leader_epoch: i32, end_offset: i64) {
    let answer = EpochEndOffset { leader_epoch, end_offset, ..Default::default() };
    let topic = OffsetForLeaderTopicResult { topic: "t".into(), partitions: vec![answer], ..Default::default() };
    bench.answer(asked, OffsetForLeaderEpochResponse { topics: vec![topic], ..Default::default() });
}

/// KIP-320.
#[test]
fn reading_continues_at_a_new_leader_that_has_the_records_that_were_read() {
    let (mut bench, asked) = new_leader(&[]);
    agree(&mut bench, &asked, 4, 3);
    let asked = bench.next();
    assert_eq!(bench.address(asked.link), "broker3:9092");
    assert_eq!((numbers(&asked).2, fetch(&asked).topics[0].partitions[0].current_leader_epoch), (vec![(0, 3)], 5));
    assert!(bench.take_events().is_empty());
}

/// KIP-320.
#[test]
fn a_log_that_was_truncated_before_the_position_is_reported_and_read_from_the_offset_where_it_agrees() {
    let (mut bench, asked) = new_leader(&[]);
    agree(&mut bench, &asked, 4, 1);
    let truncated = Event::Truncated { partition: t(0), position: 3, diverged: Some(1) };
    assert_eq!(bench.take_events(), [truncated]);
    assert_eq!(numbers(&bench.next()).2, [(0, 1)]);
    let (mut bench, asked) = new_leader(&[("auto.offset.reset", "none")]);
    agree(&mut bench, &asked, -1, -1);
    bench.advance(1_000);
    assert_eq!(bench.take_events(), [Event::Truncated { partition: t(0), position: 3, diverged: None }]);
    assert!(bench.asked.is_empty());
}

#[test]
fn a_partition_that_cannot_be_read_is_reported_once_and_the_others_are_read() {
    let mut bench = bench(&[]);
    bench.call(Call::Assign(vec![(t(0), at(0)), (t(1), at(5))]));
    bench.call(Call::Poll);
    let asked = bench.next();
    let denied = error(0, ErrorCode::TopicAuthorizationFailed);
    respond(&mut bench, &asked, 7, vec![denied, data(1, batch(5, 1, 0))]);
    let events = bench.take_events();
    let Event::Failed { error, .. } = &events[0] else { panic!("{events:?}") };
    insta::assert_snapshot!(error, @"Fetch of t-0 was answered with TOPIC_AUTHORIZATION_FAILED");
    assert_eq!(polled(&events), [(1, vec![5])]);
    assert_eq!(numbers(&bench.next()).2, [(1, 6)]);
}

#[test]
fn offsets_are_looked_up_at_each_leader_and_retried_until_the_timeout() {
    let mut bench = bench(&[("default.api.timeout.ms", "2000")]);
    let partitions = vec![(t(0), OffsetSpec::Latest), (t(2), OffsetSpec::Earliest)];
    bench.call(Call::FindOffsets { id: 9, partitions });
    let (first, second) = (bench.next(), bench.next());
    assert_ne!(bench.address(first.link), bench.address(second.link));
    found(&mut bench, &first, 42, ErrorCode::None);
    found(&mut bench, &second, -1, ErrorCode::KafkaStorageError);
    bench.advance(1_999);
    assert!(bench.take_events().is_empty());
    let again = bench.next();
    assert!(matches!(again.body, RequestBody::ListOffsets(_)));
    bench.advance(1);
    let [Event::Offsets { id: 9, found }] = &bench.take_events()[..] else { panic!("one answer") };
    assert_eq!(found[0].1.as_ref().unwrap().offset, Some(42));
    insta::assert_snapshot!(found[1].1.as_ref().unwrap_err(), @"the look-up of an offset of t-2 was not done within default.api.timeout.ms = 2000 ms; the last attempt: ListOffsets of t-2 was answered with KAFKA_STORAGE_ERROR");
}

#[test]
fn a_consumer_without_partitions_sends_no_requests() {
    let mut bench = bench(&[]);
    bench.call(Call::Poll);
    bench.advance(1_000_000);
    assert!(bench.asked.is_empty() && bench.take_events().is_empty());
}
