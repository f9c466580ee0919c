//! Where the most recent batches lie: reads at the end of a log need no I/O to find their place.
//!
//! Invariant: the batches are those at the end of the log, without a gap, and all that are not yet stable.

use crate::ids::Offset;
use std::collections::VecDeque;

/// How many batches are remembered beyond those that are not yet stable.
const BATCHES_KEPT: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TailBatch {
    pub base: Offset,
    pub last: Offset,
    /// The base offset of its segment.
    pub segment: Offset,
    pub position: u32,
    pub len: u32,
}

impl TailBatch {
    pub fn end(&self) -> u32 {
        self.position + self.len
    }
}

#[derive(Debug, Default)]
pub(super) struct Tail {
    batches: VecDeque<TailBatch>,
}

impl Tail {
    pub fn push(&mut self, batch: TailBatch, stable: Offset) {
        assert!(self.batches.back().is_none_or(|last| last.last < batch.base), "batches go on where the last ended");
        self.batches.push_back(batch);
        while self.batches.len() > BATCHES_KEPT && self.batches[0].last < stable {
            self.batches.pop_front();
        }
    }

    /// The segments below `base` have left the log.
    pub fn forget_below(&mut self, base: Offset) {
        while self.batches.front().is_some_and(|front| front.segment < base) {
            self.batches.pop_front();
        }
    }

    pub fn clear(&mut self) {
        self.batches.clear();
    }

    /// The first batch that ends at or after `offset`, if it is certain that no older one does.
    pub fn find(&self, offset: Offset) -> Option<&TailBatch> {
        let at = self.batches.partition_point(|batch| batch.last < offset);
        if at == 0 && self.batches.front().is_none_or(|front| front.base > offset) {
            return None;
        }
        self.batches.get(at)
    }

    /// The last batch of `segment` that ends at or before `position` and before the offset `upper`.
    pub fn last_before(&self, segment: Offset, position: u64, upper: Offset) -> Option<&TailBatch> {
        let fits = |batch: &TailBatch| {
            batch.segment < segment
                || (batch.segment == segment && u64::from(batch.end()) <= position && batch.last < upper)
        };
        let at = self.batches.partition_point(fits).checked_sub(1)?;
        self.batches.get(at).filter(|batch| batch.segment == segment)
    }

    pub fn front(&self) -> Option<&TailBatch> {
        self.batches.front()
    }

    pub fn back(&self) -> Option<&TailBatch> {
        self.batches.back()
    }

    pub fn iter(&self) -> impl Iterator<Item = &TailBatch> {
        self.batches.iter()
    }
}
