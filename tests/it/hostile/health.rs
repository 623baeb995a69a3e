//! Clients and endpoints that try to eject healthy endpoints or delay their checks.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ambassador::cluster::condition::Condition;
use ambassador::cluster::health::State;
use ambassador::cluster::outlier::Cause;
use ambassador::ending::Ending;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::app::{App, PATIENCE, Service, eventually};

fn condition(app: &App, route: &str, addr: SocketAddr) -> Condition {
    let members = app.cluster(route).members_arc();
    let found = members.all().find(|(_, member)| member.endpoint.key.addr.to_string() == addr.to_string());
    found.expect("an endpoint at this address").1.endpoint.condition()
}

/// A port on which every loopback address takes no connection and refuses none: its accept queue is full.
struct Silent {
    port: u16,
    _sockets: Vec<Socket>,
}

impl Silent {
    fn new() -> Silent {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))).unwrap();
        listener.listen(0).unwrap();
        let port = listener.local_addr().unwrap().as_socket().unwrap().port();
        let addr = SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let mut sockets = vec![listener];
        for _ in 0..4 {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            let _ = filler.connect(&addr);
            sockets.push(filler);
        }
        Silent { port, _sockets: sockets }
    }

    fn endpoints(&self, count: u8) -> String {
        let endpoints: Vec<_> = (1..=count).map(|n| format!("127.9.9.{n}:{}", self.port)).collect();
        endpoints.join(",")
    }
}

#[tokio::test]
async fn silent_endpoints_of_one_route_do_not_delay_checks_of_another() {
    let (silent, one) = (Silent::new(), Service::named("one").await);
    let routes = [
        // Each check of them takes longer than the test waits for the other route.
        format!("127.0.0.1:0={}?name=silent&health=tcp&health-timeout=1h", silent.endpoints(80)),
        format!("127.0.0.2:0={}?name=r&health=tcp&health-interval=50ms&health-fall=2", one.addr),
    ];
    let app = App::start(&[&routes[0], &routes[1]]).await;
    let addr = one.addr;
    eventually("it is healthy", || condition(&app, "r", addr).health == Some(State::Healthy)).await;
    one.stop().await;
    eventually("it is unhealthy", || condition(&app, "r", addr).health == Some(State::Unhealthy)).await;
}

/// Resets each connection once it has read `before` bytes.
async fn resetting(before: usize, tasks: &mut JoinSet<()>) -> SocketAddr {
    resetting_when(Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)), before, tasks).await
}

/// Resets each connection once it has read `before` bytes and has a permit.
async fn resetting_when(permits: Arc<Semaphore>, before: usize, tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let mut sessions = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let permits = permits.clone();
            sessions.spawn(async move {
                let _ = stream.read_exact(&mut vec![0; before]).await;
                permits.acquire().await.unwrap().forget();
                stream.set_zero_linger().unwrap();
            });
        }
    });
    addr
}

/// A session from this address that ends by itself.
async fn session_from(client: [u8; 4], app: &App, says: &[u8]) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((client, 0))).unwrap();
    let mut stream = socket.connect(app.addr("r")).await.unwrap();
    let _ = stream.write_all(says).await;
    let read = tokio::time::timeout(PATIENCE, stream.read_u8()).await;
    read.expect("its end").unwrap_err();
}

#[tokio::test]
async fn endpoints_that_reset_garbage_are_not_ejected() {
    let mut tasks = JoinSet::new();
    let (one, two) = (resetting(7, &mut tasks).await, resetting(7, &mut tasks).await);
    let app = App::start(&[&format!("127.0.0.1:0={one},{two}?name=r&balance=round-robin")]).await;
    // From several clients, too: what was sent is the reason, whoever sent it.
    for n in 0..40 {
        session_from([127, 8, 8, n % 10 + 1], &app, b"garbage").await;
        let ejected = [one, two].map(|addr| condition(&app, "r", addr).ejected);
        assert_eq!(ejected, [None, None], "after {} sessions", n + 1);
    }
    app.await_ended("r", Ending::UpstreamReset, 40).await;
}

#[tokio::test]
async fn endpoints_that_reset_what_has_left_are_not_ejected() {
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let one = listener.local_addr().unwrap();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // The client's FIN, answered by a reset.
            let _ = stream.read_u8().await;
            stream.set_zero_linger().unwrap();
        }
    });
    let two = Service::named("two").await;
    let app = App::start(&[&format!("127.0.0.1:0={one},{}?name=r&balance=round-robin", two.addr)]).await;
    for n in 0..20 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 8, 9, n + 1], 0))).unwrap();
        let mut stream = socket.connect(app.addr("r")).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
        assert_eq!(condition(&app, "r", one).ejected, None, "after {} sessions", n + 1);
    }
}

#[tokio::test]
async fn resets_count_once_for_each_client() {
    let mut tasks = JoinSet::new();
    let permits = Arc::new(Semaphore::new(0));
    let bad = resetting_when(permits.clone(), 0, &mut tasks).await;
    let one = Service::named("one").await;
    let route = format!("127.0.0.1:0={bad}?name=r&backup={}", one.addr);
    let app = App::start(&[&route]).await;
    let cluster = app.cluster("r");
    let session = async |client, number| {
        let reset = async {
            // Not before the ambassador has noticed that it is connected: that would be a connect that failed.
            let connected = || cluster.counters.timings.connect.read().count >= number;
            eventually("it is connected", connected).await;
            permits.add_permits(1);
        };
        tokio::join!(session_from(client, &app, b""), reset);
    };
    for number in 1..=12 {
        session([127, 8, 7, 1], number).await;
    }
    app.await_ended("r", Ending::UpstreamReset, 12).await;
    assert_eq!(condition(&app, "r", bad).ejected, None, "one client alone");
    for n in 2..=5 {
        session([127, 8, 7, n], 11 + u64::from(n)).await;
    }
    eventually("it is ejected", || condition(&app, "r", bad).ejected == Some(Cause::Reset)).await;
}

#[tokio::test]
async fn udp_endpoint_whose_host_refuses_datagrams_is_ejected_whoever_the_client_is() {
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let backup = silent.local_addr().unwrap();
    let app = App::start(&[&format!("127.0.0.1:0/udp={gone}?name=r&backup={backup}")]).await;
    for _ in 0..5 {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"?", app.addr("r")).await.unwrap();
    }
    eventually("it is ejected", || condition(&app, "r", gone).ejected == Some(Cause::Reset)).await;
}
