//! The rules for a subscription to clients' metrics (KIP-714). The texts of what is refused are those of Apache Kafka.

use super::key::Value;
use super::table;
use regex_syntax::ast::{ErrorKind, parse::Parser};
use std::collections::BTreeMap;

/// What a subscription may tell clients apart by.
const MATCHED: &[&str] = &[
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// Why a subscription is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// What was asked for makes no sense: INVALID_REQUEST.
    #[error("{0}")]
    Request(String),
    /// A value cannot be used: INVALID_CONFIG.
    #[error("{0}")]
    Value(String),
}

/// Checks everything that is set for the subscription `name`.
pub fn check_subscription(name: &str, configs: &BTreeMap<String, String>) -> Result<(), SubscriptionError> {
    if name.is_empty() {
        return Err(SubscriptionError::Request("Subscription name can't be empty".to_owned()));
    }
    if let Some(name) = configs.keys().find(|name| table::client_metrics_key(name).is_none()) {
        return Err(SubscriptionError::Request(format!("Unknown client metrics configuration: {name}")));
    }
    let read = |name: &str| {
        let key = table::client_metrics_key(name).expect("the table has it");
        configs.get(name).map(|text| key.read(text)).transpose().map_err(SubscriptionError::Value)
    };
    read("metrics")?;
    let (interval, patterns) = (read("interval.ms")?, read("match")?);
    if let Some(Value::Number(interval)) = interval
        && !(100..=3_600_000).contains(&interval)
    {
        return Err(SubscriptionError::Request(format!(
            "Invalid value {interval} for interval.ms, interval must be between 100 and 3600000 (1 hour)"
        )));
    }
    let Some(Value::List(patterns)) = patterns else { return Ok(()) };
    match patterns.iter().find(|pattern| !is_pattern(pattern)) {
        Some(pattern) => Err(SubscriptionError::Value(format!("Illegal client matching pattern: {pattern}"))),
        None => Ok(()),
    }
}

/// Whether this is `name=regular expression`.
fn is_pattern(text: &str) -> bool {
    // Java's `split`, by which Kafka takes a pattern apart, leaves out empty parts at the end.
    let mut parts: Vec<&str> = text.split('=').collect();
    while parts.last().is_some_and(|part| part.is_empty()) {
        parts.pop();
    }
    matches!(parts[..], [name, expression] if MATCHED.contains(&name.trim()) && is_expression(expression.trim()))
}

/// Whether this is a regular expression, as far as the syntax of Java and that of Rust are the same. What stands behind
/// a look-around or a reference to a group is not checked: Java knows both.
fn is_expression(text: &str) -> bool {
    match Parser::new().parse(text) {
        Ok(_) => true,
        Err(error) => {
            matches!(error.kind(), ErrorKind::UnsupportedLookAround | ErrorKind::UnsupportedBackreference)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, configs: &[(&str, &str)]) -> String {
        let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match check_subscription(name, &configs) {
            Ok(()) => "taken".to_owned(),
            Err(error @ SubscriptionError::Request(_)) => format!("request: {error}"),
            Err(error @ SubscriptionError::Value(_)) => format!("value: {error}"),
        }
    }

    #[test]
    fn a_subscription_is_checked_as_kafka_checks_it() {
        let all = [("metrics", "org.apache.kafka.producer., *"), ("interval.ms", " 100 "), ("match", "client_id=a.*")];
        assert_eq!(check("s", &all), "taken");
        assert_eq!(check("s", &[]), "taken");
        insta::assert_snapshot!(check("", &all), @"request: Subscription name can't be empty");
        insta::assert_snapshot!(check("s", &[("metric", "x"), ("match", "(")]), @"request: Unknown client metrics configuration: metric");
        insta::assert_snapshot!(check("s", &[("metrics", "a,,b")]), @"value: Configuration 'metrics' values must not be empty.");
        insta::assert_snapshot!(check("s", &[("interval.ms", "often")]), @"value: Invalid value often for configuration interval.ms: Not a number of type INT");
        for interval in ["99", "3600001", "-1"] {
            let refusal = check("s", &[("interval.ms", interval)]);
            assert!(refusal.starts_with(&format!("request: Invalid value {interval} for interval.ms, ")), "{refusal}");
        }
    }

    #[test]
    fn a_match_is_a_known_name_with_a_regular_expression() {
        for pattern in [
            r"client_software_version=11\.1.*",
            " client_id = a|b ",
            "client_source_port=[0-9]{4},client_source_address=10\\.0\\..*",
            "client_id=a=",
            "client_id=a,client_id=a",
            "client_id=(?!x).*",
            r"client_id=(a)\1",
        ] {
            assert_eq!(check("s", &[("match", pattern)]), "taken", "{pattern}");
        }
        for pattern in [
            "client_id",
            "client_id=",
            "=a",
            "client_id=a=b",
            "software=a",
            "client_id=(",
            "client_id=[a",
            "client_id=*",
        ] {
            let refusal = format!("value: Illegal client matching pattern: {pattern}");
            assert_eq!(check("s", &[("match", pattern)]), refusal);
        }
    }
}
