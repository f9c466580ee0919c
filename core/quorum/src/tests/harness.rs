//! Quorums on an in-memory network: each node with a disk that can crash, messages that are delayed, lost and held back
//! by partitions, and what must hold whatever happens (Raft, figure 3).

use crate::*;
use bytestring::ByteString;
use rand::{Rng, RngExt};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tidelog_config::plant::Plants;
use tidelog_storage::LogSettings;
use tidelog_storage::io::{Answered, AskError, DiskPath, IoCommand, IoId, Output};
use tidelog_storage::test_disk::TestDisk;
use tidelog_wire::ids::{LogDirId, Uuid};
use tidelog_wire::messages::FeatureLevelRecord;
use tidelog_wire::{ApiKey, RecordsChunk, RequestHeader};
use tidelog_wire::{Reader, Writer, decode_response, encode_response};

pub const LISTENER: &str = "CONTROLLER";
const MS: u64 = 1_000_000;

pub fn key(node: i32) -> ReplicaKey {
    ReplicaKey::new(NodeId(node), Uuid::from_bytes([node as u8; 16]))
}

pub fn address(node: i32) -> Address {
    Address::new(format!("node{node}"), 9093)
}

pub fn endpoints(node: i32) -> Endpoints {
    [(LISTENER, format!("node{node}"), 9093)].into_iter().collect()
}

pub fn voter(node: i32) -> Voter {
    Voter { key: key(node), endpoints: endpoints(node), kraft_versions: KRAFT_VERSIONS }
}

pub fn static_voters(nodes: impl IntoIterator<Item = i32>) -> VoterSet {
    let unknown =
        |node| Voter { key: ReplicaKey { directory: None, ..key(node) }, kraft_versions: (0, 0), ..voter(node) };
    nodes.into_iter().map(unknown).collect()
}

/// What `tidelog format --initial-controllers` writes for the metadata log.
pub fn format(disk: &mut TestDisk, voters: &VoterSet) {
    let controls = [kraft_version_record(1), voters.record()];
    let content = encode_snapshot(LeaderEpoch(0), WallMs(0), WallMs(0), &controls, &[]);
    let dir = names::METADATA_PARTITION_DIR;
    let file = names::metadata_snapshot_file(Offset::ZERO, LeaderEpoch(0));
    for op in [
        IoOp::CreateDir { path: DiskPath { dir: LogDirId(0), path: dir.into() } },
        IoOp::SyncDir { path: DiskPath { dir: LogDirId(0), path: String::new() } },
        IoOp::Replace { path: DiskPath { dir: LogDirId(0), path: format!("{dir}/{file}") }, content },
    ] {
        let id = IoId { owner: IoOwner::Quorum, seq: 0 };
        disk.execute(IoCommand { id, op }).result.unwrap();
    }
}

/// A node: its disk, and the quorum on it while its process runs.
pub struct Node {
    pub id: i32,
    pub config: QuorumConfig,
    pub quorum: Option<Quorum>,
    pub disk: TestDisk,
    hints: LoadHints,
    life: u64,
    /// The commands that are not carried out yet, by lane.
    lanes: BTreeMap<IoOwner, VecDeque<IoCommand>>,
    /// The committed records, in order.
    pub state: Vec<String>,
    committed: Offset,
    pub leading: Option<LeaderEpoch>,
    tick_at: Option<u64>,
    out: Outbox,
    /// What it has told its operator.
    pub said: Vec<String>,
}

enum Event {
    Io { node: usize, life: u64, owner: IoOwner },
    Request { from: usize, life: u64, id: PeerId, to: usize, header: RequestHeader, frame: Bytes },
    Answer { to: usize, life: u64, answer: Answer },
    Tick { node: usize, life: u64, at: u64 },
    Lowered { node: usize, life: u64, hints: LoadHints },
    Start { node: usize },
}

/// Where an answer of a node goes.
struct Asker {
    /// The node that is asked.
    asked: usize,
    node: usize,
    life: u64,
    id: PeerId,
    header: RequestHeader,
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub now: u64,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    rng: ChaCha8Rng,
    /// Who waits for the answers of the nodes.
    askers: BTreeMap<RequestId, Asker>,
    /// The answers to requests of the test itself.
    pub answers: BTreeMap<RequestId, ResponseBody>,
    next_request: u64,
    /// The pairs of nodes between which nothing arrives, in this direction.
    pub cut: BTreeSet<(usize, usize)>,
    /// How many of a hundred messages are lost.
    pub lost_percent: u32,
    pub slow: bool,
    /// Whether messages are printed.
    pub traces: bool,
    // What must hold.
    leaders: BTreeMap<LeaderEpoch, i32>,
    votes: BTreeMap<(i32, i32), ReplicaKey>,
    /// Every replica that was ever a voter for any node.
    voters: BTreeSet<ReplicaKey>,
    committed: Vec<(Offset, String)>,
    next_proposal: u32,
}

impl Cluster {
    pub fn new(seed: u64, configs: Vec<QuorumConfig>) -> Self {
        let node = |config: QuorumConfig| Node {
            id: config.me.node.0,
            config,
            quorum: None,
            disk: TestDisk::default(),
            hints: LoadHints::default(),
            life: 0,
            lanes: BTreeMap::new(),
            state: Vec::new(),
            committed: Offset::ZERO,
            leading: None,
            tick_at: None,
            out: Outbox::default(),
            said: Vec::new(),
        };
        let mut cluster = Self {
            nodes: configs.into_iter().map(node).collect(),
            now: 0,
            events: BTreeMap::new(),
            next_event: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            askers: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_request: 0,
            cut: BTreeSet::new(),
            lost_percent: 0,
            slow: false,
            traces: false,
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            voters: BTreeSet::new(),
            committed: Vec::new(),
            next_proposal: 0,
        };
        for node in 0..cluster.nodes.len() {
            cluster.start(node);
        }
        cluster
    }

    /// Lets everything happen close together: short time-outs, and one batch in an answer. So a crash comes more often in
    /// the middle of something.
    pub fn hurry(&mut self) {
        for node in 0..self.nodes.len() {
            let config = &mut self.nodes[node].config;
            config.timeouts = Timeouts {
                election_ms: 60,
                election_backoff_ms_max: 60,
                fetch_ms: 100,
                request_ms: 60,
                retry_backoff_ms: 5,
            };
            config.fetch_bytes_max = 1;
            self.crash(node, false, Some(0));
        }
    }

    /// Voters 1 to `count` that are configured, as with `controller.quorum.voters`.
    pub fn of_static_voters(seed: u64, count: i32, plants: Plants) -> Self {
        let config = |node| QuorumConfig { plants, ..config(node, static_voters(1..=count)) };
        Self::new(seed, (1..=count).map(config).collect())
    }

    /// Voters 1 to `count` that formatting has recorded, and observers after them, up to `nodes`.
    pub fn of_recorded_voters(seed: u64, count: i32, nodes: i32, plants: Plants) -> Self {
        let configs = (1..=nodes).map(|node| QuorumConfig {
            bootstrap_servers: (1..=count).map(address).collect(),
            plants,
            ..config(node, VoterSet::default())
        });
        let mut cluster = Self::new(seed, Vec::new());
        for config in configs {
            let id = config.me.node.0;
            let mut fresh = Self::new(0, vec![config]);
            let mut node = fresh.nodes.pop().expect("one node");
            (node.quorum, node.life) = (None, 0);
            node.lanes.clear();
            node.disk = TestDisk::default();
            if id <= count {
                format(&mut node.disk, &(1..=count).map(voter).collect());
            }
            cluster.nodes.push(node);
            cluster.start(cluster.nodes.len() - 1);
        }
        cluster
    }

    // Time.

    fn at(&mut self, at: u64, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    fn delay(&mut self) -> u64 {
        let max = if self.slow { 60 * MS } else { 2 * MS };
        self.rng.random_range(10_000..max)
    }

    fn clock(&self) -> Now {
        Now { mono: Mono(self.now), wall: WallMs(1_700_000_000_000 + (self.now / MS) as i64) }
    }

    /// Runs for so many milliseconds.
    pub fn run(&mut self, ms: u64) {
        let end = self.now + ms * MS;
        let mut steps = 0;
        while let Some((&(at, _), _)) = self.events.first_key_value() {
            if at > end {
                break;
            }
            let ((at, _), event) = self.events.pop_first().expect("there is one");
            self.now = self.now.max(at);
            self.step(event);
            steps += 1;
            assert!(steps < 100 * (ms + 5), "something is done again and again\n{}", self.describe());
        }
        self.now = end;
    }

    /// Runs until this holds. Panics if it does not within so many milliseconds.
    pub fn run_until(&mut self, ms: u64, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = self.now + ms * MS;
        while !holds(self) {
            assert!(self.now < end, "{what}: not within {ms} ms\n{}", self.describe());
            self.run(1);
        }
    }

    pub fn describe(&self) -> String {
        let line = |node: &Node| match &node.quorum {
            None => format!("node {} is down", node.id),
            Some(quorum) => format!(
                "node {} is {} in epoch {}, leader {:?}, log end {}, committed {}, voters {}",
                node.id,
                quorum.role().name(),
                quorum.epoch(),
                quorum.leader(),
                quorum.log_end(),
                quorum.committed(),
                quorum.voters()
            ),
        };
        self.nodes.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Start { node } => self.start(node),
            Event::Io { node, life, owner } if self.nodes[node].life == life => {
                let now = self.clock();
                let at = &mut self.nodes[node];
                let command = at.lanes.get_mut(&owner).and_then(VecDeque::pop_front).expect("it was given");
                at.disk.wall = now.wall;
                let completion = at.disk.execute(command);
                self.with(node, |quorum, out| quorum.handle_io(now, completion, out));
            }
            // A tick that was replaced by an earlier one does nothing.
            Event::Tick { node, life, at } if self.nodes[node].life == life && self.nodes[node].tick_at == Some(at) => {
                self.nodes[node].tick_at = None;
                let now = self.clock();
                self.with(node, |quorum, out| quorum.tick(now, out));
            }
            Event::Lowered { node, life, hints } if self.nodes[node].life == life => {
                self.nodes[node].hints = hints;
                let now = self.clock();
                self.with(node, |quorum, out| quorum.recovery_point_lowered(now, out));
            }
            Event::Answer { to, life, answer } if self.nodes[to].life == life => {
                let now = self.clock();
                self.with(to, |quorum, out| quorum.handle_answer(now, answer, out));
            }
            Event::Request { from, life, id, to, header, frame } => {
                let runs = self.nodes[to].quorum.as_ref().is_some_and(Quorum::is_running);
                if !runs {
                    let error = AskError::Unreachable;
                    return self
                        .at(self.now, Event::Answer { to: from, life, answer: Answer { id, result: Err(error) } });
                }
                let mut reader = Reader::new(frame);
                let body = RequestBody::decode(header.api_key, header.api_version, &mut reader)
                    .expect("a quorum sends what can be read");
                if header.api_key == ApiKey::ApiVersions {
                    return self.answer_versions(Asker { asked: to, node: from, life, id, header });
                }
                self.next_request += 1;
                let request = RequestId(self.next_request);
                let version = header.api_version;
                self.askers.insert(request, Asker { asked: to, node: from, life, id, header });
                let now = self.clock();
                let listener = ByteString::from(LISTENER);
                let request = QuorumRequest { id: request, version, listener, body };
                self.with(to, |quorum, out| quorum.handle_request(now, request, out));
            }
            // The process that this was for is gone.
            Event::Io { .. } | Event::Tick { .. } | Event::Lowered { .. } | Event::Answer { .. } => {}
        }
    }

    // Processes.

    fn start(&mut self, node: usize) {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let at = &mut self.nodes[node];
        if at.quorum.is_some() {
            return;
        }
        at.state.clear();
        at.committed = Offset::ZERO;
        at.quorum = Some(Quorum::new(at.config.clone(), Bootstrap::default(), seed));
        let hints = at.hints;
        self.with(node, |quorum, out| {
            quorum.boot(hints, out);
            Vec::new()
        });
    }

    /// Ends the process, and starts it again later, if ever.
    pub fn crash(&mut self, node: usize, power: bool, restart_after_ms: Option<u64>) {
        let at = &mut self.nodes[node];
        at.quorum = None;
        at.life += 1;
        at.leading = None;
        at.tick_at = None;
        at.lanes.clear();
        at.out = Outbox::default();
        match power {
            true => at.disk.crash(&mut self.rng),
            false => at.disk.process_ends(),
        }
        let unanswered = self.askers.extract_if(.., |_, asker| asker.asked == node);
        for (_, Asker { node, life, id, .. }) in unanswered.collect::<Vec<_>>() {
            let answer = Answer { id, result: Err(AskError::Disconnected) };
            self.at(self.now, Event::Answer { to: node, life, answer });
        }
        if let Some(ms) = restart_after_ms {
            self.at(self.now + ms * MS, Event::Start { node });
        }
    }

    /// The disk of a node is replaced by an empty one, of another directory id.
    pub fn wipe(&mut self, node: usize, directory: Uuid) {
        self.crash(node, false, None);
        let at = &mut self.nodes[node];
        at.disk = TestDisk::default();
        at.hints = LoadHints::default();
        at.config.me.directory = Some(directory);
        self.start(node);
    }

    fn with(&mut self, node: usize, act: impl FnOnce(&mut Quorum, &mut Outbox) -> Vec<QuorumEvent>) {
        let at = &mut self.nodes[node];
        let Some(quorum) = at.quorum.as_mut() else { return };
        let events = act(quorum, &mut at.out);
        quorum.verify();
        self.voters.extend(quorum.voters().keys());
        self.take(node, events);
    }

    fn take(&mut self, node: usize, events: Vec<QuorumEvent>) {
        let life = self.nodes[node].life;
        let asks = self.nodes[node].out.take_asks();
        for output in std::mem::take(&mut self.nodes[node].out.outputs) {
            match output {
                Output::Io(command) => {
                    let delay = self.delay();
                    let owner = command.id.owner;
                    self.nodes[node].lanes.entry(owner).or_default().push_back(command);
                    let at = self.now + delay;
                    self.at(at, Event::Io { node, life, owner });
                }
                Output::Event(event) => self.nodes[node].said.push(event.text),
                _ => {}
            }
        }
        for ask in asks {
            self.send(node, ask);
        }
        for event in events {
            self.event(node, event);
        }
        self.schedule_tick(node);
    }

    fn schedule_tick(&mut self, node: usize) {
        let now = self.clock();
        let at = &self.nodes[node];
        let Some(deadline) = at.quorum.as_ref().and_then(|quorum| quorum.deadline(now)) else { return };
        let due = deadline.0.max(self.now) + 1_000;
        if at.tick_at.is_some_and(|at| at <= due) {
            return;
        }
        let life = at.life;
        self.nodes[node].tick_at = Some(due);
        self.at(due, Event::Tick { node, life, at: due });
    }

    // The network.

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    fn send(&mut self, from: usize, ask: Ask) {
        let Ask { id, to, body, versions, timeout_ms } = ask;
        let life = self.nodes[from].life;
        let api_version = *versions.end();
        let header = RequestHeader { api_key: body.api_key(), api_version, correlation_id: 0, client_id: None };
        self.check_votes(&body);
        if self.traces {
            println!("{} ms: node {} asks {to}: {body:?}", self.now / MS, self.nodes[from].id);
        }
        let target = self.nodes.iter().position(|node| address(node.id) == to);
        let is_lost = self.rng.random_range(0..100) < self.lost_percent;
        let to = match target {
            Some(to) if !is_lost && !self.is_cut(from, to) => to,
            _ => {
                let at = self.now + timeout_ms as u64 * MS;
                let answer = Answer { id, result: Err(AskError::TimedOut) };
                return self.at(at, Event::Answer { to: from, life, answer });
            }
        };
        let mut writer = Writer::new();
        body.encode(api_version, &mut writer);
        let (at, frame) = (self.now + self.delay(), writer.into_bytes());
        self.at(at, Event::Request { from, life, id, to, header, frame });
    }

    fn answer_versions(&mut self, asker: Asker) {
        use tidelog_wire::messages::{ApiVersionsResponse, api_versions_response::SupportedFeatureKey};
        let feature =
            SupportedFeatureKey { name: "kraft.version".into(), min_version: 0, max_version: 1, ..Default::default() };
        let body = ApiVersionsResponse { supported_features: vec![feature], ..Default::default() };
        let version = asker.header.api_version;
        let result = Ok(Answered { version, body: body.into(), batches: Vec::new() });
        let at = self.now + self.delay();
        self.at(at, Event::Answer { to: asker.node, life: asker.life, answer: Answer { id: asker.id, result } });
    }

    fn answer(&mut self, node: usize, request: RequestId, body: ResponseBody) {
        if self.traces {
            println!("{} ms: node {} answers: {body:?}", self.now / MS, self.nodes[node].id);
        }
        let Some(asker) = self.askers.remove(&request) else {
            self.answers.insert(request, body);
            return;
        };
        let frame = encode_response(asker.header.api_key, asker.header.api_version, 0, &body);
        let mut bytes = Vec::new();
        for chunk in frame.chunks {
            match chunk {
                RecordsChunk::Bytes(chunk) => bytes.extend_from_slice(&chunk),
                RecordsChunk::File(slice) => {
                    bytes.extend_from_slice(self.nodes[node].disk.slice(slice.file, slice.position, slice.len));
                }
            }
        }
        let bytes = Bytes::from(bytes).slice(4..);
        let (_, body) = decode_response(asker.header.api_key, asker.header.api_version, bytes)
            .expect("a quorum answers what can be read");
        let is_lost = self.rng.random_range(0..100) < self.lost_percent;
        let (delay, result) = match is_lost || self.is_cut(node, asker.node) {
            true => (2_000 * MS, Err(AskError::TimedOut)),
            false => (self.delay(), Ok(Answered { version: asker.header.api_version, body, batches: Vec::new() })),
        };
        let answer = Answer { id: asker.id, result };
        self.at(self.now + delay, Event::Answer { to: asker.node, life: asker.life, answer });
    }

    /// A request of an administrator to a node. Its answer comes into `answers`.
    pub fn request(&mut self, node: usize, version: i16, body: impl Into<RequestBody>) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let now = self.clock();
        let request = QuorumRequest { id, version, listener: LISTENER.into(), body: body.into() };
        self.with(node, |quorum, out| quorum.handle_request(now, request, out));
        id
    }

    // What the broker would do, and what must hold.

    fn event(&mut self, node: usize, event: QuorumEvent) {
        let life = self.nodes[node].life;
        match event {
            QuorumEvent::Answer(id, body) => self.answer(node, id, *body),
            QuorumEvent::Committed { end, records } => {
                let first = Offset(end.0 - records.len() as i64);
                for (place, record) in records.iter().enumerate() {
                    let name = name_of(record);
                    self.check_committed(node, first + place as i64, name.clone());
                    self.nodes[node].state.push(name);
                }
                assert!(end >= self.nodes[node].committed, "the high watermark never falls");
                self.nodes[node].committed = end;
            }
            QuorumEvent::SnapshotLoaded { end, records } => {
                assert!(end >= self.nodes[node].committed, "a snapshot takes nothing back");
                let found: Vec<String> = records.iter().map(name_of).collect();
                let expected = self.committed.iter().filter(|(offset, _)| *offset < end);
                let expected: Vec<String> = expected.map(|(_, name)| name.clone()).collect();
                assert_eq!(found, expected, "a snapshot holds what is committed below its end");
                self.nodes[node].state = found;
                self.nodes[node].committed = end;
            }
            QuorumEvent::Leading { epoch, .. } => {
                let id = self.nodes[node].id;
                let known = *self.leaders.entry(epoch).or_insert(id);
                assert_eq!(known, id, "one leader in epoch {epoch}");
                self.nodes[node].leading = Some(epoch);
                // What was committed under earlier leaders is told before. Only later leaders may have committed more.
                let is_newest = self.leaders.last_key_value().is_some_and(|(newest, _)| *newest == epoch);
                if is_newest && let Some((last, _)) = self.committed.last() {
                    assert!(self.nodes[node].quorum.as_ref().unwrap().log_end() > *last, "a leader has all of it");
                    assert!(self.nodes[node].committed > *last, "a leader knows all of it");
                }
            }
            QuorumEvent::Resigned => self.nodes[node].leading = None,
            QuorumEvent::RecoveryPointTooHigh => {
                let at = &self.nodes[node];
                let point = at.quorum.as_ref().and_then(Quorum::recovery_point);
                let hints = LoadHints { recovery_point: point, ..at.hints };
                let delay = self.delay();
                self.at(self.now + delay, Event::Lowered { node, life, hints });
            }
            QuorumEvent::SnapshotDue => self.snapshot(node),
            QuorumEvent::Closed => self.crash(node, false, None),
            QuorumEvent::Failed(reason) => panic!("node {} failed: {reason}\n{}", self.nodes[node].id, self.describe()),
            QuorumEvent::LeaderChanged { .. } => {}
        }
    }

    fn check_committed(&mut self, node: usize, offset: Offset, name: String) {
        match self.committed.binary_search_by_key(&offset, |(offset, _)| *offset) {
            Ok(place) => {
                let id = self.nodes[node].id;
                assert_eq!(self.committed[place].1, name, "node {id} has another committed record at {offset}");
            }
            Err(place) => {
                assert_eq!(place, self.committed.len(), "a record at {offset} is committed behind later ones");
                self.committed.push((offset, name));
            }
        }
    }

    /// A candidate's request shows for whom it has voted.
    fn check_votes(&mut self, body: &RequestBody) {
        let RequestBody::Vote(request) = body else { return };
        let partition = &request.topics[0].partitions[0];
        let candidate = ReplicaKey::from_wire(partition.replica_id, partition.replica_directory_id);
        assert!(self.voters.iter().any(|voter| voter.covers(candidate)), "{candidate} was never a voter");
        if !partition.pre_vote {
            let known = *self.votes.entry((partition.replica_id, partition.replica_epoch)).or_insert(candidate);
            assert_eq!(known, candidate, "one vote in an epoch");
        }
    }

    pub fn leader(&self) -> Option<usize> {
        let leading = self.nodes.iter().enumerate().filter_map(|(place, node)| Some((node.leading?, place)));
        leading.max().map(|(_, place)| place)
    }

    /// Lets the leader append a record. Returns its name.
    pub fn propose(&mut self) -> Option<String> {
        let leader = self.leader()?;
        self.propose_at(leader)
    }

    pub fn propose_at(&mut self, node: usize) -> Option<String> {
        let now = self.clock();
        self.next_proposal += 1;
        let name = format!("record {}", self.next_proposal);
        let at = &mut self.nodes[node];
        let quorum = at.quorum.as_mut().filter(|quorum| quorum.is_leading())?;
        // Some proposals take several batches.
        let names = match self.next_proposal.is_multiple_of(20) {
            true => (0..40).map(|place| format!("{name}, {place} {}", "-".repeat(60))).collect(),
            false => vec![name.clone()],
        };
        let record = |name: &String| -> MetadataRecord {
            FeatureLevelRecord { name: name.clone().into(), feature_level: 1, ..Default::default() }.into()
        };
        let records: Vec<MetadataRecord> = names.iter().map(record).collect();
        let values: Vec<Bytes> = records.iter().map(|record| record.encode(0)).collect();
        let name = names.last().expect("at least one").clone();
        quorum.propose(now, records, &values, &mut at.out).expect("the log is open");
        self.take(node, Vec::new());
        Some(name)
    }

    /// Lets the leader raise `kraft.version`, if there is one. Error: why it cannot.
    pub fn upgrade(&mut self) -> Result<(), String> {
        let leader = self.leader().ok_or("there is no leader")?;
        self.nodes[leader].quorum.as_ref().expect("it leads").check_kraft_upgrade()?;
        let now = self.clock();
        self.with(leader, |quorum, out| quorum.upgrade_kraft_version(now, out));
        Ok(())
    }

    /// Takes a snapshot, if one may be taken.
    pub fn snapshot(&mut self, node: usize) {
        let now = self.clock();
        let at = &mut self.nodes[node];
        let Some(quorum) = at.quorum.as_mut().filter(|quorum| quorum.can_snapshot(at.committed)) else { return };
        let record = |name: &String| -> MetadataRecord {
            FeatureLevelRecord { name: name.clone().into(), feature_level: 1, ..Default::default() }.into()
        };
        let image: Vec<Bytes> = at.state.iter().map(|name| record(name).encode(0)).collect();
        quorum.snapshot(now, at.committed, &image, &mut at.out);
        self.take(node, Vec::new());
    }

    /// Writes the recovery-point checkpoint.
    pub fn checkpoint(&mut self, node: usize) {
        let at = &mut self.nodes[node];
        let point = at.quorum.as_ref().filter(|quorum| quorum.is_running()).and_then(Quorum::recovery_point);
        if point.is_some() {
            at.hints.recovery_point = point;
        }
    }

    pub fn close(&mut self, node: usize) {
        let now = self.clock();
        self.with(node, |quorum, out| quorum.close(now, out));
    }

    pub fn has_committed(&self, node: usize, name: &str) -> bool {
        self.nodes[node].state.iter().any(|known| known == name)
    }

    pub fn random(&mut self, below: usize) -> usize {
        self.rng.random_range(0..below)
    }
}

pub fn config(node: i32, voters: VoterSet) -> QuorumConfig {
    QuorumConfig {
        me: key(node),
        cluster_id: "cluster".into(),
        is_controller: true,
        endpoints: endpoints(node),
        listener: LISTENER.into(),
        voters,
        forms_itself: false,
        bootstrap_servers: Vec::new(),
        timeouts: Timeouts::default(),
        fetch_bytes_max: 1 << 20,
        fetch_snapshot_bytes_max: 200,
        joins_by_itself: false,
        dir: LogDirId(0),
        dir_path: "/disk".to_owned(),
        log: LogSettings {
            segment_bytes: 2_000,
            retention_ms: -1,
            retention_bytes: -1,
            delete_retention: false,
            require_fsync: true,
            ..LogSettings::default()
        },
        plants: Plants::default(),
        snapshot_bytes: u64::MAX,
        snapshot_interval_ms: 0,
    }
}

fn name_of(record: &MetadataRecord) -> String {
    let MetadataRecord::FeatureLevel(record) = record else { panic!("{record:?} was not proposed") };
    record.name.to_string()
}
