//! What may change while a broker runs, beyond what topics take from it (KIP-226).

use super::broker::Layers;
use super::key::Value;
use super::table;

/// How many connections there may be (KIP-402, KIP-612).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// `max.connections`
    pub max: i32,
    /// `max.connections.per.ip`
    pub max_per_ip: i32,
    /// `max.connections.per.ip.overrides`: addresses or host names, each with its number.
    pub per_ip_overrides: Vec<(String, i32)>,
}

/// Numbers of threads, which Kafka lets grow and shrink by half and double.
const THREADS: &[&str] = &[
    "background.threads",
    "num.io.threads",
    "num.network.threads",
    "num.recovery.threads.per.data.dir",
    "num.replica.fetchers",
];

impl Layers<'_> {
    /// The number that is in force: the one set, else the default.
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

    /// Whether a running broker may go from these values to others; the text is Kafka's.
    pub fn check_change(&self, after: &Layers) -> Result<(), String> {
        for name in THREADS {
            let (old, new) = (self.number(name), after.number(name));
            let why = match new {
                _ if new == old => continue,
                _ if new < old / 2 => format!("value should be at least half the current value {old}"),
                _ if new > old * 2 => format!("value should not be greater than double the current value {old}"),
                _ => continue,
            };
            return Err(format!(
                "Invalid value org.apache.kafka.common.config.ConfigException: Dynamic thread count update validation \
                 failed for {name}={new}, {why} for configuration Invalid dynamic configuration"
            ));
        }
        if let Some(Value::Text(text)) = after.set_value("max.connections.per.ip.overrides") {
            connection_overrides(&text).map_err(|why| {
                format!("Error parsing configuration property 'max.connections.per.ip.overrides': {why}")
            })?;
        }
        Ok(())
    }
}

/// Reads `max.connections.per.ip.overrides`; the error names the first entry that is not one.
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
            "Invalid value org.apache.kafka.common.config.ConfigException: Dynamic thread count update validation \
             failed for num.io.threads=17, value should not be greater than double the current value 8 for \
             configuration Invalid dynamic configuration"
        );
        assert!(change("num.io.threads", "3").unwrap_err().contains("at least half the current value 8"));
        assert_eq!(change("max.connections.per.ip.overrides", "host:5"), Ok(()));
        assert!(change("max.connections.per.ip.overrides", "host").unwrap_err().ends_with("'host' is not host:count"));
    }
}
