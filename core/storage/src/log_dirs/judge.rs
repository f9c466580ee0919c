//! Judges the log directories when all have been read: which cluster they belong to, which of them are new, and whether
//! an operator must correct something before the broker may change anything in them.
//!
//! A directory without `meta.properties` is new. It is formatted only if this broker has never run, that is, if no
//! directory holds a partition. Once there are partitions, an empty directory is more likely a volume that is not
//! mounted, and beginning anew there would lose what the volume holds. So the broker refuses to start, as Kafka does.
//! For the metadata log's directory the rule is stricter: since it is always formatted first, the broker refuses if it
//! is empty while any other directory is formatted.

use super::*;
use names::{DirName, METADATA_PARTITION_DIR};

/// What is to be done with the directories.
pub(super) struct BootPlan {
    pub booted: Booted,
    /// The `meta.properties` to write: of new directories, and of those without a directory id (from before KIP-858).
    pub meta_to_write: BTreeMap<LogDirId, MetaProperties>,
    /// Messages for the operator.
    pub notes: Vec<(Level, String)>,
}

/// Decides what is to be done with the directories. An error is fatal. It names the contradiction, and what the
/// operator can do.
pub(super) fn judge(
    config: &LogDirsConfig,
    dirs: &[Dir],
    drawn_cluster_id: Uuid,
    drawn_directory_ids: &[Uuid],
) -> Result<BootPlan, String> {
    let online: Vec<&Dir> = dirs.iter().filter(|dir| dir.status == Status::Online).collect();
    let cluster_id = check_ids(config, &online)?;
    check_new_dirs(config, &online)?;
    let new = online.iter().find(|dir| dir.found.meta.is_none());
    if let (Some(new), Some((path, reason))) = (new, dirs.iter().find_map(Dir::offline_reason)) {
        return Err(format!("{} is not formatted, and {path} cannot be read to learn its cluster: {reason}", new.path));
    }
    check_places(config, &online)?;
    let metadata = online.iter().find(|dir| dir.id == config.metadata_dir);
    if let Some(new) = metadata.filter(|dir| dir.found.meta.is_none() && !config.begins_cluster) {
        return Err(format!(
            "{} is not formatted, and the configuration names controllers whose cluster is not known. Run `tidelog format` \
             with the id of that cluster; for a new one, `tidelog random-uuid` prints an id",
            new.path
        ));
    }

    let cluster_id = cluster_id.unwrap_or_else(|| drawn_cluster_id.to_string().into());
    let mut meta_to_write = BTreeMap::new();
    let mut notes = Vec::new();
    let mut states = Vec::new();
    for dir in online {
        let mut meta = dir.found.meta.clone().unwrap_or_else(|| {
            notes.push((Level::Info, format!("{} is new; it now belongs to cluster {cluster_id}", dir.path)));
            MetaProperties {
                version: 1,
                cluster_id: Some(cluster_id.clone()),
                node_id: Some(config.node_id),
                directory_id: None,
            }
        });
        let directory_id = *meta.directory_id.get_or_insert(drawn_directory_ids[usize::from(dir.id.0)]);
        if dir.found.meta.as_ref() != Some(&meta) {
            meta_to_write.insert(dir.id, meta);
        }
        states.push(dir.state(directory_id, &mut notes));
    }
    let epochs: Vec<Option<i64>> =
        dirs.iter().filter(|dir| dir.status == Status::Online).map(Dir::marker_epoch).collect();
    let previous_broker_epoch = epochs[0].filter(|epoch| epochs.iter().all(|other| *other == Some(*epoch)));
    Ok(BootPlan { booted: Booted { cluster_id, previous_broker_epoch, dirs: states }, meta_to_write, notes })
}

/// Checks that the cluster, node and directory ids agree with the configuration and with each other. Returns the
/// cluster id, if the configuration or a directory has one.
fn check_ids(config: &LogDirsConfig, online: &[&Dir]) -> Result<Option<ByteString>, String> {
    let mut cluster: Option<(ByteString, String)> =
        config.cluster_id.clone().map(|id| (id, "the configuration".to_owned()));
    let mut directory_ids: BTreeMap<Uuid, &str> = BTreeMap::new();
    for dir in online {
        let Some(meta) = &dir.found.meta else { continue };
        let file = dir.full_path(names::META_PROPERTIES);
        let Some(cluster_id) = &meta.cluster_id else {
            return Err(format!("{file} names no cluster.id. Add it, as another directory of this broker has it"));
        };
        match &cluster {
            Some((expected, source)) if expected != cluster_id => {
                return Err(format!(
                    "{file} belongs to cluster.id {cluster_id}, but {source} says {expected}. Set log.dirs to the \
                     directories of one cluster"
                ));
            }
            Some(_) => {}
            None => cluster = Some((cluster_id.clone(), file.clone())),
        }
        match meta.node_id {
            Some(node_id) if node_id == config.node_id => {}
            Some(node_id) => {
                return Err(format!(
                    "{file} belongs to node.id {node_id}, but the configuration says {}. Set node.id={node_id}, or \
                     log.dirs to the directories of node {}; for a new node, to empty ones",
                    config.node_id, config.node_id
                ));
            }
            None => {
                return Err(format!("{file} names no node. Add broker.id={}, if it is this broker's", config.node_id));
            }
        }
        if let Some(other) = meta.directory_id.and_then(|id| directory_ids.insert(id, &dir.path)) {
            let id = meta.directory_id.expect("its id was inserted");
            return Err(format!(
                "{other} and {} have the same directory.id {id}. Where one is a copy of the other, take it out of \
                 log.dirs; where it is a new disk, remove the line from its meta.properties",
                dir.path
            ));
        }
    }
    Ok(cluster.map(|(id, _)| id))
}

/// Checks the directories without `meta.properties`: each must be empty, and this broker must never have run.
fn check_new_dirs(config: &LogDirsConfig, online: &[&Dir]) -> Result<(), String> {
    let has_run = online.iter().find(|dir| dir.partition_dirs().next().is_some());
    let formatted = online.iter().find(|dir| dir.found.meta.is_some());
    for dir in online.iter().filter(|dir| dir.found.meta.is_none()) {
        if dir.found.entries.iter().any(|entry| entry.name == METADATA_PARTITION_DIR) && dir.was_being_formatted() {
            return Err(format!(
                "{} has no meta.properties: its formatting was interrupted. Run `tidelog format` again",
                dir.path
            ));
        }
        if let Some(entry) = dir.found.entries.iter().find(|entry| !is_harmless(&entry.name)) {
            return Err(format!(
                "{} has no meta.properties, but is not empty: it holds {:?}. Set log.dirs to an empty directory, or \
                 restore meta.properties",
                dir.path, entry.name
            ));
        }
        if let Some(other) = formatted.filter(|_| dir.id == config.metadata_dir && has_run.is_none()) {
            return Err(format!(
                "{} is empty, while {} is formatted: the volume of the metadata log may not be mounted. Mount it; for a \
                 new cluster, empty the other directories of log.dirs too",
                dir.path, other.path
            ));
        }
        if let Some(other) = has_run {
            return Err(format!(
                "{} is empty, while {} holds partitions: its volume may not be mounted. Mount it, or take it out of \
                 log.dirs; for a new disk, copy {} there without its directory.id line",
                dir.path,
                other.path,
                other.full_path(names::META_PROPERTIES)
            ));
        }
    }
    Ok(())
}

/// Checks that each partition lies in one directory only, and the metadata log in the directory configured for it.
fn check_places(config: &LogDirsConfig, online: &[&Dir]) -> Result<(), String> {
    let mut places: BTreeMap<&str, Vec<(Option<Uuid>, &str)>> = BTreeMap::new();
    for dir in online {
        for name in dir.partition_dirs() {
            if name == METADATA_PARTITION_DIR && dir.id != config.metadata_dir {
                return Err(format!(
                    "{} holds the metadata log, but metadata.log.dir is {}. Set metadata.log.dir={}, or move the log",
                    dir.path,
                    config.paths[usize::from(config.metadata_dir.0)],
                    dir.path
                ));
            }
            let topic_id = dir.found.topic_ids.get(name).copied();
            // A partition of the same name with another topic id is allowed: it belongs to another topic of the same
            // name. At most one of these topics still exists, and the directories of the others are set aside later. A
            // directory without a topic id is allowed too: a crash may have interrupted its creation.
            let others = places.entry(name).or_default();
            let other = others.iter().find(|(id, _)| *id == topic_id).map(|(_, path)| *path);
            others.push((topic_id, &dir.path));
            if let Some(other) = other {
                return Err(format!(
                    "the partition {name} lies in {other} and in {}. Move the one that is out of date out of log.dirs",
                    dir.path
                ));
            }
        }
    }
    Ok(())
}

pub(super) fn is_partition(name: &str) -> bool {
    matches!(DirName::parse(name), DirName::Partition(_))
}

/// Whether this is the directory of a deleted partition, which was not removed before the last run ended.
pub(super) fn is_deleted_partition(name: &str) -> bool {
    matches!(DirName::parse(name), DirName::Aside(_, AsideReason::Delete))
}

/// Whether this is the temporary file of one of a log directory's own files, whose Replace a crash interrupted.
pub(super) fn is_leftover_of_ours(name: &str) -> bool {
    let files = [names::META_PROPERTIES, names::CLEAN_SHUTDOWN];
    let files = files.into_iter().chain(CheckpointKind::ALL.map(CheckpointKind::file));
    name.strip_suffix(".tmp").is_some_and(|name| files.into_iter().any(|file| file == name))
}

/// Whether a directory that holds an entry of this name still counts as empty. That is so for hidden files (the broker's
/// lock, and what desktops put everywhere), `lost+found` of file systems, the bootstrap records of a new cluster, and
/// what an interrupted formatting left.
pub fn is_harmless(name: &str) -> bool {
    name.starts_with('.')
        || name == "lost+found"
        || name.strip_suffix(".tmp").unwrap_or(name) == names::BOOTSTRAP_CHECKPOINT
        || is_leftover_of_ours(name)
}

impl Dir {
    fn offline_reason(&self) -> Option<(&str, &str)> {
        match &self.status {
            Status::Online => None,
            Status::Offline(reason) => Some((&self.path, reason)),
        }
    }

    fn marker_epoch(&self) -> Option<i64> {
        self.found.marker.flatten()
    }

    /// Whether it holds what formatting writes before `meta.properties`, and nothing else.
    fn was_being_formatted(&self) -> bool {
        let entries = &self.found.entries;
        entries.iter().any(|entry| entry.name == names::BOOTSTRAP_CHECKPOINT)
            && entries.iter().all(|entry| is_harmless(&entry.name) || entry.name == METADATA_PARTITION_DIR)
    }

    /// The names of the directories of partitions.
    fn partition_dirs(&self) -> impl Iterator<Item = &str> {
        let dirs = self.found.entries.iter().filter(|entry| entry.is_dir);
        dirs.map(|entry| entry.name.as_str()).filter(|name| is_partition(name))
    }

    fn state(&self, directory_id: Uuid, notes: &mut Vec<(Level, String)>) -> DirState {
        let mut partitions = Vec::new();
        let mut aside = Vec::new();
        for entry in self.found.entries.iter().filter(|entry| entry.is_dir) {
            let place = self.full_path(&entry.name);
            match DirName::parse(&entry.name) {
                DirName::Partition(partition) => {
                    partitions.push((partition, self.found.topic_ids.get(&entry.name).copied()));
                }
                DirName::Aside(_, AsideReason::Delete) => {
                    notes.push((Level::Info, format!("removing {place}, whose partition was deleted")));
                }
                DirName::Aside(partition, reason) => {
                    notes.push((Level::Warn, format!("{place} is not a partition in use; it is left alone")));
                    aside.push((entry.name.clone(), partition, reason));
                }
                DirName::Other if is_harmless(&entry.name) => {}
                DirName::Other => {
                    notes.push((Level::Warn, format!("{place} does not belong to a broker; it is left alone")))
                }
            }
        }
        let offsets = |kind| self.found.offsets.get(&kind).cloned().unwrap_or_default();
        DirState {
            dir: self.id,
            directory_id,
            is_new: self.found.meta.is_none(),
            clean: self.found.marker.is_some(),
            partitions,
            aside,
            recovery_points: offsets(CheckpointKind::RecoveryPoint),
            log_starts: offsets(CheckpointKind::LogStart),
            high_watermarks: offsets(CheckpointKind::HighWatermark),
        }
    }
}
