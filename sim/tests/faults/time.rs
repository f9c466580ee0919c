//! Clocks that drift and jump, and ticks that come late.

use tidelog_sim::clock::Drift;
use tidelog_sim::scenario::Fault;
use tidelog_sim::script::Script;

const MS: u64 = 1_000_000;

#[test]
fn clocks_that_drift_by_one_in_a_hundred_change_nothing_for_a_client() {
    for drift in [
        Drift::Linear { ppm: 10_000 },
        Drift::Linear { ppm: -10_000 },
        Drift::Step { ppm: 10_000 },
        Drift::Noisy { ppm: 10_000 },
    ] {
        let mut t = Script::with(1, |scenario| {
            scenario.clock.drift = drift;
            scenario.clock.wall_apart_ms_max = 3_600_000;
        });
        t.producer(100);
        t.fetcher();
        t.run_until("everything is acknowledged", |t| t.acknowledged() == 100);
        t.cut_power(0);
        assert_eq!(t.ends_well().values().next().unwrap().len(), 100, "{drift:?}");
    }
}

#[test]
fn a_wall_that_jumps_an_hour_ahead_and_back_moves_no_deadline_and_no_stored_time() {
    let mut t = Script::with(2, |scenario| {
        scenario.topics[0].configs.insert("message.timestamp.type".into(), "LogAppendTime".into());
    });
    t.producer(400);
    t.fetcher();
    t.lister();
    for ms in [3_600_000, -7_200_000, 3_600_000] {
        let before = t.acknowledged();
        t.deal(0, Fault::WallJump { ms });
        t.run_for(200);
        assert!(t.acknowledged() > before, "it goes on at once: {}", t.story());
    }
    let logs = t.ends_well();
    let log = logs.values().next().unwrap();
    let backwards = log.windows(2).any(|pair| pair[1].timestamp < pair[0].timestamp - 3_600_000);
    assert!(backwards, "the wall went back, and the log tells so");
}

#[test]
fn ticks_that_are_ten_seconds_late_delay_what_waits_for_time_and_nothing_else() {
    let mut t = Script::with(3, |scenario| scenario.clock.tick_late_ns_max = 10_000 * MS);
    t.producer(100);
    t.fetcher();
    t.run_until("everything is acknowledged", |t| t.acknowledged() == 100);
    assert!(t.now_ms() < 10_000, "a produce waits for no tick: {} ms", t.now_ms());
    assert_eq!(t.ends_well().values().next().unwrap().len(), 100);
}

#[test]
fn a_node_whose_wall_is_far_from_its_clients_serves_them_alike() {
    let first_timestamp = |seed| {
        let mut t = Script::with(seed, |scenario| {
            scenario.clock.wall_apart_ms_max = 3_600_000;
            scenario.topics[0].configs.insert("message.timestamp.type".into(), "LogAppendTime".into());
        });
        t.producer(20);
        t.run_until("everything is acknowledged", |t| t.acknowledged() == 20);
        let logs = t.ends_well();
        let log = logs.values().next().unwrap();
        assert_eq!(log.len(), 20);
        log[0].timestamp
    };
    let began: Vec<i64> = (4..7).map(first_timestamp).collect();
    let (first, last) = (began.iter().min().unwrap(), began.iter().max().unwrap());
    assert!(last - first > 60_000, "the walls differ: {began:?}");
}
