//! Clusters of real nodes: they elect a leader and another one when it is killed, administrators are served by any node,
//! and brokers go on without a majority of controllers.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use std::time::{Duration, Instant};
use tidelog_tests::client::{Client, Producer, batch};
use tidelog_tests::cluster::{Cluster, Plan};
use tidelog_tests::network::Network;

/// The value of one record, sent to the partition's leader.
fn produce(cluster: &Cluster, leader: usize, topic: &str, partition: i32, value: &'static str) -> i16 {
    let mut client = Client::connect(cluster.address(leader)).expect("a connection");
    let sent = batch(Producer::NONE, &[bytes::Bytes::from_static(value.as_bytes())]);
    client.produce(topic, partition, sent).expect("Produce").error_code
}

/// The leaders of a topic's partitions, as places of nodes.
fn leaders(cluster: &Cluster, asked: usize, topic: &str) -> Vec<usize> {
    let text = cluster.say(asked, &["topic", "describe", topic]);
    let rows = text.lines().skip_while(|line| !line.starts_with("PARTITION")).skip(1);
    rows.map(|row| row.split_whitespace().nth(1).and_then(|id| id.parse::<usize>().ok()).expect("a leader") - 1)
        .collect()
}

#[test]
fn a_killed_leader_is_followed_by_another_and_comes_back_to_what_was_decided_meanwhile() {
    let home = tempfile::tempdir().expect("a directory");
    let mut cluster = Cluster::start(home.path(), 3);
    let (leader, _) = cluster.wait_for_leader(0, |_| true);
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    // A node that does not lead brings the request to the one that does.
    cluster.say(others[0], &["topic", "create", "before", "--partitions", "6"]);
    let mut led = leaders(&cluster, others[1], "before");
    for (partition, leader) in (0..).zip(&led) {
        assert_eq!(produce(&cluster, *leader, "before", partition, "kept"), 0);
    }
    led.sort_unstable();
    assert_eq!(led, [0, 0, 1, 1, 2, 2], "partitions are spread over the nodes");
    for place in 0..3 {
        let text = cluster.say(place, &["cluster", "describe"]);
        assert_eq!(text.lines().filter(|line| line.contains("127.0.0.1")).count(), 3, "{text}");
    }

    cluster.kill(leader);
    let (next, took) = cluster.wait_for_leader(others[0], |now| now != leader);
    println!("another leader after {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    let other = others.iter().copied().find(|place| *place != next).expect("two are left");
    cluster.say(other, &["topic", "create", "meanwhile"]);

    cluster.start_again(&[leader]);
    let begin = Instant::now();
    while !cluster.tidelog(leader, &["topic", "list"]).out.contains("meanwhile") {
        assert!(begin.elapsed() < Duration::from_secs(30), "the node that was killed does not learn of the topic");
    }
    cluster.stop(&[0, 1, 2]);
    cluster.start_again(&[0, 1, 2]);
    let text = cluster.say(1, &["consume", "before", "--from-beginning", "--exit-at-end"]);
    assert_eq!(text.lines().filter(|line| line.contains("kept")).count(), 6, "{text}");
    cluster.stop(&[2, 0, 1]);
}

#[test]
fn without_a_majority_of_controllers_brokers_serve_and_administrators_are_told_why_they_wait() {
    let home = tempfile::tempdir().expect("a directory");
    let mut cluster = Cluster::start(home.path(), 3);
    cluster.say(0, &["topic", "create", "t", "--partitions", "3"]);
    let led = leaders(&cluster, 0, "t");
    let partition = led.iter().position(|leader| *leader == 2).expect("each node leads one") as i32;
    cluster.kill(0);
    cluster.kill(1);
    assert_eq!(produce(&cluster, 2, "t", partition, "a"), 0, "what a broker leads, it leads on");
    let said = cluster.tidelog(2, &["topic", "create", "new"]);
    assert!(!said.succeeded, "{said:?}");
    assert!(said.err.contains("new"), "the error names what could not be created: {said:?}");
    cluster.start_again(&[0]);
    cluster.say(2, &["topic", "create", "new", "--if-not-exists"]);
    cluster.stop(&[0, 2]);
}

#[test]
fn a_leader_that_nobody_hears_is_followed_by_another_although_it_hears_all() {
    let home = tempfile::tempdir().expect("a directory");
    let network = Network::new();
    let cluster = Plan::new(3).through(&network).start(home.path());
    let (leader, _) = cluster.wait_for_leader(0, |_| true);
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    others.iter().for_each(|other| network.stall(leader, *other));
    let (next, _) = cluster.wait_for_leader(others[0], |now| now != leader);
    cluster.say(next, &["topic", "create", "meanwhile"]);
    network.heal();
    let (now, _) = cluster.wait_for_leader(leader, |now| now != leader);
    assert_eq!(now, next, "the earlier leader takes nothing back");
    cluster.say(leader, &["topic", "create", "later"]);
}

#[test]
fn a_node_that_waits_for_the_others_ends_when_it_is_told_to() {
    let home = tempfile::tempdir().expect("a directory");
    let mut cluster = Plan::new(3).format(home.path());
    cluster.spawn(0);
    cluster.log_lines(0, 1, &["a majority of the voters must run"]);
    let said = cluster.stop(&[0]).concat();
    assert!(said.contains("SIGTERM: stopping") && said.contains("stopped before the broker had come up"), "{said}");
    cluster.start_again(&[0, 1, 2]);
}
