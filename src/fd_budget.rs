//! File descriptors, divided fairly among the routes.
//!
//! A route has two shares of the process's limit: one for accepted connections, one for dialled ones. A session takes one of each
//! when it is accepted, so that every accepted session can dial. While it is held it returns the second; the share for dialling
//! then prevents held sessions from taking all descriptors, so that none of them could be served.
//!
//! A route that has used its shares, and cannot borrow, stops accepting: its connections wait in the kernel's backlog, and other
//! routes continue.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::budget::{Budget, Share, guarantee};
use crate::relay::{OPEN_PIPES, PipeAllowance};
use crate::route::Protocol;

/// Reserved for each address of the admin API: the limit of its connections and event streams together.
pub(crate) const ADMIN: usize = 96;

/// Reserved for the control plane: logs, sources, watched files. 1/32 of the limit is added for health checks and name lookups, which
/// grow with the number of routes.
const CONTROL: usize = 64;

/// Descriptors of each worker's runtime: two for epoll, eventfd, signals.
const WORKER: usize = 4;

/// The divisor for the part of the rest that is reserved for the pipes of bulk transfers, up to the number that the workers open.
/// Sessions cannot take these, and slow receivers cannot take the descriptors of sessions. Without a pipe a transfer is copied.
const PIPES: usize = 16;

/// A route is woken only by descriptors that its own sessions return. For those of other routes, a listener retries after this
/// time.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The same for a waiting session, of which there may be thousands.
const DIAL_RETRY: Duration = Duration::from_secs(1);

/// The descriptors of a stream session.
const SESSION: u32 = 2;

/// The descriptors of all listeners, sessions and flows together, and those of pipes.
#[derive(Debug)]
pub struct FdBudget {
    budget: Budget,
    listeners: AtomicU32,
    pipes: Budget,
    pipe: Share,
}

/// The shares of one route, and its tasks that wait for a descriptor.
#[derive(Debug)]
pub struct RouteFds {
    fds: Arc<FdBudget>,
    protocol: Protocol,
    downstream: Share,
    upstream: Share,
    /// Sessions are woken before listeners, because they were accepted earlier.
    dials: Waiters,
    accepts: Waiters,
}

/// The descriptors of one session, returned on drop.
#[derive(Debug)]
pub struct FdPermit {
    route: Arc<RouteFds>,
    /// False for a UDP flow, whose downstream socket is the listener's.
    downstream: bool,
    /// False while the session is held. Only the session itself changes it.
    upstream: AtomicBool,
}

/// The descriptors of listeners, returned on drop.
#[derive(Debug)]
pub(crate) struct ListenerFds {
    fds: Arc<FdBudget>,
    count: u32,
}

#[derive(Debug, Default)]
struct Waiters {
    count: AtomicUsize,
    freed: Notify,
}

/// A waiting task, until it is dropped.
struct Waiter<'r> {
    route: &'r RouteFds,
    among: &'r Waiters,
}

/// A listener that does not accept because there is no descriptor, until it is dropped.
pub(crate) struct AcceptPause<'r> {
    route: &'r Arc<RouteFds>,
    waiter: Waiter<'r>,
}

impl FdBudget {
    /// Creates the budget of a process. `limit` is its `RLIMIT_NOFILE` (getrlimit(2)), `admins` the number of addresses of the admin
    /// API.
    pub fn within(limit: usize, workers: usize, admins: usize) -> FdBudget {
        let reserved = ADMIN * admins + CONTROL + limit / 32 + workers.saturating_mul(WORKER);
        let rest = limit - reserved.min(limit / 2);
        let pipes = (rest / PIPES).min(workers.saturating_mul(2 * OPEN_PIPES));
        FdBudget::new(rest - pipes, pipes)
    }

    fn new(max: usize, pipes: usize) -> FdBudget {
        FdBudget {
            budget: Budget::new(max),
            listeners: AtomicU32::new(0),
            pipes: Budget::new(pipes),
            pipe: Share::default(),
        }
    }

    /// Creates the shares of a route. They have no guarantee before the next [`FdBudget::divide`].
    pub fn route(self: &Arc<FdBudget>, protocol: Protocol) -> Arc<RouteFds> {
        Arc::new(RouteFds {
            fds: self.clone(),
            protocol,
            downstream: Share::default(),
            upstream: Share::default(),
            dials: Waiters::default(),
            accepts: Waiters::default(),
        })
    }

    /// Counts listeners that are bound already.
    pub(crate) fn listeners(self: &Arc<FdBudget>, count: usize) -> ListenerFds {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.listeners.fetch_add(count, Relaxed);
        self.budget.claim(count);
        ListenerFds { fds: self.clone(), count }
    }

    /// Guarantees each of these routes, which must be all of them, an equal part.
    pub(crate) fn divide<'r>(&self, routes: impl ExactSizeIterator<Item = &'r RouteFds>) {
        let free = self.budget.max().saturating_sub(self.listeners.load(Relaxed));
        let each = guarantee(free, routes.len(), SESSION);
        routes.for_each(|route| route.set_guarantee(each));
    }

    /// Returns how many descriptors flows must leave to stream sessions when they borrow.
    fn spare(&self) -> u32 {
        self.budget.max() / 4
    }
}

impl PipeAllowance for FdBudget {
    fn take(&self) -> bool {
        self.pipes.take([&self.pipe, &self.pipe], 0)
    }

    fn give_back(&self) {
        self.pipes.give_back([&self.pipe, &self.pipe]);
    }
}

impl RouteFds {
    /// Creates the shares of a route with an unlimited budget of its own.
    pub fn unlimited() -> Arc<RouteFds> {
        Arc::new(FdBudget::new(usize::MAX, 0)).route(Protocol::Tcp)
    }

    /// Creates the shares of a route with a budget of its own.
    #[cfg(test)]
    pub(crate) fn limited(max: usize) -> Arc<RouteFds> {
        Arc::new(FdBudget::new(max, 0)).route(Protocol::Tcp)
    }

    /// Sets the guarantee. It is zero for a route that is closed, whose remaining sessions borrow.
    pub(crate) fn set_guarantee(&self, descriptors: u32) {
        let downstream = match self.protocol {
            Protocol::Tcp => descriptors / 2,
            Protocol::Udp => 0,
        };
        self.fds.budget.set_guarantee(&self.downstream, downstream);
        self.fds.budget.set_guarantee(&self.upstream, descriptors - downstream);
    }

    /// Takes the descriptors of a session that is about to be accepted. Returns `None` if there are none, and while sessions of the
    /// route wait to dial.
    pub(crate) fn accept(self: &Arc<RouteFds>) -> Option<FdPermit> {
        if self.dials.any() || !self.fds.budget.take([&self.downstream, &self.upstream], 0) {
            return None;
        }
        Some(FdPermit { route: self.clone(), downstream: true, upstream: AtomicBool::new(true) })
    }

    /// Takes the descriptor of a UDP flow. Flows never borrow the last descriptors.
    pub(crate) fn flow(self: &Arc<RouteFds>) -> Option<FdPermit> {
        self.dial_only()
    }

    /// Takes the descriptor of a session whose client is in a tunnel. Returns `None` if there is none.
    pub(crate) fn dial_only(self: &Arc<RouteFds>) -> Option<FdPermit> {
        Some(self.unreserved()).filter(FdPermit::try_reserve)
    }

    /// Returns the permit of a session that has no descriptor yet, and waits for one.
    pub(crate) fn unreserved(self: &Arc<RouteFds>) -> FdPermit {
        FdPermit { route: self.clone(), downstream: false, upstream: AtomicBool::new(false) }
    }

    /// Marks a listener of the route as paused.
    pub(crate) fn pause_accepting(self: &Arc<RouteFds>) -> AcceptPause<'_> {
        AcceptPause { route: self, waiter: self.wait_among(&self.accepts) }
    }

    /// Returns whether connections wait in the backlog because there are no descriptors.
    pub(crate) fn is_accept_paused(&self) -> bool {
        self.accepts.any()
    }

    /// Returns the number of descriptors of its sessions, without listeners.
    pub fn used(&self) -> u32 {
        self.downstream.used() + self.upstream.used()
    }

    /// Returns the number of descriptors that its sessions get regardless of other routes.
    pub(crate) fn guaranteed(&self) -> u32 {
        self.downstream.guaranteed() + self.upstream.guaranteed()
    }

    fn wait_among<'r>(&'r self, among: &'r Waiters) -> Waiter<'r> {
        among.count.fetch_add(1, Relaxed);
        Waiter { route: self, among }
    }

    /// Wakes a waiting task after descriptors were returned. A wake-up may be missed, because there is no lock; a timer covers that.
    fn wake_one(&self) {
        if self.dials.any() {
            self.dials.freed.notify_one();
        } else if self.accepts.any() {
            self.accepts.freed.notify_one();
        }
    }
}

impl FdPermit {
    /// Returns the descriptor for the upstream socket, which must be closed.
    pub(crate) fn release_upstream(&self) {
        if self.upstream.swap(false, Relaxed) {
            self.route.fds.budget.give_back([&self.route.upstream]);
            self.route.wake_one();
        }
    }

    /// Takes the upstream descriptor again if it was returned. Returns whether the permit has it now.
    pub(crate) fn try_reserve(&self) -> bool {
        let RouteFds { fds, protocol, upstream, .. } = &*self.route;
        let spare = match protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => fds.spare(),
        };
        let has = self.upstream.load(Relaxed) || fds.budget.take([upstream], spare);
        self.upstream.store(has, Relaxed);
        has
    }

    /// Waits for the upstream descriptor. The sessions of a route wait in FIFO order.
    pub(crate) async fn reserve(&self) {
        let waiter = self.route.wait_among(&self.route.dials);
        let mut freed = pin!(waiter.freed());
        loop {
            freed.as_mut().enable();
            if self.try_reserve() {
                return;
            }
            tokio::select! {
                () = freed.as_mut() => freed.set(waiter.freed()),
                () = tokio::time::sleep(DIAL_RETRY) => {}
            }
        }
    }
}

impl Drop for FdPermit {
    fn drop(&mut self) {
        let RouteFds { fds, downstream, upstream, .. } = &*self.route;
        match (self.downstream, *self.upstream.get_mut()) {
            (true, true) => fds.budget.give_back([downstream, upstream]),
            (true, false) => fds.budget.give_back([downstream]),
            (false, true) => fds.budget.give_back([upstream]),
            (false, false) => return,
        }
        self.route.wake_one();
    }
}

impl AcceptPause<'_> {
    /// Waits until there may be descriptors for a session.
    pub(crate) async fn over(&self) {
        let mut freed = pin!(self.waiter.freed());
        freed.as_mut().enable();
        if self.route.accept().is_none() {
            tokio::select! {
                () = freed => {}
                () = tokio::time::sleep(ACCEPT_RETRY) => {}
            }
        }
    }
}

impl Waiters {
    fn any(&self) -> bool {
        self.count.load(Relaxed) > 0
    }
}

impl<'r> Waiter<'r> {
    fn freed(&self) -> Notified<'r> {
        self.among.freed.notified()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.among.count.fetch_sub(1, Relaxed);
        // More descriptors may be free than this task waited for.
        self.route.wake_one();
    }
}

impl Drop for ListenerFds {
    fn drop(&mut self) {
        self.fds.listeners.fetch_sub(self.count, Relaxed);
        self.fds.budget.unclaim(self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a route for each protocol, in one budget.
    fn routes<const N: usize>(max: usize, protocols: [Protocol; N]) -> [Arc<RouteFds>; N] {
        let fds = Arc::new(FdBudget::new(max, 5));
        let routes = protocols.map(|protocol| fds.route(protocol));
        fds.divide(routes.iter().map(|route| &**route));
        routes
    }

    fn accept_all(route: &Arc<RouteFds>) -> Vec<FdPermit> {
        std::iter::from_fn(|| route.accept()).collect()
    }

    #[test]
    fn single_route_may_use_every_descriptor_and_returns_all() {
        let [route] = routes(100, [Protocol::Tcp]);
        let permits = accept_all(&route);
        assert_eq!((permits.len(), route.used()), (50, 100));
        drop(permits);
        assert_eq!(route.used(), 0);
        assert_eq!(accept_all(&route).len(), 50);
    }

    #[test]
    fn held_session_takes_one_descriptor_and_some_can_always_dial() {
        let [held, other] = routes(800, [Protocol::Tcp; 2]);
        let mut permits = Vec::new();
        while let Some(permit) = held.accept() {
            permit.release_upstream();
            permits.push(permit);
        }
        assert_eq!(
            permits.len(),
            500,
            "its 200, half of them for dialling, and the 400 that can be borrowed"
        );
        let dialling = permits.iter().filter(|permit| permit.try_reserve()).count();
        assert_eq!(dialling, 100);
        assert_eq!(accept_all(&other).len(), 100, "the guarantee of another route is available");
    }

    #[test]
    fn flows_leave_descriptors_to_streams() {
        let [streams, flows] = routes(800, [Protocol::Tcp, Protocol::Udp]);
        let flows: Vec<_> = std::iter::from_fn(|| flows.flow()).collect();
        assert_eq!(flows.len(), 400);
        assert_eq!(accept_all(&streams).len(), 200);
    }

    #[test]
    fn pipes_have_reserved_descriptors() {
        let [route] = routes(4, [Protocol::Tcp]);
        let permits = accept_all(&route);
        let pipes = || std::iter::from_fn(|| route.fds.take().then_some(())).count();
        assert_eq!((permits.len(), pipes()), (2, 2));
        route.fds.give_back();
        assert_eq!(pipes(), 1);
    }

    #[test]
    fn reserve_covers_the_rest_of_the_process_and_is_at_most_half() {
        assert_eq!(FdBudget::within(16, 2, 1).budget.max(), 8);
        let fds = Arc::new(FdBudget::within(1_024, 2, 1));
        assert_eq!((fds.budget.max(), fds.pipes.max()), (773, 51), "1,024 - 96 - 64 - 32 - 8");
        let _listeners = fds.listeners(73);
        assert_eq!(accept_all(&fds.route(Protocol::Tcp)).len(), 350);
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_that_wait_to_dial_are_served_in_order_and_before_new_ones() {
        let [route] = routes(4, [Protocol::Tcp]);
        let (first, second) = (route.accept().unwrap(), route.accept().unwrap());
        first.release_upstream();
        assert!(second.try_reserve() && route.fds.budget.take([&route.upstream], 0));
        let mut waits = pin!(first.reserve());
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        route.fds.budget.give_back([&route.upstream]);
        assert!(route.accept().is_none(), "a session waits");
        let began = tokio::time::Instant::now();
        second.release_upstream();
        waits.await;
        assert_eq!(began.elapsed(), Duration::ZERO, "woken, not by the timer");
    }

    #[tokio::test(start_paused = true)]
    async fn paused_listener_is_woken_by_descriptors_of_its_route() {
        let [route] = routes(2, [Protocol::Tcp]);
        let permit = route.accept().unwrap();
        let pause = route.pause_accepting();
        assert!(route.is_accept_paused());
        let began = tokio::time::Instant::now();
        pause.over().await;
        assert_eq!(began.elapsed(), ACCEPT_RETRY);
        {
            let mut over = pin!(pause.over());
            assert!(futures_util::poll!(over.as_mut()).is_pending());
            drop(permit);
            over.await;
        }
        assert_eq!(began.elapsed(), ACCEPT_RETRY);
        drop(pause);
        assert!(!route.is_accept_paused());
    }
}
