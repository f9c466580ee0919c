//! Replicated partitions on three real nodes: nodes are killed, paused and stopped while a producer with acks=all writes.
//! What was acknowledged must be on each node in the end, and the segments of all replicas must be equal byte for byte.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use bytes::Bytes;
use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, BrokerId};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tidelog_tests::client::{Client, Producer, batch, topic_name};
use tidelog_tests::cluster::{Cluster, Plan};

const TOPIC: &str = "kept";
const PARTITIONS: i32 = 3;
const NODES: usize = 3;
/// How long the cluster may take to do anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes with a topic of which each has all partitions.
fn cluster(home: &std::path::Path) -> Cluster {
    let cluster = Plan::new(NODES)
        .set("broker.session.timeout.ms", 3_000)
        .set("broker.heartbeat.interval.ms", 500)
        .set("replica.lag.time.max.ms", 3_000)
        .set("controlled.shutdown.enable", true)
        .start(home);
    let partitions = PARTITIONS.to_string();
    let words = ["topic", "create", TOPIC, "--partitions", &partitions, "--replication-factor", "3"];
    cluster.say(0, &[&words[..], &["--config", "min.insync.replicas=2"]].concat());
    cluster
}

/// The partitions of the topic, as `tidelog topic describe` tells them.
fn described(cluster: &Cluster, asked: usize) -> Option<Vec<Value>> {
    let said = cluster.tidelog(asked, &["topic", "describe", TOPIC, "--format", "json"]);
    let topics: Value = serde_json::from_str(&said.out).ok()?;
    topics[0]["partitions"].as_array().cloned()
}

/// Waits until the topic is as it should be, as the node in place `asked` tells.
fn wait_until(cluster: &Cluster, asked: usize, what: &str, fits: impl Fn(&[Value]) -> bool) {
    let begin = Instant::now();
    loop {
        let told = described(cluster, asked);
        if told.as_deref().is_some_and(&fits) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "not {what}: {told:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn in_sync(partition: &Value) -> usize {
    partition["in_sync_replicas"].as_array().map_or(0, Vec::len)
}

fn leader(partition: &Value) -> Option<usize> {
    Some(usize::try_from(partition["leader"].as_u64()?).ok()? - 1)
}

/// Where the topic's first partition is led.
fn first_leader(cluster: &Cluster, asked: usize) -> usize {
    wait_until(cluster, asked, "led", |partitions| leader(&partitions[0]).is_some());
    described(cluster, asked).and_then(|partitions| leader(&partitions[0])).expect("it was led just now")
}

/// A producer with acks=all, which sends one record after the other to any node until its leader takes it.
struct Writer<'a> {
    addresses: &'a [String],
    partition: i32,
    clients: Vec<Option<Client>>,
    at: usize,
    acknowledged: Vec<String>,
    longest_wait: Duration,
}

impl<'a> Writer<'a> {
    fn new(addresses: &'a [String], partition: i32) -> Self {
        let clients = addresses.iter().map(|_| None).collect();
        Self { addresses, partition, clients, at: 0, acknowledged: Vec::new(), longest_wait: Duration::ZERO }
    }

    fn try_write(&mut self, value: &str) -> io::Result<bool> {
        let client = match &mut self.clients[self.at] {
            Some(client) => client,
            empty => {
                let mut client = Client::connect(&self.addresses[self.at])?;
                client.stream().set_read_timeout(Some(Duration::from_secs(5)))?;
                empty.insert(client)
            }
        };
        let sent = batch(Producer::NONE, &[Bytes::copy_from_slice(value.as_bytes())]);
        Ok(client.produce(TOPIC, self.partition, sent)?.error_code == 0)
    }

    /// Writes a value, however long that takes.
    fn write(&mut self, value: String, over: &AtomicBool) {
        let begin = Instant::now();
        loop {
            match self.try_write(&value) {
                Ok(true) => break,
                Ok(false) => {}
                Err(_) => self.clients[self.at] = None,
            }
            if over.load(Ordering::Relaxed) && begin.elapsed() > PATIENCE {
                panic!("{value} is not taken after {:?}", begin.elapsed());
            }
            self.at = (self.at + 1) % self.addresses.len();
            thread::sleep(Duration::from_millis(20));
        }
        self.longest_wait = self.longest_wait.max(begin.elapsed());
        self.acknowledged.push(value);
    }
}

/// Writes to all partitions while `meanwhile` goes on. Gives what was acknowledged, by partition, and how long a writer
/// waited at most. `meanwhile` gets the number of acknowledged records so far.
fn written_while(
    cluster: &mut Cluster,
    meanwhile: impl FnOnce(&mut Cluster, &AtomicU64),
) -> (Vec<Vec<String>>, Duration) {
    let addresses: Vec<String> = (0..NODES).map(|place| cluster.address(place).to_owned()).collect();
    let (over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let writers: Vec<Writer> = thread::scope(|scope| {
        let (addresses, over, count) = (&addresses, &over, &count);
        let writers: Vec<_> = (0..PARTITIONS)
            .map(|partition| {
                scope.spawn(move || {
                    let mut writer = Writer::new(addresses, partition);
                    let mut number = 0;
                    while !over.load(Ordering::Relaxed) {
                        writer.write(format!("p{partition}-{number}"), over);
                        number += 1;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    writer
                })
            })
            .collect();
        // The writers must end, too, if this thread panics.
        let end = End(over);
        meanwhile(cluster, count);
        drop(end);
        writers.into_iter().map(|writer| writer.join().expect("a writer without a complaint")).collect()
    });
    let longest = writers.iter().map(|writer| writer.longest_wait).max().unwrap_or_default();
    (writers.into_iter().map(|writer| writer.acknowledged).collect(), longest)
}

/// Sets the flag when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until so many more records are acknowledged.
fn goes_on(count: &AtomicU64, more: u64) {
    let (begin, before) = (Instant::now(), count.load(Ordering::Relaxed));
    while count.load(Ordering::Relaxed) < before + more {
        assert!(begin.elapsed() < PATIENCE, "writers wait for {:?}", begin.elapsed());
        thread::sleep(Duration::from_millis(20));
    }
}

/// All that was acknowledged is read, and the replicas' segments are equal.
fn assert_kept(mut cluster: Cluster, acknowledged: &[Vec<String>]) {
    let all_in_sync = |partitions: &[Value]| partitions.iter().all(|partition| in_sync(partition) == NODES);
    wait_until(&cluster, 0, "in sync", all_in_sync);
    for (partition, values) in (0..).zip(acknowledged) {
        let words = ["consume", TOPIC, "--partition", &i32::to_string(&partition), "--from-beginning", "--exit-at-end"];
        let text = cluster.say(0, &words);
        let there: BTreeSet<&str> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
        let lost: Vec<&String> = values.iter().filter(|value| !there.contains(value.as_str())).collect();
        assert!(
            lost.is_empty(),
            "partition {partition}: {} were acknowledged, and these are lost: {lost:?}",
            values.len()
        );
    }
    cluster.stop(&[0, 1, 2]);
    for partition in 0..PARTITIONS {
        let segments = |place: usize| -> Vec<(String, Vec<u8>)> {
            let dir = cluster.setup(place).partition_dir(TOPIC, partition);
            let files = fs::read_dir(&dir).expect("a replica").map(|entry| entry.expect("an entry").path());
            let mut logs: Vec<_> = files.filter(|file| file.extension().is_some_and(|it| it == "log")).collect();
            logs.sort();
            let read = |file: std::path::PathBuf| {
                (file.file_name().expect("a name").to_string_lossy().into_owned(), fs::read(&file).expect("a segment"))
            };
            logs.into_iter().map(read).collect()
        };
        let first = segments(0);
        assert!(first.iter().any(|(_, bytes)| !bytes.is_empty()));
        for place in 1..NODES {
            assert!(segments(place) == first, "partition {partition} differs on nodes 1 and {}", place + 1);
        }
    }
}

#[test]
fn what_is_acknowledged_outlives_any_node_and_is_the_same_on_all() {
    let home = tempfile::tempdir().expect("a directory");
    let mut cluster = cluster(home.path());
    let (acknowledged, longest) = written_while(&mut cluster, |cluster, count| {
        goes_on(count, 100);
        for round in 0..2 {
            let killed = first_leader(cluster, 0);
            let asked = (killed + 1) % NODES;
            cluster.kill(killed);
            goes_on(count, 100);
            assert_ne!(first_leader(cluster, asked), killed, "round {round}");
            cluster.start_again(&[killed]);
            let is_back = |partitions: &[Value]| partitions.iter().all(|partition| in_sync(partition) == NODES);
            wait_until(cluster, asked, "in sync again", is_back);
        }
        // A node that stands still does not notice that others lead meanwhile.
        let paused = first_leader(cluster, 0);
        let asked = (paused + 1) % NODES;
        cluster.pause(paused);
        goes_on(count, 100);
        assert_ne!(first_leader(cluster, asked), paused);
        cluster.resume(paused);
        goes_on(count, 100);
        // The power of the whole room.
        (0..NODES).for_each(|place| cluster.kill(place));
        cluster.start_again(&[0, 1, 2]);
        goes_on(count, 100);
        // An operator restarts one after the other.
        for place in 0..NODES {
            let asked = (place + 1) % NODES;
            let all_in_sync = |partitions: &[Value]| partitions.iter().all(|it| in_sync(it) == NODES);
            wait_until(cluster, asked, "in sync before the next restart", all_in_sync);
            cluster.stop(&[place]);
            goes_on(count, 50);
            cluster.start_again(&[place]);
        }
    });
    let all: usize = acknowledged.iter().map(Vec::len).sum();
    println!("figure: {all} records acknowledged by three nodes; a writer waited {} ms at most", longest.as_millis());
    assert_kept(cluster, &acknowledged);
}

#[test]
fn with_too_few_in_sync_replicas_all_is_refused_and_one_is_taken() {
    const NOT_ENOUGH_REPLICAS: i16 = 19;
    let home = tempfile::tempdir().expect("a directory");
    let mut cluster = cluster(home.path());
    cluster.say(0, &["config", "alter", "--topic", TOPIC, "--set", "min.insync.replicas=3"]);
    let leads = first_leader(&cluster, 0);
    let paused = (leads + 1) % NODES;
    cluster.pause(paused);
    wait_until(&cluster, leads, "without the paused node", |partitions| in_sync(&partitions[0]) == NODES - 1);
    let leads = first_leader(&cluster, leads);
    let mut client = Client::connect(cluster.address(leads)).expect("a connection");
    let mut produce = |acks| {
        let sent = batch(Producer::NONE, &[Bytes::from_static(b"a")]);
        let sent = client.send_produce(TOPIC, 0, acks, sent).expect("Produce");
        client.receive_produce(sent).expect("an answer").error_code
    };
    assert_eq!(produce(-1), NOT_ENOUGH_REPLICAS);
    assert_eq!(produce(1), 0, "the leader has it");
    cluster.resume(paused);
    wait_until(&cluster, leads, "in sync again", |partitions| in_sync(&partitions[0]) == NODES);
    assert_eq!(produce(-1), 0);
    cluster.stop(&[0, 1, 2]);
}

#[test]
fn a_partition_moves_to_other_nodes_with_all_that_it_holds() {
    let home = tempfile::tempdir().expect("a directory");
    let mut cluster = cluster(home.path());
    let replicas = |partition: &Value| -> Vec<i32> {
        partition["replicas"].as_array().into_iter().flatten().filter_map(|id| Some(id.as_i64()? as i32)).collect()
    };
    let mut writer_at = first_leader(&cluster, 0);
    for (round, target) in [[3].as_slice(), &[1, 2], &[2, 3, 1]].into_iter().enumerate() {
        let mut client = Client::connect(cluster.address(writer_at)).expect("a connection");
        for number in 0..100 {
            let sent = batch(Producer::NONE, &[Bytes::from(format!("{round}-{number}"))]);
            assert_eq!(client.produce(TOPIC, 0, sent).expect("Produce").error_code, 0);
        }
        let partition = ReassignablePartition::default()
            .with_partition_index(0)
            .with_replicas(Some(target.iter().map(|id| BrokerId(*id)).collect()));
        let topic = ReassignableTopic::default().with_name(topic_name(TOPIC)).with_partitions(vec![partition]);
        // min.insync.replicas=2 counts as the number of replicas where there are fewer.
        let request = AlterPartitionReassignmentsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic]);
        let response = client.call(1, &request).expect("AlterPartitionReassignments");
        assert_eq!((response.error_code, response.responses[0].partitions[0].error_code), (0, 0));
        let is_moved = |partitions: &[Value]| {
            replicas(&partitions[0]) == target
                && in_sync(&partitions[0]) == target.len()
                && leader(&partitions[0]).is_some()
        };
        wait_until(&cluster, round, "moved", is_moved);
        writer_at = first_leader(&cluster, round);
        assert!(target.contains(&(writer_at as i32 + 1)));
        let mut client = Client::connect(cluster.address(writer_at)).expect("a connection");
        let held = client.read_from(TOPIC, 0, 0).expect("Fetch").len();
        assert_eq!(held, 100 * (round + 1));
        let has_none = |place: usize| !cluster.setup(place).partition_dir(TOPIC, 0).exists();
        let begin = Instant::now();
        while !(0..NODES).filter(|place| !target.contains(&(*place as i32 + 1))).all(has_none) {
            assert!(begin.elapsed() < PATIENCE, "what has moved away is deleted");
            thread::sleep(Duration::from_millis(50));
        }
    }
    cluster.stop(&[0, 1, 2]);
}

#[test]
fn more_replicas_than_brokers_are_refused_with_a_reason() {
    let home = tempfile::tempdir().expect("a directory");
    let cluster = cluster(home.path());
    let said = cluster.tidelog(0, &["topic", "create", "wide", "--replication-factor", "4"]);
    assert!(!said.succeeded, "{said:?}");
    assert!(said.err.contains("only 3 broker(s) are registered"), "{said:?}");
}
