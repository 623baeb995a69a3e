//! Tunnels that the service's ambassador dials (`--peer-dial`), as it must behind NAT.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::support::{Ambassador, Secret, Service, ask, eventually, private_ip, random_secret};

/// The ambassador of the consumers, which the others dial.
struct Hub {
    secret: Secret,
    peer: SocketAddr,
}

impl Hub {
    fn new() -> Hub {
        Hub { secret: Secret::new(), peer: format!("{}:15008", private_ip()).parse().unwrap() }
    }

    fn start(&self, target: &str) -> Ambassador {
        let (flags, peer) = (self.secret.flags("hub"), self.peer);
        Ambassador::with(&format!("{flags} --peer-listen {peer} 127.0.0.1:0={target}?name=r")).start()
    }

    /// Starts an ambassador that dials the hub, and exports a service to it.
    fn spoke(&self, name: &str, service: &Service) -> Ambassador {
        let (flags, peer) = (self.secret.flags(name), self.peer);
        let route = format!("peer:x={}", service.addr);
        Ambassador::with(&format!("{flags} --peer-listen off --peer-dial {peer} {route}")).start()
    }
}

#[test]
fn service_behind_nat_is_reached_by_its_own_tunnel() {
    let (hub, service) = (Hub::new(), Service::new("one"));
    let consumer = hub.start("peer://@laptop/x");
    let addr = consumer.addr("r");
    let held = std::thread::spawn(move || ask(addr));
    let _spoke = hub.spoke("laptop", &service);
    assert_eq!(held.join().unwrap(), "one", "a session that waited for the peer");
    for _ in 0..20 {
        assert_eq!(ask(addr), "one");
    }
}

#[test]
fn spoke_reconnects_after_the_hub_was_restarted() {
    let (hub, service) = (Hub::new(), Service::new("one"));
    let consumer = hub.start("peer://@laptop/x");
    let _spoke = hub.spoke("laptop", &service);
    assert_eq!(ask(consumer.addr("r")), "one");
    drop(consumer);
    let consumer = hub.start("peer://@laptop/x");
    assert_eq!(ask(consumer.addr("r")), "one");
}

/// A session that stays open keeps its tunnel, which takes no new sessions once the credentials have changed.
#[test]
fn new_sessions_are_served_beside_one_of_before_the_credentials_changed() {
    let (hub, service) = (Hub::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let consumer = hub.start("peer://@laptop/x");
    let route = format!("--workers 1 peer:x={}", service.local_addr().unwrap());
    let flags = hub.secret.flags("laptop");
    let _spoke =
        Ambassador::with(&format!("{flags} --peer-listen off --peer-dial {} {route}", hub.peer)).start();
    let connect = || {
        let client = TcpStream::connect(consumer.addr("r")).unwrap();
        (client, service.accept().unwrap().0)
    };
    let mut open = connect();
    let (old, new) = (hub.secret.line(), random_secret());
    for lines in [[&old, &new], [&new, &old]] {
        let tunnels = consumer.log().matches("tunnel opened").count();
        hub.secret.write(&lines.map(String::as_str));
        eventually("a tunnel with the new credentials", || {
            let log = consumer.log();
            if log.matches("tunnel opened").count() > tunnels { Ok(()) } else { Err(log) }
        });
        let mut later = connect();
        for (client, server) in [&mut open, &mut later] {
            client.write_all(b"x").unwrap();
            server.read_exact(&mut [0]).unwrap();
        }
    }
}

#[test]
fn sessions_use_the_peers_that_are_connected() {
    let (hub, services) = (Hub::new(), [Service::new("one"), Service::new("two")]);
    let consumer = hub.start("peer://@a/x,peer://@b/x");
    let addr = consumer.addr("r");
    let first = hub.spoke("a", &services[0]);
    assert_eq!(ask(addr), "one");
    let second = hub.spoke("b", &services[1]);
    drop(first);
    assert_eq!(ask(addr), "two");
    let _first = hub.spoke("a", &services[0]);
    drop(second);
    assert_eq!(ask(addr), "one");
}

#[test]
fn stranger_with_another_identity_gets_no_sessions() {
    let (hub, services) = (Hub::new(), [Service::new("one"), Service::new("two")]);
    let consumer = hub.start("peer://@laptop/x");
    let _other = hub.spoke("desktop", &services[1]);
    eventually("a tunnel from the other peer", || {
        let log = consumer.log();
        if log.contains("desktop") { Ok(()) } else { Err(log) }
    });
    let _laptop = hub.spoke("laptop", &services[0]);
    for _ in 0..10 {
        assert_eq!(ask(consumer.addr("r")), "one");
    }
}
