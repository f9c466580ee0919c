//! One quorum by itself: a disk that does everything at once, and a test that plays all other nodes.

use super::harness::{LISTENER, config, voter};
use crate::*;
use tidelog_storage::io::{Answered, AskError, Event, IoCommand, IoError, IoErrorKind, Output};
use tidelog_storage::test_disk::TestDisk;
use tidelog_wire::ApiKey;
use tidelog_wire::ids::FileId;
use tidelog_wire::messages::begin_quorum_epoch_request::LeaderEndpoint;
use tidelog_wire::messages::{BeginQuorumEpochRequest, FeatureLevelRecord, vote_response};
use tidelog_wire::messages::{VoteResponse, begin_quorum_epoch_request as begin_request};

/// Node 1 of the voters 1 to 3.
pub struct Solo {
    pub config: QuorumConfig,
    pub quorum: Quorum,
    pub disk: TestDisk,
    pub ms: i64,
    out: Outbox,
    /// The requests that were not answered yet.
    pub asks: Vec<Ask>,
    pub events: Vec<QuorumEvent>,
    /// What the operator's log says.
    pub log: Vec<String>,
    /// Whether the disk waits for [`step`](Self::step) before it does something.
    pub disk_waits: bool,
    commands: VecDeque<IoCommand>,
    /// The files that were closed.
    pub closed: Vec<FileId>,
    /// The next file that is replaced meets this error.
    pub replace_error: Option<IoErrorKind>,
    next_request: u64,
}

pub const START_MS: i64 = 1_700_000_000_000;

impl Solo {
    /// A node of a quorum whose formatting has recorded the voters 1 to 3, with node 4 as an observer.
    pub fn of_recorded_voters(node: i32) -> Self {
        Self::of_voters(node, 3, |_| {})
    }

    /// The same with another number of voters, and with changes to the configuration.
    pub fn of_voters(node: i32, voters: i32, change: impl FnOnce(&mut QuorumConfig)) -> Self {
        let mut disk = TestDisk::default();
        if node <= voters {
            let set: VoterSet = (1..=voters).map(voter).collect();
            super::harness::format(&mut disk, &set);
        }
        let mut config = QuorumConfig {
            bootstrap_servers: (1..=voters).map(super::harness::address).collect(),
            ..config(node, VoterSet::default())
        };
        change(&mut config);
        Self::start(config, disk)
    }

    pub fn start(config: QuorumConfig, disk: TestDisk) -> Self {
        Self::start_with(config, disk, LoadHints::default())
    }

    fn start_with(config: QuorumConfig, disk: TestDisk, hints: LoadHints) -> Self {
        // What a broker would record first in a new cluster.
        let bootstrap = Bootstrap { records: vec![record("first")], values: vec![record("first").encode(0)] };
        let quorum = Quorum::new(config.clone(), bootstrap, [7; 32]);
        let mut this = Self {
            config,
            quorum,
            disk,
            ms: 0,
            out: Outbox::default(),
            asks: Vec::new(),
            events: Vec::new(),
            log: Vec::new(),
            disk_waits: false,
            commands: VecDeque::new(),
            closed: Vec::new(),
            replace_error: None,
            next_request: 0,
        };
        this.quorum.boot(hints, &mut this.out);
        this.take(Vec::new());
        this
    }

    /// The process ends and starts again on the same disk.
    pub fn restart(self) -> Self {
        let Self { config, mut disk, .. } = self;
        disk.process_ends();
        Self::start(config, disk)
    }

    /// The same, where the broker has written the checkpoint of the recovery point: the start scans no old segment.
    pub fn restart_after_checkpoint(self) -> Self {
        let hints = LoadHints { recovery_point: self.quorum.recovery_point(), ..LoadHints::default() };
        let Self { config, mut disk, .. } = self;
        disk.process_ends();
        Self::start_with(config, disk, hints)
    }

    pub fn now(&self) -> Now {
        Now { mono: Mono::ZERO.plus_ms(self.ms), wall: WallMs(START_MS + self.ms) }
    }

    fn take(&mut self, events: Vec<QuorumEvent>) {
        let mut events = events;
        loop {
            self.quorum.verify();
            self.asks.append(&mut self.out.take_asks());
            for event in std::mem::take(&mut events) {
                if matches!(event, QuorumEvent::RecoveryPointTooHigh) {
                    events.extend(self.quorum.recovery_point_lowered(self.now(), &mut self.out));
                }
                self.events.push(event);
            }
            let outputs = std::mem::take(&mut self.out.outputs);
            if outputs.is_empty() && events.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    Output::Io(command) if self.disk_waits => self.commands.push_back(command),
                    Output::Io(command) => events.extend(self.execute(command)),
                    Output::Event(Event { text, .. }) => self.log.push(text),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn execute(&mut self, command: IoCommand) -> Vec<QuorumEvent> {
        self.disk.wall = self.now().wall;
        if let IoOp::Close { file } = command.op {
            self.closed.push(file);
        }
        let fails = matches!(command.op, IoOp::Replace { .. }).then(|| self.replace_error.take()).flatten();
        let completion = match fails {
            Some(kind) => IoCompletion { id: command.id, result: Err(IoError { kind, text: "no".to_owned() }) },
            None => self.disk.execute(command),
        };
        self.quorum.handle_io(self.now(), completion, &mut self.out)
    }

    /// The disk does the next thing that it was told. Returns which file that replaces, if it does that; `None` if there
    /// is nothing to do.
    pub fn step(&mut self) -> Option<String> {
        let command = self.commands.pop_front()?;
        let replaced = match &command.op {
            IoOp::Replace { path, .. } => path.path.clone(),
            _ => String::new(),
        };
        let events = self.execute(command);
        self.take(events);
        Some(replaced)
    }

    pub fn act(&mut self, act: impl FnOnce(&mut Quorum, Now, &mut Outbox) -> Vec<QuorumEvent>) {
        let now = self.now();
        let events = act(&mut self.quorum, now, &mut self.out);
        self.take(events);
    }

    /// Sends a request, which may be answered later.
    pub fn send(&mut self, version: i16, body: impl Into<RequestBody>) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let request = QuorumRequest { id, version, listener: LISTENER.into(), body: body.into() };
        self.act(|quorum, now, out| quorum.handle_request(now, request, out));
        id
    }

    /// The answer to a request, if there is one yet.
    pub fn answer_to(&mut self, id: RequestId) -> Option<ResponseBody> {
        let is_it = |event: &QuorumEvent| matches!(event, QuorumEvent::Answer(answered, _) if *answered == id);
        let place = self.events.iter().position(is_it)?;
        let QuorumEvent::Answer(_, body) = self.events.remove(place) else { unreachable!("just found") };
        Some(*body)
    }

    /// Sends a request that is answered at once.
    pub fn request(&mut self, version: i16, body: impl Into<RequestBody>) -> ResponseBody {
        let id = self.send(version, body);
        self.answer_to(id).expect("it is answered at once")
    }

    /// Lets time pass, in which the quorum is called whenever it wants to be.
    pub fn pass_ms(&mut self, ms: i64) {
        let end = self.ms + ms;
        while let Some(deadline) = self.quorum.deadline(self.now()).filter(|at| *at <= Mono::ZERO.plus_ms(end)) {
            while Mono::ZERO.plus_ms(self.ms) < deadline {
                self.ms += 1;
            }
            self.act(|quorum, now, out| quorum.tick(now, out));
        }
        self.ms = end;
        self.act(|quorum, now, out| quorum.tick(now, out));
    }

    /// The request of this kind that waits for its answer. The oldest, if there are several.
    pub fn asked(&mut self, api_key: ApiKey) -> Ask {
        let place = self.asks.iter().position(|ask| ask.body.api_key() == api_key);
        let waiting: Vec<ApiKey> = self.asks.iter().map(|ask| ask.body.api_key()).collect();
        self.asks.remove(place.unwrap_or_else(|| panic!("no {api_key:?} among {waiting:?}")))
    }

    pub fn answer(&mut self, ask: &Ask, body: impl Into<ResponseBody>) {
        let answered = Answered { version: *ask.versions.end(), body: body.into(), batches: Vec::new() };
        self.respond(ask, Ok(answered));
    }

    pub fn fail(&mut self, ask: &Ask, error: AskError) {
        self.respond(ask, Err(error));
    }

    fn respond(&mut self, ask: &Ask, result: Result<Answered, AskError>) {
        let answer = Answer { id: ask.id, result };
        self.act(|quorum, now, out| quorum.handle_answer(now, answer, out));
    }

    /// Node `leader` tells that it leads in this epoch.
    pub fn follow(&mut self, leader: i32, epoch: i32) {
        // The answers to what was asked before are of no use any more.
        self.asks.clear();
        let ResponseBody::BeginQuorumEpoch(answer) = self.request(1, begins(leader, epoch)) else { unreachable!() };
        assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    }

    /// The same, where the node may end with that.
    pub fn follow_while_it_stops(&mut self, leader: i32, epoch: i32) {
        let _ = self.send(1, begins(leader, epoch));
    }

    /// As a follower, fetches without getting anything, for so long.
    pub fn fetch_for_ms(&mut self, ms: i64) {
        let end = self.ms + ms;
        while self.ms < end {
            let (leader, epoch) = (self.quorum.leader().expect("it follows"), self.quorum.epoch());
            let ask = self.asked(ApiKey::Fetch);
            self.pass_ms((end - self.ms).min(500));
            self.answer(&ask, super::messages::fetched(leader.0, epoch.0, |_| {}));
        }
    }

    /// The other voters elect this node.
    pub fn lead(&mut self) {
        for _ in 0..100 {
            if self.quorum.is_leading() || matches!(self.quorum.role(), Role::Leader(_)) {
                return;
            }
            self.pass_ms(100);
            while self.asks.iter().any(|ask| ask.body.api_key() == ApiKey::Vote) {
                let ask = self.asked(ApiKey::Vote);
                let RequestBody::Vote(request) = &ask.body else { unreachable!() };
                let epoch = request.topics[0].partitions[0].replica_epoch;
                self.answer(&ask, votes(epoch, true));
            }
        }
        panic!("not elected: {}", self.quorum.role().name());
    }

    /// Proposes a record, as the leader.
    pub fn propose(&mut self, name: &str) {
        self.propose_all(&[name]);
    }

    /// Proposes several records as one decision. Returns the offset of the last.
    pub fn propose_all(&mut self, names: &[&str]) -> Offset {
        let records: Vec<MetadataRecord> = names.iter().map(|name| record(name)).collect();
        let values: Vec<Bytes> = records.iter().map(|record| record.encode(0)).collect();
        let mut last = Offset::ZERO;
        self.act(|quorum, now, out| {
            last = quorum.propose(now, records, &values, out).expect("the log is open");
            Vec::new()
        });
        last
    }

    /// The reason for which the quorum has failed, if it has.
    pub fn failure(&self) -> Option<&str> {
        self.events.iter().find_map(|event| match event {
            QuorumEvent::Failed(reason) => Some(&**reason),
            _ => None,
        })
    }
}

pub fn record(name: &str) -> MetadataRecord {
    FeatureLevelRecord { name: name.into(), feature_level: 1, ..Default::default() }.into()
}

/// BeginQuorumEpoch of a leader.
pub fn begins(leader: i32, epoch: i32) -> BeginQuorumEpochRequest {
    let partition = begin_request::PartitionData { leader_id: leader, leader_epoch: epoch, ..Default::default() };
    let topic =
        begin_request::TopicData { topic_name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
    let endpoint = LeaderEndpoint {
        name: LISTENER.into(),
        host: format!("node{leader}").into(),
        port: 9093,
        ..Default::default()
    };
    BeginQuorumEpochRequest {
        cluster_id: Some("cluster".into()),
        voter_id: -1,
        topics: vec![topic],
        leader_endpoints: vec![endpoint],
        ..Default::default()
    }
}

/// An answer to Vote, of a voter that knows no leader.
pub fn votes(epoch: i32, vote_granted: bool) -> VoteResponse {
    let partition =
        vote_response::PartitionData { leader_id: -1, leader_epoch: epoch, vote_granted, ..Default::default() };
    let topic =
        vote_response::TopicData { topic_name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
    VoteResponse { topics: vec![topic], ..Default::default() }
}
