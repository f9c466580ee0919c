//! What happens to a frame before it reaches the core: decoding, and the per-byte work on its records.
//!
//! Pure, and apart from the broker, so that a world runs it on the connection's own thread.

use crate::batch::{BatchLimits, check_produced};
use crate::ids::ConnId;
use crate::io::Request;
use crate::wire::{Records, RequestBody, RequestError, decode_request};
use bytes::Bytes;

/// Decodes one frame (without its four length bytes) and checks the records it carries. An error means that the
/// connection must be closed, as Kafka does: nothing says where the next request would begin.
pub fn prepare(conn: ConnId, listener: u16, frame: Bytes, limits: &BatchLimits) -> Result<Request, RequestError> {
    let (header, body) = decode_request(frame)?;
    let batches = match &body {
        RequestBody::Produce(produce) => produce
            .topic_data
            .iter()
            .flat_map(|topic| &topic.partition_data)
            .map(|partition| {
                check_produced(partition.records.as_ref().and_then(Records::bytes).unwrap_or_default(), limits)
            })
            .collect(),
        _ => Vec::new(),
    };
    Ok(Request { conn, listener, header, body, batches })
}
