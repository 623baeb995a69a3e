//! The PROXY protocol: raw headers, chains of ambassadors, and HAProxy, nginx and PowerDNS on either side.

mod accept;
mod chains;
mod datagrams;
mod haproxy;
mod hostile;
mod nginx;
mod programs;
mod send;
mod tls;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ambassador::proxy_protocol::{Addresses, Encoder, Transport};
use serde_json::Value;

use crate::support::{Ambassador, within};

/// Generous for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A client that is not on this machine.
const CLIENT: &str = "192.0.2.7:4242";
const SERVICE: &str = "192.0.2.99:443";

fn pair(source: &str, destination: &str) -> Addresses {
    Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

/// Returns a header of version 1 for an IPv4 client.
fn v1(source: &str) -> Vec<u8> {
    ambassador::proxy_protocol::encode_v1(Some(pair(source, SERVICE))).into_bytes()
}

/// Returns a header of version 2 with these fields.
fn v2(source: &str, fields: &[(u8, &[u8])]) -> Vec<u8> {
    let begun = Encoder::new(Some(pair(source, SERVICE)), Transport::Stream);
    fields.iter().fold(begun, |header, (kind, value)| header.with(*kind, value)).into_bytes()
}

/// Starts an ambassador with the route `r` to an endpoint. `options` begin with `&`.
fn ambassador(endpoint: impl std::fmt::Display, options: &str) -> Ambassador {
    Ambassador::with(&format!("--workers 1 127.0.0.1:0={endpoint}?name=r{options}")).start()
}

/// Starts one that accepts headers from this machine.
fn accepting(endpoint: &Endpoint, options: &str) -> Ambassador {
    ambassador(endpoint.addr, &format!("&accept-proxy=127.0.0.0/8{options}"))
}

/// A service whose connections the test accepts.
struct Endpoint {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Endpoint {
    fn new() -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        Endpoint { listener, addr }
    }

    fn accept(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    /// Closes all further connections.
    fn closing(self) -> SocketAddr {
        std::thread::spawn(move || self.listener.incoming().for_each(drop));
        self.addr
    }

    /// Returns everything that the next connection sends.
    fn receive(&self) -> Vec<u8> {
        let mut all = Vec::new();
        self.accept().read_to_end(&mut all).unwrap();
        all
    }

    /// Returns everything that the next connection sends whose bytes end like this. Others are those that have shown that a program
    /// listens.
    fn receive_ending(&self, end: &[u8]) -> Vec<u8> {
        loop {
            let mut all = Vec::new();
            // May be reset.
            let _ = self.accept().read_to_end(&mut all);
            if all.ends_with(end) {
                return all;
            }
        }
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends bytes and FIN on a new connection.
fn send(addr: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(addr);
    stream.write_all(bytes).unwrap();
    // Fails if the connection was already reset.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    stream
}

/// Waits until the first check of the route's endpoint has passed.
fn is_healthy(ambassador: &Ambassador) {
    within(TIMEOUT, "a healthy endpoint", || {
        let status: Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
        let health = &status["routes"][0]["endpoints"][0]["health"];
        if *health == "healthy" { Ok(()) } else { Err(status.to_string()) }
    });
}

/// Waits for a line of the access log that contains all of these words.
fn logged(ambassador: &Ambassador, words: &[&str]) -> String {
    within(TIMEOUT, &words.join(" "), || {
        let log = ambassador.log();
        let line = log.lines().find(|line| words.iter().all(|word| line.contains(word)));
        line.map(str::to_owned).ok_or(log)
    })
}
