//! The levels of the operator's log, which clients read and change as configs of the resource BROKER_LOGGER (KIP-412).
//! Each broker has them in memory: no metadata record holds them, and they are gone with the process. The texts of
//! errors are Kafka's.

use crate::api::Parts;
use crate::config::{LogLevel, Loggers, ROOT_LOGGER, Source};
use crate::controller::{ConfigOperation, Refusal, check_config_keys};
use crate::io::{Level, Outbox, Output, Part};
use crate::wire::ErrorCode;
use crate::wire::messages::describe_configs_response::DescribeConfigsResourceResult;
use crate::wire::messages::incremental_alter_configs_request::AlterConfigsResource;

/// What DescribeConfigs says of all loggers of the broker `name`.
pub fn describe(parts: &Parts, name: &str) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let id = parts.config.node_id;
    match name.parse::<i32>() {
        _ if name.is_empty() => Err(invalid("Broker id must not be empty")),
        Err(_) => Err(invalid(format!("Broker id must be an integer, but it is: {name}"))),
        Ok(asked) if asked != id.0 => Err(invalid(format!("Unexpected broker id, expected {id} but received {name}"))),
        Ok(_) => Ok(parts.loggers.in_force().map(|(name, level)| told(name, level)).collect()),
    }
}

fn told(name: &str, level: LogLevel) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult {
        name: name.into(),
        value: Some(level.name().into()),
        config_source: Source::BrokerLogger as i8,
        ..Default::default()
    }
}

/// Makes all changes of one resource if all are valid, and none otherwise.
pub fn alter(
    parts: &mut Parts,
    resource: &AlterConfigsResource,
    validate_only: bool,
    out: &mut Outbox,
) -> Result<(), Refusal> {
    let after = altered(parts, resource)?;
    if validate_only || after == parts.loggers {
        return Ok(());
    }
    for config in &resource.configs {
        let (name, operation) = (&config.name, ConfigOperation::from_code(config.config_operation));
        let text = match &config.value {
            Some(level) if operation == Some(ConfigOperation::Set) => {
                format!("the logger {name} now has the level {level}")
            }
            _ => format!("the logger {name} has no level of its own any more"),
        };
        // A warning, as in Kafka: it explains why later lines are missing.
        out.event(Level::Warn, Part::Configs, text);
    }
    parts.loggers = after.clone();
    out.outputs.push(Output::LogLevels(after));
    Ok(())
}

/// The loggers as the changes of a resource would leave them.
fn altered(parts: &Parts, resource: &AlterConfigsResource) -> Result<Loggers, Refusal> {
    check_config_keys(
        resource
            .configs
            .iter()
            .map(|config| (&config.name, config.value.as_ref(), ConfigOperation::needs_value(config.config_operation))),
    )?;
    let (id, name) = (parts.config.node_id, &resource.resource_name);
    match name.parse::<i32>() {
        Err(_) => return Err(invalid(format!("Node id must be an integer, but it is: {name}"))),
        Ok(asked) if asked != id.0 => {
            return Err(invalid(format!("Unexpected node id. Expected {id}, but received {asked}")));
        }
        Ok(_) => {}
    }
    let mut loggers = parts.loggers.clone();
    for config in &resource.configs {
        let name = &config.name;
        let must_exist = |loggers: &Loggers| match loggers.exists(name) {
            true => Ok(()),
            false => Err(Refusal::new(ErrorCode::InvalidConfig, format!("Logger {name} does not exist!"))),
        };
        match ConfigOperation::from_code(config.config_operation) {
            Some(ConfigOperation::Set) => {
                must_exist(&loggers)?;
                let level = config.value.as_deref().unwrap_or_default();
                loggers.set(name, LogLevel::settable(level).ok_or_else(|| no_level(name, level))?);
            }
            Some(ConfigOperation::Delete) => {
                must_exist(&loggers)?;
                if *name == ROOT_LOGGER {
                    let text = format!("Removing the log level of the {ROOT_LOGGER} logger is not allowed");
                    return Err(invalid(text));
                }
                loggers.unset(name);
            }
            Some(ConfigOperation::Append) => {
                return Err(invalid("APPEND operation is not allowed for the BROKER_LOGGER resource"));
            }
            Some(ConfigOperation::Subtract) => {
                return Err(invalid("SUBTRACT operation is not allowed for the BROKER_LOGGER resource"));
            }
            None => {
                let other = config.config_operation;
                let text = format!("Unknown operation type {other} is not allowed for the BROKER_LOGGER resource");
                return Err(invalid(text));
            }
        }
    }
    Ok(loggers)
}

fn no_level(name: &str, level: &str) -> Refusal {
    let valid = LogLevel::SETTABLE.map(LogLevel::name).join(", ");
    let text = format!(
        "Cannot set the log level of {name} to {level} as it is not a supported log level. Valid log levels are {valid}"
    );
    Refusal::new(ErrorCode::InvalidConfig, text)
}

fn invalid(text: impl Into<bytestring::ByteString>) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, text)
}
