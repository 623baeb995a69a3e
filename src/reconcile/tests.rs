//! Drops the control loop at each of its awaits.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::task::Poll;

use super::open_routes::CLOSE_BURST;
use super::*;
use crate::cluster::acquire::HoldLimit;
use crate::config::grammar::parse_route;
use crate::diagnostic::Place;
use crate::discovery::Snapshot;
use crate::ending::AccessLog;
use crate::fd_budget::FdBudget;
use crate::route::{Layer, Protocol, Route};
use crate::session::exports::Exports;
use crate::stall::StallMonitor;
use crate::tunnel::Peers;

const TIMEOUT: Duration = Duration::from_secs(60);

/// More than are closed or opened between two awaits.
const SINGLE: u16 = 3 * CLOSE_BURST as u16;
const RANGE: u16 = 200;

/// An address that neither another test nor another test process uses. The ports are below the kernel's ephemeral range.
fn ip() -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), low, 99)
}

/// Single ports from `first` on, and a range.
fn table(first: u16, range: u16) -> Vec<Route> {
    let ip = ip();
    let singles = (0..SINGLE).map(|n| format!("{ip}:{}=127.0.0.1:1", first + n));
    let range = format!("{ip}:{range}-{}=127.0.0.1:1", range + RANGE);
    singles.chain([range]).map(|line| parse_route(&line, &Place::Built).unwrap()).collect()
}

fn before() -> Vec<Route> {
    table(20_000, 21_000)
}

/// The range overlaps that of [`before`], which must be closed first.
fn after() -> Vec<Route> {
    table(22_000, 21_100)
}

fn reconciler(stalls: &StallMonitor) -> Reconciler {
    let control = Control::default();
    let fds = Arc::new(FdBudget::within(20_000, 2, 1));
    let (force, stop) = (control.force.clone(), control.stop.clone());
    let shared = Arc::new(Shared {
        hold_limit: HoldLimit::new(9),
        force,
        stop,
        tunnel_fds: fds.route(Protocol::Tcp),
        fds,
        access_log: AccessLog::All,
        peers: Arc::new(Peers::new(None, Arc::default())),
        exports: Exports::default(),
        tls: Arc::default(),
        history: Arc::default(),
    });
    let workers = Workers::start(NonZeroUsize::new(2).unwrap(), &shared, stalls).unwrap();
    let mut config = Config::with_routes(Vec::new());
    config.file = Layer { routes: before() };
    Reconciler::new(config, workers, shared, &control, Arc::default(), stalls.counts())
}

/// Polls `run` until it has been pending `times` times, then drops it.
async fn pending_times(times: usize, run: impl Future<Output = ()>) {
    let (mut run, mut seen) = (pin!(run), 0);
    poll_fn(|context| {
        assert!(run.as_mut().poll(context).is_pending());
        seen += 1;
        if seen == times { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn is_bound(routes: &[Route], reconciler: &Reconciler) -> bool {
    let overview = reconciler.overview.load();
    let listens: Vec<&Listen> = overview.routes.iter().map(|view| &view.route.listen).collect();
    overview.routes.iter().all(|view| view.cluster.is_some())
        && routes.len() == listens.len()
        && routes.iter().all(|route| listens.contains(&&route.listen))
}

fn assert_closed(routes: &[Route]) {
    for route in routes {
        let Listen::Inet { ports, .. } = route.listen else { continue };
        for port in ports.first..=ports.last {
            let addr = SocketAddr::new(IpAddr::V4(ip()), port);
            assert!(TcpListener::bind(addr).is_ok(), "{addr} is still open");
        }
    }
}

/// Reloads, and drops the loop when it has been pending `times` times. Returns whether the reload was complete by then.
async fn reload_dropped_after(times: usize) -> bool {
    let stalls = StallMonitor::start().unwrap();
    let mut reconciler = reconciler(&stalls);
    reconciler.begin().await.unwrap();
    assert!(is_bound(&before(), &reconciler));
    reconciler.updates().send(SourceUpdate::Snapshot(Snapshot::File(after()))).await.unwrap();
    pending_times(times, reconciler.run_until(std::future::pending())).await;
    let is_complete = is_bound(&after(), &reconciler);
    let workers = reconciler.stop_listening().unwrap();
    drop(reconciler);
    tokio::time::timeout(TIMEOUT, workers.join()).await.expect("every worker ends");
    assert_closed(&before());
    assert_closed(&after());
    is_complete
}

#[tokio::test]
async fn reload_dropped_at_any_await_leaves_no_listener_and_no_worker() {
    let mut awaits = 1;
    while !reload_dropped_after(awaits).await {
        awaits += 1;
    }
    assert!(awaits > 4, "bursts that were closed and opened: {awaits}");
}

#[tokio::test]
async fn reload_dropped_at_any_await_is_completed_by_the_next_round() {
    for awaits in 1..4 {
        let stalls = StallMonitor::start().unwrap();
        let mut reconciler = reconciler(&stalls);
        reconciler.begin().await.unwrap();
        reconciler.updates().send(SourceUpdate::Snapshot(Snapshot::File(after()))).await.unwrap();
        pending_times(awaits, reconciler.run_until(std::future::pending())).await;
        assert_eq!(reconciler.apply().await.len(), 0, "every listener can be bound");
        assert!(is_bound(&after(), &reconciler));
    }
}
