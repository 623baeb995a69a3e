//! A fake resolver with the responses of the simulation, which records the queries.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ambassador::discovery::dns::QueryFn;
use futures_util::FutureExt;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::time::{Instant, sleep};

use crate::simulation::rng::Rng;

/// The timeout of a lookup; later responses are ignored.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);

/// The maximum between two checks, which are some minutes apart; continuous queries would otherwise fill memory.
const ROUNDS_MAX: usize = 1_000;

/// The response for the records of one kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    says: Response,
    after: Duration,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Response {
    /// Addresses with their TTL in seconds.
    Addresses(BTreeMap<IpAddr, u32>),
    /// The name has no records of this kind.
    Nothing,
    #[default]
    NoSuchName,
    Fails,
}

/// A lookup of a name: both kinds at once.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) begun: Instant,
    pub(super) v4: Reply,
    pub(super) v6: Reply,
}

#[derive(Default)]
pub(super) struct Zone {
    replies: BTreeMap<(String, RecordType), Reply>,
    rounds: BTreeMap<String, Vec<Round>>,
}

pub(super) type Shared = Arc<Mutex<Zone>>;

impl Round {
    pub(super) fn ended(&self) -> Instant {
        self.begun + self.v4.after.max(self.v6.after).min(LOOKUP_TIMEOUT)
    }
}

impl Reply {
    /// Returns the response as received.
    pub(super) fn received(&self) -> &Response {
        if self.after < LOOKUP_TIMEOUT { &self.says } else { &Response::Fails }
    }
}

impl Response {
    /// Returns `None` if the lookup failed.
    pub(super) fn addresses(&self) -> Option<BTreeSet<IpAddr>> {
        match self {
            Response::Addresses(addresses) => Some(addresses.keys().copied().collect()),
            Response::Nothing | Response::NoSuchName => Some(BTreeSet::new()),
            Response::Fails => None,
        }
    }

    pub(super) fn ttl(&self) -> Option<Duration> {
        let Response::Addresses(addresses) = self else { return None };
        addresses.values().min().map(|ttl| Duration::from_secs(u64::from(*ttl)))
    }

    fn answer(self, name: &Name, kind: RecordType) -> Result<Lookup, NetError> {
        let query = Query::query(name.clone(), kind);
        let none = |code| Err(DnsError::NoRecordsFound(NoRecords::new(query.clone(), code)).into());
        match self {
            Response::Addresses(addresses) => {
                let record = |(ip, ttl): (IpAddr, u32)| Record::from_rdata(name.clone(), ttl, data(ip));
                Ok(Lookup::new_with_max_ttl(query, addresses.into_iter().map(record)))
            }
            Response::Nothing => none(ResponseCode::NoError),
            Response::NoSuchName => none(ResponseCode::NXDomain),
            Response::Fails => Err(DnsError::ResponseCode(ResponseCode::ServFail).into()),
        }
    }
}

fn data(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(ip.into()),
        IpAddr::V6(ip) => RData::AAAA(ip.into()),
    }
}

impl Zone {
    /// Changes the responses; returns a description.
    pub(super) fn change(&mut self, name: &str, rng: &mut Rng) -> String {
        let (v4, v6) = if rng.one_in(4) {
            // Failures and nonexistent names affect both kinds.
            let says = rng.pick(&[Response::NoSuchName, Response::NoSuchName, Response::Fails]);
            let reply = Reply { says, after: delay(rng) };
            (reply.clone(), reply)
        } else {
            (draw(RecordType::A, rng), draw(RecordType::AAAA, rng))
        };
        let event = format!("{name} is {v4:?}, {v6:?}");
        self.says(name, v4, v6);
        event
    }

    pub(super) fn recover(&mut self, name: &str) -> Vec<IpAddr> {
        let ip = "10.9.9.9".parse().unwrap();
        let well = Reply { says: Response::Addresses([(ip, 5)].into()), after: Duration::ZERO };
        self.says(name, well, Reply::default());
        vec![ip]
    }

    fn says(&mut self, name: &str, v4: Reply, v6: Reply) {
        self.replies.insert((name.to_owned(), RecordType::A), v4);
        self.replies.insert((name.to_owned(), RecordType::AAAA), v6);
    }

    fn reply(&self, name: &str, kind: RecordType) -> Reply {
        self.replies.get(&(name.to_owned(), kind)).cloned().unwrap_or_default()
    }

    /// Takes the rounds that have begun since the last call.
    pub(super) fn take_rounds(&mut self, name: &str) -> Vec<Round> {
        self.rounds.remove(name).unwrap_or_default()
    }
}

pub(super) fn asking(zone: &Shared) -> QueryFn {
    let zone = zone.clone();
    Arc::new(move |name, kind| {
        let mut zone = zone.lock().unwrap();
        let asked = name.to_ascii().trim_end_matches('.').to_owned();
        let reply = zone.reply(&asked, kind);
        if kind == RecordType::A {
            let round =
                Round { begun: Instant::now(), v4: reply.clone(), v6: zone.reply(&asked, RecordType::AAAA) };
            let rounds = zone.rounds.entry(asked).or_default();
            rounds.push(round);
            assert!(rounds.len() < ROUNDS_MAX, "queried without end");
        }
        async move {
            sleep(reply.after).await;
            reply.says.answer(&name, kind)
        }
        .boxed()
    })
}

fn draw(kind: RecordType, rng: &mut Rng) -> Reply {
    let says = match rng.below(8) {
        0 => Response::Fails,
        1 | 2 => Response::Nothing,
        3 => Response::NoSuchName,
        _ => Response::Addresses((0..rng.below(4)).map(|_| (address(kind, rng), ttl(rng))).collect()),
    };
    Reply { says, after: delay(rng) }
}

fn address(kind: RecordType, rng: &mut Rng) -> IpAddr {
    let last = 1 + rng.below(5);
    let text = if kind == RecordType::A { format!("10.0.0.{last}") } else { format!("fd00::{last}") };
    text.parse().unwrap()
}

fn ttl(rng: &mut Rng) -> u32 {
    rng.pick(&[0, 1, 2, 5, 30, 60, 600, u32::MAX])
}

fn delay(rng: &mut Rng) -> Duration {
    match rng.below(8) {
        0 => rng.millis(3_000),
        1 if rng.one_in(3) => 2 * LOOKUP_TIMEOUT,
        _ => Duration::ZERO,
    }
}
