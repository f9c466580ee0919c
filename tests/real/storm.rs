//! A storm over a cluster of three nodes: processes are killed, paused and restarted, connections between nodes are cut,
//! refused and stalled, also one way only, while administrators change topics through any node. What was acknowledged
//! must be there in the end, on each node; every request must be answered in time; and the metadata logs must be equal.
//!
//! `TIDELOG_STORM_SECONDS` says how long the storm lasts, and `TIDELOG_STORM_SEED` with which seed it is drawn: with an even
//! one the voters are configured, with an odd one recorded. `TIDELOG_STORM_HOME` says in which directory the nodes' files
//! stay for a look at them.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

#[path = "storm/administrator.rs"]
mod administrator;
#[path = "storm/leaders.rs"]
mod leaders;

use administrator::{Administrator, topics};
use leaders::{Leaders, Progress, progress};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tidelog_tests::broker::tidelog_binary;
use tidelog_tests::cluster::{Cluster, Plan, Voters};
use tidelog_tests::network::Network;

const NODES: usize = 3;
const ADMINISTRATORS: usize = 4;
/// How long the cluster may take until it is whole again after the last fault.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    /// SIGSTOP, and SIGCONT up to 10 s later.
    Pause,
    /// SIGTERM, and a new start.
    Restart,
    /// All processes at once.
    KillAll,
    /// All connections of a node are closed once.
    Cut,
    /// No node can connect to this one, nor this one to another.
    Refuse,
    /// Nothing arrives from this node nor at it.
    Stall,
    /// Nothing of what it sends arrives.
    Mute,
    /// Nothing arrives at it.
    Deaf,
    /// Nothing arrives from one other node at this one.
    HalfDeaf,
    /// It has no connection to one other node.
    HalfRefuse,
}

/// How often each fault is drawn.
const FAULTS: [(Fault, u32); 11] = [
    (Fault::Kill, 4),
    (Fault::Pause, 3),
    (Fault::Restart, 2),
    (Fault::KillAll, 1),
    (Fault::Cut, 2),
    (Fault::Refuse, 2),
    (Fault::Stall, 2),
    (Fault::Mute, 2),
    (Fault::Deaf, 2),
    (Fault::HalfDeaf, 1),
    (Fault::HalfRefuse, 1),
];

#[test]
fn no_acknowledged_change_is_lost_in_a_storm_of_kills_pauses_and_cut_connections() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let length = Duration::from_secs(number("TIDELOG_STORM_SECONDS", 10));
    let seed = number("TIDELOG_STORM_SEED", 1);
    let temporary = tempfile::tempdir().expect("a directory");
    let home = std::env::var("TIDELOG_STORM_HOME").map_or_else(|_| temporary.path().to_owned(), PathBuf::from);

    let network = Network::new();
    let cluster = Plan::new(NODES)
        .voters(if seed % 2 == 0 { Voters::Static } else { Voters::Initial })
        .through(&network)
        // More faults find place in a minute if a killed broker may come back soon.
        .set("broker.session.timeout.ms", 3_000)
        .set("broker.heartbeat.interval.ms", 500)
        // Snapshots are written and fetched, and the log behind them is cut off.
        .set("metadata.log.max.record.bytes.between.snapshots", 10_000)
        .set("internal.metadata.log.segment.bytes", 20_000)
        .start(&home);
    let leaders = Leaders::new(NODES);
    let nodes: Vec<String> = (0..NODES).map(|place| cluster.address(place).to_owned()).collect();
    let controllers: Vec<String> = (0..NODES).map(|place| cluster.controller_address(place).to_owned()).collect();
    let rng = |stream| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        rng
    };
    let mut administrators: Vec<Administrator> =
        (0..ADMINISTRATORS).map(|name| Administrator::new(name, rng(1 + name as u64), nodes.clone())).collect();
    let mut storm = Storm { cluster, network: &network, leaders: &leaders, rng: rng(0), faults: BTreeMap::new() };

    let begin = Instant::now();
    let (storm_is_over, work_is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        for (place, controller) in controllers.iter().enumerate() {
            let (leaders, over) = (&leaders, &work_is_over);
            scope.spawn(move || leaders.watch(place, controller, over));
        }
        let workers: Vec<_> = administrators
            .iter_mut()
            .map(|administrator| {
                let over = &storm_is_over;
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        administrator.work(begin);
                    }
                })
            })
            .collect();
        // The others must end, too, if this thread panics.
        let stop = (Stop(&storm_is_over), Stop(&work_is_over));
        while begin.elapsed() < length && workers.iter().all(|worker| !worker.is_finished()) {
            storm.blow(begin);
        }
        storm.end();
        drop(stop.0);
        for worker in workers {
            worker.join().expect("an administrator without a complaint");
        }
    });
    let Storm { mut cluster, faults, .. } = storm;

    let of_all = |count: fn(&Administrator) -> usize| administrators.iter().map(count).sum::<usize>();
    let made = of_all(|administrator| administrator.made);
    let mut took: Vec<Duration> = administrators.iter().flat_map(|it| it.took.iter().copied()).collect();
    let mut without = leaders.times_without();
    println!("figure: a storm of {} s over three nodes (seed {seed}): {}", length.as_secs(), told(&faults));
    println!("figure: {} elections; time without a leader: {}", without.len(), percentiles(&mut without));
    println!(
        "figure: {made} changes acknowledged, {} of which nobody knows; time until an answer: {}",
        of_all(Administrator::unsure),
        percentiles(&mut took)
    );
    assert!(made > 0 && !faults.is_empty() && !without.is_empty(), "there was a storm, and work was done in it");

    let mut differences = Vec::new();
    for (place, node) in nodes.iter().enumerate() {
        wait_until(&mut cluster, &format!("what node {} tells is what was acknowledged", place + 1), || {
            let told = topics(node).expect("the topics");
            differences = administrators.iter().flat_map(|it| it.differences(&told)).collect();
            if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
        });
    }
    let all: Vec<_> = nodes.iter().map(|node| topics(node).expect("the topics")).collect();
    assert!(all.iter().all(|topics| *topics == all[0]), "all nodes tell of the same topics: {all:?}");

    let committed = committed_everywhere(&mut cluster, &controllers);
    (0..NODES).for_each(|place| cluster.kill(place));
    let logs: Vec<MetadataLog> = (0..NODES)
        .map(|place| MetadataLog::read(&cluster.setup(place).partition_dir("__cluster_metadata", 0)))
        .collect();
    assert_equal(&logs, committed);
}

/// Sets a flag when it is dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Storm<'a> {
    cluster: Cluster,
    network: &'a Network,
    leaders: &'a Leaders,
    rng: ChaCha8Rng,
    faults: BTreeMap<Fault, usize>,
}

impl Storm<'_> {
    /// One fault, which is over at the end.
    fn blow(&mut self, begin: Instant) {
        // Even the shortest storm has an election.
        let is_first = self.faults.is_empty();
        let fault = if is_first { Fault::Kill } else { self.draw() };
        let leader = self.leaders.leader().filter(|_| is_first || self.rng.random_bool(0.6));
        let node = leader.unwrap_or_else(|| self.rng.random_range(0..NODES));
        let other = (node + self.rng.random_range(1..NODES)) % NODES;
        println!("{:?} {fault:?} node {} (and {})", begin.elapsed(), node + 1, other + 1);
        *self.faults.entry(fault).or_default() += 1;
        match fault {
            Fault::Kill => {
                self.leaders.lost(node);
                self.cluster.kill(node);
                self.wait_up_to(3_000);
                self.start(&[node]);
            }
            Fault::KillAll => {
                (0..NODES).for_each(|place| self.cluster.kill(place));
                self.wait_up_to(1_000);
                // There cannot be a leader before the nodes run.
                (0..NODES).for_each(|place| self.leaders.lost(place));
                self.start(&[0, 1, 2]);
            }
            Fault::Restart => {
                self.cluster.stop(&[node]);
                self.wait_up_to(1_000);
                self.start(&[node]);
            }
            Fault::Pause => {
                self.leaders.lost(node);
                self.cluster.pause(node);
                self.wait_up_to(10_000);
                self.cluster.resume(node);
            }
            Fault::Cut => self.others(node).for_each(|other| self.network.cut(node, other)),
            Fault::Refuse => {
                self.leaders.lost(node);
                self.others(node).for_each(|other| self.network.refuse(node, other));
                self.wait_up_to(8_000);
            }
            Fault::Stall => {
                self.leaders.lost(node);
                for other in self.others(node) {
                    self.network.stall(node, other);
                    self.network.stall(other, node);
                }
                self.wait_up_to(8_000);
            }
            Fault::Mute => {
                self.leaders.lost(node);
                self.others(node).for_each(|other| self.network.stall(node, other));
                self.wait_up_to(8_000);
            }
            Fault::Deaf => {
                self.leaders.lost(node);
                self.others(node).for_each(|other| self.network.stall(other, node));
                self.wait_up_to(8_000);
            }
            Fault::HalfDeaf => {
                self.network.stall(other, node);
                self.wait_up_to(8_000);
            }
            Fault::HalfRefuse => {
                self.network.refuse(other, node);
                self.wait_up_to(8_000);
            }
        }
        self.network.heal();
        self.wait_up_to(2_000);
        self.cluster.assert_alive();
    }

    fn draw(&mut self) -> Fault {
        let all: u32 = FAULTS.iter().map(|(_, often)| often).sum();
        let mut drawn = self.rng.random_range(0..all);
        for (fault, often) in FAULTS {
            match drawn.checked_sub(often) {
                None => return fault,
                Some(rest) => drawn = rest,
            }
        }
        unreachable!("less than the sum was drawn")
    }

    fn others(&self, node: usize) -> impl Iterator<Item = usize> + use<> {
        (0..NODES).filter(move |other| *other != node)
    }

    /// Most times are short.
    fn wait_up_to(&mut self, ms: u64) {
        let most = self.rng.random_range(0..=ms);
        thread::sleep(Duration::from_millis(self.rng.random_range(0..=most)));
    }

    /// Starts nodes, and waits until their controllers answer. Their brokers may not serve yet at the next fault.
    fn start(&mut self, nodes: &[usize]) {
        let begin = Instant::now();
        nodes.iter().for_each(|node| self.cluster.spawn(*node));
        while !nodes.iter().all(|node| self.leaders.has_answered(*node, begin)) {
            self.cluster.assert_alive();
            assert!(begin.elapsed() < PATIENCE, "the controllers of {nodes:?} do not answer");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until all nodes serve again.
    fn end(&mut self) {
        self.network.heal();
        self.cluster.wait_until_ready();
    }
}

fn told(faults: &BTreeMap<Fault, usize>) -> String {
    let told: Vec<String> = faults.iter().map(|(fault, count)| format!("{count} times {fault:?}")).collect();
    told.join(", ")
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at =
        |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1)).copied().unwrap_or_default();
    let (p50, p99, max) = (at(50), at(99), at(100));
    format!("p50 {} ms, p99 {} ms, at most {} ms", p50.as_millis(), p99.as_millis(), max.as_millis())
}

fn wait_until(cluster: &mut Cluster, what: &str, mut holds: impl FnMut() -> Result<(), String>) {
    let begin = Instant::now();
    while let Err(why) = holds() {
        cluster.assert_alive();
        assert!(begin.elapsed() < PATIENCE, "{what}: {why}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until all nodes have what is committed now. Gives the end of that.
fn committed_everywhere(cluster: &mut Cluster, controllers: &[String]) -> i64 {
    let ask = || controllers.iter().find_map(|controller| progress(controller).ok().flatten().map(|(_, told)| told));
    let mut committed = None;
    wait_until(cluster, "all nodes have what is committed", || {
        let Some(Progress { high_watermark, ends, leader }) = ask() else { return Err("no leader".to_owned()) };
        let committed = *committed.get_or_insert(high_watermark);
        if ends.len() == NODES && ends.iter().all(|end| *end >= committed) {
            return Ok(());
        }
        Err(format!("node {} leads; {committed} records are committed, the ends of the logs are {ends:?}", leader + 1))
    });
    committed.expect("a leader was found")
}

/// What a node has of the metadata log.
struct MetadataLog {
    /// Each record by its offset.
    records: BTreeMap<i64, String>,
    /// The records of each snapshot, by its name.
    snapshots: BTreeMap<String, BTreeMap<i64, String>>,
}

impl MetadataLog {
    fn read(dir: &Path) -> Self {
        let mut log = Self { records: BTreeMap::new(), snapshots: BTreeMap::new() };
        let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        for file in files {
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("log") => log.records.extend(records(&file, &["file"])),
                // Each node has written its own snapshots, at its own times.
                Some("checkpoint") => _ = log.snapshots.insert(name, records(&file, &["file", "timestamp"])),
                _ => {}
            }
        }
        log
    }
}

/// The records of a file by their offsets, without these fields of what is printed about each. A process that was killed may
/// have left a part of a batch at the end.
fn records(file: &Path, without: &[&str]) -> BTreeMap<i64, String> {
    let output = Command::new(tidelog_binary())
        .args(["log", "dump", "--records", "--format", "json"])
        .arg(file)
        .output()
        .expect("tidelog log dump");
    let text = String::from_utf8_lossy(&output.stdout);
    let objects = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an object"));
    let records = objects.filter(|object| object["kind"] == "metadata" || object["kind"] == "control");
    records
        .map(|mut object| {
            object.as_object_mut().expect("an object").retain(|name, _| !without.contains(&name.as_str()));
            (object["offset"].as_i64().expect("an offset"), object.to_string())
        })
        .collect()
}

/// What two nodes have of the same offset, or of the same snapshot, is equal, and all have everything up to `committed`
/// that is not in a snapshot.
fn assert_equal(logs: &[MetadataLog], committed: i64) {
    for (place, log) in logs.iter().enumerate() {
        let node = place + 1;
        let start = *log.records.keys().next().expect("records");
        let count = log.records.range(..committed).count();
        assert_eq!(i64::try_from(count), Ok(committed - start), "node {node} has each record from {start} on");
        assert!(start == 0 || !log.snapshots.is_empty(), "node {node} has a snapshot of what it has cut off");
        for (other, there) in logs[..place].iter().enumerate() {
            let nodes = format!("of node {} and of node {node}", other + 1);
            assert_same(&there.records, &log.records, ..committed, &nodes);
            for (name, snapshot) in &log.snapshots {
                if let Some(there) = there.snapshots.get(name) {
                    assert_same(there, snapshot, .., &format!("in {name} {nodes}"));
                    assert_eq!(there.len(), snapshot.len(), "{name} {nodes}");
                }
            }
        }
    }
    let starts: Vec<i64> = logs.iter().filter_map(|log| log.records.keys().next().copied()).collect();
    println!("figure: the metadata logs of all nodes are equal up to {committed}; they begin at {starts:?}");
}

/// What both have of the same offset is equal.
fn assert_same(one: &BTreeMap<i64, String>, other: &BTreeMap<i64, String>, within: impl RangeBounds<i64>, what: &str) {
    for (offset, record) in one.range(within) {
        if let Some(there) = other.get(offset) {
            assert_eq!(record, there, "at {offset} {what}");
        }
    }
}
