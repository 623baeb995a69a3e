//! A server that answers with its name, and that can be stopped and restarted at the same address.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::protocol;

const BACKLOG: u32 = 1024;

pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) addr: SocketAddr,
    /// Reserves the port while the server is stopped: a socket that is bound and does not listen refuses connections.
    _reserved: TcpSocket,
    serving: Option<Serving>,
}

struct Serving {
    listener: Arc<TcpListener>,
    _stop: DropGuard,
}

impl Server {
    /// Reserves a free port for a server that is not started.
    pub(super) fn reserve(name: &'static str) -> io::Result<Server> {
        let reserved = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        Ok(Server { name, addr: reserved.local_addr()?, _reserved: reserved, serving: None })
    }

    pub(super) fn start(&mut self) -> io::Result<()> {
        let listener = Arc::new(bound(self.addr)?.listen(BACKLOG)?);
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "ends when its guard is dropped")]
        tokio::spawn(serve(listener.clone(), self.name, stop.clone()));
        self.serving = Some(Serving { listener, _stop: stop.drop_guard() });
        Ok(())
    }

    /// Refuses new connections immediately, and resets open ones.
    pub(super) fn stop(&mut self) {
        if let Some(Serving { listener, _stop }) = self.serving.take() {
            // The task closes the listener later; this stops it from accepting connections immediately.
            let _ = socket2::SockRef::from(listener.as_ref()).shutdown(Shutdown::Read);
        }
    }
}

/// Binds an address to which other sockets may be bound as long as at most one listens (`SO_REUSEADDR`, socket(7)).
fn bound(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

async fn serve(listener: Arc<TcpListener>, name: &'static str, stop: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        if let Ok((stream, _)) = accepted {
            connections.spawn(connection(stream, name, stop.clone()));
        }
    }
}

async fn connection(stream: TcpStream, name: &'static str, stop: CancellationToken) {
    tokio::select! {
        _ = answer(&stream, name) => {}
        () = stop.cancelled() => {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Answers each byte with a line, until the peer closes its sending side.
async fn answer(stream: &TcpStream, name: &str) -> io::Result<()> {
    let mut buffer = [0; 64];
    loop {
        let requests = protocol::read(stream, &mut buffer).await?;
        if requests == 0 {
            return Ok(());
        }
        protocol::write(stream, format!("{name}\n").repeat(requests).as_bytes()).await?;
    }
}
