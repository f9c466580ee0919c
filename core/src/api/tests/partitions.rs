//! What changes for a partition when its configuration changes, its directory fails, its topic is deleted, or the
//! broker stops and starts.

use super::*;
use crate::batch::Codec;
use crate::wire::messages::describe_log_dirs_response::DescribeLogDirsTopic;
use crate::wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use crate::wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use crate::wire::messages::list_offsets_response::ListOffsetsPartitionResponse;
use crate::wire::messages::{DescribeLogDirsRequest, IncrementalAlterConfigsRequest, ListOffsetsRequest};

impl Bench {
    #[track_caller]
    fn set(&mut self, topic: &str, name: &str, value: &str) {
        let config = AlterableConfig { name: name.into(), value: Some(value.into()), ..Default::default() };
        let resource = AlterConfigsResource {
            resource_type: 2,
            resource_name: topic.into(),
            configs: vec![config],
            ..Default::default()
        };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
        match self.ask(1, RequestBody::IncrementalAlterConfigs(request)) {
            ResponseBody::IncrementalAlterConfigs(response) => assert_eq!(response.responses[0].error_code, 0),
            other => panic!("{other:?}"),
        }
    }

    /// Asks for the first record of partition 0 at or after a timestamp, on a connection that only this request uses.
    fn send_look_up(&mut self, topic: &str, timestamp: i64) -> i32 {
        let partitions = vec![ListOffsetsPartition { timestamp, ..Default::default() }];
        let topics = vec![ListOffsetsTopic { name: topic.into(), partitions, ..Default::default() }];
        let request = ListOffsetsRequest { topics, ..Default::default() };
        self.send_on(ConnId(3), 7, RequestBody::ListOffsets(request))
    }

    fn looked_up(&mut self, sent: i32) -> Option<ListOffsetsPartitionResponse> {
        match self.answer(sent)? {
            ResponseBody::ListOffsets(mut response) => Some(response.topics.remove(0).partitions.remove(0)),
            other => panic!("{other:?}"),
        }
    }

    fn look_up(&mut self, topic: &str, timestamp: i64) -> Option<ListOffsetsPartitionResponse> {
        let sent = self.send_look_up(topic, timestamp);
        self.looked_up(sent)
    }

    fn produce(&mut self, topic: &str, batch: Bytes) -> i16 {
        let sent = self.send_batch(topic, -1, batch);
        self.produced(sent).error_code
    }

    /// Reads a partition from its beginning. Gives the error and the bytes.
    fn read(&mut self, topic: &str, partition: i32, epoch: i32) -> (i16, Vec<u8>) {
        let mut request = fetch(&[(topic, partition, 0)]);
        request.max_wait_ms = 0;
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let answer = self.fetch(request);
        (answer.error_code, self.bytes(answer.records.as_ref().expect("records, be they empty")))
    }
}

#[test]
fn a_config_that_changes_holds_from_the_next_batch_on() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 2, &[]);
    let large = || batch(&[&"x".repeat(1_000)]);
    assert_eq!(bench.produce("t", large()), 0);
    bench.set("t", "max.message.bytes", "500");
    assert_eq!(bench.produce("t", large()), code(ErrorCode::MessageTooLarge));
    bench.set("t", "max.message.bytes", "5000");
    assert_eq!(bench.produce("t", large()), 0);
}

#[test]
fn a_topic_with_a_codec_stores_in_it_and_what_comes_in_it_as_it_comes() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[("compression.type", "gzip"), ("compression.gzip.level", "9")]);
    let compressible = "x".repeat(1_000);
    let in_codec = |codec: Codec, level| {
        BatchBuilder::new().compressed(codec, level).push(START_MS, None, Some(compressible.as_bytes()), &[]).build()
    };
    assert_eq!(bench.produce("t", in_codec(Codec::None, 0)), 0);
    assert_eq!(bench.produce("t", in_codec(Codec::Lz4, 9)), 0);
    let own = in_codec(Codec::Gzip, 1);
    assert_eq!(bench.produce("t", own.clone()), 0);
    let (_, stored) = bench.read("t", 0, -1);
    let stored = each_batch(&stored);
    assert!(stored.iter().all(|(header, _)| header.codec().unwrap() == Codec::Gzip), "{stored:?}");
    let batches: Vec<&[u8]> = stored.iter().map(|(_, content)| *content).collect();
    assert_eq!(batches.len(), 3);
    assert_eq!(batches[0], batches[1]);
    assert_eq!(batches[2], &own[BatchHeader::LEN..], "level 1 as it came");
    assert_ne!(batches[0], batches[2]);
}

#[test]
fn records_of_a_topic_that_is_only_compacted_cannot_be_deleted() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[("cleanup.policy", "compact")]);
    let keyed = BatchBuilder::new().push(START_MS, Some(b"k"), Some(b"v"), &[]).build();
    assert_eq!(bench.produce("t", keyed), 0);
    assert_eq!(bench.delete_records("t", 1), -1);
    bench.set("t", "cleanup.policy", "compact,delete");
    assert_eq!(bench.delete_records("t", 1), 1);
}

#[test]
fn records_of_an_internal_topic_cannot_be_deleted_and_a_partition_named_twice_is_answered_once() {
    let mut bench = Bench::new(&[]);
    bench.create("__consumer_offsets", 1, &[]);
    bench.create("t", 1, &[]);
    assert_eq!(bench.append("t", &["a", "b"]), 0);
    let topic = |name: &str, asked: &[(i32, i64)]| {
        let partition = |&(partition_index, offset): &(i32, i64)| DeleteRecordsPartition {
            partition_index,
            offset,
            ..Default::default()
        };
        DeleteRecordsTopic {
            name: name.into(),
            partitions: asked.iter().map(partition).collect(),
            ..Default::default()
        }
    };
    let topics = vec![topic("__consumer_offsets", &[(0, 0), (1, 0)]), topic("t", &[(0, 9)]), topic("t", &[(0, 1)])];
    let request = DeleteRecordsRequest { topics, timeout_ms: 1_000, ..Default::default() };
    let response = match bench.ask(2, RequestBody::DeleteRecords(request)) {
        ResponseBody::DeleteRecords(response) => response,
        other => panic!("{other:?}"),
    };
    let told: Vec<_> = response
        .topics
        .iter()
        .flat_map(|topic| {
            topic.partitions.iter().map(|p| (&*topic.name, p.partition_index, p.low_watermark, p.error_code))
        })
        .collect();
    assert_eq!(
        told,
        [
            ("__consumer_offsets", 0, -1, code(ErrorCode::InvalidTopicException)),
            ("__consumer_offsets", 1, -1, code(ErrorCode::UnknownTopicOrPartition)),
            ("t", 0, 1, 0),
        ]
    );
}

#[test]
fn the_first_retention_runs_after_the_initial_delay() {
    let mut bench = Bench::new(&[("log.initial.task.delay.ms", "2000")]);
    bench.create("t", 1, &[("retention.ms", "1000")]);
    bench.append("t", &["a"]);
    bench.pass(1_900);
    assert_eq!(bench.look_up("t", -2).expect("an answer").offset, 0);
    bench.pass(200);
    assert_eq!(bench.look_up("t", -2).expect("an answer").offset, 1);
}

#[test]
fn a_compacted_topic_rolls_a_segment_at_its_compaction_lag_at_the_latest() {
    let mut bench = Bench::new(&[]);
    let mut segment_ms = |name: &str, configs: &[(&str, &str)]| {
        let id = bench.create(name, 1, configs);
        bench.broker.parts().settings_of(id).expect("the topic exists").0.segment_ms
    };
    let (lag, compact) = (("max.compaction.lag.ms", "1000"), ("cleanup.policy", "compact"));
    assert_eq!(segment_ms("a", &[lag, compact]), 1_000);
    assert_eq!(segment_ms("b", &[lag, compact, ("segment.ms", "500")]), 500);
    assert_eq!(segment_ms("c", &[lag, ("segment.ms", "5000")]), 5_000);
}

#[test]
fn a_directory_that_fails_takes_its_own_partitions_alone() {
    let mut bench = Bench::with_two_log_dirs();
    bench.create("t", 4, &[]);
    let on_second: Vec<i32> = (0..4).filter(|index| bench.disks[1].content(&log_of(*index)).is_some()).collect();
    assert!(on_second.contains(&0) && on_second.len() < 4, "{on_second:?}");
    for partition in 0..4 {
        let sent = bench.send_batch_on(CONN, "t", -1, partition, batch(&["a"]));
        assert_eq!(bench.produced(sent).error_code, 0);
    }
    bench.disk_of_topics().fail_writes = true;
    assert_eq!(bench.produce("t", batch(&["b"])), code(ErrorCode::KafkaStorageError));
    for partition in 0..4 {
        let (error, _) = bench.read("t", partition, -1);
        let expected = if on_second.contains(&partition) { ErrorCode::KafkaStorageError } else { ErrorCode::None };
        assert_eq!(error, code(expected), "t-{partition}");
    }
    // The controller has heard of it: what is created from now on lies in the other directory.
    bench.create("after", 3, &[]);
    for partition in 0..3 {
        let sent = bench.send_batch_on(CONN, "after", -1, partition, batch(&["a"]));
        assert_eq!(bench.produced(sent).error_code, 0, "after-{partition}");
    }
    bench.stop();
    assert!(bench.stopped, "a directory that is offline holds up no stop");
}

fn log_of(partition: i32) -> String {
    format!("t-{partition}/00000000000000000000.log")
}

#[test]
fn whoever_waits_for_a_topic_that_is_deleted_is_told_so() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    bench.hold(is_sync);
    let waits = bench.send_batch("t", -1, batch(&["a"]));
    // The commit of the deletion waits for a sync too.
    bench.send_on(ConnId(2), 6, delete_topic("t"));
    assert_eq!(bench.answer(waits), None);
    bench.release_last();
    // It was appended before the topic went: the answer says where, as Kafka's does.
    let answer = bench.produced(waits);
    assert_eq!((answer.error_code, answer.base_offset), (code(ErrorCode::UnknownTopicOrPartition), 0));
    bench.release();
    assert_eq!(bench.read("t", 0, -1).0, code(ErrorCode::UnknownTopicOrPartition));

    // A topic of the same name is another one.
    bench.pass(120_000);
    bench.create("t", 1, &[]);
    assert_eq!(bench.append("t", &["new"]), 0);
    assert_eq!(
        bench.disks[0].names().iter().filter(|name| name.ends_with(".log") && name.starts_with("t-")).count(),
        1
    );
}

#[test]
fn every_start_leads_in_a_new_epoch_and_keeps_all_records() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    bench.append("t", &["a"]);
    let (_, before) = bench.read("t", 0, 0);
    bench.stop();
    assert!(bench.stopped);
    bench.start();
    // The stop has taken the leadership in an epoch of its own.
    assert_eq!(bench.read("t", 0, 2), (0, before.clone()));
    assert_eq!(bench.append("t", &["b"]), 1);
    // A start without a clean stop before it.
    bench.start();
    for earlier in [0, 1, 2, 3] {
        assert_eq!(bench.read("t", 0, earlier).0, code(ErrorCode::FencedLeaderEpoch));
    }
    assert_eq!(bench.read("t", 0, 5).0, code(ErrorCode::UnknownLeaderEpoch));
    let (error, both) = bench.read("t", 0, 4);
    assert_eq!((error, &both[..before.len()]), (0, &before[..]));
    assert_eq!(BatchHeader::parse(&both[before.len()..]).unwrap().leader_epoch.0, 2);
    assert_eq!(bench.look_up("t", -1).map(|answer| (answer.offset, answer.leader_epoch)), Some((2, 4)));
}

#[test]
fn no_checkpoint_is_written_of_a_log_that_is_still_being_read() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    bench.append("t", &["a"]);
    bench.stop();
    let file = "recovery-point-offset-checkpoint";
    let line = |bench: &Bench| {
        let text = str::from_utf8(bench.disks[0].content(file).expect("a clean stop writes it")).expect("text");
        text.lines().find(|line| line.starts_with("t ")).map(str::to_owned)
    };
    assert_eq!(line(&bench).as_deref(), Some("t 0 1"));
    bench.hold(|op| matches!(op, IoOp::Open { path, .. } if path.path.starts_with("t-0/")));
    assert!(!bench.boot());
    bench.pass(120_000);
    assert_eq!(line(&bench).as_deref(), Some("t 0 1"));
    bench.release();
    assert_eq!(bench.read("t", 0, -1).0, 0);
}

#[test]
fn who_waits_for_a_read_of_a_directory_that_fails_is_told_so() {
    let mut bench = Bench::with_two_log_dirs();
    bench.create("t", 3, &[]);
    let large = "x".repeat(5_000);
    for timestamp in 0..3 {
        let batch = BatchBuilder::new().push(START_MS + timestamp, None, Some(large.as_bytes()), &[]).build();
        assert_eq!(bench.produce("t", batch), 0);
    }
    // A start after a clean stop knows the first batches only by the index.
    bench.stop();
    bench.start();
    bench.hold(|op| matches!(op, IoOp::Read { .. }));
    let fetch = bench.send_fetch(from("t", 1));
    let look_up = bench.send_look_up("t", START_MS + 1);
    assert_eq!(bench.waiting.len(), 2, "{:?}", bench.waiting);
    let beside = (1..3).find(|index| bench.disks[1].content(&log_of(*index)).is_some()).expect("another of t");
    bench.disk_of_topics().fail_writes = true;
    let failed = bench.send_batch_on(ConnId(4), "t", -1, beside, batch(&["a"]));
    assert_eq!(bench.produced(failed).error_code, code(ErrorCode::KafkaStorageError));
    assert_eq!(only(bench.fetched(fetch)).error_code, code(ErrorCode::KafkaStorageError));
    let answer = bench.looked_up(look_up).expect("an answer");
    assert_eq!((answer.error_code, answer.offset), (code(ErrorCode::KafkaStorageError), -1));
}

#[test]
fn a_stop_waits_for_what_is_being_made_stable() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    bench.hold(is_sync);
    let waits = bench.send_batch("t", -1, batch(&["a"]));
    bench.stop();
    assert!(!bench.stopped);
    assert_eq!(bench.answer(waits), None);
    bench.release();
    bench.pass(50);
    assert_eq!(bench.produced(waits).error_code, 0);
    assert!(bench.stopped);
}

/// The names in a log directory that are partitions of the topic `t`.
fn partitions_in(bench: &Bench, dir: usize) -> usize {
    let names = bench.disks[dir].names();
    names.iter().filter(|name| name.starts_with("t-") && name.ends_with("/partition.metadata")).count()
}

fn described_dirs(bench: &mut Bench) -> Vec<(String, usize)> {
    match bench.ask(4, RequestBody::DescribeLogDirs(DescribeLogDirsRequest { topics: None, ..Default::default() })) {
        ResponseBody::DescribeLogDirs(response) => {
            let partitions = |topics: &[DescribeLogDirsTopic]| topics.iter().map(|topic| topic.partitions.len()).sum();
            response.results.iter().map(|dir| (dir.log_dir.to_string(), partitions(&dir.topics))).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_directory_of_the_metadata_log_alone_takes_no_partitions_and_is_no_log_directory() {
    let mut bench = Bench::new(&[("log.dirs", "a,b"), ("metadata.log.dir", "meta")]);
    bench.create("t", 6, &[]);
    bench.append("t", &["x"]);
    assert_eq!([0, 1, 2].map(|dir| partitions_in(&bench, dir)), [3, 3, 0]);
    let expected = [("a".to_owned(), 3), ("b".to_owned(), 3)];
    assert_eq!(described_dirs(&mut bench), expected);
    bench.start();
    assert_eq!(described_dirs(&mut bench), expected, "after a start too");
}

#[test]
fn partitions_that_lie_in_the_directory_of_the_metadata_log_stay_and_are_served() {
    let mut bench = Bench::new(&[("log.dirs", "a,meta"), ("metadata.log.dir", "meta")]);
    bench.create("t", 4, &[]);
    bench.append("t", &["x"]);
    bench.stop();
    // From now on `meta` is none of log.dirs.
    (bench.config, _) = BrokerConfig::from_properties([("log.dirs", "a"), ("metadata.log.dir", "meta")]).unwrap();
    bench.start();
    assert_eq!(described_dirs(&mut bench), [("a".to_owned(), 2), ("meta".to_owned(), 2)]);
    assert_eq!(bench.append("t", &["y"]), 1, "the records are there");
    bench.create("u", 4, &[]);
    assert_eq!(described_dirs(&mut bench), [("a".to_owned(), 6), ("meta".to_owned(), 2)], "new ones go elsewhere");
}
