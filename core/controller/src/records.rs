//! The versions in which metadata records are written, and the features that decide the versions.

use super::features::KRAFT_VERSION;
use tidelog_wire::MetadataRecord;
use tidelog_wire::ids::Uuid;

pub const METADATA_VERSION: &str = "metadata.version";
pub const ELIGIBLE_LEADER_REPLICAS_VERSION: &str = "eligible.leader.replicas.version";

/// The oldest level of `metadata.version` that Kafka 4 reads: 3.3-IV3.
pub const METADATA_VERSION_MIN: i16 = 7;
/// The newest level that this broker reads, and the level with which it formats a cluster: 4.3-IV0.
pub const METADATA_VERSION_MAX: i16 = 30;

/// The features of Kafka 4.3 whose requests are served. `metadata.version` comes first.
pub const FEATURES: &[Feature] = &[
    Feature { name: METADATA_VERSION, min: METADATA_VERSION_MIN, max: METADATA_VERSION_MAX, initial: 30 },
    Feature { name: ELIGIBLE_LEADER_REPLICAS_VERSION, min: 0, max: 1, initial: 1 },
];

/// The features of Kafka 4.3 whose requests are not served yet, with Kafka's highest levels. Clients choose their way
/// by them, so none is advertised or set here. The metadata of a Kafka broker may hold levels of them, which stay
/// there.
const NOT_SERVED: &[(&str, i16)] =
    &[("group.version", 1), ("share.version", 1), ("streams.version", 1), ("transaction.version", 2)];

/// Whether clients are told of this feature.
pub fn is_served(name: &str) -> bool {
    FEATURES.iter().any(|feature| feature.name == name)
}

/// The highest level of `kraft.version`, which the quorum keeps in control records. Level 1 has dynamic voters
/// (KIP-853).
pub const KRAFT_VERSION_MAX: i16 = 1;

/// A feature of the cluster (KIP-584) with the levels this broker supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    pub name: &'static str,
    pub min: i16,
    pub max: i16,
    /// The level in a newly formatted cluster.
    pub initial: i16,
}

/// Each of these constants is the first level of `metadata.version` whose records have what its name says.
const WITH_CONTROLLED_SHUTDOWN: i16 = 7;
const WITH_ZK_MIGRATION: i16 = 8;
const WITHOUT_EPOCH_FOR_EVERY_SHRINKING: i16 = 12;
const WITH_TRANSACTIONS: i16 = 13;
const WITH_CONTROLLER_REGISTRATION: i16 = 15;
const WITH_DIRECTORIES: i16 = 17;
pub(super) const WITH_ELIGIBLE_LEADERS: i16 = 23;
const WITH_CORDONED_DIRECTORIES: i16 = 30;
/// The levels of `metadata.version` whose records have a field that the level before does not have
/// (`didMetadataChange` in Kafka's `MetadataVersion`).
const CHANGES: &[i16] = &[7, 8, 11, 13, 14, 15, 17, 23, 30];

/// Whether records of the level `high` may have a field that those of the level `low` do not have.
pub fn metadata_changed(low: i16, high: i16) -> bool {
    CHANGES.iter().any(|level| (low + 1..=high).contains(level))
}

/// Encodes a record in the version that belongs to `metadata_version`. Fields that this version does not have are left
/// out, as in Kafka.
pub fn encode(record: &MetadataRecord, metadata_version: i16) -> bytes::Bytes {
    let level = metadata_version;
    let partition_version = if level >= WITH_ELIGIBLE_LEADERS { 2 } else { i16::from(level >= WITH_DIRECTORIES) };
    match record {
        MetadataRecord::Partition(full) if partition_version < 2 => {
            let mut part = full.clone();
            (part.eligible_leader_replicas, part.last_known_elr) = (None, None);
            if partition_version < 1 {
                part.directories.clear();
            }
            MetadataRecord::from(part).encode(partition_version)
        }
        MetadataRecord::PartitionChange(full) if partition_version < 2 => {
            let mut part = full.clone();
            (part.eligible_leader_replicas, part.last_known_elr) = (None, None);
            if partition_version < 1 {
                part.directories = None;
            }
            MetadataRecord::from(part).encode(partition_version)
        }
        MetadataRecord::RegisterBroker(full) if level < WITH_CORDONED_DIRECTORIES => {
            let version = match level {
                WITH_DIRECTORIES.. => 3,
                WITH_ZK_MIGRATION.. => 2,
                WITH_CONTROLLED_SHUTDOWN.. => 1,
                _ => 0,
            };
            let mut part = full.clone();
            part.cordoned_log_dirs = None;
            if version < 3 {
                part.log_dirs.clear();
            }
            if version < 2 {
                part.is_migrating_zk_broker = false;
            }
            if version < 1 {
                part.in_controlled_shutdown = false;
            }
            MetadataRecord::from(part).encode(version)
        }
        MetadataRecord::BrokerRegistrationChange(full) => {
            // Kafka writes the oldest version that has all fields which are set.
            let mut part = full.clone();
            if level < WITH_CORDONED_DIRECTORIES {
                part.cordoned_log_dirs = None;
            }
            if level < WITH_DIRECTORIES {
                part.log_dirs.clear();
            }
            let version = if part.cordoned_log_dirs.is_some() {
                3
            } else if !part.log_dirs.is_empty() {
                2
            } else {
                i16::from(part.in_controlled_shutdown != 0)
            };
            MetadataRecord::from(part).encode(version)
        }
        record => record.encode(record.newest_version()),
    }
}

/// The levels of features with which [`check_features`] lets a node be in a cluster, and of `kraft.version`.
pub fn levels_accepted() -> impl Iterator<Item = (&'static str, i16, i16)> {
    let served = FEATURES.iter().map(|feature| (feature.name, feature.min, feature.max));
    let kept = NOT_SERVED.iter().map(|(name, max)| (*name, 0, *max));
    served.chain(kept).chain([(KRAFT_VERSION, 0, KRAFT_VERSION_MAX)])
}

/// Checks that this broker can serve a cluster whose features are at these levels. The error names the first feature
/// that it cannot serve.
pub fn check_features<'a>(levels: impl IntoIterator<Item = (&'a str, i16)>) -> Result<(), String> {
    for (name, level) in levels {
        let served = FEATURES.iter().find(|feature| feature.name == name).map(|feature| (feature.min, feature.max));
        let kept = NOT_SERVED.iter().find(|(known, _)| *known == name).map(|(_, max)| (0, *max));
        let Some((min, max)) = served.or(kept) else {
            return Err(format!(
                "the cluster uses the feature {name} (level {level}), which this broker does not know"
            ));
        };
        if !(min..=max).contains(&level) {
            return Err(format!("the cluster's {name} is at level {level}; allowed is {min} to {max}"));
        }
    }
    Ok(())
}

/// Whether a metadata log at this level may hold transactions (KIP-868).
pub fn has_transactions(metadata_version: i16) -> bool {
    metadata_version >= WITH_TRANSACTIONS
}

/// Whether a metadata log at this level may hold registrations of controllers (KIP-919).
pub fn registers_controllers(metadata_version: i16) -> bool {
    metadata_version >= WITH_CONTROLLER_REGISTRATION
}

/// Whether registrations at this level name log directories (KIP-858).
pub fn assigns_directories(metadata_version: i16) -> bool {
    metadata_version >= WITH_DIRECTORIES
}

/// Whether registrations at this level name log directories that take no new replicas (KIP-1066).
pub fn cordons_directories(metadata_version: i16) -> bool {
    metadata_version >= WITH_CORDONED_DIRECTORIES
}

/// Whether at this level every replica that leaves an ISR begins a new leader epoch (KAFKA-15021).
pub fn shrinking_begins_epoch(metadata_version: i16) -> bool {
    metadata_version < WITHOUT_EPOCH_FOR_EVERY_SHRINKING
}

/// Whether a directory id stands for a state instead of a directory (KIP-858).
pub fn is_reserved_directory(id: Uuid) -> bool {
    id.0.as_u128() < 100
}
