use super::*;

#[test]
fn a_follower_takes_the_leaders_batches_as_they_are() {
    let mut replica = Replica::follower();
    assert_eq!((replica.position().offset, replica.position().last_epoch), (Offset::ZERO, LeaderEpoch::UNKNOWN));
    assert_eq!(replica.fetched(answer(2, &[batch(0, 3, 0), batch(3, 2, 1)])), Taken::Used);
    assert_eq!(replica.offsets(), (0, 2, 5));
    assert_eq!((replica.position().offset, replica.position().last_epoch), (Offset(5), LeaderEpoch(1)));
    assert_eq!(replica.fetched(answer(900, &[])), Taken::Used);
    assert_eq!(replica.offsets(), (0, 5, 5), "what it has not cannot be committed here");
}

#[test]
fn nothing_is_fetched_before_what_was_fetched_is_stable() {
    let mut replica = Replica::follower();
    replica.holds_syncs = true;
    replica.fetched(answer(0, &[batch(0, 1, 1)]));
    assert_eq!(replica.partition.fetch_position(), None, "the next fetch would tell the leader that it is");
    replica.release();
    assert_eq!(replica.position().offset, Offset(1));
}

#[test]
fn an_answer_to_an_earlier_question_is_left_alone() {
    let mut replica = Replica::follower();
    let asked = replica.position();
    replica.fetched(answer(0, &[batch(0, 1, 1)]));
    let stale = answer(1, &[batch(0, 1, 1)]);
    assert_eq!(
        replica.partition.fetched(replica.now, &asked, stale, &mut replica.out, &mut replica.events),
        Taken::Stale
    );
    replica.assign(&assignment(NodeId(3), 2, &[ME, NodeId(3)]));
    let asked = FetchPosition { leader_epoch: LeaderEpoch(1), ..replica.position() };
    let stale = answer(1, &[batch(1, 1, 1)]);
    assert_eq!(
        replica.partition.fetched(replica.now, &asked, stale, &mut replica.out, &mut replica.events),
        Taken::Stale
    );
    assert_eq!(replica.offsets(), (0, 0, 1));
}

#[test]
fn a_log_is_cut_where_it_parts_from_the_leaders_and_nothing_else_of_the_answer_counts() {
    let mut replica = Replica::follower();
    replica.fetched(answer(2, &[batch(0, 3, 0), batch(3, 2, 1)]));
    replica.assign(&assignment(OTHER, 3, &[ME, OTHER]));
    // KAFKA-14704
    assert_eq!(replica.fetched(diverging(1, 4)), Taken::Used);
    assert_eq!(replica.partition.fetch_position(), None);
    assert_eq!(replica.partition.recovery_point(), Offset(4), "the checkpoint is written first");
    assert!(replica.lowers());
    // Batches are cut as a whole.
    assert_eq!(replica.offsets(), (0, 2, 3));
    assert_eq!((replica.position().offset, replica.position().last_epoch), (Offset(3), LeaderEpoch(0)));
    assert_eq!(replica.fetched(answer(3, &[batch(3, 1, 2)])), Taken::Used);
    assert_eq!(replica.offsets(), (0, 3, 4));
}

#[test]
fn a_log_with_an_epoch_that_the_leader_has_not_is_cut_where_its_own_next_lower_one_ends() {
    let mut replica = Replica::follower();
    replica.assign(&assignment(OTHER, 5, &[ME, OTHER]));
    replica.fetched(answer(0, &[batch(0, 2, 1), batch(2, 2, 2), batch(4, 1, 4), batch(5, 1, 4)]));
    // The leader has epoch 3 up to 5: this log, with nothing of epoch 3, ends its epoch 2 at 4.
    replica.fetched(diverging(3, 5));
    assert!(replica.lowers());
    assert_eq!(replica.offsets().2, 4);
    replica.fetched(diverging(1, 2));
    assert!(replica.lowers());
    assert_eq!((replica.offsets().2, replica.position().last_epoch), (2, LeaderEpoch(1)));
}

#[test]
fn an_epoch_in_which_this_replica_led_and_wrote_nothing_is_forgotten_when_the_leader_has_not_got_it() {
    let mut replica = Replica::follower();
    replica.fetched(answer(2, &[batch(0, 2, 1)]));
    replica.assign(&assignment(ME, 2, &[ME, OTHER]));
    replica.assign(&assignment(OTHER, 3, &[ME, OTHER]));
    assert_eq!(replica.position().last_epoch, LeaderEpoch(2));
    assert_eq!(replica.fetched(diverging(1, 2)), Taken::Used);
    assert_eq!((replica.position().offset, replica.position().last_epoch), (Offset(2), LeaderEpoch(1)));
    assert_eq!(replica.fetched(answer(3, &[batch(2, 1, 3)])), Taken::Used);
    assert_eq!(replica.offsets().2, 3);
}

#[test]
fn a_leader_that_contradicts_itself_is_refused_and_nothing_is_cut() {
    let mut replica = Replica::follower();
    replica.fetched(answer(0, &[batch(0, 2, 1)]));
    let taken = replica.fetched(diverging(1, 7));
    assert!(matches!(&taken, Taken::Refused(why) if why.contains("ends at 7")), "{taken:?}");
    assert_eq!(replica.offsets(), (0, 0, 2));
}

#[test]
fn what_lies_behind_a_damaged_batch_is_not_taken() {
    let mut replica = Replica::follower();
    let mut damaged = batch(1, 1, 1).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let taken = replica.fetched(answer(3, &[batch(0, 1, 1), damaged.into(), batch(2, 1, 1)]));
    assert!(matches!(&taken, Taken::Refused(why) if why.contains("damaged")), "{taken:?}");
    assert_eq!(replica.offsets(), (0, 1, 1));
    let taken = replica.fetched(answer(3, &[batch(2, 1, 1)]));
    assert!(matches!(&taken, Taken::Refused(why) if why.contains("at offset 2")), "{taken:?}");
}

#[test]
fn batches_of_a_later_epoch_than_was_asked_in_wait() {
    // KAFKA-18723
    let mut replica = Replica::follower();
    assert_eq!(replica.fetched(answer(2, &[batch(0, 1, 1), batch(1, 1, 2)])), Taken::Used);
    assert_eq!(replica.offsets(), (0, 1, 1));
}

#[test]
fn a_new_leader_cuts_nothing_that_it_was_about_to_cut_as_a_follower() {
    let mut replica = Replica::follower();
    replica.fetched(answer(0, &[batch(0, 2, 1)]));
    replica.fetched(diverging(0, 0));
    replica.assign(&assignment(ME, 2, &[ME]));
    assert!(replica.lowers());
    assert_eq!(replica.offsets(), (0, 2, 2));
    assert_eq!(replica.partition.recovery_point(), Offset(2));
}

#[test]
fn a_log_that_is_behind_the_leaders_start_begins_again_there() {
    let mut replica = Replica::follower();
    replica.fetched(answer(1, &[batch(0, 2, 1)]));
    let position = replica.position();
    replica.partition.out_of_range(&position, Offset(10), Offset(20), &mut replica.out, &mut replica.events);
    assert!(replica.lowers());
    assert_eq!(replica.offsets(), (10, 10, 10));
    assert_eq!(replica.position().last_epoch, LeaderEpoch::UNKNOWN);
}

#[test]
fn a_log_that_is_ahead_of_the_leaders_end_is_cut_there() {
    let mut replica = Replica::follower();
    replica.fetched(answer(1, &[batch(0, 2, 1), batch(2, 2, 1)]));
    let position = replica.position();
    replica.partition.out_of_range(&position, Offset::ZERO, Offset(2), &mut replica.out, &mut replica.events);
    assert!(replica.lowers());
    assert_eq!(replica.offsets(), (0, 1, 2));
}

#[test]
fn an_empty_log_takes_a_batch_in_the_middle_of_which_the_leaders_log_starts() {
    // KAFKA-6975
    let mut replica = Replica::follower();
    let position = replica.position();
    replica.partition.out_of_range(&position, Offset(12), Offset(20), &mut replica.out, &mut replica.events);
    assert!(replica.lowers());
    let fetched = Fetched { log_start: Offset(12), ..answer(15, &[batch(10, 5, 1), batch(15, 1, 1)]) };
    assert_eq!(replica.fetched(fetched), Taken::Used);
    assert!(replica.lowers());
    assert_eq!(replica.offsets(), (12, 15, 16));
}

#[test]
fn the_log_starts_where_the_leaders_does() {
    let mut replica = Replica::follower();
    replica.fetched(Fetched { log_start: Offset(2), ..answer(3, &[batch(0, 2, 1), batch(2, 2, 1)]) });
    assert_eq!(replica.offsets(), (2, 3, 4));
}

#[test]
fn a_reader_that_waits_at_a_follower_is_woken_when_it_may_read_more() {
    // KAFKA-14334
    let mut replica = Replica::follower();
    replica.partition.watch(PendingId(5), Watched::HighWatermark);
    let woken = |replica: &mut Replica| {
        let count = replica.events.iter().filter(|event| matches!(event, PartitionEvent::FetchAgain(_))).count();
        replica.events.clear();
        count
    };
    replica.fetched(answer(0, &[batch(0, 2, 1)]));
    assert_eq!(woken(&mut replica), 0);
    replica.fetched(answer(2, &[]));
    assert_eq!(woken(&mut replica), 1);
}

#[test]
fn a_log_that_ends_or_starts_where_the_leaders_does_stays_as_it_is() {
    let mut replica = Replica::follower();
    replica.fetched(answer(1, &[batch(0, 2, 1)]));
    for (start, end) in [(0, 2), (2, 9)] {
        let position = replica.position();
        replica.partition.out_of_range(&position, Offset(start), Offset(end), &mut replica.out, &mut replica.events);
        assert!(!replica.lowers(), "{start} to {end}");
    }
    assert_eq!(replica.offsets(), (0, 1, 2));
}

#[test]
fn a_log_is_cut_down_to_its_start_and_begins_again_below_it() {
    let ends_at = |end: i64| {
        let mut replica = Replica::follower();
        replica.fetched(Fetched { log_start: Offset(2), ..answer(3, &[batch(0, 2, 1), batch(2, 2, 1)]) });
        let position = replica.position();
        replica.partition.out_of_range(&position, Offset::ZERO, Offset(end), &mut replica.out, &mut replica.events);
        let point = replica.partition.recovery_point();
        assert!(replica.lowers());
        (point.0, replica.offsets())
    };
    assert_eq!(ends_at(2), (2, (2, 2, 2)));
    assert_eq!(ends_at(1), (0, (1, 1, 1)), "all goes, and with it what the checkpoint says");
}

#[test]
fn the_operator_is_warned_where_committed_records_are_cut() {
    let cut_at = |end: i64| {
        let mut replica = Replica::follower();
        replica.fetched(answer(2, &[batch(0, 1, 1), batch(1, 1, 1), batch(2, 1, 1)]));
        replica.told.clear();
        replica.fetched(diverging(1, end));
        replica.told
    };
    assert_eq!((cut_at(2), cut_at(1)), (vec![Level::Info], vec![Level::Warn]));
}

#[test]
fn a_log_that_fails_while_the_checkpoint_is_written_is_not_cut() {
    let mut replica = Replica::follower();
    replica.fetched(answer(0, &[batch(0, 2, 1)]));
    replica.fetched(diverging(1, 1));
    replica.partition.take_offline("the disk is gone", &mut replica.out, &mut replica.events);
    assert!(replica.lowers());
    assert_eq!(replica.partition.check_leader(LeaderEpoch::UNKNOWN), Err(ErrorCode::KafkaStorageError));
}

/// The metadata may say something else of the partition meanwhile. Only another leader epoch makes the answer old.
#[test]
fn a_cut_outlives_a_change_of_the_partition_in_the_same_leader_epoch() {
    let mut replica = Replica::follower();
    replica.fetched(answer(0, &[batch(0, 1, 1), batch(1, 1, 1)]));
    replica.fetched(diverging(1, 1));
    replica.assign(&Assignment { partition_epoch: 11, ..assignment(OTHER, 1, &[OTHER]) });
    assert!(replica.lowers());
    assert_eq!(replica.offsets().2, 1);
    replica.fetched(answer(0, &[batch(1, 1, 1)]));
    replica.fetched(diverging(1, 1));
    replica.assign(&assignment(OTHER, 2, &[OTHER]));
    assert!(replica.lowers());
    assert_eq!(replica.offsets().2, 2);
}

#[test]
fn a_follower_follows_whoever_leads_whatever_the_epoch_of_the_partition_is() {
    let mut replica = Replica::follower();
    replica.assign(&Assignment { partition_epoch: 0, ..assignment(NodeId(3), 2, &[NodeId(3)]) });
    assert_eq!(replica.partition.follows(), Some(NodeId(3)));
    replica.assign(&assignment(OTHER, 1, &[OTHER]));
    assert_eq!(replica.partition.follows(), Some(NodeId(3)), "that is an earlier epoch");
}
