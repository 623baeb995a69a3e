//! A service in the test's own process.

use std::io::{Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::resp::{Incoming, bulk, command};

/// A service in the network namespace of the thread that created it; it runs until the test's process ends.
pub(super) struct Backend {
    pub(super) addr: SocketAddr,
    /// Whether it replies to `PING`. Other requests always get replies.
    pub(super) healthy: Arc<AtomicBool>,
}

impl Backend {
    pub(super) fn new(name: String) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let healthy = Arc::new(AtomicBool::new(true));
        let shared = Arc::clone(&healthy);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (name, healthy) = (name.clone(), Arc::clone(&shared));
                thread::spawn(move || serve(&stream, &name, &healthy));
            }
        });
        Backend { addr, healthy }
    }
}

/// Serves a client until it closes or fails.
fn serve(mut stream: &TcpStream, name: &str, healthy: &AtomicBool) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut incoming = Incoming::of(stream)?;
    while let Some(words) = incoming.array()? {
        match words.first().map(Vec::as_slice) {
            Some(b"CONFIG") => stream.write_all(&command(&[b"syslog-ident", name.as_bytes()]))?,
            Some(b"ECHO") => stream.write_all(&bulk(&words[1]))?,
            Some(b"PING") if !healthy.load(Ordering::Relaxed) => {}
            Some(b"PING") => stream.write_all(b"+PONG\r\n")?,
            _ => stream.write_all(b"-ERR\r\n")?,
        }
    }
    Ok(())
}
