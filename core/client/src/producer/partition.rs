//! The batches of a producer for one partition: those that wait in the queue, those in flight, and their sequences.
//!
//! Invariants if the producer is idempotent (KIP-98):
//! - The queue is sorted by the order in which the batches were made. So batches that were sent before come first.
//! - A batch is sent again only when no earlier batch is in flight.
//! - A batch keeps its sequence. The only exception is a restart: when no batch of the partition is in flight, all
//!   batches get new sequences, from 0 on, under another identity.

use super::batch::{Batch, BatchOrder, add_to_sequence};
use std::collections::VecDeque;
use tidelog_wire::ids::{LeaderEpoch, ProducerId};
use tidelog_wire::time::Mono;

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
    /// The last sequence of the last batch that was acknowledged under this identity.
    last_acked: Option<i32>,
    pub last_acked_offset: Option<i64>,
    /// Set if batches were given up after they had been sent, so that nobody knows whether the broker has appended
    /// them: the sequence that follows the last of them.
    unresolved: Option<i32>,
    /// Whether the sequences begin with 0 again when no batch is in flight.
    restart: bool,
}

/// How a batch that was refused is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryKind {
    Retry,
    /// The broker has lost its state of the producer. The batch is sent under a new epoch, with sequences from 0 on.
    RestartAndRetry,
}

impl Partition {
    /// Puts a batch back into the queue, in order.
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

    /// Whether the first batch of the queue must not be sent yet, because the order or the sequences could break.
    pub fn must_wait(&self, identity: Option<Identity>) -> bool {
        let Some(identity) = identity else { return true };
        let Some(first) = self.queue.front() else { return true };
        if self.restart {
            return true;
        }
        if first.sequence.is_none() {
            // A new batch waits while the fate of earlier ones is unknown, or earlier ones are in flight under another
            // identity.
            return self.unresolved.is_some() || self.identity != Some(identity) && !self.in_flight.is_empty();
        }
        self.in_flight.iter().any(|batch| batch.order < first.order)
    }

    /// Gives a batch its sequence when it is sent for the first time.
    pub fn assign(&mut self, batch: &mut Batch, identity: Identity) {
        if batch.sequence.is_some() {
            return;
        }
        if self.identity != Some(identity) {
            assert!(self.in_flight.is_empty(), "the identity changes only while no batch is in flight");
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

    /// Notes that the broker has acknowledged a batch.
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

    /// Notes that a batch was given up after it had been sent. Nobody knows whether the broker has appended it, and no
    /// new batch is sent until [`resolve`](Self::resolve) has decided what follows.
    pub fn leave_unresolved(&mut self, batch: &Batch) {
        if let Some(last) = batch.last_sequence() {
            let end = add_to_sequence(last, 1);
            self.unresolved = Some(self.unresolved.map_or(end, |before| later_sequence(before, end)));
        }
    }

    /// Decides about a batch that was refused with OUT_OF_ORDER_SEQUENCE_NUMBER. If earlier batches are still to be
    /// acknowledged, it is sent again after them. If its sequence was the next one to acknowledge, or follows batches
    /// that were given up, then the broker's state of the producer differs from ours.
    pub fn judge_out_of_order(&self, batch: &Batch) -> RetryKind {
        let Some(base) = batch.base_sequence() else { return RetryKind::Retry };
        let lost = match self.unresolved {
            None => !batch.restarted && self.is_next(base),
            Some(end) => end == base,
        };
        if lost && !self.restart { RetryKind::RestartAndRetry } else { RetryKind::Retry }
    }

    /// Lets the sequences begin with 0 again, under a new epoch, when no batch is in flight.
    pub fn ask_for_restart(&mut self) {
        self.restart = true;
    }

    pub fn is_restarting(&self) -> bool {
        self.restart
    }

    /// Decides what follows after batches were given up, when no sent batch is left. Returns true if the sequences must
    /// begin again, because nobody knows whether the broker has appended those batches. If a later batch was
    /// acknowledged, the broker must have appended them, and the sequences go on.
    pub fn resolve(&mut self) -> bool {
        let has_sequenced = self.queue.front().is_some_and(|batch| batch.sequence.is_some());
        if self.unresolved.is_none() || !self.in_flight.is_empty() || has_sequenced {
            return false;
        }
        self.unresolved = None;
        !self.is_next(self.next_sequence)
    }

    /// Carries out a restart, if one is due and no batch is in flight: gives the batches that were sent before new
    /// sequences, from 0 on.
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

    /// When the first batch of the queue may be sent: when it is full or `linger_ms` have passed, or for a retry, when
    /// its pause is over.
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

/// The later one of two sequences that are near each other. After the greatest int32 comes 0.
fn later_sequence(left: i32, right: i32) -> i32 {
    let ahead = (i64::from(right) - i64::from(left)).rem_euclid(1 << 31);
    if ahead < 1 << 30 { right } else { left }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_two_sequences_is_found_also_around_the_greatest_int32() {
        assert_eq!((later_sequence(3, 9), later_sequence(9, 3)), (9, 9));
        assert_eq!((later_sequence(i32::MAX, 0), later_sequence(0, i32::MAX)), (0, 0));
    }
}
