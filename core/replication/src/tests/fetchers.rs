use super::*;
use tidelog_wire::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use tidelog_wire::messages::fetch_response::{EpochEndOffset, FetchableTopicResponse, PartitionData};
use tidelog_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use tidelog_wire::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use tidelog_wire::messages::{FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse};
use tidelog_wire::{RequestBody, ResponseBody};

const BACKOFF_MS: i64 = 100;

/// The fetchers of node 1, with one partition that follows node 2.
struct Bench {
    fetchers: Fetchers,
    partitions: Partitions,
    log: LogId,
    now: Mono,
}

impl Bench {
    fn new() -> Self {
        let settings = FetchSettings {
            node: ME,
            fetchers_per_leader: 1,
            wait_ms: 500,
            min_bytes: 1,
            max_bytes: 1_000,
            partition_max_bytes: 100,
            backoff_ms: BACKOFF_MS,
        };
        let (mut fetchers, mut partitions) = (Fetchers::new(settings), Partitions::default());
        let log = partitions.next_log_id();
        let Replica { partition, .. } = Replica::follower();
        fetchers.follow(log, &partition);
        partitions.insert(log, partition);
        Self { fetchers, partitions, log, now: Mono(1_000_000_000) }
    }

    /// Another partition follows node 2.
    fn add(&mut self, replica: Replica) -> LogId {
        let log = self.partitions.next_log_id();
        self.fetchers.follow(log, &replica.partition);
        self.partitions.insert(log, replica.partition);
        self.fetchers.verify();
        log
    }

    /// Does something with a partition on a disk of its own, which is `replica`'s.
    fn act(&mut self, log: LogId, replica: &mut Replica, act: impl FnOnce(&mut Replica)) {
        let partition = self.partitions.get_mut(log).expect("it is there");
        std::mem::swap(partition, &mut replica.partition);
        act(replica);
        std::mem::swap(partition, &mut replica.partition);
    }

    fn partition(&self, log: LogId) -> &Partition {
        self.partitions.get(log).expect("it is there")
    }

    fn next(&mut self) -> Option<FetcherQuestion> {
        let next = self.fetchers.next(self.now, &self.partitions, 5);
        self.fetchers.verify();
        next
    }

    /// The next question is a fetch with this session and so many partitions and forgotten ones.
    #[track_caller]
    fn fetches(&mut self, session: (i32, i32), named: (usize, usize)) -> FetcherQuestion {
        let question = self.next().expect("it fetches");
        let RequestBody::Fetch(FetchRequest { session_id, session_epoch, topics, forgotten_topics_data, .. }) =
            &question.request
        else {
            panic!("{:?}", question.request)
        };
        let of_topics = topics.iter().map(|topic| topic.partitions.len()).sum();
        let forgotten = forgotten_topics_data.iter().map(|topic| topic.partitions.len()).sum();
        assert_eq!(((*session_id, *session_epoch), (of_topics, forgotten)), (session, named));
        question
    }

    fn answer(&mut self, question: &FetcherQuestion, body: impl Into<ResponseBody>) -> Vec<FetcherAnswer> {
        let answers = self.fetchers.answered(self.now, question.fetcher, question.number, body.into(), Vec::new());
        self.fetchers.verify();
        answers
    }

    fn pass(&mut self, ms: i64) {
        self.now = self.now.plus_ms(ms);
        self.fetchers.wake(self.now);
    }
}

fn response(session_id: i32, error: ErrorCode) -> FetchResponse {
    FetchResponse { session_id, error_code: error.code(), ..Default::default() }
}

fn of_partition(session_id: i32, error: ErrorCode) -> FetchResponse {
    let data = PartitionData { error_code: error.code(), high_watermark: 3, ..Default::default() };
    let topic = FetchableTopicResponse { topic_id: TOPIC, partitions: vec![data], ..Default::default() };
    FetchResponse { responses: vec![topic], ..response(session_id, ErrorCode::None) }
}

#[test]
fn a_session_names_a_partition_once() {
    let mut bench = Bench::new();
    let first = bench.fetches((0, 0), (1, 0));
    assert_eq!(first.fetcher, FetcherId { leader: OTHER, number: 0 });
    assert!(bench.next().is_none(), "one question at a time");
    bench.answer(&first, response(77, ErrorCode::None));
    let second = bench.fetches((77, 1), (0, 0));
    bench.answer(&second, response(77, ErrorCode::None));
    let third = bench.fetches((77, 2), (0, 0));
    bench.answer(&third, response(0, ErrorCode::None));
    bench.fetches((0, 0), (1, 0));
}

#[test]
fn a_session_that_the_leader_has_not_any_more_begins_again_at_once() {
    for error in [ErrorCode::FetchSessionIdNotFound, ErrorCode::InvalidFetchSessionEpoch] {
        let mut bench = Bench::new();
        let first = bench.fetches((0, 0), (1, 0));
        bench.answer(&first, response(77, ErrorCode::None));
        let second = bench.fetches((77, 1), (0, 0));
        bench.answer(&second, response(0, error));
        bench.fetches((0, 0), (1, 0));
    }
}

#[test]
fn a_leader_that_does_not_answer_is_asked_again_after_a_pause() {
    let mut bench = Bench::new();
    let first = bench.fetches((0, 0), (1, 0));
    bench.fetchers.failed(bench.now, first.fetcher, first.number);
    assert!(bench.next().is_none());
    assert_eq!(bench.fetchers.deadline(), Some(bench.now.plus_ms(BACKOFF_MS)));
    bench.pass(BACKOFF_MS);
    let second = bench.fetches((0, 0), (1, 0));
    assert_eq!(bench.fetchers.deadline(), None);
    assert!(bench.answer(&first, of_partition(5, ErrorCode::None)).is_empty(), "it comes too late");
    assert_eq!(bench.answer(&second, of_partition(5, ErrorCode::None)).len(), 1);
}

#[test]
fn a_partition_that_is_refused_pauses_and_leaves_the_session_meanwhile() {
    let mut bench = Bench::new();
    let first = bench.fetches((0, 0), (1, 0));
    let answers = bench.answer(&first, of_partition(77, ErrorCode::NotLeaderOrFollower));
    assert!(matches!(answers[0].result, FetcherResult::Refused(ErrorCode::NotLeaderOrFollower)));
    bench.fetchers.pause(bench.now, bench.log);
    assert!(bench.next().is_none(), "there is no other partition to fetch");
    bench.pass(BACKOFF_MS - 1);
    assert!(bench.next().is_none());
    bench.pass(1);
    bench.fetches((0, 0), (1, 0));
}

#[test]
fn a_leader_is_asked_where_its_log_ends_and_starts_if_it_has_not_what_is_asked_for() {
    let told = |offset| {
        let partition = ListOffsetsPartitionResponse { offset, ..Default::default() };
        let topic = ListOffsetsTopicResponse { name: "t".into(), partitions: vec![partition], ..Default::default() };
        ListOffsetsResponse { topics: vec![topic], ..Default::default() }
    };
    let mut bench = Bench::new();
    let first = bench.fetches((0, 0), (1, 0));
    assert!(bench.answer(&first, of_partition(77, ErrorCode::OffsetOutOfRange)).is_empty());
    let timestamp = |question: &FetcherQuestion| match &question.request {
        RequestBody::ListOffsets(body) => (body.replica_id, body.topics[0].partitions[0].timestamp),
        other => panic!("{other:?}"),
    };
    let end = bench.next().expect("it asks");
    assert_eq!(timestamp(&end), (1, -1));
    assert!(bench.answer(&end, told(20)).is_empty());
    let start = bench.next().expect("it asks");
    assert_eq!(timestamp(&start), (1, -2));
    let answers = bench.answer(&start, told(10));
    let is_right =
        |result: &FetcherResult| matches!(result, FetcherResult::OutOfRange { start: Offset(10), end: Offset(20) });
    assert!(is_right(&answers[0].result), "{answers:?}");
    bench.fetches((77, 1), (0, 0));
}

#[test]
fn a_partition_that_follows_nobody_is_not_fetched() {
    let mut bench = Bench::new();
    let first = bench.fetches((0, 0), (1, 0));
    bench.answer(&first, response(77, ErrorCode::None));
    bench.fetchers.forget(bench.log);
    assert!(bench.next().is_none());
    bench.fetchers.follow(bench.log, bench.partitions.get(bench.log).unwrap());
    bench.fetches((0, 0), (1, 0));
}

const OTHER_TOPIC: Uuid = Uuid::from_bytes([8; 16]);

/// A partition that follows node 2.
fn following(topic: &str, id: Uuid, index: i32) -> Replica {
    Replica::named((topic.to_owned().into(), id, index), &assignment(OTHER, 1, &[ME, OTHER]), 1)
}

/// The partition t-1, with the records 2 and 3 of epoch 1.
fn with_records() -> Replica {
    let mut replica = following("t", TOPIC, 1);
    replica.fetched(Fetched { log_start: Offset(2), ..answer(3, &[batch(0, 2, 1), batch(2, 2, 1)]) });
    replica
}

#[test]
fn a_fetch_names_each_partition_with_where_its_log_stands() {
    let mut bench = Bench::new();
    bench.add(with_records());
    bench.add(following("u", OTHER_TOPIC, 0));
    let RequestBody::Fetch(request) = bench.next().expect("it fetches").request else { panic!("no fetch") };
    let empty = FetchPartition {
        partition: 0,
        current_leader_epoch: 1,
        fetch_offset: 0,
        last_fetched_epoch: -1,
        log_start_offset: 0,
        partition_max_bytes: 100,
        ..Default::default()
    };
    let second =
        FetchPartition { partition: 1, fetch_offset: 4, last_fetched_epoch: 1, log_start_offset: 2, ..empty.clone() };
    let topics = vec![
        FetchTopic { topic_id: TOPIC, partitions: vec![empty.clone(), second], ..Default::default() },
        FetchTopic { topic_id: OTHER_TOPIC, partitions: vec![empty], ..Default::default() },
    ];
    let expected = FetchRequest {
        replica_state: ReplicaState { replica_id: 1, replica_epoch: 5, ..Default::default() },
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 1_000,
        session_epoch: 0,
        topics,
        ..Default::default()
    };
    assert_eq!(request, expected);
}

/// KIP-227: a session is told which partitions are not fetched any more.
#[test]
fn partitions_that_are_not_fetched_any_more_leave_the_session() {
    let mut bench = Bench::new();
    let gone = [(TOPIC, 1), (TOPIC, 2), (OTHER_TOPIC, 0)].map(|(id, index)| bench.add(following("x", id, index)));
    let first = bench.fetches((0, 0), (4, 0));
    bench.answer(&first, response(77, ErrorCode::None));
    gone.into_iter().for_each(|log| bench.fetchers.forget(log));
    let second = bench.fetches((77, 1), (0, 3));
    let RequestBody::Fetch(request) = &second.request else { unreachable!() };
    let forgotten =
        |topic_id, partitions: &[i32]| ForgottenTopic { topic_id, partitions: partitions.into(), ..Default::default() };
    assert_eq!(request.forgotten_topics_data, [forgotten(TOPIC, &[1, 2]), forgotten(OTHER_TOPIC, &[0])]);
    bench.answer(&second, response(77, ErrorCode::None));
    bench.fetches((77, 2), (0, 0));

    // Before there is a session, nothing is forgotten.
    let mut bench = Bench::new();
    let log = bench.add(following("t", TOPIC, 1));
    let first = bench.fetches((0, 0), (2, 0));
    bench.fetchers.forget(log);
    bench.answer(&first, response(0, ErrorCode::None));
    bench.fetches((0, 0), (1, 0));
}

#[test]
fn a_partition_that_pauses_leaves_the_session_and_comes_back_into_it() {
    let mut bench = Bench::new();
    bench.add(following("t", TOPIC, 1));
    let first = bench.fetches((0, 0), (2, 0));
    bench.answer(&first, of_partition(77, ErrorCode::NotLeaderOrFollower));
    bench.fetchers.pause(bench.now, bench.log);
    let second = bench.fetches((77, 1), (0, 1));
    bench.answer(&second, response(77, ErrorCode::None));
    // It is in no session now, and so has none to leave.
    bench.fetchers.pause(bench.now, bench.log);
    let third = bench.fetches((77, 2), (0, 0));
    bench.answer(&third, response(77, ErrorCode::None));
    assert_eq!(bench.fetchers.deadline(), Some(bench.now.plus_ms(BACKOFF_MS)));
    bench.pass(BACKOFF_MS);
    let fourth = bench.fetches((77, 3), (1, 0));
    bench.answer(&fourth, response(77, ErrorCode::None));
    assert_eq!(bench.fetchers.deadline(), None, "nobody pauses");
}

#[test]
fn a_partition_is_fetched_from_its_leader_alone_and_news_that_are_none_change_nothing() {
    let mut bench = Bench::new();
    let first = bench.fetches((0, 0), (1, 0));
    bench.answer(&first, response(77, ErrorCode::None));
    bench.fetchers.follow(bench.log, bench.partitions.get(bench.log).unwrap());
    let second = bench.fetches((77, 1), (0, 0));
    bench.answer(&second, response(77, ErrorCode::None));
    let mut replica = Replica::follower();
    let log = bench.log;
    bench.act(log, &mut replica, |replica| replica.assign(&assignment(NodeId(3), 2, &[ME, NodeId(3)])));
    bench.fetchers.follow(log, bench.partitions.get(log).unwrap());
    let third = bench.fetches((0, 0), (1, 0));
    assert_eq!(third.fetcher.leader, NodeId(3));
    assert!(bench.next().is_none(), "node 2 is asked no more");
}

#[test]
fn fetchers_are_idle_where_nothing_is_followed() {
    let mut bench = Bench::new();
    assert!(!bench.fetchers.is_idle());
    let first = bench.fetches((0, 0), (1, 0));
    assert!(!bench.fetchers.is_idle(), "it waits for the answer");
    bench.answer(&first, response(77, ErrorCode::None));
    bench.fetchers.forget(bench.log);
    assert!(!bench.fetchers.is_idle(), "it has not looked yet whether there is something to ask");
    assert!(bench.next().is_none() && bench.fetchers.is_idle());
    let mut bench = Bench::new();
    bench.fetchers.clear();
    assert!(bench.fetchers.is_idle() && bench.next().is_none());
}

/// A fetch tells the leader that all before it is on stable storage here.
#[test]
fn the_next_fetch_waits_for_the_disk_and_for_no_log_that_is_cut() {
    let mut bench = Bench::new();
    let mut replica = with_records();
    let log = bench.add(with_records());
    let first = bench.fetches((0, 0), (2, 0));
    bench.answer(&first, response(77, ErrorCode::None));
    replica.holds_syncs = true;
    bench.act(log, &mut replica, |replica| drop(replica.fetched(answer(4, &[batch(4, 1, 1)]))));
    bench.fetchers.took(log, bench.partitions.get(log).unwrap());
    assert!(!bench.partition(log).is_cutting());
    assert!(bench.next().is_none());
    bench.fetchers.moved(log, bench.partitions.get(log).unwrap());
    assert!(bench.next().is_none(), "it is not stable yet");
    bench.act(log, &mut replica, Replica::release);
    bench.fetchers.moved(log, bench.partitions.get(log).unwrap());
    let second = bench.fetches((77, 1), (1, 0));
    bench.answer(&second, response(77, ErrorCode::None));
    bench.act(log, &mut replica, |replica| drop(replica.fetched(diverging(1, 4))));
    assert!(bench.partition(log).is_cutting());
    bench.fetchers.took(log, bench.partitions.get(log).unwrap());
    let third = bench.fetches((77, 2), (0, 1));
    bench.answer(&third, response(77, ErrorCode::None));
    bench.act(log, &mut replica, |replica| assert!(replica.lowers()));
    assert!(!bench.partition(log).is_cutting());
    bench.fetchers.moved(log, bench.partitions.get(log).unwrap());
    bench.fetches((77, 3), (1, 0));
}

#[test]
fn a_leader_that_ends_before_the_follower_is_not_asked_where_it_starts() {
    let mut bench = Bench::new();
    bench.fetchers.forget(bench.log);
    let log = bench.add(with_records());
    let first = bench.fetches((0, 0), (1, 0));
    let mut refused = of_partition(77, ErrorCode::OffsetOutOfRange);
    refused.responses[0].partitions[0].partition_index = 1;
    assert!(bench.answer(&first, refused).is_empty());
    let question = bench.next().expect("it asks");
    let partition =
        ListOffsetsPartition { partition_index: 1, current_leader_epoch: 1, timestamp: -1, ..Default::default() };
    let topic = ListOffsetsTopic { name: "t".into(), partitions: vec![partition], ..Default::default() };
    let expected = ListOffsetsRequest { replica_id: 1, topics: vec![topic], ..Default::default() };
    assert_eq!(question.request, expected.into());
    let partition = ListOffsetsPartitionResponse { partition_index: 1, offset: 3, ..Default::default() };
    let topic = ListOffsetsTopicResponse { name: "t".into(), partitions: vec![partition], ..Default::default() };
    let answers = bench.answer(&question, ListOffsetsResponse { topics: vec![topic], ..Default::default() });
    assert_eq!(answers[0].log, log);
    assert!(matches!(answers[0].result, FetcherResult::OutOfRange { start: Offset(0), end: Offset(3) }));
}

#[test]
fn an_answer_tells_where_the_logs_part_or_that_they_do_not() {
    let parts = |epoch: i32| {
        let mut bench = Bench::new();
        let first = bench.fetches((0, 0), (1, 0));
        let mut answer = of_partition(77, ErrorCode::None);
        answer.responses[0].partitions[0].diverging_epoch =
            EpochEndOffset { epoch, end_offset: 3, ..Default::default() };
        match bench.answer(&first, answer).remove(0).result {
            FetcherResult::Fetched(fetched) => fetched.diverging,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((parts(-1), parts(0)), (None, Some((LeaderEpoch(0), Offset(3)))));
}

#[test]
fn a_partition_that_comes_to_another_fetcher_of_its_leader_is_asked_for_by_that_one_alone() {
    let mut bench = Bench::new();
    let first = bench.fetches((0, 0), (1, 0));
    bench.answer(&first, response(77, ErrorCode::None));
    let second = bench.fetches((77, 1), (0, 0));
    assert!(!bench.fetchers.resize(1), "there are as many as before");
    let of_many = |count| {
        assert!(bench.fetchers.resize(count));
        bench.fetchers.follow(bench.log, bench.partitions.get(bench.log).expect("it is there"));
        // None while it stays with the first, which has not got its answer.
        bench.next()
    };
    let asked_anew = (2..10).find_map(of_many).expect("it comes to another one");
    assert!(asked_anew.fetcher.number > 0, "{asked_anew:?}");
    assert!(bench.answer(&second, of_partition(77, ErrorCode::None)).is_empty(), "it is nobody's any more");
    assert!(bench.next().is_none());
}
