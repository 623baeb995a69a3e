//! The addresses of the admin API: chosen and bound. `client::find` is the client's side.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener as StdUnixListener};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::Mode;
use tokio::net::{TcpListener, UnixListener};

use super::wire::Stream;
use crate::config::{AdminAddr, Config};
use crate::listener::unix::{self, UnixPath};

/// The directory for sockets of system services (FHS 3.0, /run), which only root can write to by default.
pub(super) const SYSTEM_PATH: &str = "/run/ambassador/admin.sock";
/// Relative to `XDG_RUNTIME_DIR`.
const USER_PATH: &str = "ambassador/admin.sock";
/// Prefix of the abstract names (unix(7)) of a process that can write to neither directory. Abstract names belong to the
/// network namespace, which several ambassadors may share, so each has a name of its own.
pub(super) const ABSTRACT_PREFIX: &str = "ambassador/admin/";

/// The admin addresses to bind, or to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(super) given: Option<AdminAddr>,
    /// The first of these that is available is used, or else an abstract socket.
    pub(super) defaults: Vec<PathBuf>,
}

/// An admin address that was configured cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the admin address {what}: {source}")]
pub struct BindError {
    what: String,
    source: io::Error,
}

pub(super) enum AdminListener {
    Path {
        /// Dropped before the listener: see `Listener`.
        _path: UnixPath,
        listener: UnixListener,
    },
    /// Serves only the same user and root: an abstract socket has no file, and so no permissions.
    Abstract(UnixListener),
    Tcp(TcpListener),
}

impl Choice {
    /// Returns the addresses of a configuration.
    pub(crate) fn of(config: &Config) -> Choice {
        Choice::new(config.settings.admin.clone(), config.runtime_dir.as_deref())
    }

    /// Returns the given address, and the default addresses of a user with this `XDG_RUNTIME_DIR`.
    pub(crate) fn new(given: Option<AdminAddr>, runtime_dir: Option<&Path>) -> Choice {
        let user = runtime_dir.map(|dir| dir.join(USER_PATH));
        Choice { given, defaults: std::iter::once(PathBuf::from(SYSTEM_PATH)).chain(user).collect() }
    }
}

/// The addresses at which an ambassador is searched.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.given {
            Some(given) => given.fmt(f),
            None => {
                let paths: Vec<String> =
                    self.defaults.iter().map(|path| format!("unix:{}", path.display())).collect();
                f.write_str(&paths.join(" or "))
            }
        }
    }
}

/// Binds the configured address, or a default one. With TCP a default one as well, so that the commands find the ambassador
/// without an option.
pub(super) fn bind(choice: &Choice) -> Result<Vec<AdminListener>, BindError> {
    let given = choice
        .given
        .as_ref()
        .map(|addr| bind_given(addr).map_err(|source| BindError { what: addr.to_string(), source }));
    let given = given.transpose()?;
    let default = match choice.given {
        None | Some(AdminAddr::Tcp(_)) => bind_default(&choice.defaults),
        Some(AdminAddr::Unix(_) | AdminAddr::Abstract(_)) => None,
    };
    Ok(given.into_iter().chain(default).collect())
}

fn bind_given(addr: &AdminAddr) -> io::Result<AdminListener> {
    match addr {
        AdminAddr::Unix(path) => bind_path(path),
        AdminAddr::Abstract(name) => bind_abstract(name),
        AdminAddr::Tcp(addr) => bind_tcp(*addr).map(AdminListener::Tcp),
    }
}

/// Binds a TCP address.
pub(crate) fn bind_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn bind_default(paths: &[PathBuf]) -> Option<AdminListener> {
    let mut in_use = None;
    for path in paths {
        if let Some(parent) = path.parent() {
            // The mode applies under any umask: clients do not check the user of a server in the system's directory.
            let _ = std::fs::DirBuilder::new().mode(0o755).create(parent);
        }
        match bind_path(path) {
            Ok(listener) => return Some(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                in_use = Some(format!("{}: {error}", path.display()));
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "admin address not available");
            }
        }
    }
    let name = own_name();
    let bound = bind_abstract(&name);
    match (&bound, in_use) {
        (Ok(_), None) => {}
        (Ok(_), Some(in_use)) => tracing::warn!("admin address in use ({in_use}); listening on @{name}"),
        (Err(error), _) => tracing::warn!(%error, "no admin address available; set one with --admin"),
    }
    bound.ok()
}

/// Returns an abstract name. The time makes it unique: processes of two containers that share a network namespace may have the
/// same process ID.
fn own_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{ABSTRACT_PREFIX}{}.{}", std::process::id(), now.subsec_nanos())
}

fn bind_path(path: &Path) -> io::Result<AdminListener> {
    let (fd, path) = unix::bind(path, Some(Mode::RUSR | Mode::WUSR))?;
    Ok(AdminListener::Path { _path: path, listener: registered(fd)? })
}

fn bind_abstract(name: &str) -> io::Result<AdminListener> {
    let listener = StdUnixListener::bind_addr(&UnixAddr::from_abstract_name(name)?)?;
    Ok(AdminListener::Abstract(registered(listener.into())?))
}

fn registered(fd: OwnedFd) -> io::Result<UnixListener> {
    let listener = StdUnixListener::from(fd);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

impl AdminListener {
    /// Returns the bound address.
    pub(super) fn addr(&self) -> io::Result<AdminAddr> {
        let listener = match self {
            AdminListener::Tcp(listener) => return listener.local_addr().map(AdminAddr::Tcp),
            AdminListener::Path { listener, .. } | AdminListener::Abstract(listener) => listener,
        };
        let addr = UnixAddr::from(listener.local_addr()?);
        let name = addr.as_abstract_name().map(|name| String::from_utf8_lossy(name).into_owned());
        Ok(match name {
            Some(name) => AdminAddr::Abstract(name),
            None => AdminAddr::Unix(addr.as_pathname().map(Path::to_owned).unwrap_or_default()),
        })
    }

    /// Accepts a connection. Returns `None` for a peer that is not served.
    pub(super) async fn accept(&self) -> io::Result<Option<Stream>> {
        match self {
            AdminListener::Path { listener, .. } => Ok(Some(Stream::Unix(listener.accept().await?.0))),
            AdminListener::Tcp(listener) => Ok(Some(Stream::Tcp(listener.accept().await?.0))),
            AdminListener::Abstract(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(is_trusted(stream.peer_cred()?.uid()).then_some(Stream::Unix(stream)))
            }
        }
    }
}

/// Returns whether a peer is served where no permissions apply: the same user, and root.
pub(super) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}
