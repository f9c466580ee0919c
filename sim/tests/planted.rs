//! Each planted bug is found by one of the first standard seeds.
//!
//! `cargo test -p tidelog-sim --test planted -- --nocapture` prints which seed finds each bug, and what the checker
//! says.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test is a part of the real world: threads")]

use std::sync::atomic::{AtomicUsize, Ordering};
use tidelog_core::plant::{Plant, Plants};
use tidelog_sim::kept::{attempt, plants_of_seeds, scenarios_for};
use tidelog_sim::panics;

/// Each bug must be found within this many seeds. Most need a few; the number is high because a change of what seeds
/// draw changes every seed.
const SEEDS_AT_MOST: usize = 1_500;

/// The first seed that finds a planted bug, and what it says.
fn first_to_find(plant: Plant) -> Option<(u64, String)> {
    let plants = Plants::default().with(plant);
    scenarios_for(plant, 0).take(SEEDS_AT_MOST).find_map(|scenario| {
        let violation = attempt(&scenario, plants).violation?;
        Some((scenario.seed, violation.to_string()))
    })
}

#[test]
fn every_planted_bug_is_found() {
    let next = AtomicUsize::new(0);
    let plants = plants_of_seeds();
    panics::install(|| {});
    let missed: Vec<String> = std::thread::scope(|scope| {
        let search = || {
            // Panics are expected: some planted bugs make the core panic.
            panics::quiet(true);
            let mut missed = Vec::new();
            while let Some(plant) = plants.get(next.fetch_add(1, Ordering::Relaxed)) {
                match first_to_find(*plant) {
                    Some((seed, verdict)) => println!("{plant:?} is found by seed {seed}: {verdict}"),
                    None => missed.push(format!("{plant:?} is not found by {SEEDS_AT_MOST} seeds")),
                }
            }
            missed
        };
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let searches: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        searches.into_iter().flat_map(|search| search.join().expect("a search does not panic")).collect()
    });
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
