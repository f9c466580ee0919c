//! An operator of the quorum: it adds controllers to the voters and removes voters, as `kafka-metadata-quorum
//! add-controller` and `remove-controller` do (KIP-853). It makes one change at a time, and asks before each who the
//! voters are.
//!
//! A voter whose controller has another directory now goes first: its disk was lost, and it votes no more.

use super::session::{Answer, SessionEvent};
use super::sessions::{Host, Sessions};
use super::topics::topic_name;
use super::{Client, ClientInput, ClientOutbox, Setting};
use crate::cluster::{CONTROLLER_LISTENER, CONTROLLER_PORT, host_name};
use crate::history::Fact;
use crate::random::{Stream, stream};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_raft_voter_request::Listener;
use kafka_protocol::messages::describe_quorum_request::{PartitionData as AskedPartition, TopicData as AskedTopic};
use kafka_protocol::messages::describe_quorum_response::{PartitionData, ReplicaState};
use kafka_protocol::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, DescribeQuorumRequest, DescribeQuorumResponse, RemoveRaftVoterRequest,
    RemoveRaftVoterResponse,
};
use kafka_protocol::protocol::StrBytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrarPlan {
    /// How many changes it asks for.
    pub changes: u32,
    /// The longest pause between two requests.
    pub gap_ns_max: u64,
    /// It removes only voters whose disks are lost: while disks are lost, the voters that are left might have no
    /// majority otherwise.
    #[serde(default)]
    pub only_replaces: bool,
}

#[derive(Debug)]
pub struct Registrar {
    plan: RegistrarPlan,
    setting: Setting,
    sessions: Sessions,
    stream: Stream,
    asked: Option<(Host, Asked)>,
    changes: u32,
    requests: u64,
    next_at: u64,
    healed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    WhoVotes,
    Change(Change),
}

/// A change of the voters: this node, with this directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Add(i32, Uuid),
    Remove(i32, Uuid),
}

impl Change {
    /// The node, and whether it votes afterwards.
    fn node_and_votes(self) -> (u32, bool) {
        match self {
            Self::Add(node, _) => ((node - 1) as u32, true),
            Self::Remove(node, _) => ((node - 1) as u32, false),
        }
    }
}

const METADATA_TOPIC: &str = "__cluster_metadata";

/// DUPLICATE_VOTER, VOTER_NOT_FOUND: an earlier request without an answer was carried out.
const MADE_ALREADY: [i16; 2] = [126, 127];

impl Registrar {
    pub fn new(plan: RegistrarPlan, setting: Setting) -> Self {
        Self {
            sessions: Sessions::new(&setting),
            stream: stream(setting.seed, "registrar", &[setting.client.into()]),
            asked: None,
            changes: 0,
            requests: 0,
            next_at: 0,
            healed: false,
            plan,
            setting,
        }
    }

    fn works(&self) -> bool {
        !self.healed && self.changes < self.plan.changes
    }

    fn pump(&mut self, now: u64, out: &mut ClientOutbox) {
        if !self.works() || self.asked.is_some() || now < self.next_at {
            return;
        }
        let ready: Vec<Host> = self.sessions.ready().collect();
        if ready.is_empty() {
            return;
        }
        let host = *self.stream.pick(&ready);
        let topic = AskedTopic::default()
            .with_topic_name(topic_name(METADATA_TOPIC))
            .with_partitions(vec![AskedPartition::default().with_partition_index(0)]);
        let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
        self.requests += 1;
        // Older versions tell no directories.
        self.sessions.send_newest(now, host, &request, self.requests, out);
        self.asked = Some((host, Asked::WhoVotes));
    }

    fn handle_answer(&mut self, now: u64, answer: Answer, out: &mut ClientOutbox) {
        let (host, asked) = self.asked.take().expect("an answer belongs to a request");
        self.next_at = now + self.stream.skewed(self.plan.gap_ns_max);
        match asked {
            Asked::WhoVotes => {
                let Some(response) = answer.decode::<DescribeQuorumResponse>(out) else { return };
                let partition = response.topics.first().and_then(|topic| topic.partitions.first());
                let change = partition.filter(|it| it.error_code == 0).and_then(|it| self.draw_change(it));
                if let Some(change) = change.filter(|_| self.works()) {
                    self.ask_for(now, host, change, out);
                }
            }
            Asked::Change(change @ Change::Add(..)) => {
                let Some(response) = answer.decode::<AddRaftVoterResponse>(out) else { return };
                self.changed(change, response.error_code, response.error_message, out);
            }
            Asked::Change(change @ Change::Remove(..)) => {
                let Some(response) = answer.decode::<RemoveRaftVoterResponse>(out) else { return };
                self.changed(change, response.error_code, response.error_message, out);
            }
        }
    }

    fn draw_change(&mut self, quorum: &PartitionData) -> Option<Change> {
        let key = |state: &ReplicaState| (state.replica_id.0, state.replica_directory_id);
        let (voters, observers) = (&quorum.current_voters, &quorum.observers);
        let is_voter = |node: i32| voters.iter().any(|voter| voter.replica_id.0 == node);
        // The leader remembers for a while what a disk had that is lost: the one that goes on fetching has more.
        let has_other = |voter: &&ReplicaState| {
            let is_of_node = |it: &&ReplicaState| it.replica_id == voter.replica_id;
            observers.iter().filter(is_of_node).any(|it| it.log_end_offset > voter.log_end_offset)
        };
        let stale = voters.iter().find(has_other).map(key);
        if let Some((node, directory)) = stale {
            return Some(Change::Remove(node, directory));
        }
        let controllers = &self.setting.controllers;
        let others = observers.iter().map(key).filter(|(node, _)| !is_voter(*node) && controllers.contains(node));
        let adds = others.map(|(node, directory)| Change::Add(node, directory));
        let may_leave = |node: i32| !self.plan.only_replaces && self.setting.voters_may_leave(node);
        let leaves = |(node, _): &(i32, Uuid)| voters.len() > 1 && may_leave(*node);
        let removes = voters.iter().map(key).filter(leaves).map(|(node, directory)| Change::Remove(node, directory));
        let changes: Vec<Change> = adds.chain(removes).collect();
        (!changes.is_empty()).then(|| *self.stream.pick(&changes))
    }

    fn ask_for(&mut self, now: u64, host: Host, change: Change, out: &mut ClientOutbox) {
        self.changes += 1;
        self.requests += 1;
        let (node, votes) = change.node_and_votes();
        out.fact(Fact::VotersChanging { node, votes });
        match change {
            Change::Add(node, directory) => {
                let listener = Listener::default()
                    .with_name(StrBytes::from_static_str(CONTROLLER_LISTENER))
                    .with_host(StrBytes::from_string(host_name((node - 1) as u32)))
                    .with_port(CONTROLLER_PORT);
                let request = AddRaftVoterRequest::default()
                    .with_cluster_id(None)
                    .with_timeout_ms(5_000)
                    .with_voter_id(node)
                    .with_voter_directory_id(directory)
                    .with_listeners(vec![listener]);
                self.sessions.send(now, host, &request, self.requests, out);
            }
            Change::Remove(node, directory) => {
                let request = RemoveRaftVoterRequest::default()
                    .with_cluster_id(None)
                    .with_voter_id(node)
                    .with_voter_directory_id(directory);
                self.sessions.send(now, host, &request, self.requests, out);
            }
        }
        self.asked = Some((host, Asked::Change(change)));
    }

    fn changed(&mut self, change: Change, error: i16, text: Option<StrBytes>, out: &mut ClientOutbox) {
        let is_retriable = ResponseError::try_from_code(error).is_some_and(|error| error.is_retriable());
        if error != 0 && !is_retriable && !MADE_ALREADY.contains(&error) {
            let text = text.unwrap_or_default();
            return out.misbehaved(format!("{change:?} was answered with {error}: {text}"));
        }
        if error == 0 {
            let (node, votes) = change.node_and_votes();
            out.fact(Fact::VotersChanged { node, votes });
        }
    }
}

impl Client for Registrar {
    fn handle(&mut self, now: u64, input: ClientInput, out: &mut ClientOutbox) {
        self.healed |= matches!(input, ClientInput::Healed);
        for event in self.sessions.handle(now, input, out) {
            match event {
                SessionEvent::Response(answer) => self.handle_answer(now, answer, out),
                SessionEvent::Lost(host) => self.asked = self.asked.filter(|(asked, _)| *asked != host),
                SessionEvent::Ready | SessionEvent::Unreachable(_) => {}
            }
        }
        self.pump(now, out);
    }

    fn deadline(&self) -> Option<u64> {
        let next = (self.works() && self.asked.is_none() && self.sessions.any().is_some()).then_some(self.next_at);
        let sessions = if self.works() || self.asked.is_some() { self.sessions.deadline() } else { None };
        [sessions, next].into_iter().flatten().min()
    }

    fn pending(&self) -> Option<String> {
        None
    }

    fn role(&self) -> &'static str {
        "registrar"
    }
}
