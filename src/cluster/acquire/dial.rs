//! How a session connects to an endpoint, and what that took.

use std::io;
use std::time::Duration;

use crate::cluster::{ConnectError, Endpoint};
use crate::fd_budget::FdPermit;

/// A transport to an endpoint: a TCP or unix stream, a UDP socket, or, in tests, none.
///
/// Acquiring an endpoint is independent of what is dialled, and the session relays whatever [`Dial::Connection`] is.
pub trait Dial {
    /// What a successful attempt returns.
    type Connection;

    /// Connects to `endpoint`. Fails after `timeout`, but a peer that has answered may hold the session for `hold` in addition.
    fn dial(
        &self,
        endpoint: &Endpoint,
        timeout: Duration,
        hold: Duration,
    ) -> impl Future<Output = io::Result<Self::Connection>> + Send;

    /// Returns whether a successful attempt proves that the endpoint is reachable. Connecting a UDP socket sends nothing.
    fn proves_reachable(&self) -> bool {
        true
    }

    /// Returns how long the client waits to be connected, if it has said so.
    fn client_hold(&self) -> Option<Duration> {
        None
    }

    /// Returns the permit for the descriptor of the connection, or `None` for a transport without one. It is returned to the
    /// budget while the session is held, and taken again before each round of attempts.
    fn permit(&self) -> Option<&FdPermit> {
        None
    }
}

/// What acquiring an endpoint took, for the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectStats {
    /// The number of attempts.
    pub attempts: u32,
    /// The error of the last attempt that failed.
    pub error: Option<ConnectError>,
    /// The time from the first failed attempt to the successful one, or to the end of the session.
    pub held: Duration,
}
