//! Changes the configs of topics, of brokers and of subscriptions to clients' metrics, one by one (KIP-339) or all of a
//! resource at once (KIP-133).

use super::elections::elect_unclean_leaders;
use super::image::{ConfigResource, Image, ResourceKind, Topic};
use super::topics::validate_topic_name;
use super::{Context, Decision, MAX_RECORDS_PER_REQUEST, Refusal, too_many_records};
use bytestring::ByteString;
use std::collections::{BTreeMap, BTreeSet};
use tidelog_config::{Kind, Layers, SubscriptionError, TopicConfig, Update, check_subscription, table};
use tidelog_wire::ids::NodeId;
use tidelog_wire::messages::{
    AlterConfigsRequest, AlterConfigsResponse, ClearElrRecord, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, PartitionChangeRecord, alter_configs_response, incremental_alter_configs_response,
};
use tidelog_wire::{ErrorCode, MetadataRecord, node_ids};

const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
const UNCLEAN_LEADER_ELECTION: &str = "unclean.leader.election.enable";

/// What a request does to one config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigOperation {
    Set,
    Delete,
    Append,
    Subtract,
}

impl ConfigOperation {
    /// The operation of this number in IncrementalAlterConfigs.
    pub fn from_code(code: i8) -> Option<Self> {
        [Self::Set, Self::Delete, Self::Append, Self::Subtract].get(usize::try_from(code).ok()?).copied()
    }

    /// Whether an operation of this number needs a value: all but [`Self::Delete`] do, also those that do not exist.
    pub fn needs_value(code: i8) -> bool {
        Self::from_code(code) != Some(Self::Delete)
    }
}

/// Sets and deletes single configs, and adds items to lists or takes them out.
pub fn incremental_alter_configs(
    image: &Image,
    context: &Context,
    request: &IncrementalAlterConfigsRequest,
) -> Decision<IncrementalAlterConfigsResponse> {
    let named = request.resources.iter().map(|resource| (resource.resource_type, &resource.resource_name));
    let mut changes = Changes::new(image, context, named);
    for resource in &request.resources {
        let named: Vec<_> = resource
            .configs
            .iter()
            .map(|config| (&config.name, config.config_operation, config.value.as_ref()))
            .collect();
        let keys = check_config_keys(
            named.iter().map(|&(name, code, value)| (name, value, ConfigOperation::needs_value(code))),
        );
        changes.resource(resource.resource_type, &resource.resource_name, keys, |changes, target| {
            changes.incremental(target, &named)
        });
    }
    let Decision { records, response } = changes.finish(request.validate_only);
    let responses = response
        .into_iter()
        .map(|(resource_type, resource_name, error, message)| {
            incremental_alter_configs_response::AlterConfigsResourceResponse {
                error_code: error.code(),
                error_message: message,
                resource_type,
                resource_name,
                ..Default::default()
            }
        })
        .collect();
    let response = IncrementalAlterConfigsResponse { responses, ..IncrementalAlterConfigsResponse::default() };
    Decision { records, response }
}

/// Replaces all configs of each resource by the given ones.
pub fn alter_configs(
    image: &Image,
    context: &Context,
    request: &AlterConfigsRequest,
) -> Decision<AlterConfigsResponse> {
    let named = request.resources.iter().map(|resource| (resource.resource_type, &resource.resource_name));
    let mut changes = Changes::new(image, context, named);
    for resource in &request.resources {
        let named: Vec<_> = resource.configs.iter().map(|config| (&config.name, config.value.as_ref())).collect();
        let keys = check_config_keys(named.iter().map(|&(name, value)| (name, value, true)));
        changes.resource(resource.resource_type, &resource.resource_name, keys, |changes, target| {
            Ok(changes.replacing(target, &named))
        });
    }
    let Decision { records, response } = changes.finish(request.validate_only);
    let responses = response
        .into_iter()
        .map(|(resource_type, resource_name, error, message)| alter_configs_response::AlterConfigsResourceResponse {
            error_code: error.code(),
            error_message: message,
            resource_type,
            resource_name,
            ..Default::default()
        })
        .collect();
    Decision { records, response: AlterConfigsResponse { responses, ..AlterConfigsResponse::default() } }
}

pub fn repeated_resource() -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, "Each resource must appear at most once.")
}

pub(super) fn value_too_long() -> Refusal {
    let text = "The configuration value cannot be added because it exceeds the maximum value size of 32767 bytes.";
    Refusal::new(ErrorCode::InvalidConfig, text)
}

/// The answer for one resource: its type, its name, the error and the message.
type Answer = (i8, ByteString, ErrorCode, Option<ByteString>);

/// The name of a config and its new value; `None` if the config is deleted.
type Change = (String, Option<String>);

struct Changes<'a> {
    image: &'a Image,
    context: &'a Context<'a>,
    /// Resources that the request names more than once.
    repeated: BTreeSet<(i8, ByteString)>,
    records: Vec<MetadataRecord>,
    answers: Vec<Answer>,
}

impl<'a> Changes<'a> {
    fn new<'r>(
        image: &'a Image,
        context: &'a Context<'a>,
        resources: impl Iterator<Item = (i8, &'r ByteString)>,
    ) -> Self {
        let mut seen = BTreeSet::new();
        let repeated = resources
            .map(|(kind, name)| (kind, name.clone()))
            .filter(|resource| !seen.insert(resource.clone()))
            .collect();
        Self { image, context, repeated, records: Vec::new(), answers: Vec::new() }
    }

    fn finish(mut self, validate_only: bool) -> Decision<Vec<Answer>> {
        if validate_only {
            self.records.clear();
        }
        self.elect_where_it_is_allowed_now();
        Decision { records: self.records, response: self.answers }
    }

    /// Whoever allows unclean elections wants partitions without a leader to have one. Kafka elects them at its next
    /// search (`unclean.leader.election.interval.ms`), which goes on for what is too much for one request here too.
    fn elect_where_it_is_allowed_now(&mut self) {
        let is_about_it = |record: &MetadataRecord| matches!(record, MetadataRecord::Config(config) if config.name == UNCLEAN_LEADER_ELECTION);
        if !self.records.iter().any(is_about_it) {
            return;
        }
        let mut later = self.image.clone();
        for record in &self.records {
            later.apply(record).expect("a decision fits the image that it was made from");
        }
        let context = Context { layers: later.layers(self.context.layers.broker), ..*self.context };
        self.records.extend(elect_unclean_leaders(&later, &context).records);
    }

    /// Checks the changes of one resource. Takes all of them if all are valid, and none otherwise. `keys` says whether
    /// keys are named twice or values are missing.
    fn resource(
        &mut self,
        code: i8,
        name: &ByteString,
        keys: Result<(), Refusal>,
        changes: impl FnOnce(&Self, &ConfigResource) -> Result<Vec<Change>, Refusal>,
    ) {
        let target = self.check_repeated(code, name).and(keys).and_then(|()| self.check_resource(code, name));
        let outcome = target.and_then(|target| {
            let changes = changes(self, &target)?;
            self.check_result(&target, &changes)?;
            if self.records.len() + changes.len() > MAX_RECORDS_PER_REQUEST {
                return Err(too_many_records());
            }
            Ok((target, changes))
        });
        let (error, message) = match outcome {
            Ok((target, changes)) => {
                self.record(&target, &changes);
                (ErrorCode::None, None)
            }
            Err(refusal) => (refusal.error, refusal.message),
        };
        self.answers.push((code, name.clone(), error, message));
    }

    fn record(&mut self, target: &ConfigResource, changes: &[Change]) {
        for (name, value) in changes {
            self.records.push(target.record(name, value.as_deref()));
            // Which replicas are eligible leaders depends on `min.insync.replicas`, so a change of it clears them
            // (KAFKA-16540).
            if name == MIN_INSYNC_REPLICAS && self.image.has_eligible_leaders() {
                let topic_name =
                    if target.kind == ResourceKind::Topic { target.name.as_str().into() } else { ByteString::new() };
                self.clear_eligible_leaders(topic_name);
            }
        }
    }

    /// Clears the eligible leaders of a topic, or of all topics if the name is empty. Where no replica is in sync, nothing
    /// has been committed since they were eligible, and no other replica may lead: there they are named anew. (In Kafka
    /// such a partition is without a leader for ever.)
    fn clear_eligible_leaders(&mut self, topic_name: ByteString) {
        let concerned = |topic: &&Topic| topic_name.is_empty() || topic.name == topic_name;
        let mut kept = Vec::new();
        for topic in self.image.topics().filter(concerned) {
            for (&partition_id, partition) in topic.partitions.iter().filter(|(_, partition)| partition.isr.is_empty())
            {
                let named = |nodes: &[NodeId]| (!nodes.is_empty()).then(|| node_ids(nodes));
                let (eligible, last_known) = (&partition.eligible_leaders, &partition.last_known_eligible_leaders);
                if eligible.is_empty() && last_known.is_empty() {
                    continue;
                }
                let candidates = PartitionChangeRecord {
                    topic_id: topic.id,
                    partition_id,
                    eligible_leader_replicas: named(eligible),
                    last_known_elr: named(last_known),
                    ..PartitionChangeRecord::default()
                };
                kept.push(candidates.into());
            }
        }
        self.records.push(ClearElrRecord { topic_name, ..ClearElrRecord::default() }.into());
        self.records.extend(kept);
    }

    fn check_repeated(&self, code: i8, name: &ByteString) -> Result<(), Refusal> {
        match self.repeated.contains(&(code, name.clone())) {
            true => Err(repeated_resource()),
            false => Ok(()),
        }
    }

    fn check_resource(&self, code: i8, name: &ByteString) -> Result<ConfigResource, Refusal> {
        let invalid = |text: String| Err(Refusal::new(ErrorCode::InvalidRequest, text));
        let target = ConfigResource::new(ResourceKind::from_code(code), name.to_string());
        match target.kind {
            // Kafka looks at the values first, and then whether there is such a topic: see `check_topic`.
            ResourceKind::Topic => Ok(target),
            ResourceKind::Broker if name.is_empty() => Ok(target),
            ResourceKind::Broker => match name.parse::<i32>() {
                // The broker that a client asks knows whether it is meant; the controller takes what it brings.
                Ok(_) => Ok(target),
                Err(_) => invalid(format!("Node id must be an integer, but it is: {name}")),
            },
            ResourceKind::ClientMetrics => Ok(target),
            ResourceKind::Group => invalid("Configs of groups are not supported: there are no groups yet.".to_owned()),
            // Levels of loggers are no metadata. The broker itself changes them, if it is asked to do so one by one.
            ResourceKind::BrokerLogger | ResourceKind::Other(_) => invalid(format!("Unknown resource type {code}")),
        }
    }

    fn incremental(
        &self,
        target: &ConfigResource,
        configs: &[(&ByteString, i8, Option<&ByteString>)],
    ) -> Result<Vec<Change>, Refusal> {
        let current = self.image.config(target);
        let mut changes = Vec::new();
        for &(name, code, value) in configs {
            let operation = ConfigOperation::from_code(code)
                .ok_or_else(|| Refusal::new(ErrorCode::InvalidRequest, format!("Unknown operations type {code}")))?;
            let before = current.get(&**name).cloned();
            let given = value.map(|value| &**value).unwrap_or_default();
            let after = match operation {
                ConfigOperation::Set => Some(given.to_owned()),
                ConfigOperation::Delete => None,
                ConfigOperation::Append | ConfigOperation::Subtract => {
                    Some(edit_list(target.kind, name, before.as_deref(), operation, given)?)
                }
            };
            // A broker reloads a config that is set again, even to the same value (KAFKA-14136).
            if before != after || target.kind == ResourceKind::Broker {
                changes.push((name.to_string(), after));
            }
        }
        Ok(changes)
    }

    fn replacing(&self, target: &ConfigResource, configs: &[(&ByteString, Option<&ByteString>)]) -> Vec<Change> {
        let current = self.image.config(target);
        let given: BTreeMap<&str, &str> =
            configs.iter().map(|(name, value)| (&***name, value.map(|value| &**value).unwrap_or_default())).collect();
        let mut changes = Vec::new();
        for (&name, &value) in &given {
            if current.get(name).map(String::as_str) != Some(value) || target.kind == ResourceKind::Broker {
                changes.push((name.to_owned(), Some(value.to_owned())));
            }
        }
        let gone = current.keys().filter(|name| !given.contains_key(name.as_str()));
        changes.extend(gone.map(|name| (name.clone(), None)));
        changes
    }

    /// Checks the configs that the resource would have after the changes.
    fn check_result(&self, target: &ConfigResource, changes: &[Change]) -> Result<(), Refusal> {
        let mut result = self.image.config(target).clone();
        if target.kind == ResourceKind::Broker {
            // A broker ignores what it cannot use of the metadata, for example what only a start can set here and a
            // Kafka broker may change. So it holds back no other change.
            let one = |name: &String, value: &String| BTreeMap::from([(name.clone(), value.clone())]);
            result.retain(|name, value| check_broker_configs(&one(name, value), !target.name.is_empty()).is_ok());
        }
        for (name, value) in changes {
            if name == MIN_INSYNC_REPLICAS && target.kind == ResourceKind::Broker && self.image.has_eligible_leaders() {
                // With eligible leader replicas (KIP-966) the controller must know the value, so it can only be set for
                // the whole cluster.
                let text = match value {
                    _ if !target.name.is_empty() => {
                        "Broker-level min.insync.replicas cannot be altered while ELR is enabled."
                    }
                    None => "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.",
                    Some(_) => "",
                };
                if !text.is_empty() {
                    return Err(Refusal::new(ErrorCode::InvalidConfig, text));
                }
            }
            match value {
                Some(value) if value.encode_utf16().count() > i16::MAX as usize => return Err(value_too_long()),
                Some(value) => result.insert(name.clone(), value.clone()),
                None => result.remove(name),
            };
        }
        match target.kind {
            ResourceKind::Topic => self.check_topic(&target.name, &result),
            ResourceKind::Broker => {
                let layers = &self.context.layers;
                let after = match target.name.is_empty() {
                    true => Layers { dynamic_default: &result, ..*layers },
                    false => Layers { dynamic_broker: &result, ..*layers },
                };
                check_broker_configs(&result, !target.name.is_empty())
                    .and_then(|()| layers.check_change(&after))
                    .map_err(|text| Refusal::new(ErrorCode::InvalidRequest, text))
            }
            ResourceKind::ClientMetrics => check_subscription(&target.name, &result).map_err(|error| {
                let code = match error {
                    SubscriptionError::Request(_) => ErrorCode::InvalidRequest,
                    SubscriptionError::Value(_) => ErrorCode::InvalidConfig,
                };
                Refusal::new(code, error.to_string())
            }),
            other => unreachable!("{other:?} was refused before"),
        }
    }

    /// Checks the name of a topic, then the configs that it would have, and then that it exists, in Kafka's order.
    fn check_topic(&self, name: &str, configs: &BTreeMap<String, String>) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(Refusal::new(ErrorCode::InvalidRequest, "Default topic resources are not allowed."));
        }
        validate_topic_name(name).map_err(|text| Refusal::new(ErrorCode::InvalidTopicException, text))?;
        TopicConfig::validate(configs, &self.context.layers)
            .map_err(|text| Refusal::new(ErrorCode::InvalidConfig, text))?;
        match self.image.topic_named(name) {
            Some(_) => Ok(()),
            None => {
                let text = format!("The topic '{name}' does not exist.");
                Err(Refusal::new(ErrorCode::UnknownTopicOrPartition, text))
            }
        }
    }
}

/// Checks that no key of a resource is named twice, and that none is without a value that needs one. An item is the key,
/// its value, and whether it needs one.
pub fn check_config_keys<'a>(
    keys: impl Iterator<Item = (&'a ByteString, Option<&'a ByteString>, bool)> + Clone,
) -> Result<(), Refusal> {
    let invalid = |text: String| Err(Refusal::new(ErrorCode::InvalidRequest, text));
    let mut seen = BTreeSet::new();
    if !keys.clone().all(|(name, _, _)| seen.insert(name)) {
        return invalid("Error due to duplicate config keys".to_owned());
    }
    let nulls = keys.filter(|(_, value, needs_value)| *needs_value && value.is_none());
    let nulls: Vec<&str> = nulls.map(|(name, _, _)| &**name).collect();
    match nulls.is_empty() {
        true => Ok(()),
        false => invalid(format!("Null value not supported for : {}", nulls.join(", "))),
    }
}

/// A list with items added or taken out. A list that is not set starts from its default.
fn edit_list(
    kind: ResourceKind,
    name: &str,
    before: Option<&str>,
    operation: ConfigOperation,
    given: &str,
) -> Result<String, Refusal> {
    let key = match kind {
        ResourceKind::Topic => table::topic_key(name),
        ResourceKind::Broker => table::broker_key(name),
        // Kafka's controller does not know which configs of a subscription to metrics are lists.
        _ => None,
    };
    let word = if operation == ConfigOperation::Append { "APPEND" } else { "SUBTRACT" };
    let Some(key) = key.filter(|key| key.kind == Kind::List) else {
        let text = format!("Can't {word} to key {name} because its type is not LIST.");
        return Err(Refusal::new(ErrorCode::InvalidConfig, text));
    };
    let text = before.or(key.default_text()).unwrap_or_default();
    let mut items: Vec<&str> = text.split(',').filter(|item| !item.is_empty()).collect();
    for item in given.split(',') {
        let place = items.iter().position(|known| *known == item);
        match (operation, place) {
            (ConfigOperation::Append, None) => items.push(item),
            (ConfigOperation::Subtract, Some(place)) => {
                items.remove(place);
            }
            _ => {}
        }
    }
    Ok(items.join(","))
}

/// Whether all of these may be set for a running broker (KIP-226).
fn check_broker_configs(configs: &BTreeMap<String, String>, per_broker: bool) -> Result<(), String> {
    let key =
        |name: &str| table::broker_key(name).or_else(|| table::DYNAMIC_ONLY.iter().find(|known| known.name == name));
    let those = |wanted: &dyn Fn(&str) -> bool| -> Option<String> {
        let names: Vec<&str> = configs.keys().map(String::as_str).filter(|name| wanted(name)).collect();
        (!names.is_empty()).then(|| format!("[{}]", names.join(", ")))
    };
    if let Some(names) = those(&|name| key(name).is_some_and(|key| key.update == Update::ReadOnly)) {
        return Err(format!("Cannot update these configs dynamically: {names}"));
    }
    let of_listeners = |name: &str| name.starts_with("ssl.keystore.") || name.starts_with("ssl.truststore.");
    if let Some(names) = those(&|name| of_listeners(name) || name == "ssl.key.password") {
        return Err(format!(
            "These security configs can be dynamically updated only per-listener using the listener prefix: {names}"
        ));
    }
    for (name, value) in configs {
        if let Some(key) = key(table::name_without_listener(name).unwrap_or(name)) {
            key.read(value)?;
        }
    }
    // Only names of `broker_key` are refused here: the throttles of replication may be set for all brokers.
    let single = |name: &str| table::broker_key(name).is_some_and(|key| key.update == Update::PerBroker);
    let of_all_listeners = ["max.connections", "max.connection.creation.rate", "num.network.threads"];
    let of_listener =
        |name: &str| table::name_without_listener(name).is_some_and(|name| !of_all_listeners.contains(&name));
    match those(&|name| !per_broker && (single(name) || of_listener(name))) {
        Some(names) => {
            Err(format!("Cannot update these configs at default cluster level, broker id must be specified: {names}"))
        }
        None => Ok(()),
    }
}
