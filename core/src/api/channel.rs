//! What this node asks the active controller (KIP-631): each question is asked until the controller has answered it, or
//! until its time has run out.
//!
//! ```text
//!   ask, forward ─► waiting ─► asked ─► results
//!                      ▲         │
//!                      └─────────┘ the node is not the controller any more, or the connection is lost
//! ```
//!
//! If this node is the active controller, the question is decided here, and does not leave the node. So a controller may
//! carry out a question twice, where the first answer was lost, as Kafka's.
//!
//! Invariant: every question is in exactly one of `waiting`, `asked` and `results`.

use crate::api::Ticket;
use crate::ids::NodeId;
use crate::io::{AskError, PeerOwner};
use crate::time::Mono;
use crate::wire::messages::MetadataRequest;
use crate::wire::{ErrorCode, RequestBody, RequestHeader, ResponseBody};
use bytestring::ByteString;
use std::collections::{BTreeMap, VecDeque};

/// How long a question waits behind one that has failed.
const PAUSE_MS: i64 = 100;
/// How long questions are asked, beside those of the broker's own life, as in Kafka.
const ASKED_FOR_MS: i64 = 60_000;

/// Who asks.
#[derive(Debug)]
pub enum Asker {
    /// The broker's life: its registration, or a heartbeat.
    BrokerLife,
    /// This node's controller registers.
    ControllerLife,
    /// This broker has no producer ids left.
    ProducerIds,
    /// Partitions that this broker leads shall have other in-sync replicas.
    InSyncReplicas,
    /// A Metadata request names topics that do not exist.
    TopicCreation { ticket: Ticket, request: MetadataRequest },
    /// A client of this broker, whose request is for the controller.
    Client { ticket: Ticket, client_id: Option<ByteString> },
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    TimedOut,
    /// The controller does not serve such a request.
    Unsupported,
    /// The controller cannot read the envelope of a client's request, or not what is in it.
    Refused(ErrorCode),
}

/// A question to the active controller.
#[derive(Debug)]
pub struct Question {
    pub asker: Asker,
    pub request: RequestBody,
    /// Until when it is asked.
    deadline: Mono,
    /// How long it waits for an answer each time that it is asked.
    pub timeout_ms: i64,
}

impl Question {
    /// The questions of a node's life have connections of their own: they must not wait behind a client's request that
    /// takes long.
    pub fn owner(&self) -> PeerOwner {
        match self.asker {
            Asker::BrokerLife | Asker::ControllerLife => PeerOwner::Life,
            Asker::ProducerIds | Asker::InSyncReplicas | Asker::TopicCreation { .. } | Asker::Client { .. } => {
                PeerOwner::Controller
            }
        }
    }

    /// The header of a client's request.
    pub fn client_header(&self) -> Option<RequestHeader> {
        let Asker::Client { ticket, client_id } = &self.asker else { return None };
        Some(ticket.header(client_id.clone()))
    }
}

/// What has become of a question.
#[derive(Debug)]
pub struct Outcome {
    pub asker: Asker,
    pub request: RequestBody,
    pub result: Result<ResponseBody, Unanswered>,
}

#[derive(Debug)]
pub struct Channel {
    /// `controller.socket.timeout.ms`
    socket_timeout_ms: i64,
    next: u64,
    /// The questions to ask, in the order in which they were first asked.
    waiting: BTreeMap<u64, Question>,
    /// The questions that the controller has been asked.
    asked: BTreeMap<u64, Question>,
    /// The node that leads the quorum, as far as it is known.
    controller: Option<NodeId>,
    /// Until when nothing is asked, because the controller could not be reached or was none.
    pause_until: Mono,
    results: VecDeque<Outcome>,
}

impl Channel {
    pub fn new(socket_timeout_ms: i64) -> Self {
        Self {
            socket_timeout_ms,
            next: 0,
            waiting: BTreeMap::new(),
            asked: BTreeMap::new(),
            controller: None,
            pause_until: Mono::ZERO,
            results: VecDeque::new(),
        }
    }

    /// Asks something for this node itself.
    pub fn ask(&mut self, now: Mono, asker: Asker, request: impl Into<RequestBody>) {
        self.ask_for(now, asker, request, ASKED_FOR_MS);
    }

    /// Brings a client's request to the controller.
    pub fn forward(&mut self, now: Mono, ticket: Ticket, client_id: Option<ByteString>, request: RequestBody) {
        self.ask(now, Asker::Client { ticket, client_id }, request);
    }

    /// Asks something for at most `for_ms`.
    pub fn ask_for(&mut self, now: Mono, asker: Asker, request: impl Into<RequestBody>, for_ms: i64) {
        let timeout_ms = self.socket_timeout_ms.min(for_ms);
        let question = Question { asker, request: request.into(), deadline: now.plus_ms(for_ms), timeout_ms };
        self.waiting.insert(self.next, question);
        self.next += 1;
    }

    /// The next question to ask, with its number, unless the channel pauses. The caller gives it back with
    /// [`asks`](Self::asks).
    pub fn take_next(&mut self, now: Mono) -> Option<(u64, Question)> {
        if now < self.pause_until { None } else { self.waiting.pop_first() }
    }

    /// The controller is asked this question.
    pub fn asks(&mut self, number: u64, question: Question) {
        self.asked.insert(number, question);
    }

    /// The controller has answered.
    pub fn answered(&mut self, number: u64, response: ResponseBody) {
        self.end(number, Ok(response));
    }

    fn end(&mut self, number: u64, result: Result<ResponseBody, Unanswered>) {
        // A channel that is closed has ended all its questions.
        let Some(Question { asker, request, .. }) = self.asked.remove(&number) else { return };
        self.results.push_back(Outcome { asker, request, result });
    }

    /// The node that was asked is not the controller, so the question is asked again.
    pub fn not_controller(&mut self, now: Mono, number: u64) {
        let Some(question) = self.asked.remove(&number) else { return };
        self.waiting.insert(number, question);
        self.pause_until = now.plus_ms(PAUSE_MS);
    }

    /// This node leads the quorum now. What the one before was asked, and has not answered, is asked again: it may be gone,
    /// and its answers, should they still come, are to nobody.
    pub fn controller_is(&mut self, node: NodeId) {
        if self.controller.replace(node) == Some(node) {
            return;
        }
        for (_, question) in std::mem::take(&mut self.asked) {
            self.waiting.insert(self.next, question);
            self.next += 1;
        }
    }

    /// Another node has answered, or has not.
    pub fn handle_answer(&mut self, now: Mono, number: u64, answer: Result<ResponseBody, AskError>) {
        let Some(question) = self.asked.get(&number) else { return };
        match answer {
            Ok(ResponseBody::Envelope(envelope)) => {
                let header = question.client_header().expect("only clients' requests are in envelopes");
                match super::envelope::unwrap(&header, envelope) {
                    Ok(body) => self.answered(number, body),
                    Err(ErrorCode::NotController) => self.not_controller(now, number),
                    Err(error) => self.end(number, Err(Unanswered::Refused(error))),
                }
            }
            Ok(body) if is_from_no_controller(&body) => self.not_controller(now, number),
            Ok(body) => self.answered(number, body),
            Err(AskError::Unsupported) => self.end(number, Err(Unanswered::Unsupported)),
            Err(AskError::Unreachable | AskError::Disconnected | AskError::TimedOut | AskError::Malformed(_)) => {
                self.not_controller(now, number);
            }
        }
    }

    /// Ends the questions whose time has run out while nobody could be asked.
    pub fn expire(&mut self, now: Mono) {
        for (_, question) in self.waiting.extract_if(.., |_, question| question.deadline <= now) {
            let Question { asker, request, .. } = question;
            self.results.push_back(Outcome { asker, request, result: Err(Unanswered::TimedOut) });
        }
    }

    /// Ends all questions, because this node stops.
    pub fn close(&mut self) {
        let left = std::mem::take(&mut self.waiting).into_values().chain(std::mem::take(&mut self.asked).into_values());
        for Question { asker, request, .. } in left {
            self.results.push_back(Outcome { asker, request, result: Err(Unanswered::TimedOut) });
        }
    }

    pub fn take_result(&mut self) -> Option<Outcome> {
        self.results.pop_front()
    }

    /// Whether there is a question to ask.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether there is neither a question to ask nor a result to take. Nothing is due then.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.results.is_empty()
    }

    /// When there is something to do, if nothing else happens.
    pub fn deadline(&self, now: Mono) -> Option<Mono> {
        let pause = Some(self.pause_until).filter(|until| now < *until);
        let expiry = self.waiting.values().map(|question| question.deadline).min()?;
        Some(pause.map_or(expiry, |until| until.min(expiry)))
    }
}

/// Whether the node that has answered a question of another node says that it is not the active controller.
fn is_from_no_controller(body: &ResponseBody) -> bool {
    let no_controller = ErrorCode::NotController.code();
    match body {
        ResponseBody::BrokerRegistration(body) => body.error_code == no_controller,
        ResponseBody::BrokerHeartbeat(body) => body.error_code == no_controller,
        ResponseBody::ControllerRegistration(body) => body.error_code == no_controller,
        ResponseBody::AllocateProducerIds(body) => body.error_code == no_controller,
        ResponseBody::AlterPartition(body) => {
            // A controller that was deposed and does not know it yet answers for a partition so.
            let partitions = body.topics.iter().flat_map(|topic| &topic.partitions);
            body.error_code == no_controller || partitions.into_iter().any(|it| it.error_code == no_controller)
        }
        ResponseBody::AssignReplicasToDirs(body) => body.error_code == no_controller,
        ResponseBody::CreateTopics(body) => body.topics.iter().any(|topic| topic.error_code == no_controller),
        other => panic!("no node asks the controller for {:?}", other.api_key()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::{
        AllocateProducerIdsRequest, AllocateProducerIdsResponse, BrokerHeartbeatRequest, BrokerHeartbeatResponse,
    };

    const START: Mono = Mono(1_000_000_000);

    fn channel() -> Channel {
        Channel::new(30_000)
    }

    fn ask_ids(channel: &mut Channel) {
        channel.ask(START, Asker::ProducerIds, AllocateProducerIdsRequest::default());
    }

    /// Asks the next question, and gives its number.
    fn next(channel: &mut Channel, now: Mono) -> Option<u64> {
        let (number, question) = channel.take_next(now)?;
        channel.asks(number, question);
        Some(number)
    }

    fn ids(error: ErrorCode) -> ResponseBody {
        AllocateProducerIdsResponse { error_code: error.code(), ..Default::default() }.into()
    }

    #[test]
    fn a_question_is_asked_again_until_a_controller_answers_it() {
        let mut channel = channel();
        ask_ids(&mut channel);
        let mut now = START;
        for failure in [
            Err(AskError::Unreachable),
            Err(AskError::Disconnected),
            Err(AskError::TimedOut),
            Err(AskError::Malformed("?".to_owned())),
            Ok(ids(ErrorCode::NotController)),
        ] {
            let number = next(&mut channel, now).expect("it is asked");
            channel.handle_answer(now, number, failure);
            assert!(channel.take_result().is_none());
            assert_eq!(next(&mut channel, now), None, "there is a pause");
            now = now.plus_ms(PAUSE_MS);
            assert_eq!(channel.deadline(START), Some(now).filter(|now| *now < START.plus_ms(ASKED_FOR_MS)));
        }
        let number = next(&mut channel, now).expect("it is asked");
        channel.handle_answer(now, number, Ok(ids(ErrorCode::StaleBrokerEpoch)));
        let outcome = channel.take_result().expect("an answer of the controller, whatever it says");
        assert_eq!(outcome.result, Ok(ids(ErrorCode::StaleBrokerEpoch)));
        assert!(matches!(outcome.asker, Asker::ProducerIds));
        assert_eq!(channel.deadline(now), None);
    }

    #[test]
    fn what_a_controller_has_not_answered_is_asked_the_next_one() {
        let mut channel = channel();
        channel.controller_is(NodeId(1));
        ask_ids(&mut channel);
        let first = next(&mut channel, START).expect("it is asked");
        channel.controller_is(NodeId(1));
        assert_eq!(next(&mut channel, START), None, "it is still the same");
        channel.controller_is(NodeId(2));
        let second = next(&mut channel, START).expect("it is asked at once");
        channel.handle_answer(START, first, Err(AskError::TimedOut));
        assert!(channel.take_result().is_none() && next(&mut channel, START).is_none());
        channel.handle_answer(START, second, Ok(ids(ErrorCode::None)));
        assert_eq!(channel.take_result().expect("an answer").result, Ok(ids(ErrorCode::None)));
    }

    #[test]
    fn a_question_that_nobody_can_be_asked_ends_in_time() {
        let mut channel = channel();
        ask_ids(&mut channel);
        channel.ask_for(START, Asker::BrokerLife, BrokerHeartbeatRequest::default(), 2_000);
        channel.expire(START.plus_ms(1_999));
        assert!(channel.take_result().is_none());
        channel.expire(START.plus_ms(2_000));
        let outcome = channel.take_result().expect("the heartbeat has had its time");
        assert!(matches!(outcome.asker, Asker::BrokerLife));
        assert_eq!(outcome.result, Err(Unanswered::TimedOut));
        channel.expire(START.plus_ms(ASKED_FOR_MS));
        assert!(matches!(channel.take_result().expect("the other too").asker, Asker::ProducerIds));
        assert!(!channel.waits());
    }

    #[test]
    fn questions_of_the_nodes_life_do_not_wait_behind_others() {
        let mut channel = channel();
        ask_ids(&mut channel);
        channel.ask_for(START, Asker::BrokerLife, BrokerHeartbeatRequest::default(), 2_000);
        let (_, ids) = channel.take_next(START).unwrap();
        let (_, beat) = channel.take_next(START).unwrap();
        assert_eq!((ids.owner(), ids.timeout_ms), (PeerOwner::Controller, 30_000));
        assert_eq!(
            (beat.owner(), beat.timeout_ms),
            (PeerOwner::Life, 2_000),
            "it is not asked longer than it is wanted"
        );
    }

    #[test]
    fn a_controller_that_cannot_be_asked_so_is_not_asked_again() {
        let mut channel = channel();
        ask_ids(&mut channel);
        let number = next(&mut channel, START).unwrap();
        channel.handle_answer(START, number, Err(AskError::Unsupported));
        assert_eq!(channel.take_result().unwrap().result, Err(Unanswered::Unsupported));
    }

    #[test]
    fn a_channel_that_is_closed_has_answered_everything_and_hears_nothing_more() {
        let mut channel = channel();
        ask_ids(&mut channel);
        let asked = next(&mut channel, START).unwrap();
        channel.ask_for(START, Asker::BrokerLife, BrokerHeartbeatRequest::default(), 2_000);
        channel.close();
        assert!(channel.take_result().is_some() && channel.take_result().is_some());
        channel.handle_answer(START, asked, Ok(BrokerHeartbeatResponse::default().into()));
        channel.answered(asked, ids(ErrorCode::None));
        channel.not_controller(START, asked);
        assert!(channel.take_result().is_none() && !channel.waits());
    }
}
