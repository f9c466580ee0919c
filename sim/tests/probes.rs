//! The standard seeds must have been everywhere: a place that no seed reaches is a place that nobody judges.

use std::collections::BTreeMap;
use tidelog_core::plant::Plants;
use tidelog_core::probe::Probe;
use tidelog_sim::scenario::Scenario;
use tidelog_sim::trace::Trace;
use tidelog_sim::world;

/// The first of the standard seeds: enough to be everywhere.
const SEEDS: u64 = 500;

/// The attacks that some seed must have seen answered as Kafka answers them.
const ATTACKS: usize = 65;

/// No client deletes topics yet; and what takes luck.
const NOT_YET: [Probe; 5] = [
    Probe::LogDeletedOpen,
    Probe::LogDirectoryVacated,
    Probe::TopicNameWaits,
    Probe::RecoverySegmentsDropped,
    Probe::RecoverySnapshotStray,
];

#[test]
fn the_standard_seeds_reach_every_probe_and_withstand_every_attack() {
    let mut reached: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut attacks: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..SEEDS {
        let outcome = world::run(&Scenario::draw(seed), Plants::default(), Trace::default());
        for (name, count) in outcome.probes {
            let (seeds, times) = reached.entry(name).or_default();
            *seeds += 1;
            *times += count;
        }
        for (name, count) in outcome.attacks {
            *attacks.entry(name).or_default() += count;
        }
    }
    for (name, (seeds, times)) in &reached {
        println!("{seeds:>6} seeds {times:>9} times {name}");
    }
    for (name, times) in &attacks {
        println!("{times:>6} times {name}");
    }
    let demanded = Probe::ALL.iter().filter(|probe| !NOT_YET.contains(probe));
    let missed: Vec<&str> = demanded.map(|probe| probe.name()).filter(|name| !reached.contains_key(name)).collect();
    assert!(missed.is_empty(), "{SEEDS} seeds do not reach {missed:?}");
    assert!(attacks.len() >= ATTACKS, "only {} kinds of attacks were answered", attacks.len());
}
