//! Round trips: batches against the codec of `kafka-protocol`, in both directions, and through all steps from a
//! producer to a reader.

use super::super::*;
use super::produced;
use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as second;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tidelog_wire::ids::{LeaderEpoch, Offset, ProducerId};
use tidelog_wire::time::WallMs;

/// A record as a test makes it.
#[derive(Clone, Debug)]
struct Made {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn bytes(len_max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..20),
        (any::<u8>(), 0..len_max).prop_map(|(byte, len)| std::iter::repeat_n(byte, len).collect()),
    ]
}

fn made() -> impl Strategy<Value = Made> {
    let header = (".{0,8}", option::of(bytes(40)));
    let timestamp = prop_oneof![9 => 1_600_000_000_000i64..1_800_000_000_000, 1 => Just(NO_TIMESTAMP)];
    (timestamp, option::of(bytes(300)), option::of(bytes(100_000)), vec(header, 0..4))
        .prop_map(|(timestamp, key, value, headers)| Made { timestamp, key, value, headers })
}

fn codec() -> impl Strategy<Value = Codec> {
    proptest::sample::select(&Codec::ALL[..])
}

fn build(made: &[Made], mut builder: BatchBuilder) -> Bytes {
    for record in made {
        let headers: Vec<_> = record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        builder.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
    }
    builder.build()
}

fn read(batch: &Bytes) -> Vec<Record> {
    records(batch, &BatchLimits::default()).unwrap().collect::<Result<_, _>>().unwrap()
}

fn assert_same(read: &[Record], made: &[Made], base: i64) {
    assert_eq!(read.len(), made.len());
    for (index, (read, made)) in read.iter().zip(made).enumerate() {
        assert_eq!(read.offset, Offset(base + index as i64));
        assert_eq!(read.timestamp, made.timestamp);
        assert_eq!(read.key.as_deref(), made.key.as_deref());
        assert_eq!(read.value.as_deref(), made.value.as_deref());
        let headers = read.headers.iter().map(|h| (h.key.to_string(), h.value.as_ref().map(|v| v.to_vec())));
        assert_eq!(headers.collect::<Vec<_>>(), made.headers);
    }
}

fn joined(chunks: &[Bytes]) -> Bytes {
    chunks.concat().into()
}

fn second_codec(codec: Codec) -> second::Compression {
    match codec {
        Codec::None => second::Compression::None,
        Codec::Gzip => second::Compression::Gzip,
        Codec::Snappy => second::Compression::Snappy,
        Codec::Lz4 => second::Compression::Lz4,
        Codec::Zstd => second::Compression::Zstd,
    }
}

/// The second codec keeps one header of each name.
fn without_duplicate_headers(made: &mut [Made]) {
    for record in made {
        record.headers.sort();
        record.headers.dedup_by(|a, b| a.0 == b.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_survive_the_way_from_a_producer_through_a_log_to_a_reader(
        made in vec(made(), 1..30), codec in codec(), base in 0i64..i64::MAX / 2, epoch in 0i32..,
    ) {
        let batch = build(&made, BatchBuilder::new().compressed(codec, codec.default_level()));
        let checked = check_produced(batch.clone(), &BatchLimits::default()).unwrap();
        let max = made.iter().map(|record| record.timestamp).max().unwrap();
        prop_assert_eq!(checked.header().max_timestamp, max);
        let first_max = made.iter().position(|record| record.timestamp == max).unwrap();
        prop_assert!(max == NO_TIMESTAMP || checked.facts().max_timestamp_delta as usize == first_max);
        prop_assert_eq!(checked.has_record_without_key(), made.iter().any(|record| record.key.is_none()));

        let log = joined(&checked.assign(Offset(base), LeaderEpoch(epoch), None));
        prop_assert_eq!(verify_checksum(&log), Ok(()));
        prop_assert_eq!(BatchHeader::parse(&log).unwrap().leader_epoch, LeaderEpoch(epoch));
        assert_same(&read(&log), &made, base);
    }

    #[test]
    fn the_second_codec_reads_what_is_built_here(mut made in vec(made(), 1..20), codec in codec()) {
        without_duplicate_headers(&mut made);
        let builder = BatchBuilder::new().compressed(codec, codec.default_level());
        let batch = build(&made, builder.producer(ProducerId(7), 2, 40).transactional());
        let set = second::RecordBatchDecoder::decode(&mut batch.clone()).unwrap();
        prop_assert_eq!(set.compression, second_codec(codec));
        prop_assert_eq!(set.records.len(), made.len());
        for (index, (read, made)) in set.records.iter().zip(&made).enumerate() {
            prop_assert_eq!(read.offset, index as i64);
            prop_assert_eq!(read.sequence, 40 + index as i32);
            prop_assert_eq!((read.producer_id, read.producer_epoch, read.transactional), (7, 2, true));
            prop_assert_eq!(read.timestamp, made.timestamp);
            prop_assert_eq!(read.key.as_deref(), made.key.as_deref());
            prop_assert_eq!(read.value.as_deref(), made.value.as_deref());
            let headers: Vec<_> = read.headers.iter()
                .map(|(key, value)| (key.to_string(), value.as_ref().map(|value| value.to_vec()))).collect();
            prop_assert_eq!(&headers, &made.headers);
        }
    }

    #[test]
    fn what_the_second_codec_builds_is_read_here(mut made in vec(made(), 1..20), codec in codec()) {
        without_duplicate_headers(&mut made);
        let theirs: Vec<_> = made.iter().enumerate().map(|(index, record)| second::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: 9,
            producer_epoch: 0,
            timestamp_type: second::TimestampType::Creation,
            offset: index as i64,
            sequence: index as i32,
            timestamp: record.timestamp,
            key: record.key.clone().map(Bytes::from),
            value: record.value.clone().map(Bytes::from),
            headers: record.headers.iter().map(|(key, value)| {
                (StrBytes::from_string(key.clone()), value.clone().map(Bytes::from))
            }).collect::<IndexMap<_, _>>(),
        }).collect();
        let options = second::RecordEncodeOptions { version: 2, compression: second_codec(codec) };
        let mut batch = BytesMut::new();
        second::RecordBatchEncoder::encode(&mut batch, &theirs, &options).unwrap();
        let checked = check_produced(batch.freeze(), &BatchLimits::default()).unwrap();
        prop_assert_eq!(checked.header().producer_id, ProducerId(9));
        prop_assert_eq!(checked.codec(), codec);
        assert_same(&read(checked.bytes()), &made, 0);
    }

    #[test]
    fn recompression_keeps_everything_but_the_codec(made in vec(made(), 1..20), from in codec(), to in codec()) {
        let batch = build(&made, BatchBuilder::new().compressed(from, from.default_level()).producer(ProducerId(1), 0, 5));
        let checked = check_produced(batch, &BatchLimits::default()).unwrap();
        let other = checked.recompress(to, to.default_level());
        prop_assert_eq!(other.codec(), to);
        prop_assert_eq!(other.facts(), checked.facts());
        let again = check_produced(other.bytes().clone(), &BatchLimits::default()).unwrap();
        prop_assert_eq!(&again, &other);
        prop_assert_eq!(again.header().base_sequence, 5);
        assert_same(&read(other.bytes()), &made, 0);
    }
}

#[test]
fn the_brokers_time_replaces_the_producers_where_the_topic_says_so() {
    for codec in Codec::ALL {
        let checked = check_produced(produced(codec, 10), &BatchLimits::default()).unwrap();
        let now = WallMs(1_800_000_000_000);
        let log = joined(&checked.assign(Offset(90), LeaderEpoch(4), Some(now)));
        assert_eq!(verify_checksum(&log), Ok(()));
        let header = BatchHeader::parse(&log).unwrap();
        assert_eq!((header.timestamp_type(), header.max_timestamp), (TimestampType::LogAppendTime, now.0));
        assert_eq!(header.base_timestamp, 1_700_000_000_000, "the deltas still need it");
        let read = read(&log);
        assert!(read.iter().all(|record| record.timestamp == now.0));
        assert_eq!(read.last().unwrap().offset, Offset(99));
        assert_eq!(header, checked.assigned_header(Offset(90), LeaderEpoch(4), Some(now)));
    }
}

#[test]
fn a_batch_with_the_brokers_time_keeps_it_when_it_is_checked_again() {
    let checked = check_produced(produced(Codec::None, 10), &BatchLimits::default()).unwrap();
    let log = joined(&checked.assign(Offset(90), LeaderEpoch(4), Some(WallMs(5))));
    let again = check_own(log.clone(), &BatchLimits::default()).unwrap();
    assert_eq!(again.header().max_timestamp, 5);
    assert_eq!(joined(&again.assign(Offset(90), LeaderEpoch(4), None)), log);
}

#[test]
fn a_builder_says_how_many_records_it_holds_and_how_large_their_batch_will_be() {
    let mut builder = BatchBuilder::new();
    assert_eq!((builder.records_count(), builder.size_bytes()), (0, BatchHeader::LEN));
    builder.push(1, Some(b"key"), None, &[]).push(2, None, Some(&[b'x'; 300]), &[("h", None)]);
    assert_eq!(builder.records_count(), 2);
    assert_eq!(builder.size_bytes(), builder.build().len());
}

#[test]
fn codecs_have_the_names_of_compression_type() {
    let named = ["none", "gzip", "snappy", "lz4", "zstd"].map(Codec::from_name);
    assert_eq!(named, Codec::ALL.map(Some));
    assert_eq!(Codec::from_name("producer"), None);
}

#[test]
fn the_records_are_not_copied_on_the_way_into_a_log() {
    let batch = produced(Codec::None, 10);
    let checked = check_produced(batch.clone(), &BatchLimits::default()).unwrap();
    let chunks = checked.assign(Offset(5), LeaderEpoch(1), None);
    assert_eq!(chunks.len(), 2);
    assert_eq!(chunks[1].as_ptr(), batch[BatchHeader::LEN..].as_ptr());
    assert_eq!(chunks[0][17..], batch[17..BatchHeader::LEN], "the checksummed part stays");
}

#[test]
fn a_wrong_max_timestamp_is_put_right() {
    for codec in [Codec::None, Codec::Lz4] {
        let mut batch = produced(codec, 3).to_vec();
        batch[35..43].copy_from_slice(&(-1i64).to_be_bytes());
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        let checked = check_produced(batch.into(), &BatchLimits::default()).unwrap();
        assert_eq!(checked.header().max_timestamp, 1_700_000_000_002);
        let log = joined(&checked.assign(Offset::ZERO, LeaderEpoch(0), None));
        assert_eq!(log, joined(&[&checked.header().encode()[..12], &[0; 4], &log[16..]].map(Bytes::copy_from_slice)));
        assert_eq!(verify_checksum(&log), Ok(()));
    }
}

#[test]
fn headers_of_one_name_are_all_kept_in_order() {
    let headers = [("a", Some(b"1".as_slice())), ("b", None), ("a", Some(b"2".as_slice()))];
    let batch = BatchBuilder::new().push(1, None, Some(b"v"), &headers).build();
    let read = read(&batch);
    let found: Vec<_> = read[0].headers.iter().map(|h| (&*h.key, h.value.as_deref())).collect();
    assert_eq!(found, headers);
}

#[test]
fn a_compacted_batch_with_gaps_is_read_back() {
    // Offsets 2 and 7 of 0..=9 are left.
    let records = b"\x0c\0\0\x04\x01\x01\0\x0c\0\0\x0e\x01\x01\0";
    let batch = super::sealed(records, |header| {
        header.base_offset = Offset(100);
        header.last_offset_delta = 9;
        header.records_count = 2;
    });
    let offsets: Vec<_> = read(&batch).iter().map(|record| record.offset.0).collect();
    assert_eq!(offsets, [102, 107]);
}

#[test]
fn a_batch_that_compaction_has_emptied_is_read_whatever_its_codec() {
    for codec in Codec::ALL {
        let emptied = super::sealed(&[], |header| {
            header.attributes = codec.id();
            (header.last_offset_delta, header.records_count) = (9, 0);
        });
        assert_eq!(read(&emptied), []);
    }
}

#[test]
fn gzip_of_several_members_is_read_as_one() {
    let batch = produced(Codec::None, 40);
    let records = &batch[BatchHeader::LEN..];
    let (first, second) = records.split_at(records.len() / 2);
    let joined = [first, second].map(|half| compression::compress(Codec::Gzip, 6, half)).concat();
    let batch = super::sealed(&joined, |header| {
        header.attributes = Codec::Gzip.id();
        header.base_timestamp = 1_700_000_000_000;
        (header.last_offset_delta, header.records_count) = (39, 40);
    });
    let checked = check_produced(batch, &BatchLimits::default()).unwrap();
    assert_eq!(checked.facts().max_timestamp, 1_700_000_000_039);
}

#[test]
fn a_control_batch_reads_back_and_is_only_for_brokers() {
    let marker = ControlRecord::end_transaction(true, 11);
    let batch = marker.transaction_marker(ProducerId(8), 3, WallMs(5));
    let header = BatchHeader::parse(&batch).unwrap();
    assert!(header.is_control() && header.is_transactional());
    let record = &read(&batch)[0];
    let parsed = ControlRecord::parse(record).unwrap();
    assert_eq!(parsed, marker);
    assert_eq!(parsed.coordinator_epoch(), Ok(11));
    assert_eq!(record.key.as_deref(), Some(&[0, 0, 0, 1][..]));
    assert_eq!(record.value.as_deref(), Some(&[0, 0, 0, 0, 0, 11][..]));
    let refused = check_produced(batch.clone(), &BatchLimits::default()).unwrap_err();
    assert_eq!(refused.error_code(), tidelog_wire::ErrorCode::InvalidRecord);
    assert!(check_own(batch, &BatchLimits::default()).is_ok());
    for id in -1..9 {
        assert_eq!(ControlType::from_id(id).id(), id);
    }
}

#[test]
fn control_records_of_later_versions_are_read_and_those_of_negative_ones_refused() {
    let kind = |key: &[u8]| {
        let key = Some(Bytes::copy_from_slice(key));
        let record = Record { offset: Offset::ZERO, timestamp: 0, key, value: None, headers: vec![] };
        ControlRecord::parse(&record).map(|control| control.kind)
    };
    assert_eq!(kind(&[0, 1, 0, 2]), Ok(ControlType::LeaderChange));
    assert_eq!(kind(&[0x7f, 0xff, 0, 1, 9]), Ok(ControlType::Commit));
    assert!(kind(&[0x80, 0, 0, 2]).is_err());
    assert!(kind(&[0, 0, 0]).is_err());
    let epoch = |value: &[u8]| {
        ControlRecord { kind: ControlType::Abort, value: Bytes::copy_from_slice(value) }.coordinator_epoch()
    };
    assert_eq!(epoch(&[0x7f, 0xff, 0, 0, 0, 7, 9]), Ok(7));
    assert!(epoch(&[0x80, 0, 0, 0, 0, 7]).is_err());
    assert!(epoch(&[0; 5]).is_err());
}

#[test]
fn a_batch_on_the_wire() {
    let headers = [("trace", Some(b"\x01".as_slice())), ("empty", None)];
    let mut builder = BatchBuilder::new().at(Offset(258), LeaderEpoch(3)).producer(ProducerId(4_000), 1, 77);
    builder.push(1_700_000_000_000, Some(b"key"), Some(b"value"), &headers);
    builder.push(1_699_999_999_999, None, None, &[]);
    builder.push(1_700_000_000_500, Some(b""), Some(&[b'x'; 70]), &[]);
    let lines: Vec<_> =
        builder.build().chunks(16).map(|row| row.iter().map(|b| format!("{b:02x} ")).collect()).collect();
    let lines: Vec<String> = lines;
    insta::assert_snapshot!(lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n"));
}
