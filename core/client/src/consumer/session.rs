//! A fetch session with one broker (KIP-227). Client and broker both remember the partitions that are fetched, so a
//! request names only the partitions that have changed.

use crate::TopicPartition;
use std::collections::BTreeMap;
use tidelog_wire::ids::{LeaderEpoch, Uuid};

/// From where a partition is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub topic_id: Uuid,
    pub offset: i64,
    pub leader_epoch: LeaderEpoch,
}

/// The part of a Fetch request that belongs to the session.
#[derive(Debug, PartialEq, Eq)]
pub struct SessionRequest {
    pub id: i32,
    pub epoch: i32,
    pub named: Vec<(TopicPartition, Wanted)>,
    pub forgotten: Vec<(TopicPartition, Uuid)>,
}

#[derive(Debug, Default)]
pub struct Session {
    id: i32,
    /// The session epoch of the next request. 0 ends the session with this id and begins a new one.
    epoch: i32,
    /// The partitions that the broker remembers when the last request has arrived there.
    partitions: BTreeMap<TopicPartition, Wanted>,
}

impl Session {
    /// The next request for all partitions in `wanted`, in the order in which the broker is to look at them.
    pub fn next(&mut self, wanted: Vec<(TopicPartition, Wanted)>) -> SessionRequest {
        let (id, epoch) = (self.id, self.epoch);
        if epoch == 0 {
            self.partitions = wanted.iter().cloned().collect();
            return SessionRequest { id, epoch, named: wanted, forgotten: Vec::new() };
        }
        let before = std::mem::take(&mut self.partitions);
        self.partitions = wanted.iter().cloned().collect();
        // A topic that was deleted and created again has another id: the old one must be forgotten too.
        let is_gone =
            |it: &TopicPartition, old: &Wanted| self.partitions.get(it).is_none_or(|new| new.topic_id != old.topic_id);
        let forgotten = before.iter().filter(|(it, old)| is_gone(it, old));
        let forgotten = forgotten.map(|(it, old)| (it.clone(), old.topic_id)).collect();
        let named = wanted.into_iter().filter(|(it, new)| before.get(it) != Some(new)).collect();
        SessionRequest { id, epoch, named, forgotten }
    }

    /// A request was answered without an error, in the session with this id. 0 means that the broker has made no
    /// session.
    pub fn advance(&mut self, id: i32) {
        match id {
            0 => *self = Self::default(),
            // After the greatest epoch comes 1, since 0 would ask for a new session.
            id if self.epoch > 0 && id == self.id => self.epoch = self.epoch % i32::MAX + 1,
            id => (self.id, self.epoch) = (id, 1),
        }
    }

    /// The broker does not know the session.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// The last request may not have arrived: the next one ends this session and begins another.
    pub fn renew(&mut self) {
        self.epoch = 0;
        self.partitions.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(all: &[(i32, i64)]) -> Vec<(TopicPartition, Wanted)> {
        let one = |&(partition, offset)| {
            let wanted = Wanted { topic_id: Uuid::from_bytes([1; 16]), offset, leader_epoch: LeaderEpoch(3) };
            (TopicPartition::new("t", partition), wanted)
        };
        all.iter().map(one).collect()
    }

    fn named(step: &SessionRequest) -> Vec<i32> {
        step.named.iter().map(|(it, _)| it.partition).collect()
    }

    fn forgotten(step: &SessionRequest) -> Vec<i32> {
        step.forgotten.iter().map(|(it, _)| it.partition).collect()
    }

    #[test]
    fn a_request_of_a_session_names_only_partitions_that_were_changed_or_removed() {
        let mut session = Session::default();
        let first = session.next(wanted(&[(2, 0), (0, 5), (1, 7)]));
        assert_eq!(((first.id, first.epoch), named(&first)), ((0, 0), vec![2, 0, 1]));
        session.advance(9);
        let second = session.next(wanted(&[(0, 6), (1, 7), (3, 0)]));
        assert_eq!(((second.id, second.epoch), named(&second)), ((9, 1), vec![0, 3]));
        assert_eq!(forgotten(&second), [2]);
        session.advance(9);
        let third = session.next(wanted(&[(0, 6), (1, 7), (3, 0)]));
        assert_eq!((third.epoch, named(&third), forgotten(&third)), (2, vec![], vec![]));
    }

    #[test]
    fn a_topic_that_was_created_again_is_named_and_the_old_one_is_forgotten() {
        let mut session = Session::default();
        session.next(wanted(&[(0, 5)]));
        session.advance(9);
        let mut again = wanted(&[(0, 5)]);
        again[0].1.topic_id = Uuid::from_bytes([2; 16]);
        let step = session.next(again);
        assert_eq!((named(&step), step.forgotten[0].1), (vec![0], Uuid::from_bytes([1; 16])));
    }

    #[test]
    fn a_session_whose_last_request_may_be_lost_is_ended_by_the_next_one() {
        let mut session = Session::default();
        session.next(wanted(&[(0, 5)]));
        session.advance(9);
        session.renew();
        let step = session.next(wanted(&[(0, 5)]));
        assert_eq!((step.id, step.epoch, named(&step)), (9, 0, vec![0]));
        session.advance(11);
        assert_eq!(session.next(wanted(&[(0, 5)])).epoch, 1);
        session.advance(0);
        assert_eq!(session.next(wanted(&[(0, 5)])).epoch, 0, "the broker has made no session");
    }

    #[test]
    fn the_epoch_of_a_session_wraps_to_one() {
        let mut session = Session { id: 9, epoch: i32::MAX, partitions: BTreeMap::new() };
        session.advance(9);
        assert_eq!(session.epoch, 1);
    }
}
