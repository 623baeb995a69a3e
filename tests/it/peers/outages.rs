//! Hold, retry, backup and reconnection, through a tunnel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ambassador::ending::Ending;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::app::{App, AppPair, PATIENCE, Service, greeting, refusing_addr};
use crate::support::{Pair, Secret, Service as Named, ask, eventually};

#[tokio::test]
async fn exporter_holds_sessions_until_the_service_is_back() {
    let service = Service::named("one").await;
    let pair = AppPair::new(&service.addr.to_string(), "").await;
    let addr = service.stop().await;
    let mut held = JoinSet::new();
    for _ in 0..20 {
        held.spawn(greeting(pair.addr(), "two"));
    }
    pair.exporter.await_held("x", 20).await;
    let _service = Service::at(addr, "two").await;
    for (_, name) in held.join_all().await {
        assert_eq!(name, "two");
    }
}

#[tokio::test]
async fn dialler_holds_sessions_until_the_exporter_is_back() {
    let service = Service::named("one").await;
    let mut pair = AppPair::new(&service.addr.to_string(), "").await;
    assert_eq!(greeting(pair.addr(), "one").await.1, "one");
    pair.stop_exporter().await;
    let mut held = JoinSet::new();
    for _ in 0..20 {
        held.spawn(greeting(pair.addr(), "one"));
    }
    pair.dialler.await_held("r", 20).await;
    pair.restart_exporter(&service.addr.to_string()).await;
    for (_, name) in held.join_all().await {
        assert_eq!(name, "one");
    }
}

#[tokio::test]
async fn hold_of_the_dialler_limits_that_of_the_exporter() {
    let pair = AppPair::new(&format!("{}?hold=10m", refusing_addr().await), "&hold=300ms").await;
    let mut stream = TcpStream::connect(pair.addr()).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    pair.dialler.await_ended("r", Ending::HoldExpired, 1).await;
    pair.exporter.await_held("x", 0).await;
}

#[tokio::test]
async fn without_hold_the_client_is_reset_at_once() {
    let pair = AppPair::new(&format!("{}?hold=0s", refusing_addr().await), "&hold=0s").await;
    let mut stream = TcpStream::connect(pair.addr()).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    pair.dialler.await_ended("r", Ending::ConnectFailed, 1).await;
    pair.exporter.await_ended("x", Ending::ConnectFailed, 1).await;
}

#[tokio::test]
async fn client_that_leaves_while_the_exporter_holds_it_is_counted_on_both_sides() {
    let pair = AppPair::new(&format!("{}?hold=10m", refusing_addr().await), "&hold=10m").await;
    let silent = TcpStream::connect(pair.addr()).await.unwrap();
    let mut reset = TcpStream::connect(pair.addr()).await.unwrap();
    reset.write_all(b"a request").await.unwrap();
    pair.exporter.await_held("x", 2).await;
    drop(silent);
    pair.dialler.await_ended("r", Ending::LeftWhileHeld, 1).await;
    pair.exporter.await_ended("x", Ending::LeftWhileHeld, 1).await;
    reset.set_zero_linger().unwrap();
    drop(reset);
    pair.dialler.await_ended("r", Ending::LeftWhileHeld, 2).await;
    pair.exporter.await_ended("x", Ending::LeftWhileHeld, 2).await;
}

#[tokio::test]
async fn request_with_half_close_while_held_gets_a_reply() {
    let addr = refusing_addr().await;
    let pair = AppPair::new(&addr.to_string(), "").await;
    let mut stream = TcpStream::connect(pair.addr()).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    stream.shutdown().await.unwrap();
    pair.exporter.await_held("x", 1).await;
    let _service = Service::at(addr, "late:").await;
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, "late:ping");
}

/// A service that counts its connections and the bytes of each, which it closes at the client's FIN.
struct Counting {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
    _task: JoinHandle<()>,
}

impl Counting {
    async fn start() -> Counting {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (connections, bytes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (connections.clone(), bytes.clone());
        #[expect(clippy::disallowed_methods, reason = "its handle is kept")]
        let task = tokio::spawn(async move {
            let mut sessions = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (connections, bytes) = counts.clone();
                connections.fetch_add(1, Ordering::Relaxed);
                sessions.spawn(async move {
                    let mut received = Vec::new();
                    let _ = stream.read_to_end(&mut received).await;
                    bytes.fetch_add(received.len(), Ordering::Relaxed);
                });
            }
        });
        Counting { addr, connections, bytes, _task: task }
    }
}

#[tokio::test]
async fn retry_repeats_no_byte_and_no_connection() {
    const SESSIONS: usize = 40;
    const BYTES: usize = 1_000;
    let service = Counting::start().await;
    let secret = Arc::new(Secret::new());
    let good = AppPair::sharing(secret.clone(), &service.addr.to_string(), "").await;
    // A peer whose service refuses, one that does not exist, and the one that works, in turn.
    let bad = AppPair::sharing(secret.clone(), &format!("{}?hold=0s", refusing_addr().await), "").await;
    let none = refusing_addr().await;
    let route = format!(
        "127.0.0.1:0=peer://{}/x,peer://{none}/x,peer://{}/x?name=r&balance=round-robin",
        bad.peer, good.peer
    );
    let app = App::with_secret(&secret, &[&route]).await;
    let mut sessions = JoinSet::new();
    for _ in 0..SESSIONS {
        let addr = app.addr("r");
        sessions.spawn(async move {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            stream.write_all(&[b'x'; BYTES]).await.unwrap();
            stream.shutdown().await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        });
    }
    tokio::time::timeout(PATIENCE, sessions.join_all()).await.unwrap();
    app.await_ended("r", Ending::Finished, u64::try_from(SESSIONS).unwrap()).await;
    assert_eq!(service.connections.load(Ordering::Relaxed), SESSIONS);
    assert_eq!(service.bytes.load(Ordering::Relaxed), SESSIONS * BYTES);
}

#[tokio::test]
async fn backup_and_next_endpoint_may_be_peers() {
    let (service, backup) = (Service::named("one").await, Service::named("two").await);
    let secret = Arc::new(Secret::new());
    let pair = AppPair::sharing(secret.clone(), &backup.addr.to_string(), "").await;
    let peer = pair.peer;
    let routes = [
        format!("127.0.0.1:0={}?name=backup&backup=peer://{peer}/x", service.addr),
        format!("127.0.0.2:0={},peer://{peer}/x?name=next&hold=0s", refusing_addr().await),
    ];
    let app = App::with_secret(&secret, &[&routes[0], &routes[1]]).await;
    assert_eq!(greeting(app.addr("backup"), "one").await.1, "one");
    assert_eq!(greeting(app.addr("next"), "two").await.1, "two");
    service.stop().await;
    assert_eq!(greeting(app.addr("backup"), "two").await.1, "two");
}

#[test]
fn pause_on_either_side_holds_sessions() {
    let service = Named::new("one");
    let pair = Pair::new(&service.addr, "", "");
    for (ambassador, route) in [(&pair.exporter, "x"), (&pair.dialler, "r")] {
        assert!(ambassador.verb(&format!("pause {route}")).status.success());
        let held = std::thread::spawn({
            let addr = pair.addr;
            move || ask(addr)
        });
        eventually("a held session", || {
            let status = String::from_utf8(ambassador.verb("status --json").stdout).unwrap();
            let status: serde_json::Value = serde_json::from_str(&status).unwrap();
            let routes = status["routes"].as_array().unwrap().clone();
            let held = routes.iter().find(|one| one["name"] == route).unwrap()["held"].clone();
            if held == 1 { Ok(()) } else { Err(status.to_string()) }
        });
        assert!(ambassador.verb(&format!("resume {route}")).status.success());
        assert_eq!(held.join().unwrap(), "one", "{route}");
    }
}

#[test]
fn route_switches_to_a_peer_and_back() {
    let (near, far) = (Named::new("one"), Named::new("two"));
    let pair = Pair::new(&far.addr, "", "");
    assert_eq!(ask(pair.addr), "two");
    let switched = pair.dialler.verb(&format!("switch r {}", near.addr));
    assert!(switched.status.success(), "{switched:?}");
    assert_eq!(ask(pair.addr), "one");
    let back = pair.dialler.verb(&format!("switch r peer://{}/x", pair.peer));
    assert!(back.status.success(), "{back:?}");
    assert_eq!(ask(pair.addr), "two");
}
