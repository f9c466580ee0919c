//! The log of one partition, and the directories logs live in.

pub mod checkpoints;
pub mod leader_epochs;
pub mod log_dirs;
pub mod names;
pub mod offset_index;
pub mod producer_snapshot;
pub mod producer_state;
pub mod time_index;
