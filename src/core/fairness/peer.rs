//! The sender of a connection, for fair sharing.
//!
//! Deliberately absent: ports and names, which the sender chooses freely.

/// The bits of an IPv6 address that its sender cannot choose: every sender has a /64.
const IPV6_NETWORK: u128 = u128::MAX << 64;
/// IPv4-mapped addresses, `::ffff:a.b.c.d`.
const MAPPED_IPV4: u128 = 0xffff << 32;

/// An IPv4 address (mapped or not), or an IPv6 network of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(u128);

impl Peer {
    /// One peer for all callers without a connection, such as tests.
    pub const UNKNOWN: Self = Self(0);

    #[must_use]
    pub const fn v4(address: u32) -> Self {
        Self(MAPPED_IPV4 | address as u128)
    }

    #[must_use]
    pub const fn v6(address: u128) -> Self {
        if address >> 32 == MAPPED_IPV4 >> 32 {
            Self(address)
        } else {
            Self(address & IPV6_NETWORK)
        }
    }
}
