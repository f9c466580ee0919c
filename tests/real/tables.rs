//! The tables of `docs/COMPATIBILITY.md` are what the code says. `TIDELOG_REWRITE=1` writes them anew.
#![allow(clippy::disallowed_methods, reason = "this is the real world")]

use std::fs;
use std::path::Path;
use tidelog_core::wire::{ApiKey, versions};

const BEGIN: &str =
    "<!-- The table between these lines is written by `TIDELOG_REWRITE=1 cargo test -p tidelog-tests`. -->\n";
const END: &str = "<!-- End of the table. -->\n";

#[test]
fn the_api_table_of_the_compatibility_page_is_the_version_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/COMPATIBILITY.md");
    let page = fs::read_to_string(&path).expect("docs/COMPATIBILITY.md");
    let begin = page.find(BEGIN).expect("the line that begins the table") + BEGIN.len();
    let end = page.find(END).expect("the line that ends the table");
    let table = api_table();
    if std::env::var_os("TIDELOG_REWRITE").is_some() {
        fs::write(&path, format!("{}{table}{}", &page[..begin], &page[end..])).expect("docs/COMPATIBILITY.md");
        return;
    }
    assert!(page[begin..end] == table, "run `TIDELOG_REWRITE=1 cargo test -p tidelog-tests --test tables`:\n{table}");
}

fn api_table() -> String {
    let mut table = String::from("| key | API | Kafka 4.3 | Tidelog |\n|---:|---|---|---|\n");
    for key in ApiKey::ALL.iter().copied().filter(|key| key.is_for_brokers()) {
        let Some(kafka) = key.versions() else { continue };
        let tidelog = versions::served(key).map_or("not yet".to_owned(), |range| text(range.start(), range.end()));
        let kafka = text(kafka.start(), kafka.end());
        table += &format!("| {} | {} | {kafka} | {tidelog} |\n", key as i16, key.name());
    }
    table
}

fn text(min: &i16, max: &i16) -> String {
    if min == max { min.to_string() } else { format!("{min}–{max}") }
}
