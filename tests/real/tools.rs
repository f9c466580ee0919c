//! Kafka's own tools for operators, unmodified, against three nodes whose controllers become voters one by one.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use tidelog_tests::cluster::{CLUSTER, Cluster, Plan, Said, Voters, properties_file};
use tidelog_tests::{kafka, skipped};

const QUORUM: &str = "org.apache.kafka.tools.MetadataQuorumCommand";
const FEATURES: &str = "org.apache.kafka.tools.FeatureCommand";
const CLUSTER_TOOL: &str = "org.apache.kafka.tools.ClusterTool";
const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const REASSIGN: &str = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
const ELECT: &str = "org.apache.kafka.tools.LeaderElectionCommand";
const VERSIONS: &str = "org.apache.kafka.tools.BrokerApiVersionsCommand";
const SHELL: &str = "org.apache.kafka.shell.MetadataShell";

/// Whom a tool asks: a broker, or a controller.
#[derive(Clone, Copy, Debug)]
enum At {
    Broker(usize),
    Controller(usize),
}
use At::{Broker, Controller};

struct Tools<'a> {
    jars: &'a Path,
    cluster: &'a Cluster,
}

impl Tools<'_> {
    /// Two of the tools want the address before their command, the others take it anywhere.
    fn run(&self, class: &str, at: At, words: &[&str]) -> Said {
        let (option, address) = match at {
            Broker(place) => ("--bootstrap-server", self.cluster.address(place)),
            Controller(place) => ("--bootstrap-controller", self.cluster.controller_address(place)),
        };
        let mut command = kafka::quiet_tool(self.jars, class);
        match class {
            QUORUM | FEATURES => command.args([option, address]).args(words),
            _ => command.args(words).args([option, address]),
        };
        Said::of(&mut command)
    }

    /// What a tool prints that must succeed.
    fn works(&self, class: &str, at: At, words: &[&str]) -> String {
        let said = self.run(class, at, words);
        assert!(said.succeeded, "{class} at {at:?} {words:?}: {said:?}");
        said.out
    }

    /// Runs tools at the same time, and gives what each has printed.
    fn all_work<const N: usize>(&self, all: [(&str, At, &[&str]); N]) -> [String; N] {
        thread::scope(|scope| {
            let running = all.map(|(class, at, words)| scope.spawn(move || self.works(class, at, words)));
            running.map(|tool| tool.join().expect("a tool that works"))
        })
    }
}

/// The first list of which no line has all words.
fn missing<'a>(text: &str, lines: &[&'a [&'a str]]) -> Option<&'a [&'a str]> {
    lines.iter().copied().find(|words| !text.lines().any(|line| words.iter().all(|word| line.contains(word))))
}

/// For each list of words there is a line that has them all.
fn assert_lines(text: &str, lines: &[&[&str]]) {
    if let Some(words) = missing(text, lines) {
        panic!("no line with all of {words:?} in:\n{text}");
    }
}

/// The ids of nodes in a line such as `CurrentVoters: [{"id": 1, "directoryId": "…", …}, …]`.
fn ids(status: &str, name: &str) -> Vec<i32> {
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in:\n{status}"));
    let ids = line.split("\"id\": ").skip(1);
    let mut ids: Vec<i32> = ids
        .map(|rest| rest.split(',').next().and_then(|id| id.trim_end_matches(['}', ']']).parse().ok()).expect("an id"))
        .collect();
    ids.sort_unstable();
    ids
}

#[test]
fn kafkas_tools_manage_a_cluster_and_add_and_remove_its_controllers() {
    let jars = match kafka::jars() {
        Ok(jars) => jars,
        Err(why) => return skipped("kafkas_tools_manage_a_cluster_and_add_and_remove_its_controllers", &why),
    };
    let home = tempfile::tempdir().expect("a directory");
    let mut cluster = Plan::new(3)
        .voters(Voters::Standalone)
        // So small that the newest snapshot has what the tools have done.
        .set("metadata.log.max.record.bytes.between.snapshots", 200)
        .start(home.path());
    let tools = Tools { jars: &jars, cluster: &cluster };
    add_controllers(&tools);
    manage(&tools);
    replicate(&tools, home.path());
    remove_controllers(&tools);

    // A broker that is gone for good is unregistered.
    cluster.kill(0);
    let tools = Tools { jars: &jars, cluster: &cluster };
    let text = tools.works(CLUSTER_TOOL, Broker(2), &["unregister", "--id", "1"]);
    assert_lines(&text, &[&["Broker 1 is no longer registered."]]);
    let text = tools.works(CLUSTER_TOOL, Controller(1), &["list-endpoints"]);
    assert_lines(&text, &[&["2 ", "controller"]]);
    let text = tools.works(CLUSTER_TOOL, Broker(2), &["list-endpoints", "--include-fenced-brokers"]);
    assert_lines(&text, &[&["2 ", "unfenced", "broker"], &["3 ", "unfenced", "broker"]]);
    assert!(!text.lines().any(|line| line.starts_with("1 ")), "broker 1 is gone: {text}");

    cluster.stop(&[1, 2]);
    let dir = |place: usize| cluster.setup(place).partition_dir("__cluster_metadata", 0);
    // The log of the first node begins with all records; the others have begun with a snapshot.
    look_into_metadata(&jars, [newest(&dir(1), "checkpoint"), newest(&dir(0), "log")]);
}

fn add_controllers(tools: &Tools) {
    let status = tools.works(QUORUM, Broker(1), &["describe", "--status"]);
    assert_lines(&status, &[&["ClusterId:", CLUSTER], &["LeaderId:", "1"]]);
    assert_eq!((ids(&status, "CurrentVoters"), ids(&status, "CurrentObservers")), (vec![1], vec![2, 3]), "{status}");
    for (place, at) in [(1, Controller(0)), (2, Broker(1))] {
        let file = properties_file(tools.cluster.setup(place)).display().to_string();
        let text = tools.works(QUORUM, at, &["--command-config", &file, "add-controller"]);
        assert_lines(&text, &[&["Added controller", &(place + 1).to_string(), "CONTROLLER://127.0.0.1:"]]);
    }
    let described = tools.all_work([
        (QUORUM, Broker(2), &["describe", "--status"]),
        (QUORUM, Controller(2), &["describe", "--status"]),
        (QUORUM, Controller(1), &["describe", "--replication"]),
    ]);
    for status in &described[..2] {
        assert_eq!(
            (ids(status, "CurrentVoters"), ids(status, "CurrentObservers")),
            (vec![1, 2, 3], vec![]),
            "{status}"
        );
    }
    assert_lines(&described[2], &[&["1", "Leader"], &["2", "Follower"], &["3", "Follower"]]);
}

/// What does not change the voters.
fn manage(tools: &Tools) {
    let said = tools.all_work([
        (VERSIONS, Broker(1), &[]),
        (CLUSTER_TOOL, Broker(0), &["cluster-id"]),
        (CLUSTER_TOOL, Controller(1), &["cluster-id"]),
        (CLUSTER_TOOL, Broker(2), &["list-endpoints"]),
        (CLUSTER_TOOL, Controller(0), &["list-endpoints"]),
        (FEATURES, Broker(1), &["describe"]),
        (FEATURES, Controller(1), &["describe"]),
    ]);
    assert_lines(&said[0], &[&["127.0.0.1:", "(id: 1"], &["127.0.0.1:", "(id: 2"], &["127.0.0.1:", "(id: 3"]]);
    assert_lines(&said[0], &[&["CreateTopics(19)", "usable: 7"], &["DescribeQuorum(55)", "usable: 2"]]);
    for text in &said[1..3] {
        assert_lines(text, &[&["Cluster ID:", CLUSTER]]);
    }
    for (text, kind) in [(&said[3], "broker"), (&said[4], "controller")] {
        assert_lines(text, &[&["1 ", kind], &["2 ", kind], &["3 ", kind]]);
    }
    for text in &said[5..] {
        assert_lines(text, &[&["kraft.version", "FinalizedVersionLevel: 1"], &["metadata.version", "4.3-IV0"]]);
    }

    let text = tools.works(TOPICS, Broker(1), &["--create", "--topic", "made", "--partitions", "3"]);
    assert_lines(&text, &[&["Created topic made"]]);
    let at_broker =
        ["--alter", "--entity-type", "topics", "--entity-name", "made", "--add-config", "retention.ms=60000"];
    let at_controller =
        ["--alter", "--entity-type", "brokers", "--entity-default", "--add-config", "log.retention.ms=7200000"];
    tools.all_work([
        (TOPICS, Broker(0), &["--alter", "--topic", "made", "--partitions", "6"]),
        (CONFIGS, Broker(2), &at_broker),
        (CONFIGS, Controller(2), &at_controller),
        (FEATURES, Controller(0), &["downgrade", "--feature", "eligible.leader.replicas.version=0"]),
    ]);
    let said = tools.all_work([
        (TOPICS, Broker(2), &["--describe", "--topic", "made"]),
        (CONFIGS, Broker(1), &["--describe", "--entity-type", "topics", "--entity-name", "made"]),
        (CONFIGS, Controller(1), &["--describe", "--entity-type", "brokers", "--entity-default"]),
        (FEATURES, Broker(2), &["upgrade", "--feature", "eligible.leader.replicas.version=1"]),
    ]);
    assert_lines(&said[0], &[&["PartitionCount: 6", "retention.ms=60000"]]);
    assert_lines(&said[0], &[&["Leader: 1"], &["Leader: 2"], &["Leader: 3"]]);
    assert_lines(&said[1], &[&["retention.ms=60000", "DYNAMIC_TOPIC_CONFIG"]]);
    assert_lines(&said[2], &[&["log.retention.ms=7200000", "DYNAMIC_DEFAULT_BROKER_CONFIG"]]);
    assert_lines(&said[3], &[&["eligible.leader.replicas.version was upgraded to 1"]]);
}

/// Topics with several replicas: where they are, how they move, and who leads them.
fn replicate(tools: &Tools, home: &Path) {
    let words = ["--create", "--topic", "kept", "--partitions", "3", "--replication-factor", "2"];
    assert_lines(&tools.works(TOPICS, Broker(1), &words), &[&["Created topic kept"]]);
    let plan = home.join("plan.json");
    let moved = r#"{"version": 1, "partitions": [{"topic": "kept", "partition": 0, "replicas": [3, 1, 2]}]}"#;
    fs::write(&plan, moved).expect("a file");
    let plan = plan.display().to_string();
    let text = tools.works(REASSIGN, Broker(0), &["--reassignment-json-file", &plan, "--execute"]);
    assert_lines(&text, &[&["Successfully started partition reassignment for kept-0"]]);
    let begin = Instant::now();
    while !tools
        .works(REASSIGN, Broker(2), &["--reassignment-json-file", &plan, "--verify"])
        .contains("kept-0 is completed")
    {
        assert!(begin.elapsed() < Duration::from_secs(60), "the replicas have not moved");
    }
    let text = tools.works(ELECT, Broker(1), &["--election-type", "preferred", "--topic", "kept", "--partition", "0"]);
    assert_lines(&text, &[&["kept-0"]]);
    let said = tools.all_work([
        (TOPICS, Broker(0), &["--describe", "--topic", "kept"]),
        (TOPICS, Broker(2), &["--describe", "--under-replicated-partitions"]),
        (REASSIGN, Controller(1), &["--list"]),
    ]);
    assert_lines(&said[0], &[&["Partition: 0", "Leader: 3", "Replicas: 3,1,2"], &["Partition: 2", "Isr: "]]);
    assert_eq!(said[1].trim(), "", "all replicas are in sync");
    assert_lines(&said[2], &[&["No partition reassignments found."]]);
}

/// First a controller that follows, then the one that leads.
fn remove_controllers(tools: &Tools) {
    for (place, left) in [(2, &[1, 2][..]), (0, &[2][..])] {
        let (id, directory) = ((place + 1).to_string(), directory_id(tools.cluster, place));
        let words = ["remove-controller", "--controller-id", &id, "--controller-directory-id", &directory];
        let text = tools.works(QUORUM, if place == 0 { Controller(1) } else { Broker(0) }, &words);
        assert_lines(&text, &[&["Removed", "controller", &id, &directory]]);
        let status = tools.works(QUORUM, Broker(1), &["describe", "--status"]);
        assert_eq!(ids(&status, "CurrentVoters"), left, "{status}");
    }
}

/// The id of the directory of a node's metadata log.
fn directory_id(cluster: &Cluster, place: usize) -> String {
    let file = cluster.setup(place).data_dir().join("meta.properties");
    let text = fs::read_to_string(file).expect("meta.properties");
    text.lines().find_map(|line| line.strip_prefix("directory.id=")).expect("an id").to_owned()
}

/// The last of the files of a directory that end so.
fn newest(dir: &Path, ending: &str) -> PathBuf {
    let files = fs::read_dir(dir).expect("the metadata log").map(|entry| entry.expect("an entry").path());
    files.filter(|file| file.extension().is_some_and(|it| it == ending)).max().expect("a file")
}

/// `kafka-metadata-shell` on a snapshot, and on the log itself.
fn look_into_metadata(jars: &Path, files: [PathBuf; 2]) {
    if !jars.join(format!("kafka-shell-{}.jar", kafka::VERSION)).exists() {
        return skipped("kafka-metadata-shell", "its jar is not among Kafka's jars");
    }
    for file in files {
        let look = |words: &[&str]| {
            let mut shell = kafka::quiet_tool(jars, SHELL);
            let said = Said::of(shell.arg("--snapshot").arg(&file).args(words));
            assert!(said.succeeded, "{} {words:?}: {said:?}", file.display());
            said.out
        };
        look_until(&[&["made"]], || look(&["ls", "/image/topics/byName"]));
        look_until(&[&["TOPIC:made:"], &["60000"], &["7200000"]], || look(&["tree", "/image/configs"]));
    }
}

/// The shell runs its command as soon as one batch of the file is applied (`MetadataShell.waitUntilCaughtUp`), which
/// can be before the whole is, and then shows an empty image: it is asked a few times.
fn look_until(lines: &[&[&str]], look: impl Fn() -> String) {
    const LOOKS: usize = 10;
    let mut said = look();
    for _ in 1..LOOKS {
        if missing(&said, lines).is_none() {
            return;
        }
        said = look();
    }
    assert_lines(&said, lines);
}
