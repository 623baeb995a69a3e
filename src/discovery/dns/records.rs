//! The records of a server's answer. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::lookup::Lookup;
use hickory_resolver::proto::rr::{RData, Record};
use tokio::time::Instant;

use super::cache::Families;

/// The addresses of a name: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) families: Families,
    pub(super) ttl: Duration,
}

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SrvRecord {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    /// In lower case, with the final dot. The root, `.`, means that the service is not available (RFC 2782).
    pub(super) host: String,
}

/// An answer with SRV records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SrvAnswer {
    /// At least one.
    pub(super) records: Vec<SrvRecord>,
    /// The hosts whose addresses are in the additional section.
    pub(super) additional: BTreeMap<String, Found>,
    pub(super) ttl: Duration,
}

/// Returns the lowest TTL of these records, which include aliases.
pub(super) fn min_ttl<'r>(records: impl IntoIterator<Item = &'r Record>) -> Duration {
    let min = records.into_iter().map(|record| record.ttl).min();
    Duration::from_secs(u64::from(min.unwrap_or_default()))
}

/// Returns the address of an A or AAAA record.
pub(super) fn address(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(ip) => Some(IpAddr::V4(ip.0)),
        RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
        _ => None,
    }
}

/// Returns the SRV records of an answer of this moment, with the addresses of its additional section.
pub(super) fn srv_answer(found: &Lookup, now: Instant) -> SrvAnswer {
    let records = found.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => Some(SrvRecord {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            host: srv.target.to_ascii().to_ascii_lowercase(),
        }),
        _ => None,
    });
    let mut additional: BTreeMap<String, Found> = BTreeMap::new();
    let mut by_host: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    for record in found.additionals().iter().filter(|record| address(record).is_some()) {
        by_host.entry(record.name.to_ascii().to_ascii_lowercase()).or_default().push(record);
    }
    for (host, records) in by_host {
        let addresses = records.iter().copied().filter_map(address);
        let families = Families::new(addresses, now);
        additional.insert(host, Found { families, ttl: min_ttl(records) });
    }
    SrvAnswer { records: records.collect(), additional, ttl: min_ttl(found.answers()) }
}
