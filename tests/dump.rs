//! Checks a log directory with two dump tools: Kafka's `DumpLogSegments`, and our own `tidelog log dump`.
//!
//! Kafka's tool exits successfully even if it finds faults. It only prints them, so this module searches its output for
//! the texts of faults.

use crate::broker::tidelog_binary;
use crate::kafka;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How much the dump of a whole log directory showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dumped {
    /// How many records of topics were decoded, without those of the cluster's metadata.
    pub records: usize,
    /// How many files of topics were dumped: segments, indexes, producer snapshots.
    pub files: usize,
}

/// Dumps every file of a log directory that no broker has open, with Kafka's tool; panics at the first fault.
pub fn assert_faultless(jars: &Path, data_dir: &Path) -> Dumped {
    let (mut files, mut indexes, mut metadata) = (Vec::new(), Vec::new(), Vec::new());
    for partition in directories(data_dir) {
        let is_metadata = partition.ends_with("__cluster_metadata-0");
        for file in entries(&partition).into_iter().filter(|path| path.is_file()) {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("log" | "checkpoint") if is_metadata => metadata.push(file),
                Some("index" | "timeindex") => {
                    indexes.push(file.clone());
                    files.push(file);
                }
                Some("log" | "snapshot") => files.push(file),
                _ => {}
            }
        }
    }
    assert!(!files.is_empty() && !metadata.is_empty(), "nothing to dump in {}", data_dir.display());

    let text = dump(jars, &["--deep-iteration"], &files);
    let records = text.lines().filter(|line| line.starts_with("| offset: ")).count();
    let text = dump(jars, &["--index-sanity-check"], &indexes);
    for index in &indexes {
        let name = index.display();
        assert!(
            text.contains(&format!("{name} passed sanity check.")) || text.contains(&format!("{name} is empty.")),
            "the tool says nothing about {name}:\n{text}"
        );
    }
    let text = dump(jars, &["--cluster-metadata-decoder"], &metadata);
    assert!(
        text.contains(r#""type":"REGISTER_BROKER_RECORD""#),
        "the metadata has no registration of the broker:\n{text}"
    );
    Dumped { records, files: files.len() }
}

/// Runs `tidelog log dump` over a whole log directory that no broker has open; panics if it finds a fault. Returns how
/// many records it shows, without those of the cluster's metadata.
pub fn assert_faultless_to_us(data_dir: &Path) -> usize {
    let output = Command::new(tidelog_binary())
        .args(["log", "dump", "--records", "--format", "json"])
        .arg(data_dir)
        .output()
        .expect("tidelog log dump");
    assert!(output.status.success(), "tidelog log dump: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter(|line| line.contains(r#","kind":"record","#)).count()
}

/// Runs Kafka's tool over files, panics if its output tells of a fault, and returns its standard output.
pub fn dump(jars: &Path, options: &[&str], files: &[PathBuf]) -> String {
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let output = kafka::quiet_tool(jars, "org.apache.kafka.tools.DumpLogSegments")
        .args(options)
        .arg("--files")
        .arg(names.join(","))
        .output()
        .expect("DumpLogSegments");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "DumpLogSegments: {complaints}");
    let fault = first_fault(&text, &complaints);
    assert_eq!(fault, None, "DumpLogSegments {options:?} finds a fault; all it complains of:\n{complaints}");
    text
}

fn first_fault<'a>(text: &'a str, complaints: &'a str) -> Option<&'a str> {
    let in_text = ["isvalid: false", "isValid: false", "invalid bytes", "Error at", "orrupt"];
    text.lines().find(|line| in_text.iter().any(|fault| line.contains(fault))).or_else(|| {
        // In Kafka 4.3 the tool prints one such pair with -1 for every file that does not begin at offset 0. It is no
        // fault.
        complaints.lines().find(|line| {
            !line.trim().is_empty()
                && !line.starts_with("Non-consecutive offsets in ")
                && !line.trim_start().starts_with("-1 is followed by ")
        })
    })
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    entries(dir).into_iter().filter(|path| path.is_dir()).collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::first_fault;

    #[test]
    fn every_complaint_of_the_tool_is_a_fault_except_the_one_it_prints_for_every_later_segment() {
        assert_eq!(first_fault("baseOffset: 0 crc: 1 isvalid: true", ""), None);
        assert_eq!(first_fault("", "Non-consecutive offsets in 5.log\n  -1 is followed by 5\n"), None);
        assert!(first_fault("", "Non-consecutive offsets in 5.log\n  7 is followed by 9\n").is_some());
        assert!(first_fault("baseOffset: 0 crc: 1 isvalid: false", "").is_some());
        assert!(first_fault("Found 7 invalid bytes at the end of 0.log", "").is_some());
        assert!(first_fault("", "Mismatches in :0.index\n  Index offset: 1, log offset: 2").is_some());
    }
}
