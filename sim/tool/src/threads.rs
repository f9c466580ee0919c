//! Runs many seeds on several threads. Each world belongs to one thread; the simulator itself has no threads.

use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Which seeds are run, and for how long.
pub struct Span {
    /// The first seed.
    pub from: u64,
    /// How many seeds. `None`: no limit.
    pub seeds: Option<u64>,
    /// After this time no seed begins. `None`: no limit.
    pub time: Option<Duration>,
    /// How many threads.
    pub jobs: usize,
}

pub fn jobs_default() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Hands out seeds to the threads until they are used up, time is up, or `work` returns `false`; what other threads
/// have begun then is finished. Gives how many were run.
pub fn each_seed(span: &Span, work: impl Fn(u64) -> bool + Sync) -> u64 {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let begin = Instant::now();
    let is_over = |place: u64| {
        stop.load(Ordering::Relaxed)
            || span.seeds.is_some_and(|seeds| place >= seeds)
            || span.time.is_some_and(|time| begin.elapsed() >= time)
    };
    let run = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..span.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if is_over(place) {
                        break;
                    }
                    run.fetch_add(1, Ordering::Relaxed);
                    if !work(span.from.wrapping_add(place)) {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    run.into_inner()
}

/// A progress bar on the standard error, if that is a terminal.
pub struct Progress {
    bar: ProgressBar,
    begin: Instant,
    by_time: Option<Duration>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    seeds: u64,
    events: u64,
    failures: u64,
}

impl Progress {
    pub fn new(span: &Span) -> Self {
        let length = span.time.map(|time| time.as_millis() as u64).or(span.seeds);
        let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let template = "{elapsed_precise} [{bar:30}] {msg}";
        bar.set_style(ProgressStyle::with_template(template).expect("a template").progress_chars("=> "));
        bar.set_draw_target(indicatif::ProgressDrawTarget::stderr_with_hz(5));
        Self { bar, begin: Instant::now(), by_time: span.time, told: Mutex::default() }
    }

    /// Counts a seed that was run, and draws the bar anew.
    pub fn tell(&self, events: u64, failed: bool) {
        let mut told = self.told.lock().expect("nobody panics while it tells");
        told.seeds += 1;
        told.events += events;
        told.failures += u64::from(failed);
        if self.bar.is_hidden() {
            return;
        }
        let ms = (self.begin.elapsed().as_millis() as u64).max(1);
        let (seeds, failures) = (told.seeds, told.failures);
        let (seed_rate, event_rate) = (seeds * 1_000 / ms, told.events * 1_000 / ms);
        self.bar.set_message(format!("{seeds} seeds, {seed_rate}/s, {event_rate} events/s, {failures} failed"));
        self.bar.set_position(if self.by_time.is_some() { ms } else { seeds });
    }

    /// Prints a line above the bar, on the standard output.
    pub fn print(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
    }

    /// Prints a line above the bar, on the standard error: it is progress and no result.
    pub fn tell_line(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Removes the bar, and gives the last line: what was run, and how fast.
    pub fn finish(&self) -> String {
        self.bar.finish_and_clear();
        let told = self.told.lock().expect("nobody panics while it tells");
        let ms = (self.begin.elapsed().as_millis() as u64).max(1);
        format!(
            "{} seeds, {} events, {} failed, in {}.{} s: {} seeds/min, {} events/s",
            told.seeds,
            told.events,
            told.failures,
            ms / 1_000,
            ms % 1_000 / 100,
            told.seeds * 60_000 / ms,
            told.events * 1_000 / ms,
        )
    }
}
