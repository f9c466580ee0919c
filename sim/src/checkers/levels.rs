//! A logger of a broker has the level that its operator has set, and after a start the one that it always starts with:
//! no level outlives the process (KIP-412).
//!
//! Each node has at most one operator, which changes the level of one logger, one change at a time. A change whose
//! connection was lost may be made later, as long as the process lives to which it was sent. So the checker keeps every
//! level that the logger may have.

use super::{Checker, Violation, violation};
use crate::history::{Entry, Fact};
use std::collections::{BTreeMap, BTreeSet};

/// The level of every logger of a node at its start.
pub const AT_A_START: &str = "INFO";

#[derive(Debug, Default)]
pub struct Levels {
    nodes: BTreeMap<u32, Node>,
}

#[derive(Debug)]
struct Node {
    /// The levels that the logger may have by now.
    possible: BTreeSet<String>,
    /// The level of the change under way.
    under_way: Option<String>,
    /// Levels of changes that this process may still make.
    lingering: BTreeSet<String>,
    /// When the process of now was started.
    restarted_at: u64,
}

impl Node {
    fn new(restarted_at: u64, under_way: Option<String>) -> Self {
        let possible = [AT_A_START.to_owned()].into_iter().chain(under_way.clone()).collect();
        Self { possible, under_way, lingering: BTreeSet::new(), restarted_at }
    }

    /// The logger had this level. Now it has it still, or that of a change that may still be made.
    fn settle(&mut self, level: &str) {
        self.possible.clone_from(&self.lingering);
        self.possible.extend(self.under_way.clone());
        self.possible.insert(level.to_owned());
    }
}

impl Levels {
    fn node(&mut self, node: u32) -> &mut Node {
        self.nodes.entry(node).or_insert_with(|| Node::new(0, None))
    }
}

impl Checker for Levels {
    fn observe(&mut self, entry: &Entry) -> Result<(), Violation> {
        match &entry.fact {
            Fact::LevelChanging { node, level } => {
                let node = self.node(*node);
                assert!(node.under_way.is_none(), "one change at a time");
                node.under_way = Some(level.clone());
                node.possible.insert(level.clone());
            }
            Fact::LevelChanged { node, once } => {
                let node = self.node(*node);
                let level = node.under_way.take().expect("a change is under way");
                if *once {
                    node.settle(&level);
                } else {
                    node.lingering.insert(level);
                }
            }
            Fact::LevelTold { node: of, asked_at, level } => {
                let node = self.node(*of);
                // The earlier process may have answered what was asked before the start.
                if *asked_at <= node.restarted_at {
                    return Ok(());
                }
                if !node.possible.contains(level) {
                    let text =
                        format!("node{of}: the log has the level {level}, and may only have {:?}", node.possible);
                    return violation("levels", None, text);
                }
                node.settle(level);
            }
            Fact::Restarted { node, .. } => {
                // The operator may send the change again, to the new process.
                let under_way = self.node(*node).under_way.take();
                self.nodes.insert(*node, Node::new(entry.at, under_way));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::judge;
    use super::*;

    const RESTARTED: Fact = Fact::Restarted { node: 0, held: Vec::new() };

    fn changing(level: &str) -> Fact {
        Fact::LevelChanging { node: 0, level: level.into() }
    }

    fn changed(once: bool) -> Fact {
        Fact::LevelChanged { node: 0, once }
    }

    fn told(level: &str) -> Fact {
        Fact::LevelTold { node: 0, asked_at: 0, level: level.into() }
    }

    fn run(facts: &[Fact]) -> Result<(), String> {
        // An answer right behind a start would be to a question before it.
        let mut apart = Vec::new();
        for fact in facts {
            apart.extend([fact.clone(), Fact::Healed]);
        }
        judge(Levels::default(), apart, &[])
    }

    #[test]
    fn a_level_that_was_set_is_in_force_until_the_next_start() {
        let set = [changing("DEBUG"), changed(true)];
        let with = |more: &[Fact]| run(&[&set[..], more].concat());
        assert_eq!(with(&[told("DEBUG"), RESTARTED, told("INFO")]), Ok(()));
        assert!(with(&[told("INFO")]).unwrap_err().contains("has the level INFO"));
        assert!(with(&[RESTARTED, told("DEBUG")]).is_err(), "it was kept");
    }

    #[test]
    fn a_change_without_an_answer_may_be_made_as_long_as_its_process_lives() {
        let lost = [changing("DEBUG"), changed(false)];
        let with = |more: &[Fact]| run(&[&lost[..], more].concat());
        assert_eq!(with(&[told("INFO"), told("DEBUG")]), Ok(()));
        assert_eq!(with(&[changing("WARN"), changed(true), told("WARN"), told("DEBUG")]), Ok(()));
        assert!(with(&[RESTARTED, told("DEBUG")]).is_err());
        assert_eq!(run(&[changing("DEBUG"), RESTARTED, told("DEBUG"), changed(false)]), Ok(()), "it is asked again");
    }
}
