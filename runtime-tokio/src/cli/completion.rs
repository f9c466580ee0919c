//! `tidelog completion`, and what a shell asks this program while somebody types: a shell that has read the script runs
//! the program for every completion, with the words typed so far.
//!
//! Beside commands and options, these are completed: names of topics and numbers of brokers, for which the cluster is
//! asked that the words typed so far name; names of configs, and the values of those that have a fixed choice, from the
//! table of configs. A cluster that does not answer at once completes nothing.

use super::Outcome;
use super::output::print;
use super::session::{Connection, run};
use clap::{Arg, Args, Command, FromArgMatches, ValueHint};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Shells, Zsh};
use clap_complete::{CompleteEnv, Shell};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;
use tidelog_client::admin::{Answer, Operation};
use tidelog_core::batch::Codec;
use tidelog_core::config::{ConfigKey, Kind, Update, Valid, table};
use tidelog_core::controller::known_releases;
use tidelog_core::controller::records::levels_accepted;

/// The variable in which a shell says which one it is.
const VARIABLE: &str = "COMPLETE";
/// How long a cluster may take to answer. Who waits longer for a completion types on.
const PATIENCE: Duration = Duration::from_millis(800);

const SHELLS: Shells<'static> = Shells(&[&WholeWords, &Elvish, &Fish, &Powershell, &OpenPairs]);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(tidelog completion bash)                            in ~/.bashrc
  source <(tidelog completion zsh)                             in ~/.zshrc, behind compinit
  tidelog completion fish | source                             in ~/.config/fish/config.fish
  eval (tidelog completion elvish | slurp)                     in ~/.elvish/rc.elv
  tidelog completion powershell | Out-String | Invoke-Expression

The shell then asks this program for commands, options, names of topics, and names and values of configurations. For \
topics it asks the cluster that --bootstrap-server or TIDELOG_BOOTSTRAP_SERVER names.")]
pub struct Completion {
    /// The shell that the script is for.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub fn run(self) -> Outcome {
        let name = self.shell.to_string();
        let shell = SHELLS.completer(&name).expect("each shell has a completer");
        let program = std::env::args().next().unwrap_or_else(|| "tidelog".to_owned());
        // A shell finds a bare name in its PATH; a path must lead here from every directory.
        let is_path = Path::new(&program).components().count() > 1;
        let program = if is_path {
            std::path::absolute(&program).map_or(program, |path| path.display().to_string())
        } else {
            program
        };
        let mut script = Vec::new();
        shell.write_registration(VARIABLE, "tidelog", "tidelog", &program, &mut script).expect("memory takes it");
        print(&String::from_utf8_lossy(&script))
    }
}

/// If a shell has called, answers it and ends the process.
pub fn answer_a_shell() {
    CompleteEnv::with_factory(super::command).var(VARIABLE).shells(SHELLS).complete();
}

/// Puts a completer to each argument whose values are known here or in the cluster.
pub fn with_completers(command: Command) -> Command {
    with_completers_of(command, &[])
}

fn with_completers_of(command: Command, path: &[&str]) -> Command {
    command.mut_args(|arg| with_completer(arg, path)).mut_subcommands(|subcommand| {
        let name = subcommand.get_name().to_owned();
        with_completers_of(subcommand, &[path, &[&name]].concat())
    })
}

fn with_completer(arg: Arg, path: &[&str]) -> Arg {
    let id = arg.get_id().as_str().to_owned();
    match (path, &*id) {
        // Who creates a topic gives it a new name.
        (["topic", "create"], "topics") => arg,
        (["topic" | "log-dirs" | "consume", ..], "topics")
        | (["produce" | "consume" | "config" | "bench", ..], "topic") => arg.add(ArgValueCompleter::new(topics)),
        (["log-dirs"], "brokers") | (["config", ..], "broker" | "broker_loggers") => {
            arg.add(ArgValueCompleter::new(brokers))
        }
        (["topic", ..], "configs") => arg.add(ArgValueCompleter::new(|word: &OsStr| pairs(topic_keys(), word))),
        (["topic", ..], "deleted_configs") => arg.add(ArgValueCompleter::new(|word: &OsStr| names(topic_keys(), word))),
        (["config", "alter"], "set") => arg.add(ArgValueCompleter::new(|word: &OsStr| pairs(changeable_keys(), word))),
        (["config", "alter"], "append" | "subtract") => arg.add(ArgValueCompleter::new(|word: &OsStr| {
            pairs(changeable_keys().into_iter().filter(|key| key.kind == Kind::List).collect(), word)
        })),
        (["config", "alter"], "delete") => {
            arg.add(ArgValueCompleter::new(|word: &OsStr| names(changeable_keys(), word)))
        }
        (["config", "describe"], "names") => arg.add(ArgValueCompleter::new(|word: &OsStr| names(shown_keys(), word))),
        (["start"] | ["config", "check"], "overrides") => {
            arg.add(ArgValueCompleter::new(|word: &OsStr| pairs(table::broker_keys().collect(), word)))
        }
        (["format"], "release_version") => {
            arg.add(ArgValueCompleter::new(|word: &OsStr| candidates(known_releases().map(str::to_owned), word)))
        }
        (["format"], "features") => arg.add(ArgValueCompleter::new(|word: &OsStr| {
            candidates(
                levels_accepted().flat_map(|(name, min, max)| (min..=max).map(move |l| format!("{name}={l}"))),
                word,
            )
        })),
        (["start"] | ["config", "check"], "properties") | (["log", "dump"], "paths") | (["format"], "config") => {
            arg.value_hint(ValueHint::AnyPath)
        }
        (_, "compression") => arg.add(ArgValueCompleter::new(|word: &OsStr| {
            candidates(Codec::ALL.iter().map(|codec| codec.name().to_owned()), word)
        })),
        (_, "acks") => arg.add(ArgValueCompleter::new(|word: &OsStr| {
            candidates(["all", "1", "0"].map(str::to_owned).into_iter(), word)
        })),
        _ => arg,
    }
}

fn candidates(values: impl Iterator<Item = String>, word: &OsStr) -> Vec<CompletionCandidate> {
    let word = word.to_string_lossy();
    values.filter(|value| value.starts_with(&*word)).map(CompletionCandidate::new).collect()
}

// Configs.

fn topic_keys() -> Vec<&'static ConfigKey> {
    table::topic_keys().iter().filter(|key| !key.internal).collect()
}

/// Those of what `config describe` is asked about.
fn shown_keys() -> Vec<&'static ConfigKey> {
    match () {
        () if is_about(&["--broker", "--broker-defaults"]) => {
            table::broker_keys().filter(|key| !key.internal).collect()
        }
        () if is_about(&["--client-metrics"]) => table::client_metrics_keys().iter().collect(),
        // A log's levels are no configs that this program knows.
        () if is_about(&["--broker-loggers"]) => Vec::new(),
        () => topic_keys(),
    }
}

/// Those that `config alter` can change.
fn changeable_keys() -> Vec<&'static ConfigKey> {
    let is_about_a_broker = is_about(&["--broker", "--broker-defaults"]);
    shown_keys().into_iter().filter(|key| !is_about_a_broker || key.update != Update::ReadOnly).collect()
}

/// Whether one of these options has been typed.
fn is_about(options: &[&str]) -> bool {
    typed().iter().any(|word| options.contains(&word.split_once('=').map_or(&**word, |(option, _)| option)))
}

fn names(keys: Vec<&'static ConfigKey>, word: &OsStr) -> Vec<CompletionCandidate> {
    let word = word.to_string_lossy();
    let those = keys.into_iter().filter(|key| key.name.starts_with(&*word));
    those.map(|key| CompletionCandidate::new(key.name).help(Some(key.documentation.into()))).collect()
}

/// `KEY=`, and behind it the values of a key that has a fixed choice.
fn pairs(keys: Vec<&'static ConfigKey>, word: &OsStr) -> Vec<CompletionCandidate> {
    let text = word.to_string_lossy();
    let Some((name, value)) = text.split_once('=') else {
        let those = keys.into_iter().filter(|key| key.name.starts_with(&*text));
        let candidate = |key: &ConfigKey| CompletionCandidate::new(format!("{}=", key.name));
        return those.map(|key| candidate(key).help(Some(key.documentation.into()))).collect();
    };
    let Some(key) = keys.into_iter().find(|key| key.name == name) else { return Vec::new() };
    let choice: &[&str] = match (key.kind, key.valid) {
        (_, Valid::OneOf(choice) | Valid::OneOfNonEmpty(choice) | Valid::OneOfAnyCase(choice)) => choice,
        (Kind::Boolean, _) => &["true", "false"],
        _ => &[],
    };
    // Of a list, its last item is completed.
    let before = match value.rsplit_once(',') {
        Some((before, _)) if key.kind == Kind::List => format!("{before},"),
        _ => String::new(),
    };
    candidates(choice.iter().map(|value| format!("{name}={before}{value}")), word)
}

// The cluster.

fn topics(word: &OsStr) -> Vec<CompletionCandidate> {
    let Some(Answer::Topics(topics)) = ask(Operation::ListTopics) else { return Vec::new() };
    let mut names: Vec<String> =
        topics.iter().filter(|topic| !topic.is_internal).map(|topic| topic.name.to_string()).collect();
    names.sort();
    candidates(names.into_iter(), word)
}

fn brokers(word: &OsStr) -> Vec<CompletionCandidate> {
    let Some(Answer::Cluster(cluster)) = ask(Operation::DescribeCluster) else { return Vec::new() };
    let mut ids: Vec<i32> = cluster.brokers.iter().map(|broker| broker.node.0).collect();
    ids.sort_unstable();
    candidates(ids.iter().map(i32::to_string), word)
}

/// Asks the cluster that the words typed so far name.
fn ask(operation: Operation) -> Option<Answer> {
    let mut words = vec!["tidelog".to_owned()];
    words.extend(address_in(&typed()).map(|address| format!("--bootstrap-server={address}")));
    let matches = Connection::augment_args(Command::new("tidelog")).try_get_matches_from(words).ok()?;
    let connection = Connection::from_arg_matches(&matches).ok()?;
    let mut answer = None;
    let _ = run(async {
        let mut session = connection.admin()?;
        if let Ok(answers) = tokio::time::timeout(PATIENCE, session.ask_for_all("list", operation)).await {
            answer = answers?.into_iter().next();
        }
        Ok(())
    });
    answer
}

/// The words typed so far, as the shell hands them over: behind `--`.
fn typed() -> Vec<String> {
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    words.skip_while(|word| word != "--").skip(1).collect()
}

/// The value of `--bootstrap-server`, the last one where there are many.
fn address_in(words: &[String]) -> Option<String> {
    const OPTIONS: [&str; 3] = ["--bootstrap-servers", "--bootstrap-server", "-b"];
    let mut following = words.iter().skip(1);
    let values = words.iter().filter_map(|word| {
        let next = following.next();
        match OPTIONS.iter().find_map(|option| word.strip_prefix(option))? {
            "" => next.cloned(),
            rest => Some(rest.trim_start_matches('=').to_owned()),
        }
    });
    values.last()
}

/// Bash takes words apart at `=` and `:`, which stand within words such as `cleanup.policy=delete` and
/// `localhost:9092`. This script puts them together again, and gives bash that part of the completed word which it
/// asked for.
struct WholeWords;

impl EnvCompleter for WholeWords {
    fn name(&self) -> &'static str {
        Bash.name()
    }

    fn is(&self, name: &str) -> bool {
        Bash.is(name)
    }

    fn write_registration(
        &self,
        variable: &str,
        name: &str,
        bin: &str,
        completer: &str,
        script: &mut dyn Write,
    ) -> io::Result<()> {
        let completer = completer.replace('\'', r"'\''");
        writeln!(
            script,
            r#"_{name}_complete() {{
    local line="${{COMP_LINE:0:COMP_POINT}}" words word breaks
    IFS=$' \t\n' read -r -a words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    word="${{words[${{#words[@]}}-1]}}"
    local IFS=$'\n'
    COMPREPLY=( $({variable}=bash _CLAP_IFS="$IFS" _CLAP_COMPLETE_INDEX=$((${{#words[@]}}-1)) \
        '{completer}' -- "${{words[@]}}" 2>/dev/null) )
    breaks="${{COMP_WORDBREAKS//[^=:]/}}"
    if [[ -n "$breaks" && "$word" == *[$breaks]* ]]; then
        COMPREPLY=( "${{COMPREPLY[@]#"${{word%"${{word##*[$breaks]}}"}}"}}" )
    fi
    if [[ ${{#COMPREPLY[@]}} -ne 1 || "${{COMPREPLY[0]}}" != *[=/:] ]]; then
        compopt +o nospace 2>/dev/null
    fi
}}
complete -o nospace -o bashdefault -F _{name}_complete {bin}"#
        )
    }

    fn write_complete(
        &self,
        command: &mut Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        answer: &mut dyn Write,
    ) -> io::Result<()> {
        Bash.write_complete(command, words, directory, answer)
    }
}

/// Zsh puts a blank behind each word that it completes, but the value of `retention.ms=` is still to come.
struct OpenPairs;

const ZSH_DESCRIBES: &str = "_describe -V 'values' other";

impl EnvCompleter for OpenPairs {
    fn name(&self) -> &'static str {
        Zsh.name()
    }

    fn is(&self, name: &str) -> bool {
        Zsh.is(name)
    }

    fn write_registration(
        &self,
        variable: &str,
        name: &str,
        bin: &str,
        completer: &str,
        script: &mut dyn Write,
    ) -> io::Result<()> {
        let mut text = Vec::new();
        Zsh.write_registration(variable, name, bin, completer, &mut text)?;
        // A blank, unless the first of the words ends with `=`: then all of them do.
        let suffix = r#"-S "${${${other[1]%%:*}:#*=}:+ }""#;
        let text = String::from_utf8_lossy(&text).replace(ZSH_DESCRIBES, &format!("{ZSH_DESCRIBES} {suffix}"));
        script.write_all(text.as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        answer: &mut dyn Write,
    ) -> io::Result<()> {
        Zsh.write_complete(command, words, directory, answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the last of the words can become.
    fn completed(words: &[&str]) -> Vec<String> {
        let words: Vec<OsString> = ["tidelog"].iter().chain(words).map(OsString::from).collect();
        let last = words.len() - 1;
        let candidates = clap_complete::engine::complete(&mut super::super::command(), words, last, None).unwrap();
        candidates.iter().map(|it| it.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn commands_options_and_their_values_are_completed() {
        assert_eq!(completed(&["topic", "tr"]), ["trim"]);
        assert_eq!(completed(&["topic", "list", "--boot"]), ["--bootstrap-server"]);
        assert_eq!(completed(&["topic", "list", "--format", "j"]), ["json"]);
        assert_eq!(completed(&["produce", "t", "--compression", "z"]), ["zstd"]);
    }

    #[test]
    fn names_of_configs_are_completed_and_values_where_there_is_a_choice() {
        assert_eq!(
            completed(&["topic", "create", "t", "--config", "retention."]),
            ["retention.bytes=", "retention.ms="]
        );
        assert_eq!(
            completed(&["topic", "alter", "t", "--config", "cleanup.policy="]),
            ["cleanup.policy=compact", "cleanup.policy=delete"]
        );
        assert_eq!(
            completed(&["topic", "alter", "t", "--config", "cleanup.policy=delete,c"]),
            ["cleanup.policy=delete,compact"]
        );
        assert_eq!(completed(&["topic", "alter", "t", "--delete-config", "retention.m"]), ["retention.ms"]);
        assert_eq!(completed(&["config", "describe", "--topic", "t", "retention.m"]), ["retention.ms"]);
        assert_eq!(
            completed(&["start", "--override", "auto.create.topics.enable="]),
            ["auto.create.topics.enable=true", "auto.create.topics.enable=false"]
        );
        assert!(completed(&["topic", "alter", "t", "--config", "retention.ms="]).is_empty());
    }

    #[test]
    fn zsh_is_told_to_leave_the_cursor_behind_an_equals_sign() {
        let mut script = Vec::new();
        OpenPairs.write_registration(VARIABLE, "tidelog", "tidelog", "tidelog", &mut script).unwrap();
        assert!(String::from_utf8(script).unwrap().contains("other -S "));
    }

    #[test]
    fn the_cluster_that_is_asked_is_the_one_that_was_typed() {
        let address = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            address_in(&words)
        };
        for line in [
            "tidelog -b h:1 topic delete ",
            "tidelog topic delete -bh:1 ",
            "tidelog topic delete --bootstrap-server h:1 ",
            "tidelog topic delete --bootstrap-server=h:1 ",
            "tidelog topic delete --bootstrap-servers=h:1 ",
        ] {
            assert_eq!(address(line).as_deref(), Some("h:1"), "{line}");
        }
        assert_eq!((address("tidelog topic delete "), address("tidelog -b")), (None, None));
    }
}
