//! KRaft: the metadata log `__cluster_metadata-0`, replicated among the controllers by a quorum of voters, and read by
//! every other node (KIP-595, KIP-630, KIP-853, KIP-996).
//!
//! ```text
//!  Quorum          the door: requests, answers, completions and ticks go in; answers, requests to peers, I/O and
//!                  events come out
//!    boot.rs          what the disk holds: quorum-state, snapshots, the log
//!    commands.rs      commands to the disk, beside those of the log
//!    appending.rs     the log: what is appended, and what of it is committed
//!    role.rs          what this node is in its epoch, and for whom it votes
//!    transitions.rs   from one role to the next
//!    polling.rs       what each role does when time passes
//!    voting.rs        Vote, BeginQuorumEpoch, EndQuorumEpoch
//!    fetching.rs      a leader serves its log, a follower reads it
//!    progress.rs      how far the replicas are: the high watermark
//!    voters.rs        the set of voters, by offset
//!    changes.rs       voters are added, removed and updated
//!    kraft_version.rs static voters become recorded ones
//!    snapshots.rs     taking, serving and fetching snapshots; trimming the log
//!    facts.rs         what can be asked of a quorum, and what is always true of it
//! ```
//!
//! **What is in the log is not committed.** A record is committed when a majority of the voters has it on stable
//! storage. Until then it waits in `uncommitted`, and a new leader may truncate it.
//!
//! **Nothing is told before it is durable.** While `quorum-state` is being written, or the log is being cut, the quorum
//! is *busy*: what comes in waits, and so does what was to go out. So every answer and every request to a peer rests on
//! an epoch and a vote that are on stable storage, as if the disk were written synchronously.
//!
//! Invariants: `committed` never falls, and is at most the end of the log or of a snapshot; a record of an epoch is only
//! written when `quorum-state` with that epoch is on stable storage; a leader never truncates its log.

#![forbid(unsafe_code)]

mod appending;
mod boot;
mod changes;
mod commands;
mod config;
mod describe;
mod election;
mod facts;
mod fetching;
mod kraft_version;
mod messages;
mod peers;
mod polling;
mod progress;
mod role;
mod snapshot;
mod snapshots;
mod state_file;
mod transitions;
mod voters;
mod voting;

pub use config::{Bootstrap, QuorumConfig, Timeouts};
pub use role::Role;
pub use snapshot::encode as encode_snapshot;
pub use state_file::QuorumState;
pub use voters::{Endpoints, KRAFT_VERSIONS, ReplicaKey, Voter, VoterSet, kraft_version_record};

use appending::Uncommitted;
use boot::Boot;
use bytes::Bytes;
use bytestring::ByteString;
use commands::Command;
use fetching::Fetch;
use peers::Peers;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use snapshots::Snapshots;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tidelog_storage::io::{Answer, Ask, IoCompletion, IoOp, IoOwner, Level, Outbox, Part, PeerId, PeerOwner};
use tidelog_storage::names;
use tidelog_storage::{Append, LoadHints, Log};
use tidelog_wire::ids::{LeaderEpoch, LogId, NodeId, Offset};
use tidelog_wire::time::{Mono, Now, WallMs};
use tidelog_wire::{Address, ErrorCode, MetadataRecord, RequestBody, ResponseBody};
use voters::VoterHistory;

const PART: Part = Part::Quorum;
/// The topic of the metadata log. It has one partition.
pub const TOPIC: &str = "__cluster_metadata";
/// The log id of the metadata log.
pub const LOG: LogId = LogId(0);

/// Identifies a request that the quorum answers. The caller chooses it, and uses none twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A request to the quorum: Vote, BeginQuorumEpoch, EndQuorumEpoch, Fetch of the metadata log, FetchSnapshot,
/// DescribeQuorum, AddRaftVoter, RemoveRaftVoter or UpdateRaftVoter.
#[derive(Debug)]
pub struct QuorumRequest {
    pub id: RequestId,
    pub version: i16,
    /// The name of the listener that the request came in on: answers name the leader's address for that listener.
    pub listener: ByteString,
    pub body: RequestBody,
}

/// What the quorum tells the broker.
#[derive(Debug)]
pub enum QuorumEvent {
    /// These records are committed. The last of them has the offset `end - 1`.
    Committed {
        end: Offset,
        records: Vec<MetadataRecord>,
    },
    /// The committed metadata up to `end` is what these records say, whatever was told before.
    SnapshotLoaded {
        end: Offset,
        records: Vec<MetadataRecord>,
    },
    /// This node leads in this epoch. All that earlier leaders have committed was told, and [`Quorum::propose`] may be
    /// called.
    Leading {
        epoch: LeaderEpoch,
        /// The records that the broker shall propose first, if the log holds no metadata record yet.
        bootstrap: Option<Vec<MetadataRecord>>,
    },
    /// This node does not lead any more. What it has proposed and was not told as committed may be committed yet, or be
    /// lost.
    Resigned,
    /// The leader of the quorum is another one, or not known any more.
    LeaderChanged {
        leader: Option<NodeId>,
        epoch: LeaderEpoch,
    },
    /// The answer to a request.
    Answer(RequestId, Box<ResponseBody>),
    /// A snapshot is due: the broker shall call [`Quorum::snapshot`] with the image of all committed records.
    SnapshotDue,
    /// The log is about to be cut. The broker shall write the recovery-point checkpoint, with
    /// [`Quorum::recovery_point`], and then call [`Quorum::recovery_point_lowered`].
    RecoveryPointTooHigh,
    Closed,
    /// The metadata cannot be read or written, for this reason. The broker must stop.
    Failed(String),
}

/// What the quorum waits for before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Busy {
    /// `quorum-state` is being written.
    SavingState,
    /// The checkpoint of the recovery point is being written. Then the log is truncated to this offset.
    LoweringRecoveryPoint(Offset),
    /// The log is being truncated to this offset.
    Truncating(Offset),
    /// A fetched snapshot is being written.
    SavingSnapshot,
    /// The log begins again behind a snapshot.
    Restarting,
}

/// An input that waits while the quorum is busy.
#[derive(Debug)]
enum Deferred {
    Request(QuorumRequest),
    Answer(Answer),
}

/// An output that waits until the quorum is not busy.
#[derive(Debug)]
enum Held {
    Ask(Box<Ask>),
    Answer(RequestId, Box<ResponseBody>),
    /// A file is closed or removed.
    Cleanup(IoOp),
}

#[derive(Debug)]
enum Phase {
    Created,
    Booting(Box<Boot>),
    Running,
    /// The broker stops. A leader first tells the other voters, until one of them leads, at most until this moment.
    Leaving(Mono),
    /// The log is being closed.
    Closing,
    Ended,
}

/// A replica of the metadata log.
#[derive(Debug)]
pub struct Quorum {
    config: QuorumConfig,
    phase: Phase,
    rng: ChaCha8Rng,
    /// What `quorum-state` says, or will say when it is written.
    state: QuorumState,
    /// Whether `state` differs from what was last given to the disk.
    state_is_new: bool,
    role: Role,
    voters: VoterHistory,
    log: Option<Log>,
    snapshots: Snapshots,
    /// One past the last record that the broker knows of.
    committed: Offset,
    /// The high watermark that a follower knows from its leaders.
    high_watermark: Option<Offset>,
    /// The records from `committed` to the end of the log.
    uncommitted: VecDeque<Uncommitted>,
    bootstrap: Bootstrap,
    /// Whether a metadata record is committed, beside the quorum's own control records.
    has_metadata: bool,
    /// The timestamp of the last batch in the log.
    last_append_at: WallMs,
    /// The timestamp of the last batch that was committed. The header of a snapshot carries it.
    committed_at: WallMs,
    peers: Peers,
    /// Fetches that wait for records or for the high watermark.
    waiting: Vec<Fetch>,
    /// Fetches that wait for the disk, by the token of their read.
    reading: BTreeMap<u64, Fetch>,
    next_read: u64,
    busy: Option<Busy>,
    deferred: VecDeque<Deferred>,
    held: Vec<Held>,
    /// The leader that the broker was last told of.
    told_leader: (Option<NodeId>, LeaderEpoch),
    next_seq: u64,
    commands: BTreeMap<u64, Command>,
    events: Vec<QuorumEvent>,
    /// The leader and epoch in which a peer was last not believed. It is told once.
    doubted: Option<(Option<NodeId>, LeaderEpoch)>,
    /// The peers that were of another cluster when they answered last.
    strangers: BTreeSet<peers::Peer>,
    /// Warnings for the operator, until there is an outbox for them.
    warnings: Vec<String>,
    /// The content of the fetched snapshot that is being written.
    fetched_snapshot: Option<Bytes>,
    failure: Option<String>,
}

impl Quorum {
    pub fn new(config: QuorumConfig, bootstrap: Bootstrap, seed: [u8; 32]) -> Self {
        Self {
            phase: Phase::Created,
            rng: ChaCha8Rng::from_seed(seed),
            state: QuorumState::NONE,
            state_is_new: false,
            role: Role::Unattached { until: None },
            voters: VoterHistory::new(config.voters.clone()),
            log: None,
            snapshots: Snapshots::default(),
            committed: Offset::ZERO,
            high_watermark: None,
            uncommitted: VecDeque::new(),
            bootstrap,
            has_metadata: false,
            last_append_at: WallMs(0),
            committed_at: WallMs(0),
            peers: Peers::new(config.timeouts.retry_backoff_ms),
            waiting: Vec::new(),
            reading: BTreeMap::new(),
            next_read: 0,
            busy: None,
            deferred: VecDeque::new(),
            held: Vec::new(),
            told_leader: (None, LeaderEpoch(0)),
            next_seq: 0,
            commands: BTreeMap::new(),
            events: Vec::new(),
            doubted: None,
            strangers: BTreeSet::new(),
            warnings: Vec::new(),
            fetched_snapshot: None,
            failure: None,
            config,
        }
    }

    // What comes in.

    /// Begins to read the directory of the metadata log. `hints`: what the checkpoints of the log directory say about
    /// it.
    pub fn boot(&mut self, hints: LoadHints, out: &mut Outbox) {
        assert!(matches!(self.phase, Phase::Created), "booted twice");
        self.begin_boot(hints, out);
    }

    /// Takes a request. Its answer comes as [`QuorumEvent::Answer`], now or later.
    pub fn handle_request(&mut self, now: Now, request: QuorumRequest, out: &mut Outbox) -> Vec<QuorumEvent> {
        self.deferred.push_back(Deferred::Request(request));
        self.settle(now, out)
    }

    /// Takes the answer to a request of [`PeerOwner::Quorum`].
    pub fn handle_answer(&mut self, now: Now, answer: Answer, out: &mut Outbox) -> Vec<QuorumEvent> {
        self.deferred.push_back(Deferred::Answer(answer));
        self.settle(now, out)
    }

    /// Takes the completion of a command of [`IoOwner::Quorum`] or of the metadata log.
    pub fn handle_io(&mut self, now: Now, completion: IoCompletion, out: &mut Outbox) -> Vec<QuorumEvent> {
        if matches!(self.phase, Phase::Ended) {
            return Vec::new();
        }
        let outcome = match completion.id.owner {
            IoOwner::Quorum => self.file_done(now, completion, out),
            _ => self.log_done(now, completion, out),
        };
        if let Err(reason) = outcome {
            self.fail(reason);
        }
        self.settle(now, out)
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now, out: &mut Outbox) -> Vec<QuorumEvent> {
        self.settle(now, out)
    }

    /// The checkpoint with the lower [`recovery_point`](Self::recovery_point) is on stable storage.
    pub fn recovery_point_lowered(&mut self, now: Now, out: &mut Outbox) -> Vec<QuorumEvent> {
        if let Some(Busy::LoweringRecoveryPoint(end)) = self.busy {
            self.busy = Some(Busy::Truncating(end));
            self.log_mut().truncate_to(end, out);
        }
        self.settle(now, out)
    }

    /// Gives up the leadership as soon as possible, so that another voter takes it over.
    pub fn resign(&mut self, now: Now, out: &mut Outbox) -> Vec<QuorumEvent> {
        if let Role::Leader(leader) = &mut self.role {
            leader.resigns = true;
        }
        self.settle(now, out)
    }

    /// Begins to close the log. A leader hands its leadership over first. [`QuorumEvent::Closed`] comes in the end.
    pub fn close(&mut self, now: Now, out: &mut Outbox) -> Vec<QuorumEvent> {
        assert!(matches!(self.phase, Phase::Running), "closed while {:?}", self.phase);
        self.phase = Phase::Leaving(now.mono.plus_ms(LEAVING_MS_MAX));
        self.settle(now, out)
    }

    // Inside.

    /// Does everything that can be done now.
    fn settle(&mut self, now: Now, out: &mut Outbox) -> Vec<QuorumEvent> {
        while self.failure.is_none() && self.is_running() {
            if self.state_is_new && self.busy.is_none() {
                self.save_state(out);
            }
            if self.busy.is_some() {
                break;
            }
            for held in std::mem::take(&mut self.held) {
                match held {
                    Held::Ask(ask) => out.ask(*ask),
                    Held::Answer(id, body) => self.events.push(QuorumEvent::Answer(id, body)),
                    Held::Cleanup(op) => self.submit(Command::Cleanup, op, out),
                }
            }
            match self.deferred.pop_front() {
                Some(Deferred::Request(request)) => self.request(now, request, out),
                Some(Deferred::Answer(answer)) => self.answer(now, answer, out),
                None if self.poll(now, out) => {}
                None if self.held.is_empty() && !self.state_is_new => break,
                None => {}
            }
        }
        for text in self.warnings.drain(..) {
            out.event(Level::Warn, PART, text);
        }
        if self.failure.is_none() && self.snapshot_due(now.mono) {
            self.events.push(QuorumEvent::SnapshotDue);
        }
        if matches!(self.phase, Phase::Closing | Phase::Ended) {
            self.answer_the_rest();
        }
        if let Some(reason) = self.failure.take() {
            self.phase = Phase::Ended;
            self.events.push(QuorumEvent::Failed(format!(
                "the metadata in {}/{} cannot be used: {reason}",
                self.config.dir_path,
                names::METADATA_PARTITION_DIR
            )));
        }
        std::mem::take(&mut self.events)
    }

    /// Answers everything that still waits when this node has left the quorum.
    fn answer_the_rest(&mut self) {
        let left = std::mem::take(&mut self.waiting).into_iter();
        let left: Vec<Fetch> = left.chain(std::mem::take(&mut self.reading).into_values()).collect();
        for fetch in left {
            let body = messages::fetch_error(self, &fetch, ErrorCode::NotLeaderOrFollower);
            self.reply(fetch.id, body);
        }
        self.refuse_snapshot_fetches();
        if let Role::Leader(leader) = &mut self.role
            && let Some((id, body)) = std::mem::take(&mut leader.changes).abandoned()
        {
            self.reply(id, body);
        }
        for deferred in std::mem::take(&mut self.deferred) {
            if let Deferred::Request(request) = deferred {
                let body = messages::refusal(&request.body, ErrorCode::NotLeaderOrFollower);
                self.reply(request.id, body);
            }
        }
        for held in std::mem::take(&mut self.held) {
            if let Held::Answer(id, body) = held {
                self.events.push(QuorumEvent::Answer(id, body));
            }
        }
    }

    fn request(&mut self, now: Now, request: QuorumRequest, out: &mut Outbox) {
        let QuorumRequest { id, version, listener, body } = request;
        match body {
            RequestBody::Vote(body) => self.handle_vote(now, id, &listener, body),
            RequestBody::BeginQuorumEpoch(body) => self.handle_begin_quorum_epoch(now, id, &listener, body),
            RequestBody::EndQuorumEpoch(body) => self.handle_end_quorum_epoch(now, id, &listener, body, out),
            RequestBody::Fetch(body) => self.handle_fetch(now, id, listener, body, out),
            RequestBody::FetchSnapshot(body) => self.handle_fetch_snapshot(now, id, listener, body, out),
            RequestBody::DescribeQuorum(body) => self.handle_describe(now, id, version, body),
            RequestBody::AddRaftVoter(body) => self.handle_add_voter(now, id, body),
            RequestBody::RemoveRaftVoter(body) => self.handle_remove_voter(now, id, body, out),
            RequestBody::UpdateRaftVoter(body) => self.handle_update_voter(now, id, &listener, body, out),
            other => panic!("the quorum serves no {:?}", other.api_key()),
        }
    }

    fn answer(&mut self, now: Now, answer: Answer, out: &mut Outbox) {
        let Some((peer, api_key)) = self.peers.take(answer.id.seq) else { return };
        let result = answer.result.map(|answered| answered.body);
        if let Ok(body) = &result {
            self.look_for_another_cluster(&peer, body, out);
        }
        let is_useful = match result {
            Ok(ResponseBody::Vote(body)) => self.handle_vote_answer(now, &peer, body),
            Ok(ResponseBody::BeginQuorumEpoch(body)) => self.handle_begin_quorum_epoch_answer(now, body),
            Ok(ResponseBody::EndQuorumEpoch(body)) => self.handle_end_quorum_epoch_answer(now, &peer, body),
            Ok(ResponseBody::Fetch(body)) => self.handle_fetch_answer(now, body, out),
            Ok(ResponseBody::FetchSnapshot(body)) => self.handle_fetch_snapshot_answer(now, body, out),
            Ok(ResponseBody::ApiVersions(body)) => self.handle_versions_of_new_voter(now, &peer, Some(body), out),
            Ok(ResponseBody::UpdateRaftVoter(body)) => self.handle_update_voter_answer(now, body),
            Ok(ResponseBody::AddRaftVoter(body)) => self.handle_join_answer(body.error_code),
            Ok(ResponseBody::RemoveRaftVoter(body)) => self.handle_join_answer(body.error_code),
            Ok(other) => panic!("a {:?} was answered with {:?}", api_key, other.api_key()),
            Err(error) => self.handle_no_answer(now, &peer, api_key, error, out),
        };
        if !is_useful {
            self.peers.failed(now.mono, peer);
        }
    }

    /// Tells the operator once of each peer that is of another cluster.
    fn look_for_another_cluster(&mut self, peer: &peers::Peer, body: &ResponseBody, out: &mut Outbox) {
        if messages::whole_error(body) != ErrorCode::InconsistentClusterId.code() {
            self.strangers.remove(peer);
        } else if self.strangers.insert(peer.clone()) {
            let text = format!(
                "{peer} is of another cluster than this node, whose cluster.id is {} (INCONSISTENT_CLUSTER_ID): either the \
                 directories of one of them were formatted with a wrong id, or the configured addresses are those of other \
                 controllers",
                self.config.cluster_id
            );
            out.event(Level::Warn, PART, text);
        }
    }

    /// Sends a request to a peer, when the quorum is not busy.
    fn ask(&mut self, peer: peers::Peer, to: Address, body: RequestBody, versions: std::ops::RangeInclusive<i16>) {
        let seq = self.peers.sent(peer, body.api_key());
        let id = PeerId { owner: PeerOwner::Quorum, seq };
        let timeout_ms = self.config.timeouts.request_ms;
        self.held.push(Held::Ask(Box::new(Ask { id, to, body, versions, timeout_ms })));
    }

    /// Answers a request, when the quorum is not busy.
    fn reply(&mut self, id: RequestId, body: impl Into<ResponseBody>) {
        self.held.push(Held::Answer(id, Box::new(body.into())));
    }

    fn fail(&mut self, reason: String) {
        self.failure.get_or_insert(reason);
    }
}

/// How long a leader that stops waits for another one.
const LEAVING_MS_MAX: i64 = 5_000;

#[cfg(test)]
mod tests;
