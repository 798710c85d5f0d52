//! The configuration file as it is now: reloaded when it changes, the last good one kept when it is bad.
//!
//! Invariants: a bad edit is logged once and counted, and changes nothing; an unchanged file changes nothing. A mounted
//! `ConfigMap` swaps its directory, so the directory is watched, not the file.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::clock;
use super::dir_watch::DirWatch;
use crate::core::config::{Config, MAX_CONFIG_BYTES, Refusal};

/// Why there is no configuration to start with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// The file cannot be read.
    #[error("{path}: cannot be read: {why}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// The system's words.
        why: io::Error,
    },
    /// The file is wrong.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A configuration file that is followed.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    text: Mutex<String>,
    last_failure: Mutex<Option<String>>,
    reloads: AtomicU64,
    failed: AtomicU64,
    /// Unix seconds; 0 before the first.
    taken_over_at: AtomicI64,
    failed_at: AtomicI64,
}

/// Bits of the hash that is shown: as many as a metric's value holds exactly.
const HASH_BITS: u32 = 52;

impl ConfigFile {
    /// Loads the file.
    ///
    /// # Errors
    /// [`ConfigFileError`], which names the file and, where there is one, the place.
    pub fn load(path: &Path) -> Result<(Arc<Self>, Arc<Config>), ConfigFileError> {
        let (text, config) = read(path)?;
        let file = Self {
            path: path.to_owned(),
            text: Mutex::new(text),
            last_failure: Mutex::new(None),
            reloads: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            taken_over_at: AtomicI64::new(clock::unix_seconds()),
            failed_at: AtomicI64::new(0),
        };
        Ok((Arc::new(file), Arc::new(config)))
    }

    /// Reads the file again. `Some` when it holds another good configuration.
    pub fn reload(&self) -> Option<Arc<Config>> {
        let mut last = self
            .last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match read(&self.path) {
            Ok((text, config)) => {
                *last = None;
                let mut known = self.text.lock().unwrap_or_else(PoisonError::into_inner);
                if *known == text {
                    return None;
                }
                *known = text;
                self.reloads.fetch_add(1, Relaxed);
                self.taken_over_at.store(clock::unix_seconds(), Relaxed);
                tracing::info!(path = %self.path.display(), "configuration reloaded");
                Some(Arc::new(config))
            }
            Err(error) => {
                self.failed_at.store(clock::unix_seconds(), Relaxed);
                let failure = error.to_string();
                if last.as_deref() != Some(failure.as_str()) {
                    self.failed.fetch_add(1, Relaxed);
                    tracing::warn!(
                        error = failure,
                        "configuration not reloaded, the last good one stays in force"
                    );
                    *last = Some(failure);
                }
                None
            }
        }
    }

    /// Follows the file for as long as it is polled, handing each new configuration to `apply`.
    pub async fn follow(self: Arc<Self>, poll: Duration, apply: impl Fn(Arc<Config>)) {
        let dir = self
            .path
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
            .to_owned();
        let mut watch = DirWatch::new(&dir, poll);
        loop {
            // Before the first wait too: the file may have changed between loading and watching.
            if let Some(config) = self.reload() {
                apply(config);
            }
            watch.changed().await;
        }
    }

    /// The same for the same text in force, in every process of this version.
    fn hash(&self) -> i64 {
        let mut hasher = DefaultHasher::new();
        self.text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .hash(&mut hasher);
        i64::try_from(hasher.finish() >> (u64::BITS - HASH_BITS)).unwrap_or(0)
    }

    /// Why the last reload failed; `None` once one has succeeded.
    #[must_use]
    pub fn last_failure(&self) -> Option<String> {
        self.last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn read(path: &Path) -> Result<(String, Config), ConfigFileError> {
    let failed = |why| ConfigFileError::Read {
        path: path.to_owned(),
        why,
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_CONFIG_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let config = Config::parse(&text, &path.display().to_string())?;
    Ok((text, config))
}

/// Registered as a collector, so that the values are those of the scrape.
#[derive(Debug)]
pub struct ConfigFileMetrics(pub Arc<ConfigFile>);

impl Collector for ConfigFileMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let reloads = ConstCounter::new(self.0.reloads.load(Relaxed));
        let help = "Configurations taken over while running";
        reloads.encode(encoder.encode_descriptor(
            "timeshard_config_reloads",
            help,
            None,
            reloads.metric_type(),
        )?)?;
        let failed = ConstCounter::new(self.0.failed.load(Relaxed));
        let help = "Edits of the configuration that were refused; the log and /status say why";
        failed.encode(encoder.encode_descriptor(
            "timeshard_config_reloads_failed",
            help,
            None,
            failed.metric_type(),
        )?)?;
        let good = ConstGauge::new(i64::from(self.0.last_failure().is_none()));
        let help = "1 when the file as it is now is in force; 0 means that the last good one is, and /status says why";
        good.encode(encoder.encode_descriptor(
            "timeshard_config_last_reload_successful",
            help,
            None,
            good.metric_type(),
        )?)?;
        let mut gauge = |name, help, unit, value| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
        };
        let help = "When the configuration in force was read, as a Unix time";
        gauge(
            "timeshard_config_last_reload_success_timestamp",
            help,
            Some(&Unit::Seconds),
            self.0.taken_over_at.load(Relaxed),
        )?;
        let help = "When the file was last read and refused, as a Unix time; 0 when it never was";
        gauge(
            "timeshard_config_last_reload_failure_timestamp",
            help,
            Some(&Unit::Seconds),
            self.0.failed_at.load(Relaxed),
        )?;
        let help = "Hash of the configuration in force; replicas with different values have read different files: kubelet needs up to two minutes";
        gauge("timeshard_config_hash", help, None, self.0.hash())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_edit_keeps_the_last_good_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, "sharding: {total_shards: 4}").unwrap();
        let (file, config) = ConfigFile::load(&path).unwrap();
        assert_eq!(config.sharding.total_shards(), Some(4));
        assert!(file.reload().is_none(), "nothing changed");
        let hash = file.hash();
        std::fs::write(&path, "sharding: {total_shards: 0}").unwrap();
        assert!(file.reload().is_none() && file.reload().is_none());
        assert_eq!(file.failed.load(Relaxed), 1, "counted once");
        assert!(
            file.failed_at.load(Relaxed) >= file.taken_over_at.load(Relaxed),
            "the last failure is the later one"
        );
        assert_eq!(file.hash(), hash, "what is in force is the same");
        assert!(
            file.last_failure()
                .unwrap()
                .contains("config.yaml:1:26: sharding.total_shards: 0"),
            "{:?}",
            file.last_failure()
        );
        std::fs::write(&path, "sharding: {total_shards: 5}").unwrap();
        assert_eq!(file.reload().unwrap().sharding.total_shards(), Some(5));
        assert!(file.last_failure().is_none());
        assert!(file.hash() != hash && file.hash() < 1 << HASH_BITS);
        std::fs::remove_file(&path).unwrap();
        assert!(file.reload().is_none());
        assert!(file.last_failure().unwrap().contains("cannot be read"));
    }
}
