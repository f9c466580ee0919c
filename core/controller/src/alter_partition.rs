//! AlterPartition: the leader of a partition says which replicas are in sync (KIP-497, KIP-841, KIP-903), and that it has
//! recovered from an unclean election (KIP-704).

use super::broker_lifecycle::check_broker_epoch;
use super::image::{Image, Partition};
use super::partition_changes::{NO_LEADER_CHANGE, PartitionChange, PartitionChanges, TopicRules, may_lead};
use super::{Context, Decision, Refusal};
use tidelog_wire::ids::NodeId;
use tidelog_wire::messages::alter_partition_request::{self, BrokerState};
use tidelog_wire::messages::alter_partition_response::{PartitionData, TopicData};
use tidelog_wire::messages::{AlterPartitionRequest, AlterPartitionResponse};
use tidelog_wire::{ErrorCode, node_ids};

/// Changes the ISRs of the partitions that a broker leads. One partition that is refused does not affect the others.
pub fn alter_partition(
    image: &Image,
    context: &Context,
    request: &AlterPartitionRequest,
    api_version: i16,
) -> Decision<Result<AlterPartitionResponse, Refusal>> {
    let leader = NodeId(request.broker_id);
    if request.topics.is_empty() {
        return Decision { records: Vec::new(), response: Ok(AlterPartitionResponse::default()) };
    }
    if let Err(refusal) = check_broker_epoch(image, leader, request.broker_epoch) {
        return Decision { records: Vec::new(), response: Err(refusal) };
    }
    let mut changes = PartitionChanges::new(image);
    let mut topics = Vec::new();
    for asked in &request.topics {
        let topic = image.topic(asked.topic_id);
        let rules = topic.map(|topic| TopicRules::of(image, context, topic));
        let mut partitions = Vec::new();
        for asked_partition in &asked.partitions {
            let Some(rules) = rules else {
                partitions.push(refused(asked_partition.partition_index, ErrorCode::UnknownTopicId));
                continue;
            };
            let index = asked_partition.partition_index;
            let wanted = Wanted::of(asked_partition, api_version);
            let Some(partition) = changes.partition(asked.topic_id, index) else {
                partitions.push(refused(index, ErrorCode::UnknownTopicOrPartition));
                continue;
            };
            if let Err(error) = wanted.check(image, leader, partition) {
                partitions.push(refused(index, error));
                continue;
            }
            let change = PartitionChange::of_leader(partition, rules, wanted.nodes(), wanted.recovering == 1);
            let record = change.record(asked.topic_id, index, may_lead(image));
            let change = changes.take(asked.topic_id, index, record);
            if change.is_some_and(|change| ![NO_LEADER_CHANGE, leader.0].contains(&change.leader)) {
                // The change has ended a reassignment, and with it the leadership. It is made nevertheless.
                partitions.push(refused(index, ErrorCode::NewLeaderElected));
                continue;
            }
            let partition = changes.partition(asked.topic_id, index).expect("it was changed");
            partitions.push(committed(index, leader, partition));
        }
        topics.push(TopicData { topic_id: asked.topic_id, partitions, ..Default::default() });
    }
    let response = AlterPartitionResponse { topics, ..AlterPartitionResponse::default() };
    Decision { records: changes.records, response: Ok(response) }
}

fn refused(partition_index: i32, error: ErrorCode) -> PartitionData {
    PartitionData { partition_index, error_code: error.code(), ..PartitionData::default() }
}

/// The answer to `leader`, which leads the partition still.
fn committed(partition_index: i32, leader: NodeId, partition: &Partition) -> PartitionData {
    PartitionData {
        partition_index,
        leader_id: leader.0,
        leader_epoch: partition.leader_epoch.0,
        isr: node_ids(&partition.isr),
        leader_recovery_state: partition.recovering.into(),
        partition_epoch: partition.partition_epoch,
        ..PartitionData::default()
    }
}

/// What a leader wants of one partition.
struct Wanted {
    leader_epoch: i32,
    partition_epoch: i32,
    /// The replicas that shall be in sync, each with the epoch in which it has fetched; -1 where the leader does not know
    /// the epoch.
    isr: Vec<(NodeId, i64)>,
    recovering: i8,
}

impl Wanted {
    fn of(asked: &alter_partition_request::PartitionData, api_version: i16) -> Self {
        let isr = match api_version {
            // KIP-903
            3.. => {
                let replicas = asked.new_isr_with_epochs.iter();
                replicas
                    .map(|BrokerState { broker_id, broker_epoch, .. }| (NodeId(*broker_id), *broker_epoch))
                    .collect()
            }
            _ => asked.new_isr.iter().map(|id| (NodeId(*id), -1)).collect(),
        };
        Self {
            leader_epoch: asked.leader_epoch,
            partition_epoch: asked.partition_epoch,
            isr,
            recovering: asked.leader_recovery_state,
        }
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.isr.iter().map(|(node, _)| *node).collect()
    }

    /// Whether `leader` may have it, in Kafka's order.
    fn check(&self, image: &Image, leader: NodeId, partition: &Partition) -> Result<(), ErrorCode> {
        let nodes = self.nodes();
        let is_repeated = |(place, node): (usize, &NodeId)| nodes[..place].contains(node);
        if self.leader_epoch > partition.leader_epoch.0 || self.partition_epoch > partition.partition_epoch {
            // The leader knows more than this controller, which is the active one no more most likely.
            return Err(ErrorCode::NotController);
        }
        if self.leader_epoch < partition.leader_epoch.0 {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if partition.leader != Some(leader) {
            return Err(ErrorCode::InvalidRequest);
        }
        if self.partition_epoch < partition.partition_epoch {
            return Err(ErrorCode::InvalidUpdateVersion);
        }
        let is_valid = nodes.contains(&leader)
            && nodes.iter().all(|node| partition.replicas.contains(node))
            && !nodes.iter().enumerate().any(is_repeated);
        // A leader that may lack records is alone until it has recovered, and never begins to recover by itself.
        let recovers_alone = match self.recovering {
            0 => true,
            1 => partition.recovering && nodes.len() == 1,
            _ => false,
        };
        if !is_valid || !recovers_alone {
            return Err(ErrorCode::InvalidRequest);
        }
        if self.isr.iter().any(|(node, epoch)| !is_eligible(image, *node, *epoch)) {
            return Err(ErrorCode::IneligibleReplica);
        }
        Ok(())
    }
}

/// Whether a replica may be in sync: its broker is active, and in the same epoch in which it has fetched. A broker that
/// was started again since may have lost records (KIP-903).
fn is_eligible(image: &Image, node: NodeId, epoch: i64) -> bool {
    image.is_active(node) && image.broker(node).is_some_and(|broker| epoch == -1 || epoch == broker.broker_epoch)
}
