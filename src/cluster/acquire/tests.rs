//! Acquiring an endpoint, in virtual time.

use std::future::{pending, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::address::{EndpointAddr, EndpointKey, EndpointSpec, Identity};
use crate::cluster::Endpoint;
use crate::fd_budget::RouteFds;

fn spec(port: u16) -> EndpointSpec {
    let addr = EndpointAddr::Inet(SocketAddr::from(([127, 0, 0, 1], port)));
    EndpointSpec::new(addr, Identity::Literal)
}

fn cluster(hold: Duration, endpoints: &[EndpointSpec]) -> Arc<Cluster> {
    let cluster = Cluster::seeded(Options::named("test"), CancellationToken::new(), 1);
    cluster.update(&Options { hold, ..Options::named("test") }, endpoints);
    Arc::new(cluster)
}

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

/// Connects at once, with the result of a function.
struct Scripted<F>(F);

impl<T: Send, F: Fn(&Endpoint) -> io::Result<T>> Dial for Scripted<F> {
    type Connection = T;

    fn dial(
        &self,
        endpoint: &Endpoint,
        _: Duration,
        _: Duration,
    ) -> impl Future<Output = io::Result<T>> + Send {
        ready((self.0)(endpoint))
    }
}

async fn acquire(cluster: &Cluster, limit: &HoldLimit, good: u16) -> (Result<(), Ending>, ConnectStats) {
    let mut stats = ConnectStats::default();
    let dialler =
        Scripted(|endpoint: &Endpoint| if endpoint.key == spec(good).key { Ok(()) } else { Err(refused()) });
    let result = cluster.acquire(limit, None, &mut stats, pending(), &dialler).await.map(|((), _)| ());
    (result, stats)
}

#[tokio::test(start_paused = true)]
async fn next_choice_is_tried_at_once() {
    let cluster = cluster(Duration::ZERO, &[spec(1), spec(2), spec(3)]);
    let (result, stats) = acquire(&cluster, &HoldLimit::new(0), 3).await;
    assert_eq!(result, Ok(()));
    assert_eq!(stats, ConnectStats { attempts: 3, held: Duration::ZERO, error: stats.error });
}

#[tokio::test(start_paused = true)]
async fn refusal_without_hold_is_final() {
    let (result, _) = acquire(&cluster(Duration::ZERO, &[spec(1)]), &HoldLimit::new(9), 2).await;
    assert_eq!(result, Err(Ending::ConnectFailed));
    let (result, _) = acquire(&cluster(Duration::ZERO, &[]), &HoldLimit::new(9), 2).await;
    assert_eq!(result, Err(Ending::NoEndpoint));
}

#[tokio::test(start_paused = true)]
async fn session_is_held_for_hold_and_no_longer() {
    let hold = Duration::from_secs(10);
    let (result, stats) = acquire(&cluster(hold, &[spec(1)]), &HoldLimit::new(9), 2).await;
    assert_eq!(result, Err(Ending::HoldExpired));
    assert_eq!(stats.held, hold);
    assert!(stats.attempts > 10, "{stats:?}");
    let (result, stats) = acquire(&cluster(hold, &[]), &HoldLimit::new(9), 2).await;
    assert_eq!((result, stats.attempts), (Err(Ending::NoEndpoint), 0));
}

#[tokio::test(start_paused = true)]
async fn held_session_is_woken_by_a_change() {
    let cluster = cluster(Duration::from_secs(10), &[]);
    let options = cluster.members_arc().options.clone();
    let changes = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(cluster.counters.held.load(Relaxed), 1);
        cluster.update(&options, &[spec(2)]);
    };
    let limit = HoldLimit::new(1);
    let ((result, stats), ()) = tokio::join!(acquire(&cluster, &limit, 2), changes);
    assert_eq!(result, Ok(()));
    assert_eq!(stats.attempts, 1);
    assert_eq!(stats.held, Duration::from_secs(3), "without polling");
    assert_eq!(cluster.counters.held.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn session_of_a_paused_route_waits_for_resume_and_not_for_hold() {
    for hold in [Duration::ZERO, Duration::from_secs(1)] {
        let cluster = cluster(hold, &[spec(2)]);
        cluster.pause(true);
        let resume = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(cluster.counters.held.load(Relaxed), 1);
            cluster.pause(false);
        };
        let limit = HoldLimit::new(1);
        let ((result, stats), ()) = tokio::join!(acquire(&cluster, &limit, 2), resume);
        assert_eq!((result, stats.attempts), (Ok(()), 1));
        assert_eq!(stats.held, Duration::from_secs(60));
        assert_eq!(limit.held(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn pause_stops_the_clock_of_hold() {
    let cluster = cluster(Duration::from_secs(10), &[]);
    let operator = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        cluster.pause(true);
        tokio::time::sleep(Duration::from_secs(60)).await;
        cluster.pause(false);
    };
    let limit = HoldLimit::new(1);
    let ((result, stats), ()) = tokio::join!(acquire(&cluster, &limit, 2), operator);
    assert_eq!(result, Err(Ending::NoEndpoint));
    assert_eq!(stats.held, Duration::from_secs(70));
}

#[tokio::test(start_paused = true)]
async fn pause_stops_the_clock_of_a_session_that_waits_for_a_slot() {
    let options = Options { max_sessions: Some(1), ..Options::named("test") };
    let cluster = limited(&options, &[1]);
    let limit = HoldLimit::new(9);
    let first = enter(&cluster, &limit).await.unwrap();
    let operator = async {
        pass(4_000).await;
        cluster.pause(true);
        pass(60_000).await;
        cluster.pause(false);
        pass(3_000).await;
        drop(first);
    };
    let (second, ()) = tokio::join!(enter(&cluster, &limit), operator);
    assert!(second.is_ok());
}

#[tokio::test(start_paused = true)]
async fn endpoint_of_weight_zero_gets_no_session() {
    let drained = EndpointSpec { weight: 0, ..spec(2) };
    let (result, stats) = acquire(&cluster(Duration::from_secs(1), &[drained]), &HoldLimit::new(1), 2).await;
    assert_eq!((result, stats.attempts), (Err(Ending::NoEndpoint), 0));
}

#[tokio::test(start_paused = true)]
async fn number_of_held_sessions_is_limited() {
    let cluster = cluster(Duration::from_secs(1), &[]);
    let limit = HoldLimit::new(1);
    let (first, second) = tokio::join!(acquire(&cluster, &limit, 2), acquire(&cluster, &limit, 2));
    assert_eq!(first.0, Err(Ending::NoEndpoint));
    assert_eq!(second.0, Err(Ending::HoldFull));
    assert_eq!(limit.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_leaves_while_it_is_dialled_gets_no_session() {
    let cluster = cluster(Duration::from_secs(5), &[spec(1)]);
    let options = cluster.members_arc().options.clone();
    let mut stats = ConnectStats::default();
    let limit = HoldLimit::new(1);
    let dialler = Scripted(|endpoint: &Endpoint| {
        if endpoint.key == spec(1).key {
            cluster.update(&options, &[spec(2)]);
        }
        Ok(endpoint.key.clone())
    });
    let acquired = cluster.acquire(&limit, None, &mut stats, pending(), &dialler).await;
    assert_eq!(acquired.map(|(endpoint, _)| endpoint), Ok(spec(2).key));
}

/// Connects after some milliseconds, and calls a function just before.
struct Slow<F>(u64, F);

impl<F: Fn() + Sync> Dial for Slow<F> {
    type Connection = EndpointKey;

    async fn dial(&self, endpoint: &Endpoint, _: Duration, _: Duration) -> io::Result<EndpointKey> {
        pass(self.0).await;
        (self.1)();
        Ok(endpoint.key.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn dial_that_completes_as_the_route_is_paused_makes_no_session_until_resume() {
    let cluster = cluster(Duration::ZERO, &[spec(1)]);
    let (limit, mut stats, paused) = (HoldLimit::new(1), ConnectStats::default(), AtomicUsize::new(0));
    // In the same poll as the connect, so that it cannot be cancelled.
    let dialler = Slow(1_000, || cluster.pause(paused.fetch_add(1, Relaxed) == 0));
    let resume = async {
        pass(60_000).await;
        assert!(cluster.members_arc().all().all(|(_, member)| member.endpoint.sessions() == 0));
        assert_eq!(cluster.counters.held.load(Relaxed), 1);
        cluster.pause(false);
    };
    let began = Instant::now();
    let (acquired, ()) = tokio::join!(cluster.acquire(&limit, None, &mut stats, pending(), &dialler), resume);
    assert!(acquired.is_ok());
    assert_eq!(began.elapsed(), Duration::from_secs(61), "it is dialled again");
}

#[tokio::test(start_paused = true)]
async fn dial_that_completes_as_its_endpoint_is_drained_is_retried_on_another() {
    let cluster = cluster(Duration::from_secs(5), &[spec(1)]);
    let options = cluster.members_arc().options.clone();
    let drained = EndpointSpec { weight: 0, ..spec(1) };
    let dialler = Slow(1_000, || {
        cluster.update(&options, &[drained.clone(), spec(2)]);
    });
    let (limit, mut stats) = (HoldLimit::new(1), ConnectStats::default());
    let acquired = cluster.acquire(&limit, None, &mut stats, pending(), &dialler).await;
    assert_eq!(acquired.map(|(endpoint, _)| endpoint), Ok(spec(2).key));
}

#[tokio::test(start_paused = true)]
async fn change_that_keeps_the_endpoint_does_not_interrupt_its_dial() {
    let cluster = cluster(Duration::ZERO, &[spec(1)]);
    let options = cluster.members_arc().options.clone();
    let dialler = Slow(1_000, || ());
    let (limit, mut stats) = (HoldLimit::new(1), ConnectStats::default());
    let changes = async {
        for port in 2..5 {
            pass(200).await;
            cluster.update(&options, &[spec(1), spec(port)]);
        }
    };
    let began = Instant::now();
    let (acquired, ()) =
        tokio::join!(cluster.acquire(&limit, None, &mut stats, pending(), &dialler), changes);
    assert_eq!(acquired.map(|(endpoint, _)| endpoint), Ok(spec(1).key));
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert_eq!(stats.attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn client_that_leaves_and_forced_end_do_not_wait_for_the_dial() {
    let force = CancellationToken::new();
    let cluster = Cluster::seeded(Options::named("test"), force.clone(), 1);
    cluster.update(&Options::named("test"), &[spec(1)]);
    let (limit, mut stats) = (HoldLimit::new(1), ConnectStats::default());
    let dialler = Slow(1_000, || ());
    let began = Instant::now();
    let left = tokio::time::sleep(Duration::from_millis(300));
    let left = async {
        left.await;
        Ok(())
    };
    let acquired = cluster.acquire(&limit, None, &mut stats, left, &dialler).await;
    assert_eq!(acquired.map(|_| ()), Err(Ending::LeftWhileHeld));
    let end = async {
        pass(100).await;
        force.cancel();
    };
    let (acquired, ()) = tokio::join!(cluster.acquire(&limit, None, &mut stats, pending(), &dialler), end);
    assert_eq!(acquired.map(|_| ()), Err(Ending::Drained));
    assert_eq!(began.elapsed(), Duration::from_millis(400));
}

#[tokio::test(start_paused = true)]
async fn client_that_half_closes_at_once_is_connected_by_a_fast_dial() {
    let cluster = cluster(Duration::ZERO, &[spec(1)]);
    let (limit, mut stats, dialler) = (HoldLimit::new(1), ConnectStats::default(), Slow(200, || ()));
    let acquired = cluster.acquire(&limit, None, &mut stats, ready(Ok(())), &dialler).await;
    assert_eq!(acquired.map(|(endpoint, _)| endpoint), Ok(spec(1).key));
}

#[tokio::test(start_paused = true)]
async fn client_that_leaves_while_held_is_noticed() {
    let cluster = cluster(Duration::from_secs(5), &[]);
    let mut stats = ConnectStats::default();
    let left = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(())
    };
    let dialler = Scripted(|_: &Endpoint| Ok(()));
    let acquired = cluster.acquire(&HoldLimit::new(1), None, &mut stats, left, &dialler).await;
    assert!(matches!(acquired, Err(Ending::LeftWhileHeld)));
    assert_eq!(stats.held, Duration::from_secs(2));
}

// === limits ===

fn limited(options: &Options, ports: &[u16]) -> Arc<Cluster> {
    let cluster = Cluster::seeded(options.clone(), CancellationToken::new(), 1);
    let specs: Vec<_> = ports.iter().map(|port| spec(*port)).collect();
    cluster.update(options, &specs);
    Arc::new(cluster)
}

/// Acquires an endpoint; every one answers.
async fn enter(cluster: &Cluster, limit: &HoldLimit) -> Result<(EndpointKey, InFlight), Ending> {
    let dialler = Scripted(|endpoint: &Endpoint| Ok(endpoint.key.clone()));
    cluster.acquire(limit, None, &mut ConnectStats::default(), pending(), &dialler).await
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn excess_sessions_queue_in_fifo_order() {
    let cluster = limited(&Options { max_sessions: Some(1), ..Options::named("test") }, &[1, 2]);
    let limit = HoldLimit::new(9);
    let order = std::cell::RefCell::new(Vec::new());
    let session = async |n: u64| {
        pass(n).await;
        let (_, in_flight) = enter(&cluster, &limit).await.unwrap();
        order.borrow_mut().push(n);
        pass(1_000).await;
        drop(in_flight);
    };
    tokio::join!(session(3), session(1), session(2), session(5), session(4));
    assert_eq!(*order.borrow(), [1, 2, 3, 4, 5]);
    assert_eq!((cluster.admitted(), limit.held(), cluster.counters.held.load(Relaxed)), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn excess_session_waits_no_longer_than_hold() {
    for hold in [Duration::ZERO, Duration::from_secs(3)] {
        let options = Options { max_sessions: Some(1), hold, ..Options::named("test") };
        let cluster = limited(&options, &[1]);
        let limit = HoldLimit::new(9);
        let _first = enter(&cluster, &limit).await.unwrap();
        let began = Instant::now();
        assert_eq!(enter(&cluster, &limit).await.err(), Some(Ending::TooMany));
        assert_eq!(began.elapsed(), hold);
    }
}

#[tokio::test(start_paused = true)]
async fn raised_limit_admits_queued_sessions() {
    let options = Options { max_sessions: Some(1), ..Options::named("test") };
    let cluster = limited(&options, &[1]);
    let limit = HoldLimit::new(9);
    let _first = enter(&cluster, &limit).await.unwrap();
    let raise = async {
        pass(500).await;
        cluster.update(&Options { max_sessions: None, ..options }, &[spec(1)]);
    };
    let began = Instant::now();
    let (second, third, ()) = tokio::join!(enter(&cluster, &limit), enter(&cluster, &limit), raise);
    assert!(second.is_ok() && third.is_ok());
    assert_eq!(began.elapsed(), Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn full_endpoint_is_skipped_and_a_session_that_ends_wakes_the_next() {
    let options = Options { max_sessions_per_endpoint: Some(1), ..Options::named("test") };
    let cluster = limited(&options, &[1, 2]);
    let limit = HoldLimit::new(9);
    let (first, second) = (enter(&cluster, &limit).await.unwrap(), enter(&cluster, &limit).await.unwrap());
    assert_ne!(first.0, second.0);
    let leave = async {
        pass(100).await;
        drop(second);
    };
    let began = Instant::now();
    let (third, ()) = tokio::join!(enter(&cluster, &limit), leave);
    assert_eq!(began.elapsed(), Duration::from_millis(100));
    let members = cluster.members_arc();
    let loads: Vec<usize> = members.all().map(|(_, member)| member.endpoint.sessions()).collect();
    assert_eq!(loads, [1, 1]);
    drop((first, third));
    assert!(members.all().all(|(_, member)| member.endpoint.sessions() == 0));
}

#[tokio::test(start_paused = true)]
async fn full_endpoint_is_not_a_failed_one() {
    let hold = Duration::from_secs(2);
    let options = Options { max_sessions_per_endpoint: Some(1), hold, ..Options::named("test") };
    let cluster = limited(&options, &[1]);
    let limit = HoldLimit::new(9);
    let _first = enter(&cluster, &limit).await.unwrap();
    assert_eq!(enter(&cluster, &limit).await.err(), Some(Ending::TooMany));
}

#[tokio::test(start_paused = true)]
async fn sources_are_refreshed_every_second_while_there_is_no_endpoint() {
    let cluster = cluster(Duration::from_secs(10), &[]);
    let limit = HoldLimit::new(1);
    let refresh = limit.refresh();
    let began = Instant::now();
    let refreshed = async {
        for _ in 0..5 {
            refresh.notified().await;
        }
        began.elapsed()
    };
    let (refreshed, _) = tokio::join!(refreshed, acquire(&cluster, &limit, 2));
    assert!(refreshed <= 4 * BACKOFF_MAX, "{refreshed:?}");
}

/// Requires the descriptor of a permit.
struct Permitted(FdPermit);

impl Dial for Permitted {
    type Connection = ();

    async fn dial(&self, _: &Endpoint, _: Duration, _: Duration) -> io::Result<()> {
        assert!(self.0.try_reserve(), "dialled without a descriptor");
        Ok(())
    }

    fn permit(&self) -> Option<&FdPermit> {
        Some(&self.0)
    }
}

/// How long no descriptor is free.
const EXHAUSTED: Duration = Duration::from_secs(3);

#[tokio::test(start_paused = true)]
async fn session_without_a_descriptor_is_held_no_longer_than_hold() {
    for (hold, expected) in [(EXHAUSTED * 2, Ok(())), (EXHAUSTED / 2, Err(Ending::Local))] {
        let (cluster, limit) = (cluster(hold, &[spec(1)]), HoldLimit::new(1));
        let fds = RouteFds::limited(3);
        let dialler = Permitted(fds.accept().unwrap());
        dialler.0.release_upstream();
        let others: Vec<_> = std::iter::from_fn(|| fds.accept()).collect();
        assert!(!others.is_empty() && !dialler.0.try_reserve());
        let mut stats = ConnectStats::default();
        let acquired = async {
            let acquired = cluster.acquire(&limit, None, &mut stats, pending(), &dialler).await;
            acquired.map(|((), _)| ())
        };
        let free = async {
            tokio::time::sleep(EXHAUSTED).await;
            drop(others);
        };
        let (acquired, ()) = tokio::join!(acquired, free);
        assert_eq!(acquired, expected);
        assert_eq!(stats.held, hold.min(EXHAUSTED));
        assert_eq!(limit.held(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn held_session_returns_its_descriptor() {
    let (cluster, limit) = (cluster(EXHAUSTED * 2, &[]), HoldLimit::new(1));
    let fds = RouteFds::limited(2);
    let dialler = Permitted(fds.accept().unwrap());
    assert_eq!(fds.used(), 2);
    let mut stats = ConnectStats::default();
    let acquired = cluster.acquire(&limit, None, &mut stats, pending(), &dialler);
    let look = async {
        tokio::time::sleep(EXHAUSTED / 2).await;
        assert_eq!(fds.used(), 1);
    };
    let (acquired, ()) = tokio::join!(acquired, look);
    assert_eq!(acquired.map(|((), _)| ()), Err(Ending::NoEndpoint));
}

#[tokio::test(start_paused = true)]
async fn held_sessions_of_one_route_leave_the_guarantee_of_another() {
    let limit = HoldLimit::new(8);
    let hold = Duration::from_secs(9);
    let (greedy, modest) = (cluster(hold, &[]), cluster(hold, &[]));
    limit.divide([&*greedy, &*modest].into_iter());
    let permits: Vec<_> = std::iter::from_fn(|| limit.hold(&greedy)).collect();
    assert_eq!(permits.len(), 6);
    let left: Vec<_> = std::iter::from_fn(|| limit.hold(&modest)).collect();
    assert_eq!(left.len(), 2);
}
