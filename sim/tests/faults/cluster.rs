//! Faults that only clusters of several nodes have.

use std::cell::Cell;
use tidelog_sim::cluster::{ClusterPlan, NodeRole, Voters};
use tidelog_sim::disk::Loss;
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
