//! The twin run: the same seeds in two processes must do exactly the same. A difference is a source of randomness, of
//! time or of order that did not come from the seed.
#![allow(clippy::disallowed_methods, reason = "a twin run needs processes")]

use std::process::Command;

fn hashes(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tidelog-sim")).arg("hash").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn two_processes_run_the_same_seeds_alike() {
    let arguments = ["--seed", "1000", "--seeds", "40", "--kept"];
    let (one, other) = (hashes(&arguments), hashes(&arguments));
    assert_eq!(one.lines().filter(|line| line.starts_with("seed ")).count(), 40);
    let differs = one.lines().zip(other.lines()).find(|(one, other)| one != other);
    assert_eq!(differs, None, "the runs part here");
    assert_eq!(one, other);
}

#[test]
fn other_seeds_have_other_hashes() {
    let all = hashes(&["--seed", "0", "--seeds", "20"]);
    let distinct: std::collections::BTreeSet<&str> =
        all.lines().filter_map(|line| line.split("hash ").nth(1)).collect();
    assert_eq!(distinct.len(), 20);
}
