//! What an operator looks at: `/metrics` and `/healthz` of a broker process.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the real world")]

use bytes::Bytes;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};
use tidelog_tests::broker::{Broker, Kind, Setup};
use tidelog_tests::client::{Client, Producer, batch};
use tidelog_tests::http::{self, Answer, Scrape};

/// A wait that only ends a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// Our own binary whatever the other tests run against: Kafka's metrics are had in another way.
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
    // Each of the two with acks waited for a sync, and creating the topic did.
    assert!(after.value("kafka_log_logflushstats_logflushrateandtimems_count") >= 3.0);
    assert!(after.value("kafka_log_logflushstats_logflushrateandtimems{quantile=\"0.999\"}") > 0.0);
    assert!(
        after.value("kafka_server_socket_server_metrics_incoming_byte_total{listener=\"PLAINTEXT\"}") > 4.0 * bytes
    );
    assert!(after.value("kafka_server_socket_server_metrics_outgoing_byte_total{listener=\"PLAINTEXT\"}") > bytes);
    let idle = after.value("kafka_server_kafkarequesthandlerpool_requesthandleravgidle_percent");
    assert!((0.0..=1.0).contains(&idle), "{idle}");
    assert!(after.value("process_resident_memory_bytes") > 1e6 && after.value("process_open_fds") > 5.0);
    assert!(after.value("process_start_time_seconds") > 1.6e9);

    drop(client);
    let begin = Instant::now();
    let closed = "kafka_server_socket_server_metrics_connection_close_total{listener=\"PLAINTEXT\"}";
    while scrape(&broker).value(closed) < 1.0 {
        assert!(begin.elapsed() < PATIENCE, "the connection's end is counted");
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
    let served: BTreeSet<String> = scrape(&broker).families.into_keys().collect();
    broker.stop();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let page = std::fs::read_to_string(docs.join("METRICS.md")).expect("docs/METRICS.md");
    // The rows of its tables of metrics begin with the name.
    let tables = page.split("## Topics").nth(1).and_then(|page| page.split("## Names that").next());
    let rows = tables.expect("the tables of metrics").lines();
    let documented: BTreeSet<String> =
        rows.filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name.to_owned())).collect();
    assert_eq!(served.difference(&documented).collect::<Vec<_>>(), Vec::<&String>::new(), "not documented");
    assert_eq!(documented.difference(&served).collect::<Vec<_>>(), Vec::<&String>::new(), "not served");

    let dashboard = std::fs::read_to_string(docs.join("grafana-dashboard.json")).expect("docs/grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("the dashboard is JSON");
    let mut asked = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("an expression");
            let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            asked.extend(
                words
                    .filter(|word| ["kafka_", "tidelog_", "process_"].iter().any(|p| word.starts_with(p)))
                    .map(str::to_owned),
            );
        }
    }
    let base = |name: &str| ["_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).map(str::to_owned);
    let unknown = |name: &&String| !served.contains(*name) && !base(name).is_some_and(|name| served.contains(&name));
    assert!(asked.len() > 20, "{asked:?}");
    assert_eq!(asked.iter().filter(unknown).collect::<Vec<_>>(), Vec::<&String>::new(), "the dashboard asks in vain");
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
    // More than sockets hold, asked for often enough.
    let large: Vec<Bytes> = (0..8).map(|_| Bytes::from(vec![b'x'; 100_000])).collect();
    assert_eq!(client.produce("t", 0, batch(Producer::NONE, &large)).expect("Produce").error_code, 0);

    // A client that does not take its last answers holds up the stop, and while that lasts the broker says so.
    for _ in 0..100 {
        client.send_fetch("t", 0, 0).expect("sent");
    }
    broker.terminate();
    let begin = Instant::now();
    let mut said = BTreeSet::new();
    while let Ok(answer) = http::get(&address, "/healthz") {
        assert!(begin.elapsed() < PATIENCE, "the broker stops");
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
    // The start opens this pipe and finds no end of it: it waits for whoever writes.
    let state = setup.data_dir().join("__cluster_metadata-0/quorum-state");
    let content = std::fs::read(&state).expect("quorum-state");
    std::fs::remove_file(&state).expect("removed");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &state,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .expect("a pipe");
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
    // A file where the directory was.
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
    broker.stop();
}

#[test]
fn what_is_no_scrape_is_refused_and_costs_nothing() {
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
    // An answer that says no, or none at all: but the connection ends.
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
fn whoever_holds_every_connection_is_cut_off_and_scrapes_go_on_and_clients_notice_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let broker = tidelog(home.path()).start();
    let address = broker.metrics_address();
    let mut client = client_with_topic(&broker, 1);
    // More than are served at once, each with a request that has no end.
    let mut idlers: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).expect("a connection");
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").expect("sent");
            stream
        })
        .collect();
    client.produce("t", 0, batch(Producer::NONE, &values(1))).expect("Produce");
    // Behind all of them.
    assert_eq!(health(&address).status, 200);
    for stream in &mut idlers[..16] {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut rest = Vec::new();
        // Cut off, one way or the other.
        let _ = stream.read_to_end(&mut rest);
        let _ = stream.shutdown(Shutdown::Both);
    }
    broker.stop();
}

#[test]
fn many_scrapes_at_once_all_see_a_whole_and_nothing_falls() {
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
