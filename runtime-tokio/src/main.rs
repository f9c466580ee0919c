//! The binary `tidelog`: see [`tidelog::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    tidelog::cli::main()
}
