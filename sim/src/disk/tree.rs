//! The files and directories of one node, and which of their names a power cut would leave.
//!
//! A create, rename or remove is a *move*: one or two edits of names in directories. A sync of a directory makes every
//! move stable that touches it. A power cut keeps any of the other moves, each as a whole or not at all.

use super::content::{FileContent, Losses};
use crate::random::Stream;
use std::collections::{BTreeMap, BTreeSet};

/// Identifies a file or directory, whatever its name.
pub(super) type Inode = u64;

#[derive(Clone, Debug)]
enum Node {
    File(FileContent),
    Directory { visible: BTreeMap<String, Inode>, stable: BTreeMap<String, Inode> },
}

/// One name in one directory that from now on names `now`, or nothing.
#[derive(Clone, Debug)]
struct Edit {
    directory: Inode,
    name: String,
    now: Option<Inode>,
}

/// Everything a node has on its disks.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: BTreeMap<Inode, Node>,
    next: Inode,
    /// The root of each log directory.
    roots: Vec<Inode>,
    unsynced: Vec<Vec<Edit>>,
}

/// Why a path leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathError {
    NotFound,
    NotADirectory,
    IsADirectory,
}

impl Tree {
    pub(super) fn new(roots: u16) -> Self {
        let mut tree = Self::default();
        for _ in 0..roots {
            let root = tree.add_directory();
            tree.roots.push(root);
        }
        tree
    }

    pub(super) fn file(&self, inode: Inode) -> &FileContent {
        match &self.nodes[&inode] {
            Node::File(file) => file,
            Node::Directory { .. } => panic!("inode {inode} is a directory"),
        }
    }

    pub(super) fn file_mut(&mut self, inode: Inode) -> &mut FileContent {
        match self.nodes.get_mut(&inode).expect("an open file has an inode") {
            Node::File(file) => file,
            Node::Directory { .. } => panic!("inode {inode} is a directory"),
        }
    }

    pub(super) fn is_directory(&self, inode: Inode) -> bool {
        matches!(self.nodes[&inode], Node::Directory { .. })
    }

    pub(super) fn is_file(&self, inode: Inode) -> bool {
        matches!(self.nodes.get(&inode), Some(Node::File(_)))
    }

    /// Puts `root`, or an empty directory, in the place of a log directory. Gives the root that was there.
    pub(super) fn swap_root(&mut self, dir: u16, root: Option<Inode>) -> Inode {
        let root = root.unwrap_or_else(|| self.add_directory());
        std::mem::replace(&mut self.roots[usize::from(dir)], root)
    }

    /// What `path` below the root `dir` names.
    pub(super) fn find(&self, dir: u16, path: &str) -> Result<Inode, PathError> {
        let mut inode = *self.roots.get(usize::from(dir)).ok_or(PathError::NotFound)?;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let Node::Directory { visible, .. } = &self.nodes[&inode] else { return Err(PathError::NotADirectory) };
            inode = *visible.get(part).ok_or(PathError::NotFound)?;
        }
        Ok(inode)
    }

    pub(super) fn find_file(&self, dir: u16, path: &str) -> Result<Inode, PathError> {
        let inode = self.find(dir, path)?;
        if self.is_directory(inode) { Err(PathError::IsADirectory) } else { Ok(inode) }
    }

    /// The directory that holds `path`, and the name in it.
    pub(super) fn parent<'a>(&self, dir: u16, path: &'a str) -> Result<(Inode, &'a str), PathError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let inode = self.find(dir, parent)?;
        if self.is_directory(inode) { Ok((inode, name)) } else { Err(PathError::NotADirectory) }
    }

    pub(super) fn entries(&self, directory: Inode) -> Option<impl Iterator<Item = (&String, Inode)>> {
        match &self.nodes[&directory] {
            Node::Directory { visible, .. } => Some(visible.iter().map(|(name, inode)| (name, *inode))),
            Node::File(_) => None,
        }
    }

    pub(super) fn entry(&self, directory: Inode, name: &str) -> Option<Inode> {
        match &self.nodes[&directory] {
            Node::Directory { visible, .. } => visible.get(name).copied(),
            Node::File(_) => None,
        }
    }

    pub(super) fn create_file(&mut self, directory: Inode, name: &str) -> Inode {
        let inode = self.add(Node::File(FileContent::default()));
        self.change(vec![Edit { directory, name: name.into(), now: Some(inode) }]);
        inode
    }

    pub(super) fn create_directory(&mut self, directory: Inode, name: &str) -> Inode {
        let inode = self.add_directory();
        self.change(vec![Edit { directory, name: name.into(), now: Some(inode) }]);
        inode
    }

    pub(super) fn rename(&mut self, from: (Inode, &str), to: (Inode, &str)) {
        let moved = self.entry(from.0, from.1).expect("what is renamed is there");
        self.change(vec![
            Edit { directory: from.0, name: from.1.into(), now: None },
            Edit { directory: to.0, name: to.1.into(), now: Some(moved) },
        ]);
    }

    /// Removes a name. For a directory, each name in it is removed first, so that after a power cut some of them may be
    /// back.
    pub(super) fn remove(&mut self, directory: Inode, name: &str) {
        let Some(inode) = self.entry(directory, name) else { return };
        let within: Vec<String> =
            self.entries(inode).map(|all| all.map(|(name, _)| name.clone()).collect()).unwrap_or_default();
        for inner in within {
            self.remove(inode, &inner);
        }
        self.change(vec![Edit { directory, name: name.into(), now: None }]);
    }

    /// Puts a file with this content under `name`, at once and for good.
    pub(super) fn replace(&mut self, directory: Inode, name: &str, content: &[u8]) -> Inode {
        let inode = self.add(Node::File(FileContent::stable(content)));
        // Unsynced edits of this name must not undo it later.
        for edits in &mut self.unsynced {
            edits.retain(|edit| edit.directory != directory || edit.name != name);
        }
        self.apply(&Edit { directory, name: name.into(), now: Some(inode) }, true);
        self.apply(&Edit { directory, name: name.into(), now: Some(inode) }, false);
        inode
    }

    /// Makes the names of `directory` stable, and with them the other half of every rename that touches it.
    pub(super) fn sync_directory(&mut self, directory: Inode) {
        let (now, later) = std::mem::take(&mut self.unsynced)
            .into_iter()
            .partition(|edits: &Vec<Edit>| edits.iter().any(|edit| edit.directory == directory));
        self.unsynced = later;
        for edits in now {
            edits.iter().for_each(|edit| self.apply(edit, true));
        }
    }

    /// The machine loses its power. What is reachable from `kept` stays, though no root leads to it.
    pub(super) fn lose_power(&mut self, stream: &mut Stream, kept: impl Iterator<Item = Inode>) -> Losses {
        let mut losses = Losses { names: self.land_names(stream), ..Losses::default() };
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => losses += file.lose_power(stream),
                Node::Directory { visible, stable } => visible.clone_from(stable),
            }
        }
        self.forget_the_unreachable(kept);
        losses
    }

    /// The process ends and the machine goes on. Gives true if something is lost all the same.
    pub(super) fn lose_process(&mut self, stream: &mut Stream) -> bool {
        let mut lost = false;
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                lost |= file.lose_process(stream);
            }
        }
        lost
    }

    /// Makes some of the unsynced moves stable. Gives how many are lost.
    fn land_names(&mut self, stream: &mut Stream) -> u64 {
        let moves = std::mem::take(&mut self.unsynced);
        if moves.is_empty() {
            return 0;
        }
        let kept: Vec<bool> = match stream.below(5) {
            0 => vec![true; moves.len()],
            1 => vec![false; moves.len()],
            // A file system with a journal keeps the order of moves…
            2 => {
                let first = stream.below(moves.len() as u64 + 1) as usize;
                (0..moves.len()).map(|place| place < first).collect()
            }
            // … and POSIX promises no order.
            _ => moves.iter().map(|_| stream.one_in(2)).collect(),
        };
        let lost = kept.iter().filter(|kept| !**kept).count();
        for (edits, _) in moves.iter().zip(kept).filter(|(_, kept)| *kept) {
            edits.iter().for_each(|edit| self.apply(edit, true));
        }
        lost as u64
    }

    fn forget_the_unreachable(&mut self, kept: impl Iterator<Item = Inode>) {
        let mut reached = BTreeSet::new();
        let mut open = self.roots.clone();
        open.extend(kept);
        while let Some(inode) = open.pop() {
            reached.insert(inode);
            if let Node::Directory { visible, .. } = &self.nodes[&inode] {
                open.extend(visible.values());
            }
        }
        self.nodes.retain(|inode, _| reached.contains(inode));
    }

    fn change(&mut self, edits: Vec<Edit>) {
        edits.iter().for_each(|edit| self.apply(edit, false));
        self.unsynced.push(edits);
    }

    fn apply(&mut self, edit: &Edit, to_stable: bool) {
        let Some(Node::Directory { visible, stable }) = self.nodes.get_mut(&edit.directory) else {
            panic!("a name stands in a directory");
        };
        let names = if to_stable { stable } else { visible };
        match edit.now {
            Some(inode) => names.insert(edit.name.clone(), inode),
            None => names.remove(&edit.name),
        };
    }

    fn add_directory(&mut self) -> Inode {
        self.add(Node::Directory { visible: BTreeMap::new(), stable: BTreeMap::new() })
    }

    fn add(&mut self, node: Node) -> Inode {
        self.next += 1;
        self.nodes.insert(self.next, node);
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    fn names(tree: &Tree, path: &str) -> Vec<String> {
        let inode = tree.find(0, path).expect("the directory is there");
        tree.entries(inode).expect("it is a directory").map(|(name, _)| name.clone()).collect()
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_lost_with_its_synced_content() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut tree = Tree::new(1);
            let root = tree.find(0, "").unwrap();
            let file = tree.create_file(root, "00.log");
            tree.file_mut(file).write(0, &["data".into()]);
            tree.file_mut(file).sync();
            tree.lose_power(&mut stream(seed, "crash", &[]), std::iter::empty());
            match tree.find_file(0, "00.log") {
                Ok(inode) => assert_eq!(tree.file(inode).read(0, 9), "data"),
                Err(error) => {
                    assert_eq!(error, PathError::NotFound);
                    lost += 1;
                }
            }
        }
        assert!((20..80).contains(&lost), "{lost}");
    }

    #[test]
    fn a_synced_directory_keeps_its_names() {
        for seed in 0..100 {
            let mut tree = Tree::new(2);
            let root = tree.find(1, "").unwrap();
            let topic = tree.create_directory(root, "topic-0");
            tree.sync_directory(root);
            tree.create_file(topic, "00.log");
            tree.sync_directory(topic);
            tree.create_file(topic, "01.log");
            tree.lose_power(&mut stream(seed, "crash", &[]), std::iter::empty());
            assert!(tree.find(1, "topic-0/00.log").is_ok());
        }
    }

    #[test]
    fn a_rename_is_atomic() {
        for seed in 0..100 {
            let mut tree = Tree::new(1);
            let root = tree.find(0, "").unwrap();
            tree.create_file(root, "old");
            tree.sync_directory(root);
            tree.rename((root, "old"), (root, "new"));
            tree.lose_power(&mut stream(seed, "crash", &[]), std::iter::empty());
            assert_eq!(names(&tree, "").len(), 1, "{:?}", names(&tree, ""));
        }
    }

    #[test]
    fn a_removed_directory_may_come_back_in_part() {
        let in_part = (0..200).any(|seed| {
            let mut tree = Tree::new(1);
            let root = tree.find(0, "").unwrap();
            let topic = tree.create_directory(root, "topic-0");
            tree.create_file(topic, "a");
            tree.create_file(topic, "b");
            tree.sync_directory(root);
            tree.sync_directory(topic);
            tree.remove(root, "topic-0");
            assert_eq!(names(&tree, ""), [""; 0]);
            tree.lose_power(&mut stream(seed, "crash", &[]), std::iter::empty());
            tree.find(0, "topic-0").is_ok() && names(&tree, "topic-0") == ["b"]
        });
        assert!(in_part);
    }

    #[test]
    fn a_replaced_file_is_stable_at_once_and_other_names_are_not() {
        for seed in 0..50 {
            let mut tree = Tree::new(1);
            let root = tree.find(0, "").unwrap();
            tree.create_file(root, "checkpoint");
            tree.replace(root, "checkpoint", b"1");
            tree.lose_power(&mut stream(seed, "crash", &[]), std::iter::empty());
            let inode = tree.find_file(0, "checkpoint").unwrap();
            assert_eq!(tree.file(inode).read(0, 9), "1");
        }
    }
}
