//! What to tell whoever sets a config that has no effect: the name is not known, is gone, or asks for what does not
//! exist yet. The same for every way in: a file, the command line, a request.

use super::effect::Effect;
use super::topic::{SYNONYMS, synonyms};
use super::{ConfigKey, suggest, table};

/// A property without effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Warning {
    pub name: String,
    pub text: String,
}

/// Names that begin with these prefixes belong to plug-ins or to single listeners. They are taken without a warning.
const OPEN_PREFIXES: &[&str] = &["listener.name.", "config.providers.", "rlmm.config.", "rsm.config.", "client.quota."];

/// Kafka changes these while a broker runs, too.
const AT_A_START: &[&str] = &["num.io.threads", "num.network.threads"];

impl Warning {
    /// For a broker's property. `None` also where the value cannot be used: that is an error, and told as one.
    pub fn of_broker(name: &str, value: &str) -> Option<Self> {
        let known = table::broker_key(name).or_else(|| table::DYNAMIC_ONLY.iter().find(|key| key.name == name));
        let text = match known {
            Some(key) => Self::without_effect(key, value)?,
            None if OPEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) => return None,
            None => Self::unknown(name),
        };
        Some(Self { name: name.to_owned(), text })
    }

    /// For a property of a broker that runs.
    pub fn of_running_broker(name: &str, value: &str) -> Option<Self> {
        if AT_A_START.contains(&name) {
            let text = format!("{name} has no effect here: a start takes it from the broker's file");
            return Some(Self { name: name.to_owned(), text });
        }
        Self::of_broker(name, value)
    }

    /// For a topic's property. A name that is not known is an error there.
    pub fn of_topic(name: &str, value: &str) -> Option<Self> {
        let text = Self::without_effect(table::topic_key(name)?, value)?;
        Some(Self { name: name.to_owned(), text })
    }

    /// For a property of a subscription to clients' metrics. A name that is not known is an error there.
    pub fn of_client_metrics(name: &str, value: &str) -> Option<Self> {
        let text = Self::without_effect(table::client_metrics_key(name)?, value)?;
        Some(Self { name: name.to_owned(), text })
    }

    /// For a name of a topic whose value is deleted.
    pub fn of_deleted_from_topic(name: &str) -> Option<Self> {
        table::topic_key(name).is_none().then(|| Self::not_known(name, suggest_topic(name)))
    }

    /// For a name of a broker whose value is deleted. An unknown name may have been set.
    pub fn of_deleted_from_broker(name: &str) -> Option<Self> {
        let is_known = table::broker_key(name).is_some() || table::DYNAMIC_ONLY.iter().any(|key| key.name == name);
        (!is_known).then(|| Self::not_known(name, suggest_broker(name)))
    }

    /// For a name of a subscription to clients' metrics whose value is deleted.
    pub fn of_deleted_from_client_metrics(name: &str) -> Option<Self> {
        let known = table::client_metrics_keys().iter().map(|key| key.name);
        table::client_metrics_key(name).is_none().then(|| Self::not_known(name, suggest(name, known)))
    }

    fn not_known(name: &str, close: Option<&str>) -> Self {
        Self { name: name.to_owned(), text: format!("{name} is not a known config{}", did_you_mean(close)) }
    }

    fn without_effect(key: &ConfigKey, text: &str) -> Option<String> {
        // A file cannot say "not set" but by an empty value.
        if text.trim().is_empty() && key.default_text().is_none() {
            return None;
        }
        let value = key.read(text).ok()?;
        let name = key.name;
        match (key.effect(), key.effect_of(&value)) {
            (_, Effect::NotYet(_)) if key.default_text() == Some(value.canonical().as_str()) => None,
            (Effect::Works, Effect::NotYet(why)) => Some(format!("compact in {name} removes nothing: {why}")),
            (_, Effect::NotYet(why)) => Some(format!("{name} has no effect: {why}")),
            _ => None,
        }
    }

    fn unknown(name: &str) -> String {
        let gone = |known: &str| known == name || (known.ends_with('.') && name.starts_with(known));
        match table::GONE.iter().find(|(known, _)| gone(known)) {
            Some((_, instead)) => format!("{name} was removed in Kafka 4.0 and has no effect: {instead}"),
            None => format!("{name} is not a known config and has no effect{}", did_you_mean(suggest_broker(name))),
        }
    }
}

/// The end of a sentence about an unknown name.
pub fn did_you_mean(close: Option<&str>) -> String {
    close.map_or(String::new(), |close| format!("; did you mean {close}?"))
}

/// The broker's config that `name` was probably meant to be: one that is written almost so, or what a broker calls that
/// config of a topic.
pub fn suggest_broker(name: &str) -> Option<&'static str> {
    let of_topic = || synonyms(name).first().map(|synonym| synonym.name);
    suggest(name, table::broker_keys().map(|key| key.name)).or_else(of_topic)
}

/// The topic's config that `name` was probably meant to be: one that is written almost so, or what a topic calls that
/// config of a broker.
pub fn suggest_topic(name: &str) -> Option<&'static str> {
    let is_behind = |synonyms: &[super::Synonym]| synonyms.iter().any(|synonym| synonym.name == name);
    let of_broker = || SYNONYMS.iter().find(|(_, synonyms)| is_behind(synonyms)).map(|(topic_name, _)| *topic_name);
    let known = table::topic_keys().iter().filter(|key| !key.internal).map(|key| key.name);
    suggest(name, known).or_else(of_broker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_broker(name: &str, value: &str) -> String {
        Warning::of_broker(name, value).map_or("nothing".to_owned(), |warning| warning.text)
    }

    fn of_topic(name: &str, value: &str) -> String {
        Warning::of_topic(name, value).map_or("nothing".to_owned(), |warning| warning.text)
    }

    #[test]
    fn an_unknown_name_is_told_when_it_is_deleted_too() {
        let text = |warning: Option<Warning>| warning.map_or("nothing".to_owned(), |warning| warning.text);
        let (topic, broker) = (Warning::of_deleted_from_topic, Warning::of_deleted_from_broker);
        assert_eq!(
            (text(topic("retention.ms")), text(broker("log.retention.ms"))),
            ("nothing".into(), "nothing".into())
        );
        insta::assert_snapshot!(text(topic("retention.sm")), @"retention.sm is not a known config; did you mean retention.ms?");
        insta::assert_snapshot!(text(broker("retention.ms")), @"retention.ms is not a known config; did you mean log.retention.ms?");
        insta::assert_snapshot!(text(broker("nosuch")), @"nosuch is not a known config");
    }

    #[test]
    fn an_unknown_name_of_a_broker_is_told_with_the_one_that_was_meant() {
        insta::assert_snapshot!(of_broker("log.retention.msec", "3"), @"log.retention.msec is not a known config and has no effect; did you mean log.retention.ms?");
        insta::assert_snapshot!(of_broker("retention.ms", "3"), @"retention.ms is not a known config and has no effect; did you mean log.retention.ms?");
        insta::assert_snapshot!(of_broker("my.own.thing", "3"), @"my.own.thing is not a known config and has no effect");
        insta::assert_snapshot!(of_broker("zookeeper.connect", "h:1"), @"zookeeper.connect was removed in Kafka 4.0 and has no effect: Kafka 4 has no ZooKeeper; brokers form a KRaft quorum");
        let while_it_runs = Warning::of_running_broker("num.io.threads", "16").unwrap().text;
        insta::assert_snapshot!(while_it_runs, @"num.io.threads has no effect here: a start takes it from the broker's file");
        assert_eq!(of_broker("num.io.threads", "16"), "nothing");
        assert_eq!(Warning::of_running_broker("max.connections", "16"), None);
        assert_eq!(of_broker("listener.name.inside.ssl.key.password", "x"), "nothing");
    }

    #[test]
    fn compaction_is_told_of_wherever_it_is_asked_for() {
        insta::assert_snapshot!(of_topic("cleanup.policy", "delete, compact"), @"compact in cleanup.policy removes nothing: compacted topics keep all their records: there is no log cleaner yet");
        insta::assert_snapshot!(of_broker("log.cleanup.policy", "compact"), @"compact in log.cleanup.policy removes nothing: compacted topics keep all their records: there is no log cleaner yet");
        insta::assert_snapshot!(of_topic("min.compaction.lag.ms", "5"), @"min.compaction.lag.ms has no effect: compacted topics keep all their records: there is no log cleaner yet");
        for (name, value) in [("cleanup.policy", "delete"), ("min.compaction.lag.ms", "0"), ("retention.ms", "5")] {
            assert_eq!(of_topic(name, value), "nothing", "{name}={value}");
        }
        assert_eq!(of_topic("cleanup.policy", "forget"), "nothing", "it is an error");
    }

    #[test]
    fn the_names_of_brokers_and_topics_are_suggested_for_each_other() {
        assert_eq!(suggest_topic("retention.sm"), Some("retention.ms"));
        assert_eq!(suggest_topic("log.retention.hours"), Some("retention.ms"));
        assert_eq!(suggest_topic("message.max.bytes"), Some("max.message.bytes"));
        assert_eq!(suggest_broker("max.message.bytes"), Some("message.max.bytes"));
        assert_eq!((suggest_topic("nosuch"), suggest_broker("nosuch")), (None, None));
    }
}
