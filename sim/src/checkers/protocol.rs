//! Answers that are wrong whatever happened before: they do not decode, come in the wrong order, or have an error code
//! that does not fit. Also a topic that changes its id, and bytes with a wrong checksum, which only damage on the disk
//! excuses, until it is repaired.
//!
//! The clients notice most of this and tell it as [`Fact::Misbehaved`](crate::history::Fact::Misbehaved).

use super::{Checker, Damages, Rules, Violation, violation};
use crate::history::{Entry, Fact};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Protocol {
    topics: BTreeMap<u16, [u8; 16]>,
    damages: Damages,
}

impl Protocol {
    pub fn new(_rules: &Rules) -> Self {
        Self::default()
    }
}

impl Checker for Protocol {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        let text = match &entry.fact {
            Fact::Misbehaved { text } => {
                entry.client.map_or_else(|| text.clone(), |client| format!("client {client}: {text}"))
            }
            Fact::Topic { topic, id } => {
                let first = *self.topics.entry(*topic).or_insert(*id);
                if first == *id {
                    return Ok(());
                }
                format!("topic t{topic} has changed its id")
            }
            Fact::Damaged { .. } | Fact::Repaired { .. } => {
                self.damages.observe(entry);
                return Ok(());
            }
            Fact::Corrupt { partition, asked_at, .. } if self.damages.excuse(*partition, *asked_at) => return Ok(()),
            Fact::Corrupt { partition, text, .. } => format!("{partition} {text}"),
            _ => return Ok(()),
        };
        violation("protocol", None, text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::*;
    use super::*;

    #[test]
    fn misbehaviour_is_a_violation_at_once() {
        let facts = vec![Fact::Misbehaved { text: "a response to nothing".into() }];
        let verdict = judge(Protocol::default(), facts, &[]).unwrap_err();
        assert_eq!(verdict, "protocol: client 1: a response to nothing");
    }

    #[test]
    fn a_topic_that_is_suddenly_another_is_found() {
        let topic = |id| Fact::Topic { topic: 0, id: [id; 16] };
        assert_eq!(judge(Protocol::default(), vec![topic(1), topic(1)], &[]), Ok(()));
        assert!(judge(Protocol::default(), vec![topic(1), topic(2)], &[]).is_err());
    }

    #[test]
    fn bytes_that_do_not_check_out_are_excused_by_damage_until_it_is_repaired() {
        let corrupt = |asked_at| Fact::Corrupt { partition: P, asked_at, text: "from 3: crc".into() };
        let damaged = |time_index| Fact::Damaged { node: 0, partition: P, time_index };
        let run = |facts| judge(Protocol::default(), facts, &[]);
        assert_eq!(run(vec![damaged(false), corrupt(1)]), Ok(()));
        assert_eq!(run(vec![damaged(false), Fact::Repaired { node: 0 }, corrupt(1)]), Ok(()), "asked before");
        assert!(run(vec![corrupt(1)]).unwrap_err().contains("from 3: crc"));
        assert!(run(vec![damaged(true), corrupt(1)]).is_err());
        assert!(run(vec![damaged(false), Fact::Repaired { node: 0 }, corrupt(3)]).is_err());
        let other = Fact::Repaired { node: 1 };
        assert_eq!(run(vec![damaged(false), other, corrupt(3)]), Ok(()), "the other replica is still damaged");
    }
}
