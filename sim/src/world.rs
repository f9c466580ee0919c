//! The world: a heap of events ordered by (virtual time, sequence), and the run loop. The loop takes the first event
//! from the heap, hands it to one node or one client, and puts the events that follow from it on the heap. Virtual time
//! jumps from event to event.
//!
//! A run has phases. First faults are dealt. Then everything is healed for good, the producers send what they have
//! left, and the readers catch up. At last one more reader reads every log from its first offset to its end, in some
//! runs after one more power cut. A client that is not done [`LIVENESS_NS`] after healing is a violation of liveness,
//! which names that client.

mod disk_lost;
mod events;
mod leave;
mod links;
mod nemesis;
mod nodes;
mod quorum;
mod replicas;
mod rolling;
pub mod script;

use crate::checkers::{self, Checker, Rules, Violation};
use crate::client::records::{Codec, Payloads};
use crate::client::{
    Admin, AdminPlan, Application, Client, ClientAction, ClientInput, ClientOutbox, Fetcher, FetcherPlan, Hostile,
    Link, Lister, OpenerInput, Operator, Producer, Reader, Registrar, Setting, Trimmer, Unregistrar,
};
use crate::clock::WALL_START_MS;
use crate::cluster::{Voters, address, node_id};
use crate::disk::Loss;
use crate::history::{Entry, Fact, FinalLogs, PartitionKey, Voter};
use crate::network::{End, Fate, Network, Silence, Way};
use crate::node::{Node, Presence};
use crate::panics;
use crate::random::stream;
use crate::scenario::{ClientPlan, Role, Scenario};
use crate::trace::{Digest, Note, Part, Trace};
use bytes::Bytes;
use events::{Event, Events};
use quorum::Seen;
use rolling::Rolling;
use std::collections::{BTreeMap, BTreeSet};
use tidelog_client::Address;
use tidelog_core::broker::Broker;
use tidelog_core::ids::ConnId;
use tidelog_core::io::Outbox;
use tidelog_core::plant::Plants;

/// The virtual time in which every client must be done, counted from the moment at which everything was healed.
pub const LIVENESS_NS: u64 = 120_000_000_000;

/// No message is under way for longer than this.
const QUIET_NS: u64 = 10_000_000_000;
/// How often it is looked in the end whether all replicas are equal.
const REPLICAS_LOOK_NS: u64 = 100_000_000;

/// A run with more events than this is a violation: no run without a bug has that many.
const EVENTS_MAX: u64 = 3_000_000;

/// The client that reads every log at the end of a run, and the one that looks at an administrator's topics.
const LAST_READER: u32 = 1_000;
pub const LAST_ADMIN: u32 = 2_000;
/// Of whoever unregisters node 0; those of the other nodes follow.
const UNREGISTRAR: u32 = 3_000;

/// How a run ended.
#[derive(Debug, Default)]
pub struct Outcome {
    pub violation: Option<Violation>,
    pub events: u64,
    pub virtual_ns: u64,
    /// The rolling hash over everything that happened.
    pub hash: u64,
    /// The rolling hash after each 1,024 events.
    pub kept: Vec<u64>,
    /// How often what happened, by name: "power cuts", "batches acknowledged".
    pub counts: BTreeMap<&'static str, u64>,
    /// The places in the core that were reached, and how often.
    pub probes: BTreeMap<&'static str, u64>,
    /// The attacks that were answered as they should be.
    pub attacks: BTreeMap<&'static str, u64>,
}

/// Whether a world can be made of a scenario that somebody wrote or changed, or what is wrong with it.
pub fn can_begin(scenario: &Scenario) -> Result<(), String> {
    scenario.check().map_err(|why| format!("this scenario cannot begin: {why}"))?;
    panics::quiet(true);
    let begins = panics::catch(|| drop(World::new(scenario, Plants::default(), Trace::default())));
    panics::quiet(false);
    begins.map_err(|why| {
        // Whoever wrote the scenario has no use for the place in our sources.
        let why = why.rsplit_once(" (at ").map_or(&why[..], |(words, _)| words);
        format!("this scenario cannot begin: {why}")
    })
}

/// Runs a scenario to its end.
pub fn run(scenario: &Scenario, plants: Plants, trace: Trace) -> Outcome {
    World::new(scenario, plants, trace).run()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Faults are dealt.
    Faults,
    /// Everything is healed. The phase ends when every producer has an answer to all its batches.
    Settle,
    /// The phase ends when every reader has caught up with the high watermark.
    Finish,
    /// Ten virtual seconds in which all brokers serve. Requests that no client waits for (a produce with acks=0) arrive
    /// and are carried out, and records that are too old are deleted.
    Quiet,
    /// Every log is read once more.
    Last,
    Over,
}

/// A client, and what the world knows about it.
struct HostedClient {
    client: Box<dyn Client>,
    /// The client's name in traces and in the names of its random streams.
    number: u32,
    /// The connections that the client believes in.
    links: BTreeMap<Link, ConnId>,
    wake_at: Option<u64>,
}

struct World {
    scenario: Scenario,
    now: u64,
    events: Events,
    nodes: Vec<Node>,
    /// By node: the events that a paused process will get when it goes on.
    deferred: Vec<Vec<Event>>,
    network: Network,
    /// Attempts to connect that nobody has answered.
    hanging: Vec<ConnId>,
    /// The partitions of which each node has, or had, a replica.
    held: Vec<BTreeSet<PartitionKey>>,
    /// By node: what was seen of its quorum.
    seen: Vec<Seen>,
    rolling: Option<Rolling>,
    clients: Vec<HostedClient>,
    /// The places in `clients`, by the clients' numbers.
    places: BTreeMap<u32, usize>,
    checkers: Vec<Box<dyn Checker>>,
    finals: FinalLogs,
    trace: Trace,
    phase: Phase,
    /// The client that was not done with this phase when it was last looked at.
    awaited: Option<usize>,
    /// Whether it is looked soon whether the replicas are equal.
    awaits_replicas: bool,
    /// Whether the last readers have begun.
    reads_last: bool,
    healed_at: Option<u64>,
    violation: Option<Violation>,
    counts: BTreeMap<&'static str, u64>,
    attacks: BTreeMap<&'static str, u64>,
    /// What happened, if a script asks for it afterwards. A run by seed keeps none of it.
    record: Option<Record>,
    /// The broker's outbox, reused from step to step.
    outbox: Outbox,
}

/// What happened, kept for a script.
#[derive(Debug, Default)]
struct Record {
    facts: Vec<Entry>,
    /// What the brokers told their operators: the node, and the text.
    said: Vec<(usize, String)>,
}

impl World {
    fn new(scenario: &Scenario, plants: Plants, trace: Trace) -> Self {
        let rules = Rules::of(scenario);
        let nodes: Vec<Node> = (0..scenario.nodes).map(|index| Node::new(scenario, index, plants)).collect();
        let mut world = Self {
            now: 0,
            events: Events::default(),
            deferred: nodes.iter().map(|_| Vec::new()).collect(),
            nodes,
            network: Network::new(scenario.seed, scenario.network.clone()),
            hanging: Vec::new(),
            held: vec![BTreeSet::new(); scenario.nodes as usize],
            seen: (0..scenario.nodes).map(|_| Seen::default()).collect(),
            rolling: None,
            clients: Vec::new(),
            places: BTreeMap::new(),
            checkers: checkers::all(&rules),
            finals: FinalLogs::new(),
            trace,
            phase: Phase::Faults,
            awaited: None,
            awaits_replicas: false,
            reads_last: false,
            healed_at: None,
            violation: None,
            counts: BTreeMap::new(),
            attacks: BTreeMap::new(),
            record: None,
            outbox: Outbox::default(),
            scenario: scenario.clone(),
        };
        world.trace.note(0, Note::Scenario(scenario));
        if scenario.cluster.voters == Voters::Recorded {
            // They stand in the snapshot with which the log begins.
            let first = scenario.cluster.first_voters(scenario.nodes).map(|node| Voter { node, disk: 0 });
            let voters: Vec<Voter> = first.collect();
            world.fact(None, Fact::VotersCommitted { node: voters[0].node, offset: -1, voters });
        }
        for node in 0..world.nodes.len() {
            world.events.push(0, Event::NodeStart { node, life: 0 });
        }
        for (place, fault) in scenario.faults.iter().enumerate() {
            world.events.push(fault.at_ns, Event::Fault(place));
        }
        world.events.push(scenario.fault_ns, Event::Heal);
        for (place, plan) in scenario.clients.clone().into_iter().enumerate() {
            world.add_client_as(plan.number.unwrap_or(place as u32), &plan.bootstrap, plan.role);
        }
        world
    }

    fn run(mut self) -> Outcome {
        // Where the build unwinds, a panic of the core is a violation like any other.
        let end = panics::catch(|| {
            while self.violation.is_none() && self.phase != Phase::Over && !self.trace.is_over() {
                self.advance();
            }
        });
        if let Err(panic) = end {
            self.violation = Some(Violation { checker: "panic", place: None, text: panic });
        }
        self.outcome()
    }

    /// Takes the next event from the heap and handles it.
    fn advance(&mut self) {
        let Some((time, cause, event)) = self.events.pop() else {
            return self.stuck("nothing will ever happen again");
        };
        assert!(time >= self.now, "time does not go back");
        self.now = time;
        self.trace.set_cause(cause);
        self.events.cause = self.trace.events();
        if self.healed_at.is_some_and(|healed| time > healed + LIVENESS_NS) {
            self.stuck("time is up");
        } else if self.trace.events() > EVENTS_MAX {
            self.stuck("events without end");
        } else {
            self.handle(event);
        }
    }

    fn outcome(mut self) -> Outcome {
        if let Some(violation) = &self.violation {
            self.trace.note(self.now, Note::Violation(violation));
        }
        if self.trace.is_on() {
            self.note_remains();
        }
        for node in &self.nodes {
            let (losses, of_syncs) = (node.disk.losses(), node.disk.sync_losses());
            let losses = [
                ("writes lost", losses.lost),
                ("writes torn", losses.torn),
                ("writes that overtook a lost one", losses.overtaken),
                ("writes that left their length", losses.hollow),
                ("names lost", losses.names),
                ("writes lost by a failed sync", of_syncs.lost + of_syncs.torn + of_syncs.hollow),
            ];
            for (name, count) in losses.into_iter().filter(|(_, count)| *count > 0) {
                *self.counts.entry(name).or_default() += count;
            }
        }
        Outcome {
            violation: self.violation,
            events: self.trace.events(),
            virtual_ns: self.now,
            hash: self.trace.hash(),
            kept: self.trace.kept().to_vec(),
            counts: self.counts,
            probes: self.outbox.probes.reached().map(|(probe, count)| (probe.name(), count)).collect(),
            attacks: self.attacks,
        }
    }

    /// Writes to the trace how things stand: what each process holds, which files are on the disks, and what each
    /// client still has to do.
    fn note_remains(&mut self) {
        let (now, trace) = (self.now, &mut self.trace);
        trace.note(now, Note::Remains(format_args!("phase {:?}", self.phase)));
        for node in &self.nodes {
            let place = node.index;
            let broker = node.process.as_ref().map(|process| &process.broker);
            let phase = broker.map_or("down", Broker::phase);
            let paused = if node.paused { ", paused" } else { "" };
            let waiting = broker.map_or(0, Broker::requests_waiting);
            trace.note(now, Note::Remains(format_args!("node{place} {phase}{paused}, {waiting} requests wait")));
            if let Some(quorum) = broker.and_then(Broker::quorum) {
                trace.note(now, Note::Remains(format_args!("node{place} quorum {quorum}")));
            }
            for partition in broker.into_iter().flat_map(Broker::partitions) {
                let name = &partition.name;
                trace.note(now, Note::Remains(format_args!("node{place} partition {name} {partition}")));
            }
            for line in node.disk.listing() {
                trace.note(now, Note::Remains(format_args!("node{place} disk {line}")));
            }
        }
        for hosted in &self.clients {
            let (number, pending) = (hosted.number, hosted.client.pending().unwrap_or_else(|| "done".into()));
            trace.note(now, Note::Remains(format_args!("client{number} {} {pending}", hosted.client.role())));
        }
    }

    fn handle(&mut self, event: Event) {
        if let Some(node) = event.node()
            && self.nodes[node].paused
        {
            self.deferred[node].push(event);
            return;
        }
        match event {
            Event::NodeStart { node, life } => self.start_node(node, life),
            Event::NodeIo { node, life, ticket } => self.complete_io(node, life, ticket),
            Event::NodeTick { node, life, at } => self.tick(node, life, at),
            Event::NodeAccept { conn, .. } => self.accept(conn),
            Event::Unheard { conn } => self.refuse(conn),
            Event::NodeRequest { conn, frame, .. } => self.request(conn, frame),
            Event::NodeDisconnected { node, life, conn } => self.disconnected(node, life, conn),
            Event::Departure { conn, .. } => self.depart(conn),
            Event::StopDeadline { node, life } => self.kill_if_not_stopped(node, life),
            Event::RestartAfterDiskError { node, life } => self.restart_after_disk_error(node, life),
            Event::Opener { conn, input } => self.opener_input(conn, input),
            Event::ClientWake { client, at } => self.wake_client(client, at),
            Event::Fault(place) => self.deal_fault(place),
            Event::RollOn => self.roll_on(),
            Event::LoseDisk { node, down_ns } => self.lose_disk(node, down_ns),
            Event::Leave { node, unregister } => self.leave(node, unregister),
            Event::Left { node, since, unregister } => self.has_left(node, since, unregister),
            Event::Resume { node, life } => self.resume(node, life),
            Event::DiskHasSpace { node } => {
                self.nodes[node].disk.full = false;
                self.trace.note(self.now, Note::Full { node, full: false });
            }
            Event::Repair { node } => self.repair(node),
            Event::Heal => self.heal(),
            Event::QuietEnds { all_served: true } => self.begin_last_read(),
            Event::QuietEnds { all_served: false } => self.be_quiet(),
            Event::ReplicasMayBeEqual => {
                self.awaits_replicas = false;
                if self.phase == Phase::Last {
                    self.advance_phase();
                }
            }
        }
    }

    fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    fn violate(&mut self, checker: &'static str, text: String) {
        self.violation.get_or_insert(Violation { checker, place: None, text });
    }

    fn fact(&mut self, client: Option<u32>, fact: Fact) {
        match &fact {
            Fact::Acknowledged { .. } => self.count("batches acknowledged"),
            Fact::Fetched { records, .. } if !records.is_empty() => self.count("fetches with records"),
            Fact::Listed { .. } => self.count("offsets listed"),
            Fact::SequenceRefused { .. } => self.count("sequences refused"),
            Fact::OutOfRange { .. } => self.count("positions out of range"),
            Fact::Withstood { attack } => {
                self.count("attacks withstood");
                *self.attacks.entry(attack).or_default() += 1;
            }
            Fact::Trimmed { .. } => self.count("records deleted by request"),
            Fact::EpochEnd { .. } => self.count("ends of epochs told"),
            Fact::Changed { error: Some(0), .. } => self.count("metadata changes acknowledged"),
            Fact::Changed { error: None, .. } => self.count("metadata changes without an answer"),
            Fact::Unregistered { node } => {
                self.count("brokers unregistered");
                self.nodes[*node as usize].presence = Presence::Unregistered;
            }
            Fact::VotersChanged { .. } => self.count("changes of the voters acknowledged"),
            Fact::Described { .. } => self.count("looks at metadata"),
            Fact::LevelChanged { once: true, .. } => self.count("log levels changed"),
            Fact::LevelTold { .. } => self.count("log levels told"),
            Fact::Kept { .. } => self.count("records kept for an administrator"),
            _ => {}
        }
        if let Fact::Fetched { partition, from, records, last: true, .. } = &fact {
            self.finals.entry(*partition).or_default().extend(*from, records);
        }
        self.trace.note(self.now, Note::Fact { client, fact: &fact });
        self.trace.enter(Part::Checkers);
        let entry = Entry { at: self.now, client, fact };
        if let Some(record) = &mut self.record {
            record.facts.push(entry.clone());
        }
        for checker in &mut self.checkers {
            if let Err(violation) = checker.observe(&entry) {
                self.violation.get_or_insert(violation);
            }
        }
        self.trace.enter(Part::World);
    }

    /// Adds a client that knows these nodes from the start; all brokers, if there are none.
    fn add_client_as(&mut self, number: u32, bootstrap: &[u32], role: Role) {
        let place = self.clients.len();
        let all: Vec<u32> = self.scenario.cluster.brokers(self.scenario.nodes).collect();
        let bootstrap = if bootstrap.is_empty() { &all } else { bootstrap };
        let client = number;
        let seed = self.scenario.seed;
        let zstd_topic = |topic: &crate::client::TopicPlan| {
            topic.configs.get("compression.type").is_some_and(|codec| codec == "zstd")
        };
        let zstd_client = |plan: &ClientPlan| match &plan.role {
            Role::Producer(plan) => plan.codec == Codec::Zstd,
            Role::Application(plan) => plan.properties.get("compression.type").is_some_and(|codec| codec == "zstd"),
            _ => false,
        };
        let setting = Setting {
            seed,
            client,
            nodes: self.scenario.nodes,
            controllers: self.scenario.cluster.controllers(self.scenario.nodes).map(|node| node_id(node).0).collect(),
            cut_off: self.scenario.cluster.cut_off.iter().map(|cut_off| node_id(cut_off.node).0).collect(),
            voters_change: self.scenario.voters_change(),
            bootstrap: bootstrap.iter().map(|node| address(*node)).collect(),
            first_node: *bootstrap.iter().find(|node| all.contains(*node)).expect("it knows a broker"),
            topics: self.scenario.topics.clone(),
            payloads: Payloads { seed, value_bytes_max: self.scenario.value_bytes_max },
            wall_ms: WALL_START_MS + stream(seed, "client.wall", &[client.into()]).below(1_000) as i64,
            zstd: self.scenario.topics.iter().any(zstd_topic) || self.scenario.clients.iter().any(zstd_client),
        };
        let client: Box<dyn Client> = match role {
            Role::Producer(plan) => Box::new(Producer::new(plan, setting)),
            Role::Fetcher(plan) => Box::new(Fetcher::new(plan, setting)),
            Role::Lister(plan) => Box::new(Lister::new(plan, setting)),
            Role::Hostile(plan) => Box::new(Hostile::new(plan, setting)),
            Role::Trimmer(plan) => Box::new(Trimmer::new(plan, setting)),
            Role::Application(plan) => Box::new(Application::new(plan, setting)),
            Role::Reader(plan) => Box::new(Reader::new(plan, setting)),
            Role::Operator(plan) => Box::new(Operator::new(plan, setting)),
            Role::Registrar(plan) => Box::new(Registrar::new(plan, setting)),
            Role::Unregistrar { node } => Box::new(Unregistrar::new(node, &setting)),
            Role::Admin(plan) => Box::new(Admin::new(plan, setting)),
        };
        self.places.insert(number, place);
        self.clients.push(HostedClient { client, number, links: BTreeMap::new(), wake_at: Some(self.now) });
        self.events.push(self.now, Event::ClientWake { client: place, at: self.now });
    }

    fn wake_client(&mut self, client: usize, at: u64) {
        if self.clients[client].wake_at == Some(at) {
            self.clients[client].wake_at = None;
            self.step_client(client, ClientInput::Wake);
        }
    }

    /// Hands an input to the opener of a connection, if the opener still uses the connection.
    fn opener_input(&mut self, conn: ConnId, input: OpenerInput) {
        let number = match End::that_opened(conn) {
            End::Client(number) => number,
            End::Node(node) => return self.link_input(node as usize, conn, input),
        };
        let client = self.places[&number];
        let mut links = self.clients[client].links.iter();
        let Some(link) = links.find(|(_, of)| **of == conn).map(|(link, _)| *link) else { return };
        let is_open = self.network.get(conn).is_some_and(|connection| !connection.gone);
        let ends = matches!(input, OpenerInput::Cut | OpenerInput::Refused);
        if !is_open && !ends {
            return;
        }
        self.step_client(client, ClientInput::Link(link, input));
        if ends {
            self.clients[client].links.remove(&link);
        }
    }

    fn step_client(&mut self, client: usize, input: ClientInput) {
        self.events.cause = self.trace.events();
        let HostedClient { number, links, .. } = &self.clients[client];
        let conn = match &input {
            ClientInput::Link(link, _) => links.get(link).copied(),
            _ => None,
        };
        self.trace.note(self.now, Note::Client { client: *number, conn, input: &input });
        let mut digest = Digest::default();
        match &input {
            ClientInput::Link(_, OpenerInput::Frame(frame)) => digest.bytes(frame),
            ClientInput::Link(_, OpenerInput::Connected) => digest.number(1),
            ClientInput::Link(_, OpenerInput::Refused) => digest.number(2),
            ClientInput::Link(_, OpenerInput::Cut) => digest.number(3),
            ClientInput::Wake => digest.number(4),
            ClientInput::Healed => digest.number(5),
            ClientInput::Finish => digest.number(6),
        }
        let mut out = ClientOutbox::default();
        self.trace.enter(Part::Clients);
        self.clients[client].client.handle(self.now, input, &mut out);
        self.trace.enter(Part::World);
        let mut outputs = Digest::default();
        for action in &out.actions {
            match action {
                ClientAction::Connect(..) => outputs.number(1),
                ClientAction::Close(_) => outputs.number(2),
                ClientAction::Send(_, frame) => outputs.bytes(frame),
                ClientAction::Fact(_) => outputs.number(3),
            }
        }
        for action in out.actions {
            self.client_action(client, action);
        }
        self.trace.step(self.now, 1_000 + client as u64, digest, outputs);
        self.schedule_wake(client);
        // Another client's step changes nothing for the one that the phase waits for.
        if self.awaited.is_none_or(|awaited| awaited == client) {
            self.advance_phase();
        }
    }

    fn client_action(&mut self, client: usize, action: ClientAction) {
        match action {
            ClientAction::Connect(link, address) => {
                let conn = self.connect(End::Client(self.clients[client].number), &address);
                let before = self.clients[client].links.insert(link, conn);
                assert_eq!(before, None, "a client names no two connections alike");
            }
            ClientAction::Close(link) => {
                if let Some(conn) = self.clients[client].links.remove(&link) {
                    self.break_connection(conn);
                }
            }
            ClientAction::Send(link, frame) => {
                if let Some(conn) = self.clients[client].links.get(&link) {
                    self.send_request(*conn, frame);
                }
            }
            ClientAction::Fact(fact) => self.fact(Some(self.clients[client].number), fact),
        }
    }

    /// An end asks for a connection to an address.
    fn connect(&mut self, opener: End, address: &Address) -> ConnId {
        let at = self.nodes.iter().find_map(|node| Some((node.index, node.listener_at(address)?)));
        let (conn, heard_at) = self.network.open(self.now, opener, at);
        self.trace.note(self.now, Note::Opened { conn, address });
        let event = match at {
            Some((node, _)) => Event::NodeAccept { node: node as usize, conn },
            None => Event::Unheard { conn },
        };
        self.events.push(heard_at, event);
        conn
    }

    /// A request sets out from the opener of a connection, if the connection is open.
    fn send_request(&mut self, conn: ConnId, frame: Bytes) {
        let Some(connection) = self.network.get(conn).filter(|connection| !connection.gone) else { return };
        let node = connection.acceptor.expect("it was accepted") as usize;
        match self.send(conn, Way::Forth, &frame) {
            Fate::Arrives(at) => self.events.push(at, Event::NodeRequest { node, conn, frame }),
            Fate::Cut => self.break_connection(conn),
        }
    }

    /// Tells the opener of a connection at the time `at` what has become of it, or what came on it.
    fn tell_opener(&mut self, at: u64, conn: ConnId, input: OpenerInput) {
        self.events.push(at, Event::Opener { conn, input });
    }

    /// A message sets out on an open connection.
    fn send(&mut self, conn: ConnId, way: Way, frame: &Bytes) -> Fate {
        self.trace.enter(Part::Network);
        let fate = self.network.send(self.now, conn, way, frame.len(), true);
        self.trace.enter(Part::World);
        if self.trace.is_on()
            && let Some(connection) = self.network.get(conn)
        {
            let node = connection.acceptor.expect("it was accepted") as usize;
            let arrives_at = match fate {
                Fate::Arrives(at) => Some(at),
                Fate::Cut => None,
            };
            self.trace.note(self.now, Note::Message { conn, node, way, frame, arrives_at });
        }
        fate
    }

    fn schedule_wake(&mut self, client: usize) {
        let slot = &mut self.clients[client];
        let Some(deadline) = slot.client.deadline() else { return };
        let at = deadline.max(self.now + 1_000);
        if slot.wake_at.is_none_or(|wake_at| at < wake_at) {
            slot.wake_at = Some(at);
            self.events.push(at, Event::ClientWake { client, at });
        }
    }

    /// Breaks a connection. Each end learns of it at a time of its own.
    fn break_connection(&mut self, conn: ConnId) {
        self.break_off(conn, Silence::Nobody);
    }

    fn break_off(&mut self, conn: ConnId, silence: Silence) {
        let Some(broken) = self.network.cut(self.now, conn, silence) else { return };
        self.trace.note(self.now, Note::Cut { conn });
        self.count("connections broken");
        self.tell_opener(broken.opener_learns_at, conn, OpenerInput::Cut);
        if let Some(node) = broken.acceptor.map(|node| node as usize) {
            let life = self.nodes[node].life;
            self.events.push(broken.acceptor_learns_at, Event::NodeDisconnected { node, life, conn });
        }
    }

    /// What the first client that is not done still has to do in this phase.
    fn pending(&self) -> Option<String> {
        self.clients.iter().enumerate().find_map(|(place, slot)| {
            let what = slot.client.pending()?;
            Some(format!("{} {place}: {what}", slot.client.role()))
        })
    }

    fn stuck(&mut self, why: &str) {
        let pending = self.pending().or_else(|| self.lagging_replica());
        let pending = pending.unwrap_or_else(|| format!("the phase {:?}", self.phase));
        self.violate("liveness", format!("{why}, and this is not done: {pending}"));
    }

    /// Goes to the next phase once everything of this one is done.
    fn advance_phase(&mut self) {
        if self.phase == Phase::Faults || self.violation.is_some() {
            return;
        }
        self.awaited = self.clients.iter().position(|slot| slot.client.pending().is_some());
        if self.awaited.is_some() {
            return;
        }
        if self.phase == Phase::Last && self.lagging_replica().is_some() {
            if !std::mem::replace(&mut self.awaits_replicas, true) {
                self.events.push(self.now + REPLICAS_LOOK_NS, Event::ReplicasMayBeEqual);
            }
            return;
        }
        if self.phase == Phase::Last && !std::mem::replace(&mut self.reads_last, true) {
            return self.add_last_readers();
        }
        self.phase = match self.phase {
            Phase::Settle => Phase::Finish,
            Phase::Finish => Phase::Quiet,
            Phase::Quiet => return,
            _ => Phase::Over,
        };
        self.trace.say(self.now, "world", format_args!("phase {:?}", self.phase));
        match self.phase {
            // Without clients no step would follow that leads to the next phase.
            Phase::Finish if self.clients.is_empty() => self.advance_phase(),
            Phase::Finish => {
                // All clients are told before any of them can be done.
                for client in 0..self.clients.len() {
                    self.step_client(client, ClientInput::Finish);
                }
            }
            Phase::Quiet => self.be_quiet(),
            Phase::Over => self.judge(),
            Phase::Faults | Phase::Settle | Phase::Last => unreachable!("phases go forward"),
        }
    }

    /// Waits ten seconds, and again if a broker did not serve when they began. One that was restarted may have to wait
    /// for the end of its session from before, and until it serves, it deletes no records that are too old. The clients
    /// may be done without it.
    fn be_quiet(&mut self) {
        let all_served = self.brokers_left().iter().all(|node| self.nodes[*node as usize].is_ready());
        self.events.push(self.now + QUIET_NS, Event::QuietEnds { all_served });
    }

    fn begin_last_read(&mut self) {
        self.phase = Phase::Last;
        self.awaited = None;
        (0..self.nodes.len()).for_each(|node| self.see_image(node));
        self.look_for_gone_brokers();
        self.trace.say(self.now, "world", format_args!("phase {:?}", self.phase));
        if self.scenario.last_power_loss {
            (0..self.nodes.len()).for_each(|node| self.end_process(node, Loss::Power, 1_000_000));
        }
        self.advance_phase();
    }

    /// What reads every log once more. It begins when all replicas are equal: before that, a leader may not know yet how
    /// much is committed.
    fn add_last_readers(&mut self) {
        let plan = FetcherPlan {
            with_session: false,
            max_wait_ms: 100,
            min_bytes: 1,
            max_bytes: 50_000_000,
            partition_max_bytes: 1_000_000,
            gap_ns_max: 1_000,
            last: true,
        };
        let known = self.brokers_left();
        self.add_client_as(LAST_READER, &known, Role::Fetcher(plan));
        let admin = |plan: &ClientPlan| if let Role::Admin(plan) = &plan.role { Some(plan.clone()) } else { None };
        if let Some(plan) = self.scenario.clients.iter().find_map(admin) {
            self.add_client_as(LAST_ADMIN, &known, Role::Admin(AdminPlan { only_looks: true, ..plan }));
        }
    }

    fn judge(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.see_image(node));
        self.trace.enter(Part::Checkers);
        self.read_replicas();
        for checker in &mut self.checkers {
            if let Err(violation) = checker.finish(&self.finals) {
                self.violation.get_or_insert(violation);
            }
        }
    }
}
