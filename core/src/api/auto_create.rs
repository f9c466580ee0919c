//! The topics that a Metadata request creates by naming them (`auto.create.topics.enable`).

use crate::api::Parts;
use crate::config::Layers;
use crate::wire::messages::CreateTopicsRequest;
use crate::wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use bytestring::ByteString;

/// `timeoutMs` of the request, as Kafka's brokers send it.
const TIMEOUT_MS: i32 = 60_000;

impl Parts {
    /// What this broker asks the controller to create.
    pub fn auto_create(&self, names: impl IntoIterator<Item = ByteString>) -> CreateTopicsRequest {
        let layers = self.image.layers(&self.config);
        let topics = names.into_iter().map(|name| topic_to_create(name, &layers)).collect();
        CreateTopicsRequest { topics, timeout_ms: TIMEOUT_MS, ..Default::default() }
    }
}

/// An internal topic has the partitions and replicas that the broker's settings for it say (`offsets.topic.…` and the
/// like), and the configs that its coordinator needs. Any other topic has the broker's defaults.
fn topic_to_create(name: ByteString, broker: &Layers) -> CreatableTopic {
    let number = |name: &str| broker.number(name).to_string();
    let (prefix, configs) = match &*name {
        "__consumer_offsets" => (
            "offsets.topic",
            vec![
                ("cleanup.policy", "compact".to_owned()),
                ("compression.type", "producer".to_owned()),
                ("segment.bytes", number("offsets.topic.segment.bytes")),
            ],
        ),
        "__transaction_state" => (
            "transaction.state.log",
            vec![
                ("unclean.leader.election.enable", "false".to_owned()),
                ("compression.type", "uncompressed".to_owned()),
                ("cleanup.policy", "compact".to_owned()),
                ("min.insync.replicas", number("transaction.state.log.min.isr")),
                ("segment.bytes", number("transaction.state.log.segment.bytes")),
            ],
        ),
        // KIP-932: the share coordinator deletes what it no longer needs, so its records have no time limit.
        "__share_group_state" => (
            "share.coordinator.state.topic",
            vec![
                ("cleanup.policy", "delete".to_owned()),
                ("compression.type", "producer".to_owned()),
                ("segment.bytes", number("share.coordinator.state.topic.segment.bytes")),
                ("min.insync.replicas", number("share.coordinator.state.topic.min.isr")),
                ("retention.ms", "-1".to_owned()),
            ],
        ),
        _ => return CreatableTopic { name, num_partitions: -1, replication_factor: -1, ..Default::default() },
    };
    let configs = configs.into_iter().map(|(name, value)| CreatableTopicConfig {
        name: name.into(),
        value: Some(value.into()),
        ..Default::default()
    });
    let count = |what: &str| broker.number(&format!("{prefix}.{what}"));
    CreatableTopic {
        num_partitions: count("num.partitions").try_into().expect("the table says it has 32 bits"),
        replication_factor: count("replication.factor").try_into().expect("the table says it has 16 bits"),
        configs: configs.collect(),
        name,
        ..Default::default()
    }
}
