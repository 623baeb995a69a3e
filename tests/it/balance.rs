//! Distribution of sessions through the real app and real sockets: balancers, health checks, outlier detection, limits.

mod health;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ambassador::cluster::condition::Condition;
use ambassador::cluster::outlier::Cause;
use ambassador::ending::Ending;
use ambassador::observe::metrics;
use ambassador::observe::status::Status;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::app::{App, PATIENCE, Service, eventually, greeting, refusing_addr};

/// Counts the names of the services that greet this many consecutive sessions.
async fn greetings(addr: SocketAddr, sessions: usize) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for _ in 0..sessions {
        let name = greeting_at(addr).await;
        *names.entry(name.unwrap_or_else(|error| error.to_string())).or_default() += 1;
    }
    names
}

/// Returns the name of the service that greets a session.
async fn greeting_at(addr: SocketAddr) -> io::Result<String> {
    name_of(TcpStream::connect(addr).await?).await
}

/// Does the same from a client address. A bound port is exclusive and stays in TIME-WAIT for a minute, so few tests
/// should do this.
async fn greeting_from(client: [u8; 4], addr: SocketAddr) -> io::Result<String> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((client, 0)))?;
    name_of(socket.connect(addr).await?).await
}

async fn name_of(mut service: TcpStream) -> io::Result<String> {
    let mut name = [0; 3];
    service.read_exact(&mut name).await?;
    Ok(String::from_utf8_lossy(&name).into_owned())
}

/// Asserts a reset, before or after the connect returns.
async fn assert_refused(addr: SocketAddr) {
    let read = async { TcpStream::connect(addr).await?.read_u8().await };
    let read = tokio::time::timeout(PATIENCE, read).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

// === balancers ===

#[tokio::test]
async fn every_balancer_reaches_all_endpoints() {
    let (one, two) = (Service::named("one").await, Service::named("two").await);
    for balance in ["round-robin", "least-connections", "p2c", "random"] {
        let route = format!("127.0.0.1:0={},{}?name=r&balance={balance}", one.addr, two.addr);
        let app = App::start(&[&route]).await;
        let names = greetings(app.addr("r"), 100).await;
        assert_eq!(names.len(), 2, "{balance}: {names:?}");
        if balance == "round-robin" {
            assert_eq!(names["one"], 50);
        }
    }
}

#[tokio::test]
async fn least_connections_picks_the_endpoint_with_fewest_sessions() {
    let (one, two) = (Service::named("one").await, Service::named("two").await);
    let app = App::start(&[&format!("127.0.0.1:0={},{}?name=r", one.addr, two.addr)]).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(greeting(app.addr("r"), "one").await);
    }
    let on_one = open.iter().filter(|(_, name)| name == "one").count();
    assert_eq!(on_one, 5);
    open.retain(|(_, name)| name == "two");
    app.await_ended("r", Ending::Finished, 5).await;
    for _ in 0..5 {
        let (stream, name) = greeting(app.addr("r"), "one").await;
        assert_eq!(name, "one");
        open.push((stream, name));
    }
}

#[tokio::test]
async fn source_hash_keeps_a_client_on_its_endpoint() {
    let (one, two, six) =
        (Service::named("one").await, Service::named("two").await, Service::named("six").await);
    let route =
        format!("127.0.0.1:0={},{},{}?name=r&balance=source-hash&hold=0s", one.addr, two.addr, six.addr);
    let app = App::start(&[&route]).await;
    let all = || async {
        let mut homes = Vec::new();
        for last in 1..=30 {
            homes.push(greeting_from([127, 9, 9, last], app.addr("r")).await.unwrap());
        }
        homes
    };
    let before = all().await;
    assert_eq!(before, all().await);
    for name in ["one", "two", "six"] {
        assert!(before.iter().any(|home| home == name), "{before:?}");
    }
    two.stop().await;
    for (before, after) in before.iter().zip(all().await) {
        assert!(after != "two" && (before == "two" || *before == after), "{before} {after}");
    }
}

#[tokio::test]
async fn every_balancer_retries_another_endpoint() {
    let (dead, one) = (refusing_addr().await, Service::named("one").await);
    for balance in ["round-robin", "least-connections", "p2c", "random", "source-hash"] {
        let route = format!("127.0.0.1:0={dead},{}?name=r&hold=0s&balance={balance}", one.addr);
        let app = App::start(&[&route]).await;
        assert_eq!(greetings(app.addr("r"), 10).await["one"], 10, "{balance}");
    }
}

/// Starts a service that replies to each datagram with its name.
async fn datagrams(name: &'static str, tasks: &mut JoinSet<()>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    tasks.spawn(async move {
        let mut buffer = [0; 64];
        while let Ok((_, client)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(name.as_bytes(), client).await;
        }
    });
    addr
}

#[tokio::test]
async fn udp_flows_are_balanced_and_limited_like_sessions() {
    let mut tasks = JoinSet::new();
    let (one, two) = (datagrams("one", &mut tasks).await, datagrams("two", &mut tasks).await);
    let routes = [
        format!("127.0.0.1:0/udp={one},{two}?name=r&balance=round-robin"),
        format!("127.0.0.2:0/udp={one},{two}?name=closed&deny=127.0.0.0/8"),
    ];
    let app = App::start(&[&routes[0], &routes[1]]).await;
    let mut names = BTreeMap::new();
    for _ in 0..6 {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"?", app.addr("r")).await.unwrap();
        let mut name = [0; 3];
        tokio::time::timeout(PATIENCE, client.recv(&mut name)).await.unwrap().unwrap();
        *names.entry(name).or_insert(0) += 1;
    }
    assert_eq!(names, BTreeMap::from([(*b"one", 3), (*b"two", 3)]));
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(b"?", app.addr("closed")).await.unwrap();
    app.await_ended("closed", Ending::Denied, 1).await;
}

// === outliers ===

/// Returns whether the first endpoint is ejected, according to status and metrics.
fn is_ejected(app: &App, dead: SocketAddr, healthy: SocketAddr) -> bool {
    let table = Status::of(&app.overview.load(), false).table();
    let metrics = metrics::text(&app.overview.load(), SystemTime::now());
    let says = |addr: SocketAddr, is_well: u8| {
        let line = format!("ambassador_endpoint_healthy{{route=\"r\",endpoint=\"{addr}\"}} {is_well}\n");
        metrics.contains(&line)
    };
    app.condition("r", dead).ejected == Some(Cause::Refused)
        && table.lines().any(|row| row.contains(&dead.to_string()) && row.contains("  refuses connections"))
        && says(dead, 0)
        && says(healthy, 1)
}

#[tokio::test]
async fn refusing_endpoint_is_ejected_and_used_again_as_the_last_one() {
    let (dead, one) = (refusing_addr().await, Service::named("one").await);
    let route = format!("127.0.0.1:0={dead},{}?name=r&balance=round-robin", one.addr);
    let app = App::start(&[&route]).await;
    let seen = tokio::time::timeout(PATIENCE, async {
        // It is ejected for five seconds; on a busy machine that may pass unobserved, and it is ejected again.
        while !is_ejected(&app, dead, one.addr) {
            greetings(app.addr("r"), 20).await;
        }
    });
    assert!(seen.await.is_ok(), "{}", Status::of(&app.overview.load(), false).table());

    let back = Service::at(dead, "two").await;
    one.stop().await;
    let name = greeting_at(app.addr("r")).await;
    let endings: Vec<_> = app.cluster("r").counters.endings().filter(|(_, count)| *count > 0).collect();
    let name = name.map_err(|error| error.to_string());
    assert_eq!(name.as_deref(), Ok("two"), "long before its time is over: {endings:?}");
    eventually("it is back", || app.condition("r", dead).ejected.is_none()).await;
    drop(back);
}

#[tokio::test]
async fn resetting_endpoint_is_ejected() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bad = listener.local_addr().unwrap();
    // One for each session whose connect the ambassador has noticed. A reset before that would be a failed connect.
    let permits = Arc::new(Semaphore::new(0));
    let noticed = permits.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            noticed.acquire().await.unwrap().forget();
            stream.set_zero_linger().unwrap();
        }
    });
    let one = Service::named("one").await;
    let app = App::start(&[&format!("127.0.0.1:0={bad}?name=r&backup={}", one.addr)]).await;
    let cluster = app.cluster("r");
    // Resets of one client count once.
    for n in 0..20 {
        let reset = async {
            let is_connected = || cluster.counters.timings.connect.read().count > n;
            eventually("it is connected", is_connected).await;
            permits.add_permits(1);
        };
        let client = [127, 9, 8, (n + 1) as u8];
        let _ = tokio::join!(greeting_from(client, app.addr("r")), reset);
    }
    eventually("it is ejected", || app.condition("r", bad).ejected == Some(Cause::Reset)).await;
    assert_eq!(greetings(app.addr("r"), 10).await["one"], 10);
}

#[tokio::test]
async fn disabled_outlier_detection_ejects_no_endpoint() {
    let (dead, one) = (refusing_addr().await, Service::named("one").await);
    let route = format!("127.0.0.1:0={dead},{}?name=r&balance=round-robin", one.addr);
    let app = App::with(&[&route], |config| config.settings.max_ejected = 0).await;
    greetings(app.addr("r"), 30).await;
    assert_eq!(app.condition("r", dead), Condition::default());
}

// === limits ===

#[tokio::test]
async fn excess_session_is_served_when_another_ends() {
    let one = Service::named("one").await;
    for limit in ["max-sessions", "max-sessions-per-endpoint"] {
        let app = App::start(&[&format!("127.0.0.1:0={}?name=r&{limit}=1", one.addr)]).await;
        let first = greeting(app.addr("r"), "one").await;
        let mut second = JoinSet::new();
        second.spawn(greeting(app.addr("r"), "one"));
        app.await_held("r", 1).await;
        assert_eq!(app.cluster("r").admitted(), if limit == "max-sessions" { 1 } else { 2 });
        drop(first);
        second.join_all().await;
        app.await_held("r", 0).await;
        eventually("all have left", || app.cluster("r").admitted() == 0).await;
    }
}

#[tokio::test]
async fn excess_session_is_refused_after_its_hold() {
    let one = Service::named("one").await;
    let app = App::start(&[&format!("127.0.0.1:0={}?name=r&max-sessions=1&hold=50ms", one.addr)]).await;
    let _first = greeting(app.addr("r"), "one").await;
    assert_refused(app.addr("r")).await;
    app.await_ended("r", Ending::TooMany, 1).await;
}

#[tokio::test]
async fn rate_limit_refuses_one_client_and_not_others() {
    let one = Service::named("one").await;
    let app = App::start(&[&format!("127.0.0.1:0={}?name=r&rate=3", one.addr)]).await;
    for _ in 0..3 {
        greeting_at(app.addr("r")).await.unwrap();
    }
    assert_refused(app.addr("r")).await;
    app.await_ended("r", Ending::RateLimited, 1).await;
    greeting_from([127, 0, 0, 2], app.addr("r")).await.unwrap();
}

#[tokio::test]
async fn deny_has_precedence_over_allow() {
    let one = Service::named("one").await;
    let route = format!("127.0.0.1:0={}?name=r&allow=127.0.0.0/8&deny=127.0.0.1", one.addr);
    let app = App::start(&[&route]).await;
    assert_refused(app.addr("r")).await;
    app.await_ended("r", Ending::Denied, 1).await;
    greeting_from([127, 0, 0, 2], app.addr("r")).await.unwrap();
}

#[tokio::test]
async fn max_duration_limits_a_session() {
    let one = Service::named("one").await;
    let app = App::start(&[&format!("127.0.0.1:0={}?name=r&max-duration=100ms", one.addr)]).await;
    let (mut stream, _) = greeting(app.addr("r"), "one").await;
    let read = tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    app.await_ended("r", Ending::MaxDuration, 1).await;
}
