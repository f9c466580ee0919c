//! The cluster's metadata: the image, its records, and the decisions of the active controller.
//!
//! [`Image`] is the state that the records of the metadata log define. The records are Kafka's own. A decision is a
//! pure function of an image and a request: it returns records and a response, and changes nothing. The caller proposes
//! the records to the quorum, all of them or none, and sends the response once they are committed.
//!
//! Invariant, kept by every decision and checked by [`Image::verify`]: every topic, partition and replica that a record
//! refers to exists in the image.

#![forbid(unsafe_code)]

mod alter_partition;
mod broker_lifecycle;
mod brokers;
mod configs;
mod directories;
mod elections;
mod features;
mod heartbeats;
mod image;
mod image_apply;
mod image_diff;
mod initial_features;
mod partition_changes;
mod partitions;
mod placement;
mod producer_ids;
mod reassignments;
pub mod records;
mod registration;
#[cfg(test)]
mod tests;
mod topics;

pub use alter_partition::alter_partition;
pub use broker_lifecycle::{HeartbeatOutcome, broker_heartbeat, fence_silent_broker, unregister_broker};
pub use brokers::{BrokerStart, bootstrap_records};
pub use configs::{ConfigOperation, alter_configs, check_config_keys, incremental_alter_configs, repeated_resource};
pub use directories::assign_replicas_to_dirs;
pub use elections::{ElectionCounts, elect_leaders, elect_preferred_leaders, elect_unclean_leaders};
pub use features::{FeatureUpdate, KRAFT_VERSION, KRaftVersion, update_features};
pub use heartbeats::{BrokerState, Heartbeats};
pub use image::{
    ConfigResource, DIRECTORY_LOST, DIRECTORY_MIGRATING, DIRECTORY_UNASSIGNED, Image, ImageChange, ImageError, KeptKey,
    Partition, ResourceKind, Topic,
};
pub use initial_features::{InitialFeatures, bootstrap_features, known_releases};
pub use partitions::create_partitions;
pub use producer_ids::{PRODUCER_ID_BLOCK, ProducerIdBlock, allocate_producer_ids};
pub use reassignments::{alter_reassignments, list_reassignments};
pub use registration::{Registrar, register_broker, register_controller};
pub use topics::{create_topics, delete_topics, validate_topic_name};

use bytestring::ByteString;
use tidelog_config::Layers;
use tidelog_wire::ids::NodeId;
use tidelog_wire::{ErrorCode, MetadataRecord};

/// The records that a request causes, and the response to send once they are committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<R> {
    /// All of them are appended, or none. Empty if nothing changes.
    pub records: Vec<MetadataRecord>,
    pub response: R,
}

impl<R> Decision<R> {
    /// The same decision with another form of the response.
    pub fn map<S>(self, form: impl FnOnce(R) -> S) -> Decision<S> {
        Decision { records: self.records, response: form(self.response) }
    }
}

/// What a decision depends on in addition to the image and the request.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub node_id: NodeId,
    /// The configuration of this node, with the dynamic values of the image.
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

    /// For the name of a topic that does not exist.
    pub fn unknown_topic() -> Self {
        Self::new(ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition.")
    }
}

/// The most records that one request may cause, as in Kafka.
const MAX_RECORDS_PER_REQUEST: usize = 10_000;

fn too_many_records() -> Refusal {
    Refusal::new(ErrorCode::PolicyViolation, "Unable to perform excessively large batch operation.")
}
