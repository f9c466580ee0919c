//! Nodes in the world: hands each input to a node's broker, and carries out the broker's outputs.

use super::events::Event;
use super::{Phase, World};
use crate::client::OpenerInput;
use crate::disk::{self, Loss, Ticket};
use crate::history::{Fact, PartitionKey};
use crate::network::{End, Fate, Outgoing, Piece, Silence, Way};
use crate::random::stream;
use crate::trace::{Digest, Note, Part};
use bytes::{Bytes, BytesMut};
use tidelog_core::api::prepare;
use tidelog_core::batch::BatchLimits;
use tidelog_core::buggify::ASKED_FOR;
use tidelog_core::ids::ConnId;
use tidelog_core::io::{Input, IoOwner, Origin, Output, Response};
use tidelog_core::wire::{RecordsChunk, encode_response};

/// How a process ends by itself.
enum Exit {
    Stopped,
    Fatal(String),
}

/// The broker's metrics are gathered and checked once in this many steps.
const STEPS_BETWEEN_METRICS: u64 = 16;

impl World {
    pub(super) fn start_node(&mut self, node: usize, life: u64) {
        let is_of_this_life = self.nodes[node].life == life && !self.nodes[node].is_gone();
        if !is_of_this_life || self.nodes[node].process.is_some() {
            return;
        }
        self.count("process starts");
        self.nodes[node].start();
        self.trace.note(self.now, Note::Started { node });
        if life > 0 {
            let held = self.held(node);
            self.fact(None, Fact::Restarted { node: node as u32, held });
        }
        self.see_quorum_state(node);
        self.step_node(node, Input::Boot, Digest::default());
    }

    pub(super) fn complete_io(&mut self, node: usize, life: u64, ticket: Ticket) {
        if self.nodes[node].life != life {
            return;
        }
        self.trace.enter(Part::Disk);
        let dealt = self.nodes[node].disk.errors_dealt;
        let wall = self.nodes[node].clock.now(self.now).wall;
        let completion = self.nodes[node].disk.complete(wall, ticket);
        self.trace.enter(Part::World);
        if self.nodes[node].disk.errors_dealt > dealt {
            self.count("disk errors");
        }
        let mut digest = Digest::default();
        disk::digest_completion(&completion, &mut digest);
        if completion.id.owner == IoOwner::Quorum {
            self.see_quorum_state(node);
        }
        self.step_node(node, Input::Io(completion), digest);
        self.schedule_restart_after_disk_error(node);
    }

    pub(super) fn tick(&mut self, node: usize, life: u64, at: u64) {
        let of_this_life = self.nodes[node].life == life;
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        if of_this_life && process.tick_at == Some(at) {
            process.tick_at = None;
            self.step_node(node, Input::Tick, Digest::default());
        }
    }

    pub(super) fn accept(&mut self, conn: ConnId) {
        let Some(connection) = self.network.get(conn).filter(|connection| !connection.gone) else { return };
        let node = connection.acceptor.expect("it is a node's address") as usize;
        let origin = Origin { listener: connection.listener, address: connection.opener.address() };
        if !self.nodes[node].accepts(origin.listener) {
            return self.refuse(conn);
        }
        let Fate::Arrives(at) = self.network.send(self.now, conn, Way::Back, 0, false) else {
            unreachable!("an accept does not break")
        };
        self.tell_opener(at, conn, OpenerInput::Connected);
        let mut digest = Digest::default();
        digest.number(conn.0);
        self.step_node(node, Input::Connected(conn, origin), digest);
    }

    /// Nobody listens where a connection is asked for: the opener is told so, or is told nothing at all.
    pub(super) fn refuse(&mut self, conn: ConnId) {
        let hangs = self.network.hangs(conn);
        if self.network.cut(self.now, conn, Silence::Nobody).is_none() {
            return;
        }
        if hangs {
            self.hanging.push(conn);
            return self.count("connects that hang");
        }
        self.tell_opener(self.now + 50_000, conn, OpenerInput::Refused);
    }

    pub(super) fn request(&mut self, conn: ConnId, frame: Bytes) {
        let Some(connection) = self.network.get(conn) else { return };
        if connection.closing {
            return;
        }
        let (opener, gone) = (connection.opener, connection.gone);
        let node = connection.acceptor.expect("it was accepted") as usize;
        if gone {
            self.count("requests of clients that are gone");
        }
        let mut digest = Digest::default();
        digest.bytes(&frame);
        match prepare(conn, frame, &BatchLimits::default()) {
            Ok(request) => {
                self.see_request(node, &request);
                self.step_node(node, Input::Request(Box::new(request)), digest);
            }
            Err(_) if self.is_hostile(opener) => {
                self.count("requests that are none");
                self.trace.step(self.now, node as u64, digest, Digest::default());
                self.break_connection(conn);
            }
            Err(error) => self.violate("protocol", format!("a request was refused: {error}")),
        }
    }

    fn is_hostile(&self, opener: End) -> bool {
        matches!(opener, End::Client(number) if self.clients[self.places[&number]].client.is_hostile())
    }

    pub(super) fn disconnected(&mut self, node: usize, life: u64, conn: ConnId) {
        self.network.forget(conn);
        if self.nodes[node].life == life && self.nodes[node].process.is_some() {
            let mut digest = Digest::default();
            digest.number(conn.0);
            self.step_node(node, Input::Disconnected(conn), digest);
        }
    }

    /// Hands one input to one broker, and carries out every output.
    pub(super) fn step_node(&mut self, place: usize, input: Input, input_digest: Digest) {
        let node = &mut self.nodes[place];
        let now = node.clock.now(self.now);
        let Some(process) = node.process.as_mut() else { return };
        self.events.cause = self.trace.events();
        self.trace.note(self.now, Note::Input { node: place, input: &input });
        process.steps += 1;
        let mut outbox = std::mem::take(&mut self.outbox);
        self.trace.enter(Part::Broker);
        std::mem::swap(&mut outbox.dice, &mut process.dice);
        process.broker.handle(now, input, &mut outbox);
        std::mem::swap(&mut outbox.dice, &mut process.dice);
        self.trace.enter(Part::Checkers);
        process.broker.verify();
        if process.steps % STEPS_BETWEEN_METRICS == 0 {
            process.broker.verify_metrics();
        }
        self.trace.enter(Part::World);
        let mut digest = Digest::default();
        let mut end = None;
        for output in outbox.outputs.drain(..) {
            self.trace.note(self.now, Note::Output { node: place, output: &output });
            self.carry_out(place, output, &mut digest, &mut end);
        }
        self.outbox = outbox;
        if let Some(process) = &self.nodes[place].process {
            self.trace.note(self.now, Note::State { node: place, broker: &process.broker });
        }
        if !matches!(end, Some(Exit::Fatal(_))) {
            self.see_quorum(place);
        }
        self.trace.step(self.now, place as u64, input_digest, digest);
        match end {
            Some(Exit::Stopped) => self.process_stopped(place),
            Some(Exit::Fatal(text)) => self.process_failed(place, &text),
            None => {
                self.schedule_tick(place);
                self.slow_down(place);
                self.crash_when_it_is_time(place);
            }
        }
    }

    fn carry_out(&mut self, place: usize, output: Output, digest: &mut Digest, end: &mut Option<Exit>) {
        match output {
            Output::Respond(conn, response) => {
                self.see_answer(place, conn, &response);
                self.respond(place, conn, &response, digest);
            }
            Output::Close(conn, why) => {
                digest.text(why);
                self.enqueue(place, conn, Outgoing::Close);
            }
            Output::Io(command) => {
                disk::digest_command(&command, digest);
                self.see_metadata_write(place, &command);
                let node = &mut self.nodes[place];
                let id = command.id;
                self.trace.enter(Part::Disk);
                let (at, ticket) = node.disk.submit(self.now, command);
                self.trace.enter(Part::World);
                self.trace.note(self.now, Note::Disk { node: place, command: id, completes_at: at });
                self.events.push(at, Event::NodeIo { node: place, life: node.life, ticket });
            }
            Output::Connect(link, address) => {
                digest.text(&address.to_string());
                self.connect_link(place, link, &address);
            }
            Output::Send(link, request) => {
                self.see_question(place, &request);
                self.send_on_link(place, link, &request, digest);
            }
            Output::HangUp(link) => {
                digest.number(link.0);
                self.hang_up(place, link);
            }
            Output::Listen(listener) => {
                let process = self.nodes[place].process.as_mut().expect("it has just spoken");
                process.listens.insert(listener);
            }
            Output::Drain(listener) => {
                let process = self.nodes[place].process.as_mut().expect("it has just spoken");
                process.listens.remove(&listener);
            }
            Output::Ready => {
                digest.number(1);
                let process = self.nodes[place].process.as_mut().expect("it has just spoken");
                process.is_ready = process.stopping.is_none();
            }
            Output::Stopped => *end = Some(Exit::Stopped),
            Output::Fatal(text) => *end = Some(Exit::Fatal(text)),
            // The simulator has no limits on connections: it turns no client away.
            Output::Limits(limits) => digest.number(limits.max as u64),
            Output::LogLevels(loggers) => {
                for (name, level) in loggers.own_levels() {
                    digest.text(name);
                    digest.text(level.name());
                }
            }
            Output::Event(event) => {
                digest.text(&event.text);
                self.note(place, event.text);
            }
        }
    }

    /// Keeps a text that a broker told its operator, if a script may ask for it.
    fn note(&mut self, node: usize, text: String) {
        if let Some(record) = &mut self.record {
            record.said.push((node, text));
        }
    }

    fn respond(&mut self, place: usize, conn: ConnId, response: &Response, digest: &mut Digest) {
        let frame = encode_response(response.api_key, response.api_version, response.correlation_id, &response.body);
        let mut pieces = Vec::with_capacity(frame.chunks.len());
        for chunk in frame.chunks {
            match chunk {
                RecordsChunk::Bytes(bytes) => {
                    digest.bytes(&bytes);
                    pieces.push(Piece::Bytes(bytes));
                }
                RecordsChunk::File(slice) => {
                    digest.number(slice.file.0);
                    digest.number(slice.position);
                    digest.number(slice.len.into());
                    pieces.push(Piece::File(self.nodes[place].disk.pin(slice)));
                }
            }
        }
        self.enqueue(place, conn, Outgoing::Response(pieces));
    }

    /// Queues a response, or the end of the connection, behind what already waits to leave on it.
    fn enqueue(&mut self, node: usize, conn: ConnId, outgoing: Outgoing) {
        let Some(connection) = self.network.get_mut(conn) else { return };
        connection.closing |= matches!(outgoing, Outgoing::Close);
        connection.outgoing.push_back(outgoing);
        let mut stream = stream(self.scenario.seed, "departure", &[conn.0, self.now]);
        let at = connection.last_departure.max(self.now) + stream.skewed(500_000);
        connection.last_departure = at;
        self.events.push(at, Event::Departure { node, conn });
    }

    pub(super) fn depart(&mut self, conn: ConnId) {
        let Some(connection) = self.network.get_mut(conn) else { return };
        let gone = connection.gone;
        let node = connection.acceptor.expect("it was accepted") as usize;
        match connection.outgoing.pop_front().expect("something departs") {
            Outgoing::Response(pieces) => {
                let mut frame = BytesMut::new();
                for piece in pieces {
                    match piece {
                        Piece::Bytes(bytes) => frame.extend_from_slice(&bytes),
                        Piece::File(pinned) => match self.nodes[node].disk.read_pinned(pinned) {
                            Some(bytes) => frame.extend_from_slice(&bytes),
                            // A part of the frame has been sent: the only way to tell the client is to end the
                            // connection.
                            None => {
                                self.count("responses that cannot be read");
                                return self.break_connection(conn);
                            }
                        },
                    }
                }
                let mut frame = frame.freeze();
                let announced = frame.split_to(4);
                assert_eq!(announced[..], (frame.len() as u32).to_be_bytes(), "a frame is as long as it says");
                if gone {
                    return;
                }
                match self.send(conn, Way::Back, &frame) {
                    Fate::Arrives(at) => self.tell_opener(at, conn, OpenerInput::Frame(frame)),
                    Fate::Cut => self.break_connection(conn),
                }
            }
            Outgoing::Close => {
                self.count("connections closed by a node");
                self.break_connection(conn);
            }
        }
    }

    pub(super) fn schedule_tick(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let Some(process) = node.process.as_ref() else { return };
        let Some((deadline, _)) = process.broker.deadline() else { return };
        let due = node.clock.time_of(deadline).max(self.now);
        // A tick that is on its way stays as late as it was drawn. Only a deadline that comes before the tick replaces
        // it.
        if process.tick_at.is_some_and(|at| at <= due) {
            return;
        }
        let mut stream = stream(self.scenario.seed, "tick", &[place as u64, node.life, process.ticks]);
        let late_max = if self.phase == Phase::Faults { self.scenario.clock.tick_late_ns_max } else { 0 };
        let at = due + 1_000 + stream.skewed(late_max);
        if process.tick_at.is_some_and(|tick_at| tick_at <= at) {
            return;
        }
        let life = node.life;
        let process = node.process.as_mut().expect("looked at above");
        process.ticks += 1;
        process.tick_at = Some(at);
        self.events.push(at, Event::NodeTick { node: place, life, at });
    }

    fn process_stopped(&mut self, node: usize) {
        let process = self.nodes[node].process.as_ref().expect("it has just spoken");
        match process.stopping {
            Some((loss, down_ns)) => {
                self.count("clean stops");
                self.end_process(node, loss, down_ns);
            }
            None => self.process_failed(node, "it stopped though nobody asked it to"),
        }
    }

    fn process_failed(&mut self, node: usize, text: &str) {
        self.note(node, text.to_owned());
        if let Some(process) = &mut self.nodes[node].process {
            process.gave_up = true;
        }
        let asked_for = text.contains(ASKED_FOR);
        let disk = &self.nodes[node].disk;
        if disk.errors_dealt == 0 && !disk.is_damaged() && !asked_for {
            return self.violate("fatal", format!("node {node} gave up without a fault of its disk: {text}"));
        }
        // No damage does this: what is not whole is not read.
        if text.contains("contradicts the records before it") && !asked_for {
            return self.violate("fatal", format!("node {node} has metadata that does not fit: {text}"));
        }
        self.count("processes that gave up");
        let down_ns = stream(self.scenario.seed, "fatal", &[node as u64, self.nodes[node].life]).skewed(1_000_000_000);
        self.end_process(node, Loss::Process, down_ns);
    }

    /// The partitions of which the node has a replica. A volume that is not mounted still counts.
    fn held(&mut self, node: usize) -> Vec<PartitionKey> {
        for dir in 0..self.scenario.disk.directories {
            let files = self.nodes[node].disk.files(dir);
            let held = files.iter().filter_map(|path| self.partition_at(path)).collect::<Vec<_>>();
            self.held[node].extend(held);
        }
        self.held[node].iter().copied().collect()
    }

    /// Ends the node's process now, and starts another `down_ns` later.
    pub(super) fn end_process(&mut self, node: usize, loss: Loss, down_ns: u64) {
        if self.nodes[node].process.is_none() {
            return;
        }
        self.see_image(node);
        self.trace.note(self.now, Note::Ended { node, loss });
        // What the crash may take is seen before.
        let held = self.held(node);
        let cache_is_lost = self.nodes[node].end(self.now, loss);
        self.deferred[node].clear();
        self.quorum_ended(node);
        self.fact(None, Fact::Ended { node: node as u32 });
        let silence = if loss == Loss::Power { Silence::Of(node as u32) } else { Silence::Nobody };
        for conn in self.network.of_node(node as u32) {
            self.break_off(conn, silence);
        }
        self.network.forget_node(node as u32);
        if loss == Loss::Power {
            self.count("power cuts");
        }
        if cache_is_lost {
            self.fact(None, Fact::CacheLost { node: node as u32, held });
        }
        let life = self.nodes[node].life;
        self.events.push(self.now + down_ns, Event::NodeStart { node, life });
    }
}
