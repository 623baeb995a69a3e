//! Limits how many health checks run at one time. Each takes a descriptor, and up to `health-timeout` if its endpoint is silent.
//!
//! Each route has a permit of its own, and shares of a pool that it can never exhaust alone, so that the checks of a route
//! continue whatever the endpoints of other routes do.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Checks that a route can always run. The route's descriptor budget includes them.
pub const OWN_PROBES: usize = 1;
/// Further checks, of all routes together: half of the descriptors that are reserved for the control plane.
const POOL_PROBES: usize = 32;
/// Checks of one route: half of the pool and its own.
const ROUTE_PROBES_MAX: usize = POOL_PROBES / 2 + OWN_PROBES;

/// The permits that all routes share.
#[derive(Debug)]
pub(super) struct ProbePool(Semaphore);

/// The permits of one route.
#[derive(Debug)]
pub(super) struct ProbePermits {
    own: Semaphore,
    all: Semaphore,
}

/// A permit for one check, returned on drop.
#[derive(Debug)]
pub(super) struct ProbePermit<'p> {
    _one_of_all: Option<SemaphorePermit<'p>>,
    _own_or_pooled: Option<SemaphorePermit<'p>>,
}

impl Default for ProbePool {
    fn default() -> ProbePool {
        ProbePool(Semaphore::new(POOL_PROBES))
    }
}

impl Default for ProbePermits {
    fn default() -> ProbePermits {
        ProbePermits { own: Semaphore::new(OWN_PROBES), all: Semaphore::new(ROUTE_PROBES_MAX) }
    }
}

impl ProbePermits {
    /// Waits for a permit.
    pub(super) async fn acquire<'p>(&'p self, pool: &'p ProbePool) -> ProbePermit<'p> {
        // Fails only for a closed semaphore, and these are never closed.
        let one_of_all = self.all.acquire().await.ok();
        let own_or_pooled = tokio::select! {
            biased;
            own = self.own.acquire() => own.ok(),
            pooled = pool.0.acquire() => pooled.ok(),
        };
        ProbePermit { _one_of_all: one_of_all, _own_or_pooled: own_or_pooled }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn acquire_all<'p>(permits: &'p ProbePermits, pool: &'p ProbePool) -> Vec<ProbePermit<'p>> {
        std::iter::from_fn(|| permits.acquire(pool).now_or_never()).collect()
    }

    #[test]
    fn route_takes_half_of_the_pool_and_others_keep_a_permit_when_it_is_empty() {
        let pool = ProbePool::default();
        let routes: [ProbePermits; 4] = std::array::from_fn(|_| ProbePermits::default());
        let taken = routes.each_ref().map(|route| acquire_all(route, &pool));
        assert_eq!(taken.each_ref().map(Vec::len), [17, 17, 1, 1]);
        drop(taken);
        assert_eq!(acquire_all(&routes[3], &pool).len(), 17, "all are returned");
    }
}
