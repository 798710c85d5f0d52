//! The manifests and the program agree on names, ports, paths and rights. Manifests are applied and
//! compared with the chart by `tests/e2e/scenarios`.

use std::collections::BTreeSet;

use proptest::prelude::*;
use regex::bytes::{Regex, RegexBuilder};
use serde_json::{Value, json};
use thanos_timeshard::core::config::Config;
use thanos_timeshard::core::model::names;
use thanos_timeshard::core::thanos::args::mentions_store;
use thanos_timeshard::core::thanos::query::DEFAULT_HTTP_PORT;

use crate::{at, files};

pub(crate) fn documents(folder: &str) -> Vec<Value> {
    let mut documents = Vec::new();
    // The chart's templates are not YAML until Helm renders them; tests/e2e/scenarios/chart.sh
    // compares the result.
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

/// The registrations use the names, paths and labels of the program.
#[test]
fn the_webhooks_are_registered_by_the_names_of_the_program() {
    let (mutating, validating) = (
        the("MutatingWebhookConfiguration"),
        the("ValidatingWebhookConfiguration"),
    );
    assert_eq!(mutating["metadata"]["name"], names::WEBHOOK_CONFIGURATION);
    assert_eq!(the("Service")["metadata"]["name"], names::SERVICE);
    for (registration, path) in [
        (&mutating, names::MUTATE_PATH),
        (&validating, names::GUARD_PATH),
    ] {
        assert_eq!(registration["metadata"]["name"], names::REGISTRATION);
        let service = &registration["webhooks"][0]["clientConfig"]["service"];
        assert_eq!(
            (&service["name"], &service["path"]),
            (&json!(names::SERVICE), &json!(path))
        );
    }
    let (webhook, guard) = (&mutating["webhooks"][0], &validating["webhooks"][0]);
    assert_eq!(webhook["namespaceSelector"], guard["namespaceSelector"]);
    assert_eq!(
        webhook["namespaceSelector"]["matchExpressions"][0],
        json!({"key": names::NAMESPACE_LABEL, "operator": "In", "values": [names::INJECTION_ENABLED]})
    );
    assert_eq!(
        webhook["objectSelector"]["matchExpressions"][0],
        json!({"key": names::INJECT, "operator": "NotIn", "values": ["false"]})
    );
    // A webhook that is down must not block changes of StatefulSets.
    assert_eq!(guard["failurePolicy"], "Ignore");
    let exists = |webhook: &Value| {
        let expression = webhook["matchConditions"][1]["expression"]
            .as_str()
            .unwrap();
        let (_, condition) = expression.split_once("containers.exists(").unwrap();
        condition.trim_end_matches(')').to_owned()
    };
    let guarded = guard["matchConditions"].to_string();
    assert!(guarded.contains(&format!("[\\\"{}\\\"] != \\\"off\\\"", names::GUARD)));
    assert!(
        guard["matchConditions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|condition| {
                let expression = condition["expression"].as_str().unwrap();
                expression.contains(&exists(webhook))
            }),
        "both webhooks have the same condition for a possible thanos store"
    );
}

/// The regular expression of the registrations. RE2's classes are ASCII, but without the vertical
/// tab, which this engine includes.
fn match_condition() -> Regex {
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
        "one pattern, used twice, after a cheap test"
    );
    for kind in ["mutating", "validating"] {
        let chart = std::fs::read_to_string(at(&format!(
            "deploy/chart/templates/{kind}webhookconfiguration.yaml"
        )))
        .unwrap();
        assert!(
            chart.contains(expression.split_once("containers.exists(").unwrap().1),
            "the chart has the same condition: {kind}"
        );
    }
    RegexBuilder::new(patterns.first().unwrap())
        .unicode(false)
        .build()
        .unwrap()
}

#[test]
fn a_store_in_a_script_matches() {
    let condition = match_condition();
    for (text, store) in [
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
            (condition.is_match(text.as_bytes()), mentions_store(text)),
            (store, store),
            "{text:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn registration_and_program_agree(parts in prop::collection::vec("thanos|store|[ -~\t\n\x0c\r\u{a0}é]|[ ;&|\\\\\"')<>]", 0..12)) {
        thread_local!(static CONDITION: Regex = match_condition());
        let text = parts.concat();
        prop_assert_eq!(CONDITION.with(|condition| condition.is_match(text.as_bytes())), mentions_store(&text), "{:?}", text);
    }
}

#[test]
fn manifests_use_the_ports_and_names_of_the_program() {
    let deployment = the("Deployment");
    assert_eq!(deployment["metadata"]["namespace"], names::SYSTEM_NAMESPACE);
    let pod = &deployment["spec"]["template"];
    // `timeshard status` finds the server by these.
    for wanted in names::SERVER_PODS.split(',') {
        let (key, value) = wanted.split_once('=').unwrap();
        assert_eq!(pod["metadata"]["labels"][key], value);
    }
    let container = &pod["spec"]["containers"][0];
    assert_eq!(
        container["image"],
        Config::default().injection.agent_image.as_str(),
        "server and agent share one image"
    );
    let ports = |list: &Value, key: &str| -> Vec<Value> {
        let list = list.as_array().unwrap();
        list.iter().map(|port| port[key].clone()).collect()
    };
    assert_eq!(
        ports(&container["ports"], "containerPort"),
        [names::WEBHOOK_PORT, names::ADMIN_PORT, names::PROBE_PORT].map(|port| json!(port))
    );
    let drain = ports(&json!([container]), "args")[0]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|arg| arg.as_str()?.strip_prefix("--shutdown-drain="))
        .unwrap()
        .to_owned();
    let drain: u64 = drain.strip_suffix('s').unwrap().parse().unwrap();
    assert!(
        pod["spec"]["terminationGracePeriodSeconds"]
            .as_u64()
            .unwrap()
            >= drain + 12,
        "time for the drain and requests in flight"
    );
    assert_eq!(
        ports(&the("NetworkPolicy")["spec"]["ingress"][0]["ports"], "port"),
        [json!(names::WEBHOOK_PORT), json!(names::ADMIN_PORT)],
        "probes come from the node"
    );
    let egress = documents("deploy/components/egress");
    let egress = egress.iter().find(|one| one["kind"] == "NetworkPolicy");
    assert_eq!(
        ports(&egress.unwrap()["spec"]["egress"][2]["ports"], "port"),
        [names::SIDECAR_PORT, DEFAULT_HTTP_PORT].map(|port| json!(port))
    );
    let to_leader = &egress.unwrap()["spec"]["egress"][3];
    assert_eq!(
        ports(&to_leader["ports"], "port"),
        [json!(names::ADMIN_PORT)]
    );
    assert_eq!(
        to_leader["to"][0]["podSelector"],
        egress.unwrap()["spec"]["podSelector"],
        "the server's own pods"
    );
}

#[test]
fn the_deployed_configuration_is_the_default() {
    let data = the("ConfigMap")["data"].clone();
    let config = Config::parse(data["config.yaml"].as_str().unwrap(), "deploy").unwrap();
    assert_eq!(
        (config.sharding, config.operator),
        (Config::default().sharding, Config::default().operator)
    );
}

/// Each rule of a role as `verb resource.group`. `tests/e2e/scenarios/rights.sh` compares these with
/// the API server's audit log.
pub(crate) fn granted(role: &Value) -> BTreeSet<String> {
    let strings = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap();
        list.iter()
            .map(|v| v.as_str().unwrap().to_owned())
            .collect()
    };
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                let verbs = strings(&rule["verbs"]);
                granted.extend(
                    verbs
                        .iter()
                        .map(|verb| format!("{verb} {resource}.{group}")),
                );
            }
        }
    }
    granted
}

/// The Role for single namespaces equals the `ClusterRole` without the rights on namespaces.
#[test]
fn rights_in_a_namespace_are_those_of_the_cluster() {
    let gateways = documents("deploy/components/namespaced/gateways");
    let role = gateways.iter().find(|one| one["kind"] == "Role").unwrap();
    let of_namespaces =
        BTreeSet::from(["list namespaces.", "watch namespaces."].map(str::to_owned));
    assert_eq!(
        granted(role),
        &granted(&the("ClusterRole")) - &of_namespaces
    );
    let queriers = documents("deploy/components/namespaced/queriers");
    let role = queriers.iter().find(|one| one["kind"] == "Role").unwrap();
    assert_eq!(granted(role), BTreeSet::from(["list pods.".to_owned()]));
}

/// Every write that a role grants is covered by a `ValidatingAdmissionPolicy`.
#[test]
fn every_write_has_a_policy() {
    let policies = documents("deploy/components/policy");
    let constrained: BTreeSet<String> = policies
        .iter()
        .filter(|document| document["kind"] == "ValidatingAdmissionPolicy")
        .flat_map(|policy| {
            let rules = &policy["spec"]["matchConstraints"]["resourceRules"];
            let as_role = rules.to_string().replace("\"operations\"", "\"verbs\"");
            granted(&json!({"rules": serde_json::from_str::<Value>(&as_role).unwrap()}))
        })
        .collect();
    let roles = documents("deploy/base")
        .into_iter()
        .chain(documents("deploy/self-signed"));
    let rights: BTreeSet<String> = roles
        .filter(|document| ["Role", "ClusterRole"].contains(&document["kind"].as_str().unwrap()))
        .flat_map(|role| granted(&role))
        .collect();
    // RBAC limits these to one object by its name.
    let by_name = ["update leases.coordination.k8s.io", "update secrets."];
    let writes = rights
        .iter()
        .filter(|right| !by_name.contains(&right.as_str()));
    let writes: BTreeSet<String> = writes
        .filter_map(|right| {
            let (verb, resource) = right.split_once(' ').unwrap();
            let operation = match verb {
                "get" | "list" | "watch" => return None,
                "create" => "CREATE",
                "delete" => "DELETE",
                _ => "UPDATE",
            };
            Some(format!("{operation} {resource}"))
        })
        .collect();
    assert_eq!(constrained, writes);
}
