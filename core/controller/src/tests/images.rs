//! What an image reports as changed, by records and compared with a newer image.

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use tidelog_wire::messages::{
    AbortTransactionRecord, ClearElrRecord, DelegationTokenRecord, FenceBrokerRecord, NoOpRecord,
    PartitionChangeRecord, PartitionRecord, RemoveDelegationTokenRecord, RemoveTopicRecord,
    RemoveUserScramCredentialRecord, UnfenceBrokerRecord, ZkMigrationStateRecord,
};

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

/// Applies a record that contradicts the image. Returns why.
fn misfit(image: &mut Image, record: impl Into<MetadataRecord>) -> String {
    image.apply(&record.into()).unwrap_err().why
}

#[test]
fn a_record_that_contradicts_the_image_is_refused() {
    let mut image = Cluster::new().image;
    let topic = |name: &str, topic_id| TopicRecord { name: name.into(), topic_id, ..Default::default() };
    image.apply(&topic("t", DIR_A).into()).unwrap();
    assert_eq!(misfit(&mut image, topic("t", DIR_B)), format!("the topic t ({DIR_B}) is already there"));
    assert_eq!(misfit(&mut image, topic("other", DIR_A)), format!("the topic other ({DIR_A}) is already there"));
    assert_eq!(
        misfit(&mut image, ClearElrRecord { topic_name: "x".into(), ..Default::default() }),
        "there is no topic x"
    );
    let partition = PartitionRecord {
        topic_id: DIR_A,
        partition_id: 0,
        replicas: smallvec![1, 2],
        directories: vec![DIR_B],
        ..Default::default()
    };
    assert_eq!(misfit(&mut image, partition), "1 directories for 2 replicas");
    image.apply(&BeginTransactionRecord::default().into()).unwrap();
    assert!(image.in_transaction());
    assert_eq!(misfit(&mut image, BeginTransactionRecord::default()), "a transaction is already open");
    image.apply(&AbortTransactionRecord::default().into()).unwrap();
    assert!(!image.in_transaction());
}

#[test]
fn an_image_is_empty_until_a_record_changes_it() {
    let mut image = Image::default();
    assert_eq!(image.apply(&NoOpRecord::default().into()), Ok(Vec::new()), "KIP-835");
    assert!(image.is_empty());
    image.apply(&TopicRecord { name: "t".into(), topic_id: DIR_A, ..Default::default() }.into()).unwrap();
    assert!(!image.is_empty());
}

/// The records of Kafka before 3.3, which a log of it may hold.
#[test]
fn a_broker_is_fenced_and_unfenced_by_the_older_records_too() {
    let mut image = Cluster::new().image;
    let epoch = image.broker(NodeId(1)).unwrap().broker_epoch;
    image.apply(&FenceBrokerRecord { id: 1, epoch, ..Default::default() }.into()).unwrap();
    assert!(image.broker(NodeId(1)).unwrap().fenced);
    image.apply(&UnfenceBrokerRecord { id: 1, epoch, ..Default::default() }.into()).unwrap();
    assert!(!image.broker(NodeId(1)).unwrap().fenced);
    assert!(misfit(&mut image, FenceBrokerRecord { id: 1, epoch: epoch + 1, ..Default::default() }).contains("epoch"));
}

#[test]
fn a_replica_is_online_where_its_broker_is_unfenced_and_its_directory_is_not_lost() {
    let mut image = Cluster::new().image;
    let online = |image: &Image, dir| image.is_online(NodeId(1), dir);
    assert!(online(&image, DIR_A) && online(&image, DIRECTORY_UNASSIGNED) && online(&image, DIRECTORY_MIGRATING));
    assert!(!online(&image, Uuid::from_bytes([9; 16])) && !online(&image, DIRECTORY_LOST));
    assert!(!image.is_online(NodeId(2), DIR_A));
    let registered = image.broker(NodeId(1)).unwrap().clone();
    image.apply(&RegisterBrokerRecord { fenced: true, ..registered.clone() }.into()).unwrap();
    assert!(!online(&image, DIR_A) && image.has_online_directory(NodeId(1), DIR_A));
    // A broker that is older than KIP-858 names none.
    image.apply(&RegisterBrokerRecord { log_dirs: Vec::new(), ..registered }.into()).unwrap();
    assert!(online(&image, DIR_A) && !online(&image, DIRECTORY_LOST));
}

#[test]
fn a_snapshot_begins_with_the_metadata_version() {
    let records = Cluster::new().image.to_records();
    let MetadataRecord::FeatureLevel(first) = &records[0] else { panic!("{:?}", records[0]) };
    assert_eq!(first.name, "metadata.version");
}

/// A topic of two partitions: the first has an eligible leader, the second only one that was known last.
fn with_eligible_leaders() -> Image {
    let mut image = Image::default();
    image.apply(&TopicRecord { name: "t".into(), topic_id: DIR_A, ..Default::default() }.into()).unwrap();
    image.apply(&TopicRecord { name: "u".into(), topic_id: DIR_B, ..Default::default() }.into()).unwrap();
    for (topic_id, partition_id, eligible, known) in
        [(DIR_A, 0, 3, None), (DIR_A, 1, 0, Some(3)), (DIR_B, 0, 3, Some(3))]
    {
        let record = PartitionRecord {
            topic_id,
            partition_id,
            replicas: smallvec![1, 2, 3],
            isr: smallvec![1],
            removing_replicas: smallvec![2],
            adding_replicas: smallvec![3],
            leader: 1,
            eligible_leader_replicas: (eligible > 0).then(|| smallvec![eligible]),
            last_known_elr: known.map(|known| smallvec![known]),
            directories: vec![DIR_A, DIR_B, DIR_A],
            ..Default::default()
        };
        image.apply(&record.clone().into()).unwrap();
        assert_eq!(image.partition(topic_id, partition_id).unwrap().record(topic_id, partition_id), record.into());
    }
    image
}

#[test]
fn eligible_leaders_are_cleared_for_one_topic_or_for_all() {
    let clear = |name: &str| {
        let mut image = with_eligible_leaders();
        let changes = image.apply(&ClearElrRecord { topic_name: name.into(), ..Default::default() }.into()).unwrap();
        let left = image.topics().flat_map(|topic| topic.partitions.values());
        let left = left.filter(|one| !one.eligible_leaders.is_empty() || !one.last_known_eligible_leaders.is_empty());
        (changes.len(), left.count())
    };
    assert_eq!((clear("t"), clear("u"), clear("")), ((2, 1), (1, 2), (3, 0)));
    let mut image = with_eligible_leaders();
    image.apply(&ClearElrRecord::default().into()).unwrap();
    assert_eq!(image.apply(&ClearElrRecord::default().into()), Ok(Vec::new()), "there are none any more");
}

#[test]
fn replicas_that_come_without_directories_have_none_yet() {
    let mut image = with_eligible_leaders();
    let change = PartitionChangeRecord {
        topic_id: DIR_A,
        partition_id: 0,
        replicas: Some(smallvec![1, 2]),
        eligible_leader_replicas: Some(smallvec![]),
        ..Default::default()
    };
    image.apply(&change.into()).unwrap();
    assert_eq!(image.partition(DIR_A, 0).unwrap().directories, [DIRECTORY_MIGRATING; 2]);
}

#[test]
fn what_is_only_kept_is_replaced_and_removed_by_its_key() {
    let mut image = Image::default();
    let user = |mechanism| UserScramCredentialRecord { name: "a".into(), mechanism, ..Default::default() };
    let token = |id: &str| DelegationTokenRecord { token_id: id.into(), ..Default::default() };
    let state = ZkMigrationStateRecord { zk_migration_state: 1, ..Default::default() };
    for record in [user(1).into(), user(2).into(), token("x").into(), token("y").into(), state.clone().into()] {
        assert_eq!(image.apply(&record), Ok(vec![ImageChange::Other]));
    }
    image
        .apply(&RemoveUserScramCredentialRecord { name: "a".into(), mechanism: 1, ..Default::default() }.into())
        .unwrap();
    image.apply(&RemoveDelegationTokenRecord { token_id: "x".into(), ..Default::default() }.into()).unwrap();
    let kept: Vec<MetadataRecord> = image.kept().map(|(_, record)| record.clone()).collect();
    assert_eq!(kept, [user(2).into(), token("y").into(), state.into()]);
}
