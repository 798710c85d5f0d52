//! The installation: configuration, certificate, Service, and a trial of admission.

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use serde_json::{Value, json};

use super::ask::{Asker, Form, shown};
use super::certificates::{Bundle, bundle, chain, verify};
use super::{clock, escaped};
use crate::adapters::kube::facts;
use crate::adapters::kube::partial::Partial;
use crate::core::check::objects::{
    ConfigText, ContainerArgs, Endpoints, Volume, WebhookConfiguration, Workload,
};
use crate::core::check::webhook::ours_of;
use crate::core::check::{Certificate, DryRun, Got, Lack};
use crate::core::kube::observed::ServiceFacts;
use crate::core::kube::recognise::sidecar_of;
use crate::core::model::names;

/// Addresses of the server to connect to.
const MAX_ADDRESSES: usize = 4;
/// The configuration, unless the Deployment names another one.
const CONFIG_MAP: (&str, &str) = ("timeshard-config", "config.yaml");
/// The certificate, unless the Deployment names another one.
const TLS_SECRET: &str = "timeshard-tls";
/// The ServiceAccount, unless the Deployment names another one.
const ACCOUNT: &str = "timeshard";

pub(super) struct Installation<'a> {
    pub(super) asker: &'a Asker,
    pub(super) system: &'a str,
    pub(super) deployment: Option<&'a Workload>,
}

/// The webhook's certificate, and the Service and endpoints that lead to it.
pub(super) struct WebhookObservation {
    pub(super) service: Got<Option<ServiceFacts>>,
    pub(super) endpoints: Got<Vec<Endpoints>>,
    pub(super) authorities: Option<Result<Vec<(String, i64)>, String>>,
    pub(super) served: Result<Certificate, String>,
    pub(super) secret: Got<Option<Certificate>>,
}

impl Installation<'_> {
    pub(super) fn account(&self) -> String {
        let account = self
            .deployment
            .map(|deployment| deployment.spec.template.spec.service_account_name.clone());
        account
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| ACCOUNT.to_owned())
    }

    fn container(&self) -> Option<&ContainerArgs> {
        self.deployment?
            .spec
            .template
            .spec
            .containers
            .iter()
            .find(|container| container.args.iter().any(|word| word == "serve"))
    }

    fn argument(&self, flag: &str) -> Option<&str> {
        self.container()?
            .args
            .iter()
            .find_map(|word| word.strip_prefix(flag)?.strip_prefix('='))
    }

    /// The volume mounted at a directory of the server.
    fn volume(&self, folder: &str) -> Option<&Volume> {
        let mounts = &self.container()?.volume_mounts;
        let mount = mounts
            .iter()
            .find(|mount| mount.mount_path.trim_end_matches('/') == folder.trim_end_matches('/'))?;
        self.deployment?
            .spec
            .template
            .spec
            .volumes
            .iter()
            .find(|volume| volume.name == mount.name)
    }

    /// The configuration of the server; `None` if it has none.
    pub(super) async fn config(&self) -> Got<Option<ConfigText>> {
        let (name, key) = match self.argument("--config") {
            None if self.container().is_some() => return Ok(None),
            None => CONFIG_MAP,
            Some(path) => {
                let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
                let map = self
                    .volume(folder)
                    .and_then(|volume| volume.config_map.as_ref());
                map.map_or(CONFIG_MAP, |map| (map.name.as_str(), file))
            }
        };
        let what = format!("get configmap {name} in namespace {}", self.system);
        let path = format!("/api/v1/namespaces/{}/configmaps/{name}", self.system);
        let missing = |why: &str| Lack::new(&what, why);
        let map: ConfigMap = self
            .asker
            .get(&what, &path, Form::Whole)
            .await?
            .ok_or_else(|| missing("it does not exist"))?;
        let text = map
            .data
            .and_then(|mut data| data.remove(key))
            .ok_or_else(|| missing(&format!("it has no key {key}")))?;
        Ok(Some(ConfigText {
            source: format!("ConfigMap {}/{name}: {key}", self.system),
            text,
            of_server: true,
        }))
    }

    /// Connects to the webhook as the API server does.
    pub(super) async fn certificate(
        &self,
        webhooks: &Got<Vec<WebhookConfiguration>>,
    ) -> WebhookObservation {
        let webhook = webhooks
            .as_ref()
            .ok()
            .and_then(|all| ours_of(all, self.system));
        let target = webhook.and_then(|webhook| webhook.client_config.service.as_ref());
        let (namespace, name) = target.map_or((self.system, "timeshard"), |service| {
            (&service.namespace, &service.name)
        });
        let host = format!("{name}.{namespace}.svc");
        let trusted = webhook.map(|webhook| {
            bundle(
                webhook
                    .client_config
                    .ca_bundle
                    .as_deref()
                    .unwrap_or_default(),
            )
        });
        let (what_service, what_slices) = (
            format!("get service {name} in namespace {namespace}"),
            format!("list endpointslices in namespace {namespace}"),
        );
        let (path_service, path_slices) = (
            format!("/api/v1/namespaces/{namespace}/services/{name}"),
            format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"),
        );
        let selector = format!(
            "&labelSelector={}",
            escaped(&format!("kubernetes.io/service-name={name}"))
        );
        let (service, endpoints, secret) = tokio::join!(
            self.asker
                .get::<Partial<Service>>(&what_service, &path_service, Form::Whole),
            self.asker
                .list::<Endpoints>(&what_slices, &path_slices, &selector, Form::Whole),
            self.secret(trusted.as_ref(), &host),
        );
        let served = match &trusted {
            Some(Ok(trusted)) => self.served(&endpoints, trusted, &host).await,
            _ => Err("there is no caBundle to compare with".to_owned()),
        };
        let authorities = trusted.map(|bundle| bundle.map(|bundle| bundle.ends));
        WebhookObservation {
            service: service.map(|found| found.map(|Partial(found, _)| facts::service(&found))),
            endpoints,
            authorities,
            served,
            secret,
        }
    }

    async fn served(
        &self,
        endpoints: &Got<Vec<Endpoints>>,
        trusted: &Bundle,
        host: &str,
    ) -> Result<Certificate, String> {
        let slices = endpoints
            .as_deref()
            .map_err(|lack| format!("its addresses are not known: {}", lack.why))?;
        let of = |slice: &Endpoints| -> Vec<(String, u16)> {
            let Some(port) = slice.ports.first().and_then(|port| port.port) else {
                return Vec::new();
            };
            let ready = slice
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.conditions.ready != Some(false));
            ready
                .filter_map(|endpoint| Some((endpoint.addresses.first()?.clone(), port)))
                .collect()
        };
        let addresses: Vec<(String, u16)> =
            slices.iter().flat_map(of).take(MAX_ADDRESSES).collect();
        if addresses.is_empty() {
            return Err("no address is ready".to_owned());
        }
        (self.asker.progress)("connect to the server for its certificate");
        let asked = addresses.iter().map(|(address, port)| {
            Box::pin(async move {
                super::certificates::shown(address, *port, host)
                    .await
                    .map(|chain| (format!("the certificate of {address}:{port}"), chain))
            })
        });
        let mut shown: Vec<_> = join_all(asked).await;
        if shown.iter().any(Result::is_ok) {
            // Unreachable addresses have their own check.
            shown.retain(Result::is_ok);
        }
        let verified = shown.into_iter().map(|one| {
            one.and_then(|(from, chain)| verify(from, &chain, trusted, host, clock::unix_seconds()))
        });
        let worst = |one: &Result<Certificate, String>| {
            one.as_ref().map_or((0, 0), |certificate| {
                (
                    1 + u8::from(certificate.trouble.is_none()),
                    certificate.not_after,
                )
            })
        };
        verified
            .min_by_key(worst)
            .unwrap_or_else(|| Err("no address is ready".to_owned()))
    }

    async fn secret(
        &self,
        trusted: Option<&Result<Bundle, String>>,
        host: &str,
    ) -> Got<Option<Certificate>> {
        let volume = self
            .argument("--cert-dir")
            .and_then(|folder| self.volume(folder))
            .and_then(|volume| volume.secret.as_ref());
        let name = volume.map_or(TLS_SECRET, |secret| secret.secret_name.as_str());
        let what = format!("get secret {name} in namespace {}", self.system);
        let path = format!("/api/v1/namespaces/{}/secrets/{name}", self.system);
        let Some(secret) = self.asker.get::<Value>(&what, &path, Form::Whole).await? else {
            return Ok(None);
        };
        let Some(Ok(trusted)) = trusted else {
            return Ok(None);
        };
        let failed = |why: String| Lack::new(&format!("read secret {name}"), why);
        let chain =
            chain(secret["data"]["tls.crt"].as_str().unwrap_or_default()).map_err(failed)?;
        verify(
            format!("tls.crt of Secret {name}"),
            &chain,
            trusted,
            host,
            clock::unix_seconds(),
        )
        .map(Some)
        .map_err(failed)
    }

    /// Has the API server admit a gateway's pod in a dry run.
    pub(super) async fn dry_run(&self, namespace: Option<&str>) -> DryRun {
        let Some(namespace) = namespace else {
            return DryRun::NotTried("no namespace is labelled to try it in".to_owned());
        };
        let what = format!("create pods in namespace {namespace}");
        let path =
            format!("/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldManager=timeshard-check");
        let (code, body) = match self.asker.post(&what, &path, &gateway_pod()).await {
            Ok(answer) => answer,
            Err(lack) => {
                return DryRun::NotTried(format!(
                    "could not {} as a dry run: {}",
                    lack.what, lack.why
                ));
            }
        };
        if code.is_success() {
            let pod: Value = serde_json::from_slice(&body).unwrap_or_default();
            return DryRun::Admitted {
                namespace: namespace.to_owned(),
                injected: is_injected(&pod),
            };
        }
        let message = shown(&body);
        // The API server refuses before it calls any webhook.
        if message.contains("cannot create resource") {
            return DryRun::NotTried(format!(
                "no permission to {what}, as a dry run; grant it, or run this as a user who has it"
            ));
        }
        DryRun::Refused {
            namespace: namespace.to_owned(),
            message,
        }
    }
}

/// A gateway's pod that fits Pod Security `restricted` and quotas that want requests.
fn gateway_pod() -> Value {
    let resources = json!({"cpu": "10m", "memory": "16Mi"});
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "timeshard-check-0", "labels": {names::POD_INDEX_LABEL: "0"}, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "timeshard-check", "uid": "00000000-0000-0000-0000-000000000000"}]},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": names::NON_ROOT_UID, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "thanos", "image": "quay.io/thanos/thanos", "args": ["store"],
                "resources": {"requests": resources.clone(), "limits": resources},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}})
}

fn is_injected(pod: &Value) -> bool {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let Some(thanos) = containers.into_iter().find(|one| one["name"] == "thanos") else {
        return false;
    };
    let windowed = thanos["args"].as_array().is_some_and(|args| {
        args.iter().any(|word| {
            word.as_str()
                .is_some_and(|word| word.starts_with("--min-time="))
        })
    });
    sidecar_of(pod).is_some()
        && windowed
        && thanos["command"][0] == names::AGENT_IN_SHARED_DIR
        && pod["metadata"]["labels"][names::SHARD_LABEL].is_string()
}
