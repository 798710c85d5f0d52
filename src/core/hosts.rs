//! Under which names a browser may reach the admin port: against DNS rebinding.
//!
//! Whoever forwards the admin port to their own machine has a browser that other people's pages run in. Such a page may have its own
//! name resolve to 127.0.0.1 afterwards; what it reads then is of its own origin, in the browser's eyes. The request still says the
//! page's name, which nobody here goes by.

// An address as a value: std::net, where it is too, is an edge.
use ::core::net::IpAddr;

/// Most names that can be given.
pub const MAX_NAMES: usize = 32;
/// What names within a cluster end in; nobody can register these.
const CLUSTER_SUFFIXES: [&str; 3] = [".svc", ".svc.cluster.local", ".pod.cluster.local"];

/// Whether a `Host` header (or an HTTP/2 authority) is an IP, `localhost`, a name within the cluster, or one of `names`.
#[must_use]
pub fn is_ours(host: &str, names: &[String]) -> bool {
    let name = without_port(host)
        .trim_end_matches('.')
        .to_ascii_lowercase();
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(&name);
    !name.is_empty()
        && (bare.parse::<IpAddr>().is_ok()
            || !name.contains('.')
            || name.ends_with(".localhost")
            || CLUSTER_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
            || names
                .iter()
                .any(|other| name.eq_ignore_ascii_case(other.trim_end_matches('.'))))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The colons of an IPv6 address without a port stand within brackets.
        Some((name, port))
            if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nobody_can_register_are_ours() {
        let names = ["shards.example.com".to_owned()];
        for host in [
            "127.0.0.1:8080",
            "10.0.0.7",
            "[::1]:8080",
            "[fd00::7]",
            "localhost:8080",
            "LOCALHOST",
            "localhost.",
            "timeshard",
            "timeshard:8080",
            "a.localhost:8080",
            "timeshard.timeshard-system.svc",
            "timeshard.timeshard-system.svc.cluster.local:8080",
            "10-0-0-7.ns.pod.cluster.local",
            "shards.example.com",
            "Shards.Example.com.:80",
        ] {
            assert!(is_ours(host, &names), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "svc.evil.example:8080",
            "a.svc.evil.example",
            "example.com",
            "other.shards.example.com",
            "shards.example.com.evil.example",
            "",
            ":8080",
            ".",
            "evil.example:",
        ] {
            assert!(!is_ours(host, &names), "{host:?}");
        }
    }
}
