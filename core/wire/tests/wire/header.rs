//! Frames of requests: their headers, and what is refused.

use bytes::Bytes;
use tidelog_wire::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, MetadataRequest};
use tidelog_wire::{RequestBody, RequestError, RequestHeader, decode_request, encode_request, encode_response};

/// A request's frame, without its length.
fn frame(key: i16, version: i16, rest: &[u8]) -> Bytes {
    [&key.to_be_bytes()[..], &version.to_be_bytes(), &[0, 0, 0, 9], rest].concat().into()
}

fn refusal(frame: Bytes) -> String {
    decode_request(frame).unwrap_err().to_string()
}

#[test]
fn a_request_reads_as_it_was_written() {
    for (api_version, client_id) in [(0, None), (8, Some("me".into())), (13, Some("".into()))] {
        let header = RequestHeader { api_key: ApiKey::Metadata, api_version, correlation_id: -7, client_id };
        let body = RequestBody::from(MetadataRequest::default());
        let frame = encode_request(&header, &body).to_bytes();
        assert_eq!(frame[..4], (frame.len() as i32 - 4).to_be_bytes());
        assert_eq!(decode_request(frame.slice(4..)), Ok((header, body)));
    }
}

#[test]
fn the_client_id_of_a_flexible_header_has_a_length_of_two_bytes() {
    let body = [0, 2, b'm', b'e', 0, 1, 1, 0];
    let (header, body) = decode_request(frame(18, 3, &body)).unwrap();
    assert_eq!((header.api_version, header.client_id), (3, Some("me".into())));
    assert_eq!(body, RequestBody::from(ApiVersionsRequest::default()));
}

#[test]
fn frames_shorter_than_a_header_are_refused() {
    for len in 0..10 {
        let short = frame(3, 1, &[0, 0]).slice(..len);
        assert!(matches!(decode_request(short), Err(RequestError::Malformed(_))), "{len}");
    }
}

#[test]
fn a_refusal_says_what_was_asked_and_what_is_allowed() {
    let refusals = [
        refusal(frame(99, 0, &[])),
        refusal(frame(-1, 0, &[])),
        refusal(frame(4, 5, &[])),
        refusal(frame(83, 0, &[])),
        refusal(frame(11, 5, &[0, 2, b'm', b'e'])),
        refusal(frame(0, 2, &[0xff; 2])),
        refusal(frame(22, 6, &[0xff, 0xff, 0])),
        refusal(frame(3, -1, &[0xff; 2])),
        refusal(frame(3, 1, &[0xff, 0xff, 0x7f, 0xff, 0xff, 0xff])),
        refusal(frame(3, 9, &[0xff, 0xff, 0, 2, 0, 0, 0, 0, 0])),
        refusal(frame(3, 1, &[0xff, 0xfe])),
    ];
    insta::assert_snapshot!(refusals.join("\n"), @r"
    a request with the API key 99, which Kafka 4.3 does not have
    a request with the API key -1, which Kafka 4.3 does not have
    LeaderAndIsr version 5: this listener does not serve this API
    InitializeShareGroupState version 0: this listener does not serve this API
    JoinGroup version 5: this listener does not serve this API: there are no consumer groups yet
    Produce version 2: served are 3 to 13
    InitProducerId version 6: served are 0 to 5
    Metadata version -1: served are 0 to 13
    a malformed request: MetadataRequest, byte 14: 2147483647 elements of at least 2 bytes each, 0 bytes remain
    a malformed request: MetadataRequest, byte 13: null where this version allows none: string
    a malformed request: RequestHeader, byte 10: a string of length -2
    ");
}

#[test]
fn the_client_id_of_a_request_that_is_not_served_is_kept_if_it_can_be_read() {
    let client_id = |frame| match decode_request(frame) {
        Err(RequestError::NotServed { client_id, .. }) => client_id,
        other => panic!("{other:?}"),
    };
    assert_eq!(client_id(frame(11, 5, &[0, 2, b'm', b'e'])), Some("me".into()));
    assert_eq!(client_id(frame(11, 6, &[0, 2, b'm', b'e', 0])), Some("me".into()));
    assert_eq!(client_id(frame(11, 5, &[0, 9])), None);
}

#[test]
fn bytes_after_a_request_are_ignored_as_kafka_does() {
    let (_, body) = decode_request(frame(18, 0, &[0xff, 0xff, 1, 2, 3])).unwrap();
    assert_eq!(body, RequestBody::from(ApiVersionsRequest::default()));
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    // Version 99 has a flexible header and a body that nobody can read.
    let (header, body) = decode_request(frame(18, 99, &[0xff, 0xff, 0, 0xde, 0xad])).unwrap();
    assert_eq!((header.api_version, header.correlation_id), (99, 9));
    assert_eq!(body, RequestBody::UnsupportedApiVersions);
    let response = ApiVersionsResponse { error_code: 35, ..Default::default() };
    let frame = encode_response(ApiKey::ApiVersions, 99, 9, &response.into()).to_bytes();
    assert_eq!(frame, &[0, 0, 0, 10, 0, 0, 0, 9, 0, 35, 0, 0, 0, 0][..]);
}

#[test]
fn text_that_is_not_utf_8_is_read_as_kafka_reads_it() {
    let (header, _) = decode_request(frame(18, 0, &[0, 3, b'a', 0xff, b'b'])).unwrap();
    assert_eq!(header.client_id, Some("a\u{fffd}b".into()));
}
