//! The clean stop of a broker: it leaves its cluster, then closes the logs, then the metadata, then writes the
//! checkpoints, and last the clean-shutdown marker.

use super::{Broker, Phase};
use crate::api::{self, PendingRequest};
use crate::ids::LogId;
use crate::io::{Level, Outbox, Output, Part};
use crate::probe::Probe;
use crate::storage::CheckpointKind;
use crate::time::Now;
use std::collections::BTreeSet;

impl Broker {
    pub(super) fn stop(&mut self, now: Now, out: &mut Outbox) {
        match self.phase {
            Phase::Running => {}
            Phase::LeavingCluster | Phase::ClosingLogs(_) | Phase::ClosingMetadata | Phase::ClosingDirectories => {
                return;
            }
            // The broker has not started yet: it has promised nothing to anyone, and the next start finds what this
            // start has found.
            _ => return self.stopped(now, out),
        }
        self.stop_began = Some(now.mono);
        self.phase = Phase::LeavingCluster;
        self.leave(now, out);
    }

    /// Nobody needs this broker any more: closes its logs.
    pub(super) fn close_logs(&mut self, now: Now, out: &mut Outbox) {
        out.outputs.extend(self.listeners(false).map(Output::Drain));
        self.timers.stop();
        self.parts.stopping = true;
        self.parts.channel.close();
        self.fetchers.clear();
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

    fn logs_closed(&mut self, now: Now, out: &mut Outbox) {
        if let Phase::ClosingLogs(open) = &self.phase
            && open.is_empty()
        {
            self.phase = Phase::ClosingMetadata;
            self.resigned(now, out);
            let events = self.parts.quorum().close(now, out);
            self.quorum_events(now, events, out);
        }
    }

    pub(super) fn metadata_closed(&mut self, now: Now, out: &mut Outbox) {
        out.outputs.extend(self.listeners(true).map(Output::Drain));
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
        out.event(level, Part::Broker, text);
        self.phase = Phase::Ended;
        out.outputs.push(Output::Stopped);
    }
}
