//! Connections between clients and nodes: in order within one, in no order between them, slow, clogged, cut.

use crate::disk::Pinned;
use crate::random::{Ratio, stream};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use tidelog_core::ids::ConnId;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOptions {
    /// The longest that a message ordinarily takes; most take much less.
    pub delay_ns_max: u64,
    /// A message that takes far longer, and holds up all behind it.
    pub clog: Ratio,
    pub clog_ns_max: u64,
    /// A message with which the connection breaks.
    pub cut: Ratio,
    /// How much later than the client a node may learn of a cut (half-open).
    pub half_open_ns_max: u64,
}

/// One end's messages to the other.
#[derive(Debug, Default)]
struct Direction {
    sent: u64,
    /// When the last message arrives: nothing sent later arrives before.
    last_arrival: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToNode,
    ToClient,
}

/// What a node has given for a connection and not sent yet.
#[derive(Debug)]
pub enum Outgoing {
    Response(Vec<Piece>),
    Close,
}

/// A part of a response: bytes, or a place in a file that is read when the response leaves.
#[derive(Debug)]
pub enum Piece {
    Bytes(Bytes),
    File(Pinned),
}

#[derive(Debug)]
pub struct Connection {
    pub client: usize,
    pub node: usize,
    to_node: Direction,
    to_client: Direction,
    pub outgoing: VecDeque<Outgoing>,
    pub last_departure: u64,
    /// The node has asked for its end: it takes nothing any more.
    pub closing: bool,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Arrives(u64),
    /// The connection breaks: nothing that is under way arrives.
    Cut,
}

#[derive(Debug)]
pub struct Network {
    seed: u64,
    options: NetworkOptions,
    connections: BTreeMap<ConnId, Connection>,
    opened: u64,
    faulty: bool,
}

impl Network {
    pub fn new(seed: u64, options: NetworkOptions) -> Self {
        Self { seed, options, connections: BTreeMap::new(), opened: 0, faulty: true }
    }

    /// From now on nothing is cut and nothing clogs.
    pub fn heal(&mut self) {
        self.faulty = false;
    }

    /// A client asks for a connection: when the node hears of it.
    pub fn open(&mut self, now: u64, client: usize, node: usize) -> (ConnId, u64) {
        self.opened += 1;
        let conn = ConnId(self.opened);
        let connection = Connection {
            client,
            node,
            to_node: Direction::default(),
            to_client: Direction::default(),
            outgoing: VecDeque::new(),
            last_departure: 0,
            closing: false,
        };
        self.connections.insert(conn, connection);
        let Fate::Arrives(at) = self.send(now, conn, Way::ToNode, false) else { unreachable!("it cannot break yet") };
        (conn, at)
    }

    pub fn get(&self, conn: ConnId) -> Option<&Connection> {
        self.connections.get(&conn)
    }

    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut Connection> {
        self.connections.get_mut(&conn)
    }

    /// A message sets out on an open connection.
    pub fn send(&mut self, now: u64, conn: ConnId, way: Way, breakable: bool) -> Fate {
        let connection = self.connections.get_mut(&conn).expect("the connection is open");
        let direction = match way {
            Way::ToNode => &mut connection.to_node,
            Way::ToClient => &mut connection.to_client,
        };
        direction.sent += 1;
        let mut stream = stream(self.seed, "net", &[conn.0, way as u64, direction.sent]);
        let mut delay = 5_000 + stream.skewed(self.options.delay_ns_max);
        if self.faulty && breakable {
            if stream.chance(self.options.cut) {
                return Fate::Cut;
            }
            if stream.chance(self.options.clog) {
                delay += stream.skewed(self.options.clog_ns_max);
            }
        }
        direction.last_arrival = direction.last_arrival.max(now + delay);
        Fate::Arrives(direction.last_arrival)
    }

    /// Breaks a connection: who was on it, and when the node learns.
    pub fn cut(&mut self, now: u64, conn: ConnId) -> Option<(Connection, u64)> {
        let connection = self.connections.remove(&conn)?;
        let mut stream = stream(self.seed, "net.cut", &[conn.0]);
        let late = if self.faulty { stream.skewed(self.options.half_open_ns_max) } else { 0 };
        Some((connection, now + 5_000 + late))
    }

    pub fn of_node(&self, node: usize) -> Vec<ConnId> {
        let of_node = self.connections.iter().filter(|(_, connection)| connection.node == node);
        of_node.map(|(conn, _)| *conn).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> NetworkOptions {
        NetworkOptions {
            delay_ns_max: 10_000_000,
            clog: Ratio::new(1, 10),
            clog_ns_max: 1_000_000_000,
            cut: Ratio::NEVER,
            half_open_ns_max: 0,
        }
    }

    fn arrival(network: &mut Network, now: u64, conn: ConnId) -> u64 {
        match network.send(now, conn, Way::ToNode, true) {
            Fate::Arrives(at) => at,
            Fate::Cut => panic!("nothing is cut here"),
        }
    }

    #[test]
    fn one_connection_keeps_its_order_and_two_have_none() {
        let mut network = Network::new(1, options());
        let (one, _) = network.open(0, 0, 0);
        let (other, _) = network.open(0, 1, 0);
        let mut overtaken = 0;
        let mut last = 0;
        for now in (0..100).map(|n| n * 1_000_000) {
            let first = arrival(&mut network, now, one);
            let second = arrival(&mut network, now + 1, other);
            assert!(first >= last);
            last = first;
            overtaken += u32::from(second < first);
        }
        assert!((20..95).contains(&overtaken), "{overtaken}");
    }

    #[test]
    fn a_message_breaks_its_connection_as_often_as_the_options_say_until_all_is_healed() {
        let mut network = Network::new(1, NetworkOptions { cut: Ratio::new(1, 4), ..options() });
        let (conn, _) = network.open(0, 0, 0);
        let cuts = |network: &mut Network| {
            (0..400).filter(|_| network.send(0, conn, Way::ToClient, true) == Fate::Cut).count()
        };
        let before = cuts(&mut network);
        assert!((60..140).contains(&before), "{before}");
        network.heal();
        assert_eq!(cuts(&mut network), 0);
    }
}
