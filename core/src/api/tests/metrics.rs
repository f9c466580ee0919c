//! What the broker counts of the requests that it gets.

use super::*;
use crate::broker::{BrokerState, Metrics, PartitionMetrics, ReplicaMetrics};
use crate::ids::{NodeId, ProducerId};
use crate::replication::TopicCounters;

impl Bench {
    /// The counters of a topic.
    #[track_caller]
    fn counters(&self, topic: &str) -> TopicCounters {
        let metrics = self.broker.metrics();
        metrics.topics.iter().find(|found| found.name == topic).expect("a topic with partitions here").counters
    }

    #[track_caller]
    fn partition_metrics(&self, topic: &str) -> PartitionMetrics {
        let partitions = self.broker.metrics().partitions;
        partitions.into_iter().find(|partition| partition.topic == topic).expect("a partition of it")
    }
}

fn waits(metrics: &Metrics) -> (usize, usize) {
    (metrics.waiting.produce, metrics.waiting.fetch)
}

#[test]
fn what_is_appended_is_counted_once_in_records_and_bytes() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    bench.create("u", 1, &[]);
    bench.append("t", &["a", "b", "c"]);
    bench.append("u", &["d"]);
    bench.append("t", &["e"]);
    let counters = bench.counters("t");
    let bytes = (batch(&["a", "b", "c"]).len() + batch(&["e"]).len()) as u64;
    assert_eq!((counters.messages_in, counters.bytes_in, counters.produce_requests), (4, bytes, 2));
    assert_eq!((counters.failed_produce_requests, counters.bytes_out, counters.fetch_requests), (0, 0, 0));
    let all = bench.broker.metrics().all_topics;
    assert_eq!((all.messages_in, all.produce_requests), (5, 3));
}

#[test]
fn a_retry_of_an_idempotent_producer_is_a_request_and_no_record() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    let mut builder = BatchBuilder::new().producer(ProducerId(7), 0, 0);
    builder.push(START_MS, None, Some(b"once"), &[]);
    let bytes = builder.build();
    for _ in 0..2 {
        let sent = bench.send_batch("t", -1, bytes.clone());
        assert_eq!(bench.produced(sent).error_code, 0);
    }
    let counters = bench.counters("t");
    assert_eq!((counters.messages_in, counters.bytes_in), (1, bytes.len() as u64));
    assert_eq!((counters.produce_requests, counters.failed_produce_requests), (2, 0));
    assert_eq!(bench.broker.metrics().replicas.producer_ids, 1);
}

#[test]
fn batches_that_are_refused_are_counted_by_what_is_wrong_with_them() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[("max.message.bytes", "100")]);
    let mut damaged = batch(&["a"]).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let sent = bench.send_batch("t", -1, damaged.into());
    assert_eq!(bench.produced(sent).error_code, code(ErrorCode::CorruptMessage));
    let large = batch(&[&"x".repeat(100)]);
    let size = large.len() as u64;
    let sent = bench.send_batch("t", -1, large);
    assert_eq!(bench.produced(sent).error_code, code(ErrorCode::MessageTooLarge));
    let mut later = BatchBuilder::new().producer(ProducerId(7), 0, 0);
    later.push(START_MS, None, Some(b"first"), &[]);
    let sent = bench.send_batch("t", -1, later.build());
    assert_eq!(bench.produced(sent).error_code, 0);
    let mut later = BatchBuilder::new().producer(ProducerId(7), 0, 9);
    later.push(START_MS, None, Some(b"later"), &[]);
    let sent = bench.send_batch("t", -1, later.build());
    assert_eq!(bench.produced(sent).error_code, code(ErrorCode::OutOfOrderSequenceNumber));

    let counters = bench.counters("t");
    assert_eq!((counters.invalid_checksums, counters.bytes_rejected, counters.invalid_sequences), (1, size, 1));
    // The first two errors happen to healthy clients, so they are no failures.
    assert_eq!((counters.produce_requests, counters.failed_produce_requests), (4, 1));
    assert_eq!(counters.messages_in, 1);
}

#[test]
fn records_without_a_key_are_counted_for_a_compacted_topic() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[("cleanup.policy", "compact")]);
    let sent = bench.send_batch("t", -1, batch(&["a", "b"]));
    assert_eq!(bench.produced(sent).error_code, code(ErrorCode::InvalidRecord));
    let counters = bench.counters("t");
    assert_eq!((counters.records_without_key, counters.failed_produce_requests), (2, 1));
}

#[test]
fn a_fetch_counts_once_however_often_it_looks_and_its_bytes_when_they_are_sent() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    let two = (batch(&["a"]).len() * 2) as i32;
    let sent = bench.send_fetch(FetchRequest { min_bytes: two, ..from("t", 0) });
    assert_eq!(waits(&bench.broker.metrics()), (0, 1));
    bench.append("t", &["a"]);
    // The fetch was woken, found too little, and still waits.
    assert_eq!((bench.counters("t").bytes_out, waits(&bench.broker.metrics())), (0, (0, 1)));
    bench.append("t", &["b"]);
    let answer = only(bench.fetched(sent));
    assert_eq!(bench.bytes(&answer.records.unwrap()).len(), two as usize);
    let counters = bench.counters("t");
    assert_eq!((counters.fetch_requests, counters.bytes_out), (1, two as u64));
    assert_eq!(waits(&bench.broker.metrics()), (0, 0));

    // This error happens to healthy clients: the fetch is counted, but not as a failure.
    assert_eq!(bench.fetch(from("t", 99)).error_code, code(ErrorCode::OffsetOutOfRange));
    let counters = bench.counters("t");
    assert_eq!((counters.fetch_requests, counters.failed_fetch_requests, counters.bytes_out), (2, 0, two as u64));
}

#[test]
fn sessions_are_counted_with_their_partitions() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    bench.create("u", 1, &[]);
    bench.append("t", &["a"]);
    let request = FetchRequest { session_epoch: 0, ..fetch(&[("t", 0, 0), ("u", 0, 0)]) };
    let sent = bench.send_fetch(request);
    assert_ne!(bench.fetched(sent).session_id, 0);
    let sessions = bench.broker.metrics().sessions;
    assert_eq!((sessions.sessions, sessions.partitions, sessions.evictions), (1, 2, 0));
}

#[test]
fn a_produce_that_waits_for_the_disk_is_in_purgatory() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    bench.hold(is_sync);
    let sent = bench.send_batch("t", -1, batch(&["a"]));
    let metrics = bench.broker.metrics();
    assert_eq!((waits(&metrics), metrics.unanswered), ((1, 0), 1));
    bench.release();
    assert_eq!(bench.produced(sent).error_code, 0);
    let metrics = bench.broker.metrics();
    assert_eq!((waits(&metrics), metrics.unanswered), ((0, 0), 0));
}

#[test]
fn the_gauges_follow_what_is_there() {
    let mut bench = Bench::new(&[]);
    let before = bench.broker.metrics();
    assert_eq!(
        (before.state, before.controller.topics, before.replicas),
        (BrokerState::Running, 0, ReplicaMetrics::default())
    );
    bench.create("t", 3, &[]);
    bench.append("t", &["a", "b"]);
    let metrics = bench.broker.metrics();
    let replicas = ReplicaMetrics { partitions: 3, leaders: 3, at_min_isr: 3, ..ReplicaMetrics::default() };
    assert_eq!(metrics.replicas, replicas);
    let controller = &metrics.controller;
    assert_eq!((controller.is_active, controller.topics, controller.partitions), (true, 1, 3));
    assert_eq!((controller.active_brokers, controller.fenced_brokers, controller.offline_partitions), (1, 0, 0));
    let quorum = metrics.quorum.expect("a quorum of one");
    assert_eq!((quorum.state, quorum.leader, quorum.vote), ("leader", Some(NodeId(1)), Some(NodeId(1))));
    assert_eq!((quorum.voters, quorum.observers), (1, Some(0)));
    assert_eq!(quorum.log_end, quorum.high_watermark);
    assert_eq!(controller.last_applied + 1, quorum.high_watermark);
    let partition = bench.partition_metrics("t");
    assert_eq!((partition.segments, partition.log_start.0, partition.log_end.0), (1, 0, 2));
    assert_eq!(partition.size_bytes, batch(&["a", "b"]).len() as u64);
    assert_eq!(bench.partition_metrics("__cluster_metadata").log_end, quorum.log_end);

    bench.stop();
    assert_eq!(bench.broker.metrics().state, BrokerState::NotRunning);
}

#[test]
fn counters_do_not_fall_with_a_topic_and_begin_anew_with_a_life() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    bench.append("t", &["a", "b"]);
    bench.delete_topic("t");
    bench.pass(120_000);
    let metrics = bench.broker.metrics();
    assert!(metrics.topics.is_empty());
    assert_eq!((metrics.all_topics.messages_in, metrics.replicas.partitions), (2, 0));
    bench.create("u", 1, &[]);
    bench.append("u", &["c"]);
    bench.start();
    // Records that were appended before the start are not counted.
    assert_eq!(bench.broker.metrics().all_topics, TopicCounters::default());
    bench.append("u", &["d"]);
    assert_eq!(bench.counters("u").messages_in, 1);
}

#[test]
fn a_log_directory_that_fails_takes_its_partitions_offline_and_its_requests_have_failed() {
    let mut bench = Bench::with_two_log_dirs();
    bench.create("t", 1, &[]);
    bench.hold(is_sync);
    let sent = bench.send_batch("t", -1, batch(&["a"]));
    bench.disk_of_topics().fail_syncs = true;
    bench.release();
    assert_eq!(bench.produced(sent).error_code, code(ErrorCode::KafkaStorageError));
    let metrics = bench.broker.metrics();
    let online: Vec<bool> = metrics.directories.iter().map(|dir| dir.is_online).collect();
    assert_eq!(online, [true, false]);
    assert_eq!((metrics.replicas.partitions, metrics.replicas.offline, metrics.replicas.leaders), (0, 1, 0));
    assert!(!bench.partition_metrics("t").is_online);
    let sent = bench.send_batch("t", -1, batch(&["b"]));
    assert_eq!(bench.produced(sent).error_code, code(ErrorCode::KafkaStorageError));
    assert_eq!(bench.fetch(from("t", 0)).error_code, code(ErrorCode::KafkaStorageError));
    let counters = bench.counters("t");
    assert_eq!((counters.produce_requests, counters.failed_produce_requests), (2, 2));
    assert_eq!((counters.fetch_requests, counters.failed_fetch_requests), (1, 1));
}
