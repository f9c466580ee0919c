//! `tidelog-sim`: runs, shrinks, compares and shows seeds of the simulated world.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tool is a part of the real world: it has files, threads and a clock; what it runs has none"
)]

mod bench;
mod commands;
mod describe;
mod diff;
mod loops;
mod minimise;
mod planted;
mod probes;
mod run;
mod select;
mod sinks;
mod threads;
mod view;

fn main() -> std::process::ExitCode {
    commands::main()
}
