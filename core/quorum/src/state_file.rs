//! `quorum-state`: the latest epoch that this node knows, the leader of that epoch, and the candidate for whom the node
//! voted in it (KIP-595, KIP-853).
//!
//! The file is one line of JSON. It must be on stable storage before the node votes or leads in the epoch: a node that
//! forgot its vote could vote for a second leader in the same epoch.

use crate::voters::ReplicaKey;
use bytes::Bytes;
use serde_json::{Value, json};
use tidelog_wire::ids::{LeaderEpoch, NodeId, Uuid};

/// The content of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuorumState {
    pub leader: Option<NodeId>,
    pub leader_epoch: LeaderEpoch,
    pub voted: Option<ReplicaKey>,
}

impl QuorumState {
    pub const NONE: Self = Self { leader: None, leader_epoch: LeaderEpoch(0), voted: None };

    /// Encodes the file. Its `data_version` is that of `kraft.version`: version 0 does not name directories, and names
    /// the static `voters`, which no reader needs.
    pub fn encode(&self, kraft_version: i16, voters: impl Iterator<Item = NodeId>) -> Bytes {
        let leader = self.leader.unwrap_or(NodeId(-1));
        let voted = self.voted.map_or(NodeId(-1), |voted| voted.node);
        let epoch = self.leader_epoch;
        // Formatted by hand, so that the fields have the same order as in Kafka's file.
        let text = if kraft_version == 0 {
            let voters: Vec<String> = voters.map(|voter| format!(r#"{{"voterId":{voter}}}"#)).collect();
            let voters = voters.join(",");
            format!(
                r#"{{"clusterId":"","leaderId":{leader},"leaderEpoch":{epoch},"votedId":{voted},"appliedOffset":0,"currentVoters":[{voters}],"data_version":0}}"#
            )
        } else {
            let directory = self.voted.map_or(Uuid::ZERO, ReplicaKey::wire_directory);
            format!(
                r#"{{"leaderId":{leader},"leaderEpoch":{epoch},"votedId":{voted},"votedDirectoryId":"{directory}","data_version":1}}"#
            )
        };
        Bytes::from(text)
    }

    /// Reads version 0 or 1 of the file. An error says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))?;
        let version = number(&value, "data_version")?;
        if !(0..=1).contains(&version) {
            return Err(format!("data_version is {version}, and must be 0 or 1"));
        }
        let leader_epoch = number(&value, "leaderEpoch")?;
        if leader_epoch < 0 {
            return Err(format!("leaderEpoch is {leader_epoch}, and must not be negative"));
        }
        let node = |id: i32| (id >= 0).then_some(NodeId(id));
        let directory = match value.get("votedDirectoryId") {
            None => Uuid::ZERO,
            Some(id) => id
                .as_str()
                .and_then(Uuid::parse)
                .ok_or_else(|| format!("votedDirectoryId is {id}, and must be an id of 22 characters"))?,
        };
        Ok(Self {
            leader: node(number(&value, "leaderId")?),
            leader_epoch: LeaderEpoch(leader_epoch),
            voted: node(number(&value, "votedId")?).map(|node| ReplicaKey::from_wire(node.0, directory)),
        })
    }
}

fn number(value: &Value, field: &str) -> Result<i32, String> {
    let found = value.get(field).unwrap_or(&json!(null)).clone();
    found
        .as_i64()
        .and_then(|number| i32::try_from(number).ok())
        .ok_or_else(|| format!("{field} is {found}, and must be an integer of 32 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_kafka_wrote_is_read_and_written_unchanged() {
        let kafka = br#"{"leaderId":1,"leaderEpoch":7,"votedId":-1,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAA","data_version":1}"#;
        let state = QuorumState::decode(kafka).unwrap();
        assert_eq!(state, QuorumState { leader: Some(NodeId(1)), leader_epoch: LeaderEpoch(7), voted: None });
        assert_eq!(state.encode(1, std::iter::empty()), &kafka[..]);
    }

    #[test]
    fn version_0_of_the_file_is_read_too() {
        let old = br#"{"clusterId":"x","leaderId":-1,"leaderEpoch":3,"votedId":2,"appliedOffset":0,"currentVoters":[{"voterId":2}],"data_version":0}"#;
        let state = QuorumState::decode(old).unwrap();
        assert_eq!(state.voted, Some(ReplicaKey { node: NodeId(2), directory: None }));
        assert_eq!(state.leader, None);
        assert_eq!(QuorumState::decode(&state.encode(0, [NodeId(2)].into_iter())), Ok(state));
    }

    #[test]
    fn a_node_that_has_heard_of_no_leader_is_in_epoch_0() {
        assert_eq!(QuorumState::decode(&QuorumState::NONE.encode(1, std::iter::empty())), Ok(QuorumState::NONE));
    }

    #[test]
    fn the_error_names_the_field_that_is_wrong() {
        for (text, expected) in [
            ("", "not JSON: EOF while parsing a value at line 1 column 0"),
            ("{}", "data_version is null, and must be an integer of 32 bits"),
            (r#"{"data_version":2}"#, "data_version is 2, and must be 0 or 1"),
            (r#"{"data_version":1,"leaderEpoch":-4}"#, "leaderEpoch is -4, and must not be negative"),
        ] {
            assert_eq!(QuorumState::decode(text.as_bytes()).unwrap_err(), expected);
        }
    }
}
