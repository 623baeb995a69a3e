//! A session as the world sees it: it asks for an endpoint, stays a while, and goes.

use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ambassador::address::EndpointAddr;
use ambassador::client_net::ClientNet;
use ambassador::cluster::acquire::{ConnectStats, Dial, HoldLimit};
use ambassador::cluster::condition::Preference;
use ambassador::cluster::health::probe::Probe;
use ambassador::cluster::outlier::Outcome;
use ambassador::cluster::{Cluster, Endpoint, InFlight};
use ambassador::ending::Ending;
use ambassador::route::{Check, Protocol};
use tokio::time::{Instant, sleep};

use super::{CONNECT_TIMEOUT, HOLD_MAX, Life, Manner, PORTS, Shared, port};

pub(super) struct Session {
    pub(super) client: IpAddr,
    pub(super) lifetime: Duration,
    /// How long its consumer waits for an endpoint.
    pub(super) patience: Option<Duration>,
    pub(super) dialler: Dialler,
    pub(super) hold_limit: Arc<HoldLimit>,
}

pub(super) struct Dialler {
    pub(super) truth: Shared,
    pub(super) cluster: Arc<Cluster>,
}

/// Knows who is sick.
pub(super) struct Prober(pub(super) Shared);

impl Session {
    pub(super) async fn run(self) {
        let Session { client, lifetime, patience, dialler, hold_limit } = self;
        let Dialler { truth, cluster } = &dialler;
        let left = async {
            match patience {
                Some(patience) => sleep(patience).await,
                None => pending().await,
            }
            Ok(())
        };
        let (began, mut stats) = (Instant::now(), ConnectStats::default());
        let acquired = cluster.acquire(&hold_limit, Some(client), &mut stats, left, &dialler).await;
        truth.lock().unwrap().pending -= 1;
        // A round that began in time may ask everyone for as long as an attempt takes.
        let longest = HOLD_MAX + CONNECT_TIMEOUT * u32::try_from(PORTS + 1).unwrap();
        if began.elapsed() > longest {
            truth.lock().unwrap().broken.push(format!("held for {:?}", began.elapsed()));
        }
        if let Ok(((life, manner), in_flight)) = acquired {
            let _open = Counted::new(truth, life, Counts::Open);
            if truth.lock().unwrap().life(life.0) != life {
                truth.lock().unwrap().broken.push(format!("{life:?} got a session after it had left"));
            }
            stay(cluster, &in_flight, client, manner, lifetime).await;
        }
    }
}

async fn stay(cluster: &Cluster, in_flight: &InFlight, client: IpAddr, manner: Manner, lifetime: Duration) {
    let (lasted, finished, bytes_down) = match manner {
        Manner::Resets => (Duration::from_millis(1), Ending::UpstreamReset, 0),
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

/// Which of the counts of an endpoint.
#[derive(Clone, Copy)]
enum Counts {
    Dialling,
    Open,
}

/// One of a count, while it lives.
struct Counted<'t> {
    truth: &'t Shared,
    life: Life,
    counts: Counts,
}

impl<'t> Counted<'t> {
    fn new(truth: &'t Shared, life: Life, counts: Counts) -> Counted<'t> {
        let counted = Counted { truth, life, counts };
        counted.add(1);
        counted
    }

    fn add(&self, one: isize) {
        // A story that has failed already is taken down by these drops.
        let mut truth = self.truth.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = match self.counts {
            Counts::Dialling => &mut truth.dialling,
            Counts::Open => &mut truth.open,
        };
        let count = counts.entry(self.life).or_default();
        *count = count.checked_add_signed(one).unwrap();
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.add(-1);
    }
}

impl Dial for Dialler {
    type Connection = (Life, Manner);

    async fn dial(&self, endpoint: &Endpoint, timeout: Duration) -> io::Result<(Life, Manner)> {
        let port = port(&endpoint.key.addr);
        self.may_be_asked(endpoint);
        let (life, manner) = {
            let truth = self.truth.lock().unwrap();
            (truth.life(port), truth.manners.get(&port).copied().unwrap_or_default())
        };
        let _dialling = Counted::new(&self.truth, life, Counts::Dialling);
        match manner {
            Manner::Answers | Manner::Resets => Ok((life, manner)),
            Manner::Refuses => Err(io::ErrorKind::ConnectionRefused.into()),
            Manner::Hangs(time) => {
                // This round goes on to others then, in the order it began with.
                let until = Instant::now() + timeout * u32::try_from(PORTS).unwrap();
                self.truth.lock().unwrap().hanging_until = Some(until);
                sleep(time.min(timeout)).await;
                if time > timeout { Err(io::ErrorKind::TimedOut.into()) } else { Ok((life, manner)) }
            }
        }
    }
}

impl Dialler {
    /// What must be so of every endpoint that is asked.
    fn may_be_asked(&self, endpoint: &Endpoint) {
        let mut truth = self.truth.lock().unwrap();
        let mut broken = |what: &str| truth.broken.push(format!("{} was asked, {what}", endpoint.key));
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
        if truth.hanging_until.is_some_and(|until| Instant::now() <= until) {
            return;
        }
        let mut broken = |what: &str| truth.broken.push(format!("{} was asked, {what}", endpoint.key));
        if !is_taker {
            broken("which takes none");
        }
        if is_worst {
            broken("which is bad, where another is better");
        }
    }
}

impl Probe for Prober {
    async fn probe(&self, _: &Check, addr: &EndpointAddr, timeout: Duration) -> Result<(), String> {
        let (is_sick, manner) = {
            let (truth, port) = (self.0.lock().unwrap(), port(addr));
            (truth.sick.contains(&port), truth.manners.get(&port).copied().unwrap_or_default())
        };
        match manner {
            Manner::Hangs(time) if time > timeout => {
                sleep(timeout).await;
                Err("hangs".to_owned())
            }
            Manner::Refuses => Err("refuses".to_owned()),
            _ if is_sick => Err("is sick".to_owned()),
            _ => Ok(()),
        }
    }
}
