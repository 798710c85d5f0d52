//! Certificates without cert-manager: watches the Secret and the registrations, and carries out what
//! [`Custodian`] decides.
//!
//! Invariants: every write names the version that was seen, and has a deadline; one that lost against another replica's reads
//! what won; what cannot be done is tried again every [`RETRY`], counted, and logged once. Keys are in memory and in the
//! Secret, in no log and no error.
//!
//! Deliberately absent: a leader (admission must get its certificate on clusters where nobody leads), and a Secret that is
//! not labelled as ours: it is never touched.

mod issue;
mod objects;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watcher;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub use self::state::{SelfSignedMetrics, State};
use super::causes::with_causes;
use super::clock;
use super::tls::Certificates;
use super::watches::{Patience, WatchHealth, config, keep};
use crate::core::names;
use crate::core::self_signed::{Anchor, Change, Custodian, Settings, Sight, Sights, Step, Store};

/// One request may take this long.
const REQUEST: Duration = Duration::from_secs(10);
/// What failed is tried again after this.
pub const RETRY: Duration = Duration::from_secs(2);

/// A kind of object that registers webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `MutatingWebhookConfiguration`.
    Mutating,
    /// `ValidatingWebhookConfiguration`.
    Validating,
}

/// An object that registers webhooks of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl Registration {
    fn resource(&self) -> ApiResource {
        let (kind, plural) = match self.kind {
            Kind::Mutating => (
                "MutatingWebhookConfiguration",
                "mutatingwebhookconfigurations",
            ),
            Kind::Validating => (
                "ValidatingWebhookConfiguration",
                "validatingwebhookconfigurations",
            ),
        };
        ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind),
            plural,
        )
    }
}

/// Where certificates are kept, and who must trust them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
    /// Whose caBundles are set.
    pub registrations: Vec<Registration>,
}

/// An object as it was last seen.
#[derive(Clone, Debug, Default)]
enum Seen {
    #[default]
    Unknown,
    Missing,
    There(Box<DynamicObject>),
}

/// The objects as they were last seen: the Secret, then the registrations.
type Board = Vec<Seen>;

/// An object that is watched.
struct Watched {
    api: Api<DynamicObject>,
    name: String,
    what: String,
}

/// Why a step could not be carried out.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer within {} s", REQUEST.as_secs())]
    Late,
    #[error("{}", with_causes(.0))]
    Request(kube::Error),
    #[error(transparent)]
    Issue(#[from] issue::IssueError),
}

/// Keeps `certificates` from the Secret, and the Secret and the caBundles right, for as long as the future is polled.
pub fn run(
    client: &Client,
    settings: Settings,
    place: Place,
    certificates: Arc<Certificates>,
) -> (Arc<State>, impl Future<Output = ()> + Send + use<>) {
    let mut watched = vec![Watched {
        api: Api::namespaced_with(client.clone(), &place.namespace, &objects::secrets()),
        what: format!("Secret {}/{}", place.namespace, place.secret),
        name: place.secret,
    }];
    for registration in place.registrations {
        let resource = registration.resource();
        let what = format!("{} {}", resource.kind, registration.name);
        watched.push(Watched {
            api: Api::all_with(client.clone(), &resource),
            name: registration.name,
            what,
        });
    }
    let (board, seen) = watch::channel(vec![Seen::Unknown; watched.len()]);
    let state = Arc::new(State::new(
        certificates,
        watched.iter().map(|watched| watched.what.clone()).collect(),
    ));
    let keeper = Keeper {
        custodian: Custodian::new(settings),
        watched,
        board,
        seen,
        state: state.clone(),
        origin: Instant::now(),
    };
    (state, keeper.run())
}

struct Keeper {
    custodian: Custodian,
    watched: Vec<Watched>,
    board: watch::Sender<Board>,
    seen: watch::Receiver<Board>,
    state: Arc<State>,
    /// Time zero of the custodian's clock.
    origin: Instant,
}

impl Keeper {
    async fn run(self) {
        let Self {
            custodian,
            watched,
            board,
            seen,
            state,
            origin,
        } = self;
        let follow = join_all(
            watched
                .iter()
                .enumerate()
                .map(|(index, watched)| follow(watched, index, &board, &state.watches)),
        );
        let mut work = Work {
            custodian,
            watched: &watched,
            board: &board,
            seen,
            state: &state,
            origin,
            last: None,
        };
        tokio::join!(follow, work.run());
    }
}

/// Follows one object.
async fn follow(
    watched: &Watched,
    index: usize,
    board: &watch::Sender<Board>,
    health: &WatchHealth,
) {
    let put = |seen: Seen| {
        board.send_modify(|board| {
            if let Some(place) = board.get_mut(index) {
                *place = seen;
            }
        });
    };
    let is_there = || matches!(board.borrow().get(index), Some(Seen::There(_)));
    let one = config(&watched.what).fields(&format!("metadata.name={}", watched.name));
    keep(
        watcher(watched.api.clone(), one).backoff(Patience::default()),
        health,
        &watched.what,
        || {
            if !is_there() {
                put(Seen::Missing);
            }
        },
        |object| put(Seen::There(Box::new(object))),
        |_| put(Seen::Missing),
        || {
            if is_there() {
                vec![watched.name.clone()]
            } else {
                Vec::new()
            }
        },
    )
    .await;
}

struct Work<'a> {
    custodian: Custodian,
    watched: &'a [Watched],
    board: &'a watch::Sender<Board>,
    seen: watch::Receiver<Board>,
    state: &'a State,
    origin: Instant,
    /// What was last written to the Secret, and when.
    last: Option<(Change, Instant)>,
}

impl Work<'_> {
    async fn run(&mut self) {
        loop {
            let board = self.seen.borrow_and_update().clone();
            let (sights, broken) = sights(&board);
            let look = self
                .custodian
                .look(self.origin.elapsed(), clock::now(), &sights);
            self.state
                .seen(&sights, broken.as_deref(), look.serve.as_ref());
            let done = match &look.step {
                Step::WaitUntil(at) => {
                    tokio::select! {
                        // The sender lives as long as this.
                        _ = self.seen.changed() => {}
                        () = sleep_until(self.origin + *at) => {}
                    }
                    continue;
                }
                Step::Write(change) => self.write(change, &sights, &board).await,
                Step::Trust {
                    registration,
                    anchors,
                } => self.trust(registration + 1, anchors, &board).await,
            };
            match done {
                Ok(()) => self.state.well(),
                Err(failure) => {
                    self.state.failed(&failure.to_string());
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn write(
        &mut self,
        change: &Change,
        sights: &Sights,
        board: &Board,
    ) -> Result<(), Failure> {
        let again = |(last, at): &(Change, Instant)| last == change && at.elapsed() < RETRY;
        if self.last.as_ref().is_some_and(again) {
            // Somebody undoes it as fast as it is done.
            sleep(RETRY).await;
        }
        self.last = Some((change.clone(), Instant::now()));
        let before = if let Sight::Holds(store) = &sights.secret {
            store.clone()
        } else {
            Store::default()
        };
        let (memory, settings) = (self.custodian.memory(), self.custodian.settings());
        let after = before.changed(
            change,
            settings,
            clock::now(),
            memory,
            &sights.bundled(),
            &mut issue::Mint,
        )?;
        let Watched { api, name, .. } = &self.watched[0];
        let params = PostParams {
            field_manager: Some(names::MANAGED_BY.to_owned()),
            ..PostParams::default()
        };
        let answer = match board.first() {
            // With the resourceVersion that was seen.
            Some(Seen::There(object)) => {
                let secret = objects::secret(Some((**object).clone()), name, &after);
                within(api.replace(name, &params, &secret)).await
            }
            _ => within(api.create(&params, &objects::secret(None, name, &after))).await,
        };
        if self.sent(0, answer).await? {
            self.state.written(change, &after);
        }
        Ok(())
    }

    async fn trust(&self, index: usize, anchors: &[Anchor], board: &Board) -> Result<(), Failure> {
        let (Some(Seen::There(object)), Some(watched)) =
            (board.get(index), self.watched.get(index))
        else {
            return Ok(());
        };
        let patch = Patch::Merge(objects::trusting(object, anchors));
        let params = PatchParams {
            field_manager: Some(names::MANAGED_BY.to_owned()),
            ..PatchParams::default()
        };
        let answer = within(watched.api.patch(&watched.name, &params, &patch)).await;
        if self.sent(index, answer).await? {
            self.state.trusted(&watched.what, anchors.len());
        }
        Ok(())
    }

    /// Takes the answer to a write: what stands now is seen at once. Whether it was ours.
    async fn sent(
        &self,
        index: usize,
        answer: Result<DynamicObject, Failure>,
    ) -> Result<bool, Failure> {
        let (seen, ours) = match answer {
            Ok(object) => (Seen::There(Box::new(object)), true),
            Err(Failure::Request(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                let refusal = Failure::Request(kube::Error::Api(status));
                match within(self.watched[index].api.get_opt(&self.watched[index].name)).await? {
                    Some(object) => (Seen::There(Box::new(object)), false),
                    // Not there, and it cannot be made: its namespace is missing or goes.
                    None if matches!(self.board.borrow().get(index), Some(Seen::Missing)) => {
                        return Err(refusal);
                    }
                    None => (Seen::Missing, false),
                }
            }
            Err(failure) => return Err(failure),
        };
        self.board.send_modify(|board| board[index] = seen);
        Ok(ours)
    }
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    timeout(REQUEST, request)
        .await
        .map_err(|_| Failure::Late)?
        .map_err(Failure::Request)
}

fn sights(board: &Board) -> (Sights, Option<String>) {
    let mut broken = None;
    let secret = match board.first() {
        None | Some(Seen::Unknown) => Sight::Unknown,
        Some(Seen::Missing) => Sight::Missing,
        Some(Seen::There(object)) => {
            let (sight, complaint) = objects::store(object);
            broken = complaint;
            sight
        }
    };
    let registration = |seen: &Seen| match seen {
        Seen::Unknown => Sight::Unknown,
        Seen::Missing => Sight::Missing,
        Seen::There(object) => objects::bundles(object),
    };
    (
        Sights {
            secret,
            registrations: board.iter().skip(1).map(registration).collect(),
        },
        broken,
    )
}
