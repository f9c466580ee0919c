//! What becomes of a partition: its configuration, its directory, its topic, the broker's stop and next start.

use super::*;
use crate::batch::Codec;
use crate::wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use crate::wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use crate::wire::messages::list_offsets_response::ListOffsetsPartitionResponse;
use crate::wire::messages::{IncrementalAlterConfigsRequest, ListOffsetsRequest};

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

    /// Asks on a connection of its own for the first record of partition 0 at a time.
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

    /// What a partition of a topic is answered when it is read from its beginning: the error, and the bytes.
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
    // What the controller decides is held up as well.
    bench.send_on(ConnId(2), 6, delete_topic("t"));
    assert_eq!(bench.answer(waits), None);
    bench.release_last();
    let answer = bench.produced(waits);
    assert_eq!((answer.error_code, answer.base_offset), (code(ErrorCode::UnknownTopicOrPartition), -1));
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
    assert_eq!(bench.read("t", 0, 1), (0, before.clone()));
    assert_eq!(bench.append("t", &["b"]), 1);
    // Without a clean stop.
    bench.start();
    for earlier in [0, 1] {
        assert_eq!(bench.read("t", 0, earlier).0, code(ErrorCode::FencedLeaderEpoch));
    }
    assert_eq!(bench.read("t", 0, 3).0, code(ErrorCode::UnknownLeaderEpoch));
    let (error, both) = bench.read("t", 0, 2);
    assert_eq!((error, &both[..before.len()]), (0, &before[..]));
    assert_eq!(BatchHeader::parse(&both[before.len()..]).unwrap().leader_epoch.0, 1);
    assert_eq!(bench.look_up("t", -1).map(|answer| (answer.offset, answer.leader_epoch)), Some((2, 2)));
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
    // A start after a clean stop knows of the first batches what the index says, and no more.
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
    assert_eq!(bench.produced(waits).error_code, 0);
    assert!(bench.stopped);
}
