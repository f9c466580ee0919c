//! Every message that the schemas allow is read, and is written back as the same bytes.

use super::sample::{Draw, put_uvarint, sample};
use super::{Body, bodies, record_round_trip, schema, schemas, versions};
use bytes::Bytes;
use tidelog_wire::ids::Uuid;
use tidelog_wire::messages::{self, *};
use tidelog_wire::{DecodeError, DecodeErrorKind, MetadataRecord, Records, RecordsChunk, TaggedField, Writer};

#[test]
fn every_version_of_every_request_and_response_round_trips() {
    for kind in ["request", "response"] {
        for (key, message) in bodies(kind) {
            for version in versions(&message) {
                for seed in 0..6 {
                    let bytes: Bytes = sample(&message, version, &mut Draw::random(seed), false).bytes.into();
                    let body = Body::decode(kind, key, version, bytes.clone())
                        .unwrap_or_else(|error| panic!("{} v{version} seed {seed}: {error}", message.name));
                    assert_eq!(body.encode(version), bytes, "{} v{version} seed {seed}: {body:?}", message.name);
                }
            }
        }
    }
}

#[test]
fn tagged_fields_that_nobody_knows_round_trip() {
    for kind in ["request", "response"] {
        for (key, message) in bodies(kind) {
            for version in versions(&message).filter(|&v| v >= message.flexible) {
                let bytes: Bytes = sample(&message, version, &mut Draw::Counting(0), true).bytes.into();
                let body = Body::decode(kind, key, version, bytes.clone())
                    .unwrap_or_else(|error| panic!("{} v{version}: {error}", message.name));
                assert_eq!(body.encode(version), bytes, "{} v{version}: {body:?}", message.name);
                assert!(format!("{body:?}").contains("tag: 2147483647"), "{} v{version}", message.name);
            }
        }
    }
}

#[test]
fn an_unknown_tag_between_known_ones_keeps_its_place() {
    // ApiVersionsResponse knows the tags 0 to 3; FetchRequest v17 knows 0 at the root and 0 in a partition.
    let mut response = ApiVersionsResponse { finalized_features_epoch: 7, ..Default::default() };
    let bytes = response.to_bytes(3);
    assert_eq!(&bytes[bytes.len() - 11..], &[1, 1, 8, 0, 0, 0, 0, 0, 0, 0, 7]);
    // An unknown tag 2^31 is added after the known one. It is read, and written after the known one again.
    let mut longer = bytes.to_vec();
    let count = longer.len() - 11;
    longer[count] = 2;
    longer.extend_from_slice(&[0x80, 0x80, 0x80, 0x80, 0x08, 1, 42]);
    response = ApiVersionsResponse::from_bytes(3, longer.clone().into()).unwrap();
    assert_eq!(response.unknown_tagged_fields.as_slice()[0].tag, 1 << 31);
    assert_eq!(response.to_bytes(3), longer);
    // The root of ProduceRequest v9 has no tagged fields, so the tag 0 is unknown too.
    let unknown = [(0, 1), (4, 2)].map(|(tag, value)| TaggedField { tag, value: vec![value].into() });
    let request = ProduceRequest { unknown_tagged_fields: unknown.into_iter().collect(), ..Default::default() };
    assert_eq!(ProduceRequest::from_bytes(9, request.to_bytes(9)).unwrap(), request);
}

#[test]
fn every_metadata_record_round_trips_in_kafkas_framing() {
    for (folder, message) in schemas() {
        if message.kind != "record" {
            continue;
        }
        for version in versions(&message) {
            for seed in 0..6 {
                let mut bytes = vec![1];
                put_uvarint(&mut bytes, message.key.unwrap() as u32);
                put_uvarint(&mut bytes, version as u32);
                bytes.extend(sample(&message, version, &mut Draw::random(seed), seed % 2 == 1).bytes);
                let bytes: Bytes = bytes.into();
                let again = record_round_trip(folder, bytes.clone());
                assert_eq!(again.as_ref(), Ok(&bytes), "{} v{version} seed {seed}", message.name);
            }
        }
    }
}

/// All messages that no enum holds: of coordinators, control records, headers, files.
macro_rules! others {
    ($check:ident: $($name:ident)*) => { vec![$((stringify!($name), {
        fn round_trip(version: i16, bytes: Bytes) -> Result<Bytes, DecodeError> {
            Ok($name::from_bytes(version, bytes)?.to_bytes(version))
        }
        round_trip as RoundTrip
    })),*] };
}

type RoundTrip = fn(i16, Bytes) -> Result<Bytes, DecodeError>;

fn others() -> Vec<(&'static str, RoundTrip)> {
    use messages::{RequestHeader, ResponseHeader};
    others!(round_trip:
        RequestHeader ResponseHeader DefaultPrincipalData QuorumStateData ProducerSnapshot
        ControlRecordTypeSchema EndTxnMarker KRaftVersionRecord LeaderChangeMessage SnapshotFooterRecord
        SnapshotHeaderRecord VotersRecord ConsumerProtocolAssignment ConsumerProtocolSubscription
        ConsumerGroupCurrentMemberAssignmentKey ConsumerGroupCurrentMemberAssignmentValue
        ConsumerGroupMemberMetadataKey ConsumerGroupMemberMetadataValue ConsumerGroupMetadataKey
        ConsumerGroupMetadataValue ConsumerGroupPartitionMetadataKey ConsumerGroupPartitionMetadataValue
        ConsumerGroupRegularExpressionKey ConsumerGroupRegularExpressionValue
        ConsumerGroupTargetAssignmentMemberKey ConsumerGroupTargetAssignmentMemberValue
        ConsumerGroupTargetAssignmentMetadataKey ConsumerGroupTargetAssignmentMetadataValue
        GroupMetadataKey GroupMetadataValue LegacyOffsetCommitKey LegacyOffsetCommitValue OffsetCommitKey
        OffsetCommitValue ShareGroupCurrentMemberAssignmentKey ShareGroupCurrentMemberAssignmentValue
        ShareGroupMemberMetadataKey ShareGroupMemberMetadataValue ShareGroupMetadataKey ShareGroupMetadataValue
        ShareGroupStatePartitionMetadataKey ShareGroupStatePartitionMetadataValue
        ShareGroupTargetAssignmentMemberKey ShareGroupTargetAssignmentMemberValue
        ShareGroupTargetAssignmentMetadataKey ShareGroupTargetAssignmentMetadataValue
        StreamsGroupCurrentMemberAssignmentKey StreamsGroupCurrentMemberAssignmentValue
        StreamsGroupMemberMetadataKey StreamsGroupMemberMetadataValue StreamsGroupMetadataKey
        StreamsGroupMetadataValue StreamsGroupTargetAssignmentMemberKey StreamsGroupTargetAssignmentMemberValue
        StreamsGroupTargetAssignmentMetadataKey StreamsGroupTargetAssignmentMetadataValue
        StreamsGroupTopologyKey StreamsGroupTopologyValue
        ShareSnapshotKey ShareSnapshotValue ShareUpdateKey ShareUpdateValue TransactionLogKey TransactionLogValue)
}

#[test]
fn every_other_message_round_trips() {
    let others = others();
    for (_, message) in schemas() {
        if message.versions.is_none() || ["request", "response", "record"].contains(&message.kind.as_str()) {
            continue;
        }
        let (_, round_trip) = others.iter().find(|(name, _)| *name == message.name).unwrap();
        for version in versions(&message) {
            for seed in 0..6 {
                let bytes: Bytes = sample(&message, version, &mut Draw::random(seed), seed % 2 == 1).bytes.into();
                let again = round_trip(version, bytes.clone());
                assert_eq!(again.as_ref(), Ok(&bytes), "{} v{version} seed {seed}", message.name);
            }
        }
    }
}

#[test]
fn a_metadata_record_has_the_bytes_that_kafka_writes() {
    // As DumpLogSegments shows a topic's record: frame version 1, key 2, version 0.
    let topic = TopicRecord {
        name: "foo".into(),
        topic_id: Uuid::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
        ..Default::default()
    };
    let bytes = MetadataRecord::from(topic.clone()).encode(0);
    let expected = [&[1, 2, 0, 4][..], b"foo", &(0..16).collect::<Vec<u8>>(), &[0]].concat();
    assert_eq!(bytes, expected);
    assert_eq!(MetadataRecord::decode(bytes), Ok((MetadataRecord::Topic(topic), 0)));
    // A no-op has nothing but its tags.
    assert_eq!(MetadataRecord::from(NoOpRecord::default()).encode(0), &[1, 20, 0, 0][..]);
}

#[test]
fn a_record_of_another_frame_version_key_or_length_is_refused() {
    let kind = |bytes: &'static [u8]| MetadataRecord::decode(Bytes::from_static(bytes)).unwrap_err().kind;
    assert_eq!(kind(&[0, 20, 0, 0]), DecodeErrorKind::FrameVersion(0));
    assert_eq!(kind(&[1, 99, 0, 0]), DecodeErrorKind::RecordKey(99));
    assert_eq!(kind(&[1, 20, 1, 0]), DecodeErrorKind::Version { version: 1, first: 0, last: 0 });
    assert_eq!(kind(&[1, 20, 0, 0, 7]), DecodeErrorKind::Trailing { remaining: 1 });
    assert_eq!(kind(&[1, 0xff, 0xff, 0x7f, 0, 0]), DecodeErrorKind::RecordKey(i16::MAX));
    assert_eq!(kind(&[1]), DecodeErrorKind::Varint);
}

#[test]
fn records_are_slices_of_the_frame_and_go_out_as_they_are() {
    let message = schema("ProduceRequest");
    let batch = Bytes::from(vec![7; 4096]);
    let partition =
        produce_request::PartitionProduceData { records: Some(Records::from(batch.clone())), ..Default::default() };
    let topic = produce_request::TopicProduceData { partition_data: vec![partition], ..Default::default() };
    let request = ProduceRequest { topic_data: vec![topic], ..Default::default() };
    for version in versions(&message) {
        let mut writer = Writer::new();
        request.encode(version, &mut writer);
        let frame = writer.into_frame();
        let RecordsChunk::Bytes(sent) = &frame.chunks[1] else { panic!("{frame:?}") };
        assert_eq!(sent.as_ptr(), batch.as_ptr(), "the batch goes out without a copy");

        let bytes = frame.to_bytes();
        assert_eq!(bytes.len(), frame.len);
        let read = ProduceRequest::from_bytes(version, bytes.clone()).unwrap();
        let records = read.topic_data[0].partition_data[0].records.as_ref().unwrap().bytes().unwrap();
        assert_eq!(records, batch);
        assert!(bytes.as_ptr_range().contains(&records.as_ptr()), "the batch is a slice of the frame");
    }
}
