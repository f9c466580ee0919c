//! `tidelog topic trim`: records are deleted from the beginning of partitions, without a change of the retention.

use super::number::at_least;
use super::output::print;
use super::record::parse_time;
use super::session::{Connection, Failures, Session, run};
use super::topic::{Offsets, describe, offsets};
use super::{Failure, Outcome};
use clap::Args;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use tidelog_client::admin::{Answer, Operation, Subject, TopicDescription};
use tidelog_client::{Admin, OffsetSpec, TopicPartition};

/// What a DeleteRecords request calls the high watermark.
const HIGH_WATERMARK: i64 = -1;

#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("end").required(true)),
    after_help = "\
Examples:
  tidelog topic trim orders --partition 0 --before-offset 1000    keeps 1000 and what is behind it
  tidelog topic trim orders --before-time 2026-11-01              keeps what is of that day or later
  tidelog topic trim orders --before-offset latest                deletes all that is there
  tidelog topic trim orders --before-time 2026-11-01 --validate-only

--before-time deletes up to the first record that is not older: where times do not rise from record to record, older \
ones behind it stay. What is deleted cannot be had back."
)]
pub struct Trim {
    /// The names of the topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only this partition. May be given many times.
    #[arg(long = "partition", short, value_name = "NUMBER", value_parser = at_least(0))]
    partitions: Vec<i32>,
    /// Deletes the records before this offset, or all: a number or latest.
    #[arg(long, group = "end", value_name = "OFFSET", value_parser = end, allow_negative_numbers = true)]
    before_offset: Option<End>,
    /// Deletes the records that are older, in UTC such as 2026-11-21T18:00:00Z or in milliseconds since 1970.
    #[arg(long, group = "end", value_name = "TIME", value_parser = parse_time, allow_negative_numbers = true)]
    before_time: Option<i64>,
    /// Only say what would be deleted.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Before which record is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Offset(i64),
    Latest,
}

fn end(text: &str) -> Result<End, String> {
    match text.parse() {
        Ok(offset) if offset >= 0 => Ok(End::Offset(offset)),
        Err(_) if text == "latest" => Ok(End::Latest),
        _ => Err("allowed is a whole number of at least 0, or latest".to_owned()),
    }
}

/// A partition with where its records begin and end, and before which offset it is to be trimmed.
struct Cut {
    partition: TopicPartition,
    offsets: Offsets,
    before: i64,
}

impl Trim {
    pub fn run(self) -> Outcome {
        run(self.trim())
    }

    async fn trim(self) -> Outcome {
        let mut session = self.connection.admin()?;
        let topics = describe(&mut session, "trim", &self.topics).await?;
        let (mut cuts, mut failures) = (Vec::new(), Failures::default());
        for topic in &topics {
            let chosen = self.chosen(topic)?;
            let offsets = offsets(&mut session, topic).await?;
            let (led, leaderless): (Vec<_>, Vec<_>) =
                chosen.into_iter().partition(|partition| offsets.contains_key(&partition.partition));
            for partition in leaderless {
                failures.add(Failure::of(format!("cannot trim {partition}: it has no leader")));
            }
            let ends = self.ends(&mut session, &led).await?;
            for (partition, before) in led.into_iter().zip(ends) {
                let offsets = offsets[&partition.partition];
                match before.unwrap_or(offsets.latest) {
                    before if before > offsets.latest => failures.add(Failure::of(format!(
                        "cannot trim {partition} before offset {before}: its records end before {}",
                        offsets.latest
                    ))),
                    before => cuts.push(Cut { partition, offsets, before }),
                }
            }
        }
        self.carry_out(&mut session, cuts, failures).await
    }

    /// The partitions of a topic that were asked for.
    fn chosen(&self, topic: &TopicDescription) -> Result<Vec<TopicPartition>, Failure> {
        let (name, count) = (&topic.name, topic.partitions.len());
        if let Some(unknown) = self.partitions.iter().find(|index| **index as usize >= count) {
            return Err(Failure::of(format!("topic {name} has no partition {unknown}: it has {count}, from 0 on")));
        }
        if self.partitions.is_empty() && count > 1 && matches!(self.before_offset, Some(End::Offset(_))) {
            return Err(Failure::usage(format!(
                "topic {name} has {count} partitions, each with offsets of its own\n  \
                 --partition says which one is trimmed, --before-time trims all alike"
            )));
        }
        let mut indexes: Vec<i32> = match self.partitions.is_empty() {
            true => topic.partitions.iter().map(|partition| partition.index).collect(),
            false => self.partitions.clone(),
        };
        indexes.sort_unstable();
        indexes.dedup();
        Ok(indexes.into_iter().map(|index| TopicPartition::new(name.clone(), index)).collect())
    }

    /// Before which offset each partition is trimmed; `None`: all that is there.
    async fn ends(&self, session: &mut Session<Admin>, led: &[TopicPartition]) -> Result<Vec<Option<i64>>, Failure> {
        let Some(ms) = self.before_time else {
            let end = match self.before_offset {
                Some(End::Offset(offset)) => Some(offset),
                _ => None,
            };
            return Ok(vec![end; led.len()]);
        };
        if led.is_empty() {
            return Ok(Vec::new());
        }
        let partitions = led.iter().map(|partition| (partition.clone(), OffsetSpec::Timestamp(ms))).collect();
        let answers = session.ask_for_all("find the offsets of", Operation::ListOffsets { partitions }).await?;
        let offset = |answer| match answer {
            // Where no record is as young, all are older.
            Answer::Offset(found) => found.offset,
            _ => unreachable!("that is its answer"),
        };
        Ok(answers.into_iter().map(offset).collect())
    }

    async fn carry_out(&self, session: &mut Session<Admin>, cuts: Vec<Cut>, mut failures: Failures) -> Outcome {
        let mut text = String::new();
        let (needed, done): (Vec<Cut>, Vec<Cut>) = cuts.into_iter().partition(|cut| cut.before > cut.offsets.earliest);
        for Cut { partition, offsets, .. } in done {
            let _ = writeln!(text, "{partition}: nothing to delete, it begins at {}", offsets.earliest);
        }
        if self.validate_only {
            for Cut { partition, offsets, before } in needed {
                let _ = writeln!(text, "{partition}: would begin at {before}, and begins at {}", offsets.earliest);
            }
            print(&text)?;
            return failures.outcome();
        }
        // `latest` also covers records that are written until the leader takes the request; a number or a time does not.
        let is_all = self.before_offset == Some(End::Latest);
        let before = |cut: &Cut| (cut.partition.clone(), if is_all { HIGH_WATERMARK } else { cut.before });
        let operation = Operation::DeleteRecords { before: needed.iter().map(before).collect() };
        let began: BTreeMap<TopicPartition, i64> =
            needed.iter().map(|cut| (cut.partition.clone(), cut.offsets.earliest)).collect();
        let results = if needed.is_empty() { Vec::new() } else { session.ask(operation).await? };
        for (subject, result) in results {
            match (&subject, result) {
                (Subject::Partition(partition), Ok(Answer::LowWatermark(begins))) => {
                    let _ = writeln!(text, "{partition}: begins at {begins}, and began at {}", began[partition]);
                }
                (_, Ok(_)) => unreachable!("that is its answer"),
                (_, Err(error)) => failures.add(session.failure("trim", &subject, &error)),
            }
        }
        print(&text)?;
        failures.outcome()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_an_offset_or_the_latest() {
        assert_eq!((end("0"), end("17"), end("latest")), (Ok(End::Offset(0)), Ok(End::Offset(17)), Ok(End::Latest)));
        for text in ["", "-1", "-3", "earliest", "1.5"] {
            assert!(end(text).is_err(), "{text}");
        }
    }
}
