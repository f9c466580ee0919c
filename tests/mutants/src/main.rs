//! Mutation testing in minutes. `cargo mutants` knows how code is mutated, and builds and tests each mutant by itself,
//! which for this project takes days. Here all of its mutants are woven into one copy of the tree, and each test
//! process chooses one by the environment variable `MUTANT`.
//!
//! ```text
//! git clone . /tmp/woven
//! cargo mutants --list --json -p tidelog-core -f 'core/src/storage/**/*.rs' > /tmp/mutants.json
//! cargo run --release -- weave --list /tmp/mutants.json --tree /tmp/woven        # until the tree compiles
//! cargo run --release -- judge --list /tmp/mutants.json --tree /tmp/woven        # survivors by name, and the score
//! ```

mod list;
mod weave;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use list::{Genre, Mutant};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Action,
    /// What `cargo mutants --list --json` has printed of the tree.
    #[arg(long, global = true, default_value = "mutants.json")]
    list: PathBuf,
    /// A copy of the tree, which is changed.
    #[arg(long, global = true, default_value = "woven")]
    tree: PathBuf,
}

#[derive(Subcommand)]
enum Action {
    /// Put all mutants into the tree, but those that do not compile.
    Weave,
    /// Ask of each mutant the unit tests, the simulator's scripted tests and its seeds.
    Judge {
        /// How many seeds the simulator runs for a mutant that the unit tests have let pass; 0: unit tests alone.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// Only every so many-th mutant.
        #[arg(long, default_value_t = 1)]
        every: usize,
        /// Only those that survive according to this file: what `judge` has printed before.
        #[arg(long)]
        again: Option<PathBuf>,
        /// Which survivors are no gap, and why.
        #[arg(long, default_value = "explained.txt")]
        explained: PathBuf,
        /// Which unit tests: words of their names.
        #[arg(long, value_delimiter = ',', default_value = "storage,batch,replication,api,quorum,broker")]
        tests: Vec<String>,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let json = std::fs::read_to_string(&cli.list).with_context(|| cli.list.display().to_string())?;
    let mutants = list::parse(&json)?;
    match cli.command {
        Action::Weave => weave_all(&cli.tree, &mutants),
        Action::Judge { seeds, every, again, explained, tests } => {
            let again = again.map(|file| std::fs::read_to_string(&file).with_context(|| file.display().to_string()));
            let survived = again.transpose()?;
            let survived: Option<BTreeSet<String>> = survived
                .map(|text| text.lines().filter_map(|line| line.strip_prefix(SURVIVES)).map(list::anywhere).collect());
            let wanted = |mutant: &&Mutant| survived.as_ref().is_none_or(|names| names.contains(&mutant.anywhere()));
            let asked: Vec<&Mutant> = mutants.iter().filter(wanted).step_by(every).collect();
            let text = std::fs::read_to_string(&explained).with_context(|| explained.display().to_string())?;
            let explained = list::explained(&text);
            let names: BTreeSet<String> = mutants.iter().map(Mutant::anywhere).collect();
            for stale in explained.iter().filter(|name| !names.contains(**name)) {
                println!("explained, and no mutant: {stale}");
            }
            judge_all(&cli.tree, &asked, seeds, &tests, &explained)
        }
    }
}

/// How a line begins that names a survivor.
const SURVIVES: &str = "survives: ";

/// Which mutant is on, in the woven tree.
const CHOICE: &str = r#"//! Which mutant is on: that of the environment.
#![allow(warnings, clippy::all)]
static ON: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
#[inline]
pub fn on() -> u32 {
    *ON.get_or_init(|| std::env::var("MUTANT").ok().and_then(|text| text.parse().ok()).unwrap_or(0))
}
"#;

fn weave_all(tree: &Path, mutants: &[Mutant]) -> Result<()> {
    let mut by_file: BTreeMap<&str, Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants {
        by_file.entry(&mutant.file).or_default().push(mutant);
    }
    let sources: BTreeMap<&str, String> =
        by_file.keys().map(|file| Ok((*file, std::fs::read_to_string(tree.join(file))?))).collect::<Result<_>>()?;
    let lib = tree.join("core/src/lib.rs");
    let root = std::fs::read_to_string(&lib)?;
    ensure!(!root.contains("pub mod mutant;"), "{} is woven already", tree.display());
    // What a mutant computes may be wrong in a way that the compiler sees.
    let root =
        root.replacen("#![forbid", "#![allow(warnings, arithmetic_overflow, unconditional_panic)]\n#![forbid", 1);
    std::fs::write(&lib, format!("{root}\n#[doc(hidden)]\npub mod mutant;\n"))?;
    std::fs::write(tree.join("core/src/mutant.rs"), CHOICE)?;
    let mut dropped: BTreeSet<usize> = BTreeSet::new();
    loop {
        let mut places = BTreeMap::new();
        let mut count = BTreeSet::new();
        for (file, mutants) in &by_file {
            let kept: Vec<&Mutant> = mutants.iter().copied().filter(|mutant| !dropped.contains(&mutant.id)).collect();
            let woven = weave::weave(&sources[file], &kept).with_context(|| file.to_string())?;
            std::fs::write(tree.join(file), &woven.text)?;
            count.extend(woven.places.iter().map(|(_, mutant)| *mutant));
            places.insert(*file, woven.places);
        }
        let errors = errors(tree)?;
        println!("{} mutants are woven, {} places do not compile", count.len(), errors.len());
        if errors.is_empty() {
            let woven: String = count.iter().fold(String::new(), |mut text, id| {
                let _ = writeln!(text, "{id}");
                text
            });
            return Ok(std::fs::write(tree.join("woven.txt"), woven)?);
        }
        let before = dropped.len();
        for (file, byte, code) in &errors {
            let Some(places) = places.get(file.as_str()) else { bail!("{file} does not compile, byte {byte}") };
            let deletes_arm = |mutant: &usize| mutants[*mutant - 1].genre == Genre::MatchArm;
            // The place itself, or else the nearest before it: an alternative spoils what follows it. A match that is
            // not exhaustive any more is named by its head, and its arms follow.
            let inside = places.iter().find(|(range, mutant)| range.contains(byte) && !dropped.contains(mutant));
            let before = || places.iter().rfind(|(range, mutant)| range.start <= *byte && !dropped.contains(mutant));
            let arm = || places.iter().find(|(range, mutant)| range.start > *byte && deletes_arm(mutant));
            let culprit = if code == "E0004" { arm() } else { inside.or_else(before) };
            dropped.extend(culprit.map(|(_, mutant)| *mutant));
        }
        ensure!(dropped.len() > before, "{errors:?} belong to no mutant");
    }
}

/// Where the tree does not compile, and why: files, bytes and the compiler's codes.
fn errors(tree: &Path) -> Result<Vec<(String, usize, String)>> {
    let output = Command::new("cargo")
        .args(["check", "--package", "tidelog-core", "--message-format", "json"])
        .current_dir(tree)
        .stderr(Stdio::null())
        .output()?;
    let mut found = BTreeSet::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        let message = &message["message"];
        if message["level"] != "error" {
            continue;
        }
        for span in message["spans"].as_array().into_iter().flatten().filter(|span| span["is_primary"] == true) {
            let file = span["file_name"].as_str().unwrap_or_default().to_owned();
            let code = message["code"]["code"].as_str().unwrap_or_default().to_owned();
            found.insert((file, span["byte_start"].as_u64().unwrap_or_default() as usize, code));
        }
    }
    ensure!(output.status.success() || !found.is_empty(), "cargo check fails without saying where");
    Ok(found.into_iter().collect())
}

fn judge_all(tree: &Path, mutants: &[&Mutant], seeds: u64, tests: &[String], explained: &BTreeSet<&str>) -> Result<()> {
    let woven = std::fs::read_to_string(tree.join("woven.txt")).context("weave first")?;
    let woven: BTreeSet<usize> = woven.lines().map(str::parse).collect::<Result<_, _>>()?;
    let unit = build(tree, &["test", "--no-run", "--package", "tidelog-core", "--lib"])?;
    let tests: Vec<&str> = tests.iter().map(String::as_str).chain(["--test-threads", "1"]).collect();
    let mut judges = vec![("unit tests", unit, tests)];
    // The first seeds by themselves: where the core hangs, it hangs there, and is not waited for as long.
    let first = seeds.min(20);
    let (few, rest, from) = (first.to_string(), (seeds - first).to_string(), first.to_string());
    if seeds > 0 {
        let scripts = build(tree, &["test", "--no-run", "--package", "tidelog-sim", "--test", "faults"])?;
        let sim = build(tree, &["build", "--package", "tidelog-sim"])?;
        judges.push(("seeds", sim.clone(), vec!["loop", "--jobs", "1", "--seeds", &few]));
        judges.push(("scripts", scripts, vec!["--test-threads", "1"]));
        judges.push(("seeds", sim, vec!["loop", "--jobs", "1", "--from", &from, "--seeds", &rest]));
    }
    // What takes eight times as long as without a mutant hangs.
    let mut patience = Vec::new();
    for (_, program, arguments) in &judges {
        let began = Instant::now();
        let verdict = killed_by(program, arguments, 0, Duration::from_secs(600));
        ensure!(verdict.is_none(), "{program:?} fails without a mutant");
        patience.push(began.elapsed() * 8 + Duration::from_secs(3));
    }
    let asked: Vec<&Mutant> = mutants.iter().copied().filter(|mutant| woven.contains(&mutant.id)).collect();
    let (next, killed, survivors) =
        (AtomicUsize::new(0), Mutex::new(BTreeMap::<&str, usize>::new()), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(mutant) = asked.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = judges.iter().zip(&patience).find_map(|((name, program, arguments), patience)| {
                        let how = killed_by(program, arguments, mutant.id, *patience)?;
                        Some(if how == FAILED { *name } else { how })
                    });
                    match verdict {
                        Some(by) => *killed.lock().unwrap().entry(by).or_default() += 1,
                        None => {
                            println!("{SURVIVES}{}", mutant.name);
                            survivors.lock().unwrap().push(*mutant);
                        }
                    }
                }
            });
        }
    });
    let (killed, survivors) = (killed.into_inner().unwrap(), survivors.into_inner().unwrap());
    let total: usize = killed.values().sum();
    let open: Vec<&&Mutant> = survivors.iter().filter(|mutant| !explained.contains(&*mutant.anywhere())).collect();
    open.iter().for_each(|mutant| println!("not explained: {}", mutant.name));
    println!("{} mutants: {total} killed {killed:?}, {} survive", asked.len(), survivors.len());
    println!("{} of them are explained, {} are not", survivors.len() - open.len(), open.len());
    println!(
        "{} of the list were not asked: they do not compile, or stand where there is no choice",
        mutants.len() - asked.len()
    );
    Ok(())
}

const FAILED: &str = "failed";

/// How a judge ended for a mutant; `None`: it found nothing.
fn killed_by(program: &Path, arguments: &[&str], mutant: usize, patience: Duration) -> Option<&'static str> {
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -v 6000000; exec \"$0\" \"$@\""])
        .arg(program)
        .args(arguments)
        .env("MUTANT", mutant.to_string())
        .env("PROPTEST_CASES", "32")
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a test starts");
    let began = Instant::now();
    loop {
        match child.try_wait().expect("our own child") {
            Some(status) if status.success() => return None,
            Some(_) => return Some(FAILED),
            None if began.elapsed() > patience => {
                let _ = child.kill();
                let _ = child.wait();
                return Some("its time");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Builds, and says where the program is.
fn build(tree: &Path, arguments: &[&str]) -> Result<PathBuf> {
    let output = Command::new("cargo")
        .args(arguments)
        .args(["--message-format", "json"])
        .current_dir(tree)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "cargo {arguments:?} fails");
    let built = String::from_utf8(output.stdout)?;
    let artifacts = built.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = artifacts.filter_map(|artifact| artifact["executable"].as_str().map(PathBuf::from)).last();
    program.context("nothing was built")
}
