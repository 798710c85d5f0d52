//! The server's `/status` and the data of its page.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::cluster::ElectionCandidate;
use crate::adapters::clock;
use crate::adapters::config_file::ConfigFile;
use crate::adapters::https::tls::Certificates;
use crate::adapters::kube::certificates::CertificateState;
use crate::adapters::kube::cluster::Observed;
use crate::adapters::kube::lease::Leadership;
use crate::cli::page_source::{self, PageStatus};
use crate::controller::reports::Reports;
use crate::core::server_status::{API_VERSION, LeaderStatus, ServerStatus};
use crate::page::feed::PageFacts;
use crate::page::leader::LeaderReports;

pub(super) struct StatusInputs {
    pub(super) observed: Arc<Observed>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) self_signed: Option<Arc<CertificateState>>,
    pub(super) file: Option<Arc<ConfigFile>>,
    pub(super) webhook_only: bool,
    pub(super) namespace: Option<String>,
    pub(super) leading: Option<ReportSources>,
}

/// Whether this replica leads, and the reports of the leader: its own, or another's.
pub(super) struct ReportSources {
    leadership: Leadership,
    own: Arc<Reports>,
    of_leader: Arc<LeaderReports>,
}

impl StatusInputs {
    pub(super) fn leading(candidate: &ElectionCandidate) -> ReportSources {
        ReportSources {
            leadership: candidate.leadership.clone(),
            own: candidate.reports.clone(),
            of_leader: candidate.of_leader.clone(),
        }
    }

    fn leader(&self) -> Option<LeaderStatus> {
        let ReportSources { leadership, .. } = self.leading.as_ref()?;
        Some(LeaderStatus {
            holder: leadership.holder(),
            is_self: leadership.remaining().is_some(),
            error: leadership.last_error(),
        })
    }

    fn head(&self, leader: Option<LeaderStatus>) -> Map<String, Value> {
        let observed = &self.observed;
        let cluster = observed.fleet.load().config().operator.cluster_name.clone();
        let self_signed = || self.self_signed.as_ref().and_then(|state| state.problem());
        let status = ServerStatus {
            api_version: API_VERSION.to_owned(),
            cluster_name: Some(cluster).filter(|name| !name.is_empty()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            webhook_only: self.webhook_only,
            namespace: self.namespace.clone(),
            synced: Some(self.webhook_only || observed.is_synced()),
            watch_error: observed.watches.last_error(),
            namespaces: Some(observed.namespaces()),
            namespaces_without_rights: observed.rights.all(),
            not_taken_in: observed
                .refused()
                .into_iter()
                .map(|refused| refused.sentence)
                .collect(),
            leader,
            certificate_not_after_unix_seconds: Some(self.certificates.not_after_unix_seconds()),
            certificate_error: self.certificates.last_failure().or_else(self_signed),
            config_error: self.file.as_ref().and_then(|file| file.last_failure()),
            ..ServerStatus::default()
        };
        // Strings, numbers and lists of them always serialize, as an object.
        match serde_json::to_value(status) {
            Ok(Value::Object(head)) => head,
            _ => Map::new(),
        }
    }

    /// Writes the document of `/status`.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let fleet = self.observed.fleet.load_full();
        let document = PageStatus {
            head: self.head(self.leader()),
            statefulsets: page_source::Sets {
                fleet: &fleet,
                reports: self.leading.as_ref().map(|leading| &*leading.own),
                now: clock::now(),
            },
        };
        serde_json::to_writer_pretty(&mut *out, &document)?;
        out.write_all(b"\n")
    }

    /// The data of the page: the same, without copying reports, and on a replica that does not lead
    /// with the leader's.
    pub(super) fn page(&self) -> PageFacts {
        let leader = self.leader();
        let mut head = self.head(leader.clone());
        let reports = match (&self.leading, leader) {
            (Some(leading), Some(leader)) if !leader.is_self => {
                let (relayed, reports) = leading.of_leader.latest(leader.holder.as_deref());
                let relayed = serde_json::to_value(relayed).unwrap_or_default();
                head.insert("relayed".to_owned(), relayed);
                reports
            }
            (Some(leading), _) => leading.own.latest(),
            (None, _) => BTreeMap::new(),
        };
        PageFacts {
            head: Value::Object(head),
            sets: page_source::sets(&self.observed.fleet.load(), &reports, clock::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::adapters::kube::lease::{self, LeaseSettings};
    use crate::adapters::signals::Shutdown;
    use crate::core::config::Config;
    use crate::core::gateways::Gateways;
    use crate::core::kube::statefulset::StatefulSetFacts;
    use crate::core::rollout::report::{RolloutState, SetReport};
    use crate::testing::api_server;

    /// A replica that knows one StatefulSet, while another pod holds the Lease.
    fn follower() -> StatusInputs {
        let client = api_server::client("sys", |_| {
            let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "timeshard-refresher", "namespace": "sys", "resourceVersion": "1"},
                "spec": {"holderIdentity": "timeshard-b", "leaseDurationSeconds": 15, "leaseTransitions": 1,
                    "renewTime": clock::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true)}});
            std::future::ready((200, lease))
        });
        let settings = LeaseSettings::of_pod(Some("timeshard-a".to_owned()), None);
        let (leadership, election) = lease::run(client, settings, Shutdown::never());
        tokio::spawn(election);
        let config = Config::parse("operator: {cluster_name: prod-eu}", "test").unwrap();
        let facts = StatefulSetFacts {
            namespace: "ns".to_owned(),
            name: "store".to_owned(),
            replicas: 6,
            store: true,
            ..StatefulSetFacts::default()
        };
        let fleet = Gateways::new(Arc::new(config)).with_statefulset(facts);
        let leading = ReportSources {
            leadership,
            own: Arc::default(),
            of_leader: Arc::default(),
        };
        StatusInputs {
            observed: Observed::new(fleet.unwrap()),
            certificates: Certificates::none(),
            self_signed: None,
            file: None,
            webhook_only: false,
            namespace: Some("sys".to_owned()),
            leading: Some(leading),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_has_its_own_plan_and_the_reports_of_the_leader() {
        let status = follower();
        let of_leader = status.leading.as_ref().unwrap().of_leader.clone();
        tokio::spawn(of_leader.follow(async |holder| {
            assert_eq!(holder, "timeshard-b");
            let report = SetReport {
                namespace: "ns".to_owned(),
                name: "store".to_owned(),
                state: RolloutState::Settled,
                ..SetReport::default()
            };
            let leader = json!({"holder": "timeshard-b", "self": true});
            Ok(json!({"leader": leader, "statefulsets": [report]})
                .to_string()
                .into())
        }));
        tokio::time::sleep(Duration::from_secs(5)).await;
        let first = status.page();
        assert_eq!(first.head["leader"]["holder"], "timeshard-b");
        assert_eq!(first.head["relayed"]["from"], Value::Null, "not asked yet");
        assert_eq!(first.sets[0].report.state, RolloutState::Unknown);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let later = status.page();
        assert_eq!(later.head["relayed"]["from"], "timeshard-b");
        assert_eq!(later.head["cluster_name"], "prod-eu");
        let set = &later.sets[0];
        assert_eq!(
            (set.report.state, set.shards.len()),
            (RolloutState::Settled, 3)
        );
        // `/status` is this replica's own, with a version, and has no reports of the leader.
        let mut document = Vec::new();
        status.write(&mut document).unwrap();
        let document: Value = serde_json::from_slice(&document).unwrap();
        assert_eq!(document["api_version"], API_VERSION);
        assert_eq!(document["statefulsets"][0]["state"], "unknown");
        assert!(document.get("relayed").is_none());
    }
}
