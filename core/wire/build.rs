//! Turns `schema/` into `wire::messages`: see `schema/README.md` for the notation.
#![allow(clippy::disallowed_methods)] // The rules of determinism are for what runs in the broker.

#[path = "build/generate.rs"]
mod generate;
#[path = "build/schema.rs"]
mod schema;

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=schema");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=build.rs");
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    let out = env::var("OUT_DIR").expect("cargo says where to write");

    let mut messages = vec![];
    let mut texts = String::from("[\n");
    for folder in sorted(&Path::new(&root).join("schema")) {
        if !folder.is_dir() {
            continue;
        }
        for path in sorted(&folder) {
            let file = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
            let folder = folder.file_name().expect("a folder has a name").to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            texts += &format!("({folder:?}, {file:?}, {text:?}),\n");
            messages.push((folder, schema::parse(&file, &text)));
        }
    }
    texts += "]";
    let write = |name, text| fs::write(Path::new(&out).join(name), text).expect("OUT_DIR can be written");
    write("messages.rs", generate::generate(&messages));
    // For the tests, which draw messages from the schemas.
    write("schemas.rs", texts);
}

fn sorted(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("the folder can be listed").path()).collect();
    paths.sort();
    paths
}
