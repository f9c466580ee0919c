//! From one role to the next: what a start makes of `quorum-state`, when a node stands for election, what a leader
//! appends first, and whom a follower asks.

use super::elections::vote_request;
use super::harness::{address, key, voter};
use super::messages::{fetch, fetched};
use super::solo::{Solo, record, votes};
use crate::*;
use tidelog_batch::{ControlType, Scan};
use tidelog_storage::io::AskError;
use tidelog_wire::ApiKey;
use tidelog_wire::messages::LeaderChangeMessage;
use tidelog_wire::messages::fetch_response::NodeEndpoint;

fn role(solo: &Solo) -> (&'static str, i32) {
    (solo.quorum.current_state(), solo.quorum.epoch().0)
}

/// Node 1 has voted for itself in epoch 1.
fn candidate() -> Solo {
    let mut solo = Solo::of_recorded_voters(1);
    solo.pass_ms(2_000);
    let ask = solo.asked(ApiKey::Vote);
    solo.answer(&ask, votes(0, true));
    assert_eq!(role(&solo), ("candidate", 1));
    solo
}

#[test]
fn a_start_takes_the_role_that_follows_from_what_was_written() {
    let fresh = Solo::of_recorded_voters(1);
    assert_eq!(role(&fresh), ("unattached", 0));

    let mut follower = Solo::of_recorded_voters(1);
    follower.follow(2, 5);
    let again = follower.restart();
    assert_eq!((role(&again), again.quorum.leader()), (("follower", 5), Some(NodeId(2))));

    let again = candidate().restart();
    assert_eq!(role(&again), ("candidate", 1), "it may have been elected without knowing it");
    assert!(again.asks.iter().any(|ask| ask.body.api_key() == ApiKey::Vote));

    let mut leader = Solo::of_recorded_voters(1);
    leader.lead();
    let again = leader.restart();
    assert_eq!((again.quorum.role().name(), again.quorum.epoch().0), ("resigned", 1), "KAFKA-10527");
    let told: Vec<&str> = again.asks.iter().map(|ask| &*ask.to.host).collect();
    assert_eq!(told, ["node2", "node3"]);
    assert!(again.asks.iter().all(|ask| ask.body.api_key() == ApiKey::EndQuorumEpoch));

    let mut voted = Solo::of_recorded_voters(1);
    let _ = voted.request(2, vote_request(1, 7, 0, 0));
    let again = voted.restart();
    assert_eq!((role(&again), again.quorum.vote()), (("unattached-voted", 7), Some(NodeId(2))));

    // The address of a leader that is no voter is not written anywhere.
    let mut stranger = Solo::of_recorded_voters(1);
    stranger.follow(9, 5);
    let again = stranger.restart();
    assert_eq!((role(&again), again.quorum.leader()), (("unattached", 5), Some(NodeId(9))));
}

#[test]
fn a_lost_quorum_state_is_made_up_for_by_the_log() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    let values = [record("a").encode(0)];
    let batch = snapshot::batches(Offset::ZERO, LeaderEpoch(4), WallMs(3), &values, 1_000).remove(0);
    let ask = solo.asked(ApiKey::Fetch);
    solo.answer(&ask, fetched(2, 5, |partition| partition.records = Some(tidelog_wire::Records::from(batch))));
    let Solo { config, mut disk, .. } = solo;
    disk.process_ends();
    disk.remove(&format!("{}/{}", names::METADATA_PARTITION_DIR, names::QUORUM_STATE));
    let again = Solo::start(config, disk);
    assert_eq!((role(&again), again.quorum.leader(), again.quorum.vote()), (("unattached", 4), None, None));
}

#[test]
fn a_voter_stands_for_election_after_one_to_two_time_outs() {
    let mut solo = Solo::of_recorded_voters(1);
    let deadline = solo.quorum.role().deadline().expect("a voter waits for so long");
    assert!(deadline >= Mono::ZERO.plus_ms(1_000) && deadline < Mono::ZERO.plus_ms(2_000));
    solo.pass_ms(999);
    assert_eq!(role(&solo).0, "unattached");
    solo.pass_ms(1_001);
    assert_eq!(role(&solo).0, "prospective");
    let observer = Solo::of_recorded_voters(4);
    assert_eq!(observer.quorum.role().deadline(), None);
}

#[test]
fn a_lone_voter_does_not_wait() {
    let mut solo = Solo::of_voters(1, 1, |_| {});
    assert_eq!(role(&solo), ("leader", 1));
    assert_eq!(solo.log.iter().filter(|text| text.contains("leads the quorum")).count(), 0, "there is no other");
    solo.propose("a");
    assert_eq!(solo.quorum.committed(), Offset(4));
    let broker = Solo::of_voters(1, 1, |config| config.is_controller = false);
    assert_eq!(role(&broker).0, "unattached", "a broker alone does not lead");
}

/// The control records of the log, batch by batch.
fn controls(solo: &Solo) -> Vec<Vec<tidelog_batch::ControlRecord>> {
    let path = format!("{}/00000000000000000000.log", names::METADATA_PARTITION_DIR);
    let log = Bytes::from(solo.disk.content(&path).expect("it is written").to_vec());
    let mut found = Vec::new();
    for batch in Scan::new(&log, 0, true) {
        let start = batch.position as usize;
        if batch.header.is_control() {
            found.push(snapshot::controls(&log.slice(start..start + batch.bytes.len())).unwrap());
        }
    }
    found
}

#[test]
fn a_leader_begins_its_epoch_with_its_name_and_with_voters_that_only_formatting_knew() {
    let mut solo = Solo::of_recorded_voters(1);
    assert_eq!(solo.quorum.recorded_voters().count(), 0);
    solo.lead();
    assert!(solo.log.iter().any(|text| text == "this node leads the quorum in epoch 1"));
    let recorded: Vec<(Offset, usize)> = solo.quorum.recorded_voters().map(|(at, set)| (at, set.len())).collect();
    assert_eq!(recorded, [(Offset(2), 3)]);
    let first = controls(&solo).remove(0);
    use ControlType::{KRaftVersion, KRaftVoters, LeaderChange};
    assert_eq!(first.iter().map(|control| control.kind).collect::<Vec<_>>(), [LeaderChange, KRaftVersion, KRaftVoters]);
    let change = LeaderChangeMessage::from_bytes(0, first[0].value.clone()).unwrap();
    let ids = |voters: &[tidelog_wire::messages::leader_change_message::Voter]| {
        voters.iter().map(|voter| voter.voter_id).collect::<Vec<_>>()
    };
    assert_eq!((change.leader_id, ids(&change.voters)), (1, vec![1, 2, 3]));
    assert!(ids(&change.granting_voters).contains(&1) && change.granting_voters.len() >= 2);

    // The next leader finds them in the log, and names only itself, unless it has moved.
    let mut again = solo.restart();
    again.lead();
    let kinds: Vec<ControlType> = controls(&again)[1].iter().map(|control| control.kind).collect();
    assert_eq!(kinds, [LeaderChange]);
    let Solo { mut config, mut disk, .. } = again;
    disk.process_ends();
    config.endpoints = [("CONTROLLER", "moved", 1)].into_iter().collect();
    let mut moved = Solo::start(config, disk);
    moved.lead();
    let kinds: Vec<ControlType> = controls(&moved)[2].iter().map(|control| control.kind).collect();
    assert_eq!(kinds, [LeaderChange, KRaftVersion, KRaftVoters]);
    assert_eq!(moved.quorum.voters().endpoints(NodeId(1)).address("CONTROLLER").unwrap().host, "moved");
}

/// A peer with ever higher epochs does not keep a node from standing for election.
#[test]
fn a_node_that_was_about_to_stand_still_stands_then() {
    let deadline = |solo: &Solo| solo.quorum.role().deadline();
    let no_vote = |solo: &mut Solo, epoch: i32| {
        let mut request = vote_request(1, epoch, 0, 0);
        request.topics[0].partitions[0].voter_directory_id = key(9).wire_directory();
        let _ = solo.request(2, request);
        assert_eq!(role(solo), ("unattached", epoch));
    };
    let mut solo = Solo::of_recorded_voters(1);
    let before = deadline(&solo);
    solo.pass_ms(500);
    no_vote(&mut solo, 7);
    assert_eq!(deadline(&solo), before);

    let mut solo = candidate();
    let before = deadline(&solo);
    no_vote(&mut solo, 7);
    assert_eq!(deadline(&solo), before);

    let mut solo = Solo::of_recorded_voters(1);
    solo.pass_ms(2_000);
    let before = deadline(&solo);
    no_vote(&mut solo, 7);
    assert_eq!(deadline(&solo), before);

    let mut solo = Solo::of_recorded_voters(1);
    solo.lead();
    solo.act(|quorum, now, out| quorum.resign(now, out));
    let before = deadline(&solo);
    no_vote(&mut solo, 7);
    assert_eq!(deadline(&solo), before);

    // A follower had no such plan.
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    let now = Mono::ZERO.plus_ms(solo.ms);
    no_vote(&mut solo, 7);
    assert!(deadline(&solo) >= Some(now.plus_ms(1_000)));
}

#[test]
fn a_node_that_nobody_would_elect_follows_its_leader_again() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    solo.asks.clear();
    solo.pass_ms(2_000);
    assert_eq!(role(&solo).0, "prospective");
    for _ in 0..2 {
        let ask = solo.asked(ApiKey::Vote);
        solo.answer(&ask, votes(5, false));
    }
    assert_eq!((role(&solo), solo.quorum.leader()), (("follower", 5), Some(NodeId(2))));
}

#[test]
fn the_broker_is_told_of_leaders_that_it_can_ask() {
    let told = |solo: &mut Solo| {
        std::mem::take(&mut solo.events)
            .into_iter()
            .filter_map(|event| match event {
                QuorumEvent::LeaderChanged { leader, epoch } => Some((leader.map(|leader| leader.0), epoch.0)),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    assert_eq!(told(&mut solo), [(Some(2), 5)]);
    solo.follow(2, 5);
    assert_eq!(told(&mut solo), []);
    solo.lead();
    assert_eq!(told(&mut solo).last(), Some(&(Some(1), 6)));
    solo.act(|quorum, now, out| quorum.resign(now, out));
    assert!(!solo.events.is_empty());
    assert_eq!(told(&mut solo), [(None, 6)]);
}

#[test]
fn a_leader_that_is_no_more_keeps_its_high_watermark() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.lead();
    let _ = solo.request(17, fetch(2, 1, 3, 1));
    assert_eq!(solo.quorum.high_watermark(), Some(Offset(3)));
    solo.events.clear();
    solo.follow(2, 5);
    assert_eq!(solo.quorum.high_watermark(), Some(Offset(3)));
    assert!(solo.events.iter().any(|event| matches!(event, QuorumEvent::Resigned)));
}

/// The hosts at which the node asks now, with what.
fn asked(solo: &mut Solo) -> Vec<(String, ApiKey)> {
    solo.asks.iter().map(|ask| (ask.to.host.to_string(), ask.body.api_key())).collect()
}

#[test]
fn a_follower_whose_leader_does_not_answer_asks_others_for_the_leader() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    let ask = solo.asked(ApiKey::Fetch);
    assert_eq!(ask.to, address(2));
    solo.fail(&ask, AskError::Unreachable);
    assert_eq!(asked(&mut solo), [("node3".to_owned(), ApiKey::Fetch)], "not itself, nor the leader");
    let other = solo.asked(ApiKey::Fetch);
    let RequestBody::Fetch(request) = &other.body else { unreachable!() };
    assert_eq!(request.max_wait_ms, 0, "it asks for the leader, not for records");
    solo.pass_ms(20);
    assert_eq!(asked(&mut solo), [("node2".to_owned(), ApiKey::Fetch)], "the leader is asked again after the pause");
    solo.answer(&other, fetched(3, 9, |_| {}));
    assert_eq!(role(&solo), ("follower", 5), "the late answer is of no use any more");
}

#[test]
fn a_follower_that_can_ask_nobody_but_its_leader_asks_it_who_leads() {
    let mut solo = Solo::of_voters(1, 2, |_| {});
    solo.follow(2, 5);
    let ask = solo.asked(ApiKey::Fetch);
    solo.fail(&ask, AskError::Unreachable);
    let ask = solo.asked(ApiKey::Fetch);
    let RequestBody::Fetch(request) = &ask.body else { unreachable!() };
    assert_eq!((&ask.to, request.max_wait_ms), (&address(2), 0));
    assert!(solo.asks.is_empty());
}

/// A node may stop after it has written who leads, and before it has read who the voters are.
#[test]
fn a_node_that_has_forgotten_where_its_leader_listens_takes_the_leaders_own_word_for_it() {
    let mut solo = Solo::of_voters(4, 1, |_| {});
    solo.follow(1, 5);
    let mut again = solo.restart();
    assert_eq!((role(&again), again.quorum.leader()), (("unattached", 5), Some(NodeId(1))));
    let ask = again.asked(ApiKey::Fetch);
    assert_eq!(ask.to, address(1));
    let mut answer = fetched(1, 5, |_| {});
    let Address { host, port } = address(1);
    let endpoint = NodeEndpoint { node_id: 1, host, port: port.into(), ..Default::default() };
    answer.node_endpoints.push(endpoint);
    again.answer(&ask, answer);
    assert_eq!(role(&again), ("observer", 5));
}

#[test]
fn a_node_that_knows_no_leader_asks_anyone_and_nobody_too_often() {
    let mut solo = Solo::of_voters(4, 2, |_| {});
    let first = solo.asked(ApiKey::Fetch);
    assert!(solo.asks.is_empty(), "one at a time");
    solo.fail(&first, AskError::TimedOut);
    let second = solo.asked(ApiKey::Fetch);
    assert_ne!(first.to, second.to);
    solo.fail(&second, AskError::TimedOut);
    assert!(solo.asks.is_empty(), "both are paused");
    solo.pass_ms(19);
    assert!(solo.asks.is_empty());
    solo.pass_ms(1);
    let ask = solo.asked(ApiKey::Fetch);
    solo.answer(&ask, fetched(2, 3, |partition| partition.error_code = ErrorCode::NotLeaderOrFollower.code()));
    assert_eq!(role(&solo).0, "unattached", "it does not know where node 2 listens");
}

#[test]
fn a_fetch_waits_at_most_half_a_fetch_time_out() {
    let wait_ms = |fetch_ms: i64| {
        let mut solo = Solo::of_voters(1, 3, |config| config.timeouts.fetch_ms = fetch_ms);
        solo.follow(2, 5);
        let RequestBody::Fetch(request) = solo.asked(ApiKey::Fetch).body else { unreachable!() };
        request.max_wait_ms
    };
    assert_eq!((wait_ms(600), wait_ms(2_000)), (300, 500));
}

#[test]
fn a_node_that_stops_stands_for_no_election_and_waits_for_a_leader_at_most_five_seconds() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.act(|quorum, now, out| quorum.close(now, out));
    solo.pass_ms(4_999);
    assert_eq!((role(&solo).0, solo.quorum.is_running()), ("unattached", true));
    solo.pass_ms(1);
    assert!(!solo.quorum.is_running());

    let mut follower = Solo::of_recorded_voters(1);
    follower.follow(2, 5);
    follower.act(|quorum, now, out| quorum.close(now, out));
    assert!(!follower.quorum.is_running(), "there is a leader");
    let mut observer = Solo::of_recorded_voters(4);
    observer.act(|quorum, now, out| quorum.close(now, out));
    assert!(!observer.quorum.is_running());
    let mut lone = Solo::of_voters(1, 1, |_| {});
    lone.act(|quorum, now, out| quorum.close(now, out));
    assert!(!lone.quorum.is_running());

    let mut leader = Solo::of_recorded_voters(1);
    leader.lead();
    leader.act(|quorum, now, out| quorum.close(now, out));
    assert_eq!((leader.quorum.role().name(), leader.quorum.is_running()), ("resigned", true));
    leader.pass_ms(3_000);
    assert_eq!(leader.quorum.role().name(), "resigned", "it does not stand again");
    leader.follow_while_it_stops(2, 2);
    assert!(!leader.quorum.is_running());
}

#[test]
fn a_leader_of_which_nothing_is_heard_gives_up() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.lead();
    let began = solo.ms;
    while solo.quorum.role().name() == "leader" {
        solo.pass_ms(1);
    }
    assert_eq!(solo.ms - began, 3_000, "one and a half fetch time-outs");
}

#[test]
fn a_voter_that_the_log_removes_stands_no_more_once_it_knows() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    let set: VoterSet = [2, 3].map(voter).into_iter().collect();
    let batch = tidelog_batch::ControlRecord::batch(&[set.record()], Offset(0), LeaderEpoch(5), WallMs(0));
    let ask = solo.asked(ApiKey::Fetch);
    solo.answer(&ask, fetched(2, 5, |partition| partition.records = Some(tidelog_wire::Records::from(batch))));
    assert_eq!(role(&solo).0, "observer");
    solo.asks.clear();
    solo.pass_ms(2_000);
    assert_eq!(role(&solo).0, "prospective", "the removal may not be committed (Raft dissertation, 4.2.2)");
    solo.follow(2, 6);
    let ask = solo.asked(ApiKey::Fetch);
    solo.answer(&ask, fetched(2, 6, |partition| partition.high_watermark = 1));
    solo.asks.clear();
    solo.pass_ms(20_000);
    assert_eq!(role(&solo), ("observer", 6));
}

/// KIP-996: who lost the pre-vote waits a whole election time-out before it asks again.
#[test]
fn a_nominee_that_was_refused_waits_as_long_as_any_voter() {
    let mut solo = Solo::of_recorded_voters(1);
    while role(&solo).0 != "prospective" {
        solo.pass_ms(1);
    }
    solo.pass_ms(900);
    solo.asks.retain(|ask| ask.body.api_key() == ApiKey::Vote);
    for _ in 0..2 {
        let ask = solo.asked(ApiKey::Vote);
        solo.answer(&ask, votes(0, false));
    }
    assert_eq!(role(&solo).0, "unattached");
    assert!(solo.quorum.role().deadline() >= Some(Mono::ZERO.plus_ms(solo.ms + 1_000)));

    // It knows who leads, and not where: it has nobody to follow.
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(9, 5);
    let mut solo = solo.restart();
    solo.pass_ms(2_000);
    solo.asks.retain(|ask| ask.body.api_key() == ApiKey::Vote);
    for _ in 0..2 {
        let ask = solo.asked(ApiKey::Vote);
        solo.answer(&ask, votes(5, false));
    }
    assert_eq!((role(&solo), solo.quorum.leader()), (("unattached", 5), Some(NodeId(9))));
}

/// KIP-853: `quorum-state` keeps the vote of an epoch also when the leader of that epoch is known.
#[test]
fn a_follower_still_knows_for_whom_it_voted_in_this_epoch() {
    let mut solo = Solo::of_recorded_voters(1);
    let _ = solo.request(2, vote_request(1, 7, 0, 0));
    solo.follow(2, 7);
    assert_eq!((role(&solo), solo.quorum.vote()), (("follower", 7), Some(NodeId(2))));
    solo.follow(3, 8);
    assert_eq!((role(&solo), solo.quorum.vote()), (("follower", 8), None));
}

/// A leader may not know yet what is committed of the records that its predecessors left.
#[test]
fn a_leader_is_announced_once_all_before_its_epoch_is_committed() {
    let mut solo = Solo::of_recorded_voters(1);
    solo.follow(2, 5);
    let ask = solo.asked(ApiKey::Fetch);
    let records = tidelog_wire::Records::from(super::fetching::batch(0, 5, &["a"]));
    solo.answer(&ask, fetched(2, 5, |partition| partition.records = Some(records)));
    solo.asks.clear();
    solo.lead();
    let is_told = |solo: &Solo| {
        let told = (Some(NodeId(1)), solo.quorum.epoch());
        solo.events
            .iter()
            .any(|event| matches!(event, QuorumEvent::LeaderChanged { leader, epoch } if (*leader, *epoch) == told))
    };
    assert!(!is_told(&solo) && !solo.quorum.is_leading());
    let (epoch, end) = (solo.quorum.epoch().0, solo.quorum.log_end().0);
    let _ = solo.request(17, fetch(2, epoch, end, epoch));
    assert!(is_told(&solo) && solo.quorum.is_leading());
}
