//! One round of attempts: each endpoint in order, until one answers.

use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use super::hold::{Effort, Gate};
use super::{Cluster, ConnectError, Endpoint, InFlight, Members};
use crate::address::Identity;
use crate::ending::Ending;

/// A dial that takes longer than this is trouble: a local one takes microseconds, one across an ocean 150 ms.
const SLOW_DIAL: Duration = Duration::from_millis(250);

/// One way to connect to an endpoint.
pub trait Dial {
    type Connection;

    /// Gives up after `timeout`.
    fn dial(
        &self,
        endpoint: &Endpoint,
        timeout: Duration,
    ) -> impl Future<Output = io::Result<Self::Connection>> + Send;

    /// Whether a connection shows that the endpoint answers.
    fn is_answer(&self) -> bool {
        true
    }

    /// Called while the session waits: what an attempt needs is free for others.
    fn release(&self) {}

    /// Takes what an attempt needs. False when there is none; then [`Dial::reserve`] waits for it.
    fn try_reserve(&self) -> bool {
        true
    }

    fn reserve(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// What came of asking each endpoint.
pub(super) enum Round<C> {
    Connected(C, InFlight),
    /// `asked`: somebody was, and did not answer. `full`: somebody was not, who has as many sessions as it may.
    Nobody {
        asked: bool,
        full: bool,
    },
    /// The route was paused, or an endpoint was withdrawn while it was dialled: choose again.
    Changed,
}

impl Cluster {
    /// One round: each choice once, until one answers. Fails when the session is to end: the consumer `left`, or the process
    /// ends all sessions.
    pub(super) async fn try_each<D: Dial>(
        &self,
        gate: &Gate,
        members: &Arc<Members>,
        client: Option<IpAddr>,
        effort: &mut Effort,
        dialler: &D,
        mut left: Pin<&mut impl Future<Output = io::Result<()>>>,
    ) -> Result<Round<D::Connection>, Ending> {
        let connect_timeout = members.options.connect_timeout;
        let (mut asked, mut full) = (false, false);
        for endpoint in self.choices(members, client) {
            if endpoint.is_removed() {
                continue;
            }
            // As it is now: attempts before may have taken long.
            let max = self.glance().options.max_sessions_per_endpoint;
            let Some(in_flight) = InFlight::on(endpoint.clone(), max) else {
                full = true;
                continue;
            };
            asked = true;
            effort.attempts = effort.attempts.saturating_add(1);
            let dial = dialler.dial(endpoint, connect_timeout);
            let Some(dialled) = self.dial(gate, members, &in_flight, left.as_mut(), dial).await? else {
                tracing::debug!(endpoint = %endpoint.key, "withdrawn while it was dialled");
                return Ok(Round::Changed);
            };
            self.report(endpoint, &dialled, dialler);
            match dialled {
                Ok(connected) => return Ok(Round::Connected(connected, in_flight)),
                Err(error) => {
                    effort.error = Some(ConnectError::of(&error));
                    tracing::debug!(endpoint = %endpoint.key, %error, "connect failed");
                }
            }
        }
        Ok(Round::Nobody { asked, full })
    }

    /// Dials for as long as the endpoint takes new sessions and the session goes on. `None` when the endpoint takes none any
    /// more: the dial is given up, and a connection that it had made is closed before a byte was sent. A consumer that leaves
    /// is noticed once the dial is slow.
    async fn dial<T>(
        &self,
        gate: &Gate,
        members: &Arc<Members>,
        in_flight: &InFlight,
        mut left: Pin<&mut impl Future<Output = io::Result<()>>>,
        dial: impl Future<Output = io::Result<T>>,
    ) -> Result<Option<io::Result<T>>, Ending> {
        let mut dial = pin!(dial);
        // One that was written out is where it is.
        let may_have_moved = in_flight.key.identity != Identity::Literal;
        let mut is_slow = false;
        loop {
            // Made before the check: it counts the changes from here on, so that none in between is missed.
            let changed = self.changed.notified();
            if !self.takes_sessions(members, in_flight) {
                return Ok(None);
            }
            tokio::select! {
                // A dial that is done costs nothing of what follows.
                biased;
                dialled = &mut dial => return Ok(self.takes_sessions(members, in_flight).then_some(dialled)),
                () = in_flight.cut() => {
                    return if self.force.is_cancelled() { Err(Ending::Drained) } else { Ok(None) };
                }
                // A FIN before any byte is no leaving yet: a client may half-close at once and wait for a greeting.
                _ = left.as_mut(), if is_slow => return Err(Ending::LeftWhileHeld),
                () = changed => {}
                () = tokio::time::sleep(SLOW_DIAL), if may_have_moved || !is_slow => {
                    is_slow = true;
                    if may_have_moved {
                        gate.trouble.notify_waiters();
                    }
                }
            }
        }
    }

    /// Whether new sessions may go to this endpoint, which was chosen from `members`.
    ///
    /// This is what `pause`, `drain` and `switch` rely on when they confirm. A session is counted on its endpoint
    /// (`InFlight`) before it dials, and looks here after; an operator's command changes first what is looked at here, and
    /// is confirmed then. The operations are sequentially consistent, so a session either sees the change and sends
    /// nothing, or is among the endpoint's sessions that everybody sees once the command is confirmed.
    fn takes_sessions(&self, members: &Arc<Members>, endpoint: &Endpoint) -> bool {
        let now = self.glance();
        !self.is_paused() && (Arc::ptr_eq(&now, members) || now.takes_sessions(endpoint))
    }

    /// For outlier detection, and for those who look for the cause.
    fn report<D: Dial>(&self, endpoint: &Endpoint, dialled: &io::Result<D::Connection>, dialler: &D) {
        let is_news = match dialled {
            Ok(_) if dialler.is_answer() => endpoint.answered(),
            Ok(_) => endpoint.connected(),
            Err(error) => !is_our_own(error) && endpoint.failed(ConnectError::of(error)),
        };
        if is_news {
            self.alarm.notify_one();
        }
    }
}

/// Errors that say nothing about the endpoint: we are out of something.
fn is_our_own(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| ours.contains(&errno))
}
