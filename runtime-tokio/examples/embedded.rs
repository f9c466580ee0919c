//! How an application's test uses a broker of its own: acknowledged records outlive the broker's crash.
//!
//! `cargo run --example embedded`

use std::collections::BTreeMap;
use std::error::Error;
use tidelog::{Broker, Config, Driver};
use tidelog_client::producer::ProducerRecord;
use tidelog_client::{Consumer, ConsumerConfig, Producer, ProducerConfig, TopicPartition, consumer, producer};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut broker = Broker::start(Config::in_memory())?;
    // Any Kafka client will do; these are Tidelog's own.
    let properties = BTreeMap::from([("bootstrap.servers".to_owned(), broker.bootstrap_servers())]);

    let (config, _) = ProducerConfig::from_properties(&properties).map_err(|errors| format!("{errors:?}"))?;
    let mut producer = Driver::new(Producer::new(config, 1));
    for (id, value) in (0..).zip(["one", "two", "three"]) {
        producer.call(producer::Call::Send(ProducerRecord {
            id,
            topic: "numbers".into(),
            partition: Some(0),
            timestamp: None,
            key: None,
            value: Some(value.into()),
            headers: Vec::new(),
        }));
    }
    producer.call(producer::Call::Flush(0));
    loop {
        match producer.next().await {
            producer::Event::Flushed(_) => break,
            producer::Event::Failed { error, .. } => return Err(error.into()),
            _ => {}
        }
    }

    broker.crash()?;

    let (config, _) = ConsumerConfig::from_properties(&properties).map_err(|errors| format!("{errors:?}"))?;
    let mut consumer = Driver::new(Consumer::new(config, 2));
    let partition = TopicPartition::new("numbers", 0);
    consumer.call(consumer::Call::Assign(vec![(partition, consumer::Start::Earliest)]));
    let mut values = Vec::new();
    while values.len() < 3 {
        consumer.call(consumer::Call::Poll);
        if let consumer::Event::Records(polled) = consumer.next().await {
            values.extend(polled.into_iter().flat_map(|of| of.records).filter_map(|record| record.value));
        }
    }
    assert_eq!(values, ["one", "two", "three"]);
    println!("{} has kept {values:?}", broker.bootstrap_servers());
    Ok(())
}
