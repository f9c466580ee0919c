//! `tidelog bench`: how much a cluster takes and gives, and how long it takes to answer.
//!
//! ```text
//!   main thread ── Go, once all are warm ──► one thread a client: warm-up, then what is measured
//!               ◄── Warm, Done, Failed ─────
//! ```
//!
//! The measured part begins at the same moment for all clients and ends when the last client is done. With `--rate`,
//! the moment at which each record should be sent is fixed in advance, and its latency counts from that moment. So a
//! broker that stalls is also charged for the records that could not be sent during the stall. (To leave them out is
//! known as "coordinated omission".)

mod consume;
mod latency;
mod produce;
#[cfg(test)]
mod tests;

use super::output::{count, is_watched};
use super::session::{Session, run};
use super::{Failure, Outcome};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tidelog_client::Admin;
use tidelog_client::admin::{Answer, NewTopic, Operation};
use tidelog_core::wire::ErrorCode;
use tokio::sync::watch;

/// How often the progress bar moves.
const DRAW_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Produce records as fast as they are taken, or at a rate, and measure throughput and latency.
    #[command(after_help = produce::EXAMPLES)]
    Produce(produce::Produce),
    /// Consume a topic from its beginning, and measure throughput.
    #[command(after_help = consume::EXAMPLES)]
    Consume(consume::Consume),
}

impl Bench {
    pub fn run(self) -> Outcome {
        match self {
            Self::Produce(produce) => produce.run(),
            Self::Consume(consume) => consume.run(),
        }
    }
}

/// What a client tells the main thread.
enum News<T> {
    Warm,
    Done(T),
    Failed(Failure),
}

/// How a client talks to the main thread.
struct Stage<T> {
    news: mpsc::Sender<News<T>>,
    go: watch::Receiver<Option<Instant>>,
    /// Records that are done, for the progress bar.
    progress: Arc<AtomicU64>,
}

impl<T> Stage<T> {
    /// Says that the warm-up is over, and waits for the others; the moment at which the measured part begins.
    async fn warm(&mut self) -> Instant {
        let _ = self.news.send(News::Warm);
        match self.go.wait_for(Option::is_some).await {
            Ok(begin) => begin.expect("waited for"),
            // Another client has failed, and this one is about to be stopped.
            Err(_) => std::future::pending().await,
        }
    }

    fn progress(&self, records: u64) {
        self.progress.fetch_add(records, Ordering::Relaxed);
    }
}

/// The outcomes of all clients, and the time from their common beginning to the end of the last client.
struct Outcomes<T> {
    all: Vec<T>,
    time: Duration,
}

/// Runs one client a thread. `records` is how many they have to do together, warm-up included.
fn on_stage<T, W, F>(records: u64, workers: Vec<W>) -> Result<Outcomes<T>, Failure>
where
    T: Send + 'static,
    W: FnOnce(Stage<T>) -> F + Send + 'static,
    F: Future<Output = Result<T, Failure>>,
{
    let (news, receiver) = mpsc::channel();
    let (go, _) = watch::channel(None);
    let (halt, _) = watch::channel(());
    let progress = Arc::new(AtomicU64::new(0));
    let count = workers.len();
    let mut threads = Vec::new();
    for (index, worker) in workers.into_iter().enumerate() {
        let stage = Stage { news: news.clone(), go: go.subscribe(), progress: progress.clone() };
        let (news, mut halted) = (news.clone(), halt.subscribe());
        let spawned = thread::Builder::new().name(format!("bench-{index}")).spawn(move || {
            let outcome = run(async {
                let interrupt = tokio::signal::ctrl_c();
                tokio::select! {
                    outcome = worker(stage) => {
                        let _ = news.send(News::Done(outcome?));
                        Ok(())
                    }
                    _ = interrupt => Err(Failure::of("interrupted: nothing was measured")),
                    // Its sender is dropped once nobody waits for the outcome any more.
                    _ = halted.changed() => Ok(()),
                }
            });
            if let Err(failure) = outcome {
                let _ = news.send(News::Failed(failure));
            }
        });
        threads.push(spawned.map_err(|error| Failure::of(format!("cannot start a thread: {error}")))?);
    }
    drop(news);
    let outcomes = direct(records, count, &receiver, &go, &progress);
    // No client may go on when the caller deletes the topic: its questions could make the topic again.
    drop(halt);
    for thread in threads {
        thread.join().expect("a client has panicked");
    }
    outcomes
}

/// The main thread's part: lets the measurement begin once all clients are warm, and collects their outcomes.
fn direct<T>(
    records: u64,
    count: usize,
    receiver: &mpsc::Receiver<News<T>>,
    go: &watch::Sender<Option<Instant>>,
    progress: &AtomicU64,
) -> Result<Outcomes<T>, Failure> {
    let bar = bar(records);
    let (mut warm, mut all, mut begin) = (0, Vec::new(), Instant::now());
    while all.len() < count {
        match receiver.recv_timeout(DRAW_EVERY) {
            Ok(News::Warm) => {
                warm += 1;
                if warm == count {
                    begin = Instant::now();
                    go.send_replace(Some(begin));
                }
            }
            Ok(News::Done(outcome)) => all.push(outcome),
            Ok(News::Failed(failure)) => {
                bar.finish_and_clear();
                return Err(failure);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => bar.set_position(progress.load(Ordering::Relaxed)),
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("a client has ended without a word"),
        }
    }
    let time = begin.elapsed();
    bar.finish_and_clear();
    Ok(Outcomes { all, time })
}

/// The progress bar: on standard error if that is a terminal, otherwise hidden.
fn bar(records: u64) -> ProgressBar {
    if !is_watched() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} records  {rate}  {eta} left");
    let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
        let _ = write!(out, "{}/s", count(state.per_sec() as u64));
    };
    ProgressBar::new(records).with_style(style.expect("a template that reads").with_key("rate", rate))
}

/// The share of client number `index` where `clients` clients divide `all` among themselves.
fn share(all: u64, clients: u64, index: u64) -> u64 {
    all / clients + u64::from(index < all % clients)
}

/// Makes the topic if it does not exist, and says whether it was made.
async fn create_missing(session: &mut Session<Admin>, topic: &str, partitions: Option<i32>) -> Result<bool, Failure> {
    let topic = NewTopic {
        name: topic.to_owned().into(),
        partitions: Some(partitions.unwrap_or(1)),
        replication_factor: None,
        replicas: Vec::new(),
        configs: Vec::new(),
    };
    let name = topic.name.clone();
    let operation = Operation::CreateTopics { topics: vec![topic], validate_only: false };
    for (subject, result) in session.ask(operation).await? {
        match result {
            Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => {}
            Err(error) => return Err(session.failure("create", &subject, &error)),
            Ok(_) => return Ok(true),
        }
    }
    let Some(wanted) = partitions else { return Ok(false) };
    let operation = Operation::DescribeTopics { topics: vec![name.clone()] };
    match session.ask_for_all("describe", operation).await?.into_iter().next() {
        Some(Answer::Topic(topic)) if topic.partitions.len() != wanted as usize => {
            let has = topic.partitions.len();
            Err(Failure::usage(format!(
                "--partitions {wanted}: {name} is there already and has {has}\n  \
                 without --partitions it is used as it is; --topic names another"
            )))
        }
        _ => Ok(false),
    }
}

/// `148,361 records/s, 151.9 MB/s` and the like.
fn rates(records_per_second: f64, bytes_per_second: f64) -> String {
    // A count of records that fits into a file is far below 2^53.
    format!("{} records/s, {}", count(records_per_second.round() as u64), rate(bytes_per_second))
}

/// `1.5 MB/s` and the like.
fn rate(bytes_per_second: f64) -> String {
    let units = ["B/s", "kB/s", "MB/s", "GB/s"];
    let (mut value, mut unit) = (bytes_per_second, 0);
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

/// `count` a second. A time of zero counts as a nanosecond.
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}
