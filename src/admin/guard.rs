//! Refuses requests that a web page of another site could make a browser send. Pure.
//!
//! A page cannot choose `Host`, `Origin` and `Sec-Fetch-Site`. A foreign name that resolves to our address (DNS rebinding) is
//! visible in `Host`, a page of another site in the other two.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, StatusCode, Version};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Characters of a header value that an error quotes.
const SHOWN_CHARS_MAX: usize = 100;

/// The transport of a request, and the host names that are served on it.
#[derive(Clone, Debug)]
pub(crate) enum Guard {
    /// Any host: browsers do not connect to unix sockets.
    Unix,
    /// These names, IP addresses and `localhost`.
    Tcp { names: Arc<[String]> },
}

/// Why a request is not served, and what to do instead.
pub(crate) type Rejection = (StatusCode, String);

impl Guard {
    /// Checks the host, the site and the content type of a request.
    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<(), Rejection> {
        self.check_host(request)?;
        self.check_site(request)?;
        if request.method() == Method::POST && !is_json(request.headers()) {
            let why = "a command must be JSON: send `content-type: application/json`";
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, why.to_owned()));
        }
        Ok(())
    }

    fn check_host<B>(&self, request: &Request<B>) -> Result<(), Rejection> {
        let Guard::Tcp { names } = self else { return Ok(()) };
        let mut hosts = hosts(request);
        // Only HTTP/1.0, which no browser uses, does not require it.
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

    /// `Origin`, if present, must be that of the requested host. On a unix socket any `Origin` is rejected.
    fn check_site<B>(&self, request: &Request<B>) -> Result<(), Rejection> {
        let headers = request.headers();
        let is_same = |site: &HeaderValue| site == "same-origin" || site == "none";
        if let Some(site) = headers.get_all(SEC_FETCH_SITE).iter().find(|site| !is_same(site)) {
            return Err(other_site("sec-fetch-site", site));
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
            Some(origin) => Err(other_site("origin", origin)),
        }
    }
}

fn other_site(header: &str, value: &HeaderValue) -> Rejection {
    forbidden(format!("requests of other sites are not allowed: `{header}: {}`", shown(&text(value))))
}

fn forbidden(why: String) -> Rejection {
    (StatusCode::FORBIDDEN, why)
}

/// Returns the host of the request line, if it has one, and of each `Host` header.
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

/// Checks a request whose target, `Host`, `Origin`, `Sec-Fetch-Site` and served name are one line each, for the fuzz targets.
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
