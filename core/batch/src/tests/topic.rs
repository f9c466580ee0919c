//! The rules of a topic, applied to the facts that the check has collected.

use super::super::*;
use super::produced;
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::{LeaderEpoch, Offset};
use tidelog_wire::time::WallMs;

const NOW: WallMs = WallMs(1_700_000_000_000);

fn batch(timestamps: &[i64]) -> CheckedBatch {
    let mut builder = BatchBuilder::new();
    for &timestamp in timestamps {
        builder.push(timestamp, Some(b"key"), Some(b"value"), &[]);
    }
    check_produced(builder.build(), &BatchLimits::default()).unwrap()
}

fn refused(batch: &CheckedBatch, rules: &TopicBatchRules) -> (ErrorCode, Vec<i32>) {
    let error = batch.fits_topic(rules, NOW).unwrap_err();
    (error.error_code(), error.record_errors().iter().map(|record| record.batch_index).collect())
}

#[test]
fn timestamps_are_held_within_the_topics_range_to_the_millisecond() {
    let rules =
        TopicBatchRules { timestamp_before_max_ms: 1_000, timestamp_after_max_ms: 50, ..TopicBatchRules::default() };
    let now = NOW.0;
    assert_eq!(batch(&[now - 1_000, now, now + 50]).fits_topic(&rules, NOW), Ok(()));
    assert_eq!(refused(&batch(&[now, now - 1_001, now]), &rules), (ErrorCode::InvalidTimestamp, vec![1]));
    assert_eq!(refused(&batch(&[now, now, now + 51]), &rules), (ErrorCode::InvalidTimestamp, vec![2]));
    assert_eq!(refused(&batch(&[now + 51, now, 0]), &rules), (ErrorCode::InvalidTimestamp, vec![0, 2]));
    assert_eq!(refused(&batch(&[now + 51]), &rules), (ErrorCode::InvalidTimestamp, vec![0]));
    insta::assert_snapshot!(batch(&[0]).fits_topic(&rules, NOW).unwrap_err().record_errors()[0].message);
}

#[test]
fn a_record_without_a_timestamp_is_always_in_time() {
    let rules = TopicBatchRules { timestamp_before_max_ms: 0, timestamp_after_max_ms: 0, ..TopicBatchRules::default() };
    assert_eq!(batch(&[NO_TIMESTAMP, NOW.0, NO_TIMESTAMP]).fits_topic(&rules, NOW), Ok(()));
    assert_eq!(refused(&batch(&[NO_TIMESTAMP, 5]), &rules).1, [1]);
}

#[test]
fn of_records_with_one_timestamp_the_first_is_remembered() {
    let places = |timestamps: &[i64]| {
        let checked = batch(timestamps);
        (checked.facts().min_timestamp_delta, checked.facts().max_timestamp_delta)
    };
    assert_eq!(places(&[7, 5, 9, 9, 5]), (1, 2));
    assert_eq!(places(&[NO_TIMESTAMP, 5, 5]), (1, 1));
    assert_eq!(places(&[NO_TIMESTAMP, NO_TIMESTAMP]), (0, 0));
}

#[test]
fn the_producers_timestamps_do_not_matter_where_the_broker_sets_them() {
    let rules = TopicBatchRules {
        timestamp_type: TimestampType::LogAppendTime,
        timestamp_before_max_ms: 0,
        timestamp_after_max_ms: 0,
        ..TopicBatchRules::default()
    };
    assert_eq!(batch(&[0, i64::MAX]).fits_topic(&rules, NOW), Ok(()));
}

#[test]
fn extreme_ranges_and_timestamps_do_not_overflow() {
    for range in [0, i64::MAX] {
        let rules = TopicBatchRules {
            timestamp_before_max_ms: range,
            timestamp_after_max_ms: range,
            ..TopicBatchRules::default()
        };
        for timestamp in [i64::MIN, -2, 0, i64::MAX] {
            for now in [i64::MIN, -1, 0, i64::MAX] {
                let within = timestamp == now
                    || (range == i64::MAX
                        && now.checked_sub(timestamp).is_some()
                        && now.checked_sub(timestamp) != Some(i64::MIN));
                assert_eq!(batch(&[timestamp]).fits_topic(&rules, WallMs(now)).is_ok(), within, "{timestamp} {now}");
            }
        }
    }
}

#[test]
fn a_compacted_topic_names_every_record_without_a_key() {
    let rules = TopicBatchRules { compacted: true, timestamp_after_max_ms: i64::MAX, ..TopicBatchRules::default() };
    let checked = check_produced(produced(Codec::Gzip, 30), &BatchLimits::default()).unwrap();
    let keyless = vec![1, 4, 7, 10, 13, 16, 19, 22, 25, 28];
    assert_eq!(refused(&checked, &rules), (ErrorCode::InvalidRecord, keyless.clone()));
    assert_eq!(checked.fits_topic(&TopicBatchRules { compacted: false, ..rules }, NOW), Ok(()));
    // A timestamp out of range decides the error code, and all records are named.
    let late = TopicBatchRules { timestamp_after_max_ms: 27, ..rules };
    assert_eq!(refused(&checked, &late), (ErrorCode::InvalidTimestamp, [keyless, vec![29]].concat()));
}

#[test]
fn a_batch_above_max_message_bytes_is_refused_whatever_else_is_wrong() {
    let checked = batch(&[i64::MAX]);
    let rules = |max_message_bytes| TopicBatchRules { max_message_bytes, ..TopicBatchRules::default() };
    let size = checked.size_bytes() as u64;
    assert_eq!(checked.fits_topic(&rules(size - 1), NOW), Err(BatchError::TooLarge { size, limit: size - 1 }));
    assert_eq!(refused(&checked, &rules(size)).0, ErrorCode::InvalidTimestamp);
}

#[test]
fn every_record_with_a_timestamp_out_of_range_is_named() {
    let rules = TopicBatchRules { timestamp_before_max_ms: 10, ..TopicBatchRules::default() };
    let checked = batch(&[NOW.0, 5, NOW.0, 7, NO_TIMESTAMP, 6]);
    assert_eq!(refused(&checked, &rules), (ErrorCode::InvalidTimestamp, vec![1, 3, 5]));
}

/// A batch whose producer has set the bit of `LogAppendTime`, and this max timestamp.
fn claiming_append_time(max_timestamp: i64) -> CheckedBatch {
    let plain = batch(&[NOW.0, NOW.0 + 1]);
    let sealed = super::sealed(&plain.bytes()[BatchHeader::LEN..], |header| {
        *header = *plain.header();
        header.set_timestamp_type(TimestampType::LogAppendTime);
        header.max_timestamp = max_timestamp;
    });
    check_produced(sealed, &BatchLimits::default()).unwrap()
}

#[test]
fn a_producers_append_time_bit_is_cleared_where_the_topic_keeps_timestamps() {
    let rules = TopicBatchRules { timestamp_before_max_ms: 1_000, ..TopicBatchRules::default() };
    let checked = claiming_append_time(NOW.0);
    assert_eq!(checked.fits_topic(&rules, NOW), Ok(()));
    let header = checked.assigned_header(Offset(0), LeaderEpoch(0), None);
    assert_eq!((header.timestamp_type(), header.max_timestamp), (TimestampType::CreateTime, NOW.0 + 1));
    let appended = checked.with_header(&header).concat();
    assert!(verify_checksum(&appended).is_ok());
    // No timestamp, one out of range, and a topic whose timestamps the broker sets.
    for max_timestamp in [NO_TIMESTAMP, NOW.0 - 1_001] {
        let refused = refused(&claiming_append_time(max_timestamp), &rules);
        assert_eq!(refused, (ErrorCode::InvalidTimestamp, vec![0, 1]));
    }
    let appends = TopicBatchRules { timestamp_type: TimestampType::LogAppendTime, ..rules };
    assert_eq!(refused(&checked, &appends), (ErrorCode::InvalidTimestamp, vec![0, 1]));
}
