//! The broker as a world sees it. Every input goes through [`Broker::handle`], which hands it to the part that owns it.
//!
//! A world calls, in this order: [`Broker::new`]; `handle` with [`Input::Boot`]; then `handle` for everything that
//! happens, and with [`Input::Tick`] once [`Broker::deadline`] has passed. After every call it carries out the outputs
//! in the outbox, in their order. It accepts connections on a listener from [`Output::Listen`](crate::io::Output::Listen)
//! on. After `Stopped` or `Fatal` the broker does nothing any more.

mod boot;
mod channel;
mod controller;
mod lifecycle;
mod metadata;
mod metrics;
mod names;
mod openings;
mod peers;
mod replicas;
mod stop;
mod timers;
mod view;

use crate::api::{self, Parts, PendingRequest};
use crate::buggify::Site;
use crate::config::{BrokerConfig, ConnectionLimits};
use crate::ids::{ConnId, LogDirId, LogId};
use crate::io::{Input, IoCompletion, IoOwner, Outbox, Request};
use crate::peers::Peers;
use crate::probe::Probe;
use crate::quorum;
use crate::replication::{FetcherId, Fetchers};
use crate::storage::{CheckpointKind, CheckpointWrites, DirEvent};
use crate::time::{Mono, Now};
use boot::FoundPartitions;
use lifecycle::Lifecycle;
pub use metrics::{
    BrokerState, ControllerMetrics, DirectoryMetrics, Health, Metrics, PartitionMetrics, QuorumMetrics, ReplicaMetrics,
    ReplicationMetrics, SessionMetrics, TopicMetrics,
};
use names::LeavingNames;
use openings::Openings;
use replicas::IsrChanges;
use std::collections::{BTreeMap, BTreeSet};
use tidelog_link::earliest;
pub use timers::Timer;
use timers::Timers;
pub use view::{PartitionView, QuorumView};

/// The seed of all random numbers that a broker draws.
pub type Seed = [u8; 32];

/// A Kafka broker and controller.
#[derive(Debug)]
pub struct Broker {
    phase: Phase,
    parts: Parts,
    timers: Timers,
    peers: Peers,
    life: Lifecycle,
    found_partitions: FoundPartitions,
    openings: Openings,
    /// The checkpoints that must be written before logs are cut.
    lowering: Vec<Lowering>,
    fetchers: Fetchers,
    /// Which fetcher has asked the question of this number.
    leaders_asked: BTreeMap<u64, FetcherId>,
    isr_changes: IsrChanges,
    /// When the clean stop began.
    stop_began: Option<Mono>,
    names: LeavingNames,
    /// The limits that the world knows: those of the properties file, or those of the last `Output::Limits`.
    limits: ConnectionLimits,
}

/// A log that is cut when the checkpoint of its directory does not say any more that what is cut is on stable storage.
#[derive(Debug)]
struct Lowering {
    dir: LogDirId,
    writes: CheckpointWrites,
    /// None: the metadata log.
    log: Option<LogId>,
}

/// How far the broker has started, or stopped.
#[derive(Debug)]
enum Phase {
    Created,
    /// The directories are being read.
    Directories,
    /// The metadata log is being read. Then the broker registers, and catches up with the metadata.
    Metadata,
    /// The partitions' logs are being loaded. These are not loaded yet.
    Logs(BTreeSet<LogId>),
    /// The logs are open, and the broker waits to be unfenced.
    Joining,
    Running,
    /// The controller moves the leaders away from this broker.
    LeavingCluster,
    /// The partitions' logs are being closed. These are not closed yet.
    ClosingLogs(BTreeSet<LogId>),
    ClosingMetadata,
    ClosingDirectories,
    Ended,
}

impl Phase {
    /// Whether partitions are opened and deleted as the metadata changes.
    fn opens_logs(&self) -> bool {
        matches!(self, Self::Logs(_) | Self::Joining | Self::Running | Self::LeavingCluster)
    }
}

impl Broker {
    pub fn new(config: BrokerConfig, seed: Seed) -> Self {
        Self {
            phase: Phase::Created,
            limits: config.layers().connection_limits(),
            timers: Timers::new(&config),
            peers: Peers::new(&config, seed),
            fetchers: Fetchers::new(replicas::fetch_settings(&config)),
            life: Lifecycle::new(&config),
            parts: Parts::new(config, seed),
            found_partitions: FoundPartitions::default(),
            openings: Openings::default(),
            lowering: Vec::new(),
            leaders_asked: BTreeMap::new(),
            isr_changes: IsrChanges::default(),
            stop_began: None,
            names: LeavingNames::default(),
        }
    }

    /// Handles one input to its end. Never blocks and never fails. Nothing that a client sends or a disk returns makes
    /// it panic.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Outbox) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        match input {
            Input::Boot => self.boot(out),
            Input::Connected(conn, origin) => self.parts.replies.connected(conn, origin),
            Input::Request(request) => self.request(now, *request, out),
            Input::Disconnected(conn) => self.disconnected(conn, out),
            Input::Io(completion) => self.io(now, completion, out),
            Input::Link(link, event) => self.link(now, link, event, out),
            Input::Tick => {}
            Input::Stop => self.stop(now, out),
        }
        if self.is_due(now) {
            self.tick(now, out);
        }
        if !matches!(self.phase, Phase::Ended) {
            self.partitions_told(now, out);
            self.propose_isr_changes(now);
            self.ask_controller(now, out);
            self.ask_leaders(now, out);
        }
        self.ask_peers(now, out);
    }

    /// When `handle` must be called with a tick at the latest, and what for.
    pub fn deadline(&self) -> Option<(Mono, Timer)> {
        if matches!(self.phase, Phase::Ended) {
            return None;
        }
        let request = self.parts.pending.deadline().map(|deadline| (deadline, Timer::Request));
        let peers = self.peers.deadline().map(|deadline| (deadline, Timer::Peers));
        earliest([request, peers, self.timers.deadline()])
    }

    /// Whether [`tick`](Self::tick) has something to do.
    fn is_due(&self, now: Now) -> bool {
        let timer = self.timers.deadline().map(|(deadline, _)| deadline);
        let deadline = earliest([self.parts.pending.deadline(), self.peers.deadline(), timer]);
        deadline.is_some_and(|deadline| deadline <= now.mono)
    }

    /// For tests that put into the parts what another broker would have written.
    #[cfg(test)]
    pub(crate) fn parts(&mut self) -> &mut Parts {
        &mut self.parts
    }

    /// Asserts every invariant of every part that may have changed since the last call.
    pub fn verify(&mut self) {
        self.parts.verify();
        self.peers.verify();
        self.names.verify();
        self.fetchers.verify();
    }

    fn request(&mut self, now: Now, request: Request, out: &mut Outbox) {
        let Some(ticket) = self.parts.replies.open(request.conn, &request.header) else { return };
        let serves = match self.phase {
            Phase::Running | Phase::LeavingCluster | Phase::ClosingLogs(_) => true,
            // A leader that stops hands its leadership over, and answers until another node has it.
            Phase::Metadata | Phase::Logs(_) | Phase::Joining | Phase::ClosingMetadata => {
                self.parts.is_controller_listener(ticket.listener)
            }
            _ => false,
        };
        if serves {
            api::handle(&mut self.parts, now, ticket, request, out);
            self.quorum_told(now, out);
            self.watch_sessions();
        } else {
            // A world accepts connections on a listener between `Listen` and `Stopped` only. A request that comes at
            // another time is refused.
            self.parts.replies.close(ticket, "the broker is starting or has stopped", out);
        }
    }

    fn disconnected(&mut self, conn: ConnId, out: &mut Outbox) {
        self.parts.replies.disconnected(conn);
        for (id, pending) in self.parts.pending.disconnected(conn) {
            match pending {
                PendingRequest::Fetch(fetch) => {
                    out.probe(Probe::FetchForgotten);
                    api::fetch::forget(&mut self.parts, id, &fetch);
                }
                PendingRequest::DeleteRecords(_) => drop(api::delete_records::forget(&mut self.parts, id)),
                _ => {}
            }
        }
    }

    fn io(&mut self, now: Now, completion: IoCompletion, out: &mut Outbox) {
        match completion.id.owner {
            IoOwner::Dir(_) => {
                let events = self.parts.dirs.handle_io(completion, out);
                self.dir_events(now, events, out);
            }
            IoOwner::Quorum | IoOwner::Log(quorum::LOG) => self.quorum_io(now, completion, out),
            IoOwner::Log(log) => self.partition_io(now, log, completion, out),
        }
    }

    fn dir_events(&mut self, now: Now, events: Vec<DirEvent>, out: &mut Outbox) {
        for event in events {
            match event {
                DirEvent::Ready(booted) => self.directories_ready(now, booted, out),
                DirEvent::Offline { dir, reason } => {
                    for log in self.parts.partitions.log_ids() {
                        let mut events = Vec::new();
                        if let Some(partition) = self.parts.partitions.get_mut(log)
                            && partition.dir() == dir
                        {
                            partition.take_offline(&reason, out, &mut events);
                            self.fetchers.forget(log);
                        }
                        self.partition_events(now, log, events, out);
                    }
                    self.names_offline(now, dir, out);
                    self.logs_loaded(now, out);
                    self.tell_of_directories(now);
                }
                DirEvent::SetAside => self.logs_loaded(now, out),
                DirEvent::Volume { dir, sizes } => api::log_dirs::measured(&mut self.parts, dir, sizes, out),
                DirEvent::CheckpointWritten { dir, .. } => {
                    self.recovery_point_written(now, dir, out);
                    self.forget_names(now, dir, out);
                    self.logs_loaded(now, out);
                }
                DirEvent::Stopped => self.stopped(now, out),
            }
        }
    }

    /// Answers the requests whose time has run out, and does what the timers are due for.
    fn tick(&mut self, now: Now, out: &mut Outbox) {
        while let Some((id, pending)) = self.parts.pending.take_expired(now.mono) {
            match pending {
                PendingRequest::Produce(pending) => api::produce::expire(&mut self.parts, id, pending, out),
                PendingRequest::Fetch(fetch) => api::fetch::expire(&mut self.parts, now, id, fetch, out),
                PendingRequest::DeleteRecords(pending) => {
                    api::delete_records::expire(&mut self.parts, id, pending, out);
                }
                other => panic!("{other:?} has no deadline"),
            }
        }
        self.tick_peers(now, out);
        while let Some(timer) = self.timers.take_due(now.mono) {
            self.timer(now, timer, out);
        }
    }

    fn timer(&mut self, now: Now, timer: Timer, out: &mut Outbox) {
        if out.buggify(Site::Checkpoint) {
            self.parts.checkpoint(CheckpointKind::RecoveryPoint, out);
            self.parts.checkpoint(CheckpointKind::LogStart, out);
        }
        if out.buggify(Site::Retention) {
            self.each_log(now, out, crate::replication::Partition::enforce_retention);
        }
        match timer {
            Timer::Request | Timer::Peers => panic!("requests and peers keep their own deadlines"),
            Timer::HighWatermarkCheckpoint => self.parts.checkpoint(CheckpointKind::HighWatermark, out),
            Timer::RecoveryPointCheckpoint => self.parts.checkpoint(CheckpointKind::RecoveryPoint, out),
            Timer::LogStartCheckpoint => self.parts.checkpoint(CheckpointKind::LogStart, out),
            Timer::Retention => self.each_log(now, out, crate::replication::Partition::enforce_retention),
            Timer::Quorum => {
                let events = self.parts.quorum().tick(now, out);
                self.quorum_events(now, events, out);
            }
            Timer::Idle => self.show_that_the_controller_lives(now, out),
            Timer::Sessions => self.fence_silent_brokers(now, out),
            Timer::PreferredElections | Timer::UncleanElections => self.elect_leaders_unasked(now, timer, out),
            // What is due is done with what else the controller is asked.
            Timer::Life | Timer::Channel => {}
            Timer::Fetchers => self.fetchers.wake(now.mono),
            Timer::Lag => self.shrink_isrs(now, out),
            Timer::Log(log) => {
                if let Some(partition) = self.parts.partitions.get_mut(log) {
                    partition.tick(now, out);
                    // If the log is still due, it waits for the disk. The timer must lie in the future, or this loop
                    // would not end.
                    let deadline = partition.log().deadline().map(|at| at.max(now.mono.plus_ms(1)));
                    self.timers.set(timer, deadline);
                }
            }
        }
    }

    fn each_log(
        &mut self,
        now: Now,
        out: &mut Outbox,
        mut work: impl FnMut(&mut crate::replication::Partition, Now, &mut Outbox),
    ) {
        for log in self.parts.partitions.log_ids() {
            if let Some(partition) = self.parts.partitions.get_mut(log) {
                work(partition, now, out);
                let deadline = partition.log().deadline();
                self.timers.set(Timer::Log(log), deadline);
            }
        }
    }
}
