use super::*;
use smallvec::smallvec;
use tidelog_wire::Int32s;
use tidelog_wire::messages::elect_leaders_request::TopicPartitions;
use tidelog_wire::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use tidelog_wire::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use tidelog_wire::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use tidelog_wire::messages::{
    ElectLeadersRequest, ElectLeadersResponse, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    PartitionChangeRecord, PartitionRecord,
};

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// A cluster in which node 1 is active and node 2 is not. Each partition is given by its replicas, its ISR and its
/// leader.
pub(super) fn cluster(partitions: &[(&[i32], &[i32], i32)]) -> (Cluster, Uuid) {
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

pub(super) fn leader(cluster: &Cluster, topic: Uuid, index: i32) -> (Option<i32>, Vec<i32>, i32, bool) {
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

/// The whole answer, for the partitions of the topic `t` with their errors and texts.
fn answer(error: ErrorCode, partitions: &[(i32, ErrorCode, Option<&str>)]) -> ElectLeadersResponse {
    let partition_result = partitions.iter().map(|(index, error, text)| PartitionResult {
        partition_id: *index,
        error_code: error.code(),
        error_message: text.map(Into::into),
        ..Default::default()
    });
    let topic =
        ReplicaElectionResult { topic: "t".into(), partition_result: partition_result.collect(), ..Default::default() };
    ElectLeadersResponse { error_code: error.code(), replica_election_results: vec![topic], ..Default::default() }
}

#[test]
fn an_answer_names_each_topic_and_says_why_there_is_no_election() {
    let (mut cluster, _) = cluster(&[(&[1, 2], &[1, 2], 2), (&[1], &[1], 1)]);
    let mut ask = |election_type, named: Option<Int32s>| {
        let named =
            named.map(|partitions| vec![TopicPartitions { topic: "t".into(), partitions, ..Default::default() }]);
        let request = ElectLeadersRequest { election_type, topic_partitions: named, ..Default::default() };
        cluster.decide(|image, context, _| elect_leaders(image, context, &request))
    };
    assert_eq!(
        ask(PREFERRED, Some(smallvec![1, 9])),
        answer(
            ErrorCode::None,
            &[
                (1, ErrorCode::ElectionNotNeeded, None),
                (9, ErrorCode::UnknownTopicOrPartition, Some("No such partition as t-9"))
            ]
        )
    );
    let unknown = ErrorCode::InvalidRequest;
    assert_eq!(ask(7, Some(smallvec![0])), answer(unknown, &[(0, unknown, Some("Unknown election type 7"))]));
    assert_eq!(ask(PREFERRED, None), answer(ErrorCode::None, &[(0, ErrorCode::None, None)]));
}

#[test]
fn the_preferred_replica_takes_over_from_a_leader_that_is_well() {
    let (mut cluster, topic) = cluster(&[(&[2, 1], &[2, 1], 1)]);
    let dir = Uuid::from_bytes([2; 16]);
    cluster.start(NodeId(2), &[dir]);
    let mut partition = cluster.partition("t", 0).clone();
    (partition.isr, partition.directories) = (vec![NodeId(2), NodeId(1)], vec![dir, DIR_A]);
    partition.eligible_leaders.clear();
    cluster.commit(&[partition.record(topic, 0)]);
    assert_eq!(elect(&mut cluster, PREFERRED, Some(&[0])), [(0, ErrorCode::None)]);
    assert_eq!(leader(&cluster, topic, 0).0, Some(2));
}

#[test]
fn a_replica_whose_directory_is_offline_is_not_elected() {
    let (mut cluster, topic) = cluster(&[(&[1, 2], &[1, 2], 2)]);
    let mut partition = cluster.partition("t", 0).clone();
    partition.directories = vec![DIRECTORY_LOST; 2];
    cluster.commit(&[partition.record(topic, 0)]);
    elect(&mut cluster, PREFERRED, Some(&[0]));
    assert_eq!(leader(&cluster, topic, 0).0, None, "and node 2 is down");
}

#[test]
fn a_list_of_reassignments_names_topics_partitions_and_replicas() {
    let (mut cluster, topic_id) = cluster(&[(&[1], &[1], 1), (&[1, 2], &[1, 2], 1)]);
    let moving = PartitionChangeRecord {
        partition_id: 1,
        topic_id,
        adding_replicas: Some(smallvec![2]),
        removing_replicas: Some(smallvec![1]),
        ..Default::default()
    };
    cluster.commit(&[moving.into()]);
    let partition = OngoingPartitionReassignment {
        partition_index: 1,
        replicas: smallvec![1, 2],
        adding_replicas: smallvec![2],
        removing_replicas: smallvec![1],
        ..Default::default()
    };
    let topic = OngoingTopicReassignment { name: "t".into(), partitions: vec![partition], ..Default::default() };
    assert_eq!(
        list_reassignments(&cluster.image, &ListPartitionReassignmentsRequest { topics: None, ..Default::default() }),
        ListPartitionReassignmentsResponse { topics: vec![topic], error_message: None, ..Default::default() }
    );
}
