//! Refuses requests that a web page of another site could make a browser send. Pure.
//!
//! A page cannot choose `Host`, `Origin` and `Sec-Fetch-Site`. A foreign name that resolves to our address (DNS rebinding) is
//! visible in `Host`, a page of another site in the other two.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Request, StatusCode, Version};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Of a header value that an error quotes.
const SHOWN_CHARS_MAX: usize = 100;

/// The transport of a request, and the host names that are served on it.
#[derive(Clone, Debug)]
pub(super) enum Guard {
    /// Any host: browsers do not connect to unix sockets.
    Unix,
    /// These names, IP addresses and `localhost`.
    Tcp { names: Arc<[String]> },
}

/// Why a request is not served, with a way out.
pub(super) type Refusal = (StatusCode, String);

impl Guard {
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        self.check_host(request)?;
        self.check_site(request)?;
        if request.method() == Method::POST && !is_json(request.headers()) {
            let why = "an order is JSON: send `content-type: application/json`";
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, why.to_owned()));
        }
        Ok(())
    }

    fn check_host<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let Guard::Tcp { names } = self else { return Ok(()) };
        let mut hosts = hosts(request);
        // Only HTTP/1.0, which no browser speaks, does without.
        if hosts.is_empty() && request.version() >= Version::HTTP_11 {
            hosts.push(String::new());
        }
        match hosts.iter().find(|host| !is_served(host, names)) {
            None => Ok(()),
            Some(host) => Err(forbidden(format!(
                "host `{}` is not served: use an IP address or localhost, or start the ambassador with \
                 `--admin-host NAME`",
                shown(host)
            ))),
        }
    }

    /// `Origin`, where there is one, must be that of the host that is served. On a unix socket no host is known to be ours.
    fn check_site<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let headers = request.headers();
        let is_ours = |site: &HeaderValue| site == "same-origin" || site == "none";
        if let Some(site) = headers.get_all(SEC_FETCH_SITE).iter().find(|site| !is_ours(site)) {
            return Err(no_page("sec-fetch-site", site));
        }
        let own: Vec<String> = match self {
            Guard::Unix => Vec::new(),
            Guard::Tcp { .. } => hosts(request).iter().map(|host| format!("http://{host}")).collect(),
        };
        let is_own = |origin: &HeaderValue| {
            own.iter().any(|own| origin.as_bytes().eq_ignore_ascii_case(own.as_bytes()))
        };
        match headers.get_all(ORIGIN).iter().find(|origin| !is_own(origin)) {
            None => Ok(()),
            Some(origin) => Err(no_page("origin", origin)),
        }
    }
}

fn no_page(header: &str, value: &HeaderValue) -> Refusal {
    forbidden(format!("pages of other sites are not served: `{header}: {}`", shown(&text(value))))
}

fn forbidden(why: String) -> Refusal {
    (StatusCode::FORBIDDEN, why)
}

/// The host of the request line, if it has one, and of each `Host` header.
fn hosts<B>(request: &Request<B>) -> Vec<String> {
    let in_line = request.uri().authority().map(ToString::to_string);
    in_line.into_iter().chain(request.headers().get_all(HOST).iter().map(text)).collect()
}

fn is_served(host: &str, names: &[String]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let host = authority.host();
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_name = |known: &str| name.eq_ignore_ascii_case(known);
    let is_known =
        literal.parse::<IpAddr>().is_ok() || is_name("localhost") || names.iter().any(|known| is_name(known));
    is_known && !authority.as_str().contains('@')
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

/// What the fuzz targets feed: a request's `Host`, `Origin` and target, a line each.
pub(super) fn read_any(text: &str) {
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default();
    let request =
        Request::get(next()).header(HOST, next()).header(ORIGIN, next()).header(SEC_FETCH_SITE, next());
    if let Ok(request) = request.body(()) {
        let guard = Guard::Tcp { names: Arc::from([next().to_owned()]) };
        let _ = guard.check(&request);
    }
}
