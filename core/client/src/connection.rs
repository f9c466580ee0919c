//! One connection to a broker: the versions that the broker serves, and the requests that wait for their answers.

use super::Address;
use bytes::Bytes;
use bytestring::ByteString;
use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use tidelog_wire::ids::ConnId;
use tidelog_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};
use tidelog_wire::time::Mono;
use tidelog_wire::{
    ApiKey, ErrorCode, Frame, RequestBody, RequestHeader, ResponseBody, decode_response, encode_request,
};

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
    timeout_ms: i64,
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

/// What a frame from the broker means.
#[derive(Debug)]
pub enum FrameMeaning<T> {
    /// It answers a request.
    Answer(Box<FinishedRequest<T>>),
    /// The broker's versions are known now, and requests may be sent.
    Ready,
    /// The broker does not know this version of ApiVersions. This frame asks again in a version that it knows.
    Send(Frame),
    /// The connection cannot be used any more, for this reason.
    Broken(String),
}

#[derive(Debug)]
pub struct Connection<T> {
    pub conn: ConnId,
    pub address: Address,
    state: State,
    /// The least and greatest version that the broker serves of each kind of request.
    versions: BTreeMap<i16, (i16, i16)>,
    in_flight: VecDeque<InFlight<T>>,
    next_correlation_id: i32,
    pub last_used: Mono,
}

impl<T> Connection<T> {
    pub fn new(conn: ConnId, address: Address, now: Mono, setup_timeout_ms: i64) -> Self {
        Self {
            conn,
            address,
            state: State::Connecting { until: now.plus_ms(setup_timeout_ms) },
            versions: BTreeMap::new(),
            in_flight: VecDeque::new(),
            next_correlation_id: 0,
            last_used: now,
        }
    }

    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// When the set-up of the connection, or the wait for an answer, will have taken too long.
    pub fn deadline(&self) -> Option<Mono> {
        let setup = match self.state {
            State::Connecting { until } => Some(until),
            State::Negotiating | State::Ready => None,
        };
        let requests = self.in_flight.iter().map(|request| request.sent_at.plus_ms(request.timeout_ms)).min();
        setup.into_iter().chain(requests).min()
    }

    /// The socket is open: asks which versions the broker serves, with the newest version of ApiVersions (KIP-511).
    pub fn handle_connected(&mut self, now: Mono, client_id: &ByteString, timeout_ms: i64) -> Frame {
        assert!(matches!(self.state, State::Connecting { .. }), "a connection opens once");
        self.state = State::Negotiating;
        let newest = *ApiVersionsRequest::VERSIONS.end();
        self.ask_versions(now, newest, client_id, timeout_ms)
    }

    fn ask_versions(&mut self, now: Mono, version: i16, client_id: &ByteString, timeout_ms: i64) -> Frame {
        let mut request = ApiVersionsRequest::default();
        if version >= 3 {
            request.client_software_name = "tidelog".into();
            request.client_software_version = env!("CARGO_PKG_VERSION").into();
        }
        self.enqueue(now, version, request.into(), client_id, timeout_ms, Some(None))
    }

    /// The newest version in `range` that the broker serves too.
    pub fn version(&self, api_key: ApiKey, range: RangeInclusive<i16>) -> Option<i16> {
        let (min, max) = *self.versions.get(&(api_key as i16))?;
        let version = max.min(*range.end());
        (version >= min.max(*range.start())).then_some(version)
    }

    /// Makes the frame of a request, and waits for its answer.
    pub fn send(
        &mut self,
        now: Mono,
        version: i16,
        body: RequestBody,
        client_id: &ByteString,
        timeout_ms: i64,
        tag: T,
    ) -> Frame {
        assert!(self.is_ready(), "nothing is sent before the versions are known");
        self.enqueue(now, version, body, client_id, timeout_ms, Some(Some(tag)))
    }

    /// Makes the frame of a request that is never answered (Produce with acks=0).
    pub fn send_without_answer(&mut self, now: Mono, version: i16, body: RequestBody, client_id: &ByteString) -> Frame {
        assert!(self.is_ready(), "nothing is sent before the versions are known");
        self.enqueue(now, version, body, client_id, 0, None)
    }

    fn enqueue(
        &mut self,
        now: Mono,
        version: i16,
        body: RequestBody,
        client_id: &ByteString,
        timeout_ms: i64,
        wait: Option<Option<T>>,
    ) -> Frame {
        let api_key = body.api_key();
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = correlation_id.wrapping_add(1);
        self.last_used = now;
        if let Some(tag) = wait {
            self.in_flight.push_back(InFlight { correlation_id, api_key, version, sent_at: now, timeout_ms, tag });
        }
        let client_id = Some(client_id.clone());
        encode_request(&RequestHeader { api_key, api_version: version, correlation_id, client_id }, &body)
    }

    pub fn handle_frame(
        &mut self,
        now: Mono,
        frame: Bytes,
        client_id: &ByteString,
        timeout_ms: i64,
    ) -> FrameMeaning<T> {
        self.last_used = now;
        let Some(request) = self.in_flight.pop_front() else {
            return FrameMeaning::Broken("a response came that belongs to no request".into());
        };
        let Some(tag) = request.tag else {
            return self.handle_versions(now, frame, request.version, client_id, timeout_ms);
        };
        let InFlight { correlation_id, api_key, version, sent_at, .. } = request;
        let result = match decode_response(api_key, version, frame) {
            Ok((got, body)) if got == correlation_id => Ok(body),
            Ok((got, _)) => Err(RequestFailure::Malformed(format!("correlation id {got}, expected {correlation_id}"))),
            Err(error) => Err(RequestFailure::Malformed(error.to_string())),
        };
        FrameMeaning::Answer(Box::new(FinishedRequest { tag, api_key, version, sent_at, result }))
    }

    fn handle_versions(
        &mut self,
        now: Mono,
        frame: Bytes,
        asked: i16,
        client_id: &ByteString,
        timeout_ms: i64,
    ) -> FrameMeaning<T> {
        // A broker that does not know the version of an ApiVersions request answers in version 0 (KIP-511).
        let unsupported = ErrorCode::UnsupportedVersion.code();
        let refused = frame.get(4..6).is_some_and(|code| code == unsupported.to_be_bytes());
        let version = if refused { 0 } else { asked };
        let response = match decode_response(ApiKey::ApiVersions, version, frame) {
            Ok((_, ResponseBody::ApiVersions(response))) => response,
            Ok(_) => unreachable!("the response is decoded as one to ApiVersions"),
            Err(error) => return FrameMeaning::Broken(format!("the answer to ApiVersions cannot be read: {error}")),
        };
        if refused && asked > 0 {
            let newest = served(&response, ApiKey::ApiVersions).map_or(0, |(_, max)| max.min(asked - 1).max(0));
            return FrameMeaning::Send(self.ask_versions(now, newest, client_id, timeout_ms));
        }
        if response.error_code != 0 {
            return FrameMeaning::Broken(format!("ApiVersions was answered with error {}", response.error_code));
        }
        self.versions = response.api_keys.iter().map(|key| (key.api_key, (key.min_version, key.max_version))).collect();
        self.state = State::Ready;
        FrameMeaning::Ready
    }

    /// Whether the set-up or an answer has taken too long, so that the connection must be closed.
    pub fn is_late(&self, now: Mono) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Fails all requests that wait for an answer. If `now` is given, those that have waited too long fail as timed
    /// out.
    pub fn fail_all(self, now: Option<Mono>) -> impl Iterator<Item = FinishedRequest<T>> {
        self.in_flight.into_iter().filter_map(move |request| {
            let InFlight { api_key, version, sent_at, timeout_ms: ms, tag, .. } = request;
            let late = now.is_some_and(|now| sent_at.plus_ms(ms) <= now);
            let failure = if late { RequestFailure::TimedOut { ms } } else { RequestFailure::Disconnected };
            Some(FinishedRequest { tag: tag?, api_key, version, sent_at, result: Err(failure) })
        })
    }
}

fn served(response: &ApiVersionsResponse, api_key: ApiKey) -> Option<(i16, i16)> {
    let found = response.api_keys.iter().find(|key| key.api_key == api_key as i16)?;
    Some((found.min_version, found.max_version))
}
