//! The sockets of a server: bound before anything is loaded, so that a port that is taken is told at once.

use std::net::{SocketAddr, TcpListener};

use tokio::net::TcpSocket;

use crate::RunError;
use crate::config::Settings;

/// Connections that wait to be accepted; the system may allow fewer. The usual 128 overflow in a burst, and who comes
/// then tries again a second later.
const BACKLOG: u32 = 4_096;

/// The sockets of a server, bound.
#[derive(Debug)]
pub struct Listeners {
    /// For everybody.
    pub data: TcpListener,
    /// For probes and operators.
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds both. To be called in a tokio runtime.
    ///
    /// # Errors
    /// [`RunError::Failed`] that names the option.
    pub fn bind(settings: &Settings) -> Result<Self, RunError> {
        let named = |option: &str, address: SocketAddr| {
            listen(address).map_err(|error| RunError::Failed(format!("{option} {address}: {error}")))
        };
        Ok(Self { data: named("--listen", settings.listen)?, admin: named("--admin-listen", settings.admin_listen)? })
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A port whose last connections are still being forgotten can be used again.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}
