//! What DescribeConfigs says of a broker, of a topic and of a subscription to clients' metrics (KIP-133, KIP-226,
//! KIP-569, KIP-714).

use super::broker::{BrokerConfig, Layers};
use super::key::{ConfigKey, Update};
use super::table;
use super::topic::{self, TopicConfig};
use std::collections::{BTreeMap, BTreeSet};

/// Where a value comes from, with its number in DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Source {
    Topic = 1,
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
    BrokerLogger = 6,
    ClientMetrics = 7,
}

/// A config with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub name: String,
    /// What is known of the name. A listener's own config has the key of the config that it takes the place of. `None`
    /// for a name that Kafka does not know.
    pub key: Option<&'static ConfigKey>,
    /// `None` where it is sensitive or not set.
    pub value: Option<String>,
    pub source: Source,
    pub read_only: bool,
    /// Every place that gives it a value, in order of precedence. The first has the config's own name.
    pub synonyms: Vec<DescribedSynonym>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedSynonym {
    pub name: String,
    pub value: Option<String>,
    pub source: Source,
}

impl Described {
    /// Whether the value is not told. That of an unknown name might be a secret.
    pub fn sensitive(&self) -> bool {
        is_sensitive(self.key)
    }

    /// The number that DescribeConfigs gives to the type of the value. 0: unknown.
    pub fn type_code(&self) -> i8 {
        self.key.map_or(0, |key| key.kind as i8)
    }

    pub fn documentation(&self) -> Option<&'static str> {
        self.key.filter(|key| key.name == self.name).map(|key| key.documentation)
    }
}

/// The configs of a topic, sorted by name.
pub fn describe_topic(overrides: &BTreeMap<String, String>, layers: &Layers) -> Vec<Described> {
    let shown = |key: &&ConfigKey| !key.internal || overrides.contains_key(key.name);
    table::topic_keys()
        .iter()
        .filter(shown)
        .map(|key| {
            let value = TopicConfig::text_of(key.name, overrides, layers);
            let mut synonyms = Vec::new();
            if overrides.contains_key(key.name) {
                let (name, value) = (key.name.to_owned(), value.clone());
                synonyms.push(DescribedSynonym { name, value, source: Source::Topic });
            }
            if let Some(synonym) = topic::synonyms(key.name).first() {
                synonyms.extend(broker_synonyms(synonym.name, layers));
            }
            let source = synonyms.first().map_or(Source::Default, |synonym| synonym.source);
            Described { name: key.name.to_owned(), key: Some(key), value, source, read_only: false, synonyms }
        })
        .collect()
}

/// The configs of a subscription to clients' metrics, sorted by name. One that does not exist has the defaults.
pub fn describe_client_metrics(set: &BTreeMap<String, String>) -> Vec<Described> {
    let described = |key: &'static ConfigKey| {
        let canonical = |text: &String| key.read(text).map_or_else(|_| text.clone(), |value| value.canonical());
        let set = set.get(key.name).map(canonical);
        let name = || key.name.to_owned();
        let synonym = |value| DescribedSynonym { name: name(), value: Some(value), source: Source::ClientMetrics };
        Described {
            name: name(),
            key: Some(key),
            value: set.clone().or_else(|| key.default_text().map(str::to_owned)),
            source: if set.is_some() { Source::ClientMetrics } else { Source::Default },
            read_only: false,
            synonyms: set.map(synonym).into_iter().collect(),
        }
    };
    table::client_metrics_keys().iter().map(described).collect()
}

/// Where a topic's config gets its value from, as the answer to CreateTopics says it. DescribeConfigs says
/// [`Source::Default`] where only a synonym in another unit is set (`log.retention.hours`).
pub fn topic_source(name: &str, overrides: &BTreeMap<String, String>, layers: &Layers) -> Source {
    if overrides.contains_key(name) {
        return Source::Topic;
    }
    let is_set =
        |layer: &BTreeMap<String, String>| topic::synonyms(name).iter().any(|one| layer.contains_key(one.name));
    match layers {
        _ if is_set(layers.dynamic_broker) => Source::DynamicBroker,
        _ if is_set(layers.dynamic_default) => Source::DynamicDefaultBroker,
        _ if is_set(&layers.broker.properties) => Source::StaticBroker,
        _ => Source::Default,
    }
}

/// The configs of this broker: all that Kafka knows, and all others that are set.
pub fn describe_broker(layers: &Layers) -> Vec<Described> {
    let known = table::broker_keys()
        .filter(|key| !key.internal || layers.broker.properties.contains_key(key.name))
        .map(|key| key.name);
    let others: BTreeSet<&str> = [layers.dynamic_broker, layers.dynamic_default, &layers.broker.other_properties]
        .into_iter()
        .flat_map(|layer| layer.keys().map(String::as_str))
        .filter(|name| table::broker_key(name).is_none())
        .collect();
    known.chain(others).map(|name| describe_name(name, layers)).collect()
}

/// The configs that are set for all brokers together. In requests, the broker resource with an empty name stands for
/// them.
pub fn describe_broker_default(layers: &Layers) -> Vec<Described> {
    let is_in_force = |name: &&String| table::broker_key(name).is_none_or(|key| key.update != Update::ReadOnly);
    let names = layers.dynamic_default.keys().filter(is_in_force);
    let of_all = |described: Described| {
        let synonyms = described.synonyms.into_iter().filter(|one| one.source == Source::DynamicDefaultBroker);
        let synonyms: Vec<DescribedSynonym> = synonyms.collect();
        let value = synonyms.first().and_then(|one| one.value.clone());
        Described { value, source: Source::DynamicDefaultBroker, synonyms, ..described }
    };
    names.map(|name| of_all(describe_name(name, layers))).collect()
}

fn describe_name(name: &str, layers: &Layers) -> Described {
    let synonyms = broker_synonyms(name, layers);
    let key = known_key(name);
    let value = synonyms.first().and_then(|synonym| synonym.value.clone());
    let canonical = |text: &String| key?.read(text).ok().map(|value| value.canonical());
    Described {
        name: name.to_owned(),
        key,
        value: value.as_ref().and_then(canonical).or(value),
        source: synonyms.first().map_or(Source::Default, |synonym| synonym.source),
        read_only: key.is_none_or(|key| key.name != name || key.update == Update::ReadOnly),
        synonyms,
    }
}

/// What is known of a broker's config, or of the config that a listener's own one takes the place of
/// (`listener.name.inside.max.connections`).
fn known_key(name: &str) -> Option<&'static ConfigKey> {
    let find =
        |name: &str| table::broker_key(name).or_else(|| table::DYNAMIC_ONLY.iter().find(|known| known.name == name));
    find(name).or_else(|| find(table::name_without_listener(name)?))
}

fn is_sensitive(key: Option<&ConfigKey>) -> bool {
    key.is_none_or(ConfigKey::sensitive)
}

/// The places that give a value to the broker's config `name`. All names of the setting are looked up, and what stands
/// before the first place with the name itself is left out.
fn broker_synonyms(name: &str, layers: &Layers) -> Vec<DescribedSynonym> {
    let names = names_of_setting(name);
    let is_hidden = is_sensitive(known_key(name));
    let mut synonyms = Vec::new();
    for source in [Source::DynamicBroker, Source::DynamicDefaultBroker, Source::StaticBroker, Source::Default] {
        for &name in &names {
            if let Some(value) = value_in(source, name, layers) {
                let value = (!is_hidden).then_some(value);
                synonyms.push(DescribedSynonym { name: name.to_owned(), value, source });
            }
        }
    }
    synonyms.into_iter().skip_while(|synonym| synonym.name != name).collect()
}

/// All names of the setting `name`, which may have a name for each unit, in order of precedence.
fn names_of_setting(name: &str) -> Vec<&str> {
    let family = topic::SYNONYMS.iter().map(|(_, synonyms)| *synonyms).find(|synonyms| {
        // `log.flush.scheduler.interval.ms` stands in for `log.flush.interval.ms`, but not the other way round.
        synonyms.len() > 1 && synonyms.iter().any(|synonym| synonym.name == name)
    });
    match (family, table::name_without_listener(name)) {
        (Some(synonyms), _) if name != "log.flush.scheduler.interval.ms" => {
            synonyms.iter().map(|synonym| synonym.name).collect()
        }
        (_, Some(base)) => vec![name, base],
        _ => vec![name],
    }
}

fn value_in(source: Source, name: &str, layers: &Layers) -> Option<String> {
    let may_change = table::broker_key(name).is_none_or(|key| key.update != Update::ReadOnly);
    match source {
        Source::DynamicBroker if may_change => layers.dynamic_broker.get(name).cloned(),
        Source::DynamicDefaultBroker if may_change => layers.dynamic_default.get(name).cloned(),
        Source::StaticBroker => value_in_file(name, layers.broker),
        Source::Default => default_value(name, layers.broker),
        _ => None,
    }
}

/// `node.id` and `broker.id` are two names of one number. Kafka sets both where one is set.
fn value_in_file(name: &str, broker: &BrokerConfig) -> Option<String> {
    let other = match name {
        "node.id" => "broker.id",
        "broker.id" => "node.id",
        _ => name,
    };
    let properties = &broker.properties;
    properties.get(name).or_else(|| properties.get(other)).or_else(|| broker.other_properties.get(name)).cloned()
}

/// What is taken where nothing is set. Kafka does not start without some of these names.
fn default_value(name: &str, broker: &BrokerConfig) -> Option<String> {
    let is_set = value_in_file(name, broker).is_some();
    match name {
        "node.id" | "broker.id" if !is_set => Some(broker.node_id.to_string()),
        "process.roles" if !is_set => Some("broker,controller".to_owned()),
        "controller.listener.names" if !is_set => Some(broker.controller_listener_names.join(",")),
        _ => known_key(name).filter(|key| key.name == name)?.default_text().map(str::to_owned),
    }
}
