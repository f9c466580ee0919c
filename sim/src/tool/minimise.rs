//! `minimise`: a failing scenario, as small as it gets.

use super::select::{Selected, program};
use super::{Done, needs_an_optimised_build_that_unwinds};
use clap::Args;
use std::io::{IsTerminal, stderr};
use tidelog_sim::{minimise, panics};

#[derive(Args)]
pub struct Minimise {
    #[command(flatten)]
    selected: Selected,
    /// Where to write the shrunk scenario; the standard output if not told.
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,
    /// At most about so many runs.
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    runs: u32,
}

impl Minimise {
    pub fn run(&self) -> Done {
        needs_an_optimised_build_that_unwinds()?;
        let runnable = self.selected.runnable()?;
        panics::install(|| {});
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
                std::fs::write(file, text + "\n").map_err(|error| format!("{file}: {error}"))?;
                eprintln!("{} run {file} --trace", program());
            }
            None => println!("{text}"),
        }
        Ok(true)
    }
}
