//! Tells the tool how far it is optimised: a loop over seeds in an unoptimised build wastes everybody's time.
#![allow(clippy::disallowed_methods, reason = "a build script reads its environment")]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=TIDELOG_OPT_LEVEL={}", std::env::var("OPT_LEVEL").expect("cargo says so"));
}
