//! What a broker does when metadata is committed: it opens, configures and deletes partitions.

use super::{Broker, Phase};
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
    /// Tells the controller which log directories still work, if it knows of others that do not, so that it places no
    /// new replicas in those (KIP-858).
    pub(super) fn tell_directories(&mut self, now: Now, out: &mut Outbox) {
        let node = self.parts.config.node_id;
        let online = self.parts.directories_online();
        let is_known = self.parts.proposed.broker(node).is_some_and(|broker| broker.log_dirs == online);
        if matches!(self.phase, Phase::Running) && !online.is_empty() && !is_known {
            let record = controller::directories_left(node, self.parts.broker_epoch, online);
            self.parts.commit(now, vec![record], AfterCommit::Nothing, out);
        }
    }

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

    /// This node leads the quorum now: brings the cluster's metadata and this broker's registration up to date.
    fn leading(&mut self, now: Now, bootstrap: Option<Vec<MetadataRecord>>, out: &mut Outbox) {
        self.parts.proposed = self.parts.image.clone();
        if self.parts.image.in_transaction() {
            // KIP-868: the controller that began this transaction crashed before its end.
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
            return self.fatal(format!("this broker cannot serve the cluster of its log directories: {reason}"), out);
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
                // A broker without any metadata does less harm than one that knows a part of it (KAFKA-14275).
                return self.fatal(error.to_string(), out);
            }
        }
        self.parts.committed = end;
        if matches!(self.phase, Phase::Logs(_) | Phase::Running) {
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
            // A log that is closing cannot rename its directory any more. The next start sets the directory aside.
            for topic in deleted {
                self.parts.partitions.hide(topic);
            }
        }
        for done in self.parts.take_committed() {
            let registered = matches!(done, AfterCommit::Registered { .. });
            self.parts.finish(now, done, out);
            // The metadata is complete once the registration is a part of it.
            if registered && matches!(self.phase, Phase::Metadata) {
                self.open_partitions(now, out);
            }
        }
        self.logs_closed(now, out);
        if matches!(self.phase, Phase::Running)
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

    /// Gives topics their new configuration. `None` in `topics` stands for all topics: the broker's own configuration
    /// has changed.
    fn configure(&mut self, topics: BTreeSet<Option<bytestring::ByteString>>, out: &mut Outbox) {
        if topics.is_empty() {
            return;
        }
        let all = topics.contains(&None);
        if all && matches!(self.phase, Phase::Running) {
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
                let partition = self.parts.partitions.get_mut(log).expect("the topic's logs are in the table");
                out.probe(Probe::ConfigChangedOpenLog);
                partition.configure(settings.clone(), rules.clone(), out);
            }
        }
    }

    /// Tells the world the limits of connections, if they differ from those that it knows.
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
            let partition = self.parts.partitions.get_mut(log).expect("the topic's logs are in the table");
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
                    let dir = self.parts.partitions.get(log).expect("a log that fails is in the table").dir();
                    let offline = self.parts.dirs.mark_offline(dir, reason, out);
                    self.dir_events(now, offline, out);
                    self.log_loaded(now, log, out);
                    self.log_closed(now, log, out);
                }
                PartitionEvent::Closed => self.log_closed(now, log, out),
                PartitionEvent::NameFreed => {
                    let partition =
                        self.parts.partitions.get(log).expect("the log is in the table until it is deleted");
                    let name = TopicPartition::new(partition.topic().clone(), partition.index());
                    self.directory_renamed(now, partition.dir(), &name, out);
                }
                PartitionEvent::Deleted => {
                    self.timers.set(super::Timer::Log(log), None);
                    self.parts.partitions.remove(log);
                }
                PartitionEvent::ProduceDone(id, place, outcome) => {
                    crate::api::produce::partition_done(&mut self.parts, id, place, outcome, out);
                }
                PartitionEvent::FetchAgain(id) => crate::api::fetch::wake(&mut self.parts, now, id, out),
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
        self.phase = Phase::Ended;
        out.outputs.push(Output::Fatal(reason));
    }
}
