//! Reads the leader's `/status` from another replica of the server.
//!
//! Invariants: only one address is asked: that of the server's pod in its own namespace which has
//! the name of the Lease's holder, as the API server reports it, and only if a pod can have it
//! ([`Asked`]); only `GET /status`, on the port that this replica has, too. Redirects are not
//! followed; time and size are limited.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper::body::Bytes;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use tokio::time::timeout;

use super::partial::Partial;
use super::server_status::shown;
use crate::adapters::http_client::{GetLimits, get};
use crate::core::kube::pod_address::Asked;
use crate::core::model::names;

/// For the API server's answer, and for the leader's.
const DEADLINE: Duration = Duration::from_secs(5);
/// The largest document. Bytes; 5,000 pods take 5 MiB.
pub const MAX_STATUS_BYTES: usize = 8 * 1024 * 1024;
/// Characters of an error message that are shown.
const MAX_SHOWN_CHARS: usize = 200;

/// How to reach the leader.
#[derive(Clone)]
pub struct LeaderAddress {
    pub client: Client,
    /// The namespace of the Lease and of the server's pods.
    pub namespace: String,
    pub asked: Asked,
    /// The admin port.
    pub port: u16,
}

impl LeaderAddress {
    /// Returns the document of the replica that holds the Lease.
    ///
    /// # Errors
    /// A clause that names the pod and the step that failed.
    pub async fn status(&self, holder: &str) -> Result<Bytes, String> {
        let address = SocketAddr::new(self.pod_ip(holder).await?, self.port);
        let limits = GetLimits {
            deadline: DEADLINE,
            max_answer_bytes: MAX_STATUS_BYTES,
            not_own_machine: self.asked == Asked::Pods,
        };
        match get(address, "/status", limits).await? {
            (200, body) => Ok(body),
            (code, body) => Err(format!(
                "http://{address}/status answers {code}: {}",
                shown(&body, MAX_SHOWN_CHARS)
            )),
        }
    }

    async fn pod_ip(&self, holder: &str) -> Result<IpAddr, String> {
        let namespace = &self.namespace;
        // It becomes part of a selector.
        if !names::is_name(holder, names::MAX_SUBDOMAIN_CHARS) {
            return Err("the holder of the Lease is not the name of a pod".to_owned());
        }
        let api = Api::<Partial<Pod>>::namespaced(self.client.clone(), namespace);
        let params = ListParams::default()
            .labels(names::SERVER_PODS)
            .fields(&format!("metadata.name={holder}"))
            .limit(1);
        let pods = timeout(DEADLINE, api.list(&params)).await;
        let pods = pods
            .map_err(|_| {
                let seconds = DEADLINE.as_secs();
                format!("the API server does not list pods within {seconds} s")
            })?
            .map_err(|error| format!("pods in {namespace} cannot be listed: {error}"))?;
        let pod = pods.items.iter().find(|pod| pod.name_any() == holder);
        let Some(Partial(pod, _)) = pod else {
            return Err(format!(
                "namespace {namespace} has no pod {holder} labelled {}",
                names::SERVER_PODS
            ));
        };
        let status = pod.status.as_ref();
        let ended =
            |status: &PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        // Another pod may have the address of one that ended.
        let ip = status
            .filter(|status| !ended(status))
            .and_then(|status| status.pod_ip.as_deref())
            .ok_or_else(|| format!("pod {holder} has no address"))?;
        self.asked.address(ip)
    }
}

impl std::fmt::Debug for LeaderAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaderAddress")
            .field("namespace", &self.namespace)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::testing::api_server;

    /// A server's pod with this address.
    fn pod(name: &str, ip: &Value, phase: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "sys"},
            "status": {"podIP": ip, "phase": phase}})
    }

    /// The API server knows these pods; also returns the URIs that it is asked for.
    fn leader(
        pods: Vec<Value>,
        asked: Asked,
        port: u16,
    ) -> (LeaderAddress, Arc<Mutex<Vec<String>>>) {
        let uris = Arc::<Mutex<Vec<String>>>::default();
        let seen = uris.clone();
        let client = api_server::client("sys", move |sent| {
            seen.lock().unwrap().push(sent.line());
            let list =
                json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods});
            async move { (200, list) }
        });
        let namespace = "sys".to_owned();
        (
            LeaderAddress {
                client,
                namespace,
                asked,
                port,
            },
            uris,
        )
    }

    /// Answers one request with this text; returns the request.
    async fn answers(listener: TcpListener, text: &str) -> String {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let read = socket.read(&mut request).await.unwrap();
        // The client may close the connection before it has read everything.
        let _ = socket.write_all(text.as_bytes()).await;
        String::from_utf8_lossy(&request[..read]).into_owned()
    }

    #[tokio::test]
    async fn the_pod_that_holds_the_lease_is_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let pods = vec![pod("timeshard-a", &json!("127.0.0.1"), "Running")];
        let (leader, uris) = leader(pods, Asked::OwnMachineToo, port);
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        let (body, request) = tokio::join!(leader.status("timeshard-a"), answers(listener, text));
        assert_eq!(body.unwrap(), "{}");
        assert!(request.starts_with("GET /status HTTP/1.1\r\n"), "{request}");
        let uri = uris.lock().unwrap().join(" ");
        assert!(
            uri.starts_with("GET /api/v1/namespaces/sys/pods?")
                && uri.contains("fieldSelector=metadata.name%3Dtimeshard-a")
                && uri.contains("labelSelector=app.kubernetes.io%2Fname%3Dthanos-timeshard"),
            "{uri}"
        );
    }

    #[tokio::test]
    async fn no_other_address_is_asked() {
        let running = |ip: Value| vec![pod("timeshard-a", &ip, "Running")];
        for (pods, holder, why) in [
            (
                running(json!("127.0.0.1")),
                "timeshard-a",
                "a loopback address",
            ),
            (running(json!("169.254.169.254")), "timeshard-a", "metadata"),
            (
                running(json!("example.com")),
                "timeshard-a",
                "is not an IP address",
            ),
            (running(Value::Null), "timeshard-a", "has no address"),
            (
                vec![pod("timeshard-a", &json!("10.0.0.1"), "Failed")],
                "timeshard-a",
                "has no address",
            ),
            (
                running(json!("10.0.0.1")),
                "timeshard-b",
                "no pod timeshard-b",
            ),
            (
                Vec::new(),
                "a,metadata.namespace!=sys",
                "is not the name of a pod",
            ),
            (Vec::new(), "", "is not the name of a pod"),
        ] {
            let (leader, _) = leader(pods, Asked::Pods, 8080);
            let error = leader.status(holder).await.unwrap_err();
            assert!(error.contains(why), "{holder}: {error}");
        }
    }

    #[tokio::test]
    async fn a_redirect_is_an_error_and_not_followed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let pods = vec![pod("timeshard-a", &json!("127.0.0.1"), "Running")];
        let (leader, _) = leader(pods, Asked::OwnMachineToo, port);
        let text = "HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n";
        let (body, _) = tokio::join!(leader.status("timeshard-a"), answers(listener, text));
        assert!(body.unwrap_err().contains("answers 302"));
    }

    #[tokio::test]
    async fn a_document_that_is_too_long_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let pods = vec![pod("timeshard-a", &json!("127.0.0.1"), "Running")];
        let (leader, _) = leader(pods, Asked::OwnMachineToo, port);
        let length = MAX_STATUS_BYTES + 1;
        let text = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}",
            "x".repeat(length)
        );
        let (body, _) = tokio::join!(leader.status("timeshard-a"), answers(listener, &text));
        let error = body.unwrap_err();
        assert!(error.contains("is longer than"), "{error}");
    }
}
