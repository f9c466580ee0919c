//! What Tidelog does with each configuration name: `docs/CONFIGURATION.md` is written from this.

use super::key::ConfigKey;

/// What comes of setting a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What its documentation says.
    Works,
    /// It is taken, and there is nothing to be done: the text says why.
    NotNeeded(&'static str),
    /// It is taken and checked, and has no effect yet: the text says why. A start warns of it.
    NotYet(&'static str),
    /// A start refuses it, for it would promise what is not kept.
    Refused(&'static str),
}

use Effect::{NotNeeded, NotYet, Refused, Works};

const GROUPS: Effect = NotYet("there are no consumer, share or streams groups yet");
const TRANSACTIONS: Effect = NotYet("there are no transactions yet");
const TIERED: Effect = NotYet("there is no tiered storage yet");
const SECURITY: Effect = NotYet("there is no TLS, SASL or authorization yet");
const QUOTAS: Effect = NotYet("there are no quotas yet");
const COMPACTION: Effect = NotYet("compacted topics keep all their records: there is no log cleaner yet");
const ONE_BROKER: Effect = NotYet("a cluster has one broker, for now");
const ONE_VOTER: Effect = NotNeeded("a quorum of one asks nobody");
const NO_THREADS_OF_ITS_OWN: Effect = NotNeeded("there are no threads for this alone");
const NO_PURGATORY: Effect = NotNeeded("a request that is answered is gone at once: nothing is left to purge");
const METRICS: Effect = NotNeeded("metrics are counted as they are, without windows, and read over HTTP");
const JVM: Effect = NotYet("Java classes cannot be loaded");

/// The first that fits decides: a whole name, or the beginning of names where it ends with a star.
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
    ("broker.heartbeat.interval.ms", NotNeeded("the one broker and its controller are one process")),
    ("broker.session.timeout.ms", NotNeeded("the one broker and its controller are one process")),
    ("initial.broker.registration.timeout.ms", NotNeeded("the one broker and its controller are one process")),
    ("controlled.shutdown.enable", NotNeeded("nobody else could take leadership over")),
    ("server.max.startup.time.ms", NotYet("a start takes the time it needs")),
    ("controller.listener.names", Works),
    ("controller.quorum.voters", Works),
    ("controller.quorum.*", ONE_VOTER),
    ("controller.socket.timeout.ms", ONE_VOTER),
    ("controller.performance.*", NotYet("the controller's own speed is not sampled")),
    ("metadata.max.idle.interval.ms", NotNeeded("nobody waits to see that an idle controller is alive")),
    ("metadata.max.retention.*", NotNeeded("the two newest snapshots are kept, and what of the log they do not cover")),
    ("internal.metadata.log.segment.bytes", Works),
    ("internal.metadata.*", NotYet("it is for tests of Kafka's own")),
    ("unstable.*", NotYet("what is not final is not served")),
    // Replication.
    ("unclean.leader.election.*", ONE_BROKER),
    ("auto.leader.rebalance.enable", ONE_BROKER),
    ("leader.imbalance.check.interval.seconds", ONE_BROKER),
    ("replica.high.watermark.checkpoint.interval.ms", Works),
    ("replica.*", ONE_BROKER),
    ("num.replica.fetchers", ONE_BROKER),
    ("follower.*", ONE_BROKER),
    ("leader.replication.*", ONE_BROKER),
    ("replication.quota.*", ONE_BROKER),
    ("alter.log.dirs.replication.quota.*", NotYet("replicas do not move between log directories yet")),
    ("num.replica.alter.log.dirs.threads", NotYet("replicas do not move between log directories yet")),
    ("cordoned.log.dirs", NotYet("new partitions go to every log directory")),
    ("security.inter.broker.protocol", Works),
    // Network.
    ("early.start.listeners", NotNeeded("listeners open when the broker is up")),
    ("socket.connection.setup.*", ONE_BROKER),
    ("max.connection.creation.rate", NotYet("the rate of new connections is not limited")),
    ("connection.failed.authentication.delay.ms", NotNeeded("nobody has to authenticate yet")),
    ("queued.max.requests", NotNeeded("requests wait by their bytes (queued.max.request.bytes), not by their number")),
    ("background.threads", NO_THREADS_OF_ITS_OWN),
    ("request.timeout.ms", ONE_BROKER),
    ("*.purgatory.purge.interval.requests", NO_PURGATORY),
    ("quota.window.*", QUOTAS),
    ("controller.quota.*", QUOTAS),
    ("metric.reporters", METRICS),
    ("metrics.listener", Works),
    ("metrics.*", METRICS),
    ("kafka.metrics.*", METRICS),
    ("telemetry.max.bytes", NotYet("clients cannot push telemetry yet")),
    ("config.providers", JVM),
    // Logs.
    ("acks.require.fsync", Works),
    ("preallocate", NotYet("segment files grow as they are written")),
    ("log.preallocate", NotYet("segment files grow as they are written")),
    ("log.local.retention.*", TIERED),
    ("local.retention.*", TIERED),
    ("log.cleaner.*", COMPACTION),
    ("delete.retention.ms", COMPACTION),
    ("min.cleanable.dirty.ratio", COMPACTION),
    ("min.compaction.lag.ms", COMPACTION),
    ("max.compaction.lag.ms", COMPACTION),
    ("log.initial.task.delay.ms", NotNeeded("background tasks begin an interval after the start")),
    ("log.dir.failure.timeout.ms", NotNeeded("the controller is in the same process and always hears of it")),
    ("num.recovery.threads.per.data.dir", NotNeeded("logs are loaded by the threads of num.io.threads")),
    ("producer.id.expiration.check.interval.ms", NotNeeded("each log looks when one is due")),
    // What is not there yet.
    ("group.*", GROUPS),
    ("offset.metadata.max.bytes", GROUPS),
    ("offsets.*", GROUPS),
    ("share.*", GROUPS),
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
    /// What comes of setting this name. Works, where no rule says otherwise.
    pub fn effect(&self) -> Effect {
        RULES.iter().find(|(pattern, _)| fits(pattern, self.name)).map_or(Works, |(_, effect)| *effect)
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
        let keys: Vec<_> = table::broker_keys().chain(table::topic_keys()).chain(table::DYNAMIC_ONLY).collect();
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

    /// What the broker and its topics make of one name.
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
        // These are checked alone, and decide only together with others.
        let together = [
            "listeners",
            "advertised.listeners",
            "listener.security.protocol.map",
            "inter.broker.listener.name",
            "security.inter.broker.protocol",
            "process.roles",
            "controller.quorum.voters",
        ];
        assert_eq!(unseen.iter().map(|key| key.name).collect::<Vec<_>>(), together);
        assert!(seen.len() > 50, "{}", seen.len());
    }

    #[test]
    fn a_name_without_effect_is_warned_about_where_it_is_set_to_something_else() {
        for key in table::broker_keys() {
            for value in other_values(key) {
                let Ok((_, warnings)) = BrokerConfig::from_properties([(key.name, value)]) else { continue };
                let named = warnings.iter().any(|warning| warning.name == key.name);
                assert_eq!(named, matches!(key.effect(), NotYet(_)), "{}={value}: {warnings:?}", key.name);
            }
            // A broker.id of -1 is the default and still no number for a broker.
            if let Some(default) = key.default_text()
                && let Ok((_, warnings)) = BrokerConfig::from_properties([(key.name, default)])
            {
                assert_eq!(warnings, [], "{}={default}", key.name);
            }
        }
    }
}
