//! What people see of it: metrics, the reason for not being ready, the log.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use crate::adapters::tls::Certificates;
use crate::adapters::watches::WatchHealth;
use crate::core::self_signed::{Change, Leaf, Sight, Sights, Store};

/// Shared by who works and who asks.
#[derive(Debug)]
pub struct State {
    /// How the watches are.
    pub(super) watches: WatchHealth,
    certificates: Arc<Certificates>,
    /// What is watched, in words: the Secret, then the registrations.
    what: Vec<String>,
    error: Mutex<Option<String>>,
    waits_for: Mutex<Option<String>>,
    served: Mutex<Option<Leaf>>,
    leaves: AtomicU64,
    authorities: AtomicU64,
    bundles: AtomicU64,
    failures: AtomicU64,
}

impl State {
    pub(super) fn new(certificates: Arc<Certificates>, what: Vec<String>) -> Self {
        Self {
            watches: WatchHealth::default(),
            certificates,
            waits_for: Mutex::new(Some(format!("{} is not read yet", what.join(", ")))),
            what,
            error: Mutex::new(None),
            served: Mutex::new(None),
            leaves: AtomicU64::new(0),
            authorities: AtomicU64::new(0),
            bundles: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// What keeps this replica from having a certificate, or from keeping it right; `None` while all is well.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let error = self
            .error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        error.or_else(|| self.watches.last_error()).or_else(|| {
            self.waits_for
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        })
    }

    /// Whether there is a certificate to serve.
    ///
    /// # Errors
    /// Says what is waited for.
    pub fn ready(&self) -> Result<(), String> {
        if self.certificates.is_loaded() {
            return Ok(());
        }
        Err(format!(
            "no certificate yet: {}",
            self.problem()
                .unwrap_or_else(|| "the CA is being made known to the API servers".to_owned())
        ))
    }

    /// Takes what was seen: serves the leaf, if there is another one.
    pub(super) fn seen(&self, sights: &Sights, broken: Option<&str>, serve: Option<&Leaf>) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = serve {
            *served = Some(leaf.clone());
        }
        match (broken, served.as_ref()) {
            (Some(broken), _) => self.certificates.refuse(broken),
            // A failure that was told is over.
            (None, Some(leaf)) if serve.is_some() || self.certificates.last_failure().is_some() => {
                self.certificates
                    .reload_pem(leaf.chain.as_bytes(), leaf.key.0.as_bytes());
            }
            (None, _) => {}
        }
        if let Sight::Holds(Store {
            current: Some(current),
            ..
        }) = &sights.secret
        {
            self.certificates
                .set_authority(current.anchor.validity.expires.timestamp());
        }
        let waits_for = match &sights.secret {
            Sight::Unknown => Some(format!("{} is not read yet", self.secret())),
            Sight::Foreign => Some(format!(
                "{} is not labelled app.kubernetes.io/managed-by=thanos-timeshard, so it is not touched; delete it, or name another one with --self-signed-secret",
                self.secret()
            )),
            Sight::Missing | Sight::Holds(_) if sights.registrations.contains(&Sight::Unknown) => {
                Some("the webhook's registration is not read yet".to_owned())
            }
            Sight::Missing | Sight::Holds(_) => None,
        };
        let mut before = self
            .waits_for
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = waits_for
            .as_ref()
            .filter(|_| sights.secret == Sight::Foreign && *before != waits_for)
        {
            tracing::error!("{why}");
        }
        *before = waits_for;
    }

    fn secret(&self) -> &str {
        self.what.first().map_or("the Secret", String::as_str)
    }

    /// The Secret was written by this replica.
    pub(super) fn written(&self, change: &Change, store: &Store) {
        let secret = self.secret();
        let expires = |store: &Store| {
            store
                .leaf
                .as_ref()
                .map(|leaf| leaf.validity.expires.to_rfc3339())
        };
        match change {
            Change::Restore => tracing::warn!(
                secret,
                "the Secret was deleted or broken by somebody: it is as it was before"
            ),
            Change::Begin => tracing::info!(
                secret,
                "another CA is made; it signs once the API servers know it"
            ),
            Change::Renew => tracing::info!(
                secret,
                expires = expires(store),
                "another certificate is made"
            ),
            Change::Promote => tracing::info!(
                secret,
                expires = expires(store),
                "another certificate is made, and signed by the next CA"
            ),
            Change::Adopt(anchors) => {
                tracing::info!(secret, count = anchors.len(), until = ?store.trust_until, "CAs that others put into the caBundle stay in it for a while");
            }
            Change::Forget => {
                tracing::info!(secret, "CAs whose last certificate has expired are dropped")
            }
        }
        if matches!(change, Change::Renew | Change::Promote) {
            self.leaves.fetch_add(1, Relaxed);
        }
        self.authorities
            .fetch_add(u64::from(*change == Change::Promote), Relaxed);
    }

    /// A caBundle was written by this replica.
    pub(super) fn trusted(&self, what: &str, anchors: usize) {
        self.bundles.fetch_add(1, Relaxed);
        tracing::info!(anchors, "the caBundle of {what} is set");
    }

    pub(super) fn failed(&self, why: &str) {
        self.failures.fetch_add(1, Relaxed);
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        if error.as_deref() != Some(why) {
            tracing::warn!(
                error = why,
                "certificates cannot be kept right; it is tried again"
            );
            *error = Some(why.to_owned());
        }
    }

    pub(super) fn well(&self) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Registered as a collector, so that the values are those of the scrape.
#[derive(Debug)]
pub struct SelfSignedMetrics(pub Arc<State>);

impl Collector for SelfSignedMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let help = "Certificates that this replica made (--self-signed). Sum over replicas: it grows by one leaf each two thirds of \
                    its validity; much faster means that somebody edits the Secret";
        let mut family = encoder.encode_descriptor(
            "timeshard_certificate_rotations",
            help,
            None,
            MetricType::Counter,
        )?;
        for (certificate, count) in [("leaf", &self.0.leaves), ("ca", &self.0.authorities)] {
            ConstCounter::new(count.load(Relaxed))
                .encode(family.encode_family(&[("certificate", certificate)])?)?;
        }
        let mut counter = |name, help, value: &AtomicU64| {
            let counter = ConstCounter::new(value.load(Relaxed));
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
        };
        let help = "caBundles that this replica wrote (--self-signed). Two for each CA; when it keeps growing somebody else overwrites them";
        counter("timeshard_ca_bundle_writes", help, &self.0.bundles)?;
        let help = "Requests for the certificates' Secret and the caBundles that failed; the log and /status say why, often RBAC";
        counter("timeshard_self_signed_failures", help, &self.0.failures)
    }
}
