//! This crate's own metrics, under Kafka's names where Kafka has the same metric.

use super::requests::KindReading;
use super::text::{Text, counter, gauge, summary};
use super::times::Reading;
use super::{Counter, Counters, ListenerCounters};
use crate::door::DoorMetrics;

/// All of these metrics, read at one moment.
pub struct World<'a> {
    pub counters: &'a Counters,
    pub requests: &'a [KindReading],
    pub door: &'a DoorMetrics,
    /// How long syncs of log files took.
    pub flushes: &'a Reading,
    /// Bytes of requests that are held, and the limit on them.
    pub budget: (usize, usize),
    /// Bytes that wait to be written to log files.
    pub queued_bytes: usize,
}

pub fn write(world: &World<'_>, text: &mut Text) {
    write_requests(world.requests, text);
    write_door(world.door, text);
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
        "Error codes answered, one for each partition, topic or other item of an answer; NONE for success.",
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

fn write_door(door: &DoorMetrics, text: &mut Text) {
    text.one(
        gauge("kafka_network_requestchannel_requestqueuesize", "Inputs that wait for the core."),
        door.inputs_queued,
    );
    text.one(
        gauge("kafka_network_requestchannel_responsequeuesize", "Answers that wait for their connections."),
        door.answers_queued,
    );
    let (busy, up) = (door.busy.as_secs_f64(), door.up.as_secs_f64());
    text.one(counter("tidelog_core_busy_seconds_total", "How long the core has been at work."), busy);
    // Kafka reports how idle its request handler threads are. Here the core stands for a single such thread.
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
