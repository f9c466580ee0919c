//! Formatting on real directories, and what a broker makes of them.

use super::directories::Formatting;
use super::*;
use crate::client::Driver;
use crate::server::Server;
use clap::Parser;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tidelog_client::admin::{self, Admin, Answer, Operation};
use tidelog_core::storage::checkpoints::MetaProperties;
use tidelog_core::time::WallMs;

const CLUSTER: &str = "Zm9ybWF0LWV4YW1wbGUtMQ";
const DIRECTORY: &str = "JEXY6aqzQY-32P5TStzaFg";
const OTHER_DIRECTORY: &str = "MvDxzVmcRsaTz33bUuRU6A";
const CONTROLLERS: &str = "1@a.example:9093:JEXY6aqzQY-32P5TStzaFg,2@b.example:9093:MvDxzVmcRsaTz33bUuRU6A";
const VOTERS_FILE: &str = "__cluster_metadata-0/00000000000000000000-0000000000.checkpoint";

#[derive(Parser)]
struct Words {
    #[command(flatten)]
    format: Format,
}

/// Log directories below a temporary one, for a node with both roles.
struct Bench {
    home: tempfile::TempDir,
    properties: BTreeMap<String, String>,
}

impl Bench {
    /// With the log directories `a` and `b`.
    fn new() -> Self {
        Self::with(&["a", "b"])
    }

    fn with(dirs: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let dirs: Vec<String> = dirs.iter().map(|name| home.path().join(name).display().to_string()).collect();
        let dirs = dirs.join(",");
        let listeners = "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0";
        Self { home, properties: BTreeMap::new() }.set("log.dirs", &dirs).set("listeners", listeners)
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.properties.insert(name.to_owned(), value.to_owned());
        self
    }

    fn of_role(self, role: &str) -> Self {
        let listeners = if role == "broker" { "PLAINTEXT://127.0.0.1:0" } else { "CONTROLLER://127.0.0.1:0" };
        self.set("process.roles", role).set("listeners", listeners)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn dir(&self) -> &Path {
        self.home.path()
    }

    /// What these options ask for.
    fn asked(&self, cluster: &str, options: &[&str]) -> Result<Formatting, RefusedFormat> {
        let words = [&["format", "-t", cluster, "-c", "unused"], options].concat();
        let format = Words::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).format;
        let (config, _) = properties::for_formatting(&self.properties).unwrap_or_else(|error| panic!("{error}"));
        format.formatting(config, Uuid::parse(DIRECTORY).unwrap())
    }

    /// Formats with these options. Returns what is told, or why not, without the path of the temporary directory.
    fn format(&self, options: &[&str]) -> Result<String, String> {
        self.format_for(CLUSTER, options)
    }

    fn format_for(&self, cluster: &str, options: &[&str]) -> Result<String, String> {
        let mut told = Vec::new();
        let formatting = self.asked(cluster, options).map_err(|error| error.to_string())?;
        let done = formatting.carry_out(WallMs(1_000), |line| told.push(line));
        let hide = |text: String| text.replace(&self.dir().display().to_string(), "");
        done.map(|()| hide(told.join("\n"))).map_err(|error| hide(error.to_string()))
    }

    fn refused(&self, options: &[&str]) -> String {
        self.format(options).unwrap_err()
    }

    fn meta(&self, dir: &str) -> MetaProperties {
        MetaProperties::decode(dir, &fs::read(self.path(dir).join("meta.properties")).unwrap()).unwrap()
    }

    /// The files below the temporary directory.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut left = vec![self.dir().to_owned()];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => left.push(path),
                    false => found.push(path.strip_prefix(self.dir()).unwrap().display().to_string()),
                }
            }
        }
        found.retain(|name| !name.ends_with(".lock"));
        found.sort();
        found
    }

    fn start(&self) -> Server {
        Server::start(properties::configuration(&self.properties).unwrap().0).unwrap()
    }
}

#[test]
fn a_directory_is_formatted_byte_for_byte_as_a_broker_formats_its_own() {
    let own = Bench::with(&["a"]).set("cluster.id", CLUSTER);
    let server = own.start();
    let port = server.listeners()[1].1.port();
    server.stop().unwrap();
    let bootstrap = fs::read(own.path("a/bootstrap.checkpoint")).unwrap();
    // A batch has the time of its first record behind 27 other bytes of its header.
    let formatted_at = WallMs(i64::from_be_bytes(bootstrap[27..35].try_into().unwrap()));

    let listeners = format!("PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:{port}");
    let ours = Bench::with(&["a"]).set("listeners", &listeners);
    let (config, _) = properties::for_formatting(&ours.properties).unwrap();
    let format = Words::parse_from(["format", "-t", CLUSTER, "-c", "unused", "--standalone"]).format;
    let formatting = format.formatting(config, own.meta("a").directory_id.unwrap()).unwrap();
    formatting.carry_out(formatted_at, |_| {}).unwrap();
    for file in ["a/bootstrap.checkpoint", &format!("a/{VOTERS_FILE}"), "a/meta.properties"] {
        assert_eq!(fs::read(ours.path(file)).unwrap(), fs::read(own.path(file)).unwrap(), "{file}");
    }
}

#[test]
fn a_broker_starts_on_directories_that_were_formatted_and_has_their_cluster_id() {
    let bench = Bench::new();
    insta::assert_snapshot!(bench.format(&["--standalone"]).unwrap(), @"
    Formatting dynamic metadata voter directory /a with metadata.version 4.3-IV0.
    Formatting data directory /b with metadata.version 4.3-IV0.
    ");
    assert_eq!(
        bench.files(),
        [
            &format!("a/{VOTERS_FILE}"),
            "a/bootstrap.checkpoint",
            "a/meta.properties",
            "b/bootstrap.checkpoint",
            "b/meta.properties"
        ]
    );
    let formatted = ["a", "b"].map(|dir| bench.meta(dir));
    let server = bench.start();
    let address = server.listeners()[0].1.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cluster = runtime.block_on(async {
        let servers = BTreeMap::from([("bootstrap.servers".to_owned(), address)]);
        let mut driver = Driver::new(Admin::new(tidelog_client::AdminConfig::from_properties(&servers).unwrap().0, 1));
        driver.call(admin::Call { id: 1, operation: Operation::DescribeCluster });
        let event = tokio::time::timeout(Duration::from_secs(60), driver.next()).await.expect("it answers");
        match event.results.into_iter().next() {
            Some((_, Ok(Answer::Cluster(cluster)))) => cluster,
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(cluster.cluster_id, CLUSTER);
    server.stop().unwrap();
    assert_eq!(["a", "b"].map(|dir| bench.meta(dir)), formatted);
}

#[test]
fn a_first_voter_gets_the_directory_id_of_the_list_and_every_node_the_same_voters() {
    let [first, second, third] = ["1", "2", "3"].map(|node| {
        let bench = Bench::new().set("node.id", node).set("controller.quorum.bootstrap.servers", "a.example:9093");
        bench.format(&["--initial-controllers", CONTROLLERS]).unwrap();
        bench
    });
    let id = |bench: &Bench| bench.meta("a").directory_id.unwrap().to_string();
    assert_eq!([id(&first), id(&second)], [DIRECTORY, OTHER_DIRECTORY]);
    assert!(![DIRECTORY, OTHER_DIRECTORY].contains(&&*id(&third)), "an observer has an id of its own");
    let voters = |bench: &Bench| fs::read(bench.path("a").join(VOTERS_FILE)).unwrap();
    assert!(voters(&first) == voters(&second) && voters(&first) == voters(&third));
}

#[test]
fn a_node_that_does_not_know_the_voters_is_formatted_without_them() {
    let servers = ("controller.quorum.bootstrap.servers", "a.example:9093");
    for (bench, options) in [
        (Bench::new().of_role("controller").set(servers.0, servers.1), &["--no-initial-controllers"][..]),
        (Bench::new().of_role("broker").set(servers.0, servers.1), &[]),
        (Bench::new().set("controller.quorum.voters", "1@a.example:9093,2@b.example:9093"), &[]),
    ] {
        bench.format(options).unwrap();
        let expected = ["a", "b"].map(|dir| ["bootstrap.checkpoint", "meta.properties"].map(|f| format!("{dir}/{f}")));
        assert_eq!(bench.files(), expected.concat(), "{options:?}");
    }
}

#[test]
fn the_metadata_log_has_its_own_directory_where_the_configuration_says_so() {
    let bench = Bench::new();
    let place = bench.path("meta").display().to_string();
    let bench = bench.set("metadata.log.dir", &place);
    insta::assert_snapshot!(bench.format(&["--standalone", "--release-version", "4.0"]).unwrap(), @"
    Formatting dynamic metadata voter directory /meta with metadata.version 4.0-IV3.
    Formatting data directory /a with metadata.version 4.0-IV3.
    Formatting data directory /b with metadata.version 4.0-IV3.
    ");
    assert!(bench.path("meta").join(VOTERS_FILE).exists() && !bench.path("a").join(VOTERS_FILE).exists());
}

#[test]
fn formatting_twice_is_refused_and_changes_nothing_where_it_is_asked_to_ignore() {
    let bench = Bench::new();
    bench.format(&["--standalone"]).unwrap();
    let metas = ["a", "b"].map(|dir| bench.meta(dir));
    insta::assert_snapshot!(bench.refused(&["--standalone"]), @"Log directory /a is already formatted. Use --ignore-formatted to ignore this directory and format the others.");
    assert_eq!(bench.format(&["-s", "-g"]).unwrap(), "All of the log directories are already formatted.");
    assert_eq!(["a", "b"].map(|dir| bench.meta(dir)), metas);
    fs::remove_dir_all(bench.path("b")).unwrap();
    insta::assert_snapshot!(bench.format(&["-s", "-g"]).unwrap(), @"Formatting data directory /b with metadata.version 4.3-IV0.");
    assert_eq!(bench.meta("a"), metas[0]);
    assert_ne!(bench.meta("b").directory_id, metas[1].directory_id);
}

#[test]
fn formatting_that_was_interrupted_is_done_anew() {
    let bench = Bench::new();
    bench.format(&["--standalone"]).unwrap();
    for left in ["a/meta.properties", "b/meta.properties"] {
        fs::remove_file(bench.path(left)).unwrap();
    }
    fs::write(bench.path("a/bootstrap.checkpoint.tmp"), "half").unwrap();
    fs::write(bench.path("a").join(format!("{VOTERS_FILE}.tmp")), "half").unwrap();
    bench.format(&["--standalone"]).unwrap();
    bench.start().stop().unwrap();
}

#[test]
fn directories_that_are_not_this_clusters_or_nodes_or_not_empty_are_left_as_they_are() {
    let formatted = || {
        let bench = Bench::new();
        bench.format(&["--standalone"]).unwrap();
        bench
    };
    let mut refused = Vec::new();
    let bench = formatted();
    refused.push(bench.format_for(OTHER_DIRECTORY, &["-s", "-g"]).unwrap_err());
    let bench = formatted().set("node.id", "2");
    refused.push(bench.refused(&["-s", "-g"]));
    let bench = formatted();
    fs::write(bench.path("b/meta.properties"), "version=1\ncluster.id=other\nnode.id=1\n").unwrap();
    refused.push(bench.refused(&["-s", "-g"]));
    fs::write(bench.path("b/meta.properties"), "version=1\n").unwrap();
    refused.push(bench.refused(&["-s", "-g"]));
    let bench = formatted();
    fs::remove_file(bench.path("b/meta.properties")).unwrap();
    fs::create_dir(bench.path("b/orders-0")).unwrap();
    refused.push(bench.refused(&["-s", "-g"]));
    let bench = formatted();
    fs::remove_file(bench.path("a/meta.properties")).unwrap();
    fs::write(bench.path("a/__cluster_metadata-0/00000000000000000000.log"), "").unwrap();
    refused.push(bench.refused(&["-s", "-g"]));
    let bench = formatted();
    fs::remove_dir_all(bench.path("a")).unwrap();
    fs::create_dir(bench.path("b/orders-0")).unwrap();
    refused.push(bench.refused(&["-s", "-g"]));
    assert!(!bench.path("a/meta.properties").exists());
    let bench = Bench::new();
    fs::write(bench.path("a"), "").unwrap();
    refused.push(bench.refused(&["-s"]));
    assert!(!bench.path("b/meta.properties").exists(), "all or none");
    insta::assert_snapshot!(refused.join("\n"), @r#"
    /a/meta.properties belongs to cluster.id Zm9ybWF0LWV4YW1wbGUtMQ, and the cluster to format for is MvDxzVmcRsaTz33bUuRU6A. Give the same id with -t, or set log.dirs to the directories of one cluster
    /a/meta.properties belongs to node.id 1, but the configuration says 2. Set node.id=1, or log.dirs to the directories of node 2
    /b/meta.properties belongs to cluster.id other, and the cluster to format for is Zm9ybWF0LWV4YW1wbGUtMQ. Give the same id with -t, or set log.dirs to the directories of one cluster
    /b/meta.properties: cluster.id is missing. Correct the file, or empty the directory
    /b has no meta.properties, but is not empty: it holds "orders-0". Set log.dirs to an empty directory, or restore meta.properties
    /a has no meta.properties, but is not empty: it holds "__cluster_metadata-0/00000000000000000000.log". Set log.dirs to an empty directory, or restore meta.properties
    /a is empty, while /b holds partitions: the volume of the metadata log may not be mounted. Mount it; for a new cluster, empty the other directories of log.dirs too
    cannot use the log directory /a: File exists (os error 17). Remove the cause, or take the directory out of log.dirs
    "#);
}

#[test]
fn a_directory_in_which_a_broker_runs_is_refused() {
    let bench = Bench::new();
    let server = bench.start();
    let refused = bench.refused(&["-s", "-g"]);
    assert!(refused.starts_with("log directory /a is in use by another broker"), "{refused}");
    server.stop().unwrap();
}

#[test]
fn options_that_contradict_the_configuration_are_refused_before_anything_is_written() {
    let servers = ("controller.quorum.bootstrap.servers", "a.example:9093");
    let voters = ("controller.quorum.voters", "1@a.example:9093,2@b.example:9093");
    let mut refused = Vec::new();
    for (bench, options) in [
        (Bench::new(), &[][..]),
        (Bench::new().set(voters.0, voters.1), &["--standalone"]),
        (Bench::new().set(voters.0, voters.1), &["--initial-controllers", CONTROLLERS]),
        (Bench::new().of_role("broker").set(servers.0, servers.1), &["--standalone"]),
        (Bench::new().of_role("broker").set(servers.0, servers.1), &["--initial-controllers", CONTROLLERS]),
        (Bench::new().set("listeners", "PLAINTEXT://:9092"), &["--standalone"]),
        (Bench::new(), &["--no-initial-controllers"]),
        (Bench::new().set("cluster.id", "other"), &["--standalone"]),
        (Bench::new(), &["--standalone", "--release-version", "2.8"]),
        (Bench::new(), &["--standalone", "--feature", "group.version=9"]),
    ] {
        refused.push(bench.refused(options));
        assert_eq!(fs::read_dir(bench.dir()).unwrap().count(), 0, "{options:?}");
    }
    refused.push(Bench::new().format_for(" ", &["--standalone"]).unwrap_err());
    insta::assert_snapshot!(refused.join("\n"), @"
    Because controller.quorum.voters is not set on this controller, you must specify one of the following: --standalone, --initial-controllers, or --no-initial-controllers.
    You cannot specify controller.quorum.voters and format the node with --initial-controllers or --standalone. If you want to use dynamic quorum, please remove controller.quorum.voters and specify controller.quorum.bootstrap.servers instead.
    You cannot specify controller.quorum.voters and format the node with --initial-controllers or --standalone. If you want to use dynamic quorum, please remove controller.quorum.voters and specify controller.quorum.bootstrap.servers instead.
    You can only use --standalone on a controller. Add controller to process.roles, or leave --standalone out.
    --initial-controllers names this node, 1, which is a broker alone. Add controller to process.roles, or take the node out of the list
    a controller that other nodes cannot reach is no voter: add a listener of controller.listener.names to listeners, such as CONTROLLER://localhost:9093
    this node is none of the first voters, and nothing says where it finds them: set controller.quorum.bootstrap.servers to the controllers
    cluster.id=other in the configuration is another cluster than -t Zm9ybWF0LWV4YW1wbGUtMQ: remove it, or give its id
    Unknown metadata.version '2.8'. Supported metadata.version are: 3.3-IV3, 3.4-IV0, 3.5-IV0, 3.5-IV1, 3.5-IV2, 3.6-IV0, 3.6-IV1, 3.6-IV2, 3.7-IV0, 3.7-IV1, 3.7-IV2, 3.7-IV3, 3.7-IV4, 3.8-IV0, 3.9-IV0, 4.0-IV0, 4.0-IV1, 4.0-IV2, 4.0-IV3, 4.1-IV0, 4.1-IV1, 4.2-IV0, 4.2-IV1, 4.3-IV0
    No feature group.version with feature level 9; allowed is 0 to 1
    the cluster id is empty: `tidelog random-uuid` prints one
    ");
}

#[test]
fn options_that_contradict_each_other_or_cannot_be_read_are_refused() {
    let refused = |options: &[&str]| {
        let words = [&["format", "-t", CLUSTER, "-c", "unused"], options].concat();
        let error = Words::try_parse_from(words).err().expect("they are refused").to_string();
        error.lines().next().unwrap_or_default().to_owned()
    };
    for other in [&["--no-initial-controllers"][..], &["--initial-controllers", CONTROLLERS]] {
        assert!(refused(&[&["--standalone"], other].concat()).contains("cannot be used with"));
    }
    insta::assert_snapshot!(refused(&["--feature", "kraft.version"]), @"error: invalid value 'kraft.version' for '--feature <FEATURE=LEVEL>': allowed is FEATURE=LEVEL, such as kraft.version=1");
    insta::assert_snapshot!(refused(&["--feature", "kraft.version=one"]), @"error: invalid value 'kraft.version=one' for '--feature <FEATURE=LEVEL>': allowed is FEATURE=LEVEL, such as kraft.version=1");
}
