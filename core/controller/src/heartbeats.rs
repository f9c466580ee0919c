//! The brokers' sessions, as the active controller knows them (KIP-631): when each broker was last heard of, and how far
//! it has applied the metadata.
//!
//! None of this is in the metadata log. So a new active controller begins with the brokers that it finds registered, and
//! gives each of them a whole session from now on (KAFKA-18138). Brokers that are fenced get none: they lose nothing
//! without one, and a new incarnation of them need not wait for its end.
//!
//! Invariants: a broker has an entry exactly while it is registered; `ends` holds exactly the ends of the sessions.

use super::image::Image;
use std::collections::{BTreeMap, BTreeSet};
use tidelog_config::plant::{Plant, Plants};
use tidelog_wire::MetadataRecord;
use tidelog_wire::ids::{NodeId, Offset};
use tidelog_wire::messages::BrokerHeartbeatRequest;
use tidelog_wire::time::Mono;

/// The sessions of all registered brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeats {
    /// `broker.session.timeout.ms`
    session_timeout_ms: i64,
    brokers: BTreeMap<NodeId, Session>,
    ends: BTreeSet<(Mono, NodeId)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    broker_epoch: i64,
    /// The offset of the broker's registration. A broker that has applied less does not know that it is registered.
    registered_at: Offset,
    /// When the session ends, if nothing is heard of the broker before. None before the first heartbeat, and when the
    /// session has ended.
    ends_at: Option<Mono>,
    /// How far the broker has applied the metadata; -1 before it has said so.
    metadata_offset: i64,
    /// A broker in a controlled shutdown may end once every active broker has applied the metadata up to this offset:
    /// it moves the leaders away from the broker.
    controlled_shutdown_offset: Option<Offset>,
}

/// What a broker may do, as the controller tells it by its heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerState {
    /// Its replicas are not in sync, and clients do not see it.
    Fenced,
    Unfenced,
    /// It serves until its leaders have moved away.
    ControlledShutdown,
    ShutdownNow,
}

impl BrokerState {
    pub fn is_fenced(self) -> bool {
        matches!(self, Self::Fenced | Self::ShutdownNow)
    }
}

impl Heartbeats {
    /// The sessions with which a new active controller begins, at `now`. `gone` is a broker that is known not to run: the
    /// earlier incarnation of the controller's own node.
    pub fn adopt(image: &Image, gone: Option<NodeId>, now: Mono, session_timeout_ms: i64, plants: Plants) -> Self {
        let mut this = Self { session_timeout_ms, brokers: BTreeMap::new(), ends: BTreeSet::new() };
        for broker in image.brokers() {
            let id = NodeId(broker.broker_id);
            this.registered(id, broker.broker_epoch, Offset(broker.broker_epoch));
            if !broker.fenced && gone != Some(id) && !plants.has(Plant::AdoptsNoBroker) {
                this.heard(id, broker.broker_epoch, now);
            }
        }
        this
    }

    /// The controller's image contains this record from now on, which has this offset.
    pub fn applied(&mut self, record: &MetadataRecord, offset: Offset) {
        match record {
            MetadataRecord::RegisterBroker(broker) => {
                self.registered(NodeId(broker.broker_id), broker.broker_epoch, offset);
            }
            MetadataRecord::UnregisterBroker(broker) => {
                let id = NodeId(broker.broker_id);
                self.end_session(id);
                self.brokers.remove(&id);
            }
            _ => {}
        }
    }

    /// A broker was registered: newly, or again by the same incarnation, which keeps its epoch and its session.
    fn registered(&mut self, id: NodeId, broker_epoch: i64, at: Offset) {
        if let Some(session) = self.brokers.get_mut(&id).filter(|session| session.broker_epoch == broker_epoch) {
            session.registered_at = at;
            return;
        }
        self.end_session(id);
        let session = Session {
            broker_epoch,
            registered_at: at,
            ends_at: None,
            metadata_offset: -1,
            controlled_shutdown_offset: None,
        };
        self.brokers.insert(id, session);
    }

    /// A broker of this epoch has sent something. A broker of an earlier epoch prolongs no session.
    pub fn heard(&mut self, id: NodeId, broker_epoch: i64, now: Mono) {
        if let Some(session) = self.brokers.get_mut(&id).filter(|session| session.broker_epoch == broker_epoch) {
            let end = now.plus_ms(self.session_timeout_ms);
            if let Some(before) = session.ends_at.replace(end) {
                self.ends.remove(&(before, id));
            }
            self.ends.insert((end, id));
        }
    }

    fn end_session(&mut self, id: NodeId) {
        if let Some(end) = self.brokers.get_mut(&id).and_then(|session| session.ends_at.take()) {
            self.ends.remove(&(end, id));
        }
    }

    /// A heartbeat was decided: the broker is in `state` from now on. A broker that was told to shut down has no session
    /// any more, so its next incarnation need not wait for the end of one (KAFKA-19047).
    pub fn decided(&mut self, request: &BrokerHeartbeatRequest, state: BrokerState) {
        let id = NodeId(request.broker_id);
        let Some(session) = self.brokers.get_mut(&id) else { return };
        session.metadata_offset = request.current_metadata_offset;
        if state.is_fenced() {
            session.controlled_shutdown_offset = None;
        }
        if state == BrokerState::ShutdownNow {
            self.end_session(id);
        }
    }

    /// `last` is the offset of the last record that moves the leaders away from a broker in a controlled shutdown. The
    /// first such offset stays, because no leader comes to the broker after it.
    pub fn shuts_down(&mut self, id: NodeId, last: Offset) {
        if let Some(session) = self.brokers.get_mut(&id) {
            session.controlled_shutdown_offset.get_or_insert(last);
        }
    }

    pub fn has_session(&self, id: NodeId, now: Mono) -> bool {
        self.brokers.get(&id).and_then(|session| session.ends_at).is_some_and(|end| now <= end)
    }

    /// After which moment the next session has ended, if nothing is heard of its broker before.
    pub fn deadline(&self) -> Option<Mono> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Ends one session that has run out. The caller fences its broker, so that the next is decided from what has become
    /// of the first.
    pub fn take_expired(&mut self, now: Mono) -> Option<NodeId> {
        let (_, id) = self.ends.first().copied().filter(|(end, _)| *end < now)?;
        self.end_session(id);
        let session = self.brokers.get_mut(&id).expect("a broker with a session has an entry");
        session.controlled_shutdown_offset = None;
        Some(id)
    }

    /// Whether the broker knows that it is registered, and so knows most of the metadata.
    pub fn is_caught_up(&self, request: &BrokerHeartbeatRequest) -> bool {
        let session = self.brokers.get(&NodeId(request.broker_id));
        session.is_some_and(|session| request.current_metadata_offset >= session.registered_at.0)
    }

    /// The present state of a broker that is registered, and its next one, which follows from what it asks for. `leads`:
    /// whether the broker leads a partition.
    pub fn next_state(
        &self,
        image: &Image,
        request: &BrokerHeartbeatRequest,
        leads: impl FnOnce() -> bool,
    ) -> (BrokerState, BrokerState) {
        use BrokerState::{ControlledShutdown, Fenced, ShutdownNow, Unfenced};
        let id = NodeId(request.broker_id);
        let shutdown_offset = self.brokers.get(&id).and_then(|session| session.controlled_shutdown_offset);
        let is_fenced = image.broker(id).is_none_or(|broker| broker.fenced);
        if let Some(moved) = shutdown_offset {
            let may_end = !leads() && moved.0 <= self.lowest_active_offset(image);
            return (ControlledShutdown, if may_end { ShutdownNow } else { ControlledShutdown });
        }
        let next = match (is_fenced, request.want_fence, request.want_shut_down) {
            (true, _, true) | (false, true, true) => ShutdownNow,
            (true, false, false) if self.is_caught_up(request) => Unfenced,
            (true, ..) | (false, true, false) => Fenced,
            (false, false, true) if leads() => ControlledShutdown,
            (false, false, true) => ShutdownNow,
            (false, false, false) => Unfenced,
        };
        (if is_fenced { Fenced } else { Unfenced }, next)
    }

    /// How far all active brokers have applied the metadata.
    fn lowest_active_offset(&self, image: &Image) -> i64 {
        let is_active = |id: &NodeId, session: &Session| {
            session.controlled_shutdown_offset.is_none() && image.broker(*id).is_some_and(|broker| !broker.fenced)
        };
        let active = self.brokers.iter().filter(|(id, session)| is_active(id, session));
        active.map(|(_, session)| session.metadata_offset).min().unwrap_or(i64::MAX)
    }

    /// Asserts that the brokers with an entry are those that are registered in the image of the controller.
    pub fn verify(&self, image: &Image) {
        let known = self.brokers.iter().map(|(id, session)| (id.0, session.broker_epoch));
        assert!(
            known.eq(image.brokers().map(|broker| (broker.broker_id, broker.broker_epoch))),
            "a broker has an entry exactly while it is registered: {self:?}"
        );
        let mut ends: Vec<_> = self.brokers.iter().filter_map(|(id, session)| Some((session.ends_at?, *id))).collect();
        ends.sort_unstable();
        assert!(self.ends.iter().copied().eq(ends), "`ends` holds exactly the ends of the sessions: {self:?}");
    }
}
