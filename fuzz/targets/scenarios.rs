//! A simulated run of a scenario that the input chooses, with every checker on.
//!
//! The input is a seed of eight bytes, then the bytes of the scenario's choices (`Scenario::chosen`).
//! `examples/scenario.rs` prints the scenario of an input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidelog_core::plant::Plants;
use tidelog_sim::scenario::Scenario;
use tidelog_sim::trace::Trace;
use tidelog_sim::world;

fuzz_target!(|input: (u64, &[u8])| {
    let (seed, chosen) = input;
    let outcome = world::run(&Scenario::chosen(seed, chosen), Plants::default(), Trace::default());
    if let Some(violation) = outcome.violation {
        panic!("{violation}");
    }
});
