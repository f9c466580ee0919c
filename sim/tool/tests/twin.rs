//! Twin runs: a seed must do exactly the same in two processes. A difference shows randomness, time or an order that
//! did not come from the seed.
#![allow(clippy::disallowed_methods, reason = "a twin run needs processes")]

use std::process::{Command, Output};

fn tool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidelog-sim")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn two_processes_run_the_same_seeds_alike() {
    let output = tool(&["diff", "--seed", "1000", "--seeds", "64"]);
    assert!(output.status.success(), "{}{}", said(&output), String::from_utf8_lossy(&output.stderr));
    assert!(said(&output).ends_with("64 runs are the same in both\n"), "{}", said(&output));
}

#[test]
fn the_first_event_that_differs_is_named_and_all_before_it_is_the_same() {
    let output = tool(&["diff", "--seed", "1", "--with-plant", "AcknowledgeBeforeSync"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let (before, after) = said.split_once("they part at event ").expect(&said);
    assert!(!before.contains("\nA ") && !before.contains("\nB "), "{said}");
    let event = |mark: &str| after.lines().find_map(|line| line.strip_prefix(mark)?.split_whitespace().next());
    let named = after.split_once(':').map(|(event, _)| event);
    assert!(named.is_some() && event("A") == named && event("B") == named, "{said}");
}

#[test]
fn other_seeds_have_other_hashes() {
    let all = said(&tool(&["hash", "--seed", "0", "--seeds", "20"]));
    let distinct: std::collections::BTreeSet<&str> =
        all.lines().filter_map(|line| line.split("hash ").nth(1)).collect();
    assert_eq!(distinct.len(), 20);
}
