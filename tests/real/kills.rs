//! Power cuts, as near as a process gets to one: SIGKILL at random moments under load, again and again on the same
//! data. Every acknowledged record must stand at its offset; with idempotence on, none may stand twice.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tidelog_tests::broker::{Kind, Setup};
use tidelog_tests::client::{Client, Producer, batch};
use tidelog_tests::skipped;

const TOPIC: &str = "killed";
const IN_FLIGHT: usize = 5;
const RECORDS_PER_BATCH: i32 = 10;

/// What one producer does to its own partition, over all kills.
struct Writer {
    partition: i32,
    /// `None`: without idempotence, so that a retry may stand twice.
    producer: Option<Producer>,
    next_value: u64,
    /// Sent, not acknowledged, in order: sent again after a kill.
    in_flight: VecDeque<(Producer, Vec<Bytes>)>,
    /// The acknowledged records: offset → value.
    acknowledged: BTreeMap<i64, Bytes>,
    verified_up_to: i64,
    seen: BTreeSet<Bytes>,
}

impl Writer {
    fn new(partition: i32, producer: Option<Producer>) -> Self {
        Self {
            partition,
            producer,
            next_value: 0,
            in_flight: VecDeque::new(),
            acknowledged: BTreeMap::new(),
            verified_up_to: 0,
            seen: BTreeSet::new(),
        }
    }

    /// Produces until the broker dies or `stop` is set and all is answered.
    fn run(&mut self, address: &str, stop: &AtomicBool) {
        let _: io::Result<()> = self.try_run(address, stop);
    }

    fn try_run(&mut self, address: &str, stop: &AtomicBool) -> io::Result<()> {
        let mut client = Client::connect(address)?;
        let mut sent = VecDeque::new();
        let resend: Vec<_> = self.in_flight.iter().cloned().collect();
        for (producer, values) in resend {
            sent.push_back(client.send_produce(TOPIC, self.partition, -1, batch(producer, &values))?);
        }
        loop {
            while sent.len() < IN_FLIGHT && !stop.load(Ordering::Relaxed) {
                let (producer, values) = self.next_batch();
                self.in_flight.push_back((producer, values.clone()));
                sent.push_back(client.send_produce(TOPIC, self.partition, -1, batch(producer, &values))?);
            }
            let Some(correlation_id) = sent.pop_front() else { return Ok(()) };
            let produced = client.receive_produce(correlation_id)?;
            // A broker on its way down may refuse; what it acknowledges counts.
            if produced.error_code != 0 {
                return Err(io::Error::other(format!("error {}", produced.error_code)));
            }
            let (_, values) = self.in_flight.pop_front().expect("what was answered was in flight");
            for (offset, value) in (produced.base_offset..).zip(values) {
                let before = self.acknowledged.insert(offset, value);
                assert_eq!(before, None, "offset {offset} of partition {} acknowledged twice", self.partition);
            }
        }
    }

    fn next_batch(&mut self) -> (Producer, Vec<Bytes>) {
        let values = (0..RECORDS_PER_BATCH)
            .map(|_| {
                self.next_value += 1;
                Bytes::from(format!("{}/{:012}", self.partition, self.next_value))
            })
            .collect();
        let producer = self.producer.unwrap_or(Producer::NONE);
        if let Some(producer) = &mut self.producer {
            producer.sequence += RECORDS_PER_BATCH;
        }
        (producer, values)
    }

    /// Reads what was not yet verified and compares it with what was acknowledged.
    fn verify(&mut self, client: &mut Client) {
        let records = client.read_from(TOPIC, self.partition, self.verified_up_to).expect("every record is readable");
        for record in records {
            assert_eq!(record.offset, self.verified_up_to, "offsets are dense");
            self.verified_up_to += 1;
            let value = record.value.expect("a value");
            if let Some(expected) = self.acknowledged.get(&record.offset) {
                assert_eq!(&value, expected, "at offset {} of partition {}", record.offset, self.partition);
            }
            let new = self.seen.insert(value.clone());
            assert!(new || self.producer.is_none(), "{value:?} stands twice, again at offset {}", record.offset);
        }
        if let Some((offset, value)) = self.acknowledged.last_key_value() {
            assert!(*offset < self.verified_up_to, "{value:?} was acknowledged at {offset}, and is lost");
        }
    }
}

#[test]
fn no_acknowledged_record_is_lost_or_doubled_by_sigkill_at_random_moments() {
    let seed = std::env::var("TIDELOG_KILL_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let kills = std::env::var("TIDELOG_KILLS").map_or(20, |kills| kills.parse().expect("a number"));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let home = tempfile::tempdir().expect("a directory");
    let setup = Setup::new(home.path());
    let broker = setup.start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    // Segments of 64 KiB roll many times between two kills.
    let small = [("internal.segment.bytes", "65536")];
    assert_eq!(client.create_topic(TOPIC, 3, &small).expect("CreateTopics"), (0, None));
    client.wait_for_leaders(TOPIC).expect("leaders");
    let mut writers: Vec<Writer> =
        (0..2).map(|partition| Writer::new(partition, Some(client.init_producer().expect("InitProducerId")))).collect();
    writers.push(Writer::new(2, None));
    broker.stop();

    for kill in 0..kills {
        let broker = setup.start();
        let address = broker.address().to_owned();
        let mut client = Client::connect(&address).expect("a connection");
        client.wait_for_leaders(TOPIC).expect("leaders");
        for writer in &mut writers {
            writer.verify(&mut client);
        }
        let stop = AtomicBool::new(false);
        let delay = Duration::from_micros(rng.random_range(0..400_000));
        thread::scope(|scope| {
            for writer in &mut writers {
                scope.spawn(|| writer.run(&address, &stop));
            }
            thread::sleep(delay);
            // Now and then with the load just ended, so that the last acknowledgements have all arrived.
            if rng.random_ratio(1, 4) {
                stop.store(true, Ordering::Relaxed);
                thread::sleep(Duration::from_micros(rng.random_range(0..20_000)));
            }
            broker.kill();
            stop.store(true, Ordering::Relaxed);
        });
        let counts: Vec<usize> = writers.iter().map(|writer| writer.acknowledged.len()).collect();
        println!("kill {kill} after {delay:?}: {counts:?} records acknowledged (seed {seed})");
    }

    let broker = setup.start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    client.wait_for_leaders(TOPIC).expect("leaders");
    for writer in &mut writers {
        let ended = writer.try_run(broker.address(), &AtomicBool::new(true));
        ended.unwrap_or_else(|error| {
            panic!("what is sent again is acknowledged: partition {}: {error}", writer.partition)
        });
        (writer.verified_up_to, writer.seen) = (0, BTreeSet::new());
        writer.verify(&mut client);
        assert!(!writer.acknowledged.is_empty() || setup.kind == Kind::Kafka, "the load did something");
    }
    broker.stop();
}

#[test]
fn the_last_five_batches_are_known_after_a_crash_also_those_before_a_roll() {
    if Kind::under_test() == Kind::Kafka {
        return skipped("the_last_five_batches_are_known_after_a_crash_also_those_before_a_roll", "Kafka forgets them");
    }
    let home = tempfile::tempdir().expect("a directory");
    let setup = Setup::new(home.path());
    let broker = setup.start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    assert_eq!(client.create_topic(TOPIC, 1, &[("internal.segment.bytes", "65536")]).expect("CreateTopics"), (0, None));
    client.wait_for_leaders(TOPIC).expect("leaders");
    let mut producer = client.init_producer().expect("InitProducerId");
    let segments = || {
        let files = std::fs::read_dir(setup.partition_dir(TOPIC, 0)).expect("the partition's directory");
        files
            .filter(|file| file.as_ref().is_ok_and(|file| file.path().extension().is_some_and(|end| end == "log")))
            .count()
    };
    let mut sent = Vec::new();
    // The last batch is the first of the third segment.
    while segments() < 3 {
        let bytes = batch(producer, &vec![Bytes::from(vec![b'x'; 200]); 10]);
        let produced = client.produce(TOPIC, 0, bytes.clone()).expect("Produce");
        assert_eq!(produced.error_code, 0);
        sent.push((bytes, produced));
        producer.sequence += 10;
    }
    broker.kill();

    let broker = setup.start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    client.wait_for_leaders(TOPIC).expect("leaders");
    for (bytes, produced) in &sent[sent.len() - 5..] {
        assert_eq!(client.produce(TOPIC, 0, bytes.clone()).expect("Produce"), *produced, "KIP-98: a retry, not new");
    }
    assert_eq!(client.offset_for(TOPIC, 0, -1).expect("ListOffsets"), (0, i64::from(producer.sequence)));
    broker.stop();
}
