//! Where the lines go, and what is counted of them.

use super::line::{Line, fmt_place};
use super::{Format, Stop, Summary};
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;

/// How many faults are told again at the end.
const REPEATED_FAULTS_MAX: usize = 10;

/// The output of a dump.
pub struct Report<'a> {
    out: io::BufWriter<&'a mut dyn Write>,
    format: Format,
    file: String,
    summary: Summary,
}

/// A line as an object that stands for itself.
#[derive(Serialize)]
struct Object<'a> {
    file: &'a str,
    #[serde(flatten)]
    line: &'a Line,
}

impl<'a> Report<'a> {
    pub fn new(out: &'a mut dyn Write, format: Format) -> Self {
        Self { out: io::BufWriter::new(out), format, file: String::new(), summary: Summary::default() }
    }

    /// What follows is about this file.
    pub fn begin(&mut self, file: &Path) -> Result<(), Stop> {
        self.file = file.display().to_string();
        self.summary.files += 1;
        if self.format == Format::Text {
            writeln!(self.out, "{}", self.file).map_err(Stop::Output)?;
        }
        Ok(())
    }

    /// A file of a directory that is none of ours.
    pub fn skipped(&mut self, file: &Path) -> Result<(), Stop> {
        self.begin(file)?;
        self.summary.files -= 1;
        self.note("skipped: no name of a file that this can read")
    }

    pub fn note(&mut self, text: impl Into<String>) -> Result<(), Stop> {
        self.line(&Line::Note { text: text.into() })
    }

    pub fn line(&mut self, line: &Line) -> Result<(), Stop> {
        if let Line::Fault { position, offset, text } = line {
            self.summary.faults += 1;
            if self.summary.first_faults.len() < REPEATED_FAULTS_MAX {
                let mut told = format!("{}: ", self.file);
                fmt_place(&mut told, *position, *offset).expect("writing to a String");
                self.summary.first_faults.push(told + text);
            }
        }
        let written = match self.format {
            Format::Text => writeln!(self.out, "  {line}"),
            Format::Json => serde_json::to_writer(&mut self.out, &Object { file: &self.file, line })
                .map_err(io::Error::from)
                .and_then(|()| writeln!(self.out)),
        };
        written.map_err(Stop::Output)
    }

    pub fn finish(mut self) -> io::Result<Summary> {
        self.out.flush()?;
        Ok(self.summary)
    }
}
