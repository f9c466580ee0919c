//! The standard seeds. `SEEDS` says how many (500), `BASE_SEED` from which on (0).
//!
//! A failing seed prints the one line that runs it again.
#![allow(clippy::disallowed_methods, reason = "a test is a part of the real world: it has an environment and threads")]

use std::sync::atomic::{AtomicU64, Ordering};
use tidelog_core::plant::Plants;
use tidelog_sim::kept::attempt;
use tidelog_sim::scenario::Scenario;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

#[test]
fn the_standard_seeds_pass() {
    let (base, seeds) = (number("BASE_SEED", 0), number("SEEDS", 500));
    let next = AtomicU64::new(base);
    let search = || {
        let mut failed = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= base + seeds {
                return failed;
            }
            if let Some(violation) = attempt(&Scenario::draw(seed), Plants::default()).violation {
                failed.push(format!("{}   # {violation}", tidelog_sim::reproduce(seed, Plants::default())));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let failed: Vec<String> = std::thread::scope(|scope| {
        let searches: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        searches.into_iter().flat_map(|search| search.join().expect("a panic of the core is a violation")).collect()
    });
    assert!(failed.is_empty(), "{} seeds fail:\n{}", failed.len(), failed.join("\n"));
}
