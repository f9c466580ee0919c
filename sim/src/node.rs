//! A node: the disks and clocks of a machine, and the life of the process on it.

use crate::clock::Clock;
use crate::disk::{Disk, Loss};
use crate::random::stream;
use crate::scenario::Scenario;
use std::collections::{BTreeMap, VecDeque};
use tidelog_core::broker::Broker;
use tidelog_core::buggify::Dice;
use tidelog_core::config::BrokerConfig;
use tidelog_core::plant::Plants;

/// A broker's process, from its start to its end.
#[derive(Debug)]
pub struct Process {
    pub broker: Broker,
    /// It has said `Ready` and has not been told to stop.
    pub accepts: bool,
    /// It was told to stop; how it goes on once it has.
    pub stopping: Option<(Loss, u64)>,
    /// When the next tick is on its way.
    pub tick_at: Option<u64>,
    pub ticks: u64,
    /// Inputs handled.
    pub steps: u64,
    /// What it does though nothing forces it to.
    pub dice: Dice,
    /// It will be restarted because its disk has failed.
    pub doctor_is_called: bool,
}

#[derive(Debug)]
pub struct Node {
    pub index: u32,
    pub disk: Disk,
    pub process: Option<Process>,
    /// Counts processes: what was meant for an earlier one is void.
    pub life: u64,
    pub paused: bool,
    /// Until when the process pauses after each step, and for how long at most.
    pub slow: Option<(u64, u64)>,
    /// Crash after so many steps of the current process.
    pub crash_after_steps: Option<u64>,
    pub crash_again: VecDeque<u32>,
    /// Its processes do nothing that nothing forces them to.
    pub calm: bool,
    seed: u64,
    config: BrokerConfig,
    pub clock: Clock,
}

impl Node {
    pub fn new(scenario: &Scenario, index: u32, plants: Plants) -> Self {
        let seed = scenario.seed;
        let mut properties: BTreeMap<String, String> = scenario.properties.clone();
        properties.insert("node.id".into(), (index + 1).to_string());
        let dirs: Vec<String> = (0..scenario.disk.directories).map(|dir| format!("/disk{dir}")).collect();
        properties.insert("log.dirs".into(), dirs.join(","));
        let (mut config, _) = BrokerConfig::from_properties(&properties)
            .unwrap_or_else(|errors| panic!("the scenario's configuration is refused: {errors:?}"));
        let ports: Vec<u16> = config.listeners.iter().map(|listener| listener.port).collect();
        config.set_addresses(&ports, "node");
        config.plants = plants;
        Self {
            index,
            disk: Disk::new(seed, index.into(), scenario.disk.clone()),
            process: None,
            life: 0,
            paused: false,
            slow: None,
            crash_after_steps: None,
            crash_again: VecDeque::new(),
            calm: !scenario.buggify,
            seed,
            config,
            clock: Clock::new(seed, index.into(), &scenario.clock),
        }
    }

    /// A new process; its first input is up to the world.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "one process at a time");
        let mut stream = stream(self.seed, "broker", &[self.index.into(), self.life]);
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&stream.bytes_16());
        seed[16..].copy_from_slice(&stream.bytes_16());
        self.process = Some(Process {
            broker: Broker::new(self.config.clone(), seed),
            accepts: false,
            stopping: None,
            tick_at: None,
            ticks: 0,
            steps: 0,
            dice: if self.calm { Dice::default() } else { Dice::new(stream.draw()) },
            doctor_is_called: false,
        });
        self.crash_after_steps = self.crash_again.pop_front().map(u64::from);
    }

    /// The process is gone, by whatever cause. Tells whether some of the page cache is gone with it.
    pub fn end(&mut self, loss: Loss) -> bool {
        self.process = None;
        self.life += 1;
        self.paused = false;
        self.crash_after_steps = None;
        self.disk.crash(loss)
    }

    pub fn accepts(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.accepts)
    }
}
