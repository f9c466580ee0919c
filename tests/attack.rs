//! Measures what an attack does to a broker: to the durations of another client's requests, and to the broker's memory.

use crate::broker::Broker;
use crate::client::{Client, Produced, Producer, batch};
use crate::processors::{Standstill, give_way, schedule, watched};
use bytes::Bytes;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The bystander's topic.
const TOPIC: &str = "bystander";
/// How many rounds (one Produce and one Fetch each) are measured at least, before the attack and during it.
const ROUNDS_MIN: usize = 300;
/// The bystander's pause between two rounds.
const PAUSE: Duration = Duration::from_millis(1);

/// A well-behaved client that produces and fetches, one request after the other, and measures the duration of each.
pub struct Bystander {
    client: Client,
    acknowledged: u32,
}

impl Bystander {
    pub fn new(broker: &Broker) -> Self {
        let mut client = Client::connect(broker.address()).expect("a connection");
        assert_eq!(client.create_topic(TOPIC, 1, &[]).expect("CreateTopics"), (0, None));
        client.wait_for_leaders(TOPIC).expect("leaders");
        Self { client, acknowledged: 0 }
    }

    fn value(n: u32) -> Bytes {
        Bytes::from(format!("value {n} {}", "x".repeat(100)))
    }

    /// Works until `stop` is set, but through at least [`ROUNDS_MIN`] rounds.
    fn work(&mut self, stop: &AtomicBool) -> Times {
        let (requests, standstills) = watched(|| self.measure_requests(stop));
        Times::of(requests, &standstills)
    }

    /// Works as [`work`](Self::work) does; returns the beginning and the end of each request.
    fn measure_requests(&mut self, stop: &AtomicBool) -> Vec<(Instant, Instant)> {
        // Priority over all other threads: a client on another machine would not compete for this machine's processors.
        if !schedule("--fifo", 1) {
            println!("chrt --fifo is not permitted: the bystander's times include its waits for a processor");
        }
        let mut times = Vec::new();
        while times.len() < 2 * ROUNDS_MIN || !stop.load(Ordering::Relaxed) {
            let begin = Instant::now();
            let records = batch(Producer::NONE, &[Self::value(self.acknowledged)]);
            let produced = self.client.produce(TOPIC, 0, records).expect("a bystander is served: Produce");
            assert_eq!(produced, Produced { error_code: 0, base_offset: self.acknowledged.into() });
            times.push((begin, Instant::now()));
            let begin = Instant::now();
            let (error_code, high_watermark, records) =
                self.client.fetch(TOPIC, 0, self.acknowledged.into()).expect("a bystander is served: Fetch");
            assert_eq!((error_code, high_watermark), (0, i64::from(self.acknowledged) + 1));
            assert!(!records.is_empty(), "what was acknowledged is there");
            times.push((begin, Instant::now()));
            self.acknowledged += 1;
            // The pause keeps the bystander from being a load itself, which would only measure this machine's
            // processors.
            thread::sleep(PAUSE);
        }
        schedule("--other", 0);
        times
    }

    /// Runs `attack`, and prints in one line what it did to the bystander and to the broker's memory. Panics if the
    /// memory grows by more than `growth_mib_max`, or if an acknowledged record is missing.
    pub fn measure_attack(
        &mut self,
        name: &str,
        broker: &mut Broker,
        growth_mib_max: u64,
        attack: impl FnOnce() -> String + Send,
    ) {
        wait_until_idle(broker.process_id());
        // The broker may have closed the earlier connection as idle.
        self.client = Client::connect(broker.address()).expect("a connection");
        let quiet = self.work(&AtomicBool::new(true));
        forget_peak(broker.process_id());
        let before = memory_mib(broker.process_id(), "VmRSS");
        let stop = AtomicBool::new(false);
        let (result, times) = thread::scope(|scope| {
            let attacker = scope.spawn(|| {
                let _stop = SetOnDrop(&stop);
                give_way();
                attack()
            });
            let times = self.work(&stop);
            (attacker.join().expect("the attacker does not panic"), times)
        });
        let peak = memory_mib(broker.process_id(), "VmHWM");
        println!(
            "figure: {name}: {result}; memory {before} MiB before, {peak} MiB at its peak (at most {growth_mib_max} MiB \
             more are allowed); bystander {quiet} without the attack, {times} with it: its p99 is {:.2} times as long",
            times.undisturbed.p99.as_secs_f64() / quiet.undisturbed.p99.as_secs_f64()
        );
        broker.assert_alive();
        assert!(!broker.log_text().contains("panicked"), "{}", broker.log_text());
        assert!(peak <= before + growth_mib_max, "{name}: memory is bounded: {before} MiB grew to {peak} MiB");
        let records = self.client.read_from(TOPIC, 0, 0).expect("every record is readable");
        let values: Vec<Bytes> = records.into_iter().filter_map(|record| record.value).collect();
        assert_eq!(values, (0..self.acknowledged).map(Self::value).collect::<Vec<_>>(), "nothing is lost or mixed up");
    }
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How long requests took: all of them, and only those during which no processor stood still.
struct Times {
    all: Percentiles,
    undisturbed: Percentiles,
    disturbed_percent: usize,
}

impl Times {
    fn of(requests: Vec<(Instant, Instant)>, standstills: &[Standstill]) -> Self {
        let disturbed =
            |(begin, end): &(Instant, Instant)| standstills.iter().any(|still| still.from < *end && *begin < still.to);
        let took = |(begin, end): &(Instant, Instant)| *end - *begin;
        let undisturbed: Vec<_> = requests.iter().filter(|request| !disturbed(request)).map(took).collect();
        Self {
            disturbed_percent: 100 - undisturbed.len() * 100 / requests.len(),
            all: Percentiles::of(requests.iter().map(took).collect()),
            undisturbed: Percentiles::of(undisturbed),
        }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { all, undisturbed, disturbed_percent } = self;
        write!(f, "{undisturbed} ({all} with the {disturbed_percent} % during which a processor stood still)")
    }
}

struct Percentiles {
    p50: Duration,
    p99: Duration,
}

impl Percentiles {
    /// The percentiles of no times are zero.
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default();
        Self { p50: at(50), p99: at(99) }
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p50 {} us, p99 {} us", self.p50.as_micros(), self.p99.as_micros())
    }
}

/// Waits until a process uses almost no processor time and the disk has written everything; gives up after 30 s.
fn wait_until_idle(process_id: u32) {
    rustix::fs::sync();
    let mut before = processor_ticks(process_id);
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(300));
        let now = processor_ticks(process_id);
        if now <= before + 1 {
            return;
        }
        before = now;
    }
}

/// How much processor time a process has had, in hundredths of a second.
fn processor_ticks(process_id: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process_id}/stat")).expect("the state of a process");
    let behind_name = stat.rsplit(") ").next().expect("its name stands in brackets");
    let numbers = behind_name.split_whitespace().skip(11).take(2);
    numbers.map(|number| number.parse::<u64>().expect("a number")).sum()
}

/// The value of a line of `/proc/PID/status`, in MiB.
pub fn memory_mib(process_id: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process_id}/status")).expect("the status of a process");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a line of it");
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kib.div_ceil(1024)
}

/// Resets the peak that `VmHWM` shows to the present memory.
fn forget_peak(process_id: u32) {
    fs::write(format!("/proc/{process_id}/clear_refs"), "5").expect("clear_refs");
}

/// Reads until the broker closes the connection, ignoring what it sends. Returns false if the connection is still open
/// after `patience` without a byte.
pub fn is_closed(stream: &mut TcpStream, patience: Duration) -> bool {
    stream.set_read_timeout(Some(patience)).expect("a timeout");
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                return false;
            }
            Err(_) => return true,
        }
    }
}

/// Writes until the broker takes nothing for `patience`; returns how many bytes it took.
pub fn push(stream: &mut TcpStream, bytes: &[u8], patience: Duration) -> usize {
    stream.set_write_timeout(Some(patience)).expect("a timeout");
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(some) => written += some,
            Err(_) => break,
        }
    }
    written
}
