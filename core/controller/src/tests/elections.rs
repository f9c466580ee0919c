use super::*;
use smallvec::smallvec;
use tidelog_wire::Int32s;
use tidelog_wire::messages::elect_leaders_request::TopicPartitions;
use tidelog_wire::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use tidelog_wire::messages::{
    ElectLeadersRequest, ListPartitionReassignmentsRequest, PartitionChangeRecord, PartitionRecord,
};

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// A cluster in which node 1 is active and node 2 is not. Each partition is given by its replicas, its ISR and its
/// leader.
fn cluster(partitions: &[(&[i32], &[i32], i32)]) -> (Cluster, Uuid) {
    let mut cluster = Cluster::new();
    let topic_id = Uuid::from_bytes([5; 16]);
    cluster.commit(&[TopicRecord { name: "t".into(), topic_id, ..Default::default() }.into()]);
    for (index, (replicas, isr, leader)) in (0..).zip(partitions) {
        let record = PartitionRecord {
            partition_id: index,
            topic_id,
            replicas: (*replicas).into(),
            isr: (*isr).into(),
            leader: *leader,
            leader_epoch: 0,
            directories: replicas.iter().map(|_| DIR_A).collect(),
            ..Default::default()
        };
        cluster.commit(&[record.into()]);
    }
    (cluster, topic_id)
}

fn elect(cluster: &mut Cluster, election_type: i8, named: Option<&[i32]>) -> Vec<(i32, ErrorCode)> {
    let topics = named.map(|partitions| {
        vec![TopicPartitions { topic: "t".into(), partitions: partitions.into(), ..Default::default() }]
    });
    let request = ElectLeadersRequest { election_type, topic_partitions: topics, ..Default::default() };
    let response = cluster.decide(|image, context, _| elect_leaders(image, context, &request));
    let results = response.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
    results.map(|result| (result.partition_id, ErrorCode::from_code(result.error_code).unwrap())).collect()
}

fn leader(cluster: &Cluster, topic: Uuid, index: i32) -> (Option<i32>, Vec<i32>, i32, bool) {
    let partition = cluster.image.partition(topic, index).unwrap();
    let isr = partition.isr.iter().map(|node| node.0).collect();
    (partition.leader.map(|node| node.0), isr, partition.leader_epoch.0, partition.recovering)
}

#[test]
fn the_first_replica_leads_again_where_it_is_up_and_in_sync() {
    let (mut cluster, topic) = cluster(&[(&[1, 2], &[1, 2], 2), (&[2, 1], &[2, 1], 1), (&[1], &[1], 1)]);
    assert_eq!(
        elect(&mut cluster, PREFERRED, Some(&[0, 1, 2, 9])),
        [
            (0, ErrorCode::None),
            (1, ErrorCode::PreferredLeaderNotAvailable),
            (2, ErrorCode::ElectionNotNeeded),
            (9, ErrorCode::UnknownTopicOrPartition)
        ]
    );
    assert_eq!(leader(&cluster, topic, 0), (Some(1), vec![1, 2], 1, false));
    assert_eq!(leader(&cluster, topic, 1).0, Some(1));
}

#[test]
fn an_election_for_all_tells_only_of_partitions_that_were_not_well() {
    let (mut cluster, _) = cluster(&[(&[1, 2], &[1, 2], 2), (&[1], &[1], 1)]);
    assert_eq!(elect(&mut cluster, PREFERRED, None), [(0, ErrorCode::None)]);
    assert_eq!(elect(&mut cluster, PREFERRED, None), []);
}

#[test]
fn an_unclean_election_takes_a_replica_in_sync_before_one_that_loses_records() {
    let (mut cluster, topic) =
        cluster(&[(&[2, 1], &[2], -1), (&[2, 1], &[2, 1], -1), (&[2], &[2], -1), (&[1], &[1], 1)]);
    assert_eq!(
        elect(&mut cluster, UNCLEAN, Some(&[0, 1, 2, 3])),
        [
            (0, ErrorCode::None),
            (1, ErrorCode::None),
            (2, ErrorCode::EligibleLeadersNotAvailable),
            (3, ErrorCode::ElectionNotNeeded)
        ]
    );
    assert_eq!(leader(&cluster, topic, 0), (Some(1), vec![1], 1, true));
    assert_eq!(leader(&cluster, topic, 1), (Some(1), vec![2, 1], 1, false));
    assert_eq!(leader(&cluster, topic, 2).0, None);
}

#[test]
fn an_unknown_kind_of_election_is_refused_for_every_partition_named() {
    let (mut cluster, topic) = cluster(&[(&[1, 2], &[1, 2], 2)]);
    assert_eq!(elect(&mut cluster, 7, Some(&[0, 4])), [(0, ErrorCode::InvalidRequest), (4, ErrorCode::InvalidRequest)]);
    assert_eq!(leader(&cluster, topic, 0).0, Some(2));
}

#[test]
fn reassignments_are_listed_while_replicas_come_or_go() {
    let (mut cluster, topic_id) = cluster(&[(&[1, 2], &[1, 2], 1), (&[1], &[1], 1)]);
    let list = |cluster: &Cluster, topics| {
        let request = ListPartitionReassignmentsRequest { topics, ..Default::default() };
        let response = list_reassignments(&cluster.image, &request);
        assert_eq!((response.error_code, &response.error_message), (0, &None));
        let partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
        partitions.map(|p| (p.partition_index, p.replicas, p.adding_replicas, p.removing_replicas)).collect::<Vec<_>>()
    };
    assert_eq!(list(&cluster, None), []);
    let moving = PartitionChangeRecord {
        partition_id: 0,
        topic_id,
        removing_replicas: Some(smallvec![2]),
        ..Default::default()
    };
    cluster.commit(&[moving.into()]);
    assert_eq!(list(&cluster, None), [(0, smallvec![1, 2], smallvec![], smallvec![2])]);
    let named = |name: &str, partition_indexes: Int32s| {
        Some(vec![ListPartitionReassignmentsTopics { name: name.into(), partition_indexes, ..Default::default() }])
    };
    assert_eq!(list(&cluster, named("t", smallvec![0, 1])).len(), 1);
    assert_eq!(list(&cluster, named("t", smallvec![1])), []);
    assert_eq!(list(&cluster, named("none", smallvec![0])), []);
}
