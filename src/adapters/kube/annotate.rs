//! StatefulSets as a user of the command line changes them: annotations of their own metadata, and
//! the number of replicas through `scale`.
//!
//! Invariants: a patch of annotations names the version that was read, so that it never overwrites a
//! change in between; nothing else of an object is written. Deliberately absent: the pod template.

use std::collections::BTreeMap;

use hyper::{HeaderMap, Request, StatusCode, header};
use kube::client::Body;
use serde::Deserialize;
use serde_json::{Value, json};

use super::user_client::{ApiAnswer, ClusterClient, RequestError};
use crate::core::model::names;

/// Of the fields that a command writes.
const FIELD_MANAGER: &str = "timeshard-cli";
/// StatefulSets that are listed for a suggestion.
const MAX_LISTED: usize = 500;

/// StatefulSets of one namespace.
#[derive(Clone, Copy, Debug)]
pub struct StatefulSetApi<'a> {
    pub cluster: &'a ClusterClient,
    pub namespace: &'a str,
}

/// Annotations to set, or to remove (`None`).
pub type AnnotationPatch = BTreeMap<String, Option<String>>;

#[derive(Deserialize)]
struct NameList {
    items: Vec<NamedItem>,
}

#[derive(Deserialize)]
struct NamedItem {
    metadata: ItemMetadata,
}

#[derive(Deserialize)]
struct ItemMetadata {
    name: String,
}

impl StatefulSetApi<'_> {
    fn path(&self, name: &str) -> String {
        format!(
            "/apis/apps/v1/namespaces/{}/statefulsets/{name}",
            self.namespace
        )
    }

    /// Reads a StatefulSet; `None` if it does not exist.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn read(&self, name: &str) -> Result<Option<Value>, RequestError> {
        match self.cluster.get(&self.path(name)).await {
            Err(RequestError::Refused { code, .. }) if code == StatusCode::NOT_FOUND => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Lists the first names.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn names(&self) -> Result<Vec<String>, RequestError> {
        let path = format!(
            "/apis/apps/v1/namespaces/{}/statefulsets?limit={MAX_LISTED}",
            self.namespace
        );
        let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        let list: NameList = self.cluster.get_as(&path, accept).await?;
        Ok(list
            .items
            .into_iter()
            .map(|item| item.metadata.name)
            .collect())
    }

    /// Whether the namespace is labelled for injection; `None` if that cannot be read.
    pub async fn is_labelled(&self) -> Option<bool> {
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        let namespace: Value = self.cluster.get(&path).await.ok()?;
        let label = &namespace["metadata"]["labels"][names::NAMESPACE_LABEL];
        Some(label.as_str() == Some(names::INJECTION_ENABLED))
    }

    /// Changes annotations of the StatefulSet's own metadata; returns the warnings of admission.
    /// `version` is the resourceVersion that was read. A dry run changes nothing.
    ///
    /// # Errors
    /// [`RequestError`]; a conflict if the StatefulSet has another version by now.
    pub async fn annotate(
        &self,
        name: &str,
        version: &str,
        annotations: &AnnotationPatch,
        dry_run: bool,
    ) -> Result<Vec<String>, RequestError> {
        let body = json!({"metadata": {"resourceVersion": version, "annotations": annotations}});
        self.patch(&self.path(name), &body, dry_run).await
    }

    /// Sets the number of replicas; returns the warnings of admission.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn scale(&self, name: &str, replicas: u32) -> Result<Vec<String>, RequestError> {
        let body = json!({"spec": {"replicas": replicas}});
        self.patch(&format!("{}/scale", self.path(name)), &body, false)
            .await
    }

    async fn patch(
        &self,
        path: &str,
        body: &Value,
        dry_run: bool,
    ) -> Result<Vec<String>, RequestError> {
        let dry_run = if dry_run { "&dryRun=All" } else { "" };
        let request = Request::patch(format!("{path}?fieldManager={FIELD_MANAGER}{dry_run}"))
            .header(header::CONTENT_TYPE, "application/merge-patch+json")
            .body(Body::from(body.to_string().into_bytes()))
            .map_err(|error| RequestError::NoAnswer(error.to_string()))?;
        let ApiAnswer { headers, .. } = self.cluster.send(request).await?;
        Ok(warnings(&headers))
    }
}

/// Reads the texts of `Warning` headers, such as `299 - "text"`.
fn warnings(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::WARNING)
        .iter()
        .filter_map(|value| {
            let text = String::from_utf8_lossy(value.as_bytes());
            let (_, quoted) = text.split_once('"')?;
            let (quoted, _) = quoted.rsplit_once('"')?;
            Some(quoted.replace("\\\"", "\"").replace("\\\\", "\\"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_admission_are_read() {
        let mut headers = HeaderMap::new();
        for value in [
            "299 - \"the guard says \\\"wait\\\"\"",
            "299 - \"second\"",
            "299",
        ] {
            headers.append(header::WARNING, value.parse().unwrap());
        }
        assert_eq!(warnings(&headers), ["the guard says \"wait\"", "second"]);
    }
}
