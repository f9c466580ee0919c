//! Mutation testing in minutes. `cargo mutants` finds the mutants of the code, but builds and tests each of them
//! separately, which takes days for this project. Here all mutants are woven into one copy of the tree, and the
//! environment variable `MUTANT` of a test process says which one is active.
//!
//! ```text
//! git clone . /tmp/woven
//! cargo mutants --list --json -p tidelog-storage > /tmp/mutants.json
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
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Action,
    /// The output of `cargo mutants --list --json` for the tree
    #[arg(long, global = true, default_value = "mutants.json")]
    list: PathBuf,
    /// A copy of the tree, which will be changed
    #[arg(long, global = true, default_value = "woven")]
    tree: PathBuf,
}

#[derive(Subcommand)]
enum Action {
    /// Put all mutants into the tree, except those that do not compile
    Weave,
    /// Run the unit tests, the simulator's scripted tests and its seeds against each mutant
    Judge {
        /// How many seeds the simulator runs for a mutant that the unit tests have not killed; 0: only the unit tests
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// Test only every N-th mutant
        #[arg(long, default_value_t = 1)]
        every: usize,
        /// Test only the survivors that this file names: the output of an earlier `judge`
        #[arg(long)]
        again: Option<PathBuf>,
        /// The survivors that are no gap in the tests, with the reasons
        #[arg(long, default_value = "explained.txt")]
        explained: PathBuf,
        /// Test only the mutants of files whose path begins with this
        #[arg(long, default_value = "")]
        within: String,
        /// Which packages' tests to run beside those of the packages that have mutants
        #[arg(long, value_delimiter = ',', default_value = "tidelog-batch,tidelog-storage,tidelog-core")]
        packages: Vec<String>,
        /// Leave out the unit tests whose names contain one of these
        #[arg(long, value_delimiter = ',')]
        skip: Vec<String>,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let json = std::fs::read_to_string(&cli.list).with_context(|| cli.list.display().to_string())?;
    let mutants = list::parse(&json)?;
    match cli.command {
        Action::Weave => weave_all(&cli.tree, &mutants),
        Action::Judge { seeds, every, again, explained, within, packages, skip } => {
            let again = again.map(|file| std::fs::read_to_string(&file).with_context(|| file.display().to_string()));
            let survived = again.transpose()?;
            let survived: Option<BTreeSet<String>> = survived.map(|text| {
                text.lines().filter_map(|line| line.strip_prefix(SURVIVES)).map(list::without_position).collect()
            });
            let wanted =
                |mutant: &&Mutant| survived.as_ref().is_none_or(|names| names.contains(&mutant.without_position()));
            let is_within = |mutant: &&Mutant| mutant.file.starts_with(&within);
            let asked: Vec<&Mutant> = mutants.iter().filter(is_within).filter(wanted).step_by(every).collect();
            let text = std::fs::read_to_string(&explained).with_context(|| explained.display().to_string())?;
            let explained = list::explained(&text);
            let names: BTreeSet<String> = mutants.iter().map(Mutant::without_position).collect();
            for stale in explained.iter().filter(|name| !names.contains(**name)) {
                println!("explained, but not in the list of mutants: {stale}");
            }
            judge_all(&cli.tree, &asked, seeds, &packages, &skip, &explained)
        }
    }
}

/// The beginning of a line that names a survivor.
const SURVIVES: &str = "survives: ";

/// The module of the woven tree that says which mutant is active.
const CHOICE: &str = r#"//! Which mutant is active: the one that the environment variable MUTANT names.
#![allow(warnings, clippy::all)]
static ON: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
#[inline]
pub fn on() -> u32 {
    *ON.get_or_init(|| std::env::var("MUTANT").ok().and_then(|text| text.parse().ok()).unwrap_or(0))
}
"#;

/// The folder of the package that a source file belongs to: what stands before `/src/` in its path.
fn package_folder(file: &str) -> Result<&str> {
    Ok(file.split_once("/src/").with_context(|| format!("{file} is not in the src folder of a package"))?.0)
}

/// The name of the package in a folder of the tree.
fn package_name(tree: &Path, folder: &str) -> Result<String> {
    let manifest = tree.join(folder).join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).with_context(|| manifest.display().to_string())?;
    let name = text.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    Ok(name.with_context(|| format!("{} names no package", manifest.display()))?.to_owned())
}

fn weave_all(tree: &Path, mutants: &[Mutant]) -> Result<()> {
    let mut by_file: BTreeMap<&str, Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants {
        by_file.entry(&mutant.file).or_default().push(mutant);
    }
    let folders: BTreeSet<&str> = by_file.keys().map(|file| package_folder(file)).collect::<Result<_>>()?;
    let packages: Vec<String> = folders.iter().map(|folder| package_name(tree, folder)).collect::<Result<_>>()?;
    for folder in folders {
        let lib = tree.join(folder).join("src/lib.rs");
        let root = std::fs::read_to_string(&lib).with_context(|| lib.display().to_string())?;
        ensure!(!root.contains("pub mod mutant;"), "{} is woven already", tree.display());
        // Some mutants compute what the compiler can see to be wrong; that must not be an error. The lines keep their
        // numbers, by which the mutants of this file are found.
        let root =
            root.replacen("#![forbid", "#![allow(warnings, arithmetic_overflow, unconditional_panic)] #![forbid", 1);
        std::fs::write(&lib, format!("{root}\n#[doc(hidden)]\npub mod mutant;\n"))?;
        std::fs::write(tree.join(folder).join("src/mutant.rs"), CHOICE)?;
    }
    let sources: BTreeMap<&str, String> =
        by_file.keys().map(|file| Ok((*file, std::fs::read_to_string(tree.join(file))?))).collect::<Result<_>>()?;
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
        let errors = errors(tree, &packages)?;
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
            // The mutant at the error, or else the nearest before it: an alternative can break the code behind it. An
            // error about a match that is no longer exhaustive points at the head of the match, so there the next
            // mutant that deletes an arm is meant.
            let inside = places.iter().find(|(range, mutant)| range.contains(byte) && !dropped.contains(mutant));
            let before = || places.iter().rfind(|(range, mutant)| range.start <= *byte && !dropped.contains(mutant));
            let arm = || places.iter().find(|(range, mutant)| range.start > *byte && deletes_arm(mutant));
            let culprit = if code == "E0004" { arm() } else { inside.or_else(before) };
            dropped.extend(culprit.map(|(_, mutant)| *mutant));
        }
        ensure!(dropped.len() > before, "{errors:?} belong to no mutant");
    }
}

/// The compiler's errors: file, byte offset and error code.
fn errors(tree: &Path, packages: &[String]) -> Result<Vec<(String, usize, String)>> {
    let output = Command::new("cargo")
        .args(["check", "--keep-going", "--message-format", "json"])
        .args(packages.iter().flat_map(|name| ["--package", name]))
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

fn judge_all(
    tree: &Path,
    mutants: &[&Mutant],
    seeds: u64,
    packages: &[String],
    skip: &[String],
    explained: &BTreeSet<&str>,
) -> Result<()> {
    let woven = std::fs::read_to_string(tree.join("woven.txt")).context("weave first")?;
    let woven: BTreeSet<usize> = woven.lines().map(str::parse).collect::<Result<_, _>>()?;
    let own = mutants.iter().map(|mutant| package_name(tree, package_folder(&mutant.file)?));
    let own: BTreeSet<String> = own.collect::<Result<_>>()?;
    let others = packages.iter().filter(|name| !own.contains(*name));
    let mut judges = Vec::new();
    for name in own.iter().chain(others) {
        let unit = build(tree, &["test", "--no-run", "--package", name, "--tests"])?;
        let skipped = skip.iter().flat_map(|name| ["--skip", name.as_str()]);
        judges.push(("unit tests", unit, ["--test-threads", "1"].into_iter().chain(skipped).collect()));
    }
    // The first seeds run separately: a mutant that hangs the core hangs there, where the time limit is shorter.
    let first = seeds.min(20);
    let (few, rest, from) = (first.to_string(), (seeds - first).to_string(), first.to_string());
    if seeds > 0 {
        let scripts = build(tree, &["test", "--no-run", "--package", "tidelog-sim", "--test", "faults"])?;
        let sim = build(tree, &["build", "--package", "tidelog-sim-tool"])?;
        judges.push(("seeds", sim.clone(), vec!["loop", "--jobs", "1", "--seeds", &few]));
        judges.push(("scripts", scripts, vec!["--test-threads", "1"]));
        judges.push(("seeds", sim, vec!["loop", "--jobs", "1", "--from", &from, "--seeds", &rest]));
    }
    // A mutant hangs if a judge takes more than four times the processor's time that it takes without a mutant, or
    // sixteen times as long by the clock.
    let mut patience = Vec::new();
    for (_, program, arguments) in &judges {
        let began = Instant::now();
        let unlimited = Patience { processor: Duration::MAX, clock: Duration::from_secs(600) };
        let (verdict, processor) = killed_by(program, arguments, 0, unlimited);
        ensure!(verdict.is_none(), "{program:?} fails without a mutant");
        let clock = began.elapsed() * 16 + Duration::from_secs(3);
        patience.push(Patience { processor: processor * 4 + Duration::from_secs(1), clock });
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
                        let how = killed_by(program, arguments, mutant.id, *patience).0?;
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
    let open: Vec<&&Mutant> =
        survivors.iter().filter(|mutant| !explained.contains(&*mutant.without_position())).collect();
    open.iter().for_each(|mutant| println!("not explained: {}", mutant.name));
    println!("{} mutants: {total} killed {killed:?}, {} survive", asked.len(), survivors.len());
    println!("{} of them are explained, {} are not", survivors.len() - open.len(), open.len());
    println!(
        "{} of the list were not tested: they do not compile, or are in code that is evaluated at compile time",
        mutants.len() - asked.len()
    );
    Ok(())
}

const FAILED: &str = "failed";

/// How long a judge may take.
#[derive(Clone, Copy)]
struct Patience {
    processor: Duration,
    clock: Duration,
}

/// How a judge killed a mutant, or `None` if it did not; and how much of the processor's time it took. The judge is
/// stopped at its first failed test.
fn killed_by(
    program: &Path,
    arguments: &[&str],
    mutant: usize,
    patience: Patience,
) -> (Option<&'static str>, Duration) {
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -v 6000000; exec \"$0\" \"$@\""])
        .arg(program)
        .args(arguments)
        .env("MUTANT", mutant.to_string())
        .env("PROPTEST_CASES", "32")
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a test starts");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let has_failed = Arc::new(AtomicBool::new(false));
    let told = has_failed.clone();
    // Ends with the judge, at the end of its output.
    std::thread::spawn(move || {
        for line in lines.map_while(std::io::Result::ok) {
            told.fetch_or(line.ends_with(" ... FAILED"), Ordering::Relaxed);
        }
    });
    let began = Instant::now();
    let mut processor = Duration::ZERO;
    loop {
        let how = match child.try_wait().expect("our own child") {
            Some(status) if status.success() => return (None, processor),
            Some(_) => return (Some(FAILED), processor),
            None if has_failed.load(Ordering::Relaxed) => FAILED,
            None if processor > patience.processor || began.elapsed() > patience.clock => "time limit",
            None => {
                std::thread::sleep(Duration::from_millis(20));
                processor = processor_time(child.id()).unwrap_or(processor);
                continue;
            }
        };
        let _ = child.kill();
        let _ = child.wait();
        return (Some(how), processor);
    }
}

/// How much of the processor's time a process has taken, where the system tells it in `/proc`.
fn processor_time(process: u32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The fields behind the name of the program, which may hold anything but is in parentheses. They are in ticks of
    // 10 ms.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

/// Builds a program and returns its path.
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
