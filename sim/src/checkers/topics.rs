//! Records belong to the topic to which they were sent: those of a deleted topic do not show up in a new topic of the
//! same name, and a record that a topic has acknowledged is there as long as the topic is.

use super::{Checker, Violation, violation};
use crate::history::{Entry, Fact, TopicId, ValueId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Topics {
    sent: BTreeMap<ValueId, Sent>,
    kept: BTreeMap<(TopicId, i32), Vec<(u64, ValueId)>>,
}

#[derive(Debug)]
struct Sent {
    topic: String,
    /// The id of the topic that may hold the value, if it is known.
    id: Option<TopicId>,
}

impl Checker for Topics {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        match &entry.fact {
            Fact::Entrusted { topic, id, value } => {
                self.sent.insert(*value, Sent { topic: topic.clone(), id: *id });
            }
            Fact::Kept { value, id, index } => {
                if let Some(sent) = self.sent.get_mut(value) {
                    sent.id = Some(*id);
                }
                self.kept.entry((*id, *index)).or_default().push((entry.at, *value));
            }
            Fact::Found { topic, id, index, asked_at, values, whole } => {
                let place = format!("{topic}-{index}");
                let mut found = BTreeSet::new();
                for value in values {
                    found.insert(*value);
                    match self.sent.get(value) {
                        None => return violation("topics", None, format!("{place} has {value}, which nobody sent")),
                        Some(sent) if sent.topic != *topic => {
                            return violation(
                                "topics",
                                None,
                                format!("{place} has {value}, which was sent to {}", sent.topic),
                            );
                        }
                        Some(sent) if sent.id.is_some_and(|of| of != *id) => {
                            return violation(
                                "topics",
                                None,
                                format!("{place} has {value} of another topic of that name"),
                            );
                        }
                        Some(_) => {}
                    }
                }
                let kept = self.kept.get(&(*id, *index)).map_or(&[][..], Vec::as_slice);
                let lost = kept.iter().find(|(at, value)| at < asked_at && !found.contains(value));
                if let Some((at, value)) = lost.filter(|_| *whole) {
                    let ms = at / 1_000_000;
                    return violation(
                        "topics",
                        None,
                        format!("{place}: {value} was acknowledged at {ms} ms and is lost"),
                    );
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::*;
    use super::*;

    fn sent(id: Option<u8>) -> Fact {
        Fact::Entrusted { topic: "a".into(), id: id.map(|id| [id; 16]), value: value(1) }
    }

    fn kept(id: u8) -> Fact {
        Fact::Kept { value: value(1), id: [id; 16], index: 0 }
    }

    fn found(topic: &str, id: u8, counts: &[u32]) -> Fact {
        let values = counts.iter().map(|count| value(*count)).collect();
        Fact::Found { topic: topic.into(), id: [id; 16], index: 0, asked_at: 0, values, whole: true }
    }

    fn run(facts: Vec<Fact>) -> Result<(), String> {
        judge(Topics::default(), facts, &[])
    }

    #[test]
    fn records_in_the_topic_they_were_sent_to_pass() {
        assert_eq!(run(vec![sent(Some(1)), kept(1), sent(None), found("a", 1, &[1])]), Ok(()));
        assert_eq!(run(vec![sent(None), found("a", 2, &[1])]), Ok(()));
    }

    #[test]
    fn a_record_of_a_deleted_topic_in_the_next_of_its_name_is_found() {
        assert!(run(vec![sent(None), kept(1), found("a", 2, &[1])]).unwrap_err().contains("another topic"));
        assert!(run(vec![sent(Some(1)), found("a", 2, &[1])]).is_err());
        assert!(run(vec![sent(None), found("b", 2, &[1])]).unwrap_err().contains("was sent to a"));
        assert!(run(vec![found("a", 1, &[1])]).unwrap_err().contains("nobody sent"));
    }

    #[test]
    fn an_acknowledged_record_that_is_not_there_is_found() {
        let facts = vec![sent(None), kept(1), sent(None), found("a", 1, &[])];
        assert!(run(facts).unwrap_err().contains("c1v1 was acknowledged"));
    }
}
