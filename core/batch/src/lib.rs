//! Record batches, magic 2: what a producer sends, a log stores and a consumer reads.
//!
//! ```text
//!             check_produced               fits_topic, assign
//!   frame ────────────────────► CheckedBatch ────────────────► header (61 bytes) + records (a slice of the frame)
//!         all work on each byte,             the topic's rules
//!         outside the core                   and offsets, in the core
//! ```
//!
//! Everything here is a pure function of bytes. Two invariants hold throughout:
//!
//! - Every consumer can read a [`CheckedBatch`]: its checksum is right, its records are exactly as many and as long as
//!   it says, their offsets are consecutive, and compressed records decompress. Of a batch that was replicated from
//!   another broker, the checksum is checked here, and the rest was checked there.
//! - No number in a batch is used before it was compared with the bytes that are there. [`BatchLimits`] bounds memory
//!   and work, whatever the bytes claim.
//!
//! Record bytes are never copied on the way through: [`CheckedBatch::assign`] writes a fresh header, and the records
//! stay the slice of the frame they arrived in.

#![forbid(unsafe_code)]

mod builder;
mod check;
mod checksum;
pub mod compression;
mod control;
mod error;
mod header;
#[cfg(any(test, not(feature = "zstd-c")))]
mod pure_zstd;
mod record;
mod scan;
mod source;
mod topic;
mod varint;
mod xerial;

pub use builder::BatchBuilder;
pub use check::{
    BatchFacts, BatchLimits, Checked, CheckedBatch, check_own, check_own_with, check_produced, check_produced_with,
    check_replicated,
};
pub use checksum::verify_checksum;
pub use compression::{Codec, Scratch};
pub use control::{ControlRecord, ControlType};
pub use error::{BatchError, RecordError};
pub use header::{BatchHeader, NO_SEQUENCE, NO_TIMESTAMP, TimestampType};
pub use record::{Record, RecordHeader, RecordIter, find_record, records};
pub use scan::{Scan, ScanStop, ScannedBatch, only_zeros};
pub use topic::TopicBatchRules;

/// Pieces of bytes that are written one after the other. They are not copied into one piece.
pub type Chunks = smallvec::SmallVec<[bytes::Bytes; 2]>;

#[cfg(test)]
mod tests;
