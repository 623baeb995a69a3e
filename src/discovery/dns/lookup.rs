//! Asks for one name: the hosts file first, then the servers, IPv4 and IPv6 each for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::time::{Instant, timeout, timeout_at};

use super::Answer;
use super::memory::{Families, Told};
use super::srv::{Offer, Services};
use super::system::{Origin, Settings};
use crate::cluster::ConnectError;
use crate::config::dns::Limits;
use crate::regular;

/// For one name in all its forms, whatever the number of servers and search domains.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);

/// The hosts file is looked at this often for a name that is in it; reading it costs microseconds.
const HOSTS_TTL: Duration = Duration::from_secs(1);

/// No form of the name exists (NXDOMAIN). Where one does, it is a record that is missing.
const NO_NAME: &str = "no such name";
const NO_SRV: &str = "no SRV record";

/// Of `resolv.conf` and of the hosts file; both are read at each lookup.
const FILE_MAX: usize = 1 << 20;

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
    /// `false`: the name has no records of any kind.
    name_exists: bool,
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
            Answer::Has(found) => Ok(found.families.addresses()),
            Answer::Denied(why) => Err(format!("{host}: {why}")),
        }
    }

    /// An error is that no server could answer. `last` stands in for the one kind of record that cannot be had while the
    /// other can.
    pub(super) async fn lookup(&self, host: &str, last: &Families) -> Result<Answer<Found>, String> {
        if let Some(found) = self.pinned(host)? {
            return Ok(Answer::Has(found));
        }
        let servers = self.servers()?;
        servers.ask(host, last).await
    }

    /// By the hosts file, which has precedence over any server.
    pub(super) fn pinned(&self, host: &str) -> Result<Option<Found>, String> {
        let addresses = super::hosts::addresses(&read(&self.shared.hosts)?, host);
        if addresses.is_empty() {
            return Ok(None);
        }
        let families = Families::told(addresses, Instant::now());
        Ok(Some(Found { families, ttl: HOSTS_TTL }))
    }

    /// The SRV records of a name.
    pub(super) async fn services(&self, name: &str) -> Result<Answer<Services>, String> {
        let servers = self.servers()?;
        let asking = timeout(LOOKUP_TIMEOUT, servers.ask_services(name)).await;
        asking.map_err(|_| format!("{name}: no answer from {}", servers.shown()))?
    }

    /// The servers, for people.
    pub(super) fn shown(&self) -> String {
        self.servers().map_or_else(|why| why, |servers| servers.shown())
    }

    #[cfg(test)]
    pub(super) fn names(&self, host: &str) -> Vec<String> {
        self.servers().unwrap().settings.names(host)
    }

    /// The servers to ask, made anew where resolv.conf has changed.
    fn servers(&self) -> Result<Servers, String> {
        let text = match &self.shared.origin {
            Origin::File(path) => read(path)?,
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
        let resolvers = settings.servers.iter().map(|server| resolver(*server, &settings));
        let resolvers: Arc<[TokioResolver]> = resolvers.collect::<Result<_, _>>()?;
        let attempts = settings.attempts;
        let asking: Asking = Arc::new(move |name, kind| {
            let resolvers = Arc::clone(&resolvers);
            async move { in_turn(&resolvers, attempts, &name, kind).await }.boxed()
        });
        Ok(Servers { settings, asking })
    }

    /// The first form of the name that has an address. One kind of record that cannot be had does not lose the other:
    /// what was known of it stands.
    ///
    /// Only a denial leads to the next form. If the servers fail for `db.corp.example.`, then `db.` is another host.
    async fn ask(&self, host: &str, last: &Families) -> Result<Answer<Found>, String> {
        let until = Instant::now() + LOOKUP_TIMEOUT;
        let mut denial = NO_NAME;
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
                return Ok(Answer::Has(Found { families: Families { v4, v6, ..Families::default() }, ttl }));
            }
            // RFC 8020: then it has no AAAA record either, even if the server leaves that question unanswered. The reverse
            // is not certain: some servers deny the name when asked for AAAA (RFC 4074, 4.2).
            let is_denied = v4.as_ref().is_ok_and(|records| !records.name_exists);
            if let Some(error) = v4.err().or(v6.err()).filter(|_| !is_denied) {
                return Err(self.unanswered(&name, &error));
            }
            if !is_denied {
                denial = "no address";
            }
        }
        Ok(self.denial(denial))
    }

    /// The first form of the name that has SRV records. As with addresses, only a denial leads to the next.
    async fn ask_services(&self, host: &str) -> Result<Answer<Services>, String> {
        let mut denial = NO_NAME;
        for name in self.names(host)? {
            match (self.asking)(name.clone(), RecordType::SRV).await {
                Ok(found) => {
                    let services = services(&found);
                    if !services.offers.is_empty() {
                        return Ok(Answer::Has(services));
                    }
                    denial = NO_SRV;
                }
                Err(error) => match denied(&error) {
                    Some(ResponseCode::NoError) => denial = NO_SRV,
                    Some(_) => {}
                    None => return Err(self.unanswered(&name, &error)),
                },
            }
        }
        Ok(self.denial(denial))
    }

    fn denial<T>(&self, what: &str) -> Answer<T> {
        Answer::Denied(format!("{what} (asked {})", self.shown()))
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
            Err(error) => {
                let name_exists = denied(&error).ok_or(error)? == ResponseCode::NoError;
                return Ok(Records { addresses: BTreeSet::new(), ttl: Duration::ZERO, name_exists });
            }
        };
        let addresses = found.answers().iter().filter_map(address).collect();
        Ok(Records { addresses, ttl: least_ttl(found.answers()), name_exists: true })
    }

    fn unanswered(&self, name: &Name, error: &NetError) -> String {
        // The resolver does not say why it could not connect.
        let unreachable = match error {
            NetError::NoConnections => self.settings.servers.iter().find_map(|server| connect_error(*server)),
            _ => None,
        };
        let why = unreachable.map_or_else(|| error.to_string(), |error| error.to_string());
        format!("{name}: {why} (asked {})", self.shown())
    }

    fn shown(&self) -> String {
        self.settings.servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// Why nothing can be sent to this server. Sends nothing.
fn connect_error(server: SocketAddr) -> Option<ConnectError> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let connected = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(server));
    connected.err().map(|error| ConnectError::of(&error))
}

/// The code of an answer that says that there are no such records (RFC 2308, 2). A referral, which has name servers and no
/// SOA, does not say so, and neither does an answer with a code that is unknown.
fn denied(error: &NetError) -> Option<ResponseCode> {
    let NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, soa, ns, .. })) = error else {
        return None;
    };
    match response_code {
        ResponseCode::NXDomain => Some(ResponseCode::NXDomain),
        ResponseCode::NoError if soa.is_some() || ns.is_none() => Some(ResponseCode::NoError),
        _ => None,
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

/// As resolv.conf(5): the second server is for when the first does not answer. Asked at once, a public one would deny the
/// names that only the first knows. Not by one resolver with all servers: its time is over when that of the first is.
async fn in_turn(
    resolvers: &[TokioResolver],
    attempts: usize,
    name: &Name,
    kind: RecordType,
) -> Result<Lookup, NetError> {
    let mut failure = NetError::NoConnections;
    for resolver in std::iter::repeat_n(resolvers, attempts).flatten() {
        match resolver.lookup(name.clone(), kind).await {
            Err(error @ (NetError::Timeout | NetError::Io(_) | NetError::NoConnections | NetError::Busy)) => {
                failure = error;
            }
            answered => return answered,
        }
    }
    Err(failure)
}

/// Asks one server.
fn resolver(server: SocketAddr, settings: &Settings) -> Result<TokioResolver, String> {
    let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = server.port();
    }
    let server = NameServerConfig::new(server.ip(), true, connections.into());
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options(settings);
    builder.build().map_err(|error| error.to_string())
}

fn options(settings: &Settings) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = settings.timeout;
    // When to ask again, and which server, is decided above.
    options.attempts = 0;
    // When to ask again is decided here, by TTL.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options
}

/// A file that does not exist is empty. One that cannot be read, when descriptors are short for example, fails the lookup:
/// without it another host could be found.
fn read(path: &Path) -> Result<String, String> {
    match regular::read_start(path, FILE_MAX) {
        Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(String::new())
        }
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
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
