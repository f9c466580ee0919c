//! The shell's promises, each for many seeds, each seed twice.
#![cfg(madsim)]

mod connections;
mod lives;
mod streams;
