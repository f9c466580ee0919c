//! A scenario: everything that a seed draws, as data. It is drawn before anything runs. It can be written to a file,
//! changed, read back and run: the same scenario always runs the same. `draw` has what a seed draws.

mod draw;

use crate::client::{
    AdminPlan, ApplicationPlan, FetcherPlan, HostilePlan, ListerPlan, OperatorPlan, ProducerPlan, ReaderPlan,
    RegistrarPlan, TopicPlan, TrimmerPlan,
};
use crate::clock::ClockOptions;
use crate::cluster::{ClusterPlan, Voters};
use crate::disk::{Damage, DiskOptions, Loss};
use crate::network::{End, NetworkOptions, Ways};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    pub seed: u64,
    /// How large a world was drawn. It is for people: nothing depends on it.
    pub profile: Profile,
    pub nodes: u32,
    pub cluster: ClusterPlan,
    /// How long faults are dealt, in virtual time.
    pub fault_ns: u64,
    pub disk: DiskOptions,
    pub network: NetworkOptions,
    pub clock: ClockOptions,
    pub topics: Vec<TopicPlan>,
    /// The broker configuration of every node, without `node.id`, `log.dirs` and what follows from `cluster`.
    pub properties: BTreeMap<String, String>,
    pub value_bytes_max: u32,
    /// Whether brokers do rare things that nothing forces them to (`core/storage/src/buggify.rs`).
    pub buggify: bool,
    pub clients: Vec<ClientPlan>,
    pub faults: Vec<TimedFault>,
    /// Whether all nodes lose their power before the last reader begins.
    pub last_power_loss: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// One node, few clients, a second or two.
    #[default]
    Lite,
    /// Up to three topics, 32 partitions and ten clients; up to six seconds.
    Swarm,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientPlan {
    /// Names the client's random streams; if there is none, the client's place in the list does. With a number, the
    /// client behaves the same when other clients are taken out of the scenario.
    #[serde(default)]
    pub number: Option<u32>,
    /// The nodes whose addresses the client knows from the start; all, if there are none. A number that is no node's
    /// is an address where nobody listens.
    #[serde(default)]
    pub bootstrap: Vec<u32>,
    pub role: Role,
}

impl ClientPlan {
    fn new(role: Role) -> Self {
        Self { number: None, bootstrap: Vec::new(), role }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    Producer(ProducerPlan),
    Fetcher(FetcherPlan),
    Lister(ListerPlan),
    Trimmer(TrimmerPlan),
    Hostile(HostilePlan),
    Application(ApplicationPlan),
    Reader(ReaderPlan),
    Operator(OperatorPlan),
    /// Only where the voters are recorded.
    Registrar(RegistrarPlan),
    /// Unregisters a broker that is gone for good. The world adds it.
    #[serde(skip)]
    Unregistrar {
        node: u32,
    },
    /// At most one: it relies on being the only client that changes its topics, and the configs of all brokers.
    Admin(AdminPlan),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimedFault {
    pub at_ns: u64,
    pub node: u32,
    pub fault: Fault,
}

/// A fault that is dealt to a node at one moment. Faults of single disk commands and messages are ratios in
/// [`DiskOptions`] and [`NetworkOptions`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Fault {
    Crash {
        loss: Loss,
        down_ns: u64,
        /// The next processes crash too, each after this many steps: most of them in their recovery.
        again_after_steps: Vec<u32>,
    },
    /// A clean stop by the operator. Once the process has stopped, the page cache is lost or not (`loss`).
    Stop {
        loss: Loss,
        down_ns: u64,
        /// The stop does not finish: this many steps later the machine loses its power, or the process dies.
        #[serde(default)]
        crash_after_steps: Option<u32>,
    },
    /// An operator restarts all nodes, one after the other, beginning with this one. Each must serve again before the
    /// next is stopped, or has not come back in `patience_ns`.
    Rolling {
        /// Each process is asked to stop; otherwise it is ended as in a crash.
        clean: bool,
        loss: Loss,
        down_ns: u64,
        patience_ns: u64,
    },
    /// All connections break.
    CutAll,
    /// The node, and the ends `with` it, are cut off from the ends `from`, or from all others if that is empty, for
    /// `for_ns`. This happens `times` times, with pauses of `for_ns` between. What is sent during a partition arrives
    /// after it.
    Partition {
        #[serde(default)]
        with: Vec<End>,
        #[serde(default)]
        from: Vec<End>,
        ways: Ways,
        for_ns: u64,
        times: u32,
    },
    /// Each client and each other node is partitioned from the node. The partitions begin one after the other and end in another
    /// order.
    Swizzle {
        for_ns: u64,
    },
    /// After every step the process pauses for up to `step_ns_max`.
    Slow {
        for_ns: u64,
        step_ns_max: u64,
    },
    DiskFull {
        for_ns: u64,
    },
    /// Bytes on the disk are damaged. What the broker cannot rebuild is restored by an operator after `for_ns`, and the
    /// broker is restarted.
    Damage {
        damage: Damage,
        for_ns: u64,
    },
    /// The machine loses its power. For `for_ns` the next processes find an empty directory in the place of this log
    /// directory, as if its volume were not mounted.
    Unmount {
        dir: u16,
        for_ns: u64,
    },
    /// A controller alone loses its disk: with its power, all that it ever wrote is gone, and for `down_ns` it is down
    /// until it has an empty disk, formatted anew. It happens as soon as the quorum survives it
    /// (`world/disk_lost.rs`).
    LoseDisk {
        down_ns: u64,
    },
    /// A broker alone is taken away for good, as soon as it has no replica (`world/leave.rs`).
    Leave {
        /// An operator unregisters it then.
        unregister: bool,
    },
    WallJump {
        ms: i64,
    },
    /// The process stands still for `for_ns`, while its clocks run on.
    Pause {
        for_ns: u64,
    },
}

/// A quiet world, in which nothing happens. Fields that a scenario's file leaves out have these values, and `minimise`
/// tries to bring every field to them.
impl Default for Scenario {
    fn default() -> Self {
        Self {
            seed: 0,
            profile: Profile::default(),
            nodes: 1,
            cluster: ClusterPlan::default(),
            fault_ns: SECOND,
            disk: DiskOptions::default(),
            network: NetworkOptions::default(),
            clock: ClockOptions::default(),
            topics: Vec::new(),
            properties: BTreeMap::new(),
            value_bytes_max: 16,
            buggify: false,
            clients: Vec::new(),
            faults: Vec::new(),
            last_power_loss: false,
        }
    }
}

/// The most nodes that a cluster has.
const NODES_MAX: u32 = 7;

impl Scenario {
    /// What is wrong with a scenario that somebody wrote or changed, where its types alone do not tell. That the broker
    /// and the clients take their configuration is not asked here.
    pub fn check(&self) -> Result<(), String> {
        for (name, count) in [("nodes", self.nodes), ("disk.directories", self.disk.directories.into())] {
            if count == 0 {
                return Err(format!("{name} is 0, and must be 1 or more"));
            }
        }
        if self.nodes > NODES_MAX {
            return Err(format!("nodes is {}, and must be {NODES_MAX} or less", self.nodes));
        }
        self.cluster.check(self.nodes)?;
        let is_registrar = |plan: &ClientPlan| matches!(plan.role, Role::Registrar(_));
        if self.cluster.voters == Voters::Configured && self.clients.iter().any(is_registrar) {
            return Err("there is a registrar, and the voters are not recorded".into());
        }
        let last = self.nodes - 1;
        let is_broker = |node: &u32| *node <= last && self.cluster.role(*node).is_broker();
        let knows_none = |plan: &ClientPlan| !plan.bootstrap.is_empty() && !plan.bootstrap.iter().any(is_broker);
        if let Some(place) = self.clients.iter().position(knows_none) {
            let (known, brokers) = (&self.clients[place].bootstrap, self.cluster.brokers(self.nodes));
            let brokers: Vec<u32> = brokers.collect();
            return Err(format!("client {place} knows the nodes {known:?}, and the brokers are {brokers:?}"));
        }
        if let Some(place) = self.faults.iter().position(|fault| fault.node > last) {
            return Err(format!("fault {place} is on node {}, and the last is {last}", self.faults[place].node));
        }
        let leaves = |fault: &TimedFault| matches!(fault.fault, Fault::Leave { .. }).then_some(fault.node);
        let leaves: Vec<u32> = self.faults.iter().filter_map(leaves).collect();
        let first_known = |plan: &ClientPlan| plan.bootstrap.iter().copied().find(is_broker);
        let needs_one = |plan: &ClientPlan| first_known(plan).is_some_and(|node| leaves.contains(&node));
        if let Some(place) = self.clients.iter().position(needs_one) {
            return Err(format!("the first broker that client {place} knows may be gone for good"));
        }
        if let Some(topic) = self.topics.iter().find(|topic| topic.partitions < 1) {
            return Err(format!(
                "the topic {:?} has {} partitions, and must have 1 or more",
                topic.name, topic.partitions
            ));
        }
        let needs_topics = |plan: &ClientPlan| {
            use Role::{Admin, Fetcher, Hostile, Operator, Registrar, Unregistrar};
            !matches!(plan.role, Fetcher(_) | Hostile(_) | Operator(_) | Registrar(_) | Unregistrar { .. } | Admin(_))
        };
        if self.topics.is_empty() && self.clients.iter().any(needs_topics) {
            return Err("topics is empty, and there are clients that work with topics".into());
        }
        let ratios = [
            ("disk.stall", self.disk.stall),
            ("disk.read_error", self.disk.read_error),
            ("disk.write_error", self.disk.write_error),
            ("disk.name_error", self.disk.name_error),
            ("disk.sync_error", self.disk.sync_error),
            ("disk.sync_lie", self.disk.sync_lie),
            ("network.clog", self.network.clog),
            ("network.cut", self.network.cut),
            ("network.late_requests", self.network.late_requests),
            ("network.slow", self.network.slow),
            ("network.hang", self.network.hang),
        ];
        match ratios.iter().find(|(_, ratio)| ratio.among == 0) {
            Some((name, ratio)) => Err(format!("{name} is {} in 0; it must be in 1 or more", ratio.of)),
            None => Ok(()),
        }
    }

    /// Whether the voters may come to be others than the first ones.
    pub fn voters_change(&self) -> bool {
        self.cluster.joins_by_itself || self.clients.iter().any(|plan| matches!(plan.role, Role::Registrar(_)))
    }
}

/// The scenario as it is printed at the top of a trace: a field, or an entry of a list, on each line.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = serde_json::to_value(self).map_err(|_| fmt::Error)?;
        for (name, value) in whole.as_object().into_iter().flatten() {
            match value.as_array() {
                Some(list) if !list.is_empty() => {
                    for (place, entry) in list.iter().enumerate() {
                        writeln!(f, "{name}[{place}] {entry}")?;
                    }
                }
                _ => writeln!(f, "{name} {value}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::NodeRole;

    #[test]
    fn a_scenario_is_the_same_each_time_and_after_a_file() {
        for seed in 0..50 {
            let scenario = Scenario::draw(seed);
            assert_eq!(scenario, Scenario::draw(seed));
            let text = serde_json::to_string(&scenario).unwrap();
            assert_eq!(scenario, serde_json::from_str(&text).unwrap());
        }
    }

    #[test]
    fn what_a_seed_draws_can_begin_and_what_cannot_is_named() {
        assert!((0..200).all(|seed| Scenario::draw(seed).check().is_ok()));
        let error = |change: fn(&mut Scenario)| {
            let mut scenario = Scenario::draw(1);
            change(&mut scenario);
            scenario.check().unwrap_err()
        };
        assert_eq!(error(|scenario| scenario.nodes = 0), "nodes is 0, and must be 1 or more");
        assert_eq!(error(|scenario| scenario.nodes = 8), "nodes is 8, and must be 7 or less");
        let far = error(|scenario| scenario.clients[0].bootstrap = vec![9]);
        assert_eq!(far, "client 0 knows the nodes [9], and the brokers are [0]");
        let spare = error(|scenario| scenario.cluster.roles = vec![NodeRole::Both; 2]);
        assert_eq!(spare, "cluster.roles has 2 entries, and there are 1 nodes");
        let gone = error(|scenario| {
            scenario.nodes = 2;
            scenario.cluster.roles = vec![NodeRole::Both, NodeRole::Broker];
            scenario.clients[0].bootstrap = vec![1, 0];
            let fault = Fault::Leave { unregister: true };
            scenario.faults = vec![TimedFault { at_ns: 0, node: 1, fault }];
        });
        assert_eq!(gone, "the first broker that client 0 knows may be gone for good");
        assert!(error(|scenario| scenario.topics.clear()).starts_with("topics is empty"));
        assert!(error(|scenario| scenario.disk.stall.among = 0).starts_with("disk.stall is"));
    }
}
