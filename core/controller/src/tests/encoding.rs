//! Which fields a record has at which level of `metadata.version`. The levels are those of Kafka's `MetadataVersion`.

use super::*;
use tidelog_wire::messages::{PartitionChangeRecord, PartitionRecord};

/// What a reader of the log finds of a record that was written at this level: the version, and the record.
fn written(record: impl Into<MetadataRecord>, level: i16) -> (i16, MetadataRecord) {
    let (record, version) = MetadataRecord::decode(records::encode(&record.into(), level)).unwrap();
    (version, record)
}

#[test]
fn a_partition_names_directories_from_3_7_iv2_on_and_eligible_leaders_from_4_0_iv1_on() {
    let full = PartitionRecord {
        topic_id: DIR_A,
        replicas: smallvec![1],
        directories: vec![DIR_B],
        eligible_leader_replicas: Some(smallvec![1]),
        last_known_elr: Some(smallvec![2]),
        ..Default::default()
    };
    let without_leaders = PartitionRecord { eligible_leader_replicas: None, last_known_elr: None, ..full.clone() };
    let bare = PartitionRecord { directories: Vec::new(), ..without_leaders.clone() };
    for (level, version, expected) in
        [(16, 0, &bare), (17, 1, &without_leaders), (22, 1, &without_leaders), (23, 2, &full)]
    {
        assert_eq!(written(full.clone(), level), (version, expected.clone().into()), "level {level}");
    }
}

#[test]
fn so_does_a_change_of_a_partition() {
    let full = PartitionChangeRecord {
        topic_id: DIR_A,
        directories: Some(vec![DIR_B]),
        eligible_leader_replicas: Some(smallvec![1]),
        last_known_elr: Some(smallvec![2]),
        ..Default::default()
    };
    let without_leaders =
        PartitionChangeRecord { eligible_leader_replicas: None, last_known_elr: None, ..full.clone() };
    let bare = PartitionChangeRecord { directories: None, ..without_leaders.clone() };
    for (level, version, expected) in
        [(16, 0, &bare), (17, 1, &without_leaders), (22, 1, &without_leaders), (23, 2, &full)]
    {
        assert_eq!(written(full.clone(), level), (version, expected.clone().into()), "level {level}");
    }
}

#[test]
fn a_registration_has_the_fields_that_its_level_knows() {
    let full = RegisterBrokerRecord {
        broker_id: 1,
        is_migrating_zk_broker: true,
        in_controlled_shutdown: true,
        log_dirs: vec![DIR_A],
        cordoned_log_dirs: Some(vec![DIR_A]),
        ..Default::default()
    };
    let not_cordoned = RegisterBrokerRecord { cordoned_log_dirs: None, ..full.clone() };
    let no_directories = RegisterBrokerRecord { log_dirs: Vec::new(), ..not_cordoned.clone() };
    let not_migrating = RegisterBrokerRecord { is_migrating_zk_broker: false, ..no_directories.clone() };
    let oldest = RegisterBrokerRecord { in_controlled_shutdown: false, ..not_migrating.clone() };
    for (level, version, expected) in [
        (6, 0, &oldest),
        (7, 1, &not_migrating),
        (8, 2, &no_directories),
        (16, 2, &no_directories),
        (17, 3, &not_cordoned),
        (29, 3, &not_cordoned),
        (30, 4, &full),
    ] {
        assert_eq!(written(full.clone(), level), (version, expected.clone().into()), "level {level}");
    }
}

#[test]
fn a_change_of_a_registration_has_the_oldest_version_that_says_all_of_it() {
    let full = BrokerRegistrationChangeRecord {
        broker_id: 1,
        in_controlled_shutdown: 1,
        log_dirs: vec![DIR_A],
        cordoned_log_dirs: Some(vec![DIR_A]),
        ..Default::default()
    };
    let not_cordoned = BrokerRegistrationChangeRecord { cordoned_log_dirs: None, ..full.clone() };
    let no_directories = BrokerRegistrationChangeRecord { log_dirs: Vec::new(), ..not_cordoned.clone() };
    for (level, version, expected) in
        [(16, 1, &no_directories), (17, 2, &not_cordoned), (29, 2, &not_cordoned), (30, 3, &full)]
    {
        assert_eq!(written(full.clone(), level), (version, expected.clone().into()), "level {level}");
    }
}

#[test]
fn each_level_says_what_a_metadata_log_may_hold() {
    let first = |says: fn(i16) -> bool| (0..=40).find(|level| says(*level)).unwrap();
    assert_eq!(first(records::has_transactions), 13);
    assert_eq!(first(records::registers_controllers), 15);
    assert_eq!(first(records::assigns_directories), 17);
    assert_eq!(first(records::cordons_directories), 30);
    assert_eq!(first(|level| !records::shrinking_begins_epoch(level)), 12);
    for last in [records::has_transactions, records::cordons_directories] {
        assert!(last(40), "later levels have it too");
    }
    // Kafka's `didMetadataChange`: 3.9 to 4.0-IV0 have no new field, 4.0-IV1 has.
    assert!(records::metadata_changed(22, 23) && !records::metadata_changed(23, 24));
    assert!(!records::metadata_changed(23, 23) && records::metadata_changed(7, 30));
}

#[test]
fn clients_are_told_only_of_features_that_are_served() {
    assert!(records::is_served("metadata.version") && records::is_served("eligible.leader.replicas.version"));
    assert!(!records::is_served("group.version") && !records::is_served("no.version"));
}

#[test]
fn the_first_hundred_ids_name_no_directory() {
    let id = |number| Uuid(uuid::Uuid::from_u128(number));
    assert!([0, 1, 2, 99].into_iter().all(|number| records::is_reserved_directory(id(number))));
    assert!(!records::is_reserved_directory(id(100)) && !records::is_reserved_directory(DIR_A));
}
