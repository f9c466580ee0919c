//! Faults that only clusters of several nodes have.

use std::cell::Cell;
use std::collections::BTreeMap;
use tidelog_sim::cluster::{ClusterPlan, NodeRole, Voters};
use tidelog_sim::disk::Loss;
use tidelog_sim::history::Fact;
use tidelog_sim::scenario::Fault;
use tidelog_sim::script::Script;

const MS: u64 = 1_000_000;

/// Three controllers apart, and two brokers.
fn five_nodes(seed: u64, voters: Voters) -> Script {
    Script::with(seed, |scenario| {
        scenario.nodes = 5;
        let roles = [[NodeRole::Controller; 3].as_slice(), &[NodeRole::Broker; 2]].concat();
        scenario.cluster = ClusterPlan { roles, voters, ..ClusterPlan::default() };
        scenario.topics[0].partitions = 4;
    })
}

#[test]
fn a_rolling_restart_takes_down_one_node_at_a_time_and_every_client_gets_its_answers() {
    for (clean, loss) in [(true, Loss::Process), (true, Loss::Power), (false, Loss::Power)] {
        let mut t = five_nodes(1, Voters::Recorded);
        t.producer_with(60, |plan| plan.gap_ns_max = 500 * MS);
        t.run_until("all serve", |t| (0..5).all(|node| t.is_up(node)));
        t.deal(3, Fault::Rolling { clean, loss, down_ns: 50 * MS, patience_ns: 30_000 * MS });
        let most_down = Cell::new(0);
        t.run_until("all nodes were restarted", |t| {
            let down = (0..5).filter(|node| !t.is_up(*node)).count();
            most_down.set(most_down.get().max(down));
            t.count("rolling restarts done") == 1
        });
        assert_eq!(most_down.get(), 1);
        assert!((0..5).all(|node| t.life(node) == 1), "{}", t.story());
        assert_eq!(t.count("clean stops"), if clean { 5 } else { 0 });
        assert_eq!(t.ends_well().values().map(Vec::len).sum::<usize>(), 60);
    }
}

/// Who the voters are, as far as it is known to be committed, in the order in which that was known first.
fn committed_voters(t: &Script) -> Vec<Vec<u32>> {
    let mut sets: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for entry in t.facts() {
        if let Fact::VotersCommitted { offset, voters, .. } = &entry.fact {
            sets.insert(*offset, voters.iter().map(|voter| voter.node).collect());
        }
    }
    sets.into_values().collect()
}

#[test]
fn voters_are_added_and_removed_while_controllers_lose_their_power_and_the_others_go_on() {
    for seed in 0..4 {
        let mut t = Script::with(seed, |scenario| {
            scenario.nodes = 5;
            let roles = [[NodeRole::Controller; 4].as_slice(), &[NodeRole::Broker]].concat();
            let joining = vec![3];
            scenario.cluster = ClusterPlan { roles, voters: Voters::Recorded, joining, ..ClusterPlan::default() };
        });
        t.run_until("the broker serves", |t| t.is_up(4));
        t.registrar(30);
        for round in 1..=4 {
            t.run_until("the voters have changed", |t| t.count("changes of the voters acknowledged") >= 2 * round);
            t.cut_power(round as usize % 4);
        }
        let sets = committed_voters(&t);
        assert!(sets.len() >= 9 && sets.iter().any(|set| set.contains(&3)), "{sets:?}");
        t.ends_well();
    }
}

#[test]
fn a_voter_that_loses_its_disk_is_replaced_by_an_operator_or_replaces_itself() {
    for joins_by_itself in [false, true] {
        let mut t = Script::with(1, |scenario| {
            scenario.nodes = 4;
            let roles = [[NodeRole::Controller; 3].as_slice(), &[NodeRole::Broker]].concat();
            scenario.cluster =
                ClusterPlan { roles, voters: Voters::Recorded, joins_by_itself, ..ClusterPlan::default() };
        });
        t.run_until("the broker serves", |t| t.is_up(3));
        for round in 1..=2 {
            t.deal(1, Fault::LoseDisk { down_ns: 100 * MS });
            assert_eq!(t.count("disks lost"), round);
            if !joins_by_itself {
                t.registrar_with(6, true);
            }
            let is_replaced = |t: &Script| committed_voters(t).len() as u64 == 1 + 2 * round;
            t.run_until("it was removed and added", is_replaced);
            let counts: Vec<usize> = committed_voters(&t).iter().map(Vec::len).collect();
            assert!(counts.ends_with(&[3, 2, 3]), "{counts:?}");
            t.run_for(3_000);
        }
        t.ends_well();
    }
}

#[test]
fn a_static_voter_loses_its_disk_once_the_others_have_all_that_it_had() {
    for seed in 0..2 {
        let mut t = five_nodes(seed, Voters::Configured);
        t.run_until("the brokers serve", |t| t.is_up(3) && t.is_up(4));
        t.admin();
        for round in 1..=3 {
            t.deal(round as usize % 3, Fault::LoseDisk { down_ns: 100 * MS });
            t.run_until("a disk is lost", |t| t.count("disks lost") == round);
            t.run_for(1_000);
        }
        t.ends_well();
    }
}

#[test]
fn a_disk_is_not_lost_while_the_quorum_would_not_survive_it() {
    for voters in [Voters::Configured, Voters::Recorded] {
        let mut t = five_nodes(1, voters);
        t.run_until("the brokers serve", |t| t.is_up(3) && t.is_up(4));
        t.deal(0, Fault::Crash { loss: Loss::Power, down_ns: 5_000 * MS, again_after_steps: Vec::new() });
        t.deal(1, Fault::LoseDisk { down_ns: 100 * MS });
        t.run_for(4_000);
        assert_eq!(t.count("disks lost"), 0);
        t.run_until("it is lost when the other one is back", |t| t.count("disks lost") == 1);
        t.ends_well();
    }
}

#[test]
fn a_controller_that_is_no_voter_becomes_one_by_itself() {
    let mut t = Script::with(1, |scenario| {
        scenario.nodes = 3;
        scenario.cluster = ClusterPlan {
            voters: Voters::Recorded,
            joining: vec![1, 2],
            joins_by_itself: true,
            ..ClusterPlan::default()
        };
    });
    t.run_until("all are voters", |t| committed_voters(t).last().is_some_and(|voters| voters.len() == 3));
    assert_eq!(committed_voters(&t).iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 3]);
    t.cut_power(0);
    t.run_until("another leads", |t| [1, 2].iter().any(|node| t.quorum(*node).is_some_and(|view| view.leads)));
    t.ends_well();
}

#[test]
fn a_rolling_restart_goes_on_without_a_node_that_does_not_come_back_in_time() {
    let mut t = five_nodes(2, Voters::Configured);
    t.run_until("all serve", |t| (0..5).all(|node| t.is_up(node)));
    let rolling = Fault::Rolling { clean: true, loss: Loss::Process, down_ns: 20_000 * MS, patience_ns: 1_000 * MS };
    t.deal(0, rolling);
    t.run_until("all are down", |t| (0..5).all(|node| !t.is_up(node)));
    t.run_until("all serve again", |t| (0..5).all(|node| t.is_up(node)));
    t.ends_well();
}

#[test]
fn a_broker_that_has_nothing_is_taken_away_for_good_and_is_fenced_or_unregistered() {
    for unregister in [false, true] {
        let mut t = five_nodes(1, Voters::Recorded);
        t.run_until("the brokers serve", |t| t.is_up(3) && t.is_up(4));
        t.deal(4, Fault::Leave { unregister });
        t.run_until("it is known to be gone", |t| t.count("brokers gone for good") == 1);
        t.producer(60);
        t.cut_power(0);
        t.run_until("all is acknowledged", |t| t.count("batches acknowledged") >= 60);
        t.admin();
        t.run_for(1_000);
        assert_eq!((t.count("brokers unregistered"), t.is_up(4)), (unregister.into(), false));
        assert_eq!(t.ends_well().values().map(Vec::len).sum::<usize>(), 60);
    }
}

#[test]
fn a_broker_that_gets_a_replica_before_it_is_fenced_comes_back() {
    let mut t = five_nodes(1, Voters::Configured);
    t.run_until("the brokers serve", |t| t.is_up(3) && t.is_up(4));
    t.deal(4, Fault::Leave { unregister: true });
    t.producer(60);
    t.run_until("it is back", |t| t.count("brokers that came back") == 1 && t.is_up(4));
    assert_eq!(t.ends_well().values().map(Vec::len).sum::<usize>(), 60);
}
