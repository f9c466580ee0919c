//! The data of the page, collected from the notes of a run.

use crate::describe::{Describer, Line, partition_of};
use serde::Serialize;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use tidelog_core::ids::{ConnId, LinkId};
use tidelog_core::io::{Input, IoError, IoErrorKind, IoId, IoOp, LinkEvent, Output};
use tidelog_core::wire::ApiKey;
use tidelog_sim::client::{ClientInput, OpenerInput};
use tidelog_sim::history::{Fact, OpId};
use tidelog_sim::network::{End, Way};
use tidelog_sim::scenario::{Fault, Scenario};
use tidelog_sim::trace::{At, Note, Sink};

/// An event and its time.
type Moment = (u64, u64);

/// A time, with the event at it, if there is one.
type Bound = (Option<u64>, u64);

/// All data that the page's script gets. Names of fields are short because each is written thousands of times.
#[derive(Debug, Default, Serialize)]
pub struct Page {
    /// What is wrong, and with which seed.
    pub title: String,
    /// What a scenario's file says that it is about.
    pub note: String,
    /// What to type to run it again.
    pub line: String,
    pub violation: Option<String>,
    pub scenario: Option<Scenario>,
    pub lanes: Vec<Lane>,
    pub partitions: Vec<String>,
    pub events: Vec<Event>,
    pub messages: Vec<Message>,
    pub commands: Vec<Command>,
    pub bands: Vec<Band>,
    pub marks: Vec<Mark>,
    pub phases: Vec<(Moment, String)>,
    pub states: Vec<State>,
    pub remains: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lane {
    pub name: String,
    pub kind: &'static str,
    /// The node, of a node's lane or its disk's.
    pub node: Option<usize>,
}

#[derive(Debug, Default, Serialize)]
pub struct Event {
    pub time: u64,
    pub cause: u64,
    pub lines: Vec<Said>,
}

/// A line of an event: its lane, its kind, its text, and the partitions it is about.
#[derive(Debug, Serialize)]
pub struct Said {
    pub lane: Option<usize>,
    pub kind: &'static str,
    pub text: String,
    pub about: Vec<usize>,
}

#[derive(Debug, Serialize)]
pub struct Message {
    pub from: usize,
    pub to: usize,
    pub label: String,
    pub sent: Moment,
    pub got: Option<Moment>,
    pub lost: Option<Moment>,
    pub about: Vec<usize>,
}

/// A command of a disk.
#[derive(Debug, Serialize)]
pub struct Command {
    pub lane: usize,
    pub kind: &'static str,
    pub text: String,
    pub sent: Moment,
    pub done: Option<Moment>,
    pub failed: bool,
    /// It was under way when its process ended.
    pub lost: Option<Moment>,
    pub about: Vec<usize>,
}

/// A time in which a lane is not as usual: a node is down, a disk is full.
#[derive(Debug, Serialize)]
pub struct Band {
    pub lane: usize,
    pub kind: &'static str,
    pub text: String,
    pub from: Bound,
    /// None if it lasts to the end of the run.
    pub to: Option<Bound>,
}

#[derive(Debug, Serialize)]
pub struct Mark {
    pub lane: usize,
    pub kind: &'static str,
    pub text: String,
    pub at: Moment,
}

/// The state of a node from this event on.
#[derive(Debug, Serialize)]
pub struct State {
    pub event: u64,
    pub node: usize,
    pub life: String,
    pub waiting: usize,
    /// Each partition's name and state, and its leader epoch, log start, high watermark, synced offset and log end.
    pub partitions: Vec<(String, &'static str, [i64; 5])>,
}

/// Listens to a run, and collects the page.
pub struct Recorder {
    page: Rc<RefCell<Page>>,
    describer: Describer,
    topics: Vec<String>,
    /// The names of topics by their ids.
    ids: BTreeMap<String, String>,
    fault_ns: u64,
    /// Messages under way, in order, by connection and whether they go to the end that accepted it.
    under_way: BTreeMap<(ConnId, bool), VecDeque<usize>>,
    /// The connections that nodes have opened, by the node's own names for them.
    links: BTreeMap<(usize, LinkId), ConnId>,
    /// The link that a node asks for, until its connection is known.
    asked_for: Option<(usize, LinkId)>,
    /// Answers that have not left their node yet: their labels and partitions.
    answers: BTreeMap<ConnId, VecDeque<(String, Vec<usize>)>>,
    /// Disk commands under way, by node.
    commands: BTreeMap<usize, BTreeMap<IoId, usize>>,
    bands: BTreeMap<(usize, &'static str), usize>,
    /// The partition of each batch that was sent.
    batches: BTreeMap<OpId, usize>,
}

impl Recorder {
    pub fn new() -> (Self, Rc<RefCell<Page>>) {
        let page = Rc::<RefCell<Page>>::default();
        let recorder = Self {
            page: Rc::clone(&page),
            describer: Describer::default(),
            topics: Vec::new(),
            ids: BTreeMap::new(),
            fault_ns: 0,
            under_way: BTreeMap::new(),
            links: BTreeMap::new(),
            asked_for: None,
            answers: BTreeMap::new(),
            commands: BTreeMap::new(),
            bands: BTreeMap::new(),
            batches: BTreeMap::new(),
        };
        (recorder, page)
    }
}

impl Sink for Recorder {
    fn note(&mut self, at: At, note: &Note<'_>) {
        let page = Rc::clone(&self.page);
        let page = &mut *page.borrow_mut();
        let moment = (at.event, at.time_ns);
        if let Note::Fact { fact: Fact::Topic { topic, id, .. }, .. } = note
            && let Some(name) = self.topics.get(usize::from(*topic))
        {
            self.ids.insert(tidelog_core::ids::Uuid::from_bytes(*id).to_string(), name.clone());
        }
        let lines = self.describer.describe(note);
        let mut about = Vec::new();
        for line in &lines {
            about = self.about(page, note, line);
            if !matches!(line.kind, "scenario" | "remains") {
                page.say(at, line, about.clone());
            }
        }
        self.draw(page, moment, note, lines.last(), about);
    }
}

impl Recorder {
    /// The partitions that a line is about, as far as it tells.
    fn about(&mut self, page: &mut Page, note: &Note<'_>, line: &Line) -> Vec<usize> {
        let mut names = Vec::new();
        match note {
            Note::Input { input: Input::Request(request), .. } => {
                names = partitions_in(&format!("{:?}", request.body), &self.ids);
            }
            Note::Output { output: Output::Respond(_, response), .. } => {
                names = partitions_in(&format!("{:?}", response.body), &self.ids);
            }
            Note::Input { .. } | Note::Output { .. } => {
                // A path such as `0:topic-0-1/00000000000000000000.log`.
                let directory = line.key.split_once(':').map(|(_, path)| path.split('/').next().unwrap_or(path));
                names.extend(directory.filter(|name| !name.is_empty() && !name.starts_with("__")).map(str::to_string));
            }
            Note::State { .. } if !line.key.is_empty() => names.push(line.key.clone()),
            Note::Fact { fact, .. } => {
                let name = |key| {
                    let tidelog_sim::history::PartitionKey { topic, index, .. } = key;
                    Some(format!("{}-{index}", self.topics.get(usize::from(topic))?))
                };
                names.extend(partition_of(fact).and_then(name));
                if let Fact::Acknowledged { op, .. } | Fact::Unknown { op } = fact
                    && let Some(partition) = self.batches.get(op)
                {
                    return vec![*partition];
                }
            }
            Note::Violation(violation) => {
                let topic = violation.place.and_then(|place| Some((self.topics.get(usize::from(place.topic))?, place)));
                names.extend(topic.map(|(topic, place)| format!("{topic}-{}", place.index)));
            }
            _ => {}
        }
        names.retain(|name| self.topics.iter().any(|topic| name.starts_with(topic.as_str())));
        let mut about: Vec<usize> = names.iter().map(|name| page.partition(name)).collect();
        about.sort_unstable();
        about.dedup();
        if let (Note::Fact { fact: Fact::Sent { op, .. }, .. }, Some(partition)) = (note, about.first()) {
            self.batches.insert(*op, *partition);
        }
        about
    }

    fn draw(&mut self, page: &mut Page, now: Moment, note: &Note<'_>, line: Option<&Line>, about: Vec<usize>) {
        let text = line.map_or(String::new(), |line| line.text.clone());
        match note {
            Note::Scenario(scenario) => self.begin(page, scenario),
            Note::Message { conn, node, way, frame, arrives_at } => {
                let (opener, acceptor) = (page.lane_of(End::that_opened(*conn)), page.lane("node", *node));
                let (from, to) = if *way == Way::Forth { (opener, acceptor) } else { (acceptor, opener) };
                let (label, about) = match way {
                    Way::Forth => (request_label(frame), page.said_of(now.0, from)),
                    Way::Back => self.answers.get_mut(conn).and_then(VecDeque::pop_front).unwrap_or_default(),
                };
                let lost = arrives_at.is_none().then_some(now);
                page.messages.push(Message { from, to, label, sent: now, got: None, lost, about });
                if lost.is_none() {
                    let queue = self.under_way.entry((*conn, *way == Way::Forth)).or_default();
                    queue.push_back(page.messages.len() - 1);
                }
            }
            Note::Input { input: Input::Request(request), .. } => {
                self.arrive(page, now, (request.conn, true), about);
            }
            Note::Output { node, output: Output::Connect(link, _) } => self.asked_for = Some((*node, *link)),
            Note::Opened { conn, .. } => {
                if let Some(asked_for) = self.asked_for.take() {
                    self.links.insert(asked_for, *conn);
                }
            }
            Note::Input { node, input: Input::Link(link, LinkEvent::Answer(_)) } => {
                if let Some(conn) = self.links.get(&(*node, *link)) {
                    self.arrive(page, now, (*conn, false), about);
                }
            }
            Note::Client { conn: Some(conn), input: ClientInput::Link(_, OpenerInput::Frame(_)), .. } => {
                self.arrive(page, now, (*conn, false), Vec::new());
            }
            Note::Cut { conn } => {
                for way in [true, false] {
                    for message in self.under_way.get(&(*conn, way)).into_iter().flatten() {
                        page.messages[*message].lost.get_or_insert(now);
                    }
                }
                self.under_way.remove(&(*conn, false));
            }
            Note::Output { output: Output::Respond(conn, response), .. } => {
                let label = format!("{:?} #{}", response.api_key, response.correlation_id);
                self.answers.entry(*conn).or_default().push_back((label, about));
            }
            Note::Output { node, output: Output::Io(command) } => {
                let lane = page.lane("disk", *node);
                let kind = match command.op {
                    IoOp::Write { .. } => "write",
                    IoOp::Sync { .. } | IoOp::SyncDir { .. } => "sync",
                    IoOp::Read { .. } | IoOp::Load { .. } | IoOp::List { .. } | IoOp::Volume { .. } => "read",
                    _ => "name",
                };
                let command_drawn =
                    Command { lane, kind, text, sent: now, done: None, failed: false, lost: None, about };
                page.commands.push(command_drawn);
                self.commands.entry(*node).or_default().insert(command.id, page.commands.len() - 1);
            }
            Note::Input { node, input: Input::Io(completion) } => {
                if let Some(command) = self.commands.entry(*node).or_default().remove(&completion.id) {
                    page.commands[command].done = Some(now);
                    // That a file does not exist is an ordinary answer.
                    let failed = |error: &IoError| error.kind != IoErrorKind::NotFound;
                    page.commands[command].failed = completion.result.as_ref().is_err_and(failed);
                }
            }
            Note::Started { node } => {
                let lane = page.lane("node", *node);
                self.end_band(page, lane, "down", now);
                self.begin_band(page, lane, "starts", now, "it starts");
            }
            Note::Ended { node, loss } => {
                let lane = page.lane("node", *node);
                for kind in ["starts", "paused"] {
                    self.end_band(page, lane, kind, now);
                }
                self.begin_band(page, lane, "down", now, &format!("down, with the loss of its {loss:?}"));
                page.marks.push(Mark { lane, kind: "end", text, at: now });
                for command in self.commands.remove(node).unwrap_or_default().into_values() {
                    page.commands[command].lost = Some(now);
                }
                page.states.push(State {
                    event: now.0,
                    node: *node,
                    life: "down".into(),
                    waiting: 0,
                    partitions: Vec::new(),
                });
            }
            Note::Paused { node, paused } => self.band(page, *node, "node", "paused", *paused, now),
            Note::Full { node, full } => self.band(page, *node, "disk", "full", *full, now),
            Note::Fault { node, fault } => self.fault(page, *node, fault, now, text),
            Note::State { node, broker } => {
                let phase = broker.phase();
                if phase == "running" {
                    let lane = page.lane("node", *node);
                    self.end_band(page, lane, "starts", now);
                }
                let partitions = broker.partitions().map(|view| {
                    let numbers =
                        [view.log_start, view.high_watermark, view.synced, view.log_end].map(|offset| offset.0);
                    let [start, high, synced, end] = numbers;
                    (view.name, view.state, [view.leader_epoch.0.into(), start, high, synced, end])
                });
                let (life, waiting, partitions) = (phase.to_string(), broker.requests_waiting(), partitions.collect());
                page.change(State { event: now.0, node: *node, life, waiting, partitions });
            }
            Note::Said { text, .. } => {
                if let Some(phase) = text.to_string().strip_prefix("phase ") {
                    page.phases.push((now, phase.to_string()));
                }
            }
            Note::Violation(_) => page.phases.push((now, "violation".into())),
            Note::Remains(text) => page.remains.push(text.to_string()),
            _ => {}
        }
    }

    fn begin(&mut self, page: &mut Page, scenario: &Scenario) {
        self.fault_ns = scenario.fault_ns;
        self.topics = scenario.topics.iter().map(|topic| topic.name.clone()).collect();
        for (place, client) in scenario.clients.iter().enumerate() {
            let number = client.number.unwrap_or(place as u32);
            page.lane("client", number as usize);
        }
        for topic in &scenario.topics {
            for index in 0..topic.partitions {
                page.partition(&format!("{}-{index}", topic.name));
            }
        }
        page.scenario = Some(scenario.clone());
    }

    fn arrive(&mut self, page: &mut Page, now: Moment, way: (ConnId, bool), about: Vec<usize>) {
        let Some(message) = self.under_way.get_mut(&way).and_then(VecDeque::pop_front) else { return };
        let message = &mut page.messages[message];
        message.got = Some(now);
        message.lost = None;
        if !about.is_empty() {
            message.about = about;
        }
    }

    fn fault(&mut self, page: &mut Page, node: usize, fault: &Fault, now: Moment, text: String) {
        let lane = page.lane("node", node);
        // The bands of the fault: on which lanes, of what kind, how many, and how long each is. A flapping partition
        // has several.
        let (of, kind, times, for_ns) = match fault {
            // A partition from few ends is shown on their lanes, one from all others on the lanes of those cut off.
            Fault::Partition { with, from, for_ns, times, .. } => {
                let lanes: Vec<usize> = match &from[..] {
                    [] => with.iter().map(|end| page.lane_of(*end)).chain([lane]).collect(),
                    from => from.iter().map(|end| page.lane_of(*end)).collect(),
                };
                (lanes, "partition", *times, *for_ns)
            }
            Fault::Slow { for_ns, .. } => (vec![lane], "slow", 1, *for_ns),
            _ => (Vec::new(), "", 0, 0),
        };
        for (lane, time) in of.iter().flat_map(|lane| (0..u64::from(times)).map(move |time| (*lane, time))) {
            let from = now.1 + 2 * time * for_ns;
            let to = Some((None, (from + for_ns).min(self.fault_ns)));
            page.bands.push(Band { lane, kind, text: text.clone(), from: (None, from), to });
        }
        page.marks.push(Mark { lane, kind: "fault", text, at: now });
    }

    fn band(&mut self, page: &mut Page, node: usize, of: &'static str, kind: &'static str, begins: bool, now: Moment) {
        let lane = page.lane(of, node);
        if begins {
            self.begin_band(page, lane, kind, now, kind);
        } else {
            self.end_band(page, lane, kind, now);
        }
    }

    fn begin_band(&mut self, page: &mut Page, lane: usize, kind: &'static str, now: Moment, text: &str) {
        page.bands.push(Band { lane, kind, text: text.to_string(), from: (Some(now.0), now.1), to: None });
        self.bands.insert((lane, kind), page.bands.len() - 1);
    }

    fn end_band(&mut self, page: &mut Page, lane: usize, kind: &'static str, now: Moment) {
        if let Some(band) = self.bands.remove(&(lane, kind)) {
            page.bands[band].to = Some((Some(now.0), now.1));
        }
    }
}

impl Page {
    fn lane(&mut self, kind: &'static str, number: usize) -> usize {
        let name = match kind {
            "disk" => format!("node{number} disk"),
            _ => format!("{kind}{number}"),
        };
        if let Some(lane) = self.lanes.iter().position(|lane| lane.name == name) {
            return lane;
        }
        let node = (kind != "client").then_some(number);
        self.lanes.push(Lane { name, kind, node });
        self.lanes.len() - 1
    }

    fn lane_of(&mut self, end: End) -> usize {
        match end {
            End::Client(number) => self.lane("client", number as usize),
            End::Node(node) => self.lane("node", node as usize),
        }
    }

    fn partition(&mut self, name: &str) -> usize {
        self.partitions.iter().position(|known| known == name).unwrap_or_else(|| {
            self.partitions.push(name.to_string());
            self.partitions.len() - 1
        })
    }

    fn say(&mut self, at: At, line: &Line, about: Vec<usize>) {
        while self.events.len() as u64 <= at.event {
            self.events.push(Event { time: at.time_ns, cause: at.cause, lines: Vec::new() });
        }
        let number = |kind: &str| line.place.strip_prefix(kind)?.parse().ok();
        let lane = number("node").map(|node| self.lane("node", node));
        let lane = lane.or_else(|| number("client").map(|client| self.lane("client", client)));
        let said = Said { lane, kind: line.kind, text: line.text.clone(), about };
        self.events[at.event as usize].lines.push(said);
    }

    /// The partitions that a lane has spoken of in this event so far.
    fn said_of(&self, event: u64, lane: usize) -> Vec<usize> {
        let lines = self.events.get(event as usize).map_or(&[][..], |event| &event.lines);
        let mut about: Vec<usize> =
            lines.iter().filter(|said| said.lane == Some(lane)).flat_map(|said| said.about.clone()).collect();
        about.sort_unstable();
        about.dedup();
        about
    }

    /// Adds a node's state, if it differs from its last one.
    fn change(&mut self, state: State) {
        let before = self.states.iter().rev().find(|before| before.node == state.node);
        let is_same = before.is_some_and(|before| {
            (&before.life, before.waiting, &before.partitions) == (&state.life, state.waiting, &state.partitions)
        });
        if !is_same {
            self.states.push(state);
        }
    }
}

/// A request's label: its kind and its correlation id, read from its header.
fn request_label(frame: &[u8]) -> String {
    let Some((key, rest)) = frame.split_first_chunk::<2>() else { return "no request".into() };
    let id = rest.get(2..6).and_then(|id| id.try_into().ok()).map_or(-1, i32::from_be_bytes);
    match ApiKey::from_code(i16::from_be_bytes(*key)) {
        Some(key) => format!("{key:?} #{id}"),
        None => "no request".into(),
    }
}

/// The partitions that a message names, read from its text: every message says `name`, `topic` or `topic_id`, and
/// `index`, `partition` or `partition_index` for them, whatever else it holds.
fn partitions_in(text: &str, ids: &BTreeMap<String, String>) -> Vec<String> {
    let mut topic = None;
    let mut found = Vec::new();
    for field in text.split([',', '{', '[']) {
        let Some((name, value)) = field.trim().split_once(": ") else { continue };
        let value = value.trim_end_matches([' ', '}', ']', ')']).trim_start_matches("Some(");
        match name {
            "name" | "topic" => topic = Some(value.trim_matches('"').to_string()),
            "topic_id" => topic = ids.get(value).cloned().or(topic),
            "index" | "partition" | "partition_index" => {
                if let (Some(topic), Ok(index)) = (&topic, value.parse::<u32>()) {
                    found.push(format!("{topic}-{index}"));
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_of_its_partitions_by_name_or_by_id() {
        let ids = BTreeMap::from([("AbC_1".to_string(), "logs".to_string())]);
        let named = r#"Produce(ProduceRequest { acks: -1, topic_data: [TopicProduceData { name: "a", topic_id: AAAA, partition_data: [P { index: 0, records: None }, P { index: 3 }] }] })"#;
        assert_eq!(partitions_in(named, &ids), ["a-0", "a-3"]);
        let by_id = r#"Fetch(R { topics: [T { topic: "", topic_id: AbC_1, partitions: [P { partition: 2, current_leader_epoch: -1 }] }] })"#;
        assert_eq!(partitions_in(by_id, &ids), ["logs-2"]);
        assert!(partitions_in("ApiVersions(R { client_software_name: \"x\" })", &ids).is_empty());
    }

    #[test]
    fn a_request_is_called_by_its_header() {
        assert_eq!(request_label(&[0, 1, 0, 12, 0, 0, 1, 0, 99]), "Fetch #256");
        assert_eq!(request_label(&[0]), "no request");
        assert_eq!(request_label(&[127, 1]), "no request");
    }
}
