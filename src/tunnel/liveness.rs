//! Notices a peer that has vanished: a PING after a silence, and an answer in time.

use std::future::{pending, poll_fn};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, sleep, timeout_at};

use super::Tunnel;

/// A silence after which a PING is sent, with sessions and without.
const SILENCE: Duration = Duration::from_secs(3);
const SILENCE_UNUSED: Duration = Duration::from_secs(10);
/// The time within which anything must be received after a PING. With [`SILENCE`], a peer that vanishes is noticed within 6 s.
const ANSWER: Duration = Duration::from_secs(3);

/// A tunnel without sessions is released after this time, by the side that dialled it.
const UNUSED_MAX: Duration = Duration::from_secs(300);

/// How a tunnel that was watched ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The peer does not answer.
    Lost,
    /// It has had no session for five minutes.
    Unused,
}

/// Watches a tunnel with the PINGs of its connection, which h2 gives away once. Cancelled when the connection ends. The end of the
/// peer's certificate is noticed as late as a PING would be due.
pub(super) async fn watch(tunnel: &Tunnel, pings: Option<PingPong>, may_release: bool) -> Verdict {
    let Some(pings) = pings else { return pending().await };
    let mut pings = Pings { pings, sent: None };
    // Measures the round trip, and shows that the peer has accepted our certificate.
    if !pings.is_answered(tunnel).await {
        return Verdict::Lost;
    }
    let mut unused_since = Instant::now();
    loop {
        tunnel.drain_if_expired();
        if tunnel.streams() > 0 {
            unused_since = Instant::now();
        } else if may_release && unused_since.elapsed() >= UNUSED_MAX {
            return Verdict::Unused;
        }
        if is_due(tunnel).await && !pings.is_answered(tunnel).await {
            return Verdict::Lost;
        }
    }
}

/// Waits until a PING may be due, and returns whether it is.
async fn is_due(tunnel: &Tunnel) -> bool {
    let due = if tunnel.streams() > 0 { SILENCE } else { SILENCE_UNUSED };
    let Some(rest) = due.checked_sub(tunnel.silence()).filter(|rest| !rest.is_zero()) else { return true };
    tokio::select! {
        biased;
        () = tunnel.ping_requested() => true,
        () = sleep(rest) => false,
    }
}

/// The PINGs of one connection, of which h2 allows one at a time.
struct Pings {
    pings: PingPong,
    /// When the one that is not answered yet was sent.
    sent: Option<Instant>,
}

impl Pings {
    /// Sends a PING, and waits until it is answered. Returns whether anything was received in time: under load the answer may
    /// wait behind other frames.
    async fn is_answered(&mut self, tunnel: &Tunnel) -> bool {
        let now = Instant::now();
        if self.sent.is_none() && self.pings.send_ping(Ping::opaque()).is_ok() {
            self.sent = Some(now);
        }
        match timeout_at(now + ANSWER, poll_fn(|cx| self.pings.poll_pong(cx))).await {
            Ok(Ok(_pong)) => {
                if let Some(sent) = self.sent.take() {
                    tunnel.set_rtt(sent.elapsed());
                }
                true
            }
            // The connection has failed, which its own task notices.
            Ok(Err(_)) => pending().await,
            Err(_) => tunnel.silence() < ANSWER,
        }
    }
}
