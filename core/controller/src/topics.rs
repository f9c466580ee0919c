//! Creates and deletes topics (KIP-4, KIP-516, KIP-525).

use super::image::{ConfigResource, Image, Partition};
use super::partitions::{self, Assignment, check_manual_assignment};
use super::{Context, Decision, MAX_RECORDS_PER_REQUEST, Refusal, too_many_records};
use bytestring::ByteString;
use std::collections::{BTreeMap, BTreeSet};
use tidelog_config::{TopicConfig, describe_topic, topic_source};
use tidelog_wire::ids::{NodeId, Uuid};
use tidelog_wire::messages::create_topics_request::CreatableTopic;
use tidelog_wire::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use tidelog_wire::messages::delete_topics_response::DeletableTopicResult;
use tidelog_wire::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, RemoveTopicRecord,
    TopicRecord,
};
use tidelog_wire::{ErrorCode, MetadataRecord};

const CLUSTER_METADATA: &str = "__cluster_metadata";
const NAME_LENGTH_MAX: usize = 249;

/// Creates the topics of a request. One topic that is refused does not affect the others. `draw` gives random bytes,
/// for topic ids and for the placement of replicas.
pub fn create_topics(
    image: &Image,
    context: &Context,
    request: &CreateTopicsRequest,
    mut draw: impl FnMut() -> [u8; 16],
) -> Decision<CreateTopicsResponse> {
    let names = || request.topics.iter().map(|topic| &topic.name);
    let duplicates = repeated(names());
    let mut records = Vec::new();
    let mut topics = Vec::new();
    let mut all_refused = partitions_asked_for(request, context).err();
    // Partitions of earlier topics in this request count when later ones are placed.
    let mut placed = partitions::ReplicaCounts::of(image);
    for topic in request.topics.iter().filter(|topic| !duplicates.contains(&topic.name)) {
        let outcome = match &all_refused {
            Some(refusal) => Err(refusal.clone()),
            None => create_topic(image, context, topic, &mut placed, &mut draw),
        };
        match outcome {
            Ok((result, new)) => {
                records.extend(new);
                topics.push(result);
            }
            Err(refusal) => topics.push(refused(&topic.name, refusal)),
        }
        if records.len() > MAX_RECORDS_PER_REQUEST && all_refused.is_none() {
            all_refused = Some(too_many_records());
        }
    }
    if let Some(refusal) = all_refused {
        records.clear();
        for topic in topics.iter_mut().filter(|topic| topic.error_code == 0) {
            *topic = refused(&topic.name, refusal.clone());
        }
    }
    for name in duplicates {
        topics.push(refused(name, Refusal::new(ErrorCode::InvalidRequest, "Duplicate topic name.")));
    }
    if request.validate_only {
        records.clear();
    }
    Decision { records, response: CreateTopicsResponse { topics, ..CreateTopicsResponse::default() } }
}

/// Deletes the topics of a request, which are given by name or by id.
pub fn delete_topics(
    image: &Image,
    context: &Context,
    request: &DeleteTopicsRequest,
    api_version: i16,
) -> Decision<DeleteTopicsResponse> {
    let names: Vec<&ByteString> = request.topic_names.iter().collect();
    let named = request.topics.iter().filter(|topic| topic.topic_id == Uuid::ZERO).filter_map(|t| t.name.as_ref());
    let names: Vec<&ByteString> = names.into_iter().chain(named).collect();
    let ids = || request.topics.iter().filter(|topic| topic.name.is_none()).map(|topic| topic.topic_id);
    let duplicate_names = repeated(names.iter().copied());
    let duplicate_ids: BTreeSet<Uuid> = ids().filter(|id| ids().filter(|other| other == id).count() > 1).collect();

    let mut responses = Vec::new();
    let mut respond = |name: Option<&ByteString>, topic_id: Uuid, outcome: Result<(), Refusal>| {
        let (error_code, error_message) = match outcome {
            Ok(()) => (ErrorCode::None, None),
            Err(refusal) => (refusal.error, refusal.message),
        };
        responses.push(DeletableTopicResult {
            name: name.cloned(),
            topic_id,
            error_code: error_code.code(),
            error_message,
            ..DeletableTopicResult::default()
        });
    };
    let invalid = |text: &'static str| Err(Refusal::new(ErrorCode::InvalidRequest, text));
    if !context.layers.broker.delete_topic_enable {
        let refusal = match api_version {
            ..3 => Refusal::new(ErrorCode::InvalidRequest, "This version does not support topic deletion."),
            _ => Refusal::new(ErrorCode::TopicDeletionDisabled, "Topic deletion is disabled."),
        };
        names.iter().for_each(|name| respond(Some(name), Uuid::ZERO, Err(refusal.clone())));
        ids().for_each(|id| respond(None, id, Err(refusal.clone())));
        return Decision { records: Vec::new(), response: deleted(responses) };
    }

    for topic in &request.topics {
        match &topic.name {
            None if topic.topic_id == Uuid::ZERO => {
                respond(None, Uuid::ZERO, invalid("Neither topic name nor id were specified."));
            }
            Some(name) if topic.topic_id != Uuid::ZERO => {
                respond(Some(name), topic.topic_id, invalid("You may not specify both topic name and topic id."));
            }
            _ => {}
        }
    }
    duplicate_names.iter().for_each(|name| respond(Some(name), Uuid::ZERO, invalid("Duplicate topic name.")));
    duplicate_ids
        .iter()
        .filter(|id| **id != Uuid::ZERO)
        .for_each(|id| respond(None, *id, invalid("Duplicate topic id.")));

    let mut doomed: BTreeMap<Uuid, &ByteString> = BTreeMap::new();
    for id in ids().filter(|id| *id != Uuid::ZERO && !duplicate_ids.contains(id)) {
        match image.topic(id) {
            Some(topic) => {
                doomed.insert(id, &topic.name);
            }
            None => {
                let text = "This server does not host this topic ID.";
                respond(None, id, Err(Refusal::new(ErrorCode::UnknownTopicId, text)));
            }
        }
    }
    for name in names.into_iter().filter(|name| !duplicate_names.contains(name)) {
        match image.topic_named(name) {
            Some(topic) if duplicate_ids.contains(&topic.id) || doomed.contains_key(&topic.id) => {
                doomed.remove(&topic.id);
                let text = "The provided topic name maps to an ID that was already supplied.";
                respond(Some(name), topic.id, invalid(text));
            }
            Some(topic) => {
                doomed.insert(topic.id, name);
            }
            None => respond(Some(name), Uuid::ZERO, Err(Refusal::unknown_topic())),
        }
    }

    let mut records: Vec<MetadataRecord> = Vec::new();
    for (topic_id, name) in doomed {
        if records.len() >= MAX_RECORDS_PER_REQUEST {
            respond(Some(name), topic_id, Err(too_many_records()));
            continue;
        }
        records.push(RemoveTopicRecord { topic_id, ..RemoveTopicRecord::default() }.into());
        respond(Some(name), topic_id, Ok(()));
    }
    Decision { records, response: deleted(responses) }
}

fn deleted(responses: Vec<DeletableTopicResult>) -> DeleteTopicsResponse {
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}

/// The names that a request contains more than once.
fn repeated<'a>(names: impl Iterator<Item = &'a ByteString>) -> BTreeSet<&'a ByteString> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}

fn refused(name: &ByteString, refusal: Refusal) -> CreatableTopicResult {
    CreatableTopicResult {
        name: name.clone(),
        error_code: refusal.error.code(),
        error_message: refusal.message,
        ..CreatableTopicResult::default()
    }
}

/// Refuses a request for too many partitions before any of them is placed, which would be much work.
fn partitions_asked_for(request: &CreateTopicsRequest, context: &Context) -> Result<(), Refusal> {
    let default = i64::from(context.layers.broker.num_partitions);
    let asked_for = request.topics.iter().map(|topic| match topic.num_partitions {
        _ if !topic.assignments.is_empty() => topic.assignments.len() as i64,
        -1 => default,
        count => i64::from(count.max(0)),
    });
    if asked_for.sum::<i64>() > MAX_RECORDS_PER_REQUEST as i64 {
        let text = "Excessively large number of partitions per request.";
        return Err(Refusal::new(ErrorCode::PolicyViolation, text));
    }
    Ok(())
}

fn create_topic(
    image: &Image,
    context: &Context,
    topic: &CreatableTopic,
    placed: &mut partitions::ReplicaCounts,
    draw: &mut impl FnMut() -> [u8; 16],
) -> Result<(CreatableTopicResult, Vec<MetadataRecord>), Refusal> {
    let name = &topic.name;
    if *name == CLUSTER_METADATA {
        let text = format!("Creation of internal topic {CLUSTER_METADATA} is prohibited.");
        return Err(Refusal::new(ErrorCode::InvalidRequest, text));
    }
    if image.topic_named(name).is_some() {
        return Err(Refusal::new(ErrorCode::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
    }
    validate_topic_name(name).map_err(|text| Refusal::new(ErrorCode::InvalidTopicException, text))?;
    if let Some(other) = colliding(image, name) {
        let text = format!("Topic '{name}' collides with existing topic: {other}");
        return Err(Refusal::new(ErrorCode::InvalidTopicException, text));
    }
    let configs = own_configs(topic)?;
    TopicConfig::validate(&configs, &context.layers).map_err(|text| Refusal::new(ErrorCode::InvalidConfig, text))?;
    let assignments = assignments(image, context, topic, placed, draw)?;

    let id = Uuid::random(&mut *draw);
    let mut records: Vec<MetadataRecord> =
        vec![TopicRecord { name: name.clone(), topic_id: id, ..TopicRecord::default() }.into()];
    let resource = ConfigResource::topic(name);
    records.extend(configs.iter().map(|(name, value)| resource.record(name, Some(value))));
    for (index, assignment) in assignments.iter().enumerate() {
        let partition = new_partition(image, assignment);
        records.push(partition.record(id, index as i32));
    }
    placed.add(&assignments);
    let result = CreatableTopicResult {
        name: name.clone(),
        topic_id: id,
        error_message: None,
        num_partitions: assignments.len() as i32,
        replication_factor: assignments[0].replicas.len() as i16,
        configs: Some(described(&configs, context)),
        ..CreatableTopicResult::default()
    };
    Ok((result, records))
}

/// A new partition: all replicas on active brokers are in sync, and the first of them leads.
pub(super) fn new_partition(image: &Image, assignment: &Assignment) -> Partition {
    let isr: Vec<NodeId> = assignment.replicas.iter().copied().filter(|id| image.is_active(*id)).collect();
    assert!(!isr.is_empty(), "an assignment has a replica on an active broker");
    Partition {
        replicas: assignment.replicas.clone(),
        directories: assignment.directories.clone(),
        leader: Some(isr[0]),
        isr,
        removing: Vec::new(),
        adding: Vec::new(),
        recovering: false,
        leader_epoch: tidelog_wire::ids::LeaderEpoch(0),
        partition_epoch: 0,
        eligible_leaders: Vec::new(),
        last_known_eligible_leaders: Vec::new(),
    }
}

fn own_configs(topic: &CreatableTopic) -> Result<BTreeMap<String, String>, Refusal> {
    let mut configs = BTreeMap::new();
    let mut nulls: Vec<&str> = Vec::new();
    for config in &topic.configs {
        match &config.value {
            Some(value) if value.len() > i16::MAX as usize => return Err(super::configs::value_too_long()),
            Some(value) => {
                configs.insert(config.name.to_string(), value.to_string());
            }
            None => nulls.push(&config.name),
        }
    }
    if nulls.is_empty() {
        return Ok(configs);
    }
    let text = format!("Null value not supported for topic configs: {}", nulls.join(","));
    Err(Refusal::new(ErrorCode::InvalidConfig, text))
}

/// The replicas of each partition, as the request gives them or as [`partitions::place`] places them.
fn assignments(
    image: &Image,
    context: &Context,
    topic: &CreatableTopic,
    placed: &mut partitions::ReplicaCounts,
    draw: &mut impl FnMut() -> [u8; 16],
) -> Result<Vec<Assignment>, Refusal> {
    if !topic.assignments.is_empty() {
        return manual_assignments(image, topic, placed);
    }
    let broker = context.layers.broker;
    if topic.replication_factor < -1 || topic.replication_factor == 0 {
        let text = "Replication factor must be larger than 0, or -1 to use the default value.";
        return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, text));
    }
    if topic.num_partitions < -1 || topic.num_partitions == 0 {
        let text = "Number of partitions was set to an invalid non-positive value.";
        return Err(Refusal::new(ErrorCode::InvalidPartitions, text));
    }
    let count = if topic.num_partitions == -1 { broker.num_partitions } else { topic.num_partitions };
    let factor =
        if topic.replication_factor == -1 { broker.default_replication_factor } else { topic.replication_factor };
    partitions::place(image, count, factor, placed, draw).map_err(|why| {
        let text = format!("Unable to replicate the partition {factor} time(s): {why}");
        Refusal::new(ErrorCode::InvalidReplicationFactor, text)
    })
}

fn manual_assignments(
    image: &Image,
    topic: &CreatableTopic,
    placed: &mut partitions::ReplicaCounts,
) -> Result<Vec<Assignment>, Refusal> {
    let invalid = |text: String| Refusal::new(ErrorCode::InvalidReplicaAssignment, text);
    if topic.replication_factor != -1 {
        let text = "A manual partition assignment was specified, but replication factor was not set to -1.";
        return Err(Refusal::new(ErrorCode::InvalidRequest, text));
    }
    if topic.num_partitions != -1 {
        let text = "A manual partition assignment was specified, but numPartitions was not set to -1.";
        return Err(Refusal::new(ErrorCode::InvalidRequest, text));
    }
    let mut by_index = BTreeMap::new();
    let mut factor = None;
    for assignment in &topic.assignments {
        let index = assignment.partition_index;
        if by_index.contains_key(&index) {
            return Err(invalid(format!("Found multiple manual partition assignments for partition {index}")));
        }
        let replicas = check_manual_assignment(image, &assignment.broker_ids, factor)?;
        factor = Some(replicas.len());
        if !replicas.iter().any(|id| image.is_active(*id)) {
            return Err(invalid(format!(
                "All brokers specified in the manual partition assignment for partition {index} are fenced or in \
                 controlled shutdown."
            )));
        }
        by_index.insert(index, replicas);
    }
    if !by_index.keys().copied().eq(0..by_index.len() as i32) {
        return Err(invalid("partitions should be a consecutive 0-based integer sequence".to_owned()));
    }
    Ok(placed.assign_directories(image, by_index.into_values().collect()))
}

/// The configs of the new topic, for the response (KIP-525).
fn described(configs: &BTreeMap<String, String>, context: &Context) -> Vec<CreatableTopicConfigs> {
    describe_topic(configs, &context.layers)
        .into_iter()
        .map(|one| CreatableTopicConfigs {
            config_source: topic_source(&one.name, configs, &context.layers) as i8,
            is_sensitive: one.sensitive(),
            name: one.name.into(),
            value: one.value.map(ByteString::from),
            read_only: one.read_only,
            ..CreatableTopicConfigs::default()
        })
        .collect()
}

/// Whether `name` is a legal name for a topic. The error says why not, in Kafka's words.
pub fn validate_topic_name(name: &str) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let why = match name {
        "" => "the empty string is not allowed".to_owned(),
        "." => "'.' is not allowed".to_owned(),
        ".." => "'..' is not allowed".to_owned(),
        _ if name.encode_utf16().count() > NAME_LENGTH_MAX => {
            format!("the length of '{name}' is longer than the max allowed length {NAME_LENGTH_MAX}")
        }
        _ if !name.bytes().all(legal) => {
            format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
        }
        _ => return Ok(()),
    };
    Err(format!("Topic name is invalid: {why}"))
}

/// An existing topic whose name differs from `name` only in `.` and `_`. In the names of metrics both are the same.
fn colliding<'a>(image: &'a Image, name: &str) -> Option<&'a ByteString> {
    if !name.contains(['.', '_']) {
        return None;
    }
    let unified = name.replace('.', "_");
    image.topic_ids.keys().find(|other| other.len() == unified.len() && other.replace('.', "_") == unified)
}
