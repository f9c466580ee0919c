//! Reads the output of `cargo mutants --list --json`.

use serde::Deserialize;
use std::collections::BTreeSet;

/// What kind of code a mutant replaces, in cargo-mutants' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Genre {
    BinaryOperator,
    FnValue,
    MatchArm,
    MatchArmGuard,
    StructField,
    UnaryOperator,
}

/// One mutant of the list.
#[derive(Clone, Debug, Deserialize)]
pub struct Mutant {
    /// The mutant's number in the list, from 1.
    #[serde(skip)]
    pub id: usize,
    pub file: String,
    pub genre: Genre,
    /// The description for people: `FILE:LINE:COLUMN: what is replaced`.
    pub name: String,
    pub replacement: String,
    pub span: Span,
}

impl Mutant {
    /// The name without line and column, which change with every edit of the file.
    pub fn without_position(&self) -> String {
        without_position(&self.name)
    }
}

/// `FILE:LINE:COLUMN: what` without line and column.
pub fn without_position(name: &str) -> String {
    let (place, what) = name.split_once(": ").unwrap_or(("", name));
    let file = place.split(':').next().unwrap_or_default();
    format!("{file}: {what}")
}

/// The names in a list of explained mutants. Lines that begin with `#` are the explanations.
pub fn explained(text: &str) -> BTreeSet<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Span {
    pub start: Place,
}

/// Both from 1.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

pub fn parse(json: &str) -> serde_json::Result<Vec<Mutant>> {
    let mut mutants: Vec<Mutant> = serde_json::from_str(json)?;
    for (place, mutant) in mutants.iter_mut().enumerate() {
        mutant.id = place + 1;
    }
    Ok(mutants)
}
