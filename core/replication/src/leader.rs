//! What the leader of a partition knows of the other replicas: how far they are, which of them are in sync, and up to
//! which offset all of these have the log.
//!
//! The rules are those of Kafka's `Partition` and `Replica`, with one difference: the leader itself counts with what it
//! has on stable storage, and so do Tidelog's followers, which fetch on when what they have got is stable.

use crate::assignment::{Assignment, Brokers, Local};
use crate::isr::{Isr, IsrProposal};
use std::collections::BTreeMap;
use tidelog_wire::ids::{NodeId, Offset};
use tidelog_wire::time::Mono;

/// What a follower tells with a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerFetch {
    pub node: NodeId,
    /// The epoch of its broker; -1 if it does not tell.
    pub broker_epoch: i64,
    /// Where its log ends. All below is on its stable storage.
    pub offset: Offset,
    pub log_start: Offset,
}

/// How far a follower is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// Unknown until the follower has fetched from this leader.
    log_end: Option<Offset>,
    log_start: Option<Offset>,
    broker_epoch: Option<i64>,
    /// When it last fetched, and where the leader's log ended then.
    last_fetch: Option<(Mono, Offset)>,
    /// When it last had all that the leader had.
    caught_up_at: Option<Mono>,
}

impl Progress {
    fn is_caught_up(&self, leader_end: Offset, now: Mono, max_lag_ms: i64) -> bool {
        self.log_end == Some(leader_end) || self.caught_up_at.is_some_and(|at| now <= at.plus_ms(max_lag_ms))
    }

    fn note(&mut self, now: Mono, fetch: &FollowerFetch, leader_end: Offset) {
        // A fetch may have been under way while the leader's log grew: what counts is what there was at the one before.
        let caught_up = match self.last_fetch {
            _ if fetch.offset >= leader_end => Some(now),
            Some((at, end)) if fetch.offset >= end => Some(at),
            _ => None,
        };
        self.caught_up_at = self.caught_up_at.max(caught_up);
        self.last_fetch = Some((now, leader_end));
        self.log_end = Some(fetch.offset);
        self.log_start = Some(fetch.log_start);
        self.broker_epoch = Some(fetch.broker_epoch);
    }
}

/// Where the leader's own log stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    /// The offset below which its records may be acknowledged.
    pub stable: Offset,
    pub end: Offset,
    pub high_watermark: Offset,
}

#[derive(Debug)]
pub(crate) struct Leader {
    local: Local,
    /// Where the leader's epoch begins in its log. None until its log is open.
    pub epoch_start: Option<Offset>,
    partition_epoch: i32,
    isr: Isr,
    others: BTreeMap<NodeId, Progress>,
}

impl Leader {
    /// Begins to lead.
    pub fn new(now: Mono, local: Local, assignment: &Assignment) -> Self {
        let mut this = Self {
            local,
            epoch_start: None,
            partition_epoch: assignment.partition_epoch,
            isr: Isr::new(assignment.isr.clone()),
            others: BTreeMap::new(),
        };
        this.assign(now, assignment);
        this
    }

    /// Goes on leading, in the same leader epoch or in another one, with these replicas.
    pub fn assign(&mut self, now: Mono, assignment: &Assignment) {
        let me = self.local.node;
        // What the controller's answer has told before ends no change that was asked for since.
        if assignment.partition_epoch > self.partition_epoch {
            self.partition_epoch = assignment.partition_epoch;
            self.isr.commit(assignment.isr.clone());
        }
        self.others.retain(|node, _| assignment.replicas.contains(node));
        for node in assignment.replicas.iter().filter(|node| **node != me) {
            // A replica that is in sync has time to show itself.
            let caught_up_at = assignment.isr.contains(node).then_some(now);
            self.others.entry(*node).or_insert(Progress { caught_up_at, ..Progress::default() });
        }
    }

    /// The leader's next epoch begins: the replicas have as much time as at the start of the first one.
    pub fn begin_epoch(&mut self, now: Mono, leader_end: Offset) {
        self.epoch_start = None;
        for (node, progress) in &mut self.others {
            progress.caught_up_at = self.isr.committed().contains(node).then_some(now);
            progress.last_fetch = progress.last_fetch.map(|(at, _)| (at, leader_end));
        }
    }

    pub fn partition_epoch(&self) -> i32 {
        self.partition_epoch
    }

    pub fn isr(&self) -> &Isr {
        &self.isr
    }

    pub fn isr_mut(&mut self) -> &mut Isr {
        &mut self.isr
    }

    /// All replicas, this one included.
    pub fn replica_count(&self) -> usize {
        self.others.len() + 1
    }

    pub fn has_replica(&self, node: NodeId) -> bool {
        self.others.contains_key(&node)
    }

    /// How far a follower is behind the end of the leader's log; none for one that has not fetched yet.
    pub fn lag(&self, leader_end: Offset) -> impl Iterator<Item = (NodeId, Option<i64>)> {
        self.others.iter().map(move |(node, progress)| (*node, progress.log_end.map(|end| leader_end - end)))
    }

    /// Whether this is the change that is asked for now.
    pub fn awaits(&self, asked: &IsrProposal) -> bool {
        let nodes = asked.isr.iter().map(|(node, _)| node);
        asked.partition_epoch == self.partition_epoch && self.isr.proposed().is_some_and(|isr| isr.iter().eq(nodes))
    }

    /// The controller has committed the ISR that it was asked for.
    pub fn isr_committed(&mut self, partition_epoch: i32, isr: Vec<NodeId>) {
        self.partition_epoch = partition_epoch;
        self.isr.commit(isr);
    }

    /// A follower has fetched. False if the fetch is of an earlier life of its broker: it tells nothing of the present one
    /// (KIP-903).
    pub fn fetched(&mut self, now: Mono, fetch: &FollowerFetch, leader_end: Offset, brokers: &impl Brokers) -> bool {
        let Some(progress) = self.others.get_mut(&fetch.node) else { return false };
        let is_stale =
            brokers.alive_epoch(fetch.node).is_some_and(|epoch| fetch.broker_epoch >= 0 && fetch.broker_epoch < epoch);
        if !is_stale {
            progress.note(now, fetch, leader_end);
        }
        !is_stale
    }

    /// The offset below which all replicas have the log that are in sync, or are about to be. None if it cannot be known,
    /// or must not advance: while fewer than `min_in_sync` replicas are in sync, nothing is committed (KIP-966).
    pub fn committed_up_to(&self, now: Mono, own: Own, min_in_sync: usize, brokers: &impl Brokers) -> Option<Offset> {
        if self.isr.committed().len() < min_in_sync {
            return None;
        }
        let mut lowest = own.stable;
        for (node, progress) in &self.others {
            let end = progress.log_end.unwrap_or(Offset(-1));
            // Who has caught up joins soon, and could not if the high watermark ran ahead of it all the time.
            let joins = || {
                progress.is_caught_up(own.end, now, self.local.max_lag_ms) && self.is_eligible(*node, progress, brokers)
            };
            if end < lowest && (self.isr.may_contain(*node) || joins()) {
                lowest = end;
            }
        }
        (lowest >= Offset::ZERO).then_some(lowest)
    }

    /// Whether the controller would take the replica into the ISR.
    fn is_eligible(&self, node: NodeId, progress: &Progress, brokers: &impl Brokers) -> bool {
        let known = brokers.active_epoch(node);
        known.is_some_and(|epoch| progress.broker_epoch.is_some_and(|told| told == -1 || told == epoch))
    }

    /// Asks for a follower to be in sync, if it has what is committed, and all from before this epoch: else it could become
    /// the leader without records that are committed and that it cannot know as such.
    pub fn expand(&mut self, node: NodeId, own: Own, brokers: &impl Brokers) -> Option<IsrProposal> {
        if self.isr.is_changing() || self.isr.committed().contains(&node) {
            return None;
        }
        let progress = self.others.get(&node)?;
        let (end, start) = (progress.log_end?, self.epoch_start?);
        if end < own.high_watermark || end < start || !self.is_eligible(node, progress, brokers) {
            return None;
        }
        let isr = self.isr.committed().iter().copied().chain([node]).collect();
        Some(self.propose(isr))
    }

    /// Asks for the followers to be out of sync that have not caught up for too long.
    pub fn shrink(&mut self, now: Mono, own: Own) -> Option<IsrProposal> {
        if self.isr.is_changing() {
            return None;
        }
        let stays = |node: &NodeId| {
            let progress = self.others.get(node);
            *node == self.local.node
                || progress.is_some_and(|progress| progress.is_caught_up(own.end, now, self.local.max_lag_ms))
        };
        let isr: Vec<NodeId> = self.isr.committed().iter().copied().filter(stays).collect();
        (isr.len() < self.isr.committed().len()).then(|| self.propose(isr))
    }

    fn propose(&mut self, isr: Vec<NodeId>) -> IsrProposal {
        self.isr.propose(isr.clone());
        self.proposal(&isr)
    }

    /// The change that is asked for, to ask for it again.
    pub fn proposed(&self) -> Option<IsrProposal> {
        self.isr.proposed().map(|isr| self.proposal(isr))
    }

    fn proposal(&self, isr: &[NodeId]) -> IsrProposal {
        let epoch = |node: &NodeId| self.others.get(node).and_then(|progress| progress.broker_epoch).unwrap_or(-1);
        IsrProposal {
            partition_epoch: self.partition_epoch,
            isr: isr.iter().map(|node| (*node, epoch(node))).collect(),
        }
    }

    /// The lowest log start of the replicas on brokers that are there: records below it are deleted everywhere.
    pub fn low_watermark(&self, own_start: Offset, brokers: &impl Brokers) -> Offset {
        let others = self.others.iter().filter(|(node, _)| brokers.alive_epoch(**node).is_some());
        others.map(|(_, progress)| progress.log_start.unwrap_or(Offset(-1))).fold(own_start, Offset::min)
    }

    pub fn verify(&self) {
        self.isr.verify();
        assert!(!self.others.contains_key(&self.local.node), "the leader does not follow itself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_wire::ids::LeaderEpoch;

    const MAX_LAG_MS: i64 = 1_000;

    /// Every broker is there, in its first life.
    struct Cluster {
        gone: Vec<NodeId>,
        shuts_down: Vec<NodeId>,
        epoch: i64,
    }

    impl Default for Cluster {
        fn default() -> Self {
            Self { gone: Vec::new(), shuts_down: Vec::new(), epoch: 7 }
        }
    }

    impl Brokers for Cluster {
        fn active_epoch(&self, node: NodeId) -> Option<i64> {
            self.alive_epoch(node).filter(|_| !self.shuts_down.contains(&node))
        }

        fn alive_epoch(&self, node: NodeId) -> Option<i64> {
            (!self.gone.contains(&node)).then_some(self.epoch)
        }
    }

    fn ms(ms: i64) -> Mono {
        Mono::ZERO.plus_ms(1_000 + ms)
    }

    fn nodes(ids: &[i32]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn assignment(isr: &[i32]) -> Assignment {
        Assignment {
            leader: Some(NodeId(1)),
            leader_epoch: LeaderEpoch(3),
            partition_epoch: 5,
            replicas: nodes(&[1, 2, 3]),
            isr: nodes(isr),
        }
    }

    /// Node 1 leads from offset 10 on, where all is committed.
    fn leader(isr: &[i32]) -> Leader {
        let mut leader = Leader::new(ms(0), Local { node: NodeId(1), max_lag_ms: MAX_LAG_MS }, &assignment(isr));
        leader.epoch_start = Some(Offset(10));
        leader
    }

    fn own(stable: i64, end: i64) -> Own {
        Own { stable: Offset(stable), end: Offset(end), high_watermark: Offset(10) }
    }

    fn fetch(leader: &mut Leader, at: i64, node: i32, offset: i64, end: i64) -> bool {
        let fetch =
            FollowerFetch { node: NodeId(node), broker_epoch: 7, offset: Offset(offset), log_start: Offset::ZERO };
        leader.fetched(ms(at), &fetch, Offset(end), &Cluster::default())
    }

    fn committed(leader: &Leader, at: i64, own: Own, min: usize) -> Option<i64> {
        leader.committed_up_to(ms(at), own, min, &Cluster::default()).map(|offset| offset.0)
    }

    fn ids(proposal: Option<IsrProposal>) -> Option<Vec<i32>> {
        proposal.map(|proposal| proposal.isr.iter().map(|(node, _)| node.0).collect())
    }

    #[test]
    fn what_all_in_sync_replicas_have_on_stable_storage_is_committed() {
        let mut leader = leader(&[1, 2, 3]);
        assert_eq!(committed(&leader, 0, own(20, 20), 1), None, "nobody has fetched yet");
        fetch(&mut leader, 1, 2, 18, 20);
        assert_eq!(committed(&leader, 1, own(20, 20), 1), None, "one has not fetched yet");
        fetch(&mut leader, 1, 3, 15, 20);
        assert_eq!(committed(&leader, 1, own(20, 20), 1), Some(15));
        assert_eq!(committed(&leader, 1, own(12, 20), 1), Some(12), "the leader is one of them");
    }

    #[test]
    fn nothing_is_committed_while_too_few_replicas_are_in_sync() {
        let leader = leader(&[1]);
        assert_eq!(committed(&leader, 5_000, own(20, 20), 1), Some(20));
        assert_eq!(committed(&leader, 5_000, own(20, 20), 2), None);
    }

    #[test]
    fn a_replica_that_has_caught_up_is_waited_for_although_it_is_not_in_sync_yet() {
        let mut leader = leader(&[1]);
        fetch(&mut leader, 0, 2, 20, 20);
        assert_eq!(committed(&leader, 0, own(30, 30), 1), Some(20), "it joins soon");
        let fenced = Cluster { gone: nodes(&[2]), ..Cluster::default() };
        assert_eq!(leader.committed_up_to(ms(0), own(30, 30), 1, &fenced), Some(Offset(30)), "it may not join");
        assert_eq!(committed(&leader, MAX_LAG_MS + 1, own(30, 30), 1), Some(30), "it lags behind now");
    }

    #[test]
    fn a_follower_joins_once_it_has_all_that_is_committed_and_all_from_before_the_epoch() {
        let mut leader = leader(&[1]);
        let cluster = Cluster::default();
        fetch(&mut leader, 0, 2, 9, 20);
        assert_eq!(leader.expand(NodeId(2), Own { high_watermark: Offset(5), ..own(20, 20) }, &cluster), None);
        fetch(&mut leader, 1, 2, 10, 20);
        assert_eq!(leader.expand(NodeId(2), Own { high_watermark: Offset(11), ..own(20, 20) }, &cluster), None);
        assert_eq!(leader.expand(NodeId(3), own(20, 20), &cluster), None, "it has not fetched");
        let proposal = leader.expand(NodeId(2), own(20, 20), &cluster).expect("it has all that it needs");
        assert_eq!(proposal, IsrProposal { partition_epoch: 5, isr: vec![(NodeId(1), -1), (NodeId(2), 7)] });
        assert_eq!(committed(&leader, 1, own(20, 20), 1), Some(10), "it counts from now on");
        fetch(&mut leader, 1, 3, 20, 20);
        assert_eq!(leader.expand(NodeId(3), own(20, 20), &cluster), None, "one change at a time");
        assert_eq!(leader.shrink(ms(9_000), own(20, 20)), None, "one change at a time");
        leader.isr_committed(6, nodes(&[1, 2]));
        assert_eq!(ids(leader.expand(NodeId(3), own(20, 20), &cluster)), Some(vec![1, 2, 3]));
    }

    #[test]
    fn a_follower_whose_broker_may_not_join_is_not_proposed() {
        let mut leader = leader(&[1]);
        fetch(&mut leader, 0, 2, 20, 20);
        for cluster in [
            Cluster { gone: nodes(&[2]), ..Cluster::default() },
            Cluster { shuts_down: nodes(&[2]), ..Cluster::default() },
            // The fetch was of its earlier life.
            Cluster { epoch: 8, ..Cluster::default() },
        ] {
            assert_eq!(leader.expand(NodeId(2), own(20, 20), &cluster), None);
        }
        assert!(leader.expand(NodeId(2), own(20, 20), &Cluster::default()).is_some());
    }

    #[test]
    fn a_fetch_of_an_earlier_life_tells_nothing() {
        let mut leader = leader(&[1, 2]);
        let later = Cluster { epoch: 8, ..Cluster::default() };
        let mut fetch = FollowerFetch { node: NodeId(2), broker_epoch: 7, offset: Offset(20), log_start: Offset::ZERO };
        assert!(!leader.fetched(ms(0), &fetch, Offset(20), &later));
        assert_eq!(committed(&leader, 0, own(20, 20), 1), None);
        // An old follower does not tell its epoch.
        fetch.broker_epoch = -1;
        assert!(leader.fetched(ms(0), &fetch, Offset(20), &later));
        fetch.node = NodeId(9);
        assert!(!leader.fetched(ms(0), &fetch, Offset(20), &later), "it has no replica");
    }

    #[test]
    fn a_follower_leaves_when_it_has_not_caught_up_for_too_long() {
        let mut leader = leader(&[1, 2, 3]);
        fetch(&mut leader, 100, 2, 20, 20);
        // This one is always behind: what it fetches has grown when it comes for it.
        fetch(&mut leader, 100, 3, 15, 20);
        fetch(&mut leader, 600, 3, 18, 25);
        assert_eq!(leader.shrink(ms(MAX_LAG_MS), own(25, 25)), None, "both were in sync at the beginning");
        let proposal = leader.shrink(ms(MAX_LAG_MS + 1), own(25, 25));
        assert_eq!(ids(proposal), Some(vec![1, 2]));
        assert!(leader.isr().may_contain(NodeId(3)), "until the controller says so, the high watermark waits for it");
    }

    #[test]
    fn a_follower_that_always_reaches_the_end_of_one_fetch_ago_is_in_sync() {
        let mut leader = leader(&[1, 2]);
        let mut end = 20;
        for at in 0..20 {
            fetch(&mut leader, at * 500, 2, end, end + 5);
            end += 5;
        }
        assert_eq!(leader.shrink(ms(20 * 500), own(end, end)), None);
        fetch(&mut leader, 20 * 500, 2, end - 1, end);
        assert_eq!(ids(leader.shrink(ms(20 * 500 + 2 * MAX_LAG_MS), own(end, end))), Some(vec![1]));
    }

    #[test]
    fn a_follower_with_all_of_the_log_is_in_sync_however_long_it_is_silent() {
        let mut leader = leader(&[1, 2]);
        fetch(&mut leader, 0, 2, 20, 20);
        assert_eq!(leader.shrink(ms(1_000_000), own(20, 20)), None);
        assert_eq!(ids(leader.shrink(ms(1_000_000), own(20, 21))), Some(vec![1]));
    }

    #[test]
    fn the_next_epoch_gives_replicas_their_time_anew_and_forgets_those_that_are_gone() {
        let mut leader = leader(&[1, 2, 3]);
        fetch(&mut leader, 0, 2, 15, 20);
        leader.assign(ms(5_000), &Assignment { replicas: nodes(&[1, 2]), partition_epoch: 6, ..assignment(&[1, 2]) });
        leader.begin_epoch(ms(5_000), Offset(20));
        assert_eq!(leader.epoch_start, None);
        assert!(!leader.has_replica(NodeId(3)));
        assert_eq!(leader.shrink(ms(5_000 + MAX_LAG_MS), own(20, 20)), None);
        assert_eq!(committed(&leader, 5_000, own(20, 20), 1), Some(15), "what it had it has still");
        leader.verify();
    }

    #[test]
    fn records_are_deleted_everywhere_where_a_broker_is_there() {
        let mut leader = leader(&[1, 2, 3]);
        let start = |leader: &Leader, cluster: &Cluster| leader.low_watermark(Offset(10), cluster).0;
        assert_eq!(start(&leader, &Cluster::default()), -1, "nobody has told where its log starts");
        for (node, log_start) in [(2, 4), (3, 6)] {
            let fetch =
                FollowerFetch { node: NodeId(node), broker_epoch: 7, offset: Offset(12), log_start: Offset(log_start) };
            leader.fetched(ms(0), &fetch, Offset(12), &Cluster::default());
        }
        assert_eq!(start(&leader, &Cluster::default()), 4);
        assert_eq!(start(&leader, &Cluster { gone: nodes(&[2]), ..Cluster::default() }), 6);
        assert_eq!(start(&leader, &Cluster { gone: nodes(&[2, 3]), ..Cluster::default() }), 10);
    }
}
