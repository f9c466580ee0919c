//! Several nodes of one cluster, each a process with its own directory. They may be of different kinds.

use crate::broker::{Broker, Kind, Setup, free_port, tidelog_binary};
use crate::network::Network;
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The cluster that the directories are formatted for.
pub const CLUSTER: &str = "dGlkZWxvZy1jbHVzdGVyMQ";
const PATIENCE: Duration = Duration::from_secs(60);

/// What a cluster is to be.
#[derive(Debug)]
pub struct Plan<'a> {
    nodes: Vec<(Kind, Roles)>,
    voters: Voters,
    network: Option<&'a Network>,
    properties: Vec<(String, String)>,
}

/// The value of `process.roles`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roles {
    Both,
    Broker,
    Controller,
}

/// How the first voters are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voters {
    /// `controller.quorum.voters`.
    Static,
    /// All controllers are formatted with `--initial-controllers`.
    Initial,
    /// The first node is formatted with `--standalone`, other controllers with `--no-initial-controllers`.
    Standalone,
}

#[derive(Debug)]
pub struct Cluster {
    setups: Vec<Setup>,
    /// `None`: the node does not run.
    nodes: Vec<Option<Broker>>,
    /// Where clients are served, and where controllers.
    addresses: Vec<(String, String)>,
}

/// What a command has printed.
#[derive(Debug)]
pub struct Said {
    pub succeeded: bool,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Runs a command until it ends.
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { succeeded: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Roles {
    fn text(self) -> &'static str {
        match self {
            Self::Both => "broker,controller",
            Self::Broker => "broker",
            Self::Controller => "controller",
        }
    }

    /// The addresses of a node's listeners that it has with these roles.
    fn listeners(self, clients: u16, controllers: u16) -> String {
        let (clients, controllers) =
            (format!("PLAINTEXT://127.0.0.1:{clients}"), format!("CONTROLLER://127.0.0.1:{controllers}"));
        match self {
            Self::Both => format!("{clients},{controllers}"),
            Self::Broker => clients,
            Self::Controller => controllers,
        }
    }
}

impl<'a> Plan<'a> {
    /// Nodes of Tidelog that are brokers and controllers, with static voters.
    pub fn new(count: usize) -> Self {
        Self::of(&vec![Kind::Tidelog; count])
    }

    /// Nodes of these kinds. Tidelog formats the directories of all.
    pub fn of(kinds: &[Kind]) -> Self {
        let nodes = kinds.iter().map(|kind| (*kind, Roles::Both)).collect();
        Self { nodes, voters: Voters::Static, network: None, properties: Vec::new() }
    }

    /// Gives each node its roles.
    pub fn roles(mut self, roles: &[Roles]) -> Self {
        assert_eq!(roles.len(), self.nodes.len(), "roles for each node");
        self.nodes.iter_mut().zip(roles).for_each(|(node, roles)| node.1 = *roles);
        self
    }

    pub fn voters(mut self, voters: Voters) -> Self {
        self.voters = voters;
        self
    }

    /// The nodes reach each other's controllers through this network.
    pub fn through(mut self, network: &'a Network) -> Self {
        self.network = Some(network);
        self
    }

    /// Sets a name of every node's `server.properties`.
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.properties.push((name.to_owned(), value.to_string()));
        self
    }

    /// Formats the directories of the nodes below `home`, and starts all of them.
    pub fn start(self, home: &Path) -> Cluster {
        let mut cluster = self.format(home);
        cluster.start_again(&(0..cluster.setups.len()).collect::<Vec<_>>());
        cluster
    }

    /// Formats the directories of the nodes below `home`. None of them runs yet.
    pub fn format(self, home: &Path) -> Cluster {
        let ports: Vec<(u16, u16)> = self.nodes.iter().map(|_| (free_port(), free_port())).collect();
        // Where other nodes find the controllers.
        let told: Vec<u16> = (0..)
            .zip(&ports)
            .map(|(place, (_, port))| self.network.map_or(*port, |network| network.in_front_of(place, *port)))
            .collect();
        let controllers: Vec<(usize, String)> = (0..)
            .zip(&self.nodes)
            .filter(|(_, (_, roles))| *roles != Roles::Broker)
            .map(|(place, _)| (place, format!("127.0.0.1:{}", told[place])))
            .collect();
        let list = |entry: &dyn Fn(usize, &str) -> String| {
            let entries: Vec<String> = controllers.iter().map(|(place, address)| entry(place + 1, address)).collect();
            entries.join(",")
        };
        let (found_by, at) = match self.voters {
            Voters::Static => ("controller.quorum.voters", list(&|id, address| format!("{id}@{address}"))),
            Voters::Initial | Voters::Standalone => {
                ("controller.quorum.bootstrap.servers", list(&|_, address| address.to_owned()))
            }
        };
        let initial = list(&|id, address| format!("{id}@{address}:{}", random_uuid()));
        let setup = |(place, (clients, controllers)): (usize, &(u16, u16))| {
            let (kind, roles) = self.nodes[place];
            let setup = Setup::of(kind, &home.join(format!("node{}", place + 1)))
                .set("node.id", place + 1)
                .set("process.roles", roles.text())
                .set("controller.listener.names", "CONTROLLER")
                .set("listeners", roles.listeners(*clients, *controllers))
                .set("advertised.listeners", roles.listeners(*clients, told[place]))
                .set(found_by, &at);
            self.properties.iter().fold(setup, |setup, (name, value)| setup.set(name, value))
        };
        let setups: Vec<Setup> = (0..).zip(&ports).map(setup).collect();
        for (place, setup) in setups.iter().enumerate() {
            let options: &[&str] = match (self.voters, self.nodes[place].1) {
                (Voters::Static, _) | (_, Roles::Broker) => &[],
                (Voters::Initial, _) => &["--initial-controllers", &initial],
                (Voters::Standalone, _) if place == 0 => &["--standalone"],
                (Voters::Standalone, _) => &["--no-initial-controllers"],
            };
            let formatted = format(setup, CLUSTER, options);
            assert!(formatted.succeeded, "node {}: {formatted:?}", place + 1);
        }
        let address = |port: &u16| format!("127.0.0.1:{port}");
        let addresses = ports.iter().map(|(clients, controllers)| (address(clients), address(controllers))).collect();
        Cluster { nodes: setups.iter().map(|_| None).collect(), setups, addresses }
    }
}

impl Cluster {
    /// A cluster of `count` nodes of Tidelog.
    pub fn start(home: &Path, count: usize) -> Self {
        Plan::new(count).start(home)
    }

    /// Starts a node that does not run, and does not wait until it serves.
    pub fn spawn(&mut self, place: usize) {
        self.nodes[place] = Some(self.setups[place].spawn().unready());
    }

    /// Waits until all nodes that were spawned serve.
    pub fn wait_until_ready(&self) {
        self.nodes.iter().flatten().for_each(Broker::wait_for_ready);
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

    /// Waits until a node has printed at least `count` lines that each contain all of `words`.
    pub fn log_lines(&self, place: usize, count: usize, words: &[&str]) -> Vec<String> {
        self.node(place).log_lines(count, words)
    }

    /// Stops the node's process for a time, and lets it go on.
    pub fn pause(&self, place: usize) {
        self.node(place).signal(Signal::STOP);
    }

    pub fn resume(&self, place: usize) {
        self.node(place).signal(Signal::CONT);
    }

    /// Panics when the process of a node has ended by itself.
    pub fn assert_alive(&mut self) {
        self.nodes.iter_mut().flatten().for_each(Broker::assert_alive);
    }

    fn node(&self, place: usize) -> &Broker {
        self.nodes[place].as_ref().expect("it runs")
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

    /// Sets a name of a node's `server.properties` for its next start.
    pub fn set(&mut self, place: usize, name: &str, value: impl ToString) {
        self.setups[place] = self.setups[place].clone().set(name, value.to_string());
    }

    /// Where a node serves clients.
    pub fn address(&self, place: usize) -> &str {
        &self.addresses[place].0
    }

    /// Where a node serves controllers and brokers. There is no proxy in front of it.
    pub fn controller_address(&self, place: usize) -> &str {
        &self.addresses[place].1
    }

    /// Runs a command of the binary against one node.
    pub fn tidelog(&self, place: usize, words: &[&str]) -> Said {
        Said::of(Command::new(tidelog_binary()).args(["-b", self.address(place)]).args(words))
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

/// Runs `tidelog format` for a node's directories.
pub fn format(setup: &Setup, cluster: &str, options: &[&str]) -> Said {
    let file = properties_file(setup);
    fs::create_dir_all(file.parent().expect("a parent")).expect("the directory of a node");
    fs::write(&file, setup.properties_text()).expect("the node's properties");
    let file = file.display().to_string();
    let mut words = vec!["format", "-t", cluster, "-c", &file];
    words.extend(options);
    Said::of(Command::new(tidelog_binary()).args(words))
}

/// The `server.properties` with which a node was formatted.
pub fn properties_file(setup: &Setup) -> PathBuf {
    setup.data_dir().with_extension("properties")
}

fn random_uuid() -> String {
    Said::of(Command::new(tidelog_binary()).arg("random-uuid")).out.trim().to_owned()
}
