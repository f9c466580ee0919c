//! A node: a machine with its disks and clocks, and the broker's process on it, if one runs.

use crate::clock::Clock;
use crate::cluster::{Member, host_name, node_id};
use crate::disk::{Disk, Loss};
use crate::random::stream;
use crate::scenario::Scenario;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tidelog_client::{Address, Owed};
use tidelog_core::broker::Broker;
use tidelog_core::buggify::Dice;
use tidelog_core::config::{BrokerConfig, LogLevel, Loggers};
use tidelog_core::ids::{ConnId, LinkId, Uuid};
use tidelog_core::plant::Plants;

/// A broker's process, from its start to its end.
#[derive(Debug)]
pub struct Process {
    pub broker: Broker,
    /// The connections that the broker has opened.
    pub links: BTreeMap<LinkId, NodeLink>,
    /// It has said `Ready` and has not been told to stop.
    pub is_ready: bool,
    /// The listeners on which it takes connections.
    pub listens: BTreeSet<u16>,
    /// The process was told to stop. Once it has stopped, this is lost with it, and the next process starts this many
    /// nanoseconds later.
    pub stopping: Option<(Loss, u64)>,
    /// When the next tick comes, if one is on its way.
    pub tick_at: Option<u64>,
    pub ticks: u64,
    /// How many inputs it has handled.
    pub steps: u64,
    /// Decides where the broker does rare things that nothing forces it to (`core/storage/src/buggify.rs`).
    pub dice: Dice,
    /// It has ended by itself, because it could not go on.
    pub gave_up: bool,
    /// Its disk has failed, and a restart is scheduled.
    pub restart_is_scheduled: bool,
}

/// A connection that a broker has asked for, and has neither lost nor hung up.
#[derive(Debug)]
pub struct NodeLink {
    pub conn: ConnId,
    /// As what the next answers on it are read.
    pub owed: Owed,
}

/// Whether a node may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Here,
    /// It is a broker that was taken away, and never comes back.
    Gone,
    /// It is gone, and not registered any more.
    Unregistered,
}

#[derive(Debug)]
pub struct Node {
    pub index: u32,
    pub disk: Disk,
    /// How many disks it has lost.
    pub disks_lost: u32,
    pub process: Option<Process>,
    /// How many processes have ended here. An event that was meant for an earlier process is dropped.
    pub life: u64,
    pub paused: bool,
    /// If the process is slow: until when, and for how many nanoseconds at most it pauses after each step.
    pub slow: Option<(u64, u64)>,
    pub presence: Presence,
    /// The current process crashes once it has handled this many inputs.
    pub crash_after_steps: Option<u64>,
    pub crash_again: VecDeque<u32>,
    /// Its brokers do no rare things that nothing forces them to (see [`Process::dice`]).
    pub calm: bool,
    seed: u64,
    config: BrokerConfig,
    pub clock: Clock,
}

impl Node {
    pub fn new(scenario: &Scenario, index: u32, plants: Plants) -> Self {
        let seed = scenario.seed;
        let member = (scenario.nodes > 1).then_some(Member {
            seed,
            plan: &scenario.cluster,
            nodes: scenario.nodes,
            node: index,
            disk: 0,
        });
        let mut properties: BTreeMap<String, String> = scenario.properties.clone();
        properties.insert("node.id".into(), node_id(index).to_string());
        properties.extend(member.iter().flat_map(Member::properties));
        // Many runs are shorter than the default delay.
        properties.entry("log.initial.task.delay.ms".into()).or_insert("100".into());
        let dirs: Vec<String> = (0..scenario.disk.directories).map(|dir| format!("/disk{dir}")).collect();
        properties.insert("log.dirs".into(), dirs.join(","));
        let (mut config, _) = BrokerConfig::from_properties(&properties).unwrap_or_else(|errors| {
            panic!("the brokers' configuration is refused: {}", crate::panics::listed(&errors))
        });
        let ports: Vec<u16> = config.listeners.iter().map(|listener| listener.port).collect();
        config.set_addresses(&ports, &host_name(index));
        config.plants = plants;
        config.loggers = Loggers::of_broker(LogLevel::Info);
        let mut disk = Disk::new(seed, index.into(), scenario.disk.clone());
        if let Some(member) = member {
            member.format(&mut disk, scenario.disk.directories);
        }
        Self {
            index,
            disk,
            disks_lost: 0,
            process: None,
            life: 0,
            paused: false,
            slow: None,
            presence: Presence::Here,
            crash_after_steps: None,
            crash_again: VecDeque::new(),
            calm: !scenario.buggify,
            seed,
            config,
            clock: Clock::new(seed, index.into(), &scenario.clock),
        }
    }

    /// Starts a process. The world hands it its first input.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "one process at a time");
        let mut stream = stream(self.seed, "broker", &[self.index.into(), self.life]);
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&stream.bytes_16());
        seed[16..].copy_from_slice(&stream.bytes_16());
        self.process = Some(Process {
            broker: Broker::new(self.config.clone(), seed),
            links: BTreeMap::new(),
            is_ready: false,
            listens: BTreeSet::new(),
            stopping: None,
            tick_at: None,
            ticks: 0,
            steps: 0,
            dice: if self.calm { Dice::default() } else { Dice::new(stream.draw()) },
            gave_up: false,
            restart_is_scheduled: false,
        });
        self.crash_after_steps = self.crash_again.pop_front().map(u64::from);
    }

    /// The process is gone at the time `now`, for whatever reason. Gives true if some of the page cache is lost with
    /// it.
    pub fn end(&mut self, now: u64, loss: Loss) -> bool {
        self.process = None;
        self.life += 1;
        self.paused = false;
        self.crash_after_steps = None;
        self.disk.crash(self.clock.now(now).wall, loss)
    }

    /// The disk is lost, with all that was on it, and there is another one in its place, formatted anew.
    pub fn lose_disk(&mut self, scenario: &Scenario) {
        assert!(self.process.is_none(), "its process has ended");
        self.disks_lost += 1;
        self.disk.reformat();
        self.member(scenario, self.disks_lost).format(&mut self.disk, scenario.disk.directories);
    }

    /// The number of the disk in whose metadata directory this id stands, if the node has had such a disk.
    pub fn disk_with(&self, scenario: &Scenario, directory: Uuid) -> Option<u32> {
        (0..=self.disks_lost).find(|disk| self.member(scenario, *disk).metadata_directory() == directory)
    }

    fn member<'a>(&self, scenario: &'a Scenario, disk: u32) -> Member<'a> {
        Member { seed: scenario.seed, plan: &scenario.cluster, nodes: scenario.nodes, node: self.index, disk }
    }

    /// The place of the listener at this address, if it is one of this node's.
    pub fn listener_at(&self, address: &Address) -> Option<u16> {
        if address.host != host_name(self.index) {
            return None;
        }
        let place = self.config.listeners.iter().position(|listener| listener.port == address.port);
        place.map(|place| place as u16)
    }

    pub fn accepts(&self, listener: u16) -> bool {
        self.process.as_ref().is_some_and(|process| process.listens.contains(&listener))
    }

    pub fn is_gone(&self) -> bool {
        self.presence != Presence::Here
    }

    pub fn is_ready(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.is_ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::address;

    #[test]
    fn a_node_listens_at_its_own_name_and_ports_alone() {
        let node = Node::new(&Scenario::default(), 0, Plants::default());
        assert_eq!(node.listener_at(&address(0)), Some(0));
        assert_eq!(node.listener_at(&address(1)), None);
        assert_eq!(node.listener_at(&Address::new("node0", 9_093)), None);
        let node = Node::new(&Scenario { nodes: 2, ..Scenario::default() }, 0, Plants::default());
        assert_eq!(node.listener_at(&address(0)), Some(0));
        assert_eq!(node.listener_at(&Address::new("node0", 9_093)), Some(1));
        assert_eq!(node.listener_at(&Address::new("node1", 9_093)), None);
    }
}
