//! `serve --self-signed`: validates its flags and starts the certificate rotation.

use std::sync::Arc;

use kube::Client;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;

use crate::adapters::https::tls::Certificates;
use crate::adapters::kube::certificates::{
    self, CertificateObjects, CertificateState, Registration, SelfSignedMetrics, WebhookKind,
};
use crate::cli::Failure;
use crate::core::certificates::RotationSettings;
use crate::core::model::duration::PromDuration;
use crate::core::model::names;

/// Certificates without cert-manager.
#[derive(Debug, clap::Args)]
#[allow(
    clippy::struct_field_names,
    reason = "the flags are flattened among those of serve"
)]
#[group(skip)]
#[command(next_help_heading = "Certificates without cert-manager")]
pub(super) struct Args {
    /// Create a CA and a certificate in a Secret, set the webhook's caBundle, and renew everything
    /// after two thirds of its validity
    #[arg(long, env = "TIMESHARD_SELF_SIGNED", conflicts_with_all = ["cert_dir", "webhook_only"])]
    pub(super) self_signed: bool,
    /// Secret with CA and certificate, in the namespace of --pod-namespace; created if missing
    #[arg(long, requires = "self_signed", value_name = "NAME", env = "TIMESHARD_SELF_SIGNED_SECRET", default_value = names::SELF_SIGNED_SECRET)]
    self_signed_secret: String,
    /// Service that the API server calls: the certificate is for NAME.NAMESPACE.svc
    #[arg(long, requires = "self_signed", value_name = "NAME", env = "TIMESHARD_SELF_SIGNED_SERVICE", default_value = names::SERVICE)]
    self_signed_service: String,
    /// More DNS names on the certificate, separated by commas
    #[arg(
        long,
        requires = "self_signed",
        value_name = "NAMES",
        env = "TIMESHARD_SELF_SIGNED_DNS_NAMES",
        value_delimiter = ','
    )]
    self_signed_dns_names: Vec<String>,
    /// The `MutatingWebhookConfiguration`, and the `ValidatingWebhookConfiguration` of that name if
    /// it exists, to set the caBundle in
    #[arg(long, requires = "self_signed", value_name = "NAME", env = "TIMESHARD_SELF_SIGNED_WEBHOOK", default_value = names::WEBHOOK_CONFIGURATION)]
    self_signed_webhook: String,
    /// How long a CA is valid: at least 3 times the leaf's validity
    #[arg(
        long,
        requires = "self_signed",
        value_name = "DURATION",
        env = "TIMESHARD_SELF_SIGNED_CA_VALIDITY",
        default_value = "10y"
    )]
    self_signed_ca_validity: PromDuration,
    /// How long a certificate is valid: at least 3 times the propagation
    #[arg(
        long,
        requires = "self_signed",
        value_name = "DURATION",
        env = "TIMESHARD_SELF_SIGNED_LEAF_VALIDITY",
        default_value = "90d"
    )]
    self_signed_leaf_validity: PromDuration,
    /// How long a CA is in the caBundle before it signs, so that every API server has received it (1s
    /// to 1h)
    #[arg(
        long,
        requires = "self_signed",
        value_name = "DURATION",
        env = "TIMESHARD_SELF_SIGNED_PROPAGATION",
        default_value = "2m"
    )]
    self_signed_propagation: PromDuration,
}

impl Args {
    /// Validates the flags; `namespace` is that of the Secret and the Service.
    pub(super) fn checked(
        &self,
        namespace: &str,
    ) -> Result<(RotationSettings, CertificateObjects), Failure> {
        let name = |flag: &str, name: &str| {
            let wrong = || {
                Failure::Invalid(format!(
                    "--{flag} {name:?}: use lowercase letters, digits, - and ., at most 253 characters"
                ))
            };
            if fits(name) {
                Ok(name.to_owned())
            } else {
                Err(wrong())
            }
        };
        let mut dns_names = vec![name(
            "self-signed-service",
            &format!("{}.{namespace}.svc", self.self_signed_service),
        )?];
        for further in &self.self_signed_dns_names {
            dns_names.push(name("self-signed-dns-names", further)?);
        }
        let settings = RotationSettings::new(
            self.self_signed_ca_validity.to_chrono(),
            self.self_signed_leaf_validity.to_chrono(),
            self.self_signed_propagation.to_chrono(),
            dns_names,
        )
        .map_err(|error| Failure::Invalid(format!("--self-signed: {error}")))?;
        let webhook = name("self-signed-webhook", &self.self_signed_webhook)?;
        let registrations = [WebhookKind::Mutating, WebhookKind::Validating]
            .map(|kind| Registration {
                kind,
                name: webhook.clone(),
            })
            .to_vec();
        let secret = name("self-signed-secret", &self.self_signed_secret)?;
        Ok((
            settings,
            CertificateObjects {
                namespace: namespace.to_owned(),
                secret,
                registrations,
            },
        ))
    }

    /// Starts the rotation of `certificates`, if enabled.
    pub(super) fn start(
        &self,
        client: &Client,
        namespace: Option<&str>,
        certificates: &Arc<Certificates>,
        tasks: &mut JoinSet<()>,
        registry: &mut Registry,
    ) -> Result<Option<Arc<CertificateState>>, Failure> {
        if !self.self_signed {
            return Ok(None);
        }
        let namespace = namespace
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| client.default_namespace());
        let (settings, place) = self.checked(namespace)?;
        let (state, rotation) = certificates::run(client, settings, place, certificates.clone());
        registry.register_collector(Box::new(SelfSignedMetrics(state.clone())));
        tasks.spawn(rotation);
        Ok(Some(state))
    }
}

/// Whether this is a valid object name and DNS name.
fn fits(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}
