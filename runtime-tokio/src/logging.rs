//! The operator's log: one line for each event, on standard error, coloured only if that is a terminal and
//! `NO_COLOR` is not set. Its levels can be changed while the broker runs: [`loggers`] says which there are, and the
//! core tells changes ([`apply`]).
//!
//! A logger's name is its target with dots in place of `::`, which Kafka's tools do not allow in a name.

use crate::looks::has_colours;
use std::sync::OnceLock;
use tidelog_core::config::{LogLevel, Loggers, ROOT_LOGGER};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, reload};

/// The level if neither `--log-level` nor `RUST_LOG` is set.
pub const DEFAULT: &str = "info";

/// The modules of this package that log while a broker runs. The logger of a module is `tidelog.` with its name. The
/// core's own are [`Part`](tidelog_core::config::Part)s.
const MODULES: [&str; 6] = ["connection", "disk", "limited_log", "metrics", "server", "service"];

/// This process's log, once it has started.
static STARTED: OnceLock<Started> = OnceLock::new();

struct Started {
    /// The levels of the start.
    targets: Targets,
    filter: reload::Handle<Targets, Registry>,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "{source_name}={text}: {why}; allowed is error, warn, info, debug or trace, or a list such as info,tidelog::connection=debug"
)]
pub struct LogLevelError {
    source_name: &'static str,
    text: String,
    why: String,
}

/// Starts logging for the whole process. `level` is the value of `--log-level`, `environment` that of `RUST_LOG`;
/// `level` takes precedence. A second call in one process has no effect.
pub fn start(level: Option<&str>, environment: Option<&str>) -> Result<(), LogLevelError> {
    let (source_name, text) = match (level, environment) {
        (Some(text), _) => ("--log-level", text),
        (None, Some(text)) => ("RUST_LOG", text),
        (None, None) => ("", DEFAULT),
    };
    let filter = parse(text).map_err(|why| LogLevelError { source_name, text: text.to_owned(), why })?;
    let colours = has_colours(&std::io::stderr());
    // A log whose reader has gone must not end the broker, which an attempt to report that there would do.
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colours).log_internal_errors(false);
    let (layer, handle) = reload::Layer::new(filter.clone());
    if tracing_subscriber::registry().with(layer).with(lines).try_init().is_ok() {
        let _ = STARTED.set(Started { targets: filter, filter: handle });
    }
    Ok(())
}

/// The loggers of this process with the levels of its start; none if [`start`] was not called, as in a program that
/// embeds a broker. The log is then that program's.
pub fn loggers() -> Loggers {
    STARTED.get().map_or_else(Loggers::default, |started| loggers_of(&started.targets))
}

fn loggers_of(targets: &Targets) -> Loggers {
    let root = targets.default_level().map_or(LogLevel::Off, level_of);
    let mut loggers = Loggers::of_broker(root);
    for module in MODULES {
        loggers.add(&format!("tidelog.{module}"));
    }
    for (target, level) in targets.iter().filter(|(target, _)| *target != ROOT_LOGGER) {
        let name = target.replace("::", ".");
        loggers.add(&name);
        loggers.set(&name, level_of(level));
    }
    loggers
}

/// From now on these levels decide what is logged.
pub fn apply(loggers: &Loggers) {
    if let Some(started) = STARTED.get() {
        // It fails only if the log has gone, which lives as long as the process.
        let _ = started.filter.reload(targets_of(loggers));
    }
}

fn targets_of(loggers: &Loggers) -> Targets {
    loggers.own_levels().fold(Targets::new(), |targets, (name, level)| match name {
        ROOT_LOGGER => targets.with_default(filter_of(level)),
        name => targets.with_target(name.replace('.', "::"), filter_of(level)),
    })
}

fn level_of(filter: LevelFilter) -> LogLevel {
    match filter {
        LevelFilter::OFF => LogLevel::Off,
        LevelFilter::ERROR => LogLevel::Error,
        LevelFilter::WARN => LogLevel::Warn,
        LevelFilter::INFO => LogLevel::Info,
        LevelFilter::DEBUG => LogLevel::Debug,
        LevelFilter::TRACE => LogLevel::Trace,
    }
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        // No line is worse than an error.
        LogLevel::Off | LogLevel::Fatal => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

fn parse(text: &str) -> Result<Targets, String> {
    // The filter takes an unknown word without a level for a module's name, and would log nothing at all.
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    if let Some(word) = text.split(',').find(|word| !word.contains(['=', ':', '_']) && !known.contains(word)) {
        return Err(format!("{word:?} is not a level"));
    }
    // A logger's name, as clients see it, stands for its target.
    text.replace('.', "::").parse::<Targets>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_does_not_exist_is_refused_with_those_that_do() {
        insta::assert_snapshot!(start(Some("loud"), None).unwrap_err(), @r#"--log-level=loud: "loud" is not a level; allowed is error, warn, info, debug or trace, or a list such as info,tidelog::connection=debug"#);
        assert!(parse("info,tidelog::connection=debug").is_ok());
        assert!(parse("tidelog=notalevel").is_err());
    }

    #[test]
    fn the_loggers_have_the_levels_that_the_command_line_gives_them() {
        let loggers = loggers_of(&parse("warn,tidelog::connection=debug,hyper=off").unwrap());
        assert_eq!(loggers, loggers_of(&parse("warn,tidelog.connection=debug,hyper=off").unwrap()));
        let in_force = loggers.in_force().map(|(name, level)| format!("{name}={}", level.name()));
        insta::assert_snapshot!(in_force.collect::<Vec<_>>().join(" "), @"hyper=OFF root=WARN tidelog=WARN tidelog.broker=WARN tidelog.configs=WARN tidelog.connection=DEBUG tidelog.disk=WARN tidelog.limited_log=WARN tidelog.metrics=WARN tidelog.peers=WARN tidelog.quorum=WARN tidelog.replication=WARN tidelog.server=WARN tidelog.service=WARN tidelog.storage=WARN");
        let same = targets_of(&loggers);
        assert!(same.would_enable("tidelog::connection", &tracing::Level::DEBUG));
        assert!(!same.would_enable("tidelog::storage", &tracing::Level::INFO));
        assert!(same.would_enable("tidelog::storage", &tracing::Level::WARN));
        assert!(!same.would_enable("hyper::proto", &tracing::Level::ERROR));
        let without_root = loggers_of(&parse("tidelog=info").unwrap());
        assert_eq!(without_root.in_force().next(), Some((ROOT_LOGGER, LogLevel::Off)));
    }

    /// The modules of this package, below `dir`, that log something.
    fn modules_that_log(dir: &std::path::Path, module: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let module = if name == "mod" { module.to_owned() } else { format!("{module}::{name}") };
            if path.is_dir() {
                modules_that_log(&path, &module, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let macros = ["error", "warn", "info", "debug", "trace"].map(|level| format!("tracing::{level}!"));
            if macros.iter().any(|name| code.contains(name)) {
                found.push(module);
            }
        }
    }

    #[test]
    fn every_module_that_logs_has_a_logger() {
        let mut modules = Vec::new();
        let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        modules_that_log(&sources, "tidelog", &mut modules);
        modules.sort_unstable();
        // The door logs for the parts of the core; `cli` logs only before the broker runs.
        modules.retain(|module| module != "tidelog::door" && !module.starts_with("tidelog::cli"));
        let loggers = MODULES.map(|module| format!("tidelog::{module}"));
        let is_one = |module: &&String| loggers.iter().any(|logger| module.starts_with(&**logger));
        assert_eq!(modules.iter().filter(is_one).count(), modules.len(), "{modules:?}");
        assert!(loggers.iter().all(|logger| modules.iter().any(|module| module.starts_with(&**logger))));
    }
}
