//! The admin API: HTTP on a unix socket, and on TCP if configured. Shows what the control loop publishes, and sends it the
//! commands of operators.

pub(crate) mod address;
mod api;
mod body;
pub(crate) mod client;
mod connections;
mod events;
mod exchange;
mod guard;
mod history;
mod state;
mod watch;
mod wire;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

pub use address::BindError;
pub(crate) use address::Choice;
pub(crate) use api::handler;
pub(crate) use connections::Streaming;
pub(crate) use exchange::{Handler, Request, Response, failure, read_body, response, with_body};
pub(crate) use guard::{Guard, Rejection};
pub(crate) use state::AdminState;

use address::AdminListener;
use connections::Connections;

/// Time in which a client must send the head of its request. Each connection serves one request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Lifetime of a connection, slow readers included, unless it streams events.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after an error of `accept`.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The bound admin addresses: a unix socket, TCP, both, or none if none is available.
pub(crate) struct Admin {
    listeners: Vec<AdminListener>,
    state: AdminState,
    /// Host names that are served on TCP.
    hosts: Arc<[String]>,
}

impl Admin {
    /// Binds the admin addresses.
    ///
    /// # Errors
    ///
    /// Returns an error if an address that was configured cannot be bound.
    pub(crate) fn bind(choice: &Choice, hosts: &[String], state: AdminState) -> Result<Admin, BindError> {
        Ok(Admin { listeners: address::bind(choice)?, state, hosts: Arc::from(hosts) })
    }

    /// Returns the bound addresses in the format of `--admin`.
    pub(crate) fn addrs(&self) -> Vec<String> {
        self.listeners.iter().filter_map(|listener| Some(listener.addr().ok()?.to_string())).collect()
    }

    /// Serves until the handles are dropped. Each address has its own connections, so that a flood on TCP does not affect the
    /// unix socket.
    pub(crate) fn serve(self) -> Vec<AbortOnDropHandle<()>> {
        let Admin { listeners, state, hosts } = self;
        let serve = |listener: AdminListener| {
            let guard = match listener {
                AdminListener::Path { .. } | AdminListener::Abstract(_) => Guard::Unix,
                AdminListener::Tcp(_) => Guard::Tcp { names: hosts.clone() },
            };
            serve_on(listener, handler(state.clone(), guard))
        };
        listeners.into_iter().map(serve).collect()
    }
}

/// Serves HTTP on a TCP listener until the handle is dropped.
pub(crate) fn serve_tcp(listener: TcpListener, handler: Handler) -> AbortOnDropHandle<()> {
    serve_on(AdminListener::Tcp(listener), handler)
}

fn serve_on(listener: AdminListener, handler: Handler) -> AbortOnDropHandle<()> {
    #[expect(clippy::disallowed_methods, reason = "its handle is returned, and ends it when dropped")]
    let task = tokio::spawn(accept_loop(listener, handler));
    AbortOnDropHandle::new(task)
}

async fn accept_loop(listener: AdminListener, handler: Handler) {
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok(Some(stream)) => {
                let streaming = Streaming::default();
                connections.add(streaming.clone(), serve(stream, handler.clone(), streaming));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "admin: cannot accept");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    handler: Handler,
    streaming: Streaming,
) {
    let answered = |request| {
        let response = handler(request, streaming.clone());
        async move { Ok::<_, Infallible>(response.await) }
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service_fn(answered));
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = tokio::time::sleep(CONNECTION_TIMEOUT) => {
            if !streaming.is_set() {
                return;
            }
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "admin: request failed");
    }
}

/// Parses the body of a command, the head of a request, and the kernel's table of unix sockets, for the fuzz targets.
#[doc(hidden)]
pub fn read_any(bytes: &[u8]) {
    client::read_any(bytes);
    body::read_any(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        guard::read_any(text);
    }
}
