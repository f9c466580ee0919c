//! The length that stands before every request and response: four bytes that say how many bytes follow.

use std::fmt;

/// How many bytes the length of a frame takes.
pub const FRAME_LENGTH_BYTES: usize = 4;

/// A length that was checked against `socket.request.max.bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameLength(usize);

/// A length that no request can have: it is negative or above the limit. The connection is closed, as in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLengthError {
    pub len: i32,
    /// `socket.request.max.bytes`
    pub max: i32,
}

impl FrameLength {
    /// Checks the length that a peer announces, before memory is allocated for it.
    pub fn check(len: i32, max: i32) -> Result<Self, FrameLengthError> {
        match usize::try_from(len) {
            Ok(bytes) if len <= max => Ok(Self(bytes)),
            _ => Err(FrameLengthError { len, max }),
        }
    }

    /// Like [`check`](Self::check), from the four bytes as they arrived.
    pub fn parse(bytes: [u8; FRAME_LENGTH_BYTES], max: i32) -> Result<Self, FrameLengthError> {
        Self::check(i32::from_be_bytes(bytes), max)
    }

    /// How many bytes follow the length.
    pub fn bytes(self) -> usize {
        self.0
    }
}

impl FrameLengthError {
    /// What a peer sent that speaks another protocol, where its first bytes are those of one that is often met.
    pub fn looks_like(&self) -> Option<&'static str> {
        match &self.len.to_be_bytes() {
            // The kind of a record and the first byte of TLS' version: a handshake, or an alert.
            [0x16, 3, ..] => Some("a TLS handshake"),
            [0x15, 3, ..] => Some("a TLS alert"),
            b"GET " | b"HEAD" | b"POST" | b"PUT " | b"PATC" | b"DELE" | b"OPTI" | b"CONN" | b"TRAC" | b"PRI " => {
                Some("an HTTP request")
            }
            b"HTTP" => Some("an HTTP response"),
            b"SSH-" => Some("SSH"),
            _ => None,
        }
    }
}

impl fmt::Display for FrameLengthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { len, max } = self;
        if let Some(what) = self.looks_like() {
            write!(f, "this looks like {what}; this listener speaks the Kafka protocol in plain text")
        } else if *len < 0 {
            write!(f, "a request of {len} bytes: the length is negative, so the peer does not speak Kafka's protocol")
        } else {
            write!(f, "a request of {len} bytes is larger than socket.request.max.bytes = {max}")
        }
    }
}

impl std::error::Error for FrameLengthError {}
