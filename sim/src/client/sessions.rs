//! A client's sessions with the nodes of its cluster. It begins with one of its bootstrap addresses, learns the others
//! from Metadata, and has a session with each node that it needs. As long as it reaches no node, it tries one address
//! after the other.

use super::session::{Session, SessionEvent};
use super::{ClientInput, ClientOutbox, Link, Setting};
use crate::cluster::node_at;
use crate::random::stream;
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::protocol::Request;
use std::collections::BTreeMap;
use tidelog_client::Address;

/// An address, as its place in [`Sessions::hosts`].
pub type Host = usize;

#[derive(Debug)]
pub struct Sessions {
    setting: Setting,
    /// Every address that the client has ever known, the bootstrap addresses first.
    hosts: Vec<Address>,
    /// The brokers of the cluster, by their node ids, as Metadata told them last.
    brokers: BTreeMap<i32, Host>,
    sessions: BTreeMap<Host, Session>,
    links: Link,
    healed_at: Option<u64>,
}

impl Sessions {
    pub fn new(setting: &Setting) -> Self {
        let mut sessions = Self {
            hosts: setting.bootstrap.clone(),
            brokers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            links: 0,
            healed_at: None,
            setting: setting.clone(),
        };
        sessions.want(0, 0);
        sessions
    }

    /// Opens a session with a node, unless there is one.
    pub fn want(&mut self, now: u64, host: Host) {
        let (address, setting) = (&self.hosts[host], &self.setting);
        self.sessions.entry(host).or_insert_with(|| {
            let mut session = Session::new(now, host, address.clone(), setting);
            self.healed_at.inspect(|healed_at| session.handle_healed(*healed_at));
            session
        });
    }

    /// Learns where the brokers are.
    pub fn learn(&mut self, brokers: &[MetadataResponseBroker]) {
        // A broker that is still starting may know none.
        if brokers.is_empty() {
            return;
        }
        let host = |broker: &MetadataResponseBroker| {
            let address = Address::new(broker.host.as_str(), broker.port as u16);
            let known = self.hosts.iter().position(|known| *known == address);
            (
                broker.node_id.0,
                known.unwrap_or_else(|| {
                    self.hosts.push(address);
                    self.hosts.len() - 1
                }),
            )
        };
        self.brokers = brokers.iter().map(host).collect();
    }

    /// The address of the broker with this node id.
    pub fn host_of(&self, node: i32) -> Option<Host> {
        self.brokers.get(&node).copied()
    }

    /// The node at this address.
    pub fn node(&self, host: Host) -> u32 {
        node_at(&self.hosts[host]).expect("whoever answers is a node")
    }

    /// A node to which any request can be sent that any node answers.
    pub fn any(&self) -> Option<Host> {
        self.ready().next()
    }

    /// The nodes to which requests can be sent now.
    pub fn ready(&self) -> impl Iterator<Item = Host> {
        self.sessions.iter().filter(|(_, session)| session.is_ready()).map(|(host, _)| *host)
    }

    pub fn is_ready(&self, host: Host) -> bool {
        self.sessions.get(&host).is_some_and(Session::is_ready)
    }

    /// The version in which this client sends this kind of request to this node; none if there is no such version.
    pub fn version<R: Request>(&self, host: Host) -> Option<i16> {
        self.sessions.get(&host)?.version::<R>()
    }

    /// Sends a request to a node with which there is a session. `tag` comes back with the answer.
    pub fn send<R: Request>(&mut self, now: u64, host: Host, request: &R, tag: u64, out: &mut ClientOutbox) {
        self.sessions.get_mut(&host).expect("there is a session").send(now, request, tag, out);
    }

    /// Sends a request in the newest version that this client and the node know.
    pub fn send_newest<R: Request>(&mut self, now: u64, host: Host, request: &R, tag: u64, out: &mut ClientOutbox) {
        self.sessions.get_mut(&host).expect("there is a session").send_newest(now, request, tag, out);
    }

    /// Sends a request to which no answer comes (Produce with acks=0).
    pub fn send_without_answer<R: Request>(&mut self, now: u64, host: Host, request: &R, out: &mut ClientOutbox) {
        self.sessions.get_mut(&host).expect("there is a session").send_without_answer(now, request, out);
    }

    pub fn deadline(&self) -> Option<u64> {
        self.sessions.values().filter_map(Session::deadline).min()
    }

    /// Hands an input to the sessions that it is for. Gives what the client has to know, in order.
    pub fn handle(&mut self, now: u64, input: ClientInput, out: &mut ClientOutbox) -> Vec<SessionEvent> {
        let mut events = Vec::new();
        match input {
            ClientInput::Link(link, input) => {
                let session = self.sessions.values_mut().find(|session| session.link == link);
                events.extend(session.and_then(|session| session.handle(now, input, out)));
            }
            ClientInput::Healed => {
                self.healed_at = Some(now);
                self.sessions.values_mut().for_each(|session| session.handle_healed(now));
            }
            ClientInput::Wake | ClientInput::Finish => {
                for session in self.sessions.values_mut() {
                    let event = session.handle_wake(now, self.links + 1, out);
                    self.links = self.links.max(session.link);
                    events.extend(event);
                }
            }
        }
        for event in &events {
            if let SessionEvent::Lost(host) | SessionEvent::Unreachable(host) = event {
                self.lose(now, *host);
            }
        }
        events
    }

    /// A connection was lost, or could not be made.
    fn lose(&mut self, now: u64, host: Host) {
        if !self.brokers.is_empty() && !self.brokers.values().any(|of| *of == host) {
            self.sessions.remove(&host);
        }
        if self.any().is_some() {
            return;
        }
        let others: Vec<Host> = match self.brokers.is_empty() {
            true => (0..self.hosts.len()).filter(|other| !self.sessions.contains_key(other)).collect(),
            false => self.brokers.values().copied().filter(|other| !self.sessions.contains_key(other)).collect(),
        };
        if !others.is_empty() {
            let mut stream = stream(self.setting.seed, "client.elsewhere", &[self.setting.client.into(), now]);
            let other = *stream.pick(&others);
            self.want(now, other);
        }
    }
}
