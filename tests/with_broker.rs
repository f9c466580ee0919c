//! `with-broker [--set name=value]… COMMAND [ARGUMENT]…`: starts a fresh broker, runs the command with
//! `BROKER=127.0.0.1:PORT` in its environment, stops the broker cleanly, and exits successfully if the command did.
#![allow(clippy::disallowed_methods, reason = "this is the real world")]

use std::process::{Command, ExitCode};
use tidelog_tests::broker::Setup;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut setup = Setup::new(home.path());
    while arguments.next_if_eq("--set").is_some() {
        let pair = arguments.next().unwrap_or_default();
        let Some((name, value)) = pair.split_once('=') else {
            eprintln!("--set {pair}: allowed is name=value");
            return ExitCode::from(2);
        };
        setup = setup.set(name, value);
    }
    let Some(program) = arguments.next() else {
        eprintln!("no command is given; usage: with-broker [--set name=value]… COMMAND [ARGUMENT]…");
        return ExitCode::from(2);
    };
    let broker = setup.start();
    let status = Command::new(&program).args(arguments).env("BROKER", broker.address()).status();
    let log = broker.stop();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("--- {program}: {status}; the broker's log:\n{log}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}
