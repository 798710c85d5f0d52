//! Arguments that are wrong whatever a cluster holds.

use super::Mistake;

const STORE: &str = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: store, annotations: {thanos-timeshard.io/total-shards: many}}\n\
    spec: {replicas: 6, template: {spec: {containers: [{name: t, image: thanos, args: [store]}]}}}";

pub(super) const WITHOUT_A_CLUSTER: &[Mistake<'_>] = &[
    (
        "stauts",
        "",
        2,
        &["unrecognized subcommand 'stauts'", "'status'"],
    ),
    (
        "status --namespaces x",
        "",
        2,
        &["'--namespaces'", "'--namespace'"],
    ),
    (
        "plan -o jsn",
        "",
        2,
        &["'jsn'", "'--output <FORMAT>'", "'json'", "table"],
    ),
    (
        "completion tcsh",
        "",
        2,
        &["'tcsh'", "bash, elvish, fish, powershell, zsh"],
    ),
    (
        "plan --config=-",
        "sharding:\n  total_shard: 4",
        2,
        &[
            "standard input:2:16: sharding.total_shard",
            "did you mean total_shards?",
        ],
    ),
    (
        "plan --config=-",
        "sharding:\n  total_shards: 0",
        2,
        &[
            "standard input:2:17: sharding.total_shards: 0",
            "write a whole number",
        ],
    ),
    (
        "plan --config=-",
        "shards: 3",
        2,
        &["standard input:1:1: shards", "did you mean sharding?"],
    ),
    (
        "plan --config=-",
        "sharding: {total_shards: auto}",
        2,
        &["total_shards is auto", "set --replicas N"],
    ),
    ("plan --from old.yaml", "", 2, &["--to <NEW>"]),
    (
        "plan --from - --to -",
        "",
        2,
        &[
            "standard input can be read once",
            "write one of them to a file",
        ],
    ),
    (
        "plan --at yesterday",
        "",
        2,
        &[
            "'yesterday'",
            "'--at <TIME>'",
            "write RFC 3339 such as 2026-01-31T00:00:00Z",
        ],
    ),
    ("inject", "", 2, &["--filename <FILE>"]),
    (
        "inject -f https://example.com/store.yaml",
        "",
        2,
        &["curl -fsSL https://example.com/store.yaml | timeshard inject -f -"],
    ),
    (
        "inject -f -",
        "image: thanos",
        2,
        &[
            "standard input: object 1 has no kind",
            "apiVersion and kind",
        ],
    ),
    (
        "inject -f -",
        STORE,
        2,
        &[
            "standard input:1: StatefulSet/store: annotation thanos-timeshard.io/total-shards:1:1: total_shards: \"many\"",
            "write a whole number",
        ],
    ),
    (
        "status a/b/c",
        "",
        2,
        &[
            "'a/b/c'",
            "write the StatefulSet as NAME, NAMESPACE/NAME or statefulset/NAME",
        ],
    ),
    (
        "status -n Monitoring",
        "",
        2,
        &["'Monitoring'", "'--namespace <NAMESPACE>'", "a-z, 0-9, -"],
    ),
    (
        "status --server https://x",
        "",
        2,
        &[
            "'https://x'",
            "write http://HOST:PORT such as http://127.0.0.1:8080",
        ],
    ),
    (
        "check --request-timeout soon",
        "",
        2,
        &["'soon'", "'--request-timeout <DURATION>'"],
    ),
    (
        "reshard store total-shard=4",
        "",
        2,
        &["'total-shard=4'", "did you mean total-shards?"],
    ),
    (
        "reshard store total-shards",
        "",
        2,
        &["'total-shards'", "write KEY=VALUE such as total-shards=4"],
    ),
    (
        "reshard store pause=true",
        "",
        2,
        &["use timeshard pause and timeshard resume"],
    ),
    ("scale-down store", "", 2, &["--to <N>"]),
    (
        "pause store --dry-run=yes",
        "",
        2,
        &["'yes'", "'--dry-run[=<MODE>]'", "client, server"],
    ),
    (
        "status sts store",
        "",
        2,
        &["'sts'", "write sts/NAME, NAMESPACE/NAME or NAME"],
    ),
    (
        "reshard total-shards=4",
        "",
        2,
        &[
            "'total-shards=4'",
            "NAMESPACE/NAME or statefulset/NAME first",
        ],
    ),
    (
        "reshard gw total-shards=banana",
        "",
        2,
        &[
            "StatefulSet gw is not changed",
            "total_shards: \"banana\"",
            "write a whole number from 1 to 10000, or auto",
        ],
    ),
    (
        "reshard x/gw replicas-per-shard=0 overlap=5",
        "",
        2,
        &[
            "StatefulSet x/gw is not changed",
            "replicas_per_shard: 0",
            "from 1 to 1000",
            "overlap: 5",
            "such as 1d12h",
        ],
    ),
    (
        "reshard gw total-shards=4 boundaries=[14d,90d]",
        "",
        2,
        &["total_shards: 4 does not fit the 2 boundaries", "write 3"],
    ),
    (
        "reshard gw total-shards=4 total-shards-",
        "",
        2,
        &["total-shards: it is given twice"],
    ),
    (
        "reshard gw total-shards=4 --config=-",
        "sharding: {total_shard: 3}",
        2,
        &["standard input:1:", "did you mean total_shards?"],
    ),
    (
        "resume a b --config=-",
        "a: 1\n---\nb: 2",
        2,
        &["standard input:3:1: there is a second document"],
    ),
    (
        "pause a/x b/y -n a",
        "",
        2,
        &["b/y: it is in namespace b, but -n is a"],
    ),
    (
        "scale-down gw --to 0",
        "",
        2,
        &["'0'", "'--to <N>'", "write a whole number from 1 to 100000"],
    ),
    (
        "inject -f - --replicas many",
        "",
        2,
        &["'many'", "'--replicas <N>'", "write a whole number"],
    ),
    (
        "plan --config=-",
        MANIFEST,
        2,
        &[
            "standard input:1:1: this is a Kubernetes manifest with 3 objects (Deployment, ConfigMap)",
            "ConfigMap timeshard-config has a configuration in the key config.yaml",
            "yq -r 'select(.kind == \"ConfigMap\" and .metadata.name == \"timeshard-config\") | .data[\"config.yaml\"]' FILE > ",
        ],
    ),
    (
        "plan --config=-",
        "kind: Service\napiVersion: v1\n---\nkind: Secret\napiVersion: v1",
        2,
        &[
            "a Kubernetes manifest with 2 objects (Service, Secret), which timeshard inject -f reads",
            "a configuration has the blocks",
        ],
    ),
    (
        "inject -f -",
        "sharding: {total_shards: 3}",
        2,
        &["this is a configuration of timeshard, which --config takes"],
    ),
    (
        "inject -f -",
        "# a comment\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: Foo_Bar}",
        2,
        &[
            "standard input:3: Pod/p: metadata.namespace is \"Foo_Bar\"",
            "write at most 63",
        ],
    ),
    (
        "inject -f - -n Foo_Bar",
        "",
        2,
        &["'Foo_Bar'", "'--namespace <NS>'", "a-z, 0-9, -"],
    ),
    (
        "inject store.yaml",
        "",
        2,
        &["'store.yaml'", "write --filename store.yaml"],
    ),
    (
        "plan config.yaml",
        "",
        2,
        &["'config.yaml'", "write --config config.yaml"],
    ),
    (
        "plan --replicas many",
        "",
        2,
        &["'many'", "write a whole number from 0 to 100000"],
    ),
    (
        "plan -f config.yaml",
        "",
        2,
        &["'-f'", "write --config FILE"],
    ),
    (
        "status --server localhost:8080",
        "",
        2,
        &["'localhost:8080'", "does not begin with http://"],
    ),
    (
        "reshard gw shards=4",
        "",
        2,
        &["no key shards", "the keys are total-shards"],
    ),
];

/// The ConfigMap of an installation among other objects.
const MANIFEST: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: timeshard}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
data: {config.yaml: \"a: 1\"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: timeshard-config}
data:
  config.yaml: |
    sharding: {total_shards: 3}
";
