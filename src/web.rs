//! The web page: its files, who may open it, and the server of `--web`. Beside its files it serves the paths of the admin API.
//!
//! The page's files are public. Everything else needs the token, if there is one, in `Authorization: Bearer` (RFC 6750). A
//! browser adds that header to no request by itself, so another site cannot use it.

mod dashboard;
mod files;
mod token;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, StatusCode, header};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use dashboard::{Dashboard, DashboardError};

use crate::admin::address::bind_tcp;
use crate::admin::{self, AdminState, Guard, Handler, Rejection, Request, Response, Streaming};
use crate::config::Config;
use crate::config::web::WebSettings;
use crate::diagnostic::Diagnostic;
use token::{Token, TokenFile};

/// Headers of every response. Scripts, styles and requests only of this origin, and no frame around the page.
const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; object-src 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// What a request must present, besides what [`Guard`] checks.
#[derive(Clone, Debug)]
enum Access {
    /// Nothing.
    Open,
    /// The token in this file, which is read at each request.
    File(TokenFile),
    /// This token.
    Token(Token),
}

/// The web page cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// Its address cannot be bound.
    #[error("cannot listen on the address of the web page {addr}: {source}")]
    Bind {
        /// The address of `--web`.
        addr: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// Its token cannot be used.
    #[error("{}", .0.one_line())]
    Token(Diagnostic),
}

/// The bound server of `--web`.
pub(crate) struct Web {
    listener: TcpListener,
    handler: Handler,
}

impl Web {
    /// Binds the address of the configuration. Returns `None` without one.
    ///
    /// # Errors
    ///
    /// Returns an error if the address cannot be bound, or the file has no usable token.
    pub(crate) fn bind(config: &Config, state: AdminState) -> Result<Option<Web>, WebError> {
        let WebSettings { listen: Some(addr), token_file } = &config.settings.web else { return Ok(None) };
        check_token(&config.settings.web).map_err(WebError::Token)?;
        let file = token_file.clone().map(TokenFile::new);
        let listener = bind_tcp(*addr).map_err(|source| WebError::Bind { addr: *addr, source })?;
        let guard = Guard::Tcp { names: config.settings.admin_hosts.clone().into() };
        let api = admin::handler(state, guard.clone());
        let access = file.map_or(Access::Open, Access::File);
        Ok(Some(Web { listener, handler: Page { api, guard, access }.handler() }))
    }

    /// Returns the bound address.
    pub(crate) fn addr(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until the handle is dropped.
    pub(crate) fn serve(self) -> AbortOnDropHandle<()> {
        admin::serve_tcp(self.listener, self.handler)
    }
}

/// Checks that the file of the token, if there is one, has a usable token.
///
/// # Errors
///
/// Returns an error if the file cannot be read, or its token is too short.
pub fn check_token(settings: &WebSettings) -> Result<(), Diagnostic> {
    settings.token_file.clone().map_or(Ok(()), |path| TokenFile::new(path).read().map(drop))
}

/// The page's files, and the API for requests with the token.
struct Page {
    api: Handler,
    guard: Guard,
    access: Access,
}

impl Page {
    fn handler(self) -> Handler {
        let page = Arc::new(self);
        Arc::new(move |request, streaming| {
            let page = page.clone();
            async move { with_headers(page.answer(request, streaming).await) }.boxed()
        })
    }

    async fn answer(&self, request: Request, streaming: Streaming) -> Response {
        if let Err(rejection) = self.guard.check(&request) {
            return admin::failure(rejection);
        }
        if let Some(file) = files::find(request.uri().path()) {
            return file.response(request.method(), request.headers());
        }
        match self.access.check(request.headers().get(header::AUTHORIZATION)) {
            Ok(()) => (self.api)(request, streaming).await,
            Err(rejection) => admin::failure(rejection),
        }
    }
}

fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.extend(HEADERS);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

impl Access {
    /// Checks the value of `Authorization`.
    fn check(&self, given: Option<&HeaderValue>) -> Result<(), Rejection> {
        let token = match self {
            Access::Open => return Ok(()),
            Access::Token(token) => token.clone(),
            Access::File(file) => {
                file.read().map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.one_line()))?
            }
        };
        let why = match given {
            Some(given) if token.is_bearer(given.as_bytes()) => return Ok(()),
            Some(_) => "wrong token",
            None => "a token is needed: `Authorization: Bearer TOKEN`",
        };
        Err((StatusCode::UNAUTHORIZED, why.to_owned()))
    }
}
