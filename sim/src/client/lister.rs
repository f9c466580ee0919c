//! A client that asks for offsets: where partitions begin and end, which offset belongs to a time (ListOffsets), and
//! where leader epochs end (OffsetForLeaderEpoch).

use super::session::{Answer, SessionEvent};
use super::sessions::{Host, Sessions};
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
    sessions: Sessions,
    topics: Topics,
    stream: Stream,
    /// The question under way, and to whom.
    asked: Option<(Host, PartitionKey, Question)>,
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
            sessions: Sessions::new(&setting),
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
        let of_topic = |(topic, plan): (usize, &super::TopicPlan)| {
            (0..plan.partitions).map(move |index| PartitionKey { topic: topic as u16, index })
        };
        self.setting.topics.iter().enumerate().flat_map(of_topic).collect()
    }

    fn pump(&mut self, now: u64, out: &mut ClientOutbox) {
        if self.sessions.any().is_none() {
            return;
        }
        self.topics.pump(now, &self.setting, &mut self.sessions, out);
        if self.asked.is_some() || !self.topics.is_ready() || now < self.next_at || self.finish == Finish::Done {
            return;
        }
        if self.finish == Finish::NotYet && self.stream.one_in(12) {
            // A restart makes new leader epochs. They are asked for now and then.
            let topic = self.stream.below(self.setting.topics.len() as u64) as usize;
            return self.topics.forget(topic, now);
        }
        let key = self.partition();
        let Some(host) = self.topics.ready_leader(key, &self.sessions) else {
            self.next_at = now + RETRY_NS;
            return;
        };
        let Some(version) = self.sessions.version::<ListOffsetsRequest>(host) else {
            return out.misbehaved("no version of ListOffsets is served".into());
        };
        let question = self.question(now, key, version);
        self.questions += 1;
        self.asked = Some((host, key, question));
        match question {
            Question::Offset(asked) => self.ask_for_offset(now, host, key, asked, version, out),
            Question::EpochEnd { epoch, current } => self.ask_for_epoch_end(now, host, key, epoch, current, out),
        }
    }

    fn ask_for_offset(
        &mut self,
        now: u64,
        host: Host,
        key: PartitionKey,
        asked: Asked,
        version: i16,
        out: &mut ClientOutbox,
    ) {
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
        self.sessions.send(now, host, &request, self.questions, out);
    }

    fn ask_for_epoch_end(
        &mut self,
        now: u64,
        host: Host,
        key: PartitionKey,
        epoch: i32,
        current: i32,
        out: &mut ClientOutbox,
    ) {
        let fence = if self.stream.one_in(2) { current } else { -1 };
        let partition = OffsetForLeaderPartition::default()
            .with_partition(key.index)
            .with_current_leader_epoch(fence)
            .with_leader_epoch(epoch);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(topic_name(&self.setting.topics[usize::from(key.topic)].name))
            .with_partitions(vec![partition]);
        let mut request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
        if self.sessions.version::<OffsetForLeaderEpochRequest>(host).is_some_and(|version| version >= 3) {
            request = request.with_replica_id(BrokerId(-1));
        }
        self.sessions.send(now, host, &request, self.questions, out);
    }

    /// The partition to ask about next.
    fn partition(&mut self) -> PartitionKey {
        let partitions = self.partitions();
        match self.finish {
            Finish::Partition(place) => partitions[place],
            _ => *self.stream.pick(&partitions),
        }
    }

    fn question(&mut self, now: u64, key: PartitionKey, version: i16) -> Question {
        if let Finish::Partition(_) = self.finish {
            return Question::Offset(Asked::Latest);
        }
        if self.stream.one_in(4) {
            let current = self.topics.leader_epoch(key.topic.into(), key.index);
            let epoch = self.stream.below(current.max(0) as u64 + 2) as i32;
            return Question::EpochEnd { epoch, current };
        }
        let asked = match self.stream.below(6) {
            0 => Asked::Earliest,
            1 | 2 => Asked::Latest,
            // KIP-734
            3 if version >= 7 => Asked::MaxTimestamp,
            _ => Asked::Timestamp(self.setting.wall(now) - self.stream.skewed(20_000) as i64),
        };
        Question::Offset(asked)
    }

    fn handle_answer(&mut self, now: u64, answer: Answer, out: &mut ClientOutbox) {
        if answer.tag == TOPICS_TAG {
            return self.topics.handle(now, &self.setting, &mut self.sessions, answer, out);
        }
        let (_, key, question) = self.asked.take().expect("an answer belongs to a question");
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
        // NOT_LEADER_OR_FOLLOWER, FENCED_LEADER_EPOCH: somebody else leads it now, or the same broker in another epoch.
        if [3, 6, 74].contains(&error) {
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
        if self.finish == Finish::Done {
            return None;
        }
        let can_ask = self.sessions.any().is_some() && self.asked.is_none() && self.topics.is_ready();
        let topics = self.topics.deadline().filter(|_| self.sessions.any().is_some());
        [self.sessions.deadline(), can_ask.then_some(self.next_at), topics].into_iter().flatten().min()
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
