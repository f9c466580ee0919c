//! The work on a request before the broker gets it: decoding, and checking every byte of its records.
//!
//! It is a pure function that needs no broker, so that a world can run it on the connection's own thread.

use crate::batch::{BatchLimits, Checked, check_produced};
use crate::ids::ConnId;
use crate::io::Request;
use crate::wire::messages::produce_request::PartitionProduceData;
use crate::wire::{Records, RequestBody, RequestError, decode_request};
use bytes::Bytes;

/// Decodes one frame (without its four length bytes) and checks the records in it. After an error the connection must
/// be closed, as in Kafka.
pub fn prepare(conn: ConnId, listener: u16, frame: Bytes, limits: &BatchLimits) -> Result<Request, RequestError> {
    let (header, body) = decode_request(frame)?;
    let batches = check_batches(header.api_version, &body, limits);
    Ok(Request { conn, listener, header, body, batches })
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
