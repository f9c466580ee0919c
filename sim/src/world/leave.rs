//! A broker is taken away for good. The fault is dealt at a moment at which nobody misses the broker, so that all records
//! must still be there in the end: it has no replica of any partition.
//!
//! Until its session is over, the controller takes it for one that lives, and may place a replica on it. Then the broker
//! comes back. Otherwise it is gone, once nothing that it has sent is under way any more: no replica is placed on a broker
//! that is known to be fenced, and what was decided before is committed before. An operator unregisters some of those that
//! are gone.

use super::events::Event;
use super::{Phase, UNREGISTRAR, World};
use crate::cluster::{NodeRole, node_id};
use crate::disk::Loss;
use crate::network::End;
use crate::node::{Node, Presence};
use crate::scenario::Role;
use tidelog_core::broker::Broker;
use tidelog_core::ids::Offset;
use tidelog_core::wire::MetadataRecord;

/// How long the world waits until it looks again how the broker stands.
const LOOK_NS: u64 = 100_000_000;
/// It is not started again by itself.
const FOR_GOOD: u64 = 1 << 60;

/// How a broker stands in the metadata of the active controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    is_registered: bool,
    is_unfenced: bool,
    has_replicas: bool,
}

impl Standing {
    fn of(node: u32, metadata: &[MetadataRecord]) -> Self {
        let (id, mut standing) = (node_id(node).0, Self::default());
        for record in metadata {
            match record {
                MetadataRecord::RegisterBroker(of) if of.broker_id == id => {
                    (standing.is_registered, standing.is_unfenced) = (true, !of.fenced);
                }
                MetadataRecord::Partition(of) => standing.has_replicas |= of.replicas.contains(&id),
                _ => {}
            }
        }
        standing
    }

    /// Whether a broker that is gone stands as it should.
    fn is_right_for(self, presence: Presence) -> bool {
        let is_registered = presence == Presence::Gone;
        self == Self { is_registered, ..Self::default() }
    }
}

impl World {
    /// Takes a broker away, now or as soon as it serves and has no replica.
    pub(super) fn leave(&mut self, node: usize, unregister: bool) {
        if self.phase != Phase::Faults || self.scenario.cluster.role(node as u32) != NodeRole::Broker {
            return;
        }
        let has_nothing = Standing { is_registered: true, is_unfenced: true, has_replicas: false };
        if !self.nodes[node].is_ready() || self.standing(node) != Some(has_nothing) {
            return self.events.push(self.now + LOOK_NS, Event::Leave { node, unregister });
        }
        self.count("brokers taken away");
        self.trace.say(self.now, format_args!("node{node}"), format_args!("! it is taken away"));
        self.end_process(node, Loss::Power, FOR_GOOD);
        let since = self.active_metadata().map_or(Offset::ZERO, |(end, _)| end);
        self.events.push(self.now + LOOK_NS, Event::Left { node, since, unregister });
    }

    /// A broker was taken away, when the metadata was known up to `since`: is it gone for good, or must it come back?
    pub(super) fn has_left(&mut self, node: usize, since: Offset, unregister: bool) {
        if self.phase != Phase::Faults {
            return;
        }
        let news = self.active_metadata().filter(|(end, _)| *end > since && !self.is_still_heard(node));
        match news.map(|(_, metadata)| Standing::of(node as u32, &metadata)) {
            Some(Standing { is_unfenced: false, has_replicas: false, .. }) => self.gone(node, unregister),
            Some(Standing { is_unfenced: false, has_replicas: true, .. }) => {
                self.count("brokers that came back");
                self.events.push(self.now, Event::NodeStart { node, life: self.nodes[node].life });
            }
            _ => self.events.push(self.now + LOOK_NS, Event::Left { node, since, unregister }),
        }
    }

    fn gone(&mut self, node: usize, unregister: bool) {
        self.count("brokers gone for good");
        self.trace.say(self.now, format_args!("node{node}"), format_args!("! it is gone for good"));
        self.nodes[node].presence = Presence::Gone;
        let node = node as u32;
        if unregister {
            self.add_client_as(UNREGISTRAR + node, &self.brokers_left(), Role::Unregistrar { node });
        }
    }

    /// The brokers that are not gone for good.
    pub(super) fn brokers_left(&self) -> Vec<u32> {
        let brokers = self.scenario.cluster.brokers(self.scenario.nodes);
        brokers.filter(|node| !self.nodes[*node as usize].is_gone()).collect()
    }

    /// How a broker stands, if there is an active controller.
    fn standing(&self, node: usize) -> Option<Standing> {
        self.active_metadata().map(|(_, metadata)| Standing::of(node as u32, &metadata))
    }

    /// What the active controller knows of the metadata, and up to where. Of several that take themselves for the active
    /// one, that which knows most.
    fn active_metadata(&self) -> Option<(Offset, Vec<MetadataRecord>)> {
        let brokers = self.nodes.iter().filter_map(|node| Some(&node.process.as_ref()?.broker));
        let active = brokers.filter(|broker| broker.unfenced().is_some());
        active.map(Broker::metadata).max_by_key(|(end, _)| *end)
    }

    /// Whether a request that the node has sent is still under way.
    fn is_still_heard(&self, node: usize) -> bool {
        let opener = End::Node(node as u32);
        let is_from_it = |event: &Event| match event {
            Event::NodeRequest { conn, .. } => End::that_opened(*conn) == opener,
            _ => false,
        };
        self.events.all().chain(self.deferred.iter().flatten()).any(is_from_it)
    }

    /// All nodes that are reached must know how the brokers that are gone stand.
    pub(super) fn look_for_gone_brokers(&mut self) {
        if !self.nodes.iter().any(Node::is_gone) {
            return;
        }
        let is_cut_off = |node: u32| self.scenario.cluster.cut_off.iter().any(|cut_off| cut_off.node == node);
        let reached = self.nodes.iter().filter(|node| !is_cut_off(node.index));
        let running = reached.filter_map(|node| Some((node.index, node.process.as_ref()?.broker.metadata().1)));
        let running: Vec<(u32, Vec<MetadataRecord>)> = running.collect();
        for gone in self.nodes.iter().filter(|node| node.is_gone()) {
            let mut standings = running.iter().map(|(node, metadata)| (node, Standing::of(gone.index, metadata)));
            if let Some((node, standing)) = standings.find(|(_, standing)| !standing.is_right_for(gone.presence)) {
                let text = format!("broker {} is gone for good, and node {node} knows it as {standing:?}", gone.index);
                return self.violate("fencing", text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_core::wire::messages::{PartitionRecord, RegisterBrokerRecord};

    #[test]
    fn a_broker_that_is_gone_is_fenced_or_not_registered_and_has_no_replica() {
        let registered = |fenced| {
            let broker = RegisterBrokerRecord { broker_id: node_id(2).0, fenced, ..RegisterBrokerRecord::default() };
            MetadataRecord::from(broker)
        };
        let replicas = [node_id(2).0].into_iter().collect();
        let of_partition = PartitionRecord { replicas, ..PartitionRecord::default() };
        let is_right = |metadata: &[MetadataRecord]| {
            let standing = Standing::of(2, metadata);
            [Presence::Gone, Presence::Unregistered].map(|presence| standing.is_right_for(presence))
        };
        assert_eq!(is_right(&[]), [false, true]);
        assert_eq!(is_right(&[registered(true)]), [true, false]);
        assert_eq!(is_right(&[registered(false)]), [false, false]);
        assert_eq!(is_right(&[registered(true), of_partition.into()]), [false, false]);
    }
}
