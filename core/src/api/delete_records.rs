//! DeleteRecords: move the start of partitions forward.

use crate::api::{Parts, Ticket};
use crate::ids::Offset;
use crate::io::Outbox;
use crate::storage::CheckpointKind;
use crate::time::Now;
use crate::wire::messages::delete_records_request::DeleteRecordsRequest;
use crate::wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use crate::wire::{ErrorCode, ResponseBody};

/// Stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

pub fn handle(parts: &mut Parts, now: Now, ticket: Ticket, request: DeleteRecordsRequest, out: &mut Outbox) {
    let mut moved = false;
    let topics = request
        .topics
        .into_iter()
        .map(|topic| DeleteRecordsTopicResult {
            partitions: topic
                .partitions
                .iter()
                .map(|asked| {
                    let outcome = parts.leader_of(&topic.name, asked.partition_index, -1).and_then(|partition| {
                        if !partition.allows_delete_records() {
                            return Err(ErrorCode::PolicyViolation);
                        }
                        let target = match asked.offset {
                            HIGH_WATERMARK => partition.high_watermark(),
                            offset => Offset(offset),
                        };
                        if target < Offset::ZERO || target > partition.high_watermark() {
                            return Err(ErrorCode::OffsetOutOfRange);
                        }
                        partition.delete_records(now, target, out);
                        Ok(partition.log().log_start_offset())
                    });
                    moved |= outcome.is_ok();
                    DeleteRecordsPartitionResult {
                        partition_index: asked.partition_index,
                        low_watermark: outcome.map_or(-1, |start| start.0),
                        error_code: outcome.err().map_or(0, ErrorCode::code),
                        ..Default::default()
                    }
                })
                .collect(),
            name: topic.name,
            ..Default::default()
        })
        .collect();
    if moved {
        // A crash must not bring back what was deleted, so the new starts do not wait for the next checkpoint.
        parts.checkpoint(CheckpointKind::LogStart, out);
    }
    let response = DeleteRecordsResponse { topics, ..Default::default() };
    parts.replies.answer(ticket, ResponseBody::DeleteRecords(response), out);
}
