//! Cluster metadata: the image, its records, the decisions of the active controller.
//!
//! [`Image`] is the fold of the metadata log's records, Kafka's own. Every decision is a pure function of an image
//! and a request: it yields the records that make it so and the response, and changes nothing. Whoever calls
//! proposes the records to the quorum, all of them or none, and answers once they are committed.
//!
//! Invariant, kept by every decision and checked by [`Image::verify`]: what a record names exists.

mod brokers;
mod configs;
mod elections;
mod features;
mod image;
mod image_apply;
mod partitions;
mod producer_ids;
pub mod records;
#[cfg(test)]
mod tests;
mod topics;

pub use brokers::{
    BrokerStart, bootstrap_features, bootstrap_records, claim_partitions, register_broker, register_controller,
    shut_down_broker, unfence_broker,
};
pub use configs::{alter_configs, incremental_alter_configs};
pub use elections::{elect_leaders, list_reassignments};
pub use features::{KRAFT_VERSION, update_features};
pub use image::{
    ConfigResource, DIRECTORY_LOST, DIRECTORY_MIGRATING, DIRECTORY_UNASSIGNED, Image, ImageChange, ImageError, KeptKey,
    Partition, ResourceKind, Topic,
};
pub use partitions::create_partitions;
pub use producer_ids::{PRODUCER_ID_BLOCK, ProducerIdBlock, allocate_producer_ids};
pub use topics::{create_topics, delete_topics, validate_topic_name};

use crate::config::Layers;
use crate::ids::NodeId;
use crate::wire::{ErrorCode, MetadataRecord};
use bytestring::ByteString;

/// What is to be recorded, and what is then to be answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<R> {
    /// To be appended in one batch; none where nothing changes.
    pub records: Vec<MetadataRecord>,
    pub response: R,
}

/// What a decision knows beside the image.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub node_id: NodeId,
    /// The configuration of this node, with what the image says is dynamic.
    pub layers: Layers<'a>,
}

/// Why one item of a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub error: ErrorCode,
    pub message: Option<ByteString>,
}

impl Refusal {
    pub fn new(error: ErrorCode, message: impl Into<ByteString>) -> Self {
        Self { error, message: Some(message.into()) }
    }

    pub fn silent(error: ErrorCode) -> Self {
        Self { error, message: None }
    }
}

/// As many records as Kafka lets one request cause.
const MAX_RECORDS_PER_REQUEST: usize = 10_000;

fn too_many_records() -> Refusal {
    Refusal::new(ErrorCode::PolicyViolation, "Unable to perform excessively large batch operation.")
}
