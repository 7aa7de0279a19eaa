//! The client's address: the other end of the connection, or what a trusted proxy reports.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR_HEADER: &str = "x-forwarded-for";

/// The client's address.
///
/// `X-Forwarded-For` counts only if `peer` is a trusted proxy, and is read from its end: the
/// last address that is no trusted proxy is the one that a trusted proxy has seen. Everything
/// before it is the client's word. Other headers of this kind are not read at all.
#[must_use]
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    let lines = headers.get_all(FORWARDED_FOR_HEADER).iter().rev().filter_map(|line| line.to_str().ok());
    for entry in lines.flat_map(|line| line.rsplit(',')) {
        if !trusted.iter().any(|network| network.contains(&client)) {
            break;
        }
        // What is no address was not written by a proxy that can be trusted.
        let Some(address) = parse_address(entry.trim()) else { break };
        client = address.to_canonical();
    }
    client
}

/// An address, with or without a port.
fn parse_address(entry: &str) -> Option<IpAddr> {
    entry.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

/// The network whose members share one limit: a subscriber has a whole /64 of IPv6.
#[must_use]
pub fn rate_limit_key(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve_client(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR_HEADER, line.parse().unwrap());
        }
        headers.insert("forwarded", "for=9.9.9.9".parse().unwrap());
        headers.insert("x-real-ip", "9.9.9.9".parse().unwrap());
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn client_address_untrusted_proxy_is_ignored() {
        for (peer, forwarded, expected) in [
            ("1.2.3.4", &[][..], "1.2.3.4"),
            ("1.2.3.4", &["5.6.7.8"], "1.2.3.4"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["5.6.7.8"], "5.6.7.8"),
            // The client says it is 9.9.9.9; the proxy has seen 5.6.7.8.
            ("10.0.0.1", &["9.9.9.9, 5.6.7.8"], "5.6.7.8"),
            ("10.0.0.1", &["9.9.9.9", "5.6.7.8"], "5.6.7.8"),
            ("10.0.0.1", &["9.9.9.9, 5.6.7.8 ,10.0.0.2"], "5.6.7.8"),
            ("10.0.0.1", &["9.9.9.9, 10.0.0.2"], "9.9.9.9"),
            ("10.0.0.1", &["nonsense"], "10.0.0.1"),
            ("10.0.0.1", &["9.9.9.9, nonsense, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["5.6.7.8:1234"], "5.6.7.8"),
            ("10.0.0.1", &["[2001:db8::1]:1234"], "2001:db8::1"),
            ("10.0.0.1", &["5.6.7.8:"], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("::ffff:10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("fd00::1", &["::ffff:5.6.7.8"], "5.6.7.8"),
        ] {
            assert_eq!(resolve_client(peer, forwarded), expected, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn rate_limit_key_same_ipv6_network_is_equal() {
        let of = |address: &str| rate_limit_key(address.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::9"));
        assert_ne!(of("2001:db8:1:2::9"), of("2001:db8:1:3::9"));
        assert_ne!(of("1.2.3.4"), of("1.2.3.5"));
    }
}
