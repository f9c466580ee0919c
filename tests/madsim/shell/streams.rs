//! Streams of requests and answers: framing, order, back-pressure, half-close, reset, and bytes that are no requests.

use bytes::Bytes;
use madsim::time::{Duration, sleep, timeout};
use tidelog::connection::IN_FLIGHT_MAX;
use tidelog_madsim::client::{Client, Producer, batch};
use tidelog_madsim::runs::check;
use tidelog_madsim::world::World;

const TOPIC: &str = "events";

fn value(number: usize, len: usize) -> Bytes {
    let mut value = format!("value {number} ").into_bytes();
    value.resize(len.max(value.len()), b'.');
    value.into()
}

/// A broker with [`TOPIC`], holding `batches` batches of one record of `len` bytes.
async fn with_topic(world: &mut World, properties: &[(&str, &str)], batches: usize, len: usize) -> Client {
    world.start(properties).await;
    let mut client = world.client(1).await;
    client.create_topic(TOPIC).await;
    for number in 0..batches {
        let produced = client.produce(TOPIC, batch(Producer::NONE, &[value(number, len)])).await;
        assert_eq!(produced.unwrap(), Ok(number as i64));
    }
    client
}

#[test]
fn requests_are_the_same_wherever_their_stream_is_cut() {
    check("requests_are_the_same_wherever_their_stream_is_cut", |mut world| async move {
        world.start(&[]).await;
        let mut client = world.client(1).await;
        let (mut stream, mut wanted) = (Vec::new(), Vec::new());
        for _ in 0..60 {
            let (correlation_id, frame) = client.ping_frame();
            stream.extend(frame);
            wanted.push(correlation_id);
        }
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let len = (1 + world.random.skewed(300) as usize).min(rest.len());
            client.write(&rest[..len]).await.unwrap();
            rest = &rest[len..];
            if world.random.one_in(3) {
                sleep(Duration::from_millis(world.random.between(1, 20))).await;
            }
        }
        for correlation_id in wanted {
            client.receive_ping(correlation_id).await.unwrap();
        }
    });
}

enum Wanted {
    Ping(i32),
    Produce(i32),
    Fetch(i32),
    Metadata(i32),
}

#[test]
fn answers_come_in_the_order_of_the_requests_however_long_each_takes() {
    check("answers_come_in_the_order_of_the_requests_however_long_each_takes", |mut world| async move {
        let mut client = with_topic(&mut world, &[], 1, 100).await;
        let (mut stream, mut wanted, mut produced) = (Vec::new(), Vec::new(), 1);
        const COUNT: usize = IN_FLIGHT_MAX + 72;
        for place in 0..COUNT {
            // The last request is a Produce with acks=all: when it is acknowledged, the earlier ones without an answer
            // are on the disk too.
            let drawn = if place + 1 == COUNT { 3 } else { world.random.below(10) };
            let frame = match drawn {
                // The record may be there already, or the Fetch waits until the earlier Produce requests have written
                // it.
                0 | 1 => {
                    let offset = produced.max(1) - 1;
                    let (correlation_id, frame) = client.fetch_frame(TOPIC, offset, 200, 1_000);
                    wanted.push(Wanted::Fetch(correlation_id));
                    frame
                }
                kind @ 2..=4 => {
                    let acks = if kind == 2 { 0 } else { -1 };
                    let batch = batch(Producer::NONE, &[value(produced as usize, 50)]);
                    let (correlation_id, frame) = client.produce_frame(TOPIC, acks, batch);
                    if acks != 0 {
                        wanted.push(Wanted::Produce(correlation_id));
                    }
                    produced += 1;
                    frame
                }
                5 => {
                    let (correlation_id, frame) = client.metadata_frame();
                    wanted.push(Wanted::Metadata(correlation_id));
                    frame
                }
                _ => {
                    let (correlation_id, frame) = client.ping_frame();
                    wanted.push(Wanted::Ping(correlation_id));
                    frame
                }
            };
            stream.extend(frame);
        }
        client.write_and_read(&stream).await.unwrap();
        let mut last = 0;
        for wanted in wanted {
            match wanted {
                Wanted::Ping(correlation_id) => client.receive_ping(correlation_id).await.unwrap(),
                Wanted::Fetch(correlation_id) => drop(client.receive_fetch(correlation_id).await.unwrap()),
                Wanted::Metadata(correlation_id) => {
                    assert_eq!(client.receive_metadata(correlation_id).await.unwrap(), 1);
                }
                Wanted::Produce(correlation_id) => {
                    let offset = client.receive_produce(correlation_id).await.unwrap().unwrap();
                    assert!(offset > last, "the records of one connection keep the order of its requests");
                    last = offset;
                }
            }
        }
        let all = client.read_all(TOPIC).await;
        let numbers: Vec<usize> = (0..produced as usize).collect();
        let found = all.iter().map(|(_, value)| value.split(|byte| *byte == b' ').nth(1).unwrap());
        let found: Vec<usize> = found.map(|text| std::str::from_utf8(text).unwrap().parse().unwrap()).collect();
        assert_eq!(found, numbers);
    });
}

#[test]
fn a_client_that_does_not_read_is_not_read_and_costs_little() {
    check("a_client_that_does_not_read_is_not_read_and_costs_little", |mut world| async move {
        let mut other = with_topic(&mut world, &[], 3, 9_000).await;
        let mut slow = world.client(2).await;
        let mut frames = Vec::new();
        let mut wanted = Vec::new();
        // More answers than fit in the broker's limit, its buffer and both TCP windows.
        for _ in 0..3_000 {
            let (correlation_id, frame) = slow.fetch_frame(TOPIC, 0, 100, 9_000);
            wanted.push(correlation_id);
            frames.push(frame);
        }
        let frame_bytes = frames[0].len();
        let stream = frames.concat();
        // The bytes that were written before the timeout are on their way to the broker.
        let finished = timeout(Duration::from_secs(30), slow.write(&stream)).await;
        assert!(finished.is_err(), "the broker read everything, although the client read no answer");

        let held = world.service().shared().budget.held();
        assert!(held <= (IN_FLIGHT_MAX + 1) * frame_bytes + (16 << 10), "{held} bytes held for one slow client");
        for _ in 0..5 {
            other.ping().await.unwrap();
        }
        for correlation_id in wanted.into_iter().take(IN_FLIGHT_MAX + 20) {
            let (records, high_watermark) = slow.receive_fetch(correlation_id).await.unwrap();
            assert_eq!((records.len(), high_watermark), (1, 3));
            assert_eq!(records[0].value, Some(value(0, 9_000)));
        }
        slow.stream.reset().await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(world.service().shared().budget.held(), 0, "a closed connection holds nothing of the budget");
        other.ping().await.unwrap();
    });
}

#[test]
fn frames_go_through_a_budget_that_holds_little_more_than_one() {
    check("frames_go_through_a_budget_that_holds_little_more_than_one", |mut world| async move {
        let limits = [("queued.max.request.bytes", "21000"), ("socket.request.max.bytes", "21000")];
        let mut first = with_topic(&mut world, &limits, 0, 0).await;
        let mut tasks = Vec::new();
        for host in 2..6 {
            let mut client = world.client(host).await;
            tasks.push(madsim::task::spawn(async move {
                for round in 0..3 {
                    let batch = batch(Producer::NONE, &[value(host * 10 + round, 20_000)]);
                    client.produce(TOPIC, batch).await.unwrap().unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(first.read_all(TOPIC).await.len(), 12);
        assert_eq!(world.service().shared().budget.held(), 0);
    });
}

#[test]
fn a_client_that_sends_no_more_still_gets_its_answers_and_then_the_end() {
    check("a_client_that_sends_no_more_still_gets_its_answers_and_then_the_end", |mut world| async move {
        let mut client = with_topic(&mut world, &[], 2, 9_000).await;
        let mut stream = Vec::new();
        let mut wanted = Vec::new();
        for _ in 0..10 {
            let (fetch, frame) = client.fetch_frame(TOPIC, 0, 100, 9_000);
            stream.extend(frame);
            let (produce, frame) = client.produce_frame(TOPIC, -1, batch(Producer::NONE, &[value(9, 50)]));
            stream.extend(frame);
            wanted.push((fetch, produce));
        }
        client.write_and_read(&stream).await.unwrap();
        client.stream.half_close().await.unwrap();
        for (fetch, produce) in wanted {
            let (records, _) = client.receive_fetch(fetch).await.unwrap();
            assert_eq!(records[0].value, Some(value(0, 9_000)));
            client.receive_produce(produce).await.unwrap().unwrap();
        }
        client.closed(Duration::from_secs(1)).await.expect("an orderly end");
    });
}

#[test]
fn a_reset_in_the_middle_of_a_request_frees_the_connections_place_and_harms_no_other() {
    check(
        "a_reset_in_the_middle_of_a_request_frees_the_connections_place_and_harms_no_other",
        |mut world| async move {
            let mut other = with_topic(&mut world, &[("max.connections.per.ip", "1")], 3, 9_000).await;
            for round in 0..5 {
                let mut client = world.client(2).await;
                let mut stream = Vec::new();
                for number in 0..20 {
                    stream.extend(client.fetch_frame(TOPIC, 0, 100, 9_000).1);
                    let batch = batch(Producer::NONE, &[value(100 * round + number, 500)]);
                    stream.extend(client.produce_frame(TOPIC, -1, batch).1);
                }
                let cut = world.random.between(1, stream.len() as u64) as usize;
                let time = Duration::from_millis(world.random.between(1, 300));
                let _ = timeout(time, client.write(&stream[..cut])).await;
                sleep(Duration::from_millis(world.random.between(1, 100))).await;
                client.stream.reset().await;
                sleep(Duration::from_millis(500)).await;
                other.ping().await.unwrap();
            }
            let mut again = world.client(2).await;
            again.ping().await.unwrap();
            // The records of the closed connections are whole and in order.
            let all = other.read_all(TOPIC).await;
            assert!(all.iter().zip(0..).all(|((offset, _), place)| *offset == place));
            assert_eq!(world.service().shared().budget.held(), 0);
        },
    );
}

#[test]
fn bytes_that_are_no_request_close_their_connection_and_no_other() {
    check("bytes_that_are_no_request_close_their_connection_and_no_other", |mut world| async move {
        world.start(&[("socket.request.max.bytes", "10000")]).await;
        let mut good = world.client(1).await;
        for round in 0..8 {
            let mut bad = world.client(2).await;
            if world.random.one_in(2) {
                bad.ping().await.unwrap();
            }
            let mut bytes = match round % 4 {
                0 => 10_001u32.to_be_bytes().to_vec(),
                1 => (-1i32).to_be_bytes().to_vec(),
                2 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
                // A well-formed frame that holds an unknown request.
                _ => [&10u32.to_be_bytes()[..], &[0x7f; 10]].concat(),
            };
            bytes.extend((0..world.random.below(3_000)).map(|n| n as u8));
            // The broker may close the connection before all bytes are written.
            let _ = bad.write(&bytes).await;
            let _ = bad.closed(Duration::from_secs(2)).await;
            good.ping().await.unwrap();
        }
        assert_eq!(world.service().shared().budget.held(), 0);
    });
}
