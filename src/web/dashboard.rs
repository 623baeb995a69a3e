//! `ambassador dashboard`: serves the page on a loopback address for a running ambassador, and forwards to its admin API.

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures_util::FutureExt;
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use tokio::net::TcpListener;

use super::token::Token;
use super::{Access, Page};
use crate::admin::address::{Choice, bind_tcp};
use crate::admin::client::{self, AdminRequest, ClientError};
use crate::admin::{self, Guard, Handler, Rejection, Request, Response, Streaming};

/// A bound server of the page.
pub(crate) struct Dashboard {
    listener: TcpListener,
    handler: Handler,
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
        let listener = bind_tcp(addr).map_err(|source| DashboardError::Bind { addr, source })?;
        let token = Token::random().map_err(|_| DashboardError::NoRandom)?;
        let api: Handler = Arc::new(move |request, streaming| {
            let choice = choice.clone();
            async move { forward(&choice, request, &streaming).await.unwrap_or_else(admin::failure) }.boxed()
        });
        let page = Page { api, guard: Guard::Tcp { names: [].into() }, access: Access::Token(token.clone()) };
        Ok(Dashboard { listener, handler: page.handler(), token })
    }

    /// Returns the address to open, which contains the token. A browser does not send what follows the `#`.
    pub(crate) fn address(&self) -> io::Result<String> {
        Ok(format!("http://{}/#token={}", self.listener.local_addr()?, self.token.expose()))
    }

    /// Serves until it is dropped.
    pub(crate) async fn serve(self) {
        let _serving = admin::serve_tcp(self.listener, self.handler);
        pending::<()>().await;
    }
}

/// Sends a request to the ambassador, and its response back as it arrives.
async fn forward(choice: &Choice, request: Request, streaming: &Streaming) -> Result<Response, Rejection> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    if matches!(uri.path(), "/events" | "/watch") {
        streaming.begin();
    }
    let body = String::from_utf8_lossy(&admin::read_body(request).await?).into_owned();
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let response = client::open(choice, &AdminRequest { method, path, body }).await;
    let (head, body) = response.map_err(|error| (StatusCode::BAD_GATEWAY, error.to_string()))?.into_parts();
    let content_type = head.headers.get(header::CONTENT_TYPE).cloned();
    let content_type = content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    Ok(admin::with_body(head.status, content_type, body.map_err(Into::into).boxed_unsync()))
}
