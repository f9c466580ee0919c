//! Runs a scenario for many seeds. Each seed runs twice, in threads of their own, and both runs must log the same.

use crate::world::World;
use madsim::runtime::Runtime;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The limit of a run in virtual time; a run that reaches it hangs.
const VIRTUAL_TIME_MAX: Duration = Duration::from_secs(600);

/// Everything that happened in a run, in order: packets, disk completions, what the clients saw.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn say(&self, what: fmt::Arguments<'_>) {
        let line = format!("{} {what}", crate::now_ns());
        self.0.lock().expect("a run has one thread").push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("a run has one thread"))
    }
}

/// Runs `scenario` for `SEEDS` seeds (50) from `BASE_SEED` (0) on.
pub fn check<F>(name: &str, scenario: fn(World) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let number = |variable: &str, default| {
        std::env::var(variable).map_or(default, |text| text.parse().expect("a number in the environment"))
    };
    let (seeds, base) = (number("SEEDS", 50), number("BASE_SEED", 0));
    for seed in base..base + seeds {
        let first = run(name, seed, scenario);
        let second = run(name, seed, scenario);
        if let Some(place) = (0..first.len().max(second.len())).find(|place| first.get(*place) != second.get(*place)) {
            let (first, second) = (first.get(place), second.get(place));
            panic!("two runs differ from entry {place} on:\n  {first:?}\n  {second:?}\n{}", reproduce(name, seed));
        }
        assert!(!first.is_empty(), "an empty log compares nothing");
    }
}

fn run<F>(name: &str, seed: u64, scenario: fn(World) -> F) -> Vec<String>
where
    F: Future<Output = ()> + 'static,
{
    let log = Log::default();
    let written = log.clone();
    // A new thread, because the standard library draws some randomness once for each thread (the order of a `HashMap`),
    // which then follows the seed.
    let thread = std::thread::spawn(move || {
        let mut runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
        runtime.set_time_limit(VIRTUAL_TIME_MAX);
        runtime.block_on(async move { scenario(World::new(seed, log)).await });
    });
    let outcome = thread.join();
    let lines = written.take();
    if let Err(panic) = outcome {
        for line in &lines[lines.len().saturating_sub(20)..] {
            eprintln!("  {line}");
        }
        eprintln!("{}", reproduce(name, seed));
        std::panic::resume_unwind(panic);
    }
    lines
}

fn reproduce(name: &str, seed: u64) -> String {
    format!("BASE_SEED={seed} SEEDS=1 cargo madsim -- {name}")
}
