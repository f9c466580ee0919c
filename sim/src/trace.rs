//! The trace of a run: a rolling hash over everything that happened, and notes for a listener.
//!
//! The hash is a 64-bit number over every step of the world: (event, time, node, digest of the input, digest of the
//! outputs). Two runs of one seed must have the same hash. It is also kept after every [`KEPT_EVERY`] events, which
//! tells where two runs that differ began to differ. It is not a cryptographic hash: it has to notice differences, not
//! attacks.

use crate::checkers::Violation;
use crate::client::ClientInput;
use crate::disk::Loss;
use crate::history::Fact;
use crate::network::Way;
use crate::scenario::{Fault, Scenario};
use bytes::Bytes;
use std::fmt;
use tidelog_client::Address;
use tidelog_core::broker::Broker;
use tidelog_core::ids::ConnId;
use tidelog_core::io::{Input, IoId, Output};

/// How many events lie between two hashes that are kept.
pub const KEPT_EVERY: u64 = 1024;

/// A 64-bit digest that is cheap to feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0x6a09_e667_f3bc_c908)
    }
}

impl Digest {
    pub fn number(&mut self, number: u64) {
        let mixed = (self.0.rotate_left(23) ^ number).wrapping_mul(0x9fb2_1c65_1e98_df25);
        self.0 = mixed ^ (mixed >> 32);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        let words = bytes.chunks_exact(8);
        let mut tail = [0; 8];
        tail[..words.remainder().len()].copy_from_slice(words.remainder());
        for word in words {
            self.number(u64::from_le_bytes(word.try_into().expect("a word has eight bytes")));
        }
        self.number(u64::from_le_bytes(tail));
    }

    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub fn chunks(&mut self, chunks: &[Bytes]) {
        for chunk in chunks {
            self.bytes(chunk);
        }
    }

    pub fn value(self) -> u64 {
        self.0
    }
}

/// The rolling hash of one run, and who listens to it.
#[derive(Debug, Default)]
pub struct Trace {
    rolling: Digest,
    events: u64,
    kept: Vec<u64>,
    /// The event that pushed the event which is handled now.
    cause: u64,
    sink: Option<Box<dyn Sink>>,
    watch: Option<Box<dyn Stopwatch>>,
    until: Option<u64>,
}

/// When something happened, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Counts the steps of the world: several notes may tell of one step.
    pub event: u64,
    /// The event that brought this one about.
    pub cause: u64,
    pub time_ns: u64,
}

/// Something that happened. A note holds references only, so that it costs nothing when no sink listens.
#[derive(Debug)]
pub enum Note<'a> {
    Scenario(&'a Scenario),
    /// A node's broker gets this input.
    Input {
        node: usize,
        input: &'a Input,
    },
    /// A node's broker has put out this.
    Output {
        node: usize,
        output: &'a Output,
    },
    /// A node after a step.
    State {
        node: usize,
        broker: &'a Broker,
    },
    /// A disk has taken a command up, and carries it out at this time.
    Disk {
        node: usize,
        command: IoId,
        completes_at: u64,
    },
    /// A node's process begins.
    Started {
        node: usize,
    },
    /// A node's process ends, and with it its disk commands that are under way.
    Ended {
        node: usize,
        loss: Loss,
    },
    /// A node's process stands still, or goes on.
    Paused {
        node: usize,
        paused: bool,
    },
    /// A node's volume is full, or has space again.
    Full {
        node: usize,
        full: bool,
    },
    Fault {
        node: usize,
        fault: &'a Fault,
    },
    /// Somebody asks for a connection to an address.
    Opened {
        conn: ConnId,
        address: &'a Address,
    },
    /// A message sets out. It arrives at `arrives_at` if its connection lasts so long; there is no such time if this
    /// message breaks its connection.
    Message {
        conn: ConnId,
        node: usize,
        way: Way,
        frame: &'a Bytes,
        arrives_at: Option<u64>,
    },
    /// A connection is gone, and with it the messages that are under way on it.
    Cut {
        conn: ConnId,
    },
    /// A client gets this input, on the connection that it uses.
    Client {
        client: u32,
        conn: Option<ConnId>,
        input: &'a ClientInput,
    },
    Fact {
        client: Option<u32>,
        fact: &'a Fact,
    },
    Violation(&'a Violation),
    /// Something for which there is no other note, in words.
    Said {
        place: fmt::Arguments<'a>,
        text: fmt::Arguments<'a>,
    },
    /// How things stand in the end, a line at a time.
    Remains(fmt::Arguments<'a>),
}

/// A listener to a run. The simulator itself has no files and no standard output: a sink is given by the tool or a
/// test.
pub trait Sink {
    fn note(&mut self, at: At, note: &Note<'_>);

    /// The step `event` is over, and this is the rolling hash after it.
    fn step(&mut self, _event: u64, _hash: u64) {}
}

/// A part of the simulator whose share of the running time is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    World,
    Broker,
    Disk,
    Network,
    Clients,
    Checkers,
}

/// Is told whenever another part begins. It may read a real clock, which the simulator itself may not.
pub trait Stopwatch {
    fn enter(&mut self, part: Part);
}

impl fmt::Debug for dyn Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}

impl fmt::Debug for dyn Stopwatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stopwatch")
    }
}

impl Trace {
    pub fn to(sink: Box<dyn Sink>) -> Self {
        Self { sink: Some(sink), ..Self::default() }
    }

    pub fn timed(watch: Box<dyn Stopwatch>) -> Self {
        Self { watch: Some(watch), ..Self::default() }
    }

    /// The same trace, for a run that ends before this event.
    pub fn until(self, event: Option<u64>) -> Self {
        Self { until: event, ..self }
    }

    /// One step of the world: what went in and what came out.
    pub fn step(&mut self, time: u64, place: u64, input: Digest, outputs: Digest) {
        self.rolling.number(self.events);
        self.rolling.number(time);
        self.rolling.number(place);
        self.rolling.number(input.value());
        self.rolling.number(outputs.value());
        if let Some(sink) = &mut self.sink {
            sink.step(self.events, self.rolling.value());
        }
        self.events += 1;
        if self.events.is_multiple_of(KEPT_EVERY) {
            self.kept.push(self.rolling.value());
        }
    }

    pub fn hash(&self) -> u64 {
        self.rolling.value()
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    /// The hash after each [`KEPT_EVERY`] events.
    pub fn kept(&self) -> &[u64] {
        &self.kept
    }

    /// Whether a sink listens.
    pub fn is_on(&self) -> bool {
        self.sink.is_some()
    }

    /// Whether this is where the run is to end.
    pub fn is_over(&self) -> bool {
        self.until.is_some_and(|until| self.events >= until)
    }

    /// From now on notes name this event as their cause.
    pub fn set_cause(&mut self, cause: u64) {
        self.cause = cause;
    }

    #[inline]
    pub fn note(&mut self, time_ns: u64, note: Note<'_>) {
        if let Some(sink) = &mut self.sink {
            sink.note(At { event: self.events, cause: self.cause, time_ns }, &note);
        }
    }

    /// A line for people, where no other note fits.
    pub fn say(&mut self, time_ns: u64, place: impl fmt::Display, text: fmt::Arguments<'_>) {
        self.note(time_ns, Note::Said { place: format_args!("{place}"), text });
    }

    #[inline]
    pub fn enter(&mut self, part: Part) {
        if let Some(watch) = &mut self.watch {
            watch.enter(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(steps: &[(u64, u64)]) -> u64 {
        let mut trace = Trace::default();
        for (time, place) in steps {
            trace.step(*time, *place, Digest::default(), Digest::default());
        }
        trace.hash()
    }

    #[test]
    fn the_hash_tells_apart_order_time_and_place() {
        assert_eq!(after(&[(1, 0), (2, 1)]), after(&[(1, 0), (2, 1)]));
        for other in [&[(2, 1), (1, 0)][..], &[(1, 0), (3, 1)], &[(1, 0), (2, 0)], &[(1, 0)]] {
            assert_ne!(after(&[(1, 0), (2, 1)]), after(other));
        }
    }

    #[test]
    fn the_digest_of_bytes_knows_their_length() {
        let of = |bytes: &[u8]| {
            let mut digest = Digest::default();
            digest.bytes(bytes);
            digest.value()
        };
        assert_ne!(of(b"a"), of(b"a\0"));
        assert_ne!(of(b"12345678"), of(b"12345679"));
    }

    #[test]
    fn a_hash_is_kept_every_1024_events() {
        let mut trace = Trace::default();
        for event in 0..2 * KEPT_EVERY + 1 {
            trace.step(event, 0, Digest::default(), Digest::default());
        }
        assert_eq!(trace.kept().len(), 2);
        assert_ne!(trace.kept()[1], trace.hash());
    }
}
