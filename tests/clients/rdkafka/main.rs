//! librdkafka: 100,000 records with each codec, read back and compared; then the requests of its admin client.
//! `BROKER=host:port`

mod admin;
mod raw;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

fn main() {
    let broker = std::env::var("BROKER").expect("BROKER=host:port");
    let count = std::env::var("RECORDS").map_or(100_000, |text| text.parse().expect("RECORDS=number"));
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        check(&broker, codec, count);
        println!("rdkafka: {count} records with {codec}: equal");
    }
    admin::check(&broker);
}

/// Checks that every record is acknowledged at the offset of its number.
struct Acknowledged(AtomicUsize);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        let message = result.as_ref().unwrap_or_else(|(error, _)| panic!("record {number}: {error}"));
        assert_eq!(message.offset(), i64::try_from(*number).expect("a number"), "the offset of record {number}");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn check(broker: &str, codec: &str, count: usize) {
    let topic = format!("rdkafka-{codec}");
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker);

    let admin: AdminClient<DefaultClientContext> = config.create().expect("an admin client");
    let new_topic = NewTopic::new(&topic, 1, TopicReplication::Fixed(1));
    for result in wait(admin.create_topics([&new_topic], &AdminOptions::new())).expect("CreateTopics") {
        result.unwrap_or_else(|(name, error)| panic!("{name}: {error}"));
    }

    let mut settings = config.clone();
    settings.set("compression.type", codec).set("enable.idempotence", "true").set("linger.ms", "5");
    settings.set("queue.buffering.max.messages", "1000000");
    let producer: ThreadedProducer<_> =
        settings.create_with_context(Acknowledged(AtomicUsize::new(0))).expect("a producer");
    for number in 0..count {
        let (key, value) = record(number);
        let headers = OwnedHeaders::new().insert(Header { key: "number", value: Some(&key) });
        let record = BaseRecord::with_opaque_to(&topic, Box::new(number)).partition(0).key(&key).payload(&value);
        if let Err((error, _)) = producer.send(record.headers(headers)) {
            panic!("record {number}: {error}");
        }
    }
    producer.flush(Duration::from_secs(120)).expect("a flush");
    assert_eq!(producer.context().0.load(Ordering::Relaxed), count, "acknowledged records");

    let mut settings = config.clone();
    settings.set("group.id", "unused").set("enable.auto.commit", "false").set("check.crcs", "true");
    let consumer: BaseConsumer = settings.create().expect("a consumer");
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(&topic, 0, Offset::Beginning).expect("a partition");
    consumer.assign(&partitions).expect("an assignment");
    for number in 0..count {
        let message = consumer.poll(Duration::from_secs(60)).expect("a record in time").expect("a record");
        let (key, value) = record(number);
        assert_eq!(message.offset(), i64::try_from(number).expect("a number"));
        assert_eq!(message.key(), Some(key.as_bytes()), "the key at {number}");
        assert_eq!(message.payload(), Some(value.as_bytes()), "the value at {number}");
        let header = message.headers().expect("headers").get(0);
        assert_eq!((header.key, header.value), ("number", Some(key.as_bytes())), "the header at {number}");
    }
    let (low, high) = consumer.fetch_watermarks(&topic, 0, Duration::from_secs(30)).expect("watermarks");
    assert_eq!((low, high), (0, i64::try_from(count).expect("a number")));
}

fn record(number: usize) -> (String, String) {
    (format!("key-{number}"), format!("value {number}: the quick brown fox jumps over the lazy dog"))
}

/// Waits for a future of the admin client by asking it again and again: the client's own thread completes it.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
