//! What a leader answers for one partition: batches as they stand in its log.

use super::super::*;
use super::sealed;
use bytes::Bytes;
use tidelog_wire::ids::Offset;

/// A batch from `offset` on, of one record with this timestamp.
fn batch(offset: i64, timestamp: i64) -> Bytes {
    let whole = BatchBuilder::new().push(timestamp, None, Some(b"value"), &[]).build();
    let mut header = BatchHeader::parse(&whole).unwrap();
    header.base_offset = Offset(offset);
    [&header.encode()[..], &whole[BatchHeader::LEN..]].concat().into()
}

/// The base offsets of the batches, and the text of the refusal of what follows them.
fn verdicts(bytes: &[&[u8]]) -> (Vec<i64>, Option<String>) {
    let verdicts = check_replicated(&bytes.concat().into());
    let errors = verdicts.iter().filter(|verdict| verdict.is_err()).count();
    assert!(errors == 0 || (errors == 1 && verdicts.last().unwrap().is_err()), "behind damage nothing is read");
    let offsets = verdicts.iter().flatten().map(|batch| batch.header().base_offset.0).collect();
    (offsets, verdicts.into_iter().find_map(|verdict| verdict.err().map(|error| error.to_string())))
}

#[test]
fn batches_are_taken_as_they_are_and_the_last_may_be_cut_anywhere() {
    let (first, second) = (batch(7, 1_000), batch(9, 2_000));
    assert_eq!(verdicts(&[]), (vec![], None));
    assert_eq!(verdicts(&[&first, &second]), (vec![7, 9], None));
    for cut in 0..second.len() {
        assert_eq!(verdicts(&[&first, &second[..cut]]), (vec![7], None), "{cut}");
    }
    let taken = check_replicated(&first)[0].clone().unwrap();
    assert_eq!((taken.bytes(), taken.facts().max_timestamp, taken.facts().min_timestamp), (&first, 1_000, 1_000));
}

#[test]
fn behind_damage_nothing_is_read() {
    let (first, second, third) = (batch(7, 1_000), batch(8, 2_000), batch(9, 3_000));
    let mut damaged = second.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let (taken, why) = verdicts(&[&first, &damaged, &third]);
    assert_eq!(taken, [7]);
    assert!(why.unwrap().starts_with("the batch is corrupt: its checksum is "));
    let (taken, why) = verdicts(&[&first, &[0; 100]]);
    assert_eq!((taken, why.as_deref()), (vec![7], Some("the batch claims a size of 12 bytes, and the least is 61")));
    let unknown = sealed(b"", |header| header.attributes = 7);
    assert_eq!(verdicts(&[&unknown]), (vec![], Some("compression codec 7 does not exist".into())));
}

#[test]
fn of_a_compacted_batch_records_may_be_missing() {
    let compacted = sealed(b"", |header| (header.records_count, header.last_offset_delta) = (0, 5));
    let taken = check_replicated(&compacted)[0].clone().unwrap();
    assert_eq!((taken.records_count(), taken.facts().max_timestamp_delta), (0, 5));
}
