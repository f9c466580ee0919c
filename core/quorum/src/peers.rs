//! The requests of the quorum to other nodes: at most one in flight to each, and a pause after a failure.

use crate::voters::{ReplicaKey, VoterSet};
use std::collections::BTreeMap;
use std::fmt;
use tidelog_wire::ids::NodeId;
use tidelog_wire::time::Mono;
use tidelog_wire::{Address, ApiKey};

/// A node that is asked: a voter by its id, or any node that may know the leader, by its address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    Voter(NodeId),
    Bootstrap(Address),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Voter(node) => write!(f, "the controller {node}"),
            Self::Bootstrap(address) => write!(f, "the controller at {address}"),
        }
    }
}

#[derive(Debug)]
pub struct Peers {
    next_seq: u64,
    in_flight: BTreeMap<u64, (Peer, ApiKey)>,
    /// The peers whose last request failed, each with the moment from which on it is asked again.
    pauses: BTreeMap<Peer, Mono>,
    pause_ms: i64,
}

impl Peers {
    pub fn new(pause_ms: i64) -> Self {
        Self { next_seq: 0, in_flight: BTreeMap::new(), pauses: BTreeMap::new(), pause_ms }
    }

    /// Whether a request may be sent to the peer now.
    pub fn is_free(&self, now: Mono, peer: &Peer) -> bool {
        !self.is_asked(peer) && self.pauses.get(peer).is_none_or(|until| *until <= now)
    }

    /// Whether the last request to the peer failed just now.
    pub fn is_paused(&self, now: Mono, peer: &Peer) -> bool {
        self.pauses.get(peer).is_some_and(|until| *until > now)
    }

    fn is_asked(&self, peer: &Peer) -> bool {
        self.in_flight.values().any(|(asked, _)| asked == peer)
    }

    /// Whether any request is in flight.
    pub fn has_any_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// A request is sent. Returns its number.
    pub fn sent(&mut self, peer: Peer, api_key: ApiKey) -> u64 {
        assert!(!self.is_asked(&peer), "one request to a peer at a time");
        self.pauses.remove(&peer);
        self.next_seq += 1;
        self.in_flight.insert(self.next_seq, (peer, api_key));
        self.next_seq
    }

    /// A request is answered, or has failed. `None`: it was sent in an earlier role, and its answer is of no use.
    pub fn take(&mut self, seq: u64) -> Option<(Peer, ApiKey)> {
        self.in_flight.remove(&seq)
    }

    /// The answers of nodes that were asked for the leader are of no use any more.
    pub fn forget_bootstrap(&mut self) {
        self.in_flight.retain(|_, (peer, _)| matches!(peer, Peer::Voter(_)));
    }

    /// The peer gave no answer, or one that is of no use: it is not asked again at once.
    pub fn failed(&mut self, now: Mono, peer: Peer) {
        self.pauses.insert(peer, now.plus_ms(self.pause_ms.max(1)));
    }

    /// The role has changed: answers to earlier requests are of no use, and everybody may be asked at once.
    pub fn reset(&mut self) {
        self.in_flight.clear();
        self.pauses.clear();
    }

    /// When the first pause is over that is not over yet.
    pub fn deadline(&self, now: Mono) -> Option<Mono> {
        self.pauses.values().copied().filter(|until| *until > now).min()
    }
}

/// The addresses at which a leader may be asked for: those that the configuration names, and those of the other voters.
/// The voters that were configured once may all have been replaced.
pub fn bootstrap_addresses(configured: &[Address], voters: &VoterSet, me: ReplicaKey, listener: &str) -> Vec<Address> {
    let others = voters.iter().filter(|voter| voter.key.node != me.node);
    let others = others.filter_map(|voter| voter.endpoints.address(listener).cloned());
    let mut addresses: Vec<Address> = configured.iter().cloned().chain(others).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Mono {
        Mono::ZERO.plus_ms(ms)
    }

    #[test]
    fn one_request_to_a_peer_is_in_flight_and_a_failure_is_followed_by_a_pause() {
        let mut peers = Peers::new(20);
        let peer = Peer::Voter(NodeId(2));
        assert!(peers.is_free(at(0), &peer));
        let seq = peers.sent(peer.clone(), ApiKey::Vote);
        assert!(!peers.is_free(at(0), &peer) && peers.is_free(at(0), &Peer::Voter(NodeId(3))));
        assert_eq!(peers.take(seq), Some((peer.clone(), ApiKey::Vote)));
        peers.failed(at(5), peer.clone());
        assert!(peers.is_paused(at(24), &peer) && !peers.is_free(at(24), &peer));
        assert_eq!(peers.deadline(at(5)), Some(at(25)));
        assert!(peers.is_free(at(25), &peer));
        assert_eq!(peers.deadline(at(25)), None);
    }

    #[test]
    fn answers_to_requests_of_an_earlier_role_are_of_no_use() {
        let mut peers = Peers::new(20);
        let seq = peers.sent(Peer::Voter(NodeId(2)), ApiKey::Vote);
        peers.reset();
        assert_eq!(peers.take(seq), None);
        assert!(peers.is_free(at(0), &Peer::Voter(NodeId(2))));
    }

    #[test]
    fn requests_to_several_peers_are_told_apart() {
        let mut peers = Peers::new(20);
        let [two, three] = [2, 3].map(|node| peers.sent(Peer::Voter(NodeId(node)), ApiKey::Fetch));
        assert_ne!(two, three);
        assert!(peers.has_any_in_flight());
        assert_eq!(peers.take(two), Some((Peer::Voter(NodeId(2)), ApiKey::Fetch)));
        assert_eq!(peers.take(three), Some((Peer::Voter(NodeId(3)), ApiKey::Fetch)));
        assert!(!peers.has_any_in_flight());
    }

    #[test]
    fn the_leader_may_be_asked_for_at_configured_addresses_and_at_other_voters() {
        use crate::voters::{Endpoints, KRAFT_VERSIONS, Voter};
        let at = |host: &str| Address::new(host, 9093);
        let voter = |node: i32| {
            let endpoints: Endpoints = [("CONTROLLER", format!("node{node}"), 9093)].into_iter().collect();
            let key = ReplicaKey { node: NodeId(node), directory: None };
            Voter { key, endpoints, kraft_versions: KRAFT_VERSIONS }
        };
        let voters: VoterSet = (1..=3).map(voter).collect();
        let me = ReplicaKey { node: NodeId(1), directory: None };
        let configured = [at("node3"), at("elsewhere")];
        let addresses = bootstrap_addresses(&configured, &voters, me, "CONTROLLER");
        assert_eq!(addresses, [at("elsewhere"), at("node2"), at("node3")], "each once, and not this node");
        assert_eq!(bootstrap_addresses(&configured, &voters, me, "OTHER").len(), 2);
    }
}
