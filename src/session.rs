//! One connection, from its acceptance to its ending, told as a story.

pub mod flow;
pub mod live;
mod served;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use crate::client_net::ClientNet;
use crate::cluster::acquire::{ConnectStats, Dial, HoldLimit};
use crate::cluster::outlier::Outcome;
use crate::cluster::timings::Timings;
use crate::cluster::{Cluster, Endpoint, InFlight, Members};
use crate::connect;
use crate::ending::{AccessLog, Ending};
use crate::fd_budget::{FdBudget, FdPermit};
use crate::listener::{Accepted, ClientAddr};
use crate::log::access::{self, Connected, Line, Milliseconds};
use crate::relay::{self, Limits};
use crate::route::Protocol;
use crate::socket::Socket;
use crate::traffic::Direction;
use live::{Listed, Live};
use served::Served;

/// What every session of a process shares.
#[derive(Debug)]
pub struct Shared {
    /// Limits held sessions.
    pub hold_limit: HoldLimit,
    /// Cancelled when the drain timeout has passed: every session ends now.
    pub force: CancellationToken,
    /// Cancelled when no new session is to be taken.
    pub stop: CancellationToken,
    pub fds: Arc<FdBudget>,
    pub access_log: AccessLog,
}

impl Shared {
    /// Divides what all routes share among these, which are all that are open.
    pub fn divide<'c>(&self, open: impl ExactSizeIterator<Item = &'c Cluster> + Clone) {
        self.fds.divide(open.clone().map(|cluster| &*cluster.fds));
        self.hold_limit.divide(open);
    }

    /// The route is closed: its last sessions have no guarantee.
    pub fn withdraw(&self, closed: &Cluster) {
        closed.fds.set_guarantee(0);
        self.hold_limit.withdraw(closed);
    }
}

/// Serves one connection of a stream listener, on the worker that calls; `offset` is the listener's place in its route's
/// port range. `place` is the session's place on its worker, given up at the end.
///
/// Not an `async fn`: that would keep its arguments beside what becomes of them, for as long as the session lives.
pub fn serve(
    accepted: Accepted,
    cluster: Arc<Cluster>,
    offset: u16,
    shared: Arc<Shared>,
    place: impl Send,
) -> impl Future<Output = ()> + Send {
    let Accepted { fd, client, permit } = accepted;
    let mut record = Record::begin(cluster, client, Protocol::Tcp, shared.access_log);
    let registered = match client {
        ClientAddr::Inet(_) => Socket::register(fd),
        ClientAddr::Unix => Socket::register_unix(fd),
    };
    async move {
        let ending = match &registered {
            Ok(downstream) => {
                // Boxed, so that an idle session does not keep room for the kilobytes of its way here.
                let prepared = Box::pin(prepare(downstream, &mut record, offset, &permit, &shared)).await;
                match &prepared {
                    Ok((upstream, limits)) => {
                        let ending = Served::new(downstream, upstream, *limits, &record, &shared).await;
                        record.client_left = ending == Ending::UpstreamReset && downstream.peer_has_left();
                        ending
                    }
                    Err(ending) => {
                        downstream.reset_on_close();
                        *ending
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot register a connection");
                Ending::Local
            }
        };
        drop(registered);
        record.end(ending);
        drop((place, permit));
    }
}

async fn prepare(
    downstream: &Socket,
    record: &mut Record,
    offset: u16,
    permit: &FdPermit,
    shared: &Shared,
) -> Result<(Socket, Limits), Ending> {
    // A statement of its own, so that the glance ends before the await.
    let limits = admit(&record.live.cluster.members(), record.live.client.ip(), record.live.began)?;
    let upstream = connect(downstream, record, offset, permit, shared).await?;
    Ok((upstream, limits))
}

/// Who is served at all, and within which limits.
fn admit(members: &Members, client: Option<IpAddr>, now: Instant) -> Result<Limits, Ending> {
    let options = &members.options;
    let in_any = |networks: &[IpNet]| client.is_some_and(|ip| networks.iter().any(|net| net.contains(&ip)));
    if in_any(&options.deny) || (!options.allow.is_empty() && !in_any(&options.allow)) {
        return Err(Ending::Denied);
    }
    if let (Some(buckets), Some(rate), Some(client)) = (&members.rate, options.rate, client)
        && !buckets.admits(client, rate, now)
    {
        return Err(Ending::RateLimited);
    }
    Ok(Limits::new(options.idle_timeout, options.half_close_timeout))
}

async fn connect(
    downstream: &Socket,
    record: &mut Record,
    offset: u16,
    permit: &FdPermit,
    shared: &Shared,
) -> Result<Socket, Ending> {
    let Record { live, stats, .. } = record;
    let dial = StreamDial { offset, permit, timings: &live.cluster.counters.timings };
    let acquired =
        live.cluster.acquire(&shared.hold_limit, live.client.ip(), stats, downstream.left(), &dial);
    let (upstream, endpoint) = acquired.await?;
    record.connected(endpoint);
    Ok(upstream)
}

/// Connects a stream, to the port of the endpoint that stands for the port we were reached on.
struct StreamDial<'a> {
    offset: u16,
    permit: &'a FdPermit,
    timings: &'a Timings,
}

impl Dial for StreamDial<'_> {
    type Connection = Socket;

    async fn dial(&self, endpoint: &Endpoint, timeout: Duration) -> io::Result<Socket> {
        let began = Instant::now();
        let socket = connect::dial(&endpoint.key.addr.shifted(self.offset)?, timeout).await?;
        self.timings.connect.observe(began.elapsed());
        Ok(socket)
    }

    fn permit(&self) -> Option<&FdPermit> {
        Some(self.permit)
    }
}

impl relay::Account for &Record {
    fn moved(&self, direction: Direction, bytes: usize) {
        Record::moved(self, direction, bytes);
    }
}

/// The account of one session. Everything that must be undone when the session ends is undone by its drop: the gauge,
/// the endpoint's in-flight count; and the ending is counted and logged, also where the session was dropped halfway.
#[derive(Debug)]
struct Record {
    live: Listed,
    stats: ConnectStats,
    endpoint: Option<InFlight>,
    ending: Ending,
    protocol: Protocol,
    /// As in [`Outcome`].
    client_left: bool,
    access_log: AccessLog,
}

impl Record {
    fn begin(cluster: Arc<Cluster>, client: ClientAddr, protocol: Protocol, access_log: AccessLog) -> Record {
        cluster.counters.active.fetch_add(1, Relaxed);
        Record {
            live: Listed::enter(cluster, client),
            stats: ConnectStats::default(),
            endpoint: None,
            ending: Ending::Local,
            protocol,
            client_left: false,
            access_log,
        }
    }

    fn connected(&mut self, endpoint: InFlight) {
        self.live.endpoint.store(Some(endpoint.endpoint()));
        self.endpoint = Some(endpoint);
    }

    fn moved(&self, direction: Direction, bytes: usize) {
        self.live.traffic.add(direction, bytes);
        self.live.cluster.counters.traffic.add(direction, bytes);
    }

    fn bytes(&self) -> u64 {
        self.live.traffic.up().wrapping_add(self.live.traffic.down())
    }

    fn end(mut self, ending: Ending) {
        self.ending = ending;
    }

    /// For outlier detection.
    fn outcome(&self, lasted: Duration) -> Outcome {
        Outcome {
            protocol: self.protocol,
            ending: self.ending,
            bytes_up: self.live.traffic.up(),
            bytes_down: self.live.traffic.down(),
            lasted,
            client: self.live.client.ip().map(ClientNet::of),
            client_left: self.client_left,
        }
    }

    /// Of a session that was never connected: why no endpoint answered, or why there was none.
    fn why(&self) -> Option<String> {
        if self.endpoint.is_some() {
            return None;
        }
        let error = self.stats.error.map(|error| error.to_string());
        let problem = || self.live.cluster.problem().filter(|_| self.ending == Ending::NoEndpoint);
        error.or_else(|| problem().map(|problem| problem.to_string()))
    }

    /// Whether the session cost its client next to nothing, so that it can be repeated without limit: the address of a UDP
    /// client may be forged until it is answered, and a rejected connection is closed at once.
    fn was_free(&self) -> bool {
        match self.protocol {
            Protocol::Udp => self.live.traffic.down() == 0,
            Protocol::Tcp => matches!(self.ending, Ending::Denied | Ending::RateLimited),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Live { cluster, client, began, traffic, .. } = &*self.live;
        let duration = began.elapsed();
        cluster.counters.active.fetch_sub(1, Relaxed);
        cluster.counters.ended(self.ending);
        cluster.counters.timings.ended(duration, self.stats.held);
        if let Some(endpoint) = &self.endpoint {
            let lasted = duration.saturating_sub(self.stats.held);
            cluster.ended(endpoint, &self.outcome(lasted));
        }
        if !self.access_log.includes(self.ending) {
            return;
        }
        if self.was_free() && !cluster.should_log(self.ending) {
            return;
        }
        let Some(log) = access::sink() else { return };
        log.write(&Line {
            route: &cluster.members().options.name,
            client: *client,
            endpoint: Connected(self.endpoint.as_ref().map(|endpoint| &endpoint.key)),
            bytes_up: traffic.up(),
            bytes_down: traffic.down(),
            duration_ms: Milliseconds(duration),
            held_ms: Milliseconds(self.stats.held),
            attempts: self.stats.attempts,
            ending: self.ending,
            why: self.why(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Options;

    /// A session's memory is its task: ten thousand idle ones are ten thousand times this future, twice 256 bytes of
    /// tokio's registrations, and a hundred bytes of [`Live`]. With what tokio adds, 400 bytes make a task of 512, and the
    /// next byte one of 640.
    const FUTURE_BYTES_MAX: usize = 400;

    #[tokio::test]
    async fn the_future_of_a_session_stays_small() {
        let force = CancellationToken::new();
        let cluster = Arc::new(Cluster::new(Options::named("test"), force.clone()));
        let permit = cluster.fds.accept().unwrap();
        let fds = Arc::new(FdBudget::within(64, 1, 1));
        let shared = Arc::new(Shared {
            hold_limit: HoldLimit::new(0),
            stop: force.clone(),
            force,
            fds,
            access_log: AccessLog::All,
        });
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let accepted = Accepted { fd: ours.into(), client: ClientAddr::Unix, permit };
        let future = serve(accepted, cluster, 0, shared, Arc::new(()));
        assert!(size_of_val(&future) <= FUTURE_BYTES_MAX, "{} bytes", size_of_val(&future));
    }
}
