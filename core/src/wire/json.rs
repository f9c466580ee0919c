//! One line of JSON for what stands in a log, so that a person can read it: as Kafka's own converters write it.
//!
//! Keys stay in the order of the schema, which is the order in which people know them. Bytes are credentials wherever
//! they occur in such records: their number is told, and not their content.

use crate::ids::Uuid;
use bytes::Bytes;
use std::fmt::{Display, Write};

/// Writes one value after the other; who calls it keeps objects and arrays balanced.
#[derive(Debug, Default)]
pub(crate) struct JsonWriter {
    text: String,
}

impl JsonWriter {
    pub fn begin(&mut self, bracket: char) {
        self.text.push(bracket);
    }

    pub fn end(&mut self, bracket: char) {
        self.text.push(bracket);
    }

    /// Before each element of an array.
    pub fn element(&mut self) {
        if !self.text.ends_with(['{', '[']) {
            self.text.push(',');
        }
    }

    /// Before each value of an object.
    pub fn name(&mut self, name: &str) {
        self.element();
        self.string(name);
        self.text.push(':');
    }

    pub fn null(&mut self) {
        self.text.push_str("null");
    }

    /// A number or a boolean.
    pub fn plain(&mut self, value: &impl Display) {
        write!(self.text, "{value}").expect("writing to a String");
    }

    /// JSON has no infinity: what it cannot say is null.
    pub fn float64(&mut self, value: f64) {
        self.plain(&serde_json::Value::from(value));
    }

    pub fn string(&mut self, value: &str) {
        self.plain(&serde_json::Value::from(value));
    }

    pub fn uuid(&mut self, value: &Uuid) {
        write!(self.text, "\"{value}\"").expect("writing to a String");
    }

    pub fn bytes(&mut self, value: &Bytes) {
        write!(self.text, "\"<{} bytes>\"", value.len()).expect("writing to a String");
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

/// `TopicRecord` → `TOPIC_RECORD`
pub(crate) fn record_type(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::ids::Uuid;
    use crate::wire::MetadataRecord;
    use crate::wire::messages::client_quota_record::EntityData;
    use crate::wire::messages::{
        ClientQuotaRecord, LeaderChangeMessage, NoOpRecord, PartitionChangeRecord, TopicRecord,
        UserScramCredentialRecord, leader_change_message,
    };

    fn json(record: impl Into<MetadataRecord>) -> String {
        let record: MetadataRecord = record.into();
        record.to_json(record.newest_version())
    }

    #[test]
    fn a_record_reads_as_kafkas_tools_show_it() {
        let topic = TopicRecord { name: "a\"b".into(), topic_id: Uuid::METADATA_TOPIC, ..Default::default() };
        let expected =
            r#"{"type":"TOPIC_RECORD","version":0,"data":{"name":"a\"b","topicId":"AAAAAAAAAAAAAAAAAAAAAQ"}}"#;
        assert_eq!(json(topic), expected);
        assert_eq!(json(NoOpRecord::default()), r#"{"type":"NO_OP_RECORD","version":0,"data":{}}"#);
    }

    #[test]
    fn a_tagged_field_stands_there_only_where_it_says_something() {
        let change =
            PartitionChangeRecord { partition_id: 3, isr: Some(smallvec::smallvec![1, 2]), ..Default::default() };
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
}
