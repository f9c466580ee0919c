//! A replica of a partition: its log, how far it is committed, and who waits for that.
//!
//! For now every partition has one replica, and this broker leads it: the high watermark follows the log's own
//! stability. Followers and the in-sync set join here.

mod counters;
mod partition;
mod partitions;

pub use counters::{TopicCounters, is_failure};
pub use partition::{Accepted, Partition, PartitionEvent, PartitionRules, Refused, Slot};
pub use partitions::Partitions;
