//! What a broker does with metadata that another controller may have written: transactions of records, and snapshots
//! that arrive while the broker runs.

use super::*;
use crate::api::AfterCommit;
use crate::controller::{Image, Partition};
use crate::ids::NodeId;
use crate::storage::TopicPartition;
use crate::wire::MetadataRecord;
use crate::wire::messages::{
    AbortTransactionRecord, BeginTransactionRecord, ConfigRecord, EndTransactionRecord, PartitionChangeRecord,
    RemoveTopicRecord, TopicRecord,
};

impl Bench {
    pub(super) fn commit(&mut self, records: Vec<MetadataRecord>) {
        self.act(|broker, now, out| broker.parts().commit(now, records, AfterCommit::Nothing, out));
    }

    /// A snapshot takes the place of the broker's image.
    fn load(&mut self, image: Image) {
        let end = self.broker.parts().committed;
        self.act(|broker, now, out| broker.image_loaded(now, end, image, out));
    }

    /// The image with more records, as a snapshot may have it.
    fn image_with(&mut self, records: &[MetadataRecord]) -> Image {
        let mut image = self.broker.parts().image.clone();
        records.iter().for_each(|record| assert!(image.apply(record).is_ok(), "{record:?}"));
        image
    }

    /// The names of the partitions whose directories are on the disk and are not being deleted.
    fn partitions_on_disk(&self) -> Vec<String> {
        let mut names: Vec<String> = self.disks[0]
            .names()
            .into_iter()
            .filter_map(|name| name.split_once('/').map(|(dir, _)| dir.to_owned()))
            .filter(|dir| TopicPartition::parse(dir).is_some_and(|name| &*name.topic != "__cluster_metadata"))
            .collect();
        names.dedup();
        names
    }
}

fn removed(topic_id: Uuid) -> MetadataRecord {
    RemoveTopicRecord { topic_id, ..Default::default() }.into()
}

/// The records of a topic with one partition on these nodes, of which the first leads.
fn created(name: &str, topic_id: Uuid, replicas: &[i32]) -> [MetadataRecord; 2] {
    let nodes: Vec<NodeId> = replicas.iter().copied().map(NodeId).collect();
    let partition = Partition {
        directories: vec![crate::controller::DIRECTORY_UNASSIGNED; nodes.len()],
        isr: nodes.clone(),
        leader: nodes.first().copied(),
        replicas: nodes,
        removing: Vec::new(),
        adding: Vec::new(),
        recovering: false,
        leader_epoch: LeaderEpoch(0),
        partition_epoch: 0,
        eligible_leaders: Vec::new(),
        last_known_eligible_leaders: Vec::new(),
    };
    let topic = TopicRecord { name: name.into(), topic_id, ..Default::default() };
    [topic.into(), partition.record(topic_id, 0)]
}

const NEW: Uuid = Uuid::from_bytes([9; 16]);

#[test]
fn an_aborted_transaction_deletes_no_log_and_opens_none() {
    let mut bench = Bench::new(&[]);
    let kept = bench.create("kept", 1, &[]);
    bench.append("kept", &["a"]);
    bench.commit(vec![BeginTransactionRecord::default().into(), removed(kept)]);
    bench.commit(created("never", NEW, &[1]).into());
    assert_eq!(bench.append("kept", &["b"]), 1, "the topic is served while the transaction is open");
    bench.commit(vec![AbortTransactionRecord::default().into()]);
    assert_eq!(bench.append("kept", &["c"]), 2);
    assert_eq!(bench.partitions_on_disk(), ["kept-0"]);
}

#[test]
fn a_transaction_that_ends_takes_effect_at_its_end() {
    let mut bench = Bench::new(&[]);
    let old = bench.create("old", 1, &[]);
    bench.commit(vec![BeginTransactionRecord::default().into(), removed(old)]);
    bench.commit(created("new", NEW, &[1]).into());
    assert_eq!(bench.partitions_on_disk(), ["old-0"]);
    bench.commit(vec![EndTransactionRecord::default().into()]);
    bench.pass(60_000);
    assert_eq!(bench.append("new", &["a"]), 0);
    assert_eq!(bench.partitions_on_disk(), ["new-0"]);
}

#[test]
fn a_snapshot_in_mid_life_deletes_the_logs_that_it_lacks_and_opens_those_that_are_new() {
    let mut bench = Bench::new(&[]);
    let gone = bench.create("gone", 2, &[]);
    bench.create("stays", 1, &[]);
    bench.append("stays", &["a"]);
    let mut records = vec![removed(gone)];
    records.extend(created("new", NEW, &[1]));
    records.extend(created("elsewhere", Uuid::from_bytes([8; 16]), &[2]));
    let image = bench.image_with(&records);
    bench.load(image);
    bench.pass(60_000);
    assert_eq!(bench.append("new", &["a"]), 0);
    assert_eq!(bench.append("stays", &["b"]), 1);
    assert_eq!(bench.partitions_on_disk(), ["new-0", "stays-0"]);
}

#[test]
fn a_snapshot_in_mid_life_may_give_a_deleted_topics_name_to_another() {
    let mut bench = Bench::new(&[]);
    let before = bench.create("t", 1, &[]);
    bench.append("t", &["a", "b"]);
    let mut records = vec![removed(before)];
    records.extend(created("t", NEW, &[1]));
    let image = bench.image_with(&records);
    bench.load(image);
    assert_eq!(bench.append("t", &["a"]), 0, "the log is another");
}

#[test]
fn a_snapshot_in_mid_life_brings_leader_epochs_and_configs() {
    let mut bench = Bench::new(&[]);
    let topic_id = bench.create("t", 1, &[]);
    let change = PartitionChangeRecord { partition_id: 0, topic_id, leader: 1, ..Default::default() };
    let config = ConfigRecord {
        resource_type: 2,
        resource_name: "t".into(),
        name: "max.message.bytes".into(),
        value: Some("100".into()),
        ..Default::default()
    };
    let image = bench.image_with(&[change.into(), config.into()]);
    bench.load(image);
    let partition = bench.broker.parts().partitions.iter().next().expect("one partition");
    assert_eq!(partition.leader_epoch().0, 1);
    let sent = bench.send_batch("t", -1, batch(&[&"x".repeat(1_000)]));
    assert_eq!(bench.produced(sent).error_code, code(ErrorCode::MessageTooLarge));
}

#[test]
fn a_partition_whose_replicas_come_to_this_broker_is_opened() {
    let mut bench = Bench::new(&[]);
    bench.commit(created("t", NEW, &[2]).into());
    assert_eq!(bench.partitions_on_disk(), Vec::<String>::new());
    let moved = PartitionChangeRecord {
        partition_id: 0,
        topic_id: NEW,
        replicas: Some(crate::wire::Int32s::from_slice(&[1])),
        isr: Some(crate::wire::Int32s::from_slice(&[1])),
        leader: 1,
        ..Default::default()
    };
    bench.commit(vec![moved.into()]);
    assert_eq!(bench.partitions_on_disk(), ["t-0"]);
    assert_eq!(bench.append("t", &["a"]), 0);
}
