//! The name that a TLS client asks for. Its ClientHello stays in the socket.

use std::io;

use super::{Edge, Failure};
use crate::client_hello::{self, HELLO_MAX, Hello, ServerName};
use crate::ending::Ending;
use crate::postgres;
use crate::socket::Socket;

/// The fatal alert `unrecognized_name` (RFC 6066, 3), in a record of TLS 1.2, as every version begins.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// The requests with which a client of PostgreSQL may begin, at most one of each kind.
const POSTGRES_REQUESTS_MAX: usize = 2;

/// What a connection begins with.
#[expect(clippy::large_enum_variant, reason = "as `Hello`")]
enum First {
    Postgres(postgres::Request),
    Hello(Option<ServerName>),
    Invalid(&'static str),
}

impl Edge {
    /// Waits for the ClientHello, and returns the name in it. A client of PostgreSQL is told before to continue with TLS.
    pub(super) async fn server_name(&mut self) -> Result<Option<ServerName>, Failure> {
        for _ in 0..=POSTGRES_REQUESTS_MAX {
            match self.first().await.map_err(|error| Failure::new(Ending::TlsFailed, read_failure(&error)))? {
                First::Hello(name) => return Ok(name),
                First::Invalid(why) => return Err(Failure::new(Ending::TlsFailed, why)),
                First::Postgres(request) => {
                    self.is_postgres = true;
                    // A new connection accepts one byte.
                    let _ = self.socket.try_write(&request.answer());
                }
            }
        }
        Err(Failure::new(Ending::TlsFailed, "the client repeats its request for TLS"))
    }

    async fn first(&self) -> io::Result<First> {
        let first = |bytes: &[u8]| match postgres::Request::parse(bytes) {
            postgres::Parsed::Request(request) => Some((postgres::REQUEST_BYTES, First::Postgres(request))),
            postgres::Parsed::Incomplete => None,
            postgres::Parsed::Other => match client_hello::parse(bytes.get(..HELLO_MAX).unwrap_or(bytes)) {
                Hello::Complete(name) => Some((0, First::Hello(name))),
                Hello::Invalid(why) => Some((0, First::Invalid(why))),
                Hello::Incomplete => None,
            },
        };
        self.socket.read_prefix(first).await
    }

    /// Tells the client that no route serves the name.
    pub(super) async fn refuse_name(self, name: Option<ServerName>) -> Failure {
        refuse(&self.socket).await;
        match name {
            Some(name) => {
                Failure::new(Ending::UnknownName, format!("no route serves the name {}", name.as_str()))
            }
            None => Failure::new(Ending::UnknownName, "the client asks for no name, and no route serves `*`"),
        }
    }
}

/// Sends the alert. Bytes that were not read would make the close reset the connection, and the alert could be lost.
async fn refuse(socket: &Socket) {
    let _ = socket.read_prefix(|bytes| Some((bytes.len(), ()))).await;
    let _ = socket.try_write(&UNRECOGNIZED_NAME);
}

fn read_failure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the client left before its ClientHello was complete",
        _ => "the client reset the connection before its ClientHello was complete",
    }
}
