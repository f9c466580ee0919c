//! Stops, crashes and network partitions: every acknowledged record is there once, in order.

use bytes::Bytes;
use madsim::task::JoinHandle;
use madsim::time::{Duration, sleep, timeout};
use tidelog_madsim::client::{Client, Producer, batch};
use tidelog_madsim::network::{BROKER, Network};
use tidelog_madsim::runs::{Log, check};
use tidelog_madsim::world::World;
use tidelog_sim::disk::Loss;

const TOPIC: &str = "events";

fn value(number: usize) -> Bytes {
    format!("value {number}").into()
}

/// Produces `count` values one after the other, repeating each until it is acknowledged, on new connections where
/// needed. Returns how many connections it made.
fn produce_all(world: &World, producer: Producer, count: usize) -> JoinHandle<usize> {
    let (network, log) = (world.network.clone(), world.log.clone());
    madsim::task::spawn(async move {
        let (mut producer, mut client, mut connections) = (producer, None, 0);
        for number in 0..count {
            let batch = batch(producer, &[value(number)]);
            loop {
                if client.is_none() {
                    client = connect(&network, &log).await;
                    connections += 1;
                }
                let Some(open) = &mut client else { continue };
                match timeout(Duration::from_secs(3), open.produce(TOPIC, batch.clone())).await {
                    Ok(Ok(Ok(_))) => break,
                    // The broker is stopping or has just started. The batch is sent again with the same sequence.
                    Ok(Ok(Err(_))) => sleep(Duration::from_millis(20)).await,
                    Ok(Err(_)) | Err(_) => client = None,
                }
            }
            producer.sequence += 1;
        }
        connections
    })
}

async fn connect(network: &Network, log: &Log) -> Option<Client> {
    match timeout(Duration::from_secs(1), network.connect(3)).await {
        Ok(Ok(stream)) => Some(Client::new(stream, "producer".into(), log.clone())),
        _ => {
            sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn expect_each_once(world: &World, count: usize) {
    let all = world.client(4).await.read_all(TOPIC).await;
    let wanted: Vec<(i64, Bytes)> = (0..count).map(|number| (number as i64, value(number))).collect();
    assert_eq!(all, wanted);
}

#[test]
fn a_stop_answers_what_it_can_and_a_restart_has_all_that_was_acknowledged() {
    check("a_stop_answers_what_it_can_and_a_restart_has_all_that_was_acknowledged", |mut world| async move {
        world.start(&[]).await;
        let mut client = world.client(1).await;
        client.create_topic(TOPIC).await;
        let (mut stream, mut wanted) = (Vec::new(), Vec::new());
        for number in 0..40 {
            let (correlation_id, frame) = client.produce_frame(TOPIC, -1, batch(Producer::NONE, &[value(number)]));
            stream.extend(frame);
            wanted.push(correlation_id);
        }
        let received = madsim::task::spawn(async move {
            let mut acknowledged = Vec::new();
            if client.write_and_read(&stream).await.is_err() {
                return acknowledged;
            }
            for (number, correlation_id) in wanted.into_iter().enumerate() {
                match client.receive_produce(correlation_id).await {
                    Ok(Ok(offset)) => acknowledged.push((offset, value(number))),
                    Ok(Err(_)) => {}
                    Err(_) => break,
                }
            }
            acknowledged
        });
        sleep(Duration::from_millis(world.random.between(1, 400))).await;
        world.stop().await;
        let acknowledged = received.await.unwrap();
        world.start(&[]).await;
        let all = world.client(2).await.read_all(TOPIC).await;
        assert!(acknowledged.iter().all(|entry| all.contains(entry)), "{acknowledged:?} are not all in {all:?}");
        // The broker took a prefix of the requests: each of these records is there once, in the order of the requests.
        assert!(all.iter().enumerate().all(|(place, entry)| *entry == (place as i64, value(place))), "{all:?}");
    });
}

#[test]
fn crashes_lose_nothing_that_was_acknowledged_and_double_nothing() {
    check("crashes_lose_nothing_that_was_acknowledged_and_double_nothing", |mut world| async move {
        const COUNT: usize = 40;
        world.start(&[]).await;
        let mut client = world.client(1).await;
        client.create_topic(TOPIC).await;
        let producer = client.init_producer().await;
        drop(client);
        let produced = produce_all(&world, producer, COUNT);
        for _ in 0..3 {
            sleep(Duration::from_millis(world.random.between(1, 1_500))).await;
            let loss = if world.random.one_in(3) { Loss::Process } else { Loss::Power };
            world.crash(loss).await;
            sleep(Duration::from_millis(world.random.between(1, 500))).await;
            world.start(&[]).await;
        }
        produced.await.unwrap();
        expect_each_once(&world, COUNT).await;
    });
}

#[test]
fn a_network_partition_delays_answers_and_changes_none() {
    check("a_network_partition_delays_answers_and_changes_none", |mut world| async move {
        world.start(&[]).await;
        let mut client = world.client(1).await;
        client.create_topic(TOPIC).await;
        let mut near = world.client(2).await;
        let cuts = world.random.between(1, 3);
        let mut number = 0;
        for _ in 0..cuts {
            let (mut stream, mut wanted) = (Vec::new(), Vec::new());
            for _ in 0..20 {
                let (correlation_id, frame) = client.produce_frame(TOPIC, -1, batch(Producer::NONE, &[value(number)]));
                stream.extend(frame);
                wanted.push((number, correlation_id));
                number += 1;
            }
            let network = world.network.clone();
            let (before, held) = (world.random.between(0, 60), world.random.between(10, 9_000));
            let ways = world.random.below(3);
            let cutter = madsim::task::spawn(async move {
                sleep(Duration::from_millis(before)).await;
                if ways != 0 {
                    network.cut(1, BROKER);
                }
                if ways != 1 {
                    network.cut(BROKER, 1);
                }
                sleep(Duration::from_millis(held)).await;
                network.mend();
            });
            // A client on another host is not affected.
            near.ping().await.unwrap();
            client.write_and_read(&stream).await.unwrap();
            for (number, correlation_id) in wanted {
                assert_eq!(client.receive_produce(correlation_id).await.unwrap(), Ok(number as i64));
            }
            cutter.await.unwrap();
        }
        expect_each_once(&world, number).await;
    });
}

#[test]
fn batches_that_are_retried_after_a_network_partition_are_appended_once() {
    check("batches_that_are_retried_after_a_network_partition_are_appended_once", |mut world| async move {
        const COUNT: usize = 30;
        world.start(&[]).await;
        let mut client = world.client(1).await;
        client.create_topic(TOPIC).await;
        let producer = client.init_producer().await;
        let produced = produce_all(&world, producer, COUNT);
        for _ in 0..2 {
            // The cut lasts longer than the producer waits for an answer, so it sends the batch again on another
            // connection.
            sleep(Duration::from_millis(world.random.between(1, 400))).await;
            if world.random.one_in(2) {
                world.network.cut(3, BROKER);
            }
            world.network.cut(BROKER, 3);
            sleep(Duration::from_millis(world.random.between(3_500, 6_000))).await;
            world.network.mend();
        }
        produced.await.unwrap();
        expect_each_once(&world, COUNT).await;
    });
}
