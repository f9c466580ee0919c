use super::*;

fn leader(min_insync_replicas: i32) -> Replica {
    Replica::new(&assignment(ME, 1, &[ME, OTHER]), min_insync_replicas)
}

#[test]
fn a_producer_that_wants_all_replicas_waits_for_all_and_one_that_wants_the_leader_for_its_disk() {
    let mut replica = leader(1);
    replica.holds_syncs = true;
    replica.produce(1, 1).unwrap();
    replica.produce(-1, 2).unwrap();
    assert_eq!(replica.answered(), []);
    replica.other_fetches(2);
    assert_eq!(replica.answered(), [], "the leader has nothing on stable storage");
    replica.release();
    assert_eq!(replica.answered(), [(1, Ok(())), (2, Ok(()))]);
    replica.produce(1, 3).unwrap();
    replica.produce(-1, 4).unwrap();
    assert_eq!(replica.answered(), [(3, Ok(()))]);
    replica.other_fetches(3);
    assert_eq!(replica.answered(), []);
    replica.other_fetches(4);
    assert_eq!(replica.answered(), [(4, Ok(()))]);
}

#[test]
fn too_few_in_sync_replicas_refuse_those_who_want_all_and_commit_nothing() {
    let mut replica = leader(2);
    replica.produce(-1, 1).unwrap();
    replica.assign(&Assignment { partition_epoch: 11, ..assignment(ME, 1, &[ME]) });
    assert_eq!(replica.answered(), [], "it was appended, and is not committed");
    assert_eq!(replica.produce(-1, 2), Err(ErrorCode::NotEnoughReplicas));
    replica.produce(1, 3).unwrap();
    assert_eq!((replica.answered(), replica.offsets()), (vec![(3, Ok(()))], (0, 0, 2)));
    replica.other_fetches(2);
    assert_eq!(replica.offsets(), (0, 0, 2), "it has to be in sync first");
    replica.assign(&Assignment { partition_epoch: 12, ..assignment(ME, 1, &[ME, OTHER]) });
    assert_eq!((replica.answered(), replica.offsets()), (vec![(1, Ok(()))], (0, 2, 2)));
}

#[test]
fn who_waits_for_a_leader_that_leads_no_more_is_told() {
    let mut replica = leader(1);
    replica.produce(-1, 1).unwrap();
    replica.partition.watch(PendingId(9), Watched::LogEnd);
    replica.assign(&assignment(OTHER, 2, &[ME, OTHER]));
    assert_eq!(replica.answered(), [(1, Err(ErrorCode::NotLeaderOrFollower))]);
    assert!(matches!(replica.events[..], [PartitionEvent::FetchAgain(PendingId(9))]), "{:?}", replica.events);
    assert_eq!(replica.produce(1, 2), Err(ErrorCode::NotLeaderOrFollower));
}

#[test]
fn a_follower_that_waits_is_woken_by_what_is_written_and_a_reader_by_what_is_committed() {
    let mut replica = leader(1);
    replica.partition.watch(PendingId(8), Watched::HighWatermark);
    replica.partition.watch(PendingId(9), Watched::LogEnd);
    replica.holds_syncs = true;
    replica.produce(1, 1).unwrap();
    assert!(matches!(replica.events[..], [PartitionEvent::FetchAgain(PendingId(9))]), "{:?}", replica.events);
    replica.events.clear();
    replica.release();
    replica.other_fetches(1);
    let woken = |event: &&PartitionEvent| matches!(event, PartitionEvent::FetchAgain(PendingId(8)));
    assert_eq!(replica.events.iter().filter(woken).count(), 1, "{:?}", replica.events);
}

#[test]
fn a_new_leader_does_not_know_what_is_committed_until_its_own_epoch_is() {
    let mut replica = Replica::follower();
    replica.fetched(answer(1, &[batch(0, 3, 1)]));
    replica.assign(&assignment(ME, 2, &[ME, OTHER]));
    assert!(!replica.partition.knows_what_is_committed());
    assert_eq!(replica.offsets(), (0, 1, 3));
    replica.other_fetches(3);
    assert!(replica.partition.knows_what_is_committed());
    assert_eq!(replica.partition.end_offset_for_epoch(LeaderEpoch(2)), (LeaderEpoch(2), Offset(3)), "KAFKA-7415");
}

#[test]
fn a_change_of_the_isr_is_asked_for_until_the_controller_or_the_metadata_says_what_is() {
    let mut replica = Replica::new(&assignment(ME, 1, &[ME]), 1);
    let proposals = |replica: &mut Replica| {
        let events = std::mem::take(&mut replica.events).into_iter();
        let isr = |proposal: IsrProposal| proposal.isr.iter().map(|(node, _)| *node).collect::<Vec<_>>();
        events
            .filter_map(|event| if let PartitionEvent::IsrProposed(it) = event { Some(isr(it)) } else { None })
            .collect::<Vec<_>>()
    };
    replica.other_fetches(0);
    assert_eq!(proposals(&mut replica), [[ME, OTHER]]);
    let answer = |replica: &mut Replica, epoch, answer| {
        replica.partition.isr_answered(replica.now, LeaderEpoch(epoch), answer, &AllThere, &mut replica.events);
    };
    answer(&mut replica, 1, Err(ErrorCode::UnknownServerError));
    assert_eq!(proposals(&mut replica), [[ME, OTHER]], "again");
    answer(&mut replica, 1, Err(ErrorCode::IneligibleReplica));
    assert!(proposals(&mut replica).is_empty());
    replica.other_fetches(0);
    assert_eq!(proposals(&mut replica), [[ME, OTHER]], "it may ask anew");
    answer(&mut replica, 1, Err(ErrorCode::InvalidUpdateVersion));
    replica.other_fetches(0);
    assert!(proposals(&mut replica).is_empty(), "the metadata will tell");
    replica.assign(&Assignment { partition_epoch: 13, ..assignment(ME, 1, &[ME]) });
    replica.other_fetches(0);
    assert_eq!(proposals(&mut replica).len(), 1);
    answer(&mut replica, 0, Ok(IsrAnswer { partition_epoch: 14, isr: vec![ME, OTHER] }));
    answer(&mut replica, 1, Ok(IsrAnswer { partition_epoch: 12, isr: vec![ME, OTHER] }));
    replica.produce(-1, 1).unwrap();
    assert_eq!(replica.answered(), [], "both answers are of an earlier time, and the follower may be in sync");
    answer(&mut replica, 1, Ok(IsrAnswer { partition_epoch: 14, isr: vec![ME, OTHER] }));
    replica.other_fetches(1);
    assert_eq!(replica.answered(), [(1, Ok(()))]);
}

#[test]
fn only_who_has_a_replica_follows() {
    let replica = leader(1);
    assert_eq!(replica.partition.check_follower(OTHER), Ok(()));
    assert_eq!(replica.partition.check_follower(NodeId(9)), Err(ErrorCode::UnknownLeaderEpoch));
    assert_eq!(Replica::follower().partition.check_follower(OTHER), Err(ErrorCode::NotLeaderOrFollower));
}

#[test]
fn no_more_replicas_must_be_in_sync_than_there_are() {
    let replica = leader(2);
    assert_eq!([1, 2, 3].map(|replicas| replica.partition.min_insync_replicas(replicas)), [1, 2, 2]);
}
