//! `planted`: how soon each known bug is found, and how far its failure shrinks. The table in docs/SIMULATION.md is
//! what this prints.

use crate::commands::{Done, needs_an_optimised_build_that_unwinds, write};
use crate::select::seed;
use crate::threads::{Progress, Span, each_seed, jobs_default};
use clap::Args;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tidelog_core::plant::{Plant, Plants};
use tidelog_sim::kept::{attempt, plant_named, plants_of_seeds, scenarios_for};
use tidelog_sim::minimise::{RUNS_MAX_DEFAULT, Shrunk, minimise};
use tidelog_sim::panics;
use tidelog_sim::scenario::Scenario;

/// Of this many failures, the one of median length is shrunk; those with fewer than [`EVENTS_MIN`] events have little
/// to shrink and do not count.
const FAILURES: usize = 40;
const EVENTS_MIN: u64 = 2_000;

#[derive(Args)]
pub struct Planted {
    /// The planted bugs [default: all that seeds can find].
    #[arg(value_parser = plant_named)]
    plants: Vec<Plant>,
    /// The first seed.
    #[arg(long, value_parser = seed, default_value = "0")]
    from: u64,
    /// How many seeds are run with each bug; with one that needs several nodes, so many that are clusters.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Threads [default: the machine's cores].
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Shrink a failure of each: the median of those of 2,000 events or more among the first forty, or else the
    /// longest.
    #[arg(long)]
    minimise: bool,
    /// Shrink, and write each shrunk scenario into this directory.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Shrink each failure with at most this many runs.
    #[arg(long, value_name = "N", default_value_t = RUNS_MAX_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

/// The result for one planted bug.
struct Row {
    plant: Plant,
    /// The seeds that find it.
    hits: Vec<Hit>,
    shrunk: Option<Shrunk>,
}

#[derive(Clone, Copy)]
struct Hit {
    /// How many seeds were run before it.
    place: u64,
    seed: u64,
    events: u64,
}

impl Row {
    /// A line of progress, printed before the table is there.
    fn line(&self) -> String {
        let found = format!("{:?}: {} seeds find it", self.plant, self.hits.len());
        match &self.shrunk {
            Some(Shrunk { events_before, events_after, runs, .. }) => {
                format!("{found}; {events_before} events -> {events_after}, in {runs} runs")
            }
            None => found,
        }
    }
}

impl Planted {
    pub fn run(&self) -> Done {
        needs_an_optimised_build_that_unwinds()?;
        if let Some(directory) = &self.keep {
            let failed = |error| format!("cannot make the directory {}: {error}", directory.display());
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        let plants = match self.plants.is_empty() {
            true => plants_of_seeds(),
            false => self.plants.clone(),
        };
        let jobs = self.jobs.unwrap_or_else(jobs_default);
        let span = Span { from: 0, seeds: Some(plants.len() as u64 * self.seeds), time: None, jobs };
        let progress = Progress::new(&span);
        let rows = Mutex::new(Vec::new());
        // Each bug is one thread's work from its first seed to its file. There are more bugs than cores.
        let bugs = Span { from: 0, seeds: Some(plants.len() as u64), ..span };
        each_seed(&bugs, |place| {
            panics::quiet(true);
            let row = self.search(plants[place as usize], &progress);
            progress.tell_line(&row.line());
            rows.lock().expect("nobody panics while it writes").push((place, row));
            true
        });
        progress.finish();
        let mut rows = rows.into_inner().expect("nobody panics while it writes");
        rows.sort_by_key(|(place, _)| *place);
        let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
        print!("{}", self.table(&rows));
        if let Some(directory) = &self.keep {
            self.write(directory, &rows)?;
        }
        Ok(rows.iter().all(|row| !row.hits.is_empty()))
    }

    fn search(&self, plant: Plant, progress: &Progress) -> Row {
        let plants = Plants::default().with(plant);
        let mut hits = Vec::new();
        for (place, scenario) in (0..self.seeds).zip(scenarios_for(plant, self.from)) {
            let outcome = attempt(&scenario, plants);
            progress.tell(outcome.events, outcome.violation.is_some());
            if outcome.violation.is_some() {
                hits.push(Hit { place, seed: scenario.seed, events: outcome.events });
            }
        }
        let is_shrunk = self.minimise || self.keep.is_some();
        let mut first: Vec<Hit> = hits.iter().copied().take(FAILURES).collect();
        first.sort_by_key(|hit| hit.events);
        let long = &first[first.partition_point(|hit| hit.events < EVENTS_MIN)..];
        let chosen = long.get(long.len() / 2).or(first.last()).filter(|_| is_shrunk);
        let shrunk = chosen.and_then(|hit| minimise(&Scenario::draw(hit.seed), plants, self.runs, &mut |_, _| {}));
        Row { plant, hits, shrunk }
    }

    fn table(&self, rows: &[Row]) -> String {
        let mut table = format!("| bug | found by, of {} seeds | median seeds to find it | first |", self.seeds);
        let with_shrunk = rows.iter().any(|row| row.shrunk.is_some());
        table.push_str(if with_shrunk { " a failure's events | shrunk to | times |\n" } else { "\n" });
        table.push_str(if with_shrunk { "|---|---|---|---|---|---|---|\n" } else { "|---|---|---|---|\n" });
        for row in rows {
            let places: Vec<u64> = row.hits.iter().map(|hit| hit.place).collect();
            let median = median_to_find(&places).map_or("-".into(), |median| median.to_string());
            let first = row.hits.first().map_or("-".into(), |hit| hit.seed.to_string());
            let _ = write!(table, "| `{:?}` | {} | {median} | {first} |", row.plant, places.len());
            if let Some(Shrunk { events_before, events_after, .. }) = &row.shrunk {
                let _ = write!(table, " {events_before} | {events_after} | {} |", events_before / events_after.max(&1));
            } else if with_shrunk {
                table.push_str(" - | - | - |");
            }
            table.push('\n');
        }
        table
    }

    fn write(&self, directory: &Path, rows: &[Row]) -> Result<(), String> {
        for (plant, shrunk) in rows.iter().filter_map(|row| Some((row.plant, row.shrunk.as_ref()?))) {
            let file = directory.join(format!("{plant:?}.json"));
            let text = serde_json::to_string_pretty(&shrunk.kept).expect("a scenario is data");
            write(&file, &(text + "\n"))?;
        }
        Ok(())
    }
}

/// How many seeds it takes to find the bug, as the median over all seeds to begin at. Seeds behind the last that finds
/// it are left out, since it is unknown how many more they would need.
fn median_to_find(hits: &[u64]) -> Option<u64> {
    let mut needed = Vec::new();
    let mut begin = 0;
    for hit in hits {
        needed.extend((begin..=*hit).map(|begin| hit - begin + 1));
        begin = hit + 1;
    }
    needed.sort_unstable();
    needed.get(needed.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_over_all_seeds_that_one_may_begin_at() {
        assert_eq!(median_to_find(&[]), None);
        assert_eq!(median_to_find(&[0, 1, 2]), Some(1));
        assert_eq!(median_to_find(&[9]), Some(5), "1 to 10, all as likely");
        assert_eq!(median_to_find(&[0, 3]), Some(1), "1; 3, 2, 1");
    }
}
