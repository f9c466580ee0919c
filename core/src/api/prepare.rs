//! The work on a request, or on the answer of another node, before the broker gets it: decoding, and checking every byte
//! of its records.
//!
//! It is a pure function that needs no broker, so that a world can run it on the connection's own thread.

use crate::batch::{BatchLimits, Checked, check_produced, check_replicated};
use crate::ids::ConnId;
use crate::io::{LinkAnswer, Request};
use crate::wire::messages::produce_request::PartitionProduceData;
use crate::wire::{ApiKey, Records, RequestBody, RequestError, ResponseBody, decode_request, decode_response};
use bytes::Bytes;

/// Decodes one frame (without its four length bytes) and checks the records in it. After an error the connection must
/// be closed, as in Kafka.
pub fn prepare(conn: ConnId, frame: Bytes, limits: &BatchLimits) -> Result<Request, RequestError> {
    let (header, body) = decode_request(frame)?;
    let batches = check_batches(header.api_version, &body, limits);
    Ok(Request { conn, header, body, batches })
}

/// Decodes the answer of another node from one frame (without its four length bytes), and checks the records in it.
/// `asked`: what it is the answer to, and in which version.
pub fn prepare_answer(asked: (ApiKey, i16), frame: Bytes) -> LinkAnswer {
    let read = decode_response(asked.0, asked.1, frame);
    let batches = match &read {
        Ok((_, ResponseBody::Fetch(fetch))) => {
            let partitions = fetch.responses.iter().flat_map(|topic| &topic.partitions);
            let bytes = partitions.map(|found| found.records.as_ref().and_then(Records::bytes).unwrap_or_default());
            bytes.map(|bytes| check_replicated(&bytes)).collect()
        }
        _ => Vec::new(),
    };
    LinkAnswer { read, batches }
}

/// The verdict on the records of each partition, if the request is a Produce.
pub(super) fn check_batches(api_version: i16, body: &RequestBody, limits: &BatchLimits) -> Vec<Checked> {
    let RequestBody::Produce(produce) = body else { return Vec::new() };
    // KIP-110: zstd came with Produce version 7.
    let limits = BatchLimits { zstd_allowed: limits.zstd_allowed && api_version >= 7, ..*limits };
    let partitions = produce.topic_data.iter().flat_map(|topic| &topic.partition_data);
    partitions.map(|data| check_produced(records_of(data), &limits)).collect()
}

/// The records of one partition of a Produce, as they arrived.
pub(super) fn records_of(data: &PartitionProduceData) -> Bytes {
    data.records.as_ref().and_then(Records::bytes).unwrap_or_default()
}
