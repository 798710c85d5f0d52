//! How long pods load in a planned rollout: as assumed, or as measured by the pods of a running one.

use std::path::Path;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::{Failure, input};
use crate::adapters::kube::server_status::{Address, StatusSource};
use crate::core::config::LOAD_ALLOWANCE;
use crate::core::model::duration::PromDuration;
use crate::core::model::text::listed;
use crate::core::model::window::Window;
use crate::core::rollout::forecast::{Forecast, LastLoad, PodLoad};
use crate::core::rollout::report::{PodReport, SetReport};

/// The largest status document, in bytes; that of 5,000 pods has about 3 MiB.
const MAX_STATUS_BYTES: usize = 64 * 1024 * 1024;
/// How many StatefulSets an error lists.
const MAX_LISTED: usize = 5;

/// The source of load times.
#[derive(Debug)]
pub(super) enum LoadSource {
    Assumed {
        each: PromDuration,
        why: String,
    },
    Measured {
        forecast: Box<Forecast>,
        /// By ordinal.
        last: Vec<Option<LastLoad>>,
        from: String,
    },
}

impl LoadSource {
    /// `given` is `--load-time`.
    pub(super) fn assumed(given: Option<PromDuration>) -> Self {
        match given {
            Some(each) => Self::Assumed {
                each,
                why: "--load-time".to_owned(),
            },
            None => Self::Assumed {
                each: LOAD_ALLOWANCE,
                why: "assumed: give --load-time, or --status for what was measured".to_owned(),
            },
        }
    }

    /// Reads the reports of a server, from a file or an `http://` address, and uses that of
    /// `statefulset`, or the only one.
    pub(super) fn read(
        source: &str,
        statefulset: &str,
        now: DateTime<Utc>,
    ) -> Result<Self, Failure> {
        let text = if source.contains("://") || is_host_and_port(source) {
            ask(source)?
        } else {
            input::text(Path::new(source), MAX_STATUS_BYTES)?
        };
        let report = report(&text, source, statefulset)?;
        let pods: Vec<PodLoad> = report.pods.iter().map(pod_load).collect();
        if pods.iter().all(|pod| pod.last_load.is_none()) {
            return Ok(Self::Assumed {
                each: LOAD_ALLOWANCE,
                why: format!("assumed: no pod of {source} has measured a load yet"),
            });
        }
        let first = report.pods.iter().map(|pod| pod.ordinal).min();
        let mut last = Vec::new();
        for pod in &report.pods {
            let index = usize::try_from(pod.ordinal - first.unwrap_or(0)).unwrap_or(usize::MAX);
            if index < report.pods.len() {
                last.resize(last.len().max(index + 1), None);
                last[index] = pod.last_load;
            }
        }
        Ok(Self::Measured {
            forecast: Box::new(Forecast::new(&pods, now)),
            last,
            from: source.to_owned(),
        })
    }

    /// How long a pod takes that goes from one window to another.
    pub(super) fn of(&self, ordinal: usize, from: Window, to: Window) -> PromDuration {
        match self {
            Self::Assumed { each, .. } => *each,
            Self::Measured { forecast, last, .. } => {
                let last = last.get(ordinal).copied().flatten();
                let seconds = forecast.load_seconds(last, Some(from), to);
                seconds
                    .and_then(|seconds| i64::try_from(seconds).ok())
                    .map_or(LOAD_ALLOWANCE, PromDuration::from_secs)
            }
        }
    }

    /// What the times rest on.
    pub(super) fn basis(&self) -> String {
        match self {
            Self::Assumed { why, .. } => why.clone(),
            Self::Measured { forecast, from, .. } => {
                format!("measured in {from}: {}", forecast.basis())
            }
        }
    }
}

fn pod_load(pod: &PodReport) -> PodLoad {
    let loaded = pod.blocks_expected.zip(pod.blocks_missing);
    PodLoad {
        applied: pod.applied,
        blocks: loaded.map(|(expected, missing)| expected.saturating_sub(missing)),
        older: None,
        last_load: pod.last_load,
    }
}

/// Whether this is an address without its scheme rather than a file.
fn is_host_and_port(source: &str) -> bool {
    source
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        && !Path::new(source).exists()
}

fn ask(url: &str) -> Result<String, Failure> {
    let address: Address = url
        .parse()
        .map_err(|error| Failure::Invalid(format!("--status {url}: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start the runtime: {error}")))?;
    let answer = runtime
        .block_on(StatusSource::At(address).ask())
        .map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

fn report(text: &str, source: &str, statefulset: &str) -> Result<SetReport, Failure> {
    let invalid = |why: String| {
        Failure::Invalid(format!(
            "--status {source}: {why}; write it with timeshard status -o json"
        ))
    };
    let document: Value =
        serde_json::from_str(text).map_err(|error| invalid(format!("is not JSON: {error}")))?;
    let sets = document
        .get("statefulsets")
        .and_then(Value::as_array)
        .ok_or_else(|| invalid("has no list statefulsets".to_owned()))?;
    let name = |set: &Value| set.get("name").and_then(Value::as_str).map(str::to_owned);
    let mut named = sets
        .iter()
        .filter(|set| sets.len() == 1 || name(set).as_deref() == Some(statefulset));
    let set = match (named.next(), named.next()) {
        (Some(set), None) => set,
        (found, _) => {
            let all: Vec<String> = sets.iter().filter_map(name).collect();
            let how = if found.is_some() { "several" } else { "no" };
            return Err(invalid(format!(
                "has {how} StatefulSets {statefulset} among {}; keep one, as in timeshard status NAMESPACE/NAME -o json",
                listed(&all, MAX_LISTED)
            )));
        }
    };
    SetReport::deserialize(set).map_err(|error| {
        invalid(format!(
            "has a report that this version cannot read: {error}"
        ))
    })
}
