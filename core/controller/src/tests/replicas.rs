//! Topics of several replicas: what is asked for, what is refused, and which replicas begin in sync.

use super::*;

/// Brokers 1 to 4, of which 4 is fenced and 3 shuts down.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    for id in 2..=4 {
        cluster.start(NodeId(id), &[Uuid::from_bytes([id as u8; 16])]);
    }
    cluster.fence(NodeId(4));
    let change = registration_change(NodeId(3), cluster.image.broker(NodeId(3)).unwrap().broker_epoch);
    cluster.commit(&[BrokerRegistrationChangeRecord { in_controlled_shutdown: 1, ..change }.into()]);
    cluster
}

fn nodes(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

#[test]
fn replicas_that_are_assigned_by_hand_begin_in_sync_where_their_brokers_are_active() {
    let mut cluster = cluster();
    let by_hand = assigned("t", &[(1, &[4, 2, 1]), (0, &[3, 1, 4])]);
    assert_eq!(text(&cluster.create(&creating(vec![by_hand]))), "t: NONE -");
    let led = |cluster: &Cluster, index| {
        let partition = cluster.partition("t", index);
        (partition.replicas.clone(), partition.isr.clone(), partition.leader)
    };
    assert_eq!(led(&cluster, 0), (nodes(&[3, 1, 4]), nodes(&[1]), Some(NodeId(1))));
    assert_eq!(led(&cluster, 1), (nodes(&[4, 2, 1]), nodes(&[2, 1]), Some(NodeId(2))));
    let assignment = |ids: &[i32]| CreatePartitionsAssignment { broker_ids: ids.into(), ..Default::default() };
    let mut extend = |count, assignments: &[&[i32]]| {
        let assignments = Some(assignments.iter().map(|ids| assignment(ids)).collect());
        text(&cluster.extend(vec![CreatePartitionsTopic {
            name: "t".into(),
            count,
            assignments,
            ..Default::default()
        }]))
    };
    assert_eq!(extend(3, &[&[4, 1, 3]]), "t: NONE -");
    assert_eq!(
        extend(4, &[&[4, 3]]),
        "t: INVALID_REPLICA_ASSIGNMENT The manual partition assignment includes a partition with 2 replica(s), but this \
         is not consistent with previous partitions, which have 3 replica(s)."
    );
    assert_eq!(
        extend(4, &[&[4, 1, 1]]),
        "t: INVALID_REPLICA_ASSIGNMENT The manual partition assignment includes the broker 1 more than once."
    );
    assert_eq!(
        extend(4, &[&[4, 1, 7]]),
        "t: INVALID_REPLICA_ASSIGNMENT The manual partition assignment includes broker 7, but no such broker is \
         registered."
    );
    assert_eq!(led(&cluster, 2), (nodes(&[4, 1, 3]), nodes(&[1]), Some(NodeId(1))));
}

#[test]
fn replicas_that_are_assigned_by_hand_are_refused_in_kafkas_words() {
    let mut cluster = cluster();
    let mut create = |ids: &[i32]| text(&cluster.create(&creating(vec![assigned("t", &[(0, ids)])])));
    let refused = [create(&[]), create(&[1, 2, 9]), create(&[1, -3]), create(&[2, 1, 2]), create(&[3, 4])];
    insta::assert_snapshot!(refused.join("\n"), @"
    t: INVALID_REPLICA_ASSIGNMENT The manual partition assignment includes an empty replica list.
    t: INVALID_REPLICA_ASSIGNMENT The manual partition assignment includes broker 9, but no such broker is registered.
    t: INVALID_REPLICA_ASSIGNMENT The manual partition assignment includes broker -3, but no such broker is registered.
    t: INVALID_REPLICA_ASSIGNMENT The manual partition assignment includes the broker 2 more than once.
    t: INVALID_REPLICA_ASSIGNMENT All brokers specified in the manual partition assignment for partition 0 are fenced or in controlled shutdown.
    ");
}

#[test]
fn replicas_are_placed_on_active_and_fenced_brokers_and_never_on_one_that_shuts_down() {
    let mut cluster = cluster();
    let outcomes = cluster.create(&creating(vec![
        topic("three", 6, 3),
        topic("four", 1, 4),
        topic("zero", 1, 0),
        topic("negative", 1, -2),
    ]));
    insta::assert_snapshot!(text(&outcomes), @"
    three: NONE -
    four: INVALID_REPLICATION_FACTOR Unable to replicate the partition 4 time(s): The target replication factor of 4 cannot be reached because only 3 broker(s) are registered or some brokers have all their log directories cordoned.
    zero: INVALID_REPLICATION_FACTOR Replication factor must be larger than 0, or -1 to use the default value.
    negative: INVALID_REPLICATION_FACTOR Replication factor must be larger than 0, or -1 to use the default value.
    ");
    for index in 0..6 {
        let partition = cluster.partition("three", index);
        assert_eq!(partition.replicas[2], NodeId(4), "fenced ones come last");
        assert_eq!(partition.isr, partition.replicas[..2]);
        assert_eq!(partition.leader, Some(partition.replicas[0]));
    }
    let more = CreatePartitionsTopic { name: "three".into(), count: 8, assignments: None, ..Default::default() };
    assert_eq!(text(&cluster.extend(vec![more])), "three: NONE -");
    assert_eq!(cluster.partition("three", 7).isr.len(), 2);
}

#[test]
fn more_replicas_may_have_to_be_in_sync_than_there_are() {
    let mut cluster = cluster();
    let wants = CreatableTopic { replication_factor: 2, ..topic_with("t", &[("min.insync.replicas", Some("5"))]) };
    assert_eq!(text(&cluster.create(&creating(vec![wants]))), "t: NONE -", "as in Kafka, where 2 are enough then");
}
