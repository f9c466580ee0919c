//! A rolling restart: an operator takes the nodes down one after the other, and waits each time until the node serves
//! again, or for as long as the operator's patience lasts. It ends with the phase of faults.

use super::events::Event;
use super::{Phase, World};
use crate::scenario::Fault;
use std::collections::VecDeque;

/// How often the operator looks.
const LOOK_NS: u64 = 50_000_000;

/// A rolling restart under way.
#[derive(Debug)]
pub(super) struct Rolling {
    /// The nodes that are still to be restarted, in their order.
    left: VecDeque<usize>,
    /// What is dealt to each.
    fault: Fault,
    patience_ns: u64,
    awaited: Option<Awaited>,
}

/// The node that was taken down last.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    node: usize,
    /// It serves again with this life or a later one.
    life: u64,
    until: u64,
}

impl World {
    /// Begins with this node, unless a rolling restart is under way already.
    pub(super) fn begin_rolling(&mut self, first: usize, fault: Fault, patience_ns: u64) {
        if self.rolling.is_some() {
            return;
        }
        let nodes = self.nodes.len();
        let left = (0..nodes).map(|place| (first + place) % nodes).collect();
        self.rolling = Some(Rolling { left, fault, patience_ns, awaited: None });
        self.count("rolling restarts begun");
        self.roll_on();
    }

    /// Takes the next node down, if the last one serves again.
    pub(super) fn roll_on(&mut self) {
        let Some(rolling) = self.rolling.as_mut().filter(|_| self.phase == Phase::Faults) else { return };
        let is_back = |awaited: Awaited| {
            let node = &self.nodes[awaited.node];
            (node.life >= awaited.life && node.is_ready()) || self.now >= awaited.until
        };
        if rolling.awaited.is_none_or(is_back) {
            let Some(node) = rolling.left.pop_front() else {
                self.rolling = None;
                return self.count("rolling restarts done");
            };
            // One that is down already is started by whoever took it down.
            let is_up = self.nodes[node].process.is_some();
            let life = self.nodes[node].life + u64::from(is_up);
            rolling.awaited = Some(Awaited { node, life, until: self.now + rolling.patience_ns });
            let fault = rolling.fault.clone();
            self.deal(node, fault);
        }
        self.events.push(self.now + LOOK_NS, Event::RollOn);
    }
}
