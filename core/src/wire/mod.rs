//! Kafka's wire format: frames, headers, the version table, the generated codec, error codes.
//! Pure functions between bytes and messages.

use crate::ids::FileId;

/// A part of an open file that a response carries by name, so that a world can use `sendfile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSlice {
    pub file: FileId,
    pub position: u64,
    pub len: u32,
}

// Placeholders until the generated codec lands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKey {}
#[derive(Debug)]
pub struct RequestHeader {}
#[derive(Debug)]
pub enum RequestBody {}
#[derive(Debug)]
pub enum ResponseBody {}
