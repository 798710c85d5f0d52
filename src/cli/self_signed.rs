//! `serve --self-signed`: its flags, checked together, and what is started for them.

use std::sync::Arc;

use kube::Client;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;

use super::Failure;
use crate::adapters::self_signed::{self, Kind, Place, Registration, SelfSignedMetrics, State};
use crate::adapters::tls::Certificates;
use crate::core::duration::PromDuration;
use crate::core::names;
use crate::core::self_signed::Settings;

/// Certificates without cert-manager.
#[derive(Debug, clap::Args)]
#[allow(
    clippy::struct_field_names,
    reason = "the flags are flattened among those of serve"
)]
#[group(skip)]
#[command(next_help_heading = "Certificates without cert-manager")]
pub(super) struct Args {
    /// Make CA and certificate, keep them in a Secret, set the webhook's caBundle, and renew all of it after two thirds of its life
    #[arg(long, env = "TIMESHARD_SELF_SIGNED", conflicts_with_all = ["cert_dir", "webhook_only"])]
    pub(super) self_signed: bool,
    /// Secret with CA and certificate, in the namespace of --pod-namespace; made if it is missing
    #[arg(long, requires = "self_signed", value_name = "NAME", env = "TIMESHARD_SELF_SIGNED_SECRET", default_value = names::SELF_SIGNED_SECRET)]
    self_signed_secret: String,
    /// Service that the API server calls: the certificate is for NAME.NAMESPACE.svc
    #[arg(long, requires = "self_signed", value_name = "NAME", env = "TIMESHARD_SELF_SIGNED_SERVICE", default_value = names::SERVICE)]
    self_signed_service: String,
    /// Further DNS names on the certificate, with commas between them
    #[arg(
        long,
        requires = "self_signed",
        value_name = "NAMES",
        env = "TIMESHARD_SELF_SIGNED_DNS_NAMES",
        value_delimiter = ','
    )]
    self_signed_dns_names: Vec<String>,
    /// The `MutatingWebhookConfiguration`, and the `ValidatingWebhookConfiguration` of that name if there is one, whose caBundle is set
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
    /// How long a CA is in the caBundle before it signs: within it every API server must have learned of a change (1s to 1h)
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
    /// What is wanted, checked; `namespace` is the Secret's and the Service's.
    pub(super) fn checked(&self, namespace: &str) -> Result<(Settings, Place), Failure> {
        let name = |flag: &str, name: &str| {
            let wrong = || {
                Failure::Invalid(format!(
                    "--{flag} {name:?}: write small letters, digits, - and ., at most 253 of them"
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
        let settings = Settings::new(
            self.self_signed_ca_validity.to_chrono(),
            self.self_signed_leaf_validity.to_chrono(),
            self.self_signed_propagation.to_chrono(),
            dns_names,
        )
        .map_err(|error| Failure::Invalid(format!("--self-signed: {error}")))?;
        let webhook = name("self-signed-webhook", &self.self_signed_webhook)?;
        let registrations = [Kind::Mutating, Kind::Validating]
            .map(|kind| Registration {
                kind,
                name: webhook.clone(),
            })
            .to_vec();
        let secret = name("self-signed-secret", &self.self_signed_secret)?;
        Ok((
            settings,
            Place {
                namespace: namespace.to_owned(),
                secret,
                registrations,
            },
        ))
    }

    /// Starts to keep `certificates`, if it was asked for.
    pub(super) fn start(
        &self,
        client: &Client,
        namespace: Option<&str>,
        certificates: &Arc<Certificates>,
        tasks: &mut JoinSet<()>,
        registry: &mut Registry,
    ) -> Result<Option<Arc<State>>, Failure> {
        if !self.self_signed {
            return Ok(None);
        }
        let namespace = namespace
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| client.default_namespace());
        let (settings, place) = self.checked(namespace)?;
        let (state, keeper) = self_signed::run(client, settings, place, certificates.clone());
        registry.register_collector(Box::new(SelfSignedMetrics(state.clone())));
        tasks.spawn(keeper);
        Ok(Some(state))
    }
}

/// Whether the API server would take it as a name, and X.509 as a DNS name.
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
