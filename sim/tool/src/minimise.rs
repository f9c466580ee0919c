//! `minimise`: shrinks a failing scenario.

use crate::commands::{Done, can_write, needs_an_optimised_build_that_unwinds, write};
use crate::select::{Selected, program};
use clap::Args;
use std::io::{IsTerminal, stderr};
use tidelog_sim::{minimise, panics};

#[derive(Args)]
pub struct Minimise {
    #[command(flatten)]
    selected: Selected,
    /// Where to write the shrunk scenario [default: the standard output].
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,
    /// Run the scenario, whole or in part, at most this often.
    #[arg(long, value_name = "N", default_value_t = minimise::RUNS_MAX_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

impl Minimise {
    pub fn run(&self) -> Done {
        needs_an_optimised_build_that_unwinds()?;
        let runnable = self.selected.runnable()?;
        if let Some(file) = &self.output {
            can_write(file)?;
        }
        panics::quiet(true);
        let is_terminal = stderr().is_terminal();
        let mut tell = |what: &str, events: u64| {
            if is_terminal {
                eprint!("\r\x1b[K{events} events, {what}");
            }
        };
        let shrunk = minimise::minimise(&runnable.scenario, runnable.plants, self.runs, &mut tell);
        if is_terminal {
            eprint!("\r\x1b[K");
        }
        let Some(shrunk) = shrunk else {
            return Err(format!("it does not fail: {}", runnable.reproduce()));
        };
        let text = serde_json::to_string_pretty(&shrunk.kept).expect("a scenario is data");
        let (before, after) = (shrunk.events_before, shrunk.events_after);
        let finds = shrunk.kept.finds.as_deref().unwrap_or_default();
        eprintln!("{before} events -> {after}, in {} runs; it finds: {finds}", shrunk.runs);
        match &self.output {
            Some(file) => {
                write(file, &(text + "\n"))?;
                eprintln!("{} run {file} --trace", program());
            }
            None => println!("{text}"),
        }
        Ok(true)
    }
}
