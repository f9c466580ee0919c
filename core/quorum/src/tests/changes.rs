//! Voters come and go (KIP-853).

use super::harness::*;
use super::messages::{fetch, update};
use super::solo::Solo;
use crate::*;
use tidelog_config::plant::{Plant, Plants};
use tidelog_storage::io::AskError;
use tidelog_storage::test_disk::TestDisk;
use tidelog_wire::ids::Uuid;
use tidelog_wire::messages::add_raft_voter_request::Listener;
use tidelog_wire::messages::api_versions_response::SupportedFeatureKey;
use tidelog_wire::messages::update_raft_voter_response::CurrentLeader;
use tidelog_wire::messages::{
    AddRaftVoterRequest, ApiVersionsResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse, UpdateRaftVoterResponse,
};
use tidelog_wire::{ApiKey, ErrorCode};

pub fn add(voter: &Voter) -> AddRaftVoterRequest {
    let listener = |(name, address): (&ByteString, &Address)| Listener {
        name: name.clone(),
        host: address.host.clone(),
        port: address.port,
        ..Default::default()
    };
    AddRaftVoterRequest {
        cluster_id: Some("cluster".into()),
        timeout_ms: 1_000,
        voter_id: voter.key.node.0,
        voter_directory_id: voter.key.wire_directory(),
        listeners: voter.endpoints.0.iter().map(listener).collect(),
        ack_when_committed: true,
        ..Default::default()
    }
}

pub fn remove(key: ReplicaKey) -> RemoveRaftVoterRequest {
    RemoveRaftVoterRequest {
        cluster_id: Some("cluster".into()),
        voter_id: key.node.0,
        voter_directory_id: key.wire_directory(),
        ..Default::default()
    }
}

/// Sends a request to the leader, if there is one.
pub fn begin(cluster: &mut Cluster, body: impl Into<RequestBody>) {
    if let Some(leader) = cluster.leader() {
        cluster.request(leader, 0, body);
    }
}

/// Sends a request to the leader, and waits for its answer: the error and the text.
fn ask(cluster: &mut Cluster, body: impl Into<RequestBody>) -> (ErrorCode, String) {
    cluster.run_until(10_000, "a leader", |cluster| cluster.leader().is_some());
    let leader = cluster.leader().unwrap();
    let id = cluster.request(leader, 0, body);
    cluster.run_until(5_000, "an answer", |cluster| cluster.answers.contains_key(&id));
    let (code, text) = match cluster.answers.remove(&id).unwrap() {
        ResponseBody::AddRaftVoter(body) => (body.error_code, body.error_message),
        ResponseBody::RemoveRaftVoter(body) => (body.error_code, body.error_message),
        other => panic!("{other:?}"),
    };
    (ErrorCode::from_code(code).unwrap(), text.unwrap_or_default().to_string())
}

/// Repeats a change until it is made: a change waits for the one before.
fn ask_again(cluster: &mut Cluster, body: impl Into<RequestBody> + Clone) {
    for _ in 0..50 {
        match ask(cluster, body.clone()) {
            (ErrorCode::None, _) => return,
            (ErrorCode::RequestTimedOut | ErrorCode::NotLeaderOrFollower, _) => cluster.run(200),
            other => panic!("{other:?}"),
        }
    }
    panic!("the change is never made:\n{}", cluster.describe());
}

fn all_know(cluster: &mut Cluster, nodes: &[usize]) {
    let name = cluster.propose().expect("there is a leader");
    cluster.run_until(5_000, "a commit on all", |cluster| nodes.iter().all(|node| cluster.has_committed(*node, &name)));
}

#[test]
fn an_observer_that_has_caught_up_becomes_a_voter_and_the_old_leader_can_be_removed() {
    let mut cluster = Cluster::of_recorded_voters(1, 1, 3, Plants::default());
    cluster.run_until(5_000, "a leader", |cluster| cluster.leader() == Some(0));
    all_know(&mut cluster, &[0, 1, 2]);
    ask_again(&mut cluster, add(&voter(2)));
    ask_again(&mut cluster, add(&voter(3)));
    assert_eq!(cluster.nodes[0].quorum.as_ref().unwrap().voters().len(), 3);
    all_know(&mut cluster, &[0, 1, 2]);
    // The quorum goes on without the first voter.
    cluster.crash(0, true, None);
    cluster.run_until(10_000, "another leader", |cluster| cluster.leader().is_some());
    all_know(&mut cluster, &[1, 2]);
    ask_again(&mut cluster, remove(key(1)));
    assert_eq!(cluster.nodes[cluster.leader().unwrap()].quorum.as_ref().unwrap().voters().to_string(), {
        let (two, three) = (key(2), key(3));
        format!("{two}, {three}")
    });
}

#[test]
fn a_leader_that_removes_itself_hands_over_once_that_is_committed() {
    for seed in 0..10 {
        let mut cluster = Cluster::of_recorded_voters(seed, 3, 3, Plants::default());
        cluster.run_until(5_000, "a leader", |cluster| cluster.leader().is_some());
        let old = cluster.leader().unwrap();
        ask_again(&mut cluster, remove(key(old as i32 + 1)));
        cluster.run_until(5_000, "another leader", |cluster| cluster.leader().is_some_and(|leader| leader != old));
        // The old leader is an observer now: it learns what is committed, and is never a candidate.
        all_know(&mut cluster, &[0, 1, 2]);
        cluster.run(10_000);
        let quorum = cluster.nodes[old].quorum.as_ref().unwrap();
        assert_eq!((quorum.role().name(), quorum.voters().len()), ("follower", 2));
    }
}

/// The voters that a leader knows which has added a voter while it was cut off from the others, when it is back.
fn voters_after_a_lost_change(plants: Plants) -> usize {
    let mut cluster = Cluster::of_recorded_voters(1, 3, 4, plants);
    cluster.run_until(5_000, "a leader", |cluster| cluster.leader().is_some());
    all_know(&mut cluster, &[0, 1, 2, 3]);
    let old = cluster.leader().unwrap();
    let others: Vec<usize> = (0..3).filter(|node| *node != old).collect();
    cluster.cut = others.iter().flat_map(|other| [(old, *other), (*other, old)]).collect();
    begin(&mut cluster, add(&voter(4)));
    cluster.run(1_000);
    assert_eq!(cluster.nodes[old].quorum.as_ref().unwrap().voters().len(), 4, "it counts from its append on");
    let is_other = |cluster: &Cluster| cluster.leader().is_some_and(|leader| leader != old);
    cluster.run_until(8_000, "another leader", is_other);
    all_know(&mut cluster, &others);
    cluster.cut.clear();
    cluster.run(3_000);
    cluster.nodes[old].quorum.as_ref().unwrap().voters().len()
}

#[test]
fn a_voter_whose_record_is_cut_is_no_voter_any_more() {
    assert_eq!(voters_after_a_lost_change(Plants::default()), 3);
    assert_eq!(voters_after_a_lost_change(Plants::default().with(Plant::TruncationKeepsVoters)), 4, "planted");
}

#[test]
fn a_change_is_refused_with_the_reason() {
    let mut cluster = Cluster::of_recorded_voters(1, 3, 4, Plants::default());
    cluster.run_until(5_000, "a leader", |cluster| cluster.leader().is_some());
    all_know(&mut cluster, &[0, 1, 2, 3]);
    let of_other = AddRaftVoterRequest { cluster_id: Some("other".into()), ..add(&voter(4)) };
    let (error, text) = ask(&mut cluster, of_other);
    assert_eq!(error, ErrorCode::InconsistentClusterId);
    assert_eq!(text, "The given id \"other\" doesn't match the cluster id \"cluster\"");
    let (error, text) = ask(&mut cluster, add(&voter(2)));
    assert_eq!(error, ErrorCode::DuplicateVoter);
    assert!(
        text.starts_with("The voter id for 2 (AgICAgICAgICAgICAgICAg) is already part of the set of voters"),
        "{text}"
    );
    let (error, _) = ask(&mut cluster, AddRaftVoterRequest { listeners: Vec::new(), ..add(&voter(4)) });
    assert_eq!(error, ErrorCode::InvalidRequest);
    let (error, _) = ask(&mut cluster, add(&Voter { key: ReplicaKey { directory: None, ..key(4) }, ..voter(4) }));
    assert_eq!(error, ErrorCode::InvalidRequest);
    let (error, text) = ask(&mut cluster, add(&voter(5)));
    assert_eq!(
        (error, &*text),
        (ErrorCode::RequestTimedOut, "Aborted add voter operation for since API_VERSIONS returned an error")
    );
    let (error, _) = ask(&mut cluster, remove(key(4)));
    assert_eq!(error, ErrorCode::VoterNotFound);
    let (error, _) = ask(&mut cluster, remove(ReplicaKey::new(NodeId(1), Uuid::from_bytes([9; 16]))));
    assert_eq!(error, ErrorCode::VoterNotFound, "another directory");
    let follower = (0..3).find(|node| Some(*node) != cluster.leader()).unwrap();
    let id = cluster.request(follower, 0, add(&voter(4)));
    cluster.run(10);
    let Some(ResponseBody::AddRaftVoter(answer)) = cluster.answers.remove(&id) else { panic!("not answered") };
    assert_eq!(answer.error_code, ErrorCode::NotLeaderOrFollower.code());
}

#[test]
fn static_voters_cannot_be_changed() {
    let mut cluster = Cluster::of_static_voters(1, 3, Plants::default());
    cluster.run_until(5_000, "a leader", |cluster| cluster.leader().is_some());
    all_know(&mut cluster, &[0, 1, 2]);
    let (error, _) = ask(&mut cluster, remove(key(1)));
    assert_eq!(error, ErrorCode::UnsupportedVersion);
}

#[test]
fn a_voter_that_cannot_be_reached_is_not_added_and_the_next_change_can_be_made() {
    let mut cluster = Cluster::of_recorded_voters(1, 3, 4, Plants::default());
    cluster.run_until(5_000, "a leader", |cluster| cluster.leader().is_some());
    all_know(&mut cluster, &[0, 1, 2, 3]);
    let leader = cluster.leader().unwrap();
    cluster.cut.insert((leader, 3));
    let (error, _) = ask(&mut cluster, add(&voter(4)));
    assert_eq!(error, ErrorCode::RequestTimedOut);
    cluster.cut.clear();
    ask_again(&mut cluster, add(&voter(4)));
}

#[test]
fn a_voter_whose_disk_is_replaced_is_an_observer_until_it_is_added_again() {
    let mut cluster = Cluster::of_recorded_voters(3, 3, 3, Plants::default());
    cluster.run_until(5_000, "a leader", |cluster| cluster.leader().is_some());
    all_know(&mut cluster, &[0, 1, 2]);
    let lost = (0..3).find(|node| Some(*node) != cluster.leader()).unwrap();
    let directory = Uuid::from_bytes([99; 16]);
    cluster.wipe(lost, directory);
    all_know(&mut cluster, &[0, 1, 2]);
    let id = lost as i32 + 1;
    let fresh = Voter { key: ReplicaKey::new(NodeId(id), directory), ..voter(id) };
    let (error, _) = ask(&mut cluster, add(&fresh));
    assert_eq!(error, ErrorCode::DuplicateVoter, "the node is still a voter with its old directory");
    ask_again(&mut cluster, remove(key(id)));
    ask_again(&mut cluster, add(&fresh));
    all_know(&mut cluster, &[0, 1, 2]);
    let quorum = cluster.nodes[lost].quorum.as_ref().unwrap();
    assert!(quorum.voters().has(quorum.me()));
}

#[test]
fn a_controller_joins_by_itself_if_it_shall_also_with_a_new_disk() {
    let mut cluster = Cluster::of_recorded_voters(4, 2, 3, Plants::default());
    cluster.nodes[2].config.joins_by_itself = true;
    cluster.crash(2, false, Some(0));
    let is_voter = |cluster: &Cluster, node: usize| {
        cluster.nodes[node].quorum.as_ref().is_some_and(|quorum| quorum.voters().has(quorum.me()))
    };
    cluster.run_until(20_000, "a third voter", |cluster| is_voter(cluster, 2));
    cluster.wipe(2, Uuid::from_bytes([99; 16]));
    cluster.run(100);
    cluster.run_until(30_000, "the third voter again", |cluster| is_voter(cluster, 2));
    all_know(&mut cluster, &[0, 1, 2]);
}

#[test]
fn a_voter_tells_its_new_address() {
    for recorded in [true, false] {
        let mut cluster = match recorded {
            true => Cluster::of_recorded_voters(5, 3, 3, Plants::default()),
            false => Cluster::of_static_voters(5, 3, Plants::default()),
        };
        cluster.run_until(5_000, "a leader", |cluster| cluster.leader().is_some());
        all_know(&mut cluster, &[0, 1, 2]);
        let moved = (0..3).find(|node| Some(*node) != cluster.leader()).unwrap();
        // The old address still leads to the node: only what the voters record names changes.
        let more =
            [("CONTROLLER".to_owned(), format!("node{}", moved + 1), 9093), ("OTHER".to_owned(), "x".to_owned(), 1)];
        cluster.nodes[moved].config.endpoints = more.into_iter().collect();
        cluster.crash(moved, false, Some(100));
        cluster.run(6_000);
        let leader = cluster.leader().unwrap();
        let known = cluster.nodes[leader].quorum.as_ref().unwrap().voters().endpoints(NodeId(moved as i32 + 1));
        assert_eq!(known.len(), if recorded { 2 } else { 1 }, "static voters are not recorded");
    }
}

/// The `kraft.version` that a node knows, and the voters that its log names.
fn recorded(cluster: &Cluster, node: usize) -> (i16, String) {
    let quorum = cluster.nodes[node].quorum.as_ref().expect("it runs");
    (quorum.kraft_version(), quorum.voters().to_string())
}

fn upgraded(cluster: &mut Cluster) {
    for _ in 0..100 {
        if cluster.upgrade().is_ok() {
            return;
        }
        cluster.run(200);
    }
    panic!("the voters never tell their directories:\n{}", cluster.describe());
}

#[test]
fn static_voters_are_recorded_once_all_have_told_their_directories_and_can_be_changed_then() {
    for seed in 0..10 {
        let mut cluster = Cluster::of_static_voters(seed, 3, Plants::default());
        cluster.run_until(5_000, "a leader", |cluster| cluster.leader().is_some());
        let why = cluster.upgrade().unwrap_err();
        assert!(why.contains("because not all of the voters support it"), "{why}");
        upgraded(&mut cluster);
        all_know(&mut cluster, &[0, 1, 2]);
        let all = format!("{}, {}, {}", key(1), key(2), key(3));
        assert!((0..3).all(|node| recorded(&cluster, node) == (1, all.clone())));
        assert_eq!(
            cluster.upgrade().unwrap_err(),
            "Invalid upgrade of kraft.version from version 1 to 1",
            "it is done already"
        );
        // The records outlive the configuration.
        for node in 0..3 {
            cluster.crash(node, true, Some(10));
        }
        cluster.run(100);
        cluster.run_until(10_000, "a leader again", |cluster| cluster.leader().is_some());
        assert!((0..3).all(|node| recorded(&cluster, node) == (1, all.clone())));
        let other = (0..3).find(|node| Some(*node) != cluster.leader()).unwrap();
        ask_again(&mut cluster, remove(key(other as i32 + 1)));
        all_know(&mut cluster, &[0, 1, 2]);
        ask_again(&mut cluster, add(&voter(other as i32 + 1)));
        all_know(&mut cluster, &[0, 1, 2]);
    }
}

#[test]
fn a_voter_that_is_down_holds_the_upgrade_back() {
    let mut cluster = Cluster::of_static_voters(2, 3, Plants::default());
    cluster.run_until(5_000, "a leader", |cluster| cluster.leader().is_some());
    let down = (0..3).find(|node| Some(*node) != cluster.leader()).unwrap();
    cluster.crash(down, true, None);
    cluster.run(20_000);
    assert_eq!(
        cluster.upgrade().unwrap_err(),
        format!(
            "Invalid upgrade of kraft.version to 1 because not all of the voters support it: {} did not tell the leader \
             that they do",
            down + 1
        )
    );
}

#[test]
fn an_upgrade_whose_records_are_cut_leaves_static_voters() {
    let mut cluster = Cluster::of_static_voters(3, 3, Plants::default());
    cluster.run_until(5_000, "a leader", |cluster| cluster.leader().is_some());
    cluster.run(10_000);
    let old = cluster.leader().unwrap();
    let others: Vec<usize> = (0..3).filter(|node| *node != old).collect();
    cluster.cut = others.iter().flat_map(|other| [(old, *other), (*other, old)]).collect();
    cluster.upgrade().unwrap();
    assert_eq!(recorded(&cluster, old).0, 1, "it counts from its append on");
    cluster.run_until(8_000, "another leader", |cluster| cluster.leader().is_some_and(|leader| leader != old));
    all_know(&mut cluster, &others);
    cluster.cut.clear();
    cluster.run(3_000);
    assert!((0..3).all(|node| recorded(&cluster, node) == (0, "1, 2, 3".to_owned())));
    upgraded(&mut cluster);
    all_know(&mut cluster, &[0, 1, 2]);
}

// One leader by itself, whose followers the test plays.

/// The error and the text of an answer to a change; `None` if there is none yet.
fn told(solo: &mut Solo, id: RequestId) -> Option<(ErrorCode, String)> {
    let (code, text) = match solo.answer_to(id)? {
        ResponseBody::AddRaftVoter(body) => (body.error_code, body.error_message),
        ResponseBody::RemoveRaftVoter(body) => (body.error_code, body.error_message),
        ResponseBody::UpdateRaftVoter(body) => (body.error_code, None),
        other => panic!("{other:?}"),
    };
    Some((ErrorCode::from_code(code).unwrap(), text.unwrap_or_default().to_string()))
}

fn ask_solo(solo: &mut Solo, body: impl Into<RequestBody>) -> (ErrorCode, String) {
    let id = solo.send(0, body);
    told(solo, id).expect("it is answered at once")
}

/// What a node answers to ApiVersions that supports these versions of `kraft.version`.
fn supports(min_version: i16, max_version: i16) -> ApiVersionsResponse {
    let feature = SupportedFeatureKey { name: "kraft.version".into(), min_version, max_version, ..Default::default() };
    ApiVersionsResponse { supported_features: vec![feature], ..Default::default() }
}

/// Node `observer` has read the whole log of the leader, so that it may become a voter.
fn catch_up(solo: &mut Solo, observer: i32) {
    let (epoch, end) = (solo.quorum.epoch().0, solo.quorum.log_end().0);
    let _ = solo.request(17, fetch(observer, epoch, end, epoch));
}

#[test]
fn a_change_that_takes_too_long_is_answered_and_a_late_answer_is_not_taken_for_another_voters() {
    let mut solo = Solo::of_voters(1, 1, |_| {});
    solo.lead();
    catch_up(&mut solo, 4);
    let first = solo.send(0, add(&voter(4)));
    let late = solo.asked(ApiKey::ApiVersions);
    assert_eq!(solo.quorum.deadline(solo.now()), Some(Mono::ZERO.plus_ms(solo.ms + 2_000)), "request_ms");
    solo.pass_ms(1_999);
    assert_eq!(told(&mut solo, first), None);
    solo.pass_ms(1);
    assert_eq!(told(&mut solo, first), Some((ErrorCode::RequestTimedOut, String::new())));

    catch_up(&mut solo, 5);
    let second = solo.send(0, add(&voter(5)));
    solo.answer(&late, supports(0, 1));
    assert_eq!((told(&mut solo, second), solo.quorum.voters().len()), (None, 1));
    let ask = solo.asked(ApiKey::ApiVersions);
    let RequestBody::ApiVersions(request) = &ask.body else { unreachable!() };
    assert_eq!(
        (&*request.client_software_name, &*request.client_software_version),
        ("tidelog", env!("CARGO_PKG_VERSION"))
    );
    solo.answer(&ask, supports(0, 1));
    assert_eq!(solo.quorum.voters().get(NodeId(5)).unwrap().kraft_versions, (0, 1));
    assert_eq!(told(&mut solo, second), None, "it is not committed");
    catch_up(&mut solo, 5);
    assert_eq!(told(&mut solo, second), Some((ErrorCode::None, String::new())));
}

#[test]
fn who_does_not_wait_for_the_commit_is_answered_at_once() {
    let mut solo = Solo::of_voters(1, 1, |_| {});
    solo.lead();
    catch_up(&mut solo, 4);
    let id = solo.send(1, AddRaftVoterRequest { ack_when_committed: false, ..add(&voter(4)) });
    let ask = solo.asked(ApiKey::ApiVersions);
    solo.answer(&ask, supports(0, 1));
    assert_eq!(told(&mut solo, id), Some((ErrorCode::None, String::new())));
}

#[test]
fn a_new_voter_must_support_the_version_of_the_quorum_and_have_its_log() {
    let mut solo = Solo::of_voters(1, 1, |_| {});
    solo.lead();
    let mut outcome = |answer: ApiVersionsResponse| {
        let id = solo.send(0, add(&voter(4)));
        let ask = solo.asked(ApiKey::ApiVersions);
        solo.answer(&ask, answer);
        told(&mut solo, id).unwrap()
    };
    let key = key(4);
    assert_eq!(
        outcome(supports(0, 1)),
        (ErrorCode::RequestTimedOut, format!("Aborted add voter operation for {key} since it is lagging behind"))
    );
    let unsupported = |min: i16, max: i16| {
        let text = format!(
            "Aborted add voter operation for {key} since the kraft.version range (min: {min}, max: {max}) doesn't support \
             the finalized version 1"
        );
        (ErrorCode::InvalidRequest, text)
    };
    assert_eq!(outcome(supports(2, 3)), unsupported(2, 3));
    assert_eq!(outcome(supports(0, 0)), unsupported(0, 0));
    assert_eq!(outcome(ApiVersionsResponse::default()), unsupported(0, 0));
    let error = ApiVersionsResponse { error_code: 35, ..supports(0, 1) };
    assert_eq!(outcome(error).0, ErrorCode::RequestTimedOut);
}

#[test]
fn a_change_names_a_voter_with_its_directory() {
    let mut solo = Solo::of_voters(1, 1, |_| {});
    solo.lead();
    let none = |node| ReplicaKey { node: NodeId(node), directory: Some(Uuid::from_bytes([9; 16])) };
    let invalid =
        |verb: &str| (ErrorCode::InvalidRequest, format!("{verb} voter request didn't include a valid voter"));
    assert_eq!(ask_solo(&mut solo, remove(none(-1))), invalid("Remove"));
    assert_eq!(ask_solo(&mut solo, remove(ReplicaKey { directory: None, ..key(1) })), invalid("Remove"));
    assert_eq!(ask_solo(&mut solo, add(&Voter { key: none(-1), ..voter(4) })), invalid("Add"));
    assert_eq!(ask_solo(&mut solo, remove(none(0))).0, ErrorCode::VoterNotFound, "0 is a node like any other");
}

#[test]
fn static_voters_are_not_changed_and_the_text_says_why() {
    let mut solo = Solo::start(config(1, static_voters([1])), TestDisk::default());
    solo.lead();
    let unsupported = |does: &str| {
        let text = format!("Cluster doesn't support {does} voter because the kraft.version feature is 0");
        (ErrorCode::UnsupportedVersion, text)
    };
    assert_eq!(ask_solo(&mut solo, add(&voter(4))), unsupported("adding"));
    assert_eq!(ask_solo(&mut solo, remove(key(1))), unsupported("removing"));
}

/// Node 1 leads three voters, whose set is the third record of its epoch.
fn leader_of_three() -> Solo {
    let mut solo = Solo::of_recorded_voters(1);
    solo.lead();
    solo
}

#[test]
fn a_change_waits_until_the_set_of_voters_is_committed() {
    let mut solo = leader_of_three();
    let told_so = |text: &str| (ErrorCode::RequestTimedOut, text.to_owned());
    assert_eq!(
        ask_solo(&mut solo, remove(key(3))),
        told_so("Request timed out waiting for leader to establish HWM and fence previous voter changes")
    );
    let moved = || update(&Voter { endpoints: [("CONTROLLER", "moved", 1)].into_iter().collect(), ..voter(2) }, 1);
    assert_eq!(ask_solo(&mut solo, moved()).0, ErrorCode::RequestTimedOut);
    let _ = solo.request(17, fetch(2, 1, 2, 1));
    assert_eq!(solo.quorum.high_watermark(), Some(Offset(2)));
    assert_eq!(
        ask_solo(&mut solo, remove(key(3))),
        told_so("Request timed out waiting for voters to commit the latest voter change at 2 with HWM 2")
    );
    assert_eq!(ask_solo(&mut solo, moved()).0, ErrorCode::RequestTimedOut);
    let _ = solo.request(17, fetch(2, 1, 3, 1));
    assert_eq!(ask_solo(&mut solo, moved()).0, ErrorCode::None);
    assert_eq!(solo.quorum.voters().endpoints(NodeId(2)).address("CONTROLLER").unwrap().port, 1);
    assert_eq!(ask_solo(&mut solo, remove(key(3))).0, ErrorCode::RequestTimedOut, "the one before is not committed");
    catch_up(&mut solo, 2);
    let id = solo.send(0, remove(key(3)));
    assert_eq!(told(&mut solo, id), None);
    assert_eq!(
        ask_solo(&mut solo, remove(key(2))),
        told_so("Request timed out waiting for leader to handle previous voter change request")
    );
    assert_eq!(ask_solo(&mut solo, update(&voter(2), 1)).0, ErrorCode::RequestTimedOut);
}

#[test]
fn a_removed_voter_is_gone_once_the_others_have_the_record() {
    let mut solo = leader_of_three();
    let _ = solo.request(17, fetch(2, 1, 3, 1));
    solo.propose("a");
    let id = solo.send(0, remove(key(3)));
    let _ = solo.request(17, fetch(2, 1, 4, 1));
    assert_eq!(solo.quorum.high_watermark(), Some(Offset(4)), "that is the record before");
    assert_eq!(told(&mut solo, id), None);
    let _ = solo.request(17, fetch(2, 1, 5, 1));
    assert_eq!(told(&mut solo, id), Some((ErrorCode::None, String::new())));
}

#[test]
fn a_leader_that_is_removed_leads_until_the_others_have_the_record() {
    let mut solo = leader_of_three();
    let _ = solo.request(17, fetch(2, 1, 3, 1));
    let _ = solo.request(17, fetch(3, 1, 3, 1));
    solo.propose("a");
    let id = solo.send(0, remove(key(1)));
    for node in [2, 3] {
        let _ = solo.request(17, fetch(node, 1, 4, 1));
    }
    assert_eq!((solo.quorum.role().name(), told(&mut solo, id)), ("leader", None));
    for node in [2, 3] {
        let _ = solo.request(17, fetch(node, 1, 5, 1));
    }
    assert_eq!(told(&mut solo, id), Some((ErrorCode::None, String::new())));
    assert_eq!(solo.quorum.role().name(), "resigned");
}

#[test]
fn an_update_names_a_voter_an_address_and_a_range_of_versions() {
    let mut solo = leader_of_three();
    let _ = solo.request(17, fetch(2, 1, 3, 1));
    let mut outcome = |voter: Voter, epoch| ask_solo(&mut solo, update(&voter, epoch)).0;
    let invalid = ErrorCode::InvalidRequest;
    assert_eq!(outcome(voter(2), 0), ErrorCode::FencedLeaderEpoch);
    assert_eq!(outcome(voter(2), 2), ErrorCode::UnknownLeaderEpoch);
    assert_eq!(outcome(Voter { key: ReplicaKey { node: NodeId(-1), ..key(2) }, ..voter(2) }, 1), invalid);
    assert_eq!(outcome(Voter { key: ReplicaKey { directory: None, ..key(2) }, ..voter(2) }, 1), invalid);
    assert_eq!(outcome(Voter { endpoints: [("OTHER", "x", 1)].into_iter().collect(), ..voter(2) }, 1), invalid);
    assert_eq!(outcome(Voter { kraft_versions: (-1, 1), ..voter(2) }, 1), invalid);
    assert_eq!(outcome(Voter { kraft_versions: (1, 0), ..voter(2) }, 1), invalid);
    assert_eq!(outcome(Voter { kraft_versions: (0, 0), ..voter(2) }, 1), invalid, "the quorum is at 1");
    assert_eq!(outcome(Voter { kraft_versions: (1, 1), ..voter(2) }, 1), ErrorCode::None);
    assert_eq!(outcome(voter(9), 1), ErrorCode::RequestTimedOut, "the one before is not committed");
    catch_up(&mut solo, 2);
    assert_eq!(ask_solo(&mut solo, update(&voter(9), 1)).0, ErrorCode::VoterNotFound);
    let end = solo.quorum.log_end();
    assert_eq!(ask_solo(&mut solo, update(&Voter { kraft_versions: (1, 1), ..voter(2) }, 1)).0, ErrorCode::None);
    assert_eq!(solo.quorum.log_end(), end, "it is known already");
}

#[test]
fn a_static_voter_tells_each_leader_once_of_itself() {
    let mut solo = Solo::start(config(1, static_voters(1..=3)), TestDisk::default());
    solo.follow(2, 5);
    solo.fetch_for_ms(2_000);
    let ask = solo.asked(ApiKey::UpdateRaftVoter);
    let answer = UpdateRaftVoterResponse {
        current_leader: CurrentLeader { leader_id: 2, leader_epoch: 5, ..Default::default() },
        ..Default::default()
    };
    solo.answer(&ask, answer);
    solo.fetch_for_ms(4_000);
    assert!(solo.asks.iter().all(|ask| ask.body.api_key() == ApiKey::Fetch));
    // Whoever is no static voter has nothing to tell, and cannot join.
    let observer = QuorumConfig { joins_by_itself: true, ..config(4, static_voters(1..=3)) };
    let mut solo = Solo::start(observer, TestDisk::default());
    solo.follow(2, 5);
    solo.fetch_for_ms(4_000);
    assert!(solo.asks.iter().all(|ask| ask.body.api_key() == ApiKey::Fetch));
}

/// Node 1 has told the leader, node 2, of itself. What becomes of that with this answer: the address at which it fetches
/// then, and whether it does so at once.
fn after_update(error: ErrorCode, (leader_id, leader_epoch, host): (i32, i32, &str)) -> (Option<String>, bool) {
    let mut solo = Solo::start(config(1, static_voters(1..=3)), TestDisk::default());
    solo.follow(2, 5);
    solo.fetch_for_ms(2_000);
    let ask = solo.asked(ApiKey::UpdateRaftVoter);
    solo.asks.clear();
    let current_leader = CurrentLeader { leader_id, leader_epoch, host: host.into(), port: 9093, ..Default::default() };
    solo.answer(&ask, UpdateRaftVoterResponse { error_code: error.code(), current_leader, ..Default::default() });
    let at_once = solo.asks.iter().any(|ask| ask.body.api_key() == ApiKey::Fetch && ask.to.host == "node2");
    let address = solo.quorum.leader_endpoints().address(LISTENER).map(|address| address.host.to_string());
    (address, at_once)
}

#[test]
fn the_answer_to_an_update_is_a_sign_of_life_or_tells_of_another_leader() {
    let node2 = || Some("node2".to_owned());
    assert_eq!(after_update(ErrorCode::None, (2, 5, "node2")), (node2(), true));
    assert_eq!(after_update(ErrorCode::UnsupportedVersion, (2, 5, "node2")), (node2(), true));
    assert_eq!(after_update(ErrorCode::RequestTimedOut, (2, 5, "")), (node2(), false));
    assert_eq!(after_update(ErrorCode::NotLeaderOrFollower, (3, 6, "moved")), (Some("moved".to_owned()), false));
    assert_eq!(after_update(ErrorCode::NotLeaderOrFollower, (3, 6, "")), (Some("node3".to_owned()), false));
}

#[test]
fn a_controller_that_may_not_join_now_asks_again_and_fetches_meanwhile() {
    let fetches_at_once = |error: ErrorCode| {
        let mut solo = Solo::of_voters(1, 3, |config| {
            config.joins_by_itself = true;
            config.me.directory = Some(Uuid::from_bytes([9; 16]));
        });
        solo.follow(2, 5);
        solo.fetch_for_ms(2_000);
        let ask = solo.asked(ApiKey::RemoveRaftVoter);
        solo.asks.clear();
        solo.answer(&ask, RemoveRaftVoterResponse { error_code: error.code(), ..Default::default() });
        solo.asks.iter().any(|ask| ask.to.host == "node2")
    };
    use ErrorCode::{DuplicateVoter, InvalidRequest, None, NotLeaderOrFollower, RequestTimedOut, VoterNotFound};
    assert!([None, RequestTimedOut, DuplicateVoter, VoterNotFound].into_iter().all(fetches_at_once));
    assert!(![InvalidRequest, NotLeaderOrFollower].into_iter().any(fetches_at_once));
}

#[test]
fn a_leader_that_did_not_answer_is_not_told_before_the_pause_is_over() {
    let mut solo = Solo::start(config(1, static_voters(1..=2)), TestDisk::default());
    solo.follow(2, 5);
    solo.fetch_for_ms(1_990);
    // The leader is all that can be asked, first as the leader and then as anyone.
    for _ in 0..2 {
        let ask = solo.asked(ApiKey::Fetch);
        solo.fail(&ask, AskError::TimedOut);
    }
    let ask_keys = |solo: &Solo| solo.asks.iter().map(|ask| ask.body.api_key()).collect::<Vec<_>>();
    solo.pass_ms(19);
    assert_eq!(ask_keys(&solo), []);
    solo.pass_ms(1);
    assert_eq!(ask_keys(&solo), [ApiKey::UpdateRaftVoter]);
}

/// KIP-853: `kraft.version` can be raised once each voter has told that it supports that, and in which directory it is.
#[test]
fn the_version_is_raised_by_a_leader_whose_epoch_is_committed_and_whose_voters_all_support_it() {
    let mut solo = Solo::start(config(1, static_voters(1..=3)), TestDisk::default());
    solo.follow(2, 1);
    let ask = solo.asked(ApiKey::Fetch);
    let records = tidelog_wire::Records::from(super::fetching::batch(0, 1, &["a"]));
    solo.answer(&ask, super::messages::fetched(2, 1, |partition| partition.records = Some(records)));
    solo.asks.clear();
    solo.lead();
    let why = |solo: &Solo| solo.quorum.check_kraft_upgrade().unwrap_err();
    assert_eq!(why(&solo), "Invalid upgrade of kraft.version from version 0 to 1", "its epoch is not committed");
    catch_up(&mut solo, 2);
    let lack = |who: &str| {
        format!(
            "Invalid upgrade of kraft.version to 1 because not all of the voters support it: {who} did not tell the \
             leader that they do"
        )
    };
    assert_eq!(why(&solo), lack("2, 3"));
    assert_eq!(ask_solo(&mut solo, update(&voter(2), 2)).0, ErrorCode::None);
    assert_eq!(ask_solo(&mut solo, update(&Voter { kraft_versions: (0, 0), ..voter(3) }, 2)).0, ErrorCode::None);
    assert_eq!(why(&solo), lack("3"), "it is older than that");
    assert_eq!(ask_solo(&mut solo, update(&voter(3), 2)).0, ErrorCode::None);
    solo.act(|quorum, now, out| quorum.upgrade_kraft_version(now, out));
    assert_eq!((solo.quorum.kraft_version(), solo.quorum.voters().has(key(3))), (1, true));
    assert_eq!(why(&solo), "Invalid upgrade of kraft.version from version 1 to 1");
}
