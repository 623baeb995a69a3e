//! Finds the running ambassador: at the configured address, or else at one of the default addresses.
//!
//! Other users can bind abstract names and names in the user's directory: a server there is used only if it runs as the same
//! user or as root. Of several ambassadors, those in the same PID namespace, which is the same container, are preferred.

use std::io;

use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use tokio::net::{TcpStream, UnixStream};

use super::ClientError;
use crate::admin::address::{ABSTRACT_PREFIX, Choice, SYSTEM_PATH, is_trusted};
use crate::admin::wire::Stream;
use crate::config::AdminAddr;
use crate::listener::unix;

/// The kernel's list of unix sockets, including those of other users (proc(5)).
const SOCKETS: &str = "/proc/net/unix";

/// An ambassador that accepts connections.
struct Found {
    addr: AdminAddr,
    stream: UnixStream,
    /// It runs in the same PID namespace. The kernel reports the process ID of others as 0.
    is_same_namespace: bool,
}

/// Connects to the configured address, or to the only ambassador at the default addresses.
pub(super) async fn connect(choice: &Choice) -> Result<Stream, ClientError> {
    let stream = match &choice.given {
        None => Ok(Stream::Unix(connect_default(choice)?)),
        Some(AdminAddr::Tcp(addr)) => TcpStream::connect(addr).await.map(Stream::Tcp),
        // The user of the server is not checked: the path was configured, and its directory has permissions.
        Some(AdminAddr::Unix(path)) => UnixStream::connect(path).await.map(Stream::Unix),
        Some(addr @ AdminAddr::Abstract(_)) => {
            try_connect(addr.clone()).map(|found| Stream::Unix(found.stream))
        }
    };
    stream.map_err(|error| ClientError::Unreachable { at: choice.clone(), error })
}

fn connect_default(choice: &Choice) -> Result<UnixStream, ClientError> {
    let sockets = std::fs::read(SOCKETS).unwrap_or_default();
    let paths = choice.defaults.iter().cloned().map(AdminAddr::Unix);
    let mut found = Vec::new();
    let mut failure = io::Error::from(Errno::NOENT);
    for addr in paths.chain(abstract_names(&sockets)) {
        match try_connect(addr) {
            Ok(ambassador) => found.push(ambassador),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => failure = error,
        }
    }
    if found.iter().any(|ambassador| ambassador.is_same_namespace) {
        found.retain(|ambassador| ambassador.is_same_namespace);
    }
    if found.len() > 1 {
        return Err(ClientError::Several(
            found.iter().map(|ambassador| ambassador.addr.to_string()).collect(),
        ));
    }
    let unreachable = || ClientError::Unreachable { at: choice.clone(), error: failure };
    found.pop().map(|ambassador| ambassador.stream).ok_or_else(unreachable)
}

/// Connects, and checks the user of the server where permissions do not.
fn try_connect(addr: AdminAddr) -> io::Result<Found> {
    let socket_addr = match &addr {
        AdminAddr::Unix(path) => SocketAddrUnix::new(path)?,
        AdminAddr::Abstract(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
        AdminAddr::Tcp(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    let stream = UnixStream::from_std(unix::connect(&socket_addr)?.into())?;
    let peer = stream.peer_cred()?;
    if addr != AdminAddr::Unix(SYSTEM_PATH.into()) && !is_trusted(peer.uid()) {
        let why = format!("{addr} belongs to uid {}, which is neither this user nor root", peer.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(Found { addr, stream, is_same_namespace: peer.pid().is_some_and(|pid| pid != 0) })
}

/// Returns the abstract names of ambassadors: the last word of a line of the table, with `@` in place of the zero byte.
fn abstract_names(table: &[u8]) -> Vec<AdminAddr> {
    let names = table.split(|byte| *byte == b'\n').filter_map(|line| {
        let (_, name) = std::str::from_utf8(line).ok()?.rsplit_once(" @")?;
        let own = name.strip_prefix(ABSTRACT_PREFIX)?;
        let is_ours = !own.is_empty() && own.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        is_ours.then(|| AdminAddr::Abstract(name.to_owned()))
    });
    // Each connection of a server is listed with the same name.
    let mut names: Vec<AdminAddr> = names.collect();
    names.sort_unstable_by_key(ToString::to_string);
    names.dedup();
    names
}

/// Parses the kernel's table of unix sockets, which contains names of other users.
pub(super) fn read_any(table: &[u8]) {
    let _ = abstract_names(table);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ambassador_of_the_kernels_table_is_listed_once() {
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
