//! What Tidelog does with each configuration name: `docs/CONFIGURATION.md` is written from this.

use super::key::{ConfigKey, Value};

/// What setting a name does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Setting the name does what its documentation says.
    Works,
    /// The value is accepted, and Tidelog has nothing to do for it. The text says why.
    NotNeeded(&'static str),
    /// The value is accepted and checked, and has no effect yet. The text says why. Whoever sets it is warned.
    NotYet(&'static str),
    /// A start refuses the value, because it asks for something that Tidelog cannot do yet. The text says what.
    Refused(&'static str),
}

use Effect::{NotNeeded, NotYet, Refused, Works};

const GROUPS: Effect = NotYet("there are no consumer, share or streams groups yet");
const TRANSACTIONS: Effect = NotYet("there are no transactions yet");
const TIERED: Effect = NotYet("there is no tiered storage yet");
const SECURITY: Effect = NotYet("there is no TLS, SASL or authorization yet");
const QUOTAS: Effect = NotYet("there are no quotas yet");
const COMPACTION: Effect = NotYet("compacted topics keep all their records: there is no log cleaner yet");
const THROTTLES: Effect = NotYet("replication is not throttled yet");
const NO_THREADS_OF_ITS_OWN: Effect = NotNeeded("no threads are kept for this alone");
const NO_PURGATORY: Effect = NotNeeded("an answered request is removed at once, so there is nothing to purge");
const TELEMETRY: Effect = NotYet("clients cannot push telemetry yet");
const METRICS: Effect = NotNeeded("metrics are plain counters without sample windows, read over HTTP");
const JVM: Effect = NotYet("Java classes cannot be loaded");

/// Patterns of names, of which the first that fits a name decides. A star at the end of a pattern, or at its beginning,
/// stands for any text.
const RULES: &[(&str, Effect)] = &[
    // Asked for, and refused.
    ("authorizer.class.name", Refused("there is no authorization yet")),
    ("create.topic.policy.class.name", Refused("Java classes cannot be loaded")),
    ("alter.config.policy.class.name", Refused("Java classes cannot be loaded")),
    ("client.quota.callback.class", Refused("Java classes cannot be loaded")),
    ("delegation.token.secret.key", Refused("there are no delegation tokens yet")),
    ("remote.log.storage.system.enable", Refused("there is no tiered storage yet")),
    ("remote.storage.enable", Refused("there is no tiered storage yet")),
    // Roles and quorum.
    ("broker.heartbeat.interval.ms", Works),
    ("broker.session.timeout.ms", Works),
    ("initial.broker.registration.timeout.ms", Works),
    ("controlled.shutdown.enable", Works),
    ("server.max.startup.time.ms", NotYet("a start may take any time")),
    ("controller.listener.names", Works),
    ("controller.quorum.voters", Works),
    (
        "controller.quorum.append.linger.ms",
        NotNeeded("decisions are written at once, and what is decided during a sync shares the next one"),
    ),
    ("controller.quorum.*", Works),
    ("controller.socket.timeout.ms", Works),
    ("controller.performance.*", NotYet("the controller's own speed is not sampled")),
    ("metadata.max.idle.interval.ms", Works),
    (
        "metadata.max.retention.*",
        NotNeeded("the two newest snapshots are kept, and the part of the log that they do not cover"),
    ),
    ("internal.metadata.log.segment.bytes", Works),
    ("internal.metadata.*", NotYet("it is for Kafka's own tests")),
    ("unstable.*", NotYet("versions that are not final are not served")),
    // Replication.
    ("unclean.leader.election.*", Works),
    ("auto.leader.rebalance.enable", Works),
    ("leader.imbalance.check.interval.seconds", Works),
    ("replica.high.watermark.checkpoint.interval.ms", Works),
    ("replica.alter.log.dirs.*", NotYet("replicas do not move between log directories yet")),
    ("replica.selector.class", NotYet("consumers read from leaders alone")),
    ("replica.socket.receive.buffer.bytes", NotYet("the buffers of sockets are those of the operating system")),
    ("replica.*", Works),
    ("num.replica.fetchers", Works),
    ("follower.fetch.last.tiered.*", TIERED),
    ("follower.*", THROTTLES),
    ("leader.replication.*", THROTTLES),
    ("replication.quota.*", THROTTLES),
    ("alter.log.dirs.replication.quota.*", NotYet("replicas do not move between log directories yet")),
    ("num.replica.alter.log.dirs.threads", NotYet("replicas do not move between log directories yet")),
    ("cordoned.log.dirs", NotYet("new partitions go to every log directory")),
    ("security.inter.broker.protocol", Works),
    // Network.
    ("early.start.listeners", NotNeeded("all listeners open once the broker has started")),
    ("socket.connection.setup.*", Works),
    ("max.connection.creation.rate", NotYet("the rate of new connections is not limited")),
    ("connection.failed.authentication.delay.ms", NotNeeded("nobody has to authenticate yet")),
    (
        "queued.max.requests",
        NotNeeded("waiting requests are limited by their bytes (queued.max.request.bytes), not by their number"),
    ),
    ("background.threads", NO_THREADS_OF_ITS_OWN),
    ("request.timeout.ms", NotYet("brokers ask the controller with controller.socket.timeout.ms alone")),
    ("*.purgatory.purge.interval.requests", NO_PURGATORY),
    ("quota.window.*", QUOTAS),
    ("controller.quota.*", QUOTAS),
    ("metric.reporters", METRICS),
    ("metrics.listener", Works),
    ("metrics.*", METRICS),
    ("kafka.metrics.*", METRICS),
    ("telemetry.max.bytes", TELEMETRY),
    ("interval.ms", TELEMETRY),
    ("match", TELEMETRY),
    ("metrics", TELEMETRY),
    ("config.providers", JVM),
    // Logs.
    ("acks.require.fsync", Works),
    ("produce.decompressed.bytes.max", Works),
    ("preallocate", NotYet("segment files grow as they are written")),
    ("log.preallocate", NotYet("segment files grow as they are written")),
    ("log.local.retention.*", TIERED),
    ("local.retention.*", TIERED),
    ("log.cleaner.*", COMPACTION),
    ("delete.retention.ms", COMPACTION),
    ("min.cleanable.dirty.ratio", COMPACTION),
    ("min.compaction.lag.ms", COMPACTION),
    ("max.compaction.lag.ms", COMPACTION),
    ("log.dir.failure.timeout.ms", NotNeeded("the controller is in the same process and always hears of it")),
    ("num.recovery.threads.per.data.dir", NotNeeded("logs are loaded by the threads of num.io.threads")),
    ("producer.id.expiration.check.interval.ms", NotNeeded("each log knows when its next producer id expires")),
    // What is not there yet.
    ("group.*", GROUPS),
    ("offset.metadata.max.bytes", GROUPS),
    ("offsets.topic.num.partitions", Works),
    ("offsets.topic.replication.factor", Works),
    ("offsets.topic.segment.bytes", Works),
    ("offsets.*", GROUPS),
    ("share.coordinator.state.topic.min.isr", Works),
    ("share.coordinator.state.topic.num.partitions", Works),
    ("share.coordinator.state.topic.replication.factor", Works),
    ("share.coordinator.state.topic.segment.bytes", Works),
    ("share.*", GROUPS),
    ("transaction.state.log.min.isr", Works),
    ("transaction.state.log.num.partitions", Works),
    ("transaction.state.log.replication.factor", Works),
    ("transaction.state.log.segment.bytes", Works),
    ("transaction.*", TRANSACTIONS),
    ("transactional.id.expiration.ms", TRANSACTIONS),
    ("add.partitions.to.txn.*", TRANSACTIONS),
    ("remote.*", TIERED),
    ("principal.builder.class", SECURITY),
    ("security.providers", SECURITY),
    ("connections.max.reauth.ms", SECURITY),
    ("delegation.token.*", SECURITY),
    ("ssl.*", SECURITY),
    ("sasl.*", SECURITY),
];

impl ConfigKey {
    /// What setting this name does. A name that no rule fits works.
    pub fn effect(&self) -> Effect {
        RULES.iter().find(|(pattern, _)| fits(pattern, self.name)).map_or(Works, |(_, effect)| *effect)
    }

    /// What comes of setting this name to this value: of a name that works, a value may not.
    pub fn effect_of(&self, value: &Value) -> Effect {
        match value {
            Value::List(items) if self.is_cleanup_policy() && items.iter().any(|item| item == "compact") => COMPACTION,
            _ => self.effect(),
        }
    }

    fn is_cleanup_policy(&self) -> bool {
        matches!(self.name, "cleanup.policy" | "log.cleanup.policy")
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(begin), _) => name.starts_with(begin),
        (_, Some(end)) => name.ends_with(end),
        _ => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::{Kind, Valid};
    use super::super::{BrokerConfig, TopicConfig, table};
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_rule_decides_about_a_name() {
        let of_others = table::client_metrics_keys().iter().chain(table::DYNAMIC_ONLY);
        let keys: Vec<_> = table::broker_keys().chain(table::topic_keys()).chain(of_others).collect();
        for (place, (pattern, _)) in RULES.iter().enumerate() {
            let decides = |key: &&&ConfigKey| RULES.iter().position(|(other, _)| fits(other, key.name)) == Some(place);
            assert!(keys.iter().any(|key| decides(&key)), "nothing is left for the rule {pattern}");
        }
    }

    /// Values of its kind that are not the default.
    fn other_values(key: &ConfigKey) -> Vec<&'static str> {
        let default = key.default_text().unwrap_or_default();
        let candidates: &[&str] = match (key.kind, key.valid) {
            (_, Valid::OneOf(names) | Valid::OneOfNonEmpty(names) | Valid::OneOfAnyCase(names)) => names,
            (Kind::Boolean, _) => &["true", "false"],
            (_, Valid::Ratio(_)) => &["0.25"],
            (Kind::Int | Kind::Short | Kind::Long | Kind::Double, _) => {
                &["7", "150", "1500", "40000", "9000000", "200000000"]
            }
            _ => &["a:1"],
        };
        candidates.iter().copied().filter(|text| *text != default && key.read(text).is_ok()).collect()
    }

    /// The configurations of the broker and of its topics where one name is set; `None` if the value is refused.
    fn made_of(key: &ConfigKey, value: &str) -> Option<(BrokerConfig, TopicConfig)> {
        let (mut broker, _) = BrokerConfig::from_properties([(key.name, value)]).ok()?;
        let topic = TopicConfig::resolve(&BTreeMap::new(), &broker.layers());
        broker.properties.clear();
        Some((broker, topic))
    }

    #[test]
    fn a_name_that_works_changes_the_broker_or_its_topics() {
        let default = BrokerConfig::default();
        let unset = (default.clone(), TopicConfig::resolve(&BTreeMap::new(), &default.layers()));
        let changes = |key: &&ConfigKey| {
            other_values(key).into_iter().filter_map(|value| made_of(key, value)).any(|made| made != unset)
        };
        let (seen, unseen): (Vec<&ConfigKey>, Vec<&ConfigKey>) =
            table::broker_keys().filter(|key| key.effect() == Works).partition(changes);
        // These configs are checked one by one, but have an effect only together with others.
        let together = [
            "listeners",
            "advertised.listeners",
            "listener.security.protocol.map",
            "inter.broker.listener.name",
            "security.inter.broker.protocol",
            "process.roles",
            "controller.quorum.voters",
            "controller.quorum.bootstrap.servers",
        ];
        // The value that is in force now is read where it is needed, because it can change while a broker runs.
        let (in_force, unseen): (Vec<&ConfigKey>, Vec<&ConfigKey>) =
            unseen.into_iter().partition(|key| key.name == "num.replica.fetchers");
        assert_eq!(in_force.len(), 1);
        // These are read where an internal topic is created, and checked there.
        let of_internal_topics = |key: &&ConfigKey| {
            ["offsets.topic.", "transaction.state.log.", "share.coordinator.state.topic."]
                .iter()
                .any(|prefix| key.name.starts_with(prefix))
        };
        let (internal, unseen): (Vec<&ConfigKey>, Vec<&ConfigKey>) = unseen.into_iter().partition(of_internal_topics);
        assert_eq!(internal.len(), 11);
        assert_eq!(unseen.iter().map(|key| key.name).collect::<Vec<_>>(), together);
        assert!(seen.len() > 50, "{}", seen.len());
    }

    #[test]
    fn a_name_without_effect_is_warned_about_where_it_is_set_to_something_else() {
        for key in table::broker_keys() {
            for value in other_values(key) {
                let Ok((_, warnings)) = BrokerConfig::from_properties([(key.name, value)]) else { continue };
                let named = warnings.iter().any(|warning| warning.name == key.name);
                let effect = key.effect_of(&key.read(value).unwrap());
                assert_eq!(named, matches!(effect, NotYet(_)), "{}={value}: {warnings:?}", key.name);
            }
            // -1 is the default of broker.id, and still not allowed as a number of a broker.
            if let Some(default) = key.default_text()
                && let Ok((_, warnings)) = BrokerConfig::from_properties([(key.name, default)])
            {
                assert_eq!(warnings, [], "{}={default}", key.name);
            }
        }
    }
}
