//! The positions of the newest batches of a log. A read at the end of the log finds its batch here, without I/O.
//!
//! Invariant: these are the last batches of the log, none left out, and every batch that is not stable is among them.

use std::collections::VecDeque;
use tidelog_wire::ids::Offset;

/// How many batches are remembered. More are if they are not stable.
const BATCHES_KEPT: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TailBatch {
    pub base: Offset,
    pub last: Offset,
    /// The base offset of the batch's segment.
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
        assert!(self.batches.back().is_none_or(|last| last.last < batch.base), "batches are added in order");
        self.batches.push_back(batch);
        while self.batches.len() > BATCHES_KEPT && self.batches[0].last < stable {
            self.batches.pop_front();
        }
    }

    /// Forgets the batches of the segments below `base`, which have left the log.
    pub fn forget_below(&mut self, base: Offset) {
        while self.batches.front().is_some_and(|front| front.segment < base) {
            self.batches.pop_front();
        }
    }

    pub fn clear(&mut self) {
        self.batches.clear();
    }

    /// The first batch of the log that ends at or after `offset`. `None` if it may be one that is not remembered.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch of two offsets and 10 bytes.
    fn batch(base: i64, segment: i64, position: u32) -> TailBatch {
        TailBatch { base: Offset(base), last: Offset(base + 1), segment: Offset(segment), position, len: 10 }
    }

    /// Offsets 100 to 105 in one segment, 106 to 109 in the next.
    fn tail() -> Tail {
        let mut tail = Tail::default();
        for batch in
            [batch(100, 90, 50), batch(102, 90, 60), batch(104, 90, 70), batch(106, 106, 0), batch(108, 106, 10)]
        {
            tail.push(batch, Offset(0));
        }
        tail
    }

    fn base(batch: Option<&TailBatch>) -> Option<i64> {
        batch.map(|batch| batch.base.0)
    }

    #[test]
    fn an_offset_is_found_in_its_batch_unless_an_older_batch_may_hold_it() {
        let tail = tail();
        let found: Vec<_> = (99..=110).map(|offset| base(tail.find(Offset(offset)))).collect();
        let of = |base: i64| [Some(base); 2];
        let expected = [&[None][..], &of(100), &of(102), &of(104), &of(106), &of(108), &[None]].concat();
        assert_eq!(found, expected);
        assert_eq!(Tail::default().find(Offset(0)), None);
    }

    #[test]
    fn the_last_batch_before_a_position_is_in_the_same_segment_and_ends_at_the_position_or_before() {
        let tail = tail();
        let last = |segment, position| base(tail.last_before(Offset(segment), position, Offset(i64::MAX)));
        assert_eq!(
            [59, 60, 69, 70, 80, 500].map(|position| last(90, position)),
            [None, Some(100), Some(100), Some(102), Some(104), Some(104)]
        );
        assert_eq!([9, 10, 19, 20].map(|position| last(106, position)), [None, Some(106), Some(106), Some(108)]);
        assert_eq!((last(80, 500), last(200, 500)), (None, None));
        let below = |upper| base(tail.last_before(Offset(90), 500, Offset(upper)));
        assert_eq!([101, 102, 103, 104].map(below), [None, Some(100), Some(100), Some(102)]);
    }

    #[test]
    fn segments_that_left_the_log_are_forgotten() {
        for (below, front) in [(90, 100), (91, 106), (106, 106)] {
            let mut tail = tail();
            tail.forget_below(Offset(below));
            assert_eq!((base(tail.front()), base(tail.back())), (Some(front), Some(108)));
        }
        let mut tail = tail();
        tail.forget_below(Offset(107));
        assert_eq!(tail.front(), None);
    }

    #[test]
    fn batches_that_are_not_stable_are_never_forgotten() {
        let mut tail = Tail::default();
        for at in 0..1_000 {
            tail.push(batch(2 * at, 0, at as u32 * 10), Offset(0));
        }
        assert_eq!(tail.iter().count(), 1_000);
        // 700 batches are stable, then all are.
        tail.push(batch(2_000, 0, 10_000), Offset(1_401));
        assert_eq!(base(tail.front()), Some(1_400));
        tail.push(batch(2_002, 0, 10_010), Offset(2_002));
        assert_eq!(tail.iter().count(), BATCHES_KEPT);
        tail.clear();
        assert_eq!(tail.back(), None);
    }
}
