//! The tool in a shell: its errors for wrong arguments and files, and how it ends when the reader of its output closes
//! the pipe.
#![allow(clippy::disallowed_methods, reason = "a test is a part of the real world: it runs processes")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

fn tool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidelog-sim")).args(arguments).output().unwrap()
}

/// What the tool says of arguments that it cannot work with.
fn error(arguments: &[&str]) -> String {
    let output = tool(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn wrong_arguments_are_errors_that_say_what_is_wrong_and_no_panics() {
    assert!(error(&["run"]).contains("<--seed <SEED>|FILE>"), "{}", error(&["run"]));
    assert!(error(&["run", "51"]).contains("a seed is `--seed 51`"));
    assert!(
        error(&["run", "--seed", "1", "--override", "clients.0.bootstrap=[9]"])
            .contains("client 0 knows the nodes [9]")
    );
    let refused = error(&["run", "--seed", "1", "--override", "properties.log.index.interval.bytes=many"]);
    assert!(refused.contains("the brokers' configuration is refused: log.index.interval.bytes=many"), "{refused}");
    assert!(error(&["view", "--seed", "1", "-o", "no/such/view.html"]).contains("there is no directory no/such"));
    assert!(error(&["hash", "--seed", "1", "some.json"]).contains("cannot be used with"));
}

#[test]
fn a_loop_whose_reader_has_seen_enough_ends_without_a_word() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidelog-sim"))
        .args(["loop", "--seeds", "400", "--keep-going", "--plant", "Canary"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("--plant Canary"), "{first}");
    // The pipe is closed now: printing the next failing seed fails.
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
