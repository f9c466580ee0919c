//! The door's part in replication: what the fetchers ask goes to the leaders, and what leaders find out about their
//! followers goes to the controller.

use super::{Broker, Phase, Timer};
use crate::api::{Asker, KnownBrokers, Unanswered};
use crate::config::BrokerConfig;
use crate::ids::{LeaderEpoch, LogId, NodeId};
use crate::io::{Answer, Ask, Level, Outbox, Part, PeerId, PeerOwner};
use crate::peers::fetchers_per_leader;
use crate::replication::{
    FetchSettings, FetcherAnswer, FetcherId, FetcherResult, IsrAnswer, IsrProposal, Partition, Taken,
};
use crate::time::Now;
use crate::wire::messages::AlterPartitionRequest;
use crate::wire::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use crate::wire::{Address, ErrorCode, RequestBody, ResponseBody};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

const PART: Part = Part::Replication;
/// Topics have ids in a Fetch, as they have in the metadata.
const FETCH_VERSIONS: RangeInclusive<i16> = 13..=17;
const LIST_OFFSETS_VERSIONS: RangeInclusive<i16> = 4..=9;

pub(super) fn fetch_settings(config: &BrokerConfig) -> FetchSettings {
    FetchSettings {
        node: config.node_id,
        fetchers_per_leader: fetchers_per_leader(&config.layers()),
        wait_ms: config.replica_fetch_wait_max_ms,
        min_bytes: config.replica_fetch_min_bytes,
        max_bytes: config.replica_fetch_response_max_bytes,
        partition_max_bytes: config.replica_fetch_max_bytes,
        backoff_ms: config.replica_fetch_backoff_ms.into(),
    }
}

/// The changes of ISRs that the controller is to be asked for. It is asked for all together, and not before it has
/// answered the last ones, as Kafka's `AlterPartitionManager` does.
#[derive(Debug, Default)]
pub(super) struct IsrChanges {
    /// Of each log the newest proposal.
    waiting: BTreeMap<LogId, IsrProposal>,
    /// What the controller is being asked for, with the leader epochs.
    asked: BTreeMap<LogId, (LeaderEpoch, IsrProposal)>,
}

impl IsrChanges {
    pub fn propose(&mut self, log: LogId, proposal: IsrProposal) {
        self.waiting.insert(log, proposal);
    }
}

impl Broker {
    /// Acts on what requests have made partitions tell.
    pub(super) fn partitions_told(&mut self, now: Now, out: &mut Outbox) {
        while !self.parts.told.is_empty() {
            for (log, event) in std::mem::take(&mut self.parts.told) {
                self.partition_events(now, log, vec![event], out);
            }
        }
    }

    // The follower.

    /// Asks the leaders whatever is to be asked now.
    pub(super) fn ask_leaders(&mut self, now: Now, out: &mut Outbox) {
        if self.fetchers.is_idle() || !self.phase.opens_logs() {
            return;
        }
        while let Some(question) = self.fetchers.next(now.mono, &self.parts.partitions, self.parts.broker_epoch) {
            let FetcherId { leader, number } = question.fetcher;
            let Some(to) = self.address_of_broker(leader) else {
                self.fetchers.failed(now.mono, question.fetcher, question.number);
                continue;
            };
            let versions = match &question.request {
                RequestBody::Fetch(_) => FETCH_VERSIONS,
                _ => LIST_OFFSETS_VERSIONS,
            };
            let id = PeerId { owner: PeerOwner::Fetchers(number), seq: question.number };
            let timeout_ms = self.parts.config.replica_socket_timeout_ms.into();
            self.leaders_asked.insert(question.number, question.fetcher);
            out.ask(Ask { id, to, body: question.request, versions, timeout_ms });
        }
        let deadline = self.fetchers.deadline();
        self.timers.set(Timer::Fetchers, deadline);
    }

    /// Spreads the partitions that are followed over as many fetchers as `num.replica.fetchers` says now.
    pub(super) fn resize_fetchers(&mut self) {
        let count = fetchers_per_leader(&self.parts.image.layers(&self.parts.config));
        if !self.fetchers.resize(count) {
            return;
        }
        self.peers.resize_fetchers(&self.parts.config, count);
        for log in self.parts.partitions.log_ids() {
            if let Some(partition) = self.parts.partitions.get(log) {
                self.fetchers.follow(log, partition);
            }
        }
    }

    /// Where brokers reach another one.
    fn address_of_broker(&self, node: NodeId) -> Option<Address> {
        let name = &*self.parts.config.inter_broker_listener_name;
        let endpoint = self.parts.image.broker(node)?.end_points.iter().find(|endpoint| *endpoint.name == *name)?;
        Some(Address { host: endpoint.host.clone(), port: endpoint.port })
    }

    /// A leader has answered a fetcher, or has not.
    pub(super) fn fetcher_answer(&mut self, now: Now, answer: Answer, out: &mut Outbox) {
        let number = answer.id.seq;
        let fetcher = self.leaders_asked.remove(&number).expect("a fetcher has asked this");
        match answer.result {
            Ok(answered) => {
                let answers = self.fetchers.answered(now.mono, fetcher, number, answered.body, answered.batches);
                for answer in answers {
                    self.leader_answered(now, answer, out);
                }
            }
            Err(_) => self.fetchers.failed(now.mono, fetcher, number),
        }
    }

    fn leader_answered(&mut self, now: Now, answer: FetcherAnswer, out: &mut Outbox) {
        let FetcherAnswer { log, position, result } = answer;
        if !self.phase.opens_logs() {
            return;
        }
        let Some(partition) = self.parts.partitions.get_mut(log) else { return };
        let mut events = Vec::new();
        let taken = match result {
            FetcherResult::Fetched(fetched) => partition.fetched(now, &position, fetched, out, &mut events),
            FetcherResult::OutOfRange { start, end } => {
                partition.out_of_range(&position, start, end, out, &mut events);
                Taken::Used
            }
            // Mostly the leader or this follower knows the newer metadata.
            FetcherResult::Refused(error) => {
                out.event(
                    Level::Debug,
                    PART,
                    format!("{}: node {} answers {error:?}", named(partition), position.leader),
                );
                self.fetchers.pause(now.mono, log);
                Taken::Used
            }
        };
        match taken {
            Taken::Used => self.fetchers.took(log, partition),
            Taken::Stale => {}
            Taken::Refused(reason) => {
                let text =
                    format!("{}: nothing is replicated from node {}: {reason}", named(partition), position.leader);
                out.event(Level::Error, PART, text);
                self.fetchers.pause(now.mono, log);
            }
        }
        let deadline = partition.log().deadline();
        self.timers.set(Timer::Log(log), deadline);
        self.partition_events(now, log, events, out);
    }

    // The leader.

    /// Followers that have not caught up for too long leave the ISR.
    pub(super) fn shrink_isrs(&mut self, now: Now, out: &mut Outbox) {
        for log in self.parts.partitions.log_ids() {
            let mut events = Vec::new();
            if let Some(partition) = self.parts.partitions.get_mut(log) {
                partition.shrink_isr(now, &mut events);
            }
            self.partition_events(now, log, events, out);
        }
    }

    /// Asks the controller for the changes of ISRs that were proposed.
    pub(super) fn propose_isr_changes(&mut self, now: Now) {
        let changes = &mut self.isr_changes;
        if changes.waiting.is_empty() || !changes.asked.is_empty() || !matches!(self.phase, Phase::Running) {
            return;
        }
        let mut topics: Vec<TopicData> = Vec::new();
        for (log, proposal) in std::mem::take(&mut changes.waiting) {
            let may_ask = |partition: &&Partition| partition.leads() && partition.log().is_open();
            let Some(partition) = self.parts.partitions.get(log).filter(may_ask) else { continue };
            let topic_id = partition.topic_id();
            let epochs = proposal.isr.iter();
            let asked = PartitionData {
                partition_index: partition.index(),
                leader_epoch: partition.leader_epoch().0,
                new_isr_with_epochs: epochs
                    .map(|(node, epoch)| BrokerState {
                        broker_id: node.0,
                        broker_epoch: if *node == self.parts.config.node_id { self.parts.broker_epoch } else { *epoch },
                        ..Default::default()
                    })
                    .collect(),
                partition_epoch: proposal.partition_epoch,
                ..Default::default()
            };
            match topics.iter_mut().find(|topic| topic.topic_id == topic_id) {
                Some(topic) => topic.partitions.push(asked),
                None => topics.push(TopicData { topic_id, partitions: vec![asked], ..Default::default() }),
            }
            changes.asked.insert(log, (partition.leader_epoch(), proposal));
        }
        if !topics.is_empty() {
            let (broker_id, broker_epoch) = (self.parts.config.node_id.0, self.parts.broker_epoch);
            let request = AlterPartitionRequest { broker_id, broker_epoch, topics, ..Default::default() };
            self.parts.channel.ask(now.mono, Asker::InSyncReplicas, request);
        }
    }

    pub(super) fn isr_changes_answered(
        &mut self,
        now: Now,
        result: Result<ResponseBody, Unanswered>,
        out: &mut Outbox,
    ) {
        let asked = std::mem::take(&mut self.isr_changes.asked);
        let body = match result {
            Ok(ResponseBody::AlterPartition(body)) if body.error_code == ErrorCode::None.code() => body,
            // It is asked again, with what is known then.
            _ => {
                for (log, (epoch, proposal)) in asked {
                    let leads = |partition: &&Partition| partition.leads() && partition.leader_epoch() == epoch;
                    if self.parts.partitions.get(log).filter(leads).is_some() {
                        self.isr_changes.waiting.entry(log).or_insert(proposal);
                    }
                }
                return;
            }
        };
        let mut answers = BTreeMap::new();
        for topic in body.topics {
            for told in topic.partitions {
                let answer = match ErrorCode::from_code(told.error_code) {
                    Some(ErrorCode::None) => Ok(IsrAnswer {
                        partition_epoch: told.partition_epoch,
                        isr: told.isr.iter().map(|id| NodeId(*id)).collect(),
                    }),
                    error => Err(error.unwrap_or(ErrorCode::UnknownServerError)),
                };
                answers.insert((topic.topic_id, told.partition_index), answer);
            }
        }
        for (log, (epoch, proposal)) in asked {
            let mut events = Vec::new();
            if let Some(partition) = self.parts.partitions.get_mut(log) {
                let answer = answers.remove(&(partition.topic_id(), partition.index()));
                let answer = answer.unwrap_or(Err(ErrorCode::UnknownServerError));
                let brokers = KnownBrokers(&self.parts.image);
                partition.isr_answered(now, epoch, &proposal, answer, &brokers, &mut events);
            }
            self.partition_events(now, log, events, out);
        }
    }
}

fn named(partition: &Partition) -> String {
    format!("{}-{}", partition.topic(), partition.index())
}
