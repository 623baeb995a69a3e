//! How many health checks run at one time. Each takes a descriptor, and one of a silent endpoint takes `health-timeout`.
//!
//! Each route has a permit of its own, and takes more from a pool that all routes share, but never all of it: whatever the
//! endpoints of other routes do, the checks of a route go on.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Checks that a route can always have under way. The route's descriptor budget includes them.
pub const OWN_PROBES: usize = 1;
/// Further checks, of all routes together: half of the descriptors that sessions leave alone.
const POOL_PROBES: usize = 32;
/// Checks of one route: half of the pool and its own.
const ROUTE_PROBES_MAX: usize = POOL_PROBES / 2 + OWN_PROBES;

/// Shared by all routes.
#[derive(Debug)]
pub(super) struct Pool(Semaphore);

/// Of one route.
#[derive(Debug)]
pub(super) struct Permits {
    own: Semaphore,
    all: Semaphore,
}

/// One check's; given back on drop.
#[derive(Debug)]
pub(super) struct Permit<'p> {
    _one_of_all: Option<SemaphorePermit<'p>>,
    _own_or_pooled: Option<SemaphorePermit<'p>>,
}

impl Default for Pool {
    fn default() -> Pool {
        Pool(Semaphore::new(POOL_PROBES))
    }
}

impl Default for Permits {
    fn default() -> Permits {
        Permits { own: Semaphore::new(OWN_PROBES), all: Semaphore::new(ROUTE_PROBES_MAX) }
    }
}

impl Permits {
    /// Waits for a permit.
    pub(super) async fn take<'p>(&'p self, pool: &'p Pool) -> Permit<'p> {
        // An error is a semaphore that was closed; none is.
        let one_of_all = self.all.acquire().await.ok();
        let own_or_pooled = tokio::select! {
            biased;
            own = self.own.acquire() => own.ok(),
            pooled = pool.0.acquire() => pooled.ok(),
        };
        Permit { _one_of_all: one_of_all, _own_or_pooled: own_or_pooled }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn take_all<'p>(permits: &'p Permits, pool: &'p Pool) -> Vec<Permit<'p>> {
        std::iter::from_fn(|| permits.take(pool).now_or_never()).collect()
    }

    #[test]
    fn a_route_takes_half_of_the_pool_and_others_keep_a_permit_when_it_is_empty() {
        let pool = Pool::default();
        let routes: [Permits; 4] = std::array::from_fn(|_| Permits::default());
        let taken = routes.each_ref().map(|route| take_all(route, &pool));
        assert_eq!(taken.each_ref().map(Vec::len), [17, 17, 1, 1]);
        drop(taken);
        assert_eq!(take_all(&routes[3], &pool).len(), 17, "all are given back");
    }
}
