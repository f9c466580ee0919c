//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs.

use crate::api::{Parts, Ticket, loggers, refusal};
use crate::config::{self, Described, Warning};
use crate::controller::{
    self, ConfigOperation, ConfigResource, Decision, Refusal, ResourceKind, check_config_keys, validate_topic_name,
};
use crate::io::{Level, Outbox, Part};
use crate::wire::messages::describe_configs_request::DescribeConfigsResource;
use crate::wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use crate::wire::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use crate::wire::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};
use crate::wire::{ErrorCode, MetadataRecord, RequestBody, ResponseBody};
use bytestring::ByteString;
use std::collections::BTreeMap;

pub fn describe(parts: &mut Parts, ticket: Ticket, request: DescribeConfigsRequest, out: &mut Outbox) {
    let is_unknown = |resource: &DescribeConfigsResource| {
        matches!(ResourceKind::from_code(resource.resource_type), ResourceKind::Other(_))
    };
    if request.resources.iter().any(is_unknown) {
        let response = refused_whole(request);
        return parts.replies.answer(ticket, ResponseBody::DescribeConfigs(response), out);
    }
    let results = request
        .resources
        .iter()
        .map(|resource| {
            let mut result = DescribeConfigsResult {
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                ..Default::default()
            };
            match configs_of(parts, resource, &request) {
                Ok(configs) => {
                    let asked = |config: &DescribeConfigsResourceResult| match &resource.configuration_keys {
                        None => true,
                        // Kafka takes an empty list as "all", and clients send it.
                        Some(names) => names.is_empty() || names.contains(&config.name),
                    };
                    result.configs = configs.into_iter().filter(asked).collect();
                }
                Err(refusal) => {
                    result.error_code = refusal.error.code();
                    result.error_message = refusal.message;
                }
            }
            result
        })
        .collect();
    let response = DescribeConfigsResponse { results, ..Default::default() };
    parts.replies.answer(ticket, ResponseBody::DescribeConfigs(response), out);
}

/// As in Kafka, a resource of an unknown type refuses the whole request.
fn refused_whole(request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let results = request.resources.into_iter().map(|resource| {
        DescribeConfigsResult {
        error_code: ErrorCode::InvalidRequest.code(),
        error_message: Some(
            "This request names a resource of a type that does not exist; TOPIC (2), BROKER (4), BROKER_LOGGER (8) and \
             CLIENT_METRICS (16) are served."
                .into(),
        ),
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        ..Default::default()
    }
    });
    DescribeConfigsResponse { results: results.collect(), ..Default::default() }
}

fn configs_of(
    parts: &Parts,
    resource: &DescribeConfigsResource,
    request: &DescribeConfigsRequest,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let layers = parts.image.layers(&parts.config);
    let name = &resource.resource_name;
    let invalid = |text: String| Err(Refusal::new(ErrorCode::InvalidRequest, text));
    let described = match ResourceKind::from_code(resource.resource_type) {
        ResourceKind::Topic => {
            validate_topic_name(name).map_err(|why| Refusal::new(ErrorCode::InvalidTopicException, why))?;
            match parts.image.topic_named(name) {
                Some(_) => config::describe_topic(parts.image.topic_config(name), &layers),
                None => return Err(Refusal::silent(ErrorCode::UnknownTopicOrPartition)),
            }
        }
        ResourceKind::Broker if name.is_empty() => config::describe_broker_default(&layers),
        ResourceKind::Broker => {
            let id = parts.config.node_id;
            match name.parse::<i32>() {
                Ok(asked) if asked == id.0 => config::describe_broker(&layers),
                Ok(_) => {
                    return invalid(format!(
                        "Unexpected broker id, expected {id} or empty string, but received {name}"
                    ));
                }
                Err(_) => return invalid(format!("Broker id must be an integer, but it is: {name}")),
            }
        }
        ResourceKind::BrokerLogger => return loggers::describe(parts, name),
        ResourceKind::ClientMetrics if name.is_empty() => {
            return invalid("Client metrics subscription name must not be empty".to_owned());
        }
        ResourceKind::ClientMetrics => {
            let resource = ConfigResource::new(ResourceKind::ClientMetrics, name.to_string());
            config::describe_client_metrics(parts.image.config(&resource))
        }
        ResourceKind::Group => return invalid("Configs of groups are not served: there are no groups yet.".to_owned()),
        ResourceKind::Other(code) => return invalid(format!("Unsupported resource type: {code}")),
    };
    Ok(described.into_iter().map(|config| told(config, request)).collect())
}

fn told(described: Described, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
    let (is_sensitive, config_type) = (described.sensitive(), described.type_code());
    let documentation = described.documentation().filter(|_| request.include_documentation);
    let synonyms = described.synonyms.into_iter().map(|synonym| DescribeConfigsSynonym {
        name: synonym.name.into(),
        value: synonym.value.map(Into::into),
        source: synonym.source as i8,
        ..Default::default()
    });
    DescribeConfigsResourceResult {
        name: described.name.into(),
        value: described.value.map(Into::into),
        read_only: described.read_only,
        config_source: described.source as i8,
        is_sensitive,
        synonyms: if request.include_synonyms { synonyms.collect() } else { Vec::new() },
        config_type,
        documentation: documentation.map(Into::into),
        ..Default::default()
    }
}

pub fn alter(parts: &Parts, request: &AlterConfigsRequest, out: &mut Outbox) -> Decision<AlterConfigsResponse> {
    let (image, context) = parts.basis();
    let decision = controller::alter_configs(image, &context, request);
    warn_of_changes(&decision.records, out);
    decision
}

pub fn alter_incrementally(
    parts: &mut Parts,
    request: &IncrementalAlterConfigsRequest,
    out: &mut Outbox,
) -> Decision<IncrementalAlterConfigsResponse> {
    let (request, of_loggers) = alter_loggers(parts, request, out);
    let (image, context) = parts.basis();
    let Decision { records, mut response } = controller::incremental_alter_configs(image, &context, &request);
    warn_of_changes(&records, out);
    // By ascending place, so each comes to stand where its resource stood in the request.
    for (place, answer) in of_loggers {
        response.responses.insert(place, answer);
    }
    Decision { records, response }
}

/// Carries out a request that names loggers alone. These belong to this node, so it needs no controller.
pub fn alter_loggers_alone(
    parts: &mut Parts,
    request: &IncrementalAlterConfigsRequest,
    out: &mut Outbox,
) -> Option<IncrementalAlterConfigsResponse> {
    if request.resources.is_empty() || !request.resources.iter().all(|resource| is_logger(resource.resource_type)) {
        return None;
    }
    let (_, answers) = alter_loggers(parts, request, out);
    let responses = answers.into_iter().map(|(_, answer)| answer).collect();
    Some(IncrementalAlterConfigsResponse { responses, ..Default::default() })
}

/// Refuses a request that names configs of other brokers alone. As in Kafka, whoever changes those of one broker asks that
/// broker, which checks them and brings them to the controller.
pub fn meant_for_others(parts: &Parts, request: &RequestBody) -> Option<ResponseBody> {
    let resources: Vec<(i8, &ByteString, Result<(), Refusal>)> = match request {
        RequestBody::AlterConfigs(request) => request
            .resources
            .iter()
            .map(|it| {
                let keys = it.configs.iter().map(|config| (&config.name, config.value.as_ref(), true));
                (it.resource_type, &it.resource_name, check_config_keys(keys))
            })
            .collect(),
        RequestBody::IncrementalAlterConfigs(request) => request
            .resources
            .iter()
            .map(|it| {
                let keys = it.configs.iter().map(|config| {
                    (&config.name, config.value.as_ref(), ConfigOperation::needs_value(config.config_operation))
                });
                (it.resource_type, &it.resource_name, check_config_keys(keys))
            })
            .collect(),
        _ => return None,
    };
    let own = parts.config.node_id;
    let is_others = |(code, name, keys): &(i8, &ByteString, Result<(), Refusal>)| {
        let is_broker = ResourceKind::from_code(*code) == ResourceKind::Broker;
        // As in Kafka, keys are looked at first: the controller refuses those.
        is_broker && name.parse::<i32>().is_ok_and(|id| id != own.0) && keys.is_ok()
    };
    let (_, received, _) = resources.first().filter(|_| resources.iter().all(is_others))?;
    let text = format!("Unexpected broker id, expected {own}, but received {received}");
    Some(refusal::response(request, 1, ErrorCode::InvalidRequest, text))
}

fn is_logger(code: i8) -> bool {
    ResourceKind::from_code(code) == ResourceKind::BrokerLogger
}

/// Takes the loggers' resources out of a request and makes their changes, which are not for the controller. Gives the
/// rest of the request, and the answers, each with the place of its resource.
fn alter_loggers(
    parts: &mut Parts,
    request: &IncrementalAlterConfigsRequest,
    out: &mut Outbox,
) -> (IncrementalAlterConfigsRequest, Vec<(usize, AlterConfigsResourceResponse)>) {
    let validate_only = request.validate_only;
    let mut named: BTreeMap<ByteString, u32> = BTreeMap::new();
    for resource in request.resources.iter().filter(|resource| is_logger(resource.resource_type)) {
        *named.entry(resource.resource_name.clone()).or_default() += 1;
    }
    let (mut others, mut answers) = (Vec::new(), Vec::new());
    for (place, resource) in request.resources.iter().enumerate() {
        if !is_logger(resource.resource_type) {
            others.push(resource.clone());
            continue;
        }
        let outcome = match named[&resource.resource_name] > 1 {
            true => Err(controller::repeated_resource()),
            false => loggers::alter(parts, resource, validate_only, out),
        };
        let (error, error_message) =
            outcome.map_or_else(|refusal| (refusal.error, refusal.message), |()| (ErrorCode::None, None));
        let (resource_type, resource_name) = (resource.resource_type, resource.resource_name.clone());
        let answer = AlterConfigsResourceResponse {
            error_code: error.code(),
            error_message,
            resource_type,
            resource_name,
            ..Default::default()
        };
        answers.push((place, answer));
    }
    (IncrementalAlterConfigsRequest { resources: others, validate_only, ..Default::default() }, answers)
}

/// Warnings that one request may put into the operator's log; the others are counted.
const WARNINGS_MAX: usize = 10;

/// Tells the operator which of these new values have no effect, and why.
pub fn warn_of_changes(records: &[MetadataRecord], out: &mut Outbox) {
    let mut warnings = records.iter().filter_map(|record| {
        let MetadataRecord::Config(record) = record else { return None };
        let (name, value, resource) = (&record.name, record.value.as_ref()?, &record.resource_name);
        match ResourceKind::from_code(record.resource_type) {
            ResourceKind::Topic => Some((format!("topic {resource}"), Warning::of_topic(name, value)?)),
            ResourceKind::Broker if resource.is_empty() => {
                Some(("all brokers".to_owned(), Warning::of_running_broker(name, value)?))
            }
            ResourceKind::Broker => Some((format!("broker {resource}"), Warning::of_running_broker(name, value)?)),
            ResourceKind::ClientMetrics => {
                Some((format!("client metrics {resource:?}"), Warning::of_client_metrics(name, value)?))
            }
            _ => None,
        }
    });
    for (place, warning) in warnings.by_ref().take(WARNINGS_MAX) {
        out.event(Level::Warn, Part::Configs, format!("{place}: {warning}"));
    }
    let more = warnings.count();
    if more > 0 {
        out.event(Level::Warn, Part::Configs, format!("{more} more configs of this request have no effect"));
    }
}
