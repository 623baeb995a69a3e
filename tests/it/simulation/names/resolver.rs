//! A resolver that says what a story has it say, and keeps the record of it.

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

use crate::simulation::lots::Lots;

/// A name is given up after so long: what comes later has not come.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);

/// Between two looks at them, which are some minutes apart; else a name that is asked for all the time fills memory.
const ROUNDS_MAX: usize = 1_000;

/// What is said of a name's records of one kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    says: Says,
    after: Duration,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Says {
    /// Each with its TTL in seconds.
    Addresses(BTreeMap<IpAddr, u32>),
    /// There are none of this kind.
    Nothing,
    #[default]
    NoSuchName,
    Fails,
}

/// A name was asked for: both kinds at once.
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
    /// What is heard of it.
    pub(super) fn heard(&self) -> &Says {
        if self.after < LOOKUP_TIMEOUT { &self.says } else { &Says::Fails }
    }
}

impl Says {
    /// `None`: nobody could say.
    pub(super) fn addresses(&self) -> Option<BTreeSet<IpAddr>> {
        match self {
            Says::Addresses(addresses) => Some(addresses.keys().copied().collect()),
            Says::Nothing | Says::NoSuchName => Some(BTreeSet::new()),
            Says::Fails => None,
        }
    }

    pub(super) fn ttl(&self) -> Option<Duration> {
        let Says::Addresses(addresses) = self else { return None };
        addresses.values().min().map(|ttl| Duration::from_secs(u64::from(*ttl)))
    }

    fn answer(self, name: &Name, kind: RecordType) -> Result<Lookup, NetError> {
        let query = Query::query(name.clone(), kind);
        let none = |code| Err(DnsError::NoRecordsFound(NoRecords::new(query.clone(), code)).into());
        match self {
            Says::Addresses(addresses) => {
                let record = |(ip, ttl): (IpAddr, u32)| Record::from_rdata(name.clone(), ttl, data(ip));
                Ok(Lookup::new_with_max_ttl(query, addresses.into_iter().map(record)))
            }
            Says::Nothing => none(ResponseCode::NoError),
            Says::NoSuchName => none(ResponseCode::NXDomain),
            Says::Fails => Err(DnsError::ResponseCode(ResponseCode::ServFail).into()),
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
    /// From now on, until the next change. Says what.
    pub(super) fn changes(&mut self, name: &str, lots: &mut Lots) -> String {
        let (v4, v6) = if lots.one_in(4) {
            // A server that is away is so for both; a name that is gone too.
            let says = lots.of(&[Says::NoSuchName, Says::NoSuchName, Says::Fails]);
            let reply = Reply { says, after: delay(lots) };
            (reply.clone(), reply)
        } else {
            (draw(RecordType::A, lots), draw(RecordType::AAAA, lots))
        };
        let event = format!("{name} is {v4:?}, {v6:?}");
        self.says(name, v4, v6);
        event
    }

    pub(super) fn is_well(&mut self, name: &str) -> Vec<IpAddr> {
        let ip = "10.9.9.9".parse().unwrap();
        let well = Reply { says: Says::Addresses([(ip, 5)].into()), after: Duration::ZERO };
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

    /// Those that have begun, and were not taken yet.
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
            assert!(rounds.len() < ROUNDS_MAX, "asked for without end");
        }
        async move {
            sleep(reply.after).await;
            reply.says.answer(&name, kind)
        }
        .boxed()
    })
}

fn draw(kind: RecordType, lots: &mut Lots) -> Reply {
    let says = match lots.below(8) {
        0 => Says::Fails,
        1 | 2 => Says::Nothing,
        3 => Says::NoSuchName,
        _ => Says::Addresses((0..lots.below(4)).map(|_| (address(kind, lots), ttl(lots))).collect()),
    };
    Reply { says, after: delay(lots) }
}

fn address(kind: RecordType, lots: &mut Lots) -> IpAddr {
    let last = 1 + lots.below(5);
    let text = if kind == RecordType::A { format!("10.0.0.{last}") } else { format!("fd00::{last}") };
    text.parse().unwrap()
}

fn ttl(lots: &mut Lots) -> u32 {
    lots.of(&[0, 1, 2, 5, 30, 60, 600, u32::MAX])
}

fn delay(lots: &mut Lots) -> Duration {
    match lots.below(8) {
        0 => lots.millis(3_000),
        1 if lots.one_in(3) => 2 * LOOKUP_TIMEOUT,
        _ => Duration::ZERO,
    }
}
