//! Snapshots of the metadata (KIP-630): a header, all records of an image in batches, a footer.
//!
//! A file without its footer, or with a batch that does not check out, is no snapshot: the next older one serves.

use crate::batch::{BatchBuilder, BatchLimits, ControlRecord, ControlType, Scan, ScanStop, records};
use crate::ids::{LeaderEpoch, NodeId, Offset, Uuid};
use crate::time::WallMs;
use crate::wire::MetadataRecord;
use crate::wire::messages::voters_record::{Endpoint, KRaftVersionFeature, Voter};
use crate::wire::messages::{
    KRaftVersionRecord, LeaderChangeMessage, SnapshotFooterRecord, SnapshotHeaderRecord, VotersRecord,
};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

/// Kafka's own bound for a batch of metadata.
pub const BATCH_BYTES_MAX: usize = 8 << 20;

/// The one voter of a quorum of one, as other nodes would reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoleVoter {
    pub node: NodeId,
    pub directory: Uuid,
    /// The controller listeners: name, host, port.
    pub endpoints: Vec<(ByteString, ByteString, u16)>,
}

impl SoleVoter {
    /// The control records that make `kraft.version` 1 and the set of voters known.
    pub fn control_records(&self) -> [ControlRecord; 2] {
        let version = KRaftVersionRecord { version: 0, kraft_version: 1, ..Default::default() };
        let endpoints = self.endpoints.iter().map(|(name, host, port)| Endpoint {
            name: name.clone(),
            host: host.clone(),
            port: *port,
            ..Default::default()
        });
        let voter = Voter {
            voter_id: self.node.0,
            voter_directory_id: self.directory,
            endpoints: endpoints.collect(),
            kraft_version_feature: KRaftVersionFeature {
                min_supported_version: 0,
                max_supported_version: 1,
                ..Default::default()
            },
            ..Default::default()
        };
        let voters = VotersRecord { version: 0, voters: vec![voter], ..Default::default() };
        [
            ControlRecord { kind: ControlType::KRaftVersion, value: version.to_bytes(0) },
            ControlRecord { kind: ControlType::KRaftVoters, value: voters.to_bytes(0) },
        ]
    }
}

/// The bytes of a snapshot of encoded records. `voter`: none for `bootstrap.checkpoint`, which knows of no quorum.
pub fn encode(
    epoch: LeaderEpoch,
    now: WallMs,
    last_contained_log_timestamp: WallMs,
    voter: Option<&SoleVoter>,
    metadata: &[Bytes],
) -> Bytes {
    let header = SnapshotHeaderRecord {
        version: 0,
        last_contained_log_timestamp: last_contained_log_timestamp.0,
        ..Default::default()
    };
    let mut controls = vec![ControlRecord { kind: ControlType::SnapshotHeader, value: header.to_bytes(0) }];
    controls.extend(voter.into_iter().flat_map(SoleVoter::control_records));
    let mut next = Offset(controls.len() as i64);
    let mut file = BytesMut::from(&ControlRecord::batch(&controls, Offset::ZERO, epoch, now)[..]);
    for batch in batches(next, epoch, now, metadata, BATCH_BYTES_MAX) {
        file.extend_from_slice(&batch);
    }
    next = next + metadata.len() as i64;
    let footer = SnapshotFooterRecord { version: 0, ..Default::default() };
    let footer = ControlRecord { kind: ControlType::SnapshotFooter, value: footer.to_bytes(0) };
    file.extend_from_slice(&ControlRecord::batch(&[footer], next, epoch, now));
    file.freeze()
}

/// What a record takes at most in its batch, beside its value.
pub const RECORD_OVERHEAD_MAX: usize = 64;

/// Encoded metadata records in batches of at most `bytes_max`; a record that is larger stands alone.
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

/// Who votes: the number of a node with its directory (KIP-853).
pub type Voters = Vec<(NodeId, Uuid)>;

/// The metadata records of a snapshot's bytes, and the voters it names; the text of an error says what is wrong.
pub fn decode(file: &Bytes) -> Result<(Vec<MetadataRecord>, Option<Voters>), String> {
    let (mut found, mut voters) = (Vec::new(), None);
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
                voters = voters_after(voters, &control)?;
            }
        } else {
            found.extend(metadata_records(&bytes)?);
        }
        if !begun {
            return Err("it does not begin with a snapshot header".to_owned());
        }
    }
    match scan.stop() {
        Some(ScanStop::End) | None if ended => Ok((found, voters)),
        Some(ScanStop::End) | None => Err("it has no footer: its writing was cut short".to_owned()),
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

/// The voters after a batch of control records, where `voters` were known before.
pub fn voters_after_batch(mut voters: Option<Voters>, batch: &Bytes) -> Result<Option<Voters>, String> {
    for control in controls(batch)? {
        voters = voters_after(voters, &control)?;
    }
    Ok(voters)
}

/// Where no set of voters was ever recorded (before KIP-853), a leader's announcement names them, without their
/// directories.
fn voters_after(before: Option<Voters>, control: &ControlRecord) -> Result<Option<Voters>, String> {
    let version = || control.value.first_chunk().map_or(0, |bytes| i16::from_be_bytes(*bytes));
    match control.kind {
        ControlType::KRaftVoters => {
            let record =
                VotersRecord::from_bytes(version(), control.value.clone()).map_err(|error| error.to_string())?;
            Ok(Some(record.voters.iter().map(|voter| (NodeId(voter.voter_id), voter.voter_directory_id)).collect()))
        }
        ControlType::LeaderChange if before.is_none() => {
            let record =
                LeaderChangeMessage::from_bytes(version(), control.value.clone()).map_err(|error| error.to_string())?;
            Ok(Some(record.voters.iter().map(|voter| (NodeId(voter.voter_id), voter.voter_directory_id)).collect()))
        }
        _ => Ok(before),
    }
}

fn controls(batch: &Bytes) -> Result<Vec<ControlRecord>, String> {
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
    use crate::wire::messages::leader_change_message;
    use crate::wire::messages::{NoOpRecord, TopicRecord};

    fn sample() -> (Vec<MetadataRecord>, Bytes) {
        let topic = TopicRecord { name: "t".into(), topic_id: Uuid::METADATA_TOPIC, ..Default::default() };
        let records = vec![MetadataRecord::Topic(topic), MetadataRecord::NoOp(NoOpRecord::default())];
        let voter = SoleVoter {
            node: NodeId(1),
            directory: Uuid::METADATA_TOPIC,
            endpoints: vec![("C".into(), "h".into(), 9)],
        };
        let values: Vec<Bytes> = records.iter().map(|record| record.encode(0)).collect();
        let file = encode(LeaderEpoch(3), WallMs(1), WallMs(0), Some(&voter), &values);
        (records, file)
    }

    #[test]
    fn a_snapshot_gives_back_its_records() {
        let (records, file) = sample();
        assert_eq!(decode(&file).unwrap(), (records, Some(vec![(NodeId(1), Uuid::METADATA_TOPIC)])));
    }

    #[test]
    fn a_snapshot_that_is_cut_or_changed_anywhere_is_refused() {
        let (records, file) = sample();
        for len in 0..file.len() {
            assert!(decode(&file.slice(..len)).is_err(), "cut at {len}");
        }
        for place in 0..file.len() {
            let mut bytes = file.to_vec();
            bytes[place] ^= 1;
            // The offsets, epoch and length before the checksum are not covered by it; nothing else may pass.
            if let Ok((read, _)) = decode(&Bytes::from(bytes)) {
                assert_eq!(read, records, "flipped at {place}");
            }
        }
    }

    #[test]
    fn a_recorded_set_of_voters_goes_before_what_a_leader_announces() {
        let announced = LeaderChangeMessage {
            leader_id: 2,
            voters: vec![leader_change_message::Voter { voter_id: 2, ..Default::default() }],
            ..Default::default()
        };
        let announced = ControlRecord { kind: ControlType::LeaderChange, value: announced.to_bytes(0) };
        let directory = Uuid::from_bytes([5; 16]);
        let voter = SoleVoter { node: NodeId(1), directory, endpoints: Vec::new() };
        let batch = |records: &[ControlRecord]| ControlRecord::batch(records, Offset::ZERO, LeaderEpoch(1), WallMs(0));
        let known = voters_after_batch(None, &batch(std::slice::from_ref(&announced))).unwrap();
        assert_eq!(known, Some(vec![(NodeId(2), Uuid::ZERO)]));
        let known = voters_after_batch(known, &batch(&voter.control_records())).unwrap();
        assert_eq!(known, Some(vec![(NodeId(1), directory)]));
        assert_eq!(voters_after_batch(known.clone(), &batch(&[announced])).unwrap(), known);
    }
}
