//! TLS with programs that are not peers: routes that terminate it (`tls`), and endpoints that are reached over it (`tls://`).
//!
//! ```text
//!   files ──► Tls { certificates, CAs } ──► Acceptor  ──► handshake ──► TlsStream
//!                                       └─► connector ──► handshake ──► TlsStream
//! ```

mod accept;
mod certificate;
mod connection;
mod failure;
mod originate;
mod store;
mod stream;
mod watch;

pub use accept::{AcceptedTls, Acceptor};
pub use certificate::CertificateFiles;
pub use failure::{Side, TlsFailure};
pub(crate) use originate::connect;
pub use store::{Prepared, Tls};
pub use stream::TlsStream;
