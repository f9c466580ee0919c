//! A simulated run of a scenario that the input chooses, watched by every checker.
//!
//! The input: a seed in eight bytes, then what chooses of it (`Scenario::chosen`). To see what an input is, and to shrink
//! it: `examples/scenario.rs`.
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
