//! A listener that drops connects.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::eventually;

/// A listener with a full backlog: the kernel drops further SYNs, so a connect stays pending.
pub(crate) struct Clogged {
    socket: Socket,
    pub(crate) addr: SocketAddr,
    _filler: Vec<TcpStream>,
}

impl Clogged {
    pub(crate) fn at(addr: SocketAddr) -> Clogged {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Another run of this test may still use a fixed address.
        eventually("a free address", || socket.bind(&addr.into()));
        socket.listen(0).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let connect = || TcpStream::connect_timeout(&addr, Duration::from_millis(300)).ok();
        let filler = std::iter::from_fn(connect).collect();
        Clogged { socket, addr, _filler: filler }
    }

    /// Accepts connections from now on, sends this name, and collects what arrives.
    pub(crate) fn unclog(&self, name: &'static str) -> Arc<Mutex<Vec<u8>>> {
        self.socket.listen(128).unwrap();
        let listener = TcpListener::from(self.socket.try_clone().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let collected = received.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let received = received.clone();
                thread::spawn(move || {
                    let _ = stream.write_all(name.as_bytes());
                    let mut buffer = [0; 64];
                    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                        received.lock().unwrap().extend_from_slice(&buffer[..bytes]);
                    }
                });
            }
        });
        collected
    }
}
