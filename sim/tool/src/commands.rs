//! The commands of `tidelog-sim`.

use crate::select::Selected;
use crate::{bench, diff, loops, minimise, planted, probes, run, view};
use clap::{Parser, Subcommand};
use std::path::Path;
use std::process::ExitCode;
use tidelog_sim::panics;

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
    /// Write a run as a page to look at in a browser.
    View(view::View),
    /// Tell how soon each known bug is found, and how far its failure shrinks.
    Planted(planted::Planted),
    /// Measure how fast it is, and where the time goes.
    Bench(bench::Bench),
    /// Find the first event in which two runs, or two builds, differ.
    Diff(diff::Diff),
    /// Print the rolling hash of seeds. It must be the same in every process.
    Hash(run::Hash),
    /// Tell which probes of the core some seeds reach; fail if one is not reached.
    Probes(probes::Probes),
    /// Print the scenario that a seed draws, as JSON for a file.
    Scenario {
        #[command(flatten)]
        selected: Selected,
    },
}

/// The result of a command: whether it found nothing wrong, or why it could not be carried out.
pub type Done = Result<bool, String>;

pub fn main() -> ExitCode {
    install_panics(|| {});
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

/// Calls [`panics::install`], and keeps the hook of [`end_with_the_reader`] in front of it.
pub fn install_panics(said: impl Fn() + Send + Sync + 'static) {
    panics::install(said);
    // The hook that is set last is called first. It must see the panic of a failed print before a quiet thread drops
    // it.
    end_with_the_reader();
}

/// From now on the process ends quietly once the reader of its output (`head`, `less`) has closed the pipe. `println!`
/// panics then, and the hook that is set here ends the process.
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

/// Whether a file can be written here. Commands ask this before they begin: what they would write may take minutes.
pub fn can_write(file: impl AsRef<Path>) -> Result<(), String> {
    let file = file.as_ref();
    if file.is_dir() {
        return Err(format!("cannot write {}: it is a directory", file.display()));
    }
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            Err(format!("cannot write {}: there is no directory {}", file.display(), parent.display()))
        }
        _ => Ok(()),
    }
}

pub fn write(file: impl AsRef<Path>, text: &str) -> Result<(), String> {
    let file = file.as_ref();
    std::fs::write(file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))
}

fn scenario(selected: &Selected) -> Done {
    let runnable = selected.runnable()?;
    println!("{}", serde_json::to_string_pretty(&runnable.scenario).expect("a scenario is data"));
    Ok(true)
}

/// Commands that run many seeds refuse to work in a build in which they would take too long, or in which a panic of the
/// core would end the process.
pub fn needs_an_optimised_build_that_unwinds() -> Result<(), String> {
    if tidelog_sim::OPT_LEVEL == "0" {
        return Err("this build is not optimised, and would take many times as long; use `cargo sim`".into());
    }
    if cfg!(panic = "abort") {
        return Err("in this build the first panic ends the process; use `cargo sim`".into());
    }
    Ok(())
}
