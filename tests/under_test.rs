//! The binary `tidelog` under another name, for the tests: cargo builds the binaries of a package along with its tests,
//! those of another package not. `TIDELOG_BIN` names one to test in its place.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidelog::cli::main()
}
