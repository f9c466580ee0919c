//! Prometheus' text format, version 0.0.4.

use super::times::{QUANTILES, Reading};
use std::fmt::{Display, Write as _};

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Summary,
}

/// The name of a metric and what precedes its samples: its type and help text.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

pub const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, help }
}

pub const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, help }
}

pub const fn summary(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Summary, help }
}

pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// The text of all metrics written so far.
#[derive(Debug, Default)]
pub struct Text {
    out: String,
}

/// Writes the samples of one family, which must all stand together.
pub struct Samples<'a> {
    family: Family,
    out: &'a mut String,
}

impl Text {
    pub fn family(&mut self, family: Family) -> Samples<'_> {
        let Family { name, kind, help } = family;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Summary => "summary",
        };
        // Writing to a `String` never fails.
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Samples { family, out: &mut self.out }
    }

    /// A family of one sample without labels.
    pub fn one(&mut self, family: Family, value: impl Display) {
        self.family(family).sample(&[], value);
    }

    pub fn finish(self) -> String {
        self.out
    }
}

impl Samples<'_> {
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line("", labels, None, value);
    }

    /// The samples of a summary.
    pub fn times(&mut self, labels: Labels<'_>, reading: &Reading) {
        for ((quantile, _), ms) in QUANTILES.iter().zip(reading.quantiles_ms) {
            self.line("", labels, Some(("quantile", quantile)), ms);
        }
        self.line("_sum", labels, None, reading.sum_ms);
        self.line("_count", labels, None, reading.count);
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, last: Option<(&str, &str)>, value: impl Display) {
        self.out.push_str(self.family.name);
        self.out.push_str(suffix);
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(last) {
            self.out.push(separator);
            self.out.push_str(name);
            self.out.push_str("=\"");
            escape(value, self.out);
            self.out.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }
}

fn escape(value: &str, out: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_stands_under_its_help_and_its_type_with_labels_escaped() {
        let mut text = Text::default();
        text.one(gauge("a_gauge", "What it is."), -1);
        let mut samples = text.family(counter("b_total", "How many."));
        samples.sample(&[], 18_446_744_073_709_551_615u64);
        samples.sample(&[("path", "a\\b\"c\nd"), ("topic", "é")], 0.5);
        let reading = Reading { count: 2, sum_ms: 1.5, quantiles_ms: [1.0; QUANTILES.len()] };
        text.family(summary("c", "How long.")).times(&[("request", "Fetch")], &reading);
        insta::assert_snapshot!(text.finish(), @r#"
        # HELP a_gauge What it is.
        # TYPE a_gauge gauge
        a_gauge -1
        # HELP b_total How many.
        # TYPE b_total counter
        b_total 18446744073709551615
        b_total{path="a\\b\"c\nd",topic="é"} 0.5
        # HELP c How long.
        # TYPE c summary
        c{request="Fetch",quantile="0.50"} 1
        c{request="Fetch",quantile="0.75"} 1
        c{request="Fetch",quantile="0.95"} 1
        c{request="Fetch",quantile="0.98"} 1
        c{request="Fetch",quantile="0.99"} 1
        c{request="Fetch",quantile="0.999"} 1
        c_sum{request="Fetch"} 1.5
        c_count{request="Fetch"} 2
        "#);
    }
}
