//! A scenario: everything that a seed draws, as data. It is drawn before anything runs. It can be written to a file,
//! changed, read back and run: the same scenario always runs the same.
//!
//! A seed draws which kinds of faults there are, then how frequent and how long each is. Half of the seeds are `lite`:
//! the same faults in a small and short world, of which many run in a minute.

use crate::client::records::Codec;
use crate::client::{
    AdminPlan, ApplicationPlan, FetcherPlan, HostilePlan, ListerPlan, OperatorPlan, ProducerPlan, ReaderPlan,
    RegistrarPlan, TopicPlan, TrimmerPlan,
};
use crate::clock::{ClockOptions, Drift};
use crate::cluster::{ClusterPlan, CutOff, NodeRole, Voters};
use crate::disk::{Damage, DiskOptions, Loss};
use crate::network::{End, NetworkOptions, Ways};
use crate::random::{Ratio, Stream, Streams};
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
    pub fn draw(seed: u64) -> Self {
        Self::chosen(seed, &[])
    }

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
        if let Some(topic) = self.topics.iter().find(|topic| topic.partitions < 1) {
            return Err(format!(
                "the topic {:?} has {} partitions, and must have 1 or more",
                topic.name, topic.partitions
            ));
        }
        let needs_topics = |plan: &ClientPlan| {
            use Role::{Admin, Fetcher, Hostile, Operator, Registrar};
            !matches!(plan.role, Fetcher(_) | Hostile(_) | Operator(_) | Registrar(_) | Admin(_))
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

    /// The scenario of a seed, in which a fuzzer's bytes choose what is drawn first ([`Streams`]).
    pub fn chosen(seed: u64, bytes: &[u8]) -> Self {
        let mut streams = Streams::new(seed, bytes);
        let mut swarm = streams.stream("scenario", &[]);
        let profile = if swarm.one_in(2) { Profile::Lite } else { Profile::Swarm };
        let fault_ns = match profile {
            Profile::Lite => swarm.between(500, 2_000) * MS,
            Profile::Swarm => swarm.between(1, 6) * SECOND,
        };
        let (nodes, cluster) = draw_cluster(&mut streams.stream("scenario.cluster", &[]));
        let topics = draw_topics(profile, &mut streams);
        let segment_bytes = smallest_segment(&topics);
        // A batch must fit into a segment: twelve records with their keys and headers.
        let value_bytes_max = [16, 100, 1_000, 3_000][swarm.below(4) as usize].min((segment_bytes / 12).max(116) - 100);
        let batch_records_max = if segment_bytes < 2_048 { 8 } else { 12 };
        let size = Size { profile, fault_ns, batch_records_max };
        let mut clients = draw_clients(&mut streams.stream("scenario.clients", &[]), &size);
        let mut applications = streams.stream("scenario.applications", &[]);
        clients.extend(draw_applications(&mut applications, fault_ns, segment_bytes));
        let brokers: Vec<u32> = cluster.brokers(nodes).collect();
        for (place, plan) in clients.iter_mut().enumerate() {
            plan.number = Some(place as u32);
            plan.bootstrap =
                draw_bootstrap(&mut streams.stream("scenario.bootstrap", &[place as u64]), nodes, &brokers);
        }
        let disk = draw_disk(&mut streams.stream("scenario.disk", &[]));
        let network = draw_network(&mut streams);
        let clock = draw_clock(&mut streams.stream("scenario.clock", &[]));
        let mut properties = draw_properties(&mut streams.stream("scenario.properties", &[]), &topics);
        if nodes > 1 {
            properties.extend(draw_times(&mut streams.stream("scenario.times", &[]), &network));
        }
        let mut scenario = Self {
            seed,
            profile,
            nodes,
            fault_ns,
            disk,
            network,
            clock,
            properties,
            topics,
            value_bytes_max,
            buggify: !swarm.one_in(4),
            clients,
            faults: draw_faults(&mut streams, nodes, fault_ns),
            cluster,
            last_power_loss: swarm.one_in(2),
        };
        scenario.draw_changes_of_voters(&mut streams);
        scenario
    }

    /// What changes the voters of a cluster: disks that are lost, controllers that become voters, and an operator.
    fn draw_changes_of_voters(&mut self, streams: &mut Streams<'_>) {
        let (nodes, fault_ns) = (self.nodes, self.fault_ns);
        let lost = draw_lost_disks(&mut streams.stream("scenario.disks", &[]), nodes, fault_ns, &self.cluster);
        let only_replaces = !lost.is_empty();
        self.faults.extend(lost);
        let registrar = draw_voters(&mut streams.stream("scenario.voters", &[]), nodes, fault_ns, &mut self.cluster);
        if let Some(plan) = registrar {
            let number = self.clients.len() as u32;
            let brokers: Vec<u32> = self.cluster.brokers(nodes).collect();
            let mut stream = streams.stream("scenario.bootstrap", &[number.into()]);
            let bootstrap = draw_bootstrap(&mut stream, nodes, &brokers);
            let role = Role::Registrar(RegistrarPlan { only_replaces, ..plan });
            self.clients.push(ClientPlan { number: Some(number), bootstrap, role });
        }
    }
}

struct Size {
    profile: Profile,
    fault_ns: u64,
    batch_records_max: u64,
}

/// How many nodes there are, and what they are: two of five seeds have one node.
fn draw_cluster(stream: &mut Stream) -> (u32, ClusterPlan) {
    if stream.below(5) < 2 {
        return (1, ClusterPlan::default());
    }
    let controllers = *stream.pick(&[1, 3, 3, 3, 3, 3, 3, 2, 5]);
    let is_apart = stream.one_in(3);
    let brokers = match (is_apart, controllers) {
        (true, _) => stream.between(1, 2) as usize,
        (false, 1) => stream.between(1, 2) as usize,
        (false, _) => stream.below(3) as usize,
    };
    let of_controllers = if is_apart { NodeRole::Controller } else { NodeRole::Both };
    let mut roles = [vec![of_controllers; controllers], vec![NodeRole::Broker; brokers]].concat();
    if stream.one_in(2) {
        roles.reverse();
    }
    let voters = *stream.pick(&[Voters::Configured, Voters::Recorded]);
    let nodes = roles.len() as u32;
    let cut_off = (0..nodes).filter(|node| roles[*node as usize] == NodeRole::Controller).take((controllers - 1) / 2);
    let cut_off: Vec<u32> = if stream.one_in(2) { cut_off.collect() } else { Vec::new() };
    let cut_off = cut_off.into_iter().map(|node| CutOff { node, ways: *stream.pick(&Ways::ALL) });
    let cut_off = cut_off.collect();
    (nodes, ClusterPlan { roles, voters, cut_off, ..ClusterPlan::default() })
}

/// How the voters change, where they are recorded: controllers that are none at first, or that ask to become some, and
/// an operator.
fn draw_voters(stream: &mut Stream, nodes: u32, fault_ns: u64, cluster: &mut ClusterPlan) -> Option<RegistrarPlan> {
    if cluster.voters == Voters::Configured || nodes == 1 {
        return None;
    }
    cluster.joins_by_itself = stream.one_in(4);
    let controllers: Vec<u32> = cluster.controllers(nodes).collect();
    // Where some voters will be cut off, the others must be a majority from the start.
    if cluster.cut_off.is_empty() && controllers.len() > 1 && stream.one_in(3) {
        let joining = stream.between(1, controllers.len() as u64 - 1) as usize;
        cluster.joining = controllers[..joining].to_vec();
    }
    let changes = stream.between(1, 8) as u32;
    let gap_ns_max = 2 * fault_ns / u64::from(changes);
    (!stream.one_in(3)).then_some(RegistrarPlan { changes, gap_ns_max, only_replaces: false })
}

fn draw_topics(profile: Profile, streams: &mut Streams<'_>) -> Vec<TopicPlan> {
    let mut swarm = streams.stream("scenario.topics", &[]);
    let mut draw = |place: u64, stream: &mut Stream| {
        let auto_created = stream.one_in(4);
        let mut configs = BTreeMap::new();
        let mut set = |name: &str, value: String| {
            if !auto_created {
                configs.insert(name.to_string(), value);
            }
        };
        if !stream.one_in(4) {
            set("internal.segment.bytes", (1 << (10 + stream.below(6))).to_string());
        }
        if stream.one_in(4) {
            set("retention.ms", stream.between(1_000, 3_000).to_string());
        }
        if stream.one_in(4) {
            set("retention.bytes", [0, 1_000, 4_000, 20_000][stream.below(4) as usize].to_string());
        }
        if stream.one_in(2) {
            set("file.delete.delay.ms", [0, 100, 1_000][stream.below(3) as usize].to_string());
        }
        if stream.one_in(2) {
            set("index.interval.bytes", [0, 1, 100, 1_000][stream.below(4) as usize].to_string());
        }
        if stream.one_in(4) {
            set("segment.index.bytes", [24, 120, 1_000][stream.below(3) as usize].to_string());
        }
        if stream.one_in(4) {
            set("message.timestamp.type", "LogAppendTime".into());
        }
        if stream.one_in(5) {
            set("compression.type", ["gzip", "snappy", "lz4", "zstd", "uncompressed"][stream.below(5) as usize].into());
        }
        if stream.one_in(6) {
            set("acks.require.fsync", "false".into());
            if stream.one_in(2) {
                set("flush.messages", [1, 3, 20][stream.below(3) as usize].to_string());
            }
            if stream.one_in(2) {
                set("flush.ms", [0, 10, 500][stream.below(3) as usize].to_string());
            }
        }
        if stream.one_in(8) {
            set("preallocate", "true".into());
        }
        let mut times = streams.stream("scenario.topic.times", &[place]);
        if times.one_in(5) {
            set("segment.ms", times.pick(&[1, 50, 1_000]).to_string());
            set("segment.jitter.ms", times.pick(&[0, 20]).to_string());
        }
        if times.one_in(6) {
            set("flush.messages", times.between(1, 5).to_string());
            set("flush.ms", times.between(0, 100).to_string());
        }
        let partitions = match profile {
            Profile::Lite => stream.between(1, 2) as i32,
            Profile::Swarm if stream.one_in(16) => [8, 16, 32][stream.below(3) as usize],
            Profile::Swarm => stream.between(1, 4) as i32,
        };
        // More often where it matters to retention.
        let among = if configs.contains_key("retention.ms") { 2 } else { 8 };
        let without_timestamps = times.one_in(among);
        TopicPlan { name: format!("topic-{place}"), partitions, replicas: 1, auto_created, configs, without_timestamps }
    };
    let count = match profile {
        Profile::Swarm if swarm.one_in(3) => swarm.between(2, 3),
        _ => 1,
    };
    let mut topics: Vec<TopicPlan> = (0..count).map(|place| draw(place, &mut swarm)).collect();
    // Topics that are created automatically all have the number of partitions that the broker's `num.partitions` says.
    let default = topics[0].partitions;
    topics.iter_mut().filter(|topic| topic.auto_created).for_each(|topic| topic.partitions = default);
    topics
}

fn smallest_segment(topics: &[TopicPlan]) -> u32 {
    let segments = topics.iter().filter_map(|topic| topic.configs.get("internal.segment.bytes")?.parse().ok());
    segments.min().unwrap_or(1 << 20)
}

/// Broker properties that are drawn. Each has its name, in how many seeds one sets it, and the values to choose from.
const PROPERTIES: [(&str, u32, &[&str]); 12] = [
    ("max.incremental.fetch.session.cache.slots", 3, &["0", "1", "2"]),
    ("metadata.log.max.record.bytes.between.snapshots", 3, &["1", "500", "2000"]),
    ("internal.metadata.log.segment.bytes", 3, &["1024", "4096"]),
    ("log.flush.offset.checkpoint.interval.ms", 3, &["100", "1000"]),
    ("log.flush.start.offset.checkpoint.interval.ms", 4, &["100", "1000"]),
    ("replica.high.watermark.checkpoint.interval.ms", 4, &["20", "100"]),
    ("metadata.log.max.snapshot.interval.ms", 4, &["1", "200"]),
    ("max.request.partition.size.limit", 4, &["1", "2"]),
    ("log.segment.delete.delay.ms", 4, &["0", "300"]),
    ("log.index.size.max.bytes", 6, &["24", "120"]),
    ("log.index.interval.bytes", 4, &["0", "64", "512"]),
    ("controlled.shutdown.enable", 8, &["false"]),
];

fn draw_properties(stream: &mut Stream, topics: &[TopicPlan]) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    let mut set = |name: &str, value: &str| properties.insert(name.to_string(), value.to_string());
    set("num.partitions", &topics[0].partitions.to_string());
    set("auto.create.topics.enable", "true");
    // On a node whose wall clock was set back by an hour, the timestamps of clients lie in the future.
    set("log.message.timestamp.after.max.ms", "86400000");
    if topics.iter().any(TopicPlan::has_retention) || stream.one_in(5) {
        set("log.retention.check.interval.ms", ["100", "500", "1000"][stream.below(3) as usize]);
    }
    for (name, among, values) in PROPERTIES {
        if stream.one_in(among) {
            let value = stream.pick(values);
            set(name, value);
        }
    }
    properties
}

/// How soon the nodes of a cluster give each other up. What is as short as the network is slow would let no leader stay.
fn draw_times(stream: &mut Stream, network: &NetworkOptions) -> BTreeMap<String, String> {
    let slowness = if network.delay_ns_max > 10 * MS { 4 } else { 1 };
    let mut times = BTreeMap::new();
    let mut set = |name: &str, ms: u64| times.insert(name.to_string(), ms.to_string());
    if stream.one_in(2) {
        set("controller.quorum.fetch.timeout.ms", slowness * stream.pick(&[300, 600, 1_000]));
        set("controller.quorum.election.timeout.ms", slowness * stream.pick(&[50, 200, 500]));
        set("controller.quorum.election.backoff.max.ms", *stream.pick(&[20, 200, 1_000]));
        set("controller.quorum.request.timeout.ms", slowness * stream.pick(&[200, 1_000]));
        set("controller.quorum.retry.backoff.ms", *stream.pick(&[1, 20, 100]));
    }
    if stream.one_in(8) {
        set("metadata.max.idle.interval.ms", *stream.pick(&[10, 20, 100]));
    }
    times
}

fn draw_clients(stream: &mut Stream, size: &Size) -> Vec<ClientPlan> {
    let Size { profile, fault_ns, batch_records_max } = *size;
    let (producers, batches_max, fetchers) = match profile {
        Profile::Lite => (2, 20, 1),
        Profile::Swarm => (4, 60, 2),
    };
    let mut clients = Vec::new();
    for _ in 0..stream.between(1, producers) {
        let idempotent = !stream.one_in(3);
        let acks = match stream.below(6) {
            0 if !idempotent => 0,
            1 => 1,
            _ => -1,
        };
        let batches = stream.between(5, batches_max) as u32;
        let role = Role::Producer(ProducerPlan {
            idempotent,
            acks: if idempotent { -1 } else { acks },
            batches,
            batch_records_max: stream.between(1, batch_records_max) as u32,
            gap_ns_max: 4 * fault_ns / u64::from(batches),
            requests_in_flight_max: stream.between(1, 5) as u32,
            partitions_per_request_max: stream.between(1, 3) as u32,
            // Only without idempotence: an idempotent batch that times out often enough is no longer one of the
            // five that a broker remembers of its producer.
            timeout_ms: if !idempotent && stream.one_in(2) { [1, 20, 300][stream.below(3) as usize] } else { 5_000 },
            codec: if stream.one_in(2) { Codec::None } else { *stream.pick(&Codec::ALL) },
        });
        clients.push(ClientPlan::new(role));
    }
    for _ in 0..stream.between(1, fetchers) {
        // A fetch that waits for long shows whether an append wakes it: `wakeups` judges that.
        let waits_long = stream.one_in(5);
        let role = Role::Fetcher(FetcherPlan {
            with_session: stream.one_in(2),
            max_wait_ms: if waits_long { 9_000 } else { [0, 10, 100, 500][stream.below(4) as usize] },
            min_bytes: if waits_long { 1 } else { [0, 1, 100, 5_000][stream.below(4) as usize] },
            max_bytes: [1, 1_000, 50_000_000][stream.below(3) as usize],
            partition_max_bytes: [1, 500, 1_000_000][stream.below(3) as usize],
            gap_ns_max: stream.between(1, 200) * MS,
            last: false,
        });
        clients.push(ClientPlan::new(role));
    }
    if stream.one_in(2) {
        let gap_ns_max = stream.between(10, 500) * MS;
        clients.push(ClientPlan::new(Role::Lister(ListerPlan { gap_ns_max })));
    }
    if stream.one_in(3) {
        let gap_ns_max = stream.between(10, 500) * MS;
        let volley_max = stream.between(1, 8) as u32;
        clients.push(ClientPlan::new(Role::Hostile(HostilePlan { gap_ns_max, volley_max })));
    }
    if stream.one_in(3) {
        let role = Role::Admin(AdminPlan {
            topics: stream.between(1, 4) as u32,
            partitions_max: stream.between(1, 3) as i32,
            gap_ns_max: stream.between(10, 300) * MS,
            only_looks: false,
        });
        clients.push(ClientPlan::new(role));
    }
    if stream.one_in(5) {
        let gap_ns_max = stream.between(50, 1_000) * MS;
        let step_max = stream.between(1, 30) as u32;
        clients.push(ClientPlan::new(Role::Trimmer(TrimmerPlan { gap_ns_max, step_max })));
    }
    clients
}

/// Clients that use Tidelog's own producer, consumer and admin.
fn draw_applications(stream: &mut Stream, fault_ns: u64, segment_bytes: u32) -> Vec<ClientPlan> {
    let mut clients = Vec::new();
    if stream.one_in(2) {
        let plan = draw_application(stream, fault_ns, segment_bytes);
        clients.push(ClientPlan::new(Role::Application(plan)));
    }
    if stream.one_in(2) {
        clients.push(ClientPlan::new(Role::Reader(draw_reader(stream))));
    }
    if stream.one_in(4) {
        clients.push(ClientPlan::new(Role::Operator(draw_operator(stream, fault_ns))));
    }
    clients
}

/// The nodes that a client knows from the start: a broker, some others, and perhaps first of all one that is none.
fn draw_bootstrap(stream: &mut Stream, nodes: u32, brokers: &[u32]) -> Vec<u32> {
    let first = *stream.pick(brokers);
    let mut known = vec![first];
    let others = (0..nodes).filter(|node| *node != first);
    known.extend(others.filter(|_| stream.one_in(3)));
    if stream.one_in(8) {
        known.insert(0, nodes);
    }
    known
}

fn draw_application(stream: &mut Stream, fault_ns: u64, segment_bytes: u32) -> ApplicationPlan {
    let mut properties = BTreeMap::new();
    let mut set = |name: &str, value: String| properties.insert(name.to_string(), value);
    match stream.below(6) {
        0 => {
            set("acks", "0".into());
        }
        1 => {
            set("acks", "1".into());
        }
        2 => {
            set("enable.idempotence", "false".into());
        }
        _ => {}
    }
    set("linger.ms", [0, 5, 50][stream.below(3) as usize].to_string());
    // A batch must fit into a segment, and values of random bytes grow when they are compressed.
    set("batch.size", [1, 300, 16_384][stream.below(3) as usize].min(segment_bytes / 2).to_string());
    set("max.in.flight.requests.per.connection", stream.between(1, 5).to_string());
    set("compression.type", ["none", "none", "gzip", "snappy", "lz4", "zstd"][stream.below(6) as usize].into());
    let request_timeout_ms = stream.between(1_000, 10_000);
    set("request.timeout.ms", request_timeout_ms.to_string());
    set("delivery.timeout.ms", (request_timeout_ms + stream.between(50, 40_000)).to_string());
    if stream.one_in(3) {
        set("metadata.max.age.ms", stream.between(100, 5_000).to_string());
    }
    if stream.one_in(4) {
        set("connections.max.idle.ms", stream.between(50, 2_000).to_string());
    }
    let records = stream.between(10, 200) as u32;
    let burst_max = stream.between(1, 20) as u32;
    let gap_ns_max = fault_ns * u64::from(burst_max) / u64::from(records);
    ApplicationPlan { records, burst_max, gap_ns_max, properties }
}

fn draw_reader(stream: &mut Stream) -> ReaderPlan {
    let mut properties = BTreeMap::new();
    let mut set = |name: &str, value: u64| properties.insert(name.to_string(), value.to_string());
    set("fetch.min.bytes", [1, 100, 5_000][stream.below(3) as usize]);
    set("fetch.max.wait.ms", [20, 100][stream.below(2) as usize]);
    set("fetch.max.bytes", [1, 1_000, 50_000_000][stream.below(3) as usize]);
    set("max.partition.fetch.bytes", [1, 500, 1_000_000][stream.below(3) as usize]);
    set("max.poll.records", [1, 7, 500][stream.below(3) as usize]);
    set("request.timeout.ms", stream.between(1_000, 10_000));
    if stream.one_in(3) {
        set("metadata.max.age.ms", stream.between(100, 5_000));
    }
    ReaderPlan { gap_ns_max: stream.between(1, 300) * MS, properties }
}

fn draw_operator(stream: &mut Stream, fault_ns: u64) -> OperatorPlan {
    let operations = stream.between(5, 40) as u32;
    let number = |name: &str, value: u64| (name.to_string(), value.to_string());
    let properties = BTreeMap::from([
        number("request.timeout.ms", stream.between(1_000, 10_000)),
        number("default.api.timeout.ms", stream.between(10_000, 30_000)),
    ]);
    OperatorPlan { operations, gap_ns_max: 2 * fault_ns / u64::from(operations), properties }
}

fn draw_disk(stream: &mut Stream) -> DiskOptions {
    let mut rare = |on: u32, low: u64, high: u64| {
        let among = stream.between(low, high) as u32;
        if stream.one_in(on) { Ratio::new(1, among) } else { Ratio::NEVER }
    };
    DiskOptions {
        read_error: rare(8, 50, 2_000),
        write_error: rare(8, 100, 2_000),
        sync_error: rare(5, 20, 500),
        sync_lie: Ratio::NEVER,
        name_error: rare(8, 100, 2_000),
        stall: rare(3, 20, 500),
        stall_ns_max: stream.between(10, 3_000) * MS,
        latency_ns_max: [10_000, 200_000, 5 * MS][stream.below(3) as usize],
        sync_ns_max: [100_000, 2 * MS, 30 * MS][stream.below(3) as usize],
        directories: if stream.one_in(4) { 2 } else { 1 },
    }
}

fn draw_network(streams: &mut Streams<'_>) -> NetworkOptions {
    let hang = streams.stream("scenario.network.hang", &[]).one_in(3);
    let mut stream = streams.stream("scenario.network", &[]);
    NetworkOptions {
        delay_ns_max: [100_000, 2 * MS, 100 * MS][stream.below(3) as usize],
        clog: if stream.one_in(3) { Ratio::new(1, stream.between(20, 500) as u32) } else { Ratio::NEVER },
        clog_ns_max: stream.between(1, 2_000) * MS,
        cut: if stream.one_in(2) { Ratio::new(1, stream.between(10, 500) as u32) } else { Ratio::NEVER },
        half_open_ns_max: if stream.one_in(2) { stream.between(1, 3_000) * MS } else { 0 },
        late_requests: if stream.one_in(2) { Ratio::new(1, stream.between(1, 10) as u32) } else { Ratio::NEVER },
        slow: if stream.one_in(6) { Ratio::new(1, stream.between(2, 6) as u32) } else { Ratio::NEVER },
        slow_ns_per_byte: stream.between(10, 2_000),
        hang: if hang { Ratio::new(1, 2) } else { Ratio::NEVER },
    }
}

fn draw_clock(stream: &mut Stream) -> ClockOptions {
    ClockOptions {
        tick_late_ns_max: [0, MS, 100 * MS, 10 * SECOND][stream.below(4) as usize],
        wall_apart_ms_max: if stream.one_in(2) { 3_600_000 } else { 0 },
        drift: {
            let ppm = stream.between(0, 20_000) as i32 - 10_000;
            match stream.below(6) {
                0 => Drift::Linear { ppm },
                1 => Drift::Step { ppm },
                2 => Drift::Noisy { ppm },
                _ => Drift::None,
            }
        },
    }
}

fn draw_faults(streams: &mut Streams<'_>, nodes: u32, fault_ns: u64) -> Vec<TimedFault> {
    let mut swarm = streams.stream("scenario.faults", &[]);
    let kinds = [
        (!swarm.one_in(5)).then_some(0),
        swarm.one_in(3).then_some(1),
        swarm.one_in(4).then_some(2),
        swarm.one_in(8).then_some(3),
        swarm.one_in(4).then_some(4),
        swarm.one_in(5).then_some(5),
        swarm.one_in(4).then_some(6),
        swarm.one_in(8).then_some(7),
        swarm.one_in(4).then_some(8),
        swarm.one_in(4).then_some(9),
        swarm.one_in(8).then_some(10),
        streams.stream("scenario.swizzle", &[]).one_in(6).then_some(11),
        streams.stream("scenario.snapshots", &[]).one_in(8).then_some(13),
        (nodes > 1 && streams.stream("scenario.rolling", &[]).one_in(6)).then_some(12),
    ];
    let kinds: Vec<u32> = kinds.into_iter().flatten().collect();
    if kinds.is_empty() || swarm.one_in(10) {
        return Vec::new();
    }
    let count = swarm.between(1, 6);
    (0..count)
        .map(|place| {
            let mut stream = streams.stream("scenario.fault", &[place]);
            let loss = if stream.one_in(5) { Loss::Process } else { Loss::Power };
            // A broker of a cluster may be away for longer than its session.
            let is_long = nodes > 1 && streams.stream("scenario.fault.down", &[place]).one_in(3);
            let down_ns = if is_long { stream.between(SECOND / 2, 4 * SECOND) } else { stream.skewed(SECOND) };
            let fault = match stream.pick(&kinds) {
                0 => {
                    let again = if stream.one_in(3) { stream.between(1, 3) } else { 0 };
                    let again_after_steps = (0..again).map(|_| stream.skewed(60) as u32).collect();
                    Fault::Crash { loss, down_ns, again_after_steps }
                }
                1 => {
                    let crash_after_steps = stream.one_in(3).then(|| stream.skewed(60) as u32);
                    Fault::Stop { loss, down_ns, crash_after_steps }
                }
                2 => Fault::CutAll,
                3 => Fault::DiskFull { for_ns: stream.skewed(SECOND) },
                4 => {
                    let ms = stream.skewed(3_600_000) as i64;
                    Fault::WallJump { ms: if stream.one_in(2) { ms } else { -ms } }
                }
                5 => Fault::Pause { for_ns: stream.skewed(3 * SECOND) },
                6 => Fault::Partition {
                    with: Vec::new(),
                    from: if stream.one_in(3) { vec![End::Client(stream.below(4) as u32)] } else { Vec::new() },
                    ways: *stream.pick(&Ways::ALL),
                    for_ns: stream.between(SECOND / 2, 30 * SECOND).min(fault_ns),
                    times: if stream.one_in(3) { stream.between(2, 6) as u32 } else { 1 },
                },
                8 => {
                    let damage = *stream.pick(&[Damage::Flip, Damage::Misdirected, Damage::Unwritten, Damage::Latent]);
                    Fault::Damage { damage, for_ns: stream.skewed(3 * SECOND) }
                }
                9 => Fault::Damage { damage: Damage::Hint, for_ns: 0 },
                10 => Fault::Unmount { dir: stream.below(2) as u16, for_ns: stream.skewed(2 * SECOND) },
                13 => Fault::Damage { damage: Damage::Snapshots, for_ns: stream.between(SECOND / 2, 3 * SECOND) },
                11 => Fault::Swizzle { for_ns: stream.between(SECOND / 2, 30 * SECOND).min(fault_ns) },
                12 => Fault::Rolling {
                    clean: !stream.one_in(4),
                    loss,
                    down_ns: down_ns / 4,
                    patience_ns: stream.between(SECOND / 2, 12 * SECOND),
                },
                _ => Fault::Slow { for_ns: stream.skewed(3 * SECOND), step_ns_max: stream.between(1, 20) * MS },
            };
            let at_ns = stream.between(0, fault_ns);
            TimedFault { at_ns, node: stream.below(nodes.into()) as u32, fault }
        })
        .collect()
}

/// Controllers that lose their disks, where a quorum can survive that: if nobody else's records are on them.
fn draw_lost_disks(stream: &mut Stream, nodes: u32, fault_ns: u64, cluster: &ClusterPlan) -> Vec<TimedFault> {
    let apart: Vec<u32> = (0..nodes).filter(|node| cluster.role(*node) == NodeRole::Controller).collect();
    if apart.len() < 3 || !stream.one_in(2) {
        return Vec::new();
    }
    let count = stream.between(1, 3);
    let lost = (0..count).map(|_| TimedFault {
        at_ns: stream.between(0, fault_ns),
        node: *stream.pick(&apart),
        fault: Fault::LoseDisk { down_ns: stream.skewed(SECOND) },
    });
    lost.collect()
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
        assert!(error(|scenario| scenario.topics.clear()).starts_with("topics is empty"));
        assert!(error(|scenario| scenario.disk.stall.among = 0).starts_with("disk.stall is"));
    }

    #[test]
    fn bytes_choose_a_scenario() {
        let (all_lowest, all_highest) = (Scenario::chosen(3, &[0; 512]), Scenario::chosen(3, &[255; 512]));
        assert_eq!((all_lowest.profile, all_highest.profile), (Profile::Lite, Profile::Swarm));
        assert!(!all_lowest.disk.sync_error.is_never() && all_highest.disk.sync_error.is_never());
        assert_ne!(all_lowest, Scenario::draw(3));
    }

    #[test]
    fn seeds_differ_in_what_they_draw() {
        let scenarios: Vec<Scenario> = (0..200).map(Scenario::draw).collect();
        let share = |what: &dyn Fn(&Scenario) -> bool| scenarios.iter().filter(|scenario| what(scenario)).count();
        let knows_none_first = |plan: &ClientPlan| plan.bootstrap.len() > 1;
        assert!(share(&|scenario| scenario.clients.iter().any(knows_none_first)) > 10);
        assert!(share(&|scenario| scenario.nodes > 1) >= 100);
        assert!(share(&|scenario| scenario.cluster.voters == Voters::Recorded) > 20);
        assert!(share(&|scenario| !scenario.cluster.cut_off.is_empty()) > 5);
        assert!(share(&|scenario| !scenario.disk.sync_error.is_never()) > 10);
        assert!(share(&|scenario| !scenario.network.cut.is_never()) > 50);
        assert!(share(&|scenario| scenario.topics.iter().any(TopicPlan::is_relaxed)) > 10);
        let ages = |topic: &TopicPlan| topic.without_timestamps && topic.number("retention.ms").is_some();
        assert!(share(&|scenario| scenario.topics.iter().any(ages)) > 10);
        let crashes = |fault: &TimedFault| matches!(fault.fault, Fault::Crash { .. });
        assert!(share(&|scenario| scenario.faults.iter().any(crashes)) > 80);
        assert!(share(&|scenario| scenario.faults.is_empty()) > 5);
    }
}
