//! Gives producer ids to brokers, in blocks (KIP-730).

use super::broker_lifecycle::check_broker_epoch;
use super::image::Image;
use super::{Decision, Refusal};
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::{NodeId, ProducerId};
use tidelog_wire::messages::ProducerIdsRecord;

/// How many producer ids a broker gets at once.
pub const PRODUCER_ID_BLOCK: i32 = 1000;

/// A block of producer ids, which one broker gives to producers. No other broker has any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    pub first: ProducerId,
    pub len: i32,
}

/// Allocates the next block. Ids that a broker has not used when it stops are lost, which 64 bits allow.
pub fn allocate_producer_ids(
    image: &Image,
    broker_id: NodeId,
    broker_epoch: i64,
) -> Decision<Result<ProducerIdBlock, Refusal>> {
    let refuse = |refusal| Decision { records: Vec::new(), response: Err(refusal) };
    if let Err(refusal) = check_broker_epoch(image, broker_id, broker_epoch) {
        return refuse(refusal);
    }
    let first = image.next_producer_id();
    let Some(next_producer_id) = first.checked_add(i64::from(PRODUCER_ID_BLOCK)) else {
        let text = format!("Exhausted all producerIds as the next block's end producerId is beyond {}", i64::MAX);
        return refuse(Refusal::new(ErrorCode::UnknownServerError, text));
    };
    let record =
        ProducerIdsRecord { broker_id: broker_id.0, broker_epoch, next_producer_id, ..ProducerIdsRecord::default() };
    let block = ProducerIdBlock { first: ProducerId(first), len: PRODUCER_ID_BLOCK };
    Decision { records: vec![record.into()], response: Ok(block) }
}
