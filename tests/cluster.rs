//! Several nodes of one cluster, each a process with its own directory. They may be of different kinds.

use crate::broker::{Broker, Kind, Setup, free_port, tidelog_binary};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The cluster that the directories are formatted for.
const CLUSTER: &str = "dGlkZWxvZy1jbHVzdGVyMQ";
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of nodes that are brokers and controllers, with static voters.
#[derive(Debug)]
pub struct Cluster {
    setups: Vec<Setup>,
    /// `None`: the node does not run.
    nodes: Vec<Option<Broker>>,
    addresses: Vec<String>,
}

/// What a command of the binary has printed.
#[derive(Debug)]
pub struct Said {
    pub succeeded: bool,
    pub out: String,
    pub err: String,
}

impl Cluster {
    /// Formats the directories of `count` nodes below `home`, and starts all of them.
    pub fn start(home: &Path, count: usize) -> Self {
        Self::of(&vec![Kind::Tidelog; count], home)
    }

    /// As [`start`](Self::start), with a node of each of these kinds. Tidelog formats the directories of all.
    pub fn of(kinds: &[Kind], home: &Path) -> Self {
        let ports: Vec<(u16, u16)> = kinds.iter().map(|_| (free_port(), free_port())).collect();
        let voters = (1..).zip(&ports).map(|(id, (_, port))| format!("{id}@127.0.0.1:{port}"));
        let voters = voters.collect::<Vec<_>>().join(",");
        let setup = |(id, (clients, controllers)): (usize, &(u16, u16))| {
            let listeners = format!("PLAINTEXT://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controllers}");
            Setup::of(kinds[id - 1], &home.join(format!("node{id}")))
                .set("node.id", id)
                .set("process.roles", "broker,controller")
                .set("listeners", listeners)
                .set("controller.quorum.voters", &voters)
        };
        let setups: Vec<Setup> = (1..).zip(&ports).map(setup).collect();
        setups.iter().for_each(format);
        let addresses = ports.iter().map(|(clients, _)| format!("127.0.0.1:{clients}")).collect();
        let mut cluster = Self { nodes: setups.iter().map(|_| None).collect(), setups, addresses };
        cluster.start_again(&(0..kinds.len()).collect::<Vec<_>>());
        cluster
    }

    /// Starts nodes that do not run, all of them before it waits for the first.
    pub fn start_again(&mut self, places: &[usize]) {
        let starting: Vec<_> = places.iter().map(|place| (*place, self.setups[*place].spawn())).collect();
        for (place, starting) in starting {
            let node = starting.wait_until_ready().unwrap_or_else(|failure| panic!("node {}: {failure}", place + 1));
            self.nodes[place] = Some(node);
        }
    }

    /// Kills a node by SIGKILL.
    pub fn kill(&mut self, place: usize) {
        self.nodes[place].take().expect("it runs").kill();
    }

    /// Stops nodes cleanly, all at once. Gives what each has printed.
    pub fn stop(&mut self, places: &[usize]) -> Vec<String> {
        let nodes: Vec<Broker> = places.iter().map(|place| self.nodes[*place].take().expect("it runs")).collect();
        nodes.iter().for_each(Broker::terminate);
        nodes
            .into_iter()
            .map(|node| {
                let (status, text) = node.wait_for_end();
                assert!(status.success(), "the clean stop failed with {status}:\n{text}");
                text
            })
            .collect()
    }

    /// What a node keeps, in which directory.
    pub fn setup(&self, place: usize) -> &Setup {
        &self.setups[place]
    }

    pub fn address(&self, place: usize) -> &str {
        &self.addresses[place]
    }

    /// Runs a command of the binary against one node.
    pub fn tidelog(&self, place: usize, words: &[&str]) -> Said {
        let mut command = Command::new(tidelog_binary());
        command.args(["-b", self.address(place)]).args(words);
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { succeeded: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// As [`tidelog`](Self::tidelog), for a command that must succeed. Gives what it has printed.
    pub fn say(&self, place: usize, words: &[&str]) -> String {
        let said = self.tidelog(place, words);
        assert!(said.succeeded, "{words:?} at node {}: {said:?}", place + 1);
        said.out
    }

    /// Asks the node in `place` until the quorum has a leader for which `fits` holds. Gives its place, and how long that took.
    pub fn wait_for_leader(&self, place: usize, fits: impl Fn(usize) -> bool) -> (usize, Duration) {
        let begin = Instant::now();
        loop {
            let said = self.tidelog(place, &["quorum", "describe"]);
            let leader = said.out.strip_prefix("leader ").and_then(|rest| rest.split(' ').next());
            let leader = leader.and_then(|id| id.parse::<usize>().ok()).and_then(|id| id.checked_sub(1));
            if let Some(leader) = leader.filter(|leader| fits(*leader)) {
                return (leader, begin.elapsed());
            }
            assert!(begin.elapsed() < PATIENCE, "no leader: {said:?}");
        }
    }
}

fn format(setup: &Setup) {
    let file = setup.data_dir().with_extension("properties");
    fs::create_dir_all(file.parent().expect("a parent")).expect("the directory of a node");
    fs::write(&file, setup.properties_text()).expect("the node's properties");
    let output = Command::new(tidelog_binary())
        .args(["format", "-t", CLUSTER, "-c"])
        .arg(&file)
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "format: {}", String::from_utf8_lossy(&output.stderr));
}
