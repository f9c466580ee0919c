//! Deals the faults of a scenario, and ends each of them when its time is over.

use super::events::Event;
use super::{Phase, World};
use crate::client::{ClientInput, OpenerInput};
use crate::disk::{Damage, Loss};
use crate::history::{Fact, PartitionKey};
use crate::network::{End, Outage, Ways};
use crate::random::stream;
use crate::scenario::Fault;
use crate::trace::{Digest, Note};
use tidelog_core::buggify::Dice;
use tidelog_core::io::Input;

/// How long a clean stop may take before the process is killed.
const STOP_NS_MAX: u64 = 20_000_000_000;

/// When a partition ends that never heals.
const FOR_GOOD: u64 = 1 << 60;

impl World {
    pub(super) fn deal_fault(&mut self, place: usize) {
        if self.phase != Phase::Faults {
            return;
        }
        let timed = self.scenario.faults[place].clone();
        self.deal(timed.node as usize, timed.fault);
    }

    pub(super) fn deal(&mut self, node: usize, fault: Fault) {
        self.trace.note(self.now, Note::Fault { node, fault: &fault });
        let life = self.nodes[node].life;
        match fault {
            Fault::Crash { loss, down_ns, again_after_steps } => {
                self.count("crashes");
                self.nodes[node].crash_again = again_after_steps.into();
                self.end_process(node, loss, down_ns);
            }
            Fault::Stop { loss, down_ns, crash_after_steps } => {
                let Some(process) = self.nodes[node].process.as_mut() else { return };
                if process.stopping.is_some() {
                    return;
                }
                process.is_ready = false;
                process.stopping = Some((loss, down_ns));
                let crash_at = crash_after_steps.map(|steps| process.steps + u64::from(steps));
                self.nodes[node].crash_after_steps = crash_at.or(self.nodes[node].crash_after_steps);
                self.events.push(self.now + STOP_NS_MAX, Event::StopDeadline { node, life });
                if !self.nodes[node].paused {
                    self.step_node(node, Input::Stop, Digest::default());
                }
            }
            Fault::Rolling { clean, loss, down_ns, patience_ns } => {
                let one = match clean {
                    true => Fault::Stop { loss, down_ns, crash_after_steps: None },
                    false => Fault::Crash { loss, down_ns, again_after_steps: Vec::new() },
                };
                self.begin_rolling(node, one, patience_ns);
            }
            Fault::CutAll => {
                for conn in self.network.of_node(node as u32) {
                    self.break_connection(conn);
                }
            }
            Fault::Partition { with, from: others, ways, for_ns, times } => {
                self.count("partitions");
                let ends: Vec<End> = [End::Node(node as u32)].into_iter().chain(with).collect();
                for time in 0..u64::from(times.max(1)) {
                    let from = self.now + 2 * time * for_ns;
                    let until = (from + for_ns).min(self.scenario.fault_ns);
                    let (ends, others) = (ends.clone(), others.clone());
                    self.network.part(Outage { ends, others, ways, from, until });
                }
            }
            Fault::Swizzle { for_ns } => {
                self.count("partitions");
                let mut stream = stream(self.scenario.seed, "swizzle", &[node as u64, self.now]);
                let clients = self.clients.iter().map(|client| End::Client(client.number));
                let others = (0..self.scenario.nodes).filter(|other| *other as usize != node).map(End::Node);
                let half = for_ns / 2;
                let outages = clients.chain(others).map(|other| {
                    let (from, until) = (self.now + stream.between(0, half), self.now + half + stream.between(0, half));
                    let until = until.min(self.scenario.fault_ns);
                    let (ends, others) = (vec![End::Node(node as u32)], vec![other]);
                    Outage { ends, others, ways: Ways::Both, from, until }
                });
                outages.for_each(|outage| self.network.part(outage));
            }
            Fault::Slow { for_ns, step_ns_max } => {
                self.count("slow processes");
                self.nodes[node].slow = Some((self.now + for_ns, step_ns_max));
            }
            Fault::DiskFull { for_ns } => {
                self.nodes[node].disk.full = true;
                self.trace.note(self.now, Note::Full { node, full: true });
                self.events.push(self.now + for_ns, Event::DiskHasSpace { node });
            }
            Fault::Damage { damage, for_ns } => self.damage(node, damage, for_ns),
            Fault::Unmount { dir, for_ns } => {
                // A node whose only directory is empty would start as a new node.
                if self.scenario.disk.directories == 1 || self.nodes[node].disk.is_damaged() {
                    return;
                }
                self.end_process(node, Loss::Power, 1_000_000);
                let (dir, disk) = (dir % self.scenario.disk.directories, &mut self.nodes[node].disk);
                // The volume was never formatted. While it is unmounted, the broker would format the empty directory in
                // its place instead, and afterwards refuse the volume itself.
                if !disk.files(dir).iter().any(|file| file == "meta.properties") {
                    return;
                }
                disk.unmount(dir);
                self.count("volumes unmounted");
                self.events.push(self.now + for_ns, Event::Repair { node });
            }
            Fault::LoseDisk { down_ns } => self.lose_disk(node, down_ns),
            Fault::Leave { unregister } => self.leave(node, unregister),
            Fault::WallJump { ms } => self.nodes[node].clock.jump_wall(ms),
            Fault::Pause { for_ns } => {
                if self.nodes[node].process.is_some() && !self.nodes[node].paused {
                    self.count("pauses");
                    self.nodes[node].paused = true;
                    self.trace.note(self.now, Note::Paused { node, paused: true });
                    self.events.push(self.now + for_ns, Event::Resume { node, life });
                }
            }
        }
    }

    fn damage(&mut self, node: usize, damage: Damage, for_ns: u64) {
        if damage == Damage::Snapshots {
            // They are read at a start.
            self.end_process(node, Loss::Power, 1_000_000);
        }
        let dealt = self.counts.get("bytes damaged").copied().unwrap_or(0);
        let mut stream = stream(self.scenario.seed, "damage", &[node as u64, self.now, dealt]);
        let Some(damaged) = self.nodes[node].disk.damage(damage, self.scenario.nodes == 1, &mut stream) else { return };
        self.count("bytes damaged");
        self.trace.say(self.now, format_args!("node{node}"), format_args!("! {damage:?} in {damaged:?}"));
        let time_index = damaged.path.ends_with(".timeindex");
        if let Some(partition) = self.partition_at(&damaged.path)
            && (damage != Damage::Hint || time_index)
        {
            self.fact(None, Fact::Damaged { node: node as u32, partition, time_index });
        }
        if damage != Damage::Hint {
            self.events.push(self.now + for_ns, Event::Repair { node });
        }
    }

    /// The partition to whose directory a path belongs.
    pub(super) fn partition_at(&self, path: &str) -> Option<PartitionKey> {
        let (directory, _) = path.split_once('/')?;
        let (name, index) = directory.rsplit_once('-')?;
        let topic = self.scenario.topics.iter().position(|topic| topic.name == name)?;
        Some(PartitionKey { topic: topic as u16, index: index.parse().ok()? })
    }

    /// An operator restores what was damaged and starts the broker again.
    pub(super) fn repair(&mut self, node: usize) {
        if self.nodes[node].disk.is_damaged() {
            self.nodes[node].disk.repair();
            self.fact(None, Fact::Repaired { node: node as u32 });
            self.end_process(node, Loss::Process, 1_000_000);
        }
    }

    pub(super) fn resume(&mut self, node: usize, life: u64) {
        if self.nodes[node].life != life || !self.nodes[node].paused {
            return;
        }
        self.nodes[node].paused = false;
        self.trace.note(self.now, Note::Paused { node, paused: false });
        for event in std::mem::take(&mut self.deferred[node]) {
            // The process may end while these events are handled. Each event names the process that it was meant for.
            self.handle(event);
        }
    }

    /// Pauses a slow process for a moment after this step.
    pub(super) fn slow_down(&mut self, node: usize) {
        let Some((until, step_ns_max)) = self.nodes[node].slow else { return };
        let Some(process) = self.nodes[node].process.as_ref() else { return };
        if self.now >= until {
            self.nodes[node].slow = None;
            return;
        }
        let life = self.nodes[node].life;
        let mut stream = stream(self.scenario.seed, "slow", &[node as u64, life, process.steps]);
        self.nodes[node].paused = true;
        self.events.push(self.now + stream.skewed(step_ns_max), Event::Resume { node, life });
    }

    /// Crashes a process that has reached its `crash_after_steps`. Counting steps instead of time makes crashes hit a
    /// recovery as often as anything else.
    pub(super) fn crash_when_it_is_time(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        if self.nodes[node].crash_after_steps.is_some_and(|steps| process.steps >= steps) {
            if process.stopping.is_some() {
                self.count("crashes in a clean stop");
            } else if !process.is_ready {
                self.count("crashes in recovery");
            }
            self.count("crashes");
            let mut stream = stream(self.scenario.seed, "crash.again", &[node as u64, self.nodes[node].life]);
            let loss = if stream.one_in(4) { Loss::Process } else { Loss::Power };
            self.end_process(node, loss, stream.skewed(100_000_000));
        }
    }

    pub(super) fn kill_if_not_stopped(&mut self, node: usize, life: u64) {
        if self.nodes[node].life == life && self.nodes[node].process.is_some() {
            if self.nodes[node].disk.errors_dealt == 0 && !self.nodes[node].paused {
                return self.violate("liveness", format!("node {node} has not stopped in 20 seconds"));
            }
            self.end_process(node, Loss::Process, 1_000_000);
        }
    }

    /// If the disk has failed, schedules the restart of the broker by an operator who notices it after a while.
    pub(super) fn schedule_restart_after_disk_error(&mut self, node: usize) {
        let dealt = self.nodes[node].disk.errors_dealt;
        let life = self.nodes[node].life;
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        if dealt > 0 && !process.restart_is_scheduled {
            process.restart_is_scheduled = true;
            let mut stream = stream(self.scenario.seed, "doctor", &[node as u64, life]);
            self.events.push(self.now + stream.skewed(3_000_000_000), Event::RestartAfterDiskError { node, life });
        }
    }

    pub(super) fn restart_after_disk_error(&mut self, node: usize, life: u64) {
        if self.nodes[node].life == life {
            let mut stream = stream(self.scenario.seed, "doctor.loss", &[node as u64, life]);
            let loss = if stream.one_in(2) { Loss::Process } else { Loss::Power };
            self.end_process(node, loss, stream.skewed(500_000_000));
        }
    }

    /// From now on nothing fails but what the plan of the cluster lets stay cut off: a node that is down starts, a process whose disk has failed is restarted, and a
    /// paused process goes on.
    pub(super) fn heal(&mut self) {
        self.phase = Phase::Settle;
        self.healed_at = Some(self.now);
        self.trace.say(self.now, "world", format_args!("phase {:?}", self.phase));
        self.network.heal();
        for cut_off in &self.scenario.cluster.cut_off {
            let (ends, others) = (vec![End::Node(cut_off.node)], Vec::new());
            self.network.part(Outage { ends, others, ways: cut_off.ways, from: self.now, until: FOR_GOOD });
        }
        for conn in std::mem::take(&mut self.hanging) {
            self.tell_opener(self.now + 50_000, conn, OpenerInput::Refused);
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].disk.full {
                self.trace.note(self.now, Note::Full { node, full: false });
            }
            self.repair(node);
            self.nodes[node].disk.heal();
            self.nodes[node].crash_again.clear();
            self.nodes[node].calm = true;
            if let Some(process) = &mut self.nodes[node].process {
                process.dice = Dice::default();
            }
            self.nodes[node].crash_after_steps = None;
            self.nodes[node].slow = None;
            let life = self.nodes[node].life;
            self.resume(node, life);
            // A tick that was drawn to come late is drawn again, and now comes when it is due.
            if let Some(process) = self.nodes[node].process.as_mut() {
                process.tick_at = None;
                self.schedule_tick(node);
            }
            let is_stopping = self.nodes[node].process.as_ref().is_some_and(|process| process.stopping.is_some());
            if self.nodes[node].disk.errors_dealt > 0 || is_stopping {
                self.end_process(node, Loss::Process, 1_000_000);
            } else {
                self.events.push(self.now, Event::NodeStart { node, life: self.nodes[node].life });
            }
        }
        self.fact(None, Fact::Healed);
        for client in 0..self.clients.len() {
            self.step_client(client, ClientInput::Healed);
        }
        if self.clients.is_empty() {
            self.advance_phase();
        }
    }
}
