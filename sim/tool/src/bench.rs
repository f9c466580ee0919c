//! `bench`: how fast the simulator is, and where its time goes.

use crate::commands::{Done, needs_an_optimised_build_that_unwinds};
use crate::select::{Options, seed};
use crate::threads::{Span, each_seed, jobs_default};
use clap::Args;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tidelog_sim::panics;
use tidelog_sim::trace::{Part, Stopwatch, Trace};
use tidelog_sim::world;

#[derive(Args)]
pub struct Bench {
    /// The first seed.
    #[arg(long, value_parser = seed, default_value = "0")]
    from: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Threads of the second measurement [default: the machine's cores].
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    #[command(flatten)]
    options: Options,
}

/// The sums over some seeds.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    seeds: u64,
    events: u64,
    virtual_ns: u64,
}

impl Bench {
    pub fn run(&self) -> Done {
        needs_an_optimised_build_that_unwinds()?;
        self.options.can_begin(self.from)?;
        let checks = if cfg!(debug_assertions) { "with every check" } else { "without debug assertions" };
        println!(
            "opt-level {}, {checks}; seeds {} to {}",
            tidelog_sim::OPT_LEVEL,
            self.from,
            self.from + self.seeds - 1
        );
        // A few seeds to warm up: the first ones are slower because the process has to get its memory.
        self.measure(1, Some(self.seeds.min(10)))?;
        self.measure(1, None)?.print("one core");
        let jobs = self.jobs.unwrap_or_else(jobs_default);
        if jobs > 1 {
            self.measure(jobs, None)?.print(&format!("{jobs} threads"));
        }
        self.print_shares()?;
        Ok(true)
    }

    fn measure(&self, jobs: usize, seeds: Option<u64>) -> Result<Measured, String> {
        let sum = Mutex::new(Sum::default());
        let span = Span { from: self.from, seeds: Some(seeds.unwrap_or(self.seeds)), time: None, jobs };
        let begin = Instant::now();
        each_seed(&span, |seed| {
            panics::quiet(true);
            let Ok(runnable) = self.options.of_seed(seed) else { return false };
            let outcome = world::run(&runnable.scenario, runnable.plants, Trace::default());
            let mut sum = sum.lock().expect("nobody panics while it adds");
            *sum = Sum {
                seeds: sum.seeds + 1,
                events: sum.events + outcome.events,
                virtual_ns: sum.virtual_ns + outcome.virtual_ns,
            };
            true
        });
        let sum = sum.into_inner().expect("nobody panics while it adds");
        Ok(Measured { sum, took: begin.elapsed() })
    }

    /// Runs the same seeds with a stopwatch that reads a clock whenever another part begins. That makes them slower, so
    /// only the shares mean anything.
    fn print_shares(&self) -> Result<(), String> {
        let times = Rc::new(RefCell::new([Duration::ZERO; PARTS.len()]));
        let mut events = 0;
        for seed in self.from..self.from + self.seeds {
            let runnable = self.options.of_seed(seed)?;
            let watch = Watch { times: Rc::clone(&times), part: Part::World, since: Instant::now() };
            let outcome = world::run(&runnable.scenario, runnable.plants, Trace::timed(Box::new(watch)));
            events += outcome.events;
        }
        let times = *times.borrow();
        let all: Duration = times.iter().sum();
        println!("where the time goes:");
        for ((_, what), time) in PARTS.iter().zip(times) {
            let share = time.as_nanos() * 1_000 / all.as_nanos().max(1);
            let each = time.as_nanos() / u128::from(events.max(1));
            println!("{:>5}.{} % {each:>7} ns an event  {what}", share / 10, share % 10);
        }
        Ok(())
    }
}

const PARTS: [(Part, &str); 6] = [
    (Part::World, "world: the heap of events, the rolling hash, codecs of responses"),
    (Part::Broker, "broker: the real one"),
    (Part::Disk, "disk"),
    (Part::Network, "network"),
    (Part::Clients, "clients, and their codec"),
    (Part::Checkers, "checkers, and what the broker asserts of itself after each step"),
];

struct Watch {
    times: Rc<RefCell<[Duration; PARTS.len()]>>,
    part: Part,
    since: Instant,
}

impl Stopwatch for Watch {
    fn enter(&mut self, part: Part) {
        let now = Instant::now();
        let place = PARTS.iter().position(|(of, _)| *of == self.part).expect("every part is in the list");
        self.times.borrow_mut()[place] += now - self.since;
        (self.part, self.since) = (part, now);
    }
}

struct Measured {
    sum: Sum,
    took: Duration,
}

impl Measured {
    fn print(&self, what: &str) {
        let ms = (self.took.as_millis() as u64).max(1);
        let Sum { seeds, events, virtual_ns } = self.sum;
        println!(
            "{what:>10}: {} events/s, {} seeds/min, {} times as fast as real time ({events} events of {} virtual s in {}.{} s)",
            events * 1_000 / ms,
            seeds * 60_000 / ms,
            virtual_ns / 1_000_000 / ms,
            virtual_ns / 1_000_000_000,
            ms / 1_000,
            ms % 1_000 / 100,
        );
    }
}
