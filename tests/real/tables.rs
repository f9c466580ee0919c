//! The tables of `docs/COMPATIBILITY.md` and `docs/CONFIGURATION.md` must say what the code says. With
//! `TIDELOG_REWRITE=1` the tests write the tables instead of checking them.
#![allow(clippy::disallowed_methods, reason = "this is the real world")]

use std::fs;
use std::path::Path;
use tidelog_core::config::{ConfigKey, Default, Effect, Kind, Update, Value, table};
use tidelog_core::wire::{ApiKey, versions};

const BEGIN: &str =
    "<!-- The table between these lines is written by `TIDELOG_REWRITE=1 cargo test -p tidelog-tests`. -->\n";
const END: &str = "<!-- End of the table. -->\n";

#[test]
fn the_api_table_of_the_compatibility_page_is_the_version_table() {
    is_written("docs/COMPATIBILITY.md", &[api_table()]);
}

#[test]
fn the_tables_of_the_configuration_page_are_the_brokers_own() {
    let broker = table::broker_keys().chain(table::DYNAMIC_ONLY);
    let others = [table::topic_keys(), table::client_metrics_keys()].map(|keys| config_table(keys, false));
    let [topic, client_metrics] = others;
    is_written("docs/CONFIGURATION.md", &[config_table(broker, true), topic, client_metrics]);
}

#[test]
fn the_readme_says_which_rust_it_needs_and_builds_from_the_lock_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("rust-version");
    let readme = fs::read_to_string(root.join("README.md")).expect("README.md");
    assert!(
        readme
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .contains(&format!("Rust {} or later", version.trim_matches('"'))),
        "README.md: rust {version}"
    );
    for line in readme.lines().filter(|line| line.contains("cargo install")) {
        assert!(line.contains("--locked"), "README.md: {line}");
    }
}

/// Compares the tables between the marker lines of a page, or writes them there.
fn is_written(page: &str, tables: &[String]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    let mut text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{page}: {error}"));
    let rewrite = std::env::var_os("TIDELOG_REWRITE").is_some();
    let mut from = 0;
    for table in tables {
        let begin = from + text[from..].find(BEGIN).expect("the line that begins the table") + BEGIN.len();
        let end = begin + text[begin..].find(END).expect("the line that ends the table");
        if rewrite {
            text.replace_range(begin..end, table);
        }
        assert!(
            text[begin..].starts_with(&format!("{table}{END}")),
            "{page}: run `TIDELOG_REWRITE=1 cargo test -p tidelog-tests --test tables`; the table is to be:\n{table}"
        );
        from = begin + table.len();
    }
    if rewrite {
        fs::write(&path, text).unwrap_or_else(|error| panic!("{page}: {error}"));
    }
}

/// One row for each name, in alphabetical order. `of_brokers` adds a column that says whether the name can be changed
/// while the broker runs.
fn config_table<'a>(keys: impl IntoIterator<Item = &'a ConfigKey>, of_brokers: bool) -> String {
    let mut keys: Vec<_> = keys.into_iter().filter(|key| !key.internal).collect();
    keys.sort_by_key(|key| key.name);
    let (head, rule) = if of_brokers { ("| changed ", "|---") } else { ("", "") };
    let mut table = format!("| name | type | default {head}| is | in Tidelog |\n|---|---|---{rule}|---|---|\n");
    for key in keys {
        let default = match key.default {
            Default::Required => "(here: one node with both roles)".to_owned(),
            Default::Null => "(none)".to_owned(),
            Default::Text("") => "(empty)".to_owned(),
            Default::Text(text) => format!("`{text}`"),
        };
        let update = match key.update {
            Update::ReadOnly => "| at a start ",
            Update::PerBroker => "| per broker ",
            Update::ClusterWide => "| any time ",
        };
        let update = if of_brokers { update } else { "" };
        let effect = match key.effect() {
            Effect::Works => match key.effect_of(&Value::List(vec!["compact".to_owned()])) {
                Effect::NotYet(why) => format!("works; `compact` removes **nothing yet**: {why}"),
                _ => "works".to_owned(),
            },
            Effect::NotNeeded(why) => format!("nothing to do: {why}"),
            Effect::NotYet(why) => format!("**no effect yet**: {why}"),
            Effect::Refused(why) => format!("**refused**: {why}"),
        };
        let allowed = match key.kind {
            Kind::Boolean => String::new(),
            _ if key.valid == tidelog_core::config::Valid::Any => String::new(),
            _ => format!(" Allowed: {}.", key.allowed().replace('|', "\\|")),
        };
        let (name, kind, is) = (key.name, kind(key.kind), key.documentation);
        table += &format!("| `{name}` | {kind} | {default} {update}| {is}{allowed} | {effect} |\n");
    }
    table
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Boolean => "boolean",
        Kind::String => "string",
        Kind::Int => "int",
        Kind::Short => "short",
        Kind::Long => "long",
        Kind::Double => "double",
        Kind::List => "list",
        Kind::Class => "class",
        Kind::Password => "password",
    }
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
