//! The cases are those of Kafka's `ReplicationControlManagerTest` and `PartitionReassignmentReplicasTest`.

use super::replicated::{TOPIC, dir, partition};
use super::*;
use crate::partition_changes::{BrokerChange, partitions_changed};
use tidelog_wire::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use tidelog_wire::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use tidelog_wire::messages::{AlterPartitionReassignmentsRequest, ListPartitionReassignmentsRequest, PartitionRecord};

/// A target of the partition t-0; `None` calls the move off.
fn target(replicas: Option<&[i32]>) -> ReassignablePartition {
    ReassignablePartition { partition_index: 0, replicas: replicas.map(Into::into), ..Default::default() }
}

fn asking(name: &str, partitions: Vec<ReassignablePartition>) -> AlterPartitionReassignmentsRequest {
    let topics = vec![ReassignableTopic { name: name.into(), partitions, ..Default::default() }];
    AlterPartitionReassignmentsRequest { topics, ..Default::default() }
}

fn outcomes(cluster: &mut Cluster, request: &AlterPartitionReassignmentsRequest) -> Vec<(ErrorCode, Option<String>)> {
    let response = cluster.decide(|image, context, _| alter_reassignments(image, context, request));
    assert_eq!((response.error_code, &response.error_message), (0, &None));
    assert_eq!(response.allow_replication_factor_change, request.allow_replication_factor_change);
    let named: Vec<(&str, Vec<i32>)> = response
        .responses
        .iter()
        .map(|topic| (&*topic.name, topic.partitions.iter().map(|it| it.partition_index).collect()))
        .collect();
    let asked: Vec<(&str, Vec<i32>)> = request
        .topics
        .iter()
        .map(|topic| (&*topic.name, topic.partitions.iter().map(|it| it.partition_index).collect()))
        .collect();
    assert_eq!(named, asked);
    let partitions = response.responses.into_iter().flat_map(|topic| topic.partitions);
    partitions.map(|it| (ErrorCode::from_code(it.error_code).unwrap(), it.error_message.map(Into::into))).collect()
}

fn outcome(cluster: &mut Cluster, request: &AlterPartitionReassignmentsRequest) -> (ErrorCode, Option<String>) {
    outcomes(cluster, request).remove(0)
}

/// Moves the partition, which must not be refused, and tells what it is then.
fn moved(cluster: &mut Cluster, replicas: &[i32]) -> String {
    assert_eq!(outcome(cluster, &asking("t", vec![target(Some(replicas))])), (ErrorCode::None, None));
    cluster.told()
}

fn cancelled(cluster: &mut Cluster) -> String {
    assert_eq!(outcome(cluster, &asking("t", vec![target(None)])), (ErrorCode::None, None));
    cluster.told()
}

/// The leader has these replicas in sync now.
fn in_sync(cluster: &mut Cluster, isr: &[i32]) -> String {
    use tidelog_wire::messages::AlterPartitionRequest;
    use tidelog_wire::messages::alter_partition_request::{PartitionData, TopicData};
    let partition = cluster.partition("t", 0).clone();
    let data = PartitionData {
        leader_epoch: partition.leader_epoch.0,
        partition_epoch: partition.partition_epoch,
        new_isr: isr.into(),
        ..Default::default()
    };
    let leader = partition.leader.unwrap();
    let request = AlterPartitionRequest {
        broker_id: leader.0,
        broker_epoch: cluster.epoch_of(leader.0),
        topics: vec![TopicData { topic_id: TOPIC, partitions: vec![data], ..Default::default() }],
        ..Default::default()
    };
    let response = cluster.decide(|image, context, _| alter_partition(image, context, &request, 2)).unwrap();
    let error = ErrorCode::from_code(response.topics[0].partitions[0].error_code).unwrap();
    assert!([ErrorCode::None, ErrorCode::NewLeaderElected].contains(&error), "{error:?}");
    cluster.told()
}

#[test]
fn a_partition_moves_once_all_that_come_are_in_sync() {
    let mut cluster = Cluster::of(partition(&[1, 2, 3], &[1, 2, 3], 1));
    assert_eq!(
        moved(&mut cluster, &[5, 3, 4]),
        "1 leads, replicas 5 3 4 1 2, adding 4 5, removing 1 2, in sync 1 2 3, epochs 7 21"
    );
    assert_eq!(cluster.partition("t", 0).directories, [5, 3, 4, 1, 2].map(dir));
    assert_eq!(
        in_sync(&mut cluster, &[1, 2, 3, 5]),
        "1 leads, replicas 5 3 4 1 2, adding 4 5, removing 1 2, in sync 1 2 3 5, epochs 7 22"
    );
    assert_eq!(in_sync(&mut cluster, &[1, 2, 3, 5, 4]), "5 leads, replicas 5 3 4, in sync 3 5 4, epochs 8 23");
    assert_eq!(cluster.partition("t", 0).directories, [5, 3, 4].map(dir));
}

#[test]
fn a_move_that_waits_for_nobody_is_complete_at_once() {
    let mut cluster = Cluster::of(partition(&[1, 2, 3], &[1, 2, 3], 1));
    assert_eq!(moved(&mut cluster, &[3, 1, 2]), "1 leads, replicas 3 1 2, in sync 1 2 3, epochs 7 21");
    assert_eq!(cluster.partition("t", 0).directories, [3, 1, 2].map(dir));
    assert_eq!(moved(&mut cluster, &[3, 1, 2]), "1 leads, replicas 3 1 2, in sync 1 2 3, epochs 7 21");
    assert_eq!(moved(&mut cluster, &[3, 2]), "3 leads, replicas 3 2, in sync 2 3, epochs 8 22");
    assert_eq!(moved(&mut cluster, &[3]), "3 leads, replicas 3, in sync 3, epochs 9 23");
}

#[test]
fn fewer_replicas_are_left_only_when_all_of_them_are_in_sync() {
    let mut cluster = Cluster::of(partition(&[1, 2, 3], &[1, 2], 1));
    assert_eq!(
        moved(&mut cluster, &[2, 3]),
        "1 leads, replicas 2 3 1, removing 1, in sync 1 2, epochs 7 21",
        "with 2 alone the ISR would be too small"
    );
    assert_eq!(in_sync(&mut cluster, &[1, 2, 3]), "2 leads, replicas 2 3, in sync 2 3, epochs 8 22");
    // As many come as go: one that stays is enough with all that come.
    let mut cluster = Cluster::of(partition(&[1, 2, 3], &[1, 3], 1));
    moved(&mut cluster, &[2, 3, 4]);
    assert_eq!(in_sync(&mut cluster, &[1, 3, 4]), "3 leads, replicas 2 3 4, in sync 3 4, epochs 8 22");
    // Nobody that stays is in sync.
    let mut cluster = Cluster::of(partition(&[1, 2, 3], &[1], 1));
    assert_eq!(moved(&mut cluster, &[2, 3]), "1 leads, replicas 2 3 1, removing 1, in sync 1, epochs 7 21");
}

#[test]
fn replicas_that_are_taken_out_are_not_eligible_to_lead() {
    let eligible = PartitionRecord { eligible_leader_replicas: Some([3][..].into()), ..partition(&[1, 2, 3], &[1], 1) };
    let mut cluster = Cluster::of(eligible);
    cluster.set("min.insync.replicas", "3");
    moved(&mut cluster, &[4]);
    assert_eq!(in_sync(&mut cluster, &[1, 4]), "4 leads, replicas 4, in sync 4, epochs 8 22");
}

#[test]
fn a_broker_that_leaves_may_end_a_move() {
    let moving = PartitionRecord {
        adding_replicas: [4][..].into(),
        removing_replicas: [1][..].into(),
        ..partition(&[4, 2, 3, 1], &[1, 2, 3], 1)
    };
    let mut cluster = Cluster::of(moving);
    let leaves = |cluster: &mut Cluster, id| {
        let context = Context { node_id: NodeId(1), layers: cluster.image.layers(&cluster.broker) };
        let records = partitions_changed(&cluster.image, &context, BrokerChange::Leaves(NodeId(id)), |_| true);
        cluster.commit(&records);
        cluster.told()
    };
    assert_eq!(
        leaves(&mut cluster, 1),
        "2 leads, replicas 4 2 3 1, adding 4, removing 1, in sync 2 3, epochs 8 21",
        "4 is not in sync"
    );
    let mut cluster = Cluster::of(PartitionRecord {
        removing_replicas: [1, 2][..].into(),
        ..partition(&[3, 4, 1, 2], &[1, 3, 4], 1)
    });
    assert_eq!(leaves(&mut cluster, 1), "3 leads, replicas 3 4, in sync 3 4, epochs 8 21");
}

#[test]
fn an_eligible_replica_that_leads_again_may_end_a_move() {
    let alone = PartitionRecord {
        removing_replicas: [2, 3][..].into(),
        eligible_leader_replicas: Some([1, 2][..].into()),
        ..partition(&[1, 2, 3], &[], -1)
    };
    let returns = |record: PartitionRecord| {
        let mut cluster = Cluster::of(record);
        let context = Context { node_id: NodeId(1), layers: cluster.image.layers(&cluster.broker) };
        let records = partitions_changed(&cluster.image, &context, BrokerChange::Returns(NodeId(1)), |_| true);
        cluster.commit(&records);
        cluster.told()
    };
    assert_eq!(returns(alone.clone()), "1 leads, replicas 1, in sync 1, epochs 8 21");
    let unclean = PartitionRecord { eligible_leader_replicas: None, last_known_elr: Some([1][..].into()), ..alone };
    assert_eq!(
        returns(unclean),
        "1 leads, replicas 1 2 3, removing 2 3, in sync 1, recovering, epochs 8 21",
        "the others may have what it lacks"
    );
}

#[test]
fn a_move_that_is_called_off_leaves_the_replicas_from_before() {
    let mut cluster = Cluster::of(partition(&[1, 2, 3], &[1, 2, 3], 1));
    let before = cluster.partition("t", 0).replicas.clone();
    moved(&mut cluster, &[4, 5, 3]);
    in_sync(&mut cluster, &[1, 2, 3, 4]);
    assert_eq!(cancelled(&mut cluster), "1 leads, replicas 3 1 2, in sync 1 2 3, epochs 8 23");
    assert!(before.iter().all(|node| cluster.partition("t", 0).replicas.contains(node)));
    assert_eq!(cluster.partition("t", 0).directories, [3, 1, 2].map(dir));
    let (error, message) = outcome(&mut cluster, &asking("t", vec![target(None)]));
    assert_eq!(error, ErrorCode::NoReassignmentInProgress);
    assert_eq!(message.as_deref(), Some("No partition reassignment is in progress."));
}

#[test]
fn a_move_is_not_called_off_where_that_loses_records_unless_the_topic_allows_it() {
    let moving = PartitionRecord {
        adding_replicas: [4, 5][..].into(),
        removing_replicas: [1, 2][..].into(),
        ..partition(&[3, 4, 5, 1, 2], &[4, 5], 4)
    };
    let mut cluster = Cluster::of(moving.clone());
    let (error, message) = outcome(&mut cluster, &asking("t", vec![target(None)]));
    assert_eq!(error, ErrorCode::InvalidReplicaAssignment);
    let text = "Unable to revert partition assignment for t:0 because it would require an unclean leader election.";
    assert_eq!(message.as_deref(), Some(text));
    cluster.set("unclean.leader.election.enable", "true");
    assert_eq!(cancelled(&mut cluster), "3 leads, replicas 3 1 2, in sync 3, epochs 8 21");

    let all_new = PartitionRecord { adding_replicas: [4, 5][..].into(), ..partition(&[4, 5], &[4, 5], 4) };
    let mut cluster = Cluster::of(all_new);
    let (error, message) = outcome(&mut cluster, &asking("t", vec![target(None)]));
    assert_eq!(error, ErrorCode::InvalidReplicaAssignment);
    assert_eq!(message.as_deref(), Some("Invalid replica assignment: addingReplicas contains all replicas."));
}

#[test]
fn another_target_takes_the_place_of_the_first() {
    let mut cluster = Cluster::of(partition(&[1, 2, 3], &[1, 2, 3], 1));
    moved(&mut cluster, &[4, 2, 3]);
    assert_eq!(
        moved(&mut cluster, &[5, 2, 3]),
        "1 leads, replicas 5 2 3 1 4, adding 5, removing 1 4, in sync 1 2 3, epochs 7 22"
    );
    assert_eq!(
        moved(&mut cluster, &[1, 2, 3]),
        "1 leads, replicas 1 2 3, in sync 1 2 3, epochs 8 23",
        "back to where it began, and nothing comes or goes any more"
    );
    let request = asking("t", vec![target(Some(&[1, 2, 4])), target(Some(&[1, 2, 3])), target(Some(&[3, 2, 1]))]);
    assert!(outcomes(&mut cluster, &request).iter().all(|(error, _)| *error == ErrorCode::None));
    assert_eq!(cluster.told(), "1 leads, replicas 3 2 1, in sync 1 2 3, epochs 9 26", "one after the other");
}

#[test]
fn targets_that_are_none_are_refused_in_kafkas_words() {
    let mut cluster = Cluster::of(partition(&[1, 2, 3], &[1, 2, 3], 1));
    let before = cluster.told();
    for (replicas, text) in [
        (&[][..], "The manual partition assignment includes an empty replica list."),
        (&[1, 2, 9], "The manual partition assignment includes broker 9, but no such broker is registered."),
        (&[1, -1, 2], "The manual partition assignment includes broker -1, but no such broker is registered."),
        (&[1, 2, 2], "The manual partition assignment includes the broker 2 more than once."),
    ] {
        let (error, message) = outcome(&mut cluster, &asking("t", vec![target(Some(replicas))]));
        assert_eq!((error, message.as_deref()), (ErrorCode::InvalidReplicaAssignment, Some(text)));
    }
    for (name, index, text) in [
        ("none", 0, "Unable to find a topic named none."),
        ("t", 1, "Unable to find partition t:1."),
        ("t", -1, "Unable to find partition t:-1."),
    ] {
        let target = ReassignablePartition { partition_index: index, ..target(Some(&[1])) };
        let (error, message) = outcome(&mut cluster, &asking(name, vec![target]));
        assert_eq!((error, message.as_deref()), (ErrorCode::UnknownTopicOrPartition, Some(text)));
    }
    assert_eq!(cluster.told(), before);
    let both = asking("t", vec![target(Some(&[9])), target(Some(&[3, 2, 1]))]);
    let errors: Vec<_> = outcomes(&mut cluster, &both).into_iter().map(|(error, _)| error).collect();
    assert_eq!(errors, [ErrorCode::InvalidReplicaAssignment, ErrorCode::None], "the others are not held back");
}

#[test]
fn the_number_of_replicas_changes_only_where_the_request_allows_it() {
    let keeping = |replicas: &[i32]| AlterPartitionReassignmentsRequest {
        allow_replication_factor_change: false,
        ..asking("t", vec![target(Some(replicas))])
    };
    let mut cluster = Cluster::of(partition(&[1, 2, 3], &[1, 2, 3], 1));
    for (replicas, text) in [
        (&[1, 2][..], "The replication factor is changed from 3 to 2"),
        (&[1, 2, 3, 4], "The replication factor is changed from 3 to 4"),
    ] {
        let (error, message) = outcome(&mut cluster, &keeping(replicas));
        assert_eq!((error, message.as_deref()), (ErrorCode::InvalidReplicationFactor, Some(text)));
    }
    assert_eq!(outcome(&mut cluster, &keeping(&[4, 5, 1])).0, ErrorCode::None);
    assert_eq!(outcome(&mut cluster, &keeping(&[4, 2, 1])).0, ErrorCode::None, "those that go do not count");
    assert_eq!(outcome(&mut cluster, &keeping(&[4, 2, 1, 3, 5])).0, ErrorCode::InvalidReplicationFactor);
}

#[test]
fn new_replicas_lie_where_the_fewest_are_and_an_old_cluster_knows_no_directories() {
    let mut cluster = Cluster::of(partition(&[2, 3], &[2, 3], 2));
    moved(&mut cluster, &[2, 1]);
    assert!([DIR_A, DIR_B].contains(&cluster.partition("t", 0).directories[1]), "one of the two");
    let old = PartitionRecord { directories: Vec::new(), ..partition(&[2, 3], &[2, 3], 2) };
    let mut cluster = Cluster::of(old);
    cluster.level(records::ELIGIBLE_LEADER_REPLICAS_VERSION, 0);
    cluster.level(records::METADATA_VERSION, 16);
    moved(&mut cluster, &[2, 1]);
    let (record, _) = cluster.committed.last().unwrap();
    assert!(matches!(record, MetadataRecord::PartitionChange(change) if change.directories.is_none()), "{record:?}");
}

#[test]
fn moves_are_listed_while_they_go_on() {
    let mut cluster = Cluster::of(partition(&[1, 2, 3], &[1, 2, 3], 1));
    let list = |cluster: &Cluster, topics| {
        let request = ListPartitionReassignmentsRequest { topics, ..Default::default() };
        let response = list_reassignments(&cluster.image, &request);
        assert_eq!((response.error_code, &response.error_message), (0, &None));
        let partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
        partitions.map(|p| (p.partition_index, p.replicas, p.adding_replicas, p.removing_replicas)).collect::<Vec<_>>()
    };
    let named = |name: &str, indexes: &[i32]| {
        let partition_indexes = indexes.into();
        Some(vec![ListPartitionReassignmentsTopics { name: name.into(), partition_indexes, ..Default::default() }])
    };
    assert_eq!(list(&cluster, None), []);
    moved(&mut cluster, &[4, 2, 3]);
    let moving = [(0, smallvec![4, 2, 3, 1], smallvec![4], smallvec![1])];
    assert_eq!(list(&cluster, None), moving);
    assert_eq!(list(&cluster, named("t", &[0, 1])), moving);
    assert_eq!(list(&cluster, named("t", &[1])), []);
    assert_eq!(list(&cluster, named("none", &[0])), []);
    assert_eq!(list(&cluster, Some(Vec::new())), []);
    in_sync(&mut cluster, &[1, 2, 3, 4]);
    assert_eq!(list(&cluster, None), []);
}
