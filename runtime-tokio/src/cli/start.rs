//! `tidelog start`: a broker in this process, until it is told to stop.

use super::{Failure, Outcome, properties};
use crate::server::Server;
use clap::Args;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use tidelog_core::config::{BrokerConfig, Warning};
use tidelog_core::storage::names::META_PROPERTIES;

#[derive(Debug, Default, Args)]
#[command(after_help = "\
Examples:
  tidelog start
  tidelog start server.properties --override listeners=PLAINTEXT://0.0.0.0:9092
  tidelog start --override log.dirs=/var/lib/tidelog --override acks.require.fsync=false")]
pub struct Start {
    /// Kafka's server.properties. Without it: 127.0.0.1:9092, data in ./tidelog-data.
    #[arg(value_name = "FILE")]
    properties: Option<PathBuf>,
    /// A property over those of the file. May be given many times.
    #[arg(long = "override", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

impl Start {
    pub fn run(self) -> Outcome {
        let properties = properties::read(self.properties.as_deref(), &self.overrides).map_err(Failure::usage)?;
        let (config, warnings) = properties::configuration(&properties).map_err(Failure::usage)?;
        for Warning { text, .. } in warnings.into_iter().chain(default_place(&config)) {
            tracing::warn!("{text}");
        }
        let (data, is_new) = (config.log_dirs.join(","), is_new(&config.log_dirs));
        tracing::info!("Tidelog {} starts; its data is in {data}", env!("CARGO_PKG_VERSION"));
        let tell_ready = |server: &Server| {
            tell(&mut io::stdout(), &ready(server.listeners(), server.metrics()));
            // Whoever sees a terminal with a broker that has no data yet is a person who begins.
            let first = reachable(server.listeners()[0].1);
            match is_new {
                true if io::stdout().is_terminal() => tell(&mut io::stdout(), &first_steps(first)),
                true if io::stderr().is_terminal() => tell(&mut io::stderr(), &first_steps(first)),
                _ => {}
            }
        };
        Server::run(config, tell_ready).map_err(Failure::of)
    }
}

/// What there is to say if nothing tells the broker where to keep its data.
pub fn default_place(config: &BrokerConfig) -> Option<Warning> {
    let is_set = |name: &str| config.properties.contains_key(name);
    let dirs = config.log_dirs.join(",");
    let text = format!("log.dirs is not set: the data is in {dirs}, below the folder that the broker is started in");
    (!["log.dirs", "log.dir"].into_iter().any(is_set)).then(|| Warning { name: "log.dirs".to_owned(), text })
}

/// Nobody may be reading; the broker serves all the same.
fn tell(out: &mut impl io::Write, text: &str) {
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Whether no broker has been at work in any of these directories.
fn is_new(log_dirs: &[String]) -> bool {
    !log_dirs.iter().any(|dir| Path::new(dir).join(META_PROPERTIES).exists())
}

/// The line on standard output that says to programs that the broker serves: `READY`, then each listener as
/// `NAME://host:port` with the port it got, in the order of the configuration, then `http://host:port` of
/// `metrics.listener` where it is set.
fn ready(listeners: &[(String, SocketAddr)], metrics: Option<SocketAddr>) -> String {
    let mut text = String::from("READY");
    for (name, address) in listeners {
        let _ = write!(text, " {name}://{address}");
    }
    if let Some(address) = metrics {
        let _ = write!(text, " http://{address}");
    }
    text.push('\n');
    text
}

/// Where a client on this machine connects to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// What a person does first with a new broker.
fn first_steps(address: SocketAddr) -> String {
    format!(
        "
This broker is new. Ctrl-C stops it.

With this program (the topic is made by the first record):
  echo hello | tidelog produce greetings -b {address}
  tidelog consume greetings -b {address} --from-beginning

With kcat:
  echo hello | kcat -b {address} -t greetings -P
  kcat -b {address} -t greetings -C -o beginning -e

With Kafka's own tools:
  kafka-topics.sh --bootstrap-server {address} --create --topic greetings --partitions 3
  kafka-console-producer.sh --bootstrap-server {address} --topic greetings
  kafka-console-consumer.sh --bootstrap-server {address} --topic greetings --partition 0 --offset earliest
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(file: &Path, overrides: &[String]) -> (BrokerConfig, Vec<Warning>) {
        properties::configuration(&properties::read(Some(file), overrides).unwrap()).unwrap()
    }

    #[test]
    fn the_line_for_programs_names_every_listener() {
        let listeners = [
            ("PLAINTEXT".to_string(), "0.0.0.0:9092".parse().unwrap()),
            ("V6".to_string(), "[::1]:9093".parse().unwrap()),
        ];
        assert_eq!(ready(&listeners, None), "READY PLAINTEXT://0.0.0.0:9092 V6://[::1]:9093\n");
        let with_metrics = ready(&listeners[..1], Some("127.0.0.1:9644".parse().unwrap()));
        assert_eq!(with_metrics, "READY PLAINTEXT://0.0.0.0:9092 http://127.0.0.1:9644\n");
    }

    #[test]
    fn the_first_steps_lead_to_an_address_that_this_machine_can_connect_to() {
        for (bound, wanted) in
            [("0.0.0.0:9092", "127.0.0.1:9092"), ("[::]:9092", "127.0.0.1:9092"), ("[::1]:9093", "[::1]:9093")]
        {
            let text = first_steps(reachable(bound.parse().unwrap()));
            assert!(text.contains(&format!("kcat -b {wanted} -t greetings -P")), "{text}");
        }
    }

    #[test]
    fn data_is_new_until_a_broker_has_been_at_work_in_one_of_its_directories() {
        let home = tempfile::tempdir().unwrap();
        let dirs = ["a", "b"].map(|name| home.path().join(name).display().to_string());
        assert!(is_new(&dirs));
        std::fs::create_dir(&dirs[1]).unwrap();
        assert!(is_new(&dirs));
        std::fs::write(Path::new(&dirs[1]).join(META_PROPERTIES), "").unwrap();
        assert!(!is_new(&dirs));
    }

    /// The configurations that the service and the image come with.
    const SAMPLES: [&str; 2] = ["server.properties", "container.properties"];

    #[test]
    fn the_sample_configurations_are_valid_and_say_where_the_data_is() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        for (name, data) in SAMPLES.into_iter().zip(["/var/lib/tidelog", "/data"]) {
            let (config, warnings) = configuration(&docs.join(name), &[]);
            assert_eq!(warnings, [], "{name}");
            assert_eq!(config.log_dirs, [data], "{name}");
        }
    }

    #[test]
    fn the_service_and_the_image_override_nothing_of_the_configuration_file() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        for (name, start) in [("tidelog.service", "ExecStart="), ("Containerfile", "ENTRYPOINT ")] {
            let text = std::fs::read_to_string(docs.join(name)).unwrap();
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(start)).collect();
            assert!(lines.len() == 1 && lines[0].contains("/etc/tidelog/server.properties"), "{name}: {lines:?}");
            assert!(!lines[0].contains("--override"), "{name}: {lines:?}");
            assert!(!text.lines().any(|line| line.starts_with("CMD ")), "{name}");
        }
    }

    #[test]
    fn a_file_that_does_not_say_where_the_data_is_is_warned_about() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.properties");
        std::fs::write(&path, "node.id=1\n").unwrap();
        let warned = |overrides: &[String]| default_place(&configuration(&path, overrides).0);
        insta::assert_snapshot!(warned(&[]).unwrap(), @"log.dirs is not set: the data is in ./tidelog-data, below the folder that the broker is started in");
        for name in ["log.dirs", "log.dir"] {
            assert_eq!(warned(&[format!("{name}=/data")]), None);
        }
    }
}
