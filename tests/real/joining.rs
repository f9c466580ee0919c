//! Nodes that join a cluster in any of their roles, and nodes that cannot: each says why, and what to do.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::describe_quorum_response::ReplicaState;
use kafka_protocol::messages::{
    AddRaftVoterRequest, DescribeQuorumRequest, RemoveRaftVoterRequest, add_raft_voter_request,
};
use kafka_protocol::protocol::StrBytes;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tidelog_core::ids::LeaderEpoch;
use tidelog_core::quorum::encode_snapshot;
use tidelog_core::time::WallMs;
use tidelog_core::wire::MetadataRecord;
use tidelog_core::wire::messages::FeatureLevelRecord;
use tidelog_tests::broker::StartFailure;
use tidelog_tests::client::{Client, topic_name};
use tidelog_tests::cluster::{CLUSTER, Cluster, Plan, Roles, Voters, format};

const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a node, which must end soon; what it has printed must contain each of `words`.
fn assert_refused(cluster: &Cluster, place: usize, words: &[&str]) {
    let StartFailure { status, log } = cluster.setup(place).try_start().expect_err("this cannot start");
    let status = status.unwrap_or_else(|| panic!("it neither serves nor ends:\n{log}"));
    assert!(!status.success() && !log.contains("panicked"), "{status}:\n{log}");
    for word in words {
        assert!(log.contains(word), "{word:?} is not in:\n{log}");
    }
}

/// Waits until a command at a node prints what `fits`.
fn wait_for(cluster: &Cluster, place: usize, words: &[&str], fits: impl Fn(&str) -> bool) {
    let begin = Instant::now();
    loop {
        let said = cluster.tidelog(place, words);
        if fits(&said.out) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{words:?} at node {}: {said:?}", place + 1);
    }
}

fn files(dir: &Path, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("the directory").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(ending));
    names.sort();
    names
}

#[test]
fn brokers_without_a_controller_and_a_controller_without_a_broker_are_one_cluster() {
    let home = tempfile::tempdir().expect("a directory");
    let plan = Plan::new(3).roles(&[Roles::Controller, Roles::Broker, Roles::Broker]);
    let mut cluster = plan.set("broker.session.timeout.ms", 3_000).start(home.path());
    cluster.say(1, &["topic", "create", "t", "--partitions", "4"]);
    wait_for(&cluster, 2, &["topic", "describe", "t"], |text| text.contains("PARTITION"));
    let brokers = cluster.say(2, &["cluster", "describe"]);
    assert_eq!(brokers.lines().filter(|line| line.contains("127.0.0.1")).count(), 2, "{brokers}");

    cluster.kill(0);
    cluster.say(2, &["topic", "describe", "t"]);
    cluster.start_again(&[0]);
    cluster.say(2, &["topic", "create", "later"]);
    cluster.stop(&[2, 1]);
    cluster.stop(&[0]);
}

/// The voters and the observers that the leader of the quorum knows.
fn replicas(client: &mut Client) -> (Vec<ReplicaState>, Vec<ReplicaState>) {
    let partition = PartitionData::default().with_partition_index(0);
    let topic = TopicData::default().with_topic_name(topic_name("__cluster_metadata")).with_partitions(vec![partition]);
    let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
    let mut response = client.call(2, &request).expect("DescribeQuorum");
    assert_eq!(response.error_code, 0, "{response:?}");
    let partition = response.topics.remove(0).partitions.remove(0);
    (partition.current_voters, partition.observers)
}

#[test]
fn controllers_are_added_to_a_quorum_of_one_and_removed_again_also_the_one_that_leads() {
    let home = tempfile::tempdir().expect("a directory");
    let mut cluster = Plan::new(3).voters(Voters::Standalone).start(home.path());
    let mut client = Client::connect(cluster.address(0)).expect("a connection");
    for place in [1, 2] {
        let begin = Instant::now();
        let directory = loop {
            let (_, observers) = replicas(&mut client);
            match observers.iter().find(|observer| observer.replica_id.0 == place as i32 + 1) {
                Some(observer) => break observer.replica_directory_id,
                None => assert!(begin.elapsed() < PATIENCE, "node {} does not follow: {observers:?}", place + 1),
            }
        };
        let (host, port) = cluster.controller_address(place).split_once(':').expect("an address");
        let listener = add_raft_voter_request::Listener::default()
            .with_name(StrBytes::from_static_str("CONTROLLER"))
            .with_host(StrBytes::from_string(host.to_owned()))
            .with_port(port.parse().expect("a port"));
        let request = AddRaftVoterRequest::default()
            .with_cluster_id(None)
            .with_timeout_ms(30_000)
            .with_voter_id(place as i32 + 1)
            .with_voter_directory_id(directory)
            .with_listeners(vec![listener]);
        let response = client.call(0, &request).expect("AddRaftVoter");
        assert_eq!((response.error_code, response.error_message), (0, None));
    }
    let (voters, observers) = replicas(&mut client);
    assert_eq!((voters.len(), observers.len()), (3, 0), "{voters:?} {observers:?}");

    // Node 1 leads since the beginning.
    let directory = voters.iter().find(|voter| voter.replica_id.0 == 1).expect("node 1").replica_directory_id;
    let remove =
        RemoveRaftVoterRequest::default().with_cluster_id(None).with_voter_id(1).with_voter_directory_id(directory);
    let response = client.call(0, &remove).expect("RemoveRaftVoter");
    assert_eq!((response.error_code, response.error_message), (0, None));
    let (leader, _) = cluster.wait_for_leader(1, |leader| leader != 0);
    cluster.kill(0);
    cluster.say(leader, &["topic", "create", "t"]);
    let (voters, _) = replicas(&mut Client::connect(cluster.address(leader)).expect("a connection"));
    let mut ids: Vec<i32> = voters.iter().map(|voter| voter.replica_id.0).collect();
    ids.sort_unstable();
    assert_eq!(ids, [2, 3]);
}

#[test]
fn a_node_that_was_away_gets_a_snapshot_of_what_the_others_have_cut_off() {
    let home = tempfile::tempdir().expect("a directory");
    let plan = Plan::new(3)
        .set("metadata.log.max.record.bytes.between.snapshots", 3_000)
        .set("internal.metadata.log.segment.bytes", 2_000);
    let mut cluster = plan.format(home.path());
    cluster.start_again(&[0, 1]);
    let metadata = |cluster: &Cluster, place| cluster.setup(place).partition_dir("__cluster_metadata", 0);
    let begin = Instant::now();
    let mut topics = 0;
    while files(&metadata(&cluster, 0), ".log").first().is_none_or(|file| file == "00000000000000000000.log") {
        assert!(begin.elapsed() < PATIENCE, "{:?}", files(&metadata(&cluster, 0), ""));
        cluster.say(1, &["topic", "create", &format!("t{topics}"), "--partitions", "5"]);
        topics += 1;
    }
    cluster.start_again(&[2]);
    wait_for(&cluster, 2, &["topic", "list"], |text| {
        text.lines().filter(|line| line.starts_with('t')).count() == topics
    });
    let logs = files(&metadata(&cluster, 2), ".log");
    assert!(!logs.contains(&"00000000000000000000.log".to_owned()), "its log begins behind the snapshot: {logs:?}");
    // It votes like the others.
    cluster.kill(0);
    cluster.wait_for_leader(2, |leader| leader != 0);
    cluster.say(2, &["topic", "create", "later"]);
    cluster.kill(1);
    cluster.start_again(&[0]);
    cluster.say(2, &["topic", "create", "last", "--if-not-exists"]);
}

#[test]
fn a_second_broker_of_one_id_is_refused_while_the_first_lives() {
    let home = tempfile::tempdir().expect("a directory");
    let plan = Plan::new(3).roles(&[Roles::Both, Roles::Broker, Roles::Broker]);
    let mut cluster = plan.set("initial.broker.registration.timeout.ms", 2_000).format(home.path());
    cluster.start_again(&[0, 1]);
    cluster.set(2, "node.id", 2);
    fs::remove_dir_all(cluster.setup(2).data_dir()).expect("its directory");
    let formatted = format(cluster.setup(2), CLUSTER, &[]);
    assert!(formatted.succeeded, "{formatted:?}");
    assert_refused(&cluster, 2, &["another broker with this node.id is registered", "DUPLICATE_BROKER_REGISTRATION"]);
    cluster.say(1, &["topic", "create", "t"]);
}

#[test]
fn a_node_of_another_cluster_is_told_so() {
    let home = tempfile::tempdir().expect("a directory");
    let plan = Plan::new(2).roles(&[Roles::Both, Roles::Broker]);
    let mut cluster = plan.set("initial.broker.registration.timeout.ms", 2_000).format(home.path());
    cluster.start_again(&[0]);
    fs::remove_dir_all(cluster.setup(1).data_dir()).expect("its directory");
    let other = "b3RoZXItY2x1c3Rlci0wMQ";
    let formatted = format(cluster.setup(1), other, &[]);
    assert!(formatted.succeeded, "{formatted:?}");
    assert_refused(&cluster, 1, &["cluster.id", other, "INCONSISTENT_CLUSTER_ID"]);
}

#[test]
fn a_voter_whose_directory_was_lost_is_no_voter_until_it_is_added_again() {
    let home = tempfile::tempdir().expect("a directory");
    let mut cluster = Plan::new(3).voters(Voters::Initial).start(home.path());
    cluster.kill(2);
    fs::remove_dir_all(cluster.setup(2).data_dir()).expect("its directory");
    let formatted = format(cluster.setup(2), CLUSTER, &["--no-initial-controllers"]);
    assert!(formatted.succeeded, "{formatted:?}");
    cluster.start_again(&[2]);
    let roles = |cluster: &Cluster| {
        let text = cluster.say(2, &["quorum", "describe"]);
        let of_third = text.lines().filter_map(|line| line.strip_prefix("3 "));
        of_third.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(roles(&cluster), ["voter", "observer"], "the earlier directory votes, the new one follows");
}

#[test]
fn a_controller_that_does_not_answer_is_named_by_its_address() {
    let home = tempfile::tempdir().expect("a directory");
    let plan = Plan::new(2).roles(&[Roles::Controller, Roles::Broker]);
    let cluster = plan.set("initial.broker.registration.timeout.ms", 2_000).format(home.path());
    let controller = cluster.controller_address(0).to_owned();
    let words = [&*controller, "no connection could be made", "initial.broker.registration.timeout.ms=2000"];
    assert_refused(&cluster, 1, &words);
}

#[test]
fn an_unformatted_node_of_a_cluster_is_told_to_format() {
    let home = tempfile::tempdir().expect("a directory");
    let plan = Plan::new(3).roles(&[Roles::Both, Roles::Broker, Roles::Controller]);
    let mut cluster = plan.format(home.path());
    for place in 0..3 {
        let formatted = cluster.setup(place).data_dir();
        let aside = formatted.with_extension("aside");
        // The formatting was interrupted: it writes this file last.
        fs::rename(formatted.join("meta.properties"), home.path().join("meta.properties")).expect("renamed");
        assert_refused(&cluster, place, &["tidelog format"]);
        fs::rename(home.path().join("meta.properties"), formatted.join("meta.properties")).expect("renamed");
        fs::rename(&formatted, &aside).expect("renamed");
        assert_refused(&cluster, place, &["tidelog format"]);
        // Of two directories one is formatted, which is not the one of the metadata log.
        cluster.set(place, "log.dirs", format!("{},{}", formatted.display(), aside.display()));
        assert_refused(&cluster, place, &[&formatted.display().to_string(), "may not be mounted"]);
    }
}

#[test]
fn a_node_that_is_older_than_its_clusters_features_says_which_it_knows() {
    let home = tempfile::tempdir().expect("a directory");
    let cluster = Plan::new(1).format(home.path());
    // As a later release would have formatted it.
    let level = FeatureLevelRecord { name: "metadata.version".into(), feature_level: 31, ..Default::default() };
    let records = [MetadataRecord::from(level).encode(0)];
    let bootstrap = encode_snapshot(LeaderEpoch(0), WallMs(0), WallMs(0), &[], &records);
    fs::write(cluster.setup(0).data_dir().join("bootstrap.checkpoint"), bootstrap).expect("written");
    assert_refused(&cluster, 0, &["metadata.version is at level 31", "allowed is 7 to 30"]);
}
