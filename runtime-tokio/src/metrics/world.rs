//! This world's own numbers under Kafka's names, and under names of our own where Kafka has none.

use super::requests::KindReading;
use super::text::{Text, counter, gauge, summary};
use super::times::Reading;
use super::{Counter, Counters, ListenerCounters};
use crate::door::Around;

/// All of it, read at one moment.
pub struct World<'a> {
    pub counters: &'a Counters,
    pub requests: &'a [KindReading],
    pub around: &'a Around,
    /// How long syncs of log files took.
    pub flushes: &'a Reading,
    /// Bytes of requests that are held, and how many may be.
    pub budget: (usize, usize),
    /// Bytes that wait to be written.
    pub queued_bytes: usize,
}

pub fn write(world: &World<'_>, text: &mut Text) {
    write_requests(world.requests, text);
    write_door(world.around, text);
    write_listeners(&world.counters.listeners, text);
    text.family(summary("kafka_log_logflushstats_logflushrateandtimems", "How long syncs of log files took, in ms."))
        .times(&[], world.flushes);
    let (held, limit) = world.budget;
    text.one(gauge("kafka_network_socketserver_memorypoolused", "Bytes of requests that are held."), held);
    text.one(
        gauge("kafka_network_socketserver_memorypoolavailable", "Bytes of requests that may still come."),
        limit.saturating_sub(held),
    );
    text.one(gauge("tidelog_disk_queued_bytes", "Bytes that wait to be written to log files."), world.queued_bytes);
}

fn write_requests(requests: &[KindReading], text: &mut Text) {
    let mut samples =
        text.family(counter("kafka_network_requestmetrics_requests_total", "Requests handled, by kind and version."));
    for kind in requests {
        for (version, count) in &kind.by_version {
            samples.sample(&[("request", kind.api_key.name()), ("version", &version.to_string())], count);
        }
    }
    let mut samples = text.family(counter(
        "kafka_network_requestmetrics_errors_total",
        "Error codes answered, by the partition or whatever a request is made of; NONE for what went well.",
    ));
    for kind in requests {
        for (error, count) in &kind.by_error {
            samples.sample(&[("request", kind.api_key.name()), ("error", error.name())], count);
        }
    }
    let mut samples = text.family(summary(
        "kafka_network_requestmetrics_totaltimems",
        "From when a request was read to when its answer was ready, in ms; quantiles of the last minute or two.",
    ));
    for kind in requests {
        samples.times(&[("request", kind.api_key.name())], &kind.times);
    }
}

fn write_door(around: &Around, text: &mut Text) {
    text.one(
        gauge("kafka_network_requestchannel_requestqueuesize", "Inputs that wait for the core."),
        around.inputs_queued,
    );
    text.one(
        gauge("kafka_network_requestchannel_responsequeuesize", "Answers that wait for their connections."),
        around.answers_queued,
    );
    let (busy, up) = (around.busy.as_secs_f64(), around.up.as_secs_f64());
    text.one(counter("tidelog_core_busy_seconds_total", "How long the core has been at work."), busy);
    // The core is what a request handler is in Kafka; there is one.
    let idle = (up - busy).max(0.0);
    text.one(
        gauge(
            "kafka_server_kafkarequesthandlerpool_requesthandleravgidle_percent",
            "The share of time, from 0 to 1, in which the core had nothing to do since the start.",
        ),
        if up > 0.0 { idle / up } else { 1.0 },
    );
    text.one(
        counter(
            "kafka_server_kafkarequesthandlerpool_requesthandleravgidle_total",
            "Nanoseconds in which the core had nothing to do.",
        ),
        (idle * 1e9).round(),
    );
}

type Value = fn(&ListenerCounters) -> &Counter;

fn write_listeners(listeners: &[ListenerCounters], text: &mut Text) {
    let mut samples =
        text.family(gauge("kafka_server_socket_server_metrics_connection_count", "Connections that are open."));
    for listener in listeners {
        let open = listener.created.value().saturating_sub(listener.closed.value());
        samples.sample(&[("listener", &listener.name)], open);
    }
    let counters: [(_, Value); 6] = [
        (
            counter("kafka_server_socket_server_metrics_connection_creation_total", "Connections accepted."),
            |listener| &listener.created,
        ),
        (counter("kafka_server_socket_server_metrics_connection_close_total", "Connections closed."), |listener| {
            &listener.closed
        }),
        (
            counter(
                "kafka_server_socket_server_metrics_expired_connections_killed_count",
                "Connections closed for connections.max.idle.ms.",
            ),
            |listener| &listener.expired,
        ),
        (
            counter("tidelog_connections_refused_total", "Connections turned away for max.connections.per.ip."),
            |listener| &listener.refused,
        ),
        (counter("kafka_server_socket_server_metrics_incoming_byte_total", "Bytes read from clients."), |listener| {
            &listener.bytes_in
        }),
        (counter("kafka_server_socket_server_metrics_outgoing_byte_total", "Bytes sent to clients."), |listener| {
            &listener.bytes_out
        }),
    ];
    for (family, value) in counters {
        let mut samples = text.family(family);
        for listener in listeners {
            samples.sample(&[("listener", &listener.name)], value(listener).value());
        }
    }
}
