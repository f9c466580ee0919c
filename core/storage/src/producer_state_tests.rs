//! Tests of the producer state by example, and against a model that keeps every batch.

use super::*;
use crate::producer_snapshot;
use proptest::prelude::*;
use tidelog_batch::BatchBuilder;

const PRODUCER: ProducerId = ProducerId(7);
const DAY_MS: i64 = 86_400_000;

fn records(epoch: i16, base_sequence: i32, count: i32) -> ProducerBatch {
    ProducerBatch {
        producer_id: PRODUCER,
        producer_epoch: epoch,
        base_sequence,
        last_offset_delta: count - 1,
        max_timestamp: 1_000,
        content: BatchContent::Records { transactional: false },
    }
}

fn transactional(producer: i64, epoch: i16, base_sequence: i32) -> ProducerBatch {
    ProducerBatch {
        producer_id: ProducerId(producer),
        content: BatchContent::Records { transactional: true },
        ..records(epoch, base_sequence, 1)
    }
}

fn marker(producer: i64, epoch: i16, coordinator_epoch: i32, transaction_version: i16) -> ProducerBatch {
    let marker = EndTransactionMarker { commit: false, coordinator_epoch, transaction_version };
    ProducerBatch {
        producer_id: ProducerId(producer),
        content: BatchContent::EndTransaction(marker),
        ..records(epoch, NO_SEQUENCE, 1)
    }
}

fn state() -> ProducerState {
    ProducerState::new(Offset(0), Plants::default())
}

/// When every batch of these tests is written.
const WRITTEN: WallMs = WallMs(500);

/// Applies a batch at the end of the log.
fn append(state: &mut ProducerState, batch: ProducerBatch) -> Option<CompletedTransaction> {
    let base_offset = state.end_offset();
    let completed = state.apply(&batch, base_offset, WRITTEN);
    state.advance(base_offset + i64::from(batch.last_offset_delta) + 1);
    state.verify();
    completed
}

fn client(state: &ProducerState, batch: ProducerBatch) -> Result<Verdict, ProducerError> {
    state.check(&batch, AppendOrigin::Client)
}

fn out_of_order(found: i32, expected: i32) -> Result<Verdict, ProducerError> {
    Err(ProducerError::OutOfOrderSequence { producer_id: PRODUCER, found, expected })
}

#[test]
fn the_last_five_batches_are_recognised_and_an_older_one_is_out_of_order() {
    let mut state = state();
    for place in 0..6 {
        assert_eq!(client(&state, records(0, place * 10, 10)), Ok(Verdict::Append));
        append(&mut state, records(0, place * 10, 10));
    }
    for place in 1..6i64 {
        let (base_offset, last_offset) = (Offset(place * 10), Offset(place * 10 + 9));
        let duplicate = Verdict::Duplicate { base_offset, last_offset, timestamp: 1_000 };
        assert_eq!(client(&state, records(0, place as i32 * 10, 10)), Ok(duplicate));
    }
    assert_eq!(client(&state, records(0, 0, 10)), out_of_order(0, 60));
    assert_eq!(client(&state, records(0, 50, 9)), out_of_order(50, 60), "a batch with fewer records is another batch");
    assert_eq!(client(&state, records(0, 61, 1)), out_of_order(61, 60));
    assert_eq!(client(&state, records(0, 60, 1)), Ok(Verdict::Append));
}

#[test]
fn an_unknown_producer_may_begin_with_any_sequence() {
    let mut state = state();
    assert_eq!(client(&state, records(3, 77, 5)), Ok(Verdict::Append));
    append(&mut state, records(3, 77, 5));
    assert_eq!(client(&state, records(3, 82, 1)), Ok(Verdict::Append));
}

#[test]
fn a_new_epoch_begins_with_sequence_0_and_an_old_one_is_fenced() {
    let mut state = state();
    append(&mut state, records(3, 0, 5));
    assert_eq!(client(&state, records(4, 5, 1)), out_of_order(5, 0));
    assert_eq!(client(&state, records(4, 0, 5)), Ok(Verdict::Append), "the same sequences in another epoch");
    append(&mut state, records(4, 0, 5));
    let fenced = ProducerError::InvalidEpoch { producer_id: PRODUCER, found: 3, current: 4 };
    assert_eq!(client(&state, records(3, 0, 5)), Err(fenced));
}

#[test]
fn after_the_greatest_int32_sequences_continue_with_0() {
    let mut state = state();
    let wrapping = records(0, i32::MAX - 1, 4);
    assert_eq!(wrapping.last_sequence(), 1);
    append(&mut state, wrapping);
    let duplicate = Verdict::Duplicate { base_offset: Offset(0), last_offset: Offset(3), timestamp: 1_000 };
    assert_eq!(client(&state, wrapping), Ok(duplicate));
    assert_eq!(client(&state, records(0, 2, 1)), Ok(Verdict::Append));
    append(&mut state, records(1, 0, 1));
    append(&mut state, records(1, i32::MAX, 1));
    assert_eq!(client(&state, records(1, 1, 1)), out_of_order(1, 0));
    assert_eq!(client(&state, records(1, 0, 2)), Ok(Verdict::Append));
}

#[test]
fn of_a_coordinators_batch_only_the_epoch_is_checked_and_of_a_leaders_nothing() {
    let mut state = state();
    append(&mut state, records(3, 0, 5));
    let unsequenced = records(3, NO_SEQUENCE, 1);
    assert_eq!(state.check(&unsequenced, AppendOrigin::Coordinator), Ok(Verdict::Append));
    append(&mut state, unsequenced);
    assert_eq!(state.check(&unsequenced, AppendOrigin::Coordinator), Ok(Verdict::Append), "never a duplicate");
    assert!(state.check(&records(2, 0, 1), AppendOrigin::Coordinator).is_err());
    assert_eq!(state.check(&records(2, 99, 1), AppendOrigin::Replication), Ok(Verdict::Append));
}

#[test]
fn a_duplicate_is_appended_if_that_bug_is_planted() {
    let plants = Plants::default();
    #[cfg(feature = "plants")]
    let plants = plants.with(Plant::DuplicateAppendedTwice);
    let mut state = ProducerState::new(Offset(0), plants);
    append(&mut state, records(0, 0, 5));
    let appended = client(&state, records(0, 0, 5)) == Ok(Verdict::Append);
    assert_eq!(appended, cfg!(feature = "plants"));
}

#[test]
fn an_open_transaction_holds_the_first_unstable_offset_until_its_marker_is_replicated() {
    let mut state = state();
    append(&mut state, transactional(1, 0, 0));
    append(&mut state, transactional(2, 0, 0));
    append(&mut state, transactional(1, 0, 1));
    assert_eq!(state.first_unstable_offset(), Some(Offset(0)));
    let completed = append(&mut state, marker(1, 0, 5, 0)).unwrap();
    let expected = CompletedTransaction {
        producer_id: ProducerId(1),
        first_offset: Offset(0),
        last_offset: Offset(3),
        aborted: true,
        last_stable_offset: Offset(1),
    };
    assert_eq!(completed, expected);
    assert_eq!(state.first_undecided_offset(), Some(Offset(1)));
    assert_eq!(state.first_unstable_offset(), Some(Offset(0)), "the marker is not replicated");
    state.advance_high_watermark(Offset(3));
    assert_eq!(state.first_unstable_offset(), Some(Offset(0)), "the marker is not below the high watermark");
    state.advance_high_watermark(Offset(4));
    assert_eq!(state.first_unstable_offset(), Some(Offset(1)));
    assert_eq!(append(&mut state, marker(2, 0, 5, 0)).unwrap().last_stable_offset, Offset(5));
    state.advance_high_watermark(Offset(5));
    assert_eq!(state.first_unstable_offset(), None);
}

#[test]
fn a_record_without_a_transaction_is_refused_while_a_transaction_is_open() {
    let mut state = state();
    append(&mut state, transactional(7, 0, 0));
    let refused = ProducerError::InvalidTransactionState { producer_id: PRODUCER };
    assert_eq!(client(&state, records(0, 1, 1)), Err(refused));
    assert_eq!(client(&state, transactional(7, 0, 1)), Ok(Verdict::Append));
    assert!(state.has_ongoing_transaction(PRODUCER, 0) && !state.has_ongoing_transaction(PRODUCER, 1));
}

#[test]
fn a_marker_with_an_older_coordinator_epoch_or_producer_epoch_is_refused() {
    let mut state = state();
    append(&mut state, transactional(7, 2, 0));
    append(&mut state, marker(7, 2, 5, 0));
    let refused = |batch| state.check(&batch, AppendOrigin::Coordinator).unwrap_err();
    let fenced = ProducerError::CoordinatorFenced { producer_id: PRODUCER, found: 4, current: 5 };
    assert_eq!(refused(marker(7, 2, 4, 0)), fenced);
    let stale = ProducerError::InvalidEpoch { producer_id: PRODUCER, found: 1, current: 2 };
    assert_eq!(refused(marker(7, 1, 5, 0)), stale);
    assert_eq!(state.check(&marker(7, 2, 5, 0), AppendOrigin::Coordinator), Ok(Verdict::Append));
}

#[test]
fn a_producer_without_a_marker_has_coordinator_epoch_minus_1_and_accepts_any() {
    let mut state = state();
    append(&mut state, transactional(7, 2, 0));
    assert_eq!(state.iter().next().unwrap().coordinator_epoch, -1);
    assert_eq!(state.check(&marker(7, 2, 0, 0), AppendOrigin::Coordinator), Ok(Verdict::Append));
}

#[test]
fn a_version_2_marker_needs_a_higher_epoch_unless_no_transaction_is_open() {
    let mut state = state();
    append(&mut state, transactional(7, 2, 0));
    let check = |state: &ProducerState, epoch| state.check(&marker(7, epoch, 5, 2), AppendOrigin::Coordinator);
    assert!(check(&state, 2).is_err());
    assert_eq!(check(&state, 3), Ok(Verdict::Append));
    append(&mut state, marker(7, 3, 5, 2));
    assert_eq!(check(&state, 3), Ok(Verdict::Append), "a retry");
    assert_eq!(
        client(&state, transactional(7, 3, 1)),
        out_of_order(1, 0),
        "sequences begin with 0 in the marker's epoch"
    );
    assert_eq!(client(&state, transactional(7, 3, 0)), Ok(Verdict::Append));
}

#[test]
fn a_producer_whose_records_have_no_timestamps_is_as_old_as_its_last_batch() {
    let mut state = state();
    append(&mut state, ProducerBatch { max_timestamp: -1, ..records(0, 0, 1) });
    assert_eq!(state.remove_expired(WallMs(WRITTEN.0 + DAY_MS - 1), DAY_MS), 0);
    assert_eq!(state.remove_expired(WallMs(WRITTEN.0 + DAY_MS), DAY_MS), 1);
}

#[test]
fn a_producer_that_sends_nothing_expires_unless_its_transaction_is_open() {
    let mut state = state();
    append(&mut state, records(0, 0, 1));
    append(&mut state, transactional(8, 0, 0));
    assert_eq!(state.len(), 2);
    assert_eq!(state.remove_expired(WallMs(1_000 + DAY_MS - 1), DAY_MS), 0);
    assert_eq!(state.remove_expired(WallMs(1_000 + DAY_MS), DAY_MS), 1);
    assert_eq!(state.iter().map(|known| known.producer_id).collect::<Vec<_>>(), [ProducerId(8)]);
    assert_eq!(client(&state, records(0, 9, 1)), Ok(Verdict::Append));
}

#[test]
fn a_snapshot_holds_only_the_last_batch_and_the_open_transaction() {
    let mut state = state();
    append(&mut state, records(0, 0, 2));
    append(&mut state, records(0, 2, 3));
    append(&mut state, transactional(8, 1, 0));
    let (offset, bytes) = state.take_snapshot().unwrap();
    assert_eq!((offset, state.take_snapshot()), (Offset(6), None));
    let read = |now| ProducerState::from_snapshot(offset, &bytes, WallMs(now), DAY_MS, Plants::default()).unwrap();
    let mut loaded = read(1_000);
    loaded.verify();
    assert!(loaded.iter().eq(state.iter()));
    assert_eq!((loaded.end_offset(), loaded.first_unstable_offset()), (Offset(6), Some(Offset(5))));
    assert_eq!(loaded.take_snapshot(), None, "the log has not grown");
    let duplicate = Verdict::Duplicate { base_offset: Offset(2), last_offset: Offset(4), timestamp: 1_000 };
    assert_eq!(client(&loaded, records(0, 2, 3)), Ok(duplicate));
    assert_eq!(client(&loaded, records(0, 0, 2)), out_of_order(0, 5), "all but the last batch are forgotten");
    assert_eq!(read(1_000 + DAY_MS).len(), 1, "the one with an open transaction");
}

#[test]
fn a_snapshot_is_due_only_after_the_log_has_grown() {
    let mut state = ProducerState::new(Offset(5), Plants::default());
    assert_eq!(state.take_snapshot(), None);
    state.advance(Offset(9));
    assert_eq!(state.take_snapshot().unwrap().0, Offset(9), "also after a batch without a producer id");
    state.advance_log_start(Offset(12));
    assert_eq!(state.end_offset(), Offset(12));
}

#[test]
fn the_content_of_a_batch_is_read_from_its_header_and_control_record() {
    let read = |bytes: &[u8], control: Option<&ControlRecord>| {
        ProducerBatch::new(&BatchHeader::parse(bytes).unwrap(), control)
    };
    let mut builder = BatchBuilder::new().producer(PRODUCER, 3, i32::MAX);
    let bytes = builder.push(5, None, Some(b"a"), &[]).push(4, None, Some(b"b"), &[]).build();
    let batch = read(&bytes, None);
    assert_eq!(batch, ProducerBatch { max_timestamp: 5, ..records(3, i32::MAX, 2) });
    assert_eq!(batch.last_sequence(), BatchHeader::parse(&bytes).unwrap().last_sequence());

    for commit in [false, true] {
        let record = ControlRecord::end_transaction(commit, 9);
        let bytes = record.transaction_marker(PRODUCER, 3, WallMs(1_000));
        let ends = EndTransactionMarker { commit, coordinator_epoch: 9, transaction_version: 0 };
        let content = BatchContent::EndTransaction(ends);
        assert_eq!(read(&bytes, Some(&record)), ProducerBatch { content, ..marker(7, 3, 9, 0) });
        assert_eq!(read(&bytes, None).content, BatchContent::Nothing, "compaction has removed the marker");
        let cut = ControlRecord { value: Bytes::from_static(b"\0\0\0"), ..record.clone() };
        let later = ControlRecord { kind: ControlType::Unknown(9), ..record };
        for unknown in [cut, later] {
            assert_eq!(read(&bytes, Some(&unknown)).content, BatchContent::Nothing, "{unknown:?}");
        }
    }
}

#[test]
fn each_refusal_has_kafkas_error_code() {
    let (producer_id, found, current) = (PRODUCER, 1, 2);
    let codes = [
        ProducerError::InvalidEpoch { producer_id, found: 1, current: 2 },
        ProducerError::OutOfOrderSequence { producer_id, found, expected: 2 },
        ProducerError::InvalidTransactionState { producer_id },
        ProducerError::CoordinatorFenced { producer_id, found, current },
    ]
    .map(|error| error.code().code());
    assert_eq!(codes, [47, 45, 48, 52]);
}

#[test]
fn a_batch_without_a_producer_is_not_remembered() {
    let mut state = state();
    for id in [-1, -5, i64::MIN] {
        let batch = ProducerBatch { producer_id: ProducerId(id), ..records(-1, -1, 3) };
        assert_eq!(client(&state, batch), Ok(Verdict::Append));
        append(&mut state, batch);
    }
    assert!(state.is_empty());
}

#[test]
fn a_producer_with_one_batch_takes_little_memory() {
    assert!(size_of::<(ProducerId, Producer)>() <= 80, "{}", size_of::<(ProducerId, Producer)>());
}

#[test]
fn a_snapshot_whose_entries_contradict_each_other_is_refused() {
    let mut state = state();
    append(&mut state, transactional(7, 0, 0));
    append(&mut state, transactional(8, 0, 0));
    let good = decode_snapshot(&state.encode()).unwrap();
    let first_offset = good[0].current_transaction_first_offset;
    let same_offset = SnapshotEntry { current_transaction_first_offset: first_offset, ..good[1] };
    let same_producer = SnapshotEntry { producer_id: good[0].producer_id, ..good[1] };
    for entry in [same_offset, same_producer] {
        let bytes = encode_snapshot([good[0], entry].into_iter());
        let read = ProducerState::from_snapshot(Offset(9), &bytes, WallMs(0), DAY_MS, Plants::default());
        assert_eq!(read.unwrap_err(), SnapshotError::Entry { place: 1, entry });
    }
}

/// One append, as the model keeps it.
#[derive(Clone, Copy)]
struct Past {
    batch: ProducerBatch,
    base_offset: Offset,
}

/// Decides by looking at all batches that were appended before.
fn naive_verdict(past: &[Past], batch: &ProducerBatch) -> Result<Verdict, ()> {
    let mine: Vec<&Past> = past.iter().filter(|past| past.batch.producer_id == batch.producer_id).collect();
    let Some(newest) = mine.last() else { return Ok(Verdict::Append) };
    let epoch = newest.batch.producer_epoch;
    let of_epoch: Vec<&&Past> = mine.iter().rev().take_while(|past| past.batch.producer_epoch == epoch).collect();
    for past in of_epoch.iter().take(5) {
        let known = past.batch;
        if (known.producer_epoch, known.base_sequence, known.last_offset_delta)
            == (batch.producer_epoch, batch.base_sequence, batch.last_offset_delta)
        {
            let last_offset = past.base_offset + i64::from(known.last_offset_delta);
            return Ok(Verdict::Duplicate {
                base_offset: past.base_offset,
                last_offset,
                timestamp: known.max_timestamp,
            });
        }
    }
    let expected = match batch.producer_epoch.cmp(&epoch) {
        std::cmp::Ordering::Less => return Err(()),
        std::cmp::Ordering::Equal => (i64::from(newest.batch.last_sequence()) + 1) % (1 << 31),
        std::cmp::Ordering::Greater => 0,
    };
    if i64::from(batch.base_sequence) == expected { Ok(Verdict::Append) } else { Err(()) }
}

fn near(sequence: i32, step: i32) -> i32 {
    add_to_sequence(sequence, step)
}

proptest! {
    /// Producers that retry, skip, restart with new epochs and cross the end of the sequences.
    #[test]
    fn the_state_decides_like_a_model_that_keeps_every_batch(
        start in prop_oneof![Just(0), Just(i32::MAX - 6)],
        steps in proptest::collection::vec((1i64..3, 0i16..3, -8i32..3, 1i32..4, 0i64..9), 1..60),
    ) {
        let mut state = state();
        let mut past: Vec<Past> = Vec::new();
        for (producer, epoch, step, count, timestamp) in steps {
            let producer_id = ProducerId(producer);
            let newest = past.iter().rev().find(|past| past.batch.producer_id == producer_id);
            let next = newest.map_or(start, |past| near(past.batch.last_sequence(), 1));
            let base_sequence = if newest.is_some_and(|past| past.batch.producer_epoch != epoch) { step.max(0) } else { near(next, step.min(1)) };
            let batch = ProducerBatch { producer_id, max_timestamp: timestamp, ..records(epoch, base_sequence, count) };
            let verdict = client(&state, batch);
            prop_assert_eq!(verdict.clone().map_err(|_| ()), naive_verdict(&past, &batch));
            if verdict == Ok(Verdict::Append) {
                past.push(Past { batch, base_offset: state.end_offset() });
                append(&mut state, batch);
            }
        }
    }

    /// Any order of records and markers, as another broker's log may hold.
    #[test]
    fn the_first_unstable_offset_is_the_oldest_open_or_unreplicated_transaction(
        steps in proptest::collection::vec((0i64..4, 0u8..3, 0i64..3), 1..60),
    ) {
        let mut state = state();
        let mut open: BTreeMap<i64, Offset> = BTreeMap::new();
        let mut ended: Vec<(Offset, Offset)> = Vec::new();
        let mut high_watermark = Offset(0);
        for (producer, kind, lag) in steps {
            let at = state.end_offset();
            let completed = match kind {
                0 | 1 => {
                    open.entry(producer).or_insert(at);
                    append(&mut state, transactional(producer, 0, 0))
                }
                _ => append(&mut state, marker(producer, 0, 0, 0)),
            };
            let expected = if kind == 2 { open.remove(&producer) } else { None };
            prop_assert_eq!(completed.map(|done| done.first_offset), expected);
            if let Some(done) = completed {
                prop_assert_eq!(done.last_stable_offset, open.values().min().copied().unwrap_or(at + 1));
                ended.push((done.first_offset, done.last_offset));
            }
            high_watermark = high_watermark.max(state.end_offset() + -lag);
            state.advance_high_watermark(high_watermark);
            let unreplicated = ended.iter().filter(|(_, marker)| *marker >= high_watermark).map(|(first, _)| *first);
            prop_assert_eq!(state.first_unstable_offset(), open.values().copied().chain(unreplicated).min());
        }
    }

    #[test]
    fn a_loaded_state_has_the_entries_of_the_snapshot(entries in producer_snapshot::tests::entries()) {
        let bytes = encode_snapshot(entries.into_iter());
        let state = ProducerState::from_snapshot(Offset(9), &bytes, WallMs(0), i64::MAX, Plants::default()).unwrap();
        prop_assert_eq!(state.encode(), bytes);
    }

    /// Batches with any content, as another broker's log may hold. A batch that was appended is recognised.
    #[test]
    fn wild_batches_never_panic(
        batches in proptest::collection::vec((0i64..3, any::<i16>(), any::<i32>(), 0i32.., any::<i64>(), any::<bool>()), 0..20),
    ) {
        let mut state = state();
        for (producer, producer_epoch, base_sequence, last_offset_delta, max_timestamp, transactional) in batches {
            let batch = ProducerBatch {
                producer_id: ProducerId(producer),
                producer_epoch,
                base_sequence,
                last_offset_delta,
                max_timestamp,
                content: BatchContent::Records { transactional },
            };
            let _ = client(&state, batch);
            append(&mut state, batch);
            if base_sequence >= 0 {
                let known = matches!(client(&state, batch), Ok(Verdict::Duplicate { .. }));
                prop_assert!(known, "{:?}", batch);
            }
            state.remove_expired(WallMs(i64::MAX), 0);
        }
    }
}
