//! The sidecar's metrics. Each help text names the action to take.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::core::agent::sidecar::Sidecar;
use crate::core::agent::status::{AgentStatus, Phase};

type Seconds = Gauge<f64, AtomicU64>;

#[derive(Debug, Default)]
pub(super) struct SidecarMetrics {
    registry: Registry,
    phase: Family<[(&'static str, &'static str); 1], Gauge>,
    phase_start: Seconds,
    matches: Gauge,
    verified: Gauge,
    restarts: Counter,
    rollbacks: Counter,
    failed_tries: Gauge,
    orders: Counter,
    drained: Counter<f64, AtomicU64>,
    entry_errors: Counter,
    blocks: BlockMetrics,
    last: Option<Phase>,
}

#[derive(Debug, Default)]
struct BlockMetrics {
    known: Gauge,
    expected: Gauge,
    loaded: Gauge,
    missing: Gauge,
    last_sync: Seconds,
    load_retries: Counter,
}

impl SidecarMetrics {
    #[must_use]
    pub(super) fn new(version: &str) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("timeshard_agent"),
            ..Self::default()
        };
        let registry = &mut metrics.registry;
        registry.register(
            "build",
            "Version of the agent",
            Info::new([("version", version.to_owned())]),
        );
        registry.register(
            "phase",
            "1 for the pod's phase. Long in starting or restarting: thanos is loading blocks. Failed: see last_error in /status",
            metrics.phase.clone(),
        );
        registry.register_with_unit(
            "phase_start_timestamp",
            "When the pod entered its phase. Its age shows how long thanos has been loading",
            Unit::Seconds,
            metrics.phase_start.clone(),
        );
        registry.register(
            "applied_matches_published",
            "1 when thanos serves the published window. 0 for longer than a drain and a load: see /status",
            metrics.matches.clone(),
        );
        registry.register(
            "applied_verified",
            "1 when the applied window was read from thanos itself. 0 is normal with --http.config or --disable-web",
            metrics.verified.clone(),
        );
        registry.register(
            "restarts",
            "Restarts of thanos in place in this pod. Increases with each change of the published window, twice for one that is given up",
            metrics.restarts.clone(),
        );
        registry.register(
            "rollbacks",
            "Windows given up because thanos did not become ready with them, each retry included; see last_error in /status",
            metrics.rollbacks.clone(),
        );
        registry.register(
            "failed_tries",
            "How often in a row the published window was given up. Above 0: thanos did not become ready with it; see last_error in /status",
            metrics.failed_tries.clone(),
        );
        registry.register(
            "orders",
            "Windows handed to the launcher after a drain. More than the published changes: a window is being retried",
            metrics.orders.clone(),
        );
        registry.register_with_unit(
            "drain",
            "Time spent draining. High: entries change often, or the drain is longer than the querier's DNS interval needs",
            Unit::Seconds,
            metrics.drained.clone(),
        );
        registry.register(
            "entry_errors",
            "Entries refused (missing, malformed, inverted, too large, not newer). The last good window stays; fix the ConfigMap",
            metrics.entry_errors.clone(),
        );
        metrics.blocks.register(&mut metrics.registry);
        metrics
    }

    pub(super) fn observe(&mut self, sidecar: &Sidecar, status: &AgentStatus, unix_seconds: i64) {
        for phase in Phase::ALL {
            self.phase
                .get_or_create(&[("phase", phase.as_str())])
                .set(i64::from(phase == status.phase));
        }
        if self.last != Some(status.phase) {
            self.last = Some(status.phase);
            #[allow(
                clippy::cast_precision_loss,
                reason = "exact until the year 285 million"
            )]
            self.phase_start.set(unix_seconds as f64);
        }
        self.matches.set(i64::from(
            status.applied.is_some() && status.applied == status.published,
        ));
        self.verified.set(i64::from(status.verified));
        self.restarts.inner().store(status.restarts, Relaxed);
        let failed = sidecar.record().and_then(|r| r.failed.as_ref());
        self.failed_tries.set(
            failed
                .filter(|f| Some(f.window) == status.published)
                .map_or(0, |f| i64::from(f.times)),
        );
        self.blocks.observe(sidecar, status);
        let drains = sidecar.drains();
        self.orders.inner().store(drains.orders, Relaxed);
        self.rollbacks.inner().store(drains.rollbacks, Relaxed);
        let spent = drains.spent.as_secs_f64();
        self.drained.inc_by((spent - self.drained.get()).max(0.0));
    }

    pub(super) fn entry_refused(&self) {
        self.entry_errors.inc();
    }

    /// Encodes the metrics as `OpenMetrics`.
    #[must_use]
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl BlockMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "blocks_known",
            "1 when the loaded blocks of thanos are known. 0 for long: see blocks_unknown in /status; such a pod counts as complete",
            self.known.clone(),
        );
        registry.register(
            "blocks_expected",
            "Blocks of its window that thanos' last sync found and did not filter; 0 while unknown",
            self.expected.clone(),
        );
        registry.register(
            "blocks_loaded",
            "Expected blocks that thanos has loaded; 0 while unknown",
            self.loaded.clone(),
        );
        registry.register(
            "blocks_missing",
            "Blocks of its window that thanos has not loaded. Above 0: queries may be incomplete; /status names the blocks, thanos' log the reason",
            self.missing.clone(),
        );
        registry.register_with_unit(
            "last_sync_timestamp",
            "When thanos last read the bucket without an error; 0 while unknown. Older than a few times --sync-block-duration: see \
             thanos' log",
            Unit::Seconds,
            self.last_sync.clone(),
        );
        registry.register(
            "load_retries",
            "Restarts of thanos before the pod turned Ready, because blocks were missing. Increases often: the object store fails now and then",
            self.load_retries.clone(),
        );
    }

    fn observe(&self, sidecar: &Sidecar, status: &AgentStatus) {
        let blocks = status.blocks.as_ref();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.known.set(i64::from(blocks.is_some()));
        self.expected
            .set(blocks.map_or(0, |blocks| gauge(blocks.expected)));
        self.loaded
            .set(blocks.map_or(0, |blocks| gauge(blocks.loaded)));
        self.missing
            .set(blocks.map_or(0, |blocks| gauge(blocks.missing_total)));
        #[allow(
            clippy::cast_precision_loss,
            reason = "exact until the year 285 million"
        )]
        self.last_sync
            .set(blocks.map_or(0.0, |blocks| blocks.last_sync_unix_seconds as f64));
        self.load_retries
            .inner()
            .store(sidecar.load_retries(), Relaxed);
    }
}
