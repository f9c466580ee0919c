//! Load under which a broker dies: writers that remember what was acknowledged, send the rest again to its next life,
//! and judge what they read there.

use crate::client::{Client, Producer, batch};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

const IN_FLIGHT: usize = 5;
const RECORDS_PER_BATCH: i32 = 10;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;

/// What one producer does to its own partition, over all lives of a broker.
pub struct Writer {
    topic: &'static str,
    pub partition: i32,
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

    /// Produces until the broker dies or `stop` is set and all is answered.
    pub fn run(&mut self, address: &str, stop: &AtomicBool) {
        let _: io::Result<()> = self.try_run(address, stop);
    }

    /// The same; an error says how it ended early.
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
                "in partition {}: a batch that was acknowledged is gone, or one that came twice was taken twice; the \
                 last acknowledged: {:?}, in flight from {:?}",
                self.partition,
                self.acknowledged.last_key_value(),
                self.in_flight.front().map(|(producer, _)| producer)
            );
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

    /// Reads what was not yet verified and compares it with what was acknowledged.
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
