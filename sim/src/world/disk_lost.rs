//! A controller loses its disk, and goes on with an empty one. The fault is dealt at a moment at which the quorum
//! survives it, so that nothing that was committed may be lost afterwards, and there must be a leader once all is healed.
//!
//! **Voters that are recorded** have the ids of their directories (KIP-853): on another disk the node is another
//! replica, which is no voter. It cannot vote a second time in an epoch, nor be counted for records that it does not have
//! any more. Of the voters that are left with their disks, the majority that commits a record and the majority that
//! elects a leader still have one in common. So all that is needed is that they are a majority, now and after the change
//! of the voters that may be under way: one that adds this very node.
//!
//! **Static voters** are what their ids say, whatever disk they have. One that has forgotten everything may vote a second
//! time in an epoch, and may help to elect a leader without the records that it has helped to commit. Kafka does not
//! survive that in general. It does at a moment at which all other voters have on stable storage all that this one has,
//! and follow (or lead) in one epoch, which is not below the one in which this one has voted last: no record is counted
//! that any other lacks, and none of the others stands for election in an epoch that this one may vote in again.

use super::events::Event;
use super::{Phase, World};
use crate::cluster::{NodeRole, Voters};
use crate::disk::Loss;
use crate::history::{Fact, Voter};
use std::collections::BTreeSet;

/// How long the world waits until it looks again whether the quorum survives the loss.
const LOOK_NS: u64 = 100_000_000;

impl World {
    pub(super) fn lose_disk(&mut self, node: usize, down_ns: u64) {
        if self.phase != Phase::Faults || self.scenario.cluster.role(node as u32) != NodeRole::Controller {
            return;
        }
        let survives = match self.scenario.cluster.voters {
            Voters::Recorded => self.recorded_voters_survive(node as u32),
            Voters::Configured => self.static_voters_survive(node),
        };
        if !survives {
            return self.events.push(self.now + LOOK_NS, Event::LoseDisk { node, down_ns });
        }
        self.count("disks lost");
        self.trace.say(self.now, format_args!("node{node}"), format_args!("! its disk is lost"));
        self.end_process(node, Loss::Power, down_ns);
        self.nodes[node].lose_disk(&self.scenario);
        self.disk_seen_lost(node);
        self.fact(None, Fact::DiskLost { node: node as u32 });
    }

    /// The controllers whose processes run and have read their disks; none if some do not.
    fn all_controllers(&self) -> Option<Vec<usize>> {
        let controllers = self.scenario.cluster.controllers(self.scenario.nodes).map(|node| node as usize);
        controllers.map(|node| self.nodes[node].process.as_ref()?.broker.quorum().map(|_| node)).collect()
    }

    fn recorded_voters_survive(&self, lost: u32) -> bool {
        let Some(controllers) = self.all_controllers() else { return false };
        let votes = |voter: &Voter| {
            let is_cut_off = self.scenario.cluster.cut_off.iter().any(|cut_off| cut_off.node == voter.node);
            voter.node != lost && !is_cut_off && voter.disk == self.nodes[voter.node as usize].disks_lost
        };
        controllers.into_iter().all(|node| {
            let broker = &self.nodes[node].process.as_ref().expect("it runs").broker;
            let mut set: BTreeSet<Voter> = broker.voters().map(|key| self.voter_of(key)).collect();
            set.insert(Voter { node: lost, disk: self.nodes[lost as usize].disks_lost });
            2 * set.iter().filter(|voter| votes(voter)).count() > set.len()
        })
    }

    fn static_voters_survive(&self, lost: usize) -> bool {
        let Some(controllers) = self.all_controllers().filter(|all| all.len() >= 3) else { return false };
        let view =
            |node: usize| self.nodes[node].process.as_ref().expect("it runs").broker.quorum().expect("it is read");
        let of_lost = view(lost);
        // What the start of the log stands for, where a snapshot has taken the place of the log, is not compared.
        let Some((_, last)) = self.seen[lost].batches.last_key_value() else { return false };
        if last.last_offset + 1 != of_lost.log_end.0 {
            return false;
        }
        let voted_in = self.seen[lost].saved.map_or(0, |state| state.leader_epoch.0).max(of_lost.epoch.0);
        controllers.into_iter().filter(|node| *node != lost).all(|node| {
            let other = view(node);
            let has_all =
                other.synced >= of_lost.log_end && self.seen[node].batches.get(&last.base_offset) == Some(last);
            has_all && other.leader.is_some() && other.epoch.0 >= voted_in
        })
    }
}
