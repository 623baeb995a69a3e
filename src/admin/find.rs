//! The running ambassador, found by the verbs: at the address that was given, else at one of the default addresses.
//!
//! Other users can take abstract names and names in the user's directory: a server there is used only if it runs as our own
//! user or as root. Of several ambassadors, those in our own PID namespace, which is our container, are preferred.

use std::io;

use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use tokio::net::{TcpStream, UnixStream};

use super::address::{ABSTRACT_PREFIX, Choice, SYSTEM_PATH, is_trusted};
use super::client::ClientError;
use super::wire::Stream;
use crate::config::AdminAddr;
use crate::listener::unix;

/// The kernel's list of unix sockets, proc(5), those of other users included.
const SOCKETS: &str = "/proc/net/unix";

/// An ambassador that answers.
struct Found {
    at: AdminAddr,
    stream: UnixStream,
    /// In our PID namespace; elsewhere the kernel shows its process as 0.
    is_near: bool,
}

/// Connects to the given address, or to the only ambassador at the default ones.
pub(super) async fn connect(choice: &Choice) -> Result<Stream, ClientError> {
    let stream = match &choice.given {
        None => Ok(Stream::Unix(only(choice)?)),
        Some(AdminAddr::Tcp(addr)) => TcpStream::connect(addr).await.map(Stream::Tcp),
        // Not checked: the path was given, and its directory has permissions.
        Some(AdminAddr::Unix(path)) => UnixStream::connect(path).await.map(Stream::Unix),
        Some(at @ AdminAddr::Abstract(_)) => try_connect(at.clone()).map(|found| Stream::Unix(found.stream)),
    };
    stream.map_err(|error| ClientError::Unreachable { at: choice.clone(), error })
}

fn only(choice: &Choice) -> Result<UnixStream, ClientError> {
    let sockets = std::fs::read(SOCKETS).unwrap_or_default();
    let paths = choice.defaults.iter().cloned().map(AdminAddr::Unix);
    let mut found = Vec::new();
    let mut failure = io::Error::from(Errno::NOENT);
    for at in paths.chain(abstract_names(&sockets)) {
        match try_connect(at) {
            Ok(one) => found.push(one),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => failure = error,
        }
    }
    if found.iter().any(|one| one.is_near) {
        found.retain(|one| one.is_near);
    }
    if found.len() > 1 {
        return Err(ClientError::Several(found.iter().map(|one| one.at.to_string()).collect()));
    }
    let nowhere = || ClientError::Unreachable { at: choice.clone(), error: failure };
    found.pop().map(|one| one.stream).ok_or_else(nowhere)
}

/// The error says whose server is refused.
fn try_connect(at: AdminAddr) -> io::Result<Found> {
    let addr = match &at {
        AdminAddr::Unix(path) => SocketAddrUnix::new(path)?,
        AdminAddr::Abstract(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
        AdminAddr::Tcp(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    let stream = UnixStream::from_std(unix::connect(&addr)?.into())?;
    let peer = stream.peer_cred()?;
    if at != AdminAddr::Unix(SYSTEM_PATH.into()) && !is_trusted(peer.uid()) {
        let why = format!("{at} belongs to uid {}, neither ours nor root's", peer.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(Found { at, stream, is_near: peer.pid().is_some_and(|pid| pid != 0) })
}

/// Those of ambassadors: in each line of the table the last word, where `@` stands for the zero byte.
fn abstract_names(table: &[u8]) -> Vec<AdminAddr> {
    let names = table.split(|byte| *byte == b'\n').filter_map(|line| {
        let (_, name) = std::str::from_utf8(line).ok()?.rsplit_once(" @")?;
        let own = name.strip_prefix(ABSTRACT_PREFIX)?;
        let is_ours = !own.is_empty() && own.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        is_ours.then(|| AdminAddr::Abstract(name.to_owned()))
    });
    // Each connection of a server has a line with the same name.
    let mut names: Vec<AdminAddr> = names.collect();
    names.sort_by_key(ToString::to_string);
    names.dedup();
    names
}

/// What the fuzz targets feed: the kernel's table, with other users' names in it.
pub(super) fn read_any(table: &[u8]) {
    let _ = abstract_names(table);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_names_each_ambassador_once() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0: 00000002 00000000 00010000 0001 01 9 @ambassador/admin/7.42\n\
            0: 00000003 00000000 00000000 0001 03 8 @ambassador/admin/7.42\n\
            0: 00000002 00000000 00010000 0001 01 7 /run/ambassador/admin.sock\n\
            0: 00000002 00000000 00010000 0001 01 6 @ambassador/admin/\n\
            0: 00000002 00000000 00010000 0001 01 6 @ambassador/admin/1 \x1b[2J\n\
            0: 00000002 00000000 00010000 0001 01 5 @ambassador/admin/\xff\n\
            0: 00000003 00000000 00000000 0001 03 4\n";
        assert_eq!(abstract_names(table), [AdminAddr::Abstract("ambassador/admin/7.42".to_owned())]);
    }
}
