//! Processes that die, stand still, are slow, and come up again.

use tidelog_sim::disk::Loss;
use tidelog_sim::scenario::Fault;
use tidelog_sim::script::Script;

const MS: u64 = 1_000_000;

#[test]
fn a_killed_broker_comes_up_with_all_that_it_acknowledged() {
    let mut t = Script::new(1);
    t.producer(60);
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 20);
    t.kill(0);
    assert!(!t.is_up(0));
    t.run_until("it is up again", |t| t.is_up(0));
    assert_eq!(t.ends_well().values().next().unwrap().len(), 60);
}

#[test]
fn a_crash_in_the_middle_of_recovery_after_another_loses_nothing() {
    let mut t = Script::with(2, |scenario| {
        scenario.topics[0].configs.insert("internal.segment.bytes".into(), "2048".into());
    });
    t.producer(80);
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 40);
    let again_after_steps = (1..60).collect();
    t.deal(0, Fault::Crash { loss: Loss::Power, down_ns: MS, again_after_steps });
    t.run_until("it has died at every step of coming up", |t| t.life(0) >= 60);
    assert!(t.count("crashes in recovery") >= 25, "{}", t.count("crashes in recovery"));
    assert_eq!(t.ends_well().values().next().unwrap().len(), 80);
}

#[test]
fn a_clean_stop_leaves_nothing_that_a_power_cut_could_take() {
    let mut t = Script::new(3);
    t.producer(60);
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 20);
    t.deal(0, Fault::Stop { loss: Loss::Power, down_ns: MS, crash_after_steps: None });
    t.run_until("it is up again", |t| t.life(0) == 1 && t.is_up(0));
    assert_eq!(t.count("clean stops"), 1);
    assert!(!t.has_said(0, "rebuilt") && !t.has_said(0, "there is"), "nothing had to be recovered: {}", t.story());
    assert_eq!(t.ends_well().values().next().unwrap().len(), 60);
}

#[test]
fn a_paused_broker_answers_when_it_goes_on() {
    let mut t = Script::new(4);
    t.producer(60);
    t.fetcher();
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 10);
    t.deal(0, Fault::Pause { for_ns: 3_000 * MS });
    t.run_for(1);
    let before = t.acknowledged();
    t.run_for(2_900);
    assert_eq!(t.acknowledged(), before);
    t.run_for(200);
    assert!(t.acknowledged() > before);
    assert_eq!(t.life(0), 0, "it is the same process");
    assert_eq!(t.ends_well().values().next().unwrap().len(), 60);
}

#[test]
fn a_slow_broker_is_slow_and_no_more() {
    let mut t = Script::new(5);
    t.producer(200);
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 20);
    let began = t.now_ms();
    t.run_until("twenty more are", |t| t.acknowledged() >= 40);
    let fast = t.now_ms() - began;
    t.deal(0, Fault::Slow { for_ns: 10_000 * MS, step_ns_max: 200 * MS });
    let began = t.now_ms();
    t.run_until("twenty more are", |t| t.acknowledged() >= 60);
    let slow = t.now_ms() - began;
    assert!(slow > 3 * fast, "{slow} ms against {fast} ms");
    assert_eq!(t.ends_well().values().next().unwrap().len(), 200);
}

#[test]
fn a_crash_at_any_step_of_a_clean_stop_is_a_crash_like_any_other() {
    let mut cut_short = 0;
    for steps in 0..40 {
        let mut t = Script::with(steps.into(), |scenario| {
            scenario.topics[0].configs.insert("internal.segment.bytes".into(), "2048".into());
        });
        t.producer(80);
        t.run_until("some are acknowledged", |t| t.acknowledged() >= 40);
        let loss = Loss::Power;
        t.deal(0, Fault::Stop { loss, down_ns: MS, crash_after_steps: Some(steps) });
        t.run_until("it is up again", |t| t.life(0) == 1 && t.is_up(0));
        cut_short += t.count("crashes in a clean stop");
        assert_eq!(t.ends_well().values().next().unwrap().len(), 80, "after {steps} steps");
    }
    assert!(cut_short >= 15, "{cut_short}");
}

#[test]
fn a_crash_at_any_step_of_the_first_start_leaves_what_the_next_start_completes() {
    let mut t = Script::with(6, |scenario| scenario.disk.directories = 2);
    let again_after_steps = (1..60).collect();
    t.producer(400);
    t.run_events(1);
    t.deal(0, Fault::Crash { loss: Loss::Power, down_ns: MS, again_after_steps });
    t.run_until("it has died at every step of coming up", |t| t.life(0) >= 60);
    assert_eq!(t.ends_well().values().next().unwrap().len(), 400);
}

#[test]
fn a_pause_longer_than_any_clients_patience_ends_connections_and_no_record() {
    let mut t = Script::new(7);
    t.producer(60);
    t.fetcher();
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 10);
    t.deal(0, Fault::Pause { for_ns: 25_000 * MS });
    t.run_for(24_000);
    assert!(t.count("connections broken") >= 1, "the producer gives its connection up");
    t.run_until("everything is acknowledged", |t| t.acknowledged() == 60);
    assert_eq!(t.life(0), 0, "it is the same process");
    assert_eq!(t.ends_well().values().next().unwrap().len(), 60);
}
