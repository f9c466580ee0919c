//! CreateTopics, DeleteTopics and CreatePartitions: the controller's decisions.

use crate::api::{Parts, configs, draw_bytes};
use crate::controller::{self, Decision};
use crate::io::Outbox;
use crate::wire::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse,
};

pub fn create(parts: &mut Parts, request: &CreateTopicsRequest, out: &mut Outbox) -> Decision<CreateTopicsResponse> {
    let Parts { controller, config, rng, .. } = parts;
    let active = controller.as_ref().expect("only a controller decides");
    let decision = controller::create_topics(active.proposed(), &active.context(config), request, || draw_bytes(rng));
    configs::warn_of_changes(&decision.records, out);
    decision
}

pub fn delete(parts: &Parts, version: i16, request: &DeleteTopicsRequest) -> Decision<DeleteTopicsResponse> {
    let (image, context) = parts.basis();
    controller::delete_topics(image, &context, request, version)
}

pub fn create_partitions(parts: &mut Parts, request: &CreatePartitionsRequest) -> Decision<CreatePartitionsResponse> {
    let Parts { controller, rng, .. } = parts;
    let active = controller.as_ref().expect("only a controller decides");
    controller::create_partitions(active.proposed(), request, || draw_bytes(rng))
}
