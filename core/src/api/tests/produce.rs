use super::*;
use crate::wire::messages::produce_response::PartitionProduceResponse;

/// What a partition is answered that could not take a batch.
fn refused(answer: &PartitionProduceResponse, error: ErrorCode) {
    let nothing = (answer.base_offset, answer.log_append_time_ms, answer.log_start_offset);
    assert_eq!((answer.error_code, nothing), (code(error), (-1, -1, -1)), "{answer:?}");
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
    // One partition of two does not exist; the other takes its batch all the same.
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
    refused(&bench.produced(all), ErrorCode::RequestTimedOut);
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
    // One of the two is stable: the answer waits for the other.
    bench.release_first();
    assert_eq!(bench.answer(sent), None);
    bench.pass(1_500);
    let answers = bench.all_produced(sent);
    assert_eq!(answers.iter().map(|answer| answer.index).collect::<Vec<_>>(), [2, 5, 0]);
    assert_eq!((answers[0].error_code, answers[0].base_offset), (0, 0));
    refused(&answers[1], ErrorCode::UnknownTopicOrPartition);
    refused(&answers[2], ErrorCode::RequestTimedOut);
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
    refused(&bench.produced(first), ErrorCode::KafkaStorageError);
    refused(&bench.produced(second), ErrorCode::KafkaStorageError);
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
    bench.create("two", 1, &[("min.insync.replicas", "2")]);
    let mut refusal = |version, request: ProduceRequest, error| {
        let sent = bench.send(version, RequestBody::Produce(request));
        refused(&bench.produced(sent), error);
    };
    let a = || batch(&["a"]);
    refusal(12, to_partitions("none", -1, &[(0, a())]), ErrorCode::UnknownTopicOrPartition);
    refusal(12, to_partitions("t", -1, &[(1, a())]), ErrorCode::UnknownTopicOrPartition);
    // From v13 on the id is what counts (KIP-516).
    refusal(13, to_partitions("t", -1, &[(0, a())]), ErrorCode::UnknownTopicId);
    refusal(12, to_partitions("t", 2, &[(0, a())]), ErrorCode::InvalidRequiredAcks);
    refusal(12, to_partitions("t", -2, &[(0, a())]), ErrorCode::InvalidRequiredAcks);
    refusal(12, to_partitions("two", -1, &[(0, a())]), ErrorCode::NotEnoughReplicas);
    let mut torn = a().to_vec();
    *torn.last_mut().unwrap() ^= 1;
    refusal(12, to_partitions("t", -1, &[(0, torn.into())]), ErrorCode::CorruptMessage);
    let transactional = BatchBuilder::new()
        .producer(crate::ids::ProducerId(1), 0, 0)
        .transactional()
        .push(START_MS, None, None, &[])
        .build();
    refusal(12, to_partitions("t", -1, &[(0, transactional)]), ErrorCode::InvalidTxnState);

    let by_id = |bench: &mut Bench, acks| {
        let mut request = to_partitions("", acks, &[(0, a())]);
        request.topic_data[0].topic_id = id;
        let sent = bench.send(13, RequestBody::Produce(request));
        bench.produced(sent).base_offset
    };
    assert_eq!((by_id(&mut bench, -1), by_id(&mut bench, 1)), (0, 1));
    let sent = bench.send_batch("two", 1, a());
    assert_eq!(bench.produced(sent).error_code, 0, "acks=1 asks the leader alone");
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
    // Once it is stable, a third sending is answered at once.
    bench.hold(is_sync);
    let third = bench.send_batch("t", -1, of_producer(0));
    assert_eq!(bench.produced(third).base_offset, 0);
}
