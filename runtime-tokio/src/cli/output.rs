//! What commands print: tables for people, JSON for programs. A reader of our output that has gone is no error: it has
//! seen enough.

pub use crate::looks::{HELP, bold, count, has_colours};

use super::{Failure, Outcome};
use crate::looks::{ERROR, HEADING, WARNING};
use clap::ValueEnum;
use clap::builder::styling::Style;
use serde::Serialize;
use std::fmt::{self, Display, Write as _};
use std::io::{self, IsTerminal, Write};

/// Lines of help are no longer than this, however wide the terminal is: longer ones are hard to read.
pub const HELP_WIDTH_MAX: usize = 120;

/// A folded column is never narrower, even if the table does not fit then.
const FOLDED_WIDTH_MIN: usize = 14;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// JSON for programs.
    Json,
}

/// Rows under a head, in columns as wide as they need to be.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

struct Column {
    name: String,
    /// Numbers end at the same place, texts begin there.
    is_number: bool,
    /// Its cells go on in further lines where the table is wider than the terminal.
    folds: bool,
}

impl Table {
    pub fn new(head: &[&str]) -> Self {
        let column = |name: &&str| Column { name: (*name).to_owned(), is_number: false, folds: false };
        Self { columns: head.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Says which columns hold numbers.
    pub fn numbers(mut self, names: &[&str]) -> Self {
        names.iter().for_each(|name| self.column(name).is_number = true);
        self
    }

    /// Says which columns fold: the last of them first, and the others if that is not enough.
    pub fn fold(mut self, names: &[&str]) -> Self {
        names.iter().for_each(|name| self.column(name).folds = true);
        self
    }

    fn column(&mut self, name: &str) -> &mut Column {
        let found = self.columns.iter_mut().find(|column| column.name == name);
        found.unwrap_or_else(|| panic!("{name} is no column of this table"))
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(self.columns.len(), N, "as many cells as columns");
        self.rows.push(cells.into());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// For standard output. Only a terminal has a width: what goes to a file or a program has one line a row.
    pub fn text(&self) -> String {
        self.text_within(terminal_width().unwrap_or(usize::MAX))
    }

    fn text_within(&self, width_max: usize) -> String {
        let head: Vec<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        let widths = self.widths(width_max);
        let mut text = format!("{HEADING}{}{HEADING:#}\n", self.line(&head, &widths));
        for row in &self.rows {
            let folded: Vec<Vec<String>> = row.iter().zip(&widths).map(|(cell, width)| pieces(cell, *width)).collect();
            for index in 0..folded.iter().map(Vec::len).max().unwrap_or(0) {
                let line: Vec<String> =
                    folded.iter().map(|cell| cell.get(index).cloned().unwrap_or_default()).collect();
                let _ = writeln!(text, "{}", self.line(&line, &widths));
            }
        }
        text
    }

    fn widths(&self, width_max: usize) -> Vec<usize> {
        let chars = |text: &String| text.chars().count();
        let widest = |(index, column): (usize, &Column)| {
            self.rows.iter().map(|row| chars(&row[index])).chain([chars(&column.name)]).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(widest).collect();
        for folded in (0..widths.len()).rev().filter(|index| self.columns[*index].folds) {
            let all = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
            let room = widths[folded].saturating_sub(all.saturating_sub(width_max)).max(FOLDED_WIDTH_MIN);
            widths[folded] = widths[folded].min(room);
        }
        widths
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, width), column) in cells.iter().zip(widths).zip(&self.columns) {
            let _ = if column.is_number { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:width$}  ") };
        }
        line.trim_end().to_owned()
    }
}

/// A cell in pieces that fit a width, broken behind commas and dots where that is possible.
fn pieces(cell: &str, width: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for word in cell.split_inclusive([',', '.']) {
        let fits = |piece: &String, more: usize| piece.chars().count() + more <= width;
        if !fits(&pieces[pieces.len() - 1], word.chars().count()) && !pieces[pieces.len() - 1].is_empty() {
            pieces.push(String::new());
        }
        for char in word.chars() {
            if !fits(&pieces[pieces.len() - 1], 1) {
                pieces.push(String::new());
            }
            pieces.last_mut().expect("there is always one").push(char);
        }
    }
    pieces
}

/// How many columns standard output has, if it is a terminal.
fn terminal_width() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(io::stdout())?;
    Some(usize::from(width.0)).filter(|width| *width > 0)
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

/// Says something on standard error that is not the result. Where nobody reads it, there is nobody to be told that.
pub fn note(text: impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Says on standard error what a person should know, although the command goes on.
pub fn warn(text: impl Display) {
    note(Prefixed(WARNING, text));
}

/// Says on standard error what went wrong.
pub fn error(text: impl Display) {
    note(Prefixed(ERROR, text));
}

/// A text behind the program's name, which alone is coloured.
struct Prefixed<T>(Style, T);

impl<T: Display> Display for Prefixed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(style, text) = self;
        write!(f, "{style}tidelog:{style:#} {text}")
    }
}

/// Whether a person looks at standard error.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(table: &Table, width: usize) -> String {
        anstream::adapter::strip_str(&table.text_within(width)).to_string()
    }

    #[test]
    fn texts_begin_and_numbers_end_at_the_same_place_and_lines_end_without_blanks() {
        let mut table = Table::new(&["TOPIC", "RECORDS", "ID"]).numbers(&["RECORDS"]);
        table.row(["a".into(), count(1), String::new()]);
        table.row(["a-long-name".into(), count(1_234_567), "x".into()]);
        insta::assert_snapshot!(plain(&table, 10), @"
        TOPIC          RECORDS  ID
        a                    1
        a-long-name  1,234,567  x
        ");
    }

    #[test]
    fn a_long_value_goes_on_in_further_lines_where_the_terminal_is_too_narrow_for_it() {
        let mut table = Table::new(&["NAME", "VALUE", "FROM"]).fold(&["NAME", "VALUE"]);
        table.row(["short".into(), "1".into(), "default".into()]);
        table.row(["list".into(), "alpha,beta,gamma,delta,epsilon".into(), "topic".into()]);
        table.row(["text".into(), "abcdefghijklmnopqrstuvwxyz".into(), "topic".into()]);
        insta::assert_snapshot!(plain(&table, 35), @"
        NAME   VALUE                FROM
        short  1                    default
        list   alpha,beta,gamma,    topic
               delta,epsilon
        text   abcdefghijklmnopqrs  topic
               tuvwxyz
        ");
        assert!(plain(&table, 35).lines().all(|line| line.chars().count() <= 35));
        assert_eq!(plain(&table, usize::MAX).lines().count(), 4);
        table.row(["a.name.of.some.length".into(), String::new(), "default".into()]);
        assert!(plain(&table, 40).lines().all(|line| line.chars().count() <= 40), "{}", plain(&table, 40));
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is_one() {
        assert!(printed(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        assert!(printed(Err(io::ErrorKind::StorageFull.into())).is_err());
    }
}
