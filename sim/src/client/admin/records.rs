//! Records in an administrator's own topics. A record must be there as long as its topic is, and no longer.

use super::{Admin, Finish, RETRY_NS, Request};
use crate::client::ClientOutbox;
use crate::client::records::{Codec, Unreadable};
use crate::client::session::Answer;
use crate::client::sessions::Host;
use crate::client::topics::topic_name;
use crate::history::{Fact, TopicId, ValueId};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ProduceRequest, ProduceResponse};

impl Admin {
    /// The node that leads a partition, or any node if it is not known who does, if requests can be sent to it now.
    fn ready_leader(&self, topic: usize, index: i32) -> Option<Host> {
        let leader = self.own[topic].leaders.get(&index).and_then(|leader| self.sessions.host_of(*leader));
        match leader {
            Some(leader) => Some(leader).filter(|leader| self.sessions.is_ready(*leader)),
            None => self.sessions.any(),
        }
    }

    /// Sends a batch to a partition. False if it is not certain to which topic or node it would go.
    pub(super) fn store(&mut self, now: u64, topic: usize, index: i32, out: &mut ClientOutbox) -> bool {
        let Some(to) = self.ready_leader(topic, index) else { return false };
        let Some(version) = self.sessions.version::<ProduceRequest>(to) else { return false };
        let own = &self.own[topic];
        let by_id = own.seen.and_then(|seen| seen.id).filter(|_| version >= 13);
        if version >= 13 && by_id.is_none() {
            return false;
        }
        let count = self.stream.between(1, 3) as u32;
        let values: Vec<ValueId> = (0..count).map(|n| ValueId::new(self.setting.client, self.values + n)).collect();
        self.values += count;
        let timestamps = vec![self.setting.wall(now); values.len()];
        let codec = *self.stream.pick(&Codec::ALL);
        for value in &values {
            let topic = own.name.clone();
            out.fact(Fact::Entrusted { topic, id: by_id, value: *value });
        }
        let batch = self.payloads.encode(&values, &timestamps, codec, None);
        let data = PartitionProduceData::default().with_index(index).with_records(Some(batch));
        let data = TopicProduceData::default().with_partition_data(vec![data]);
        let data = match by_id {
            Some(id) => data.with_topic_id(uuid::Uuid::from_bytes(id)),
            None => data.with_name(topic_name(&own.name)),
        };
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(5_000).with_topic_data(vec![data]);
        self.sessions.send(now, to, &request, self.requests, out);
        self.asked = Some((to, Request::Store { topic, by_id, index, values }));
        true
    }

    pub(super) fn stored(
        &mut self,
        topic: usize,
        by_id: Option<TopicId>,
        index: i32,
        values: &[ValueId],
        answer: Answer,
        out: &mut ClientOutbox,
    ) {
        let Some(response) = answer.decode::<ProduceResponse>(out) else { return };
        let partition = response.responses.first().and_then(|topic| topic.partition_responses.first());
        let name = &self.own[topic].name;
        let Some(error) = partition.map(|partition| partition.error_code) else {
            return out.misbehaved(format!("a Produce response says nothing of {name}-{index}"));
        };
        if error != 0 {
            if !is_retriable(error) {
                out.misbehaved(format!("Produce to {name}-{index} was answered with {error}"));
            }
        } else if let Some(id) = by_id.or(self.own[topic].id().filter(|_| !self.name_may_be_old())) {
            values.iter().for_each(|value| out.fact(Fact::Kept { value: *value, id, index }));
        }
    }

    /// Whether a broker may know another topic by a name: one that was deleted since. In the end all have caught up.
    fn name_may_be_old(&self) -> bool {
        self.setting.brokers_may_lag() && self.finish == Finish::NotYet
    }

    /// Reads a partition from its first offset. False if it is not certain which topic would be read,
    /// or from where.
    pub(super) fn read(&mut self, now: u64, topic: usize, index: i32, out: &mut ClientOutbox) -> bool {
        let Some(to) = self.ready_leader(topic, index) else { return false };
        let Some(version) = self.sessions.version::<FetchRequest>(to) else { return false };
        let own = &self.own[topic];
        let known = match version {
            13.. => own.seen.and_then(|seen| seen.id),
            _ => own.id().filter(|_| !self.name_may_be_old()),
        };
        let Some(id) = known else { return false };
        let partition = FetchPartition::default()
            .with_partition(index)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(0)
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(1_000_000);
        let asked = FetchTopic::default().with_partitions(vec![partition]);
        let asked = match version {
            13.. => asked.with_topic_id(uuid::Uuid::from_bytes(id)),
            _ => asked.with_topic(topic_name(&own.name)),
        };
        let mut request =
            FetchRequest::default().with_max_wait_ms(0).with_max_bytes(50_000_000).with_topics(vec![asked]);
        if version < 15 {
            request = request.with_replica_id(BrokerId(-1));
        }
        if version >= 7 {
            request = request.with_session_epoch(-1);
        }
        self.sessions.send(now, to, &request, self.requests, out);
        self.asked = Some((to, Request::Read { topic, id, index }));
        true
    }

    /// Tells what was read as a fact. False if the partition must be read again.
    pub(super) fn has_read(
        &mut self,
        now: u64,
        topic: usize,
        id: TopicId,
        index: i32,
        answer: Answer,
        out: &mut ClientOutbox,
    ) -> bool {
        let asked_at = answer.sent_at;
        let own = &self.own[topic];
        let place = format!("{}-{index}", own.name);
        let Some(mut response) = answer.decode::<FetchResponse>(out) else { return false };
        let partition = response.responses.first_mut().and_then(|topic| topic.partitions.first_mut());
        let (error, partition) = match partition {
            Some(partition) => (partition.error_code, partition),
            None => {
                if ![56, -1].contains(&response.error_code) {
                    out.misbehaved(format!("a Fetch response says nothing of {place}"));
                }
                self.next_at = now + RETRY_NS;
                return false;
            }
        };
        match error {
            0 => {}
            // OFFSET_OUT_OF_RANGE: retention has deleted the first records.
            1 if own.sheds => return true,
            error => {
                if !is_retriable(error) {
                    out.misbehaved(format!("Fetch of {place} was answered with {error}"));
                }
                if [3, 6, 100].contains(&error) && self.finish != Finish::NotYet {
                    // A change without an answer was made after the topic was looked at, or another node leads it now.
                    self.finish = Finish::Topics;
                }
                self.next_at = now + RETRY_NS;
                return false;
            }
        }
        let seen = match self.payloads.decode(partition.records.take().unwrap_or_default()) {
            Ok(seen) => seen,
            Err(Unreadable::Wrong(text)) => {
                out.misbehaved(format!("{place}: {text}"));
                return true;
            }
            // Bytes on the disk are damaged. The partition can be read once they are restored.
            Err(Unreadable::Damaged(_)) => {
                self.next_at = now + RETRY_NS;
                return false;
            }
        };
        let end = seen.last().map_or(0, |seen| seen.offset + 1);
        let fact = Fact::Found {
            topic: own.name.clone(),
            id,
            index,
            asked_at,
            values: seen.iter().map(|seen| seen.value).collect(),
            whole: !own.sheds && end == partition.high_watermark,
        };
        out.fact(fact);
        true
    }
}

fn is_retriable(error: i16) -> bool {
    error == -1 || ResponseError::try_from_code(error).is_some_and(|error| error.is_retriable())
}
