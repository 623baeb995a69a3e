//! One round of attempts: each endpoint in order, until one answers.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use super::hold::{Effort, Gate};
use super::{Cluster, Endpoint, Identity, InFlight, Members};

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
}

impl Cluster {
    /// One round: each choice once, until one answers.
    pub(super) async fn try_each<D: Dial>(
        &self,
        gate: &Gate,
        members: &Members,
        client: Option<IpAddr>,
        effort: &mut Effort,
        dialler: &D,
    ) -> Round<D::Connection> {
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
            let dialled = dial_watchfully(gate, endpoint, dialler.dial(endpoint, connect_timeout)).await;
            self.report(endpoint, &dialled);
            match dialled {
                Ok(_) if endpoint.is_removed() => {
                    tracing::debug!(endpoint = %endpoint.key, "left while it was dialled");
                }
                Ok(connected) => return Round::Connected(connected, in_flight),
                Err(error) => tracing::debug!(endpoint = %endpoint.key, %error, "connect failed"),
            }
        }
        Round::Nobody { asked, full }
    }

    /// For outlier detection.
    fn report<C>(&self, endpoint: &Endpoint, dialled: &io::Result<C>) {
        let is_news = match dialled {
            Ok(_) => endpoint.answered(),
            Err(error) => !is_our_own(error) && endpoint.failed(),
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
