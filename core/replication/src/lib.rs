//! The replica of a partition on this broker: its log, whether it leads or follows, and the requests that wait for it.
//!
//! ```text
//!   leader.rs    what a leader knows of the others: progress, ISR          leading.rs   how a partition leads
//!   isr.rs       the in-sync replicas, and the change that is asked for    produce.rs   what a leader does with batches
//!   follower.rs  how a partition follows: append, cut                      waiting.rs   who waits for what
//!   fetchers.rs  who fetches which partitions from which leader
//! ```

#![forbid(unsafe_code)]

mod assignment;
mod counters;
mod fetchers;
mod follower;
mod isr;
mod leader;
mod leading;
mod partition;
mod partitions;
mod produce;
#[cfg(test)]
mod tests;
mod waiting;

pub use assignment::{Assignment, Brokers, Local};
pub use counters::{TopicCounters, is_failure};
pub use fetchers::{FetchSettings, FetcherAnswer, FetcherId, FetcherQuestion, FetcherResult, Fetchers};
pub use follower::{FetchPosition, Fetched, Taken};
pub use isr::{IsrAnswer, IsrProposal};
pub use leader::FollowerFetch;
pub use partition::{Partition, PartitionEvent, PartitionRules};
pub use partitions::Partitions;
pub use produce::{Accepted, ProducedBatch, Refused};
pub use waiting::{ResponsePlace, Until, Watched};
