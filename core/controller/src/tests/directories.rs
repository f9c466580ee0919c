//! AssignReplicasToDirs. The cases are those of Kafka's `ReplicationControlManagerTest`.

use super::replicated::{TOPIC, dir, partition};
use super::*;
use tidelog_wire::messages::assign_replicas_to_dirs_request::{DirectoryData, PartitionData, TopicData};
use tidelog_wire::messages::{AssignReplicasToDirsRequest, AssignReplicasToDirsResponse};

/// Another directory of broker 2, which is online.
const SECOND: Uuid = Uuid::from_bytes([0x22; 16]);

/// A cluster in which broker 2 has two directories.
fn cluster(isr: &[i32], leader: i32) -> Cluster {
    let mut cluster = Cluster::of(partition(&[1, 2, 3], isr, leader));
    let change = registration_change(NodeId(2), cluster.epoch_of(2));
    let log_dirs = vec![dir(2), SECOND];
    cluster.commit(&[BrokerRegistrationChangeRecord { log_dirs, ..change }.into()]);
    cluster
}

fn assigning(cluster: &Cluster, id: Uuid, topic_id: Uuid, indexes: &[i32]) -> AssignReplicasToDirsRequest {
    let partition = |index: &i32| PartitionData { partition_index: *index, ..Default::default() };
    let partitions = indexes.iter().map(partition).collect();
    let topics = vec![TopicData { topic_id, partitions, ..Default::default() }];
    AssignReplicasToDirsRequest {
        broker_id: 2,
        broker_epoch: cluster.epoch_of(2),
        directories: vec![DirectoryData { id, topics, ..Default::default() }],
        ..Default::default()
    }
}

fn ask(cluster: &mut Cluster, request: &AssignReplicasToDirsRequest) -> Result<AssignReplicasToDirsResponse, Refusal> {
    cluster.decide(|image, context, _| assign_replicas_to_dirs(image, context, request))
}

fn errors(cluster: &mut Cluster, request: &AssignReplicasToDirsRequest) -> Vec<ErrorCode> {
    let response = ask(cluster, request).unwrap();
    let topics = response.directories.iter().flat_map(|directory| &directory.topics);
    let partitions = topics.flat_map(|topic| &topic.partitions);
    partitions.map(|partition| ErrorCode::from_code(partition.error_code).unwrap()).collect()
}

#[test]
fn a_replica_is_where_its_broker_says() {
    let mut cluster = cluster(&[1, 2, 3], 1);
    let request = assigning(&cluster, SECOND, TOPIC, &[0]);
    assert_eq!(errors(&mut cluster, &request), [ErrorCode::None]);
    assert_eq!(cluster.partition("t", 0).directories, [DIR_A, SECOND, dir(3)]);
    assert_eq!(cluster.told(), "1 leads, replicas 1 2 3, in sync 1 2 3, epochs 7 21");
    let known = cluster.committed.len();
    assert_eq!(errors(&mut cluster, &request), [ErrorCode::None]);
    assert_eq!(cluster.committed.len(), known, "nothing changes");
}

#[test]
fn an_answer_names_what_was_asked_for() {
    let mut cluster = cluster(&[1, 2, 3], 1);
    let mut request = assigning(&cluster, SECOND, TOPIC, &[0, 1]);
    let unknown = Uuid::from_bytes([9; 16]);
    request.directories[0].topics.extend(assigning(&cluster, SECOND, unknown, &[0]).directories.remove(0).topics);
    request.directories.extend(assigning(&cluster, dir(2), TOPIC, &[0]).directories);
    let response = ask(&mut cluster, &request).unwrap();
    let told: Vec<_> = response
        .directories
        .iter()
        .flat_map(|directory| directory.topics.iter().map(move |topic| (directory.id, topic)))
        .flat_map(|(id, topic)| topic.partitions.iter().map(move |it| (id, topic.topic_id, it.partition_index)))
        .collect();
    assert_eq!(told, [(SECOND, TOPIC, 0), (SECOND, TOPIC, 1), (SECOND, unknown, 0), (dir(2), TOPIC, 0)]);
    let expected = [ErrorCode::None, ErrorCode::UnknownTopicOrPartition, ErrorCode::UnknownTopicId, ErrorCode::None];
    assert_eq!(errors(&mut cluster, &request), expected);
    assert_eq!(cluster.partition("t", 0).directory(NodeId(2)), Some(dir(2)), "the last word counts");
}

#[test]
fn a_replica_in_a_directory_that_is_not_online_leaves_the_isr_and_does_not_lead() {
    let gone = Uuid::from_bytes([0x77; 16]);
    for directory in [gone, DIRECTORY_LOST] {
        let mut cluster = cluster(&[1, 2, 3], 2);
        let request = assigning(&cluster, directory, TOPIC, &[0]);
        assert_eq!(errors(&mut cluster, &request), [ErrorCode::None]);
        assert_eq!(cluster.told(), "1 leads, replicas 1 2 3, in sync 1 3, epochs 8 21");
        assert_eq!(cluster.partition("t", 0).directory(NodeId(2)), Some(directory));
    }
    let mut alone = cluster(&[2], 2);
    let request = assigning(&alone, gone, TOPIC, &[0]);
    assert_eq!(errors(&mut alone, &request), [ErrorCode::None]);
    assert_eq!(alone.told(), "nobody leads, replicas 1 2 3, eligible 2, last known 2, epochs 8 21");
    let request = assigning(&alone, SECOND, TOPIC, &[0]);
    assert_eq!(errors(&mut alone, &request), [ErrorCode::None]);
    assert_eq!(alone.told(), "2 leads, replicas 1 2 3, in sync 2, epochs 9 22", "its replica is there again");
    let mut unclean = cluster(&[2], 2);
    unclean.set("unclean.leader.election.enable", "true");
    let request = assigning(&unclean, gone, TOPIC, &[0]);
    assert_eq!(errors(&mut unclean, &request), [ErrorCode::None]);
    assert_eq!(unclean.told(), "1 leads, replicas 1 2 3, in sync 1, recovering, epochs 8 21");
}

#[test]
fn a_broker_assigns_its_own_replicas_in_its_own_life() {
    let mut elsewhere = Cluster::of(partition(&[1, 3], &[1, 3], 1));
    let request = assigning(&elsewhere, dir(2), TOPIC, &[0]);
    assert_eq!(errors(&mut elsewhere, &request), [ErrorCode::NotLeaderOrFollower]);
    let mut cluster = cluster(&[1, 2, 3], 1);
    let good = assigning(&cluster, SECOND, TOPIC, &[0]);
    for (broker_id, broker_epoch) in [(2, good.broker_epoch - 1), (2, -1), (99, good.broker_epoch)] {
        let stale = AssignReplicasToDirsRequest { broker_id, broker_epoch, ..good.clone() };
        assert_eq!(ask(&mut cluster, &stale).unwrap_err().error, ErrorCode::StaleBrokerEpoch);
    }
    cluster.level(records::METADATA_VERSION, 16);
    assert_eq!(ask(&mut cluster, &good).unwrap_err().error, ErrorCode::UnsupportedVersion);
    assert_eq!(cluster.partition("t", 0).directories, [1, 2, 3].map(dir));
}
