//! `tidelog bench produce`.

use super::super::output::{Format, count, is_watched, note, print, print_json, warn};
use super::super::session::{Connection, Session, run};
use super::super::{Failure, Outcome};
use super::latency::{Latencies, Percentiles};
use super::{Outcomes, Stage, create_missing, on_stage, per_second, rates, share};
use crate::platform::Timer;
use bytes::Bytes;
use bytestring::ByteString;
use clap::Args;
use serde::Serialize;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};
use tidelog_client::admin::{Operation, Subject};
use tidelog_client::producer::{Call, Event, ProducerRecord};
use tidelog_client::{ClientError, Producer, ProducerConfig};
use tokio::task::yield_now;

pub const EXAMPLES: &str = "\
Examples:
  tidelog bench produce --record-size 100           as fast as it goes
  tidelog bench produce --rate 10000 --linger 0     latency, at 10,000 a second
  tidelog bench produce --clients 4 --partitions 8 --compression zstd
  tidelog bench produce --format json | jq .latency_ms.p99
  tidelog bench produce --keep-topic && tidelog bench consume

A topic that the command has made is deleted in the end, also after Ctrl-C; --keep-topic leaves it to `tidelog bench \
consume` (`tidelog topic delete tidelog-bench` deletes it then). A topic that was there before stays, with the records.

Latency counts from the moment at which the record should be sent (--rate), or is handed to the producer, to the moment \
at which its acknowledgement is read. Without --rate most of it is waiting in the producer's own buffer \
(-X buffer.memory=BYTES): measure latency at a rate that the cluster can sustain.";

#[derive(Clone, Debug, Args)]
pub struct Produce {
    /// The topic. One that does not exist is made, and deleted in the end.
    #[arg(long, default_value = "tidelog-bench")]
    topic: String,
    /// Do not delete the topic in the end.
    #[arg(long)]
    keep_topic: bool,
    /// How many partitions the topic has, if it is made: otherwise 1.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// How many records are measured.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// How many records are sent before, and not measured; otherwise a tenth of --records.
    #[arg(long, value_name = "RECORDS")]
    warm_up: Option<u64>,
    /// The bytes of each value; there are no keys.
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    record_size: u32,
    /// How many records a second, by all clients together; otherwise as many as are taken.
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rate: Option<u64>,
    /// How many producers, each with connections of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    clients: u64,
    /// Whose acknowledgement counts.
    #[arg(long, default_value = "all", value_parser = ["all", "1", "0", "-1"], allow_hyphen_values = true)]
    acks: String,
    /// The bytes of a batch before its compression; otherwise 16384.
    #[arg(long, value_name = "BYTES")]
    batch_size: Option<u32>,
    /// How long a batch waits for more records; otherwise 5.
    #[arg(long, value_name = "MILLISECONDS")]
    linger: Option<u32>,
    /// How batches are compressed.
    #[arg(long, default_value = "none", value_parser = ["none", "gzip", "snappy", "lz4", "zstd"])]
    compression: String,
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
    record_bytes: u32,
    seconds: f64,
    records_per_second: f64,
    bytes_per_second: f64,
    /// As `--rate` asked for.
    rate: Option<u64>,
    latency_ms: Option<Percentiles>,
}

impl Produce {
    pub fn run(self) -> Outcome {
        let mut is_ours = false;
        run(async {
            is_ours = self.prepare().await?;
            Ok(())
        })?;
        let measured = self.measure();
        if is_ours && !self.keep_topic {
            self.clean_up();
        }
        let measured = measured?;
        if self.format == Format::Json { print_json(&measured) } else { print(&measured.text()) }
    }

    fn measure(&self) -> Result<Measured, Failure> {
        let warm_up = self.warm_up.unwrap_or(self.records / 10);
        let worker = |index| {
            let produce = self.clone();
            let warm_up = share(warm_up, produce.clients, index);
            let records = share(produce.records, produce.clients, index);
            move |stage| Worker::run(produce, index, warm_up, records, stage)
        };
        let workers: Vec<_> = (0..self.clients).map(worker).collect();
        let Outcomes { all, time } = on_stage(self.records + warm_up, workers)?;
        let mut latencies = Latencies::default();
        all.iter().for_each(|one| latencies.add(one));
        Ok(Measured {
            clients: self.clients,
            records: self.records,
            record_bytes: self.record_size,
            seconds: time.as_secs_f64(),
            records_per_second: per_second(self.records, time),
            bytes_per_second: per_second(self.records * u64::from(self.record_size), time),
            rate: self.rate,
            latency_ms: latencies.percentiles(),
            topic: self.topic.clone(),
        })
    }

    /// Makes the topic if it does not exist, and says whether it was made. That the cluster can be reached is known
    /// before the first thread begins.
    async fn prepare(&self) -> Result<bool, Failure> {
        let mut session = self.connection.admin_beside()?;
        create_missing(&mut session, &self.topic, self.partitions).await
    }

    /// Deletes the topic. What was measured is no less true if that fails.
    fn clean_up(&self) {
        let deleted = run(async {
            let mut session = self.connection.admin_beside()?;
            let topics = vec![self.topic.clone().into()];
            session.ask_for_all("delete", Operation::DeleteTopics { topics }).await.map(drop)
        });
        match deleted {
            Ok(()) if is_watched() => note(format_args!("topic {}: deleted; --keep-topic would keep it", self.topic)),
            Ok(()) => {}
            Err(failure) => warn(failure.text),
        }
    }

    fn producer(&self) -> Result<(Session<Producer>, ProducerConfig), Failure> {
        let mut own = vec![("acks", self.acks.clone()), ("compression.type", self.compression.clone())];
        own.extend(self.batch_size.map(|bytes| ("batch.size", bytes.to_string())));
        own.extend(self.linger.map(|ms| ("linger.ms", ms.to_string())));
        self.connection.producer(own)
    }
}

impl Measured {
    fn text(&self) -> String {
        let Self { seconds, topic, .. } = self;
        let (records, rate) = (count(self.records), rates(self.records_per_second, self.bytes_per_second));
        let mut text = format!("{records} records to {topic} in {seconds:.2} s: {rate}\n");
        if let Some(Percentiles { mean, p50, p90, p99, p99_9, max }) = self.latency_ms {
            let figures = [("p50", p50), ("p90", p90), ("p99", p99), ("p99.9", p99_9), ("max", max), ("mean", mean)];
            let figure = |(name, ms): (&str, f64)| format!("{name} {}", count(format_args!("{ms:.3}")));
            text += &format!("latency in ms: {}\n", figures.map(figure).join("  "));
        }
        text
    }
}

/// When each record is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    begin: Instant,
    /// Records a second of all clients, and which of the clients this is.
    rate: Option<(u64, u64, u64)>,
}

impl Schedule {
    pub(super) fn new(begin: Instant, rate: Option<u64>, clients: u64, index: u64) -> Self {
        Self { begin, rate: rate.map(|rate| (rate, clients, index)) }
    }

    /// The moment of this client's `number`th record; `None`: as soon as there is room. The clients take turns.
    pub(super) fn due(&self, number: u64) -> Option<Instant> {
        let (rate, clients, index) = self.rate?;
        let nanos = u128::from(number * clients + index) * 1_000_000_000 / u128::from(rate);
        Some(self.begin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

struct Worker {
    produce: Produce,
    index: u64,
    session: Session<Producer>,
    config: ProducerConfig,
    timer: Timer,
    topic: ByteString,
    values: Values,
    /// A record's id is the moment at which it was due, in nanoseconds after this one.
    epoch: Instant,
    stage: Stage<Latencies>,
    latencies: Latencies,
    settled: u64,
}

impl Worker {
    async fn run(
        produce: Produce,
        index: u64,
        warm_up: u64,
        records: u64,
        stage: Stage<Latencies>,
    ) -> Result<Latencies, Failure> {
        let (session, config) = produce.producer()?;
        let mut worker = Self {
            session,
            config,
            timer: Timer::new().map_err(|error| Failure::of(format!("cannot make a timer: {error}")))?,
            topic: produce.topic.clone().into(),
            values: Values::new(produce.record_size as usize, index),
            epoch: Instant::now(),
            stage,
            latencies: Latencies::default(),
            settled: 0,
            index,
            produce,
        };
        worker.send(warm_up, Instant::now()).await?;
        worker.latencies = Latencies::default();
        let begin = worker.stage.warm().await;
        worker.send(records, begin).await?;
        // With acks=0 a record is settled before it is sent: closing sends the rest.
        if worker.config.acks == 0 {
            worker.session.driver.close().await;
        }
        Ok(worker.latencies)
    }

    /// Sends this many records, and waits until they are settled.
    async fn send(&mut self, records: u64, begin: Instant) -> Outcome {
        let schedule = Schedule::new(begin, self.produce.rate, self.produce.clients, self.index);
        self.settled = 0;
        let mut sent = 0;
        while self.settled < records {
            let (mut burst_bytes, mut next_due) = (0, None);
            while sent < records && burst_bytes < self.config.batch_size_bytes {
                let now = Instant::now();
                let due = schedule.due(sent).unwrap_or(now);
                if due > now {
                    next_due = Some(due);
                    break;
                }
                let Some(record) = self.record(due) else { break };
                burst_bytes += record.size_bytes();
                sent += 1;
                self.session.driver.call(Call::Send(record));
                self.take_events()?;
            }
            if burst_bytes > 0 {
                // Answers that have arrived are taken before more is sent.
                yield_now().await;
                let event = poll_fn(|cx| match self.session.driver.poll_next(cx) {
                    Poll::Ready(event) => Poll::Ready(Some(event)),
                    Poll::Pending => Poll::Ready(None),
                });
                if let Some(event) = event.await {
                    self.take(event)?;
                }
            } else {
                tokio::select! {
                    biased;
                    event = self.session.next() => self.take(event?)?,
                    woken = alarm(&mut self.timer, next_due) => {
                        woken.map_err(|error| Failure::of(format!("cannot wait for a timer: {error}")))?;
                    }
                }
            }
            self.take_events()?;
        }
        Ok(())
    }

    /// The next record, if the producer has room for it.
    fn record(&mut self, due: Instant) -> Option<ProducerRecord> {
        let record = ProducerRecord {
            id: u64::try_from(due.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX),
            topic: self.topic.clone(),
            partition: None,
            timestamp: None,
            key: None,
            value: Some(self.values.next()),
            headers: Vec::new(),
        };
        let buffered = self.session.driver.client().buffered_bytes();
        let has_room = buffered + record.size_bytes() + ROOM_BYTES <= self.config.buffer_memory_bytes;
        (has_room || buffered == 0).then_some(record)
    }

    fn take_events(&mut self) -> Outcome {
        while let Some(event) = self.session.driver.take_event() {
            self.take(event)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Outcome {
        match event {
            Event::Delivered { records, .. } => {
                let now = self.epoch.elapsed();
                for id in &records {
                    self.latencies.record(now.saturating_sub(Duration::from_nanos(*id)));
                }
                self.settled += records.len() as u64;
                self.stage.progress(records.len() as u64);
                Ok(())
            }
            // The client has found this error without a broker: no topic or broker is to blame.
            Event::Failed { error: error @ ClientError::Invalid { .. }, .. } => Err(Failure::of(error)),
            Event::Failed { error, .. } => {
                let subject = Subject::Topic(self.topic.clone());
                Err(self.session.failure("produce to", &subject, &error))
            }
            Event::Placed { .. } | Event::SequenceRefused { .. } | Event::Flushed(_) => Ok(()),
        }
    }
}

/// What a record takes in the producer's buffer beside its own bytes, at most.
const ROOM_BYTES: usize = 128;

async fn alarm(timer: &mut Timer, due: Option<Instant>) -> std::io::Result<()> {
    match due {
        Some(due) => timer.until(due).await,
        None => std::future::pending().await,
    }
}

/// Values of one size, each cut from another place of a much longer text, so that the values of a batch differ. The
/// text has random letters, like that of Kafka's own `kafka-producer-perf-test`: codecs make it a little smaller.
pub(super) struct Values {
    text: Bytes,
    size: usize,
    at: usize,
}

const TEXT_BYTES: usize = 1 << 20;
/// From one value's place in the text to the next one's. It has no common factor with the text's length, so that places
/// repeat as late as possible.
const STEP_BYTES: usize = 7919;

impl Values {
    pub(super) fn new(size: usize, seed: u64) -> Self {
        let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let letter = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            b'A' + ((state >> 33) % 26) as u8
        };
        Self { text: (0..TEXT_BYTES + size).map(letter).collect(), size, at: 0 }
    }

    pub(super) fn next(&mut self) -> Bytes {
        self.at = (self.at + STEP_BYTES) % TEXT_BYTES;
        self.text.slice(self.at..self.at + self.size)
    }
}
