//! What the queriers say about the pods: which of them count, what a pod waits for, and when the
//! delays may be shortened.
//!
//! In: the last answer of each querier. Out, for one pod: whether queriers still use it while it
//! drains ([`Queriers::leaving`], for `orders`), and whether they use it after its return
//! ([`Queriers::returning`], for `classify`). Next for a window: `controller/reconcile/publish.rs`.
//!
//! - A querier counts if its arguments name a Service of the StatefulSet, or if it has listed one of
//!   the pods. It then *prolongs*: a pod's drain lasts while the querier lists the pod, and a pod is
//!   confirmed once the querier lists it without an error, in an answer to a request that was sent
//!   after the pod became ready. A querier that is known only by what it lists is waited for if it
//!   listed this pod before, as far as this leader knows.
//! - A querier that cannot be asked, or lists a group instead of pods, keeps the delays: nothing is
//!   known about it.
//! - Answers *shorten* the delays only if the user says that these are all queriers, at least one
//!   counts, and every single one tells about pods; one that lists nothing tells nothing.

use std::time::Duration;

use super::View;
use crate::core::kube::observed::PodFacts;
use crate::core::rollout::queriers::{
    GrpcAddresses, Listing, MAX_ANSWER_AGE, ObservedQuerier, PodListing, QuerierAnswer,
};
use crate::core::rollout::report::QuerierState;

/// A querier that does not answer is waited for this long after its last answer.
const UNKNOWN_AFTER: Duration = Duration::from_secs(30);

/// What one querier says.
enum Standing<'a> {
    /// It uses none of the pods.
    Apart,
    /// It has given no answer yet, or none recently.
    Asked,
    /// It lists none of the pods, but other endpoints: a group, or a Service's own address.
    Group,
    /// It cannot be asked.
    Unknown,
    Counts(Listing<'a>),
}

struct JudgedQuerier<'a> {
    querier: &'a ObservedQuerier,
    standing: Standing<'a>,
}

/// The queriers of a StatefulSet.
pub(super) struct Queriers<'a> {
    view: &'a View<'a>,
    all: Vec<JudgedQuerier<'a>>,
    /// Whether answers may shorten the delays.
    shorten: bool,
}

/// Which querier a pod waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QuerierWait {
    /// Position in [`View::queriers`].
    pub(super) querier: usize,
    pub(super) until: WaitUntil,
    pub(super) since: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WaitUntil {
    /// It lists the pod no more.
    Drops,
    /// It lists the pod without an error; with the error that it lists now.
    Lists(Option<String>),
    /// It answers.
    Answers,
}

/// What the queriers say about a pod that leaves discovery.
pub(super) enum Leaving {
    Waits(QuerierWait),
    /// No querier that counts uses the pod. `all`: nor does any other.
    Dropped {
        all: bool,
    },
}

/// What the queriers say about a pod that came back.
pub(super) enum Returning {
    Waits(QuerierWait),
    /// Every querier that counts uses the pod. `all`: there are no others.
    Known {
        all: bool,
    },
}

impl<'a> Queriers<'a> {
    pub(super) fn judge(view: &'a View<'a>) -> Self {
        let all: Vec<JudgedQuerier<'a>> = view
            .queriers
            .iter()
            .map(|querier| JudgedQuerier {
                querier,
                standing: standing(querier, view),
            })
            .collect();
        let counts = |judged: &JudgedQuerier<'_>| matches!(judged.standing, Standing::Counts(_));
        // One that lists nothing has perhaps just started, with older answers of DNS than others.
        let tells = |judged: &JudgedQuerier<'_>| match &judged.standing {
            Standing::Counts(_) | Standing::Apart => judged.querier.lists_any(),
            Standing::Asked | Standing::Group | Standing::Unknown => false,
        };
        let shorten = view.gateway.sharding.queriers_complete()
            && all.iter().any(counts)
            && all.iter().all(tells);
        Self { view, all, shorten }
    }

    /// Whether a querier counts now.
    pub(super) fn any_counts(&self) -> bool {
        let counts = |judged: &JudgedQuerier<'_>| matches!(judged.standing, Standing::Counts(_));
        self.all.iter().any(counts)
    }

    /// A querier that must answer before a step can start.
    pub(super) fn unanswered(&self) -> Option<&'a ObservedQuerier> {
        let waits = |judged: &&JudgedQuerier<'_>| match judged.standing {
            Standing::Asked => true,
            Standing::Unknown => self.answered_recently(judged.querier),
            Standing::Apart | Standing::Group | Standing::Counts(_) => false,
        };
        self.all.iter().find(waits).map(|judged| judged.querier)
    }

    /// What they say about a pod that has been unready for `out_for`.
    pub(super) fn leaving(&self, pod: &PodFacts, out_for: Duration) -> Leaving {
        let wait = |querier, until| {
            Leaving::Waits(QuerierWait {
                querier,
                until,
                since: out_for,
            })
        };
        let mut unanswered = None;
        for (i, judged) in self.all.iter().enumerate() {
            let answered = match &judged.standing {
                Standing::Counts(listing) => {
                    if listing.pod(pod, addresses(self.view)).is_some() {
                        return wait(i, WaitUntil::Drops);
                    }
                    judged.querier.answered_ago.is_some_and(|ago| ago < out_for)
                }
                Standing::Asked => false,
                Standing::Unknown => !self.answered_recently(judged.querier),
                Standing::Apart | Standing::Group => true,
            };
            if !answered && unanswered.is_none() {
                unanswered = Some(i);
            }
        }
        match unanswered {
            Some(i) => wait(i, WaitUntil::Answers),
            None => Leaving::Dropped { all: self.shorten },
        }
    }

    /// What they say about a pod that has been ready for `ready_for`.
    pub(super) fn returning(&self, pod: &PodFacts, ready_for: Duration) -> Returning {
        for (i, judged) in self.all.iter().enumerate() {
            let Standing::Counts(listing) = &judged.standing else {
                continue;
            };
            let uid = &judged.querier.uid;
            let expects = judged.querier.expected
                || self.shorten
                || self.view.querier_memory.has_listed(uid, &pod.name);
            let ago = judged.querier.answered_ago;
            let until = match listing.pod(pod, addresses(self.view)) {
                _ if ago.is_none_or(|ago| ago > ready_for) => WaitUntil::Answers,
                Some(PodListing::Failing(why)) => WaitUntil::Lists(Some(why.to_owned())),
                None if expects => WaitUntil::Lists(None),
                Some(PodListing::Used) | None => continue,
            };
            let not_used_for = self.view.querier_memory.not_used_for(uid, &pod.name);
            return Returning::Waits(QuerierWait {
                querier: i,
                until,
                since: ready_for.min(not_used_for.unwrap_or(ready_for)),
            });
        }
        Returning::Known { all: self.shorten }
    }

    fn answered_recently(&self, querier: &ObservedQuerier) -> bool {
        let ago = self.view.querier_memory.answered_ago(&querier.uid);
        ago.is_some_and(|ago| ago < UNKNOWN_AFTER)
    }

    /// The state of a querier for users; `None` for one that uses none of the pods.
    pub(super) fn state(&self, at: usize) -> Option<QuerierState> {
        let judged = &self.all[at];
        Some(match &judged.standing {
            Standing::Apart => return None,
            Standing::Asked => match &judged.querier.answer {
                QuerierAnswer::Stores(_) if !counts(judged.querier, self.view) => return None,
                QuerierAnswer::Stores(_) => QuerierState::Answers,
                QuerierAnswer::Pending | QuerierAnswer::Unknown(_) => QuerierState::Pending,
            },
            Standing::Group => QuerierState::Group,
            Standing::Unknown => QuerierState::Unknown,
            Standing::Counts(_) => QuerierState::Answers,
        })
    }
}

fn addresses<'a>(view: &View<'a>) -> GrpcAddresses<'a> {
    let facts = view.gateway.facts();
    GrpcAddresses {
        namespace: &facts.namespace,
        port: facts.grpc_port,
    }
}

/// Whether the querier uses the pods, by its arguments or by what it has listed.
fn counts(querier: &ObservedQuerier, view: &View<'_>) -> bool {
    querier.expected || view.querier_memory.has_listed_any(&querier.uid)
}

fn standing<'a>(querier: &'a ObservedQuerier, view: &View<'_>) -> Standing<'a> {
    let stores = match &querier.answer {
        QuerierAnswer::Pending => return Standing::Asked,
        QuerierAnswer::Unknown(_) => return Standing::Unknown,
        QuerierAnswer::Stores(stores) => stores,
    };
    if querier.answered_ago.is_none_or(|ago| ago > MAX_ANSWER_AGE) {
        return Standing::Asked;
    }
    let listing = Listing::of(stores);
    let lists = |pod: &PodFacts| listing.pod(pod, addresses(view)).is_some();
    let lists_any = || view.pods.values().any(|pod| lists(pod.facts));
    if view.querier_memory.has_listed_any(&querier.uid) || lists_any() {
        Standing::Counts(listing)
    } else if !querier.expected {
        Standing::Apart
    } else if listing.is_empty() {
        // It has just started, or finds none of its endpoints.
        Standing::Counts(listing)
    } else {
        Standing::Group
    }
}
