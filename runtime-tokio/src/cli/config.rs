//! `tidelog config`: what is configured for a topic, a broker, all brokers, a broker's log or a subscription to clients'
//! metrics, and whether a file could be.

use super::number::at_least;
use super::output::{Format, Table, print, print_json};
use super::session::{Connection, Session, must_have, run};
use super::{Failure, Outcome, properties};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use tidelog_client::Admin;
use tidelog_client::admin::{Answer, ConfigChange, ConfigEntry, Operation, Resource};
use tidelog_core::config::{Effect, Warning, did_you_mean, suggest, table};
use tidelog_core::ids::NodeId;

/// A name and a value, as `KEY=VALUE` has them.
pub type Named = (String, String);

pub fn named(text: &str) -> Result<Named, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("allowed is KEY=VALUE, such as retention.ms=86400000".to_owned()),
    }
}

/// Clap's own would be one line that is longer than many a terminal is wide.
const DESCRIBE_USAGE: &str = "\
tidelog config describe <OF> [KEY]...

Of: --topic <NAME>, --broker <ID>, --broker-defaults,
    --broker-loggers <ID> or --client-metrics <NAME>";
const ALTER_USAGE: &str = "\
tidelog config alter <OF> [OPTIONS]

Of: --topic <NAME>, --broker <ID>, --broker-defaults,
    --broker-loggers <ID> or --client-metrics <NAME>";

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Show configurations, and where each comes from.
    #[command(override_usage = DESCRIBE_USAGE, after_help = "\
Examples:
  tidelog config describe --topic orders                what is not the default
  tidelog config describe --topic orders --all          everything
  tidelog config describe --broker 1 log.retention.ms   by name
  tidelog config describe --broker-defaults
  tidelog config describe --broker-loggers 1            what the log tells

FROM says what decides: topic, broker, all brokers or subscription (set by `tidelog config alter`), log (a level), start (what the broker was started \
with: its properties file, --override, or what stands in for a file), or default. What has \"no effect\" Tidelog takes and \
does nothing with: --format json says why.")]
    Describe(Describe),
    /// Change configurations; they take effect at once.
    ///
    /// A value that is taken and has no effect is a warning, here and in the broker's log.
    #[command(override_usage = ALTER_USAGE, after_help = "\
Examples:
  tidelog config alter --topic orders --set retention.ms=86400000
  tidelog config alter --topic orders --delete retention.ms
  tidelog config alter --topic orders --append cleanup.policy=delete
  tidelog config alter --broker 1 --set log.retention.ms=3600000
  tidelog config alter --broker-defaults --set log.retention.ms=3600000
  tidelog config alter --broker-loggers 1 --set tidelog.connection=DEBUG")]
    Alter(Alter),
    /// Say whether a broker could be started with a file, without starting it.
    ///
    /// The rules are those of a start. What is without effect is a warning; the exit code is 0 where the file can be
    /// used and 2 where it cannot.
    #[command(after_help = "\
Examples:
  tidelog config check server.properties
  tidelog config check server.properties --override log.dirs=/var/lib/tidelog")]
    Check(Check),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// Of this topic.
    #[arg(long, short, value_name = "NAME")]
    topic: Option<String>,
    /// Of this broker.
    #[arg(long, value_name = "ID", value_parser = at_least(0))]
    broker: Option<i32>,
    /// What all brokers have, but for those that have their own.
    #[arg(long)]
    broker_defaults: bool,
    /// The levels of this broker's log, until it is started again.
    #[arg(long, value_name = "ID", value_parser = at_least(0))]
    broker_loggers: Option<i32>,
    /// Of this subscription to clients' metrics.
    #[arg(long, value_name = "NAME")]
    client_metrics: Option<String>,
}

#[derive(Debug, Args)]
pub struct Describe {
    #[command(flatten)]
    place: Place,
    /// Only these.
    #[arg(value_name = "KEY")]
    names: Vec<String>,
    /// Those that have their default value too.
    #[arg(long)]
    all: bool,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true)))]
pub struct Alter {
    #[command(flatten)]
    place: Place,
    /// Sets a value. May be given many times, as may the others.
    #[arg(long, group = "what", value_name = "KEY=VALUE", value_parser = named)]
    set: Vec<Named>,
    /// Takes a value back to its default.
    #[arg(long, group = "what", value_name = "KEY")]
    delete: Vec<String>,
    /// Adds to a list.
    #[arg(long, group = "what", value_name = "KEY=VALUE", value_parser = named)]
    append: Vec<Named>,
    /// Takes from a list.
    #[arg(long, group = "what", value_name = "KEY=VALUE", value_parser = named)]
    subtract: Vec<Named>,
    /// Only say whether it could be done.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub struct Check {
    /// Kafka's server.properties.
    #[arg(value_name = "FILE")]
    properties: PathBuf,
    /// A property over those of the file, as for a start. May be given many times.
    #[arg(long = "override", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

impl Config {
    pub fn run(self) -> Outcome {
        match self {
            Self::Describe(describe) => run(describe.run()),
            Self::Alter(alter) => run(alter.run()),
            Self::Check(check) => check.run(),
        }
    }
}

impl Place {
    fn resource(self) -> Resource {
        match self {
            Self { topic: Some(topic), .. } => Resource::Topic(topic.into()),
            Self { broker: Some(broker), .. } => Resource::Broker(NodeId(broker)),
            Self { broker_loggers: Some(broker), .. } => Resource::BrokerLoggers(NodeId(broker)),
            Self { client_metrics: Some(name), .. } => Resource::ClientMetrics(name.into()),
            _ => Resource::AllBrokers,
        }
    }
}

#[derive(Serialize)]
struct DescribedConfig<'a> {
    name: &'a str,
    value: Option<&'a str>,
    source: &'static str,
    is_default: bool,
    is_read_only: bool,
    is_sensitive: bool,
    /// Why setting it changes nothing, where it does not.
    no_effect: Option<&'static str>,
}

impl Describe {
    async fn run(self) -> Outcome {
        let mut session = self.connection.admin()?;
        let resource = self.place.resource();
        resource_must_be_there(&mut session, "describe", &resource).await?;
        let is_broker_defaults = resource == Resource::AllBrokers;
        let place = resource.to_string();
        let operation = Operation::DescribeConfigs { resources: vec![resource.clone()] };
        let answers = session.ask_for_all("describe", operation).await?;
        let Some(Answer::Configs(mut configs)) = answers.into_iter().next() else { unreachable!("that is its answer") };
        configs.sort_by(|a, b| a.name.cmp(&b.name));
        // Another broker may do more with a name than Tidelog does. This one only Tidelog has.
        let is_tidelog = match &resource {
            Resource::ClientMetrics(_) => session.is_of_tidelog().await?,
            _ => configs.iter().any(|config| config.name == "acks.require.fsync"),
        };
        let named = |config: &ConfigEntry| self.names.iter().any(|name| config.name == *name);
        if let Some(name) = self.names.iter().find(|name| configs.iter().all(|config| config.name != **name)) {
            // Asked about all brokers, a broker names only the configurations that were set for all.
            let close = suggest(name, configs.iter().map(|config| &*config.name));
            let why = match close {
                Some(close) => format!("there is no such name{}", did_you_mean(Some(close))),
                None if is_broker_defaults => "nothing is set under this name".to_owned(),
                None => "there is no such name".to_owned(),
            };
            return Err(Failure::of(format!("{place}: {name}: {why}\n  --all shows those that there are")));
        }
        configs.retain(|config| match self.names.is_empty() {
            true => self.all || !config.is_default,
            false => named(config),
        });
        let described: Vec<DescribedConfig<'_>> = configs
            .iter()
            .map(|config| described(config, if is_tidelog { effect(&resource, config) } else { None }))
            .collect();
        if self.format == Format::Json {
            return print_json(&described);
        }
        let mut table = Table::new(&["NAME", "VALUE", "FROM", ""]).fold(&["NAME", "VALUE"]);
        for it in described {
            let value = if it.is_sensitive { "(hidden)" } else { it.value.unwrap_or("") };
            let remark = match it.no_effect {
                Some(_) => "no effect",
                None if it.is_read_only => "read-only",
                None => "",
            };
            table.row([it.name.to_owned(), value.to_owned(), it.source.to_owned(), remark.to_owned()]);
        }
        if table.is_empty() {
            super::output::note(format_args!("{place}: everything has its default; --all shows it"));
            return Ok(());
        }
        print(&table.text())
    }
}

/// Why setting a name of Tidelog's changes nothing, where it does not.
fn effect(resource: &Resource, config: &ConfigEntry) -> Option<&'static str> {
    let key = match resource {
        Resource::Topic(_) => table::topic_key(&config.name),
        Resource::Broker(_) | Resource::AllBrokers => table::broker_key(&config.name),
        Resource::ClientMetrics(_) => table::client_metrics_key(&config.name),
        Resource::BrokerLoggers(_) => None,
    };
    match key?.effect() {
        Effect::Works => None,
        Effect::NotNeeded(why) | Effect::NotYet(why) | Effect::Refused(why) => Some(why),
    }
}

fn described<'a>(config: &'a ConfigEntry, no_effect: Option<&'static str>) -> DescribedConfig<'a> {
    DescribedConfig {
        name: &config.name,
        value: config.value.as_deref(),
        source: match config.source {
            1 => "topic",
            2 => "broker",
            3 => "all brokers",
            // Kafka's protocol does not tell the properties file from the rest of the command line.
            4 => "start",
            5 => "default",
            6 => "log",
            7 => "subscription",
            _ => "unknown",
        },
        is_default: config.is_default,
        is_read_only: config.is_read_only,
        is_sensitive: config.is_sensitive,
        no_effect,
    }
}

impl Alter {
    async fn run(self) -> Outcome {
        let mut session = self.connection.admin()?;
        let resource = self.place.resource();
        let warning = |(name, value): &Named| match &resource {
            Resource::Topic(_) => Warning::of_topic(name, value),
            Resource::Broker(_) | Resource::AllBrokers => Warning::of_running_broker(name, value),
            Resource::ClientMetrics(_) => Warning::of_client_metrics(name, value),
            Resource::BrokerLoggers(_) => None,
        };
        let deleted = |name: &String| match &resource {
            Resource::Topic(_) => Warning::of_deleted_from_topic(name),
            Resource::Broker(_) | Resource::AllBrokers => Warning::of_deleted_from_broker(name),
            Resource::ClientMetrics(_) => Warning::of_deleted_from_client_metrics(name),
            // The broker refuses names of loggers that it does not have.
            Resource::BrokerLoggers(_) => None,
        };
        let set = self.set.iter().chain(&self.append).filter_map(warning);
        let warnings: Vec<Warning> = set.chain(self.delete.iter().filter_map(deleted)).collect();
        let pairs = |pairs: Vec<Named>, change: fn(_, _) -> ConfigChange| {
            pairs.into_iter().map(move |(name, value)| change(name.into(), value.into()))
        };
        let changes = pairs(self.set, ConfigChange::Set)
            .chain(self.delete.into_iter().map(|name| ConfigChange::Delete(name.into())))
            .chain(pairs(self.append, ConfigChange::Append))
            .chain(pairs(self.subtract, ConfigChange::Subtract))
            .collect();
        resource_must_be_there(&mut session, "alter", &resource).await?;
        let place = resource.to_string();
        let operation =
            Operation::AlterConfigs { changes: vec![(resource, changes)], validate_only: self.validate_only };
        session.ask_for_all("alter", operation).await?;
        print(&format!("{place}: {}\n", if self.validate_only { "could be altered" } else { "altered" }))?;
        session.warn(&warnings).await;
        Ok(())
    }
}

/// A broker that is not there is not waited for.
async fn resource_must_be_there(session: &mut Session<Admin>, verb: &str, resource: &Resource) -> Outcome {
    match resource {
        Resource::Broker(node) | Resource::BrokerLoggers(node) => must_have(&session.cluster(verb).await?, *node),
        _ => Ok(()),
    }
}

impl Check {
    fn run(self) -> Outcome {
        let properties = properties::read(Some(&self.properties), &self.overrides).map_err(Failure::usage)?;
        let mut text = String::new();
        for warning in properties::warnings(&properties) {
            let _ = writeln!(text, "warning: {warning}");
        }
        let configuration = properties::configuration(&properties).map_err(Failure::usage);
        if configuration.is_ok() {
            let _ = writeln!(text, "{}: a broker can be started with it", self.properties.display());
        }
        print(&text)?;
        configuration.map(|_| ())
    }
}
