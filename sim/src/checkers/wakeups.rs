//! A fetch that waits for records is answered soon after they are there (KAFKA-14334).
//!
//! This is judged only after everything is healed, when no message is held up for long. Fetches with a short
//! `max_wait_ms` are answered soon anyway: only those that wait for up to nine seconds can show a missed wake-up.

use super::{Checker, Rules, Violation, violation};
use crate::history::{Entry, Fact, OpId, PartitionKey};
use std::collections::BTreeMap;

/// In a healed world a fetch is answered within this time after its records are there.
const SOON_NS: u64 = 4_000_000_000;
/// Messages that were under way when everything was healed have arrived after this time, and hold up no later ones.
const CLOGGED_NS: u64 = 2_000_000_000;

#[derive(Debug)]
pub struct Wakeups {
    rules: Rules,
    sent: BTreeMap<OpId, (PartitionKey, i64)>,
    /// When a producer learned of each acknowledged batch, by partition and the batch's last offset.
    acknowledged: BTreeMap<(PartitionKey, i64), u64>,
    healed_at: Option<u64>,
}

impl Wakeups {
    pub fn new(rules: &Rules) -> Self {
        Self { rules: rules.clone(), sent: BTreeMap::new(), acknowledged: BTreeMap::new(), healed_at: None }
    }
}

impl Checker for Wakeups {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        match &entry.fact {
            // A relaxed topic may have lost acknowledged records, so a fetch may wait for them in vain.
            Fact::Sent { op, partition, values, .. } if !self.rules.is_relaxed(*partition) => {
                self.sent.insert(*op, (*partition, values.len() as i64));
            }
            Fact::Acknowledged { op, base_offset: Some(base_offset) } => {
                if let Some((partition, records)) = self.sent.remove(op) {
                    self.acknowledged.entry((partition, base_offset + records - 1)).or_insert(entry.at);
                }
            }
            Fact::Healed => self.healed_at = Some(entry.at + CLOGGED_NS),
            Fact::Fetched { partition, asked_at, from, .. } => {
                let Some(healed_at) = self.healed_at else { return Ok(()) };
                let Some((_, known_at)) = self.acknowledged.range((*partition, *from)..=(*partition, i64::MAX)).next()
                else {
                    return Ok(());
                };
                let due = healed_at.max(*asked_at).max(*known_at) + SOON_NS;
                if entry.at > due {
                    let late_ms = (entry.at - due + SOON_NS) / 1_000_000;
                    let text =
                        format!("a fetch from {from} waited on for {late_ms} ms with an acknowledged record there");
                    return violation("wakeups", *partition, text);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::{P, acknowledged, fetched, record, rules, sent};
    use super::*;

    /// A fetch from offset 0 that is asked at second 1 and answered at `answered_s`, of a record that was acknowledged
    /// at second 6.
    fn judge(answered_s: u64, healed: bool) -> Result<(), Violation> {
        let mut checker = Wakeups::new(&rules());
        let mut observe = |at_s: u64, mut fact: Fact| {
            if let Fact::Fetched { asked_at, .. } = &mut fact {
                *asked_at = 1_000_000_000;
            }
            checker.observe(&Entry { at: at_s * 1_000_000_000, client: Some(1), fact })
        };
        if healed {
            observe(0, Fact::Healed)?;
        }
        observe(1, sent(1, P, 0..1))?;
        observe(6, acknowledged(1, 0))?;
        observe(answered_s, fetched(P, 1, &[record(0, 0)]))
    }

    #[test]
    fn an_answer_that_comes_soon_is_good() {
        assert_eq!(judge(10, true), Ok(()));
    }

    #[test]
    fn an_answer_that_waits_on_is_bad() {
        assert!(judge(11, true).unwrap_err().text.contains("waited on for 5000 ms"));
    }

    #[test]
    fn before_all_is_healed_anything_may_hold_it_up() {
        assert_eq!(judge(60, false), Ok(()));
    }
}
