//! A client and a server connected through the ambassador, both used by one thread: each step waits for the previous
//! one, so that events never coincide and the costs are deterministic.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

/// A request and its reply.
const MESSAGE: [u8; 64] = [7; 64];

/// A connection through the ambassador.
pub(crate) struct Connection {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
}

impl Connection {
    /// Connects to a route whose endpoint is this listener.
    pub(crate) fn connect(route: SocketAddr, endpoint: &TcpListener) -> Connection {
        let client = TcpStream::connect(route).unwrap();
        let (server, _) = endpoint.accept().unwrap();
        Connection::between(client, server)
    }

    pub(crate) fn between(client: TcpStream, server: TcpStream) -> Connection {
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        Connection { client, server }
    }

    /// Sends one request and its reply.
    pub(crate) fn exchange(&mut self) {
        transfer(&mut self.client, &mut self.server);
        transfer(&mut self.server, &mut self.client);
    }

    /// Closes the client's end and waits until the server's end is closed.
    pub(crate) fn close(self) -> TcpStream {
        let Connection { client, mut server } = self;
        drop(client);
        assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
        server
    }
}

fn transfer(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(&MESSAGE).unwrap();
    to.read_exact(&mut MESSAGE.clone()).unwrap();
}

/// A UDP flow through the ambassador. On loopback, one at a time, no datagram is lost.
pub(crate) struct Flow {
    client: UdpSocket,
    server: UdpSocket,
}

impl Flow {
    /// Opens a flow to a route whose endpoint is this server.
    pub(crate) fn open(route: SocketAddr, server: UdpSocket) -> Flow {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(route).unwrap();
        Flow { client, server }
    }

    /// Sends one request and its reply; calls `between` after each.
    pub(crate) fn exchange(&self, between: impl Fn()) {
        let mut bytes = MESSAGE;
        self.client.send(&bytes).unwrap();
        let (_, from) = self.server.recv_from(&mut bytes).unwrap();
        between();
        self.server.send_to(&bytes, from).unwrap();
        self.client.recv(&mut bytes).unwrap();
        between();
    }
}
