//! The listeners to a trace: short lines for people, JSON lines for programs, the lines of a range of events.

use crate::describe::{Describer, Line, milliseconds};
use serde_json::json;
use std::cell::RefCell;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::rc::Rc;
use tidelog_sim::trace::{At, Note, Sink};

pub fn dense(at: At, line: &Line) -> String {
    match line.kind {
        "scenario" | "remains" | "violation" => line.text.clone(),
        _ => {
            let (event, time, place) = (at.event, milliseconds(at.time_ns), &line.place);
            format!("{event:>7} {time:>14} ms  {place:<9} {} {}", line.mark(), line.text)
        }
    }
}

/// Prints one short line for each input, output, fact and fault. Messages and states, of which there are too many for a
/// person, are printed by [`Full`] alone.
pub struct Short {
    describer: Describer,
    out: BufWriter<StdoutLock<'static>>,
}

impl Short {
    pub fn new() -> Self {
        Self { describer: Describer::default(), out: BufWriter::new(io::stdout().lock()) }
    }
}

impl Sink for Short {
    fn note(&mut self, at: At, note: &Note<'_>) {
        for line in self.describer.describe(note) {
            if !matches!(line.kind, "message" | "network" | "disk" | "state" | "client") {
                // An error means that the reader has closed the pipe. The run goes on, and the next `println!` ends the
                // process.
                let _ = writeln!(self.out, "{}", dense(at, &line));
            }
        }
    }
}

/// Prints every line as a JSON object.
pub struct Full {
    describer: Describer,
    out: BufWriter<StdoutLock<'static>>,
}

impl Full {
    pub fn new() -> Self {
        Self { describer: Describer::default(), out: BufWriter::new(io::stdout().lock()) }
    }
}

impl Sink for Full {
    fn note(&mut self, at: At, note: &Note<'_>) {
        for line in self.describer.describe(note) {
            let mut object = json!({
                "event": at.event,
                "cause": at.cause,
                "time_ns": at.time_ns,
                "place": line.place,
                "kind": line.kind,
                "key": line.key,
                "text": line.text,
            });
            if let Some((before, after)) = line.change {
                object["before"] = before.into();
                object["after"] = after.into();
            }
            let _ = writeln!(self.out, "{object}");
        }
    }
}

/// Prints only the state of nodes, disks and clients at the end of a run.
#[derive(Default)]
pub struct Remains {
    describer: Describer,
}

impl Sink for Remains {
    fn note(&mut self, at: At, note: &Note<'_>) {
        if matches!(note, Note::Remains(_)) {
            for line in self.describer.describe(note) {
                println!("{}", dense(at, &line));
            }
        }
    }
}

/// An event in a [`Window`]: its number, the rolling hash after it, and its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub event: u64,
    pub hash: u64,
    pub lines: Vec<String>,
}

/// Keeps the lines of a range of events.
pub struct Window {
    describer: Describer,
    range: std::ops::Range<u64>,
    lines: Vec<String>,
    shown: Rc<RefCell<Vec<Shown>>>,
}

impl Window {
    pub fn new(range: std::ops::Range<u64>) -> (Self, Rc<RefCell<Vec<Shown>>>) {
        let shown = Rc::default();
        (Self { describer: Describer::default(), range, lines: Vec::new(), shown: Rc::clone(&shown) }, shown)
    }
}

impl Sink for Window {
    fn note(&mut self, at: At, note: &Note<'_>) {
        // Earlier notes are described too, because the describer learns the names of files from them.
        let lines = self.describer.describe(note);
        if self.range.contains(&at.event) && !matches!(note, Note::Remains(_) | Note::Scenario(_)) {
            self.lines.extend(lines.iter().map(|line| dense(at, line)));
        }
    }

    fn step(&mut self, event: u64, hash: u64) {
        if self.range.contains(&event) {
            let lines = std::mem::take(&mut self.lines);
            self.shown.borrow_mut().push(Shown { event, hash, lines });
        }
    }
}
