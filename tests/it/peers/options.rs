//! Options of routes through tunnels: the exporter applies those of clients to the real client, however far away it is.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambassador::cluster::health::State;
use ambassador::ending::Ending;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::app::{App, AppPair, PATIENCE, Service, eventually, greeting};
use crate::support::{Ambassador, Secret, Service as Named, ask};

/// An attempt that exceeds the connect timeout on a busy machine is repeated, and would be counted again.
const PATIENT: &str = "&connect-timeout=20s";

async fn connect_from(client: &str, addr: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(client.parse().unwrap(), 0)).unwrap();
    socket.connect(addr).await
}

/// Returns the name of three letters that the service sends, or `None` if the session is reset.
async fn name_for(client: &str, addr: SocketAddr) -> Option<String> {
    // A reset may arrive before a busy client has noticed that it is connected.
    let mut stream = connect_from(client, addr).await.ok()?;
    let mut name = [0; 3];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut name)).await.unwrap();
    read.ok().map(|_| String::from_utf8(name.to_vec()).unwrap())
}

#[tokio::test]
async fn exporter_allows_and_denies_the_real_client() {
    let service = Service::named("one").await;
    let export = format!("{}?allow=127.0.0.0/24&deny=127.0.0.9", service.addr);
    let pair = AppPair::new(&export, PATIENT).await;
    assert_eq!(name_for("127.0.0.8", pair.addr()).await.as_deref(), Some("one"));
    assert_eq!(name_for("127.0.0.9", pair.addr()).await, None);
    assert_eq!(name_for("127.0.1.1", pair.addr()).await, None);
    pair.exporter.await_ended("x", Ending::Denied, 2).await;
    pair.dialler.await_ended("r", Ending::PeerRefused, 2).await;
}

#[tokio::test]
async fn exporter_limits_the_rate_of_the_real_client() {
    let service = Service::named("one").await;
    let pair = AppPair::new(&format!("{}?rate=1", service.addr), &format!("&hold=0s{PATIENT}")).await;
    assert_eq!(name_for("127.0.0.8", pair.addr()).await.as_deref(), Some("one"));
    // At once, because another is allowed each second.
    let again = futures_util::future::join_all((0..20).map(|_| name_for("127.0.0.8", pair.addr()))).await;
    assert!(again.contains(&None), "one client a second");
    assert_eq!(name_for("127.0.0.9", pair.addr()).await.as_deref(), Some("one"), "another client");
}

#[tokio::test]
async fn exporter_hashes_the_real_client() {
    let (one, two) = (Service::named("one").await, Service::named("two").await);
    let pair = AppPair::new(&format!("{},{}?balance=source-hash", one.addr, two.addr), "").await;
    let mut names = std::collections::BTreeSet::new();
    for client in 1..20 {
        let client = format!("127.0.0.{client}");
        let name = name_for(&client, pair.addr()).await;
        for _ in 0..3 {
            assert_eq!(name_for(&client, pair.addr()).await, name, "{client}");
        }
        names.insert(name);
    }
    assert_eq!(names.len(), 2, "clients are distributed");
}

#[tokio::test]
async fn limit_of_sessions_on_the_exporter_is_an_answer() {
    let service = Service::named("one").await;
    let pair = AppPair::new(&format!("{}?max-sessions=1&hold=0s", service.addr), "&hold=0s").await;
    let first = greeting(pair.addr(), "one").await;
    assert_eq!(name_for("127.0.0.1", pair.addr()).await, None);
    pair.exporter.await_ended("x", Ending::TooMany, 1).await;
    drop(first);
    pair.exporter.await_ended("x", Ending::Finished, 1).await;
    assert_eq!(name_for("127.0.0.1", pair.addr()).await.as_deref(), Some("one"));
}

#[tokio::test]
async fn missing_export_ends_the_session_at_once() {
    let service = Service::named("one").await;
    let pair = AppPair::new(&service.addr.to_string(), "").await;
    let route = format!("127.0.0.1:0=peer://{}/other?name=r", pair.peer);
    let app = App::with_secret(&pair.secret, &[&route]).await;
    assert_eq!(name_for("127.0.0.1", app.addr("r")).await, None);
    app.await_ended("r", Ending::PeerRefused, 1).await;
}

#[tokio::test]
async fn other_secret_ends_sessions_as_tls_failed() {
    let service = Service::named("one").await;
    let pair = AppPair::new(&service.addr.to_string(), "").await;
    let route = format!("127.0.0.1:0=peer://{}/x?name=r&hold=0s", pair.peer);
    let app = App::with_secret(&Secret::new(), &[&route]).await;
    assert_eq!(name_for("127.0.0.1", app.addr("r")).await, None);
    app.await_ended("r", Ending::TlsFailed, 1).await;
}

#[tokio::test]
async fn chain_of_three_carries_the_client_and_the_ends_of_streams() {
    let secret = Arc::new(Secret::new());
    let service = Service::named("one").await;
    let far = AppPair::sharing(secret.clone(), &format!("{}?deny=127.0.0.9", service.addr), "").await;
    // Its exporter exports what it gets through another tunnel.
    let near = AppPair::sharing(secret, &format!("peer://{}/x", far.peer), "").await;
    assert_eq!(name_for("127.0.0.9", near.addr()).await, None, "the client of the first ambassador");
    let mut stream = connect_from("127.0.0.8", near.addr()).await.unwrap();
    let sent = vec![7; 3_000_000];
    let (mut read, mut write) = stream.split();
    let mut answer = Vec::new();
    let (read, ()) = tokio::join!(read.read_to_end(&mut answer), async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    read.unwrap();
    assert!(answer.starts_with(b"one") && answer[3..] == sent);
    near.dialler.await_ended("r", Ending::Finished, 1).await;
    far.exporter.await_ended("x", Ending::Finished, 1).await;
    far.exporter.await_ended("x", Ending::Denied, 1).await;
}

#[tokio::test]
async fn health_is_checked_through_a_tunnel() {
    let (service, is_healthy) = redis().await;
    let checks = "&health=redis&health-interval=20ms&health-timeout=2s&health-rise=2&health-fall=2";
    let pair = AppPair::new(&service.to_string(), checks).await;
    let health = || {
        let cluster = pair.dialler.cluster("r");
        let members = cluster.members_arc();
        members.all().next().and_then(|(_, member)| member.endpoint.condition().health)
    };
    eventually("healthy", || health() == Some(State::Healthy)).await;
    is_healthy.store(false, std::sync::atomic::Ordering::Relaxed);
    eventually("unhealthy", || health() == Some(State::Unhealthy)).await;
    is_healthy.store(true, std::sync::atomic::Ordering::Relaxed);
    eventually("healthy again", || health() == Some(State::Healthy)).await;
}

/// A server that replies to each PING, with an error while it is not healthy.
async fn redis() -> (SocketAddr, Arc<std::sync::atomic::AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let is_healthy = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let state = is_healthy.clone();
    #[expect(clippy::disallowed_methods, reason = "lives as long as the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let reply: &[u8] =
                if state.load(std::sync::atomic::Ordering::Relaxed) { b"+PONG\r\n" } else { b"-LOADING\r\n" };
            let mut request = [0; 512];
            if stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                let _ = stream.write_all(reply).await;
            }
        }
    });
    (addr, is_healthy)
}

#[test]
fn endpoints_that_are_peers_are_drained_and_weighted() {
    let secret = Secret::new();
    let services = [Named::new("one"), Named::new("two")];
    let peers: [SocketAddr; 2] = std::array::from_fn(|_| {
        let ip: IpAddr = crate::support::private_ip().parse().unwrap();
        SocketAddr::new(ip, 15008)
    });
    let start = |n: usize| {
        let (peer, flags) = (peers[n], secret.flags("exporter"));
        Ambassador::with(&format!("{flags} --peer-listen {peer} peer:x={}", services[n].addr)).start()
    };
    let _exporters = [start(0), start(1)];
    let flags = secret.flags("dialler");
    let route = format!("127.0.0.1:0=peer://{}/x,peer://{}/x?name=r&balance=round-robin", peers[0], peers[1]);
    let dialler = Ambassador::with(&format!("{flags} {route}")).start();
    let addr = dialler.addr("r");
    let names = || (0..8).map(|_| ask(addr)).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(names().len(), 2);
    for verb in ["drain", "weight"] {
        let value = if verb == "weight" { " 0" } else { "" };
        let changed = dialler.verb(&format!("{verb} r peer://{}/x{value}", peers[0]));
        assert!(changed.status.success(), "{verb}: {changed:?}");
        assert_eq!(names(), ["two".to_owned()].into(), "{verb}");
        let value = if verb == "weight" { " 1" } else { " --undo" };
        let restored = dialler.verb(&format!("{verb} r peer://{}/x{value}", peers[0]));
        assert!(restored.status.success(), "{verb}: {restored:?}");
        assert_eq!(names().len(), 2, "{verb}");
    }
}
