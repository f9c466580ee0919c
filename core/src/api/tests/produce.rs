use super::*;
use crate::wire::messages::InitProducerIdRequest;
use crate::wire::messages::produce_response::PartitionProduceResponse;

/// Asserts that the answer of a partition is an error without offsets.
fn refused(answer: &PartitionProduceResponse, error: ErrorCode) {
    let nothing = (answer.base_offset, answer.log_append_time_ms);
    assert_eq!((answer.error_code, nothing), (code(error), (-1, -1)), "{answer:?}");
}

/// Asserts that the answer of a partition is an error, and that the batch is in the log at `base_offset` all the same.
fn appended_in_vain(answer: &PartitionProduceResponse, error: ErrorCode, base_offset: i64) {
    assert_eq!((answer.error_code, answer.base_offset), (code(error), base_offset), "{answer:?}");
}

#[test]
fn an_answer_waits_until_the_records_are_stable() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    for acks in [1, -1] {
        bench.hold(is_sync);
        let sent = bench.send_batch("t", acks, batch(&["a", "b"]));
        bench.pass(100);
        assert_eq!(bench.answer(sent), None, "acks={acks}");
        bench.release();
        let answer = bench.produced(sent);
        let base_offset = if acks == 1 { 0 } else { 2 };
        assert_eq!((answer.error_code, answer.base_offset), (0, base_offset));
        assert_eq!((answer.log_append_time_ms, answer.log_start_offset), (-1, 0));
        assert!(answer.record_errors.is_empty() && answer.error_message.is_none());
    }
}

#[test]
fn a_relaxed_topic_is_answered_at_once() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[("acks.require.fsync", "false")]);
    bench.hold(is_sync);
    let sent = bench.send_batch("t", -1, batch(&["a"]));
    assert_eq!(bench.produced(sent).error_code, 0);
}

#[test]
fn acks_0_has_no_answer_and_an_error_closes_the_connection() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 2, &[]);
    let sent = bench.send_batch("t", 0, batch(&["a"]));
    assert_eq!((bench.answer(sent), bench.closed.len()), (None, 0));
    assert_eq!(bench.append("t", &["b"]), 1, "the first is there");
    // One of the two partitions does not exist. The other one takes its batch nevertheless.
    let both = to_partitions("t", 0, &[(7, batch(&["c"])), (0, batch(&["d"]))]);
    let sent = bench.send_on(ConnId(2), 9, RequestBody::Produce(both));
    assert_eq!(bench.answer(sent), None);
    assert_eq!(bench.closed, [(ConnId(2), "a produce with acks=0 failed")]);
    assert_eq!(bench.append("t", &["e"]), 3);
}

#[test]
fn acks_all_has_so_much_time_and_acks_1_has_all_there_is() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    bench.hold(is_sync);
    let all = bench.send_batch("t", -1, batch(&["a"]));
    let one = bench.send_batch_on(ConnId(2), "t", 1, 0, batch(&["b"]));
    bench.pass(1_499);
    assert!(bench.answers.is_empty());
    bench.pass(1);
    appended_in_vain(&bench.produced(all), ErrorCode::RequestTimedOut, 0);
    bench.pass(60_000);
    assert_eq!(bench.answer(one), None);
    bench.release();
    assert_eq!(bench.produced(one).base_offset, 1, "what timed out is in the log all the same");
    assert!(bench.answers.is_empty(), "and is not answered twice");
}

#[test]
fn partitions_succeed_fail_and_time_out_one_by_one() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 3, &[]);
    bench.hold(is_sync);
    let three = to_partitions("t", -1, &[(2, batch(&["a"])), (5, batch(&["b"])), (0, batch(&["c"]))]);
    let sent = bench.send(9, RequestBody::Produce(three));
    assert_eq!(bench.answer(sent), None);
    // The records of one partition are stable. The answer waits for the other partition.
    bench.release_first();
    assert_eq!(bench.answer(sent), None);
    bench.pass(1_500);
    let answers = bench.all_produced(sent);
    assert_eq!(answers.iter().map(|answer| answer.index).collect::<Vec<_>>(), [2, 5, 0]);
    assert_eq!((answers[0].error_code, answers[0].base_offset), (0, 0));
    refused(&answers[1], ErrorCode::UnknownTopicOrPartition);
    appended_in_vain(&answers[2], ErrorCode::RequestTimedOut, 0);
}

#[test]
fn a_sync_answers_for_what_was_written_before_it_and_no_more() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    bench.hold(is_sync);
    let first = bench.send_batch("t", -1, batch(&["a"]));
    let second = bench.send_batch_on(ConnId(2), "t", -1, 0, batch(&["b"]));
    bench.release_first();
    assert_eq!(bench.produced(first).base_offset, 0);
    assert_eq!(bench.answer(second), None);
    bench.release();
    assert_eq!(bench.produced(second).base_offset, 1);
}

#[test]
fn a_failed_sync_is_an_error_for_everybody_who_waits() {
    let mut bench = Bench::with_two_log_dirs();
    bench.create("t", 1, &[]);
    bench.hold(is_sync);
    let first = bench.send_batch("t", -1, batch(&["a"]));
    let second = bench.send_batch_on(ConnId(2), "t", -1, 0, batch(&["b"]));
    bench.disk_of_topics().fail_syncs = true;
    bench.release();
    appended_in_vain(&bench.produced(first), ErrorCode::KafkaStorageError, 0);
    appended_in_vain(&bench.produced(second), ErrorCode::KafkaStorageError, 1);
    let later = bench.send_batch("t", -1, batch(&["c"]));
    refused(&bench.produced(later), ErrorCode::KafkaStorageError);
}

#[test]
fn an_answer_tells_where_the_log_starts_and_what_time_the_broker_stamped() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[("message.timestamp.type", "LogAppendTime")]);
    bench.append("t", &["a", "b", "c"]);
    assert_eq!(bench.delete_records("t", 2), 2);
    bench.pass(5_000);
    let sent = bench.send_batch("t", -1, batch(&["d"]));
    let answer = bench.produced(sent);
    assert_eq!((answer.base_offset, answer.log_start_offset), (3, 2));
    assert_eq!(answer.log_append_time_ms, bench.now.wall.0);
}

#[test]
fn a_refused_record_is_named_with_its_place_and_the_reason() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[("message.timestamp.before.max.ms", "1000")]);
    let mut builder = BatchBuilder::new();
    builder.push(START_MS, None, Some(b"now"), &[]).push(START_MS - 1_001, None, Some(b"long ago"), &[]);
    let sent = bench.send_batch("t", -1, builder.build());
    let answer = bench.produced(sent);
    refused(&answer, ErrorCode::InvalidTimestamp);
    assert_eq!(
        answer.error_message.as_deref(),
        Some("One or more records have been rejected due to invalid timestamp")
    );
    let records: Vec<_> =
        answer.record_errors.iter().map(|of| (of.batch_index, of.batch_index_error_message.as_deref())).collect();
    let range = format!("{}, {}", START_MS - 1_000, START_MS + 3_600_000);
    let [(1, Some(why))] = &records[..] else { panic!("{records:?}") };
    assert!(why.contains(&(START_MS - 1_001).to_string()) && why.contains(&range), "{why}");
    assert_eq!(bench.append("t", &["a"]), 0, "nothing of it was appended");
}

#[test]
fn what_cannot_be_taken_is_refused_with_its_reason() {
    let mut bench = Bench::new(&[]);
    let id = bench.create("t", 1, &[]);
    let mut refusal = |version, request: ProduceRequest, error| {
        let sent = bench.send(version, RequestBody::Produce(request));
        refused(&bench.produced(sent), error);
    };
    let a = || batch(&["a"]);
    refusal(12, to_partitions("none", -1, &[(0, a())]), ErrorCode::UnknownTopicOrPartition);
    refusal(12, to_partitions("t", -1, &[(1, a())]), ErrorCode::UnknownTopicOrPartition);
    // From v13 on a topic is named by its id (KIP-516).
    refusal(13, to_partitions("t", -1, &[(0, a())]), ErrorCode::UnknownTopicId);
    refusal(12, to_partitions("t", 2, &[(0, a())]), ErrorCode::InvalidRequiredAcks);
    refusal(12, to_partitions("t", -2, &[(0, a())]), ErrorCode::InvalidRequiredAcks);
    let mut torn = a().to_vec();
    *torn.last_mut().unwrap() ^= 1;
    refusal(12, to_partitions("t", -1, &[(0, torn.into())]), ErrorCode::CorruptMessage);
    let transactional = BatchBuilder::new()
        .producer(crate::ids::ProducerId(1), 0, 0)
        .transactional()
        .push(START_MS, None, None, &[])
        .build();
    let mut request = to_partitions("t", -1, &[(0, transactional)]);
    request.transactional_id = Some("id".into());
    refusal(12, request, ErrorCode::InvalidTxnState);

    let by_id = |bench: &mut Bench, acks| {
        let mut request = to_partitions("", acks, &[(0, a())]);
        request.topic_data[0].topic_id = id;
        let sent = bench.send(13, RequestBody::Produce(request));
        bench.produced(sent).base_offset
    };
    assert_eq!((by_id(&mut bench, -1), by_id(&mut bench, 1)), (0, 1));
}

#[test]
fn a_batch_that_is_sent_again_waits_for_the_first_one_to_be_stable() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    let of_producer = |sequence| {
        let id = crate::ids::ProducerId(5);
        BatchBuilder::new().producer(id, 0, sequence).push(START_MS, None, Some(b"x"), &[]).build()
    };
    bench.hold(is_sync);
    let first = bench.send_batch("t", -1, of_producer(0));
    let next = bench.send_batch("t", -1, of_producer(1));
    let again = bench.send_batch_on(ConnId(2), "t", -1, 0, of_producer(0));
    assert!(bench.answers.is_empty(), "{:?}", bench.answers);
    bench.release();
    let offsets = [first, next, again].map(|sent| bench.produced(sent).base_offset);
    assert_eq!(offsets, [0, 1, 0]);
    // Once the batch is stable, sending it a third time is answered at once.
    bench.hold(is_sync);
    let third = bench.send_batch("t", -1, of_producer(0));
    assert_eq!(bench.produced(third).base_offset, 0);
}

#[test]
fn min_insync_replicas_counts_at_most_the_replicas_there_are() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[("min.insync.replicas", "2")]);
    for acks in [-1, 1] {
        let sent = bench.send_batch("t", acks, batch(&["a"]));
        assert_eq!(bench.produced(sent).error_code, 0, "acks={acks}");
    }
}

/// A batch that is wrong in one way: its header is changed before the checksum is computed.
fn changed(batch: &Bytes, at: usize, byte: u8) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[at] = byte;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

#[test]
fn what_is_wrong_with_a_request_is_found_in_kafkas_order() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[("max.message.bytes", "500")]);
    bench.append("t", &["a", "b"]);
    bench.delete_records("t", 2);
    let mut refusal = |topic: &str, version, acks, records: Bytes| {
        let sent = bench.send(version, RequestBody::Produce(to_partitions(topic, acks, &[(0, records)])));
        let answer = bench.produced(sent);
        let error = ErrorCode::from_code(answer.error_code).unwrap();
        refused(&answer, error);
        (error, answer.log_start_offset)
    };
    let cut = batch(&["a"]).slice(..40);
    let mut torn = batch(&["a"]).to_vec();
    *torn.last_mut().unwrap() ^= 1;
    let torn = Bytes::from(torn);
    let mut large = batch(&[&"x".repeat(1_000)]).to_vec();
    *large.last_mut().unwrap() ^= 1;
    let zstd = BatchBuilder::new().compressed(crate::batch::Codec::Zstd, 3).push(START_MS, None, None, &[]).build();
    // The topic, then the shape of the bytes, then acks, then the batch: its size, its checksum, its codec.
    assert_eq!(refusal("none", 9, 7, cut.clone()), (ErrorCode::UnknownTopicOrPartition, -1));
    assert_eq!(refusal("t", 9, 7, cut), (ErrorCode::InvalidRecord, -1));
    assert_eq!(refusal("t", 6, 7, zstd), (ErrorCode::UnsupportedCompressionType, -1));
    assert_eq!(refusal("t", 9, 7, torn.clone()), (ErrorCode::InvalidRequiredAcks, -1));
    assert_eq!(refusal("t", 9, -1, large.into()), (ErrorCode::MessageTooLarge, -1));
    assert_eq!(refusal("t", 9, -1, torn), (ErrorCode::CorruptMessage, -1));
    // A codec that does not exist. From here on the answer says where the log starts.
    assert_eq!(refusal("t", 9, -1, changed(&batch(&["a"]), 22, 5)), (ErrorCode::UnknownServerError, 2));
    assert_eq!(refusal("t", 9, -1, changed(&batch(&["a"]), 22, 0x20)), (ErrorCode::InvalidRecord, 2));
}

#[test]
fn zstd_is_taken_from_version_7_on() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    for version in 3..=12 {
        let zstd = BatchBuilder::new().compressed(crate::batch::Codec::Zstd, 3).push(START_MS, None, None, &[]).build();
        let sent = bench.send(version, RequestBody::Produce(to_partitions("t", -1, &[(0, zstd)])));
        let error = if version < 7 { ErrorCode::UnsupportedCompressionType } else { ErrorCode::None };
        assert_eq!(bench.produced(sent).error_code, code(error), "version {version}");
    }
}

#[test]
fn a_transactional_batch_without_a_transactional_id_refuses_the_whole_request() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 2, &[]);
    let transactional = || {
        let builder = BatchBuilder::new();
        builder.producer(crate::ids::ProducerId(1), 0, 0).transactional().push(START_MS, None, None, &[]).build()
    };
    let both = to_partitions("t", -1, &[(0, batch(&["a"])), (1, transactional())]);
    let sent = bench.send(9, RequestBody::Produce(both));
    for answer in bench.all_produced(sent) {
        refused(&answer, ErrorCode::TransactionalIdAuthorizationFailed);
        assert_eq!((answer.log_start_offset, answer.error_message), (-1, None));
    }
    assert_eq!(bench.append("t", &["b"]), 0, "nothing of it was appended");
    let sent = bench.send_batch_on(ConnId(3), "t", 0, 0, transactional());
    assert_eq!((bench.answer(sent), bench.closed.len()), (None, 1));
}

#[test]
fn a_partition_that_a_request_names_twice_takes_the_last_batch_and_has_one_answer() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 2, &[]);
    let twice = [(0, batch(&["a"])), (1, batch(&["b"])), (0, batch(&["c", "d"]))];
    let mut request = to_partitions("t", -1, &twice);
    let again = to_partitions("t", -1, &[(1, batch(&["e", "f", "g"]))]);
    request.topic_data.extend(again.topic_data);
    let sent = bench.send(9, RequestBody::Produce(request));
    match bench.answer(sent) {
        Some(ResponseBody::Produce(response)) => {
            let [topic] = &response.responses[..] else { panic!("{response:?}") };
            let answers = topic.partition_responses.iter();
            let answers: Vec<_> = answers.map(|of| (of.index, of.error_code, of.base_offset)).collect();
            assert_eq!(answers, [(0, 0, 0), (1, 0, 0)]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.append("t", &["h"]), 2, "the last batch of partition 0 alone");
    let sent = bench.send_batch_on(CONN, "t", -1, 1, batch(&["i"]));
    assert_eq!(bench.produced(sent).base_offset, 3, "and that of partition 1");
}

#[test]
fn a_duplicate_is_answered_with_the_greatest_timestamp_of_its_batch() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    let mut times = Vec::new();
    for _ in 0..2 {
        let mut builder = BatchBuilder::new().producer(crate::ids::ProducerId(5), 0, 0);
        builder.push(START_MS + 9, None, None, &[]).push(START_MS, None, None, &[]);
        let sent = bench.send_batch("t", -1, builder.build());
        times.push(bench.produced(sent).log_append_time_ms);
    }
    assert_eq!(times, [-1, START_MS + 9]);
}

/// Asks for a producer id. Gives the error, the id and the epoch.
#[track_caller]
fn init_producer_id(bench: &mut Bench, producer_id: i64, producer_epoch: i16) -> (i16, i64, i16) {
    let request = InitProducerIdRequest { transactional_id: None, producer_id, producer_epoch, ..Default::default() };
    match bench.ask(4, RequestBody::InitProducerId(request)) {
        ResponseBody::InitProducerId(response) => (response.error_code, response.producer_id, response.producer_epoch),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_producer_names_both_its_id_and_its_epoch_or_neither() {
    let mut bench = Bench::new(&[]);
    let invalid = (code(ErrorCode::InvalidRequest), -1, -1);
    assert_eq!(init_producer_id(&mut bench, 5, -1), invalid);
    assert_eq!(init_producer_id(&mut bench, -1, 5), invalid);
    assert_eq!(init_producer_id(&mut bench, -1, -1), (0, 0, 0));
    assert_eq!(init_producer_id(&mut bench, 5, 5), (0, 1, 0), "without transactions it is as good as a new one");
}

#[test]
fn a_producer_asks_again_while_the_controller_gives_no_ids() {
    let mut bench = Bench::new(&[]);
    let own = std::mem::replace(&mut bench.broker.parts().broker_epoch, 99);
    assert_eq!(init_producer_id(&mut bench, -1, -1), (code(ErrorCode::CoordinatorLoadInProgress), -1, -1));
    bench.broker.parts().broker_epoch = own;
    assert_eq!(init_producer_id(&mut bench, -1, -1).0, 0);
}

#[test]
fn only_an_admin_client_writes_to_internal_topics() {
    let mut bench = Bench::new(&[]);
    bench.create("__consumer_offsets", 1, &[]);
    let keyed = || BatchBuilder::new().push(START_MS, Some(b"k"), Some(b"v"), &[]).build();
    for (client_id, error) in [
        (None, code(ErrorCode::InvalidTopicException)),
        (Some("admin"), code(ErrorCode::InvalidTopicException)),
        (Some("__admin_client"), 0),
    ] {
        bench.client_id = client_id;
        let sent = bench.send_batch("__consumer_offsets", -1, keyed());
        assert_eq!(bench.produced(sent).error_code, error, "{client_id:?}");
    }
}
