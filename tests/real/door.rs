//! The core cannot reach the world outside it: neither its source text nor its dependencies name anything that does.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Words in source text that mean I/O, time, threads, entropy, random order or shared state.
const WORLD: [&str; 24] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::env",
    "std::process",
    "std::os",
    "std::io::stdin",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime",
    "HashMap",
    "HashSet",
    "RandomState",
    "thread_local!",
    "static mut",
    "OnceLock",
    "LazyLock",
    "Mutex",
    "async fn",
    "unsafe {",
    "getrandom",
    "OsRng",
    "rand::rng",
];

/// The folders of the core's packages, from the door down.
const PACKAGES: [&str; 10] =
    [".", "client", "link", "controller", "replication", "quorum", "storage", "config", "batch", "wire"];

fn core() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../core")
}

#[test]
fn the_cores_sources_name_nothing_of_the_world() {
    let roots: Vec<PathBuf> = PACKAGES.iter().map(|package| core().join(package).join("src")).collect();
    let mut found = Vec::new();
    let mut directories = roots.clone();
    let mut files = 0;
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files += 1;
                let text = fs::read_to_string(&path).expect("a file");
                let code = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
                for (number, line) in code {
                    if let Some(word) = WORLD.iter().find(|word| line.contains(*word)) {
                        found.push(format!("{}:{}: {word}", path.display(), number + 1));
                    }
                }
            }
        }
    }
    assert!(files > 20, "the core has more files than {files}");
    assert!(found.is_empty(), "the core touches the world:\n{}", found.join("\n"));
    for root in roots {
        let lib = fs::read_to_string(root.join("lib.rs")).expect("lib.rs");
        assert!(lib.contains("#![forbid(unsafe_code)]"), "{}", root.display());
    }
}

#[test]
fn the_core_depends_on_nothing_that_reaches_the_world() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["tree", "--package", "tidelog-core", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(core())
        .output()
        .expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"bytes"), "a tree: {tree}");
    for world in ["tokio", "mio", "smol", "socket2", "rustix", "libc", "getrandom", "chrono", "time", "parking_lot"] {
        assert!(!names.contains(&world), "the core depends on {world}:\n{tree}");
    }
}
