use super::*;
use tidelog_wire::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use tidelog_wire::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use tidelog_wire::messages::{FetchRequest, FetchResponse, ListOffsetsResponse};
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
