//! What commands print: tables for people, JSON for programs. Styles go only to a terminal, and not where `NO_COLOR`
//! is set. A reader that has gone is no error: it has seen enough.

use super::{Failure, Outcome};
use clap::ValueEnum;
use clap::builder::styling::Style;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// JSON for programs.
    Json,
}

/// Rows under a head, in columns as wide as they need to be.
#[derive(Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|text| (*text).to_owned()).collect()] }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(self.rows[0].len(), N, "as many cells as columns");
        self.rows.push(cells.into());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    pub fn text(&self) -> String {
        let widths: Vec<usize> = (0..self.rows[0].len())
            .map(|column| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for (row, index) in self.rows.iter().zip(0..) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            let line = line.trim_end();
            let _ = if index == 0 { writeln!(text, "{}", bold(line)) } else { writeln!(text, "{line}") };
        }
        text
    }
}

pub fn bold(text: &str) -> String {
    let style = Style::new().bold();
    format!("{style}{text}{style:#}")
}

/// Prints what [`Table::text`] and [`bold`] made.
pub fn print(text: &str) -> Outcome {
    let mut out = anstream::stdout().lock();
    printed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

pub fn print_json(value: &impl Serialize) -> Outcome {
    let mut text = serde_json::to_string_pretty(value).expect("it has only what JSON has");
    text.push('\n');
    print(&text)
}

/// Whether it could be printed. That nobody reads is no failure.
pub fn printed(result: io::Result<()>) -> Outcome {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::of(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Says something on standard error that is not the result.
pub fn note(text: impl std::fmt::Display) {
    anstream::eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_blanks() {
        let mut table = Table::new(&["TOPIC", "PARTITIONS"]);
        table.row(["a".into(), "1".into()]);
        table.row(["a-long-name".into(), String::new()]);
        let plain = anstream::adapter::strip_str(&table.text()).to_string();
        insta::assert_snapshot!(plain, @"
        TOPIC        PARTITIONS
        a            1
        a-long-name
        ");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is_one() {
        assert!(printed(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        assert!(printed(Err(io::ErrorKind::StorageFull.into())).is_err());
    }
}
