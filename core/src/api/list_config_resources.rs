//! ListConfigResources: which resources have configs or may have some (KIP-1142). Version 0 lists only client metrics
//! (KIP-1000).

use crate::api::{Parts, Ticket};
use crate::controller::ResourceKind;
use crate::io::Outbox;
use crate::wire::messages::ListConfigResourcesRequest;
use crate::wire::messages::list_config_resources_response::{ConfigResource, ListConfigResourcesResponse};
use crate::wire::{ErrorCode, ResponseBody};
use bytestring::ByteString;

/// The kinds of resources, in the order in which Kafka lists them.
const KINDS: [ResourceKind; 5] = [
    ResourceKind::Group,
    ResourceKind::ClientMetrics,
    ResourceKind::BrokerLogger,
    ResourceKind::Broker,
    ResourceKind::Topic,
];

pub fn handle(parts: &mut Parts, ticket: Ticket, request: ListConfigResourcesRequest, out: &mut Outbox) {
    let supported: &[ResourceKind] = if ticket.api_version == 0 { &[ResourceKind::ClientMetrics] } else { &KINDS };
    let wanted: Vec<ResourceKind> = match request.resource_types.as_slice() {
        [] => supported.to_vec(),
        codes => codes.iter().map(|code| ResourceKind::from_code(*code)).collect(),
    };
    let response = if wanted.iter().all(|kind| supported.contains(kind)) {
        let listed = KINDS.iter().filter(|kind| wanted.contains(kind)).flat_map(|kind| {
            names(parts, *kind).into_iter().map(|resource_name| ConfigResource {
                resource_name,
                resource_type: kind.code(),
                ..Default::default()
            })
        });
        ListConfigResourcesResponse { config_resources: listed.collect(), ..Default::default() }
    } else {
        let error_code = ErrorCode::UnsupportedVersion.code();
        ListConfigResourcesResponse { error_code, ..Default::default() }
    };
    parts.replies.answer(ticket, ResponseBody::ListConfigResources(response), out);
}

fn names(parts: &Parts, kind: ResourceKind) -> Vec<ByteString> {
    match kind {
        ResourceKind::Topic => parts.image.topics_by_name().map(|topic| topic.name.clone()).collect(),
        ResourceKind::Broker | ResourceKind::BrokerLogger => {
            let up = parts.image.brokers().filter(|broker| !broker.fenced);
            up.map(|broker| broker.broker_id.to_string().into()).collect()
        }
        // A resource of these kinds exists as soon as it has a config.
        ResourceKind::Group | ResourceKind::ClientMetrics | ResourceKind::Other(_) => {
            let of_kind = parts.image.resources().filter(|resource| resource.kind == kind);
            of_kind.map(|resource| resource.name.as_str().into()).collect()
        }
    }
}
