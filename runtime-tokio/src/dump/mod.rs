//! `tidelog log dump`: shows the contents of the files of a log directory to a person or a program, and checks them.
//!
//! ```text
//!   paths ── files::of_name ──► what each file is ──► segment.rs, index.rs, small.rs ──► Line ──► report.rs ──► text, JSON
//!                                                      (core's own decoders)            fault
//! ```
//!
//! What Kafka's `DumpLogSegments` checks is checked here too, and more: checksums, the order of offsets and epochs,
//! where a log's valid part ends, indexes against the log beside them, producers against the offset of their
//! snapshot. A fault does not end the dump. Nothing is changed, and no lock is taken: a broker may be running, whose
//! last write can then look like a torn tail.
//!
//! Invariant: memory is bounded by the largest batch (at most [`batches::BATCH_BYTES_MAX`]), or, for the files that
//! the broker itself reads as a whole, by `files::WHOLE_FILE_BYTES_MAX`.

pub mod batches;
mod files;
mod index;
mod line;
mod records;
mod report;
mod segment;
mod small;
#[cfg(test)]
mod tests;

use files::{Content, Named};
use line::Line;
use report::Report;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Which files are shown, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct DumpArguments {
    /// Files, or directories of which every file is dumped
    #[arg(required = true, value_name = "FILE")]
    pub paths: Vec<PathBuf>,
    /// Show the records of each batch, and check them one by one
    #[arg(long, visible_aliases = ["print-data-log", "deep-iteration"])]
    pub records: bool,
    /// Take logs and snapshots for the cluster's metadata, whatever their directory's name
    #[arg(long, visible_alias = "cluster-metadata-decoder")]
    pub metadata: bool,
    /// Text for people, or one JSON object on each line
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// How many files were dumped, and what was wrong with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub files: u64,
    pub faults: u64,
    /// The first faults, each with its file and its place in the file. [`faults`](Self::faults) counts all of them.
    pub first_faults: Vec<String>,
}

/// Why a dump ended before everything was dumped.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("cannot dump {}: a file that can be dumped has one of these names: {}", .path.display(), files::READABLE)]
    Unknown { path: PathBuf },
    /// Whoever reads the output is gone, or its disk is full.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// Dumps what the arguments ask for. Every path is looked at before the first is dumped. `is_coloured` says whether
/// `out` is a terminal that shows colours.
pub fn dump(arguments: &DumpArguments, out: &mut dyn Write, is_coloured: bool) -> Result<Summary, DumpError> {
    let mut named = Vec::new();
    for path in &arguments.paths {
        let unreadable = |source| DumpError::Unreadable { path: path.clone(), source };
        if std::fs::metadata(path).map_err(unreadable)?.is_dir() {
            files::below(path, &mut named).map_err(|(path, source)| DumpError::Unreadable { path, source })?;
        } else {
            let content = files::of_name(path).ok_or_else(|| DumpError::Unknown { path: path.clone() })?;
            named.push((path.clone(), Some(content)));
        }
    }
    let mut report = Report::new(out, arguments.format, is_coloured);
    for (path, found) in named {
        let dumped = match found {
            Some(found) => one_file(&path, found, arguments, &mut report),
            None => report.skipped(&path),
        };
        if let Err(Stop::File(error) | Stop::Output(error)) = dumped {
            return Err(error.into());
        }
    }
    Ok(report.finish()?)
}

fn one_file(path: &Path, found: Named, arguments: &DumpArguments, report: &mut Report) -> Result<(), Stop> {
    report.begin(path)?;
    let is_metadata = arguments.metadata || found.is_metadata;
    let dumped = match found.content {
        Content::Log => segment::log(path, &found, arguments.records, is_metadata, report),
        Content::MetadataSnapshot => segment::metadata_snapshot(path, report),
        Content::OffsetIndex => index::offset_index(path, &found, report),
        Content::TimeIndex => index::time_index(path, &found, report),
        _ => small::whole_file(path, &found, report),
    };
    match dumped {
        Err(Stop::File(error)) => report.line(&Line::fault(format!("cannot read the file: {error}"))),
        dumped => dumped,
    }
}

/// Why the dump of a file ends early.
enum Stop {
    /// The file cannot be read. The dump goes on with the next file.
    File(io::Error),
    /// The output cannot be written. The dump ends.
    Output(io::Error),
}

/// `?` takes an error for one of reading, since most errors are. [`Report`] marks the errors of writing itself.
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}
