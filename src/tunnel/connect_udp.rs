//! The request for a UDP flow, an extended CONNECT (RFC 8441) by the default template of RFC 9298, and its answer. Pure.
//!
//! ```text
//!   :method CONNECT  :protocol connect-udp  :scheme https  :authority PEER  capsule-protocol ?1
//!   :path /.well-known/masque/udp/{host}/{port}/
//! ```
//!
//! Host and port are those of the export `dns:53`. An export without a port is requested with port 1, since there must be one;
//! it is found by any port, as with CONNECT.

use h2::ext::Protocol;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};

use super::SessionInfo;
use super::headers;

/// The value of `:protocol`.
pub(super) const PROTOCOL: &str = "connect-udp";

const PATH: &str = "/.well-known/masque/udp/";
const ANY_PORT: &str = "1";
const CAPSULE_PROTOCOL: HeaderName = HeaderName::from_static("capsule-protocol");
const TRUE: HeaderValue = HeaderValue::from_static("?1");

/// Returns the request for a flow to `export` of the peer `authority`; `None` if one of them has invalid characters.
pub(super) fn request(authority: &str, export: &str, info: SessionInfo) -> Option<Request<()>> {
    let (host, port) = export.rsplit_once(':').unwrap_or((export, ANY_PORT));
    let path = format!("{PATH}{host}/{port}/");
    let uri = Uri::builder().scheme("https").authority(authority).path_and_query(path).build().ok()?;
    let protocol = Protocol::from_static(PROTOCOL);
    let mut request =
        Request::builder().method(Method::CONNECT).uri(uri).extension(protocol).body(()).ok()?;
    request.headers_mut().insert(CAPSULE_PROTOCOL, TRUE);
    headers::write(request.headers_mut(), info)?;
    Some(request)
}

/// Returns the name and the port of the export that a path requests.
pub(super) fn export(path: &str) -> Option<String> {
    let (host, port) = path.strip_prefix(PATH)?.strip_suffix('/')?.split_once('/')?;
    // They end the path of an address.
    let is_valid =
        !host.is_empty() && !host.contains(['?', '#']) && port.bytes().all(|byte| byte.is_ascii_digit());
    let port: u16 = port.parse().ok().filter(|port| is_valid && *port > 0)?;
    Some(format!("{host}:{port}"))
}

/// Returns the answer to a flow that is connected.
pub(super) fn accepted() -> Response<()> {
    let mut response = headers::accepted();
    response.headers_mut().insert(CAPSULE_PROTOCOL, TRUE);
    response
}

/// Parses any bytes as the path and the header fields of a request, one a line. What is read must be read again after it was written.
#[doc(hidden)]
pub fn read_any(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let path = lines.next().and_then(|path| std::str::from_utf8(path).ok()).unwrap_or_default();
    let mut fields = HeaderMap::new();
    for line in lines {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            fields.append(name, value);
        }
    }
    let (name, info) = (export(path), headers::read(&fields));
    if let Some(request) = name.as_ref().and_then(|name| request("peer", name, info)) {
        assert_eq!((export(request.uri().path()), headers::read(request.headers())), (name, info));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_names_the_export_in_its_path() {
        for (requested, path, read) in [
            ("dns", "/.well-known/masque/udp/dns/1/", "dns:1"),
            ("dns.example.com:53", "/.well-known/masque/udp/dns.example.com/53/", "dns.example.com:53"),
        ] {
            let info = SessionInfo { client: "[2001:db8::7]:5353".parse().ok(), hold: None };
            let request = request("[2001:db8::1]:15008", requested, info).unwrap();
            assert_eq!(request.uri().path(), path);
            assert_eq!(request.uri().authority().unwrap(), "[2001:db8::1]:15008");
            assert_eq!(request.headers()["capsule-protocol"], "?1");
            assert_eq!(headers::read(request.headers()), info);
            assert_eq!(export(path).as_deref(), Some(read));
        }
    }

    #[test]
    fn paths_of_other_forms_are_refused() {
        for path in [
            "",
            "/",
            "/.well-known/masque/udp/dns/53",
            "/.well-known/masque/udp//53/",
            "/.well-known/masque/udp/dns/0/",
            "/.well-known/masque/udp/dns/65536/",
            "/.well-known/masque/udp/dns/+53/",
            "/.well-known/masque/udp/dns//",
            "/.well-known/masque/udp/dns/53/54/",
            "/.well-known/masque/ip/dns/53/",
        ] {
            assert_eq!(export(path), None, "{path}");
        }
    }
}
