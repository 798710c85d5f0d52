//! The state of the certificates for users: metrics, readiness, the log.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use crate::adapters::https::tls::Certificates;
use crate::adapters::kube::watch::WatchHealth;
use crate::adapters::lock::lock;
use crate::core::certificates::{CertificateStore, Leaf, Observation, Observations, StoreChange};

#[derive(Debug)]
pub struct CertificateState {
    pub(super) watches: WatchHealth,
    certificates: Arc<Certificates>,
    /// Names of the objects: the Secret, then the registrations.
    what: Vec<String>,
    error: Mutex<Option<String>>,
    waits_for: Mutex<Option<String>>,
    served: Mutex<Option<Leaf>>,
    leaves: AtomicU64,
    authorities: AtomicU64,
    bundles: AtomicU64,
    failures: AtomicU64,
}

impl CertificateState {
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

    /// Why this replica has no certificate, or cannot maintain it.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let error = lock(&self.error).clone();
        error
            .or_else(|| self.watches.last_error())
            .or_else(|| lock(&self.waits_for).clone())
    }

    /// Whether there is a certificate to serve.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub fn ready(&self) -> Result<(), String> {
        if self.certificates.is_loaded() {
            return Ok(());
        }
        Err(format!(
            "no certificate yet: {}",
            self.problem()
                .unwrap_or_else(|| "the API servers are learning the CA".to_owned())
        ))
    }

    /// Records what was observed, and serves a new leaf.
    pub(super) fn observed(
        &self,
        observations: &Observations,
        broken: Option<&str>,
        serve: Option<&Leaf>,
    ) {
        let mut served = lock(&self.served);
        if let Some(leaf) = serve {
            *served = Some(leaf.clone());
        }
        match (broken, served.as_ref()) {
            (Some(broken), _) => self.certificates.refuse(broken),
            // A reported failure is over.
            (None, Some(leaf)) if serve.is_some() || self.certificates.last_failure().is_some() => {
                self.certificates
                    .reload_pem(leaf.chain.as_bytes(), leaf.key.0.as_bytes());
            }
            (None, _) => {}
        }
        if let Observation::Holds(CertificateStore {
            current: Some(current),
            ..
        }) = &observations.secret
        {
            self.certificates
                .set_authority(current.anchor.validity.expires.timestamp());
        }
        let waits_for = match &observations.secret {
            Observation::Unknown => Some(format!("{} is not read yet", self.secret())),
            Observation::Foreign => Some(format!(
                "{} is not labelled app.kubernetes.io/managed-by=thanos-timeshard, so it is not touched; delete it, or set another name with --self-signed-secret",
                self.secret()
            )),
            Observation::Missing | Observation::Holds(_)
                if observations.registrations.contains(&Observation::Unknown) =>
            {
                Some("the webhook's registration is not read yet".to_owned())
            }
            Observation::Missing | Observation::Holds(_) => None,
        };
        let mut before = lock(&self.waits_for);
        if let Some(why) = waits_for
            .as_ref()
            .filter(|_| observations.secret == Observation::Foreign && *before != waits_for)
        {
            tracing::error!("{why}");
        }
        *before = waits_for;
    }

    fn secret(&self) -> &str {
        self.what.first().map_or("the Secret", String::as_str)
    }

    /// Logs and counts this replica's write of the Secret.
    pub(super) fn written(&self, change: &StoreChange, store: &CertificateStore) {
        let secret = self.secret();
        let expires = |store: &CertificateStore| {
            store
                .leaf
                .as_ref()
                .map(|leaf| leaf.validity.expires.to_rfc3339())
        };
        match change {
            StoreChange::Restore => {
                tracing::warn!(secret, "restored the Secret, which was deleted or damaged");
            }
            StoreChange::Begin => tracing::info!(
                secret,
                "created a new CA; it signs once the API servers trust it"
            ),
            StoreChange::Renew => {
                tracing::info!(secret, expires = expires(store), "issued a new certificate");
            }
            StoreChange::Promote => tracing::info!(
                secret,
                expires = expires(store),
                "issued a new certificate, signed by the next CA"
            ),
            StoreChange::Adopt(anchors) => {
                tracing::info!(secret, count = anchors.len(), until = ?store.trust_until, "keeping CAs of other clients in the caBundle for a while");
            }
            StoreChange::Forget => {
                tracing::info!(secret, "dropped CAs whose last certificate has expired");
            }
        }
        if matches!(change, StoreChange::Renew | StoreChange::Promote) {
            self.leaves.fetch_add(1, Relaxed);
        }
        self.authorities
            .fetch_add(u64::from(*change == StoreChange::Promote), Relaxed);
    }

    /// Logs and counts this replica's write of a caBundle.
    pub(super) fn trusted(&self, what: &str, anchors: usize) {
        self.bundles.fetch_add(1, Relaxed);
        tracing::info!(object = what, anchors, "set the caBundle");
    }

    pub(super) fn failed(&self, why: &str) {
        self.failures.fetch_add(1, Relaxed);
        let mut error = lock(&self.error);
        if error.as_deref() != Some(why) {
            tracing::warn!(error = why, "certificates cannot be maintained, retrying");
            *error = Some(why.to_owned());
        }
    }

    pub(super) fn well(&self) {
        *lock(&self.error) = None;
    }
}

/// A collector, so that the values are read at the scrape.
#[derive(Debug)]
pub struct SelfSignedMetrics(pub Arc<CertificateState>);

impl Collector for SelfSignedMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let help = "Certificates that this replica issued (--self-signed). The sum over replicas grows by one leaf each two thirds of \
                    its validity; if it grows much faster, another client edits the Secret";
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
        let help = "caBundles that this replica wrote (--self-signed). Two for each CA; if it keeps growing, another client overwrites them";
        counter("timeshard_ca_bundle_writes", help, &self.0.bundles)?;
        let help = "Failed requests for the certificates' Secret and the caBundles; the log and /status show why, often RBAC";
        counter("timeshard_self_signed_failures", help, &self.0.failures)
    }
}
