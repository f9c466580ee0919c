//! Places new replicas on brokers, in stripes as Kafka's `StripedReplicaPlacer` does.
//!
//! Replicas of a partition are spread over racks first. Racks take turns, and so do the brokers within a rack. Each
//! partition begins one rack and one broker further than the one before, and the first begins at random:
//!
//! ```text
//! racks A, B, C with three brokers each       partition 0   A0 B0 C0
//!                                             partition 1   B1 C1 A1
//!                                             partition 2   C2 A2 B2
//! ```
//!
//! Fenced brokers are taken only where no other broker of the rack is left, and never first. Brokers that are shutting
//! down take no replicas.

use super::image::Image;
use super::partitions::takes_replicas;
use bytestring::ByteString;
use std::collections::BTreeMap;
use tidelog_wire::ids::NodeId;

/// The brokers that take replicas.
#[derive(Debug)]
pub(super) struct Placer<'a, D> {
    /// Those without a rack are in a rack of their own. In the order in which racks take turns.
    racks: Vec<Rack>,
    /// The rack that begins with the next partition.
    first_rack: usize,
    /// How many partitions were placed since the order was last drawn.
    placed: usize,
    /// The number of the present partition.
    partition: u64,
    /// Gives random bytes.
    draw: &'a mut D,
}

#[derive(Debug, Default)]
struct Rack {
    unfenced: Turns,
    fenced: Turns,
}

/// Brokers that take turns.
#[derive(Debug, Default)]
struct Turns {
    brokers: Vec<NodeId>,
    /// The last partition that asked.
    partition: u64,
    /// The broker that comes first for that partition.
    first: usize,
    /// How many brokers that partition has taken.
    taken: usize,
}

impl Turns {
    fn next(&mut self, partition: u64) -> Option<NodeId> {
        if self.partition != partition {
            self.partition = partition;
            self.taken = 0;
            self.first += 1;
        }
        if self.taken == self.brokers.len() {
            return None;
        }
        let broker = self.brokers[(self.first + self.taken) % self.brokers.len()];
        self.taken += 1;
        Some(broker)
    }
}

impl<'a, D: FnMut() -> [u8; 16]> Placer<'a, D> {
    pub fn new(image: &Image, draw: &'a mut D) -> Self {
        let mut racks: BTreeMap<Option<ByteString>, Rack> = BTreeMap::new();
        for broker in image.brokers().filter(|broker| takes_replicas(broker) && !broker.in_controlled_shutdown) {
            let rack = racks.entry(broker.rack.clone()).or_default();
            let turns = if broker.fenced { &mut rack.fenced } else { &mut rack.unfenced };
            turns.brokers.push(NodeId(broker.broker_id));
        }
        let mut this = Self { racks: racks.into_values().collect(), first_rack: 0, placed: 0, partition: 0, draw };
        for place in 0..this.racks.len() {
            this.racks[place].unfenced.first = below(this.draw, this.racks[place].unfenced.brokers.len());
            this.racks[place].fenced.first = below(this.draw, this.racks[place].fenced.brokers.len());
        }
        this.first_rack = below(this.draw, this.racks.len());
        this
    }

    /// Whether partitions with this many replicas can be placed. The error says why not, in Kafka's words.
    pub fn check(&self, factor: i16) -> Result<(), String> {
        if factor <= 0 {
            return Err(format!("Invalid replication factor {factor}: the replication factor must be positive."));
        }
        if self.unfenced() == 0 {
            return Err("All brokers are currently fenced, or have all their log directories cordoned.".to_owned());
        }
        let all: usize = self.racks.iter().map(|rack| rack.unfenced.brokers.len() + rack.fenced.brokers.len()).sum();
        if factor as usize > all {
            return Err(format!(
                "The target replication factor of {factor} cannot be reached because only {all} broker(s) are \
                 registered or some brokers have all their log directories cordoned."
            ));
        }
        Ok(())
    }

    fn unfenced(&self) -> usize {
        self.racks.iter().map(|rack| rack.unfenced.brokers.len()).sum()
    }

    /// The replicas of the next partition, the first on a broker that is not fenced. [`Self::check`] must have allowed
    /// this many.
    pub fn place(&mut self, factor: usize) -> Vec<NodeId> {
        let unfenced = self.unfenced();
        if self.placed == unfenced && unfenced > 1 {
            // Every broker was first once. Another order spares the same sets of brokers from coming again.
            self.shuffle();
            self.placed = 0;
        }
        let (racks, partition) = (self.racks.len(), self.partition);
        let mut replicas = Vec::with_capacity(factor);
        let mut leading = self.first_rack;
        while replicas.is_empty() {
            match self.racks[leading].unfenced.next(partition) {
                Some(broker) => replicas.push(broker),
                None => leading = (leading + 1) % racks,
            }
        }
        let mut leads = Some(leading);
        let mut rack = self.first_rack;
        while replicas.len() < factor {
            // The first replica was the turn of its rack.
            if leads == Some(rack) {
                leads = None;
            } else {
                let turns = &mut self.racks[rack];
                replicas.extend(turns.unfenced.next(partition).or_else(|| turns.fenced.next(partition)));
            }
            rack = (rack + 1) % racks;
        }
        self.placed += 1;
        self.partition += 1;
        self.first_rack = (self.first_rack + 1) % racks;
        replicas
    }

    fn shuffle(&mut self) {
        shuffle(self.draw, &mut self.racks);
        for rack in &mut self.racks {
            shuffle(self.draw, &mut rack.unfenced.brokers);
            shuffle(self.draw, &mut rack.fenced.brokers);
        }
    }
}

/// A random number below `end`, and 0 if `end` is 0.
fn below(draw: &mut impl FnMut() -> [u8; 16], end: usize) -> usize {
    let drawn = u64::from_le_bytes(draw()[..8].try_into().expect("8 of 16 bytes"));
    (drawn % (end.max(1) as u64)) as usize
}

fn shuffle<T>(draw: &mut impl FnMut() -> [u8; 16], items: &mut [T]) {
    for end in (2..=items.len()).rev() {
        items.swap(end - 1, below(draw, end));
    }
}
