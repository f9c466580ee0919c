//! Tests of the production world's shell. Each runs for many seeds, and each seed twice.
#![cfg(madsim)]

mod connections;
mod failures;
mod links;
mod streams;
