//! `tidelog topic`: create, list, describe, alter, trim, delete.

use super::config::{Named, named};
use super::number::at_least;
use super::output::{Format, Table, bold, count, print, print_json};
use super::session::{Connection, Failures, Session, run};
use super::trim::Trim;
use super::{Failure, Outcome};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use tidelog_client::admin::{
    Answer, ConfigChange, ConfigEntry, NewPartitions, NewTopic, Operation, PartitionDescription, Resource,
    TopicDescription,
};
use tidelog_client::{Admin, OffsetSpec, TopicPartition};
use tidelog_core::config::Warning;
use tidelog_core::ids::NodeId;
use tidelog_core::wire::ErrorCode;

#[derive(Debug, Subcommand)]
pub enum Topic {
    /// Create topics.
    #[command(after_help = "\
Examples:
  tidelog topic create orders
  tidelog topic create orders payments --partitions 12 --config retention.ms=86400000
  tidelog topic create events --config max.message.bytes=8388608 --if-not-exists")]
    Create(Create),
    /// List the topics.
    #[command(after_help = "\
Examples:
  tidelog topic list
  tidelog topic list --format json | jq -r '.[].name'")]
    List(List),
    /// Show topics with their partitions, offsets and what is configured for them.
    #[command(after_help = "\
Examples:
  tidelog topic describe orders
  tidelog topic describe orders --format json | jq '.[0].partitions | map(.latest_offset - .earliest_offset) | add'")]
    Describe(Describe),
    /// Give topics more partitions or other configurations.
    #[command(
        override_usage = "tidelog topic alter [OPTIONS] <TOPIC>...",
        after_help = "\
Examples:
  tidelog topic alter orders --partitions 24
  tidelog topic alter orders --config retention.ms=3600000 --delete-config segment.bytes

More partitions change where keys go: records of one key may then stand in two partitions."
    )]
    Alter(Alter),
    /// Delete the records of topics before an offset or a time.
    Trim(Trim),
    /// Delete topics with all their records.
    #[command(after_help = "\
Examples:
  tidelog topic delete orders
  tidelog topic delete orders payments --if-exists")]
    Delete(Delete),
}

#[derive(Debug, Args)]
pub struct Create {
    /// The names of the topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// How many partitions each gets; otherwise the broker's num.partitions.
    #[arg(long, short, value_name = "COUNT", value_parser = at_least(1))]
    partitions: Option<i32>,
    /// How many brokers keep each partition; otherwise the broker's default.replication.factor.
    #[arg(long, value_name = "COUNT", value_parser = at_least(1_i16))]
    replication_factor: Option<i16>,
    /// A configuration of the topic. May be given many times.
    #[arg(long = "config", short, value_name = "KEY=VALUE", value_parser = named)]
    configs: Vec<Named>,
    /// A topic that exists already is no failure.
    #[arg(long)]
    if_not_exists: bool,
    /// Only say whether it could be done.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub struct List {
    /// Those of the cluster itself too.
    #[arg(long)]
    internal: bool,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub struct Describe {
    /// The names of the topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true)))]
pub struct Alter {
    /// The names of the topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// How many partitions each is to have: more than now.
    #[arg(long, short, group = "what", value_name = "COUNT", value_parser = at_least(1))]
    partitions: Option<i32>,
    /// A configuration to set. May be given many times.
    #[arg(long = "config", short, group = "what", value_name = "KEY=VALUE", value_parser = named)]
    configs: Vec<Named>,
    /// A configuration to take back to its default. May be given many times.
    #[arg(long = "delete-config", group = "what", value_name = "KEY")]
    deleted_configs: Vec<String>,
    /// Only say whether it could be done.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub struct Delete {
    /// The names of the topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// A topic that does not exist is no failure.
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Topic {
    pub fn run(self) -> Outcome {
        match self {
            Self::Create(create) => run(create.run()),
            Self::List(list) => run(list.run()),
            Self::Describe(describe) => run(describe.run()),
            Self::Alter(alter) => run(alter.run()),
            Self::Trim(trim) => trim.run(),
            Self::Delete(delete) => run(delete.run()),
        }
    }
}

impl Create {
    async fn run(self) -> Outcome {
        let mut session = self.connection.admin()?;
        let warnings = warnings(&self.configs);
        let configs: Vec<_> = self.configs.into_iter().map(|(name, value)| (name.into(), Some(value.into()))).collect();
        let topic = |name: String| NewTopic {
            name: name.into(),
            partitions: self.partitions,
            replication_factor: self.replication_factor,
            replicas: Vec::new(),
            configs: configs.clone(),
        };
        let topics = self.topics.into_iter().map(topic).collect();
        let operation = Operation::CreateTopics { topics, validate_only: self.validate_only };
        let done = if self.validate_only { "could be created" } else { "created" };
        tell(&mut session, "create", done, operation, &warnings, |error| {
            (self.if_not_exists && error == ErrorCode::TopicAlreadyExists).then_some("exists already")
        })
        .await
    }
}

impl Delete {
    async fn run(self) -> Outcome {
        let mut session = self.connection.admin()?;
        let operation = Operation::DeleteTopics { topics: self.topics.into_iter().map(Into::into).collect() };
        tell(&mut session, "delete", "deleted", operation, &[], |error| {
            (self.if_exists && error == ErrorCode::UnknownTopicOrPartition).then_some("does not exist")
        })
        .await
    }
}

impl Alter {
    async fn run(self) -> Outcome {
        let mut session = self.connection.admin()?;
        let validate_only = self.validate_only;
        let deleted = self.deleted_configs.iter().filter_map(|name| Warning::of_deleted_from_topic(name));
        let warnings: Vec<Warning> = warnings(&self.configs).into_iter().chain(deleted).collect();
        let done = |text: &'static str| if validate_only { "could be altered" } else { text };
        let set = self.configs.into_iter().map(|(name, value)| ConfigChange::Set(name.into(), value.into()));
        let delete = self.deleted_configs.into_iter().map(|name| ConfigChange::Delete(name.into()));
        let changes: Vec<ConfigChange> = set.chain(delete).collect();
        if !changes.is_empty() {
            let resource = |name: &String| (Resource::Topic(name.clone().into()), changes.clone());
            let changes = self.topics.iter().map(resource).collect();
            let operation = Operation::AlterConfigs { changes, validate_only };
            tell(&mut session, "alter", done("configuration altered"), operation, &warnings, |_| None).await?;
        }
        if let Some(count) = self.partitions {
            let new = |topic: String| NewPartitions { topic: topic.into(), count, replicas: None };
            let topics = self.topics.into_iter().map(new).collect();
            let operation = Operation::CreatePartitions { topics, validate_only };
            tell(&mut session, "alter", done("partitions added"), operation, &[], |_| None).await?;
        }
        Ok(())
    }
}

/// What is without effect of the configurations of a topic.
fn warnings(configs: &[Named]) -> Vec<Warning> {
    configs.iter().filter_map(|(name, value)| Warning::of_topic(name, value)).collect()
}

/// Asks for an operation on topics and prints a line for each of them: `done`, or why it failed. An error for which
/// `accepted` has a text counts as success, and its line is that text. If anything was done, the warnings follow.
async fn tell(
    session: &mut Session<Admin>,
    verb: &str,
    done: &str,
    operation: Operation,
    warnings: &[Warning],
    accepted: impl Fn(ErrorCode) -> Option<&'static str>,
) -> Outcome {
    let (mut text, mut failures, mut is_any_done) = (String::new(), Failures::default(), false);
    for (subject, result) in session.ask(operation).await? {
        let error = match result {
            Ok(_) => {
                is_any_done = true;
                let _ = writeln!(text, "{subject}: {done}");
                continue;
            }
            Err(error) => error,
        };
        match error.code().and_then(&accepted) {
            Some(what) => {
                let _ = writeln!(text, "{subject}: {what}");
            }
            None => failures.add(session.failure(verb, &subject, &error)),
        }
    }
    print(&text)?;
    if is_any_done {
        session.warn(warnings).await;
    }
    failures.outcome()
}

#[derive(Serialize)]
struct ListedTopic<'a> {
    name: &'a str,
    id: String,
    is_internal: bool,
    partitions: usize,
    replication_factor: usize,
}

impl List {
    async fn run(self) -> Outcome {
        let mut session = self.connection.admin()?;
        let answers = session.ask_for_all("list", Operation::ListTopics).await?;
        let Some(Answer::Topics(mut topics)) = answers.into_iter().next() else { unreachable!("that is its answer") };
        topics.retain(|topic| self.internal || !topic.is_internal);
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        let listed: Vec<ListedTopic<'_>> = topics
            .iter()
            .map(|topic| ListedTopic {
                name: &topic.name,
                id: topic.id.to_string(),
                is_internal: topic.is_internal,
                partitions: topic.partitions.len(),
                replication_factor: topic.partitions.first().map_or(0, |partition| partition.replicas.len()),
            })
            .collect();
        if self.format == Format::Json {
            return print_json(&listed);
        }
        let mut table = Table::new(&["TOPIC", "PARTITIONS", "REPLICAS", "ID"]).numbers(&["PARTITIONS", "REPLICAS"]);
        for it in listed {
            table.row([it.name.to_owned(), count(it.partitions), count(it.replication_factor), it.id]);
        }
        print(&table.text())
    }
}

#[derive(Serialize)]
struct DescribedTopic {
    name: String,
    id: String,
    is_internal: bool,
    /// The configurations that have another value than their default.
    configs: BTreeMap<String, Option<String>>,
    partitions: Vec<DescribedPartition>,
}

#[derive(Serialize)]
struct DescribedPartition {
    partition: i32,
    leader: Option<i32>,
    leader_epoch: i32,
    replicas: Vec<i32>,
    in_sync_replicas: Vec<i32>,
    /// None where no leader can say.
    earliest_offset: Option<i64>,
    latest_offset: Option<i64>,
}

impl Describe {
    async fn run(self) -> Outcome {
        let mut session = self.connection.admin()?;
        let topics = describe(&mut session, "describe", &self.topics).await?;
        let resources = topics.iter().map(|topic| Resource::Topic(topic.name.clone())).collect();
        let configs = session.ask_for_all("describe", Operation::DescribeConfigs { resources }).await?;
        let mut described = Vec::new();
        for (topic, configs) in topics.into_iter().zip(configs) {
            let Answer::Configs(configs) = configs else { unreachable!("that is its answer") };
            let offsets = offsets(&mut session, &topic).await?;
            described.push(described_topic(topic, configs, &offsets));
        }
        if self.format == Format::Json {
            return print_json(&described);
        }
        let texts: Vec<String> = described.iter().map(text).collect();
        print(&texts.join("\n"))
    }
}

/// Topics by their names; a failure if one does not exist. `verb` says what they are wanted for.
pub async fn describe(
    session: &mut Session<Admin>,
    verb: &str,
    names: &[String],
) -> Result<Vec<TopicDescription>, Failure> {
    let topics = names.iter().map(|name| name.clone().into()).collect();
    let answers = session.ask_for_all(verb, Operation::DescribeTopics { topics }).await?;
    let topic = |answer| if let Answer::Topic(topic) = answer { topic } else { unreachable!("that is its answer") };
    Ok(answers.into_iter().map(topic).collect())
}

/// Where a partition begins, and what its next record will have.
#[derive(Clone, Copy, Debug)]
pub struct Offsets {
    pub earliest: i64,
    pub latest: i64,
}

/// The offsets of each partition that has a leader, by the partition's number.
pub async fn offsets(
    session: &mut Session<Admin>,
    topic: &TopicDescription,
) -> Result<BTreeMap<i32, Offsets>, Failure> {
    let led: Vec<i32> = topic.partitions.iter().filter(|it| it.leader.is_some()).map(|it| it.index).collect();
    let of = |spec| led.iter().map(move |index| (TopicPartition::new(topic.name.clone(), *index), spec));
    let partitions: Vec<_> = of(OffsetSpec::Earliest).chain(of(OffsetSpec::Latest)).collect();
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let answers = session.ask_for_all("find the offsets of", Operation::ListOffsets { partitions }).await?;
    let offset = |answer: &Answer| match answer {
        Answer::Offset(found) => found.offset.unwrap_or(0),
        _ => unreachable!("that is its answer"),
    };
    let (earliest, latest) = answers.split_at(led.len());
    let pairs = earliest.iter().zip(latest);
    let pairs = pairs.map(|(earliest, latest)| Offsets { earliest: offset(earliest), latest: offset(latest) });
    Ok(led.iter().copied().zip(pairs).collect())
}

fn described_topic(
    topic: TopicDescription,
    configs: Vec<ConfigEntry>,
    offsets: &BTreeMap<i32, Offsets>,
) -> DescribedTopic {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    let partition = |it: &PartitionDescription| DescribedPartition {
        partition: it.index,
        leader: it.leader.map(|node| node.0),
        leader_epoch: it.leader_epoch.0,
        replicas: ids(&it.replicas),
        in_sync_replicas: ids(&it.in_sync_replicas),
        earliest_offset: offsets.get(&it.index).map(|offsets| offsets.earliest),
        latest_offset: offsets.get(&it.index).map(|offsets| offsets.latest),
    };
    let own = configs.into_iter().filter(|config| !config.is_default);
    DescribedTopic {
        name: topic.name.to_string(),
        id: topic.id.to_string(),
        is_internal: topic.is_internal,
        configs: own.map(|it| (it.name.to_string(), it.value.map(|value| value.to_string()))).collect(),
        partitions: topic.partitions.iter().map(partition).collect(),
    }
}

fn text(topic: &DescribedTopic) -> String {
    let list = |ids: &[i32]| ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    let number = |number: Option<i64>| number.map_or("?".to_owned(), count);
    let mut text = format!("{}  id {}\n", bold(&topic.name), topic.id);
    for (name, value) in &topic.configs {
        let _ = writeln!(text, "  {name}={}", value.as_deref().unwrap_or(""));
    }
    let mut table = Table::new(&["PARTITION", "LEADER", "REPLICAS", "IN SYNC", "EARLIEST", "LATEST"]).numbers(&[
        "PARTITION",
        "LEADER",
        "EARLIEST",
        "LATEST",
    ]);
    for it in &topic.partitions {
        table.row([
            it.partition.to_string(),
            it.leader.map_or("none".to_owned(), |node| node.to_string()),
            list(&it.replicas),
            list(&it.in_sync_replicas),
            number(it.earliest_offset),
            number(it.latest_offset),
        ]);
    }
    text + &table.text()
}
