//! What a broker does when its metadata changes: it opens, configures and deletes partitions.
//!
//! It reacts to the changes that its image reports, and never to records: a record of a metadata transaction that is
//! not ended, or is aborted, changes nothing (KIP-868).

use super::{Broker, Phase, boot};
use crate::api::{self, KnownBrokers, PendingRequest};
use crate::buggify::{ASKED_FOR, Site};
use crate::controller::{self, Image, ImageChange, ImageError, ResourceKind};
use crate::ids::{LogId, Offset, Uuid};
use crate::io::{IoCompletion, Outbox, Output};
use crate::plant::Plant;
use crate::probe::Probe;
use crate::replication::PartitionEvent;
use crate::storage::TopicPartition;
use crate::time::Now;
use crate::wire::MetadataRecord;
use std::collections::BTreeSet;

/// Why a record is not applied that only the simulation does not want.
fn asked_for(record: &MetadataRecord) -> ImageError {
    ImageError { record: format!("{record:?}"), why: ASKED_FOR.to_owned() }
}

impl Broker {
    /// Applies records that are committed, and reacts to what changed by them.
    pub(super) fn committed(&mut self, now: Now, end: Offset, records: Vec<MetadataRecord>, out: &mut Outbox) {
        let mut changes = Vec::new();
        let plants = self.parts.config.plants;
        for record in &records {
            let fails = self.parts.controller.is_none() && out.buggify(Site::ApplyFailure);
            match if fails { Err(asked_for(record)) } else { self.parts.image.apply(record) } {
                Ok(new) => changes.extend(new),
                Err(_) if plants.has(Plant::ApplyFailureSwallowed) => {}
                // A broker without any metadata does less harm than one that knows a part of it (KAFKA-14275).
                Err(error) => return self.fatal(error.to_string(), out),
            }
        }
        self.metadata_changed(now, changes, out);
        self.image_reaches(now, end, out);
    }

    /// Replaces the image by that of a snapshot, which ends at the offset `end`. Most starts begin with one, and one comes
    /// later if the quorum no longer has the records that this node lacks.
    pub(crate) fn image_loaded(&mut self, now: Now, end: Offset, image: Image, out: &mut Outbox) {
        let changes = self.parts.image.diff(&image);
        self.parts.image = image;
        self.metadata_changed(now, changes, out);
        self.image_reaches(now, end, out);
    }

    /// Reacts to changes of the image. All of them are in it already.
    fn metadata_changed(&mut self, now: Now, changes: Vec<ImageChange>, out: &mut Outbox) {
        let node = self.parts.config.node_id;
        let (mut changed, mut topics, mut all_topics) = (Vec::new(), BTreeSet::new(), false);
        let mut features_changed = false;
        let opens_logs = self.phase.opens_logs();
        for change in changes {
            match change {
                ImageChange::TopicDeleted(topic) => {
                    for log in self.parts.partitions.hide(topic.id) {
                        // A log that is closing cannot rename its directory any more. The next start sets the directory
                        // aside.
                        if opens_logs {
                            self.delete_log(now, log, out);
                        }
                    }
                }
                ImageChange::PartitionChanged(topic, index, before) => {
                    let was_here = before.is_some_and(|partition| partition.replicas.contains(&node));
                    changed.push((topic, index, was_here));
                }
                ImageChange::ConfigChanged(resource) => match resource.kind {
                    ResourceKind::Topic => {
                        topics.insert(resource.name);
                    }
                    ResourceKind::Broker => {
                        all_topics |= resource.name.is_empty() || resource.name == node.to_string();
                    }
                    _ => {}
                },
                ImageChange::FeatureChanged(_) => features_changed = true,
                ImageChange::TopicCreated(_)
                | ImageChange::BrokerChanged(_)
                | ImageChange::ProducerIdsChanged
                | ImageChange::Other => {}
            }
        }
        if features_changed && let Err(reason) = self.check_features() {
            return self.fatal(reason, out);
        }
        if !opens_logs {
            return;
        }
        // After all deletions, because a new topic may have the name of a deleted one.
        for (topic, index, was_here) in changed {
            self.partition_changed(now, topic, index, was_here, out);
        }
        if all_topics && matches!(self.phase, Phase::Running | Phase::LeavingCluster) {
            self.tell_limits(out);
            self.resize_fetchers();
        }
        let configured: Vec<Uuid> = match all_topics {
            true => self.parts.image.topics().map(|topic| topic.id).collect(),
            false => {
                let named = topics.iter().filter_map(|name| self.parts.image.topic_named(name));
                named.map(|topic| topic.id).collect()
            }
        };
        for topic in configured {
            self.configure(topic, out);
        }
    }

    /// Whether this node knows what the cluster uses. It must not serve metadata that it may misunderstand.
    fn check_features(&self) -> Result<(), String> {
        let features = self.parts.image.features().iter().map(|(name, level)| (&**name, *level));
        controller::records::check_features(features)
            .map_err(|reason| format!("this node cannot serve the cluster of its log directories: {reason}"))
    }

    /// The image has been brought up to the offset `end`: does what waited for that.
    fn image_reaches(&mut self, now: Now, end: Offset, out: &mut Outbox) {
        self.parts.committed = end;
        for done in self.parts.take_committed() {
            self.parts.finish(done, out);
        }
        self.serve_if_unfenced(now, out);
        self.check_controller(now);
        if matches!(self.phase, Phase::Running)
            && self.parts.quorum().can_snapshot(end)
            && out.buggify(Site::MetadataSnapshot)
        {
            self.take_snapshot(now, out);
        }
    }

    /// `was_here`: whether this broker had a replica of the partition before.
    fn partition_changed(&mut self, now: Now, topic: Uuid, index: i32, was_here: bool, out: &mut Outbox) {
        let Some(state) = self.parts.image.partition(topic, index) else { return };
        let is_here = state.replicas.contains(&self.parts.config.node_id);
        let assignment = boot::assignment(state);
        match self.parts.partitions.find(topic, index) {
            None if is_here && !was_here => {
                out.probe(Probe::TopicCreated);
                self.open_partition(now, topic, index, out);
            }
            None => {}
            Some(log) if !is_here => {
                self.parts.partitions.hide_one(topic, index);
                self.delete_log(now, log, out);
            }
            Some(log) => {
                let partition = self.parts.partitions.get_mut(log).expect("just found");
                let mut events = Vec::new();
                partition.assign(now, &assignment, &KnownBrokers(&self.parts.image), out, &mut events);
                self.fetchers.follow(log, partition);
                self.partition_events(now, log, events, out);
            }
        }
    }

    /// Gives the partitions of a topic its new configuration.
    fn configure(&mut self, topic: Uuid, out: &mut Outbox) {
        let Some((settings, rules)) = self.parts.settings_of(topic) else { return };
        for log in self.parts.partitions.of_topic(topic) {
            let partition = self.parts.partitions.get_mut(log).expect("the topic's logs are in the table");
            out.probe(Probe::ConfigChangedOpenLog);
            partition.configure(settings.clone(), rules.clone(), out);
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

    /// Deletes the log of a partition, which is hidden already.
    fn delete_log(&mut self, now: Now, log: LogId, out: &mut Outbox) {
        let unique = self.parts.draw_uuid();
        let partition = self.parts.partitions.get_mut(log).expect("a hidden log is in the table");
        let (dir, name) = (partition.dir(), TopicPartition::new(partition.topic().clone(), partition.index()));
        let mut events = Vec::new();
        partition.delete(now, unique, out, &mut events);
        self.fetchers.forget(log);
        self.names.leave(dir, name);
        self.partition_events(now, log, events, out);
    }

    pub(super) fn partition_io(&mut self, now: Now, log: LogId, completion: IoCompletion, out: &mut Outbox) {
        let mut events = Vec::new();
        if let Some(partition) = self.parts.partitions.get_mut(log) {
            partition.handle_io(now, completion, &KnownBrokers(&self.parts.image), out, &mut events);
            self.fetchers.moved(log, partition);
            let deadline = partition.log().deadline();
            self.timers.set(super::Timer::Log(log), deadline);
        }
        self.partition_events(now, log, events, out);
    }

    pub(super) fn partition_events(&mut self, now: Now, log: LogId, events: Vec<PartitionEvent>, out: &mut Outbox) {
        for event in events {
            match event {
                PartitionEvent::Loaded => self.log_loaded(now, log, out),
                PartitionEvent::IsrProposed(proposal) => self.isr_changes.propose(log, proposal),
                PartitionEvent::RecoveryPointTooHigh => {
                    let dir = self.parts.partitions.get(log).expect("a log that is cut is in the table").dir();
                    self.lower_recovery_point(now, dir, Some(log), out);
                }
                PartitionEvent::Failed(reason) => {
                    self.fetchers.forget(log);
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
                    // Another broker's clients may delete a topic while this one loads its log.
                    self.log_loaded(now, log, out);
                }
                PartitionEvent::AnswerDone(id, place, outcome) => match self.parts.pending.get_mut(id) {
                    Some(PendingRequest::DeleteRecords(_)) => {
                        api::delete_records::partition_done(&mut self.parts, id, place, outcome, out);
                    }
                    _ => api::produce::partition_done(&mut self.parts, id, place, outcome, out),
                },
                PartitionEvent::FetchAgain(id) => api::fetch::wake(&mut self.parts, now, id, out),
                PartitionEvent::ReadDone(id, outcome) => {
                    api::fetch::read_done(&mut self.parts, now, id, outcome, out);
                }
                PartitionEvent::LookedUp(id, outcome) => {
                    api::list_offsets::looked_up(&mut self.parts, id, outcome, out);
                }
            }
        }
    }

    pub(super) fn fatal(&mut self, reason: String, out: &mut Outbox) {
        self.phase = Phase::Ended;
        out.outputs.push(Output::Fatal(reason));
    }
}
