//! Answers that wait until the metadata log has what they tell.

use crate::api::{Parts, Ticket, init_producer_id, metadata};
use crate::controller;
use crate::ids::Offset;
use crate::io::Outbox;
use crate::time::Now;
use crate::wire::messages::{BeginTransactionRecord, EndTransactionRecord, MetadataRequest};
use crate::wire::{ErrorCode, MetadataRecord, ResponseBody};
use bytes::Bytes;
use bytestring::ByteString;
use std::collections::VecDeque;

/// What to do once the records are committed and in the image.
#[derive(Debug)]
pub enum AfterCommit {
    Answer {
        ticket: Ticket,
        body: Box<ResponseBody>,
    },
    /// A Metadata request created topics on its way.
    Metadata {
        ticket: Ticket,
        request: MetadataRequest,
        refused: Vec<(ByteString, ErrorCode)>,
    },
    ProducerIds {
        first: i64,
        end: i64,
    },
    /// This broker is registered, under this epoch.
    Registered {
        broker_epoch: i64,
    },
    Nothing,
}

/// In the order of their offsets.
#[derive(Debug, Default)]
pub struct Commits {
    /// With each the offset that must be committed: the last of its records.
    waiting: VecDeque<(Offset, AfterCommit)>,
}

impl Commits {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Parts {
    /// Proposes the records of one decision; `after` follows their commit. Where there are none, it follows the commit
    /// of all that the decision was made from: nobody must hear of what a crash may still undo.
    pub fn commit(&mut self, now: Now, mut records: Vec<MetadataRecord>, after: AfterCommit, out: &mut Outbox) {
        if records.is_empty() {
            return match self.commits.waiting.back() {
                Some((last, _)) => self.commits.waiting.push_back((*last, after)),
                None => self.finish(now, after, out),
            };
        }
        for record in &records {
            self.proposed.apply(record).expect("a decision fits the image that it was made from");
        }
        let version = self.proposed.metadata_version();
        let encode = |record: &MetadataRecord| controller::records::encode(record, version);
        let mut values: Vec<Bytes> = records.iter().map(encode).collect();
        if controller::records::has_transactions(version) && !self.quorum().fits_one_batch(&values) {
            // KIP-868: all of it or nothing, wherever a crash cuts.
            let (begin, end) = (BeginTransactionRecord::default().into(), EndTransactionRecord::default().into());
            values.insert(0, encode(&begin));
            values.push(encode(&end));
            records.insert(0, begin);
            records.push(end);
        }
        // A metadata log that cannot be written has said so by an event of its own, which ends the broker.
        if let Ok(last) = self.quorum().propose(now, records, &values, out) {
            self.commits.waiting.push_back((last, after));
        }
    }

    /// What was waiting for the image to reach `self.committed`.
    pub fn take_committed(&mut self) -> Vec<AfterCommit> {
        let waiting = &mut self.commits.waiting;
        let done = waiting.partition_point(|(last, _)| *last < self.committed);
        waiting.drain(..done).map(|(_, after)| after).collect()
    }

    pub fn finish(&mut self, now: Now, after: AfterCommit, out: &mut Outbox) {
        match after {
            AfterCommit::Answer { ticket, body } => self.replies.answer(ticket, *body, out),
            AfterCommit::Metadata { ticket, request, refused } => {
                metadata::answer(self, ticket, &request, &refused, out);
            }
            AfterCommit::ProducerIds { first, end } => init_producer_id::block_taken(self, now, first, end, out),
            AfterCommit::Registered { broker_epoch } => self.broker_epoch = broker_epoch,
            AfterCommit::Nothing => {}
        }
    }
}
