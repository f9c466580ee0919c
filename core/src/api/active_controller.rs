//! The active controller of the cluster. It exists while this node leads the quorum: it is born when the node begins to
//! lead, and dropped when the node resigns.
//!
//! ```text
//! request ─► decision, from the proposed image ─► propose ─► wait ─► finish: the answer
//!                                                              └───► refuse, if the node resigns before the commit
//! ```
//!
//! Proposing, waiting and answering are separate. [`Parts::commit`] proposes the records of a decision and puts what
//! shall happen then into the queue. [`Parts::take_committed`] takes it out when the broker's image has reached the
//! records, and [`Parts::finish`] does it. When the node resigns, nobody knows whether what it has proposed will be
//! committed, so everything that waits is refused.
//!
//! Invariant: the entries of `waiting` are in the order of their offsets.

use crate::api::{AnswerTo, Parts};
use crate::config::BrokerConfig;
use crate::controller::{self, Context, Heartbeats, Image, ImageChange, Registrar};
use crate::ids::{LeaderEpoch, NodeId, Offset};
use crate::io::Outbox;
use crate::quorum::Quorum;
use crate::time::{Mono, Now};
use crate::wire::messages::{BeginTransactionRecord, BrokerHeartbeatRequest, EndTransactionRecord};
use crate::wire::{MetadataRecord, RequestBody, ResponseBody};
use bytes::Bytes;
use std::collections::VecDeque;

/// What to do once the records are committed and applied to the broker's image.
#[derive(Debug)]
pub enum AfterCommit {
    /// Give this response to whoever has sent this request.
    Answer {
        to: AnswerTo,
        request: Box<RequestBody>,
        response: Box<ResponseBody>,
    },
    Nothing,
}

#[derive(Debug)]
pub struct Controller {
    /// The epoch in which this node leads the quorum.
    epoch: LeaderEpoch,
    /// The metadata with all proposals applied, committed or not. The next decision is made from it.
    proposed: Image,
    pub heartbeats: Heartbeats,
    /// What waits for the commit of metadata records. Each has the offset of its last record.
    waiting: VecDeque<(Offset, AfterCommit)>,
}

impl Controller {
    /// `image` is the metadata that is committed. `gone`: see [`Heartbeats::adopt`].
    pub fn new(epoch: LeaderEpoch, image: Image, gone: Option<NodeId>, now: Mono, config: &BrokerConfig) -> Self {
        let heartbeats = Heartbeats::adopt(&image, gone, now, config.broker_session_timeout_ms.into(), config.plants);
        Self { epoch, proposed: image, heartbeats, waiting: VecDeque::new() }
    }

    pub fn proposed(&self) -> &Image {
        &self.proposed
    }

    /// The context of a decision that is made from the proposed image.
    pub fn context<'a>(&'a self, config: &'a BrokerConfig) -> Context<'a> {
        Context { node_id: config.node_id, layers: self.proposed.layers(config) }
    }

    /// With what this controller registers a broker. `next_offset` is the end of the metadata log.
    pub fn registrar<'a>(
        &'a self,
        config: &'a BrokerConfig,
        cluster_id: &'a str,
        kraft_version: i16,
        now: Mono,
        next_offset: Offset,
    ) -> Registrar<'a> {
        let (context, heartbeats) = (self.context(config), &self.heartbeats);
        Registrar { context, cluster_id, kraft_version, heartbeats, now, next_offset }
    }

    /// Asserts the invariants.
    pub fn verify(&self, quorum: &Quorum) {
        assert!(quorum.is_leading() && self.epoch == quorum.epoch(), "a controller ends with the leadership");
        assert!(self.waiting.iter().is_sorted_by_key(|(last, _)| *last));
        self.heartbeats.verify(&self.proposed);
    }
}

impl Parts {
    /// Proposes the records of a decision, and does `after` once they are committed. A decision without records waits
    /// too: for the commit of all earlier proposals, which it was made from. An answer must not tell of a proposal that
    /// a crash can still undo.
    pub fn commit(&mut self, now: Now, records: Vec<MetadataRecord>, after: AfterCommit, out: &mut Outbox) {
        if !self.quorum().is_leading() {
            // What the quorum has told before it tells that this node resigned has led to this decision.
            return self.refuse(now, after, out);
        }
        if !records.is_empty() {
            if let Some(last) = self.propose(now, records, out) {
                self.active_mut().waiting.push_back((last, after));
            }
            return;
        }
        match self.active_mut().waiting.back() {
            Some((last, _)) => {
                let last = *last;
                self.active_mut().waiting.push_back((last, after));
            }
            None => self.finish(after, out),
        }
    }

    /// Proposes records, all of them or none. Gives the offset of the last. There is none if the metadata log cannot be
    /// written. Then `QuorumEvent::Failed` ends the broker, so there is nobody to answer.
    fn propose(&mut self, now: Now, mut records: Vec<MetadataRecord>, out: &mut Outbox) -> Option<Offset> {
        let controller = self.controller.as_mut().expect("only a controller proposes");
        for record in &records {
            let changes = controller.proposed.apply(record).expect("a decision fits the image that it was made from");
            for change in changes {
                if let ImageChange::PartitionChanged(topic, index, Some(before)) = change {
                    let after = controller.proposed.partition(topic, index).expect("it was changed");
                    self.elections.count(&before, after);
                }
            }
        }
        let version = controller.proposed.metadata_version();
        let encode = |record: &MetadataRecord| controller::records::encode(record, version);
        let mut values: Vec<Bytes> = records.iter().map(encode).collect();
        if controller::records::has_transactions(version) && !self.quorum().fits_one_batch(&values) {
            // KIP-868: the records take several batches, and a transaction makes sure that a crash leaves all of them
            // or none.
            let (begin, end) = (BeginTransactionRecord::default().into(), EndTransactionRecord::default().into());
            values.insert(0, encode(&begin));
            values.push(encode(&end));
            records.insert(0, begin);
            records.push(end);
        }
        let base = self.quorum().log().expect("a leader has a log").log_end_offset();
        for (place, record) in (0..).zip(&records) {
            self.active_mut().heartbeats.applied(record, base + place);
        }
        self.quorum().propose(now, records, &values, out).ok()
    }

    /// What a decision is made from. There must be a controller.
    pub fn basis(&self) -> (&Image, Context<'_>) {
        let controller = self.controller.as_ref().expect("only a controller decides");
        (controller.proposed(), controller.context(&self.config))
    }

    fn active_mut(&mut self) -> &mut Controller {
        self.controller.as_mut().expect("only a controller proposes")
    }

    /// A heartbeat is decided and proposed. If its broker is in a controlled shutdown now, the records that move the
    /// leaders away are at the end of the metadata log.
    pub fn heartbeat_proposed(&mut self, heartbeat: &BrokerHeartbeatRequest) {
        let end = self.quorum().log().expect("a leader has a log").log_end_offset();
        let controller = self.active_mut();
        let id = NodeId(heartbeat.broker_id);
        let broker = controller.proposed.broker(id).filter(|broker| broker.broker_epoch == heartbeat.broker_epoch);
        if heartbeat.want_shut_down && broker.is_some_and(|broker| broker.in_controlled_shutdown && !broker.fenced) {
            controller.heartbeats.shuts_down(id, end + -1);
        }
    }

    /// Takes out what waited for records that are committed now.
    pub fn take_committed(&mut self) -> Vec<AfterCommit> {
        let Some(controller) = &mut self.controller else { return Vec::new() };
        let done = controller.waiting.partition_point(|(last, _)| *last < self.committed);
        controller.waiting.drain(..done).map(|(_, after)| after).collect()
    }

    pub fn finish(&mut self, after: AfterCommit, out: &mut Outbox) {
        match after {
            AfterCommit::Answer { to, response, .. } => self.answer_to(to, *response, out),
            AfterCommit::Nothing => {}
        }
    }

    /// This node does not lead the quorum any more: drops the controller, and refuses everything that waits for it.
    pub fn resign(&mut self, now: Now, out: &mut Outbox) {
        let Some(controller) = self.controller.take() else { return };
        for (_, after) in controller.waiting {
            self.refuse(now, after, out);
        }
    }

    fn refuse(&mut self, now: Now, after: AfterCommit, out: &mut Outbox) {
        match after {
            AfterCommit::Answer { to, request, .. } => self.not_controller(now, to, *request, out),
            AfterCommit::Nothing => {}
        }
    }
}
