//! Watches what may keep a command waiting: brokers that do not answer any more, which is said here, on standard error;
//! and a topic that was deleted, which the command says.

use super::output::{note, warn};
use super::session::Session;
use std::time::Duration;
use tidelog_client::{Client, TopicMetadata};
use tidelog_core::ids::Uuid;
use tidelog_core::wire::ErrorCode;
use tokio::time::Instant;

/// How often a command that waits looks around.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A broker that is away for less is not worth a word.
const AWAY_AFTER: Duration = Duration::from_secs(1);
/// A broker that has just started, or that lags behind, may say of a topic for a moment that it does not exist.
const GONE_AFTER: Duration = Duration::from_secs(2);

/// Whether the brokers can be reached, and what was said of that.
#[derive(Default)]
pub struct BrokerWatch {
    /// Since when a broker is needed and none is connected.
    away_since: Option<Instant>,
    is_told: bool,
}

impl BrokerWatch {
    /// Whether it was said that no broker answers.
    pub fn is_away(&self) -> bool {
        self.is_told
    }

    /// To be called every [`LOOK_EVERY`] or so. `is_needed` says whether the command has anything to ask a broker for.
    pub fn look<C: Client>(&mut self, session: &Session<C>, is_needed: bool) {
        if session.driver.is_connected() {
            if self.is_told {
                note("tidelog: a broker answers again");
            }
            *self = Self::default();
            return;
        }
        if !is_needed {
            self.away_since = None;
            return;
        }
        let since = *self.away_since.get_or_insert_with(Instant::now);
        if !self.is_told && since.elapsed() >= AWAY_AFTER {
            self.is_told = true;
            let why = session.driver.last_failure().map(|failure| format!(" ({failure})")).unwrap_or_default();
            warn(format_args!("no broker answers any more{why}; waiting until one does"));
        }
    }
}

/// What has become of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Exists,
    Deleted,
    /// Another topic has its name.
    Replaced,
}

/// Whether a topic still exists.
#[derive(Debug, Default)]
pub struct TopicWatch {
    /// The id that the topic had when the command began; zero if that is not known, and then no replacement is noticed.
    id: Uuid,
    missing_since: Option<Instant>,
}

impl TopicWatch {
    pub fn new(id: Uuid) -> Self {
        Self { id, missing_since: None }
    }

    /// What has become of the topic, by the newest metadata. It counts as deleted once it is missing for
    /// [`GONE_AFTER`].
    pub fn look(&mut self, now: Instant, topic: Option<&TopicMetadata>) -> Fate {
        match topic {
            Some(topic) if topic.error == ErrorCode::UnknownTopicOrPartition => {
                let since = *self.missing_since.get_or_insert(now);
                if now.duration_since(since) >= GONE_AFTER { Fate::Deleted } else { Fate::Exists }
            }
            Some(topic) if self.id != Uuid::ZERO && topic.id != Uuid::ZERO && topic.id != self.id => Fate::Replaced,
            _ => {
                self.missing_since = None;
                Fate::Exists
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(id: u8, error: ErrorCode) -> TopicMetadata {
        TopicMetadata { id: Uuid::from_bytes([id; 16]), error, partitions: Vec::new() }
    }

    #[test]
    fn a_topic_is_deleted_once_it_was_missing_for_a_while_and_not_before() {
        let mut watch = TopicWatch::new(Uuid::from_bytes([1; 16]));
        let (begin, there) = (Instant::now(), topic(1, ErrorCode::None));
        let missing = topic(1, ErrorCode::UnknownTopicOrPartition);
        let mut after = |ms, topic| watch.look(begin + Duration::from_millis(ms), topic);
        assert_eq!(after(0, None), Fate::Exists);
        assert_eq!(after(0, Some(&missing)), Fate::Exists);
        assert_eq!(after(1_900, Some(&missing)), Fate::Exists);
        assert_eq!(after(1_950, Some(&there)), Fate::Exists);
        assert_eq!(after(2_000, Some(&missing)), Fate::Exists, "it was there in between");
        assert_eq!(after(4_000, Some(&missing)), Fate::Deleted);
    }

    #[test]
    fn another_topic_under_the_same_name_is_not_the_same_topic() {
        let mut watch = TopicWatch::new(Uuid::from_bytes([1; 16]));
        assert_eq!(watch.look(Instant::now(), Some(&topic(2, ErrorCode::None))), Fate::Replaced);
        let mut of_unknown_id = TopicWatch::default();
        assert_eq!(of_unknown_id.look(Instant::now(), Some(&topic(2, ErrorCode::None))), Fate::Exists);
    }
}
