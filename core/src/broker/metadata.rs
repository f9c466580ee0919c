//! What committed metadata means for this broker: partitions to open, to configure and to delete.

use super::{Broker, Life};
use crate::api::AfterCommit;
use crate::buggify::Site;
use crate::controller;
use crate::ids::{LogId, Offset, Uuid};
use crate::io::{IoCompletion, Outbox, Output};
use crate::probe::Probe;
use crate::quorum::QuorumEvent;
use crate::replication::PartitionEvent;
use crate::storage::TopicPartition;
use crate::time::Now;
use crate::wire::MetadataRecord;
use crate::wire::messages::AbortTransactionRecord;
use bytes::Bytes;
use std::collections::BTreeSet;

/// `ConfigResource.Type` of a topic in a config record.
const TOPIC_RESOURCE: i8 = 2;

impl Broker {
    pub(super) fn quorum_io(&mut self, now: Now, completion: IoCompletion, out: &mut Outbox) {
        for event in self.parts.quorum().handle_io(now, completion, out) {
            match event {
                QuorumEvent::Committed { end, records } => self.committed(now, end, records, out),
                QuorumEvent::Leading { bootstrap } => self.leading(now, bootstrap, out),
                QuorumEvent::SnapshotDue => self.snapshot_if_due(now, out),
                QuorumEvent::Closed => self.metadata_closed(now, out),
                QuorumEvent::Failed(reason) => self.fatal(reason, out),
            }
        }
    }

    /// This node leads the quorum: bring the cluster's metadata and this broker's registration up to date.
    fn leading(&mut self, now: Now, bootstrap: Option<Vec<MetadataRecord>>, out: &mut Outbox) {
        self.parts.proposed = self.parts.image.clone();
        if self.parts.image.in_transaction() {
            // KIP-868: whoever began it did not come to its end.
            let abort = AbortTransactionRecord::default();
            self.parts.commit(now, vec![abort.into()], AfterCommit::Nothing, out);
        }
        let bootstrap = bootstrap.or_else(|| {
            let is_unborn = self.parts.proposed.metadata_version() == 0;
            is_unborn.then(controller::bootstrap_features)
        });
        if let Some(features) = bootstrap {
            let records = controller::bootstrap_records(&self.parts.controller_context(), features);
            self.parts.commit(now, records, AfterCommit::Nothing, out);
        }
        let features = self.parts.proposed.features().iter().map(|(name, level)| (&**name, *level));
        if let Err(reason) = controller::records::check_features(features) {
            return self.fatal(format!("this directory's cluster cannot be served: {reason}"), out);
        }
        let start = self.parts.broker_start();
        let node = start.node_id;
        if controller::records::registers_controllers(self.parts.proposed.metadata_version()) {
            self.parts.commit(now, vec![controller::register_controller(&start)], AfterCommit::Nothing, out);
        }
        let epoch = self.parts.quorum().log().expect("a leader has a log").log_end_offset();
        self.parts.commit(now, vec![controller::register_broker(&start, epoch)], AfterCommit::Nothing, out);
        let mut records = vec![controller::unfence_broker(node, epoch.0)];
        records.extend(controller::claim_partitions(&self.parts.proposed, node));
        self.parts.commit(now, records, AfterCommit::Registered { broker_epoch: epoch.0 }, out);
    }

    pub(super) fn snapshot_if_due(&mut self, now: Now, out: &mut Outbox) {
        if self.parts.quorum().snapshot_due(now.mono) {
            self.take_snapshot(now, out);
        }
    }

    fn take_snapshot(&mut self, now: Now, out: &mut Outbox) {
        let version = self.parts.image.metadata_version();
        let records = self.parts.image.to_records();
        let values: Vec<Bytes> = records.iter().map(|record| controller::records::encode(record, version)).collect();
        let end = self.parts.committed;
        self.parts.quorum().snapshot(now, end, &values, out);
    }

    fn committed(&mut self, now: Now, end: Offset, records: Vec<MetadataRecord>, out: &mut Outbox) {
        let (mut opened, mut changed, mut deleted) = (Vec::new(), Vec::new(), Vec::new());
        let mut configured = BTreeSet::new();
        for record in &records {
            match record {
                MetadataRecord::Partition(record) => {
                    out.probe(Probe::TopicCreated);
                    opened.push((record.topic_id, record.partition_id));
                }
                MetadataRecord::PartitionChange(record) => {
                    changed.push((record.topic_id, record.partition_id));
                }
                MetadataRecord::RemoveTopic(record) => deleted.push(record.topic_id),
                MetadataRecord::Config(record) if record.resource_type == TOPIC_RESOURCE => {
                    configured.insert(Some(record.resource_name.clone()));
                }
                MetadataRecord::Config(_) => {
                    configured.insert(None);
                }
                _ => {}
            }
            if let Err(error) = self.parts.image.apply(record) {
                // Half of the metadata is worse than none (KAFKA-14275).
                return self.fatal(error.to_string(), out);
            }
        }
        self.parts.committed = end;
        if matches!(self.life, Life::Logs(_) | Life::Running) {
            for topic in deleted {
                self.delete_topic(now, topic, out);
            }
            for (topic, index) in opened {
                self.open_partition(now, topic, index, out);
            }
            for (topic, index) in changed {
                self.partition_changed(topic, index, out);
            }
            self.configure(configured, out);
        } else {
            // What is closing cannot move away any more: the next start sets it aside.
            for topic in deleted {
                self.parts.partitions.hide(topic);
            }
        }
        for done in self.parts.take_committed() {
            let registered = matches!(done, AfterCommit::Registered { .. });
            self.parts.finish(now, done, out);
            // With the registration the metadata is complete.
            if registered && matches!(self.life, Life::Metadata) {
                self.open_partitions(now, out);
            }
        }
        self.logs_closed(now, out);
        if matches!(self.life, Life::Running)
            && self.parts.quorum().can_snapshot(end)
            && out.buggify(Site::MetadataSnapshot)
        {
            self.take_snapshot(now, out);
        }
    }

    fn partition_changed(&mut self, topic: Uuid, index: i32, out: &mut Outbox) {
        if let Some(state) = self.parts.image.topic(topic).and_then(|topic| topic.partitions.get(&index))
            && let Some(log) = self.parts.partitions.find(topic, index)
            && let Some(partition) = self.parts.partitions.get_mut(log)
        {
            partition.set_leader_epoch(state.leader_epoch, out);
        }
    }

    /// `None` in `topics`: every topic, for the broker's own configuration has changed.
    fn configure(&mut self, topics: BTreeSet<Option<bytestring::ByteString>>, out: &mut Outbox) {
        if topics.is_empty() {
            return;
        }
        let all = topics.contains(&None);
        if all && matches!(self.life, Life::Running) {
            self.tell_limits(out);
        }
        let ids: Vec<Uuid> = match all {
            true => self.parts.image.topics().map(|topic| topic.id).collect(),
            false => {
                let named = topics.iter().flatten().filter_map(|name| self.parts.image.topic_named(name));
                named.map(|topic| topic.id).collect()
            }
        };
        for topic in ids {
            let Some((settings, rules)) = self.parts.settings_of(topic) else { continue };
            for log in self.parts.partitions.of_topic(topic) {
                let partition = self.parts.partitions.get_mut(log).expect("of this topic");
                out.probe(Probe::ConfigChangedOpenLog);
                partition.configure(settings.clone(), rules.clone(), out);
            }
        }
    }

    /// Tells the world how many connections there may be, if that is not what it knows.
    pub(super) fn tell_limits(&mut self, out: &mut Outbox) {
        let limits = self.parts.image.layers(&self.parts.config).connection_limits();
        if limits != self.limits {
            self.limits = limits.clone();
            out.outputs.push(Output::Limits(limits));
        }
    }

    fn delete_topic(&mut self, now: Now, topic: Uuid, out: &mut Outbox) {
        for log in self.parts.partitions.hide(topic) {
            let unique = self.parts.draw_uuid();
            let partition = self.parts.partitions.get_mut(log).expect("of this topic");
            let index = partition.index();
            let (dir, name) = (partition.dir(), TopicPartition::new(partition.topic().clone(), index));
            let mut events = Vec::new();
            partition.delete(now, unique, out, &mut events);
            self.names.leave(dir, name);
            self.partition_events(now, log, events, out);
        }
    }

    pub(super) fn partition_io(&mut self, now: Now, log: LogId, completion: IoCompletion, out: &mut Outbox) {
        let mut events = Vec::new();
        if let Some(partition) = self.parts.partitions.get_mut(log) {
            partition.handle_io(now, completion, out, &mut events);
            let deadline = partition.log().deadline();
            self.timers.set(super::Timer::Log(log), deadline);
        }
        self.partition_events(now, log, events, out);
    }

    pub(super) fn partition_events(&mut self, now: Now, log: LogId, events: Vec<PartitionEvent>, out: &mut Outbox) {
        for event in events {
            match event {
                PartitionEvent::Loaded => self.log_loaded(now, log, out),
                PartitionEvent::Failed(reason) => {
                    let dir = self.parts.partitions.get(log).expect("it just failed").dir();
                    let offline = self.parts.dirs.mark_offline(dir, reason, out);
                    self.dir_events(now, offline, out);
                    self.log_loaded(now, log, out);
                    self.log_closed(now, log, out);
                }
                PartitionEvent::Closed => self.log_closed(now, log, out),
                PartitionEvent::Vacated => {
                    let partition = self.parts.partitions.get(log).expect("it is not gone yet");
                    let name = TopicPartition::new(partition.topic().clone(), partition.index());
                    self.vacated(now, partition.dir(), &name, out);
                }
                PartitionEvent::Deleted => {
                    self.timers.set(super::Timer::Log(log), None);
                    self.parts.partitions.remove(log);
                }
                PartitionEvent::Settled(id, slot, outcome) => {
                    crate::api::produce::settle(&mut self.parts, id, slot, outcome, out);
                }
                PartitionEvent::Readable(id) => crate::api::fetch::wake(&mut self.parts, now, id, out),
                PartitionEvent::ReadDone(id, outcome) => {
                    crate::api::fetch::read_done(&mut self.parts, now, id, outcome, out);
                }
                PartitionEvent::LookedUp(id, outcome) => {
                    crate::api::list_offsets::looked_up(&mut self.parts, id, outcome, out);
                }
            }
        }
    }

    pub(super) fn fatal(&mut self, reason: String, out: &mut Outbox) {
        self.life = Life::Ended;
        out.outputs.push(Output::Fatal(reason));
    }
}
