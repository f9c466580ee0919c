//! What becomes of a partition when its ISR or its replicas change, or when replicas may lead again: who leads it, which
//! replicas stay eligible to lead it although they left the ISR (KIP-966), and whether its reassignment is complete
//! (KIP-455).
//!
//! The rules are those of Kafka's `PartitionChangeBuilder` and of `ReplicationControlManager`, which decides for all
//! partitions of a broker.

use super::Context;
use super::image::{DIRECTORY_UNASSIGNED, Image, Partition, Topic};
use super::reassignments::Reassignment;
use super::records;
use std::collections::{BTreeMap, BTreeSet};
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
    assigns_directories: bool,
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
            assigns_directories: records::assigns_directories(image.metadata_version()),
        }
    }

    pub fn allows_unclean_election(&self) -> bool {
        self.allows_unclean_election
    }

    /// How a leader is elected if the present one cannot stay.
    fn election(&self) -> Election {
        if self.allows_unclean_election { Election::Unclean } else { Election::Online }
    }
}

/// A change of one partition. [`Self::record`] adds all that follows from it.
#[derive(Debug)]
pub(super) struct PartitionChange<'a> {
    partition: &'a Partition,
    rules: TopicRules,
    election: Election,
    /// The replicas that the partition shall have, and which of them come and go.
    assignment: Reassignment,
    /// The directories of replicas that shall not be where the partition says, or that it does not have yet.
    directories: BTreeMap<NodeId, Uuid>,
    /// The replicas that shall be in sync.
    isr: Vec<NodeId>,
    /// Whether the leader shall count as one that may lack records.
    recovering: bool,
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
    /// Elects a leader. Everything else stays as it is.
    pub fn election(partition: &'a Partition, rules: TopicRules, election: Election) -> Self {
        Self {
            partition,
            rules,
            election,
            assignment: Reassignment::of(partition),
            directories: BTreeMap::new(),
            isr: partition.isr.clone(),
            recovering: partition.recovering,
            lost_records: None,
        }
    }

    /// What becomes of the partition when this happens to a broker.
    pub fn of_broker(partition: &'a Partition, rules: TopicRules, change: BrokerChange) -> Self {
        let mut this = Self::election(partition, rules, rules.election());
        if let BrokerChange::Leaves(broker) | BrokerChange::LostRecords(broker) = change {
            this.isr.retain(|node| *node != broker);
        }
        if let BrokerChange::LostRecords(broker) = change {
            this.lost_records = Some(broker);
        }
        this
    }

    /// What the leader asks for: these replicas are in sync, and it has `recovering` still before it or not (KIP-704).
    pub fn of_leader(partition: &'a Partition, rules: TopicRules, isr: Vec<NodeId>, recovering: bool) -> Self {
        Self { isr, recovering, ..Self::election(partition, rules, rules.election()) }
    }

    /// Begins a reassignment in place of the one that goes on, if one does. `directories` are those of the replicas that
    /// come.
    pub fn reassigned(
        partition: &'a Partition,
        rules: TopicRules,
        assignment: Reassignment,
        directories: BTreeMap<NodeId, Uuid>,
    ) -> Self {
        Self { assignment, directories, ..Self::election(partition, rules, Election::Online) }
    }

    /// The replica on a broker lies in this directory. If that is not online, the replica leaves the ISR.
    pub fn placed(
        partition: &'a Partition,
        rules: TopicRules,
        broker: NodeId,
        directory: Uuid,
        is_online: bool,
    ) -> Self {
        let directories = BTreeMap::from([(broker, directory)]);
        match is_online {
            true => Self { directories, ..Self::election(partition, rules, Election::Online) },
            false => Self { directories, ..Self::of_broker(partition, rules, BrokerChange::Leaves(broker)) },
        }
    }

    /// Ends a reassignment with these replicas, of which those in `isr` are in sync.
    pub fn reverted(partition: &'a Partition, rules: TopicRules, replicas: Vec<NodeId>, isr: Vec<NodeId>) -> Self {
        let assignment = Reassignment { replicas, ..Reassignment::default() };
        Self { assignment, isr, ..Self::election(partition, rules, rules.election()) }
    }

    /// The record of the change; none if nothing changes. `may_lead` says of a replica in a log directory whether its
    /// broker and the directory are there.
    pub fn record(
        mut self,
        topic_id: Uuid,
        partition_id: i32,
        may_lead: impl Fn(NodeId, Uuid) -> bool,
    ) -> Option<MetadataRecord> {
        let (partition, rules) = (self.partition, self.rules);
        let unchanged = PartitionChangeRecord { topic_id, partition_id, ..PartitionChangeRecord::default() };
        let mut record = unchanged.clone();
        self.complete_reassignment();
        let mut eligible = self.eligible();
        let Elected { leader, is_unclean } =
            self.elect(&eligible, |node| self.directory(node).is_some_and(|directory| may_lead(node, directory)));
        let is_new = leader != partition.leader;
        let is_unclean = is_unclean && is_new;
        if is_new {
            record.leader = leader.map_or(NO_LEADER, |leader| leader.0);
            if let Some(leader) = leader.filter(|leader| is_unclean || eligible.contains(leader)) {
                self.isr = vec![leader];
                eligible.remove(&leader);
                if !is_unclean {
                    // Kafka lets the move wait for the next change, which may never come if only this replica is up.
                    self.complete_reassignment();
                    eligible.retain(|node| self.assignment.replicas.contains(node));
                }
            }
            self.recovering |= is_unclean;
        }
        if self.recovering != partition.recovering {
            record.leader_recovery_state = self.recovering.into();
        }
        // The logs of replicas that are taken out are deleted, so their leader must not take its fetches for a replica's
        // any more.
        if !is_new && partition.replicas.iter().any(|node| !self.assignment.replicas.contains(node)) {
            record.leader = partition.leader.map_or(NO_LEADER, |leader| leader.0);
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
            let nobody_is_left = leader.is_none() && self.isr.is_empty() && eligible.is_empty();
            if record.leader == NO_LEADER && last_known.is_empty() {
                record.last_known_elr = partition.leader.map(|leader| Int32s::from_slice(&[leader.0]));
            } else if nobody_is_left && last_known.is_empty() {
                // The leader had left while eligible leaders were not kept. (Kafka writes down that there was none.)
                let last = partition.isr.first().or(partition.eligible_leaders.first());
                record.last_known_elr = last.map(|last| Int32s::from_slice(&[last.0]));
            } else if record.leader >= 0 && !last_known.is_empty() {
                record.last_known_elr = Some(Int32s::new());
            }
        }
        self.set_assignment(&mut record);
        (record != unchanged).then(|| record.into())
    }

    fn complete_reassignment(&mut self) {
        if let Some((replicas, isr)) = self.assignment.completed(&self.isr) {
            self.assignment = Reassignment { replicas, ..Reassignment::default() };
            self.isr = isr;
        }
    }

    fn set_assignment(&self, record: &mut PartitionChangeRecord) {
        let (Reassignment { replicas, adding, removing }, partition) = (&self.assignment, self.partition);
        let directory = |node: &NodeId| self.directory(*node).unwrap_or(DIRECTORY_UNASSIGNED);
        let directories: Vec<Uuid> = replicas.iter().map(directory).collect();
        if self.rules.assigns_directories && directories != partition.directories {
            record.directories = Some(directories);
        }
        let changed = |after: &[NodeId], before: &[NodeId]| (after != before).then(|| node_ids(after));
        record.replicas = changed(replicas, &partition.replicas);
        record.adding_replicas = changed(adding, &partition.adding);
        record.removing_replicas = changed(removing, &partition.removing);
    }

    /// The directory in which a replica shall be.
    fn directory(&self, node: NodeId) -> Option<Uuid> {
        self.directories.get(&node).copied().or_else(|| self.partition.directory(node))
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
        let is_eligible = |node: &NodeId| {
            !self.isr.contains(node)
                && self.lost_records != Some(*node)
                // Kafka keeps those that a reassignment takes out. Their logs are deleted.
                && self.assignment.replicas.contains(node)
        };
        candidates.filter(is_eligible).collect()
    }

    fn elect(&self, eligible: &BTreeSet<NodeId>, may_lead: impl Fn(NodeId) -> bool) -> Elected {
        let (partition, replicas) = (self.partition, &self.assignment.replicas);
        let is_clean = |node: &NodeId| {
            (self.isr.contains(node) || (self.isr.is_empty() && eligible.contains(node))) && may_lead(*node)
        };
        let first = replicas.first().copied().filter(|_| self.election == Election::Preferred);
        let in_order = first.into_iter().chain(partition.leader).chain(replicas.iter().copied());
        if let Some(leader) = in_order.into_iter().find(is_clean) {
            return Elected { leader: Some(leader), is_unclean: false };
        }
        // The last leader has the most records, even if it may have lost some.
        let last_known = match partition.last_known_eligible_leaders[..] {
            [only] if self.rules.has_eligible_leaders && self.isr.is_empty() && eligible.is_empty() => Some(only),
            _ => None,
        };
        let others = replicas.iter().copied().filter(|_| self.election == Election::Unclean);
        let leader = last_known.into_iter().chain(others).find(|node| may_lead(*node));
        Elected { leader, is_unclean: leader.is_some() }
    }
}

const NO_LEADER: i32 = -1;
/// The leader in a record that leaves the leader as it is.
pub(super) const NO_LEADER_CHANGE: i32 = -2;

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
            let may_lead = |node: NodeId, directory: Uuid| {
                let is_active = match change {
                    BrokerChange::Leaves(broker) | BrokerChange::LostRecords(broker) if broker == node => false,
                    BrokerChange::Returns(broker) if broker == node => true,
                    _ => image.is_active(node),
                };
                is_active && image.has_online_directory(node, directory)
            };
            records.extend(PartitionChange::of_broker(partition, rules, change).record(topic.id, index, may_lead));
        }
    }
    records
}

/// Whether a replica may lead: its broker is active, and its log directory is online.
pub(super) fn may_lead(image: &Image) -> impl Fn(NodeId, Uuid) -> bool {
    |node, directory| image.is_active(node) && image.has_online_directory(node, directory)
}

/// The records of a request that changes several partitions. What is said of a partition later in the request is decided
/// from what was said of it before.
pub(super) struct PartitionChanges<'a> {
    image: &'a Image,
    changed: BTreeMap<(Uuid, i32), Partition>,
    pub records: Vec<MetadataRecord>,
}

impl<'a> PartitionChanges<'a> {
    pub fn new(image: &'a Image) -> Self {
        Self { image, changed: BTreeMap::new(), records: Vec::new() }
    }

    /// The partition as it is after the changes so far.
    pub fn partition(&self, topic: Uuid, index: i32) -> Option<&Partition> {
        self.changed.get(&(topic, index)).or_else(|| self.image.partition(topic, index))
    }

    /// Takes the record of a change of this partition, if there is one. Gives the record.
    pub fn take(&mut self, topic: Uuid, index: i32, record: Option<MetadataRecord>) -> Option<PartitionChangeRecord> {
        let record = record?;
        let MetadataRecord::PartitionChange(change) = &record else { unreachable!("{record:?} changes a partition") };
        let change = change.clone();
        let mut after = self.partition(topic, index).expect("it was decided from this partition").clone();
        after.merge(&change).expect("a decision fits the partition that it was made from");
        self.changed.insert((topic, index), after);
        self.records.push(record);
        Some(change)
    }
}
