//! `tidelog log-dirs`: what lies in the log directories of the brokers, and how much room there is.

use super::Outcome;
use super::number::at_least;
use super::output::{Format, Table, print, print_json};
use super::session::{Connection, Failures, must_have, run};
use clap::Args;
use serde::Serialize;
use tidelog_client::admin::{Answer, LogDirDescription, Operation, ReplicaDescription, Subject};
use tidelog_core::ids::NodeId;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidelog log-dirs                                    each directory with its size and its room
  tidelog log-dirs --partitions                       each partition with its size
  tidelog log-dirs --topic orders                     the partitions of a topic
  tidelog log-dirs --format json | jq '.[] | select(.error)'

FREE and TOTAL are the room of the directory's file system, for the broker and for all. A directory that is offline \
serves none of its partitions until the broker is started again.")]
pub struct LogDirs {
    /// Only of this broker. May be given many times.
    #[arg(long = "broker", value_name = "ID", value_parser = at_least(0))]
    brokers: Vec<i32>,
    /// Only the partitions of this topic. May be given many times.
    #[arg(long = "topic", short, value_name = "NAME")]
    topics: Vec<String>,
    /// Every partition with its size.
    #[arg(long)]
    partitions: bool,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct DescribedLogDir {
    broker: i32,
    path: String,
    /// Why it is offline.
    error: Option<String>,
    size_bytes: i64,
    free_bytes: Option<i64>,
    total_bytes: Option<i64>,
    partitions: Vec<DescribedReplica>,
}

#[derive(Serialize)]
struct DescribedReplica {
    topic: String,
    partition: i32,
    size_bytes: i64,
    offset_lag: i64,
    is_future: bool,
}

impl LogDirs {
    pub fn run(self) -> Outcome {
        run(self.describe())
    }

    async fn describe(self) -> Outcome {
        let mut session = self.connection.admin()?;
        let cluster = session.cluster("describe").await?;
        let mut brokers: Vec<NodeId> = self.brokers.iter().copied().map(NodeId).collect();
        for broker in &brokers {
            must_have(&cluster, *broker)?;
        }
        if brokers.is_empty() {
            brokers = cluster.brokers.iter().map(|broker| broker.node).collect();
        }
        brokers.sort_unstable();
        brokers.dedup();
        let results = session.ask(Operation::DescribeLogDirs { brokers }).await?;
        let (mut described, mut failures) = (Vec::new(), Failures::default());
        for (subject, result) in results {
            match (&subject, result) {
                (Subject::Broker(broker), Ok(Answer::LogDirs(dirs))) => {
                    described.extend(dirs.into_iter().map(|dir| self.described(*broker, dir)));
                }
                (_, Ok(_)) => unreachable!("that is its answer"),
                (_, Err(error)) => {
                    failures.add(session.failure("describe the log directories of", &subject, &error));
                }
            }
        }
        if self.format == Format::Json {
            print_json(&described)?;
        } else if self.partitions || !self.topics.is_empty() {
            print(&partitions_text(&described))?;
        } else {
            print(&text(&described))?;
        }
        failures.outcome()
    }

    fn described(&self, broker: NodeId, dir: LogDirDescription) -> DescribedLogDir {
        let is_wanted =
            |it: &ReplicaDescription| self.topics.is_empty() || self.topics.iter().any(|topic| *topic == *it.topic);
        let partitions: Vec<DescribedReplica> = dir
            .replicas
            .into_iter()
            .filter(is_wanted)
            .map(|it| DescribedReplica {
                topic: it.topic.to_string(),
                partition: it.partition,
                size_bytes: it.size_bytes,
                offset_lag: it.offset_lag,
                is_future: it.is_future,
            })
            .collect();
        DescribedLogDir {
            broker: broker.0,
            path: dir.path.to_string(),
            error: dir.error.is_error().then(|| dir.error.to_string()),
            size_bytes: partitions.iter().map(|it| it.size_bytes).sum(),
            free_bytes: dir.usable_bytes,
            total_bytes: dir.total_bytes,
            partitions,
        }
    }
}

fn text(dirs: &[DescribedLogDir]) -> String {
    let known = |size: Option<i64>| size.map_or("?".to_owned(), bytes);
    let mut table = Table::new(&["BROKER", "DIRECTORY", "STATE", "PARTITIONS", "SIZE", "FREE", "TOTAL"]);
    for it in dirs {
        let (count, size) = match it.error {
            // What lies there cannot be read.
            Some(_) => ("?".to_owned(), "?".to_owned()),
            None => (it.partitions.len().to_string(), bytes(it.size_bytes)),
        };
        table.row([
            it.broker.to_string(),
            it.path.clone(),
            it.error.as_ref().map_or("online".to_owned(), |error| format!("offline: {error}")),
            count,
            size,
            known(it.free_bytes),
            known(it.total_bytes),
        ]);
    }
    table.text()
}

fn partitions_text(dirs: &[DescribedLogDir]) -> String {
    let mut table = Table::new(&["BROKER", "DIRECTORY", "TOPIC", "PARTITION", "SIZE", "LAG", ""]);
    for dir in dirs {
        for it in &dir.partitions {
            table.row([
                dir.broker.to_string(),
                dir.path.clone(),
                it.topic.clone(),
                it.partition.to_string(),
                bytes(it.size_bytes),
                it.offset_lag.to_string(),
                if it.is_future { "moves here" } else { "" }.to_owned(),
            ]);
        }
    }
    table.text()
}

/// A number of bytes to three digits, in the units that file systems are measured in.
fn bytes(count: i64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 100.0 { 0 } else { 1 };
    format!("{value:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_that_keeps_them_short() {
        let sizes = [0, 1023, 1024, 1536, 150 << 20, 3 << 40];
        assert_eq!(sizes.map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "150 MiB", "3.0 TiB"]);
    }
}
