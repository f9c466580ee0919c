//! Configuration: Kafka's names, types and defaults for brokers and topics.
//!
//! [`table`] knows every name of Apache Kafka 4.3 and a few of our own. [`BrokerConfig`] is the content of
//! `server.properties`. [`TopicConfig`] is the values that are in force for one topic. An unknown name causes a
//! [`Warning`]. A value that cannot be used causes a [`ConfigError`] that names the config, the value and what is
//! allowed. All errors are reported at once.

#![forbid(unsafe_code)]

mod broker;
mod client_metrics;
mod describe;
mod dynamic;
mod effect;
mod key;
mod listeners;
mod loggers;
pub mod plant;
mod quorum;
mod roles;
mod rules;
pub mod table;
#[cfg(test)]
mod tests;
mod topic;
mod warning;

pub use broker::{BrokerConfig, Layers, random_cluster_id};
pub use client_metrics::{SubscriptionError, check_subscription};
pub use describe::{
    Described, DescribedSynonym, Source, describe_broker, describe_broker_default, describe_client_metrics,
    describe_topic, topic_source,
};
pub use dynamic::ConnectionLimits;
pub use effect::Effect;
pub use key::{ConfigKey, Default, Kind, Update, Valid, Value};
pub use listeners::{Listener, METRICS_LISTENER, SecurityProtocol};
pub use loggers::{LogLevel, Loggers, Part, ROOT_LOGGER};
pub use quorum::QuorumSettings;
pub use roles::Roles;
pub use topic::{CleanupPolicy, CompressionType, SYNONYMS, Synonym, TimestampType, TopicConfig, synonyms};
pub use warning::{Warning, did_you_mean, suggest_broker, suggest_topic};

/// The properties of a start without a properties file and without overrides.
pub const WITHOUT_A_FILE: &[(&str, &str)] =
    &[("listeners", "PLAINTEXT://127.0.0.1:9092"), ("log.dirs", "./tidelog-data")];

/// A value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value}: {why}")]
pub struct ConfigError {
    pub name: String,
    /// `[hidden]` if the value is a secret.
    pub value: String,
    /// What is wrong with the value, and what is allowed.
    pub why: String,
}

impl ConfigError {
    fn new(name: &str, value: &str, why: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: value.to_owned(), why: why.into() }
    }

    /// The error for a value that breaks the rules of its name in the table.
    fn of(key: &ConfigKey, value: &str) -> Self {
        let value = if key.sensitive() { "[hidden]" } else { value };
        Self::new(key.name, value, format!("allowed is {}", key.allowed()))
    }
}

/// The known name that `name` was probably meant to be.
pub fn suggest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let tolerated = (name.len() / 5).clamp(1, 4);
    let closest = known.map(|candidate| (edit_distance(name, candidate), candidate)).min()?;
    (closest.0 <= tolerated).then_some(closest.1)
}

/// How many single bytes must be inserted, removed or changed to turn one text into the other.
fn edit_distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, byte) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in right.bytes().enumerate() {
            let changed = diagonal + usize::from(byte != other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}
