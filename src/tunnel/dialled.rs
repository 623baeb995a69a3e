//! The opening side of a tunnel: opens sessions on the peer.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::Response;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};

use super::liveness::{self, Verdict};
use super::payload::Payload;
use super::stream::{FRAME_BYTES, TunnelStream};
use super::{
    Counted, HEADER_BYTES_MAX, Handshaken, STREAM_WINDOW, STREAMS_MAX, SessionInfo, Side, Status,
    TUNNEL_WINDOW, Tunnel, TunnelEnd, TunnelError, connect_udp, headers,
};
use crate::ending::Ending;
use crate::route::Protocol;

/// The time in which the first frame of a peer must arrive, and how often h2 is asked for it, since it does not report it.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(2);
const SETTINGS_POLL: Duration = Duration::from_millis(2);

/// A tunnel that was silent for longer is probed at once when a session begins.
const SILENT: Duration = Duration::from_secs(1);

/// Interim responses (1xx) to one request; a peer that sends more loses its tunnel. We send none. h2 keeps all that arrive before
/// the session is polled, and returns their memory only when the tunnel ends.
const INTERIM_MAX: usize = 16;

/// A tunnel in which we open the sessions.
#[derive(Clone, Debug)]
pub(super) struct Dialled {
    pub(super) tunnel: Arc<Tunnel>,
    requests: SendRequest<Payload>,
}

/// Why a session was not opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// The tunnel ends or is full; another one may serve the session.
    Tunnel,
    Peer(TunnelError),
    Timeout,
}

/// Makes a connection a tunnel. The second value must be polled until it ends.
pub(super) async fn open_tunnel<T>(
    io: T,
    handshaken: Handshaken,
    may_release: bool,
) -> Result<(Dialled, impl Future<Output = ()> + Send), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(TUNNEL_WINDOW)
        .max_frame_size(u32::try_from(FRAME_BYTES).unwrap_or(u32::MAX))
        .initial_max_send_streams(STREAMS_MAX as usize)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_reset_streams(STREAMS_MAX as usize)
        .enable_push(false);
    let (requests, connection) = builder.handshake::<T, Payload>(io).await?;
    let tunnel = Arc::new(Tunnel::new(handshaken, Side::Client));
    Ok((Dialled { tunnel: tunnel.clone(), requests }, drive(connection, tunnel, may_release)))
}

async fn drive<T: AsyncRead + AsyncWrite + Unpin>(
    mut connection: Connection<T, Payload>,
    tunnel: Arc<Tunnel>,
    may_release: bool,
) {
    let mut watch = pin!(liveness::watch(&tunnel, connection.ping_pong(), may_release));
    let mut is_released = false;
    let mut window = TUNNEL_WINDOW;
    loop {
        tokio::select! {
            biased;
            () = tunnel.cut.cancelled() => break,
            verdict = &mut watch, if !is_released => match verdict {
                Verdict::Lost => break,
                // The connection ends by itself once no session can be opened in it.
                Verdict::Unused => {
                    tunnel.ends(TunnelEnd::Idle);
                    tunnel.drain();
                    is_released = true;
                }
            },
            ended = poll_fn(|cx| {
                if let Some(bytes) = tunnel.changed_window(&mut window) {
                    connection.set_target_window_size(bytes);
                }
                connection.poll_unpin(cx)
            }) => {
                match ended {
                    Ok(()) => tunnel.ends(TunnelEnd::Closed),
                    Err(error) => {
                        tunnel.failed(&error);
                        tracing::debug!(remote = %tunnel.remote, %error, "tunnel failed");
                    }
                }
                break;
            }
        }
    }
    tunnel.cut(Ending::TunnelLost);
}

impl Dialled {
    /// Returns whether another session can be opened. Flows, which a flood from forged addresses opens, leave a quarter of the
    /// streams to other sessions.
    pub(super) fn has_room(&self, protocol: Protocol) -> bool {
        let max = self.requests.current_max_send_streams().min(STREAMS_MAX as usize);
        let max = match protocol {
            Protocol::Tcp => max,
            Protocol::Udp => max - max / 4,
        };
        !self.tunnel.is_closing() && self.tunnel.streams() < max && !self.tunnel.is_clogged()
    }

    /// Opens a session.
    pub(super) async fn open(
        &self,
        protocol: Protocol,
        export: &str,
        info: SessionInfo,
        connect_timeout: Duration,
    ) -> Result<TunnelStream, OpenError> {
        let counted = Counted::new(self.tunnel.clone());
        let malformed = OpenError::Peer(TunnelError::Refused(Status(400)));
        let request = match protocol {
            Protocol::Tcp => headers::request(export, info),
            Protocol::Udp => {
                self.supports_datagrams().await?;
                connect_udp::request(&self.tunnel.remote.to_string(), export, info)
            }
        };
        let request = request.ok_or(malformed)?;
        let Ok(mut requests) = self.requests.clone().ready().await else {
            self.tunnel.drain();
            return Err(self.lost());
        };
        let (response, send) = requests.send_request(request, false).map_err(|_closed| self.lost())?;
        drop(requests);
        let response = tokio::select! {
            biased;
            response = answer(response) => response,
            () = self.tunnel.cut.cancelled() => return Err(self.lost()),
            () = self.answer_overdue(connect_timeout, info.hold.unwrap_or_default()) => return Err(OpenError::Timeout),
        };
        let Some(response) = response else {
            tracing::debug!(remote = %self.tunnel.remote, "tunnel ended: the peer floods interim responses");
            self.tunnel.cut(Ending::TunnelLost);
            return Err(OpenError::Peer(TunnelError::Lost));
        };
        let response = response.map_err(|error| self.failed(&error))?;
        match response.status().as_u16() {
            200..=299 => Ok(TunnelStream::opened(counted, send, response.into_body())),
            status => Err(OpenError::Peer(TunnelError::Refused(Status(status)))),
        }
    }

    /// Resolves when a session waits no longer for the answer to its request: after the connect timeout if the peer does not
    /// even answer a PING, and otherwise when the peer must have held the session for long enough.
    async fn answer_overdue(&self, connect_timeout: Duration, hold: Duration) {
        let began = Instant::now();
        if self.tunnel.silence() > SILENT {
            self.tunnel.ping();
        }
        sleep(connect_timeout / 2).await;
        if self.tunnel.silence() >= began.elapsed() {
            self.tunnel.ping();
        }
        sleep(connect_timeout.saturating_sub(began.elapsed())).await;
        if self.tunnel.silence() < began.elapsed() {
            sleep(hold).await;
        }
    }

    /// Waits until the peer allows the extended CONNECT (RFC 8441, 3), which is in its first frame.
    async fn supports_datagrams(&self) -> Result<(), OpenError> {
        while !self.requests.is_extended_connect_protocol_enabled() {
            if self.tunnel.loss().is_some() {
                return Err(self.lost());
            }
            if self.tunnel.began().elapsed() > SETTINGS_TIMEOUT {
                return Err(OpenError::Peer(TunnelError::NoDatagrams));
            }
            sleep(SETTINGS_POLL).await;
        }
        Ok(())
    }

    fn failed(&self, error: &h2::Error) -> OpenError {
        if error.is_go_away() || error.is_io() {
            self.tunnel.drain();
        }
        match error.reason() {
            Some(Reason::REFUSED_STREAM) => OpenError::Tunnel,
            _ if error.is_reset() => OpenError::Peer(TunnelError::Refused(Status(502))),
            _ => self.lost(),
        }
    }

    /// Returns the error of a session whose tunnel has ended.
    fn lost(&self) -> OpenError {
        self.tunnel.tls_failure().map_or(OpenError::Tunnel, OpenError::Peer)
    }
}

/// Waits for the answer to a request. Returns `None` after too many interim responses.
async fn answer(mut response: ResponseFuture) -> Option<Result<Response<RecvStream>, h2::Error>> {
    let mut interim = 0;
    poll_fn(|cx| {
        while let Poll::Ready(Some(Ok(_skipped))) = response.poll_informational(cx) {
            interim += 1;
            if interim > INTERIM_MAX {
                return Poll::Ready(None);
            }
        }
        response.poll_unpin(cx).map(Some)
    })
    .await
}
