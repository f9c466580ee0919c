//! What a world needs to read answers outside of the state machine.

use super::ReadAnswer;
use bytes::Bytes;
use std::collections::VecDeque;
use tidelog_wire::{ApiKey, RequestBody, RequestHeader, decode_response};

/// The answers that the other end of a connection still owes, in the order in which they come: the order of the
/// requests. An answer does not say what it answers.
#[derive(Debug, Default)]
pub struct Owed(VecDeque<(ApiKey, i16)>);

impl Owed {
    /// A request is sent.
    pub fn asked(&mut self, header: &RequestHeader, body: &RequestBody) {
        if body.is_answered() {
            self.0.push_back((header.api_key, header.api_version));
        }
    }

    /// What the next answer is one to, and in which version. `None`: no answer is owed.
    pub fn take_next(&mut self) -> Option<(ApiKey, i16)> {
        self.0.pop_front()
    }

    /// Reads the next answer from a frame without its four length bytes. `None`: no answer is owed, so that the
    /// connection must be closed.
    pub fn read(&mut self, frame: Bytes) -> Option<ReadAnswer> {
        self.take_next().map(|(api_key, version)| decode_response(api_key, version, frame))
    }
}
