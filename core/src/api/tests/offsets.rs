//! ListOffsets and OffsetForLeaderEpoch: what is asked twice, what is not known, and the shape of the answers.

use super::*;
use crate::wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use crate::wire::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use crate::wire::messages::{ListOffsetsRequest, OffsetForLeaderEpochRequest};

/// One topic of an answer: its name, and for each partition the index, the error and the offset.
type Told = (String, Vec<(i32, i16, i64)>);

/// Asks for the end of partitions.
#[track_caller]
fn ends(bench: &mut Bench, isolation_level: i8, asked: &[(&str, &[i32])]) -> Vec<Told> {
    let topics = asked.iter().map(|(name, partitions)| {
        let partition = |partition_index: &i32| ListOffsetsPartition {
            partition_index: *partition_index,
            timestamp: -1,
            ..Default::default()
        };
        ListOffsetsTopic {
            name: (*name).into(),
            partitions: partitions.iter().map(partition).collect(),
            ..Default::default()
        }
    });
    let request = ListOffsetsRequest { isolation_level, topics: topics.collect(), ..Default::default() };
    let response = match bench.ask(7, RequestBody::ListOffsets(request)) {
        ResponseBody::ListOffsets(response) => response,
        other => panic!("{other:?}"),
    };
    let topics = response.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|of| (of.partition_index, of.error_code, of.offset));
        (topic.name.to_string(), partitions.collect())
    });
    topics.collect()
}

#[test]
fn each_partition_is_answered_once_and_each_topic_in_one_place() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 2, &[]);
    bench.create("u", 1, &[]);
    bench.append("t", &["a"]);
    let twice = code(ErrorCode::InvalidRequest);
    let topic = |name: &str, partitions: &[(i32, i16, i64)]| (name.to_owned(), partitions.to_vec());
    assert_eq!(ends(&mut bench, 0, &[("t", &[0, 1, 0])]), [topic("t", &[(0, twice, -1), (1, 0, 0)])]);
    let scattered: &[(&str, &[i32])] = &[("t", &[1]), ("u", &[0]), ("t", &[0])];
    assert_eq!(ends(&mut bench, 0, scattered), [topic("t", &[(1, 0, 0), (0, 0, 1)]), topic("u", &[(0, 0, 0)])]);
    let twice_apart: &[(&str, &[i32])] = &[("t", &[0]), ("t", &[0, 1])];
    assert_eq!(ends(&mut bench, 0, twice_apart), [topic("t", &[(0, twice, -1), (1, 0, 0)])]);
    assert_eq!(ends(&mut bench, 0, &[("t", &[]), ("u", &[0])]), [topic("u", &[(0, 0, 0)])]);
    assert_eq!(ends(&mut bench, 0, &[]), []);
}

#[test]
fn an_isolation_level_that_does_not_exist_refuses_everything_in_the_shape_of_the_request() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    let failed = (code(ErrorCode::UnknownServerError), -1);
    let asked: &[(&str, &[i32])] = &[("t", &[0, 0]), ("none", &[3]), ("u", &[])];
    for level in [2, -1] {
        let (error, offset) = failed;
        let expected = [
            ("t".to_owned(), vec![(0, error, offset), (0, error, offset)]),
            ("none".to_owned(), vec![(3, error, offset)]),
            ("u".to_owned(), vec![]),
        ];
        assert_eq!(ends(&mut bench, level, asked), expected);
        assert_eq!(ends(&mut bench, level, &[]), []);
    }
    assert_eq!(ends(&mut bench, 1, &[("t", &[0])]), [("t".to_owned(), vec![(0, 0, 0)])]);
}

#[test]
fn only_minus_one_stands_for_a_leader_epoch_that_is_not_known() {
    let mut bench = Bench::new(&[]);
    bench.create("t", 1, &[]);
    let fenced = code(ErrorCode::FencedLeaderEpoch);
    for (current_leader_epoch, error) in [(-1, 0), (0, 0), (-2, fenced), (i32::MIN, fenced)] {
        let asked = ListOffsetsPartition { current_leader_epoch, timestamp: -1, ..Default::default() };
        let topics = vec![ListOffsetsTopic { name: "t".into(), partitions: vec![asked], ..Default::default() }];
        match bench.ask(7, ListOffsetsRequest { topics, ..Default::default() }.into()) {
            ResponseBody::ListOffsets(response) => assert_eq!(response.topics[0].partitions[0].error_code, error),
            other => panic!("{other:?}"),
        }
        let asked = OffsetForLeaderPartition { current_leader_epoch, ..Default::default() };
        let topics = vec![OffsetForLeaderTopic { topic: "t".into(), partitions: vec![asked], ..Default::default() }];
        match bench.ask(4, OffsetForLeaderEpochRequest { topics, ..Default::default() }.into()) {
            ResponseBody::OffsetForLeaderEpoch(response) => {
                assert_eq!(response.topics[0].partitions[0].error_code, error);
            }
            other => panic!("{other:?}"),
        }
    }
}
