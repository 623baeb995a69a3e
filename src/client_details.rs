//! What is known of a client beyond its address: from a PROXY protocol header, and from TLS. Pure.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::credentials::PeerIdentity;

/// What is known of a client beyond its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientDetails {
    /// The address that the client connected to, if a PROXY protocol header said so.
    pub destination: Option<SocketAddr>,
    /// The fields of the header that are passed on, as they were received.
    pub tlvs: Vec<u8>,
    /// The name that the client has asked for by SNI, in lower case.
    pub server_name: Option<String>,
    /// The client has begun TLS with the SSLRequest of PostgreSQL, and the endpoint expects it too.
    pub postgres: bool,
    /// How the client uses TLS, if it is terminated here.
    pub tls: Option<ClientTls>,
}

/// How a client uses TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// The version as OpenSSL names it, such as `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite as the standard names it, such as `TLS13_AES_128_GCM_SHA256`.
    pub cipher: String,
    /// The common name in the certificate of the client.
    pub common_name: Option<String>,
    /// The identity of the client, if it has a certificate.
    pub peer: Option<Arc<PeerIdentity>>,
}
