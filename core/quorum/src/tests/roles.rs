//! What a node says of itself in each role, and what it does with proposals.

use super::messages::{fetch, fetched};
use super::solo::{Solo, votes};
use crate::*;
use tidelog_wire::ApiKey;

/// What the metrics and the broker ask: the state, the vote, the leader, whether it leads.
fn says(solo: &Solo) -> (&'static str, Option<i32>, Option<i32>, bool) {
    let quorum = &solo.quorum;
    (quorum.current_state(), quorum.vote().map(|node| node.0), quorum.leader().map(|node| node.0), quorum.is_leading())
}

/// The names are those of Kafka's metric `current-state`.
#[test]
fn a_node_says_what_it_is_in_its_epoch() {
    let mut solo = Solo::of_recorded_voters(1);
    assert_eq!(says(&solo), ("unattached", None, None, false));
    solo.pass_ms(2_000);
    assert_eq!(says(&solo), ("prospective", None, None, false));
    let ask = solo.asked(ApiKey::Vote);
    solo.answer(&ask, votes(0, true));
    assert_eq!(says(&solo), ("candidate", Some(1), None, false));
    assert_eq!(solo.quorum.observers(), None);
    solo.lead();
    assert_eq!(says(&solo), ("leader", Some(1), Some(1), true), "there is nothing before its epoch");
    assert_eq!(solo.quorum.observers(), Some(0));
    let _ = solo.request(17, fetch(9, 1, 3, 1));
    assert_eq!(solo.quorum.observers(), Some(1));
    solo.act(|quorum, now, out| quorum.resign(now, out));
    assert_eq!(says(&solo), ("unattached", None, Some(1), false));
    assert!(!solo.quorum.leader_endpoints().is_empty(), "it can still be asked");
    solo.follow(2, 5);
    assert_eq!(says(&solo), ("follower", None, Some(2), false));
    solo.pass_ms(2_000);
    assert_eq!(says(&solo), ("prospective", None, Some(2), false));
    let mut observer = Solo::of_recorded_voters(4);
    observer.follow(2, 5);
    assert_eq!(says(&observer), ("observer", None, Some(2), false));
}

#[test]
fn a_node_that_has_voted_says_for_whom() {
    let mut solo = Solo::of_recorded_voters(1);
    let mut vote = super::elections::vote_request(1, 7, 0, 0);
    let _ = solo.request(2, vote.clone());
    assert_eq!(says(&solo), ("unattached-voted", Some(2), None, false));
    solo.pass_ms(2_000);
    assert_eq!(says(&solo), ("prospective-voted", Some(2), None, false));
    vote.topics[0].partitions[0].pre_vote = true;
    let _ = solo.request(2, vote);
    assert_eq!(says(&solo), ("prospective-voted", Some(2), None, false), "a pre-vote promises nothing");
}

#[test]
fn a_log_is_replicated_where_another_node_has_it() {
    let mut alone = Solo::of_voters(1, 1, |_| {});
    alone.lead();
    assert!(!alone.quorum.is_replicated());
    let _ = alone.request(17, fetch(9, 1, 3, 1));
    assert!(alone.quorum.is_replicated());
    let mut three = Solo::of_recorded_voters(1);
    three.lead();
    assert!(three.quorum.is_replicated());
    three.follow(2, 5);
    assert!(!three.quorum.is_replicated(), "that is the leader's to say");
}

#[test]
fn the_records_of_a_decision_are_one_batch_if_they_fit() {
    let mut solo = Solo::of_voters(1, 1, |_| {});
    solo.lead();
    solo.events.clear();
    let end = solo.quorum.log_end();
    assert_eq!(solo.propose_all(&["a", "b", "c"]), end + 2, "the offset of the last");
    let committed: Vec<usize> = solo
        .events
        .iter()
        .filter_map(|event| match event {
            QuorumEvent::Committed { records, .. } => Some(records.len()),
            _ => None,
        })
        .collect();
    assert_eq!(committed, [3], "all of them are committed at once");
    let value = Bytes::from(vec![0; 100]);
    // A segment has 2,000 bytes here.
    let fit = (1..100).filter(|count| solo.quorum.fits_one_batch(&vec![value.clone(); *count])).max();
    assert_eq!(fit, Some((2_000 - 61) / (100 + 64)));
}

#[test]
fn a_snapshot_is_due_after_so_many_bytes_or_so_much_time() {
    let mut solo = Solo::of_voters(1, 1, |config| config.snapshot_bytes = 1_000);
    solo.lead();
    let is_due = |solo: &mut Solo| {
        std::mem::take(&mut solo.events).iter().any(|event| matches!(event, QuorumEvent::SnapshotDue))
    };
    assert!(!is_due(&mut solo), "only its first records are in the log");
    solo.propose(&"x".repeat(400));
    solo.pass_ms(1);
    assert!(!is_due(&mut solo));
    solo.propose(&"x".repeat(400));
    solo.pass_ms(1);
    assert!(is_due(&mut solo));
    let end = solo.quorum.committed();
    solo.act(|quorum, now, out| {
        quorum.snapshot(now, end, &[], out);
        Vec::new()
    });
    solo.pass_ms(1);
    assert!(!is_due(&mut solo));

    let mut solo = Solo::of_voters(1, 1, |config| config.snapshot_interval_ms = 10_000);
    solo.lead();
    solo.pass_ms(9_999 - solo.ms);
    assert!(!is_due(&mut solo));
    solo.pass_ms(1);
    assert!(is_due(&mut solo));
    let end = solo.quorum.committed();
    solo.act(|quorum, now, out| {
        quorum.snapshot(now, end, &[], out);
        Vec::new()
    });
    solo.events.clear();
    solo.pass_ms(100_000);
    assert!(!is_due(&mut solo), "nothing was appended since");
}

/// KIP-630: the header of a snapshot says when the last of its records was appended.
#[test]
fn a_snapshot_names_the_time_of_its_last_record() {
    let mut solo = Solo::of_voters(1, 1, |_| {});
    solo.lead();
    solo.pass_ms(300);
    solo.propose("a");
    let at = super::solo::START_MS + solo.ms;
    solo.pass_ms(500);
    let end = solo.quorum.committed();
    solo.act(|quorum, now, out| {
        quorum.snapshot(now, end, &[], out);
        Vec::new()
    });
    let file = names::metadata_snapshot_file(end, LeaderEpoch(1));
    let content = solo.disk.content(&format!("{}/{file}", names::METADATA_PARTITION_DIR)).expect("it is written");
    let found = snapshot::decode(&Bytes::from(content.to_vec())).unwrap();
    let header = tidelog_wire::messages::SnapshotHeaderRecord::from_bytes(0, found.controls[0].value.clone()).unwrap();
    assert_eq!(header.last_contained_log_timestamp, at);
}

#[test]
fn a_disk_that_cannot_be_written_ends_the_quorum() {
    let mut solo = Solo::of_voters(1, 1, |_| {});
    solo.lead();
    solo.disk.fail_writes = true;
    solo.propose("a");
    assert!(solo.failure().is_some());
    assert!(!solo.quorum.is_running());
}

#[test]
fn a_follower_keeps_what_it_fetches() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    let ask = solo.asked(ApiKey::Fetch);
    let values = [super::solo::record("a").encode(0), super::solo::record("b").encode(0)];
    let batch = snapshot::batches(Offset::ZERO, LeaderEpoch(5), WallMs(3), &values, 1_000).remove(0);
    let records = tidelog_wire::Records::from(batch);
    solo.answer(
        &ask,
        fetched(2, 5, |partition| {
            partition.records = Some(records);
            partition.high_watermark = 9;
        }),
    );
    assert_eq!((solo.quorum.log_end(), solo.quorum.committed()), (Offset(2), Offset(2)));
    assert_eq!(solo.quorum.high_watermark(), Some(Offset(2)), "at most what it has");
    // The same once more is passed over, and what does not follow is refused.
    let ask = solo.asked(ApiKey::Fetch);
    let batch = snapshot::batches(Offset(5), LeaderEpoch(5), WallMs(3), &values, 1_000).remove(0);
    solo.answer(&ask, fetched(2, 5, |partition| partition.records = Some(tidelog_wire::Records::from(batch))));
    assert_eq!(solo.quorum.log_end(), Offset(2));
}

// What is busy waits for the disk.

#[test]
fn nothing_is_told_before_quorum_state_is_on_stable_storage() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.disk_waits = true;
    let id = solo.send(2, super::elections::vote_request(1, 7, 0, 0));
    let later = solo.send(2, super::elections::vote_request(1, 6, 0, 0));
    assert!(solo.answer_to(id).is_none() && solo.answer_to(later).is_none());
    assert_eq!(solo.quorum.deadline(solo.now()), None, "it waits for the disk alone");
    while solo.answer_to(later).is_none() {
        let written = solo.step().expect("quorum-state is being written");
        assert!(written.ends_with(names::QUORUM_STATE), "{written}");
    }
    assert!(solo.answer_to(id).is_some());
    assert!(solo.quorum.deadline(solo.now()).is_some());
}

#[test]
fn the_recovery_point_is_lowered_before_the_log_is_cut() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    let values = ["a", "b"].map(|name| super::solo::record(name).encode(0));
    for (base, value) in (0..).zip(&values) {
        let batch =
            snapshot::batches(Offset(base), LeaderEpoch(4), WallMs(3), std::slice::from_ref(value), 1_000).remove(0);
        let ask = solo.asked(ApiKey::Fetch);
        let records = tidelog_wire::Records::from(batch);
        solo.answer(&ask, fetched(2, 5, |partition| partition.records = Some(records)));
    }
    assert_eq!(solo.quorum.recovery_point(), Some(Offset(2)));
    solo.disk_waits = true;
    let ask = solo.asked(ApiKey::Fetch);
    solo.answer(
        &ask,
        fetched(2, 5, |partition| {
            partition.diverging_epoch.epoch = 4;
            partition.diverging_epoch.end_offset = 1;
        }),
    );
    assert!(solo.events.iter().any(|event| matches!(event, QuorumEvent::RecoveryPointTooHigh)));
    assert_eq!(solo.quorum.recovery_point(), Some(Offset(1)), "while it is being cut");
    while solo.step().is_some() {
        assert!(solo.quorum.recovery_point() <= Some(Offset(1)));
    }
    assert_eq!((solo.quorum.recovery_point(), solo.quorum.log_end()), (Some(Offset(1)), Offset(1)));
}

#[test]
fn a_log_that_begins_again_behind_a_snapshot_says_so() {
    let mut solo = super::fetching::follower();
    let ask = solo.asked(ApiKey::Fetch);
    let records = tidelog_wire::Records::from(super::fetching::batch(0, 4, &["a"]));
    solo.answer(&ask, fetched(2, 5, |partition| partition.records = Some(records)));
    assert_eq!(solo.quorum.recovery_point(), Some(Offset(1)));
    let mut solo = super::fetching::needs_snapshot(solo);
    let content = super::fetching::content();
    assert!(!solo.quorum.is_restarting_log());
    solo.disk_waits = true;
    let ask = solo.asked(ApiKey::FetchSnapshot);
    solo.answer(&ask, super::fetching::piece(&content, 0, content.len()));
    assert!(!solo.quorum.is_restarting_log(), "the snapshot is not written yet");
    let mut restarting = 0;
    while solo.step().is_some() {
        if solo.quorum.is_restarting_log() {
            assert_eq!(solo.quorum.recovery_point(), Some(Offset(0)));
            restarting += 1;
        }
    }
    assert!(restarting > 0 && !solo.quorum.is_restarting_log());
    assert_eq!(solo.quorum.recovery_point(), Some(Offset(40)));
}

/// Raft commits what is on stable storage; followers may have it sooner (KIP-595).
#[test]
fn a_leader_gives_what_it_has_written_and_counts_what_it_has_synced() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.lead();
    let _ = solo.request(17, fetch(2, 1, 3, 1));
    let waits = |solo: &mut Solo, offset: i64| {
        let mut request = fetch(2, 1, offset, 1);
        request.max_wait_ms = 500;
        request.topics[0].partitions[0].high_watermark = 3;
        solo.send(17, request)
    };
    solo.disk_waits = true;
    solo.propose("a");
    let id = waits(&mut solo, 3);
    let mut first = None;
    while first.is_none() {
        solo.step().expect("the record is being written");
        first = solo.answer_to(id);
    }
    assert_eq!(solo.quorum.high_watermark(), Some(Offset(3)));
    // The follower has it, and waits for what comes then.
    let id = waits(&mut solo, 4);
    assert_eq!(solo.quorum.high_watermark(), Some(Offset(3)), "the leader has not synced it");
    assert!(solo.answer_to(id).is_none());
    while solo.quorum.high_watermark() == Some(Offset(3)) {
        assert!(solo.answer_to(id).is_none(), "it waits until there is something to tell");
        solo.step().expect("the record is being synced");
    }
    assert_eq!((solo.quorum.high_watermark(), solo.quorum.committed()), (Some(Offset(4)), Offset(4)));
    assert!(solo.answer_to(id).is_some());
}

/// A fetch at the end of the log waits while the disk works, until there is a record or a new high watermark.
#[test]
fn a_sync_alone_ends_no_fetch() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.lead();
    let _ = solo.request(17, fetch(2, 1, 3, 1));
    solo.disk_waits = true;
    solo.propose("a");
    let mut request = fetch(9, 1, 4, 1);
    request.max_wait_ms = 500;
    request.topics[0].partitions[0].high_watermark = 3;
    let id = solo.send(17, request);
    while solo.step().is_some() {}
    assert!(solo.answer_to(id).is_none(), "no other voter has the record");
    let _ = solo.request(17, fetch(2, 1, 4, 1));
    assert!(solo.answer_to(id).is_some());
}

#[test]
fn the_next_moment_is_that_of_the_first_thing_that_is_due() {
    let at = |ms: i64| Some(Mono::ZERO.plus_ms(ms));
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    let ask = solo.asked(ApiKey::Fetch);
    solo.pass_ms(1_000);
    solo.answer(&ask, fetched(2, 5, |_| {}));
    assert_eq!(solo.quorum.role().deadline(), at(3_000));
    assert_eq!(solo.quorum.deadline(solo.now()), at(2_000), "when it looks whether the leader knows it");

    let mut broker = Solo::of_voters(4, 3, |config| config.is_controller = false);
    broker.follow(2, 5);
    assert_eq!(broker.quorum.deadline(broker.now()), None, "it stands for no election and has nothing to tell");

    let mut leaving = Solo::of_recorded_voters(1);
    leaving.act(|quorum, now, out| quorum.close(now, out));
    leaving.pass_ms(2_500);
    assert_eq!(leaving.quorum.deadline(leaving.now()), at(5_000));
    leaving.pass_ms(2_500);
    assert_eq!(leaving.quorum.deadline(leaving.now()), None, "it has ended");
}

#[test]
fn a_node_wakes_up_when_a_snapshot_is_due_by_time() {
    let snapshot = |solo: &mut Solo| {
        let end = solo.quorum.committed();
        solo.act(|quorum, now, out| {
            quorum.snapshot(now, end, &[], out);
            Vec::new()
        });
    };
    let at = |ms: i64| Some(Mono::ZERO.plus_ms(ms));
    let deadline = |solo: &Solo| solo.quorum.deadline(solo.now());
    let mut solo = Solo::of_voters(1, 1, |config| config.snapshot_interval_ms = 10_000);
    assert_eq!(deadline(&solo), at(10_000));
    solo.pass_ms(10_000);
    solo.disk_waits = true;
    snapshot(&mut solo);
    solo.propose("a");
    assert_eq!(deadline(&solo), None, "one at a time");
    while solo.step().is_some() {}
    assert_eq!(deadline(&solo), at(20_000));
    solo.pass_ms(1_000);
    snapshot(&mut solo);
    while solo.step().is_some() {}
    assert_eq!(deadline(&solo), None, "nothing was appended since");

    let mut never = Solo::of_voters(1, 1, |config| config.snapshot_interval_ms = 0);
    never.pass_ms(1_000);
    assert_eq!(deadline(&never), None);
    assert!(!never.events.iter().any(|event| matches!(event, QuorumEvent::SnapshotDue)));
}
