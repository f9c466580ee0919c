//! The table of faults in docs/SIMULATION.md (the atlas) says how a seed draws each fault and which scripted tests show
//! it. This test compares it with what seeds draw and with the names of the tests.

use serde_json::Value;
use std::collections::BTreeSet;
use tidelog_sim::scenario::Scenario;

const PAGE: &str = include_str!("../../../docs/SIMULATION.md");
const SOURCES: [&str; 8] = [
    include_str!("../replication.rs"),
    include_str!("cluster.rs"),
    include_str!("config.rs"),
    include_str!("disk.rs"),
    include_str!("network.rs"),
    include_str!("process.rs"),
    include_str!("rest.rs"),
    include_str!("time.rs"),
];

/// A row of the atlas.
struct Row<'a> {
    drawn: BTreeSet<&'a str>,
    /// No seed draws it.
    never: bool,
    tests: BTreeSet<&'a str>,
}

/// The texts in backticks in a cell.
fn code(cell: &str) -> BTreeSet<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn rows() -> Vec<Row<'static>> {
    let (_, section) = PAGE.split_once("## Faults\n").expect("the page has an atlas");
    let (section, _) = section.split_once("\n## ").expect("and goes on");
    let cells = section.lines().filter(|line| line.starts_with("| ")).skip(1).map(|line| line.split(" | ").collect());
    let row = |cells: Vec<&'static str>| {
        let [_, drawn, _, tests] = cells[..] else { panic!("four cells: {cells:?}") };
        Row { drawn: code(drawn), never: drawn.starts_with("never"), tests: code(tests) }
    };
    cells.map(row).collect()
}

fn names_of_tests() -> BTreeSet<&'static str> {
    let of_source = |source: &'static str| {
        let after = source.split("#[test]\nfn ").skip(1);
        after.map(|rest| rest.split('(').next().expect("a function has parameters"))
    };
    SOURCES.into_iter().flat_map(of_source).collect()
}

/// The options, faults and configs in which the first seeds differ from a quiet world.
fn drawn() -> BTreeSet<String> {
    let quiet = serde_json::to_value(Scenario::default()).unwrap();
    let mut drawn = BTreeSet::new();
    for seed in 0..300 {
        let scenario = serde_json::to_value(Scenario::draw(seed)).unwrap();
        for part in ["network", "disk", "clock"] {
            let options = scenario[part].as_object().unwrap();
            let other = options.iter().filter(|(name, value)| quiet[part][name.as_str()] != **value);
            drawn.extend(other.map(|(name, _)| format!("{part}.{name}")));
        }
        for fault in scenario["faults"].as_array().unwrap() {
            match &fault["fault"] {
                Value::String(name) => drop(drawn.insert(name.clone())),
                Value::Object(fault) => {
                    for (name, fields) in fault {
                        drawn.insert(name.clone());
                        drawn.extend(fields["damage"].as_str().map(|damage| format!("{name}::{damage}")));
                    }
                }
                other => panic!("{other} is no fault"),
            }
        }
        for option in ["joining", "joins_by_itself"] {
            if scenario["cluster"][option] != quiet["cluster"][option] {
                drawn.insert(format!("cluster.{option}"));
            }
        }
        if scenario["clients"].as_array().unwrap().iter().any(|client| !client["role"]["Registrar"].is_null()) {
            drawn.insert("Registrar".into());
        }
        let topics = scenario["topics"].as_array().unwrap();
        if topics.iter().any(|topic| topic["without_timestamps"] == true) {
            drawn.insert("without_timestamps".into());
        }
        if topics.iter().any(|topic| topic["replicas"] != 1) {
            drawn.insert("replicas".into());
        }
        for configs in topics.iter().map(|topic| &topic["configs"]).chain([&scenario["properties"]]) {
            drawn.extend(configs.as_object().unwrap().keys().cloned());
        }
    }
    drawn
}

#[test]
fn every_scripted_test_shows_a_fault_of_the_atlas_and_every_fault_has_one() {
    let named: BTreeSet<&str> = rows().iter().flat_map(|row| row.tests.clone()).collect();
    assert_eq!(named.difference(&names_of_tests()).collect::<Vec<_>>(), [&""; 0], "no such test");
    assert_eq!(names_of_tests().difference(&named).collect::<Vec<_>>(), [&""; 0], "not in the atlas");
    assert!(rows().len() > 20 && rows().iter().all(|row| !row.tests.is_empty()));
}

#[test]
fn what_the_atlas_says_is_drawn_is_drawn_and_all_that_is_drawn_stands_there() {
    let drawn = drawn();
    for row in rows() {
        let differs: Vec<_> = row.drawn.iter().filter(|name| drawn.contains(**name) == row.never).collect();
        assert_eq!(differs, [&""; 0], "never: {}", row.never);
    }
    let rows = rows();
    let is_told = |name: &&String| rows.iter().any(|row| row.drawn.contains(name.as_str()));
    // Options that only say how long or slow another option's fault is have no row of their own.
    let is_measure =
        |name: &&String| ["clog_ns_max", "stall_ns_max", "slow_ns_per_byte"].iter().any(|m| name.ends_with(m));
    let missing: Vec<&String> = drawn.iter().filter(|name| !is_told(name) && !is_measure(name)).collect();
    assert!(missing.is_empty(), "drawn, and not in the atlas: {missing:?}");
}
