//! The errors of clients, which say what was tried, on what, and how it ended. Also tells which of Kafka's error codes
//! are temporary.

use super::RequestFailure;
use bytestring::ByteString;
use tidelog_wire::{ApiKey, ErrorCode};

/// Why a call of an application failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// A broker answered with an error.
    #[error("{} of {place} was answered with {error}{}", api.name(), text(message))]
    Refused { api: ApiKey, place: String, error: ErrorCode, message: Option<ByteString> },
    /// No answer came. The broker may have carried out the request or not.
    #[error("{} of {place}: {failure}", api.name())]
    Lost { api: ApiKey, place: String, failure: RequestFailure },
    /// The time that the configuration allows has passed.
    #[error("{what} was not done within {limit} = {ms} ms{}", because(last))]
    TimedOut { what: String, limit: &'static str, ms: i64, last: Option<String> },
    /// The application's call is not allowed.
    #[error("{what}: {allowed}")]
    Invalid { what: String, allowed: String },
    /// A broker's answer is wrong or incomplete.
    #[error("{} of {place}: {text}", api.name())]
    Malformed { api: ApiKey, place: String, text: String },
}

fn text(message: &Option<ByteString>) -> String {
    message.as_ref().map_or(String::new(), |message| format!(": {message}"))
}

fn because(last: &Option<String>) -> String {
    last.as_ref().map_or(String::new(), |last| format!("; the last attempt: {last}"))
}

impl ClientError {
    pub(super) fn refused(api: ApiKey, place: impl ToString, code: i16, message: Option<ByteString>) -> Self {
        let error = ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError);
        let message = message.filter(|message| !message.is_empty());
        Self::Refused { api, place: place.to_string(), error, message }
    }

    /// The broker's error code, if a broker answered.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { error, .. } => Some(*error),
            _ => None,
        }
    }
}

/// Whether the same request may succeed later: the errors that are `RetriableException`s in Kafka.
pub fn is_retriable(error: ErrorCode) -> bool {
    use ErrorCode::*;
    is_invalid_metadata(error)
        || matches!(
            error,
            CorruptMessage
                | RequestTimedOut
                | CoordinatorLoadInProgress
                | CoordinatorNotAvailable
                | NotCoordinator
                | NotEnoughReplicas
                | NotEnoughReplicasAfterAppend
                | NotController
                | ConcurrentTransactions
                | FetchSessionIdNotFound
                | InvalidFetchSessionEpoch
                | FetchSessionTopicIdError
                | UnknownLeaderEpoch
                | OffsetNotAvailable
                | PreferredLeaderNotAvailable
                | EligibleLeadersNotAvailable
                | UnstableOffsetCommit
                | ThrottlingQuotaExceeded
        )
}

/// Whether the client's metadata may be out of date: the errors that are `InvalidMetadataException`s in Kafka. All of
/// them are retriable.
pub fn is_invalid_metadata(error: ErrorCode) -> bool {
    use ErrorCode::*;
    matches!(
        error,
        UnknownTopicOrPartition
            | LeaderNotAvailable
            | NotLeaderOrFollower
            | ReplicaNotAvailable
            | NetworkException
            | KafkaStorageError
            | ListenerNotFound
            | FencedLeaderEpoch
            | UnknownTopicId
            | InconsistentTopicId
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_and_how_it_ended() {
        let refused = ClientError::refused(ApiKey::Produce, "t-0", 10, Some("1048588 is the most".into()));
        insta::assert_snapshot!(refused, @"Produce of t-0 was answered with MESSAGE_TOO_LARGE: 1048588 is the most");
        let lost = ClientError::Lost { api: ApiKey::Fetch, place: "t-1".into(), failure: RequestFailure::Disconnected };
        insta::assert_snapshot!(lost, @"Fetch of t-1: the connection was lost before the answer came");
        let late = ClientError::TimedOut {
            what: "a record for t-0".into(),
            limit: "delivery.timeout.ms",
            ms: 120_000,
            last: Some(lost.to_string()),
        };
        insta::assert_snapshot!(late, @"a record for t-0 was not done within delivery.timeout.ms = 120000 ms; the last attempt: Fetch of t-1: the connection was lost before the answer came");
    }

    #[test]
    fn errors_about_metadata_are_retriable_and_errors_about_the_request_are_not() {
        assert!(is_retriable(ErrorCode::NotLeaderOrFollower) && is_invalid_metadata(ErrorCode::NotLeaderOrFollower));
        assert!(is_retriable(ErrorCode::NotEnoughReplicas) && !is_invalid_metadata(ErrorCode::NotEnoughReplicas));
        for error in [ErrorCode::MessageTooLarge, ErrorCode::UnknownServerError, ErrorCode::InvalidRequest] {
            assert!(!is_retriable(error), "{error}");
        }
    }
}
