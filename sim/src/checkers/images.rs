//! All nodes that know the metadata up to the same offset know the same, whether from the log or from a snapshot
//! (KAFKA-14240, KAFKA-14275).

use super::{Checker, Violation, violation};
use crate::history::{Entry, Fact};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Images {
    /// By the offset behind the last record: the node that was first looked at there, and the digest of what it knew.
    known: BTreeMap<i64, (u32, u64)>,
}

impl Checker for Images {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        let Fact::Image { node, end, digest } = entry.fact else { return Ok(()) };
        let (first, known) = *self.known.entry(end).or_insert((node, digest));
        match known == digest {
            true => Ok(()),
            false => {
                let text = format!("node {first} and node {node} know the metadata up to {end}, and not the same");
                violation("images", None, text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::*;
    use super::*;

    fn image(node: u32, end: i64, digest: u64) -> Fact {
        Fact::Image { node, end, digest }
    }

    #[test]
    fn images_may_differ_at_other_offsets_and_not_at_one() {
        let good = vec![image(0, 5, 1), image(1, 5, 1), image(1, 7, 2), image(0, 7, 2)];
        assert_eq!(judge(Images::default(), good, &[]), Ok(()));
        let bad = vec![image(0, 5, 1), image(1, 7, 2), image(2, 7, 3)];
        let found = judge(Images::default(), bad, &[]).unwrap_err();
        assert_eq!(found, "images: node 1 and node 2 know the metadata up to 7, and not the same");
    }
}
