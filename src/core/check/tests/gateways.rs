//! The `StatefulSet`s, their pods, and the PDBs and Services that select these.

use serde_json::{Value, json};

use super::super::objects::ConfigText;
use super::super::snapshot::Snapshot;
use super::super::{Space, run};
use super::fixture::{budget, healthy, pod, read, service};
use super::{finds, passes, with_status};
use crate::core::kube::observed::ServiceFacts;
use crate::core::model::names;

fn set(snapshot: &mut Snapshot, change: impl FnOnce(&mut Value)) {
    change(&mut snapshot.statefulsets.as_mut().unwrap()[0]);
}

fn space(snapshot: &mut Snapshot) -> &mut Space {
    snapshot.spaces.get_mut("monitoring").unwrap()
}

/// The container of thanos in the StatefulSet.
const CONTAINER: &str = "/spec/template/spec/containers/0";

fn args(argv: Value) -> impl FnOnce(&mut Snapshot) {
    move |s: &mut Snapshot| {
        set(s, |o| {
            *o.pointer_mut(&format!("{CONTAINER}/args")).unwrap() = argv;
        });
    }
}

#[test]
fn eligibility_is_admissions() {
    finds(
        &["warn statefulset-eligible: --min-time is set by hand"],
        args(json!(["store", "--min-time=-1d"])),
    );
    finds(
        &["fail statefulset-eligible: @/etc/flags"],
        args(json!(["store", "@/etc/flags"])),
    );
    finds(&["fail statefulset-eligible: runs inside"], |s| {
        set(s, |o| {
            o.pointer_mut(CONTAINER).unwrap()["command"] = json!(["sh", "-c", "thanos store"]);
        });
    });
    finds(&["warn statefulset-eligible: is not named thanos"], |s| {
        set(s, |o| {
            o.pointer_mut(CONTAINER).unwrap()["image"] = json!("busybox");
        });
    });
    finds(&[], args(json!(["receive"])));
    // An opt-out is deliberate.
    for argv in [json!(["store"]), json!(["store", "@/etc/flags"])] {
        finds(&[], |s: &mut Snapshot| {
            args(argv)(s);
            set(s, |o| {
                o["metadata"]["annotations"][names::MANAGED] = json!("false");
            });
        });
    }
    finds(&[], |s| {
        set(s, |o| {
            o["spec"]["template"]["metadata"]["labels"][names::INJECT] = json!("false");
        });
    });
}

#[test]
fn the_pod_template() {
    finds(&["fail statefulset-probes: /-/healthy"], |s| {
        set(s, |o| {
            o.pointer_mut(CONTAINER).unwrap()["livenessProbe"] =
                json!({"httpGet": {"path": "/-/ready", "port": 10902}});
        });
    });
    finds(&["fail statefulset-probes"], |s| {
        set(s, |o| {
            o.pointer_mut(CONTAINER).unwrap()["livenessProbe"] =
                json!({"tcpSocket": {"port": 10901}});
        });
    });
    finds(&["warn statefulset-template: no effect"], |s| {
        set(s, |o| {
            o["spec"]["template"]["metadata"]["annotations"] =
                json!({"thanos-timeshard.io/overlap": "2d"});
        });
    });
    finds(&["warn statefulset-template: skip-inbound-ports"], |s| {
        set(s, |o| {
            o["spec"]["template"]["metadata"]["annotations"] =
                json!({names::LINKERD_INJECT: "enabled"});
        });
    });
    finds(&["fail statefulset-template: JSON array"], |s| {
        set(s, |o| {
            o["spec"]["template"]["metadata"]["annotations"] =
                json!({names::COMMAND_ANNOTATION: "/bin/thanos"});
        });
    });
}

#[test]
fn the_overlap() {
    finds(
        &["fail statefulset-overlap: shorter than"],
        args(json!(["store", "--sync-block-duration=2d"])),
    );
    finds(
        &["warn statefulset-overlap: leaves less"],
        args(json!(["store", "--sync-block-duration", "23h"])),
    );
    finds(
        &["warn statefulset-overlap: cannot be compared"],
        args(json!(["store", "--sync-block-duration=$(X)"])),
    );
}

#[test]
fn annotations() {
    let annotated = |key: &'static str, value: &'static str| {
        move |s: &mut Snapshot| set(s, |o| o["metadata"]["annotations"][key] = json!(value))
    };
    finds(
        &["fail statefulset-annotations: \"many\""],
        annotated("thanos-timeshard.io/total-shards", "many"),
    );
    finds(
        &["warn statefulset-annotations: is unknown and has no effect"],
        annotated("thanos-timeshard.io/total-shard", "3"),
    );
    finds(
        &["warn statefulset-annotations: \"yes\""],
        annotated(names::PAUSE, "yes"),
    );
    finds(
        &["warn statefulset-annotations: guard: \"true\""],
        annotated(names::GUARD, "true"),
    );
    finds(&[], annotated(names::GUARD, "warn"));
    finds(
        &["warn statefulset-annotations: no effect on a StatefulSet"],
        annotated(names::INJECT, "false"),
    );
    finds(
        &["fail statefulset-annotations: target-replicas"],
        annotated(names::TARGET_REPLICAS, "0"),
    );
}

#[test]
fn replicas_and_update_strategy() {
    let replicas = |n: u32| move |s: &mut Snapshot| set(s, |o| o["spec"]["replicas"] = json!(n));
    finds(
        &[
            "warn statefulset-replicas: 1 pod for 3 shards",
            "warn statefulset-replicas: one replica",
        ],
        replicas(1),
    );
    finds(&["warn statefulset-replicas: 8 pods"], replicas(8));
    finds(&["warn statefulset-replicas: 0 replicas"], replicas(0));
    let at_once = |value: Value| {
        move |s: &mut Snapshot| {
            set(s, |o| {
                o["spec"]["updateStrategy"]["rollingUpdate"] = json!({"maxUnavailable": value});
            });
        }
    };
    finds(
        &["warn statefulset-update: all replicas of shard 0 at once (store-0, store-1)"],
        at_once(json!(2)),
    );
    finds(
        &["warn statefulset-update: maxUnavailable is 50%"],
        at_once(json!("50%")),
    );
    finds(&[], at_once(json!(1)));
}

#[test]
fn pods() {
    finds(&["warn pods-injected: store-3"], |s| {
        space(s).pods = Ok((0..6).map(|n| pod(n, n != 3)).collect());
    });
    finds(&["warn pods-agents: store-2 (0.9.0)"], |s| {
        with_status(s, |d| {
            d["statefulsets"][0]["pods"][2]["agent_version"] = json!("0.9.0");
        });
    });
}

#[test]
fn budgets() {
    let foreign = |n: usize| {
        move |s: &mut Snapshot| {
            space(s).budgets = Ok((0..n)
                .map(|i| budget(&format!("pdb{i}"), false, &json!({"app": "store"})))
                .collect());
        }
    };
    finds(&["warn statefulset-budgets: pdb0"], foreign(1));
    finds(&["fail statefulset-budgets: pdb0, pdb1"], foreign(2));
}

#[test]
fn services() {
    let served = |change: fn(&mut ServiceFacts)| {
        move |s: &mut Snapshot| {
            let mut service = service();
            change(&mut service);
            space(s).services = Ok(vec![service]);
        }
    };
    finds(
        &[
            "warn statefulset-services: publishNotReadyAddresses",
            "fail querier-endpoints: publishNotReadyAddresses",
        ],
        served(|service| service.publishes_not_ready = true),
    );
    finds(
        &[
            "warn statefulset-services: no headless",
            "fail querier-endpoints: ClusterIP",
        ],
        served(|service| service.headless = false),
    );
    finds(
        &["fail querier-endpoints: no port named grpc"],
        served(|service| service.ports.clear()),
    );
    finds(
        &["warn statefulset-services: no Service selects"],
        served(|service| service.selector = read(json!({"app": "other"}))),
    );
    finds(&["warn statefulset-services: spec.serviceName"], |s| {
        set(s, |o| o["spec"]["serviceName"] = json!("gone"));
    });
}

#[test]
fn services_of_shards() {
    let grouped = |s: &mut Snapshot| {
        s.config = Ok(Some(ConfigText {
            text: "sharding: {shard_services: true}".to_owned(),
            of_server: true,
            ..ConfigText::default()
        }));
    };
    finds(
        &["fail statefulset-shard-services: store-shard-0, store-shard-1, store-shard-2"],
        grouped,
    );
    let shard = |n: u32| ServiceFacts {
        name: format!("store-shard-{n}"),
        ours: true,
        owner_uid: Some("u1".to_owned()),
        selector: read(json!({"app": "store", names::SHARD_LABEL: n.to_string()})),
        ..service()
    };
    let three = |s: &mut Snapshot| {
        grouped(s);
        space(s)
            .services
            .as_mut()
            .unwrap()
            .extend((0..3).map(shard));
    };
    finds(&[], three);
    finds(
        &["fail statefulset-shard-services: store-shard-0, store-shard-1, store-shard-2"],
        |s| {
            three(s);
            set(s, |o| {
                o["spec"]["template"]["spec"]["containers"][0]["args"] =
                    json!(["store", "--grpc-address=0.0.0.0:9090"]);
            });
        },
    );
    let mut snapshot = healthy();
    three(&mut snapshot);
    assert!(passes(&run(&snapshot)).contains("statefulset-shard-services"));
}
