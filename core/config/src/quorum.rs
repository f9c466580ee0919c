//! The `controller.quorum.*` configs: who is asked for the leader of the metadata log, and how long everything takes.

use std::collections::BTreeSet;
use tidelog_wire::Address;
use tidelog_wire::ids::NodeId;

/// A value of `controller.quorum.voters`: the voters of a static quorum.
pub(crate) const VOTERS: &str = "controller.quorum.voters";
/// A value of `controller.quorum.bootstrap.servers`: where a dynamic quorum (KIP-853) is found.
pub(crate) const BOOTSTRAP_SERVERS: &str = "controller.quorum.bootstrap.servers";

/// The `controller.quorum.*` configs of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumSettings {
    pub voters: Vec<(NodeId, Address)>,
    pub bootstrap_servers: Vec<Address>,
    pub election_timeout_ms: i64,
    pub election_backoff_ms_max: i64,
    pub fetch_timeout_ms: i64,
    pub request_timeout_ms: i64,
    pub retry_backoff_ms: i64,
    pub fetch_bytes_max: i32,
    pub fetch_snapshot_bytes_max: i32,
    /// `controller.quorum.auto.join.enable`
    pub joins_by_itself: bool,
}

/// Reads `id@host:port` entries. An error says what is allowed.
pub(crate) fn voters(items: &[String]) -> Result<Vec<(NodeId, Address)>, String> {
    let mut nodes = BTreeSet::new();
    let mut voters = Vec::new();
    for item in items.iter().filter(|item| !item.is_empty()) {
        let (id, address) = item.split_once('@').unwrap_or_default();
        let id: Option<i32> = id.trim().parse().ok().filter(|id| *id >= 0);
        let Some((id, address)) = id.zip(Address::parse(address)) else {
            return Err(format!("'{item}' is no voter; allowed is a list of id@host:port"));
        };
        if !nodes.insert(id) {
            return Err(format!("node {id} is named twice; allowed is each voter once"));
        }
        voters.push((NodeId(id), address));
    }
    Ok(voters)
}

/// Reads `host:port` entries. An error says what is allowed.
pub(crate) fn servers(items: &[String]) -> Result<Vec<Address>, String> {
    let items = items.iter().filter(|item| !item.is_empty());
    items
        .map(|item| {
            Address::parse(item).ok_or_else(|| format!("'{item}' is no address; allowed is a list of host:port"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn voters_are_ids_with_addresses() {
        let read = voters(&items("1@a:9093,2@[::1]:9094")).unwrap();
        assert_eq!(read, [(NodeId(1), Address::new("a", 9093)), (NodeId(2), Address::new("::1", 9094))]);
        assert_eq!(voters(&items("")), Ok(Vec::new()));
    }

    #[test]
    fn the_error_names_the_entry_that_is_wrong_and_what_is_allowed() {
        for (text, expected) in [
            ("1@a:9093,b:9093", "'b:9093' is no voter; allowed is a list of id@host:port"),
            ("-1@a:9093", "'-1@a:9093' is no voter; allowed is a list of id@host:port"),
            ("1@a", "'1@a' is no voter; allowed is a list of id@host:port"),
            ("1@a:9093,1@b:9093", "node 1 is named twice; allowed is each voter once"),
        ] {
            assert_eq!(voters(&items(text)).unwrap_err(), expected);
        }
        let wrong = servers(&items("a:9093,b")).unwrap_err();
        assert_eq!(wrong, "'b' is no address; allowed is a list of host:port");
    }
}
