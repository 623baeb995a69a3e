//! Hold and retry: how a session gets an endpoint, however long that takes.
//!
//! ```text
//!            ┌──────────── changed, or back-off ────────────┐
//!            ▼                                              │
//!   ──► try each choice ──none answers──► wait (held) ──────┘
//!            │                              │
//!            ▼                              ▼
//!        connected                 hold over, consumer left, forced
//! ```
//!
//! While an operator has paused the route, no choice is tried, and `hold` does not run: it bounds how long the service may
//! be away, and the operator says when a pause ends.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Cluster, Endpoint, Identity, InFlight, Members};
use crate::connect::jittered;
use crate::ending::Ending;

/// Pauses between two rounds of attempts. A restarting service is back in tens of milliseconds at best, so the first
/// pauses are short; at a second, ten thousand held sessions cost a thousand refused connects a core and second at worst.
/// The first session that gets through wakes all others, so that none waits out its own pause.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A dial that takes longer than this is trouble: a local one takes microseconds, one across an ocean 150 ms.
const SLOW_DIAL: Duration = Duration::from_millis(250);

/// Bounds the sessions that wait, over all routes (`--max-held`).
#[derive(Debug)]
pub struct Gate {
    held: AtomicUsize,
    max: usize,
    trouble: Arc<Notify>,
}

/// One way to connect to an endpoint.
pub trait Dial {
    type Connection;

    /// Gives up after `timeout`.
    fn dial(
        &self,
        endpoint: &Endpoint,
        timeout: Duration,
    ) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

/// What getting an endpoint took, for the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    pub attempts: u32,
    /// From the first attempt that failed to the one that did not, or to the end.
    pub held: Duration,
}

impl Gate {
    pub fn new(max: usize) -> Gate {
        Gate { held: AtomicUsize::new(0), max, trouble: Arc::default() }
    }

    /// Notified whenever endpoints do not answer: time to ask again where the service is.
    pub fn trouble(&self) -> Arc<Notify> {
        self.trouble.clone()
    }

    fn enter<'g>(&'g self, cluster: &'g Cluster) -> Option<Place<'g>> {
        if self.held.fetch_add(1, Relaxed) >= self.max {
            self.held.fetch_sub(1, Relaxed);
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
        self.gate.held.fetch_sub(1, Relaxed);
        self.cluster.counters.held.fetch_sub(1, Relaxed);
    }
}

impl Cluster {
    /// Dials one endpoint after the other, and all of them again after each change or pause, until `hold` has passed. `left` resolves when the consumer no longer wants to be served.
    pub async fn acquire<D: Dial>(
        &self,
        gate: &Gate,
        effort: &mut Effort,
        left: impl Future<Output = io::Result<()>>,
        dialler: &D,
    ) -> Result<(D::Connection, InFlight), Ending> {
        let mut left = pin!(left);
        let mut place = None;
        let mut began = None;
        let mut paused = Duration::ZERO;
        let mut backoff = BACKOFF_MIN;
        loop {
            // Registered before the members are read, so that a change in between is not missed.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.is_paused() {
                let (began, since) = (*began.get_or_insert_with(Instant::now), Instant::now());
                if place.is_none() {
                    place = Some(self.enter(gate)?);
                }
                let outcome = tokio::select! {
                    () = changed => Ok(()),
                    _ = &mut left => Err(Ending::LeftWhileHeld),
                    () = self.force.cancelled() => Err(Ending::Drained),
                };
                paused += since.elapsed();
                effort.held = began.elapsed();
                outcome?;
                continue;
            }
            let members = self.members();
            if let Some(connected) = self.try_each(gate, &members, effort, dialler).await {
                if place.is_some() {
                    self.changed.notify_waiters();
                }
                return Ok(connected);
            }
            gate.trouble.notify_waiters();
            let began = *began.get_or_insert_with(Instant::now);
            effort.held = began.elapsed();
            let Some(remaining) = members
                .options
                .hold
                .checked_sub(effort.held.saturating_sub(paused))
                .filter(|rest| !rest.is_zero())
            else {
                return Err(expired(&members, effort));
            };
            if place.is_none() {
                place = Some(self.enter(gate)?);
            }
            // Without an endpoint there is nothing to retry, but whoever knows of one may be asked again.
            let pause = if members.is_empty() { BACKOFF_MAX } else { backoff };
            let pause = jittered(pause).min(remaining);
            let outcome = tokio::select! {
                () = changed => { backoff = BACKOFF_MIN; None }
                () = tokio::time::sleep(pause) => { backoff = (backoff * 2).min(BACKOFF_MAX); None }
                _ = &mut left => Some(Ending::LeftWhileHeld),
                () = self.force.cancelled() => Some(Ending::Drained),
            };
            effort.held = began.elapsed();
            if let Some(ending) = outcome {
                return Err(ending);
            }
        }
    }

    fn enter<'g>(&'g self, gate: &'g Gate) -> Result<Place<'g>, Ending> {
        gate.enter(self).ok_or(Ending::HoldFull)
    }

    /// One round: each choice once, until one answers.
    async fn try_each<D: Dial>(
        &self,
        gate: &Gate,
        members: &Members,
        effort: &mut Effort,
        dialler: &D,
    ) -> Option<(D::Connection, InFlight)> {
        for endpoint in self.choices(members) {
            if endpoint.is_removed() {
                continue;
            }
            effort.attempts = effort.attempts.saturating_add(1);
            let in_flight = InFlight::on(endpoint.clone());
            match dial_watchfully(gate, endpoint, dialler.dial(endpoint, members.options.connect_timeout))
                .await
            {
                Ok(_) if endpoint.is_removed() => {
                    tracing::debug!(endpoint = %endpoint.key, "left while it was dialled");
                }
                Ok(connected) => return Some((connected, in_flight)),
                Err(error) => tracing::debug!(endpoint = %endpoint.key, %error, "connect failed"),
            }
        }
        None
    }
}

/// Dials, but not on when the endpoint has left, and not long without somebody asking where it is.
async fn dial_watchfully<T>(
    gate: &Gate,
    endpoint: &Endpoint,
    dial: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    // An endpoint that was written out never leaves by itself, and nobody knows better where it is.
    if endpoint.key.identity == Identity::Literal {
        return dial.await;
    }
    let mut dial = pin!(dial);
    loop {
        tokio::select! {
            biased;
            result = &mut dial => return result,
            () = endpoint.removed() => return Err(io::ErrorKind::NotFound.into()),
            () = tokio::time::sleep(SLOW_DIAL) => gate.trouble.notify_waiters(),
        }
    }
}

fn expired(members: &Members, effort: &Effort) -> Ending {
    match (effort.attempts, members.options.hold.is_zero()) {
        (0, _) => Ending::NoEndpoint,
        (_, true) => Ending::ConnectFailed,
        (_, false) => Ending::HoldExpired,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::net::SocketAddr;
    use std::sync::Arc;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::cluster::{EndpointAddr, EndpointSpec, Identity};
    use crate::route::Options;

    fn spec(port: u16) -> EndpointSpec {
        let addr = EndpointAddr::Inet(SocketAddr::from(([127, 0, 0, 1], port)));
        EndpointSpec::new(addr, Identity::Literal)
    }

    fn cluster(hold: Duration, endpoints: &[EndpointSpec]) -> Arc<Cluster> {
        let cluster = Cluster::new(Options::named("test"), CancellationToken::new());
        cluster.update(&Options { hold, ..Options::named("test") }, endpoints);
        Arc::new(cluster)
    }

    fn refused() -> io::Error {
        io::ErrorKind::ConnectionRefused.into()
    }

    /// Connects as the function says, at once.
    struct Scripted<F>(F);

    impl<T: Send, F: Fn(&Endpoint) -> io::Result<T>> Dial for Scripted<F> {
        type Connection = T;

        fn dial(&self, endpoint: &Endpoint, _: Duration) -> impl Future<Output = io::Result<T>> + Send {
            ready((self.0)(endpoint))
        }
    }

    async fn acquire(cluster: &Cluster, gate: &Gate, good: u16) -> (Result<(), Ending>, Effort) {
        let mut effort = Effort::default();
        let dialler = Scripted(
            |endpoint: &Endpoint| if endpoint.key == spec(good).key { Ok(()) } else { Err(refused()) },
        );
        let result = cluster.acquire(gate, &mut effort, pending(), &dialler).await.map(|((), _)| ());
        (result, effort)
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_choice_is_tried_at_once() {
        let cluster = cluster(Duration::ZERO, &[spec(1), spec(2), spec(3)]);
        let (result, effort) = acquire(&cluster, &Gate::new(0), 3).await;
        assert_eq!(result, Ok(()));
        assert_eq!(effort, Effort { attempts: 3, held: Duration::ZERO });
    }

    #[tokio::test(start_paused = true)]
    async fn without_hold_a_refusal_is_final() {
        let (result, _) = acquire(&cluster(Duration::ZERO, &[spec(1)]), &Gate::new(9), 2).await;
        assert_eq!(result, Err(Ending::ConnectFailed));
        let (result, _) = acquire(&cluster(Duration::ZERO, &[]), &Gate::new(9), 2).await;
        assert_eq!(result, Err(Ending::NoEndpoint));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_waits_out_its_hold_and_no_longer() {
        let hold = Duration::from_secs(10);
        let (result, effort) = acquire(&cluster(hold, &[spec(1)]), &Gate::new(9), 2).await;
        assert_eq!(result, Err(Ending::HoldExpired));
        assert_eq!(effort.held, hold);
        assert!(effort.attempts > 10, "{effort:?}");
        let (result, effort) = acquire(&cluster(hold, &[]), &Gate::new(9), 2).await;
        assert_eq!((result, effort.attempts), (Err(Ending::NoEndpoint), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_session_is_woken_by_the_change_itself() {
        let cluster = cluster(Duration::from_secs(10), &[]);
        let options = cluster.members().options.clone();
        let changes = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(cluster.counters.held.load(Relaxed), 1);
            cluster.update(&options, &[spec(2)]);
        };
        let gate = Gate::new(1);
        let ((result, effort), ()) = tokio::join!(acquire(&cluster, &gate, 2), changes);
        assert_eq!(result, Ok(()));
        assert_eq!(effort.attempts, 1);
        assert_eq!(effort.held, Duration::from_secs(3), "no polling");
        assert_eq!(cluster.counters.held.load(Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn while_there_is_no_endpoint_its_source_is_asked_every_second() {
        let cluster = cluster(Duration::from_secs(10), &[]);
        let gate = Gate::new(1);
        let trouble = gate.trouble();
        let begun = Instant::now();
        let asked = async {
            for _ in 0..5 {
                trouble.notified().await;
            }
            begun.elapsed()
        };
        let (asked, _) = tokio::join!(asked, acquire(&cluster, &gate, 2));
        assert!(asked <= 4 * BACKOFF_MAX, "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_session_waits_for_the_operator_and_not_for_its_hold() {
        for hold in [Duration::ZERO, Duration::from_secs(1)] {
            let cluster = cluster(hold, &[spec(2)]);
            cluster.pause(true);
            let resume = async {
                tokio::time::sleep(Duration::from_secs(60)).await;
                assert_eq!(cluster.counters.held.load(Relaxed), 1);
                cluster.pause(false);
            };
            let gate = Gate::new(1);
            let ((result, effort), ()) = tokio::join!(acquire(&cluster, &gate, 2), resume);
            assert_eq!((result, effort.attempts), (Ok(()), 1));
            assert_eq!(effort.held, Duration::from_secs(60));
            assert_eq!(gate.held.load(Relaxed), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_while_it_is_held_stops_the_clock_of_its_hold() {
        let cluster = cluster(Duration::from_secs(10), &[]);
        let operator = async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            cluster.pause(true);
            tokio::time::sleep(Duration::from_secs(60)).await;
            cluster.pause(false);
        };
        let gate = Gate::new(1);
        let ((result, effort), ()) = tokio::join!(acquire(&cluster, &gate, 2), operator);
        assert_eq!(result, Err(Ending::NoEndpoint));
        assert_eq!(effort.held, Duration::from_secs(70));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_without_weight_gets_no_session() {
        let drained = EndpointSpec { weight: 0, ..spec(2) };
        let (result, effort) = acquire(&cluster(Duration::from_secs(1), &[drained]), &Gate::new(1), 2).await;
        assert_eq!((result, effort.attempts), (Err(Ending::NoEndpoint), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded() {
        let cluster = cluster(Duration::from_secs(1), &[]);
        let gate = Gate::new(1);
        let (first, second) = tokio::join!(acquire(&cluster, &gate, 2), acquire(&cluster, &gate, 2));
        assert_eq!(first.0, Err(Ending::NoEndpoint));
        assert_eq!(second.0, Err(Ending::HoldFull));
        assert_eq!(gate.held.load(Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_leaves_while_it_is_dialled_gets_no_session() {
        let cluster = cluster(Duration::from_secs(5), &[spec(1)]);
        let options = cluster.members().options.clone();
        let mut effort = Effort::default();
        let gate = Gate::new(1);
        let dialler = Scripted(|endpoint: &Endpoint| {
            if endpoint.key == spec(1).key {
                cluster.update(&options, &[spec(2)]);
            }
            Ok(endpoint.key.clone())
        });
        let acquired = cluster.acquire(&gate, &mut effort, pending(), &dialler).await;
        assert_eq!(acquired.map(|(endpoint, _)| endpoint), Ok(spec(2).key));
    }

    #[tokio::test(start_paused = true)]
    async fn a_consumer_that_leaves_is_noticed() {
        let cluster = cluster(Duration::from_secs(5), &[]);
        let mut effort = Effort::default();
        let left = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok(())
        };
        let dialler = Scripted(|_: &Endpoint| Ok(()));
        let acquired = cluster.acquire(&Gate::new(1), &mut effort, left, &dialler).await;
        assert!(matches!(acquired, Err(Ending::LeftWhileHeld)));
        assert_eq!(effort.held, Duration::from_secs(2));
    }
}
