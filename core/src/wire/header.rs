//! Whole requests and responses: header and body in one frame.

use super::frame::FRAME_LENGTH_BYTES;
use super::messages::{self, ApiKey, RequestBody, ResponseBody};
use super::reader::{DecodeError, Reader};
use super::versions::{request_header_version, response_header_version, served};
use super::writer::{Frame, Writer};
use bytes::Bytes;
use bytestring::ByteString;

/// What stands before every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    pub api_key: ApiKey,
    pub api_version: i16,
    pub correlation_id: i32,
    pub client_id: Option<ByteString>,
}

/// Why a request is not worked on. As Kafka does, each of them closes the connection: a client that asked for
/// ApiVersions first does not get here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("a request with the API key {api_key}, which Kafka 4.3 does not have")]
    UnknownApiKey { api_key: i16 },
    #[error("{} version {version}: this listener does not serve this API", api_key.name())]
    NotServed { api_key: ApiKey, version: i16 },
    #[error("{} version {version}: served are {min} to {max}", api_key.name())]
    UnsupportedVersion { api_key: ApiKey, version: i16, min: i16, max: i16 },
    #[error("a malformed request: {0}")]
    Malformed(#[from] DecodeError),
}

/// Reads a request from a frame without its four length bytes.
///
/// Bytes after the end of the body are ignored, as Kafka does: only the records and files that we keep are held to
/// the stricter rule.
pub fn decode_request(frame: Bytes) -> Result<(RequestHeader, RequestBody), RequestError> {
    let mut reader = Reader::new(frame.clone());
    // Key and version say how to read the header in which they stand.
    let start = messages::RequestHeader::NAME;
    let (code, version) = reader.message(start, 0..=0, 0, |_, r| (r.i16(), r.i16()))?;
    let api_key = ApiKey::from_code(code).ok_or(RequestError::UnknownApiKey { api_key: code })?;
    let Some(versions) = served(api_key) else { return Err(RequestError::NotServed { api_key, version }) };

    let mut reader = Reader::new(frame);
    let header = messages::RequestHeader::decode(request_header_version(api_key, version), &mut reader)?;
    let header = RequestHeader {
        api_key,
        api_version: version,
        correlation_id: header.correlation_id,
        client_id: header.client_id,
    };
    if versions.contains(&version) {
        let body = RequestBody::decode(api_key, version, &mut reader)?;
        Ok((header, body))
    } else if api_key == ApiKey::ApiVersions {
        Ok((header, RequestBody::UnsupportedApiVersions))
    } else {
        let (min, max) = versions.into_inner();
        Err(RequestError::UnsupportedVersion { api_key, version, min, max })
    }
}

/// A whole request, its four length bytes included.
pub fn encode_request(header: &RequestHeader, body: &RequestBody) -> Frame {
    assert_eq!(header.api_key, body.api_key(), "the header names the body");
    let RequestHeader { api_key, api_version, correlation_id, ref client_id } = *header;
    let mut writer = begin_frame();
    let header = messages::RequestHeader {
        request_api_key: api_key as i16,
        request_api_version: api_version,
        correlation_id,
        client_id: client_id.clone(),
        ..Default::default()
    };
    header.encode(request_header_version(api_key, api_version), &mut writer);
    body.encode(api_version, &mut writer);
    end_frame(writer)
}

/// A whole response, its four length bytes included.
///
/// An ApiVersions response goes out as version 0 where the request's version is unknown (KIP-511).
pub fn encode_response(api_key: ApiKey, api_version: i16, correlation_id: i32, body: &ResponseBody) -> Frame {
    assert_eq!(api_key, body.api_key(), "a response answers its request");
    let is_known = api_key.codec_versions().is_some_and(|versions| versions.contains(&api_version));
    let version = if api_key == ApiKey::ApiVersions && !is_known { 0 } else { api_version };
    let mut writer = begin_frame();
    let header = messages::ResponseHeader { correlation_id, ..Default::default() };
    header.encode(response_header_version(api_key, version), &mut writer);
    body.encode(version, &mut writer);
    end_frame(writer)
}

/// Reads a response from a frame without its four length bytes: the correlation id and the body.
pub fn decode_response(api_key: ApiKey, version: i16, frame: Bytes) -> Result<(i32, ResponseBody), DecodeError> {
    let mut reader = Reader::new(frame);
    let header = messages::ResponseHeader::decode(response_header_version(api_key, version), &mut reader)?;
    let body = ResponseBody::decode(api_key, version, &mut reader)?;
    reader.expect_end(api_key.name())?;
    Ok((header.correlation_id, body))
}

fn begin_frame() -> Writer {
    let mut writer = Writer::new();
    writer.i32(0);
    writer
}

fn end_frame(mut writer: Writer) -> Frame {
    let len = writer.len() - FRAME_LENGTH_BYTES;
    writer.patch_i32(0, i32::try_from(len).expect("what is sent fits a frame of 2 GiB"));
    writer.into_frame()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::{ApiVersionsRequest, ApiVersionsResponse, MetadataRequest};

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
            refusal(frame(52, 0, &[])),
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
        Vote version 0: this listener does not serve this API
        Produce version 2: served are 3 to 13
        InitProducerId version 6: served are 0 to 5
        Metadata version -1: served are 0 to 13
        a malformed request: MetadataRequest, byte 14: 2147483647 elements of at least 2 bytes each, 0 bytes remain
        a malformed request: MetadataRequest, byte 13: null where this version allows none: string
        a malformed request: RequestHeader, byte 10: a string of length -2
        ");
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
}
