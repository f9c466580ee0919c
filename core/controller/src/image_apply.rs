//! How each kind of record changes the image.

use super::image::{
    ConfigResource, DIRECTORY_MIGRATING, Image, ImageChange, ImageError, KeptKey, Partition, ResourceKind, Topic,
};
use super::partition_changes::NO_LEADER_CHANGE;
use std::collections::BTreeMap;
use tidelog_wire::ids::{LeaderEpoch, NodeId, Uuid};
use tidelog_wire::messages::{
    BrokerRegistrationChangeRecord, ClearElrRecord, ConfigRecord, PartitionChangeRecord, PartitionRecord, TopicRecord,
};
use tidelog_wire::{Int32s, MetadataRecord};

impl Image {
    /// Applies one record and says what changed by it. Records must come in the order of the log. A record within a
    /// metadata transaction (KIP-868) changes nothing until the record that ends the transaction, which reports all
    /// changes. An aborted transaction changes nothing.
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<Vec<ImageChange>, ImageError> {
        let mut changes = Vec::new();
        match record {
            MetadataRecord::BeginTransaction(_) if self.transaction.is_some() => {
                return Err(misfit(record, "a transaction is already open"));
            }
            MetadataRecord::BeginTransaction(_) => self.transaction = Some(Vec::new()),
            MetadataRecord::AbortTransaction(_) if self.transaction.take().is_none() => {
                return Err(misfit(record, "there is no transaction to abort"));
            }
            MetadataRecord::AbortTransaction(_) => {}
            MetadataRecord::EndTransaction(_) => {
                let records =
                    self.transaction.take().ok_or_else(|| misfit(record, "there is no transaction to end"))?;
                for record in &records {
                    self.change(record, &mut changes)?;
                }
            }
            _ => match &mut self.transaction {
                Some(records) => records.push(record.clone()),
                None => self.change(record, &mut changes)?,
            },
        }
        Ok(changes)
    }

    fn change(&mut self, record: &MetadataRecord, changes: &mut Vec<ImageChange>) -> Result<(), ImageError> {
        let change = match record {
            MetadataRecord::Topic(topic) => self.create_topic(topic).map_err(|why| misfit(record, why))?,
            MetadataRecord::RemoveTopic(removed) => {
                return self.remove_topic(removed.topic_id, changes).map_err(|why| misfit(record, why));
            }
            MetadataRecord::Partition(partition) => self.set_partition(partition).map_err(|why| misfit(record, why))?,
            MetadataRecord::PartitionChange(change) => {
                self.change_partition(change).map_err(|why| misfit(record, why))?
            }
            MetadataRecord::ClearElr(clear) => {
                return self.clear_eligible_leaders(clear, changes).map_err(|why| misfit(record, why));
            }
            MetadataRecord::Config(config) => self.set_config(config),
            MetadataRecord::FeatureLevel(feature) => {
                if feature.feature_level == 0 {
                    self.features.remove(&feature.name);
                } else {
                    self.features.insert(feature.name.clone(), feature.feature_level);
                }
                ImageChange::FeatureChanged(feature.name.clone())
            }
            MetadataRecord::RegisterBroker(broker) => {
                let id = NodeId(broker.broker_id);
                self.brokers.insert(id, broker.clone());
                ImageChange::BrokerChanged(id)
            }
            MetadataRecord::UnregisterBroker(broker) => {
                let id = NodeId(broker.broker_id);
                self.registration(id, broker.broker_epoch).map_err(|why| misfit(record, why))?;
                self.brokers.remove(&id);
                ImageChange::BrokerChanged(id)
            }
            MetadataRecord::FenceBroker(broker) => {
                let id = NodeId(broker.id);
                self.registration(id, broker.epoch).map_err(|why| misfit(record, why))?.fenced = true;
                ImageChange::BrokerChanged(id)
            }
            MetadataRecord::UnfenceBroker(broker) => {
                let id = NodeId(broker.id);
                self.registration(id, broker.epoch).map_err(|why| misfit(record, why))?.fenced = false;
                ImageChange::BrokerChanged(id)
            }
            MetadataRecord::BrokerRegistrationChange(change) => {
                self.change_registration(change).map_err(|why| misfit(record, why))?
            }
            MetadataRecord::RegisterController(controller) => {
                self.controllers.insert(NodeId(controller.controller_id), controller.clone());
                ImageChange::Other
            }
            MetadataRecord::ProducerIds(block) => {
                self.producer_ids = Some(block.clone());
                ImageChange::ProducerIdsChanged
            }
            MetadataRecord::NoOp(_) => return Ok(()),
            _ => self.keep(record)?,
        };
        changes.push(change);
        Ok(())
    }

    fn create_topic(&mut self, record: &TopicRecord) -> Result<ImageChange, String> {
        let (id, name) = (record.topic_id, &record.name);
        if self.topic_ids.contains_key(name) || self.topics.contains_key(&id) {
            return Err(format!("the topic {name} ({id}) is already there"));
        }
        self.topic_ids.insert(name.clone(), id);
        self.topics.insert(id, Topic { id, name: name.clone(), partitions: BTreeMap::new() });
        Ok(ImageChange::TopicCreated(id))
    }

    fn remove_topic(&mut self, id: Uuid, changes: &mut Vec<ImageChange>) -> Result<(), String> {
        let topic = self.topics.remove(&id).ok_or_else(|| format!("there is no topic with the id {id}"))?;
        self.topic_ids.remove(&topic.name);
        let configs = self.configs.remove_entry(&ConfigResource::topic(&topic.name));
        changes.push(ImageChange::TopicDeleted(topic));
        changes.extend(configs.map(|(resource, _)| ImageChange::ConfigChanged(resource)));
        Ok(())
    }

    fn set_partition(&mut self, record: &PartitionRecord) -> Result<ImageChange, String> {
        let (id, index) = (record.topic_id, record.partition_id);
        let topic = self.topics.get_mut(&id).ok_or_else(|| format!("there is no topic with the id {id}"))?;
        if index < 0 {
            return Err(format!("{index} is no partition"));
        }
        let partition = Partition {
            directories: directories(&record.directories, record.replicas.len())?,
            replicas: nodes(&record.replicas),
            isr: nodes(&record.isr),
            removing: nodes(&record.removing_replicas),
            adding: nodes(&record.adding_replicas),
            leader: (record.leader >= 0).then_some(NodeId(record.leader)),
            recovering: record.leader_recovery_state == 1,
            leader_epoch: LeaderEpoch(record.leader_epoch),
            partition_epoch: record.partition_epoch,
            eligible_leaders: nodes(record.eligible_leader_replicas.as_deref().unwrap_or_default()),
            last_known_eligible_leaders: nodes(record.last_known_elr.as_deref().unwrap_or_default()),
        };
        let before = topic.partitions.insert(index, partition);
        Ok(ImageChange::PartitionChanged(id, index, before))
    }

    fn change_partition(&mut self, record: &PartitionChangeRecord) -> Result<ImageChange, String> {
        let (id, index) = (record.topic_id, record.partition_id);
        let partition = self.topics.get_mut(&id).and_then(|topic| topic.partitions.get_mut(&index));
        let partition = partition.ok_or_else(|| format!("there is no partition {index} of a topic {id}"))?;
        let before = partition.clone();
        partition.merge(record)?;
        Ok(ImageChange::PartitionChanged(id, index, Some(before)))
    }

    /// Clears the eligible leaders of one topic, or of all topics if the record names none (KIP-966).
    fn clear_eligible_leaders(&mut self, clear: &ClearElrRecord, changes: &mut Vec<ImageChange>) -> Result<(), String> {
        if !clear.topic_name.is_empty() && !self.topic_ids.contains_key(&clear.topic_name) {
            return Err(format!("there is no topic {}", clear.topic_name));
        }
        let named = |topic: &&mut Topic| clear.topic_name.is_empty() || clear.topic_name == topic.name;
        for topic in self.topics.values_mut().filter(named) {
            for (&index, partition) in &mut topic.partitions {
                if partition.eligible_leaders.is_empty() && partition.last_known_eligible_leaders.is_empty() {
                    continue;
                }
                let before = partition.clone();
                partition.eligible_leaders.clear();
                partition.last_known_eligible_leaders.clear();
                partition.partition_epoch = partition.partition_epoch.saturating_add(1);
                changes.push(ImageChange::PartitionChanged(topic.id, index, Some(before)));
            }
        }
        Ok(())
    }

    fn set_config(&mut self, record: &ConfigRecord) -> ImageChange {
        let kind = ResourceKind::from_code(record.resource_type);
        let resource = ConfigResource::new(kind, record.resource_name.to_string());
        let configs = self.configs.entry(resource.clone()).or_default();
        match &record.value {
            Some(value) => configs.insert(record.name.to_string(), value.to_string()),
            None => configs.remove(&*record.name),
        };
        if configs.is_empty() {
            self.configs.remove(&resource);
        }
        ImageChange::ConfigChanged(resource)
    }

    /// The registration of a broker, which must have this epoch.
    fn registration(
        &mut self,
        id: NodeId,
        epoch: i64,
    ) -> Result<&mut tidelog_wire::messages::RegisterBrokerRecord, String> {
        let broker = self.brokers.get_mut(&id).ok_or_else(|| format!("the broker {id} is not registered"))?;
        if broker.broker_epoch != epoch {
            return Err(format!("the broker {id} is registered with the epoch {}", broker.broker_epoch));
        }
        Ok(broker)
    }

    fn change_registration(&mut self, change: &BrokerRegistrationChangeRecord) -> Result<ImageChange, String> {
        let id = NodeId(change.broker_id);
        let broker = self.registration(id, change.broker_epoch)?;
        // KIP-841: 1 sets, -1 clears, 0 leaves as it is.
        match change.fenced {
            0 => {}
            fenced @ (1 | -1) => broker.fenced = fenced == 1,
            other => return Err(format!("{other} is no change of being fenced")),
        }
        match change.in_controlled_shutdown {
            0 => {}
            1 => broker.in_controlled_shutdown = true,
            other => return Err(format!("{other} is no change of a controlled shutdown")),
        }
        if !change.log_dirs.is_empty() {
            broker.log_dirs = change.log_dirs.clone();
        }
        if let Some(cordoned) = &change.cordoned_log_dirs {
            broker.cordoned_log_dirs = Some(cordoned.clone());
        }
        Ok(ImageChange::BrokerChanged(id))
    }

    /// Keeps a record that this broker has no use for yet, or removes the one that it replaces.
    fn keep(&mut self, record: &MetadataRecord) -> Result<ImageChange, ImageError> {
        let (key, removed) = match record {
            MetadataRecord::ClientQuota(quota) => {
                let mut entity: Vec<_> =
                    quota.entity.iter().map(|part| (part.entity_type.clone(), part.entity_name.clone())).collect();
                entity.sort();
                (KeptKey::Quota(entity, quota.key.clone()), quota.remove)
            }
            MetadataRecord::AccessControlEntry(entry) => (KeptKey::AccessControl(entry.id), false),
            MetadataRecord::RemoveAccessControlEntry(entry) => (KeptKey::AccessControl(entry.id), true),
            MetadataRecord::UserScramCredential(user) => (KeptKey::Scram(user.name.clone(), user.mechanism), false),
            MetadataRecord::RemoveUserScramCredential(user) => {
                (KeptKey::Scram(user.name.clone(), user.mechanism), true)
            }
            MetadataRecord::DelegationToken(token) => (KeptKey::DelegationToken(token.token_id.clone()), false),
            MetadataRecord::RemoveDelegationToken(token) => (KeptKey::DelegationToken(token.token_id.clone()), true),
            MetadataRecord::ZkMigrationState(_) => (KeptKey::ZkMigrationState, false),
            _ => return Err(misfit(record, "this broker does not know records of this kind")),
        };
        if removed {
            self.kept.remove(&key);
        } else {
            self.kept.insert(key, record.clone());
        }
        Ok(ImageChange::Other)
    }
}

impl Partition {
    /// Applies a change. Fields that the record does not have stay as they are. A record that names a leader, even the
    /// same one, begins a new leader epoch.
    pub(super) fn merge(&mut self, record: &PartitionChangeRecord) -> Result<(), String> {
        let set = |place: &mut Vec<NodeId>, change: &Option<Int32s>| {
            if let Some(change) = change {
                *place = nodes(change);
            }
        };
        set(&mut self.replicas, &record.replicas);
        match &record.directories {
            Some(new) => self.directories = directories(new, self.replicas.len())?,
            None if self.directories.len() != self.replicas.len() => {
                self.directories = directories(&[], self.replicas.len())?;
            }
            None => {}
        }
        set(&mut self.isr, &record.isr);
        set(&mut self.removing, &record.removing_replicas);
        set(&mut self.adding, &record.adding_replicas);
        set(&mut self.eligible_leaders, &record.eligible_leader_replicas);
        set(&mut self.last_known_eligible_leaders, &record.last_known_elr);
        if record.leader != NO_LEADER_CHANGE {
            self.leader = (record.leader >= 0).then_some(NodeId(record.leader));
            self.leader_epoch = LeaderEpoch(self.leader_epoch.0.saturating_add(1));
        }
        if record.leader_recovery_state >= 0 {
            self.recovering = record.leader_recovery_state == 1;
        }
        self.partition_epoch = self.partition_epoch.saturating_add(1);
        Ok(())
    }
}

fn nodes(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// One directory for each replica. A record that was written before KIP-858 has none.
fn directories(given: &[Uuid], replicas: usize) -> Result<Vec<Uuid>, String> {
    match given.len() {
        0 => Ok(vec![DIRECTORY_MIGRATING; replicas]),
        count if count == replicas => Ok(given.to_vec()),
        count => Err(format!("{count} directories for {replicas} replicas")),
    }
}

fn misfit(record: &MetadataRecord, why: impl Into<String>) -> ImageError {
    ImageError { record: format!("{record:?}"), why: why.into() }
}
