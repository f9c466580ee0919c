//! What the replicas hold in the end, read from the nodes' disks.

use super::World;
use crate::history::{PartitionKey, StoredBatch};
use crate::node::Node;
use crate::trace::Digest;
use bytes::Bytes;
use tidelog_core::broker::PartitionView;

/// The bytes before a batch's length and behind it: the length counts from there.
const LENGTH_AT: usize = 8;
const BODY_AT: usize = 12;
/// The bytes of a batch up to its last offset's delta.
const DELTA_END: usize = 27;

impl World {
    /// A partition whose replicas are not all in sync, with equally much on stable storage, or whose leader does not know
    /// that all is committed; in words.
    pub(super) fn lagging_replica(&self) -> Option<String> {
        let topics = self.scenario.topics.iter().filter(|topic| topic.replicas > 1);
        let mut names =
            topics.flat_map(|topic| (0..topic.partitions).map(move |index| (topic, format!("{}-{index}", topic.name))));
        names.find_map(|(topic, name)| {
            let count = topic.replicas as usize;
            let on = |node: &Node| {
                let broker = &node.process.as_ref()?.broker;
                broker.partitions().find(|view| view.name == name).map(|view| (node.index, view))
            };
            let views: Vec<_> = self.nodes.iter().filter_map(on).collect();
            let end = views.first()?.1.log_end;
            let has_all = |view: &PartitionView| view.log_end == end && (topic.is_relaxed() || view.synced == end);
            let is_even = views.iter().all(|(_, view)| has_all(view));
            let told = || views.iter().map(|(node, view)| format!("; node{node} {view}")).collect::<String>();
            let knows =
                |view: &PartitionView| view.leads && view.in_sync.len() == count && view.high_watermark == view.log_end;
            let are_in_sync = views.iter().any(|(_, view)| knows(view));
            let is_done = views.len() == count && is_even && are_in_sync;
            (!is_done).then(|| format!("{name} is to have {count} equal replicas in sync{}", told()))
        })
    }

    /// Adds to the final logs what each replica holds.
    pub(super) fn read_replicas(&mut self) {
        let replicas: Vec<(PartitionKey, u32, Vec<StoredBatch>)> =
            self.nodes.iter().flat_map(|node| self.replicas_on(node.index)).collect();
        for (partition, node, batches) in replicas {
            self.finals.entry(partition).or_default().replicas.entry(node).or_default().extend(batches);
        }
    }

    /// The segments on a node's disk, those of each partition in order.
    fn replicas_on(&self, node: u32) -> Vec<(PartitionKey, u32, Vec<StoredBatch>)> {
        let disk = &self.nodes[node as usize].disk;
        let mut found = Vec::new();
        for dir in 0..self.scenario.disk.directories {
            for path in disk.files(dir).iter().filter(|path| path.ends_with(".log")) {
                if let Some(partition) = self.partition_at(path) {
                    found.push((partition, node, batches_of(disk.content(dir, path))));
                }
            }
        }
        found
    }
}

/// The batches of a segment, up to the zeros behind them.
fn batches_of(mut segment: Bytes) -> Vec<StoredBatch> {
    let mut batches = Vec::new();
    while let Some(length) = segment.get(LENGTH_AT..BODY_AT) {
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        if BODY_AT + length < DELTA_END || segment.len() < BODY_AT + length {
            break;
        }
        let batch = segment.split_to(BODY_AT + length);
        let base_offset = i64::from_be_bytes(batch[..8].try_into().expect("eight bytes"));
        let last_delta = i32::from_be_bytes(batch[23..DELTA_END].try_into().expect("four bytes"));
        let mut digest = Digest::default();
        digest.bytes(&batch);
        batches.push(StoredBatch {
            base_offset,
            last_offset: base_offset + i64::from(last_delta),
            leader_epoch: i32::from_be_bytes(batch[12..16].try_into().expect("four bytes")),
            digest: digest.value(),
        });
    }
    batches
}
