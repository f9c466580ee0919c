//! The output of a dump: writes each line as text or as JSON, and counts files and faults for the summary.

use super::line::{Line, fmt_place};
use super::{Format, Stop, Summary};
use crate::looks::{ERROR, HEADING, WARNING};
use clap::builder::styling::Style;
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;

/// How many faults the summary repeats at the end of the dump.
const REPEATED_FAULTS_MAX: usize = 10;

/// The output of a dump.
pub struct Report<'a> {
    out: io::BufWriter<&'a mut dyn Write>,
    format: Format,
    /// Whether text is for a terminal that shows colours.
    is_coloured: bool,
    /// The file that the lines are about.
    file: String,
    summary: Summary,
}

/// A line in JSON. It names its file, so that it can be understood without the lines before it.
#[derive(Serialize)]
struct Object<'a> {
    file: &'a str,
    #[serde(flatten)]
    line: &'a Line,
}

impl<'a> Report<'a> {
    pub fn new(out: &'a mut dyn Write, format: Format, is_coloured: bool) -> Self {
        Self { out: io::BufWriter::new(out), format, is_coloured, file: String::new(), summary: Summary::default() }
    }

    /// Begins a file: the lines that follow are about it.
    pub fn begin(&mut self, file: &Path) -> Result<(), Stop> {
        self.file = file.display().to_string();
        self.summary.files += 1;
        if self.format == Format::Text {
            let style = self.style(HEADING);
            writeln!(self.out, "{style}{}{style:#}", self.file).map_err(Stop::Output)?;
        }
        Ok(())
    }

    /// A file that was found in a directory, and whose name is not that of a file which can be dumped. It does not
    /// count as a file of the dump.
    pub fn skipped(&mut self, file: &Path) -> Result<(), Stop> {
        self.begin(file)?;
        self.summary.files -= 1;
        self.note("skipped: its name is not that of a file which can be dumped")
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
            Format::Text => {
                let style = match line {
                    Line::Fault { .. } | Line::Batch { is_valid: false, .. } => self.style(ERROR),
                    Line::Note { .. } => self.style(WARNING),
                    _ => Style::new(),
                };
                writeln!(self.out, "  {style}{line}{style:#}")
            }
            Format::Json => serde_json::to_writer(&mut self.out, &Object { file: &self.file, line })
                .map_err(io::Error::from)
                .and_then(|()| writeln!(self.out)),
        };
        written.map_err(Stop::Output)
    }

    fn style(&self, style: Style) -> Style {
        if self.is_coloured { style } else { Style::new() }
    }

    pub fn finish(mut self) -> io::Result<Summary> {
        self.out.flush()?;
        Ok(self.summary)
    }
}
