//! Clients and endpoints that try to eject healthy endpoints or delay their checks.

use std::net::{Ipv4Addr, SocketAddr};

use ambassador::cluster::condition::Condition;
use ambassador::cluster::health::State;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::app::{App, Service, eventually};

fn condition(app: &App, route: &str, addr: SocketAddr) -> Condition {
    let members = app.cluster(route).members();
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
