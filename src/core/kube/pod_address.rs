//! Which pod addresses are polled: `status.podIP` is set by nodes, CNIs and anyone with a right to
//! `pods/status`.
//!
//! Invariant: the server never connects to its own machine, its link or a cloud's metadata service,
//! in whatever form the address is written. Deliberately absent: the ranges of pods and nodes, which
//! no API reports. A pod with `hostNetwork` has its node's address and is polled, since gateways may
//! run so; that exposes `GET /status` on port 10908 of a node.

// Addresses as values; sockets are for the edges.
use ::core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::core::model::text::short_line;

/// Metadata and control addresses of clouds outside the link-local ranges: Azure, Alibaba, Oracle.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// AWS, Google Cloud, Scaleway.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// Which addresses may be polled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// Addresses that a pod can have.
    #[default]
    Pods,
    /// Loopback, too, for tests without a pod network.
    OwnMachineToo,
}

/// Names the kind of an address that no pod can have, such as `a loopback address`.
#[must_use]
pub fn not_of_a_pod(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => v6(ip),
    }
}

impl Asked {
    /// Parses an address to poll.
    ///
    /// # Errors
    /// A clause that names the address and why it is not polled.
    pub fn address(self, text: &str) -> Result<IpAddr, String> {
        let shown = short_line(text, 48);
        let ip: IpAddr = text
            .parse()
            .map_err(|_| format!("podIP {shown} is not an IP address: not asked"))?;
        match not_of_a_pod(ip).filter(|_| self == Self::Pods || !ip.to_canonical().is_loopback()) {
            Some(what) => Err(format!(
                "podIP {shown} is not an address of a pod but {what}: not asked"
            )),
            None => Ok(ip),
        }
    }
}

fn v4(ip: Ipv4Addr) -> Option<&'static str> {
    if ip.is_loopback() {
        Some("a loopback address")
    } else if ip.octets()[0] == 0 {
        Some("an address of this network (0.0.0.0/8)")
    } else if ip.is_link_local() {
        Some("a link-local address, where clouds serve metadata")
    } else if ip.is_multicast() {
        Some("a multicast address")
    } else if ip.is_broadcast() || ip.octets()[0] >= 240 {
        Some("a broadcast or reserved address")
    } else if METADATA_V4.contains(&ip) {
        Some("a cloud's metadata address")
    } else {
        None
    }
}

fn v6(ip: Ipv6Addr) -> Option<&'static str> {
    if ip.is_loopback() {
        Some("a loopback address")
    } else if ip.is_unspecified() {
        Some("the unspecified address")
    } else if ip.is_multicast() {
        Some("a multicast address")
    } else if ip.is_unicast_link_local() {
        Some("a link-local address")
    } else if METADATA_V6.contains(&ip) {
        Some("a cloud's metadata address")
    } else {
        embedded(ip).and_then(v4)
    }
}

/// Returns the IPv4 address that a translator, a tunnel or the kernel derives.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        // Mapped, compatible and translated (RFC 4291, RFC 2765); NAT64 (RFC 6052, RFC 8215);
        // ISATAP (RFC 5214).
        [0, 0, 0, 0, 0, 0xffff | 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [_, _, _, _, 0 | 0x200, 0x5efe, high, low]
        // 6to4 (RFC 3056).
        | [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_a_pod_can_have_are_polled() {
        for refused in [
            "127.0.0.1",
            "127.8.9.10",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "168.63.129.16",
            "100.100.100.200",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::127.0.0.1",
            "2002:7f00:1::1",
            "2001:db8::5efe:127.0.0.1",
        ] {
            let why = Asked::Pods.address(refused).unwrap_err();
            assert!(
                why.starts_with(&format!("podIP {refused} is not an address of a pod"))
                    && why.ends_with(": not asked"),
                "{why}"
            );
        }
        for asked in [
            "10.0.0.1",
            "192.168.3.4",
            "100.64.0.7",
            "203.0.113.9",
            "fd00::7",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.1.2.3",
        ] {
            assert_eq!(Asked::Pods.address(asked), Ok(asked.parse().unwrap()));
        }
        for nonsense in [
            "",
            "localhost",
            "127.1",
            "10.0.0.1:80",
            "fe80::1%eth0",
            "0x7f.0.0.1",
            "10.0.0.1\nlevel=error",
            &"9".repeat(10_000),
        ] {
            let why = Asked::Pods.address(nonsense).unwrap_err();
            assert!(
                why.contains("is not an IP address") && why.len() < 200 && !why.contains('\n'),
                "{why}"
            );
        }
    }

    #[test]
    fn tests_without_a_pod_network_may_poll_loopback_only() {
        assert!(
            Asked::OwnMachineToo.address("127.0.0.1").is_ok()
                && Asked::OwnMachineToo.address("::1").is_ok()
        );
        assert!(
            Asked::OwnMachineToo.address("169.254.169.254").is_err()
                && Asked::OwnMachineToo.address("0.0.0.0").is_err()
        );
    }
}
