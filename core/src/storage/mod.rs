//! The log of one partition, and the directories logs live in.
//!
//! ```text
//!  LogDirs  ── a log directory: whose it is, its checkpoints, whether the last stop was clean
//!  Log      ── one partition: segments, epochs, producers
//!     append.rs      validate, assign offsets, write, roll, sync in groups
//!     read.rs        find the place of an offset, name a slice of a file
//!     timestamps.rs  find the first record at or after a timestamp
//!     recovery.rs    read a log back, after a clean stop or a crash
//!     retention.rs   drop the oldest segments, DeleteRecords, truncation, delayed deletion
//! ```
//!
//! Nothing here waits: each part emits I/O commands and takes their completions. Formats and names are Kafka's own.

mod append;
pub mod checkpoints;
mod indexes;
mod lane;
pub mod leader_epochs;
mod log;
pub mod log_dirs;
pub mod names;
pub mod offset_index;
pub mod producer_snapshot;
pub mod producer_state;
mod read;
mod recovery;
mod retention;
mod segment;
mod settings;
mod tail;
#[cfg(test)]
pub mod test_disk;
#[cfg(test)]
mod tests;
pub mod time_index;
mod timestamps;

pub use append::{Append, AppendError, Appended};
pub use log::{LoadHints, Log, LogEvent, LogPlace, LogState};
pub use log_dirs::{Booted, CheckpointKind, CheckpointWrites, DirEvent, LogDirs, LogDirsConfig, VolumeSizes};
pub use names::TopicPartition;
pub use read::{Fetched, ReadOutcome};
pub use settings::LogSettings;
pub use timestamps::{Lookup, LookupTarget, TimestampedOffset};
