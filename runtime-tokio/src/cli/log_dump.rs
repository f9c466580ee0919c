//! `tidelog log`: the files of a log directory, without a broker.

use super::output::{count, has_colours};
use super::{Failure, Outcome};
use crate::dump::{DumpArguments, DumpError, Summary, dump};
use clap::Subcommand;
use std::fmt::Write as _;
use std::io;

#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Show what stands in the files of a log directory, and check it
    ///
    /// Reads segments with their indexes, snapshots of producers, checkpoints, the metadata log and its snapshots.
    /// Checksums, the order of offsets, the end of each log and each index against its log are checked; what is wrong
    /// is a line that begins with FAULT. Nothing is changed, and a broker may be running on the directory.
    ///
    /// Exit code: 0 where nothing is wrong, 1 where something is, 2 for a name that is none of a log directory's.
    #[command(after_help = "Examples:
  tidelog log dump data                         every file, every batch
  tidelog log dump --records data/orders-0      every record
  tidelog log dump data/__cluster_metadata-0    the cluster's metadata
  tidelog log dump --format json data | jq 'select(.kind == \"fault\")'")]
    Dump(DumpArguments),
}

impl LogCommand {
    pub fn run(&self) -> Outcome {
        let Self::Dump(arguments) = self;
        let mut out = io::stdout().lock();
        let is_coloured = has_colours(&out);
        match dump(arguments, &mut out, is_coloured) {
            Ok(summary) if summary.faults == 0 => Ok(()),
            Ok(summary) => Err(Failure::of(faults(&summary))),
            // The reader of our output has closed it, which is no failure.
            Err(DumpError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error @ DumpError::Unknown { .. }) => Err(Failure::usage(error)),
            Err(error) => Err(Failure::of(error)),
        }
    }
}

fn faults(summary: &Summary) -> String {
    let Summary { files, faults, first_faults } = summary;
    let plural = |count: u64| if count == 1 { "" } else { "s" };
    let mut text = format!("{} fault{} in {} file{}:", count(faults), plural(*faults), count(files), plural(*files));
    for fault in first_faults {
        let _ = write!(text, "\n  {fault}");
    }
    let more = faults - first_faults.len() as u64;
    if more > 0 {
        let _ = write!(text, "\n  and {} more", count(more));
    }
    text
}
