//! Reads the answers of sidecars.

use std::collections::BTreeMap;

use hyper::body::Bytes;
use serde::Deserialize;

use super::Polled;
use super::schedule::Target;
use crate::core::agent::status::AgentStatus;
use crate::core::kube::observed::PodAnswer;
use crate::core::model::names;

/// The one field that tells a newer document from nonsense.
#[derive(Deserialize)]
struct Contract {
    contract: u32,
}

/// Reads the answer to one request.
pub(super) fn read(target: &Target, answer: Result<(u16, Bytes), String>) -> PodAnswer {
    let hint = format!(
        "the server must reach port {} of the pod; a NetworkPolicy or a service mesh usually prevents it",
        names::SIDECAR_PORT
    );
    let body = match answer {
        Ok((200, body)) => body,
        Ok((status, _)) => {
            return PodAnswer::Unreachable(format!(
                "pod {} answers {status} on /status: {hint}",
                target.name
            ));
        }
        Err(why) => {
            return PodAnswer::Unreachable(format!(
                "pod {} cannot be reached: {why}: {hint}",
                target.name
            ));
        }
    };
    let status = match AgentStatus::read(&body) {
        Ok(status) => status,
        Err(error) => return PodAnswer::Unreachable(unreadable(target, &body, &error)),
    };
    if let Some(other) = another_pod(target, &status) {
        return PodAnswer::Unreachable(format!(
            "pod {}: its address now belongs to {other}",
            target.name
        ));
    }
    PodAnswer::Status(Box::new(status))
}

/// Describes the pod that answered if it is not the one that was asked. Addresses are reused, and
/// pods of several namespaces, or successive pods of one StatefulSet, have the same name. Agents
/// report their UID and namespace since contract 2. The name in the answer is not repeated: anyone
/// who can set an address could read through it what answers there.
fn another_pod(target: &Target, status: &AgentStatus) -> Option<&'static str> {
    if status.pod != target.name {
        return Some("a pod of another name");
    }
    match (&status.uid, &status.namespace) {
        (Some(uid), namespace) if *uid != target.uid => {
            let elsewhere = namespace
                .as_ref()
                .is_some_and(|namespace| *namespace != target.namespace);
            Some(if elsewhere {
                "a pod of the same name in another namespace"
            } else {
                "another pod of the same name"
            })
        }
        (None, Some(namespace)) if *namespace != target.namespace => {
            Some("a pod of the same name in another namespace")
        }
        _ => None,
    }
}

fn missing(answer: &PodAnswer) -> usize {
    answer
        .status()
        .and_then(|status| status.blocks.as_ref())
        .map_or(0, |blocks| blocks.missing.len())
}

/// Missing blocks kept for all pods of a namespace; each takes some 100 bytes. If a dozen pods miss
/// all the blocks that they may list, the bucket is broken, and one pod's list says so.
const MAX_MISSING_OF_NAMESPACE: usize = 16 * 1024;
/// A pod that lists no more is not counted against that.
const FEW_MISSING: usize = 8;

/// Drops a list of missing blocks that is too long for its namespace; their number stays.
pub(super) fn bound_missing(
    polled: &BTreeMap<String, Polled>,
    target: &Target,
    answer: &mut PodAnswer,
) {
    let own = missing(answer);
    if own <= FEW_MISSING {
        return;
    }
    let others = polled
        .iter()
        .filter(|(uid, polled)| **uid != target.uid && polled.namespace == target.namespace);
    let listed: usize = others.map(|(_, polled)| missing(&polled.answer)).sum();
    if let PodAnswer::Status(status) = answer
        && let Some(blocks) = &mut status.blocks
        && listed + own > MAX_MISSING_OF_NAMESPACE
    {
        blocks.missing_total = blocks
            .missing_total
            .max(u64::try_from(own).unwrap_or(u64::MAX));
        blocks.missing = Vec::new();
    }
}

fn unreadable(target: &Target, body: &[u8], error: &serde_json::Error) -> String {
    let own = names::CONTRACT;
    match serde_json::from_slice::<Contract>(body) {
        Ok(Contract { contract }) if contract > own => {
            format!(
                "pod {}: its agent has contract {contract}, this server {own}: upgrade the server",
                target.name
            )
        }
        _ => {
            // serde's message repeats parts of the answer; this one only names its kind.
            let kind = if error.is_data() {
                "not a status document"
            } else {
                "not JSON"
            };
            format!(
                "pod {}: the answer on port {} is {kind}",
                target.name,
                names::SIDECAR_PORT
            )
        }
    }
}
