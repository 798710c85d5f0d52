//! Lists of the leader, from the API server and not from a cache.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt as _};
use tokio::time::timeout;

use super::{DEADLINE, Writer, bodies, late};
use crate::adapters::kube::facts;
use crate::adapters::kube::partial::{Partial, PartialKind};
use crate::core::kube::observed::{BudgetFacts, PodMoment, QuerierFacts, Selector};
use crate::core::model::names;

/// Objects in one answer, where little is kept of each.
const PAGE: u32 = 500;
/// Pods in one answer.
const PODS_PAGE: u32 = 100;
/// Pages of one list of a StatefulSet's pods.
const MAX_PAGES: usize = 40;

impl Writer {
    /// The pods of a selector that a StatefulSet owns, by name.
    ///
    /// # Errors
    /// A sentence, when they cannot be listed.
    pub async fn fresh_pods(
        &self,
        namespace: &str,
        selector: &Selector,
    ) -> Result<BTreeMap<String, PodMoment>, String> {
        let api = Api::<Partial<Pod>>::namespaced(self.client.clone(), namespace);
        let mut pods = BTreeMap::new();
        let mut params = ListParams::default()
            .labels(&bodies::selector_text(selector))
            .limit(PODS_PAGE);
        for _ in 0..MAX_PAGES {
            let (items, more) = self.page(&api, &params, "list of pods").await?;
            pods.extend(
                items
                    .iter()
                    .filter_map(|Partial(pod, _)| facts::pod(pod))
                    .map(|pod| (pod.name.clone(), pod.moment())),
            );
            let Some(token) = more else { return Ok(pods) };
            params = params.continue_token(&token);
        }
        Err(format!(
            "the list of pods has more than {} items",
            PODS_PAGE as usize * MAX_PAGES
        ))
    }

    /// One page of PDBs with timeshard's label, and the token of the next page: in the whole
    /// cluster, labelled namespaces or not, or in one namespace. Only their identity and owner are
    /// read.
    ///
    /// # Errors
    /// A sentence, when they cannot be listed.
    pub async fn managed_budgets(
        &self,
        namespace: Option<&str>,
        token: Option<&str>,
    ) -> Result<(Vec<(String, BudgetFacts)>, Option<String>), String> {
        let managed = format!("{}={}", names::MANAGED_BY_LABEL, names::MANAGED_BY);
        let mut params = ListParams::default().labels(&managed).limit(PAGE);
        if let Some(token) = token {
            params = params.continue_token(token);
        }
        let client = self.client.clone();
        let api: Api<Partial<PodDisruptionBudget>> = match namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        let (items, more) = self.page(&api, &params, "list of PDBs").await?;
        let facts = |Partial(budget, _): Partial<PodDisruptionBudget>| {
            let namespace = budget.namespace().unwrap_or_default();
            (namespace, facts::budget(&budget))
        };
        Ok((items.into_iter().map(facts).collect(), more))
    }

    /// Number of other servers in a namespace that are not terminating.
    ///
    /// # Errors
    /// A sentence, when they cannot be listed.
    pub async fn other_servers(&self, namespace: &str, own_pod: &str) -> Result<usize, String> {
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().labels(names::SERVER_PODS).limit(PAGE);
        self.rate_limit.turn().await;
        let pods = timeout(DEADLINE, api.list_metadata(&params)).await;
        let pods = pods
            .map_err(|_| late("list of servers"))?
            .map_err(|error| error.to_string())?;
        let is_other = |pod: &&PartialObjectMeta<Pod>| {
            pod.name_any() != own_pod && pod.metadata.deletion_timestamp.is_none()
        };
        Ok(pods.items.iter().filter(is_other).count())
    }

    /// The first `max` pods of a label selector that may be queriers: those with an address.
    ///
    /// # Errors
    /// A sentence that says what to do, when they cannot be listed.
    pub async fn querier_pods(
        &self,
        namespace: &str,
        selector: &str,
        max: usize,
    ) -> Result<Vec<QuerierFacts>, String> {
        let api = Api::<Partial<Pod>>::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().labels(selector).limit(PODS_PAGE);
        self.rate_limit.turn().await;
        let page = timeout(DEADLINE, api.list(&params)).await;
        let page = page
            .map_err(|_| late("list of pods"))?
            .map_err(|error| match &error {
                kube::Error::Api(status) if status.code == 403 => format!(
                    "the server may not list pods in namespace {namespace}: give it the right that docs/configuration.md shows under `queriers`"
                ),
                _ => format!("its pods cannot be listed: {error}"),
            })?;
        let cut = page.items.iter().find(|Partial(_, cut)| *cut);
        if let Some(Partial(pod, _)) = cut {
            return Err(format!(
                "pod {} is larger than a server reads",
                pod.name_any()
            ));
        }
        if page
            .metadata
            .continue_
            .is_some_and(|token| !token.is_empty())
        {
            return Err(format!(
                "more than {PODS_PAGE} pods have this label selector"
            ));
        }
        let all = page.items.iter().map(|Partial(pod, _)| pod);
        let queriers = all.map(facts::configured_querier);
        Ok(queriers.filter(|one| one.ip.is_some()).take(max).collect())
    }

    async fn page<K: PartialKind>(
        &self,
        api: &Api<Partial<K>>,
        params: &ListParams,
        request: &str,
    ) -> Result<(Vec<Partial<K>>, Option<String>), String> {
        self.rate_limit.turn().await;
        let page = timeout(DEADLINE, api.list(params)).await;
        let page = page
            .map_err(|_| late(request))?
            .map_err(|error| error.to_string())?;
        let token = page.metadata.continue_.filter(|token| !token.is_empty());
        Ok((page.items, token))
    }
}
