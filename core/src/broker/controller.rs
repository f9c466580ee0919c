//! What a node does as a member of the quorum: the quorum's events, and the birth and the end of the active controller.

use super::{Broker, Lowering, Phase, Timer};
use crate::api::{self, AfterCommit, Controller};
use crate::controller::{self, Decision, Image};
use crate::ids::{LeaderEpoch, LogDirId, LogId};
use crate::io::{IoCompletion, Level, Outbox, Part};
use crate::quorum::QuorumEvent;
use crate::time::Now;
use crate::wire::MetadataRecord;
use crate::wire::messages::{AbortTransactionRecord, NoOpRecord};
use bytes::Bytes;

/// The pause before the next elections of which there are too many for one decision, as in Kafka.
const ELECTIONS_PAUSE_MS: i64 = 10;

impl Broker {
    pub(super) fn quorum_io(&mut self, now: Now, completion: IoCompletion, out: &mut Outbox) {
        let events = self.parts.quorum().handle_io(now, completion, out);
        self.quorum_events(now, events, out);
        self.serve_as_controller(out);
    }

    /// Acts on what the quorum has told when it was given a request or a proposal.
    pub(super) fn quorum_told(&mut self, now: Now, out: &mut Outbox) {
        let events = self.parts.quorum_requests.take_events();
        if !events.is_empty() {
            self.quorum_events(now, events, out);
        }
    }

    /// Acts on what the quorum tells, after each call of it that takes the time.
    pub(super) fn quorum_events(&mut self, now: Now, events: Vec<QuorumEvent>, out: &mut Outbox) {
        self.watch_quorum(now);
        for event in events {
            if matches!(self.phase, Phase::Ended) {
                // What is committed behind a record that could not be applied would be applied without that record.
                return;
            }
            match event {
                QuorumEvent::Committed { end, records } => self.committed(now, end, records, out),
                QuorumEvent::SnapshotLoaded { end, records } => match Image::from_records(&records) {
                    Ok(image) => self.image_loaded(now, end, image, out),
                    Err(error) => self.fatal(error.to_string(), out),
                },
                QuorumEvent::Leading { epoch, bootstrap } => self.leading(now, epoch, bootstrap, out),
                QuorumEvent::Resigned => self.resigned(now, out),
                QuorumEvent::LeaderChanged { leader, .. } => {
                    leader.into_iter().for_each(|node| self.parts.channel.controller_is(node));
                }
                QuorumEvent::Answer(id, body) => api::quorum::answered(&mut self.parts, id, *body, out),
                QuorumEvent::RecoveryPointTooHigh => {
                    let dir = self.parts.quorum().log().expect("a log is cut").place().dir;
                    self.lower_recovery_point(now, dir, None, out);
                }
                QuorumEvent::SnapshotDue => self.snapshot_if_due(now, out),
                QuorumEvent::Closed => self.metadata_closed(now, out),
                QuorumEvent::Failed(reason) => self.fatal(reason, out),
            }
        }
        self.watch_idleness(now);
    }

    /// This node leads the quorum now: its controller is born, and brings the cluster's metadata up to date.
    pub(crate) fn leading(
        &mut self,
        now: Now,
        epoch: LeaderEpoch,
        bootstrap: Option<Vec<MetadataRecord>>,
        out: &mut Outbox,
    ) {
        // Until this node's broker has registered, the one that is registered under its id does not run any more.
        let gone = (!self.life.is_registered()).then_some(self.parts.config.node_id);
        let image = self.parts.image.clone();
        self.parts.controller = Some(Controller::new(epoch, image, gone, now.mono, &self.parts.config));
        if self.parts.image.in_transaction() {
            // KIP-868: the controller that began this transaction crashed before its end.
            let abort = AbortTransactionRecord::default();
            self.parts.commit(now, vec![abort.into()], AfterCommit::Nothing, out);
        }
        let bootstrap = bootstrap.or_else(|| {
            let is_unborn = self.parts.image.metadata_version() == 0;
            is_unborn.then(controller::bootstrap_features)
        });
        if let Some(features) = bootstrap {
            let records = controller::bootstrap_records(&self.parts.basis().1, features);
            self.parts.commit(now, records, AfterCommit::Nothing, out);
        }
        self.watch_sessions();
        self.watch_elections(now);
    }

    /// This node does not lead the quorum any more, or is about to close it.
    pub(crate) fn resigned(&mut self, now: Now, out: &mut Outbox) {
        self.parts.resign(now, out);
        self.watch_sessions();
        self.watch_elections(now);
    }

    /// The log of a partition, or the metadata log, is about to be cut: the checkpoint must not say that what is cut was on
    /// stable storage.
    pub(super) fn lower_recovery_point(&mut self, now: Now, dir: LogDirId, log: Option<LogId>, out: &mut Outbox) {
        let writes = self.parts.checkpoint_dir(dir, out);
        self.lowering.push(Lowering { dir, writes, log });
        self.recovery_point_written(now, dir, out);
    }

    pub(super) fn recovery_point_written(&mut self, now: Now, dir: LogDirId, out: &mut Outbox) {
        let dirs = &self.parts.dirs;
        let is_written = |lowering: &mut Lowering| lowering.dir == dir && dirs.has_written(dir, lowering.writes);
        let written: Vec<Lowering> = self.lowering.extract_if(.., is_written).collect();
        for Lowering { log, .. } in written {
            match log.map(|log| self.parts.partitions.get_mut(log)) {
                Some(Some(partition)) => partition.recovery_point_lowered(out),
                Some(None) => {}
                None => {
                    let events = self.parts.quorum().recovery_point_lowered(now, out);
                    self.quorum_events(now, events, out);
                }
            }
        }
    }

    fn watch_quorum(&mut self, now: Now) {
        let mut deadline = self.parts.quorum().deadline(now);
        if self.parts.image.in_transaction() {
            // A snapshot that is due waits for the end of the transaction. The timer must lie in the future, or the loop of
            // the timers would not end.
            deadline = deadline.map(|at| at.max(now.mono.plus_ms(1)));
        }
        self.timers.set(Timer::Quorum, deadline);
    }

    pub(super) fn snapshot_if_due(&mut self, now: Now, out: &mut Outbox) {
        if self.parts.quorum().snapshot_due(now.mono) {
            self.take_snapshot(now, out);
        }
    }

    /// Takes a snapshot, unless the metadata is in the middle of a transaction (KIP-868): what the transaction has brought so
    /// far is in no image, and whoever begins with the snapshot would miss it. The quorum says that one is due after every
    /// input until there is one.
    pub(super) fn take_snapshot(&mut self, now: Now, out: &mut Outbox) {
        if self.parts.image.in_transaction() {
            return;
        }
        let version = self.parts.image.metadata_version();
        let records = self.parts.image.to_records();
        let values: Vec<Bytes> = records.iter().map(|record| controller::records::encode(record, version)).collect();
        let end = self.parts.committed;
        self.parts.quorum().snapshot(now, end, &values, out);
    }

    /// Writes a record that says nothing (KIP-835). The other nodes see by it that the controller can still commit, and how
    /// far behind they are.
    pub(super) fn show_that_the_controller_lives(&mut self, now: Now, out: &mut Outbox) {
        if self.parts.controller.is_some() {
            self.parts.commit(now, vec![NoOpRecord::default().into()], AfterCommit::Nothing, out);
        }
        self.watch_idleness(now);
    }

    /// Sets the timer for the next record that says nothing, if there is another node to see it. A lone node would write
    /// and sync for nobody.
    fn watch_idleness(&mut self, now: Now) {
        let interval_ms = i64::from(self.parts.config.metadata_max_idle_interval_ms);
        let is_seen = self.parts.controller.is_some() && self.parts.quorum().is_replicated();
        match is_seen && interval_ms > 0 {
            true => self.timers.start_one(Timer::Idle, now.mono.plus_ms(interval_ms)),
            false => self.timers.set(Timer::Idle, None),
        }
    }

    /// Fences the brokers of which nothing was heard for too long.
    pub(super) fn fence_silent_brokers(&mut self, now: Now, out: &mut Outbox) {
        while let Some(active) = &mut self.parts.controller
            && let Some(id) = active.heartbeats.take_expired(now.mono)
        {
            let records = controller::fence_silent_broker(active.proposed(), &active.context(&self.parts.config), id);
            out.event(Level::Warn, Part::Broker, format!("broker {id} is fenced: its session has ended"));
            self.parts.commit(now, records, AfterCommit::Nothing, out);
        }
        self.watch_sessions();
    }

    /// Elects leaders of which nobody has to remind the controller.
    pub(super) fn elect_leaders_unasked(&mut self, now: Now, timer: Timer, out: &mut Outbox) {
        let (image, context) = self.parts.basis();
        let Decision { records, response: has_more } = match timer {
            Timer::PreferredElections => controller::elect_preferred_leaders(image, &context),
            _ => controller::elect_unclean_leaders(image, &context),
        };
        if !records.is_empty() {
            self.parts.commit(now, records, AfterCommit::Nothing, out);
        }
        let pause_ms = if has_more { Some(ELECTIONS_PAUSE_MS) } else { self.election_interval_ms(timer) };
        self.timers.set(timer, pause_ms.map(|ms| now.mono.plus_ms(ms)));
    }

    /// Sets the timers for elections that nobody asks for, while this node is the active controller.
    fn watch_elections(&mut self, now: Now) {
        for timer in [Timer::PreferredElections, Timer::UncleanElections] {
            let interval_ms = self.election_interval_ms(timer).filter(|_| self.parts.controller.is_some());
            self.timers.set(timer, interval_ms.map(|ms| now.mono.plus_ms(ms)));
        }
    }

    fn election_interval_ms(&self, timer: Timer) -> Option<i64> {
        let config = &self.parts.config;
        match timer {
            Timer::PreferredElections => config
                .auto_leader_rebalance_enable
                .then(|| config.leader_imbalance_check_interval_seconds.saturating_mul(1_000)),
            _ => Some(config.unclean_leader_election_interval_ms),
        }
    }

    /// Sets the timer for the end of the next session. Heartbeats, which are requests, move it.
    pub(super) fn watch_sessions(&mut self) {
        let deadline = self.parts.controller.as_ref().and_then(|active| active.heartbeats.deadline());
        self.timers.set(Timer::Sessions, deadline.map(|end| end.plus_ms(1)));
    }
}
