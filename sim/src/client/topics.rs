//! A client's knowledge of its topics, and of who leads their partitions: it asks by Metadata, and creates by
//! CreateTopics what does not exist yet.

use super::session::Answer;
use super::sessions::{Host, Sessions};
use super::{ClientOutbox, Setting};
use crate::history::{Fact, PartitionKey, TopicId};
use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, CreateTopicsResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::{Request, StrBytes};
use std::collections::BTreeMap;

/// The tag of the requests of [`Topics`], among those of its client.
pub const TOPICS_TAG: u64 = u64::MAX;

const RETRY_NS: u64 = 50_000_000;

#[derive(Debug)]
pub struct Topics {
    /// The ids that were last told, in the scenario's order of topics.
    known: Vec<Option<TopicId>>,
    /// For each topic, the leader epochs of its partitions, if Metadata tells them.
    epochs: Vec<BTreeMap<i32, i32>>,
    /// For each topic, the node ids of its partitions' leaders.
    leaders: Vec<BTreeMap<i32, i32>>,
    /// Grows whenever a leader is told.
    pub told_leaders: u64,
    /// For each topic, whether Metadata is to be asked about it, for the first time or again.
    unsure: Vec<bool>,
    /// The node that was asked and has not answered.
    asked: Option<Host>,
    create_next: bool,
    retry_at: u64,
}

impl Topics {
    pub fn new(topics: usize) -> Self {
        Self {
            known: vec![None; topics],
            epochs: vec![BTreeMap::new(); topics],
            leaders: vec![BTreeMap::new(); topics],
            told_leaders: 0,
            unsure: vec![true; topics],
            asked: None,
            create_next: false,
            retry_at: 0,
        }
    }

    pub fn is_ready(&self) -> bool {
        !self.unsure.contains(&true)
    }

    pub fn deadline(&self) -> Option<u64> {
        (!self.is_ready() && self.asked.is_none()).then_some(self.retry_at)
    }

    pub fn id(&self, topic: usize) -> Option<uuid::Uuid> {
        self.known[topic].map(uuid::Uuid::from_bytes)
    }

    pub fn place_of_id(&self, id: uuid::Uuid) -> Option<usize> {
        self.known.iter().position(|known| *known == Some(*id.as_bytes()))
    }

    /// The leader epoch of a partition when it was last told; -1 where it never was.
    pub fn leader_epoch(&self, topic: usize, index: i32) -> i32 {
        self.epochs[topic].get(&index).copied().unwrap_or(-1)
    }

    /// The node that leads a partition, if that is known.
    pub fn leader(&self, partition: PartitionKey, sessions: &Sessions) -> Option<Host> {
        sessions.host_of(*self.leaders[usize::from(partition.topic)].get(&partition.index)?)
    }

    /// The node that leads a partition, if requests can be sent to it now.
    pub fn ready_leader(&self, partition: PartitionKey, sessions: &Sessions) -> Option<Host> {
        self.leader(partition, sessions).filter(|host| sessions.is_ready(*host))
    }

    /// An answer of `node` to a question of `asked_at` says who leads a partition and in which epoch, because the client knows it wrongly (KIP-951).
    /// `endpoints`: the brokers whose addresses the answer gives. Where there is no leader, as far as the broker knows,
    /// Metadata is asked, as Kafka's clients do.
    pub fn told_leader(
        &mut self,
        partition: PartitionKey,
        (node, asked_at): (u32, u64),
        (leader, epoch): (BrokerId, i32),
        endpoints: &[BrokerId],
        out: &mut ClientOutbox,
    ) {
        let topic = usize::from(partition.topic);
        if leader.0 < 0 {
            self.unsure[topic] = true;
            if epoch >= 0 {
                out.fact(Fact::LeaderEpoch { partition, node, asked_at, epoch });
            }
            return;
        }
        if epoch < 0 || !endpoints.contains(&leader) {
            let text = format!("a refusal for {partition} names the leader {} of epoch {epoch}", leader.0);
            return out.misbehaved(text);
        }
        out.fact(Fact::LeaderEpoch { partition, node, asked_at, epoch });
        let known = self.epochs[topic].entry(partition.index).or_insert(epoch);
        if epoch >= *known {
            *known = epoch;
            self.told_leaders += 1;
            self.leaders[topic].insert(partition.index, leader.0);
        }
    }

    /// The topic may have changed: it is to be asked about again.
    pub fn forget(&mut self, topic: usize, now: u64) {
        self.unsure[topic] = true;
        self.retry_at = now + RETRY_NS;
    }

    /// The connection to a node was lost.
    pub fn lost(&mut self, host: Host, now: u64) {
        if self.asked.is_none_or(|asked| asked == host) {
            self.asked = None;
            self.create_next = false;
            self.retry_at = now;
        }
    }

    /// Asks about the next topic that is to be asked about, if it is time.
    pub fn pump(&mut self, now: u64, setting: &Setting, sessions: &mut Sessions, out: &mut ClientOutbox) {
        if self.asked.is_some() || now < self.retry_at {
            return;
        }
        // While a leader cannot be reached, another replica may come to lead.
        for (place, _) in setting.topics.iter().enumerate().filter(|(_, plan)| plan.replicas > 1) {
            let is_reached = |leader: &i32| sessions.host_of(*leader).is_some_and(|host| sessions.is_ready(host));
            self.unsure[place] |= !self.leaders[place].values().all(is_reached);
        }
        let Some(topic) = self.unsure.iter().position(|unsure| *unsure) else { return };
        let Some(host) = sessions.any() else { return };
        self.asked = Some(host);
        let plan = &setting.topics[topic];
        let name = TopicName(StrBytes::from_string(plan.name.clone()));
        if std::mem::take(&mut self.create_next) {
            let config = |(name, value): (&String, &String)| {
                CreatableTopicConfig::default()
                    .with_name(StrBytes::from_string(name.clone()))
                    .with_value(Some(StrBytes::from_string(value.clone())))
            };
            let topic = CreatableTopic::default()
                .with_name(name)
                .with_num_partitions(plan.partitions)
                .with_replication_factor(plan.replicas)
                .with_configs(plan.configs.iter().map(config).collect());
            let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
            sessions.send(now, host, &request, TOPICS_TAG, out);
        } else {
            let topic = MetadataRequestTopic::default().with_name(Some(name));
            let request = MetadataRequest::default()
                .with_topics(Some(vec![topic]))
                .with_allow_auto_topic_creation(plan.auto_created);
            sessions.send(now, host, &request, TOPICS_TAG, out);
        }
    }

    pub fn handle(
        &mut self,
        now: u64,
        setting: &Setting,
        sessions: &mut Sessions,
        answer: Answer,
        out: &mut ClientOutbox,
    ) {
        self.asked = None;
        self.retry_at = now + RETRY_NS;
        if answer.key == CreateTopicsRequest::KEY {
            let Some(response) = answer.decode::<CreateTopicsResponse>(out) else { return };
            self.retry_at = now;
            for topic in response.topics {
                // 36: somebody else has created it. 7, 41, 56, -1: the topic may have been created or not; Metadata
                // will tell. 38: too few brokers are registered, or all are fenced or stop.
                if ![0, 36, 7, 38, 41, 56, -1].contains(&topic.error_code) {
                    let text = topic.error_message.unwrap_or_default();
                    out.misbehaved(format!("CreateTopics was answered with {}: {text}", topic.error_code));
                }
            }
            return;
        }
        // KIP-320
        let (tells_epochs, node, asked_at) = (answer.version >= 7, sessions.node(answer.host), answer.sent_at);
        let Some(response) = answer.decode::<MetadataResponse>(out) else { return };
        if let Some(id) = &response.cluster_id {
            out.fact(Fact::Cluster { id: id.to_string() });
        }
        sessions.learn(&response.brokers);
        self.told_leaders += 1;
        for topic in response.topics {
            let name = topic.name.clone().unwrap_or_default();
            let Some(place) = setting.topics.iter().position(|plan| plan.name == name.0.as_str()) else {
                out.misbehaved(format!("Metadata tells of {name:?}, which nobody asked for"));
                continue;
            };
            let plan = &setting.topics[place];
            match topic.error_code {
                0 if topic.partitions.len() == plan.partitions as usize => {
                    for partition in &topic.partitions {
                        let leader = partition.leader_id.0;
                        self.leaders[place].insert(partition.partition_index, leader);
                        sessions.host_of(leader).inspect(|host| sessions.want(now, *host));
                    }
                    for partition in topic.partitions.iter().filter(|_| tells_epochs) {
                        let (index, epoch) = (partition.partition_index, partition.leader_epoch);
                        self.epochs[place].insert(index, epoch);
                        let partition = PartitionKey { topic: place as u16, index };
                        out.fact(Fact::LeaderEpoch { partition, node, asked_at, epoch });
                    }
                    let leaderless = topic.partitions.iter().any(|partition| partition.error_code != 0);
                    if !leaderless {
                        self.learn(place, *topic.topic_id.as_bytes(), out);
                    }
                }
                0 => {
                    let (has, wants) = (topic.partitions.len(), plan.partitions);
                    out.misbehaved(format!("{} has {has} partitions, not {wants}", plan.name));
                }
                3 if !plan.auto_created => {
                    self.create_next = true;
                    self.retry_at = now;
                }
                // 3, 5: being created. 7, 41, 56: the metadata log is slow or its disk has failed.
                3 | 5 | 7 | 41 | 56 | -1 => {}
                error => out.misbehaved(format!("Metadata says {error} for {}", plan.name)),
            }
        }
        // A leader that is none of the brokers any more was fenced, and its partitions have changed their leader since
        // they were told, or will: as Kafka's clients do without a leader, ask again until there is one.
        for (leaders, unsure) in self.leaders.iter().zip(&mut self.unsure) {
            *unsure |= leaders.values().any(|leader| sessions.host_of(*leader).is_none());
        }
    }

    fn learn(&mut self, place: usize, id: TopicId, out: &mut ClientOutbox) {
        // Before version 10 Metadata tells no id. A client with such a version sends no request with ids.
        if id != [0; 16] {
            out.fact(Fact::Topic { topic: place as u16, id });
        }
        self.known[place] = Some(id);
        self.unsure[place] = false;
    }
}

/// A topic's name in the type of `kafka-protocol`.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_utf8(Bytes::copy_from_slice(name.as_bytes())).expect("a name is text"))
}
