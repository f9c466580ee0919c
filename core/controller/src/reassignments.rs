//! Moves partitions to other brokers (KIP-455).
//!
//! While a partition moves, its replicas are those of the target followed by those that go, so all of them fetch and may
//! be in sync. The move is complete with the first change of the partition in which enough replicas of the target are in
//! sync: see [`Reassignment::completed`]. The leader's AlterPartition is such a change most times.

use super::image::{Image, Partition, Topic};
use super::partition_changes::{PartitionChange, PartitionChanges, TopicRules, may_lead};
use super::partitions::{ReplicaCounts, check_manual_assignment};
use super::{Context, Decision, MAX_RECORDS_PER_REQUEST, Refusal, too_many_records};
use std::collections::BTreeMap;
use tidelog_wire::ids::{NodeId, Uuid};
use tidelog_wire::messages::alter_partition_reassignments_request::ReassignablePartition;
use tidelog_wire::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use tidelog_wire::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use tidelog_wire::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
};
use tidelog_wire::{ErrorCode, MetadataRecord, node_ids};

/// The replicas of a partition, and which of them come and go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reassignment {
    pub replicas: Vec<NodeId>,
    pub adding: Vec<NodeId>,
    pub removing: Vec<NodeId>,
}

impl Reassignment {
    pub fn of(partition: &Partition) -> Self {
        Self {
            replicas: partition.replicas.clone(),
            adding: partition.adding.clone(),
            removing: partition.removing.clone(),
        }
    }

    /// From the present replicas of a partition to those of a target.
    fn between(present: &[NodeId], target: &[NodeId]) -> Self {
        let without = |these: &[NodeId], those: &[NodeId]| {
            let mut left: Vec<NodeId> = these.iter().copied().filter(|node| !those.contains(node)).collect();
            left.sort_unstable();
            left
        };
        let removing = without(present, target);
        Self { replicas: [target, &removing].concat(), adding: without(target, present), removing }
    }

    fn is_ongoing(&self) -> bool {
        !(self.adding.is_empty() && self.removing.is_empty())
    }

    /// The replicas and the ISR after the move, if these replicas in sync are enough to end it: all that come are in sync
    /// and one that stays. If the partition has fewer replicas than before then, all of them are in sync, so that the ISR
    /// does not shrink for the lack of some that are behind (KAFKA-19975).
    pub fn completed(&self, isr: &[NodeId]) -> Option<(Vec<NodeId>, Vec<NodeId>)> {
        let stay = |nodes: &[NodeId]| -> Vec<NodeId> {
            nodes.iter().copied().filter(|node| !self.removing.contains(node)).collect()
        };
        let (replicas, isr) = (stay(&self.replicas), stay(isr));
        let all_in_sync = |nodes: &[NodeId]| nodes.iter().all(|node| isr.contains(node));
        let is_complete = self.is_ongoing()
            && !isr.is_empty()
            && all_in_sync(&self.adding)
            && (self.adding.len() >= self.removing.len() || all_in_sync(&replicas));
        is_complete.then_some((replicas, isr))
    }
}

/// Begins to move partitions, and calls off moves. One partition that is refused does not affect the others.
pub fn alter_reassignments(
    image: &Image,
    context: &Context,
    request: &AlterPartitionReassignmentsRequest,
) -> Decision<AlterPartitionReassignmentsResponse> {
    let allows_factor_change = request.allow_replication_factor_change;
    let mut mover = Mover { image, context, allows_factor_change, changes: PartitionChanges::new(image), placed: None };
    let mut responses = Vec::new();
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for target in &topic.partitions {
            let (error_code, error_message) = match mover.alter(&topic.name, target) {
                Ok(()) => (ErrorCode::None.code(), None),
                Err(refusal) => (refusal.error.code(), refusal.message),
            };
            partitions.push(ReassignablePartitionResponse {
                partition_index: target.partition_index,
                error_code,
                error_message,
                ..Default::default()
            });
        }
        responses.push(ReassignableTopicResponse { name: topic.name.clone(), partitions, ..Default::default() });
    }
    let response = AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: allows_factor_change,
        error_message: None,
        responses,
        ..Default::default()
    };
    Decision { records: mover.changes.records, response }
}

/// Decides the partitions of a request, one after the other.
struct Mover<'a> {
    image: &'a Image,
    context: &'a Context<'a>,
    /// KIP-860
    allows_factor_change: bool,
    changes: PartitionChanges<'a>,
    /// How many replicas lie in each directory, from the first that is added on.
    placed: Option<ReplicaCounts>,
}

impl Mover<'_> {
    fn alter(&mut self, name: &str, target: &ReassignablePartition) -> Result<(), Refusal> {
        let unknown = |text: String| Refusal::new(ErrorCode::UnknownTopicOrPartition, text);
        let index = target.partition_index;
        let topic =
            self.image.topic_named(name).ok_or_else(|| unknown(format!("Unable to find a topic named {name}.")))?;
        let partition = self
            .changes
            .partition(topic.id, index)
            .ok_or_else(|| unknown(format!("Unable to find partition {name}:{index}.")))?
            .clone();
        let record = match &target.replicas {
            Some(replicas) => self.reassign(topic, index, &partition, replicas)?,
            None => self.cancel(topic, index, &partition)?,
        };
        if record.is_some() && self.changes.records.len() >= MAX_RECORDS_PER_REQUEST {
            return Err(too_many_records());
        }
        self.changes.take(topic.id, index, record);
        Ok(())
    }

    fn reassign(
        &mut self,
        topic: &Topic,
        index: i32,
        partition: &Partition,
        target: &[i32],
    ) -> Result<Option<MetadataRecord>, Refusal> {
        let target = check_manual_assignment(self.image, target, None)?;
        let factor = partition.replicas.iter().filter(|node| !partition.removing.contains(node)).count();
        if !self.allows_factor_change && target.len() != factor {
            let text = format!("The replication factor is changed from {factor} to {}", target.len());
            return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, text));
        }
        let assignment = Reassignment::between(&partition.replicas, &target);
        let directories = self.place(&assignment.adding);
        let rules = TopicRules::of(self.image, self.context, topic);
        // Kafka leaves the lists of what comes and goes as they are where the new ones are empty, so a move back to where
        // another move began never ends there.
        let change = PartitionChange::reassigned(partition, rules, assignment, directories);
        Ok(change.record(topic.id, index, may_lead(self.image)))
    }

    /// The directories for replicas that come.
    fn place(&mut self, adding: &[NodeId]) -> BTreeMap<NodeId, Uuid> {
        if adding.is_empty() {
            return BTreeMap::new();
        }
        let placed = self.placed.get_or_insert_with(|| ReplicaCounts::of(self.image));
        let made = placed.assign_directories(self.image, vec![adding.to_vec()]);
        placed.add(&made);
        adding.iter().copied().zip(made.into_iter().flat_map(|assignment| assignment.directories)).collect()
    }

    fn cancel(&self, topic: &Topic, index: i32, partition: &Partition) -> Result<Option<MetadataRecord>, Refusal> {
        let invalid = |text: String| Refusal::new(ErrorCode::InvalidReplicaAssignment, text);
        if !partition.is_reassigned() {
            let text = "No partition reassignment is in progress.";
            return Err(Refusal::new(ErrorCode::NoReassignmentInProgress, text));
        }
        let rules = TopicRules::of(self.image, self.context, topic);
        let without_adding = |nodes: &[NodeId]| -> Vec<NodeId> {
            nodes.iter().copied().filter(|node| !partition.adding.contains(node)).collect()
        };
        let replicas = without_adding(&partition.replicas);
        let mut isr = without_adding(&partition.isr);
        if isr.is_empty() {
            // All that are in sync have come with the move, so an earlier replica that leads loses what they have more.
            let first = replicas.first().ok_or_else(|| {
                invalid("Invalid replica assignment: addingReplicas contains all replicas.".to_owned())
            })?;
            if !rules.allows_unclean_election() {
                return Err(invalid(format!(
                    "Unable to revert partition assignment for {}:{index} because it would require an unclean leader \
                     election.",
                    topic.name
                )));
            }
            isr.push(*first);
        }
        let change = PartitionChange::reverted(partition, rules, replicas, isr);
        Ok(change.record(topic.id, index, may_lead(self.image)))
    }
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
            .filter(|(index, partition)| wanted(index) && partition.is_reassigned())
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
