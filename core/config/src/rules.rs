//! Kafka's rules about a broker's values that a name alone does not decide: most are about two or more values together.
//!
//! A start checks its properties by these rules, and a running broker checks each change of its configs by them, so
//! what a file may not say cannot be set later either.

use super::dynamic::connection_overrides;
use super::key::Value;
use super::{ConfigError, table};

/// What is wrong with the values. `set` gives the value of a name that is set.
pub(super) fn broken(set: &dyn Fn(&str) -> Option<Value>) -> Vec<ConfigError> {
    let mut rules = Rules { set, errors: Vec::new() };
    rules.replication();
    rules.network();
    rules.logs();
    rules.cleaner();
    rules.log_directories();
    rules.errors
}

struct Rules<'a> {
    set: &'a dyn Fn(&str) -> Option<Value>,
    errors: Vec<ConfigError>,
}

impl Rules<'_> {
    fn value(&self, name: &str) -> Option<Value> {
        let key = table::broker_key(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        (self.set)(name).or_else(|| key.default_text().map(|text| key.read(text).expect("a default is valid")))
    }

    fn number(&self, name: &str) -> i64 {
        match self.value(name) {
            Some(Value::Number(number)) => number,
            other => unreachable!("{name} is a number, not {other:?}"),
        }
    }

    fn text(&self, name: &str) -> String {
        match self.value(name) {
            Some(Value::Text(text)) => text,
            other => unreachable!("{name} is a text, not {other:?}"),
        }
    }

    fn list(&self, name: &str) -> Option<Vec<String>> {
        match self.value(name)? {
            Value::List(items) => Some(items),
            other => unreachable!("{name} is a list, not {other:?}"),
        }
    }

    fn refuse(&mut self, name: &str, why: impl Into<String>) {
        let value = self.value(name).map(|value| value.canonical()).unwrap_or_default();
        self.errors.push(ConfigError::new(name, &value, why));
    }

    /// Where the name is set, its value is at least `min`.
    fn at_least(&mut self, name: &str, min: i64) {
        if let Some(Value::Number(number)) = (self.set)(name)
            && number < min
        {
            self.refuse(name, format!("allowed is a number of at least {min}"));
        }
    }

    fn replication(&mut self) {
        if self.number("replica.fetch.wait.max.ms") > self.number("replica.socket.timeout.ms") {
            self.refuse("replica.socket.timeout.ms", "allowed is at least replica.fetch.wait.max.ms");
        }
        if self.number("replica.fetch.wait.max.ms") > self.number("replica.lag.time.max.ms") {
            self.refuse("replica.fetch.wait.max.ms", "allowed is at most replica.lag.time.max.ms");
        }
    }

    fn network(&mut self) {
        let queued = self.number("queued.max.request.bytes");
        if queued > 0 && queued < self.number("socket.request.max.bytes") {
            self.refuse("queued.max.request.bytes", "allowed is at least socket.request.max.bytes, or -1");
        }
        let idle = self.number("connections.max.idle.ms");
        if idle >= 0 && self.number("connection.failed.authentication.delay.ms") >= idle {
            self.refuse(
                "connections.max.idle.ms",
                "allowed is more than connection.failed.authentication.delay.ms, or a negative number",
            );
        }
        // Kafka's file may say 0 here, with which only other brokers can connect.
        self.at_least("max.connections", 1);
        self.at_least("max.connection.creation.rate", 1);
        let overrides = "max.connections.per.ip.overrides";
        match connection_overrides(&self.text(overrides)) {
            Err(why) => self.refuse(overrides, why),
            Ok(exceptions) if exceptions.is_empty() && self.number("max.connections.per.ip") == 0 => {
                self.refuse("max.connections.per.ip", format!("allowed is 0 only where {overrides} is set"));
            }
            Ok(_) => {}
        }
    }

    fn logs(&mut self) {
        for name in ["log.retention.ms", "log.retention.minutes", "log.retention.hours"] {
            if let Some(Value::Number(number)) = (self.set)(name)
                && (number == 0 || number < -1)
            {
                self.refuse(name, "allowed is a number of at least 1, or -1 for unlimited");
            }
        }
        for (name, min) in [("log.roll.ms", 1), ("log.roll.jitter.ms", 0), ("log.flush.interval.ms", 0)] {
            self.at_least(name, min);
        }
        let (min, max) = ("log.cleaner.min.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms");
        if self.number(min) > self.number(max) {
            self.refuse(min, format!("allowed is at most {max}"));
        }
    }

    fn cleaner(&mut self) {
        const MIB: i64 = 1024 * 1024;
        let (threads, buffer) = ("log.cleaner.threads", "log.cleaner.dedupe.buffer.size");
        self.at_least(threads, 1);
        if self.number(buffer) / self.number(threads).max(1) <= MIB {
            self.refuse(buffer, format!("allowed is more than {MIB} for each of the {threads}"));
        }
    }

    fn log_directories(&mut self) {
        let cordoned = self.list("cordoned.log.dirs").unwrap_or_default();
        let dirs = self.list("log.dirs").or_else(|| self.list("log.dir")).unwrap_or_default();
        let is_all = cordoned == ["*"];
        if !is_all && cordoned.iter().any(|dir| !dirs.contains(dir)) {
            self.refuse("cordoned.log.dirs", format!("allowed is * or some of log.dirs: {}", dirs.join(", ")));
        }
    }
}
