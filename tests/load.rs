//! Load for tests that kill the broker: writers that remember which records were acknowledged, send the unacknowledged
//! ones again after a restart, and check that what they read agrees.

use crate::client::{Client, Producer, batch};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

const IN_FLIGHT: usize = 5;
const RECORDS_PER_BATCH: i32 = 10;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;

/// One producer that writes to its own partition across all restarts of a broker.
pub struct Writer {
    topic: &'static str,
    pub partition: i32,
    /// `None`: not idempotent, so a retried batch may be in the log twice.
    producer: Option<Producer>,
    next_value: u64,
    /// Batches that were sent and not acknowledged, in order. They are sent again after a kill.
    in_flight: VecDeque<(Producer, Vec<Bytes>)>,
    /// The values of the acknowledged records by offset.
    acknowledged: BTreeMap<i64, Bytes>,
    verified_up_to: i64,
    seen: BTreeSet<Bytes>,
}

impl Writer {
    pub fn new(topic: &'static str, partition: i32, producer: Option<Producer>) -> Self {
        Self {
            topic,
            partition,
            producer,
            next_value: 0,
            in_flight: VecDeque::new(),
            acknowledged: BTreeMap::new(),
            verified_up_to: 0,
            seen: BTreeSet::new(),
        }
    }

    /// Produces until the broker dies, or until `stop` is set and everything is answered.
    pub fn run(&mut self, address: &str, stop: &AtomicBool) {
        let _: io::Result<()> = self.try_run(address, stop);
    }

    /// Like [`run`](Self::run); an error says why it ended before `stop` was set.
    pub fn try_run(&mut self, address: &str, stop: &AtomicBool) -> io::Result<()> {
        let mut client = Client::connect(address)?;
        let mut sent = VecDeque::new();
        let resend: Vec<_> = self.in_flight.iter().cloned().collect();
        for (producer, values) in resend {
            sent.push_back(client.send_produce(self.topic, self.partition, -1, batch(producer, &values))?);
        }
        loop {
            while sent.len() < IN_FLIGHT && !stop.load(Ordering::Relaxed) {
                let (producer, values) = self.next_batch();
                self.in_flight.push_back((producer, values.clone()));
                sent.push_back(client.send_produce(self.topic, self.partition, -1, batch(producer, &values))?);
            }
            let Some(correlation_id) = sent.pop_front() else { return Ok(()) };
            let produced = client.receive_produce(correlation_id)?;
            assert_ne!(
                produced.error_code,
                OUT_OF_ORDER_SEQUENCE_NUMBER,
                "in partition {}: an acknowledged batch is lost, or a retried batch was appended twice; the \
                 last acknowledged: {:?}, in flight from {:?}",
                self.partition,
                self.acknowledged.last_key_value(),
                self.in_flight.front().map(|(producer, _)| producer)
            );
            // A broker that is failing may refuse a batch, so this is no error of the test.
            if produced.error_code != 0 {
                return Err(io::Error::other(format!("error {}", produced.error_code)));
            }
            let (_, values) = self.in_flight.pop_front().expect("only batches in flight are answered");
            for (offset, value) in (produced.base_offset..).zip(values) {
                let before = self.acknowledged.insert(offset, value);
                assert_eq!(before, None, "offset {offset} of partition {} acknowledged twice", self.partition);
            }
        }
    }

    /// How many records were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Reads everything again from the beginning.
    pub fn verify_all(&mut self, client: &mut Client) {
        (self.verified_up_to, self.seen) = (0, BTreeSet::new());
        self.verify(client);
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

    /// Reads the records that were not read before and compares them with the acknowledged ones.
    pub fn verify(&mut self, client: &mut Client) {
        let records =
            client.read_from(self.topic, self.partition, self.verified_up_to).expect("every record is readable");
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
