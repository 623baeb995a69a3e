//! Checks a peer step by step, for `ambassador peer check`. Leaves no tunnel and no session behind.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::timeout;

use super::dialled::{Dialled, OpenError, open_tunnel};
use super::handshake::{self, Purpose};
use super::registry::{Registry, unreachable_help};
use super::{SessionInfo, Status, Tunnel, TunnelError};
use crate::address::{EndpointAddr, PeerName};
use crate::connect;
use crate::credentials::{Credentials, HandshakeFailure, Reason};
use crate::events::Events;
use crate::route::Protocol;
use crate::socket::Socket;

/// How long the end of the tunnel may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// One step of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// `credentials`, `dns`, `tcp`, `tls`, `identity`, `export` or `endpoint`.
    pub step: &'static str,
    /// Whether it succeeded. No step follows one that failed.
    pub ok: bool,
    /// What was found, or what is wrong.
    pub result: String,
    /// What to do about a failure.
    pub help: Option<String>,
}

impl Step {
    /// Returns a step that succeeded.
    pub fn done(step: &'static str, result: impl Into<String>) -> Step {
        Step { step, ok: true, result: result.into(), help: None }
    }

    /// Returns a step that failed.
    pub fn failed(step: &'static str, result: impl Into<String>, help: Option<&str>) -> Step {
        Step { step, ok: false, result: result.into(), help: help.map(str::to_owned) }
    }
}

/// What is checked, and with what.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Our credentials.
    pub credentials: Arc<Credentials>,
    /// What the certificate of the peer must contain.
    pub name: PeerName,
    /// The export to open a session with. Without one the tunnel is checked.
    pub export: Option<String>,
    /// The time that each step may take.
    pub limit: Duration,
}

impl Probe {
    /// Checks the peer at an address.
    pub async fn run(&self, addr: SocketAddr) -> Vec<Step> {
        let began = Instant::now();
        let socket = match connect::dial(&EndpointAddr::Inet(addr), self.limit).await {
            Ok(socket) => socket,
            Err(error) => {
                let cause = format!("{addr}: {}", connect::cause(&error));
                return vec![Step::failed("tcp", cause, unreachable_help(&error))];
            }
        };
        let mut steps = vec![Step::done("tcp", format!("{addr}, {}", took(began)))];
        if let Err(error) = self.secure(socket, addr, &mut steps).await {
            let failure = HandshakeFailure::in_error(&error).cloned();
            let failure = failure.unwrap_or_else(|| HandshakeFailure::of(&error, self.credentials.kind()));
            steps.extend(of_handshake(&failure));
        }
        steps
    }

    async fn secure(&self, socket: Socket, addr: SocketAddr, steps: &mut Vec<Step>) -> io::Result<()> {
        let events = Arc::new(Events::default());
        let registry = Arc::new(Registry::new(events.clone()));
        let began = Instant::now();
        let secured =
            handshake::secure(&self.credentials, &registry, socket, addr, &self.name, Purpose::Open);
        let (stream, handshaken) = timeout(self.limit, secured).await??;
        let (dialled, driver) = open_tunnel(stream, handshaken, false).await.map_err(io::Error::other)?;
        let tunnel = dialled.tunnel.clone();
        let mut answered = events.follow();
        let mut driver = pin!(driver);
        // The peer refuses our certificate only after the handshake (RFC 8446, 4.4.2), so its first answer is awaited.
        let silence = tokio::select! {
            biased;
            () = &mut driver => Some(io::ErrorKind::UnexpectedEof),
            answered = timeout(self.limit, answered.changed()) => answered.err().map(|_| io::ErrorKind::TimedOut),
        };
        if let Some(kind) = silence {
            let failure = tunnel.tls_failure.get().cloned();
            return Err(failure.map_or_else(|| kind.into(), io::Error::other));
        }
        steps.push(Step::done("tls", format!("TLS 1.3 and HTTP/2, {}", took(began))));
        steps.push(identity(&tunnel));
        if let Some(export) = &self.export {
            let session = open(dialled, export, self.limit);
            tokio::select! {
                biased;
                opened = session => steps.extend(opened),
                () = &mut driver => steps.push(Step::failed("export", "the peer closed the tunnel", None)),
            }
        } else {
            drop(dialled);
        }
        // The tunnel ends by itself, because no session can be opened in it.
        let _ = timeout(CLOSE_TIMEOUT, driver).await;
        Ok(())
    }
}

fn took(since: Instant) -> String {
    format!("{:.1} ms", since.elapsed().as_secs_f64() * 1e3)
}

fn identity(tunnel: &Tunnel) -> Step {
    let until = humantime::format_rfc3339_seconds(tunnel.peer.not_after);
    Step::done("identity", format!("{}, certificate until {until}", tunnel.peer.identity))
}

/// Opens a session and resets it. It is not held: what is checked is whether the service answers now.
async fn open(dialled: Dialled, export: &str, limit: Duration) -> Vec<Step> {
    let info = SessionInfo { client: None, hold: Some(Duration::ZERO) };
    let known = || Step::done("export", export);
    let endpoint = |why: String, help| vec![known(), Step::failed("endpoint", why, help)];
    match dialled.open(Protocol::Tcp, export, info, limit).await {
        Ok(stream) => {
            stream.reset_on_close();
            vec![known(), Step::done("endpoint", "the service accepts connections")]
        }
        Err(OpenError::Peer(error @ TunnelError::Refused(status))) => match status {
            Status(400 | 403 | 404 | 429) => {
                vec![Step::failed("export", format!("{export}: {error}"), error.help())]
            }
            Status(_) => endpoint(error.to_string(), error.help()),
        },
        Err(OpenError::Peer(error)) => endpoint(error.to_string(), error.help()),
        Err(OpenError::Tunnel) => endpoint(TunnelError::Lost.to_string(), None),
        Err(OpenError::Timeout) => {
            let help = "`ambassador status` on the peer shows its endpoints";
            endpoint(format!("no answer within {}", humantime::format_duration(limit)), Some(help))
        }
    }
}

/// Returns the steps of a handshake that failed: TLS itself, or with TLS the trust of one side in the other.
fn of_handshake(HandshakeFailure { reason, message, help, .. }: &HandshakeFailure) -> Vec<Step> {
    match reason {
        Reason::Version
        | Reason::Alpn
        | Reason::NotTls
        | Reason::Closed
        | Reason::Timeout
        | Reason::Protocol => vec![Step::failed("tls", message, Some(help))],
        _ => vec![Step::done("tls", "TLS 1.3"), Step::failed("identity", message, Some(help))],
    }
}
