//! A review of a StatefulSet or of its `Scale`, classified by `core::admission::guard`.
//!
//! An object that cannot be read is allowed: a guard that does not know does not deny.

use super::envelope::{FORBIDDEN, MAX_ERROR_CHARS, Opened, RequestView, ResponseOut, open};
use super::review::{MAX_NAME_CHARS, Reviewer};
use crate::core::admission::guard::{
    Concern, GuardContext, GuardVerdict, GuardedSet, PodSource, PodsSeen, SetView, classify,
};
use crate::core::admission::notice::warning;
use crate::core::gateways::{Gateway, Gateways};
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::text::{short_line, truncate};

/// Longest denial in the log. Characters.
const MAX_LOGGED_CHARS: usize = 1_000;

/// The guard's answer to a review.
#[derive(Debug)]
pub struct Guarded {
    /// The `AdmissionReview` to send, or a sentence for an HTTP 400.
    pub body: Result<Vec<u8>, String>,
    pub outcome: GuardOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardOutcome {
    /// Without warnings.
    Allowed,
    /// Allowed with warnings; with a concern where mode `deny` would have denied.
    Warned(Option<Concern>),
    Denied(Concern),
    /// The review or its object could not be read.
    Error,
}

/// Kind of a request's object.
#[derive(Clone, Copy)]
enum Subject {
    StatefulSet,
    Scale,
    Other,
}

impl Reviewer {
    /// Decides a review, given its bytes.
    #[must_use]
    pub fn guard(&self, body: &[u8]) -> Guarded {
        let mut request: RequestView<'_, SetView<'_>> = match open(body) {
            Ok(Opened::Request(request)) => request,
            Ok(Opened::Unreadable(request, error)) => return unreadable(&request.uid.0, &error),
            Err(why) => {
                return Guarded {
                    body: Err(why),
                    outcome: GuardOutcome::Error,
                };
            }
        };
        let (old, new) = (request.old_object.take(), request.object.take());
        let gateways = self.gateways.load();
        let (namespace, dry_run) = (request.namespace(), request.is_dry_run());
        let facts = GuardFacts {
            gateways: &gateways,
            namespace,
            now: (self.clock)(),
            pods: self.pods.as_ref(),
        };
        let verdict = match subject(&request) {
            Subject::Other => GuardVerdict::default(),
            Subject::Scale => facts.scale(old.as_ref(), new.as_ref()),
            // The pods stay, so nothing is lost.
            Subject::StatefulSet if orphans(&request) => GuardVerdict::default(),
            Subject::StatefulSet => facts.set(old, new),
        };
        if let Some(denial) = verdict.denial.as_ref().filter(|_| !dry_run) {
            let name = request.name.as_ref().map_or("", |name| &name.0);
            let statefulset = &*truncate(name, MAX_NAME_CHARS);
            let denial = &*truncate(denial.lines().next().unwrap_or_default(), MAX_LOGGED_CHARS);
            if self.may_log(namespace, gateways.get(namespace, statefulset).is_some()) {
                tracing::info!(
                    namespace,
                    statefulset,
                    denial,
                    "denied a change of a StatefulSet"
                );
            }
        }
        answer(&request.uid.0, verdict)
    }
}

/// Everything that decides about a change besides the request.
struct GuardFacts<'a> {
    gateways: &'a Gateways,
    namespace: &'a str,
    now: chrono::DateTime<chrono::Utc>,
    pods: Option<&'a PodSource>,
}

impl GuardFacts<'_> {
    fn set(&self, old: Option<SetView<'_>>, new: Option<SetView<'_>>) -> GuardVerdict {
        let name = new
            .as_ref()
            .or(old.as_ref())
            .map_or_else(String::new, |set| set.name().to_owned());
        let gateways = [&old, &new].map(|set| {
            set.as_ref()
                .map(|set| self.gateway(set.facts(self.namespace)))
        });
        let pods = [old, new]
            .map(|set| set.map(|set| (set.template(), set.is_parallel(), set.into_first_pod())));
        let set = |which: usize| {
            let (template, parallel, pod) = pods[which].as_ref()?;
            Some(GuardedSet {
                gateway: gateways[which].as_ref()?,
                pod: Some(pod),
                template: *template,
                parallel: *parallel,
            })
        };
        self.verdict(&name, set(0).as_ref(), set(1).as_ref())
    }

    /// Decides a change of a `Scale`. It has only the number of pods; everything else about the
    /// StatefulSet is as observed.
    fn scale(&self, old: Option<&SetView<'_>>, new: Option<&SetView<'_>>) -> GuardVerdict {
        let (Some(old), Some(new)) = (old, new) else {
            return GuardVerdict::default();
        };
        let Some(observed) = self.gateways.get(self.namespace, new.name()) else {
            return GuardVerdict::default();
        };
        let [before, after] = [old, new].map(|scale| {
            self.gateway(StatefulSetFacts {
                replicas: scale.scale(),
                ..observed.facts().clone()
            })
        });
        let set = |gateway| GuardedSet {
            gateway,
            pod: None,
            template: None,
            parallel: false,
        };
        self.verdict(new.name(), Some(&set(&before)), Some(&set(&after)))
    }

    /// The gateway that these facts would make, with the last good meaning of invalid annotations.
    fn gateway(&self, facts: StatefulSetFacts) -> Gateway {
        let observed = self.gateways.get(&facts.namespace, &facts.name);
        Gateway::new(self.gateways.config(), facts, observed)
    }

    fn verdict(
        &self,
        name: &str,
        before: Option<&GuardedSet<'_>>,
        after: Option<&GuardedSet<'_>>,
    ) -> GuardVerdict {
        let pods: Option<PodsSeen> = self.pods.and_then(|pods| pods(self.namespace, name));
        let context = GuardContext {
            config: self.gateways.config(),
            published: self.gateways.entries(self.namespace, name),
            pods: pods.as_ref(),
            now: self.now,
        };
        classify(before, after, &context)
    }
}

fn subject<O>(request: &RequestView<'_, O>) -> Subject {
    match (
        &*request.resource.group.0,
        &*request.resource.resource.0,
        request.sub_resource(),
    ) {
        ("apps", "statefulsets", "") => Subject::StatefulSet,
        ("apps", "statefulsets", "scale") => Subject::Scale,
        _ => Subject::Other,
    }
}

/// True for a deletion that keeps the pods.
fn orphans<O>(request: &RequestView<'_, O>) -> bool {
    let policy = request
        .options
        .as_ref()
        .and_then(|options| options.propagation_policy.as_ref());
    request.operation.0 == "DELETE" && policy.is_some_and(|policy| policy.0 == "Orphan")
}

fn answer(uid: &str, verdict: GuardVerdict) -> Guarded {
    let outcome = match (verdict.concern, &verdict.denial) {
        (Some(concern), Some(_)) => GuardOutcome::Denied(concern),
        (None, _) if verdict.warnings.is_empty() => GuardOutcome::Allowed,
        (concern, _) => GuardOutcome::Warned(concern),
    };
    let response = ResponseOut {
        uid,
        denial: verdict.denial.map(|message| (FORBIDDEN, message)),
        warnings: verdict.warnings,
        ..ResponseOut::default()
    };
    Guarded {
        body: response.encode(),
        outcome,
    }
}

fn unreadable(uid: &str, error: &serde_json::Error) -> Guarded {
    let response = ResponseOut {
        uid,
        warnings: vec![warning(format!(
            "thanos-timeshard cannot read this object and did not check its gateways: {}",
            short_line(&error.to_string(), MAX_ERROR_CHARS)
        ))],
        ..ResponseOut::default()
    };
    Guarded {
        body: response.encode(),
        outcome: GuardOutcome::Error,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use arc_swap::ArcSwap;
    use serde_json::{Value, json};

    use super::*;
    use crate::core::admission::guard::PodCondition;
    use crate::core::config::Config;
    use crate::core::model::entry::Entry;

    /// A StatefulSet of three shards of two, everything published as planned.
    fn fleet(now: chrono::DateTime<chrono::Utc>) -> Gateways {
        let facts = StatefulSetFacts {
            namespace: "ns".to_owned(),
            name: "store".to_owned(),
            replicas: 6,
            ..StatefulSetFacts::default()
        };
        let fleet = Gateways::new(Arc::new(Config::default()))
            .with_statefulset(facts)
            .unwrap();
        let plan = &fleet.known("ns", "store").plan;
        let entry = |index: u32| {
            let at = plan.assign(index);
            (
                format!("store-{index}"),
                Entry::new(at.shard, at.replica, plan.window(at.shard, now)),
            )
        };
        let entries = (0..6).map(entry).collect();
        fleet.with_configmap("ns", "store-time-shards", entries)
    }

    /// The response to scaling from 6 pods to 5, with this knowledge of the pods.
    fn scaled(pods: impl Fn(&str, &str) -> Option<PodsSeen> + Send + Sync + 'static) -> Value {
        let clock = || chrono::DateTime::UNIX_EPOCH;
        let reviewer = Reviewer::new(Arc::new(ArcSwap::from_pointee(fleet(clock()))), clock)
            .with_pods(Arc::new(pods));
        let scale = |replicas: u32| json!({"kind": "Scale", "metadata": {"name": "store", "namespace": "ns"}, "spec": {"replicas": replicas}});
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "uid-1",
            "kind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}, "subResource": "scale",
            "resource": {"group": "apps", "version": "v1", "resource": "statefulsets"},
            "name": "store", "namespace": "ns", "operation": "UPDATE", "object": scale(5), "oldObject": scale(6), "dryRun": false}});
        let answer = reviewer.guard(review.to_string().as_bytes()).body.unwrap();
        serde_json::from_slice::<Value>(&answer).unwrap()["response"].clone()
    }

    #[test]
    fn the_only_replica_that_is_ready_is_not_scaled_away() {
        let seen = |restarts: &'static str| {
            move |namespace: &str, statefulset: &str| {
                let condition = |name: &str| {
                    if name == restarts {
                        PodCondition::NotReady
                    } else {
                        PodCondition::Ready
                    }
                };
                let names = (0..6).map(|index| format!("{statefulset}-{index}"));
                let conditions: HashMap<_, _> =
                    names.map(|name| (name.clone(), condition(&name))).collect();
                (namespace == "ns").then_some(PodsSeen {
                    conditions,
                    single_holders: None,
                })
            }
        };
        let refused = scaled(seen("store-4"));
        assert_eq!(refused["allowed"], false);
        let words = refused["status"]["message"].as_str().unwrap();
        assert!(
            words.contains("today only store-5 does, and store-4 is not ready"),
            "{words}"
        );
        for answer in [
            scaled(seen("store-5")),
            scaled(seen("none")),
            scaled(|_, _| None),
        ] {
            assert_eq!(answer["allowed"], true, "{answer}");
        }
    }
}
