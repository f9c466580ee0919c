//! The binary `tidelog` under another name, for the tests. Cargo builds the binaries of a package along with its tests,
//! but not those of other packages. `TIDELOG_BIN` names another binary to test in its place.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidelog::cli::main()
}
