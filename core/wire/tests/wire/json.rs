//! Metadata records as JSON.

use tidelog_wire::MetadataRecord;
use tidelog_wire::ids::Uuid;
use tidelog_wire::messages::client_quota_record::EntityData;
use tidelog_wire::messages::{
    ClientQuotaRecord, LeaderChangeMessage, NoOpRecord, PartitionChangeRecord, TopicRecord, UserScramCredentialRecord,
    leader_change_message,
};

fn json(record: impl Into<MetadataRecord>) -> String {
    let record: MetadataRecord = record.into();
    record.to_json(record.newest_version())
}

#[test]
fn a_record_reads_as_kafkas_tools_show_it() {
    let topic = TopicRecord { name: "a\"b".into(), topic_id: Uuid::METADATA_TOPIC, ..Default::default() };
    let expected = r#"{"type":"TOPIC_RECORD","version":0,"data":{"name":"a\"b","topicId":"AAAAAAAAAAAAAAAAAAAAAQ"}}"#;
    assert_eq!(json(topic), expected);
    assert_eq!(json(NoOpRecord::default()), r#"{"type":"NO_OP_RECORD","version":0,"data":{}}"#);
}

#[test]
fn a_tagged_field_stands_there_only_where_it_says_something() {
    let change = PartitionChangeRecord { partition_id: 3, isr: Some(smallvec::smallvec![1, 2]), ..Default::default() };
    insta::assert_snapshot!(json(change), @r#"{"type":"PARTITION_CHANGE_RECORD","version":2,"data":{"partitionId":3,"topicId":"AAAAAAAAAAAAAAAAAAAAAA","isr":[1,2]}}"#);
}

#[test]
fn what_may_be_null_or_is_no_integer_is_told_apart() {
    let quota = ClientQuotaRecord {
        entity: vec![EntityData { entity_type: "user".into(), entity_name: None, ..Default::default() }],
        key: "producer_byte_rate".into(),
        value: 0.5,
        ..Default::default()
    };
    insta::assert_snapshot!(json(quota), @r#"{"type":"CLIENT_QUOTA_RECORD","version":0,"data":{"entity":[{"entityType":"user","entityName":null}],"key":"producer_byte_rate","value":0.5,"remove":false}}"#);
}

#[test]
fn credentials_stay_hidden() {
    let credential = UserScramCredentialRecord {
        name: "alice".into(),
        stored_key: bytes::Bytes::from_static(b"secret"),
        ..Default::default()
    };
    let text = json(credential);
    assert!(text.contains(r#""storedKey":"<6 bytes>""#) && !text.contains("secret"), "{text}");
}

#[test]
fn a_version_shows_the_fields_that_it_has() {
    let voter = leader_change_message::Voter { voter_id: 1, ..Default::default() };
    let message = LeaderChangeMessage { leader_id: 1, voters: vec![voter], ..Default::default() };
    let (old, new) = (message.to_json(0), message.to_json(1));
    assert_eq!(old, r#"{"version":0,"leaderId":1,"voters":[{"voterId":1}],"grantingVoters":[]}"#);
    assert!(new.contains(r#"{"voterId":1,"voterDirectoryId":"AAAAAAAAAAAAAAAAAAAAAA"}"#), "{new}");
}
