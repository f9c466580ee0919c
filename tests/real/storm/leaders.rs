//! Watches who leads the quorum: every node is asked all the time, past the network that fails.

use kafka_protocol::messages::DescribeQuorumRequest;
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidelog_tests::client::{Client, topic_name};

/// How long a node is not asked after it was.
const PAUSE: Duration = Duration::from_millis(10);
/// After this long the next answer is not waited for: the node is paused.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
const VERSION: i16 = 1;

/// The time in which one node led, as far as was seen.
#[derive(Clone, Copy, Debug)]
struct Reign {
    epoch: i32,
    leader: usize,
    first_seen: Instant,
    last_seen: Instant,
    /// When a fault took the leader from the others, however long it went on to say that it leads.
    lost: Option<Instant>,
}

/// What a leader says of the metadata log.
#[derive(Clone, Debug)]
pub struct Progress {
    pub leader: usize,
    pub high_watermark: i64,
    /// The ends of the voters' logs.
    pub ends: Vec<i64>,
}

#[derive(Debug)]
pub struct Leaders {
    reigns: Mutex<Vec<Reign>>,
    /// When each node has answered last, whatever it said.
    answered: Mutex<Vec<Option<Instant>>>,
}

impl Leaders {
    pub fn new(nodes: usize) -> Self {
        Self { reigns: Mutex::default(), answered: Mutex::new(vec![None; nodes]) }
    }

    /// Asks one node until `stop` is set.
    pub fn watch(&self, place: usize, controller: &str, stop: &AtomicBool) {
        let mut client = None;
        while !stop.load(Ordering::Relaxed) {
            match ask(&mut client, controller) {
                Ok(answer) => {
                    self.answered.lock().expect("the lock")[place] = Some(Instant::now());
                    if let Some((epoch, progress)) = answer {
                        self.seen(epoch, progress.leader);
                    }
                }
                Err(_) => client = None,
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn seen(&self, epoch: i32, leader: usize) {
        let mut reigns = self.reigns.lock().expect("the lock");
        let now = Instant::now();
        match reigns.iter_mut().find(|reign| reign.epoch == epoch) {
            Some(reign) => {
                assert_eq!(reign.leader, leader, "two nodes led in epoch {epoch}");
                reign.last_seen = now;
            }
            None => {
                reigns.push(Reign { epoch, leader, first_seen: now, last_seen: now, lost: None });
                reigns.sort_by_key(|reign| reign.epoch);
            }
        }
    }

    /// The node that led last, as far as was seen.
    pub fn leader(&self) -> Option<usize> {
        self.reigns.lock().expect("the lock").last().map(|reign| reign.leader)
    }

    /// A fault has just taken a node from the others: if that node leads, there is no leader from now on.
    pub fn lost(&self, node: usize) {
        if let Some(reign) = self.reigns.lock().expect("the lock").last_mut().filter(|reign| reign.leader == node) {
            reign.lost = Some(Instant::now());
        }
    }

    /// Whether a node has answered since `when`.
    pub fn has_answered(&self, node: usize, when: Instant) -> bool {
        self.answered.lock().expect("the lock")[node].is_some_and(|at| at > when)
    }

    /// How long there was no leader before each election.
    pub fn times_without(&self) -> Vec<Duration> {
        let reigns = self.reigns.lock().expect("the lock");
        reigns
            .windows(2)
            .map(|pair| {
                let ended = pair[0].lost.unwrap_or(pair[0].last_seen);
                pair[1].first_seen.saturating_duration_since(ended)
            })
            .collect()
    }
}

/// What a node says of the metadata log, with its epoch; `None` if it does not lead.
pub fn progress(controller: &str) -> io::Result<Option<(i32, Progress)>> {
    ask(&mut None, controller)
}

fn ask(client: &mut Option<Client>, controller: &str) -> io::Result<Option<(i32, Progress)>> {
    if client.is_none() {
        let mut new = Client::connect(controller)?;
        new.stream().set_read_timeout(Some(ANSWER_WITHIN))?;
        *client = Some(new);
    }
    let partition = PartitionData::default().with_partition_index(0);
    let topic = TopicData::default().with_topic_name(topic_name("__cluster_metadata")).with_partitions(vec![partition]);
    let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
    let response = client.as_mut().expect("a connection").call(VERSION, &request)?;
    let Some(partition) = response.topics.first().and_then(|topic| topic.partitions.first()) else { return Ok(None) };
    if response.error_code != 0 || partition.error_code != 0 {
        return Ok(None);
    }
    let leader = usize::try_from(partition.leader_id.0 - 1).expect("a node's id");
    let ends = partition.current_voters.iter().map(|voter| voter.log_end_offset).collect();
    Ok(Some((partition.leader_epoch, Progress { leader, high_watermark: partition.high_watermark, ends })))
}
