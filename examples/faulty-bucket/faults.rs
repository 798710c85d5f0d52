//! Which requests fail, and how. Pure: the caller passes the time in.
//!
//! The first rule that matches a request decides. A rule without conditions matches every request.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// How many clients are counted; requests of others are not counted.
const MAX_CLIENTS: usize = 1024;

/// What happens to a request instead of, or before, its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    Status(u16),
    /// No response while the client waits.
    Hang,
    /// The connection ends without a response.
    Reset,
    /// The correct response, after a delay.
    DelayMs(u64),
}

/// A fault and its conditions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// The client's address; any, if absent.
    #[serde(default)]
    client: Option<IpAddr>,
    /// thanos requests the size of an index (HEAD) before it loads a block, and never while it serves,
    /// so a rule on HEAD breaks only loading.
    #[serde(default)]
    method: Option<String>,
    /// Prefixes of the key; any, if empty.
    #[serde(default)]
    prefixes: Vec<String>,
    /// The key's suffix.
    #[serde(default)]
    suffix: String,
    fault: Fault,
    /// How long the rule applies; until it is replaced, if absent.
    #[serde(default)]
    seconds: Option<u64>,
}

impl Rule {
    fn matches(&self, client: IpAddr, method: &str, key: &str) -> bool {
        self.client.is_none_or(|wanted| wanted == client)
            && self.method.as_ref().is_none_or(|wanted| wanted == method)
            && (self.prefixes.is_empty()
                || self
                    .prefixes
                    .iter()
                    .any(|prefix| key.starts_with(prefix.as_str())))
            && key.ends_with(&self.suffix)
    }
}

/// A rule in force.
struct Active {
    rule: Rule,
    until: Option<Instant>,
    applied: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    pub(crate) requests: u64,
    pub(crate) faults: u64,
}

#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    rule: &'a Rule,
    expired: bool,
    applied: u64,
}

/// The response to `GET /faults`.
#[derive(Serialize)]
pub(crate) struct Listing<'a> {
    rules: Vec<Listed<'a>>,
    clients: &'a BTreeMap<IpAddr, Count>,
}

/// The current rules and counts. Counts survive a change of the rules.
#[derive(Default)]
pub(crate) struct Faults {
    rules: Vec<Active>,
    clients: BTreeMap<IpAddr, Count>,
}

impl Faults {
    pub(crate) fn replace(&mut self, rules: Vec<Rule>, now: Instant) {
        self.rules.clear();
        self.add(rules, now);
    }

    pub(crate) fn add(&mut self, rules: Vec<Rule>, now: Instant) {
        self.rules.extend(rules.into_iter().map(|rule| Active {
            until: until(&rule, now),
            rule,
            applied: 0,
        }));
    }

    /// Returns the fault of this request; counts the request and the fault.
    pub(crate) fn apply(
        &mut self,
        client: IpAddr,
        method: &str,
        key: &str,
        now: Instant,
    ) -> Option<Fault> {
        let active = self
            .rules
            .iter_mut()
            .find(|active| !active.expired(now) && active.rule.matches(client, method, key));
        let fault = active.map(|active| {
            active.applied += 1;
            active.rule.fault
        });
        if self.clients.len() < MAX_CLIENTS || self.clients.contains_key(&client) {
            let count = self.clients.entry(client).or_default();
            count.requests += 1;
            count.faults += u64::from(fault.is_some());
        }
        fault
    }

    pub(crate) fn listing(&self, now: Instant) -> Listing<'_> {
        let rules = self.rules.iter().map(|active| Listed {
            rule: &active.rule,
            expired: active.expired(now),
            applied: active.applied,
        });
        Listing {
            rules: rules.collect(),
            clients: &self.clients,
        }
    }
}

impl Active {
    fn expired(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now >= until)
    }
}

fn until(rule: &Rule, now: Instant) -> Option<Instant> {
    now.checked_add(Duration::from_secs(rule.seconds?))
}
