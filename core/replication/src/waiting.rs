//! The requests that wait for something in a partition.

use crate::PartitionEvent;
use crate::counters::TopicCounters;
use crate::counters::is_failure;
use std::collections::VecDeque;
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::{Offset, PendingId};

/// Where the answer for a partition stands in a response: the index of the topic, and the index of the
/// partition within the topic.
pub type ResponsePlace = (u32, u32);

/// What the answer for a partition waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The leader has it on stable storage: `acks=1`.
    Stable,
    /// All replicas that are in sync have it: `acks=all`.
    Committed,
    /// It is deleted on all replicas whose brokers are there: DeleteRecords.
    DeletedEverywhere,
}

/// What a Fetch request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The high watermark moves: for consumers.
    HighWatermark,
    /// More is written to the log: for followers.
    LogEnd,
}

/// A part of a request that waits.
#[derive(Debug)]
struct WaitingAnswer {
    /// The last offset of the batch, or of what is deleted.
    last_offset: Offset,
    id: PendingId,
    place: ResponsePlace,
}

/// Invariant: a queue is sorted by its last offsets.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    stable: VecDeque<WaitingAnswer>,
    committed: VecDeque<WaitingAnswer>,
    deleted: VecDeque<WaitingAnswer>,
    readers: Vec<PendingId>,
    followers: Vec<PendingId>,
}

impl Waiting {
    fn queue(&mut self, until: Until) -> &mut VecDeque<WaitingAnswer> {
        match until {
            Until::Stable => &mut self.stable,
            Until::Committed => &mut self.committed,
            Until::DeletedEverywhere => &mut self.deleted,
        }
    }

    pub fn answer_later(&mut self, until: Until, last_offset: Offset, id: PendingId, place: ResponsePlace) {
        let queue = self.queue(until);
        // Not always at the end: a retry of a batch that is still waiting has lower offsets than later batches.
        let position = queue.partition_point(|waiting| waiting.last_offset <= last_offset);
        queue.insert(position, WaitingAnswer { last_offset, id, place });
    }

    /// Everything below `end` is stable, or committed, or deleted.
    pub fn reached(
        &mut self,
        until: Until,
        end: Offset,
        result: Result<(), ErrorCode>,
        events: &mut Vec<PartitionEvent>,
    ) {
        while let Some(done) = self.queue(until).pop_front_if(|waiting| waiting.last_offset < end) {
            events.push(PartitionEvent::AnswerDone(done.id, done.place, result));
        }
    }

    pub fn awaits_deletion(&self) -> bool {
        !self.deleted.is_empty()
    }

    /// Makes a request wait no longer. Returns the places of the response for which it still waited.
    pub fn forget(&mut self, id: PendingId) -> Vec<ResponsePlace> {
        let mut places = Vec::new();
        for queue in [&mut self.stable, &mut self.committed, &mut self.deleted] {
            places.extend(queue.iter().filter(|waiting| waiting.id == id).map(|waiting| waiting.place));
            queue.retain(|waiting| waiting.id != id);
        }
        places
    }

    pub fn watch(&mut self, fetch: PendingId, watched: Watched) {
        match watched {
            Watched::HighWatermark => self.readers.push(fetch),
            Watched::LogEnd => self.followers.push(fetch),
        }
    }

    pub fn unwatch(&mut self, fetch: PendingId) {
        self.readers.retain(|id| *id != fetch);
        self.followers.retain(|id| *id != fetch);
    }

    pub fn watchers(&self) -> impl Iterator<Item = PendingId> {
        self.readers.iter().chain(&self.followers).copied()
    }

    /// Makes the Fetch requests read again that wait for this.
    pub fn wake(&self, watched: Watched, events: &mut Vec<PartitionEvent>) {
        let waiting = match watched {
            Watched::HighWatermark => &self.readers,
            Watched::LogEnd => &self.followers,
        };
        // Mostly nobody waits, and then a loop costs less than `extend`.
        for id in waiting {
            events.push(PartitionEvent::FetchAgain(*id));
        }
    }

    pub fn wake_all(&self, events: &mut Vec<PartitionEvent>) {
        events.extend(self.watchers().map(PartitionEvent::FetchAgain));
    }

    /// Answers all that wait for something else than records with `error`, and makes all waiting Fetch requests read again.
    pub fn fail(&mut self, error: ErrorCode, counters: &mut TopicCounters, events: &mut Vec<PartitionEvent>) {
        if is_failure(error) {
            counters.failed_produce_requests += (self.stable.len() + self.committed.len()) as u64;
        }
        let waiting = self.stable.drain(..).chain(self.committed.drain(..)).chain(self.deleted.drain(..));
        events.extend(waiting.map(|waiting| PartitionEvent::AnswerDone(waiting.id, waiting.place, Err(error))));
        self.wake_all(events);
    }

    pub fn verify(&self) {
        for queue in [&self.stable, &self.committed, &self.deleted] {
            assert!(queue.iter().is_sorted_by_key(|waiting| waiting.last_offset));
        }
    }
}
