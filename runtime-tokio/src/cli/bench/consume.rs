//! `tidelog bench consume`.

use super::super::output::{Format, count, print, print_json, warn};
use super::super::session::{Connection, Session, run};
use super::super::topic::{describe, offsets};
use super::super::{Failure, Outcome};
use super::{Outcomes, Stage, on_stage, per_second, rates, share};
use clap::Args;
use serde::Serialize;
use std::time::Duration;
use tidelog_client::admin::Subject;
use tidelog_client::consumer::{Call, Event, Polled, Start};
use tidelog_client::{Consumer, TopicPartition};
use tokio::time::timeout;

pub const EXAMPLES: &str = "\
Examples:
  tidelog bench produce --keep-topic && tidelog bench consume
  tidelog bench consume --topic orders --clients 4
  tidelog bench consume --records 100000 --format json | jq .bytes_per_second

Partitions are divided among the clients. Bytes are those of keys and values.";

/// How often it is looked whether the end is reached without a record.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, Args)]
pub struct Consume {
    /// The topic.
    #[arg(long, default_value = "tidelog-bench")]
    topic: String,
    /// How many records are measured; otherwise all that there are when it begins, but for the warm-up.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    records: Option<u64>,
    /// How many records are read before, and not measured; otherwise a tenth of those that are read.
    #[arg(long, value_name = "RECORDS")]
    warm_up: Option<u64>,
    /// How many consumers, each with connections of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    clients: u64,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: Connection,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    topic: String,
    clients: u64,
    records: u64,
    bytes: u64,
    seconds: f64,
    records_per_second: f64,
    bytes_per_second: f64,
}

/// A partition, and where it is read from and to.
#[derive(Clone, Debug)]
struct Part {
    partition: TopicPartition,
    begin: i64,
    end: i64,
}

/// What one client reads.
struct Work {
    parts: Vec<Part>,
    warm_up: u64,
    records: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    records: u64,
    bytes: u64,
}

impl Consume {
    pub fn run(self) -> Outcome {
        let mut parts = Vec::new();
        run(async {
            parts = self.parts().await?;
            Ok(())
        })?;
        // Offsets are counted, and there may be fewer records: compaction removes some.
        let there: u64 = parts.iter().map(|part| part.end.abs_diff(part.begin)).sum();
        if there == 0 {
            return Err(Failure::of(format!(
                "{name} has no records\n  `tidelog bench produce --topic {name}` makes some",
                name = self.topic
            )));
        }
        let clients = self.clients.min(parts.len() as u64);
        if clients < self.clients {
            warn(format_args!("{clients} clients: {} has no more partitions with records", self.topic));
        }
        let work = self.divide(parts, clients);
        let all: u64 = work.iter().map(|work| work.warm_up + work.records).sum();
        let worker = |work| {
            let consume = self.clone();
            move |stage| Worker::run(consume, work, stage)
        };
        let workers: Vec<_> = work.into_iter().map(worker).collect();
        let Outcomes { all, time } = on_stage(all, workers)?;
        let records = all.iter().map(|count: &Count| count.records).sum();
        let bytes = all.iter().map(|count| count.bytes).sum();
        let measured = Measured {
            topic: self.topic,
            clients,
            records,
            bytes,
            seconds: time.as_secs_f64(),
            records_per_second: per_second(records, time),
            bytes_per_second: per_second(bytes, time),
        };
        if self.format == Format::Json { print_json(&measured) } else { print(&measured.text()) }
    }

    /// The partitions that have records.
    async fn parts(&self) -> Result<Vec<Part>, Failure> {
        let mut session = self.connection.admin_beside()?;
        let described = describe(&mut session, "consume", std::slice::from_ref(&self.topic)).await;
        let hint = |mut failure: Failure| {
            let name = &self.topic;
            failure.text += &format!("\n  `tidelog bench produce --keep-topic --topic {name}` makes it, with records");
            failure
        };
        let topic = described.map_err(hint)?.remove(0);
        let bounds = offsets(&mut session, &topic).await?;
        let part = |(index, offsets): (i32, super::super::topic::Offsets)| Part {
            partition: TopicPartition::new(topic.name.clone(), index),
            begin: offsets.earliest,
            end: offsets.latest,
        };
        Ok(bounds.into_iter().map(part).filter(|part| part.begin < part.end).collect())
    }

    /// Deals the partitions out to the clients in turn. Each client gets an equal share of the warm-up and of the
    /// records, as far as its partitions hold so many.
    fn divide(&self, parts: Vec<Part>, clients: u64) -> Vec<Work> {
        let mut of_clients: Vec<Vec<Part>> = vec![Vec::new(); clients as usize];
        for (place, part) in parts.into_iter().enumerate() {
            of_clients[place % clients as usize].push(part);
        }
        let work = |(parts, index): (Vec<Part>, u64)| {
            let there = parts.iter().map(|part| part.end.abs_diff(part.begin)).sum();
            let wanted = self.records.map(|records| share(records, clients, index));
            let default = wanted.unwrap_or(there) / 10;
            let warm_up = self.warm_up.map_or(default, |all| share(all, clients, index)).min(there);
            let records = wanted.unwrap_or(u64::MAX).min(there - warm_up);
            Work { parts, warm_up, records }
        };
        of_clients.into_iter().zip(0..).map(work).collect()
    }
}

impl Measured {
    fn text(&self) -> String {
        let Self { seconds, topic, .. } = self;
        let (records, rate) = (count(self.records), rates(self.records_per_second, self.bytes_per_second));
        format!("{records} records of {topic} in {seconds:.2} s: {rate}\n")
    }
}

struct Worker {
    session: Session<Consumer>,
    parts: Vec<Part>,
    stage: Stage<Count>,
    count: Count,
}

impl Worker {
    async fn run(consume: Consume, work: Work, stage: Stage<Count>) -> Result<Count, Failure> {
        let (session, _) = consume.connection.consumer(vec![("auto.offset.reset", "none".into())])?;
        let Work { parts, warm_up, records } = work;
        let mut worker = Self { session, parts, stage, count: Count::default() };
        let start = |part: &Part| (part.partition.clone(), Start::Offset { offset: part.begin, epoch: None });
        worker.session.driver.call(Call::Assign(worker.parts.iter().map(start).collect()));
        worker.session.driver.call(Call::Poll);
        let before = worker.read(warm_up).await?;
        worker.stage.warm().await;
        worker.count = Count::default();
        // The last poll of the warm-up may have given more records than were missing: so many fewer are left to read.
        worker.read(records.saturating_sub(before.records - warm_up.min(before.records))).await?;
        Ok(worker.count)
    }

    /// Reads at least this many records, unless there are no more.
    async fn read(&mut self, records: u64) -> Result<Count, Failure> {
        while self.count.records < records {
            let event = match self.session.driver.take_event() {
                Some(event) => event,
                // All that the positions have passed is counted.
                None if self.is_at_end() => break,
                None => match timeout(LOOK_EVERY, self.session.next()).await {
                    Ok(event) => event?,
                    Err(_) => continue,
                },
            };
            match event {
                Event::Records(polled) => {
                    self.session.driver.call(Call::Poll);
                    self.take(&polled);
                }
                Event::Failed { partition, error } => {
                    return Err(self.session.failure("read", &Subject::Partition(partition), &error));
                }
                Event::OutOfRange { partition, position } | Event::Truncated { partition, position, .. } => {
                    let text = format!("{partition}: the log does not hold offset {position} any more");
                    return Err(Failure::of(text));
                }
                Event::Reset { .. } | Event::Offsets { .. } => {}
            }
        }
        Ok(self.count)
    }

    fn take(&mut self, polled: &[Polled]) {
        let mut count = Count::default();
        for record in polled.iter().flat_map(|polled| &polled.records) {
            count.records += 1;
            let len = |field: &Option<bytes::Bytes>| field.as_ref().map_or(0, bytes::Bytes::len);
            count.bytes += (len(&record.key) + len(&record.value)) as u64;
        }
        self.count.records += count.records;
        self.count.bytes += count.bytes;
        self.stage.progress(count.records);
    }

    /// Positions also pass offsets that have no record, such as those of transaction markers.
    fn is_at_end(&self) -> bool {
        let consumer = self.session.driver.client();
        self.parts.iter().all(|part| consumer.position(&part.partition) >= Some(part.end))
    }
}
