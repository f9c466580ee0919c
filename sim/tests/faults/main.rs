//! Scripted tests of the faults in docs/SIMULATION.md. Each test makes one fault happen, shows that it did, and asks
//! what the broker made of it. Every checker of the simulator watches.

mod atlas;
mod cluster;
mod config;
mod disk;
mod metadata;
mod network;
mod process;
mod rest;
mod time;
