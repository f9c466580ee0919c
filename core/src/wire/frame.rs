//! The four bytes before every request and response: how many follow.

use std::fmt;

/// The bytes of a frame's length.
pub const FRAME_LENGTH_BYTES: usize = 4;

/// A length that was checked against `socket.request.max.bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameLength(usize);

/// A length that no request has: the connection is closed, as Kafka does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLengthError {
    pub len: i32,
    /// `socket.request.max.bytes`
    pub max: i32,
}

impl FrameLength {
    /// Checks what a peer announces, before anything is allocated for it.
    pub fn check(len: i32, max: i32) -> Result<Self, FrameLengthError> {
        match usize::try_from(len) {
            Ok(bytes) if len <= max => Ok(Self(bytes)),
            _ => Err(FrameLengthError { len, max }),
        }
    }

    /// The same from the bytes of the wire.
    pub fn parse(bytes: [u8; FRAME_LENGTH_BYTES], max: i32) -> Result<Self, FrameLengthError> {
        Self::check(i32::from_be_bytes(bytes), max)
    }

    /// How many bytes follow the length.
    pub fn bytes(self) -> usize {
        self.0
    }
}

impl fmt::Display for FrameLengthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { len, max } = self;
        if *len < 0 {
            write!(f, "a request of {len} bytes: the length is negative, so the peer does not speak Kafka's protocol")
        } else {
            write!(f, "a request of {len} bytes is larger than socket.request.max.bytes = {max}")
        }
    }
}

impl std::error::Error for FrameLengthError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_refused_when_negative_or_above_the_limit() {
        assert_eq!(FrameLength::check(100, 100).map(FrameLength::bytes), Ok(100));
        assert_eq!(FrameLength::check(0, 100).map(FrameLength::bytes), Ok(0));
        let oversized = FrameLength::check(101, 100).unwrap_err();
        insta::assert_snapshot!(oversized, @"a request of 101 bytes is larger than socket.request.max.bytes = 100");
        let negative = FrameLength::parse([0xff; 4], 100).unwrap_err();
        insta::assert_snapshot!(negative, @"a request of -1 bytes: the length is negative, so the peer does not speak Kafka's protocol");
    }
}
