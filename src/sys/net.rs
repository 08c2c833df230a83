//! Listening sockets: one per shard and address, sharing the port by SO_REUSEPORT. Boot thread.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Connections the kernel queues per listener before accept; net.core.somaxconn caps it.
const BACKLOG: libc::c_int = 4096;

/// Opens `count` listeners on `address`, one for each shard. A port of 0 is resolved by the first one. Returns them with
/// the address they have.
///
/// # Errors
/// The errno of socket(2), bind(2) or listen(2). EADDRINUSE also when another server already listens there with
/// SO_REUSEPORT: sharing a port with a stranger would split the traffic without a word.
pub fn listen(address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    assert!(count > 0);
    if address.port() != 0 {
        // Bound alone, without SO_REUSEPORT, and closed again: fails if anybody has the port.
        let probe = socket(address)?;
        bind(&probe, address)?;
    }
    let mut bound = address;
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = socket(address)?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
        // Accepted sockets inherit it: an answer is one send and must not wait for an acknowledgement.
        set_option(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
        bind(&socket, bound)?;
        // SAFETY: listen takes no pointers.
        if unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if bound.port() == 0 {
            let listener = std::net::TcpListener::from(socket);
            bound = listener.local_addr()?;
            listeners.push(listener.into());
        } else {
            listeners.push(socket);
        }
    }
    Ok((bound, listeners))
}

fn socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: socket takes no pointers.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fd was just made and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // A restarted server must not wait out TIME_WAIT of its former connections (socket(7)).
    set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    if address.is_ipv6() {
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
    }
    Ok(socket)
}

fn set_option(socket: &OwnedFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let one: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value is an int that lives across the call, and its length is given.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const one).cast(), length) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let result = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: the address is a sockaddr_in that lives across the call, and its size is given.
            unsafe { libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), size_of_val(&raw) as libc::socklen_t) }
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: the address is a sockaddr_in6 that lives across the call, and its size is given.
            unsafe { libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), size_of_val(&raw) as libc::socklen_t) }
        }
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_a_port_and_strangers_do_not() {
        let (address, listeners) = listen("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert!(address.port() != 0 && listeners.len() == 3);
        let stranger = listen(address, 1).unwrap_err();
        assert_eq!(stranger.raw_os_error(), Some(libc::EADDRINUSE));
        drop(listeners);
        listen(address, 1).unwrap();
    }

    #[test]
    fn version_6_is_listened_on_too() {
        match listen("[::1]:0".parse().unwrap(), 1) {
            Ok((address, _)) => assert!(address.is_ipv6() && address.port() != 0),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL), "a host without IPv6"),
        }
    }
}
