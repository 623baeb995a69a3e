//! The phases of a session through the real app: pick, hold, retry, refuse, drain, end.

use std::time::Duration;

use ambassador::ending::Ending;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, UnixListener, UnixStream};

use crate::app::{App, PATIENCE, Service, eventually, greeting, refusing_addr};

#[tokio::test]
async fn session_ends_when_both_sides_have_closed() {
    let service = Service::named("one").await;
    let app = App::start(&[&format!("127.0.0.1:0={}?name=r", service.addr)]).await;
    let (mut stream, name) = greeting(app.addr("r"), "one").await;
    assert_eq!(name, "one");
    stream.write_all(b"request").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "request", "the reply to a request with half-close is complete");
    app.await_ended("r", Ending::Finished, 1).await;
}

#[tokio::test]
async fn restart_of_the_service_is_a_pause_not_a_refusal() {
    let service = Service::named("one").await;
    let app = App::start(&[&format!("127.0.0.1:0={}?name=r", service.addr)]).await;
    let addr = service.stop().await;
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..20 {
        held.spawn(greeting(app.addr("r"), "two"));
    }
    app.await_held("r", 20).await;
    let _service = Service::at(addr, "two").await;
    for (_, name) in held.join_all().await {
        assert_eq!(name, "two");
    }
}

#[tokio::test]
async fn the_next_endpoint_is_tried_at_once() {
    let (dead, service) = (refusing_addr().await, Service::named("two").await);
    let route = format!("127.0.0.1:0={dead},{}?name=r&hold=0s&balance=round-robin", service.addr);
    let app = App::start(&[&route]).await;
    for _ in 0..4 {
        assert_eq!(greeting(app.addr("r"), "two").await.1, "two");
    }
}

#[tokio::test]
async fn the_backup_serves_while_no_target_does() {
    let (dead, backup) = (refusing_addr().await, Service::named("backup").await);
    let app = App::start(&[&format!("127.0.0.1:0={dead}?name=r&hold=0s&backup={}", backup.addr)]).await;
    assert_eq!(greeting(app.addr("r"), "backup").await.1, "backup");
}

#[tokio::test]
async fn without_hold_the_client_is_reset_at_once() {
    let app = App::start(&[&format!("127.0.0.1:0={}?name=r&hold=0s", refusing_addr().await)]).await;
    assert_refused(app.addr("r")).await;
    app.await_ended("r", Ending::ConnectFailed, 1).await;
}

#[tokio::test]
async fn expired_hold_has_its_own_ending() {
    let app = App::start(&[&format!("127.0.0.1:0={}?name=r&hold=50ms", refusing_addr().await)]).await;
    assert_refused(app.addr("r")).await;
    app.await_ended("r", Ending::HoldExpired, 1).await;
}

#[tokio::test]
async fn client_that_closes_while_held_is_counted() {
    let app = App::start(&[&format!("127.0.0.1:0={}?name=r&hold=10m", refusing_addr().await)]).await;
    let silent = TcpStream::connect(app.addr("r")).await.unwrap();
    let mut reset = TcpStream::connect(app.addr("r")).await.unwrap();
    reset.write_all(b"a request").await.unwrap();
    app.await_held("r", 2).await;
    drop(silent);
    app.await_ended("r", Ending::LeftWhileHeld, 1).await;
    reset.set_zero_linger().unwrap();
    drop(reset);
    app.await_ended("r", Ending::LeftWhileHeld, 2).await;
    app.await_held("r", 0).await;
}

#[tokio::test]
async fn request_with_half_close_while_held_gets_a_reply() {
    let addr = refusing_addr().await;
    let app = App::start(&[&format!("127.0.0.1:0={addr}?name=r")]).await;
    let mut stream = TcpStream::connect(app.addr("r")).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    stream.shutdown().await.unwrap();
    app.await_held("r", 1).await;
    let _service = Service::at(addr, "late:").await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "late:ping");
}

#[tokio::test]
async fn the_hold_queue_is_bounded_over_all_routes() {
    let dead = refusing_addr().await;
    let routes = [format!("127.0.0.1:0={dead}?name=a"), format!("127.0.0.2:0={dead}?name=b")];
    let app = App::with(&[&routes[0], &routes[1]], |config| config.settings.max_held = 1).await;
    let _held = TcpStream::connect(app.addr("a")).await.unwrap();
    app.await_held("a", 1).await;
    assert_refused(app.addr("b")).await;
    app.await_ended("b", Ending::HoldFull, 1).await;
}

#[tokio::test]
async fn denied_clients_and_excess_sessions_are_refused() {
    let service = Service::named("one").await;
    let routes = [
        format!("127.0.0.1:0={}?name=closed&allow=10.0.0.0/8", service.addr),
        format!("127.0.0.2:0={}?name=open&allow=10.0.0.0/8,127.0.0.0/8&max-sessions=1&hold=0s", service.addr),
    ];
    let app = App::start(&[&routes[0], &routes[1]]).await;
    assert_refused(app.addr("closed")).await;
    app.await_ended("closed", Ending::Denied, 1).await;
    let first = greeting(app.addr("open"), "one").await;
    assert_refused(app.addr("open")).await;
    app.await_ended("open", Ending::TooMany, 1).await;
    drop(first);
    app.await_ended("open", Ending::Finished, 1).await;
    greeting(app.addr("open"), "one").await;
}

#[tokio::test]
async fn drain_waits_for_sessions_to_finish() {
    let service = Service::named("one").await;
    let mut app = App::start(&[&format!("127.0.0.1:0={}?name=r", service.addr)]).await;
    let (mut stream, _) = greeting(app.addr("r"), "one").await;
    let addr = app.addr("r");
    app.control.stop.cancel();
    eventually("the listener is closed", || std::net::TcpStream::connect(addr).is_err()).await;
    stream.write_all(b"still").await.unwrap();
    let mut still = [0; 5];
    stream.read_exact(&mut still).await.unwrap();
    assert_eq!(&still, b"still");
    assert!(!app.run.is_finished());
    drop(stream);
    tokio::time::timeout(PATIENCE, &mut app.run).await.unwrap().unwrap();
}

#[tokio::test]
async fn session_is_reset_after_the_drain_timeout() {
    let service = Service::named("one").await;
    let route = format!("127.0.0.1:0={}?name=r", service.addr);
    let mut app =
        App::with(&[&route], |config| config.settings.drain_timeout = Duration::from_millis(50)).await;
    let cluster = app.cluster("r");
    let (mut stream, _) = greeting(app.addr("r"), "one").await;
    app.control.stop.cancel();
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    tokio::time::timeout(PATIENCE, &mut app.run).await.unwrap().unwrap();
    let drained = cluster.counters.endings().find(|(ending, _)| *ending == Ending::Drained);
    assert_eq!(drained, Some((Ending::Drained, 1)));
}

#[tokio::test]
async fn unix_sockets_work_on_either_side() {
    let dir = tempfile::tempdir().unwrap();
    let (front, back) = (dir.path().join("front"), dir.path().join("back"));
    let listener = UnixListener::bind(&back).unwrap();
    let app = App::start(&[&format!("{}=unix:{}?name=r", front.display(), back.display())]).await;
    let mut consumer = UnixStream::connect(&front).await.unwrap();
    let (mut service, _) = listener.accept().await.unwrap();
    consumer.write_all(b"ping").await.unwrap();
    consumer.shutdown().await.unwrap();
    let mut request = String::new();
    service.read_to_string(&mut request).await.unwrap();
    assert_eq!(request, "ping");
    service.write_all(b"pong").await.unwrap();
    drop(service);
    let mut answer = String::new();
    consumer.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "pong");
    app.await_ended("r", Ending::Finished, 1).await;
    app.control.stop.cancel();
    eventually("the socket's file is gone", || !front.exists()).await;
}

#[tokio::test]
async fn port_in_use_is_an_error() {
    let service = Service::named("one").await;
    let route = format!("{}=127.0.0.1:1", service.addr);
    let route =
        ambassador::config::grammar::parse_route(&route, &ambassador::diagnostic::Place::Built).unwrap();
    let built = ambassador::app::build(ambassador::config::Config::with_routes(vec![route])).await;
    let message = built.err().expect("taken").to_string();
    assert!(message.contains("another program listens there"), "{message}");
}

#[tokio::test]
async fn each_port_of_a_range_reaches_the_same_target_port() {
    let (first, second) = consecutive_services().await;
    let base = free_pair();
    let app =
        App::start(&[&format!("127.0.0.1:{base}-{}=127.0.0.1:{}?name=r", base + 1, first.addr.port())]).await;
    let addr = app.addr("r");
    assert_eq!(greeting(addr, "first").await.1, "first");
    assert_eq!(greeting((addr.ip(), addr.port() + 1).into(), "second").await.1, "second");
    drop((first, second));
}

#[tokio::test]
async fn sessions_are_balanced_over_two_workers() {
    let service = Service::named("one").await;
    let app = App::start(&[&format!("127.0.0.1:0={}?name=r", service.addr)]).await;
    for _ in 0..5 {
        let first = greeting(app.addr("r"), "one").await;
        let second = greeting(app.addr("r"), "one").await;
        assert_eq!(app.overview.load().workers.sessions(), [1, 1]);
        drop((first, second));
        eventually("they have ended", || app.overview.load().workers.sessions() == [0, 0]).await;
    }
    let mut many = Vec::new();
    for _ in 0..40 {
        many.push(greeting(app.addr("r"), "one").await);
    }
    let sessions = app.overview.load().workers.sessions();
    assert!(sessions.iter().all(|sessions| *sessions >= 16), "{sessions:?}");
}

/// Asserts a reset; it may arrive before the client's connect returns.
async fn assert_refused(addr: std::net::SocketAddr) {
    let refusal = match TcpStream::connect(addr).await {
        Ok(mut stream) => stream.read_u8().await.map(drop),
        Err(refusal) => Err(refusal),
    };
    assert_eq!(refusal.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

/// Returns the first of two consecutive ports that were just free.
fn free_pair() -> u16 {
    loop {
        let first = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && std::net::TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

async fn consecutive_services() -> (Service, Service) {
    let base = free_pair();
    let first = Service::at(([127, 0, 0, 1], base).into(), "first").await;
    let second = Service::at(([127, 0, 0, 1], base + 1).into(), "second").await;
    (first, second)
}

/// Starts a service that echoes each datagram.
async fn udp_echo() -> std::net::SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "lives as long as the test's runtime")]
    tokio::spawn(async move {
        let mut datagram = [0; 2048];
        loop {
            let (bytes, client) = socket.recv_from(&mut datagram).await.unwrap();
            socket.send_to(&datagram[..bytes], client).await.unwrap();
        }
    });
    addr
}

async fn ask(socket: &UdpSocket, question: &[u8]) {
    let mut answer = vec![0; 2048];
    socket.send(question).await.unwrap();
    let bytes = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer[..bytes], question);
}

#[tokio::test]
async fn a_udp_flow_is_a_session_with_its_own_ending() {
    let app = App::start(&[&format!("127.0.0.1:0/udp={}?name=r&idle-timeout=200ms", udp_echo().await)]).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(app.addr("r")).await.unwrap();
    for _ in 0..10 {
        ask(&client, b"question").await;
    }
    app.await_ended("r", Ending::Idle, 1).await;
    let counters = &app.cluster("r").counters;
    assert_eq!((counters.traffic.up(), counters.traffic.down()), (80, 80));
    ask(&client, b"the next flow").await;
}

#[tokio::test]
async fn drain_ends_idle_udp_flows() {
    let mut app = App::with(&[&format!("127.0.0.1:0/udp={}?name=r", udp_echo().await)], |config| {
        config.settings.drain_timeout = Duration::from_secs(600);
    })
    .await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(app.addr("r")).await.unwrap();
    ask(&client, b"question").await;
    app.control.stop.cancel();
    tokio::time::timeout(PATIENCE, &mut app.run).await.unwrap().unwrap();
}
