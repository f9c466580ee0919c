//! The commands for one run: `run`, `replay` and `hash`.

use crate::commands::{Done, install_panics};
use crate::select::{Options, Runnable, Selected, seed};
use crate::sinks::{Full, Remains, Short, Window};
use clap::{Args, ValueEnum};
use tidelog_sim::trace::{KEPT_EVERY, Trace};
use tidelog_sim::world::{self, Outcome};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// One dense line for each input, output, fact and fault.
    Short,
    /// One JSON object for each thing that happens: the number of its event and of the event that caused it, its time,
    /// place, kind, key and text, and for a change the text before and after.
    Full,
}

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    selected: Selected,
    /// Print what happens, with the scenario at the top and the state of nodes, disks and clients at the end.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "short")]
    trace: Option<Form>,
    /// Stop before this event, and show the state of nodes, disks and clients.
    #[arg(long, value_name = "N")]
    until_event: Option<u64>,
}

impl Run {
    pub fn run(&self) -> Done {
        let runnable = self.selected.runnable()?;
        let trace = match self.trace {
            Some(Form::Short) => Trace::to(Box::new(Short::new())),
            Some(Form::Full) => Trace::to(Box::new(Full::new())),
            None if self.until_event.is_some() => Trace::to(Box::new(Remains::default())),
            None => Trace::default(),
        };
        let outcome = run_one(&runnable, trace.until(self.until_event));
        // A full trace is for programs: nothing but JSON on the standard output.
        if !matches!(self.trace, Some(Form::Full)) {
            for (name, count) in &outcome.counts {
                println!("{count:>8} {name}");
            }
            println!("{:>8} events in {} virtual ms", outcome.events, outcome.virtual_ns / 1_000_000);
            println!("hash {:016x}", outcome.hash);
        }
        Ok(verdict(&runnable, &outcome, matches!(self.trace, Some(Form::Full))))
    }
}

#[derive(Args)]
pub struct Replay {
    /// The file of a scenario.
    file: String,
    #[command(flatten)]
    options: Options,
}

impl Replay {
    pub fn run(&self) -> Done {
        let selected = Selected { seed: None, file: Some(self.file.clone()), options: self.options.clone() };
        let runnable = selected.runnable()?;
        let outcome = run_one(&runnable, Trace::default());
        println!(
            "{} events in {} virtual ms, hash {:016x}",
            outcome.events,
            outcome.virtual_ns / 1_000_000,
            outcome.hash
        );
        match (&runnable.finds, &outcome.violation) {
            (Some(wanted), Some(found)) if found.fingerprint() == *wanted => {
                println!("found what the file expects: {found}");
                Ok(true)
            }
            (Some(wanted), None) => {
                println!("FAILED the file expects a violation, and the run has none: {wanted}");
                Ok(false)
            }
            (Some(wanted), Some(_)) => {
                println!("the file expects another violation: {wanted}");
                Ok(verdict(&runnable, &outcome, false))
            }
            (None, _) => Ok(verdict(&runnable, &outcome, false)),
        }
    }
}

#[derive(Args)]
pub struct Hash {
    #[arg(long, value_parser = seed, required_unless_present = "file", conflicts_with = "file")]
    seed: Option<u64>,
    /// A scenario's file instead of a seed.
    file: Option<String>,
    /// How many seeds to run, beginning with `--seed`.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Print the hash after each 1,024 events too, to find where two runs begin to differ.
    #[arg(long)]
    kept: bool,
    /// Print one JSON object for each event in this range: its number, the hash after it, and what happened in it.
    #[arg(long, value_name = "FROM..TO", value_parser = range)]
    each: Option<std::ops::Range<u64>>,
    #[command(flatten)]
    options: Options,
}

fn range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed.ok_or_else(|| "a range of events is FROM..TO".into())
}

impl Hash {
    pub fn run(&self) -> Done {
        let first = self.seed.unwrap_or_default();
        for seed in first..first.saturating_add(self.seeds) {
            let seed = self.file.is_none().then_some(seed);
            let selected = Selected { seed, file: self.file.clone(), options: self.options.clone() };
            let runnable = selected.runnable()?;
            if let Some(range) = &self.each {
                let (window, shown) = Window::new(range.clone());
                run_one(&runnable, Trace::to(Box::new(window)).until(Some(range.end)));
                for shown in shown.borrow().iter() {
                    let (event, lines) = (shown.event, &shown.lines);
                    let hash = format!("{:016x}", shown.hash);
                    println!("{}", serde_json::json!({ "event": event, "hash": hash, "lines": lines }));
                }
                continue;
            }
            let outcome = run_one(&runnable, Trace::default());
            let seed = runnable.scenario.seed;
            println!("seed {seed} events {} hash {:016x}", outcome.events, outcome.hash);
            for (place, hash) in outcome.kept.iter().enumerate().filter(|_| self.kept) {
                println!("  event {:>8} {hash:016x}", (place as u64 + 1) * KEPT_EVERY);
            }
        }
        Ok(true)
    }
}

/// Runs the scenario in this thread. If a panic ends the process, the command line that runs the scenario again is
/// printed first.
pub fn run_one(runnable: &Runnable, trace: Trace) -> Outcome {
    let line = runnable.reproduce();
    install_panics(move || {
        if cfg!(panic = "abort") {
            eprintln!("{line}");
        }
    });
    world::run(&runnable.scenario, runnable.plants, trace)
}

/// Prints the violation and the command line that runs the scenario again, if there is a violation. Returns whether
/// there is none.
fn verdict(runnable: &Runnable, outcome: &Outcome, aside: bool) -> bool {
    let Some(violation) = &outcome.violation else { return true };
    let text = format!("FAILED {violation}\n{}", runnable.reproduce());
    if aside {
        eprintln!("{text}");
    } else {
        println!("{text}");
    }
    false
}
