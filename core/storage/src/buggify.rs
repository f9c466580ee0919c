//! Sites: places where a simulation makes the core do something that is rare and legal but not needed, such as closing
//! a segment early. That must never make an answer wrong.
//!
//! A site is active in one of four processes, which the world's seed decides. An active site fires one time in four, or
//! more rarely where more would leave nothing else to happen.
//! Like the [probes](crate::probe), the dice are in the [`Outbox`]. Without the feature `plants`, [`Outbox::buggify`]
//! is `false`.

use crate::io::Outbox;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Site {
    /// A segment ends before it is full.
    EarlyRoll,
    /// A topic that does not ask for stable storage is synced all the same.
    EarlyFlush,
    /// A read from the disk gives only its first batch.
    SmallestRead,
    /// A valid index is rebuilt.
    IndexRebuild,
    /// A waiting fetch is woken without a reason.
    SpuriousWakeUp,
    /// A snapshot of the metadata is taken before it is due.
    MetadataSnapshot,
    /// The checkpoints of a log directory are written before they are due.
    Checkpoint,
    /// Retention looks at a log before it is due.
    Retention,
    /// A voter stands for election though its leader is there, and without pre-votes, as voters did before KIP-996.
    NeedlessElection,
    /// A leader resigns: when its epoch begins, when it has appended, or when more is committed.
    Resignation,
    /// A voter does not wait until those with longer logs have stood for election.
    ImpatientSuccessor,
    /// A leader answers a fetch without the records that it has.
    EmptyFetch,
    /// A node that does not lead the quorum cannot apply a committed record, as if it were of another release: it must end.
    ApplyFailure,
}

/// The reason for what fails at a site alone.
pub const ASKED_FOR: &str = "the simulation asks for it";

impl Site {
    pub const ALL: [Site; 13] = [
        Site::EarlyRoll,
        Site::EarlyFlush,
        Site::SmallestRead,
        Site::IndexRebuild,
        Site::SpuriousWakeUp,
        Site::MetadataSnapshot,
        Site::Checkpoint,
        Site::Retention,
        Site::NeedlessElection,
        Site::Resignation,
        Site::ImpatientSuccessor,
        Site::EmptyFetch,
        Site::ApplyFailure,
    ];

    /// An active site fires one time in so many, a power of two.
    #[cfg(feature = "plants")]
    fn among(self) -> u64 {
        match self {
            Self::NeedlessElection | Self::Resignation => 16,
            Self::ApplyFailure => 256,
            _ => 4,
        }
    }
}

/// The dice of one process. The default never fires.
#[derive(Clone, Debug, Default)]
pub struct Dice {
    #[cfg(feature = "plants")]
    seed: Option<u64>,
    #[cfg(feature = "plants")]
    thrown: [u64; Site::ALL.len()],
}

#[cfg(feature = "plants")]
impl Dice {
    pub fn new(seed: u64) -> Self {
        Self { seed: Some(seed), thrown: [0; Site::ALL.len()] }
    }

    fn throw(&mut self, site: Site) -> bool {
        let Some(seed) = self.seed else { return false };
        let of_site = mix(seed ^ site as u64);
        if of_site & 3 != 0 {
            return false;
        }
        let thrown = &mut self.thrown[site as usize];
        *thrown += 1;
        mix(of_site ^ *thrown).is_multiple_of(site.among())
    }
}

/// SplitMix64's finaliser.
#[cfg(feature = "plants")]
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Outbox {
    /// Whether to do the rare thing at `site`, this time.
    #[inline]
    pub fn buggify(&mut self, site: Site) -> bool {
        #[cfg(feature = "plants")]
        return self.dice.throw(site);
        #[cfg(not(feature = "plants"))]
        {
            let _ = site;
            false
        }
    }
}

#[cfg(all(test, feature = "plants"))]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_active_in_a_quarter_of_the_processes_and_then_fires_a_quarter_of_the_time() {
        let fired: Vec<usize> = (0..4_000)
            .map(|seed| {
                let mut dice = Dice::new(seed);
                (0..100).filter(|_| dice.throw(Site::EarlyRoll)).count()
            })
            .collect();
        let active = fired.iter().filter(|count| **count > 0).count();
        assert!((900..1_100).contains(&active), "{active} of 4000");
        let share = fired.iter().sum::<usize>() / active;
        assert!((22..28).contains(&share), "{share} of 100");
    }

    #[test]
    fn without_a_seed_nothing_fires() {
        let mut out = Outbox::default();
        assert!(Site::ALL.into_iter().all(|site| (0..100).all(|_| !out.buggify(site))));
    }
}
