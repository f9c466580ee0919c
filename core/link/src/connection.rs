//! One connection to another node: the versions that it serves, and the requests that wait for their answers.

use super::{ReadAnswer, earliest};
use bytestring::ByteString;
use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use tidelog_wire::ids::LinkId;
use tidelog_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};
use tidelog_wire::time::Mono;
use tidelog_wire::{Address, ApiKey, ErrorCode, RequestBody, RequestHeader, ResponseBody};

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestFailure {
    #[error("the connection was lost before the answer came")]
    Disconnected,
    #[error("no answer came within request.timeout.ms = {ms} ms")]
    TimedOut { ms: i64 },
    #[error("the answer cannot be read: {0}")]
    Malformed(String),
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Connecting {
        until: Mono,
    },
    /// ApiVersions was sent and is not answered yet.
    Negotiating,
    Ready,
}

#[derive(Debug)]
struct InFlight<T> {
    correlation_id: i32,
    api_key: ApiKey,
    version: i16,
    sent_at: Mono,
    deadline: Mono,
    /// What the sender gave to recognise the answer. `None` for the connection's own ApiVersions.
    tag: Option<T>,
}

/// A request that was answered, or will not be answered any more.
#[derive(Debug)]
pub struct FinishedRequest<T> {
    pub tag: T,
    pub api_key: ApiKey,
    pub version: i16,
    pub sent_at: Mono,
    pub result: Result<ResponseBody, RequestFailure>,
}

/// What an answer means.
#[derive(Debug)]
pub(super) enum AnswerMeaning<T> {
    /// It answers a request.
    Finished(Box<FinishedRequest<T>>),
    /// The versions are known now, and requests may be sent.
    Ready,
    /// The other end does not know this version of ApiVersions: ask again in a version that it knows.
    Send(Box<(RequestHeader, RequestBody)>),
    /// The connection cannot be used any more, for this reason.
    Broken(String),
}

#[derive(Debug)]
pub struct Connection<T> {
    pub link: LinkId,
    pub address: Address,
    client_id: ByteString,
    state: State,
    /// The least and greatest version that the other end serves of each kind of request.
    versions: BTreeMap<i16, (i16, i16)>,
    in_flight: VecDeque<InFlight<T>>,
    next_correlation_id: i32,
    pub last_used: Mono,
}

impl<T> Connection<T> {
    /// A connection that is being made, for which there is time until `until`.
    pub(super) fn new(link: LinkId, address: Address, client_id: ByteString, now: Mono, until: Mono) -> Self {
        Self {
            link,
            address,
            client_id,
            state: State::Connecting { until },
            versions: BTreeMap::new(),
            in_flight: VecDeque::new(),
            next_correlation_id: 0,
            last_used: now,
        }
    }

    /// Whether requests can be sent.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// When the set-up of the connection, or the wait for an answer, will have taken too long.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let setup = match self.state {
            State::Connecting { until } => Some(until),
            State::Negotiating | State::Ready => None,
        };
        earliest([setup, self.in_flight.iter().map(|request| request.deadline).min()])
    }

    /// Whether the set-up or an answer has taken too long, so that the connection must be closed.
    pub(super) fn is_late(&self, now: Mono) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// The socket is open: asks which versions the other end serves, with the newest version of ApiVersions (KIP-511).
    pub(super) fn handle_opened(&mut self, now: Mono, deadline: Mono) -> (RequestHeader, RequestBody) {
        assert!(matches!(self.state, State::Connecting { .. }), "a connection opens once");
        self.state = State::Negotiating;
        self.ask_versions(now, *ApiVersionsRequest::VERSIONS.end(), deadline)
    }

    fn ask_versions(&mut self, now: Mono, version: i16, deadline: Mono) -> (RequestHeader, RequestBody) {
        let mut request = ApiVersionsRequest::default();
        if version >= 3 {
            request.client_software_name = "tidelog".into();
            request.client_software_version = env!("CARGO_PKG_VERSION").into();
        }
        let body = RequestBody::from(request);
        (self.enqueue(now, version, &body, Some((deadline, None))), body)
    }

    /// The newest version in `range` that the other end serves too.
    pub fn version(&self, api_key: ApiKey, range: RangeInclusive<i16>) -> Option<i16> {
        let (min, max) = *self.versions.get(&(api_key as i16))?;
        let version = max.min(*range.end());
        (version >= min.max(*range.start())).then_some(version)
    }

    /// Makes the header of a request, and waits for its answer.
    pub(super) fn send(
        &mut self,
        now: Mono,
        version: i16,
        body: &RequestBody,
        deadline: Mono,
        tag: T,
    ) -> RequestHeader {
        assert!(self.is_ready(), "nothing is sent before the versions are known");
        self.enqueue(now, version, body, Some((deadline, Some(tag))))
    }

    /// Makes the header of a request that is never answered (Produce with acks=0).
    pub(super) fn send_without_answer(&mut self, now: Mono, version: i16, body: &RequestBody) -> RequestHeader {
        assert!(self.is_ready(), "nothing is sent before the versions are known");
        self.enqueue(now, version, body, None)
    }

    fn enqueue(
        &mut self,
        now: Mono,
        version: i16,
        body: &RequestBody,
        wait: Option<(Mono, Option<T>)>,
    ) -> RequestHeader {
        assert_eq!(wait.is_some(), body.is_answered(), "a request waits exactly if it is answered");
        let api_key = body.api_key();
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = correlation_id.wrapping_add(1);
        self.last_used = now;
        if let Some((deadline, tag)) = wait {
            self.in_flight.push_back(InFlight { correlation_id, api_key, version, sent_at: now, deadline, tag });
        }
        RequestHeader { api_key, api_version: version, correlation_id, client_id: Some(self.client_id.clone()) }
    }

    /// The next answer has come. `deadline`: until when another ApiVersions is to be answered, if one is needed.
    pub(super) fn handle_answer(&mut self, now: Mono, answer: ReadAnswer, deadline: Mono) -> AnswerMeaning<T> {
        self.last_used = now;
        let Some(request) = self.in_flight.pop_front() else {
            return AnswerMeaning::Broken("a response came that belongs to no request".into());
        };
        let InFlight { correlation_id, api_key, version, sent_at, tag, .. } = request;
        let result = match answer {
            Ok((got, _)) if got != correlation_id => Err(format!("correlation id {got}, expected {correlation_id}")),
            Ok((_, body)) => {
                assert_eq!(body.api_key(), api_key, "a world reads an answer as one to the request");
                Ok(body)
            }
            Err(error) => Err(error.to_string()),
        };
        match (tag, result) {
            (Some(tag), result) => {
                let result = result.map_err(RequestFailure::Malformed);
                AnswerMeaning::Finished(Box::new(FinishedRequest { tag, api_key, version, sent_at, result }))
            }
            (None, Ok(ResponseBody::ApiVersions(response))) => self.handle_versions(now, &response, version, deadline),
            (None, Ok(_)) => unreachable!("the body is of the API that was asked"),
            (None, Err(text)) => AnswerMeaning::Broken(format!("the answer to ApiVersions cannot be read: {text}")),
        }
    }

    fn handle_versions(
        &mut self,
        now: Mono,
        response: &ApiVersionsResponse,
        asked: i16,
        deadline: Mono,
    ) -> AnswerMeaning<T> {
        // The other end does not know the version of the request. Its answer names those that it knows (KIP-511).
        if response.error_code == ErrorCode::UnsupportedVersion.code() && asked > 0 {
            let newest = served(response, ApiKey::ApiVersions).map_or(0, |(_, max)| max.min(asked - 1).max(0));
            return AnswerMeaning::Send(Box::new(self.ask_versions(now, newest, deadline)));
        }
        if response.error_code != 0 {
            return AnswerMeaning::Broken(format!("ApiVersions was answered with error {}", response.error_code));
        }
        self.versions = response.api_keys.iter().map(|key| (key.api_key, (key.min_version, key.max_version))).collect();
        self.state = State::Ready;
        AnswerMeaning::Ready
    }

    /// Fails all requests that wait for an answer, the oldest first. If `now` is given, those that have waited too long
    /// fail as timed out.
    pub(super) fn fail_all(self, now: Option<Mono>) -> impl Iterator<Item = FinishedRequest<T>> {
        self.in_flight.into_iter().filter_map(move |request| {
            let InFlight { api_key, version, sent_at, deadline, tag, .. } = request;
            let failure = match now.is_some_and(|now| deadline <= now) {
                true => RequestFailure::TimedOut { ms: deadline.since(sent_at).as_millis() as i64 },
                false => RequestFailure::Disconnected,
            };
            Some(FinishedRequest { tag: tag?, api_key, version, sent_at, result: Err(failure) })
        })
    }
}

fn served(response: &ApiVersionsResponse, api_key: ApiKey) -> Option<(i16, i16)> {
    let found = response.api_keys.iter().find(|key| key.api_key == api_key as i16)?;
    Some((found.min_version, found.max_version))
}
