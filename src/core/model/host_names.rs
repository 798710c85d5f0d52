//! Host names under which a browser may reach the admin port, against DNS rebinding.
//!
//! A user who forwards the admin port to their machine also opens foreign web pages there. Such a
//! page can make its own name resolve to 127.0.0.1, and the browser then lets it read the admin port
//! as its own origin. The request still has the page's name as host, so other names are refused.

// An address as a value; `std::net` is for the edges.
use ::core::net::IpAddr;

/// Names in the configuration.
pub const MAX_NAMES: usize = 32;
/// Suffixes of names within a cluster; no one can register them.
const CLUSTER_SUFFIXES: [&str; 3] = [".svc", ".svc.cluster.local", ".pod.cluster.local"];

/// Whether a `Host` header (or an HTTP/2 authority) is an IP, `localhost`, a name within the
/// cluster, or one of `names`.
#[must_use]
pub fn is_allowed(host: &str, names: &[String]) -> bool {
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
        // The colons of an IPv6 address without a port are within brackets.
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
    fn names_that_no_one_can_register_are_allowed() {
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
            assert!(is_allowed(host, &names), "{host}");
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
            assert!(!is_allowed(host, &names), "{host:?}");
        }
    }
}
