//! Who a connection comes from, as far as fair sharing needs to know.
//!
//! Deliberately absent: ports and names. Both are free to choose for whoever connects; an address is not.

/// The bits of an IPv6 address that its sender does not choose: whoever has one address has a whole /64.
const IPV6_NETWORK: u128 = u128::MAX << 64;
/// IPv4 addresses written as IPv6, `::ffff:a.b.c.d`.
const MAPPED_IPV4: u128 = 0xffff << 32;

/// A peer address: an IPv4 address, however it is written, or an IPv6 network of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(u128);

impl Peer {
    /// For callers that have no connection, such as tests: all of them are one peer.
    pub const UNKNOWN: Self = Self(0);

    /// The peer of an IPv4 address.
    #[must_use]
    pub const fn v4(address: u32) -> Self {
        Self(MAPPED_IPV4 | address as u128)
    }

    /// The peer of an IPv6 address.
    #[must_use]
    pub const fn v6(address: u128) -> Self {
        if address >> 32 == MAPPED_IPV4 >> 32 {
            Self(address)
        } else {
            Self(address & IPV6_NETWORK)
        }
    }
}
