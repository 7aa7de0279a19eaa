//! Where a listener waits for connections: an address, the name of a host, or a Unix socket.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// What an option for a Unix socket begins with.
pub const UNIX_PREFIX: &str = "unix:";
/// Longest path of a socket, in bytes: the system has a place of 108 for it, with a zero at its end.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Where a listener waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// At this address.
    Address(SocketAddr),
    /// At an address of this host: name and port.
    Host(String, u16),
    /// At a Unix socket, which only processes of this machine can reach.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The same with the address of a host instead of its name: the first IPv4 address, else the first.
    ///
    /// # Errors
    /// A sentence that begins with what was typed, if the system does not know the name.
    pub fn resolve(&self) -> Result<Self, String> {
        let Self::Host(name, port) = self else { return Ok(self.clone()) };
        let resolved = (name.as_str(), *port).to_socket_addrs().map_err(|error| {
            format!(
                "{self}: the host name cannot be resolved ({error}); use an address, or a name that the system knows"
            )
        })?;
        let first = resolved.min_by_key(SocketAddr::is_ipv6);
        first.map(Self::Address).ok_or_else(|| format!("{self}: the host name has no address"))
    }

    /// True if only processes of this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Address(address) => address.ip().is_loopback(),
            Self::Host(..) => false,
            Self::Unix(_) => true,
        }
    }

    /// The IP address, if there is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address.ip()),
            Self::Host(..) | Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl Display for ListenAddress {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Host(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        if let Some(path) = typed.strip_prefix(UNIX_PREFIX) {
            return match path.len() {
                1..=MAX_SOCKET_PATH_BYTES => Ok(Self::Unix(path.into())),
                _ => Err(format!("the PATH of unix:PATH has 1 to {MAX_SOCKET_PATH_BYTES} bytes")),
            };
        }
        if let Ok(address) = typed.parse() {
            return Ok(Self::Address(address));
        }
        let wrong = || "this is neither ADDRESS:PORT such as 127.0.0.1:8000, nor HOST:PORT, nor unix:PATH".to_owned();
        let (name, port) = typed.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let name = parse_host_name(name).ok_or_else(wrong)?;
        // Digits alone are a wrong address.
        if name.bytes().all(|c| c.is_ascii_digit() || c == b'.') { Err(wrong()) } else { Ok(Self::Host(name, port)) }
    }
}

/// A host name, in lower case.
fn parse_host_name(typed: &str) -> Option<String> {
    let typed = typed.trim();
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    ((1..=253).contains(&typed.len()) && typed.bytes().all(fits)).then(|| typed.to_ascii_lowercase())
}

/// A host name without a dot at its end, or an IP address, in the form in which a `Host` header is compared.
///
/// # Errors
/// A sentence.
pub fn parse_admin_host(typed: &str) -> Result<String, String> {
    let typed = typed.trim();
    let address = typed.strip_prefix('[').and_then(|typed| typed.strip_suffix(']')).unwrap_or(typed);
    if let Ok(address) = address.parse::<IpAddr>() {
        return Ok(address.to_canonical().to_string());
    }
    parse_host_name(typed.trim_end_matches('.'))
        .ok_or_else(|| "this is neither a host name, such as predictd.internal, nor an IP address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(typed: &str) -> ListenAddress {
        ListenAddress::Address(typed.parse().unwrap())
    }

    #[test]
    fn listen_address_typed_forms_parsed() {
        for (typed, expected) in [
            ("127.0.0.1:8000", address("127.0.0.1:8000")),
            ("[::1]:80", address("[::1]:80")),
            ("localhost:8000", ListenAddress::Host("localhost".to_owned(), 8_000)),
            ("Predictd.Internal:1", ListenAddress::Host("predictd.internal".to_owned(), 1)),
            ("unix:/run/predictd.sock", ListenAddress::Unix("/run/predictd.sock".into())),
        ] {
            assert_eq!(typed.parse(), Ok(expected), "{typed}");
        }
        let too_long = format!("unix:/{}", "a".repeat(MAX_SOCKET_PATH_BYTES));
        for typed in ["", "8000", "localhost", "127.0.0.1:65536", "127.0.0:1", "a b:1", "::1:x", "unix:", &too_long] {
            assert!(typed.parse::<ListenAddress>().is_err(), "{typed}");
        }
        assert_eq!("localhost:7".parse::<ListenAddress>().unwrap().resolve(), Ok(address("127.0.0.1:7")));
        for (typed, expected) in [
            ("Ops.Internal.", "ops.internal"),
            ("10.9.8.7", "10.9.8.7"),
            ("[FD00::1]", "fd00::1"),
            ("::ffff:10.9.8.7", "10.9.8.7"),
        ] {
            assert_eq!(parse_admin_host(typed).as_deref(), Ok(expected), "{typed}");
        }
        for typed in ["", ".", "a b", "http://a"] {
            assert!(parse_admin_host(typed).is_err(), "{typed}");
        }
        let nowhere = "no-such-host.invalid:7".parse::<ListenAddress>().unwrap().resolve().unwrap_err();
        assert!(nowhere.starts_with("no-such-host.invalid:7: the host name cannot be resolved"), "{nowhere}");
    }
}
