//! How long DNS answers are used.

use std::time::Duration;

/// How often to ask, and how long to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `--dns-max-ttl`: a name is asked for again after this long, whatever its TTL.
    pub max_ttl: Duration,
    /// `--dns-stale`: the last answer is kept for this long while lookups fail.
    pub stale: Duration,
    /// `--dns-nx-stale`: the last answer is kept for this long after the servers began to deny the name.
    pub nx_stale: Duration,
}

/// No name is asked for more than once a second: some servers say a TTL of 0 for everything.
pub const TTL_FLOOR: Duration = Duration::from_secs(1);

impl Default for Limits {
    /// Docker's DNS says 600 s for a container whose address changes at its next start: a moved service is found within
    /// half a minute. An hour is longer than most outages of name servers, and shorter than a retired address is reused.
    /// A denial is an answer; half a minute, as HAProxy's `hold nx`, covers a server that restarts with an empty zone and
    /// a container that is created anew.
    fn default() -> Limits {
        let seconds = Duration::from_secs;
        Limits { max_ttl: seconds(30), stale: seconds(3600), nx_stale: seconds(30) }
    }
}
