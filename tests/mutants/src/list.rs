//! What `cargo mutants --list --json` says.

use serde::Deserialize;

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
