//! The sockets of a server: bound before anything is loaded, so that a port in use is reported at once.

use std::fmt::{self, Display, Formatter};
use std::fs::{self, Permissions};
use std::io::{self, Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio_util::either::Either;

use super::listen_address::{ListenAddress, UNIX_PREFIX};
use super::settings::{AcceptMode, AccessSettings};

/// Connections that wait to be accepted; the system may allow fewer. The usual 128 overflow in a burst, and further
/// clients then retry after a second.
const BACKLOG: u32 = 4_096;
/// Mode of the data listener's Unix socket: the server's user and group may connect.
const DATA_SOCKET_MODE: u32 = 0o660;
/// Mode of the admin listener's Unix socket: the server's user may connect.
const ADMIN_SOCKET_MODE: u32 = 0o600;

/// The sockets of a server, bound.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub data: DataListener,
    /// For probes and operators.
    pub admin: Listener,
}

/// The data listener: it takes connections, or will.
#[derive(Debug)]
pub enum DataListener {
    /// It takes them.
    Open(Listener),
    /// It refuses them until it is opened.
    Closed(TcpSocket),
    /// The Unix socket is made when it is opened.
    Unbound(PathBuf),
}

/// A socket that takes connections.
#[derive(Debug)]
pub enum Listener {
    /// At an address.
    Tcp(TcpListener),
    /// At a path.
    Unix(UnixListener, SocketFile),
}

/// A connection.
pub type ClientStream = Either<TcpStream, UnixStream>;

/// The file of a Unix socket. It is removed when this is dropped, unless another file has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and number of the file.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if file_identity(&self.path).is_some_and(|identity| identity == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "socket file could not be removed");
        }
    }
}

impl DataListener {
    /// True if it takes connections.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// Opens it if it is closed.
    ///
    /// # Errors
    /// That of the system, for example if another process listens on the address.
    pub fn open(self) -> io::Result<Listener> {
        match self {
            Self::Open(listener) => Ok(listener),
            Self::Closed(socket) => Ok(Listener::Tcp(socket.listen(BACKLOG)?)),
            Self::Unbound(path) => bind_unix(&path, DATA_SOCKET_MODE),
        }
    }
}

impl Display for DataListener {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(listener) => listener.fmt(f),
            Self::Closed(socket) => fmt_address(socket.local_addr(), f),
            Self::Unbound(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

impl Display for Listener {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => fmt_address(listener.local_addr(), f),
            Self::Unix(_, file) => write!(f, "{UNIX_PREFIX}{}", file.path.display()),
        }
    }
}

fn fmt_address(address: io::Result<SocketAddr>, f: &mut Formatter<'_>) -> fmt::Result {
    match address {
        Ok(address) => address.fmt(f),
        Err(error) => error.fmt(f),
    }
}

impl Listener {
    /// The same in the runtime that this is called in.
    ///
    /// # Errors
    /// That of the system.
    pub fn into_current_runtime(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener.into_std()?)?),
            Self::Unix(listener, file) => Self::Unix(UnixListener::from_std(listener.into_std()?)?, file),
        })
    }

    /// The next connection, with the address of its other end: loopback for a Unix socket.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(ClientStream, IpAddr)>> {
        match self {
            Self::Tcp(listener) => listener.poll_accept(cx).map_ok(|(stream, peer)| (Either::Left(stream), peer.ip())),
            Self::Unix(listener, _) => {
                listener.poll_accept(cx).map_ok(|(stream, _)| (Either::Right(stream), Ipv4Addr::LOCALHOST.into()))
            }
        }
    }
}

impl Listeners {
    /// Binds both. To be called in a tokio runtime.
    ///
    /// # Errors
    /// A sentence that names the option.
    pub fn bind(settings: &AccessSettings) -> Result<Self, String> {
        let data = match (&settings.listen, settings.accept_mode) {
            (ListenAddress::Unix(path), AcceptMode::Ready) => Ok(DataListener::Unbound(path.clone())),
            (listen, AcceptMode::Start) => bind_listener(listen, DATA_SOCKET_MODE).map(DataListener::Open),
            (listen, AcceptMode::Ready) => bind_tcp(listen).map(DataListener::Closed),
        };
        let admin = bind_listener(&settings.admin_listen, ADMIN_SOCKET_MODE);
        Ok(Self {
            data: data.map_err(|error| format!("--listen {}: {error}", settings.listen))?,
            admin: admin.map_err(|error| format!("--admin-listen {}: {error}", settings.admin_listen))?,
        })
    }
}

fn bind_listener(listen: &ListenAddress, mode: u32) -> io::Result<Listener> {
    match listen {
        ListenAddress::Unix(path) => bind_unix(path, mode),
        listen => Ok(Listener::Tcp(bind_tcp(listen)?.listen(BACKLOG)?)),
    }
}

fn bind_tcp(listen: &ListenAddress) -> io::Result<TcpSocket> {
    let ListenAddress::Address(address) = listen else {
        return Err(Error::new(ErrorKind::InvalidInput, "the host name was not resolved"));
    };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections in TIME_WAIT must not keep the port in use.
    socket.set_reuseaddr(true)?;
    socket.bind(*address)?;
    Ok(socket)
}

/// A Unix socket at this path, which only users with these rights can connect to.
fn bind_unix(path: &Path, mode: u32) -> io::Result<Listener> {
    remove_stale_socket(path)?;
    let socket = UnixSocket::new_stream()?;
    // The file gets the socket's own mode, less what the umask takes: there is no moment in which others could connect.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(mode))?;
    socket.bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    let identity =
        file_identity(path).ok_or_else(|| Error::new(ErrorKind::NotFound, "the file of the socket is gone"))?;
    let file = SocketFile { path: path.to_owned(), identity };
    Ok(Listener::Unix(socket.listen(BACKLOG)?, file))
}

/// Removes a socket file without a listener, as a killed process leaves it.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            "there is a file that is no socket: remove it, or choose another path",
        ));
    }
    if has_listener(path)? {
        return Err(Error::new(ErrorKind::AddrInUse, "another process listens on this socket"));
    }
    fs::remove_file(path)
}

/// True if a process listens on this socket, even one that accepts nothing now.
fn has_listener(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        // So many connections wait for that process that there is no room for another one.
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Device and number of a file.
fn file_identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn remove_stale_socket_full_backlog_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let listener = socket.listen(0).unwrap();
        let _waits = std::os::unix::net::UnixStream::connect(&path).unwrap();
        // A connect that blocks would wait for an accept that never comes.
        assert_eq!(remove_stale_socket(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(listener);
        remove_stale_socket(&path).unwrap();
        assert!(!path.exists());
    }
}
