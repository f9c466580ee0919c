//! Turns notes of a trace into lines. A line has the place where something happened, its kind, what it is about, and a
//! text.

use std::collections::BTreeMap;
use std::fmt;
use tidelog_core::broker::PartitionView;
use tidelog_core::ids::{ConnId, FileId, LinkId};
use tidelog_core::io::{
    DiskPath, Input, IoCommand, IoCompletion, IoDone, IoErrorKind, IoOp, IoOwner, LinkEvent, Origin, Output,
    PeerRequest,
};
use tidelog_sim::client::{ClientInput, OpenerInput};
use tidelog_sim::history::{Fact, PartitionKey};
use tidelog_sim::network::{CONNECTIONS_MAX, End, Way};
use tidelog_sim::trace::Note;

#[derive(Clone, Debug)]
pub struct Line {
    pub place: String,
    pub kind: &'static str,
    /// The file, connection or partition that the line is about. All lines about it have the same key.
    pub key: String,
    /// If something changed: the values before and after.
    pub change: Option<(String, String)>,
    pub text: String,
}

impl Line {
    fn new(place: impl fmt::Display, kind: &'static str, key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: place.to_string(), kind, key: key.into(), change: None, text: text.into() }
    }

    /// The mark of the line in a short trace.
    pub fn mark(&self) -> char {
        match self.kind {
            "input" => '>',
            "output" => '<',
            "fact" => '*',
            "fault" | "process" | "volume" => '!',
            "state" => '=',
            "network" | "message" => '~',
            "client" => '.',
            "violation" => 'X',
            _ => ' ',
        }
    }
}

/// Turns notes into lines. It remembers names of open files, and the state of each node to tell only changes.
#[derive(Debug, Default)]
pub struct Describer {
    files: BTreeMap<(usize, FileId), String>,
    /// Disk commands that are under way, with the path and text for the line of their completion.
    commands: BTreeMap<(usize, String), (String, String)>,
    partitions: BTreeMap<(usize, String), PartitionView>,
    lives: BTreeMap<usize, &'static str>,
}

impl Describer {
    pub fn describe(&mut self, note: &Note<'_>) -> Vec<Line> {
        match note {
            Note::Scenario(scenario) => {
                let lines = scenario.to_string();
                lines.lines().map(|line| Line::new("", "scenario", "", line)).collect()
            }
            Note::Input { node, input } => vec![self.input(*node, input)],
            Note::Output { node, output } => vec![self.output(*node, output)],
            Note::State { node, broker } => {
                let mut lines = Vec::new();
                let before = self.lives.insert(*node, broker.phase()).unwrap_or("down");
                if before != broker.phase() {
                    lines.push(changed(*node, "", before, broker.phase()));
                }
                for view in broker.partitions() {
                    let before = self.partitions.get(&(*node, view.name.clone()));
                    if before != Some(&view) {
                        let was = before.map_or("absent".into(), PartitionView::to_string);
                        lines.push(changed(*node, &view.name, &was, &view.to_string()));
                        self.partitions.insert((*node, view.name.clone()), view);
                    }
                }
                lines
            }
            Note::Disk { node, command, completes_at } => {
                let text = format!("{} completes at {} ms", owner(command.owner), milliseconds(*completes_at));
                vec![Line::new(
                    format_args!("node{node}"),
                    "disk",
                    format!("{}#{}", owner(command.owner), command.seq),
                    text,
                )]
            }
            Note::Started { node } => {
                vec![Line::new(format_args!("node{node}"), "process", "", "starts")]
            }
            Note::Ended { node, loss } => {
                self.lives.remove(node);
                self.partitions.retain(|(of, _), _| of != node);
                self.files.retain(|(of, _), _| of != node);
                self.commands.retain(|(of, _), _| of != node);
                let text = format!("ends, with the loss of its {loss:?}");
                vec![Line::new(format_args!("node{node}"), "process", "", text)]
            }
            Note::Paused { node, paused } => {
                let text = if *paused { "stands still" } else { "goes on" };
                vec![Line::new(format_args!("node{node}"), "process", "", text)]
            }
            Note::Full { node, full } => {
                let text = if *full { "the volume is full" } else { "the volume has space" };
                vec![Line::new(format_args!("node{node}"), "volume", "", text)]
            }
            Note::Fault { node, fault } => {
                vec![Line::new(format_args!("node{node}"), "fault", "", format!("{fault:?}"))]
            }
            Note::Opened { conn, address } => {
                let text = format!("{} is opened to {address}", conn_name(*conn));
                vec![Line::new(End::that_opened(*conn), "network", conn_name(*conn), text)]
            }
            Note::Message { conn, node, way, frame, arrives_at } => {
                let (opener, acceptor) = (End::that_opened(*conn), End::Node(*node as u32));
                let (from, to) = match way {
                    Way::Forth => (opener, acceptor),
                    Way::Back => (acceptor, opener),
                };
                let fate = match arrives_at {
                    Some(at) => format!("arrives at {} ms", milliseconds(*at)),
                    None => "is lost with its connection".into(),
                };
                let text = format!("{} to {to}: {} bytes, {fate}", conn_name(*conn), frame.len());
                vec![Line::new(from, "message", conn_name(*conn), text)]
            }
            Note::Cut { conn } => {
                let text = format!("{} is gone, with all that is under way on it", conn_name(*conn));
                vec![Line::new("network", "network", conn_name(*conn), text)]
            }
            Note::Client { client, conn, input } => {
                let key = conn.map_or(String::new(), conn_name);
                vec![Line::new(format_args!("client{client}"), "client", key, client_input(*conn, input))]
            }
            Note::Fact { client, fact } => {
                let place = client.map_or("world".into(), |client| format!("client{client}"));
                let key = partition_of(fact).map_or(String::new(), |key| key.to_string());
                vec![Line::new(place, "fact", key, shorten(format!("{fact:?}"), 400))]
            }
            Note::Violation(violation) => {
                let key = violation.place.map_or(String::new(), |place| place.to_string());
                vec![Line::new("", "violation", key, format!("violation of {violation}"))]
            }
            Note::Said { place, text } => vec![Line::new(place, "said", "", text.to_string())],
            Note::Remains(text) => vec![Line::new("", "remains", "", text.to_string())],
        }
    }

    fn input(&mut self, node: usize, input: &Input) -> Line {
        let (key, text) = match input {
            Input::Boot => (String::new(), "boot".into()),
            Input::Tick => (String::new(), "tick".into()),
            Input::Stop => (String::new(), "stop".into()),
            Input::Connected(conn, Origin { listener, address }) => {
                let conn = conn_name(*conn);
                (conn.clone(), format!("{conn} comes from {address} to listener {listener}"))
            }
            Input::Disconnected(conn) => (conn_name(*conn), format!("{} is disconnected", conn_name(*conn))),
            Input::Request(request) => {
                let header = &request.header;
                let (conn, key, version) = (conn_name(request.conn), header.api_key, header.api_version);
                let body = body(&request.body);
                (conn.clone(), format!("{conn} {key:?} v{version} #{} {body}", header.correlation_id))
            }
            Input::Io(completion) => self.completion(node, completion),
            Input::Link(link, event) => (link_name(*link), link_event(*link, event)),
        };
        Line::new(format_args!("node{node}"), "input", key, text)
    }

    fn completion(&mut self, node: usize, completion: &IoCompletion) -> (String, String) {
        let id = format!("{}#{}", owner(completion.id.owner), completion.id.seq);
        let (path, what) = self.commands.remove(&(node, id.clone())).unwrap_or_default();
        let result = match &completion.result {
            Ok(IoDone::Unit) => "done".into(),
            Ok(IoDone::Len(len)) => format!("{len} bytes long"),
            Ok(IoDone::Bytes(bytes)) => format!("{} bytes", bytes.len()),
            Ok(IoDone::Entries(entries)) => {
                let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
                shorten(format!("[{}]", names.join(" ")), 200)
            }
            Ok(IoDone::Volume { usable_bytes, .. }) => format!("{usable_bytes} bytes usable"),
            Err(error) if error.kind == IoErrorKind::NotFound => "is not there".into(),
            Err(error) => format!("FAILED {error}"),
        };
        (path, format!("{id} {what}: {result}"))
    }

    fn output(&mut self, node: usize, output: &Output) -> Line {
        let (key, text) = match output {
            Output::Respond(conn, response) => {
                let (conn, key, version) = (conn_name(*conn), response.api_key, response.api_version);
                let body = body(&response.body);
                (conn.clone(), format!("{conn} {key:?} v{version} #{} {body}", response.correlation_id))
            }
            Output::Close(conn, why) => (conn_name(*conn), format!("close {}: {why}", conn_name(*conn))),
            Output::Io(command) => self.command(node, command),
            Output::Connect(link, address) => (link_name(*link), format!("connect {} to {address}", link_name(*link))),
            Output::Send(link, request) => {
                let PeerRequest { header, body: asked } = &**request;
                let (link, key, version) = (link_name(*link), header.api_key, header.api_version);
                (link.clone(), format!("{link} {key:?} v{version} #{} {}", header.correlation_id, body(asked)))
            }
            Output::HangUp(link) => (link_name(*link), format!("hang up {}", link_name(*link))),
            Output::Listen(listener) => (String::new(), format!("listen on listener {listener}")),
            Output::Drain(listener) => (String::new(), format!("take no more connections on listener {listener}")),
            Output::Ready => (String::new(), "ready".into()),
            Output::Stopped => (String::new(), "stopped".into()),
            Output::Limits(limits) => (String::new(), format!("{limits:?}")),
            Output::LogLevels(loggers) => {
                let levels = loggers.own_levels().map(|(name, level)| format!("{name}={}", level.name()));
                (String::new(), format!("log levels {}", levels.collect::<Vec<_>>().join(" ")))
            }
            Output::Fatal(text) => (String::new(), format!("fatal: {text}")),
            Output::Event(event) => (String::new(), format!("{:?} {}: {}", event.level, event.part.name(), event.text)),
        };
        Line::new(format_args!("node{node}"), "output", key, text)
    }

    fn command(&mut self, node: usize, command: &IoCommand) -> (String, String) {
        if let IoOp::Open { file, path, .. } = &command.op {
            self.files.insert((node, *file), shown(path));
        }
        let (path, what) = self.operation(node, &command.op);
        let id = format!("{}#{}", owner(command.id.owner), command.id.seq);
        self.commands.insert((node, id.clone()), (path.clone(), what.clone()));
        (path, format!("{id} {what}"))
    }

    fn operation(&self, node: usize, op: &IoOp) -> (String, String) {
        let of = |file: &FileId| self.files.get(&(node, *file)).cloned().unwrap_or_else(|| format!("file {}", file.0));
        match op {
            IoOp::List { path } => (shown(path), format!("list {}", shown(path))),
            IoOp::CreateDir { path } => (shown(path), format!("create directory {}", shown(path))),
            IoOp::SyncDir { path } => (shown(path), format!("sync directory {}", shown(path))),
            IoOp::Rename { from, to } => (shown(from), format!("rename {} to {}", shown(from), shown(to))),
            IoOp::Remove { path } => (shown(path), format!("remove {}", shown(path))),
            IoOp::RemoveDir { path } => (shown(path), format!("remove directory {}", shown(path))),
            IoOp::Load { path, .. } => (shown(path), format!("load {}", shown(path))),
            IoOp::Replace { path, content } => {
                (shown(path), format!("replace {} with {} bytes", shown(path), content.len()))
            }
            IoOp::Open { path, create, .. } => {
                (shown(path), format!("{} {}", if *create { "create" } else { "open" }, shown(path)))
            }
            IoOp::Write { file, position, chunks } => {
                let len: usize = chunks.iter().map(bytes::Bytes::len).sum();
                (of(file), format!("write {}[{position}..{}]", of(file), position + len as u64))
            }
            IoOp::Read { file, position, len } => {
                (of(file), format!("read {}[{position}..{}]", of(file), position + u64::from(*len)))
            }
            IoOp::SetLen { file, len } => (of(file), format!("set length of {} to {len}", of(file))),
            IoOp::Sync { file } => (of(file), format!("sync {}", of(file))),
            IoOp::Close { file } => (of(file), format!("close {}", of(file))),
            IoOp::Volume { dir } => (String::new(), format!("volume of directory {}", dir.0)),
        }
    }
}

fn changed(node: usize, key: &str, before: &str, after: &str) -> Line {
    let about = if key.is_empty() { String::new() } else { format!("{key} ") };
    Line {
        change: Some((before.to_string(), after.to_string())),
        ..Line::new(format_args!("node{node}"), "state", key, format!("{about}{after}"))
    }
}

/// The name of a connection: its client's number, and its number among that client's connections.
pub fn conn_name(conn: ConnId) -> String {
    let count = conn.0 % CONNECTIONS_MAX;
    match End::that_opened(conn) {
        End::Client(number) => format!("c{number}.{count}"),
        End::Node(node) => format!("n{node}.{count}"),
    }
}

/// The name of a connection that a node opens.
fn link_name(link: LinkId) -> String {
    format!("l{}", link.0)
}

fn link_event(link: LinkId, event: &LinkEvent) -> String {
    let link = link_name(link);
    match event {
        LinkEvent::Opened => format!("{link} is open"),
        LinkEvent::Lost(why) => format!("{link} is lost: {why}"),
        LinkEvent::Answer(answer) => match &answer.read {
            Ok((correlation_id, answer)) => format!("{link} #{correlation_id} {}", body(answer)),
            Err(error) => format!("{link} an answer that cannot be read: {error}"),
        },
    }
}

pub fn owner(owner: IoOwner) -> String {
    match owner {
        IoOwner::Dir(dir) => format!("dir{}", dir.0),
        IoOwner::Log(log) => format!("log{}", log.0),
        IoOwner::Quorum => "quorum".into(),
    }
}

fn shown(path: &DiskPath) -> String {
    format!("{}:{}", path.dir.0, path.path)
}

/// The text of a request or response, without empty tagged fields, and with the length of its records in place of their
/// bytes.
fn body(body: &impl fmt::Debug) -> String {
    let text = format!("{body:?}").replace(", unknown_tagged_fields: TaggedFields(None)", "");
    shorten(without_bytes(&text), 400)
}

/// A text with every `b"..."` in it as `<length>`.
fn without_bytes(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, literal)) = rest.split_once("(b\"") {
        let (mut chars, mut len) = (literal.char_indices(), 0);
        let end = loop {
            match chars.next() {
                Some((place, '"')) => break place + 1,
                Some((_, '\\')) => {
                    // `\xff`, or one character.
                    let skipped = if matches!(chars.next(), Some((_, 'x'))) { 2 } else { 0 };
                    chars.by_ref().take(skipped).for_each(drop);
                }
                Some(_) => {}
                None => break literal.len(),
            }
            len += 1;
        };
        plain.push_str(&format!("{before}(<{len}>"));
        rest = &literal[end..];
    }
    plain + rest
}

fn client_input(conn: Option<ConnId>, input: &ClientInput) -> String {
    let conn = conn.map_or(String::new(), conn_name);
    match input {
        ClientInput::Link(_, OpenerInput::Frame(frame)) => format!("{conn} a response of {} bytes", frame.len()),
        ClientInput::Link(_, OpenerInput::Connected) => format!("{conn} is connected"),
        ClientInput::Link(_, OpenerInput::Refused) => format!("{conn} is refused"),
        ClientInput::Link(_, OpenerInput::Cut) => format!("{conn} is cut"),
        other => format!("{other:?}"),
    }
}

pub fn partition_of(fact: &Fact) -> Option<PartitionKey> {
    match fact {
        Fact::Sent { partition, .. }
        | Fact::SequenceRefused { partition, .. }
        | Fact::Fetched { partition, .. }
        | Fact::OutOfRange { partition, .. }
        | Fact::LeaderEpoch { partition, .. }
        | Fact::EpochEnd { partition, .. }
        | Fact::Listed { partition, .. } => Some(*partition),
        _ => None,
    }
}

pub fn milliseconds(ns: u64) -> String {
    format!("{}.{:06}", ns / 1_000_000, ns % 1_000_000)
}

pub fn shorten(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        let cut = (0..=longest).rev().find(|place| text.is_char_boundary(*place)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_by_their_length() {
        let bytes = |bytes: &'static [u8]| bytes::Bytes::from_static(bytes);
        let text = format!("{:?}", [Some(bytes(b"a\"\\\0\xffz\n")), None, Some(bytes(b""))]);
        assert_eq!(without_bytes(&text), "[Some(<7>), None, Some(<0>)]");
        assert_eq!(without_bytes("(b\"cut off"), "(<7>");
    }
}
