//! Links: a node asks another one over connections that hang, break, are half open, or are read slowly. Each question has
//! one answer, or fails in time, and the next one is asked on a new connection.

use bytes::Bytes;
use madsim::time::{Duration, sleep};
use tidelog_core::io::{Answered, AskError};
use tidelog_core::wire::messages::fetch_request::{FetchPartition, FetchTopic};
use tidelog_core::wire::messages::{DescribeClusterRequest, FetchRequest};
use tidelog_core::wire::{Address, ResponseBody};
use tidelog_madsim::asker::Asker;
use tidelog_madsim::client::{Producer, batch};
use tidelog_madsim::network::BROKER;
use tidelog_madsim::runs::check;
use tidelog_madsim::world::World;
use tidelog_sim::disk::Loss;

const TOPIC: &str = "events";
const BATCHES: usize = 4;
const VALUE_BYTES: usize = 20_000;
const TIMEOUT_MS: i64 = 2_000;
/// A connection is made, and its versions are known, within this time, whatever the delays of the network.
const PATIENCE_MS: i64 = 10_000;

/// A broker with [`TOPIC`], whose records take many segments of TCP.
async fn start(world: &mut World) {
    world.start(&[]).await;
    let mut client = world.client(5).await;
    client.create_topic(TOPIC).await;
    for _ in 0..BATCHES {
        let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
        client.produce(TOPIC, batch(Producer::NONE, &[value])).await.unwrap().unwrap();
    }
}

async fn ask_small(asker: &mut Asker, to: &Address, timeout_ms: i64) -> Result<Answered, AskError> {
    asker.ask(to, 0, DescribeClusterRequest::default(), timeout_ms).await
}

fn all_records() -> FetchRequest {
    let partition = FetchPartition { partition_max_bytes: 1 << 20, ..Default::default() };
    let topic = FetchTopic { topic: TOPIC.into(), partitions: vec![partition], ..Default::default() };
    FetchRequest { max_bytes: 1 << 20, session_epoch: -1, topics: vec![topic], ..Default::default() }
}

/// Checks an answer with all records: each batch is whole.
fn expect_all_records(answered: &Answered) {
    let ResponseBody::Fetch(_) = &answered.body else { panic!("{answered:?}") };
    let batches = &answered.batches[0];
    assert_eq!(batches.len(), BATCHES);
    assert!(batches.iter().all(Result::is_ok), "{batches:?}");
}

#[test]
fn each_question_has_one_answer_in_time_whatever_the_network_and_the_other_node_do() {
    check("each_question_has_one_answer_in_time_whatever_the_network_and_the_other_node_do", |mut world| async move {
        start(&mut world).await;
        let mut tasks = Vec::new();
        for host in 1..4 {
            let (mut asker, network) = (world.asker(host).await, world.network.clone());
            tasks.push(madsim::task::spawn(async move {
                let mut answered = 0;
                for question in 0..25 {
                    // The broker listens on another port in each of its lives.
                    let to = network.broker();
                    let result = match question % 3 {
                        0 => asker.ask(&to, 12, all_records(), TIMEOUT_MS).await.inspect(expect_all_records),
                        _ => ask_small(&mut asker, &to, TIMEOUT_MS).await,
                    };
                    answered += usize::from(result.is_ok());
                    sleep(Duration::from_millis(100)).await;
                }
                (asker, answered)
            }));
        }
        for _ in 0..6 {
            sleep(Duration::from_millis(world.random.below(2_000))).await;
            let host = 1 + world.random.below(3) as usize;
            match world.random.below(4) {
                0 => world.network.cut(host, BROKER),
                1 => world.network.cut(BROKER, host),
                2 => {
                    world.crash(Loss::Process).await;
                    world.start(&[]).await;
                }
                _ => {
                    world.crash(Loss::Power).await;
                    sleep(Duration::from_millis(world.random.below(1_000))).await;
                    world.start(&[]).await;
                }
            }
            sleep(Duration::from_millis(world.random.below(3_000))).await;
            world.network.mend();
        }
        for task in tasks {
            let (mut asker, answered) = task.await.unwrap();
            assert!(answered > 0, "some questions were asked in peace");
            let to = world.network.broker();
            let result = asker.ask(&to, 12, all_records(), PATIENCE_MS).await;
            expect_all_records(&result.expect("all is well again"));
            asker.is_free().await;
            asker.stop().await;
        }
    });
}

#[test]
fn a_connection_that_hangs_costs_a_question_its_time_and_no_more() {
    check("a_connection_that_hangs_costs_a_question_its_time_and_no_more", |mut world| async move {
        start(&mut world).await;
        let (mut asker, silent) = (world.asker(1).await, world.network.broker());
        world.crash(Loss::Power).await;
        let first = ask_small(&mut asker, &silent, TIMEOUT_MS).await;
        assert_eq!(first.unwrap_err(), AskError::TimedOut, "nobody answers the first packet");
        world.start(&[]).await;
        ask_small(&mut asker, &world.network.broker(), PATIENCE_MS).await.expect("it is at another address");
        asker.stop().await;
    });
}

#[test]
fn a_half_open_link_is_given_up_when_a_question_on_it_has_no_answer() {
    check("a_half_open_link_is_given_up_when_a_question_on_it_has_no_answer", |mut world| async move {
        start(&mut world).await;
        let mut asker = world.asker(1).await;
        let before = world.network.broker();
        ask_small(&mut asker, &before, PATIENCE_MS).await.unwrap();
        world.crash(Loss::Power).await;
        let lost = ask_small(&mut asker, &before, TIMEOUT_MS).await;
        assert_eq!(lost.unwrap_err(), AskError::TimedOut, "the other end is gone and cannot say so");
        world.start(&[]).await;
        let refused = ask_small(&mut asker, &before, PATIENCE_MS).await;
        assert_eq!(refused.unwrap_err(), AskError::Unreachable, "nobody listens there any more");
        ask_small(&mut asker, &world.network.broker(), PATIENCE_MS).await.unwrap();
        asker.stop().await;
    });
}

#[test]
fn an_answer_that_comes_after_its_time_is_nobodys() {
    check("an_answer_that_comes_after_its_time_is_nobodys", |mut world| async move {
        start(&mut world).await;
        let (mut asker, to) = (world.asker(1).await, world.network.broker());
        ask_small(&mut asker, &to, PATIENCE_MS).await.unwrap();
        world.network.cut(BROKER, 1);
        let question = asker.begin(&to, 12, all_records(), TIMEOUT_MS).await;
        let late = asker.answer(question, TIMEOUT_MS).await;
        assert_eq!(late.unwrap_err(), AskError::TimedOut);
        // The answer arrives at a closed socket, and the next question has its own.
        world.network.mend();
        ask_small(&mut asker, &to, PATIENCE_MS).await.unwrap();
        asker.is_free().await;
        // A process that ends takes its links with it, and the broker serves on.
        asker.kill();
        let mut next = world.asker(2).await;
        ask_small(&mut next, &to, PATIENCE_MS).await.unwrap();
        next.stop().await;
    });
}
