//! The server's `/status`, read with forbearance: what is not known is kept for `-o json` and ignored for people.

use std::str::FromStr;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Failure;
use crate::adapters::server_status::Answer;
use crate::core::names;
use crate::core::report::SetReport;

/// A StatefulSet that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    namespace: Option<String>,
    name: String,
}

/// Namespaces of which it is said what the server does not take in; it names the first objects of each.
const MAX_NOT_TAKEN_IN: usize = 5;

/// What the server says beside its reports.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Head {
    pub(super) version: String,
    webhook_only: bool,
    synced: Option<bool>,
    watch_error: Option<String>,
    config_error: Option<String>,
    certificate_error: Option<String>,
    namespaces: Option<Vec<String>>,
    #[serde(default)]
    not_taken_in: Vec<String>,
    leader: Option<Leader>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Leader {
    holder: Option<String>,
    #[serde(rename = "self")]
    is_self: bool,
    error: Option<String>,
}

/// One answer.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) head: Head,
    leader: Value,
    sets: Vec<Value>,
    from: String,
    remarks: Vec<String>,
}

impl Document {
    pub(super) fn read(answer: Answer) -> Result<Self, Failure> {
        let Answer {
            body,
            from,
            remarks,
        } = answer;
        let not = |why: String| {
            Failure::Failed(format!(
                "{from}: its /status is not that of timeshard serve: {why}; is it the admin port (8080)?"
            ))
        };
        let mut value: Value =
            serde_json::from_slice(&body).map_err(|error| not(error.to_string()))?;
        let Some(Value::Array(sets)) = value.get_mut("statefulsets").map(Value::take) else {
            return Err(not("there is no list statefulsets".to_owned()));
        };
        let leader = value.get("leader").cloned().unwrap_or_default();
        let head = Head::deserialize(value).map_err(|error| not(error.to_string()))?;
        Ok(Self {
            head,
            leader,
            sets,
            from,
            remarks,
        })
    }

    /// Leaves what was asked for; nothing asked for is everything.
    pub(super) fn select(
        &mut self,
        wanted: &[Wanted],
        namespace: Option<&str>,
    ) -> Result<(), Failure> {
        let within = |wanted: &Wanted| {
            wanted
                .namespace
                .clone()
                .or_else(|| namespace.map(str::to_owned))
        };
        let is = |set: &Value, wanted: &Wanted| {
            text(set, "name") == wanted.name
                && within(wanted).is_none_or(|namespace| namespace == text(set, "namespace"))
        };
        for wanted in wanted {
            if !self.sets.iter().any(|set| is(set, wanted)) {
                return Err(self.unknown(within(wanted).as_deref(), Some(&wanted.name)));
            }
        }
        if wanted.is_empty()
            && !self
                .sets
                .iter()
                .any(|set| namespace.is_none_or(|namespace| text(set, "namespace") == namespace))
            && namespace.is_some()
        {
            return Err(self.unknown(namespace, None));
        }
        self.sets.retain(|set| {
            if wanted.is_empty() {
                namespace.is_none_or(|namespace| text(set, "namespace") == namespace)
            } else {
                wanted.iter().any(|wanted| is(set, wanted))
            }
        });
        Ok(())
    }

    fn unknown(&self, namespace: Option<&str>, name: Option<&str>) -> Failure {
        let labelled = |namespace: &str| {
            self.head
                .namespaces
                .as_ref()
                .is_none_or(|all| all.iter().any(|one| one == namespace))
        };
        let label = |namespace| {
            format!(
                "kubectl label namespace {namespace} {}={}",
                names::NAMESPACE_LABEL,
                names::INJECTION_ENABLED
            )
        };
        Failure::Failed(match (namespace, name) {
            (Some(namespace), _) if !labelled(namespace) => format!(
                "namespace {namespace} is not labelled: {}",
                label(namespace)
            ),
            _ if self.sets.is_empty() && !self.leads() => {
                format!(
                    "{}: it reports no StatefulSet, and it does not lead; {}",
                    self.from,
                    self.leader()
                )
            }
            (Some(namespace), Some(name)) => format!(
                "no StatefulSet {name} in namespace {namespace}; there are: {}",
                self.known()
            ),
            (Some(namespace), None) => format!("no StatefulSet in namespace {namespace}"),
            (None, name) => format!(
                "no StatefulSet {} in labelled namespaces; there are: {}",
                name.unwrap_or_default(),
                self.known()
            ),
        })
    }

    fn known(&self) -> String {
        const MOST: usize = 20;
        let all: Vec<String> = self
            .sets
            .iter()
            .take(MOST)
            .map(|set| format!("{}/{}", text(set, "namespace"), text(set, "name")))
            .collect();
        match self.sets.len() {
            0 => "none".to_owned(),
            n if n > MOST => format!("{} and {} more", all.join(", "), n - MOST),
            _ => all.join(", "),
        }
    }

    fn leads(&self) -> bool {
        self.head
            .leader
            .as_ref()
            .is_none_or(|leader| leader.is_self)
    }

    fn leader(&self) -> String {
        match self
            .head
            .leader
            .as_ref()
            .and_then(|leader| leader.holder.as_ref())
        {
            Some(holder) => format!("the leader is {holder}: ask that one"),
            None => {
                "no replica leads now; a new leader takes over within 15 s of the old one's end"
                    .to_owned()
            }
        }
    }

    /// Whether the labelled namespaces are all listed, so that no StatefulSet is left out.
    pub(super) fn is_complete(&self) -> bool {
        self.head.synced != Some(false)
    }

    /// What its reader should know beside the reports.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = self.remarks.clone();
        let head = &self.head;
        if head.webhook_only {
            remarks
                .push("the server runs with --webhook-only: it knows no StatefulSets".to_owned());
        } else if !self.leads() {
            remarks.push(format!(
                "{} does not lead, so its reports may be empty or old; {}",
                self.from,
                self.leader()
            ));
        }
        if head.leader.is_none() && !head.webhook_only {
            remarks.push(format!("{} says nothing of a leader (an older version, or --no-refresher): it moves no window", self.from));
        }
        let lease = head
            .leader
            .as_ref()
            .and_then(|leader| leader.error.as_ref());
        remarks.extend(lease.map(|error| format!("the Lease {}: {error}", names::LEASE)));
        if head.synced == Some(false) {
            remarks.push(
                "the labelled namespaces are not all listed yet: what is shown is not complete"
                    .to_owned(),
            );
        }
        let mut say = |error: &Option<String>, what: &str| {
            remarks.extend(error.iter().map(|error| format!("{what}: {error}")))
        };
        say(
            &head.config_error,
            "the configuration's last edit is refused and the last good one in force",
        );
        say(
            &head.watch_error,
            "a watch on the cluster is broken and what was last known in force",
        );
        say(
            &head.certificate_error,
            "the certificate cannot be reloaded and the last good one is in use",
        );
        remarks.extend(head.not_taken_in.iter().take(MAX_NOT_TAKEN_IN).cloned());
        if let Some(more) = head.not_taken_in.len().checked_sub(MAX_NOT_TAKEN_IN + 1) {
            remarks.push(format!(
                "in {} more namespaces something is not taken in; the server's log names it",
                more + 1
            ));
        }
        if self.sets.is_empty() && !head.webhook_only {
            remarks.push(match &head.namespaces {
                Some(labelled) if labelled.is_empty() => {
                    format!(
                        "no namespace is labelled: kubectl label namespace NAME {}={}",
                        names::NAMESPACE_LABEL,
                        names::INJECTION_ENABLED
                    )
                }
                _ => "no StatefulSets in labelled namespaces".to_owned(),
            });
        }
        remarks
    }

    /// The reports, for people.
    pub(super) fn reports(&self) -> Result<Vec<SetReport>, Failure> {
        let read = |set: &Value| {
            SetReport::deserialize(set).map_err(|error| {
                Failure::Failed(format!(
                    "{}: the report on {}/{} cannot be read by this version ({}): {error}; the server's is {:?}: use that one, or -o json",
                    self.from,
                    text(set, "namespace"),
                    text(set, "name"),
                    env!("CARGO_PKG_VERSION"),
                    self.head.version
                ))
            })
        };
        self.sets.iter().map(read).collect()
    }

    /// The reports as they are.
    pub(super) fn json(&self, pretty: bool) -> Result<String, Failure> {
        let document =
            json!({"statefulsets": self.sets, "leader": self.leader, "version": self.head.version});
        let text = if pretty {
            serde_json::to_string_pretty(&document)
        } else {
            serde_json::to_string(&document)
        };
        text.map_err(|error| Failure::Failed(error.to_string()))
    }
}

fn text<'a>(set: &'a Value, key: &str) -> &'a str {
    set.get(key).and_then(Value::as_str).unwrap_or_default()
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, text),
        };
        if name.is_empty() || name.contains('/') || namespace.as_deref() == Some("") {
            return Err("write NAME or NAMESPACE/NAME".to_owned());
        }
        Ok(Self {
            namespace,
            name: name.to_owned(),
        })
    }
}
