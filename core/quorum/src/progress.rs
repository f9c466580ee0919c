//! How far the replicas have read the log of their leader: the high watermark of the majority, and whether a majority
//! is still there.
//!
//! Invariant: the high watermark is unknown until a record of the leader's own epoch is on a majority (Raft, 5.4.2), and
//! it never falls.

use crate::voters::{ReplicaKey, VoterSet};
use std::collections::{BTreeMap, BTreeSet};
use tidelog_config::plant::{Plant, Plants};
use tidelog_wire::ids::{NodeId, Offset};
use tidelog_wire::time::{Mono, Now, WallMs};

/// An observer that has not fetched for this long is forgotten.
const OBSERVER_SESSION_MS: i64 = 300_000;
/// A replica that has not fetched for this long is not caught up, whatever it had read then.
const CAUGHT_UP_MS: i64 = 3_600_000;

/// A replica as its leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    pub key: ReplicaKey,
    /// Everything below this offset is on the replica's stable storage, if it is a voter. `None` before its first fetch.
    pub end_offset: Option<Offset>,
    pub last_fetch: Option<Now>,
    /// When the replica had last read everything that the leader had then.
    pub last_caught_up: Option<WallMs>,
    /// Where the leader's log ended at the replica's last fetch.
    leader_end_at_last_fetch: Option<Offset>,
}

impl Replica {
    fn new(key: ReplicaKey) -> Self {
        Self { key, end_offset: None, last_fetch: None, last_caught_up: None, leader_end_at_last_fetch: None }
    }

    fn fetched(&mut self, now: Now, offset: Offset, leader_end: Offset) {
        if offset >= leader_end {
            self.last_caught_up = self.last_caught_up.max(Some(now.wall));
        } else if self.leader_end_at_last_fetch.is_some_and(|end| offset >= end) {
            self.last_caught_up = self.last_caught_up.max(self.last_fetch.map(|last| last.wall));
        }
        self.leader_end_at_last_fetch = Some(leader_end);
        self.last_fetch = Some(now);
        self.end_offset = Some(offset);
    }
}

/// What a leader knows of all replicas.
#[derive(Debug)]
pub struct Progress {
    me: ReplicaKey,
    voters: BTreeMap<NodeId, Replica>,
    observers: BTreeMap<ReplicaKey, Replica>,
    high_watermark: Option<Offset>,
    /// The voters that have fetched since `majority_until` was last set.
    fetched: BTreeSet<NodeId>,
    /// If no majority has fetched by then, the leader resigns (KAFKA-15489).
    majority_until: Mono,
    majority_timeout_ms: i64,
    /// When voters that do not fetch are told again who leads.
    begin_at: Mono,
    begin_interval_ms: i64,
    plants: Plants,
}

impl Progress {
    pub fn new(now: Mono, me: ReplicaKey, voters: &VoterSet, fetch_timeout_ms: i64, plants: Plants) -> Self {
        let majority_timeout_ms = fetch_timeout_ms.saturating_mul(3) / 2;
        Self {
            me,
            voters: voters.keys().map(|key| (key.node, Replica::new(key))).collect(),
            observers: BTreeMap::new(),
            high_watermark: None,
            fetched: BTreeSet::new(),
            majority_until: now.plus_ms(majority_timeout_ms),
            majority_timeout_ms,
            begin_at: now,
            begin_interval_ms: fetch_timeout_ms / 2,
            plants,
        }
    }

    pub fn high_watermark(&self) -> Option<Offset> {
        self.high_watermark
    }

    pub fn voters(&self) -> impl Iterator<Item = &Replica> {
        self.voters.values()
    }

    pub fn observers(&self) -> impl Iterator<Item = &Replica> {
        self.observers.values()
    }

    /// Everything below `stable` is on the leader's own stable storage, and `voters` is the set that counts now. Returns
    /// whether the high watermark has risen.
    pub fn update_own(&mut self, stable: Offset, voters: &VoterSet, epoch_start: Offset) -> bool {
        self.take_voters(voters);
        let me = self.me;
        let own = self.replica(me);
        assert!(own.end_offset.is_none_or(|end| end <= stable), "the leader's log never shrinks");
        own.end_offset = Some(stable);
        self.raise_high_watermark(epoch_start)
    }

    /// A replica has fetched from `offset` on, which acknowledges everything below. Returns whether the high watermark
    /// has risen.
    pub fn update_replica(
        &mut self,
        now: Now,
        key: ReplicaKey,
        offset: Offset,
        leader_end: Offset,
        epoch_start: Offset,
    ) -> bool {
        self.replica(key).fetched(now, offset, leader_end);
        self.seen(now.mono, key);
        self.is_voter(key) && self.raise_high_watermark(epoch_start)
    }

    /// A replica is there: it fetches records or a snapshot, or has told its endpoints.
    pub fn seen(&mut self, now: Mono, key: ReplicaKey) {
        if self.is_voter(key) && key.node != self.me.node {
            self.fetched.insert(key.node);
        }
        let needed = self.voters.len() / 2 + usize::from(!self.is_voter(self.me));
        if self.fetched.len() >= needed {
            self.fetched.clear();
            self.majority_until = now.plus_ms(self.majority_timeout_ms);
        }
    }

    /// Whether no majority has fetched for so long that another leader may have been elected.
    pub fn has_lost_majority(&self, now: Mono) -> bool {
        self.needs_others() && self.majority_until <= now && !self.plants.has(Plant::LeaderKeepsLease)
    }

    /// Whether there is another replica than the leader.
    pub fn has_others(&self) -> bool {
        self.voters.len() > 1 || self.observers.keys().any(|key| key.node != self.me.node)
    }

    /// Whether the leader alone is no majority.
    fn needs_others(&self) -> bool {
        self.voters.len() > 1 || !self.is_voter(self.me)
    }

    /// The voters that must be told who leads, if it is time to tell them.
    pub fn take_silent(&mut self, now: Mono) -> Vec<ReplicaKey> {
        if self.begin_at > now {
            return Vec::new();
        }
        self.begin_at = now.plus_ms(self.begin_interval_ms.max(1));
        let interval_ms = self.begin_interval_ms;
        let is_silent = |replica: &&Replica| {
            replica.key.node != self.me.node
                && replica.last_fetch.is_none_or(|last| last.mono.plus_ms(interval_ms) <= now)
        };
        self.voters.values().filter(is_silent).map(|replica| replica.key).collect()
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.needs_others().then(|| self.majority_until.min(self.begin_at))
    }

    /// Whether this observer has read everything at some time and has fetched within the last hour, so that it may become
    /// a voter.
    pub fn is_caught_up(&self, now: Mono, key: ReplicaKey) -> bool {
        self.observers.get(&key).is_some_and(|replica| {
            replica.last_caught_up.is_some()
                && replica.last_fetch.is_some_and(|last| last.mono.plus_ms(CAUGHT_UP_MS) > now)
        })
    }

    /// The other voters, those with the longest logs first.
    pub fn successors(&self) -> Vec<ReplicaKey> {
        let mut others: Vec<&Replica> = self.voters.values().filter(|voter| voter.key.node != self.me.node).collect();
        others.sort_by_key(|voter| (std::cmp::Reverse(voter.end_offset), voter.key));
        others.into_iter().map(|voter| voter.key).collect()
    }

    pub fn forget_idle_observers(&mut self, now: Mono) {
        let me = self.me;
        self.observers.retain(|key, replica| {
            *key == me || replica.last_fetch.is_some_and(|last| last.mono.plus_ms(OBSERVER_SESSION_MS) > now)
        });
    }

    fn is_voter(&self, key: ReplicaKey) -> bool {
        self.voters.get(&key.node).is_some_and(|voter| voter.key.covers(key))
    }

    fn replica(&mut self, key: ReplicaKey) -> &mut Replica {
        if self.is_voter(key) {
            return self.voters.get_mut(&key.node).expect("it is a voter");
        }
        self.observers.entry(key).or_insert_with(|| Replica::new(key))
    }

    /// Another set of voters counts now: who was a voter becomes an observer, and who was an observer a voter, with what
    /// is known of it.
    fn take_voters(&mut self, voters: &VoterSet) {
        if voters.len() == self.voters.len()
            && voters.keys().all(|key| self.voters.get(&key.node).is_some_and(|v| v.key == key))
        {
            return;
        }
        let mut before = std::mem::take(&mut self.voters);
        for key in voters.keys() {
            let known = before.remove(&key.node);
            let replica = match known {
                Some(replica) if replica.key.covers(key) => Replica { key, ..replica },
                other => {
                    self.observers.extend(other.map(|replica| (replica.key, replica)));
                    self.observers.remove(&key).unwrap_or_else(|| Replica::new(key))
                }
            };
            self.voters.insert(key.node, replica);
        }
        self.observers.extend(before.into_values().map(|replica| (replica.key, replica)));
        self.fetched.retain(|node| self.voters.contains_key(node));
    }

    fn raise_high_watermark(&mut self, epoch_start: Offset) -> bool {
        let mut ends: Vec<Option<Offset>> = self.voters.values().map(|voter| voter.end_offset).collect();
        if self.plants.has(Plant::RemovedLeaderCounts) && !self.is_voter(self.me) {
            ends.extend(self.observers.get(&self.me).map(|me| me.end_offset));
        }
        ends.sort_unstable_by(|a, b| b.cmp(a));
        let Some(majority) = ends[ends.len() / 2] else { return false };
        // An entry of an earlier epoch may still be replaced, even if it is on a majority. It is committed with the
        // first entry of this leader's own epoch.
        let known_from = match () {
            () if self.plants.has(Plant::EarlierEpochCommittedByCounting) => Offset::ZERO,
            () if self.plants.has(Plant::HighWatermarkAtEpochStart) => epoch_start + -1,
            () => epoch_start,
        };
        if majority <= known_from || self.high_watermark.is_some_and(|high| majority <= high) {
            return false;
        }
        self.high_watermark = Some(majority);
        true
    }

    /// Asserts the invariants of this module.
    pub fn verify(&self) {
        assert!(self.voters.iter().all(|(node, voter)| voter.key.node == *node));
        assert!(self.fetched.iter().all(|node| self.voters.contains_key(node)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::voters::{Endpoints, KRAFT_VERSIONS, Voter};
    use tidelog_wire::ids::Uuid;

    const START: Offset = Offset(10);

    fn key(node: i32) -> ReplicaKey {
        ReplicaKey::new(NodeId(node), Uuid::from_bytes([7; 16]))
    }

    fn voters(nodes: &[i32]) -> VoterSet {
        let voter =
            |node: &i32| Voter { key: key(*node), endpoints: Endpoints::default(), kraft_versions: KRAFT_VERSIONS };
        nodes.iter().map(voter).collect()
    }

    fn at(ms: i64) -> Now {
        Now { mono: Mono::ZERO.plus_ms(ms), wall: WallMs(1_000_000 + ms) }
    }

    fn progress(nodes: &[i32]) -> Progress {
        Progress::new(Mono::ZERO, key(1), &voters(nodes), 2_000, Plants::default())
    }

    fn fetch(progress: &mut Progress, ms: i64, node: i32, offset: i64, end: i64) -> bool {
        progress.update_replica(at(ms), key(node), Offset(offset), Offset(end), START)
    }

    #[test]
    fn the_high_watermark_is_what_a_majority_has_and_only_once_that_is_of_this_epoch() {
        let mut progress = progress(&[1, 2, 3]);
        assert!(!progress.update_own(Offset(20), &voters(&[1, 2, 3]), START));
        assert!(!fetch(&mut progress, 1, 2, 10, 20), "all of it is of earlier epochs");
        assert_eq!(progress.high_watermark(), None);
        assert!(fetch(&mut progress, 2, 2, 11, 20));
        assert_eq!(progress.high_watermark(), Some(Offset(11)));
        assert!(fetch(&mut progress, 3, 3, 15, 20));
        assert!(!fetch(&mut progress, 4, 3, 12, 20), "a replica that has lost a part of its log");
        assert_eq!(progress.high_watermark(), Some(Offset(15)), "it never falls");
        assert!(!fetch(&mut progress, 5, 9, 20, 20), "an observer");
    }

    #[test]
    fn each_planted_bug_shows() {
        let planted =
            |plant| Progress::new(Mono::ZERO, key(1), &voters(&[1, 2, 3]), 2_000, Plants::default().with(plant));

        // A record of an earlier epoch is on a majority.
        let mut progress = planted(Plant::EarlierEpochCommittedByCounting);
        progress.update_own(Offset(20), &voters(&[1, 2, 3]), START);
        assert!(fetch(&mut progress, 1, 2, 9, 20));

        // All records of earlier epochs are, but not the first one of this epoch.
        let mut progress = planted(Plant::HighWatermarkAtEpochStart);
        progress.update_own(Offset(20), &voters(&[1, 2, 3]), START);
        assert!(!fetch(&mut progress, 1, 2, 9, 20) && fetch(&mut progress, 1, 2, 10, 20));

        // The leader and one of the two voters have it.
        let mut progress = planted(Plant::RemovedLeaderCounts);
        progress.update_own(Offset(21), &voters(&[2, 3]), START);
        assert!(fetch(&mut progress, 2, 2, 21, 21));

        assert!(!planted(Plant::LeaderKeepsLease).has_lost_majority(at(100_000).mono));
    }

    #[test]
    fn what_the_leader_has_not_synced_does_not_count() {
        let mut progress = progress(&[1, 2]);
        progress.update_own(Offset(11), &voters(&[1, 2]), START);
        fetch(&mut progress, 1, 2, 20, 20);
        assert_eq!(progress.high_watermark(), Some(Offset(11)));
    }

    #[test]
    fn a_leader_that_is_removed_counts_no_more() {
        let mut progress = progress(&[1, 2, 3]);
        progress.update_own(Offset(20), &voters(&[1, 2, 3]), START);
        fetch(&mut progress, 1, 2, 15, 20);
        assert_eq!(progress.high_watermark(), Some(Offset(15)));
        progress.update_own(Offset(21), &voters(&[2, 3]), START);
        fetch(&mut progress, 2, 2, 21, 21);
        assert_eq!(progress.high_watermark(), Some(Offset(15)), "of the voters 2 and 3 only 2 has it");
        assert!(fetch(&mut progress, 3, 3, 21, 21));
        progress.verify();
    }

    #[test]
    fn a_new_voter_keeps_what_it_had_read_as_an_observer() {
        let mut progress = progress(&[1]);
        progress.update_own(Offset(20), &voters(&[1]), START);
        fetch(&mut progress, 1, 2, 20, 20);
        assert!(progress.is_caught_up(at(2).mono, key(2)));
        assert!(!progress.is_caught_up(at(4_000_000).mono, key(2)), "that is more than an hour ago");
        assert!(!progress.update_own(Offset(21), &voters(&[1, 2]), START));
        assert_eq!(progress.high_watermark(), Some(Offset(20)), "the new voter does not have the last record");
        assert!(fetch(&mut progress, 2, 2, 21, 21));
        progress.verify();
    }

    #[test]
    fn a_leader_without_a_majority_that_fetches_gives_up_after_one_and_a_half_fetch_time_outs() {
        let mut progress = progress(&[1, 2, 3, 4, 5]);
        assert!(!progress.has_lost_majority(at(2_999).mono));
        assert!(progress.has_lost_majority(at(3_000).mono));
        fetch(&mut progress, 1_000, 2, 0, 20);
        fetch(&mut progress, 1_500, 2, 0, 20);
        assert!(progress.has_lost_majority(at(3_000).mono), "one of four");
        fetch(&mut progress, 2_000, 3, 0, 20);
        assert!(!progress.has_lost_majority(at(4_999).mono));
        assert!(progress.has_lost_majority(at(5_000).mono));
    }

    #[test]
    fn a_lone_voter_needs_nobody() {
        let progress = progress(&[1]);
        assert!(!progress.has_lost_majority(at(100_000).mono));
        assert_eq!(progress.deadline(), None);
    }

    #[test]
    fn voters_that_do_not_fetch_are_told_again_who_leads() {
        let mut progress = progress(&[1, 2, 3]);
        assert_eq!(progress.take_silent(at(0).mono), [key(2), key(3)]);
        assert_eq!(progress.take_silent(at(1).mono), []);
        fetch(&mut progress, 500, 2, 0, 20);
        assert_eq!(progress.take_silent(at(1_000).mono), [key(3)]);
        assert_eq!(progress.take_silent(at(2_000).mono), [key(2), key(3)]);
    }

    #[test]
    fn the_successors_are_sorted_by_the_length_of_their_logs() {
        let mut progress = progress(&[1, 2, 3, 4]);
        fetch(&mut progress, 1, 3, 20, 20);
        fetch(&mut progress, 1, 4, 15, 20);
        assert_eq!(progress.successors(), [key(3), key(4), key(2)]);
    }

    /// As Kafka's `LeaderState.ReplicaState`: who had read at its last fetch what the leader had at the one before, was
    /// caught up then.
    #[test]
    fn a_replica_was_caught_up_when_it_had_read_all_that_the_leader_had() {
        let mut progress = progress(&[1, 2]);
        let mut caught_up = |ms, offset, end| {
            fetch(&mut progress, ms, 2, offset, end);
            progress.voters().find(|voter| voter.key == key(2)).unwrap().last_caught_up.map(|at| at.0 - 1_000_000)
        };
        assert_eq!(caught_up(1, 15, 20), None);
        assert_eq!(caught_up(2, 19, 20), None);
        assert_eq!(caught_up(3, 20, 25), Some(2), "it has all that there was when it last asked");
        assert_eq!(caught_up(4, 25, 25), Some(4));
        assert_eq!(caught_up(5, 24, 30), Some(4), "it never becomes earlier");
        assert_eq!(caught_up(6, 29, 31), Some(4));
        assert_eq!(caught_up(7, 31, 40), Some(6));
    }

    #[test]
    fn a_majority_is_there_if_enough_other_voters_are() {
        // Which nodes fetch, and whether that keeps the leader.
        for (nodes, fetching, keeps) in [
            (&[1, 2, 3][..], &[2][..], true),
            (&[1, 2, 3], &[1], false),
            (&[1, 2, 3], &[9], false),
            (&[1, 2, 3, 4], &[2], false),
            (&[1, 2, 3, 4], &[2, 4], true),
            (&[2, 3], &[2], false),
            (&[2, 3], &[2, 3], true),
            (&[2], &[2], true),
            (&[2], &[3], false),
        ] {
            let mut progress = progress(nodes);
            for node in fetching {
                progress.seen(at(1_000).mono, key(*node));
            }
            assert_eq!(!progress.has_lost_majority(at(3_500).mono), keeps, "{fetching:?} of {nodes:?}");
        }
        assert!(progress(&[2]).deadline().is_some(), "a leader that is no voter is no majority");
        assert_eq!(progress(&[1]).deadline(), None);
        // A voter with another directory is another voter.
        let mut progress = progress(&[1, 2, 3]);
        progress.seen(at(1_000).mono, ReplicaKey::new(NodeId(2), Uuid::from_bytes([8; 16])));
        assert!(progress.has_lost_majority(at(3_500).mono));
    }

    #[test]
    fn an_observer_may_become_a_voter_if_it_was_caught_up_and_has_fetched_within_an_hour() {
        let mut progress = progress(&[1]);
        fetch(&mut progress, 1, 8, 5, 20);
        assert!(!progress.is_caught_up(at(2).mono, key(8)), "it lags");
        fetch(&mut progress, 1, 9, 20, 20);
        assert!(progress.is_caught_up(at(CAUGHT_UP_MS).mono, key(9)));
        assert!(!progress.is_caught_up(at(CAUGHT_UP_MS + 1).mono, key(9)));
        assert!(!progress.is_caught_up(at(2).mono, key(7)), "it is not known");
    }

    #[test]
    fn an_observer_is_forgotten_after_five_minutes_and_the_leader_itself_is_not() {
        let mut progress = progress(&[1, 2]);
        progress.update_own(Offset(20), &voters(&[2, 3]), START);
        fetch(&mut progress, 1, 9, 20, 20);
        let mut left = |ms| {
            progress.forget_idle_observers(at(ms).mono);
            progress.observers().map(|observer| observer.key.node.0).collect::<Vec<_>>()
        };
        assert_eq!(left(OBSERVER_SESSION_MS), [1, 9]);
        assert_eq!(left(OBSERVER_SESSION_MS + 1), [1], "the leader was removed from the voters, and has the log");
    }

    #[test]
    fn another_voter_counts_only_with_what_it_has_itself() {
        // Voter 3 goes and voter 4 comes: the set has as many voters as before.
        let mut progress = progress(&[1, 2, 3]);
        progress.update_own(Offset(20), &voters(&[1, 2, 3]), START);
        progress.update_own(Offset(20), &voters(&[1, 2, 4]), START);
        assert!(!fetch(&mut progress, 1, 3, 20, 20), "it is no voter any more");
        assert!(fetch(&mut progress, 2, 4, 20, 20));

        // The same node with another disk has nothing yet.
        let mut progress = self::progress(&[1, 2]);
        fetch(&mut progress, 1, 2, 20, 20);
        let new_disk = Voter {
            key: ReplicaKey::new(NodeId(2), Uuid::from_bytes([8; 16])),
            endpoints: Endpoints::default(),
            kraft_versions: KRAFT_VERSIONS,
        };
        let set = voters(&[1, 2]).updated_in_any_directory(new_disk).unwrap();
        assert!(!progress.update_own(Offset(20), &set, START));

        // A static voter that tells its directory keeps what it had.
        let unknown = |node: i32| Voter {
            key: ReplicaKey { directory: None, ..key(node) },
            endpoints: Endpoints::default(),
            kraft_versions: KRAFT_VERSIONS,
        };
        let set: VoterSet = [unknown(1), unknown(2)].into_iter().collect();
        let mut progress = Progress::new(Mono::ZERO, key(1), &set, 2_000, Plants::default());
        fetch(&mut progress, 1, 2, 20, 20);
        assert!(progress.update_own(Offset(20), &voters(&[1, 2]), START));
        assert!(progress.voters().all(|replica| replica.key.directory.is_some()));
    }
}
