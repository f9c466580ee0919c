//! Faults that are dealt to a node at one moment.

use super::{MS, SECOND};
use crate::cluster::{ClusterPlan, NodeRole};
use crate::disk::{Damage, Loss};
use crate::network::{End, Ways};
use crate::random::{Stream, Streams};
use crate::scenario::{Fault, TimedFault};

pub fn draw(streams: &mut Streams<'_>, nodes: u32, fault_ns: u64) -> Vec<TimedFault> {
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
pub fn draw_lost_disks(stream: &mut Stream, nodes: u32, fault_ns: u64, cluster: &ClusterPlan) -> Vec<TimedFault> {
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
