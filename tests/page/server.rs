//! The admin port with the real page, showing the test's facts.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use thanos_timeshard::adapters::https::admin::{self, Admin};
use thanos_timeshard::adapters::signals::{self, Trigger};
use thanos_timeshard::page;
use thanos_timeshard::page::feed::{Feed, PageFacts, PageSource};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Writes the document of `/status`, as far as a follower reads it.
fn status(known: &PageFacts, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    let sets: Vec<_> = known.sets.iter().map(|set| &*set.report).collect();
    let document = json!({"leader": known.head["leader"], "statefulsets": sets});
    out.write_all(serde_json::to_string_pretty(&document)?.as_bytes())
}

/// A server whose facts a test can replace.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) known: Arc<Mutex<PageFacts>>,
    pub(crate) trigger: Trigger,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(known: PageFacts) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), known).await
    }

    pub(crate) async fn at(addr: SocketAddr, known: PageFacts) -> Self {
        let known = Arc::new(Mutex::new(known));
        let source = known.clone();
        let source = Box::new(move || source.lock().unwrap().clone());
        Self::with(addr, known, source).await
    }

    /// A server with this source; `known` has no effect.
    pub(crate) async fn of(source: PageSource) -> Self {
        let known = PageFacts {
            head: Value::Null,
            sets: Vec::new(),
        };
        let addr = "127.0.0.1:0".parse().unwrap();
        Self::with(addr, Arc::new(Mutex::new(known)), source).await
    }

    async fn with(addr: SocketAddr, known: Arc<Mutex<PageFacts>>, source: PageSource) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (trigger, shutdown) = signals::channel();
        let feed = Feed::new(source);
        let reported = known.clone();
        let admin = Admin {
            ready: Arc::new(|| Ok(())),
            metrics: Arc::new(Registry::default()),
            status: Arc::new(move |out| status(&reported.lock().unwrap(), out)),
            shutdown: shutdown.clone(),
        };
        let router = admin::router(admin).merge(page::router(feed, shutdown));
        Self {
            addr,
            known,
            trigger,
            task: tokio::spawn(admin::serve(listener, router)),
        }
    }

    pub(crate) fn know(&self, known: PageFacts) {
        *self.known.lock().unwrap() = known;
    }

    /// Aborts the server and its connections.
    pub(crate) async fn end(self) -> SocketAddr {
        self.task.abort();
        let _ = self.task.await;
        self.addr
    }
}
