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
mod format;
mod health;
mod input;
mod log_dirs;
mod log_dump;
mod number;
mod output;
mod produce;
mod properties;
mod quorum;
mod random_uuid;
mod record;
mod session;
mod start;
mod topic;
mod trim;
mod watch;

use crate::logging;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::any::TypeId;
use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;

const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// The option's id.
const BOOTSTRAP_SERVER: &str = "bootstrap_server";

/// A Kafka-compatible broker: durable by default, one binary.
///
/// Without a command: a broker on 127.0.0.1:9092 with its data in ./tidelog-data.
#[derive(Debug, Parser)]
#[command(
    name = "tidelog",
    bin_name = "tidelog",
    version,
    styles = output::HELP,
    max_term_width = output::HELP_WIDTH_MAX,
    after_help = "\
Examples:
  tidelog                                     a broker for this machine
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
    /// A broker to begin with, for commands that talk to a cluster. May stand before or after the command.
    #[arg(long, short = 'b', visible_alias = "bootstrap-servers", global = true, value_name = "HOST[:PORT]")]
    bootstrap_server: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a broker.
    Start(start::Start),
    Format(format::Format),
    /// Print a random id, for a cluster or a directory.
    RandomUuid(random_uuid::RandomUuid),
    /// Create, list, describe, alter, trim and delete topics.
    #[command(subcommand)]
    Topic(topic::Topic),
    /// Send the lines of standard input to a topic.
    Produce(produce::Produce),
    /// Print the records of topics.
    Consume(consume::Consume),
    /// Show and change configurations of topics and brokers, and check a broker's file.
    #[command(subcommand)]
    Config(config::Config),
    /// Show the cluster and its brokers.
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Say whether a cluster is well: brokers, leaders, replicas, log directories, quorum.
    Health(health::Health),
    /// Show the log directories of brokers: what lies in them, and how much room there is.
    LogDirs(log_dirs::LogDirs),
    /// Show the quorum of the cluster's metadata.
    #[command(subcommand)]
    Quorum(quorum::Quorum),
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

/// The commands that talk to no cluster.
const ALONE: &[&[&str]] =
    &[&[], &["start"], &["format"], &["random-uuid"], &["config", "check"], &["log", "dump"], &["completion"]];

/// The command line, with what goes for all of its commands.
fn command() -> clap::Command {
    completion::with_completers(with_negative_numbers(without_address(Arguments::command())))
}

/// The help of commands that talk to no cluster does not show the option that names one.
fn without_address(command: clap::Command) -> clap::Command {
    fn hide(command: clap::Command, path: &[&str]) -> clap::Command {
        match path {
            [] => command.arg(Arg::new(BOOTSTRAP_SERVER).long("bootstrap-server").short('b').hide(true)),
            [name, rest @ ..] => command.mut_subcommand(name, |command| hide(command, rest)),
        }
    }
    ALONE.iter().filter(|path| !path.is_empty()).fold(command, |command, path| hide(command, path))
}

/// A number that is negative is a value, and no option: whoever gives one where it is not allowed is told what is.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let is_number = |arg: &Arg| {
        let kind = arg.get_value_parser().type_id();
        let kinds = [TypeId::of::<i16>(), TypeId::of::<i32>(), TypeId::of::<i64>(), TypeId::of::<u16>()];
        let more = [TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>(), TypeId::of::<f64>()];
        kinds.into_iter().chain(more).any(|number| kind == number)
    };
    command
        .mut_args(|arg| if is_number(&arg) { arg.allow_negative_numbers(true) } else { arg })
        .mut_subcommands(with_negative_numbers)
}

fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(words)?;
    let (mut path, mut last) = (Vec::new(), &matches);
    while let Some((name, of_command)) = last.subcommand() {
        path.push(name);
        last = of_command;
    }
    if ALONE.contains(&&path[..]) && last.value_source(BOOTSTRAP_SERVER) == Some(ValueSource::CommandLine) {
        let name = [&["tidelog"], &path[..]].concat().join(" ");
        let text = format!("`{name}` talks to no cluster: --bootstrap-server has no effect on it");
        return Err(command.error(ErrorKind::ArgumentConflict, text));
    }
    Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// The whole program.
pub fn main() -> ExitCode {
    completion::answer_a_shell();
    let arguments = match parse(std::env::args_os()) {
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
            output::error(text);
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
        Some(Command::Format(format)) => format.run(),
        Some(Command::RandomUuid(random_uuid)) => random_uuid.run(),
        Some(Command::Topic(topic)) => topic.run(),
        Some(Command::Produce(produce)) => produce.run(),
        Some(Command::Consume(consume)) => consume.run(),
        Some(Command::Config(config)) => config.run(),
        Some(Command::Cluster(cluster)) => cluster.run(),
        Some(Command::Health(health)) => health.run(),
        Some(Command::LogDirs(log_dirs)) => log_dirs.run(),
        Some(Command::Quorum(quorum)) => quorum.run(),
        Some(Command::Log(command)) => command.run(),
        Some(Command::Bench(bench)) => bench.run(),
        Some(Command::Completion(completion)) => completion.run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Arguments, String> {
        parse(words.iter().map(OsString::from)).map_err(|error| error.to_string())
    }

    fn refused(words: &[&str]) -> String {
        parsed(words).unwrap_err().lines().next().unwrap_or_default().to_owned()
    }

    /// The command that lists topics, as it was given its options.
    fn list(words: &[&str]) -> String {
        match parsed(words).unwrap().command {
            Some(Command::Topic(topic::Topic::List(list))) => format!("{list:?}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_arguments_contradict_each_other_nowhere() {
        command().debug_assert();
    }

    #[test]
    fn no_argument_at_all_starts_a_broker() {
        assert!(parsed(&["tidelog"]).unwrap().command.is_none());
    }

    #[test]
    fn the_cluster_may_be_named_before_within_and_after_a_command() {
        let after = list(&["tidelog", "topic", "list", "-b", "there:1"]);
        assert!(after.contains("\"there:1\""), "{after}");
        assert_eq!(list(&["tidelog", "-b", "there:1", "topic", "list"]), after);
        assert_eq!(list(&["tidelog", "topic", "--bootstrap-server", "there:1", "list"]), after);
    }

    #[test]
    fn a_cluster_that_is_named_for_a_command_that_talks_to_none_is_refused() {
        for path in ALONE {
            let words = [&["tidelog", "-b", "there:1"], *path].concat();
            let file: &[&str] = match *path {
                ["config", "check"] | ["log", "dump"] => &["file"],
                ["completion"] => &["bash"],
                ["format"] => &["-t", "id", "-c", "file"],
                _ => &[],
            };
            let text = refused(&[&words[..], file].concat());
            assert!(text.contains("talks to no cluster"), "{words:?}: {text}");
        }
    }

    #[test]
    fn a_negative_number_is_answered_with_what_is_allowed() {
        let create = ["tidelog", "topic", "create", "t"];
        assert!(parsed(&[&create[..], &["--partitions", "3", "--replication-factor", "1"]].concat()).is_ok());
        insta::assert_snapshot!(refused(&[&create[..], &["--partitions", "-1"]].concat()), @"error: invalid value '-1' for '--partitions <COUNT>': allowed is a whole number of at least 1");
        insta::assert_snapshot!(refused(&[&create[..], &["--replication-factor", "-1"]].concat()), @"error: invalid value '-1' for '--replication-factor <COUNT>': allowed is a whole number of at least 1");
        insta::assert_snapshot!(refused(&["tidelog", "topic", "list", "--wait", "-5"]), @"error: invalid value '-5' for '--wait <SECONDS>': allowed is a whole number of at least 0");
        // Of every option that takes a number.
        fn check(command: &clap::Command, path: &[&str]) -> usize {
            let numbers = command.get_arguments().filter(|arg| arg.is_allow_negative_numbers_set());
            let mut count = 0;
            for long in numbers.filter_map(|arg| arg.get_long()) {
                count += 1;
                let text = refused(&[path, &[&*format!("--{long}"), "-7"]].concat());
                assert!(!text.contains("unexpected argument"), "{path:?} --{long}: {text}");
            }
            let of = |it: &clap::Command| check(it, &[path, &[it.get_name()]].concat());
            count + command.get_subcommands().map(of).sum::<usize>()
        }
        assert!(check(&command(), &["tidelog"]) > 15);
    }
}
