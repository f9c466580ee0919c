//! A client that deletes records from the start of partitions.

use super::session::{Answer, SessionEvent};
use super::sessions::{Host, Sessions};
use super::topics::{TOPICS_TAG, Topics, topic_name};
use super::{Client, ClientInput, ClientOutbox, Setting};
use crate::history::{Fact, PartitionKey};
use crate::random::{Stream, stream};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrimmerPlan {
    /// The longest pause between two requests.
    pub gap_ns_max: u64,
    /// A request moves the log's start by at most this many records.
    pub step_max: u32,
}

#[derive(Debug)]
pub struct Trimmer {
    plan: TrimmerPlan,
    setting: Setting,
    sessions: Sessions,
    topics: Topics,
    stream: Stream,
    /// Where each partition's log started when a request was last answered.
    starts: BTreeMap<PartitionKey, i64>,
    /// The request under way: to whom, about which partition, and up to which offset.
    asked: Option<(Host, PartitionKey, i64)>,
    next_at: u64,
    requests: u64,
    /// Everything was healed: nothing is deleted any more, so that readers can catch up.
    done: bool,
}

/// In DeleteRecords, stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;
const RETRY_NS: u64 = 30_000_000;

impl Trimmer {
    pub fn new(plan: TrimmerPlan, setting: Setting) -> Self {
        Self {
            sessions: Sessions::new(&setting),
            topics: Topics::new(setting.topics.len()),
            stream: stream(setting.seed, "trimmer", &[setting.client.into()]),
            starts: BTreeMap::new(),
            asked: None,
            next_at: 0,
            requests: 0,
            done: false,
            plan,
            setting,
        }
    }

    fn pump(&mut self, now: u64, out: &mut ClientOutbox) {
        if self.sessions.any().is_none() || self.done {
            return;
        }
        self.topics.pump(now, &self.setting, &mut self.sessions, out);
        if self.asked.is_some() || !self.topics.is_ready() || now < self.next_at {
            return;
        }
        let topic = self.stream.below(self.setting.topics.len() as u64) as usize;
        let plan = &self.setting.topics[topic];
        let index = self.stream.below(plan.partitions as u64) as i32;
        let partition = PartitionKey { topic: topic as u16, index };
        let Some(host) = self.topics.ready_leader(partition, &self.sessions) else {
            self.next_at = now + RETRY_NS;
            return;
        };
        let target = match self.stream.below(8) {
            0 => HIGH_WATERMARK,
            _ => self.starts.get(&partition).unwrap_or(&0) + self.stream.skewed(self.plan.step_max.into()) as i64,
        };
        let asked = DeleteRecordsPartition::default().with_partition_index(index).with_offset(target);
        let asked = DeleteRecordsTopic::default().with_name(topic_name(&plan.name)).with_partitions(vec![asked]);
        let request = DeleteRecordsRequest::default().with_topics(vec![asked]).with_timeout_ms(5_000);
        self.requests += 1;
        self.asked = Some((host, partition, target));
        out.fact(Fact::Trimming { partition, target });
        self.sessions.send(now, host, &request, self.requests, out);
    }

    fn handle_answer(&mut self, now: u64, answer: Answer, out: &mut ClientOutbox) {
        if answer.tag == TOPICS_TAG {
            return self.topics.handle(now, &self.setting, &mut self.sessions, answer, out);
        }
        let (_, partition, target) = self.asked.take().expect("an answer belongs to a request");
        self.next_at = now + self.stream.skewed(self.plan.gap_ns_max);
        let asked_at = answer.sent_at;
        let Some(response) = answer.decode::<DeleteRecordsResponse>(out) else { return };
        let result = response.topics.first().and_then(|topic| topic.partitions.first());
        let Some(result) = result.filter(|result| result.partition_index == partition.index) else {
            return out.misbehaved(format!("a DeleteRecords response says nothing of {partition}"));
        };
        match result.error_code {
            0 => {
                self.starts.insert(partition, result.low_watermark);
                out.fact(Fact::Trimmed { partition, asked_at, target, low_watermark: result.low_watermark });
            }
            // OFFSET_OUT_OF_RANGE: past the high watermark, or the log has been trimmed by somebody else.
            1 => drop(self.starts.remove(&partition)),
            error => {
                let known = ResponseError::try_from_code(error);
                if !known.is_some_and(|error| error.is_retriable()) && error != -1 {
                    out.misbehaved(format!("DeleteRecords of {partition} was answered with {error}"));
                }
                if [3, 6].contains(&error) {
                    self.topics.forget(partition.topic.into(), now);
                }
                self.next_at = now + RETRY_NS;
            }
        }
    }
}

impl Client for Trimmer {
    fn handle(&mut self, now: u64, input: ClientInput, out: &mut ClientOutbox) {
        self.done |= matches!(input, ClientInput::Healed);
        for event in self.sessions.handle(now, input, out) {
            match event {
                SessionEvent::Response(answer) => self.handle_answer(now, answer, out),
                SessionEvent::Lost(host) => {
                    self.topics.lost(host, now);
                    self.asked = self.asked.filter(|(asked, ..)| *asked != host);
                }
                SessionEvent::Ready | SessionEvent::Unreachable(_) => {}
            }
        }
        self.pump(now, out);
    }

    fn deadline(&self) -> Option<u64> {
        if self.done {
            // The request under way may still time out.
            return self.asked.and(self.sessions.deadline());
        }
        let can_ask = self.sessions.any().is_some() && self.asked.is_none() && self.topics.is_ready();
        let topics = self.topics.deadline().filter(|_| self.sessions.any().is_some());
        [self.sessions.deadline(), can_ask.then_some(self.next_at), topics].into_iter().flatten().min()
    }

    fn pending(&self) -> Option<String> {
        None
    }

    fn role(&self) -> &'static str {
        "trimmer"
    }
}
