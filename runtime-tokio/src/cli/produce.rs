//! `tidelog produce`: writes standard input to a topic, one record from each line.
//!
//! Lines are read no faster than the brokers take records: what waits is bounded by `buffer.memory`.

use super::input::{self, Chunk, LineFormat};
use super::output::{self, Format, count, is_watched, note, warn};
use super::record::parse_time;
use super::session::{Connection, Properties, Session, hint, reason, run};
use super::watch::{BrokerWatch, Fate, LOOK_EVERY, TopicWatch};
use super::{Failure, Outcome};
use bytes::Bytes;
use bytestring::ByteString;
use clap::Args;
use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::Duration;
use tidelog_client::admin::{Answer, Operation, Subject};
use tidelog_client::config::ProducerConfig;
use tidelog_client::producer::{Call, Event, ProducerRecord};
use tidelog_client::{ClientError, Producer};
use tidelog_core::wire::ErrorCode;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

/// So many failures are reported one by one; further ones are only counted.
const TOLD_MAX: u64 = 10;
/// How long records may wait for an acknowledgement before a word is said of it.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// What a record takes in the producer's buffer beside its own bytes, at most.
const RECORD_OVERHEAD_BYTES: usize = 1024;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  echo hello | tidelog produce greetings
  tidelog produce orders -K : < orders.txt      lines such as customer-7:an order
  tidelog produce orders --header source=import -z zstd < orders.txt
  tidelog consume orders --from-beginning --exit-at-end --format json | tidelog produce copy --format json

With --format json each line is an object such as consume --format json writes:
  {\"key\":\"k\", \"value\":\"v\", \"headers\":[{\"key\":\"h\", \"value\":\"x\"}], \"partition\":0, \
\"timestamp\":1700000000000}
Only value must be there. A key or value is a string, {\"base64\":\"...\"} for bytes that are no text, or null. The names \
topic and offset are allowed and have no effect; without partition the key decides (`jq -c 'del(.partition)'`).

Standard error tells when no broker answers any more and when one does again, and when records wait for a topic that \
does not exist. The exit code is 0 once every record is acknowledged, and 1 if any is not: standard error names its \
line.")]
pub struct Produce {
    /// The topic's name. One that does not exist is made, if the broker's auto.create.topics.enable says so.
    topic: String,
    /// What a line is.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// What stands between key and value; otherwise records have no key.
    #[arg(long, short = 'K', value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// A key or value that is this text is none. Where Kafka compacts a topic, a value that is none deletes its key.
    #[arg(long, value_name = "TEXT")]
    null: Option<String>,
    /// The partition of all records; otherwise their keys decide.
    #[arg(long, short, value_name = "NUMBER", value_parser = super::number::at_least(0))]
    partition: Option<i32>,
    /// A header for all records. May be given many times.
    #[arg(long = "header", short = 'H', value_name = "KEY=VALUE", value_parser = super::config::named)]
    headers: Vec<super::config::Named>,
    /// The time of all records, in UTC such as 2026-11-21T18:00:00Z or in milliseconds since 1970; otherwise now.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    timestamp: Option<i64>,
    /// none, gzip, snappy, lz4 or zstd.
    #[arg(long, short = 'z', value_name = "CODEC")]
    compression: Option<String>,
    /// Whose acknowledgement counts: all, 1 (the leader's), or 0 (nobody's).
    #[arg(long, value_name = "ACKS")]
    acks: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

impl Produce {
    pub fn run(self) -> Outcome {
        run(self.produce())
    }

    async fn produce(self) -> Outcome {
        let options = [("acks", self.acks.clone()), ("compression.type", self.compression.clone())];
        let own: Properties = options.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let (mut session, config) = self.connection.producer(own)?;
        self.check().await?;
        session.trust();
        let header = |(name, value): &(String, String)| (name.clone().into(), Some(value.clone().into()));
        let format = LineFormat {
            topic: self.topic.clone().into(),
            format: self.format,
            key_separator: self.key_separator.clone(),
            null: self.null.clone(),
            partition: self.partition,
            timestamp: self.timestamp,
            headers: self.headers.iter().map(header).collect::<Vec<(ByteString, Option<Bytes>)>>(),
            line_bytes_max: config.max_request_size_bytes,
        };
        let lines = input::read(std::io::stdin(), format);
        let work = Work {
            topic: self.topic,
            session,
            config,
            lines: Some(lines),
            waiting: VecDeque::new(),
            tally: Tally::default(),
            failure: None,
            broker: BrokerWatch::default(),
            topic_watch: TopicWatch::default(),
            is_missing_told: false,
            settled_at: Instant::now(),
            is_stall_told: false,
        };
        if std::io::stdin().is_terminal() && is_watched() {
            note(format_args!("tidelog: each line is a record for {}; Ctrl-D ends", work.topic));
        }
        work.run().await
    }

    /// Checks what can be checked before the first record is read: a person who types records should not learn of a
    /// mistake only then. A topic that does not exist is no mistake, since the first record may create it.
    async fn check(&self) -> Outcome {
        let mut session = self.connection.admin_beside()?;
        let operation = Operation::DescribeTopics { topics: vec![self.topic.clone().into()] };
        for (subject, result) in session.ask(operation).await? {
            match result {
                Ok(Answer::Topic(topic)) => {
                    let count = topic.partitions.len();
                    if let Some(partition) =
                        self.partition.filter(|it| usize::try_from(*it).is_ok_and(|it| it >= count))
                    {
                        let text = format!("{subject} has no partition {partition}: it has {count}, from 0 on");
                        return Err(Failure::of(text));
                    }
                }
                Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {}
                Err(error) => return Err(session.failure("produce to", &subject, &error)),
                Ok(_) => unreachable!("that is its answer"),
            }
        }
        Ok(())
    }
}

/// What has become of the records.
#[derive(Default)]
struct Tally {
    /// What can be done about the first failure.
    hint: Option<String>,
    sent: u64,
    delivered: u64,
    failed: u64,
    failures_told: u64,
}

struct Work {
    topic: String,
    session: Session<Producer>,
    config: ProducerConfig,
    /// `None` once the input has ended.
    lines: Option<Receiver<Chunk>>,
    /// Records that the producer has no room for yet.
    waiting: VecDeque<ProducerRecord>,
    tally: Tally,
    /// Why reading stopped before the end of the input.
    failure: Option<String>,
    broker: BrokerWatch,
    topic_watch: TopicWatch,
    /// Whether it was said that records wait for a topic that does not exist.
    is_missing_told: bool,
    /// When it was last seen that no record waits, or that one is settled.
    settled_at: Instant,
    /// Whether it was said that records have been waiting since then.
    is_stall_told: bool,
}

impl Work {
    async fn run(mut self) -> Outcome {
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        let mut is_interrupted = false;
        let mut looks = looks();
        while self.lines.is_some() || !self.waiting.is_empty() {
            self.hand_in();
            let wants_lines = self.waiting.is_empty();
            tokio::select! {
                biased;
                _ = &mut interrupt, if !is_interrupted => {
                    // Records that were read are still sent. A second Ctrl-C ends the command at once.
                    is_interrupted = true;
                    self.lines = None;
                }
                event = self.session.next() => self.take(event?),
                chunk = next_chunk(&mut self.lines), if wants_lines && self.lines.is_some() => match chunk {
                    Some(Ok(records)) => self.waiting.extend(records),
                    Some(Err(text)) => {
                        self.failure = Some(text);
                        self.lines = None;
                    }
                    None => self.lines = None,
                },
                _ = looks.tick() => self.look_around(),
            }
            while let Some(event) = self.session.driver.take_event() {
                self.take(event);
            }
        }
        self.flush().await?;
        let is_unanswered = self.config.acks == 0;
        let Self { session, tally, failure, topic, .. } = self;
        if is_unanswered {
            session.driver.close().await;
        }
        tally.outcome(&topic, failure)
    }

    /// Hands the producer as many of the waiting records as it has room for.
    fn hand_in(&mut self) {
        let memory = self.config.buffer_memory_bytes;
        loop {
            let buffered = self.session.driver.client().buffered_bytes();
            let has_room = |record: &mut ProducerRecord| {
                buffered == 0 || buffered + record.size_bytes() + RECORD_OVERHEAD_BYTES <= memory
            };
            let Some(record) = self.waiting.pop_front_if(has_room) else { return };
            self.tally.sent += 1;
            self.session.driver.call(Call::Send(record));
        }
    }

    /// Waits until every record is delivered or has failed. Ctrl-C ends the wait.
    async fn flush(&mut self) -> Outcome {
        self.session.driver.call(Call::Flush(0));
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        let mut looks = looks();
        loop {
            let event = tokio::select! {
                biased;
                _ = &mut interrupt => return Err(Failure::of("interrupted before every record was acknowledged")),
                event = self.session.next() => event?,
                _ = looks.tick() => {
                    self.look_around();
                    continue;
                }
            };
            if event == Event::Flushed(0) {
                return Ok(());
            }
            self.take(event);
        }
    }

    /// Says what the records wait for, if something keeps them.
    fn look_around(&mut self) {
        let producer = self.session.driver.client();
        let is_needed = !producer.is_idle();
        let fate = self.topic_watch.look(Instant::now(), producer.topic(&self.topic));
        self.broker.look(&self.session, is_needed);
        if fate == Fate::Deleted && is_needed && !self.is_missing_told {
            self.is_missing_told = true;
            warn(format_args!("topic {} does not exist; records wait until it does", self.topic));
        }
        if !is_needed {
            self.settled_at = Instant::now();
        }
        let is_explained = self.broker.is_away() || self.is_missing_told;
        if self.settled_at.elapsed() >= STALLED_AFTER && !is_explained && !self.is_stall_told {
            self.is_stall_told = true;
            let waiting = count(self.tally.sent - self.tally.delivered - self.tally.failed);
            let (seconds, timeout_ms) = (STALLED_AFTER.as_secs(), self.config.delivery_timeout_ms);
            warn(format_args!(
                "for {seconds} s no record was acknowledged, and {waiting} wait; after delivery.timeout.ms = \
                 {timeout_ms} ms they are given up"
            ));
        }
    }

    fn take(&mut self, event: Event) {
        if matches!(event, Event::Delivered { .. } | Event::Failed { .. }) {
            (self.settled_at, self.is_stall_told) = (Instant::now(), false);
        }
        match event {
            Event::Delivered { records, .. } => self.tally.delivered += records.len() as u64,
            Event::Failed { partition, records, error } => {
                self.tally.failed += records.len() as u64;
                // A topic that was not found for this record will not be found for the next one either.
                let is_hopeless = partition.is_none() && !matches!(error, ClientError::Invalid { .. });
                if is_hopeless && self.failure.is_none() {
                    let subject = Subject::Topic(self.topic.clone().into());
                    let mut text = self.session.failure("produce to", &subject, &error).text;
                    if matches!(error, ClientError::TimedOut { .. }) {
                        let name = &self.topic;
                        text += &format!(
                            "\n  `tidelog topic describe {name}` shows it, `tidelog topic create {name}` makes it"
                        );
                    }
                    self.failure = Some(text);
                    self.tally.failed += self.waiting.len() as u64;
                    self.tally.sent += self.waiting.len() as u64;
                    self.waiting.clear();
                    self.lines = None;
                }
                if !is_hopeless {
                    self.tell(partition.map(|it| it.to_string()), &records, &error);
                }
            }
            Event::SequenceRefused { .. } | Event::Placed { .. } | Event::Flushed(_) => {}
        }
    }

    fn tell(&mut self, partition: Option<String>, records: &[u64], error: &ClientError) {
        let subject = Subject::Topic(self.topic.clone().into());
        self.tally.failures_told += 1;
        if self.tally.failures_told == 1 {
            self.tally.hint = match error.code() {
                Some(code) => hint(code, &subject),
                None => self.session.trouble(),
            };
        }
        if self.tally.failures_told > TOLD_MAX {
            return;
        }
        let lines = match records {
            [line] => format!("line {line}"),
            [first, .., last] => format!("{} records of lines {first} to {last}", records.len()),
            [] => return,
        };
        let place = partition.unwrap_or_else(|| self.topic.clone());
        output::error(format_args!("{lines}, for {place}: {}", reason(error)));
        if self.tally.failures_told == TOLD_MAX {
            output::error("further failures are only counted");
        }
    }
}

/// When to look around.
fn looks() -> Interval {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

async fn next_chunk(lines: &mut Option<Receiver<Chunk>>) -> Option<Chunk> {
    lines.as_mut()?.recv().await
}

impl Tally {
    fn outcome(self, topic: &str, failure: Option<String>) -> Outcome {
        let Self { sent, delivered, failed, hint, .. } = self;
        assert_eq!(sent, delivered + failed, "every record is settled");
        match failure {
            Some(text) if delivered == 0 => Err(Failure::of(text)),
            Some(text) => Err(Failure::of(format!(
                "{text}\n  records that were delivered to {topic} before: {}",
                count(delivered)
            ))),
            None if failed > 0 => {
                let hint = hint.map(|hint| format!("\n  {hint}")).unwrap_or_default();
                Err(Failure::of(format!(
                    "{} of {} records were not delivered to {topic}{hint}",
                    count(failed),
                    count(sent)
                )))
            }
            None => {
                if is_watched() {
                    note(format_args!("{} records delivered to {topic}", count(delivered)));
                }
                Ok(())
            }
        }
    }
}
