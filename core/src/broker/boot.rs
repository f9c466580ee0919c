//! The start of a broker: it reads the log directories, then the metadata, then loads the log of every partition, and
//! then accepts clients.

use super::openings::Openings;
use super::{Broker, Phase};
use crate::controller;
use crate::ids::{LogDirId, LogId, Uuid};
use crate::io::{Level, Outbox, Output, Part};
use crate::plant::{Plant, Plants};
use crate::probe::Probe;
use crate::replication::{Assignment, Local, Partition};
use crate::storage::checkpoints::Offsets;
use crate::storage::names::METADATA_PARTITION_DIR;
use crate::storage::{Booted, CheckpointKind, DirState, LoadHints, Log, LogPlace, TopicPartition};
use crate::time::Now;
use std::collections::{BTreeMap, BTreeSet};

/// The partition directories that the start found and that are not opened yet.
#[derive(Debug, Default)]
pub struct FoundPartitions {
    /// Several log directories may hold a partition directory of the same name. These belong to different topics: one
    /// topic took the name of another that was deleted.
    partitions: BTreeMap<TopicPartition, Vec<FoundDir>>,
}

/// A partition directory that the start found.
#[derive(Debug)]
struct FoundDir {
    dir: LogDirId,
    topic_id: Option<Uuid>,
    hints: LoadHints,
}

impl FoundPartitions {
    pub fn new(booted: &Booted, plants: Plants) -> Self {
        let crash_is_clean = plants.has(Plant::CrashTakenForCleanStop);
        let mut partitions: BTreeMap<TopicPartition, Vec<FoundDir>> = BTreeMap::new();
        for dir in &booted.dirs {
            for (name, topic_id) in &dir.partitions {
                let hints = LoadHints {
                    clean: dir.clean || crash_is_clean,
                    recovery_point: dir.recovery_points.get(name).copied(),
                    log_start: dir.log_starts.get(name).copied(),
                    has_topic_id: topic_id.is_some(),
                };
                let found = FoundDir { dir: dir.dir, topic_id: *topic_id, hints };
                partitions.entry(name.clone()).or_default().push(found);
            }
        }
        Self { partitions }
    }

    /// Takes out the directory of this partition: the one that holds the topic's id, or else one that holds no topic
    /// id.
    fn take(&mut self, name: &TopicPartition, topic: Uuid) -> Option<(LogDirId, LoadHints)> {
        let found = self.partitions.get_mut(name)?;
        let says = |id: Option<Uuid>| found.iter().position(|found| found.topic_id == id);
        let place = says(Some(topic)).or_else(|| says(None))?;
        let FoundDir { dir, hints, .. } = found.remove(place);
        if found.is_empty() {
            self.partitions.remove(name);
        }
        Some((dir, hints))
    }

    /// Whether a directory of this name is left, which belongs to an earlier topic.
    fn has(&self, name: &TopicPartition) -> bool {
        self.partitions.contains_key(name)
    }
}

/// What each checkpoint said at the start.
fn found_checkpoints(dirs: Vec<DirState>) -> BTreeMap<(LogDirId, CheckpointKind), Offsets> {
    let of_dir = |dir: DirState| {
        [
            ((dir.dir, CheckpointKind::RecoveryPoint), dir.recovery_points),
            ((dir.dir, CheckpointKind::LogStart), dir.log_starts),
            ((dir.dir, CheckpointKind::HighWatermark), dir.high_watermarks),
        ]
    };
    dirs.into_iter().flat_map(of_dir).collect()
}

/// What the metadata says of a partition, for its replica.
pub(super) fn assignment(partition: &controller::Partition) -> Assignment {
    Assignment {
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        replicas: partition.replicas.clone(),
        isr: partition.isr.clone(),
    }
}

impl Broker {
    pub(super) fn boot(&mut self, out: &mut Outbox) {
        assert!(matches!(self.phase, Phase::Created), "booted twice");
        self.phase = Phase::Directories;
        self.parts.dirs.boot(out);
    }

    /// The log directories are read, and they belong to this broker.
    pub(super) fn directories_ready(&mut self, now: Now, booted: Booted, out: &mut Outbox) {
        self.phase = Phase::Metadata;
        let paths = &self.parts.config.log_dirs;
        self.openings = Openings::begin(now, &booted, |dir| &paths[usize::from(dir.0)], out);
        self.parts.cluster_id = booted.cluster_id.clone();
        self.parts.previous_broker_epoch = booted.previous_broker_epoch;
        for dir in &booted.dirs {
            for (name, _, reason) in &dir.aside {
                let path = &self.parts.config.log_dirs[usize::from(dir.dir.0)];
                out.event(Level::Warn, Part::Broker, format!("{path}/{name} is left alone ({reason:?})"));
            }
        }
        self.found_partitions = FoundPartitions::new(&booted, self.parts.config.plants);
        self.parts.found_checkpoints = found_checkpoints(booted.dirs);
        let metadata =
            TopicPartition::parse(METADATA_PARTITION_DIR).expect("it is the name of a partition's directory");
        let found = self.found_partitions.partitions.remove(&metadata);
        let hints = found.map_or_else(LoadHints::default, |found| found[0].hints);
        self.parts.start_quorum(hints, out);
        self.listen(true, out);
        let holding = self.found_partitions.partitions.values().flatten().map(|found| found.dir);
        self.parts.unlisted_dirs = holding.filter(|dir| !self.parts.takes_partitions(*dir)).collect();
        let has_broker = self.parts.config.roles.has_broker();
        if has_broker && self.parts.directories_online().is_empty() {
            return self.fatal("none of the directories in log.dirs can be used".to_owned(), out);
        }
        self.begin_life(now);
    }

    /// Opens the listeners of controllers, or those of clients.
    fn listen(&self, of_controllers: bool, out: &mut Outbox) {
        out.outputs.extend(self.listeners(of_controllers).map(Output::Listen));
    }

    /// The places of the listeners of controllers, or of those of clients.
    pub(super) fn listeners(&self, of_controllers: bool) -> impl Iterator<Item = u16> + '_ {
        let listeners = (0..).zip(&self.parts.controller_listeners);
        listeners.filter(move |(_, is_controllers)| **is_controllers == of_controllers).map(|(place, _)| place)
    }

    /// The broker is registered and knows the metadata: opens every partition that the metadata places on this node.
    pub(super) fn open_partitions(&mut self, now: Now, out: &mut Outbox) {
        if !matches!(self.phase, Phase::Metadata) {
            return;
        }
        if let Some(log) = self.parts.quorum().log() {
            self.openings.opened(now, log);
        }
        let node = self.parts.config.node_id;
        let mine: Vec<(Uuid, i32)> = self
            .parts
            .image
            .topics()
            .flat_map(|topic| {
                topic
                    .partitions
                    .iter()
                    .filter(|(_, partition)| partition.replicas.contains(&node))
                    .map(|(index, _)| (topic.id, *index))
            })
            .collect();
        let mut loading = BTreeSet::new();
        for (topic, index) in mine {
            loading.extend(self.open_partition(now, topic, index, out));
        }
        // The directories that are left belong to topics that were deleted, but a crash came before they were renamed,
        // or their log directory was offline.
        let left = std::mem::take(&mut self.found_partitions.partitions).into_iter();
        let left = left.flat_map(|(name, found)| found.into_iter().map(move |found| (name.clone(), found)));
        for (name, FoundDir { dir, topic_id, .. }) in left {
            let unique = self.parts.draw_uuid();
            let path = self.parts.config.log_dirs[usize::from(dir.0)].clone();
            let Some(aside) = self.parts.dirs.set_aside(dir, &name, unique, out) else { continue };
            let whose = topic_id.map(|id| format!(", whose id is {id},")).unwrap_or_default();
            let text = format!("{path}/{name}{whose} belongs to no topic of this cluster; it is kept as {aside}");
            out.event(Level::Warn, Part::Broker, text);
            self.names.leave(dir, name);
        }
        self.phase = Phase::Logs(loading);
        self.open_waiting(now, out);
        self.logs_loaded(now, out);
    }

    /// Opens or creates the log of one partition. Gives its id if the log must be loaded first.
    pub(super) fn open_partition(&mut self, now: Now, topic: Uuid, index: i32, out: &mut Outbox) -> Option<LogId> {
        let parts = &mut self.parts;
        let image = parts.image.topic(topic)?;
        let state = image.partitions.get(&index)?;
        let name = TopicPartition::new(image.name.clone(), index);
        let found = self.found_partitions.take(&name, topic);
        if found.is_none() && (self.found_partitions.has(&name) || self.names.is_leaving(&name)) {
            // The directory of an earlier topic with this name is still being renamed.
            out.probe(Probe::TopicNameWaits);
            self.names.wait(name, topic);
            return None;
        }
        let (settings, rules) = parts.settings_of(topic)?;
        let id = parts.partitions.next_log_id();
        let dir = match found {
            Some((dir, _)) => Some(dir),
            // The controller has named a directory (KIP-858), unless an older Kafka placed the partition. While a log
            // directory is offline, a partition that was not found may lie in it, so no empty log must be created
            // elsewhere.
            None => match state.directory(parts.config.node_id).and_then(|id| parts.dirs.by_directory_id(id)) {
                Some(dir) => Some(dir),
                None if parts.dirs.paths().any(|(dir, _)| !parts.dirs.is_online(dir)) => None,
                None => parts.dirs.choose(|dir| {
                    let held = || parts.partitions.iter().filter(|partition| partition.dir() == dir).count();
                    parts.takes_partitions(dir).then(held)
                }),
            },
        };
        let Some(dir) = dir.filter(|dir| parts.dirs.is_online(*dir)) else {
            out.event(Level::Error, Part::Broker, format!("{name} has no log directory that is online"));
            return None;
        };
        let place = LogPlace { dir, name: name.to_string(), topic_id: topic };
        let plants = parts.config.plants;
        let log = match found {
            Some((_, hints)) => Log::load(id, place, settings, plants, hints, out),
            None => Log::create(id, place, settings, plants, now, out),
        };
        let local = Local { node: parts.config.node_id, max_lag_ms: parts.config.replica_lag_time_max_ms };
        let named = (image.name.clone(), topic, index);
        let mut partition = Partition::new(named, local, log, now, &assignment(state), rules, plants);
        match found {
            None => partition.created(out),
            Some(_) => {
                let checkpoints = &parts.found_checkpoints;
                let known = checkpoints.get(&(dir, CheckpointKind::HighWatermark)).and_then(|known| known.get(&name));
                known.into_iter().for_each(|high| partition.was_committed(*high));
            }
        }
        self.fetchers.follow(id, &partition);
        parts.partitions.insert(id, partition);
        found.is_some().then_some(id)
    }

    /// A log that the start waits for has loaded, or has failed.
    pub(super) fn log_loaded(&mut self, now: Now, log: LogId, out: &mut Outbox) {
        if let Phase::Logs(loading) = &mut self.phase {
            if loading.remove(&log)
                && let Some(partition) = self.parts.partitions.get(log)
                && partition.log().is_open()
            {
                self.openings.opened(now, partition.log());
            }
            self.logs_loaded(now, out);
        }
    }

    /// Ends the start once all logs are loaded, the directories of deleted topics are renamed, and their names are
    /// free.
    pub(super) fn logs_loaded(&mut self, now: Now, out: &mut Outbox) {
        if let Phase::Logs(loading) = &self.phase
            && loading.is_empty()
            && !self.parts.dirs.is_setting_aside()
        {
            self.parts.found_checkpoints.clear();
            self.stray_directories_renamed(now, out);
            if !self.names.are_free() {
                return;
            }
            self.phase = Phase::Joining;
            std::mem::take(&mut self.openings).end(out);
            self.ready_to_serve(now);
        }
    }

    /// Ends the start of a broker once it is unfenced. Then clients can find it, and it leads what it may lead.
    pub(super) fn serve_if_unfenced(&mut self, now: Now, out: &mut Outbox) {
        if matches!(self.phase, Phase::Joining) && self.is_unfenced() {
            self.timers.start(now.mono);
            self.tell_limits(out);
            self.resize_fetchers();
            self.serve(out);
        }
    }

    /// A node that is only a controller needs no other node for its start: the quorum may wait for this very node.
    pub(super) fn serve_as_controller(&mut self, out: &mut Outbox) {
        let is_alone = !self.parts.config.roles.has_broker();
        if is_alone && matches!(self.phase, Phase::Metadata) && self.parts.quorum().is_running() {
            std::mem::take(&mut self.openings).end(out);
            self.serve(out);
        }
    }

    fn serve(&mut self, out: &mut Outbox) {
        self.phase = Phase::Running;
        self.listen(false, out);
        out.outputs.push(Output::Ready);
    }
}
