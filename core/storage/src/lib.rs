//! The log of one partition, and the log directories.
//!
//! ```text
//!  LogDirs  ── the log directories: the broker they belong to, their checkpoints, whether the last stop was clean
//!  Log      ── the log of one partition: segments, leader epochs, producer state
//!     append.rs      check a batch, assign its offsets, write it, sync, begin a new segment
//!     read.rs        find the slice of a file that holds the records from an offset on
//!     timestamps.rs  find the first record at or after a timestamp
//!     recovery.rs    read a log from the disk, after a clean stop or after a crash
//!     retention.rs   remove the oldest segments, DeleteRecords, truncation, deletion of the log
//! ```
//!
//! [`io`] is the vocabulary in which the broker and its world talk. It stands here because storage is the lowest layer
//! that uses it. [`probe`] and [`buggify`] serve simulations alone.
//!
//! Nothing here waits: each part emits I/O commands and takes their completions. The files have Kafka's names and
//! formats.

#![forbid(unsafe_code)]

mod append;
pub mod buggify;
pub mod checkpoints;
mod indexes;
pub mod io;
mod lane;
pub mod leader_epochs;
mod log;
pub mod log_dirs;
pub mod names;
pub mod offset_index;
pub mod probe;
pub mod producer_snapshot;
pub mod producer_state;
mod read;
mod recovery;
mod retention;
mod segment;
mod settings;
mod tail;
#[cfg(any(test, feature = "test-disk"))]
pub mod test_disk;
#[cfg(test)]
mod tests;
pub mod time_index;
mod timestamps;

pub use append::{Append, AppendError, Appended};
pub use log::{LoadHints, Log, LogEvent, LogPlace, LogState};
pub use log_dirs::{Booted, CheckpointKind, CheckpointWrites, DirEvent, DirState, LogDirs, LogDirsConfig, VolumeSizes};
pub use names::TopicPartition;
pub use read::{Fetched, ReadOutcome};
pub use recovery::Recovery;
pub use settings::LogSettings;
pub use timestamps::{Lookup, LookupTarget, TimestampedOffset};
