//! The admin API: HTTP on a unix socket, and on TCP only when asked. Reads what the control loop publishes.

pub mod address;
pub mod client;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub use address::{BindError, Choice};

use crate::observe::status::Status;
use crate::ready;
use crate::reconcile::Overview;
use address::AdminListener;

/// Requests at one time. More wait in the backlog.
const CONNECTIONS_MAX: usize = 64;
/// A client must send its request's head within this time, and each connection serves one request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// All of a connection, slow readers included.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// A bound admin address.
pub struct Admin {
    listener: AdminListener,
    knows: Knows,
}

/// What the handlers answer from.
#[derive(Clone)]
struct Knows {
    overview: Arc<ArcSwap<Overview>>,
    stop: CancellationToken,
}

impl Admin {
    /// `None` where another ambassador has the default address already: this one runs without.
    pub fn bind(
        choice: &Choice,
        overview: Arc<ArcSwap<Overview>>,
        stop: CancellationToken,
    ) -> Result<Option<Admin>, BindError> {
        let listener = address::bind(choice)?;
        Ok(listener.map(|listener| Admin { listener, knows: Knows { overview, stop } }))
    }

    /// Serves until the handle is dropped.
    pub fn serve(self) -> AbortOnDropHandle<()> {
        #[expect(clippy::disallowed_methods, reason = "its handle is returned, and ends it when dropped")]
        let task = tokio::spawn(accept_loop(self.listener, router(self.knows)));
        AbortOnDropHandle::new(task)
    }
}

fn router(knows: Knows) -> axum::Router {
    axum::Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/status", get(status))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is /live, /ready and /status\n") })
        .with_state(knows)
}

async fn ready(State(knows): State<Knows>) -> Response {
    let reasons = ready::reasons(&knows.overview.load(), knows.stop.is_cancelled());
    if reasons.is_empty() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("\n"))).into_response()
    }
}

async fn status(State(knows): State<Knows>) -> Json<Status> {
    Json(Status::of(&knows.overview.load(), knows.stop.is_cancelled()))
}

async fn accept_loop(listener: AdminListener, router: axum::Router) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok(Some(stream)) => {
                let router = router.clone();
                connections.spawn(async move {
                    serve(stream, router).await;
                    drop(permit);
                });
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "admin: cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: axum::Router) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        tracing::debug!(%error, "admin: a request failed");
    }
}
