//! The log and its snapshots, as one leader gives them and one follower takes them (KIP-595, KIP-630).

use super::harness::{key, voter};
use super::messages::{fetch, fetch_snapshot, fetched};
use super::solo::{Solo, begins, record};
use crate::*;
use tidelog_batch::ControlRecord;
use tidelog_storage::io::IoErrorKind;
use tidelog_wire::ids::Uuid;
use tidelog_wire::messages::fetch_response::{EpochEndOffset, SnapshotId};
use tidelog_wire::messages::fetch_snapshot_response::{self as snapshot_response, FetchSnapshotResponse};
use tidelog_wire::messages::{FetchRequest, FetchSnapshotRequest};
use tidelog_wire::{ApiKey, ErrorCode, Records};

/// What a fetch is answered with.
#[derive(Debug, PartialEq)]
enum Told {
    Error(ErrorCode),
    /// So many bytes of records, and the high watermark.
    Records(u64, i64),
    Diverging(i32, i64),
    Snapshot(i64, i32),
}

fn told(answer: ResponseBody) -> Told {
    let ResponseBody::Fetch(answer) = answer else { unreachable!() };
    let Some(topic) = answer.responses.first() else {
        return Told::Error(ErrorCode::from_code(answer.error_code).unwrap());
    };
    let partition = &topic.partitions[0];
    match ErrorCode::from_code(partition.error_code).unwrap() {
        ErrorCode::None if partition.diverging_epoch.epoch >= 0 => {
            Told::Diverging(partition.diverging_epoch.epoch, partition.diverging_epoch.end_offset)
        }
        ErrorCode::None if partition.snapshot_id.epoch >= 0 => {
            Told::Snapshot(partition.snapshot_id.end_offset, partition.snapshot_id.epoch)
        }
        ErrorCode::None => {
            let records = partition.records.as_ref().map_or(0, |records| records.len() as u64);
            Told::Records(records, partition.high_watermark)
        }
        error => Told::Error(error),
    }
}

fn ask(solo: &mut Solo, request: FetchRequest) -> Told {
    told(solo.request(17, request))
}

/// A fetch that may wait for records.
fn patient(offset: i64, high_watermark: i64) -> FetchRequest {
    let mut request = FetchRequest { max_wait_ms: 500, ..fetch(2, 1, offset, 1) };
    request.topics[0].partitions[0].high_watermark = high_watermark;
    request
}

/// Node 1 leads in epoch 1. Its log has three records of its own and one more; all are committed.
fn leader() -> Solo {
    let mut solo = Solo::of_recorded_voters(1);
    solo.lead();
    solo.propose("a");
    let _ = solo.request(17, fetch(2, 1, 4, 1));
    assert_eq!(solo.quorum.committed(), Offset(4));
    solo
}

#[test]
fn a_fetch_that_makes_no_sense_is_refused() {
    let mut solo = leader();
    let invalid = Told::Error(ErrorCode::InvalidRequest);
    let other = FetchRequest { cluster_id: Some("other".into()), ..fetch(2, 1, 4, 1) };
    assert_eq!(ask(&mut solo, other), Told::Error(ErrorCode::InconsistentClusterId));
    assert_eq!(ask(&mut solo, FetchRequest { topics: Vec::new(), ..fetch(2, 1, 4, 1) }), invalid);
    let mut request = fetch(2, 1, 4, 1);
    request.topics[0].topic = "other".into();
    assert_eq!(ask(&mut solo, request.clone()), invalid);
    request.topics[0].topic_id = Uuid::METADATA_TOPIC;
    assert_eq!(ask(&mut solo, request), Told::Records(0, 4), "newer versions name the topic by its id");
    let mut request = fetch(2, 1, 4, 1);
    request.topics[0].partitions[0].partition = 1;
    assert_eq!(ask(&mut solo, request), invalid);
    assert_eq!(ask(&mut solo, FetchRequest { max_wait_ms: -1, ..fetch(2, 1, 4, 1) }), invalid);
    assert_eq!(ask(&mut solo, fetch(2, 1, -1, 1)), invalid);
    assert_eq!(ask(&mut solo, fetch(2, 1, 4, -1)), invalid);
    assert_eq!(ask(&mut solo, fetch(2, 1, 4, 2)), invalid, "no record is of an epoch to come");
    assert_eq!(ask(&mut solo, fetch(2, 0, 4, 0)), Told::Error(ErrorCode::FencedLeaderEpoch));
    assert_eq!(ask(&mut solo, fetch(2, 2, 4, 1)), Told::Error(ErrorCode::UnknownLeaderEpoch));
    assert_eq!(ask(&mut solo, fetch(1, 1, 4, 1)), Told::Error(ErrorCode::UnknownServerError), "it is this node's id");
    assert_eq!(ask(&mut solo, fetch(1, 0, 4, 0)), Told::Error(ErrorCode::FencedLeaderEpoch));
    let ResponseBody::Fetch(refused) = solo.request(17, fetch(2, 0, 4, 0)) else { unreachable!() };
    assert_eq!(refused.responses[0].partitions[0].high_watermark, -1, "a refusal tells none");
}

#[test]
fn a_fetch_gets_records_or_hears_where_the_logs_part() {
    let mut solo = leader();
    let Told::Records(all, 4) = ask(&mut solo, fetch(2, 1, 0, 0)) else { panic!("not the whole log") };
    let Told::Records(last, 4) = ask(&mut solo, fetch(2, 1, 3, 1)) else { panic!("not the last record") };
    assert!(all > last && last > 0);
    assert_eq!(ask(&mut solo, fetch(2, 1, 4, 1)), Told::Records(0, 4));
    assert_eq!(ask(&mut solo, fetch(2, 1, 5, 1)), Told::Diverging(1, 4));
    assert_eq!(ask(&mut solo, fetch(2, 1, 2, 0)), Told::Diverging(0, 0), "the leader has no record of epoch 0");
}

#[test]
fn a_fetch_waits_for_records_or_for_what_is_committed() {
    let mut solo = leader();
    assert_eq!(ask(&mut solo, patient(4, 3)), Told::Records(0, 4), "it did not know the high watermark");
    let id = solo.send(17, patient(4, 4));
    solo.pass_ms(499);
    assert_eq!(solo.answer_to(id).map(told), None);
    assert_eq!(solo.quorum.deadline(solo.now()), Some(Mono::ZERO.plus_ms(solo.ms + 1)));
    solo.pass_ms(1);
    assert_eq!(solo.answer_to(id).map(told), Some(Told::Records(0, 4)));

    let id = solo.send(17, patient(4, 4));
    solo.propose("b");
    assert!(matches!(solo.answer_to(id).map(told), Some(Told::Records(1.., 4))));
    // The record is committed by another voter's fetch.
    let id = solo.send(17, FetchRequest { max_wait_ms: 500, ..fetch(9, 1, 5, 1) });
    assert_eq!(solo.answer_to(id).map(told), Some(Told::Records(0, 4)), "it knows no high watermark");
    let mut request = FetchRequest { max_wait_ms: 500, ..fetch(9, 1, 5, 1) };
    request.topics[0].partitions[0].high_watermark = 4;
    let id = solo.send(17, request);
    assert_eq!(solo.answer_to(id).map(told), None);
    let _ = solo.request(17, fetch(2, 1, 5, 1));
    assert_eq!(solo.answer_to(id).map(told), Some(Told::Records(0, 5)));
    // Nobody waits longer than half a minute, and nobody behind the end of the leadership.
    let id = solo.send(17, FetchRequest { max_wait_ms: i32::MAX, ..patient(5, 5) });
    for _ in 0..60 {
        solo.pass_ms(500);
        let _ = solo.request(17, fetch(3, 1, 5, 1));
    }
    assert_eq!(solo.answer_to(id).map(told), Some(Told::Records(0, 5)));
    let id = solo.send(17, patient(5, 5));
    solo.follow(2, 7);
    assert_eq!(solo.answer_to(id).map(told), Some(Told::Error(ErrorCode::NotLeaderOrFollower)));
}

#[test]
fn a_debugging_reader_that_is_no_replica_acknowledges_nothing() {
    let mut solo = leader();
    solo.propose("b");
    let mut request = fetch(2, 1, 5, 1);
    request.replica_state.replica_id = -1;
    assert_eq!(ask(&mut solo, request), Told::Records(0, 4));
    assert_eq!(solo.quorum.observers(), Some(0));
    let mut request = fetch(2, 1, 5, 1);
    request.replica_state.replica_id = -1;
    request.replica_id = 2;
    assert_eq!(ask(&mut solo, request), Told::Records(0, 5), "older versions name the replica elsewhere");
}

/// The same leader with a snapshot of all that is committed, and with one record behind it.
fn with_snapshot() -> Solo {
    let mut solo = leader();
    solo.act(|quorum, now, out| {
        quorum.snapshot(now, Offset(4), &[record("a").encode(0)], out);
        Vec::new()
    });
    solo.propose("b");
    let _ = solo.request(17, fetch(2, 1, 5, 1));
    solo
}

#[test]
fn a_new_replica_begins_with_the_newest_snapshot() {
    let mut solo = with_snapshot();
    assert_eq!(ask(&mut solo, fetch(2, 1, 0, 0)), Told::Snapshot(4, 1));
    assert!(matches!(ask(&mut solo, fetch(2, 1, 4, 1)), Told::Records(1.., 5)));
    assert_eq!(ask(&mut solo, fetch(2, 1, 3, 0)), Told::Snapshot(4, 1), "no record of epoch 0 is known any more");
}

#[test]
fn a_replica_whose_records_are_gone_from_the_log_gets_the_newest_snapshot() {
    let mut solo = with_snapshot();
    solo.act(|quorum, now, out| quorum.resign(now, out));
    solo.lead();
    let epoch = solo.quorum.epoch().0;
    let end = solo.quorum.log_end();
    let _ = solo.request(17, fetch(2, epoch, end.0, epoch));
    solo.act(|quorum, now, out| {
        quorum.snapshot(now, end, &[], out);
        Vec::new()
    });
    // The log starts at 4, behind a record of epoch 1; the snapshots end there and at the end.
    assert_eq!(solo.quorum.log().unwrap().log_start_offset(), Offset(4));
    let newest = Told::Snapshot(end.0, epoch);
    let mut ask = |offset, last_epoch| ask(&mut solo, fetch(2, epoch, offset, last_epoch));
    assert!(matches!(ask(4, 1), Told::Records(1.., _)));
    assert_eq!(ask(4, 2), newest, "it has another record in front of the log");
    assert_eq!(ask(3, 1), newest);
    assert_eq!(ask(5, 0), newest, "of an epoch before the oldest snapshot");
    assert!(matches!(ask(5, 1), Told::Records(1.., _)));
    assert_eq!(ask(9, 1), Told::Diverging(1, 5));
}

/// Node 1 leads, and has read nothing of the many segments of its log since it started. Its disk waits.
fn leader_of_long_log() -> Solo {
    let mut solo = leader();
    for number in 0..60 {
        solo.propose(&"-".repeat(100 + number));
    }
    let mut solo = solo.restart_after_checkpoint();
    solo.lead();
    solo.disk_waits = true;
    solo
}

#[test]
fn fetches_that_wait_for_the_disk_are_answered_each_with_what_it_asked_for() {
    let mut solo = leader_of_long_log();
    let epoch = solo.quorum.epoch().0;
    let asked = [(2, 5), (3, 4)].map(|(replica, offset)| {
        let mut request = fetch(replica, epoch, offset, 1);
        request.max_bytes = 1;
        solo.send(17, request)
    });
    assert_eq!(asked.map(|id| solo.answer_to(id).map(told)), [None, None], "neither is in memory");
    while solo.step().is_some() {}
    let [Some(Told::Records(larger, _)), Some(Told::Records(smaller, _))] =
        asked.map(|id| solo.answer_to(id).map(told))
    else {
        panic!("not answered")
    };
    assert_eq!(larger, smaller + 1);
}

#[test]
fn a_read_that_is_not_over_when_the_node_stops_does_no_harm() {
    let mut solo = leader_of_long_log();
    let id = solo.send(17, fetch(2, solo.quorum.epoch().0, 5, 1));
    assert_eq!(solo.answer_to(id).map(told), None);
    solo.act(|quorum, now, out| quorum.close(now, out));
    solo.pass_ms(5_000);
    while solo.step().is_some() {}
    assert!(solo.answer_to(id).is_some());
    assert_eq!(solo.failure(), None);
    assert!(solo.events.iter().any(|event| matches!(event, QuorumEvent::Closed)));
}

/// The error of an answer to FetchSnapshot, or else the size, the position and the bytes of it.
fn chunk(solo: &mut Solo, request: FetchSnapshotRequest) -> Result<(i64, i64, usize), ErrorCode> {
    let ResponseBody::FetchSnapshot(answer) = solo.request(1, request) else { unreachable!() };
    let Some(topic) = answer.topics.first() else { return Err(ErrorCode::from_code(answer.error_code).unwrap()) };
    let partition = &topic.partitions[0];
    match ErrorCode::from_code(partition.error_code).unwrap() {
        ErrorCode::None => Ok((partition.size, partition.position, partition.unaligned_records.len())),
        error => Err(error),
    }
}

#[test]
fn a_snapshot_is_given_piece_by_piece() {
    let mut solo = with_snapshot();
    let (size, 0, 50) = chunk(&mut solo, fetch_snapshot(1, 4, 1, 0)).unwrap() else { panic!("not the first piece") };
    assert_eq!(chunk(&mut solo, fetch_snapshot(1, 4, 1, 50)), Ok((size, 50, 50)));
    assert_eq!(chunk(&mut solo, fetch_snapshot(1, 4, 1, size - 1)), Ok((size, size - 1, 1)));
    assert_eq!(chunk(&mut solo, fetch_snapshot(1, 4, 1, size)), Err(ErrorCode::PositionOutOfRange));
    assert_eq!(chunk(&mut solo, fetch_snapshot(1, 4, 1, -1)), Err(ErrorCode::PositionOutOfRange));
    assert_eq!(chunk(&mut solo, fetch_snapshot(1, 3, 1, 0)), Err(ErrorCode::SnapshotNotFound));
    assert_eq!(chunk(&mut solo, fetch_snapshot(1, 0, 0, 0)), Err(ErrorCode::SnapshotNotFound), "formatting wrote it");
    assert_eq!(chunk(&mut solo, fetch_snapshot(0, 4, 1, 0)), Err(ErrorCode::FencedLeaderEpoch));
    assert_eq!(chunk(&mut solo, fetch_snapshot(2, 4, 1, 0)), Err(ErrorCode::UnknownLeaderEpoch));
    let other = FetchSnapshotRequest { cluster_id: Some("other".into()), ..fetch_snapshot(1, 4, 1, 0) };
    assert_eq!(chunk(&mut solo, other), Err(ErrorCode::InconsistentClusterId));
    let none = FetchSnapshotRequest { topics: Vec::new(), ..fetch_snapshot(1, 4, 1, 0) };
    assert_eq!(chunk(&mut solo, none), Err(ErrorCode::InvalidRequest));
    let mut request = fetch_snapshot(1, 4, 1, 0);
    request.topics[0].partitions[0].partition = 1;
    assert_eq!(chunk(&mut solo, request), Err(ErrorCode::UnknownTopicOrPartition));
    let whole = FetchSnapshotRequest { max_bytes: i32::MAX, ..fetch_snapshot(1, 4, 1, 0) };
    assert_eq!(chunk(&mut solo, whole), Ok((size, 0, size as usize)));
}

/// KAFKA-15489: a leader resigns if no majority fetches. Fetching a snapshot is a sign of life too.
#[test]
fn a_follower_that_fetches_a_snapshot_keeps_its_leader() {
    let mut solo = with_snapshot();
    for _ in 0..20 {
        solo.pass_ms(500);
        let mut request = fetch_snapshot(1, 4, 1, 0);
        request.topics[0].partitions[0].replica_directory_id = key(2).wire_directory();
        chunk(&mut solo, request).unwrap();
    }
    assert_eq!(solo.quorum.role().name(), "leader");
    solo.pass_ms(3_000);
    assert_eq!(solo.quorum.role().name(), "resigned");
}

/// The snapshot of a leader that meets this error when it writes it. Returns the failure, and the log of the operator.
fn writing_fails(kind: IoErrorKind) -> (Solo, Option<String>) {
    let mut solo = leader();
    solo.replace_error = Some(kind);
    solo.act(|quorum, now, out| {
        quorum.snapshot(now, Offset(4), &[], out);
        Vec::new()
    });
    let failure = solo.failure().map(str::to_owned);
    (solo, failure)
}

#[test]
fn a_snapshot_for_which_there_is_no_room_is_written_later_and_other_errors_end_the_quorum() {
    let (mut solo, failure) = writing_fails(IoErrorKind::NoSpace);
    assert_eq!(failure, None);
    assert!(solo.log.iter().any(|text| text.contains("is not written")), "{:?}", solo.log);
    assert!(solo.quorum.can_snapshot(Offset(4)));
    solo.act(|quorum, now, out| {
        quorum.snapshot(now, Offset(4), &[], out);
        Vec::new()
    });
    assert_eq!(ask(&mut solo, fetch(2, 1, 0, 0)), Told::Snapshot(4, 1));
    assert!(writing_fails(IoErrorKind::Other).1.is_some());
}

#[test]
fn two_snapshots_are_kept_and_one_that_is_being_read() {
    let mut solo = with_snapshot();
    let first = names::metadata_snapshot_file(Offset(4), LeaderEpoch(1));
    let has_first = |solo: &Solo| solo.disk.names().iter().any(|name| name.ends_with(&first));
    chunk(&mut solo, fetch_snapshot(1, 4, 1, 0)).unwrap();
    let next = |solo: &mut Solo| {
        solo.propose("c");
        let end = solo.quorum.log_end();
        let _ = solo.request(17, fetch(2, 1, end.0, 1));
        solo.act(|quorum, now, out| {
            quorum.snapshot(now, end, &[], out);
            Vec::new()
        });
    };
    (0..4).for_each(|_| next(&mut solo));
    assert!(has_first(&solo), "a follower reads it");
    assert!(chunk(&mut solo, fetch_snapshot(1, 4, 1, 0)).is_ok());
    for _ in 0..120 {
        solo.pass_ms(500);
        let end = solo.quorum.log_end();
        let _ = solo.request(17, fetch(2, 1, end.0, 1));
    }
    let closed = |solo: &Solo| solo.closed.iter().filter(|file| file.0 >> 32 == u64::from(u32::MAX)).count();
    assert_eq!(closed(&solo), 0);
    next(&mut solo);
    assert!(!has_first(&solo), "it was not read for a minute");
    assert_eq!(closed(&solo), 1, "nobody reads it any more");
    assert_eq!(chunk(&mut solo, fetch_snapshot(1, 4, 1, 0)), Err(ErrorCode::SnapshotNotFound));
    let left = solo.disk.names().into_iter().filter(|name| name.ends_with(".checkpoint")).count();
    assert_eq!(left, 2);
    assert!(solo.quorum.log().unwrap().log_start_offset() > Offset(4), "the log is trimmed");
}

// The follower.

/// Node 1 follows node 2 in epoch 5.
pub fn follower() -> Solo {
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    solo
}

pub fn batch(base: i64, epoch: i32, names: &[&str]) -> Bytes {
    let values: Vec<Bytes> = names.iter().map(|name| record(name).encode(0)).collect();
    snapshot::batches(Offset(base), LeaderEpoch(epoch), WallMs(3), &values, 1 << 20).remove(0)
}

/// Answers the fetch that is in flight. Returns the end of the log, and whether the leader is asked again at once.
fn give(solo: &mut Solo, set: impl FnOnce(&mut tidelog_wire::messages::fetch_response::PartitionData)) -> (i64, bool) {
    let ask = solo.asked(ApiKey::Fetch);
    solo.asks.clear();
    solo.answer(&ask, fetched(2, 5, set));
    let at_once = solo.asks.iter().any(|ask| ask.to.host == "node2");
    if !at_once {
        solo.asks.clear();
        solo.pass_ms(20);
        // Meanwhile another node was asked for the leader.
        solo.asks.retain(|ask| ask.to.host == "node2");
    }
    (solo.quorum.log_end().0, at_once)
}

fn records(bytes: Bytes) -> impl FnOnce(&mut tidelog_wire::messages::fetch_response::PartitionData) {
    move |partition| partition.records = Some(Records::from(bytes))
}

#[test]
fn a_follower_takes_what_follows_its_log_and_nothing_else() {
    let mut solo = follower();
    assert_eq!(give(&mut solo, records(batch(0, 4, &["a", "b"]))), (2, true));
    assert_eq!(give(&mut solo, records(batch(0, 4, &["a", "b"]))), (2, true), "it has that already");
    assert_eq!(give(&mut solo, records(batch(3, 4, &["c"]))), (2, false), "a gap");
    assert_eq!(give(&mut solo, records(batch(2, 3, &["c"]))), (2, false), "of an earlier epoch than the last");
    assert_eq!(give(&mut solo, records(batch(2, 6, &["c"]))), (2, false), "of an epoch to come");
    assert_eq!(give(&mut solo, records(batch(2, 5, &["c"]))), (3, true));
    let two = [batch(2, 5, &["c"]), batch(3, 5, &["d"])].concat();
    assert_eq!(give(&mut solo, records(Bytes::from(two))), (4, true));
    assert_eq!(solo.quorum.committed(), Offset(0));
    assert_eq!(give(&mut solo, |partition| partition.high_watermark = 3), (4, true));
    assert_eq!(solo.quorum.committed(), Offset(3));
    assert_eq!(give(&mut solo, |partition| partition.high_watermark = 2), (4, true));
    assert_eq!((solo.quorum.committed(), solo.quorum.high_watermark()), (Offset(3), Some(Offset(3))), "it never falls");
    assert_eq!(give(&mut solo, |partition| partition.high_watermark = -1), (4, true));
}

#[test]
fn an_answer_that_is_no_answer_is_asked_for_again_after_a_pause() {
    let mut solo = follower();
    let error = |error: ErrorCode| {
        move |partition: &mut tidelog_wire::messages::fetch_response::PartitionData| {
            partition.error_code = error.code();
        }
    };
    assert_eq!(give(&mut solo, error(ErrorCode::UnknownServerError)), (0, false));
    assert_eq!(give(&mut solo, error(ErrorCode::UnknownLeaderEpoch)), (0, false));
    assert_eq!(give(&mut solo, |partition| partition.partition_index = 1), (0, false));
    let ask = solo.asked(ApiKey::Fetch);
    let mut answer = fetched(2, 5, |_| {});
    answer.error_code = ErrorCode::InconsistentClusterId.code();
    solo.answer(&ask, answer);
    assert!(solo.asks.iter().all(|ask| ask.to.host != "node2"));
}

#[test]
fn a_follower_cuts_its_log_where_the_leader_says_and_nothing_that_is_committed() {
    let parts = |epoch, end_offset| {
        move |partition: &mut tidelog_wire::messages::fetch_response::PartitionData| {
            partition.diverging_epoch = EpochEndOffset { epoch, end_offset, ..Default::default() };
        }
    };
    let full = || {
        let mut solo = follower();
        give(&mut solo, records(batch(0, 2, &["a"])));
        give(&mut solo, records(batch(1, 3, &["b"])));
        give(&mut solo, records(batch(2, 3, &["c"])));
        give(&mut solo, |partition| partition.high_watermark = 1);
        assert_eq!(solo.quorum.log_end(), Offset(3));
        solo
    };
    assert_eq!(give(&mut full(), parts(3, 2)), (2, true));
    assert_eq!(give(&mut full(), parts(2, 9)), (1, true), "the whole of epoch 3 goes");
    assert_eq!(give(&mut full(), parts(3, 3)), (3, false), "there is nothing to cut");
    assert_eq!(give(&mut full(), parts(4, 9)), (3, false));
    let mut solo = full();
    let ask = solo.asked(ApiKey::Fetch);
    solo.answer(&ask, fetched(2, 5, parts(2, 0)));
    let why = solo.failure().expect("a committed record is not removed");
    assert!(
        why.contains("the leader asks to remove the records from offset 0 on, but all below 1 are committed"),
        "{why}"
    );
}

#[test]
fn a_follower_warns_where_more_than_one_voter_has_changed_at_once() {
    let warnings = |voters: &[i32]| {
        let mut solo = follower();
        let set: VoterSet = voters.iter().map(|node| voter(*node)).collect();
        let batch = ControlRecord::batch(&[set.record()], Offset(0), LeaderEpoch(5), WallMs(0));
        assert_eq!(give(&mut solo, records(batch)), (1, true));
        solo.log.iter().filter(|text| text.contains("more than one has changed at once")).count()
    };
    assert_eq!((warnings(&[1, 2, 3, 4]), warnings(&[1, 2, 4]), warnings(&[1, 4, 5])), (0, 0, 1));
}

#[test]
fn a_batch_that_is_not_understood_ends_the_quorum() {
    let mut solo = follower();
    let mut builder = tidelog_batch::BatchBuilder::new().at(Offset(0), LeaderEpoch(5));
    builder.push(0, None, Some(&[99, 99, 99]), &[]);
    let ask = solo.asked(ApiKey::Fetch);
    solo.answer(&ask, fetched(2, 5, records(builder.build())));
    assert!(solo.failure().unwrap().contains("a batch of the leader at offset 0 is not understood"));
}

/// An answer to FetchSnapshot of the snapshot that ends at 40, in epoch 4.
pub fn piece(bytes: &Bytes, position: usize, len: usize) -> FetchSnapshotResponse {
    let partition = snapshot_response::PartitionSnapshot {
        snapshot_id: snapshot_response::SnapshotId { end_offset: 40, epoch: 4, ..Default::default() },
        current_leader: snapshot_response::LeaderIdAndEpoch { leader_id: 2, leader_epoch: 5, ..Default::default() },
        size: bytes.len() as i64,
        position: position as i64,
        unaligned_records: Records::from(bytes.slice(position..(position + len).min(bytes.len()))),
        ..Default::default()
    };
    let topic =
        snapshot_response::TopicSnapshot { name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
    FetchSnapshotResponse { topics: vec![topic], ..Default::default() }
}

pub fn content() -> Bytes {
    let voters: VoterSet = (1..=3).map(voter).collect();
    let controls = [kraft_version_record(1), voters.record()];
    encode_snapshot(LeaderEpoch(4), WallMs(0), WallMs(0), &controls, &[record("a").encode(0)])
}

/// The follower is told that it needs the snapshot.
pub fn downloading() -> Solo {
    needs_snapshot(follower())
}

pub fn needs_snapshot(mut solo: Solo) -> Solo {
    let id = SnapshotId { end_offset: 40, epoch: 4, ..Default::default() };
    give(&mut solo, |partition| partition.snapshot_id = id);
    solo
}

/// From where on the follower wants the snapshot; `None` if it fetches the log.
fn wants(solo: &Solo) -> Option<i64> {
    solo.asks.iter().find_map(|ask| match &ask.body {
        RequestBody::FetchSnapshot(request) => Some(request.topics[0].partitions[0].position),
        _ => None,
    })
}

#[test]
fn a_follower_fetches_a_snapshot_piece_by_piece_and_goes_on_behind_it() {
    let (mut solo, content) = (downloading(), content());
    assert_eq!(wants(&solo), Some(0));
    let ask = solo.asked(ApiKey::FetchSnapshot);
    solo.answer(&ask, piece(&content, 0, 200));
    assert_eq!(wants(&solo), Some(200));
    solo.pass_ms(1_999);
    let ask = solo.asked(ApiKey::FetchSnapshot);
    solo.answer(&ask, piece(&content, 200, content.len()));
    assert_eq!((solo.quorum.log_end(), solo.quorum.committed()), (Offset(40), Offset(40)));
    assert_eq!(solo.quorum.high_watermark(), Some(Offset(40)));
    let loaded = solo.events.iter().any(
        |event| matches!(event, QuorumEvent::SnapshotLoaded { end: Offset(40), records } if *records == [record("a")]),
    );
    assert!(loaded);
    let RequestBody::Fetch(request) = solo.asked(ApiKey::Fetch).body else { unreachable!() };
    let partition = &request.topics[0].partitions[0];
    assert_eq!((partition.fetch_offset, partition.last_fetched_epoch), (40, 4));
    solo.pass_ms(1_999);
    assert_eq!(solo.quorum.role().name(), "follower", "each piece is a sign of life of the leader");
}

#[test]
fn a_piece_that_does_not_fit_begins_the_snapshot_anew() {
    let content = content();
    let after = |answer: FetchSnapshotResponse| {
        let mut solo = downloading();
        let ask = solo.asked(ApiKey::FetchSnapshot);
        solo.answer(&ask, answer);
        let wanted = wants(&solo);
        let is_paused = solo.asks.iter().all(|ask| ask.to.host != "node2");
        (wanted, is_paused)
    };
    let changed = |change: &dyn Fn(&mut snapshot_response::PartitionSnapshot)| {
        let mut answer = piece(&content, 0, 100);
        change(&mut answer.topics[0].partitions[0]);
        answer
    };
    assert_eq!(after(changed(&|_| {})), (Some(100), false));
    assert_eq!(after(changed(&|partition| partition.position = 1)), (None, true));
    assert_eq!(after(changed(&|partition| partition.snapshot_id.end_offset = 41)), (None, true));
    assert_eq!(after(changed(&|partition| partition.unaligned_records = Records::default())), (None, true));
    assert_eq!(after(changed(&|partition| partition.error_code = ErrorCode::UnknownServerError.code())), (None, true));
    assert_eq!(after(changed(&|partition| partition.size = (1 << 30) + 1)), (None, true), "it has more than 1 GiB");
    assert_eq!(after(changed(&|partition| partition.size = 1 << 30)), (Some(100), false));
    assert_eq!(after(changed(&|partition| partition.size = 99)), (None, true), "it has more than it says");
    // The leader has a newer one: the next fetch tells which.
    assert_eq!(after(changed(&|partition| partition.error_code = ErrorCode::SnapshotNotFound.code())), (None, false));
    assert_eq!(after(changed(&|partition| partition.error_code = ErrorCode::PositionOutOfRange.code())), (None, false));
    // What is no answer is asked for again.
    let (again, no_answer) = ((None, true), FetchSnapshotResponse { error_code: 1, ..piece(&content, 0, 100) });
    assert_eq!(after(no_answer), again);
    assert_eq!(after(changed(&|partition| partition.index = 1)), again);
}

#[test]
fn a_snapshot_that_is_damaged_is_not_used() {
    let mut solo = downloading();
    let ask = solo.asked(ApiKey::FetchSnapshot);
    let mut damaged = content().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    solo.answer(&ask, piece(&Bytes::from(damaged), 0, 1_000));
    assert_eq!((solo.quorum.log_end(), wants(&solo)), (Offset(0), None));
    assert!(solo.log.iter().any(|text| text.contains("of the leader is not used")));
}

#[test]
fn a_snapshot_that_lacks_what_is_committed_ends_the_quorum() {
    let with_two = || {
        let mut solo = follower();
        give(&mut solo, records(batch(0, 4, &["a", "b"])));
        give(&mut solo, |partition| partition.high_watermark = 2);
        solo
    };
    let named = |end_offset, epoch| {
        move |partition: &mut tidelog_wire::messages::fetch_response::PartitionData| {
            partition.snapshot_id = SnapshotId { end_offset, epoch, ..Default::default() };
        }
    };
    let mut solo = with_two();
    assert_eq!(give(&mut solo, named(-1, 4)), (2, false));
    assert_eq!(give(&mut solo, named(9, -1)), (2, false));
    let mut empty = follower();
    give(&mut empty, named(0, 0));
    assert_eq!(wants(&empty), Some(0), "the snapshot that formatting wrote has a name like any other");
    give(&mut solo, named(2, 4));
    assert_eq!((wants(&solo), solo.failure()), (Some(0), None));
    let mut solo = with_two();
    let ask = solo.asked(ApiKey::Fetch);
    solo.answer(&ask, fetched(2, 5, named(1, 4)));
    assert!(solo.failure().unwrap().contains("the leader has no more than a snapshot up to offset 1"));
}

/// A fetch acknowledges all that is below its offset (KIP-595), so what a voter has appended is on stable storage first.
#[test]
fn a_voter_fetches_on_once_it_has_synced_what_it_got_and_a_broker_at_once() {
    let asked_before_sync = |node: i32, is_controller: bool| {
        let mut solo = Solo::of_voters(node, 3, |config| config.is_controller = is_controller);
        solo.follow(2, 5);
        solo.disk_waits = true;
        let ask = solo.asked(ApiKey::Fetch);
        solo.asks.clear();
        solo.answer(&ask, fetched(2, 5, records(batch(0, 5, &["a"]))));
        let at_once = !solo.asks.is_empty();
        while solo.step().is_some() {}
        let RequestBody::Fetch(request) = solo.asked(ApiKey::Fetch).body else { unreachable!() };
        assert_eq!(request.topics[0].partitions[0].fetch_offset, 1);
        at_once
    };
    assert!(!asked_before_sync(1, true));
    assert!(!asked_before_sync(4, true), "a controller may become a voter");
    assert!(asked_before_sync(4, false));
}

/// What is not committed may be cut yet, and is in no snapshot.
#[test]
fn a_snapshot_names_the_epoch_and_the_voters_of_its_end_whatever_follows() {
    let mut solo = follower();
    give(&mut solo, records(batch(0, 4, &["a", "b"])));
    let more: VoterSet = (1..=4).map(voter).collect();
    give(&mut solo, records(ControlRecord::batch(&[more.record()], Offset(2), LeaderEpoch(5), WallMs(0))));
    give(&mut solo, records(batch(3, 5, &["c"])));
    give(&mut solo, |partition| partition.high_watermark = 2);
    solo.act(|quorum, now, out| {
        quorum.snapshot(now, Offset(2), &[record("a").encode(0), record("b").encode(0)], out);
        Vec::new()
    });
    let file = names::metadata_snapshot_file(Offset(2), LeaderEpoch(4));
    let content = solo.disk.content(&format!("{}/{file}", names::METADATA_PARTITION_DIR)).expect("it is written");
    let found = snapshot::decode(&Bytes::from(content.to_vec())).unwrap();
    let three: VoterSet = (1..=3).map(voter).collect();
    assert_eq!(found.controls[1..3], [kraft_version_record(1), three.record()]);
}

#[test]
fn what_a_snapshot_holds_already_is_not_written_again() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.disk_waits = true;
    let is_written = |solo: &mut Solo, end: i64| {
        solo.act(|quorum, now, out| {
            quorum.snapshot(now, Offset(end), &[], out);
            Vec::new()
        });
        let mut written = false;
        while let Some(file) = solo.step() {
            written |= file.ends_with(".checkpoint");
        }
        written
    };
    assert!(!is_written(&mut solo, 0), "nothing is committed");
    let mut solo = leader();
    solo.disk_waits = true;
    assert!(is_written(&mut solo, 4));
    assert!(!is_written(&mut solo, 4));
}

#[test]
fn a_snapshot_is_taken_of_all_that_is_committed_by_a_node_that_is_free_to_write_it() {
    let mut solo = leader();
    assert!(solo.quorum.can_snapshot(Offset(4)) && !solo.quorum.can_snapshot(Offset(3)));
    solo.disk_waits = true;
    solo.act(|quorum, now, out| {
        quorum.snapshot(now, Offset(4), &[], out);
        Vec::new()
    });
    assert!(!solo.quorum.can_snapshot(Offset(4)), "one at a time");
    while solo.step().is_some() {}
    assert!(solo.quorum.can_snapshot(Offset(4)));
    let _ = solo.send(1, begins(2, 7));
    assert!(!solo.quorum.can_snapshot(Offset(4)), "quorum-state is being written");
    while solo.step().is_some() {}
    assert!(solo.quorum.can_snapshot(Offset(4)));
    solo.act(|quorum, now, out| quorum.close(now, out));
    assert!(!solo.quorum.can_snapshot(Offset(4)), "it stops");

    // A broker need not have synced what is committed.
    let mut broker = Solo::of_voters(4, 3, |config| {
        config.is_controller = false;
        config.snapshot_bytes = 1;
    });
    broker.follow(2, 5);
    broker.disk_waits = true;
    give(&mut broker, |partition| {
        partition.records = Some(Records::from(batch(0, 5, &["a"])));
        partition.high_watermark = 1;
    });
    let is_due = |solo: &Solo| solo.events.iter().any(|event| matches!(event, QuorumEvent::SnapshotDue));
    assert_eq!(broker.quorum.committed(), Offset(1));
    assert!(!is_due(&broker) && !broker.quorum.can_snapshot(Offset(1)));
    while broker.step().is_some() {}
    assert!(is_due(&broker) && broker.quorum.can_snapshot(Offset(1)));
}

#[test]
fn who_waits_for_a_snapshot_or_writes_one_when_the_node_stops_is_done_with_it() {
    let mut solo = with_snapshot();
    solo.propose("c");
    let _ = solo.request(17, fetch(2, 1, 6, 1));
    solo.disk_waits = true;
    let id = solo.send(1, fetch_snapshot(1, 4, 1, 0));
    assert!(solo.answer_to(id).is_none(), "the file is being opened");
    solo.act(|quorum, now, out| {
        quorum.snapshot(now, Offset(6), &[], out);
        Vec::new()
    });
    solo.act(|quorum, now, out| quorum.close(now, out));
    solo.disk_waits = true;
    solo.ms += 5_000;
    solo.act(|quorum, now, out| quorum.tick(now, out));
    let Some(ResponseBody::FetchSnapshot(answer)) = solo.answer_to(id) else { panic!("not answered") };
    assert_eq!(answer.topics[0].partitions[0].error_code, ErrorCode::NotLeaderOrFollower.code());
    while solo.step().is_some() {}
    assert!(solo.events.iter().any(|event| matches!(event, QuorumEvent::Closed)));
}

#[test]
fn an_answer_of_a_higher_epoch_is_believed_and_the_leader_that_it_names_is_asked_at_once() {
    let after = |leader: i32, epoch: i32, error: ErrorCode| {
        let mut solo = follower();
        let ask = solo.asked(ApiKey::Fetch);
        solo.answer(&ask, fetched(leader, epoch, |partition| partition.error_code = error.code()));
        let asked = solo.asks.iter().map(|ask| ask.to.host.to_string()).collect::<Vec<_>>();
        (solo.quorum.leader().map(|leader| leader.0), solo.quorum.epoch().0, asked)
    };
    let node = |node: i32| vec![format!("node{node}")];
    assert_eq!(after(3, 7, ErrorCode::None), (Some(3), 7, node(3)));
    assert_eq!(after(3, 7, ErrorCode::NotLeaderOrFollower), (Some(3), 7, node(3)));
    assert_eq!(after(2, 7, ErrorCode::FencedLeaderEpoch), (Some(2), 7, node(2)), "it leads again");
    assert_eq!(after(2, 5, ErrorCode::NotLeaderOrFollower), (Some(2), 5, node(3)), "no news: others are asked");
}

/// KIP-595: an observer finds the leader and its records with the same fetch.
#[test]
fn the_answer_that_tells_who_leads_may_bring_records() {
    let mut solo = Solo::of_recorded_voters(4);
    let ask = solo.asked(ApiKey::Fetch);
    let bytes = batch(0, 5, &["a"]);
    solo.answer(&ask, fetched(2, 5, records(bytes)));
    assert_eq!((solo.quorum.role().name(), solo.quorum.log_end()), ("unattached", Offset(0)), "node 2 cannot be asked");

    let mut solo = Solo::of_recorded_voters(1);
    let ask = solo.asked(ApiKey::Fetch);
    solo.answer(&ask, fetched(2, 0, records(batch(0, 0, &["a"]))));
    assert_eq!((solo.quorum.leader(), solo.quorum.log_end()), (Some(NodeId(2)), Offset(1)));
}
