//! The environment of a cluster: the actual state of its endpoints, its sessions, and the invariants.

mod checks;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ambassador::address::{BACKUP_TIER, EndpointAddr, EndpointSpec, Identity};
use ambassador::cluster::acquire::HoldLimit;
use ambassador::cluster::monitor::{self, MonitorContext};
use ambassador::cluster::{Cluster, Endpoint};
use ambassador::ending::Ending;
use ambassador::route::{Balance, Check, Health, OnRemove, OnUnhealthy, Options};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::rng::Rng;
use session::{Dialler, Prober, Session};

const PORTS: u64 = 10;
const HELD_MAX: usize = 25;
const HOLD_MAX: Duration = Duration::from_secs(12);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The reaction of an endpoint to a connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Behaviour {
    #[default]
    Answers,
    Refuses,
    /// Accepts and resets the connection.
    Resets,
    /// Accepts late, or not within the timeout.
    Hangs(Duration),
    /// A peer that accepts, and whose tunnel is lost soon after, or cut because its certificate was revoked.
    Loses(Ending),
    /// A peer that has no such export.
    PeerRefuses,
    /// A peer that is not trusted.
    Untrusted,
}

/// The actual state, independent of the cluster's view.
#[derive(Debug, Default)]
struct ActualState {
    behaviours: BTreeMap<u16, Behaviour>,
    unhealthy: BTreeSet<u16>,
    /// The number of removals of a port's endpoint: both identify an incarnation.
    lives: BTreeMap<u16, u64>,
    /// Pending attempts and open sessions.
    dialling: BTreeMap<Incarnation, usize>,
    open: BTreeMap<Incarnation, usize>,
    /// Sessions that wait for an endpoint.
    pending: usize,
    /// Until then, a round of attempts that began with an earlier state may be pending.
    hanging_until: Option<Instant>,
    /// Violations of invariants that only a session can detect.
    broken: Vec<String>,
}

/// An endpoint between one addition and its removal: port and number.
type Incarnation = (u16, u64);

type Shared = Arc<Mutex<ActualState>>;

impl ActualState {
    fn incarnation(&self, port: u16) -> Incarnation {
        (port, self.lives.get(&port).copied().unwrap_or_default())
    }
}

struct World {
    cluster: Arc<Cluster>,
    actual: Shared,
    options: Options,
    specs: Vec<EndpointSpec>,
    max_ejected: u8,
    hold_limit: Arc<HoldLimit>,
    sessions: JoinSet<()>,
    /// All endpoints so far.
    endpoints: BTreeMap<Incarnation, Arc<Endpoint>>,
    /// Endpoints whose sessions end with their removal.
    cut: BTreeSet<Incarnation>,
    _monitor: AbortOnDropHandle<()>,
}

pub(super) async fn run(mut rng: Rng, steps: usize) {
    let mut world = World::new(&mut rng);
    for _ in 0..steps {
        let before = world.limits();
        let (event, time) = world.random_event(&mut rng);
        world.settle(time).await;
        world.check(&event, &before);
    }
    world.audit(&mut rng);
    world.check_recovery().await;
}

/// Half of the endpoints are static: they may still be dialled after their removal.
fn spec(port: u16) -> EndpointSpec {
    let identity =
        if port.is_multiple_of(2) { Identity::Name("world".to_owned()) } else { Identity::Literal };
    EndpointSpec::new(EndpointAddr::Inet(([10, 0, 0, 1], port).into()), identity)
}

fn port(addr: &EndpointAddr) -> u16 {
    match addr {
        EndpointAddr::Inet(addr) => addr.port(),
        EndpointAddr::Unix(_) | EndpointAddr::Peer(_) | EndpointAddr::Tls(_) => 0,
    }
}

impl World {
    fn new(rng: &mut Rng) -> World {
        let options = Options { connect_timeout: CONNECT_TIMEOUT, ..Options::named("world") };
        let cluster = Arc::new(Cluster::seeded(options.clone(), CancellationToken::new(), rng.bits()));
        let actual = Shared::default();
        let max_ejected = rng.pick(&[0, 30, 50, 50, 100]);
        let context = Arc::new(MonitorContext::new(Prober(actual.clone()), max_ejected, Arc::default()));
        let monitor = monitor::spawn(cluster.clone(), context);
        let hold_limit = Arc::new(HoldLimit::new(HELD_MAX));
        World {
            cluster,
            actual,
            options,
            specs: Vec::new(),
            max_ejected,
            hold_limit,
            sessions: JoinSet::new(),
            endpoints: BTreeMap::new(),
            cut: BTreeSet::new(),
            _monitor: monitor,
        }
    }

    /// Runs one event; returns its description and the time until the next.
    fn random_event(&mut self, rng: &mut Rng) -> (String, Duration) {
        let event = match rng.below(16) {
            0..=5 => self.start_sessions(rng),
            6..=8 => self.change_endpoints(rng),
            9..=11 => self.change_behaviour(rng),
            12..=13 => self.change_options(rng),
            _ => "nothing".to_owned(),
        };
        (event, if rng.one_in(2) { rng.millis(4_000) } else { Duration::ZERO })
    }

    /// Advances the clock, then runs all tasks that are ready.
    async fn settle(&mut self, time: Duration) {
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        for _ in 0..40 {
            tokio::task::yield_now().await;
        }
        while let Some(ended) = self.sessions.try_join_next() {
            ended.unwrap();
        }
    }

    fn start_sessions(&mut self, rng: &mut Rng) -> String {
        let count = 1 + rng.below(4);
        for _ in 0..count {
            self.begin(rng.millis(20_000), rng.one_in(4).then(|| rng.millis(5_000)), rng.bits());
        }
        format!("{count} sessions come")
    }

    fn begin(&mut self, lifetime: Duration, hold: Option<Duration>, client: u64) {
        let [a, b, c, d, ..] = client.to_be_bytes();
        let session = Session {
            client: [a, b, c, d].into(),
            lifetime,
            hold,
            dialler: Dialler {
                actual: self.actual.clone(),
                cluster: self.cluster.clone(),
                was_refused: false.into(),
                was_untrusted: false.into(),
            },
            hold_limit: self.hold_limit.clone(),
        };
        self.actual.lock().unwrap().pending += 1;
        self.sessions.spawn(session.run());
    }

    /// Updates the endpoints and options of the cluster.
    fn update(&mut self) {
        let change = self.cluster.update(&self.options, &self.specs);
        let mut actual = self.actual.lock().unwrap();
        for key in change.left {
            let incarnation = actual.incarnation(port(&key.addr));
            if self.options.on_remove == OnRemove::Cut {
                self.cut.insert(incarnation);
            }
            *actual.lives.entry(incarnation.0).or_default() += 1;
        }
        for (_, member) in self.cluster.members_arc().all() {
            self.endpoints
                .insert(actual.incarnation(port(&member.endpoint.key.addr)), member.endpoint.clone());
        }
    }

    fn change_endpoints(&mut self, rng: &mut Rng) -> String {
        let weight = |rng: &mut Rng| rng.pick(&[0, 1, 1, 1, 2, 5]);
        let any = u16::try_from(1 + rng.below(PORTS)).unwrap();
        match rng.below(8) {
            0 => self.specs.clear(),
            1 if !self.specs.is_empty() => {
                let changed = usize::try_from(rng.below(self.specs.len() as u64)).unwrap();
                self.specs[changed].weight = weight(rng);
            }
            2 | 3 => self.specs.retain(|one| one.key != spec(any).key),
            _ if self.specs.iter().all(|one| one.key != spec(any).key) => {
                let tier = rng.pick(&[0, 0, 0, BACKUP_TIER]);
                self.specs.push(EndpointSpec { weight: weight(rng), tier, ..spec(any) });
            }
            _ => {}
        }
        self.update();
        let there = self.specs.iter().map(|one| (port(&one.key.addr), one.weight));
        format!("endpoints are {:?}", there.collect::<Vec<_>>())
    }

    fn change_behaviour(&mut self, rng: &mut Rng) -> String {
        let port = u16::try_from(1 + rng.below(PORTS)).unwrap();
        let mut actual = self.actual.lock().unwrap();
        if rng.one_in(3) {
            let becomes_unhealthy = rng.one_in(2);
            if becomes_unhealthy {
                actual.unhealthy.insert(port)
            } else {
                actual.unhealthy.remove(&port)
            };
            return format!("{port} is sick: {becomes_unhealthy}");
        }
        let late = Behaviour::Hangs(rng.millis(6_000));
        let behaviour = rng.pick(&[
            Behaviour::Answers,
            Behaviour::Answers,
            Behaviour::Refuses,
            Behaviour::Refuses,
            Behaviour::Resets,
            Behaviour::Loses(Ending::TunnelLost),
            Behaviour::Loses(Ending::PeerRevoked),
            Behaviour::PeerRefuses,
            Behaviour::Untrusted,
            late,
        ]);
        actual.behaviours.insert(port, behaviour);
        format!("{port} {behaviour:?}")
    }

    fn change_options(&mut self, rng: &mut Rng) -> String {
        let options = &mut self.options;
        match rng.below(9) {
            0 => options.balance = rng.pick(&Balance::ALL),
            1 => options.max_sessions = rng.pick(&[None, Some(1), Some(3), Some(8)]),
            2 => options.max_sessions_per_endpoint = rng.pick(&[None, Some(1), Some(2)]),
            3 => options.hold = rng.pick(&[Duration::ZERO, Duration::from_secs(2), HOLD_MAX]),
            4 => options.on_remove = rng.pick(&OnRemove::ALL),
            5 => options.on_unhealthy = rng.pick(&OnUnhealthy::ALL),
            6 => options.slow_start = rng.pick(&[Duration::ZERO, Duration::from_secs(30)]),
            7 => options.health.interval = rng.pick(&[Duration::from_secs(1), Duration::from_secs(5)]),
            _ => options.health = Health { check: rng.pick(&[Check::Off, Check::Tcp]), ..Health::default() },
        }
        self.update();
        format!("{:?}", self.options.differing(&Options::named("")))
    }
}
