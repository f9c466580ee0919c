//! Metadata: the brokers, and the partitions of topics with their leaders. A named topic that does not exist is
//! created on the way where both sides allow it (`auto.create.topics.enable`).

use crate::api::{
    AfterCommit, CLUSTER_OPERATIONS, Parts, TOPIC_OPERATIONS, Ticket, is_internal_topic, offline_replicas,
};
use crate::controller::{Image, Topic, validate_topic_name};
use crate::ids::Uuid;
use crate::io::Outbox;
use crate::time::Now;
use crate::wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use crate::wire::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use crate::wire::{ErrorCode, ResponseBody, node_ids};
use bytestring::ByteString;

pub fn handle(parts: &mut Parts, now: Now, ticket: Ticket, request: MetadataRequest, out: &mut Outbox) {
    if let Some(topics) = &request.topics
        && ticket.api_version < 12
        && topics.iter().any(|topic| topic.name.is_none() || topic.topic_id != Uuid::ZERO)
    {
        return parts.replies.close(ticket, "a Metadata request below v12 names topics by name alone", out);
    }
    let missing: Vec<ByteString> = match &request.topics {
        Some(topics) if parts.config.auto_create_topics_enable && request.allow_auto_topic_creation => topics
            .iter()
            .filter(|topic| topic.topic_id == Uuid::ZERO)
            .filter_map(|topic| topic.name.clone())
            .filter(|name| parts.image.topic_named(name).is_none())
            .collect(),
        _ => Vec::new(),
    };
    if missing.is_empty() {
        return answer(parts, ticket, &request, &[], out);
    }
    // Unlike Kafka, which tells the client to ask again, the answer waits until the topics are there.
    let (records, refused) = parts.auto_create(missing);
    if records.is_empty() {
        answer(parts, ticket, &request, &refused, out);
    } else {
        parts.commit(now, records, AfterCommit::Metadata { ticket, request, refused }, out);
    }
}

/// Answers from the committed image. `refused`: what could not be created, and why.
pub fn answer(
    parts: &mut Parts,
    ticket: Ticket,
    request: &MetadataRequest,
    refused: &[(ByteString, ErrorCode)],
    out: &mut Outbox,
) {
    let version = ticket.api_version;
    let with_operations = request.include_topic_authorized_operations && version >= 8;
    // A v0 request asks for all topics with an empty list, later ones with none at all.
    let all = match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    let image = &parts.image;
    let mut topics: Vec<MetadataResponseTopic> = if all {
        image.topics_by_name().map(|topic| describe(topic, image)).collect()
    } else {
        let asked = request.topics.iter().flatten();
        asked.map(|asked| named(image, asked, refused)).collect()
    };
    if with_operations {
        for topic in topics.iter_mut().filter(|topic| topic.error_code == 0) {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    let response = MetadataResponse {
        brokers: parts
            .endpoints(ticket.listener)
            .into_iter()
            .map(|endpoint| MetadataResponseBroker {
                node_id: endpoint.node.0,
                host: endpoint.host,
                port: endpoint.port.into(),
                rack: endpoint.rack,
                ..Default::default()
            })
            .collect(),
        cluster_id: Some(parts.cluster_id.clone()),
        controller_id: parts.config.node_id.0,
        topics,
        cluster_authorized_operations: match request.include_cluster_authorized_operations
            && (8..=10).contains(&version)
        {
            true => CLUSTER_OPERATIONS,
            false => i32::MIN,
        },
        ..Default::default()
    };
    parts.replies.answer(ticket, ResponseBody::Metadata(response), out);
}

fn named(image: &Image, asked: &MetadataRequestTopic, refused: &[(ByteString, ErrorCode)]) -> MetadataResponseTopic {
    if asked.topic_id != Uuid::ZERO {
        return match image.topic(asked.topic_id) {
            Some(topic) => describe(topic, image),
            None => unknown(None, asked.topic_id, ErrorCode::UnknownTopicId),
        };
    }
    let name = asked.name.clone().unwrap_or_default();
    if let Some(topic) = image.topic_named(&name) {
        return describe(topic, image);
    }
    let error = match refused.iter().find(|(topic, _)| *topic == name) {
        Some((_, error)) => *error,
        None if validate_topic_name(&name).is_err() => ErrorCode::InvalidTopicException,
        None => ErrorCode::UnknownTopicOrPartition,
    };
    unknown(Some(name), Uuid::ZERO, error)
}

fn unknown(name: Option<ByteString>, topic_id: Uuid, error: ErrorCode) -> MetadataResponseTopic {
    let is_internal = name.as_ref().is_some_and(|name| is_internal_topic(name));
    MetadataResponseTopic { error_code: error.code(), name, topic_id, is_internal, ..Default::default() }
}

fn describe(topic: &Topic, image: &Image) -> MetadataResponseTopic {
    let partitions = topic
        .partitions
        .iter()
        .map(|(index, partition)| MetadataResponsePartition {
            error_code: match partition.leader {
                None => ErrorCode::LeaderNotAvailable.code(),
                Some(_) => 0,
            },
            partition_index: *index,
            leader_id: partition.leader.map_or(-1, |leader| leader.0),
            leader_epoch: partition.leader_epoch.0,
            replica_nodes: node_ids(&partition.replicas),
            isr_nodes: node_ids(&partition.isr),
            offline_replicas: offline_replicas(image, partition),
            ..Default::default()
        })
        .collect();
    MetadataResponseTopic {
        error_code: 0,
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: is_internal_topic(&topic.name),
        partitions,
        ..Default::default()
    }
}
