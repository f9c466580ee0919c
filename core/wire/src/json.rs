//! Writes a record of a log as one line of JSON that a person can read. Names and shape are those of Kafka's own JSON
//! converters.
//!
//! Fields stand in the order of the schema. In these records every field of bytes holds a credential, so only its
//! length is written.

use crate::ids::Uuid;
use bytes::Bytes;
use std::fmt::{Display, Write};

/// Writes one value after the other. The caller balances the brackets.
#[derive(Debug, Default)]
pub(crate) struct JsonWriter {
    text: String,
}

impl JsonWriter {
    pub fn begin(&mut self, bracket: char) {
        self.text.push(bracket);
    }

    pub fn end(&mut self, bracket: char) {
        self.text.push(bracket);
    }

    /// Writes the comma between two elements. Called before each element of an array.
    pub fn element(&mut self) {
        if !self.text.ends_with(['{', '[']) {
            self.text.push(',');
        }
    }

    /// Writes the name of an object's next value.
    pub fn name(&mut self, name: &str) {
        self.element();
        self.string(name);
        self.text.push(':');
    }

    pub fn null(&mut self) {
        self.text.push_str("null");
    }

    /// A number or a boolean.
    pub fn plain(&mut self, value: &impl Display) {
        write!(self.text, "{value}").expect("writing to a String");
    }

    /// JSON has neither infinity nor NaN: both are written as null.
    pub fn float64(&mut self, value: f64) {
        self.plain(&serde_json::Value::from(value));
    }

    pub fn string(&mut self, value: &str) {
        self.plain(&serde_json::Value::from(value));
    }

    pub fn uuid(&mut self, value: &Uuid) {
        write!(self.text, "\"{value}\"").expect("writing to a String");
    }

    pub fn bytes(&mut self, value: &Bytes) {
        write!(self.text, "\"<{} bytes>\"", value.len()).expect("writing to a String");
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

/// `TopicRecord` → `TOPIC_RECORD`
pub(crate) fn record_type(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}
