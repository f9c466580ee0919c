//! DescribeLogDirs: which partitions each log directory holds, and how large its volume is (KIP-113, KIP-827).

use crate::api::{Parts, PendingRequest, Ticket};
use crate::ids::LogDirId;
use crate::io::Outbox;
use crate::storage::VolumeSizes;
use crate::wire::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use crate::wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use crate::wire::{ErrorCode, ResponseBody};
use bytestring::ByteString;
use std::collections::{BTreeMap, BTreeSet};

/// A request that waits for the sizes of volumes.
#[derive(Debug)]
pub struct PendingLogDirs {
    pub ticket: Ticket,
    response: DescribeLogDirsResponse,
    /// For each directory whose volume has not been measured yet, its index in the response.
    waiting: BTreeMap<LogDirId, usize>,
}

pub fn handle(parts: &mut Parts, ticket: Ticket, request: DescribeLogDirsRequest, out: &mut Outbox) {
    let wanted: Option<BTreeSet<(ByteString, i32)>> = request.topics.map(|topics| {
        let pairs = |topic: &crate::wire::messages::describe_log_dirs_request::DescribableLogDirTopic| {
            topic.partitions.iter().map(|index| (topic.topic.clone(), *index)).collect::<Vec<_>>()
        };
        topics.iter().flat_map(pairs).collect()
    });
    let (mut results, mut waiting) = (Vec::new(), BTreeMap::new());
    for dir in 0..parts.config.log_dirs.len() as u16 {
        let dir = LogDirId(dir);
        // As in Kafka, a directory of the metadata log alone is none of the broker's log directories.
        if !parts.takes_partitions(dir) && !parts.partitions.iter().any(|partition| partition.dir() == dir) {
            continue;
        }
        let log_dir = ByteString::from(parts.config.log_dirs[usize::from(dir.0)].as_str());
        if !parts.dirs.query_volume(dir, out) {
            let error_code = ErrorCode::KafkaStorageError.code();
            results.push(DescribeLogDirsResult { error_code, log_dir, ..Default::default() });
            continue;
        }
        waiting.insert(dir, results.len());
        let topics = contents(parts, dir, wanted.as_ref());
        results.push(DescribeLogDirsResult { log_dir, topics, ..Default::default() });
    }
    let response = DescribeLogDirsResponse { results, ..Default::default() };
    if waiting.is_empty() {
        return parts.replies.answer(ticket, ResponseBody::DescribeLogDirs(response), out);
    }
    let id = parts.pending.next_id();
    parts.pending.put(id, PendingRequest::LogDirs(PendingLogDirs { ticket, response, waiting }), None);
}

/// The volume of a directory has been measured, for all requests that wait for it. `None`: measuring failed.
pub fn measured(parts: &mut Parts, dir: LogDirId, sizes: Option<VolumeSizes>, out: &mut Outbox) {
    for (id, pending) in parts.pending.take_log_dirs() {
        let PendingRequest::LogDirs(mut pending) = pending else {
            unreachable!("only requests of this kind were taken")
        };
        if let Some(place) = pending.waiting.remove(&dir) {
            let result = &mut pending.response.results[place];
            match sizes {
                Some(sizes) => {
                    result.total_bytes = i64::try_from(sizes.total_bytes).unwrap_or(i64::MAX);
                    result.usable_bytes = i64::try_from(sizes.usable_bytes).unwrap_or(i64::MAX);
                }
                None => {
                    result.error_code = ErrorCode::KafkaStorageError.code();
                    result.topics.clear();
                }
            }
        }
        if pending.waiting.is_empty() {
            parts.replies.answer(pending.ticket, ResponseBody::DescribeLogDirs(pending.response), out);
        } else {
            parts.pending.put(id, PendingRequest::LogDirs(pending), None);
        }
    }
}

fn contents(parts: &Parts, dir: LogDirId, wanted: Option<&BTreeSet<(ByteString, i32)>>) -> Vec<DescribeLogDirsTopic> {
    let mut topics: BTreeMap<ByteString, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for partition in parts.partitions.iter().filter(|partition| partition.dir() == dir) {
        let key = (partition.topic().clone(), partition.index());
        if wanted.is_none_or(|wanted| wanted.contains(&key)) {
            topics.entry(key.0).or_default().push(DescribeLogDirsPartition {
                partition_index: key.1,
                partition_size: i64::try_from(partition.log().size_bytes()).unwrap_or(i64::MAX),
                // How far the high watermark is past the end of this replica, where it never is.
                offset_lag: 0,
                is_future_key: false,
                ..Default::default()
            });
        }
    }
    topics
        .into_iter()
        .map(|(name, partitions)| DescribeLogDirsTopic { name, partitions, ..Default::default() })
        .collect()
}
