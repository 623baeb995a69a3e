//! A service that sends its name of three letters, and a client that reads it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(40);

/// A service, which runs until the test's process ends.
pub(crate) struct Service {
    pub(crate) addr: String,
}

impl Service {
    pub(crate) fn new(name: &'static str) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                stream.write_all(name.as_bytes()).ok();
            }
        });
        Service { addr }
    }
}

/// Returns the name of the service behind an address. A held connection waits.
pub(crate) fn ask(addr: SocketAddr) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut name = String::new();
    stream.read_to_string(&mut name).unwrap();
    name
}
