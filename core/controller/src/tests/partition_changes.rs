//! Who leads a partition, and which replicas are in sync or eligible, when brokers come and go. The cases are those of
//! Kafka's `PartitionChangeBuilderTest` and `ReplicationControlManagerTest`, as far as no reassignment is in them.

use super::*;
use crate::partition_changes::{BrokerChange, partitions_changed};
use tidelog_wire::messages::{ConfigRecord, FeatureLevelRecord, PartitionRecord};

/// One partition in a cluster of the brokers 1 to 4.
#[derive(Clone, Copy)]
struct Case<'a> {
    replicas: &'a [i32],
    isr: &'a [i32],
    leader: i32,
    eligible: &'a [i32],
    last_known: &'a [i32],
    recovering: bool,
    /// The brokers that are fenced.
    fenced: &'a [i32],
    min_insync_replicas: &'a str,
    unclean: bool,
    has_eligible_leaders: bool,
    metadata_version: i16,
}

const HEALTHY: Case = Case {
    replicas: &[1, 2, 3],
    isr: &[1, 2, 3],
    leader: 1,
    eligible: &[],
    last_known: &[],
    recovering: false,
    fenced: &[],
    min_insync_replicas: "2",
    unclean: false,
    has_eligible_leaders: true,
    metadata_version: records::METADATA_VERSION_MAX,
};

impl Case<'_> {
    fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::new();
        for id in 2..=4 {
            cluster.start(NodeId(id), &[Uuid::from_bytes([id as u8; 16])]);
        }
        for id in self.fenced {
            cluster.fence(NodeId(*id));
        }
        let level = |name: &str, feature_level| {
            MetadataRecord::from(FeatureLevelRecord { name: name.into(), feature_level, ..Default::default() })
        };
        cluster.commit(&[
            level(records::METADATA_VERSION, self.metadata_version),
            level(records::ELIGIBLE_LEADER_REPLICAS_VERSION, self.has_eligible_leaders.into()),
        ]);
        let config = |name: &str, value: &str| {
            MetadataRecord::from(ConfigRecord {
                resource_type: 2,
                resource_name: "t".into(),
                name: name.into(),
                value: Some(value.into()),
                ..Default::default()
            })
        };
        let partition = PartitionRecord {
            partition_id: 0,
            leader_epoch: 0,
            partition_epoch: 0,
            topic_id: TOPIC,
            replicas: self.replicas.into(),
            isr: self.isr.into(),
            leader: self.leader,
            leader_recovery_state: self.recovering.into(),
            eligible_leader_replicas: Some(self.eligible.into()),
            last_known_elr: Some(self.last_known.into()),
            directories: vec![DIRECTORY_UNASSIGNED; self.replicas.len()],
            ..Default::default()
        };
        cluster.commit(&[
            TopicRecord { name: "t".into(), topic_id: TOPIC, ..Default::default() }.into(),
            partition.into(),
            config("min.insync.replicas", self.min_insync_replicas),
            config("unclean.leader.election.enable", if self.unclean { "true" } else { "false" }),
        ]);
        cluster
    }

    /// What becomes of the partition, in words: the leader, the ISR, what else there is, and how many leader epochs began.
    fn after(&self, change: BrokerChange) -> String {
        let mut cluster = self.cluster();
        let context = Context { node_id: NodeId(1), layers: cluster.image.layers(&cluster.broker) };
        let records = partitions_changed(&cluster.image, &context, change, |_| true);
        if records.is_empty() {
            return "nothing changes".to_owned();
        }
        assert_eq!(records.len(), 1);
        cluster.commit(&records);
        told(cluster.partition("t", 0))
    }
}

const TOPIC: Uuid = Uuid::from_bytes([5; 16]);

fn told(partition: &Partition) -> String {
    let list = |what: &str, nodes: &[NodeId]| match nodes {
        [] => String::new(),
        _ => format!(", {what} {}", nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
    };
    let leader = partition.leader.map_or("nobody".to_owned(), |leader| leader.to_string());
    let recovering = if partition.recovering { ", recovering" } else { "" };
    format!(
        "{leader} leads{}{}{}{recovering}, epoch {}",
        list("in sync", &partition.isr),
        list("eligible", &partition.eligible_leaders),
        list("last known", &partition.last_known_eligible_leaders),
        partition.leader_epoch
    )
}

fn leaves(id: i32) -> BrokerChange {
    BrokerChange::Leaves(NodeId(id))
}

fn returns(id: i32) -> BrokerChange {
    BrokerChange::Returns(NodeId(id))
}

#[test]
fn a_leader_that_leaves_is_followed_by_the_next_replica_in_sync() {
    assert_eq!(HEALTHY.after(leaves(1)), "2 leads, in sync 2 3, epoch 1");
    let case = Case { isr: &[1, 3], replicas: &[1, 2, 3], min_insync_replicas: "1", ..HEALTHY };
    assert_eq!(case.after(leaves(1)), "3 leads, in sync 3, epoch 1");
    let case = Case { fenced: &[2], ..HEALTHY };
    assert_eq!(case.after(leaves(1)), "3 leads, in sync 2 3, epoch 1", "2 is fenced although it is in the ISR");
}

#[test]
fn the_last_replica_in_sync_is_remembered_although_it_had_left_before_eligible_leaders_were_kept() {
    let led_by_nobody =
        Case { replicas: &[3], isr: &[3], leader: -1, min_insync_replicas: "1", fenced: &[3], ..HEALTHY };
    assert_eq!(led_by_nobody.after(BrokerChange::LostRecords(NodeId(3))), "nobody leads, last known 3, epoch 0");
    let lost = Case { isr: &[], last_known: &[3], ..led_by_nobody };
    assert_eq!(lost.after(returns(3)), "3 leads, in sync 3, recovering, epoch 1");
}

#[test]
fn a_follower_that_leaves_begins_no_new_leader_epoch_unless_the_cluster_is_old() {
    assert_eq!(HEALTHY.after(leaves(3)), "1 leads, in sync 1 2, epoch 0");
    let old = Case { metadata_version: 11, has_eligible_leaders: false, ..HEALTHY };
    assert_eq!(old.after(leaves(3)), "1 leads, in sync 1 2, epoch 1");
    let newer = Case { metadata_version: 12, ..old };
    assert_eq!(newer.after(leaves(3)), "1 leads, in sync 1 2, epoch 0");
    assert_eq!(HEALTHY.after(leaves(4)), "nothing changes");
    let second = Case { leader: 2, ..HEALTHY };
    assert_eq!(second.after(leaves(3)), "2 leads, in sync 1 2, epoch 0", "the leader stays, whoever is preferred");
}

#[test]
fn below_the_least_number_of_replicas_those_that_leave_stay_eligible() {
    let case = Case { isr: &[1, 2], ..HEALTHY };
    assert_eq!(case.after(leaves(2)), "1 leads, in sync 1, eligible 2, epoch 0");
    assert_eq!(case.after(leaves(1)), "2 leads, in sync 2, eligible 1, epoch 1");
    assert_eq!(case.after(BrokerChange::LostRecords(NodeId(2))), "1 leads, in sync 1, epoch 0");
    // As many as there are replicas are enough.
    let case = Case { replicas: &[1, 2], isr: &[1, 2], min_insync_replicas: "3", ..HEALTHY };
    assert_eq!(case.after(leaves(2)), "1 leads, in sync 1, eligible 2, epoch 0");
    let case = Case { isr: &[1], eligible: &[2, 3], ..HEALTHY };
    assert_eq!(case.after(BrokerChange::LostRecords(NodeId(3))), "1 leads, in sync 1, eligible 2, epoch 0");
}

#[test]
fn the_last_replica_in_sync_leaves_an_empty_isr_and_is_remembered() {
    let case = Case { isr: &[1], ..HEALTHY };
    assert_eq!(case.after(leaves(1)), "nobody leads, eligible 1, last known 1, epoch 1");
    let case = Case { isr: &[1], eligible: &[2], ..HEALTHY };
    assert_eq!(case.after(leaves(1)), "2 leads, in sync 2, eligible 1, epoch 1");
    let case = Case { isr: &[1], eligible: &[2], fenced: &[2], ..HEALTHY };
    assert_eq!(case.after(leaves(1)), "nobody leads, eligible 1 2, last known 1, epoch 1");
    let case = Case { isr: &[1], ..HEALTHY };
    assert_eq!(case.after(BrokerChange::LostRecords(NodeId(1))), "nobody leads, last known 1, epoch 1");
}

#[test]
fn without_eligible_leaders_the_last_replica_stays_in_the_isr() {
    let case = Case { isr: &[1], has_eligible_leaders: false, ..HEALTHY };
    assert_eq!(case.after(leaves(1)), "nobody leads, in sync 1, epoch 1");
    let case = Case { leader: -1, fenced: &[1], ..case };
    assert_eq!(case.after(leaves(1)), "nothing changes");
    assert_eq!(case.after(returns(1)), "1 leads, in sync 1, epoch 1");
    assert_eq!(case.after(returns(2)), "nothing changes");
}

#[test]
fn a_broker_that_returns_leads_where_it_is_eligible_or_led_last() {
    let eligible = Case { isr: &[], leader: -1, eligible: &[1, 2], last_known: &[3], fenced: &[1, 2, 3], ..HEALTHY };
    assert_eq!(eligible.after(returns(2)), "2 leads, in sync 2, eligible 1, epoch 1");
    assert_eq!(eligible.after(returns(3)), "nothing changes", "it may lack records that the eligible ones have");
    let lost = Case { eligible: &[], ..eligible };
    assert_eq!(lost.after(returns(3)), "3 leads, in sync 3, recovering, epoch 1");
    assert_eq!(lost.after(returns(1)), "nothing changes");
    let in_sync = Case { isr: &[1], min_insync_replicas: "1", ..lost };
    assert_eq!(in_sync.after(returns(3)), "nothing changes", "the replica in sync may come back");
    let several = Case { last_known: &[1, 2], ..lost };
    assert_eq!(several.after(returns(1)), "nothing changes", "nobody knows which of them led last");
}

#[test]
fn an_unclean_election_takes_any_replica_that_is_there() {
    let case = Case { isr: &[1], fenced: &[2], unclean: true, ..HEALTHY };
    assert_eq!(case.after(leaves(1)), "3 leads, in sync 3, recovering, epoch 1");
    let without = Case { has_eligible_leaders: false, ..case };
    assert_eq!(without.after(leaves(1)), "3 leads, in sync 3, recovering, epoch 1");
    let again = Case { recovering: true, ..case };
    assert_eq!(again.after(leaves(1)), "3 leads, in sync 3, recovering, epoch 1");
    let nobody = Case { fenced: &[2, 3], ..case };
    assert_eq!(nobody.after(leaves(1)), "nobody leads, eligible 1, last known 1, epoch 1");
    let clean = Case { isr: &[1, 2], fenced: &[], ..case };
    assert_eq!(clean.after(leaves(1)), "2 leads, in sync 2, eligible 1, epoch 1", "a clean one is preferred");
}

#[test]
fn a_replica_in_a_directory_that_has_failed_does_not_lead() {
    let mut cluster = HEALTHY.cluster();
    let mut partition = cluster.partition("t", 0).clone();
    partition.directories = vec![DIR_A, DIRECTORY_LOST, Uuid::from_bytes([3; 16])];
    cluster.commit(&[partition.record(TOPIC, 0)]);
    let context = Context { node_id: NodeId(1), layers: cluster.image.layers(&cluster.broker) };
    let records = partitions_changed(&cluster.image, &context, leaves(1), |_| true);
    cluster.commit(&records);
    assert_eq!(told(cluster.partition("t", 0)), "3 leads, in sync 2 3, epoch 1");
}
