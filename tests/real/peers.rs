//! Apache Kafka as a peer: nodes of both kinds form one cluster, and each of them leads its quorum.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tidelog_tests::broker::Kind;
use tidelog_tests::client::{Client, Producer, batch};
use tidelog_tests::cluster::{Cluster, Plan};
use tidelog_tests::{dump, kafka, skipped};

const NODES: [Kind; 3] = [Kind::Tidelog, Kind::Kafka, Kind::Kafka];
/// After a leader is killed, either of the other two leads. It takes three kills as a rule until each has led.
const KILLS_MAX: usize = 12;

#[test]
fn tidelog_and_kafka_lead_one_quorum_in_turn_and_have_the_same_metadata() {
    let jars = match kafka::jars() {
        Ok(jars) => jars,
        Err(why) => return skipped("tidelog_and_kafka_lead_one_quorum_in_turn_and_have_the_same_metadata", &why),
    };
    let home = tempfile::tempdir().expect("a directory");
    let mut cluster = Plan::of(&NODES).start(home.path());
    let (mut have_led, mut kills) = (BTreeSet::new(), 0);
    loop {
        let (leader, _) = cluster.wait_for_leader(0, |_| true);
        if have_led.insert(leader) {
            use_all_nodes(&cluster, leader);
        }
        if have_led.len() == NODES.len() {
            break;
        }
        assert!(kills < KILLS_MAX, "only the nodes in these places have led: {have_led:?}");
        kills += 1;
        cluster.kill(leader);
        cluster.wait_for_leader((leader + 1) % NODES.len(), |now| now != leader);
        cluster.start_again(&[leader]);
    }
    println!("each has led after {kills} kills");

    (0..NODES.len()).for_each(|place| cluster.kill(place));
    let logs: Vec<Vec<String>> = (0..NODES.len())
        .map(|place| metadata(&jars, &cluster.setup(place).partition_dir("__cluster_metadata", 0)))
        .collect();
    // Some nodes may not have fetched the last records.
    let common = logs.iter().map(Vec::len).min().expect("three logs");
    assert!(common > 50, "{common} records");
    for log in &logs[1..] {
        assert_eq!(log[..common], logs[0][..common]);
    }
}

/// Topics are created through each node, while the one in place `leader` leads. Each node leads a partition of each topic,
/// takes a record for it, and gives what all have taken.
fn use_all_nodes(cluster: &Cluster, leader: usize) {
    for through in 0..NODES.len() {
        let topic = format!("through-{through}-while-{leader}-leads");
        cluster.say(through, &["topic", "create", &topic, "--partitions", "3"]);
        for place in 0..NODES.len() {
            let mut client = Client::connect(cluster.address(place)).expect("a connection");
            client.wait_for_leaders(&topic).expect("leaders");
            let taken = (0..3).filter(|partition| {
                let sent = batch(Producer::NONE, &[bytes::Bytes::from_static(b"taken")]);
                client.produce(&topic, *partition, sent).expect("Produce").error_code == 0
            });
            assert_eq!(taken.count(), 1, "node {} leads one partition of {topic}", place + 1);
        }
        let text = cluster.say(through, &["consume", &topic, "--from-beginning", "--exit-at-end"]);
        assert_eq!(text.lines().filter(|line| line.contains("taken")).count(), 3, "{text}");
    }
}

/// The records of a node's metadata log, as Kafka's tool shows them.
fn metadata(jars: &Path, dir: &Path) -> Vec<String> {
    let log: PathBuf = dir.join("00000000000000000000.log");
    let text = dump::dump(jars, &["--cluster-metadata-decoder"], &[log]);
    text.lines().filter(|line| line.starts_with("| offset: ")).map(str::to_owned).collect()
}
