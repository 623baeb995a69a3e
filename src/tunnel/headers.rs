//! The header fields of a session's CONNECT and of its answer. Pure.
//!
//! ```text
//!   :method CONNECT  :authority redis  forwarded for="10.0.0.7:40312"  ambassador-hold 9250ms
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};

use super::refusal::Refusal;

/// How much longer the dialling side waits for an answer.
const HOLD: HeaderName = HeaderName::from_static("ambassador-hold");
/// RFC 9209.
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// What the dialling side tells the peer about a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionInfo {
    /// The client, if it has an address.
    pub client: Option<SocketAddr>,
    /// How much longer the dialling side waits. `None` for foreign peers.
    pub hold: Option<Duration>,
}

/// Returns the request for a session with `export`; `None` if that cannot be an authority (RFC 3986, 3.2).
pub(super) fn request(export: &str, info: SessionInfo) -> Option<Request<()>> {
    let uri = Uri::builder().authority(export).build().ok()?;
    let mut request = Request::builder().method(Method::CONNECT).uri(uri).body(()).ok()?;
    write(request.headers_mut(), info)?;
    Some(request)
}

/// Adds the information about a session for the peer.
pub(super) fn write(headers: &mut HeaderMap, info: SessionInfo) -> Option<()> {
    if let Some(client) = info.client {
        headers.insert(header::FORWARDED, HeaderValue::from_str(&format!("for=\"{client}\"")).ok()?);
    }
    if let Some(hold) = info.hold {
        headers.insert(HOLD, HeaderValue::from_str(&format!("{}ms", hold.as_millis())).ok()?);
    }
    Some(())
}

/// Reads what the peer tells about a session. What cannot be read is ignored: a foreign peer may use other forms.
pub(super) fn read(headers: &HeaderMap) -> SessionInfo {
    SessionInfo {
        client: text(headers, &header::FORWARDED).and_then(forwarded_for),
        hold: text(headers, &HOLD).and_then(hold),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Returns the address and port of the first `for` (RFC 7239, 4).
fn forwarded_for(value: &str) -> Option<SocketAddr> {
    let first = value.split(',').next()?;
    let pair = first
        .split(';')
        .map(str::trim)
        .find(|pair| pair.get(..4).is_some_and(|name| name.eq_ignore_ascii_case("for=")))?;
    let node = pair.get(4..)?.trim_matches('"');
    let addr: SocketAddr = node.parse().ok()?;
    Some(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
}

fn hold(value: &str) -> Option<Duration> {
    let digits = value.strip_suffix("ms")?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Duration::from_millis(digits.parse().unwrap_or(u64::MAX)))
}

/// Returns the answer to a session that is connected.
pub(super) fn accepted() -> Response<()> {
    Response::new(())
}

/// Returns the answer to a session that is not connected.
pub(super) fn refused(refusal: &Refusal) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(PROXY_STATUS, HeaderValue::from_static(refusal.proxy_status));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_read_as_it_was_written() {
        for client in ["10.0.0.7:40312", "[2001:db8::7]:1"] {
            let info = SessionInfo {
                client: Some(client.parse().unwrap()),
                hold: Some(Duration::from_millis(9250)),
            };
            let request = request("redis", info).unwrap();
            assert_eq!(request.uri().authority().unwrap().as_str(), "redis");
            assert_eq!(read(request.headers()), info);
        }
        assert_eq!(read(request("a:1", SessionInfo::default()).unwrap().headers()), SessionInfo::default());
        assert!(request("a/b", SessionInfo::default()).is_none());
    }

    #[test]
    fn forwarded_is_read_in_all_forms_of_the_rfc() {
        for (value, client) in [
            ("for=\"10.0.0.7:1\"", Some("10.0.0.7:1")),
            ("For=10.0.0.7:1;proto=tcp", Some("10.0.0.7:1")),
            ("by=x; for=\"[::1]:9\"", Some("[::1]:9")),
            ("for=\"[::ffff:10.0.0.7]:9\"", Some("10.0.0.7:9")),
            ("for=\"10.0.0.1:1\", for=\"10.0.0.2:2\"", Some("10.0.0.1:1")),
            ("for=10.0.0.7", None),
            ("for=unknown", None),
            ("for=\"_hidden\"", None),
            ("", None),
        ] {
            assert_eq!(forwarded_for(value), client.map(|client| client.parse().unwrap()), "{value}");
        }
    }

    #[test]
    fn hold_is_a_number_of_milliseconds() {
        assert_eq!(hold("0ms"), Some(Duration::ZERO));
        assert_eq!(hold("99999999999999999999ms"), Some(Duration::from_millis(u64::MAX)));
        for odd in ["", "ms", "5", "5s", "-5ms", "+5ms", " 5ms"] {
            assert_eq!(hold(odd), None, "{odd}");
        }
    }
}
