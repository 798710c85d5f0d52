//! Each check passes on a healthy installation, and reports what is wrong with one that is broken in
//! one place.

mod fixture;
mod gateways;
mod installation;
mod queriers;
mod random;
mod rollouts;
mod webhook;

use std::collections::BTreeSet;

use serde_json::Value;

use super::ids::{self, Check};
use super::objects::ConfigText;
use super::snapshot::{DryRun, Snapshot};
use super::{CheckOutcome, Preflight, Report, pre, run};
use fixture::{before, forbidden, healthy, status, status_document};

/// Warnings and failures, as `fail id: message`.
fn troubles(report: &Report) -> Vec<String> {
    let bad = report
        .findings
        .iter()
        .filter(|finding| matches!(finding.result, CheckOutcome::Warn | CheckOutcome::Fail));
    bad.map(|finding| {
        format!(
            "{} {}: {}",
            finding.result.name(),
            finding.check.id,
            finding.message
        )
    })
    .collect()
}

/// Breaks one thing: this and nothing else is found, with a hint.
fn finds(want: &[&str], change: impl FnOnce(&mut Snapshot)) {
    let mut snapshot = healthy();
    change(&mut snapshot);
    compare(want, &run(&snapshot));
}

fn finds_before(want: &[&str], change: impl FnOnce(&mut Preflight)) {
    let mut preflight = before();
    change(&mut preflight);
    compare(want, &pre(&preflight));
}

fn compare(want: &[&str], report: &Report) {
    let found = troubles(report);
    let matches = found.len() == want.len()
        && want.iter().zip(&found).all(|(want, found)| {
            let (head, part) = want.split_once(": ").unwrap_or((want, ""));
            found.starts_with(&format!("{head}: ")) && found.contains(part)
        });
    assert!(matches, "wanted {want:#?}, found {found:#?}");
    for finding in report
        .findings
        .iter()
        .filter(|finding| matches!(finding.result, CheckOutcome::Warn | CheckOutcome::Fail))
    {
        assert!(!finding.hint.is_empty(), "{} has no hint", finding.check.id);
    }
}

fn with_status(snapshot: &mut Snapshot, change: impl FnOnce(&mut Value)) {
    let mut document = status_document();
    change(&mut document);
    snapshot.status = Ok(status(&document));
}

fn passes(report: &Report) -> BTreeSet<&'static str> {
    report
        .findings
        .iter()
        .filter(|finding| finding.result == CheckOutcome::Pass)
        .map(|finding| finding.check.id)
        .collect()
}

#[test]
fn a_healthy_installation_passes_every_check() {
    let (report, preflight) = (run(&healthy()), pre(&before()));
    assert_eq!(troubles(&report), Vec::<String>::new());
    assert_eq!(troubles(&preflight), Vec::<String>::new());
    let mut complete = healthy();
    complete.config = Ok(Some(ConfigText {
        text: "sharding: {queriers_complete: true}".to_owned(),
        ..ConfigText::default()
    }));
    let mut all = &passes(&report) | &passes(&preflight);
    all.extend(passes(&run(&complete)));
    all.insert("statefulset-shard-services");
    assert_eq!(
        all,
        ids::ALL
            .iter()
            .map(|check| check.id)
            .collect::<BTreeSet<_>>(),
        "every check can pass"
    );
}

#[test]
fn ids_are_unique_and_anchors() {
    let ids: BTreeSet<&str> = ids::ALL.iter().map(|check| check.id).collect();
    assert_eq!(ids.len(), ids::ALL.len());
    assert!(
        ids.iter()
            .all(|id| id.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
    );
    let sections: Vec<_> = ids::ALL.iter().map(|check| check.section).collect();
    assert!(sections.is_sorted(), "checks of a section are adjacent");
}

/// Without any right, no check passes without its input, and none fails.
#[test]
fn forbidden_values_are_skipped() {
    let mut s = healthy();
    s.nodes = forbidden("list nodes");
    s.namespaces = forbidden("list namespaces");
    s.webhooks = forbidden("list mutatingwebhookconfigurations");
    s.deployments = forbidden("list deployments");
    s.server_pods = forbidden("list pods");
    s.service = forbidden("get service");
    s.endpoints = forbidden("list endpointslices");
    (s.authorities, s.served) = (None, Err("not known".to_owned()));
    s.secret = forbidden("get secret");
    s.denied = forbidden("create subjectaccessreviews");
    s.dry_run = DryRun::NotTried("no namespace".to_owned());
    s.config = forbidden("get configmap");
    s.status = forbidden("get leases");
    s.statefulsets = forbidden("list statefulsets");
    s.workloads = forbidden("list deployments");
    s.maps = forbidden("list configmaps");
    s.spaces.clear();
    let report = run(&s);
    assert_eq!(troubles(&report).len(), 1, "{:#?}", troubles(&report));
    assert!(troubles(&report)[0].starts_with("warn api-permissions: "));
    assert_eq!(
        passes(&report),
        BTreeSet::from(["api-reachable", "api-version", "api-clock"])
    );
}

#[test]
fn findings_are_in_the_order_of_the_checks() {
    let report = run(&healthy());
    let place = |check: &Check| ids::ALL.iter().position(|one| one.id == check.id).unwrap();
    assert!(
        report
            .findings
            .is_sorted_by_key(|finding| place(finding.check))
    );
    let summary = report.summary();
    assert_eq!(
        summary.pass + summary.warn + summary.fail + summary.skipped,
        report.findings.len()
    );
}
