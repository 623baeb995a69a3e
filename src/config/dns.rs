//! The limits on the age of DNS answers. Pure.

use std::time::Duration;

/// How often names are resolved, and how long answers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A name is resolved again after this time at the latest, whatever its TTL (`--dns-max-ttl`).
    pub max_ttl: Duration,
    /// The last answer is kept for this time while lookups fail (`--dns-stale`).
    pub stale: Duration,
    /// The last answer is kept for this time after servers report that the name does not exist (`--dns-nx-stale`).
    pub nx_stale: Duration,
}

/// The minimum time between two lookups of a name: some servers return a TTL of 0 for every name.
pub const TTL_FLOOR: Duration = Duration::from_secs(1);

impl Default for Limits {
    /// 30 s bounds how long a moved service is not found: Docker's DNS returns a TTL of 600 s for containers, whose address
    /// changes at the next start. One hour is longer than most outages of name servers, and shorter than the time until an
    /// address is reused. 30 s after a negative answer, as HAProxy's `hold nx`, cover a server that restarts with an empty zone
    /// and a container that is recreated.
    fn default() -> Limits {
        let seconds = Duration::from_secs;
        Limits { max_ttl: seconds(30), stale: seconds(3600), nx_stale: seconds(30) }
    }
}
