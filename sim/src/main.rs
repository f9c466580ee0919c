//! `tidelog-sim`: runs seeds of the simulated world.

use clap::{Args, Parser, Subcommand};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidelog_core::plant::{Plant, Plants};
use tidelog_sim::scenario::Scenario;
use tidelog_sim::trace::{Trace, Write};
use tidelog_sim::world::{self, Outcome};

#[derive(Parser)]
#[command(about = "Runs the real broker in a simulated world, where a seed decides everything that happens.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one seed and tell what came of it.
    Run {
        #[arg(long)]
        seed: u64,
        /// Write down every step, with the scenario at the top.
        #[arg(long)]
        trace: bool,
        #[command(flatten)]
        planted: Planted,
    },
    /// Print the rolling hash of seeds: the same in every process, or something is not deterministic.
    Hash {
        #[arg(long)]
        seed: u64,
        /// How many seeds, from this one on.
        #[arg(long, default_value_t = 1)]
        seeds: u64,
        /// Print the hash after each 1,024 events too, to find where two runs part.
        #[arg(long)]
        kept: bool,
    },
    /// Run many seeds, up to the first that fails.
    Loop {
        #[arg(long, default_value_t = 0)]
        from: u64,
        #[arg(long)]
        seeds: u64,
        /// Go on after a failure.
        #[arg(long)]
        keep_going: bool,
        #[command(flatten)]
        planted: Planted,
    },
    /// Print what a seed draws, as a file.
    Scenario {
        #[arg(long)]
        seed: u64,
    },
}

#[derive(Args)]
struct Planted {
    /// Switch a known bug on (several times for several).
    #[arg(long = "plant", value_name = "NAME", value_parser = plant)]
    plants: Vec<Plant>,
}

impl Planted {
    fn plants(&self) -> Plants {
        self.plants.iter().fold(Plants::default(), |plants, plant| plants.with(*plant))
    }
}

fn plant(name: &str) -> Result<Plant, String> {
    let names = || Plant::ALL.map(|plant| format!("{plant:?}")).join(", ");
    let found = Plant::ALL.into_iter().find(|plant| format!("{plant:?}").eq_ignore_ascii_case(&name.replace('-', "")));
    found.ok_or_else(|| format!("there is no such bug; there are {}", names()))
}

struct Stdout;

impl Write for Stdout {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        println!("{line}");
    }
}

fn main() -> ExitCode {
    // A panic of the core ends the process; the line that reproduces it must still be said.
    let current = Arc::new(AtomicU64::new(u64::MAX));
    let seed_of_panic = Arc::clone(&current);
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        match seed_of_panic.load(Ordering::Relaxed) {
            u64::MAX => {}
            seed => eprintln!("{}", tidelog_sim::reproduce(seed)),
        }
    }));
    let run = |seed: u64, plants: Plants, trace: Trace| {
        current.store(seed, Ordering::Relaxed);
        world::run(&Scenario::draw(seed), plants, trace)
    };
    match Cli::parse().command {
        Command::Run { seed, trace, planted } => {
            let trace = if trace { Trace::to(Box::new(Stdout)) } else { Trace::default() };
            let outcome = run(seed, planted.plants(), trace);
            for (name, count) in &outcome.counts {
                println!("{count:>8} {name}");
            }
            println!("{:>8} events in {} virtual ms", outcome.events, outcome.virtual_ns / 1_000_000);
            println!("hash {:016x}", outcome.hash);
            verdict(seed, &outcome)
        }
        Command::Hash { seed, seeds, kept } => {
            for seed in seed..seed.saturating_add(seeds) {
                let outcome = run(seed, Plants::default(), Trace::default());
                println!("seed {seed} events {} hash {:016x}", outcome.events, outcome.hash);
                for (place, hash) in outcome.kept.iter().enumerate().filter(|_| kept) {
                    println!("  event {:>8} {hash:016x}", (place as u64 + 1) * tidelog_sim::trace::KEPT_EVERY);
                }
            }
            ExitCode::SUCCESS
        }
        Command::Loop { from, seeds, keep_going, planted } => {
            let (mut events, mut failed) = (0, 0);
            for seed in from..from.saturating_add(seeds) {
                // Where the build unwinds, a panic is a failure like any other.
                let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, planted.plants(), Trace::default())));
                let passed = outcome.is_ok_and(|outcome| {
                    events += outcome.events;
                    verdict(seed, &outcome) == ExitCode::SUCCESS
                });
                if !passed {
                    failed += 1;
                    if !keep_going {
                        return ExitCode::FAILURE;
                    }
                }
            }
            println!("{seeds} seeds, {events} events, {failed} failed");
            if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Command::Scenario { seed } => {
            let scenario = serde_json::to_string_pretty(&Scenario::draw(seed)).expect("a scenario is data");
            println!("{scenario}");
            ExitCode::SUCCESS
        }
    }
}

fn verdict(seed: u64, outcome: &Outcome) -> ExitCode {
    match &outcome.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("FAILED {violation}\n{}", tidelog_sim::reproduce(seed));
            ExitCode::FAILURE
        }
    }
}
