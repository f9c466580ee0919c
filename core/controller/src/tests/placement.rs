//! Where new replicas are placed.

use super::*;
use crate::placement::Placer;
use std::collections::BTreeMap;

/// A cluster of brokers, each with its rack (or none), and whether it is fenced.
fn image(brokers: &[(i32, &str, bool)]) -> Image {
    let mut image = Image::default();
    for &(broker_id, rack, fenced) in brokers {
        let record = RegisterBrokerRecord {
            broker_id,
            rack: (!rack.is_empty()).then(|| rack.into()),
            fenced,
            ..RegisterBrokerRecord::default()
        };
        image.apply(&record.into()).unwrap();
    }
    image
}

/// The replicas of some partitions.
fn placed(image: &Image, count: usize, factor: usize, seed: u128) -> Vec<Vec<i32>> {
    let mut drawn = seed;
    let mut draw = draw(&mut drawn);
    let mut placer = Placer::new(image, &mut draw);
    placer.check(factor as i16).unwrap();
    (0..count).map(|_| placer.place(factor).into_iter().map(|node| node.0).collect()).collect()
}

fn refusal(image: &Image, factor: i16) -> String {
    let mut drawn = 1;
    let mut draw = draw(&mut drawn);
    Placer::new(image, &mut draw).check(factor).unwrap_err()
}

#[test]
fn racks_and_brokers_take_turns() {
    let racks = [("A", 0), ("B", 3), ("C", 6)];
    let brokers: Vec<_> =
        racks.iter().flat_map(|(rack, first)| (0..3).map(move |n| (first + n, *rack, false))).collect();
    let image = image(&brokers);
    for seed in 1..50 {
        let placed = placed(&image, 3, 3, seed);
        let mut all: Vec<i32> = placed.iter().flatten().copied().collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7, 8], "each broker once: {placed:?}");
        for replicas in &placed {
            let mut racks: Vec<i32> = replicas.iter().map(|node| node / 3).collect();
            let turns = [racks[1] - racks[0], racks[2] - racks[1]].map(|step| step.rem_euclid(3));
            assert_eq!(turns, [1, 1], "the racks follow each other: {placed:?}");
            racks.sort_unstable();
            assert_eq!(racks, [0, 1, 2]);
        }
        let leading: Vec<i32> = placed.iter().map(|replicas| replicas[0] / 3).collect();
        assert_eq!((leading[1] - leading[0]).rem_euclid(3), 1, "so do the racks of the leaders: {placed:?}");
    }
}

#[test]
fn every_broker_gets_about_as_many_leaders_and_replicas() {
    let image = image(&[(0, "", false), (1, "", false), (2, "", false), (3, "", false)]);
    let placed = placed(&image, 200, 3, 7);
    let count = |nodes: &mut dyn Iterator<Item = i32>| {
        let mut counts = BTreeMap::<i32, usize>::new();
        nodes.for_each(|node| *counts.entry(node).or_default() += 1);
        counts.into_values().collect::<Vec<_>>()
    };
    assert_eq!(count(&mut placed.iter().map(|replicas| replicas[0])), [50, 50, 50, 50]);
    assert_eq!(count(&mut placed.iter().flatten().copied()), [150, 150, 150, 150]);
    let sets = placed.iter().collect::<std::collections::BTreeSet<_>>();
    assert!(sets.len() > 8, "not the same few assignments over and over: {sets:?}");
}

#[test]
fn fenced_brokers_come_last_in_their_rack_and_never_first() {
    let image = image(&[(0, "A", true), (1, "A", false), (2, "B", true), (3, "B", false)]);
    for seed in 1..30 {
        for replicas in placed(&image, 4, 4, seed) {
            let mut sorted = replicas.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
            assert!(replicas[0] % 2 == 1 && replicas[1] % 2 == 1, "{replicas:?}");
        }
        assert!(placed(&image, 4, 2, seed).iter().flatten().all(|node| node % 2 == 1));
    }
    let alone = self::image(&[(0, "A", true), (1, "B", true), (2, "C", false)]);
    for seed in 1..30 {
        for replicas in placed(&alone, 5, 3, seed) {
            assert_eq!(replicas[0], 2, "the one rack with a broker that is not fenced: {replicas:?}");
        }
    }
}

#[test]
fn a_rack_of_one_broker_gives_one_replica() {
    let image = image(&[(1, "A", false), (2, "B", false), (3, "B", false), (4, "", false)]);
    for seed in 1..30 {
        for mut replicas in placed(&image, 6, 4, seed) {
            replicas.sort_unstable();
            assert_eq!(replicas, [1, 2, 3, 4]);
        }
    }
}

#[test]
fn what_cannot_be_placed_is_refused_in_kafkas_words() {
    let two = image(&[(1, "", false), (2, "", true)]);
    insta::assert_snapshot!([refusal(&two, 0), refusal(&two, 3), refusal(&image(&[(1, "", true)]), 1), refusal(&image(&[]), 1)].join("\n"), @"
    Invalid replication factor 0: the replication factor must be positive.
    The target replication factor of 3 cannot be reached because only 2 broker(s) are registered or some brokers have all their log directories cordoned.
    All brokers are currently fenced, or have all their log directories cordoned.
    All brokers are currently fenced, or have all their log directories cordoned.
    ");
}

#[test]
fn brokers_that_are_shutting_down_or_cordoned_take_no_replicas() {
    let mut image = image(&[(1, "", false), (2, "", false), (3, "", false)]);
    let registration = |broker_id, change: fn(&mut RegisterBrokerRecord)| {
        let mut record = RegisterBrokerRecord { broker_id, fenced: false, ..RegisterBrokerRecord::default() };
        record.log_dirs = vec![DIR_A];
        change(&mut record);
        MetadataRecord::from(record)
    };
    image.apply(&registration(2, |record| record.in_controlled_shutdown = true)).unwrap();
    image.apply(&registration(3, |record| record.cordoned_log_dirs = Some(vec![DIR_A]))).unwrap();
    assert_eq!(placed(&image, 3, 1, 1), [[1], [1], [1]]);
    assert!(refusal(&image, 2).contains("only 1 broker(s)"));
}

#[test]
fn a_topic_of_several_replicas_has_them_in_sync_where_brokers_are_up() {
    let mut cluster = Cluster::new();
    cluster.start(NodeId(2), &[Uuid::from_bytes([2; 16])]);
    cluster.start(NodeId(3), &[Uuid::from_bytes([3; 16])]);
    cluster.fence(NodeId(3));
    assert_eq!(
        text(&cluster.create(&creating(vec![topic("t", 3, 3), topic("large", 1, 4)]))),
        "\
t: NONE -
large: INVALID_REPLICATION_FACTOR Unable to replicate the partition 4 time(s): The target replication factor of 4 \
cannot be reached because only 3 broker(s) are registered or some brokers have all their log directories cordoned."
    );
    for index in 0..3 {
        let partition = cluster.partition("t", index);
        assert_eq!((partition.replicas.len(), partition.isr.len()), (3, 2), "{partition:?}");
        assert_eq!((partition.replicas[2], partition.leader), (NodeId(3), Some(partition.replicas[0])));
        assert_eq!(partition.directory(NodeId(2)), Some(Uuid::from_bytes([2; 16])));
    }
}

/// As Kafka's `StripedReplicaPlacer`: with one broker that is not fenced there is no other order to draw.
#[test]
fn fenced_brokers_take_turns_beside_a_single_one_that_is_not() {
    let image = image(&[(1, "A", false), (2, "B", true), (3, "B", true)]);
    for seed in 1..30 {
        let placed = placed(&image, 12, 2, seed);
        assert!(placed.windows(2).all(|next| next[0][1] != next[1][1]), "{placed:?}");
    }
}
