//! Asks an endpoint whether it is well: one connection, one question, one answer.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use crate::address::EndpointAddr;
use crate::cluster::reach::cause;
use crate::connect;
use crate::route::Check;
use crate::socket::Socket;

/// One way to ask. The tests have others.
pub trait Probe: Send + Sync + 'static {
    /// `Err` is for people: why it is not well.
    fn probe(
        &self,
        check: &Check,
        addr: &EndpointAddr,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), String>> + Send;
}

/// Over the network.
#[derive(Clone, Copy, Debug)]
pub struct Network;

impl Probe for Network {
    async fn probe(&self, check: &Check, addr: &EndpointAddr, timeout: Duration) -> Result<(), String> {
        match tokio::time::timeout(timeout, ask(check, addr, timeout)).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(cause(&error)),
            Err(_) => Err(format!("no answer within {}", humantime::format_duration(timeout))),
        }
    }
}

/// What is said and what is understood.
struct Language {
    question: Vec<u8>,
    is_whole: fn(&[u8]) -> bool,
    judge: fn(&[u8]) -> Result<(), String>,
}

impl Language {
    /// `None`: a connection says enough.
    fn of(check: &Check, addr: &EndpointAddr) -> Option<Language> {
        match check {
            Check::Off | Check::Tcp => None,
            Check::Redis => {
                Some(Language { question: PING.to_vec(), is_whole: has_line, judge: judge_redis })
            }
            Check::Postgres => Some(Language {
                question: startup_packet(),
                is_whole: is_whole_postgres,
                judge: judge_postgres,
            }),
            Check::Http(path) => {
                Some(Language { question: request(path, addr), is_whole: has_line, judge: judge_http })
            }
        }
    }
}

/// The outer error is one of the network, the inner one of what was answered.
async fn ask(check: &Check, addr: &EndpointAddr, timeout: Duration) -> io::Result<Result<(), String>> {
    let socket = connect::dial(addr, timeout).await?;
    let Some(Language { question, is_whole, judge }) = Language::of(check, addr) else {
        // A close by RST, so that ten thousand checks leave no ten thousand ports in TIME_WAIT.
        socket.reset_on_close();
        return Ok(Ok(()));
    };
    // A fresh socket takes a hundred bytes at once.
    if socket.try_write(&question)? < question.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(judge(&answer(&socket, is_whole).await?))
}

/// What comes, until it is whole, or all, or more than any answer that we would understand.
async fn answer(socket: &Socket, is_whole: fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut buffer = [0; 512];
    while !is_whole(&answer) && answer.len() < ANSWER_MAX {
        match poll_fn(|cx| socket.poll_read(cx, &mut buffer)).await? {
            0 => break,
            received => answer.extend_from_slice(buffer.get(..received).unwrap_or_default()),
        }
    }
    Ok(answer)
}

/// A first line, or an error packet.
const ANSWER_MAX: usize = 8 << 10;

fn has_line(answer: &[u8]) -> bool {
    answer.contains(&b'\n')
}

fn first_line(answer: &[u8]) -> String {
    let line = answer.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line).chars().take(100).collect()
}

fn not_understood(answer: &[u8]) -> String {
    match answer {
        [] => "closed the connection without an answer".to_owned(),
        _ => format!("answered {:?}", first_line(answer)),
    }
}

// === redis: the RESP protocol, redis.io/docs/reference/protocol-spec ===

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// `-NOAUTH` is the answer of one that is well and has a password. `-LOADING` and the like are not well.
fn judge_redis(answer: &[u8]) -> Result<(), String> {
    if answer.starts_with(b"+PONG\r") || answer.starts_with(b"-NOAUTH ") {
        return Ok(());
    }
    Err(not_understood(answer))
}

// === PostgreSQL: "Message Formats" in its manual ===

/// Protocol 3.0, and a user that need not exist.
fn startup_packet() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0ambassador\0database\0postgres\0\0";
    let length = u32::try_from(body.len() + 4).unwrap_or_default().to_be_bytes();
    [length.as_slice(), body].concat()
}

/// All but an error is known by its first byte.
fn is_whole_postgres(answer: &[u8]) -> bool {
    match answer {
        [b'E', a, b, c, d, fields @ ..] => fields.len() + 4 >= u32::from_be_bytes([*a, *b, *c, *d]) as usize,
        [first, ..] => *first != b'E',
        [] => false,
    }
}

/// `cannot_connect_now`: it starts, stops or recovers. `pg_isready` says "rejecting connections".
const CANNOT_CONNECT_NOW: &[u8] = b"C57P03";

/// A request to authenticate, or any other error: that somebody is not let in is said by one that is well.
fn judge_postgres(answer: &[u8]) -> Result<(), String> {
    match answer {
        [b'R', ..] => Ok(()),
        [b'E', _, _, _, _, fields @ ..] => {
            let mut fields = fields.split(|byte| *byte == 0);
            let refuses = fields.clone().any(|field| field == CANNOT_CONNECT_NOW);
            let message = fields.find(|field| field.starts_with(b"M")).unwrap_or_default();
            if refuses {
                Err(String::from_utf8_lossy(message.get(1..).unwrap_or_default()).into())
            } else {
                Ok(())
            }
        }
        _ => Err(not_understood(answer)),
    }
}

// === HTTP/1.1, RFC 9112 ===

fn request(path: &str, addr: &EndpointAddr) -> Vec<u8> {
    let host = match addr {
        EndpointAddr::Inet(addr) => addr.to_string(),
        EndpointAddr::Unix(_) => "localhost".to_owned(),
    };
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ambassador/{version} health\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    )
    .into_bytes()
}

fn judge_http(answer: &[u8]) -> Result<(), String> {
    let line = first_line(answer);
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    match status.map(str::as_bytes) {
        Some([b'2' | b'3', _, _]) => Ok(()),
        _ => Err(not_understood(answer)),
    }
}

/// What the fuzz targets feed: any answer to any question.
#[doc(hidden)]
pub fn read_any(answer: &[u8]) {
    let _ = (has_line(answer), is_whole_postgres(answer));
    let _ = (judge_redis(answer), judge_postgres(answer), judge_http(answer));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_is_well_when_it_answers_or_asks_who_we_are() {
        for (answer, expected) in [
            ("+PONG\r\n", Ok(())),
            ("-NOAUTH Authentication required.\r\n", Ok(())),
            ("-LOADING Redis is loading\r\n", Err("answered \"-LOADING Redis is loading\"")),
            ("HTTP/1.1 400 Bad Request\r\n", Err("answered \"HTTP/1.1 400 Bad Request\"")),
            ("", Err("closed the connection without an answer")),
        ] {
            assert_eq!(judge_redis(answer.as_bytes()), expected.map_err(str::to_owned));
        }
    }

    fn postgres_error(code: &str) -> Vec<u8> {
        let fields = format!("SFATAL\0VFATAL\0C{code}\0Mthe database system is starting up\0\0");
        let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
        [b"E", length.as_slice(), fields.as_bytes()].concat()
    }

    #[test]
    fn postgres_is_well_when_it_would_let_somebody_in() {
        assert_eq!(judge_postgres(b"R\0\0\0\x08\0\0\0\x05"), Ok(()));
        assert_eq!(judge_postgres(&postgres_error("28000")), Ok(()), "no such role");
        let starting = "the database system is starting up".to_owned();
        assert_eq!(judge_postgres(&postgres_error("57P03")), Err(starting));
        assert!(judge_postgres(b"").is_err() && judge_postgres(b"HTTP/1.1 400").is_err());
        let error = postgres_error("57P03");
        let whole = (0..=error.len()).find(|length| is_whole_postgres(&error[..*length]));
        assert_eq!(whole, Some(error.len()), "an error is read to its end");
    }

    #[test]
    fn a_startup_packet_is_what_the_manual_says() {
        let packet = startup_packet();
        assert_eq!(packet[..8], [0, 0, 0, packet.len() as u8, 0, 3, 0, 0]);
        assert!(packet.ends_with(b"\0\0"));
    }

    #[test]
    fn http_is_well_with_success_and_redirection() {
        for (answer, well) in [
            ("HTTP/1.1 200 OK\r\n", true),
            ("HTTP/1.0 302 Found\r\n", true),
            ("HTTP/1.1 204\r\n", true),
            ("HTTP/1.1 404 Not Found\r\n", false),
            ("HTTP/1.1 503 Service Unavailable\r\n", false),
            ("HTTP/1.1 2000 ?\r\n", false),
            ("+PONG\r\n", false),
        ] {
            assert_eq!(judge_http(answer.as_bytes()).is_ok(), well, "{answer}");
        }
    }
}
