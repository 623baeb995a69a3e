//! The admin API: HTTP on a unix socket, and on TCP only when asked. Shows what the control loop publishes, and hands it
//! the orders of operators.

pub mod address;
mod api;
mod body;
pub mod client;
mod crowd;
mod stream;

use std::pin::pin;
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

/// A client must send its request's head within this time, and each connection serves one request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// All of a connection, slow readers included; but for those that follow the events.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// A bound admin address.
pub struct Admin {
    listener: AdminListener,
    knows: Knows,
}

impl Admin {
    /// `None` where another ambassador has the default address already: this one runs without.
    pub fn bind(choice: &Choice, knows: Knows) -> Result<Option<Admin>, BindError> {
        let listener = address::bind(choice)?;
        Ok(listener.map(|listener| Admin { listener, knows }))
    }

    /// Serves until the handle is dropped.
    pub fn serve(self) -> AbortOnDropHandle<()> {
        #[expect(clippy::disallowed_methods, reason = "its handle is returned, and ends it when dropped")]
        let task = tokio::spawn(accept_loop(self.listener, api::router(self.knows)));
        AbortOnDropHandle::new(task)
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
