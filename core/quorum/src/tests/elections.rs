//! Leaders come and go (KIP-595, KIP-996).

use super::harness::*;
use crate::*;
use bytes::Bytes;
use std::collections::BTreeSet;
use tidelog_config::plant::Plants;
use tidelog_wire::ErrorCode;
use tidelog_wire::messages::{
    BeginQuorumEpochRequest, FetchRequest, SnapshotHeaderRecord, VoteRequest, begin_quorum_epoch_request,
    fetch_request, vote_request,
};

fn with_leader(seed: u64, voters: i32) -> (Cluster, usize) {
    let mut cluster = Cluster::of_recorded_voters(seed, voters, voters, Plants::default());
    cluster.run_until(5_000, "a leader", |cluster| cluster.leader().is_some());
    cluster.propose().unwrap();
    cluster.run(500);
    let leader = cluster.leader().unwrap();
    (cluster, leader)
}

/// All pairs of nodes of which one is `node`, both ways.
fn all_ways(node: usize, nodes: usize) -> BTreeSet<(usize, usize)> {
    (0..nodes).filter(|other| *other != node).flat_map(|other| [(node, other), (other, node)]).collect()
}

/// Lets the leader append so many records, then take a snapshot, so many times. Its log is trimmed behind them.
fn take_snapshots(cluster: &mut Cluster, leader: usize, snapshots: usize, records: usize) {
    for _ in 0..snapshots {
        for _ in 0..records {
            cluster.propose_at(leader).unwrap();
            cluster.run(20);
        }
        cluster.snapshot(leader);
        cluster.run(100);
    }
}

#[test]
fn a_leader_that_is_cut_off_resigns_and_another_one_is_elected() {
    for seed in 0..10 {
        let (mut cluster, old) = with_leader(seed, 3);
        cluster.cut = all_ways(old, 3);
        let is_other = |cluster: &Cluster| cluster.leader().is_some_and(|leader| leader != old);
        cluster.run_until(8_000, "another leader", is_other);
        cluster.run_until(4_000, "the old leader resigns", |cluster| cluster.nodes[old].leading.is_none());
        let name = cluster.propose().unwrap();
        cluster.cut.clear();
        cluster.run_until(5_000, "the old leader follows", |cluster| cluster.has_committed(old, &name));
    }
}

#[test]
fn a_leader_that_hears_nobody_resigns_although_its_own_messages_arrive() {
    let (mut cluster, old) = with_leader(1, 3);
    cluster.cut = (0..3).filter(|other| *other != old).map(|other| (other, old)).collect();
    cluster.run_until(8_000, "another leader", |cluster| cluster.leader().is_some_and(|leader| leader != old));
    cluster.run_until(2_000, "the old leader resigns", |cluster| cluster.nodes[old].leading.is_none());
}

#[test]
fn a_voter_that_was_cut_off_does_not_disturb_the_leader_when_it_is_back() {
    let (mut cluster, leader) = with_leader(2, 3);
    let epoch = cluster.nodes[leader].leading;
    let lonely = (0..3).find(|node| *node != leader).unwrap();
    cluster.cut = all_ways(lonely, 3);
    cluster.run(30_000);
    cluster.cut.clear();
    cluster.run(10_000);
    assert_eq!(cluster.nodes[leader].leading, epoch, "pre-votes raise no epoch");
    let name = cluster.propose().unwrap();
    cluster.run_until(2_000, "it follows again", |cluster| cluster.has_committed(lonely, &name));
}

#[test]
fn a_leader_that_stops_cleanly_hands_over_before_the_others_would_miss_it() {
    for seed in 0..10 {
        let (mut cluster, old) = with_leader(seed, 3);
        cluster.close(old);
        cluster.run_until(1_000, "another leader", |cluster| cluster.leader().is_some_and(|leader| leader != old));
        cluster.run_until(2_000, "it stops", |cluster| cluster.nodes[old].quorum.is_none());
    }
}

#[test]
fn a_voter_without_a_majority_stops_after_five_seconds() {
    let (mut cluster, leader) = with_leader(1, 3);
    for other in (0..3).filter(|node| *node != leader) {
        cluster.crash(other, true, None);
    }
    cluster.close(leader);
    cluster.run(4_900);
    assert!(cluster.nodes[leader].quorum.is_some(), "it looks for a successor");
    cluster.run_until(200, "it stops", |cluster| cluster.nodes[leader].quorum.is_none());
}

#[test]
fn a_leader_that_restarts_never_leads_in_the_same_epoch_again() {
    for seed in 0..10 {
        let (mut cluster, leader) = with_leader(seed, 1);
        let epoch = cluster.nodes[leader].leading;
        cluster.crash(leader, true, Some(10));
        cluster.run_until(5_000, "it leads again", |cluster| cluster.leader() == Some(leader));
        assert!(cluster.nodes[leader].leading > epoch);
    }
}

#[test]
fn what_an_isolated_leader_appends_is_cut_when_it_is_back() {
    let (mut cluster, old) = with_leader(3, 3);
    cluster.cut = all_ways(old, 3);
    let lost: Vec<String> = (0..5).map(|_| cluster.propose_at(old).unwrap()).collect();
    cluster.run_until(8_000, "another leader", |cluster| cluster.leader().is_some_and(|leader| leader != old));
    let name = cluster.propose().unwrap();
    cluster.run(500);
    cluster.cut.clear();
    cluster.run_until(5_000, "the old leader follows", |cluster| cluster.has_committed(old, &name));
    assert!(lost.iter().all(|name| (0..3).all(|node| !cluster.has_committed(node, name))));
}

#[test]
fn a_replica_behind_the_start_of_the_log_begins_with_a_snapshot() {
    let (mut cluster, leader) = with_leader(4, 3);
    let behind = (0..3).find(|node| *node != leader).unwrap();
    cluster.crash(behind, true, None);
    take_snapshots(&mut cluster, leader, 4, 20);
    let start = cluster.nodes[leader].quorum.as_ref().unwrap().log().unwrap().log_start_offset();
    assert!(start > Offset(40), "the log is trimmed: {start}");
    cluster.crash(behind, false, Some(0));
    let name = cluster.propose_at(leader).unwrap();
    cluster.run_until(10_000, "it has caught up", |cluster| cluster.has_committed(behind, &name));
    assert_eq!(cluster.nodes[behind].state, cluster.nodes[leader].state);
    let log_start = cluster.nodes[behind].quorum.as_ref().unwrap().log().unwrap().log_start_offset();
    assert!(log_start > Offset(40), "its log begins behind the snapshot: {log_start}");
    // And from the snapshot and the log behind it, it starts again.
    cluster.crash(behind, true, Some(10));
    let name = cluster.propose_at(leader).unwrap();
    cluster.run_until(10_000, "it has caught up again", |cluster| cluster.has_committed(behind, &name));
    assert_eq!(cluster.nodes[behind].state, cluster.nodes[leader].state);
}

#[test]
fn a_crash_at_any_moment_of_loading_a_snapshot_leaves_what_can_be_started_from() {
    for steps in 0..40 {
        let (mut cluster, leader) = with_leader(4, 3);
        let behind = (0..3).find(|node| *node != leader).unwrap();
        cluster.crash(behind, true, None);
        take_snapshots(&mut cluster, leader, 3, 10);
        cluster.crash(behind, false, Some(0));
        cluster.run(steps * 2);
        cluster.crash(behind, true, Some(0));
        let name = cluster.propose_at(leader).unwrap();
        cluster.run_until(10_000, "it has caught up", |cluster| cluster.has_committed(behind, &name));
        assert_eq!(cluster.nodes[behind].state, cluster.nodes[leader].state, "after {steps} steps");
    }
}

pub fn vote_request(voter: i32, epoch: i32, last_epoch: i32, last_offset: i64) -> VoteRequest {
    let partition = vote_request::PartitionData {
        replica_epoch: epoch,
        replica_id: 2,
        replica_directory_id: key(2).wire_directory(),
        voter_directory_id: key(voter).wire_directory(),
        last_offset_epoch: last_epoch,
        last_offset,
        ..Default::default()
    };
    let topic = vote_request::TopicData { topic_name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
    VoteRequest { cluster_id: Some("cluster".into()), voter_id: voter, topics: vec![topic], ..Default::default() }
}

/// The answer of node 1 to a Vote: the errors at the top and of the partition, and whether the vote is granted.
fn vote(cluster: &mut Cluster, request: VoteRequest) -> (ErrorCode, ErrorCode, bool) {
    let id = cluster.request(0, 2, request);
    cluster.run(20);
    let Some(ResponseBody::Vote(answer)) = cluster.answers.remove(&id) else { panic!("a Vote is answered") };
    let error = |code| ErrorCode::from_code(code).unwrap();
    match answer.topics.first() {
        None => (error(answer.error_code), ErrorCode::None, false),
        Some(topic) => {
            (error(answer.error_code), error(topic.partitions[0].error_code), topic.partitions[0].vote_granted)
        }
    }
}

#[test]
fn votes_are_checked_as_kafka_checks_them() {
    use ErrorCode::{FencedLeaderEpoch, InconsistentClusterId, InvalidRequest, InvalidVoterKey, None};
    let mut cluster = Cluster::of_recorded_voters(1, 3, 3, Plants::default());
    cluster.cut = (0..3).flat_map(|node| all_ways(node, 3)).collect();
    cluster.run(100);
    let other = VoteRequest { cluster_id: Some("other".into()), ..vote_request(1, 7, 0, 0) };
    assert_eq!(vote(&mut cluster, other), (InconsistentClusterId, None, false));
    assert_eq!(
        vote(&mut cluster, VoteRequest { topics: Vec::new(), ..vote_request(1, 7, 0, 0) }),
        (InvalidRequest, None, false)
    );
    assert_eq!(
        vote(&mut cluster, vote_request(1, 7, 7, 0)),
        (None, InvalidRequest, false),
        "a record of its own epoch"
    );
    assert_eq!(vote(&mut cluster, vote_request(1, 7, 0, -1)), (None, InvalidRequest, false));
    assert_eq!(vote(&mut cluster, vote_request(1, 7, 0, 0)), (None, None, true));
    assert_eq!(vote(&mut cluster, vote_request(1, 7, 0, 0)), (None, None, true), "asked again");
    assert_eq!(vote(&mut cluster, vote_request(1, 6, 0, 0)), (None, FencedLeaderEpoch, false));
    assert_eq!(vote(&mut cluster, vote_request(3, 8, 0, 0)), (None, InvalidVoterKey, false), "meant for another node");
    let quorum = cluster.nodes[0].quorum.as_ref().unwrap();
    assert_eq!(quorum.epoch(), LeaderEpoch(8), "the epoch is taken over nevertheless");
}

#[test]
fn a_vote_is_told_only_once_it_is_on_stable_storage() {
    for seed in 0..20 {
        let mut cluster = Cluster::of_recorded_voters(seed, 3, 3, Plants::default());
        cluster.cut = (0..3).flat_map(|node| all_ways(node, 3)).collect();
        cluster.run(100);
        let id = cluster.request(0, 2, vote_request(1, 7, 0, 0));
        let mut waited = 0;
        while !cluster.answers.contains_key(&id) {
            cluster.run(1);
            waited += 1;
            assert!(waited < 100);
        }
        // Whatever a power cut takes, the vote that was told is there.
        cluster.crash(0, true, Some(0));
        cluster.run(50);
        let quorum = cluster.nodes[0].quorum.as_ref().unwrap();
        assert_eq!(quorum.epoch(), LeaderEpoch(7));
        let mut request = vote_request(1, 7, 0, 0);
        request.topics[0].partitions[0].replica_id = 3;
        request.topics[0].partitions[0].replica_directory_id = key(3).wire_directory();
        assert!(!vote(&mut cluster, request).2, "it has voted for node 2");
    }
}

#[test]
fn a_second_leader_of_an_epoch_is_not_believed() {
    let (mut cluster, leader) = with_leader(1, 3);
    let follower = (0..3).find(|node| *node != leader).unwrap();
    let epoch = cluster.nodes[leader].leading.unwrap();
    let liar = (0..3).find(|node| *node != leader && *node != follower).unwrap();
    let partition = begin_quorum_epoch_request::PartitionData {
        leader_id: liar as i32 + 1,
        leader_epoch: epoch.0,
        voter_directory_id: key(follower as i32 + 1).wire_directory(),
        ..Default::default()
    };
    let topic = begin_quorum_epoch_request::TopicData {
        topic_name: TOPIC.into(),
        partitions: vec![partition],
        ..Default::default()
    };
    let request = BeginQuorumEpochRequest { voter_id: -1, topics: vec![topic], ..Default::default() };
    let id = cluster.request(follower, 1, request);
    cluster.run(20);
    let Some(ResponseBody::BeginQuorumEpoch(answer)) = cluster.answers.remove(&id) else { panic!("not answered") };
    assert_eq!(answer.topics[0].partitions[0].error_code, ErrorCode::UnknownServerError.code());
    let quorum = cluster.nodes[follower].quorum.as_ref().unwrap();
    assert_eq!(quorum.leader(), Some(NodeId(leader as i32 + 1)));
}

#[test]
fn a_leader_whose_snapshot_cannot_be_opened_takes_another_one() {
    let (mut cluster, leader) = with_leader(4, 3);
    let behind = (0..3).find(|node| *node != leader).unwrap();
    cluster.crash(behind, true, None);
    take_snapshots(&mut cluster, leader, 3, 20);
    let names = cluster.nodes[leader].disk.names();
    let newest = names.into_iter().filter(|name| name.ends_with(".checkpoint")).max().map(str::to_owned);
    cluster.nodes[leader].disk.fail_open = newest;
    cluster.propose_at(leader).unwrap();
    cluster.run(100);
    cluster.crash(behind, false, Some(0));
    cluster.run(3_000);
    cluster.nodes[leader].disk.fail_open = None;
    let name = cluster.propose_at(leader).unwrap();
    cluster.run_until(10_000, "it has caught up", |cluster| cluster.has_committed(behind, &name));
    assert_eq!(cluster.nodes[behind].state, cluster.nodes[leader].state);
}

#[test]
fn whoever_waits_is_answered_when_a_node_stops() {
    let (mut cluster, leader) = with_leader(1, 1);
    let quorum = cluster.nodes[leader].quorum.as_ref().unwrap();
    let partition = fetch_request::FetchPartition {
        current_leader_epoch: quorum.epoch().0,
        fetch_offset: quorum.log_end().0,
        last_fetched_epoch: quorum.epoch().0,
        high_watermark: i64::MAX,
        ..Default::default()
    };
    let topic = fetch_request::FetchTopic { topic: TOPIC.into(), partitions: vec![partition], ..Default::default() };
    let fetch = FetchRequest { replica_id: 7, max_wait_ms: 60_000, topics: vec![topic], ..Default::default() };
    let waiting = cluster.request(leader, 12, fetch);
    cluster.run(10);
    assert!(!cluster.answers.contains_key(&waiting), "it waits for records");
    cluster.close(leader);
    let Some(ResponseBody::Fetch(answer)) = cluster.answers.remove(&waiting) else { panic!("not answered") };
    assert_eq!(answer.responses[0].partitions[0].error_code, ErrorCode::NotLeaderOrFollower.code());
    let late = cluster.request(leader, 2, vote_request(1, 70, 0, 0));
    assert!(cluster.answers.contains_key(&late), "a request that comes while the log is being closed");
}

#[test]
fn an_observer_whose_leader_is_cut_off_soon_follows_the_next_one() {
    for seed in 0..60 {
        let mut cluster = Cluster::of_recorded_voters(seed, 3, 4, Plants::default());
        let leader = |cluster: &Cluster| cluster.nodes[3].quorum.as_ref().and_then(|quorum| quorum.leader());
        cluster.run_until(5_000, "a leader", |cluster| leader(cluster).is_some());
        let first = leader(&cluster).expect("just waited for");
        let cut_off = (first.0 - 1) as usize;
        for node in (0..4).filter(|node| *node != cut_off) {
            cluster.cut.extend([(node, cut_off), (cut_off, node)]);
        }
        cluster.run_until(12_000, "the observer follows another leader", |cluster| {
            leader(cluster).is_some_and(|leader| leader != first)
        });
    }
}

#[test]
fn a_node_of_another_cluster_is_told_so_once_by_each_peer_that_it_asks() {
    let configs = (1..=3).map(|node| config(node, static_voters(1..=3)));
    let mut configs: Vec<QuorumConfig> = configs.collect();
    configs[2].cluster_id = "other".into();
    let mut cluster = Cluster::new(1, configs);
    cluster.run(20_000);
    assert!(cluster.leader().is_some_and(|leader| leader != 2));
    let of_other = |node: usize| {
        let said = cluster.nodes[node].said.iter().filter(|text| text.contains("INCONSISTENT_CLUSTER_ID"));
        said.cloned().collect::<Vec<_>>()
    };
    let told = of_other(2);
    for peer in ["controller 1 ", "controller 2 ", "controller at node1:9093 ", "controller at node2:9093 "] {
        let by_peer = told.iter().filter(|text| text.contains(peer)).count();
        assert_eq!(by_peer, 1, "of {peer}: {told:?}");
    }
    assert!(told.iter().all(|text| text.contains("whose cluster.id is other")), "{told:?}");
    let by_others = of_other(0).len() + of_other(1).len();
    assert!((1..=4).contains(&by_others), "each of them asks the third node as a voter, or by its address");
}

#[test]
fn the_first_voters_that_a_node_learns_of_are_no_surprise() {
    let mut cluster = Cluster::of_recorded_voters(1, 3, 4, Plants::default());
    cluster.run_until(5_000, "a leader", |cluster| cluster.leader().is_some());
    let name = cluster.propose().unwrap();
    cluster.run_until(5_000, "the observer reads", |cluster| cluster.has_committed(3, &name));
    assert_eq!(cluster.nodes[3].said, Vec::<String>::new());
}

/// The first control record of a node's newest snapshot, and the file's name.
fn snapshot_header(cluster: &Cluster, node: usize) -> (String, Bytes) {
    let disk = &cluster.nodes[node].disk;
    let newest = disk.names().into_iter().filter(|name| name.ends_with(".checkpoint")).max().expect("a snapshot");
    let content = Bytes::copy_from_slice(disk.content(newest).expect("its content"));
    (newest.to_owned(), snapshot::decode(&content).unwrap().controls[0].value.clone())
}

#[test]
fn nodes_write_the_same_header_of_a_snapshot_whatever_they_have_that_is_not_committed() {
    let (mut cluster, leader) = with_leader(1, 3);
    let other = (leader + 1) % 3;
    cluster.cut = all_ways(leader, 3);
    cluster.run(50);
    cluster.propose_at(leader).unwrap();
    cluster.run(50);
    for node in [leader, other] {
        cluster.snapshot(node);
    }
    cluster.run(100);
    let header = snapshot_header(&cluster, leader);
    assert_eq!(header, snapshot_header(&cluster, other));
    let header = SnapshotHeaderRecord::from_bytes(0, header.1).unwrap();
    assert!(header.last_contained_log_timestamp > 0, "{header:?}");
}
