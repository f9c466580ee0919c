//! What DescribeConfigs says of a broker and of a topic (KIP-133, KIP-226, KIP-569).

use super::broker::Layers;
use super::key::{ConfigKey, Update};
use super::table;
use super::topic::{self, TopicConfig};
use std::collections::BTreeMap;

/// Where a value comes from, with its number in DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Source {
    Topic = 1,
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
}

/// A config with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub key: &'static ConfigKey,
    /// `None` where it is sensitive or not set.
    pub value: Option<String>,
    pub source: Source,
    pub read_only: bool,
    /// Every place that sets it, the one that decides first.
    pub synonyms: Vec<DescribedSynonym>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedSynonym {
    pub name: &'static str,
    pub value: Option<String>,
    pub source: Source,
}

/// The configs of a topic, sorted by name.
pub fn describe_topic(overrides: &BTreeMap<String, String>, layers: &Layers) -> Vec<Described> {
    let shown = |key: &&ConfigKey| !key.internal || overrides.contains_key(key.name);
    table::topic_keys()
        .iter()
        .filter(shown)
        .map(|key| {
            let mut synonyms = Vec::new();
            if let Some(value) = overrides.get(key.name) {
                synonyms.push(DescribedSynonym { name: key.name, value: Some(value.clone()), source: Source::Topic });
            }
            for synonym in topic::synonyms(key.name) {
                push_layers(synonym.name, layers, &mut synonyms);
            }
            // A default in the broker's unit stands under the broker's name; one without is the topic's own.
            Described {
                key,
                value: TopicConfig::text_of(key.name, overrides, layers),
                source: synonyms.first().map_or(Source::Default, |synonym| synonym.source),
                read_only: false,
                synonyms,
            }
        })
        .collect()
}

/// The configs of this broker.
pub fn describe_broker(layers: &Layers) -> Vec<Described> {
    table::broker_keys()
        .filter(|key| !key.internal || layers.broker.properties.contains_key(key.name))
        .chain(table::DYNAMIC_ONLY.iter().filter(|key| {
            layers.dynamic_broker.contains_key(key.name) || layers.dynamic_default.contains_key(key.name)
        }))
        .map(|key| describe_broker_key(key, layers))
        .collect()
}

/// What is set for all brokers together, which the resource with an empty name stands for.
pub fn describe_broker_default(layers: &Layers) -> Vec<Described> {
    table::broker_keys()
        .chain(table::DYNAMIC_ONLY)
        .filter_map(|key| {
            let value = layers.dynamic_default.get(key.name)?;
            let value = (!key.sensitive()).then(|| value.clone());
            let source = Source::DynamicDefaultBroker;
            let synonyms = vec![DescribedSynonym { name: key.name, value: value.clone(), source }];
            Some(Described { key, value, source, read_only: key.update == Update::ReadOnly, synonyms })
        })
        .collect()
}

fn describe_broker_key(key: &'static ConfigKey, layers: &Layers) -> Described {
    let mut synonyms = Vec::new();
    for name in broker_synonyms(key.name) {
        push_layers(name, layers, &mut synonyms);
    }
    let own = synonyms.iter().find(|synonym| synonym.name == key.name);
    Described {
        key,
        value: own.and_then(|synonym| synonym.value.clone()),
        source: synonyms.first().map_or(Source::Default, |synonym| synonym.source),
        read_only: key.update == Update::ReadOnly,
        synonyms,
    }
}

/// The names of one setting in several units, the one that decides first.
fn broker_synonyms(name: &'static str) -> Vec<&'static str> {
    let family = topic::SYNONYMS.iter().map(|(_, synonyms)| *synonyms).find(|synonyms| {
        // The scheduler's interval stands in for the flush interval, and not the other way round.
        synonyms.len() > 1 && synonyms.iter().any(|synonym| synonym.name == name)
    });
    match family {
        Some(synonyms) if name != "log.flush.scheduler.interval.ms" => {
            synonyms.iter().map(|synonym| synonym.name).collect()
        }
        _ => vec![name],
    }
}

fn push_layers(name: &str, layers: &Layers, synonyms: &mut Vec<DescribedSynonym>) {
    let key = table::broker_key(name).or_else(|| table::DYNAMIC_ONLY.iter().find(|key| key.name == name));
    let key = key.unwrap_or_else(|| panic!("{name} is not in the table"));
    let mut push = |value: Option<&str>, source| {
        if let Some(value) = value {
            let value = (!key.sensitive()).then(|| value.to_owned());
            synonyms.push(DescribedSynonym { name: key.name, value, source });
        }
    };
    push(layers.dynamic_broker.get(name).map(String::as_str), Source::DynamicBroker);
    push(layers.dynamic_default.get(name).map(String::as_str), Source::DynamicDefaultBroker);
    push(layers.broker.properties.get(name).map(String::as_str), Source::StaticBroker);
    push(key.default_text(), Source::Default);
}
