//! Queriers, and whether discovery fits the periods.

use serde_json::json;

use super::super::Snapshot;
use super::super::fixture::{querier, read, statefulset};
use super::super::objects::ConfigText;
use super::finds;

#[test]
fn queriers() {
    const DNSSRV: &str = "--endpoint=dnssrv+_grpc._tcp.store.monitoring.svc.cluster.local";
    let asks = |args: &'static [&'static str]| move |s: &mut Snapshot| s.workloads = Ok(read(json!([querier(args)])));
    finds(
        &["fail querier-interval: every 2m", "warn querier-interval: termination_drain"],
        asks(&["query", DNSSRV, "--store.sd-dns-interval=2m"]),
    );
    finds(&["warn querier-interval: 20s of the 1m30s"], |s| {
        asks(&["query", DNSSRV, "--store.sd-dns-interval", "70s"])(s);
        s.config = Ok(Some(ConfigText { text: "sharding: {termination_drain: 2m}".to_owned(), of_server: true, ..ConfigText::default() }));
    });
    finds(&["warn querier-interval: cannot be compared"], asks(&["query", DNSSRV, "--store.sd-dns-interval=$(X)"]));
    finds(&["fail querier-endpoints: own address"], asks(&["query", "--endpoint=store-0.store.monitoring.svc:10901"]));
    finds(&["fail querier-endpoints: looked up once"], asks(&["query", "--store", "store:10901"]));
    finds(&[], asks(&["query", "--endpoint=dns+store:10901"]));
    finds(&[], asks(&["query", "--endpoint=dns+somebody.else.svc:10901"]));
    finds(&["fail querier-endpoints: looked up once"], |s| {
        s.workloads = Ok(Vec::new());
        let mut as_set = statefulset();
        as_set["metadata"]["name"] = json!("query");
        as_set["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["query", "--endpoint=store.monitoring:10901"]);
        s.statefulsets.as_mut().unwrap().push(as_set);
    });
}
