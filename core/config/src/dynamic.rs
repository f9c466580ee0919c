//! The configs of a broker that may change while it runs (KIP-226), except those that topics take from it.

use super::broker::Layers;
use super::key::Value;
use super::{TopicConfig, rules, table};
use std::collections::BTreeMap;

/// How many connections there may be (KIP-402, KIP-612).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// `max.connections`
    pub max: i32,
    /// `max.connections.per.ip`
    pub max_per_ip: i32,
    /// `max.connections.per.ip.overrides`: addresses or host names, each with its limit.
    pub per_ip_overrides: Vec<(String, i32)>,
}

/// Numbers of threads. Kafka allows a change to at least half and at most double the number.
const THREADS: &[&str] = &[
    "background.threads",
    "log.cleaner.threads",
    "num.io.threads",
    "num.network.threads",
    "num.recovery.threads.per.data.dir",
    "num.replica.fetchers",
    "remote.log.manager.copier.thread.pool.size",
    "remote.log.manager.expiration.thread.pool.size",
    FOLLOWER_THREADS,
    "remote.log.reader.threads",
];

const FOLLOWER_THREADS: &str = "remote.log.manager.follower.thread.pool.size";

impl Layers<'_> {
    /// The number that is in force: the one that is set, or else the default.
    pub fn number(&self, name: &str) -> i64 {
        let default = || {
            let key = table::broker_key(name).unwrap_or_else(|| panic!("{name} is not in the table"));
            key.default_text().map(|text| key.read(text).expect("a default is valid"))
        };
        match self.set_value(name).or_else(default) {
            Some(Value::Number(number)) => number,
            other => unreachable!("{name} is a number, not {other:?}"),
        }
    }

    pub fn connection_limits(&self) -> ConnectionLimits {
        let count = |name| i32::try_from(self.number(name)).expect("the table says it has 32 bits");
        let overrides = match self.set_value("max.connections.per.ip.overrides") {
            Some(Value::Text(text)) => connection_overrides(&text).unwrap_or_default(),
            _ => Vec::new(),
        };
        ConnectionLimits {
            max: count("max.connections"),
            max_per_ip: count("max.connections.per.ip"),
            per_ip_overrides: overrides,
        }
    }

    /// The number of threads that is in force. Where none is set for a follower's tasks, an older name counts, as in
    /// Kafka.
    fn threads(&self, name: &str) -> i64 {
        let is_older = name == FOLLOWER_THREADS && self.set_value(name).is_none();
        self.number(if is_older { "remote.log.manager.thread.pool.size" } else { name })
    }

    /// Whether a running broker may change from these values to those of `after`.
    pub fn check_change(&self, after: &Layers) -> Result<(), String> {
        for name in THREADS {
            let (old, new) = (self.threads(name), after.threads(name));
            let why = match new {
                _ if new == old => continue,
                _ if new < old / 2 => format!("Value must be at least half the current value {old}"),
                _ if new > old * 2 => format!("Value must be no more than double the current value {old}"),
                _ => continue,
            };
            return Err(format!("Invalid value {new} for configuration {name}: {why}"));
        }
        self.check_local_retention(after)?;
        // A value that breaks a rule already, because another version recorded it, does not hold back other changes.
        let before = rules::broken(&|name| self.set_value(name));
        let broken = rules::broken(&|name| after.set_value(name));
        match broken.into_iter().find(|error| !before.contains(error)) {
            Some(error) => Err(error.to_string()),
            None => Ok(()),
        }
    }

    /// Records that are kept on the local disk are part of those that are kept at all. Kafka checks this for changes
    /// alone, and not for the file.
    fn check_local_retention(&self, after: &Layers) -> Result<(), String> {
        let whole = |layers: &Layers| {
            let topic = TopicConfig::resolve(&BTreeMap::new(), layers);
            [topic.retention_ms, topic.retention_bytes]
        };
        let names = ["log.local.retention.ms", "log.local.retention.bytes"];
        for ((name, before), now) in names.into_iter().zip(whole(self)).zip(whole(after)) {
            let local = after.number(name);
            let changes = (self.number(name), before) != (local, now);
            if changes && now >= 0 && (local == -1 || local > now) {
                return Err(format!("{name}={local}: allowed is a number of at most {now}, which is kept in all"));
            }
        }
        Ok(())
    }
}

/// Reads `max.connections.per.ip.overrides`. The error names the first entry that is malformed.
pub(super) fn connection_overrides(text: &str) -> Result<Vec<(String, i32)>, String> {
    let valid_in_host = |c: char| c.is_ascii_alphanumeric() || "-%._:".contains(c);
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| match entry.rsplit_once(':').map(|(host, count)| (host.trim(), count.trim().parse())) {
            Some((host, Ok(count))) if !host.is_empty() && host.chars().all(valid_in_host) => {
                Ok((host.to_owned(), count))
            }
            _ => Err(format!("'{entry}' is not host:count")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::BrokerConfig;
    use super::*;
    use std::collections::BTreeMap;

    fn map(lines: &[(&str, &str)]) -> BTreeMap<String, String> {
        lines.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn limits_are_those_of_this_broker_then_of_all_then_of_the_file() {
        let (broker, _) =
            BrokerConfig::from_properties([("max.connections", "5"), ("max.connections.per.ip", "4")]).unwrap();
        let (one, all) = (
            map(&[("max.connections", "7")]),
            map(&[("max.connections", "6"), ("max.connections.per.ip.overrides", "::1:2")]),
        );
        let layers = Layers { broker: &broker, dynamic_broker: &one, dynamic_default: &all };
        let per_ip_overrides = vec![("::1".to_owned(), 2)];
        assert_eq!(layers.connection_limits(), ConnectionLimits { max: 7, max_per_ip: 4, per_ip_overrides });
        assert_eq!(broker.layers().connection_limits().max, 5);
        assert_eq!(BrokerConfig::default().layers().connection_limits().max, i32::MAX);
    }

    #[test]
    fn threads_are_halved_or_doubled_at_most_and_overrides_have_a_form() {
        let broker = BrokerConfig::default();
        let change = |name: &str, value: &str| {
            let all = map(&[(name, value)]);
            broker.layers().check_change(&Layers { dynamic_default: &all, ..broker.layers() })
        };
        for value in ["4", "8", "16"] {
            assert_eq!(change("num.io.threads", value), Ok(()));
        }
        assert_eq!(
            change("num.io.threads", "17").unwrap_err(),
            "Invalid value 17 for configuration num.io.threads: Value must be no more than double the current value 8"
        );
        assert!(change("num.io.threads", "3").unwrap_err().contains("at least half the current value 8"));
        assert_eq!(change(FOLLOWER_THREADS, "4"), Ok(()));
        assert!(change(FOLLOWER_THREADS, "5").unwrap_err().ends_with("no more than double the current value 2"));
        let (older, _) = BrokerConfig::from_properties([("remote.log.manager.thread.pool.size", "8")]).unwrap();
        let more = map(&[(FOLLOWER_THREADS, "16")]);
        assert_eq!(older.layers().check_change(&Layers { dynamic_default: &more, ..older.layers() }), Ok(()));
        assert_eq!(change("max.connections.per.ip.overrides", "host:5"), Ok(()));
        assert!(change("max.connections.per.ip.overrides", "host").unwrap_err().ends_with("'host' is not host:count"));
    }

    #[test]
    fn a_change_is_refused_by_the_rules_that_a_file_is_checked_by() {
        let broker = BrokerConfig::default();
        let mut texts = Vec::new();
        for (name, value) in [
            ("log.retention.ms", "0"),
            ("log.retention.ms", "-5"),
            ("max.connections.per.ip", "0"),
            ("max.connections", "0"),
            ("max.connection.creation.rate", "0"),
            ("log.roll.ms", "0"),
            ("log.roll.jitter.ms", "-1"),
            ("log.flush.interval.ms", "-1"),
            ("log.cleaner.max.compaction.lag.ms", "1"),
            ("log.cleaner.dedupe.buffer.size", "1000"),
            ("cordoned.log.dirs", "/nowhere"),
            ("cordoned.log.dirs", "*,./tidelog-data"),
        ] {
            let lag = ("log.cleaner.min.compaction.lag.ms", "2");
            let in_file = BrokerConfig::from_properties([lag, (name, value)]).unwrap_err();
            let (one, all) = (map(&[(name, value)]), map(&[lag]));
            let before = Layers { dynamic_default: &all, ..broker.layers() };
            let after = Layers { dynamic_broker: &one, ..before };
            let refused = before.check_change(&after).unwrap_err();
            assert_eq!(vec![refused.clone()], in_file.iter().map(ToString::to_string).collect::<Vec<_>>());
            texts.push(refused);
        }
        insta::assert_snapshot!(texts.join("\n"), @r"
        log.retention.ms=0: allowed is a number of at least 1, or -1 for unlimited
        log.retention.ms=-5: allowed is a number of at least 1, or -1 for unlimited
        max.connections.per.ip=0: allowed is 0 only where max.connections.per.ip.overrides is set
        max.connections=0: allowed is a number of at least 1
        max.connection.creation.rate=0: allowed is a number of at least 1
        log.roll.ms=0: allowed is a number of at least 1
        log.roll.jitter.ms=-1: allowed is a number of at least 0
        log.flush.interval.ms=-1: allowed is a number of at least 0
        log.cleaner.min.compaction.lag.ms=2: allowed is at most log.cleaner.max.compaction.lag.ms
        log.cleaner.dedupe.buffer.size=1000: allowed is more than 1048576 for each of the log.cleaner.threads
        cordoned.log.dirs=/nowhere: allowed is * or some of log.dirs: ./tidelog-data
        cordoned.log.dirs=*,./tidelog-data: allowed is * or some of log.dirs: ./tidelog-data
        ");
        let one = map(&[("cordoned.log.dirs", "./tidelog-data"), ("log.retention.ms", "-1")]);
        assert_eq!(broker.layers().check_change(&Layers { dynamic_broker: &one, ..broker.layers() }), Ok(()));
    }

    #[test]
    fn a_bad_value_in_the_metadata_does_not_hold_back_another_change() {
        let broker = BrokerConfig::default();
        let (bad, more) = (map(&[("log.roll.ms", "0")]), map(&[("log.roll.ms", "0"), ("max.connections", "5")]));
        let before = Layers { dynamic_broker: &bad, ..broker.layers() };
        assert_eq!(before.check_change(&Layers { dynamic_broker: &more, ..before }), Ok(()));
    }

    #[test]
    fn no_more_is_kept_on_the_local_disk_than_in_all() {
        let broker = BrokerConfig::default();
        let change = |lines: &[(&str, &str)]| {
            broker.layers().check_change(&Layers { dynamic_default: &map(lines), ..broker.layers() })
        };
        assert_eq!(
            change(&[("log.local.retention.ms", "-1")]).unwrap_err(),
            "log.local.retention.ms=-1: allowed is a number of at most 604800000, which is kept in all"
        );
        assert!(change(&[("log.retention.bytes", "5"), ("log.local.retention.bytes", "6")]).is_err());
        assert_eq!(change(&[("log.retention.bytes", "6"), ("log.local.retention.bytes", "6")]), Ok(()));
        assert_eq!(change(&[("log.local.retention.bytes", "6")]), Ok(()));
    }
}
