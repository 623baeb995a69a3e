//! One round of attempts: tries each endpoint in order until one answers.

use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use super::dial::{ConnectStats, Dial};
use super::hold_limit::HoldLimit;
use super::in_flight::InFlight;
use crate::address::Identity;
use crate::cluster::{Cluster, ConnectError, Endpoint, Members};
use crate::ending::Ending;

/// A dial that takes longer than this is considered slow. A local connect takes microseconds, one across an ocean 150 ms.
const SLOW_DIAL: Duration = Duration::from_millis(250);

/// The session for which endpoints are tried.
pub(super) struct Seeker {
    pub(super) client: Option<IpAddr>,
    /// How much longer it waits.
    pub(super) hold: Duration,
}

/// The outcome of one round.
pub(super) enum Round<C> {
    Connected(C, InFlight),
    /// No endpoint answered. `attempted`: at least one was dialled. `full`: at least one was skipped at its session limit.
    Failed {
        attempted: bool,
        full: bool,
    },
    /// The route was paused, or an endpoint was withdrawn while it was dialled: choose again.
    Changed,
}

impl Cluster {
    /// Dials each choice once, until one answers. Fails when the session must end: the client has left, or the process ends
    /// all sessions.
    pub(super) async fn try_each<D: Dial>(
        &self,
        hold_limit: &HoldLimit,
        members: &Arc<Members>,
        Seeker { client, hold }: Seeker,
        stats: &mut ConnectStats,
        dialler: &D,
        mut left: Pin<&mut impl Future<Output = io::Result<()>>>,
    ) -> Result<Round<D::Connection>, Ending> {
        let connect_timeout = members.options.connect_timeout;
        let (mut attempted, mut full) = (false, false);
        for endpoint in self.choices(members, client) {
            if endpoint.is_removed() {
                continue;
            }
            // The current limit, not that of `members`: earlier attempts may have taken long.
            let max = self.members().options.max_sessions_per_endpoint;
            let Some(in_flight) = InFlight::on(endpoint.clone(), max) else {
                full = true;
                continue;
            };
            attempted = true;
            stats.attempts = stats.attempts.saturating_add(1);
            let dial = dialler.dial(endpoint, connect_timeout, hold);
            let Some(dialled) = self.dial(hold_limit, members, &in_flight, left.as_mut(), dial).await? else {
                tracing::debug!(endpoint = %endpoint.key, "endpoint withdrawn while it was dialled");
                return Ok(Round::Changed);
            };
            self.report(endpoint, &dialled, dialler);
            match dialled {
                Ok(connected) => return Ok(Round::Connected(connected, in_flight)),
                Err(error) => {
                    let error = ConnectError::of(&error);
                    stats.error = Some(error);
                    tracing::debug!(endpoint = %endpoint.key, %error, "connect failed");
                    if error.is_final() {
                        return Err(Ending::PeerRefused);
                    }
                }
            }
        }
        Ok(Round::Failed { attempted, full })
    }

    /// Dials while the endpoint takes new sessions. Returns `None` once it does not: the dial is abandoned, and a connection
    /// that it had made is closed before a byte was sent. A client that leaves is noticed once the dial is slow.
    async fn dial<T>(
        &self,
        hold_limit: &HoldLimit,
        members: &Arc<Members>,
        in_flight: &InFlight,
        mut left: Pin<&mut impl Future<Output = io::Result<()>>>,
        dial: impl Future<Output = io::Result<T>>,
    ) -> Result<Option<io::Result<T>>, Ending> {
        let mut dial = pin!(dial);
        // A literal address cannot be resolved again.
        let may_have_moved = in_flight.key.identity != Identity::Literal;
        let mut is_slow = false;
        loop {
            // Created before the check, so that a change after it is not missed.
            let changed = self.changed.notified();
            if !self.takes_sessions(members, in_flight) {
                return Ok(None);
            }
            tokio::select! {
                // The dial comes first, so that one that completes at once pays for nothing else.
                biased;
                dialled = &mut dial => return Ok(self.takes_sessions(members, in_flight).then_some(dialled)),
                () = in_flight.cut() => {
                    return if self.force.is_cancelled() { Err(Ending::Drained) } else { Ok(None) };
                }
                // Not before: a client may half-close at once and wait for a greeting.
                _ = left.as_mut(), if is_slow => return Err(Ending::LeftWhileHeld),
                () = changed => {}
                () = tokio::time::sleep(SLOW_DIAL), if may_have_moved || !is_slow => {
                    is_slow = true;
                    if may_have_moved {
                        hold_limit.request_refresh();
                    }
                }
            }
        }
    }

    /// Returns whether new sessions may use this endpoint, which was chosen from `members`.
    ///
    /// `pause`, `drain` and `switch` rely on this check when they confirm. A session is counted on its endpoint ([`InFlight`])
    /// before it dials, and calls this afterwards; a command first changes what is read here, and confirms then. All these
    /// operations are sequentially consistent, so a session either sees the change and sends nothing, or is among the
    /// endpoint's sessions that are visible once the command is confirmed.
    fn takes_sessions(&self, members: &Arc<Members>, endpoint: &Endpoint) -> bool {
        let current = self.members();
        !self.is_paused() && (Arc::ptr_eq(&current, members) || current.takes_sessions(endpoint))
    }

    /// Records the outcome of a dial for outlier detection and for outage reports.
    fn report<D: Dial>(&self, endpoint: &Endpoint, dialled: &io::Result<D::Connection>, dialler: &D) {
        let wake_monitor = match dialled {
            Ok(_) if dialler.proves_reachable() => endpoint.answered(),
            Ok(_) => endpoint.connected(),
            Err(error) => !is_local(error) && endpoint.failed(ConnectError::of(error)),
        };
        if wake_monitor {
            self.monitor_wakeup.notify_one();
        }
    }
}

/// Returns whether an error is caused by a resource that this process lacks, and not by the endpoint.
fn is_local(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let local = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| local.contains(&errno))
}
