//! What a leader does with a batch that a producer sends.

use crate::Until;
use crate::partition::{Partition, Role};
use tidelog_batch::{BatchError, BatchHeader, Checked, Codec};
use tidelog_storage::io::Outbox;
use tidelog_storage::{Append, AppendError};
use tidelog_wire::ErrorCode;
use tidelog_wire::ids::{LeaderEpoch, Offset, PendingId};
use tidelog_wire::time::{Now, WallMs};

use crate::waiting::ResponsePlace;

/// A batch as a Produce request brings it.
#[derive(Debug)]
pub struct ProducedBatch {
    pub acks: i16,
    /// Whether the client may write to internal topics.
    pub is_admin: bool,
    pub checked: Checked,
    /// The size of the batch as it arrived, also of a batch that the check has refused.
    pub size_bytes: usize,
}

/// Where a produced batch stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub log_append_time: Option<WallMs>,
    pub log_start_offset: Offset,
    /// Whether the batch can be acknowledged at once: it is a retry of one that is where the producer wants it.
    pub done: bool,
}

/// Why a batch was not appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub error: ErrorCode,
    pub text: Option<String>,
    /// The records because of which the batch was refused: the index in the batch, and the reason.
    pub records: Vec<(i32, Option<String>)>,
    /// Where the log starts, if the batch was refused for what is in it. Else [`Offset::UNKNOWN`], as in Kafka.
    pub log_start_offset: Offset,
}

impl From<ErrorCode> for Refused {
    fn from(error: ErrorCode) -> Self {
        Self { error, text: None, records: Vec::new(), log_start_offset: Offset::UNKNOWN }
    }
}

impl Partition {
    /// Appends one checked batch of a producer.
    pub fn append_as_leader(&mut self, now: Now, batch: ProducedBatch, out: &mut Outbox) -> Result<Accepted, Refused> {
        self.counters.produce_requests += 1;
        let appended = self
            .check_request(&batch)
            .and_then(|()| self.append_checked(now, batch, out).map_err(|refused| self.with_log_start(refused)));
        appended.inspect_err(|refused| self.counters.refused(refused.error))
    }

    /// The checks that do not look into the batch, in Kafka's order.
    fn check_request(&mut self, batch: &ProducedBatch) -> Result<(), Refused> {
        if let Err(error) = &batch.checked
            && error.breaks_request_rules()
        {
            self.counters.invalid_batch(error);
            return Err(error.clone().into());
        }
        if !(-1..=1).contains(&batch.acks) {
            return Err(ErrorCode::InvalidRequiredAcks.into());
        }
        if self.rules.is_internal && !batch.is_admin {
            let text = format!("Cannot append to internal topic {}", self.topic);
            return Err(Refused { text: Some(text), ..ErrorCode::InvalidTopicException.into() });
        }
        self.check_leader(LeaderEpoch::UNKNOWN).map_err(Refused::from)
    }

    /// Says where the log starts, for an error with which Kafka says it.
    fn with_log_start(&self, refused: Refused) -> Refused {
        match refused.error {
            ErrorCode::MessageTooLarge
            | ErrorCode::RecordListTooLarge
            | ErrorCode::CorruptMessage
            | ErrorCode::KafkaStorageError => refused,
            _ => Refused { log_start_offset: self.log.log_start_offset(), ..refused },
        }
    }

    fn append_checked(&mut self, now: Now, produced: ProducedBatch, out: &mut Outbox) -> Result<Accepted, Refused> {
        let acks = produced.acks;
        if acks == -1 && !self.has_enough_in_sync() {
            return Err(ErrorCode::NotEnoughReplicas.into());
        }
        let counters = &mut self.counters;
        let mut invalid = |error: BatchError| {
            counters.invalid_batch(&error);
            Refused::from(error)
        };
        self.rules.batch.check_size(produced.size_bytes).map_err(&mut invalid)?;
        let mut batch = produced.checked.map_err(&mut invalid)?;
        let bytes = produced.size_bytes;
        if batch.header().is_transactional() {
            // No transaction can be open, because there is no transaction coordinator yet.
            return Err(ErrorCode::InvalidTxnState.into());
        }
        batch.fits_topic(&self.rules.batch, now.wall).map_err(&mut invalid)?;
        if let Some((codec, level)) = self.rules.compression
            && batch.header().codec()? != codec
        {
            if codec == Codec::None {
                // Before there are so many bytes.
                let size = BatchHeader::LEN as u64 + batch.facts().uncompressed_bytes;
                self.rules.batch.check_size(size as usize).map_err(&mut invalid)?;
            }
            batch = batch.recompress(codec, level);
            batch.fits_topic(&self.rules.batch, now.wall).map_err(&mut invalid)?;
        }
        let appended = self.log.append(now, Append::Produced(&batch), self.leader_epoch, out);
        let appended = appended.inspect_err(|error| self.counters.not_appended(error))?;
        if !appended.duplicate {
            self.counters.messages_in += (appended.last_offset + 1 - appended.base_offset) as u64;
            self.counters.bytes_in += bytes as u64;
        }
        Ok(Accepted {
            base_offset: appended.base_offset,
            last_offset: appended.last_offset,
            log_append_time: appended.log_append_time,
            log_start_offset: self.log.log_start_offset(),
            done: appended.last_offset < self.acknowledged_end(acks),
        })
    }

    /// Up to where a producer with these `acks` may be answered.
    fn acknowledged_end(&self, acks: i16) -> Offset {
        if acks == -1 { self.high_watermark } else { self.log.stable_offset() }
    }

    /// Whether so many replicas are in sync as `min.insync.replicas` asks for.
    fn has_enough_in_sync(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        leader.isr().committed().len() >= self.min_in_sync()
    }

    /// Makes the Produce request `id` wait until everything up to `last_offset` is where a producer with these `acks` wants
    /// it. Then [`PartitionEvent::AnswerDone`](crate::PartitionEvent::AnswerDone) comes with `place`.
    pub fn acknowledge_later(&mut self, acks: i16, last_offset: Offset, id: PendingId, place: ResponsePlace) {
        let until = if acks == -1 { Until::Committed } else { Until::Stable };
        self.waiting.answer_later(until, last_offset, id, place);
    }
}

impl From<BatchError> for Refused {
    fn from(error: BatchError) -> Self {
        let records = error.record_errors().iter();
        Self {
            error: error.error_code(),
            text: Some(error.to_string()),
            records: records.map(|record| (record.batch_index, Some(record.message.clone()))).collect(),
            log_start_offset: Offset::UNKNOWN,
        }
    }
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Self {
        Self { text: Some(error.to_string()), ..error.error_code().into() }
    }
}
