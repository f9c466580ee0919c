//! Voters come and go (KIP-853).

use super::harness::*;
use crate::*;
use tidelog_config::plant::{Plant, Plants};
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::Uuid;
use tidelog_wire::messages::add_raft_voter_request::Listener;
use tidelog_wire::messages::{AddRaftVoterRequest, RemoveRaftVoterRequest};

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
