//! Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>). Pure.
//!
//! Implemented here because every value is an atomic with another owner: a client library would require a registry of label
//! sets behind a lock, in which every route and endpoint is registered and unregistered.

use std::fmt::{Display, Write};

use crate::cluster::timings::Reading;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The text of the metrics.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
    /// The name of the current family.
    name: &'static str,
}

pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

impl Exposition {
    /// Starts a family of metrics.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.name = name;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Writes a family with one sample.
    pub(super) fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line("", labels, None, value);
    }

    pub(super) fn histogram(&mut self, labels: Labels<'_>, Reading { up_to, count, sum }: &Reading) {
        for (bound, count) in up_to {
            self.line("_bucket", labels, Some(&bound.as_secs_f64().to_string()), count);
        }
        self.line("_bucket", labels, Some("+Inf"), count);
        self.line("_sum", labels, None, sum.as_secs_f64());
        self.line("_count", labels, None, count);
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, le: Option<&str>, value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        let le = le.map(|le| ("le", le));
        for (n, (name, value)) in labels.iter().copied().chain(le).enumerate() {
            let _ = write!(self.text, "{}{name}=\"", if n == 0 { '{' } else { ',' });
            self.escaped(value);
            self.text.push('"');
        }
        let close = if labels.is_empty() && le.is_none() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    fn escaped(&mut self, value: &str) {
        for c in value.chars() {
            match c {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                c => self.text.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_text_has_the_format_of_prometheus() {
        let mut exposition = Exposition::default();
        exposition.family("a_total", Kind::Counter, "How many.");
        exposition.sample(&[("route", "80"), ("ending", "cut")], 3);
        exposition.sample(&[("route", "a\\\"b\nc"), ("ending", "")], 4);
        exposition.single("b", Kind::Gauge, "Whether.", 1);
        exposition.family("c_seconds", Kind::Histogram, "How long.");
        let up_to = vec![(Duration::from_millis(1), 2), (Duration::from_secs(60), 3)];
        exposition
            .histogram(&[("route", "x")], &Reading { up_to, count: 4, sum: Duration::from_millis(1500) });
        assert_eq!(
            exposition.finish(),
            r#"# HELP a_total How many.
# TYPE a_total counter
a_total{route="80",ending="cut"} 3
a_total{route="a\\\"b\nc",ending=""} 4
# HELP b Whether.
# TYPE b gauge
b 1
# HELP c_seconds How long.
# TYPE c_seconds histogram
c_seconds_bucket{route="x",le="0.001"} 2
c_seconds_bucket{route="x",le="60"} 3
c_seconds_bucket{route="x",le="+Inf"} 4
c_seconds_sum{route="x"} 1.5
c_seconds_count{route="x"} 4
"#
        );
    }
}
