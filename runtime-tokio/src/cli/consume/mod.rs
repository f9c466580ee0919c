//! `tidelog consume`: the records of topics on standard output.

mod begin;
mod template;
mod work;

use super::output::Format;
use super::record::{Shown, TextFormat};
use super::session::{Connection, Session, run};
use super::topic::{Offsets, describe, offsets};
use super::{Failure, Outcome};
use begin::Begin;
use clap::{Args, ValueEnum};
use regex::Regex;
use std::collections::BTreeMap;
use template::Template;
use tidelog_client::admin::{Answer, Operation, TopicDescription};
use tidelog_client::config::OffsetReset;
use tidelog_client::{Admin, TopicPartition};
use work::{Look, Work};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidelog consume orders                      what comes from now on
  tidelog consume orders --from-beginning | head
  tidelog consume orders --offset -10 -e      the last 10 of each partition
  tidelog consume orders --offset -1h --show timestamp,key
  tidelog consume orders --partition 3 --offset 1500 -n 1 --format json
  tidelog consume orders --from-beginning --format '%T %k: %v\\n'
  tidelog consume --pattern 'orders-.*' --show topic
  tidelog consume orders --from-beginning -e --format json | jq .key

Text has one line a record: time (UTC), topic, partition, offset, headers and key as far as --show names them, then the \
value, with a tab or --separator between them.

JSON has one object a line, of which `tidelog produce --format json` makes the same record again. Bytes that are no text \
are {\"base64\":\"...\"}, and what is not there is null:
  {\"topic\":\"t\", \"partition\":0, \"offset\":5, \"timestamp\":1700000000000, \"key\":\"k\", \"value\":\"v\", \"headers\":[]}

Any other format is one of kcat's: %t topic, %p partition, %o offset, %k key, %v or %s value, %K and %S the bytes of key \
and value (-1: there is none), %T time in milliseconds since 1970, %h headers, %% a percent sign; \\n \\r \\t \\0 \\\\ \
and \\xNN are bytes. Nothing stands between two records that the format does not put there.

Records come in order within a partition. Which topics and partitions are read is decided once, when the command begins: \
those that are made later, or that match --pattern only later, are not joined. Reading commits nothing and joins no \
group.

Standard error tells when no broker answers any more and when one does again. When a topic is deleted, the others are \
read on; without another one the command ends with exit code 1.")]
pub struct Consume {
    /// The names of the topics.
    #[arg(value_name = "TOPIC", required_unless_present = "pattern")]
    topics: Vec<String>,
    /// All topics whose whole name matches this regular expression, but for the cluster's own.
    #[arg(long, value_name = "REGEX", conflicts_with = "topics", value_parser = whole_name)]
    pattern: Option<Regex>,
    /// From the first record that there is: --offset earliest.
    #[arg(long, conflicts_with = "offset")]
    from_beginning: bool,
    /// Where to begin in each partition: a number, earliest, latest, -N for the last N records, or the first record of
    /// a time. Times are some time ago (-1h, 30m, 2d), in UTC such as 2026-11-21T18:00:00Z, or @MILLISECONDS since
    /// 1970.
    #[arg(long, short, value_name = "WHERE", default_value = "latest", allow_hyphen_values = true, value_parser = Begin::parse)]
    offset: Begin,
    /// Only this partition. May be given many times.
    #[arg(long = "partition", short, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    partitions: Vec<i32>,
    /// End after this many records.
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
    /// End where the partitions ended when the command began.
    #[arg(long, short)]
    exit_at_end: bool,
    /// How records are printed: text, json, or a format such as '%k %v\n'.
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = RecordFormat::parse)]
    format: RecordFormat,
    /// What text has beside the value. All is all of it, with the topic where several are read.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FIELD,…")]
    show: Vec<Show>,
    /// What stands between the fields of a line of text; otherwise a tab.
    #[arg(long, value_name = "TEXT")]
    separator: Option<String>,
    /// What is printed for a key or value that is not there. (JSON has its own null.)
    #[arg(long, value_name = "TEXT", default_value = "null")]
    null: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Show {
    Timestamp,
    Topic,
    Partition,
    Offset,
    Headers,
    Key,
    All,
}

/// How records are printed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RecordFormat {
    Plain(Format),
    Template(Template),
}

impl RecordFormat {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Plain(Format::Text)),
            "json" => Ok(Self::Plain(Format::Json)),
            // A format without any of these would print the same for every record: it is a slip of the pen.
            _ if !text.contains(['%', '\\']) => Err(r"allowed is text, json, or a format such as '%k %v\n'".to_owned()),
            _ => Template::parse(text).map(Self::Template),
        }
    }
}

/// A regular expression that matches whole names of topics.
fn whole_name(text: &str) -> Result<Regex, String> {
    // First by itself, so that an error shows what the user wrote.
    Regex::new(text).and_then(|_| Regex::new(&format!("^(?:{text})$"))).map_err(|error| error.to_string())
}

/// The partitions to read, with where they begin and end now.
type Bounds = BTreeMap<TopicPartition, Offsets>;

impl Consume {
    pub fn run(self) -> Outcome {
        run(self.consume())
    }

    async fn consume(self) -> Outcome {
        if matches!(self.format, RecordFormat::Template(_)) && (!self.show.is_empty() || self.separator.is_some()) {
            let text = "--show and --separator are for --format text: another format says itself what is printed";
            return Err(Failure::usage(text));
        }
        let defaults = vec![
            // `Work::take` decides where a partition goes on whose log does not hold the position any more, and says so.
            ("auto.offset.reset", "none".into()),
            // A topic that is deleted while we read it must not be made again by our asking for it.
            ("allow.auto.create.topics", "false".into()),
        ];
        let (mut session, config) = self.connection.consumer(defaults)?;
        let (topics, bounds) = self.find().await?;
        session.trust();
        let from = if self.from_beginning { Begin::Earliest } else { self.offset };
        let mut starts = Vec::new();
        for (partition, offsets) in &bounds {
            starts.push((partition.clone(), from.start(partition, *offsets)?));
        }
        let ends = bounds.into_iter().map(|(partition, offsets)| (partition, offsets.latest)).collect();
        let resets = config.auto_offset_reset == OffsetReset::None;
        let (count, exits_at_end) = (self.count, self.exit_at_end);
        let mut work = Work::new(session, &topics, ends, self.look(topics.len()), resets);
        if exits_at_end {
            work.end_at_ends();
        }
        if let Some(count) = count {
            work.end_after(count);
        }
        work.run(starts).await
    }

    /// What is to be read.
    async fn find(&self) -> Result<(Vec<TopicDescription>, Bounds), Failure> {
        let mut session = self.connection.admin_beside()?;
        let topics = match &self.pattern {
            Some(pattern) => matching(&mut session, pattern).await?,
            None => {
                let mut names = self.topics.clone();
                names.sort();
                names.dedup();
                describe(&mut session, "consume", &names).await?
            }
        };
        let mut bounds = Bounds::new();
        for topic in &topics {
            self.check(topic)?;
            for (index, offsets) in offsets(&mut session, topic).await? {
                if self.is_meant(index) {
                    bounds.insert(TopicPartition::new(topic.name.clone(), index), offsets);
                }
            }
        }
        Ok((topics, bounds))
    }

    fn is_meant(&self, partition: i32) -> bool {
        self.partitions.is_empty() || self.partitions.contains(&partition)
    }

    /// Whether the partitions that are asked for can be read.
    fn check(&self, topic: &TopicDescription) -> Outcome {
        let (name, count) = (&topic.name, topic.partitions.len());
        if let Some(partition) = self.partitions.iter().find(|it| usize::try_from(**it).is_ok_and(|it| it >= count)) {
            return Err(Failure::of(format!("topic {name} has no partition {partition}: it has {count}, from 0 on")));
        }
        let leaderless = topic.partitions.iter().find(|it| self.is_meant(it.index) && it.leader.is_none());
        match leaderless {
            Some(partition) => Err(Failure::of(format!(
                "{name}-{} has no leader now\n  `tidelog cluster describe` shows which brokers are up",
                partition.index
            ))),
            None => Ok(()),
        }
    }

    fn look(self, topics: usize) -> Look {
        match self.format {
            RecordFormat::Plain(Format::Json) => Look::Json,
            RecordFormat::Template(template) => Look::Template { template, null: self.null },
            RecordFormat::Plain(Format::Text) => {
                let shows = |field| self.show.contains(&field) || self.show.contains(&Show::All);
                let shown = Shown {
                    timestamp: shows(Show::Timestamp),
                    topic: self.show.contains(&Show::Topic) || topics > 1 && shows(Show::All),
                    partition: shows(Show::Partition),
                    offset: shows(Show::Offset),
                    headers: shows(Show::Headers),
                    key: shows(Show::Key),
                };
                let separator = self.separator.unwrap_or_else(|| "\t".to_owned());
                Look::Text(TextFormat { shown, separator, null: self.null })
            }
        }
    }
}

/// The topics of the cluster that a pattern matches, but for the cluster's own.
async fn matching(session: &mut Session<Admin>, pattern: &Regex) -> Result<Vec<TopicDescription>, Failure> {
    let answers = session.ask_for_all("list", Operation::ListTopics).await?;
    let Some(Answer::Topics(mut topics)) = answers.into_iter().next() else { unreachable!("that is its answer") };
    topics.retain(|topic| !topic.is_internal && pattern.is_match(&topic.name));
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    if topics.is_empty() {
        return Err(Failure::of(
            "no topic has a name that matches --pattern\n  `tidelog topic list` shows those there are",
        ));
    }
    Ok(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_text_json_or_has_directives() {
        assert_eq!(RecordFormat::parse("text"), Ok(RecordFormat::Plain(Format::Text)));
        assert_eq!(RecordFormat::parse("json"), Ok(RecordFormat::Plain(Format::Json)));
        assert!(matches!(RecordFormat::parse(r"%v\n"), Ok(RecordFormat::Template(_))));
        for text in ["", "xml", "jsno"] {
            assert!(RecordFormat::parse(text).unwrap_err().starts_with("allowed is text, json, or a format"), "{text}");
        }
    }

    #[test]
    fn a_pattern_matches_whole_names_alone() {
        let pattern = whole_name("orders|orders-.*").unwrap();
        let matches = ["orders", "orders-eu", "my-orders", "orderss"].map(|name| pattern.is_match(name));
        assert_eq!(matches, [true, true, false, false]);
        assert!(whole_name("orders-(").unwrap_err().contains("unclosed group"));
    }
}
