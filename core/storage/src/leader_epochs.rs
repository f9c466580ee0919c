//! The leader epochs of a log, and the offset at which each begins: the content of `leader-epoch-checkpoint`, in memory
//! (KIP-101).
//!
//! With them a follower finds the offset at which its log differs from its leader's.
//!
//! Invariant: epochs and start offsets both strictly increase.
//!
//! A new entry of [`assign`](LeaderEpochs::assign) must be on stable storage before the append that caused it becomes
//! visible. The other changes may be written later, because loading a log makes them again.

use super::checkpoints::{TextFileError, decode_entries, encode_entries};
use bytes::Bytes;
use std::fmt;
use tidelog_wire::ids::{LeaderEpoch, Offset};

/// A leader epoch, and the first offset written in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    pub epoch: LeaderEpoch,
    pub start_offset: Offset,
}

impl fmt::Display for EpochStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.epoch, self.start_offset)
    }
}

/// The answer to an `OffsetForLeaderEpoch` request: the greatest known epoch at or below the requested one, and the
/// offset where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    pub epoch: LeaderEpoch,
    pub end_offset: Offset,
}

impl EpochEnd {
    /// The log cannot tell.
    pub const UNKNOWN: Self = Self { epoch: LeaderEpoch::UNKNOWN, end_offset: Offset::UNKNOWN };
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<EpochStart>,
}

impl LeaderEpochs {
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `leader-epoch-checkpoint`. After an error the epochs can be collected from the batches of the log.
    pub fn decode(file: &str, bytes: &[u8]) -> Result<Self, TextFileError> {
        let entries = decode_entries(file, bytes, "<epoch> <start offset>, both numbers from 0 on", |fields| {
            let &[epoch, start_offset] = fields else { return None };
            let epoch = epoch.parse().ok().filter(|epoch| *epoch >= 0)?;
            let start_offset = start_offset.parse().ok().filter(|offset| *offset >= 0)?;
            Some(EpochStart { epoch: LeaderEpoch(epoch), start_offset: Offset(start_offset) })
        })?;
        let mut epochs = Self::new();
        for EpochStart { epoch, start_offset } in entries {
            epochs.assign(epoch, start_offset);
        }
        Ok(epochs)
    }

    pub fn encode(&self) -> Bytes {
        encode_entries(self.entries.iter())
    }

    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    pub fn earliest(&self) -> Option<EpochStart> {
        self.entries.first().copied()
    }

    pub fn latest(&self) -> Option<EpochStart> {
        self.entries.last().copied()
    }

    /// The latest epoch; [`LeaderEpoch::UNKNOWN`] if there is none.
    pub fn latest_epoch(&self) -> LeaderEpoch {
        self.latest().map_or(LeaderEpoch::UNKNOWN, |entry| entry.epoch)
    }

    /// Records that `epoch` begins at `start_offset`, and removes the entries that contradict it. An epoch that is
    /// known already keeps its start offset, unless the new one is lower. An epoch of -1 (none) is ignored. Returns
    /// whether anything changed. If so, the checkpoint must be written before the append becomes visible.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        if epoch.0 < 0 || start_offset < Offset::ZERO {
            return false;
        }
        if self.latest().is_some_and(|latest| latest.epoch == epoch && latest.start_offset <= start_offset) {
            return false;
        }
        while self.latest().is_some_and(|latest| latest.epoch >= epoch || latest.start_offset >= start_offset) {
            self.entries.pop();
        }
        self.entries.push(EpochStart { epoch, start_offset });
        true
    }

    /// The greatest epoch at or below `epoch`, and the offset where it ends (KIP-101, KIP-279). An epoch ends where the
    /// next one begins; the latest ends at the end of the log. An `epoch` below all known ones ends where the first
    /// known one begins. For an `epoch` above all known ones, or none, the answer is [`EpochEnd::UNKNOWN`].
    pub fn end_offset_for(&self, epoch: LeaderEpoch, log_end_offset: Offset) -> EpochEnd {
        if epoch == LeaderEpoch::UNKNOWN {
            return EpochEnd::UNKNOWN;
        }
        if self.latest().is_some_and(|latest| latest.epoch == epoch) {
            return EpochEnd { epoch, end_offset: log_end_offset };
        }
        let above = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let Some(next) = self.entries.get(above) else { return EpochEnd::UNKNOWN };
        let floor = above.checked_sub(1).map_or(epoch, |place| self.entries[place].epoch);
        EpochEnd { epoch: floor, end_offset: next.start_offset }
    }

    /// The epoch in which the record at `offset` was written.
    pub fn epoch_for_offset(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        after.checked_sub(1).map(|place| self.entries[place].epoch)
    }

    /// The log now ends at `end_offset`: removes the epochs that begin there or later. Returns whether anything
    /// changed.
    pub fn truncate_from_end(&mut self, end_offset: Offset) -> bool {
        let keep = self.entries.partition_point(|entry| entry.start_offset < end_offset);
        let changed = keep < self.entries.len();
        self.entries.truncate(keep);
        changed
    }

    /// The log now starts at `start_offset`: removes the epochs that end at or before it, and lets the epoch of the new
    /// start begin there. Returns whether anything changed.
    pub fn truncate_from_start(&mut self, start_offset: Offset) -> bool {
        let after = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        let Some(first) = after.checked_sub(1) else { return false };
        let changed = first > 0 || self.entries[first].start_offset != start_offset;
        self.entries.drain(..first);
        self.entries[0].start_offset = start_offset;
        changed
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epochs_of(entries: &[(i32, i64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::new();
        for (epoch, start) in entries {
            epochs.assign(LeaderEpoch(*epoch), Offset(*start));
        }
        epochs
    }

    fn end(epoch: i32, offset: i64) -> EpochEnd {
        EpochEnd { epoch: LeaderEpoch(epoch), end_offset: Offset(offset) }
    }

    #[test]
    fn a_new_entry_removes_the_entries_that_contradict_it() {
        assert_eq!(epochs_of(&[(1, 0), (3, 10), (5, 20), (4, 15)]), epochs_of(&[(1, 0), (3, 10), (4, 15)]));
        assert_eq!(epochs_of(&[(1, 0), (3, 10), (5, 10)]), epochs_of(&[(1, 0), (5, 10)]), "epoch 3 has no record");
        assert_eq!(epochs_of(&[(1, 5), (2, 0)]), epochs_of(&[(2, 0)]));
        assert_eq!(epochs_of(&[(1, 5), (1, 3)]), epochs_of(&[(1, 3)]));
    }

    #[test]
    fn a_known_epoch_keeps_its_start_and_an_unknown_epoch_or_offset_is_ignored() {
        let mut epochs = epochs_of(&[(1, 5)]);
        assert!(!epochs.assign(LeaderEpoch(1), Offset(9)));
        assert!(!epochs.assign(LeaderEpoch::UNKNOWN, Offset(9)));
        assert!(!epochs.assign(LeaderEpoch(2), Offset::UNKNOWN));
        assert_eq!(epochs, epochs_of(&[(1, 5)]));
    }

    #[test]
    fn the_end_of_an_epoch_is_answered_as_kip_101_and_kip_279_say() {
        let epochs = epochs_of(&[(2, 10), (4, 20), (6, 30)]);
        let ask = |epoch| epochs.end_offset_for(LeaderEpoch(epoch), Offset(99));
        assert_eq!(ask(-1), EpochEnd::UNKNOWN);
        assert_eq!(ask(0), end(0, 10), "below all known epochs");
        assert_eq!(ask(2), end(2, 20));
        assert_eq!(ask(3), end(2, 20), "an epoch that only another replica knows");
        assert_eq!(ask(4), end(4, 30));
        assert_eq!(ask(6), end(6, 99), "the latest ends with the log");
        assert_eq!(ask(7), EpochEnd::UNKNOWN, "above all known epochs");
        assert_eq!(LeaderEpochs::new().end_offset_for(LeaderEpoch(0), Offset(0)), EpochEnd::UNKNOWN);
    }

    #[test]
    fn the_epoch_of_the_new_log_start_begins_there() {
        let mut epochs = epochs_of(&[(2, 10), (4, 20), (6, 30)]);
        assert!(!epochs.truncate_from_start(Offset(5)) && !epochs.truncate_from_start(Offset(10)));
        assert!(epochs.truncate_from_start(Offset(25)));
        assert_eq!(epochs, epochs_of(&[(4, 25), (6, 30)]));
        assert!(epochs.truncate_from_start(Offset(30)));
        assert_eq!(epochs, epochs_of(&[(6, 30)]));
    }

    #[test]
    fn the_checkpoint_reads_as_kafka_writes_it() {
        let epochs = epochs_of(&[(0, 0), (7, 42)]);
        assert_eq!(epochs.encode(), "0\n2\n0 0\n7 42\n");
        assert_eq!(LeaderEpochs::decode("x", b"0\n2\n0 0\n7 42\n"), Ok(epochs));
        assert_eq!(LeaderEpochs::decode("x", b""), Ok(LeaderEpochs::new()));
        assert_eq!(
            LeaderEpochs::decode("leader-epoch-checkpoint", b"0\n1\n-1 0\n").unwrap_err().to_string(),
            r#"leader-epoch-checkpoint: line 3 is "-1 0", expected <epoch> <start offset>, both numbers from 0 on"#
        );
    }

    #[derive(Clone, Debug)]
    enum Step {
        Assign(i32, i64),
        TruncateEnd(i64),
        TruncateStart(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (-1i32..8, -1i64..20).prop_map(|(epoch, offset)| Step::Assign(epoch, offset)),
            1 => (0i64..22).prop_map(Step::TruncateEnd),
            1 => (0i64..22).prop_map(Step::TruncateStart),
        ];
        proptest::collection::vec(step, 0..30)
    }

    proptest! {
        /// The model is a list of epochs and start offsets, searched linearly.
        #[test]
        fn epochs_agree_with_a_map_from_offset_to_epoch(steps in steps()) {
            let mut epochs = LeaderEpochs::new();
            let mut model: Vec<(i32, i64)> = Vec::new();
            for step in steps {
                let before = epochs.clone();
                let changed = match step {
                    Step::Assign(epoch, offset) => {
                        let known = model.last().is_some_and(|(e, o)| *e == epoch && *o <= offset);
                        if epoch >= 0 && offset >= 0 && !known {
                            model.retain(|(e, o)| *e < epoch && *o < offset);
                            model.push((epoch, offset));
                        }
                        epochs.assign(LeaderEpoch(epoch), Offset(offset))
                    }
                    Step::TruncateEnd(end) => {
                        model.retain(|(_, o)| *o < end);
                        epochs.truncate_from_end(Offset(end))
                    }
                    Step::TruncateStart(start) => {
                        if let Some(holder) = model.iter().rfind(|(_, o)| *o <= start).map(|(e, _)| *e) {
                            model.retain(|(e, _)| *e >= holder);
                            model[0].1 = start;
                        }
                        epochs.truncate_from_start(Offset(start))
                    }
                };
                prop_assert_eq!(changed, before != epochs);
                let entries: Vec<_> = epochs.entries().iter().map(|e| (e.epoch.0, e.start_offset.0)).collect();
                prop_assert_eq!(&entries, &model);
                for offset in 0..22 {
                    let expected = model.iter().rfind(|(_, o)| *o <= offset).map(|(e, _)| LeaderEpoch(*e));
                    prop_assert_eq!(epochs.epoch_for_offset(Offset(offset)), expected);
                }
                for epoch in 0..9 {
                    let floor = model.iter().rfind(|(e, _)| *e <= epoch).map_or(epoch, |(e, _)| *e);
                    let expected = match model.iter().find(|(e, _)| *e > epoch) {
                        Some((_, next)) => end(floor, *next),
                        None if model.last().is_some_and(|(e, _)| *e == epoch) => end(epoch, 50),
                        None => EpochEnd::UNKNOWN,
                    };
                    prop_assert_eq!(epochs.end_offset_for(LeaderEpoch(epoch), Offset(50)), expected);
                }
                prop_assert_eq!(LeaderEpochs::decode("x", &epochs.encode()), Ok(epochs.clone()));
            }
        }

        #[test]
        fn a_foreign_checkpoint_keeps_the_invariant(lines in proptest::collection::vec((0i32..9, 0i64..9), 0..12)) {
            let mut text = format!("0\n{}\n", lines.len());
            for (epoch, start) in &lines {
                text.push_str(&format!("{epoch} {start}\n"));
            }
            let epochs = LeaderEpochs::decode("x", text.as_bytes()).unwrap();
            prop_assert!(epochs.entries().is_sorted_by(|a, b| a.epoch < b.epoch && a.start_offset < b.start_offset));
        }
    }
}
