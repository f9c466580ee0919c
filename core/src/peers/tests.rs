//! The peers with a world that the test plays.

use super::*;
use crate::api::prepare_answer;
use crate::batch::BatchBuilder;
use crate::ids::{LeaderEpoch, Offset};
use crate::io::{AskError, LinkAnswer, PeerId};
use crate::wire::messages::api_versions_response::ApiVersion;
use crate::wire::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use crate::wire::messages::{
    ApiVersionsResponse, BrokerHeartbeatRequest, FetchRequest, FetchResponse, VoteRequest, VoteResponse,
};
use crate::wire::{ApiKey, ErrorCode, Records, ResponseBody, encode_response};
use bytes::Bytes;
use rand::{Rng, RngExt};

const SERVED: [(ApiKey, i16, i16); 3] = [(ApiKey::ApiVersions, 0, 4), (ApiKey::Vote, 0, 1), (ApiKey::Fetch, 4, 17)];

struct World {
    peers: Peers,
    now: Mono,
    /// The links that the world is to keep, each with its address.
    links: BTreeMap<LinkId, Address>,
    /// The requests on each link that are not answered, oldest first.
    asked: BTreeMap<LinkId, VecDeque<PeerRequest>>,
    answers: Vec<Answer>,
    told: Vec<String>,
    seq: u64,
}

impl World {
    fn new() -> Self {
        Self {
            peers: Peers::new(&BrokerConfig::default(), [3; 32]),
            now: Mono(5_000_000_000),
            links: BTreeMap::new(),
            asked: BTreeMap::new(),
            answers: Vec::new(),
            told: Vec::new(),
            seq: 0,
        }
    }

    fn step(&mut self, step: impl FnOnce(&mut Peers, Mono, &mut Outbox)) {
        let mut out = Outbox::default();
        step(&mut self.peers, self.now, &mut out);
        self.peers.verify();
        for output in out.outputs {
            match output {
                Output::Connect(link, address) => assert!(self.links.insert(link, address).is_none(), "{link} is new"),
                Output::Send(link, request) => {
                    assert!(self.links.contains_key(&link), "{link} is there");
                    self.asked.entry(link).or_default().push_back(*request);
                }
                Output::HangUp(link) => {
                    self.links.remove(&link).expect("a link is hung up once");
                    self.asked.remove(&link);
                }
                Output::Event(event) => self.told.push(format!("{:?} {}", event.level, event.text)),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Asks `to` something that takes at most a second. Gives the number by which the answer is found.
    fn ask(&mut self, owner: PeerOwner, to: &str, body: impl Into<RequestBody>) -> u64 {
        self.seq += 1;
        let id = PeerId { owner, seq: self.seq };
        let (to, body) = (Address::parse(to).unwrap(), body.into());
        let ask = Ask { id, to, body, versions: 0..=17, timeout_ms: 1_000 };
        self.step(|peers, now, out| peers.ask(now, vec![ask], out));
        self.seq
    }

    fn vote(&mut self, to: &str) -> u64 {
        self.ask(PeerOwner::Quorum, to, VoteRequest::default())
    }

    fn link(&mut self, link: LinkId, event: LinkEvent) {
        self.step(|peers, now, out| peers.handle_link(now, link, event, out));
        self.answers.extend(self.peers.take_answers());
    }

    fn lose(&mut self, link: LinkId, why: &str) {
        self.links.remove(&link);
        self.asked.remove(&link);
        self.link(link, LinkEvent::Lost(why.into()));
    }

    /// The only link.
    #[track_caller]
    fn only_link(&self) -> LinkId {
        assert_eq!(self.links.len(), 1, "{:?}", self.links);
        *self.links.keys().next().unwrap()
    }

    /// Opens a link, and tells the versions.
    fn open(&mut self, link: LinkId) {
        self.link(link, LinkEvent::Opened);
        let api = |(key, min_version, max_version)| ApiVersion {
            api_key: key as i16,
            min_version,
            max_version,
            ..ApiVersion::default()
        };
        let api_keys = SERVED.map(api).to_vec();
        self.answer(link, ApiVersionsResponse { api_keys, ..ApiVersionsResponse::default() });
    }

    /// Answers the oldest request on a link.
    fn answer(&mut self, link: LinkId, body: impl Into<ResponseBody>) {
        let header = self.asked.get_mut(&link).unwrap().pop_front().unwrap().header;
        let (key, version) = (header.api_key, header.api_version);
        let frame = encode_response(key, version, header.correlation_id, &body.into()).to_bytes();
        self.link(link, LinkEvent::Answer(Box::new(prepare_answer((key, version), frame.slice(4..)))));
    }

    /// The requests on a link that are not answered.
    fn sent(&self, link: LinkId) -> Vec<(ApiKey, i16)> {
        self.asked.get(&link).into_iter().flatten().map(|it| (it.header.api_key, it.header.api_version)).collect()
    }

    /// Lets time pass, with a tick at each deadline.
    fn pass(&mut self, ms: i64) {
        let until = self.now.plus_ms(ms);
        while let Some(due) = self.peers.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.step(Peers::tick);
            self.answers.extend(self.peers.take_answers());
        }
        self.now = until;
    }

    /// The failures since the last call, in their order.
    fn failures(&mut self) -> Vec<(u64, AskError)> {
        self.answers.drain(..).map(|answer| (answer.id.seq, answer.result.expect_err("no answer"))).collect()
    }
}

#[test]
fn a_question_is_sent_in_the_newest_version_that_both_know_and_gets_its_answer() {
    let mut world = World::new();
    let asked = world.vote("a:1");
    let link = world.only_link();
    assert_eq!(world.links[&link], Address::new("a", 1));
    world.open(link);
    assert_eq!(world.sent(link), [(ApiKey::Vote, 1)]);
    assert_eq!(world.asked[&link][0].header.client_id.as_deref(), Some("raft-client-1"));
    world.answer(link, VoteResponse { error_code: 7, ..VoteResponse::default() });
    let answer = world.answers.pop().unwrap();
    assert_eq!(answer.id, PeerId { owner: PeerOwner::Quorum, seq: asked });
    let answered = answer.result.unwrap();
    let ResponseBody::Vote(vote) = answered.body else { panic!("{:?}", answered.body) };
    assert_eq!((answered.version, vote.error_code), (1, 7));
    // The connection is used again.
    world.vote("a:1");
    assert_eq!(world.sent(link), [(ApiKey::Vote, 1)]);
}

#[test]
fn questions_wait_for_the_versions_and_keep_their_order() {
    let mut world = World::new();
    let asked = [world.vote("a:1"), world.ask(PeerOwner::Quorum, "a:1", FetchRequest::default()), world.vote("a:1")];
    let link = world.only_link();
    assert_eq!(world.sent(link), []);
    world.link(link, LinkEvent::Opened);
    assert_eq!(world.sent(link), [(ApiKey::ApiVersions, 4)]);
    // The other end knows an older ApiVersions only, and says so.
    let old = ApiVersion { api_key: ApiKey::ApiVersions as i16, max_version: 2, ..ApiVersion::default() };
    let error_code = ErrorCode::UnsupportedVersion.code();
    world.asked.get_mut(&link).unwrap()[0].header.api_version = 0;
    world.answer(link, ApiVersionsResponse { error_code, api_keys: vec![old], ..ApiVersionsResponse::default() });
    assert_eq!(world.sent(link), [(ApiKey::ApiVersions, 2)]);
    let api = |(key, min_version, max_version)| ApiVersion {
        api_key: key as i16,
        min_version,
        max_version,
        ..ApiVersion::default()
    };
    world.answer(link, ApiVersionsResponse { api_keys: SERVED.map(api).to_vec(), ..ApiVersionsResponse::default() });
    assert_eq!(world.sent(link), [(ApiKey::Vote, 1), (ApiKey::Fetch, 17), (ApiKey::Vote, 1)]);
    world.answer(link, VoteResponse::default());
    world.answer(link, FetchResponse::default());
    world.answer(link, VoteResponse::default());
    let answered: Vec<u64> = world.answers.iter().map(|answer| answer.id.seq).collect();
    assert_eq!(answered, asked);
}

#[test]
fn each_owner_and_each_address_has_a_connection_of_its_own() {
    let mut world = World::new();
    world.vote("a:1");
    world.vote("b:1");
    world.ask(PeerOwner::Controller, "a:1", BrokerHeartbeatRequest::default());
    let addresses: Vec<String> = world.links.values().map(ToString::to_string).collect();
    assert_eq!(addresses, ["a:1", "b:1", "a:1"]);
}

#[test]
fn where_nobody_listens_all_that_waits_is_unreachable_and_the_next_attempt_comes_after_a_pause() {
    let mut world = World::new();
    let (first, second) = (world.vote("a:1"), world.vote("a:1"));
    let link = world.only_link();
    world.lose(link, "connection refused");
    assert_eq!(world.failures(), [(first, AskError::Unreachable), (second, AskError::Unreachable)]);
    let third = world.vote("a:1");
    assert!(world.links.is_empty(), "a pause");
    world.pass(60);
    let link = world.only_link();
    world.pass(10);
    world.lose(link, "connection refused");
    assert_eq!(world.failures(), [(third, AskError::Unreachable)]);
    // The pause has doubled, and what waits for its end is sent then.
    world.vote("a:1");
    world.pass(79);
    assert!(world.links.is_empty());
    world.pass(41);
    let link = world.only_link();
    world.open(link);
    assert_eq!(world.sent(link), [(ApiKey::Vote, 1)]);
    insta::assert_snapshot!(world.told.join("\n"), @"
    Warn a:1: no connection could be made: connection refused
    Debug a:1: no connection could be made: connection refused
    Info a:1: connected after 2 failures
    ");
}

#[test]
fn a_connection_on_which_an_answer_is_late_is_closed_and_the_others_on_it_are_lost() {
    let mut world = World::new();
    let late = world.vote("a:1");
    let link = world.only_link();
    world.open(link);
    world.pass(500);
    let other = world.vote("a:1");
    world.pass(499);
    assert_eq!(world.failures(), []);
    world.pass(1);
    assert_eq!(world.failures(), [(late, AskError::TimedOut), (other, AskError::Disconnected)]);
    assert!(world.links.is_empty());
    // The answer that comes after all changes nothing.
    let frame = encode_response(ApiKey::Vote, 1, 1, &VoteResponse::default().into()).to_bytes().slice(4..);
    world.link(link, LinkEvent::Answer(Box::new(prepare_answer((ApiKey::Vote, 1), frame))));
    assert!(world.answers.is_empty());
}

#[test]
fn a_question_that_is_not_sent_in_its_time_has_timed_out_and_the_attempt_to_connect_goes_on() {
    let mut world = World::new();
    let first = world.vote("a:1");
    world.pass(900);
    let second = world.vote("a:1");
    world.pass(200);
    assert_eq!(world.failures(), [(first, AskError::TimedOut)]);
    let link = world.only_link();
    world.open(link);
    assert_eq!(world.sent(link), [(ApiKey::Vote, 1)]);
    world.answer(link, VoteResponse::default());
    assert_eq!(world.answers[0].id.seq, second);
}

#[test]
fn an_attempt_to_connect_that_hangs_is_given_up_and_so_are_versions_that_do_not_come() {
    let mut world = World::new();
    world.vote("a:1");
    // `socket.connection.setup.timeout.ms` is 10 seconds, a fifth more or less.
    world.pass(7_999);
    world.only_link();
    world.pass(4_001);
    assert!(world.links.is_empty());
    insta::assert_snapshot!(world.told.join("\n"), @"Warn a:1: no connection could be made in time");
    world.vote("a:1");
    let link = world.only_link();
    world.link(link, LinkEvent::Opened);
    // `controller.quorum.request.timeout.ms`
    world.pass(1_999);
    assert_eq!(world.only_link(), link);
    world.pass(1);
    assert!(world.links.is_empty());
    assert_eq!(world.failures(), [(1, AskError::TimedOut), (2, AskError::TimedOut)]);
}

#[test]
fn what_was_sent_on_a_lost_connection_may_or_may_not_have_arrived() {
    let mut world = World::new();
    let asked = world.vote("a:1");
    let link = world.only_link();
    world.open(link);
    world.lose(link, "connection reset by peer");
    assert_eq!(world.failures(), [(asked, AskError::Disconnected)]);
    insta::assert_snapshot!(world.told.join("\n"), @"Debug a:1: the connection was lost: connection reset by peer");
}

#[test]
fn an_answer_that_cannot_be_read_or_answers_something_else_ends_the_connection() {
    let mut world = World::new();
    let asked = world.vote("a:1");
    let link = world.only_link();
    world.open(link);
    let answer = prepare_answer((ApiKey::Vote, 1), Bytes::from_static(b"garbage"));
    world.link(link, LinkEvent::Answer(Box::new(answer)));
    let failures = world.failures();
    let [(seq, AskError::Malformed(_))] = failures[..] else { panic!("{failures:?}") };
    assert_eq!(seq, asked);
    assert!(world.links.is_empty());

    world.vote("a:1");
    world.pass(60);
    let link = world.only_link();
    world.open(link);
    let read = Ok((99, VoteResponse::default().into()));
    world.link(link, LinkEvent::Answer(Box::new(LinkAnswer { read, batches: Vec::new() })));
    let failures = world.failures();
    insta::assert_snapshot!(failures[0].1, @"the answer cannot be read: correlation id 99, expected 1");
    assert!(world.links.is_empty());
}

#[test]
fn a_kind_of_request_that_the_other_node_does_not_serve_is_told_with_the_next_tick() {
    let mut world = World::new();
    world.vote("a:1");
    let link = world.only_link();
    world.open(link);
    let asked = world.ask(PeerOwner::Quorum, "a:1", BrokerHeartbeatRequest::default());
    assert_eq!(world.peers.deadline(), Some(world.now), "the answer is due");
    world.pass(0);
    assert_eq!(world.failures(), [(asked, AskError::Unsupported)]);
    assert_ne!(world.peers.deadline(), Some(world.now));
}

#[test]
fn a_connection_that_is_not_used_is_closed_without_a_word() {
    let mut world = World::new();
    world.vote("a:1");
    let link = world.only_link();
    world.open(link);
    world.answer(link, VoteResponse::default());
    // `connections.max.idle.ms`
    world.pass(600_000);
    assert!(world.links.is_empty() && world.told.is_empty());
    assert_eq!(world.peers.deadline(), None);
    world.vote("a:1");
    world.only_link();
}

#[test]
fn the_batches_of_a_fetch_are_checked_beside_the_core_and_come_with_the_answer() {
    let batch = |offset: i64| {
        let mut builder = BatchBuilder::new().at(Offset(offset), LeaderEpoch(3));
        builder.push(1_000, None, Some(b"value"), &[]).build().to_vec()
    };
    let answer = |bytes: Vec<u8>| {
        let partition = PartitionData { records: Some(Records::from(Bytes::from(bytes))), ..PartitionData::default() };
        let topic = FetchableTopicResponse { partitions: vec![partition], ..FetchableTopicResponse::default() };
        FetchResponse { responses: vec![topic], ..FetchResponse::default() }
    };
    let mut world = World::new();
    world.ask(PeerOwner::Quorum, "a:1", FetchRequest::default());
    let link = world.only_link();
    world.open(link);
    // The third batch is cut.
    let (first, second, third) = (batch(7), batch(8), batch(9));
    world.answer(link, answer([&first, &second, &third[..40]].concat()));
    let answered = world.answers.pop().unwrap().result.unwrap();
    let [verdicts] = &answered.batches[..] else { panic!("one partition") };
    let offsets: Vec<i64> = verdicts.iter().map(|batch| batch.as_ref().unwrap().header().base_offset.0).collect();
    assert_eq!(offsets, [7, 8]);

    let mut damaged = batch(8);
    *damaged.last_mut().unwrap() ^= 1;
    world.ask(PeerOwner::Quorum, "a:1", FetchRequest::default());
    world.answer(link, answer([first, damaged, third].concat()));
    let answered = world.answers.pop().unwrap().result.unwrap();
    assert!(matches!(answered.batches[0][..], [Ok(_), Err(_)]), "behind damage nothing is read");
}

#[test]
fn every_question_gets_exactly_one_answer_whatever_the_world_does() {
    for seed in 0..200 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut world = World::new();
        for _ in 0..80 {
            let link = world.links.keys().copied().nth(rng.random_range(0..4));
            match (rng.random_range(0..8), link) {
                (0..=2, _) | (_, None) => {
                    let owner = *rng_choice(&mut rng, &[PeerOwner::Quorum, PeerOwner::Controller]);
                    let to = *rng_choice(&mut rng, &["a:1", "b:1"]);
                    match rng.random_range(0..3) {
                        0 => world.ask(owner, to, VoteRequest::default()),
                        1 => world.ask(owner, to, FetchRequest::default()),
                        _ => world.ask(owner, to, BrokerHeartbeatRequest::default()),
                    };
                }
                (3, Some(link)) if !world.asked.contains_key(&link) => world.open(link),
                (3 | 4, Some(link)) => {
                    let Some(request) = world.asked.get(&link).and_then(|asked| asked.front()) else { continue };
                    match request.header.api_key {
                        ApiKey::Vote => world.answer(link, VoteResponse::default()),
                        ApiKey::Fetch => world.answer(link, FetchResponse::default()),
                        key => panic!("{key:?} was answered at once, or is not served"),
                    }
                }
                (5, Some(link)) => world.lose(link, "cut"),
                (6, Some(link)) if world.asked.get(&link).is_some_and(|asked| !asked.is_empty()) => {
                    let answer = prepare_answer((ApiKey::Vote, 1), Bytes::new());
                    world.asked.get_mut(&link).unwrap().pop_front();
                    world.link(link, LinkEvent::Answer(Box::new(answer)));
                }
                _ => world.pass(rng.random_range(0..700)),
            }
        }
        world.pass(60_000);
        let mut answered: Vec<u64> = world.answers.iter().map(|answer| answer.id.seq).collect();
        answered.sort_unstable();
        assert_eq!(answered, (1..=world.seq).collect::<Vec<_>>(), "seed {seed}");
    }
}

fn rng_choice<'a, T>(rng: &mut impl Rng, choices: &'a [T]) -> &'a T {
    &choices[rng.random_range(0..choices.len())]
}

#[test]
fn what_was_asked_and_what_became_of_it_is_counted_for_each_owner() {
    let mut world = World::new();
    world.vote("a:1");
    let link = world.only_link();
    world.open(link);
    world.answer(link, VoteResponse::default());
    world.vote("a:1");
    world.lose(link, "reset");
    world.ask(PeerOwner::Quorum, "b:1", BrokerHeartbeatRequest::default());
    let link = world.only_link();
    world.open(link);
    let metrics = world.peers.metrics();
    let expected = PeerMetrics {
        connections: 1,
        connections_created: 2,
        asked: 3,
        answered: 1,
        failed: [("disconnected", 1), ("unsupported", 1)].into(),
    };
    assert_eq!(metrics[&PeerOwner::Quorum], expected);
    assert_eq!(metrics[&PeerOwner::Controller], PeerMetrics::default());
}
