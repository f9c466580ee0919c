//! Tests of the producer with scripted brokers.

use super::*;
use crate::script::{Asked, Bench};
use bytes::Bytes;
use tidelog_batch::BatchHeader;
use tidelog_wire::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use tidelog_wire::messages::{InitProducerIdResponse, ProduceRequest, ProduceResponse};
use tidelog_wire::{Records, RequestBody};

fn bench(pairs: &[(&str, &str)]) -> Bench<Producer> {
    let own = [("bootstrap.servers", "broker1:9092")];
    let properties = own.iter().chain(pairs).map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let (config, _) = ProducerConfig::from_properties(&properties).unwrap();
    Bench::new(Producer::new(config, 1)).topic("t", &[(1, 0), (2, 0)])
}

fn record(id: u64) -> Call {
    let value = Some(Bytes::from_static(b"value"));
    let partition = Some(0);
    Call::Send(ProducerRecord { id, topic: "t".into(), partition, timestamp: None, key: None, value, headers: vec![] })
}

fn give_identity(bench: &mut Bench<Producer>) {
    let asked = bench.next();
    assert!(matches!(asked.body, RequestBody::InitProducerId(_)), "{asked:?}");
    bench.answer(&asked, InitProducerIdResponse { producer_id: 7, producer_epoch: 0, ..Default::default() });
}

fn produce(asked: &Asked) -> &ProduceRequest {
    let RequestBody::Produce(request) = &asked.body else { panic!("not a Produce request: {asked:?}") };
    request
}

/// The header of the first batch in a request.
fn header(asked: &Asked) -> BatchHeader {
    let records = &produce(asked).topic_data[0].partition_data[0].records;
    BatchHeader::parse(&records.as_ref().and_then(Records::bytes).unwrap()).unwrap()
}

/// The producer epoch, the base sequence and the number of records of the first batch in a request.
fn numbers(asked: &Asked) -> (i16, i32, i32) {
    let header = header(asked);
    (header.producer_epoch, header.base_sequence, header.records_count)
}

fn respond(bench: &mut Bench<Producer>, asked: &Asked, error: ErrorCode, base_offset: i64) {
    let topic = &produce(asked).topic_data[0];
    let index = topic.partition_data[0].index;
    let answer = PartitionProduceResponse { index, error_code: error.code(), base_offset, ..Default::default() };
    let responses = vec![TopicProduceResponse {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partition_responses: vec![answer],
        ..Default::default()
    }];
    bench.answer(asked, ProduceResponse { responses, ..Default::default() });
}

fn delivered(records: &[u64], base_offset: i64) -> Event {
    let partition = TopicPartition::new("t", 0);
    Event::Delivered { partition, base_offset: Some(base_offset), timestamp: None, records: records.to_vec() }
}

#[track_caller]
fn outcome(bench: &mut Bench<Producer>) -> Vec<Event> {
    let events = bench.take_events();
    events.into_iter().filter(|event| !matches!(event, Event::Placed { .. })).collect()
}

#[test]
fn records_linger_and_go_out_in_one_batch_to_the_leader() {
    let mut bench = bench(&[("linger.ms", "20")]);
    (0..3).for_each(|id| bench.call(record(id)));
    give_identity(&mut bench);
    bench.advance(19);
    assert!(bench.asked.is_empty());
    bench.advance(2);
    let asked = bench.next();
    assert_eq!(bench.address(asked.link), "broker1:9092");
    assert_eq!(numbers(&asked), (0, 0, 3));
    assert_eq!(header(&asked).base_timestamp, 1_700_000_000_000);
    respond(&mut bench, &asked, ErrorCode::None, 40);
    assert_eq!(outcome(&mut bench), [delivered(&[0, 1, 2], 40)]);
    assert!(bench.client.is_idle() && bench.client.buffered_bytes() == 0);
    assert_eq!(bench.connects.len(), 1, "the connection to the bootstrap server is used for the broker too");
}

#[test]
fn no_more_than_five_requests_are_in_flight() {
    let mut bench = bench(&[("linger.ms", "0"), ("batch.size", "1")]);
    (0..8).for_each(|id| bench.call(record(id)));
    give_identity(&mut bench);
    let sequences: Vec<i32> = bench.asked.iter().map(|asked| numbers(asked).1).collect();
    assert_eq!(sequences, [0, 1, 2, 3, 4]);
    let asked = bench.next();
    respond(&mut bench, &asked, ErrorCode::None, 0);
    assert_eq!(numbers(bench.asked.back().unwrap()).1, 5);
}

#[test]
fn after_a_lost_connection_batches_are_sent_again_one_by_one_with_their_sequences() {
    let mut bench = bench(&[("linger.ms", "0"), ("batch.size", "1")]);
    (0..3).for_each(|id| bench.call(record(id)));
    give_identity(&mut bench);
    let lost = bench.next();
    bench.cut(&lost);
    bench.advance(2_000);
    for sequence in 0..3 {
        assert_eq!(bench.asked.len(), 1, "one request at a time");
        let asked = bench.next();
        assert_eq!(numbers(&asked), (0, sequence, 1));
        respond(&mut bench, &asked, ErrorCode::None, sequence.into());
        bench.advance(2_000);
    }
    assert_eq!(outcome(&mut bench), [delivered(&[0], 0), delivered(&[1], 1), delivered(&[2], 2)]);
}

#[test]
fn a_batch_out_of_order_behind_a_failed_one_is_sent_again_after_it() {
    let mut bench = bench(&[("linger.ms", "0"), ("batch.size", "1")]);
    (0..2).for_each(|id| bench.call(record(id)));
    give_identity(&mut bench);
    let (first, second) = (bench.next(), bench.next());
    respond(&mut bench, &first, ErrorCode::NotEnoughReplicas, -1);
    respond(&mut bench, &second, ErrorCode::OutOfOrderSequenceNumber, -1);
    bench.advance(500);
    let again = bench.next();
    assert_eq!(numbers(&again), (0, 0, 1));
    respond(&mut bench, &again, ErrorCode::None, 0);
    bench.advance(500);
    let again = bench.next();
    assert_eq!(numbers(&again), (0, 1, 1));
    respond(&mut bench, &again, ErrorCode::None, 1);
    assert_eq!(outcome(&mut bench), [delivered(&[0], 0), delivered(&[1], 1)]);
}

#[test]
fn if_the_expected_sequence_is_refused_a_new_epoch_begins_when_no_batch_is_in_flight() {
    let mut bench = bench(&[("linger.ms", "0"), ("batch.size", "1")]);
    bench.call(record(0));
    give_identity(&mut bench);
    let asked = bench.next();
    respond(&mut bench, &asked, ErrorCode::None, 0);
    (1..3).for_each(|id| bench.call(record(id)));
    let (first, second) = (bench.next(), bench.next());
    bench.take_events();
    respond(&mut bench, &first, ErrorCode::OutOfOrderSequenceNumber, -1);
    let error = ErrorCode::OutOfOrderSequenceNumber;
    assert_eq!(outcome(&mut bench), [Event::SequenceRefused { partition: TopicPartition::new("t", 0), error }]);
    bench.advance(500);
    assert!(bench.asked.is_empty(), "the second batch is still in flight");
    respond(&mut bench, &second, ErrorCode::OutOfOrderSequenceNumber, -1);
    bench.advance(500);
    for sequence in 0..2 {
        let asked = bench.next();
        assert_eq!(numbers(&asked), (1, sequence, 1));
        respond(&mut bench, &asked, ErrorCode::None, 1 + i64::from(sequence));
        bench.advance(500);
    }
    assert_eq!(outcome(&mut bench), [delivered(&[1], 1), delivered(&[2], 2)]);
}

#[test]
fn a_batch_that_may_be_in_the_log_fails_when_its_sequence_is_refused() {
    let mut bench = bench(&[("linger.ms", "0"), ("batch.size", "1")]);
    (0..2).for_each(|id| bench.call(record(id)));
    give_identity(&mut bench);
    let lost = bench.next();
    bench.cut(&lost);
    bench.advance(2_000);
    let again = bench.next();
    respond(&mut bench, &again, ErrorCode::OutOfOrderSequenceNumber, -1);
    let events = outcome(&mut bench);
    let [Event::SequenceRefused { .. }, Event::Failed { records, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(records, &[0]);
    bench.advance(2_000);
    let second = bench.next();
    assert_eq!(numbers(&second), (0, 1, 1), "the broker may know this one");
    respond(&mut bench, &second, ErrorCode::None, 7);
    assert_eq!(outcome(&mut bench), [delivered(&[1], 7)]);
    bench.call(record(2));
    assert_eq!(numbers(&bench.next()), (0, 2, 1), "the sequences go on");
}

#[test]
fn after_a_sent_batch_is_given_up_a_new_epoch_begins() {
    let mut bench = bench(&[("linger.ms", "0"), ("delivery.timeout.ms", "3000"), ("request.timeout.ms", "2000")]);
    bench.call(record(0));
    give_identity(&mut bench);
    bench.next();
    bench.reachable = false;
    bench.advance(3_100);
    let [Event::Failed { records, error, .. }] = &outcome(&mut bench)[..] else { panic!("one failure") };
    assert_eq!(records, &[0]);
    insta::assert_snapshot!(error, @"the delivery of 1 records to t-0 was not done within delivery.timeout.ms = 3000 ms; the last attempt: Produce of t-0: no answer came within request.timeout.ms = 2000 ms");
    bench.reachable = true;
    bench.call(record(1));
    bench.advance(2_000);
    assert_eq!(numbers(&bench.next()), (1, 0, 1), "nobody knows whether sequence 0 of epoch 0 was appended");
}

#[test]
fn a_batch_that_is_too_large_is_split() {
    let mut bench = bench(&[("linger.ms", "5"), ("compression.type", "lz4")]);
    (0..3).for_each(|id| bench.call(record(id)));
    give_identity(&mut bench);
    bench.advance(10);
    let asked = bench.next();
    respond(&mut bench, &asked, ErrorCode::MessageTooLarge, -1);
    let left = bench.next();
    assert_eq!(numbers(&left), (0, 0, 1));
    assert!(bench.asked.is_empty(), "the second half waits for the first, to keep the order");
    respond(&mut bench, &left, ErrorCode::None, 0);
    let right = bench.next();
    assert_eq!(numbers(&right), (0, 1, 2));
    respond(&mut bench, &right, ErrorCode::None, 1);
    assert_eq!(outcome(&mut bench), [delivered(&[0], 0), delivered(&[1, 2], 1)]);
}

#[test]
fn a_batch_refused_with_a_permanent_error_fails_at_once_and_later_batches_have_a_new_epoch() {
    let mut bench = bench(&[("linger.ms", "0")]);
    bench.call(record(0));
    give_identity(&mut bench);
    let asked = bench.next();
    respond(&mut bench, &asked, ErrorCode::InvalidRecord, -1);
    let [Event::Failed { error, .. }] = &outcome(&mut bench)[..] else { panic!("one failure") };
    insta::assert_snapshot!(error, @"Produce of t-0 was answered with INVALID_RECORD");
    bench.call(record(1));
    assert_eq!(numbers(&bench.next()), (1, 0, 1));
}

#[test]
fn a_new_leader_is_found_and_gets_the_batch_without_a_pause() {
    let mut bench = bench(&[("linger.ms", "0")]);
    bench.call(record(0));
    give_identity(&mut bench);
    let asked = bench.next();
    bench.advance(1_000);
    bench.topics.insert("t".into(), vec![(3, 1), (2, 0)]);
    respond(&mut bench, &asked, ErrorCode::NotLeaderOrFollower, -1);
    bench.advance(500);
    let again = bench.next();
    assert_eq!(bench.address(again.link), "broker3:9092");
    assert_eq!(numbers(&again), (0, 0, 1));
}

#[test]
fn a_topic_that_never_appears_fails_its_records_with_the_reason() {
    let mut bench = bench(&[("max.block.ms", "1000"), ("acks", "1")]);
    let Call::Send(mut lost) = record(5) else { unreachable!() };
    lost.topic = "nowhere".into();
    bench.call(Call::Send(lost));
    bench.advance(1_000);
    let [Event::Failed { error, .. }] = &outcome(&mut bench)[..] else { panic!("one failure") };
    insta::assert_snapshot!(error, @"the search for partition 0 of nowhere was not done within max.block.ms = 1000 ms; the last attempt: Metadata of nowhere was answered with UNKNOWN_TOPIC_OR_PARTITION");
    assert!((2..12).contains(&bench.metadata_requests), "{}", bench.metadata_requests);
}

#[test]
fn brokers_that_cannot_be_reached_are_tried_with_growing_pauses() {
    let mut bench = bench(&[("max.block.ms", "10000")]);
    bench.reachable = false;
    bench.call(record(0));
    bench.advance(9_999);
    assert!((9..20).contains(&bench.connects.len()), "{}", bench.connects.len());
    assert!(outcome(&mut bench).is_empty());
    bench.advance(1);
    let [Event::Failed { error, .. }] = &outcome(&mut bench)[..] else { panic!("one failure") };
    insta::assert_snapshot!(error, @"the search for partition 0 of t was not done within max.block.ms = 10000 ms; the last attempt: broker1:9092: no connection could be made");
}

#[test]
fn a_record_that_exceeds_a_size_limit_fails_at_once() {
    let mut bench = bench(&[("max.request.size", "150"), ("buffer.memory", "140")]);
    let Call::Send(mut large) = record(0) else { unreachable!() };
    large.value = Some(vec![0; 100].into());
    bench.call(Call::Send(large));
    (1..4).for_each(|id| bench.call(record(id)));
    let errors: Vec<String> = bench.take_events().iter().filter_map(failure).collect();
    insta::assert_snapshot!(errors.join("\n"), @"
    a record of 197 bytes for t: max.request.size = 150 allows no more than 150
    a record of 102 bytes for t, while 41 bytes are buffered: buffer.memory = 140 allows no more than 140 in total
    a record of 102 bytes for t, while 41 bytes are buffered: buffer.memory = 140 allows no more than 140 in total
    ");
}

fn failure(event: &Event) -> Option<String> {
    let Event::Failed { error, .. } = event else { return None };
    Some(error.to_string())
}

#[test]
fn with_acks_0_a_record_counts_as_delivered_when_it_is_sent() {
    let mut bench = bench(&[("acks", "0"), ("linger.ms", "0")]);
    bench.call(record(0));
    assert_eq!(produce(&bench.next()).acks, 0);
    let events = outcome(&mut bench);
    assert!(matches!(&events[..], [Event::Delivered { base_offset: None, .. }]), "{events:?}");
}

#[test]
fn a_flush_ends_the_linger_and_tells_when_all_earlier_records_are_delivered() {
    let mut bench = bench(&[("linger.ms", "10000"), ("acks", "1")]);
    bench.call(record(0));
    assert!(bench.asked.is_empty());
    bench.call(Call::Flush(9));
    let asked = bench.next();
    respond(&mut bench, &asked, ErrorCode::None, 3);
    assert_eq!(outcome(&mut bench), [delivered(&[0], 3), Event::Flushed(9)]);
}

#[test]
fn a_producer_without_an_identity_waits_for_its_connection_and_not_for_time() {
    let mut bench = bench(&[]);
    bench.call(record(0));
    let asked = bench.next();
    bench.silent = true;
    bench.cut(&asked);
    bench.advance(20_000);
    assert!(bench.connects.len() < 10, "{}", bench.connects.len());
}

#[test]
fn an_idle_producer_sends_nothing_but_metadata_requests() {
    let mut bench = bench(&[("linger.ms", "0"), ("acks", "1"), ("metadata.max.age.ms", "1000")]);
    bench.call(record(0));
    let asked = bench.next();
    respond(&mut bench, &asked, ErrorCode::None, 0);
    let before = bench.metadata_requests;
    bench.advance(10_500);
    assert_eq!(bench.metadata_requests - before, 10);
    assert!(bench.asked.is_empty());
}
