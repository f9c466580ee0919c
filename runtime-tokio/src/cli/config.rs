//! `tidelog config`: what is configured for a topic, a broker, or all brokers.

use super::output::{Format, Table, print, print_json};
use super::session::{Connection, run};
use super::{Failure, Outcome};
use clap::{Args, Subcommand};
use serde::Serialize;
use tidelog_core::client::admin::{Answer, ConfigChange, ConfigEntry, Operation, Resource};
use tidelog_core::ids::NodeId;

/// A name and a value, as `KEY=VALUE` has them.
pub type Named = (String, String);

pub fn named(text: &str) -> Result<Named, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("allowed is KEY=VALUE, such as retention.ms=86400000".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Show configurations, and where each comes from.
    #[command(after_help = "\
Examples:
  tidelog config describe --topic orders                  what is not the default
  tidelog config describe --topic orders --all            everything
  tidelog config describe --broker 1 log.retention.ms     by name
  tidelog config describe --broker-defaults")]
    Describe(Describe),
    /// Change configurations; they take effect at once.
    #[command(after_help = "\
Examples:
  tidelog config alter --topic orders --set retention.ms=86400000
  tidelog config alter --topic orders --delete retention.ms
  tidelog config alter --topic orders --append cleanup.policy=compact
  tidelog config alter --broker 1 --set log.retention.ms=3600000
  tidelog config alter --broker-defaults --set log.retention.ms=3600000")]
    Alter(Alter),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// Of this topic.
    #[arg(long, short, value_name = "NAME")]
    topic: Option<String>,
    /// Of this broker.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i32).range(0..))]
    broker: Option<i32>,
    /// What all brokers have, but for those that have their own.
    #[arg(long)]
    broker_defaults: bool,
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

impl Config {
    pub fn run(self) -> Outcome {
        match self {
            Self::Describe(describe) => run(describe.run()),
            Self::Alter(alter) => run(alter.run()),
        }
    }
}

impl Place {
    fn resource(self) -> Resource {
        match (self.topic, self.broker) {
            (Some(topic), _) => Resource::Topic(topic.into()),
            (None, Some(broker)) => Resource::Broker(NodeId(broker)),
            (None, None) => Resource::AllBrokers,
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
}

impl Describe {
    async fn run(self) -> Outcome {
        let mut session = self.connection.admin()?;
        let resource = self.place.resource();
        let is_broker_defaults = resource == Resource::AllBrokers;
        let place = resource.to_string();
        let operation = Operation::DescribeConfigs { resources: vec![resource] };
        let answers = session.ask_for_all("describe", operation).await?;
        let Some(Answer::Configs(mut configs)) = answers.into_iter().next() else { unreachable!("that is its answer") };
        configs.sort_by(|a, b| a.name.cmp(&b.name));
        let named = |config: &ConfigEntry| self.names.iter().any(|name| config.name == *name);
        if let Some(name) = self.names.iter().find(|name| configs.iter().all(|config| config.name != **name)) {
            // A broker says of all brokers only what was set.
            let why = if is_broker_defaults { "nothing is set under this name" } else { "there is no such name" };
            return Err(Failure::of(format!("{place}: {name}: {why}\n  --all shows those that there are")));
        }
        configs.retain(|config| match self.names.is_empty() {
            true => self.all || !config.is_default,
            false => named(config),
        });
        let described: Vec<DescribedConfig<'_>> = configs.iter().map(described).collect();
        if self.format == Format::Json {
            return print_json(&described);
        }
        let mut table = Table::new(&["NAME", "VALUE", "FROM", ""]);
        for it in described {
            let value = if it.is_sensitive { "(hidden)" } else { it.value.unwrap_or("") };
            let access = if it.is_read_only { "read-only" } else { "" };
            table.row([it.name.to_owned(), value.to_owned(), it.source.to_owned(), access.to_owned()]);
        }
        if table.is_empty() {
            super::output::note(format_args!("{place}: everything has its default; --all shows it"));
            return Ok(());
        }
        print(&table.text())
    }
}

fn described(config: &ConfigEntry) -> DescribedConfig<'_> {
    DescribedConfig {
        name: &config.name,
        value: config.value.as_deref(),
        source: match config.source {
            1 => "topic",
            2 => "broker",
            3 => "all brokers",
            4 => "broker's file",
            5 => "default",
            _ => "unknown",
        },
        is_default: config.is_default,
        is_read_only: config.is_read_only,
        is_sensitive: config.is_sensitive,
    }
}

impl Alter {
    async fn run(self) -> Outcome {
        let mut session = self.connection.admin()?;
        let pairs = |pairs: Vec<Named>, change: fn(_, _) -> ConfigChange| {
            pairs.into_iter().map(move |(name, value)| change(name.into(), value.into()))
        };
        let changes = pairs(self.set, ConfigChange::Set)
            .chain(self.delete.into_iter().map(|name| ConfigChange::Delete(name.into())))
            .chain(pairs(self.append, ConfigChange::Append))
            .chain(pairs(self.subtract, ConfigChange::Subtract))
            .collect();
        let resource = self.place.resource();
        let place = resource.to_string();
        let operation =
            Operation::AlterConfigs { changes: vec![(resource, changes)], validate_only: self.validate_only };
        session.ask_for_all("alter", operation).await?;
        print(&format!("{place}: {}\n", if self.validate_only { "could be altered" } else { "altered" }))
    }
}
