//! A client that asks for offsets: where partitions begin and end, which offset belongs to a time (ListOffsets), and
//! where leader epochs end (OffsetForLeaderEpoch).

use super::session::{Answer, Session, SessionEvent};
use super::topics::{TOPICS_TAG, Topics, topic_name};
use super::{Client, ClientInput, ClientOutbox, Setting};
use crate::history::{Asked, Fact, PartitionKey};
use crate::random::{Stream, stream};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{
    BrokerId, ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    asked: Option<(PartitionKey, Question)>,
    next_at: u64,
    questions: u64,
    finish: Finish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Offset(Asked),
    /// Where `epoch` ends. `current` is the leader's epoch that the client knows; -1 if it knows none.
    EpochEnd {
        epoch: i32,
        current: i32,
    },
}

/// Once the client was told to finish, it asks every partition for its end.
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
        if self.finish == Finish::NotYet && self.stream.one_in(12) {
            // A restart makes new leader epochs. They are asked for now and then.
            let topic = self.stream.below(self.setting.topics.len() as u64) as usize;
            return self.topics.forget(topic, now);
        }
        let Some(version) = self.session.version::<ListOffsetsRequest>() else {
            return out.misbehaved("no version of ListOffsets is served".into());
        };
        let (key, question) = self.question(now, version);
        self.questions += 1;
        self.asked = Some((key, question));
        match question {
            Question::Offset(asked) => self.ask_for_offset(now, key, asked, version, out),
            Question::EpochEnd { epoch, current } => self.ask_for_epoch_end(now, key, epoch, current, out),
        }
    }

    fn ask_for_offset(&mut self, now: u64, key: PartitionKey, asked: Asked, version: i16, out: &mut ClientOutbox) {
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
        self.session.send(now, &request, self.questions, out);
    }

    fn ask_for_epoch_end(&mut self, now: u64, key: PartitionKey, epoch: i32, current: i32, out: &mut ClientOutbox) {
        let fence = if self.stream.one_in(2) { current } else { -1 };
        let partition = OffsetForLeaderPartition::default()
            .with_partition(key.index)
            .with_current_leader_epoch(fence)
            .with_leader_epoch(epoch);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(topic_name(&self.setting.topics[usize::from(key.topic)].name))
            .with_partitions(vec![partition]);
        let mut request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
        if self.session.version::<OffsetForLeaderEpochRequest>().is_some_and(|version| version >= 3) {
            request = request.with_replica_id(BrokerId(-1));
        }
        self.session.send(now, &request, self.questions, out);
    }

    fn question(&mut self, now: u64, version: i16) -> (PartitionKey, Question) {
        let partitions = self.partitions();
        if let Finish::Partition(place) = self.finish {
            return (partitions[place], Question::Offset(Asked::Latest));
        }
        let key = *self.stream.pick(&partitions);
        if self.stream.one_in(4) {
            let current = self.topics.leader_epoch(key.topic.into(), key.index);
            let epoch = self.stream.below(current.max(0) as u64 + 2) as i32;
            return (key, Question::EpochEnd { epoch, current });
        }
        let asked = match self.stream.below(6) {
            0 => Asked::Earliest,
            1 | 2 => Asked::Latest,
            // KIP-734
            3 if version >= 7 => Asked::MaxTimestamp,
            _ => Asked::Timestamp(self.setting.wall(now) - self.stream.skewed(20_000) as i64),
        };
        (key, Question::Offset(asked))
    }

    fn handle_answer(&mut self, now: u64, answer: Answer, out: &mut ClientOutbox) {
        if answer.tag == TOPICS_TAG {
            return self.topics.handle(now, &self.setting, answer, out);
        }
        let (key, question) = self.asked.take().expect("an answer belongs to a question");
        self.next_at = now + self.stream.skewed(self.plan.gap_ns_max);
        let told = match question {
            Question::Offset(asked) => offset_told(key, asked, answer, out),
            Question::EpochEnd { epoch, current } => epoch_end_told(key, epoch, current, answer, out),
        };
        match told {
            Some(Ok(fact)) => out.fact(fact),
            Some(Err(error)) => return self.refused(now, key, question, error, out),
            None => return out.misbehaved(format!("the response to {question:?} says nothing of {key}")),
        }
        if let Finish::Partition(place) = self.finish
            && question == Question::Offset(Asked::Latest)
            && self.partitions()[place] == key
        {
            let next = place + 1;
            self.finish = if next == self.partitions().len() { Finish::Done } else { Finish::Partition(next) };
            self.next_at = now;
        }
    }

    fn refused(&mut self, now: u64, key: PartitionKey, question: Question, error: i16, out: &mut ClientOutbox) {
        let known = ResponseError::try_from_code(error);
        if !known.is_some_and(|error| error.is_retriable()) && error != -1 {
            out.misbehaved(format!("{question:?} of {key} was answered with {error}"));
        }
        // FENCED_LEADER_EPOCH: the broker has been restarted since its metadata was asked for.
        if [3, 74].contains(&error) {
            self.topics.forget(key.topic.into(), now);
        }
        self.next_at = now + RETRY_NS;
    }
}

/// The fact or the error in an answer; none if the answer does not mention the partition.
fn offset_told(key: PartitionKey, asked: Asked, answer: Answer, out: &mut ClientOutbox) -> Option<Result<Fact, i16>> {
    let asked_at = answer.sent_at;
    let response = answer.decode::<ListOffsetsResponse>(out)?;
    let partition = response.topics.first()?.partitions.first()?;
    if partition.partition_index != key.index {
        return None;
    }
    let (offset, timestamp) = (partition.offset, partition.timestamp);
    Some(match partition.error_code {
        0 => Ok(Fact::Listed { partition: key, asked_at, asked, offset, timestamp }),
        error => Err(error),
    })
}

fn epoch_end_told(
    key: PartitionKey,
    epoch: i32,
    current: i32,
    answer: Answer,
    out: &mut ClientOutbox,
) -> Option<Result<Fact, i16>> {
    let asked_at = answer.sent_at;
    let response = answer.decode::<OffsetForLeaderEpochResponse>(out)?;
    let partition = response.topics.first()?.partitions.first()?;
    if partition.partition != key.index {
        return None;
    }
    let (found, end) = (partition.leader_epoch, partition.end_offset);
    Some(match partition.error_code {
        0 => Ok(Fact::EpochEnd { partition: key, asked_at, epoch, current, found, end }),
        error => Err(error),
    })
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
