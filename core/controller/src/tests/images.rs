//! What an image reports as changed, by records and compared with a newer image.

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use tidelog_wire::messages::{AbortTransactionRecord, ClearElrRecord, PartitionChangeRecord, RemoveTopicRecord};

#[test]
fn a_transaction_of_records_counts_once_it_has_ended() {
    let mut image = Image::default();
    let topic = |name: &str, byte| TopicRecord {
        name: name.into(),
        topic_id: Uuid::from_bytes([byte; 16]),
        ..TopicRecord::default()
    };
    image.apply(&BeginTransactionRecord::default().into()).unwrap();
    assert_eq!(image.apply(&topic("a", 1).into()).unwrap(), []);
    assert!(image.in_transaction() && image.topic_named("a").is_none());
    let changes = image.apply(&EndTransactionRecord::default().into()).unwrap();
    assert_eq!(changes, [ImageChange::TopicCreated(Uuid::from_bytes([1; 16]))]);
    image.apply(&BeginTransactionRecord::default().into()).unwrap();
    image.apply(&topic("b", 2).into()).unwrap();
    image.apply(&AbortTransactionRecord::default().into()).unwrap();
    assert!(image.topic_named("b").is_none() && image.topic_named("a").is_some());
}

/// What is different after all of `changes`. `Other` is left out, because it does not say what it stands for.
#[derive(Debug, Default, PartialEq)]
struct Net {
    deleted: BTreeMap<Uuid, Topic>,
    created: BTreeSet<Uuid>,
    /// The partitions as they were before.
    partitions: BTreeMap<(Uuid, i32), Option<Partition>>,
    configs: BTreeSet<ConfigResource>,
    brokers: BTreeSet<NodeId>,
    features: BTreeSet<ByteString>,
    producer_ids: bool,
}

impl Net {
    fn of(changes: impl IntoIterator<Item = ImageChange>) -> Self {
        let mut net = Self::default();
        for change in changes {
            match change {
                ImageChange::TopicCreated(id) => assert!(net.created.insert(id), "created twice"),
                ImageChange::TopicDeleted(topic) => {
                    let is_old = !net.created.remove(&topic.id);
                    net.partitions.retain(|(id, _), _| *id != topic.id);
                    assert!(!is_old || net.deleted.insert(topic.id, topic).is_none(), "deleted twice");
                }
                ImageChange::PartitionChanged(id, index, before) => {
                    net.partitions.entry((id, index)).or_insert(before);
                }
                ImageChange::ConfigChanged(resource) => {
                    net.configs.insert(resource);
                }
                ImageChange::BrokerChanged(id) => {
                    net.brokers.insert(id);
                }
                ImageChange::FeatureChanged(name) => {
                    net.features.insert(name);
                }
                ImageChange::ProducerIdsChanged => net.producer_ids = true,
                ImageChange::Other => {}
            }
        }
        net
    }

    /// Leaves out what is in both images the same: it changed, and changed back.
    fn without_detours(mut self, before: &Image, after: &Image) -> Self {
        self.partitions.retain(|(id, index), _| before.partition(*id, *index) != after.partition(*id, *index));
        self.configs.retain(|resource| before.config(resource) != after.config(resource));
        self.brokers.retain(|id| before.broker(*id) != after.broker(*id));
        self.features.retain(|name| before.feature(name) != after.feature(name));
        self
    }
}

/// A topic that was deleted in between is as it was at its end in the changes, and as it was before in the difference.
fn same_deletions(one: &BTreeMap<Uuid, Topic>, other: &BTreeMap<Uuid, Topic>) -> bool {
    one.values().map(|topic| (topic.id, &topic.name)).eq(other.values().map(|topic| (topic.id, &topic.name)))
}

proptest! {
    #[test]
    fn a_difference_of_images_is_what_the_records_between_them_changed(
        first in prop::collection::vec(step(), 0..20),
        second in prop::collection::vec(step(), 0..20),
        clears in any::<bool>(),
    ) {
        let mut cluster = Cluster::new();
        first.into_iter().for_each(|step| cluster.take(step));
        let (before, known) = (cluster.image.clone(), cluster.committed.len());
        prop_assert_eq!(before.diff(&before), []);
        second.into_iter().for_each(|step| cluster.take(step));
        if clears {
            cluster.lose_leaders();
            cluster.commit(&[ClearElrRecord::default().into()]);
        }
        let changes = cluster.committed[known..].iter().flat_map(|(_, changes)| changes.clone());
        let mut reported = Net::of(changes).without_detours(&before, &cluster.image);
        let different = Net::of(before.diff(&cluster.image));
        prop_assert!(same_deletions(&reported.deleted, &different.deleted));
        reported.deleted = different.deleted.clone();
        prop_assert_eq!(reported, different);
    }

    /// The same records within a transaction change the same, at its end; and nothing if it is aborted.
    #[test]
    fn a_transaction_changes_everything_at_its_end_or_nothing(steps in prop::collection::vec(step(), 0..20)) {
        let mut cluster = Cluster::new();
        let (before, known) = (cluster.image.clone(), cluster.committed.len());
        steps.into_iter().for_each(|step| cluster.take(step));
        let (mut ended, mut aborted) = (before.clone(), before.clone());
        for image in [&mut ended, &mut aborted] {
            prop_assert_eq!(image.apply(&BeginTransactionRecord::default().into()).unwrap(), []);
            for (record, _) in &cluster.committed[known..] {
                prop_assert_eq!(image.apply(record).unwrap(), []);
            }
            prop_assert_eq!(before.diff(image), []);
        }
        let changes: Vec<_> = cluster.committed[known..].iter().flat_map(|(_, changes)| changes.clone()).collect();
        prop_assert_eq!(ended.apply(&EndTransactionRecord::default().into()).unwrap(), changes);
        prop_assert_eq!(&ended, &cluster.image);
        prop_assert_eq!(aborted.apply(&AbortTransactionRecord::default().into()).unwrap(), []);
        prop_assert_eq!(&aborted, &before);
    }
}

impl Cluster {
    /// Every partition loses its leader, which stays eligible (KIP-966).
    fn lose_leaders(&mut self) {
        let lost = |topic_id, partition_id, leader: NodeId| {
            MetadataRecord::from(PartitionChangeRecord {
                partition_id,
                topic_id,
                isr: Some(smallvec![]),
                leader: -1,
                eligible_leader_replicas: Some(smallvec![leader.0]),
                ..Default::default()
            })
        };
        let led = |topic: &Topic| {
            let partitions = topic.partitions.iter();
            let led = partitions.filter_map(|(index, partition)| Some(lost(topic.id, *index, partition.leader?)));
            led.collect::<Vec<_>>()
        };
        let records: Vec<MetadataRecord> = self.image.topics().flat_map(led).collect();
        self.commit(&records);
    }
}

#[test]
fn the_image_of_a_snapshot_is_refused_where_its_records_contradict_each_other() {
    let removed = RemoveTopicRecord { topic_id: DIR_A, ..Default::default() };
    assert!(Image::from_records(&[removed.into()]).is_err());
    let image = Cluster::new().image;
    assert_eq!(Image::from_records(&image.to_records()), Ok(image));
}

#[test]
fn a_difference_names_everything_else_that_is_kept() {
    let quota = ClientQuotaRecord { key: "producer_byte_rate".into(), value: 1.0, ..Default::default() };
    let (before, mut after) = (Image::default(), Image::default());
    after.apply(&quota.into()).unwrap();
    assert_eq!(before.diff(&after), [ImageChange::Other]);
    let (before, mut after) = (after.clone(), after);
    let controller = tidelog_wire::messages::RegisterControllerRecord { controller_id: 1, ..Default::default() };
    after.apply(&controller.into()).unwrap();
    assert_eq!(before.diff(&after), [ImageChange::Other]);
    assert_eq!(after.diff(&before), [ImageChange::Other]);
}
