//! SIGKILL at random moments under load, many times on the same data. Every acknowledged record must be at its offset;
//! the records of idempotent producers must be there only once.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tidelog_tests::broker::{Kind, Setup};
use tidelog_tests::client::{Client, batch};
use tidelog_tests::load::Writer;
use tidelog_tests::skipped;

const TOPIC: &str = "killed";
#[test]
fn no_acknowledged_record_is_lost_or_doubled_by_sigkill_at_random_moments() {
    let seed = std::env::var("TIDELOG_KILL_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let kills = std::env::var("TIDELOG_KILLS").map_or(20, |kills| kills.parse().expect("a number"));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let home = tempfile::tempdir().expect("a directory");
    let setup = Setup::new(home.path());
    let broker = setup.start();
    let mut client = Client::connect(broker.address()).expect("a connection");
    // With segments of 64 KiB the log rolls many times between two kills.
    let small = [("internal.segment.bytes", "65536")];
    assert_eq!(client.create_topic(TOPIC, 3, &small).expect("CreateTopics"), (0, None));
    client.wait_for_leaders(TOPIC).expect("leaders");
    let mut writers: Vec<Writer> = (0..2)
        .map(|partition| Writer::new(TOPIC, partition, Some(client.init_producer().expect("InitProducerId"))))
        .collect();
    writers.push(Writer::new(TOPIC, 2, None));
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
        let delay = Duration::from_micros(rng.random_range(0..300_000));
        thread::scope(|scope| {
            for writer in &mut writers {
                scope.spawn(|| writer.run(&address, &stop));
            }
            thread::sleep(delay);
            // Some kills come when the load has just ended, so that all acknowledgements have arrived.
            if rng.random_ratio(1, 4) {
                stop.store(true, Ordering::Relaxed);
                thread::sleep(Duration::from_micros(rng.random_range(0..20_000)));
            }
            broker.kill();
            stop.store(true, Ordering::Relaxed);
        });
        let counts: Vec<usize> = writers.iter().map(|writer| writer.acknowledged()).collect();
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
        writer.verify_all(&mut client);
        assert!(writer.acknowledged() > 0 || setup.kind == Kind::Kafka, "the load did something");
    }
    let total: usize = writers.iter().map(Writer::acknowledged).sum();
    println!("figure: {kills} times SIGKILL under load, {total} records acknowledged, none lost or doubled");
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
