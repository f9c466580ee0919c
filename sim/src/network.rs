//! Connections between clients and nodes. Messages of one connection arrive in order, those of two connections in any
//! order. A connection can be slow, clogged, cut or partitioned.
//!
//! A partition loses no bytes of a connection: TCP sends again what did not arrive, so that everything comes, in order,
//! when the partition is over. A connection breaks in a partition only because a client waits too long for an answer
//! and closes it.

use crate::disk::Pinned;
use crate::random::{Ratio, stream};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use tidelog_core::ids::ConnId;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkOptions {
    /// The longest delay of a message that is not clogged; most take much less.
    pub delay_ns_max: u64,
    /// How many messages take far longer than that, and hold up all messages behind them.
    pub clog: Ratio,
    pub clog_ns_max: u64,
    /// How many messages break their connection.
    pub cut: Ratio,
    /// How much later than the client a node may learn that a connection was cut, and how long a client may take to
    /// notice that the node's machine has lost its power (a half-open connection).
    pub half_open_ns_max: u64,
    /// After how many cuts the requests that were under way to the node still arrive, before the node learns of the
    /// cut. The client may have sent them again on a new connection by then.
    pub late_requests: Ratio,
    /// How many connections are slow: each byte takes its time.
    pub slow: Ratio,
    pub slow_ns_per_byte: u64,
}

impl NetworkOptions {
    /// Nothing fails, and a message takes a tenth of a millisecond.
    pub const CALM: Self = Self {
        delay_ns_max: 100_000,
        clog: Ratio::NEVER,
        clog_ns_max: 1_000_000,
        cut: Ratio::NEVER,
        half_open_ns_max: 0,
        late_requests: Ratio::NEVER,
        slow: Ratio::NEVER,
        slow_ns_per_byte: 0,
    };
}

/// Which directions a partition closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ways {
    Both,
    ToNode,
    ToClient,
}

impl Ways {
    fn include(self, way: Way) -> bool {
        match self {
            Ways::Both => true,
            Ways::ToNode => way == Way::ToNode,
            Ways::ToClient => way == Way::ToClient,
        }
    }
}

/// A stretch of time in which nothing arrives between a node and its clients, or one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    pub node: usize,
    pub client: Option<usize>,
    pub ways: Ways,
    pub from: u64,
    pub until: u64,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self::CALM
    }
}

/// The messages of one connection in one direction.
#[derive(Debug, Default)]
struct Direction {
    sent: u64,
    /// When the last message arrives: nothing sent later arrives before.
    last_arrival: u64,
    /// On a slow connection: when the last byte that was sent is through.
    drained_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToNode,
    ToClient,
}

/// What a node's broker has put out for a connection and the node has not sent yet.
#[derive(Debug)]
pub enum Outgoing {
    Response(Vec<Piece>),
    Close,
}

/// A part of a response: bytes, or a slice of a file, which is read when the response leaves.
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
    /// The node has closed the connection: it takes no more requests from it.
    pub closing: bool,
    /// The client's end is gone, and the node does not know yet.
    pub gone: bool,
    slow: bool,
}

/// A connection that broke: whose it was, and when each end learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    pub client: usize,
    pub node: usize,
    pub client_learns_at: u64,
    pub node_learns_at: u64,
}

/// What becomes of a message that sets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Arrives(u64),
    /// The connection breaks: nothing that is under way arrives.
    Cut,
}

/// More connections than any client opens in a run: a connection's id is its client's number times this, plus a count.
pub const CONNECTIONS_MAX: u64 = 1_000_000;

#[derive(Debug)]
pub struct Network {
    seed: u64,
    options: NetworkOptions,
    connections: BTreeMap<ConnId, Connection>,
    /// How many connections each client has opened.
    opened: BTreeMap<u32, u64>,
    faulty: bool,
    outages: Vec<Outage>,
}

impl Network {
    pub fn new(seed: u64, options: NetworkOptions) -> Self {
        Self { seed, options, connections: BTreeMap::new(), opened: BTreeMap::new(), faulty: true, outages: Vec::new() }
    }

    pub fn options_mut(&mut self) -> &mut NetworkOptions {
        &mut self.options
    }

    /// From now on nothing is cut, nothing clogs and everybody reaches everybody.
    pub fn heal(&mut self) {
        self.faulty = false;
        self.outages.clear();
    }

    pub fn part(&mut self, outage: Outage) {
        self.outages.push(outage);
    }

    /// A client asks for a connection. Gives the connection, and when the node hears of it.
    pub fn open(&mut self, now: u64, client: usize, number: u32, node: usize) -> (ConnId, u64) {
        // The id is made from the client's number and that client's own count, so that taking one client out of a
        // scenario changes nothing for the connections of the others.
        let opened = self.opened.entry(number).or_default();
        *opened += 1;
        let conn = ConnId((u64::from(number) + 1) * CONNECTIONS_MAX + *opened);
        let connection = Connection {
            client,
            node,
            to_node: Direction::default(),
            to_client: Direction::default(),
            outgoing: VecDeque::new(),
            last_departure: 0,
            closing: false,
            gone: false,
            slow: !self.options.slow.is_never() && stream(self.seed, "net.slow", &[conn.0]).chance(self.options.slow),
        };
        self.connections.insert(conn, connection);
        let Fate::Arrives(at) = self.send(now, conn, Way::ToNode, 0, false) else {
            unreachable!("it cannot break yet")
        };
        (conn, at)
    }

    pub fn get(&self, conn: ConnId) -> Option<&Connection> {
        self.connections.get(&conn)
    }

    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut Connection> {
        self.connections.get_mut(&conn)
    }

    /// A message of `len` bytes sets out on an open connection. Only a `breakable` one may be cut or clogged.
    pub fn send(&mut self, now: u64, conn: ConnId, way: Way, len: usize, breakable: bool) -> Fate {
        let connection = self.connections.get_mut(&conn).expect("the connection is open");
        let (node, client, slow) = (connection.node, connection.client, connection.slow);
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
        let mut at = now + delay;
        if self.faulty && slow {
            direction.drained_at = direction.drained_at.max(now) + len as u64 * self.options.slow_ns_per_byte;
            at = at.max(direction.drained_at);
        }
        at = after_outages(&self.outages, node, client, way, at);
        direction.last_arrival = direction.last_arrival.max(at);
        Fate::Arrives(direction.last_arrival)
    }

    /// Breaks a connection, if it is not broken yet. `silent` means that the node's machine has lost its power and does
    /// not tell the client.
    pub fn cut(&mut self, now: u64, conn: ConnId, silent: bool) -> Option<Break> {
        let connection = self.connections.get_mut(&conn).filter(|connection| !connection.gone)?;
        connection.gone = true;
        let (node, client) = (connection.node, connection.client);
        let mut stream = stream(self.seed, "net.cut", &[conn.0]);
        let late = if self.faulty { stream.skewed(self.options.half_open_ns_max) } else { 0 };
        let learns_at = |way, at| after_outages(&self.outages, node, client, way, at);
        let silence = if silent && self.faulty { stream.skewed(self.options.half_open_ns_max) } else { 0 };
        let client_learns_at = learns_at(Way::ToClient, now + 5_000 + silence);
        let mut node_learns_at = learns_at(Way::ToNode, now + 5_000 + late);
        if self.faulty && stream.chance(self.options.late_requests) {
            node_learns_at = node_learns_at.max(connection.to_node.last_arrival + 1);
        } else {
            self.connections.remove(&conn);
        }
        Some(Break { client, node, client_learns_at, node_learns_at })
    }

    /// The node has learnt of a connection's end.
    pub fn forget(&mut self, conn: ConnId) {
        if self.connections.get(&conn).is_some_and(|connection| connection.gone) {
            self.connections.remove(&conn);
        }
    }

    /// The process of a node is gone, and with it all its connections.
    pub fn forget_node(&mut self, node: usize) {
        self.connections.retain(|_, connection| connection.node != node);
    }

    pub fn of_node(&self, node: usize) -> Vec<ConnId> {
        let of_node = self.connections.iter().filter(|(_, connection)| connection.node == node);
        of_node.map(|(conn, _)| *conn).collect()
    }
}

/// When a message arrives that would arrive at `at` if there were no outages.
fn after_outages(outages: &[Outage], node: usize, client: usize, way: Way, mut at: u64) -> u64 {
    let holds = |outage: &&Outage, at: u64| {
        outage.node == node
            && outage.client.is_none_or(|only| only == client)
            && outage.ways.include(way)
            && (outage.from..outage.until).contains(&at)
    };
    while let Some(outage) = outages.iter().find(|outage| holds(outage, at)) {
        at = outage.until;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> NetworkOptions {
        NetworkOptions {
            delay_ns_max: 10_000_000,
            clog: Ratio::new(1, 10),
            clog_ns_max: 1_000_000_000,
            ..NetworkOptions::CALM
        }
    }

    fn arrival(network: &mut Network, now: u64, conn: ConnId) -> u64 {
        match network.send(now, conn, Way::ToNode, 0, true) {
            Fate::Arrives(at) => at,
            Fate::Cut => panic!("nothing is cut here"),
        }
    }

    #[test]
    fn one_connection_keeps_its_order_and_two_have_none() {
        let mut network = Network::new(1, options());
        let mut overtaken = 0;
        for pair in 0..20 {
            let (one, _) = network.open(0, 0, 2 * pair, 0);
            let (other, _) = network.open(0, 1, 2 * pair + 1, 0);
            let mut last = 0;
            for now in (0..100).map(|n| n * 1_000_000) {
                let first = arrival(&mut network, now, one);
                let second = arrival(&mut network, now + 1, other);
                assert!(first >= last);
                last = first;
                overtaken += u32::from(second < first);
            }
        }
        assert!((600..1_400).contains(&overtaken), "{overtaken} of 2,000");
    }

    #[test]
    fn a_message_breaks_its_connection_as_often_as_the_options_say_until_all_is_healed() {
        let mut network = Network::new(1, NetworkOptions { cut: Ratio::new(1, 4), ..options() });
        let (conn, _) = network.open(0, 0, 0, 0);
        let cuts = |network: &mut Network| {
            (0..400).filter(|_| network.send(0, conn, Way::ToClient, 0, true) == Fate::Cut).count()
        };
        let before = cuts(&mut network);
        assert!((60..140).contains(&before), "{before}");
        network.heal();
        assert_eq!(cuts(&mut network), 0);
    }

    #[test]
    fn a_partition_holds_one_direction_and_gives_everything_back_in_order_when_it_is_over() {
        let mut network = Network::new(1, NetworkOptions::CALM);
        let (conn, _) = network.open(0, 0, 0, 0);
        let (other, _) = network.open(0, 1, 1, 0);
        let (from, until) = (1_000_000, 50_000_000);
        network.part(Outage { node: 0, client: Some(0), ways: Ways::ToNode, from, until });
        let mut last = 0;
        for now in (2..40).map(|ms| ms * 1_000_000) {
            let at = arrival(&mut network, now, conn);
            assert!(at >= until && at >= last);
            last = at;
            let Fate::Arrives(back) = network.send(now, conn, Way::ToClient, 0, true) else { panic!() };
            assert!(back < until && arrival(&mut network, now, other) < until, "the other way, and another client");
        }
        assert!(arrival(&mut network, until + 1, conn) < until + 1_000_000);
    }

    #[test]
    fn bytes_trickle_through_a_slow_connection() {
        let slow = NetworkOptions { slow: Ratio::ALWAYS, slow_ns_per_byte: 1_000, ..NetworkOptions::CALM };
        let mut network = Network::new(1, slow);
        let (conn, _) = network.open(0, 0, 0, 0);
        for sent in 1..10 {
            let Fate::Arrives(at) = network.send(0, conn, Way::ToClient, 10_000, true) else { panic!() };
            assert!(at >= sent * 10_000_000, "{sent} times 10 ms");
        }
    }

    #[test]
    fn after_a_cut_what_was_under_way_is_lost_or_comes_before_the_node_learns_of_it() {
        let mut network = Network::new(1, NetworkOptions { late_requests: Ratio::ALWAYS, ..options() });
        let (conn, _) = network.open(0, 0, 0, 0);
        let at = arrival(&mut network, 0, conn);
        let broken = network.cut(1, conn, false).expect("it was open");
        assert!(broken.node_learns_at > at && network.get(conn).is_some_and(|connection| connection.gone));
        assert_eq!(network.cut(2, conn, false), None, "and it breaks once");
        network.forget(conn);
        assert!(network.get(conn).is_none());
        let (conn, _) = network.open(0, 0, 0, 0);
        network.heal();
        network.cut(1, conn, false).expect("it was open");
        assert!(network.get(conn).is_none(), "nothing comes late in a world that is healed");
    }
}
