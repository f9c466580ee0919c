//! DescribeCluster: the brokers of the cluster, or its controllers (KIP-700, KIP-919).

use crate::api::{CLUSTER_OPERATIONS, Parts, Ticket};
use crate::io::Outbox;
use crate::wire::messages::describe_cluster_request::DescribeClusterRequest;
use crate::wire::messages::describe_cluster_response::{DescribeClusterBroker, DescribeClusterResponse};
use crate::wire::{ErrorCode, ResponseBody};

const BROKERS: i8 = 1;

pub fn handle(parts: &mut Parts, ticket: Ticket, request: DescribeClusterRequest, out: &mut Outbox) {
    let response = if request.endpoint_type == BROKERS {
        DescribeClusterResponse {
            cluster_id: parts.cluster_id.clone(),
            controller_id: parts.config.node_id.0,
            brokers: parts
                .endpoints(ticket.listener)
                .into_iter()
                .map(|endpoint| DescribeClusterBroker {
                    broker_id: endpoint.node.0,
                    host: endpoint.host,
                    port: endpoint.port.into(),
                    rack: endpoint.rack,
                    ..Default::default()
                })
                .collect(),
            cluster_authorized_operations: match request.include_cluster_authorized_operations {
                true => CLUSTER_OPERATIONS,
                false => i32::MIN,
            },
            ..Default::default()
        }
    } else {
        let (error, text) = match request.endpoint_type {
            2 => (ErrorCode::MismatchedEndpointType, "The request was sent to an endpoint of the wrong type."),
            _ => (ErrorCode::UnsupportedEndpointType, "The endpoint type is unknown: 1 asks for brokers."),
        };
        DescribeClusterResponse {
            error_code: error.code(),
            error_message: Some(text.into()),
            endpoint_type: request.endpoint_type,
            ..Default::default()
        }
    };
    parts.replies.answer(ticket, ResponseBody::DescribeCluster(response), out);
}
