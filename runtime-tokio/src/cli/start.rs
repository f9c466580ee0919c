//! `tidelog start`: a broker in this process, until it is told to stop.

use super::{Failure, Outcome};
use crate::server::Server;
use clap::Args;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tidelog_core::config::{BrokerConfig, ConfigError, WITHOUT_A_FILE, Warning};

#[derive(Debug, Default, Args)]
#[command(after_help = "\
Examples:
  tidelog start
  tidelog start server.properties --override listeners=PLAINTEXT://0.0.0.0:9092
  tidelog start --override log.dirs=/var/lib/tidelog --override acks.require.fsync=false")]
pub struct Start {
    /// Kafka's server.properties. Without it: 127.0.0.1:9092, data in ./tidelog-data.
    properties: Option<PathBuf>,
    /// A property over those of the file. May be given many times.
    #[arg(long = "override", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// What is wrong with what the user gave us.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error("cannot read {}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot read {}: {source}", .path.display())]
    Syntax { path: PathBuf, source: java_properties::PropertiesError },
    #[error("--override {0}: allowed is KEY=VALUE, such as num.partitions=3")]
    Override(String),
    #[error("{}", lines(.0))]
    Config(Vec<ConfigError>),
}

impl Start {
    pub fn run(self) -> Outcome {
        let (config, warnings) = configuration(self.properties.as_deref(), &self.overrides).map_err(Failure::usage)?;
        for Warning { text, .. } in warnings {
            tracing::warn!("{text}");
        }
        let data = config.log_dirs.join(",");
        let server = Server::start(config).map_err(Failure::of)?;
        let mut out = io::stdout().lock();
        // Nobody may be reading; the broker serves all the same.
        let _ =
            out.write_all(greeting(server.listeners(), server.metrics(), &data).as_bytes()).and_then(|()| out.flush());
        drop(out);
        server.serve_until_signal().map_err(Failure::of)
    }
}

/// The properties of the file, or those that stand in for one, with the overrides over them.
fn configuration(file: Option<&Path>, overrides: &[String]) -> Result<(BrokerConfig, Vec<Warning>), UsageError> {
    let mut properties = BTreeMap::new();
    match file {
        Some(path) => {
            let open = File::open(path).map_err(|source| UsageError::File { path: path.to_owned(), source })?;
            let read = java_properties::read(io::BufReader::new(open))
                .map_err(|source| UsageError::Syntax { path: path.to_owned(), source })?;
            properties.extend(read);
        }
        None => properties.extend(WITHOUT_A_FILE.iter().map(|(key, value)| (key.to_string(), value.to_string()))),
    }
    for text in overrides {
        let (key, value) = text.split_once('=').ok_or_else(|| UsageError::Override(text.clone()))?;
        if key.trim().is_empty() {
            return Err(UsageError::Override(text.clone()));
        }
        properties.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    BrokerConfig::from_properties(&properties).map_err(UsageError::Config)
}

fn lines(errors: &[ConfigError]) -> String {
    let mut text = String::from("the configuration cannot be used:");
    for error in errors {
        let _ = write!(text, "\n  {error}");
    }
    text
}

/// What is printed when the broker is ready. The first line is for programs: `READY`, then each listener as
/// `NAME://host:port` with the port it got, in the order of the configuration, then `http://host:port` of
/// `metrics.listener` where it is set.
fn greeting(listeners: &[(String, SocketAddr)], metrics: Option<SocketAddr>, data: &str) -> String {
    let mut text = String::from("READY");
    for (name, address) in listeners {
        let _ = write!(text, " {name}://{address}");
    }
    if let Some(address) = metrics {
        let _ = write!(text, " http://{address}");
    }
    let mut first = listeners[0].1;
    if first.ip().is_unspecified() {
        first.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let _ = write!(
        text,
        "
Tidelog {version} serves Kafka clients; its data is in {data}. Ctrl-C stops it.

With this program (the topic is made by the first record):
  echo hello | tidelog produce greetings -b {first}
  tidelog consume greetings -b {first} --from-beginning

With kcat:
  echo hello | kcat -b {first} -t greetings -P
  kcat -b {first} -t greetings -C -o beginning -e

With Kafka's own tools:
  kafka-topics.sh --bootstrap-server {first} --create --topic greetings --partitions 3
  kafka-console-producer.sh --bootstrap-server {first} --topic greetings
  kafka-console-consumer.sh --bootstrap-server {first} --topic greetings --partition 0 --offset earliest
",
        version = env!("CARGO_PKG_VERSION"),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(file: Option<&Path>, overrides: &[&str]) -> String {
        let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
        configuration(file, &overrides).unwrap_err().to_string()
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        insta::assert_snapshot!(refused(Some(Path::new("no-such.properties")), &[]), @"cannot read no-such.properties: No such file or directory (os error 2)");
    }

    #[test]
    fn an_override_without_a_value_is_named() {
        insta::assert_snapshot!(refused(None, &["num.partitions"]), @"--override num.partitions: allowed is KEY=VALUE, such as num.partitions=3");
        insta::assert_snapshot!(refused(None, &["=3"]), @"--override =3: allowed is KEY=VALUE, such as num.partitions=3");
    }

    #[test]
    fn a_value_that_cannot_be_used_is_named_with_what_is_allowed() {
        insta::assert_snapshot!(refused(None, &["num.partitions=many", "log.segment.bytes=-5"]), @r"
        the configuration cannot be used:
          log.segment.bytes=-5: allowed is a number of at least 1048576
          num.partitions=many: allowed is a number of at least 1
        ");
    }

    #[test]
    fn a_file_is_read_as_java_reads_it_and_overrides_win() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.properties");
        std::fs::write(&path, "# a comment\nnode.id : 7\nlog.dirs=/a,\\\n  /b\nnum.partitions=2\nno.such.config=1\n")
            .unwrap();
        let (config, warnings) = configuration(Some(&path), &["num.partitions=5".into()]).unwrap();
        assert_eq!((config.node_id.0, config.num_partitions), (7, 5));
        assert_eq!(config.log_dirs, ["/a", "/b"]);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].text.starts_with("no.such.config"), "{}", warnings[0].text);
    }

    #[test]
    fn without_a_file_it_is_a_broker_for_this_machine() {
        let (config, warnings) = configuration(None, &[]).unwrap();
        assert!(warnings.is_empty());
        assert_eq!((config.listeners[0].host.as_str(), config.listeners[0].port), ("127.0.0.1", 9092));
        assert_eq!(config.log_dirs, ["./tidelog-data"]);
    }

    #[test]
    fn the_greeting_begins_with_a_line_for_programs() {
        let listeners = [
            ("PLAINTEXT".to_string(), "0.0.0.0:9092".parse().unwrap()),
            ("V6".to_string(), "[::1]:9093".parse().unwrap()),
        ];
        let text = greeting(&listeners, None, "./tidelog-data");
        assert_eq!(text.lines().next(), Some("READY PLAINTEXT://0.0.0.0:9092 V6://[::1]:9093"));
        let with_metrics = greeting(&listeners[..1], Some("127.0.0.1:9644".parse().unwrap()), "./tidelog-data");
        assert_eq!(with_metrics.lines().next(), Some("READY PLAINTEXT://0.0.0.0:9092 http://127.0.0.1:9644"));
        assert!(text.contains("kcat -b 127.0.0.1:9092 -t greetings -P"));
    }
}
