//! Where the admin API is: chosen and bound. `find` is the other end.

use std::fmt;
use std::io;
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

/// Where a service of the system keeps its sockets (FHS 3.0, /run). Only root and those whom root lets may write there.
pub(super) const SYSTEM_PATH: &str = "/run/ambassador/admin.sock";
/// Below `XDG_RUNTIME_DIR`.
const USER_PATH: &str = "ambassador/admin.sock";
/// What abstract names (unix(7)) begin with, for a process that can write no directory. They belong to the network
/// namespace: several ambassadors may share it, so each has a name of its own.
pub(super) const ABSTRACT_PREFIX: &str = "ambassador/admin/";

/// The admin addresses to bind, or to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub(super) given: Option<AdminAddr>,
    /// The first of these that can be had, else an abstract socket.
    pub(super) defaults: Vec<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the admin address {what}: {source}")]
pub struct BindError {
    what: String,
    source: io::Error,
}

pub(super) enum AdminListener {
    Path {
        /// Before the listener: see `Listener`.
        _path: UnixPath,
        listener: UnixListener,
    },
    /// Answers its own user and root only: an abstract socket has no file and so no permissions.
    Abstract(UnixListener),
    Tcp(TcpListener),
}

impl Choice {
    pub fn of(config: &Config) -> Choice {
        Choice::new(config.settings.admin.clone(), config.runtime_dir.as_deref())
    }

    pub fn new(given: Option<AdminAddr>, runtime_dir: Option<&Path>) -> Choice {
        let user = runtime_dir.map(|dir| dir.join(USER_PATH));
        Choice { given, defaults: std::iter::once(PathBuf::from(SYSTEM_PATH)).chain(user).collect() }
    }
}

/// Where an ambassador is looked for.
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

/// TCP comes beside the default unix socket and not instead of it, so that the verbs find the ambassador all the same.
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
        AdminAddr::Tcp(addr) => {
            let listener = std::net::TcpListener::bind(addr)?;
            listener.set_nonblocking(true)?;
            Ok(AdminListener::Tcp(TcpListener::from_std(listener)?))
        }
    }
}

fn bind_default(paths: &[PathBuf]) -> Option<AdminListener> {
    let mut taken = None;
    for path in paths {
        if let Some(parent) = path.parent() {
            // Under any umask: clients do not check who serves in the system's directory.
            let _ = std::fs::DirBuilder::new().mode(0o755).create(parent);
        }
        match bind_path(path) {
            Ok(listener) => return Some(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                taken = Some(format!("{}: {error}", path.display()));
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "admin address not available");
            }
        }
    }
    let name = own_name();
    let bound = bind_abstract(&name);
    match (&bound, taken) {
        (Ok(_), None) => {}
        (Ok(_), Some(taken)) => tracing::warn!("admin address taken ({taken}): listening on @{name}"),
        (Err(error), _) => tracing::warn!(%error, "no admin address available; --admin names one"),
    }
    bound.ok()
}

/// The time makes it unique: processes of two containers that share a network may have the same number.
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
    /// In the words of `--admin`.
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

    /// `None` for a peer who is not to be answered.
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

/// Where permissions do not decide: our own user, and root.
pub(super) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}
