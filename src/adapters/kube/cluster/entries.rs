//! Parses the entries of a ConfigMap.

use std::sync::atomic::Ordering::Relaxed;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;

use super::Observed;
use crate::adapters::clock;
use crate::core::gateways::{Entries, parse_entries};
use crate::core::model::text::short_line;

/// Unreadable entries that are named in the log.
const MAX_NAMED_ENTRIES: usize = 3;
/// How much of a key is logged. Characters.
const MAX_KEY_CHARS: usize = 80;
/// How much of an error is logged. Characters.
const MAX_ERROR_CHARS: usize = 300;

/// The entries of a ConfigMap, by pod. Unreadable ones get a single log line: a ConfigMap has room
/// for sixty thousand, and anyone who may change it can do so every second.
pub(super) fn entries(map: &ConfigMap, observed: &Observed) -> Entries {
    let Some(data) = &map.data else {
        return Entries::new();
    };
    let mut bad: u64 = 0;
    let mut named = Vec::new();
    let mut first = None;
    let entries = parse_entries(data, clock::now(), |key, error| {
        bad += 1;
        if named.len() < MAX_NAMED_ENTRIES {
            named.push(short_line(key, MAX_KEY_CHARS));
        }
        first.get_or_insert_with(|| short_line(&error.to_string(), MAX_ERROR_CHARS));
    });
    if let Some(error) = first {
        observed.bad_entries.fetch_add(bad, Relaxed);
        let (namespace, configmap, keys) = (
            map.namespace().unwrap_or_default(),
            map.name_any(),
            named.join(", "),
        );
        if observed.may_log(&namespace) {
            tracing::warn!(
                namespace,
                configmap,
                entries = bad,
                keys,
                error,
                "unreadable entries; their pods get the planned window"
            );
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io;

    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::adapters::log_text;
    use crate::core::config::Config;
    use crate::core::gateways::Gateways;

    /// What is logged while `act` runs, by the server's own formatter.
    fn logged(act: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .fmt_fields(log_text::fields())
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, act);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn sixty_thousand_bad_entries_are_one_line() {
        let mut map = ConfigMap::default();
        map.metadata.name = Some("store-time-shards".to_owned());
        let good = "shard: 0\nmin_time: -1d\nmax_time: 0s\n".to_owned();
        let bad = (0..60_000).map(|i| (format!("store-{i:05}.yaml"), String::new()));
        map.data = Some(bad.chain([("good-0.yaml".to_owned(), good)]).collect());
        let observed = Observed::new(Gateways::new(Arc::new(Config::default())));
        let mut read = 0;
        let log = logged(|| read = entries(&map, &observed).len());
        assert_eq!(
            (
                read,
                observed.bad_entries.load(Relaxed),
                log.lines().count()
            ),
            (1, 60_000, 1),
            "{log:.500}"
        );
        assert!(
            log.len() < 1_000 && log.contains("entries=60000") && log.contains("store-00002.yaml"),
            "{log:.1000}"
        );
    }

    #[test]
    fn a_foreign_text_starts_no_line_and_controls_no_terminal() {
        let forged = "x\n2026-01-01T00:00:00Z  INFO timeshard: all is well\u{1b}[2J";
        let log = logged(
            || tracing::warn!(name = forged, error = %forged, debug = ?forged, "text: {forged}"),
        );
        assert_eq!(
            (
                log.lines().count(),
                log.matches("\\n2026").count(),
                log.contains('\u{1b}')
            ),
            (1, 4, false),
            "{log}"
        );
        let mut many = String::new();
        for i in 0..100_000 {
            let _ = write!(many, "annotation {i}, ");
        }
        assert!(logged(|| tracing::warn!("{many}")).len() < 10_000);
    }
}
