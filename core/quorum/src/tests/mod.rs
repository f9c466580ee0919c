//! Tests of several quorums together.

mod boot;
mod changes;
mod elections;
mod fetching;
mod harness;
mod messages;
mod roles;
mod solo;
mod transitions;
mod voting;

use harness::*;
use tidelog_config::plant::{Plant, Plants};

#[test]
fn a_lone_voter_leads_at_once_and_commits_what_it_proposes() {
    let mut cluster = Cluster::of_static_voters(1, 1, Plants::default());
    cluster.run_until(100, "a leader", |cluster| cluster.leader() == Some(0));
    let name = cluster.propose().unwrap();
    cluster.run_until(100, "a commit", |cluster| cluster.has_committed(0, &name));
}

#[test]
fn three_voters_elect_a_leader_and_all_learn_what_is_committed() {
    for seed in 0..20 {
        for recorded in [false, true] {
            let mut cluster = match recorded {
                true => Cluster::of_recorded_voters(seed, 3, 3, Plants::default()),
                false => Cluster::of_static_voters(seed, 3, Plants::default()),
            };
            cluster.run_until(5_000, "a leader", |cluster| cluster.leader().is_some());
            for _ in 0..10 {
                let name = cluster.propose().unwrap();
                cluster.run_until(1_000, "a commit on all", |cluster| {
                    (0..3).all(|node| cluster.has_committed(node, &name))
                });
            }
        }
    }
}

/// Crashes, power cuts, partitions, lost and slow messages, snapshots and proposals at random; then all is healed, and a
/// leader is there and commits.
fn storm(seed: u64, plants: Plants) {
    let voters = [1, 2, 3, 3, 4, 5][(seed % 6) as usize];
    let observers = (seed % 4 / 2) as i32;
    let mut cluster = match seed % 2 {
        0 => Cluster::of_static_voters(seed, voters, plants),
        _ => Cluster::of_recorded_voters(seed, voters, voters + observers, plants),
    };
    let nodes = cluster.nodes.len();
    let hurries = seed % 4 < 2;
    if hurries {
        cluster.hurry();
    }
    cluster.slow = seed.is_multiple_of(3);
    cluster.lost_percent = [0, 2, 10][(seed % 5 % 3) as usize];
    for _ in 0..if hurries { 400 } else { 150 } {
        match cluster.random(12) {
            0 => {
                let down_ms = cluster.random(if hurries { 100 } else { 3_000 });
                let (node, power) = (cluster.random(nodes), cluster.random(2) == 0);
                cluster.crash(node, power, Some(down_ms as u64));
            }
            1 => {
                let (from, to) = (cluster.random(nodes), cluster.random(nodes));
                cluster.cut.insert((from, to));
            }
            2 => cluster.cut.clear(),
            3 => {
                let node = cluster.random(nodes);
                cluster.snapshot(node);
            }
            4 => {
                let node = cluster.random(nodes);
                cluster.checkpoint(node);
            }
            5 => {
                let voter = cluster.random(nodes) as i32 + 1;
                match cluster.random(3) {
                    0 => changes::begin(&mut cluster, changes::add(&harness::voter(voter))),
                    1 => changes::begin(&mut cluster, changes::remove(key(voter))),
                    // Fails where the voters are recorded already, or have not told their directories.
                    _ => drop(cluster.upgrade()),
                }
            }
            6 if seed % 8 < 2 => {
                // A leader loses its power while its records are on their way, and is back at once.
                if let Some(leader) = cluster.leader() {
                    cluster.propose_at(leader);
                    let ms = cluster.random(4) as u64;
                    cluster.run(ms);
                    cluster.crash(leader, true, Some(0));
                }
            }
            6 if seed % 8 < 6 && hurries => {
                // The power of the whole room fails.
                if let Some(leader) = cluster.leader() {
                    cluster.propose_at(leader);
                }
                let ms = cluster.random(6) as u64;
                cluster.run(ms);
                for node in 0..nodes {
                    let down_ms = cluster.random(30) as u64;
                    cluster.crash(node, true, Some(down_ms));
                }
            }
            _ => {
                for node in 0..nodes {
                    cluster.propose_at(node);
                }
            }
        }
        let ms = cluster.random(if hurries { 30 } else { 400 }) as u64;
        cluster.run(ms);
    }
    cluster.cut.clear();
    cluster.lost_percent = 0;
    cluster.slow = false;
    cluster.traces = number(option_env!("TIDELOG_QUORUM_TRACE"), 0) > 0;
    cluster.run(4_000);
    cluster.run_until(20_000, "a leader once all is healed", |cluster| cluster.leader().is_some());
    let name = cluster.propose().expect("it leads");
    cluster.run_until(10_000, "a commit on all", |cluster| (0..nodes).all(|node| cluster.has_committed(node, &name)));
}

/// A number from the environment of the compiler, for longer searches: `TIDELOG_QUORUM_SEEDS=1000 cargo test -p
/// tidelog-quorum`.
fn number(text: Option<&str>, default: u64) -> u64 {
    text.map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn whatever_fails_nothing_committed_is_lost_and_a_healed_quorum_has_a_leader() {
    let first = number(option_env!("TIDELOG_QUORUM_FIRST"), 0);
    for seed in first..first + number(option_env!("TIDELOG_QUORUM_SEEDS"), 60) {
        println!("seed {seed}");
        storm(seed, Plants::default());
    }
}

/// What only tests of single moments, or the simulator, find.
const TOO_RARE: &[Plant] = &[
    Plant::EarlierEpochCommittedByCounting,
    Plant::HighWatermarkAtEpochStart,
    Plant::RemovedLeaderCounts,
    Plant::TruncationKeepsVoters,
    Plant::LeaderKeepsLease,
    Plant::StartsWithoutSnapshot,
];

/// Every other planted bug of the quorum is found by one of these seeds.
#[test]
fn every_planted_bug_is_found() {
    let missed: Vec<String> = Plant::ALL
        .iter()
        .filter(|plant| plant.is_of_quorum() && !TOO_RARE.contains(plant))
        .filter(|plant| {
            let finds =
                |seed: &u64| std::panic::catch_unwind(|| storm(*seed, Plants::default().with(**plant))).is_err();
            let found = (0..2_000).find(finds);
            println!("{plant:?} is found by seed {found:?}");
            found.is_none()
        })
        .map(|plant| format!("{plant:?}"))
        .collect();
    assert!(missed.is_empty(), "not found: {}", missed.join(", "));
}
