//! Whole requests and responses: header and body in one frame.

use super::error_code::ErrorCode;
use super::frame::FRAME_LENGTH_BYTES;
use super::messages::{self, ApiKey, RequestBody, ResponseBody};
use super::reader::{DecodeError, Reader};
use super::versions::{missing, request_header_version, response_header_version, served};
use super::writer::{Frame, Writer};
use bytes::Bytes;
use bytestring::ByteString;

/// Most frames are smaller, records not counted: the buffer of such a frame is allocated once and need not grow.
const SMALL_FRAME_BYTES: usize = 256;

/// The header before the body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    pub api_key: ApiKey,
    pub api_version: i16,
    pub correlation_id: i32,
    pub client_id: Option<ByteString>,
}

/// Why a request is refused before it is worked on. Each of these errors closes the connection, as in Kafka. A client
/// avoids the errors about versions by asking for the ApiVersions first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("a request with the API key {api_key}, which Kafka 4.3 does not have")]
    UnknownApiKey { api_key: i16 },
    #[error(
        "{} version {version}: this listener does not serve this API{}",
        api_key.name(),
        missing(*api_key).map(|what| format!(": {what}")).unwrap_or_default()
    )]
    NotServed { api_key: ApiKey, version: i16, client_id: Option<ByteString> },
    #[error("{} version {version}: served are {min} to {max}", api_key.name())]
    UnsupportedVersion { api_key: ApiKey, version: i16, min: i16, max: i16 },
    #[error("a malformed request: {0}")]
    Malformed(#[from] DecodeError),
}

/// Reads a request from a frame without its four length bytes.
///
/// Bytes after the end of the body are ignored, as in Kafka. (In the records and files that a broker stores they are an
/// error.)
pub fn decode_request(frame: Bytes) -> Result<(RequestHeader, RequestBody), RequestError> {
    let mut reader = Reader::new(frame.clone());
    // The first two fields of the header, the API key and its version, decide how the whole header is read.
    let start = messages::RequestHeader::NAME;
    let (code, version) = reader.message(start, 0..=0, 0, |_, r| (r.i16(), r.i16()))?;
    let api_key = ApiKey::from_code(code).ok_or(RequestError::UnknownApiKey { api_key: code })?;
    let mut reader = Reader::new(frame);
    let header = messages::RequestHeader::decode(request_header_version(api_key, version), &mut reader);
    let Some(versions) = served(api_key) else {
        let client_id = header.ok().and_then(|header| header.client_id);
        return Err(RequestError::NotServed { api_key, version, client_id });
    };
    let header = header?;
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
        // KIP-511: the request is answered with the versions that are known, so that the client can ask again.
        Ok((header, RequestBody::UnsupportedApiVersions))
    } else {
        let (min, max) = versions.into_inner();
        Err(RequestError::UnsupportedVersion { api_key, version, min, max })
    }
}

/// A whole request, its four length bytes included.
pub fn encode_request(header: &RequestHeader, body: &RequestBody) -> Frame {
    let mut writer = begin_frame();
    write_request(header, body, &mut writer);
    end_frame(writer)
}

/// A request as an envelope holds it (KIP-590): without the four length bytes.
pub fn request_bytes(header: &RequestHeader, body: &RequestBody) -> Bytes {
    let mut writer = Writer::new();
    write_request(header, body, &mut writer);
    writer.into_bytes()
}

fn write_request(header: &RequestHeader, body: &RequestBody, writer: &mut Writer) {
    assert_eq!(header.api_key, body.api_key(), "the header has the API key of the body");
    let RequestHeader { api_key, api_version, correlation_id, ref client_id } = *header;
    let header = messages::RequestHeader {
        request_api_key: api_key as i16,
        request_api_version: api_version,
        correlation_id,
        client_id: client_id.clone(),
        ..Default::default()
    };
    header.encode(request_header_version(api_key, api_version), writer);
    body.encode(api_version, writer);
}

/// A whole response, its four length bytes included.
///
/// An ApiVersions response goes out as version 0 where the request's version is unknown (KIP-511).
pub fn encode_response(api_key: ApiKey, api_version: i16, correlation_id: i32, body: &ResponseBody) -> Frame {
    let mut writer = begin_frame();
    write_response(api_key, api_version, correlation_id, body, &mut writer);
    end_frame(writer)
}

/// The response to `header` as an envelope holds it (KIP-590): without the four length bytes.
pub fn response_bytes(header: &RequestHeader, body: &ResponseBody) -> Bytes {
    let mut writer = Writer::new();
    write_response(header.api_key, header.api_version, header.correlation_id, body, &mut writer);
    writer.into_bytes()
}

fn write_response(api_key: ApiKey, api_version: i16, correlation_id: i32, body: &ResponseBody, writer: &mut Writer) {
    assert_eq!(api_key, body.api_key(), "the response is of the API that was asked");
    let is_known = api_key.codec_versions().is_some_and(|versions| versions.contains(&api_version));
    let version = if api_key == ApiKey::ApiVersions && !is_known { 0 } else { api_version };
    let header = messages::ResponseHeader { correlation_id, ..Default::default() };
    header.encode(response_header_version(api_key, version), writer);
    body.encode(version, writer);
}

/// Reads a response from a frame without its four length bytes: the correlation id and the body.
///
/// An ApiVersions response with UNSUPPORTED_VERSION is read as version 0, in which it was sent (KIP-511).
pub fn decode_response(api_key: ApiKey, version: i16, frame: Bytes) -> Result<(i32, ResponseBody), DecodeError> {
    let unsupported = ErrorCode::UnsupportedVersion.code().to_be_bytes();
    let refused = api_key == ApiKey::ApiVersions && frame.get(4..6).is_some_and(|code| code == unsupported);
    let version = if refused { 0 } else { version };
    let mut reader = Reader::new(frame);
    let header = messages::ResponseHeader::decode(response_header_version(api_key, version), &mut reader)?;
    let body = ResponseBody::decode(api_key, version, &mut reader)?;
    reader.expect_end(api_key.name())?;
    Ok((header.correlation_id, body))
}

fn begin_frame() -> Writer {
    let mut writer = Writer::with_capacity(SMALL_FRAME_BYTES);
    writer.i32(0);
    writer
}

fn end_frame(mut writer: Writer) -> Frame {
    let len = writer.len() - FRAME_LENGTH_BYTES;
    writer.patch_i32(0, i32::try_from(len).expect("a message is smaller than 2 GiB"));
    writer.into_frame()
}
