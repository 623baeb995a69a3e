//! Unix socket paths: which are bound, replaced or left alone.

use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, inotify};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Signal;

use crate::admin::service::service;
use crate::support::{Ambassador, eventually};

/// A refusal takes milliseconds; a blocking connect never returns.
const LIMIT: Duration = Duration::from_secs(20);

type Make = fn(&Path);

/// Objects at a path that are not stale sockets, as the error names them.
const OBSTACLES: [(&str, Make); 4] = [
    ("a regular file", |path| std::fs::write(path, "precious").unwrap()),
    ("a FIFO", |path| rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap()),
    ("a directory", |path| std::fs::create_dir(path).unwrap()),
    ("a symbolic link", |path| {
        let dead = path.with_extension("dead");
        drop(UnixListener::bind(&dead).unwrap());
        symlink(dead, path).unwrap();
    }),
];

fn inode(path: &Path) -> Option<(u64, u32)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.ino(), found.mode()))
}

/// Starts an ambassador with this path as its listener, and one with it as its admin address.
fn uses(path: &Path) -> [Ambassador; 2] {
    let as_listener = Ambassador::with(&format!("{}=127.0.0.1:1", path.display()));
    let as_admin = Ambassador::with(&format!("--admin {} 127.0.0.1:0=127.0.0.1:1", path.display()));
    [as_listener.spawn(), as_admin.spawn()]
}

fn is_refused(mut ambassador: Ambassador, path: &Path, says: &str) {
    let status = ambassador.ends_within(LIMIT);
    let log = eventually("the reason", || {
        let log = ambassador.log();
        if log.contains(says) { Ok(log) } else { Err(log) }
    });
    assert_eq!(status.code(), Some(69), "{log}");
    assert!(log.contains(path.to_str().unwrap()) && log.contains("choose another path"), "{log}");
}

#[test]
fn files_at_a_socket_path_are_never_deleted() {
    for (what, make) in OBSTACLES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        make(&path);
        let before = inode(&path);
        for ambassador in uses(&path) {
            is_refused(ambassador, &path, what);
            assert_eq!(inode(&path), before, "{what}");
        }
    }
}

#[test]
fn dead_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (listen, admin) = (dir.path().join("listen.sock"), dir.path().join("admin.sock"));
    drop((UnixListener::bind(&listen).unwrap(), UnixListener::bind(&admin).unwrap()));
    let args = format!("--admin {} {}={}", admin.display(), listen.display(), service("one"));
    let mut ambassador = Ambassador::with(&args).spawn();
    let mut name = [0; 3];
    eventually("a greeting", || UnixStream::connect(&listen)?.read_exact(&mut name));
    eventually("the admin socket", || UnixStream::connect(&admin));
    ambassador.signal(Signal::TERM);
    ambassador.ends_within(LIMIT);
    assert_eq!((inode(&listen), inode(&admin)), (None, None), "removed at the end");
}

/// A server that accepts no connection and whose backlog is full.
fn hanging_server(path: &Path) -> Vec<OwnedFd> {
    let socket = || {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
    };
    let addr = SocketAddrUnix::new(path).unwrap();
    let mut held = vec![socket()];
    rustix::net::bind(&held[0], &addr).unwrap();
    rustix::net::listen(&held[0], 0).unwrap();
    loop {
        held.push(socket());
        match rustix::net::connect(&held[held.len() - 1], &addr) {
            Ok(()) => {}
            Err(Errno::AGAIN) => return held,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn hanging_server_at_a_socket_path_does_not_block() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wedged.sock");
    let _held = hanging_server(&path);
    let before = inode(&path);
    for ambassador in uses(&path) {
        is_refused(ambassador, &path, "another program listens there");
    }
    let ambassador = Ambassador::with("127.0.0.1:0=127.0.0.1:1").start();
    let added = ambassador.verb(&format!("routes add {}=127.0.0.1:1", path.display()));
    let why = String::from_utf8_lossy(&added.stderr);
    assert!(added.status.code() == Some(69) && why.contains("another program listens there"), "{why}");
    assert!(ambassador.verb("health").status.success());
    assert_eq!(inode(&path), before);
}

#[test]
fn socket_path_that_another_process_replaced_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (listen, admin) = (dir.path().join("listen.sock"), dir.path().join("admin.sock"));
    let args = format!("--admin {} {}=127.0.0.1:1", admin.display(), listen.display());
    let mut ambassador = Ambassador::with(&args).spawn();
    let theirs = [&listen, &admin].map(|path| {
        eventually("its socket", || UnixStream::connect(path));
        std::fs::remove_file(path).unwrap();
        let listener = UnixListener::bind(path).unwrap();
        (path, inode(path), listener)
    });
    ambassador.signal(Signal::TERM);
    assert_eq!(ambassador.ends_within(LIMIT).code(), Some(0));
    for (path, before, _listener) in theirs {
        assert_eq!(inode(path), before, "{}", path.display());
    }
}

/// A change of mode after the bind would be an event, so another mode cannot be missed.
#[test]
fn admin_socket_is_private_from_its_first_moment_under_umask_0() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let flags = inotify::WatchFlags::CREATE | inotify::WatchFlags::ATTRIB | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, dir.path(), flags).unwrap();
    let mut process = Command::new("/bin/sh")
        .args(["-c", "umask 0; exec \"$0\" --admin \"$1\" 127.0.0.1:0=127.0.0.1:1"])
        .args([env!("CARGO_BIN_EXE_ambassador"), path.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the admin socket", || UnixStream::connect(&path));
    let mode = path.metadata().unwrap().permissions().mode() & 0o777;
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(mode, 0o600);
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(watch, &mut buffer);
    let events: Vec<_> = std::iter::from_fn(|| reader.next().ok().map(|event| event.events())).collect();
    assert_eq!(events, [inotify::ReadFlags::CREATE]);
}
