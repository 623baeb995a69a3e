//! `ambassador dashboard`: serves the page on a loopback address for a running ambassador, and forwards to its admin API.

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

use super::token::Token;
use super::{Access, bind, router};
use crate::admin::address::Choice;
use crate::admin::client::{self, AdminRequest, ClientError};
use crate::admin::{self, Guard, Streaming};

/// The longest body of a command.
const BODY_BYTES_MAX: usize = 64 << 10;

/// A bound server of the page.
pub(crate) struct Dashboard {
    listener: TcpListener,
    router: Router,
    token: Token,
}

/// Why the page cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DashboardError {
    #[error(transparent)]
    Ambassador(#[from] ClientError),
    #[error("cannot listen on {addr}: {source}")]
    Bind { addr: SocketAddr, source: io::Error },
    #[error("the operating system has no random numbers")]
    NoRandom,
}

impl Dashboard {
    /// Finds the running ambassador, and binds a loopback port, any free one if `port` is 0.
    ///
    /// # Errors
    ///
    /// Returns an error if no ambassador answers or the port cannot be bound.
    pub(crate) async fn bind(choice: Choice, port: u16) -> Result<Dashboard, DashboardError> {
        client::send(&choice, &AdminRequest::get("/live")).await?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = bind(addr).map_err(|source| DashboardError::Bind { addr, source })?;
        let token = Token::random().map_err(|_| DashboardError::NoRandom)?;
        let api = Router::new().fallback(forward).with_state(choice);
        let guard = Guard::Tcp { names: [].into() };
        let router = router(api, guard, Access::Token(token.clone()));
        Ok(Dashboard { listener, router, token })
    }

    /// Returns the address to open, which contains the token. A browser does not send what follows the `#`.
    pub(crate) fn address(&self) -> io::Result<String> {
        Ok(format!("http://{}/#token={}", self.listener.local_addr()?, self.token.expose()))
    }

    /// Serves until it is dropped.
    pub(crate) async fn serve(self) {
        let _serving = admin::serve_tcp(self.listener, self.router);
        pending::<()>().await;
    }
}

/// Sends a request to the ambassador, and its response back as it arrives.
async fn forward(State(choice): State<Choice>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return admin::failure(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long");
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    if let Some(streaming) = head.extensions.get::<Streaming>()
        && matches!(head.uri.path(), "/events" | "/watch")
    {
        streaming.begin();
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    match client::open(&choice, &AdminRequest { method: head.method, path, body }).await {
        Ok(response) => {
            let (head, body) = response.into_parts();
            let content_type = head.headers.get(header::CONTENT_TYPE).cloned();
            let content_type = content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
            (head.status, [(header::CONTENT_TYPE, content_type)], Body::new(body)).into_response()
        }
        Err(error) => admin::failure(StatusCode::BAD_GATEWAY, &error.to_string()),
    }
}
