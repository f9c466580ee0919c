//! Messages that come late, connections that break, clients that do not reach their node.

use tidelog_sim::disk::Loss;
use tidelog_sim::history::{Fact, OpId};
use tidelog_sim::network::{End, Ways};
use tidelog_sim::random::Ratio;
use tidelog_sim::scenario::Fault;
use tidelog_sim::script::Script;

const MS: u64 = 1_000_000;

/// The longest time between a batch's first sending and its acknowledgement.
fn slowest_acknowledgement_ms(t: &Script) -> u64 {
    let sent_at = |wanted: OpId| {
        let is_it = |fact: &Fact| matches!(fact, Fact::Sent { op, .. } if *op == wanted);
        t.facts().iter().find(|entry| is_it(&entry.fact)).expect("it was sent").at
    };
    let waits = t.facts().iter().filter_map(|entry| match entry.fact {
        Fact::Acknowledged { op, .. } => Some((entry.at - sent_at(op)) / MS),
        _ => None,
    });
    waits.max().unwrap_or(0)
}

#[test]
fn messages_of_one_connection_come_late_and_in_order_and_those_of_two_overtake_each_other() {
    let mut t = Script::with(1, |scenario| scenario.network.delay_ns_max = 100 * MS);
    t.producer(60);
    t.producer(60);
    t.fetcher();
    t.run_until("everything is acknowledged", |t| t.acknowledged() == 120);
    assert!(slowest_acknowledgement_ms(&t) > 50, "{}", slowest_acknowledgement_ms(&t));
    let logs = t.ends_well();
    let log = logs.values().next().unwrap();
    assert_eq!(log.len(), 120);
    let changes = log.windows(2).filter(|pair| pair[0].value.client() != pair[1].value.client()).count();
    assert!(changes > 2, "the producers' batches mingle: {changes}");
}

#[test]
fn a_producer_whose_connections_are_reset_sends_again_and_nothing_stands_twice() {
    let mut t = Script::new(2);
    t.producer(100);
    t.fetcher();
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 10);
    t.on_network(|network| network.cut = Ratio::new(1, 5));
    t.run_for(2_000);
    assert!(t.count("connections broken") > 10, "{}", t.count("connections broken"));
    t.on_network(|network| network.cut = Ratio::NEVER);
    assert_eq!(t.ends_well().values().next().unwrap().len(), 100);
}

#[test]
fn a_connection_that_is_open_for_the_node_alone_holds_up_nobody() {
    let mut t = Script::with(3, |scenario| scenario.network.half_open_ns_max = 3_000 * MS);
    t.producer(50);
    t.fetcher();
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 10);
    let before = t.acknowledged();
    t.deal(0, Fault::CutAll);
    t.run_for(1_000);
    assert_eq!(t.count("connections broken"), 2);
    assert!(t.acknowledged() > before, "{}", t.story());
    assert_eq!(t.ends_well().values().next().unwrap().len(), 50);
}

#[test]
fn a_clogged_connection_is_late_and_loses_nothing() {
    let mut t = Script::new(4);
    t.producer_with(60, |plan| plan.requests_in_flight_max = 1);
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 5);
    assert!(slowest_acknowledgement_ms(&t) < 20);
    t.on_network(|network| (network.clog, network.clog_ns_max) = (Ratio::new(1, 4), 5_000 * MS));
    t.run_until("an acknowledgement has taken more than a second", |t| slowest_acknowledgement_ms(t) > 1_000);
    t.on_network(|network| network.clog = Ratio::NEVER);
    assert_eq!(t.ends_well().values().next().unwrap().len(), 60);
}

#[test]
fn a_slow_link_takes_its_time_for_every_byte() {
    let mut t = Script::with(5, |scenario| {
        scenario.network.slow = Ratio::ALWAYS;
        scenario.network.slow_ns_per_byte = 100_000;
        scenario.value_bytes_max = 3_000;
    });
    t.producer(40);
    t.fetcher();
    t.run_until("everything is acknowledged", |t| t.acknowledged() == 40);
    assert!(slowest_acknowledgement_ms(&t) > 200, "{}", slowest_acknowledgement_ms(&t));
    assert_eq!(t.ends_well().values().next().unwrap().len(), 40);
}

#[test]
fn an_isolated_node_acknowledges_nothing_and_everything_once_it_is_reached_again() {
    let mut t = Script::new(6);
    t.producer(60);
    t.fetcher();
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 10);
    t.deal(0, Fault::Partition { with: Vec::new(), from: Vec::new(), ways: Ways::Both, for_ns: 15_000 * MS, times: 1 });
    t.run_for(5);
    let before = t.acknowledged();
    t.run_for(14_000);
    assert_eq!(t.acknowledged(), before, "nothing comes through");
    t.run_until("the rest is acknowledged", |t| t.acknowledged() == 60);
    assert_eq!(t.ends_well().values().next().unwrap().len(), 60);
}

#[test]
fn requests_that_arrive_while_no_answer_can_leave_are_not_appended_twice_when_they_are_sent_again() {
    let mut t = Script::new(7);
    t.producer(60);
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 10);
    // Longer than a client waits for an answer.
    t.deal(0, Fault::Partition { with: Vec::new(), from: Vec::new(), ways: Ways::Out, for_ns: 25_000 * MS, times: 1 });
    t.run_for(20_000);
    assert!(t.acknowledged() < 20);
    assert!(t.count("connections broken") > 0, "the client gives its connection up");
    assert_eq!(t.ends_well().values().next().unwrap().len(), 60);
}

#[test]
fn answers_that_can_leave_while_no_request_arrives_are_all_there_are() {
    let mut t = Script::new(8);
    t.producer(60);
    t.fetcher();
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 10);
    t.deal(0, Fault::Partition { with: Vec::new(), from: Vec::new(), ways: Ways::In, for_ns: 3_000 * MS, times: 1 });
    t.run_for(50);
    let before = (t.acknowledged(), t.read());
    t.run_for(2_900);
    assert_eq!((t.acknowledged(), t.read()), before);
    assert_eq!(t.ends_well().values().next().unwrap().len(), 60);
}

#[test]
fn a_partition_of_one_client_that_flaps_leaves_the_other_clients_alone() {
    let mut t = Script::new(9);
    t.producer(1_500);
    t.fetcher();
    t.run_until("something is read", |t| t.read() >= 5);
    t.deal(
        0,
        Fault::Partition { with: Vec::new(), from: vec![End::Client(1)], ways: Ways::Both, for_ns: 200 * MS, times: 4 },
    );
    let mut stalls = 0;
    for _ in 0..8 {
        // What was under way arrives.
        t.run_for(5);
        let (acknowledged, read) = (t.acknowledged(), t.read());
        t.run_for(190);
        stalls += u32::from(t.read() == read);
        assert!(t.acknowledged() > acknowledged, "the producer goes on");
        t.run_for(5);
    }
    assert_eq!(stalls, 4, "each time that the reader is cut off, and no other");
    assert_eq!(t.ends_well().values().next().unwrap().len(), 1_500);
}

#[test]
fn an_old_request_that_arrives_after_it_was_sent_again_on_a_new_connection_is_a_duplicate() {
    let mut t = Script::with(10, |scenario| {
        scenario.network.delay_ns_max = 100 * MS;
        scenario.network.late_requests = Ratio::ALWAYS;
        scenario.network.half_open_ns_max = 500 * MS;
    });
    t.producer(300);
    for _ in 0..20 {
        t.run_for(100);
        t.deal(0, Fault::CutAll);
    }
    assert!(t.count("requests of clients that are gone") > 5, "{}", t.count("requests of clients that are gone"));
    assert_eq!(t.ends_well().values().next().unwrap().len(), 300);
}

#[test]
fn a_client_of_a_machine_that_lost_its_power_hears_nothing_and_comes_back_by_itself() {
    let mut t = Script::with(11, |scenario| scenario.network.half_open_ns_max = 8_000 * MS);
    for _ in 0..20 {
        t.producer(40);
    }
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 100);
    t.cut_power(0);
    t.run_until("it is up again", |t| t.life(0) == 1 && t.is_up(0));
    t.run_for(10);
    let back = t.acknowledged();
    t.run_for(500);
    assert!(t.acknowledged() > back, "those that have noticed go on");
    t.run_until("all are back", |t| t.acknowledged() == 800);
    assert!(slowest_acknowledgement_ms(&t) > 1_000, "{}", slowest_acknowledgement_ms(&t));
    assert_eq!(t.ends_well().values().next().unwrap().len(), 800);
}

#[test]
fn clients_that_are_lost_one_by_one_and_come_back_in_another_order_miss_nothing() {
    let mut t = Script::new(12);
    for _ in 0..4 {
        t.producer_with(100, |plan| plan.gap_ns_max = 400 * MS);
        t.fetcher();
    }
    t.run_until("some are acknowledged", |t| t.acknowledged() >= 40);
    assert!(slowest_acknowledgement_ms(&t) < 100);
    t.deal(0, Fault::Swizzle { for_ns: 2_000 * MS });
    t.run_until("everything is acknowledged", |t| t.acknowledged() == 400);
    assert!(slowest_acknowledgement_ms(&t) > 500, "{}", slowest_acknowledgement_ms(&t));
    assert_eq!(t.ends_well().values().next().unwrap().len(), 400);
}

#[test]
fn attempts_to_connect_that_get_no_answer_are_given_up_and_made_again() {
    for hang in [Ratio::ALWAYS, Ratio::NEVER] {
        let mut t = Script::with(13, |scenario| scenario.network.hang = hang);
        t.producer(40);
        t.fetcher();
        t.run_until("some are acknowledged", |t| t.acknowledged() >= 10);
        t.deal(0, Fault::Crash { loss: Loss::Process, down_ns: 5_000 * MS, again_after_steps: Vec::new() });
        t.run_for(4_900);
        assert_eq!(t.count("connects that hang") > 0, hang == Ratio::ALWAYS);
        t.run_until("all are acknowledged", |t| t.acknowledged() == 40);
        assert_eq!(t.ends_well().values().next().unwrap().len(), 40);
    }
}
