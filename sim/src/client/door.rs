//! One of the product's own clients (`tidelog_client`) in the simulated world: the same state machine that the
//! command line and applications use. [`Door`] turns the world's inputs into the client's, and the client's outputs
//! into the world's actions.

use super::{ClientAction, ClientInput, ClientOutbox, Setting};
use tidelog_client::{Address, Client, Input, Outbox, Output, Owed};
use tidelog_core::ids::LinkId;
use tidelog_core::time::{Mono, Now, WallMs};
use tidelog_core::wire::encode_request;

/// The address that every node advertises. There can be one for all, since each node is a cluster of its own.
pub const ADDRESS: &str = "node:9092";

#[derive(Debug)]
pub struct Door<K> {
    pub client: K,
    /// The connection that the client asked for and has not lost.
    link: Option<LinkId>,
    /// As what the answers on it are read.
    owed: Owed,
    address: Address,
}

impl<K: Client> Door<K> {
    pub fn new(client: K) -> Self {
        Self {
            client,
            link: None,
            owed: Owed::default(),
            address: Address::parse(ADDRESS).expect("it is a host and a port"),
        }
    }

    /// Hands an input to the client. Gives the events that the client has for its application.
    pub fn handle(&mut self, now: u64, input: ClientInput, setting: &Setting, out: &mut ClientOutbox) -> Vec<K::Event> {
        let link = || self.link.expect("the world speaks of the connection that was asked for");
        let input = match input {
            ClientInput::Connected => Input::Connected(link()),
            ClientInput::Frame(frame) => {
                let Some(answer) = self.owed.read(frame) else {
                    out.misbehaved("a response to nothing".into());
                    return Vec::new();
                };
                Input::Answer(link(), Box::new(answer))
            }
            ClientInput::Refused => Input::ConnectFailed(self.link.take().expect("a connection was asked for")),
            ClientInput::Cut => Input::Disconnected(self.link.take().expect("a connection was asked for")),
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
                Output::Connect(link, address) => {
                    self.owed = Owed::default();
                    assert_eq!(address, self.address, "there is one address");
                    assert_eq!(self.link.replace(link), None, "one connection to an address");
                    out.actions.push(ClientAction::Connect);
                }
                Output::Send(link, request) => {
                    assert_eq!(self.link, Some(link), "a client sends on a connection that is open");
                    self.owed.asked(&request.header, &request.body);
                    let frame = encode_request(&request.header, &request.body).to_bytes();
                    out.actions.push(ClientAction::Send(frame.slice(4..)));
                }
                Output::Close(link) => {
                    assert_eq!(self.link.take(), Some(link), "a client closes a connection once");
                    out.actions.push(ClientAction::Close);
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
}
