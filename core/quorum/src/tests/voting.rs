//! Vote, BeginQuorumEpoch and EndQuorumEpoch, as one node answers and asks them (KIP-595, KIP-996).

use super::elections::vote_request;
use super::harness::{config, key, static_voters};
use super::messages::{ends, fetch, fetched};
use super::solo::{Solo, begins, record, votes};
use crate::*;
use tidelog_storage::io::AskError;
use tidelog_storage::test_disk::TestDisk;
use tidelog_wire::ids::Uuid;
use tidelog_wire::messages::end_quorum_epoch_request::ReplicaInfo;
use tidelog_wire::messages::vote_request::PartitionData;
use tidelog_wire::messages::{
    BeginQuorumEpochRequest, BeginQuorumEpochResponse, EndQuorumEpochResponse, VoteRequest, VoteResponse,
    begin_quorum_epoch_response, end_quorum_epoch_response, vote_response,
};
use tidelog_wire::{ApiKey, ErrorCode, Records};

/// What is answered to a Vote: the error at the top, that of the partition, and whether the vote is granted.
fn vote(solo: &mut Solo, request: VoteRequest) -> (ErrorCode, ErrorCode, bool) {
    let ResponseBody::Vote(answer) = solo.request(2, request) else { unreachable!() };
    let error = |code| ErrorCode::from_code(code).unwrap();
    let partition = answer.topics.first().map(|topic| &topic.partitions[0]);
    (
        error(answer.error_code),
        error(partition.map_or(0, |partition| partition.error_code)),
        partition.is_some_and(|partition| partition.vote_granted),
    )
}

/// A Vote of node 2 for itself, changed.
fn asks(epoch: i32, last_epoch: i32, last_offset: i64, change: impl FnOnce(&mut PartitionData)) -> VoteRequest {
    let mut request = vote_request(1, epoch, last_epoch, last_offset);
    change(&mut request.topics[0].partitions[0]);
    request
}

const GRANTED: (ErrorCode, ErrorCode, bool) = (ErrorCode::None, ErrorCode::None, true);
const REJECTED: (ErrorCode, ErrorCode, bool) = (ErrorCode::None, ErrorCode::None, false);

fn partition_error(error: ErrorCode) -> (ErrorCode, ErrorCode, bool) {
    (ErrorCode::None, error, false)
}

#[test]
fn a_vote_that_makes_no_sense_is_refused_and_changes_nothing() {
    let mut solo = Solo::of_recorded_voters(1);
    let at_top = (ErrorCode::InvalidRequest, ErrorCode::None, false);
    let mut request = vote_request(1, 7, 0, 0);
    request.topics[0].topic_name = "other".into();
    assert_eq!(vote(&mut solo, request), at_top);
    let mut request = vote_request(1, 7, 0, 0);
    request.topics.push(request.topics[0].clone());
    assert_eq!(vote(&mut solo, request), at_top);
    assert_eq!(vote(&mut solo, asks(7, 0, 0, |partition| partition.partition_index = 1)), at_top);

    let invalid = partition_error(ErrorCode::InvalidRequest);
    assert_eq!(vote(&mut solo, asks(7, 0, -1, |_| {})), invalid);
    assert_eq!(vote(&mut solo, asks(7, -1, 0, |_| {})), invalid);
    assert_eq!(vote(&mut solo, asks(7, 7, 0, |_| {})), invalid, "no candidate has a record of its epoch");
    assert_eq!(vote(&mut solo, asks(7, 8, 0, |partition| partition.pre_vote = true)), invalid);
    assert_eq!(vote(&mut solo, asks(i32::MAX, 0, 0, |_| {})), invalid, "no epoch could follow");
    assert_eq!(vote(&mut solo, asks(7, 0, 0, |partition| partition.replica_id = -1)), invalid);
    assert_eq!(solo.quorum.epoch(), LeaderEpoch(0));
    let of_node_0 = |partition: &mut PartitionData| partition.replica_id = 0;
    assert_eq!(vote(&mut solo, asks(6, 0, 0, of_node_0)), GRANTED, "0 is a node like any other");
    let pre_vote = |partition: &mut PartitionData| partition.pre_vote = true;
    assert_eq!(vote(&mut solo, asks(7, 7, 0, pre_vote)), GRANTED, "its log may end with the epoch that it knows");
}

#[test]
fn a_vote_is_for_the_voter_that_it_names() {
    let mut solo = Solo::of_recorded_voters(1);
    let mut named = |voter_id, directory: Uuid| {
        let request = asks(7, 0, 0, |partition| partition.voter_directory_id = directory);
        vote(&mut solo, VoteRequest { voter_id, ..request })
    };
    let (mine, other) = (key(1).wire_directory(), Uuid::from_bytes([9; 16]));
    assert_eq!(named(1, other), partition_error(ErrorCode::InvalidVoterKey));
    assert_eq!(named(2, mine), partition_error(ErrorCode::InvalidVoterKey));
    assert_eq!(named(0, mine), partition_error(ErrorCode::InvalidVoterKey));
    assert_eq!([named(1, mine), named(1, Uuid::ZERO), named(-1, other)], [GRANTED; 3]);
}

/// A log is longer if its last epoch is higher, or if that is equal and its end is (Raft, 5.4.1).
#[test]
fn a_vote_goes_to_a_log_that_is_at_least_as_long() {
    let follower = || {
        let mut solo = Solo::of_recorded_voters(1);
        solo.follow(3, 5);
        let values = ["a", "b"].map(|name| record(name).encode(0));
        let batch = snapshot::batches(Offset::ZERO, LeaderEpoch(5), WallMs(3), &values, 1_000).remove(0);
        let ask = solo.asked(ApiKey::Fetch);
        solo.answer(&ask, fetched(3, 5, |partition| partition.records = Some(Records::from(batch))));
        solo
    };
    assert_eq!(vote(&mut follower(), asks(9, 5, 1, |_| {})), REJECTED);
    assert_eq!(vote(&mut follower(), asks(9, 4, 7, |_| {})), REJECTED);
    assert_eq!(vote(&mut follower(), asks(9, 5, 2, |_| {})), GRANTED);
    assert_eq!(vote(&mut follower(), asks(9, 6, 0, |_| {})), GRANTED);
}

#[test]
fn a_node_votes_for_no_other_process_of_its_own_id_and_only_once() {
    let mut solo = Solo::of_recorded_voters(1);
    let of_node = |node: i32| {
        asks(7, 0, 0, |partition| {
            partition.replica_id = node;
            partition.replica_directory_id = key(node).wire_directory();
        })
    };
    assert_eq!(vote(&mut solo, of_node(1)), REJECTED);
    assert_eq!(solo.quorum.vote(), None);
    assert_eq!(vote(&mut solo, of_node(2)), GRANTED);
    assert_eq!(vote(&mut solo, of_node(3)), REJECTED);
    assert_eq!(vote(&mut solo, of_node(2)), GRANTED, "it has not got the answer");
    assert_eq!(solo.quorum.vote(), Some(NodeId(2)));
}

#[test]
fn who_has_voted_waits_another_time_out_before_it_stands_itself() {
    let mut solo = Solo::of_recorded_voters(1);
    let deadline = |solo: &Solo| solo.quorum.role().deadline().unwrap();
    let before = deadline(&solo);
    solo.pass_ms(900);
    let now = Mono::ZERO.plus_ms(solo.ms);
    let _ = vote(&mut solo, asks(7, 0, 0, |_| {}));
    assert!(deadline(&solo) >= now.plus_ms(1_000) && deadline(&solo) > before);
}

// A nominee and the answers that it gets.

/// Node 1 asks for pre-votes in epoch 0.
fn prospective() -> Solo {
    let mut solo = Solo::of_recorded_voters(1);
    solo.pass_ms(2_000);
    solo.asks.retain(|ask| ask.body.api_key() == ApiKey::Vote);
    assert_eq!((solo.quorum.role().name(), solo.asks.len()), ("prospective", 2));
    solo
}

fn answers(leader: i32, epoch: i32, error: ErrorCode) -> VoteResponse {
    let partition = vote_response::PartitionData {
        error_code: error.code(),
        leader_id: leader,
        leader_epoch: epoch,
        ..Default::default()
    };
    let topic =
        vote_response::TopicData { topic_name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
    VoteResponse { topics: vec![topic], ..Default::default() }
}

/// The role after one answer, and whether the peer is asked again at once, and after a pause.
fn after(answer: VoteResponse) -> (&'static str, bool, bool) {
    let mut solo = prospective();
    let ask = solo.asked(ApiKey::Vote);
    solo.asks.clear();
    solo.answer(&ask, answer);
    let is_asked = |solo: &Solo| solo.asks.iter().any(|ask| ask.body.api_key() == ApiKey::Vote);
    let at_once = is_asked(&solo);
    solo.pass_ms(20);
    (solo.quorum.role().name(), at_once, is_asked(&solo))
}

#[test]
fn an_answer_that_is_of_no_use_is_asked_for_again_after_a_pause() {
    assert_eq!(after(votes(0, true)).0, "candidate");
    assert_eq!(after(votes(0, false)), ("prospective", false, false), "it has answered");
    let again = ("prospective", false, true);
    assert_eq!(after(VoteResponse { error_code: ErrorCode::InvalidRequest.code(), ..votes(0, true) }), again);
    assert_eq!(after(VoteResponse { topics: Vec::new(), ..votes(0, true) }), again);
    assert_eq!(after(answers(-1, 0, ErrorCode::InvalidVoterKey)), again);
    assert_eq!(after(answers(-1, 0, ErrorCode::BrokerNotAvailable)), again);
    assert_eq!(after(answers(-1, 0, ErrorCode::InvalidRequest)), again);
    assert_eq!(after(answers(-1, 0, ErrorCode::UnknownLeaderEpoch)), again);
    assert_eq!(after(answers(-1, -1, ErrorCode::None)), again, "it knows an older epoch");
}

#[test]
fn an_answer_that_names_a_leader_or_a_higher_epoch_is_believed() {
    assert_eq!(after(answers(3, 0, ErrorCode::None)).0, "follower");
    assert_eq!(after(answers(3, 4, ErrorCode::FencedLeaderEpoch)).0, "follower");
    assert_eq!(after(answers(3, 0, ErrorCode::NotLeaderOrFollower)).0, "follower");
    assert_eq!(after(answers(-1, 4, ErrorCode::FencedLeaderEpoch)).0, "unattached");
    assert_eq!(after(answers(9, 4, ErrorCode::None)).0, "unattached", "nobody knows where node 9 listens");
}

#[test]
fn a_voter_that_is_older_than_pre_votes_is_asked_for_its_vote() {
    let mut solo = prospective();
    let ask = solo.asked(ApiKey::Vote);
    solo.fail(&ask, AskError::Unreachable);
    assert_eq!(solo.quorum.role().name(), "prospective");
    let ask = solo.asked(ApiKey::Vote);
    solo.asks.clear();
    solo.fail(&ask, AskError::Unsupported);
    assert_eq!((solo.quorum.role().name(), solo.quorum.epoch()), ("candidate", LeaderEpoch(1)));
    let ask = solo.asked(ApiKey::Vote);
    solo.fail(&ask, AskError::Unsupported);
    assert_eq!((solo.quorum.role().name(), solo.quorum.epoch()), ("candidate", LeaderEpoch(1)));
}

#[test]
fn a_candidate_that_has_lost_waits_and_then_asks_again() {
    let mut solo = prospective();
    let ask = solo.asked(ApiKey::Vote);
    solo.answer(&ask, votes(0, true));
    solo.asks.retain(|ask| matches!(&ask.body, RequestBody::Vote(vote) if !vote.topics[0].partitions[0].pre_vote));
    for _ in 0..2 {
        let ask = solo.asked(ApiKey::Vote);
        solo.answer(&ask, votes(1, false));
    }
    assert_eq!((solo.quorum.role().name(), solo.asks.len()), ("candidate", 0));
    solo.pass_ms(2_000);
    assert_eq!((solo.quorum.role().name(), solo.quorum.epoch()), ("prospective", LeaderEpoch(1)));
    for _ in 0..2 {
        let ask = solo.asked(ApiKey::Vote);
        solo.answer(&ask, votes(1, false));
    }
    assert_eq!(solo.quorum.role().name(), "unattached", "nobody would vote for it");
}

// Leaders that come and go.

fn begin(solo: &mut Solo, request: BeginQuorumEpochRequest) -> ErrorCode {
    let ResponseBody::BeginQuorumEpoch(answer) = solo.request(1, request) else { unreachable!() };
    let code = answer.topics.first().map_or(answer.error_code, |topic| topic.partitions[0].error_code);
    ErrorCode::from_code(code).unwrap()
}

#[test]
fn a_leader_that_begins_its_epoch_is_followed_if_it_can_be() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    let other = BeginQuorumEpochRequest { cluster_id: Some("other".into()), ..begins(3, 6) };
    assert_eq!(begin(&mut solo, other), ErrorCode::InconsistentClusterId);
    assert_eq!(
        begin(&mut solo, BeginQuorumEpochRequest { topics: Vec::new(), ..begins(3, 6) }),
        ErrorCode::InvalidRequest
    );
    assert_eq!(begin(&mut solo, begins(3, 4)), ErrorCode::FencedLeaderEpoch);
    assert_eq!(begin(&mut solo, begins(-1, 6)), ErrorCode::InvalidRequest);
    assert_eq!(begin(&mut solo, begins(3, 5)), ErrorCode::UnknownServerError, "node 2 leads in this epoch");
    assert_eq!(begin(&mut solo, begins(1, 6)), ErrorCode::UnknownServerError, "it would be this node itself");
    assert_eq!((solo.quorum.leader(), solo.quorum.epoch()), (Some(NodeId(2)), LeaderEpoch(5)));
    assert_eq!(solo.log.iter().filter(|text| text.contains("the peer is not believed")).count(), 2);
    assert_eq!(begin(&mut solo, begins(1, 6)), ErrorCode::UnknownServerError);
    assert_eq!(solo.log.iter().filter(|text| text.contains("the peer is not believed")).count(), 2, "it is told once");
    assert_eq!(begin(&mut solo, begins(1, 5)), ErrorCode::UnknownServerError, "node 2 leads in this epoch");

    let for_another = BeginQuorumEpochRequest { voter_id: 3, ..begins(3, 6) };
    assert_eq!(begin(&mut solo, for_another), ErrorCode::InvalidVoterKey);
    assert_eq!(solo.quorum.leader(), Some(NodeId(3)), "it leads nevertheless");
    // A leader may tell more addresses than were known, or none, and then those of the voters are used.
    let mut more = begins(3, 6);
    more.leader_endpoints.push(more.leader_endpoints[0].clone());
    more.leader_endpoints[1].name = "OTHER".into();
    assert_eq!(begin(&mut solo, more), ErrorCode::None);
    assert_eq!(solo.quorum.leader_endpoints().len(), 2);
    assert_eq!(begin(&mut solo, begins(3, 6)), ErrorCode::None);
    assert_eq!(solo.quorum.leader_endpoints().len(), 2, "that is no news");
    assert_eq!(
        begin(&mut solo, BeginQuorumEpochRequest { leader_endpoints: Vec::new(), ..begins(2, 7) }),
        ErrorCode::None
    );
    assert_eq!((solo.quorum.leader(), solo.quorum.leader_endpoints().len()), (Some(NodeId(2)), 1));
}

/// When a follower of node 3 stands for election after its leader has resigned with these candidates. The time is from
/// that moment on.
fn stands_after_ms(change: impl FnOnce(&mut tidelog_wire::messages::EndQuorumEpochRequest)) -> i64 {
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(3, 5);
    let mut request = ends(3, 5);
    change(&mut request);
    let _ = solo.request(1, request);
    let began = solo.ms;
    while solo.quorum.role().name() == "follower" {
        solo.pass_ms(1);
        assert!(solo.ms < 10_000);
    }
    solo.ms - began
}

#[test]
fn the_first_successor_of_a_leader_stands_at_once_and_the_others_wait() {
    let candidate = |node: i32| ReplicaInfo {
        candidate_id: node,
        candidate_directory_id: key(node).wire_directory(),
        ..Default::default()
    };
    let named = |nodes: &[i32]| {
        let candidates: Vec<ReplicaInfo> = nodes.iter().map(|node| candidate(*node)).collect();
        stands_after_ms(|request| request.topics[0].partitions[0].preferred_candidates = candidates)
    };
    assert!(named(&[1, 2]) <= 1);
    assert_eq!(named(&[2, 1]), 500);
    assert_eq!(named(&[2, 4]), 1_000, "it is no successor");
    // Older leaders name the nodes alone.
    assert_eq!(
        stands_after_ms(|request| request.topics[0].partitions[0].preferred_successors = vec![2, 1].into()),
        500
    );
    let old_disk = ReplicaInfo { candidate_directory_id: Uuid::from_bytes([9; 16]), ..candidate(1) };
    let of_old_disk = |request: &mut tidelog_wire::messages::EndQuorumEpochRequest| {
        request.topics[0].partitions[0].preferred_candidates = vec![old_disk];
    };
    assert_eq!(stands_after_ms(of_old_disk), 1_000);
    let refused = stands_after_ms(|request| request.topics[0].partitions[0].leader_epoch = 4);
    assert_eq!(refused, 2_000, "the fetch time-out");
}

fn ended(error: ErrorCode) -> EndQuorumEpochResponse {
    let partition = end_quorum_epoch_response::PartitionData {
        error_code: error.code(),
        leader_id: 1,
        leader_epoch: 1,
        ..Default::default()
    };
    let topic = end_quorum_epoch_response::TopicData {
        topic_name: TOPIC.into(),
        partitions: vec![partition],
        ..Default::default()
    };
    EndQuorumEpochResponse { topics: vec![topic], ..Default::default() }
}

#[test]
fn a_leader_that_has_resigned_tells_each_voter_until_it_knows() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.lead();
    let _ = solo.request(17, fetch(2, 1, 3, 1));
    solo.asks.clear();
    solo.act(|quorum, now, out| quorum.resign(now, out));
    let (first, second) = (solo.asked(ApiKey::EndQuorumEpoch), solo.asked(ApiKey::EndQuorumEpoch));
    solo.answer(&first, ended(ErrorCode::None));
    solo.answer(&second, ended(ErrorCode::UnknownServerError));
    assert!(solo.asks.is_empty());
    solo.pass_ms(20);
    let again = solo.asked(ApiKey::EndQuorumEpoch);
    assert_eq!((again.to.clone(), solo.asks.len()), (second.to, 0));
    solo.answer(&again, EndQuorumEpochResponse { error_code: 1, ..ended(ErrorCode::None) });
    solo.pass_ms(20);
    let again = solo.asked(ApiKey::EndQuorumEpoch);
    solo.answer(&again, ended(ErrorCode::None));
    solo.pass_ms(20);
    assert!(solo.asks.is_empty());
    let epoch = solo.quorum.epoch();
    solo.pass_ms(2_000);
    assert_eq!(solo.quorum.epoch(), LeaderEpoch(epoch.0 + 1), "it does not stand in its old epoch");
}

#[test]
fn a_voter_that_does_not_fetch_is_told_of_the_leader_again() {
    let began = |error: ErrorCode| {
        let partition = begin_quorum_epoch_response::PartitionData {
            error_code: error.code(),
            leader_id: 1,
            leader_epoch: 1,
            ..Default::default()
        };
        let topic = begin_quorum_epoch_response::TopicData {
            topic_name: TOPIC.into(),
            partitions: vec![partition],
            ..Default::default()
        };
        BeginQuorumEpochResponse { topics: vec![topic], ..Default::default() }
    };
    // Who has refused it is not told again during the pause, here a longer one.
    let mut solo = Solo::of_voters(1, 3, |config| config.timeouts.retry_backoff_ms = 1_500);
    solo.lead();
    for answer in [began(ErrorCode::None), BeginQuorumEpochResponse { error_code: 1, ..began(ErrorCode::None) }] {
        let ask = solo.asked(ApiKey::BeginQuorumEpoch);
        solo.answer(&ask, answer);
    }
    solo.asks.clear();
    solo.pass_ms(1_000);
    let again: Vec<&str> = solo.asks.iter().map(|ask| &*ask.to.host).collect();
    assert_eq!(again, ["node2"]);
    let ask = solo.asked(ApiKey::BeginQuorumEpoch);
    solo.answer(&ask, began(ErrorCode::UnknownServerError));
    solo.pass_ms(1_000);
    let again: Vec<&str> = solo.asks.iter().map(|ask| &*ask.to.host).collect();
    assert_eq!(again, ["node3"]);

    let mut solo = Solo::of_recorded_voters(1);
    solo.lead();
    let told: Vec<String> = [ErrorCode::None, ErrorCode::UnknownServerError]
        .map(|error| {
            let ask = solo.asked(ApiKey::BeginQuorumEpoch);
            solo.answer(&ask, began(error));
            ask.to.host.to_string()
        })
        .to_vec();
    assert_eq!(told, ["node2", "node3"]);
    solo.asks.clear();
    let _ = solo.request(17, fetch(2, 1, 3, 1));
    solo.pass_ms(999);
    assert!(solo.asks.is_empty());
    solo.pass_ms(1);
    assert!(solo.asks.iter().any(|ask| ask.to.host == "node3"));
}

/// A static voter tells the leader of its versions once; an older leader does not know that request.
#[test]
fn a_leader_that_does_not_know_updates_is_not_asked_again() {
    let mut solo = Solo::start(config(1, static_voters(1..=3)), TestDisk::default());
    solo.follow(2, 5);
    solo.fetch_for_ms(2_000);
    let ask = solo.asked(ApiKey::UpdateRaftVoter);
    solo.fail(&ask, AskError::Unsupported);
    solo.fetch_for_ms(4_000);
    assert!(solo.asks.iter().all(|ask| ask.body.api_key() == ApiKey::Fetch));
}

#[test]
fn a_node_knows_best_whether_it_leads() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.lead();
    assert_eq!(begin(&mut solo, begins(1, 1)), ErrorCode::None);
    assert_eq!(begin(&mut solo, begins(1, 2)), ErrorCode::UnknownServerError);
    assert_eq!((solo.quorum.role().name(), solo.quorum.epoch()), ("leader", LeaderEpoch(1)));
    // A voter that names this node as the leader, although it has not won, has not answered.
    let mut solo = prospective();
    let ask = solo.asked(ApiKey::Vote);
    let mut answer = votes(0, true);
    answer.topics[0].partitions[0].leader_id = 1;
    solo.answer(&ask, answer);
    assert_eq!((solo.quorum.role().name(), solo.quorum.epoch()), ("prospective", LeaderEpoch(0)));
}

#[test]
fn the_end_of_an_epoch_is_refused_by_another_cluster_and_where_it_names_no_partition() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(3, 5);
    let mut refusal = |request: tidelog_wire::messages::EndQuorumEpochRequest| {
        let ResponseBody::EndQuorumEpoch(answer) = solo.request(1, request) else { unreachable!() };
        ErrorCode::from_code(answer.error_code).unwrap()
    };
    let other = tidelog_wire::messages::EndQuorumEpochRequest { cluster_id: Some("other".into()), ..ends(3, 5) };
    assert_eq!(refusal(other), ErrorCode::InconsistentClusterId);
    let none = tidelog_wire::messages::EndQuorumEpochRequest { topics: Vec::new(), ..ends(3, 5) };
    assert_eq!(refusal(none), ErrorCode::InvalidRequest);
    assert_eq!(refusal(ends(3, 5)), ErrorCode::None);
}
