//! Asks for one name: the hosts file first, then the servers, IPv4 and IPv6 each for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::time::{Instant, timeout, timeout_at};

use super::memory::{Families, Limits, Told};
use super::srv::{Offer, Services};
use super::system::{Origin, Settings};

/// For one name in all its forms, whatever the number of servers and search domains.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);

/// The hosts file is looked at this often for a name that is in it; reading it costs microseconds.
const HOSTS_TTL: Duration = Duration::from_secs(1);

/// Neither file has any business being longer.
const FILE_MAX: u64 = 1 << 20;

/// Who is asked for the records of one kind: a resolver of hickory's, or whom a simulation makes up.
pub type Asking = Arc<dyn Fn(Name, RecordType) -> BoxFuture<'static, Result<Lookup, NetError>> + Send + Sync>;

/// Shared by all names: the system's servers, search domains and hosts file.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
    pub(super) limits: Limits,
}

struct Shared {
    origin: Origin,
    hosts: PathBuf,
    /// Held only to copy out or in, never while a server is asked.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Made from this text of resolv.conf, or from fixed settings.
    servers: Option<(String, Servers)>,
}

#[derive(Clone)]
struct Servers {
    settings: Settings,
    asking: Asking,
}

/// What a name has now: at least one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) families: Families,
    pub(super) ttl: Duration,
}

/// What one kind of record says. An empty list is an answer too.
struct Records {
    addresses: BTreeSet<IpAddr>,
    ttl: Duration,
}

impl Resolver {
    pub(super) fn new(origin: Origin, hosts: PathBuf) -> Resolver {
        let shared = Arc::new(Shared { origin, hosts, state: Mutex::default() });
        Resolver { shared, limits: Limits::default() }
    }

    /// Asks nobody else, and reads no file.
    pub fn asking(asking: Asking) -> Resolver {
        let settings = Settings::default();
        let servers = Servers { settings: settings.clone(), asking };
        let state = Mutex::new(State { servers: Some((String::new(), servers)) });
        let shared = Shared { origin: Origin::Fixed(settings), hosts: PathBuf::new(), state };
        Resolver { shared: Arc::new(shared), limits: Limits::default() }
    }

    /// The same, for those who ask and believe within these limits.
    #[must_use]
    pub fn within(self, limits: Limits) -> Resolver {
        Resolver { limits, ..self }
    }

    /// The addresses of a name, once. For those who need no more than that.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        match self.lookup(host, &Families::default()).await? {
            Some(found) => Ok(found.families.addresses()),
            None => Err(format!("{host} has no address")),
        }
    }

    /// `None`: it has no address. An error is that nobody could say. `last` stands in for the one kind of record that
    /// cannot be had while the other can.
    pub(super) async fn lookup(&self, host: &str, last: &Families) -> Result<Option<Found>, String> {
        let addresses = super::hosts::addresses(&read(&self.shared.hosts), host);
        if !addresses.is_empty() {
            let families = Families::told(addresses, Instant::now());
            return Ok(Some(Found { families, ttl: HOSTS_TTL }));
        }
        let servers = self.servers()?;
        servers.ask(host, last).await
    }

    /// The SRV records of a name. `None`: it has none.
    pub(super) async fn services(&self, name: &str) -> Result<Option<Services>, String> {
        let servers = self.servers()?;
        let asking = timeout(LOOKUP_TIMEOUT, servers.ask_services(name)).await;
        asking.map_err(|_| format!("{name}: no answer from {}", servers.shown()))?
    }

    #[cfg(test)]
    pub(super) fn names(&self, host: &str) -> Vec<String> {
        self.servers().unwrap().settings.names(host)
    }

    /// The servers to ask, made anew where resolv.conf has changed.
    fn servers(&self) -> Result<Servers, String> {
        let text = match &self.shared.origin {
            Origin::File(path) => read(path),
            Origin::Fixed(_) => String::new(),
        };
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_from, servers)) = &state.servers
            && *made_from == text
        {
            return Ok(servers.clone());
        }
        let settings = match &self.shared.origin {
            Origin::File(_) => Settings::parse(&text),
            Origin::Fixed(settings) => settings.clone(),
        };
        let servers = Servers::new(settings)?;
        state.servers = Some((text, servers.clone()));
        Ok(servers)
    }
}

impl Servers {
    fn new(settings: Settings) -> Result<Servers, String> {
        let servers = settings.servers.iter().map(|server| {
            let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            for connection in &mut connections {
                connection.port = server.port();
            }
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options(&settings);
        let resolver = builder.build().map_err(|error| error.to_string())?;
        let asking: Asking = Arc::new(move |name, kind| {
            let resolver = resolver.clone();
            async move { resolver.lookup(name, kind).await }.boxed()
        });
        Ok(Servers { settings, asking })
    }

    /// The first form of the name that has an address. One kind of record that cannot be had does not lose the other:
    /// what was known of it stands.
    async fn ask(&self, host: &str, last: &Families) -> Result<Option<Found>, String> {
        let mut failure = None;
        let until = Instant::now() + LOOKUP_TIMEOUT;
        for name in self.names(host)? {
            let (v4, v6) = futures_util::join!(
                self.records(&name, RecordType::A, until),
                self.records(&name, RecordType::AAAA, until)
            );
            let ttl = [&v4, &v6].into_iter().flatten().filter(|records| !records.addresses.is_empty());
            if let Some(ttl) = ttl.map(|records| records.ttl).min() {
                let now = Instant::now();
                let v4 = v4.map_or_else(|_| last.v4.clone(), |records| Told::at(now, records.addresses));
                let v6 = v6.map_or_else(|_| last.v6.clone(), |records| Told::at(now, records.addresses));
                return Ok(Some(Found { families: Families { v4, v6 }, ttl }));
            }
            failure = failure.or(v4.err()).or(v6.err());
        }
        failure.map_or(Ok(None), |error| Err(self.unanswered(host, &error)))
    }

    /// The first form of the name that has SRV records.
    async fn ask_services(&self, host: &str) -> Result<Option<Services>, String> {
        let mut failure = None;
        for name in self.names(host)? {
            match (self.asking)(name, RecordType::SRV).await {
                Ok(found) => {
                    let services = services(&found);
                    if !services.offers.is_empty() {
                        return Ok(Some(services));
                    }
                }
                Err(error) if error.is_no_records_found() => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(None), |error| Err(self.unanswered(host, &error)))
    }

    fn names(&self, host: &str) -> Result<Vec<Name>, String> {
        let name = |name: &String| Name::from_ascii(name);
        let names: Result<Vec<Name>, _> = self.settings.names(host).iter().map(name).collect();
        names.map_err(|error| format!("{host} is not a name: {error}"))
    }

    /// Each kind has a time of its own: there are servers that leave questions for AAAA unanswered.
    async fn records(&self, name: &Name, kind: RecordType, until: Instant) -> Result<Records, NetError> {
        let found = timeout_at(until, (self.asking)(name.clone(), kind)).await;
        let found = match found.unwrap_or(Err(NetError::Timeout)) {
            Ok(found) => found,
            Err(error) if error.is_no_records_found() => {
                return Ok(Records { addresses: BTreeSet::new(), ttl: Duration::ZERO });
            }
            Err(error) => return Err(error),
        };
        let addresses = found.answers().iter().filter_map(address).collect();
        Ok(Records { addresses, ttl: least_ttl(found.answers()) })
    }

    fn unanswered(&self, host: &str, error: &NetError) -> String {
        format!("{host}: {error} (asked {})", self.shown())
    }

    fn shown(&self) -> String {
        self.settings.servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// The aliases on the way have a TTL too.
fn least_ttl<'r>(records: impl IntoIterator<Item = &'r Record>) -> Duration {
    let least = records.into_iter().map(|record| record.ttl).min();
    Duration::from_secs(u64::from(least.unwrap_or_default()))
}

fn address(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(ip) => Some(IpAddr::V4(ip.0)),
        RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
        _ => None,
    }
}

/// The SRV records of an answer, and the addresses that came with them.
fn services(found: &Lookup) -> Services {
    let offers = found.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => Some(Offer {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            host: srv.target.to_ascii().to_ascii_lowercase(),
        }),
        _ => None,
    });
    let mut additional: BTreeMap<String, Found> = BTreeMap::new();
    let mut came: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    for record in found.additionals().iter().filter(|record| address(record).is_some()) {
        came.entry(record.name.to_ascii().to_ascii_lowercase()).or_default().push(record);
    }
    for (host, records) in came {
        let addresses = records.iter().copied().filter_map(address);
        let families = Families::told(addresses, Instant::now());
        additional.insert(host, Found { families, ttl: least_ttl(records) });
    }
    Services { offers: offers.collect(), additional, ttl: least_ttl(found.answers()) }
}

fn options(settings: &Settings) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = settings.timeout;
    options.attempts = settings.attempts;
    // When to ask again is decided here, by TTL.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    // As resolv.conf(5): the second server is for when the first does not answer. Asked at once, a public one would deny
    // the names that only the first knows.
    options.num_concurrent_reqs = 1;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options
}

/// A file that cannot be read says nothing.
fn read(path: &Path) -> String {
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut text));
    if read.is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// What the fuzz targets feed: a server's answer.
pub(super) fn read_any(bytes: &[u8]) {
    let Ok(message) = Message::from_vec(bytes) else { return };
    let query = message.queries.first().cloned().unwrap_or_default();
    let mut found = Lookup::new_with_max_ttl(query, message.answers);
    found.extend_additionals(message.additionals);
    let _ = services(&found);
    let _ = found.answers().iter().filter_map(address).count();
    let _ = least_ttl(found.answers());
}
