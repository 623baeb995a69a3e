//! The endpoints of a route and what is known about each, as sessions see them.
//!
//! The control plane replaces a cluster's [`Members`] as a whole; a session loads them without a lock and waits on
//! [`Cluster::changed`] when none of them answers. An endpoint that stays keeps its counters, since it stays the same
//! value; one that leaves is told so, and its sessions with it.

pub mod hold;
pub mod timings;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::balancer;
use crate::ending::Ending;
use crate::relay::Direction;
use crate::route::{OnRemove, Options};
use timings::Timings;

/// What a source says about one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointSpec {
    pub key: EndpointKey,
    /// Its share of new sessions, relative to the others of its tier. Zero takes none.
    pub weight: u32,
    /// Tried only when no endpoint of a lower tier answers. Those of `backup` start at [`BACKUP_TIER`].
    pub tier: u32,
}

/// Tiers of a route's own targets are below it: SRV priorities have 16 bits (RFC 2782).
pub const BACKUP_TIER: u32 = 1 << 16;

/// What makes an endpoint this one and no other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    pub addr: EndpointAddr,
    pub identity: Identity,
}

/// Where to connect to. The port is the one of the route's first listener port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointAddr {
    Inet(SocketAddr),
    Unix(PathBuf),
}

/// Who an endpoint is, beside its address: two containers that have the same address one after the other are two
/// endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// Written out in a route.
    Literal,
    /// A DNS name's address.
    Name(String),
    /// A container: its full ID, and its name for people.
    Container { id: String, name: String },
    /// What a registry calls it: an etcd key, a Consul service ID.
    Key(String),
}

/// One endpoint of one cluster, for as long as it is in it.
#[derive(Debug)]
pub struct Endpoint {
    pub key: EndpointKey,
    sessions: AtomicUsize,
    /// Cancelled when the endpoint leaves the cluster.
    removed: CancellationToken,
    /// Cancelled when its sessions must end.
    cut: CancellationToken,
}

/// The endpoints and the policy of a cluster at one moment.
#[derive(Debug)]
pub struct Members {
    pub options: Options,
    /// None is empty. The first is tried before the second.
    pub tiers: Vec<Tier>,
}

/// Endpoints that are equally good.
#[derive(Debug)]
pub struct Tier {
    /// As in [`EndpointSpec::tier`].
    pub number: u32,
    pub members: Vec<Member>,
}

#[derive(Clone, Debug)]
pub struct Member {
    pub endpoint: Arc<Endpoint>,
    /// As in [`EndpointSpec::weight`].
    pub weight: u32,
}

/// A named group of endpoints with one policy, and what its sessions have done.
#[derive(Debug)]
pub struct Cluster {
    members: ArcSwap<Members>,
    /// Notified at each change of members, and when an endpoint answers after one did not.
    changed: Notify,
    /// Where the next round of the balancer starts.
    turn: AtomicUsize,
    /// An operator wants new sessions held.
    paused: AtomicBool,
    /// The process's own last word; the parent of every endpoint's `cut`.
    force: CancellationToken,
    pub counters: Counters,
}

/// Totals since the route was opened.
#[derive(Debug, Default)]
pub struct Counters {
    pub active: AtomicUsize,
    pub held: AtomicUsize,
    pub bytes_up: AtomicU64,
    pub bytes_down: AtomicU64,
    pub timings: Timings,
    endings: [AtomicU64; Ending::ALL.len()],
}

impl Cluster {
    pub fn new(options: Options, force: CancellationToken) -> Cluster {
        let members = Members { options, tiers: Vec::new() };
        Cluster {
            members: ArcSwap::from_pointee(members),
            changed: Notify::new(),
            turn: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            force,
            counters: Counters::default(),
        }
    }

    pub fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// The members for a glance: cheaper than [`Cluster::members`], not to be kept across an `await`.
    pub fn glance(&self) -> Guard<Arc<Members>> {
        self.members.load()
    }

    /// Replaces policy and endpoints; endpoints in both stay what they are. Returns who joined and who left.
    pub fn update(&self, options: &Options, specs: &[EndpointSpec]) -> Change {
        let old = self.members();
        let specs: BTreeSet<&EndpointSpec> = specs.iter().collect();
        if old.options == *options && old.specs().iter().eq(specs.iter().copied()) {
            return Change::default();
        }
        let new = Arc::new(Members { options: options.clone(), tiers: self.tiers(&old, specs) });
        let (before, after) = (old.by_key(), new.by_key());
        let only = |these: &ByKey<'_>, those: &ByKey<'_>| -> Vec<EndpointKey> {
            these.keys().filter(|key| !those.contains_key(*key)).map(|key| (*key).clone()).collect()
        };
        let change = Change { joined: only(&after, &before), left: only(&before, &after) };
        self.members.store(new.clone());
        for endpoint in change.left.iter().filter_map(|key| before.get(key)) {
            endpoint.remove(options.on_remove);
        }
        self.changed.notify_waiters();
        change
    }

    /// `specs` are sorted, but not by tier.
    fn tiers(&self, old: &Members, specs: BTreeSet<&EndpointSpec>) -> Vec<Tier> {
        let known = old.by_key();
        let mut tiers: BTreeMap<u32, Vec<Member>> = BTreeMap::new();
        for EndpointSpec { key, weight, tier } in specs {
            let endpoint = match known.get(key) {
                Some(endpoint) => (*endpoint).clone(),
                None => Arc::new(Endpoint::new(key.clone(), &self.force)),
            };
            tiers.entry(*tier).or_default().push(Member { endpoint, weight: *weight });
        }
        tiers.into_iter().map(|(number, members)| Tier { number, members }).collect()
    }

    /// Ends what the cluster's endpoints still serve, as their removal would: for a route that is closed.
    pub fn close(&self) {
        let members = self.members();
        self.update(&members.options, &[]);
    }

    /// Holds new sessions, or lets them go on.
    pub fn pause(&self, paused: bool) {
        if self.paused.swap(paused, Relaxed) != paused {
            self.changed.notify_waiters();
        }
    }

    pub fn is_paused(&self) -> bool {
        self.paused.load(Relaxed)
    }

    /// Endpoints in the order to try them, each once: tier after tier.
    pub fn choices<'m>(&self, members: &'m Members) -> impl Iterator<Item = &'m Arc<Endpoint>> + use<'m> {
        let turn = self.turn.fetch_add(1, Relaxed);
        let balance = members.options.balance;
        members.tiers.iter().flat_map(move |Tier { members, .. }| {
            let load = move |n: usize| members.get(n).map_or(0, |member| member.endpoint.sessions());
            let order = balancer::choices(balance, turn, members.len(), load);
            let chosen = order.filter_map(move |n| members.get(n));
            chosen.filter(|member| member.weight > 0).map(|member| &member.endpoint)
        })
    }

    pub fn moved(&self, direction: Direction, bytes: usize) {
        let counter = match direction {
            Direction::Up => &self.counters.bytes_up,
            Direction::Down => &self.counters.bytes_down,
        };
        counter.fetch_add(bytes as u64, Relaxed);
    }
}

type ByKey<'m> = BTreeMap<&'m EndpointKey, &'m Arc<Endpoint>>;

/// Who joined and who left a cluster in one update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub joined: Vec<EndpointKey>,
    pub left: Vec<EndpointKey>,
}

impl Members {
    /// Tier by tier.
    pub fn all(&self) -> impl Iterator<Item = (&Tier, &Member)> {
        self.tiers.iter().flat_map(|tier| tier.members.iter().map(move |member| (tier, member)))
    }

    pub fn is_empty(&self) -> bool {
        self.tiers.is_empty()
    }

    fn by_key(&self) -> ByKey<'_> {
        self.all().map(|(_, member)| (&member.endpoint.key, &member.endpoint)).collect()
    }

    fn specs(&self) -> BTreeSet<EndpointSpec> {
        let spec = |(tier, member): (&Tier, &Member)| EndpointSpec {
            key: member.endpoint.key.clone(),
            weight: member.weight,
            tier: tier.number,
        };
        self.all().map(spec).collect()
    }
}

impl EndpointSpec {
    /// Of weight 1, in the first tier.
    pub fn new(addr: EndpointAddr, identity: Identity) -> EndpointSpec {
        EndpointSpec { key: EndpointKey { addr, identity }, weight: 1, tier: 0 }
    }
}

impl Endpoint {
    fn new(key: EndpointKey, force: &CancellationToken) -> Endpoint {
        Endpoint {
            key,
            sessions: AtomicUsize::new(0),
            removed: CancellationToken::new(),
            cut: force.child_token(),
        }
    }

    fn remove(&self, policy: OnRemove) {
        self.removed.cancel();
        if policy == OnRemove::Cut {
            self.cut.cancel();
        }
    }

    /// Sessions on this endpoint now.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Relaxed)
    }

    /// No longer in its cluster. A dial that was under way then must not become a session: the address may be
    /// somebody else's by now.
    pub fn is_removed(&self) -> bool {
        self.removed.is_cancelled()
    }

    pub async fn removed(&self) {
        self.removed.cancelled().await;
    }

    /// Resolves when the sessions of this endpoint must end.
    pub async fn cut(&self) {
        self.cut.cancelled().await;
    }
}

/// A session's place on an endpoint: counted from the first attempt to connect until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
}

impl InFlight {
    pub fn on(endpoint: Arc<Endpoint>) -> InFlight {
        endpoint.sessions.fetch_add(1, Relaxed);
        InFlight { endpoint }
    }

    pub fn endpoint(&self) -> Arc<Endpoint> {
        self.endpoint.clone()
    }
}

impl std::ops::Deref for InFlight {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.sessions.fetch_sub(1, Relaxed);
    }
}

impl Counters {
    pub fn ended(&self, ending: Ending) {
        if let Some(counter) = self.endings.get(ending as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Every ending with its count, zeros included.
    pub fn endings(&self) -> impl Iterator<Item = (Ending, u64)> {
        Ending::ALL.into_iter().zip(&self.endings).map(|(ending, count)| (ending, count.load(Relaxed)))
    }
}

impl EndpointAddr {
    /// The address for the n-th port of a range.
    pub fn shifted(&self, offset: u16) -> EndpointAddr {
        match self {
            EndpointAddr::Inet(addr) => {
                EndpointAddr::Inet(SocketAddr::new(addr.ip(), addr.port().wrapping_add(offset)))
            }
            EndpointAddr::Unix(path) => EndpointAddr::Unix(path.clone()),
        }
    }
}

impl fmt::Display for EndpointAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndpointAddr::Inet(addr) => write!(f, "{addr}"),
            EndpointAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.identity {
            Identity::Literal => write!(f, "{}", self.addr),
            Identity::Name(name) | Identity::Key(name) => write!(f, "{} ({name})", self.addr),
            Identity::Container { id, name } => {
                write!(f, "{} (container {name} {})", self.addr, id.get(..12).unwrap_or(id))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(port: u16, id: &str) -> EndpointSpec {
        let addr = EndpointAddr::Inet(SocketAddr::from(([10, 0, 0, 1], port)));
        EndpointSpec::new(addr, Identity::Container { id: id.to_owned(), name: "redis".to_owned() })
    }

    fn endpoint(members: &Members, n: usize) -> Arc<Endpoint> {
        members.all().nth(n).expect("so many").1.endpoint.clone()
    }

    #[test]
    fn another_weight_is_no_other_endpoint() {
        let cluster = cluster();
        cluster.update(&Options::named("test"), &[spec(1, "a")]);
        let before = endpoint(&cluster.members(), 0);
        let change =
            cluster.update(&Options::named("test"), &[EndpointSpec { weight: 5, tier: 7, ..spec(1, "a") }]);
        assert_eq!(change, Change::default());
        let members = cluster.members();
        assert!(Arc::ptr_eq(&before, &endpoint(&members, 0)) && !before.is_removed());
        assert_eq!((members.tiers[0].number, members.tiers[0].members[0].weight), (7, 5));
    }

    fn cluster() -> Cluster {
        Cluster::new(Options::named("test"), CancellationToken::new())
    }

    #[test]
    fn an_endpoint_that_stays_keeps_its_sessions_and_one_that_leaves_is_told() {
        let cluster = cluster();
        let options = Options::named("test");
        cluster.update(&options, &[spec(1, "a"), spec(2, "b")]);
        let members = cluster.members();
        let (stays, leaves) = (endpoint(&members, 0), endpoint(&members, 1));
        let _session = InFlight::on(stays.clone());

        let change = cluster.update(&options, &[spec(1, "a"), spec(3, "c")]);

        assert_eq!(change, Change { joined: vec![spec(3, "c").key], left: vec![spec(2, "b").key] });
        assert_eq!(endpoint(&cluster.members(), 0).sessions(), 1);
        assert!(leaves.is_removed() && !stays.is_removed());
        assert!(!leaves.cut.is_cancelled(), "drain is the default");
    }

    #[test]
    fn the_same_address_with_another_identity_is_another_endpoint() {
        let cluster = cluster();
        let options = Options { on_remove: OnRemove::Cut, ..Options::named("test") };
        cluster.update(&options, &[spec(1, "dead")]);
        let dead = endpoint(&cluster.members(), 0);

        cluster.update(&options, &[spec(1, "stranger")]);

        assert!(dead.is_removed() && dead.cut.is_cancelled());
        assert!(!endpoint(&cluster.members(), 0).is_removed());
    }

    #[test]
    fn the_backup_tier_comes_after_every_primary_endpoint() {
        let cluster = cluster();
        cluster.update(
            &Options::named("test"),
            &[EndpointSpec { tier: BACKUP_TIER, ..spec(3, "c") }, spec(1, "a"), spec(2, "b")],
        );
        let members = cluster.members();
        for _ in 0..4 {
            let order: Vec<_> = cluster.choices(&members).map(|e| e.key.clone()).collect();
            assert_eq!(order.len(), 3);
            assert_eq!(order[2], spec(3, "c").key);
        }
    }

    #[test]
    fn forcing_the_process_cuts_also_the_sessions_of_endpoints_that_left_long_ago() {
        let force = CancellationToken::new();
        let cluster = Cluster::new(Options::named("test"), force.clone());
        cluster.update(&Options::named("test"), &[spec(1, "a")]);
        let endpoint = endpoint(&cluster.members(), 0);
        cluster.close();
        assert!(!endpoint.cut.is_cancelled());
        force.cancel();
        assert!(endpoint.cut.is_cancelled());
    }
}
