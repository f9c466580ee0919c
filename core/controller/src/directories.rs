//! AssignReplicasToDirs: a broker says in which of its log directories its replicas are (KIP-858). For a directory that is
//! offline it says so before its heartbeat does, because nobody could know otherwise which replicas were lost with it.

use super::broker_lifecycle::check_broker_epoch;
use super::image::{Image, Topic};
use super::partition_changes::{PartitionChange, PartitionChanges, TopicRules, may_lead};
use super::{Context, Decision, Refusal, records};
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::{NodeId, Uuid};
use tidelog_wire::messages::assign_replicas_to_dirs_response::{DirectoryData, PartitionData, TopicData};
use tidelog_wire::messages::{AssignReplicasToDirsRequest, AssignReplicasToDirsResponse};

/// Assigns replicas of a broker to its directories. Those in a directory that is not online leave the ISRs. One partition
/// that is refused does not affect the others.
pub fn assign_replicas_to_dirs(
    image: &Image,
    context: &Context,
    request: &AssignReplicasToDirsRequest,
) -> Decision<Result<AssignReplicasToDirsResponse, Refusal>> {
    let broker = NodeId(request.broker_id);
    let refused = match records::assigns_directories(image.metadata_version()) {
        true => check_broker_epoch(image, broker, request.broker_epoch).err(),
        false => Some(Refusal::new(ErrorCode::UnsupportedVersion, "Directory assignment is not supported yet.")),
    };
    if let Some(refusal) = refused {
        return Decision { records: Vec::new(), response: Err(refusal) };
    }
    let mut changes = PartitionChanges::new(image);
    let mut directories = Vec::new();
    for directory in &request.directories {
        let mut topics = Vec::new();
        for asked in &directory.topics {
            let topic = image.topic(asked.topic_id).map(|topic| (topic, TopicRules::of(image, context, topic)));
            let assigned = asked.partitions.iter().map(|partition| {
                let partition_index = partition.partition_index;
                let outcome = topic
                    .ok_or(ErrorCode::UnknownTopicId)
                    .and_then(|topic| assign(&mut changes, image, topic, partition_index, broker, directory.id));
                let error_code = outcome.err().unwrap_or(ErrorCode::None).code();
                PartitionData { partition_index, error_code, ..PartitionData::default() }
            });
            topics.push(TopicData { topic_id: asked.topic_id, partitions: assigned.collect(), ..Default::default() });
        }
        directories.push(DirectoryData { id: directory.id, topics, ..DirectoryData::default() });
    }
    let response = AssignReplicasToDirsResponse { directories, ..AssignReplicasToDirsResponse::default() };
    Decision { records: changes.records, response: Ok(response) }
}

fn assign(
    changes: &mut PartitionChanges,
    image: &Image,
    (topic, rules): (&Topic, TopicRules),
    index: i32,
    broker: NodeId,
    directory: Uuid,
) -> Result<(), ErrorCode> {
    let partition = changes.partition(topic.id, index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if !partition.replicas.contains(&broker) {
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    let is_online = image.has_online_directory(broker, directory);
    let change = PartitionChange::placed(partition, rules, broker, directory, is_online);
    let record = change.record(topic.id, index, may_lead(image));
    changes.take(topic.id, index, record);
    Ok(())
}
