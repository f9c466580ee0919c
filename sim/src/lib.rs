//! The simulated world.
#![forbid(unsafe_code)]

pub mod disk;
pub mod random;
pub mod trace;
