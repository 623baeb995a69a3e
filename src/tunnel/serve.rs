//! The serving side of a tunnel: accepts the sessions that the peer opens.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::liveness::{self, Verdict};
use super::payload::Payload;
use super::refusal::Refusal;
use super::stream::{FRAME_BYTES, TunnelStream};
use super::{
    Counted, HEADER_BYTES_MAX, Handshaken, STREAM_WINDOW, STREAMS_MAX, Side, TUNNEL_WINDOW, Tunnel,
    TunnelEnd, connect_udp, headers,
};
use crate::ending::Ending;
use crate::route::Protocol;

/// How long the HTTP/2 preface of a peer may take.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a peer may take to end a tunnel without sessions.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A session that a peer opens.
#[derive(Debug)]
pub struct SessionRequest {
    /// What the session carries.
    pub protocol: Protocol,
    /// The name of an export: the `:authority`, or what the path of a UDP flow names.
    pub export: String,
    /// The client, if the peer tells its address.
    pub client: Option<SocketAddr>,
    /// To be answered.
    pub stream: TunnelStream,
}

/// Serves a tunnel until it ends. `enter` returns whether it is permitted. `admit` is called for each session.
pub(super) async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    handshaken: Handshaken,
    mut admit: impl FnMut(SessionRequest),
    enter: impl FnOnce(&Arc<Tunnel>) -> bool,
) -> Result<(), h2::Error> {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(TUNNEL_WINDOW)
        .max_frame_size(u32::try_from(FRAME_BYTES).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_reset_streams(STREAMS_MAX as usize)
        // Sessions that are held leave in a burst when their clients do.
        .max_pending_accept_reset_streams(STREAMS_MAX as usize)
        .enable_connect_protocol();
    let handshake = builder.handshake::<T, Payload>(io);
    let Ok(connection) = tokio::time::timeout(PREFACE_TIMEOUT, handshake).await else { return Ok(()) };
    let mut connection = connection?;
    let tunnel = Arc::new(Tunnel::new(handshaken, Side::Server));
    if !enter(&tunnel) {
        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        let closed = poll_fn(|cx| connection.poll_closed(cx));
        return tokio::time::timeout(CLOSE_TIMEOUT, closed).await.unwrap_or(Ok(()));
    }
    let mut watch = pin!(liveness::watch(&tunnel, connection.ping_pong(), false));
    let mut is_draining = false;
    let mut window = TUNNEL_WINDOW;
    let result = loop {
        tokio::select! {
            biased;
            () = tunnel.cut.cancelled() => {
                connection.abrupt_shutdown(Reason::NO_ERROR);
                break Ok(());
            }
            verdict = &mut watch => {
                debug_assert_eq!(verdict, Verdict::Lost);
                break Ok(());
            }
            () = tunnel.drained(), if !is_draining => {
                is_draining = true;
                connection.graceful_shutdown();
            }
            () = unused(&tunnel), if is_draining => break Ok(()),
            accepted = poll_fn(|cx| {
                if let Some(bytes) = tunnel.changed_window(&mut window) {
                    connection.set_target_window_size(bytes);
                }
                connection.poll_accept(cx)
            }) => match accepted {
                Some(Ok((request, respond))) => accept(&tunnel, request, respond, &mut admit),
                Some(Err(error)) => {
                    tunnel.failed(&error);
                    break Err(error);
                }
                None => {
                    tunnel.ends(TunnelEnd::Closed);
                    break Ok(());
                }
            },
        }
    };
    tunnel.cut(Ending::TunnelLost);
    result
}

/// Resolves when a tunnel that ends has had no session for a while: a peer that answers has ended it by then.
async fn unused(tunnel: &Tunnel) {
    loop {
        tokio::time::sleep(CLOSE_TIMEOUT).await;
        if tunnel.streams() == 0 {
            return;
        }
    }
}

/// Reads a request, and refuses what is not a session.
fn accept(
    tunnel: &Arc<Tunnel>,
    request: Request<RecvStream>,
    respond: SendResponse<Payload>,
    admit: &mut impl FnMut(SessionRequest),
) {
    let (head, receive) = request.into_parts();
    let info = headers::read(&head.headers);
    let stream = TunnelStream::requested(Counted::new(tunnel.clone()), respond, receive, info.hold);
    let protocol = head.extensions.get::<h2::ext::Protocol>();
    match head.uri.authority() {
        // What peers do not read already fills half of the window: the peer tries another tunnel.
        _ if tunnel.is_clogged() => stream.refuse_unprocessed(),
        Some(authority) if head.method == Method::CONNECT && protocol.is_none() => {
            let export = authority.as_str().to_owned();
            admit(SessionRequest { protocol: Protocol::Tcp, export, client: info.client, stream });
        }
        Some(_) if protocol.is_some_and(|protocol| protocol.as_str() == connect_udp::PROTOCOL) => {
            match connect_udp::export(head.uri.path()) {
                Some(export) => {
                    admit(SessionRequest { protocol: Protocol::Udp, export, client: info.client, stream });
                }
                None => stream.refuse(&Refusal::MALFORMED),
            }
        }
        _ => stream.refuse(&Refusal::MALFORMED),
    }
}
