use serde_json::json;

use super::*;

fn place() -> PodDirectories {
    PodDirectories {
        dir: "/tmp/d/store-0".into(),
        pod: "store-0".to_owned(),
        namespace: "obs".to_owned(),
        ip: Ipv4Addr::new(127, 64, 0, 1),
        ports: PodPorts {
            http: 1,
            grpc: 2,
            status: 3,
        },
        agent: "/tmp/d/timeshard-agent".into(),
        thanos: "/x/thanos".into(),
        bucket: "/tmp/d/bucket.yaml".into(),
    }
}

fn pod(command: &[&str], args: &[&str]) -> Value {
    json!({"spec": {
        "initContainers": [{"name": "config-sidecar", "command": ["/timeshard-agent", "sidecar"],
            "args": ["--pod=$(POD_NAME)", "--config-dir=/etc/timeshard", "--thanos-url=http://127.0.0.1:19", "--drain=1m"],
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "volumeMounts": [{"name": "timeshard-config", "mountPath": "/etc/timeshard"}]}],
        "containers": [{"name": "t", "command": command, "args": args,
            "volumeMounts": [{"name": "data", "mountPath": "/data/"}, {"name": "../sub", "mountPath": "/data/sub"},
                {"name": "timeshard-shared", "mountPath": "/run/timeshard"}]}]}})
}

const LAUNCHER: [&str; 5] = [
    "/run/timeshard/timeshard-agent",
    "launch",
    "--shared-dir=/run/timeshard",
    "--",
    "/bin/thanos",
];

#[test]
fn arguments_stay_and_paths_are_substituted() {
    let pod = pod(
        &LAUNCHER,
        &[
            "store",
            "--data-dir",
            "/data/sub/x",
            "--http-address=0.0.0.0:19",
            "--x=/database",
            "--min-time",
            "-1d",
        ],
    );
    let injected = Injected::of(&pod).unwrap();
    assert_eq!(
        injected.ports(),
        PodPorts {
            http: 19,
            grpc: 10901,
            status: 10908
        }
    );
    assert_eq!(injected.other_reload(), None);
    let commands = injected.commands(&place());
    assert_eq!(
        commands.sidecar.argv.join(" "),
        "/tmp/d/timeshard-agent sidecar --pod=store-0 --config-dir=/tmp/d/store-0/timeshard-config \
         --thanos-url=http://127.64.0.1:1 --drain=1m --listen=127.64.0.1:3"
    );
    assert_eq!(
        commands.thanos.argv.join(" "),
        "/tmp/d/store-0/timeshard-shared/timeshard-agent launch --shared-dir=/tmp/d/store-0/timeshard-shared -- /x/thanos store \
         --data-dir=/tmp/d/store-0/sub/x --http-address=127.64.0.1:1 --x=/database --min-time -1d \
         --grpc-address=127.64.0.1:2 --objstore.config-file=/tmp/d/bucket.yaml"
    );
    assert!(
        commands
            .substitutions
            .contains(&("/bin/thanos".to_owned(), "/x/thanos".to_owned())),
        "{:?}",
        commands.substitutions
    );
    assert_eq!(commands.volumes.len(), 4);
}

#[test]
fn flags_for_files_of_the_cluster_are_omitted() {
    let flags = [
        "store",
        "--index-cache.config-file",
        "/etc/c.yml",
        "--tracing.config=x",
        "--objstore.config=$(SECRET)",
        "--data-dir=/var/t",
    ];
    let pod = pod(&LAUNCHER, &flags);
    let argv = Injected::of(&pod)
        .unwrap()
        .commands(&place())
        .thanos
        .argv
        .join(" ");
    assert!(
        argv.ends_with(
            "-- /x/thanos store --objstore.config-file=/tmp/d/bucket.yaml --data-dir=/tmp/d/store-0/data \
         --http-address=127.64.0.1:1 --grpc-address=127.64.0.1:2"
        ),
        "{argv}"
    );
}

#[test]
fn a_pod_that_was_not_injected_has_no_commands() {
    assert!(
        Injected::of(&json!({"spec": {"containers": [{"name": "t", "args": ["store"]}]}}))
            .is_none()
    );
    assert!(Injected::of(&pod(&["/bin/thanos"], &["store"])).is_none());
}
