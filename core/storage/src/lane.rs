//! The queue of one log's I/O commands: those in flight, and those that are held back behind a gate.
//!
//! The world carries out the commands of a log in order, and goes on after one that failed. Sometimes that could leave
//! files on the disk that mislead the next start: for example a new segment although the previous one is incomplete.
//! A [`gate`](Lane::gate) prevents it: commands behind a gate are given to the world only when all commands before it
//! have completed.

use crate::io::{IoId, IoOp, IoOwner, Outbox};
use std::collections::VecDeque;
use tidelog_wire::ids::LogId;

/// See the [module's](self) documentation. `P` says what a command is for, and is given back when it completes.
///
/// Invariant: while `held` is not empty, its first entry is a gate and at least one command is in flight.
#[derive(Debug)]
pub(super) struct Lane<P> {
    owner: IoOwner,
    next_seq: u64,
    in_flight: VecDeque<(u64, P)>,
    /// Reads in flight. They may complete in any order.
    reads: Vec<(u64, P)>,
    /// The gates, and the commands that they hold back. The bytes that these commands write are counted in
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

    /// Gives a command to the world, or holds it back if there is a gate. A read is never held back.
    pub fn issue(&mut self, purpose: P, op: IoOp, out: &mut Outbox) {
        if matches!(op, IoOp::Read { .. }) {
            let seq = self.send(op, out);
            self.reads.push((seq, purpose));
        } else if self.held.is_empty() {
            let seq = self.send(op, out);
            self.in_flight.push_back((seq, purpose));
        } else {
            out.held_bytes += written_bytes(&op);
            self.held.push_back(Held::Command(purpose, op));
        }
    }

    fn send(&mut self, op: IoOp, out: &mut Outbox) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        out.io(IoId { owner: self.owner, seq }, op);
        seq
    }

    /// Sets a gate: commands issued from now on are held back until all earlier commands have completed. Then
    /// [`release`](Self::release) gives them out. If one of the earlier commands failed, the owner calls
    /// [`drop_held`](Self::drop_held) instead, and they are never carried out.
    pub fn gate(&mut self) {
        if !self.in_flight.is_empty() {
            self.held.push_back(Held::Gate);
        }
    }

    /// Takes the completion of a command, and returns what the command was for.
    pub fn complete(&mut self, id: IoId) -> P {
        assert_eq!(id.owner, self.owner, "the completion belongs to another owner");
        if self.in_flight.front().is_some_and(|(seq, _)| *seq == id.seq) {
            return self.in_flight.pop_front().expect("there is a front").1;
        }
        let read = self.reads.iter().position(|(seq, _)| *seq == id.seq);
        self.reads.swap_remove(read.expect("commands of a lane complete in order, except reads")).1
    }

    /// Gives out the commands behind a gate, if all commands before that gate have completed.
    pub fn release(&mut self, out: &mut Outbox) {
        while self.in_flight.is_empty() && self.held.pop_front().is_some() {
            while let Some(Held::Command(..)) = self.held.front() {
                if let Some(Held::Command(purpose, op)) = self.held.pop_front() {
                    out.held_bytes -= written_bytes(&op);
                    let seq = self.send(op, out);
                    self.in_flight.push_back((seq, purpose));
                }
            }
        }
    }

    /// Drops all commands that are held back.
    pub fn drop_held(&mut self, out: &mut Outbox) {
        for held in self.held.drain(..) {
            if let Held::Command(_, op) = held {
                out.held_bytes -= written_bytes(&op);
            }
        }
    }

    /// Asserts the invariant.
    pub fn verify(&self) {
        assert!(self.held.front().is_none_or(|first| matches!(first, Held::Gate)), "the first held entry is a gate");
        assert!(
            self.held.is_empty() || !self.in_flight.is_empty(),
            "commands are held only while others are in flight"
        );
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
    use crate::io::{DiskPath, Output};
    use bytes::Bytes;
    use smallvec::smallvec;
    use tidelog_wire::ids::{FileId, LogDirId};

    fn sync() -> IoOp {
        IoOp::SyncDir { path: DiskPath { dir: LogDirId(0), path: String::new() } }
    }

    fn read() -> IoOp {
        IoOp::Read { file: FileId(1), position: 0, len: 1 }
    }

    /// The numbers of the commands that were given out since the last call.
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
    fn commands_behind_a_gate_wait_for_all_commands_before_it_except_reads() {
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
        lane.release(&mut out);
        assert!(sent(&mut out).is_empty());
        assert_eq!(lane.complete(id(1)), "b");
        lane.release(&mut out);
        assert_eq!(sent(&mut out), [3]);
        assert_eq!(lane.complete(id(3)), "c");
        lane.release(&mut out);
        assert_eq!(sent(&mut out), [4]);
        lane.verify();
        assert_eq!(lane.complete(id(4)), "d");
        lane.issue("e", sync(), &mut out);
        assert_eq!(sent(&mut out), [5]);
    }

    #[test]
    fn commands_that_are_dropped_while_held_back_are_never_given_out() {
        let (mut lane, mut out) = (Lane::new(LogId(7)), Outbox::default());
        lane.issue("a", sync(), &mut out);
        lane.gate();
        lane.issue("b", sync(), &mut out);
        assert_eq!(lane.complete(id(0)), "a");
        lane.drop_held(&mut out);
        lane.release(&mut out);
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
        lane.release(&mut out);
        assert_eq!(out.held_bytes, 31);
        lane.drop_held(&mut out);
        assert_eq!(out.held_bytes, 0);
    }
}
