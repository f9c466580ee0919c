//! Elections of leaders that a client asks for (KIP-460), and the list of reassignments (KIP-455).

use super::image::{Image, Partition};
use super::{Decision, MAX_RECORDS_PER_REQUEST, Refusal, too_many_records};
use tidelog_wire::ids::{NodeId, Uuid};
use tidelog_wire::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use tidelog_wire::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use tidelog_wire::messages::{
    ElectLeadersRequest, ElectLeadersResponse, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    PartitionChangeRecord,
};
use tidelog_wire::{ErrorCode, Int32s, MetadataRecord, node_ids};

/// Which replicas an election may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Election {
    /// The first replica of the assignment, if it is in sync.
    Preferred,
    /// Any replica on an active broker, for a partition without a leader. Records that only other replicas have are
    /// lost.
    Unclean,
}

/// Elects leaders for the named partitions, or for all partitions that need an election.
pub fn elect_leaders(image: &Image, request: &ElectLeadersRequest) -> Decision<ElectLeadersResponse> {
    let election = match request.election_type {
        0 => Election::Preferred,
        1 => Election::Unclean,
        other => return refused(request, &format!("Unknown election type {other}")),
    };
    let mut records = Vec::new();
    let mut elect = |topic: &str, index: i32| {
        let outcome = elect_leader(image, topic, index, election).and_then(|record| {
            if records.len() >= MAX_RECORDS_PER_REQUEST {
                return Err(too_many_records());
            }
            records.push(record);
            Ok(())
        });
        let refusal = outcome.err().unwrap_or_else(|| Refusal::silent(ErrorCode::None));
        let error_code = refusal.error.code();
        PartitionResult { partition_id: index, error_code, error_message: refusal.message, ..Default::default() }
    };
    let results = match &request.topic_partitions {
        Some(topics) => topics
            .iter()
            .map(|topic| ReplicaElectionResult {
                topic: topic.topic.clone(),
                partition_result: topic.partitions.iter().map(|index| elect(&topic.topic, *index)).collect(),
                ..Default::default()
            })
            .collect(),
        None => image
            .topics_by_name()
            .map(|topic| ReplicaElectionResult {
                topic: topic.name.clone(),
                // A request for all partitions is only answered for those that needed an election.
                partition_result: topic
                    .partitions
                    .keys()
                    .map(|index| elect(&topic.name, *index))
                    .filter(|result| result.error_code != ErrorCode::ElectionNotNeeded.code())
                    .collect(),
                ..Default::default()
            })
            .collect(),
    };
    Decision { records, response: ElectLeadersResponse { replica_election_results: results, ..Default::default() } }
}

/// The same refusal for every partition that the request names.
fn refused(request: &ElectLeadersRequest, why: &str) -> Decision<ElectLeadersResponse> {
    let error_code = ErrorCode::InvalidRequest.code();
    let result = |index: &i32| PartitionResult {
        partition_id: *index,
        error_code,
        error_message: Some(why.into()),
        ..Default::default()
    };
    let topics = request.topic_partitions.iter().flatten().map(|topic| ReplicaElectionResult {
        topic: topic.topic.clone(),
        partition_result: topic.partitions.iter().map(result).collect(),
        ..Default::default()
    });
    let replica_election_results = topics.collect();
    let response = ElectLeadersResponse { error_code, replica_election_results, ..Default::default() };
    Decision { records: Vec::new(), response }
}

fn elect_leader(image: &Image, name: &str, index: i32, election: Election) -> Result<MetadataRecord, Refusal> {
    let unknown = |text: String| Refusal::new(ErrorCode::UnknownTopicOrPartition, text);
    let topic = image.topic_named(name).ok_or_else(|| unknown(format!("No such topic as {name}")))?;
    let partition = topic.partitions.get(&index);
    let partition = partition.ok_or_else(|| unknown(format!("No such partition as {name}-{index}")))?;
    match election {
        Election::Preferred if partition.leader == partition.replicas.first().copied() => {
            Err(Refusal::silent(ErrorCode::ElectionNotNeeded))
        }
        Election::Unclean if partition.leader.is_some() => Err(Refusal::silent(ErrorCode::ElectionNotNeeded)),
        Election::Preferred => {
            let preferred = partition.replicas.first().filter(|node| may_lead(image, partition, **node));
            let preferred = preferred.ok_or_else(|| Refusal::silent(ErrorCode::PreferredLeaderNotAvailable))?;
            Ok(leads(topic.id, index, *preferred, None))
        }
        Election::Unclean => {
            let in_sync = partition.replicas.iter().find(|node| may_lead(image, partition, **node));
            if let Some(node) = in_sync {
                return Ok(leads(topic.id, index, *node, None));
            }
            let any = partition.replicas.iter().find(|node| image.is_active(**node));
            let any = any.ok_or_else(|| Refusal::silent(ErrorCode::EligibleLeadersNotAvailable))?;
            Ok(leads(topic.id, index, *any, Some(*any)))
        }
    }
}

fn may_lead(image: &Image, partition: &Partition, node: NodeId) -> bool {
    image.is_active(node) && partition.isr.contains(&node)
}

/// `unclean`: the new leader of an unclean election, which is then the only replica in sync.
fn leads(topic_id: Uuid, partition_id: i32, leader: NodeId, unclean: Option<NodeId>) -> MetadataRecord {
    PartitionChangeRecord {
        partition_id,
        topic_id,
        leader: leader.0,
        isr: unclean.map(|node| Int32s::from_slice(&[node.0])),
        leader_recovery_state: if unclean.is_some() { 1 } else { -1 },
        eligible_leader_replicas: unclean.map(|_| Int32s::new()),
        last_known_elr: unclean.map(|_| Int32s::new()),
        ..PartitionChangeRecord::default()
    }
    .into()
}

/// Lists the partitions whose replicas are being moved, among all or among those that the request names.
pub fn list_reassignments(
    image: &Image,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let ongoing = |name: &str, indexes: Option<&[i32]>| {
        let topic = image.topic_named(name)?;
        let wanted = |index: &i32| indexes.is_none_or(|indexes| indexes.contains(index));
        let partitions: Vec<_> = topic
            .partitions
            .iter()
            .filter(|(index, partition)| {
                wanted(index) && !(partition.adding.is_empty() && partition.removing.is_empty())
            })
            .map(|(index, partition)| OngoingPartitionReassignment {
                partition_index: *index,
                replicas: node_ids(&partition.replicas),
                adding_replicas: node_ids(&partition.adding),
                removing_replicas: node_ids(&partition.removing),
                ..Default::default()
            })
            .collect();
        let name = topic.name.clone();
        (!partitions.is_empty()).then(|| OngoingTopicReassignment { name, partitions, ..Default::default() })
    };
    let topics = match &request.topics {
        Some(topics) => {
            topics.iter().filter_map(|topic| ongoing(&topic.name, Some(&topic.partition_indexes))).collect()
        }
        None => image.topics_by_name().filter_map(|topic| ongoing(&topic.name, None)).collect(),
    };
    ListPartitionReassignmentsResponse { topics, error_message: None, ..Default::default() }
}
