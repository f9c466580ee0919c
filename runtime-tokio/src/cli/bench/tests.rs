//! What can be tested without a cluster; the rest is in `tests/real/bench.rs`.

use super::latency::Latencies;
use super::produce::{Schedule, Values};
use super::{rate, rates, share};
use std::time::{Duration, Instant};

#[test]
fn clients_share_all_that_there_is() {
    for (all, clients) in [(0, 3), (2, 3), (10, 3), (9, 3), (1_000_000, 7)] {
        let shares: Vec<u64> = (0..clients).map(|index| share(all, clients, index)).collect();
        assert_eq!(shares.iter().sum::<u64>(), all);
        assert!(shares[0] - shares[shares.len() - 1] <= 1, "{shares:?}");
    }
}

#[test]
fn clients_take_turns_in_one_schedule() {
    let begin = Instant::now();
    let due = |index, number| Schedule::new(begin, Some(1_000), 4, index).due(number).unwrap() - begin;
    assert_eq!([due(0, 0), due(1, 0), due(3, 0), due(0, 1)], [0, 1, 3, 4].map(Duration::from_millis));
    // Rounding does not add up.
    let third = Schedule::new(begin, Some(3), 1, 0);
    assert_eq!(third.due(3_000_000).unwrap() - begin, Duration::from_secs(1_000_000));
    assert_eq!(Schedule::new(begin, None, 4, 0).due(5), None);
}

#[test]
fn percentiles_are_those_of_what_was_recorded() {
    let mut latencies = Latencies::default();
    assert_eq!(latencies.percentiles(), None);
    for micros in 1..=1_000 {
        latencies.record(Duration::from_micros(micros));
    }
    let mut slow = Latencies::default();
    slow.record(Duration::from_secs(2));
    latencies.add(&slow);
    let found = latencies.percentiles().unwrap();
    assert!((0.499..=0.502).contains(&found.p50), "{found:?}");
    assert!((0.988..=0.992).contains(&found.p99), "{found:?}");
    assert!((1_999.0..=2_002.0).contains(&found.max), "{found:?}");
    // What cannot be counted is not lost.
    latencies.record(Duration::from_secs(1_000_000));
    assert!(latencies.percentiles().unwrap().max >= 3_600_000.0);
}

#[test]
fn values_have_their_size_and_differ() {
    for size in [0, 1, 100, 2_000_000] {
        let mut values = Values::new(size, 7);
        let found: Vec<_> = (0..200).map(|_| values.next()).collect();
        assert!(found.iter().all(|value| value.len() == size));
        assert!(size < 100 || found.windows(2).all(|pair| pair[0] != pair[1]));
    }
    assert_ne!(Values::new(100, 0).next(), Values::new(100, 1).next());
}

#[test]
fn rates_are_told_in_the_unit_that_fits() {
    assert_eq!(
        [rate(0.0), rate(999.0), rate(1_500_000.0), rate(2e12)],
        ["0.0 B/s", "999.0 B/s", "1.5 MB/s", "2000.0 GB/s"]
    );
    assert_eq!(rates(148_360.7, 151_900_000.0), "148,361 records/s, 151.9 MB/s");
}
