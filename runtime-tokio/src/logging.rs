//! The operator's log: one line for each event, on standard error, coloured only if that is a terminal and
//! `NO_COLOR` is not set.

use crate::looks::has_colours;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The level if neither `--log-level` nor `RUST_LOG` is set.
pub const DEFAULT: &str = "info";

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
    let _ = tracing_subscriber::registry().with(lines).with(filter).try_init();
    Ok(())
}

fn parse(text: &str) -> Result<Targets, String> {
    // The filter takes an unknown word without a level for a module's name, and would log nothing at all.
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    if let Some(word) = text.split(',').find(|word| !word.contains(['=', ':', '_']) && !known.contains(word)) {
        return Err(format!("{word:?} is not a level"));
    }
    text.parse::<Targets>().map_err(|error| error.to_string())
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
}
