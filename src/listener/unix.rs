//! Unix stream sockets at a path, for listeners and for the admin API.
//!
//! Replaces only a socket that refuses connections; any other file at the path is kept. No call blocks.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// The requested backlog, capped by `net.core.somaxconn`: it must hold a burst while the worker is busy.
pub(super) const BACKLOG: i32 = 4096;

/// Attempts to lock a directory. Another ambassador holds the lock for microseconds.
const LOCK_ATTEMPTS: usize = 1_000;

/// The path of a bound socket. Dropping it removes the path, unless another process has replaced it.
#[derive(Debug)]
pub(crate) struct UnixPath {
    path: PathBuf,
    /// Device and inode number: unique while the socket is open, because a bound socket keeps its inode.
    inode: (u64, u64),
}

/// Binds and listens. With `mode`, the path has exactly this mode from the moment it exists; otherwise the umask applies.
///
/// # Errors
///
/// Fails with `AddrInUse`, naming what is at the path, if that is not a dead socket.
pub(crate) fn bind(path: &Path, mode: Option<Mode>) -> io::Result<(OwnedFd, UnixPath)> {
    let _lock = lock_directory(path);
    remove_dead_socket(path)?;
    let fd = socket()?;
    if let Some(mode) = mode {
        // On Linux the path takes the mode of the socket's own inode (unix_bind_bsd in net/unix/af_unix.c).
        rustix::fs::fchmod(&fd, mode)?;
    }
    match rustix::net::bind(&fd, &SocketAddrUnix::new(path)?) {
        Err(Errno::ADDRINUSE) => return Err(in_use("another program listens there: stop it")),
        bound => bound?,
    }
    let path = UnixPath { path: path.to_owned(), inode: inode(&rustix::fs::lstat(path)?) };
    rustix::net::listen(&fd, BACKLOG)?;
    if !path.is_ours() {
        return Err(in_use("another program has replaced the socket: stop it"));
    }
    Ok((fd, path))
}

/// Connects without waiting.
///
/// # Errors
///
/// Fails with `EAGAIN` if the backlog of the server is full.
pub(crate) fn connect(addr: &SocketAddrUnix) -> Result<OwnedFd, Errno> {
    let fd = socket()?;
    rustix::net::connect(&fd, addr)?;
    Ok(fd)
}

fn socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Locks the directory of `path`, so that an ambassador that starts at the same time does not mistake a socket that is bound and not
/// listening yet for a dead one. Returns `None` if the directory cannot be locked; then only that race is possible.
fn lock_directory(path: &Path) -> Option<OwnedFd> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir =
        rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    for _ in 0..LOCK_ATTEMPTS {
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(dir),
            Err(Errno::WOULDBLOCK) => std::thread::yield_now(),
            Err(_) => return None,
        }
    }
    None
}

fn remove_dead_socket(path: &Path) -> io::Result<()> {
    let found = match rustix::fs::lstat(path) {
        Err(Errno::NOENT) => return Ok(()),
        found => found?,
    };
    if let Some(what) = obstacle(&found) {
        return Err(in_use(&format!("{what} is there and is kept: remove it")));
    }
    match connect(&SocketAddrUnix::new(path)?) {
        // A file moved here in the meantime would be deleted; moving it requires the permission to delete it.
        Err(Errno::CONNREFUSED) => Ok(rustix::fs::unlink(path)?),
        Err(Errno::NOENT) => Ok(()),
        Ok(_) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(in_use("another program listens there: stop it")),
        Err(error) => Err(error.into()),
    }
}

/// Returns what is at the path if it is not a socket.
fn obstacle(found: &Stat) -> Option<&'static str> {
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Socket => None,
        FileType::RegularFile => Some("a regular file"),
        FileType::Directory => Some("a directory"),
        FileType::Symlink => Some("a symbolic link"),
        FileType::Fifo => Some("a FIFO"),
        _ => Some("a device"),
    }
}

fn in_use(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, format!("{why}, or choose another path"))
}

fn inode(found: &Stat) -> (u64, u64) {
    (found.st_dev, found.st_ino)
}

impl UnixPath {
    fn is_ours(&self) -> bool {
        rustix::fs::lstat(&self.path).is_ok_and(|found| inode(&found) == self.inode)
    }
}

impl Drop for UnixPath {
    fn drop(&mut self) {
        if self.is_ours() {
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn one_of_many_concurrent_binds_succeeds_with_and_without_a_dead_socket() {
        const THREADS: usize = 4;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        for round in 0..200 {
            if round % 2 == 0 {
                drop(UnixListener::bind(&path).unwrap());
            }
            let barrier = Barrier::new(THREADS);
            let bound: Vec<_> = thread::scope(|scope| {
                let bind = || {
                    barrier.wait();
                    bind(&path, None)
                };
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(bind)).collect();
                threads.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect()
            });
            assert_eq!(bound.len(), 1, "round {round}");
            connect(&SocketAddrUnix::new(&path).unwrap()).unwrap();
            drop(bound);
            assert!(!path.exists());
        }
    }

    #[test]
    fn directory_locked_by_another_program_does_not_prevent_binding() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let _theirs = lock_directory(&path).unwrap();
        bind(&path, None).unwrap();
    }
}
