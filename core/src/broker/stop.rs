//! Going down cleanly: logs, then metadata, then the checkpoints, and the clean-shutdown marker last of all.

use super::{Broker, Life};
use crate::api::{self, AfterCommit, Pending};
use crate::controller;
use crate::ids::LogId;
use crate::io::{Outbox, Output};
use crate::probe::Probe;
use crate::storage::CheckpointKind;
use crate::time::Now;
use std::collections::BTreeSet;

impl Broker {
    pub(super) fn stop(&mut self, now: Now, out: &mut Outbox) {
        match self.life {
            Life::Running => {}
            Life::ClosingLogs(_) | Life::LeavingCluster | Life::ClosingMetadata | Life::ClosingDirectories => return,
            // Not up yet: nothing was promised to anyone, and the next start finds what this one found.
            _ => return self.stopped(out),
        }
        self.timers.stop();
        self.parts.stopping = true;
        for (id, pending) in self.parts.pending.take_fetches() {
            if let Pending::Fetch(fetch) = pending {
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
        self.life = Life::ClosingLogs(closing);
        self.logs_closed(now, out);
    }

    /// The log is closed, or will never be.
    pub(super) fn log_closed(&mut self, now: Now, log: LogId, out: &mut Outbox) {
        if let Life::ClosingLogs(open) = &mut self.life {
            open.remove(&log);
            self.logs_closed(now, out);
        }
    }

    pub(super) fn logs_closed(&mut self, now: Now, out: &mut Outbox) {
        if let Life::ClosingLogs(open) = &self.life
            && open.is_empty()
            && self.parts.commits.is_empty()
        {
            // The controller learns that this broker is gone, so that the next life, of Kafka's own broker too,
            // need not wait for a session to run out.
            self.life = Life::LeavingCluster;
            let (node, epoch) = (self.parts.config.node_id, self.parts.broker_epoch);
            let goodbye = vec![controller::shut_down_broker(node, epoch)];
            self.parts.commit(now, goodbye, AfterCommit::Nothing, out);
        } else if matches!(self.life, Life::LeavingCluster) && self.parts.commits.is_empty() {
            self.life = Life::ClosingMetadata;
            self.parts.quorum().close(out);
        }
    }

    pub(super) fn metadata_closed(&mut self, now: Now, out: &mut Outbox) {
        self.life = Life::ClosingDirectories;
        for kind in CheckpointKind::ALL {
            self.parts.checkpoint(kind, out);
        }
        let events = self.parts.dirs.stop(Some(self.parts.broker_epoch), out);
        self.dir_events(now, events, out);
    }

    pub(super) fn stopped(&mut self, out: &mut Outbox) {
        self.life = Life::Ended;
        out.outputs.push(Output::Stopped);
    }
}
