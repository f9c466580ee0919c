//! What a start makes of a disk.

use super::harness::{config, format, key, static_voters, voter};
use super::messages::fetch;
use super::solo::{Solo, record};
use crate::*;
use tidelog_batch::ControlRecord;
use tidelog_storage::io::{DiskPath, IoCommand, IoId};
use tidelog_storage::test_disk::TestDisk;
use tidelog_wire::ids::LogDirId;

const DIR: &str = names::METADATA_PARTITION_DIR;

/// The configuration of a node that names no other controllers.
fn alone(node: i32) -> QuorumConfig {
    QuorumConfig { forms_itself: true, ..config(node, static_voters([node])) }
}

fn put(disk: &mut TestDisk, path: &str, content: Bytes) {
    let path = DiskPath { dir: LogDirId(0), path: path.to_owned() };
    let id = IoId { owner: IoOwner::Quorum, seq: 0 };
    disk.execute(IoCommand { id, op: IoOp::Replace { path, content } }).result.unwrap();
}

/// The records that a leader shall propose first, if it is told to.
fn first_records(solo: &Solo) -> Option<Vec<MetadataRecord>> {
    let leading = solo.events.iter().find_map(|event| match event {
        QuorumEvent::Leading { bootstrap, .. } => Some(bootstrap.clone()),
        _ => None,
    });
    leading.expect("it leads")
}

#[test]
fn a_node_that_names_no_other_controllers_formats_an_empty_disk_and_leads() {
    let mut solo = Solo::start(alone(1), TestDisk::default());
    solo.lead();
    assert_eq!((solo.quorum.kraft_version(), solo.quorum.voters().len()), (1, 1));
    assert!(solo.quorum.voters().has(key(1)));
    assert_eq!(solo.quorum.log_end(), Offset(3), "the leader, the version and the voters, which formatting alone knew");
    let formatted = names::metadata_snapshot_file(Offset::ZERO, LeaderEpoch(0));
    let bootstrap = solo.disk.content(names::BOOTSTRAP_CHECKPOINT).expect("it is written").to_vec();
    assert_eq!(snapshot::decode(&Bytes::from(bootstrap)).unwrap().metadata, [record("first")]);
    let found = snapshot::decode(&Bytes::from(solo.disk.content(&format!("{DIR}/{formatted}")).unwrap().to_vec()));
    assert_eq!(found.unwrap().controls.len(), 4, "the version and the voters, between header and footer");
    assert_eq!(first_records(&solo), Some(vec![record("first")]));

    // The quorum's own records are no metadata: a leader that has appended no other begins anew after a crash.
    let mut again = solo.restart();
    again.lead();
    assert_eq!(first_records(&again), Some(vec![record("first")]));
    again.propose("a");
    let mut again = again.restart();
    again.lead();
    assert_eq!(first_records(&again), None);
}

#[test]
fn what_was_formatted_before_is_kept() {
    let mut disk = TestDisk::default();
    format(&mut disk, &[voter(1)].into_iter().collect());
    let asked_for = encode_snapshot(LeaderEpoch(0), WallMs(0), WallMs(0), &[], &[record("asked for").encode(0)]);
    put(&mut disk, names::BOOTSTRAP_CHECKPOINT, asked_for);
    let mut solo = Solo::start(alone(1), disk);
    solo.lead();
    assert_eq!(first_records(&solo), Some(vec![record("asked for")]));
}

#[test]
fn a_snapshot_that_was_not_written_to_its_end_is_removed() {
    let mut disk = TestDisk::default();
    format(&mut disk, &[voter(1)].into_iter().collect());
    let part = format!("{DIR}/{}.part", names::metadata_snapshot_file(Offset(7), LeaderEpoch(1)));
    put(&mut disk, &part, Bytes::from_static(b"half of it"));
    let solo = Solo::start(alone(1), disk);
    assert!(solo.quorum.is_running() && !solo.disk.names().contains(&&*part));
}

#[test]
fn a_log_that_starts_behind_all_snapshots_is_refused() {
    let mut solo = Solo::start(alone(1), TestDisk::default());
    solo.lead();
    for number in 0..60 {
        solo.propose(&format!("{number} {}", "-".repeat(100)));
    }
    for _ in 0..3 {
        solo.propose("more");
        let end = solo.quorum.committed();
        solo.act(|quorum, now, out| {
            quorum.snapshot(now, end, &[], out);
            Vec::new()
        });
    }
    let start = solo.quorum.log().unwrap().log_start_offset();
    assert!(start > Offset::ZERO, "the log is trimmed");
    let snapshots = solo.disk.names().into_iter().filter(|name| name.starts_with(DIR) && name.ends_with(".checkpoint"));
    for name in snapshots.map(str::to_owned).collect::<Vec<_>>() {
        solo.disk.remove(&name);
    }
    let again = solo.restart();
    let why = again.failure().expect("it cannot start");
    assert!(why.contains("the log starts at offset"), "{why}");
    assert!(why.ends_with(", and no valid snapshot reaches that far (the newest ends at 0)"), "{why}");
}

#[test]
fn a_file_that_cannot_be_read_is_no_file_that_is_missing() {
    let solo = Solo::start(alone(1), TestDisk::default());
    let Solo { config, mut disk, .. } = solo;
    disk.process_ends();
    disk.fail_load = Some(format!("{DIR}/{}", names::QUORUM_STATE));
    let again = Solo::start(config, disk);
    assert!(
        again.failure().is_some_and(|why| why.starts_with("the metadata in /disk/__cluster_metadata-0 cannot be used"))
    );
}

/// Why a node that names no other controllers does not start on this disk.
fn refused(node: i32, disk: TestDisk) -> Option<String> {
    Solo::start(alone(node), disk).failure().map(str::to_owned)
}

/// Two nodes that each took their own quorum for the cluster would be two clusters.
#[test]
fn a_node_that_names_no_other_controllers_does_not_lead_where_there_are_others() {
    let of = |voters: &[i32]| {
        let mut disk = TestDisk::default();
        format(&mut disk, &voters.iter().map(|node| voter(*node)).collect());
        disk
    };
    assert_eq!(refused(1, of(&[1])), None);
    assert_eq!(refused(1, of(&[1, 2, 3])), None, "it waits for a majority of them");
    let why = refused(1, of(&[2, 3])).unwrap();
    assert!(why.contains(&format!("its quorum has the voters {}, {}, and this is node 1", key(2), key(3))), "{why}");
    let observer = QuorumConfig { is_controller: false, ..alone(1) };
    assert_eq!(Solo::start(observer, of(&[2, 3])).failure(), None, "a broker alone never leads");

    // Static voters stand in no record but that of the last leader.
    let mut solo = Solo::start(config(1, static_voters([1, 2])), TestDisk::default());
    solo.lead();
    let _ = solo.request(17, fetch(2, 1, 1, 1));
    let Solo { mut disk, .. } = solo;
    disk.process_ends();
    let why = refused(1, disk).unwrap();
    assert!(why.contains("its quorum has the voters 1, 2, and this is node 1"), "{why}");
    let mut solo = Solo::start(config(1, static_voters([1])), TestDisk::default());
    solo.lead();
    let Solo { mut disk, .. } = solo;
    disk.process_ends();
    assert_eq!(refused(1, disk), None);
}

#[test]
fn the_records_of_a_quorum_outlive_the_process_also_where_they_are_not_committed() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    let voters: VoterSet = (1..=4).map(voter).collect();
    let batch = ControlRecord::batch(&[voters.record()], Offset::ZERO, LeaderEpoch(5), WallMs(0));
    let ask = solo.asked(tidelog_wire::ApiKey::Fetch);
    let records = tidelog_wire::Records::from(batch);
    solo.answer(&ask, super::messages::fetched(2, 5, |partition| partition.records = Some(records)));
    assert_eq!(solo.quorum.voters().len(), 4);
    let again = solo.restart();
    assert_eq!(
        (again.quorum.voters().len(), again.quorum.log_end(), again.quorum.committed()),
        (4, Offset(1), Offset(0))
    );
}

#[test]
fn a_start_reads_the_newest_snapshot_and_the_log_behind_it() {
    let mut solo = Solo::start(alone(1), TestDisk::default());
    solo.lead();
    solo.propose("a");
    let end = solo.quorum.committed();
    solo.act(|quorum, now, out| {
        quorum.snapshot(now, end, &[record("a").encode(0)], out);
        Vec::new()
    });
    solo.propose("b");
    solo.propose("c");
    let mut again = solo.restart();
    again.lead();
    let mut read = Vec::new();
    for event in &again.events {
        match event {
            QuorumEvent::SnapshotLoaded { records, .. } => read = records.clone(),
            QuorumEvent::Committed { records, .. } => read.extend(records.clone()),
            _ => {}
        }
    }
    assert_eq!(read, ["a", "b", "c"].map(record));
}

/// A snapshot may end in the middle of a segment that is not the last.
#[test]
fn a_start_reads_on_where_the_snapshot_ends_whatever_segment_that_is_in() {
    let mut solo = Solo::start(alone(1), TestDisk::default());
    solo.lead();
    let names: Vec<String> = (0..60).map(|number| format!("{number} {}", "-".repeat(100))).collect();
    names[..5].iter().for_each(|name| solo.propose(name));
    let end = solo.quorum.committed();
    solo.act(|quorum, now, out| {
        quorum.snapshot(now, end, &[], out);
        Vec::new()
    });
    names[5..].iter().for_each(|name| solo.propose(name));
    let mut again = solo.restart_after_checkpoint();
    again.lead();
    let mut read = Vec::new();
    for event in &again.events {
        if let QuorumEvent::Committed { records, .. } = event {
            read.extend(records.clone());
        }
    }
    assert_eq!(read, names[5..].iter().map(|name| record(name)).collect::<Vec<_>>());
}

/// KIP-630: the log is trimmed up to the older of two snapshots, so that it is enough if the newer one is damaged.
#[test]
fn a_damaged_snapshot_is_passed_over_and_given_to_nobody() {
    let mut solo = Solo::start(alone(1), TestDisk::default());
    solo.lead();
    let mut ends = Vec::new();
    for name in ["a", "b"] {
        solo.propose(name);
        let end = solo.quorum.committed();
        solo.act(|quorum, now, out| {
            quorum.snapshot(now, end, &[record(name).encode(0)], out);
            Vec::new()
        });
        ends.push(end);
    }
    let Solo { config, mut disk, .. } = solo;
    disk.process_ends();
    let newest = format!("{DIR}/{}", names::metadata_snapshot_file(ends[1], LeaderEpoch(1)));
    put(&mut disk, &newest, Bytes::from_static(b"not a snapshot"));
    let mut again = Solo::start(config, disk);
    again.lead();
    assert!(again.log.iter().any(|text| text.contains("is not used")), "{:?}", again.log);
    let loaded: Vec<Offset> = again
        .events
        .iter()
        .filter_map(|event| match event {
            QuorumEvent::SnapshotLoaded { end, .. } => Some(*end),
            _ => None,
        })
        .collect();
    assert_eq!(loaded, [ends[0]]);
    let ResponseBody::Fetch(answer) = again.request(17, fetch(2, 2, 0, 0)) else { unreachable!() };
    assert_eq!(answer.responses[0].partitions[0].snapshot_id.end_offset, ends[0].0);
}

/// A crash between the two steps of loading a fetched snapshot: it is written, and the log has not begun again behind it.
#[test]
fn a_log_that_is_shorter_than_the_newest_snapshot_begins_again_behind_it() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    let Solo { config, mut disk, .. } = solo;
    disk.process_ends();
    let content = encode_snapshot(LeaderEpoch(4), WallMs(0), WallMs(0), &[], &[record("a").encode(0)]);
    put(&mut disk, &format!("{DIR}/{}", names::metadata_snapshot_file(Offset(40), LeaderEpoch(4))), content);
    let again = Solo::start(config, disk);
    assert_eq!(again.failure(), None);
    let log = again.quorum.log().unwrap();
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset(), again.quorum.committed()),
        (Offset(40), Offset(40), Offset(40))
    );
    assert!(again.quorum.is_running());
}

/// What a start makes of a log of 50 records of epoch 4 and 3 of epoch 5, in whose directory lies a snapshot that ends
/// there: where the log starts then, and where it ends.
fn beside_snapshot(end: i64, epoch: i32) -> (i64, i64) {
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    let names: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for batch in [super::fetching::batch(0, 4, &names), super::fetching::batch(50, 5, &names[..3])] {
        let ask = solo.asked(tidelog_wire::ApiKey::Fetch);
        let records = tidelog_wire::Records::from(batch);
        solo.answer(&ask, super::messages::fetched(2, 5, |partition| partition.records = Some(records)));
    }
    let Solo { config, mut disk, .. } = solo;
    disk.process_ends();
    let content = encode_snapshot(LeaderEpoch(epoch), WallMs(0), WallMs(0), &[], &[record("a").encode(0)]);
    put(&mut disk, &format!("{DIR}/{}", names::metadata_snapshot_file(Offset(end), LeaderEpoch(epoch))), content);
    let again = Solo::start(config, disk);
    assert!(again.quorum.is_running() && again.quorum.committed() == Offset(end));
    let log = again.quorum.log().unwrap();
    (log.log_start_offset().0, log.log_end_offset().0)
}

#[test]
fn a_log_that_has_other_records_than_the_newest_snapshot_begins_again_behind_it() {
    assert_eq!(beside_snapshot(50, 4), (0, 53), "it has the same, and more");
    assert_eq!(beside_snapshot(53, 5), (0, 53));
    assert_eq!(beside_snapshot(54, 5), (54, 54), "it is shorter");
    assert_eq!(beside_snapshot(50, 5), (50, 50), "its record 49 is another leader's");
    assert_eq!(beside_snapshot(51, 4), (51, 51), "its record 50 is another leader's");
}
