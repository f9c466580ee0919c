//! A partition as its producer sees it: batches that wait, batches that are under way, and the sequences of both.
//!
//! Invariants, where the producer is idempotent (KIP-98): the queue is in the order of the batches' making, those that
//! went out before stand in front; a batch that went out goes out again only once everything before it is settled; a
//! batch keeps its sequence, unless the sequences of all begin anew under another identity, which waits until nothing
//! of the partition is under way.

use super::batch::{Batch, BatchOrder, add_to_sequence};
use crate::ids::{LeaderEpoch, ProducerId};
use crate::time::Mono;
use std::collections::VecDeque;

/// A producer's id and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub id: ProducerId,
    pub epoch: i16,
}

#[derive(Debug, Default)]
pub struct Partition {
    pub queue: VecDeque<Batch>,
    pub in_flight: Vec<Batch>,
    identity: Option<Identity>,
    next_sequence: i32,
    /// Of the last batch that was acknowledged under this identity.
    last_acked: Option<i32>,
    pub last_acked_offset: Option<i64>,
    /// Batches that went out were given up: the sequence behind the last of them.
    unresolved: Option<i32>,
    /// The sequences begin anew as soon as nothing is under way.
    restart: bool,
}

/// What a refused sequence leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Retry,
    /// The broker has lost what it knew of the producer: a new epoch, sequences from 0, and again.
    RestartAndRetry,
}

impl Partition {
    /// Puts a batch back to where it belongs.
    pub fn requeue(&mut self, batch: Batch) {
        let place = self.queue.partition_point(|waiting| waiting.order < batch.order);
        self.queue.insert(place, batch);
    }

    pub fn take_in_flight(&mut self, order: BatchOrder) -> Option<Batch> {
        let place = self.in_flight.iter().position(|batch| batch.order == order)?;
        Some(self.in_flight.remove(place))
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty()
    }

    pub fn oldest(&self) -> Option<BatchOrder> {
        self.in_flight.iter().chain(self.queue.front()).map(|batch| batch.order).min()
    }

    /// Whether the first batch of the queue must wait for others, for the sake of order.
    pub fn must_wait(&self, identity: Option<Identity>) -> bool {
        let Some(identity) = identity else { return true };
        let Some(first) = self.queue.front() else { return true };
        if self.restart {
            return true;
        }
        if first.sequence.is_none() {
            // Behind what was sent under an older identity, or was given up, nothing new is sent.
            return self.unresolved.is_some() || self.identity != Some(identity) && !self.in_flight.is_empty();
        }
        self.in_flight.iter().any(|batch| batch.order < first.order)
    }

    /// Gives a batch that goes out for the first time its sequence.
    pub fn assign(&mut self, batch: &mut Batch, identity: Identity) {
        if batch.sequence.is_some() {
            return;
        }
        if self.identity != Some(identity) {
            assert!(self.in_flight.is_empty(), "an identity changes while nothing is under way");
            self.begin(identity);
        }
        batch.sequence = Some((identity, self.next_sequence));
        self.next_sequence = add_to_sequence(self.next_sequence, batch.records_count());
    }

    fn begin(&mut self, identity: Identity) {
        self.identity = Some(identity);
        self.next_sequence = 0;
        self.last_acked = None;
    }

    /// A batch was acknowledged.
    pub fn acknowledge(&mut self, batch: &Batch, offset: Option<i64>) {
        if let (Some((identity, _)), Some(last)) = (batch.sequence, batch.last_sequence())
            && self.identity == Some(identity)
        {
            self.last_acked = Some(self.last_acked.map_or(last, |acked| later_sequence(acked, last)));
        }
        let end = offset.map(|offset| offset + i64::from(batch.records_count()) - 1);
        self.last_acked_offset = self.last_acked_offset.max(end);
    }

    fn is_next(&self, sequence: i32) -> bool {
        self.last_acked.map_or(0, |last| add_to_sequence(last, 1)) == sequence
    }

    /// A batch that went out was given up without an answer: whether it was taken is not known, and nothing new goes
    /// out until it is.
    pub fn leave_unresolved(&mut self, batch: &Batch) {
        if let Some(last) = batch.last_sequence() {
            let end = add_to_sequence(last, 1);
            self.unresolved = Some(self.unresolved.map_or(end, |before| later_sequence(before, end)));
        }
    }

    /// OUT_OF_ORDER_SEQUENCE_NUMBER. One that is not the next due waits for those before it; the next due, or the one
    /// behind batches that were given up, shows that the broker's state is not ours.
    pub fn judge_out_of_order(&self, batch: &Batch) -> Verdict {
        let Some(base) = batch.base_sequence() else { return Verdict::Retry };
        let lost = match self.unresolved {
            None => !batch.restarted && self.is_next(base),
            Some(end) => end == base,
        };
        if lost && !self.restart { Verdict::RestartAndRetry } else { Verdict::Retry }
    }

    /// The sequences begin anew, under a new epoch.
    pub fn ask_for_restart(&mut self) {
        self.restart = true;
    }

    pub fn is_restarting(&self) -> bool {
        self.restart
    }

    /// Whether batches were given up, and the sequences must begin anew because nobody can tell whether they were
    /// taken; where the ones after them were acknowledged, that is known.
    pub fn resolve(&mut self) -> bool {
        let has_sequenced = self.queue.front().is_some_and(|batch| batch.sequence.is_some());
        if self.unresolved.is_none() || !self.in_flight.is_empty() || has_sequenced {
            return false;
        }
        self.unresolved = None;
        !self.is_next(self.next_sequence)
    }

    /// Gives the batches that went out before new sequences, from 0, once nothing is under way.
    pub fn restart_if_quiet(&mut self, identity: Identity) {
        if !self.restart || !self.in_flight.is_empty() {
            return;
        }
        self.restart = false;
        self.unresolved = None;
        self.begin(identity);
        for batch in self.queue.iter_mut().take_while(|batch| batch.sequence.is_some()) {
            batch.sequence = Some((identity, self.next_sequence));
            batch.restarted = true;
            self.next_sequence = add_to_sequence(self.next_sequence, batch.records_count());
        }
    }

    /// When the first batch of the queue may go out: when its linger is over or it is full, or its pause is over.
    pub fn ready_at(
        &self,
        linger_ms: i64,
        flushing: impl Fn(&Batch) -> bool,
        full: usize,
        leader: LeaderEpoch,
    ) -> Option<Mono> {
        let first = self.queue.front()?;
        if first.attempts > 0 {
            let new_leader = leader > first.tried_epoch && first.tried_epoch != LeaderEpoch::UNKNOWN;
            return Some(if new_leader { first.last_attempt } else { first.last_attempt.plus_ms(first.pause_ms) });
        }
        let at_once = self.queue.len() > 1 || flushing(first) || first.size_bytes() >= full || !first.has_room(1, full);
        Some(if at_once { first.created_at } else { first.created_at.plus_ms(linger_ms) })
    }
}

/// Of two sequences near each other the one that comes later, across the wrap to 0.
fn later_sequence(left: i32, right: i32) -> i32 {
    let ahead = (i64::from(right) - i64::from(left)).rem_euclid(1 << 31);
    if ahead < 1 << 30 { right } else { left }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_sequences_the_later_is_known_across_the_wrap() {
        assert_eq!((later_sequence(3, 9), later_sequence(9, 3)), (9, 9));
        assert_eq!((later_sequence(i32::MAX, 0), later_sequence(0, i32::MAX)), (0, 0));
    }
}
