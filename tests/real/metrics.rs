//! `/metrics` and `/healthz` of a broker process.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use bytes::Bytes;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tidelog_tests::broker::{Broker, Kind, Setup};
use tidelog_tests::client::{Client, Producer, batch};
use tidelog_tests::http::{self, Answer, Scrape};

/// The limit of a wait, which is only reached if the broker hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Always our own binary, also when the other tests run against Kafka: Kafka's metrics are read over JMX.
fn tidelog(home: &Path) -> Setup {
    Setup::of(Kind::Tidelog, home).set("metrics.listener", "127.0.0.1:0")
}

fn scrape(broker: &Broker) -> Scrape {
    let answer = http::get(&broker.metrics_address(), "/metrics").expect("a scrape");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    Scrape::parse(&answer.body).unwrap_or_else(|why| panic!("{why}"))
}

fn health(address: &str) -> Answer {
    http::get(address, "/healthz").expect("an answer")
}

fn client_with_topic(broker: &Broker, partitions: i32) -> Client {
    let mut client = Client::connect(broker.address()).expect("a connection");
    assert_eq!(client.create_topic("t", partitions, &[]).expect("CreateTopics"), (0, None));
    client.wait_for_leaders("t").expect("leaders");
    client
}

fn values(count: u32) -> Vec<Bytes> {
    (0..count).map(|n| Bytes::from(format!("value {n}"))).collect()
}

#[test]
fn the_numbers_follow_what_clients_do() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = tidelog(home.path()).start();
    let before = scrape(&broker);
    assert_eq!(before.value("kafka_server_kafkaserver_brokerstate"), 3.0);
    assert_eq!(before.value("kafka_server_brokertopicmetrics_messagesin_total"), 0.0);
    assert_eq!(before.value("kafka_server_replicamanager_partitioncount"), 0.0);

    let mut client = client_with_topic(&broker, 3);
    let sent = batch(Producer::NONE, &values(10));
    for partition in 0..2 {
        assert_eq!(client.produce("t", partition, sent.clone()).expect("Produce").error_code, 0);
    }
    client.send_produce("t", 0, 0, sent.clone()).expect("sent");
    let mut damaged = sent.to_vec();
    *damaged.last_mut().expect("bytes") ^= 1;
    assert_eq!(client.produce("t", 0, damaged.into()).expect("Produce").error_code, 2);
    assert_eq!(client.read_from("t", 1, 0).expect("Fetch").len(), 10);

    let after = scrape(&broker);
    assert_eq!(after.fallen_since(&before), Vec::<&str>::new());
    let bytes = sent.len() as f64;
    for (sample, value) in [
        ("kafka_server_brokertopicmetrics_messagesin_total", 30.0),
        ("kafka_server_brokertopicmetrics_messagesin_total{topic=\"t\"}", 30.0),
        ("kafka_server_brokertopicmetrics_bytesin_total{topic=\"t\"}", 3.0 * bytes),
        ("kafka_server_brokertopicmetrics_bytesout_total{topic=\"t\"}", bytes),
        ("kafka_server_brokertopicmetrics_totalproducerequests_total{topic=\"t\"}", 4.0),
        ("kafka_server_brokertopicmetrics_failedproducerequests_total{topic=\"t\"}", 0.0),
        ("kafka_server_brokertopicmetrics_invalidmessagecrcrecords_total", 1.0),
        ("kafka_server_replicamanager_partitioncount", 3.0),
        ("kafka_server_replicamanager_leadercount", 3.0),
        ("kafka_server_replicamanager_underreplicatedpartitions", 0.0),
        ("kafka_controller_kafkacontroller_activecontrollercount", 1.0),
        ("kafka_controller_kafkacontroller_globaltopiccount", 1.0),
        ("kafka_controller_kafkacontroller_globalpartitioncount", 3.0),
        ("kafka_controller_kafkacontroller_activebrokercount", 1.0),
        ("kafka_log_log_logendoffset{topic=\"t\",partition=\"0\"}", 20.0),
        ("kafka_log_log_size{topic=\"t\",partition=\"1\"}", bytes),
        ("kafka_log_log_numlogsegments{topic=\"t\",partition=\"2\"}", 1.0),
        ("kafka_cluster_partition_insyncreplicascount{topic=\"t\",partition=\"2\"}", 1.0),
        ("kafka_log_logmanager_offlinelogdirectorycount", 0.0),
        ("kafka_network_requestmetrics_requests_total{request=\"CreateTopics\",version=\"7\"}", 1.0),
        ("kafka_network_requestmetrics_errors_total{request=\"Produce\",error=\"CORRUPT_MESSAGE\"}", 1.0),
        ("kafka_network_requestmetrics_errors_total{request=\"Produce\",error=\"NONE\"}", 2.0),
        ("kafka_network_requestmetrics_totaltimems_count{request=\"Produce\"}", 4.0),
        ("kafka_server_socket_server_metrics_connection_count{listener=\"PLAINTEXT\"}", 1.0),
        ("kafka_server_socket_server_metrics_connection_creation_total{listener=\"PLAINTEXT\"}", 1.0),
        ("kafka_server_delayedoperationpurgatory_purgatorysize{delayedOperation=\"Fetch\"}", 0.0),
        ("kafka_server_raft_metrics_current_state_info{state=\"leader\"}", 1.0),
    ] {
        assert_eq!(after.value(sample), value, "{sample}");
    }
    // Each of the two Produce requests with acks waited for a sync, and so did creating the topic.
    assert!(after.value("kafka_log_logflushstats_logflushrateandtimems_count") >= 3.0);
    assert!(after.value("kafka_log_logflushstats_logflushrateandtimems{quantile=\"0.999\"}") > 0.0);
    assert!(
        after.value("kafka_server_socket_server_metrics_incoming_byte_total{listener=\"PLAINTEXT\"}") > 4.0 * bytes
    );
    assert!(after.value("kafka_server_socket_server_metrics_outgoing_byte_total{listener=\"PLAINTEXT\"}") > bytes);
    let idle = after.value("kafka_server_kafkarequesthandlerpool_requesthandleravgidle_percent");
    assert!((0.0..=1.0).contains(&idle), "{idle}");
    if cfg!(target_os = "linux") {
        assert!(after.value("process_resident_memory_bytes") > 1e6 && after.value("process_open_fds") > 5.0);
        assert!(after.value("process_start_time_seconds") > 1.6e9);
    }

    drop(client);
    let begin = Instant::now();
    let closed = "kafka_server_socket_server_metrics_connection_close_total{listener=\"PLAINTEXT\"}";
    while scrape(&broker).value(closed) < 1.0 {
        assert!(begin.elapsed() < PATIENCE, "the closed connection is counted");
    }
    let text = broker.stop();
    assert!(text.contains("metrics and health at http://127.0.0.1:"), "{text}");
}

#[test]
fn every_metric_stands_in_the_documentation_and_none_that_is_not_there() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = tidelog(home.path()).start();
    let mut client = client_with_topic(&broker, 1);
    client.produce("t", 0, batch(Producer::NONE, &values(1))).expect("Produce");
    let mut served: BTreeSet<String> = scrape(&broker).families.into_keys().collect();
    broker.stop();
    let page = docs("METRICS.md");
    let documented = documented_between(&page, "## Topics", "## Names that");
    if !cfg!(target_os = "linux") {
        // The metrics of the process come from Linux's /proc.
        served.extend(documented_between(&page, "## The process", "## Names that"));
    }
    assert_eq!(served.difference(&documented).collect::<Vec<_>>(), Vec::<&String>::new(), "not documented");
    assert_eq!(documented.difference(&served).collect::<Vec<_>>(), Vec::<&String>::new(), "not served");

    for (name, least) in [("grafana-dashboard.json", 20), ("prometheus-rules.yml", 15)] {
        let expressions = match name {
            "grafana-dashboard.json" => dashboard_expressions(),
            _ => alerts().into_iter().map(|alert| alert.expression).collect(),
        };
        let asked: BTreeSet<String> = expressions.iter().flat_map(|expression| metrics_in(expression)).collect();
        let base = |name: &str| ["_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).map(str::to_owned);
        let unknown =
            |name: &&String| !served.contains(*name) && !base(name).is_some_and(|name| served.contains(&name));
        assert!(asked.len() >= least, "{name}: {asked:?}");
        assert_eq!(
            asked.iter().filter(unknown).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "{name} asks for metrics that do not exist"
        );
    }
}

fn docs(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("docs/{name}: {error}"))
}

/// The names of our metrics that a query of Prometheus holds.
fn metrics_in(expression: &str) -> Vec<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = |word: &&str| ["kafka_", "tidelog_", "process_"].iter().any(|prefix| word.starts_with(prefix));
    words.filter(ours).map(str::to_owned).collect()
}

fn dashboard() -> serde_json::Value {
    serde_json::from_str(&docs("grafana-dashboard.json")).expect("the dashboard is JSON")
}

fn dashboard_expressions() -> Vec<String> {
    let panels = dashboard()["panels"].as_array().expect("panels").clone();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    targets.map(|target| target["expr"].as_str().expect("an expression").to_owned()).collect()
}

struct Alert {
    name: String,
    expression: String,
    has_summary: bool,
}

/// The rules of docs/prometheus-rules.yml.
fn alerts() -> Vec<Alert> {
    let documents = yaml_rust2::YamlLoader::load_from_str(&docs("prometheus-rules.yml")).expect("the rules are YAML");
    let groups = documents[0]["groups"].as_vec().expect("groups");
    let rules = groups.iter().flat_map(|group| group["rules"].as_vec().expect("rules"));
    rules
        .map(|rule| Alert {
            name: rule["alert"].as_str().expect("an alert's name").to_owned(),
            expression: rule["expr"].as_str().expect("an alert's expression").to_owned(),
            has_summary: rule["annotations"]["summary"].as_str().is_some(),
        })
        .collect()
}

#[test]
fn every_alert_stands_in_the_documentation_and_none_that_is_not_there() {
    let page = docs("OPERATIONS.md");
    let section = page.split("\n## Alerts\n").nth(1).and_then(|page| page.split("\n## ").next()).expect("the alerts");
    let documented: Vec<&str> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name)).collect();
    let alerts = alerts();
    assert_eq!(alerts.iter().map(|alert| alert.name.as_str()).collect::<Vec<_>>(), documented);
    for alert in &alerts {
        assert!(alert.has_summary, "{}", alert.name);
    }
}

#[test]
fn a_panel_by_topic_counts_nothing_twice() {
    // The counters of all topics together have no `topic`, which `.*` matches too.
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let topic = variables.iter().find(|variable| variable["name"] == "topic").expect("a variable for topics");
    assert_eq!(topic["allValue"], ".+");
    let of_topics: Vec<String> =
        dashboard_expressions().into_iter().filter(|text| text.contains("brokertopicmetrics")).collect();
    assert!(of_topics.len() > 5, "{of_topics:?}");
    for expression in of_topics {
        assert!(expression.contains("topic=~\"$topic\"") || expression.contains("topic=\"\""), "{expression}");
    }
}

/// The names of the metrics between two headings of the page. In the tables of metrics each row begins with the name.
fn documented_between(page: &str, from: &str, to: &str) -> BTreeSet<String> {
    let tables = page.split(from).nth(1).and_then(|page| page.split(to).next());
    let rows = tables.expect("the tables of metrics").lines();
    rows.filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name.to_owned())).collect()
}

#[test]
fn health_follows_the_broker_from_its_start_to_its_stop() {
    let home = tempfile::tempdir().expect("a directory");
    let setup = tidelog(home.path());
    let broker = setup.start();
    let address = broker.metrics_address();
    let answer = health(&address);
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    let mut client = client_with_topic(&broker, 1);
    // The answers, requested this often, are larger than what the sockets hold.
    let large: Vec<Bytes> = (0..8).map(|_| Bytes::from(vec![b'x'; 100_000])).collect();
    assert_eq!(client.produce("t", 0, batch(Producer::NONE, &large)).expect("Produce").error_code, 0);

    // A client that does not read its last answers delays the stop. Until the stop ends, the broker reports that it is
    // stopping.
    for _ in 0..100 {
        client.send_fetch("t", 0, 0).expect("sent");
    }
    broker.terminate();
    let begin = Instant::now();
    let mut said = BTreeSet::new();
    while let Ok(answer) = http::get(&address, "/healthz") {
        assert!(begin.elapsed() < PATIENCE, "the broker stops in time");
        said.insert((answer.status, answer.body));
    }
    broker.wait_for_end();
    drop(client);
    said.remove(&(200, "ok\n".to_owned()));
    let texts = ["the broker is stopping\n", "the broker has stopped\n"];
    assert!(
        !said.is_empty() && said.iter().all(|(status, text)| *status == 503 && texts.contains(&&**text)),
        "{said:?}"
    );
}

#[test]
fn a_broker_that_cannot_come_up_yet_says_that_it_is_starting() {
    let home = tempfile::tempdir().expect("a directory");
    let setup = tidelog(home.path());
    setup.start().stop();
    // The start reads this pipe and waits until somebody writes into it.
    let state = setup.data_dir().join("__cluster_metadata-0/quorum-state");
    let content = std::fs::read(&state).expect("quorum-state");
    std::fs::remove_file(&state).expect("removed");
    let made = Command::new("mkfifo").arg(&state).status().expect("mkfifo");
    assert!(made.success(), "a pipe: {made}");
    let mut starting = setup.spawn();
    let address = starting.wait_for_metrics().unwrap_or_else(|failure| panic!("{failure}"));
    let answer = health(&address);
    assert_eq!((answer.status, answer.body.as_str()), (503, "the broker is starting\n"));
    let scraped = http::get(&address, "/metrics").expect("a scrape");
    let scraped = Scrape::parse(&scraped.body).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(scraped.value("kafka_server_kafkaserver_brokerstate"), 1.0);

    std::fs::write(&state, content).expect("somebody writes");
    let broker = starting.wait_until_ready().unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(health(&address).status, 200);
    broker.stop();
}

#[test]
fn a_log_directory_that_fails_makes_the_broker_unwell_and_says_which() {
    let home = tempfile::tempdir().expect("a directory");
    let dirs = ["meta", "topics"].map(|name| home.path().join(name).display().to_string());
    let setup = tidelog(home.path()).set("log.dirs", dirs.join(",")).set("metadata.log.dir", &dirs[0]);
    setup.start().stop();
    // The directory is replaced by a file, so every access below it fails.
    std::fs::remove_dir_all(&dirs[1]).expect("removed");
    std::fs::write(&dirs[1], "no directory").expect("a file");
    let broker = setup.start();
    let answer = health(&broker.metrics_address());
    assert_eq!((answer.status, answer.body), (503, format!("log directories are offline: {}\n", dirs[1])));
    let scraped = scrape(&broker);
    assert_eq!(scraped.value("kafka_log_logmanager_offlinelogdirectorycount"), 1.0);
    for (dir, offline) in [(&dirs[0], 0.0), (&dirs[1], 1.0)] {
        let sample = format!("kafka_log_logmanager_logdirectoryoffline{{logDirectory=\"{dir}\"}}");
        assert_eq!(scraped.value(&sample), offline, "{sample}");
    }
    let of_volume =
        |what: &str| scraped.value(&format!("tidelog_log_directory_{what}_bytes{{logDirectory=\"{}\"}}", dirs[0]));
    let [usable, free, total] = ["usable", "free", "total"].map(of_volume);
    assert!(0.0 < usable && usable <= free && free <= total, "{usable} {free} {total}");
    broker.stop();
}

#[test]
fn a_request_that_is_no_scrape_is_refused_and_costs_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let mut broker = tidelog(home.path()).start();
    let address = broker.metrics_address();
    for (path, status) in [("/", 404), ("/metrics/", 404), ("/metrics?name=x", 200), ("/healthz?full", 200)] {
        assert_eq!(http::get(&address, path).expect("an answer").status, status, "{path}");
    }
    let of = |text: &str| http::request(&address, text).map(|answer| (answer.status, answer.body.len()));
    let head = of("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("an answer");
    assert_eq!(head, (200, 0));
    let refused = http::request(&address, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    let refused = refused.expect("an answer");
    assert_eq!((refused.status, refused.headers["allow"].as_str()), (405, "GET, HEAD"));
    // The broker may refuse or not answer, but the connection must be closed.
    let long = "x".repeat(100_000);
    let hostile = [
        "GET /metrics\r\n\r\n".to_owned(),
        "\0\0\0\x10\0\x12\0\x03 a Kafka client".to_owned() + &"\0".repeat(64) + "\r\n\r\n",
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"),
        format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(10_000)),
        "GET /metrics HTTP/9.9\r\n\r\n".to_owned(),
        "POST /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_owned(),
    ];
    for text in hostile {
        if let Ok((status, _)) = of(&text) {
            assert!((400..=505).contains(&status), "{status} for {:?}…", &text[..20]);
        }
    }
    // A body that is announced and sent without end is not read.
    let mut stream = TcpStream::connect(&address).expect("a connection");
    stream.write_all(b"POST /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").expect("sent");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let begin = Instant::now();
    while stream.write_all(chunk.as_bytes()).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "the connection ends");
    }
    assert_eq!(health(&address).status, 200);
    broker.assert_alive();
    broker.stop();
}

#[test]
fn clients_that_hold_every_metrics_connection_are_closed_and_scrapes_and_kafka_clients_go_on() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = tidelog(home.path()).start();
    let address = broker.metrics_address();
    let mut client = client_with_topic(&broker, 1);
    // More connections than are served at once, each with a request that does not end.
    let mut idlers: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).expect("a connection");
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").expect("sent");
            stream
        })
        .collect();
    client.produce("t", 0, batch(Producer::NONE, &values(1))).expect("Produce");
    // This scrape waits behind all of them.
    assert_eq!(health(&address).status, 200);
    for stream in &mut idlers[..16] {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut rest = Vec::new();
        // Closed, in order or by a reset.
        let _ = stream.read_to_end(&mut rest);
        let _ = stream.shutdown(Shutdown::Both);
    }
    broker.stop();
}

#[test]
fn many_scrapes_at_once_are_all_complete_and_no_counter_decreases() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = tidelog(home.path()).start();
    let mut client = client_with_topic(&broker, 50);
    std::thread::scope(|scope| {
        let scrapers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut last = Scrape::default();
                    for _ in 0..25 {
                        let next = scrape(&broker);
                        assert_eq!(next.fallen_since(&last), Vec::<&str>::new());
                        last = next;
                    }
                })
            })
            .collect();
        let mut produced = 0;
        while !scrapers.iter().all(|scraper| scraper.is_finished()) {
            client.produce("t", produced % 50, batch(Producer::NONE, &values(1))).expect("Produce");
            produced += 1;
        }
        for scraper in scrapers {
            scraper.join().expect("its scrapes are right");
        }
        let sample = "kafka_server_brokertopicmetrics_messagesin_total{topic=\"t\"}";
        assert_eq!(scrape(&broker).value(sample), f64::from(produced));
    });
    broker.stop();
}

#[test]
fn a_port_that_is_taken_is_named_with_its_config() {
    let home = tempfile::tempdir().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let failure = tidelog(home.path()).set("metrics.listener", address).try_start().expect_err("no start");
    let wanted = format!("listener metrics.listener: {address} is in use by another process");
    assert!(failure.log.contains(&wanted), "{}", failure.log);
    assert!(failure.log.contains("--override metrics.listener=127.0.0.1:PORT"), "{}", failure.log);
}
