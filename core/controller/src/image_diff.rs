//! The difference between two images. A snapshot that arrives while a broker runs replaces its whole image, and the
//! broker reacts to the difference as it reacts to the changes of records.

use super::image::{Image, ImageChange, ImageError};
use std::collections::BTreeMap;
use tidelog_wire::MetadataRecord;

impl Image {
    /// The image that the records of a snapshot define.
    pub fn from_records(records: &[MetadataRecord]) -> Result<Self, ImageError> {
        let mut image = Self::default();
        for record in records {
            image.apply(record)?;
        }
        Ok(image)
    }

    /// What changed between this image and a newer one. Deleted topics come first, because a new topic may have the
    /// name of a deleted one.
    ///
    /// The records between both images may have reported more: for example, a config that was set and then removed.
    pub fn diff(&self, newer: &Self) -> Vec<ImageChange> {
        let deleted = self.topics.iter().filter(|(id, _)| !newer.topics.contains_key(id));
        let mut changes: Vec<_> = deleted.map(|(_, topic)| ImageChange::TopicDeleted(topic.clone())).collect();
        for (&id, topic) in &newer.topics {
            let before = self.topics.get(&id);
            if before.is_none() {
                changes.push(ImageChange::TopicCreated(id));
            }
            for (&index, partition) in &topic.partitions {
                let before = before.and_then(|topic| topic.partitions.get(&index));
                if before != Some(partition) {
                    changes.push(ImageChange::PartitionChanged(id, index, before.cloned()));
                }
            }
        }
        changes.extend(differing(&self.configs, &newer.configs).cloned().map(ImageChange::ConfigChanged));
        changes.extend(differing(&self.brokers, &newer.brokers).copied().map(ImageChange::BrokerChanged));
        changes.extend(differing(&self.features, &newer.features).cloned().map(ImageChange::FeatureChanged));
        if self.producer_ids != newer.producer_ids {
            changes.push(ImageChange::ProducerIdsChanged);
        }
        if self.controllers != newer.controllers || self.kept != newer.kept {
            changes.push(ImageChange::Other);
        }
        changes
    }
}

/// The keys whose values differ, or that only one of the maps has.
fn differing<'a, K: Ord, V: PartialEq>(
    older: &'a BTreeMap<K, V>,
    newer: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    let gone = older.keys().filter(|key| !newer.contains_key(key));
    let new = newer.iter().filter(|(key, value)| older.get(key) != Some(value)).map(|(key, _)| key);
    gone.chain(new)
}
