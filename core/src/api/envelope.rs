//! Envelope: a broker brings a client's request to the active controller, with the client's principal and address
//! (KIP-590). The controller answers with an envelope that holds the response.

use crate::api::{AnswerTo, Parts, Ticket, administration};
use crate::io::Outbox;
use crate::time::Now;
use crate::wire::messages::{DefaultPrincipalData, EnvelopeRequest, EnvelopeResponse};
use crate::wire::{ApiKey, ErrorCode, RequestBody, RequestError, RequestHeader, ResponseBody};
use crate::wire::{decode_request, decode_response, request_bytes, response_bytes};
use bytes::Bytes;
use core::net::IpAddr;

/// The principal of everyone: nobody has to prove who they are, as long as there is no authentication.
const ANONYMOUS: (&str, &str) = ("User", "ANONYMOUS");
/// The version of a serialized principal.
const PRINCIPAL_VERSION: i16 = 0;

/// Takes a request out of its envelope, and has it decided.
pub fn handle(parts: &mut Parts, now: Now, ticket: Ticket, envelope: EnvelopeRequest, out: &mut Outbox) {
    match open(envelope) {
        Ok((header, body)) => {
            administration::handle(parts, now, AnswerTo::Envelope { ticket, header }, body, out);
        }
        Err(error) => parts.replies.answer(ticket, refusal(error).into(), out),
    }
}

/// The request in an envelope, or the error of the envelope, as Kafka's `EnvelopeUtils` has them.
fn open(envelope: EnvelopeRequest) -> Result<(RequestHeader, RequestBody), ErrorCode> {
    let principal = envelope.request_principal.ok_or(ErrorCode::PrincipalDeserializationFailure)?;
    read_principal(principal).ok_or(ErrorCode::PrincipalDeserializationFailure)?;
    if ![4, 16].contains(&envelope.client_host_address.len()) {
        return Err(ErrorCode::InvalidRequest);
    }
    let (header, body) = decode_request(envelope.request_data).map_err(|error| match error {
        RequestError::NotServed { api_key, .. } if !is_forwarded(api_key) => ErrorCode::InvalidRequest,
        _ => ErrorCode::UnsupportedVersion,
    })?;
    if is_forwarded(header.api_key) { Ok((header, body)) } else { Err(ErrorCode::InvalidRequest) }
}

/// Whether a broker brings requests of this kind to the active controller.
pub fn is_forwarded(api_key: ApiKey) -> bool {
    use ApiKey::*;
    matches!(
        api_key,
        CreateTopics
            | DeleteTopics
            | CreatePartitions
            | AlterConfigs
            | IncrementalAlterConfigs
            | ElectLeaders
            | AlterPartitionReassignments
            | ListPartitionReassignments
            | UpdateFeatures
            | UnregisterBroker
            | DescribeQuorum
            | AddRaftVoter
            | RemoveRaftVoter
    )
}

/// A client's request in an envelope.
pub fn seal(header: &RequestHeader, body: &RequestBody, client: IpAddr) -> EnvelopeRequest {
    let address = match client {
        IpAddr::V4(address) => Bytes::copy_from_slice(&address.octets()),
        IpAddr::V6(address) => Bytes::copy_from_slice(&address.octets()),
    };
    EnvelopeRequest {
        request_data: request_bytes(header, body),
        request_principal: Some(principal()),
        client_host_address: address,
        ..Default::default()
    }
}

/// The response to the request with this header, in an envelope. If it says that this node is not the active controller,
/// the envelope says it, so that the broker looks for the controller, and the client is not told.
pub fn wrap(header: &RequestHeader, body: &ResponseBody) -> EnvelopeResponse {
    let not_leader = ErrorCode::NotLeaderOrFollower.code();
    match body {
        ResponseBody::DescribeQuorum(body)
            if body.error_code == not_leader
                || body.topics.iter().flat_map(|it| &it.partitions).any(|it| it.error_code == not_leader) =>
        {
            refusal(ErrorCode::NotController)
        }
        _ => EnvelopeResponse { response_data: Some(response_bytes(header, body)), ..Default::default() },
    }
}

pub fn refusal(error: ErrorCode) -> EnvelopeResponse {
    EnvelopeResponse { error_code: error.code(), ..Default::default() }
}

/// What the active controller has answered to a client's request; the error of the envelope if that has one.
pub fn unwrap(header: &RequestHeader, envelope: EnvelopeResponse) -> Result<ResponseBody, ErrorCode> {
    match (envelope.error_code, envelope.response_data) {
        (0, Some(response)) => match decode_response(header.api_key, header.api_version, response) {
            Ok((_, body)) => Ok(body),
            Err(_) => Err(ErrorCode::UnknownServerError),
        },
        (0, None) => Err(ErrorCode::UnknownServerError),
        (code, _) => Err(ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)),
    }
}

fn principal() -> Bytes {
    let (kind, name) = ANONYMOUS;
    let data = DefaultPrincipalData { r#type: kind.into(), name: name.into(), ..Default::default() };
    let bytes = data.to_bytes(PRINCIPAL_VERSION);
    [&PRINCIPAL_VERSION.to_be_bytes(), &bytes[..]].concat().into()
}

fn read_principal(bytes: Bytes) -> Option<DefaultPrincipalData> {
    let version = i16::from_be_bytes(bytes.get(..2)?.try_into().ok()?);
    DefaultPrincipalData::VERSIONS.contains(&version).then_some(())?;
    DefaultPrincipalData::from_bytes(version, bytes.slice(2..)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::{
        CreateTopicsRequest, CreateTopicsResponse, DescribeQuorumResponse, HeartbeatRequest, ProduceRequest,
        describe_quorum_response,
    };
    use core::net::{Ipv4Addr, Ipv6Addr};

    fn header(api_key: ApiKey, api_version: i16) -> RequestHeader {
        RequestHeader { api_key, api_version, correlation_id: 77, client_id: Some("app".into()) }
    }

    fn sealed(client: IpAddr) -> EnvelopeRequest {
        seal(
            &header(ApiKey::CreateTopics, 7),
            &CreateTopicsRequest { timeout_ms: 5, ..Default::default() }.into(),
            client,
        )
    }

    #[test]
    fn what_comes_out_of_an_envelope_is_what_was_put_in() {
        for client in [Ipv4Addr::new(10, 1, 2, 3).into(), Ipv6Addr::LOCALHOST.into()] {
            let envelope = EnvelopeRequest::from_bytes(0, sealed(client).to_bytes(0)).unwrap();
            let principal = read_principal(envelope.request_principal.clone().unwrap()).unwrap();
            assert_eq!(
                (&*principal.r#type, &*principal.name, principal.token_authenticated),
                ("User", "ANONYMOUS", false)
            );
            let (opened, body) = open(envelope).unwrap();
            assert_eq!(opened, header(ApiKey::CreateTopics, 7));
            assert_eq!(body, CreateTopicsRequest { timeout_ms: 5, ..Default::default() }.into());
        }
        let header = header(ApiKey::CreateTopics, 7);
        let response: ResponseBody = CreateTopicsResponse { throttle_time_ms: 3, ..Default::default() }.into();
        assert_eq!(unwrap(&header, wrap(&header, &response)), Ok(response));
    }

    #[test]
    fn an_envelope_that_is_wrong_is_refused_with_what_is_wrong_with_it() {
        let good = || sealed(Ipv4Addr::LOCALHOST.into());
        let refused = |envelope| open(envelope).unwrap_err();
        let no_principal = ErrorCode::PrincipalDeserializationFailure;
        assert_eq!(refused(EnvelopeRequest { request_principal: None, ..good() }), no_principal);
        for bytes in [&b""[..], &[0], &[0, 9, 1, 1, 0, 0], &[0, 0, 1]] {
            let request_principal = Some(Bytes::copy_from_slice(bytes));
            assert_eq!(refused(EnvelopeRequest { request_principal, ..good() }), no_principal, "{bytes:?}");
        }
        let client_host_address = Bytes::from_static(&[1, 2, 3]);
        assert_eq!(refused(EnvelopeRequest { client_host_address, ..good() }), ErrorCode::InvalidRequest);
        for (bytes, error) in [
            (Bytes::from_static(b"\x00"), ErrorCode::UnsupportedVersion),
            (good().request_data.slice(..9), ErrorCode::UnsupportedVersion),
            (request_bytes(&header(ApiKey::Produce, 9), &ProduceRequest::default().into()), ErrorCode::InvalidRequest),
            (
                request_bytes(&header(ApiKey::Heartbeat, 4), &HeartbeatRequest::default().into()),
                ErrorCode::InvalidRequest,
            ),
        ] {
            assert_eq!(refused(EnvelopeRequest { request_data: bytes, ..good() }), error);
        }
    }

    #[test]
    fn an_error_of_the_envelope_and_an_answer_that_cannot_be_read_are_told_apart_from_answers() {
        let header = header(ApiKey::CreateTopics, 7);
        assert_eq!(unwrap(&header, refusal(ErrorCode::NotController)), Err(ErrorCode::NotController));
        assert_eq!(unwrap(&header, EnvelopeResponse::default()), Err(ErrorCode::UnknownServerError));
        let response_data = Some(Bytes::from_static(b"\x00"));
        let torn = EnvelopeResponse { response_data, ..Default::default() };
        assert_eq!(unwrap(&header, torn), Err(ErrorCode::UnknownServerError));
    }

    #[test]
    fn a_quorum_that_is_not_led_here_is_asked_elsewhere() {
        let header = header(ApiKey::DescribeQuorum, 2);
        let partition = describe_quorum_response::PartitionData {
            error_code: ErrorCode::NotLeaderOrFollower.code(),
            ..Default::default()
        };
        let topic = describe_quorum_response::TopicData { partitions: vec![partition], ..Default::default() };
        let body = DescribeQuorumResponse { topics: vec![topic], ..Default::default() };
        assert_eq!(unwrap(&header, wrap(&header, &body.into())), Err(ErrorCode::NotController));
    }
}
