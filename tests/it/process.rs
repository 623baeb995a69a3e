//! The program as a process that is in no container.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Ambassador, Load, eventually, hosts, needs, redis_ping};

const SOON: Duration = Duration::from_secs(10);

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Answers one Redis question on each of so many connections, then is gone.
fn serve(port: u16, connections: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = eventually("the port that it had", bind);
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"+PONG\r\n").unwrap();
            // Until the client is done, so that nothing unread makes a reset of our end.
            std::io::copy(&mut stream, &mut std::io::sink()).ok();
        }
    })
}

#[test]
fn a_server_that_is_not_there_yet_is_waited_for() {
    let (port, server) = (free_port(), free_port());
    let _ambassador = Ambassador::with(&format!("127.0.0.1:{port}=127.0.0.1:{server}")).start();
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let asked = thread::spawn(move || redis_ping(addr));
    let served = serve(server, 1);
    assert_eq!(asked.join().unwrap().unwrap(), "PONG");
    served.join().unwrap();
}

#[test]
fn with_nothing_to_do_it_says_so_and_ends_with_64() {
    let mut ambassador = Ambassador::with("").spawn();
    let status = ambassador.ends_within(SOON);
    let log = ambassador.log_to_its_end();
    assert_eq!(status.code(), Some(64), "{log}");
    assert!(log.contains("Docker 29"), "{log}");
}

#[test]
fn without_sessions_it_ends_at_once_with_0() {
    let mut ambassador = Ambassador::with(&format!("127.0.0.1:{}=127.0.0.1:1", free_port())).start();
    assert!(ambassador.verb("status --json").status.success());
    ambassador.signal(Signal::TERM);
    assert_eq!(ambassador.ends_within(SOON).code(), Some(0), "{}", ambassador.log());
}

/// In the network of a Docker host, as a service of that machine would be.
#[test]
fn beside_the_engine_it_follows_containers_too() {
    let hosts = needs!(hosts());
    let host = &hosts.b;
    let redis = host.start("redis", "crosbymichael/redis");
    let port = free_port();
    let _ambassador = Ambassador::with(&format!("{port}=docker://{}", redis.name()))
        .var("DOCKER_HOST", host.docker_host())
        .inside(&host.namespace)
        .start();
    let load = Load::start(&host.namespace, host.address(port), redis_ping);
    {
        let _between_questions = load.pause();
        redis.docker("kill");
    }
    redis.docker("start");
    load.more(50);
    assert_eq!(load.stop().failures, Vec::<String>::new());
}
