//! Partitions with several replicas: what is acknowledged outlives the nodes that have acknowledged it.

use tidelog_sim::cluster::ClusterPlan;
use tidelog_sim::disk::Loss;
use tidelog_sim::network::{End, Ways};
use tidelog_sim::scenario::Fault;
use tidelog_sim::script::Script;

const SECOND: u64 = 1_000_000_000;

/// So many nodes, and a topic of which each has a replica.
fn cluster(seed: u64, nodes: u32, configs: &[(&str, &str)]) -> Script {
    cluster_with(seed, nodes, configs, &[])
}

fn cluster_with(seed: u64, nodes: u32, configs: &[(&str, &str)], properties: &[(&str, &str)]) -> Script {
    Script::with(seed, |scenario| {
        scenario.nodes = nodes;
        scenario.cluster = ClusterPlan::default();
        let usual = [("replica.lag.time.max.ms", "2000"), ("broker.session.timeout.ms", "3000")];
        let properties = usual.iter().chain(properties).map(|(name, value)| (*name, *value));
        scenario.properties.extend(properties.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let topic = &mut scenario.topics[0];
        topic.replicas = nodes as i16;
        topic.configs.extend(configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    })
}

const PARTITION: &str = "topic-0-0";

/// The node that leads the partition.
fn leader(t: &Script) -> usize {
    let leads = |node: &usize| t.replica(*node, PARTITION).is_some_and(|replica| replica.leads);
    (0..3).filter(|node| t.is_up(*node)).find(leads).expect("one of them leads")
}

/// Three nodes that are written to and read from; of the 60 batches ten are acknowledged.
fn busy(seed: u64, configs: &[(&str, &str)]) -> Script {
    let mut t = cluster(seed, 3, configs);
    t.producer(60);
    t.fetcher();
    t.run_until("some is acknowledged", |t| t.acknowledged() >= 10);
    t
}

/// For 20 seconds no other node reaches this one, nor it them.
fn cut_off(t: &mut Script, node: usize) {
    let from = (0..3).filter(|other| *other != node).map(|other| End::Node(other as u32)).collect();
    t.deal(node, Fault::Partition { with: Vec::new(), from, ways: Ways::Both, for_ns: 20 * SECOND, times: 1 });
}

#[test]
fn what_is_acknowledged_is_on_every_replica() {
    for seed in 0..5 {
        let mut t = cluster(seed, 3, &[("min.insync.replicas", "2")]);
        t.producer(20);
        t.fetcher();
        t.run_until("all is acknowledged", |t| t.acknowledged() == 20);
        t.ends_well();
    }
}

#[test]
fn followers_that_get_one_batch_at_a_time_keep_up_with_all_partitions() {
    let little = [
        ("num.replica.fetchers", "3"),
        ("replica.fetch.max.bytes", "1"),
        ("replica.fetch.response.max.bytes", "1"),
        ("replica.fetch.wait.max.ms", "1"),
        ("replica.fetch.backoff.ms", "1"),
    ];
    for seed in 0..5 {
        let mut t = cluster_with(seed, 3, &[("min.insync.replicas", "3")], &little);
        t.producer(60);
        t.run_until("all is acknowledged", |t| t.acknowledged() == 60);
        t.ends_well();
    }
}

#[test]
fn a_leader_that_waits_for_more_bytes_than_there_are_answers_its_followers_in_time() {
    for seed in 0..5 {
        let wait = [("replica.fetch.min.bytes", "100000"), ("replica.fetch.wait.max.ms", "300")];
        let mut t = cluster_with(seed, 3, &[("min.insync.replicas", "3")], &wait);
        t.producer(10);
        t.run_until("all is acknowledged", |t| t.acknowledged() == 10);
        t.ends_well();
    }
}

#[test]
fn another_replica_leads_when_the_leader_loses_its_power_and_nothing_is_lost() {
    for seed in 0..5 {
        let mut t = busy(seed, &[("min.insync.replicas", "2")]);
        let first = leader(&t);
        t.deal(first, Fault::Crash { loss: Loss::Power, down_ns: 30 * SECOND, again_after_steps: Vec::new() });
        t.run_until("all is acknowledged by others", |t| t.acknowledged() == 60);
        assert!(!t.is_up(first), "{}", t.story());
        t.ends_well();
    }
}

#[test]
fn a_leader_that_is_cut_off_acknowledges_nothing_and_its_tail_is_cut_when_it_is_back() {
    for seed in 0..5 {
        let mut t = busy(seed, &[("min.insync.replicas", "2")]);
        let first = leader(&t);
        cut_off(&mut t, first);
        t.run_until("all is acknowledged", |t| t.acknowledged() == 60);
        t.ends_well();
    }
}

#[test]
fn the_power_of_the_whole_room_fails_and_nothing_is_lost() {
    for seed in 0..5 {
        let mut t = busy(seed, &[]);
        for round in 1..4 {
            t.run_until("some is acknowledged", |t| t.acknowledged() >= 10 * round);
            (0..3).for_each(|node| t.cut_power(node));
        }
        t.run_until("all is acknowledged", |t| t.acknowledged() == 60);
        t.ends_well();
    }
}

#[test]
fn nodes_that_stop_one_after_the_other_hand_their_leaders_over() {
    for seed in 0..5 {
        let mut t = busy(seed, &[("min.insync.replicas", "2")]);
        for node in 0..3 {
            t.run_until("some is acknowledged", |t| t.acknowledged() >= 10 * (node + 1));
            t.deal(node, Fault::Stop { loss: Loss::Process, down_ns: SECOND, crash_after_steps: None });
            t.run_for(8_000);
        }
        t.run_until("all is acknowledged", |t| t.acknowledged() == 60);
        t.ends_well();
    }
}

#[test]
fn a_follower_that_lags_leaves_the_isr_and_joins_again_when_it_has_caught_up() {
    for seed in 0..5 {
        let mut t = busy(seed, &[]);
        let lags = (leader(&t) + 1) % 3;
        cut_off(&mut t, lags);
        t.run_until("all is acknowledged without it", |t| t.acknowledged() == 60);
        let lagging = t.replica(leader(&t), PARTITION).unwrap();
        assert_eq!(lagging.in_sync.len(), 2, "{lagging}");
        t.ends_well();
    }
}
