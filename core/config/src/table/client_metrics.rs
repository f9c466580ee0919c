//! Configs of a subscription to clients' metrics (KIP-714).

use super::*;

#[rustfmt::skip]
pub(super) const KEYS: &[ConfigKey] = &[
    int("interval.ms", "300000", "Time after which a client sends its metrics again, in milliseconds: 100 to 3600000 (1 hour)."),
    list("match", "", "Which clients the subscription is for, as a list of name=regular expression; a client must match all. Empty: all clients. Names: client_id, client_instance_id, client_software_name, client_software_version, client_source_address, client_source_port."),
    list("metrics", "", "Prefixes of the names of the metrics that are wanted. *: all metrics. Empty: none."),
];
