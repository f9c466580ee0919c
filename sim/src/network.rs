//! Connections between any two ends: from clients to nodes, and from nodes to each other. Messages of one connection
//! arrive in order, those of two connections in any order. A connection can be slow, clogged, cut or partitioned.
//!
//! A partition loses no bytes of a connection: TCP sends again what did not arrive, so that everything comes, in order,
//! when the partition is over. A connection breaks in a partition only because its opener waits too long for an answer
//! and closes it.

use crate::disk::Pinned;
use crate::random::{Ratio, stream};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
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
    /// How much later than its opener the acceptor of a connection may learn that the connection was cut, and how long
    /// either may take to notice that the other's machine has lost its power (a half-open connection).
    pub half_open_ns_max: u64,
    /// After how many cuts the requests that were under way still arrive, before the acceptor learns of the cut. The
    /// opener may have sent them again on a new connection by then.
    pub late_requests: Ratio,
    /// How many connections are slow: each byte takes its time.
    pub slow: Ratio,
    pub slow_ns_per_byte: u64,
    /// How many attempts to connect to an address where nobody listens are not refused, but get no answer at all.
    pub hang: Ratio,
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
        hang: Ratio::NEVER,
    };
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self::CALM
    }
}

/// Who opens or accepts connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum End {
    /// The client with this number.
    Client(u32),
    Node(u32),
}

impl End {
    /// The number by which the connections that it opens are named.
    fn opener(self) -> u64 {
        match self {
            End::Client(number) => number.into(),
            End::Node(node) => u64::from(OPENING_NODES) + u64::from(node),
        }
    }

    /// The address from which it connects.
    pub fn address(self) -> IpAddr {
        let [.., a, b, c] = self.opener().to_be_bytes();
        Ipv4Addr::new(10, a, b, c).into()
    }

    /// Who has opened a connection.
    pub fn that_opened(conn: ConnId) -> Self {
        let opener = (conn.0 / CONNECTIONS_MAX - 1) as u32;
        match opener.checked_sub(OPENING_NODES) {
            Some(node) => End::Node(node),
            None => End::Client(opener),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Client(number) => write!(f, "client{number}"),
            End::Node(node) => write!(f, "node{node}"),
        }
    }
}

/// More connections than anybody opens in a run: a connection's id is its opener's number times this, plus a count.
pub const CONNECTIONS_MAX: u64 = 1_000_000;

/// Clients have lower numbers than this. As openers of connections, nodes are numbered from here on.
const OPENING_NODES: u32 = 1_000_000;

/// Which directions a partition closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ways {
    Both,
    /// Nothing comes in to the ends that are cut off.
    In,
    /// Nothing comes out from the ends that are cut off.
    Out,
}

impl Ways {
    pub const ALL: [Self; 3] = [Self::Both, Self::In, Self::Out];
}

/// A stretch of time in which nothing arrives between some ends and others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// The ends that are cut off.
    pub ends: Vec<End>,
    /// Those from which they are cut off; empty stands for all others.
    pub others: Vec<End>,
    pub ways: Ways,
    pub from: u64,
    pub until: u64,
}

impl Outage {
    fn holds(&self, from: End, to: End) -> bool {
        let is_other = |end| !self.ends.contains(&end) && (self.others.is_empty() || self.others.contains(&end));
        let comes_in = self.ends.contains(&to) && is_other(from);
        let comes_out = self.ends.contains(&from) && is_other(to);
        match self.ways {
            Ways::Both => comes_in || comes_out,
            Ways::In => comes_in,
            Ways::Out => comes_out,
        }
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

/// The direction of a message on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the opener to the acceptor: requests.
    Forth,
    /// From the acceptor to the opener: responses.
    Back,
}

/// What an acceptor's broker has put out for a connection and the node has not sent yet.
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
    pub opener: End,
    /// The node that accepts it; none if the address was nobody's.
    pub acceptor: Option<u32>,
    /// The place of the acceptor's listener, among its `listeners`.
    pub listener: u16,
    forth: Direction,
    back: Direction,
    pub outgoing: VecDeque<Outgoing>,
    pub last_departure: u64,
    /// The acceptor has closed the connection: it takes no more requests from it.
    pub closing: bool,
    /// The opener's end is gone, and the acceptor does not know yet.
    pub gone: bool,
    slow: bool,
}

impl Connection {
    /// Who sends and who receives what goes this way.
    fn ends(&self, way: Way) -> Option<(End, End)> {
        let (opener, acceptor) = (self.opener, End::Node(self.acceptor?));
        Some(match way {
            Way::Forth => (opener, acceptor),
            Way::Back => (acceptor, opener),
        })
    }
}

/// A connection that broke: who had accepted it, and when each end learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    pub acceptor: Option<u32>,
    pub opener_learns_at: u64,
    pub acceptor_learns_at: u64,
}

/// What becomes of a message that sets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Arrives(u64),
    /// The connection breaks: nothing that is under way arrives.
    Cut,
}

/// Whose machine has lost its power, so that the other end is not told of a connection's end and has to notice it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    Nobody,
    Of(u32),
}

#[derive(Debug)]
pub struct Network {
    seed: u64,
    options: NetworkOptions,
    connections: BTreeMap<ConnId, Connection>,
    /// How many connections each end has opened.
    opened: BTreeMap<End, u64>,
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

    /// An end asks for a connection to a node's listener, or to an address that is nobody's. Gives the connection, and
    /// when the other end hears of it.
    pub fn open(&mut self, now: u64, opener: End, at: Option<(u32, u16)>) -> (ConnId, u64) {
        // The id is made from the opener's number and its own count, so that taking one client out of a scenario
        // changes nothing for the connections of the others.
        let opened = self.opened.entry(opener).or_default();
        *opened += 1;
        let conn = ConnId((opener.opener() + 1) * CONNECTIONS_MAX + *opened);
        let connection = Connection {
            opener,
            acceptor: at.map(|(node, _)| node),
            listener: at.map_or(0, |(_, listener)| listener),
            forth: Direction::default(),
            back: Direction::default(),
            outgoing: VecDeque::new(),
            last_departure: 0,
            closing: false,
            gone: false,
            slow: !self.options.slow.is_never() && stream(self.seed, "net.slow", &[conn.0]).chance(self.options.slow),
        };
        self.connections.insert(conn, connection);
        let Fate::Arrives(at) = self.send(now, conn, Way::Forth, 0, false) else { unreachable!("it cannot break yet") };
        (conn, at)
    }

    /// Whether an attempt to connect to where nobody listens gets no answer, instead of a refusal.
    pub fn hangs(&self, conn: ConnId) -> bool {
        self.faulty
            && !self.options.hang.is_never()
            && stream(self.seed, "net.hang", &[conn.0]).chance(self.options.hang)
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
        let (ends, slow) = (connection.ends(way), connection.slow);
        let direction = match way {
            Way::Forth => &mut connection.forth,
            Way::Back => &mut connection.back,
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
        at = after_outages(&self.outages, ends, at);
        direction.last_arrival = direction.last_arrival.max(at);
        Fate::Arrives(direction.last_arrival)
    }

    /// Breaks a connection, if it is not broken yet.
    pub fn cut(&mut self, now: u64, conn: ConnId, silence: Silence) -> Option<Break> {
        let connection = self.connections.get_mut(&conn).filter(|connection| !connection.gone)?;
        connection.gone = true;
        let (opener, acceptor) = (connection.opener, connection.acceptor);
        let mut stream = stream(self.seed, "net.cut", &[conn.0]);
        let half_open_ns_max = if self.faulty { self.options.half_open_ns_max } else { 0 };
        let late = if self.faulty { stream.skewed(half_open_ns_max) } else { 0 };
        let mut silent = |of: End| match silence {
            Silence::Of(node) if of == End::Node(node) && self.faulty => stream.skewed(half_open_ns_max),
            _ => 0,
        };
        let of_acceptor = acceptor.map_or(0, |acceptor| silent(End::Node(acceptor)));
        let of_opener = silent(opener);
        let learns_at = |way, at| after_outages(&self.outages, connection.ends(way), at);
        let opener_learns_at = learns_at(Way::Back, now + 5_000 + of_acceptor);
        let mut acceptor_learns_at = learns_at(Way::Forth, now + 5_000 + late + of_opener);
        if self.faulty && stream.chance(self.options.late_requests) {
            acceptor_learns_at = acceptor_learns_at.max(connection.forth.last_arrival + 1);
        } else {
            self.connections.remove(&conn);
        }
        Some(Break { acceptor, opener_learns_at, acceptor_learns_at })
    }

    /// The acceptor has learnt of a connection's end.
    pub fn forget(&mut self, conn: ConnId) {
        if self.connections.get(&conn).is_some_and(|connection| connection.gone) {
            self.connections.remove(&conn);
        }
    }

    /// The process of a node is gone, and with it all connections that it has accepted.
    pub fn forget_node(&mut self, node: u32) {
        self.connections.retain(|_, connection| connection.acceptor != Some(node));
    }

    /// The connections that a node has accepted or opened.
    pub fn of_node(&self, node: u32) -> Vec<ConnId> {
        let of_node =
            |connection: &Connection| connection.acceptor == Some(node) || connection.opener == End::Node(node);
        self.connections.iter().filter(|(_, connection)| of_node(connection)).map(|(conn, _)| *conn).collect()
    }
}

/// When a message between two ends arrives that would arrive at `at` if there were no outages.
fn after_outages(outages: &[Outage], ends: Option<(End, End)>, mut at: u64) -> u64 {
    let Some((from, to)) = ends else { return at };
    let holds = |outage: &&Outage, at: u64| (outage.from..outage.until).contains(&at) && outage.holds(from, to);
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
        arrival_by(network, now, conn, Way::Forth)
    }

    fn arrival_by(network: &mut Network, now: u64, conn: ConnId, way: Way) -> u64 {
        match network.send(now, conn, way, 0, true) {
            Fate::Arrives(at) => at,
            Fate::Cut => panic!("nothing is cut here"),
        }
    }

    #[test]
    fn one_connection_keeps_its_order_and_two_have_none() {
        let mut network = Network::new(1, options());
        let mut overtaken = 0;
        for pair in 0..20 {
            let (one, _) = network.open(0, End::Client(2 * pair), Some((0, 0)));
            let (other, _) = network.open(0, End::Client(2 * pair + 1), Some((0, 0)));
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
        let (conn, _) = network.open(0, End::Node(1), Some((0, 0)));
        let cuts =
            |network: &mut Network| (0..400).filter(|_| network.send(0, conn, Way::Back, 0, true) == Fate::Cut).count();
        let before = cuts(&mut network);
        assert!((60..140).contains(&before), "{before}");
        network.heal();
        assert_eq!(cuts(&mut network), 0);
    }

    const FROM: u64 = 1_000_000;
    const UNTIL: u64 = 50_000_000;

    fn outage(ends: &[End], others: &[End], ways: Ways) -> Outage {
        Outage { ends: ends.to_vec(), others: others.to_vec(), ways, from: FROM, until: UNTIL }
    }

    #[test]
    fn a_partition_holds_one_direction_and_gives_everything_back_in_order_when_it_is_over() {
        let mut network = Network::new(1, NetworkOptions::CALM);
        let (conn, _) = network.open(0, End::Client(0), Some((0, 0)));
        let (other, _) = network.open(0, End::Client(1), Some((0, 0)));
        network.part(outage(&[End::Node(0)], &[End::Client(0)], Ways::In));
        let mut last = 0;
        for now in (2..40).map(|ms| ms * 1_000_000) {
            let at = arrival(&mut network, now, conn);
            assert!(at >= UNTIL && at >= last);
            last = at;
            let back = arrival_by(&mut network, now, conn, Way::Back);
            assert!(back < UNTIL && arrival(&mut network, now, other) < UNTIL, "the other way, and another client");
        }
        assert!(arrival(&mut network, UNTIL + 1, conn) < UNTIL + 1_000_000);
    }

    /// Which of the nodes 0, 1 and 2 and of client 0 do not hear which others, as pairs of (from, to) in which each
    /// node is its number and the client is 9.
    fn held(outage: Outage) -> Vec<(u32, u32)> {
        let mut network = Network::new(1, NetworkOptions::CALM);
        network.part(outage);
        let mut held = Vec::new();
        for node in 0..3 {
            for opener in [End::Node(0), End::Node(1), End::Node(2), End::Client(0)] {
                if opener == End::Node(node) {
                    continue;
                }
                let name = if let End::Node(of) = opener { of } else { 9 };
                let (conn, _) = network.open(0, opener, Some((node, 0)));
                for (way, pair) in [(Way::Forth, (name, node)), (Way::Back, (node, name))] {
                    if arrival_by(&mut network, FROM, conn, way) >= UNTIL {
                        held.push(pair);
                    }
                }
            }
        }
        held.sort_unstable();
        held.dedup();
        held
    }

    #[test]
    fn any_ends_can_be_parted_from_any_others_both_ways_or_one_way() {
        let [zero, one, two] = [End::Node(0), End::Node(1), End::Node(2)];
        let isolated = held(outage(&[zero], &[], Ways::Both));
        assert_eq!(isolated, [(0, 1), (0, 2), (0, 9), (1, 0), (2, 0), (9, 0)]);
        assert_eq!(held(outage(&[zero], &[], Ways::In)), [(1, 0), (2, 0), (9, 0)]);
        assert_eq!(held(outage(&[zero], &[], Ways::Out)), [(0, 1), (0, 2), (0, 9)]);
        let split = held(outage(&[zero, one], &[], Ways::Both));
        assert_eq!(split, [(0, 2), (0, 9), (1, 2), (1, 9), (2, 0), (2, 1), (9, 0), (9, 1)], "0 and 1 hear each other");
        assert_eq!(held(outage(&[zero], &[two], Ways::Both)), [(0, 2), (2, 0)], "1 is a bridge between them");
        assert_eq!(held(outage(&[zero], &[End::Client(0)], Ways::Out)), [(0, 9)]);
    }

    #[test]
    fn bytes_trickle_through_a_slow_connection() {
        let slow = NetworkOptions { slow: Ratio::ALWAYS, slow_ns_per_byte: 1_000, ..NetworkOptions::CALM };
        let mut network = Network::new(1, slow);
        let (conn, _) = network.open(0, End::Client(0), Some((0, 0)));
        for sent in 1..10 {
            let Fate::Arrives(at) = network.send(0, conn, Way::Back, 10_000, true) else { panic!() };
            assert!(at >= sent * 10_000_000, "{sent} times 10 ms");
        }
    }

    #[test]
    fn after_a_cut_what_was_under_way_is_lost_or_comes_before_the_acceptor_learns_of_it() {
        let mut network = Network::new(1, NetworkOptions { late_requests: Ratio::ALWAYS, ..options() });
        let (conn, _) = network.open(0, End::Node(1), Some((0, 0)));
        let at = arrival(&mut network, 0, conn);
        let broken = network.cut(1, conn, Silence::Nobody).expect("it was open");
        assert!(broken.acceptor_learns_at > at && network.get(conn).is_some_and(|connection| connection.gone));
        assert_eq!(network.cut(2, conn, Silence::Nobody), None, "and it breaks once");
        network.forget(conn);
        assert!(network.get(conn).is_none());
        let (conn, _) = network.open(0, End::Client(0), Some((0, 0)));
        network.heal();
        network.cut(1, conn, Silence::Nobody).expect("it was open");
        assert!(network.get(conn).is_none(), "nothing comes late in a world that is healed");
    }

    #[test]
    fn of_a_machine_without_power_the_other_end_learns_late_whoever_opened_the_connection() {
        let options = NetworkOptions { half_open_ns_max: 1_000_000_000, ..NetworkOptions::CALM };
        let (mut of_opener, mut of_acceptor) = (0, 0);
        let mut network = Network::new(1, options);
        for _ in 0..50 {
            let (conn, _) = network.open(0, End::Node(1), Some((0, 0)));
            let silent = network.cut(0, conn, Silence::Of(0)).expect("it was open");
            of_acceptor += u32::from(silent.opener_learns_at > 1_000_000);
            let (conn, _) = network.open(0, End::Node(1), Some((0, 0)));
            let silent = network.cut(0, conn, Silence::Of(1)).expect("it was open");
            assert_eq!(silent.opener_learns_at, 5_000, "of its own end");
            of_opener += u32::from(silent.acceptor_learns_at > 1_000_000);
        }
        assert!(of_opener > 10 && of_acceptor > 10, "{of_opener}, {of_acceptor}");
    }

    #[test]
    fn a_connection_tells_who_opened_it_and_each_end_counts_its_own() {
        let mut network = Network::new(1, NetworkOptions::CALM);
        let mut opened = BTreeMap::new();
        for opener in [End::Client(0), End::Node(0), End::Client(2_000), End::Node(6), End::Client(0), End::Node(6)] {
            let (conn, _) = network.open(0, opener, Some((1, 0)));
            assert_eq!(End::that_opened(conn), opener);
            let count = opened.entry(opener).or_insert(0);
            *count += 1;
            assert_eq!(conn.0 % CONNECTIONS_MAX, *count);
        }
        let mut without = Network::new(1, NetworkOptions::CALM);
        without.open(0, End::Node(6), Some((1, 0)));
        let (again, _) = without.open(0, End::Node(6), Some((1, 0)));
        assert!(network.get(again).is_some(), "it is named alike where the others have opened none");
    }

    #[test]
    fn where_nobody_listens_some_attempts_hang_until_all_is_healed() {
        let mut network = Network::new(1, NetworkOptions { hang: Ratio::new(1, 2), ..NetworkOptions::CALM });
        let attempts: Vec<ConnId> = (0..100).map(|_| network.open(0, End::Client(0), None).0).collect();
        let hanging = attempts.iter().filter(|conn| network.hangs(**conn)).count();
        assert!((30..70).contains(&hanging), "{hanging}");
        network.heal();
        assert!(!attempts.iter().any(|conn| network.hangs(*conn)));
    }
}
