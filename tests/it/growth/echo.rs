//! A server that replies to every byte with its letter, on all addresses of this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Stopped when dropped.
pub(super) struct Echo {
    pub(super) port: u16,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub(super) fn start(letter: u8) -> Echo {
        let stop = CancellationToken::new();
        let (tell, port) = mpsc::channel();
        let thread = thread::spawn({
            let stop = stop.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
                    tell.send(listener.local_addr().unwrap().port()).unwrap();
                    stop.run_until_cancelled(serve(listener, letter)).await;
                });
            }
        });
        Echo { port: port.recv().unwrap(), stop, thread: Some(thread) }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.cancel();
        self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(listener: TcpListener, letter: u8) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(answer(stream, letter));
    }
}

async fn answer(mut stream: TcpStream, letter: u8) {
    let mut buffer = [0; 64];
    stream.set_nodelay(true).ok();
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&[letter; 64][..count]).await.is_err() {
            return;
        }
    }
}
