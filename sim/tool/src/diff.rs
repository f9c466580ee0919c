//! `diff`: finds the first event in which two runs differ.
//!
//! Each run is in a process of its own, perhaps of another build. The rolling hash covers everything before it, so two
//! runs that differ in one kept hash differ in all later ones. The first such hash is found by bisection, and only the
//! 1,024 events before it are run again with their lines.

use crate::commands::Done;
use crate::select::{Options, Selected};
use clap::Args;
use serde::Deserialize;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use tidelog_sim::trace::KEPT_EVERY;

/// How many events before the first difference are shown.
const CONTEXT: usize = 5;

#[derive(Args)]
pub struct Diff {
    #[command(flatten)]
    selected: Selected,
    /// How many seeds, from this one on.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The other run is made by this build of `tidelog-sim`.
    #[arg(long, value_name = "BINARY")]
    with: Option<PathBuf>,
    /// The other run is of this scenario file.
    #[arg(long, value_name = "FILE")]
    with_file: Option<String>,
    /// The other run has this known bug too.
    #[arg(long, value_name = "NAME", value_parser = tidelog_sim::kept::plant_named)]
    with_plant: Vec<tidelog_core::plant::Plant>,
    /// The other run has this option of the scenario set, as by --override.
    #[arg(long, value_name = "PATH=VALUE")]
    with_override: Vec<String>,
}

/// One of the two runs: a build, and its arguments.
#[derive(Debug)]
struct Side {
    name: &'static str,
    binary: PathBuf,
    arguments: Vec<String>,
}

/// What `hash --kept` says of one seed.
#[derive(Debug, PartialEq, Eq)]
struct Hashes {
    seed: u64,
    events: u64,
    hash: String,
    kept: Vec<String>,
}

/// What `hash --each` says of one event.
#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Event {
    event: u64,
    hash: String,
    lines: Vec<String>,
}

impl Diff {
    pub fn run(&self) -> Done {
        let sides = self.sides()?;
        for side in &sides {
            println!("{}: {} {}", side.name, side.binary.display(), side.arguments.join(" "));
        }
        let first = self.selected.seed.unwrap_or_default();
        let seeds = if self.selected.seed.is_some() { self.seeds } else { 1 };
        // Each pair of processes runs 16 seeds at most, so that a difference in an early seed is told soon.
        let mut from = first;
        while from < first.saturating_add(seeds) {
            let count = (first + seeds - from).min(16);
            let more = |seed: u64| match self.selected.seed {
                Some(_) => vec!["--seed".to_string(), seed.to_string(), "--seeds".to_string(), count.to_string()],
                None => Vec::new(),
            };
            let [one, other] = both(&sides, |side| side.hashes(&more(from)))?;
            if one.len() != other.len() {
                return Err(format!(
                    "{} runs against {}: one of the builds does not know `hash`",
                    one.len(),
                    other.len()
                ));
            }
            if let Some((one, other)) = one.iter().zip(&other).find(|(one, other)| one != other) {
                return self.show(&sides, one, other);
            }
            from += count;
        }
        println!("{seeds} {}", if seeds == 1 { "run is the same in both" } else { "runs are the same in both" });
        Ok(true)
    }

    fn sides(&self) -> Result<[Side; 2], String> {
        let own = std::env::current_exe().map_err(|error| format!("this binary has no path: {error}"))?;
        let options = self.selected.options.words();
        let file = self.selected.file.iter().cloned();
        let one = Side { name: "A", binary: own.clone(), arguments: file.clone().chain(options.clone()).collect() };
        let file = self.with_file.iter().cloned().chain(file).take(1);
        let changed = Options { plants: self.with_plant.clone(), overrides: self.with_override.clone() };
        let arguments = file.chain(options).chain(changed.words()).collect();
        let other = Side { name: "B", binary: self.with.clone().unwrap_or(own), arguments };
        if self.with_file.is_some() && self.selected.file.is_none() {
            return Err("a file is compared with a file: `diff ONE --with-file OTHER`".into());
        }
        Ok([one, other])
    }

    /// Looks for the first event that differs, and shows it.
    fn show(&self, sides: &[Side; 2], one: &Hashes, other: &Hashes) -> Done {
        let range = differing_range(one, other);
        let mut more = vec!["--each".to_string(), format!("{}..{}", range.start, range.end)];
        if self.selected.seed.is_some() {
            more.extend(["--seed".to_string(), one.seed.to_string()]);
        }
        let [these, those] = both(sides, |side| side.events(&more))?;
        let same = these.iter().zip(&those).take_while(|(this, that)| this.hash == that.hash).count();
        println!("seed {}: {} events in A, {} in B", one.seed, one.events, other.events);
        for event in &these[same.saturating_sub(CONTEXT)..same] {
            event.print(" ");
        }
        match (these.get(same), those.get(same)) {
            (Some(this), Some(that)) => {
                println!("they part at event {}:", this.event);
                this.print("A");
                that.print("B");
                if this.lines == that.lines {
                    println!("(the lines are the same: the bytes behind them are not)");
                }
            }
            (Some(this), None) => {
                println!("B ends before event {}:", this.event);
                this.print("A");
            }
            (None, Some(that)) => {
                println!("A ends before event {}:", that.event);
                that.print("B");
            }
            (None, None) => return Err("a second run of the same seeds did not differ: run it again".into()),
        }
        Ok(false)
    }
}

impl Side {
    fn output(&self, more: &[String]) -> Result<String, String> {
        let mut command = Command::new(&self.binary);
        command.arg("hash").args(&self.arguments).args(more).stdin(Stdio::null());
        let shown = format!("{} {}: {command:?}", self.name, "failed");
        let output = command.output().map_err(|error| format!("{shown}: {error}"))?;
        if !output.status.success() {
            return Err(format!("{shown}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
        }
        String::from_utf8(output.stdout).map_err(|error| format!("{shown}: {error}"))
    }

    fn hashes(&self, more: &[String]) -> Result<Vec<Hashes>, String> {
        let more: Vec<String> = more.iter().cloned().chain(["--kept".to_string()]).collect();
        parse_hashes(&self.output(&more)?)
    }

    fn events(&self, more: &[String]) -> Result<Vec<Event>, String> {
        let text = self.output(more)?;
        let parsed: Result<Vec<Event>, _> = text.lines().map(serde_json::from_str).collect();
        parsed.map_err(|error| format!("{} says something else than events: {error}", self.name))
    }
}

impl Event {
    fn print(&self, mark: &str) {
        for line in &self.lines {
            println!("{mark} {line}");
        }
    }
}

/// Does the same for both sides at once.
fn both<T: Send>(sides: &[Side; 2], work: impl Fn(&Side) -> Result<T, String> + Sync) -> Result<[T; 2], String> {
    let (one, other) = thread::scope(|scope| {
        let other = scope.spawn(|| work(&sides[1]));
        (work(&sides[0]), other.join().expect("a side does not panic"))
    });
    Ok([one?, other?])
}

fn parse_hashes(text: &str) -> Result<Vec<Hashes>, String> {
    let mut all: Vec<Hashes> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), all.last_mut()) {
            (["seed", seed, "events", events, "hash", hash], _) => {
                let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{line}: {error}"));
                let (seed, events) = (number(seed)?, number(events)?);
                all.push(Hashes { seed, events, hash: hash.to_string(), kept: Vec::new() });
            }
            (["event", _, hash], Some(last)) => last.kept.push(hash.to_string()),
            _ => return Err(format!("this is no hash: {line}")),
        }
    }
    Ok(all)
}

/// The range of events in which the first different one must be.
fn differing_range(one: &Hashes, other: &Hashes) -> std::ops::Range<u64> {
    let both = one.kept.iter().zip(&other.kept).collect::<Vec<_>>();
    let same = both.partition_point(|(one, other)| one == other) as u64;
    let end = one.events.max(other.events).min((same + 1) * KEPT_EVERY);
    // Some events before it are included, to be shown with it.
    (same * KEPT_EVERY).saturating_sub(CONTEXT as u64)..end.max(same * KEPT_EVERY + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(events: u64, parts_at: u64) -> Hashes {
        let of = |event: u64| format!("{event} {}", event > parts_at);
        let kept = (1..=events / KEPT_EVERY).map(|place| of(place * KEPT_EVERY)).collect();
        Hashes { seed: 1, events, hash: of(events), kept }
    }

    #[test]
    fn the_range_with_the_first_difference_is_found_wherever_it_is() {
        let events = 10 * KEPT_EVERY + 17;
        for parts_at in [0, 1, 1_022, 1_023, 1_024, 5_000, 10_239, 10_240, 10_250] {
            let range = differing_range(&run(events, u64::MAX), &run(events, parts_at));
            assert!(range.contains(&parts_at), "{parts_at} is in {range:?}");
            assert!(range.end - range.start <= KEPT_EVERY + CONTEXT as u64);
        }
    }

    #[test]
    fn where_one_run_is_only_longer_its_first_event_more_is_in_the_range() {
        for events in [0, 100, 1_023, 1_024, 1_025, 4_096] {
            let range = differing_range(&run(events, u64::MAX), &run(9_000, u64::MAX));
            assert!(range.contains(&events), "{events} is in {range:?}");
        }
    }

    #[test]
    fn hashes_are_read_as_they_are_printed() {
        let text = "seed 7 events 2049 hash 0a\n  event     1024 0b\n  event     2048 0c\nseed 8 events 3 hash 0d\n";
        let hashes = parse_hashes(text).unwrap();
        assert_eq!(hashes[0].kept, ["0b", "0c"]);
        assert_eq!((hashes[1].seed, hashes[1].events, hashes[1].hash.as_str()), (8, 3, "0d"));
        assert!(parse_hashes("thread main panicked").is_err());
    }
}
