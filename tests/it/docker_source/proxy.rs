//! A proxy in front of Docker's socket, as commonly used: it permits GET, records requests, and can be closed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

pub(super) struct Proxy {
    pub(super) socket: PathBuf,
    upstream: PathBuf,
    requests: Arc<Mutex<Vec<String>>>,
    serving: JoinSet<()>,
    _directory: tempfile::TempDir,
}

impl Proxy {
    pub(super) fn new(upstream: &Path) -> Proxy {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let requests = Arc::default();
        let upstream = upstream.to_owned();
        let mut proxy = Proxy { socket, upstream, requests, serving: JoinSet::new(), _directory: directory };
        proxy.open();
        proxy
    }

    pub(super) fn open(&mut self) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        self.serving.spawn(serve(listener, self.upstream.clone(), Arc::clone(&self.requests)));
    }

    /// Closes all connections and accepts no more.
    pub(super) fn close(&mut self) {
        self.serving = JoinSet::new();
        std::fs::remove_file(&self.socket).unwrap();
    }

    /// Returns the requests, such as `GET /v1.41/events`, without the query.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// The paths that the Docker source uses, with or without a version.
pub(super) fn is_allowed(request: &str) -> bool {
    let Some(path) = request.strip_prefix("GET ") else { return false };
    let path = match path.strip_prefix("/v1.") {
        Some(rest) => &rest[rest.find('/').unwrap_or(0)..],
        None => path,
    };
    let id = path.strip_prefix("/containers/").and_then(|rest| rest.strip_suffix("/json"));
    let image = path.strip_prefix("/images/sha256:").and_then(|rest| rest.strip_suffix("/json"));
    ["/version", "/events", "/containers/json", "/networks"].contains(&path)
        || id.or(image).is_some_and(|id| id.len() == 64)
}

async fn serve(listener: UnixListener, upstream: PathBuf, requests: Arc<Mutex<Vec<String>>>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(relay(stream, upstream.clone(), Arc::clone(&requests)));
    }
}

/// Handles one request per connection, as the source sends them.
async fn relay(mut downstream: UnixStream, upstream: PathBuf, requests: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if downstream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    let request = line.split(['?', ' ']).take(2).collect::<Vec<_>>().join(" ");
    let allowed = is_allowed(&request);
    requests.lock().unwrap().push(request);
    if !allowed {
        let refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        downstream.write_all(refusal).await.unwrap_or_default();
        return;
    }
    let mut upstream = UnixStream::connect(upstream).await.unwrap();
    upstream.write_all(&head).await.unwrap_or_default();
    copy_bidirectional(&mut downstream, &mut upstream).await.unwrap_or_default();
}
