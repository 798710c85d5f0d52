//! On a replica that does not lead: the leader's reports, fetched from its `/status` while a page is
//! open.
//!
//! Invariants: one fetch at a time, at most every [`FETCH_EVERY`], however many browsers look; none
//! unless a page is open; reports that are no longer confirmed are dropped after [`MAX_AGE`].
//! `adapters/kube/leader_status` says which address is asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::adapters::clock;
use crate::adapters::lock::lock;
use crate::core::model::text::{counted, short_line};
use crate::core::rollout::report::SetReport;
use crate::core::server_status::LeaderStatus;

/// The pause after a fetch.
pub const FETCH_EVERY: Duration = Duration::from_secs(2);
/// The pause is at least this many times as long as the fetch took, so that a large document occupies
/// neither replica.
const PAUSE_PER_FETCH: u32 = 10;
/// How long reports are shown without a newer answer; a new leader takes over within 15 s.
pub const MAX_AGE: Duration = Duration::from_secs(20);
/// Longest reason that is shown, in characters.
const MAX_WHY_CHARS: usize = 300;

/// Reports by namespace and name.
pub type ReportsByName = BTreeMap<(String, String), Arc<SetReport>>;

#[derive(Debug, Default)]
pub struct LeaderReports {
    fetched: Mutex<Fetched>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Fetched {
    /// The replica to ask: the holder of the Lease when a page last asked.
    holder: Option<String>,
    /// The last answer: who gave it, and when.
    from: Option<(String, Instant, i64)>,
    reports: ReportsByName,
    error: Option<String>,
}

/// What a page says of the reports that it shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Relayed {
    /// The replica that made the reports; `None` if none are shown.
    pub from: Option<String>,
    /// Why the last fetch failed; `None` before the first one ends.
    pub error: Option<String>,
    /// Time of the last answer, if a later fetch failed.
    pub as_of_unix_seconds: Option<i64>,
}

impl LeaderReports {
    /// Returns the leader's reports, and starts a fetch unless one has just ended.
    pub fn latest(&self, holder: Option<&str>) -> (Relayed, ReportsByName) {
        let mut fetched = lock(&self.fetched);
        fetched.holder = holder.map(str::to_owned);
        self.wanted.notify_one();
        let known = fetched.from.as_ref();
        let Some((from, _, at)) = known.filter(|(_, at, _)| at.elapsed() <= MAX_AGE) else {
            let relayed = Relayed {
                from: None,
                error: fetched.error.clone(),
                as_of_unix_seconds: None,
            };
            return (relayed, ReportsByName::new());
        };
        let relayed = Relayed {
            from: Some(from.clone()),
            error: fetched.error.clone(),
            as_of_unix_seconds: fetched.error.as_ref().map(|_| *at),
        };
        (relayed, fetched.reports.clone())
    }

    /// Fetches documents while a page asks for them; never ends. `fetch` returns the document of the
    /// named replica, limited in time and size.
    pub async fn follow<F>(self: Arc<Self>, fetch: impl Fn(String) -> F)
    where
        F: Future<Output = Result<Bytes, String>>,
    {
        loop {
            if timeout(MAX_AGE, self.wanted.notified()).await.is_err() {
                // No page is open.
                *lock(&self.fetched) = Fetched::default();
                self.wanted.notified().await;
            }
            let Some(holder) = lock(&self.fetched).holder.clone() else {
                sleep(FETCH_EVERY).await;
                continue;
            };
            let began = Instant::now();
            let answer = match fetch(holder.clone()).await {
                Ok(body) => read(body).await,
                Err(why) => Err(why),
            };
            self.put(holder, answer);
            sleep(FETCH_EVERY.max(began.elapsed() * PAUSE_PER_FETCH)).await;
            // A page that was closed during the pause needs no fetch; an open one asks again.
            let _ = timeout(Duration::ZERO, self.wanted.notified()).await;
        }
    }

    fn put(&self, holder: String, answer: Result<(Vec<SetReport>, usize), String>) {
        let mut fetched = lock(&self.fetched);
        match answer {
            Err(why) => fetched.error = Some(short_line(&why, MAX_WHY_CHARS)),
            Ok((reports, unreadable)) => {
                let before = std::mem::take(&mut fetched.reports);
                fetched.reports = reports
                    .into_iter()
                    .map(|report| {
                        let key = (report.namespace.clone(), report.name.clone());
                        // One that did not change stays the same value.
                        let same = before.get(&key).filter(|same| ***same == report);
                        let report = same.cloned().unwrap_or_else(|| Arc::new(report));
                        (key, report)
                    })
                    .collect();
                fetched.error = (unreadable > 0).then(|| {
                    let reports = counted(u32::try_from(unreadable).unwrap_or(u32::MAX), "report");
                    format!("this version cannot read {reports} of the leader")
                });
                fetched.from = Some((holder, Instant::now(), clock::unix_seconds()));
            }
        }
    }
}

#[derive(Deserialize)]
struct LeaderDocument<'a> {
    #[serde(default)]
    leader: Option<LeaderStatus>,
    #[serde(borrow, default)]
    statefulsets: Vec<&'a RawValue>,
}

/// Reads a document outside the runtime; returns the reports, and how many are unreadable.
async fn read(body: Bytes) -> Result<(Vec<SetReport>, usize), String> {
    tokio::task::spawn_blocking(move || parse(&body))
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
}

fn parse(body: &[u8]) -> Result<(Vec<SetReport>, usize), String> {
    let document: LeaderDocument<'_> =
        serde_json::from_slice(body).map_err(|error| format!("its answer is invalid: {error}"))?;
    if !document.leader.is_some_and(|leader| leader.is_self) {
        return Err("it does not lead any longer".to_owned());
    }
    let all = document.statefulsets.len();
    let read = |raw: &RawValue| {
        let mut report: SetReport = serde_json::from_str(raw.get()).ok()?;
        // These grow with every second, and the page shows none of them.
        report.querier_wait_seconds = None;
        for pod in &mut report.pods {
            (pod.seconds_in_state, pod.drift_seconds) = (0, None);
        }
        Some(report)
    };
    let reports: Vec<SetReport> = document.statefulsets.into_iter().filter_map(read).collect();
    let unreadable = all - reports.len();
    Ok((reports, unreadable))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use serde_json::{Value, json};

    use super::*;

    fn document(leads: bool, message: &str) -> Value {
        let report = SetReport {
            namespace: "ns".to_owned(),
            name: "store".to_owned(),
            message: message.to_owned(),
            ..SetReport::default()
        };
        let mut set = serde_json::to_value(report).unwrap();
        // Fields of `/status` that are not the report's.
        set["shards"] = json!([]);
        json!({"leader": {"holder": "a", "self": leads}, "statefulsets": [set, {"odd": 1}]})
    }

    fn message(reports: &ReportsByName) -> Option<&str> {
        let key = ("ns".to_owned(), "store".to_owned());
        reports.get(&key).map(|report| report.message.as_str())
    }

    #[test]
    fn reports_of_the_leader_are_read_and_no_others() {
        let (reports, unreadable) = parse(document(true, "x").to_string().as_bytes()).unwrap();
        assert_eq!((reports.len(), unreadable), (1, 1));
        for (body, why) in [
            (document(false, "x").to_string(), "does not lead"),
            ("{}".to_owned(), "does not lead"),
            ("<html>".to_owned(), "its answer is invalid"),
        ] {
            let error = parse(body.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_document_is_fetched_while_a_page_is_open_and_not_otherwise() {
        let reports = Arc::<LeaderReports>::default();
        let fetches = Arc::<AtomicUsize>::default();
        let counted = fetches.clone();
        tokio::spawn(reports.clone().follow(move |holder| {
            let number = counted.fetch_add(1, Relaxed);
            assert_eq!(holder, "timeshard-a");
            async move { Ok(document(true, &number.to_string()).to_string().into()) }
        }));
        sleep(Duration::from_mins(10)).await;
        assert_eq!(fetches.load(Relaxed), 0, "no page is open");
        // Sixteen browsers, each once a second for a minute.
        for _ in 0..60 {
            for _ in 0..16 {
                reports.latest(Some("timeshard-a"));
            }
            sleep(Duration::from_secs(1)).await;
        }
        let during = fetches.load(Relaxed);
        assert!((15..=31).contains(&during), "{during} fetches");
        let (relayed, shown) = reports.latest(Some("timeshard-a"));
        assert_eq!(relayed.from.as_deref(), Some("timeshard-a"));
        assert!(relayed.error.unwrap().contains("1 report"));
        assert_eq!(message(&shown), Some(&*(during - 1).to_string()));
        sleep(Duration::from_mins(10)).await;
        let after = fetches.load(Relaxed);
        assert!(after <= during + 1, "{after} fetches");
        assert!(lock(&reports.fetched).reports.is_empty(), "memory is freed");
    }

    #[tokio::test(start_paused = true)]
    async fn reports_are_dropped_once_the_leader_does_not_answer() {
        let reports = Arc::<LeaderReports>::default();
        let answers = Arc::new(AtomicUsize::new(1));
        let left = answers.clone();
        tokio::spawn(reports.clone().follow(move |_| {
            let first = left.swap(0, Relaxed) == 1;
            async move {
                if first {
                    Ok(document(true, "first").to_string().into())
                } else {
                    Err("connection refused\nlevel=error".to_owned())
                }
            }
        }));
        let mut shown = 0;
        for second in 0..40 {
            let (relayed, known) = reports.latest(Some("timeshard-a"));
            if message(&known).is_some() {
                shown += 1;
                assert_eq!(relayed.from.as_deref(), Some("timeshard-a"));
            }
            if second == 39 {
                let error = relayed.error.unwrap();
                assert!(error.starts_with("connection refused") && !error.contains('\n'));
                assert_eq!((relayed.from, known.len()), (None, 0));
            }
            sleep(Duration::from_secs(1)).await;
        }
        assert!((15..=21).contains(&shown), "shown for {shown} s");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_holder_no_server_is_asked() {
        let reports = Arc::<LeaderReports>::default();
        tokio::spawn(
            reports
                .clone()
                .follow(async |_| panic!("there is no leader")),
        );
        for _ in 0..10 {
            assert_eq!(reports.latest(None).0.from, None);
            sleep(Duration::from_secs(1)).await;
        }
    }
}
