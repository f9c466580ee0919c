//! The events of a world, and the heap that orders them by time.

use crate::client::OpenerInput;
use crate::disk::Ticket;
use crate::network::End;
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use tidelog_core::ids::{ConnId, Offset};

/// What happens at a moment of virtual time. `life` numbers the processes of a node: an event that was meant for an
/// earlier process is dropped. `at` is the moment for which a wake-up was set: it is dropped if that has been moved
/// since.
#[derive(Debug)]
pub enum Event {
    NodeStart {
        node: usize,
        life: u64,
    },
    NodeIo {
        node: usize,
        life: u64,
        ticket: Ticket,
    },
    NodeTick {
        node: usize,
        life: u64,
        at: u64,
    },
    NodeAccept {
        node: usize,
        conn: ConnId,
    },
    /// Somebody asks for a connection to an address that is no node's.
    Unheard {
        conn: ConnId,
    },
    NodeRequest {
        node: usize,
        conn: ConnId,
        frame: Bytes,
    },
    NodeDisconnected {
        node: usize,
        life: u64,
        conn: ConnId,
    },
    /// The next response of the connection, or its closing, leaves its node.
    Departure {
        node: usize,
        conn: ConnId,
    },
    /// The time in which a clean stop must be done is over.
    StopDeadline {
        node: usize,
        life: u64,
    },
    /// A process whose disk has failed is restarted by its operator.
    RestartAfterDiskError {
        node: usize,
        life: u64,
    },
    /// The opener of a connection gets this.
    Opener {
        conn: ConnId,
        input: OpenerInput,
    },
    ClientWake {
        client: usize,
        at: u64,
    },
    /// The fault at this place of the scenario's list happens.
    Fault(usize),
    /// A node loses its disk, if the quorum survives it now.
    LoseDisk {
        node: usize,
        down_ns: u64,
    },
    /// A broker is taken away, if it has no replica now.
    Leave {
        node: usize,
        unregister: bool,
    },
    /// A broker was taken away: is it gone for good?
    Left {
        node: usize,
        since: Offset,
        unregister: bool,
    },
    /// The operator of a rolling restart looks whether the next node's turn has come.
    RollOn,
    /// A paused process goes on.
    Resume {
        node: usize,
        life: u64,
    },
    /// A disk is no longer full.
    DiskHasSpace {
        node: usize,
    },
    /// An operator restores what was damaged or unmounted, and restarts the broker.
    Repair {
        node: usize,
    },
    /// The faults end for good.
    Heal,
    /// Ten quiet seconds are over. `all_served`: when they began, every broker served.
    QuietEnds {
        all_served: bool,
    },
    /// Are all replicas equal now?
    ReplicasMayBeEqual,
}

impl Event {
    /// The node whose process gets this event. While that process is paused, the event waits.
    pub fn node(&self) -> Option<usize> {
        match self {
            Event::NodeIo { node, .. }
            | Event::NodeTick { node, .. }
            | Event::NodeAccept { node, .. }
            | Event::NodeRequest { node, .. }
            | Event::NodeDisconnected { node, .. }
            | Event::Departure { node, .. } => Some(*node),
            Event::Opener { conn, .. } => match End::that_opened(*conn) {
                End::Node(node) => Some(node as usize),
                End::Client(_) => None,
            },
            Event::NodeStart { .. }
            | Event::Unheard { .. }
            | Event::StopDeadline { .. }
            | Event::RestartAfterDiskError { .. }
            | Event::ClientWake { .. }
            | Event::Fault(_)
            | Event::Leave { .. }
            | Event::Left { .. }
            | Event::RollOn
            | Event::LoseDisk { .. }
            | Event::Resume { .. }
            | Event::DiskHasSpace { .. }
            | Event::Repair { .. }
            | Event::Heal
            | Event::QuietEnds { .. }
            | Event::ReplicasMayBeEqual => None,
        }
    }
}

/// The heap of events. Of two events at the same time, the one that was pushed first comes first.
#[derive(Debug, Default)]
pub struct Events {
    /// Time, sequence, place in `slots`.
    order: BinaryHeap<Reverse<(u64, u64, usize)>>,
    /// Cause and event.
    slots: Vec<Option<(u64, Event)>>,
    /// The places in `slots` that are empty.
    free: Vec<usize>,
    /// Grows by one with each event that is pushed.
    sequence: u64,
    /// The number, in the trace, of the event that is being handled: it causes what is pushed now.
    pub cause: u64,
}

impl Events {
    pub fn push(&mut self, time: u64, event: Event) {
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some((self.cause, event));
        self.order.push(Reverse((time, self.sequence, slot)));
        self.sequence += 1;
    }

    pub fn next_at(&self) -> Option<u64> {
        self.order.peek().map(|Reverse((time, _, _))| *time)
    }

    /// What is to come, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Event> {
        self.slots.iter().flatten().map(|(_, event)| event)
    }

    /// The next event, with its time and the step that caused it.
    pub fn pop(&mut self) -> Option<(u64, u64, Event)> {
        let Reverse((time, _, slot)) = self.order.pop()?;
        self.free.push(slot);
        let (cause, event) = self.slots[slot].take().expect("a slot in the heap is taken");
        Some((time, cause, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_of_their_scheduling() {
        let mut events = Events::default();
        for (time, place) in [(5, 0), (3, 1), (5, 2), (3, 3), (4, 4)] {
            events.push(time, Event::Fault(place));
        }
        let mut order = Vec::new();
        while let Some((_, _, Event::Fault(place))) = events.pop() {
            order.push(place);
        }
        assert_eq!(order, [1, 3, 4, 0, 2]);
    }
}
