//! Every known bug that can be planted is found, within so many of the standard seeds.
//!
//! `cargo test -p tidelog-sim --test planted -- --nocapture` prints by which seed, and what it says.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test is a part of the real world: threads")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use tidelog_core::plant::{Plant, Plants};
use tidelog_sim::scenario::Scenario;
use tidelog_sim::trace::Trace;
use tidelog_sim::world;

/// Within how many seeds each is found. Most take a few; a seed's meaning changes with what seeds draw.
const SEEDS_AT_MOST: u64 = 600;

/// What no client asks for yet.
const NOT_YET: &[Plant] = &[
    // Topics are created once, at the start.
    Plant::MetadataCommittedBeforeSync,
    // No producer takes another's place.
    Plant::ZombieProducerAccepted,
    // Nobody asks for the end of an epoch.
    Plant::EpochStartNotRecorded,
];

/// The first seed that finds a planted bug, and what it says.
fn first_to_find(plant: Plant) -> Option<(u64, String)> {
    let plants = Plants::default().with(plant);
    (0..SEEDS_AT_MOST).find_map(|seed| {
        let run = || world::run(&Scenario::draw(seed), plants, Trace::default());
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(outcome) => outcome.violation.map(|violation| (seed, violation.to_string())),
            Err(panic) => Some((seed, text_of(panic.as_ref()))),
        }
    })
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_string()
}

#[test]
fn every_planted_bug_is_found() {
    let searched: Vec<Plant> = Plant::ALL.iter().copied().filter(|plant| !NOT_YET.contains(plant)).collect();
    let next = AtomicUsize::new(0);
    // What the planted bugs make panic is what is asked for.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let missed: Vec<String> = std::thread::scope(|scope| {
        let search = || {
            let mut missed = Vec::new();
            while let Some(plant) = searched.get(next.fetch_add(1, Ordering::Relaxed)) {
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
    std::panic::set_hook(report);
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
