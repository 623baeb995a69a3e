//! The client's side (`tls://`, `ca`, `sni`, `cert`): handshakes with endpoints.
//!
//! Each worker keeps the configuration of each endpoint, with the tickets that the endpoint has issued, so that a resumed handshake
//! takes one round trip and no signature. Workers share nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_rustls::rustls::client::{Resumption, UnbufferedClientConnection, WebPkiServerVerifier};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::certificate::Certificates;
use super::failure::{Side, TlsFailure};
use super::store::{Tls, server_name};
use super::stream::TlsStream;
use crate::address::TlsAddr;
use crate::credentials::{CredentialsError, provider};
use crate::socket::Socket;

/// Endpoints of a worker whose tickets are kept. Each may have eight tickets with the chain of its certificate, about 5 KB each.
const ENDPOINTS_MAX: usize = 256;

thread_local! {
    static CONNECTORS: RefCell<HashMap<TlsAddr, Connector>> = RefCell::new(HashMap::new());
}

/// How to connect to one endpoint.
#[derive(Clone, Debug)]
struct Connector {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// The state of the files with which it was built.
    generation: u64,
}

/// Performs a handshake with an endpoint.
///
/// # Errors
///
/// Fails with an error that wraps a [`TlsFailure`], with that of a file, or with `TimedOut`.
pub(crate) async fn connect(
    tls: &Tls,
    addr: &TlsAddr,
    socket: Socket,
    deadline: Instant,
) -> io::Result<TlsStream> {
    let Connector { config, name, .. } = connector(tls, addr).map_err(io::Error::other)?;
    let connection = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
    let stream = TlsStream::client(socket, connection)?;
    let handshake = std::future::poll_fn(|cx| stream.poll_handshake(cx));
    let result = tokio::time::timeout_at(deadline, handshake).await;
    let result = result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match result {
        Ok(()) => Ok(stream),
        Err(error) => {
            tracing::debug!(endpoint = %addr.addr, name = addr.name, "TLS handshake failed: {error}");
            let failure = TlsFailure::of(&error, Side::Endpoint);
            tls.count(failure);
            Err(io::Error::other(failure))
        }
    }
}

fn connector(tls: &Tls, addr: &TlsAddr) -> Result<Connector, CredentialsError> {
    let generation = tls.generation();
    CONNECTORS.with_borrow_mut(|connectors| {
        if let Some(known) = connectors.get(addr).filter(|known| known.generation == generation) {
            return Ok(known.clone());
        }
        let certificates = addr.cert.as_deref().map(|name| tls.certificates(name)).transpose()?;
        let roots = tls.roots(addr.ca.as_deref())?;
        let connector =
            Connector { config: config(roots, certificates)?, name: server_name(&addr.name)?, generation };
        if connectors.len() >= ENDPOINTS_MAX {
            // Endpoints come and go; those that are in use are back after one full handshake.
            connectors.clear();
        }
        connectors.insert(addr.clone(), connector.clone());
        Ok(connector)
    })
}

fn config(
    roots: Arc<RootCertStore>,
    certificates: Option<Certificates>,
) -> Result<Arc<ClientConfig>, CredentialsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
    let verifier = verifier.map_err(|error| CredentialsError::Tls(error.to_string()))?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_webpki_verifier(verifier);
    let mut config = match certificates {
        Some(certificates) => builder.with_client_cert_resolver(Arc::new(certificates)),
        None => builder.with_no_client_auth(),
    };
    // Of one server.
    config.resumption = Resumption::in_memory_sessions(1);
    Ok(Arc::new(config))
}
