//! What an attack does to a broker, as its other clients and its memory tell it.

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

/// The topic of the clients that mean well.
const TOPIC: &str = "bystander";
/// How many requests of theirs are measured at least, before and meanwhile.
const ROUNDS_MIN: usize = 300;
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(1);

/// One client that produces and fetches, one request after the other, and takes the time of each.
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

    /// Works until `stop` is set, and through [`ROUNDS_MIN`] rounds at least.
    fn work(&mut self, stop: &AtomicBool) -> Times {
        let (requests, standstills) = watched(|| self.take_times(stop));
        Times::of(requests, &standstills)
    }

    /// The beginning and the end of each request.
    fn take_times(&mut self, stop: &AtomicBool) -> Vec<(Instant, Instant)> {
        // On a machine of its own it would wait for no processor.
        if !schedule("--fifo", 1) {
            println!("chrt --fifo is not allowed: the bystander's times have its waits for a processor in them");
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
            // Not a load of its own, which would only measure this machine's processors.
            thread::sleep(PAUSE);
        }
        schedule("--other", 0);
        times
    }

    /// Lets `attack` loose, and prints in one line what it did to this client and to the memory of `broker`, which
    /// may grow by `growth_mib_max` at most.
    pub fn endures(
        &mut self,
        name: &str,
        broker: &mut Broker,
        growth_mib_max: u64,
        attack: impl FnOnce() -> String + Send,
    ) {
        settle(broker.process_id());
        // The last one may have been closed as idle meanwhile.
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
            (attacker.join().expect("the attacker's own part"), times)
        });
        let peak = memory_mib(broker.process_id(), "VmHWM");
        println!(
            "figure: {name}: {result}; memory {before} MiB before, {peak} MiB at its peak (at most {growth_mib_max} MiB \
             more are allowed); bystander {quiet} without, {times} with: its p99 is {:.2} times as long",
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

/// How long requests took: all of them, and those during which no processor stood still.
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
    /// Of nothing: zero.
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

/// Waits until a process has no work left of what came before, nor the disk; not for ever.
fn settle(process_id: u32) {
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

/// A line of `/proc/PID/status`, in MiB.
pub fn memory_mib(process_id: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process_id}/status")).expect("the status of a process");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a line of it");
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kib.div_ceil(1024)
}

/// From now on `VmHWM` is counted anew.
fn forget_peak(process_id: u32) {
    fs::write(format!("/proc/{process_id}/clear_refs"), "5").expect("clear_refs");
}

/// Waits for the end of a connection that the broker should close, whatever it still sends. False: it is open after
/// `patience` without a byte.
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

/// Writes for as long as the broker takes it without a pause of more than `patience`; how many bytes it took.
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
