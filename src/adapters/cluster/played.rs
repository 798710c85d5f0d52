//! What tests say that was observed.

use super::Observed;
use crate::core::fleet::Published;
use crate::core::observed::MapFacts;

impl Observed {
    /// As if a ConfigMap had been read.
    pub(crate) fn put_map_for_test(&self, namespace: &str, facts: MapFacts) {
        self.keep_map(
            namespace,
            Published {
                facts,
                ..Published::default()
            },
        );
    }

    /// As if a namespace's StatefulSets and ConfigMaps had been listed.
    pub(crate) fn list_for_test(&self, namespace: &str) {
        self.listed(namespace);
    }

    /// As if a namespace were labelled, and all that are were listed.
    pub(crate) fn label_for_test(&self, namespace: &str) {
        self.namespaces
            .send_if_modified(|all| all.insert(namespace.to_owned()));
        self.nothing_to_list();
    }
}
