//! The plan of a cluster of several nodes: what each node is, and how the controllers know each other. A cluster of one
//! node needs no plan: it forms itself on an empty disk.
//!
//! The nodes of a larger cluster find their directories formatted, as `tidelog format` leaves them: with the id of the
//! cluster, and with the voters if those are recorded.

use crate::disk::Disk;
use crate::network::Ways;
use crate::random::stream;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidelog_client::Address;
use tidelog_core::controller::InitialFeatures;
use tidelog_core::ids::{LeaderEpoch, LogDirId, NodeId, Offset, Uuid};
use tidelog_core::io::DiskPath;
use tidelog_core::quorum::{KRAFT_VERSIONS, ReplicaKey, Voter, VoterSet, encode_snapshot, kraft_version_record};
use tidelog_core::storage::checkpoints::MetaProperties;
use tidelog_core::storage::names;
use tidelog_core::time::WallMs;

/// What the nodes of a cluster of several nodes are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterPlan {
    /// By node. A node without an entry has both roles.
    pub roles: Vec<NodeRole>,
    pub voters: Voters,
    /// The controllers that are no voters at first, where the voters are recorded (`--no-initial-controllers`).
    pub joining: Vec<u32>,
    /// Controllers that are no voters ask to become some (`controller.quorum.auto.join.enable`).
    pub joins_by_itself: bool,
    /// The nodes that stay cut off when everything else is healed.
    pub cut_off: Vec<CutOff>,
}

/// A node that is cut off from all others for good, once no other faults are dealt any more. It is a controller alone,
/// and most controllers are none: then nobody needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutOff {
    pub node: u32,
    pub ways: Ways,
}

/// What a node is in its cluster (`process.roles`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeRole {
    #[default]
    Both,
    Broker,
    Controller,
}

impl NodeRole {
    pub fn is_broker(self) -> bool {
        self != Self::Controller
    }

    pub fn is_controller(self) -> bool {
        self != Self::Broker
    }

    fn property(self) -> &'static str {
        match self {
            Self::Both => "broker,controller",
            Self::Broker => "broker",
            Self::Controller => "controller",
        }
    }
}

/// Where the first voters of the quorum are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Voters {
    /// In `controller.quorum.voters` of every node.
    #[default]
    Configured,
    /// In the metadata log of each of them (KIP-853). The other nodes know addresses at which they find a controller.
    Recorded,
}

/// The ports of a node's listeners.
pub const CLIENT_PORT: u16 = 9092;
pub const CONTROLLER_PORT: u16 = 9093;
pub const CONTROLLER_LISTENER: &str = "CONTROLLER";

/// The name of a node's machine.
pub fn host_name(node: u32) -> String {
    format!("node{node}")
}

/// Where a node listens for clients.
pub fn address(node: u32) -> Address {
    Address::new(host_name(node), CLIENT_PORT)
}

/// Where a controller listens for the other nodes.
pub fn controller_address(node: u32) -> Address {
    Address::new(host_name(node), CONTROLLER_PORT)
}

/// The node whose machine an address names.
pub fn node_at(address: &Address) -> Option<u32> {
    address.host.strip_prefix("node")?.parse().ok()
}

/// A node's `node.id`.
pub fn node_id(node: u32) -> NodeId {
    NodeId(node as i32 + 1)
}

/// One node of a cluster of several.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    pub seed: u64,
    pub plan: &'a ClusterPlan,
    /// How many nodes the cluster has.
    pub nodes: u32,
    pub node: u32,
    /// How many disks it has lost.
    pub disk: u32,
}

impl ClusterPlan {
    pub fn role(&self, node: u32) -> NodeRole {
        self.roles.get(node as usize).copied().unwrap_or_default()
    }

    /// The controllers among so many nodes.
    pub fn controllers(&self, nodes: u32) -> impl Iterator<Item = u32> {
        (0..nodes).filter(|node| self.role(*node).is_controller())
    }

    /// The first voters among so many nodes.
    pub fn first_voters(&self, nodes: u32) -> impl Iterator<Item = u32> {
        self.controllers(nodes).filter(|node| !self.joining.contains(node))
    }

    /// The brokers among so many nodes.
    pub fn brokers(&self, nodes: u32) -> impl Iterator<Item = u32> {
        (0..nodes).filter(|node| self.role(*node).is_broker())
    }

    /// What is wrong with the plan for so many nodes.
    pub fn check(&self, nodes: u32) -> Result<(), String> {
        if self.roles.len() > nodes as usize {
            return Err(format!("cluster.roles has {} entries, and there are {nodes} nodes", self.roles.len()));
        }
        if let Some(cut_off) = self.cut_off.iter().find(|cut_off| self.role(cut_off.node) != NodeRole::Controller) {
            return Err(format!("cluster.cut_off names node {}, which is no controller alone", cut_off.node));
        }
        if self.voters == Voters::Configured && (!self.joining.is_empty() || self.joins_by_itself) {
            return Err("cluster.joining and cluster.joins_by_itself are for voters that are recorded".into());
        }
        if let Some(node) = self.joining.iter().find(|node| !self.controllers(nodes).any(|of| of == **node)) {
            return Err(format!("cluster.joining names node {node}, which is no controller"));
        }
        if self.controllers(nodes).next().is_some() && self.first_voters(nodes).next().is_none() {
            return Err("cluster.joining leaves no first voter".into());
        }
        if !self.cut_off.is_empty() && self.first_voters(nodes).count() <= 2 * self.cut_off.len() {
            return Err("cluster.cut_off leaves no majority of the controllers".into());
        }
        if self.controllers(nodes).next().is_none() || self.brokers(nodes).next().is_none() {
            return Err("cluster.roles has no broker or no controller".into());
        }
        match nodes {
            1 if *self != Self::default() => Err("cluster is for several nodes, and there is one".into()),
            _ => Ok(()),
        }
    }
}

impl Member<'_> {
    /// The configuration that makes the node one of the cluster.
    pub fn properties(&self) -> BTreeMap<String, String> {
        let role = self.plan.role(self.node);
        let host = host_name(self.node);
        let clients = role.is_broker().then(|| format!("PLAINTEXT://{host}:{CLIENT_PORT}"));
        let controllers = role.is_controller().then(|| format!("{CONTROLLER_LISTENER}://{host}:{CONTROLLER_PORT}"));
        let listeners: Vec<String> = clients.into_iter().chain(controllers).collect();
        let at = |node: u32| controller_address(node).to_string();
        let known = self.plan.controllers(self.nodes);
        let (voters, known): (_, Vec<String>) = match self.plan.voters {
            Voters::Configured => {
                let voter = |node| format!("{}@{}", node_id(node), at(node));
                ("controller.quorum.voters", known.map(voter).collect())
            }
            Voters::Recorded => ("controller.quorum.bootstrap.servers", known.map(at).collect()),
        };
        let properties = [
            ("process.roles", role.property().to_owned()),
            ("listeners", listeners.join(",")),
            ("controller.listener.names", CONTROLLER_LISTENER.to_owned()),
            (voters, known.join(",")),
        ];
        let joins = ("controller.quorum.auto.join.enable", "true".to_owned());
        let joins = (self.plan.joins_by_itself && role.is_controller()).then_some(joins);
        properties.into_iter().chain(joins).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The id of the cluster, the same on all nodes.
    fn cluster_id(&self) -> Uuid {
        Uuid::from_bytes(stream(self.seed, "cluster.id", &[]).bytes_16())
    }

    /// The id of the directory in which the metadata log of this disk lies: the first one.
    pub fn metadata_directory(&self) -> Uuid {
        directory_id(self.seed, self.node, self.disk, 0)
    }

    /// The first voters. The metadata log lies in a node's first directory.
    fn voters(&self) -> VoterSet {
        let voter = |node| Voter {
            key: ReplicaKey::new(node_id(node), directory_id(self.seed, node, 0, 0)),
            endpoints: [(CONTROLLER_LISTENER, host_name(node), CONTROLLER_PORT)].into_iter().collect(),
            kraft_versions: KRAFT_VERSIONS,
        };
        self.plan.first_voters(self.nodes).map(voter).collect()
    }

    /// Formats the node's directories, of which there are so many, as `tidelog format` does.
    pub fn format(&self, disk: &mut Disk, directories: u16) {
        let (wall, never) = (WallMs(crate::clock::WALL_START_MS), WallMs(0));
        let is_recorded = self.plan.voters == Voters::Recorded;
        let features = InitialFeatures::newest(is_recorded);
        let values: Vec<_> = features.records().iter().map(|record| record.encode(record.newest_version())).collect();
        let bootstrap = encode_snapshot(LeaderEpoch(0), wall, never, &[], &values);
        for dir in 0..directories {
            let mut put = |path: &str, content: &[u8]| {
                disk.put(&DiskPath { dir: LogDirId(dir), path: path.to_owned() }, content);
            };
            put(names::BOOTSTRAP_CHECKPOINT, &bootstrap);
            // A disk in the place of a lost one is formatted with --no-initial-controllers: there are voters already.
            let is_first = self.disk == 0;
            if dir == 0 && is_recorded && is_first && self.plan.first_voters(self.nodes).any(|node| node == self.node) {
                let quorum = [kraft_version_record(features.kraft_version()), self.voters().record()];
                let snapshot = encode_snapshot(LeaderEpoch(0), wall, wall, &quorum, &[]);
                let file = names::metadata_snapshot_file(Offset::ZERO, LeaderEpoch(0));
                put(&format!("{}/{file}", names::METADATA_PARTITION_DIR), &snapshot);
            }
            let meta = MetaProperties {
                version: 1,
                cluster_id: Some(self.cluster_id().to_string().into()),
                node_id: Some(node_id(self.node)),
                directory_id: Some(directory_id(self.seed, self.node, self.disk, dir)),
            };
            put(names::META_PROPERTIES, &meta.encode());
        }
    }
}

fn directory_id(seed: u64, node: u32, disk: u32, dir: u16) -> Uuid {
    let (of_first, of_later) = ([node.into(), dir.into()], [node.into(), dir.into(), disk.into()]);
    let place = if disk == 0 { &of_first[..] } else { &of_later[..] };
    Uuid::from_bytes(stream(seed, "directory.id", place).bytes_16())
}

#[cfg(test)]
mod tests {
    use super::*;
    use NodeRole::{Both, Broker, Controller};
    use std::collections::BTreeSet;

    fn plan(roles: &[NodeRole]) -> ClusterPlan {
        ClusterPlan { roles: roles.to_vec(), ..ClusterPlan::default() }
    }

    #[test]
    fn a_plan_has_brokers_and_controllers_and_no_more_roles_than_nodes() {
        assert_eq!(plan(&[]).check(1), Ok(()));
        assert_eq!(plan(&[Controller, Broker]).check(2), Ok(()));
        assert_eq!(plan(&[Broker, Broker]).check(3), Ok(()));
        assert_eq!(plan(&[Both; 3]).check(2).unwrap_err(), "cluster.roles has 3 entries, and there are 2 nodes");
        for lacking in [[Broker; 2], [Controller; 2]] {
            assert_eq!(plan(&lacking).check(2).unwrap_err(), "cluster.roles has no broker or no controller");
        }
        let cut_off = |node| ClusterPlan {
            cut_off: vec![CutOff { node, ways: Ways::Both }],
            ..plan(&[Controller, Both, Both, Controller, Controller, Broker])
        };
        assert_eq!(cut_off(3).check(6), Ok(()));
        assert_eq!(cut_off(1).check(6).unwrap_err(), "cluster.cut_off names node 1, which is no controller alone");
        let two = ClusterPlan { roles: vec![Controller, Both], ..cut_off(0) };
        assert_eq!(two.check(2).unwrap_err(), "cluster.cut_off leaves no majority of the controllers");
        assert_eq!(plan(&[Both]).check(1).unwrap_err(), "cluster is for several nodes, and there is one");
    }

    #[test]
    fn a_member_listens_for_its_roles_and_knows_the_controllers() {
        let told = |roles: &[NodeRole], voters, node| {
            let plan = ClusterPlan { voters, ..plan(roles) };
            let properties = Member { seed: 1, plan: &plan, nodes: 3, node, disk: 0 }.properties();
            let mut told: Vec<String> = properties.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
            told.retain(|line| !line.starts_with("controller.listener"));
            told
        };
        assert_eq!(
            told(&[], Voters::Configured, 1),
            [
                "controller.quorum.voters=1@node0:9093,2@node1:9093,3@node2:9093",
                "listeners=PLAINTEXT://node1:9092,CONTROLLER://node1:9093",
                "process.roles=broker,controller"
            ]
        );
        assert_eq!(
            told(&[Both, Broker, Controller], Voters::Recorded, 1),
            [
                "controller.quorum.bootstrap.servers=node0:9093,node2:9093",
                "listeners=PLAINTEXT://node1:9092",
                "process.roles=broker"
            ]
        );
    }

    #[test]
    fn formatting_gives_every_directory_an_id_and_names_the_voters_once() {
        let plan = ClusterPlan { voters: Voters::Recorded, ..plan(&[Both, Broker]) };
        let mut ids = BTreeSet::new();
        for node in 0..2 {
            let options = crate::disk::DiskOptions { directories: 2, ..Default::default() };
            let mut disk = Disk::new(7, node.into(), options);
            Member { seed: 7, plan: &plan, nodes: 2, node, disk: 0 }.format(&mut disk, 2);
            let files: Vec<String> = (0..2).flat_map(|dir| disk.files(dir)).collect();
            let has_voters = files.iter().any(|file| file.ends_with("0000000000.checkpoint"));
            assert_eq!((files.len(), has_voters), if node == 0 { (5, true) } else { (4, false) }, "{files:?}");
            for dir in 0..2 {
                let meta = MetaProperties::decode("it", &disk.content(dir, "meta.properties")).unwrap();
                assert_eq!((meta.node_id, meta.cluster_id.is_some()), (Some(node_id(node)), true));
                ids.insert(meta.directory_id);
            }
        }
        assert_eq!(ids.len(), 4);
    }
}
