//! Configuration: Kafka's names, types and defaults for brokers and topics.
