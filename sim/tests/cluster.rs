//! Clusters of several nodes: their controllers form one quorum.

use std::collections::BTreeSet;
use tidelog_sim::cluster::{ClusterPlan, CutOff, NodeRole, Voters};
use tidelog_sim::disk::Loss;
use tidelog_sim::history::Fact;
use tidelog_sim::network::{End, Ways};
use tidelog_sim::scenario::Fault;
use tidelog_sim::script::Script;

const SECOND: u64 = 1_000_000_000;

/// So many nodes, each with both roles.
fn cluster(seed: u64, nodes: u32, voters: Voters) -> Script {
    Script::with(seed, |scenario| {
        scenario.nodes = nodes;
        scenario.cluster = ClusterPlan { voters, ..ClusterPlan::default() };
    })
}

/// Runs until one of these nodes leads and all of them follow it. Gives the leader.
#[track_caller]
fn elect(t: &mut Script, nodes: &[usize]) -> usize {
    let agree = |t: &Script| {
        let views: Vec<_> = nodes.iter().filter_map(|node| t.quorum(*node)).collect();
        let first = views.first()?;
        let is_one = |view: &tidelog_core::broker::QuorumView| {
            (view.epoch, view.leader) == (first.epoch, first.leader) && view.committed == view.log_end
        };
        let leads = nodes.iter().copied().find(|node| t.quorum(*node).is_some_and(|view| view.leads))?;
        (views.len() == nodes.len() && views.iter().all(is_one)).then_some(leads)
    };
    t.run_until("a leader that all others follow", |t| agree(t).is_some());
    agree(t).expect("just waited for")
}

#[test]
fn three_controllers_elect_a_leader_and_another_one_when_it_crashes() {
    for voters in [Voters::Configured, Voters::Recorded] {
        for seed in 0..5 {
            let mut t = cluster(seed, 3, voters);
            let first = elect(&mut t, &[0, 1, 2]);
            let epoch = t.quorum(first).unwrap().epoch;
            t.deal(first, Fault::Crash { loss: Loss::Power, down_ns: 30 * SECOND, again_after_steps: Vec::new() });
            let others: Vec<usize> = (0..3).filter(|node| *node != first).collect();
            let second = elect(&mut t, &others);
            assert!(second != first && t.quorum(second).unwrap().epoch > epoch, "{}", t.story());
            t.run_for(31_000);
            elect(&mut t, &[0, 1, 2]);
        }
    }
}

#[test]
fn the_power_of_the_whole_room_fails_and_nothing_is_voted_or_led_twice() {
    for seed in 0..10 {
        let mut t = cluster(seed, 3, Voters::Recorded);
        for round in 0..4 {
            t.run_for(700 + 300 * round);
            (0..3).for_each(|node| t.cut_power(node));
        }
        elect(&mut t, &[0, 1, 2]);
    }
}

#[test]
fn a_leader_that_is_cut_off_gives_up_and_the_others_have_a_leader() {
    for seed in 0..5 {
        let mut t = cluster(seed, 3, Voters::Configured);
        let first = elect(&mut t, &[0, 1, 2]);
        let others: Vec<usize> = (0..3).filter(|node| *node != first).collect();
        let from = others.iter().map(|node| End::Node(*node as u32)).collect();
        t.deal(first, Fault::Partition { with: Vec::new(), from, ways: Ways::Both, for_ns: 60 * SECOND, times: 1 });
        elect(&mut t, &others);
        t.run_until("the first leader has given up", |t| !t.quorum(first).unwrap().leads);
        t.run_for(60_000);
        elect(&mut t, &[0, 1, 2]);
    }
}

/// What the nodes know of the metadata when their processes end and in the end: how many looks, and at how many offsets.
fn looks_at_images(t: &Script) -> (usize, usize) {
    let ends = t.facts().iter().filter_map(|entry| match entry.fact {
        Fact::Image { end, .. } => Some(end),
        _ => None,
    });
    let ends: Vec<i64> = ends.collect();
    (ends.len(), ends.iter().collect::<BTreeSet<_>>().len())
}

#[test]
fn all_nodes_have_the_same_metadata_at_an_offset_from_the_log_or_from_a_snapshot() {
    let mut t = Script::with(3, |scenario| {
        scenario.nodes = 4;
        scenario.cluster = ClusterPlan { roles: vec![NodeRole::Broker], ..ClusterPlan::default() };
        scenario.properties.insert("metadata.log.max.record.bytes.between.snapshots".into(), "500".into());
    });
    t.admin();
    for round in 0..2 {
        t.run_for(1_500);
        t.restart(round);
        elect(&mut t, &[0, 1, 2, 3]);
        (0..4).for_each(|node| t.kill(node));
    }
    let (looks, offsets) = looks_at_images(&t);
    assert!(looks > offsets && offsets >= 3, "{looks} looks at {offsets} offsets");
    t.ends_well();
}

#[test]
fn brokers_alone_are_no_voters_and_read_what_is_committed() {
    for voters in [Voters::Configured, Voters::Recorded] {
        let mut t = Script::with(1, |scenario| {
            scenario.nodes = 4;
            scenario.cluster = ClusterPlan { roles: vec![NodeRole::Broker; 2], voters, ..ClusterPlan::default() };
        });
        let leader = elect(&mut t, &[0, 1, 2, 3]);
        assert!(leader >= 2, "{}", t.story());
        t.run_for(10_000);
        assert_eq!(elect(&mut t, &[0, 1, 2, 3]), leader, "nobody else stands for election");
    }
}

#[test]
fn a_minority_of_controllers_may_stay_cut_off_in_either_way_and_the_others_have_a_leader() {
    for ways in Ways::ALL {
        for seed in 0..4 {
            let mut t = Script::with(seed, |scenario| {
                scenario.nodes = 4;
                let roles = [[NodeRole::Controller; 3].as_slice(), &[NodeRole::Broker]].concat();
                let cut_off = vec![CutOff { node: 0, ways }];
                scenario.cluster = ClusterPlan { roles, voters: Voters::Recorded, cut_off, ..ClusterPlan::default() };
            });
            elect(&mut t, &[0, 1, 2, 3]);
            t.heal();
            t.run_for(10_000);
            let leader = elect(&mut t, &[1, 2, 3]);
            assert!(leader != 0 && !t.quorum(0).unwrap().leads, "{}", t.story());
        }
    }
}
