//! The webhook: its registration, the certificates, and the dry run.

use serde_json::{Value, json};

use super::super::snapshot::{Certificate, DryRun, Snapshot, Trouble};
use super::finds;
use super::fixture::{NOW, certificate, forbidden, read, webhook};

fn hook(snapshot: &mut Snapshot, change: impl FnOnce(&mut Value)) {
    let mut all = json!([webhook()]);
    change(&mut all[0]["webhooks"][0]);
    snapshot.webhooks = Ok(read(all));
}

#[test]
fn the_registration() {
    finds(&["fail webhook-registered"], |s| {
        s.webhooks = Ok(Vec::new());
    });
    finds(&["warn webhook-registered: 2 times"], |s| {
        s.webhooks = Ok(read(json!([webhook(), webhook()])));
    });
    finds(&["fail webhook-scope: rules"], |s| {
        hook(s, |w| w["rules"][0]["operations"] = json!(["UPDATE"]));
    });
    finds(&["fail webhook-scope: whole cluster"], |s| {
        hook(s, |w| w["namespaceSelector"] = json!({}));
    });
    finds(
        &["fail webhook-scope: excludes labelled namespaces: monitoring"],
        |s| {
            hook(s, |w| {
                w["namespaceSelector"]["matchLabels"] = json!({"team": "a"});
            });
        },
    );
    finds(&["warn webhook-scope: kube-system"], |s| {
        hook(s, |w| {
            w["namespaceSelector"]["matchExpressions"]
                .as_array_mut()
                .unwrap()
                .truncate(1);
        });
    });
    finds(&["warn webhook-scope: objectSelector"], |s| {
        hook(s, |w| w["objectSelector"] = json!({}));
    });
    finds(&["warn webhook-scope: not-opted-out"], |s| {
        hook(s, |w| {
            w["matchConditions"].as_array_mut().unwrap().truncate(2);
        });
    });
    finds(&["warn webhook-policy: Ignore"], |s| {
        hook(s, |w| {
            w["failurePolicy"] = json!("Ignore");
            w["matchConditions"] = Value::Null;
        });
    });
    finds(&["warn webhook-policy: 30"], |s| {
        hook(s, |w| w["timeoutSeconds"] = json!(30));
    });
    finds(&["fail webhook-policy: Some"], |s| {
        hook(s, |w| w["sideEffects"] = json!("Some"));
    });
    finds(&["fail webhook-service: does not exist"], |s| {
        s.service = Ok(None);
    });
    finds(&["fail webhook-service: port 8443"], |s| {
        hook(s, |w| w["clientConfig"]["service"]["port"] = json!(8443));
    });
    finds(&["fail webhook-service: no address"], |s| {
        s.endpoints = Ok(read(json!([{"endpoints": null, "ports": null}])));
    });
}

#[test]
fn webhooks_of_others() {
    let other = |policy: &'static str| {
        move |s: &mut Snapshot| {
            let mut all = json!([webhook(), {"metadata": {"name": "mesh"}, "webhooks": [{"name": "inject.mesh", "rules": [
                {"apiGroups": ["*"], "operations": ["*"], "resources": ["*"]}]}]}]);
            all[0]["webhooks"][0]["reinvocationPolicy"] = json!(policy);
            s.webhooks = Ok(read(all));
        }
    };
    finds(&[], other("IfNeeded"));
    finds(&["warn webhook-others: inject.mesh"], other("Never"));
}

#[test]
fn the_ca_bundle() {
    let authority = |left: i64| {
        move |s: &mut Snapshot| s.authorities = Some(Ok(vec![("CN=ca".to_owned(), NOW + left)]))
    };
    finds(&["fail webhook-ca: 2 days ago"], authority(-2 * 86_400));
    finds(&["warn webhook-ca: 2 hours"], authority(7_200));
    finds(&["fail webhook-ca: it is empty"], |s| {
        s.authorities = Some(Err("it is empty".to_owned()));
    });
}

#[test]
fn the_served_certificate() {
    for (trouble, part) in [
        (
            Trouble::UnknownIssuer,
            "fail webhook-certificate: not signed by",
        ),
        (Trouble::Expired, "fail webhook-certificate: has expired"),
        (
            Trouble::NotYetValid,
            "fail webhook-certificate: not valid yet",
        ),
        (Trouble::OtherName, "fail webhook-certificate: another name"),
        (
            Trouble::Other("odd".to_owned()),
            "fail webhook-certificate: odd",
        ),
    ] {
        let bad = Certificate {
            trouble: Some(trouble),
            ..certificate()
        };
        let of_secret = bad.clone();
        finds(&[part], |s| s.served = Ok(bad));
        finds(&[part], |s| {
            (s.served, s.secret) = (Err("timeout".to_owned()), Ok(Some(of_secret)));
        });
    }
    finds(&["warn webhook-certificate: has not been renewed"], |s| {
        s.served = Ok(Certificate {
            not_after: NOW + 3_600,
            ..certificate()
        });
    });
}

#[test]
fn a_server_that_cannot_be_connected_to_from_here() {
    let from_far = |s: &mut Snapshot| s.served = Err("timeout".to_owned());
    finds(&[], from_far);
    finds(&[], |s| {
        (s.served, s.secret) = (Err("timeout".to_owned()), Ok(None));
    });
    let untried = |s: &mut Snapshot| {
        from_far(s);
        s.dry_run = DryRun::NotTried("no right".to_owned());
    };
    finds(&["warn webhook-certificate: matches the caBundle"], untried);
    finds(
        &["warn api-permissions", "warn webhook-certificate: timeout"],
        |s| {
            untried(s);
            s.secret = forbidden("get secret");
        },
    );
    finds(&["warn webhook-certificate: does not exist"], |s| {
        untried(s);
        s.secret = Ok(None);
    });
}

#[test]
fn the_dry_run() {
    let refused = |message: &str| DryRun::Refused {
        namespace: "monitoring".to_owned(),
        message: message.to_owned(),
    };
    finds(&["fail webhook-admission: x509"], |s| {
        s.dry_run = refused(
            "failed calling webhook \"inject.thanos-timeshard.io\": x509: unknown authority",
        );
    });
    finds(&["warn webhook-admission: quota"], |s| {
        s.dry_run = refused("exceeded quota");
    });
    finds(&["fail webhook-admission: lacks sidecar"], |s| {
        s.dry_run = DryRun::Admitted {
            namespace: "m".to_owned(),
            injected: false,
        }
    });
}
