//! A stand-in for the API server with one Lease, and candidates that run against it.

use std::sync::{Arc, Mutex};

use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::super::*;
use super::SECOND;
use crate::adapters::signals::{self, Trigger};
use crate::testing::api_server::{self, Sent};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Up,
    /// Answers 500 without doing anything.
    Broken,
    Forbids,
    /// Does it, and answers 500.
    LosesAnswers,
    Hangs,
}

/// The API server's one Lease.
pub(super) struct Server {
    mode: Mode,
    pub(super) lease: Option<Value>,
    pub(super) version: u64,
    /// Method and status of each answer.
    pub(super) log: Vec<(Method, u16)>,
}

#[derive(Clone)]
pub(super) struct Service(pub(super) Arc<Mutex<Server>>);

impl Service {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Server {
            mode: Mode::Up,
            lease: None,
            version: 0,
            log: Vec::new(),
        })))
    }

    pub(super) fn set(&self, mode: Mode) {
        self.0.lock().unwrap().mode = mode;
    }

    pub(super) fn lease(&self) -> Value {
        self.0.lock().unwrap().lease.clone().unwrap()
    }

    pub(super) fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let mut server = self.0.lock().unwrap();
        server.version += 1;
        let version = server.version.to_string();
        let lease = server.lease.as_mut().unwrap();
        edit(lease);
        lease["metadata"]["resourceVersion"] = json!(version);
    }

    /// A candidate under this name.
    pub(super) fn candidate(&self, name: &str) -> Running {
        let (trigger, shutdown) = signals::channel();
        let settings = LeaseSettings {
            identity: name.to_owned(),
            namespace: None,
            jitter: Duration::from_millis(100),
        };
        let service = self.clone();
        let client = api_server::client("monitoring", move |sent| service.clone().answer(sent));
        let (leadership, task) = run(client, settings, shutdown);
        Running {
            leadership,
            task: tokio::spawn(task),
            trigger,
        }
    }

    async fn answer(self, sent: Sent) -> (u16, Value) {
        if self.0.lock().unwrap().mode == Mode::Hangs {
            std::future::pending::<()>().await;
        }
        // A round trip takes a moment.
        sleep(Duration::from_millis(5)).await;
        let mut server = self.0.lock().unwrap();
        let method = sent.method.clone();
        let (code, answer) = server.answer(sent);
        server.log.push((method, code));
        (code, answer)
    }
}

impl Server {
    fn answer(&mut self, sent: Sent) -> (u16, Value) {
        let status = |code: u16, message: &str| api_server::status(code, "", message);
        let (method, path) = (&sent.method, sent.uri.path());
        match self.mode {
            Mode::Broken => return status(500, "broken"),
            Mode::Forbids => return status(403, "leases is forbidden"),
            Mode::Up | Mode::LosesAnswers | Mode::Hangs => {}
        }
        let one = format!(
            "/apis/coordination.k8s.io/v1/namespaces/monitoring/leases/{}",
            names::LEASE
        );
        assert!(
            path == if method == Method::POST {
                one.rsplit_once('/').unwrap().0
            } else {
                one.as_str()
            },
            "{method} {path}"
        );
        if method != Method::GET {
            let mut lease = sent.body;
            match (&self.lease, method == Method::POST) {
                (Some(_), true) => return status(409, "it exists"),
                (None, false) => return status(404, "there is none"),
                (Some(stored), false)
                    if stored["metadata"]["resourceVersion"]
                        != lease["metadata"]["resourceVersion"] =>
                {
                    return status(409, "another version is stored");
                }
                (Some(_), false) | (None, true) => {}
            }
            self.version += 1;
            lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.lease = Some(lease);
        }
        match &self.lease {
            _ if self.mode == Mode::LosesAnswers => status(500, "it may have happened"),
            Some(lease) => (
                if method == Method::POST { 201 } else { 200 },
                lease.clone(),
            ),
            None => status(404, "there is none"),
        }
    }
}

pub(super) struct Running {
    pub(super) leadership: Leadership,
    pub(super) task: JoinHandle<()>,
    pub(super) trigger: Trigger,
}

impl Running {
    pub(super) fn leads(&self) -> bool {
        self.leadership.remaining().is_some()
    }

    /// Waits until leading begins or ends, and returns whether it leads and how long that took.
    pub(super) async fn change(&mut self, limit: Duration) -> (bool, Duration) {
        let began = Instant::now();
        timeout(limit, self.leadership.changed())
            .await
            .unwrap_or_else(|_| panic!("no change within {limit:?}: {:?}", self.leadership));
        (self.leads(), began.elapsed())
    }

    pub(super) async fn leading(&mut self) {
        assert!(self.change(15 * SECOND).await.0);
    }
}
