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
fn records_are_deleted_when_no_replica_has_them_any_more() {
    let mut replica = leader(1);
    for id in 1..4 {
        replica.produce(1, id).unwrap();
    }
    replica.other_fetches(3);
    replica.answered();
    replica.partition.delete_records(replica.now, Offset(2), &mut replica.out);
    replica.partition.answer_when_deleted(Offset(2), PendingId(7), (0, 0));
    replica.partition.answer_when_deleted(Offset(1), PendingId(8), (0, 0));
    replica.other_fetches_from(0, 3);
    assert_eq!((replica.answered(), replica.partition.low_watermark(&AllThere)), (vec![], Some(Offset(0))));
    replica.other_fetches_from(1, 3);
    assert_eq!(replica.answered(), [(8, Ok(()))]);
    replica.other_fetches_from(2, 3);
    assert_eq!((replica.answered(), replica.partition.low_watermark(&AllThere)), (vec![(7, Ok(()))], Some(Offset(2))));
}

#[test]
fn a_deletion_that_nobody_waits_for_any_more_is_forgotten_and_one_at_a_leader_that_leads_no_more_fails() {
    let mut replica = leader(1);
    replica.produce(1, 1).unwrap();
    replica.other_fetches(1);
    replica.answered();
    replica.partition.delete_records(replica.now, Offset(1), &mut replica.out);
    replica.partition.answer_when_deleted(Offset(1), PendingId(7), (0, 3));
    replica.partition.answer_when_deleted(Offset(1), PendingId(8), (1, 0));
    assert_eq!(replica.partition.forget_answers(PendingId(7)), [(0, 3)]);
    replica.assign(&assignment(OTHER, 2, &[ME, OTHER]));
    assert_eq!(replica.answered(), [(8, Err(ErrorCode::NotLeaderOrFollower))]);
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
    replica.isr_answered(1, 10, Err(ErrorCode::UnknownServerError));
    assert_eq!(proposals(&mut replica), [[ME, OTHER]], "again");
    replica.isr_answered(1, 10, Err(ErrorCode::IneligibleReplica));
    assert!(proposals(&mut replica).is_empty());
    replica.other_fetches(0);
    assert_eq!(proposals(&mut replica), [[ME, OTHER]], "it may ask anew");
    replica.isr_answered(1, 10, Err(ErrorCode::InvalidUpdateVersion));
    replica.other_fetches(0);
    assert!(proposals(&mut replica).is_empty(), "the metadata will tell");
    replica.assign(&Assignment { partition_epoch: 13, ..assignment(ME, 1, &[ME]) });
    replica.other_fetches(0);
    assert_eq!(proposals(&mut replica).len(), 1);
    replica.isr_answered(0, 13, Ok(IsrAnswer { partition_epoch: 14, isr: vec![ME, OTHER] }));
    replica.isr_answered(1, 13, Ok(IsrAnswer { partition_epoch: 12, isr: vec![ME, OTHER] }));
    replica.produce(-1, 1).unwrap();
    assert_eq!(replica.answered(), [], "both answers are of an earlier time, and the follower may be in sync");
    replica.isr_answered(1, 13, Ok(IsrAnswer { partition_epoch: 14, isr: vec![ME, OTHER] }));
    replica.other_fetches(1);
    assert_eq!(replica.answered(), [(1, Ok(()))]);
}

#[test]
fn an_answer_says_nothing_of_what_was_asked_for_since() {
    let mut replica = Replica::new(&assignment(ME, 1, &[ME]), 1);
    let asks = |replica: &mut Replica| {
        let is_proposal = |event: &PartitionEvent| matches!(event, PartitionEvent::IsrProposed(_));
        std::mem::take(&mut replica.events).iter().filter(|event| is_proposal(event)).count()
    };
    replica.other_fetches(0);
    replica.assign(&Assignment { partition_epoch: 11, ..assignment(ME, 1, &[ME]) });
    replica.other_fetches(0);
    assert_eq!(asks(&mut replica), 2);
    replica.isr_answered(1, 10, Err(ErrorCode::IneligibleReplica));
    replica.isr_answered(1, 10, Ok(IsrAnswer { partition_epoch: 11, isr: vec![ME, OTHER] }));
    replica.other_fetches(0);
    assert_eq!((asks(&mut replica), replica.partition.in_sync()), (0, &[ME][..]), "the second question is open");
    replica.isr_answered(1, 11, Ok(IsrAnswer { partition_epoch: 12, isr: vec![ME, OTHER] }));
    assert_eq!(replica.partition.in_sync(), [ME, OTHER]);
    // The metadata tells later what the answer has told.
    replica.produce(1, 1).unwrap();
    replica.now.mono = replica.now.mono.plus_ms(1_000_000);
    replica.partition.shrink_isr(replica.now, &mut replica.events);
    replica.assign(&Assignment { partition_epoch: 12, ..assignment(ME, 1, &[ME, OTHER]) });
    replica.partition.shrink_isr(replica.now, &mut replica.events);
    assert_eq!(asks(&mut replica), 1, "the third question is open");
}

#[test]
fn a_leader_without_a_log_lets_nobody_leave_the_isr() {
    let mut replica = leader(1);
    replica.produce(1, 1).unwrap();
    replica.partition.take_offline("the disk is gone", &mut replica.out, &mut replica.events);
    replica.events.clear();
    replica.now.mono = replica.now.mono.plus_ms(1_000_000);
    replica.partition.shrink_isr(replica.now, &mut replica.events);
    assert!(replica.events.is_empty(), "{:?}", replica.events);
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

#[test]
fn what_the_metadata_says_of_an_earlier_epoch_of_the_partition_is_old() {
    let mut replica = Replica::new(&assignment(ME, 1, &[ME]), 1);
    replica.other_fetches(0);
    let answer = |replica: &mut Replica, epoch, partition_epoch| {
        replica.isr_answered(epoch, 10, Ok(IsrAnswer { partition_epoch, isr: vec![ME, OTHER] }));
        replica.partition.in_sync().to_vec()
    };
    assert_eq!(answer(&mut replica, 0, 14), [ME], "an answer of an earlier leader epoch");
    assert_eq!(answer(&mut replica, 1, 9), [ME], "and of an earlier epoch of the partition");
    assert_eq!(answer(&mut replica, 1, 12), [ME, OTHER]);
    replica.assign(&Assignment { partition_epoch: 11, ..assignment(ME, 1, &[ME]) });
    assert_eq!(replica.partition.in_sync(), [ME, OTHER]);
    replica.assign(&Assignment { partition_epoch: 13, ..assignment(ME, 1, &[ME]) });
    assert_eq!(replica.partition.in_sync(), [ME]);
    assert_eq!(answer(&mut replica, 1, 14), [ME], "it has asked for nothing since");
    assert!(Replica::follower().partition.in_sync().is_empty());
}

#[test]
fn only_another_leader_epoch_begins_anew_with_what_is_committed() {
    let mut replica = leader(1);
    assert!(replica.partition.knows_what_is_committed());
    replica.produce(-1, 1).unwrap();
    replica.assign(&Assignment { partition_epoch: 11, ..assignment(ME, 1, &[ME, OTHER]) });
    assert!(replica.partition.knows_what_is_committed(), "the epoch goes on");
    replica.assign(&assignment(ME, 2, &[ME, OTHER]));
    assert!(!replica.partition.knows_what_is_committed());
    replica.other_fetches(1);
    assert!(replica.partition.knows_what_is_committed());
}

/// A log that is being cut for the follower that this replica was.
#[test]
fn the_epoch_of_a_leader_begins_where_its_log_ends_once_that_is_cut() {
    let mut replica = Replica::follower();
    replica.fetched(answer(0, &[batch(0, 1, 1), batch(1, 1, 1)]));
    replica.fetched(diverging(1, 1));
    replica.holds_syncs = true;
    assert!(replica.lowers());
    replica.assign(&assignment(ME, 2, &[ME, OTHER]));
    replica.release();
    assert_eq!(replica.offsets().2, 1);
    assert_eq!(replica.partition.end_offset_for_epoch(LeaderEpoch(2)), (LeaderEpoch(2), Offset(1)));
    assert_eq!(replica.partition.end_offset_for_epoch(LeaderEpoch(1)), (LeaderEpoch(1), Offset(1)));
}

#[test]
fn a_follower_that_does_not_catch_up_leaves_the_isr() {
    let mut replica = leader(1);
    replica.produce(1, 1).unwrap();
    let proposed = |replica: &mut Replica, ms: i64| {
        let now = Now { mono: replica.now.mono.plus_ms(ms), ..replica.now };
        replica.partition.shrink_isr(now, &mut replica.events);
        let last = replica.events.pop();
        last.and_then(|event| if let PartitionEvent::IsrProposed(it) = event { Some(it.isr) } else { None })
    };
    assert_eq!(proposed(&mut replica, 1_000), None);
    assert_eq!(proposed(&mut replica, 1_001), Some(vec![(ME, -1)]));
}

#[test]
fn a_follower_that_does_not_tell_its_epoch_may_join() {
    let mut replica = Replica::new(&assignment(ME, 1, &[ME]), 1);
    let fetch = FollowerFetch { node: OTHER, broker_epoch: -1, offset: Offset::ZERO, log_start: Offset::ZERO };
    replica.partition.follower_fetched(replica.now, &fetch, &AllThere, &mut replica.events).unwrap();
    let proposed = replica.events.iter().any(|event| matches!(event, PartitionEvent::IsrProposed(_)));
    assert!(proposed, "{:?}", replica.events);
}

#[test]
fn the_low_watermark_is_that_of_the_replica_whose_log_starts_first() {
    let mut replica = leader(1);
    assert_eq!(replica.partition.low_watermark(&AllThere), Some(Offset(-1)), "node 2 has not told");
    replica.other_fetches(0);
    assert_eq!(replica.partition.low_watermark(&AllThere), Some(Offset(0)));
    assert_eq!(Replica::follower().partition.low_watermark(&AllThere), None, "that is the leader's to say");
}

/// What is in the log of a partition's only replica is committed. Where there are others, they may lack it.
#[test]
fn a_start_knows_what_is_committed_from_the_checkpoint_unless_there_is_one_replica() {
    let three = || {
        let mut replica = leader(1);
        for id in 0..3 {
            replica.produce(1, id).unwrap();
        }
        replica
    };
    let alone = Assignment { replicas: vec![ME], ..assignment(ME, 2, &[ME]) };
    assert_eq!(three().restart(&alone, 1).offsets(), (0, 3, 3));
    let two = assignment(ME, 2, &[ME, OTHER]);
    assert_eq!(three().restart(&two, 1).offsets(), (0, 1, 3));
    assert_eq!(three().restart(&two, 9).offsets(), (0, 3, 3), "the log has lost what the checkpoint knows");
    assert_eq!(three().restart(&assignment(OTHER, 2, &[ME, OTHER]), 2).offsets(), (0, 2, 3));
}

#[test]
fn what_was_produced_here_is_counted_and_not_what_was_fetched() {
    let mut replica = leader(1);
    replica.produce(1, 1).unwrap();
    replica.assign(&assignment(OTHER, 2, &[ME, OTHER]));
    replica.fetched(answer(0, &[batch(1, 3, 2)]));
    replica.assign(&assignment(ME, 3, &[ME, OTHER]));
    replica.produce(1, 2).unwrap();
    assert_eq!(replica.partition.counters().messages_in, 2);
}

/// The size of a batch counts as it is in the log.
#[test]
fn a_batch_that_is_compressed_anew_may_be_as_large_as_any_then() {
    let zeros = |codec: Codec| {
        let mut batch = BatchBuilder::new().compressed(codec, codec.default_level());
        batch.push(1_000, None, Some(&[0; 20_000]), &[]);
        batch.build()
    };
    let mut replica = leader(1);
    let accepts = |replica: &mut Replica, codec: Codec, max_message_bytes: u64| {
        replica.partition.rules.compression = Some((codec, codec.default_level()));
        replica.partition.rules.batch.max_message_bytes = max_message_bytes;
        let accepted = replica.append(1, zeros(Codec::Lz4)).map(drop);
        replica.run();
        accepted
    };
    assert_eq!(accepts(&mut replica, Codec::None, 21_000), Ok(()));
    assert_eq!(accepts(&mut replica, Codec::None, 19_000), Err(ErrorCode::MessageTooLarge));
    assert_eq!(accepts(&mut replica, Codec::Zstd, 19_000), Ok(()));
}

#[test]
fn a_fetch_that_was_answered_waits_no_more_and_others_do() {
    let mut replica = leader(1);
    for (fetch, watched) in
        [(7, Watched::HighWatermark), (8, Watched::HighWatermark), (9, Watched::LogEnd), (10, Watched::LogEnd)]
    {
        replica.partition.watch(PendingId(fetch), watched);
    }
    [7, 9].into_iter().for_each(|fetch| replica.partition.unwatch(PendingId(fetch)));
    assert_eq!(replica.partition.watchers().collect::<Vec<_>>(), [PendingId(8), PendingId(10)]);
}
