//! A client that asks where partitions begin and end, and what lies at a time.

use super::session::{Answer, Session, SessionEvent};
use super::topics::{TOPICS_TAG, Topics, topic_name};
use super::{Client, ClientInput, ClientOutbox, Setting};
use crate::history::{Asked, Fact, PartitionKey};
use crate::random::{Stream, stream};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, ListOffsetsResponse};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListerPlan {
    /// The longest pause between two questions.
    pub gap_ns_max: u64,
}

#[derive(Debug)]
pub struct Lister {
    plan: ListerPlan,
    setting: Setting,
    session: Session,
    topics: Topics,
    stream: Stream,
    asked: Option<(PartitionKey, Asked)>,
    next_at: u64,
    questions: u64,
    finish: Finish,
}

/// At the end every partition is asked once more for its end.
#[derive(Debug, PartialEq, Eq)]
enum Finish {
    NotYet,
    Partition(usize),
    Done,
}

const RETRY_NS: u64 = 30_000_000;

impl Lister {
    pub fn new(plan: ListerPlan, setting: Setting) -> Self {
        Self {
            session: Session::new(&setting),
            topics: Topics::new(setting.topics.len()),
            stream: stream(setting.seed, "lister", &[setting.client.into()]),
            asked: None,
            next_at: 0,
            questions: 0,
            finish: Finish::NotYet,
            plan,
            setting,
        }
    }

    fn partitions(&self) -> Vec<PartitionKey> {
        let node = self.setting.node;
        let of_topic = |(topic, plan): (usize, &super::TopicPlan)| {
            (0..plan.partitions).map(move |index| PartitionKey { node, topic: topic as u16, index })
        };
        self.setting.topics.iter().enumerate().flat_map(of_topic).collect()
    }

    fn pump(&mut self, now: u64, out: &mut ClientOutbox) {
        if !self.session.is_ready() {
            return;
        }
        self.topics.pump(now, &self.setting, &mut self.session, out);
        if self.asked.is_some() || !self.topics.is_ready() || now < self.next_at || self.finish == Finish::Done {
            return;
        }
        let Some(version) = self.session.version::<ListOffsetsRequest>() else {
            return out.misbehaved("no version of ListOffsets is served".into());
        };
        let (key, asked) = self.question(now, version);
        let timestamp = match asked {
            Asked::Latest => -1,
            Asked::Earliest => -2,
            Asked::MaxTimestamp => -3,
            Asked::Timestamp(timestamp) => timestamp,
        };
        let partition = ListOffsetsPartition::default()
            .with_partition_index(key.index)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(&self.setting.topics[usize::from(key.topic)].name))
            .with_partitions(vec![partition]);
        let mut request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        if version >= 10 {
            request = request.with_timeout_ms(5_000);
        }
        self.questions += 1;
        self.asked = Some((key, asked));
        self.session.send(now, &request, self.questions, out);
    }

    fn question(&mut self, now: u64, version: i16) -> (PartitionKey, Asked) {
        let partitions = self.partitions();
        if let Finish::Partition(place) = self.finish {
            return (partitions[place], Asked::Latest);
        }
        let key = *self.stream.pick(&partitions);
        let asked = match self.stream.below(6) {
            0 => Asked::Earliest,
            1 | 2 => Asked::Latest,
            // KIP-734
            3 if version >= 7 => Asked::MaxTimestamp,
            _ => Asked::Timestamp(self.setting.wall(now) - self.stream.skewed(20_000) as i64),
        };
        (key, asked)
    }

    fn handle_answer(&mut self, now: u64, answer: Answer, out: &mut ClientOutbox) {
        if answer.tag == TOPICS_TAG {
            return self.topics.handle(now, &self.setting, answer, out);
        }
        let (key, asked) = self.asked.take().expect("an answer belongs to a question");
        self.next_at = now + self.stream.skewed(self.plan.gap_ns_max);
        let asked_at = answer.sent_at;
        let Some(response) = answer.decode::<ListOffsetsResponse>(out) else { return };
        let partition = response.topics.first().and_then(|topic| topic.partitions.first());
        let Some(partition) = partition.filter(|partition| partition.partition_index == key.index) else {
            return out.misbehaved(format!("a ListOffsets response says nothing of {key}"));
        };
        if partition.error_code != 0 {
            let known = ResponseError::try_from_code(partition.error_code);
            if !known.is_some_and(|error| error.is_retriable()) && partition.error_code != -1 {
                out.misbehaved(format!("ListOffsets of {key} was answered with {}", partition.error_code));
            }
            if partition.error_code == 3 {
                self.topics.forget(key.topic.into(), now);
            }
            self.next_at = now + RETRY_NS;
            return;
        }
        let (offset, timestamp) = (partition.offset, partition.timestamp);
        out.fact(Fact::Listed { partition: key, asked_at, asked, offset, timestamp });
        if let Finish::Partition(place) = self.finish
            && asked == Asked::Latest
            && self.partitions()[place] == key
        {
            let next = place + 1;
            self.finish = if next == self.partitions().len() { Finish::Done } else { Finish::Partition(next) };
            self.next_at = now;
        }
    }
}

impl Client for Lister {
    fn handle(&mut self, now: u64, input: ClientInput, out: &mut ClientOutbox) {
        if matches!(input, ClientInput::Finish) {
            self.finish = Finish::Partition(0);
            self.next_at = now;
        }
        match self.session.handle(now, input, out) {
            Some(SessionEvent::Response(answer)) => self.handle_answer(now, answer, out),
            Some(SessionEvent::Lost) => {
                self.topics.lost(now);
                self.asked = None;
            }
            Some(SessionEvent::Ready) | None => {}
        }
        self.pump(now, out);
    }

    fn deadline(&self) -> Option<u64> {
        if self.finish == Finish::Done {
            return None;
        }
        let can_ask = self.session.is_ready() && self.asked.is_none() && self.topics.is_ready();
        let topics = self.topics.deadline().filter(|_| self.session.is_ready());
        [self.session.deadline(), can_ask.then_some(self.next_at), topics].into_iter().flatten().min()
    }

    fn pending(&self) -> Option<String> {
        match self.finish {
            Finish::Partition(place) => Some(format!("asks for the end of {}", self.partitions()[place])),
            Finish::NotYet | Finish::Done => None,
        }
    }

    fn role(&self) -> &'static str {
        "lister"
    }
}
