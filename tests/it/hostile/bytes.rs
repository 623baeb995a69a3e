//! Bytes that are easily lost: urgent data, passed descriptors, replies sent before the request was read, and bytes
//! that arrive while the process is stopped.

use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sockopt};
use rustix::process::Signal;

use crate::support::{Ambassador, Pair, Secret, eventually, pause, skip};

/// A timeout that is reached only if a session hangs.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A blocking end of a TCP or unix connection.
struct End(OwnedFd);

impl End {
    fn of(fd: impl Into<OwnedFd>) -> End {
        let fd = fd.into();
        for timeout in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&fd, timeout, Some(TIMEOUT)).unwrap();
        }
        End(fd)
    }

    fn send(&self, bytes: &[u8], flags: SendFlags) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let sent = rustix::net::send(&self.0, rest, flags | SendFlags::NOSIGNAL).unwrap();
            rest = &rest[sent..];
        }
    }

    fn send_with_descriptor(&self, bytes: &[u8], descriptor: BorrowedFd<'_>) {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let sent = rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::empty());
        assert_eq!(sent.unwrap(), bytes.len());
    }

    fn read_exact(&self, length: usize) -> Result<Vec<u8>, String> {
        let mut all = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match rustix::io::read(&self.0, &mut all[filled..]) {
                Ok(0) => return Err(format!("FIN after {filled} of {length} bytes")),
                Ok(received) => filled += received,
                Err(error) => return Err(format!("{error} after {filled} of {length} bytes")),
            }
        }
        Ok(all)
    }

    fn finish(&self) {
        rustix::net::shutdown(&self.0, rustix::net::Shutdown::Write).unwrap();
    }
}

/// What is sent in one call.
#[derive(Clone, Copy, Debug)]
enum Piece {
    Plain(usize),
    /// Bytes of which the last is urgent.
    Urgent(usize),
}

use Piece::{Plain, Urgent};

impl Piece {
    const ALL: [Piece; 5] = [Plain(1), Plain(1_000), Plain(100_000), Urgent(1), Urgent(3)];

    fn triples() -> impl Iterator<Item = [Piece; 3]> {
        let two = |first| Piece::ALL.into_iter().map(move |second| (first, second));
        let three = |(first, second)| Piece::ALL.into_iter().map(move |third| [first, second, third]);
        Piece::ALL.into_iter().flat_map(two).flat_map(three)
    }

    /// Returns bytes that differ between the pieces of a transfer.
    fn bytes(self, index: usize) -> Vec<u8> {
        let (Plain(length) | Urgent(length)) = self;
        (0..length).map(|n| b'a' + ((n + 7 * index) % 26) as u8).collect()
    }

    fn send(self, to: &End, index: usize) {
        let flags = if matches!(self, Urgent(_)) { SendFlags::OOB } else { SendFlags::empty() };
        to.send(&self.bytes(index), flags);
    }
}

/// The timing of the pieces.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// Each when the previous one has arrived.
    OneByOne,
    AtOnce,
    /// All at once, followed by FIN.
    AtOnceWithFin,
}

fn transfer(pieces: [Piece; 3], pace: Pace, from: &End, to: &End) -> Result<(), String> {
    let all: Vec<Vec<u8>> = pieces.iter().enumerate().map(|(index, piece)| piece.bytes(index)).collect();
    let receive = |expected: &[u8]| match to.read_exact(expected.len())? {
        bytes if bytes == expected => Ok(()),
        _ => Err("other bytes than were sent".to_owned()),
    };
    if let Pace::OneByOne = pace {
        return pieces.iter().zip(&all).enumerate().try_for_each(|(index, (piece, expected))| {
            piece.send(from, index);
            receive(expected)
        });
    }
    pieces.iter().enumerate().for_each(|(index, piece)| piece.send(from, index));
    if let Pace::AtOnceWithFin = pace {
        from.finish();
    }
    receive(&all.concat())
}

fn all_transfers(connect: impl Fn() -> (End, End)) {
    let mut failed = Vec::new();
    for pace in [Pace::OneByOne, Pace::AtOnce, Pace::AtOnceWithFin] {
        for pieces in Piece::triples() {
            let (client, server) = connect();
            // Data in the other direction must not interfere.
            server.send(b"banner", SendFlags::empty());
            assert_eq!(client.read_exact(6).unwrap(), b"banner");
            for (direction, from, to) in [("up", &client, &server), ("down", &server, &client)] {
                if let Err(why) = transfer(pieces, pace, from, to) {
                    failed.push(format!("{direction} {pace:?} {pieces:?}: {why}"));
                    break;
                }
            }
            assert!(failed.len() < 3, "{}", failed.join("\n"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn tcp(route: SocketAddr, endpoint: &TcpListener) -> (End, End) {
    let client = TcpStream::connect(route).unwrap();
    let (server, _) = endpoint.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    (End::of(client), End::of(server))
}

fn unix(route: &Path, endpoint: &UnixListener) -> (End, End) {
    let client = UnixStream::connect(route).unwrap();
    let (server, _) = endpoint.accept().unwrap();
    (End::of(client), End::of(server))
}

/// Whether a route is an export of a peer.
#[derive(Clone, Copy)]
enum Via {
    Nothing,
    Tunnel,
}

/// A route, and the ambassadors of it: that of the client, then that of the service if it is another one.
struct Route {
    ambassadors: Vec<Ambassador>,
    addr: SocketAddr,
    _secret: Option<Secret>,
}

impl Via {
    fn route(self, endpoint: SocketAddr) -> Route {
        match self {
            Via::Nothing => {
                let ambassador = Ambassador::with(&format!("127.0.0.1:0={endpoint}?name=r")).start();
                let addr = ambassador.addr("r");
                Route { ambassadors: vec![ambassador], addr, _secret: None }
            }
            Via::Tunnel => {
                let Pair { exporter, dialler, addr, secret, .. } = Pair::new(&endpoint.to_string(), "", "");
                Route { ambassadors: vec![dialler, exporter], addr, _secret: Some(secret) }
            }
        }
    }
}

fn tcp_route(options: &str) -> (Ambassador, SocketAddr, TcpListener) {
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let route = format!("127.0.0.1:0={}?name=r{options}", endpoint.local_addr().unwrap());
    let ambassador = Ambassador::with(&format!("--workers 1 --log-level warn {route}")).start();
    let addr = ambassador.addr("r");
    (ambassador, addr, endpoint)
}

/// Starts an ambassador and returns the directory of its two sockets as well.
fn unix_route() -> (Ambassador, tempfile::TempDir, UnixListener) {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = UnixListener::bind(dir.path().join("service")).unwrap();
    let path = dir.path().display();
    let route = format!("{path}/route=unix:{path}/service?name=r");
    (Ambassador::with(&format!("--workers 1 --log-level warn {route}")).start(), dir, endpoint)
}

#[test]
fn urgent_data_through_a_tunnel_is_delivered_inline() {
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let route = Via::Tunnel.route(endpoint.local_addr().unwrap());
    all_transfers(|| tcp(route.addr, &endpoint));
}

#[test]
fn urgent_data_over_tcp_is_delivered_inline() {
    let (_ambassador, route, endpoint) = tcp_route("");
    all_transfers(|| tcp(route, &endpoint));
}

#[test]
fn out_of_band_bytes_over_unix_sockets_are_delivered_inline() {
    let (probe, _other) = UnixStream::pair().unwrap();
    if rustix::net::send(&probe, b"!", SendFlags::OOB).is_err() {
        skip!("this kernel has no out-of-band bytes over unix sockets");
    }
    let (_ambassador, dir, endpoint) = unix_route();
    all_transfers(|| unix(&dir.path().join("route"), &endpoint));
}

#[test]
fn descriptors_passed_with_bytes_are_closed() {
    let (_ambassador, dir, endpoint) = unix_route();
    let (client, server) = unix(&dir.path().join("route"), &endpoint);
    client.send(b"x", SendFlags::empty());
    server.read_exact(1).unwrap();
    for (from, to) in [(&client, &server), (&server, &client)] {
        for (ahead, behind) in [(0, 0), (0, 10), (10, 0), (10, 10), (100_000, 100_000)] {
            let (watched, passed) = rustix::pipe::pipe().unwrap();
            let (ahead, behind) = (vec![b'1'; ahead], vec![b'3'; behind]);
            thread::scope(|scope| {
                scope.spawn(|| {
                    from.send(&ahead, SendFlags::empty());
                    from.send_with_descriptor(b"with", passed.as_fd());
                    from.send_with_descriptor(b"again", passed.as_fd());
                    from.send(&behind, SendFlags::empty());
                });
                let expected = [&ahead[..], b"withagain", &behind].concat();
                assert_eq!(to.read_exact(expected.len()), Ok(expected));
            });
            drop(passed);
            // The last writer has closed it.
            assert_eq!(rustix::io::read(&watched, &mut [0; 1]), Ok(0));
        }
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno\n";

/// Replies to each connection after its first bytes and closes it with bytes unread.
fn refusing_server() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut first = [0; 100];
            let mut stream = stream;
            if stream.read(&mut first).is_ok_and(|length| length == 0) {
                return;
            }
            stream.write_all(ANSWER).ok();
        }
    });
    (addr, serving)
}

/// Returns the reply to a client that sends all of `body` before it reads, or as much as possible.
fn upload(to: SocketAddr, body: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(body).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    answer
}

#[test]
fn reply_to_an_unread_request_reaches_the_client() {
    upload_to_a_refusing_server(Via::Nothing);
}

#[test]
fn reply_to_an_unread_request_reaches_the_client_through_a_tunnel() {
    upload_to_a_refusing_server(Via::Tunnel);
}

fn upload_to_a_refusing_server(via: Via) {
    const ROUNDS: usize = 60;
    let (service, serving) = refusing_server();
    let route = via.route(service);
    for length in [200 << 10, 5 << 20] {
        let body = vec![b'x'; length];
        let (mut directly, mut through) = (0, 0);
        for _ in 0..ROUNDS {
            directly += usize::from(upload(service, &body) == ANSWER);
            through += usize::from(upload(route.addr, &body) == ANSWER);
        }
        assert!(through >= directly, "{through} of {ROUNDS}, directly {directly}, at {length} bytes");
    }
    drop(TcpStream::connect(service).unwrap());
    serving.join().unwrap();
}

#[test]
fn client_that_still_sends_gets_the_complete_reply() {
    let (client, _route) = send_while_stopped(Via::Nothing, 0);
    for _ in 0..500 {
        client.send(&[b'x'; 10_000], SendFlags::empty());
    }
    assert_eq!(client.read_exact(ANSWER.len()).unwrap(), ANSWER);
    assert_eq!(client.read_exact(1), Err("FIN after 0 of 1 bytes".to_owned()));
}

/// The service's ambassador may see the reset before the request, and pass it on after the reply.
#[test]
fn client_that_still_sends_gets_the_complete_reply_through_a_tunnel() {
    for index in [0, 1] {
        let (client, _route) = send_while_stopped(Via::Tunnel, index);
        for _ in 0..500 {
            let _ = rustix::net::send(&client.0, &[b'x'; 10_000], SendFlags::NOSIGNAL);
        }
        assert_eq!(client.read_exact(ANSWER.len()).unwrap(), ANSWER);
    }
}

/// Returns a client whose service has replied and closed while the ambassador with this index was stopped.
fn send_while_stopped(via: Via, index: usize) -> (End, Route) {
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let route = via.route(endpoint.local_addr().unwrap());
    let ambassador = &route.ambassadors[index];
    let (client, server) = tcp(route.addr, &endpoint);
    client.send(b"head", SendFlags::empty());
    server.read_exact(3).unwrap();
    // The process is stopped, so that the reset and more of the request arrive at the same time.
    ambassador.signal(Signal::STOP);
    server.send(ANSWER, SendFlags::empty());
    // Closing with an unread byte sends a reset.
    drop(server);
    client.send(b"body", SendFlags::empty());
    ambassador.signal(Signal::CONT);
    (client, route)
}

#[test]
fn client_of_a_service_without_a_reply_is_reset_at_once() {
    send_to_a_service_without_a_reply(Via::Nothing);
}

#[test]
fn client_of_a_service_without_a_reply_is_reset_through_a_tunnel() {
    send_to_a_service_without_a_reply(Via::Tunnel);
}

fn send_to_a_service_without_a_reply(via: Via) {
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let route = via.route(endpoint.local_addr().unwrap());
    let (client, server) = tcp(route.addr, &endpoint);
    client.send(&[b'x'; 1000], SendFlags::empty());
    server.read_exact(1).unwrap();
    drop(server);
    eventually("a failed write", || match rustix::net::send(&client.0, b"x", SendFlags::NOSIGNAL) {
        Ok(_) => Err("it was taken"),
        Err(_) => Ok(()),
    });
}

/// Raises the limit of open files: the test needs two descriptors per session.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

/// Stops the process for longer than `limit`, and runs `meanwhile` in that time.
fn stopped_beyond(limit: Duration, ambassador: &Ambassador, meanwhile: impl FnOnce()) {
    ambassador.signal(Signal::STOP);
    meanwhile();
    pause(limit + Duration::from_secs(1));
    ambassador.signal(Signal::CONT);
}

#[test]
fn bytes_received_while_the_process_was_stopped_keep_the_session_open() {
    const IDLE: Duration = Duration::from_secs(15);
    // More sessions than events per epoll_wait of tokio: the timers of the others expire before their events are read.
    const SESSIONS: usize = 1_100;
    raise_file_limit();
    let (ambassador, route, endpoint) = tcp_route("&idle-timeout=15s");
    let sessions: Vec<(End, End)> = (0..SESSIONS).map(|_| tcp(route, &endpoint)).collect();
    stopped_beyond(IDLE, &ambassador, || {
        for (_, server) in &sessions {
            server.send(b"reply", SendFlags::empty());
        }
    });
    let replied = |(client, _): &&(End, End)| client.read_exact(5).is_ok_and(|reply| reply == b"reply");
    assert_eq!(sessions.iter().filter(replied).count(), SESSIONS);
}

#[test]
fn close_received_while_the_process_was_stopped_ends_the_session_cleanly() {
    const LIMIT: Duration = Duration::from_secs(8);
    let (ambassador, route, endpoint) = tcp_route("&half-close-timeout=8s");
    let (client, server) = tcp(route, &endpoint);
    client.send(b"request", SendFlags::empty());
    client.finish();
    assert_eq!(server.read_exact(7), Ok(b"request".to_vec()));
    stopped_beyond(LIMIT, &ambassador, || {
        server.send(b"reply", SendFlags::empty());
        server.finish();
    });
    assert_eq!(client.read_exact(5), Ok(b"reply".to_vec()));
    assert_eq!(client.read_exact(1), Err("FIN after 0 of 1 bytes".to_owned()));
}
