//! A peer that writes HTTP/2 by itself: any path, any bytes.

use std::net::SocketAddr;
use std::time::Duration;

use ambassador::address::PeerName;
use ambassador::credentials::{CredentialFiles, Credentials};
use ambassador::tunnel::ALPN;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::support::Secret;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A tunnel, which runs on a thread of its own.
pub(super) struct RawPeer {
    runtime: Runtime,
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
    send: SendStream<Bytes>,
    receive: RecvStream,
    received: Vec<u8>,
}

impl RawPeer {
    pub(super) fn dial(secret: &Secret, addr: SocketAddr) -> RawPeer {
        let (secret, name) = (Some(secret.path()), Some("raw".to_owned()));
        let files = CredentialFiles { secret, name, ..CredentialFiles::default() };
        let credentials = Credentials::load(files).unwrap();
        let (config, name) = credentials.connector(&PeerName::Host("peer".to_owned()), &[ALPN]).unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let requests = runtime.block_on(async {
            let tcp = tokio::net::TcpStream::connect(addr).await.unwrap();
            let tls = TlsConnector::from(config).connect(name, tcp).await.unwrap();
            // A flow that is not read must not end the tunnel.
            let mut builder = h2::client::Builder::new();
            let handshake = builder.data_frame_budget(usize::MAX >> 1).handshake(tls);
            let (requests, connection) = handshake.await.unwrap();
            tokio::spawn(async move { drop(connection.await) });
            requests.ready().await.unwrap()
        });
        RawPeer { runtime, requests }
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
        RawFlow { runtime: self.runtime, send, receive, received: Vec::new() }
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
