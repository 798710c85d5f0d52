//! The configuration file: reloaded when it changes; a bad edit keeps the last good one.
//!
//! Invariants: a bad edit is logged and counted once, and changes nothing; an unchanged file
//! changes nothing. A mounted `ConfigMap` swaps its directory, so the directory is watched, not the
//! file.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::clock;
use super::dir_watch::DirWatch;
use super::reload::{ReloadResult, Reloaded};
use crate::core::config::{Config, MAX_CONFIG_BYTES, Refusal};

#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    #[error("{path}: cannot be read: {why}")]
    Read { path: PathBuf, why: io::Error },
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A configuration file that is followed.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    loaded: Reloaded<LoadedConfig>,
    /// Unix seconds.
    swapped_at: AtomicI64,
    /// Unix seconds; 0 before the first failure.
    failed_at: AtomicI64,
}

/// A configuration and its text, which decides whether another one is the same.
#[derive(Debug)]
struct LoadedConfig {
    text: String,
    config: Arc<Config>,
}

impl PartialEq for LoadedConfig {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Bits of the hash that the metric shows: as many as its value holds exactly.
const HASH_BITS: u32 = 52;

impl ConfigFile {
    /// # Errors
    /// Names the file and, for a bad value, line and column.
    pub fn load(path: &Path) -> Result<(Arc<Self>, Arc<Config>), ConfigFileError> {
        let loaded = read(path)?;
        let config = Arc::clone(&loaded.config);
        let file = Self {
            path: path.to_owned(),
            loaded: Reloaded::new("configuration", loaded),
            swapped_at: AtomicI64::new(clock::unix_seconds()),
            failed_at: AtomicI64::new(0),
        };
        Ok((Arc::new(file), config))
    }

    /// Reads the file again. Returns the configuration if it is a good one that differs.
    pub fn reload(&self) -> Option<Arc<Config>> {
        match self.loaded.publish(read(&self.path)) {
            ReloadResult::Unchanged => None,
            ReloadResult::Swapped => {
                self.swapped_at.store(clock::unix_seconds(), Relaxed);
                tracing::info!(path = %self.path.display(), "configuration reloaded");
                Some(Arc::clone(&self.loaded.current().config))
            }
            ReloadResult::Kept => {
                self.failed_at.store(clock::unix_seconds(), Relaxed);
                None
            }
        }
    }

    /// Follows the file, and hands each new configuration to `apply`.
    pub async fn follow(self: Arc<Self>, poll: Duration, apply: impl Fn(Arc<Config>)) {
        let watch = DirWatch::of_file(&self.path, poll);
        watch
            .follow(|| {
                if let Some(config) = self.reload() {
                    apply(config);
                }
            })
            .await;
    }

    /// Hashes the text in force; equal in every process of this version that has the same text.
    fn hash(&self) -> i64 {
        let mut hasher = DefaultHasher::new();
        self.loaded.current().text.hash(&mut hasher);
        i64::try_from(hasher.finish() >> (u64::BITS - HASH_BITS)).unwrap_or(0)
    }

    /// Returns the error of the last reload; `None` once one has succeeded.
    #[must_use]
    pub fn last_failure(&self) -> Option<String> {
        self.loaded.last_failure()
    }
}

fn read(path: &Path) -> Result<LoadedConfig, ConfigFileError> {
    let failed = |why| ConfigFileError::Read {
        path: path.to_owned(),
        why,
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_CONFIG_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let config = Arc::new(Config::parse(&text, &path.display().to_string())?);
    Ok(LoadedConfig { text, config })
}

/// A collector, so that values are those at the time of the scrape.
#[derive(Debug)]
pub struct ConfigFileMetrics(pub Arc<ConfigFile>);

impl Collector for ConfigFileMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let file = &*self.0;
        let counts = file.loaded.counts();
        let mut counter = |name, help, value: u64| {
            let counter = ConstCounter::new(value);
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor(name, help, None, kind)?)
        };
        counter(
            "timeshard_config_reloads",
            "Configurations that came into force while running",
            counts.swapped,
        )?;
        counter(
            "timeshard_config_reloads_failed",
            "Edits of the configuration that were refused; the log and /status name the problem",
            counts.distinct_failures,
        )?;
        let mut gauge = |name, help, unit, value: i64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
        };
        gauge(
            "timeshard_config_last_reload_successful",
            "1 while the file's current content is in force; 0: it was refused, the last good one is in force, and /status names the problem",
            None,
            i64::from(file.last_failure().is_none()),
        )?;
        gauge(
            "timeshard_config_last_reload_success_timestamp",
            "When the configuration in force was read, as a Unix time",
            Some(&Unit::Seconds),
            file.swapped_at.load(Relaxed),
        )?;
        gauge(
            "timeshard_config_last_reload_failure_timestamp",
            "When the file was last read and refused, as a Unix time; 0 if never",
            Some(&Unit::Seconds),
            file.failed_at.load(Relaxed),
        )?;
        let help = "Hash of the configuration in force; replicas with different values have read different files: kubelet needs up to two minutes";
        gauge("timeshard_config_hash", help, None, file.hash())
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
        assert_eq!(file.loaded.counts().distinct_failures, 1, "counted once");
        assert!(
            file.failed_at.load(Relaxed) >= file.swapped_at.load(Relaxed),
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
