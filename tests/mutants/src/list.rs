//! What `cargo mutants --list --json` says.

use serde::Deserialize;
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Genre {
    BinaryOperator,
    FnValue,
    MatchArm,
    MatchArmGuard,
    StructField,
    UnaryOperator,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Mutant {
    /// Its place in the list, from 1.
    #[serde(skip)]
    pub id: usize,
    pub file: String,
    pub genre: Genre,
    /// What people read.
    pub name: String,
    pub replacement: String,
    pub span: Span,
}

impl Mutant {
    /// Its name without line and column, which change with every edit.
    pub fn anywhere(&self) -> String {
        anywhere(&self.name)
    }
}

/// `FILE:LINE:COLUMN: what` without line and column.
pub fn anywhere(name: &str) -> String {
    let (place, what) = name.split_once(": ").unwrap_or(("", name));
    let file = place.split(':').next().unwrap_or_default();
    format!("{file}: {what}")
}

/// The names in a list of explained mutants: each line, but for those that begin with `#` and say why.
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
