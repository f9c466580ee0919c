//! What the messages of the quorum say, field by field.

use super::changes::{add, remove};
use super::harness::{config, key, static_voters, voter};
use super::solo::{Solo, begins};
use crate::*;
use std::fmt::Debug;
use tidelog_batch::ControlRecord;
use tidelog_storage::test_disk::TestDisk;
use tidelog_wire::ids::Uuid;
use tidelog_wire::messages::update_raft_voter_request::{KRaftVersionFeature, Listener};
use tidelog_wire::messages::{
    BeginQuorumEpochResponse, DescribeQuorumRequest, EndQuorumEpochRequest, EndQuorumEpochResponse, FetchRequest,
    FetchResponse, FetchSnapshotRequest, FetchSnapshotResponse, UpdateRaftVoterRequest, VoteRequest,
    describe_quorum_request, end_quorum_epoch_request, fetch_request, fetch_response, fetch_snapshot_request,
    vote_request,
};
use tidelog_wire::{ApiKey, ErrorCode, Records};

/// A message as text, without the fields of later versions.
fn told(message: impl Debug) -> String {
    format!("{message:?}")
        .replace(", unknown_tagged_fields: TaggedFields(None)", "")
        .replace("unknown_tagged_fields: TaggedFields(None)", "")
}

/// A request to another node as text.
fn asked(ask: &Ask) -> String {
    format!("to {}, versions {:?}: {}", ask.to, ask.versions, told(&ask.body))
}

fn vote(candidate: i32, epoch: i32, pre_vote: bool) -> VoteRequest {
    let partition = vote_request::PartitionData {
        replica_epoch: epoch,
        replica_id: candidate,
        replica_directory_id: key(candidate).wire_directory(),
        pre_vote,
        ..Default::default()
    };
    let topic = vote_request::TopicData { topic_name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
    VoteRequest { voter_id: -1, topics: vec![topic], ..Default::default() }
}

pub fn ends(leader: i32, epoch: i32) -> EndQuorumEpochRequest {
    let partition =
        end_quorum_epoch_request::PartitionData { leader_id: leader, leader_epoch: epoch, ..Default::default() };
    let topic = end_quorum_epoch_request::TopicData {
        topic_name: TOPIC.into(),
        partitions: vec![partition],
        ..Default::default()
    };
    EndQuorumEpochRequest { topics: vec![topic], ..Default::default() }
}

/// A fetch of a replica whose log ends at `offset`, with a record of `last_epoch`.
pub fn fetch(replica: i32, epoch: i32, offset: i64, last_epoch: i32) -> FetchRequest {
    let partition = fetch_request::FetchPartition {
        current_leader_epoch: epoch,
        fetch_offset: offset,
        last_fetched_epoch: last_epoch,
        replica_directory_id: key(replica).wire_directory(),
        high_watermark: -1,
        ..Default::default()
    };
    let topic = fetch_request::FetchTopic { topic: TOPIC.into(), partitions: vec![partition], ..Default::default() };
    let replica_state = fetch_request::ReplicaState { replica_id: replica, ..Default::default() };
    FetchRequest { replica_state, max_bytes: 1_000_000, topics: vec![topic], ..Default::default() }
}

pub fn fetch_snapshot(epoch: i32, end: i64, snapshot_epoch: i32, position: i64) -> FetchSnapshotRequest {
    let partition = fetch_snapshot_request::PartitionSnapshot {
        current_leader_epoch: epoch,
        snapshot_id: fetch_snapshot_request::SnapshotId {
            end_offset: end,
            epoch: snapshot_epoch,
            ..Default::default()
        },
        position,
        ..Default::default()
    };
    let topic =
        fetch_snapshot_request::TopicSnapshot { name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
    FetchSnapshotRequest { replica_id: 2, max_bytes: 50, topics: vec![topic], ..Default::default() }
}

fn describe(topic: &str, partition_index: i32) -> DescribeQuorumRequest {
    let partition = describe_quorum_request::PartitionData { partition_index, ..Default::default() };
    let topic = describe_quorum_request::TopicData {
        topic_name: topic.into(),
        partitions: vec![partition],
        ..Default::default()
    };
    DescribeQuorumRequest { topics: vec![topic], ..Default::default() }
}

pub fn update(voter: &Voter, epoch: i32) -> UpdateRaftVoterRequest {
    let listener = |(name, address): (&ByteString, &Address)| Listener {
        name: name.clone(),
        host: address.host.clone(),
        port: address.port,
        ..Default::default()
    };
    UpdateRaftVoterRequest {
        cluster_id: Some("cluster".into()),
        current_leader_epoch: epoch,
        voter_id: voter.key.node.0,
        voter_directory_id: voter.key.wire_directory(),
        listeners: voter.endpoints.0.iter().map(listener).collect(),
        kraft_version_feature: KRaftVersionFeature {
            min_supported_version: voter.kraft_versions.0,
            max_supported_version: voter.kraft_versions.1,
            ..Default::default()
        },
        ..Default::default()
    }
}

/// An answer to a fetch, without records.
pub fn fetched(leader: i32, epoch: i32, set: impl FnOnce(&mut fetch_response::PartitionData)) -> FetchResponse {
    let mut partition = fetch_response::PartitionData {
        current_leader: fetch_response::LeaderIdAndEpoch {
            leader_id: leader,
            leader_epoch: epoch,
            ..Default::default()
        },
        records: Some(Records::default()),
        ..Default::default()
    };
    set(&mut partition);
    let topic = fetch_response::FetchableTopicResponse {
        topic: TOPIC.into(),
        topic_id: Uuid::METADATA_TOPIC,
        partitions: vec![partition],
        ..Default::default()
    };
    FetchResponse { responses: vec![topic], ..Default::default() }
}

/// Node 1 leads the voters 1 to 3 in epoch 1, and what it has appended is committed: its first records, and one more.
fn leader() -> Solo {
    let mut solo = Solo::of_recorded_voters(1);
    solo.lead();
    let _ = solo.request(17, fetch(2, 1, 3, 1));
    solo.propose("a");
    let _ = solo.request(17, fetch(2, 1, 4, 1));
    assert_eq!((solo.quorum.epoch(), solo.quorum.committed()), (LeaderEpoch(1), Offset(4)));
    solo
}

#[test]
fn what_a_nominee_asks_for() {
    let mut solo = Solo::of_recorded_voters(1);
    // Which of the voters is asked is drawn.
    insta::assert_snapshot!(told(solo.asked(ApiKey::Fetch).body), @r#"Fetch(FetchRequest { cluster_id: Some("cluster"), replica_id: -1, replica_state: ReplicaState { replica_id: 1, replica_epoch: -1 }, max_wait_ms: 0, min_bytes: 0, max_bytes: 1048576, isolation_level: 0, session_id: 0, session_epoch: -1, topics: [FetchTopic { topic: "__cluster_metadata", topic_id: AAAAAAAAAAAAAAAAAAAAAQ, partitions: [FetchPartition { partition: 0, current_leader_epoch: 0, fetch_offset: 0, last_fetched_epoch: 0, log_start_offset: -1, partition_max_bytes: 1048576, replica_directory_id: AQEBAQEBAQEBAQEBAQEBAQ, high_watermark: -1 }] }], forgotten_topics_data: [], rack_id: "" })"#);
    solo.pass_ms(2_000);
    insta::assert_snapshot!(asked(&solo.asked(ApiKey::Vote)), @r#"to node2:9093, versions 2..=2: Vote(VoteRequest { cluster_id: Some("cluster"), voter_id: 2, topics: [TopicData { topic_name: "__cluster_metadata", partitions: [PartitionData { partition_index: 0, replica_epoch: 0, replica_id: 1, replica_directory_id: AQEBAQEBAQEBAQEBAQEBAQ, voter_directory_id: AgICAgICAgICAgICAgICAg, last_offset_epoch: 0, last_offset: 0, pre_vote: true }] }] })"#);
    let ask = solo.asked(ApiKey::Vote);
    solo.answer(&ask, super::solo::votes(0, true));
    insta::assert_snapshot!(asked(&solo.asked(ApiKey::Vote)), @r#"to node2:9093, versions 0..=2: Vote(VoteRequest { cluster_id: Some("cluster"), voter_id: 2, topics: [TopicData { topic_name: "__cluster_metadata", partitions: [PartitionData { partition_index: 0, replica_epoch: 1, replica_id: 1, replica_directory_id: AQEBAQEBAQEBAQEBAQEBAQ, voter_directory_id: AgICAgICAgICAgICAgICAg, last_offset_epoch: 0, last_offset: 0, pre_vote: false }] }] })"#);
}

#[test]
fn what_a_leader_tells_the_other_voters() {
    let mut solo = leader();
    insta::assert_snapshot!(asked(&solo.asked(ApiKey::BeginQuorumEpoch)), @r#"to node2:9093, versions 0..=1: BeginQuorumEpoch(BeginQuorumEpochRequest { cluster_id: Some("cluster"), voter_id: 2, topics: [TopicData { topic_name: "__cluster_metadata", partitions: [PartitionData { partition_index: 0, voter_directory_id: AgICAgICAgICAgICAgICAg, leader_id: 1, leader_epoch: 1 }] }], leader_endpoints: [LeaderEndpoint { name: "CONTROLLER", host: "node1", port: 9093 }] })"#);
    solo.act(|quorum, now, out| quorum.resign(now, out));
    insta::assert_snapshot!(asked(&solo.asked(ApiKey::EndQuorumEpoch)), @r#"to node2:9093, versions 0..=1: EndQuorumEpoch(EndQuorumEpochRequest { cluster_id: Some("cluster"), topics: [TopicData { topic_name: "__cluster_metadata", partitions: [PartitionData { partition_index: 0, leader_id: 1, leader_epoch: 1, preferred_successors: [2, 3], preferred_candidates: [ReplicaInfo { candidate_id: 2, candidate_directory_id: AgICAgICAgICAgICAgICAg }, ReplicaInfo { candidate_id: 3, candidate_directory_id: AwMDAwMDAwMDAwMDAwMDAw }] }] }], leader_endpoints: [LeaderEndpoint { name: "CONTROLLER", host: "node1", port: 9093 }] })"#);
}

#[test]
fn what_a_follower_asks_for() {
    let mut solo = Solo::of_voters(1, 3, |config| {
        config.endpoints = [("CONTROLLER", "moved", 1)].into_iter().collect();
    });
    solo.follow(2, 5);
    insta::assert_snapshot!(asked(&solo.asked(ApiKey::Fetch)), @r#"to node2:9093, versions 15..=18: Fetch(FetchRequest { cluster_id: Some("cluster"), replica_id: -1, replica_state: ReplicaState { replica_id: 1, replica_epoch: -1 }, max_wait_ms: 500, min_bytes: 0, max_bytes: 1048576, isolation_level: 0, session_id: 0, session_epoch: -1, topics: [FetchTopic { topic: "__cluster_metadata", topic_id: AAAAAAAAAAAAAAAAAAAAAQ, partitions: [FetchPartition { partition: 0, current_leader_epoch: 5, fetch_offset: 0, last_fetched_epoch: 0, log_start_offset: -1, partition_max_bytes: 1048576, replica_directory_id: AQEBAQEBAQEBAQEBAQEBAQ, high_watermark: -1 }] }], forgotten_topics_data: [], rack_id: "" })"#);
    // The leader knows the node at another address.
    solo.follow(2, 6);
    solo.fetch_for_ms(2_000);
    insta::assert_snapshot!(asked(&solo.asked(ApiKey::UpdateRaftVoter)), @r#"to node2:9093, versions 0..=0: UpdateRaftVoter(UpdateRaftVoterRequest { cluster_id: Some("cluster"), current_leader_epoch: 6, voter_id: 1, voter_directory_id: AQEBAQEBAQEBAQEBAQEBAQ, listeners: [Listener { name: "CONTROLLER", host: "moved", port: 1 }], kraft_version_feature: KRaftVersionFeature { min_supported_version: 0, max_supported_version: 1 } })"#);
}

/// KIP-853, `controller.quorum.auto.join.enable`: a controller asks to become a voter; if its node is one already, with
/// another directory, that one has to go first.
#[test]
fn what_a_controller_asks_for_that_joins_by_itself() {
    let mut solo = Solo::of_voters(4, 3, |config| config.joins_by_itself = true);
    solo.follow(2, 5);
    let voters: VoterSet = (1..=3).map(voter).collect();
    let controls = [kraft_version_record(1), voters.record()];
    let batch = ControlRecord::batch(&controls, Offset::ZERO, LeaderEpoch(5), WallMs(0));
    let ask = solo.asked(ApiKey::Fetch);
    solo.answer(&ask, fetched(2, 5, |partition| partition.records = Some(Records::from(batch))));
    solo.fetch_for_ms(2_000);
    insta::assert_snapshot!(asked(&solo.asked(ApiKey::AddRaftVoter)), @r#"to node2:9093, versions 1..=1: AddRaftVoter(AddRaftVoterRequest { cluster_id: Some("cluster"), timeout_ms: 2000, voter_id: 4, voter_directory_id: BAQEBAQEBAQEBAQEBAQEBA, listeners: [Listener { name: "CONTROLLER", host: "node4", port: 9093 }], ack_when_committed: false })"#);

    let mut solo = Solo::of_voters(1, 3, |config| {
        config.joins_by_itself = true;
        config.me.directory = Some(Uuid::from_bytes([9; 16]));
    });
    solo.follow(2, 5);
    solo.fetch_for_ms(2_000);
    insta::assert_snapshot!(asked(&solo.asked(ApiKey::RemoveRaftVoter)), @r#"to node2:9093, versions 0..=0: RemoveRaftVoter(RemoveRaftVoterRequest { cluster_id: Some("cluster"), voter_id: 1, voter_directory_id: AQEBAQEBAQEBAQEBAQEBAQ })"#);
}

#[test]
fn what_a_follower_asks_for_whose_records_are_gone() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    let ask = solo.asked(ApiKey::Fetch);
    let snapshot = fetch_response::SnapshotId { end_offset: 40, epoch: 4, ..Default::default() };
    solo.answer(&ask, fetched(2, 5, |partition| partition.snapshot_id = snapshot));
    insta::assert_snapshot!(asked(&solo.asked(ApiKey::FetchSnapshot)), @r#"to node2:9093, versions 0..=1: FetchSnapshot(FetchSnapshotRequest { cluster_id: Some("cluster"), replica_id: 1, max_bytes: 200, topics: [TopicSnapshot { name: "__cluster_metadata", partitions: [PartitionSnapshot { partition: 0, current_leader_epoch: 5, snapshot_id: SnapshotId { end_offset: 40, epoch: 4 }, position: 0, replica_directory_id: AQEBAQEBAQEBAQEBAQEBAQ }] }] })"#);
}

#[test]
fn what_a_leader_answers() {
    let mut solo = leader();
    let vote = vote(2, 1, true);
    insta::assert_snapshot!(told(solo.request(2, vote)), @r#"Vote(VoteResponse { error_code: 0, topics: [TopicData { topic_name: "__cluster_metadata", partitions: [PartitionData { partition_index: 0, error_code: 0, leader_id: 1, leader_epoch: 1, vote_granted: false }] }], node_endpoints: [NodeEndpoint { node_id: 1, host: "node1", port: 9093 }] })"#);
    insta::assert_snapshot!(told(solo.request(1, begins(2, 0))), @r#"BeginQuorumEpoch(BeginQuorumEpochResponse { error_code: 0, topics: [TopicData { topic_name: "__cluster_metadata", partitions: [PartitionData { partition_index: 0, error_code: 74, leader_id: 1, leader_epoch: 1 }] }], node_endpoints: [NodeEndpoint { node_id: 1, host: "node1", port: 9093 }] })"#);
    insta::assert_snapshot!(told(solo.request(1, ends(2, 0))), @r#"EndQuorumEpoch(EndQuorumEpochResponse { error_code: 0, topics: [TopicData { topic_name: "__cluster_metadata", partitions: [PartitionData { partition_index: 0, error_code: 74, leader_id: 1, leader_epoch: 1 }] }], node_endpoints: [NodeEndpoint { node_id: 1, host: "node1", port: 9093 }] })"#);
    insta::assert_snapshot!(told(solo.request(17, fetch(2, 1, 4, 1))), @r#"Fetch(FetchResponse { throttle_time_ms: 0, error_code: 0, session_id: 0, responses: [FetchableTopicResponse { topic: "__cluster_metadata", topic_id: AAAAAAAAAAAAAAAAAAAAAQ, partitions: [PartitionData { partition_index: 0, error_code: 0, high_watermark: 4, last_stable_offset: -1, log_start_offset: 0, diverging_epoch: EpochEndOffset { epoch: -1, end_offset: -1 }, current_leader: LeaderIdAndEpoch { leader_id: 1, leader_epoch: 1 }, snapshot_id: SnapshotId { end_offset: -1, epoch: -1 }, aborted_transactions: Some([]), preferred_read_replica: -1, records: Some(Records { chunks: [] }) }] }], node_endpoints: [NodeEndpoint { node_id: 1, host: "node1", port: 9093, rack: None }] })"#);
    insta::assert_snapshot!(told(solo.request(17, fetch(2, 1, 9, 1))), @r#"Fetch(FetchResponse { throttle_time_ms: 0, error_code: 0, session_id: 0, responses: [FetchableTopicResponse { topic: "__cluster_metadata", topic_id: AAAAAAAAAAAAAAAAAAAAAQ, partitions: [PartitionData { partition_index: 0, error_code: 0, high_watermark: 4, last_stable_offset: -1, log_start_offset: 0, diverging_epoch: EpochEndOffset { epoch: 1, end_offset: 4 }, current_leader: LeaderIdAndEpoch { leader_id: 1, leader_epoch: 1 }, snapshot_id: SnapshotId { end_offset: -1, epoch: -1 }, aborted_transactions: Some([]), preferred_read_replica: -1, records: Some(Records { chunks: [] }) }] }], node_endpoints: [NodeEndpoint { node_id: 1, host: "node1", port: 9093, rack: None }] })"#);
    insta::assert_snapshot!(told(solo.request(17, fetch(2, 0, 4, 0))), @r#"Fetch(FetchResponse { throttle_time_ms: 0, error_code: 0, session_id: 0, responses: [FetchableTopicResponse { topic: "__cluster_metadata", topic_id: AAAAAAAAAAAAAAAAAAAAAQ, partitions: [PartitionData { partition_index: 0, error_code: 74, high_watermark: -1, last_stable_offset: -1, log_start_offset: 0, diverging_epoch: EpochEndOffset { epoch: -1, end_offset: -1 }, current_leader: LeaderIdAndEpoch { leader_id: 1, leader_epoch: 1 }, snapshot_id: SnapshotId { end_offset: -1, epoch: -1 }, aborted_transactions: Some([]), preferred_read_replica: -1, records: Some(Records { chunks: [] }) }] }], node_endpoints: [NodeEndpoint { node_id: 1, host: "node1", port: 9093, rack: None }] })"#);
    insta::assert_snapshot!(told(solo.request(1, fetch_snapshot(1, 4, 1, 0))), @r#"FetchSnapshot(FetchSnapshotResponse { throttle_time_ms: 0, error_code: 0, topics: [TopicSnapshot { name: "__cluster_metadata", partitions: [PartitionSnapshot { index: 0, error_code: 98, snapshot_id: SnapshotId { end_offset: 0, epoch: 0 }, current_leader: LeaderIdAndEpoch { leader_id: 1, leader_epoch: 1 }, size: 0, position: 0, unaligned_records: Records { chunks: [] } }] }], node_endpoints: [NodeEndpoint { node_id: 1, host: "node1", port: 9093 }] })"#);
    insta::assert_snapshot!(told(solo.request(0, update(&voter(2), 1))), @r#"UpdateRaftVoter(UpdateRaftVoterResponse { throttle_time_ms: 0, error_code: 0, current_leader: CurrentLeader { leader_id: 1, leader_epoch: 1, host: "node1", port: 9093 } })"#);
    insta::assert_snapshot!(told(solo.request(0, add(&voter(2)))), @r#"AddRaftVoter(AddRaftVoterResponse { throttle_time_ms: 0, error_code: 126, error_message: Some("The voter id for 2 (AgICAgICAgICAgICAgICAg) is already part of the set of voters 1 (AQEBAQEBAQEBAQEBAQEBAQ), 2 (AgICAgICAgICAgICAgICAg), 3 (AwMDAwMDAwMDAwMDAwMDAw).") })"#);
    insta::assert_snapshot!(told(solo.request(0, remove(key(7)))), @r#"RemoveRaftVoter(RemoveRaftVoterResponse { throttle_time_ms: 0, error_code: 127, error_message: Some("Cannot remove voter 7 (BwcHBwcHBwcHBwcHBwcHBw) from the set of voters 1 (AQEBAQEBAQEBAQEBAQEBAQ), 2 (AgICAgICAgICAgICAgICAg), 3 (AwMDAwMDAwMDAwMDAwMDAw)") })"#);
}

#[test]
fn what_a_leader_answers_that_has_a_snapshot() {
    let mut solo = leader();
    solo.act(|quorum, now, out| {
        quorum.snapshot(now, Offset(4), &[], out);
        Vec::new()
    });
    insta::assert_snapshot!(told(solo.request(17, fetch(2, 1, 0, 0))), @r#"Fetch(FetchResponse { throttle_time_ms: 0, error_code: 0, session_id: 0, responses: [FetchableTopicResponse { topic: "__cluster_metadata", topic_id: AAAAAAAAAAAAAAAAAAAAAQ, partitions: [PartitionData { partition_index: 0, error_code: 0, high_watermark: 4, last_stable_offset: -1, log_start_offset: 0, diverging_epoch: EpochEndOffset { epoch: -1, end_offset: -1 }, current_leader: LeaderIdAndEpoch { leader_id: 1, leader_epoch: 1 }, snapshot_id: SnapshotId { end_offset: 4, epoch: 1 }, aborted_transactions: Some([]), preferred_read_replica: -1, records: Some(Records { chunks: [] }) }] }], node_endpoints: [NodeEndpoint { node_id: 1, host: "node1", port: 9093, rack: None }] })"#);
    insta::assert_snapshot!(told(solo.request(1, fetch_snapshot(1, 4, 1, 7))), @r#"FetchSnapshot(FetchSnapshotResponse { throttle_time_ms: 0, error_code: 0, topics: [TopicSnapshot { name: "__cluster_metadata", partitions: [PartitionSnapshot { index: 0, error_code: 0, snapshot_id: SnapshotId { end_offset: 4, epoch: 1 }, current_leader: LeaderIdAndEpoch { leader_id: 1, leader_epoch: 1 }, size: 332, position: 7, unaligned_records: Records { chunks: [File(FileSlice { file: FileId(18446744069414584321), position: 7, len: 50 })] } }] }], node_endpoints: [NodeEndpoint { node_id: 1, host: "node1", port: 9093 }] })"#);
    insta::assert_snapshot!(told(solo.request(1, fetch_snapshot(1, 4, 1, -1))), @r#"FetchSnapshot(FetchSnapshotResponse { throttle_time_ms: 0, error_code: 0, topics: [TopicSnapshot { name: "__cluster_metadata", partitions: [PartitionSnapshot { index: 0, error_code: 99, snapshot_id: SnapshotId { end_offset: 0, epoch: 0 }, current_leader: LeaderIdAndEpoch { leader_id: 1, leader_epoch: 1 }, size: 0, position: 0, unaligned_records: Records { chunks: [] } }] }], node_endpoints: [NodeEndpoint { node_id: 1, host: "node1", port: 9093 }] })"#);
    let mut other = fetch_snapshot(1, 4, 1, 0);
    other.topics[0].name = "other".into();
    other.topics[0].partitions[0].partition = 3;
    insta::assert_snapshot!(told(solo.request(1, other)), @r#"FetchSnapshot(FetchSnapshotResponse { throttle_time_ms: 0, error_code: 0, topics: [TopicSnapshot { name: "other", partitions: [PartitionSnapshot { index: 3, error_code: 3, snapshot_id: SnapshotId { end_offset: 0, epoch: 0 }, current_leader: LeaderIdAndEpoch { leader_id: 1, leader_epoch: 1 }, size: 0, position: 0, unaligned_records: Records { chunks: [] } }] }], node_endpoints: [NodeEndpoint { node_id: 1, host: "node1", port: 9093 }] })"#);
}

#[test]
fn what_a_leader_says_of_the_quorum() {
    let mut solo = leader();
    solo.pass_ms(100);
    let _ = solo.request(17, fetch(9, 1, 3, 1));
    insta::assert_snapshot!(told(solo.request(0, describe(TOPIC, 0))), @r#"DescribeQuorum(DescribeQuorumResponse { error_code: 0, error_message: Some(""), topics: [TopicData { topic_name: "__cluster_metadata", partitions: [PartitionData { partition_index: 0, error_code: 0, error_message: Some(""), leader_id: 1, leader_epoch: 1, high_watermark: 4, current_voters: [ReplicaState { replica_id: 1, replica_directory_id: AAAAAAAAAAAAAAAAAAAAAA, log_end_offset: 4, last_fetch_timestamp: 1700000001400, last_caught_up_timestamp: 1700000001400 }, ReplicaState { replica_id: 2, replica_directory_id: AAAAAAAAAAAAAAAAAAAAAA, log_end_offset: 4, last_fetch_timestamp: 1700000001300, last_caught_up_timestamp: 1700000001300 }, ReplicaState { replica_id: 3, replica_directory_id: AAAAAAAAAAAAAAAAAAAAAA, log_end_offset: -1, last_fetch_timestamp: -1, last_caught_up_timestamp: -1 }], observers: [ReplicaState { replica_id: 9, replica_directory_id: AAAAAAAAAAAAAAAAAAAAAA, log_end_offset: 3, last_fetch_timestamp: 1700000001400, last_caught_up_timestamp: -1 }] }] }], nodes: [] })"#);
    insta::assert_snapshot!(told(solo.request(2, describe(TOPIC, 0))), @r#"DescribeQuorum(DescribeQuorumResponse { error_code: 0, error_message: Some(""), topics: [TopicData { topic_name: "__cluster_metadata", partitions: [PartitionData { partition_index: 0, error_code: 0, error_message: Some(""), leader_id: 1, leader_epoch: 1, high_watermark: 4, current_voters: [ReplicaState { replica_id: 1, replica_directory_id: AQEBAQEBAQEBAQEBAQEBAQ, log_end_offset: 4, last_fetch_timestamp: 1700000001400, last_caught_up_timestamp: 1700000001400 }, ReplicaState { replica_id: 2, replica_directory_id: AgICAgICAgICAgICAgICAg, log_end_offset: 4, last_fetch_timestamp: 1700000001300, last_caught_up_timestamp: 1700000001300 }, ReplicaState { replica_id: 3, replica_directory_id: AwMDAwMDAwMDAwMDAwMDAw, log_end_offset: -1, last_fetch_timestamp: -1, last_caught_up_timestamp: -1 }], observers: [ReplicaState { replica_id: 9, replica_directory_id: CQkJCQkJCQkJCQkJCQkJCQ, log_end_offset: 3, last_fetch_timestamp: 1700000001400, last_caught_up_timestamp: -1 }] }] }], nodes: [Node { node_id: 1, listeners: [Listener { name: "CONTROLLER", host: "node1", port: 9093 }] }, Node { node_id: 2, listeners: [Listener { name: "CONTROLLER", host: "node2", port: 9093 }] }, Node { node_id: 3, listeners: [Listener { name: "CONTROLLER", host: "node3", port: 9093 }] }] })"#);
    insta::assert_snapshot!(told(solo.request(2, describe(TOPIC, 1))), @r#"DescribeQuorum(DescribeQuorumResponse { error_code: 0, error_message: Some(""), topics: [TopicData { topic_name: "__cluster_metadata", partitions: [PartitionData { partition_index: 1, error_code: 3, error_message: Some(""), leader_id: 0, leader_epoch: 0, high_watermark: 0, current_voters: [], observers: [] }] }], nodes: [] })"#);
    insta::assert_snapshot!(told(solo.request(2, describe("other", 0))), @r#"DescribeQuorum(DescribeQuorumResponse { error_code: 0, error_message: Some(""), topics: [TopicData { topic_name: "other", partitions: [PartitionData { partition_index: 0, error_code: 3, error_message: Some(""), leader_id: 0, leader_epoch: 0, high_watermark: 0, current_voters: [], observers: [] }] }], nodes: [] })"#);
    insta::assert_snapshot!(told(solo.request(2, DescribeQuorumRequest::default())), @r#"DescribeQuorum(DescribeQuorumResponse { error_code: 0, error_message: Some(""), topics: [], nodes: [] })"#);
}

/// The directory of a static voter is not known, and the leader is never behind itself nevertheless.
#[test]
fn what_a_lone_static_voter_says_of_the_quorum() {
    let mut solo = Solo::start(config(1, static_voters([1])), TestDisk::default());
    solo.lead();
    solo.propose("a");
    let ResponseBody::DescribeQuorum(answer) = solo.request(2, describe(TOPIC, 0)) else { unreachable!() };
    let voter = &answer.topics[0].partitions[0].current_voters[0];
    let now = solo.now().wall.0;
    assert_eq!((voter.log_end_offset, voter.last_fetch_timestamp, voter.last_caught_up_timestamp), (2, now, now));
}

#[test]
fn what_a_follower_answers() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    insta::assert_snapshot!(told(solo.request(2, describe(TOPIC, 0))), @r#"DescribeQuorum(DescribeQuorumResponse { error_code: 0, error_message: Some(""), topics: [TopicData { topic_name: "__cluster_metadata", partitions: [PartitionData { partition_index: 0, error_code: 6, error_message: Some("For requests intended only for the leader, this error indicates that the broker is not the current leader. For requests intended for any replica, this error indicates that the broker is not a replica of the topic partition."), leader_id: 0, leader_epoch: 0, high_watermark: 0, current_voters: [], observers: [] }] }], nodes: [] })"#);
    insta::assert_snapshot!(told(solo.request(1, describe(TOPIC, 0))), @r#"DescribeQuorum(DescribeQuorumResponse { error_code: 0, error_message: Some(""), topics: [TopicData { topic_name: "__cluster_metadata", partitions: [PartitionData { partition_index: 0, error_code: 6, error_message: None, leader_id: 0, leader_epoch: 0, high_watermark: 0, current_voters: [], observers: [] }] }], nodes: [] })"#);
    insta::assert_snapshot!(told(solo.request(2, vote(3, 5, true))), @r#"Vote(VoteResponse { error_code: 0, topics: [TopicData { topic_name: "__cluster_metadata", partitions: [PartitionData { partition_index: 0, error_code: 0, leader_id: 2, leader_epoch: 5, vote_granted: true }] }], node_endpoints: [NodeEndpoint { node_id: 2, host: "node2", port: 9093 }] })"#);
    insta::assert_snapshot!(told(solo.request(17, fetch(3, 5, 0, 0))), @r#"Fetch(FetchResponse { throttle_time_ms: 0, error_code: 0, session_id: 0, responses: [FetchableTopicResponse { topic: "__cluster_metadata", topic_id: AAAAAAAAAAAAAAAAAAAAAQ, partitions: [PartitionData { partition_index: 0, error_code: 6, high_watermark: -1, last_stable_offset: -1, log_start_offset: 0, diverging_epoch: EpochEndOffset { epoch: -1, end_offset: -1 }, current_leader: LeaderIdAndEpoch { leader_id: 2, leader_epoch: 5 }, snapshot_id: SnapshotId { end_offset: -1, epoch: -1 }, aborted_transactions: Some([]), preferred_read_replica: -1, records: Some(Records { chunks: [] }) }] }], node_endpoints: [NodeEndpoint { node_id: 2, host: "node2", port: 9093, rack: None }] })"#);
    insta::assert_snapshot!(told(solo.request(0, update(&voter(3), 5))), @r#"UpdateRaftVoter(UpdateRaftVoterResponse { throttle_time_ms: 0, error_code: 6, current_leader: CurrentLeader { leader_id: 2, leader_epoch: 5, host: "node2", port: 9093 } })"#);
}

#[test]
fn whatever_is_asked_of_a_node_that_stops_is_refused() {
    let mut solo = Solo::of_voters(1, 1, |_| {});
    solo.lead();
    solo.act(|quorum, now, out| quorum.close(now, out));
    let requests: Vec<RequestBody> = vec![
        vote(2, 9, false).into(),
        begins(2, 9).into(),
        ends(2, 9).into(),
        fetch(2, 9, 0, 0).into(),
        fetch_snapshot(9, 4, 1, 0).into(),
        describe(TOPIC, 0).into(),
        add(&voter(2)).into(),
        remove(key(1)).into(),
        update(&voter(2), 9).into(),
    ];
    let refused = format!("error_code: {}", ErrorCode::NotLeaderOrFollower.code());
    for request in requests {
        let text = told(&request);
        let answer = told(solo.request(0, request));
        assert!(answer.contains(&refused), "{text} is answered with {answer}");
    }
}

#[test]
fn a_peer_of_another_cluster_is_told_of_whatever_it_was_asked() {
    let error_code = ErrorCode::InconsistentClusterId.code();
    let is_told = |solo: &mut Solo, api_key: ApiKey, answer: ResponseBody| {
        let ask = solo.asked(api_key);
        solo.log.clear();
        solo.answer(&ask, answer);
        solo.log.iter().any(|text| text.contains("is of another cluster than this node"))
    };
    let mut solo = Solo::of_recorded_voters(1);
    solo.lead();
    let begin = BeginQuorumEpochResponse { error_code, ..Default::default() };
    assert!(is_told(&mut solo, ApiKey::BeginQuorumEpoch, begin.into()));
    let mut solo = Solo::of_recorded_voters(1);
    solo.lead();
    solo.act(|quorum, now, out| quorum.resign(now, out));
    let end = EndQuorumEpochResponse { error_code, ..Default::default() };
    assert!(is_told(&mut solo, ApiKey::EndQuorumEpoch, end.into()));
    let mut solo = super::fetching::downloading();
    let snapshot = FetchSnapshotResponse { error_code, ..Default::default() };
    assert!(is_told(&mut solo, ApiKey::FetchSnapshot, snapshot.into()));
}
