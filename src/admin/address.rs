//! Where the admin API is: chosen, bound, and found again by the verbs.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{
    SocketAddr as UnixAddr, UnixListener as StdUnixListener, UnixStream as StdUnixStream,
};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::{AdminAddr, Config};

/// Where a service of the system keeps its sockets (FHS 3.0, /run).
const SYSTEM_PATH: &str = "/run/ambassador/admin.sock";
/// Below `XDG_RUNTIME_DIR`.
const USER_PATH: &str = "ambassador/admin.sock";
/// The abstract name (unix(7)), for a process that can write no directory. It belongs to the network namespace, so in a
/// container it is the container's own.
const ABSTRACT_NAME: &[u8] = b"ambassador/admin";

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    Given(AdminAddr),
    /// The first of these that can be written, else the abstract socket.
    Default(Vec<PathBuf>),
}

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the admin address {what}: {source}")]
pub struct BindError {
    what: String,
    source: io::Error,
}

pub(super) enum AdminListener {
    Path(UnixListener, PathBuf),
    /// Answers its own user only: an abstract socket has no file and so no permissions.
    Abstract(UnixListener),
    Tcp(TcpListener),
}

/// One connection, either end, over any of the transports.
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Choice {
    pub fn of(config: &Config) -> Choice {
        Choice::new(config.admin.clone(), config.runtime_dir.as_deref())
    }

    pub fn new(given: Option<AdminAddr>, runtime_dir: Option<&Path>) -> Choice {
        match given {
            Some(addr) => Choice::Given(addr),
            None => {
                let user = runtime_dir.map(|dir| dir.join(USER_PATH));
                Choice::Default(std::iter::once(PathBuf::from(SYSTEM_PATH)).chain(user).collect())
            }
        }
    }
}

pub(super) fn bind(choice: &Choice) -> Result<Option<AdminListener>, BindError> {
    match choice {
        Choice::Given(addr) => {
            bind_given(addr).map(Some).map_err(|source| BindError { what: addr.to_string(), source })
        }
        Choice::Default(paths) => Ok(bind_default(paths)),
    }
}

fn bind_given(addr: &AdminAddr) -> io::Result<AdminListener> {
    match addr {
        AdminAddr::Unix(path) => Ok(AdminListener::Path(bind_path(path)?, path.clone())),
        AdminAddr::Tcp(addr) => {
            let listener = std::net::TcpListener::bind(addr)?;
            listener.set_nonblocking(true)?;
            Ok(AdminListener::Tcp(TcpListener::from_std(listener)?))
        }
    }
}

fn bind_default(paths: &[PathBuf]) -> Option<AdminListener> {
    for path in paths {
        if let Some(parent) = path.parent() {
            let _ = std::fs::create_dir(parent);
        }
        match bind_path(path) {
            Ok(listener) => return Some(AdminListener::Path(listener, path.clone())),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return in_use(&path.display().to_string());
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "not the place for the admin socket");
            }
        }
    }
    match bind_abstract() {
        Ok(listener) => Some(AdminListener::Abstract(listener)),
        Err(error) => in_use(&format!("the abstract socket: {error}")),
    }
}

fn in_use(what: &str) -> Option<AdminListener> {
    tracing::warn!(
        "another ambassador has the admin address {what}: this one runs without; --admin gives it its own"
    );
    None
}

/// A socket file that nobody answers on is a dead process's: it is replaced.
fn bind_path(path: &Path) -> io::Result<UnixListener> {
    match StdUnixStream::connect(path) {
        Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = StdUnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn bind_abstract() -> io::Result<UnixListener> {
    let listener = StdUnixListener::bind_addr(&UnixAddr::from_abstract_name(ABSTRACT_NAME)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

impl AdminListener {
    /// `None` for a peer who is not to be answered.
    pub(super) async fn accept(&self) -> io::Result<Option<Stream>> {
        match self {
            AdminListener::Path(listener, _) => Ok(Some(Stream::Unix(listener.accept().await?.0))),
            AdminListener::Tcp(listener) => Ok(Some(Stream::Tcp(listener.accept().await?.0))),
            AdminListener::Abstract(listener) => {
                let (stream, _) = listener.accept().await?;
                let own = stream.peer_cred()?.uid() == rustix::process::geteuid().as_raw();
                Ok(own.then_some(Stream::Unix(stream)))
            }
        }
    }
}

impl Drop for AdminListener {
    fn drop(&mut self) {
        if let AdminListener::Path(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Connects as a client: to the given address, or to the first default one that answers.
pub(super) async fn connect(choice: &Choice) -> io::Result<Stream> {
    match choice {
        Choice::Given(AdminAddr::Unix(path)) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
        Choice::Given(AdminAddr::Tcp(addr)) => Ok(Stream::Tcp(TcpStream::connect(addr).await?)),
        Choice::Default(paths) => {
            for path in paths {
                if let Ok(stream) = UnixStream::connect(path).await {
                    return Ok(Stream::Unix(stream));
                }
            }
            let stream = StdUnixStream::connect_addr(&UnixAddr::from_abstract_name(ABSTRACT_NAME)?)?;
            stream.set_nonblocking(true)?;
            Ok(Stream::Unix(UnixStream::from_std(stream)?))
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl std::fmt::Display for AdminAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AdminAddr::Unix(path) => write!(f, "unix:{}", path.display()),
            AdminAddr::Tcp(addr) => write!(f, "{addr}"),
        }
    }
}
