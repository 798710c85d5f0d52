//! Metrics as text for a scrape: `OpenMetrics` on request, else the older Prometheus text format.
//!
//! The registry writes `OpenMetrics` only. The formats differ in family names (those of counters
//! lack `_total` there), in types, and in the lines UNIT and EOF; samples are the same.
//! Deliberately absent: exemplars and timestamps, which timeshard does not have, and the binary
//! format.

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpositionFormat {
    /// `OpenMetrics` 1.0.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Text,
}

impl ExpositionFormat {
    /// Parses a request's `Accept` header; without `OpenMetrics` in it the answer is text.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        let (mut openmetrics, mut text) = (0.0, 0.0);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let best = match parts
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase()
                .as_str()
            {
                "application/openmetrics-text" => &mut openmetrics,
                "text/plain" | "text/*" => &mut text,
                _ => continue,
            };
            let weight = parts
                .find_map(|part| part.strip_prefix("q="))
                .and_then(|q| q.parse().ok())
                .unwrap_or(1.0);
            *best = f64::max(*best, weight);
        }
        if openmetrics > 0.0 && openmetrics >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Encodes the current values.
    ///
    /// # Errors
    /// When a collector fails.
    pub fn encode(self, registry: &Registry) -> Result<String, fmt::Error> {
        let mut openmetrics = String::new();
        encode(&mut openmetrics, registry)?;
        Ok(self.write(openmetrics))
    }

    /// Converts text that was encoded as `OpenMetrics`.
    #[must_use]
    pub fn write(self, openmetrics: String) -> String {
        match self {
            Self::OpenMetrics => openmetrics,
            Self::Text => text(&openmetrics),
        }
    }
}

fn text(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = "";
    for line in openmetrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        match comment.split_once(' ') {
            // The family name depends on the type, which follows.
            Some(("HELP", rest)) => help = rest.split_once(' ').map_or("", |(_, help)| help),
            Some(("TYPE", rest)) => {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "stateset" => ("", "gauge"),
                    "unknown" => ("", "untyped"),
                    kind => ("", kind),
                };
                text.push_str(&format!(
                    "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"
                ));
            }
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::Unit;

    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, want) in [
            (None, ExpositionFormat::Text),
            (Some(""), ExpositionFormat::Text),
            (Some("*/*"), ExpositionFormat::Text),
            (Some("text/plain"), ExpositionFormat::Text),
            (Some(prometheus), ExpositionFormat::OpenMetrics),
            (
                Some("Application/OpenMetrics-Text"),
                ExpositionFormat::OpenMetrics,
            ),
            (
                Some("text/plain;version=0.0.4, application/openmetrics-text; q=0.4"),
                ExpositionFormat::Text,
            ),
            (
                Some("application/openmetrics-text;q=0"),
                ExpositionFormat::Text,
            ),
            (
                Some("application/openmetrics-text;q=x, ;;,q="),
                ExpositionFormat::OpenMetrics,
            ),
        ] {
            assert_eq!(ExpositionFormat::accepted(accept), want, "{accept:?}");
        }
    }

    #[test]
    fn text_names_families_as_their_samples() {
        let mut registry = Registry::default();
        let (counter, histogram) = (Counter::<u64>::default(), Histogram::new([0.5]));
        registry.register("x_requests", "Requests", counter.clone());
        registry.register("x_build", "Version", Info::new([("version", "1")]));
        registry.register_with_unit("x_took", "Time", Unit::Seconds, histogram.clone());
        counter.inc();
        histogram.observe(0.1);
        let want = "# HELP x_requests_total Requests.\n# TYPE x_requests_total counter\nx_requests_total 1\n\
                    # HELP x_build_info Version.\n# TYPE x_build_info gauge\nx_build_info{version=\"1\"} 1\n\
                    # HELP x_took_seconds Time.\n# TYPE x_took_seconds histogram\nx_took_seconds_sum 0.1\nx_took_seconds_count 1\n\
                    x_took_seconds_bucket{le=\"0.5\"} 1\nx_took_seconds_bucket{le=\"+Inf\"} 1\n";
        assert_eq!(ExpositionFormat::Text.encode(&registry).unwrap(), want);
        assert!(
            ExpositionFormat::OpenMetrics
                .encode(&registry)
                .unwrap()
                .contains("# TYPE x_requests counter\n")
        );
    }
}
