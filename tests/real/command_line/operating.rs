//! What an operator asks and does: health, log directories, the quorum, deleted records, a file that is checked, and
//! what is said of values without effect.

use super::*;
use tidelog_tests::broker::Kind;

/// What the command says on standard error where a broker of Tidelog's is asked: Kafka's own have a log cleaner.
fn warned(ended: Ended) -> (String, String) {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let is_tidelog = Kind::under_test() == Kind::Tidelog;
    assert_eq!(!ended.err.is_empty(), is_tidelog, "{ended:?}");
    (ended.out, ended.err)
}

const COMPACT: &str = "tidelog: warning: compact in cleanup.policy removes nothing: compacted topics keep all their \
                       records: there is no log cleaner yet\n";

#[test]
fn a_value_that_is_taken_and_has_no_effect_is_a_warning_wherever_it_is_given() {
    let bench = bench();
    bench.ok(&["topic", "create", "t"]);
    for (arguments, out, err) in [
        (&["topic", "create", "u", "--config", "cleanup.policy=compact"][..], "topic u: created\n", COMPACT),
        (&["topic", "alter", "t", "--config", "cleanup.policy=compact"], "topic t: configuration altered\n", COMPACT),
        (&["config", "alter", "--topic", "t", "--append", "cleanup.policy=compact"], "topic t: altered\n", COMPACT),
        (
            &["config", "alter", "--broker", "1", "--set", "log.retention.msec=3"],
            "broker 1: altered\n",
            "tidelog: warning: log.retention.msec is not a known config and has no effect; did you mean \
             log.retention.ms?\n",
        ),
        (
            &["config", "alter", "--broker-defaults", "--set", "num.io.threads=16"],
            "all brokers: altered\n",
            "tidelog: warning: num.io.threads has no effect here: a start takes it from the broker's file\n",
        ),
    ] {
        let (told, warning) = warned(bench.run(arguments));
        assert_eq!(told, out, "{arguments:?}");
        if !warning.is_empty() {
            assert_eq!(warning, err, "{arguments:?}");
        }
    }
    assert_eq!(bench.ok(&["config", "alter", "--topic", "t", "--set", "retention.ms=5"]), "topic t: altered\n");
}

#[test]
fn a_file_is_checked_by_the_rules_of_a_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    std::fs::write(&good, "node.id=1\nlog.retention.hour=1\n").expect("a file");
    std::fs::write(&bad, "num.partitions=many\nlisteners=9092\nlog.cleaner.threads=2\n").expect("a file");
    let check = |command: &[&str], path: &std::path::Path| {
        let path = path.to_str().expect("a path");
        let ended = run_at("nowhere:1", &[command, &[path]].concat(), b"");
        let text = |text: String| text.replace(path, "FILE");
        (ended.code, text(ended.out), text(ended.err))
    };
    let (code, out, err) = check(&["config", "check"], &good);
    assert_eq!((code, &err[..]), (Some(0), ""));
    insta::assert_snapshot!(out, @"
    warning: log.retention.hour is not a known config and has no effect; did you mean log.retention.hours?
    FILE: a broker can be started with it
    ");
    let (code, out, err) = check(&["config", "check"], &bad);
    assert_eq!(code, Some(2));
    insta::assert_snapshot!(format!("{out}{err}"), @"
    warning: log.cleaner.threads has no effect: compacted topics keep all their records: there is no log cleaner yet
    tidelog: the configuration cannot be used:
      num.partitions=many: allowed is a number of at least 1
      listeners=9092: allowed is NAME://host:port, with an IPv6 address in brackets
    ");
    assert_eq!(check(&["start"], &bad).2, err, "a start says the same");
    for command in [&["config", "check"][..], &["start"]] {
        let (code, out, err) = check(command, dir.path());
        assert_eq!((code, &out[..]), (Some(2), ""));
        assert!(err.starts_with("tidelog: cannot read FILE: it is a directory\n"), "{err}");
    }
}

#[test]
fn records_are_deleted_before_an_offset_or_a_time() {
    let bench = bench();
    // The records are old: by their default, they would leave at once.
    bench.ok(&["topic", "create", "t", "--partitions", "2", "--config", "retention.ms=-1"]);
    for partition in ["0", "1"] {
        let lines: String = (0..10)
            .map(|n| format!("{{\"value\":\"{n}\",\"timestamp\":{}}}\n", 1_700_000_000_000i64 + n * 1000))
            .collect();
        bench.feed(&["produce", "t", "--format", "json", "--partition", partition], &lines).ok();
    }
    let begins = || {
        let described = bench.json(&["topic", "describe", "t", "--format", "json"]);
        [0, 1].map(|partition| described[0]["partitions"][partition]["earliest_offset"].as_i64().expect("an offset"))
    };
    let trim = |arguments: &[&str]| bench.ok(&[&["topic", "trim", "t"], arguments].concat());
    let of_0 = ["--partition", "0", "--before-offset", "3"];
    assert_eq!(trim(&[&of_0[..], &["--validate-only"]].concat()), "t-0: would begin at 3, and begins at 0\n");
    assert_eq!(begins(), [0, 0]);
    assert_eq!(trim(&of_0), "t-0: begins at 3, and began at 0\n");
    assert_eq!(trim(&of_0), "t-0: nothing to delete, it begins at 3\n");
    assert_eq!(
        trim(&["--before-time", "2023-11-14T22:13:25Z"]),
        "t-0: begins at 5, and began at 3\nt-1: begins at 5, and began at 0\n"
    );
    assert_eq!(begins(), [5, 5]);
    assert_eq!(trim(&["-p", "1", "--before-offset", "latest"]), "t-1: begins at 10, and began at 5\n");
    assert_eq!(trim(&["--before-time", "2033-01-01"]).lines().next(), Some("t-1: nothing to delete, it begins at 10"));
    assert_eq!(begins(), [10, 10]);

    insta::assert_snapshot!(bench.refused(&["topic", "trim", "t", "-p", "1", "--before-offset", "11"], ""), @"1 tidelog: cannot trim t-1 before offset 11: its records end before 10");
    insta::assert_snapshot!(bench.refused(&["topic", "trim", "t", "-p", "2", "--before-offset", "1"], ""), @"1 tidelog: topic t has no partition 2: it has 2, from 0 on");
    insta::assert_snapshot!(bench.refused(&["topic", "trim", "t", "--before-offset", "1"], ""), @"
    2 tidelog: topic t has 2 partitions, each with offsets of its own
      --partition says which one is trimmed, --before-time trims all alike
    ");
}

#[test]
fn log_directories_and_the_quorum_are_described() {
    let bench = bench();
    bench.ok(&["topic", "create", "t", "u", "--partitions", "2"]);
    bench.feed(&["produce", "t", "--partition", "1"], "some bytes\n").ok();
    let dirs = bench.json(&["log-dirs", "--format", "json"]);
    assert_eq!((&dirs[0]["broker"], &dirs[0]["error"]), (&1.into(), &serde_json::Value::Null));
    assert!(dirs[0]["total_bytes"].as_i64() > dirs[0]["free_bytes"].as_i64(), "{dirs}");
    let of_t = bench.json(&["log-dirs", "--topic", "t", "--broker", "1", "--format", "json"]);
    let partitions = of_t[0]["partitions"].as_array().expect("a list");
    let sizes: Vec<_> =
        partitions.iter().map(|it| (it["partition"].as_i64(), it["size_bytes"].as_i64() > Some(0))).collect();
    assert_eq!(sizes, [(Some(0), false), (Some(1), true)]);
    let text = bench.ok(&["log-dirs"]);
    assert!(text.starts_with("BROKER  DIRECTORY ") && text.contains("  online "), "{text}");
    assert!(bench.ok(&["log-dirs", "--partitions"]).lines().count() >= 5, "a head and four partitions");
    insta::assert_snapshot!(bench.refused(&["log-dirs", "--broker", "7"], ""), @"1 tidelog: there is no broker 7: the only one is 1");

    let quorum = bench.json(&["quorum", "describe", "--format", "json"]);
    assert_eq!((&quorum["leader"], &quorum["replicas"][0]["role"]), (&1.into(), &"leader".into()));
    assert_eq!((&quorum["replicas"][0]["lag"], quorum["replicas"].as_array().map(Vec::len)), (&0.into(), Some(1)));
    assert!(quorum["high_watermark"].as_i64() > Some(0), "{quorum}");
    let text = bench.ok(&["quorum", "describe"]);
    assert!(text.starts_with("leader 1  epoch ") && text.contains("\nNODE  ROLE    LOG END"), "{text}");
}

#[test]
fn a_cluster_that_is_well_says_so_and_one_that_is_not_says_what_is_wrong() {
    let well = bench();
    well.ok(&["topic", "create", "t", "--partitions", "3"]);
    let text = well.ok(&["health"]);
    for check in ["brokers", "leaders", "replicas", "log directories", "quorum"] {
        let line = text.lines().find(|line| line.starts_with(check)).unwrap_or_else(|| panic!("no {check}: {text}"));
        assert!(line[check.len()..].trim_start().starts_with("ok "), "{line}");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    // A directory must be there when its cluster is new.
    bench_with(|setup| setup.set("log.dirs", good.display())).broker.stop();
    std::fs::write(&bad, "no directory").expect("a file");
    let ill = bench_with(|setup| setup.set("log.dirs", format!("{},{}", good.display(), bad.display())));
    let Ended { code, out, err } = ill.run(&["health", "--format", "json"]);
    assert_eq!((code, &err[..]), (Some(1), "tidelog: 1 of 5 checks failed\n"), "{out}");
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let bad_checks: Vec<_> =
        report["checks"].as_array().expect("a list").iter().filter(|it| it["ok"] == false).collect();
    assert_eq!((&report["healthy"], &bad_checks[0]["check"]), (&false.into(), &"log directories".into()));
    let found = format!("1 of 2 offline: {} of broker 1 (KAFKA_STORAGE_ERROR)", bad.display());
    assert_eq!(bad_checks[0]["found"].as_str(), Some(&found[..]));

    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let Ended { code, out, .. } = run_at(&free.to_string(), &["health", "--wait", "1"], b"");
    assert_eq!(code, Some(1));
    assert!(out.contains("brokers  FAILED  no broker answers at "), "{out}");
}

/// What bash gets for a line that ends at the cursor.
fn completed(bench: &Bench, line: &str) -> Vec<String> {
    let mut words: Vec<&str> = line.split(' ').collect();
    let index = (words.len() - 1).to_string();
    words[0] = "tidelog";
    let mut command = Command::new(tidelog_binary());
    command.env("COMPLETE", "bash").env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_INDEX", index);
    command.env("TIDELOG_BOOTSTRAP_SERVER", bench.broker.address()).arg("--").args(words);
    let output = command.output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().filter(|line| !line.starts_with('-')).map(str::to_owned).collect()
}

#[test]
fn a_shell_completes_topics_brokers_and_configs() {
    let bench = bench();
    bench.ok(&["topic", "create", "orders", "other", "payments"]);
    for command in ["topic describe", "topic trim", "consume", "produce", "config alter --topic", "log-dirs --topic"] {
        assert_eq!(completed(&bench, &format!("tidelog {command} o")), ["orders", "other"], "{command}");
    }
    assert!(completed(&bench, "tidelog topic create o").is_empty(), "a new topic has a new name");
    assert_eq!(completed(&bench, "tidelog config describe --broker "), ["1"]);
    assert_eq!(completed(&bench, "tidelog topic create t --config cleanup.policy=d"), ["cleanup.policy=delete"]);
    // A cluster that is not there completes nothing, and holds nobody up.
    assert!(completed(&bench, "tidelog -b 127.0.0.1:1 topic describe o").is_empty());
    assert_eq!(completed(&bench, &format!("tidelog -b {} topic describe p", bench.broker.address())), ["payments"]);
}
