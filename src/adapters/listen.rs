//! Listening sockets, and the peers of their connections.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

use crate::core::fairness::peer::Peer;

/// The limit of connections waiting to be accepted; `net.core.somaxconn` may lower it. A flood that
/// fills it delays newcomers by the second after which they retry, so it is as large as most
/// kernels allow.
const BACKLOG: u16 = 4096;

/// Returns the peer that an address belongs to.
#[must_use]
pub fn peer(address: SocketAddr) -> Peer {
    match address.ip() {
        IpAddr::V4(address) => Peer::v4(address.into()),
        IpAddr::V6(address) => Peer::v6(address.into()),
    }
}

/// Raises the limit of open files to `wanted`, as far as the system allows. A lower limit is no
/// error: accepting then backs off.
pub fn allow_descriptors(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let wanted = now.maximum.map_or(wanted, |max| max.min(wanted));
    if now.current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(wanted),
                ..now
            },
        );
    }
}

/// Listens. The address 0.0.0.0 means every address, including IPv6 where available: pods of an
/// IPv6 cluster have no other.
///
/// # Errors
/// The kernel's, usually that the port is in use.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let everywhere = address.is_ipv4() && address.ip().is_unspecified();
    if everywhere && let Ok(listener) = bind_both(address.port()) {
        return Ok(listener);
    }
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(u32::from(BACKLOG))
}

/// Listens on IPv4 and IPv6 with one socket, whatever the node's `bindv6only` is.
fn bind_both(port: u16) -> io::Result<TcpListener> {
    use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None)?;
    sockopt::set_ipv6_v6only(&socket, false)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(
        &socket,
        &SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
    )?;
    net::listen(&socket, i32::from(BACKLOG))?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[test]
    fn addresses_of_one_sender_are_one_peer() {
        let peer = |text: &str| peer(SocketAddr::new(text.parse().unwrap(), 1));
        assert_eq!(peer("10.0.0.1"), peer("::ffff:10.0.0.1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
        assert_ne!(peer("::ffff:10.0.0.1"), peer("::ffff:10.0.0.2"));
        assert_eq!(
            peer("2001:db8:1:2::1"),
            peer("2001:db8:1:2:ffff:ffff:ffff:ffff")
        );
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_ne!(peer("::1"), peer("127.0.0.1"));
    }

    #[tokio::test]
    async fn every_address_is_served() {
        let listener = bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1".parse::<IpAddr>().unwrap(), port))
            .await
            .unwrap();
        if listener.local_addr().unwrap().is_ipv6() {
            TcpStream::connect((IpAddr::V6(Ipv6Addr::LOCALHOST), port))
                .await
                .unwrap();
        }
        let taken = bind(SocketAddr::new("127.0.0.1".parse().unwrap(), port));
        assert!(taken.is_err());
    }
}
