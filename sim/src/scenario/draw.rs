//! What a seed draws. It draws which kinds of faults there are, then how frequent and how long each is. Half of the
//! seeds are `lite`: the same faults in a small and short world, of which many run in a minute.

mod clients;
mod faults;
mod topics;

use super::{ClientPlan, Fault, MS, Profile, Role, SECOND, Scenario, TimedFault};
use crate::client::{RegistrarPlan, TopicPlan};
use crate::clock::{ClockOptions, Drift};
use crate::cluster::{ClusterPlan, CutOff, NodeRole, Voters};
use crate::disk::DiskOptions;
use crate::network::{NetworkOptions, Ways};
use crate::random::{Ratio, Stream, Streams};
use std::collections::BTreeMap;

impl Scenario {
    pub fn draw(seed: u64) -> Self {
        Self::chosen(seed, &[])
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
        let mut topics = topics::draw(profile, &mut streams);
        let segment_bytes = topics::smallest_segment(&topics);
        // A batch must fit into a segment: twelve records with their keys and headers.
        let value_bytes_max = [16, 100, 1_000, 3_000][swarm.below(4) as usize].min((segment_bytes / 12).max(116) - 100);
        let batch_records_max = if segment_bytes < 2_048 { 8 } else { 12 };
        let size = Size { profile, fault_ns, batch_records_max };
        let mut clients = clients::draw(&mut streams.stream("scenario.clients", &[]), &size);
        let mut applications = streams.stream("scenario.applications", &[]);
        clients.extend(clients::draw_applications(&mut applications, fault_ns, segment_bytes));
        let brokers: Vec<u32> = cluster.brokers(nodes).collect();
        for (place, plan) in clients.iter_mut().enumerate() {
            plan.number = Some(place as u32);
            plan.bootstrap =
                clients::draw_bootstrap(&mut streams.stream("scenario.bootstrap", &[place as u64]), nodes, &brokers);
        }
        let disk = draw_disk(&mut streams.stream("scenario.disk", &[]));
        let network = draw_network(&mut streams);
        let clock = draw_clock(&mut streams.stream("scenario.clock", &[]));
        let mut properties = topics::draw_properties(&mut streams.stream("scenario.properties", &[]), &topics);
        if nodes > 1 {
            properties.extend(draw_times(&mut streams.stream("scenario.times", &[]), &network));
            let mut stream = streams.stream("scenario.replicas", &[]);
            properties.extend(topics::draw_replicas(&mut stream, &mut topics, brokers.len(), &network));
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
            faults: faults::draw(&mut streams, nodes, fault_ns),
            cluster,
            last_power_loss: swarm.one_in(2),
        };
        scenario.draw_changes_of_voters(&mut streams);
        scenario.draw_leaves(&mut streams.stream("scenario.leaves", &[]));
        scenario
    }

    /// What changes the voters of a cluster: disks that are lost, controllers that become voters, and an operator.
    fn draw_changes_of_voters(&mut self, streams: &mut Streams<'_>) {
        let (nodes, fault_ns) = (self.nodes, self.fault_ns);
        let lost = faults::draw_lost_disks(&mut streams.stream("scenario.disks", &[]), nodes, fault_ns, &self.cluster);
        let only_replaces = !lost.is_empty();
        self.faults.extend(lost);
        let registrar = draw_voters(&mut streams.stream("scenario.voters", &[]), nodes, fault_ns, &mut self.cluster);
        if let Some(plan) = registrar {
            let number = self.clients.len() as u32;
            let brokers: Vec<u32> = self.cluster.brokers(nodes).collect();
            let mut stream = streams.stream("scenario.bootstrap", &[number.into()]);
            let bootstrap = clients::draw_bootstrap(&mut stream, nodes, &brokers);
            let role = Role::Registrar(RegistrarPlan { only_replaces, ..plan });
            self.clients.push(ClientPlan { number: Some(number), bootstrap, role });
        }
    }

    /// A broker alone that is taken away for good. Every client knows another one first.
    fn draw_leaves(&mut self, stream: &mut Stream) {
        let brokers: Vec<u32> = self.cluster.brokers(self.nodes).collect();
        let alone = brokers.iter().copied().filter(|node| self.cluster.role(*node) == NodeRole::Broker);
        let alone: Vec<u32> = alone.collect();
        let is_fenced_soon = self.properties.contains_key("broker.session.timeout.ms");
        let is_on_one_broker = |topic: &TopicPlan| topic.replicas == 1;
        let may_leave = is_fenced_soon && brokers.len() > 1 && self.topics.iter().all(is_on_one_broker);
        if alone.is_empty() || !may_leave || !stream.one_in(2) {
            return;
        }
        let node = *stream.pick(&alone);
        let others: Vec<u32> = brokers.iter().copied().filter(|other| *other != node).collect();
        for plan in &mut self.clients {
            if plan.bootstrap.iter().find(|known| brokers.contains(known)) == Some(&node) {
                let first = *stream.pick(&others);
                plan.bootstrap.retain(|known| *known != first);
                plan.bootstrap.insert(0, first);
            }
        }
        let fault = Fault::Leave { unregister: stream.one_in(2) };
        self.faults.push(TimedFault { at_ns: stream.skewed(self.fault_ns), node, fault });
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

/// By how much times are longer where the network is slow.
fn slowness(network: &NetworkOptions) -> u64 {
    if network.delay_ns_max > 10 * MS { 4 } else { 1 }
}

/// How soon the nodes of a cluster give each other up. What is as short as the network is slow would let no leader stay.
fn draw_times(stream: &mut Stream, network: &NetworkOptions) -> BTreeMap<String, String> {
    let slowness = slowness(network);
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
    if stream.one_in(2) {
        let session = slowness * stream.pick(&[300, 600, 1_500]);
        set("broker.session.timeout.ms", session);
        set("broker.heartbeat.interval.ms", session / stream.pick(&[3, 6]));
    }
    times
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let leaves = |fault: &TimedFault| matches!(fault.fault, Fault::Leave { .. });
        assert!(share(&|scenario| scenario.faults.iter().any(leaves)) > 5);
    }
}
