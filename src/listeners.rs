//! The sockets of a server: bound before anything is loaded, so that a port that is taken is told at once.

use std::net::{SocketAddr, TcpListener};

use tokio::net::TcpSocket;

use crate::RunError;
use crate::config::{Accept, Settings};

/// Connections that wait to be accepted; the system may allow fewer. The usual 128 overflow in a burst, and who comes
/// then tries again a second later.
const BACKLOG: u32 = 4_096;

/// The sockets of a server, bound.
#[derive(Debug)]
pub struct Listeners {
    /// For everybody.
    pub data: Entrance,
    /// For probes and operators.
    pub admin: TcpListener,
}

/// The data listener: it takes connections, or will.
#[derive(Debug)]
pub enum Entrance {
    /// It takes them.
    Open(TcpListener),
    /// It refuses them until it is opened.
    Closed(TcpSocket),
}

impl Entrance {
    /// Its address.
    ///
    /// # Errors
    /// That of the system.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        match self {
            Self::Open(listener) => listener.local_addr(),
            Self::Closed(socket) => socket.local_addr(),
        }
    }

    /// True if it takes connections.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// Opens it if it is closed.
    ///
    /// # Errors
    /// That of the system; another process may have opened a socket of the same address meanwhile.
    pub fn open(self) -> std::io::Result<tokio::net::TcpListener> {
        match self {
            Self::Open(listener) => tokio::net::TcpListener::from_std(listener),
            Self::Closed(socket) => socket.listen(BACKLOG),
        }
    }
}

impl Listeners {
    /// Binds both. To be called in a tokio runtime.
    ///
    /// # Errors
    /// [`RunError::Failed`] that names the option.
    pub fn bind(settings: &Settings) -> Result<Self, RunError> {
        let (listen, admin_listen) = (settings.listen, settings.admin_listen);
        let data = bound(listen).and_then(|socket| match settings.accept {
            Accept::Start => Ok(Entrance::Open(socket.listen(BACKLOG)?.into_std()?)),
            Accept::Ready => Ok(Entrance::Closed(socket)),
        });
        let admin = bound(admin_listen).and_then(|socket| socket.listen(BACKLOG)?.into_std());
        let named = |option: &str, address: SocketAddr, error: std::io::Error| {
            RunError::Failed(format!("{option} {address}: {error}"))
        };
        Ok(Self {
            data: data.map_err(|error| named("--listen", listen, error))?,
            admin: admin.map_err(|error| named("--admin-listen", admin_listen, error))?,
        })
    }
}

fn bound(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A port whose last connections are still being forgotten can be used again.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
