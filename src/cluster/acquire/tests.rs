//! The life of a held session, in virtual time.

use std::future::{pending, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::address::{EndpointAddr, EndpointKey, EndpointSpec, Identity};
use crate::cluster::Endpoint;

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
    let dialler =
        Scripted(|endpoint: &Endpoint| if endpoint.key == spec(good).key { Ok(()) } else { Err(refused()) });
    let result = cluster.acquire(gate, None, &mut effort, pending(), &dialler).await.map(|((), _)| ());
    (result, effort)
}

#[tokio::test(start_paused = true)]
async fn the_next_choice_is_tried_at_once() {
    let cluster = cluster(Duration::ZERO, &[spec(1), spec(2), spec(3)]);
    let (result, effort) = acquire(&cluster, &Gate::new(0), 3).await;
    assert_eq!(result, Ok(()));
    assert_eq!(effort, Effort { attempts: 3, held: Duration::ZERO, error: effort.error });
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
        assert_eq!(gate.held.used(), 0);
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
async fn a_pause_stops_the_clock_of_who_is_too_many() {
    let options = Options { max_sessions: Some(1), ..Options::named("test") };
    let cluster = limited(&options, &[1]);
    let gate = Gate::new(9);
    let first = enter(&cluster, &gate).await.unwrap();
    let operator = async {
        pass(4_000).await;
        cluster.pause(true);
        pass(60_000).await;
        cluster.pause(false);
        pass(3_000).await;
        drop(first);
    };
    let (second, ()) = tokio::join!(enter(&cluster, &gate), operator);
    assert!(second.is_ok());
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
    assert_eq!(gate.held.used(), 0);
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
    let acquired = cluster.acquire(&gate, None, &mut effort, pending(), &dialler).await;
    assert_eq!(acquired.map(|(endpoint, _)| endpoint), Ok(spec(2).key));
}

/// Connects after some milliseconds, right after a call of the function.
struct Slow<F>(u64, F);

impl<F: Fn() + Sync> Dial for Slow<F> {
    type Connection = EndpointKey;

    async fn dial(&self, endpoint: &Endpoint, _: Duration) -> io::Result<EndpointKey> {
        pass(self.0).await;
        (self.1)();
        Ok(endpoint.key.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_is_done_when_the_route_is_paused_makes_no_session_until_resume() {
    let cluster = cluster(Duration::ZERO, &[spec(1)]);
    let (gate, mut effort, paused) = (Gate::new(1), Effort::default(), AtomicUsize::new(0));
    // In the same poll as the connect, so that nothing could cancel it.
    let dialler = Slow(1_000, || cluster.pause(paused.fetch_add(1, Relaxed) == 0));
    let resume = async {
        pass(60_000).await;
        assert!(cluster.members().all().all(|(_, member)| member.endpoint.sessions() == 0));
        assert_eq!(cluster.counters.held.load(Relaxed), 1);
        cluster.pause(false);
    };
    let began = Instant::now();
    let (acquired, ()) = tokio::join!(cluster.acquire(&gate, None, &mut effort, pending(), &dialler), resume);
    assert!(acquired.is_ok());
    assert_eq!(began.elapsed(), Duration::from_secs(61), "it is dialled anew");
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_is_done_when_its_endpoint_is_drained_goes_to_another() {
    let cluster = cluster(Duration::from_secs(5), &[spec(1)]);
    let options = cluster.members().options.clone();
    let drained = EndpointSpec { weight: 0, ..spec(1) };
    let dialler = Slow(1_000, || {
        cluster.update(&options, &[drained.clone(), spec(2)]);
    });
    let (gate, mut effort) = (Gate::new(1), Effort::default());
    let acquired = cluster.acquire(&gate, None, &mut effort, pending(), &dialler).await;
    assert_eq!(acquired.map(|(endpoint, _)| endpoint), Ok(spec(2).key));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_leaves_the_endpoint_does_not_disturb_its_dial() {
    let cluster = cluster(Duration::ZERO, &[spec(1)]);
    let options = cluster.members().options.clone();
    let dialler = Slow(1_000, || ());
    let (gate, mut effort) = (Gate::new(1), Effort::default());
    let changes = async {
        for port in 2..5 {
            pass(200).await;
            cluster.update(&options, &[spec(1), spec(port)]);
        }
    };
    let began = Instant::now();
    let (acquired, ()) =
        tokio::join!(cluster.acquire(&gate, None, &mut effort, pending(), &dialler), changes);
    assert_eq!(acquired.map(|(endpoint, _)| endpoint), Ok(spec(1).key));
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert_eq!(effort.attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_or_is_forced_to_end_does_not_wait_for_its_dial() {
    let force = CancellationToken::new();
    let cluster = Cluster::seeded(Options::named("test"), force.clone(), 1);
    cluster.update(&Options::named("test"), &[spec(1)]);
    let (gate, mut effort) = (Gate::new(1), Effort::default());
    let dialler = Slow(1_000, || ());
    let began = Instant::now();
    let left = tokio::time::sleep(Duration::from_millis(300));
    let left = async {
        left.await;
        Ok(())
    };
    let acquired = cluster.acquire(&gate, None, &mut effort, left, &dialler).await;
    assert_eq!(acquired.map(|_| ()), Err(Ending::LeftWhileHeld));
    let end = async {
        pass(100).await;
        force.cancel();
    };
    let (acquired, ()) = tokio::join!(cluster.acquire(&gate, None, &mut effort, pending(), &dialler), end);
    assert_eq!(acquired.map(|_| ()), Err(Ending::Drained));
    assert_eq!(began.elapsed(), Duration::from_millis(400));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_half_closes_at_once_is_connected_if_that_is_quick() {
    let cluster = cluster(Duration::ZERO, &[spec(1)]);
    let (gate, mut effort, dialler) = (Gate::new(1), Effort::default(), Slow(200, || ()));
    let acquired = cluster.acquire(&gate, None, &mut effort, ready(Ok(())), &dialler).await;
    assert_eq!(acquired.map(|(endpoint, _)| endpoint), Ok(spec(1).key));
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
    let acquired = cluster.acquire(&Gate::new(1), None, &mut effort, left, &dialler).await;
    assert!(matches!(acquired, Err(Ending::LeftWhileHeld)));
    assert_eq!(effort.held, Duration::from_secs(2));
}

// === limits ===

fn limited(options: &Options, ports: &[u16]) -> Arc<Cluster> {
    let cluster = Cluster::seeded(options.clone(), CancellationToken::new(), 1);
    let specs: Vec<_> = ports.iter().map(|port| spec(*port)).collect();
    cluster.update(options, &specs);
    Arc::new(cluster)
}

/// Every endpoint answers.
async fn enter(cluster: &Cluster, gate: &Gate) -> Result<(EndpointKey, InFlight), Ending> {
    let dialler = Scripted(|endpoint: &Endpoint| Ok(endpoint.key.clone()));
    cluster.acquire(gate, None, &mut Effort::default(), pending(), &dialler).await
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_too_many_waits_in_the_order_of_coming() {
    let cluster = limited(&Options { max_sessions: Some(1), ..Options::named("test") }, &[1, 2]);
    let gate = Gate::new(9);
    let order = std::cell::RefCell::new(Vec::new());
    let session = async |n: u64| {
        pass(n).await;
        let (_, in_flight) = enter(&cluster, &gate).await.unwrap();
        order.borrow_mut().push(n);
        pass(1_000).await;
        drop(in_flight);
    };
    tokio::join!(session(3), session(1), session(2), session(5), session(4));
    assert_eq!(*order.borrow(), [1, 2, 3, 4, 5]);
    assert_eq!((cluster.inside(), gate.held.used(), cluster.counters.held.load(Relaxed)), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_is_too_many_waits_no_longer_than_hold() {
    for hold in [Duration::ZERO, Duration::from_secs(3)] {
        let options = Options { max_sessions: Some(1), hold, ..Options::named("test") };
        let cluster = limited(&options, &[1]);
        let gate = Gate::new(9);
        let _first = enter(&cluster, &gate).await.unwrap();
        let began = Instant::now();
        assert_eq!(enter(&cluster, &gate).await.err(), Some(Ending::TooMany));
        assert_eq!(began.elapsed(), hold);
    }
}

#[tokio::test(start_paused = true)]
async fn a_raised_limit_lets_those_in_who_wait() {
    let options = Options { max_sessions: Some(1), ..Options::named("test") };
    let cluster = limited(&options, &[1]);
    let gate = Gate::new(9);
    let _first = enter(&cluster, &gate).await.unwrap();
    let raise = async {
        pass(500).await;
        cluster.update(&Options { max_sessions: None, ..options }, &[spec(1)]);
    };
    let began = Instant::now();
    let (second, third, ()) = tokio::join!(enter(&cluster, &gate), enter(&cluster, &gate), raise);
    assert!(second.is_ok() && third.is_ok());
    assert_eq!(began.elapsed(), Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn a_full_endpoint_is_passed_by_and_when_all_are_full_the_next_to_leave_calls() {
    let options = Options { max_sessions_per_endpoint: Some(1), ..Options::named("test") };
    let cluster = limited(&options, &[1, 2]);
    let gate = Gate::new(9);
    let (first, second) = (enter(&cluster, &gate).await.unwrap(), enter(&cluster, &gate).await.unwrap());
    assert_ne!(first.0, second.0);
    let leave = async {
        pass(100).await;
        drop(second);
    };
    let began = Instant::now();
    let (third, ()) = tokio::join!(enter(&cluster, &gate), leave);
    assert_eq!(began.elapsed(), Duration::from_millis(100));
    let members = cluster.members();
    let loads: Vec<usize> = members.all().map(|(_, member)| member.endpoint.sessions()).collect();
    assert_eq!(loads, [1, 1]);
    drop((first, third));
    assert!(members.all().all(|(_, member)| member.endpoint.sessions() == 0));
}

#[tokio::test(start_paused = true)]
async fn full_endpoints_are_no_failed_ones() {
    let hold = Duration::from_secs(2);
    let options = Options { max_sessions_per_endpoint: Some(1), hold, ..Options::named("test") };
    let cluster = limited(&options, &[1]);
    let gate = Gate::new(9);
    let _first = enter(&cluster, &gate).await.unwrap();
    assert_eq!(enter(&cluster, &gate).await.err(), Some(Ending::TooMany));
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

/// Needs a descriptor for each round; there is none before a time.
struct Short {
    has: AtomicBool,
    since: Instant,
}

const SHORT: Duration = Duration::from_secs(3);

impl Dial for Short {
    type Connection = ();

    async fn dial(&self, _: &Endpoint, _: Duration) -> io::Result<()> {
        assert!(self.has.load(Relaxed), "dialled without a descriptor");
        Ok(())
    }

    fn release(&self) {
        self.has.store(false, Relaxed);
    }

    fn try_reserve(&self) -> bool {
        self.has.fetch_or(self.since.elapsed() >= SHORT, Relaxed);
        self.has.load(Relaxed)
    }

    async fn reserve(&self) {
        tokio::time::sleep_until(self.since + SHORT).await;
        self.has.store(true, Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_without_a_descriptor_is_held_for_no_longer_than_its_hold() {
    for (hold, expected) in [(SHORT * 2, Ok(())), (SHORT / 2, Err(Ending::Local))] {
        let (cluster, gate) = (cluster(hold, &[spec(1)]), Gate::new(1));
        let dialler = Short { has: AtomicBool::new(false), since: Instant::now() };
        let mut effort = Effort::default();
        let acquired = cluster.acquire(&gate, None, &mut effort, pending(), &dialler).await;
        assert_eq!(acquired.map(|((), _)| ()), expected);
        assert_eq!(effort.held, hold.min(SHORT));
        assert_eq!(gate.held.used(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_session_gives_up_its_descriptor() {
    let (cluster, gate) = (cluster(SHORT * 2, &[]), Gate::new(1));
    let dialler = Short { has: AtomicBool::new(true), since: Instant::now() };
    let mut effort = Effort::default();
    let acquired = cluster.acquire(&gate, None, &mut effort, pending(), &dialler);
    let look = async {
        tokio::time::sleep(SHORT / 2).await;
        assert!(!dialler.has.load(Relaxed));
    };
    let (acquired, ()) = tokio::join!(acquired, look);
    assert_eq!(acquired.map(|((), _)| ()), Err(Ending::NoEndpoint));
}

#[tokio::test(start_paused = true)]
async fn sessions_of_one_route_do_not_take_the_places_of_another() {
    let gate = Gate::new(8);
    let hold = Duration::from_secs(9);
    let (greedy, modest) = (cluster(hold, &[]), cluster(hold, &[]));
    gate.divide([&*greedy, &*modest].into_iter());
    let places: Vec<_> = std::iter::from_fn(|| gate.enter(&greedy)).collect();
    assert_eq!(places.len(), 6);
    let left: Vec<_> = std::iter::from_fn(|| gate.enter(&modest)).collect();
    assert_eq!(left.len(), 2);
}
