//! Every configuration name of Apache Kafka 4.3's broker, topics and subscriptions to clients' metrics, and Tidelog's
//! own.
//!
//! Each line gives a config's name, its default and its meaning, then which values it allows and how it may be changed
//! while the broker runs. The files group the configs by subject.

use super::key::{ConfigKey, Default, Kind, Update, Valid};

mod client_metrics;
mod cluster;
mod groups;
mod log;
mod network;
mod remote;
mod security;
mod topic;

/// Names of a broker that Apache Kafka does not have.
pub const OWN_BROKER_NAMES: &[&str] =
    &["acks.require.fsync", "cluster.id", "metrics.listener", "produce.decompressed.bytes.max"];
/// Names of a topic that Apache Kafka does not have.
pub const OWN_TOPIC_NAMES: &[&str] = &["acks.require.fsync"];

/// The configs of a broker.
pub fn broker_keys() -> impl Iterator<Item = &'static ConfigKey> {
    [network::KEYS, log::KEYS, cluster::KEYS, groups::KEYS, security::KEYS, remote::KEYS].into_iter().flatten()
}

/// The configs of a topic, sorted by name.
pub fn topic_keys() -> &'static [ConfigKey] {
    topic::KEYS
}

/// The configs of a subscription to clients' metrics, sorted by name.
pub fn client_metrics_keys() -> &'static [ConfigKey] {
    client_metrics::KEYS
}

pub fn broker_key(name: &str) -> Option<&'static ConfigKey> {
    broker_keys().find(|key| key.name == name)
}

pub fn topic_key(name: &str) -> Option<&'static ConfigKey> {
    topic::KEYS.iter().find(|key| key.name == name)
}

pub fn client_metrics_key(name: &str) -> Option<&'static ConfigKey> {
    client_metrics::KEYS.iter().find(|key| key.name == name)
}

/// `listener.name.NAME.CONFIG` is a listener's own value of CONFIG: gives CONFIG.
pub fn name_without_listener(name: &str) -> Option<&str> {
    let (_, config) = name.strip_prefix("listener.name.")?.split_once('.')?;
    Some(config)
}

/// Configs of a broker that can only be set while it runs, not in the properties: replication throttles (KIP-73).
pub const DYNAMIC_ONLY: &[ConfigKey] = &[
    long("leader.replication.throttled.rate", MAX_LONG, "Most bytes per second that throttled leaders send.")
        .from(0)
        .per_broker(),
    long("follower.replication.throttled.rate", MAX_LONG, "Most bytes per second that throttled followers fetch.")
        .from(0)
        .per_broker(),
    long(
        "replica.alter.log.dirs.io.max.bytes.per.second",
        MAX_LONG,
        "Most bytes per second that are copied when replicas move between log directories.",
    )
    .from(0)
    .per_broker(),
];

/// Names that Kafka had before 4.0, with what to do about them.
pub const GONE: &[(&str, &str)] = &[
    ("zookeeper.", "Kafka 4 has no ZooKeeper; brokers form a KRaft quorum"),
    ("broker.id.generation.enable", "set node.id"),
    ("reserved.broker.max.id", "set node.id"),
    ("inter.broker.protocol.version", "the feature metadata.version took its place"),
    ("log.message.format.version", "records are always stored in format 2"),
    ("message.format.version", "records are always stored in format 2"),
    ("log.message.downconversion.enable", "records are never converted down"),
    ("message.downconversion.enable", "records are never converted down"),
    ("log.message.timestamp.difference.max.ms", "set log.message.timestamp.before.max.ms and .after.max.ms"),
    ("message.timestamp.difference.max.ms", "set message.timestamp.before.max.ms and .after.max.ms"),
    ("leader.imbalance.per.broker.percentage", "every partition goes back to its preferred leader when it can"),
    ("control.plane.listener.name", "controllers have listeners of their own: set controller.listener.names"),
    ("password.encoder.", "passwords in the metadata are not encoded"),
    ("delegation.token.master.key", "set delegation.token.secret.key"),
    ("group.coordinator.new.enable", "the new coordinator is the only one"),
    ("auto.include.jmx.reporter", "set metric.reporters"),
    ("offsets.commit.required.acks", "offsets are always committed to all in-sync replicas"),
    ("log.cleaner.hash.algorithm", "the hash algorithm cannot be chosen"),
    ("metadata.migration.", "a migration from ZooKeeper needs Kafka 3"),
    ("eligible.leader.replicas.enable", "set the feature eligible.leader.replicas.version"),
];

const NULL: &str = "\0null";
const REQUIRED: &str = "\0required";
const MAX_INT: &str = "2147483647";
const MAX_LONG: &str = "9223372036854775807";

const fn key(name: &'static str, kind: Kind, default: &'static str, documentation: &'static str) -> ConfigKey {
    let default = match default.as_bytes() {
        [0, b'n', ..] => Default::Null,
        [0, b'r', ..] => Default::Required,
        _ => Default::Text(default),
    };
    ConfigKey { name, kind, default, valid: Valid::Any, update: Update::ReadOnly, documentation, internal: false }
}

macro_rules! kinds {
    ($($function:ident $kind:ident),*) => {
        $(const fn $function(name: &'static str, default: &'static str, documentation: &'static str) -> ConfigKey {
            key(name, Kind::$kind, default, documentation)
        })*
    };
}

kinds!(boolean Boolean, int Int, short Short, long Long, double Double, string String, list List, class Class,
    password Password);

impl ConfigKey {
    const fn from(self, min: i64) -> Self {
        Self { valid: Valid::From(min), ..self }
    }

    const fn within(self, min: i64, max: i64) -> Self {
        Self { valid: Valid::Within(min, max), ..self }
    }

    const fn ratio(self, max: &'static str) -> Self {
        Self { valid: Valid::Ratio(max), ..self }
    }

    const fn gzip_level(self) -> Self {
        Self { valid: Valid::GzipLevel, ..self }
    }

    const fn throttled_replicas(self) -> Self {
        Self { valid: Valid::ThrottledReplicas, ..self }
    }

    const fn one_of(self, names: &'static [&'static str]) -> Self {
        Self { valid: Valid::OneOf(names), ..self }
    }

    const fn one_of_any_case(self, names: &'static [&'static str]) -> Self {
        Self { valid: Valid::OneOfAnyCase(names), ..self }
    }

    const fn non_empty(self) -> Self {
        let valid = match self.valid {
            Valid::OneOf(names) => Valid::OneOfNonEmpty(names),
            _ => Valid::NonEmpty,
        };
        Self { valid, ..self }
    }

    const fn per_broker(self) -> Self {
        Self { update: Update::PerBroker, ..self }
    }

    const fn cluster_wide(self) -> Self {
        Self { update: Update::ClusterWide, ..self }
    }

    const fn internal(self) -> Self {
        Self { internal: true, ..self }
    }
}
