//! Runs the standard seeds. `SEEDS` sets how many (default 2,000), `BASE_SEED` the first (default 0).
//!
//! A failing seed prints the command line that runs it again. Together the seeds must reach every probe of the core:
//! code that no seed reaches is not tested here.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test is a part of the real world: it has an environment and threads"
)]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tidelog_core::plant::Plants;
use tidelog_core::probe::Probe;
use tidelog_sim::kept::attempt;
use tidelog_sim::scenario::Scenario;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// How to run the simulator's tool: the one that was built together with this test, if there is one, so that nothing
/// has to be compiled.
fn program() -> String {
    let built = std::env::current_exe().ok().and_then(|test| Some(test.parent()?.parent()?.join("tidelog-sim")));
    match built.filter(|program| program.exists()) {
        Some(program) => program.display().to_string(),
        None => "cargo sim".to_owned(),
    }
}

/// With fewer seeds than these, probes and attacks are not checked.
const STANDARD: u64 = 2_000;

/// So many kinds of attacks must have been answered as Kafka answers them.
const ATTACKS: usize = 65;

#[derive(Default)]
struct Found {
    failed: Vec<String>,
    probes: BTreeSet<&'static str>,
    attacks: BTreeSet<&'static str>,
}

#[test]
fn the_standard_seeds_pass_reach_every_probe_and_withstand_every_attack() {
    let (base, seeds) = (number("BASE_SEED", 0), number("SEEDS", STANDARD));
    let next = AtomicU64::new(base);
    let found: Mutex<Found> = Mutex::default();
    let search = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= base + seeds {
                return;
            }
            let outcome = attempt(&Scenario::draw(seed), Plants::default());
            let mut found = found.lock().expect("a panic of the core is a violation");
            found.probes.extend(outcome.probes.into_keys());
            found.attacks.extend(outcome.attacks.into_keys());
            if let Some(violation) = outcome.violation {
                found.failed.push(format!("{} run --seed {seed}   # {violation}", program()));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(search))));
    let Found { failed, probes, attacks } = found.into_inner().expect("a panic of the core is a violation");
    assert!(failed.is_empty(), "{} seeds fail:\n{}", failed.len(), failed.join("\n"));
    if seeds >= STANDARD {
        let missed = Probe::ALL.iter().map(|probe| probe.name()).filter(|name| !probes.contains(name));
        let missed: Vec<&str> = missed.collect();
        assert!(missed.is_empty(), "{seeds} seeds do not reach {missed:?}");
        assert!(attacks.len() >= ATTACKS, "only {} kinds of attacks were answered", attacks.len());
    }
}
