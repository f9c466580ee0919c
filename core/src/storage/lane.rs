//! The commands of one log: what is in flight, and what waits behind a gate.
//!
//! A world carries out all commands of a lane in order, those behind one that failed too. Where that would leave on
//! the disk what a later start takes for something else, a [`gate`](Lane::gate) stands between them.

use crate::ids::LogId;
use crate::io::{IoId, IoOp, IoOwner, Outbox};
use std::collections::VecDeque;

/// `P` is what a command is for.
#[derive(Debug)]
pub(super) struct Lane<P> {
    owner: IoOwner,
    next_seq: u64,
    in_flight: VecDeque<(u64, P)>,
    /// Reads in flight, which may complete in any order.
    reads: Vec<(u64, P)>,
    /// Begins with a gate where there is anything, and then something is in flight. What it writes is counted in
    /// [`Outbox::held_bytes`].
    held: VecDeque<Held<P>>,
}

#[derive(Debug)]
enum Held<P> {
    Gate,
    Command(P, IoOp),
}

impl<P> Lane<P> {
    pub fn new(log: LogId) -> Self {
        Self {
            owner: IoOwner::Log(log),
            next_seq: 0,
            in_flight: VecDeque::new(),
            reads: Vec::new(),
            held: VecDeque::new(),
        }
    }

    /// Gives a command out, or holds it back behind a gate. A read is never held back.
    pub fn issue(&mut self, pending: P, op: IoOp, out: &mut Outbox) {
        if matches!(op, IoOp::Read { .. }) {
            let seq = self.send(op, out);
            self.reads.push((seq, pending));
        } else if self.held.is_empty() {
            let seq = self.send(op, out);
            self.in_flight.push_back((seq, pending));
        } else {
            out.held_bytes += written_bytes(&op);
            self.held.push_back(Held::Command(pending, op));
        }
    }

    fn send(&mut self, op: IoOp, out: &mut Outbox) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        out.io(IoId { owner: self.owner, seq }, op);
        seq
    }

    /// What is issued from here on goes out once everything before it has completed, by [`go_on`](Self::go_on): not at
    /// all where the owner calls [`drop_held`](Self::drop_held) for a failure.
    pub fn gate(&mut self) {
        if !self.in_flight.is_empty() {
            self.held.push_back(Held::Gate);
        }
    }

    /// What the completed command was for.
    pub fn complete(&mut self, id: IoId) -> P {
        assert_eq!(id.owner, self.owner, "a completion of another owner");
        if self.in_flight.front().is_some_and(|(seq, _)| *seq == id.seq) {
            return self.in_flight.pop_front().expect("there is a front").1;
        }
        let read = self.reads.iter().position(|(seq, _)| *seq == id.seq);
        self.reads.swap_remove(read.expect("a lane completes in its order")).1
    }

    /// Gives out what no gate holds back any more.
    pub fn go_on(&mut self, out: &mut Outbox) {
        while self.in_flight.is_empty() && self.held.pop_front().is_some() {
            while let Some(Held::Command(..)) = self.held.front() {
                if let Some(Held::Command(pending, op)) = self.held.pop_front() {
                    out.held_bytes -= written_bytes(&op);
                    let seq = self.send(op, out);
                    self.in_flight.push_back((seq, pending));
                }
            }
        }
    }

    /// Forgets what is held back.
    pub fn drop_held(&mut self, out: &mut Outbox) {
        for held in self.held.drain(..) {
            if let Held::Command(_, op) = held {
                out.held_bytes -= written_bytes(&op);
            }
        }
    }

    /// Asserts the invariants.
    pub fn verify(&self) {
        assert!(self.held.front().is_none_or(|first| matches!(first, Held::Gate)), "a gate holds back what is held");
        assert!(self.held.is_empty() || !self.in_flight.is_empty(), "a gate opens when nothing is in flight");
    }
}

fn written_bytes(op: &IoOp) -> u64 {
    match op {
        IoOp::Write { chunks, .. } => chunks.iter().map(|chunk| chunk.len() as u64).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{FileId, LogDirId};
    use crate::io::{DiskPath, Output};
    use bytes::Bytes;
    use smallvec::smallvec;

    fn sync() -> IoOp {
        IoOp::SyncDir { path: DiskPath { dir: LogDirId(0), path: String::new() } }
    }

    fn read() -> IoOp {
        IoOp::Read { file: FileId(1), position: 0, len: 1 }
    }

    /// The numbers of what went out.
    fn sent(out: &mut Outbox) -> Vec<u64> {
        let outputs = std::mem::take(&mut out.outputs);
        let seq = |output: Output| match output {
            Output::Io(command) => command.id.seq,
            other => panic!("{other:?}"),
        };
        outputs.into_iter().map(seq).collect()
    }

    fn id(seq: u64) -> IoId {
        IoId { owner: IoOwner::Log(LogId(7)), seq }
    }

    #[test]
    fn what_stands_behind_a_gate_waits_for_all_before_it_and_reads_do_not() {
        let (mut lane, mut out) = (Lane::new(LogId(7)), Outbox::default());
        lane.gate();
        lane.issue("a", sync(), &mut out);
        lane.issue("b", sync(), &mut out);
        lane.gate();
        lane.issue("c", sync(), &mut out);
        lane.issue("read", read(), &mut out);
        lane.gate();
        lane.gate();
        lane.issue("d", sync(), &mut out);
        assert_eq!(sent(&mut out), [0, 1, 2]);
        lane.verify();
        assert_eq!(lane.complete(id(2)), "read");
        assert_eq!(lane.complete(id(0)), "a");
        lane.go_on(&mut out);
        assert!(sent(&mut out).is_empty());
        assert_eq!(lane.complete(id(1)), "b");
        lane.go_on(&mut out);
        assert_eq!(sent(&mut out), [3]);
        assert_eq!(lane.complete(id(3)), "c");
        lane.go_on(&mut out);
        assert_eq!(sent(&mut out), [4]);
        lane.verify();
        assert_eq!(lane.complete(id(4)), "d");
        lane.issue("e", sync(), &mut out);
        assert_eq!(sent(&mut out), [5]);
    }

    #[test]
    fn what_is_held_back_when_something_failed_never_goes_out() {
        let (mut lane, mut out) = (Lane::new(LogId(7)), Outbox::default());
        lane.issue("a", sync(), &mut out);
        lane.gate();
        lane.issue("b", sync(), &mut out);
        assert_eq!(lane.complete(id(0)), "a");
        lane.drop_held(&mut out);
        lane.go_on(&mut out);
        assert_eq!(sent(&mut out), [0]);
        lane.verify();
    }

    #[test]
    fn bytes_are_counted_as_long_as_they_are_held_back() {
        let write = |len| IoOp::Write {
            file: FileId(1),
            position: 0,
            chunks: smallvec![Bytes::from(vec![0; len]), Bytes::from_static(b"x")],
        };
        let (mut lane, mut out) = (Lane::new(LogId(7)), Outbox::default());
        lane.issue("a", write(10), &mut out);
        assert_eq!(out.held_bytes, 0);
        lane.gate();
        lane.issue("b", write(20), &mut out);
        lane.issue("c", sync(), &mut out);
        lane.gate();
        lane.issue("d", write(30), &mut out);
        assert_eq!(out.held_bytes, 21 + 31);
        lane.complete(id(0));
        lane.go_on(&mut out);
        assert_eq!(out.held_bytes, 31);
        lane.drop_held(&mut out);
        assert_eq!(out.held_bytes, 0);
    }
}
