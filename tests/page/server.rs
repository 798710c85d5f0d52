//! The admin port with the real page on it, telling what a test puts in.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;
use thanos_timeshard::adapters::admin::{self, Admin};
use thanos_timeshard::adapters::signals::{self, Trigger};
use thanos_timeshard::page;
use thanos_timeshard::page::feed::{Feed, Known};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A server; what it knows can be replaced at any time.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) known: Arc<Mutex<Known>>,
    pub(crate) trigger: Trigger,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(known: Known) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), known).await
    }

    pub(crate) async fn at(addr: SocketAddr, known: Known) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (trigger, shutdown) = signals::channel();
        let known = Arc::new(Mutex::new(known));
        let source = known.clone();
        let feed = Feed::new(Box::new(move || source.lock().unwrap().clone()));
        let admin = Admin {
            ready: Arc::new(|| Ok(())),
            metrics: Arc::new(Registry::default()),
            status: Arc::new(|out| out.write_all(b"{}")),
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

    pub(crate) fn know(&self, known: Known) {
        *self.known.lock().unwrap() = known;
    }

    /// Ends at once, its connections too.
    pub(crate) async fn end(self) -> SocketAddr {
        self.task.abort();
        let _ = self.task.await;
        self.addr
    }
}
