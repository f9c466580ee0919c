//! The commands of `tidelog-sim`. Each returns whether all was well, or what cannot be done.

mod bench;
mod describe;
mod diff;
mod loops;
mod minimise;
mod planted;
mod probes;
mod run;
mod select;
mod sinks;
mod threads;
mod view;

use clap::{Parser, Subcommand};
use select::Selected;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Runs the real broker in a simulated world, where a seed decides everything that happens.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one seed, or one file, and tell what came of it.
    Run(run::Run),
    /// Run a file that `minimise` or `scenario` has written; fail if it does not do what the file says.
    Replay(run::Replay),
    /// Run many seeds, up to the first that fails.
    Loop(loops::Loop),
    /// Shrink a failing seed or file to as few events as can be, for the same failure.
    Minimise(minimise::Minimise),
    /// Write a run as one page, to look at in a browser.
    View(view::View),
    /// Tell how soon each known bug is found, and how far its failure shrinks.
    Planted(planted::Planted),
    /// Measure how fast it is, and where the time goes.
    Bench(bench::Bench),
    /// Find the first event in which two runs, or two builds, differ.
    Diff(diff::Diff),
    /// Print the rolling hash of seeds: the same in every process, or something is not deterministic.
    Hash(run::Hash),
    /// Tell which named places of the core some seeds reach; fail if they miss one.
    Probes(probes::Probes),
    /// Print what a seed draws, as a file.
    Scenario {
        #[command(flatten)]
        selected: Selected,
    },
}

/// Whether all was well, or why it cannot be done.
type Done = Result<bool, String>;

pub fn main() -> ExitCode {
    end_with_the_reader();
    let done = match Cli::parse().command {
        Command::Run(run) => run.run(),
        Command::Replay(replay) => replay.run(),
        Command::Loop(command) => command.run(),
        Command::Minimise(minimise) => minimise.run(),
        Command::View(view) => view.run(),
        Command::Planted(planted) => planted.run(),
        Command::Bench(bench) => bench.run(),
        Command::Diff(diff) => diff.run(),
        Command::Hash(hash) => hash.run(),
        Command::Probes(probes) => probes.run(),
        Command::Scenario { selected } => scenario(&selected),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

/// From now on the process ends without a word once nobody reads what it prints any more, such as `head` or `less`.
fn end_with_the_reader() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to std") && text.contains("Broken pipe") {
            std::process::exit(0);
        }
        report(info);
    }));
}

fn scenario(selected: &Selected) -> Done {
    let runnable = selected.runnable()?;
    println!("{}", serde_json::to_string_pretty(&runnable.scenario).expect("a scenario is data"));
    Ok(true)
}

/// Where a panic ends the process, what needs many runs cannot work.
fn needs_an_optimised_build_that_unwinds() -> Result<(), String> {
    if env!("TIDELOG_OPT_LEVEL") == "0" {
        return Err("this build is not optimised, and would take many times as long; use `cargo sim`".into());
    }
    if cfg!(panic = "abort") {
        return Err("in this build the first panic ends the process; use `cargo sim`".into());
    }
    Ok(())
}
