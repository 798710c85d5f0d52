//! The checks at every moment, and at the end.

use super::*;

impl World {
    /// Every API server accepts every serving replica, unless it knows only what someone else
    /// wrote.
    pub(super) fn check(&mut self) {
        for (i, replica) in self
            .replicas
            .iter()
            .enumerate()
            .filter(|(_, replica)| replica.alive)
        {
            let Some(leaf) = &replica.serving else {
                continue;
            };
            for (api, version) in self.api.iter().enumerate() {
                let (Some(bundle), false) = &self.bundles[usize::try_from(*version).unwrap()]
                else {
                    continue;
                };
                let api_wall = wall(
                    self.now,
                    if api == 0 {
                        SKEW_SECONDS
                    } else {
                        -SKEW_SECONDS
                    },
                );
                let trusted = bundle
                    .iter()
                    .any(|anchor| anchor.der == leaf.issuer && anchor.validity.holds(api_wall));
                assert!(
                    trusted && leaf.validity.holds(api_wall),
                    "at {} min API server {api} refuses replica {i}: {leaf:?} under {bundle:?}",
                    self.now / MINUTE
                );
                self.checked += 1;
            }
        }
    }

    /// At the end all replicas serve one leaf, and none kept overwriting another.
    pub(in super::super) fn ended_well(&self) {
        let store = self
            .secrets
            .last()
            .unwrap()
            .as_ref()
            .expect("there is a Secret");
        for replica in &self.replicas {
            assert_eq!(
                replica.serving, store.leaf,
                "all serve what the Secret holds"
            );
        }
        let late = |what: &str| {
            self.writes
                .iter()
                .filter(|(at, kind)| *at > SETTLED && *kind == what)
                .count()
        };
        // 14 hours: 14 leaves of an hour, 3.5 CAs (made, promoted, dropped), and adopted anchors. A
        // replica that sees the caBundle before the Secret restores a dropped anchor once.
        assert!(
            late("secret") <= 32,
            "{} writes of the Secret",
            late("secret")
        );
        assert!(
            late("bundle") <= 24,
            "{} writes of the caBundle",
            late("bundle")
        );
        assert!(
            self.authorities >= 4 && self.checked > 1_000,
            "{} authorities, {} checks",
            self.authorities,
            self.checked
        );
    }
}
