//! `timeshard version`: client, and where a cluster is reachable its servers and agents.

use std::collections::BTreeMap;

use serde::{Deserialize as _, Serialize};

use super::cluster::{ClusterArgs, SystemArgs};
use super::{Failure, output, print, say};
use crate::adapters::http_client::DEADLINE;
use crate::adapters::kube::server_status::{Address, ReplicaAnswer, StatusSource, ask_each};
use crate::adapters::kube::user_client::{ClusterClient, ConnectError};
use crate::core::model::text::{counted, listed};
use crate::core::model::version;
use crate::core::rollout::report::SetReport;
use crate::core::server_status::ServerStatus;

/// Pods that one line names.
const MAX_NAMED: usize = 5;

/// Show the versions of this program, the servers and the agents
///
/// Without a cluster, it shows its own version. Servers are asked through the API server's proxy, as
/// by `timeshard status`; the agents are those in the leader's reports.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  timeshard version
  timeshard version --client
  timeshard version --context production -o json | jq -r '.servers[].version'")]
pub(super) struct Args {
    /// Show only the version of this program
    #[arg(long, conflicts_with = "server")]
    client: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,
    /// Address of the admin port of one server, such as `http://127.0.0.1:8080`, instead of a
    /// cluster
    #[arg(long, value_name = "URL", env = "TIMESHARD_SERVER")]
    server: Option<Address>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    system: SystemArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// One line for each program
    Table,
    /// The same with the pods of every agent
    Wide,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
}

#[derive(Debug, Default, Serialize)]
struct Versions {
    client: ClientVersion,
    /// `None` if no cluster was asked.
    cluster: Option<ClusterVersion>,
    servers: Vec<ServerVersion>,
    agents: Vec<AgentVersion>,
}

#[derive(Debug, Serialize)]
struct ClientVersion {
    version: &'static str,
    platform: String,
}

#[derive(Debug, Serialize)]
struct ClusterVersion {
    server: String,
    context: Option<String>,
    kubernetes: String,
}

#[derive(Debug, Serialize)]
struct ServerVersion {
    pod: String,
    version: Option<String>,
    leader: bool,
    /// Why the version is unknown.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct AgentVersion {
    /// Empty if unknown.
    version: String,
    /// As `namespace/pod`.
    pods: Vec<String>,
}

impl Default for ClientVersion {
    fn default() -> Self {
        Self {
            version: version::text(),
            platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    super::block_on(async {
        let mut versions = Versions::default();
        let asked = if args.client {
            Ok(())
        } else {
            ask(args, &mut versions).await
        };
        // What is known is shown, also if the cluster does not answer.
        print(&rendered(&versions, args.output)?)?;
        asked
    })
}

async fn ask(args: &Args, versions: &mut Versions) -> Result<(), Failure> {
    if let Some(address) = &args.server {
        let answer = StatusSource::At(address.clone()).ask().await;
        let answer = answer.map_err(|error| Failure::Failed(error.to_string()))?;
        versions.take(vec![ReplicaAnswer {
            pod: answer.from,
            body: Ok(answer.body),
        }]);
        return Ok(());
    }
    let cluster = match args.cluster.try_connect(DEADLINE).await {
        Ok(cluster) => cluster,
        Err(ConnectError::NoCluster { why }) if !args.cluster.is_chosen() => {
            say(&format!("no cluster is asked: {why}"));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    versions.cluster = Some(kubernetes(&cluster).await?);
    let system = &args.system.system_namespace;
    let answers = ask_each(&cluster.client, system, cluster.deadline)
        .await
        .map_err(|error| Failure::Failed(format!("{cluster}: {error}")))?;
    if answers.is_empty() {
        say(&format!(
            "no ready pod of timeshard serve in namespace {system}; set its namespace with --system-namespace"
        ));
    }
    versions.take(answers);
    Ok(())
}

async fn kubernetes(cluster: &ClusterClient) -> Result<ClusterVersion, Failure> {
    let version: serde_json::Value = cluster
        .get("/version")
        .await
        .map_err(|error| Failure::Failed(format!("{cluster}: {error}")))?;
    Ok(ClusterVersion {
        server: cluster.url.clone(),
        context: cluster.context.clone(),
        kubernetes: version["gitVersion"]
            .as_str()
            .unwrap_or("unknown")
            .to_owned(),
    })
}

impl Versions {
    /// Takes the versions from `/status` of each replica.
    fn take(&mut self, answers: Vec<ReplicaAnswer>) {
        // The leader's reports are current; without a leader, any replica's are.
        let mut reports: Option<Vec<SetReport>> = None;
        for answer in answers {
            let status = answer.body.and_then(|body| ServerStatus::parse(&body));
            let server = match status {
                Ok(status) => {
                    let leader = status.leader.as_ref().is_some_and(|leader| leader.is_self);
                    if leader || reports.is_none() {
                        let sets = status.statefulsets.iter();
                        reports = Some(
                            sets.filter_map(|set| SetReport::deserialize(set).ok())
                                .collect(),
                        );
                    }
                    ServerVersion {
                        pod: answer.pod,
                        version: Some(status.version),
                        leader,
                        error: None,
                    }
                }
                Err(why) => ServerVersion {
                    pod: answer.pod,
                    version: None,
                    leader: false,
                    error: Some(why),
                },
            };
            self.servers.push(server);
        }
        let mut agents: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for set in reports.unwrap_or_default() {
            for pod in set.pods {
                if let Some(version) = pod.agent_version {
                    agents
                        .entry(version)
                        .or_default()
                        .push(format!("{}/{}", set.namespace, pod.pod));
                }
            }
        }
        self.agents = agents
            .into_iter()
            .map(|(version, pods)| AgentVersion { version, pods })
            .collect();
    }
}

fn rendered(versions: &Versions, output: Output) -> Result<String, Failure> {
    match output {
        Output::Table => Ok(text(versions, MAX_NAMED)),
        Output::Wide => Ok(text(versions, usize::MAX)),
        Output::Json => output::json("Version", versions),
        Output::Yaml => output::yaml("Version", versions),
    }
}

fn text(versions: &Versions, max: usize) -> String {
    let ClientVersion { version, platform } = &versions.client;
    let mut text = format!("client      {version}, {platform}\n");
    if let Some(cluster) = &versions.cluster {
        let context = cluster
            .context
            .as_ref()
            .map_or_else(String::new, |context| format!(" (context {context})"));
        text += &format!(
            "kubernetes  {}, {}{context}\n",
            cluster.kubernetes, cluster.server
        );
    }
    for server in &versions.servers {
        let ServerVersion {
            pod,
            version,
            leader,
            error,
        } = server;
        let what = version
            .clone()
            .unwrap_or_else(|| format!("unknown ({})", error.as_deref().unwrap_or_default()));
        let leads = if *leader { " (leader)" } else { "" };
        text += &format!("server      {what}, {pod}{leads}\n");
    }
    for AgentVersion { version, pods } in &versions.agents {
        let version = if version.is_empty() {
            "unknown"
        } else {
            version
        };
        let count = u64::try_from(pods.len()).unwrap_or(u64::MAX);
        text += &format!(
            "agent       {version}, {}: {}\n",
            counted(count, "pod"),
            listed(pods, max)
        );
    }
    super::for_terminal(&text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(pod: &str, version: &str, leader: bool, agents: &[&str]) -> ReplicaAnswer {
        let window = json!({"min_time": "-1d", "max_time": "0s"});
        let pods: Vec<_> = (0..).zip(agents).map(|(i, agent)| {
            json!({"pod": format!("store-{i}"), "ordinal": i, "shard": 0, "replica": i, "surplus": false, "desired": window,
                "published": window, "applied": window, "verified": true, "state": "confirmed", "phase": "serving",
                "seconds_in_state": 1, "restarts": 0, "agent_version": agent, "why": null})
        }).collect();
        let set = json!({"namespace": "monitoring", "name": "store", "configmap": "c", "replicas": pods.len(), "state": "settled",
            "message": "", "moves_left": 0, "steps_left": 0, "eta_seconds": 0, "gaps": [], "gap_seconds": 0,
            "minimum_ready_replicas": 2, "warnings": [], "pods": pods});
        let body = json!({"version": version, "leader": {"holder": pod, "self": leader}, "statefulsets": [set]});
        ReplicaAnswer {
            pod: pod.to_owned(),
            body: Ok(body.to_string().into()),
        }
    }

    #[test]
    fn agents_are_those_of_the_leaders_reports() {
        let mut versions = Versions::default();
        versions.take(vec![
            answer("timeshard-a", "0.2.0", false, &["0.0.1"]),
            answer("timeshard-b", "0.1.9", true, &["0.2.0", "0.1.0", "0.2.0"]),
            ReplicaAnswer {
                pod: "timeshard-c".to_owned(),
                body: Err("503: draining".to_owned()),
            },
        ]);
        let text = text(&versions, MAX_NAMED);
        let (_, rest) = text.split_once('\n').unwrap();
        assert_eq!(
            rest,
            "server      0.2.0, timeshard-a\n\
             server      0.1.9, timeshard-b (leader)\n\
             server      unknown (503: draining), timeshard-c\n\
             agent       0.1.0, 1 pod: monitoring/store-1\n\
             agent       0.2.0, 2 pods: monitoring/store-0, monitoring/store-2\n"
        );
    }
}
