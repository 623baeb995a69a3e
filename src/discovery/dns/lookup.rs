//! Looks up one name: in the hosts file, then with the servers, IPv4 and IPv6 separately.

use std::collections::BTreeSet;
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
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::time::{Instant, timeout, timeout_at};

use super::Outcome;
use super::cache::{CachedAddresses, Families};
use super::records::{Found, SrvAnswer, address, min_ttl, srv_answer};
use super::system::{Origin, Settings};
use crate::cluster::ConnectError;
use crate::config::dns::Limits;
use crate::ordered::CollectOrdered;
use crate::regular;

/// The time limit for one name with all search domains and servers.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);

/// The TTL of a name in the hosts file; reading it takes microseconds.
const HOSTS_TTL: Duration = Duration::from_secs(1);

/// No form of the name exists (NXDOMAIN). If one does, the reason is the missing record.
const NO_NAME: &str = "no such name";
const NO_SRV: &str = "no SRV record";

/// The size limit of `resolv.conf` and of the hosts file; both are read at each lookup.
const FILE_MAX: usize = 1 << 20;

/// Queries the records of one type: with a resolver of hickory, or in a simulation.
pub type QueryFn =
    Arc<dyn Fn(Name, RecordType) -> BoxFuture<'static, Result<Lookup, NetError>> + Send + Sync>;

/// The system's servers, search domains and hosts file, shared by all names.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
    pub(super) limits: Limits,
}

struct Shared {
    origin: Origin,
    hosts: PathBuf,
    /// Locked only to copy it in or out.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With the text of resolv.conf they are made from; empty for fixed settings.
    servers: Option<(String, Servers)>,
}

#[derive(Clone)]
struct Servers {
    settings: Settings,
    query: QueryFn,
}

/// The addresses of one record type. An empty list is an answer too.
struct Records {
    addresses: BTreeSet<IpAddr>,
    ttl: Duration,
    /// Whether the name has records of any type.
    name_exists: bool,
}

impl Resolver {
    pub(super) fn new(origin: Origin, hosts: PathBuf) -> Resolver {
        let shared = Arc::new(Shared { origin, hosts, state: Mutex::default() });
        Resolver { shared, limits: Limits::default() }
    }

    /// Uses this function instead of servers, and reads no file.
    pub fn with_query(query: QueryFn) -> Resolver {
        let settings = Settings::default();
        let servers = Servers { settings: settings.clone(), query };
        let state = Mutex::new(State { servers: Some((String::new(), servers)) });
        let shared = Shared { origin: Origin::Fixed(settings), hosts: PathBuf::new(), state };
        Resolver { shared: Arc::new(shared), limits: Limits::default() }
    }

    /// Returns a resolver with these limits.
    #[must_use]
    pub fn within(self, limits: Limits) -> Resolver {
        Resolver { limits, ..self }
    }

    /// Returns the addresses of a name.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        match self.lookup(host, &Families::default()).await? {
            Outcome::Found(found) => Ok(found.families.addresses()),
            Outcome::Denied(why) => Err(format!("{host}: {why}")),
        }
    }

    /// Looks up the addresses of a name. Fails if no server answers. If only one record type is answered, `last` has the
    /// addresses of the other.
    pub(super) async fn lookup(&self, host: &str, last: &Families) -> Result<Outcome<Found>, String> {
        if let Some(found) = self.pinned(host)? {
            return Ok(Outcome::Found(found));
        }
        let servers = self.servers()?;
        servers.addresses(host, last).await
    }

    /// Returns the addresses in the hosts file, which precedes the servers.
    pub(super) fn pinned(&self, host: &str) -> Result<Option<Found>, String> {
        let addresses = super::hosts::addresses(&read(&self.shared.hosts)?, host);
        if addresses.is_empty() {
            return Ok(None);
        }
        let families = Families::new(addresses, Instant::now());
        Ok(Some(Found { families, ttl: HOSTS_TTL }))
    }

    /// Looks up the SRV records of a name.
    pub(super) async fn srv(&self, name: &str) -> Result<Outcome<SrvAnswer>, String> {
        let servers = self.servers()?;
        let answer = timeout(LOOKUP_TIMEOUT, servers.srv(name)).await;
        answer.map_err(|_| format!("{name}: no answer from {}", servers.shown()))?
    }

    /// Returns the servers, for messages.
    pub(super) fn shown(&self) -> String {
        self.servers().map_or_else(|why| why, |servers| servers.shown())
    }

    #[cfg(test)]
    pub(super) fn names(&self, host: &str) -> Vec<String> {
        self.servers().unwrap().settings.names(host)
    }

    /// Returns the servers, updated if resolv.conf has changed.
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
        let query: QueryFn = Arc::new(move |name, kind| {
            let resolvers = Arc::clone(&resolvers);
            async move { in_turn(&resolvers, attempts, &name, kind).await }.boxed()
        });
        Ok(Servers { settings, query })
    }

    /// Returns the addresses of the first form of the name that has one. If one record type fails, its last addresses are kept.
    ///
    /// Only a denial leads to the next form: if the servers fail for `db.corp.example.`, `db.` is another host.
    async fn addresses(&self, host: &str, last: &Families) -> Result<Outcome<Found>, String> {
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
                let v4 = v4
                    .map_or_else(|_| last.v4.clone(), |records| CachedAddresses::new(now, records.addresses));
                let v6 = v6
                    .map_or_else(|_| last.v6.clone(), |records| CachedAddresses::new(now, records.addresses));
                return Ok(Outcome::Found(Found {
                    families: Families { v4, v6, ..Families::default() },
                    ttl,
                }));
            }
            // RFC 8020: then it has no AAAA record either, even if that query is not answered. The reverse does not hold: some
            // servers deny the name in response to an AAAA query (RFC 4074, 4.2).
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

    /// Returns the SRV records of the first form of the name that has any. As with addresses, only a denial leads to the next.
    async fn srv(&self, host: &str) -> Result<Outcome<SrvAnswer>, String> {
        let mut denial = NO_NAME;
        for name in self.names(host)? {
            match (self.query)(name.clone(), RecordType::SRV).await {
                Ok(found) => {
                    let answer = srv_answer(&found, Instant::now());
                    if !answer.records.is_empty() {
                        return Ok(Outcome::Found(answer));
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

    fn denial<T>(&self, what: &str) -> Outcome<T> {
        Outcome::Denied(format!("{what} (asked {})", self.shown()))
    }

    fn names(&self, host: &str) -> Result<Vec<Name>, String> {
        let name = |name: &String| Name::from_ascii(name);
        let names: Result<Vec<Name>, _> = self.settings.names(host).iter().map(name).collect();
        names.map_err(|error| format!("invalid name {host}: {error}"))
    }

    /// Each record type has its own time limit: some servers do not answer AAAA queries.
    async fn records(&self, name: &Name, kind: RecordType, until: Instant) -> Result<Records, NetError> {
        let found = timeout_at(until, (self.query)(name.clone(), kind)).await;
        let found = match found.unwrap_or(Err(NetError::Timeout)) {
            Ok(found) => found,
            Err(error) => {
                let name_exists = denied(&error).ok_or(error)? == ResponseCode::NoError;
                return Ok(Records { addresses: BTreeSet::new(), ttl: Duration::ZERO, name_exists });
            }
        };
        let addresses = found.answers().iter().filter_map(address).collect_ordered();
        Ok(Records { addresses, ttl: min_ttl(found.answers()), name_exists: true })
    }

    fn unanswered(&self, name: &Name, error: &NetError) -> String {
        // The resolver does not report why it could not connect.
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

/// Returns why this server is not reachable. Sends no packet.
fn connect_error(server: SocketAddr) -> Option<ConnectError> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let connected = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(server));
    connected.err().map(|error| ConnectError::of(&error))
}

/// Returns the code of an answer that denies the records (RFC 2308, 2). A referral, which has name servers and no SOA, does not,
/// and neither does an answer with an unknown code.
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

/// Queries the servers in order, as resolv.conf(5) describes: the next one only if the first does not answer. In parallel, a
/// public server would deny names that only the first one serves. A single resolver with all servers would use its whole time
/// limit for the first one.
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
            answer => return answer,
        }
    }
    Err(failure)
}

/// Returns a resolver for one server.
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
    // Retries are made above.
    options.attempts = 0;
    // The caller respects the TTL.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options
}

/// Reads a file; one that does not exist is empty. One that cannot be read, for example without free descriptors, fails the
/// lookup, which could find another host without it.
fn read(path: &Path) -> Result<String, String> {
    match regular::read_start(path, FILE_MAX) {
        Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(String::new())
        }
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Fuzz target: reads a server's answer.
pub(super) fn read_any(bytes: &[u8]) {
    let Ok(message) = Message::from_vec(bytes) else { return };
    let query = message.queries.first().cloned().unwrap_or_default();
    let mut found = Lookup::new_with_max_ttl(query, message.answers);
    found.extend_additionals(message.additionals);
    let _ = srv_answer(&found, Instant::now());
    let _ = found.answers().iter().filter_map(address).count();
    let _ = min_ttl(found.answers());
}
