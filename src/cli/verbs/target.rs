//! The StatefulSet that a verb changes, as the server would observe it.

use serde_json::Value;

use super::VerbArgs;
use crate::adapters::http_client::DEADLINE;
use crate::adapters::kube::annotate::StatefulSetApi;
use crate::adapters::kube::check::server_config;
use crate::adapters::kube::user_client::{ClusterClient, RequestError};
use crate::cli::Failure;
use crate::cli::statefulset_name::StatefulSetName;
use crate::core::config::{Config, nearest};
use crate::core::gateways::Gateway;
use crate::core::kube::pod_template;
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::names;
use crate::core::model::text::listed;

/// Names that a message lists.
const MAX_NAMES: usize = 10;

/// The present state of a StatefulSet.
pub(super) struct ChangeTarget {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) version: ReadVersion,
    pub(super) config: Config,
    pub(super) facts: StatefulSetFacts,
    pub(super) gateway: Gateway,
    /// Remarks on what was read.
    pub(super) warnings: Vec<String>,
}

/// Which StatefulSet was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReadVersion {
    /// Of the object; also a change of the status alone makes a new one.
    pub(super) resource_version: String,
    /// What a change is checked against: a number that counts changes of the spec, and the annotations.
    checked: [Option<Value>; 2],
}

impl ReadVersion {
    fn of(object: &Value) -> Self {
        let version = object.pointer("/metadata/resourceVersion");
        Self {
            resource_version: version
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            checked: ["/metadata/generation", "/metadata/annotations"]
                .map(|part| object.pointer(part).cloned()),
        }
    }
}

impl ChangeTarget {
    /// Reads the version again; `None` if what was checked is another by now.
    pub(super) async fn read_again(
        &self,
        api: &StatefulSetApi<'_>,
    ) -> Result<Option<ReadVersion>, RequestError> {
        let now = api.read(&self.name).await?.map(|now| ReadVersion::of(&now));
        Ok(now.filter(|now| now.checked == self.version.checked))
    }
}

/// Connects, and reads the StatefulSet. `given` is the configuration in --config.
pub(super) async fn find(
    args: &VerbArgs,
    given: Option<Config>,
    set: &StatefulSetName,
) -> Result<(ClusterClient, ChangeTarget), Failure> {
    let namespace = args.namespace_of(set)?;
    let cluster = args
        .cluster
        .connect(
            DEADLINE,
            ", or plan without a cluster: timeshard plan --help",
        )
        .await?;
    let namespace = namespace.unwrap_or_else(|| cluster.namespace.clone());
    let target = read(args, given, &cluster, &namespace, &set.name).await?;
    Ok((cluster, target))
}

/// Reads the StatefulSet and the configuration that applies to it.
pub(super) async fn read(
    args: &VerbArgs,
    given: Option<Config>,
    cluster: &ClusterClient,
    namespace: &str,
    name: &str,
) -> Result<ChangeTarget, Failure> {
    let api = StatefulSetApi { cluster, namespace };
    let object = api.read(name).await.map_err(|error| {
        failed(
            cluster,
            &format!("get statefulset {name} in namespace {namespace}"),
            &error,
        )
    })?;
    let Some(object) = object else {
        return Err(unknown(&api, name).await);
    };
    let mut warnings = Vec::new();
    let config = match given {
        Some(config) => config,
        None => server_config_of(args, cluster, &mut warnings).await?,
    };
    if api.is_labelled().await == Some(false) {
        warnings.push(format!(
            "namespace {namespace} is not labelled, so the server does not act on it yet: {}",
            names::label_command(namespace)
        ));
    }
    let facts = pod_template::facts(&object, namespace, None);
    Ok(ChangeTarget {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        version: ReadVersion::of(&object),
        gateway: Gateway::new(&config, facts.clone(), None),
        config,
        facts,
        warnings,
    })
}

/// Returns the server's configuration, or the defaults with a warning.
async fn server_config_of(
    args: &VerbArgs,
    cluster: &ClusterClient,
    warnings: &mut Vec<String>,
) -> Result<Config, Failure> {
    let system = &args.system.system_namespace;
    let text = match server_config(cluster.client.clone(), system, cluster.deadline).await {
        Ok(None) => return Ok(Config::default()),
        Ok(Some(text)) => text,
        Err(lack) => {
            warnings.push(format!(
                "the server's configuration cannot be read, so the built-in defaults apply here ({}: {}); give its file with --config, or its namespace with --system-namespace",
                lack.what, lack.why
            ));
            return Ok(Config::default());
        }
    };
    Config::parse(&text.text, &text.source).or_else(|refusal| {
        warnings.push(format!(
            "the server's configuration is not valid, so the built-in defaults apply here: {refusal}"
        ));
        Ok(Config::default())
    })
}

async fn unknown(api: &StatefulSetApi<'_>, name: &str) -> Failure {
    let StatefulSetApi { cluster, namespace } = api;
    let known = api.names().await.unwrap_or_default();
    let of: Vec<&str> = known.iter().map(String::as_str).collect();
    let hint = match nearest(name, &of) {
        Some(meant) => format!("did you mean {meant}?"),
        None if known.is_empty() => {
            "there is none in this namespace; choose another one with -n".to_owned()
        }
        None => format!(
            "there are {}; choose another namespace with -n",
            listed(&known, MAX_NAMES)
        ),
    };
    Failure::Failed(format!(
        "{cluster}: no StatefulSet {name} in namespace {namespace}; {hint}"
    ))
}

/// A failure of a request, with the cluster.
pub(super) fn failed(cluster: &ClusterClient, what: &str, error: &RequestError) -> Failure {
    Failure::Failed(format!("{cluster}: {what}: {error}"))
}
