//! The server's `/status`, read leniently: unknown keys are kept for `-o json` and otherwise ignored.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failure, StatefulSetName};
use crate::adapters::kube::server_status::StatusAnswer;
use crate::core::model::names;
use crate::core::model::text::listed;
use crate::core::rollout::report::SetReport;
use crate::core::server_status::ServerStatus;

/// How many namespaces with skipped objects are listed; the server names the first objects of each.
const MAX_NOT_TAKEN_IN: usize = 5;

/// How many labelled namespaces a message names.
const MAX_LISTED_NAMESPACES: usize = 5;

/// One answer.
#[derive(Debug)]
pub(super) struct StatusDocument {
    pub(super) head: ServerStatus,
    leader: Value,
    sets: Vec<Value>,
    from: String,
    remarks: Vec<String>,
}

impl StatusDocument {
    pub(super) fn read(answer: StatusAnswer) -> Result<Self, Failure> {
        let StatusAnswer {
            body,
            from,
            remarks,
        } = answer;
        let not = |why: String| {
            Failure::Failed(format!(
                "{from}: its /status is not from timeshard serve: {why}; is it the admin port (8080)?"
            ))
        };
        let mut value: Value =
            serde_json::from_slice(&body).map_err(|error| not(error.to_string()))?;
        let statefulsets = value
            .as_object_mut()
            .and_then(|document| document.remove("statefulsets"));
        let Some(Value::Array(sets)) = statefulsets else {
            return Err(not("it has no list statefulsets".to_owned()));
        };
        let leader = value.get("leader").cloned().unwrap_or_default();
        let head = ServerStatus::deserialize(value).map_err(|error| not(error.to_string()))?;
        Ok(Self {
            head,
            leader,
            sets,
            from,
            remarks,
        })
    }

    /// Keeps the given StatefulSets; all if none are given.
    pub(super) fn select(
        &mut self,
        wanted: &[StatefulSetName],
        namespace: Option<&str>,
    ) -> Result<(), Failure> {
        let within = |wanted: &StatefulSetName| {
            wanted
                .namespace
                .clone()
                .or_else(|| namespace.map(str::to_owned))
        };
        let is = |set: &Value, wanted: &StatefulSetName| {
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
        Failure::Failed(match (namespace, name) {
            (Some(namespace), _) if !labelled(namespace) => format!(
                "namespace {namespace} is not labelled: {}",
                names::label_command(namespace)
            ),
            _ if self.sets.is_empty() && !self.leads() => {
                format!(
                    "{}: it reports no StatefulSet, and it is not the leader; {}",
                    self.from,
                    self.leader()
                )
            }
            (Some(namespace), Some(name)) => format!(
                "no StatefulSet {name} in namespace {namespace}; there are: {}",
                self.known()
            ),
            (Some(namespace), None) => format!(
                "no StatefulSet in namespace {namespace}; there are: {}",
                self.known()
            ),
            (None, name) => format!(
                "no StatefulSet {} in {}; there are: {}",
                name.unwrap_or_default(),
                self.labelled(),
                self.known()
            ),
        })
    }

    /// The labelled namespaces, in messages.
    fn labelled(&self) -> String {
        match self.head.namespaces.as_deref() {
            None | Some([]) => "labelled namespaces".to_owned(),
            Some([one]) => format!("the labelled namespace {one}"),
            Some(several) => format!(
                "the labelled namespaces {}",
                listed(several, MAX_LISTED_NAMESPACES)
            ),
        }
    }

    fn known(&self) -> String {
        const MAX: usize = 20;
        let all: Vec<String> = self
            .sets
            .iter()
            .map(|set| format!("{}/{}", text(set, "namespace"), text(set, "name")))
            .collect();
        if all.is_empty() {
            "none".to_owned()
        } else {
            listed(&all, MAX)
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
            Some(holder) => format!("the leader is {holder}"),
            None => "there is no leader at the moment; a new one takes over within 15 s".to_owned(),
        }
    }

    /// Whether the server has listed every labelled namespace, so that no StatefulSet is missing.
    pub(super) fn is_complete(&self) -> bool {
        self.head.synced != Some(false)
    }

    /// Problems of the server, for people.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = self.remarks.clone();
        let head = &self.head;
        if head.webhook_only {
            remarks.push(
                "the server runs with --webhook-only: it does not know any StatefulSets".to_owned(),
            );
        } else if !self.leads() {
            remarks.push(format!(
                "{} is not the leader, so its reports may be empty or old; {}",
                self.from,
                self.leader()
            ));
        }
        if head.leader.is_none() && !head.webhook_only {
            remarks.push(format!(
                "{} reports no leader (an older version, or --no-refresher), so it moves no window",
                self.from
            ));
        }
        let lease = head
            .leader
            .as_ref()
            .and_then(|leader| leader.error.as_ref());
        remarks.extend(lease.map(|error| format!("the Lease {}: {error}", names::LEASE)));
        if head.synced == Some(false) {
            remarks.push(
                "some labelled namespaces have not been listed yet, so this output is incomplete"
                    .to_owned(),
            );
        }
        let mut add = |error: &Option<String>, problem: &str| {
            remarks.extend(error.iter().map(|error| format!("{problem}: {error}")));
        };
        add(
            &head.config_error,
            "the last edit of the configuration was rejected; the last valid one stays in force",
        );
        add(
            &head.watch_error,
            "a watch on the cluster fails; the last known state stays in force",
        );
        add(
            &head.certificate_error,
            "the certificate cannot be reloaded; the last valid one stays in use",
        );
        remarks.extend(head.not_taken_in.iter().take(MAX_NOT_TAKEN_IN).cloned());
        if let Some(more) = head.not_taken_in.len().checked_sub(MAX_NOT_TAKEN_IN + 1) {
            remarks.push(format!(
                "the server skips objects in {} more namespaces; its log names them",
                more + 1
            ));
        }
        if self.sets.is_empty() && !head.webhook_only {
            remarks.push(match &head.namespaces {
                Some(labelled) if labelled.is_empty() => {
                    format!("no namespace is labelled: {}", names::label_command("NAME"))
                }
                _ => format!(
                    "no StatefulSet in {}; to use another namespace: {}",
                    self.labelled(),
                    names::label_command("NAME")
                ),
            });
        }
        remarks
    }

    /// Parses the reports.
    pub(super) fn reports(&self) -> Result<Vec<SetReport>, Failure> {
        let read = |set: &Value| {
            SetReport::deserialize(set).map_err(|error| {
                Failure::Failed(format!(
                    "{}: this version ({}) cannot read the report of {}/{}: {error}; use the server's version ({:?}), or -o json",
                    self.from,
                    env!("CARGO_PKG_VERSION"),
                    text(set, "namespace"),
                    text(set, "name"),
                    self.head.version
                ))
            })
        };
        self.sets.iter().map(read).collect()
    }

    /// Returns the reports unparsed.
    pub(super) fn parts(&self) -> Value {
        json!({"statefulsets": self.sets, "leader": self.leader, "version": self.head.version})
    }
}

fn text<'a>(set: &'a Value, key: &str) -> &'a str {
    set.get(key).and_then(Value::as_str).unwrap_or_default()
}
