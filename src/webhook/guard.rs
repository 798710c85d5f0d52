//! One `AdmissionReview` of a StatefulSet or of its `Scale`, judged by `core::guard` and answered with the request's uid.
//!
//! What cannot be read is let through: a guard that does not know does not refuse.

use serde::de::IgnoredAny;

use super::review::{
    FORBIDDEN, MAX_NAME_CHARS, RequestView, ResponseOut, ReviewView, Reviewer, check, encode,
    not_a_review,
};
use crate::core::fleet::{Fleet, Known, StatefulSetFacts};
use crate::core::guard::{Concern, Facing, PodSource, PodsSeen, Set, SetView, Verdict, judge};
use crate::core::notice::warning;
use crate::core::printable::cut;

/// What is logged of a refusal. Characters.
const MAX_LOGGED_CHARS: usize = 1_000;

/// What the guard answers.
#[derive(Debug)]
pub struct Guarded {
    /// The `AdmissionReview` to send, or a sentence for an HTTP 400.
    pub body: Result<Vec<u8>, String>,
    /// What happened.
    pub outcome: Outcome,
}

/// How a guarded request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed, and there was nothing to say.
    Allowed,
    /// It passed with warnings, perhaps although something stands against it.
    Warned(Option<Concern>),
    /// It was refused.
    Denied(Concern),
    /// There was nothing to judge.
    Error,
}

/// What a request is about.
#[derive(Clone, Copy)]
enum About {
    StatefulSet,
    Scale,
    Other,
}

impl Reviewer {
    /// Judges one review's bytes.
    #[must_use]
    pub fn guard(&self, body: &[u8]) -> Guarded {
        let review: ReviewView<'_, SetView<'_>> = match serde_json::from_slice(body) {
            Ok(review) => review,
            Err(error) => return unreadable(body, &error),
        };
        let request = match check(&review.api_version.0, &review.kind.0, review.request) {
            Ok(request) => request,
            Err(why) => return refuse(why),
        };
        let fleet = self.fleet.load();
        let namespace = request
            .namespace
            .as_ref()
            .map_or("", |namespace| &namespace.0);
        let seen = Seen {
            fleet: &fleet,
            namespace,
            now: (self.clock)(),
            pods: self.pods.as_ref(),
        };
        let verdict = match about(&request) {
            About::Other => Verdict::default(),
            About::Scale => seen.scale(request.old_object.as_ref(), request.object.as_ref()),
            // With its pods left there is nothing to lose.
            About::StatefulSet if orphans(&request) => Verdict::default(),
            About::StatefulSet => seen.set(request.old_object, request.object),
        };
        if let Some(denial) = verdict
            .denial
            .as_ref()
            .filter(|_| request.dry_run != Some(true))
        {
            let statefulset = cut(
                request.name.as_ref().map_or("", |name| &name.0),
                MAX_NAME_CHARS,
            );
            let denial = cut(denial.lines().next().unwrap_or_default(), MAX_LOGGED_CHARS);
            tracing::info!(namespace, statefulset = &*statefulset, "refused: {denial}");
        }
        answer(&request.uid.0, verdict)
    }
}

/// What a request is judged by.
struct Seen<'a> {
    fleet: &'a Fleet,
    namespace: &'a str,
    now: chrono::DateTime<chrono::Utc>,
    pods: Option<&'a PodSource>,
}

impl Seen<'_> {
    fn set(&self, old: Option<SetView<'_>>, new: Option<SetView<'_>>) -> Verdict {
        let name = new
            .as_ref()
            .or(old.as_ref())
            .map_or_else(String::new, |set| set.name().to_owned());
        let known = [&old, &new].map(|set| {
            set.as_ref()
                .map(|set| self.known(set.facts(self.namespace)))
        });
        let pods = [old, new]
            .map(|set| set.map(|set| (set.template(), set.is_parallel(), set.into_first_pod())));
        let set = |which: usize| {
            let (known, pod) = (known[which].as_ref()?, pods[which].as_ref());
            let (template, parallel) = pod.map_or((None, false), |(template, parallel, _)| {
                (*template, *parallel)
            });
            Some(Set {
                known,
                pod: pod.map(|(_, _, pod)| pod),
                template,
                parallel,
            })
        };
        let pods = self.pods(&name);
        judge(
            set(0).as_ref(),
            set(1).as_ref(),
            &self.facing(&name, pods.as_ref()),
        )
    }

    /// A `Scale` has the numbers alone; everything else about its StatefulSet is what was observed.
    fn scale(&self, old: Option<&SetView<'_>>, new: Option<&SetView<'_>>) -> Verdict {
        let (Some(old), Some(new)) = (old, new) else {
            return Verdict::default();
        };
        let observed = self.fleet.known(self.namespace, new.name()).facts();
        if observed.name.is_empty() {
            return Verdict::default();
        }
        let [before, after] = [old, new].map(|scale| {
            self.known(StatefulSetFacts {
                replicas: scale.scale(),
                ..observed.clone()
            })
        });
        let set = |known| Set {
            known,
            pod: None,
            template: None,
            parallel: false,
        };
        let pods = self.pods(new.name());
        judge(
            Some(&set(&before)),
            Some(&set(&after)),
            &self.facing(new.name(), pods.as_ref()),
        )
    }

    fn known(&self, facts: StatefulSetFacts) -> Known {
        // For the last good meaning of annotations that do not fit.
        let observed = self.fleet.known(&facts.namespace, &facts.name);
        let observed = Some(observed).filter(|known| !known.facts().name.is_empty());
        Known::new(self.fleet.config(), facts, observed)
    }

    fn pods(&self, name: &str) -> Option<PodsSeen> {
        self.pods.and_then(|pods| pods(self.namespace, name))
    }

    fn facing<'b>(&'b self, name: &str, pods: Option<&'b PodsSeen>) -> Facing<'b> {
        Facing {
            config: self.fleet.config(),
            published: self.fleet.entries(self.namespace, name),
            pods,
            now: self.now,
        }
    }
}

fn about<O>(request: &RequestView<'_, O>) -> About {
    let sub_resource = request.sub_resource.as_ref().map_or("", |sub| &sub.0);
    match (
        &*request.resource.group.0,
        &*request.resource.resource.0,
        sub_resource,
    ) {
        ("apps", "statefulsets", "") => About::StatefulSet,
        ("apps", "statefulsets", "scale") => About::Scale,
        _ => About::Other,
    }
}

/// Whether it is a deletion that leaves the pods.
fn orphans<O>(request: &RequestView<'_, O>) -> bool {
    let policy = request
        .options
        .as_ref()
        .and_then(|options| options.propagation_policy.as_ref());
    request.operation.0 == "DELETE" && policy.is_some_and(|policy| policy.0 == "Orphan")
}

fn answer(uid: &str, verdict: Verdict) -> Guarded {
    let outcome = match (verdict.concern, &verdict.denial) {
        (Some(concern), Some(_)) => Outcome::Denied(concern),
        (None, _) if verdict.warnings.is_empty() => Outcome::Allowed,
        (concern, _) => Outcome::Warned(concern),
    };
    let denial = verdict.denial.map(|message| (FORBIDDEN, message));
    Guarded {
        body: encode(ResponseOut {
            uid,
            denial,
            patch: None,
            warnings: verdict.warnings,
        }),
        outcome,
    }
}

fn refuse(why: String) -> Guarded {
    Guarded {
        body: Err(why),
        outcome: Outcome::Error,
    }
}

/// The object inside may be what is unreadable: read the rest without it, so that the answer has a uid.
fn unreadable(body: &[u8], error: &serde_json::Error) -> Guarded {
    let Ok(review) = serde_json::from_slice::<ReviewView<'_, IgnoredAny>>(body) else {
        return refuse(not_a_review(body, error));
    };
    match check(&review.api_version.0, &review.kind.0, review.request) {
        Err(why) => refuse(why),
        Ok(request) => {
            let warnings = vec![warning(format!(
                "thanos-timeshard cannot read this object, so nothing is known of its gateways: {error}"
            ))];
            let response = ResponseOut {
                uid: &request.uid.0,
                denial: None,
                patch: None,
                warnings,
            };
            Guarded {
                body: encode(response),
                outcome: Outcome::Error,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use arc_swap::ArcSwap;
    use serde_json::{Value, json};

    use super::*;
    use crate::core::config::Config;
    use crate::core::entry::Entry;
    use crate::core::guard::PodCondition;

    /// A StatefulSet of three shards of two, everything published as planned.
    fn fleet(now: chrono::DateTime<chrono::Utc>) -> Fleet {
        let facts = StatefulSetFacts {
            namespace: "ns".to_owned(),
            name: "store".to_owned(),
            replicas: 6,
            ..StatefulSetFacts::default()
        };
        let fleet = Fleet::new(Arc::new(Config::default()))
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

    /// What is answered to scaling from 6 pods to 5, by a replica that knows this of its pods.
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
            words.contains("only store-5 does now, and store-4 is not ready"),
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
