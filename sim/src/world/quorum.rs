//! What the world sees of the quorum on each node: how the node's replica of the metadata log stands, which batches it
//! knows as committed, what its `quorum-state` says, and what it tells others of its epoch and its vote. A node that is
//! alone has nobody to agree with: nothing of this is told of it.

use super::World;
use crate::history::{Fact, Replica, StoredBatch, Voter};
use crate::trace::Digest;
use bytes::Bytes;
use std::collections::BTreeMap;
use tidelog_core::batch::Scan;
use tidelog_core::broker::QuorumView;
use tidelog_core::ids::{ConnId, NodeId};
use tidelog_core::io::{IoCommand, IoOp, IoOwner, PeerRequest, Request, Response};
use tidelog_core::quorum::{self, QuorumState, ReplicaKey};
use tidelog_core::storage::names::{METADATA_PARTITION_DIR, QUORUM_STATE};
use tidelog_core::wire::{RequestBody, ResponseBody};

/// What was seen on one node.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// How the current process stood after its last step.
    view: Option<QuorumView>,
    /// The batches that any process has given to the disk for the metadata log, by their base offsets. One that is
    /// given takes the place of all from its offset on: the log was cut there before.
    pub(super) batches: BTreeMap<i64, StoredBatch>,
    pub(super) saved: Option<QuorumState>,
    /// Up to where the current process has been seen to have committed batches on its disk.
    committed_up_to: i64,
    /// Up to where the current process has been seen to know as committed who the voters are.
    voters_up_to: i64,
    /// The votes that others ask for and that are not answered yet: the epoch and the candidate.
    asked: BTreeMap<(ConnId, i32), (i32, u32)>,
    /// The heartbeats that are not answered yet: the broker, its epoch, and the offset that it has applied.
    heartbeats: BTreeMap<(ConnId, i32), (u32, i64, i64)>,
    /// The highest epoch that the node has told anybody.
    told_epoch: i32,
    /// When it was last told that the node leads on.
    leads_told_at: u64,
}

/// How often it is told that a node leads on.
const LEADS_ON_NS: u64 = 100_000_000;

/// Of the offsets up to which a node applies metadata, one in so many is looked at.
const IMAGES_AMONG: i64 = 16;

/// The node with this `node.id`.
fn node_of(id: i32) -> u32 {
    (id - 1) as u32
}

impl World {
    fn is_alone(&self) -> bool {
        self.nodes.len() == 1
    }

    /// The node, and which of its disks, that a voter's key names. A static voter is the node with any disk.
    pub(super) fn voter_of(&self, key: ReplicaKey) -> Voter {
        let node = &self.nodes[node_of(key.node.0) as usize];
        let disk = match key.directory {
            Some(directory) => node.disk_with(&self.scenario, directory).expect("it was the node's"),
            None => node.disks_lost,
        };
        Voter { node: node.index, disk }
    }

    /// The node's process has ended.
    pub(super) fn quorum_ended(&mut self, place: usize) {
        let seen = &mut self.seen[place];
        seen.view = None;
        seen.committed_up_to = 0;
        seen.voters_up_to = 0;
        seen.asked.clear();
        seen.heartbeats.clear();
    }

    /// The node has another disk.
    pub(super) fn disk_seen_lost(&mut self, place: usize) {
        self.seen[place] = Seen::default();
    }

    /// The node's broker has handled an input.
    pub(super) fn see_quorum(&mut self, place: usize) {
        if self.is_alone() {
            return;
        }
        let Some(process) = &self.nodes[place].process else { return };
        let Some(view) = process.broker.quorum() else { return };
        let seen = &mut self.seen[place];
        let before = seen.view.replace(view);
        if before != Some(view) {
            let has_applied = before.is_none_or(|before| before.committed != view.committed);
            self.tell_replica(place, view);
            if has_applied && (before.is_none() || view.committed.0 % IMAGES_AMONG == 0) {
                self.see_image(place);
            }
        }
        if view.leads && self.now >= self.seen[place].leads_told_at + LEADS_ON_NS {
            self.seen[place].leads_told_at = self.now;
            self.fact(None, Fact::LeadsOn { node: place as u32 });
        }
    }

    fn tell_replica(&mut self, place: usize, view: QuorumView) {
        let Some(process) = &self.nodes[place].process else { return };
        let seen = &mut self.seen[place];
        let committed = view.committed.0;
        // A node may know a batch as committed that it has not given to its disk yet, in the place of one that it has cut
        // off. What lies before the log's start may be another leader's: a snapshot took its place.
        let (first, end) = (seen.committed_up_to.max(view.log_start.0), committed.min(view.synced.0));
        let known = seen.batches.range(first..).map(|(_, batch)| *batch);
        let batches: Vec<StoredBatch> = known.take_while(|batch| batch.last_offset < end).collect();
        seen.committed_up_to = end.max(seen.committed_up_to);
        let voters_up_to = seen.voters_up_to;
        let of_epoch = seen.batches.values().rev().take_while(|batch| batch.leader_epoch == view.epoch.0);
        let epoch_start = of_epoch.last().map(|batch| batch.base_offset);
        let replica = Replica {
            leads: view.leads,
            epoch: view.epoch.0,
            leader: view.leader.map(|NodeId(id)| node_of(id)),
            committed,
            high_watermark: view.high_watermark.map(|offset| offset.0),
            synced: view.synced.0,
            log_end: view.log_end.0,
            voters: process.broker.voters().map(|key| self.voter_of(key)).collect(),
            epoch_start: epoch_start.filter(|_| view.leads),
            unfenced: process.broker.unfenced().map(|brokers| brokers.into_iter().map(|id| node_of(id.0)).collect()),
        };
        let recorded = process.broker.recorded_voters();
        let news = recorded.filter(|(offset, _)| (voters_up_to..committed).contains(&offset.0));
        let sets: Vec<(i64, Vec<Voter>)> =
            news.map(|(at, set)| (at.0, set.keys().map(|key| self.voter_of(key)).collect())).collect();
        self.seen[place].voters_up_to = committed.max(voters_up_to);
        let node = place as u32;
        self.fact(None, Fact::Replica { node, replica });
        for (offset, voters) in sets {
            self.fact(None, Fact::VotersCommitted { node, offset, voters });
        }
        if !batches.is_empty() {
            self.fact(None, Fact::Committed { node, batches });
        }
    }

    /// Tells what the node knows of the metadata.
    pub(super) fn see_image(&mut self, place: usize) {
        // A broker that gives up may have applied a part of what comes next.
        let Some(process) = self.nodes[place].process.as_ref().filter(|process| !process.gave_up) else { return };
        let (end, records) = process.broker.metadata();
        if end.0 == 0 {
            return;
        }
        let mut digest = Digest::default();
        for record in &records {
            digest.bytes(&record.encode(record.newest_version()));
        }
        self.count("images compared");
        self.fact(None, Fact::Image { node: place as u32, end: end.0, digest: digest.value() });
    }

    /// The node's broker gives a command to its disk.
    pub(super) fn see_metadata_write(&mut self, place: usize, command: &IoCommand) {
        let IoOp::Write { chunks, .. } = &command.op else { return };
        if command.id.owner != IoOwner::Log(quorum::LOG) || self.is_alone() {
            return;
        }
        let bytes: Bytes = chunks.concat().into();
        let log = &mut self.seen[place].batches;
        // What is written to an index has no valid checksum.
        for batch in Scan::new(&bytes, 0, true) {
            let base_offset = batch.header.base_offset.0;
            let mut digest = Digest::default();
            digest.bytes(batch.bytes);
            log.split_off(&base_offset);
            log.insert(
                base_offset,
                StoredBatch {
                    base_offset,
                    last_offset: batch.header.last_offset().0,
                    leader_epoch: batch.header.leader_epoch.0,
                    digest: digest.value(),
                },
            );
        }
    }

    /// A process starts, or a command of its quorum is done: `quorum-state` may have another content.
    pub(super) fn see_quorum_state(&mut self, place: usize) {
        if self.is_alone() {
            return;
        }
        let path = format!("{METADATA_PARTITION_DIR}/{QUORUM_STATE}");
        let Some(content) = self.nodes[place].disk.content_of(0, &path) else { return };
        let Ok(state) = QuorumState::decode(&content) else { return };
        if self.seen[place].saved.replace(state) != Some(state) {
            let voted = state.voted.map(|voted| node_of(voted.node.0));
            self.fact(None, Fact::StateSaved { node: place as u32, epoch: state.leader_epoch.0, voted });
        }
    }

    /// The node gets a request.
    pub(super) fn see_request(&mut self, place: usize, request: &Request) {
        if self.seen[place].view.is_some_and(|view| view.leads) {
            self.see_life(place as u32, &request.body);
        }
        if let RequestBody::BrokerHeartbeat(body) = &request.body {
            let key = (request.conn, request.header.correlation_id);
            let heartbeat = (node_of(body.broker_id), body.broker_epoch, body.current_metadata_offset);
            self.seen[place].heartbeats.insert(key, heartbeat);
        }
        let RequestBody::Vote(body) = &request.body else { return };
        let Some(asked) = body.topics.first().and_then(|topic| topic.partitions.first()) else { return };
        if !asked.pre_vote {
            let key = (request.conn, request.header.correlation_id);
            self.seen[place].asked.insert(key, (asked.replica_epoch, node_of(asked.replica_id)));
        }
    }

    /// A leader gets a request by which it knows that another node lives.
    fn see_life(&mut self, node: u32, request: &RequestBody) {
        let heard = |replica: i32| (replica > 0).then(|| Fact::Heard { node, replica: node_of(replica) });
        let fact = match request {
            RequestBody::Fetch(body) => heard(body.replica_id.max(body.replica_state.replica_id)),
            RequestBody::FetchSnapshot(body) => heard(body.replica_id),
            RequestBody::UpdateRaftVoter(body) => heard(body.voter_id),
            RequestBody::BrokerHeartbeat(body) => Some(Fact::Heartbeat { node, broker: node_of(body.broker_id) }),
            RequestBody::BrokerRegistration(body) => Some(Fact::Heartbeat { node, broker: node_of(body.broker_id) }),
            _ => None,
        };
        if let Some(fact) = fact {
            self.fact(None, fact);
        }
    }

    /// The node answers a request.
    pub(super) fn see_answer(&mut self, place: usize, conn: ConnId, response: &Response) {
        match &response.body {
            ResponseBody::Vote(body) => {
                let asked = self.seen[place].asked.remove(&(conn, response.correlation_id));
                let Some(told) = body.topics.first().and_then(|topic| topic.partitions.first()) else { return };
                if let Some((epoch, candidate)) = asked.filter(|_| told.vote_granted) {
                    self.fact(None, Fact::Voted { node: place as u32, epoch, candidate });
                }
                self.epoch_told(place, told.leader_epoch);
            }
            ResponseBody::BeginQuorumEpoch(body) => {
                let told = body.topics.first().and_then(|topic| topic.partitions.first());
                self.epoch_told(place, told.map_or(0, |told| told.leader_epoch));
            }
            ResponseBody::BrokerHeartbeat(body) => {
                let asked = self.seen[place].heartbeats.remove(&(conn, response.correlation_id));
                if let Some((broker, epoch, offset)) = asked.filter(|_| body.error_code == 0) {
                    self.fact(None, Fact::CaughtUp { broker, epoch, offset, told: body.is_caught_up });
                }
            }
            _ => {}
        }
    }

    /// The node asks another node.
    pub(super) fn see_question(&mut self, place: usize, request: &PeerRequest) {
        match &request.body {
            RequestBody::Vote(body) => {
                let Some(asked) = body.topics.first().and_then(|topic| topic.partitions.first()) else { return };
                if !asked.pre_vote {
                    // A candidate has voted for itself.
                    let (node, epoch) = (place as u32, asked.replica_epoch);
                    self.fact(None, Fact::Voted { node, epoch, candidate: node });
                }
                self.epoch_told(place, asked.replica_epoch);
            }
            RequestBody::BeginQuorumEpoch(body) => {
                let told = body.topics.first().and_then(|topic| topic.partitions.first());
                self.epoch_told(place, told.map_or(0, |told| told.leader_epoch));
            }
            _ => {}
        }
    }

    fn epoch_told(&mut self, place: usize, epoch: i32) {
        let told = &mut self.seen[place].told_epoch;
        if *told < epoch {
            *told = epoch;
            self.fact(None, Fact::EpochTold { node: place as u32, epoch });
        }
    }
}
