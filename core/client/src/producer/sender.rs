//! The requests of a producer and their answers: getting an identity, sending batches, and retries.

use super::batch::{Batch, BatchOrder};
use super::partition::{Identity, Partition, RetryKind};
use super::{Event, Producer};
use crate::error::{ClientError, is_invalid_metadata, is_retriable};
use crate::{Outbox, Reply, RequestFailure, TopicPartition};
use bytestring::ByteString;
use std::collections::BTreeMap;
use tidelog_batch::Codec;
use tidelog_wire::ids::{LinkId, NodeId, ProducerId, Uuid};
use tidelog_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use tidelog_wire::messages::produce_response::PartitionProduceResponse;
use tidelog_wire::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse};
use tidelog_wire::time::{Mono, Now};
use tidelog_wire::{ApiKey, ErrorCode, ResponseBody};

/// What a request was for.
#[derive(Clone, Debug)]
pub enum Tag {
    Identity,
    Produce(Vec<Sent>),
}

/// A batch that is in a request.
#[derive(Clone, Debug)]
pub struct Sent {
    topic_id: Uuid,
    partition: TopicPartition,
    order: BatchOrder,
}

/// The producer's id and epoch, and the request for them.
#[derive(Debug, Default)]
pub struct IdentityState {
    pub known: Option<Identity>,
    /// Whether an InitProducerId request is in flight.
    asked: bool,
    retry_at: Mono,
    failures: u32,
    /// Whether the next epoch must be taken, because the sequences of a partition begin with 0 again.
    bump: bool,
}

impl Producer {
    // The identity.

    pub(super) fn wants_identity(&self) -> bool {
        self.config.enable_idempotence && self.identity.known.is_none() && !self.identity.asked && !self.is_idle()
    }

    /// When the identity may be asked for again.
    pub(super) fn identity_moment(&self) -> Option<Mono> {
        (self.identity.retry_at > Mono::ZERO).then_some(self.identity.retry_at)
    }

    pub(super) fn pump_identity(&mut self, now: Now, out: &mut Outbox<Event>) {
        if !self.wants_identity() || now.mono < self.identity.retry_at {
            return;
        }
        let Some(link) = self.cluster.any_connection(now, out) else { return };
        let Some(version) = self.cluster.version(link, ApiKey::InitProducerId, 0..=5) else {
            return self.lose_identity(now, ErrorCode::UnsupportedVersion, out);
        };
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            ..InitProducerIdRequest::default()
        };
        self.identity.asked = true;
        self.identity.retry_at = Mono::ZERO;
        self.cluster.send(now, link, version, request.into(), Tag::Identity, out);
    }

    fn handle_identity(&mut self, now: Now, result: Result<ResponseBody, RequestFailure>, out: &mut Outbox<Event>) {
        self.identity.asked = false;
        match result {
            Ok(ResponseBody::InitProducerId(response)) if response.error_code == 0 => {
                let identity = Identity { id: ProducerId(response.producer_id), epoch: response.producer_epoch };
                self.identity.known = Some(identity);
                self.identity.failures = 0;
            }
            Ok(ResponseBody::InitProducerId(response)) => {
                let error = ErrorCode::from_code(response.error_code).unwrap_or(ErrorCode::UnknownServerError);
                self.lose_identity(now, error, out);
            }
            _ => self.lose_identity(now, ErrorCode::NetworkException, out),
        }
    }

    fn lose_identity(&mut self, now: Now, error: ErrorCode, out: &mut Outbox<Event>) {
        self.identity.failures += 1;
        let pause_ms = self.cluster.retry_pause_ms(self.identity.failures);
        self.identity.retry_at = now.mono.plus_ms(pause_ms);
        if is_retriable(error) || error == ErrorCode::UnknownServerError {
            return;
        }
        // The error is not temporary: all batches that wait for an identity fail.
        let refused = ClientError::refused(ApiKey::InitProducerId, "an idempotent producer", error.code(), None);
        for (name, topic) in &mut self.topics {
            for (partition, index) in topic.partitions.iter_mut().zip(0..) {
                for batch in partition.queue.drain(..) {
                    self.buffered_bytes -= batch.buffered_bytes;
                    let partition = Some(TopicPartition::new(name.clone(), index));
                    out.event(Event::Failed { partition, records: batch.record_ids, error: refused.clone() });
                }
            }
        }
    }

    /// Restarts the sequences of partitions in which batches of unknown fate were given up, under the next epoch.
    pub(super) fn resolve_sequences(&mut self) {
        if !self.config.enable_idempotence {
            return;
        }
        let mut bump = std::mem::take(&mut self.identity.bump);
        for partition in self.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
            if partition.resolve() {
                partition.ask_for_restart();
                bump = true;
            }
        }
        if bump {
            // Without transactions a producer may raise its epoch by itself (KIP-360). After the greatest epoch it asks
            // for a new id.
            let next = |it: Identity| Some(Identity { epoch: it.epoch.checked_add(1)?, ..it });
            self.identity.known = self.identity.known.and_then(next);
        }
        let Some(identity) = self.identity.known else { return };
        for partition in self.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
            partition.restart_if_quiet(identity);
        }
    }

    // Requests.

    /// Sends one request to each broker for which a batch is ready. Returns whether any was sent.
    pub(super) fn send_round(&mut self, now: Now, out: &mut Outbox<Event>) -> bool {
        let mut by_node: BTreeMap<NodeId, Vec<TopicPartition>> = BTreeMap::new();
        let mut leaderless = false;
        for (name, topic) in &self.topics {
            for (partition, index) in topic.partitions.iter().zip(0..) {
                let is_ready = self.ready_at(name, index, partition).is_some_and(|ready_at| ready_at <= now.mono);
                if !is_ready || self.must_wait(partition) {
                    continue;
                }
                match self.cluster.metadata.leader_node(name, index) {
                    Some(node) => by_node.entry(node).or_default().push(TopicPartition::new(name.clone(), index)),
                    None => leaderless = true,
                }
            }
        }
        if leaderless {
            self.cluster.request_update(now.mono);
        }
        self.rotation = self.rotation.wrapping_add(1);
        let mut any = false;
        for (node, mut partitions) in by_node {
            let Some(link) = self.cluster.connection_to(now, node, out) else { continue };
            if self.cluster.in_flight(link) < self.config.max_in_flight_requests_per_connection {
                let first = self.rotation % partitions.len();
                partitions.rotate_left(first);
                any |= self.send_request(now, link, partitions, out);
            }
        }
        any
    }

    fn must_wait(&self, partition: &Partition) -> bool {
        if self.config.enable_idempotence {
            partition.must_wait(self.identity.known)
        } else {
            // With one request at a time the order is kept, even if the partition moves to another broker.
            self.config.max_in_flight_requests_per_connection == 1 && !partition.in_flight.is_empty()
        }
    }

    fn send_request(
        &mut self,
        now: Now,
        link: LinkId,
        partitions: Vec<TopicPartition>,
        out: &mut Outbox<Event>,
    ) -> bool {
        let ids_known = partitions.iter().all(|it| self.cluster.metadata.topic_id(&it.topic) != Uuid::ZERO);
        // KIP-110: zstd since version 7; KIP-516: topics by id since version 13.
        let oldest = if self.config.compression == Codec::Zstd { 7 } else { 3 };
        let newest = if ids_known { 13 } else { 12 };
        let Some(version) = self.cluster.version(link, ApiKey::Produce, oldest..=newest) else {
            self.refuse_version(&partitions, out);
            return false;
        };
        let format = self.format();
        let mut sent = Vec::new();
        let mut size = 0;
        let mut topics: BTreeMap<ByteString, Vec<PartitionProduceData>> = BTreeMap::new();
        for it in partitions {
            let epoch = self.cluster.metadata.leader(&it.topic, it.partition).map(|leader| leader.epoch);
            let topic_id = self.cluster.metadata.topic_id(&it.topic);
            let topic = self.topics.get_mut(&it.topic).expect("the topic has a batch");
            let partition = &mut topic.partitions[it.partition as usize];
            let fits = |batch: &mut Batch| size == 0 || size + batch.size_bytes() <= self.config.max_request_size_bytes;
            let Some(mut batch) = partition.queue.pop_front_if(fits) else { continue };
            if let Some(identity) = self.identity.known.filter(|_| self.config.enable_idempotence) {
                partition.assign(&mut batch, identity);
            }
            let bytes = batch.bytes(format);
            batch.restarted = false;
            batch.attempts += 1;
            batch.last_attempt = now.mono;
            batch.tried_epoch = epoch.unwrap_or(tidelog_wire::ids::LeaderEpoch::UNKNOWN);
            size += bytes.len();
            let data = PartitionProduceData { index: it.partition, records: Some(bytes.into()), ..Default::default() };
            topics.entry(it.topic.clone()).or_default().push(data);
            sent.push(Sent { topic_id, partition: it, order: batch.order });
            partition.in_flight.push(batch);
        }
        let topic = |(name, partition_data): (ByteString, Vec<PartitionProduceData>)| {
            let topic_id = self.cluster.metadata.topic_id(&name);
            let (name, topic_id) = if version >= 13 { (ByteString::new(), topic_id) } else { (name, Uuid::ZERO) };
            TopicProduceData { name, topic_id, partition_data, ..Default::default() }
        };
        let request = ProduceRequest {
            acks: self.config.acks,
            timeout_ms: i32::try_from(self.config.common.request_timeout_ms).unwrap_or(i32::MAX),
            topic_data: topics.into_iter().map(topic).collect(),
            ..ProduceRequest::default()
        };
        if self.config.acks != 0 {
            self.cluster.send(now, link, version, request.into(), Tag::Produce(sent), out);
            return true;
        }
        self.cluster.send_without_answer(now, link, version, request.into(), out);
        for Sent { partition, order, .. } in sent {
            let batch = self.take(&partition, order).expect("the batch was sent just now");
            self.deliver(partition, batch, None, None, out);
        }
        true
    }

    fn refuse_version(&mut self, partitions: &[TopicPartition], out: &mut Outbox<Event>) {
        let code = ErrorCode::UnsupportedVersion.code();
        for it in partitions {
            let refused = ClientError::refused(ApiKey::Produce, it, code, None);
            let topic = self.topics.get_mut(&it.topic).expect("the topic has a batch");
            let Some(batch) = topic.partitions[it.partition as usize].queue.pop_front() else { continue };
            self.buffered_bytes -= batch.buffered_bytes;
            out.event(Event::Failed { partition: Some(it.clone()), records: batch.record_ids, error: refused });
        }
    }

    // Answers.

    pub(super) fn handle_reply(&mut self, now: Now, reply: Reply<Tag>, out: &mut Outbox<Event>) {
        match reply.tag {
            Tag::Identity => self.handle_identity(now, reply.result, out),
            Tag::Produce(sent) => match reply.result {
                Ok(ResponseBody::Produce(response)) => self.handle_produced(now, sent, &response, out),
                Ok(_) => unreachable!("the key says which response it is"),
                Err(failure) => {
                    for one in sent {
                        self.lose(now, one, failure.clone(), out);
                    }
                }
            },
        }
    }

    fn handle_produced(&mut self, now: Now, sent: Vec<Sent>, response: &ProduceResponse, out: &mut Outbox<Event>) {
        for one in sent {
            let of_topic = response.responses.iter().filter(|topic| {
                if topic.name.is_empty() { topic.topic_id == one.topic_id } else { topic.name == one.partition.topic }
            });
            let mut answers = of_topic.flat_map(|topic| &topic.partition_responses);
            match answers.find(|answer| answer.index == one.partition.partition) {
                Some(answer) => self.handle_answer(now, one, answer, out),
                None => {
                    let text = format!("the answer lacks {}", one.partition);
                    self.lose(now, one, RequestFailure::Malformed(text), out);
                }
            }
        }
    }

    fn take(&mut self, partition: &TopicPartition, order: BatchOrder) -> Option<Batch> {
        let topic = self.topics.get_mut(&partition.topic)?;
        topic.partitions[partition.partition as usize].take_in_flight(order)
    }

    fn partition(&mut self, partition: &TopicPartition) -> &mut Partition {
        let topic = self.topics.get_mut(&partition.topic).expect("a batch's topic is known");
        &mut topic.partitions[partition.partition as usize]
    }

    /// A batch got no answer. The broker may have appended it.
    fn lose(&mut self, now: Now, sent: Sent, failure: RequestFailure, out: &mut Outbox<Event>) {
        // A batch that was given up meanwhile needs no answer.
        let Some(mut batch) = self.take(&sent.partition, sent.order) else { return };
        self.cluster.request_update(now.mono);
        let error = ClientError::Lost { api: ApiKey::Produce, place: sent.partition.to_string(), failure };
        if batch.attempts > self.config.retries {
            self.partition(&sent.partition).leave_unresolved(&batch);
            return self.fail(sent.partition, batch, error, out);
        }
        batch.last_error = Some(error.to_string());
        batch.may_be_appended = true;
        self.retry(now, &sent.partition, batch);
    }

    fn retry(&mut self, now: Now, partition: &TopicPartition, mut batch: Batch) {
        batch.pause_ms = self.cluster.retry_pause_ms(batch.attempts);
        batch.last_attempt = now.mono;
        self.partition(partition).requeue(batch);
    }

    fn handle_answer(&mut self, now: Now, sent: Sent, answer: &PartitionProduceResponse, out: &mut Outbox<Event>) {
        let Sent { partition, order, .. } = sent;
        let Some(batch) = self.take(&partition, order) else { return };
        let error = ErrorCode::from_code(answer.error_code).unwrap_or(ErrorCode::UnknownServerError);
        match error {
            ErrorCode::None => {
                let offset = (answer.base_offset >= 0).then_some(answer.base_offset);
                let timestamp = (answer.log_append_time_ms >= 0).then_some(answer.log_append_time_ms);
                return self.deliver(partition, batch, offset, timestamp, out);
            }
            // The batch is in the log, and the broker no longer knows its offset.
            ErrorCode::DuplicateSequenceNumber => return self.deliver(partition, batch, None, None, out),
            ErrorCode::MessageTooLarge if batch.records_count() > 1 => {
                for part in batch.split(self.format()) {
                    self.partition(&partition).requeue(part);
                }
                return;
            }
            _ => {}
        }
        if is_invalid_metadata(error) {
            let leader = (answer.current_leader.leader_id, answer.current_leader.leader_epoch);
            self.cluster.leader_changed(now, &partition.topic, partition.partition, leader);
        }
        self.handle_refusal(now, partition, batch, error, answer, out);
    }

    fn handle_refusal(
        &mut self,
        now: Now,
        partition: TopicPartition,
        mut batch: Batch,
        error: ErrorCode,
        answer: &PartitionProduceResponse,
        out: &mut Outbox<Event>,
    ) {
        let refused = ClientError::refused(ApiKey::Produce, &partition, error.code(), answer.error_message.clone());
        let retry_kind = self.retry_kind(&partition, &batch, error, answer.log_start_offset);
        let has_attempts = batch.attempts <= self.config.retries;
        if retry_kind == Some(RetryKind::RestartAndRetry) {
            out.event(Event::SequenceRefused { partition: partition.clone(), error });
            if batch.may_be_appended {
                // Kafka's producer would send the batch again under the next epoch, and it could be in the log twice: a
                // broker that was restarted knows only the last batch of a producer, and refuses earlier ones.
                self.partition(&partition).leave_unresolved(&batch);
                return self.fail_by_record(partition, batch, refused, answer, out);
            }
        }
        batch.may_be_appended |= leaves_doubt(error);
        match retry_kind.filter(|_| has_attempts) {
            Some(retry_kind) => {
                if retry_kind == RetryKind::RestartAndRetry {
                    self.restart(&partition);
                }
                batch.last_error = Some(refused.to_string());
                self.retry(now, &partition, batch);
            }
            None => {
                if batch.sequence.is_some() {
                    if retry_kind.is_some() {
                        // The broker may have appended the batch at an earlier attempt.
                        self.partition(&partition).leave_unresolved(&batch);
                    } else {
                        // The batch is never sent again, so its sequences are missing: later batches need a new epoch.
                        self.restart(&partition);
                    }
                }
                self.fail_by_record(partition, batch, refused, answer, out);
            }
        }
    }

    fn restart(&mut self, partition: &TopicPartition) {
        if !self.partition(partition).is_restarting() {
            self.partition(partition).ask_for_restart();
            self.identity.bump = true;
        }
    }

    /// Whether and how a refused batch is sent again, as in Kafka's `TransactionManager.canRetry`.
    fn retry_kind(
        &mut self,
        partition: &TopicPartition,
        batch: &Batch,
        error: ErrorCode,
        log_start: i64,
    ) -> Option<RetryKind> {
        let state = self.partition(partition);
        match error {
            ErrorCode::OutOfOrderSequenceNumber if batch.sequence.is_some() => Some(state.judge_out_of_order(batch)),
            ErrorCode::UnknownProducerId if batch.sequence.is_some() => {
                let retry = log_start < 0 || batch.restarted || state.is_restarting();
                Some(if retry { RetryKind::Retry } else { RetryKind::RestartAndRetry })
            }
            _ => is_retriable(error).then_some(RetryKind::Retry),
        }
    }

    fn deliver(
        &mut self,
        partition: TopicPartition,
        batch: Batch,
        base_offset: Option<i64>,
        timestamp: Option<i64>,
        out: &mut Outbox<Event>,
    ) {
        self.partition(&partition).acknowledge(&batch, base_offset);
        self.buffered_bytes -= batch.buffered_bytes;
        out.event(Event::Delivered { partition, base_offset, timestamp, records: batch.record_ids });
    }

    fn fail(&mut self, partition: TopicPartition, batch: Batch, error: ClientError, out: &mut Outbox<Event>) {
        self.buffered_bytes -= batch.buffered_bytes;
        if !batch.record_ids.is_empty() {
            out.event(Event::Failed { partition: Some(partition), records: batch.record_ids, error });
        }
    }

    /// Fails a batch. The records that the broker has named get its error, and the other records of the batch another
    /// one (KIP-467).
    fn fail_by_record(
        &mut self,
        partition: TopicPartition,
        mut batch: Batch,
        error: ClientError,
        answer: &PartitionProduceResponse,
        out: &mut Outbox<Event>,
    ) {
        let ids = batch.record_ids.clone();
        for fault in &answer.record_errors {
            let Some(id) = usize::try_from(fault.batch_index).ok().and_then(|place| ids.get(place)) else { continue };
            batch.record_ids.retain(|other| other != id);
            let message = fault.batch_index_error_message.clone().or(answer.error_message.clone());
            let error = ClientError::refused(ApiKey::Produce, &partition, answer.error_code, message);
            out.event(Event::Failed { partition: Some(partition.clone()), records: vec![*id], error });
        }
        if answer.record_errors.is_empty() {
            return self.fail(partition, batch, error, out);
        }
        let text = "the record was in a batch with an invalid record";
        let error =
            ClientError::refused(ApiKey::Produce, &partition, ErrorCode::InvalidRecord.code(), Some(text.into()));
        self.fail(partition, batch, error, out);
    }
}

/// Whether a batch that was refused with this error may be in the log all the same.
fn leaves_doubt(error: ErrorCode) -> bool {
    use ErrorCode::*;
    !matches!(
        error,
        OutOfOrderSequenceNumber
            | UnknownProducerId
            | NotEnoughReplicas
            | UnknownTopicOrPartition
            | UnknownTopicId
            | InconsistentTopicId
            | CorruptMessage
            | ThrottlingQuotaExceeded
    )
}
