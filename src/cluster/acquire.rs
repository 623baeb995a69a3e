//! Acquires an endpoint for a session: admission, attempts, and holding the session between them.
//!
//! ```text
//!                            ┌──────────── changed, or back-off ────────────┐
//!                            ▼                                              │
//!   ──► a slot? ──yes──► try each choice ──none answers──► wait (held) ─────┘
//!          │ ▲               │                                │
//!       no ▼ │ woken         ▼                                ▼
//!     wait (held)        connected               hold expired, client left, forced
//! ```
//!
//! An attempt needs a file descriptor. A session that waits has returned it, and takes one again before the next round.
//!
//! While an operator has paused the route, no endpoint is tried, and `hold` does not run: it bounds how long the service may
//! be away, and the operator decides how long a pause takes. A dial in progress is abandoned when the route is paused or its
//! endpoint withdrawn (drained, switched away, removed), when the client leaves, and when the process ends all sessions.

mod admission;
mod dial;
mod hold_limit;
mod in_flight;
mod round;

use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::time::Instant;

pub(super) use admission::Admission;
pub use dial::{ConnectStats, Dial};
pub use hold_limit::HoldLimit;
pub use in_flight::InFlight;

use super::{Cluster, ConnectError, Members};
use crate::ending::Ending;
use crate::fd_budget::FdPermit;
use crate::route::Options;
use admission::{Slot, Waiter};
use hold_limit::HoldPermit;
use round::{Round, Seeker};

/// Pauses between two rounds of attempts. A restarting service is back in tens of milliseconds at best, so the first
/// pauses are short. At one second, ten thousand held sessions cost at most a thousand refused connects per core and second.
/// The first session that connects wakes the others, so that none waits out its own pause.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A session that is acquiring an endpoint.
struct Acquisition<'h, D> {
    cluster: &'h Cluster,
    hold_limit: &'h HoldLimit,
    dialler: &'h D,
    stats: &'h mut ConnectStats,
    /// When the session began to wait.
    began: Option<Instant>,
    /// How much of the time since then the route was paused.
    paused: Duration,
    hold_permit: Option<HoldPermit<'h>>,
    /// A round has failed. Other sessions are likely held, and are woken when this one connects.
    has_failed: bool,
}

/// What ended a wait.
#[derive(PartialEq, Eq)]
enum Wakeup {
    Notified,
    Timeout,
}

impl Cluster {
    /// Waits for a slot in the route, then dials one endpoint after the other, and all of them again after each change or
    /// back-off, until `hold` has passed, or the client waits no longer. `left` resolves when the client has left.
    ///
    /// # Errors
    ///
    /// The ending of the session if it gets no endpoint.
    pub async fn acquire<D: Dial>(
        &self,
        hold_limit: &HoldLimit,
        client: Option<IpAddr>,
        stats: &mut ConnectStats,
        left: impl Future<Output = io::Result<()>>,
        dialler: &D,
    ) -> Result<(D::Connection, InFlight), Ending> {
        let mut left = pin!(left);
        let mut acquisition = Acquisition {
            cluster: self,
            hold_limit,
            dialler,
            stats,
            began: None,
            paused: Duration::ZERO,
            hold_permit: None,
            has_failed: false,
        };
        let slot = acquisition.admit(left.as_mut()).await?;
        let (connection, in_flight) = acquisition.connect(client, left).await?;
        Ok((connection, in_flight.with_slot(slot)))
    }
}

impl<D: Dial> Acquisition<'_, D> {
    /// Waits for a slot in the route.
    async fn admit(
        &mut self,
        mut left: Pin<&mut impl Future<Output = io::Result<()>>>,
    ) -> Result<Slot, Ending> {
        let cluster = self.cluster;
        let max = cluster.members().options.max_sessions;
        if let Some(slot) = cluster.admission.admit(max, false) {
            return Ok(slot);
        }
        let mut waiter = cluster.admission.slots.join();
        loop {
            let changed = pin!(cluster.changed.notified());
            if cluster.is_paused() {
                self.wait_while_paused(changed, left.as_mut()).await?;
                continue;
            }
            let Options { max_sessions, hold, .. } = cluster.members().options;
            if let Some(slot) = cluster.admission.admit(max_sessions, true) {
                return Ok(slot);
            }
            let remaining = self.remaining(hold, Ending::TooMany)?;
            self.wait(remaining, woken_or(Some(&mut waiter), changed), left.as_mut()).await?;
        }
    }

    /// Connects to an endpoint, in as many rounds as `hold` allows.
    async fn connect(
        &mut self,
        client: Option<IpAddr>,
        mut left: Pin<&mut impl Future<Output = io::Result<()>>>,
    ) -> Result<(D::Connection, InFlight), Ending> {
        let cluster = self.cluster;
        let mut waiter = None;
        let mut backoff = BACKOFF_MIN;
        loop {
            // Created before the members are read, so that a change after that is not missed.
            let changed = pin!(cluster.changed.notified());
            if cluster.is_paused() {
                self.wait_while_paused(changed, left.as_mut()).await?;
                continue;
            }
            let members = cluster.members_arc();
            if !self.dialler.permit().is_none_or(FdPermit::try_reserve) {
                self.reserve(&members, left.as_mut()).await?;
                continue;
            }
            let (attempted, full) =
                match self.round(&members, client, waiter.is_some(), left.as_mut()).await? {
                    Round::Connected(connection, in_flight) => return Ok((connection, in_flight)),
                    Round::Failed { full: true, .. } if waiter.is_none() => {
                        // One more round, for an endpoint that fell below its limit before this session joined the queue.
                        waiter = Some(cluster.admission.endpoints.join());
                        continue;
                    }
                    Round::Failed { attempted, full } => (attempted, full),
                    Round::Changed => continue,
                };
            let expired = expired(&members, self.stats, attempted, full);
            let expired =
                if self.stats.error.is_some_and(ConnectError::is_tls) { Ending::TlsFailed } else { expired };
            let remaining = self.remaining(members.options.hold, expired)?;
            let pause = match (members.is_empty(), attempted) {
                (false, true) => cluster.jittered(backoff).min(remaining),
                // Without an endpoint there is nothing to retry, but a source may be refreshed. Where all endpoints are full, a
                // session that ends wakes the next; the timeout is for those that failed and woke none.
                (true, _) | (false, false) => cluster.jittered(BACKOFF_MAX).min(remaining),
            };
            let wakeup = self.wait(pause, woken_or(waiter.as_mut(), changed), left.as_mut()).await?;
            backoff = if wakeup == Wakeup::Notified { BACKOFF_MIN } else { (backoff * 2).min(BACKOFF_MAX) };
        }
    }

    /// Waits for a file descriptor.
    async fn reserve(
        &mut self,
        members: &Members,
        left: Pin<&mut impl Future<Output = io::Result<()>>>,
    ) -> Result<(), Ending> {
        let Some(permit) = self.dialler.permit() else { return Ok(()) };
        let expired = if self.stats.attempts == 0 { Ending::Local } else { Ending::HoldExpired };
        let remaining = self.remaining(members.options.hold, expired)?;
        self.wait(remaining, permit.reserve(), left).await.map(drop)
    }

    async fn round(
        &mut self,
        members: &Arc<Members>,
        client: Option<IpAddr>,
        has_queued: bool,
        left: Pin<&mut impl Future<Output = io::Result<()>>>,
    ) -> Result<Round<D::Connection>, Ending> {
        let Acquisition { cluster, hold_limit, dialler, .. } = *self;
        let is_limited = members.options.max_sessions_per_endpoint.is_some();
        if is_limited && !has_queued && cluster.admission.endpoints.has_waiters() {
            return Ok(Round::Failed { attempted: false, full: true });
        }
        let seeker = Seeker { client, hold: self.hold_left(members.options.hold) };
        let round = cluster.try_each(hold_limit, members, seeker, self.stats, dialler, left).await?;
        match round {
            Round::Connected(..) if self.has_failed => cluster.changed.notify_waiters(),
            Round::Failed { attempted, full } if attempted || !full => {
                self.has_failed = true;
                hold_limit.request_refresh();
            }
            Round::Connected(..) | Round::Failed { .. } | Round::Changed => {}
        }
        Ok(round)
    }

    /// Waits until the operator changes something, without a limit.
    async fn wait_while_paused(
        &mut self,
        changed: Pin<&mut Notified<'_>>,
        left: Pin<&mut impl Future<Output = io::Result<()>>>,
    ) -> Result<(), Ending> {
        let since = Instant::now();
        self.hold()?;
        let wakeup = self.wait(Duration::MAX, changed, left).await;
        self.paused += since.elapsed();
        wakeup.map(drop)
    }

    /// Returns how much longer the session may wait, or `expired` if `hold` has passed.
    fn remaining(&mut self, hold: Duration, expired: Ending) -> Result<Duration, Ending> {
        self.stats.held = self.began.get_or_insert_with(Instant::now).elapsed();
        let remaining = Some(self.hold_left(hold)).filter(|rest| !rest.is_zero()).ok_or(expired)?;
        self.hold()?;
        Ok(remaining)
    }

    /// Returns how much of `hold`, or of the time that the client waits, is left.
    fn hold_left(&self, hold: Duration) -> Duration {
        let held = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        self.dialler
            .client_hold()
            .map_or(hold, |max| max.min(hold))
            .saturating_sub(held.saturating_sub(self.paused))
    }

    /// Counts the session as held, unless it is already.
    fn hold(&mut self) -> Result<(), Ending> {
        self.began.get_or_insert_with(Instant::now);
        if self.hold_permit.is_none() {
            self.hold_permit = Some(self.hold_limit.hold(self.cluster).ok_or(Ending::HoldFull)?);
        }
        Ok(())
    }

    /// Waits without a descriptor, until `notified` resolves or `pause` has passed.
    async fn wait(
        &mut self,
        pause: Duration,
        notified: impl Future<Output = ()>,
        left: Pin<&mut impl Future<Output = io::Result<()>>>,
    ) -> Result<Wakeup, Ending> {
        if let Some(permit) = self.dialler.permit() {
            permit.release_upstream();
        }
        let outcome = tokio::select! {
            biased;
            () = self.cluster.force.cancelled() => Err(Ending::Drained),
            _ = left => Err(Ending::LeftWhileHeld),
            () = notified => Ok(Wakeup::Notified),
            () = tokio::time::sleep(pause) => Ok(Wakeup::Timeout),
        };
        self.stats.held = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        outcome
    }
}

async fn woken_or(waiter: Option<&mut Waiter<'_>>, changed: Pin<&mut Notified<'_>>) {
    match waiter {
        Some(waiter) => tokio::select! {
            biased;
            () = waiter.woken() => {}
            () = changed => {}
        },
        None => changed.await,
    }
}

/// Returns the ending of a session that has no time left to wait.
fn expired(members: &Members, stats: &ConnectStats, attempted: bool, full: bool) -> Ending {
    match (stats.attempts, members.options.hold.is_zero()) {
        _ if full && !attempted => Ending::TooMany,
        (0, _) => Ending::NoEndpoint,
        (_, true) => Ending::ConnectFailed,
        (_, false) => Ending::HoldExpired,
    }
}

#[cfg(test)]
mod tests;
