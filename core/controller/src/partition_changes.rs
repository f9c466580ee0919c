//! What becomes of a partition when replicas leave its ISR or may lead again: who leads it, and which replicas stay
//! eligible to lead it although they left the ISR (KIP-966).
//!
//! The rules are those of Kafka's `PartitionChangeBuilder` and of `ReplicationControlManager`, which decides for all
//! partitions of a broker.

use super::Context;
use super::image::{Image, Partition, Topic};
use super::records;
use std::collections::BTreeSet;
use tidelog_config::TopicConfig;
use tidelog_wire::ids::{NodeId, Uuid};
use tidelog_wire::messages::PartitionChangeRecord;
use tidelog_wire::{Int32s, MetadataRecord, node_ids};

/// Which replicas an election may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Election {
    /// The first replica of the assignment if it is in sync, or else as [`Self::Online`].
    Preferred,
    /// A replica that is in sync, or that is eligible while none is in sync. The present leader stays if it can.
    Online,
    /// As [`Self::Online`], or else any replica on an active broker. Records that only other replicas have are lost.
    Unclean,
}

/// What happens to a broker, as far as its partitions are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BrokerChange {
    /// Its replicas leave the ISRs, and do not lead.
    Leaves(NodeId),
    /// As [`Self::Leaves`], and its replicas may have lost records, so they are not eligible to lead either.
    LostRecords(NodeId),
    /// Its replicas may lead from now on.
    Returns(NodeId),
}

/// What the cluster says of all partitions of one topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopicRules {
    /// `min.insync.replicas`, or the number of replicas if that is less.
    min_insync_replicas: usize,
    has_eligible_leaders: bool,
    allows_unclean_election: bool,
    /// Before metadata version 3.6-IV0, every replica that leaves the ISR begins a new leader epoch (KAFKA-15021).
    shrinking_begins_epoch: bool,
}

impl TopicRules {
    pub fn of(image: &Image, context: &Context, topic: &Topic) -> Self {
        let config = TopicConfig::resolve(image.topic_config(&topic.name), &context.layers);
        let replicas = topic.partitions.first_key_value().map_or(1, |(_, partition)| partition.replicas.len());
        Self {
            min_insync_replicas: usize::try_from(config.min_insync_replicas).unwrap_or(1).min(replicas),
            has_eligible_leaders: image.has_eligible_leaders(),
            allows_unclean_election: config.unclean_leader_election_enable,
            shrinking_begins_epoch: records::shrinking_begins_epoch(image.metadata_version()),
        }
    }
}

/// A change of one partition. [`Self::record`] adds all that follows from it.
#[derive(Debug)]
pub(super) struct PartitionChange<'a> {
    partition: &'a Partition,
    rules: TopicRules,
    election: Election,
    /// The replicas that shall be in sync.
    isr: Vec<NodeId>,
    /// A replica that may have lost records.
    lost_records: Option<NodeId>,
}

/// The outcome of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Elected {
    leader: Option<NodeId>,
    /// Whether the leader may lack records that were acknowledged.
    is_unclean: bool,
}

impl<'a> PartitionChange<'a> {
    /// Elects a leader. The ISR stays as it is.
    pub fn election(partition: &'a Partition, rules: TopicRules, election: Election) -> Self {
        Self { partition, rules, election, isr: partition.isr.clone(), lost_records: None }
    }

    /// What becomes of the partition when this happens to a broker.
    pub fn of_broker(partition: &'a Partition, rules: TopicRules, change: BrokerChange) -> Self {
        let election = if rules.allows_unclean_election { Election::Unclean } else { Election::Online };
        let mut this = Self::election(partition, rules, election);
        if let BrokerChange::Leaves(broker) | BrokerChange::LostRecords(broker) = change {
            this.isr.retain(|node| *node != broker);
        }
        if let BrokerChange::LostRecords(broker) = change {
            this.lost_records = Some(broker);
        }
        this
    }

    /// The record of the change; none if nothing changes. `may_lead` says of a replica whether its broker and its log
    /// directory are there.
    pub fn record(
        mut self,
        topic_id: Uuid,
        partition_id: i32,
        may_lead: impl Fn(NodeId) -> bool,
    ) -> Option<MetadataRecord> {
        let (partition, rules) = (self.partition, self.rules);
        let unchanged = PartitionChangeRecord { topic_id, partition_id, ..PartitionChangeRecord::default() };
        let mut record = unchanged.clone();
        let mut eligible = self.eligible();
        let Elected { leader, is_unclean } = self.elect(&eligible, may_lead);
        let is_new = leader != partition.leader;
        let is_unclean = is_unclean && is_new;
        if is_new {
            record.leader = leader.map_or(NO_LEADER, |leader| leader.0);
            if let Some(leader) = leader.filter(|leader| is_unclean || eligible.contains(leader)) {
                self.isr = vec![leader];
                eligible.remove(&leader);
            }
            if is_unclean && !partition.recovering {
                record.leader_recovery_state = 1;
            }
        }
        if is_unclean || !rules.has_eligible_leaders {
            eligible.clear();
        }
        let eligible: Vec<NodeId> = eligible.into_iter().collect();
        if !same(&eligible, &partition.eligible_leaders) {
            record.eligible_leader_replicas = Some(node_ids(&eligible));
        }
        // Without eligible leaders, an ISR never becomes empty: its last member is the only one that may lead.
        if self.isr != partition.isr && (!self.isr.is_empty() || rules.has_eligible_leaders) {
            record.isr = Some(node_ids(&self.isr));
            let shrinks = partition.isr.iter().any(|node| !self.isr.contains(node));
            if rules.shrinking_begins_epoch && shrinks && record.leader == unchanged.leader {
                record.leader = partition.leader.map_or(NO_LEADER, |leader| leader.0);
            }
        }
        if rules.has_eligible_leaders {
            let last_known = &partition.last_known_eligible_leaders;
            if record.leader == NO_LEADER && last_known.is_empty() {
                record.last_known_elr = partition.leader.map(|leader| Int32s::from_slice(&[leader.0]));
            } else if record.leader >= 0 && !last_known.is_empty() {
                record.last_known_elr = Some(Int32s::new());
            }
        }
        (record != unchanged).then(|| record.into())
    }

    /// The replicas that are eligible to lead although they are not in sync. While the ISR is smaller than
    /// `min.insync.replicas`, the high watermark does not advance (KIP-966), so replicas that were in the ISR then have
    /// all that was acknowledged.
    fn eligible(&self) -> BTreeSet<NodeId> {
        let partition = self.partition;
        let before = partition.eligible_leaders.iter().copied();
        if !self.rules.has_eligible_leaders {
            return before.collect();
        }
        if self.isr.len() >= self.rules.min_insync_replicas {
            return BTreeSet::new();
        }
        let candidates = before.chain(partition.isr.iter().copied());
        candidates.filter(|node| !self.isr.contains(node) && self.lost_records != Some(*node)).collect()
    }

    fn elect(&self, eligible: &BTreeSet<NodeId>, may_lead: impl Fn(NodeId) -> bool) -> Elected {
        let partition = self.partition;
        let is_clean = |node: &NodeId| {
            (self.isr.contains(node) || (self.isr.is_empty() && eligible.contains(node))) && may_lead(*node)
        };
        let first = partition.replicas.first().copied().filter(|_| self.election == Election::Preferred);
        let in_order = first.into_iter().chain(partition.leader).chain(partition.replicas.iter().copied());
        if let Some(leader) = in_order.into_iter().find(is_clean) {
            return Elected { leader: Some(leader), is_unclean: false };
        }
        // The last leader has the most records, even if it may have lost some.
        let last_known = match partition.last_known_eligible_leaders[..] {
            [only] if self.rules.has_eligible_leaders && self.isr.is_empty() && eligible.is_empty() => Some(only),
            _ => None,
        };
        let others = partition.replicas.iter().copied().filter(|_| self.election == Election::Unclean);
        let leader = last_known.into_iter().chain(others).find(|node| may_lead(*node));
        Elected { leader, is_unclean: leader.is_some() }
    }
}

const NO_LEADER: i32 = -1;

/// Whether both hold the same nodes. The order of eligible leaders says nothing.
fn same(sorted: &[NodeId], other: &[NodeId]) -> bool {
    let mut other = other.to_vec();
    other.sort_unstable();
    sorted == other
}

/// What becomes of the partitions of which `concerned` is true, when this happens to a broker.
pub(super) fn partitions_changed(
    image: &Image,
    context: &Context,
    change: BrokerChange,
    concerned: impl Fn(&Partition) -> bool,
) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    for topic in image.topics() {
        let mut rules = None;
        for (&index, partition) in topic.partitions.iter().filter(|(_, partition)| concerned(partition)) {
            let rules = *rules.get_or_insert_with(|| TopicRules::of(image, context, topic));
            let may_lead = |node: NodeId| {
                let is_active = match change {
                    BrokerChange::Leaves(broker) | BrokerChange::LostRecords(broker) if broker == node => false,
                    BrokerChange::Returns(broker) if broker == node => true,
                    _ => image.is_active(node),
                };
                is_active && has_online_directory(image, partition, node)
            };
            records.extend(PartitionChange::of_broker(partition, rules, change).record(topic.id, index, may_lead));
        }
    }
    records
}

/// Whether a replica may lead: its broker is active, and its log directory is online.
pub(super) fn may_lead(image: &Image, partition: &Partition, node: NodeId) -> bool {
    image.is_active(node) && has_online_directory(image, partition, node)
}

fn has_online_directory(image: &Image, partition: &Partition, node: NodeId) -> bool {
    partition.directory(node).is_some_and(|directory| image.has_online_directory(node, directory))
}
