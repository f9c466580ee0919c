//! What no history excuses: answers that do not decode, come in the wrong order, or say what they must not; and a
//! topic that changes its id.
//!
//! (Row 29 of the contract; the clients notice most of it and say so.)

use super::{Checker, Rules, Violation};
use crate::history::{Entry, Fact, FinalLogs};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Protocol {
    topics: BTreeMap<(u32, u16), [u8; 16]>,
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
            Fact::Topic { node, topic, id } => {
                let first = *self.topics.entry((*node, *topic)).or_insert(*id);
                if first == *id {
                    return Ok(());
                }
                format!("topic t{topic} of node {node} has changed its id")
            }
            _ => return Ok(()),
        };
        Err(Violation { checker: "protocol", place: None, text })
    }

    fn finish(&mut self, _finals: &FinalLogs) -> Result<(), Violation> {
        Ok(())
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
        let topic = |id| Fact::Topic { node: 0, topic: 0, id: [id; 16] };
        assert_eq!(judge(Protocol::default(), vec![topic(1), topic(1)], &[]), Ok(()));
        assert!(judge(Protocol::default(), vec![topic(1), topic(2)], &[]).is_err());
    }
}
