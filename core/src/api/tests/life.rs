//! What the operator is told of a start and a stop, and clients of what is not supported yet.

use super::*;
use crate::wire::messages::FindCoordinatorRequest;

/// Without what the controller tells of the registration, which is of another start each time.
fn told_since(bench: &mut Bench) -> String {
    let mut told = std::mem::take(&mut bench.told);
    told.retain(|line| !line.contains("is registered with the epoch"));
    told.join("\n")
}

#[test]
fn a_start_says_whether_the_last_stop_was_clean_and_what_it_recovered_in_each_directory() {
    let mut bench = Bench::with_two_log_dirs();
    bench.create("t", 1, &[]);
    told_since(&mut bench);

    bench.stop();
    assert_eq!(told_since(&mut bench), "Info stopped cleanly in 50 ms");
    bench.start();
    insta::assert_snapshot!(told_since(&mut bench), @"
    Info meta: the last stop was clean
    Info topics: the last stop was clean
    Info meta: 1 log opened in 0 ms
    Info topics: 1 log opened in 0 ms
    ");
    bench.start();
    let told = told_since(&mut bench);
    assert!(told.starts_with(
        "Info meta: the last stop was not clean; its logs are recovered\nInfo topics: the last stop was not clean; its logs are recovered\nInfo meta: 1 log recovered in 0 ms; scanned "
    ), "{told}");
    assert!(
        told.ends_with("\nInfo topics: 1 log recovered in 0 ms; scanned 0 bytes of 0 segments, cut 0 bytes"),
        "{told}"
    );
}

#[test]
fn a_start_takes_as_long_as_the_disk_takes_and_says_what_it_cut() {
    let mut bench = Bench::with_two_log_dirs();
    bench.create("t", 1, &[]);
    bench.append("t", &["a", "b"]);
    let log = "t-0/00000000000000000000.log";
    let len = bench.disk_of_topics().content(log).expect("a log").len();
    bench.disk_of_topics().damage(log, |bytes| bytes.extend([0x55; 100]));
    told_since(&mut bench);
    bench.hold(|op| matches!(op, IoOp::Read { .. }));
    assert!(!bench.boot());
    bench.at(Mono(bench.now.mono.0 + 12_000_000));
    bench.release();
    let told = told_since(&mut bench);
    let wanted = format!("Info topics: 1 log recovered in 12 ms; scanned {len} bytes of 1 segment, cut 100 bytes");
    assert!(told.ends_with(&wanted), "{told}\n{wanted}");
}

#[test]
fn a_directory_that_is_offline_at_the_stop_is_named_with_what_comes_of_it() {
    let mut bench = Bench::with_two_log_dirs();
    bench.create("t", 1, &[]);
    bench.disk_of_topics().fail_writes = true;
    bench.send_batch("t", -1, batch(&["a"]));
    told_since(&mut bench);
    bench.stop();
    insta::assert_snapshot!(told_since(&mut bench), @"Warn stopped in 0 ms; the next start recovers topics, which is offline");
}

#[test]
fn whoever_looks_for_a_coordinator_is_told_that_there_is_none_and_why() {
    let mut bench = Bench::new(&[]);
    for (key_type, what) in [(0, "consumer groups"), (1, "transactions"), (2, "share groups")] {
        let one = FindCoordinatorRequest { key: "g".into(), key_type, ..Default::default() };
        let ResponseBody::FindCoordinator(response) = bench.ask(3, one.into()) else { panic!("another answer") };
        assert_eq!((response.error_code, response.node_id), (ErrorCode::CoordinatorNotAvailable.code(), -1));
        assert!(response.error_message.is_some_and(|text| text.contains(what)));

        let keys = vec!["g".into(), "h".into()];
        let several = FindCoordinatorRequest { coordinator_keys: keys, key_type, ..Default::default() };
        let ResponseBody::FindCoordinator(response) = bench.ask(6, several.into()) else { panic!("another answer") };
        let keys: Vec<&str> = response.coordinators.iter().map(|found| &*found.key).collect();
        assert_eq!(keys, ["g", "h"]);
        for found in &response.coordinators {
            assert_eq!((found.error_code, found.node_id), (ErrorCode::CoordinatorNotAvailable.code(), -1));
            assert!(found.error_message.as_ref().is_some_and(|text| text.contains(what)));
        }
    }
}
