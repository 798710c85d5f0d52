//! Observations made by tests.

use super::Observed;
use crate::adapters::clock;
use crate::core::gateways::Published;
use crate::core::kube::observed::MapFacts;

impl Observed {
    pub(crate) fn put_map_for_test(&self, namespace: &str, facts: MapFacts) {
        self.keep_map(namespace, Published::new(facts, clock::now()));
    }

    pub(crate) fn list_for_test(&self, namespace: &str) {
        self.listed(namespace);
    }

    /// Labels a namespace, with all labelled ones listed.
    pub(crate) fn label_for_test(&self, namespace: &str) {
        self.namespaces
            .send_if_modified(|all| all.insert(namespace.to_owned()));
        self.nothing_to_list();
    }
}
