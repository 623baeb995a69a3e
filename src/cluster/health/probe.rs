//! Health checks over the network: one connection, one request, one response.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use crate::address::EndpointAddr;
use crate::connect::cause;
use crate::proxy_protocol;
use crate::route::{Check, Options, ProxyVersion};
use crate::stream::{Opening, Stream};
use crate::tunnel::SessionInfo;

/// Runs health checks. Tests have implementations without a network.
pub trait Probe: Send + Sync + 'static {
    /// Checks an endpoint once. It gets `header` first.
    ///
    /// # Errors
    ///
    /// Why the endpoint is unhealthy, for people.
    fn probe(
        &self,
        check: &Check,
        addr: &EndpointAddr,
        header: &'static [u8],
        timeout: Duration,
    ) -> impl Future<Output = Result<(), String>> + Send;
}

/// Returns the PROXY protocol header of the checks of a route. It names no client. Empty if they send none.
pub fn proxy_header(options: &Options) -> &'static [u8] {
    match options.send_proxy.filter(|_| options.health_proxy) {
        None => &[],
        Some(ProxyVersion::V1) => proxy_protocol::UNKNOWN,
        Some(ProxyVersion::V2) => proxy_protocol::LOCAL,
    }
}

/// Checks over the network.
#[derive(Clone, Copy, Debug)]
pub struct Network;

impl Probe for Network {
    async fn probe(
        &self,
        check: &Check,
        addr: &EndpointAddr,
        header: &'static [u8],
        timeout: Duration,
    ) -> Result<(), String> {
        match tokio::time::timeout(timeout, exchange(check, addr, header, timeout)).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(cause(&error)),
            Err(_) => Err(format!("no answer within {}", humantime::format_duration(timeout))),
        }
    }
}

/// The request of a check, and how to read the response.
struct CheckProtocol {
    request: Vec<u8>,
    is_complete: fn(&[u8]) -> bool,
    evaluate: fn(&[u8]) -> Result<(), String>,
}

impl CheckProtocol {
    /// Returns `None` for a check that only connects.
    fn of(check: &Check, addr: &EndpointAddr) -> Option<CheckProtocol> {
        match check {
            Check::Off | Check::Tcp => None,
            Check::Redis => Some(CheckProtocol {
                request: PING.to_vec(),
                is_complete: has_line,
                evaluate: evaluate_redis,
            }),
            Check::Postgres => Some(CheckProtocol {
                request: startup_packet(),
                is_complete: is_complete_postgres,
                evaluate: evaluate_postgres,
            }),
            Check::Http(path) => Some(CheckProtocol {
                request: http_request(path, addr),
                is_complete: has_line,
                evaluate: evaluate_http,
            }),
        }
    }
}

/// Returns a network error as the outer result, and the evaluation of the response as the inner one.
async fn exchange(
    check: &Check,
    addr: &EndpointAddr,
    proxy_header: &[u8],
    timeout: Duration,
) -> io::Result<Result<(), String>> {
    let opening = Opening { proxy_header, ..Opening::default() };
    let stream = Stream::dial(addr, SessionInfo::default(), opening, timeout).await?;
    let Some(CheckProtocol { request, is_complete, evaluate }) = CheckProtocol::of(check, addr) else {
        // Closes by RST, so that ten thousand checks do not leave ten thousand ports in TIME_WAIT.
        stream.reset_on_close();
        return Ok(Ok(()));
    };
    // A new socket takes a hundred bytes at once.
    if stream.try_write(&request)? < request.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(evaluate(&read_response(&stream, is_complete).await?))
}

/// Reads until the response is complete, ends, or exceeds [`RESPONSE_MAX`].
async fn read_response(stream: &Stream, is_complete: fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let mut response = Vec::new();
    let mut buffer = [0; 512];
    while !is_complete(&response) && response.len() < RESPONSE_MAX {
        match poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await? {
            0 => break,
            received => response.extend_from_slice(buffer.get(..received).unwrap_or_default()),
        }
    }
    Ok(response)
}

/// Enough for a first line or an error packet.
const RESPONSE_MAX: usize = 8 << 10;

fn has_line(response: &[u8]) -> bool {
    response.contains(&b'\n')
}

fn first_line(response: &[u8]) -> String {
    let line = response.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line).chars().take(100).collect()
}

fn unexpected(response: &[u8]) -> String {
    match response {
        [] => "closed the connection without an answer".to_owned(),
        _ => format!("answered {:?}", first_line(response)),
    }
}

// === redis: the RESP protocol, redis.io/docs/reference/protocol-spec ===

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// `-NOAUTH` is the response of a healthy server with a password. `-LOADING` and similar errors are unhealthy.
fn evaluate_redis(response: &[u8]) -> Result<(), String> {
    if response.starts_with(b"+PONG\r") || response.starts_with(b"-NOAUTH ") {
        return Ok(());
    }
    Err(unexpected(response))
}

// === PostgreSQL: "Message Formats" in its manual ===

/// Returns a startup packet of protocol 3.0. The user need not exist.
fn startup_packet() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0ambassador\0database\0postgres\0\0";
    let length = u32::try_from(body.len() + 4).unwrap_or_default().to_be_bytes();
    [length.as_slice(), body].concat()
}

/// An error must be read to its end; for any other message the first byte is enough.
fn is_complete_postgres(response: &[u8]) -> bool {
    match response {
        [b'E', a, b, c, d, fields @ ..] => fields.len() + 4 >= u32::from_be_bytes([*a, *b, *c, *d]) as usize,
        [first, ..] => *first != b'E',
        [] => false,
    }
}

/// `cannot_connect_now`: the server is starting, stopping or recovering. `pg_isready` reports "rejecting connections".
const CANNOT_CONNECT_NOW: &[u8] = b"C57P03";

/// A request to authenticate is healthy, and so is any other error: only a healthy server rejects a user.
fn evaluate_postgres(response: &[u8]) -> Result<(), String> {
    match response {
        [b'R', ..] => Ok(()),
        [b'E', _, _, _, _, fields @ ..] => {
            let mut fields = fields.split(|byte| *byte == 0);
            let is_unavailable = fields.clone().any(|field| field == CANNOT_CONNECT_NOW);
            let message = fields.find(|field| field.starts_with(b"M")).unwrap_or_default();
            if is_unavailable {
                Err(String::from_utf8_lossy(message.get(1..).unwrap_or_default()).into())
            } else {
                Ok(())
            }
        }
        _ => Err(unexpected(response)),
    }
}

// === HTTP/1.1, RFC 9112 ===

fn http_request(path: &str, addr: &EndpointAddr) -> Vec<u8> {
    let host = match addr {
        EndpointAddr::Inet(addr) => addr.to_string(),
        EndpointAddr::Tls(tls) => tls.name.clone(),
        EndpointAddr::Unix(_) => "localhost".to_owned(),
        EndpointAddr::Peer(peer) => peer.export.clone(),
    };
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ambassador/{version} health\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    )
    .into_bytes()
}

fn evaluate_http(response: &[u8]) -> Result<(), String> {
    let line = first_line(response);
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    match status.map(str::as_bytes) {
        Some([b'2' | b'3', _, _]) => Ok(()),
        _ => Err(unexpected(response)),
    }
}

/// Evaluates a response to every request, for the fuzz targets.
#[doc(hidden)]
pub fn read_any(response: &[u8]) {
    let _ = (has_line(response), is_complete_postgres(response));
    let _ = (evaluate_redis(response), evaluate_postgres(response), evaluate_http(response));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_is_healthy_when_it_answers_or_requires_a_password() {
        for (response, expected) in [
            ("+PONG\r\n", Ok(())),
            ("-NOAUTH Authentication required.\r\n", Ok(())),
            ("-LOADING Redis is loading\r\n", Err("answered \"-LOADING Redis is loading\"")),
            ("HTTP/1.1 400 Bad Request\r\n", Err("answered \"HTTP/1.1 400 Bad Request\"")),
            ("", Err("closed the connection without an answer")),
        ] {
            assert_eq!(evaluate_redis(response.as_bytes()), expected.map_err(str::to_owned));
        }
    }

    fn postgres_error(code: &str) -> Vec<u8> {
        let fields = format!("SFATAL\0VFATAL\0C{code}\0Mthe database system is starting up\0\0");
        let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
        [b"E", length.as_slice(), fields.as_bytes()].concat()
    }

    #[test]
    fn postgres_is_healthy_when_it_authenticates_users() {
        assert_eq!(evaluate_postgres(b"R\0\0\0\x08\0\0\0\x05"), Ok(()));
        assert_eq!(evaluate_postgres(&postgres_error("28000")), Ok(()), "no such role");
        let starting = "the database system is starting up".to_owned();
        assert_eq!(evaluate_postgres(&postgres_error("57P03")), Err(starting));
        assert!(evaluate_postgres(b"").is_err() && evaluate_postgres(b"HTTP/1.1 400").is_err());
        let error = postgres_error("57P03");
        let complete = (0..=error.len()).find(|length| is_complete_postgres(&error[..*length]));
        assert_eq!(complete, Some(error.len()), "an error is read to its end");
    }

    #[test]
    fn startup_packet_has_the_documented_format() {
        let packet = startup_packet();
        assert_eq!(packet[..8], [0, 0, 0, packet.len() as u8, 0, 3, 0, 0]);
        assert!(packet.ends_with(b"\0\0"));
    }

    #[test]
    fn http_is_healthy_with_success_and_redirection() {
        for (response, is_healthy) in [
            ("HTTP/1.1 200 OK\r\n", true),
            ("HTTP/1.0 302 Found\r\n", true),
            ("HTTP/1.1 204\r\n", true),
            ("HTTP/1.1 404 Not Found\r\n", false),
            ("HTTP/1.1 503 Service Unavailable\r\n", false),
            ("HTTP/1.1 2000 ?\r\n", false),
            ("+PONG\r\n", false),
        ] {
            assert_eq!(evaluate_http(response.as_bytes()).is_ok(), is_healthy, "{response}");
        }
    }
}
