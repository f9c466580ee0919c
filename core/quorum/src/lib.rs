//! KRaft: the metadata log `__cluster_metadata-0`, replicated among the controllers by a quorum of voters, and read by
//! every other node (KIP-595, KIP-630, KIP-853, KIP-996).
//!
//! ```text
//!  Quorum          the door: requests, answers, completions and ticks go in; answers, requests to peers, I/O and
//!                  events come out
//!    boot.rs          what the disk holds: quorum-state, snapshots, the log
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

mod boot;
mod changes;
mod describe;
mod election;
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

pub use role::Role;
pub use snapshot::encode as encode_snapshot;
pub use state_file::QuorumState;
pub use voters::{Endpoints, KRAFT_VERSIONS, ReplicaKey, Voter, VoterSet, kraft_version_record};

use boot::Boot;
use bytes::Bytes;
use bytestring::ByteString;
use fetching::Fetch;
use peers::Peers;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use snapshot::BATCH_BYTES_MAX;
use snapshots::{SnapshotId, Snapshots};
use std::collections::{BTreeMap, VecDeque};
use tidelog_batch::{BatchHeader, ControlRecord};
use tidelog_config::plant::{Plant, Plants};
use tidelog_storage::io::{
    Answer, Ask, DiskPath, IoCompletion, IoErrorKind, IoId, IoOp, IoOwner, Level, Outbox, PeerId, PeerOwner,
};
use tidelog_storage::names;
use tidelog_storage::{Append, AppendError, LoadHints, Log, LogEvent, LogSettings};
use tidelog_wire::ids::{LeaderEpoch, LogDirId, LogId, NodeId, Offset};
use tidelog_wire::time::{Mono, Now, WallMs};
use tidelog_wire::{Address, ErrorCode, MetadataRecord, RequestBody, ResponseBody};
use voters::VoterHistory;

const PART: &str = "quorum";
/// The topic of the metadata log. It has one partition.
pub const TOPIC: &str = "__cluster_metadata";
/// The log id of the metadata log.
pub const LOG: LogId = LogId(0);

/// The configuration of the quorum on this node.
#[derive(Clone, Debug)]
pub struct QuorumConfig {
    pub me: ReplicaKey,
    pub cluster_id: ByteString,
    /// Whether this node is a controller, which may be a voter.
    pub is_controller: bool,
    /// Where this node's controller listens, by the name of each controller listener.
    pub endpoints: Endpoints,
    /// The listener at which this node reaches other controllers: the first of `controller.listener.names`.
    pub listener: ByteString,
    /// `controller.quorum.voters`; this node alone where neither voters nor bootstrap servers are configured.
    pub voters: VoterSet,
    /// Whether this node forms a quorum of its own if its directory is empty.
    pub forms_itself: bool,
    /// `controller.quorum.bootstrap.servers`
    pub bootstrap_servers: Vec<Address>,
    pub timeouts: Timeouts,
    /// `controller.quorum.fetch.max.bytes`
    pub fetch_bytes_max: i32,
    /// `controller.quorum.fetch.snapshot.max.bytes`
    pub fetch_snapshot_bytes_max: i32,
    /// `controller.quorum.auto.join.enable`
    pub joins_by_itself: bool,
    /// The log directory of the metadata log.
    pub dir: LogDirId,
    /// The path of `dir`, for messages.
    pub dir_path: String,
    pub log: LogSettings,
    pub plants: Plants,
    /// `metadata.log.max.record.bytes.between.snapshots`
    pub snapshot_bytes: u64,
    /// `metadata.log.max.snapshot.interval.ms`; 0: no snapshot because of time alone.
    pub snapshot_interval_ms: i64,
}

/// The `controller.quorum.*.ms` of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub election_ms: i64,
    pub election_backoff_ms_max: i64,
    pub fetch_ms: i64,
    pub request_ms: i64,
    pub retry_backoff_ms: i64,
}

impl Default for Timeouts {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            election_ms: 1_000,
            election_backoff_ms_max: 1_000,
            fetch_ms: 2_000,
            request_ms: 2_000,
            retry_backoff_ms: 20,
        }
    }
}

/// The records with which a new cluster begins, whose metadata log is empty.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    pub records: Vec<MetadataRecord>,
    /// `records` in their encoded form.
    pub values: Vec<Bytes>,
}

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

/// What a disk command of [`IoOwner::Quorum`] is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Command {
    /// A step of the boot.
    Boot,
    SaveState,
    WriteSnapshot(SnapshotId),
    SaveDownload(SnapshotId),
    OpenSnapshot(SnapshotId),
    /// Its failure does no harm: a file that is not needed any more is closed or removed.
    Cleanup,
}

/// Records that are in the log and not committed.
#[derive(Debug)]
struct Uncommitted {
    /// One past the last of them.
    end: Offset,
    /// Empty for control records.
    records: Vec<MetadataRecord>,
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
    /// The timestamp of the last metadata records in the log. The header of a snapshot carries it.
    last_append_at: WallMs,
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

    /// Appends the records of one decision and returns the offset of the last. `values` are the records in their
    /// encoded form. The records are committed together. But if they do not [fit one batch](Self::fits_one_batch) and
    /// are not part of a metadata transaction, a crash may leave only the first of them in the log.
    ///
    /// Error: the log cannot take them, for this reason. The quorum has failed, and says so with its next events.
    pub fn propose(
        &mut self,
        now: Now,
        records: Vec<MetadataRecord>,
        values: &[Bytes],
        out: &mut Outbox,
    ) -> Result<Offset, String> {
        assert!(self.is_leading(), "a proposal while {}", self.role.name());
        assert!(!records.is_empty() && records.len() == values.len(), "a proposal has a value for each of its records");
        let (base, epoch) = (self.log_end(), self.epoch());
        let mut records = records.into_iter();
        for bytes in snapshot::batches(base, epoch, now.wall, values, batch_bytes_max(&self.config.log)) {
            let start = self.log_end();
            if let Err(reason) = self.append(now, Append::Own(&bytes), out) {
                self.fail(reason.clone());
                return Err(reason);
            }
            let end = self.log_end();
            // Each batch may be truncated, or be committed, without those behind it.
            let records = records.by_ref().take((end - start) as usize).collect();
            self.uncommitted.push_back(Uncommitted { end, records });
        }
        assert!(records.next().is_none(), "each record is in a batch");
        Ok(self.log_end() + -1)
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

    // What can be asked.

    /// The epoch that this node knows.
    pub fn epoch(&self) -> LeaderEpoch {
        self.state.leader_epoch
    }

    /// The leader of that epoch, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.state.leader
    }

    /// Where the leader listens for controllers' peers.
    pub fn leader_endpoints(&self) -> Endpoints {
        match &self.role {
            Role::Leader(_) | Role::Resigned(_) => self.config.endpoints.clone(),
            Role::Follower(follower) => follower.leader_endpoints.clone(),
            Role::Prospective(nominee) => nominee.leader_endpoints.clone(),
            Role::Unattached { .. } | Role::Candidate(_) => Endpoints::default(),
        }
    }

    /// What this node is in the quorum, as Kafka's metric `current-state` names it.
    pub fn current_state(&self) -> &'static str {
        match (&self.role, self.state.voted.is_some()) {
            (Role::Leader(_), _) => "leader",
            (Role::Candidate(_), _) => "candidate",
            (Role::Prospective(_), true) => "prospective-voted",
            (Role::Prospective(_), false) => "prospective",
            (Role::Follower(_), _) if self.voters.latest().has(self.config.me) => "follower",
            (Role::Follower(_), _) => "observer",
            (Role::Unattached { .. }, true) => "unattached-voted",
            (Role::Unattached { .. } | Role::Resigned(_), _) => "unattached",
        }
    }

    /// For whom this node has voted in its epoch; a leader and a candidate, for themselves.
    pub fn vote(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(_) | Role::Candidate(_) => Some(self.config.me.node),
            _ => self.state.voted.map(|voted| voted.node),
        }
    }

    /// How many observers this leader knows of; `None` if it does not lead.
    pub fn observers(&self) -> Option<usize> {
        match &self.role {
            Role::Leader(leader) => Some(leader.progress.observers().count()),
            _ => None,
        }
    }

    pub fn role(&self) -> &Role {
        &self.role
    }

    /// Whether this node leads, and the broker was told so.
    pub fn is_leading(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.is_told)
    }

    /// Whether another node than this leader has the log, as a voter or as an observer of which was heard lately.
    pub fn is_replicated(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.progress.has_others())
    }

    /// Whether what the disk holds is read.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Leaving(_))
    }

    /// One past the last committed record that the broker was told of.
    pub fn committed(&self) -> Offset {
        self.committed
    }

    /// The high watermark as this node knows it in its role.
    pub fn high_watermark(&self) -> Option<Offset> {
        match &self.role {
            Role::Leader(leader) => leader.progress.high_watermark(),
            _ => self.high_watermark,
        }
    }

    /// The voters that count now.
    pub fn voters(&self) -> &VoterSet {
        self.voters.latest()
    }

    /// The level of `kraft.version`: 1 where the set of voters is recorded in the log (KIP-853), 0 where it is static.
    pub fn kraft_version(&self) -> i16 {
        self.voters.kraft_version()
    }

    pub fn me(&self) -> ReplicaKey {
        self.config.me
    }

    pub fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// What the recovery-point checkpoint shall say of the metadata log.
    pub fn recovery_point(&self) -> Option<Offset> {
        let log = self.log.as_ref()?;
        Some(match self.busy {
            Some(Busy::LoweringRecoveryPoint(end) | Busy::Truncating(end)) => log.synced_offset().min(end),
            Some(Busy::Restarting) => Offset::ZERO,
            _ => log.synced_offset(),
        })
    }

    /// Whether `values` are sure to fit into one batch. Records that take several batches may be written in part when
    /// the broker crashes.
    pub fn fits_one_batch(&self, values: &[Bytes]) -> bool {
        let records: usize = values.iter().map(|value| value.len() + snapshot::RECORD_OVERHEAD_MAX).sum();
        BatchHeader::LEN + records <= batch_bytes_max(&self.config.log)
    }

    /// When to call [`tick`](Self::tick) next, if nothing else happens before. `now`: the moment of the last input.
    pub fn deadline(&self, now: Now) -> Option<Mono> {
        if self.busy.is_some() || !self.is_running() {
            return None;
        }
        let leaving = match self.phase {
            Phase::Leaving(until) => Some(until),
            _ => None,
        };
        let fetches = self.waiting.iter().map(|fetch| fetch.until).min();
        let updates = match &self.role {
            Role::Follower(follower) if self.config.is_controller => Some(follower.update_voter_at),
            _ => None,
        };
        let role = self.role.deadline().filter(|_| self.may_stand() || !matches!(self.role, Role::Follower(_)));
        [role, fetches, updates, leaving, self.peers.deadline(now.mono), self.snapshot_deadline()]
            .into_iter()
            .flatten()
            // What is overdue waits for something else, such as an answer that is in flight.
            .filter(|at| *at > now.mono)
            .min()
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
        if self.is_running() && self.failure.is_none() && self.snapshot_due(now.mono) {
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
            RequestBody::EndQuorumEpoch(body) => self.handle_end_quorum_epoch(now, id, &listener, body),
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
        let is_useful = match answer.result.map(|answered| answered.body) {
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

    fn file_done(&mut self, now: Now, completion: IoCompletion, out: &mut Outbox) -> Result<(), String> {
        let command = self.commands.remove(&completion.id.seq).expect("a completion belongs to a command");
        match command {
            Command::Boot => return self.boot_step(now, completion.result, out),
            Command::SaveState => {
                completion.result.map_err(|error| error.text)?;
                let is_planted = self.config.plants.has(Plant::VoteToldBeforeSync);
                assert!(is_planted || self.busy == Some(Busy::SavingState));
                self.busy = self.busy.filter(|busy| *busy != Busy::SavingState);
            }
            Command::WriteSnapshot(id) => match completion.result {
                Ok(_) => self.snapshot_written(now, id, out),
                // The log still has all of it. The next snapshot is written when it is due.
                Err(error) if error.kind == IoErrorKind::NoSpace => {
                    out.event(Level::Warn, PART, format!("snapshot {} is not written: {error}", id.file_name()));
                    self.snapshots.not_written();
                }
                Err(error) => return Err(error.text),
            },
            Command::SaveDownload(id) => {
                completion.result.map_err(|error| error.text)?;
                self.download_saved(id, out);
            }
            Command::OpenSnapshot(id) => self.snapshot_opened(now, id, completion.result, out),
            Command::Cleanup => {
                if let Err(error) = completion.result {
                    let text = format!("a file that is no longer needed could not be removed: {error}");
                    out.event(Level::Warn, PART, text);
                }
            }
        }
        Ok(())
    }

    fn log_done(&mut self, now: Now, completion: IoCompletion, out: &mut Outbox) -> Result<(), String> {
        let mut log_events = Vec::new();
        self.log_mut().handle_io(now, completion, out, &mut log_events);
        for event in log_events {
            match event {
                LogEvent::Loaded => self.log_loaded(now, out)?,
                LogEvent::Truncated => self.log_cut(now, out)?,
                LogEvent::ReadDone { token, outcome } => match self.reading.remove(&token) {
                    Some(fetch) => self.fetch_read(fetch, outcome),
                    None => self.replay_found(outcome, out)?,
                },
                LogEvent::Failed(reason) => return Err(reason),
                LogEvent::Closed => {
                    self.phase = Phase::Ended;
                    self.events.push(QuorumEvent::Closed);
                }
                LogEvent::LookupDone { .. } | LogEvent::NameFreed | LogEvent::Deleted => {}
            }
        }
        if self.is_running() {
            self.log_advanced(now, out);
        }
        Ok(())
    }

    /// A batch is in the log that no snapshot holds yet.
    fn note_batch(&mut self, bytes: &Bytes) {
        self.snapshots.bytes_since += bytes.len() as u64;
        if let Ok(header) = BatchHeader::parse(bytes)
            && !header.is_control()
        {
            self.last_append_at = WallMs(header.max_timestamp);
        }
    }

    /// Appends to the log. Error: the log is offline, for this reason.
    fn append(&mut self, now: Now, batch: Append<'_>, out: &mut Outbox) -> Result<Offset, String> {
        let epoch = self.epoch();
        let (Append::Own(bytes) | Append::Replicated(bytes)) = batch else { panic!("clients do not write metadata") };
        self.note_batch(bytes);
        match self.log_mut().append(now, batch, epoch, out) {
            Ok(appended) => Ok(appended.base_offset),
            Err(AppendError::NotOpen(why)) => Err(why),
            // The node must not go on after this: the records would never be committed, and the requests that wait for
            // them would wait for ever.
            Err(error) => Err(format!("the metadata log refuses a batch: {error}")),
        }
    }

    /// Appends control records, which take effect at once.
    fn append_controls(&mut self, now: Now, controls: &[ControlRecord], out: &mut Outbox) -> Offset {
        let base = self.log_end();
        let bytes = ControlRecord::batch(controls, base, self.epoch(), now.wall);
        if let Err(reason) = self.append(now, Append::Own(&bytes), out) {
            self.fail(reason);
            return base;
        }
        for (place, control) in controls.iter().enumerate() {
            self.voters.apply(base + place as i64, control).expect("a record of our own is right");
        }
        let end = self.log_end();
        self.uncommitted.push_back(Uncommitted { end, records: Vec::new() });
        end + -1
    }

    /// Everything below `end` is committed.
    fn commit_up_to(&mut self, end: Offset) {
        while let Some(committed) = self.uncommitted.pop_front_if(|next| next.end <= end) {
            self.committed = committed.end;
            self.has_metadata |= !committed.records.is_empty();
            self.events.push(QuorumEvent::Committed { end: committed.end, records: committed.records });
        }
    }

    /// Whether this node stands for election if there is no leader: it is a voter. A node that the newest set of voters
    /// removes still stands while it does not know that set as committed: it may be the only one that has the record, and
    /// so the only one that can be elected (Raft dissertation, 4.2.2).
    fn may_stand(&self) -> bool {
        let (me, last) = (self.config.me, self.committed + -1);
        let is_voter = self.voters.latest().has(me);
        let is_being_removed = || self.voters.that_may_count(last).any(|set| set.has(me));
        let planted = self.config.plants.has(Plant::ObserverStandsForElection);
        self.config.is_controller && (is_voter || is_being_removed() || planted)
    }

    fn log_mut(&mut self) -> &mut Log {
        self.log.as_mut().expect("the log is open once the disk is read")
    }

    fn log_end(&self) -> Offset {
        self.log.as_ref().map_or(Offset::ZERO, Log::log_end_offset)
    }

    /// The epoch of the last record of the log, or of the snapshot in front of it; 0 if there is none.
    fn last_epoch(&self) -> LeaderEpoch {
        let in_log = self.log.as_ref().map_or(LeaderEpoch::UNKNOWN, Log::latest_epoch);
        in_log.max(self.snapshots.newest().map_or(LeaderEpoch(0), |newest| newest.epoch)).max(LeaderEpoch(0))
    }

    fn fail(&mut self, reason: String) {
        self.failure.get_or_insert(reason);
    }

    /// Begins to write `quorum-state`.
    fn save_state(&mut self, out: &mut Outbox) {
        self.state_is_new = false;
        if !self.config.plants.has(Plant::VoteToldBeforeSync) {
            self.busy = Some(Busy::SavingState);
        }
        let content = self.state.encode(self.kraft_version(), self.voters.latest().keys().map(|voter| voter.node));
        let path = self.path(names::QUORUM_STATE);
        self.submit(Command::SaveState, IoOp::Replace { path, content }, out);
    }

    fn path(&self, file: &str) -> DiskPath {
        let separator = if file.is_empty() { "" } else { "/" };
        DiskPath { dir: self.config.dir, path: format!("{}{separator}{file}", names::METADATA_PARTITION_DIR) }
    }

    fn submit(&mut self, command: Command, op: IoOp, out: &mut Outbox) {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.commands.insert(seq, command);
        out.io(IoId { owner: IoOwner::Quorum, seq }, op);
    }

    /// Asserts the invariants of this module.
    pub fn verify(&self) {
        let Some(log) = &self.log else { return };
        log.verify();
        if !self.is_running() {
            return;
        }
        let (me, state) = (self.config.me.node, &self.state);
        match &self.role {
            Role::Leader(leader) => {
                assert_eq!(state.leader, Some(me));
                assert!(self.committed <= self.log_end(), "a leader has what is committed");
                leader.progress.verify();
            }
            Role::Resigned(_) => assert_eq!(state.leader, Some(me)),
            Role::Follower(follower) => assert!(state.leader == Some(follower.leader) && follower.leader != me),
            Role::Candidate(_) => {
                let is_own = |voted: ReplicaKey| voted.covers(self.config.me);
                assert!(state.leader.is_none() && state.voted.is_some_and(is_own), "a candidate votes for itself");
            }
            Role::Prospective(_) | Role::Unattached { .. } => {}
        }
        assert!(self.uncommitted.iter().is_sorted_by_key(|next| next.end));
        let is_cut = matches!(self.busy, Some(Busy::LoweringRecoveryPoint(_) | Busy::Truncating(_) | Busy::Restarting));
        if !is_cut {
            let end = self.uncommitted.back().map_or(self.committed, |last| last.end);
            assert_eq!(end, self.log_end(), "what is in the log is committed, or waits to be");
        }
    }
}

/// How long a leader that stops waits for another one.
const LEAVING_MS_MAX: i64 = 5_000;

/// The greatest size of a batch of metadata. A batch must fit into a segment, however small `segment.bytes` is.
fn batch_bytes_max(settings: &LogSettings) -> usize {
    BATCH_BYTES_MAX.min(settings.segment_bytes as usize)
}

#[cfg(test)]
mod tests;
