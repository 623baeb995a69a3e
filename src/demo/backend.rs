//! A server that answers with its own name, and can be stopped and started at one address.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::line;

const BACKLOG: u32 = 1024;

pub(super) struct Backend {
    pub(super) name: &'static str,
    pub(super) addr: SocketAddr,
    /// Keeps the port ours while nobody listens on it: bound and not listening, it refuses connections.
    _reserved: TcpSocket,
    serving: Option<Serving>,
}

struct Serving {
    listener: Arc<TcpListener>,
    _stop: DropGuard,
}

impl Backend {
    /// At a free port of this host; not started.
    pub(super) fn reserve(name: &'static str) -> io::Result<Backend> {
        let reserved = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        Ok(Backend { name, addr: reserved.local_addr()?, _reserved: reserved, serving: None })
    }

    pub(super) fn start(&mut self) -> io::Result<()> {
        let listener = Arc::new(bound(self.addr)?.listen(BACKLOG)?);
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "ends when its guard is dropped")]
        tokio::spawn(serve(listener.clone(), self.name, stop.clone()));
        self.serving = Some(Serving { listener, _stop: stop.drop_guard() });
        Ok(())
    }

    /// Refuses connections from this moment on, and resets those that it has.
    pub(super) fn stop(&mut self) {
        if let Some(Serving { listener, _stop }) = self.serving.take() {
            // Its task closes the listener soon; this makes it deaf at once.
            let _ = socket2::SockRef::from(listener.as_ref()).shutdown(Shutdown::Read);
        }
    }
}

/// Several sockets may be bound to one address while at most one listens (`SO_REUSEADDR`, socket(7)).
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

/// A line for each byte, until the peer is done.
async fn answer(stream: &TcpStream, name: &str) -> io::Result<()> {
    let mut buffer = [0; 64];
    loop {
        let questions = line::read(stream, &mut buffer).await?;
        if questions == 0 {
            return Ok(());
        }
        line::write(stream, format!("{name}\n").repeat(questions).as_bytes()).await?;
    }
}
