//! The clean stop of a broker: it closes the logs, then the metadata, then writes the checkpoints, and last the
//! clean-shutdown marker.

use super::{Broker, Phase};
use crate::api::{self, AfterCommit, Controller, PendingRequest};
use crate::controller;
use crate::ids::LogId;
use crate::io::{Level, Outbox, Output};
use crate::probe::Probe;
use crate::storage::CheckpointKind;
use crate::time::Now;
use std::collections::BTreeSet;

impl Broker {
    pub(super) fn stop(&mut self, now: Now, out: &mut Outbox) {
        match self.phase {
            Phase::Running => {}
            Phase::ClosingLogs(_) | Phase::LeavingCluster | Phase::ClosingMetadata | Phase::ClosingDirectories => {
                return;
            }
            // The broker has not started yet: it has promised nothing to anyone, and the next start finds what this
            // start has found.
            _ => return self.stopped(now, out),
        }
        self.stop_began = Some(now.mono);
        self.timers.stop();
        self.parts.stopping = true;
        for (id, pending) in self.parts.pending.take_fetches() {
            if let PendingRequest::Fetch(fetch) = pending {
                out.probe(Probe::StopAnswersFetches);
                api::fetch::expire(&mut self.parts, now, id, fetch, out);
            }
        }
        let open: Vec<LogId> = self.parts.partitions.log_ids().collect();
        let mut closing = BTreeSet::new();
        for log in open {
            if let Some(partition) = self.parts.partitions.get_mut(log)
                && partition.close(out)
            {
                closing.insert(log);
            }
        }
        self.phase = Phase::ClosingLogs(closing);
        self.logs_closed(now, out);
    }

    /// A log is closed, or has failed and will never be.
    pub(super) fn log_closed(&mut self, now: Now, log: LogId, out: &mut Outbox) {
        if let Phase::ClosingLogs(open) = &mut self.phase {
            open.remove(&log);
            self.logs_closed(now, out);
        }
    }

    pub(super) fn logs_closed(&mut self, now: Now, out: &mut Outbox) {
        let is_idle = self.parts.controller.as_ref().is_none_or(Controller::is_idle);
        if let Phase::ClosingLogs(open) = &self.phase
            && open.is_empty()
            && is_idle
        {
            self.phase = Phase::LeavingCluster;
            if self.parts.controller.is_some() {
                // The metadata records that this broker is gone. So the next start, by Kafka's own broker too, need not
                // wait until a session has run out.
                let (node, epoch) = (self.parts.config.node_id, self.parts.broker_epoch);
                let goodbye = vec![controller::shut_down_broker(node, epoch)];
                return self.parts.commit(now, goodbye, AfterCommit::Nothing, out);
            }
        }
        if matches!(self.phase, Phase::LeavingCluster) && is_idle {
            self.phase = Phase::ClosingMetadata;
            self.resigned(now, out);
            let events = self.parts.quorum().close(now, out);
            self.quorum_events(now, events, out);
        }
    }

    pub(super) fn metadata_closed(&mut self, now: Now, out: &mut Outbox) {
        self.phase = Phase::ClosingDirectories;
        for kind in CheckpointKind::ALL {
            self.parts.checkpoint(kind, out);
        }
        let events = self.parts.dirs.stop(Some(self.parts.broker_epoch), out);
        self.dir_events(now, events, out);
    }

    pub(super) fn stopped(&mut self, now: Now, out: &mut Outbox) {
        let offline: Vec<&str> =
            self.parts.dirs.paths().filter(|(dir, _)| !self.parts.dirs.is_online(*dir)).map(|(_, path)| path).collect();
        let ms = self.stop_began.map(|began| now.mono.since(began).as_millis());
        let (level, text) = match ms {
            None => (Level::Info, "stopped before the broker had come up".to_owned()),
            Some(ms) if offline.is_empty() => (Level::Info, format!("stopped cleanly in {ms} ms")),
            Some(ms) => {
                let text =
                    format!("stopped in {ms} ms; the next start recovers {}, which is offline", offline.join(", "));
                (Level::Warn, text)
            }
        };
        out.event(level, "broker", text);
        self.phase = Phase::Ended;
        out.outputs.push(Output::Stopped);
    }
}
