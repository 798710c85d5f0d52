//! Which requests fail, and how. Pure: the caller passes the time in.
//!
//! The first rule that matches a request decides. A rule without conditions matches every request.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Clients that are counted apart; requests of further ones are not counted.
const MAX_CLIENTS: usize = 1024;

/// What happens to a request instead of its answer, or before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// This HTTP status.
    Status(u16),
    /// No answer while the client waits.
    Hang,
    /// The connection ends without an answer.
    Reset,
    /// The right answer, so many milliseconds late.
    DelayMs(u64),
}

/// A fault, and the requests that it applies to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// Requests from this address; from any, if absent.
    #[serde(default)]
    client: Option<IpAddr>,
    /// Requests with this method. thanos asks for the size of an index (HEAD) before it loads the block, and never while it
    /// serves, so that a rule on HEAD breaks loading alone.
    #[serde(default)]
    method: Option<String>,
    /// Keys that begin with one of these; all, if there are none.
    #[serde(default)]
    prefixes: Vec<String>,
    /// Keys that end so.
    #[serde(default)]
    suffix: String,
    fault: Fault,
    /// The rule holds for so many seconds; until it is replaced, if absent.
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

/// Requests of one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    pub(crate) requests: u64,
    pub(crate) faults: u64,
}

/// A rule as the control endpoint shows it.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    rule: &'a Rule,
    expired: bool,
    applied: u64,
}

/// The answer to `GET /faults`.
#[derive(Serialize)]
pub(crate) struct Listing<'a> {
    rules: Vec<Listed<'a>>,
    clients: &'a BTreeMap<IpAddr, Count>,
}

/// The rules in force, and what they did. Counts survive a change of the rules.
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

    /// The fault of this request, if any; counts both.
    pub(crate) fn judge(
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
