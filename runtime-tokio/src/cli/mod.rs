//! The command line: one file a command.
//!
//! | exit code | means |
//! |---:|---|
//! | 0 | done; for a broker, after a clean stop; also where the reader of our output has gone, or after Ctrl-C |
//! | 1 | it could not be done, or not all of it: standard error says what, where and what to do |
//! | 2 | the command line or a configuration is wrong: nothing was done |
//!
//! Results go to standard output, everything else to standard error.

mod bench;
mod cluster;
mod completion;
mod config;
mod consume;
mod input;
mod log_dump;
mod output;
mod produce;
mod record;
mod session;
mod start;
mod topic;

use crate::logging;
use clap::{Parser, Subcommand};
use std::fmt;
use std::process::ExitCode;

const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// A Kafka-compatible broker: durable by default, one binary.
///
/// Without a command: a broker on 127.0.0.1:9092 with its data in ./tidelog-data.
#[derive(Debug, Parser)]
#[command(
    name = "tidelog",
    bin_name = "tidelog",
    version,
    after_help = "\
Examples:
  tidelog                                                  a broker for this machine
  tidelog topic create orders --partitions 3
  echo hello | tidelog produce orders
  tidelog consume orders --from-beginning

Exit codes: 0 done, 1 failed, 2 the command line or a configuration is wrong."
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// What is logged: error, warn, info, debug, trace, or a list such as info,tidelog::connection=debug.
    /// Otherwise RUST_LOG says it, otherwise it is info.
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a broker.
    Start(start::Start),
    /// Create, list, describe, alter and delete topics.
    #[command(subcommand)]
    Topic(topic::Topic),
    /// Send the lines of standard input to a topic.
    Produce(produce::Produce),
    /// Print the records of a topic.
    Consume(consume::Consume),
    /// Show and change configurations of topics and brokers.
    #[command(subcommand)]
    Config(config::Config),
    /// Show the cluster and its brokers.
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Look into the files of a log directory.
    #[command(subcommand)]
    Log(log_dump::LogCommand),
    /// Measure what a cluster takes and gives.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Print a completion script for a shell.
    Completion(completion::Completion),
}

/// How a command ended.
type Outcome = Result<(), Failure>;

/// Why a command did not do all that it was to do.
#[derive(Debug)]
struct Failure {
    exit_code: u8,
    text: String,
}

impl Failure {
    fn of(error: impl fmt::Display) -> Self {
        Self { exit_code: EXIT_FAILURE, text: error.to_string() }
    }

    /// What the user gave us is wrong.
    fn usage(error: impl fmt::Display) -> Self {
        Self { exit_code: EXIT_USAGE, text: error.to_string() }
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // `--help` and `--version` come here too, and are no errors.
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { exit_code, text }) => {
            output::note(format_args!("tidelog: {text}"));
            ExitCode::from(exit_code)
        }
    }
}

fn run(arguments: Arguments) -> Outcome {
    let environment = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    logging::start(arguments.log_level.as_deref(), environment.as_deref()).map_err(Failure::usage)?;
    match arguments.command {
        None => start::Start::default().run(),
        Some(Command::Start(start)) => start.run(),
        Some(Command::Topic(topic)) => topic.run(),
        Some(Command::Produce(produce)) => produce.run(),
        Some(Command::Consume(consume)) => consume.run(),
        Some(Command::Config(config)) => config.run(),
        Some(Command::Cluster(cluster)) => cluster.run(),
        Some(Command::Log(command)) => command.run(),
        Some(Command::Bench(bench)) => bench.run(),
        Some(Command::Completion(completion)) => completion.run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_contradict_each_other_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_argument_at_all_starts_a_broker() {
        assert!(Arguments::try_parse_from(["tidelog"]).unwrap().command.is_none());
    }
}
