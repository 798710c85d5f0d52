//! Reads and builds the Secret and the registrations.
//!
//! They are handled as JSON, so that unknown fields survive. The Secret has these keys:
//!
//! | key | |
//! |-|-|
//! | `tls.crt`, `tls.key` | served by every replica |
//! | `ca.crt` | every anchor of the caBundle, the newest first |
//! | `ca.key`, `next-ca.key` | keys of two anchors: the one that signs, and the next one |
//! | `dropped-ca.crt` | anchors to remove from the caBundle |

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use kube::ResourceExt as _;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};

use super::issue;
use crate::adapters::https::tls::{CERT_FILE, KEY_FILE};
use crate::core::certificates::{Anchor, Bundles, CertificateStore, Observation, Signer};
use crate::core::model::names;

const ANCHORS: &str = "ca.crt";
const KEY: &str = "ca.key";
const NEXT_KEY: &str = "next-ca.key";
const DROPPED: &str = "dropped-ca.crt";
/// Annotation of the Secret: until when authorities that no longer sign are trusted.
const TRUST_UNTIL: &str = "thanos-timeshard.io/trust-until";
/// Columns of base64 in PEM.
const PEM_COLUMNS: usize = 64;

pub(super) fn secrets() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Secret"), "secrets")
}

/// The content of the Secret, and a complaint if it is damaged.
pub(super) fn store(secret: &DynamicObject) -> (Observation<CertificateStore>, Option<String>) {
    if secret
        .labels()
        .get(names::MANAGED_BY_LABEL)
        .map(String::as_str)
        != Some(names::MANAGED_BY)
    {
        return (Observation::Foreign, None);
    }
    let text = |key: &str| {
        let encoded = secret
            .data
            .pointer(&format!("/data/{key}"))
            .and_then(Value::as_str)?;
        STANDARD
            .decode(encoded)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
    };
    let certificates = issue::read_all(text(ANCHORS).unwrap_or_default().as_bytes());
    let of = |key: &str| {
        text(key).and_then(|key| {
            certificates
                .iter()
                .find_map(|certificate| issue::signer(certificate, &key))
        })
    };
    let (current, next) = (of(KEY), of(NEXT_KEY));
    let signs = |anchor: &Anchor| {
        current
            .iter()
            .chain(&next)
            .any(|signer| signer.anchor.der == anchor.der)
    };
    let anchors: Vec<&Anchor> = certificates
        .iter()
        .map(|certificate| &certificate.anchor)
        .collect();
    let until = secret
        .annotations()
        .get(TRUST_UNTIL)
        .and_then(|until| DateTime::parse_from_rfc3339(until).ok());
    let store = CertificateStore {
        leaf: text(CERT_FILE)
            .zip(text(KEY_FILE))
            .and_then(|(chain, key)| issue::leaf(&chain, &key, &anchors)),
        retired: anchors
            .into_iter()
            .filter(|anchor| !signs(anchor))
            .cloned()
            .collect(),
        trust_until: until.map(|until| until.with_timezone(&Utc)),
        dropped: anchors_of(text(DROPPED).unwrap_or_default().as_bytes()),
        current,
        next,
    };
    let broken = (!store.is_sound()).then(|| complaint(secret, &store));
    (Observation::Holds(store), broken)
}

fn complaint(secret: &DynamicObject, store: &CertificateStore) -> String {
    let what = match (&store.current, &store.leaf) {
        (None, None) => format!("{ANCHORS} has no certificate that {KEY} or {NEXT_KEY} belongs to"),
        (None, Some(_)) => format!("{ANCHORS} has no certificate that {KEY} belongs to"),
        (Some(_), None) => format!(
            "{CERT_FILE} is not a certificate that {KEY_FILE} belongs to and that one of {ANCHORS} signed"
        ),
        (Some(_), Some(_)) => {
            format!("{CERT_FILE} is not signed by the certificate that {KEY} belongs to")
        }
    };
    format!("Secret {}: {what}; it is restored", secret.name_any())
}

fn anchors_of(pem: &[u8]) -> Vec<Anchor> {
    issue::read_all(pem)
        .into_iter()
        .map(|certificate| certificate.anchor)
        .collect()
}

/// The Secret with this content: `before` with timeshard's keys replaced, or a new one.
pub(super) fn secret(
    before: Option<DynamicObject>,
    name: &str,
    store: &CertificateStore,
) -> DynamicObject {
    let mut secret = before.unwrap_or_else(|| {
        let mut secret =
            DynamicObject::new(name, &secrets()).data(json!({"type": "kubernetes.io/tls"}));
        secret.labels_mut().insert(
            names::MANAGED_BY_LABEL.to_owned(),
            names::MANAGED_BY.to_owned(),
        );
        secret
    });
    // Objects of a list have no type.
    secret.types = DynamicObject::new(name, &secrets()).types;
    let anchors: Vec<Anchor> = store.anchors().cloned().collect();
    let key = |signer: &Option<Signer>| {
        signer
            .as_ref()
            .map(|signer| signer.key.0.clone())
            .unwrap_or_default()
    };
    let leaf = store.leaf.as_ref();
    let content = BTreeMap::from([
        (
            CERT_FILE,
            leaf.map(|leaf| leaf.chain.clone()).unwrap_or_default(),
        ),
        (
            KEY_FILE,
            leaf.map(|leaf| leaf.key.0.clone()).unwrap_or_default(),
        ),
        (ANCHORS, pem(&anchors)),
        (KEY, key(&store.current)),
        (NEXT_KEY, key(&store.next)),
        (DROPPED, pem(&store.dropped)),
    ]);
    if !secret.data["data"].is_object() {
        secret.data["data"] = json!({});
    }
    for (key, text) in content {
        // The Secret's type requires these two, even when there is nothing to serve yet.
        if text.is_empty() && key != CERT_FILE && key != KEY_FILE {
            secret.data["data"]
                .as_object_mut()
                .map(|data| data.remove(key));
        } else {
            secret.data["data"][key] = json!(STANDARD.encode(text));
        }
    }
    match store.trust_until {
        Some(until) => secret.annotations_mut().insert(
            TRUST_UNTIL.to_owned(),
            until.to_rfc3339_opts(SecondsFormat::Secs, true),
        ),
        None => secret.annotations_mut().remove(TRUST_UNTIL),
    };
    secret
}

/// The caBundles of a registration, one for each webhook.
pub(super) fn bundles(registration: &DynamicObject) -> Observation<Bundles> {
    let bundle = |webhook: &Value| {
        let encoded = webhook
            .pointer("/clientConfig/caBundle")
            .and_then(Value::as_str)
            .unwrap_or_default();
        anchors_of(&STANDARD.decode(encoded).unwrap_or_default())
    };
    match registration.data.get("webhooks").and_then(Value::as_array) {
        Some(webhooks) if !webhooks.is_empty() => {
            Observation::Holds(webhooks.iter().map(bundle).collect())
        }
        _ => Observation::Missing,
    }
}

/// A merge patch that sets the caBundle of every webhook, if the registration is unchanged.
pub(super) fn trusting(registration: &DynamicObject, anchors: &[Anchor]) -> Value {
    let encoded = STANDARD.encode(pem(anchors));
    let mut webhooks = registration.data["webhooks"].clone();
    for webhook in webhooks.as_array_mut().into_iter().flatten() {
        webhook["clientConfig"]["caBundle"] = json!(encoded);
    }
    json!({"metadata": {"resourceVersion": registration.resource_version()}, "webhooks": webhooks})
}

fn pem(anchors: &[Anchor]) -> String {
    anchors
        .iter()
        .map(|anchor| {
            let encoded = STANDARD.encode(&anchor.der);
            let lines: Vec<&str> = (0..encoded.len())
                .step_by(PEM_COLUMNS)
                .map(|at| &encoded[at..encoded.len().min(at + PEM_COLUMNS)])
                .collect();
            format!(
                "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                lines.join("\n")
            )
        })
        .collect()
}
