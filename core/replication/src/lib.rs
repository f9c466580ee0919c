//! The replica of a partition on this broker: its log, its high watermark, and the requests that wait for the high
//! watermark.
//!
//! For now every partition has exactly one replica, and this broker is its leader. Hence the high watermark is the
//! log's stable offset. Followers and the set of in-sync replicas will be added here.

#![forbid(unsafe_code)]

mod counters;
mod partition;
mod partitions;

pub use counters::{TopicCounters, is_failure};
pub use partition::{
    Accepted, Leadership, Partition, PartitionEvent, PartitionRules, ProducedBatch, Refused, ReplicaCounts,
    ResponsePlace,
};
pub use partitions::Partitions;
