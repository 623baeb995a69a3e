//! A peer that writes HTTP/2 by itself: any path, any bytes.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use ambassador::address::PeerName;
use ambassador::credentials::{CredentialFiles, Credentials};
use ambassador::tunnel::ALPN;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::task::TaskTracker;

use crate::support::Secret;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A tunnel, which runs on a thread of its own.
pub(super) struct RawPeer {
    runtime: Runtime,
    tasks: TaskTracker,
    requests: SendRequest<Bytes>,
}

/// The answer to a request.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
}

/// A flow.
pub(super) struct RawFlow {
    runtime: Runtime,
    _tasks: TaskTracker,
    send: SendStream<Bytes>,
    receive: RecvStream,
    received: Vec<u8>,
}

fn credentials(secret: &Secret) -> Credentials {
    let (secret, name) = (Some(secret.path()), Some("raw".to_owned()));
    Credentials::load(CredentialFiles { secret, name, ..CredentialFiles::default() }).unwrap()
}

/// Serves one tunnel: accepts each flow, and answers its first frame with the next of these bytes. Returns its address.
pub(super) fn answer_with(secret: &Secret, answers: Vec<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, acceptor) = (listener.local_addr().unwrap(), credentials(secret).acceptor(&[ALPN]).unwrap());
    thread::spawn(move || {
        let (tcp, _) = listener.accept().unwrap();
        tcp.set_nonblocking(true).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let tcp = tokio::net::TcpStream::from_std(tcp).unwrap();
            let tls = TlsAcceptor::from(acceptor).accept(tcp).await.unwrap();
            let mut builder = h2::server::Builder::new();
            let mut tunnel = builder.enable_connect_protocol().handshake(tls).await.unwrap();
            let (tasks, mut answers) = (TaskTracker::new(), answers.into_iter());
            while let Some(Ok((request, mut respond))) = tunnel.accept().await {
                let answer = answers.next().unwrap_or_default();
                tasks.spawn(async move {
                    let mut send = respond.send_response(Response::new(()), false).unwrap();
                    let mut receive = request.into_body();
                    drop(receive.data().await);
                    send.send_data(Bytes::from(answer), false).unwrap();
                    // Until the flow ends.
                    while let Some(Ok(_)) = receive.data().await {}
                });
            }
        });
    });
    addr
}

impl RawPeer {
    pub(super) fn dial(secret: &Secret, addr: SocketAddr) -> RawPeer {
        let (config, name) =
            credentials(secret).connector(&PeerName::Host("peer".to_owned()), &[ALPN]).unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let tasks = TaskTracker::new();
        let requests = runtime.block_on(async {
            let tcp = tokio::net::TcpStream::connect(addr).await.unwrap();
            let tls = TlsConnector::from(config).connect(name, tcp).await.unwrap();
            // A flow that is not read must not end the tunnel.
            let mut builder = h2::client::Builder::new();
            let handshake = builder.data_frame_budget(usize::MAX >> 1).handshake(tls);
            let (requests, connection) = handshake.await.unwrap();
            tasks.spawn(async move { drop(connection.await) });
            requests.ready().await.unwrap()
        });
        RawPeer { runtime, tasks, requests }
    }

    /// Requests a path, and leaves.
    pub(super) fn request(mut self, path: &str) -> Answer {
        let (answer, ..) = self.open(path);
        answer
    }

    /// Opens a flow to an export.
    pub(super) fn connect(mut self, export: &str) -> RawFlow {
        let (answer, send, receive) = self.open(&format!("/.well-known/masque/udp/{export}/53/"));
        assert_eq!(answer.status, 200);
        RawFlow { runtime: self.runtime, _tasks: self.tasks, send, receive, received: Vec::new() }
    }

    fn open(&mut self, path: &str) -> (Answer, SendStream<Bytes>, RecvStream) {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("https://peer{path}"))
            .extension(Protocol::from_static("connect-udp"))
            .body(())
            .unwrap();
        let (answer, send) = self.requests.send_request(request, false).unwrap();
        let answer = self.runtime.block_on(async { timeout(TIMEOUT, answer).await }).unwrap().unwrap();
        let (head, receive) = answer.into_parts();
        (Answer { status: head.status.as_u16(), headers: head.headers }, send, receive)
    }
}

impl RawFlow {
    /// Sends bytes in a frame of their own.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.send.send_data(Bytes::copy_from_slice(bytes), false).unwrap();
    }

    /// Receives this many bytes.
    pub(super) fn receive(&mut self, bytes: usize) -> Vec<u8> {
        while self.received.len() < bytes {
            let data = self.runtime.block_on(async { timeout(TIMEOUT, self.receive.data()).await });
            let data = data.expect("data in time").expect("no end").unwrap();
            self.receive.flow_control().release_capacity(data.len()).unwrap();
            self.received.extend_from_slice(&data);
        }
        self.received.drain(..bytes).collect()
    }

    /// Waits for a reset.
    pub(super) fn reset(&mut self) -> Option<Reason> {
        let reason = async { timeout(TIMEOUT, std::future::poll_fn(|cx| self.send.poll_reset(cx))).await };
        self.runtime.block_on(reason).ok()?.ok()
    }
}
