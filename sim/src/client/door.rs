//! One of the product's own clients (`tidelog_client`) in the simulated world: the same state machine that the
//! command line and applications use. [`Door`] turns the world's inputs into the client's, and the client's outputs
//! into the world's actions.

use super::{ClientAction, ClientInput, ClientOutbox, OpenerInput, Setting};
use std::collections::BTreeMap;
use tidelog_client::{Client, Input, Outbox, Output, Owed};
use tidelog_core::ids::LinkId;
use tidelog_core::time::{Mono, Now, WallMs};
use tidelog_core::wire::encode_request;

#[derive(Debug)]
pub struct Door<K> {
    pub client: K,
    /// As what the next answers on each connection are read.
    owed: BTreeMap<LinkId, Owed>,
}

impl<K: Client> Door<K> {
    pub fn new(client: K) -> Self {
        Self { client, owed: BTreeMap::new() }
    }

    /// Hands an input to the client. Gives the events that the client has for its application.
    pub fn handle(&mut self, now: u64, input: ClientInput, setting: &Setting, out: &mut ClientOutbox) -> Vec<K::Event> {
        let input = match input {
            ClientInput::Link(link, input) => {
                let link = LinkId(link);
                match input {
                    OpenerInput::Connected => Input::Connected(link),
                    OpenerInput::Frame(frame) => match self.owed.entry(link).or_default().read(frame) {
                        Some(answer) => Input::Answer(link, Box::new(answer)),
                        None => {
                            out.misbehaved("a response to nothing".into());
                            return Vec::new();
                        }
                    },
                    OpenerInput::Refused => Input::ConnectFailed(link),
                    OpenerInput::Cut => {
                        self.owed.remove(&link);
                        Input::Disconnected(link)
                    }
                }
            }
            ClientInput::Wake | ClientInput::Healed | ClientInput::Finish => Input::Tick,
        };
        self.input(now, input, setting, out)
    }

    pub fn call(&mut self, now: u64, call: K::Call, setting: &Setting, out: &mut ClientOutbox) -> Vec<K::Event> {
        self.input(now, Input::Call(call), setting, out)
    }

    fn input(&mut self, now: u64, input: Input<K::Call>, setting: &Setting, out: &mut ClientOutbox) -> Vec<K::Event> {
        let mut outbox = Outbox::default();
        self.client.handle(setting.now(now), input, &mut outbox);
        let mut events = Vec::new();
        for output in outbox.outputs {
            match output {
                Output::Connect(link, address) => out.actions.push(ClientAction::Connect(link.0, address)),
                Output::Send(link, request) => {
                    self.owed.entry(link).or_default().asked(&request.header, &request.body);
                    let frame = encode_request(&request.header, &request.body).to_bytes();
                    out.actions.push(ClientAction::Send(link.0, frame.slice(4..)));
                }
                Output::Close(link) => {
                    self.owed.remove(&link);
                    out.actions.push(ClientAction::Close(link.0));
                }
                Output::Event(event) => events.push(event),
            }
        }
        events
    }

    pub fn deadline(&self) -> Option<u64> {
        self.client.deadline().map(|deadline| deadline.0)
    }
}

impl Setting {
    fn now(&self, now: u64) -> Now {
        Now { mono: Mono(now), wall: WallMs(self.wall(now)) }
    }

    /// The addresses that the client knows from the start, as `bootstrap.servers`.
    pub fn bootstrap_servers(&self) -> String {
        let addresses: Vec<String> = self.bootstrap.iter().map(ToString::to_string).collect();
        addresses.join(",")
    }
}
