//! DescribeCluster: the brokers of the cluster or, asked at a listener of controllers, its controllers (KIP-700, KIP-919).

use crate::api::{CLUSTER_OPERATIONS, Parts, Ticket};
use crate::io::Outbox;
use crate::wire::messages::describe_cluster_request::DescribeClusterRequest;
use crate::wire::messages::describe_cluster_response::{DescribeClusterBroker, DescribeClusterResponse};
use crate::wire::{ErrorCode, ResponseBody};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub fn handle(parts: &mut Parts, ticket: Ticket, request: DescribeClusterRequest, out: &mut Outbox) {
    let at_controller = parts.is_controller_listener(ticket.listener);
    let response = match request.endpoint_type {
        BROKERS if !at_controller => {
            described(parts, &request, parts.config.node_id.0, brokers(parts, ticket.listener))
        }
        CONTROLLERS if at_controller => {
            let active = parts.quorum().leader().map_or(-1, |leader| leader.0);
            described(parts, &request, active, controllers(parts, ticket.listener))
        }
        BROKERS | CONTROLLERS => {
            let wanted = if request.endpoint_type == BROKERS { "BROKER" } else { "CONTROLLER" };
            let sent_to = if at_controller { "CONTROLLER" } else { "BROKER" };
            let text = format!(
                "The request was sent to an endpoint of type {sent_to}, but we wanted an endpoint of type {wanted}"
            );
            refused(&request, ErrorCode::MismatchedEndpointType, text)
        }
        other => {
            let text = format!("Unsupported endpoint type {other}");
            refused(&request, ErrorCode::UnsupportedEndpointType, text)
        }
    };
    parts.replies.answer(ticket, ResponseBody::DescribeCluster(response), out);
}

fn described(
    parts: &Parts,
    request: &DescribeClusterRequest,
    controller_id: i32,
    nodes: Vec<DescribeClusterBroker>,
) -> DescribeClusterResponse {
    DescribeClusterResponse {
        endpoint_type: request.endpoint_type,
        cluster_id: parts.cluster_id.clone(),
        controller_id,
        brokers: nodes,
        cluster_authorized_operations: match request.include_cluster_authorized_operations {
            true => CLUSTER_OPERATIONS,
            false => i32::MIN,
        },
        ..Default::default()
    }
}

fn refused(request: &DescribeClusterRequest, error: ErrorCode, text: String) -> DescribeClusterResponse {
    DescribeClusterResponse {
        error_code: error.code(),
        error_message: Some(text.into()),
        endpoint_type: request.endpoint_type,
        ..Default::default()
    }
}

fn brokers(parts: &Parts, listener: u16) -> Vec<DescribeClusterBroker> {
    let endpoints = parts.endpoints(listener).into_iter();
    endpoints
        .map(|endpoint| DescribeClusterBroker {
            broker_id: endpoint.node.0,
            host: endpoint.host,
            port: endpoint.port.into(),
            rack: endpoint.rack,
            ..Default::default()
        })
        .collect()
}

/// The registered controllers that can be reached at a listener of this name.
fn controllers(parts: &Parts, listener: u16) -> Vec<DescribeClusterBroker> {
    let name = &parts.config.listeners[usize::from(listener)].name;
    let registered = parts.image.controllers();
    registered
        .filter_map(|controller| {
            let endpoint = controller.end_points.iter().find(|endpoint| *endpoint.name == **name)?;
            Some(DescribeClusterBroker {
                broker_id: controller.controller_id,
                host: endpoint.host.clone(),
                port: endpoint.port.into(),
                ..Default::default()
            })
        })
        .collect()
}
