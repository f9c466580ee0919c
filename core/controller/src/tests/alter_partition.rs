//! The cases are those of Kafka's `ReplicationControlManagerTest`, and what a leader that is wrong or late asks for.

use super::replicated::{TOPIC, partition};
use super::*;
use tidelog_wire::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use tidelog_wire::messages::{AlterPartitionRequest, AlterPartitionResponse, PartitionRecord};

const NEWEST: i16 = 3;

/// The leader of [`partition`] asks for this ISR, in the present epochs.
fn isr(cluster: &Cluster, nodes: &[i32]) -> PartitionData {
    let state = |id: &i32| {
        let broker_epoch = cluster.image.broker(NodeId(*id)).map_or(-1, |broker| broker.broker_epoch);
        BrokerState { broker_id: *id, broker_epoch, ..Default::default() }
    };
    PartitionData {
        partition_index: 0,
        leader_epoch: 7,
        partition_epoch: 20,
        new_isr_with_epochs: nodes.iter().map(state).collect(),
        ..Default::default()
    }
}

fn request(cluster: &Cluster, leader: i32, topic_id: Uuid, partitions: Vec<PartitionData>) -> AlterPartitionRequest {
    AlterPartitionRequest {
        broker_id: leader,
        broker_epoch: cluster.epoch_of(leader),
        topics: vec![TopicData { topic_id, partitions, ..Default::default() }],
        ..Default::default()
    }
}

fn ask(cluster: &mut Cluster, request: &AlterPartitionRequest) -> Result<AlterPartitionResponse, Refusal> {
    cluster.decide(|image, context, _| alter_partition(image, context, request, NEWEST))
}

/// What the leader 1 is told of the one partition that it asks for.
fn outcome(cluster: &mut Cluster, asked: PartitionData) -> ErrorCode {
    let request = request(cluster, 1, TOPIC, vec![asked]);
    let before = cluster.partition("t", 0).clone();
    let response = ask(cluster, &request).unwrap();
    let told = &response.topics[0].partitions[0];
    let error = ErrorCode::from_code(told.error_code).unwrap();
    let after = cluster.partition("t", 0);
    match error {
        ErrorCode::None => {
            assert_eq!(told.leader_id, after.leader.unwrap().0);
            assert_eq!((told.leader_epoch, told.partition_epoch), (after.leader_epoch.0, after.partition_epoch));
            assert_eq!(told.isr, tidelog_wire::node_ids(&after.isr));
            assert_eq!(told.leader_recovery_state == 1, after.recovering);
        }
        ErrorCode::NewLeaderElected => assert_ne!(after.leader, before.leader),
        _ => assert_eq!(*after, before),
    }
    error
}

fn wide() -> Cluster {
    Cluster::of(partition(&[1, 2, 3], &[1, 2], 1))
}

#[test]
fn the_leader_takes_replicas_into_the_isr_and_out_of_it() {
    let mut cluster = wide();
    let asked = isr(&cluster, &[1, 2, 3]);
    assert_eq!(outcome(&mut cluster, asked), ErrorCode::None);
    assert_eq!(cluster.told(), "1 leads, replicas 1 2 3, in sync 1 2 3, epochs 7 21");
    let asked = PartitionData { partition_epoch: 21, ..isr(&cluster, &[3, 1]) };
    assert_eq!(outcome(&mut cluster, asked), ErrorCode::None);
    assert_eq!(cluster.told(), "1 leads, replicas 1 2 3, in sync 3 1, epochs 7 22");
    let asked = PartitionData { partition_epoch: 22, ..isr(&cluster, &[3, 1]) };
    let records = cluster.committed.len();
    assert_eq!(outcome(&mut cluster, asked), ErrorCode::None);
    assert_eq!(cluster.committed.len(), records, "nothing changes");
}

/// KAFKA-15021
#[test]
fn in_an_old_cluster_a_replica_that_leaves_begins_a_leader_epoch_and_one_that_comes_does_not() {
    let mut cluster = wide();
    cluster.level(records::METADATA_VERSION, 11);
    cluster.level(records::ELIGIBLE_LEADER_REPLICAS_VERSION, 0);
    let asked = isr(&cluster, &[1, 2, 3]);
    assert_eq!(outcome(&mut cluster, asked), ErrorCode::None);
    assert_eq!(cluster.told(), "1 leads, replicas 1 2 3, in sync 1 2 3, epochs 7 21");
    let asked = PartitionData { partition_epoch: 21, ..isr(&cluster, &[1, 2]) };
    assert_eq!(outcome(&mut cluster, asked), ErrorCode::None);
    assert_eq!(cluster.told(), "1 leads, replicas 1 2 3, in sync 1 2, epochs 8 22");
}

#[test]
fn below_the_least_number_of_replicas_those_that_leave_stay_eligible_until_enough_are_back() {
    let mut cluster = wide();
    let asked = isr(&cluster, &[1]);
    assert_eq!(outcome(&mut cluster, asked), ErrorCode::None);
    assert_eq!(cluster.told(), "1 leads, replicas 1 2 3, in sync 1, eligible 2, epochs 7 21");
    let asked = PartitionData { partition_epoch: 21, ..isr(&cluster, &[1, 3]) };
    assert_eq!(outcome(&mut cluster, asked), ErrorCode::None);
    assert_eq!(cluster.told(), "1 leads, replicas 1 2 3, in sync 1 3, epochs 7 22");
    let kept = PartitionRecord { last_known_elr: Some([2][..].into()), ..partition(&[1, 2, 3], &[1], 1) };
    let mut cluster = Cluster::of(kept);
    let asked = isr(&cluster, &[1, 2]);
    assert_eq!(outcome(&mut cluster, asked), ErrorCode::None);
    assert_eq!(
        cluster.told(),
        "1 leads, replicas 1 2 3, in sync 1 2, last known 2, epochs 7 21",
        "only a record that names a leader clears it"
    );
}

#[test]
fn a_leader_that_is_late_or_knows_more_is_told_so_before_anything_else() {
    let data = |leader_epoch, partition_epoch| PartitionData {
        leader_epoch,
        partition_epoch,
        // That would be invalid.
        new_isr_with_epochs: Vec::new(),
        ..Default::default()
    };
    for (asked, error) in [
        (data(8, 20), ErrorCode::NotController),
        (data(8, 19), ErrorCode::NotController),
        (data(6, 21), ErrorCode::NotController),
        (data(7, 21), ErrorCode::NotController),
        (data(6, 20), ErrorCode::FencedLeaderEpoch),
        (data(7, 19), ErrorCode::InvalidUpdateVersion),
        (data(7, 20), ErrorCode::InvalidRequest),
        (PartitionData { partition_index: 1, ..data(8, 21) }, ErrorCode::UnknownTopicOrPartition),
    ] {
        assert_eq!(outcome(&mut wide(), asked.clone()), error, "{asked:?}");
    }
    let mut other_leads = Cluster::of(partition(&[1, 2, 3], &[1, 2], 2));
    for (leader_epoch, partition_epoch, error) in [
        (7, 19, ErrorCode::InvalidRequest),
        (7, 20, ErrorCode::InvalidRequest),
        (6, 20, ErrorCode::FencedLeaderEpoch),
        (7, 21, ErrorCode::NotController),
    ] {
        let asked = PartitionData { leader_epoch, partition_epoch, ..isr(&other_leads, &[1, 2]) };
        assert_eq!(outcome(&mut other_leads, asked), error);
    }
}

#[test]
fn an_isr_without_its_leader_with_strangers_or_with_one_twice_is_refused() {
    for nodes in [&[][..], &[2, 3], &[1, 4], &[1, 2, 2], &[1, 1], &[1, -1], &[1, 99]] {
        let mut cluster = wide();
        let asked = isr(&cluster, nodes);
        assert_eq!(outcome(&mut cluster, asked), ErrorCode::InvalidRequest, "{nodes:?}");
    }
}

#[test]
fn a_replica_whose_broker_is_not_active_or_was_started_again_is_not_taken_into_the_isr() {
    let mut fenced = wide();
    fenced.fence(NodeId(3));
    let mut shutting_down = wide();
    let change = registration_change(NodeId(3), shutting_down.epoch_of(3));
    shutting_down.commit(&[BrokerRegistrationChangeRecord { in_controlled_shutdown: 1, ..change }.into()]);
    let mut unregistered = wide();
    unregistered.decide(|image, context, _| unregister_broker(image, context, NodeId(3))).unwrap();
    for mut cluster in [fenced, shutting_down, unregistered] {
        let asked = isr(&cluster, &[1, 2, 3]);
        assert_eq!(outcome(&mut cluster, asked), ErrorCode::IneligibleReplica);
    }
    for (epoch, error) in [
        (-2, ErrorCode::IneligibleReplica),
        (-1, ErrorCode::None),
        (0, ErrorCode::IneligibleReplica),
        (wide().epoch_of(3), ErrorCode::None),
        (wide().epoch_of(3) + 1, ErrorCode::IneligibleReplica),
    ] {
        let mut cluster = wide();
        let mut asked = isr(&cluster, &[1, 2, 3]);
        asked.new_isr_with_epochs[2].broker_epoch = epoch;
        assert_eq!(outcome(&mut cluster, asked), error, "{epoch}");
    }
    let mut cluster = wide();
    let asked = PartitionData { new_isr: [1, 2, 3][..].into(), ..isr(&cluster, &[]) };
    let request = request(&cluster, 1, TOPIC, vec![asked]);
    let response = cluster.decide(|image, context, _| alter_partition(image, context, &request, 2)).unwrap();
    assert_eq!(response.topics[0].partitions[0].error_code, 0, "version 2 knows no epochs of brokers");
    assert_eq!(cluster.told(), "1 leads, replicas 1 2 3, in sync 1 2 3, epochs 7 21");
}

#[test]
fn a_leader_that_recovers_is_alone_until_it_says_that_it_has_recovered() {
    let recovering = || Cluster::of(PartitionRecord { leader_recovery_state: 1, ..partition(&[1, 2, 3], &[1], 1) });
    let asked = |cluster: &Cluster, nodes: &[i32], leader_recovery_state| PartitionData {
        leader_recovery_state,
        ..isr(cluster, nodes)
    };
    for (nodes, state, error) in [
        (&[1, 2][..], 1, ErrorCode::InvalidRequest),
        (&[1], 1, ErrorCode::None),
        (&[1], 2, ErrorCode::InvalidRequest),
        (&[1], -1, ErrorCode::InvalidRequest),
        (&[1], 0, ErrorCode::None),
        (&[1, 2], 0, ErrorCode::None),
    ] {
        let mut cluster = recovering();
        let data = asked(&cluster, nodes, state);
        assert_eq!(outcome(&mut cluster, data), error, "{nodes:?} {state}");
        let still = error != ErrorCode::None || state == 1;
        assert_eq!(cluster.partition("t", 0).recovering, still);
    }
    let mut cluster = wide();
    let data = asked(&cluster, &[1], 1);
    assert_eq!(outcome(&mut cluster, data), ErrorCode::InvalidRequest, "it had recovered");
}

#[test]
fn a_move_ends_with_the_isr_that_it_waits_for_and_may_take_the_leadership_with_it() {
    let moving = PartitionRecord {
        adding_replicas: [4, 5][..].into(),
        removing_replicas: [1, 3][..].into(),
        ..partition(&[2, 4, 5, 1, 3], &[1, 2, 3], 1)
    };
    let mut cluster = Cluster::of(moving.clone());
    let asked = isr(&cluster, &[1, 2, 3, 4]);
    assert_eq!(outcome(&mut cluster, asked), ErrorCode::None);
    assert_eq!(cluster.told(), "1 leads, replicas 2 4 5 1 3, adding 4 5, removing 1 3, in sync 1 2 3 4, epochs 7 21");
    let asked = PartitionData { partition_epoch: 21, ..isr(&cluster, &[1, 2, 3, 4, 5]) };
    assert_eq!(outcome(&mut cluster, asked), ErrorCode::NewLeaderElected);
    assert_eq!(cluster.told(), "2 leads, replicas 2 4 5, in sync 2 4 5, epochs 8 22");

    let stays = PartitionRecord { leader: 2, ..moving };
    let mut cluster = Cluster::of(stays);
    let request = request(&cluster, 2, TOPIC, vec![isr(&cluster, &[2, 4, 5])]);
    let told = &ask(&mut cluster, &request).unwrap().topics[0].partitions[0];
    assert_eq!((told.error_code, told.leader_epoch), (0, 8), "a new leader epoch begins without the removed ones");
    assert_eq!(cluster.told(), "2 leads, replicas 2 4 5, in sync 2 4 5, epochs 8 21");
    assert_eq!(cluster.partition("t", 0).directories, [2, 4, 5].map(replicated::dir));
}

#[test]
fn a_broker_of_an_earlier_life_and_topics_that_are_none_are_refused() {
    let mut cluster = wide();
    let good = request(&cluster, 1, TOPIC, vec![isr(&cluster, &[1, 2, 3])]);
    for (broker_id, broker_epoch) in [(1, good.broker_epoch - 1), (1, -1), (99, good.broker_epoch)] {
        let stale = AlterPartitionRequest { broker_id, broker_epoch, ..good.clone() };
        assert_eq!(ask(&mut cluster, &stale).unwrap_err().error, ErrorCode::StaleBrokerEpoch);
        let empty = AlterPartitionRequest { topics: Vec::new(), ..stale };
        assert_eq!(ask(&mut cluster, &empty), Ok(AlterPartitionResponse::default()), "nothing is asked");
    }
    for id in [Uuid::ZERO, Uuid::from_bytes([6; 16])] {
        let unknown = request(&cluster, 1, id, vec![isr(&cluster, &[1, 2, 3])]);
        let response = ask(&mut cluster, &unknown).unwrap();
        assert_eq!(response.topics[0].topic_id, id);
        assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::UnknownTopicId.code());
    }
    let mut cluster = wide();
    cluster.commit(&[PartitionRecord { partition_id: 1, ..partition(&[1, 2, 3], &[1, 2], 1) }.into()]);
    let second = |asked: PartitionData| PartitionData { partition_index: 1, ..asked };
    let both = vec![second(isr(&cluster, &[1, 2, 3])), second(isr(&cluster, &[]))];
    let both = request(&cluster, 1, TOPIC, both);
    let response = ask(&mut cluster, &both).unwrap();
    let told: Vec<(i32, i16)> =
        response.topics[0].partitions.iter().map(|told| (told.partition_index, told.error_code)).collect();
    assert_eq!(told, [(1, 0), (1, ErrorCode::InvalidUpdateVersion.code())]);
    let mut cluster = wide();
    let twice = request(&cluster, 1, TOPIC, vec![isr(&cluster, &[1]), isr(&cluster, &[1, 2, 3])]);
    let response = ask(&mut cluster, &twice).unwrap();
    let codes: Vec<i16> = response.topics[0].partitions.iter().map(|told| told.error_code).collect();
    assert_eq!(codes, [0, ErrorCode::InvalidUpdateVersion.code()], "the second is decided after the first");
}
