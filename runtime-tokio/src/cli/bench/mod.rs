//! `tidelog bench`: how much a cluster takes and gives, and how long it takes to answer.
//!
//! ```text
//!   main thread ── Go, once all are warm ──► one thread a client: warm-up, then what is measured
//!               ◄── Warm, Done, Failed ─────
//! ```
//!
//! What is measured begins at one moment for all clients and ends when the last of them is done. With `--rate`, a
//! record has the moment at which it should be sent from the beginning, and its latency counts from then on: a broker
//! that stalls is not excused from the records that could not be sent meanwhile ("coordinated omission").

mod consume;
mod latency;
mod produce;
#[cfg(test)]
mod tests;
mod timer;

use super::session::{Session, run};
use super::{Failure, Outcome};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tidelog_core::client::Admin;
use tidelog_core::client::admin::{Answer, NewTopic, Operation};
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

/// The main thread, as a client sees it.
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
            // Another client has failed, and the process ends.
            Err(_) => std::future::pending().await,
        }
    }

    fn progress(&self, records: u64) {
        self.progress.fetch_add(records, Ordering::Relaxed);
    }
}

/// What all clients came to, and the time from the common beginning to the last end.
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
    let progress = Arc::new(AtomicU64::new(0));
    let count = workers.len();
    for (index, worker) in workers.into_iter().enumerate() {
        let stage = Stage { news: news.clone(), go: go.subscribe(), progress: progress.clone() };
        let news = news.clone();
        thread::Builder::new()
            .name(format!("bench-{index}"))
            .spawn(move || {
                let outcome = run(async {
                    let outcome = worker(stage).await?;
                    let _ = news.send(News::Done(outcome));
                    Ok(())
                });
                if let Err(failure) = outcome {
                    let _ = news.send(News::Failed(failure));
                }
            })
            .map_err(|error| Failure::of(format!("cannot start a thread: {error}")))?;
    }
    drop(news);
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

/// On standard error, if that is a terminal.
fn bar(records: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} records  {per_sec}  {eta} left");
    ProgressBar::new(records).with_style(style.expect("a template that reads"))
}

/// How much a client does: the `index`th of `clients` that share `all`.
fn share(all: u64, clients: u64, index: u64) -> u64 {
    all / clients + u64::from(index < all % clients)
}

/// Makes the topic if it is not there.
async fn create_missing(session: &mut Session<Admin>, topic: &str, partitions: Option<i32>) -> Outcome {
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
            Ok(_) => return Ok(()),
        }
    }
    let Some(wanted) = partitions else { return Ok(()) };
    let operation = Operation::DescribeTopics { topics: vec![name.clone()] };
    match session.ask_for_all("describe", operation).await?.into_iter().next() {
        Some(Answer::Topic(topic)) if topic.partitions.len() != wanted as usize => {
            let has = topic.partitions.len();
            Err(Failure::usage(format!(
                "--partitions {wanted}: {name} is there already and has {has}\n  \
                 without --partitions it is used as it is; --topic names another"
            )))
        }
        _ => Ok(()),
    }
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

/// A number a second; the time is never zero.
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}
