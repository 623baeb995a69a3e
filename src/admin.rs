//! The admin API: HTTP on a unix socket, and on TCP beside it when asked. Shows what the control loop publishes, and hands it
//! the commands of operators.

pub mod address;
mod api;
mod body;
pub mod client;
mod crowd;
mod find;
mod guard;
mod stream;
mod wire;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

pub use address::{BindError, Choice};
pub use api::Knows;

use address::AdminListener;
use crowd::{Crowd, Follows};
use guard::Guard;

/// A client must send its request's head within this time, and each connection serves one request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// All of a connection, slow readers included; but for those that follow the events.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// The bound admin addresses: a unix socket, TCP, both, or none where none can be had.
pub struct Admin {
    listeners: Vec<AdminListener>,
    knows: Knows,
    /// Names by which it may be reached on TCP.
    hosts: Arc<[String]>,
}

impl Admin {
    pub fn bind(choice: &Choice, hosts: &[String], knows: Knows) -> Result<Admin, BindError> {
        Ok(Admin { listeners: address::bind(choice)?, knows, hosts: Arc::from(hosts) })
    }

    /// As bound, in the words of `--admin`.
    pub fn addrs(&self) -> Vec<String> {
        self.listeners.iter().filter_map(|listener| Some(listener.addr().ok()?.to_string())).collect()
    }

    /// Serves until the handles are dropped. Each address has connections of its own, so that a flood on TCP keeps nobody
    /// from the unix socket.
    pub fn serve(self) -> Vec<AbortOnDropHandle<()>> {
        let Admin { listeners, knows, hosts } = self;
        let serve = |listener: AdminListener| {
            let guard = match listener {
                AdminListener::Path { .. } | AdminListener::Abstract(_) => Guard::Unix,
                AdminListener::Tcp(_) => Guard::Tcp { names: hosts.clone() },
            };
            let router = api::router(knows.clone(), guard);
            #[expect(clippy::disallowed_methods, reason = "its handle is returned, and ends it when dropped")]
            let task = tokio::spawn(accept_loop(listener, router));
            AbortOnDropHandle::new(task)
        };
        listeners.into_iter().map(serve).collect()
    }
}

async fn accept_loop(listener: AdminListener, router: axum::Router) {
    let mut crowd = Crowd::default();
    loop {
        match listener.accept().await {
            Ok(Some(stream)) => {
                let follows = Follows::default();
                let router = router.clone().layer(Extension(follows.clone()));
                crowd.admit(follows.clone(), serve(stream, router, follows));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "admin: cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: axum::Router,
    follows: Follows,
) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = tokio::time::sleep(CONNECTION_TIMEOUT) => {
            if !follows.is_set() {
                return;
            }
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "admin: a request failed");
    }
}

/// What the fuzz targets feed: an order's body, the head of a request, or the kernel's table of unix sockets.
#[doc(hidden)]
pub fn read_any(bytes: &[u8]) {
    find::read_any(bytes);
    body::read_any(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        guard::read_any(text);
    }
}
