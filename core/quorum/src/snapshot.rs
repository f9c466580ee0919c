//! Snapshots of the metadata (KIP-630): a header, all records of the metadata in batches, a footer.
//!
//! A file without a footer, or with a damaged batch, is refused. The quorum then uses the next older snapshot.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use tidelog_batch::{BatchBuilder, BatchLimits, ControlRecord, ControlType, Scan, ScanStop, records};
use tidelog_wire::MetadataRecord;
use tidelog_wire::ids::{LeaderEpoch, NodeId, Offset, Uuid};
use tidelog_wire::messages::voters_record::{Endpoint, KRaftVersionFeature, Voter};
use tidelog_wire::messages::{
    KRaftVersionRecord, LeaderChangeMessage, SnapshotFooterRecord, SnapshotHeaderRecord, VotersRecord,
};
use tidelog_wire::time::WallMs;

/// The greatest size of a batch of metadata, as in Kafka.
pub const BATCH_BYTES_MAX: usize = 8 << 20;

/// The only voter of the quorum: this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoleVoter {
    pub node: NodeId,
    pub directory: Uuid,
    /// The name, host and port of each controller listener.
    pub endpoints: Vec<(ByteString, ByteString, u16)>,
}

impl SoleVoter {
    /// The control records that set `kraft.version` to 1 and name this voter as the only one.
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

/// Encodes a snapshot of the encoded records `metadata`. `voter` is `None` for `bootstrap.checkpoint`, which has the
/// format of a snapshot but names no voters.
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

/// The voters: the id of each node with the id of its directory (KIP-853).
pub type Voters = Vec<(NodeId, Uuid)>;

/// Decodes a snapshot: its metadata records, and the voters if it names them. An error says what is wrong.
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

/// Applies a batch of control records to `voters`, the voters known before it, and returns the voters known after it.
pub fn voters_after_batch(mut voters: Option<Voters>, batch: &Bytes) -> Result<Option<Voters>, String> {
    for control in controls(batch)? {
        voters = voters_after(voters, &control)?;
    }
    Ok(voters)
}

/// The voters known after one control record. A VotersRecord names them. In a log from before KIP-853 there is none;
/// then the LeaderChange record of a leader names the voters, without their directories.
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
    use tidelog_wire::messages::leader_change_message;
    use tidelog_wire::messages::{NoOpRecord, TopicRecord};

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
            // The base offset, length and leader epoch are not covered by the checksum. A change there may go
            // unnoticed, but must not change the records.
            if let Ok((read, _)) = decode(&Bytes::from(bytes)) {
                assert_eq!(read, records, "flipped at {place}");
            }
        }
    }

    #[test]
    fn a_voters_record_is_preferred_to_the_voters_that_a_leader_announces() {
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
