//! Clients.

use super::{MS, Size};
use crate::client::records::Codec;
use crate::client::{
    AdminPlan, ApplicationPlan, FetcherPlan, HostilePlan, ListerPlan, OperatorPlan, ProducerPlan, ReaderPlan,
    TrimmerPlan,
};
use crate::random::Stream;
use crate::scenario::{ClientPlan, Profile, Role};
use std::collections::BTreeMap;

pub fn draw(stream: &mut Stream, size: &Size) -> Vec<ClientPlan> {
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
pub fn draw_applications(stream: &mut Stream, fault_ns: u64, segment_bytes: u32) -> Vec<ClientPlan> {
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
pub fn draw_bootstrap(stream: &mut Stream, nodes: u32, brokers: &[u32]) -> Vec<u32> {
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
