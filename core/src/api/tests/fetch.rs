use super::*;
use crate::wire::messages::fetch_request::ForgottenTopic;
use smallvec::smallvec;

/// Asserts that the answer of a partition is an error without records.
#[track_caller]
fn refused(bench: &Bench, answer: &PartitionData, error: ErrorCode) {
    let offsets = (answer.high_watermark, answer.last_stable_offset, answer.log_start_offset);
    assert_eq!((answer.error_code, offsets), (code(error), (-1, -1, -1)), "{answer:?}");
    // The records are empty and not null, which some clients cannot read.
    assert_eq!(bench.batches(answer), [0; 0]);
}

#[test]
fn a_fetch_gives_what_is_committed_and_says_where_the_log_begins_and_ends() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    for values in [&["a", "b"][..], &["c"], &["d"]] {
        bench.append("t", values);
    }
    let answer = bench.fetch(from("t", 0));
    assert_eq!(bench.batches(&answer), [0, 2, 3]);
    assert_eq!((answer.high_watermark, answer.last_stable_offset, answer.log_start_offset), (4, 4, 0));
    assert_eq!((answer.error_code, answer.preferred_read_replica), (0, -1));
    assert_eq!((answer.diverging_epoch.epoch, answer.diverging_epoch.end_offset), (-1, -1));
    let answer = bench.fetch(from("t", 1));
    assert_eq!(bench.batches(&answer), [0, 2, 3], "a batch comes whole");
    bench.delete_records("t", 2);
    let answer = bench.fetch(from("t", 3));
    assert_eq!(bench.batches(&answer), [3]);
    assert_eq!((answer.high_watermark, answer.last_stable_offset, answer.log_start_offset), (4, 4, 2));

    // A batch that is not stable is not committed.
    bench.hold(is_sync);
    let waits = bench.send_batch("t", 1, batch(&["e"]));
    assert_eq!(bench.answer(waits), None);
    let answer = bench.fetch(from("t", 2));
    assert_eq!((bench.batches(&answer), answer.high_watermark), (vec![2, 3], 4));
}

#[test]
fn a_fetch_waits_for_records_and_is_woken_by_them() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 2, &[]);
    let waits = bench.send_fetch(fetch(&[("t", 0, 0), ("t", 1, 0)]));
    bench.pass(500);
    assert_eq!(bench.answer(waits), None);
    let other = bench.send_batch_on(CONN, "t", 1, 1, batch(&["a"]));
    assert_eq!(bench.produced(other).base_offset, 0);
    let response = bench.fetched(waits);
    let found: Vec<_> =
        response.responses[0].partitions.iter().map(|of| (of.partition_index, bench.batches(of))).collect();
    assert_eq!(found, [(0, vec![]), (1, vec![0])]);
    assert_eq!(response.responses[0].partitions[1].high_watermark, 1);
}

#[test]
fn a_fetch_waits_until_there_is_enough_and_no_longer_than_it_wants_to() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    let size = batch(&["a"]).len() as i32;
    let wants = |min_bytes| FetchRequest { min_bytes, ..from("t", 0) };
    let waits = bench.send_fetch(wants(2 * size));
    bench.append("t", &["a"]);
    assert_eq!(bench.answer(waits), None);
    bench.append("t", &["b"]);
    let answer = only(bench.fetched(waits));
    assert_eq!(bench.batches(&answer), [0, 1]);

    let waits = bench.send_fetch(wants(2 * size + 1));
    bench.pass(999);
    assert_eq!(bench.answer(waits), None);
    bench.pass(1);
    let answer = only(bench.fetched(waits));
    assert_eq!((bench.batches(&answer), answer.high_watermark), (vec![0, 1], 2), "what there is");
    assert_eq!(bench.broker.deadline().map(|(_, timer)| timer == crate::broker::Timer::Request), Some(false));

    let at_end = bench.send_fetch(from("t", 2));
    bench.pass(1_000);
    let answer = only(bench.fetched(at_end));
    assert_eq!((answer.error_code, bench.batches(&answer), answer.high_watermark), (0, vec![], 2));
    let impatient = FetchRequest { max_wait_ms: 0, ..from("t", 2) };
    assert_eq!(bench.fetch(impatient).high_watermark, 2);
    let content = FetchRequest { min_bytes: 0, ..from("t", 2) };
    assert_eq!(bench.fetch(content).high_watermark, 2);
    let more_than_it_takes = FetchRequest { min_bytes: 1_000, max_bytes: size, ..from("t", 0) };
    let answer = bench.fetch(more_than_it_takes);
    assert_eq!(bench.batches(&answer), [0]);
}

#[test]
fn nobody_is_woken_for_a_fetch_whose_client_has_gone() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    let waits = bench.send_fetch(from("t", 0));
    bench.disconnect(FETCHER);
    bench.append("t", &["a"]);
    bench.pass(2_000);
    assert_eq!(bench.answer(waits), None);
}

#[test]
fn the_first_batch_is_given_whatever_its_size_and_all_others_within_the_limits() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 3, &[]);
    let value = "v".repeat(1_000);
    let size = batch(&[&value]).len() as i32;
    for partition in [0, 0, 1, 1, 2] {
        let sent = bench.send_batch_on(CONN, "t", 1, partition, batch(&[&value]));
        assert_eq!(bench.produced(sent).error_code, 0);
    }
    let mut limited = |max_bytes, partition_max_bytes| {
        let mut request = fetch(&[("t", 1, 0), ("t", 0, 0), ("t", 2, 0)]);
        request.max_bytes = max_bytes;
        for topic in &mut request.topics {
            topic.partitions[0].partition_max_bytes = partition_max_bytes;
        }
        let sent = bench.send_fetch(request);
        let response = bench.fetched(sent);
        let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|of| bench.batches(of).len()).collect::<Vec<_>>()
    };
    let large = 1 << 20;
    assert_eq!(limited(large, large), [2, 2, 1]);
    assert_eq!(limited(1, large), [1, 0, 0]);
    assert_eq!(limited(0, large), [1, 0, 0]);
    assert_eq!(limited(large, 1), [1, 0, 0], "the first of the response, not of each partition");
    assert_eq!(limited(large, -1), [1, 0, 0]);
    assert_eq!(limited(large, size), [1, 1, 1]);
    assert_eq!(limited(3 * size, large), [2, 1, 0]);
    assert_eq!(limited(3 * size - 1, large), [2, 0, 0]);
}

#[test]
fn what_cannot_be_read_is_refused_with_its_reason_and_at_once() {
    let mut bench = Bench::new(&[]);
    let id = bench.create("t", 1, &[]);
    bench.append("t", &["a", "b"]);
    bench.delete_records("t", 1);
    let mut refusal = |version, request: FetchRequest, error| {
        let sent = bench.send_on(FETCHER, version, RequestBody::Fetch(request));
        let answer = only(bench.fetched(sent));
        refused(&bench, &answer, error);
    };
    refusal(12, from("none", 0), ErrorCode::UnknownTopicOrPartition);
    refusal(12, fetch(&[("t", 1, 0)]), ErrorCode::UnknownTopicOrPartition);
    refusal(13, from("t", 0), ErrorCode::UnknownTopicId);
    refusal(12, from("t", 0), ErrorCode::OffsetOutOfRange);
    refusal(12, from("t", 3), ErrorCode::OffsetOutOfRange);
    refusal(12, from("t", -1), ErrorCode::OffsetOutOfRange);
    let in_epoch = |current_leader_epoch| {
        let mut request = from("t", 1);
        request.topics[0].partitions[0].current_leader_epoch = current_leader_epoch;
        request
    };
    refusal(12, in_epoch(1), ErrorCode::UnknownLeaderEpoch);
    for any in [0, -1, -2] {
        let answer = bench.fetch(in_epoch(any));
        assert_eq!(bench.batches(&answer), [0]);
    }

    let mut by_id = from("", 1);
    by_id.topics[0].topic_id = id;
    let sent = bench.send_on(FETCHER, 13, RequestBody::Fetch(by_id));
    let response = bench.fetched(sent);
    assert_eq!((response.responses[0].topic_id, &*response.responses[0].topic), (id, ""));
    assert_eq!(bench.batches(&only(response)), [0]);
}

#[test]
fn a_reader_whose_log_leaves_this_one_is_told_where() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    bench.append("t", &["a", "b"]);
    let read_in = |epoch, offset| {
        let mut request = from("t", offset);
        request.topics[0].partitions[0].last_fetched_epoch = epoch;
        request
    };
    let answer = bench.fetch(read_in(0, 1));
    assert_eq!((bench.batches(&answer), answer.diverging_epoch.epoch), (vec![0], -1));
    let at_end = FetchRequest { max_wait_ms: 0, ..read_in(0, 2) };
    assert_eq!(bench.fetch(at_end).diverging_epoch.epoch, -1);
    let answer = bench.fetch(read_in(0, 3));
    assert_eq!((answer.diverging_epoch.epoch, answer.diverging_epoch.end_offset), (0, 2));
    assert_eq!((answer.error_code, bench.batches(&answer)), (0, vec![]));
    assert_eq!((answer.high_watermark, answer.last_stable_offset, answer.log_start_offset), (2, 2, 0));
    // An epoch that is later than all of the log's epochs does not tell where the logs diverge.
    let answer = bench.fetch(read_in(1, 1));
    refused(&bench, &answer, ErrorCode::OffsetOutOfRange);
    let answer = bench.fetch(read_in(-7, 1));
    assert_eq!((answer.error_code, bench.batches(&answer)), (0, vec![0]));
    bench.delete_records("t", 1);
    let answer = bench.fetch(read_in(0, 0));
    refused(&bench, &answer, ErrorCode::OffsetOutOfRange);
    let answer = bench.fetch(read_in(0, 1));
    assert_eq!((answer.diverging_epoch.epoch, bench.batches(&answer)), (-1, vec![0]));

    // Nothing was written in epoch 1, so it ends where the epoch before it ends.
    bench.start();
    bench.start();
    bench.append("t", &["c"]);
    let answer = bench.fetch(read_in(1, 2));
    assert_eq!((answer.diverging_epoch.epoch, answer.diverging_epoch.end_offset), (0, 2));
}

#[test]
fn a_failed_disk_is_told_in_words_that_the_client_knows() {
    let mut bench = Bench::with_two_log_dirs();
    bench.create("t", 1, &[]);
    bench.append("t", &["a"]);
    let waits = bench.send_fetch(from("t", 1));
    bench.disk_of_topics().fail_writes = true;
    let sent = bench.send_batch("t", -1, batch(&["b"]));
    assert_eq!(bench.produced(sent).error_code, code(ErrorCode::KafkaStorageError));
    let answer = only(bench.fetched(waits));
    refused(&bench, &answer, ErrorCode::KafkaStorageError);
    for (version, error) in [
        (4, ErrorCode::NotLeaderOrFollower),
        (5, ErrorCode::NotLeaderOrFollower),
        (6, ErrorCode::KafkaStorageError),
        (12, ErrorCode::KafkaStorageError),
    ] {
        let sent = bench.send_on(FETCHER, version, RequestBody::Fetch(from("t", 0)));
        let answer = only(bench.fetched(sent));
        refused(&bench, &answer, error);
        // Other errors are the same in all versions.
        let sent = bench.send_on(FETCHER, version, RequestBody::Fetch(from("none", 0)));
        let answer = only(bench.fetched(sent));
        refused(&bench, &answer, ErrorCode::UnknownTopicOrPartition);
    }
}

#[test]
fn what_leaves_while_a_fetch_waits_is_not_given() {
    let mut bench = Bench::new(&[]);
    for topic in ["kept", "cut", "gone"] {
        bench.create(topic, 1, &[]);
        bench.append(topic, &["a"]);
    }
    let mut request = fetch(&[("kept", 0, 0), ("cut", 0, 0), ("gone", 0, 0)]);
    request.min_bytes = 10_000;
    let waits = bench.send_fetch(request);
    assert_eq!(bench.answer(waits), None);
    assert_eq!(bench.delete_records("cut", 1), 1);
    bench.pass(1_000);
    let response = bench.fetched(waits);
    let answers: Vec<&PartitionData> = response.responses.iter().map(|topic| &topic.partitions[0]).collect();
    assert_eq!(bench.batches(answers[0]), [0]);
    refused(&bench, answers[1], ErrorCode::OffsetOutOfRange);
    assert_eq!(bench.batches(answers[2]), [0]);

    let waits = bench.send_fetch(from("gone", 1));
    bench.delete_topic("gone");
    let answer = only(bench.fetched(waits));
    refused(&bench, &answer, ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn a_session_names_its_partitions_once_and_tells_only_news() {
    let mut bench = Bench::new(&[]);
    bench.create("a", 1, &[]);
    bench.create("b", 1, &[]);
    bench.append("a", &["x"]);
    let first = FetchRequest { session_epoch: 0, ..fetch(&[("a", 0, 0), ("b", 0, 0)]) };
    let sent = bench.send_fetch(first);
    let response = bench.fetched(sent);
    let session_id = response.session_id;
    assert_ne!(session_id, 0);
    assert_eq!(response.responses.len(), 2);

    let next = |session_epoch, topics: FetchRequest| FetchRequest { session_id, session_epoch, ..topics };
    let waits = bench.send_fetch(next(1, from("a", 1)));
    bench.pass(500);
    assert_eq!(bench.answer(waits), None);
    bench.append("b", &["y"]);
    let response = bench.fetched(waits);
    assert_eq!(response.session_id, session_id);
    assert_eq!(&*response.responses[0].topic, "b");
    assert_eq!(bench.batches(&only(response)), [0]);

    // A partition that the client forgets is not fetched any more.
    let forget = vec![ForgottenTopic { topic: "b".into(), partitions: smallvec![0], ..Default::default() }];
    let waits = bench.send_fetch(FetchRequest { forgotten_topics_data: forget, ..next(2, fetch(&[])) });
    bench.append("b", &["z"]);
    bench.pass(999);
    assert_eq!(bench.answer(waits), None);
    bench.pass(1);
    assert!(bench.fetched(waits).responses.is_empty());

    for (epoch, id, error) in
        [(2, session_id, ErrorCode::InvalidFetchSessionEpoch), (3, session_id ^ 1, ErrorCode::FetchSessionIdNotFound)]
    {
        let sent = bench.send_fetch(FetchRequest { session_id: id, session_epoch: epoch, ..fetch(&[]) });
        let response = bench.fetched(sent);
        assert_eq!((response.error_code, response.session_id), (code(error), 0));
    }
}

#[test]
fn a_broker_without_room_for_sessions_gives_none() {
    let mut bench = Bench::new(&[("max.incremental.fetch.session.cache.slots", "0")]);
    bench.create("t", 1, &[]);
    bench.append("t", &["a"]);
    let sent = bench.send_fetch(FetchRequest { session_epoch: 0, ..from("t", 0) });
    let response = bench.fetched(sent);
    assert_eq!(response.session_id, 0);
    assert_eq!(bench.batches(&only(response)), [0]);
}

/// Sends a fetch of "a" from offset 1, for which the log must read its disk, and of "b", which is empty.
fn a_fetch_that_reads(bench: &mut Bench) -> i32 {
    bench.create("a", 1, &[]);
    bench.create("b", 1, &[]);
    let large = "x".repeat(5_000);
    for _ in 0..3 {
        bench.append("a", &[&large]);
    }
    // A start after a clean stop reads only the part of the log after the last entry of the index. Of the rest it knows
    // only the index.
    bench.stop();
    bench.start();
    bench.hold(|op| matches!(op, IoOp::Read { .. }));
    let mut request = fetch(&[("b", 0, 0), ("a", 0, 1)]);
    request.min_bytes = 2 * batch(&[&large]).len() as i32 + 1;
    let waits = bench.send_fetch(request);
    assert!(!bench.waiting.is_empty(), "the position of offset 1 is read from the disk");
    waits
}

/// For each topic, the base offsets of the batches in the response.
fn found(bench: &Bench, response: &FetchResponse) -> Vec<Vec<i64>> {
    response.responses.iter().map(|topic| bench.batches(&topic.partitions[0])).collect()
}

#[test]
fn records_that_come_while_a_fetch_reads_its_disk_are_not_missed() {
    let mut bench = Bench::new(&[]);
    let waits = a_fetch_that_reads(&mut bench);
    bench.append("b", &["w"]);
    assert_eq!(bench.answer(waits), None);
    bench.release();
    let response = bench.fetched(waits);
    assert_eq!(found(&bench, &response), [vec![0], vec![1, 2]]);
}

#[test]
fn a_read_that_is_under_way_is_waited_for_whatever_the_time() {
    let mut bench = Bench::new(&[]);
    let waits = a_fetch_that_reads(&mut bench);
    bench.pass(2_000);
    assert_eq!(bench.answer(waits), None);
    bench.release();
    let response = bench.fetched(waits);
    assert_eq!(found(&bench, &response), [vec![], vec![1, 2]]);
}

#[test]
fn aborted_transactions_are_null_for_readers_of_everything() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    bench.append("t", &["a"]);
    let mut aborted = |topic: &str, offset, isolation_level| {
        let request = FetchRequest { isolation_level, max_wait_ms: 0, ..from(topic, offset) };
        let answer = bench.fetch(request);
        answer.aborted_transactions.map(|transactions| transactions.len())
    };
    assert_eq!(aborted("t", 0, 0), None);
    assert_eq!(aborted("t", 0, 1), Some(0));
    assert_eq!(aborted("t", 1, 1), Some(0), "without records too");
    assert_eq!(aborted("t", 9, 1), None, "an offset out of range");
    assert_eq!(aborted("none", 0, 0), Some(0), "a topic that does not exist");
}

#[test]
fn an_isolation_level_that_does_not_exist_refuses_the_whole_fetch() {
    let mut bench = Bench::new(&[]);
    let id = bench.create("t", 1, &[]);
    bench.append("t", &["a"]);
    let failed = code(ErrorCode::UnknownServerError);
    let request =
        FetchRequest { isolation_level: 2, session_id: 7, session_epoch: -1, ..fetch(&[("t", 0, 0), ("u", 3, 0)]) };
    let sent = bench.send_on(FETCHER, 12, RequestBody::Fetch(request));
    let response = bench.fetched(sent);
    assert_eq!((response.error_code, response.session_id, response.responses.len()), (failed, 7, 2));
    for (topic, name, index) in [(0, "t", 0), (1, "u", 3)] {
        let topic = &response.responses[topic];
        assert_eq!((&*topic.topic, topic.partitions[0].partition_index), (name, index));
        refused(&bench, &topic.partitions[0], ErrorCode::UnknownServerError);
    }

    let mut request = FetchRequest { isolation_level: 2, session_epoch: -1, ..from("", 0) };
    request.topics[0].topic_id = id;
    let sent = bench.send_on(FETCHER, 13, RequestBody::Fetch(request));
    let response = bench.fetched(sent);
    assert_eq!((response.error_code, response.responses.len()), (failed, 0));

    // Kafka looks at the level only when there is something to read.
    let nothing = FetchRequest { isolation_level: 2, ..from("none", 0) };
    let answer = bench.fetch(nothing);
    refused(&bench, &answer, ErrorCode::UnknownTopicOrPartition);
}
