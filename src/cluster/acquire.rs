//! Hold and retry: how a session gets an endpoint, however long that takes.
//!
//! ```text
//!                            ┌──────────── changed, or back-off ────────────┐
//!                            ▼                                              │
//!   ──► a place? ──yes──► try each choice ──none answers──► wait (held) ────┘
//!          │ ▲               │                                │
//!       no ▼ │ called        ▼                                ▼
//!     wait (held)        connected               hold over, consumer left, forced
//! ```
//!
//! An attempt needs a file descriptor. A session that waits has returned it, and takes one again before the next round.
//!
//! While an operator has paused the route, no choice is tried, and `hold` does not run: it bounds how long the service may
//! be away, and the operator says when a pause ends. A dial under way is given up when the route is paused or its endpoint
//! withdrawn (drained, switched away, removed), when the consumer leaves, and when the process ends all sessions.

use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

pub use super::attempt::Dial;
use super::attempt::Round;
use super::turnstile::{Slot, Waiting};
use super::{Cluster, ConnectError, InFlight, Members};
use crate::budget::{Budget, guarantee};
use crate::ending::Ending;
use crate::route::Options;

/// Pauses between two rounds of attempts. A restarting service is back in tens of milliseconds at best, so the first
/// pauses are short; at a second, ten thousand held sessions cost a thousand refused connects a core and second at worst.
/// The first session that gets through wakes all others, so that none waits out its own pause.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Bounds the sessions that wait, over all routes (`--max-held`), each of which has a share of it.
#[derive(Debug)]
pub struct Gate {
    held: Budget,
    pub(super) trouble: Arc<Notify>,
}

/// What getting an endpoint took, for the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    pub attempts: u32,
    /// Why the last attempt that failed did.
    pub error: Option<ConnectError>,
    /// From the first attempt that failed to the one that did not, or to the end.
    pub held: Duration,
}

impl Gate {
    pub fn new(max: usize) -> Gate {
        Gate { held: Budget::new(max), trouble: Arc::default() }
    }

    /// Notified whenever endpoints do not answer: time to ask again where the service is.
    pub fn trouble(&self) -> Arc<Notify> {
        self.trouble.clone()
    }

    /// Guarantees each of these clusters, which are all that there are, as many places as the others.
    pub fn divide<'c>(&self, clusters: impl ExactSizeIterator<Item = &'c Cluster>) {
        let each = guarantee(self.held.max(), clusters.len(), 1);
        clusters.for_each(|cluster| self.held.set_guarantee(&cluster.held, each));
    }

    /// Of a cluster that is closed.
    pub fn withdraw(&self, cluster: &Cluster) {
        self.held.set_guarantee(&cluster.held, 0);
    }

    fn enter<'g>(&'g self, cluster: &'g Cluster) -> Option<Place<'g>> {
        if !self.held.take([&cluster.held], 0) {
            return None;
        }
        cluster.counters.held.fetch_add(1, Relaxed);
        Some(Place { gate: self, cluster })
    }
}

/// A held session's place in the queue; left on drop.
struct Place<'g> {
    gate: &'g Gate,
    cluster: &'g Cluster,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.gate.held.give_back([&self.cluster.held]);
        self.cluster.counters.held.fetch_sub(1, Relaxed);
    }
}

/// A session on its way to an endpoint.
struct Hold<'h, D> {
    cluster: &'h Cluster,
    gate: &'h Gate,
    dialler: &'h D,
    effort: &'h mut Effort,
    /// When it began to wait.
    began: Option<Instant>,
    /// Of that, while the route was paused.
    paused: Duration,
    place: Option<Place<'h>>,
    /// It was let down by an endpoint, or found none: others that wait may be glad to hear that it got through.
    had_trouble: bool,
}

/// What ended a pause.
#[derive(PartialEq, Eq)]
enum Woken {
    SourceUpdate,
    Time,
}

impl Cluster {
    /// Waits for a place in the route, then dials one endpoint after the other, and all of them again after each change
    /// or pause, until `hold` has passed. `left` resolves when the consumer no longer wants to be served.
    pub async fn acquire<D: Dial>(
        &self,
        gate: &Gate,
        client: Option<IpAddr>,
        effort: &mut Effort,
        left: impl Future<Output = io::Result<()>>,
        dialler: &D,
    ) -> Result<(D::Connection, InFlight), Ending> {
        let mut left = pin!(left);
        let mut hold = Hold {
            cluster: self,
            gate,
            dialler,
            effort,
            began: None,
            paused: Duration::ZERO,
            place: None,
            had_trouble: false,
        };
        let slot = hold.slot(left.as_mut()).await?;
        let (connection, in_flight) = hold.endpoint(client, left).await?;
        Ok((connection, in_flight.connected(slot)))
    }
}

impl<D: Dial> Hold<'_, D> {
    /// A place in the route, in the order of coming.
    async fn slot(
        &mut self,
        mut left: Pin<&mut impl Future<Output = io::Result<()>>>,
    ) -> Result<Slot, Ending> {
        let cluster = self.cluster;
        let max = cluster.glance().options.max_sessions;
        if let Some(slot) = cluster.turnstile.enter(max, false) {
            return Ok(slot);
        }
        let mut waiting = cluster.turnstile.slots.join();
        loop {
            let changed = pin!(cluster.changed.notified());
            if cluster.is_paused() {
                self.sit_out(changed, left.as_mut()).await?;
                continue;
            }
            let Options { max_sessions, hold, .. } = cluster.glance().options;
            if let Some(slot) = cluster.turnstile.enter(max_sessions, true) {
                return Ok(slot);
            }
            let remaining = self.remaining(hold, Ending::TooMany)?;
            self.wait(remaining, called_or(Some(&mut waiting), changed), left.as_mut()).await?;
        }
    }

    async fn endpoint(
        &mut self,
        client: Option<IpAddr>,
        mut left: Pin<&mut impl Future<Output = io::Result<()>>>,
    ) -> Result<(D::Connection, InFlight), Ending> {
        let cluster = self.cluster;
        let mut waiting = None;
        let mut backoff = BACKOFF_MIN;
        loop {
            // Made before the members are read: it counts the changes from here on, so that none in between is missed.
            let changed = pin!(cluster.changed.notified());
            if cluster.is_paused() {
                self.sit_out(changed, left.as_mut()).await?;
                continue;
            }
            let members = cluster.members();
            if !self.dialler.try_reserve() {
                self.reserve(&members, left.as_mut()).await?;
                continue;
            }
            let (asked, full) = match self.round(&members, client, waiting.is_some(), left.as_mut()).await? {
                Round::Connected(connection, in_flight) => return Ok((connection, in_flight)),
                Round::Nobody { full: true, .. } if waiting.is_none() => {
                    // Room that came free in between is found by looking once more.
                    waiting = Some(cluster.turnstile.room.join());
                    continue;
                }
                Round::Nobody { asked, full } => (asked, full),
                Round::Changed => continue,
            };
            let remaining =
                self.remaining(members.options.hold, expired(&members, self.effort, asked, full))?;
            let pause = match (members.is_empty(), asked) {
                (false, true) => cluster.jittered(backoff).min(remaining),
                // Without an endpoint there is nothing to retry, but whoever knows of one may be asked again. Where all
                // are full, whoever leaves calls; this is for those who failed, and called nobody.
                (true, _) | (false, false) => cluster.jittered(BACKOFF_MAX).min(remaining),
            };
            let woken = self.wait(pause, called_or(waiting.as_mut(), changed), left.as_mut()).await?;
            backoff = if woken == Woken::SourceUpdate { BACKOFF_MIN } else { (backoff * 2).min(BACKOFF_MAX) };
        }
    }

    /// Waits for a file descriptor.
    async fn reserve(
        &mut self,
        members: &Members,
        left: Pin<&mut impl Future<Output = io::Result<()>>>,
    ) -> Result<(), Ending> {
        let expired = if self.effort.attempts == 0 { Ending::Local } else { Ending::HoldExpired };
        let remaining = self.remaining(members.options.hold, expired)?;
        self.wait(remaining, self.dialler.reserve(), left).await.map(drop)
    }

    async fn round(
        &mut self,
        members: &Arc<Members>,
        client: Option<IpAddr>,
        has_waited: bool,
        left: Pin<&mut impl Future<Output = io::Result<()>>>,
    ) -> Result<Round<D::Connection>, Ending> {
        let Hold { cluster, gate, dialler, .. } = *self;
        let is_limited = members.options.max_sessions_per_endpoint.is_some();
        if is_limited && !has_waited && cluster.turnstile.room.is_busy() {
            return Ok(Round::Nobody { asked: false, full: true });
        }
        let round = cluster.try_each(gate, members, client, self.effort, dialler, left).await?;
        match round {
            Round::Connected(..) if self.had_trouble => cluster.changed.notify_waiters(),
            Round::Nobody { asked, full } if asked || !full => {
                self.had_trouble = true;
                gate.trouble.notify_waiters();
            }
            Round::Connected(..) | Round::Nobody { .. } | Round::Changed => {}
        }
        Ok(round)
    }

    /// Waits for the operator, however long that takes.
    async fn sit_out(
        &mut self,
        changed: Pin<&mut Notified<'_>>,
        left: Pin<&mut impl Future<Output = io::Result<()>>>,
    ) -> Result<(), Ending> {
        let since = Instant::now();
        self.is_held()?;
        let woken = self.wait(Duration::MAX, changed, left).await;
        self.paused += since.elapsed();
        woken.map(drop)
    }

    /// What is left of the time to wait; `expired` when that is nothing.
    fn remaining(&mut self, hold: Duration, expired: Ending) -> Result<Duration, Ending> {
        self.effort.held = self.began.get_or_insert_with(Instant::now).elapsed();
        let counted = self.effort.held.saturating_sub(self.paused);
        let remaining = hold.checked_sub(counted).filter(|rest| !rest.is_zero()).ok_or(expired)?;
        self.is_held()?;
        Ok(remaining)
    }

    /// From the first time on that this is said.
    fn is_held(&mut self) -> Result<(), Ending> {
        self.began.get_or_insert_with(Instant::now);
        if self.place.is_none() {
            self.place = Some(self.gate.enter(self.cluster).ok_or(Ending::HoldFull)?);
        }
        Ok(())
    }

    async fn wait(
        &mut self,
        pause: Duration,
        news: impl Future<Output = ()>,
        left: Pin<&mut impl Future<Output = io::Result<()>>>,
    ) -> Result<Woken, Ending> {
        self.dialler.release();
        let outcome = tokio::select! {
            biased;
            () = self.cluster.force.cancelled() => Err(Ending::Drained),
            _ = left => Err(Ending::LeftWhileHeld),
            () = news => Ok(Woken::SourceUpdate),
            () = tokio::time::sleep(pause) => Ok(Woken::Time),
        };
        self.effort.held = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        outcome
    }
}

async fn called_or(waiting: Option<&mut Waiting<'_>>, changed: Pin<&mut Notified<'_>>) {
    match waiting {
        Some(waiting) => tokio::select! {
            biased;
            () = waiting.called() => {}
            () = changed => {}
        },
        None => changed.await,
    }
}

/// What to call it if there is no time left to wait.
fn expired(members: &Members, effort: &Effort, asked: bool, full: bool) -> Ending {
    match (effort.attempts, members.options.hold.is_zero()) {
        _ if full && !asked => Ending::TooMany,
        (0, _) => Ending::NoEndpoint,
        (_, true) => Ending::ConnectFailed,
        (_, false) => Ending::HoldExpired,
    }
}

#[cfg(test)]
mod tests;
