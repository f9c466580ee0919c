//! Coming up: directories, then metadata, then the logs of every partition, then clients.

use super::{Broker, Life};
use crate::ids::{LogDirId, LogId, Uuid};
use crate::io::{Level, Outbox, Output};
use crate::plant::{Plant, Plants};
use crate::probe::Probe;
use crate::replication::Partition;
use crate::storage::names::METADATA_PARTITION_DIR;
use crate::storage::{Booted, LoadHints, Log, LogPlace, TopicPartition};
use crate::time::Now;
use std::collections::{BTreeMap, BTreeSet};

/// The partition directories that the start of this life found, each to be opened once.
#[derive(Debug, Default)]
pub struct OnDisk {
    /// Several of one name lie in several directories, and are several topics'.
    partitions: BTreeMap<TopicPartition, Vec<Found>>,
}

#[derive(Debug)]
struct Found {
    dir: LogDirId,
    topic_id: Option<Uuid>,
    hints: LoadHints,
}

impl OnDisk {
    pub fn new(booted: &Booted, plants: Plants) -> Self {
        let crash_is_clean = plants.has(Plant::CrashTakenForCleanStop);
        let mut partitions: BTreeMap<TopicPartition, Vec<Found>> = BTreeMap::new();
        for dir in &booted.dirs {
            for (name, topic_id) in &dir.partitions {
                let hints = LoadHints {
                    clean: dir.clean || crash_is_clean,
                    recovery_point: dir.recovery_points.get(name).copied(),
                    log_start: dir.log_starts.get(name).copied(),
                    has_topic_id: topic_id.is_some(),
                };
                let found = Found { dir: dir.dir, topic_id: *topic_id, hints };
                partitions.entry(name.clone()).or_default().push(found);
            }
        }
        Self { partitions }
    }

    /// The directory of this partition: one that says so, or else one that does not say whose it is.
    fn take(&mut self, name: &TopicPartition, topic: Uuid) -> Option<(LogDirId, LoadHints)> {
        let found = self.partitions.get_mut(name)?;
        let says = |id: Option<Uuid>| found.iter().position(|found| found.topic_id == id);
        let place = says(Some(topic)).or_else(|| says(None))?;
        let Found { dir, hints, .. } = found.remove(place);
        if found.is_empty() {
            self.partitions.remove(name);
        }
        Some((dir, hints))
    }

    /// Whether an earlier topic of this name has left a directory.
    fn has(&self, name: &TopicPartition) -> bool {
        self.partitions.contains_key(name)
    }
}

impl Broker {
    pub(super) fn boot(&mut self, out: &mut Outbox) {
        assert!(matches!(self.life, Life::Created), "booted twice");
        self.life = Life::Directories;
        self.parts.dirs.boot(out);
    }

    /// The directories are read, and are this broker's.
    pub(super) fn directories_ready(&mut self, booted: Booted, out: &mut Outbox) {
        self.life = Life::Metadata;
        self.parts.cluster_id = booted.cluster_id.clone();
        for dir in &booted.dirs {
            for (name, _, reason) in &dir.aside {
                let path = &self.parts.config.log_dirs[usize::from(dir.dir.0)];
                out.event(Level::Warn, "broker", format!("{path}/{name} is left alone ({reason:?})"));
            }
        }
        self.on_disk = OnDisk::new(&booted, self.parts.config.plants);
        let metadata = TopicPartition::parse(METADATA_PARTITION_DIR).expect("a partition's name");
        let found = self.on_disk.partitions.remove(&metadata);
        let hints = found.map_or_else(LoadHints::default, |found| found[0].hints);
        self.parts.start_quorum(hints, out);
    }

    /// The metadata is read and this node leads: open what it says is here.
    pub(super) fn open_partitions(&mut self, now: Now, out: &mut Outbox) {
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
        // What is left was deleted while it could not be moved away: a crash came first, or its directory was offline.
        let left = std::mem::take(&mut self.on_disk.partitions).into_iter();
        let left = left.flat_map(|(name, found)| found.into_iter().map(move |found| (name.clone(), found)));
        for (name, Found { dir, topic_id, .. }) in left {
            let unique = self.parts.draw_uuid();
            let path = self.parts.config.log_dirs[usize::from(dir.0)].clone();
            let Some(aside) = self.parts.dirs.set_aside(dir, &name, unique, out) else { continue };
            let whose = topic_id.map(|id| format!(", whose id is {id},")).unwrap_or_default();
            let text = format!("{path}/{name}{whose} belongs to no topic of this cluster; it is kept as {aside}");
            out.event(Level::Warn, "broker", text);
            self.names.leave(dir, name);
        }
        self.life = Life::Logs(loading);
        self.open_waiting(now, out);
        self.logs_loaded(now, out);
    }

    /// Opens or creates the log of one partition; yields it while it loads.
    pub(super) fn open_partition(&mut self, now: Now, topic: Uuid, index: i32, out: &mut Outbox) -> Option<LogId> {
        let parts = &mut self.parts;
        let image = parts.image.topic(topic)?;
        let state = image.partitions.get(&index)?;
        let name = TopicPartition::new(image.name.clone(), index);
        let found = self.on_disk.take(&name, topic);
        if found.is_none() && (self.on_disk.has(&name) || self.names.is_leaving(&name)) {
            // An earlier topic of this name is still being moved away.
            out.probe(Probe::TopicNameWaits);
            self.names.wait(name, topic);
            return None;
        }
        let (settings, rules) = parts.settings_of(topic)?;
        let id = parts.partitions.next_log_id();
        let dir = match found {
            Some((dir, _)) => Some(dir),
            // The controller has named one (KIP-858), unless an older Kafka placed the partition. What is not found
            // while a directory cannot be read may lie there: it must not be begun anew elsewhere.
            None => match state.directory(parts.config.node_id).and_then(|id| parts.dirs.by_directory_id(id)) {
                Some(dir) => Some(dir),
                None if parts.dirs.paths().any(|(dir, _)| !parts.dirs.is_online(dir)) => None,
                None => parts.dirs.choose(|dir| parts.partitions.iter().filter(|p| p.dir() == dir).count()),
            },
        };
        let Some(dir) = dir.filter(|dir| parts.dirs.is_online(*dir)) else {
            out.event(Level::Error, "broker", format!("{name} has no log directory that is online"));
            return None;
        };
        let place = LogPlace { dir, name: name.to_string(), topic_id: topic };
        let plants = parts.config.plants;
        let log = match found {
            Some((_, hints)) => Log::load(id, place, settings, plants, hints, out),
            None => Log::create(id, place, settings, plants, now, out),
        };
        let mut partition = Partition::new(image.name.clone(), topic, index, log, state.leader_epoch, rules, plants);
        if found.is_none() {
            partition.created(out);
        }
        parts.partitions.insert(id, partition);
        found.is_some().then_some(id)
    }

    /// One of the logs that the start waits for has loaded, or has failed.
    pub(super) fn log_loaded(&mut self, now: Now, log: LogId, out: &mut Outbox) {
        if let Life::Logs(loading) = &mut self.life {
            loading.remove(&log);
            self.logs_loaded(now, out);
        }
    }

    pub(super) fn logs_loaded(&mut self, now: Now, out: &mut Outbox) {
        if let Life::Logs(loading) = &self.life
            && loading.is_empty()
            && !self.parts.dirs.is_setting_aside()
        {
            self.set_aside(now, out);
            if !self.names.are_free() {
                return;
            }
            self.life = Life::Running;
            self.timers.start(now.mono);
            self.tell_limits(out);
            out.outputs.push(Output::Ready);
        }
    }
}
