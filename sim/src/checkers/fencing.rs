//! A broker that is down for longer than its session is fenced, by whichever controller is active then (KAFKA-18138).
//!
//! The controller has a broker's whole session from the moment on at which it became active, or last heard of the broker.
//! By its first step after that it has decided to fence the broker. What it has appended up to that step is committed
//! with the decision.
//!
//! A broker that has applied its registration has caught up, however busy the metadata log is (KAFKA-13959). It may be
//! registered twice, if it has not heard of the first time. Then the second registration counts, which is soon behind
//! the first.

use super::{Checker, Rules, Violation, violation};
use crate::history::{Entry, Fact, Replica};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub struct Fencing {
    /// A broker's session by the world's clock; the controller's may be slower.
    session_ns: u64,
    /// Since when each node is down.
    down: BTreeMap<u32, u64>,
    controllers: BTreeMap<u32, Controller>,
    /// By broker: its epoch, and the offsets behind its registration with which it had not caught up.
    behind: BTreeMap<u32, (i64, BTreeSet<i64>)>,
}

/// With so many offsets behind its registration a broker may be told that it has not caught up.
const BEHIND_MAX: usize = 10;

/// An active controller.
#[derive(Debug)]
struct Controller {
    since: u64,
    unfenced: Vec<u32>,
    committed: i64,
    log_end: i64,
    /// When each broker was last heard of.
    heard: BTreeMap<u32, u64>,
    /// The end of the log by which each broker that is down must be fenced.
    fenced_by: BTreeMap<u32, i64>,
}

impl Fencing {
    pub fn new(rules: &Rules) -> Self {
        let ms = rules.session_timeout_ms;
        let session_ns = (ms + ms / 20 + 10) * 1_000_000;
        Self { session_ns, down: BTreeMap::new(), controllers: BTreeMap::new(), behind: BTreeMap::new() }
    }

    fn stands(&mut self, at: u64, node: u32, replica: &Replica) -> Result<(), Violation> {
        let Some(unfenced) = &replica.unfenced else {
            self.controllers.remove(&node);
            return Ok(());
        };
        let controller = self.controllers.entry(node).or_insert_with(|| Controller {
            since: at,
            unfenced: Vec::new(),
            committed: 0,
            log_end: 0,
            heard: BTreeMap::new(),
            fenced_by: BTreeMap::new(),
        });
        controller.unfenced.clone_from(unfenced);
        (controller.committed, controller.log_end) = (replica.committed, replica.log_end);
        let is_late = |broker: &&u32| controller.fenced_by.get(broker).is_some_and(|end| controller.committed >= *end);
        match unfenced.iter().find(is_late) {
            None => Ok(()),
            Some(broker) => {
                let ms = self.down.get(broker).map_or(0, |since| (at - since) / 1_000_000);
                let text = format!(
                    "broker {broker} is down for {ms} ms, and node {node}, which is the active controller, has not fenced it"
                );
                violation("fencing", None, text)
            }
        }
    }

    fn caught_up(&mut self, broker: u32, epoch: i64, offset: i64, told: bool) -> Result<(), Violation> {
        let (of, offsets) = self.behind.entry(broker).or_default();
        if *of != epoch || told {
            (*of, *offsets) = (epoch, BTreeSet::new());
        }
        if !told && offset >= epoch {
            offsets.insert(offset);
        }
        match offsets.len() > BEHIND_MAX {
            false => Ok(()),
            true => {
                let text =
                    format!("broker {broker} is registered at {epoch}, has {offset}, and is still told to catch up");
                violation("fencing", None, text)
            }
        }
    }

    /// The controller has made a step.
    fn leads_on(&mut self, at: u64, node: u32) {
        let Some(controller) = self.controllers.get_mut(&node) else { return };
        for broker in &controller.unfenced {
            let Some(since) = self.down.get(broker) else { continue };
            let heard = controller.heard.get(broker).copied().unwrap_or(0);
            if at > controller.since.max(*since).max(heard) + self.session_ns {
                controller.fenced_by.entry(*broker).or_insert(controller.log_end);
            }
        }
    }
}

impl Checker for Fencing {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        match &entry.fact {
            Fact::Replica { node, replica } => return self.stands(entry.at, *node, replica),
            Fact::LeadsOn { node } => self.leads_on(entry.at, *node),
            Fact::Heartbeat { node, broker } => {
                if let Some(controller) = self.controllers.get_mut(node) {
                    controller.heard.insert(*broker, entry.at);
                }
            }
            Fact::CaughtUp { broker, epoch, offset, told } => {
                return self.caught_up(*broker, *epoch, *offset, *told);
            }
            Fact::Ended { node } => {
                self.down.insert(*node, entry.at);
                self.controllers.remove(node);
            }
            Fact::Restarted { node, .. } => {
                self.down.remove(node);
                for controller in self.controllers.values_mut() {
                    controller.fenced_by.remove(node);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::watch;
    use super::*;
    use crate::history::Voter;

    fn controller(unfenced: &[u32], committed: i64, log_end: i64) -> Fact {
        let replica = Replica {
            leads: true,
            epoch: 3,
            leader: Some(0),
            committed,
            high_watermark: Some(committed),
            synced: log_end,
            log_end,
            epoch_start: Some(4),
            voters: vec![Voter { node: 0, disk: 0 }],
            unfenced: Some(unfenced.to_vec()),
        };
        Fact::Replica { node: 0, replica }
    }

    /// With a session of 100 ms, which may last 115.
    fn verdict(facts: Vec<(u64, Fact)>) -> Result<(), String> {
        watch(Fencing::new(&Rules { session_timeout_ms: 100, ..Rules::default() }), facts)
    }

    #[test]
    fn a_broker_that_never_catches_up_with_a_busy_log_is_found() {
        let told = |offset: i64, told| (offset as u64, Fact::CaughtUp { broker: 1, epoch: 20, offset, told });
        let behind = |offsets: std::ops::Range<i64>| offsets.map(|offset| told(offset, false)).collect::<Vec<_>>();
        assert_eq!(verdict(behind(5..30)), Ok(()));
        let text = "fencing: broker 1 is registered at 20, has 30, and is still told to catch up";
        assert_eq!(verdict(behind(5..31)).unwrap_err(), text);
        let facts = behind(5..30).into_iter().chain([told(30, true)]).chain(behind(31..40));
        assert_eq!(verdict(facts.collect()), Ok(()), "it was told in between");
    }

    #[test]
    fn a_broker_that_is_down_and_not_fenced_is_found() {
        let (down, on) = (Fact::Ended { node: 1 }, Fact::LeadsOn { node: 0 });
        let heartbeat = Fact::Heartbeat { node: 0, broker: 1 };
        let begin = |end| vec![(0, down.clone()), (10, controller(&[0, 1], 5, 6)), (end, on.clone())];
        let with = |mut facts: Vec<(u64, Fact)>, more: Vec<(u64, Fact)>| {
            facts.extend(more);
            verdict(facts)
        };
        let late = with(begin(126), vec![(130, controller(&[0, 1], 6, 7))]).unwrap_err();
        assert_eq!(
            late,
            "fencing: broker 1 is down for 130 ms, and node 0, which is the active controller, has not fenced it"
        );
        assert_eq!(with(begin(120), vec![(130, controller(&[0, 1], 6, 7))]), Ok(()), "its session goes on");
        assert_eq!(with(begin(126), vec![(130, controller(&[0], 6, 7))]), Ok(()), "it is fenced");
        let restarted = (128, Fact::Restarted { node: 1, held: Vec::new() });
        assert_eq!(with(begin(126), vec![restarted, (130, controller(&[0, 1], 6, 7))]), Ok(()));
        let heard = vec![(0, down.clone()), (10, controller(&[0, 1], 5, 6)), (50, heartbeat), (126, on)];
        assert_eq!(with(heard, vec![(130, controller(&[0, 1], 6, 7))]), Ok(()), "an old heartbeat came late");
    }
}
