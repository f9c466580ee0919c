//! `loop`: many seeds on many threads.

use crate::commands::{Done, needs_an_optimised_build_that_unwinds};
use crate::select::{Options, seed};
use crate::threads::{Progress, Span, each_seed, jobs_default};
use clap::Args;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidelog_sim::{kept, panics};

#[derive(Args)]
pub struct Loop {
    /// The first seed: a number or a git commit.
    #[arg(long, value_parser = seed, default_value = "0")]
    from: u64,
    /// How many seeds.
    #[arg(long, required_unless_present = "time")]
    seeds: Option<u64>,
    /// How long, such as 90s, 10m or 2h.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    time: Option<Duration>,
    /// Threads [default: the machine's cores].
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
    #[command(flatten)]
    options: Options,
}

fn time(text: &str) -> Result<Duration, String> {
    let split = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => 0,
    };
    match number.parse::<u64>() {
        Ok(number) if seconds > 0 => Ok(Duration::from_secs(number.saturating_mul(seconds))),
        _ => Err("a time is such as 90s, 10m or 2h".into()),
    }
}

impl Loop {
    pub fn run(&self) -> Done {
        needs_an_optimised_build_that_unwinds()?;
        // A wrong override is wrong for every seed: it is told once, before the loop.
        self.options.can_begin(self.from)?;
        let jobs = self.jobs.unwrap_or_else(jobs_default);
        let span = Span { from: self.from, seeds: self.seeds, time: self.time, jobs };
        let progress = Progress::new(&span);
        let failed = AtomicBool::new(false);
        each_seed(&span, |seed| {
            panics::quiet(true);
            let runnable = match self.options.of_seed(seed) {
                Ok(runnable) => runnable,
                Err(why) => {
                    progress.print(&format!("FAILED seed {seed}: {why}"));
                    failed.store(true, Ordering::Relaxed);
                    return self.keep_going;
                }
            };
            let outcome = kept::attempt(&runnable.scenario, runnable.plants);
            if let Some(violation) = &outcome.violation {
                progress.print(&format!("{}   # {violation}", runnable.reproduce()));
                failed.store(true, Ordering::Relaxed);
            }
            progress.tell(outcome.events, outcome.violation.is_some());
            outcome.violation.is_none() || self.keep_going
        });
        println!("{}", progress.finish());
        Ok(!failed.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(time("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(time("2h"), Ok(Duration::from_secs(7_200)));
        assert!(time("10x").is_err());
        assert!(time("m").is_err());
    }
}
