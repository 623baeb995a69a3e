//! A simulated session: it requests an endpoint, stays open, and ends.

use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ambassador::address::EndpointAddr;
use ambassador::client_net::ClientNet;
use ambassador::cluster::acquire::{ConnectStats, Dial, HoldLimit};
use ambassador::cluster::condition::Preference;
use ambassador::cluster::health::probe::Probe;
use ambassador::cluster::outlier::Outcome;
use ambassador::cluster::{Cluster, Endpoint, InFlight};
use ambassador::credentials::{CredentialKind, Reason};
use ambassador::ending::Ending;
use ambassador::route::{Check, Protocol};
use ambassador::tunnel::{Status, TunnelError};
use tokio::time::{Instant, sleep};

use super::{Behaviour, CONNECT_TIMEOUT, HOLD_MAX, Incarnation, PORTS, Shared, port};

pub(super) struct Session {
    pub(super) client: IpAddr,
    pub(super) lifetime: Duration,
    /// The time for which its client waits for an endpoint.
    pub(super) hold: Option<Duration>,
    pub(super) dialler: Dialler,
    pub(super) hold_limit: Arc<HoldLimit>,
}

pub(super) struct Dialler {
    pub(super) actual: Shared,
    pub(super) cluster: Arc<Cluster>,
    /// A peer has refused for good.
    pub(super) was_refused: AtomicBool,
    /// A peer was not trusted.
    pub(super) was_untrusted: AtomicBool,
}

/// A prober that returns the actual health.
pub(super) struct Prober(pub(super) Shared);

impl Session {
    pub(super) async fn run(self) {
        let Session { client, lifetime, hold, dialler, hold_limit } = self;
        let Dialler { actual, cluster, was_refused, was_untrusted } = &dialler;
        let left = async {
            match hold {
                Some(hold) => sleep(hold).await,
                None => pending().await,
            }
            Ok(())
        };
        let (began, mut stats) = (Instant::now(), ConnectStats::default());
        let acquired = cluster.acquire(&hold_limit, Some(client), &mut stats, left, &dialler).await;
        actual.lock().unwrap().pending -= 1;
        // A round that began in time may try all endpoints for the duration of an attempt each.
        let longest = HOLD_MAX + CONNECT_TIMEOUT * u32::try_from(PORTS + 1).unwrap();
        if began.elapsed() > longest {
            actual.lock().unwrap().broken.push(format!("held for {:?}", began.elapsed()));
        }
        let has_cause = match &acquired {
            Err(Ending::PeerRefused) => was_refused.load(Relaxed),
            Err(Ending::TlsFailed) => was_untrusted.load(Relaxed),
            _ => true,
        };
        if !has_cause {
            actual
                .lock()
                .unwrap()
                .broken
                .push(format!("ended without a cause: {:?}", acquired.as_ref().err()));
        }
        if let Ok(((incarnation, behaviour), in_flight)) = acquired {
            let _open = CountGuard::new(actual, incarnation, Counts::Open);
            if actual.lock().unwrap().incarnation(incarnation.0) != incarnation {
                actual
                    .lock()
                    .unwrap()
                    .broken
                    .push(format!("{incarnation:?} got a session after it had left"));
            }
            keep_open(cluster, &in_flight, client, behaviour, lifetime).await;
        }
    }
}

async fn keep_open(
    cluster: &Cluster,
    in_flight: &InFlight,
    client: IpAddr,
    behaviour: Behaviour,
    lifetime: Duration,
) {
    let (lasted, finished, bytes_down) = match behaviour {
        Behaviour::Resets => (Duration::from_millis(1), Ending::UpstreamReset, 0),
        Behaviour::Loses(ending) => (lifetime / 2, ending, 10),
        _ => (lifetime, Ending::Finished, 10),
    };
    let ending = tokio::select! {
        biased;
        () = in_flight.cut() => Ending::Cut,
        () = sleep(lasted) => finished,
    };
    let outcome = Outcome {
        protocol: Protocol::Tcp,
        ending,
        bytes_up: 0,
        bytes_down,
        lasted,
        client: Some(ClientNet::of(client)),
        client_left: false,
    };
    cluster.ended(in_flight, &outcome);
}

/// A counter of an endpoint.
#[derive(Clone, Copy)]
enum Counts {
    Dialling,
    Open,
}

/// Increments a counter until it is dropped.
struct CountGuard<'t> {
    actual: &'t Shared,
    incarnation: Incarnation,
    counts: Counts,
}

impl<'t> CountGuard<'t> {
    fn new(actual: &'t Shared, incarnation: Incarnation, counts: Counts) -> CountGuard<'t> {
        let counted = CountGuard { actual, incarnation, counts };
        counted.add(1);
        counted
    }

    fn add(&self, one: isize) {
        // Also dropped while a failed simulation unwinds.
        let mut actual = self.actual.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = match self.counts {
            Counts::Dialling => &mut actual.dialling,
            Counts::Open => &mut actual.open,
        };
        let count = counts.entry(self.incarnation).or_default();
        *count = count.checked_add_signed(one).unwrap();
    }
}

impl Drop for CountGuard<'_> {
    fn drop(&mut self) {
        self.add(-1);
    }
}

impl Dial for Dialler {
    type Connection = (Incarnation, Behaviour);

    async fn dial(
        &self,
        endpoint: &Endpoint,
        timeout: Duration,
        _: Duration,
    ) -> io::Result<(Incarnation, Behaviour)> {
        let port = port(&endpoint.key.addr);
        self.check_attempt(endpoint);
        let (incarnation, behaviour) = {
            let actual = self.actual.lock().unwrap();
            (actual.incarnation(port), actual.behaviours.get(&port).copied().unwrap_or_default())
        };
        let _dialling = CountGuard::new(&self.actual, incarnation, Counts::Dialling);
        match behaviour {
            Behaviour::Answers | Behaviour::Resets | Behaviour::Loses(_) => Ok((incarnation, behaviour)),
            Behaviour::Refuses => Err(io::ErrorKind::ConnectionRefused.into()),
            Behaviour::PeerRefuses => {
                self.was_refused.store(true, Relaxed);
                Err(io::Error::other(TunnelError::Refused(Status(404))))
            }
            Behaviour::Untrusted => {
                self.was_untrusted.store(true, Relaxed);
                let (reason, kind) = (Reason::UnknownIssuer, CredentialKind::Secret);
                Err(io::Error::other(TunnelError::Tls { reason, kind }))
            }
            Behaviour::Hangs(time) => {
                // This round continues with other endpoints in its initial order.
                let until = Instant::now() + timeout * u32::try_from(PORTS).unwrap();
                self.actual.lock().unwrap().hanging_until = Some(until);
                sleep(time.min(timeout)).await;
                if time > timeout {
                    Err(io::ErrorKind::TimedOut.into())
                } else {
                    Ok((incarnation, behaviour))
                }
            }
        }
    }
}

impl Dialler {
    /// Checks the invariants of each endpoint that is tried.
    fn check_attempt(&self, endpoint: &Endpoint) {
        let mut actual = self.actual.lock().unwrap();
        let mut broken = |what: &str| actual.broken.push(format!("{} was tried, {what}", endpoint.key));
        if endpoint.is_removed() {
            broken("which has left");
        }
        let members = self.cluster.members_arc();
        let takers =
            || members.all().filter(|(_, member)| member.weight > 0).map(|(_, member)| &member.endpoint);
        let preference = |endpoint: &Endpoint| endpoint.condition().preference();
        let is_taker = takers().any(|taker| std::ptr::eq(&raw const **taker, endpoint));
        let is_worst = preference(endpoint) == Preference::LastResort
            && takers().any(|taker| preference(taker) < Preference::LastResort);
        if actual.hanging_until.is_some_and(|until| Instant::now() <= until) {
            return;
        }
        let mut broken = |what: &str| actual.broken.push(format!("{} was tried, {what}", endpoint.key));
        if !is_taker {
            broken("which takes none");
        }
        if is_worst {
            broken("which is bad, where another is better");
        }
    }
}

impl Probe for Prober {
    async fn probe(
        &self,
        _: &Check,
        addr: &EndpointAddr,
        _: &'static [u8],
        timeout: Duration,
    ) -> Result<(), String> {
        let (is_sick, behaviour) = {
            let (actual, port) = (self.0.lock().unwrap(), port(addr));
            (actual.unhealthy.contains(&port), actual.behaviours.get(&port).copied().unwrap_or_default())
        };
        match behaviour {
            Behaviour::Hangs(time) if time > timeout => {
                sleep(timeout).await;
                Err("hangs".to_owned())
            }
            Behaviour::Refuses | Behaviour::PeerRefuses | Behaviour::Untrusted => Err("refuses".to_owned()),
            _ if is_sick => Err("is sick".to_owned()),
            _ => Ok(()),
        }
    }
}
