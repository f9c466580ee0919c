//! `tidelog consume`: the records of a topic on standard output.

use super::output::{Format, note, printed};
use super::record::{JsonRecord, Shown, TextFormat, parse_time};
use super::session::{Connection, Session, run};
use super::topic::{Offsets, describe, offsets};
use super::{Failure, Outcome};
use clap::{Args, ValueEnum};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::time::Duration;
use tidelog_core::client::admin::Subject;
use tidelog_core::client::config::OffsetReset;
use tidelog_core::client::consumer::{Call, Event, Polled, Start};
use tidelog_core::client::{Consumer, TopicPartition};
use tokio::time::sleep;

/// How often it is looked whether somebody still reads, and whether the end is reached without a record.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const BUFFER_BYTES: usize = 256 << 10;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidelog consume orders                                     what comes from now on
  tidelog consume orders --from-beginning | head
  tidelog consume orders --offset -10 --exit-at-end          the last 10 of each partition
  tidelog consume orders --offset 2026-11-21T18:00:00Z --show timestamp,key
  tidelog consume orders --partition 3 --offset 1500 -n 1 --format json
  tidelog consume orders --from-beginning --exit-at-end --format json | jq -r .key | sort | uniq -c

Text has one line a record: time (UTC), partition, offset, headers and key as far as --show names them, then the value,
with a tab or --separator between them. JSON has one object a line:
  {\"topic\":\"t\",\"partition\":0,\"offset\":5,\"timestamp\":1700000000000,\"key\":\"k\",\"value\":\"v\",\"headers\":[]}
There, bytes that are no text are {\"base64\":\"...\"}, and what is not there is null; `tidelog produce --format json` reads
it. Records come in order within a partition. Partitions that the topic gets meanwhile are not read. Reading commits
nothing and joins no group.")]
pub struct Consume {
    /// The topic's name.
    topic: String,
    /// From the first record that there is: --offset earliest.
    #[arg(long, conflicts_with = "offset")]
    from_beginning: bool,
    /// Where to begin in each partition: a number, earliest, latest, -N for the last N records, or the first record of a
    /// time in UTC such as 2026-11-21T18:00:00Z (or @MILLISECONDS since 1970).
    #[arg(long, short, value_name = "WHERE", default_value = "latest", allow_hyphen_values = true, value_parser = Begin::parse)]
    offset: Begin,
    /// Only this partition. May be given many times.
    #[arg(long = "partition", short, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    partitions: Vec<i32>,
    /// End after so many records.
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
    /// End where the partitions ended when the command began.
    #[arg(long, short)]
    exit_at_end: bool,
    /// How records are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// What text has beside the value.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FIELD,…")]
    show: Vec<Show>,
    /// What stands between the fields of a line of text.
    #[arg(long, value_name = "TEXT", default_value = "\t", hide_default_value = true)]
    separator: String,
    /// What text has for a key or value that is not there.
    #[arg(long, value_name = "TEXT", default_value = "null")]
    null: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Show {
    Timestamp,
    Partition,
    Offset,
    Headers,
    Key,
    All,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    Earliest,
    Latest,
    Offset(i64),
    Last(i64),
    Time(i64),
}

impl Begin {
    fn parse(text: &str) -> Result<Self, String> {
        let allowed = "allowed is a number, earliest, latest, -N, a time in UTC such as 2026-11-21T18:00:00Z, or \
                       @MILLISECONDS since 1970";
        Ok(match text {
            "earliest" | "beginning" => Self::Earliest,
            "latest" | "end" => Self::Latest,
            _ => match (text.parse::<i64>(), text.strip_prefix('@')) {
                (Ok(0), _) if text.starts_with('-') => Self::Latest,
                (Ok(number), _) if number >= 0 => Self::Offset(number),
                (Ok(number), _) => Self::Last(number.checked_neg().ok_or(allowed)?),
                (Err(_), Some(ms)) => Self::Time(ms.parse().ok().filter(|ms| *ms >= 0).ok_or(allowed)?),
                (Err(_), None) => Self::Time(parse_time(text).map_err(|_| allowed)?),
            },
        })
    }

    /// Where that is in a partition that begins and ends there.
    fn start(self, partition: &TopicPartition, Offsets { earliest, latest }: Offsets) -> Result<Start, Failure> {
        let offset = match self {
            Self::Time(ms) => return Ok(Start::Timestamp(ms)),
            Self::Earliest => earliest,
            Self::Latest => latest,
            Self::Last(count) => (latest - count).max(earliest),
            Self::Offset(offset) if (earliest..=latest).contains(&offset) => offset,
            Self::Offset(offset) => {
                let text = format!(
                    "cannot begin at offset {offset} of {partition}: its records are those from {earliest} to before \
                     {latest}\n  --partition chooses a partition, --offset earliest begins with what there is"
                );
                return Err(Failure::of(text));
            }
        };
        Ok(Start::Offset { offset, epoch: None })
    }
}

impl Consume {
    pub fn run(self) -> Outcome {
        run(self.consume())
    }

    async fn consume(self) -> Outcome {
        // A partition that has lost the position goes on with what there is, and we say so.
        let (mut session, config) = self.connection.consumer(vec![("auto.offset.reset", "none".into())])?;
        let bounds = self.bounds().await?;
        session.trust();
        let from = if self.from_beginning { Begin::Earliest } else { self.offset };
        let mut assigned = Vec::new();
        for (partition, offsets) in &bounds {
            assigned.push((partition.clone(), from.start(partition, *offsets)?));
        }
        let ends: BTreeMap<_, _> = bounds.into_iter().map(|(partition, offsets)| (partition, offsets.latest)).collect();
        session.driver.call(Call::Assign(assigned));
        let stdout = io::stdout().lock();
        let work = Work {
            session,
            is_terminal: stdout.is_terminal(),
            out: BufWriter::with_capacity(BUFFER_BYTES, stdout),
            text: (self.format == Format::Text).then(|| self.text_format()),
            ends: self.exit_at_end.then_some(ends),
            left: self.count.unwrap_or(u64::MAX),
            resets: config.auto_offset_reset == OffsetReset::None,
        };
        work.run().await
    }

    /// The partitions to read, with where they begin and end now.
    async fn bounds(&self) -> Result<BTreeMap<TopicPartition, Offsets>, Failure> {
        let mut session = self.connection.admin_beside()?;
        let topic = describe(&mut session, "consume", std::slice::from_ref(&self.topic)).await?.remove(0);
        let count = topic.partitions.len();
        if let Some(partition) = self.partitions.iter().find(|it| usize::try_from(**it).is_ok_and(|it| it >= count)) {
            let text = format!("topic {} has no partition {partition}: it has {count}, from 0 on", self.topic);
            return Err(Failure::of(text));
        }
        let is_meant = |index: &i32| self.partitions.is_empty() || self.partitions.contains(index);
        let leaderless = topic.partitions.iter().find(|it| is_meant(&it.index) && it.leader.is_none());
        if let Some(partition) = leaderless {
            let text = format!(
                "{}-{} has no leader now\n  `tidelog cluster describe` shows which brokers are up",
                self.topic, partition.index
            );
            return Err(Failure::of(text));
        }
        let bounds = offsets(&mut session, &topic).await?;
        let meant = bounds.into_iter().filter(|(index, _)| is_meant(index));
        Ok(meant.map(|(index, offsets)| (TopicPartition::new(topic.name.clone(), index), offsets)).collect())
    }

    fn text_format(&self) -> TextFormat {
        let shows = |field| self.show.contains(&field) || self.show.contains(&Show::All);
        let shown = Shown {
            timestamp: shows(Show::Timestamp),
            partition: shows(Show::Partition),
            offset: shows(Show::Offset),
            headers: shows(Show::Headers),
            key: shows(Show::Key),
        };
        TextFormat { shown, separator: self.separator.clone(), null: self.null.clone() }
    }
}

struct Work<'a> {
    session: Session<Consumer>,
    out: BufWriter<StdoutLock<'a>>,
    is_terminal: bool,
    /// None: JSON.
    text: Option<TextFormat>,
    /// Where to end.
    ends: Option<BTreeMap<TopicPartition, i64>>,
    /// Records that are still wanted.
    left: u64,
    /// Whether it is for us to say where a lost position goes on.
    resets: bool,
}

impl Work<'_> {
    async fn run(mut self) -> Outcome {
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        self.session.driver.call(Call::Poll);
        while self.left > 0 {
            let event = match self.session.driver.take_event() {
                Some(event) => event,
                // All that the positions have passed is written.
                None if self.is_at_end() => break,
                None => {
                    if let Err(error) = self.out.flush() {
                        return printed(Err(error));
                    }
                    tokio::select! {
                        biased;
                        _ = &mut interrupt => break,
                        event = self.session.next() => event?,
                        () = sleep(LOOK_EVERY) => {
                            if reader_has_gone() {
                                return Ok(());
                            }
                            continue;
                        }
                    }
                }
            };
            match event {
                Event::Records(polled) => {
                    if let Err(error) = self.write(&polled) {
                        return printed(Err(error));
                    }
                    self.session.driver.call(Call::Poll);
                }
                other => self.take(other)?,
            }
        }
        printed(self.out.flush())
    }

    /// Positions also pass what is no record.
    fn is_at_end(&self) -> bool {
        let consumer = self.session.driver.client();
        let is_there = |(partition, end): (&TopicPartition, &i64)| consumer.position(partition) >= Some(*end);
        self.ends.as_ref().is_some_and(|ends| ends.iter().all(is_there))
    }

    fn write(&mut self, polled: &[Polled]) -> io::Result<()> {
        for Polled { partition, records, .. } in polled {
            let end = self.ends.as_ref().map_or(i64::MAX, |ends| ends[partition]);
            for record in records.iter().filter(|record| record.offset.0 < end) {
                if self.left == 0 {
                    return Ok(());
                }
                self.left -= 1;
                match &self.text {
                    Some(format) => format.write(&mut self.out, partition.partition, record)?,
                    None => {
                        let json = JsonRecord::of(&partition.topic, partition.partition, record);
                        serde_json::to_writer(&mut self.out, &json)?;
                        self.out.write_all(b"\n")?;
                    }
                }
                if self.is_terminal {
                    self.out.flush()?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Outcome {
        let (partition, why) = match event {
            Event::OutOfRange { partition, position } => {
                (partition, format!("the log does not hold offset {position} any more"))
            }
            Event::Truncated { partition, position, diverged: None } => {
                (partition, format!("the log was cut before offset {position}"))
            }
            Event::Truncated { partition, position, diverged: Some(diverged) } => {
                note(format_args!(
                    "tidelog: {partition}: the log was cut before offset {position}; going on at {diverged}"
                ));
                return Ok(());
            }
            Event::Failed { partition, error } => {
                let _ = self.out.flush();
                return Err(self.session.failure("read", &Subject::Partition(partition), &error));
            }
            Event::Reset { .. } | Event::Records(_) | Event::Offsets { .. } => return Ok(()),
        };
        note(format_args!("tidelog: {partition}: {why}"));
        // Where `-X auto.offset.reset` says something else, the consumer does that by itself.
        if self.resets {
            self.session.driver.call(Call::Seek(partition, Start::Earliest));
        }
        Ok(())
    }
}

/// Whether standard output is a pipe or socket that nobody reads any more.
fn reader_has_gone() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let asked = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    asked.is_ok() && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_begin_is_a_number_a_word_or_a_time() {
        for (text, from) in [
            ("0", Begin::Offset(0)),
            ("15", Begin::Offset(15)),
            ("-3", Begin::Last(3)),
            ("-0", Begin::Latest),
            ("earliest", Begin::Earliest),
            ("latest", Begin::Latest),
            ("@5", Begin::Time(5)),
            ("1970-01-01T00:00:01Z", Begin::Time(1000)),
            ("1970-01-02", Begin::Time(86_400_000)),
        ] {
            assert_eq!(Begin::parse(text), Ok(from), "{text}");
        }
        for text in ["", "soon", "@", "@-1", "1.5", "-9223372036854775808"] {
            assert!(Begin::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_records_are_no_more_than_there_are_and_an_offset_must_be_there() {
        let (partition, offsets) = (TopicPartition::new("t", 0), Offsets { earliest: 10, latest: 20 });
        let start = |from: Begin| match from.start(&partition, offsets) {
            Ok(Start::Offset { offset, epoch: None }) => Ok(offset),
            Ok(start) => panic!("{start:?}"),
            Err(failure) => Err(failure.text),
        };
        assert_eq!(start(Begin::Last(3)), Ok(17));
        assert_eq!(start(Begin::Last(300)), Ok(10));
        assert_eq!((start(Begin::Offset(10)), start(Begin::Offset(20))), (Ok(10), Ok(20)));
        insta::assert_snapshot!(start(Begin::Offset(21)).unwrap_err(), @"
        cannot begin at offset 21 of t-0: its records are those from 10 to before 20
          --partition chooses a partition, --offset earliest begins with what there is
        ");
    }
}
