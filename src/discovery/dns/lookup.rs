//! Asks for one name: the hosts file first, then the servers, IPv4 and IPv6 each for itself.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::time::timeout;

use super::system::{Origin, Settings};

/// For one name in all its forms, whatever the number of servers and search domains.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);

/// The hosts file is looked at this often for a name that is in it; reading it costs microseconds.
const HOSTS_TTL: Duration = Duration::from_secs(1);

/// Neither file has any business being longer.
const FILE_MAX: u64 = 1 << 20;

/// Shared by all names: the system's servers, search domains and hosts file.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
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
    /// What each name had last. Outlives the sources that ask, so that one that begins again knows what it said. As
    /// many as the configuration has names.
    last: HashMap<String, Families>,
}

#[derive(Clone)]
struct Servers {
    settings: Settings,
    resolver: TokioResolver,
}

/// What a name has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Sorted, each once, at least one.
    Addresses { addresses: Vec<IpAddr>, ttl: Duration },
    /// It has no address, and has had none yet.
    Absent,
    /// It has no address, but had.
    Vanished,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Families {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
}

/// What one kind of record says. An empty list is an answer too.
struct Records {
    addresses: Vec<IpAddr>,
    ttl: Duration,
}

impl Resolver {
    pub(super) fn new(origin: Origin, hosts: PathBuf) -> Resolver {
        Resolver { shared: Arc::new(Shared { origin, hosts, state: Mutex::default() }) }
    }

    /// The addresses of a name, once. For those who need no more than that.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        match self.lookup(host).await? {
            Found::Addresses { addresses, .. } => Ok(addresses),
            Found::Absent | Found::Vanished => Err(format!("{host} has no address")),
        }
    }

    /// An error is that nobody could say.
    pub(super) async fn lookup(&self, host: &str) -> Result<Found, String> {
        let addresses = super::hosts::addresses(&read(&self.shared.hosts), host);
        if !addresses.is_empty() {
            return Ok(Found::Addresses { addresses, ttl: HOSTS_TTL });
        }
        let servers = self.servers()?;
        let last = self.last(host);
        let asking = timeout(LOOKUP_TIMEOUT, servers.ask(host, &last));
        let (families, ttl) =
            asking.await.map_err(|_| format!("{host}: no answer from {}", servers.shown()))??;
        let addresses: BTreeSet<IpAddr> = families.v4.iter().chain(&families.v6).copied().collect();
        if addresses.is_empty() {
            return Ok(if last == Families::default() { Found::Absent } else { Found::Vanished });
        }
        self.remember(host, families);
        Ok(Found::Addresses { addresses: addresses.into_iter().collect(), ttl })
    }

    #[cfg(test)]
    pub(super) fn names(&self, host: &str) -> Vec<String> {
        self.servers().unwrap().settings.names(host)
    }

    fn last(&self, host: &str) -> Families {
        let state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last.get(host).cloned().unwrap_or_default()
    }

    fn remember(&self, host: &str, families: Families) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last.insert(host.to_owned(), families);
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
        Ok(Servers { settings, resolver })
    }

    /// The first form of the name that has an address. One kind of record that cannot be had does not lose the other:
    /// what was known of it stands.
    async fn ask(&self, host: &str, last: &Families) -> Result<(Families, Duration), String> {
        let mut failure = None;
        for name in self.settings.names(host) {
            let name = Name::from_ascii(&name).map_err(|error| format!("{host} is not a name: {error}"))?;
            let (v4, v6) = futures_util::join!(
                self.records(&name, RecordType::A),
                self.records(&name, RecordType::AAAA)
            );
            let ttl = [&v4, &v6].into_iter().flatten().filter(|records| !records.addresses.is_empty());
            if let Some(ttl) = ttl.map(|records| records.ttl).min() {
                let v4 = v4.map_or_else(|_| last.v4.clone(), |records| records.addresses);
                let v6 = v6.map_or_else(|_| last.v6.clone(), |records| records.addresses);
                return Ok((Families { v4, v6 }, ttl));
            }
            failure = failure.or(v4.err()).or(v6.err());
        }
        match failure {
            Some(error) => Err(format!("{host}: {error} (asked {})", self.shown())),
            None => Ok((Families::default(), Duration::ZERO)),
        }
    }

    async fn records(&self, name: &Name, kind: RecordType) -> Result<Records, NetError> {
        let found = match self.resolver.lookup(name.clone(), kind).await {
            Ok(found) => found,
            Err(error) if error.is_no_records_found() => {
                return Ok(Records { addresses: Vec::new(), ttl: Duration::ZERO });
            }
            Err(error) => return Err(error),
        };
        // The aliases on the way have a TTL too.
        let ttl = found.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
        let addresses = found.answers().iter().filter_map(|record| match &record.data {
            RData::A(ip) => Some(IpAddr::V4(ip.0)),
            RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
            _ => None,
        });
        Ok(Records { addresses: addresses.collect(), ttl: Duration::from_secs(u64::from(ttl)) })
    }

    fn shown(&self) -> String {
        self.settings.servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
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
