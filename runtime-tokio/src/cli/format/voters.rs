//! `--initial-controllers`: the first voters of a dynamic quorum (KIP-853), as `id@host:port:directory-id`.

use tidelog_core::ids::{NodeId, Uuid};
use tidelog_core::quorum::{Endpoints, KRAFT_VERSIONS, ReplicaKey, Voter, VoterSet};
use tidelog_core::wire::Address;

/// Controllers with their directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialControllers(Vec<(ReplicaKey, Address)>);

impl InitialControllers {
    /// Reads a list of `id@host:port:directory-id`. An error says what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut controllers: Vec<(ReplicaKey, Address)> = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let read = one(item).ok_or_else(|| {
                format!(
                    "'{item}' is no controller; allowed is a list of id@host:port:directory-id, with an IPv6 host in \
                     brackets, and with ids of directories as `tidelog random-uuid` prints them"
                )
            })?;
            if controllers.iter().any(|(known, _)| known.node == read.0.node) {
                return Err(format!("node {} is named twice; allowed is each controller once", read.0.node));
            }
            if let Some((known, _)) = controllers.iter().find(|(known, _)| known.directory == read.0.directory) {
                let (one, other) = (known.node, read.0.node);
                return Err(format!(
                    "nodes {one} and {other} have the same directory id; allowed is one of its own each"
                ));
            }
            controllers.push(read);
        }
        match controllers.is_empty() {
            true => Err("no controller is named; allowed is a list of id@host:port:directory-id".to_owned()),
            false => Ok(Self(controllers)),
        }
    }

    /// The voters that these are, each reached at its listener of this name.
    pub fn voters(&self, listener: &str) -> VoterSet {
        let voter = |(key, address): &(ReplicaKey, Address)| Voter {
            key: *key,
            endpoints: Endpoints::from_iter([(listener, address.host.clone(), address.port)]),
            kraft_versions: KRAFT_VERSIONS,
        };
        self.0.iter().map(voter).collect()
    }
}

fn one(item: &str) -> Option<(ReplicaKey, Address)> {
    let (node, rest) = item.split_once('@')?;
    let (address, directory) = rest.rsplit_once(':')?;
    let node = node.parse().ok().filter(|node| *node >= 0)?;
    // Kafka reserves the ids 0 to 99 for directories that are lost or unassigned (KIP-858).
    let directory = Uuid::parse(directory).filter(|id| id.0.as_u128() >= 100)?;
    Some((ReplicaKey::new(NodeId(node), directory), Address::parse(address)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_nodes_with_addresses_and_directories() {
        let read = InitialControllers::parse(
            " 0@example.com:8082:JEXY6aqzQY-32P5TStzaFg, 7@[::1]:8083:MvDxzVmcRsaTz33bUuRU6A,",
        );
        let voters = read.unwrap().voters("CONTROLLER");
        let told: Vec<_> = voters.iter().map(|v| (v.key, v.endpoints.address("CONTROLLER").unwrap().clone())).collect();
        let key = |node, id| ReplicaKey::new(NodeId(node), Uuid::parse(id).unwrap());
        let first = (key(0, "JEXY6aqzQY-32P5TStzaFg"), Address::new("example.com", 8082));
        let second = (key(7, "MvDxzVmcRsaTz33bUuRU6A"), Address::new("::1", 8083));
        assert_eq!(told, [first, second]);
    }

    #[test]
    fn an_entry_that_is_wrong_is_named_with_what_is_allowed() {
        for item in [
            "example.com:8082:JEXY6aqzQY-32P5TStzaFg",
            "-1@h:1:JEXY6aqzQY-32P5TStzaFg",
            "1@h:JEXY6aqzQY-32P5TStzaFg",
            "1@h:0:JEXY6aqzQY-32P5TStzaFg",
            "1@h:1",
            "1@h:1:",
            "1@h:1:AAAAAAAAAAAAAAAAAAAAAQ",
            "1@::1:1:JEXY6aqzQY-32P5TStzaFg",
        ] {
            let refused = InitialControllers::parse(item).unwrap_err();
            assert!(refused.starts_with(&format!("'{item}' is no controller; allowed is a list of")), "{refused}");
        }
        let refused = |text| InitialControllers::parse(text).unwrap_err();
        insta::assert_snapshot!(refused(" ,"), @"no controller is named; allowed is a list of id@host:port:directory-id");
        insta::assert_snapshot!(refused("1@h:1:JEXY6aqzQY-32P5TStzaFg,1@h:2:MvDxzVmcRsaTz33bUuRU6A"), @"node 1 is named twice; allowed is each controller once");
        insta::assert_snapshot!(refused("1@h:1:JEXY6aqzQY-32P5TStzaFg,2@h:2:JEXY6aqzQY-32P5TStzaFg"), @"nodes 1 and 2 have the same directory id; allowed is one of its own each");
    }
}
