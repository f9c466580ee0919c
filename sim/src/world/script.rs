//! Scripted tests: a script builds a small world in which nothing fails by itself, deals faults at the moments that
//! matter to the test, and asks what has happened.
//!
//! ```
//! use tidelog_sim::script::Script;
//!
//! let mut t = Script::new(1);
//! t.producer(20);
//! t.run_until("ten records are acknowledged", |t| t.acknowledged() >= 10);
//! t.cut_power(0);
//! t.ends_well();
//! ```
//!
//! The checkers watch a script as they watch a run by seed. [`Script::ends_well`] heals everything, reads every log to
//! its end, and fails with what the checkers find.

use super::{LIVENESS_NS, Phase, Record, World};
use crate::checkers::Violation;
use crate::client::records::Codec;
use crate::client::{AdminPlan, FetcherPlan, ListerPlan, ProducerPlan, RegistrarPlan, TopicPlan};
use crate::clock::ClockOptions;
use crate::cluster::ClusterPlan;
use crate::disk::{Disk, DiskOptions, Loss};
use crate::history::{Entry, Fact, PartitionKey, ReadRecord};
use crate::network::NetworkOptions;
use crate::scenario::{ClientPlan, Fault, Profile, Role, Scenario};
use crate::trace::Trace;
use std::collections::BTreeMap;
use tidelog_core::broker::{PartitionView, QuorumView};
use tidelog_core::plant::Plants;

const MS: u64 = 1_000_000;

/// [`Script::run_until`] fails when this much virtual time has passed.
const PATIENCE_NS: u64 = 60_000 * MS;

/// A world that a test controls. A test ends it with [`ends_well`](Self::ends_well) or [`ends`](Self::ends).
pub struct Script {
    world: World,
}

/// How a script ended.
#[derive(Debug)]
pub struct Ending {
    pub violation: Option<Violation>,
    /// What each partition holds, from its first offset to its end.
    pub logs: BTreeMap<PartitionKey, Vec<ReadRecord>>,
    /// What the brokers told their operators: the node, and the text.
    pub said: Vec<(usize, String)>,
}

impl Script {
    /// One node with one topic of one partition, and nothing that fails.
    pub fn new(seed: u64) -> Self {
        Self::with(seed, |_| {})
    }

    /// Like [`new`](Self::new), with a scenario that `change` has changed before the world begins.
    pub fn with(seed: u64, change: impl FnOnce(&mut Scenario)) -> Self {
        let mut scenario = calm(seed);
        change(&mut scenario);
        Self::of(&scenario, Plants::default())
    }

    /// A world of any scenario, with these bugs planted. The scenario's own faults are dealt too, until the script ends
    /// or the scenario's `fault_ns` is over.
    pub fn of(scenario: &Scenario, plants: Plants) -> Self {
        let mut world = World::new(scenario, plants, Trace::default());
        world.record = Some(Record::default());
        Self { world }
    }

    fn add_client(&mut self, role: Role) {
        let number = self.world.clients.len() as u32;
        self.world.add_client_as(number, &[], role);
    }

    /// An idempotent producer that sends `batches` batches of one record each, with pauses of at most 20 ms.
    pub fn producer(&mut self, batches: u32) {
        self.producer_with(batches, |_| {});
    }

    /// Like [`producer`](Self::producer), with a plan that `change` has changed.
    pub fn producer_with(&mut self, batches: u32, change: impl FnOnce(&mut ProducerPlan)) {
        let mut plan = ProducerPlan {
            idempotent: true,
            acks: -1,
            batches,
            batch_records_max: 1,
            gap_ns_max: 20 * MS,
            requests_in_flight_max: 5,
            partitions_per_request_max: 1,
            codec: Codec::None,
            timeout_ms: 5_000,
        };
        change(&mut plan);
        self.add_client(Role::Producer(plan));
    }

    /// A reader that fetches whatever records there are, with pauses of at most 5 ms.
    pub fn fetcher(&mut self) {
        self.fetcher_with(|_| {});
    }

    /// Like [`fetcher`](Self::fetcher), with a plan that `change` has changed.
    pub fn fetcher_with(&mut self, change: impl FnOnce(&mut FetcherPlan)) {
        let mut plan = FetcherPlan {
            with_session: false,
            max_wait_ms: 5,
            min_bytes: 1,
            max_bytes: 50_000_000,
            partition_max_bytes: 1_000_000,
            gap_ns_max: 5 * MS,
            last: false,
        };
        change(&mut plan);
        self.add_client(Role::Fetcher(plan));
    }

    /// An administrator that creates, changes and deletes three topics of its own, with pauses of at most 5 ms.
    pub fn admin(&mut self) {
        let plan = AdminPlan { topics: 3, partitions_max: 2, gap_ns_max: 5 * MS, only_looks: false };
        // At the end of the run, the world makes the last administrator from the first administrator's plan in this
        // list.
        self.world.scenario.clients.push(ClientPlan {
            number: None,
            bootstrap: Vec::new(),
            role: Role::Admin(plan.clone()),
        });
        self.add_client(Role::Admin(plan));
    }

    /// A client that asks for offsets, by time and by leader epoch, with pauses of at most 5 ms.
    pub fn lister(&mut self) {
        self.add_client(Role::Lister(ListerPlan { gap_ns_max: 5 * MS }));
    }

    /// An operator that adds controllers to the voters and removes voters so many times, with pauses of at most 500 ms.
    pub fn registrar(&mut self, changes: u32) {
        self.registrar_with(changes, false);
    }

    /// Like [`registrar`](Self::registrar); it may remove only voters whose disks are lost.
    pub fn registrar_with(&mut self, changes: u32, only_replaces: bool) {
        let plan = RegistrarPlan { changes, gap_ns_max: 500 * MS, only_replaces };
        // The other clients know that the voters may be others than the first ones.
        let role = Role::Registrar(plan);
        self.world.scenario.clients.push(ClientPlan { number: None, bootstrap: Vec::new(), role: role.clone() });
        self.add_client(role);
    }

    /// Lets `ms` virtual milliseconds go by.
    pub fn run_for(&mut self, ms: u64) {
        let until = self.world.now + ms * MS;
        while self.world.events.next_at().is_some_and(|at| at <= until) {
            self.step();
        }
        self.world.now = until;
    }

    /// Runs until `has_happened`; fails, and says `what` it waited for, when that takes longer than a virtual minute.
    #[track_caller]
    pub fn run_until(&mut self, what: &str, has_happened: impl Fn(&Self) -> bool) {
        let patience = self.world.now + PATIENCE_NS;
        while !has_happened(self) {
            let pending = || self.world.pending().unwrap_or_default();
            assert!(
                self.world.now < patience,
                "this has not happened within a virtual minute: {what}. {}\n{}",
                pending(),
                self.story()
            );
            self.step();
        }
    }

    #[track_caller]
    fn step(&mut self) {
        self.world.advance();
        if let Some(violation) = &self.world.violation {
            panic!("violation of {violation}\n{}", self.story());
        }
    }

    /// Handles this many events.
    #[track_caller]
    pub fn run_events(&mut self, events: u32) {
        (0..events).for_each(|_| self.step());
    }

    /// Deals a fault now.
    pub fn deal(&mut self, node: usize, fault: Fault) {
        self.world.deal(node, fault);
    }

    /// Cuts the power of a node's machine for ten milliseconds: what was not synced is kept, lost, torn or reordered.
    pub fn cut_power(&mut self, node: usize) {
        self.deal(node, Fault::Crash { loss: Loss::Power, down_ns: 10 * MS, again_after_steps: Vec::new() });
    }

    /// Kills a node's process, which is started again; the machine keeps its page cache.
    pub fn kill(&mut self, node: usize) {
        self.deal(node, Fault::Crash { loss: Loss::Process, down_ns: 10 * MS, again_after_steps: Vec::new() });
    }

    /// Stops a broker cleanly, and returns once it has been started again.
    pub fn restart(&mut self, node: usize) {
        let life = self.life(node);
        self.deal(node, Fault::Stop { loss: Loss::Process, down_ns: MS, crash_after_steps: None });
        self.run_until("the broker has stopped and is up again", |t| t.life(node) > life && t.is_up(node));
    }

    /// Changes how a disk behaves from now on.
    pub fn on_disk(&mut self, node: usize, change: impl FnOnce(&mut DiskOptions)) {
        change(self.world.nodes[node].disk.options_mut());
    }

    /// Changes how the network behaves from now on.
    pub fn on_network(&mut self, change: impl FnOnce(&mut NetworkOptions)) {
        change(self.world.network.options_mut());
    }

    pub fn disk(&mut self, node: usize) -> &mut Disk {
        &mut self.world.nodes[node].disk
    }

    /// Damages bytes of the partition that the file at `path` belongs to, and lets the checkers know. The bytes are
    /// restored when the script ends.
    pub fn damage_at(&mut self, node: usize, path: &str, damage: impl FnOnce(&mut Disk)) {
        damage(&mut self.world.nodes[node].disk);
        let partition = self.world.partition_at(path).expect("a partition's file");
        self.world.fact(None, Fact::Damaged { node: node as u32, partition, time_index: false });
    }

    /// How often a client has read bytes whose checksum is wrong.
    pub fn corrupt(&self) -> usize {
        self.facts().iter().filter(|entry| matches!(entry.fact, Fact::Corrupt { .. })).count()
    }

    /// How many processes of the node have ended.
    pub fn life(&self, node: usize) -> u64 {
        self.world.nodes[node].life
    }

    /// Whether the node's broker takes connections.
    pub fn is_up(&self, node: usize) -> bool {
        self.world.nodes[node].is_ready()
    }

    /// The quorum as the node knows it, if the node runs and has read its disk.
    pub fn quorum(&self, node: usize) -> Option<QuorumView> {
        self.world.nodes[node].process.as_ref()?.broker.quorum()
    }

    /// A replica of a partition (`topic-0-0`) on a node that runs.
    pub fn replica(&self, node: usize, partition: &str) -> Option<PartitionView> {
        let broker = &self.world.nodes[node].process.as_ref()?.broker;
        broker.partitions().find(|view| view.name == partition)
    }

    pub fn now_ms(&self) -> u64 {
        self.world.now / MS
    }

    pub fn facts(&self) -> &[Entry] {
        &self.record().facts
    }

    fn record(&self) -> &Record {
        self.world.record.as_ref().expect("a script has a record")
    }

    /// How many batches were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.facts().iter().filter(|entry| matches!(entry.fact, Fact::Acknowledged { .. })).count()
    }

    /// How many records were read. A record that was read twice counts twice.
    pub fn read(&self) -> usize {
        let read = self.facts().iter().map(|entry| match &entry.fact {
            Fact::Fetched { records, .. } => records.len(),
            _ => 0,
        });
        read.sum()
    }

    /// The errors that a kind of request was answered with (0: Produce, 1: Fetch).
    pub fn refusals(&self, api_key: i16) -> Vec<i16> {
        let refused = self.facts().iter().filter_map(|entry| match entry.fact {
            Fact::Refused { api_key: key, error, .. } if key == api_key => Some(error),
            _ => None,
        });
        refused.collect()
    }

    /// How often the world has counted the thing that `Outcome::counts` calls `name`.
    pub fn count(&self, name: &str) -> u64 {
        self.world.counts.get(name).copied().unwrap_or(0)
    }

    /// Whether the broker has told its operator something with these words in it.
    pub fn has_said(&self, node: usize, words: &str) -> bool {
        self.record().said.iter().any(|(who, text)| *who == node && text.contains(words))
    }

    /// The time and what the brokers told their operators: for the message of a failed assertion.
    pub fn story(&self) -> String {
        let said = self.record().said.iter().map(|(node, text)| format!("  node{node}: {text}\n"));
        format!("at {} ms; the brokers said:\n{}", self.now_ms(), said.collect::<String>())
    }

    /// Ends all faults, except that what the plan of the cluster lets stay cut off is cut off now.
    pub fn heal(&mut self) {
        self.world.heal();
    }

    /// Heals everything, waits until every client is done, reads every log to its end, and lets the checkers judge.
    pub fn ends(mut self) -> Ending {
        if self.world.phase == Phase::Faults {
            self.world.heal();
        }
        // A world whose scenario has a short `fault_ns` heals before the script ends. If the script then runs on for
        // longer than `LIVENESS_NS`, the world reports a violation although no client was late.
        assert!(self.world.healed_at.is_some_and(|healed| healed + LIVENESS_NS > self.world.now));
        while self.world.violation.is_none() && self.world.phase != Phase::Over {
            self.world.advance();
        }
        let logs = self.world.finals.into_iter().map(|(partition, log)| (partition, log.records)).collect();
        let said = self.world.record.map(|record| record.said).unwrap_or_default();
        Ending { violation: self.world.violation, logs, said }
    }

    /// Like [`ends`](Self::ends), and fails if a checker finds something wrong. Gives the records of each log.
    #[track_caller]
    pub fn ends_well(self) -> BTreeMap<PartitionKey, Vec<ReadRecord>> {
        let story = self.story();
        let ending = self.ends();
        assert!(ending.violation.is_none(), "violation of {}\n{story}", ending.violation.expect("there is one"));
        ending.logs
    }
}

/// A scenario in which nothing fails by itself, except that the power is cut once before the last reader begins.
fn calm(seed: u64) -> Scenario {
    Scenario {
        seed,
        profile: Profile::Lite,
        nodes: 1,
        cluster: ClusterPlan::default(),
        // Longer than any script: the world is healed when the script ends, and not before.
        fault_ns: 24 * 3_600_000 * MS,
        disk: DiskOptions::default(),
        network: NetworkOptions::CALM,
        clock: ClockOptions::CALM,
        topics: vec![TopicPlan {
            name: "topic-0".into(),
            partitions: 1,
            replicas: 1,
            auto_created: false,
            configs: BTreeMap::new(),
            without_timestamps: false,
        }],
        properties: [("num.partitions".to_owned(), "1".to_owned())].into(),
        value_bytes_max: 100,
        buggify: false,
        clients: Vec::new(),
        faults: Vec::new(),
        last_power_loss: true,
    }
}
