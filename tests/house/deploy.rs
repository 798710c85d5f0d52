//! The manifests and the program agree on names, ports, paths and rights.

use std::collections::BTreeSet;

use proptest::prelude::*;
use regex::bytes::{Regex, RegexBuilder};
use serde_json::{Value, json};
use thanos_timeshard::core::config::Config;
use thanos_timeshard::core::names;
use thanos_timeshard::core::store_args::mentions_store;

use crate::{at, files};

pub(crate) fn documents(folder: &str) -> Vec<Value> {
    let mut documents = Vec::new();
    // The chart's templates are no YAML before Helm has rendered them; tests/e2e/scenarios/chart.sh compares what they become.
    for path in files(folder, "yaml")
        .into_iter()
        .filter(|path| !path.starts_with(at("deploy/chart/templates")))
    {
        let text = std::fs::read_to_string(&path).unwrap();
        let parsed: Vec<Value> = serde_saphyr::from_multiple(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        documents.extend(parsed.into_iter().filter(|document| !document.is_null()));
    }
    documents
}

pub(crate) fn the(kind: &str) -> Value {
    let mut found: Vec<Value> = documents("deploy/base")
        .into_iter()
        .filter(|document| document["kind"] == kind)
        .collect();
    assert_eq!(found.len(), 1, "one {kind} in deploy/base");
    found.pop().unwrap()
}

#[test]
fn the_webhook_is_registered_as_narrowly_as_documented() {
    let webhooks = the("MutatingWebhookConfiguration")["webhooks"].clone();
    assert_eq!(webhooks.as_array().unwrap().len(), 1);
    let webhook = &webhooks[0];
    for (key, want) in [
        ("failurePolicy", json!("Fail")),
        ("timeoutSeconds", json!(5)),
        ("sideEffects", json!("NoneOnDryRun")),
        ("reinvocationPolicy", json!("IfNeeded")),
        ("admissionReviewVersions", json!(["v1"])),
    ] {
        assert_eq!(webhook[key], want, "{key}");
    }
    assert_eq!(
        webhook["clientConfig"]["service"]["path"],
        names::MUTATE_PATH
    );
    let rule = &webhook["rules"][0];
    assert_eq!(
        (&rule["operations"], &rule["resources"], &rule["apiGroups"]),
        (&json!(["CREATE"]), &json!(["pods"]), &json!([""]))
    );
    assert!(
        webhook["namespaceSelector"]
            .to_string()
            .contains(names::NAMESPACE_LABEL)
    );
    assert!(
        webhook["namespaceSelector"]
            .to_string()
            .contains(names::INJECTION_ENABLED)
    );
    assert!(
        webhook["namespaceSelector"]
            .to_string()
            .contains("kube-system")
    );
    assert_eq!(
        webhook["objectSelector"]["matchExpressions"][0],
        json!({"key": names::INJECT, "operator": "NotIn", "values": ["false"]})
    );
    let conditions: BTreeSet<&str> = webhook["matchConditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        conditions,
        BTreeSet::from(["statefulset-pod", "may-run-thanos-store", "not-opted-out"])
    );
}

#[test]
fn the_guard_is_in_nobodys_way() {
    let registration = the("ValidatingWebhookConfiguration");
    assert_eq!(registration["metadata"]["name"], names::REGISTRATION);
    assert_eq!(
        the("MutatingWebhookConfiguration")["metadata"]["name"],
        names::REGISTRATION
    );
    let webhooks = registration["webhooks"].as_array().unwrap();
    assert_eq!(webhooks.len(), 1);
    for (key, want) in [
        ("failurePolicy", json!("Ignore")),
        ("timeoutSeconds", json!(2)),
        ("sideEffects", json!("None")),
        ("admissionReviewVersions", json!(["v1"])),
    ] {
        assert_eq!(webhooks[0][key], want, "{key}");
    }
    assert_eq!(
        webhooks[0]["clientConfig"]["service"]["path"],
        names::GUARD_PATH
    );
    assert_eq!(
        webhooks[0]["namespaceSelector"],
        the("MutatingWebhookConfiguration")["webhooks"][0]["namespaceSelector"]
    );
    let rules: Vec<(&Value, &Value)> = webhooks[0]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| (&rule["operations"], &rule["resources"]))
        .collect();
    let sets = (
        &json!(["CREATE", "UPDATE", "DELETE"]),
        &json!(["statefulsets"]),
    );
    assert_eq!(
        rules,
        [sets, (&json!(["UPDATE"]), &json!(["statefulsets/scale"]))]
    );
    // What may run thanos store is asked in the same words in both.
    let words = |webhook: &Value, name: &str| {
        let conditions = webhook["matchConditions"].as_array().unwrap();
        let condition = conditions
            .iter()
            .find(|condition| condition["name"] == name)
            .unwrap();
        condition["expression"]
            .as_str()
            .unwrap()
            .split_once("containers.exists(")
            .unwrap()
            .1
            .to_owned()
    };
    let mutating = the("MutatingWebhookConfiguration")["webhooks"][0].clone();
    assert_eq!(
        words(&webhooks[0], "scale-or-may-run-thanos-store"),
        words(&mutating, "may-run-thanos-store") + ")"
    );
    assert!(
        webhooks[0]["matchConditions"][1]["expression"]
            .as_str()
            .unwrap()
            .contains(&format!("[\"{}\"] != \"off\"", names::GUARD))
    );
}

/// The regular expression of the registration: RE2, whose classes are ASCII's. It knows no vertical tab, and this one does.
fn asked() -> Regex {
    let registration = the("MutatingWebhookConfiguration");
    let expression = registration["webhooks"][0]["matchConditions"][1]["expression"]
        .as_str()
        .unwrap();
    let patterns: BTreeSet<&str> = expression
        .split("a.matches(r'")
        .skip(1)
        .map(|rest| rest.split_once('\'').unwrap().0)
        .collect();
    assert_eq!(
        (
            patterns.len(),
            expression
                .matches("a.contains(\"thanos\") && a.matches(")
                .count()
        ),
        (1, 2),
        "one pattern, twice, and cheap first"
    );
    for kind in ["mutating", "validating"] {
        let chart = std::fs::read_to_string(at(&format!(
            "deploy/chart/templates/{kind}webhookconfiguration.yaml"
        )))
        .unwrap();
        assert!(
            chart.contains(expression.split_once("containers.exists(").unwrap().1),
            "the chart asks in the same words: {kind}"
        );
    }
    RegexBuilder::new(patterns.first().unwrap())
        .unicode(false)
        .build()
        .unwrap()
}

#[test]
fn a_store_in_a_script_is_asked_about() {
    let asked = asked();
    for (word, store) in [
        ("exec thanos store", true),
        (
            "exec /bin/thanos --log.level=info store --data-dir=/d",
            true,
        ),
        ("set -e; thanos   store;", true),
        ("thanos \\\n  store \\\n  --x", true),
        ("thanos\tstore&", true),
        ("(\"/bin/thanos\" 'store')", true),
        ("thanos --version && thanos store|tee /log", true),
        ("--objstore.config-file=/etc/thanos/objstore.yml", false),
        ("--endpoint=dns+thanos-store:10901", false),
        (
            "thanos query --endpoint=dns+thanos-store:10901 --store.sd-files=store.yml",
            false,
        ),
        ("thanos query; rm -r store", false),
        ("thanos query && store || store", false),
        ("store thanos", false),
        ("thanos store-gateway", false),
        ("thanos storex", false),
        ("thanosstore", false),
    ] {
        assert_eq!(
            (asked.is_match(word.as_bytes()), mentions_store(word)),
            (store, store),
            "{word:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn registration_and_program_ask_the_same(parts in prop::collection::vec("thanos|store|[ -~\t\n\x0c\r\u{a0}é]|[ ;&|\\\\\"')<>]", 0..12)) {
        thread_local!(static ASKED: Regex = asked());
        let word = parts.concat();
        prop_assert_eq!(ASKED.with(|asked| asked.is_match(word.as_bytes())), mentions_store(&word), "{:?}", word);
    }
}

#[test]
fn ports_and_probes_lead_to_the_server() {
    let container = the("Deployment")["spec"]["template"]["spec"]["containers"][0].clone();
    let ports: Vec<(&str, u64)> = container["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            (
                p["name"].as_str().unwrap(),
                p["containerPort"].as_u64().unwrap(),
            )
        })
        .collect();
    let named = [
        ("https", names::WEBHOOK_PORT),
        ("admin", names::ADMIN_PORT),
        ("probes", names::PROBE_PORT),
    ];
    assert_eq!(ports, named.map(|(name, port)| (name, u64::from(port))));
    for (probe, path) in [
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        assert_eq!(
            container[probe]["httpGet"],
            json!({"path": path, "port": "probes"})
        );
    }
    let service = the("Service");
    assert_eq!(
        (
            &service["spec"]["ports"][0]["port"],
            &service["spec"]["ports"][0]["targetPort"]
        ),
        (&json!(443), &json!("https"))
    );
}

/// While pods are replaced no fewer answer than there should be, and each has the time to hand over what it does.
#[test]
fn an_update_never_takes_a_replica_away() {
    let spec = the("Deployment")["spec"].clone();
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}})
    );
    assert!(
        spec["replicas"].as_u64().unwrap() >= 2 && spec["minReadySeconds"].as_u64().unwrap() > 0
    );
    assert_eq!(the("PodDisruptionBudget")["spec"]["maxUnavailable"], 1);
    let pod = &spec["template"]["spec"];
    let drain = pod["containers"][0]["args"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|arg| arg.as_str()?.strip_prefix("--shutdown-drain="));
    let drain: u64 = drain.unwrap().strip_suffix('s').unwrap().parse().unwrap();
    assert!(
        pod["terminationGracePeriodSeconds"].as_u64().unwrap() >= drain + 12,
        "drain, then what is in flight"
    );
}

#[test]
fn the_image_is_of_this_version() {
    let image = the("Deployment")["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    assert_eq!(
        image,
        Config::default().injection.agent_image.as_str(),
        "server and agent come from one image"
    );
}

#[test]
fn the_configuration_that_is_deployed_loads() {
    let data = the("ConfigMap")["data"].clone();
    let config = Config::parse(data["config.yaml"].as_str().unwrap(), "deploy").unwrap();
    assert_eq!(
        (config.sharding, config.operator),
        (Config::default().sharding, Config::default().operator)
    );
}

pub(crate) fn granted(role: &Value) -> BTreeSet<String> {
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let strings = |key: &str| -> Vec<String> {
            rule[key]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_str().unwrap().to_owned())
                .collect()
        };
        for (group, resource) in strings("apiGroups").into_iter().flat_map(|g| {
            strings("resources")
                .into_iter()
                .map(move |r| (g.clone(), r))
        }) {
            granted.extend(
                strings("verbs")
                    .into_iter()
                    .map(|verb| format!("{verb} {resource}.{group}")),
            );
        }
    }
    granted
}

/// The calls that the code makes: lists and watches in `adapters/cluster.rs` and `refresher/observe.rs`, Events in
/// `adapters/events.rs`, everything else in `refresher/write.rs`, the Lease in `adapters/lease.rs`.
#[test]
fn rights_are_those_that_the_code_uses() {
    let used = [
        "list namespaces.",
        "watch namespaces.",
        "list statefulsets.apps",
        "watch statefulsets.apps",
        "patch statefulsets/status.apps",
        "get configmaps.",
        "list configmaps.",
        "watch configmaps.",
        "create configmaps.",
        "patch configmaps.",
        "list pods.",
        "watch pods.",
        "patch pods/status.",
        "list poddisruptionbudgets.policy",
        "watch poddisruptionbudgets.policy",
        "create poddisruptionbudgets.policy",
        "update poddisruptionbudgets.policy",
        "delete poddisruptionbudgets.policy",
        "list services.",
        "watch services.",
        "create services.",
        "update services.",
        "delete services.",
        "create events.events.k8s.io",
        "patch events.events.k8s.io",
    ];
    assert_eq!(
        granted(&the("ClusterRole")),
        used.iter().map(ToString::to_string).collect()
    );
    let mut own: BTreeSet<String> = ["get", "create", "update"]
        .map(|verb| format!("{verb} leases.coordination.k8s.io"))
        .into();
    own.extend(["list pods.", "create events.events.k8s.io"].map(str::to_owned));
    assert_eq!(granted(&the("Role")), own);
    assert_eq!(
        the("Role")["rules"][0]["resourceNames"],
        json!([names::LEASE])
    );
}

/// What a Role in a namespace grants is what the role of the cluster grants, but for the namespaces themselves.
#[test]
fn rights_in_a_namespace_are_those_of_the_cluster() {
    let gateways = documents("deploy/components/namespaced/gateways");
    let role = gateways
        .iter()
        .find(|document| document["kind"] == "Role")
        .unwrap();
    let of_cluster = granted(&the("ClusterRole"));
    let of_namespaces =
        BTreeSet::from(["list namespaces.", "watch namespaces."].map(str::to_owned));
    assert_eq!(granted(role), &of_cluster - &of_namespaces);
    assert!(of_namespaces.is_subset(&of_cluster));
    // In its own namespace it needs nothing of these: the gateways may live elsewhere.
    let component = serde_saphyr::from_str::<Value>(
        &std::fs::read_to_string(at("deploy/components/namespaced/kustomization.yaml")).unwrap(),
    );
    let patch: Vec<Value> =
        serde_saphyr::from_str(component.unwrap()["patches"][0]["patch"].as_str().unwrap())
            .unwrap();
    assert_eq!(granted(&json!({"rules": patch[1]["value"]})), of_namespaces);
    let binding = gateways
        .iter()
        .find(|document| document["kind"] == "RoleBinding")
        .unwrap();
    assert_eq!(binding["subjects"], the("ClusterRoleBinding")["subjects"]);
}

/// Every write that a role grants has a policy, which concerns the server alone and refuses when it cannot be evaluated.
#[test]
fn every_write_has_a_policy() {
    let all = documents("deploy/components/policy");
    let policies: Vec<&Value> = all
        .iter()
        .filter(|document| document["kind"] == "ValidatingAdmissionPolicy")
        .collect();
    let strings = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_str().unwrap().to_owned())
            .collect()
    };
    let mut held = BTreeSet::new();
    for policy in &policies {
        let spec = &policy["spec"];
        assert_eq!(spec["failurePolicy"], "Fail");
        let server = format!(
            "request.userInfo.username == \"system:serviceaccount:{}:timeshard\"",
            names::SYSTEM_NAMESPACE
        );
        assert_eq!(
            spec["matchConditions"],
            json!([{"name": "by-the-server", "expression": server}])
        );
        for rule in spec["matchConstraints"]["resourceRules"]
            .as_array()
            .unwrap()
        {
            for (resource, operation) in strings(&rule["resources"]).into_iter().flat_map(|r| {
                strings(&rule["operations"])
                    .into_iter()
                    .map(move |o| (r.clone(), o))
            }) {
                held.insert(format!(
                    "{operation} {resource}.{}",
                    rule["apiGroups"][0].as_str().unwrap()
                ));
            }
        }
        let binding = all.iter().find(|other| {
            other["kind"].as_str().unwrap().ends_with("Binding")
                && other["spec"]["policyName"] == policy["metadata"]["name"]
        });
        assert_eq!(
            binding.unwrap()["spec"]["validationActions"],
            json!(["Deny"])
        );
    }
    let rights = granted(&the("ClusterRole"))
        .into_iter()
        .chain(granted(&the("Role")))
        .chain(
            documents("deploy/self-signed")
                .into_iter()
                .filter(|d| ["Role", "ClusterRole"].contains(&d["kind"].as_str().unwrap()))
                .flat_map(|role| granted(&role)),
        );
    // What RBAC itself holds to one object, by its name.
    let by_name = ["update leases.coordination.k8s.io", "update secrets."];
    let writes = rights.filter(|right| {
        !["get", "list", "watch"].contains(&right.split(' ').next().unwrap())
            && !by_name.contains(&right.as_str())
    });
    let operation = |right: String| {
        let (verb, resource) = right.split_once(' ').unwrap();
        format!(
            "{} {resource}",
            match verb {
                "create" => "CREATE",
                "delete" => "DELETE",
                _ => "UPDATE",
            }
        )
    };
    assert_eq!(held, writes.map(operation).collect());
}

/// The calls of `adapters/self_signed`: only with `--self-signed`, and each on one object, by its name.
#[test]
fn a_server_that_makes_its_certificates_may_touch_two_objects_more() {
    let rights = documents("deploy/self-signed");
    let the = |kind: &str| {
        rights
            .iter()
            .find(|document| document["kind"] == kind)
            .unwrap()
    };
    let (role, cluster) = (the("Role"), the("ClusterRole"));
    assert_eq!(
        granted(role),
        ["create", "get", "list", "update", "watch"]
            .map(|verb| format!("{verb} secrets."))
            .into()
    );
    let registrations = ["mutating", "validating"]
        .map(|kind| format!("{kind}webhookconfigurations.admissionregistration.k8s.io"));
    let rights = registrations
        .iter()
        .flat_map(|of| ["get", "list", "patch", "watch"].map(|verb| format!("{verb} {of}")));
    assert_eq!(granted(cluster), rights.collect());
    assert_eq!(
        cluster["rules"][0]["resourceNames"],
        json!([names::WEBHOOK_CONFIGURATION])
    );
    assert_eq!(
        role["rules"][0]["resourceNames"],
        json!([names::SELF_SIGNED_SECRET])
    );
    // The API server has no name to compare yet.
    assert_eq!(
        (
            &role["rules"][1]["verbs"],
            role["rules"].as_array().unwrap().len()
        ),
        (&json!(["create"]), 2)
    );
}

#[test]
fn the_names_on_the_certificate_are_those_that_are_called() {
    assert_eq!(the("Service")["metadata"]["name"], names::SERVICE);
    let registration = the("MutatingWebhookConfiguration");
    assert_eq!(
        registration["metadata"]["name"],
        names::WEBHOOK_CONFIGURATION
    );
    assert_eq!(
        registration["webhooks"][0]["clientConfig"]["service"]["name"],
        names::SERVICE
    );
}

#[test]
fn network_policies_open_the_ports_that_are_used() {
    let ports = |rule: &Value| -> Vec<Value> {
        rule["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["port"].clone())
            .collect()
    };
    let ingress = the("NetworkPolicy")["spec"]["ingress"].clone();
    assert_eq!(ingress.as_array().unwrap().len(), 1);
    assert_eq!(
        ports(&ingress[0]),
        [json!(names::WEBHOOK_PORT), json!(names::ADMIN_PORT)],
        "and not that of probes"
    );
    assert!(
        ingress[0].get("from").is_none(),
        "no selector names the API server"
    );
    let egress = documents("deploy/components/egress")
        .into_iter()
        .find(|document| document["kind"] == "NetworkPolicy")
        .unwrap();
    assert_eq!(
        ports(&egress["spec"]["egress"][2]),
        [json!(names::SIDECAR_PORT)]
    );
}

#[test]
fn everything_is_pinned_or_ours() {
    for document in documents("deploy") {
        let text = document.to_string();
        assert!(!text.contains(":latest"), "{text}");
    }
}

/// How `timeshard status` finds the server.
#[test]
fn the_server_is_where_status_looks_for_it() {
    let deployment = the("Deployment");
    assert_eq!(deployment["metadata"]["namespace"], names::SYSTEM_NAMESPACE);
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    for wanted in names::SERVER_PODS.split(',') {
        let (key, value) = wanted.split_once('=').unwrap();
        assert_eq!(labels[key], value);
    }
}
