//! Snapshots of the metadata (KIP-630): a header, all records of the metadata in batches, a footer.
//!
//! A file without a footer, or with a damaged batch, is refused. The quorum then uses the next older snapshot.

use bytes::{Bytes, BytesMut};
use tidelog_batch::{BatchBuilder, BatchLimits, ControlRecord, ControlType, Scan, ScanStop, records};
use tidelog_wire::MetadataRecord;
use tidelog_wire::ids::{LeaderEpoch, Offset};
use tidelog_wire::messages::{SnapshotFooterRecord, SnapshotHeaderRecord};
use tidelog_wire::time::WallMs;

/// The greatest size of a batch of metadata, as in Kafka.
pub const BATCH_BYTES_MAX: usize = 8 << 20;

/// Encodes a snapshot of the encoded records `metadata`. `quorum` are the control records that name `kraft.version` and
/// the voters. There are none in `bootstrap.checkpoint`, which has the format of a snapshot, nor where the voters are
/// static.
pub fn encode(
    epoch: LeaderEpoch,
    now: WallMs,
    last_contained_log_timestamp: WallMs,
    quorum: &[ControlRecord],
    metadata: &[Bytes],
) -> Bytes {
    let header =
        SnapshotHeaderRecord { last_contained_log_timestamp: last_contained_log_timestamp.0, ..Default::default() };
    let mut controls = vec![ControlRecord { kind: ControlType::SnapshotHeader, value: header.to_bytes(0) }];
    controls.extend_from_slice(quorum);
    let mut next = Offset(controls.len() as i64);
    let mut file = BytesMut::from(&ControlRecord::batch(&controls, Offset::ZERO, epoch, now)[..]);
    for batch in batches(next, epoch, now, metadata, BATCH_BYTES_MAX) {
        file.extend_from_slice(&batch);
    }
    next = next + metadata.len() as i64;
    let footer = SnapshotFooterRecord::default();
    let footer = ControlRecord { kind: ControlType::SnapshotFooter, value: footer.to_bytes(0) };
    file.extend_from_slice(&ControlRecord::batch(&[footer], next, epoch, now));
    file.freeze()
}

/// How many bytes a record takes in its batch at most, in addition to its value.
pub const RECORD_OVERHEAD_MAX: usize = 64;

/// Puts encoded metadata records into batches of at most `bytes_max`. A record that is larger gets a batch of its own.
pub fn batches(base: Offset, epoch: LeaderEpoch, now: WallMs, metadata: &[Bytes], bytes_max: usize) -> Vec<Bytes> {
    let mut built = Vec::new();
    let mut next = base;
    let mut builder = BatchBuilder::new().at(next, epoch);
    for value in metadata {
        if !builder.is_empty() && builder.size_bytes() + value.len() + RECORD_OVERHEAD_MAX > bytes_max {
            next = next + i64::from(builder.records_count());
            built.push(builder.build());
            builder = BatchBuilder::new().at(next, epoch);
        }
        builder.push(now.0, None, Some(value), &[]);
    }
    if !builder.is_empty() {
        built.push(builder.build());
    }
    built
}

/// The content of a snapshot.
#[derive(Debug, PartialEq)]
pub struct Snapshot {
    pub metadata: Vec<MetadataRecord>,
    /// The control records in it, in their order.
    pub controls: Vec<ControlRecord>,
}

/// Decodes a snapshot. An error says what is wrong.
pub fn decode(file: &Bytes) -> Result<Snapshot, String> {
    let mut snapshot = Snapshot { metadata: Vec::new(), controls: Vec::new() };
    let (mut begun, mut ended) = (false, false);
    let mut scan = Scan::new(file, 0, true);
    for batch in scan.by_ref() {
        if ended {
            return Err(format!("a batch follows the footer, at byte {}", batch.position));
        }
        let start = batch.position as usize;
        let bytes = file.slice(start..start + batch.bytes.len());
        if batch.header.is_control() {
            for control in controls(&bytes)? {
                begun |= control.kind == ControlType::SnapshotHeader;
                ended |= control.kind == ControlType::SnapshotFooter;
                snapshot.controls.push(control);
            }
        } else {
            snapshot.metadata.extend(metadata_records(&bytes)?);
        }
        if !begun {
            return Err("it does not begin with a snapshot header".to_owned());
        }
    }
    match scan.stop() {
        Some(ScanStop::End) | None if ended => Ok(snapshot),
        Some(ScanStop::End) | None => Err("it has no footer: it was not written to its end".to_owned()),
        Some(stop) => Err(format!("byte {}: {stop:?}", scan.next_position())),
    }
}

/// The metadata records of one batch.
pub fn metadata_records(batch: &Bytes) -> Result<Vec<MetadataRecord>, String> {
    let mut found = Vec::new();
    for record in records(batch, &BatchLimits::default()).map_err(|error| error.to_string())? {
        let record = record.map_err(|error| error.to_string())?;
        let value = record.value.unwrap_or_default();
        let (metadata, _) =
            MetadataRecord::decode(value).map_err(|error| format!("offset {}: {error}", record.offset))?;
        found.push(metadata);
    }
    Ok(found)
}

/// The control records of one batch.
pub fn controls(batch: &Bytes) -> Result<Vec<ControlRecord>, String> {
    let mut found = Vec::new();
    for record in records(batch, &BatchLimits::default()).map_err(|error| error.to_string())? {
        let record = record.map_err(|error| error.to_string())?;
        found.push(ControlRecord::parse(&record)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::voters::{VoterSet, kraft_version_record};
    use tidelog_wire::ids::Uuid;
    use tidelog_wire::messages::{NoOpRecord, TopicRecord};

    fn sample() -> (Snapshot, Bytes) {
        let topic = TopicRecord { name: "t".into(), topic_id: Uuid::METADATA_TOPIC, ..Default::default() };
        let records = [MetadataRecord::Topic(topic), MetadataRecord::NoOp(NoOpRecord::default())];
        let voters = VoterSet::default();
        let quorum = [kraft_version_record(1), voters.record()];
        let values: Vec<Bytes> = records.iter().map(|record| record.encode(0)).collect();
        let file = encode(LeaderEpoch(3), WallMs(1), WallMs(0), &quorum, &values);
        (decode(&file).unwrap(), file)
    }

    #[test]
    fn a_snapshot_gives_back_its_records() {
        let (snapshot, _) = sample();
        assert_eq!(snapshot.metadata.len(), 2);
        let kinds: Vec<ControlType> = snapshot.controls.iter().map(|control| control.kind).collect();
        use ControlType::{KRaftVersion, KRaftVoters, SnapshotFooter, SnapshotHeader};
        assert_eq!(kinds, [SnapshotHeader, KRaftVersion, KRaftVoters, SnapshotFooter]);
    }

    #[test]
    fn a_snapshot_that_is_cut_or_changed_anywhere_is_refused() {
        let (snapshot, file) = sample();
        for len in 0..file.len() {
            assert!(decode(&file.slice(..len)).is_err(), "cut at {len}");
        }
        for place in 0..file.len() {
            let mut bytes = file.to_vec();
            bytes[place] ^= 1;
            // The base offset, length and leader epoch are not covered by the checksum. A change there may go
            // unnoticed, but must not change the records.
            if let Ok(read) = decode(&Bytes::from(bytes)) {
                assert_eq!(read, snapshot, "flipped at {place}");
            }
        }
    }

    #[test]
    fn the_batches_of_a_snapshot_follow_each_other() {
        let (_, file) = sample();
        let bases: Vec<(i64, i64)> =
            Scan::new(&file, 0, true).map(|batch| (batch.header.base_offset.0, batch.header.last_offset().0)).collect();
        assert_eq!(bases, [(0, 2), (3, 4), (5, 5)], "header, version and voters; two records; the footer");
    }

    #[test]
    fn records_are_put_into_one_batch_while_they_fit() {
        let value = Bytes::from(vec![7; 100]);
        let values = vec![value.clone(); 4];
        let split = |bytes_max: usize| {
            let batches = batches(Offset(10), LeaderEpoch(3), WallMs(1), &values, bytes_max);
            let mut next = Offset(10);
            let mut counts = Vec::new();
            for batch in &batches {
                let header = tidelog_batch::BatchHeader::parse(batch).unwrap();
                assert_eq!(header.base_offset, next, "the batches follow each other");
                next = header.next_offset();
                counts.push(header.last_offset().0 - header.base_offset.0 + 1);
            }
            assert_eq!(next, Offset(14), "no record is lost");
            counts
        };
        assert_eq!(split(usize::MAX), [4]);
        assert_eq!(split(1), [1, 1, 1, 1], "a record that is too large has a batch of its own");
        // Three records, and the room that a fourth may need.
        let three = batches(Offset(0), LeaderEpoch(3), WallMs(1), &values[..3], usize::MAX).remove(0).len();
        let enough = three + value.len() + RECORD_OVERHEAD_MAX;
        assert_eq!(split(enough), [4]);
        assert_eq!(split(enough - 1), [3, 1]);
    }
}
