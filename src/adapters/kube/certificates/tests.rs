//! Real keys and certificates, and the objects that they are kept in. The task itself runs against
//! a real API server, in `tests/e2e/scenarios/self-signed.sh`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::issue::Mint;
use super::*;
use crate::core::certificates::Anchor;

const NAME: &str = "timeshard.timeshard-system.svc";

fn settings() -> RotationSettings {
    RotationSettings::new(
        TimeDelta::days(3650),
        TimeDelta::days(90),
        TimeDelta::minutes(2),
        vec![NAME.to_owned()],
    )
    .unwrap()
}

fn wall() -> DateTime<Utc> {
    DateTime::from_timestamp(1_900_000_000, 0).unwrap()
}

fn after(store: CertificateStore, changes: &[StoreChange]) -> CertificateStore {
    let change = |store: CertificateStore, change: &StoreChange| {
        let bundled: Vec<Anchor> = store.anchors().chain(&store.dropped).cloned().collect();
        store
            .changed(change, &settings(), wall(), None, &bundled, &mut Mint)
            .unwrap()
    };
    changes.iter().fold(store, change)
}

fn read(secret: &DynamicObject) -> (CertificateStore, Option<String>) {
    match objects::store(secret) {
        (Observation::Holds(store), broken) => (store, broken),
        (observation, _) => panic!("{observation:?}"),
    }
}

#[test]
fn a_written_secret_is_read_back() {
    let fresh = after(CertificateStore::default(), &[StoreChange::Begin]);
    let started = after(fresh.clone(), &[StoreChange::Promote]);
    let rotating = after(started.clone(), &[StoreChange::Begin]);
    let rotated = after(
        rotating.clone(),
        &[StoreChange::Promote, StoreChange::Renew, StoreChange::Begin],
    );
    let mut dropping = rotated.clone();
    dropping.dropped = std::mem::take(&mut dropping.retired);
    for store in [fresh, started, rotating, rotated, dropping] {
        let secret = objects::secret(None, "x", &store);
        assert_eq!(read(&secret), (store.clone(), None));
        // Keys of other clients stay.
        let mut before = objects::secret(
            None,
            "x",
            &after(
                CertificateStore::default(),
                &[StoreChange::Begin, StoreChange::Promote, StoreChange::Begin],
            ),
        );
        before.data["data"]["theirs"] = json!("eA==");
        let over = objects::secret(Some(before), "x", &store);
        assert_eq!(
            (read(&over).0, &over.data["data"]["theirs"]),
            (store, &json!("eA=="))
        );
    }
}

#[test]
fn a_leaf_counts_only_with_its_key_and_under_the_one_that_signed_it() {
    let (one, two) = (
        after(
            CertificateStore::default(),
            &[StoreChange::Begin, StoreChange::Promote],
        ),
        after(
            CertificateStore::default(),
            &[StoreChange::Begin, StoreChange::Promote],
        ),
    );
    let good = objects::secret(None, "x", &one);
    let other = objects::secret(None, "x", &two);
    let leaf = one.leaf.clone().unwrap();
    assert_eq!(
        (leaf.names, leaf.issuer),
        (vec![NAME.to_owned()], one.current.unwrap().anchor.der)
    );
    let cases: [(&[&str], &str); 6] = [
        (
            &["tls.key"],
            "tls.crt is not a certificate that tls.key belongs to",
        ),
        (
            &["tls.crt"],
            "tls.crt is not a certificate that tls.key belongs to",
        ),
        (&["tls.crt", "tls.key"], "and that one of ca.crt signed"),
        (&["ca.key"], "no certificate that ca.key belongs to"),
        (
            &["ca.crt"],
            "no certificate that ca.key or next-ca.key belongs to",
        ),
        (&["ca.crt", "ca.key"], "and that one of ca.crt signed"),
    ];
    for (keys, complaint) in cases {
        for garbage in [None, Some(json!("")), Some(json!("eHg=")), Some(json!(7))] {
            let mut secret = good.clone();
            for key in keys {
                secret.data["data"][*key] = garbage
                    .clone()
                    .unwrap_or_else(|| other.data["data"][*key].clone());
            }
            let (store, broken) = read(&secret);
            let broken = broken.unwrap();
            assert!(
                !store.is_sound() && broken.starts_with("Secret x: "),
                "{keys:?}: {broken}"
            );
            assert!(!broken.contains("PRIVATE"), "{broken}");
            assert!(
                garbage.is_some() || broken.contains(complaint),
                "{keys:?}: {broken}"
            );
        }
    }
}

#[test]
fn a_secret_without_the_label_is_not_read() {
    let mut secret = objects::secret(
        None,
        "x",
        &after(
            CertificateStore::default(),
            &[StoreChange::Begin, StoreChange::Promote],
        ),
    );
    secret.metadata.labels = None;
    assert_eq!(objects::store(&secret), (Observation::Foreign, None));
}

#[test]
fn keys_are_never_printed() {
    let store = after(
        CertificateStore::default(),
        &[StoreChange::Begin, StoreChange::Promote, StoreChange::Begin],
    );
    let shown = format!("{store:?}");
    assert!(
        shown.contains("PrivateKeyPem(..)") && !shown.contains("PRIVATE"),
        "{shown}"
    );
}

#[test]
fn every_webhook_of_a_registration_gets_the_bundle_and_nothing_else_changes() {
    let store = after(
        CertificateStore::default(),
        &[StoreChange::Begin, StoreChange::Promote, StoreChange::Begin],
    );
    let anchors: Vec<Anchor> = store.anchors().cloned().collect();
    let garbage =
        STANDARD.encode("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\nhello");
    let webhooks = json!([
        {"name": "a", "unheardOf": {"x": 1}, "clientConfig": {"service": {"name": "timeshard"}}},
        {"name": "b", "clientConfig": {"service": {"name": "timeshard"}, "caBundle": garbage}},
    ]);
    let resource = Registration {
        kind: WebhookKind::Mutating,
        name: "timeshard".to_owned(),
    }
    .resource();
    let mut registration =
        DynamicObject::new("timeshard", &resource).data(json!({"webhooks": webhooks}));
    registration.metadata.resource_version = Some("7".to_owned());
    assert_eq!(
        objects::bundles(&registration),
        Observation::Holds(vec![Vec::new(), Vec::new()])
    );
    let patch = objects::trusting(&registration, &anchors);
    assert_eq!(
        (
            &patch["metadata"]["resourceVersion"],
            patch.as_object().unwrap().len()
        ),
        (&json!("7"), 2)
    );
    registration.data = json!({"webhooks": patch["webhooks"]});
    assert_eq!(
        objects::bundles(&registration),
        Observation::Holds(vec![anchors.clone(), anchors])
    );
    let mut left = patch["webhooks"].clone();
    for (left, before) in left
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .zip(webhooks.as_array().unwrap())
    {
        left["clientConfig"]["caBundle"] = before["clientConfig"]
            .get("caBundle")
            .cloned()
            .unwrap_or(Value::Null);
    }
    assert_eq!(left[0]["unheardOf"], webhooks[0]["unheardOf"]);
    assert_eq!(left[1], webhooks[1]);
    registration.data = json!({"webhooks": []});
    assert_eq!(objects::bundles(&registration), Observation::Missing);
}
