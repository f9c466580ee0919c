//! The files that are read as a whole: snapshots of producers, checkpoints, properties.

use super::Stop;
use super::files::{self, Content, Named};
use super::line::{Line, RawObject};
use super::report::Report;
use serde_json::{Value, json};
use std::path::Path;
use tidelog_core::ids::{NodeId, Offset};
use tidelog_core::quorum::QuorumState;
use tidelog_core::storage::checkpoints::{
    MetaProperties, decode_clean_shutdown, decode_offsets, decode_partition_metadata,
};
use tidelog_core::storage::leader_epochs::LeaderEpochs;
use tidelog_core::storage::producer_snapshot::decode_snapshot;

/// `version i16 = 0 │ producer id i64 │ first offset i64 │ last offset i64 │ last stable offset i64` (KIP-98).
const ABORTED_TRANSACTION_BYTES: usize = 34;

pub fn whole_file(path: &Path, named: &Named, report: &mut Report) -> Result<(), Stop> {
    let bytes = files::read_whole(path)?;
    // Every line is about this file: the texts of errors need not name it again.
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let dumped = match named.content {
        Content::ProducerSnapshot => producers(&bytes, named.offset),
        Content::TransactionIndex => aborted_transactions(&bytes),
        Content::LeaderEpochs => leader_epochs(&name, &bytes),
        Content::Offsets => offsets(&name, &bytes),
        Content::PartitionMetadata => decode_partition_metadata(&name, &bytes)
            .map(|id| vec![properties([("topicId", json!(id.to_string()))])])
            .map_err(|error| error.to_string()),
        Content::MetaProperties => meta_properties(&name, &bytes),
        Content::QuorumState => quorum_state(&bytes),
        Content::CleanShutdown => Ok(vec![properties([("brokerEpoch", json!(decode_clean_shutdown(&bytes)))])]),
        Content::Log | Content::OffsetIndex | Content::TimeIndex | Content::MetadataSnapshot => {
            unreachable!("these are not read as a whole")
        }
    };
    match dumped {
        Ok(lines) => lines.iter().try_for_each(|line| report.line(line)),
        Err(why) => report.line(&Line::fault(why.strip_prefix(&format!("{name}: ")).unwrap_or(&why))),
    }
}

fn properties<const N: usize>(values: [(&'static str, Value); N]) -> Line {
    Line::Properties { values: Box::new(RawObject(values.into())) }
}

fn producers(bytes: &[u8], snapshot: Offset) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for entry in decode_snapshot(bytes).map_err(|error| error.to_string())? {
        let has_batch = entry.last_offset >= Offset::ZERO;
        lines.push(Line::Producer {
            producer_id: entry.producer_id.0,
            producer_epoch: entry.producer_epoch,
            coordinator_epoch: entry.coordinator_epoch,
            current_transaction_first_offset: entry.current_transaction_first_offset.map(|offset| offset.0),
            last_timestamp: entry.timestamp,
            first_offset: has_batch.then(|| entry.last_offset.0 - i64::from(entry.offset_delta)),
            last_offset: has_batch.then_some(entry.last_offset.0),
            last_sequence: entry.last_sequence,
        });
        if entry.last_offset >= snapshot {
            lines.push(Line::fault(format!(
                "producer {} has a batch that ends with offset {}, but the snapshot is of all below {snapshot}",
                entry.producer_id, entry.last_offset
            )));
        }
    }
    Ok(lines)
}

fn aborted_transactions(bytes: &[u8]) -> Result<Vec<Line>, String> {
    let (rows, rest) = bytes.as_chunks::<ABORTED_TRANSACTION_BYTES>();
    if !rest.is_empty() {
        return Err(format!("{} bytes are not a multiple of {ABORTED_TRANSACTION_BYTES}", bytes.len()));
    }
    let mut lines = Vec::new();
    for (slot, row) in rows.iter().enumerate() {
        let version = i16::from_be_bytes([row[0], row[1]]);
        let number = |at: usize| i64::from_be_bytes(row[at..at + 8].try_into().expect("eight bytes"));
        let [producer_id, first_offset, last_offset, last_stable_offset] = [2, 10, 18, 26].map(number);
        lines.push(Line::AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset });
        if version != 0 || producer_id < 0 || first_offset < 0 || last_offset < first_offset {
            let position = (slot * ABORTED_TRANSACTION_BYTES) as u64;
            lines.push(Line::fault_at(position, format!("entry {slot} is impossible (version {version})")));
        }
    }
    Ok(lines)
}

fn leader_epochs(name: &str, bytes: &[u8]) -> Result<Vec<Line>, String> {
    let epochs = LeaderEpochs::decode(name, bytes).map_err(|error| error.to_string())?;
    let entries = epochs.entries().iter();
    let mut lines: Vec<Line> =
        entries.map(|entry| Line::LeaderEpoch { epoch: entry.epoch.0, start_offset: entry.start_offset.0 }).collect();
    // What contradicts a later entry is dropped in reading.
    let written = String::from_utf8_lossy(bytes).lines().skip(2).count();
    let kept = lines.len();
    if written != kept {
        lines.push(Line::fault(format!(
            "only {kept} of {written} entries agree with each other: epochs and start offsets must both increase"
        )));
    }
    Ok(lines)
}

fn offsets(name: &str, bytes: &[u8]) -> Result<Vec<Line>, String> {
    let offsets = decode_offsets(name, bytes).map_err(|error| error.to_string())?;
    let line = |(partition, offset): (tidelog_core::storage::TopicPartition, Offset)| Line::PartitionOffset {
        topic: partition.topic.to_string(),
        partition: partition.partition,
        offset: offset.0,
    };
    Ok(offsets.into_iter().map(line).collect())
}

fn meta_properties(name: &str, bytes: &[u8]) -> Result<Vec<Line>, String> {
    let meta = MetaProperties::decode(name, bytes).map_err(|error| error.to_string())?;
    Ok(vec![properties([
        ("version", json!(meta.version)),
        ("clusterId", json!(meta.cluster_id.as_deref())),
        ("nodeId", json!(meta.node_id.map(|id| id.0))),
        ("directoryId", json!(meta.directory_id.map(|id| id.to_string()))),
    ])])
}

fn quorum_state(bytes: &[u8]) -> Result<Vec<Line>, String> {
    let state = QuorumState::decode(bytes)?;
    let node = |id: Option<NodeId>| json!(id.map(|id| id.0));
    Ok(vec![properties([
        ("leaderId", node(state.leader)),
        ("leaderEpoch", json!(state.leader_epoch.0)),
        ("votedId", node(state.voted.map(|voted| voted.node))),
        ("votedDirectoryId", json!(state.voted.map(|voted| voted.wire_directory().to_string()))),
    ])])
}
