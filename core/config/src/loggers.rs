//! The loggers of the operator's log, and the level of each (KIP-412).
//!
//! A logger without a level of its own has that of the logger with the longest name with which its own name begins, and
//! otherwise that of the root. The names are compared as text, without regard to dots, as in tracing-subscriber's
//! `Targets`, which decides what is logged.

use std::collections::BTreeMap;

/// The logger of everything for which no other logger decides.
pub const ROOT_LOGGER: &str = "root";

/// The parts of the core that write to the operator's log. The logger of a part is `tidelog.` with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Broker,
    Configs,
    Peers,
    Quorum,
    Replication,
    Storage,
}

impl Part {
    pub const ALL: [Self; 6] =
        [Self::Broker, Self::Configs, Self::Peers, Self::Quorum, Self::Replication, Self::Storage];

    pub fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Configs => "configs",
            Self::Peers => "peers",
            Self::Quorum => "quorum",
            Self::Replication => "replication",
            Self::Storage => "storage",
        }
    }
}

/// How much a logger tells, with Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing is logged. Only the options of the start can ask for this level.
    Off,
    /// Nothing of what Tidelog logs is worse than an error, so at this level nothing is logged.
    Fatal,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// The levels that a client may set, in the order in which Kafka lists them.
    pub const SETTABLE: [Self; 6] = [Self::Debug, Self::Error, Self::Fatal, Self::Info, Self::Trace, Self::Warn];

    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }

    /// The level of this name, if a client may set it. Kafka wants capital letters.
    pub fn settable(name: &str) -> Option<Self> {
        Self::SETTABLE.into_iter().find(|level| level.name() == name)
    }
}

/// All loggers and their levels. There are none by default: the broker then runs inside another program, to which the
/// log belongs, and clients can change no level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loggers {
    /// `None`: the logger has no level of its own. If there are loggers, the root is one of them and has a level.
    levels: BTreeMap<String, Option<LogLevel>>,
}

impl Loggers {
    /// The root with this level, and the loggers of a broker's [`Part`]s.
    pub fn of_broker(root: LogLevel) -> Self {
        let mut loggers = Self { levels: BTreeMap::from([(ROOT_LOGGER.to_owned(), Some(root))]) };
        loggers.add("tidelog");
        for part in Part::ALL.map(Part::name) {
            loggers.add(&format!("tidelog.{part}"));
        }
        loggers
    }

    /// Adds a logger, without a level of its own if it is new.
    pub fn add(&mut self, name: &str) {
        assert!(self.exists(ROOT_LOGGER), "the root is there first");
        self.levels.entry(name.to_owned()).or_default();
    }

    pub fn exists(&self, name: &str) -> bool {
        self.levels.contains_key(name)
    }

    /// Gives a logger this level. Gives `false` if there is no such logger.
    pub fn set(&mut self, name: &str, level: LogLevel) -> bool {
        self.levels.get_mut(name).map(|own| *own = Some(level)).is_some()
    }

    /// Takes away a logger's own level, if there is such a logger. The root must keep its level.
    pub fn unset(&mut self, name: &str) {
        assert!(name != ROOT_LOGGER, "the root has a level");
        if let Some(own) = self.levels.get_mut(name) {
            *own = None;
        }
    }

    /// Every logger with the level that is in force for it, sorted by name.
    pub fn in_force(&self) -> impl Iterator<Item = (&str, LogLevel)> {
        self.levels.keys().map(|name| (&**name, self.level_of(name)))
    }

    /// The loggers that have a level of their own.
    pub fn own_levels(&self) -> impl Iterator<Item = (&str, LogLevel)> {
        self.levels.iter().filter_map(|(name, level)| Some((&**name, (*level)?)))
    }

    fn level_of(&self, name: &str) -> LogLevel {
        if let Some(Some(level)) = self.levels.get(name) {
            return *level;
        }
        let begins = self.own_levels().filter(|(other, _)| *other != ROOT_LOGGER && name.starts_with(other));
        let nearest = begins.max_by_key(|(other, _)| other.len());
        let root = self.levels.get(ROOT_LOGGER).copied().flatten();
        nearest.map(|(_, level)| level).or(root).expect("the root has a level")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logger_without_a_level_has_that_of_the_nearest_one_above_it() {
        let mut loggers = Loggers::of_broker(LogLevel::Info);
        loggers.add("tidelog.metrics");
        loggers.add("tidelog.metrics.http");
        let level = |loggers: &Loggers, wanted: &str| {
            loggers.in_force().find(|(name, _)| *name == wanted).map(|(_, level)| level.name())
        };
        assert_eq!(level(&loggers, "tidelog.metrics.http"), Some("INFO"));
        assert!(loggers.set("tidelog", LogLevel::Debug));
        assert_eq!(level(&loggers, "tidelog.metrics.http"), Some("DEBUG"));
        assert!(loggers.set("tidelog.metrics", LogLevel::Error));
        assert!(loggers.set(ROOT_LOGGER, LogLevel::Fatal));
        assert_eq!(level(&loggers, "tidelog.metrics.http"), Some("ERROR"));
        assert_eq!(level(&loggers, "tidelog.storage"), Some("DEBUG"));
        loggers.unset("tidelog.metrics");
        loggers.unset("tidelog");
        assert_eq!(level(&loggers, "tidelog.metrics.http"), Some("FATAL"));
        assert!(!loggers.set("nosuch", LogLevel::Warn) && level(&loggers, "nosuch").is_none());
        assert_eq!(Loggers::default().in_force().count(), 0);
    }
}
