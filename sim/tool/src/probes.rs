//! `probes`: which probes of the core some seeds reach, and which attacks of the hostile client they see withstood.

use crate::commands::{Done, needs_an_optimised_build_that_unwinds};
use crate::select::{Options, seed};
use crate::threads::{Progress, Span, each_seed, jobs_default};
use clap::Args;
use std::collections::BTreeMap;
use std::sync::Mutex;
use tidelog_core::probe::Probe;
use tidelog_sim::{kept, panics};

#[derive(Args)]
pub struct Probes {
    /// The first seed: a number or a git commit.
    #[arg(long, value_parser = seed, default_value = "0")]
    from: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// Threads [default: the machine's cores].
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    #[command(flatten)]
    options: Options,
}

/// By name: by how many seeds it was reached, and how often.
type Reached = BTreeMap<&'static str, (u64, u64)>;

impl Probes {
    pub fn run(&self) -> Done {
        needs_an_optimised_build_that_unwinds()?;
        self.options.can_begin(self.from)?;
        let jobs = self.jobs.unwrap_or_else(jobs_default);
        let span = Span { from: self.from, seeds: Some(self.seeds), time: None, jobs };
        let progress = Progress::new(&span);
        let reached: Mutex<(Reached, Reached)> = Mutex::default();
        each_seed(&span, |seed| {
            panics::quiet(true);
            let Ok(runnable) = self.options.of_seed(seed) else { return true };
            let outcome = kept::attempt(&runnable.scenario, runnable.plants);
            progress.tell(outcome.events, outcome.violation.is_some());
            let mut reached = reached.lock().expect("nobody panics while it counts");
            count(&mut reached.0, &outcome.probes);
            count(&mut reached.1, &outcome.attacks);
            true
        });
        let (mut probes, attacks) = reached.into_inner().expect("nobody panics while it counts");
        for probe in Probe::ALL {
            probes.entry(probe.name()).or_default();
        }
        println!("{:>8} {:>10}  probe", "seeds", "times");
        probes.iter().for_each(line);
        println!("{:>8} {:>10}  attack withstood", "seeds", "times");
        attacks.iter().for_each(line);
        let missed = probes.values().filter(|(seeds, _)| *seeds == 0).count();
        println!("{}\n{missed} of {} probes were not reached", progress.finish(), probes.len());
        Ok(missed == 0)
    }
}

fn count(reached: &mut Reached, of_seed: &BTreeMap<&'static str, u64>) {
    for (name, times) in of_seed {
        let (seeds, all) = reached.entry(name).or_default();
        *seeds += 1;
        *all += times;
    }
}

fn line((name, (seeds, times)): (&&str, &(u64, u64))) {
    println!("{seeds:>8} {times:>10}  {name}");
}
