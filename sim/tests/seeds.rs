//! The standard seeds. `SEEDS` says how many (500), `BASE_SEED` from which on (0).
//!
//! A failing seed prints the one line that runs it again.
#![allow(clippy::disallowed_methods, reason = "a test is a part of the real world: it has an environment and threads")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use tidelog_core::plant::{Plant, Plants};
use tidelog_sim::scenario::Scenario;
use tidelog_sim::trace::Trace;
use tidelog_sim::world;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// Runs a seed; what is wrong with it, if anything.
fn run(seed: u64, plants: Plants) -> Result<(), String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| world::run(&Scenario::draw(seed), plants, Trace::default())));
    match outcome.map(|outcome| outcome.violation) {
        Ok(None) => Ok(()),
        Ok(Some(violation)) => Err(violation.to_string()),
        Err(panic) => Err(panic
            .downcast::<String>()
            .map(|text| *text)
            .unwrap_or_else(|panic| panic.downcast_ref::<&str>().map_or("a panic".into(), |text| text.to_string()))),
    }
}

/// The `part`th quarter of the standard seeds: four tests, so that four threads share them.
fn quarter(part: u64) {
    let (base, seeds) = (number("BASE_SEED", 0), number("SEEDS", 500));
    let failed: Vec<String> = (base..base + seeds)
        .filter(|seed| seed % 4 == part)
        .filter_map(|seed| {
            Some(format!(
                "{}   # {}",
                tidelog_sim::reproduce(seed, Plants::default()),
                run(seed, Plants::default()).err()?
            ))
        })
        .collect();
    assert!(failed.is_empty(), "{} seeds fail:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn the_first_quarter_of_the_seeds_passes() {
    quarter(0);
}

#[test]
fn the_second_quarter_of_the_seeds_passes() {
    quarter(1);
}

#[test]
fn the_third_quarter_of_the_seeds_passes() {
    quarter(2);
}

#[test]
fn the_last_quarter_of_the_seeds_passes() {
    quarter(3);
}

/// The first of the standard seeds that finds a planted bug, and what it says.
fn seeds_to_find(plant: Plant, at_most: u64) {
    let plants = Plants::default().with(plant);
    let found = (0..at_most).find_map(|seed| Some((seed, run(seed, plants).err()?)));
    match found {
        Some((seed, verdict)) => println!("{plant:?} is found by seed {seed}: {verdict}"),
        None => panic!("{plant:?} is planted, and {at_most} seeds do not find it"),
    }
}

#[test]
fn acknowledging_before_the_sync_is_found() {
    seeds_to_find(Plant::AcknowledgeBeforeSync, 100);
}

#[test]
fn accepting_a_torn_tail_is_found() {
    seeds_to_find(Plant::TornTailAccepted, 100);
}

#[test]
fn a_high_watermark_one_too_high_is_found() {
    seeds_to_find(Plant::HighWatermarkOneTooHigh, 150);
}

#[test]
fn appending_a_duplicate_is_found() {
    seeds_to_find(Plant::DuplicateAppendedTwice, 50);
}

#[test]
fn ignoring_a_failed_sync_is_found() {
    seeds_to_find(Plant::SyncErrorIgnored, 400);
}
