//! The admin port of the leader on a port of this machine, through the API server's pod proxy.
//!
//! Needs the rights of `timeshard status` (get on pods/proxy) and no WebSocket, unlike a
//! port-forward; each request goes to the present leader. Invariants: only GET, only plain paths
//! below the pod, so that no request reaches another path of the API server; only under names that
//! no page from elsewhere can have (`host_names`); an answer is passed on piece by piece.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant, timeout};

use super::server_status::{any_server, proxied};
use super::user_client::ClusterClient;
use crate::adapters::causes::with_causes;
use crate::adapters::host_names;
use crate::adapters::http_client::no_answer;

/// How long a pod is taken for the leader before it is looked up again.
const LEADER_FOR: Duration = Duration::from_secs(5);
/// Headers of an answer that are passed on; the API server adds others.
const PASSED_ON: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_SECURITY_POLICY,
    header::X_CONTENT_TYPE_OPTIONS,
    header::REFERRER_POLICY,
    header::CACHE_CONTROL,
    header::RETRY_AFTER,
];

/// Forwards requests to the leader.
#[derive(Debug)]
pub struct PodProxy {
    cluster: ClusterClient,
    namespace: String,
    /// The pod, and when it was looked up.
    leader: Mutex<Option<(String, Instant)>>,
}

impl PodProxy {
    #[must_use]
    pub fn new(cluster: ClusterClient, namespace: String) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            namespace,
            leader: Mutex::default(),
        })
    }

    /// Returns the leader's pod, or any ready replica's.
    ///
    /// # Errors
    /// A sentence.
    pub async fn server(&self) -> Result<String, String> {
        let mut leader = self.leader.lock().await;
        if let Some((pod, since)) = &*leader
            && since.elapsed() < LEADER_FOR
        {
            return Ok(pod.clone());
        }
        let ClusterClient {
            client, deadline, ..
        } = &self.cluster;
        let pod = any_server(client, &self.namespace, *deadline)
            .await
            .map_err(|error| error.to_string())?;
        *leader = Some((pod.clone(), Instant::now()));
        Ok(pod)
    }

    /// Asks the leader for a path that begins with a slash.
    ///
    /// # Errors
    /// A sentence, if the API server does not answer.
    pub async fn get(&self, path: &str) -> Result<Response, String> {
        let pod = self.server().await?;
        let request = Request::get(proxied(&self.namespace, &pod, path))
            .body(kube::client::Body::empty())
            .map_err(|error| error.to_string())?;
        let deadline = self.cluster.deadline;
        let answer = timeout(deadline, self.cluster.client.send(request))
            .await
            .map_err(|_| no_answer(deadline))?
            .map_err(|error| with_causes(&error))?;
        let (head, body) = answer.into_parts();
        let mut response = Response::new(Body::new(body));
        *response.status_mut() = head.status;
        for name in PASSED_ON {
            if let Some(value) = head.headers.get(&name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        Ok(response)
    }
}

/// Serves the leader's admin port until the process ends. The listener is one of this machine's own
/// addresses, so connections have no limits per peer, unlike those of the server.
pub async fn serve(listener: TcpListener, proxy: Arc<PodProxy>) {
    // Answers are small, and the kernel must not delay them.
    let listener = listener.tap_io(|socket| {
        let _ = socket.set_nodelay(true);
    });
    // It retries failures to accept, and returns no error.
    let _ = axum::serve(listener, router(proxy)).await;
}

fn router(proxy: Arc<PodProxy>) -> Router {
    let routes = Router::new().fallback(forward).with_state(proxy);
    host_names::only(routes, Vec::new())
}

async fn forward(State(proxy): State<Arc<PodProxy>>, request: Request) -> Response {
    if let Some(refusal) = refusal(&request) {
        return refusal;
    }
    let query = request.uri().query();
    let path = query.map_or_else(
        || request.uri().path().to_owned(),
        |query| format!("{}?{query}", request.uri().path()),
    );
    match proxy.get(&path).await {
        Ok(response) => response,
        Err(why) => (StatusCode::BAD_GATEWAY, format!("{why}\n")).into_response(),
    }
}

fn refusal(request: &Request) -> Option<Response> {
    if request.method() != Method::GET {
        let text = "only GET is forwarded\n";
        return Some((StatusCode::METHOD_NOT_ALLOWED, text).into_response());
    }
    if !is_plain(request.uri().path()) {
        let text = "only plain paths are forwarded\n";
        return Some((StatusCode::BAD_REQUEST, text).into_response());
    }
    None
}

/// Whether a path has only plain segments: none leads up, and nothing is escaped.
fn is_plain(path: &str) -> bool {
    let is_segment = |segment: &str| {
        !segment.starts_with('.')
            && segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    path == "/"
        || path
            .split('/')
            .skip(1)
            .all(|segment| !segment.is_empty() && is_segment(segment))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http_body_util::{BodyExt as _, Empty};
    use hyper::body::Bytes;
    use hyper_util::rt::TokioIo;
    use serde_json::{Value, json};
    use tokio::net::TcpStream;

    use super::*;
    use crate::core::model::names;
    use crate::testing::api_server::{self, Sent};

    /// The lease names `holder`; every other path is answered with itself.
    fn cluster(holder: &'static str) -> ClusterClient {
        let client = api_server::client("default", move |sent: Sent| async move {
            let path = sent.uri.to_string();
            let pod = |name: &str| json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
            let answer = if path.contains("/leases/") {
                json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": names::LEASE}, "spec": {"holderIdentity": holder}})
            } else if path.contains("/pods?") {
                json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [pod("timeshard-a"), pod("timeshard-b")]})
            } else {
                json!(path)
            };
            (200, answer)
        });
        ClusterClient {
            client,
            url: "https://test".to_owned(),
            context: Some("test".to_owned()),
            namespace: "default".to_owned(),
            deadline: Duration::from_secs(10),
        }
    }

    /// Sends one request to a port.
    async fn send(port: u16, method: Method, path: &str, host: &str) -> (StatusCode, String) {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host);
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn plain_paths_reach_the_leader_and_nothing_else_does() {
        for (holder, pod) in [("timeshard-b", "timeshard-b"), ("gone", "timeshard-a")] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let proxy = PodProxy::new(cluster(holder), "timeshard-system".to_owned());
            tokio::spawn(serve(listener, proxy));
            let host = format!("localhost:{port}");
            for path in ["/", "/page.js", "/events?since=1"] {
                let (code, body) = send(port, Method::GET, path, &host).await;
                let want =
                    format!("/api/v1/namespaces/timeshard-system/pods/{pod}:8080/proxy{path}");
                assert_eq!(
                    (code, serde_json::from_str::<Value>(&body).unwrap()),
                    (StatusCode::OK, json!(want))
                );
            }
            for (method, path, host, code) in [
                (
                    Method::POST,
                    "/",
                    host.as_str(),
                    StatusCode::METHOD_NOT_ALLOWED,
                ),
                (
                    Method::GET,
                    "/../../secrets",
                    &host,
                    StatusCode::BAD_REQUEST,
                ),
                (
                    Method::GET,
                    "/%2e%2e/secrets",
                    &host,
                    StatusCode::BAD_REQUEST,
                ),
                (Method::GET, "//x", &host, StatusCode::BAD_REQUEST),
                (
                    Method::GET,
                    "/",
                    "example.com",
                    StatusCode::MISDIRECTED_REQUEST,
                ),
                (
                    Method::GET,
                    "/",
                    "127.0.0.1.example.com:80",
                    StatusCode::MISDIRECTED_REQUEST,
                ),
            ] {
                assert_eq!(
                    send(port, method, path, host).await.0,
                    code,
                    "{path} {host}"
                );
            }
        }
    }
}
