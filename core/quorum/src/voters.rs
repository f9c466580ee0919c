//! The voters of the quorum (KIP-595, KIP-853).
//!
//! A voter is a node together with the directory of its metadata log: a node whose disk was replaced has lost its votes
//! and its log, and is another voter. With `kraft.version` 0 the set of voters is static: `controller.quorum.voters`
//! names the nodes, and their directories are not known. From `kraft.version` 1 on the set stands in the metadata log,
//! as VotersRecords.
//!
//! A VotersRecord counts from the moment at which it is appended, committed or not. If it is truncated, the set before
//! it counts again. So the history of the sets is kept by offset.

use bytestring::ByteString;
use std::collections::BTreeMap;
use std::fmt;
use tidelog_batch::{ControlRecord, ControlType};
use tidelog_wire::Address;
use tidelog_wire::ids::{NodeId, Offset, Uuid};
use tidelog_wire::messages::voters_record::{Endpoint, KRaftVersionFeature, Voter as RecordedVoter};
use tidelog_wire::messages::{KRaftVersionRecord, VotersRecord};

/// The versions of `kraft.version` that this node supports.
pub const KRAFT_VERSIONS: (i16, i16) = (0, 1);

/// A replica of the metadata log: a node and the directory of its log. The directory is not known where a static set of
/// voters, or a request of an old version, names the node alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplicaKey {
    pub node: NodeId,
    pub directory: Option<Uuid>,
}

impl ReplicaKey {
    pub fn new(node: NodeId, directory: Uuid) -> Self {
        Self { node, directory: Some(directory) }
    }

    /// As requests and records name a replica: the zero id stands for a directory that is not known.
    pub fn from_wire(node: i32, directory: Uuid) -> Self {
        Self { node: NodeId(node), directory: (directory != Uuid::ZERO).then_some(directory) }
    }

    /// The directory as requests and records name it.
    pub fn wire_directory(self) -> Uuid {
        self.directory.unwrap_or(Uuid::ZERO)
    }

    /// Whether `other` may be the replica that this key of a voter names. A voter whose directory is not known is any
    /// replica of its node.
    pub fn covers(self, other: Self) -> bool {
        self.node == other.node && self.directory.is_none_or(|directory| other.directory == Some(directory))
    }
}

impl fmt::Display for ReplicaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.directory {
            Some(directory) => write!(f, "{} ({directory})", self.node),
            None => self.node.fmt(f),
        }
    }
}

/// The addresses of a controller, by the names of its listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints(pub BTreeMap<ByteString, Address>);

impl Endpoints {
    pub fn address(&self, listener: &str) -> Option<&Address> {
        self.0.get(listener)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<N: Into<ByteString>, H: Into<ByteString>> FromIterator<(N, H, u16)> for Endpoints {
    fn from_iter<I: IntoIterator<Item = (N, H, u16)>>(endpoints: I) -> Self {
        Self(endpoints.into_iter().map(|(name, host, port)| (name.into(), Address::new(host, port))).collect())
    }
}

/// A voter, as the log records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    pub key: ReplicaKey,
    pub endpoints: Endpoints,
    /// The least and the greatest `kraft.version` that the voter supports.
    pub kraft_versions: (i16, i16),
}

/// A set of voters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VoterSet(BTreeMap<NodeId, Voter>);

impl VoterSet {
    pub fn iter(&self) -> impl Iterator<Item = &Voter> {
        self.0.values()
    }

    pub fn keys(&self) -> impl Iterator<Item = ReplicaKey> + '_ {
        self.0.values().map(|voter| voter.key)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, node: NodeId) -> Option<&Voter> {
        self.0.get(&node)
    }

    /// Whether this replica is one of the voters.
    pub fn has(&self, replica: ReplicaKey) -> bool {
        self.0.get(&replica.node).is_some_and(|voter| voter.key.covers(replica))
    }

    /// Whether this replica is the only voter.
    pub fn is_only(&self, replica: ReplicaKey) -> bool {
        self.0.len() == 1 && self.has(replica)
    }

    /// The addresses of a voter; none if the node is no voter.
    pub fn endpoints(&self, node: NodeId) -> Endpoints {
        self.0.get(&node).map(|voter| voter.endpoints.clone()).unwrap_or_default()
    }

    /// The set with one more voter; `None` if the node is a voter already, whatever its directory.
    pub fn with(&self, voter: Voter) -> Option<Self> {
        let mut voters = self.0.clone();
        let before = voters.insert(voter.key.node, voter);
        before.is_none().then_some(Self(voters))
    }

    /// The set without this voter; `None` if it is none, or the only one.
    pub fn without(&self, replica: ReplicaKey) -> Option<Self> {
        let is_voter = self.0.get(&replica.node).is_some_and(|voter| voter.key == replica);
        let mut voters = self.0.clone();
        voters.remove(&replica.node);
        (is_voter && !voters.is_empty()).then_some(Self(voters))
    }

    /// The set with new endpoints and versions of this voter; `None` if it is no voter.
    pub fn updated(&self, voter: Voter) -> Option<Self> {
        self.has(voter.key).then(|| self.replaced(voter))
    }

    /// As [`updated`](Self::updated), for a set in which the directory of a voter may change, because it is not known
    /// for sure (`kraft.version` 0).
    pub fn updated_in_any_directory(&self, voter: Voter) -> Option<Self> {
        self.0.contains_key(&voter.key.node).then(|| self.replaced(voter))
    }

    fn replaced(&self, voter: Voter) -> Self {
        let mut voters = self.0.clone();
        voters.insert(voter.key.node, voter);
        Self(voters)
    }

    /// Whether this voter is in the set, but with other endpoints or versions than these.
    pub fn is_outdated(&self, voter: &Voter) -> bool {
        self.0.get(&voter.key.node).is_some_and(|known| known.key.covers(voter.key) && known != voter)
    }

    /// Whether every majority of this set has a voter in common with every majority of `other`: at most one voter was
    /// added, and at most one was removed.
    pub fn overlaps(&self, other: &Self) -> bool {
        let missing = |from: &Self, of: &Self| of.keys().filter(|key| !from.keys().any(|found| found == *key)).count();
        missing(self, other) <= 1 && missing(other, self) <= 1
    }

    fn from_record(record: &VotersRecord) -> Self {
        let voter = |voter: &RecordedVoter| Voter {
            key: ReplicaKey::from_wire(voter.voter_id, voter.voter_directory_id),
            endpoints: voter
                .endpoints
                .iter()
                .map(|endpoint| (endpoint.name.clone(), endpoint.host.clone(), endpoint.port))
                .collect(),
            kraft_versions: (
                voter.kraft_version_feature.min_supported_version,
                voter.kraft_version_feature.max_supported_version,
            ),
        };
        record.voters.iter().map(voter).collect()
    }

    /// The control record that makes this the set of voters.
    pub fn record(&self) -> ControlRecord {
        let voter = |voter: &Voter| RecordedVoter {
            voter_id: voter.key.node.0,
            voter_directory_id: voter.key.wire_directory(),
            endpoints: voter
                .endpoints
                .0
                .iter()
                .map(|(name, address)| Endpoint {
                    name: name.clone(),
                    host: address.host.clone(),
                    port: address.port,
                    ..Default::default()
                })
                .collect(),
            kraft_version_feature: KRaftVersionFeature {
                min_supported_version: voter.kraft_versions.0,
                max_supported_version: voter.kraft_versions.1,
                ..Default::default()
            },
            ..Default::default()
        };
        let record = VotersRecord { voters: self.iter().map(voter).collect(), ..Default::default() };
        ControlRecord { kind: ControlType::KRaftVoters, value: record.to_bytes(0) }
    }
}

impl FromIterator<Voter> for VoterSet {
    fn from_iter<I: IntoIterator<Item = Voter>>(voters: I) -> Self {
        Self(voters.into_iter().map(|voter| (voter.key.node, voter)).collect())
    }
}

impl fmt::Display for VoterSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let voters: Vec<String> = self.keys().map(|key| key.to_string()).collect();
        f.write_str(&voters.join(", "))
    }
}

/// The control record that sets `kraft.version`.
pub fn kraft_version_record(kraft_version: i16) -> ControlRecord {
    let record = KRaftVersionRecord { kraft_version, ..Default::default() };
    ControlRecord { kind: ControlType::KRaftVersion, value: record.to_bytes(0) }
}

/// The sets of voters and the versions of `kraft.version` by the offsets of their records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VoterHistory {
    /// The voters while no record names any.
    configured: VoterSet,
    /// An entry that comes from a snapshot has the offset of the last record in that snapshot, which is -1 for the
    /// snapshot that formatting writes.
    sets: BTreeMap<Offset, VoterSet>,
    kraft_versions: BTreeMap<Offset, i16>,
}

impl VoterHistory {
    pub fn new(configured: VoterSet) -> Self {
        Self { configured, ..Self::default() }
    }

    /// The voters that count now.
    pub fn latest(&self) -> &VoterSet {
        self.sets.last_key_value().map_or(&self.configured, |(_, set)| set)
    }

    /// The offset of the record that names the voters that count now; `None` if the configuration does.
    pub fn latest_offset(&self) -> Option<Offset> {
        self.sets.last_key_value().map(|(offset, _)| *offset)
    }

    /// All sets that are recorded. The one of a snapshot stands at the snapshot's last offset.
    pub fn recorded(&self) -> impl Iterator<Item = (Offset, &VoterSet)> {
        self.sets.iter().map(|(offset, set)| (*offset, set))
    }

    /// The voters that the records up to `offset` name.
    pub fn recorded_at(&self, offset: Offset) -> Option<&VoterSet> {
        self.sets.range(..=offset).next_back().map(|(_, set)| set)
    }

    /// The sets of voters that may count for others, if the records up to `committed` are known to be committed: the one
    /// that is in force there, and all that follow it.
    pub fn that_may_count(&self, committed: Offset) -> impl Iterator<Item = &VoterSet> {
        let known = self.recorded_at(committed).or((self.kraft_version_at(committed) == 0).then_some(&self.configured));
        known.into_iter().chain(self.sets.iter().filter(move |(offset, _)| **offset > committed).map(|(_, set)| set))
    }

    pub fn kraft_version(&self) -> i16 {
        self.kraft_versions.last_key_value().map_or(0, |(_, version)| *version)
    }

    pub fn kraft_version_at(&self, offset: Offset) -> i16 {
        self.kraft_versions.range(..=offset).next_back().map_or(0, |(_, version)| *version)
    }

    /// Takes over a control record at `offset`. An error says what is wrong with it.
    pub fn apply(&mut self, offset: Offset, control: &ControlRecord) -> Result<(), String> {
        let version = control.value.first_chunk().map_or(0, |bytes| i16::from_be_bytes(*bytes));
        match control.kind {
            ControlType::KRaftVoters => {
                let record = VotersRecord::from_bytes(version, control.value.clone()).map_err(|e| e.to_string())?;
                let set = VoterSet::from_record(&record);
                if set.is_empty() {
                    return Err("a VotersRecord names no voter".to_owned());
                }
                self.sets.insert(offset, set);
            }
            ControlType::KRaftVersion => {
                let record =
                    KRaftVersionRecord::from_bytes(version, control.value.clone()).map_err(|e| e.to_string())?;
                let (min, max) = KRAFT_VERSIONS;
                if !(min..=max).contains(&record.kraft_version) {
                    let version = record.kraft_version;
                    return Err(format!("kraft.version is {version}, and this node supports {min} to {max}"));
                }
                self.kraft_versions.insert(offset, record.kraft_version);
            }
            _ => {}
        }
        Ok(())
    }

    /// The log was cut: the records from `end` on are gone.
    pub fn truncate_from(&mut self, end: Offset) {
        self.sets.split_off(&end);
        self.kraft_versions.split_off(&end);
    }

    /// The records below `start` are gone from the log: forgets all sets that ended before it.
    pub fn trim_to(&mut self, start: Offset) {
        trim(&mut self.sets, start);
        trim(&mut self.kraft_versions, start);
    }

    /// The history after a snapshot has taken the place of the whole log: what `controls` name, which are the control
    /// records of the snapshot, whose last record is at `offset`.
    pub fn after_snapshot(&self, offset: Offset, controls: &[ControlRecord]) -> Result<Self, String> {
        let mut history = Self::new(self.configured.clone());
        controls.iter().try_for_each(|control| history.apply(offset, control))?;
        Ok(history)
    }
}

/// Removes the entries before the last one that is below `start`.
fn trim<T>(entries: &mut BTreeMap<Offset, T>, start: Offset) {
    if let Some((last, _)) = entries.range(..start).next_back() {
        let last = *last;
        entries.retain(|offset, _| *offset >= last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(node: i32, directory: u8) -> Voter {
        Voter {
            key: ReplicaKey::from_wire(node, Uuid::from_bytes([directory; 16])),
            endpoints: [("CONTROLLER", format!("node{node}"), 9093)].into_iter().collect(),
            kraft_versions: KRAFT_VERSIONS,
        }
    }

    fn set(voters: &[(i32, u8)]) -> VoterSet {
        voters.iter().map(|(node, directory)| voter(*node, *directory)).collect()
    }

    #[test]
    fn a_node_with_another_directory_is_another_voter_where_directories_are_known() {
        let known = set(&[(1, 7), (2, 7)]);
        assert!(known.has(voter(1, 7).key));
        assert!(!known.has(voter(1, 8).key));
        assert!(!known.has(voter(1, 0).key), "a request that does not name its directory is no voter");
        let unknown = set(&[(1, 0), (2, 0)]);
        assert!(unknown.has(voter(1, 8).key) && unknown.has(voter(1, 0).key) && !unknown.has(voter(3, 8).key));
    }

    #[test]
    fn the_last_voter_cannot_be_removed_and_a_node_cannot_be_added_twice() {
        let two = set(&[(1, 7), (2, 7)]);
        assert_eq!(two.with(voter(1, 8)), None, "another directory of the same node");
        assert_eq!(two.without(voter(1, 8).key), None);
        let one = two.without(voter(1, 7).key).unwrap();
        assert_eq!(one, set(&[(2, 7)]));
        assert_eq!(one.without(voter(2, 7).key), None);
    }

    #[test]
    fn sets_overlap_if_one_voter_was_added_or_removed_at_most() {
        assert!(set(&[(1, 7), (2, 7)]).overlaps(&set(&[(1, 7), (2, 7), (3, 7)])));
        assert!(set(&[(1, 7), (2, 7)]).overlaps(&set(&[(1, 7), (3, 7)])));
        assert!(!set(&[(1, 7)]).overlaps(&set(&[(1, 7), (2, 7), (3, 7)])));
        assert!(set(&[(1, 7), (2, 7), (3, 7)]).overlaps(&set(&[(1, 8), (2, 7), (3, 7)])), "a new directory");
    }

    #[test]
    fn records_round_trip_and_a_truncation_brings_back_the_set_before() {
        let mut history = VoterHistory::new(set(&[(9, 0)]));
        assert_eq!((history.latest_offset(), history.kraft_version()), (None, 0));
        history.apply(Offset(-1), &kraft_version_record(1)).unwrap();
        history.apply(Offset(-1), &set(&[(1, 7)]).record()).unwrap();
        history.apply(Offset(5), &set(&[(1, 7), (2, 7)]).record()).unwrap();
        assert_eq!((history.latest(), history.latest_offset()), (&set(&[(1, 7), (2, 7)]), Some(Offset(5))));
        assert_eq!(history.recorded_at(Offset(4)), Some(&set(&[(1, 7)])));
        assert_eq!(history.recorded_at(Offset(-2)), None);
        history.truncate_from(Offset(5));
        assert_eq!((history.latest(), history.kraft_version()), (&set(&[(1, 7)]), 1));
        history.truncate_from(Offset(-1));
        assert_eq!((history.latest(), history.kraft_version()), (&set(&[(9, 0)]), 0));
    }

    #[test]
    fn trimming_keeps_the_set_that_counts_at_the_start_of_the_log() {
        let mut history = VoterHistory::default();
        for (offset, node) in [(-1, 1), (5, 2), (10, 3)] {
            history.apply(Offset(offset), &set(&[(node, 7)]).record()).unwrap();
        }
        history.trim_to(Offset(10));
        assert_eq!(history.recorded_at(Offset(9)), Some(&set(&[(2, 7)])));
        assert_eq!(history.recorded_at(Offset(4)), None);
    }
    /// A node that does not know what is committed may have read several sets that are not, and any may count.
    #[test]
    fn the_set_that_is_committed_may_count_and_each_that_follows() {
        let mut history = VoterHistory::new(set(&[(1, 0)]));
        let of = |history: &VoterHistory, committed: i64| -> Vec<VoterSet> {
            history.that_may_count(Offset(committed)).cloned().collect()
        };
        assert_eq!(of(&history, 3), [set(&[(1, 0)])]);
        history.apply(Offset(4), &kraft_version_record(1)).unwrap();
        history.apply(Offset(5), &set(&[(1, 7)]).record()).unwrap();
        history.apply(Offset(8), &set(&[(1, 7), (2, 7)]).record()).unwrap();
        assert_eq!(of(&history, 3), [set(&[(1, 0)]), set(&[(1, 7)]), set(&[(1, 7), (2, 7)])]);
        assert_eq!(of(&history, 6), [set(&[(1, 7)]), set(&[(1, 7), (2, 7)])]);
        assert_eq!(of(&history, 8), [set(&[(1, 7), (2, 7)])]);
    }
}
